//! The ledger: stores streams that arrive as Kafka records, each record exactly once. Runs in the thread that polls
//! the records.
//!
//! - A record whose offset is below the partition's next offset is a duplicate.
//! - A checkpoint records what the files contain at which offsets. Offsets are committed only after their checkpoint
//!   is durable. The next start removes everything that was written after the last checkpoint (`rollback`).
//! - A Kafka stream has no end. When too many streams are open, the least recently used ones are closed, after a
//!   checkpoint includes their bytes.
//! - Small records are coalesced (`write_coalescer`). A checkpoint flushes them first.

mod accept;
mod checkpoint_log;
mod dead_letters;
mod dumps;
mod open;
mod partition;
mod rollback;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crossbeam_channel::bounded;
use lru::LruCache;

use super::checkpoint::{Checkpoint, CheckpointBatch, ComparisonCheckpoint, ReadRange};
use super::manifest::{EndReason, StreamSource};
use super::name_locks::PeerProbe;
use super::writer::WriteJob;
use super::{StreamOrigin, StreamStart};
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
use open::OpenStream;
use partition::LedgerPartition;
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
    streams: LruCache<Box<[u8]>, OpenStream>,
    streams_max: usize,
    /// Number of streams with coalesced bytes. They are among the most recently used ones.
    coalescing: usize,
    /// Whether accepted bytes could not be flushed, so no further checkpoint may be written.
    has_failed: bool,
    partitions: Vec<LedgerPartition>,
    /// Offset ranges read before gaps. The first `read_ranges_written` of them are already in the checkpoint
    /// log.
    read_ranges: Vec<ReadRange>,
    read_ranges_written: usize,
    /// Number of checkpoints started.
    checkpoints_started: u64,
    /// Number of streams opened, including reopened ones.
    streams_started: u64,
    accepted_bytes: u64,
    /// Comparisons that the last process had started.
    comparisons: BTreeMap<String, ComparisonCheckpoint>,
    pending_checkpoint: Option<PendingCheckpoint>,
    log_bytes: u64,
    log_bytes_max: u64,
    dead_letters: DeadLetterFile,
}

/// Records have no connection, so there is no peer to probe.
struct NoProbe;

impl PeerProbe for NoProbe {
    fn probe(&self, _on: bool) {}
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
        let checkpoint = Checkpoint::read(&shared.dir).map_err(failed())?;
        let left = shared.take_unclosed_kafka_files();
        let letters = DeadLetterFile::open(&shared, checkpoint.dead_letter_bytes).map_err(failed())?;
        roll_back(&shared, &checkpoint, &left, letters.bytes).map_err(failed())?;
        let mut partitions = checkpoint.partitions.into_iter().map(LedgerPartition::from).collect();
        dumps::forget_oldest_dumps(&mut partitions);
        Ok(Ledger {
            vault: vault.clone(),
            source,
            origin: origin.to_owned(),
            streams: LruCache::unbounded(),
            streams_max: streams_max.max(1),
            coalescing: 0,
            has_failed: false,
            partitions,
            read_ranges_written: checkpoint.reads.len(),
            read_ranges: checkpoint.reads,
            checkpoints_started: 0,
            streams_started: 0,
            accepted_bytes: 0,
            dead_letters: letters,
            comparisons: checkpoint.compared,
            pending_checkpoint: None,
            log_bytes: 0,
            log_bytes_max: LOG_BYTES_MIN,
            shared,
        })
    }

    /// Returns the number of open streams.
    pub(crate) fn open_streams(&self) -> usize {
        self.streams.len()
    }

    /// Returns the number of streams opened, including reopened ones.
    pub(crate) fn streams_started(&self) -> u64 {
        self.streams_started
    }

    /// Returns the number of stream bytes accepted.
    pub(crate) fn accepted_bytes(&self) -> u64 {
        self.accepted_bytes
    }

    /// Closes all streams. Must be called after [`flush`](Self::flush) and after its offsets are committed.
    pub(crate) fn close(mut self) {
        let stored = self.flush_coalesced().is_ok() && !self.has_failed;
        // Closed files need no checkpoint, and from here on other processes may append dead letters.
        let round =
            Checkpoint { files: BTreeMap::new(), dead_letter_bytes: None, ..self.collect_checkpoint(true) };
        while let Some((_, open)) = self.streams.pop_lru() {
            open.finish(EndReason::Shutdown, &self.partitions);
        }
        if stored && let Ok(text) = round.to_lines() {
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
        if self.streams.len() < self.streams_max {
            return Ok(());
        }
        self.finish_checkpoint()?;
        // Closes many streams at once to keep checkpoints rare.
        let mut comparing = Vec::new();
        for _ in 0..self.streams_max.div_ceil(2) {
            match self.streams.pop_lru() {
                Some((name, open)) if open.writer.compared_bytes().is_some() => comparing.push((name, open)),
                Some((_, open)) => open.finish(EndReason::Idle, &self.partitions),
                None => break,
            }
        }
        for (name, open) in comparing {
            self.streams.put(name, open);
        }
        Ok(())
    }

    /// Opens a stream. `head` tells whether `data` is its first byte, if that is known.
    fn open_stream(&mut self, name: &[u8], data: &[u8], head: Option<StreamStart>) -> io::Result<OpenStream> {
        let origin = StreamOrigin { source: self.source, peer: self.origin.clone(), connected_ms: now_ms() };
        let entry = self.vault.open_stream(name, origin, Arc::new(NoProbe), || false)?;
        if let Some(compared) = self.comparisons.remove(&hex::encode(name)) {
            let intake = entry.resume_comparison(compared.received, compared.file.as_deref())?;
            return Ok(OpenStream::new(intake, Vec::new(), compared.segments));
        }
        let stored_head = entry.read_stored_head(HEADER_BYTES_MAX)?;
        let again = || {
            if is_same_capture(&stored_head, data) {
                StreamStart::NewCapture
            } else {
                StreamStart::Continuation
            }
        };
        let intake = entry.start(head.unwrap_or_else(again))?;
        let segments = intake.segments();
        Ok(OpenStream::new(intake, stored_head, segments))
    }
}

#[cfg(test)]
mod tests;
