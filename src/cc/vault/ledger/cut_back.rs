//! The start after a crash: each file that was open is made what it was at the last checkpoint.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::super::checkpoint::{self, Checkpoint, FileState};
use super::super::journal::Opened;
use super::super::manifest::{Manifest, State};
use super::super::pool::Size;
use super::super::{Shared, recover, unhex};

/// Makes the files what they were at the last checkpoint. Can be cut off at any point and done again.
pub(super) fn cut_back(
    shared: &Shared,
    checkpoint: &Checkpoint,
    left: &[Opened],
    dead_letter_bytes: u64,
) -> io::Result<()> {
    let mut files = Vec::new();
    for opened in left {
        let Some(bytes) = cut_back_one(shared, checkpoint.files.get(&opened.file), opened)? else { continue };
        // From now on the journal says how long the file is, and no round needs to.
        shared.journal.opened(Opened { bytes, ..opened.clone() })?;
        files.push(opened.file.clone());
    }
    shared.journal.sync()?;
    let fresh = Checkpoint {
        files: BTreeMap::new(),
        dead_letter_bytes: Some(dead_letter_bytes),
        ..checkpoint.clone()
    };
    checkpoint::replace(&shared.dir, &fresh)?;
    shared.journal.closed(&shared.dir, &files)
}

/// Cuts one file back and mends its manifest; gives its length. `None`: it was never made.
fn cut_back_one(shared: &Shared, state: Option<&FileState>, opened: &Opened) -> io::Result<Option<u64>> {
    let fd = match shared.dir.open_to_write(&opened.file) {
        Ok(fd) => fd,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let file = File::from(fd);
    let (bytes, pending) = match state {
        Some(state) => (state.bytes, unhex(&state.pending).unwrap_or_default()),
        None => (opened.bytes, Vec::new()),
    };
    let found = file.metadata()?.len();
    if found < bytes {
        log::error!("file_too_short file={} bytes={found} checkpoint_bytes={bytes}", opened.file);
    } else {
        file.set_len(bytes)?;
        file.write_all_at(&pending, bytes)?;
    }
    let name = unhex(&opened.name_hex).unwrap_or_default();
    let mut manifest = match shared.dir.manifest(&opened.file) {
        Ok(Some(manifest)) => manifest,
        Ok(None) => Manifest::new(&name, opened.file.clone(), opened.part, opened.source),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Manifest::new(&name, opened.file.clone(), opened.part, opened.source)
        }
        Err(error) => return Err(error),
    };
    if let Some(state) = state {
        manifest.segments.clone_from(&state.segments);
    }
    manifest.state = State::Open;
    let mut buffer = shared.pool.take(Size::Scratch);
    recover::mend(&shared.dir, &mut manifest, shared.hash, &mut buffer, &|| false)?;
    log::info!("stream_cut_back file={} bytes={} was={found}", manifest.file, manifest.bytes);
    Ok(Some(manifest.bytes))
}
