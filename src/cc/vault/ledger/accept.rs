//! Accepts records: skips duplicates, and appends the others to their streams. Runs in the thread that polls the records.

use std::io;

use super::late::LatePlace;
use super::record_trail::{self, RecordInfo};
use super::{Ledger, PartitionId};
use crate::cc::vault::StreamStart;
use crate::cc::vault::manifest::EndReason;
use crate::cc::vault::offset_set::Membership;
use crate::cc::vault::stream_table::StreamStatus;
use crate::cc::wire::chunk::{Chunk, ChunkError};

/// Result of accepting a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// The bytes are on their way to the file, or will be inserted into it.
    New,
    /// The record was accepted before.
    Duplicate,
    /// The file of the stream has later records of the partition, and the record cannot be inserted before them, so it was
    /// not stored.
    Late,
    /// It is no longer known whether the directory has the record, so it was not stored.
    Unknown,
}

/// Reason why a record was not accepted.
#[derive(Debug)]
pub(crate) enum AcceptError {
    /// The record is malformed. Nothing was changed.
    Rejected(ChunkError),
    /// A file cannot be written. The ledger accepts no more records and writes no more checkpoints.
    Failed(io::Error),
}

impl From<ChunkError> for AcceptError {
    fn from(refused: ChunkError) -> AcceptError {
        AcceptError::Rejected(refused)
    }
}

impl From<io::Error> for AcceptError {
    fn from(error: io::Error) -> AcceptError {
        AcceptError::Failed(error)
    }
}

impl Ledger {
    /// Passes a record that need not be stored: the directory has it, or cannot know whether it has. `None`: it is missing.
    pub(super) fn pass_known(&mut self, partition: PartitionId, offset: i64) -> Option<Accepted> {
        match self.lookup(partition, offset) {
            Membership::Missing => None,
            Membership::Stored => {
                self.pass_duplicate(partition, offset);
                Some(Accepted::Duplicate)
            }
            Membership::Unknown => {
                self.pass_over(partition, offset);
                Some(Accepted::Unknown)
            }
        }
    }

    /// Accepts a record with the next bytes of its stream.
    pub(crate) fn accept(
        &mut self,
        partition: PartitionId,
        offset: i64,
        chunk: &Chunk<'_>,
    ) -> std::result::Result<Accepted, AcceptError> {
        if let Some(passed) = self.pass_known(partition, offset) {
            return Ok(passed);
        }
        if self.partitions[partition.0].has_higher(offset) {
            let accepted = match self.place_late(partition, offset, chunk)? {
                LatePlace::AtEnd => None,
                LatePlace::Kept => Some(Accepted::New),
                LatePlace::Duplicate => Some(Accepted::Duplicate),
                LatePlace::Impossible => Some(Accepted::Late),
            };
            if let Some(accepted) = accepted {
                self.pass_over(partition, offset);
                return Ok(accepted);
            }
            self.has_closed_gaps = true;
        }
        if !self.accept_fast(partition, offset, chunk)? {
            let accepted = self.accept_slow(partition, offset, chunk);
            self.has_failed |= matches!(accepted, Err(AcceptError::Failed(_)));
            accepted?;
        }
        // Done last: a checkpoint during this call must not include this record.
        self.advance_past(partition, offset);
        Ok(Accepted::New)
    }

    /// The usual case: decodes a record into the coalescing buffer. Returns false if the slow path is needed.
    fn accept_fast(
        &mut self,
        partition: PartitionId,
        offset: i64,
        chunk: &Chunk<'_>,
    ) -> std::result::Result<bool, ChunkError> {
        self.connect(partition, offset);
        let record = RecordInfo { offset, checkpoint: self.checkpoints_started, at: self.clock };
        let known = &self.partitions[partition.0].state;
        self.streams.try_coalesce(chunk.name.as_bytes(), &chunk.data, |trail, writer, chunk| {
            trail.add_record(writer, known, record, chunk);
        })
    }

    /// Decodes a record into a separate buffer: the first record of a stream, a re-send, or one that does not
    /// fit into the coalescing buffer.
    fn accept_slow(
        &mut self,
        partition: PartitionId,
        offset: i64,
        chunk: &Chunk<'_>,
    ) -> std::result::Result<(), AcceptError> {
        let name = chunk.name.as_bytes();
        let content = self.streams.decode(&chunk.data)?;
        self.ensure_open(name, content.bytes())?;
        let record = RecordInfo { offset, checkpoint: self.checkpoints_started, at: self.clock };
        let known = &self.partitions[partition.0].state;
        self.streams.append(name, content, |trail, writer, chunk| {
            trail.add_record(writer, known, record, chunk);
        })?;
        Ok(())
    }

    /// Opens the stream unless it is open and `data` continues it.
    fn ensure_open(&mut self, name: &[u8], data: &[u8]) -> io::Result<()> {
        let start = match self.streams.status(name, data) {
            StreamStatus::Open => return Ok(()),
            StreamStatus::Closed => {
                self.evict_idle()?;
                None
            }
            StreamStatus::Resend => {
                self.finish_checkpoint()?;
                if let Some(stream) = self.streams.remove(name)? {
                    record_trail::finish(stream, EndReason::Eof, &self.partitions);
                }
                Some(StreamStart::NewCapture)
            }
        };
        self.open_stream(name, data, start)
    }

    /// Flushes all coalesced bytes. Called every few milliseconds, so that readers of the files see recent
    /// data.
    pub(crate) fn flush_coalesced(&mut self) -> io::Result<()> {
        self.streams.flush().inspect_err(|_| self.has_failed = true)
    }

    /// Returns whether any bytes are coalesced.
    pub(crate) fn is_coalescing(&self) -> bool {
        self.streams.is_coalescing()
    }
}
