//! Endpoints that help clients and people: `_analyze`, `_validate/query`, `_stats`, `_flush` and the like. Runs on the threads
//! of the HTTP connections.

use serde_json::{Map, Value, json};

use super::api::{EsApi, RoutedRequest};
use super::error::ApiError;
use super::indices::{EXPAND_PARAMETERS, TIMEOUT_PARAMETERS, json_object};
use super::parameters::is_source_parameter;
use super::response::{self, stable_uuid};
use crate::http::Response;
use crate::search::analysis;
use crate::search::mapping::FieldType;
use crate::search::query::search_request;
use crate::search::store::StoreError;

/// Limit on the text of an `_analyze`, and on its tokens, as in Elasticsearch.
const ANALYZED_BYTES_MAX: usize = 256 << 10;
const TOKENS_MAX: usize = 10_000;

/// How a text becomes tokens.
#[derive(Clone, Copy, PartialEq)]
enum Analyzer {
    Standard,
    /// The whole text is one token.
    Keyword,
}

impl EsApi {
    /// Accepts requests that ask the storage to tidy up. The store does that itself.
    pub(super) fn tidy(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        let own = [
            "force",
            "wait_if_ongoing",
            "max_num_segments",
            "only_expunge_deletes",
            "flush",
            "fielddata",
            "fields",
            "query",
            "request",
        ];
        routed.allow_parameters(&[&own[..], &EXPAND_PARAMETERS].concat())?;
        let count = self.select_indices(routed)?.len();
        Ok(response::json(200, &json!({ "_shards": { "total": count, "successful": count, "failed": 0 } })))
    }

    /// Returns ingest pipelines, of which there are none.
    pub(super) fn pipelines(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        routed.allow_parameters(&["master_timeout", "summary"])?;
        Ok(response::json(404, &json!({})))
    }

    /// Returns the number of documents and the size of indices.
    pub(super) fn stats(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        let own = [
            "level",
            "fields",
            "fielddata_fields",
            "completion_fields",
            "groups",
            "human",
            "forbid_closed_indices",
        ];
        routed.allow_parameters(&[&own[..], &TIMEOUT_PARAMETERS, &EXPAND_PARAMETERS].concat())?;
        let wanted = routed.route.id.as_deref().filter(|metrics| *metrics != "_all");
        let has = |metric: &str| wanted.is_none_or(|metrics| metrics.split(',').any(|one| one == metric));
        let section = |documents: u64, bytes: u64| {
            let mut section = Map::new();
            if has("docs") {
                section.insert("docs".to_owned(), json!({ "count": documents, "deleted": 0 }));
            }
            if has("store") {
                section.insert(
                    "store".to_owned(),
                    json!({ "size_in_bytes": bytes, "total_data_set_size_in_bytes": bytes }),
                );
            }
            let section = Value::Object(section);
            json!({ "primaries": section, "total": section })
        };
        let (mut indices, mut documents, mut bytes) = (Map::new(), 0, 0);
        for index in self.select_indices(routed)? {
            (documents, bytes) = (documents + index.documents, bytes + index.bytes);
            let mut one = section(index.documents, index.bytes);
            one["uuid"] = stable_uuid(&index.name).into();
            indices.insert(index.name, one);
        }
        let count = indices.len();
        Ok(response::json(
            200,
            &json!({
                "_shards": { "total": count, "successful": count, "failed": 0 },
                "_all": section(documents, bytes), "indices": indices,
            }),
        ))
    }

    /// Returns whether a query can be parsed and executed.
    pub(super) fn validate_query(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        if routed.parameters.is_on("explain")? || routed.parameters.is_on("rewrite")? {
            return Err(ApiError::not_supported("[explain] and [rewrite] of _validate/query"));
        }
        let indices = self.indices(routed)?;
        let body = self.read_body(routed)?;
        let passes = |key: &str| {
            is_source_parameter(key)
                || matches!(key, "explain" | "rewrite" | "all_shards")
                || EXPAND_PARAMETERS.contains(&key)
        };
        let parameters = routed.parameters.pairs().filter(|(key, _)| !passes(key));
        let valid = match search_request::parse_count(parameters, body.bytes()) {
            Ok(query) => {
                let query = self.prepare_query(query, routed.route.doc_type.as_deref());
                match self.store.count(&indices, false, &query) {
                    Ok(_) => true,
                    Err(StoreError::Invalid(_)) => false,
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) if error.reason.starts_with("request contains unrecognized parameter") => {
                return Err(super::search::query_error(routed.request.path(), error));
            }
            Err(_) => false,
        };
        let shards = json!({ "total": 1, "successful": 1, "failed": 0 });
        Ok(response::json(200, &json!({ "_shards": shards, "valid": valid })))
    }

    /// Returns the tokens of a text.
    pub(super) fn analyze(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        let body = self.read_required_body(routed)?;
        routed.allow_parameters(&["index", "prefer_local"])?;
        let body = Value::Object(json_object(body.bytes())?);
        let analyzer = self.analyzer(routed, &body)?;
        let texts: Vec<&str> = match body.get("text") {
            Some(Value::String(text)) => vec![text],
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        if texts.is_empty() {
            return Err(ApiError::validation("text is missing"));
        }
        if texts.iter().map(|text| text.len()).sum::<usize>() > ANALYZED_BYTES_MAX {
            return Err(ApiError::illegal_argument(format!(
                "the text has more than {ANALYZED_BYTES_MAX} bytes"
            )));
        }
        let tokens = tokens_json(&texts, analyzer)?;
        Ok(response::json(200, &json!({ "tokens": tokens })))
    }

    /// Returns the analyzer that a request names, or that of its field.
    fn analyzer(&self, routed: &RoutedRequest<'_>, body: &Value) -> Result<Analyzer, ApiError> {
        let mut analyzer = Analyzer::Standard;
        for (key, value) in body.as_object().into_iter().flatten() {
            let text = value.as_str();
            match (key.as_str(), text) {
                ("text", _) => {}
                ("analyzer", Some("standard" | "default")) => {}
                ("analyzer" | "tokenizer", Some("keyword")) => analyzer = Analyzer::Keyword,
                ("analyzer", Some(name)) => {
                    return Err(ApiError::illegal_argument(format!(
                        "failed to find global analyzer [{name}]"
                    )));
                }
                ("field", Some(name)) => {
                    let indices = self.select_indices(routed)?;
                    let field = indices.iter().find_map(|index| index.mapping.fields.get(name));
                    if field.is_some_and(|field| field.field_type != FieldType::Text) {
                        analyzer = Analyzer::Keyword;
                    }
                }
                ("tokenizer", Some("standard")) if body.get("filter") == Some(&json!(["lowercase"])) => {}
                ("filter", _) if body.get("tokenizer") == Some(&json!("standard")) => {}
                (key, _) => return Err(ApiError::not_supported(format_args!("[{key}] of _analyze"))),
            }
        }
        Ok(analyzer)
    }
}

/// Returns the tokens of texts with their offsets in UTF-16 units. The texts count as one, with a unit between them.
fn tokens_json(texts: &[&str], analyzer: Analyzer) -> Result<Vec<Value>, ApiError> {
    let units = |text: &str| text.encode_utf16().count();
    let (mut tokens, mut position, mut offset) = (Vec::new(), 0, 0);
    for text in texts {
        let segments: Vec<&str> = match analyzer {
            Analyzer::Keyword => vec![*text],
            Analyzer::Standard => analysis::segments(text).take(TOKENS_MAX + 1).collect(),
        };
        let (mut at_bytes, mut at_units) = (0, offset);
        for segment in segments {
            if tokens.len() == TOKENS_MAX {
                let reason = format!(
                    "The number of tokens produced by calling _analyze has exceeded the allowed maximum of [{TOKENS_MAX}]."
                );
                return Err(ApiError::new(400, "illegal_state_exception", reason));
            }
            let from_bytes = segment.as_ptr() as usize - text.as_ptr() as usize;
            let start = at_units + units(&text[at_bytes..from_bytes]);
            let end = start + units(segment);
            (at_bytes, at_units) = (from_bytes + segment.len(), end);
            let token = match analyzer {
                Analyzer::Standard => analysis::to_lowercase(segment),
                Analyzer::Keyword => segment.into(),
            };
            let kind = match analyzer {
                Analyzer::Keyword => "word",
                Analyzer::Standard => token_type(segment),
            };
            tokens.push(json!({
                "token": token, "start_offset": start, "end_offset": end, "type": kind, "position": position,
            }));
            position += 1;
        }
        offset += units(text) + 1;
    }
    Ok(tokens)
}

fn token_type(segment: &str) -> &'static str {
    let mut characters = segment.chars();
    match characters.next() {
        Some('\u{3040}'..='\u{309f}') => "<HIRAGANA>",
        Some('\u{30a0}'..='\u{30ff}') => "<KATAKANA>",
        Some('\u{4e00}'..='\u{9fff}') => "<IDEOGRAPHIC>",
        Some('\u{ac00}'..='\u{d7af}') => "<HANGUL>",
        Some(first) if first.is_ascii_digit() && segment.chars().all(|c| !c.is_alphabetic()) => "<NUM>",
        _ => "<ALPHANUM>",
    }
}
