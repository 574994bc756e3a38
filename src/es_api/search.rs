//! The endpoints `_search` and `_count`. Runs on the threads of the HTTP connections.
//!
//! A proxy counts the events of a number while a caller waits, so `_count` does no work that it can avoid.

use std::time::Instant;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::aggregations::{AggregationRenderer, RenderedAggregations, widen_inner_terms};
use super::documents::filtered_source;
use super::failure::ApiError;
use super::{EsApi, Reply, RoutedRequest, ShardCounts};
use crate::phone;
use crate::search::query::{Query, QueryError, QueryValue as Term, Search, search_request};

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
    kind: &'a str,
    #[serde(rename = "_id")]
    id: &'a str,
    #[serde(rename = "_score")]
    score: Option<f64>,
    #[serde(rename = "_source", skip_serializing_if = "Option::is_none")]
    source: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "<[Value]>::is_empty")]
    sort: &'a [Value],
}

impl EsApi {
    pub(super) fn count(&self, asked: &RoutedRequest<'_>) -> Result<Reply, ApiError> {
        let body = self.decompression.read_body(asked.request)?;
        let query = search_request::parse_count(asked.parameters.pairs(), body.bytes())
            .map_err(|error| query_error(asked, error))?;
        let query = self.prepare_query(query, asked);
        let ignores = asked.parameters.is_on("ignore_unavailable")?;
        let count = self.store.count(&asked.indices()?, ignores, &query)?;
        Ok(Reply::json(200, &CountResponse { count, shards: ShardCounts::OF_SEARCH }))
    }

    pub(super) fn search(&self, asked: &RoutedRequest<'_>) -> Result<Reply, ApiError> {
        let started = Instant::now();
        let body = self.decompression.read_body(asked.request)?;
        let mut search = search_request::parse_search(asked.parameters.pairs(), body.bytes())
            .map_err(|error| query_error(asked, error))?;
        drop(body);
        search.indices = asked.indices()?;
        search.query = self.prepare_query(search.query, asked);
        search.typed_keys = asked.parameters.is_on("typed_keys")?;
        let wanted = search.aggregations.clone();
        if self.store.cluster_backend().is_none() {
            widen_inner_terms(&mut search.aggregations);
        }
        let mut found = self.store.search(&search)?;
        let aggregations = match found.rendered_aggregations.take() {
            Some(told) => Some(AggregationsOutput::FromCluster(told)),
            None if wanted.is_empty() => None,
            None => {
                let found = std::mem::take(&mut found.aggregations);
                Some(AggregationsOutput::Rendered(
                    AggregationRenderer::new(&*self.store, &search)?.render(&wanted, found)?,
                ))
            }
        };
        let is_scored = search.sort.is_empty();
        let as_number = asked.parameters.is_on("rest_total_hits_as_int")?;
        let searched = SearchResponse {
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
        Ok(Reply::json(200, &searched))
    }

    /// Expands the phone numbers of a query and restricts it to the mapping type of the path.
    fn prepare_query(&self, query: Query, asked: &RoutedRequest<'_>) -> Query {
        let query = match &self.normalizer {
            Some(families) => phone::add_canonical_terms(query, families),
            None => query,
        };
        match asked.route.kind.as_deref().filter(|_| self.store.cluster_backend().is_none()) {
            None => query,
            Some(kind) => {
                let kind = Query::Term { field: "_type".to_owned(), value: Term::Text(kind.to_owned()) };
                Query::Bool { must: vec![query, kind], should: vec![], must_not: vec![], should_min: 0 }
            }
        }
    }
}

/// Converts the error of a query. As in Elasticsearch, an error about a parameter names the path.
fn query_error(asked: &RoutedRequest<'_>, mut error: QueryError) -> ApiError {
    if let Some(rest) = error.reason.strip_prefix("request contains unrecognized parameter") {
        error.reason = format!("request [{}] contains unrecognized parameter{rest}", asked.request.path());
    }
    error.into()
}

fn render_hits<'a>(
    search: &Search,
    found: &'a [crate::search::query::Hit],
) -> Result<Vec<HitOutput<'a>>, ApiError> {
    let bytes: usize = found.iter().map(|hit| hit.source.len()).sum();
    if bytes > HITS_BYTES_MAX && !search.source.excludes_all {
        let reason = format!(
            "Data too large: the sources of these hits have [{bytes}] bytes, the limit is [{HITS_BYTES_MAX}]; ask for fewer"
        );
        return Err(ApiError::new(429, "circuit_breaking_exception", reason));
    }
    let scored = search.sort.is_empty();
    let shown = |hit: &'a crate::search::query::Hit| {
        Ok(HitOutput {
            index: &hit.index,
            kind: hit.doc_type.as_deref().unwrap_or("_doc"),
            id: &hit.id,
            score: hit.score.or(scored.then_some(1.0)),
            source: filtered_source(hit, &search.source)?,
            sort: &hit.sort,
        })
    };
    found.iter().map(shown).collect()
}
