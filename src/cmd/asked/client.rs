//! Asks an Elasticsearch, an OpenSearch or another lea over HTTP. Blocking; main thread.
//!
//! Only what all of them understand is said; Elasticsearch from 7 on.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::io;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use ureq::Agent;

use super::Page;
use crate::iri::query::{Aggregation, Bucket, Found, Hit, Sort, SortKey};
use crate::{Error, Result};

/// Bytes of an answer.
const ANSWER_BYTES_MAX: u64 = 256 << 20;

/// How much of an answer that is no JSON an error repeats.
const SHOWN_CHARS_MAX: usize = 200;

const PORT_DEFAULT: u16 = 9200;

/// What cannot stand in a path's part.
const PART: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'/').add(b'<').add(b'>').add(b'?');

/// A client of one server.
pub struct Client {
    agent: Agent,
    /// `http://host:9200`, without user and password: errors and the log have it.
    address: String,
    authorization: Option<String>,
    /// Indices that the URL names.
    path: String,
    lea: OnceCell<bool>,
}

/// An answer.
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
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
    /// Reads a URL, `http://USER:PASSWORD@HOST:PORT/INDEX`; nothing is sent yet.
    pub fn new(url: &str) -> Result<Client> {
        let wrong = |why: &str| Error::Usage(format!("--store: {why}; write http://USER:PASSWORD@HOST:9200"));
        let rest = match url.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => {
                return Err(wrong("https is not supported"));
            }
            _ => return Err(wrong("no URL that can be asked")),
        };
        if rest.contains(['?', '#']) || rest.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(wrong("the URL has more than host, port and indices"));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, host) = match authority.rsplit_once('@') {
            Some((login, host)) => (Some(login), host),
            None => (None, authority),
        };
        let after = host.rsplit_once(']').map_or(host, |(_, after)| after);
        let (name, port) = match after.rsplit_once(':') {
            Some((_, port)) => {
                (&host[..host.len() - port.len() - 1], port.parse().map_err(|_| wrong("no port"))?)
            }
            None => (host, PORT_DEFAULT),
        };
        if name.is_empty() || path.trim_end_matches('/').contains('/') {
            return Err(wrong("no host, or more than indices behind it"));
        }
        let authorization = login.map(|login| format!("Basic {}", STANDARD.encode(decoded(login))));
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_global(Some(Duration::from_secs(120)))
            .user_agent(concat!("lea/", env!("CARGO_PKG_VERSION")));
        Ok(Client {
            agent: config.build().into(),
            address: format!("http://{name}:{port}"),
            authorization,
            path: path.trim_end_matches('/').to_owned(),
            lea: OnceCell::new(),
        })
    }

    /// Asks who answers: true for a lea.
    pub fn is_lea(&self) -> Result<bool> {
        if let Some(known) = self.lea.get() {
            return Ok(*known);
        }
        let info: Value = self.read(&self.good(self.send("GET", "/", None)?)?)?;
        let is_lea = info["version"]["build_hash"].as_str().is_some_and(|hash| hash.starts_with("lea-"));
        Ok(*self.lea.get_or_init(|| is_lea))
    }

    /// True once it is known to be a lea.
    pub fn is_known_as_lea(&self) -> bool {
        self.lea.get() == Some(&true)
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
        })
    }

    /// Sends a request; an answer of any status is an answer.
    pub fn send(&self, method: &str, path: &str, body: Option<&[u8]>) -> Result<Answer> {
        let url = format!("{}{path}", self.address);
        let with_login = |name: &str| self.authorization.clone().map(|value| (name.to_owned(), value));
        let sent = match body {
            None => {
                let mut request = self.agent.get(&url);
                if let Some((name, value)) = with_login("authorization") {
                    request = request.header(name, value);
                }
                debug_assert_eq!(method, "GET");
                request.call()
            }
            Some(body) => {
                let kind = if path.ends_with("_bulk") { "application/x-ndjson" } else { "application/json" };
                let mut request = self.agent.post(&url).header("content-type", kind);
                if let Some((name, value)) = with_login("authorization") {
                    request = request.header(name, value);
                }
                request.send(body)
            }
        };
        let mut response = sent.map_err(|error| self.unreachable(error))?;
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        Ok(Answer { status, body: body.map_err(|error| self.unreachable(error))? })
    }

    /// The address, without user and password.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The indices that the URL names.
    pub fn index(&self) -> Option<&str> {
        (!self.path.is_empty()).then_some(self.path.as_str())
    }

    /// The path of something that is done to indices.
    fn path(&self, indices: &[String], act: &str) -> String {
        if indices.is_empty() {
            return if self.path.is_empty() { format!("/{act}") } else { format!("/{}/{act}", self.path) };
        }
        let names: Vec<String> =
            indices.iter().map(|name| utf8_percent_encode(name, PART).to_string()).collect();
        format!("/{}/{act}", names.join(","))
    }

    /// An answer that says that it went well; else the error that it tells.
    pub fn good(&self, answer: Answer) -> Result<Answer> {
        match answer.status {
            200..=299 => Ok(answer),
            401 => Err(self.failed("the user or the password is wrong")),
            status => Err(self.failed(&format!("{} (status {status})", cause(&answer.body)))),
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
        Error::Asked { store: self.address.clone(), cause: super::super::stored::harmless(cause) }
    }

    fn unreachable(&self, error: ureq::Error) -> Error {
        let source = match error {
            ureq::Error::Io(error) => error,
            error => io::Error::other(error.to_string()),
        };
        Error::net("ask", &self.address)(source)
    }
}

/// User and password as they are meant.
fn decoded(login: &str) -> Vec<u8> {
    percent_decode_str(login).collect()
}

/// Why a server refused.
fn cause(body: &[u8]) -> String {
    let error = serde_json::from_slice(body).map(|body: Value| body["error"].clone()).unwrap_or_default();
    let first = &error["root_cause"][0];
    let inner = error["failed_shards"][0]["reason"]["caused_by"]["reason"].as_str();
    let reason = inner.or(first["reason"].as_str()).or(error["reason"].as_str()).or(error.as_str());
    reason
        .map(Cow::Borrowed)
        .unwrap_or_else(|| String::from_utf8_lossy(body))
        .chars()
        .take(SHOWN_CHARS_MAX)
        .collect()
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
    let source = read.source.map_or("{}", RawValue::get).as_bytes().to_vec();
    let HitRead { index, kind, id, sort, .. } = read;
    Hit { index, kind, id, version: 1, sequence: 0, source, sort }
}

fn buckets(found: &Value) -> Vec<Bucket> {
    let bucket = |bucket: &Value| Bucket {
        key: bucket.get("key_as_string").unwrap_or(&bucket["key"]).clone(),
        count: bucket["doc_count"].as_u64().unwrap_or_default(),
        inner: Vec::new(),
    };
    found["buckets"].as_array().map_or_else(Vec::new, |buckets| buckets.iter().map(bucket).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_url(url: &str, address: &str, login: Option<&str>, path: &str) {
        let client = Client::new(url).unwrap_or_else(|error| panic!("{url}: {error}"));
        let authorization = login.map(|login| format!("Basic {}", STANDARD.encode(login)));
        assert_eq!((client.address.as_str(), client.path.as_str()), (address, path), "{url}");
        assert_eq!(client.authorization, authorization, "{url}");
    }

    #[test]
    fn urls() {
        check_url("http://a", "http://a:9200", None, "");
        check_url("HTTP://a:1/", "http://a:1", None, "");
        check_url("http://u:p@a:9201/calls-*,b", "http://a:9201", Some("u:p"), "calls-*,b");
        check_url("http://u:p%40:x@[::1]:9201/", "http://[::1]:9201", Some("u:p@:x"), "");
        check_url("http://u@a@[::1]", "http://[::1]:9200", Some("u@a"), "");
        for wrong in [
            "https://a",
            "ftp://a",
            "http://",
            "http://:9200",
            "http://a:x",
            "http://a:99999",
            "http://a/b/c",
        ] {
            assert!(Client::new(wrong).is_err(), "{wrong}");
        }
        for wrong in ["http://a/b?c", "http://a/#", "http://a b", "http://a\r\nx: y"] {
            assert!(Client::new(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_error_never_tells_the_password() {
        let client = Client::new("http://user:secret@127.0.0.1:1").unwrap();
        let error = client.is_lea().unwrap_err();
        assert!(!crate::error::chain(&error).contains("secret"), "{}", crate::error::chain(&error));
    }

    #[test]
    fn causes() {
        for (body, expected) in [
            (r#"{"error":{"root_cause":[{"reason":"inner"}],"reason":"outer"},"status":400}"#, "inner"),
            (r#"{"error":{"reason":"outer"}}"#, "outer"),
            (r#"{"error":"plain"}"#, "plain"),
            ("<html>", "<html>"),
            ("", ""),
        ] {
            assert_eq!(cause(body.as_bytes()), expected);
        }
    }
}
