//! Destination for chunks decoded from Kafka topic dumps. `kafka_dump` reads the dumps, a visitor decodes and
//! stores the chunks, and neither depends on the other.

use crate::Error;
use crate::cc::kafka_dump::format::{KafkaPosition, RecordDeadLetter};
use crate::cc::wire::chunk::{Chunk, ChunkError};

/// Visitor over the records of dumps, in reading order.
pub trait RecordVisitor {
    /// Starts the next dump.
    fn start_dump(&mut self, _dump: DumpInfo) {}

    /// Accepts the next chunk. The visitor decodes the data
    /// ([`ChunkData::decode`](crate::cc::wire::chunk::ChunkData::decode)) directly into its own buffer.
    fn visit_chunk(&mut self, chunk: &Chunk<'_>, at: RecordPosition<'_>) -> Result<VisitOutcome, VisitError>;

    /// Makes the effects of all records visible. Called before a wait for more input.
    fn flush(&mut self) -> Result<(), VisitError> {
        Ok(())
    }

    /// Notes that a part of the dump cannot be read, so records may be missing before the next one.
    fn note_damage(&mut self) {}

    /// Accepts a dead letter.
    fn visit_dead_letter(
        &mut self,
        _letter: &RecordDeadLetter<'_>,
        _at: RecordPosition<'_>,
    ) -> Result<VisitOutcome, Error> {
        Ok(VisitOutcome::New)
    }
}

/// Dump being read.
#[derive(Clone, Debug)]
pub struct DumpInfo {
    /// Identifier that is equal for unchanged content of the same file, and for nothing else.
    pub id: String,
    /// True for a file of dead letters. Their Kafka positions were processed before, so they do not identify
    /// duplicates.
    pub is_dead_letters: bool,
    /// True if the dump contains all records between any two of its records: it is a log segment. Other dumps may have
    /// been filtered.
    pub has_no_gaps: bool,
}

/// Position of a record, and whether it is unique.
#[derive(Clone, Copy, Debug)]
pub struct RecordPosition<'a> {
    /// Topic, partition and offset, if known.
    pub position: Option<&'a KafkaPosition<'a>>,
    /// True if a different record had this position before.
    pub is_reused: bool,
}

/// Result of visiting a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VisitOutcome {
    /// The record was stored.
    New,
    /// The record was stored before.
    Duplicate,
    /// The record belongs before records that are stored already, and cannot be inserted there, so it was not stored.
    Late,
    /// It is not known whether the record is stored already, so it was not stored.
    Unknown,
}

/// Reason why a chunk was not accepted.
#[derive(Debug)]
pub enum VisitError {
    /// The record is unusable. Others can still be visited.
    Rejected(ChunkError),
    /// The reader of the output is gone.
    StopReading,
    /// Storing failed.
    Failed(Error),
}

impl From<ChunkError> for VisitError {
    fn from(refused: ChunkError) -> VisitError {
        VisitError::Rejected(refused)
    }
}
