//! The endpoints `_search` and `_count`. Runs on the threads of the HTTP connections.
//!
//! A proxy counts the events of a number while a caller waits, so `_count` does no work that it can avoid.

use std::time::Instant;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::aggregations::{
    AggregationRenderer, RenderedAggregations, count_all_of_full_terms, widen_inner_terms,
};
use super::api::{EsApi, RoutedRequest};
use super::documents::filtered_source;
use super::error::ApiError;
use super::response::{self, ShardCounts};
use crate::http::Response;
use crate::search::query::{
    Hit, NamedBuckets, Query, QueryError, QueryValue as Term, Search, add_canonical_terms, search_request,
};

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
    took: u64,
    timed_out: bool,
    #[serde(rename = "_shards")]
    shards: ShardCounts,
    hits: HitsOutput<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aggregations: Option<AggregationsOutput>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum AggregationsOutput {
    Rendered(RenderedAggregations),
    FromCluster(Value),
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
    #[serde(rename = "_score")]
    score: Option<f64>,
    #[serde(rename = "_ignored", skip_serializing_if = "<[String]>::is_empty")]
    ignored: &'a [String],
    #[serde(rename = "_source", skip_serializing_if = "Option::is_none")]
    source: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "<[Value]>::is_empty")]
    sort: &'a [Value],
}

impl EsApi {
    pub(super) fn count(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        let body = self.decompression.read_body(routed.request)?;
        let query = search_request::parse_count(routed.parameters.pairs(), body.bytes())
            .map_err(|error| query_error(routed, error))?;
        let query = self.prepare_query(query, routed);
        let ignores = routed.parameters.is_on("ignore_unavailable")?;
        let count = self.store.count(&routed.indices()?, ignores, &query)?;
        Ok(response::json(200, &CountResponse { count, shards: ShardCounts::OF_SEARCH }))
    }

    pub(super) fn search(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        let started = Instant::now();
        let body = self.decompression.read_body(routed.request)?;
        let mut search = search_request::parse_search(routed.parameters.pairs(), body.bytes())
            .map_err(|error| query_error(routed, error))?;
        drop(body);
        search.indices = routed.indices()?;
        search.query = self.prepare_query(search.query, routed);
        search.typed_keys = routed.parameters.is_on("typed_keys")?;
        let requested = search.aggregations.clone();
        if self.store.cluster_backend().is_none() {
            widen_inner_terms(&mut search.aggregations);
        }
        let mut found = self.store.search(&search)?;
        let aggregations = match found.rendered_aggregations.take() {
            Some(rendered) => Some(AggregationsOutput::FromCluster(rendered)),
            None if requested.is_empty() => None,
            None => {
                search.aggregations = requested;
                let buckets = std::mem::take(&mut found.aggregations);
                Some(AggregationsOutput::Rendered(self.render_aggregations(&search, buckets)?))
            }
        };
        let is_scored = search.sort.is_empty();
        let as_number = routed.parameters.is_on("rest_total_hits_as_int")?;
        let response = SearchResponse {
            took: started.elapsed().as_millis().try_into().unwrap_or(u64::MAX),
            timed_out: false,
            shards: ShardCounts::OF_SEARCH,
            hits: HitsOutput {
                total: if as_number { HitTotal::Number(found.total) } else { HitTotal::Object(found.total) },
                max_score: found.score_max.or((is_scored && !found.hits.is_empty()).then_some(1.0)),
                hits: render_hits(&search, &found.hits)?,
            },
            aggregations,
        };
        Ok(response::json(200, &response))
    }

    /// Renders the buckets of a search. Asks the store for the types of the fields, and for the number of documents
    /// outside the returned buckets.
    fn render_aggregations(
        &self,
        search: &Search,
        buckets: NamedBuckets,
    ) -> Result<RenderedAggregations, ApiError> {
        let has_patterns = search.indices.is_empty() || search.indices.iter().any(|name| name.contains('*'));
        let indices = match self.store.indices(&search.indices) {
            Ok(indices) => indices,
            // The search itself has skipped indices that do not exist.
            Err(_) if !has_patterns => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let aggregations = count_all_of_full_terms(&search.aggregations, &buckets);
        let all_buckets = match aggregations.is_empty() {
            true => Vec::new(),
            false => {
                let search = Search { size: 0, from: 0, after: None, aggregations, ..search.clone() };
                self.store.search(&search)?.aggregations
            }
        };
        let renderer = AggregationRenderer {
            indices: &indices,
            has_typed_keys: search.typed_keys,
            all_buckets: &all_buckets,
        };
        Ok(renderer.render(&search.aggregations, buckets))
    }

    /// Expands the phone numbers of a query and restricts it to the mapping type of the path.
    fn prepare_query(&self, query: Query, routed: &RoutedRequest<'_>) -> Query {
        let query = match &self.normalizer {
            Some(normalizer) => add_canonical_terms(query, normalizer),
            None => query,
        };
        match routed.route.doc_type.as_deref().filter(|_| self.store.cluster_backend().is_none()) {
            None => query,
            Some(doc_type) => {
                let term = Query::Term { field: "_type".to_owned(), value: Term::Text(doc_type.to_owned()) };
                Query::Bool { must: vec![query, term], should: vec![], must_not: vec![], should_min: 0 }
            }
        }
    }
}

/// Converts the error of a query. As in Elasticsearch, an error about a parameter names the path.
fn query_error(routed: &RoutedRequest<'_>, mut error: QueryError) -> ApiError {
    if let Some(rest) = error.reason.strip_prefix("request contains unrecognized parameter") {
        error.reason = format!("request [{}] contains unrecognized parameter{rest}", routed.request.path());
    }
    error.into()
}

fn render_hits<'a>(search: &Search, hits: &'a [Hit]) -> Result<Vec<HitOutput<'a>>, ApiError> {
    let bytes: usize = hits.iter().map(|hit| hit.source.len()).sum();
    if bytes > HITS_BYTES_MAX && !search.source.excludes_all {
        let reason = format!(
            "Data too large: the sources of these hits have [{bytes}] bytes, the limit is [{HITS_BYTES_MAX}]; \
             request fewer hits, or fewer fields"
        );
        return Err(ApiError::new(429, "circuit_breaking_exception", reason));
    }
    let is_scored = search.sort.is_empty();
    let render_hit = |hit: &'a Hit| {
        Ok(HitOutput {
            index: &hit.index,
            doc_type: hit.doc_type.as_deref().unwrap_or("_doc"),
            id: &hit.id,
            score: hit.score.or(is_scored.then_some(1.0)),
            ignored: &hit.ignored,
            source: filtered_source(hit, &search.source)?,
            sort: &hit.sort,
        })
    };
    hits.iter().map(render_hit).collect()
}
