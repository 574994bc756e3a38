//! After a crash: the files that the journal names are read once, and their manifests say what is in them. Nothing
//! is removed. Runs in a thread of its own while the listeners are open already; the names concerned are held, so a
//! stream that is sent again waits until its file has been looked at.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use super::dir::VaultDir;
use super::journal::{Journal, Opened};
use super::manifest::{Manifest, Source, State};
use super::midstate;
use super::names::Claim;
use super::pool::{Pool, Size};
use super::pressure::Pressure;
use super::scan::{Scan, scan};
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
    note_recovered(manifest, &scanned);
    let staged = dir.stage(manifest)?;
    dir.sync_staged(&staged)?;
    dir.publish(staged)?;
    dir.sync_names()
}

/// What a manifest says of a file that was left open and holds what was scanned.
pub fn note_recovered(manifest: &mut Manifest, scanned: &Scan) {
    manifest.state = State::Recovered;
    manifest.bytes = scanned.bytes();
    manifest.capture = scanned.follower.summary();
    manifest.sha256 = scanned.sha256();
    manifest.midstate = (manifest.source == Source::Kafka).then(|| midstate::text(scanned));
    if let Some(connection) = manifest.connections.last_mut()
        && connection.ended_at.is_none()
    {
        connection.bytes = manifest.bytes.saturating_sub(connection.offset);
    }
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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Instant;

    use super::super::dir::Access;
    use super::super::manifest::Connection;
    use super::super::names::Names;
    use super::*;

    const CONTENT: &[u8] = b"what was received before the crash";

    /// What is in the folder besides the journal's line.
    type Prepare = fn(&VaultDir, &Path);

    fn opened() -> Opened {
        Opened { file: "file".into(), name_hex: "6e616d65".into(), part: 1, source: Source::Tcp, bytes: 0 }
    }

    fn write(path: &Path, content: &[u8]) {
        std::fs::write(path.join("file"), content).unwrap();
    }

    /// A manifest that says `bytes` bytes in this state.
    fn write_manifest(dir: &VaultDir, state: State, bytes: u64) {
        let mut manifest = Manifest::new(b"name", "file".into(), 1, Source::Tcp);
        (manifest.state, manifest.bytes) = (state, bytes);
        manifest.connect(Connection {
            peer: "192.0.2.1:1024".into(),
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

    /// Recovers a folder; the manifest afterwards, how many files were mended, and what the journal names as open.
    fn recover(prepare: Prepare, given_up: bool) -> (Option<Manifest>, u64, Vec<Opened>) {
        let folder = tempfile::tempdir().unwrap();
        let counters = Arc::<Counters>::default();
        {
            let dir = Arc::new(VaultDir::open(folder.path(), Access::PRIVATE).unwrap());
            let (journal, _) = Journal::open(&dir).unwrap();
            journal.opened(opened()).unwrap();
            prepare(&dir, folder.path());
            let pressure = Arc::new(Pressure::new(Arc::clone(&counters)));
            if given_up {
                pressure.give_up_at(Instant::now());
            }
            let names = Arc::<Names>::default();
            let (journal, pool) = (Arc::new(journal), Arc::default());
            let recovery =
                Recovery { dir, journal, pool, pressure, counters: Arc::clone(&counters), hash: true };
            recovery.run(vec![(opened(), names.hold(Source::Tcp, b"name"))]);
            assert!(
                !names.is_held(Source::Tcp, b"name"),
                "a stream that is sent again need not wait any more"
            );
        }
        let dir = VaultDir::open(folder.path(), Access::PRIVATE).unwrap();
        let left = Journal::open(&dir).unwrap().1;
        (dir.manifest("file").ok().flatten(), counters.recovered_files_total.get(), left)
    }

    /// The file is known afterwards as it is, and by its name.
    #[track_caller]
    fn check_mended(prepare: Prepare) -> Manifest {
        let (manifest, mended, left) = recover(prepare, false);
        let manifest = manifest.expect("a manifest");
        assert_eq!((manifest.state, manifest.bytes), (State::Recovered, CONTENT.len() as u64));
        let sha256 = crate::cc::frame::name::hex(&<sha2::Sha256 as sha2::Digest>::digest(CONTENT));
        assert_eq!(manifest.sha256.as_ref(), Some(&sha256));
        assert_eq!((manifest.name.as_str(), manifest.file.as_str()), ("name", "file"));
        assert_eq!((mended, left), (1, vec![]));
        manifest
    }

    #[test]
    fn an_open_file_is_mended() {
        let manifest = check_mended(|dir, path| {
            write(path, CONTENT);
            write_manifest(dir, State::Open, 0);
        });
        assert_eq!(manifest.connections[0].bytes, CONTENT.len() as u64 - 4, "what its connection brought");
    }

    #[test]
    fn so_is_one_that_the_crash_left_without_a_manifest_or_with_an_old_one() {
        check_mended(|_, path| write(path, CONTENT));
        check_mended(|dir, path| {
            write(path, CONTENT);
            write_manifest(dir, State::Closed, 4);
        });
        check_mended(|_, path| {
            write(path, CONTENT);
            std::fs::write(path.join("file.lea.json"), "{\"format").unwrap();
        });
    }

    #[test]
    fn what_is_closed_is_left_as_it_is() {
        let (manifest, mended, left) = recover(
            |dir, path| {
                write(path, CONTENT);
                write_manifest(dir, State::Closed, CONTENT.len() as u64);
            },
            false,
        );
        assert_eq!((manifest.unwrap().state, mended, left), (State::Closed, 0, vec![]));
    }

    #[test]
    fn a_file_that_was_never_made_is_forgotten() {
        assert_eq!(recover(|_, _| {}, false), (None, 0, vec![]));
    }

    #[test]
    fn what_cannot_be_recovered_now_is_looked_at_again() {
        // Somebody put a folder in its place.
        let (manifest, mended, left) =
            recover(|_, path| std::fs::create_dir(path.join("file")).unwrap(), false);
        assert_eq!((manifest, mended, left), (None, 0, vec![opened()]));
        // The receiver is to end.
        let (manifest, mended, left) = recover(|_, path| write(path, CONTENT), true);
        assert_eq!((manifest, mended, left), (None, 0, vec![opened()]));
    }
}
