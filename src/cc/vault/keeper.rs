//! The keeper thread: makes what was written durable, and closes what has ended. It never stands in the way of a
//! write.
//!
//! Order at a stream's end: its bytes are durable, then the manifest that vouches for them takes its place, then
//! the journal forgets the file, then the name is free.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::checkpoint::Round;
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

/// What comes to the keeper.
pub enum Keep {
    /// A stream that has ended.
    Ended(Ended),
    /// A checkpoint; what it vouches for has been written.
    Checkpoint(Round),
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
    pub fn run(mut self, keep: Receiver<Keep>) -> Losses {
        let mut next_round = Instant::now() + self.sync_interval;
        loop {
            match keep.recv_deadline(next_round) {
                Ok(first) => {
                    self.keep(std::iter::once(first).chain(keep.try_iter().take(BATCH_MAX - 1)).collect());
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

    /// Closes what has ended, in one go; checkpoints have their place between.
    fn keep(&mut self, batch: Vec<Keep>) {
        let mut ended = Vec::new();
        for keep in batch {
            match keep {
                Keep::Ended(one) => ended.push(one),
                Keep::Checkpoint(round) => {
                    self.close(std::mem::take(&mut ended));
                    self.checkpoint(round);
                }
            }
        }
        self.close(ended);
    }

    /// First what the checkpoint vouches for, then the checkpoint.
    fn checkpoint(&mut self, round: Round) {
        let synced = self.sync_round() && self.counters.lost_bytes_total.get() == 0;
        let kept = if synced {
            self.pressure.persist("checkpoint", "-", || round.keep(&self.dir))
        } else {
            Err(std::io::Error::other("what it vouches for is not durable"))
        };
        round.answer(kept);
    }

    /// Makes durable what was written since the last round; true if that went well.
    fn sync_round(&mut self) -> bool {
        let parts = self.dirty.take();
        let names = self.dirty.take_names();
        if parts.is_empty() && !names {
            return true;
        }
        let failed = self.failed_files();
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
        self.failed_files() == failed
    }

    fn failed_files(&self) -> u64 {
        lock(&self.losses).files
    }

    fn sync_file(&self, file: &str) -> std::io::Result<()> {
        self.dir.open_to_read(file)?.sync_data()
    }

    fn close(&mut self, batch: Vec<Ended>) {
        if batch.is_empty() {
            return;
        }
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
        manifest.midstate = None;
        manifest.end_reason = Some(EndReason::IoError);
        match scanned {
            Ok(scanned) => {
                manifest.bytes = scanned.bytes();
                manifest.capture = scanned.follower.summary();
                manifest.sha256 = scanned.sha256();
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::dir::Access;
    use super::super::journal::Opened;
    use super::super::manifest::{Manifest, Source, State};
    use super::super::names::Names;
    use super::super::tail::Tail;
    use super::*;

    struct Scene {
        folder: tempfile::TempDir,
        keeper: Keeper,
        names: Arc<Names>,
    }

    impl Scene {
        fn new() -> Scene {
            let folder = tempfile::tempdir().unwrap();
            let dir = Arc::new(VaultDir::open(folder.path(), Access::PRIVATE).unwrap());
            let counters = Arc::<Counters>::default();
            let keeper = Keeper {
                journal: Arc::new(Journal::open(&dir).unwrap().0),
                dir,
                dirty: Arc::default(),
                pressure: Arc::new(Pressure::new(Arc::clone(&counters))),
                counters,
                hash: true,
                sync_interval: Duration::from_millis(1),
                losses: Arc::default(),
            };
            Scene { folder, keeper, names: Arc::default() }
        }

        /// A stream that has ended: its file, in the journal, and its closed manifest to be written.
        fn ended(&self, file: &str, content: &[u8]) -> Ended {
            let opened =
                Opened { file: file.into(), name_hex: "61".into(), part: 1, source: Source::Tcp, bytes: 0 };
            self.keeper.journal.opened(opened).unwrap();
            std::fs::write(self.folder.path().join(file), content).unwrap();
            let mut manifest = Manifest::new(file.as_bytes(), file.into(), 1, Source::Tcp);
            (manifest.state, manifest.bytes) = (State::Closed, content.len() as u64);
            manifest.end_reason = Some(EndReason::Eof);
            let part = Arc::new(Part::new(0, Tail::new(true), manifest));
            Ended { part, claim: self.names.hold(Source::Tcp, file.as_bytes()) }
        }

        /// Runs the keeper over these streams; what could not be kept, and what the journal names as open then.
        fn run(self, ended: Vec<Ended>) -> (Losses, Vec<String>, tempfile::TempDir) {
            let (send, receive) = crossbeam_channel::unbounded();
            ended.into_iter().for_each(|ended| send.send(Keep::Ended(ended)).unwrap());
            drop(send);
            let losses = self.keeper.run(receive);
            let dir = VaultDir::open(self.folder.path(), Access::PRIVATE).unwrap();
            let left = Journal::open(&dir).unwrap().1.into_iter().map(|opened| opened.file).collect();
            (losses, left, self.folder)
        }
    }

    fn manifest(folder: &Path, file: &str) -> Option<Manifest> {
        let text = std::fs::read(folder.join(format!("{file}.lea.json"))).ok()?;
        Some(serde_json::from_slice(&text).unwrap())
    }

    #[test]
    fn what_has_ended_is_closed_one_by_one_and_many_at_once() {
        for count in [1, SYNC_EACH_MAX, 3 * SYNC_EACH_MAX] {
            let scene = Scene::new();
            let names = Arc::clone(&scene.names);
            let ended = (0..count).map(|number| scene.ended(&format!("file-{number}"), b"content")).collect();
            let (losses, left, folder) = scene.run(ended);
            assert!(losses.is_none() && left.is_empty(), "{losses:?} {left:?}");
            for number in 0..count {
                let file = format!("file-{number}");
                assert_eq!(manifest(folder.path(), &file).unwrap().state, State::Closed);
                assert!(!names.is_held(Source::Tcp, file.as_bytes()), "the name is free");
            }
        }
    }

    #[test]
    fn a_manifest_of_a_file_that_lacks_bytes_says_what_is_in_it() {
        let scene = Scene::new();
        let ended = scene.ended("file", b"only this");
        ended.part.manifest().bytes = 100;
        ended.part.lose(91);
        let (losses, left, folder) = scene.run(vec![ended]);
        assert_eq!((losses, left), (Losses { streams: 1, bytes: 91, files: 0 }, vec![]));
        let manifest = manifest(folder.path(), "file").unwrap();
        assert_eq!((manifest.bytes, manifest.lost_bytes), (9, 91));
        assert_eq!(manifest.end_reason, Some(EndReason::IoError));
        let sha256 = crate::cc::frame::name::hex(&<sha2::Sha256 as sha2::Digest>::digest(b"only this"));
        assert_eq!(manifest.sha256, Some(sha256));
    }

    #[test]
    fn a_file_whose_manifest_cannot_be_written_stays_in_the_journal() {
        let scene = Scene::new();
        let (fails, fine) = (scene.ended("fails", b"content"), scene.ended("fine", b"content"));
        // A folder where the manifest belongs: it cannot be put in its place.
        std::fs::create_dir(scene.folder.path().join("fails.lea.json")).unwrap();
        let (losses, left, folder) = scene.run(vec![fails, fine]);
        assert_eq!(losses, Losses { streams: 0, bytes: 0, files: 1 });
        assert_eq!(left, ["fails"]);
        assert_eq!(manifest(folder.path(), "fine").unwrap().state, State::Closed);
    }
}
