//! Search: the query language, the event stores and the clients of remote stores.
//!
//! `query` parses queries, `analysis` splits text into tokens, `mapping` and `date` define the types of fields. `store` is
//! the trait of a store, which `sqlite` (the embedded store) and `cluster` (Elasticsearch or OpenSearch) implement.
//! `budget` limits the memory and the time of a request. `source` opens a directory or a URL for the commands that query or load events.

pub mod analysis;
pub mod budget;
pub mod cluster;
pub mod date;
pub mod dead_letters;
pub mod document;
pub mod event_fields;
pub(crate) mod export;
pub mod geo;
pub(crate) mod glob;
pub(crate) mod hit_fields;
pub mod index_templates;
pub(crate) mod mapping;
mod mark;
pub mod query;
pub(crate) mod regexp;
pub(crate) mod remote;
pub(crate) mod source;
pub mod sqlite;
pub mod store;
