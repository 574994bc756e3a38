//! The trait of an event store, which the embedded store and the cluster store implement.

use crate::search::document::Document;
use crate::search::mapping::Mapping;
use crate::search::query::{Hit, Query, Search, SearchResult};

/// Hidden field of each document: the time of the event, or its arrival if it has none.
pub const EVENT_TIME: &str = "_event_time";

/// An event store. Called by many threads at once.
pub trait Store: Send + Sync {
    /// Writes documents and returns one result for each, in order. The documents are durable when this
    /// returns. Blocks during the group commit, but not while the queue is full ([`StoreError::Full`]: none
    /// of the documents is written).
    fn write(&self, documents: Vec<Document>)
    -> Result<Vec<Result<WriteReceipt, WriteRejected>>, StoreError>;

    fn get(&self, index: &str, id: &str) -> Result<Option<Hit>, StoreError>;

    /// Counts the matching documents; `indices` as in [`Search`].
    fn count(&self, indices: &[String], ignore_unavailable: bool, query: &Query) -> Result<u64, StoreError>;

    fn search(&self, search: &Search) -> Result<SearchResult, StoreError>;

    /// Returns the indices with these names or patterns; empty: all.
    fn indices(&self, indices: &[String]) -> Result<Vec<IndexInfo>, StoreError>;

    /// Creates an index with this mapping. Returns false if the index exists; it is not changed then.
    fn create_index(&self, index: &str, mapping: &Mapping) -> Result<bool, StoreError>;

    /// Adds fields to an index. An existing field cannot change its type ([`StoreError::Invalid`]).
    fn put_mapping(&self, index: &str, mapping: &Mapping) -> Result<(), StoreError>;

    /// From this time on, waits for nothing that can be completed after the next start.
    fn set_shutdown_deadline(&self, at: std::time::Instant) {
        let _ = at;
    }

    /// The cluster behind this store, if there is one.
    fn cluster_backend(&self) -> Option<&dyn ClusterBackend> {
        None
    }
}

/// Operations that only a cluster supports. Such a store has no local mappings, and returns aggregations as
/// JSON ([`crate::search::query::SearchResult::rendered_aggregations`]).
pub trait ClusterBackend {
    /// Makes earlier writes to these indices (empty: all) visible to searches. Waits no longer than the
    /// search timeout.
    fn refresh(&self, indices: &[String], ignore_unavailable: bool) -> Result<(), StoreError>;

    /// Forwards a GET request to an administrative API.
    fn forward_get(
        &self,
        about: AdminApi,
        indices: &[String],
        parameters: &[(&str, &str)],
    ) -> Result<RawResponse, StoreError>;
}

/// An administrative API of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminApi {
    /// `GET INDEX`: settings, mappings, aliases.
    Index,
    Mapping,
    Health,
    CatHealth,
    CatIndices,
}

/// A response of the cluster, unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawResponse {
    pub status: u16,
    /// True for JSON, false for plain text.
    pub is_json: bool,
    pub body: Vec<u8>,
}

/// A document that has been stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteReceipt {
    /// The document's id, which the store may have generated.
    pub id: String,
    /// Number of times that this id was written; at least 1.
    pub version: u64,
    /// Number of writes to the store before this one.
    pub seq_no: u64,
    /// False: it replaced another document.
    pub created: bool,
}

/// A permanent failure to store a document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteRejected {
    /// The mode was [`crate::search::document::WriteMode::Create`], and the id exists.
    #[error("[{id}]: version conflict, document already exists (current version [{version}])")]
    AlreadyExists {
        id: String,
        /// The existing document's version.
        version: u64,
    },
    /// Not a JSON object, or a value does not fit its field's type.
    #[error("{0}")]
    Invalid(String),
}

/// An index as listed by a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexInfo {
    pub name: String,
    /// Number of documents.
    pub documents: u64,
    /// Approximate size on disk.
    pub bytes: u64,
    pub mapping: Mapping,
}

/// The error type of store operations.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The queue is full; a retry can succeed.
    #[error("the store's queue is full, try again later")]
    Full,
    #[error("no such index [{0}]")]
    IndexNotFound(String),
    /// The query does not fit the mapping, or matches too many terms.
    #[error("{0}")]
    Invalid(String),
    /// The search timeout has passed.
    #[error("the search took longer than the timeout of {0} ms")]
    TimedOut(u64),
    /// The response exceeds the maximum size.
    #[error("Data too large: the response has more than [{0}] bytes; request fewer hits, or fewer fields")]
    TooLarge(usize),
    /// Responses being read use all the memory reserved for them; a retry can succeed.
    #[error("responses to other requests use all the memory reserved for them, try again later")]
    Busy,
    /// The cluster does not respond, or only a part of it does; a retry can succeed.
    #[error("the cluster is unreachable or incomplete: {0}")]
    Unreachable(String),
    /// The cluster rejected the request; `body` is its response, for the client.
    #[error("{cause}")]
    Rejected {
        status: u16,
        cause: String,
        /// JSON in Elasticsearch's form.
        body: Vec<u8>,
    },
    #[error("the store is shutting down")]
    ShuttingDown,
    /// The disk or the cluster failed.
    #[error("cannot {act}: {cause}")]
    Failed { act: &'static str, cause: String },
}
