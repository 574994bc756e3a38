//! Stored parts of a stream: finds those that a new stream of the same name may continue, and creates the file of the
//! next part. Runs in the stream's own thread, which holds the lock of the name.

use std::io;

use super::compare::StoredPart;
use super::journal::JournalEntry;
use super::manifest::{self, ManifestState, StreamSource};
use super::name_locks::NameLock;
use super::pool::BufferSize;
use super::{VaultInner, recover};
use crate::cc::wire::name;
use crate::runtime::hex;

/// Returns the parts stored under the name that a stream may continue.
pub(super) fn find(
    shared: &VaultInner,
    name_lock: &NameLock,
    source: StreamSource,
) -> io::Result<Vec<StoredPart>> {
    let base = name::file_name(name_lock.name());
    let mut parts = Vec::new();
    for part in 1.. {
        let file = name::part_file_name(&base, part);
        // A transient error (such as too few descriptors) must not look like a foreign file.
        match shared.disk_retry.retry("read", &file, || look_up(shared, &file, source)) {
            Ok(PartLookup::Stored(stored)) => parts.push(*stored),
            Ok(PartLookup::Free) => break,
            Ok(PartLookup::Foreign) => {}
            Err(error) => log::warn!(
                "stored_file_unusable file={file} error=\"{error}\" note=\"not changed; the stream gets another file\""
            ),
        }
        name_lock.mark_part_taken(part);
    }
    Ok(parts)
}

pub(super) enum PartLookup {
    /// A part that can be continued.
    Stored(Box<StoredPart>),
    /// A file that lea did not write, that has another source, or that is incomplete.
    Foreign,
    /// No such file exists.
    Free,
}

pub(super) fn look_up(shared: &VaultInner, file: &str, source: StreamSource) -> io::Result<PartLookup> {
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
    let bytes = match shared.dir.open_to_read(file) {
        Ok(file) => file.metadata()?.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(PartLookup::Foreign),
        Err(error) => return Err(error),
    };
    if manifest.state == ManifestState::Open {
        // A power failure lost its line in the journal.
        let mut buffer = shared.pool.take(BufferSize::Scratch);
        let stopping = || shared.disk_retry.has_given_up();
        recover::rebuild_manifest(&shared.dir, &mut manifest, shared.hash, &mut buffer, &stopping)?;
    }
    if !manifest.source.is_same_stream(source) {
        return Ok(PartLookup::Foreign);
    }
    if bytes != manifest.bytes {
        log::warn!("stored_file_changed file={file} bytes={bytes} manifest_bytes={}", manifest.bytes);
        return Ok(PartLookup::Foreign);
    }
    Ok(PartLookup::Stored(Box::new(StoredPart { manifest, bytes })))
}

/// Returns the part that was written last.
pub(super) fn last_written(stored: &[StoredPart]) -> Option<&StoredPart> {
    stored.iter().max_by(|a, b| {
        let key = |stored: &StoredPart| {
            (stored.manifest.last_written_at().map(str::to_owned), stored.manifest.part)
        };
        key(a).cmp(&key(b))
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
