//! The quick billing log (protocol, section 8): rows of a proxy, calls made of them, and two sides compared. Pure.
//!
//! `row` reads a row, `time` the times in it; `call` puts the rows of one call together, `compare` lays two calls beside each
//! other, `totals` adds them up. What is taken, and how a row says which of the four it is, stands in docs/billing.md.
//!
//! All times are microseconds since 1970, UTC; all spans are microseconds.

mod call;
mod compare;
mod record;
mod row;
mod time;
mod totals;

use std::borrow::Cow;
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::mapping::Mapping;

pub use call::{Builder, Call, Missing, Side};
pub use compare::{Difference, Differences, compare};
pub use record::{BadRecord, decode, encode};
pub use row::{Column, Fields, ID_BYTES_MAX, Kind, Row, Unfit};
pub use time::Clock;
pub use totals::{Group, Key, Sums};

/// The index of rows, unless the configuration names another.
pub const INDEX: &str = "billing";

/// True for an object that is a row of the log: it names a call and a time of it, and is no call event.
pub fn is_row(has: impl Fn(&str) -> bool) -> bool {
    has("call_id") && (has("request_time") || has("reply_time"))
}

/// The types of a row's fields: times are dates in any of the forms that rows have, and a time that is empty (a request has
/// no reply yet) is left out instead of refusing the row.
pub fn mapping() -> Value {
    let keyword = || json!({"type": "keyword"});
    let date = || json!({"type": "date", "format": DATES, "ignore_malformed": true});
    let number = |kind: &str| json!({"type": kind, "ignore_malformed": true});
    json!({"properties": {
        "request_time": date(), "reply_time": date(),
        "microseconds": number("integer"), "reply_code": number("integer"),
        "caller_id": keyword(), "callee_id": keyword(), "call_id": keyword(), "method": keyword(),
    }})
}

/// The same as a store of our own has it.
pub fn fields() -> &'static Mapping {
    static FIELDS: OnceLock<Mapping> = OnceLock::new();
    FIELDS.get_or_init(|| Mapping::parse(&mapping()).expect("the mapping is our own, and a test reads it"))
}

/// Formats of times in rows, as Elasticsearch writes them. Seconds come first: a number of seconds is one of
/// milliseconds too.
const DATES: &str = "epoch_second||strict_date_optional_time||yyyy-MM-dd HH:mm:ss||yyyy-MM-dd HH:mm:ssXX||yyyy-MM-dd HH:mm:ssXXX";

/// When the row happened, in milliseconds; none where the object is no row or has no time that can be read. Texts
/// without a zone are UTC, as in the store. `scalar`: the text of a member that is a string or a number.
pub fn time_ms<'a>(scalar: impl Fn(&str) -> Option<Cow<'a, str>>) -> Option<i64> {
    scalar("call_id")?;
    let clock = Clock::utc();
    let read = |name: &str| {
        scalar(name).filter(|text| !row::is_nothing(text)).and_then(|text| clock.read(&text).ok())
    };
    read("reply_time").or_else(|| read("request_time")).map(|us| us.div_euclid(1_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iri::event::Members;

    #[test]
    fn the_mapping_is_one() {
        assert_eq!(fields().to_json(), mapping());
    }

    #[test]
    fn rows_have_times() {
        let check = |row: Value, expected: Option<i64>| {
            let text = row.to_string();
            let members: Members<'_> = serde_json::from_str(&text).unwrap();
            assert_eq!(time_ms(|name| members.scalar(name)), expected, "{row}");
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
