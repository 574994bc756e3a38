//! What chunks go into, wherever they come from: a topic or a dump of one. The source reads, the sink decodes and
//! stores; neither knows the other.

use crate::Error;
use crate::cc::frame::chunk::{Chunk, Refused};
use crate::cc::frame::dump::Position;

/// Takes chunks in the order in which they came.
pub trait ChunkSink {
    /// Takes the next chunk of a stream. `position` is where its record stands in Kafka, if that is known. The sink
    /// decodes the data ([`Data::decode`](crate::cc::frame::chunk::Data::decode)) straight into a place of its own.
    fn take(&mut self, chunk: &Chunk<'_>, position: Option<&Position<'_>>) -> Result<(), Untaken>;
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
