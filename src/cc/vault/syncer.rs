//! Thread `syncer`: calls fsync on written files and closes ended streams, so that the writer never waits for
//! a sync.
//!
//! Order at the end of a stream: fsync the file, publish the manifest, remove the file from the journal,
//! unlock the name.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::checkpoint::CheckpointBatch;
use super::dir::{TempManifest, VaultDir};
use super::disk_retry::DiskRetry;
use super::journal::Journal;
use super::manifest::EndReason;
use super::name_locks::NameLock;
use super::part::{DirtyParts, StreamPart};
use super::scan::scan;
use crate::runtime::metrics::Metrics;

/// For more files than this, one syncfs(2) is cheaper than one fdatasync(2) per file.
const SYNC_EACH_MAX: usize = 16;

/// Maximum number of streams closed together.
const CLOSE_BATCH_MAX: usize = 4096;

/// A stream whose bytes are all written.
pub(super) struct EndedStream {
    /// The stream's part. Its manifest contains the end reason.
    pub part: Arc<StreamPart>,
    /// Lock of the stream's name, held until the manifest is published.
    pub name_lock: NameLock,
}

/// A job for the syncer.
pub(super) enum SyncJob {
    Ended(EndedStream),
    /// A checkpoint whose bytes have all been written.
    Checkpoint(CheckpointBatch),
}

/// Data that could not be stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LossTotals {
    /// Number of streams with missing bytes.
    pub streams: u64,
    /// Number of missing bytes.
    pub bytes: u64,
    /// Number of files whose fsync or manifest failed.
    pub files: u64,
}

impl LossTotals {
    /// Returns whether everything received is stored.
    pub fn is_zero(&self) -> bool {
        *self == LossTotals::default()
    }
}

/// State of the syncer thread.
pub(super) struct Syncer {
    pub dir: Arc<VaultDir>,
    pub journal: Arc<Journal>,
    /// Parts that need an fsync.
    pub dirty: Arc<DirtyParts>,
    pub disk_retry: Arc<DiskRetry>,
    pub metrics: Arc<Metrics>,
    /// Whether files are hashed.
    pub hash: bool,
    /// Time between two syncs.
    pub sync_interval: Duration,
    /// Losses so far.
    pub losses: Arc<Mutex<LossTotals>>,
}

/// Logs and counts bytes of a stream that were received and are not stored.
pub(super) fn record_loss(losses: &Mutex<LossTotals>, file: &str, bytes: u64) {
    log::error!("stream_incomplete file={file} lost_bytes={bytes}");
    let mut losses = lock(losses);
    losses.streams += 1;
    losses.bytes += bytes;
}

fn lock(losses: &Mutex<LossTotals>) -> MutexGuard<'_, LossTotals> {
    losses.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Syncer {
    /// Runs until the writer has ended.
    pub(super) fn run(mut self, keep: Receiver<SyncJob>) -> LossTotals {
        let mut next_round = Instant::now() + self.sync_interval;
        loop {
            match keep.recv_deadline(next_round) {
                Ok(first) => {
                    self.process_batch(
                        std::iter::once(first).chain(keep.try_iter().take(CLOSE_BATCH_MAX - 1)).collect(),
                    );
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if Instant::now() >= next_round {
                self.sync_dirty_parts();
                next_round = Instant::now() + self.sync_interval;
            }
        }
        self.sync_dirty_parts();
        *lock(&self.losses)
    }

    /// Closes ended streams together. Writes each checkpoint in its place in between.
    fn process_batch(&mut self, batch: Vec<SyncJob>) {
        let mut ended = Vec::new();
        for keep in batch {
            match keep {
                SyncJob::Ended(one) => ended.push(one),
                SyncJob::Checkpoint(batch) => {
                    self.close_streams(std::mem::take(&mut ended));
                    self.write_checkpoint(batch);
                }
            }
        }
        self.close_streams(ended);
    }

    /// Syncs the files first and then writes the checkpoint.
    fn write_checkpoint(&mut self, batch: CheckpointBatch) {
        let synced = self.sync_dirty_parts() && self.metrics.lost_bytes_total.get() == 0;
        let written = if synced {
            self.disk_retry.retry("checkpoint", "-", || batch.write(&self.dir))
        } else {
            Err(std::io::Error::other("the data before the checkpoint is not durable"))
        };
        batch.report(written);
    }

    /// Calls fsync on all parts written since the last call. Returns whether all succeeded.
    fn sync_dirty_parts(&mut self) -> bool {
        let parts = self.dirty.take();
        let names = self.dirty.take_names_changed();
        if parts.is_empty() && !names {
            return true;
        }
        let failed = self.failed_files();
        parts.iter().for_each(|part| part.mark_clean());
        if parts.len() > SYNC_EACH_MAX {
            self.report_failure("sync", "-", self.dir.sync_all());
        } else {
            for part in &parts {
                self.report_failure("sync", &part.file, self.sync_file(&part.file));
            }
        }
        if names {
            self.report_failure("sync", "-", self.journal.sync().and_then(|()| self.dir.sync_names()));
        }
        self.metrics.sync_rounds_total.inc();
        self.failed_files() == failed
    }

    fn failed_files(&self) -> u64 {
        lock(&self.losses).files
    }

    fn sync_file(&self, file: &str) -> std::io::Result<()> {
        self.dir.open_to_read(file)?.sync_data()
    }

    fn close_streams(&mut self, batch: Vec<EndedStream>) {
        if batch.is_empty() {
            return;
        }
        let closing: Vec<(EndedStream, TempManifest)> =
            batch.into_iter().filter_map(|ended| self.write_temp_manifest(ended)).collect();
        if closing.len() > SYNC_EACH_MAX {
            self.report_failure("sync", "-", self.dir.sync_all());
        } else {
            for (ended, temp_manifest) in &closing {
                self.report_failure(
                    "sync",
                    &ended.part.file,
                    self.sync_file(&ended.part.file)
                        .and_then(|()| self.dir.sync_temp_manifest(temp_manifest)),
                );
            }
        }
        let mut done = Vec::with_capacity(closing.len());
        let mut name_locks = Vec::with_capacity(closing.len());
        for (EndedStream { part, name_lock }, temp_manifest) in closing {
            if self.report_failure("manifest", &part.file, self.dir.publish_manifest(temp_manifest)) {
                done.push(part.file.clone());
            }
            name_locks.push(name_lock);
        }
        self.report_failure("sync", "-", self.dir.sync_names());
        if let Err(error) = self.journal.record_closed(&self.dir, &done) {
            // Harmless: the next start finds these files closed.
            log::warn!("journal_not_written files={} error=\"{error}\"", done.len());
        }
        drop(name_locks);
    }

    /// Writes a temporary manifest. Returns `None` on failure; the next start then recovers the file.
    fn write_temp_manifest(&mut self, ended: EndedStream) -> Option<(EndedStream, TempManifest)> {
        if ended.part.lost_bytes() > 0 {
            self.add_loss_to_manifest(&ended.part);
        }
        let manifest = ended.part.manifest().clone();
        let temp_manifest =
            self.disk_retry.retry("manifest", &manifest.file, || self.dir.write_temp_manifest(&manifest));
        match temp_manifest {
            Ok(temp_manifest) => Some((ended, temp_manifest)),
            Err(error) => {
                self.report_failure("manifest", &manifest.file, Err(error));
                None
            }
        }
    }

    /// Corrects the manifest of a part that lost bytes, so that it describes the contents of the file.
    fn add_loss_to_manifest(&mut self, part: &StreamPart) {
        let lost = part.lost_bytes();
        self.metrics.streams_failed_total.inc();
        record_loss(&self.losses, &part.file, lost);
        let mut buffer = vec![0; 64 << 10];
        let scanned = self
            .dir
            .open_to_read(&part.file)
            .and_then(|mut file| scan(&mut file, &mut buffer, self.hash, |_| {}));
        let mut manifest = part.manifest();
        manifest.lost_bytes = lost;
        manifest.resume_state = None;
        manifest.end_reason = Some(EndReason::IoError);
        match scanned {
            Ok(scanned) => {
                manifest.bytes = scanned.bytes();
                manifest.capture = scanned.tracker.summary();
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

    /// Logs and counts an error. Returns whether there was none.
    fn report_failure(&mut self, what: &str, file: &str, result: std::io::Result<()>) -> bool {
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

    use super::*;
    use crate::cc::vault::dir::Access;
    use crate::cc::vault::journal::JournalEntry;
    use crate::cc::vault::manifest::{Manifest, ManifestState, StreamSource};
    use crate::cc::vault::name_locks::NameLocks;
    use crate::cc::vault::packet_aligner::PacketAligner;

    struct Scene {
        temp: tempfile::TempDir,
        syncer: Syncer,
        names: Arc<NameLocks>,
    }

    impl Scene {
        fn new() -> Scene {
            let temp = tempfile::tempdir().unwrap();
            let dir = Arc::new(VaultDir::open(temp.path(), Access::PRIVATE).unwrap());
            let metrics = Arc::<Metrics>::default();
            let syncer = Syncer {
                journal: Arc::new(Journal::open(&dir).unwrap().0),
                dir,
                dirty: Arc::default(),
                disk_retry: Arc::new(DiskRetry::new(Arc::clone(&metrics))),
                metrics,
                hash: true,
                sync_interval: Duration::from_millis(1),
                losses: Arc::default(),
            };
            Scene { temp, syncer, names: Arc::default() }
        }

        /// Creates an ended stream: its file, its journal entry, and its closed manifest.
        fn ended(&self, file: &str, content: &[u8]) -> EndedStream {
            let opened = JournalEntry {
                file: file.into(),
                name_hex: "61".into(),
                part: 1,
                source: StreamSource::Tcp,
                bytes: 0,
            };
            self.syncer.journal.record_opened(opened).unwrap();
            std::fs::write(self.temp.path().join(file), content).unwrap();
            let mut manifest = Manifest::new(file.as_bytes(), file.into(), 1, StreamSource::Tcp);
            (manifest.state, manifest.bytes) = (ManifestState::Closed, content.len() as u64);
            manifest.end_reason = Some(EndReason::Eof);
            let part = Arc::new(StreamPart::new(0, PacketAligner::new(true), manifest));
            EndedStream {
                part,
                name_lock: self.names.acquire_for_recovery(StreamSource::Tcp, file.as_bytes()),
            }
        }

        /// Runs the syncer on these streams. Returns the losses and the files that the journal still lists as
        /// open.
        fn run(self, ended: Vec<EndedStream>) -> (LossTotals, Vec<String>, tempfile::TempDir) {
            let (send, receive) = crossbeam_channel::unbounded();
            ended.into_iter().for_each(|ended| send.send(SyncJob::Ended(ended)).unwrap());
            drop(send);
            let losses = self.syncer.run(receive);
            let dir = VaultDir::open(self.temp.path(), Access::PRIVATE).unwrap();
            let left = Journal::open(&dir).unwrap().1.into_iter().map(|entry| entry.file).collect();
            (losses, left, self.temp)
        }
    }

    fn manifest(temp: &Path, file: &str) -> Option<Manifest> {
        let text = std::fs::read(temp.join(format!("{file}.lea.json"))).ok()?;
        Some(serde_json::from_slice(&text).unwrap())
    }

    #[test]
    fn ended_streams_are_closed_one_by_one_and_together() {
        for count in [1, SYNC_EACH_MAX, 3 * SYNC_EACH_MAX] {
            let scene = Scene::new();
            let names = Arc::clone(&scene.names);
            let ended = (0..count).map(|number| scene.ended(&format!("file-{number}"), b"content")).collect();
            let (losses, left, temp) = scene.run(ended);
            assert!(losses.is_zero() && left.is_empty(), "{losses:?} {left:?}");
            for number in 0..count {
                let file = format!("file-{number}");
                assert_eq!(manifest(temp.path(), &file).unwrap().state, ManifestState::Closed);
                assert!(!names.is_locked(StreamSource::Tcp, file.as_bytes()), "the name is free");
            }
        }
    }

    #[test]
    fn the_manifest_of_an_incomplete_file_describes_its_contents() {
        let scene = Scene::new();
        let ended = scene.ended("file", b"only this");
        ended.part.manifest().bytes = 100;
        ended.part.mark_broken(91);
        let (losses, left, temp) = scene.run(vec![ended]);
        assert_eq!((losses, left), (LossTotals { streams: 1, bytes: 91, files: 0 }, vec![]));
        let manifest = manifest(temp.path(), "file").unwrap();
        assert_eq!((manifest.bytes, manifest.lost_bytes), (9, 91));
        assert_eq!(manifest.end_reason, Some(EndReason::IoError));
        let sha256 = crate::runtime::hex::encode(&<sha2::Sha256 as sha2::Digest>::digest(b"only this"));
        assert_eq!(manifest.sha256, Some(sha256));
    }

    #[test]
    fn a_file_whose_manifest_cannot_be_written_stays_in_the_journal() {
        let scene = Scene::new();
        let (fails, fine) = (scene.ended("fails", b"content"), scene.ended("fine", b"content"));
        // A directory with the manifest's name: the manifest cannot be published.
        std::fs::create_dir(scene.temp.path().join("fails.lea.json")).unwrap();
        let (losses, left, temp) = scene.run(vec![fails, fine]);
        assert_eq!(losses, LossTotals { streams: 0, bytes: 0, files: 1 });
        assert_eq!(left, ["fails"]);
        assert_eq!(manifest(temp.path(), "fine").unwrap().state, ManifestState::Closed);
    }
}
