//! Rules for particular kinds of documents: mappings of new indices, and the time of an event. The code that opens a store
//! passes them in, so that no store depends on what its documents mean. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, NaiveDateTime};

use crate::search::mapping::Mapping;

/// Members of a document that contain the time of the event as text, in the order of preference.
const TIME_MEMBERS: [&str; 3] = ["@timestamp", "time", "timestamp"];

/// Years 0 to 9999, in milliseconds since 1970: the times that RFC 3339 can express. Queries could not name any others.
const TIMES_MS: std::ops::Range<i64> = -62_167_219_200_000..253_402_300_800_000;

/// Function that reads the time of an event in milliseconds since 1970. Its argument returns the text of a member that
/// is a string or a number.
pub type EventTimeFn = for<'a> fn(&dyn Fn(&str) -> Option<Cow<'a, str>>) -> Option<i64>;

#[derive(Clone, Debug, Default)]
pub struct IndexTemplates {
    mappings: BTreeMap<String, Mapping>,
    event_time: Option<EventTimeFn>,
}

impl IndexTemplates {
    /// Adds one of the service's own indices, with the mapping that it gets when it is created.
    pub fn with_mapping(mut self, index: &str, mapping: Mapping) -> IndexTemplates {
        self.mappings.insert(index.to_owned(), mapping);
        self
    }

    /// Sets the function for documents in which no usual member has a time.
    pub fn with_event_time(self, event_time: EventTimeFn) -> IndexTemplates {
        IndexTemplates { event_time: Some(event_time), ..self }
    }

    /// Returns true for the service's own indices. They accept every JSON object: a value that cannot be indexed is stored
    /// and listed in `_ignored`. So no sender can keep the events of others out.
    pub(crate) fn is_own(&self, index: &str) -> bool {
        self.mappings.contains_key(index)
    }

    /// Returns the mapping that an index gets when it is created.
    pub(crate) fn mapping(&self, index: &str) -> Option<&Mapping> {
        self.mappings.get(index)
    }

    /// Returns the time of an event in milliseconds since 1970. `string` returns a member that is a string, and `scalar`
    /// the text of a member that is a string or a number.
    pub(crate) fn event_time_ms<'a>(
        &self,
        string: impl Fn(&str) -> Option<Cow<'a, str>>,
        scalar: &dyn Fn(&str) -> Option<Cow<'a, str>>,
    ) -> Option<i64> {
        let usual = TIME_MEMBERS.iter().find_map(|name| parse_event_time(&string(name)?));
        let found = usual.or_else(|| self.event_time.and_then(|event_time| event_time(scalar)));
        found.filter(|ms| TIMES_MS.contains(ms))
    }
}

/// Parses the time of an event to milliseconds since 1970. A time without a zone is UTC.
pub(crate) fn parse_event_time(text: &str) -> Option<i64> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Some(at.timestamp_millis());
    }
    for format in ["%Y-%m-%d %H:%M:%S%z", "%Y/%m/%d %H:%M:%S %z"] {
        if let Ok(at) = DateTime::parse_from_str(text, format) {
            return Some(at.timestamp_millis());
        }
    }
    for format in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M"] {
        if let Ok(at) = NaiveDateTime::parse_from_str(text, format) {
            return Some(at.and_utc().timestamp_millis());
        }
    }
    let day =
        ["%Y-%m-%d", "%Y/%m/%d"].iter().find_map(|format| NaiveDate::parse_from_str(text, format).ok())?;
    Some(day.and_hms_opt(0, 0, 0)?.and_utc().timestamp_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_time_of_usual_members_precedes_the_function() {
        let templates = IndexTemplates::default().with_event_time(|scalar| scalar("seconds")?.parse().ok());
        let check = |members: &[(&str, &'static str)], expected: Option<i64>| {
            let member = |name: &str| {
                members.iter().find(|(key, _)| *key == name).map(|(_, value)| Cow::Borrowed(*value))
            };
            assert_eq!(templates.event_time_ms(member, &member), expected, "{members:?}");
        };
        check(&[("seconds", "7")], Some(7));
        check(&[("seconds", "7"), ("time", "soon")], Some(7));
        check(&[("seconds", "7"), ("time", "1970-01-01T00:00:01Z")], Some(1_000));
        check(&[("timestamp", "1970-01-02"), ("@timestamp", "1970-01-01T00:00")], Some(0));
        check(&[("time", "1970/01/01 01:00:00 +0100")], Some(0));
        check(&[("time", "1970-01-01 00:00:00-0100")], Some(3_600_000));
        check(&[("time", "0000-01-01T00:00:00Z")], Some(TIMES_MS.start));
        check(&[("time", "9999-12-31T23:59:59.999Z")], Some(TIMES_MS.end - 1));
        check(&[("time", "-0001-12-31")], None);
        check(&[("time", "+10000-01-01")], None);
        check(&[("seconds", "9223372036854775807")], None);
        check(&[], None);
        assert_eq!(IndexTemplates::default().event_time_ms(|_| None, &|_| Some("7".into())), None);
    }
}
