//! Client of a remote store: Elasticsearch, OpenSearch or another lea over HTTP. Blocking; main thread.
//!
//! Requests use only what all of these servers support, from Elasticsearch 7 on. A server that is unreachable or
//! overloaded is tried again until the time limit, and a line on stderr says what lea waits for.

use std::cell::OnceCell;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::Method;

use crate::runtime::logging;
use crate::runtime::terminal::escape;
use crate::search::cluster::bulk::{self, BulkItemResult};
use crate::search::cluster::response::{ParsedSearch, ShardSummary};
use crate::search::cluster::{
    ClientError, EsClient, EsRequestBody, EsResponse, LEA_TIME_FIELD, Product, ServerInfo,
};
use crate::search::document::Document;
use crate::search::query::SearchResult;
use crate::search::source::WriteOutcome;
use crate::{Error, Result};

/// Timeout of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);

/// Pause between attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// Time between lines that say what lea waits for.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Minimum time limit for writes: a server that stores events at its limit is overloaded for a while.
const WRITE_RETRY_MIN: Duration = Duration::from_secs(60);

/// A client of one server.
pub(crate) struct RemoteClient {
    client: EsClient,
    kind: OnceCell<ServerKind>,
    /// Time limit for attempts to reach the server.
    connect_timeout: Duration,
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

/// Waits between the attempts of one request.
struct Attempts<'a> {
    address: &'a str,
    deadline: Instant,
    reported: Instant,
}

impl Attempts<'_> {
    /// Waits before the next attempt. Returns false if the time limit is reached.
    fn wait(&mut self, reason: &str) -> bool {
        let now = Instant::now();
        if now >= self.deadline {
            return false;
        }
        if now.duration_since(self.reported) >= REPORT_INTERVAL {
            self.reported = now;
            let left = self.deadline.duration_since(now).as_secs();
            logging::status_line(format_args!(
                "waiting for {} (up to {left} s more): {}",
                self.address,
                escape(reason)
            ));
        }
        std::thread::sleep(RETRY_PAUSE.min(self.deadline.duration_since(now)));
        true
    }
}

impl RemoteClient {
    /// Parses a URL, `http[s]://USER:PASSWORD@HOST:PORT/INDEX`, without connecting. `ca` is a file of CA
    /// certificates.
    pub(crate) fn new(url: &str, ca: Option<&Path>, connect_timeout: Duration) -> Result<RemoteClient> {
        let client = EsClient::new("--store", url, None, ca)?;
        Ok(RemoteClient { client, kind: OnceCell::new(), connect_timeout })
    }

    /// Sets the time limit for attempts to reach the server.
    pub(crate) fn set_connect_timeout(&mut self, connect_timeout: Duration) {
        self.connect_timeout = connect_timeout;
    }

    /// Detects the kind of the server.
    pub(crate) fn detect_kind(&self, indices: &[String]) -> Result<ServerKind> {
        if let Some(known) = self.kind.get() {
            return Ok(*known);
        }
        let response = self.expect_success(self.get("/")?)?;
        let server = ServerInfo::parse(&response.body);
        let kind = match server.map(|server| server.product) {
            Some(Product::Lea) => ServerKind::Lea,
            Some(_) if self.has_lea_fields(indices)? => ServerKind::LeaCluster,
            _ => ServerKind::Foreign,
        };
        Ok(*self.kind.get_or_init(|| kind))
    }

    /// True if an index has the field that lea adds to each event.
    fn has_lea_fields(&self, indices: &[String]) -> Result<bool> {
        let api = format!("_field_caps?fields={LEA_TIME_FIELD}&ignore_unavailable=true");
        let response = self.get(&self.client.index_path(indices, &api))?;
        // A server without this API can still be searched; if something else is wrong, the search reports it.
        let caps: Value = serde_json::from_slice(&response.body).unwrap_or_default();
        Ok(caps["fields"].get(LEA_TIME_FIELD).is_some())
    }

    /// The detected kind, if it was detected before.
    pub(crate) fn known_kind(&self) -> Option<ServerKind> {
        self.kind.get().copied()
    }

    /// Counts the documents that match a query.
    pub(crate) fn count(&self, indices: &[String], query: &Value) -> Result<u64> {
        let response = self.post_json(indices, "_count", &json!({"query": query}))?;
        let counted: Value = self.parse(&response)?;
        ShardSummary::of(&counted).check_complete().map_err(|error| self.error(&error.to_string()))?;
        counted["count"].as_u64().ok_or_else(|| self.error("the response has no count"))
    }

    /// Runs a search with this request body.
    pub(crate) fn search(&self, indices: &[String], body: &Value) -> Result<SearchResult> {
        let response = self.post_json(indices, "_search", body)?;
        let found: ParsedSearch<'_> = self.parse(&response)?;
        found.check_complete().map_err(|error| self.error(&error.to_string()))?;
        Ok(found.into_result())
    }

    /// Writes documents that have ids. While the server is overloaded, the same documents are sent again; those
    /// already stored report that their id exists.
    pub(crate) fn write(&self, documents: &[Document]) -> Result<Vec<WriteOutcome>> {
        let mut body = Vec::new();
        for document in documents {
            let id = document.id.as_deref().unwrap_or_default();
            bulk::append_create(&document.index, id, &document.source, &mut body);
        }
        let limit = self.connect_timeout.max(WRITE_RETRY_MIN);
        let mut attempts = self.attempts(limit);
        let mut outcomes: Vec<Option<WriteOutcome>> = vec![None; documents.len()];
        loop {
            let left = attempts.deadline.saturating_duration_since(Instant::now());
            let response = self.send_within(&Method::POST, "/_bulk", EsRequestBody::Lines(&body), left)?;
            let response = self.expect_success(response)?;
            match self.apply_bulk_response(&response.body, &mut outcomes)? {
                None => return Ok(outcomes.into_iter().flatten().collect()),
                Some(reason) if !attempts.wait(&reason) => {
                    let limit = limit.as_secs();
                    return Err(
                        self.error(&format!("some events were not accepted within {limit} s: {reason}"))
                    );
                }
                Some(_) => {}
            }
        }
    }

    /// Fills in the outcomes that are still unknown. Returns the reason of an item to be sent again.
    fn apply_bulk_response(
        &self,
        body: &[u8],
        outcomes: &mut [Option<WriteOutcome>],
    ) -> Result<Option<String>> {
        let results = bulk::parse_results(body, outcomes.len())
            .ok_or_else(|| self.error("the response to a bulk request does not have one result per event"))?;
        let mut retry = None;
        for (result, outcome) in results.into_iter().zip(outcomes).filter(|(_, outcome)| outcome.is_none()) {
            *outcome = match result {
                BulkItemResult::Created => Some(WriteOutcome::Stored),
                BulkItemResult::AlreadyExists => Some(WriteOutcome::AlreadyExists),
                BulkItemResult::Rejected(reason) => Some(WriteOutcome::Rejected(reason)),
                BulkItemResult::IndexMissing => {
                    let reason = "the index does not exist, and the server does not create it".to_owned();
                    Some(WriteOutcome::Rejected(reason))
                }
                BulkItemResult::Retry(reason) => {
                    retry = Some(reason);
                    None
                }
            };
        }
        Ok(retry)
    }

    fn get(&self, path: &str) -> Result<EsResponse> {
        self.send_within(&Method::GET, path, EsRequestBody::Empty, self.connect_timeout)
    }

    fn post_json(&self, indices: &[String], api: &str, body: &Value) -> Result<EsResponse> {
        let path = self.client.index_path(indices, api);
        let body = body.to_string();
        let body = EsRequestBody::Json(body.as_bytes());
        self.expect_success(self.send_within(&Method::POST, &path, body, self.connect_timeout)?)
    }

    fn attempts(&self, limit: Duration) -> Attempts<'_> {
        let now = Instant::now();
        Attempts { address: self.client.address(), deadline: now + limit, reported: now }
    }

    /// Sends a request, and again while the server is unreachable or overloaded. The response can have any
    /// status.
    fn send_within(
        &self,
        method: &Method,
        path: &str,
        body: EsRequestBody<'_>,
        limit: Duration,
    ) -> Result<EsResponse> {
        let mut attempts = self.attempts(limit);
        loop {
            let error = match self.client.send_with_timeout(method, path, body, REQUEST_TIMEOUT) {
                Ok(response) if is_overloaded(response.status) => {
                    let reason = format!("status {}: {}", response.status, response.error_reason());
                    io::Error::other(escape(&reason))
                }
                Ok(response) => return Ok(response),
                Err(ClientError::Unreachable { cause, .. }) if is_transient(&cause) => cause,
                Err(ClientError::Unreachable { cause, .. }) => return Err(self.network_error(cause)),
                Err(error @ ClientError::TimedOut { .. }) => {
                    let cause = io::Error::new(io::ErrorKind::TimedOut, error.to_string());
                    return Err(self.network_error(cause));
                }
            };
            if !attempts.wait(&error.to_string()) {
                return Err(self.network_error(error));
            }
        }
    }

    fn network_error(&self, cause: io::Error) -> Error {
        Error::net("query", self.client.address())(cause)
    }

    /// Returns a successful response, or its error.
    fn expect_success(&self, response: EsResponse) -> Result<EsResponse> {
        match response.status {
            200..=299 => Ok(response),
            401 => {
                let reason = response.error_reason();
                Err(self.error(&format!("wrong user or password (status 401): {reason}")))
            }
            status => Err(self.error(&format!("{} (status {status})", response.error_reason()))),
        }
    }

    fn parse<'a, T: Deserialize<'a>>(&self, response: &'a EsResponse) -> Result<T> {
        serde_json::from_slice(&response.body)
            .map_err(|error| self.error(&format!("malformed response: {error}")))
    }

    fn error(&self, cause: &str) -> Error {
        Error::Query { store: self.client.address().to_owned(), cause: escape(cause) }
    }
}

/// True for statuses that a proxy or a server uses while it cannot handle requests.
fn is_overloaded(status: u16) -> bool {
    matches!(status, 429 | 502..=504)
}

/// True for errors of a server that is being started, restarted or reconnected.
fn is_transient(error: &io::Error) -> bool {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkDown,
        NetworkUnreachable, NotConnected, UnexpectedEof,
    };
    matches!(
        error.kind(),
        BrokenPipe
            | ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | NetworkDown
            | NetworkUnreachable
            | NotConnected
            | UnexpectedEof
    )
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    fn client(url: &str, connect_timeout: Duration) -> RemoteClient {
        RemoteClient::new(url, None, connect_timeout).unwrap()
    }

    #[test]
    fn bulk_response_is_evaluated_per_item() {
        let client = client("http://127.0.0.1:1", Duration::ZERO);
        let mut outcomes = vec![None; 4];
        let item = |status: u16| json!({"create": {"status": status, "error": {"reason": "a", "caused_by": {"reason": "b"}}}});
        let body = |statuses: &[u16]| {
            json!({"items": statuses.iter().map(|&status| item(status)).collect::<Vec<_>>()}).to_string()
        };
        let mut apply = |statuses: &[u16]| {
            let retry = client.apply_bulk_response(body(statuses).as_bytes(), &mut outcomes).unwrap();
            (retry, outcomes.clone())
        };
        let stored = Some(WriteOutcome::Stored);
        let exists = Some(WriteOutcome::AlreadyExists);
        let rejected = Some(WriteOutcome::Rejected("a: b".to_owned()));
        let expected = vec![stored.clone(), exists.clone(), None, rejected.clone()];
        assert_eq!(apply(&[201, 409, 429, 400]), (Some("a: b".to_owned()), expected));
        // An event stored by the first request keeps its result.
        assert_eq!(apply(&[409, 409, 201, 400]), (None, vec![stored.clone(), exists, stored, rejected]));
        for wrong in ["{}", "[]", "no", r#"{"items":[]}"#] {
            assert!(client.apply_bulk_response(wrong.as_bytes(), &mut [None]).is_err(), "{wrong}");
        }
    }

    /// Answers each connection with one of the responses, in order.
    fn server(responses: &'static [&'static str]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for response in responses {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 4096]).unwrap();
                stream.write_all(response.as_bytes()).unwrap();
            }
        });
        url
    }

    const BUSY: &str = "HTTP/1.1 503 x\r\ncontent-length: 34\r\nconnection: close\r\n\r\n{\"error\":{\"reason\":\"starting up\"}}";
    const COUNT: &str = "HTTP/1.1 200 x\r\ncontent-length: 11\r\nconnection: close\r\n\r\n{\"count\":7}";

    #[test]
    fn requests_are_repeated_until_the_time_limit() {
        let query = json!({"match_all": {}});
        let patient = client(&server(&[BUSY, BUSY, COUNT]), Duration::from_secs(30));
        assert_eq!(patient.count(&[], &query).unwrap(), 7);
        let impatient = client(&server(&[BUSY, COUNT]), Duration::ZERO);
        let error = crate::error::chain(&impatient.count(&[], &query).unwrap_err());
        assert!(error.contains("status 503"), "{error}");
    }

    #[test]
    fn an_unreachable_server_is_an_error_after_the_time_limit() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let start = Instant::now();
        let error =
            client(&format!("http://{free}"), Duration::from_millis(600)).detect_kind(&[]).unwrap_err();
        assert!(matches!(error, Error::Net { .. }), "{error}");
        assert!(start.elapsed() >= Duration::from_millis(600));
    }
}
