//! Thread `syncer`: calls fsync on written files and closes ended streams, so that the writer never waits for
//! a sync.
//!
//! Order at the end of a stream: fsync the file, publish the manifest, remove the file from the journal,
//! unlock the name.

use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::checkpoint::CheckpointBatch;
use super::dir::{TempManifest, VaultDir};
use super::disk_retry::DiskRetry;
use super::journal::Journal;
use super::manifest::EndReason;
use super::name_locks::NameLock;
use super::part::{DirtyParts, StreamPart, SyncFailure};
use super::scan::{FileScan, scan};
use crate::capture::summary::CaptureSummary;
use crate::runtime::health::Problem;
use crate::runtime::metrics::Metrics;

/// For more files than this, one syncfs(2) is cheaper than one fdatasync(2) per file.
const SYNC_EACH_MAX: usize = 16;

/// Maximum number of streams closed together.
const CLOSE_BATCH_MAX: usize = 4096;

/// Free space beyond the reserve at which events are accepted again.
const ROOM_FOR_EVENTS_BYTES: u64 = 1 << 20;

/// A stream whose bytes are all written.
pub(super) struct EndedStream {
    /// The stream's part. Its manifest contains the end reason.
    pub part: Arc<StreamPart>,
    /// Lock of the stream's name, held until the manifest is published. `None`: the stream goes on in another part.
    pub name_lock: Option<NameLock>,
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
    /// Bytes that streams leave free on the disk.
    pub free_bytes_min: u64,
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
        if let Err(error) = self.journal.record_clean() {
            // The next start looks for open files more thoroughly.
            log::warn!("journal_not_written files=0 error=\"{error}\"");
        }
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
        self.check_dir();
        let parts = self.dirty.take();
        let names = self.dirty.take_names_changed();
        let failed = self.failed_files();
        if !parts.is_empty() || names {
            parts.iter().for_each(|part| part.mark_clean());
            self.sync_parts(&parts);
            let synced =
                if names { self.journal.sync().and_then(|()| self.dir.sync_names()) } else { Ok(()) };
            if !self.report_failure("sync", "-", synced) {
                self.dirty.mark_names_changed();
            }
            self.metrics.sync_rounds_total.inc();
        }
        let is_ok = self.failed_files() == failed;
        if is_ok && self.metrics.health.is_raised(Problem::StorageFailed) && self.dir.probe().is_ok() {
            self.metrics.health.clear(Problem::StorageFailed);
        }
        is_ok
    }

    /// Notices that the directory was removed, and that there is room for events again.
    fn check_dir(&self) {
        self.check_room_for_events();
        let health = &self.metrics.health;
        if !health.is_raised(Problem::OutputRemoved) && self.dir.is_removed() {
            log::error!("output_removed dir={:?} note=\"nothing can be stored any more\"", self.dir.path());
            health.raise(Problem::OutputRemoved);
        }
    }

    /// The store notices only when the next event comes, and a load balancer sends none while /health has 503.
    fn check_room_for_events(&self) {
        let health = &self.metrics.health;
        let wanted = self.free_bytes_min.saturating_mul(2).saturating_add(ROOM_FOR_EVENTS_BYTES);
        if health.is_raised(Problem::StoreDiskFull) && self.dir.free_bytes().is_ok_and(|free| free > wanted) {
            health.clear(Problem::StoreDiskFull);
        }
    }

    /// Syncs the files of parts, together if they are many. A part whose file cannot be synced is marked.
    fn sync_parts(&mut self, parts: &[Arc<StreamPart>]) {
        // Read first: bytes that are written meanwhile may not be synced.
        let written: Vec<u64> = parts.iter().map(|part| part.written_bytes()).collect();
        if parts.len() > SYNC_EACH_MAX {
            match self.dir.sync_all() {
                Ok(()) => {
                    for (part, written) in parts.iter().zip(written) {
                        match self.dir.check_inode(&part.file, part.inode()) {
                            Ok(()) => part.mark_synced(written),
                            Err(error) => self.mark_failed(part, error),
                        }
                    }
                    return;
                }
                // Each file tells whether the error is its own.
                Err(error) => log::error!("sync_failed file=- error=\"{error}\""),
            }
        }
        parts.iter().zip(written).for_each(|(part, written)| self.sync_part(part, written));
    }

    fn sync_part(&mut self, part: &StreamPart, written: u64) {
        match self.dir.sync_file(&part.file, part.inode()) {
            Ok(()) => part.mark_synced(written),
            Err(error) if error.kind() == ErrorKind::NotFound => self.mark_failed(part, error),
            Err(error) => {
                log::error!("sync_failed file={} error=\"{error}\"", part.file);
                self.metrics.health.raise(Problem::StorageFailed);
                self.rewrite(part, written);
            }
        }
    }

    /// Writes the bytes again that were not synced. The kernel reports a failed fsync once, so to call it again alone
    /// would prove nothing.
    fn rewrite(&mut self, part: &StreamPart, written: u64) {
        let from = part.synced_bytes();
        let rewritten =
            self.disk_retry.retry("sync", &part.file, || self.dir.rewrite(&part.file, from, written));
        match rewritten {
            Ok(()) => {
                log::warn!("file_rewritten file={} from={from} to={written}", part.file);
                self.metrics.sync_rewrites_total.inc();
                part.mark_rewritten(from);
                part.mark_synced(written);
            }
            Err(error) => self.mark_failed(part, error),
        }
    }

    /// Marks a part whose file cannot be made durable. Its stream ends as `io_error`.
    fn mark_failed(&mut self, part: &StreamPart, error: io::Error) {
        if part.sync_failure().is_some() {
            return;
        }
        if error.kind() == ErrorKind::NotFound {
            let bytes = part.written_bytes();
            part.mark_broken(bytes);
            self.metrics.lost_bytes_total.add(bytes);
            part.mark_sync_failed(SyncFailure::Removed);
        } else {
            part.mark_sync_failed(SyncFailure::Unsynced);
        }
        self.report_failure("sync", &part.file, Err(error));
    }

    fn failed_files(&self) -> u64 {
        lock(&self.losses).files
    }

    fn close_streams(&mut self, batch: Vec<EndedStream>) {
        if batch.is_empty() {
            return;
        }
        let (parts, name_locks): (Vec<Arc<StreamPart>>, Vec<Option<NameLock>>) =
            batch.into_iter().map(|ended| (ended.part, ended.name_lock)).unzip();
        // Manifests that are written before a syncfs need no sync of their own.
        let are_many = parts.len() > SYNC_EACH_MAX;
        let mut early: Vec<Option<TempManifest>> = Vec::new();
        if are_many {
            early.extend(parts.iter().map(|part| self.write_temp_manifest(part).ok()));
        }
        let sound: Vec<bool> = parts.iter().map(|part| !needs_correction(part)).collect();
        let failures = self.metrics.storage_failures_total.get();
        self.sync_parts(&parts);
        let are_synced = are_many && self.metrics.storage_failures_total.get() == failures;
        let mut closed = Vec::with_capacity(parts.len());
        for (at, part) in parts.iter().enumerate() {
            let kept = early.get_mut(at).and_then(Option::take);
            let kept = kept.filter(|_| are_synced && (!sound[at] || !needs_correction(part)));
            if self.publish_manifest(part, kept) {
                closed.push(part.file.clone());
            }
        }
        if self.report_failure("sync", "-", self.dir.sync_names()) {
            self.record_closed(&closed);
        } else {
            // The files stay in the journal, so the next start looks at them.
            self.dirty.mark_names_changed();
        }
        drop(name_locks);
    }

    fn record_closed(&self, files: &[String]) {
        if let Err(error) = self.journal.record_closed(&self.dir, files) {
            // Harmless: the next start finds these files closed.
            log::warn!("journal_not_written files={} error=\"{error}\"", files.len());
        }
    }

    /// Publishes the manifest of an ended part. `synced` was written and synced already. Tries twice, because an error can
    /// pass. Returns whether the manifest is published and durable; otherwise the next start looks at the file.
    fn publish_manifest(&mut self, part: &StreamPart, synced: Option<TempManifest>) -> bool {
        if let Some(temp_manifest) = synced
            && self.dir.publish_manifest(temp_manifest).is_ok()
        {
            return true;
        }
        let mut attempt = || {
            let temp_manifest = self.write_temp_manifest(part)?;
            let synced = self.dir.sync_temp_manifest(&temp_manifest);
            // A manifest that may not survive a power failure is better than one that says `open`.
            self.dir.publish_manifest(temp_manifest).and(synced)
        };
        let published = attempt().or_else(|error| {
            log::warn!("manifest_retried file={} error=\"{error}\"", part.file);
            attempt()
        });
        self.report_failure("manifest", &part.file, published)
    }

    /// Writes a temporary manifest that says no more than the file proves.
    fn write_temp_manifest(&mut self, part: &StreamPart) -> io::Result<TempManifest> {
        if needs_correction(part) {
            self.correct_manifest(part);
        }
        let manifest = part.manifest().clone();
        self.disk_retry.retry("manifest", &manifest.file, || self.dir.write_temp_manifest(&manifest))
    }

    /// Corrects the manifest of a part that lost bytes or could not be synced, so that it describes the contents of the file.
    fn correct_manifest(&mut self, part: &StreamPart) {
        let lost = part.lost_bytes();
        if lost > 0 && part.take_loss_report() {
            self.metrics.streams_failed_total.inc();
            record_loss(&self.losses, &part.file, lost);
        }
        let scanned = self.scan_part(part).inspect_err(|error| {
            log::error!("read_failed file={} error=\"{error}\"", part.file);
        });
        let scanned = scanned.ok();
        let mut manifest = part.manifest();
        let is_as_received = scanned.as_ref().is_some_and(|scan| {
            scan.bytes() == manifest.bytes && scan.sha256().is_some() && scan.sha256() == manifest.sha256
        });
        if lost == 0 && part.sync_failure().is_none() && is_as_received {
            // All bytes were written again and are the received ones.
            return;
        }
        manifest.lost_bytes = manifest.lost_bytes.max(lost);
        manifest.resume_state = None;
        manifest.sha256 = scanned.as_ref().and_then(FileScan::sha256);
        match &scanned {
            Some(scan) => (manifest.bytes, manifest.capture) = (scan.bytes(), scan.tracker.summary()),
            None if part.sync_failure() == Some(SyncFailure::Removed) => {
                (manifest.bytes, manifest.capture) = (0, CaptureSummary::default());
            }
            None => {}
        }
        let unsynced_from = match part.sync_failure() {
            Some(SyncFailure::Unsynced) => Some(part.synced_bytes()),
            Some(SyncFailure::Removed) => None,
            None => part.rewritten_from(),
        };
        let unsynced = unsynced_from.map_or(0, |from| manifest.bytes.saturating_sub(from));
        self.metrics.unsynced_bytes_total.add(unsynced.saturating_sub(manifest.unsynced_bytes));
        manifest.unsynced_bytes = unsynced;
        manifest.end_reason = Some(EndReason::IoError);
        let bytes = manifest.bytes;
        if let Some(connection) = manifest.connections.last_mut() {
            connection.end_reason = Some(EndReason::IoError);
            connection.bytes = bytes.saturating_sub(connection.offset);
        }
    }

    /// Reads the file of a part.
    fn scan_part(&self, part: &StreamPart) -> io::Result<FileScan> {
        self.dir.check_inode(&part.file, part.inode())?;
        let mut buffer = vec![0; 64 << 10];
        scan(&mut self.dir.open_to_read(&part.file)?, &mut buffer, self.hash, |_| {})
    }

    /// Logs and counts an error. Returns whether there was none.
    fn report_failure(&mut self, what: &str, file: &str, result: std::io::Result<()>) -> bool {
        if let Err(error) = &result {
            log::error!("{what}_failed file={file} error=\"{error}\"");
            lock(&self.losses).files += 1;
            self.metrics.storage_failures_total.inc();
            self.metrics.health.raise(Problem::StorageFailed);
        }
        result.is_ok()
    }
}

/// Returns whether the manifest of a part may say more than its file proves.
fn needs_correction(part: &StreamPart) -> bool {
    part.lost_bytes() > 0 || part.sync_failure().is_some() || part.rewritten_from().is_some()
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
                free_bytes_min: 0,
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
                name_lock: Some(self.names.acquire_for_recovery(StreamSource::Tcp, file.as_bytes())),
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
            let left = Journal::open(&dir).unwrap().1.unclosed.into_iter().map(|entry| entry.file).collect();
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
