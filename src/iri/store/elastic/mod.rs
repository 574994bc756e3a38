//! The cluster as the store: Elasticsearch 7.17 to 9, OpenSearch 2 and 3.
//!
//! Reading (`ask`, in the dialect of `dsl`) asks the cluster; writing appends to a queue on the disk, which a thread of
//! its own ships.
//!
//! What stands in the cluster, for both sides: events of NAME are in a daily index `NAME-YYYY.MM.DD`, and the alias NAME
//! has all of them. Each source is the sender's, byte by byte, with one member more at its end:
//! `"lea":{"time":"2026-11-22T10:11:12.345Z","number":{"destNum":"+972598294121"}}`. `lea.time` (a date) is there
//! always: the event's own time, else when it arrived. `lea.number.FIELD` (a keyword) is the number that the text in FIELD
//! means, and is there where it means one; FIELD has its path's dots replaced by `_`.

mod ask;
pub mod client;
pub mod dsl;

use std::sync::Arc;
use std::time::Duration;

pub use client::{Answer, Body, Client, ClientError, Product, Server};

use crate::iri::number::Families;

/// The object that is added to each source.
pub const ADDED: &str = "lea";

/// The date that each event has.
pub const ADDED_TIME: &str = "lea.time";

/// What stands before a field's name where its number is.
pub const ADDED_NUMBER: &str = "lea.number";

/// What both sides need.
pub(super) struct Cluster {
    /// Who is asked.
    pub client: Client,
    /// What a question may take.
    pub search_timeout: Duration,
    /// None: numbers are the text that they are.
    pub families: Option<Arc<Families>>,
}

/// A cluster as the store.
pub struct ElasticStore {
    #[allow(dead_code, reason = "the first who asks takes this away")]
    cluster: Arc<Cluster>,
}
