//! Parser for a line of an event file: an event, a dead letter, or a document with index and id. Pure code.

use chrono::Local;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::iri::event::{self, ClassifiedLine, EventIndices, NotAnObject};
use crate::search::dead_letters;
use crate::search::document::{Document, ID_BYTES_MAX, WriteMode, check_index_name};

/// Why a line was rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LineError {
    #[error(transparent)]
    NotAnObject(#[from] NotAnObject),
    /// The line is content of a stream.
    #[error("this is content of a stream, not an event (send it to --content-lines)")]
    StreamContent,
    #[error("invalid index name {0:?}: {1}")]
    Index(String, &'static str),
    #[error("_id has {0} bytes (1 to {ID_BYTES_MAX} are allowed)")]
    Id(usize),
}

/// The output of `lea search --json`, and of dump tools for other servers.
#[derive(Deserialize)]
struct DumpedDocument<'a> {
    #[serde(rename = "_index")]
    index: String,
    #[serde(rename = "_id")]
    id: String,
    #[serde(rename = "_source", borrow)]
    source: &'a RawValue,
}

/// Parses a line. An event without an index goes to the index that a listener would choose.
pub(super) fn parse_line(line: &[u8], indices: &EventIndices) -> Result<Document, LineError> {
    if let Ok(DumpedDocument { index, id, source }) = serde_json::from_slice(line) {
        if !(1..=ID_BYTES_MAX).contains(&id.len()) {
            return Err(LineError::Id(id.len()));
        }
        return document(source.get().as_bytes(), &index, Some(id));
    }
    if let Some(Ok(dead_letter)) = dead_letters::read(line).next() {
        return match dead_letter_index(&dead_letter.source) {
            Some(index) => document(&dead_letter.text, index, None),
            None => parse_received(&dead_letter.text, indices),
        };
    }
    parse_received(line, indices)
}

/// Parses a line in the form in which senders send it.
fn parse_received(line: &[u8], indices: &EventIndices) -> Result<Document, LineError> {
    match event::classify(line, indices, &Local)? {
        ClassifiedLine::Event(document) => Ok(document),
        ClassifiedLine::StreamContent => Err(LineError::StreamContent),
    }
}

/// Returns the index of a dead letter, if it was known: `http 192.0.2.1:6000 opensips`.
fn dead_letter_index(source: &str) -> Option<&str> {
    source.splitn(3, ' ').nth(2)
}

fn document(source: &[u8], index: &str, id: Option<String>) -> Result<Document, LineError> {
    check_index_name(index).map_err(|why| LineError::Index(index.to_owned(), why))?;
    let source = source.trim_ascii().into();
    Ok(Document { index: index.to_owned(), doc_type: None, id, mode: WriteMode::Create, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_read(line: &str, index: &str, id: Option<&str>, source: &str) {
        let document = parse_line(line.as_bytes(), &EventIndices::default())
            .unwrap_or_else(|error| panic!("{line}: {error}"));
        assert_eq!((document.index.as_str(), document.id.as_deref()), (index, id), "{line}");
        assert_eq!(std::str::from_utf8(&document.source).unwrap(), source, "{line}");
    }

    #[test]
    fn each_form_of_a_line_is_accepted() {
        check_read(r#"{"event": "start_call"}"#, "interception", None, r#"{"event": "start_call"}"#);
        let filled = r#"{"event":"start_call","key":"a","to_user":"a"}"#;
        check_read(r#"{"event":"start_call","key":"a"}"#, "interception", None, filled);
        let whole = r#"{"_index":"opensips","_id":"7","_time":null,"_source":{"a": 1}}"#;
        check_read(whole, "opensips", Some("7"), r#"{"a": 1}"#);
        let dead_letter = |source: &str| {
            format!(
                r#"{{"time":"2026-11-21T00:00:00Z","source":"{source}","reason":"no","text":"{{\"a\":1}}"}}"#
            )
        };
        check_read(&dead_letter("lines 192.0.2.1:5000"), "interception", None, r#"{"a":1}"#);
        check_read(&dead_letter("http 192.0.2.1:6000 opensips"), "opensips", None, r#"{"a":1}"#);
        let base64 = r#"{"time":"t","source":"lines","reason":"no","base64":"e30="}"#;
        check_read(base64, "interception", None, "{}");
    }

    #[test]
    fn rejected_lines_have_a_reason() {
        let why = |line: &[u8]| parse_line(line, &EventIndices::default()).unwrap_err().to_string();
        assert_eq!(why(b"[1]"), "not a JSON object: invalid type: sequence, expected an object at byte 0");
        assert_eq!(why(b"{\"a\":"), "not a JSON object: EOF while parsing a value at byte 5");
        assert!(why(b"\xff").starts_with("not a JSON object"));
        assert!(why(b"{} {}").starts_with("not a JSON object: trailing characters"));
        assert!(why(br#"{"_index":"A","_id":"1","_source":{}}"#).starts_with("invalid index name \"A\""));
        assert!(why(br#"{"_index":"a","_id":"","_source":{}}"#).contains("0 bytes"));
        let long = format!(r#"{{"_index":"a","_id":"{}","_source":{{}}}}"#, "x".repeat(ID_BYTES_MAX + 1));
        assert!(why(long.as_bytes()).contains("513 bytes"));
        assert!(why(br#"{"userid":"a","data":"AA=="}"#).starts_with("this is content of a stream"));
        let dead_letter = br#"{"time":"t","source":"lines","reason":"no","text":"{half"}"#;
        assert!(why(dead_letter).starts_with("not a JSON object"));
    }
}
