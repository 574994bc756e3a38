//! The path of one stream to its file, in the stream's own thread. Decides whether the stream is new,
//! continues a stored file, is a re-send, or differs from everything stored.

mod rotate;

use std::io;
use std::sync::Arc;

use super::VaultInner;
use super::checkpoint::FileCheckpoint;
use super::compare::{CompareOutcome, Divergence, ResendComparison, StoredPart};
use super::continuation::Continuation;
use super::damage::Damage;
use super::manifest::{
    EndReason, Manifest, ManifestState, OffsetGap, PartPosition, RecordSegment, StreamConnection,
    StreamSource,
};
use super::name_locks::{LockMode, NameLock};
use super::packet_aligner::PacketAligner;
use super::part::StreamPart;
use super::pending_stream::{StreamOrigin, StreamStart};
use super::pool::{Buffer, BufferSize};
use super::rotation::{HeaderReader, Rotator};
use super::scan::{FileScan, scan};
use super::segments::SegmentList;
use super::stored_parts::{self, last_written};
use super::syncer::EndedStream;
use super::writer::WriteJob;
use crate::capture::header_copy::HeaderCopy;
use crate::cc::wire::name;
use crate::runtime::hex;
use crate::runtime::time::{now_ms, rfc3339_ms};

/// An open stream that writes to its file. If it is dropped without [`finish`](Self::finish), it ends as
/// `io_error`.
pub struct StreamWriter {
    shared: Arc<VaultInner>,
    name_lock: Option<NameLock>,
    origin: StreamOrigin,
    state: WriterState,
    first_byte_ms: i64,
    last_byte_ms: i64,
    /// Whether the stream continues a part after it was sent from its start.
    is_resend: bool,
    /// Bytes that cannot be stored, of a stream without a part.
    lost_bytes: u64,
    /// Ends the file and starts the next one. `None`: the stream has one file.
    rotator: Option<Rotator>,
    /// What is known of the files that rotations have ended.
    rotated: RotatedFiles,
}

/// Files of a stream that rotations have ended since it was opened.
#[derive(Default)]
struct RotatedFiles {
    packets: u64,
    damage: Vec<Damage>,
}

/// What is known about a stream when its last byte is queued.
#[derive(Debug, Default)]
pub struct StreamEnd {
    /// The file that has its bytes. `None` if there is none.
    pub file: Option<String>,
    /// What is wrong with the file.
    pub damage: Vec<Damage>,
}

/// What a new part has to do with another part of its name.
enum PartRelation {
    None,
    /// Its first byte is not the start of a stream. The reason says why it was not appended.
    Continues(PartPosition, &'static str),
    /// Its first bytes are those of the other part.
    Repeats(PartPosition, &'static str),
}

enum WriterState {
    /// A re-send: all received bytes are already stored.
    Comparing(Box<ResendComparison>),
    /// New bytes are written to this part.
    Writing(Arc<StreamPart>),
    Ended,
}

impl StreamWriter {
    /// Opens the file of a stream. `stored` are the parts that it may continue.
    pub(super) fn start(
        shared: Arc<VaultInner>,
        name_lock: NameLock,
        origin: StreamOrigin,
        stored: Vec<StoredPart>,
        start: StreamStart,
    ) -> io::Result<StreamWriter> {
        let aligner = PacketAligner::new(shared.hash);
        let is_rotated = origin.source == StreamSource::Tcp && !shared.rotation.is_off();
        let rotator = is_rotated.then(|| Rotator::new(shared.rotation));
        let mut writer = StreamWriter {
            shared,
            name_lock: Some(name_lock),
            origin,
            state: WriterState::Ended,
            first_byte_ms: 0,
            last_byte_ms: 0,
            is_resend: false,
            lost_bytes: 0,
            rotator,
            rotated: RotatedFiles::default(),
        };
        let has_start =
            |start| start == StreamStart::Continuation || stored.iter().any(StoredPart::has_start);
        writer.state = match start {
            _ if stored.is_empty() || !has_start(start) => {
                let relation = writer.relation_to_open_part(start);
                WriterState::Writing(writer.create_part(aligner, relation)?)
            }
            StreamStart::NewCapture => {
                let whole = stored.into_iter().filter(StoredPart::has_start).collect();
                WriterState::Comparing(Box::new(ResendComparison::new(aligner, whole)))
            }
            StreamStart::Continuation => WriterState::Writing(writer.continue_last_part(stored)?),
        };
        Ok(writer)
    }

    /// Compares the first `received` bytes of a stored file, which were equal to the stream, instead of receiving them
    /// again.
    pub(super) fn replay_comparison(&mut self, received: u64, file: Option<&str>) -> io::Result<()> {
        let shared = &self.shared;
        let WriterState::Comparing(comparison) = &mut self.state else { return Ok(()) };
        let fits = |stored: &&StoredPart| {
            stored.bytes >= received && file.is_none_or(|file| file == stored.manifest.file)
        };
        let Some(stored) = comparison.candidates.iter().find(fits).cloned() else {
            return Err(io::Error::other("the stored file that was equal to the stream no longer exists"));
        };
        let mut buffer = shared.pool.take(BufferSize::Scratch);
        let mut scratch = shared.pool.take(BufferSize::Scratch);
        loop {
            let at = comparison.aligner.tracker().received();
            if at >= received {
                return Ok(());
            }
            let some = buffer.len().min(usize::try_from(received - at).unwrap_or(usize::MAX));
            stored.read_exact_at(&shared.dir, &mut buffer[..some], at)?;
            comparison.compare(&shared.dir, &shared.disk_retry, &buffer[..some], &mut scratch);
        }
    }

    /// Accepts the next `bytes` bytes of `buffer`. An error means that the file cannot be written; it ends
    /// the stream.
    pub fn feed(&mut self, mut buffer: Buffer, mut bytes: usize) -> io::Result<()> {
        self.last_byte_ms = now_ms();
        if self.first_byte_ms == 0 {
            self.first_byte_ms = self.last_byte_ms;
        }
        if let WriterState::Comparing(comparison) = &mut self.state {
            let mut scratch = self.shared.pool.take(BufferSize::Scratch);
            match comparison.compare(
                &self.shared.dir,
                &self.shared.disk_retry,
                &buffer[..bytes],
                &mut scratch,
            ) {
                CompareOutcome::Equal => {
                    self.shared.metrics.compared_bytes_total.add(bytes as u64);
                    return Ok(());
                }
                CompareOutcome::Diverged(divergence) => {
                    drop(scratch);
                    let stored_bytes = divergence.prefix_bytes().max(comparison.aligner.tracker().received());
                    let end = comparison.aligner.tracker().received() + bytes as u64;
                    match self.switch_to_new_part(*divergence) {
                        Ok(stored) => {
                            buffer.copy_within(stored..bytes, 0);
                            bytes -= stored;
                        }
                        Err(error) => {
                            self.record_loss(end - stored_bytes);
                            return Err(error);
                        }
                    }
                }
            }
        }
        self.store(buffer, bytes)
    }

    /// Records that `bytes` more bytes were received and cannot be stored.
    pub fn record_loss(&mut self, bytes: u64) {
        match &self.state {
            WriterState::Writing(part) => self.shared.queue.record_loss(part, bytes),
            WriterState::Comparing(_) | WriterState::Ended => self.lost_bytes += bytes,
        }
    }

    /// Returns the file of the stream, once it is decided.
    pub fn file(&self) -> Option<&str> {
        match &self.state {
            WriterState::Writing(part) => Some(&part.file),
            WriterState::Comparing(_) | WriterState::Ended => None,
        }
    }

    /// Returns whether the stream writes to the first file of its name.
    pub(super) fn is_first_part(&self, name: &[u8]) -> bool {
        self.file().is_some_and(|file| file == name::file_name(name))
    }

    /// Returns the number of bytes of the stream, including those that were already in its file.
    pub(super) fn received_bytes(&self) -> u64 {
        match &self.state {
            WriterState::Writing(part) => part.aligner().tracker().received(),
            WriterState::Comparing(comparison) => comparison.aligner.tracker().received(),
            WriterState::Ended => 0,
        }
    }

    /// Returns the number of equal bytes while the stream is compared.
    pub(super) fn compared_bytes(&self) -> Option<u64> {
        match &self.state {
            WriterState::Comparing(comparison) => Some(comparison.aligner.tracker().received()),
            WriterState::Writing(_) | WriterState::Ended => None,
        }
    }

    /// Returns the checkpoint of the file after all queued jobs. The caller provides the segments.
    pub(super) fn checkpoint(&self, segments: Vec<RecordSegment>) -> Option<FileCheckpoint> {
        let WriterState::Writing(part) = &self.state else { return None };
        let aligner = part.aligner();
        Some(FileCheckpoint {
            file: part.file.clone(),
            bytes: aligner.written_bytes(),
            pending: hex::encode(aligner.pending()),
            resume_state: Some(aligner.resume_state(part.hasher())),
            segments,
        })
    }

    /// Writes the partial packet. Returns whether there was one.
    pub(super) fn flush(&self) -> bool {
        match &self.state {
            WriterState::Writing(part) => self.shared.queue.flush_part(part),
            WriterState::Comparing(_) | WriterState::Ended => false,
        }
    }

    /// Returns the segments in the manifest of the file.
    pub(super) fn segments(&self) -> Vec<RecordSegment> {
        match &self.state {
            WriterState::Writing(part) => part.manifest().segments.clone(),
            WriterState::Comparing(_) | WriterState::Ended => Vec::new(),
        }
    }

    /// Returns a stored file that contains the whole stream, while the stream is compared.
    pub(super) fn compared_file(&self) -> Option<String> {
        match &self.state {
            WriterState::Comparing(comparison) => {
                comparison.matching_part().map(|stored| stored.manifest.file.clone())
            }
            WriterState::Writing(_) | WriterState::Ended => None,
        }
    }

    /// Puts the segments of the stream into its manifest.
    pub(super) fn set_segments(&mut self, segments: SegmentList) {
        match &mut self.state {
            WriterState::Writing(part) => set_manifest_segments(&mut part.manifest(), segments),
            WriterState::Comparing(comparison) => {
                let compared = segments.into_compared();
                for stored in &mut comparison.candidates {
                    let mut all = SegmentList::new(std::mem::take(&mut stored.manifest.segments));
                    all.append(compared.clone());
                    set_manifest_segments(&mut stored.manifest, all);
                }
            }
            WriterState::Ended => {}
        }
    }

    /// Puts the gaps between the records of the file into its manifest.
    pub(super) fn set_gaps(&mut self, gaps: Vec<OffsetGap>) {
        if let WriterState::Writing(part) = &mut self.state {
            part.manifest().set_gaps(gaps);
        }
    }

    /// Returns the number of complete packets of the stream.
    pub fn packets(&self) -> u64 {
        match &self.state {
            WriterState::Writing(part) => self.rotated.packets + part.aligner().tracker().packets(),
            WriterState::Comparing(comparison) => comparison.aligner.tracker().packets(),
            WriterState::Ended => 0,
        }
    }

    /// Ends the stream: writes the remaining bytes and then the manifest.
    pub fn finish(mut self, reason: EndReason) -> StreamEnd {
        self.end(reason)
    }

    fn end(&mut self, reason: EndReason) -> StreamEnd {
        let Some(mut name_lock) = self.name_lock.take() else { return StreamEnd::default() };
        if self.lost_bytes > 0 {
            self.shared.metrics.streams_failed_total.inc();
            self.shared.record_loss(&name::file_name(name_lock.name()), self.lost_bytes);
        }
        let part = match std::mem::replace(&mut self.state, WriterState::Ended) {
            WriterState::Writing(part) => self.end_writing(part, reason),
            WriterState::Comparing(comparison) => self.end_comparing(&comparison, reason),
            WriterState::Ended => None,
        };
        let Some(part) = part else { return StreamEnd::default() };
        let file = Some(part.file.clone());
        let mut damage = std::mem::take(&mut self.rotated.damage);
        name_lock.mark_closing();
        damage.extend(self.close_part(part, Some(name_lock)));
        StreamEnd { file, damage }
    }

    /// Hands an ended part to the writer. Returns what is wrong with it.
    fn close_part(&self, part: Arc<StreamPart>, name_lock: Option<NameLock>) -> Vec<Damage> {
        let damage = part.manifest().damage();
        damage.iter().for_each(|damage| damage.count(&self.shared.metrics));
        self.shared.queue.unregister_part(&part);
        // The writer thread reports its own error.
        let _ = self.shared.queue.send(WriteJob::Close(EndedStream { part, name_lock }));
        damage
    }

    fn end_writing(&self, part: Arc<StreamPart>, reason: EndReason) -> Option<Arc<StreamPart>> {
        self.shared.queue.flush_part(&part);
        let aligner = part.aligner();
        let mut manifest = part.manifest();
        manifest.state = ManifestState::Closed;
        manifest.end_reason = Some(reason);
        manifest.bytes = aligner.tracker().received();
        manifest.sha256 = aligner.sha256();
        manifest.capture = aligner.tracker().summary();
        manifest.resume_state = part.is_from_kafka.then(|| aligner.resume_state(None));
        let (bytes, lost_before) = (manifest.bytes, manifest.lost_bytes);
        if let Some(connection) = manifest.connections.last_mut() {
            connection.bytes = bytes.saturating_sub(connection.offset);
            self.close_connection(connection, reason);
            if self.is_resend {
                // The stream was sent again from its start, so what had been lost at its end may be here now.
                manifest.lost_bytes = lost_before.saturating_sub(connection.bytes);
            }
        }
        drop((aligner, manifest));
        Some(part)
    }

    /// Ends a re-send whose bytes are all stored. Only a connection is added to the manifest.
    fn end_comparing(&self, comparison: &ResendComparison, reason: EndReason) -> Option<Arc<StreamPart>> {
        let stored = comparison.matching_part()?;
        let received = comparison.aligner.tracker().received();
        let mut connection = self.new_connection(stored.file_bytes());
        connection.compared_bytes = received;
        self.close_connection(&mut connection, reason);
        let mut manifest = stored.manifest.clone();
        manifest.add_connection(connection);
        if received == stored.bytes {
            manifest.end_reason = Some(reason);
            if reason == EndReason::Eof && stored.continuation != Continuation::OtherAddress {
                // The file has everything that its sender has, so an earlier crash is repaired.
                manifest.state = ManifestState::Closed;
            }
        }
        Some(Arc::new(StreamPart::new(self.shared.allocate_part_id(), PacketAligner::new(false), manifest)))
    }

    fn close_connection(&self, connection: &mut StreamConnection, reason: EndReason) {
        let time = |ms| (ms != 0).then(|| rfc3339_ms(ms));
        connection.first_byte_at = time(self.first_byte_ms);
        connection.last_byte_at = time(self.last_byte_ms);
        connection.ended_at = Some(rfc3339_ms(now_ms()));
        connection.end_reason = Some(reason);
    }

    fn new_connection(&self, offset: u64) -> StreamConnection {
        StreamConnection {
            peer: self.origin.peer.clone(),
            raw_name_hex: self.origin.raw_name.as_deref().map(hex::encode),
            connected_at: rfc3339_ms(self.origin.connected_ms),
            first_byte_at: None,
            last_byte_at: None,
            ended_at: None,
            end_reason: None,
            offset,
            bytes: 0,
            compared_bytes: 0,
        }
    }

    fn name_lock(&self) -> io::Result<&NameLock> {
        self.name_lock.as_ref().ok_or_else(|| io::Error::other("the stream has ended"))
    }

    /// Returns where the open stream of this name is, if this stream is not the start of a capture: its sender may have
    /// connected again before the end of its first connection was seen.
    fn relation_to_open_part(&self, start: StreamStart) -> PartRelation {
        let is_concurrent = |lock: &&NameLock| lock.mode() == LockMode::Concurrent;
        let first = self.name_lock.as_ref().filter(is_concurrent).and_then(NameLock::first_open_part);
        match (start, first) {
            (StreamStart::Continuation, Some(first)) => {
                let at = first.aligner().tracker().received();
                PartRelation::Continues(PartPosition { file: first.file.clone(), at }, "still_open")
            }
            _ => PartRelation::None,
        }
    }

    /// Creates a new part for this stream.
    fn create_part(&self, aligner: PacketAligner, relation: PartRelation) -> io::Result<Arc<StreamPart>> {
        let name_lock = self.name_lock()?;
        let (file, part) = self.shared.disk_retry.retry("create", "-", || {
            stored_parts::create_file(&self.shared, name_lock, self.origin.source)
        })?;
        let mut manifest = Manifest::new(name_lock.name(), file, part, self.origin.source);
        manifest.add_connection(self.new_connection(0));
        if let PartRelation::Continues(position, reason) | PartRelation::Repeats(position, reason) = &relation
        {
            let PartPosition { file: of, at } = position;
            log::warn!("stream_not_continued file={} of={of} at={at} reason={reason}", manifest.file);
        }
        match relation {
            PartRelation::None => {}
            PartRelation::Continues(position, _) => manifest.continues = Some(position),
            PartRelation::Repeats(position, _) => manifest.repeats = Some(position),
        }
        if part > 1 {
            self.shared.metrics.parts_total.inc();
        }
        self.open_part(aligner, manifest)
    }

    /// Continues a stored part.
    fn reopen_part(
        &self,
        stored: StoredPart,
        aligner: PacketAligner,
        compared_bytes: u64,
    ) -> io::Result<Arc<StreamPart>> {
        let file_bytes = stored.file_bytes();
        let mut manifest = stored.manifest;
        manifest.state = ManifestState::Open;
        manifest.end_reason = None;
        manifest.sha256 = None;
        let mut connection = self.new_connection(file_bytes);
        connection.compared_bytes = compared_bytes;
        manifest.add_connection(connection);
        let entry = stored_parts::journal_entry(
            self.name_lock()?,
            manifest.file.clone(),
            manifest.part,
            manifest.source,
            file_bytes,
        );
        self.shared
            .disk_retry
            .retry("journal", &entry.file, || self.shared.journal.record_opened(entry.clone()))?;
        self.open_part(aligner, manifest)
    }

    /// Writes the manifest of a file that exists and is in the journal.
    fn open_part(&self, aligner: PacketAligner, manifest: Manifest) -> io::Result<Arc<StreamPart>> {
        self.shared
            .disk_retry
            .retry("manifest", &manifest.file, || self.shared.dir.write_manifest(&manifest))?;
        self.shared.dirty.mark_names_changed();
        let part = Arc::new(StreamPart::new(self.shared.allocate_part_id(), aligner, manifest));
        if let Ok(inode) = self.shared.dir.inode(&part.file) {
            part.set_inode(inode);
        }
        self.shared.queue.register_part(&part);
        self.name_lock()?.set_part(&part);
        Ok(part)
    }

    /// Continues the part that was written last.
    fn continue_last_part(&mut self, stored: Vec<StoredPart>) -> io::Result<Arc<StreamPart>> {
        let hash = self.shared.hash;
        let new = || PacketAligner::new(hash);
        let Some(last) = last_written(&stored).cloned() else {
            return self.create_part(new(), PartRelation::None);
        };
        let position = PartPosition { file: last.manifest.file.clone(), at: last.file_bytes() };
        if last.continuation != Continuation::Allowed {
            return self.create_part(new(), PartRelation::Continues(position, last.continuation.as_str()));
        }
        let scan = self.scan_part(&last)?;
        if hash_differs(&last.manifest, &scan) || scan.bytes() != last.file_bytes() {
            log::warn!(
                "stored_file_changed file={} note=\"not changed; the stream gets another file\"",
                last.manifest.file
            );
            self.restart_rotation(HeaderCopy::default());
            return self.create_part(new(), PartRelation::Continues(position, "file_changed"));
        }
        self.reopen_part(last, PacketAligner::resume(scan), 0)
    }

    /// Returns packet position and hash of a stored part, from its manifest if possible. Otherwise reads the
    /// file.
    fn scan_part(&mut self, stored: &StoredPart) -> io::Result<FileScan> {
        let (shared, manifest) = (&self.shared, &stored.manifest);
        let restored = manifest.resume_state.as_deref().and_then(|stored_state| {
            FileScan::restore(stored_state, &manifest.file, stored.bytes, shared.hash)
        });
        if let Some(scan) = restored.filter(|scan| !hash_differs(manifest, scan)) {
            return Ok(scan);
        }
        let mut buffer = shared.pool.take(BufferSize::Scratch);
        let mut headers = HeaderCopy::default();
        let scanned = shared.disk_retry.retry("read", &manifest.file, || {
            headers = HeaderCopy::default();
            let inner = shared.dir.open_to_read(&manifest.file)?;
            let mut file = HeaderReader { inner, headers: &mut headers };
            scan(&mut file, &mut buffer, shared.hash, |_| {})
        });
        drop(buffer);
        self.restart_rotation(headers);
        scanned
    }

    /// Leaves a comparison that no part satisfies any more. Continues the part that is a prefix of the
    /// stream, or creates a new one. Returns how many bytes at the start of the next chunk are stored already and must
    /// not be fed again.
    fn switch_to_new_part(&mut self, mut divergence: Divergence) -> io::Result<usize> {
        let WriterState::Comparing(comparison) = &mut self.state else {
            return Err(io::Error::other("the stream is not being compared"));
        };
        let (received, stored) = (comparison.aligner.tracker().received(), divergence.prefix_bytes());
        self.is_resend = divergence.longest_prefix.is_some();
        if let Some(prefix) =
            divergence.longest_prefix.take_if(|prefix| prefix.is_rotated() || self.rotator.is_some())
        {
            return self.continue_rotated(prefix, divergence.reference, received);
        }
        if stored >= received && stored > 0 {
            // The usual case: the stored part is a prefix of the stream.
            // A copy of a compressed stream's aligner could not go on, so the copy stays behind.
            let copy = comparison.aligner.clone();
            let mut aligner = std::mem::replace(&mut comparison.aligner, copy);
            aligner.mark_stored(stored);
            let longest_prefix =
                divergence.longest_prefix.ok_or_else(|| io::Error::other("there is no part to continue"))?;
            self.state = WriterState::Writing(self.reopen_part(longest_prefix, aligner, stored)?);
            return Ok(0);
        }
        let mut aligner = PacketAligner::new(self.shared.hash);
        aligner.mark_stored(stored);
        let part = match divergence.longest_prefix {
            Some(prefix) => self.reopen_part(prefix, aligner, stored)?,
            None => self.create_part(aligner, relation_to_repeated(divergence.repeated.as_ref()))?,
        };
        if part.manifest().repeats.is_none() {
            log::info!("stream_differs file={} at_or_after={received}", part.file);
        }
        // If the copy fails, the part ends as incomplete. A re-send can complete it.
        self.state = WriterState::Writing(part);
        if let Some(reference) = &divergence.reference {
            self.copy_stored(reference, 0, received)?;
        }
        Ok(0)
    }

    /// Continues a stored part at the end of its last file, after `received` equal bytes. Returns how many of the next
    /// bytes it has already.
    fn continue_rotated(
        &mut self,
        prefix: StoredPart,
        reference: Option<StoredPart>,
        received: u64,
    ) -> io::Result<usize> {
        let (stored, file_bytes) = (prefix.bytes, prefix.file_bytes());
        let scan = self.scan_part(&prefix)?;
        if scan.bytes() != file_bytes {
            return Err(io::Error::other("the stored file has changed"));
        }
        let part = self.reopen_part(prefix, PacketAligner::resume(scan), stored.min(received))?;
        self.state = WriterState::Writing(part);
        match reference {
            Some(reference) if stored < received => self.copy_stored(&reference, stored, received)?,
            _ => {}
        }
        Ok(usize::try_from(stored.saturating_sub(received)).unwrap_or(usize::MAX))
    }

    /// Copies bytes of the stream from `reference`, which contains them, to the part that is being written.
    fn copy_stored(&mut self, reference: &StoredPart, from: u64, to: u64) -> io::Result<()> {
        let mut at = from;
        while at < to {
            let mut buffer = self.shared.pool.take(BufferSize::Scratch);
            let some = buffer.len().min(usize::try_from(to - at).unwrap_or(usize::MAX));
            let read = self.shared.disk_retry.retry("read", &reference.manifest.file, || {
                reference.read_exact_at(&self.shared.dir, &mut buffer[..some], at)
            });
            let copied = match read {
                Ok(()) => self.store(buffer, some).inspect_err(|_| self.record_loss(to - at - some as u64)),
                Err(error) => {
                    self.record_loss(to - at);
                    Err(error)
                }
            };
            copied?;
            at += some as u64;
        }
        Ok(())
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        self.end(EndReason::IoError);
    }
}

/// Returns what a new part has to do with the part that it is equal to so far and must not be appended to.
fn relation_to_repeated(repeated: Option<&StoredPart>) -> PartRelation {
    match repeated.filter(|repeated| repeated.bytes > 0) {
        Some(StoredPart { manifest, bytes, continuation, .. }) => {
            let position = PartPosition { file: manifest.file.clone(), at: *bytes };
            PartRelation::Repeats(position, continuation.as_str())
        }
        None => PartRelation::None,
    }
}

/// Returns whether the manifest has another hash than the scan.
fn hash_differs(manifest: &Manifest, scan: &FileScan) -> bool {
    matches!((&manifest.sha256, scan.sha256()), (Some(was), Some(is)) if *was != is)
}

fn set_manifest_segments(manifest: &mut Manifest, segments: SegmentList) {
    let partitions = |segment: &RecordSegment| (segment.topic.clone(), segment.partition);
    manifest.order_uncertain |=
        segments.list.windows(2).any(|two| partitions(&two[0]) != partitions(&two[1]));
    manifest.segments = segments.list;
    manifest.segments_omitted += segments.omitted;
}

#[cfg(test)]
mod tests;
