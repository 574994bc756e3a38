//! The start after a crash: each file that was written is made what it was at the last checkpoint. Can be cut off at
//! any point and done again.
//!
//! A checkpoint has the state of packets and hash, so a file is read only where that does not fit.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::super::checkpoint::{self, Checkpoint, FileState};
use super::super::dir::Staged;
use super::super::journal::Opened;
use super::super::manifest::{Manifest, Source, State};
use super::super::pool::Size;
use super::super::scan::{Scan, scan};
use super::super::{Shared, recover, unhex};
use crate::cc::frame::name::hex;

/// Makes the files what they were at the last checkpoint.
pub(super) fn cut_back(
    shared: &Shared,
    checkpoint: &Checkpoint,
    left: &[Opened],
    dead_letter_bytes: u64,
) -> io::Result<()> {
    let strays = strays(shared, checkpoint, left);
    let mut cut = Vec::new();
    for opened in left.iter().chain(&strays) {
        let state = checkpoint.files.get(&opened.file);
        cut.extend(
            shared.pressure.persist("cut back", &opened.file, || cut_back_one(shared, state, opened))?,
        );
    }
    if !cut.is_empty() {
        // One sync for all, before the manifests that vouch for it take their places.
        shared.dir.sync_all()?;
    }
    let mut files = Vec::with_capacity(cut.len());
    for (opened, staged) in cut {
        shared.dir.publish(staged)?;
        files.push(opened.file.clone());
        // From now on the journal says how long the file is, and no round needs to.
        shared.pressure.persist("journal", &opened.file, || shared.journal.opened(opened.clone()))?;
    }
    shared.dir.sync_names()?;
    shared.journal.sync()?;
    let fresh = Checkpoint {
        files: BTreeMap::new(),
        dead_letter_bytes: Some(dead_letter_bytes),
        ..checkpoint.clone()
    };
    shared.pressure.persist("checkpoint", "-", || checkpoint::replace(&shared.dir, &fresh))?;
    shared.pressure.persist("journal", "-", || shared.journal.closed(&shared.dir, &files))
}

/// Files that were closed after the last checkpoint and hold other bytes than it says: it could not be written.
fn strays(shared: &Shared, checkpoint: &Checkpoint, left: &[Opened]) -> Vec<Opened> {
    let left: BTreeSet<&str> = left.iter().map(|opened| opened.file.as_str()).collect();
    let mut strays = Vec::new();
    for state in checkpoint.files.values() {
        // A file's name has no slash, so a line that somebody else wrote leads nowhere else.
        if left.contains(state.file.as_str()) || state.file.contains('/') {
            continue;
        }
        let found = shared.pressure.persist("read", &state.file, || length(shared, &state.file));
        // What is no file any more cannot be cut, and must not hold up all others.
        let differs = match found {
            Ok(found) if found.is_none_or(|bytes| bytes == state.received()) => continue,
            found => found.is_ok(),
        };
        match shared.dir.manifest(&state.file) {
            Ok(Some(manifest)) if differs && manifest.source == Source::Kafka => {
                let name_hex = manifest.name_hex.unwrap_or_else(|| hex(manifest.name.as_bytes()));
                let (part, source) = (manifest.part, manifest.source);
                strays.push(Opened { file: state.file.clone(), name_hex, part, source, bytes: state.bytes });
            }
            _ => log::warn!("checkpoint_line_passed_over file={}", state.file.escape_debug()),
        }
    }
    strays
}

/// A file's length; none if there is none.
fn length(shared: &Shared, file: &str) -> io::Result<Option<u64>> {
    match shared.dir.open_to_read(file) {
        Ok(file) => Ok(Some(file.metadata()?.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Cuts one file back and mends its manifest; gives how long the file is then, and the manifest beside its place.
/// `None`: it was never made, or closed in good order.
fn cut_back_one(
    shared: &Shared,
    state: Option<&FileState>,
    opened: &Opened,
) -> io::Result<Option<(Opened, Staged)>> {
    let file = match shared.dir.open_to_write(&opened.file) {
        Ok(fd) => File::from(fd),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let found = file.metadata()?.len();
    let mut manifest = match shared.dir.manifest(&opened.file) {
        Ok(Some(manifest)) => manifest,
        Ok(None) => fresh_manifest(opened),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => fresh_manifest(opened),
        Err(error) => return Err(error),
    };
    let bytes = match state {
        Some(state) => {
            cut(&file, found, state.bytes, &unhex(&state.pending).unwrap_or_default(), opened)?;
            manifest.segments.clone_from(&state.segments);
            state.received()
        }
        // Only the journal's last line is missing.
        None if manifest.state != State::Open && manifest.bytes == found => return Ok(None),
        None => {
            cut(&file, found, opened.bytes, &[], opened)?;
            opened.bytes
        }
    };
    let midstate = state.map_or(&manifest.midstate, |state| &state.midstate).as_deref();
    let scanned = match midstate.and_then(|text| Scan::restore(text, &opened.file, bytes, shared.hash)) {
        Some(scanned) if file.metadata()?.len() == bytes => scanned,
        _ if bytes == 0 => Scan::new(shared.hash),
        _ => {
            let mut buffer = shared.pool.take(Size::Scratch);
            scan(&mut shared.dir.open_to_read(&opened.file)?, &mut buffer, shared.hash, |_| {})?
        }
    };
    recover::note_recovered(&mut manifest, &scanned);
    let staged = shared.dir.stage(&manifest)?;
    log::info!("stream_cut_back file={} bytes={} was={found}", manifest.file, manifest.bytes);
    Ok(Some((Opened { bytes: manifest.bytes, ..opened.clone() }, staged)))
}

/// Makes the file `bytes` bytes long, with what was kept back behind them.
fn cut(file: &File, found: u64, bytes: u64, pending: &[u8], opened: &Opened) -> io::Result<()> {
    if found < bytes {
        log::error!("file_too_short file={} bytes={found} checkpoint_bytes={bytes}", opened.file);
        return Ok(());
    }
    file.set_len(bytes)?;
    file.write_all_at(pending, bytes)
}

fn fresh_manifest(opened: &Opened) -> Manifest {
    let name = unhex(&opened.name_hex).unwrap_or_default();
    Manifest::new(&name, opened.file.clone(), opened.part, opened.source)
}
