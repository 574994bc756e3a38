//! Keeps the pages of browsers out: checks the headers `Host` and `Origin`, and answers their CORS requests.
//!
//! A web page that an analyst opens can send requests to servers that its author cannot reach. The browser names the page in
//! `Origin`, except when the page's host name resolves to the server's address (DNS rebinding): then `Host` has that name.
//! The `Host` of a request with user and password is not checked, because such a page does not know them.

use std::net::{IpAddr, SocketAddr};

use super::request::{Method, Request};
use super::response::Response;
use crate::runtime::logging::Throttle;
use crate::runtime::metrics::Metrics;

/// The methods and headers that a page of an allowed origin can use.
const METHODS: &str = "OPTIONS, HEAD, GET, POST, PUT, DELETE";
const HEADERS: &str = "X-Requested-With, Content-Type, Content-Length, Authorization";
const MAX_AGE: &str = "1728000";

/// Rules for `Host` and `Origin`.
#[derive(Clone, Debug, Default)]
pub struct RequestGuard {
    /// Further names of the server. A name that starts with a dot stands for all names that end with it.
    names: Vec<String>,
    /// Origins whose pages may use the server, such as `http://grafana.example:3000`.
    origins: Vec<String>,
    /// Accept every host.
    any_host: bool,
}

/// The reason why a request is refused with status 403.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuardError {
    #[error(
        "the Host header does not name this server (DNS rebinding?); use its address, or configure the name"
    )]
    ForeignHost,
    #[error("requests of web pages are refused: the Origin header is not an allowed origin (CORS)")]
    ForeignOrigin,
}

impl GuardError {
    /// Counts and logs the refusal of a request.
    pub(crate) fn record(self, peer: SocketAddr, metrics: &Metrics, warnings: &Throttle) {
        metrics.http_rejected_foreign.inc();
        warnings
            .warn("foreign_page", format_args!("http_foreign_page_refused peer={peer} reason=\"{self}\""));
    }
}

impl RequestGuard {
    /// Rules for a server that these names also lead to, and that the pages of these origins may use.
    pub fn new(names: Vec<String>, origins: Vec<String>) -> RequestGuard {
        let lower = |texts: Vec<String>| texts.into_iter().map(|text| text.to_ascii_lowercase()).collect();
        RequestGuard { names: lower(names), origins: lower(origins), any_host: false }
    }

    /// Accepts every host.
    pub fn allow_any_host(self) -> RequestGuard {
        RequestGuard { any_host: true, ..self }
    }

    /// Checks a request by its head.
    pub fn check(&self, request: &Request) -> Result<(), GuardError> {
        let host = header(request, "host").unwrap_or_default();
        if !self.any_host && !self.is_own_host(&host) {
            return Err(GuardError::ForeignHost);
        }
        match header(request, "origin") {
            Some(origin) if !self.allows_origin(&origin, &host) => Err(GuardError::ForeignOrigin),
            _ => Ok(()),
        }
    }

    /// Answers the question of a browser whether a page may send a request. `None`: the request is not such a question.
    pub fn answer_preflight(&self, request: &Request) -> Option<Response> {
        let is_preflight = request.method() == Method::Options
            && request.header("origin").is_some()
            && request.header("access-control-request-method").is_some();
        (is_preflight && self.check(request).is_ok()).then(|| {
            let response = Response::new(200, "text/plain; charset=UTF-8", "")
                .with_header("Access-Control-Allow-Methods", METHODS)
                .with_header("Access-Control-Allow-Headers", HEADERS)
                .with_header("Access-Control-Max-Age", MAX_AGE);
            self.add_headers(request, response)
        })
    }

    /// Adds the headers that let the page of an allowed origin read a response.
    pub fn add_headers(&self, request: &Request, response: Response) -> Response {
        match header(request, "origin") {
            Some(origin) if self.is_listed(&origin) => response
                .with_header("Access-Control-Allow-Origin", origin)
                .with_header("Access-Control-Expose-Headers", "X-Elastic-Product")
                .with_header("Vary", "Origin"),
            _ => response,
        }
    }

    fn is_listed(&self, origin: &str) -> bool {
        self.origins.iter().any(|listed| listed == origin || listed == "*")
    }

    /// A page of the server itself is not foreign.
    fn allows_origin(&self, origin: &str, host: &str) -> bool {
        let own = origin.split_once("://").is_some_and(|(_, own)| !host.is_empty() && own == host);
        own || self.is_listed(origin)
    }

    /// Returns true for names that nobody outside the network of this machine can give to an address: an address itself,
    /// a name without a dot, and the names of this machine and of its domain.
    fn is_own_host(&self, host: &str) -> bool {
        let name = without_port(host);
        let name = name.strip_suffix('.').unwrap_or(name);
        let is_address = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        let fits = |own: &String| name == own || (own.starts_with('.') && name.ends_with(own.as_str()));
        is_address || !name.contains('.') || name.ends_with(".localhost") || self.names.iter().any(fits)
    }
}

/// Returns the names of this machine: its host name, and the search domains of its resolver with a dot before them.
pub fn machine_names() -> Vec<String> {
    let host = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    let resolver = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    std::iter::once(host).chain(search_domains(&resolver)).collect()
}

/// Returns the domains of a resolv.conf(5). One without a dot is left out, because it would stand for a top-level domain.
fn search_domains(resolver: &str) -> Vec<String> {
    let lines = resolver.lines().map(str::split_ascii_whitespace);
    let domains =
        lines.filter_map(|mut words| matches!(words.next(), Some("search" | "domain")).then_some(words));
    let names = domains.flatten().map(|name| name.trim_matches('.').to_ascii_lowercase());
    names.filter(|name| name.contains('.')).map(|name| format!(".{name}")).collect()
}

fn header(request: &Request, name: &str) -> Option<String> {
    request.header(name).map(|value| String::from_utf8_lossy(value).trim().to_ascii_lowercase())
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{ParseStep, RequestLimits, RequestParser};

    fn request(headers: &str) -> RequestParser {
        let mut parser = RequestParser::new(RequestLimits::default());
        let head = format!("GET / HTTP/1.1\r\n{headers}\r\n\r\n");
        assert_eq!(parser.feed(head.as_bytes()).1, ParseStep::Head, "{headers}");
        parser
    }

    fn guard() -> RequestGuard {
        let names = vec!["sensor.lab.example".to_owned(), ".corp.example".to_owned()];
        RequestGuard::new(names, vec!["http://grafana.example:3000".to_owned()])
    }

    #[track_caller]
    fn check(headers: &str, expected: Result<(), GuardError>) {
        assert_eq!(guard().check(request(headers).request()), expected, "{headers}");
    }

    #[test]
    fn t2_a_foreign_host_is_refused_and_own_names_are_not() {
        for own in [
            "127.0.0.1:9200",
            "127.0.0.1",
            "[::1]:9200",
            "192.0.2.7:9200",
            "localhost:9200",
            "LOCALHOST",
            "lea.localhost",
            "elasticsearch:9200",
            "sensor.lab.example:9200",
            "sensor.lab.example.:9200",
            "a.corp.example",
            "",
        ] {
            check(&format!("Host: {own}"), Ok(()));
        }
        for foreign in
            ["evil.example", "evil.example:9200", "127.0.0.1.evil.example", "corp.example.evil.example:9200"]
        {
            check(&format!("Host: {foreign}"), Err(GuardError::ForeignHost));
            let any = guard().allow_any_host();
            assert_eq!(any.check(request(&format!("Host: {foreign}")).request()), Ok(()));
        }
    }

    #[test]
    fn t2_a_foreign_origin_is_refused_unless_it_is_configured() {
        for foreign in ["https://evil.example", "null", "http://grafana.example", "http://127.0.0.1:8080"] {
            check(&format!("Host: 127.0.0.1:9200\r\nOrigin: {foreign}"), Err(GuardError::ForeignOrigin));
        }
        for allowed in ["http://grafana.example:3000", "HTTP://Grafana.Example:3000", "http://127.0.0.1:9200"]
        {
            check(&format!("Host: 127.0.0.1:9200\r\nOrigin: {allowed}"), Ok(()));
        }
        check("Host: evil.example:9200\r\nOrigin: http://evil.example:9200", Err(GuardError::ForeignHost));
        // Without a host, no page is the server's own.
        check("Host:\r\nOrigin: http://", Err(GuardError::ForeignOrigin));
        let any = RequestGuard::new(Vec::new(), vec!["*".to_owned()]);
        assert_eq!(any.check(request("Host: a\r\nOrigin: https://evil.example").request()), Ok(()));
    }

    #[test]
    fn domains_of_the_resolver_are_own_domains() {
        let text =
            "nameserver 192.0.2.1\nsearch Lab.example. lan corp.example\n#search evil.example\ndomain a.b\n";
        assert_eq!(search_domains(text), [".lab.example", ".corp.example", ".a.b"]);
    }
}
