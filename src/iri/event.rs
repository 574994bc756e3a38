//! Classifies a JSON line as a call event, a SentryPeer record, a billing row or stream content (docs/protocol.md). Pure.
//!
//! Invariant: the source of a call event starts with the bytes of the line; added fields are at its end.

use chrono::TimeZone;
use serde_json::value::RawValue;

use super::sentrypeer;
use crate::billing;
use crate::runtime::json::JsonObject;
use crate::search::document::{Document, WriteMode};
use crate::search::event_fields;
use crate::search::index_templates::IndexTemplates;

/// Names of the indices that receive events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventIndices {
    /// Index for call events.
    pub calls: String,
    /// Index for SentryPeer records.
    pub sentrypeer: String,
    /// Index for syslog messages.
    pub syslog: String,
    /// Index for billing rows.
    pub billing: String,
}

impl Default for EventIndices {
    fn default() -> EventIndices {
        let [calls, sentrypeer, syslog, billing] =
            [crate::search::document::INDEX_CALLS, "sentrypeer", "syslog", billing::DEFAULT_INDEX]
                .map(str::to_owned);
        EventIndices { calls, sentrypeer, syslog, billing }
    }
}

impl EventIndices {
    /// Returns the mappings of these indices, and the time of a billing row.
    pub fn templates(&self) -> IndexTemplates {
        let names = [&self.calls, &self.sentrypeer, &self.syslog];
        let events = names.into_iter().filter(|name| **name != self.billing);
        events.fold(billing::index_templates(&self.billing), |templates, name| {
            templates.with_mapping(name, event_fields::mapping())
        })
    }
}

/// Some programs write it before the text. JSON does not allow it (RFC 8259, 8.1).
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

#[derive(Debug, PartialEq, Eq)]
pub enum ClassifiedLine {
    /// An event for the store.
    Event(Document),
    /// Stream content for the vault.
    StreamContent,
}

/// The parse error of a line that is not a JSON object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a JSON object: {0}")]
pub struct NotAnObject(String);

/// Classifies a line. `zone` is the time zone of local times.
pub fn classify<Z: TimeZone>(
    line: &[u8],
    indices: &EventIndices,
    zone: &Z,
) -> Result<ClassifiedLine, NotAnObject> {
    let line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line).trim_ascii();
    let members = parse_object(line)?;
    if let Some(event) = billing::opensips::from_notification(&members) {
        // Only once: a chain of notifications would take time in proportion to the square of its length.
        let members = parse_object(&event)?;
        return Ok(classify_object(&event, &members, indices, zone));
    }
    Ok(classify_object(line, &members, indices, zone))
}

fn parse_object(line: &[u8]) -> Result<JsonObject<'_>, NotAnObject> {
    serde_json::from_slice(line).map_err(|error| NotAnObject(replace_line_position(&error.to_string())))
}

fn classify_object<Z: TimeZone>(
    line: &[u8],
    members: &JsonObject<'_>,
    indices: &EventIndices,
    zone: &Z,
) -> ClassifiedLine {
    let has = |name: &str| members.0.iter().any(|(found, _)| found == name);
    if has("data") && !has("event") && (has("interceptionfilename") || has("userid")) {
        return ClassifiedLine::StreamContent;
    }
    let (index, source) = if has("called_number") && (has("source_ip") || has("sip_method")) {
        (&indices.sentrypeer, sentrypeer::rename_fields(members, zone))
    } else if billing::is_billing_row(has) {
        (&indices.billing, line.to_vec())
    } else {
        (&indices.calls, fill_key_field(line, members))
    };
    let source = source.into_boxed_slice();
    ClassifiedLine::Event(Document {
        index: index.clone(),
        doc_type: None,
        id: None,
        mode: WriteMode::Index,
        source,
    })
}

/// Splits a line that is not a single object, as some senders write it: several objects, or an array of them. `None` if the
/// line is one object, or has anything else in it.
pub(crate) fn split_objects(line: &[u8]) -> Option<Vec<&[u8]>> {
    let line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line).trim_ascii();
    let values = match line.first()? {
        b'[' => serde_json::from_slice::<Vec<&RawValue>>(line).ok()?,
        _ => serde_json::Deserializer::from_slice(line).into_iter().collect::<Result<_, _>>().ok()?,
    };
    let is_list = line[0] == b'[' && !values.is_empty() || values.len() > 1;
    let are_objects = values.iter().all(|value| value.get().starts_with('{'));
    (is_list && are_objects).then(|| values.into_iter().map(|value| value.get().as_bytes()).collect())
}

/// Replaces the position that serde_json reports: the text is a single line.
fn replace_line_position(error: &str) -> String {
    error.replace(" at line 1 column ", " at byte ")
}

/// Returns the line with the field whose value `key` holds (docs/protocol.md).
fn fill_key_field(line: &[u8], members: &JsonObject<'_>) -> Vec<u8> {
    let field = match members.non_empty_string("event").as_deref() {
        Some("user_registration") => "ip_address",
        Some("incoming_call" | "start_call" | "stop_call" | "rejected_call") => "to_user",
        _ => return line.to_vec(),
    };
    let Some(key) = members.non_empty_string("key").filter(|_| members.non_empty_string(field).is_none())
    else {
        return line.to_vec();
    };
    let mut source = Vec::with_capacity(line.len() + key.len() + 32);
    // The trimmed line ends with the closing brace.
    source.extend_from_slice(&line[..line.len() - 1]);
    push_member(&mut source, field, &key);
    source.push(b'}');
    source
}

/// Appends `"name":"value"` to an unclosed object.
pub(crate) fn push_member(object: &mut Vec<u8>, name: &str, value: &str) {
    if object.last() != Some(&b'{') {
        object.push(b',');
    }
    for (text, end) in [(name, b':'), (value, 0)] {
        serde_json::to_writer(&mut *object, text)
            .expect("writing to a Vec cannot fail, and every string is valid JSON");
        if end != 0 {
            object.push(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;

    use super::*;

    fn check_event(line: &str, index: &str, source: &str) {
        let Ok(ClassifiedLine::Event(document)) = classify(line.as_bytes(), &EventIndices::default(), &Utc)
        else {
            panic!("no event: {line}");
        };
        assert_eq!(
            (document.index.as_str(), str::from_utf8(&document.source).unwrap()),
            (index, source),
            "{line}"
        );
    }

    #[test]
    fn the_field_that_key_stands_for_is_added() {
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
    fn existing_fields_are_not_replaced() {
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
    fn billing_rows_go_to_their_own_index() {
        let row = r#"{"call_id":"a","request_time":1,"reply_time":"","key":"x","event":"start_call"}"#;
        check_event(row, "billing", row);
        check_event(r#"{"call_id":"a","reply_time":1}"#, "billing", r#"{"call_id":"a","reply_time":1}"#);
        check_event(r#"{"call_id":"a"}"#, "interception", r#"{"call_id":"a"}"#);
        check_event(r#"{"reply_time":1}"#, "interception", r#"{"reply_time":1}"#);
    }

    #[test]
    fn an_event_of_opensips_is_taken_out_of_its_notification() {
        check_event(
            r#"{"jsonrpc":"2.0","method":"E_QBL","params":{"call_id":"a","request_time":1}}"#,
            "billing",
            r#"{"call_id":"a","request_time":1,"event":"E_QBL"}"#,
        );
        check_event(
            r#"{"jsonrpc":"2.0","method":"E_PIKE_BLOCKED","params":{"ip":"192.0.2.1"}}"#,
            "interception",
            r#"{"ip":"192.0.2.1","event":"E_PIKE_BLOCKED"}"#,
        );
        // A notification in a notification stays.
        let inner = r#"{"jsonrpc":"2.0","method":"m","params":{"a":1}"#;
        check_event(
            &format!(r#"{{"jsonrpc":"2.0","method":"n","params":{inner}}}}}"#),
            "interception",
            &format!(r#"{inner},"event":"n"}}"#),
        );
    }

    #[test]
    fn stream_content_is_not_an_event() {
        let data = |line: &str| {
            classify(line.as_bytes(), &EventIndices::default(), &Utc) == Ok(ClassifiedLine::StreamContent)
        };
        assert!(data(r#"{"data":"AA==","interceptionfilename":"a.pcap"}"#));
        assert!(data(r#"{"userid":"u","data":"AA=="}"#));
        assert!(!data(r#"{"userid":"u","data":"AA==","event":"start_call"}"#));
        assert!(!data(r#"{"data":"AA=="}"#));
    }

    #[test]
    fn a_line_with_several_objects_is_split() {
        let split = |line: &str| {
            let text = |object: &[u8]| String::from_utf8(object.to_vec()).unwrap();
            split_objects(line.as_bytes()).map(|objects| objects.into_iter().map(text).collect::<Vec<_>>())
        };
        let two = Some(vec![r#"{"a":1}"#.to_owned(), r#"{"b":[2]}"#.to_owned()]);
        assert_eq!(split(r#"[{"a":1}, {"b":[2]}]"#), two);
        assert_eq!(split(r#"{"a":1}{"b":[2]}"#), two);
        assert_eq!(split("\u{feff} {\"a\":1} \t {\"b\":[2]} "), two);
        assert_eq!(split(r#"[{"a":1}]"#), Some(vec![r#"{"a":1}"#.to_owned()]));
        for line in
            [r#"{"a":1}"#, "[1]", r#"[{"a":1},2]"#, r#"{"a":1} 2"#, r#"{"a":1}{"b""#, "", "[", "[]", "x"]
        {
            assert_eq!(split(line), None, "{line}");
        }
    }

    #[test]
    fn a_line_that_is_not_an_object_has_a_reason() {
        let why = |line: &[u8]| classify(line, &EventIndices::default(), &Utc).unwrap_err().to_string();
        assert_eq!(why(b"{\"a\":"), "not a JSON object: EOF while parsing a value at byte 5");
        assert_eq!(why(b"[1]"), "not a JSON object: invalid type: sequence, expected an object at byte 0");
        assert!(why(b"{} {}").starts_with("not a JSON object: trailing characters"));
        assert!(why(b"\xff").starts_with("not a JSON object"));
        assert!(why(b"{\"a\":\"\xff\"}").starts_with("not a JSON object"));
        assert!(why(b"").starts_with("not a JSON object: EOF"));
    }
}
