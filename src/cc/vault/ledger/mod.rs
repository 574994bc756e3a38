//! The ledger: stores streams that arrive as Kafka records, each record exactly once. Runs in the thread that polls
//! the records.
//!
//! - A record whose offset the directory has is a duplicate. Offsets are remembered as ranges, because dumps may lack
//!   records and brokers may have deleted some.
//! - A record that belongs between stored bytes is not appended after them. It is inserted (`late`), if that is possible.
//! - A checkpoint records what the files contain at which offsets. Offsets are committed only after their checkpoint
//!   is durable. The next start removes everything that was written after the last checkpoint (`rollback`).
//! - A Kafka stream has no end. When too many streams are open, the least recently used ones are closed, after a
//!   checkpoint includes their bytes. So are streams that got no record for some minutes.
//! - Small records are coalesced (`write_coalescer`). A checkpoint flushes them first.

mod accept;
mod checkpoint_log;
mod dead_letters;
mod dumps;
mod gaps;
mod late;
mod partition;
mod record_trail;
mod rollback;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;

use super::checkpoint::{Checkpoint, CheckpointBatch, ComparisonCheckpoint, ReadRange};
use super::insertion::{self, Insertions};
use super::manifest::{EndReason, RecordSegment, StreamSource};
use super::stream_table::{NoPeer, StreamTable};
use super::stream_writer::StreamWriter;
use super::writer::WriteJob;
use super::{PendingStream, StreamOrigin, StreamStart};
use super::{Vault, VaultInner};
use crate::capture::formats::{HEADER_BYTES_MAX, is_same_capture};
use crate::runtime::hex;
use crate::runtime::time::now_ms;
use crate::{Error, Result};

pub(crate) use accept::{AcceptError, Accepted};
pub(crate) use checkpoint_log::OffsetCommit;
pub(crate) use dead_letters::DEAD_LETTERS_FILE;
pub(crate) use partition::PartitionId;

use checkpoint_log::{LOG_BYTES_MIN, PendingCheckpoint};
use dead_letters::DeadLetterFile;
use late::LateRecords;
use partition::LedgerPartition;
use record_trail::RecordTrail;
use rollback::roll_back;

/// Default limit on open streams. A stream needs about 4 KiB, twice that while a checkpoint includes it or it
/// is being closed. Beyond the limit half of the streams are closed, which costs one manifest each. A closed
/// stream continues later without reading its file. Descriptors are limited separately.
pub(crate) const STREAMS_MAX: usize = 8_192;

/// The streams of all partitions that this process reads.
pub(crate) struct Ledger {
    shared: Arc<VaultInner>,
    vault: Vault,
    source: StreamSource,
    /// Peer as recorded in manifests.
    origin: String,
    streams: StreamTable<RecordTrail>,
    /// Whether accepted bytes could not be flushed, so no further checkpoint may be written.
    has_failed: bool,
    partitions: Vec<LedgerPartition>,
    /// Ranges of offsets that have new records since.
    replaced_ranges: Vec<ReadRange>,
    /// Ranges that are no longer the ones being read, since the last checkpoint.
    unwritten_ranges: Vec<ReadRange>,
    /// Whether the next checkpoint must replace the log, because ranges in it are no longer right.
    rewrites_log: bool,
    /// Whether records were stored before others of their partition.
    has_closed_gaps: bool,
    late: LateRecords,
    /// Number of checkpoints started.
    checkpoints_started: u64,
    /// Time of the last poll.
    clock: Instant,
    /// Comparisons that the last process had started.
    comparisons: BTreeMap<String, ComparisonCheckpoint>,
    pending_checkpoint: Option<PendingCheckpoint>,
    log_bytes: u64,
    log_bytes_max: u64,
    dead_letters: DeadLetterFile,
}

impl Ledger {
    /// Opens the ledger and rolls the files back to the last checkpoint. `origin` is stored as the peer in
    /// manifests.
    pub(crate) fn open(
        vault: &Vault,
        source: StreamSource,
        origin: &str,
        streams_max: usize,
    ) -> Result<Ledger> {
        let shared = Arc::clone(&vault.shared);
        let failed = || Error::path("restore the last checkpoint in", shared.dir.path());
        let mut checkpoint = Checkpoint::read(&shared.dir).map_err(failed())?;
        let has_inserted = Insertions::complete(&shared, &mut checkpoint).map_err(failed())?;
        let unclosed = shared.take_unclosed_kafka_files();
        let dead_letters = DeadLetterFile::open(&shared, checkpoint.dead_letter_bytes).map_err(failed())?;
        roll_back(&shared, &checkpoint, &unclosed, dead_letters.bytes).map_err(failed())?;
        if has_inserted {
            insertion::remove(&shared.dir).map_err(failed())?;
        }
        let partitions = checkpoint.partitions.iter();
        let mut partitions =
            partitions.map(|state| LedgerPartition::restore(state, &checkpoint)).collect::<Vec<_>>();
        let mut replaced_ranges = checkpoint.reads;
        replaced_ranges.retain(|read| !partitions.iter().any(|known| known.state.is_range(read)));
        dumps::forget_oldest_dumps(&mut partitions);
        Ok(Ledger {
            vault: vault.clone(),
            source,
            origin: origin.to_owned(),
            streams: StreamTable::new(vault.clone(), streams_max),
            has_failed: false,
            partitions,
            replaced_ranges,
            unwritten_ranges: Vec::new(),
            rewrites_log: false,
            has_closed_gaps: false,
            late: LateRecords::default(),
            checkpoints_started: 0,
            clock: Instant::now(),
            dead_letters,
            comparisons: checkpoint.compared,
            pending_checkpoint: None,
            log_bytes: 0,
            log_bytes_max: LOG_BYTES_MIN,
            shared,
        })
    }

    /// Sets the time at which the next records arrive.
    pub(crate) fn set_clock(&mut self, now: Instant) {
        self.clock = now;
    }

    /// Returns the number of streams opened, including reopened ones.
    pub(crate) fn streams_started(&self) -> u64 {
        self.streams.streams_opened()
    }

    /// Returns the number of stream bytes accepted.
    pub(crate) fn accepted_bytes(&self) -> u64 {
        self.streams.accepted_bytes() + self.late.accepted_bytes()
    }

    /// Closes all streams. Must be called after [`flush`](Self::flush) and after its offsets are committed.
    pub(crate) fn close(mut self) {
        let is_flushed = self.flush_coalesced().is_ok() && !self.has_failed;
        // Closed files need no checkpoint, and from here on other processes may append dead letters.
        let batch =
            Checkpoint { files: BTreeMap::new(), dead_letter_bytes: None, ..self.collect_checkpoint(true) };
        // After a failed flush the remaining streams end with an error when they are dropped.
        while let Ok(Some((_, stream))) = self.streams.pop_idle() {
            record_trail::finish(stream, EndReason::Shutdown, &self.partitions);
        }
        if let Err(error) = self.update_stored_gaps() {
            // The manifests then name gaps that are closed.
            log::warn!("gaps_not_updated error=\"{error}\"");
        }
        if is_flushed && let Ok(text) = batch.to_lines() {
            // If the syncer has ended, the log keeps its last state and the next start uses that.
            let _ = self.shared.queue.send(WriteJob::Checkpoint(CheckpointBatch {
                text,
                replaces_all: true,
                done: bounded(1).0,
            }));
        }
    }

    /// Closes the least recently used streams if too many are open.
    fn evict_idle(&mut self) -> io::Result<()> {
        if !self.streams.is_full() {
            return Ok(());
        }
        self.finish_checkpoint()?;
        // Closes many streams at once to keep checkpoints rare.
        let mut comparing = Vec::new();
        for _ in 0..self.streams.open_streams().div_ceil(2) {
            match self.streams.pop_idle()? {
                Some((name, stream)) if stream.writer.compared_bytes().is_some() => {
                    comparing.push((name, stream));
                }
                Some((_, stream)) => record_trail::finish(stream, EndReason::Idle, &self.partitions),
                None => break,
            }
        }
        for (name, stream) in comparing {
            self.streams.put_back(name, stream);
        }
        Ok(())
    }

    /// Closes streams that got no record for `timeout`. A record that comes later continues its stream. Returns the offsets
    /// to commit.
    pub(crate) fn close_idle(&mut self, timeout: Duration) -> io::Result<Vec<OffsetCommit>> {
        let now = Instant::now();
        let is_idle = |trail: &RecordTrail| now.saturating_duration_since(trail.last_record_at()) >= timeout;
        if !self.streams.peek_idle().is_some_and(|stream| is_idle(&stream.info)) {
            return Ok(Vec::new());
        }
        let commits = self.finish_checkpoint()?;
        let mut comparing = Vec::new();
        while self.streams.peek_idle().is_some_and(|stream| is_idle(&stream.info)) {
            match self.streams.pop_idle()? {
                // A re-send that was equal so far has no file of its own. Its rest would be appended to the stored file.
                Some((name, stream)) if stream.writer.compared_bytes().is_some() => {
                    comparing.push((name, stream))
                }
                Some((_, stream)) => record_trail::finish(stream, EndReason::Idle, &self.partitions),
                None => break,
            }
        }
        for (name, mut stream) in comparing {
            stream.info.postpone_idle(now);
            self.streams.put_back(name, stream);
        }
        Ok(commits)
    }

    /// Opens a stream. `start` tells whether `data` is its first byte, if that is known.
    fn open_stream(&mut self, name: &[u8], data: &[u8], start: Option<StreamStart>) -> io::Result<()> {
        let pending = self.pend_stream(name)?;
        if let Some(compared) = self.comparisons.remove(&hex::encode(name)) {
            let writer = pending.resume_comparison(compared.received, compared.file.as_deref())?;
            self.add_stream(name, writer, Vec::new(), compared.segments);
            return Ok(());
        }
        let stored_head = pending.read_stored_head(HEADER_BYTES_MAX)?;
        let start = start.unwrap_or(if is_same_capture(&stored_head, data) {
            StreamStart::NewCapture
        } else {
            StreamStart::Continuation
        });
        let writer = pending.start(start)?;
        let segments = writer.segments();
        self.add_stream(name, writer, stored_head, segments);
        Ok(())
    }

    /// Locks the name of a stream and looks at its stored parts.
    fn pend_stream(&self, name: &[u8]) -> io::Result<PendingStream> {
        let origin = StreamOrigin {
            source: self.source,
            peer: self.origin.clone(),
            raw_name: None,
            connected_ms: now_ms(),
        };
        self.vault.open_stream(name, origin, Arc::new(NoPeer), || false)
    }

    fn add_stream(&mut self, name: &[u8], writer: StreamWriter, head: Vec<u8>, segments: Vec<RecordSegment>) {
        self.streams.insert(name, writer, head, RecordTrail::new(segments));
    }
}

#[cfg(test)]
mod tests;
