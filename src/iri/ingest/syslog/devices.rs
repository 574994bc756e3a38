//! Forms of syslog that single vendors use. Pure.

use chrono::{DateTime, Datelike, FixedOffset, NaiveDate, NaiveTime, TimeDelta, TimeZone};
use serde_json::{Map, Value};

/// Splits off the counter that Cisco's devices write before the time, with the host before it if the device is configured so:
/// `123: `, `HOST: 123: ` or only `: `. Returns the host and the rest.
pub(super) fn strip_counter(rest: &str) -> Option<(Option<&str>, &str)> {
    if let Some(rest) = rest.strip_prefix(": ") {
        return Some((None, rest));
    }
    let is_counter = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    let (word, behind) = rest.split_once(": ")?;
    if word.contains(' ') {
        return None;
    }
    if is_counter(word) {
        return Some((None, behind));
    }
    let behind = match behind.split_once(": ") {
        Some((counter, behind)) if is_counter(counter) => behind,
        _ => behind,
    };
    Some((Some(word), behind))
}

/// What a message of AudioCodes' gateways says about itself.
#[derive(Debug, Default, PartialEq)]
pub(super) struct GatewayMessage<'a> {
    /// `[S=NUMBER]`: a gap means lost messages.
    sequence: Option<u64>,
    /// `[SID=MAC:RESETS:CALL]`, which is the same for all messages of a call.
    session: Option<&'a str>,
    /// `[BID=MAC:RESETS]` of a message without a call.
    board: Option<&'a str>,
    /// The time at the end: `[Time:30-11@14:02:07.123]` or `[Time: 14:02:07]`.
    pub(super) time: Option<DateTime<FixedOffset>>,
}

impl<'a> GatewayMessage<'a> {
    /// Reads the brackets of a message that starts with its number. `arrived` is in the time zone of the receiver.
    pub(super) fn parse<Z: TimeZone>(text: &'a str, arrived: &DateTime<Z>) -> Option<GatewayMessage<'a>> {
        let mut rest = text;
        let mut found = GatewayMessage::default();
        while let Some((inner, behind)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            let (name, value) = inner.split_once(['=', ':'])?;
            match name {
                "S" => found.sequence = value.parse().ok(),
                "SID" => found.session = Some(value),
                "BID" => found.board = Some(value),
                _ => break,
            }
            rest = behind.trim_start();
        }
        found.sequence?;
        let time = rest.rfind("[Time:").and_then(|at| rest[at + "[Time:".len()..].split_once(']'));
        found.time = time.and_then(|(time, _)| parse_time(time.trim(), arrived));
        Some(found)
    }

    pub(super) fn insert_into(&self, fields: &mut Map<String, Value>) {
        let mut insert = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                fields.insert(name.to_owned(), value);
            }
        };
        insert("gateway_sequence", self.sequence.map(Value::from));
        insert("gateway_session", self.session.map(Value::from));
        insert("gateway_board", self.board.map(Value::from));
    }
}

/// Parses `DD-MM@HH:MM:SS.mmm` or `HH:MM:SS.mmm`. The year or the day is the one that gives the time nearest to the arrival.
fn parse_time<Z: TimeZone>(text: &str, arrived: &DateTime<Z>) -> Option<DateTime<FixedOffset>> {
    let (day, time) = match text.split_once('@') {
        Some((day, time)) => (Some(day), time),
        None => (None, text),
    };
    let time = NaiveTime::parse_from_str(time, "%H:%M:%S%.f").ok()?;
    let today = arrived.date_naive();
    let days: Vec<NaiveDate> = match day {
        Some(day) => {
            let (day, month) = day.split_once('-')?;
            let (day, month) = (day.parse().ok()?, month.parse().ok()?);
            let years = [today.year() - 1, today.year(), today.year() + 1];
            years.into_iter().filter_map(|year| NaiveDate::from_ymd_opt(year, month, day)).collect()
        }
        None => [-1, 0, 1]
            .into_iter()
            .filter_map(|days| today.checked_add_signed(TimeDelta::days(days)))
            .collect(),
    };
    let times = days.into_iter().filter_map(|day| {
        let local = arrived.timezone().from_local_datetime(&day.and_time(time)).earliest()?;
        Some(local.fixed_offset())
    });
    times.min_by_key(|time| time.signed_duration_since(arrived).abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_cisco_are_split_off() {
        for (text, expected) in [
            ("123: x", Some((None, "x"))),
            (": x", Some((None, "x"))),
            ("gw1: 000123: x", Some((Some("gw1"), "x"))),
            ("gw1: x", Some((Some("gw1"), "x"))),
            ("a b: 1: x", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(strip_counter(text), expected, "{text}");
        }
    }

    #[track_caller]
    fn check(text: &str, arrived: &str, fields: &str, time: Option<&str>) {
        let arrived = DateTime::parse_from_rfc3339(arrived).unwrap();
        let found = GatewayMessage::parse(text, &arrived).unwrap_or_else(|| panic!("{text}"));
        let mut map = Map::new();
        found.insert_into(&mut map);
        assert_eq!(Value::Object(map).to_string(), fields);
        assert_eq!(found.time, time.map(|time| DateTime::parse_from_rfc3339(time).unwrap()), "{text}");
    }

    #[test]
    fn messages_of_audiocodes_have_a_session() {
        let arrived = "2026-11-30T00:00:05+01:00";
        check(
            "[S=237][SID=2ed1c8:96:5] (lgr_flow)(621) #0:DIGIT_EV [Time:29-11@23:59:59.250]",
            arrived,
            r#"{"gateway_sequence":237,"gateway_session":"2ed1c8:96:5"}"#,
            Some("2026-11-29T23:59:59.25+01:00"),
        );
        check(
            "[S=9399] [BID=2ed1c8:96] invalid Physical index [Time: 23:59:58]",
            arrived,
            r#"{"gateway_board":"2ed1c8:96","gateway_sequence":9399}"#,
            Some("2026-11-29T23:59:58+01:00"),
        );
        check(
            "[S=1] [SID:1034099026] x",
            arrived,
            r#"{"gateway_sequence":1,"gateway_session":"1034099026"}"#,
            None,
        );
        check("[S=1] [Time:31-02@00:00:00]", arrived, r#"{"gateway_sequence":1}"#, None);
        check(
            "[S=1] x [Time:01-01@00:00:00]",
            "2026-12-31T23:59:59Z",
            r#"{"gateway_sequence":1}"#,
            Some("2027-01-01T00:00:00Z"),
        );
        let arrived = DateTime::parse_from_rfc3339(arrived).unwrap();
        for other in ["", "x", "[S=", "[S=x] a", "[SID=1] a", "[a b]", "[]"] {
            assert_eq!(GatewayMessage::parse(other, &arrived), None, "{other}");
        }
    }
}
