//! The subset of Elasticsearch's HTTP API (7.17) that senders of events and their clients use.
//!
//! `handler` authenticates a request, finds its endpoint with `route` and dispatches it. `documents` and `bulk` write,
//! `search` and `multi_search` search, `indices` and `cat` describe indices, `node` describes the service. `response` builds the
//! response. Data flows one way: a request becomes calls of the store, and their results are rendered without a further call.
//! Runs on the threads of the HTTP connections.
//!
//! Invariants: a request that is not supported gets an error in Elasticsearch's form, never a wrong answer. A document is
//! acknowledged only after the store has made it durable.

mod aliases;
mod api;
mod body;
mod bulk;
mod cat;
mod content_type;
mod documents;
mod endpoint;
mod error;
mod field_filter;
mod fields;
mod forward;
mod handler;
mod indices;
mod metadata;
mod multi_get;
mod multi_search;
mod names;
mod node;
mod parameters;
mod pretty;
mod response;
mod rights;
mod route;
mod scroll;
mod search;
mod settings;
mod templates;
mod tools;

pub use api::EsApi;
pub use body::BODY_BYTES_MAX;
pub use bulk::ACTIONS_MAX;
pub use rights::Rights;

#[cfg(test)]
mod tests;
