//! The endpoint `_bulk`: many documents in one request, one result for each. Runs on the threads of the HTTP connections.
//!
//! Invariant: all documents of a request go to the store in one call. They become durable together, and a full store
//! accepts none of them.

use std::collections::BTreeSet;
use std::time::Instant;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::Value;

use super::api::{EsApi, RoutedRequest};
use super::documents::{WRITE_PARAMETERS, WriteResponse, is_refresh_forced, reject_require_alias};
use super::error::{ApiError, ErrorCause};
use super::field_filter::{RawMembers, raw_members};
use super::response::{self, stable_uuid};
use crate::http::Response;
use crate::search::document::{Document, WriteMode, check_index_name};
use crate::search::store::{WriteReceipt, WriteRejected};

/// Limit on the actions of one request. The response has about 200 bytes for each.
pub const ACTIONS_MAX: usize = 100_000;

/// A parsed action line.
struct BulkAction {
    verb: &'static str,
    index: String,
    doc_type: Option<String>,
    id: Option<String>,
}

/// The state of an action before the store writes.
enum ActionState<'a> {
    /// The next document that is sent to the store, with its source.
    Sent(&'a [u8]),
    Rejected(ApiError),
}

#[derive(Serialize)]
struct BulkResponse<'a> {
    took: u64,
    errors: bool,
    items: &'a [BulkResponseItem<'a>],
}

struct BulkResponseItem<'a> {
    action: &'a BulkAction,
    outcome: Result<&'a WriteReceipt, ApiError>,
    refresh: bool,
}

#[derive(Serialize)]
struct BulkItemError<'a> {
    #[serde(rename = "_index")]
    index: &'a str,
    #[serde(rename = "_type")]
    doc_type: &'a str,
    #[serde(rename = "_id")]
    id: Option<&'a str>,
    status: u16,
    error: &'a ErrorCause,
}

impl Serialize for BulkResponseItem<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let BulkResponseItem { action, outcome, refresh } = self;
        let mut map = serializer.serialize_map(Some(1))?;
        match outcome {
            Ok(written) => {
                let stored = WriteResponse::new(&action.index, action.doc_type.as_deref(), written, *refresh);
                map.serialize_entry(action.verb, &stored.into_item())?;
            }
            Err(api_error) => {
                let doc_type = action.doc_type.as_deref().unwrap_or("_doc");
                let (id, status, error) = (action.id.as_deref(), api_error.status(), api_error.cause());
                map.serialize_entry(
                    action.verb,
                    &BulkItemError { index: &action.index, doc_type, id, status, error },
                )?;
            }
        }
        map.end()
    }
}

impl EsApi {
    pub(super) fn bulk(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        let RoutedRequest { request, route, parameters } = routed;
        let started = Instant::now();
        routed.allow_parameters(&[&WRITE_PARAMETERS[..3], &["_source", "require_alias"]].concat())?;
        let refresh = is_refresh_forced(parameters)?;
        reject_require_alias(parameters)?;
        let body = self.decompression.read_body(request)?;
        if body.bytes().is_empty() {
            return Err(ApiError::missing_body());
        }
        let defaults = (route.index.as_deref(), route.doc_type.as_deref());
        let (actions, documents) = self.parse_bulk(body.bytes(), defaults)?;
        let written = if documents.is_empty() { Vec::new() } else { self.store.write(documents)? };
        let (actions, states): (Vec<BulkAction>, Vec<ActionState<'_>>) = actions.into_iter().unzip();
        let sent = actions.iter().zip(&states).filter_map(|(action, state)| match state {
            ActionState::Sent(source) => Some((action.index.as_str(), *source)),
            ActionState::Rejected(_) => None,
        });
        self.count_results(request, written.iter().zip(sent));
        let indices: BTreeSet<&String> = actions.iter().map(|action| &action.index).collect();
        self.wait_for_refresh(parameters, &indices.into_iter().cloned().collect::<Vec<_>>());
        let items = response_items(&actions, states, &written, refresh)?;
        let errors = items.iter().any(|item| item.outcome.is_err());
        let took = started.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
        Ok(response::json(200, &BulkResponse { took, errors, items: &items }))
    }

    /// Parses a body. Returns all actions, and the documents of those that are sent to the store.
    #[allow(clippy::type_complexity)]
    fn parse_bulk<'a>(
        &self,
        body: &'a [u8],
        defaults: (Option<&str>, Option<&str>),
    ) -> Result<(Vec<(BulkAction, ActionState<'a>)>, Vec<Document>), ApiError> {
        let Some(body) = body.strip_suffix(b"\n") else {
            return Err(ApiError::illegal_argument("The bulk request must be terminated by a newline [\\n]"));
        };
        let (mut actions, mut documents, mut nameless) = (Vec::new(), Vec::new(), 0);
        let mut lines = body.split(|byte| *byte == b'\n').enumerate();
        while let Some((nth, line)) = lines.next() {
            if line.trim_ascii().is_empty() {
                continue;
            }
            if actions.len() == ACTIONS_MAX {
                let reason = format!("a bulk has {ACTIONS_MAX} actions at most");
                return Err(ApiError::new(413, "content_too_long_exception", reason));
            }
            let action = parse_action_line(line, nth + 1, defaults)?;
            let source = if action.verb == "delete" { None } else { lines.next().map(|(_, line)| line) };
            nameless += usize::from(action.index.is_empty());
            match (action.verb, source) {
                // As in Elasticsearch, an action without its document is ignored.
                ("index" | "create" | "update", None) => {}
                ("index" | "create", Some(source)) => match self.build_document(&action, source) {
                    Ok(document) => {
                        documents.push(document);
                        actions.push((action, ActionState::Sent(source)));
                    }
                    Err(error) => actions.push((action, ActionState::Rejected(error))),
                },
                (verb, _) => {
                    let reason = format!("[{verb}] is not supported: events do not change");
                    actions.push((action, ActionState::Rejected(ApiError::illegal_argument(reason))));
                }
            }
        }
        match (actions.is_empty(), nameless) {
            (true, _) => Err(ApiError::validation("no requests added")),
            (_, 0) => Ok((actions, documents)),
            _ => Err(ApiError::validation("index is missing")),
        }
    }

    fn build_document(&self, action: &BulkAction, source: &[u8]) -> Result<Document, ApiError> {
        let BulkAction { verb, index, doc_type, id } = action;
        let source = source.strip_suffix(b"\r").unwrap_or(source);
        // An action without an index rejects the whole request, in `parse_bulk`.
        if !index.is_empty() {
            check_index_name(index).map_err(|why| ApiError::invalid_index_name(index, why))?;
        }
        if source.is_empty() {
            return Err(ApiError::mapper_parsing("failed to parse, document is empty"));
        }
        if id.as_deref() == Some("") {
            return Err(ApiError::illegal_argument("if _id is specified it must not be empty"));
        }
        self.check_type(index, doc_type.as_deref(), id.as_deref())?;
        Ok(Document {
            index: index.clone(),
            doc_type: doc_type.clone(),
            id: id.clone(),
            mode: if *verb == "create" { WriteMode::Create } else { WriteMode::Index },
            source: source.into(),
        })
    }
}

/// Assigns the results of the store to the actions that were sent to it.
fn response_items<'a>(
    actions: &'a [BulkAction],
    states: Vec<ActionState<'_>>,
    written: &'a [Result<WriteReceipt, WriteRejected>],
    refresh: bool,
) -> Result<Vec<BulkResponseItem<'a>>, ApiError> {
    let mut written = written.iter();
    let mut items = Vec::with_capacity(actions.len());
    for (action, state) in actions.iter().zip(states) {
        let outcome = match state {
            ActionState::Rejected(error) => Err(error),
            ActionState::Sent(_) => match written.next() {
                Some(Ok(written)) => Ok(written),
                Some(Err(rejected)) => Err(ApiError::from_rejected_document(rejected, &action.index, || {
                    stable_uuid(&action.index)
                })),
                None => return Err(ApiError::new(500, "exception", "the store returned too few results")),
            },
        };
        items.push(BulkResponseItem { action, outcome, refresh });
    }
    Ok(items)
}

/// Parses an action line such as `{"index": {"_index": "a", "_id": "1"}}`.
fn parse_action_line(
    line: &[u8],
    nth: usize,
    (index, doc_type): (Option<&str>, Option<&str>),
) -> Result<BulkAction, ApiError> {
    let malformed =
        |why: &str| ApiError::illegal_argument(format!("Malformed action/metadata line [{nth}], {why}"));
    let outer = raw_members(line).ok_or_else(|| {
        ApiError::new(
            400,
            "json_parse_exception",
            format!("Malformed action/metadata line [{nth}], not a JSON object"),
        )
    })?;
    let [(verb, metadata)] = outer.as_slice() else {
        return Err(malformed("expected one action"));
    };
    let verb = ["index", "create", "delete", "update"].into_iter().find(|known| *known == verb.as_ref());
    let Some(verb) = verb else {
        return Err(malformed("expected field [create], [delete], [index] or [update]"));
    };
    let metadata = raw_members(metadata.get().as_bytes()).ok_or_else(|| malformed("expected an object"))?;
    let action = BulkAction {
        verb,
        index: index.unwrap_or_default().to_owned(),
        doc_type: doc_type.map(str::to_owned),
        id: None,
    };
    apply_metadata(action, metadata, nth)
}

/// Sets the members of an action line's metadata.
fn apply_metadata(
    mut action: BulkAction,
    metadata: RawMembers<'_>,
    nth: usize,
) -> Result<BulkAction, ApiError> {
    for (key, value) in metadata {
        let text = match serde_json::from_str(value.get()) {
            Ok(Value::String(text)) => Some(text),
            Ok(Value::Number(number)) => Some(number.to_string()),
            Ok(Value::Null) => None,
            Ok(Value::Bool(false)) if key == "require_alias" => continue,
            _ => {
                let reason =
                    format!("Malformed action/metadata line [{nth}], the value of [{key}] is not a string");
                return Err(ApiError::illegal_argument(reason));
            }
        };
        match key.as_ref() {
            "_index" => action.index = text.unwrap_or(action.index),
            // Shippers leave it empty, because later versions have no types.
            "_type" => action.doc_type = text.filter(|doc_type| !doc_type.is_empty() && doc_type != "_doc"),
            "_id" => action.id = text,
            _ if text.is_none() => {}
            key => {
                let reason = format!("Action/metadata line [{nth}] contains an unknown parameter [{key}]");
                return Err(ApiError::illegal_argument(reason));
            }
        }
    }
    Ok(action)
}
