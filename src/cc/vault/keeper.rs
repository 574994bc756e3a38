//! The keeper thread: makes what was written durable, and closes what has ended. It never stands in the way of a
//! write.
//!
//! Order at a stream's end: its bytes are durable, then the manifest that vouches for them takes its place, then
//! the journal forgets the file, then the name is free.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::dir::{Staged, VaultDir};
use super::journal::Journal;
use super::manifest::EndReason;
use super::names::Claim;
use super::part::{Dirty, Part};
use super::pressure::Pressure;
use super::scan::scan;
use crate::counters::Counters;

/// From so many files on, one syncfs(2) costs less than a sync each.
const SYNC_EACH_MAX: usize = 16;

/// Streams closed in one go.
const BATCH_MAX: usize = 4096;

/// A stream whose bytes are all written.
pub struct Ended {
    /// Its part; the manifest in it says how it ended.
    pub part: Arc<Part>,
    /// Its name, held until the manifest is in place.
    pub claim: Claim,
}

/// What could not be kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Streams of which bytes are missing.
    pub streams: u64,
    /// How many bytes.
    pub bytes: u64,
    /// Files whose manifest or sync failed.
    pub files: u64,
}

impl Losses {
    /// True if everything received is stored.
    pub fn is_none(&self) -> bool {
        *self == Losses::default()
    }
}

/// What the keeper works with.
pub struct Keeper {
    /// The folder.
    pub dir: Arc<VaultDir>,
    /// Which files are open.
    pub journal: Arc<Journal>,
    /// Parts that need a sync.
    pub dirty: Arc<Dirty>,
    /// The state of the disk.
    pub pressure: Arc<Pressure>,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// Whether files are hashed.
    pub hash: bool,
    /// Between two rounds.
    pub sync_interval: Duration,
    /// What could not be kept so far.
    pub losses: Arc<Mutex<Losses>>,
}

/// Reports and counts bytes of a stream that arrived and are not stored.
pub fn note_loss(losses: &Mutex<Losses>, file: &str, bytes: u64) {
    log::error!("stream_incomplete file={file} lost_bytes={bytes}");
    let mut losses = lock(losses);
    losses.streams += 1;
    losses.bytes += bytes;
}

fn lock(losses: &Mutex<Losses>) -> MutexGuard<'_, Losses> {
    losses.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Keeper {
    /// Works until the writer is gone.
    pub fn run(mut self, ended: Receiver<Ended>) -> Losses {
        let mut next_round = Instant::now() + self.sync_interval;
        loop {
            match ended.recv_deadline(next_round) {
                Ok(first) => {
                    let batch = std::iter::once(first).chain(ended.try_iter().take(BATCH_MAX - 1)).collect();
                    self.close(batch);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if Instant::now() >= next_round {
                self.sync_round();
                next_round = Instant::now() + self.sync_interval;
            }
        }
        self.sync_round();
        *lock(&self.losses)
    }

    /// Makes durable what was written since the last round.
    fn sync_round(&mut self) {
        let parts = self.dirty.take();
        let names = self.dirty.take_names();
        if parts.is_empty() && !names {
            return;
        }
        parts.iter().for_each(|part| part.clean());
        if parts.len() > SYNC_EACH_MAX {
            self.check("sync", "-", self.dir.sync_all());
        } else {
            for part in &parts {
                self.check("sync", &part.file, self.sync_file(&part.file));
            }
        }
        if names {
            self.check("sync", "-", self.journal.sync().and_then(|()| self.dir.sync_names()));
        }
        self.counters.sync_rounds_total.one();
    }

    fn sync_file(&self, file: &str) -> std::io::Result<()> {
        self.dir.open_to_read(file)?.sync_data()
    }

    fn close(&mut self, batch: Vec<Ended>) {
        let staged: Vec<(Ended, Staged)> = batch.into_iter().filter_map(|ended| self.stage(ended)).collect();
        if staged.len() > SYNC_EACH_MAX {
            self.check("sync", "-", self.dir.sync_all());
        } else {
            for (ended, staged) in &staged {
                self.check(
                    "sync",
                    &ended.part.file,
                    self.sync_file(&ended.part.file).and_then(|()| self.dir.sync_staged(staged)),
                );
            }
        }
        let mut done = Vec::with_capacity(staged.len());
        let mut claims = Vec::with_capacity(staged.len());
        for (Ended { part, claim }, staged) in staged {
            if self.check("manifest", &part.file, self.dir.publish(staged)) {
                done.push(part.file.clone());
            }
            claims.push(claim);
        }
        self.check("sync", "-", self.dir.sync_names());
        if let Err(error) = self.journal.closed(&self.dir, &done) {
            // The next start looks at these files once more and finds them closed: no harm.
            log::warn!("journal_not_written files={} error=\"{error}\"", done.len());
        }
        drop(claims);
    }

    /// Writes the manifest beside its place. `None`: it cannot be written; the next start recovers the file.
    fn stage(&mut self, ended: Ended) -> Option<(Ended, Staged)> {
        if ended.part.lost_bytes() > 0 {
            self.admit_loss(&ended.part);
        }
        let manifest = ended.part.manifest().clone();
        let staged = self.pressure.persist("manifest", &manifest.file, || self.dir.stage(&manifest));
        match staged {
            Ok(staged) => Some((ended, staged)),
            Err(error) => {
                self.check("manifest", &manifest.file, Err(error));
                None
            }
        }
    }

    /// Bytes of this part were lost: its manifest tells what the file holds, not what was received.
    fn admit_loss(&mut self, part: &Part) {
        let lost = part.lost_bytes();
        self.counters.failed_streams_total.one();
        note_loss(&self.losses, &part.file, lost);
        let mut buffer = vec![0; 64 << 10];
        let scanned = self
            .dir
            .open_to_read(&part.file)
            .and_then(|mut file| scan(&mut file, &mut buffer, self.hash, |_| {}));
        let mut manifest = part.manifest();
        manifest.lost_bytes = lost;
        manifest.end_reason = Some(EndReason::IoError);
        match scanned {
            Ok(scanned) => {
                manifest.bytes = scanned.follower.received();
                manifest.capture = scanned.follower.summary();
                manifest.sha256 = super::tail::Tail::resume(scanned.follower, scanned.hasher).sha256();
            }
            Err(error) => {
                log::error!("read_failed file={} error=\"{error}\"", part.file);
                manifest.sha256 = None;
            }
        }
        let bytes = manifest.bytes;
        if let Some(connection) = manifest.connections.last_mut() {
            connection.end_reason = Some(EndReason::IoError);
            connection.bytes = bytes.saturating_sub(connection.offset);
        }
    }

    /// Reports and counts a failure; true if it went well.
    fn check(&mut self, what: &str, file: &str, result: std::io::Result<()>) -> bool {
        if let Err(error) = &result {
            log::error!("{what}_failed file={file} error=\"{error}\"");
            lock(&self.losses).files += 1;
        }
        result.is_ok()
    }
}
