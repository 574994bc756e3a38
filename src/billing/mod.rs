//! The quick billing log (docs/protocol.md, section 8): a proxy's rows, the calls built from them, and the comparison of
//! two sides.
//!
//! `opensips` takes rows out of the events of OpenSIPS.
//! `fields` reads the fields of a row, `label` the SIP message that it describes, and `time` its time; `row` puts them
//! together. `input` reads rows from files and stores, and `external_sort` sorts them by call. `call` builds a call from its rows, `compare` compares the calls of two
//! sides, and `totals` adds calls up. docs/billing.md describes the accepted forms of a row.
//!
//! All times are microseconds since 1970 in UTC; all durations are microseconds.

mod call;
pub(crate) mod calls;
mod compare;
pub(crate) mod external_sort;
mod fields;
pub(crate) mod input;
mod json_array;
mod label;
pub(crate) mod opensips;
mod pairs;
mod record;
mod row;
mod time;
mod totals;

use std::borrow::Cow;
use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::search::index_templates::IndexTemplates;
use crate::search::mapping::Mapping;

pub use call::{BilledCall, CallBuilder, CallParty, MissingParts};
pub use compare::{Difference, Differences, compare_calls};
pub(crate) use fields::RowColumn;
pub use fields::{RowError, RowFields};
pub use json_array::split_objects;
pub use label::RowKind;
pub(crate) use pairs::{CallPair, PairReader};
pub use record::{InvalidRecord, decode_row, encode_row};
pub use row::BillingRow;
pub use time::RowTimeParser;
pub(crate) use totals::{CallGroup, CallSums, GroupKey, GroupTotals, TotalsBuilder};

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
    // `epoch_second` is first, because a number of seconds would also be accepted as milliseconds.
    let format = format!("epoch_second||{}", time::DATE_FORMATS);
    let date = || json!({"type": "date", "format": format, "ignore_malformed": true});
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

/// Returns the time of a row in milliseconds, or `None` if the object is not a row or its time is malformed. A time
/// without a zone is UTC, as in the store. `scalar` returns the text of a member that is a string or a number.
pub fn row_time_ms<'a>(scalar: impl Fn(&str) -> Option<Cow<'a, str>>) -> Option<i64> {
    static UTC: LazyLock<RowTimeParser> = LazyLock::new(RowTimeParser::utc);
    scalar("call_id")?;
    let parse = |name: &str| {
        scalar(name).filter(|text| !fields::is_absent(text)).and_then(|text| UTC.parse(&text).ok())
    };
    parse("reply_time").or_else(|| parse("request_time")).map(|us| us.div_euclid(1_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::json::JsonObject;

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
