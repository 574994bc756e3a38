//! The endpoint `_bulk`: many documents in one request, one result for each. Runs on the threads of the HTTP connections.
//!
//! The documents go to the store in parts, because indexing takes many times their size. If the store is full, the first part
//! rejects the request, and a later one rejects its own documents and those after it, as in Elasticsearch.

use std::collections::BTreeSet;
use std::time::Instant;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::{Map, Value};

use super::api::{EsApi, RoutedRequest};
use super::documents::{WRITE_PARAMETERS, WriteResponse, is_refresh_forced, op_type_reason};
use super::error::{ApiError, ErrorCause};
use super::field_filter::{RawMembers, raw_members};
use super::response::{self, stable_uuid};
use crate::http::{Request, Response};
use crate::search::budget;
use crate::search::document::{Document, WriteMode, check_index_name};
use crate::search::store::{WriteReceipt, WriteRejected};

/// Parameters of a bulk. `_source` concerns updates.
const BULK_PARAMETERS: [&str; 7] = [
    "pipeline",
    "routing",
    "_source",
    "_source_includes",
    "_source_excludes",
    "list_executed_pipelines",
    "type",
];

/// Limit on the actions of one request. The response has about 200 bytes for each.
pub const ACTIONS_MAX: usize = 100_000;

/// Documents, and bytes of documents, after which a part is written.
const PART_DOCUMENTS_MAX: usize = 5_000;
const PART_BYTES_MAX: usize = 1 << 20;

/// Memory of an action, its result and its answer.
const ACTION_BYTES: usize = 448;

/// A parsed action line.
struct BulkAction {
    verb: &'static str,
    index: String,
    doc_type: Option<String>,
    id: Option<String>,
    /// Rejects this action alone: its metadata demands something that the service does not do.
    rejected: Option<ApiError>,
    requires_alias: bool,
}

/// What the path and the parameters of a request set for all its actions.
struct BulkDefaults<'a> {
    index: Option<&'a str>,
    doc_type: Option<&'a str>,
    pipeline: Option<&'a str>,
    requires_alias: bool,
}

/// The state of an action before the store writes.
enum ActionState<'a> {
    /// A document that is sent to the store, with its source.
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
        routed.allow_parameters(&[&WRITE_PARAMETERS[..], &BULK_PARAMETERS].concat())?;
        let refresh = is_refresh_forced(parameters)?;
        let body = self.read_body(routed)?;
        if body.bytes().is_empty() {
            return Err(ApiError::missing_body());
        }
        let defaults = BulkDefaults {
            index: route.index.as_deref(),
            doc_type: route.doc_type.as_deref(),
            pipeline: parameters.get("pipeline"),
            requires_alias: parameters.is_on("require_alias")?,
        };
        let (actions, mut states) = self.parse_bulk(body.bytes(), &defaults)?;
        let written = self.write_parts(request, &actions, &mut states)?;
        let indices: BTreeSet<&String> = actions.iter().map(|action| &action.index).collect();
        self.wait_for_refresh(parameters, &indices.into_iter().cloned().collect::<Vec<_>>());
        let items = response_items(&actions, states, &written, refresh)?;
        let errors = items.iter().any(|item| item.outcome.is_err());
        let took = started.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
        Ok(response::json(200, &BulkResponse { took, errors, items: &items }))
    }

    /// Writes the documents in parts. Returns the results of those that were sent, and rejects all others.
    fn write_parts(
        &self,
        request: &Request,
        actions: &[BulkAction],
        states: &mut [ActionState<'_>],
    ) -> Result<Vec<Result<WriteReceipt, WriteRejected>>, ApiError> {
        let mut written = Vec::new();
        let mut from = 0;
        while from < actions.len() {
            let (mut documents, mut bytes, mut to) = (Vec::new(), 0, from);
            while to < actions.len() && documents.len() < PART_DOCUMENTS_MAX && bytes < PART_BYTES_MAX {
                if let ActionState::Sent(source) = states[to] {
                    match self.build_document(&actions[to], source) {
                        Ok(document) => documents.push(document),
                        Err(error) => states[to] = ActionState::Rejected(error),
                    }
                    bytes += source.len();
                }
                to += 1;
            }
            let results = match documents.is_empty() {
                true => Ok(Vec::new()),
                false => self.create_indices(&documents).and_then(|()| self.write_events(documents)),
            };
            match results {
                Ok(results) => {
                    let sent = (from..to).filter_map(|nth| match states[nth] {
                        ActionState::Sent(source) => Some((actions[nth].index.as_str(), source)),
                        ActionState::Rejected(_) => None,
                    });
                    self.count_results(request, results.iter().zip(sent));
                    written.extend(results);
                }
                Err(error) if written.is_empty() => return Err(error),
                Err(error) => {
                    let left = states[from..].iter_mut();
                    left.filter(|state| matches!(state, ActionState::Sent(_)))
                        .for_each(|state| *state = ActionState::Rejected(error.clone()));
                    break;
                }
            }
            from = to;
        }
        Ok(written)
    }

    /// Parses a body. Returns all actions and their states.
    #[allow(clippy::type_complexity)]
    fn parse_bulk<'a>(
        &self,
        body: &'a [u8],
        defaults: &BulkDefaults<'_>,
    ) -> Result<(Vec<BulkAction>, Vec<ActionState<'a>>), ApiError> {
        let Some(body) = body.strip_suffix(b"\n") else {
            return Err(ApiError::illegal_argument("The bulk request must be terminated by a newline [\\n]"));
        };
        let (mut actions, mut states, mut nameless) = (Vec::new(), Vec::new(), 0);
        let mut lines = body.split(|byte| *byte == b'\n').enumerate();
        while let Some((nth, line)) = lines.next() {
            if line.trim_ascii().is_empty() {
                continue;
            }
            if actions.len() == ACTIONS_MAX {
                let reason = format!("a bulk has {ACTIONS_MAX} actions at most");
                return Err(ApiError::new(413, "content_too_long_exception", reason));
            }
            let mut action = parse_action_line(line, nth + 1, defaults)?;
            let rejected = action.rejected.take().or_else(|| self.resolve_action(&mut action).err());
            budget::charge(
                ACTION_BYTES + 2 * (action.index.len() + action.id.as_deref().map_or(0, str::len)),
            )?;
            let source = if action.verb == "delete" { None } else { lines.next().map(|(_, line)| line) };
            nameless += usize::from(action.index.is_empty());
            let state = match (action.verb, source) {
                // As in Elasticsearch, an action without its document is ignored.
                ("index" | "create" | "update", None) => continue,
                ("index" | "create", Some(source)) => match rejected {
                    Some(error) => ActionState::Rejected(error),
                    None => ActionState::Sent(source),
                },
                (verb, _) => {
                    let reason = format!("[{verb}] is not supported: events do not change");
                    ActionState::Rejected(ApiError::illegal_argument(reason))
                }
            };
            actions.push(action);
            states.push(state);
        }
        match (actions.is_empty(), nameless) {
            (true, _) => Err(ApiError::validation("no requests added")),
            (_, 0) => Ok((actions, states)),
            _ => Err(ApiError::validation("index is missing")),
        }
    }

    /// Replaces an alias by its index.
    fn resolve_action(&self, action: &mut BulkAction) -> Result<(), ApiError> {
        if action.requires_alias && !self.is_alias(&action.index) {
            return Err(ApiError::alias_required(&action.index));
        }
        action.index = self.write_index(&action.index)?;
        Ok(())
    }

    /// Creates the indices of documents for which there is a template.
    fn create_indices(&self, documents: &[Document]) -> Result<(), ApiError> {
        let indices: BTreeSet<&String> = documents.iter().map(|document| &document.index).collect();
        indices.into_iter().try_for_each(|index| self.create_from_template(index))
    }

    fn build_document(&self, action: &BulkAction, source: &[u8]) -> Result<Document, ApiError> {
        let BulkAction { verb, index, doc_type, id, .. } = action;
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

/// Parses an action line such as `{"index": {"_index": "a", "_id": "1"}}`. As in Elasticsearch, members after the first one
/// are ignored: some clients count their attempts there.
fn parse_action_line(line: &[u8], nth: usize, defaults: &BulkDefaults<'_>) -> Result<BulkAction, ApiError> {
    let malformed =
        |why: &str| ApiError::illegal_argument(format!("Malformed action/metadata line [{nth}], {why}"));
    let outer = raw_members(line).ok_or_else(|| {
        ApiError::new(
            400,
            "json_parse_exception",
            format!("Malformed action/metadata line [{nth}], not a JSON object"),
        )
    })?;
    let Some((verb, metadata)) = outer.into_iter().next() else {
        return Err(malformed("expected one action"));
    };
    let verb = ["index", "create", "delete", "update"].into_iter().find(|known| *known == verb.as_ref());
    let Some(verb) = verb else {
        return Err(malformed("expected field [create], [delete], [index] or [update]"));
    };
    let metadata = raw_members(metadata.get().as_bytes()).ok_or_else(|| malformed("expected an object"))?;
    let action = BulkAction {
        verb,
        index: defaults.index.unwrap_or_default().to_owned(),
        doc_type: defaults.doc_type.map(str::to_owned),
        id: None,
        rejected: None,
        requires_alias: defaults.requires_alias,
    };
    apply_metadata(action, metadata, nth, defaults)
}

/// Sets the members of an action line's metadata. Members without effect on a single node (`routing`) are accepted. One
/// that demands something else of the write rejects its own action. As in Elasticsearch, an unknown one rejects the request.
fn apply_metadata(
    mut action: BulkAction,
    metadata: RawMembers<'_>,
    nth: usize,
    defaults: &BulkDefaults<'_>,
) -> Result<BulkAction, ApiError> {
    let mut pipeline = defaults.pipeline.map(str::to_owned);
    let (mut version, mut version_type, mut condition) = (None, "internal".to_owned(), None);
    for (key, value) in metadata {
        let value: Value = serde_json::from_str(value.get()).unwrap_or_default();
        let text = match &value {
            Value::String(text) => Some(text.clone()),
            Value::Null => None,
            Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
            _ if matches!(key.as_ref(), "dynamic_templates" | "_source") => None,
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
            "op_type" if action.verb == "index" => match text.as_deref() {
                Some("create") => action.verb = "create",
                None | Some("index") => {}
                Some(other) => return Err(ApiError::illegal_argument(op_type_reason(other))),
            },
            "version" => version = text.and_then(|text| text.parse::<i64>().ok()),
            "version_type" => version_type = text.unwrap_or(version_type),
            "if_seq_no" | "if_primary_term" => condition = text.map(|_| key.to_string()),
            "pipeline" => pipeline = text,
            "require_alias" => action.requires_alias = text.as_deref() == Some("true"),
            "routing" | "retry_on_conflict" | "list_executed_pipelines" | "_source" | "op_type" => {}
            "dynamic_templates" if value.as_object().is_none_or(Map::is_empty) => {}
            "dynamic_templates" => condition = Some(key.to_string()),
            _ if text.is_none() => {}
            key => {
                let reason = format!("Action/metadata line [{nth}] contains an unknown parameter [{key}]");
                return Err(ApiError::illegal_argument(reason));
            }
        }
    }
    check_version(version, &version_type)?;
    let condition = condition.or_else(|| (version_type != "internal").then(|| "version_type".to_owned()));
    action.rejected = match (pipeline, condition) {
        (Some(name), _) if name != "_none" => Some(ApiError::pipeline_missing(&name)),
        (_, Some(key)) => Some(ApiError::not_supported(format_args!("[{key}] of a bulk action"))),
        _ => None,
    };
    Ok(action)
}

/// Checks the version of an action. Negative versions mean that any version is right.
pub(super) fn check_version(version: Option<i64>, version_type: &str) -> Result<(), ApiError> {
    match (version, version_type) {
        (Some(0..), "internal") => Err(ApiError::validation(
            "internal versioning can not be used for optimistic concurrency control. Please use `if_seq_no` and \
             `if_primary_term` instead",
        )),
        (_, "internal" | "external" | "external_gt" | "external_gte") => Ok(()),
        (_, other) => Err(ApiError::illegal_argument(format!("No version type match [{other}]"))),
    }
}
