//! Streams that come as records of partitions, and nothing of them twice. Runs in the thread that polls the records.
//!
//! A stream from Kafka has no end, so nothing here depends on time. Each record's offset is looked at first: below
//! the partition's next one it was taken before. A checkpoint says what the files held at which offsets; until it is
//! durable nothing is committed, and what was written after it is cut off again at the next start. A stream that was
//! not written for longest is closed when too many are open, but never before a checkpoint has its bytes. Small
//! records are gathered (`gather`); a checkpoint hands over first what is gathered, so it vouches for no other bytes.

mod cut_back;
mod dumps;
mod letters;
mod open;
mod partition;
mod rounds;
mod take;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crossbeam_channel::bounded;
use lru::LruCache;

use super::checkpoint::{Checkpoint, Compared, ReadRange, Round};
use super::intake::{Head, Origin};
use super::manifest::{EndReason, Source};
use super::names::Probe;
use super::time::now_ms;
use super::writer::Job;
use super::{Shared, Vault};
use crate::cc::frame::name::hex;
use crate::{Error, Result};

pub use letters::DEAD_LETTERS;
pub(super) use open::{HEAD_BYTES, is_same_head};
pub use partition::PartitionId;
pub use rounds::Commit;
pub use take::{Taken, Untaken};

use cut_back::cut_back;
use letters::Letters;
use open::Open;
use partition::Partition;
use rounds::{InFlight, ROUNDS_BYTES_MIN};

/// Streams kept open: some 4 KiB each, as much again for those being closed and for a checkpoint of them all. One more, and half of them are closed, which costs a manifest each; they go on
/// without their files being read. Descriptors are bounded elsewhere.
pub const STREAMS_MAX: usize = 8_192;

/// The streams of all partitions that this process reads.
pub struct Ledger {
    shared: Arc<Shared>,
    vault: Vault,
    origin: String,
    streams: LruCache<Box<[u8]>, Open>,
    streams_max: usize,
    /// Streams that have bytes gathered; they are among those that were used last.
    gathering: usize,
    /// Bytes that were taken could not be handed over: no checkpoint may vouch for them.
    failed: bool,
    partitions: Vec<Partition>,
    /// What was read of partitions before gaps, and how many of those stand in the rounds already.
    reads: Vec<ReadRange>,
    reads_kept: usize,
    /// Checkpoints begun.
    round: u64,
    /// Streams that were opened, again and again too; and the bytes that came of all.
    begun: u64,
    taken_bytes: u64,
    /// Comparisons that the last process had begun.
    compared: BTreeMap<String, Compared>,
    in_flight: Option<InFlight>,
    rounds_bytes: u64,
    rounds_bytes_max: u64,
    letters: Letters,
}

/// Nobody waits for the end of a stream that has none.
struct Endless;

impl Probe for Endless {
    fn probe(&self, _on: bool) {}
}

impl Ledger {
    /// Cuts the files back to the last checkpoint. `origin` is what manifests name as the peer.
    pub fn open(vault: &Vault, origin: &str, streams_max: usize) -> Result<Ledger> {
        let shared = Arc::clone(&vault.shared);
        let failed = || Error::path("go on from the checkpoints in", shared.dir.path());
        let checkpoint = Checkpoint::read(&shared.dir).map_err(failed())?;
        let left = shared.take_left();
        let letters = Letters::open(&shared, checkpoint.dead_letter_bytes).map_err(failed())?;
        cut_back(&shared, &checkpoint, &left, letters.bytes).map_err(failed())?;
        let mut partitions = checkpoint.partitions.into_iter().map(Partition::from).collect();
        dumps::forget_old(&mut partitions);
        Ok(Ledger {
            vault: vault.clone(),
            origin: origin.to_owned(),
            streams: LruCache::unbounded(),
            streams_max: streams_max.max(1),
            gathering: 0,
            failed: false,
            partitions,
            reads_kept: checkpoint.reads.len(),
            reads: checkpoint.reads,
            round: 0,
            begun: 0,
            taken_bytes: 0,
            letters,
            compared: checkpoint.compared,
            in_flight: None,
            rounds_bytes: 0,
            rounds_bytes_max: ROUNDS_BYTES_MIN,
            shared,
        })
    }

    /// Streams that are open.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Streams that were begun; one that was closed and came again counts again.
    pub fn begun(&self) -> u64 {
        self.begun
    }

    /// Bytes of streams that were taken.
    pub fn taken_bytes(&self) -> u64 {
        self.taken_bytes
    }

    /// Closes all streams. Call it after [`flush`](Self::flush), and when its offsets are committed.
    pub fn close(mut self) {
        let stored = self.hand_over().is_ok() && !self.failed;
        // What is closed needs no round, and from now on others may add to the dead letters.
        let round = Checkpoint { files: BTreeMap::new(), dead_letter_bytes: None, ..self.round(true) };
        while let Some((_, open)) = self.streams.pop_lru() {
            open.finish(EndReason::Drained, &self.partitions);
        }
        if stored && let Ok(text) = round.text() {
            // If the keeper is gone the rounds stay as they are: the next start goes by them.
            let _ = self.shared.send(Job::Checkpoint(Round { text, replaces: true, done: bounded(1).0 }));
        }
    }

    /// Closes streams that were not written for longest, if too many are open.
    fn make_room(&mut self) -> io::Result<()> {
        if self.streams.len() < self.streams_max {
            return Ok(());
        }
        self.checkpoint_now()?;
        // Many at once, so that checkpoints stay few.
        let mut comparing = Vec::new();
        for _ in 0..self.streams_max.div_ceil(2) {
            match self.streams.pop_lru() {
                Some((name, open)) if open.intake.comparing().is_some() => comparing.push((name, open)),
                Some((_, open)) => open.finish(EndReason::Idle, &self.partitions),
                None => break,
            }
        }
        for (name, open) in comparing {
            self.streams.put(name, open);
        }
        Ok(())
    }

    /// Opens a stream; `head` says whether it starts from its first byte, if that is known.
    fn enter(&mut self, name: &[u8], data: &[u8], head: Option<Head>) -> io::Result<Open> {
        let origin = Origin { source: Source::Kafka, peer: self.origin.clone(), connected_ms: now_ms() };
        let entry = self.vault.enter(name, origin, Arc::new(Endless), || false)?;
        if let Some(compared) = self.compared.remove(&hex(name)) {
            let intake = entry.compare_on(compared.received, compared.file.as_deref())?;
            return Ok(Open::new(intake, Vec::new(), compared.segments));
        }
        let stored_head = entry.stored_head(HEAD_BYTES)?;
        let again = || if is_same_head(&stored_head, data) { Head::Capture } else { Head::Other };
        let intake = entry.begin(head.unwrap_or_else(again))?;
        let segments = intake.segments();
        Ok(Open::new(intake, stored_head, segments))
    }
}

#[cfg(test)]
mod tests;
