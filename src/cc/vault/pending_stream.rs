//! A stream before its first content: its name is locked, and the parts stored under the name are known. Runs in the
//! stream's own thread.

use std::io::{self, Read};
use std::sync::Arc;

use super::VaultInner;
use super::compare::StoredPart;
use super::insertion::{self, LateRecord};
use super::manifest::{Manifest, RecordSegment, StreamSource};
use super::name_locks::{LockMode, NameLock};
use super::stored_parts;
use super::stream_writer::StreamWriter;
use crate::capture::formats::HEADER_BYTES_MAX;

/// Where a stream comes from.
#[derive(Clone, Debug)]
pub struct StreamOrigin {
    pub source: StreamSource,
    /// Address of the sender.
    pub peer: String,
    /// The name as sent, if padding was removed from it.
    pub raw_name: Option<Vec<u8>>,
    /// Time of the connection, in milliseconds since 1970.
    pub connected_ms: i64,
}

/// How the content of a stream starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamStart {
    /// A capture header: this is the first byte of the stream.
    NewCapture,
    /// Anything else: the stream continues where an earlier connection ended.
    Continuation,
}

/// A stream whose name is locked and that has no content yet.
pub struct PendingStream {
    shared: Arc<VaultInner>,
    name_lock: NameLock,
    origin: StreamOrigin,
    stored: Vec<StoredPart>,
}

impl PendingStream {
    pub(super) fn new(
        shared: Arc<VaultInner>,
        name_lock: NameLock,
        origin: StreamOrigin,
    ) -> io::Result<PendingStream> {
        let stored = match name_lock.mode() {
            LockMode::Exclusive => stored_parts::find(&shared, &name_lock, &origin)?,
            LockMode::Concurrent => Vec::new(),
        };
        Ok(PendingStream { shared, name_lock, origin, stored })
    }

    /// Returns whether parts are stored under the name, so that the first bytes decide how to continue.
    pub fn has_stored_parts(&self) -> bool {
        !self.stored.is_empty()
    }

    /// Returns whether the first bytes decide how the stream starts, because there is something that it may continue.
    pub fn needs_start(&self) -> bool {
        self.has_stored_parts() || !self.is_exclusive()
    }

    /// Returns the Kafka records that the stored parts consist of.
    pub(super) fn stored_segments(&self) -> impl Iterator<Item = &RecordSegment> {
        self.stored.iter().flat_map(|stored| &stored.manifest.segments)
    }

    /// Returns the manifest of the stored file, if there is exactly one and it is the first of its name.
    pub(super) fn first_part(&self) -> Option<&Manifest> {
        match &self.stored[..] {
            [stored] if stored.manifest.part == 1 => Some(&stored.manifest),
            _ => None,
        }
    }

    /// Returns whether a record can be inserted into the stored file.
    pub(super) fn can_insert(&self, record: &LateRecord) -> io::Result<bool> {
        let Some(manifest) = self.first_part().filter(|manifest| manifest.segments_omitted == 0) else {
            return Ok(false);
        };
        let head = self.read_stored_head(HEADER_BYTES_MAX)?;
        Ok(insertion::is_possible(&manifest.segments, manifest.bytes, &head, record))
    }

    /// Returns whether no other stream of the name is open.
    pub fn is_exclusive(&self) -> bool {
        self.name_lock.mode() == LockMode::Exclusive
    }

    /// Returns the first `bytes` bytes of the part that was written last, or fewer if it is shorter.
    pub(crate) fn read_stored_head(&self, bytes: usize) -> io::Result<Vec<u8>> {
        let Some(last) = stored_parts::last_written(&self.stored) else { return Ok(Vec::new()) };
        let mut head = Vec::new();
        let file = self.shared.dir.open_to_read(&last.manifest.file)?;
        file.take(bytes as u64).read_to_end(&mut head)?;
        Ok(head)
    }

    /// Opens the file and starts the stream. `start` is ignored if nothing is stored under the name.
    pub fn start(self, start: StreamStart) -> io::Result<StreamWriter> {
        let PendingStream { shared, name_lock, origin, stored } = self;
        StreamWriter::start(shared, name_lock, origin, stored, start)
    }

    /// Starts a re-send of which `received` bytes were equal to a stored file, without receiving them again.
    pub(super) fn resume_comparison(self, received: u64, file: Option<&str>) -> io::Result<StreamWriter> {
        let mut writer = self.start(StreamStart::NewCapture)?;
        writer.replay_comparison(received, file)?;
        Ok(writer)
    }
}
