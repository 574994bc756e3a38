//! The subset of Elasticsearch's HTTP API (7.17) that senders of events and their clients use.
//!
//! `users` authenticates a request and `route` finds its endpoint. `documents` and `bulk` write, `search` searches,
//! `indices` describes indices. Runs on the threads of the HTTP connections.
//!
//! Invariants: a request that is not supported gets an error in Elasticsearch's form, never a wrong answer. A document is
//! acknowledged only after the store has made it durable.

mod aggregations;
mod body;
mod bulk;
mod dates;
mod documents;
mod failure;
mod indices;
mod parameters;
mod pretty;
mod route;
mod search;
mod sieve;
mod users;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use serde::Serialize;
use sha2::{Digest, Sha256};

pub use body::BODY_BYTES_MAX;
pub use bulk::ACTIONS_MAX;
pub use failure::ApiError;
pub use users::{InvalidUser, User, Users, hash_password};

use crate::es_api::body::DecompressionBudget;
use crate::es_api::parameters::{Parameters, ResponseFormat};
use crate::es_api::route::{Endpoint, Route, route};
use crate::http::parse::RequestLimits;
use crate::http::{Handler, HttpServerConfig, Method, Request, Response};
use crate::iri::ingest::event_sink::EventSink;
use crate::phone::PhoneNumberNormalizer;
use crate::runtime::metrics::Metrics;
use crate::search::store::Store;

/// The Elasticsearch version that clients see. They choose their requests by it.
const VERSION: &str = "7.17.29";

const JSON: &str = "application/json; charset=UTF-8";
const TEXT: &str = "text/plain; charset=UTF-8";

/// The name of the node and of the cluster, which is one process.
const NAME: &str = "lea";

/// The HTTP handler of the API.
pub struct EsApi {
    store: Arc<dyn Store>,
    /// Rewrites phone numbers in queries to canonical numbers. `None`: numbers match only as they are written.
    normalizer: Option<Arc<PhoneNumberNormalizer>>,
    users: Users,
    metrics: Arc<Metrics>,
    /// Keeps documents that the store rejects for good.
    dead_letters: Option<Arc<EventSink>>,
    decompression: DecompressionBudget,
}

/// A response before `pretty` and `filter_path` are applied.
struct Reply {
    status: u16,
    content_type: &'static str,
    body: Vec<u8>,
    location: Option<String>,
}

impl Reply {
    fn json(status: u16, body: &impl Serialize) -> Reply {
        // Serializing fails only for a map with keys that are not strings, and no response has one.
        let body = serde_json::to_vec(body).unwrap_or_default();
        Reply { status, content_type: JSON, body, location: None }
    }

    fn text(body: String) -> Reply {
        Reply { status: 200, content_type: TEXT, body: body.into_bytes(), location: None }
    }
}

/// A request with its route and parameters.
struct RoutedRequest<'a> {
    request: &'a Request,
    route: Route<'a>,
    parameters: Parameters<'a>,
}

impl RoutedRequest<'_> {
    /// The names and patterns of the path's indices. An empty list means all indices.
    fn indices(&self) -> Result<Vec<String>, ApiError> {
        indices::parse_index_names(self.route.index.as_deref())
    }
}

impl EsApi {
    /// Creates a handler for a store. `families` is `None` with `--number-match exact`.
    pub fn new(
        store: Arc<dyn Store>,
        families: Option<Arc<PhoneNumberNormalizer>>,
        users: Users,
        metrics: Arc<Metrics>,
    ) -> EsApi {
        EsApi {
            store,
            normalizer: families,
            users,
            metrics,
            dead_letters: None,
            decompression: DecompressionBudget::default(),
        }
    }

    /// Sets the sink for dead letters.
    pub fn with_dead_letters(self, intake: Arc<EventSink>) -> EsApi {
        EsApi { dead_letters: Some(intake), ..self }
    }

    /// Returns the limits of a server with this handler. All bodies and responses share 64 MiB; decompressed bodies have
    /// a budget of their own.
    pub fn server_config() -> HttpServerConfig {
        HttpServerConfig {
            name: "events",
            limits: RequestLimits { body_bytes_max: BODY_BYTES_MAX as u64, ..RequestLimits::default() },
            bodies_bytes_max: 64 << 20,
            // Enough for the largest bulk over a slow connection.
            request_timeout_ms: 60_000,
            // Shippers keep idle connections open, and the HTTP clients of proxies do not notice a close.
            idle_timeout_ms: 300_000,
            // The groups of a query and the levels of a body are parsed recursively.
            stack_bytes: 1 << 20,
            ..HttpServerConfig::default()
        }
    }

    fn execute(&self, request: &Request) -> (ResponseFormat, Result<Reply, ApiError>) {
        let parameters = match Parameters::from_request(request) {
            Ok(parameters) => parameters,
            Err(failure) => return (ResponseFormat::default(), Err(failure)),
        };
        let look = match parameters.response_format() {
            Ok(look) => look,
            Err(failure) => return (ResponseFormat::default(), Err(failure)),
        };
        let reply = route(request.path())
            .and_then(|route| self.dispatch(&RoutedRequest { request, route, parameters }));
        (look, reply)
    }

    fn dispatch(&self, asked: &RoutedRequest<'_>) -> Result<Reply, ApiError> {
        let reads = matches!(asked.request.method(), Method::Get | Method::Head);
        if let Some(about) = asked.route.endpoint.admin_api().filter(|_| reads)
            && let Some(told) = self.forward_to_cluster(about, asked)?
        {
            return Ok(told);
        }
        match asked.route.endpoint {
            Endpoint::Info => indices::info(asked),
            Endpoint::Search => self.search(asked),
            Endpoint::Count => self.count(asked),
            Endpoint::Bulk => self.bulk(asked),
            Endpoint::Document | Endpoint::Source if reads => self.get_document(asked),
            Endpoint::New | Endpoint::Document | Endpoint::Create => self.write_document(asked),
            Endpoint::Source => self.get_document(asked),
            Endpoint::Refresh => self.refresh(asked),
            Endpoint::Mapping if reads => self.mapping(asked),
            Endpoint::Mapping => self.put_mapping(asked),
            Endpoint::Health => self.health(asked),
            Endpoint::CatIndices => self.cat_indices(asked),
            Endpoint::CatHealth => self.cat_health(asked),
            Endpoint::Index if reads => self.index(asked),
            Endpoint::Index => self.create_index(asked),
        }
    }

    fn render_response(&self, look: &ResponseFormat, reply: Result<Reply, ApiError>) -> Response {
        let mut reply = reply.unwrap_or_else(|failure| {
            if failure.status() == 429 {
                self.metrics.http_rejected_store_full.inc();
            }
            Reply::json(failure.status(), &failure)
        });
        if reply.content_type == JSON {
            if !look.filter.is_empty() {
                reply.body = look.filter.apply(&reply.body);
            }
            if look.pretty {
                reply.body = pretty::pretty(&reply.body);
            }
        }
        let response = Response::new(reply.status, reply.content_type, reply.body)
            .with_header(PRODUCT_HEADER.0, PRODUCT_HEADER.1);
        match reply.location {
            Some(location) => response.with_header("Location", location),
            None => response,
        }
    }
}

/// The header that newer clients require in every response.
const PRODUCT_HEADER: (&str, &str) = ("X-Elastic-Product", "Elasticsearch");

impl Handler for EsApi {
    /// Answers a request. `reject_early`, which the server calls before this, has authenticated the user.
    fn handle(&self, request: &Request) -> Response {
        let (look, reply) = self.execute(request);
        self.render_response(&look, reply)
    }

    /// Checks user, password and method before the body is read.
    fn reject_early(&self, request: &Request) -> Option<Response> {
        let refused = self.users.check(request);
        if let Err(failure) = refused {
            if failure.status() == 401 {
                self.metrics.http_rejected_unauthorized.inc();
            }
            let challenge = failure.status() == 401;
            let response = self.render_response(&ResponseFormat::default(), Err(failure));
            return Some(match challenge {
                true => response.with_header("WWW-Authenticate", users::CHALLENGE),
                false => response,
            });
        }
        let Ok(route) = route(request.path()) else { return None };
        let methods = route.endpoint.methods();
        (!methods.contains(&request.method())).then(|| method_not_allowed(request, methods))
    }
}

/// Returns 405 in Elasticsearch's form, which differs from that of other errors, or 200 for OPTIONS.
fn method_not_allowed(request: &Request, methods: &[Method]) -> Response {
    let names = || methods.iter().map(|method| method_name(*method));
    let allow = names().collect::<Vec<_>>().join(",");
    let response = if request.method() == Method::Options {
        Response::new(200, TEXT, "")
    } else {
        let (path, method) = (request_target(request), method_name(request.method()));
        let list = names().collect::<Vec<_>>().join(", ");
        let error =
            format!("Incorrect HTTP method for uri [{path}] and method [{method}], allowed: [{list}]");
        Response::new(405, JSON, serde_json::json!({ "error": error, "status": 405 }).to_string())
    };
    response.with_header(PRODUCT_HEADER.0, PRODUCT_HEADER.1).with_header("Allow", allow)
}

/// Returns path and query as they were sent.
fn request_target(request: &Request) -> Cow<'_, str> {
    match request.query() {
        "" => request.path().into(),
        query => format!("{}?{query}", request.path()).into(),
    }
}

fn method_name(method: Method) -> &'static str {
    match method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
        Method::Patch => "PATCH",
        Method::Options => "OPTIONS",
    }
}

/// Returns the UUID of a name: 22 characters, as in Elasticsearch, and always the same for one name.
fn stable_uuid(name: &str) -> String {
    let digest = Sha256::digest(name.as_bytes());
    let mut text = String::new();
    for byte in &digest[..11] {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The `_shards` member of a response.
#[derive(Serialize)]
struct ShardCounts {
    total: u8,
    successful: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<u8>,
    failed: u8,
}

impl ShardCounts {
    const OF_WRITE: ShardCounts = ShardCounts { total: 1, successful: 1, skipped: None, failed: 0 };
    const OF_SEARCH: ShardCounts = ShardCounts { total: 1, successful: 1, skipped: Some(0), failed: 0 };
}

#[cfg(test)]
mod tests;
