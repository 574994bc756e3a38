//! Client of a remote store: Elasticsearch, OpenSearch or another lea over HTTP. Blocking; main thread.
//!
//! Requests use only what all of these servers support, from Elasticsearch 7 on.

use std::cell::OnceCell;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use ureq::http::Method;

use crate::cmd::args::query::SearchRequest;
use crate::search::cluster::{self, ClientError, EsRequestBody, EsResponse, LEA_TIME_FIELD, Product, dsl};
use crate::search::query::{Aggregation, Bucket, Hit, SearchResult, Sort, SortKey};
use crate::{Error, Result};

/// Timeout of a request.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A client of one server.
pub(crate) struct RemoteClient {
    inner: cluster::EsClient,
    kind: OnceCell<ServerKind>,
}

/// What answers at a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerKind {
    /// Another lea: it adds canonical numbers itself and supports the order of insertion.
    Lea,
    /// A cluster that lea fills: each event contains its time and its canonical numbers.
    LeaCluster,
    /// Any other server.
    Foreign,
}

#[derive(Deserialize)]
struct Searched<'a> {
    #[serde(borrow)]
    hits: Hits<'a>,
    #[serde(default)]
    aggregations: Map<String, Value>,
    #[serde(default)]
    timed_out: bool,
    #[serde(rename = "_shards", default)]
    shards: Shards,
}

#[derive(Default, Deserialize)]
struct Shards {
    #[serde(default)]
    failed: u64,
    #[serde(default)]
    failures: Vec<Value>,
}

#[derive(Deserialize)]
struct Hits<'a> {
    total: Value,
    #[serde(borrow)]
    hits: Vec<HitRead<'a>>,
}

#[derive(Deserialize)]
struct HitRead<'a> {
    #[serde(rename = "_index")]
    index: String,
    #[serde(rename = "_type")]
    kind: Option<String>,
    #[serde(rename = "_id")]
    id: String,
    #[serde(rename = "_source", borrow)]
    source: Option<&'a RawValue>,
    #[serde(default)]
    sort: Vec<Value>,
}

impl RemoteClient {
    /// Parses a URL, `http[s]://USER:PASSWORD@HOST:PORT/INDEX`, without connecting. `ca` is a file of CA
    /// certificates.
    pub(crate) fn new(url: &str, password: Option<&str>, ca: Option<&Path>) -> Result<RemoteClient> {
        Ok(RemoteClient {
            inner: cluster::EsClient::new("--store", url, password, ca)?,
            kind: OnceCell::new(),
        })
    }

    /// Detects the kind of the server.
    pub(crate) fn detect_kind(&self, indices: &[String]) -> Result<ServerKind> {
        if let Some(known) = self.kind.get() {
            return Ok(*known);
        }
        let answer = self.expect_success(self.send("GET", "/", None)?)?;
        let server = cluster::ServerInfo::parse(&answer.body);
        let kind = match server.map(|server| server.product) {
            Some(Product::Lea) => ServerKind::Lea,
            Some(_) if self.has_lea_fields(indices)? => ServerKind::LeaCluster,
            _ => ServerKind::Foreign,
        };
        Ok(*self.kind.get_or_init(|| kind))
    }

    /// True if an index has the field that lea adds to each event.
    fn has_lea_fields(&self, indices: &[String]) -> Result<bool> {
        let path =
            self.index_path(indices, &format!("_field_caps?fields={LEA_TIME_FIELD}&ignore_unavailable=true"));
        let answer = self.send("GET", &path, None)?;
        // A server without this API can still be searched; if something else is wrong, the search reports it.
        let caps: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        Ok(caps["fields"].get(LEA_TIME_FIELD).is_some())
    }

    /// The detected kind, if it was detected before.
    pub(crate) fn known_kind(&self) -> Option<ServerKind> {
        self.kind.get().copied()
    }

    pub(crate) fn count(&self, indices: &[String], body: &Value) -> Result<u64> {
        let path = self.index_path(indices, "_count");
        let counted: Value = self.read(&self.expect_success(self.send(
            "POST",
            &path,
            Some(body.to_string().as_bytes()),
        )?)?)?;
        self.whole(&counted["_shards"])?;
        counted["count"].as_u64().ok_or_else(|| self.error("the response has no count"))
    }

    pub(crate) fn search(
        &self,
        indices: &[String],
        query: Value,
        page: &SearchRequest,
        time_field: &str,
    ) -> Result<SearchResult> {
        let mut body = json!({"query": query, "size": page.size});
        if !page.sort.is_empty() {
            body["sort"] = page.sort.iter().map(|sort| sort_json(sort, time_field)).collect();
        }
        if let Some(after) = &page.after {
            body["search_after"] = after.clone().into();
        }
        if !page.aggregations.is_empty() {
            body["aggs"] = aggregations_json(&page.aggregations);
        }
        let path = self.index_path(indices, "_search?track_total_hits=true");
        let answer = self.expect_success(self.send("POST", &path, Some(body.to_string().as_bytes()))?)?;
        let searched: Searched<'_> = serde_json::from_slice(&answer.body)
            .map_err(|error| self.error(&format!("malformed response: {error}")))?;
        if searched.timed_out {
            return Err(self.error(
                "the search timed out, so the result is incomplete (narrow the time range or the query)",
            ));
        }
        self.all(&searched.shards)?;
        let total = match &searched.hits.total {
            Value::Object(total) => total.get("value").and_then(Value::as_u64),
            total => total.as_u64(),
        };
        Ok(SearchResult {
            total: total.ok_or_else(|| self.error("the response has no total"))?,
            hits: searched.hits.hits.into_iter().map(hit).collect(),
            aggregations: searched
                .aggregations
                .iter()
                .map(|(name, found)| (name.clone(), buckets(found)))
                .collect(),
            ..SearchResult::default()
        })
    }

    /// Sends a request. The response can have any status.
    pub(crate) fn send(&self, method: &str, path: &str, body: Option<&[u8]>) -> Result<EsResponse> {
        let method = if method == "GET" { Method::GET } else { Method::POST };
        let body = match body {
            None => EsRequestBody::Empty,
            Some(body) if path.ends_with("_bulk") => EsRequestBody::Lines(body),
            Some(body) => EsRequestBody::Json(body),
        };
        let sent = self.inner.send_with_timeout(&method, path, body, TIMEOUT);
        sent.map_err(|error| {
            let source = match error {
                ClientError::Unreachable { cause, .. } => cause,
                ClientError::TimedOut { ms, .. } => {
                    io::Error::new(io::ErrorKind::TimedOut, format!("no response within {ms} ms"))
                }
            };
            Error::net("ask", self.address())(source)
        })
    }

    /// The address without credentials.
    pub(crate) fn address(&self) -> &str {
        self.inner.address()
    }

    /// The index names in the URL.
    pub(crate) fn url_indices(&self) -> Option<&str> {
        self.inner.url_indices()
    }

    fn index_path(&self, indices: &[String], act: &str) -> String {
        self.inner.index_path(indices, act)
    }

    /// Returns a successful response, or its error.
    pub(crate) fn expect_success(&self, answer: EsResponse) -> Result<EsResponse> {
        match answer.status {
            200..=299 => Ok(answer),
            401 => Err(self.error("wrong user or password (status 401)")),
            status => Err(self.error(&format!("{} (status {status})", answer.error_reason()))),
        }
    }

    fn read<'a, T: Deserialize<'a>>(&self, answer: &'a EsResponse) -> Result<T> {
        serde_json::from_slice(&answer.body)
            .map_err(|error| self.error(&format!("malformed response: {error}")))
    }

    fn whole(&self, shards: &Value) -> Result<()> {
        self.all(&Shards::deserialize(shards).unwrap_or_default())
    }

    /// Returns an error if a shard failed, because an incomplete result would be wrong.
    fn all(&self, shards: &Shards) -> Result<()> {
        if shards.failed == 0 {
            return Ok(());
        }
        let why = shards.failures.first().and_then(|failure| failure["reason"]["reason"].as_str());
        Err(self.error(&format!("{} shards failed: {}", shards.failed, why.unwrap_or("no reason given"))))
    }

    pub(crate) fn error(&self, cause: &str) -> Error {
        Error::Query { store: self.address().to_owned(), cause: crate::runtime::terminal::escape(cause) }
    }
}

fn sort_json(sort: &Sort, time_field: &str) -> Value {
    let order = if sort.descending { "desc" } else { "asc" };
    match &sort.key {
        SortKey::SeqNo => json!({"_doc": {"order": order}}),
        SortKey::Field(field) => {
            let missing = if sort.missing_first { "_first" } else { "_last" };
            // An index without the field is not an error; it has no such events.
            let unmapped = if field == time_field { "date" } else { "keyword" };
            json!({field.as_str(): {"order": order, "missing": missing, "unmapped_type": unmapped}})
        }
    }
}

/// Only `terms` is needed here.
fn aggregations_json(aggregations: &[(String, Aggregation)]) -> Value {
    let mut all = Map::new();
    for (name, aggregation) in aggregations {
        if let Aggregation::Terms { field, size, .. } = aggregation {
            all.insert(name.clone(), json!({"terms": {"field": field, "size": size}}));
        }
    }
    all.into()
}

fn hit(read: HitRead<'_>) -> Hit {
    let source = dsl::strip_lea_object(read.source.map_or("{}", RawValue::get).as_bytes());
    let HitRead { index, kind, id, sort, .. } = read;
    Hit { index, doc_type: kind, id, version: 1, seq_no: 0, source, sort, score: None }
}

fn buckets(found: &Value) -> Vec<Bucket> {
    let bucket = |bucket: &Value| Bucket {
        key: bucket.get("key_as_string").unwrap_or(&bucket["key"]).clone(),
        count: bucket["doc_count"].as_u64().unwrap_or_default(),
        inner: Vec::new(),
    };
    found["buckets"].as_array().map_or_else(Vec::new, |buckets| buckets.iter().map(bucket).collect())
}
