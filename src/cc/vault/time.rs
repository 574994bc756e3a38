//! Times as RFC 3339 text in UTC with milliseconds.

use chrono::{DateTime, SecondsFormat, Utc};

/// Returns the current time in milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    Utc::now().timestamp_millis()
}

/// Formats milliseconds since 1970, for example `2026-11-21T20:59:41.123Z`.
pub(crate) fn rfc3339(ms: i64) -> String {
    DateTime::<Utc>::from_timestamp_millis(ms)
        .unwrap_or_default()
        .to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Formats the current time.
pub(crate) fn now_rfc3339() -> String {
    rfc3339(now_ms())
}
