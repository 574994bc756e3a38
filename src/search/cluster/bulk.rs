//! The `_bulk` API: request lines and the result of each item. Pure code.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::event::SpooledEvent;
use super::response::NO_REASON;

/// Maximum length of an error text.
const REASON_CHARS_MAX: usize = 1_000;

/// An event with its number in the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BulkItem {
    pub number: u64,
    pub event: SpooledEvent,
}

impl BulkItem {
    /// Approximate size in a bulk request.
    pub(super) fn estimated_bytes(&self) -> usize {
        self.event.source.len() + 100
    }

    /// Appends the action line and the source.
    pub(super) fn append_to(&self, index: &str, log: u64, body: &mut Vec<u8>) {
        let target = BulkTarget { index, id: &self.event.document_id(log, self.number) };
        let action = if self.event.is_create() {
            BulkActionLine::Create(target)
        } else {
            BulkActionLine::Index(target)
        };
        append_line(&action, body);
        body.extend_from_slice(&self.event.source);
        body.push(b'\n');
    }
}

/// Appends the action line and the source of a document that must not replace an existing one.
pub(crate) fn append_create(index: &str, id: &str, source: &[u8], body: &mut Vec<u8>) {
    append_line(&BulkActionLine::Create(BulkTarget { index, id }), body);
    // In a JSON object, line breaks occur only between values.
    body.extend(source.iter().map(|&byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
    body.push(b'\n');
}

fn append_line(action: &BulkActionLine<'_>, body: &mut Vec<u8>) {
    serde_json::to_writer(&mut *body, action).expect("writing to a Vec cannot fail, and names are strings");
    body.push(b'\n');
}

/// The action line before each source.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum BulkActionLine<'a> {
    Create(BulkTarget<'a>),
    Index(BulkTarget<'a>),
}

#[derive(Serialize)]
struct BulkTarget<'a> {
    #[serde(rename = "_index")]
    index: &'a str,
    #[serde(rename = "_id")]
    id: &'a str,
}

/// The result of one bulk item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BulkItemResult {
    Created,
    /// The id exists: the event was sent before, or another one has its id.
    AlreadyExists,
    /// A retry can succeed.
    Retry(String),
    /// The index does not exist; it has to be created again.
    IndexMissing,
    /// A permanent failure.
    Rejected(String),
}

#[derive(Deserialize)]
struct ClusterBulkResponse<'a> {
    #[serde(borrow)]
    items: Vec<std::collections::HashMap<&'a str, RawItemResult>>,
}

#[derive(Deserialize)]
struct RawItemResult {
    status: u16,
    #[serde(default)]
    error: Value,
}

/// Requests the result of each item.
pub(super) const PER_ITEM_FILTER: &str = "filter_path=items.*.status,items.*.error";

/// Requests only whether any item failed.
pub(super) const ERRORS_FILTER: &str = "filter_path=errors";

/// Parses a response requested with [`ERRORS_FILTER`]; `None` if it is malformed.
pub(super) fn has_errors(response: &[u8]) -> Option<bool> {
    #[derive(Deserialize)]
    struct Errors {
        errors: bool,
    }
    serde_json::from_slice(response).ok().map(|Errors { errors }| errors)
}

/// Parses the result of each item; `None` if the response is malformed or does not have `count` items.
pub(crate) fn parse_results(response: &[u8], count: usize) -> Option<Vec<BulkItemResult>> {
    let parsed: ClusterBulkResponse<'_> = serde_json::from_slice(response).ok()?;
    if parsed.items.len() != count {
        return None;
    }
    let result = |item: &std::collections::HashMap<&str, RawItemResult>| {
        let (verb, result) = item.iter().next()?;
        Some(classify(*verb == "create", result.status, &result.error))
    };
    parsed.items.iter().map(result).collect()
}

/// Classifies an item by its status.
fn classify(is_created: bool, status: u16, error: &Value) -> BulkItemResult {
    let kind = error["type"].as_str().unwrap_or_default();
    match status {
        200..=299 => BulkItemResult::Created,
        409 if is_created => BulkItemResult::AlreadyExists,
        // Missing privileges, a block (a full disk makes an index read-only), overload, an unreachable node.
        401 | 403 | 408 | 429 | 500.. => BulkItemResult::Retry(error_text(error)),
        404 => BulkItemResult::IndexMissing,
        400 if is_cluster_fault(kind, error) => BulkItemResult::Retry(error_text(error)),
        _ => BulkItemResult::Rejected(error_text(error)),
    }
}

/// True for errors of the cluster that are reported as errors of the event.
pub(super) fn is_cluster_fault(kind: &str, error: &Value) -> bool {
    let is_about_shards = error["reason"].as_str().is_some_and(|reason| reason.contains("shards"));
    kind == "cluster_block_exception" || (kind == "validation_exception" && is_about_shards)
}

/// The server's error text.
pub(super) fn error_text(error: &Value) -> String {
    let texts = [&error["type"], &error["reason"], &error["caused_by"]["reason"]];
    let texts: Vec<&str> = texts.iter().filter_map(|text| text.as_str()).collect();
    let text = if texts.is_empty() { NO_REASON.to_owned() } else { texts.join(": ") };
    text.chars().take(REASON_CHARS_MAX).collect()
}

/// Selects the items to send again: those with [`BulkItemResult::Retry`], and later ones with the same id, so
/// that the last write of an id stays the last.
pub(super) fn items_to_resend(items: &[BulkItem], results: &[BulkItemResult]) -> Vec<bool> {
    let is_later =
        |result: &BulkItemResult| matches!(result, BulkItemResult::Retry(_) | BulkItemResult::IndexMissing);
    let mut held_ids = Vec::new();
    let mut resend = Vec::with_capacity(items.len());
    for (item, result) in items.iter().zip(results) {
        let key = item.event.id.as_ref().map(|id| (&item.event.name, id));
        let is_resent =
            is_later(result) || key.is_some_and(|key| !item.event.is_create() && held_ids.contains(&key));
        if is_resent && !item.event.is_create() {
            held_ids.extend(key);
        }
        resend.push(is_resent);
    }
    resend
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::search::document::{Document, WriteMode};
    use crate::search::index_templates::IndexTemplates;

    fn item(number: u64, id: Option<&str>, mode: WriteMode) -> BulkItem {
        let id = id.map(str::to_owned);
        let document = Document { index: "a".to_owned(), doc_type: None, id, mode, source: (*b"{}").into() };
        BulkItem {
            number,
            event: SpooledEvent::from_document(&document, 0, 30, None, &IndexTemplates::default()).unwrap(),
        }
    }

    #[test]
    fn bulk_items_are_encoded_as_create_or_index() {
        let text = |item: BulkItem| {
            let mut body = Vec::new();
            item.append_to("a-1970.01.01", 0xabc, &mut body);
            String::from_utf8(body).unwrap()
        };
        let source = r#"{"lea":{"time":"1970-01-01T00:00:00.000Z"}}"#;
        assert_eq!(
            text(item(7, None, WriteMode::Index)),
            format!(
                "{{\"create\":{{\"_index\":\"a-1970.01.01\",\"_id\":\"AAAAAAAACrw-000000000007\"}}}}\n{source}\n"
            )
        );
        assert_eq!(
            text(item(7, Some("x\"y"), WriteMode::Index)),
            format!("{{\"index\":{{\"_index\":\"a-1970.01.01\",\"_id\":\"x\\\"y\"}}}}\n{source}\n")
        );
        assert!(text(item(7, Some("x"), WriteMode::Create)).starts_with("{\"create\""));
    }

    #[test]
    fn errors_flag_is_parsed() {
        assert_eq!(has_errors(br#"{"errors":true}"#), Some(true));
        assert_eq!(has_errors(br#"{"took":1,"errors":false,"items":[]}"#), Some(false));
        assert_eq!(has_errors(b"{}"), None);
        assert_eq!(has_errors(b"<html>"), None);
    }

    #[track_caller]
    fn check(status: u16, error: Value, expected: BulkItemResult) {
        let item = json!({"create": {"status": status, "error": error}});
        let response = json!({"items": [item]}).to_string();
        assert_eq!(parse_results(response.as_bytes(), 1).unwrap(), [expected]);
    }

    #[test]
    fn each_item_status_is_classified() {
        check(201, Value::Null, BulkItemResult::Created);
        check(409, json!({"type": "version_conflict_engine_exception"}), BulkItemResult::AlreadyExists);
        for (status, kind) in [
            (429, "es_rejected_execution_exception"),
            (429, "cluster_block_exception"),
            (403, "cluster_block_exception"),
            (403, "security_exception"),
            (503, "unavailable_shards_exception"),
            (500, "x"),
        ] {
            check(status, json!({"type": kind, "reason": "r"}), BulkItemResult::Retry(format!("{kind}: r")));
        }
        let shards = json!({"type": "validation_exception", "reason": "1000 maximum shards open"});
        check(
            400,
            shards,
            BulkItemResult::Retry("validation_exception: 1000 maximum shards open".to_owned()),
        );
        check(404, json!({"type": "index_not_found_exception"}), BulkItemResult::IndexMissing);
        let malformed =
            json!({"type": "mapper_parsing_exception", "reason": "r", "caused_by": {"reason": "c"}});
        check(400, malformed, BulkItemResult::Rejected("mapper_parsing_exception: r: c".to_owned()));
        check(400, Value::Null, BulkItemResult::Rejected("no reason given".to_owned()));
    }

    #[test]
    fn malformed_bulk_response_is_detected() {
        let one = r#"{"items":[{"index":{"status":409}}]}"#;
        assert_eq!(
            parse_results(one.as_bytes(), 1).unwrap(),
            [BulkItemResult::Rejected("no reason given".to_owned())]
        );
        assert_eq!(parse_results(one.as_bytes(), 2), None);
        for none in ["", "{}", "[]", r#"{"items":[{}]}"#, r#"{"items":[{"create":{}}]}"#] {
            assert_eq!(parse_results(none.as_bytes(), 1), None, "{none}");
        }
    }

    #[test]
    fn later_writes_of_an_id_are_resent_in_order() {
        let items = [
            item(0, Some("x"), WriteMode::Index),
            item(1, None, WriteMode::Index),
            item(2, Some("x"), WriteMode::Index),
            item(3, Some("y"), WriteMode::Index),
            item(4, Some("x"), WriteMode::Create),
        ];
        let later = || BulkItemResult::Retry(String::new());
        let results = [
            later(),
            BulkItemResult::Created,
            BulkItemResult::Created,
            BulkItemResult::Created,
            BulkItemResult::AlreadyExists,
        ];
        assert_eq!(items_to_resend(&items, &results), [true, false, true, false, false]);
        let results = [
            BulkItemResult::Created,
            later(),
            later(),
            BulkItemResult::IndexMissing,
            BulkItemResult::AlreadyExists,
        ];
        assert_eq!(items_to_resend(&items, &results), [false, true, true, true, false]);
    }
}
