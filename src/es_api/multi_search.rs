//! The endpoint `_msearch`: several searches in one request. Runs on the threads of the HTTP connections.
//!
//! The body consists of pairs of lines: a header with the indices, and a search. As in Elasticsearch, a malformed search
//! rejects the whole request, and a search that cannot be executed has its error in its place.

use std::time::Instant;

use serde_json::Value;

use super::api::{EsApi, RoutedRequest};
use super::error::ApiError;
use super::field_filter::raw_members;
use super::response::JSON;
use super::route::parse_index_names;
use super::search::{HITS_BYTES_MAX, PreparedSearch, SearchScope};
use crate::http::Response;
use crate::search::budget;

/// Limit on the searches of one request. A dashboard sends one for each of its panels.
const SEARCHES_MAX: usize = 256;

/// Keys of a header that have no effect on a single node.
const IGNORED_KEYS: [&str; 8] = [
    "search_type",
    "request_cache",
    "preference",
    "routing",
    "allow_partial_search_results",
    "ccs_minimize_roundtrips",
    "ignore_throttled",
    "allow_no_indices",
];

impl EsApi {
    pub(super) fn multi_search(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        let started = Instant::now();
        let known = [
            "rest_total_hits_as_int",
            "typed_keys",
            "max_concurrent_searches",
            "max_concurrent_shard_requests",
            "pre_filter_shard_size",
            "ccs_minimize_roundtrips",
            "search_type",
        ];
        routed.allow_parameters(&known)?;
        let body = self.read_required_body(routed)?;
        let searches = self.parse_multi_search(routed, body.bytes())?;
        drop(body);
        let mut responses = Vec::with_capacity(searches.len());
        let mut bytes = 0;
        for (scope, search) in searches {
            let response = self.run_search(&scope, search).and_then(|response| {
                budget::charge(response.len())?;
                bytes += response.len();
                match bytes <= HITS_BYTES_MAX {
                    true => Ok(response),
                    false => Err(too_large(bytes)),
                }
            });
            responses.push(with_status(response));
        }
        let took = started.elapsed().as_millis();
        let mut out = format!("{{\"took\":{took},\"responses\":[").into_bytes();
        out.extend(responses.join(&b","[..]));
        out.extend_from_slice(b"]}");
        Ok(Response::new(200, JSON, out))
    }

    fn parse_multi_search<'a>(
        &self,
        routed: &'a RoutedRequest<'_>,
        body: &[u8],
    ) -> Result<Vec<(SearchScope<'a>, PreparedSearch)>, ApiError> {
        let Some(body) = body.strip_suffix(b"\n") else {
            return Err(ApiError::illegal_argument(
                "The msearch request must be terminated by a newline [\n]",
            ));
        };
        // As in Elasticsearch, the body may start with an empty line.
        let body = body.strip_prefix(b"\n").unwrap_or(body);
        let mut searches = Vec::new();
        let mut lines = body.split(|byte| *byte == b'\n');
        while let Some(header) = lines.next() {
            let scope = self.parse_header(routed, header)?;
            let Some(search) = lines.next() else {
                // Some clients end the body with an empty line.
                match header.trim_ascii().is_empty() {
                    true => break,
                    false => return Err(ApiError::validation("the last search has no body")),
                }
            };
            if searches.len() == SEARCHES_MAX {
                return Err(ApiError::illegal_argument(format!("more than {SEARCHES_MAX} searches")));
            }
            let search = self.parse_search(&scope, search)?;
            searches.push((scope, search));
        }
        match searches.is_empty() {
            true => Err(ApiError::validation("no requests added")),
            false => Ok(searches),
        }
    }

    /// Parses the header of a search. What it does not set is taken from the request.
    fn parse_header<'a>(
        &self,
        routed: &'a RoutedRequest<'_>,
        line: &[u8],
    ) -> Result<SearchScope<'a>, ApiError> {
        let mut scope = SearchScope::of_request(self, routed)?;
        let members = match line.trim_ascii().is_empty() {
            true => Some(Vec::new()),
            false => raw_members(line),
        };
        let members = members
            .ok_or_else(|| ApiError::new(400, "json_parse_exception", "a header is not a JSON object"))?;
        for (key, value) in members {
            let value: Value = serde_json::from_str(value.get()).unwrap_or_default();
            match (key.as_ref(), &value) {
                ("index" | "indices", Value::String(names)) => {
                    scope.indices = self.resolve_names(parse_index_names(Some(names))?, None)?;
                }
                ("index" | "indices", Value::Array(names)) => {
                    let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
                    scope.indices = self.resolve_names(parse_index_names(Some(&names.join(",")))?, None)?;
                }
                ("index" | "indices", Value::Null) => {}
                ("ignore_unavailable", Value::Bool(ignores)) => {
                    scope.ignore_unavailable = Some(*ignores);
                }
                ("expand_wildcards" | "type" | "types", _) => {}
                (key, _) if IGNORED_KEYS.contains(&key) => {}
                (key, _) => {
                    let reason = format!("key [{key}] is not supported in the metadata section");
                    return Err(ApiError::illegal_argument(reason));
                }
            }
        }
        Ok(scope)
    }
}

fn too_large(bytes: usize) -> ApiError {
    let reason = format!(
        "Data too large: the responses of this request have more than [{bytes}] bytes, the limit is [{HITS_BYTES_MAX}]; \
         request fewer hits, or fewer fields"
    );
    ApiError::new(429, "circuit_breaking_exception", reason)
}

/// Returns the response of one search with its status as the last member.
fn with_status(response: Result<Vec<u8>, ApiError>) -> Vec<u8> {
    match response {
        Ok(mut response) => {
            response.pop();
            response.extend_from_slice(b",\"status\":200}");
            response
        }
        // An error has its status.
        Err(error) => serde_json::to_vec(&error).unwrap_or_default(),
    }
}
