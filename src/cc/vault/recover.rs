//! Thread `recovery`: after a crash, reads each file that the journal lists as open and rewrites its
//! manifest. Removes nothing.
//!
//! The listeners are already open meanwhile. The names are locked, so a re-send waits until its file is
//! recovered.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use super::dir::VaultDir;
use super::disk_retry::DiskRetry;
use super::journal::{Journal, JournalEntry};
use super::manifest::{Manifest, ManifestState};
use super::name_locks::{NameLock, NameLocks};
use super::pool::{BufferPool, BufferSize};
use super::resume_state;
use super::scan::{FileScan, scan};
use crate::cc::wire::name::{file_name, part_file_name};
use crate::runtime::health::Problem;
use crate::runtime::metrics::Metrics;

/// State of the recovery thread.
pub(super) struct Recovery {
    pub dir: Arc<VaultDir>,
    /// Journal that lists the open files.
    pub journal: Arc<Journal>,
    pub name_locks: Arc<NameLocks>,
    pub pool: Arc<BufferPool>,
    pub disk_retry: Arc<DiskRetry>,
    pub metrics: Arc<Metrics>,
    /// Whether files are hashed.
    pub hash: bool,
}

impl Recovery {
    /// Recovers the files and unlocks each name when its file is done. With `is_unsure` the journal may not list all of
    /// them.
    pub(super) fn run(self, files: Vec<(JournalEntry, NameLock)>, is_unsure: bool) {
        let total = files.len();
        for (done, (entry, name_lock)) in files.into_iter().enumerate() {
            if self.disk_retry.has_given_up() {
                log::info!("recovery_deferred files={} note=\"the next start continues\"", total - done);
                return;
            }
            match self.recover(&entry, name_lock.name()) {
                Ok(true) => self.metrics.recovered_files_total.inc(),
                Ok(false) => {}
                Err(error) => {
                    // The file stays in the journal, so the next start tries again.
                    log::error!("recovery_failed file={} error=\"{error}\"", entry.file);
                    self.metrics.health.raise(Problem::RecoveryFailed);
                    continue;
                }
            }
            if let Err(error) = self.journal.record_closed(&self.dir, std::slice::from_ref(&entry.file)) {
                log::warn!("journal_not_written file={} error=\"{error}\"", entry.file);
            }
        }
        if is_unsure && let Err(error) = self.recover_unlisted() {
            log::error!("recovery_failed file=- error=\"{error}\"");
            self.metrics.health.raise(Problem::RecoveryFailed);
        }
        let recovered = self.metrics.recovered_files_total.get();
        if total > 0 || recovered > 0 {
            log::info!("recovered files={recovered}");
        }
    }

    /// Recovers files whose manifests are open and that are not in the journal: it was emptied or damaged.
    fn recover_unlisted(&self) -> io::Result<()> {
        for file in self.dir.files_with_manifest()? {
            if self.disk_retry.has_given_up() {
                return Ok(());
            }
            // A manifest that cannot be read is reported by `lea ls` and `lea verify`.
            let Ok(Some(manifest)) = self.dir.manifest(&file) else { continue };
            let name = manifest.name_bytes();
            if manifest.state != ManifestState::Open
                || part_file_name(&file_name(&name), manifest.part) != file
            {
                continue;
            }
            // A stream that has the name now recovers its parts itself.
            let Some(_lock) = self.name_locks.try_acquire_for_recovery(manifest.source, &name) else {
                continue;
            };
            let Ok(Some(mut manifest)) = self.dir.manifest(&file) else { continue };
            if manifest.state != ManifestState::Open || self.journal.is_open(&file) {
                continue;
            }
            match self.rebuild(&mut manifest) {
                Ok(()) => self.metrics.recovered_files_total.inc(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    log::error!("recovery_failed file={file} error=\"{error}\"");
                    self.metrics.health.raise(Problem::RecoveryFailed);
                }
            }
        }
        Ok(())
    }

    fn rebuild(&self, manifest: &mut Manifest) -> io::Result<()> {
        let mut buffer = self.pool.take(BufferSize::Scratch);
        let file = manifest.file.clone();
        self.disk_retry.retry("recover", &file, || {
            rebuild_manifest(&self.dir, manifest, self.hash, &mut buffer, &|| self.disk_retry.has_given_up())
        })?;
        log::info!("stream_recovered file={file} bytes={}", manifest.bytes);
        Ok(())
    }

    /// Recovers one file. Returns whether its manifest was rewritten.
    fn recover(&self, entry: &JournalEntry, name: &[u8]) -> io::Result<bool> {
        let manifest = match self.dir.manifest(&entry.file) {
            Ok(manifest) => manifest,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => None,
            Err(error) => return Err(error),
        };
        let bytes = match self.dir.open_to_read(&entry.file) {
            Ok(file) => file.metadata()?.len(),
            // The crash happened before the file was created: nothing had been received.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let mut manifest = match manifest {
            Some(manifest) if manifest.state != ManifestState::Open && manifest.bytes == bytes => {
                return Ok(false);
            }
            Some(manifest) => manifest,
            None => Manifest::new(name, entry.file.clone(), entry.part, entry.source),
        };
        self.rebuild(&mut manifest)?;
        Ok(true)
    }
}

/// Reads the file of `manifest` and publishes the manifest as `recovered`. Fails if `stopping` returns true.
pub(super) fn rebuild_manifest(
    dir: &VaultDir,
    manifest: &mut Manifest,
    hash: bool,
    buffer: &mut [u8],
    stopping: &dyn Fn() -> bool,
) -> io::Result<()> {
    let file = dir.open_to_read(&manifest.file)?;
    let scan_result = scan(&mut StoppableReader { file: &file, stopping }, buffer, hash, |_| {})?;
    file.sync_data()?;
    mark_recovered(manifest, &scan_result);
    let temp_manifest = dir.write_temp_manifest(manifest)?;
    dir.sync_temp_manifest(&temp_manifest)?;
    dir.publish_manifest(temp_manifest)?;
    dir.sync_names()
}

/// Updates the manifest of a file that was left open to the contents found by a scan.
pub(super) fn mark_recovered(manifest: &mut Manifest, scan_result: &FileScan) {
    manifest.state = ManifestState::Recovered;
    manifest.bytes = scan_result.bytes();
    manifest.capture = scan_result.tracker.summary();
    manifest.sha256 = scan_result.sha256();
    manifest.resume_state = manifest.source.is_kafka().then(|| resume_state::encode(scan_result));
    if let Some(connection) = manifest.connections.last_mut()
        && connection.ended_at.is_none()
    {
        connection.bytes = manifest.bytes.saturating_sub(connection.offset);
    }
}

struct StoppableReader<'a> {
    file: &'a File,
    stopping: &'a dyn Fn() -> bool,
}

impl Read for StoppableReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if (self.stopping)() {
            return Err(io::Error::other("stopped"));
        }
        self.file.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Instant;

    use super::*;
    use crate::cc::vault::dir::Access;
    use crate::cc::vault::manifest::{StreamConnection, StreamSource};

    const CONTENT: &[u8] = b"what was received before the crash";

    /// Prepares the directory in addition to the journal.
    type Prepare = fn(&VaultDir, &Path);

    fn entry() -> JournalEntry {
        JournalEntry {
            file: "file".into(),
            name_hex: "6e616d65".into(),
            part: 1,
            source: StreamSource::Tcp,
            bytes: 0,
        }
    }

    fn write(path: &Path, content: &[u8]) {
        std::fs::write(path.join("file"), content).unwrap();
    }

    /// Writes a manifest with this state and size.
    fn write_manifest(dir: &VaultDir, state: ManifestState, bytes: u64) {
        let mut manifest = Manifest::new(b"name", "file".into(), 1, StreamSource::Tcp);
        (manifest.state, manifest.bytes) = (state, bytes);
        manifest.add_connection(StreamConnection {
            peer: "192.0.2.1:1024".into(),
            raw_name_hex: None,
            connected_at: "2026-11-21T20:59:41.000Z".into(),
            first_byte_at: None,
            last_byte_at: None,
            ended_at: None,
            end_reason: None,
            offset: 4,
            bytes: 0,
            compared_bytes: 0,
        });
        dir.write_manifest(&manifest).unwrap();
    }

    /// Runs the recovery. Returns the manifest, the number of rewritten manifests, and the open files in the
    /// journal.
    fn recover(prepare: Prepare, given_up: bool) -> (Option<Manifest>, u64, Vec<JournalEntry>) {
        let temp = tempfile::tempdir().unwrap();
        let metrics = Arc::<Metrics>::default();
        {
            let dir = Arc::new(VaultDir::open(temp.path(), Access::PRIVATE).unwrap());
            let (journal, _) = Journal::open(&dir).unwrap();
            journal.record_opened(entry()).unwrap();
            prepare(&dir, temp.path());
            let disk_retry = Arc::new(DiskRetry::new(Arc::clone(&metrics)));
            if given_up {
                disk_retry.give_up_at(Instant::now());
            }
            let names = Arc::<NameLocks>::default();
            let (journal, pool) = (Arc::new(journal), Arc::default());
            let recovery = Recovery {
                dir,
                journal,
                name_locks: Arc::clone(&names),
                pool,
                disk_retry,
                metrics: Arc::clone(&metrics),
                hash: true,
            };
            recovery.run(vec![(entry(), names.acquire_for_recovery(StreamSource::Tcp, b"name"))], false);
            assert!(!names.is_locked(StreamSource::Tcp, b"name"), "a re-send need not wait any longer");
        }
        let dir = VaultDir::open(temp.path(), Access::PRIVATE).unwrap();
        let left = Journal::open(&dir).unwrap().1.unclosed;
        (dir.manifest("file").ok().flatten(), metrics.recovered_files_total.get(), left)
    }

    /// Checks that the manifest describes the file after the recovery.
    #[track_caller]
    fn check_mended(prepare: Prepare) -> Manifest {
        let (manifest, rewritten, left) = recover(prepare, false);
        let manifest = manifest.expect("a manifest");
        assert_eq!((manifest.state, manifest.bytes), (ManifestState::Recovered, CONTENT.len() as u64));
        let sha256 = crate::runtime::hex::encode(&<sha2::Sha256 as sha2::Digest>::digest(CONTENT));
        assert_eq!(manifest.sha256.as_ref(), Some(&sha256));
        assert_eq!((manifest.name.as_str(), manifest.file.as_str()), ("name", "file"));
        assert_eq!((rewritten, left), (1, vec![]));
        manifest
    }

    #[test]
    fn the_manifest_of_an_open_file_is_rewritten() {
        let manifest = check_mended(|dir, path| {
            write(path, CONTENT);
            write_manifest(dir, ManifestState::Open, 0);
        });
        assert_eq!(manifest.connections[0].bytes, CONTENT.len() as u64 - 4, "bytes of the connection");
    }

    #[test]
    fn a_missing_or_stale_manifest_is_rewritten() {
        check_mended(|_, path| write(path, CONTENT));
        check_mended(|dir, path| {
            write(path, CONTENT);
            write_manifest(dir, ManifestState::Closed, 4);
        });
        check_mended(|_, path| {
            write(path, CONTENT);
            std::fs::write(path.join("file.lea.json"), "{\"format").unwrap();
        });
    }

    #[test]
    fn a_closed_file_is_not_changed() {
        let (manifest, rewritten, left) = recover(
            |dir, path| {
                write(path, CONTENT);
                write_manifest(dir, ManifestState::Closed, CONTENT.len() as u64);
            },
            false,
        );
        assert_eq!((manifest.unwrap().state, rewritten, left), (ManifestState::Closed, 0, vec![]));
    }

    #[test]
    fn a_file_that_was_never_created_is_removed_from_the_journal() {
        assert_eq!(recover(|_, _| {}, false), (None, 0, vec![]));
    }

    #[test]
    fn a_failed_recovery_is_repeated_at_the_next_start() {
        // A directory with the name of the file.
        let (manifest, rewritten, left) =
            recover(|_, path| std::fs::create_dir(path.join("file")).unwrap(), false);
        assert_eq!((manifest, rewritten, left), (None, 0, vec![entry()]));
        // lea shuts down before the recovery starts.
        let (manifest, rewritten, left) = recover(|_, path| write(path, CONTENT), true);
        assert_eq!((manifest, rewritten, left), (None, 0, vec![entry()]));
    }
}
