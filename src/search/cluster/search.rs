//! Searches in the cluster. Runs on the threads of the callers.
//!
//! Invariants: a response is complete, or it is an error. It arrives within the search timeout, or that is
//! the error. The memory of the responses being read is bounded, for a single one and for all together. A
//! request whose connection was lost is sent once more, because searches change nothing.

use std::io::Read as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use ureq::http::{Method, Response, header};

use super::client::{ClientError, EsRequestBody, EsResponse, encode_path_segment};
use super::response::{IncompleteResult, ParsedSearch, ShardSummary};
use super::{ClusterSearcher, request};
use crate::search::mapping::{Dynamic, Field, FieldType, Mapping};
use crate::search::query::{Hit, Query, Search, SearchResult};
use crate::search::store::{AdminApi, IndexInfo, RawResponse, StoreError};

/// Maximum size of one response: the HTTP server's limit for sources, and room for what surrounds them.
const RESPONSE_BYTES_MAX: usize = 32 << 20;

/// Maximum size of all responses that are being read.
const RESPONSES_BYTES_MAX: usize = 96 << 20;

/// Size that every response may have in addition, so that a few large ones do not block the many small ones.
const FREE_BYTES: usize = 64 << 10;

/// Step by which a response reserves memory.
const STEP_BYTES: usize = 1 << 20;

/// Share of the search timeout after which the cluster itself stops, in tenths.
const CLUSTER_TENTHS: u32 = 9;

/// Maximum nesting depth of objects in a mapping.
const DEPTH_MAX: usize = 20;

/// Memory reserved by all responses of this process.
static HELD_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Memory reserved by one response; released on drop.
#[derive(Default)]
struct MemoryShare(usize);

impl MemoryShare {
    /// Reserves one more step. Returns false if the limit is reached.
    fn grow(&mut self) -> bool {
        let more = |held: usize| held.checked_add(STEP_BYTES).filter(|held| *held <= RESPONSES_BYTES_MAX);
        let grown = HELD_BYTES.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        self.0 += if grown { STEP_BYTES } else { 0 };
        grown
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        HELD_BYTES.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// A response with its memory reservation.
struct HeldResponse {
    response: EsResponse,
    is_json: bool,
    _share: MemoryShare,
}

#[derive(Deserialize)]
struct CatIndexRow {
    index: String,
    #[serde(rename = "docs.count")]
    documents: Option<String>,
    #[serde(rename = "store.size")]
    bytes: Option<String>,
}

impl ClusterSearcher {
    /// Returns the document with this id, of the most recent day if several have it.
    pub(super) fn get(&self, index: &str, id: &str) -> Result<Option<Hit>, StoreError> {
        let body = json!({
            "query": {"ids": {"values": [id]}}, "size": 1, "sort": [{"_index": "desc"}], "version": true,
            "seq_no_primary_term": true, "timeout": self.timeout(),
        });
        let mut found = self.run_search(&[index.to_owned()], false, false, &body)?;
        Ok(found.hits.pop().map(|hit| Hit { sort: Vec::new(), ..hit }))
    }

    pub(super) fn count(
        &self,
        indices: &[String],
        ignore_unavailable: bool,
        query: &Query,
    ) -> Result<u64, StoreError> {
        let body = json!({
            "query": request::query(query), "size": 0, "track_total_hits": true, "timeout": self.timeout(),
        });
        Ok(self.run_search(indices, ignore_unavailable, false, &body)?.total)
    }

    pub(super) fn search(&self, search: &Search) -> Result<SearchResult, StoreError> {
        let body = request::search(search, &self.timeout());
        self.run_search(&search.indices, search.ignore_unavailable, search.typed_keys, &body)
    }

    /// Returns the indices with these names, patterns or aliases.
    pub(super) fn indices(&self, indices: &[String]) -> Result<Vec<IndexInfo>, StoreError> {
        let mappings = self.expect_success(self.request(
            &Method::GET,
            &self.client.index_path(indices, "_mapping"),
            EsRequestBody::Empty,
        )?)?;
        let mappings: Map<String, Value> = parse(&mappings.body)?;
        let list =
            format!("{}?format=json&bytes=b&h=index,docs.count,store.size", cat_path("indices", indices));
        let listed = self.expect_success(self.request(&Method::GET, &list, EsRequestBody::Empty)?)?;
        let listed: Vec<CatIndexRow> = parse(&listed.body)?;
        let number = |text: Option<&String>| text.and_then(|text| text.parse().ok()).unwrap_or(0);
        let index = |(name, mapping): (String, Value)| {
            let listed = listed.iter().find(|listed| listed.index == name);
            IndexInfo {
                documents: number(listed.and_then(|listed| listed.documents.as_ref())),
                bytes: number(listed.and_then(|listed| listed.bytes.as_ref())),
                mapping: parse_mapping(&mapping["mappings"]),
                name,
            }
        };
        Ok(mappings.into_iter().map(index).collect())
    }

    /// Makes all indexed documents visible to searches.
    pub(super) fn refresh(&self, indices: &[String], ignore_unavailable: bool) -> Result<(), StoreError> {
        let path = format!(
            "{}?ignore_unavailable={ignore_unavailable}",
            self.client.index_path(indices, "_refresh")
        );
        let response = self.expect_success(self.request(&Method::POST, &path, EsRequestBody::Empty)?)?;
        let refreshed: Value = parse(&response.body)?;
        ShardSummary::of(&refreshed).check_complete().map_err(incomplete)
    }

    /// Forwards a GET request to an administrative API.
    pub(super) fn forward_get(
        &self,
        about: AdminApi,
        indices: &[String],
        parameters: &[(&str, &str)],
    ) -> Result<RawResponse, StoreError> {
        let names: Vec<String> = indices.iter().map(|name| encode_path_segment(name).to_string()).collect();
        let path = match about {
            AdminApi::Index if indices.is_empty() => "/_all".to_owned(),
            AdminApi::Index => format!("/{}", names.join(",")),
            AdminApi::Mapping => self.client.index_path(indices, "_mapping"),
            AdminApi::Health if indices.is_empty() => "/_cluster/health".to_owned(),
            AdminApi::Health => format!("/_cluster/health/{}", names.join(",")),
            AdminApi::CatHealth => cat_path("health", &[]),
            AdminApi::CatIndices => cat_path("indices", indices),
        };
        let query: String = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
        let held = self.request(&Method::GET, &format!("{path}?{query}"), EsRequestBody::Empty)?;
        let held = self.check_readable(held)?;
        Ok(RawResponse { status: held.response.status, is_json: held.is_json, body: held.response.body })
    }

    /// Forwards a request as it is.
    pub(super) fn forward(&self, method: &str, target: &str, body: &[u8]) -> Result<RawResponse, StoreError> {
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| StoreError::Invalid(format!("unknown method {method}")))?;
        let body = if body.is_empty() { EsRequestBody::Empty } else { EsRequestBody::Json(body) };
        let held = self.request(&method, target, body)?;
        Ok(RawResponse { status: held.response.status, is_json: held.is_json, body: held.response.body })
    }

    /// Value of the `timeout` parameter: when the cluster itself stops.
    fn timeout(&self) -> String {
        format!("{}ms", (self.search_timeout * CLUSTER_TENTHS / 10).as_millis().max(1))
    }

    fn run_search(
        &self,
        indices: &[String],
        ignore_unavailable: bool,
        typed_keys: bool,
        body: &Value,
    ) -> Result<SearchResult, StoreError> {
        let path = format!(
            "{}?ignore_unavailable={ignore_unavailable}&typed_keys={typed_keys}&allow_partial_search_results=false",
            self.client.index_path(indices, "_search")
        );
        let held = self.request(&Method::POST, &path, EsRequestBody::Json(body.to_string().as_bytes()))?;
        // The reservation is released after the result has been extracted.
        let (response, _share) = self.expect_success_held(held)?;
        let found: ParsedSearch<'_> = parse(&response.body)?;
        match found.check_complete() {
            Ok(()) => Ok(found.into_result()),
            Err(IncompleteResult::TimedOut) => Err(self.timed_out()),
            Err(error) => Err(incomplete(error)),
        }
    }

    /// Sends a request, and once more if the connection was lost: a pooled connection may have been closed by
    /// the server.
    fn request(
        &self,
        method: &Method,
        path: &str,
        body: EsRequestBody<'_>,
    ) -> Result<HeldResponse, StoreError> {
        let deadline = Instant::now() + self.search_timeout;
        let mut again = true;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.timed_out());
            }
            match self.client.send_and_read(method, path, body, left, read_response) {
                Ok(read) => return read,
                Err(ClientError::TimedOut { .. }) => return Err(self.timed_out()),
                Err(ClientError::Unreachable { .. }) if std::mem::take(&mut again) => {}
                Err(error @ ClientError::Unreachable { .. }) => {
                    return Err(StoreError::Unreachable(error.to_string()));
                }
            }
        }
    }

    fn timed_out(&self) -> StoreError {
        StoreError::TimedOut(self.search_timeout.as_millis().try_into().unwrap_or(u64::MAX))
    }

    fn expect_success(&self, held: HeldResponse) -> Result<EsResponse, StoreError> {
        self.expect_success_held(held).map(|(response, _share)| response)
    }

    /// Returns a successful response, or its error.
    fn expect_success_held(&self, held: HeldResponse) -> Result<(EsResponse, MemoryShare), StoreError> {
        let HeldResponse { response, _share, .. } = self.check_readable(held)?;
        if response.is_success() {
            return Ok((response, _share));
        }
        let cause = response.error_reason();
        // Elasticsearch's message for a search that reached its timeout.
        if response.status >= 429 && String::from_utf8_lossy(&response.body).contains("Time exceeded") {
            return Err(self.timed_out());
        }
        let EsResponse { status, body } = response;
        Err(StoreError::Rejected { status, cause, body })
    }

    /// Passes a response that the client may see. Errors about lea's own credentials, or from a proxy before
    /// the cluster, are replaced.
    fn check_readable(&self, held: HeldResponse) -> Result<HeldResponse, StoreError> {
        let (status, cause) = (held.response.status, || held.response.error_reason());
        match status {
            401 | 403 => Err(StoreError::Failed {
                act: "query the cluster",
                cause: format!(
                    "lea's user is not authorized (check the user, the password and the privileges in --cluster): {} (status {status})",
                    cause()
                ),
            }),
            300.. if !is_cluster_error(&held) => {
                Err(StoreError::Unreachable(format!("status {status}: {}", cause())))
            }
            _ => Ok(held),
        }
    }
}

/// Reads a response within the memory limits.
fn read_response(
    mut response: Response<ureq::Body>,
) -> Result<Result<HeldResponse, StoreError>, ureq::Error> {
    let status = response.status().as_u16();
    let kind = response.headers().get(header::CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
    let is_json = kind.starts_with(b"application/json");
    let mut reader = response.body_mut().as_reader();
    let (mut body, mut share) = (Vec::new(), MemoryShare::default());
    loop {
        let room = FREE_BYTES + share.0;
        let read = reader.by_ref().take((room - body.len()) as u64).read_to_end(&mut body)?;
        if read == 0 || body.len() < room {
            break;
        }
        if body.len() > RESPONSE_BYTES_MAX {
            break;
        }
        if !share.grow() {
            return Ok(Err(StoreError::Busy));
        }
    }
    if body.len() > RESPONSE_BYTES_MAX {
        return Ok(Err(StoreError::TooLarge(RESPONSE_BYTES_MAX)));
    }
    Ok(Ok(HeldResponse { response: EsResponse { status, body }, is_json, _share: share }))
}

/// True for an error in Elasticsearch's form, and for a missing document (`{"found": false}`).
fn is_cluster_error(held: &HeldResponse) -> bool {
    held.is_json && held.response.body.trim_ascii_start().starts_with(b"{")
}

fn incomplete(error: IncompleteResult) -> StoreError {
    StoreError::Unreachable(error.to_string())
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, StoreError> {
    serde_json::from_slice(body).map_err(unreadable_response)
}

fn unreadable_response(error: serde_json::Error) -> StoreError {
    StoreError::Failed { act: "parse the cluster's response", cause: error.to_string() }
}

fn cat_path(what: &str, indices: &[String]) -> String {
    let names: Vec<String> = indices.iter().map(|name| encode_path_segment(name).to_string()).collect();
    if names.is_empty() { format!("/_cat/{what}") } else { format!("/_cat/{what}/{}", names.join(",")) }
}

/// Parses a mapping; fields of unsupported types are skipped.
fn parse_mapping(mappings: &Value) -> Mapping {
    let dynamic = match mappings["dynamic"].as_str() {
        Some("false") => Dynamic::False,
        Some("strict") => Dynamic::Strict,
        _ => Dynamic::True,
    };
    let mut mapping = Mapping { dynamic, ..Mapping::default() };
    parse_fields(&mut mapping, "", &mappings["properties"], None, DEPTH_MAX);
    mapping
}

fn parse_fields(mapping: &mut Mapping, path: &str, properties: &Value, parent: Option<&str>, depth: usize) {
    let Some(properties) = properties.as_object().filter(|_| depth > 0) else { return };
    for (name, property) in properties {
        let name = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        parse_fields(mapping, &name, &property["properties"], None, depth - 1);
        parse_fields(mapping, &name, &property["fields"], Some(&name), depth - 1);
        let text = |key: &str| property[key].as_str().map(str::to_owned);
        let Some((declared, kind)) =
            text("type").and_then(|name| FieldType::from_cluster_name(&name).map(|kind| (name, kind)))
        else {
            continue;
        };
        let field = Field {
            declared_type: (declared != kind.name()).then_some(declared),
            parent: parent.map(str::to_owned),
            ignore_above: property["ignore_above"].as_u64().and_then(|chars| chars.try_into().ok()),
            format: text("format"),
            ignore_malformed: property["ignore_malformed"].as_bool().unwrap_or_default(),
            is_searchable: property["index"].as_bool().unwrap_or(true),
            field_type: kind,
        };
        mapping.fields.insert(name, field);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: usize) -> Result<HeldResponse, StoreError> {
        let body = ureq::Body::builder().data(vec![b' '; bytes]);
        let response = Response::builder().header(header::CONTENT_TYPE, "application/json; charset=UTF-8");
        read_response(response.body(body).unwrap()).unwrap()
    }

    #[test]
    fn response_memory_is_limited_per_response_and_in_total() {
        for bytes in
            [0, 1, FREE_BYTES - 1, FREE_BYTES, FREE_BYTES + 1, FREE_BYTES + STEP_BYTES, RESPONSE_BYTES_MAX]
        {
            let held = read(bytes).unwrap();
            assert_eq!((held.response.body.len(), held.is_json), (bytes, true));
        }
        assert!(matches!(read(RESPONSE_BYTES_MAX + 1), Err(StoreError::TooLarge(_))));
        assert!(matches!(read(2 * RESPONSE_BYTES_MAX), Err(StoreError::TooLarge(_))));

        assert_eq!(HELD_BYTES.load(Ordering::Relaxed), 0);
        let mut all = MemoryShare::default();
        let steps = std::iter::repeat_with(|| all.grow()).take_while(|grown| *grown).count();
        assert_eq!(steps, RESPONSES_BYTES_MAX / STEP_BYTES);
        assert!(matches!(read(FREE_BYTES + 1), Err(StoreError::Busy)));
        // A small response still finds room.
        assert!(read(FREE_BYTES - 1).is_ok());
        drop(all);
        assert!(read(FREE_BYTES + 1).is_ok());
    }

    #[test]
    fn mapping_of_a_cluster_skips_unsupported_types() {
        let mapping = parse_mapping(&json!({"dynamic": "strict", "properties": {
            "n": {"type": "integer"}, "v": {"type": "dense_vector"}, "d": {"type": "date", "format": "yyyy"},
            "o": {"properties": {"t": {"type": "text", "fields": {"keyword": {"type": "keyword", "ignore_above": 5}}}}},
        }}));
        assert_eq!(mapping.dynamic, Dynamic::Strict);
        let names: Vec<_> =
            mapping.fields.iter().map(|(name, field)| (name.as_str(), field.type_name())).collect();
        assert_eq!(names, [("d", "date"), ("n", "integer"), ("o.t", "text"), ("o.t.keyword", "keyword")]);
        assert_eq!(mapping.fields["o.t.keyword"].parent.as_deref(), Some("o.t"));
        assert_eq!(mapping.fields["o.t.keyword"].ignore_above, Some(5));
        assert_eq!(parse_mapping(&json!(null)), Mapping { dynamic: Dynamic::True, ..Mapping::default() });
    }
}
