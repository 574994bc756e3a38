//! Asks an Elasticsearch, an OpenSearch or another lea over HTTP. Blocking; main thread.
//!
//! Only what all of them understand is said; Elasticsearch from 7 on.

use std::cell::OnceCell;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use ureq::http::Method;

use super::Page;
use crate::iri::query::{Aggregation, Bucket, Found, Hit, Sort, SortKey};
use crate::iri::store::elastic::{self, ADDED_TIME, Answer, Body, ClientError, Product, dsl};
use crate::{Error, Result};

/// Until an answer is whole.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A client of one server.
pub struct Client {
    inner: elastic::Client,
    kind: OnceCell<Kind>,
}

/// What a server is to those who ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A lea: it adds number families itself, and follows the order of storing.
    Lea,
    /// A cluster that a lea fills: each event has its time and its numbers where they are asked for.
    Filled,
    /// Any other.
    Other,
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

impl Client {
    /// Reads a URL, `http[s]://USER:PASSWORD@HOST:PORT/INDEX`; nothing is sent yet. `ca`: certificates that are trusted.
    pub fn new(url: &str, password: Option<&str>, ca: Option<&Path>) -> Result<Client> {
        Ok(Client { inner: elastic::Client::new(url, password, ca)?, kind: OnceCell::new() })
    }

    /// Asks who answers.
    pub fn kind(&self, indices: &[String]) -> Result<Kind> {
        if let Some(known) = self.kind.get() {
            return Ok(*known);
        }
        let answer = self.good(self.send("GET", "/", None)?)?;
        let server = elastic::Server::read(&answer.body);
        let kind = match server.map(|server| server.product) {
            Some(Product::Lea) => Kind::Lea,
            Some(_) if self.has_added(indices)? => Kind::Filled,
            _ => Kind::Other,
        };
        Ok(*self.kind.get_or_init(|| kind))
    }

    /// True where an index has the field that a lea adds to each event.
    fn has_added(&self, indices: &[String]) -> Result<bool> {
        let path = self.path(indices, &format!("_field_caps?fields={ADDED_TIME}&ignore_unavailable=true"));
        let answer = self.send("GET", &path, None)?;
        // What it does not answer this to may be asked all the same; of what is wrong there, the question itself tells.
        let caps: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        Ok(caps["fields"].get(ADDED_TIME).is_some())
    }

    /// What it is, once that was asked.
    pub fn known_kind(&self) -> Option<Kind> {
        self.kind.get().copied()
    }

    /// `_count`.
    pub fn count(&self, indices: &[String], body: &Value) -> Result<u64> {
        let path = self.path(indices, "_count");
        let counted: Value =
            self.read(&self.good(self.send("POST", &path, Some(body.to_string().as_bytes()))?)?)?;
        self.whole(&counted["_shards"])?;
        counted["count"].as_u64().ok_or_else(|| self.failed("its answer has no count"))
    }

    /// `_search`.
    pub fn search(&self, indices: &[String], query: Value, page: &Page, time_field: &str) -> Result<Found> {
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
        let path = self.path(indices, "_search?track_total_hits=true");
        let answer = self.good(self.send("POST", &path, Some(body.to_string().as_bytes()))?)?;
        let searched: Searched<'_> = serde_json::from_slice(&answer.body)
            .map_err(|error| self.failed(&format!("its answer: {error}")))?;
        if searched.timed_out {
            return Err(self.failed("the search took too long, and its answer is not complete"));
        }
        self.all(&searched.shards)?;
        let total = match &searched.hits.total {
            Value::Object(total) => total.get("value").and_then(Value::as_u64),
            total => total.as_u64(),
        };
        Ok(Found {
            total: total.ok_or_else(|| self.failed("its answer has no total"))?,
            hits: searched.hits.hits.into_iter().map(hit).collect(),
            aggregations: searched
                .aggregations
                .iter()
                .map(|(name, found)| (name.clone(), buckets(found)))
                .collect(),
            ..Found::default()
        })
    }

    /// Sends a request; an answer of any status is an answer.
    pub fn send(&self, method: &str, path: &str, body: Option<&[u8]>) -> Result<Answer> {
        let method = if method == "GET" { Method::GET } else { Method::POST };
        let body = match body {
            None => Body::Empty,
            Some(body) if path.ends_with("_bulk") => Body::Lines(body),
            Some(body) => Body::Json(body),
        };
        let sent = self.inner.send_within(&method, path, body, TIMEOUT);
        sent.map_err(|error| {
            let source = match error {
                ClientError::Unreachable { cause, .. } => cause,
                ClientError::TimedOut { ms, .. } => {
                    io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {ms} ms"))
                }
            };
            Error::net("ask", self.address())(source)
        })
    }

    /// The address, without user and password.
    pub fn address(&self) -> &str {
        self.inner.address()
    }

    /// The indices that the URL names.
    pub fn index(&self) -> Option<&str> {
        self.inner.index()
    }

    fn path(&self, indices: &[String], act: &str) -> String {
        self.inner.path(indices, act)
    }

    /// An answer that says that it went well; else the error that it tells.
    pub fn good(&self, answer: Answer) -> Result<Answer> {
        match answer.status {
            200..=299 => Ok(answer),
            401 => Err(self.failed("the user or the password is wrong")),
            status => Err(self.failed(&format!("{} (status {status})", answer.cause()))),
        }
    }

    fn read<'a, T: Deserialize<'a>>(&self, answer: &'a Answer) -> Result<T> {
        serde_json::from_slice(&answer.body).map_err(|error| self.failed(&format!("its answer: {error}")))
    }

    fn whole(&self, shards: &Value) -> Result<()> {
        self.all(&Shards::deserialize(shards).unwrap_or_default())
    }

    /// An answer that lacks a part would be a wrong one.
    fn all(&self, shards: &Shards) -> Result<()> {
        if shards.failed == 0 {
            return Ok(());
        }
        let why = shards.failures.first().and_then(|failure| failure["reason"]["reason"].as_str());
        Err(self.failed(&format!("{} shards failed: {}", shards.failed, why.unwrap_or("no reason given"))))
    }

    /// An error of this server.
    pub fn failed(&self, cause: &str) -> Error {
        Error::Asked { store: self.address().to_owned(), cause: super::super::stored::harmless(cause) }
    }
}

fn sort_json(sort: &Sort, time_field: &str) -> Value {
    let order = if sort.descending { "desc" } else { "asc" };
    match &sort.key {
        SortKey::Stored => json!({"_doc": {"order": order}}),
        SortKey::Field(field) => {
            let missing = if sort.missing_first { "_first" } else { "_last" };
            // An index without the field has no such events, and is no error.
            let unmapped = if field == time_field { "date" } else { "keyword" };
            json!({field.as_str(): {"order": order, "missing": missing, "unmapped_type": unmapped}})
        }
    }
}

/// Only `terms` is asked for here.
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
    let source = dsl::without_added(read.source.map_or("{}", RawValue::get).as_bytes());
    let HitRead { index, kind, id, sort, .. } = read;
    Hit { index, kind, id, version: 1, sequence: 0, source, sort, score: None }
}

fn buckets(found: &Value) -> Vec<Bucket> {
    let bucket = |bucket: &Value| Bucket {
        key: bucket.get("key_as_string").unwrap_or(&bucket["key"]).clone(),
        count: bucket["doc_count"].as_u64().unwrap_or_default(),
        inner: Vec::new(),
    };
    found["buckets"].as_array().map_or_else(Vec::new, |buckets| buckets.iter().map(bucket).collect())
}
