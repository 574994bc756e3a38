//! Accepts records: decodes each one into the coalescing buffer of its stream, or into a buffer of its own.
//! Runs in the thread that polls the records.

use std::io;

use super::open::{RecordInfo, extend_head, is_resend};
use super::{Ledger, PartitionId};
use crate::cc::vault::StreamStart;
use crate::cc::vault::manifest::EndReason;
use crate::cc::vault::pool::{Buffer, BufferPool, BufferSize};
use crate::cc::vault::write_coalescer::COALESCING_STREAMS_MAX;
use crate::cc::wire::chunk::{Chunk, ChunkData, ChunkError};

/// Result of accepting a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// The bytes are on their way to the file.
    New,
    /// The record was accepted before.
    Duplicate,
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
    /// Accepts a record with the next bytes of its stream.
    pub(crate) fn accept(
        &mut self,
        partition: PartitionId,
        offset: i64,
        chunk: &Chunk<'_>,
    ) -> std::result::Result<Accepted, AcceptError> {
        if offset < self.partitions[partition.0].state.next_offset {
            return Ok(Accepted::Duplicate);
        }
        if !self.accept_fast(partition, offset, chunk)? {
            let taken = self.accept_slow(partition, offset, chunk);
            self.has_failed |= matches!(taken, Err(AcceptError::Failed(_)));
            taken?;
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
        self.start_read_range(partition, offset);
        let Some(open) = self.streams.get_mut(chunk.name.as_bytes()) else { return Ok(false) };
        let Some(room) = open.coalescer.spare_space(chunk.data.decoded_bytes_max()) else { return Ok(false) };
        let bytes = chunk.data.decode(room)?;
        if is_resend(&open.head, open.received_bytes, &room[..bytes]) {
            return Ok(false);
        }
        extend_head(&mut open.head, open.received_bytes, &room[..bytes]);
        let came = RecordInfo::new(offset, self.checkpoints_started, &room[..bytes]);
        open.coalescer.advance(bytes);
        self.accepted_bytes += bytes as u64;
        open.add_record(&self.partitions[partition.0].state, came);
        Ok(true)
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
        let content = RecordContent::of(&chunk.data, self.vault.pool())?;
        self.ensure_open(name, content.bytes())?;
        if self.coalescing >= COALESCING_STREAMS_MAX {
            self.flush_coalesced()?;
        }
        let open = self.streams.get_mut(name).ok_or_else(|| io::Error::other("the stream is not open"))?;
        extend_head(&mut open.head, open.received_bytes, content.bytes());
        self.coalescing -= usize::from(open.flush_coalesced()?);
        self.accepted_bytes += content.bytes().len() as u64;
        let came = RecordInfo::new(offset, self.checkpoints_started, content.bytes());
        open.add_record(&self.partitions[partition.0].state, came);
        match content {
            RecordContent::Buffer(buffer, bytes) => match open.coalescer.start(buffer, bytes) {
                None => self.coalescing += 1,
                Some(buffer) => open.feed(buffer, bytes)?,
            },
            RecordContent::Large(bytes) => {
                for piece in bytes.chunks(BufferSize::Large.bytes()) {
                    let mut buffer = self.vault.pool().take(BufferSize::Large);
                    buffer[..piece.len()].copy_from_slice(piece);
                    open.feed(buffer, piece.len())?;
                }
            }
        }
        Ok(())
    }

    /// Opens the stream unless it is open and `data` continues it.
    fn ensure_open(&mut self, name: &[u8], data: &[u8]) -> io::Result<()> {
        let head = match self.streams.peek(name) {
            None => {
                self.evict_idle()?;
                None
            }
            Some(open) if is_resend(&open.head, open.received_bytes, data) => {
                self.finish_checkpoint()?;
                if let Some(open) = self.streams.pop(name) {
                    open.finish(EndReason::Eof, &self.partitions);
                }
                Some(StreamStart::NewCapture)
            }
            Some(_) => return Ok(()),
        };
        let open = self.open_stream(name, data, head)?;
        self.streams.put(name.into(), open);
        self.streams_started += 1;
        Ok(())
    }

    /// Flushes all coalesced bytes. Called every few milliseconds, so that readers of the files see recent
    /// data.
    pub(crate) fn flush_coalesced(&mut self) -> io::Result<()> {
        for (_, open) in self.streams.iter_mut() {
            if self.coalescing == 0 {
                break;
            }
            // Counted first, because nothing more is flushed after an error.
            self.coalescing -= usize::from(!open.coalescer.is_empty());
            open.flush_coalesced().inspect_err(|_| self.has_failed = true)?;
        }
        Ok(())
    }

    /// Returns whether any bytes are coalesced.
    pub(crate) fn is_coalescing(&self) -> bool {
        self.coalescing > 0
    }
}

/// Decoded content of a record.
enum RecordContent {
    /// The first bytes of a buffer.
    Buffer(Buffer, usize),
    /// Content larger than any pool buffer.
    Large(Vec<u8>),
}

impl RecordContent {
    fn of(data: &ChunkData<'_>, pool: &BufferPool) -> std::result::Result<RecordContent, ChunkError> {
        let size = match data.decoded_bytes_max() {
            bytes if bytes <= BufferSize::Small.bytes() => BufferSize::Small,
            bytes if bytes <= BufferSize::Large.bytes() => BufferSize::Large,
            bytes => {
                let mut large = vec![0; bytes];
                let bytes = data.decode(&mut large)?;
                large.truncate(bytes);
                return Ok(RecordContent::Large(large));
            }
        };
        let mut buffer = pool.take(size);
        let bytes = data.decode(&mut buffer)?;
        Ok(RecordContent::Buffer(buffer, bytes))
    }

    fn bytes(&self) -> &[u8] {
        match self {
            RecordContent::Buffer(buffer, bytes) => &buffer[..*bytes],
            RecordContent::Large(bytes) => bytes,
        }
    }
}
