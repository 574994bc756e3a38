//! Rollback at the start: restores each Kafka stream file to its state at the last checkpoint. Can be
//! interrupted at any point and repeated.
//!
//! A checkpoint includes the resume state, so a file is read only if its resume state does not fit.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::cc::vault::checkpoint::{self, Checkpoint, FileCheckpoint};
use crate::cc::vault::dir::TempManifest;
use crate::cc::vault::journal::JournalEntry;
use crate::cc::vault::manifest::{Manifest, ManifestState};
use crate::cc::vault::pool::BufferSize;
use crate::cc::vault::scan::{FileScan, scan};
use crate::cc::vault::{VaultInner, recover};
use crate::runtime::hex;

/// Restores all files to the last checkpoint.
pub(super) fn roll_back(
    shared: &VaultInner,
    checkpoint: &Checkpoint,
    left: &[JournalEntry],
    dead_letter_bytes: u64,
) -> io::Result<()> {
    let strays = find_strays(shared, checkpoint, left);
    let mut rolled_back = Vec::new();
    for entry in left.iter().chain(&strays) {
        let state = checkpoint.files.get(&entry.file);
        rolled_back.extend(
            shared.disk_retry.retry("cut back", &entry.file, || roll_back_file(shared, state, entry))?,
        );
    }
    if !rolled_back.is_empty() {
        // One syncfs for all files, before their manifests are published.
        shared.dir.sync_all()?;
    }
    let mut files = Vec::with_capacity(rolled_back.len());
    for (entry, staged) in rolled_back {
        shared.dir.publish_manifest(staged)?;
        files.push(entry.file.clone());
        // From here on the journal has the length of the file, and the checkpoint is no longer needed.
        shared.disk_retry.retry("journal", &entry.file, || shared.journal.record_opened(entry.clone()))?;
    }
    shared.dir.sync_names()?;
    shared.journal.sync()?;
    let fresh = Checkpoint {
        files: BTreeMap::new(),
        dead_letter_bytes: Some(dead_letter_bytes),
        ..checkpoint.clone()
    };
    shared.disk_retry.retry("checkpoint", "-", || checkpoint::replace(&shared.dir, &fresh))?;
    shared.disk_retry.retry("journal", "-", || shared.journal.record_closed(&shared.dir, &files))
}

/// Finds files that were closed after the last checkpoint and differ from it, because the next checkpoint
/// could not be written.
fn find_strays(shared: &VaultInner, checkpoint: &Checkpoint, left: &[JournalEntry]) -> Vec<JournalEntry> {
    let left: BTreeSet<&str> = left.iter().map(|entry| entry.file.as_str()).collect();
    let mut strays = Vec::new();
    for state in checkpoint.files.values() {
        // File names have no slash, so a forged line cannot point outside the directory.
        if left.contains(state.file.as_str()) || state.file.contains('/') {
            continue;
        }
        let found = shared.disk_retry.retry("read", &state.file, || file_length(shared, &state.file));
        // A name that is no longer a regular file cannot be truncated. It must not block all other files.
        let differs = match found {
            Ok(found) if found.is_none_or(|bytes| bytes == state.received_bytes()) => continue,
            found => found.is_ok(),
        };
        match shared.dir.manifest(&state.file) {
            Ok(Some(manifest)) if differs && manifest.source.is_kafka() => {
                let name_hex = manifest.name_hex.unwrap_or_else(|| hex::encode(manifest.name.as_bytes()));
                let (part, source) = (manifest.part, manifest.source);
                strays.push(JournalEntry {
                    file: state.file.clone(),
                    name_hex,
                    part,
                    source,
                    bytes: state.bytes,
                });
            }
            _ => log::warn!("checkpoint_line_skipped file={}", state.file.escape_debug()),
        }
    }
    strays
}

/// Returns the length of a file, or `None` if it does not exist.
fn file_length(shared: &VaultInner, file: &str) -> io::Result<Option<u64>> {
    match shared.dir.open_to_read(file) {
        Ok(file) => Ok(Some(file.metadata()?.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Truncates one file and rewrites its manifest. Returns its new journal entry and the temporary manifest, or
/// `None` if the file was never created or is already closed.
fn roll_back_file(
    shared: &VaultInner,
    state: Option<&FileCheckpoint>,
    entry: &JournalEntry,
) -> io::Result<Option<(JournalEntry, TempManifest)>> {
    let file = match shared.dir.open_to_write(&entry.file) {
        Ok(fd) => File::from(fd),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let found = file.metadata()?.len();
    let mut manifest = match shared.dir.manifest(&entry.file) {
        Ok(Some(manifest)) => manifest,
        Ok(None) => new_manifest(entry),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => new_manifest(entry),
        Err(error) => return Err(error),
    };
    let bytes = match state {
        Some(state) => {
            truncate_file(
                &file,
                found,
                state.bytes,
                &hex::decode(&state.pending).unwrap_or_default(),
                entry,
            )?;
            manifest.segments.clone_from(&state.segments);
            state.received_bytes()
        }
        // Only the last journal line is missing.
        None if manifest.state != ManifestState::Open && manifest.bytes == found => return Ok(None),
        None => {
            truncate_file(&file, found, entry.bytes, &[], entry)?;
            entry.bytes
        }
    };
    let resume_state = state.map_or(&manifest.resume_state, |state| &state.resume_state).as_deref();
    let scanned = match resume_state.and_then(|text| FileScan::restore(text, &entry.file, bytes, shared.hash))
    {
        Some(scanned) if file.metadata()?.len() == bytes => scanned,
        _ if bytes == 0 => FileScan::new(shared.hash),
        _ => {
            let mut buffer = shared.pool.take(BufferSize::Scratch);
            scan(&mut shared.dir.open_to_read(&entry.file)?, &mut buffer, shared.hash, |_| {})?
        }
    };
    recover::mark_recovered(&mut manifest, &scanned);
    let staged = shared.dir.write_temp_manifest(&manifest)?;
    log::info!("stream_rolled_back file={} bytes={} previous_bytes={found}", manifest.file, manifest.bytes);
    Ok(Some((JournalEntry { bytes: manifest.bytes, ..entry.clone() }, staged)))
}

/// Sets the file to `bytes` bytes followed by the partial packet of the checkpoint.
fn truncate_file(
    file: &File,
    found: u64,
    bytes: u64,
    pending: &[u8],
    entry: &JournalEntry,
) -> io::Result<()> {
    if found < bytes {
        log::error!("file_too_short file={} bytes={found} checkpoint_bytes={bytes}", entry.file);
        return Ok(());
    }
    file.set_len(bytes)?;
    file.write_all_at(pending, bytes)
}

fn new_manifest(entry: &JournalEntry) -> Manifest {
    let name = hex::decode(&entry.name_hex).unwrap_or_default();
    Manifest::new(&name, entry.file.clone(), entry.part, entry.source)
}
