//! Stored parts of a stream: finds those that a new stream of the same name may continue, and creates the file of the
//! next part. Runs in the stream's own thread, which holds the lock of the name.

use std::io;
use std::os::unix::fs::MetadataExt;

use rustix::io::Errno;

use super::chains::{self, ChainLink};
use super::compare::{StoredPart, StoredPiece};
use super::continuation::Continuation;
use super::journal::JournalEntry;
use super::manifest::{self, ManifestState, StreamSource};
use super::name_locks::NameLock;
use super::pending_stream::StreamOrigin;
use super::pool::BufferSize;
use super::{VaultInner, recover};
use crate::cc::wire::name;
use crate::runtime::hex;

/// Parts of one name that may be unreadable because of the disk.
const DISK_ERRORS_MAX: usize = 8;

/// Returns the parts stored under the name that a stream may continue, or may be a re-send of.
pub(super) fn find(
    shared: &VaultInner,
    name_lock: &NameLock,
    origin: &StreamOrigin,
) -> io::Result<Vec<StoredPart>> {
    let base = name::file_name(name_lock.name());
    let mut parts = Vec::new();
    let mut errors = 0;
    for part in 1.. {
        let file = name::part_file_name(&base, part);
        // A transient error (such as too few descriptors) must not look like a foreign file.
        match shared.disk_retry.retry("read", &file, || look_up(shared, &file, origin)) {
            Ok(PartLookup::Stored(stored)) => parts.push(*stored),
            Ok(PartLookup::Free) => break,
            Ok(PartLookup::Foreign) => {}
            // The disk fails, rather than one file: the next one would not help.
            Err(error) if is_of_disk(&error) && errors >= DISK_ERRORS_MAX => return Err(error),
            Err(error) => {
                errors += usize::from(is_of_disk(&error));
                log::warn!(
                    "stored_file_unusable file={file} error=\"{error}\" note=\"not changed; the stream gets another file\""
                );
            }
        }
        name_lock.mark_part_taken(part);
    }
    Ok(join_rotated(parts))
}

/// Joins the files of rotated streams. A file whose predecessor is missing stays: its sender may go on.
fn join_rotated(parts: Vec<StoredPart>) -> Vec<StoredPart> {
    if !parts.iter().any(StoredPart::is_rotated) {
        return parts;
    }
    let links: Vec<ChainLink<'_>> =
        parts.iter().map(|part| ChainLink { manifest: &part.manifest, bytes: part.bytes }).collect();
    let join = |chain: Vec<usize>| {
        let (last, before) = chain.split_last()?;
        let mut earlier: Vec<StoredPiece> = Vec::with_capacity(before.len());
        for part in before.iter().map(|part| &parts[*part]) {
            let at = earlier.last().map_or(0, |piece| piece.end);
            let header_bytes = part.manifest.header_bytes();
            let end = at + part.bytes - header_bytes;
            earlier.push(StoredPiece { file: part.manifest.file.clone(), header_bytes, at, end });
        }
        let part = &parts[*last];
        let at = earlier.last().map_or(0, |piece| piece.end);
        let bytes = at + part.bytes - part.manifest.header_bytes();
        Some(StoredPart { manifest: part.manifest.clone(), bytes, continuation: part.continuation, earlier })
    };
    // Of a stream without its start, only the last file counts.
    let chains = chains::chains(&links).into_iter().map(|chain| match parts[chain[0]].is_rotated() {
        true => chain[chain.len() - 1..].to_vec(),
        false => chain,
    });
    chains.filter_map(join).collect()
}

/// Returns false for an error of one file: a link, a directory or a malformed manifest in its place.
fn is_of_disk(error: &io::Error) -> bool {
    Errno::from_io_error(error).is_some_and(|errno| errno != Errno::LOOP)
}

pub(super) enum PartLookup {
    /// A part that can be continued.
    Stored(Box<StoredPart>),
    /// A file that lea did not write, that has another source, or that is incomplete.
    Foreign,
    /// No such file exists.
    Free,
}

pub(super) fn look_up(shared: &VaultInner, file: &str, origin: &StreamOrigin) -> io::Result<PartLookup> {
    let Some(mut manifest) = shared.dir.manifest(file)? else {
        return Ok(if shared.dir.name_exists(file)? { PartLookup::Foreign } else { PartLookup::Free });
    };
    if manifest.state == ManifestState::Open {
        // Looking at earlier parts can take longer than a stream of the same name waits, so this may be that stream's
        // part.
        if shared.journal.is_open(file) {
            return Ok(PartLookup::Foreign);
        }
        // The journal forgets a part after its manifest is closed, so the manifest may just have been closed.
        manifest = shared.dir.manifest(file)?.unwrap_or(manifest);
    }
    let metadata = match shared.dir.open_to_read(file) {
        Ok(file) => file.metadata()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(PartLookup::Foreign),
        Err(error) => return Err(error),
    };
    if manifest.state == ManifestState::Open {
        // A power failure lost its line in the journal.
        let mut buffer = shared.pool.take(BufferSize::Scratch);
        let stopping = || shared.disk_retry.has_given_up();
        recover::rebuild_manifest(&shared.dir, &mut manifest, shared.hash, &mut buffer, &stopping)?;
    }
    if !manifest.source.is_same_stream(origin.source) {
        return Ok(PartLookup::Foreign);
    }
    let bytes = metadata.len();
    if bytes != manifest.bytes {
        log::warn!("stored_file_changed file={file} bytes={bytes} manifest_bytes={}", manifest.bytes);
        return Ok(PartLookup::Foreign);
    }
    let modified_ms = metadata.mtime().saturating_mul(1000) + metadata.mtime_nsec() / 1_000_000;
    let continuation = Continuation::decide(&manifest, modified_ms, origin, shared.continue_within);
    Ok(PartLookup::Stored(Box::new(StoredPart { manifest, bytes, continuation, earlier: Vec::new() })))
}

/// Returns the part that was written last, of those that may be continued if there are any, else of those of the same
/// address.
pub(super) fn last_written(stored: &[StoredPart]) -> Option<&StoredPart> {
    let rank = |stored: &StoredPart| match stored.continuation {
        Continuation::Allowed => 2,
        Continuation::TooLate | Continuation::TooManyConnections => 1,
        Continuation::OtherAddress => 0,
    };
    stored.iter().max_by_key(|stored| {
        (rank(stored), stored.manifest.last_written_at().map(str::to_owned), stored.manifest.part)
    })
}

/// Creates the file of the next free part, after its line in the journal.
pub(super) fn create_file(
    shared: &VaultInner,
    name_lock: &NameLock,
    source: StreamSource,
) -> io::Result<(String, u32)> {
    let base = name::file_name(name_lock.name());
    // Serialised, so that the journal line and the file are created together.
    let _creating = shared.creating.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    for part in name_lock.next_part().. {
        let file = name::part_file_name(&base, part);
        if shared.dir.name_exists(&file)? || shared.dir.name_exists(&manifest::file_name(&file))? {
            continue;
        }
        shared.journal.record_opened(journal_entry(name_lock, file.clone(), part, source, 0))?;
        shared.dir.create(&file)?;
        name_lock.mark_part_taken(part);
        return Ok((file, part));
    }
    Err(io::Error::other("no part number is free"))
}

pub(super) fn journal_entry(
    name_lock: &NameLock,
    file: String,
    part: u32,
    source: StreamSource,
    bytes: u64,
) -> JournalEntry {
    JournalEntry { file, name_hex: hex::encode(name_lock.name()), part, source, bytes }
}
