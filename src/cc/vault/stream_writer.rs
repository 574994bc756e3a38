//! The path of one stream to its file, in the stream's own thread. Decides whether the stream is new,
//! continues a stored file, is a re-send, or differs from everything stored.

use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::checkpoint::FileCheckpoint;
use super::compare::{CompareOutcome, Divergence, ResendComparison, StoredPart};
use super::journal::JournalEntry;
use super::manifest::{
    self, EndReason, Manifest, ManifestState, RecordSegment, StreamConnection, StreamSource,
};
use super::name_locks::{LockMode, NameLock};
use super::packet_aligner::PacketAligner;
use super::part::StreamPart;
use super::pool::{Buffer, BufferSize};
use super::scan::{FileScan, scan};
use super::segments::SegmentList;
use super::syncer::EndedStream;
use super::time::{now_ms, rfc3339};
use super::writer::WriteJob;
use super::{VaultInner, recover};
use crate::cc::wire::name::{self, hex};

/// Where a stream comes from.
#[derive(Clone, Debug)]
pub struct StreamOrigin {
    pub source: StreamSource,
    /// Address of the sender.
    pub peer: String,
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
    pub(super) shared: Arc<VaultInner>,
    pub(super) name_lock: NameLock,
    pub(super) origin: StreamOrigin,
    stored_parts: Vec<StoredPart>,
}

impl PendingStream {
    pub(super) fn new(
        shared: Arc<VaultInner>,
        claim: NameLock,
        origin: StreamOrigin,
    ) -> io::Result<PendingStream> {
        let stored = match claim.mode() {
            LockMode::Exclusive => find_stored_parts(&shared, &claim, origin.source)?,
            LockMode::Concurrent => Vec::new(),
        };
        Ok(PendingStream { shared, name_lock: claim, origin, stored_parts: stored })
    }

    /// Returns whether parts are stored under the name, so that the first bytes decide how to continue.
    pub fn has_stored_parts(&self) -> bool {
        !self.stored_parts.is_empty()
    }

    /// Returns the first `bytes` bytes of the part that was written last, or fewer if it is shorter.
    pub(super) fn read_stored_head(&self, bytes: usize) -> io::Result<Vec<u8>> {
        let Some(last) = last_written(&self.stored_parts) else { return Ok(Vec::new()) };
        let mut head = Vec::new();
        let file = self.shared.dir.open_to_read(&last.manifest.file)?;
        file.take(bytes as u64).read_to_end(&mut head)?;
        Ok(head)
    }

    /// Resumes a comparison of which `received` bytes were equal to a stored file.
    pub(super) fn resume_comparison(self, received: u64, file: Option<&str>) -> io::Result<StreamWriter> {
        let shared = Arc::clone(&self.shared);
        let mut intake = self.start(StreamStart::NewCapture)?;
        let WriterState::Comparing(comparison) = &mut intake.state else { return Ok(intake) };
        let fits = |stored: &&StoredPart| {
            stored.bytes >= received && file.is_none_or(|file| file == stored.manifest.file)
        };
        let stored = comparison.candidates.iter().find(fits).cloned();
        let Some(stored) = stored else {
            return Err(io::Error::other("the stored file that was equal to the stream no longer exists"));
        };
        let file = shared.dir.open_to_read(&stored.manifest.file)?;
        let mut buffer = shared.pool.take(BufferSize::Scratch);
        let mut scratch = shared.pool.take(BufferSize::Scratch);
        while comparison.aligner.tracker().received() < received {
            let at = comparison.aligner.tracker().received();
            let some = buffer.len().min(usize::try_from(received - at).unwrap_or(usize::MAX));
            file.read_exact_at(&mut buffer[..some], at)?;
            comparison.compare(&shared.dir, &shared.disk_retry, &buffer[..some], &mut scratch);
        }
        Ok(intake)
    }

    /// Returns whether no other stream of the name is open.
    pub fn is_exclusive(&self) -> bool {
        self.name_lock.mode() == LockMode::Exclusive
    }

    /// Opens the file and starts the stream. `head` is ignored if nothing is stored under the name.
    pub fn start(self, head: StreamStart) -> io::Result<StreamWriter> {
        let PendingStream { shared, name_lock: claim, origin, stored_parts: stored } = self;
        let tail = PacketAligner::new(shared.hash);
        let mut intake = StreamWriter {
            shared,
            name_lock: Some(claim),
            origin,
            state: WriterState::Ended,
            first_byte_ms: 0,
            last_byte_ms: 0,
            lost_bytes: 0,
        };
        intake.state = match head {
            _ if stored.is_empty() => WriterState::Writing(intake.create_part(tail)?),
            StreamStart::NewCapture => WriterState::Comparing(Box::new(ResendComparison::new(tail, stored))),
            StreamStart::Continuation => WriterState::Writing(intake.continue_last_part(stored)?),
        };
        Ok(intake)
    }
}

/// An open stream that writes to its file. If it is dropped without [`finish`](Self::finish), it ends as
/// `io_error`.
pub struct StreamWriter {
    shared: Arc<VaultInner>,
    name_lock: Option<NameLock>,
    origin: StreamOrigin,
    state: WriterState,
    first_byte_ms: i64,
    last_byte_ms: i64,
    /// Bytes that cannot be stored, of a stream without a part.
    lost_bytes: u64,
}

enum WriterState {
    /// A re-send: all received bytes are already stored.
    Comparing(Box<ResendComparison>),
    /// New bytes are written to this part.
    Writing(Arc<StreamPart>),
    Ended,
}

impl StreamWriter {
    /// Accepts the next `bytes` bytes of `buffer`. An error means that the file cannot be written; it ends
    /// the stream.
    pub fn feed(&mut self, buffer: Buffer, bytes: usize) -> io::Result<()> {
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
                CompareOutcome::Diverged(beyond) => {
                    drop(scratch);
                    let stored_bytes = beyond.prefix_bytes().max(comparison.aligner.tracker().received());
                    let end = comparison.aligner.tracker().received() + bytes as u64;
                    match self.switch_to_new_part(*beyond) {
                        Ok(part) => self.state = WriterState::Writing(part),
                        Err(error) => {
                            self.record_loss(end - stored_bytes);
                            return Err(error);
                        }
                    }
                }
            }
        }
        let WriterState::Writing(part) = &self.state else {
            return Err(io::Error::other("the stream has ended"));
        };
        let taken = self.shared.accept_bytes(part, buffer, bytes);
        taken.inspect_err(|_| self.shared.record_part_loss(part, bytes as u64))
    }

    /// Records that `bytes` more bytes were received and cannot be stored.
    pub fn record_loss(&mut self, bytes: u64) {
        match &self.state {
            WriterState::Writing(part) => self.shared.record_part_loss(part, bytes),
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
        let tail = part.aligner();
        Some(FileCheckpoint {
            file: part.file.clone(),
            bytes: tail.written_bytes(),
            pending: hex(tail.pending()),
            midstate: Some(tail.resume_state(part.hasher())),
            segments,
        })
    }

    /// Writes the partial packet. Returns whether there was one.
    pub(super) fn flush(&self) -> bool {
        match &self.state {
            WriterState::Writing(part) => self.shared.flush_part(part),
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

    /// Returns the number of complete packets of the stream.
    pub fn packets(&self) -> u64 {
        match &self.state {
            WriterState::Writing(part) => part.aligner().tracker().packets(),
            WriterState::Comparing(comparison) => comparison.aligner.tracker().packets(),
            WriterState::Ended => 0,
        }
    }

    /// Ends the stream: writes the remaining bytes and then the manifest.
    pub fn finish(mut self, reason: EndReason) {
        self.end(reason);
    }

    fn end(&mut self, reason: EndReason) {
        let Some(mut claim) = self.name_lock.take() else { return };
        if self.lost_bytes > 0 {
            self.shared.metrics.streams_failed_total.inc();
            self.shared.note_loss(&name::file_name(claim.name()), self.lost_bytes);
        }
        let part = match std::mem::replace(&mut self.state, WriterState::Ended) {
            WriterState::Writing(part) => self.end_writing(part, reason),
            WriterState::Comparing(comparison) => self.end_comparing(&comparison, reason),
            WriterState::Ended => None,
        };
        let Some(part) = part else { return };
        claim.mark_closing();
        self.shared.unregister_part(&part);
        // The writer thread reports its own error.
        let _ = self.shared.send(WriteJob::Close(EndedStream { part, name_lock: claim }));
    }

    fn end_writing(&self, part: Arc<StreamPart>, reason: EndReason) -> Option<Arc<StreamPart>> {
        self.shared.flush_part(&part);
        let tail = part.aligner();
        let mut manifest = part.manifest();
        manifest.state = ManifestState::Closed;
        manifest.end_reason = Some(reason);
        manifest.bytes = tail.tracker().received();
        manifest.sha256 = tail.sha256();
        manifest.capture = tail.tracker().summary();
        manifest.midstate = part.is_from_kafka.then(|| tail.resume_state(None));
        let bytes = manifest.bytes;
        if let Some(connection) = manifest.connections.last_mut() {
            connection.bytes = bytes.saturating_sub(connection.offset);
            self.close_connection(connection, reason);
        }
        drop((tail, manifest));
        Some(part)
    }

    /// Ends a re-send whose bytes are all stored. Only a connection is added to the manifest.
    fn end_comparing(&self, comparison: &ResendComparison, reason: EndReason) -> Option<Arc<StreamPart>> {
        let stored = comparison.matching_part()?;
        let received = comparison.aligner.tracker().received();
        let mut connection = self.new_connection(stored.bytes);
        connection.compared_bytes = received;
        self.close_connection(&mut connection, reason);
        let mut manifest = stored.manifest.clone();
        manifest.add_connection(connection);
        manifest.end_reason = Some(reason);
        if received == stored.bytes {
            // The file has everything that the sender has, so an earlier loss or crash is repaired.
            manifest.state = ManifestState::Closed;
            manifest.lost_bytes = 0;
        }
        Some(Arc::new(StreamPart::new(self.shared.allocate_part_id(), PacketAligner::new(false), manifest)))
    }

    fn close_connection(&self, connection: &mut StreamConnection, reason: EndReason) {
        let time = |ms| (ms != 0).then(|| rfc3339(ms));
        connection.first_byte_at = time(self.first_byte_ms);
        connection.last_byte_at = time(self.last_byte_ms);
        connection.ended_at = Some(rfc3339(now_ms()));
        connection.end_reason = Some(reason);
    }

    fn new_connection(&self, offset: u64) -> StreamConnection {
        StreamConnection {
            peer: self.origin.peer.clone(),
            connected_at: rfc3339(self.origin.connected_ms),
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

    /// Creates a new part for this stream.
    fn create_part(&self, tail: PacketAligner) -> io::Result<Arc<StreamPart>> {
        let claim = self.name_lock()?;
        let (file, part) = self
            .shared
            .disk_retry
            .retry("create", "-", || create_file(&self.shared, claim, self.origin.source))?;
        let mut manifest = Manifest::new(claim.name(), file, part, self.origin.source);
        manifest.add_connection(self.new_connection(0));
        if part > 1 {
            self.shared.metrics.parts_total.inc();
        }
        self.open_part(tail, manifest)
    }

    /// Continues a stored part.
    fn reopen_part(
        &self,
        stored: StoredPart,
        tail: PacketAligner,
        compared_bytes: u64,
    ) -> io::Result<Arc<StreamPart>> {
        let mut manifest = stored.manifest;
        manifest.state = ManifestState::Open;
        manifest.end_reason = None;
        manifest.sha256 = None;
        let mut connection = self.new_connection(stored.bytes);
        connection.compared_bytes = compared_bytes;
        if compared_bytes > 0 {
            // The stream is sent again from its start, which also brings the lost bytes.
            manifest.lost_bytes = 0;
        }
        manifest.add_connection(connection);
        let opened = journal_entry(
            self.name_lock()?,
            manifest.file.clone(),
            manifest.part,
            manifest.source,
            stored.bytes,
        );
        self.shared
            .disk_retry
            .retry("journal", &opened.file, || self.shared.journal.record_opened(opened.clone()))?;
        self.open_part(tail, manifest)
    }

    /// Writes the manifest of a file that exists and is in the journal.
    fn open_part(&self, tail: PacketAligner, manifest: Manifest) -> io::Result<Arc<StreamPart>> {
        self.shared
            .disk_retry
            .retry("manifest", &manifest.file, || self.shared.dir.write_manifest(&manifest))?;
        self.shared.dirty.mark_names_changed();
        let part = Arc::new(StreamPart::new(self.shared.allocate_part_id(), tail, manifest));
        self.shared.register_part(&part);
        Ok(part)
    }

    /// Continues the part that was written last.
    fn continue_last_part(&self, stored: Vec<StoredPart>) -> io::Result<Arc<StreamPart>> {
        let Some(last) = last_written(&stored).cloned() else {
            return self.create_part(PacketAligner::new(self.shared.hash));
        };
        let scan = self.scan_part(&last)?;
        if hash_differs(&last.manifest, &scan) || scan.bytes() != last.bytes {
            log::warn!(
                "stored_file_changed file={} note=\"not changed; the stream gets another file\"",
                last.manifest.file
            );
            return self.create_part(PacketAligner::new(self.shared.hash));
        }
        self.reopen_part(last, PacketAligner::resume(scan), 0)
    }

    /// Returns packet position and hash of a stored part, from its manifest if possible. Otherwise reads the
    /// file.
    fn scan_part(&self, stored: &StoredPart) -> io::Result<FileScan> {
        let (shared, manifest) = (&self.shared, &stored.manifest);
        let restored = manifest.midstate.as_deref().and_then(|stored_state| {
            FileScan::restore(stored_state, &manifest.file, stored.bytes, shared.hash)
        });
        if let Some(scan) = restored.filter(|scan| !hash_differs(manifest, scan)) {
            return Ok(scan);
        }
        let mut buffer = shared.pool.take(BufferSize::Scratch);
        shared.disk_retry.retry("read", &manifest.file, || {
            scan(&mut shared.dir.open_to_read(&manifest.file)?, &mut buffer, shared.hash, |_| {})
        })
    }

    /// Leaves a comparison that no part satisfies any more. Continues the part that is a prefix of the
    /// stream, or creates a new one.
    fn switch_to_new_part(&mut self, beyond: Divergence) -> io::Result<Arc<StreamPart>> {
        let WriterState::Comparing(comparison) = &self.state else {
            return Err(io::Error::other("the stream is not being compared"));
        };
        let (received, stored) = (comparison.aligner.tracker().received(), beyond.prefix_bytes());
        if stored >= received && stored > 0 {
            // The usual case: the stored part is a prefix of the stream.
            let mut tail = comparison.aligner.clone();
            tail.mark_stored(stored);
            let longest_prefix =
                beyond.longest_prefix.ok_or_else(|| io::Error::other("there is no part to continue"))?;
            return self.reopen_part(longest_prefix, tail, stored);
        }
        let mut tail = PacketAligner::new(self.shared.hash);
        tail.mark_stored(stored);
        let part = match beyond.longest_prefix {
            Some(onto) => self.reopen_part(onto, tail, stored)?,
            None => self.create_part(tail)?,
        };
        log::info!("stream_differs file={} at_or_after={received}", part.file);
        if let Some(reference) = &beyond.reference {
            let copied = self.copy_stored(reference, received, &part);
            // The part ends as incomplete. A re-send can complete it.
            copied.inspect_err(|_| self.state = WriterState::Writing(part.clone()))?;
        }
        Ok(part)
    }

    /// Copies the first `bytes` bytes of the stream from `reference`, which contains them, to `part`.
    fn copy_stored(&self, reference: &StoredPart, bytes: u64, part: &Arc<StreamPart>) -> io::Result<()> {
        let mut at = 0;
        let mut copy = || {
            let file = &reference.manifest.file;
            let file = self.shared.disk_retry.retry("read", file, || self.shared.dir.open_to_read(file))?;
            while at < bytes {
                let mut buffer = self.shared.pool.take(BufferSize::Scratch);
                let some = buffer.len().min(usize::try_from(bytes - at).unwrap_or(usize::MAX));
                file.read_exact_at(&mut buffer[..some], at)?;
                self.shared.accept_bytes(part, buffer, some)?;
                at += some as u64;
            }
            Ok(())
        };
        let copied = copy();
        copied.inspect_err(|_| self.shared.record_part_loss(part, bytes - at))
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        self.end(EndReason::IoError);
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
    manifest.segments_left_out += segments.omitted;
}

fn last_written(stored: &[StoredPart]) -> Option<&StoredPart> {
    stored.iter().max_by(|a, b| {
        let key = |stored: &StoredPart| {
            (stored.manifest.last_written_at().map(str::to_owned), stored.manifest.part)
        };
        key(a).cmp(&key(b))
    })
}

/// Returns the parts stored under the name that a stream may continue.
fn find_stored_parts(
    shared: &VaultInner,
    claim: &NameLock,
    source: StreamSource,
) -> io::Result<Vec<StoredPart>> {
    let base = name::file_name(claim.name());
    let mut parts = Vec::new();
    for part in 1.. {
        let file = name::part_file_name(&base, part);
        // A transient error (such as too few descriptors) must not look like a foreign file.
        match shared.disk_retry.retry("read", &file, || look_up_part(shared, &file, source)) {
            Ok(PartLookup::Stored(stored)) => parts.push(*stored),
            Ok(PartLookup::Free) => break,
            Ok(PartLookup::Foreign) => {}
            Err(error) => {
                log::warn!(
                    "stored_file_unusable file={file} error=\"{error}\" note=\"not changed; the stream gets another file\""
                )
            }
        }
        claim.mark_part_taken(part);
    }
    Ok(parts)
}

enum PartLookup {
    /// A part that can be continued.
    Stored(Box<StoredPart>),
    /// A file that lea did not write, that has another source, or that is incomplete.
    Foreign,
    /// No such file exists.
    Free,
}

fn look_up_part(shared: &VaultInner, file: &str, source: StreamSource) -> io::Result<PartLookup> {
    let Some(mut manifest) = shared.dir.manifest(file)? else {
        return Ok(if shared.dir.name_exists(file)? { PartLookup::Foreign } else { PartLookup::Free });
    };
    if manifest.state == ManifestState::Open {
        // Looking at earlier parts can take longer than a stream of the same name waits, so this may be that
        // stream's part.
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
    if manifest.source != source {
        return Ok(PartLookup::Foreign);
    }
    if bytes != manifest.bytes {
        log::warn!("stored_file_changed file={file} bytes={bytes} manifest_bytes={}", manifest.bytes);
        return Ok(PartLookup::Foreign);
    }
    Ok(PartLookup::Stored(Box::new(StoredPart { manifest, bytes })))
}

/// Creates the file of the next free part, after its line in the journal.
fn create_file(shared: &VaultInner, claim: &NameLock, source: StreamSource) -> io::Result<(String, u32)> {
    let base = name::file_name(claim.name());
    // Serialised, so that the journal line and the file are created together.
    let _creating = shared.creating.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    for part in claim.next_part().. {
        let file = name::part_file_name(&base, part);
        if shared.dir.name_exists(&file)? || shared.dir.name_exists(&manifest::file_name(&file))? {
            continue;
        }
        shared.journal.record_opened(journal_entry(claim, file.clone(), part, source, 0))?;
        shared.dir.create(&file)?;
        claim.mark_part_taken(part);
        return Ok((file, part));
    }
    Err(io::Error::other("no part number is free"))
}

fn journal_entry(
    claim: &NameLock,
    file: String,
    part: u32,
    source: StreamSource,
    bytes: u64,
) -> JournalEntry {
    JournalEntry { file, name_hex: hex(claim.name()), part, source, bytes }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::capture::formats;
    use crate::cc::vault::{Access, LossTotals, PeerProbe, Vault, VaultConfig, VaultThreads};

    const CAPTURE: &[u8] = include_bytes!("../../../testdata/pcap/rejected-call.pcap");
    const STEPS: [usize; 5] = [1, 7, 100, 1000, 100_000];

    struct NoProbe;

    impl PeerProbe for NoProbe {
        fn probe(&self, _: bool) {}
    }

    struct Scene {
        folder: tempfile::TempDir,
        vault: Vault,
        threads: VaultThreads,
    }

    impl Scene {
        fn new() -> Scene {
            let folder = tempfile::tempdir().unwrap();
            let config = VaultConfig {
                dir: folder.path().to_owned(),
                access: Access::PRIVATE,
                hash: true,
                partial_packet_bytes_max: 1 << 20,
                descriptors: 100,
                free_bytes_min: 0,
                sync_interval: Duration::from_secs(1),
            };
            let (vault, threads) = Vault::spawn(&config, Arc::default()).unwrap();
            Scene { folder, vault, threads }
        }

        fn begin(&self, content: &[u8]) -> io::Result<StreamWriter> {
            let origin =
                StreamOrigin { source: StreamSource::Tcp, peer: "192.0.2.1:1024".into(), connected_ms: 0 };
            let head = match formats::starts_capture(content) {
                Some(true) => StreamStart::NewCapture,
                _ => StreamStart::Continuation,
            };
            self.vault.open_stream(b"file", origin, Arc::new(NoProbe), || false)?.start(head)
        }

        fn feed(&self, intake: &mut StreamWriter, content: &[u8]) -> io::Result<()> {
            let mut buffer = self.vault.pool().take(BufferSize::Large);
            buffer[..content.len()].copy_from_slice(content);
            intake.feed(buffer, content.len())
        }

        /// Sends a whole stream in chunks of `step` bytes.
        fn send(&self, content: &[u8], step: usize) {
            let mut intake = self.begin(content).unwrap();
            content.chunks(step).for_each(|chunk| self.feed(&mut intake, chunk).unwrap());
            intake.finish(EndReason::Eof);
        }

        /// Shuts the vault down. Returns the losses and the directory.
        fn end(self) -> (LossTotals, tempfile::TempDir) {
            drop(self.vault);
            (self.threads.join().unwrap(), self.folder)
        }
    }

    fn stored(folder: &Path, file: &str) -> (Vec<u8>, Manifest) {
        let manifest = std::fs::read(folder.join(manifest::file_name(file))).unwrap();
        (std::fs::read(folder.join(file)).unwrap(), serde_json::from_slice(&manifest).unwrap())
    }

    /// Sends streams of one name one after another, for every chunk length, and checks the resulting parts.
    #[track_caller]
    fn check(streams: &[&[u8]], parts: &[&[u8]]) {
        for step in STEPS {
            let scene = Scene::new();
            streams.iter().for_each(|stream| scene.send(stream, step));
            let (losses, folder) = scene.end();
            assert!(losses.is_zero(), "step {step}");
            for (number, part) in (1..).zip(parts) {
                let (content, manifest) = stored(folder.path(), &name::part_file_name("file", number));
                assert!(content == *part, "part {number}, step {step}");
                assert_eq!((manifest.bytes, manifest.part), (part.len() as u64, number), "step {step}");
                assert_eq!(
                    (manifest.state, manifest.end_reason),
                    (ManifestState::Closed, Some(EndReason::Eof))
                );
                let sha256 = hex(&<sha2::Sha256 as sha2::Digest>::digest(part));
                assert_eq!(manifest.sha256, Some(sha256), "part {number}, step {step}");
            }
            let next = name::part_file_name("file", parts.len() as u32 + 1);
            assert!(!folder.path().join(next).exists(), "unexpected part, step {step}");
        }
    }

    fn with_a_change_at(at: usize) -> Vec<u8> {
        let mut other = CAPTURE.to_vec();
        other[at] ^= 1;
        other
    }

    #[test]
    fn a_truncated_stream_and_its_re_send_become_one_file() {
        check(&[CAPTURE], &[CAPTURE]);
        check(&[&CAPTURE[..700], &CAPTURE[700..]], &[CAPTURE]);
        check(&[&CAPTURE[..700], CAPTURE], &[CAPTURE]);
        check(&[&CAPTURE[..30], &CAPTURE[..700], CAPTURE, CAPTURE, &CAPTURE[..30]], &[CAPTURE]);
    }

    #[test]
    fn a_different_re_send_gets_a_new_part() {
        let (early, late) = (with_a_change_at(50), with_a_change_at(1_200));
        check(&[CAPTURE, &late], &[CAPTURE, &late]);
        check(&[CAPTURE, &late, &early, CAPTURE, &late, &early], &[CAPTURE, &late, &early]);
        // The second part is truncated where it still equals the first one. It continues from any offset.
        check(&[CAPTURE, &early[..60], &early], &[CAPTURE, &early]);
    }

    #[test]
    fn a_dropped_stream_writer_ends_with_io_error() {
        let scene = Scene::new();
        let mut intake = scene.begin(CAPTURE).unwrap();
        scene.feed(&mut intake, &CAPTURE[..700]).unwrap();
        drop(intake);
        let (losses, folder) = scene.end();
        let (content, manifest) = stored(folder.path(), "file");
        assert!(content == CAPTURE[..700] && losses.is_zero());
        assert_eq!((manifest.state, manifest.end_reason), (ManifestState::Closed, Some(EndReason::IoError)));
    }

    #[test]
    fn a_stream_that_cannot_start_unlocks_its_name() {
        let scene = Scene::new();
        std::fs::remove_dir(scene.folder.path().join(".lea/tmp")).unwrap();
        assert!(scene.begin(CAPTURE).is_err());
        assert!(!scene.vault.is_open(b"file"));
    }

    #[test]
    fn bytes_without_a_file_are_counted_as_lost() {
        let other = with_a_change_at(1_200);
        for (content, lost) in [(&other[..], other.len() - 1_000), (&[CAPTURE, b"more"].concat(), 4)] {
            let scene = Scene::new();
            scene.send(CAPTURE, 1_000);
            let mut intake = scene.begin(content).unwrap();
            scene.feed(&mut intake, &content[..1_000]).unwrap();
            // From here on no manifest can be written.
            std::fs::remove_dir_all(scene.folder.path().join(".lea/tmp")).unwrap();
            assert!(scene.feed(&mut intake, &content[1_000..]).is_err());
            intake.record_loss(11);
            intake.finish(EndReason::IoError);
            let (losses, folder) = scene.end();
            assert_eq!((losses.streams, losses.bytes), (1, lost as u64 + 11));
            assert!(stored(folder.path(), "file").0 == CAPTURE, "the stored file is unchanged");
        }
    }

    #[test]
    fn a_part_that_is_open_in_another_stream_is_not_changed() {
        let scene = Scene::new();
        let mut intake = scene.begin(b"no capture").unwrap();
        scene.feed(&mut intake, b"no capture").unwrap();
        let found = || look_up_part(&scene.vault.shared, "file", StreamSource::Tcp).unwrap();
        assert!(matches!(found(), PartLookup::Foreign));
        assert_eq!(scene.vault.shared.dir.manifest("file").unwrap().unwrap().state, ManifestState::Open);
        intake.finish(EndReason::Eof);
        while scene.vault.is_open(b"file") {
            std::thread::yield_now();
        }
        assert!(matches!(found(), PartLookup::Stored(stored) if stored.bytes == 10));
        assert!(scene.end().0.is_zero());
    }
}
