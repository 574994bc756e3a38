//! After a crash: the files that the journal names are read once, and their manifests say what is in them. Nothing
//! is removed. Runs in a thread of its own while the listeners are open already; the names concerned are held, so a
//! stream that is sent again waits until its file has been looked at.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use super::dir::VaultDir;
use super::journal::{Journal, Opened};
use super::manifest::{Manifest, State};
use super::names::Claim;
use super::pool::{Pool, Size};
use super::pressure::Pressure;
use super::scan::scan;
use crate::counters::Counters;

/// What the recovery works on.
pub struct Recovery {
    /// The folder.
    pub dir: Arc<VaultDir>,
    /// Where the files that were open stand.
    pub journal: Arc<Journal>,
    /// Buffers to read with.
    pub pool: Arc<Pool>,
    /// The state of the disk.
    pub pressure: Arc<Pressure>,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// Whether files are hashed.
    pub hash: bool,
}

impl Recovery {
    /// Looks at the files, and lets go of each name when its file is done.
    pub fn run(self, files: Vec<(Opened, Claim)>) {
        let total = files.len();
        for (done, (opened, claim)) in files.into_iter().enumerate() {
            if self.pressure.given_up() {
                log::info!("recovery_put_off files={} note=\"the next start goes on\"", total - done);
                return;
            }
            match self.recover(&opened, claim.name()) {
                Ok(true) => self.counters.recovered_files_total.one(),
                Ok(false) => {}
                Err(error) => {
                    // The line stays in the journal, so the next start looks again.
                    log::error!("recovery_failed file={} error=\"{error}\"", opened.file);
                    continue;
                }
            }
            if let Err(error) = self.journal.closed(&self.dir, std::slice::from_ref(&opened.file)) {
                log::warn!("journal_not_written file={} error=\"{error}\"", opened.file);
            }
        }
        if total > 0 {
            log::info!("recovered files={}", self.counters.recovered_files_total.get());
        }
    }

    /// True if the file was found open and its manifest was mended.
    fn recover(&self, opened: &Opened, name: &[u8]) -> io::Result<bool> {
        let manifest = match self.dir.manifest(&opened.file) {
            Ok(manifest) => manifest,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => None,
            Err(error) => return Err(error),
        };
        let bytes = match self.dir.open_to_read(&opened.file) {
            Ok(file) => file.metadata()?.len(),
            // The crash came between the journal and the file: nothing had been received.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let mut manifest = match manifest {
            Some(manifest) if manifest.state != State::Open && manifest.bytes == bytes => return Ok(false),
            Some(manifest) => manifest,
            None => Manifest::new(name, opened.file.clone(), opened.part, opened.source),
        };
        let mut buffer = self.pool.take(Size::Scratch);
        self.pressure.persist("recover", &opened.file, || {
            mend(&self.dir, &mut manifest, self.hash, &mut buffer, &|| self.pressure.given_up())
        })?;
        log::info!("stream_recovered file={} bytes={}", manifest.file, manifest.bytes);
        Ok(true)
    }
}

/// Reads the file of `manifest` once, and writes the manifest as `recovered`. `stopping` ends it with an error.
pub fn mend(
    dir: &VaultDir,
    manifest: &mut Manifest,
    hash: bool,
    buffer: &mut [u8],
    stopping: &dyn Fn() -> bool,
) -> io::Result<()> {
    let file = dir.open_to_read(&manifest.file)?;
    let scanned = scan(&mut Stoppable { file: &file, stopping }, buffer, hash, |_| {})?;
    file.sync_data()?;
    manifest.state = State::Recovered;
    manifest.bytes = scanned.bytes();
    manifest.capture = scanned.follower.summary();
    manifest.sha256 = scanned.sha256();
    if let Some(connection) = manifest.connections.last_mut()
        && connection.ended_at.is_none()
    {
        connection.bytes = manifest.bytes.saturating_sub(connection.offset);
    }
    let staged = dir.stage(manifest)?;
    dir.sync_staged(&staged)?;
    dir.publish(staged)?;
    dir.sync_names()
}

struct Stoppable<'a> {
    file: &'a File,
    stopping: &'a dyn Fn() -> bool,
}

impl Read for Stoppable<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if (self.stopping)() {
            return Err(io::Error::other("stopped"));
        }
        self.file.read(buffer)
    }
}
