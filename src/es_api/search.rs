//! The endpoints `_search` and `_count`. Runs on the threads of the HTTP connections.
//!
//! A proxy counts the events of a number while a caller waits, so `_count` does no work that it can avoid.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::api::{EsApi, RoutedRequest};
use super::documents::filtered_source;
use super::endpoint::Endpoint;
use super::error::ApiError;
use super::parameters::is_source_parameter;
use super::response::{self, JSON, ShardCounts};
use super::scroll::split_point_in_time;
use crate::http::Response;
use crate::search::budget;
use crate::search::hit_fields::FieldPlan;
use crate::search::query::{
    BucketHits, Hit, HitOptions, OutputJson, Query, QueryError, QueryValue as Term, Search, SearchResult,
    Sort, SortKey, SourceFilter, add_canonical_terms, search_request,
};
use crate::search::store::{PinnedState, StoreError};

/// Size limit of all sources in one response. A client pages through a larger result.
pub(super) const HITS_BYTES_MAX: usize = 24 << 20;

#[derive(Serialize)]
struct CountResponse {
    count: u64,
    #[serde(rename = "_shards")]
    shards: ShardCounts,
}

#[derive(Serialize)]
struct SearchResponse<'a> {
    #[serde(rename = "_scroll_id", skip_serializing_if = "Option::is_none")]
    scroll_id: Option<&'a str>,
    took: u64,
    timed_out: bool,
    #[serde(rename = "_shards")]
    shards: ShardCounts,
    hits: HitsOutput<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aggregations: Option<OutputJson>,
}

#[derive(Serialize)]
struct HitsOutput<'a> {
    total: HitTotal,
    max_score: Option<f64>,
    hits: Vec<HitOutput<'a>>,
}

enum HitTotal {
    Object(u64),
    Number(u64),
}

impl Serialize for HitTotal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            HitTotal::Number(total) => serializer.serialize_u64(*total),
            HitTotal::Object(total) => {
                let mut map = serializer.serialize_map(Some(2))?;
                map.serialize_entry("value", total)?;
                map.serialize_entry("relation", "eq")?;
                map.end()
            }
        }
    }
}

#[derive(Serialize)]
struct HitOutput<'a> {
    #[serde(rename = "_index")]
    index: &'a str,
    #[serde(rename = "_type")]
    doc_type: &'a str,
    #[serde(rename = "_id")]
    id: &'a str,
    #[serde(rename = "_version", skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(rename = "_seq_no", skip_serializing_if = "Option::is_none")]
    seq_no: Option<u64>,
    #[serde(rename = "_primary_term", skip_serializing_if = "Option::is_none")]
    primary_term: Option<u64>,
    #[serde(rename = "_score")]
    score: Option<f64>,
    #[serde(rename = "_ignored", skip_serializing_if = "<[String]>::is_empty")]
    ignored: &'a [String],
    #[serde(rename = "_source", skip_serializing_if = "Option::is_none")]
    source: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    fields: Map<String, Value>,
    #[serde(skip_serializing_if = "<[Value]>::is_empty")]
    sort: &'a [Value],
}

/// Where a search looks, and how its response is written.
pub(super) struct SearchScope<'a> {
    /// The path of the request, for errors.
    pub(super) path: &'a str,
    pub(super) indices: Vec<String>,
    /// The mapping type of the path.
    pub(super) doc_type: Option<&'a str>,
    pub(super) parameters: Vec<(&'a str, &'a str)>,
    /// Overrides the parameter `ignore_unavailable`.
    pub(super) ignore_unavailable: Option<bool>,
    pub(super) typed_keys: bool,
    /// `rest_total_hits_as_int`: the total is a number, as in 6.x.
    pub(super) total_as_number: bool,
}

impl<'a> SearchScope<'a> {
    pub(super) fn of_request(
        api: &EsApi,
        routed: &'a RoutedRequest<'_>,
    ) -> Result<SearchScope<'a>, ApiError> {
        let is_of_several = routed.route.endpoint == Endpoint::MultiSearch;
        // The parameters of `_msearch` are not those of its searches.
        let parameters = match is_of_several {
            true => Vec::new(),
            false => routed.parameters.pairs().filter(|(key, _)| !is_own_parameter(key)).collect(),
        };
        Ok(SearchScope {
            path: routed.request.path(),
            indices: api.indices(routed)?,
            doc_type: routed.route.doc_type.as_deref(),
            parameters,
            ignore_unavailable: None,
            typed_keys: routed.parameters.is_on("typed_keys")?,
            total_as_number: routed.parameters.is_on("rest_total_hits_as_int")?,
        })
    }
}

/// A search that is ready to be executed.
pub(super) struct PreparedSearch {
    pub(super) search: Search,
    pub(super) started: Instant,
    /// The state of the store to search in, of a point in time.
    pub(super) pinned: Option<Arc<PinnedState>>,
    pub(super) pit_id: Option<String>,
}

impl EsApi {
    pub(super) fn count(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        let body = self.read_body(routed)?;
        let parameters = routed.parameters.pairs().filter(|(key, _)| !is_own_parameter(key));
        let query = search_request::parse_count(parameters, body.bytes())
            .map_err(|error| query_error(routed.request.path(), error))?;
        let query = self.prepare_query(query, routed.route.doc_type.as_deref());
        let ignores = routed.parameters.is_on("ignore_unavailable")?;
        let count = self.store.count(&self.indices(routed)?, ignores, &query)?;
        Ok(response::json(200, &CountResponse { count, shards: ShardCounts::OF_SEARCH }))
    }

    pub(super) fn search(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        let started = Instant::now();
        let scope = SearchScope::of_request(self, routed)?;
        let body = self.read_body(routed)?;
        let search = match split_point_in_time(body.bytes())? {
            Some((pit, body)) => {
                if routed.route.index.is_some() {
                    return Err(ApiError::validation("[indices] cannot be used with point in time"));
                }
                let (pinned, indices) = self.find_point_in_time(&pit)?;
                let mut search = self.parse_search(&scope, &body)?;
                search.search.indices = indices;
                PreparedSearch { pinned: Some(pinned), pit_id: Some(pit.id), ..search }
            }
            None => self.parse_search(&scope, body.bytes())?,
        };
        drop(body);
        let search = PreparedSearch { started, ..search };
        if let Some(keep_alive) = routed.parameters.get("scroll").filter(|time| !time.is_empty()) {
            return self.open_scroll(&scope, search, keep_alive);
        }
        Ok(Response::new(200, JSON, self.run_search(&scope, search)?))
    }

    /// Parses the body of a search.
    pub(super) fn parse_search(
        &self,
        scope: &SearchScope<'_>,
        body: &[u8],
    ) -> Result<PreparedSearch, ApiError> {
        let mut search = search_request::parse_search(scope.parameters.iter().copied(), body)
            .map_err(|error| query_error(scope.path, error))?;
        search.indices = scope.indices.clone();
        search.query = self.prepare_query(search.query, scope.doc_type);
        search.typed_keys = scope.typed_keys;
        search.ignore_unavailable = scope.ignore_unavailable.unwrap_or(search.ignore_unavailable);
        Ok(PreparedSearch { search, started: Instant::now(), pinned: None, pit_id: None })
    }

    /// Executes a search and returns the response as JSON.
    pub(super) fn run_search(
        &self,
        scope: &SearchScope<'_>,
        prepared: PreparedSearch,
    ) -> Result<Vec<u8>, ApiError> {
        let PreparedSearch { search, started, pinned, pit_id } = prepared;
        let found = match pinned {
            Some(pinned) => self.store.search_pinned(&pinned, &search)?,
            None => self.store.search(&search)?,
        };
        let mut response = self.render_search(scope, &search, found, started, None)?;
        if let Some(id) = pit_id {
            drop(response.splice(1..1, format!("\"pit_id\":\"{id}\",").into_bytes()));
        }
        Ok(response)
    }

    /// Renders the response of a search.
    pub(super) fn render_search(
        &self,
        scope: &SearchScope<'_>,
        search: &Search,
        mut found: SearchResult,
        started: Instant,
        scroll_id: Option<&str>,
    ) -> Result<Vec<u8>, ApiError> {
        let mut aggregations = found.aggregations.take();
        aggregations.as_mut().map(|json| self.render_bucket_hits(json)).transpose()?;
        let is_scored = is_scored(&search.sort);
        let response = SearchResponse {
            scroll_id,
            took: started.elapsed().as_millis().try_into().unwrap_or(u64::MAX),
            timed_out: false,
            shards: ShardCounts::OF_SEARCH,
            hits: HitsOutput {
                total: if scope.total_as_number {
                    HitTotal::Number(found.total)
                } else {
                    HitTotal::Object(found.total)
                },
                max_score: found.score_max.or((is_scored && !found.hits.is_empty()).then_some(1.0)),
                hits: self.render_hits(&found.hits, &search.source, &search.options, is_scored)?,
            },
            aggregations,
        };
        // Serializing fails only for a map with keys that are not strings, and no response has one.
        Ok(serde_json::to_vec(&response).unwrap_or_default())
    }

    /// Expands the phone numbers of a query and restricts it to the mapping type of the path.
    pub(super) fn prepare_query(&self, query: Query, doc_type: Option<&str>) -> Query {
        let query = match &self.normalizer {
            Some(normalizer) => add_canonical_terms(query, normalizer),
            None => query,
        };
        match doc_type.filter(|_| self.store.cluster_backend().is_none()) {
            None => query,
            Some(doc_type) => {
                let term = Query::Term { field: "_type".to_owned(), value: Term::Text(doc_type.to_owned()) };
                Query::Bool { must: vec![query, term], should: vec![], must_not: vec![], should_min: 0 }
            }
        }
    }
}

/// Returns true for parameters that only this server evaluates.
fn is_own_parameter(key: &str) -> bool {
    is_source_parameter(key) || matches!(key, "scroll" | "scroll_id" | "expand_wildcards")
}

/// Converts the error of a query. As in Elasticsearch, an error about a parameter names the path.
pub(super) fn query_error(path: &str, mut error: QueryError) -> ApiError {
    if let Some(rest) = error.reason.strip_prefix("request contains unrecognized parameter") {
        error.reason = format!("request [{path}] contains unrecognized parameter{rest}");
    }
    error.into()
}

/// Returns true if the hits have scores: nothing else decides their order, or the score is a sort key.
fn is_scored(sorts: &[Sort]) -> bool {
    sorts.is_empty() || sorts.iter().any(|sort| sort.key == SortKey::Score)
}

impl EsApi {
    fn render_hits<'a>(
        &self,
        hits: &'a [Hit],
        source: &SourceFilter,
        options: &HitOptions,
        is_scored: bool,
    ) -> Result<Vec<HitOutput<'a>>, ApiError> {
        let bytes: usize = hits.iter().map(|hit| hit.source.len()).sum();
        if bytes > HITS_BYTES_MAX && !source.excludes_all {
            let reason = format!(
                "Data too large: the sources of these hits have [{bytes}] bytes, the limit is [{HITS_BYTES_MAX}]; \
             request fewer hits, or fewer fields"
            );
            return Err(ApiError::new(429, "circuit_breaking_exception", reason));
        }
        let plans = self.field_plans(hits, options)?;
        let render_hit = |hit: &'a Hit| {
            let fields = match plans.get(&hit.index) {
                Some(plan) => {
                    budget::check()?;
                    budget::charge(hit.source.len())?;
                    plan.values(&hit.source)
                }
                None => Map::new(),
            };
            Ok(HitOutput {
                index: &hit.index,
                doc_type: hit.doc_type.as_deref().unwrap_or("_doc"),
                id: &hit.id,
                version: options.version.then_some(hit.version),
                seq_no: options.seq_no_primary_term.then_some(hit.seq_no),
                primary_term: options.seq_no_primary_term.then_some(1),
                score: hit.score.or(is_scored.then_some(1.0)),
                ignored: &hit.ignored,
                source: filtered_source(hit, source)?,
                fields,
                sort: &hit.sort,
            })
        };
        hits.iter().map(render_hit).collect()
    }

    /// Returns which fields each index of the hits has to return. Nothing, if the request names none.
    fn field_plans(
        &self,
        hits: &[Hit],
        options: &HitOptions,
    ) -> Result<HashMap<String, FieldPlan>, ApiError> {
        let mut plans = HashMap::new();
        if !options.reads_source() {
            return Ok(plans);
        }
        for hit in hits {
            if plans.contains_key(&hit.index) {
                continue;
            }
            for index in self.store.indices(std::slice::from_ref(&hit.index))? {
                let plan = FieldPlan::new(&index.mapping, options).map_err(StoreError::Invalid)?;
                plans.insert(hit.index.clone(), plan);
            }
        }
        Ok(plans)
    }

    /// Renders the hits inside aggregations.
    fn render_bucket_hits(&self, json: &mut OutputJson) -> Result<(), ApiError> {
        match json {
            OutputJson::List(list) => list.iter_mut().try_for_each(|json| self.render_bucket_hits(json)),
            OutputJson::Object(members) => {
                members.iter_mut().try_for_each(|(_, json)| self.render_bucket_hits(json))
            }
            OutputJson::Hits(found) => {
                let BucketHits { total, hits, sort, source, options } = &**found;
                let is_scored = is_scored(sort);
                let output = HitsOutput {
                    total: HitTotal::Object(*total),
                    max_score: (is_scored && !hits.is_empty()).then_some(1.0),
                    hits: self.render_hits(hits, source, options, is_scored)?,
                };
                let raw = serde_json::value::to_raw_value(&output).map_err(|error| {
                    ApiError::new(
                        500,
                        "exception",
                        format!("cannot render the hits of an aggregation: {error}"),
                    )
                })?;
                *json = OutputJson::Raw(raw);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
