//! `_search` and `_count`. Runs on the connections' threads.
//!
//! The count of a number is asked in the middle of a call: on its way nothing is made that is not needed.

use std::time::Instant;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::aggregations::{Teller, Told, widen};
use super::documents::sifted;
use super::failure::Failure;
use super::{Asked, Elastic, Reply, Shards};
use crate::iri::number;
use crate::iri::query::{Query, QueryError, Search, Value as Term, body};

/// Sources in one answer. More is asked for in parts.
pub const HITS_BYTES_MAX: usize = 24 << 20;

#[derive(Serialize)]
struct Counted {
    count: u64,
    #[serde(rename = "_shards")]
    shards: Shards,
}

#[derive(Serialize)]
struct Searched<'a> {
    took: u64,
    timed_out: bool,
    #[serde(rename = "_shards")]
    shards: Shards,
    hits: Hits<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aggregations: Option<Aggregations>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Aggregations {
    Own(Told),
    Remote(Value),
}

#[derive(Serialize)]
struct Hits<'a> {
    total: Total,
    max_score: Option<f64>,
    hits: Vec<HitShown<'a>>,
}

enum Total {
    Object(u64),
    Number(u64),
}

impl Serialize for Total {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Total::Number(total) => serializer.serialize_u64(*total),
            Total::Object(total) => {
                let mut map = serializer.serialize_map(Some(2))?;
                map.serialize_entry("value", total)?;
                map.serialize_entry("relation", "eq")?;
                map.end()
            }
        }
    }
}

#[derive(Serialize)]
struct HitShown<'a> {
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

impl Elastic {
    /// Counts.
    pub(super) fn count(&self, asked: &Asked<'_>) -> Result<Reply, Failure> {
        let body = self.inflating.body(asked.request)?;
        let query = body::count(asked.parameters.pairs(), body.bytes()).map_err(|error| of(asked, error))?;
        let query = self.ready(query, asked);
        let ignores = asked.parameters.is_on("ignore_unavailable")?;
        let count = self.store.count(&asked.indices()?, ignores, &query)?;
        Ok(Reply::json(200, &Counted { count, shards: Shards::ASKED }))
    }

    /// Searches.
    pub(super) fn search(&self, asked: &Asked<'_>) -> Result<Reply, Failure> {
        let started = Instant::now();
        let body = self.inflating.body(asked.request)?;
        let mut search =
            body::search(asked.parameters.pairs(), body.bytes()).map_err(|error| of(asked, error))?;
        drop(body);
        search.indices = asked.indices()?;
        search.query = self.ready(search.query, asked);
        search.typed_keys = asked.parameters.is_on("typed_keys")?;
        let wanted = search.aggregations.clone();
        if self.store.remote().is_none() {
            widen(&mut search.aggregations);
        }
        let mut found = self.store.search(&search)?;
        let aggregations = match found.told.take() {
            Some(told) => Some(Aggregations::Remote(told)),
            None if wanted.is_empty() => None,
            None => {
                let found = std::mem::take(&mut found.aggregations);
                Some(Aggregations::Own(Teller::new(&*self.store, &search)?.tell(&wanted, found)?))
            }
        };
        let is_scored = search.sort.is_empty();
        let as_number = asked.parameters.is_on("rest_total_hits_as_int")?;
        let searched = Searched {
            took: started.elapsed().as_millis().try_into().unwrap_or(u64::MAX),
            timed_out: false,
            shards: Shards::ASKED,
            hits: Hits {
                total: if as_number { Total::Number(found.total) } else { Total::Object(found.total) },
                max_score: found.score_max.or((is_scored && !found.hits.is_empty()).then_some(1.0)),
                hits: hits(&search, &found.hits)?,
            },
            aggregations,
        };
        Ok(Reply::json(200, &searched))
    }

    /// The question with the families of its numbers, of documents of the path's type.
    fn ready(&self, query: Query, asked: &Asked<'_>) -> Query {
        let query = match &self.families {
            Some(families) => number::expand(query, families),
            None => query,
        };
        match asked.route.kind.as_deref().filter(|_| self.store.remote().is_none()) {
            None => query,
            Some(kind) => {
                let kind = Query::Term { field: "_type".to_owned(), value: Term::Text(kind.to_owned()) };
                Query::Bool { must: vec![query, kind], should: vec![], must_not: vec![], should_min: 0 }
            }
        }
    }
}

/// The failure of a question; one about a parameter names the path, as the real one does.
fn of(asked: &Asked<'_>, mut error: QueryError) -> Failure {
    if let Some(rest) = error.reason.strip_prefix("request contains unrecognized parameter") {
        error.reason = format!("request [{}] contains unrecognized parameter{rest}", asked.request.path());
    }
    error.into()
}

fn hits<'a>(search: &Search, found: &'a [crate::iri::query::Hit]) -> Result<Vec<HitShown<'a>>, Failure> {
    let bytes: usize = found.iter().map(|hit| hit.source.len()).sum();
    if bytes > HITS_BYTES_MAX && !search.source.none {
        let reason = format!(
            "Data too large: the sources of these hits have [{bytes}] bytes, the limit is [{HITS_BYTES_MAX}]; ask for fewer"
        );
        return Err(Failure::new(429, "circuit_breaking_exception", reason));
    }
    let scored = search.sort.is_empty();
    let shown = |hit: &'a crate::iri::query::Hit| {
        Ok(HitShown {
            index: &hit.index,
            kind: hit.kind.as_deref().unwrap_or("_doc"),
            id: &hit.id,
            score: hit.score.or(scored.then_some(1.0)),
            source: sifted(hit, &search.source)?,
            sort: &hit.sort,
        })
    };
    found.iter().map(shown).collect()
}
