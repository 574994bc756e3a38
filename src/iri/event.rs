//! A line of JSON, and what becomes of it: a call event (protocol, section 5), a fraud attempt that SentryPeer logged, a row
//! of a billing log (section 8), or content of a stream (section 4). Pure.
//!
//! Invariant: a call event's source begins with the line byte by byte; what is filled in stands at its end.

use std::borrow::Cow;
use std::fmt;

use chrono::{DateTime, TimeZone, Utc};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::document::{Document, Mode};
use super::{billing, sentrypeer};

/// Into which indices events go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Indices {
    /// Call events.
    pub calls: String,
    /// What SentryPeer logs.
    pub sentrypeer: String,
    /// Syslog messages.
    pub syslog: String,
    /// Rows of a billing log.
    pub billing: String,
}

impl Default for Indices {
    fn default() -> Indices {
        let [calls, sentrypeer, syslog, billing] =
            [super::document::INDEX_CALLS, "sentrypeer", "syslog", billing::INDEX].map(str::to_owned);
        Indices { calls, sentrypeer, syslog, billing }
    }
}

/// What a line is.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// An event, for the store.
    Event(Document),
    /// Content of a stream, for the vault.
    Data,
}

/// Why a line is none of these.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no JSON object: {0}")]
pub struct NoObject(String);

/// The members of an object in their order; values are as they stand.
pub(super) struct Members<'a>(pub Vec<(Cow<'a, str>, &'a RawValue)>);

/// `Cow` alone would always own what it is given.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::with_capacity(16);
                while let Some((Name(name), value)) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

impl<'a> Members<'a> {
    /// The text of a member, of two the last one's; none if it is no string or empty.
    pub fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        let (_, raw) = self.0.iter().rfind(|(found, _)| found == name)?;
        text(raw).filter(|text| !text.is_empty())
    }

    /// The text of a member that is a string or a number, of two the last one's.
    pub fn scalar(&self, name: &str) -> Option<Cow<'a, str>> {
        let (_, raw) = self.0.iter().rfind(|(found, _)| found == name)?;
        let is_number = |raw: &&str| raw.starts_with(|first: char| first == '-' || first.is_ascii_digit());
        text(raw).or_else(|| Some(raw.get()).filter(is_number).map(Cow::Borrowed))
    }
}

/// The text of a string; none for other values.
pub(super) fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Name<'_>>(raw.get()).ok().map(|Name(text)| text)
}

/// Reads a line. `zone` is what local times without one are in.
pub fn read<Z: TimeZone>(line: &[u8], indices: &Indices, zone: &Z) -> Result<Line, NoObject> {
    // What a reader of text would strip; JSON itself has no byte order mark (RFC 8259, 8.1).
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line).trim_ascii();
    let members: Members<'_> =
        serde_json::from_slice(line).map_err(|error| NoObject(without_line(&error.to_string())))?;
    let has = |name: &str| members.0.iter().any(|(found, _)| found == name);
    if has("data") && !has("event") && (has("interceptionfilename") || has("userid")) {
        return Ok(Line::Data);
    }
    let (index, source) = if has("called_number") && (has("source_ip") || has("sip_method")) {
        (&indices.sentrypeer, sentrypeer::renamed(&members, zone))
    } else if billing::is_row(has) {
        (&indices.billing, line.to_vec())
    } else {
        (&indices.calls, filled(line, &members))
    };
    let source = source.into_boxed_slice();
    Ok(Line::Event(Document { index: index.clone(), kind: None, id: None, mode: Mode::Index, source }))
}

/// serde_json counts lines, of which there is one.
fn without_line(error: &str) -> String {
    error.replace(" at line 1 column ", " at byte ")
}

/// The line, with the field that `key` stands for (protocol, section 5).
fn filled(line: &[u8], members: &Members<'_>) -> Vec<u8> {
    let field = match members.text("event").as_deref() {
        Some("user_registration") => "ip_address",
        Some("incoming_call" | "start_call" | "stop_call" | "rejected_call") => "to_user",
        _ => return line.to_vec(),
    };
    let Some(key) = members.text("key").filter(|_| members.text(field).is_none()) else {
        return line.to_vec();
    };
    let mut source = Vec::with_capacity(line.len() + key.len() + 32);
    // An object ends with its brace: the line is trimmed.
    source.extend_from_slice(&line[..line.len() - 1]);
    push_member(&mut source, field, &key);
    source.push(b'}');
    source
}

/// Appends `,"name":"value"` to an object that has members already.
pub(super) fn push_member(object: &mut Vec<u8>, name: &str, value: &str) {
    if object.last() != Some(&b'{') {
        object.push(b',');
    }
    for (text, end) in [(name, b':'), (value, 0)] {
        serde_json::to_writer(&mut *object, text).expect("a Vec takes all, and a string is JSON");
        if end != 0 {
            object.push(end);
        }
    }
}

/// A time as documents have it: RFC 3339, UTC, milliseconds.
pub(super) fn rfc3339<Z: TimeZone>(time: &DateTime<Z>) -> String {
    time.with_timezone(&Utc).to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_event(line: &str, index: &str, source: &str) {
        let Ok(Line::Event(document)) = read(line.as_bytes(), &Indices::default(), &Utc) else {
            panic!("no event: {line}");
        };
        assert_eq!(
            (document.index.as_str(), str::from_utf8(&document.source).unwrap()),
            (index, source),
            "{line}"
        );
    }

    #[test]
    fn key_stays_and_the_field_that_it_stands_for_is_filled() {
        check_event(
            r#"{"event": "user_registration", "key": "10.77.0.1"}"#,
            "interception",
            r#"{"event": "user_registration", "key": "10.77.0.1","ip_address":"10.77.0.1"}"#,
        );
        for event in ["incoming_call", "start_call", "stop_call", "rejected_call"] {
            let line = format!(r#" {{"key":"+447700900456","event":"{event}"}} "#);
            let source = format!(r#"{{"key":"+447700900456","event":"{event}","to_user":"+447700900456"}}"#);
            check_event(&line, "interception", &source);
        }
    }

    #[test]
    fn what_is_there_is_not_filled() {
        for line in [
            r#"{"event":"undefined","key":"x"}"#,
            r#"{"event":"undefined"}"#,
            r#"{"event":"start_call","key":"a","to_user":"b"}"#,
            r#"{"event":"start_call","key":7}"#,
            r#"{"event":"start_call","key":""}"#,
            r#"{"event":"start_call"}"#,
            r#"{"event":["start_call"],"key":"a"}"#,
            r#"{"message":"hello","nested":{"called_number":1}}"#,
            "{}",
        ] {
            check_event(line, "interception", line);
        }
        check_event(
            r#"{"event":"start_call","key":"a","to_user":""}"#,
            "interception",
            r#"{"event":"start_call","key":"a","to_user":"","to_user":"a"}"#,
        );
    }

    #[test]
    fn rows_of_a_billing_log_have_an_index_of_their_own() {
        let row = r#"{"call_id":"a","request_time":1,"reply_time":"","key":"x","event":"start_call"}"#;
        check_event(row, "billing", row);
        check_event(r#"{"call_id":"a","reply_time":1}"#, "billing", r#"{"call_id":"a","reply_time":1}"#);
        check_event(r#"{"call_id":"a"}"#, "interception", r#"{"call_id":"a"}"#);
        check_event(r#"{"reply_time":1}"#, "interception", r#"{"reply_time":1}"#);
    }

    #[test]
    fn content_is_told_from_events() {
        let data = |line: &str| read(line.as_bytes(), &Indices::default(), &Utc) == Ok(Line::Data);
        assert!(data(r#"{"data":"AA==","interceptionfilename":"a.pcap"}"#));
        assert!(data(r#"{"userid":"u","data":"AA=="}"#));
        assert!(!data(r#"{"userid":"u","data":"AA==","event":"start_call"}"#));
        assert!(!data(r#"{"data":"AA=="}"#));
    }

    #[test]
    fn what_is_no_object_says_why() {
        let why = |line: &[u8]| read(line, &Indices::default(), &Utc).unwrap_err().to_string();
        assert_eq!(why(b"{\"a\":"), "no JSON object: EOF while parsing a value at byte 5");
        assert_eq!(why(b"[1]"), "no JSON object: invalid type: sequence, expected an object at byte 0");
        assert!(why(b"{} {}").starts_with("no JSON object: trailing characters"));
        assert!(why(b"\xff").starts_with("no JSON object"));
        assert!(why(b"{\"a\":\"\xff\"}").starts_with("no JSON object"));
        assert!(why(b"").starts_with("no JSON object: EOF"));
    }
}
