//! A line of a file of events: an event, a dead letter, or a document with its index and id. Pure.

use chrono::Local;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::iri::document::{Document, ID_BYTES_MAX, Mode, index_name};
use crate::iri::event::{self, Indices, Line, NoObject};
use crate::iri::store::dead_letters;

/// Why a line cannot be an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It cannot be read.
    #[error(transparent)]
    NoObject(#[from] NoObject),
    /// It is content of a stream.
    #[error("content of a stream, which is no event: send it to --data-lines")]
    Data,
    /// The index that it names is none.
    #[error("index {0:?}: {1}")]
    Index(String, &'static str),
    /// The id that it names is none.
    #[error("its _id has {0} bytes; 1 to {ID_BYTES_MAX} are allowed")]
    Id(usize),
}

/// What `lea search --json` prints, and dumps of other servers.
#[derive(Deserialize)]
struct Whole<'a> {
    #[serde(rename = "_index")]
    index: String,
    #[serde(rename = "_id")]
    id: String,
    #[serde(rename = "_source", borrow)]
    source: &'a RawValue,
}

/// Reads a line. What names no index goes where a received line would go.
pub fn read(line: &[u8], indices: &Indices) -> Result<Document, Unfit> {
    if let Ok(Whole { index, id, source }) = serde_json::from_slice(line) {
        if !(1..=ID_BYTES_MAX).contains(&id.len()) {
            return Err(Unfit::Id(id.len()));
        }
        return document(source.get().as_bytes(), &index, Some(id));
    }
    if let Some(Ok(letter)) = dead_letters::read(line).next() {
        return match index_of(&letter.source) {
            Some(index) => document(&letter.text, index, None),
            None => received(&letter.text, indices),
        };
    }
    received(line, indices)
}

/// A line as senders send it.
fn received(line: &[u8], indices: &Indices) -> Result<Document, Unfit> {
    match event::read(line, indices, &Local)? {
        Line::Event(document) => Ok(document),
        Line::Data => Err(Unfit::Data),
    }
}

/// The index that an event was for, where that was known: `http 192.0.2.1:6000 opensips`.
fn index_of(source: &str) -> Option<&str> {
    source.splitn(3, ' ').nth(2)
}

fn document(source: &[u8], index: &str, id: Option<String>) -> Result<Document, Unfit> {
    index_name(index).map_err(|why| Unfit::Index(index.to_owned(), why))?;
    let source = source.trim_ascii().into();
    Ok(Document { index: index.to_owned(), kind: None, id, mode: Mode::Create, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_read(line: &str, index: &str, id: Option<&str>, source: &str) {
        let document =
            read(line.as_bytes(), &Indices::default()).unwrap_or_else(|unfit| panic!("{line}: {unfit}"));
        assert_eq!((document.index.as_str(), document.id.as_deref()), (index, id), "{line}");
        assert_eq!(std::str::from_utf8(&document.source).unwrap(), source, "{line}");
    }

    #[test]
    fn lines_of_each_kind() {
        check_read(r#"{"event": "start_call"}"#, "interception", None, r#"{"event": "start_call"}"#);
        let filled = r#"{"event":"start_call","key":"a","to_user":"a"}"#;
        check_read(r#"{"event":"start_call","key":"a"}"#, "interception", None, filled);
        let whole = r#"{"_index":"opensips","_id":"7","_time":null,"_source":{"a": 1}}"#;
        check_read(whole, "opensips", Some("7"), r#"{"a": 1}"#);
        let letter = |source: &str| {
            format!(
                r#"{{"time":"2026-11-21T00:00:00Z","source":"{source}","reason":"no","text":"{{\"a\":1}}"}}"#
            )
        };
        check_read(&letter("lines 192.0.2.1:5000"), "interception", None, r#"{"a":1}"#);
        check_read(&letter("http 192.0.2.1:6000 opensips"), "opensips", None, r#"{"a":1}"#);
        let base64 = r#"{"time":"t","source":"lines","reason":"no","base64":"e30="}"#;
        check_read(base64, "interception", None, "{}");
    }

    #[test]
    fn what_is_no_event_says_why() {
        let why = |line: &[u8]| read(line, &Indices::default()).unwrap_err().to_string();
        assert_eq!(why(b"[1]"), "no JSON object: invalid type: sequence, expected an object at byte 0");
        assert_eq!(why(b"{\"a\":"), "no JSON object: EOF while parsing a value at byte 5");
        assert!(why(b"\xff").starts_with("no JSON object"));
        assert!(why(b"{} {}").starts_with("no JSON object: trailing characters"));
        assert!(why(br#"{"_index":"A","_id":"1","_source":{}}"#).starts_with("index \"A\""));
        assert!(why(br#"{"_index":"a","_id":"","_source":{}}"#).contains("0 bytes"));
        let long = format!(r#"{{"_index":"a","_id":"{}","_source":{{}}}}"#, "x".repeat(ID_BYTES_MAX + 1));
        assert!(why(long.as_bytes()).contains("513 bytes"));
        assert!(why(br#"{"userid":"a","data":"AA=="}"#).starts_with("content of a stream"));
        let letter = br#"{"time":"t","source":"lines","reason":"no","text":"{half"}"#;
        assert!(why(letter).starts_with("no JSON object"));
    }
}
