//! HTTP client for Elasticsearch, OpenSearch and other instances of lea: URL, credentials, TLS, limits.
//! Blocking; called by any thread, with one pooled connection per request.
//!
//! Invariant: neither errors nor the log contain the password.

use std::borrow::Cow;
use std::io;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::Value;
use ureq::Agent;
use ureq::http::{HeaderValue, Method, Request, Response, Uri, header};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use crate::{Error, Result};

/// Maximum size of a response.
pub(crate) const RESPONSE_BYTES_MAX: u64 = 256 << 20;

/// Maximum size of a file of CA certificates. The system's root certificates have 200 kB.
const CA_BYTES_MAX: u64 = 4 << 20;

/// Maximum number of characters of a response that an error message repeats.
const EXCERPT_CHARS_MAX: usize = 200;

const PORT_DEFAULT: u16 = 9200;

/// Maximum number of pooled connections; the threads of the HTTP server use them concurrently.
const IDLE_CONNECTIONS_MAX: usize = 64;

/// Maximum time to establish a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Characters to escape in a path segment.
const PATH_SEGMENT: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'*');

/// A client of one server.
#[derive(Clone, Debug)]
pub struct EsClient {
    agent: Agent,
    /// `http://host:9200`, without credentials; safe for errors and the log.
    address: String,
    authorization: Option<HeaderValue>,
    /// Path of the URL: index names.
    path: String,
}

#[derive(Clone, Debug)]
pub struct EsResponse {
    pub status: u16,
    pub body: Vec<u8>,
}

/// A request without a response.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no response from {address} within {ms} ms")]
    TimedOut { address: String, ms: u128 },
    /// No connection, or it was lost.
    #[error("cannot reach {address}: {cause}")]
    Unreachable { address: String, cause: io::Error },
}

#[derive(Clone, Copy, Debug)]
pub enum EsRequestBody<'a> {
    Empty,
    Json(&'a [u8]),
    /// JSON lines (`_bulk`).
    Lines(&'a [u8]),
    /// JSON lines compressed with gzip.
    GzipLines(&'a [u8]),
}

/// The response to `GET /`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerInfo {
    pub product: Product,
    /// Version as reported: `7.17.29`.
    pub version: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    Elasticsearch,
    OpenSearch,
    Lea,
}

impl ServerInfo {
    /// Major version.
    pub fn major(&self) -> u32 {
        self.version_part(0)
    }

    fn version_part(&self, nth: usize) -> u32 {
        self.version.split(['.', '-']).nth(nth).and_then(|part| part.parse().ok()).unwrap_or(0)
    }

    /// True for the supported clusters: Elasticsearch 7.17 to 9, OpenSearch 2 and 3.
    pub fn is_supported(&self) -> bool {
        match (self.product, self.major()) {
            (Product::Elasticsearch, 7) => self.version_part(1) >= 17,
            (Product::Elasticsearch, major) => matches!(major, 8 | 9),
            (Product::OpenSearch, major) => matches!(major, 2 | 3),
            (Product::Lea, _) => false,
        }
    }

    /// Parses the response to `GET /`.
    pub fn parse(body: &[u8]) -> Option<ServerInfo> {
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
        Some(ServerInfo { product, version })
    }
}

impl std::fmt::Display for ServerInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self.product {
            Product::Elasticsearch => "Elasticsearch",
            Product::OpenSearch => "OpenSearch",
            Product::Lea => "lea with the API of Elasticsearch",
        };
        write!(f, "{name} {}", self.version)
    }
}

impl EsClient {
    /// Parses a URL, `http[s]://USER:PASSWORD@HOST:PORT/INDEX`, without connecting. `option` names the URL in errors. `password`
    /// applies if the URL has none. `ca` is a PEM file of certificates that replace the system's.
    pub fn new(option: &str, url: &str, password: Option<&str>, ca: Option<&Path>) -> Result<EsClient> {
        let wrong =
            |why: &str| Error::Usage(format!("{option}: {why}; write http[s]://USER:PASSWORD@HOST:9200"));
        let (scheme, rest) = match url.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => ("http", rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => ("https", rest),
            _ => return Err(wrong("not an http or https URL")),
        };
        if rest.contains(['?', '#']) || rest.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(wrong("the URL may contain only credentials, host, port and index names"));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, host) = match authority.rsplit_once('@') {
            Some((login, host)) => (Some(login), host),
            None => (None, authority),
        };
        let after = host.rsplit_once(']').map_or(host, |(_, after)| after);
        let (name, port) = match after.rsplit_once(':') {
            Some((_, port)) => {
                (&host[..host.len() - port.len() - 1], port.parse().map_err(|_| wrong("invalid port"))?)
            }
            None => (host, PORT_DEFAULT),
        };
        let path = path.trim_end_matches('/');
        if name.is_empty() || path.contains('/') {
            return Err(wrong("the host is missing, or the path has more than index names"));
        }
        let address = format!("{scheme}://{name}:{port}");
        address.parse::<Uri>().map_err(|_| wrong("invalid host"))?;
        let tls = tls_config(option, scheme, ca)?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .tls_config(tls)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .max_idle_connections(IDLE_CONNECTIONS_MAX)
            .max_idle_connections_per_host(IDLE_CONNECTIONS_MAX)
            .timeout_global(Some(Duration::from_secs(120)))
            .user_agent(concat!("lea/", env!("CARGO_PKG_VERSION")));
        let authorization = login.map(|login| basic_authorization(option, login, password)).transpose()?;
        Ok(EsClient { agent: config.build().into(), address, authorization, path: path.to_owned() })
    }

    /// Sends a request. The response can have any status.
    pub fn send(
        &self,
        method: &Method,
        path: &str,
        body: EsRequestBody<'_>,
    ) -> Result<EsResponse, ClientError> {
        self.send_with_timeout(method, path, body, Duration::from_secs(120))
    }

    /// Sends a request with a timeout for the complete response.
    pub fn send_with_timeout(
        &self,
        method: &Method,
        path: &str,
        body: EsRequestBody<'_>,
        timeout: Duration,
    ) -> Result<EsResponse, ClientError> {
        self.send_and_read(method, path, body, timeout, |mut response| {
            let status = response.status().as_u16();
            let body = response.body_mut().with_config().limit(RESPONSE_BYTES_MAX).read_to_vec()?;
            Ok(EsResponse { status, body })
        })
    }

    /// Sends a request and passes the response to `read`, which can apply its own limits.
    pub fn send_and_read<T>(
        &self,
        method: &Method,
        path: &str,
        body: EsRequestBody<'_>,
        timeout: Duration,
        read: impl FnOnce(Response<ureq::Body>) -> Result<T, ureq::Error>,
    ) -> Result<T, ClientError> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.address));
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let kind = match body {
            EsRequestBody::Empty => None,
            EsRequestBody::Json(_) => Some("application/json"),
            EsRequestBody::Lines(_) | EsRequestBody::GzipLines(_) => Some("application/x-ndjson"),
        };
        if let Some(kind) = kind {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        if matches!(body, EsRequestBody::GzipLines(_)) {
            request = request.header(header::CONTENT_ENCODING, "gzip");
        }
        let sent = match body {
            // An empty body needs an explicit length; otherwise the request would use chunked encoding.
            EsRequestBody::Empty if *method == Method::POST || *method == Method::PUT => request
                .body(&b""[..])
                .map_err(ureq::Error::from)
                .and_then(|request| self.run(request, timeout)),
            EsRequestBody::Empty => {
                request.body(()).map_err(ureq::Error::from).and_then(|request| self.run(request, timeout))
            }
            EsRequestBody::Json(bytes) | EsRequestBody::Lines(bytes) | EsRequestBody::GzipLines(bytes) => {
                request.body(bytes).map_err(ureq::Error::from).and_then(|request| self.run(request, timeout))
            }
        };
        sent.and_then(read).map_err(|error| self.to_client_error(error, timeout))
    }

    fn run(
        &self,
        request: Request<impl ureq::AsSendBody>,
        timeout: Duration,
    ) -> Result<Response<ureq::Body>, ureq::Error> {
        let request = self.agent.configure_request(request).timeout_global(Some(timeout)).build();
        self.agent.run(request)
    }

    fn to_client_error(&self, error: ureq::Error, timeout: Duration) -> ClientError {
        let address = self.address.clone();
        match error {
            ureq::Error::Timeout(_) => ClientError::TimedOut { address, ms: timeout.as_millis() },
            ureq::Error::Io(cause) => ClientError::Unreachable { address, cause },
            error => ClientError::Unreachable { address, cause: io::Error::other(error.to_string()) },
        }
    }

    /// The address without credentials.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The index names in the URL.
    pub fn url_indices(&self) -> Option<&str> {
        (!self.path.is_empty()).then_some(self.path.as_str())
    }

    /// Path of an API for these indices; if none are given, for those of the URL, or for all.
    pub fn index_path(&self, indices: &[String], act: &str) -> String {
        if indices.is_empty() {
            return if self.path.is_empty() { format!("/{act}") } else { format!("/{}/{act}", self.path) };
        }
        let names: Vec<String> = indices.iter().map(|name| encode_path_segment(name).to_string()).collect();
        format!("/{}/{act}", names.join(","))
    }

    /// Fetches `GET /`. The inner error is a response that does not identify a server.
    pub fn fetch_server_info(
        &self,
        timeout: Duration,
    ) -> Result<Result<ServerInfo, EsResponse>, ClientError> {
        let response = self.send_with_timeout(&Method::GET, "/", EsRequestBody::Empty, timeout)?;
        let server = (response.status == 200).then(|| ServerInfo::parse(&response.body)).flatten();
        Ok(server.ok_or(response))
    }
}

impl EsResponse {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// True for an error in Elasticsearch's form.
    pub fn has_elasticsearch_error(&self) -> bool {
        serde_json::from_slice(&self.body).is_ok_and(|body: Value| body["error"]["type"].is_string())
    }

    /// The server's error text, shortened.
    pub fn error_reason(&self) -> String {
        let error =
            serde_json::from_slice(&self.body).map(|body: Value| body["error"].clone()).unwrap_or_default();
        let first = &error["root_cause"][0];
        let inner = error["failed_shards"][0]["reason"]["caused_by"]["reason"].as_str();
        let reason = inner.or(first["reason"].as_str()).or(error["reason"].as_str()).or(error.as_str());
        let text = reason.map(Cow::Borrowed).unwrap_or_else(|| String::from_utf8_lossy(&self.body));
        text.chars().take(EXCERPT_CHARS_MAX).collect()
    }
}

/// Escapes a name for a path segment.
pub(crate) fn encode_path_segment(name: &str) -> percent_encoding::PercentEncode<'_> {
    utf8_percent_encode(name, PATH_SEGMENT)
}

/// Value of the `Authorization` header for a percent-encoded `USER:PASSWORD`.
fn basic_authorization(option: &str, login: &str, password: Option<&str>) -> Result<HeaderValue> {
    let mut plain: Vec<u8> = percent_decode_str(login).collect();
    if !login.contains(':') {
        plain.push(b':');
        plain.extend_from_slice(password.unwrap_or_default().as_bytes());
    }
    let value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(plain)));
    let mut value = value.map_err(|_| {
        Error::Usage(format!("{option}: the user or password contains a character that is not allowed"))
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// TLS settings with these CA certificates.
fn tls_config(option: &str, scheme: &str, ca: Option<&Path>) -> Result<TlsConfig> {
    let Some(path) = ca else { return Ok(TlsConfig::default()) };
    let wrong = |why: &str| Error::Usage(format!("{option}-ca {}: {why}", path.display()));
    if scheme != "https" {
        return Err(Error::Usage(format!("{option}-ca applies only to an https URL in {option}")));
    }
    let length = path.metadata().map_err(Error::path("read", path))?.len();
    if length > CA_BYTES_MAX {
        return Err(wrong("larger than 4 MiB"));
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
        return Err(wrong("contains no certificate in PEM format"));
    }
    Ok(TlsConfig::builder().root_certs(RootCerts::new_with_certs(&certificates)).build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_url(url: &str, address: &str, login: Option<&str>, path: &str) {
        let client = EsClient::new("--store", url, Some("given"), None)
            .unwrap_or_else(|error| panic!("{url}: {error}"));
        let authorization = login.map(|login| format!("Basic {}", STANDARD.encode(login)));
        assert_eq!((client.address.as_str(), client.path.as_str()), (address, path), "{url}");
        let found = client.authorization.as_ref().map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(found, authorization, "{url}");
    }

    #[test]
    fn urls_are_parsed() {
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
            assert!(EsClient::new("--store", wrong, None, None).is_err(), "{wrong}");
        }
    }

    #[test]
    fn errors_do_not_contain_the_password() {
        let client = EsClient::new("--store", "http://user:secret@127.0.0.1:1", None, None).unwrap();
        let error = client.fetch_server_info(Duration::from_secs(10)).unwrap_err();
        let shown = format!("{error} {client:?}");
        assert!(!shown.contains("secret") && !shown.contains(&STANDARD.encode("user:secret")), "{shown}");
    }

    #[test]
    fn malformed_ca_files_are_usage_errors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let new = |url: &str| EsClient::new("--store", url, None, Some(&path)).map(drop);
        assert!(new("https://a").unwrap_err().to_string().contains("ca.pem"));
        for (text, why) in [("", "no certificate"), ("-----BEGIN CERTIFICATE-----\n", "ca.pem")] {
            std::fs::write(&path, text).unwrap();
            assert!(new("https://a").unwrap_err().to_string().contains(why), "{text}");
        }
        std::fs::write(&path, vec![b'x'; CA_BYTES_MAX as usize + 1]).unwrap();
        assert!(new("https://a").unwrap_err().to_string().contains("larger"));
        std::fs::write(&path, vec![b'x'; CA_BYTES_MAX as usize]).unwrap();
        assert!(new("https://a").unwrap_err().to_string().contains("no certificate"));
        assert!(new("http://a").unwrap_err().to_string().contains("only to an https URL"));
    }

    #[track_caller]
    fn check_server(info: &str, shown: &str, supported: bool) {
        let server = ServerInfo::parse(info.as_bytes()).unwrap();
        assert_eq!((server.to_string().as_str(), server.is_supported()), (shown, supported));
    }

    #[test]
    fn servers_are_identified_by_their_root_response() {
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
        check_server(lea, "lea with the API of Elasticsearch 7.17.29", false);
        for none in ["{}", "", "[]", r#"{"version":{"number":7}}"#] {
            assert_eq!(ServerInfo::parse(none.as_bytes()), None, "{none}");
        }
    }

    #[test]
    fn any_name_is_escaped_for_a_path() {
        let odd: String = (0..=0x17f).filter_map(char::from_u32).collect();
        let uri = format!("http://a/{}", encode_path_segment(&odd)).parse::<Uri>().unwrap();
        assert_eq!(percent_decode_str(&uri.path()[1..]).decode_utf8().unwrap(), odd);
        assert_eq!(encode_path_segment("calls-*_a.b").to_string(), "calls-*_a.b");
    }

    #[test]
    fn error_reason_prefers_the_root_cause() {
        for (body, expected) in [
            (r#"{"error":{"root_cause":[{"reason":"inner"}],"reason":"outer"},"status":400}"#, "inner"),
            (r#"{"error":{"reason":"outer"}}"#, "outer"),
            (r#"{"error":"plain"}"#, "plain"),
            ("<html>", "<html>"),
            ("", ""),
        ] {
            assert_eq!(EsResponse { status: 400, body: body.into() }.error_reason(), expected);
        }
    }
}
