//! The Elasticsearch dialect (7.17) over HTTP, as far as senders of events and those who look them up speak it.
//!
//! `route` says what a path means, `users` who may ask; `documents` and `bulk` store, `search` finds, `indices` tells
//! what there is. What is not supported is refused in Elasticsearch's error form, never answered wrongly. Runs on the
//! connections' threads; a document is acknowledged when the store has made it durable.

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
pub use failure::Failure;
pub use users::{Invalid, User, Users, hash_password};

use self::body::Inflating;
use self::parameters::{Look, Parameters};
use self::route::{Action, Route, route};
use crate::counters::Counters;
use crate::http::parse::Limits;
use crate::http::{Handler, Method, Request, Response, ServerConfig};
use crate::iri::number::Families;
use crate::iri::store::Store;

/// The version that is spoken: clients choose their requests by it.
const VERSION: &str = "7.17.29";

const JSON: &str = "application/json; charset=UTF-8";
const TEXT: &str = "text/plain; charset=UTF-8";

/// What the cluster, which is one process, is called.
const NAME: &str = "lea";

/// The handler of the dialect.
pub struct Elastic {
    store: Arc<dyn Store>,
    /// None: a number is asked for as it is written.
    families: Option<Arc<Families>>,
    users: Users,
    counters: Arc<Counters>,
    inflating: Inflating,
}

/// What a request came to, before it is laid out.
struct Reply {
    status: u16,
    content_type: &'static str,
    body: Vec<u8>,
    location: Option<String>,
}

impl Reply {
    fn json(status: u16, body: &impl Serialize) -> Reply {
        // Only a map with keys that are no strings could fail, and none of ours has such.
        let body = serde_json::to_vec(body).unwrap_or_default();
        Reply { status, content_type: JSON, body, location: None }
    }

    fn text(body: String) -> Reply {
        Reply { status: 200, content_type: TEXT, body: body.into_bytes(), location: None }
    }
}

/// A request with its route and parameters.
struct Asked<'a> {
    request: &'a Request,
    route: Route<'a>,
    parameters: Parameters<'a>,
}

impl Asked<'_> {
    /// The names and patterns of indices; empty: all.
    fn indices(&self) -> Result<Vec<String>, Failure> {
        indices::names(self.route.index.as_deref())
    }
}

impl Elastic {
    /// A handler on a store. `families` none: `--number-match exact`.
    pub fn new(
        store: Arc<dyn Store>,
        families: Option<Arc<Families>>,
        users: Users,
        counters: Arc<Counters>,
    ) -> Elastic {
        Elastic { store, families, users, counters, inflating: Inflating::default() }
    }

    /// The bounds of a server with this handler. Bodies and answers have 64 MiB together, what gzip bodies unpack to
    /// has [`BODY_BYTES_MAX`] more.
    pub fn server_config() -> ServerConfig {
        ServerConfig {
            name: "events",
            limits: Limits { body_bytes_max: BODY_BYTES_MAX as u64, ..Limits::default() },
            bodies_bytes_max: 64 << 20,
            // A bulk of the largest size over a slow line.
            request_timeout_ms: 60_000,
            // Shippers keep connections for later, and proxies' clients do not notice that one was closed.
            idle_timeout_ms: 300_000,
            // A question's groups and a body's levels are read by functions that call themselves.
            stack_bytes: 1 << 20,
            ..ServerConfig::default()
        }
    }

    fn answer(&self, request: &Request) -> (Look, Result<Reply, Failure>) {
        let parameters = match Parameters::of(request) {
            Ok(parameters) => parameters,
            Err(failure) => return (Look::default(), Err(failure)),
        };
        let look = match parameters.look() {
            Ok(look) => look,
            Err(failure) => return (Look::default(), Err(failure)),
        };
        let reply = route(request.path()).and_then(|route| self.act(&Asked { request, route, parameters }));
        (look, reply)
    }

    fn act(&self, asked: &Asked<'_>) -> Result<Reply, Failure> {
        let reads = matches!(asked.request.method(), Method::Get | Method::Head);
        if let Some(about) = asked.route.action.about().filter(|_| reads)
            && let Some(told) = self.told(about, asked)?
        {
            return Ok(told);
        }
        match asked.route.action {
            Action::Info => indices::info(asked),
            Action::Search => self.search(asked),
            Action::Count => self.count(asked),
            Action::Bulk => self.bulk(asked),
            Action::Document | Action::Source if reads => self.get(asked),
            Action::New | Action::Document | Action::Create => self.write_one(asked),
            Action::Source => self.get(asked),
            Action::Refresh => self.refresh(asked),
            Action::Mapping if reads => self.mapping(asked),
            Action::Mapping => self.put_mapping(asked),
            Action::Health => self.health(asked),
            Action::CatIndices => self.cat_indices(asked),
            Action::CatHealth => self.cat_health(asked),
            Action::Index if reads => self.index(asked),
            Action::Index => self.create_index(asked),
        }
    }

    fn finish(&self, look: &Look, reply: Result<Reply, Failure>) -> Response {
        let mut reply = reply.unwrap_or_else(|failure| {
            if failure.status() == 429 {
                self.counters.events_refused_full_total.one();
            }
            Reply::json(failure.status(), &failure)
        });
        if reply.content_type == JSON {
            if !look.sieve.is_empty() {
                reply.body = look.sieve.sift(&reply.body);
            }
            if look.pretty {
                reply.body = pretty::pretty(&reply.body);
            }
        }
        let response = Response::new(reply.status, reply.content_type, reply.body).with(PRODUCT.0, PRODUCT.1);
        match reply.location {
            Some(location) => response.with("Location", location),
            None => response,
        }
    }
}

/// Newer clients refuse to talk to what does not say this.
const PRODUCT: (&str, &str) = ("X-Elastic-Product", "Elasticsearch");

impl Handler for Elastic {
    /// The users were asked for in `refuse`, which the server calls first.
    fn handle(&self, request: &Request) -> Response {
        let (look, reply) = self.answer(request);
        self.finish(&look, reply)
    }

    /// Asks for a user and password, and for a method that goes with the path, before the body is taken.
    fn refuse(&self, request: &Request) -> Option<Response> {
        let refused = self.users.check(request);
        if let Err(failure) = refused {
            if failure.status() == 401 {
                self.counters.events_refused_user_total.one();
            }
            let challenge = failure.status() == 401;
            let response = self.finish(&Look::default(), Err(failure));
            return Some(match challenge {
                true => response.with("WWW-Authenticate", users::CHALLENGE),
                false => response,
            });
        }
        let Ok(route) = route(request.path()) else { return None };
        let methods = route.action.methods();
        (!methods.contains(&request.method())).then(|| wrong_method(request, methods))
    }
}

/// 405 in Elasticsearch's form, which is another one than that of errors; for OPTIONS 200.
fn wrong_method(request: &Request, methods: &[Method]) -> Response {
    let names = || methods.iter().map(|method| method_name(*method));
    let allow = names().collect::<Vec<_>>().join(",");
    let response = if request.method() == Method::Options {
        Response::new(200, TEXT, "")
    } else {
        let (path, method) = (target(request), method_name(request.method()));
        let list = names().collect::<Vec<_>>().join(", ");
        let error =
            format!("Incorrect HTTP method for uri [{path}] and method [{method}], allowed: [{list}]");
        Response::new(405, JSON, serde_json::json!({ "error": error, "status": 405 }).to_string())
    };
    response.with(PRODUCT.0, PRODUCT.1).with("Allow", allow)
}

/// Path and query, as they were sent.
fn target(request: &Request) -> Cow<'_, str> {
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

/// The uuid of a name: 22 characters that stay the same, as Elasticsearch's are.
fn uuid(name: &str) -> String {
    let digest = Sha256::digest(name.as_bytes());
    let mut text = String::new();
    for byte in &digest[..11] {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// What one store says of its shards.
#[derive(Serialize)]
struct Shards {
    total: u8,
    successful: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<u8>,
    failed: u8,
}

impl Shards {
    /// Of a write.
    const WRITTEN: Shards = Shards { total: 1, successful: 1, skipped: None, failed: 0 };
    /// Of a question.
    const ASKED: Shards = Shards { total: 1, successful: 1, skipped: Some(0), failed: 0 };
}

#[cfg(test)]
mod tests;
