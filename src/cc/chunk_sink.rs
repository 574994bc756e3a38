//! What chunks go into that come from dumps of topics. The source reads, the sink decodes and stores; neither knows the
//! other.

use crate::Error;
use crate::cc::frame::chunk::{Chunk, Refused};
use crate::cc::frame::dump::{Letter, Position};

/// Takes chunks in the order in which they came.
pub trait ChunkSink {
    /// The next dump begins.
    fn begin(&mut self, _dump: Dump) {}

    /// Takes the next chunk of a stream. The sink decodes the data
    /// ([`Data::decode`](crate::cc::frame::chunk::Data::decode)) straight into a place of its own.
    fn take(&mut self, chunk: &Chunk<'_>, at: At<'_>) -> Result<Took, Untaken>;

    /// Keeps what cannot be used.
    fn keep(&mut self, _letter: &Letter<'_>, _at: At<'_>) -> Result<Took, Error> {
        Ok(Took::New)
    }
}

/// A dump that is read.
#[derive(Clone, Debug)]
pub struct Dump {
    /// The same for the same bytes in the same file, and for nothing else.
    pub id: String,
    /// True for dead letters: where they were in Kafka was passed before, so it says nothing about repetitions.
    pub letters: bool,
}

/// Where a record stands in Kafka.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// Topic, partition and offset, if they are known.
    pub position: Option<&'a Position<'a>>,
    /// True if another record came with this position before.
    pub again: bool,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Took {
    /// It is taken.
    New,
    /// It was taken before.
    Known,
    /// It stands before records that were taken in an earlier run, and would end up behind them: it is not taken.
    Behind,
}

/// Why a chunk was not taken.
#[derive(Debug)]
pub enum Untaken {
    /// The record cannot be used; others can.
    Refused(Refused),
    /// Nothing more is wanted: the reader of the output went away.
    Enough,
    /// Nothing more can be stored.
    Failed(Error),
}

impl From<Refused> for Untaken {
    fn from(refused: Refused) -> Untaken {
        Untaken::Refused(refused)
    }
}
