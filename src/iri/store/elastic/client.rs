//! Requests to an Elasticsearch, an OpenSearch or another lea over HTTP or HTTPS: where it is, who asks, bounded answers.
//! Blocking; called by any thread, each request has a connection of its own out of a small pool.
//!
//! Invariant: neither an error nor the log ever has the password.

use std::borrow::Cow;
use std::io;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use serde_json::Value;
use ureq::Agent;
use ureq::http::{HeaderValue, Method, Request, Response, Uri, header};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use crate::{Error, Result};

/// Bytes of an answer.
pub const ANSWER_BYTES_MAX: u64 = 256 << 20;

/// Bytes of a file of certificates: all that the world trusts are 200 kB.
const CA_BYTES_MAX: u64 = 4 << 20;

/// How much of an answer that is no JSON an error repeats.
const SHOWN_CHARS_MAX: usize = 200;

const PORT_DEFAULT: u16 = 9200;

/// Connections that are kept for the next request: the edge's threads ask at once.
const IDLE_CONNECTIONS_MAX: usize = 64;

/// A connection is made within this time, or never.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// What cannot stand in a path's part.
const PART: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'/').add(b'<').add(b'>').add(b'?');

/// A client of one server.
#[derive(Clone, Debug)]
pub struct Client {
    agent: Agent,
    /// `http://host:9200`, without user and password: errors and the log have it.
    address: String,
    authorization: Option<HeaderValue>,
    /// What the URL has behind the host: names of indices.
    path: String,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// A request that has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// None within the time.
    #[error("no answer from {address} within {ms} ms")]
    TimedOut {
        /// Who was asked.
        address: String,
        /// How long it was waited for.
        ms: u128,
    },
    /// No connection, or it broke.
    #[error("cannot ask {address}: {cause}")]
    Unreachable {
        /// Who was asked.
        address: String,
        /// Why not.
        cause: io::Error,
    },
}

/// What a request brings.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    /// Nothing.
    Empty,
    /// A JSON value.
    Json(&'a [u8]),
    /// JSON lines (`_bulk`).
    Lines(&'a [u8]),
    /// JSON lines, packed with gzip.
    GzipLines(&'a [u8]),
}

/// Who answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Whose dialect it speaks.
    pub product: Product,
    /// Its version as it says it: `7.17.29`.
    pub version: String,
}

/// What answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// Elasticsearch.
    Elasticsearch,
    /// OpenSearch.
    OpenSearch,
    /// Another lea.
    Lea,
}

impl Server {
    /// The first number of the version.
    pub fn major(&self) -> u32 {
        self.part(0)
    }

    fn part(&self, nth: usize) -> u32 {
        self.version.split(['.', '-']).nth(nth).and_then(|part| part.parse().ok()).unwrap_or(0)
    }

    /// True for what can be the store: Elasticsearch 7.17 to 9, OpenSearch 2 and 3.
    pub fn is_supported(&self) -> bool {
        match (self.product, self.major()) {
            (Product::Elasticsearch, 7) => self.part(1) >= 17,
            (Product::Elasticsearch, major) => matches!(major, 8 | 9),
            (Product::OpenSearch, major) => matches!(major, 2 | 3),
            (Product::Lea, _) => false,
        }
    }

    /// Reads the answer to `GET /`.
    pub fn read(body: &[u8]) -> Option<Server> {
        let info: Value = serde_json::from_slice(body).ok()?;
        let version = &info["version"];
        let product = if version["build_hash"].as_str().is_some_and(|hash| hash.starts_with("lea-")) {
            Product::Lea
        } else if version["distribution"] == "opensearch" {
            Product::OpenSearch
        } else {
            Product::Elasticsearch
        };
        let version = version["number"].as_str()?.to_owned();
        Some(Server { product, version })
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self.product {
            Product::Elasticsearch => "Elasticsearch",
            Product::OpenSearch => "OpenSearch",
            Product::Lea => "lea, as Elasticsearch",
        };
        write!(f, "{name} {}", self.version)
    }
}

impl Client {
    /// Reads a URL, `http[s]://USER:PASSWORD@HOST:PORT/INDEX`; nothing is sent yet. `password` counts where the URL has
    /// none. `ca`: certificates that are trusted instead of the world's (PEM).
    pub fn new(url: &str, password: Option<&str>, ca: Option<&Path>) -> Result<Client> {
        let wrong =
            |why: &str| Error::Usage(format!("--store: {why}; write http[s]://USER:PASSWORD@HOST:9200"));
        let (scheme, rest) = match url.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => ("http", rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => ("https", rest),
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
        let path = path.trim_end_matches('/');
        if name.is_empty() || path.contains('/') {
            return Err(wrong("no host, or more than indices behind it"));
        }
        let address = format!("{scheme}://{name}:{port}");
        address.parse::<Uri>().map_err(|_| wrong("a host that cannot be"))?;
        let tls = tls(scheme, ca)?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .tls_config(tls)
            .timeout_connect(Some(CONNECT_MAX))
            .max_idle_connections(IDLE_CONNECTIONS_MAX)
            .max_idle_connections_per_host(IDLE_CONNECTIONS_MAX)
            .timeout_global(Some(Duration::from_secs(120)))
            .user_agent(concat!("lea/", env!("CARGO_PKG_VERSION")));
        let authorization = login.map(|login| authorization(login, password)).transpose()?;
        Ok(Client { agent: config.build().into(), address, authorization, path: path.to_owned() })
    }

    /// Sends a request; an answer of any status is an answer.
    pub fn send(&self, method: &Method, path: &str, body: Body<'_>) -> Result<Answer, ClientError> {
        self.send_within(method, path, body, Duration::from_secs(120))
    }

    /// The same with another time until the answer is whole.
    pub fn send_within(
        &self,
        method: &Method,
        path: &str,
        body: Body<'_>,
        timeout: Duration,
    ) -> Result<Answer, ClientError> {
        self.exchange(method, path, body, timeout, |mut response| {
            let status = response.status().as_u16();
            let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec()?;
            Ok(Answer { status, body })
        })
    }

    /// The same, and `read` takes the answer, with a bound of its own.
    pub fn exchange<T>(
        &self,
        method: &Method,
        path: &str,
        body: Body<'_>,
        timeout: Duration,
        read: impl FnOnce(Response<ureq::Body>) -> Result<T, ureq::Error>,
    ) -> Result<T, ClientError> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.address));
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let kind = match body {
            Body::Empty => None,
            Body::Json(_) => Some("application/json"),
            Body::Lines(_) | Body::GzipLines(_) => Some("application/x-ndjson"),
        };
        if let Some(kind) = kind {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        if matches!(body, Body::GzipLines(_)) {
            request = request.header(header::CONTENT_ENCODING, "gzip");
        }
        let sent = match body {
            // Where a body may stand, its length is told: without that it would go as one in chunks.
            Body::Empty if *method == Method::POST || *method == Method::PUT => request
                .body(&b""[..])
                .map_err(ureq::Error::from)
                .and_then(|request| self.run(request, timeout)),
            Body::Empty => {
                request.body(()).map_err(ureq::Error::from).and_then(|request| self.run(request, timeout))
            }
            Body::Json(bytes) | Body::Lines(bytes) | Body::GzipLines(bytes) => {
                request.body(bytes).map_err(ureq::Error::from).and_then(|request| self.run(request, timeout))
            }
        };
        sent.and_then(read).map_err(|error| self.failed(error, timeout))
    }

    fn run(
        &self,
        request: Request<impl ureq::AsSendBody>,
        timeout: Duration,
    ) -> Result<Response<ureq::Body>, ureq::Error> {
        let request = self.agent.configure_request(request).timeout_global(Some(timeout)).build();
        self.agent.run(request)
    }

    fn failed(&self, error: ureq::Error, timeout: Duration) -> ClientError {
        let address = self.address.clone();
        match error {
            ureq::Error::Timeout(_) => ClientError::TimedOut { address, ms: timeout.as_millis() },
            ureq::Error::Io(cause) => ClientError::Unreachable { address, cause },
            error => ClientError::Unreachable { address, cause: io::Error::other(error.to_string()) },
        }
    }

    /// The address, without user and password.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The indices that the URL names.
    pub fn index(&self) -> Option<&str> {
        (!self.path.is_empty()).then_some(self.path.as_str())
    }

    /// The path of something that is done to indices; none named: to those of the URL, or all.
    pub fn path(&self, indices: &[String], act: &str) -> String {
        if indices.is_empty() {
            return if self.path.is_empty() { format!("/{act}") } else { format!("/{}/{act}", self.path) };
        }
        let names: Vec<String> = indices.iter().map(|name| part(name).to_string()).collect();
        format!("/{}/{act}", names.join(","))
    }

    /// Asks who answers. `None`: its answer says nothing of that (it is refused, or no such server).
    pub fn server(&self, timeout: Duration) -> Result<Result<Server, Answer>, ClientError> {
        let answer = self.send_within(&Method::GET, "/", Body::Empty, timeout)?;
        let server = (answer.status == 200).then(|| Server::read(&answer.body)).flatten();
        Ok(server.ok_or(answer))
    }
}

impl Answer {
    /// True for 2xx.
    pub fn is_good(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// True for an error in the form of Elasticsearch.
    pub fn is_told(&self) -> bool {
        serde_json::from_slice(&self.body).is_ok_and(|body: Value| body["error"]["type"].is_string())
    }

    /// Why the server refused, in its own words, short.
    pub fn cause(&self) -> String {
        let error =
            serde_json::from_slice(&self.body).map(|body: Value| body["error"].clone()).unwrap_or_default();
        let first = &error["root_cause"][0];
        let inner = error["failed_shards"][0]["reason"]["caused_by"]["reason"].as_str();
        let reason = inner.or(first["reason"].as_str()).or(error["reason"].as_str()).or(error.as_str());
        let text = reason.map(Cow::Borrowed).unwrap_or_else(|| String::from_utf8_lossy(&self.body));
        text.chars().take(SHOWN_CHARS_MAX).collect()
    }
}

/// A name as a part of a path.
pub fn part(name: &str) -> percent_encoding::PercentEncode<'_> {
    utf8_percent_encode(name, PART)
}

/// `USER:PASSWORD` as they are meant, for the header.
fn authorization(login: &str, password: Option<&str>) -> Result<HeaderValue> {
    let mut plain: Vec<u8> = percent_decode_str(login).collect();
    if !login.contains(':') {
        plain.push(b':');
        plain.extend_from_slice(password.unwrap_or_default().as_bytes());
    }
    let value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(plain)));
    let mut value = value.map_err(|_| Error::Usage("--store: a user that cannot be".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Which certificates are trusted.
fn tls(scheme: &str, ca: Option<&Path>) -> Result<TlsConfig> {
    let Some(path) = ca else { return Ok(TlsConfig::default()) };
    let wrong = |why: &str| Error::Usage(format!("--store-ca {}: {why}", path.display()));
    if scheme != "https" {
        return Err(Error::Usage("--store-ca: --store is no https URL".to_owned()));
    }
    let length = path.metadata().map_err(Error::path("read", path))?.len();
    if length > CA_BYTES_MAX {
        return Err(wrong("it is larger than 4 MiB"));
    }
    let pem = std::fs::read(path).map_err(Error::path("read", path))?;
    let items: Result<Vec<_>, _> = parse_pem(&pem).collect();
    let certificates: Vec<Certificate<'static>> = items
        .map_err(|error| wrong(&error.to_string()))?
        .into_iter()
        .filter_map(|item| match item {
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(wrong("it has no certificate in PEM"));
    }
    Ok(TlsConfig::builder().root_certs(RootCerts::new_with_certs(&certificates)).build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_url(url: &str, address: &str, login: Option<&str>, path: &str) {
        let client = Client::new(url, Some("given"), None).unwrap_or_else(|error| panic!("{url}: {error}"));
        let authorization = login.map(|login| format!("Basic {}", STANDARD.encode(login)));
        assert_eq!((client.address.as_str(), client.path.as_str()), (address, path), "{url}");
        let found = client.authorization.as_ref().map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(found, authorization, "{url}");
    }

    #[test]
    fn urls() {
        check_url("http://a", "http://a:9200", None, "");
        check_url("HTTP://a:1/", "http://a:1", None, "");
        check_url("HTTPS://a/", "https://a:9200", None, "");
        check_url("http://u:p@a:9201/calls-*,b", "http://a:9201", Some("u:p"), "calls-*,b");
        check_url("http://u:p%40:x@[::1]:9201/", "http://[::1]:9201", Some("u:p@:x"), "");
        check_url("http://u@a@[::1]", "http://[::1]:9200", Some("u@a:given"), "");
        check_url("http://u@a", "http://a:9200", Some("u:given"), "");
        check_url("http://u:@a", "http://a:9200", Some("u:"), "");
        for wrong in [
            "ftp://a",
            "http://",
            "http://:9200",
            "http://a:x",
            "http://a:99999",
            "http://a/b/c",
            "http://a/b?c",
            "http://a/#",
            "http://a b",
            "http://a\r\nx: y",
            "http://a]",
        ] {
            assert!(Client::new(wrong, None, None).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_error_never_tells_the_password() {
        let client = Client::new("http://user:secret@127.0.0.1:1", None, None).unwrap();
        let error = client.server(Duration::from_secs(10)).unwrap_err();
        let shown = format!("{error} {client:?}");
        assert!(!shown.contains("secret") && !shown.contains(&STANDARD.encode("user:secret")), "{shown}");
    }

    #[test]
    fn certificates_are_read_and_what_is_none_is_wrong_usage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let new = |url: &str| Client::new(url, None, Some(&path)).map(drop);
        assert!(new("https://a").unwrap_err().to_string().contains("ca.pem"));
        for (text, why) in [("", "no certificate"), ("-----BEGIN CERTIFICATE-----\n", "ca.pem")] {
            std::fs::write(&path, text).unwrap();
            assert!(new("https://a").unwrap_err().to_string().contains(why), "{text}");
        }
        std::fs::write(&path, vec![b'x'; CA_BYTES_MAX as usize + 1]).unwrap();
        assert!(new("https://a").unwrap_err().to_string().contains("larger"));
        std::fs::write(&path, vec![b'x'; CA_BYTES_MAX as usize]).unwrap();
        assert!(new("https://a").unwrap_err().to_string().contains("no certificate"));
        assert!(new("http://a").unwrap_err().to_string().contains("no https"));
    }

    #[track_caller]
    fn check_server(info: &str, shown: &str, supported: bool) {
        let server = Server::read(info.as_bytes()).unwrap();
        assert_eq!((server.to_string().as_str(), server.is_supported()), (shown, supported));
    }

    #[test]
    fn servers_are_told_apart() {
        let elastic = |version: &str| format!(r#"{{"version":{{"number":"{version}","build_hash":"1"}}}}"#);
        let open =
            |version: &str| format!(r#"{{"version":{{"distribution":"opensearch","number":"{version}"}}}}"#);
        check_server(&elastic("7.17.29"), "Elasticsearch 7.17.29", true);
        check_server(&elastic("7.16.3"), "Elasticsearch 7.16.3", false);
        check_server(&elastic("6.8.0"), "Elasticsearch 6.8.0", false);
        check_server(&elastic("8.0.0-rc1"), "Elasticsearch 8.0.0-rc1", true);
        check_server(&elastic("9.1.0"), "Elasticsearch 9.1.0", true);
        check_server(&elastic("10.0.0"), "Elasticsearch 10.0.0", false);
        check_server(&open("1.3.0"), "OpenSearch 1.3.0", false);
        check_server(&open("2.0.0"), "OpenSearch 2.0.0", true);
        check_server(&open("3.8.0"), "OpenSearch 3.8.0", true);
        check_server(&open("4.0.0"), "OpenSearch 4.0.0", false);
        let lea = r#"{"version":{"number":"7.17.29","build_hash":"lea-0.1.0"}}"#;
        check_server(lea, "lea, as Elasticsearch 7.17.29", false);
        for none in ["{}", "", "[]", r#"{"version":{"number":7}}"#] {
            assert_eq!(Server::read(none.as_bytes()), None, "{none}");
        }
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
            assert_eq!(Answer { status: 400, body: body.into() }.cause(), expected);
        }
    }
}
