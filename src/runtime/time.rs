//! Times as text: RFC 3339, made only here.

use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Local, SecondsFormat, TimeZone, Utc};

/// Returns the current time. A clock that is set before 1970 gives a time before 1970, for which chrono's `now` panics.
pub(crate) fn now() -> DateTime<Utc> {
    let (seconds, nanoseconds) = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos()),
        // The fraction does not matter for a clock that is wrong.
        Err(before) => (i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |seconds| -seconds), 0),
    };
    DateTime::from_timestamp(seconds, nanoseconds).unwrap_or_default()
}

/// Returns the current time in the time zone of the machine.
pub(crate) fn now_local() -> DateTime<Local> {
    now().with_timezone(&Local)
}

/// Returns the current time in milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    now().timestamp_millis()
}

/// Formats a time in UTC with milliseconds, for example `2026-11-21T20:59:41.123Z`.
///
/// A leap second (`23:59:60`) becomes the second after it, because most readers refuse a second 60.
pub(crate) fn rfc3339<Z: TimeZone>(time: &DateTime<Z>) -> String {
    let time = DateTime::from_timestamp_millis(time.timestamp_millis()).unwrap_or(time.with_timezone(&Utc));
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Formats milliseconds since 1970 in UTC. A value out of chrono's range becomes 1970.
pub(crate) fn rfc3339_ms(ms: i64) -> String {
    rfc3339(&DateTime::<Utc>::from_timestamp_millis(ms).unwrap_or_default())
}

/// Formats nanoseconds since 1970 in UTC with nanoseconds.
pub(crate) fn rfc3339_ns(ns: i64) -> String {
    DateTime::from_timestamp_nanos(ns).to_rfc3339_opts(SecondsFormat::Nanos, true)
}

/// Formats the current time in UTC with milliseconds.
pub(crate) fn rfc3339_now() -> String {
    rfc3339(&now())
}

/// Formats a time with milliseconds and the offset of its own time zone.
pub(crate) fn rfc3339_with_offset<Z: TimeZone>(time: &DateTime<Z>) -> String
where
    Z::Offset: std::fmt::Display,
{
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc_with_fixed_digits() {
        assert_eq!(rfc3339_ms(1_795_294_781_123), "2026-11-21T20:59:41.123Z");
        assert_eq!(rfc3339_ms(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339_ms(i64::MAX), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339_ns(1_795_294_781_000_000_001), "2026-11-21T20:59:41.000000001Z");
        let local = DateTime::parse_from_rfc3339("2026-11-21T22:59:41+02:00").unwrap();
        assert_eq!(rfc3339(&local), "2026-11-21T20:59:41.000Z");
        assert_eq!(rfc3339_with_offset(&local), "2026-11-21T22:59:41.000+02:00");
    }
}
