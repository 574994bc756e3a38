//! The endpoint `_mget`: several documents by ID. Runs on the threads of the HTTP connections.

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::api::{EsApi, RoutedRequest};
use super::documents::{filtered_source, source_filter};
use super::error::ApiError;
use super::indices::json_object;
use super::response::{self, JSON};
use super::search::HITS_BYTES_MAX;
use crate::http::Response;
use crate::search::budget;
use crate::search::query::SourceFilter;

/// Limit on the documents of one request.
const DOCUMENTS_MAX: usize = 10_000;

#[derive(Serialize)]
struct MultiGetResponse {
    docs: Vec<Box<RawValue>>,
}

/// A requested document.
struct WantedDocument {
    index: String,
    id: String,
    source: SourceFilter,
}

impl EsApi {
    pub(super) fn multi_get(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        let known = [
            "_source",
            "_source_includes",
            "_source_excludes",
            "realtime",
            "refresh",
            "preference",
            "routing",
        ];
        routed.allow_parameters(&known)?;
        let body = json_object(self.read_required_body(routed)?.bytes())?;
        let wanted = parse_wanted(&Value::Object(body), routed)?;
        let mut documents: Vec<Box<RawValue>> = Vec::with_capacity(wanted.len());
        let mut bytes = 0;
        for one in &wanted {
            let found = self.get_one(one)?;
            budget::charge(found.get().len())?;
            bytes += found.get().len();
            if bytes > HITS_BYTES_MAX {
                let reason =
                    format!("Data too large: these documents have more than [{HITS_BYTES_MAX}] bytes");
                return Err(ApiError::new(429, "circuit_breaking_exception", reason));
            }
            documents.push(found);
        }
        let body = serde_json::to_vec(&MultiGetResponse { docs: documents }).unwrap_or_default();
        Ok(Response::new(200, JSON, body))
    }

    fn get_one(&self, wanted: &WantedDocument) -> Result<Box<RawValue>, ApiError> {
        let index = self.write_index(&wanted.index)?;
        let raw =
            |value: &Value| serde_json::value::to_raw_value(value).map_err(|_| ApiError::missing_body());
        let hit = match self.store.get(&index, &wanted.id) {
            Ok(hit) => hit,
            Err(error) => {
                let error = ApiError::from(error);
                if error.status() != 404 {
                    return Err(error);
                }
                let error = error.with_detail_replaced("resource.type", "index_expression");
                let error = serde_json::to_value(&error).unwrap_or_default();
                return raw(&json!({
                    "_index": wanted.index, "_type": Value::Null, "_id": wanted.id, "error": error["error"],
                }));
            }
        };
        let Some(hit) = hit else {
            return raw(&json!({ "_index": index, "_type": "_doc", "_id": wanted.id, "found": false }));
        };
        response::raw(&super::documents::GetResponse::found(
            &hit,
            filtered_source(&hit, &wanted.source)?.as_deref(),
        ))
    }
}

fn parse_wanted(body: &Value, routed: &RoutedRequest<'_>) -> Result<Vec<WantedDocument>, ApiError> {
    let default_index = routed.route.index.as_deref();
    let default_source = source_filter(routed.parameters)?;
    let mut wanted = Vec::new();
    for (key, value) in body.as_object().into_iter().flatten() {
        let list = value.as_array().map_or(&[][..], Vec::as_slice);
        match key.as_str() {
            "docs" | "ids" if list.len() > DOCUMENTS_MAX => {
                return Err(ApiError::illegal_argument(format!("more than {DOCUMENTS_MAX} documents")));
            }
            "ids" | "docs" => {
                for one in list {
                    wanted.push(parse_document(one, default_index, &default_source, wanted.len())?);
                }
            }
            key => {
                let found = if value.is_array() { "START_ARRAY" } else { "value" };
                let reason = format!("unknown key [{key}] for a {found}, expected [docs] or [ids]");
                return Err(ApiError::new(400, "parsing_exception", reason));
            }
        }
    }
    match wanted.is_empty() {
        true => Err(ApiError::validation("no documents to get")),
        false => Ok(wanted),
    }
}

fn parse_document(
    one: &Value,
    default_index: Option<&str>,
    default_source: &SourceFilter,
    nth: usize,
) -> Result<WantedDocument, ApiError> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let mut document = WantedDocument {
        index: default_index.unwrap_or_default().to_owned(),
        id: text(one).unwrap_or_default(),
        source: default_source.clone(),
    };
    for (key, value) in one.as_object().into_iter().flatten() {
        match key.as_str() {
            // Java's client writes each member, even if it has no value.
            _ if value.is_null() => {}
            "_index" => document.index = text(value).unwrap_or_default(),
            "_id" => document.id = text(value).unwrap_or_default(),
            "_source" => document.source = parse_source(value),
            "_type" | "routing" | "_routing" | "version" | "version_type" => {}
            key => return Err(ApiError::not_supported(format_args!("[{key}] of a document in _mget"))),
        }
    }
    match (document.index.is_empty(), document.id.is_empty()) {
        (true, _) => Err(ApiError::validation(&format!("index is missing for doc {nth}"))),
        (_, true) => Err(ApiError::validation(&format!("id is missing for doc {nth}"))),
        _ => Ok(document),
    }
}

fn parse_source(value: &Value) -> SourceFilter {
    let texts = |value: &Value| match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(list) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    match value {
        Value::Bool(wanted) => SourceFilter { excludes_all: !wanted, ..SourceFilter::default() },
        Value::Object(parts) => {
            let part = |names: [&str; 2]| {
                names.iter().find_map(|name| parts.get(*name)).map(texts).unwrap_or_default()
            };
            let (includes, excludes) = (part(["includes", "include"]), part(["excludes", "exclude"]));
            SourceFilter { excludes_all: false, includes, excludes }
        }
        names => SourceFilter { includes: texts(names), ..SourceFilter::default() },
    }
}
