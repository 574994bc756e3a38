//! The quick billing log (docs/protocol.md, section 8): a proxy's rows, the calls built from them, and the comparison of
//! two sides.
//!
//! `row` parses a row and `time` the times in it. `call` builds a call from its rows, `compare` compares the calls of two
//! sides, and `totals` adds calls up. docs/billing.md describes the accepted forms of a row.
//!
//! All times are microseconds since 1970 in UTC; all durations are microseconds.

mod call;
pub(crate) mod calls;
mod compare;
pub(crate) mod external_sort;
pub(crate) mod input;
mod record;
mod row;
mod time;
mod totals;

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::search::index_templates::IndexTemplates;
use crate::search::mapping::Mapping;

pub use call::{BilledCall, CallBuilder, CallParty, MissingParts};
pub use compare::{Difference, Differences, compare_calls};
pub use record::{InvalidRecord, decode_row, encode_row};
pub use row::{BillingRow, ID_BYTES_MAX, RowColumn, RowError, RowFields, RowKind};
pub use time::RowTimeParser;
pub use totals::{CallGroup, CallSums, GroupKey};

/// The default name of the index that stores rows.
pub const DEFAULT_INDEX: &str = "billing";

/// Returns true for an object that is a row of the log and not a call event: it has a call ID and a time.
pub fn is_billing_row(has: impl Fn(&str) -> bool) -> bool {
    has("call_id") && (has("request_time") || has("reply_time"))
}

/// Returns the mapping of the index as JSON. Times are dates in any of the accepted forms. A malformed value is not
/// indexed, but does not reject the row: a request row has an empty `reply_time`.
fn mapping_json() -> Value {
    let keyword = || json!({"type": "keyword"});
    let date = || json!({"type": "date", "format": DATES, "ignore_malformed": true});
    let number = |kind: &str| json!({"type": kind, "ignore_malformed": true});
    json!({"properties": {
        "request_time": date(), "reply_time": date(),
        "microseconds": number("integer"), "reply_code": number("integer"),
        "caller_id": keyword(), "callee_id": keyword(), "call_id": keyword(), "method": keyword(),
    }})
}

fn mapping() -> Mapping {
    Mapping::parse(&mapping_json()).expect("the mapping is our own, and a test reads it")
}

/// Returns the rules for a store whose index `index` receives billing rows.
pub fn index_templates(index: &str) -> IndexTemplates {
    IndexTemplates::default().with_mapping(index, mapping()).with_event_time(|scalar| row_time_ms(scalar))
}

/// The formats of times in rows, in Elasticsearch's syntax. `epoch_second` is first, because a number of seconds would
/// also be accepted as milliseconds.
const DATES: &str = "epoch_second||strict_date_optional_time||yyyy-MM-dd HH:mm:ss||yyyy-MM-dd HH:mm:ssXX||yyyy-MM-dd HH:mm:ssXXX";

/// Returns the time of a row in milliseconds, or `None` if the object is not a row or its time is malformed. A time
/// without a zone is UTC, as in the store. `scalar` returns the text of a member that is a string or a number.
pub fn row_time_ms<'a>(scalar: impl Fn(&str) -> Option<Cow<'a, str>>) -> Option<i64> {
    scalar("call_id")?;
    let clock = RowTimeParser::utc();
    let read = |name: &str| {
        scalar(name).filter(|text| !row::is_absent(text)).and_then(|text| clock.parse(&text).ok())
    };
    read("reply_time").or_else(|| read("request_time")).map(|us| us.div_euclid(1_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iri::event::JsonObject;

    #[test]
    fn the_mapping_survives_a_round_trip() {
        assert_eq!(mapping().to_json(), mapping_json());
    }

    #[test]
    fn the_time_of_a_row_is_that_of_its_reply_or_its_request() {
        let check = |row: Value, expected: Option<i64>| {
            let text = row.to_string();
            let members: JsonObject<'_> = serde_json::from_str(&text).unwrap();
            assert_eq!(row_time_ms(|name| members.scalar(name)), expected, "{row}");
        };
        check(json!({"call_id": "a", "request_time": 1_795_305_600}), Some(1_795_305_600_000));
        check(
            json!({"call_id": "a", "request_time": 1, "reply_time": "2026-11-22T00:00:00.5Z"}),
            Some(1_795_305_600_500),
        );
        check(json!({"call_id": "a", "request_time": "7", "reply_time": ""}), Some(7_000));
        check(json!({"call_id": "a", "request_time": "x"}), None);
        check(json!({"request_time": 1}), None);
        check(json!({"call_id": "a"}), None);
    }
}
