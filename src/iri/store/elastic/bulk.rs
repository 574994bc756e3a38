//! Bulks: what is sent, and what the cluster says of each event. Pure.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::event::Event;

/// Characters of a reason that are kept.
const REASON_CHARS_MAX: usize = 1_000;

/// An event with its number in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its number.
    pub number: u64,
    /// The event.
    pub event: Event,
}

impl Item {
    /// What it takes in a bulk, about.
    pub fn bytes(&self) -> usize {
        self.event.source.len() + 100
    }

    /// Appends it as a bulk has it, for an index.
    pub fn push(&self, index: &str, log: u64, body: &mut Vec<u8>) {
        let target = Target { index, id: &self.event.id(log, self.number) };
        let action = if self.event.is_created() { Action::Create(target) } else { Action::Index(target) };
        serde_json::to_writer(&mut *body, &action).expect("a Vec takes all, and names are strings");
        body.push(b'\n');
        body.extend_from_slice(&self.event.source);
        body.push(b'\n');
    }
}

/// What stands before an event in a bulk.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Action<'a> {
    Create(Target<'a>),
    Index(Target<'a>),
}

#[derive(Serialize)]
struct Target<'a> {
    #[serde(rename = "_index")]
    index: &'a str,
    #[serde(rename = "_id")]
    id: &'a str,
}

/// What became of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is there.
    Stored,
    /// Its id is there: it was sent before, or another has it.
    There,
    /// It can be stored later, because.
    Later(String),
    /// Its index is gone: it is made again.
    NoIndex,
    /// It cannot be stored, because.
    Refused(String),
}

#[derive(Deserialize)]
struct Answered<'a> {
    #[serde(borrow)]
    items: Vec<std::collections::HashMap<&'a str, Told>>,
}

#[derive(Deserialize)]
struct Told {
    status: u16,
    #[serde(default)]
    error: Value,
}

/// What is asked of a bulk's answer: what became of each event.
pub const FATES: &str = "filter_path=items.*.status,items.*.error";

/// Only whether something became of all.
pub const ERRORS: &str = "filter_path=errors";

/// Reads the answer to a bulk of which only that was asked; none if it is no such.
pub fn has_errors(answer: &[u8]) -> Option<bool> {
    #[derive(Deserialize)]
    struct Errors {
        errors: bool,
    }
    serde_json::from_slice(answer).ok().map(|Errors { errors }| errors)
}

/// Reads the answer to a bulk of so many events; none if it is no such.
pub fn read(answer: &[u8], count: usize) -> Option<Vec<Fate>> {
    let answered: Answered<'_> = serde_json::from_slice(answer).ok()?;
    if answered.items.len() != count {
        return None;
    }
    let fate = |item: &std::collections::HashMap<&str, Told>| {
        let (verb, told) = item.iter().next()?;
        Some(fate(*verb == "create", told.status, &told.error))
    };
    answered.items.iter().map(fate).collect()
}

/// What an item's status means.
fn fate(is_created: bool, status: u16, error: &Value) -> Fate {
    let kind = error["type"].as_str().unwrap_or_default();
    match status {
        200..=299 => Fate::Stored,
        409 if is_created => Fate::There,
        // No rights, a block (a disk that is full makes an index read-only), too much at once, a node that is away.
        401 | 403 | 408 | 429 | 500.. => Fate::Later(reason(error)),
        404 => Fate::NoIndex,
        400 if waits(kind, error) => Fate::Later(reason(error)),
        _ => Fate::Refused(reason(error)),
    }
}

/// Errors that are the cluster's and not the event's, though they come as the event's.
pub fn waits(kind: &str, error: &Value) -> bool {
    let is_about_shards = error["reason"].as_str().is_some_and(|reason| reason.contains("shards"));
    kind == "cluster_block_exception" || (kind == "validation_exception" && is_about_shards)
}

/// Why, in the server's words.
pub fn reason(error: &Value) -> String {
    let texts = [&error["type"], &error["reason"], &error["caused_by"]["reason"]];
    let texts: Vec<&str> = texts.iter().filter_map(|text| text.as_str()).collect();
    let text = if texts.is_empty() { "no reason given".to_owned() } else { texts.join(": ") };
    text.chars().take(REASON_CHARS_MAX).collect()
}

/// Which events of a bulk are to be sent again: those for later, and behind them those of the same id, so that the last
/// word stays the last.
pub fn again(items: &[Item], fates: &[Fate]) -> Vec<bool> {
    let is_later = |fate: &Fate| matches!(fate, Fate::Later(_) | Fate::NoIndex);
    let mut held = Vec::new();
    let mut again = Vec::with_capacity(items.len());
    for (item, fate) in items.iter().zip(fates) {
        let key = item.event.id.as_ref().map(|id| (&item.event.name, id));
        let is_again =
            is_later(fate) || key.is_some_and(|key| !item.event.is_created() && held.contains(&key));
        if is_again && !item.event.is_created() {
            held.extend(key);
        }
        again.push(is_again);
    }
    again
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::iri::document::{Document, Mode};

    fn item(number: u64, id: Option<&str>, mode: Mode) -> Item {
        let id = id.map(str::to_owned);
        let document = Document { index: "a".to_owned(), kind: None, id, mode, source: (*b"{}").into() };
        Item { number, event: Event::read(&document, 0, 30, None).unwrap() }
    }

    #[test]
    fn what_is_sent() {
        let text = |item: Item| {
            let mut body = Vec::new();
            item.push("a-1970.01.01", 0xabc, &mut body);
            String::from_utf8(body).unwrap()
        };
        let source = r#"{"lea":{"time":"1970-01-01T00:00:00.000Z"}}"#;
        assert_eq!(
            text(item(7, None, Mode::Index)),
            format!(
                "{{\"create\":{{\"_index\":\"a-1970.01.01\",\"_id\":\"AAAAAAAACrw-000000000007\"}}}}\n{source}\n"
            )
        );
        assert_eq!(
            text(item(7, Some("x\"y"), Mode::Index)),
            format!("{{\"index\":{{\"_index\":\"a-1970.01.01\",\"_id\":\"x\\\"y\"}}}}\n{source}\n")
        );
        assert!(text(item(7, Some("x"), Mode::Create)).starts_with("{\"create\""));
    }

    #[test]
    fn errors_are_told() {
        assert_eq!(has_errors(br#"{"errors":true}"#), Some(true));
        assert_eq!(has_errors(br#"{"took":1,"errors":false,"items":[]}"#), Some(false));
        assert_eq!(has_errors(b"{}"), None);
        assert_eq!(has_errors(b"<html>"), None);
    }

    #[track_caller]
    fn check(status: u16, error: Value, expected: Fate) {
        let item = json!({"create": {"status": status, "error": error}});
        let answer = json!({"items": [item]}).to_string();
        assert_eq!(read(answer.as_bytes(), 1).unwrap(), [expected]);
    }

    #[test]
    fn each_status_has_its_meaning() {
        check(201, Value::Null, Fate::Stored);
        check(409, json!({"type": "version_conflict_engine_exception"}), Fate::There);
        for (status, kind) in [
            (429, "es_rejected_execution_exception"),
            (429, "cluster_block_exception"),
            (403, "cluster_block_exception"),
            (403, "security_exception"),
            (503, "unavailable_shards_exception"),
            (500, "x"),
        ] {
            check(status, json!({"type": kind, "reason": "r"}), Fate::Later(format!("{kind}: r")));
        }
        let shards = json!({"type": "validation_exception", "reason": "1000 maximum shards open"});
        check(400, shards, Fate::Later("validation_exception: 1000 maximum shards open".to_owned()));
        check(404, json!({"type": "index_not_found_exception"}), Fate::NoIndex);
        let unfit = json!({"type": "mapper_parsing_exception", "reason": "r", "caused_by": {"reason": "c"}});
        check(400, unfit, Fate::Refused("mapper_parsing_exception: r: c".to_owned()));
        check(400, Value::Null, Fate::Refused("no reason given".to_owned()));
    }

    #[test]
    fn an_answer_that_is_none_is_told() {
        let one = r#"{"items":[{"index":{"status":409}}]}"#;
        assert_eq!(read(one.as_bytes(), 1).unwrap(), [Fate::Refused("no reason given".to_owned())]);
        assert_eq!(read(one.as_bytes(), 2), None);
        for none in ["", "{}", "[]", r#"{"items":[{}]}"#, r#"{"items":[{"create":{}}]}"#] {
            assert_eq!(read(none.as_bytes(), 1), None, "{none}");
        }
    }

    #[test]
    fn the_last_word_of_an_id_stays_the_last() {
        let items = [
            item(0, Some("x"), Mode::Index),
            item(1, None, Mode::Index),
            item(2, Some("x"), Mode::Index),
            item(3, Some("y"), Mode::Index),
            item(4, Some("x"), Mode::Create),
        ];
        let later = || Fate::Later(String::new());
        let fates = [later(), Fate::Stored, Fate::Stored, Fate::Stored, Fate::There];
        assert_eq!(again(&items, &fates), [true, false, true, false, false]);
        let fates = [Fate::Stored, later(), later(), Fate::NoIndex, Fate::There];
        assert_eq!(again(&items, &fates), [false, true, true, true, false]);
    }
}
