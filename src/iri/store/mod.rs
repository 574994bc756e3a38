//! What keeps documents and answers questions: a trait, so that a folder and a cluster can stand behind the same edge.

pub mod dead_letters;
pub mod elastic;
pub mod sqlite;

use super::document::Document;
use super::mapping::Mapping;
use super::query::{Found, Hit, Query, Search};

/// The hidden field that each document has: its event's time, else when it came.
pub const EVENT_TIME: &str = "_event_time";

/// A store. Called by many threads at once.
pub trait Store: Send + Sync {
    /// Writes documents; an answer each, in their order. When this returns they are durable. Blocks while they wait
    /// to be committed together with others; does not wait for room in the queue ([`StoreError::Full`]: nothing of
    /// the call is written).
    fn write(&self, documents: Vec<Document>) -> Result<Vec<Result<Written, Refused>>, StoreError>;

    /// The document of that id.
    fn get(&self, index: &str, id: &str) -> Result<Option<Hit>, StoreError>;

    /// How many documents answer a question; `indices` as in [`Search`].
    fn count(&self, indices: &[String], ignore_unavailable: bool, query: &Query) -> Result<u64, StoreError>;

    /// Searches.
    fn search(&self, search: &Search) -> Result<Found, StoreError>;

    /// The indices whose names these are, or fit; empty: all.
    fn indices(&self, indices: &[String]) -> Result<Vec<Index>, StoreError>;

    /// Makes an index, with fields of known types. False: it is there already, and stays as it is.
    fn create_index(&self, index: &str, mapping: &Mapping) -> Result<bool, StoreError>;

    /// Adds fields to an index. The type of a field that is there cannot change ([`StoreError::Invalid`]).
    fn put_mapping(&self, index: &str, mapping: &Mapping) -> Result<(), StoreError>;

    /// From `at` on nothing that a stop can leave for the next start is waited for.
    fn give_up_at(&self, at: std::time::Instant) {
        let _ = at;
    }

    /// The cluster that stands behind it, where one does.
    fn remote(&self) -> Option<&dyn Remote> {
        None
    }
}

/// What a cluster has in its own way. It keeps no types, and tells aggregations itself ([`super::query::Found::told`]).
pub trait Remote {
    /// Makes sure that what was written to these indices (empty: all) before is found; waits for that no longer than a
    /// question may take.
    fn refresh(&self, indices: &[String], ignore_unavailable: bool) -> Result<(), StoreError>;

    /// What it says of itself.
    fn tell(&self, about: About, indices: &[String], parameters: &[(&str, &str)])
    -> Result<Told, StoreError>;
}

/// What a cluster tells of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// Its indices: settings, mappings, aliases.
    Index,
    /// Mappings.
    Mapping,
    /// Whether it is well.
    Health,
    /// The same in a line.
    CatHealth,
    /// A line an index.
    CatIndices,
}

/// What a cluster has told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The status code.
    pub status: u16,
    /// JSON, else text.
    pub is_json: bool,
    /// The body.
    pub body: Vec<u8>,
}

/// A document that is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its id, which the store may have made.
    pub id: String,
    /// How often the id was written; from 1.
    pub version: u64,
    /// Its place among all writes of the store, from 0.
    pub sequence: u64,
    /// False: it took the place of another.
    pub created: bool,
}

/// A document that cannot be stored, however often it is sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It was to be created, and the id is there.
    #[error("[{id}]: version conflict, document already exists (current version [{version}])")]
    Exists {
        /// The id.
        id: String,
        /// The version that is there.
        version: u64,
    },
    /// It is no JSON object, or a value does not fit its field's type.
    #[error("{0}")]
    Unfit(String),
}

/// An index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// Its name.
    pub name: String,
    /// Its documents.
    pub documents: u64,
    /// What it takes on the disk, as far as that can be told from other indices.
    pub bytes: u64,
    /// Its fields.
    pub mapping: Mapping,
}

/// Why a store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The queue is full: try again later.
    #[error("the store's queue is full")]
    Full,
    /// An index that was named is not there.
    #[error("no such index [{0}]")]
    NoIndex(String),
    /// The question cannot be answered as it stands (a field of another type, a pattern that fits too much).
    #[error("{0}")]
    Invalid(String),
    /// It took longer than a question may.
    #[error("the search took longer than {0} ms")]
    TimedOut(u64),
    /// The answer has more bytes than one may have.
    #[error("Data too large: the answer has more than [{0}] bytes; ask for fewer hits, or for less of each")]
    TooLarge(usize),
    /// Answers that are being read take all the memory that there is for them: try again later.
    #[error("answers to other questions take all the memory that there is for them")]
    Busy,
    /// The cluster does not answer, or not as a whole: try again later.
    #[error("the cluster is away or unwell: {0}")]
    Away(String),
    /// The cluster refuses the question, in its own form, which is for whoever asked.
    #[error("{cause}")]
    Answered {
        /// The status code.
        status: u16,
        /// The reason alone.
        cause: String,
        /// JSON.
        body: Vec<u8>,
    },
    /// The store is stopping.
    #[error("the store is stopping")]
    Stopping,
    /// The disk, or the other side.
    #[error("cannot {act}: {cause}")]
    Failed {
        /// What was tried.
        act: &'static str,
        /// Why not.
        cause: String,
    },
}
