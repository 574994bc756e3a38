//! The trait of an event store, which the embedded store and the cluster store implement.

use std::any::Any;

use crate::search::document::Document;
use crate::search::mapping::Mapping;
use crate::search::query::aggregations::BUCKETS_MAX;
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

    /// Returns the current state of the store, which later writes do not change. A search in it finds the same documents as
    /// long as it is held.
    fn pin(&self) -> Result<PinnedState, StoreError> {
        Err(StoreError::Invalid("a cluster keeps no state for scrolls; use search_after".to_owned()))
    }

    /// Searches in a state that this store returned.
    fn search_pinned(&self, state: &PinnedState, search: &Search) -> Result<SearchResult, StoreError> {
        let _ = state;
        self.search(search)
    }

    /// Returns the indices with these names or patterns; empty: all.
    fn indices(&self, indices: &[String]) -> Result<Vec<IndexInfo>, StoreError>;

    /// Returns true for the service's own indices, whose events are evidence.
    fn is_own_index(&self, index: &str) -> bool {
        let _ = index;
        false
    }

    /// Returns true if the index exists.
    fn has_index(&self, index: &str) -> Result<bool, StoreError> {
        match self.indices(&[index.to_owned()]) {
            Ok(found) => Ok(!found.is_empty()),
            Err(StoreError::IndexNotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Creates an index with this mapping. Returns false if the index exists; it is not changed then.
    fn create_index(&self, index: &str, mapping: &Mapping) -> Result<bool, StoreError>;

    /// Adds fields to an index. An existing field cannot change its type ([`StoreError::Invalid`]).
    fn put_mapping(&self, index: &str, mapping: &Mapping) -> Result<(), StoreError>;

    /// Deletes the events of these indices (empty: all) whose time is before `before_ms`, or only counts them. Returns their
    /// numbers by index.
    fn purge(
        &self,
        indices: &[String],
        before_ms: i64,
        dry_run: bool,
    ) -> Result<Vec<(String, u64)>, StoreError> {
        let _ = (indices, before_ms, dry_run);
        Err(StoreError::Invalid("this store does not delete single events".to_owned()))
    }

    /// Deletes an index with all its events. Returns their number.
    fn delete_index(&self, index: &str) -> Result<u64, StoreError> {
        Err(StoreError::Invalid(format!("this store does not delete the index [{index}]")))
    }

    /// From this time on, waits for nothing that can be completed after the next start.
    fn set_shutdown_deadline(&self, at: std::time::Instant) {
        let _ = at;
    }

    /// The cluster behind this store, if there is one.
    fn cluster_backend(&self) -> Option<&dyn ClusterBackend> {
        None
    }
}

/// A state of a store. What it consists of is the store's own matter.
pub struct PinnedState(pub(crate) Box<dyn Any + Send + Sync>);

/// Operations that only a cluster supports. Such a store has no local mappings.
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

    /// Forwards a request about templates, aliases and settings. `target` is the path and the query, percent-encoded.
    fn forward(&self, method: &str, target: &str, body: &[u8]) -> Result<RawResponse, StoreError>;
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
    /// An aggregation would return more buckets than a request may have.
    #[error(
        "Trying to create too many buckets. Must be less than or equal to: [{BUCKETS_MAX}] but this number of buckets \
         was exceeded. This limit can be set by changing the [search.max_buckets] cluster level setting."
    )]
    TooManyBuckets,
    /// The search timeout has passed.
    #[error("the search took longer than the timeout of {0} ms")]
    TimedOut(u64),
    /// The response exceeds the maximum size.
    #[error("Data too large: the response has more than [{0}] bytes; request fewer hits, or fewer fields")]
    TooLarge(usize),
    /// The request needs more memory than it, or all requests together, may use.
    #[error(
        "[{breaker}] Data too large, data for this request would be [{wanted}b], which is larger than the limit of [{limit}b]"
    )]
    MemoryExceeded {
        /// `request`: the limit of one request. `parent`: that of all requests; a retry can succeed.
        breaker: &'static str,
        wanted: usize,
        limit: usize,
    },
    /// The client of the request has closed the connection.
    #[error("task cancelled [channel closed]")]
    ClientGone,
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
