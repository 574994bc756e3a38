//! The way of one stream into its file, in the stream's own thread: is the name new, does the stream go on, is it
//! sent again, or does it differ from all that is stored?

use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::checkpoint::FileState;
use super::compare::{Beyond, Comparison, Outcome, Stored};
use super::journal::Opened;
use super::keeper::Ended;
use super::manifest::{self, Connection, EndReason, Manifest, Segment, Source, State};
use super::names::{Claim, Standing};
use super::part::Part;
use super::pool::{Buffer, Size};
use super::scan::{Scan, scan};
use super::segments::Segments;
use super::tail::Tail;
use super::time::{now_ms, rfc3339};
use super::writer::Job;
use super::{Shared, recover};
use crate::cc::frame::name::{self, hex};

/// Where a stream comes from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The side that received it.
    pub source: Source,
    /// The sender's address.
    pub peer: String,
    /// When it connected, milliseconds since 1970.
    pub connected_ms: i64,
}

/// What the content of a stream begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// A capture's file header: the stream starts from its first byte.
    Capture,
    /// Anything else: it goes on where an earlier one ended.
    Other,
}

/// A stream whose name is claimed, before its first content.
pub struct Entry {
    pub(super) shared: Arc<Shared>,
    pub(super) claim: Claim,
    pub(super) origin: Origin,
    stored: Vec<Stored>,
}

impl Entry {
    pub(super) fn new(shared: Arc<Shared>, claim: Claim, origin: Origin) -> io::Result<Entry> {
        let stored = match claim.standing() {
            Standing::Exclusive => stored_parts(&shared, &claim, origin.source)?,
            Standing::Beside => Vec::new(),
        };
        Ok(Entry { shared, claim, origin, stored })
    }

    /// True if something is stored under the name, so that the first bytes decide how the stream goes on.
    pub fn needs_head(&self) -> bool {
        !self.stored.is_empty()
    }

    /// The first `bytes` bytes of what was written last under the name; fewer where it is shorter.
    pub(super) fn stored_head(&self, bytes: usize) -> io::Result<Vec<u8>> {
        let Some(last) = last_written(&self.stored) else { return Ok(Vec::new()) };
        let mut head = Vec::new();
        let file = self.shared.dir.open_to_read(&last.manifest.file)?;
        file.take(bytes as u64).read_to_end(&mut head)?;
        Ok(head)
    }

    /// Goes on comparing a stream of which the first `received` bytes were equal to what is stored.
    pub(super) fn compare_on(self, received: u64, file: Option<&str>) -> io::Result<Intake> {
        let shared = Arc::clone(&self.shared);
        let mut intake = self.begin(Head::Capture)?;
        let Stage::Comparing(comparison) = &mut intake.stage else { return Ok(intake) };
        let fits = |stored: &&Stored| {
            stored.bytes >= received && file.is_none_or(|file| file == stored.manifest.file)
        };
        let stored = comparison.candidates.iter().find(fits).cloned();
        let Some(stored) = stored else {
            return Err(io::Error::other("what was compared is not stored any more"));
        };
        let file = shared.dir.open_to_read(&stored.manifest.file)?;
        let mut buffer = shared.pool.take(Size::Scratch);
        let mut scratch = shared.pool.take(Size::Scratch);
        while comparison.tail.follower().received() < received {
            let at = comparison.tail.follower().received();
            let some = buffer.len().min(usize::try_from(received - at).unwrap_or(usize::MAX));
            file.read_exact_at(&mut buffer[..some], at)?;
            comparison.compare(&shared.dir, &shared.pressure, &buffer[..some], &mut scratch);
        }
        Ok(intake)
    }

    /// True if no other stream of the name is open.
    pub fn is_alone(&self) -> bool {
        self.claim.standing() == Standing::Exclusive
    }

    /// Begins: `head` is what the content starts with; it does not matter where nothing is stored.
    pub fn begin(self, head: Head) -> io::Result<Intake> {
        let Entry { shared, claim, origin, stored } = self;
        let tail = Tail::new(shared.hash);
        let mut intake = Intake {
            shared,
            claim: Some(claim),
            origin,
            stage: Stage::Ended,
            first_byte_ms: 0,
            last_byte_ms: 0,
            lost_bytes: 0,
        };
        intake.stage = match head {
            _ if stored.is_empty() => Stage::Writing(intake.create(tail)?),
            Head::Capture => Stage::Comparing(Box::new(Comparison::new(tail, stored))),
            Head::Other => Stage::Writing(intake.go_on(stored)?),
        };
        Ok(intake)
    }
}

/// A stream on its way into its file. Dropped without [`finish`](Self::finish), it ends as `io_error`.
pub struct Intake {
    shared: Arc<Shared>,
    claim: Option<Claim>,
    origin: Origin,
    stage: Stage,
    first_byte_ms: i64,
    last_byte_ms: i64,
    /// Bytes that will not be stored, of a stream that found no part to go into.
    lost_bytes: u64,
}

enum Stage {
    /// Sent again: all that came so far is stored.
    Comparing(Box<Comparison>),
    /// It goes into this part.
    Writing(Arc<Part>),
    /// It has ended.
    Ended,
}

impl Intake {
    /// Takes the next `bytes` of `buffer`. An error ends the stream: its file cannot be written.
    pub fn feed(&mut self, buffer: Buffer, bytes: usize) -> io::Result<()> {
        self.last_byte_ms = now_ms();
        if self.first_byte_ms == 0 {
            self.first_byte_ms = self.last_byte_ms;
        }
        if let Stage::Comparing(comparison) = &mut self.stage {
            let mut scratch = self.shared.pool.take(Size::Scratch);
            match comparison.compare(&self.shared.dir, &self.shared.pressure, &buffer[..bytes], &mut scratch)
            {
                Outcome::Equal => {
                    self.shared.counters.compared_bytes_total.add(bytes as u64);
                    return Ok(());
                }
                Outcome::Beyond(beyond) => {
                    drop(scratch);
                    let stored_bytes = beyond.stored_bytes().max(comparison.tail.follower().received());
                    let end = comparison.tail.follower().received() + bytes as u64;
                    match self.depart(*beyond) {
                        Ok(part) => self.stage = Stage::Writing(part),
                        Err(error) => {
                            self.lose(end - stored_bytes);
                            return Err(error);
                        }
                    }
                }
            }
        }
        let Stage::Writing(part) = &self.stage else {
            return Err(io::Error::other("the stream has ended"));
        };
        let taken = self.shared.take_in(part, buffer, bytes);
        taken.inspect_err(|_| self.shared.lose(part, bytes as u64))
    }

    /// Notes that `bytes` bytes more arrived and will not be stored, because the stream's file cannot be written.
    pub fn lose(&mut self, bytes: u64) {
        match &self.stage {
            Stage::Writing(part) => self.shared.lose(part, bytes),
            Stage::Comparing(_) | Stage::Ended => self.lost_bytes += bytes,
        }
    }

    /// The file that the stream goes into, once that is decided.
    pub fn file(&self) -> Option<&str> {
        match &self.stage {
            Stage::Writing(part) => Some(&part.file),
            Stage::Comparing(_) | Stage::Ended => None,
        }
    }

    /// Bytes of the stream so far, those included that stood in its file before.
    pub(super) fn received(&self) -> u64 {
        match &self.stage {
            Stage::Writing(part) => part.tail().follower().received(),
            Stage::Comparing(comparison) => comparison.tail.follower().received(),
            Stage::Ended => 0,
        }
    }

    /// While the stream is compared: how many bytes were equal.
    pub(super) fn comparing(&self) -> Option<u64> {
        match &self.stage {
            Stage::Comparing(comparison) => Some(comparison.tail.follower().received()),
            Stage::Writing(_) | Stage::Ended => None,
        }
    }

    /// What the file holds when all that was handed to the writer is written; the records it was made of are the
    /// caller's.
    pub(super) fn state(&self, segments: Vec<Segment>) -> Option<FileState> {
        let Stage::Writing(part) = &self.stage else { return None };
        let tail = part.tail();
        Some(FileState {
            file: part.file.clone(),
            bytes: tail.written(),
            pending: hex(tail.pending()),
            midstate: Some(tail.midstate(part.hasher())),
            segments,
        })
    }

    /// Writes what is kept back; true if there was any.
    pub(super) fn write_through(&self) -> bool {
        match &self.stage {
            Stage::Writing(part) => self.shared.write_through(part),
            Stage::Comparing(_) | Stage::Ended => false,
        }
    }

    /// The records that the file was made of, as its manifest has them.
    pub(super) fn segments(&self) -> Vec<Segment> {
        match &self.stage {
            Stage::Writing(part) => part.manifest().segments.clone(),
            Stage::Comparing(_) | Stage::Ended => Vec::new(),
        }
    }

    /// While the stream is compared: a stored file that has all of it.
    pub(super) fn compared_file(&self) -> Option<String> {
        match &self.stage {
            Stage::Comparing(comparison) => comparison.equal_to().map(|stored| stored.manifest.file.clone()),
            Stage::Writing(_) | Stage::Ended => None,
        }
    }

    /// Puts the records that the stream came in into its manifest.
    pub(super) fn note_segments(&mut self, segments: Segments) {
        match &mut self.stage {
            Stage::Writing(part) => put_segments(&mut part.manifest(), segments),
            Stage::Comparing(comparison) => {
                let compared = segments.end_compared();
                for stored in &mut comparison.candidates {
                    let mut all = Segments::new(std::mem::take(&mut stored.manifest.segments));
                    all.append(compared.clone());
                    put_segments(&mut stored.manifest, all);
                }
            }
            Stage::Ended => {}
        }
    }

    /// Whole packets in the stream so far.
    pub fn packets(&self) -> u64 {
        match &self.stage {
            Stage::Writing(part) => part.tail().follower().packets(),
            Stage::Comparing(comparison) => comparison.tail.follower().packets(),
            Stage::Ended => 0,
        }
    }

    /// Ends the stream: the rest is written, and the manifest after it.
    pub fn finish(mut self, reason: EndReason) {
        self.end(reason);
    }

    fn end(&mut self, reason: EndReason) {
        let Some(mut claim) = self.claim.take() else { return };
        if self.lost_bytes > 0 {
            self.shared.counters.failed_streams_total.one();
            self.shared.note_loss(&name::file_name(claim.name()), self.lost_bytes);
        }
        let part = match std::mem::replace(&mut self.stage, Stage::Ended) {
            Stage::Writing(part) => self.end_writing(part, reason),
            Stage::Comparing(comparison) => self.end_comparing(&comparison, reason),
            Stage::Ended => None,
        };
        let Some(part) = part else { return };
        claim.closing();
        self.shared.forget(&part);
        // A writer that is gone reports its own error.
        let _ = self.shared.send(Job::Close(Ended { part, claim }));
    }

    fn end_writing(&self, part: Arc<Part>, reason: EndReason) -> Option<Arc<Part>> {
        self.shared.write_through(&part);
        let tail = part.tail();
        let mut manifest = part.manifest();
        manifest.state = State::Closed;
        manifest.end_reason = Some(reason);
        manifest.bytes = tail.follower().received();
        manifest.sha256 = tail.sha256();
        manifest.capture = tail.follower().summary();
        manifest.midstate = part.is_of_records.then(|| tail.midstate(None));
        let bytes = manifest.bytes;
        if let Some(connection) = manifest.connections.last_mut() {
            connection.bytes = bytes.saturating_sub(connection.offset);
            self.end_connection(connection, reason);
        }
        drop((tail, manifest));
        Some(part)
    }

    /// All that was sent is stored already: only the manifest changes, by one connection.
    fn end_comparing(&self, comparison: &Comparison, reason: EndReason) -> Option<Arc<Part>> {
        let stored = comparison.equal_to()?;
        let received = comparison.tail.follower().received();
        let mut connection = self.connection(stored.bytes);
        connection.compared_bytes = received;
        self.end_connection(&mut connection, reason);
        let mut manifest = stored.manifest.clone();
        manifest.connect(connection);
        manifest.end_reason = Some(reason);
        if received == stored.bytes {
            // The file is all that the sender has: a crash or a loss before that is mended.
            manifest.state = State::Closed;
            manifest.lost_bytes = 0;
        }
        Some(Arc::new(Part::new(self.shared.next_part_id(), Tail::new(false), manifest)))
    }

    fn end_connection(&self, connection: &mut Connection, reason: EndReason) {
        let time = |ms| (ms != 0).then(|| rfc3339(ms));
        connection.first_byte_at = time(self.first_byte_ms);
        connection.last_byte_at = time(self.last_byte_ms);
        connection.ended_at = Some(rfc3339(now_ms()));
        connection.end_reason = Some(reason);
    }

    fn connection(&self, offset: u64) -> Connection {
        Connection {
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

    fn claim(&self) -> io::Result<&Claim> {
        self.claim.as_ref().ok_or_else(|| io::Error::other("the stream has ended"))
    }

    /// A new part for this stream.
    fn create(&self, tail: Tail) -> io::Result<Arc<Part>> {
        let claim = self.claim()?;
        let (file, part) = self
            .shared
            .pressure
            .persist("create", "-", || create_file(&self.shared, claim, self.origin.source))?;
        let mut manifest = Manifest::new(claim.name(), file, part, self.origin.source);
        manifest.connect(self.connection(0));
        if part > 1 {
            self.shared.counters.parts_total.one();
        }
        self.open(tail, manifest)
    }

    /// Goes on with a stored part, of which `offset` bytes are in the file.
    fn reopen(&self, stored: Stored, tail: Tail, compared_bytes: u64) -> io::Result<Arc<Part>> {
        let mut manifest = stored.manifest;
        manifest.state = State::Open;
        manifest.end_reason = None;
        manifest.sha256 = None;
        let mut connection = self.connection(stored.bytes);
        connection.compared_bytes = compared_bytes;
        if compared_bytes > 0 {
            // Sent again from its start, so what could not be written comes again.
            manifest.lost_bytes = 0;
        }
        manifest.connect(connection);
        let opened =
            opened(self.claim()?, manifest.file.clone(), manifest.part, manifest.source, stored.bytes);
        self.shared
            .pressure
            .persist("journal", &opened.file, || self.shared.journal.opened(opened.clone()))?;
        self.open(tail, manifest)
    }

    /// The file is there and in the journal: writes the manifest.
    fn open(&self, tail: Tail, manifest: Manifest) -> io::Result<Arc<Part>> {
        self.shared
            .pressure
            .persist("manifest", &manifest.file, || self.shared.dir.write_manifest(&manifest))?;
        self.shared.dirty.add_names();
        let part = Arc::new(Part::new(self.shared.next_part_id(), tail, manifest));
        self.shared.remember(&part);
        Ok(part)
    }

    /// The stream goes on where an earlier one ended: in the part that was written last.
    fn go_on(&self, stored: Vec<Stored>) -> io::Result<Arc<Part>> {
        let Some(last) = last_written(&stored).cloned() else {
            return self.create(Tail::new(self.shared.hash));
        };
        let scan = self.scan(&last)?;
        if differs(&last.manifest, &scan) || scan.bytes() != last.bytes {
            log::warn!("stored_file_changed file={} note=\"it is left alone\"", last.manifest.file);
            return self.create(Tail::new(self.shared.hash));
        }
        self.reopen(last, Tail::resume(scan), 0)
    }

    /// A stored part's packets and hash: as its manifest has them, or the file is read once.
    fn scan(&self, stored: &Stored) -> io::Result<Scan> {
        let (shared, manifest) = (&self.shared, &stored.manifest);
        let restored = manifest
            .midstate
            .as_deref()
            .and_then(|stored_state| Scan::restore(stored_state, &manifest.file, stored.bytes, shared.hash));
        if let Some(scan) = restored.filter(|scan| !differs(manifest, scan)) {
            return Ok(scan);
        }
        let mut buffer = shared.pool.take(Size::Scratch);
        shared.pressure.persist("read", &manifest.file, || {
            scan(&mut shared.dir.open_to_read(&manifest.file)?, &mut buffer, shared.hash, |_| {})
        })
    }

    /// No part holds what came last: goes on with the one that ended, or in a new one.
    fn depart(&mut self, beyond: Beyond) -> io::Result<Arc<Part>> {
        let Stage::Comparing(comparison) = &self.stage else {
            return Err(io::Error::other("the stream is not being compared"));
        };
        let (received, stored) = (comparison.tail.follower().received(), beyond.stored_bytes());
        if stored >= received && stored > 0 {
            // The usual case: the stored part is the stream's begin, and the stream goes on.
            let mut tail = comparison.tail.clone();
            tail.stored(stored);
            let onto = beyond.onto.ok_or_else(|| io::Error::other("no part to go on with"))?;
            return self.reopen(onto, tail, stored);
        }
        let mut tail = Tail::new(self.shared.hash);
        tail.stored(stored);
        let part = match beyond.onto {
            Some(onto) => self.reopen(onto, tail, stored)?,
            None => self.create(tail)?,
        };
        log::info!("stream_differs file={} at_or_after={received}", part.file);
        if let Some(reference) = &beyond.reference {
            let copied = self.copy(reference, received, &part);
            // The part ends as one that lacks bytes; at a re-send it goes on.
            copied.inspect_err(|_| self.stage = Stage::Writing(part.clone()))?;
        }
        Ok(part)
    }

    /// Takes the stream's first `bytes` bytes, which came and are stored in `reference`, into `part` too.
    fn copy(&self, reference: &Stored, bytes: u64, part: &Arc<Part>) -> io::Result<()> {
        let mut at = 0;
        let mut copy = || {
            let file = &reference.manifest.file;
            let file = self.shared.pressure.persist("read", file, || self.shared.dir.open_to_read(file))?;
            while at < bytes {
                let mut buffer = self.shared.pool.take(Size::Scratch);
                let some = buffer.len().min(usize::try_from(bytes - at).unwrap_or(usize::MAX));
                file.read_exact_at(&mut buffer[..some], at)?;
                self.shared.take_in(part, buffer, some)?;
                at += some as u64;
            }
            Ok(())
        };
        let copied = copy();
        copied.inspect_err(|_| self.shared.lose(part, bytes - at))
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        self.end(EndReason::IoError);
    }
}

/// True if the manifest vouches for other bytes than were scanned.
fn differs(manifest: &Manifest, scan: &Scan) -> bool {
    matches!((&manifest.sha256, scan.sha256()), (Some(was), Some(is)) if *was != is)
}

fn put_segments(manifest: &mut Manifest, segments: Segments) {
    let partitions = |segment: &Segment| (segment.topic.clone(), segment.partition);
    manifest.order_uncertain |=
        segments.list.windows(2).any(|two| partitions(&two[0]) != partitions(&two[1]));
    manifest.segments = segments.list;
    manifest.segments_left_out += segments.left_out;
}

/// The part that was written last.
fn last_written(stored: &[Stored]) -> Option<&Stored> {
    stored.iter().max_by(|a, b| {
        let key =
            |stored: &Stored| (stored.manifest.last_written_at().map(str::to_owned), stored.manifest.part);
        key(a).cmp(&key(b))
    })
}

/// The parts stored under the claim's name, as far as a stream may go on with them.
fn stored_parts(shared: &Shared, claim: &Claim, source: Source) -> io::Result<Vec<Stored>> {
    let base = name::file_name(claim.name());
    let mut parts = Vec::new();
    for part in 1.. {
        let file = name::part_file_name(&base, part);
        // What may pass (too few descriptors) must not look like a file that is none of ours.
        match shared.pressure.persist("read", &file, || stored_part(shared, &file, source)) {
            Ok(Found::Stored(stored)) => parts.push(*stored),
            Ok(Found::Nothing) => break,
            Ok(Found::Foreign) => {}
            Err(error) => {
                log::warn!("stored_file_unusable file={file} error=\"{error}\" note=\"it is left alone\"")
            }
        }
        claim.took_part(part);
    }
    Ok(parts)
}

enum Found {
    /// A part of ours.
    Stored(Box<Stored>),
    /// Something that is not ours, or of another source, or not all there.
    Foreign,
    /// The name is free.
    Nothing,
}

fn stored_part(shared: &Shared, file: &str, source: Source) -> io::Result<Found> {
    let Some(mut manifest) = shared.dir.manifest(file)? else {
        return Ok(if shared.dir.is_taken(file)? { Found::Foreign } else { Found::Nothing });
    };
    if manifest.state == State::Open {
        // Looking at earlier parts can take longer than a stream of the same name waits: this is its own part.
        if shared.journal.is_open(file) {
            return Ok(Found::Foreign);
        }
        // The journal forgets a part after its manifest is closed: it may just have been.
        manifest = shared.dir.manifest(file)?.unwrap_or(manifest);
    }
    let bytes = match shared.dir.open_to_read(file) {
        Ok(file) => file.metadata()?.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Foreign),
        Err(error) => return Err(error),
    };
    if manifest.state == State::Open {
        // Its journal line was lost with the machine's power.
        let mut buffer = shared.pool.take(Size::Scratch);
        let stopping = || shared.pressure.given_up();
        recover::mend(&shared.dir, &mut manifest, shared.hash, &mut buffer, &stopping)?;
    }
    if manifest.source != source {
        return Ok(Found::Foreign);
    }
    if bytes != manifest.bytes {
        log::warn!("stored_file_changed file={file} bytes={bytes} manifest_bytes={}", manifest.bytes);
        return Ok(Found::Foreign);
    }
    Ok(Found::Stored(Box::new(Stored { manifest, bytes })))
}

/// Makes the file of the next free part; its line in the journal stands before it.
fn create_file(shared: &Shared, claim: &Claim, source: Source) -> io::Result<(String, u32)> {
    let base = name::file_name(claim.name());
    // One at a time, so that a line in the journal and its file are one step.
    let _creating = shared.creating.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    for part in claim.next_part().. {
        let file = name::part_file_name(&base, part);
        if shared.dir.is_taken(&file)? || shared.dir.is_taken(&manifest::file_name(&file))? {
            continue;
        }
        shared.journal.opened(opened(claim, file.clone(), part, source, 0))?;
        shared.dir.create(&file)?;
        claim.took_part(part);
        return Ok((file, part));
    }
    Err(io::Error::other("no part number is free"))
}

fn opened(claim: &Claim, file: String, part: u32, source: Source, bytes: u64) -> Opened {
    Opened { file, name_hex: hex(claim.name()), part, source, bytes }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::super::{Access, Losses, Probe, Vault, VaultConfig, VaultThreads};
    use super::*;
    use crate::cc::frame::handshake;

    const CAPTURE: &[u8] = include_bytes!("../../../testdata/pcap/rejected-call.pcap");
    const STEPS: [usize; 5] = [1, 7, 100, 1000, 100_000];

    struct NoProbe;

    impl Probe for NoProbe {
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
                pending_bytes_max: 1 << 20,
                descriptors: 100,
                free_bytes_min: 0,
                sync_interval: Duration::from_secs(1),
            };
            let (vault, threads) = Vault::spawn(&config, Arc::default()).unwrap();
            Scene { folder, vault, threads }
        }

        fn begin(&self, content: &[u8]) -> io::Result<Intake> {
            let origin = Origin { source: Source::Tcp, peer: "192.0.2.1:1024".into(), connected_ms: 0 };
            let head = match handshake::starts_capture(content) {
                Some(true) => Head::Capture,
                _ => Head::Other,
            };
            self.vault.enter(b"file", origin, Arc::new(NoProbe), || false)?.begin(head)
        }

        fn feed(&self, intake: &mut Intake, content: &[u8]) -> io::Result<()> {
            let mut buffer = self.vault.pool().take(Size::Large);
            buffer[..content.len()].copy_from_slice(content);
            intake.feed(buffer, content.len())
        }

        /// Takes a whole stream in, in chunks of `step` bytes.
        fn send(&self, content: &[u8], step: usize) {
            let mut intake = self.begin(content).unwrap();
            content.chunks(step).for_each(|chunk| self.feed(&mut intake, chunk).unwrap());
            intake.finish(EndReason::Eof);
        }

        /// Ends the vault; what it could not keep, and the folder.
        fn end(self) -> (Losses, tempfile::TempDir) {
            drop(self.vault);
            (self.threads.join().unwrap(), self.folder)
        }
    }

    fn stored(folder: &Path, file: &str) -> (Vec<u8>, Manifest) {
        let manifest = std::fs::read(folder.join(manifest::file_name(file))).unwrap();
        (std::fs::read(folder.join(file)).unwrap(), serde_json::from_slice(&manifest).unwrap())
    }

    /// Sends these streams of one name one after another, at every step; the parts that come of it.
    #[track_caller]
    fn check(streams: &[&[u8]], parts: &[&[u8]]) {
        for step in STEPS {
            let scene = Scene::new();
            streams.iter().for_each(|stream| scene.send(stream, step));
            let (losses, folder) = scene.end();
            assert!(losses.is_none(), "step {step}");
            for (number, part) in (1..).zip(parts) {
                let (content, manifest) = stored(folder.path(), &name::part_file_name("file", number));
                assert!(content == *part, "part {number}, step {step}");
                assert_eq!((manifest.bytes, manifest.part), (part.len() as u64, number), "step {step}");
                assert_eq!((manifest.state, manifest.end_reason), (State::Closed, Some(EndReason::Eof)));
                let sha256 = hex(&<sha2::Sha256 as sha2::Digest>::digest(part));
                assert_eq!(manifest.sha256, Some(sha256), "part {number}, step {step}");
            }
            let next = name::part_file_name("file", parts.len() as u32 + 1);
            assert!(!folder.path().join(next).exists(), "a part too many, step {step}");
        }
    }

    fn with_a_change_at(at: usize) -> Vec<u8> {
        let mut other = CAPTURE.to_vec();
        other[at] ^= 1;
        other
    }

    #[test]
    fn what_was_cut_off_becomes_one_file() {
        check(&[CAPTURE], &[CAPTURE]);
        check(&[&CAPTURE[..700], &CAPTURE[700..]], &[CAPTURE]);
        check(&[&CAPTURE[..700], CAPTURE], &[CAPTURE]);
        check(&[&CAPTURE[..30], &CAPTURE[..700], CAPTURE, CAPTURE, &CAPTURE[..30]], &[CAPTURE]);
    }

    #[test]
    fn what_differs_becomes_a_part_of_its_own() {
        let (early, late) = (with_a_change_at(50), with_a_change_at(1_200));
        check(&[CAPTURE, &late], &[CAPTURE, &late]);
        check(&[CAPTURE, &late, &early, CAPTURE, &late, &early], &[CAPTURE, &late, &early]);
        // The second part is cut off where it still equals the first: it goes on, from any place.
        check(&[CAPTURE, &early[..60], &early], &[CAPTURE, &early]);
    }

    #[test]
    fn an_intake_that_is_dropped_ends_as_an_error() {
        let scene = Scene::new();
        let mut intake = scene.begin(CAPTURE).unwrap();
        scene.feed(&mut intake, &CAPTURE[..700]).unwrap();
        drop(intake);
        let (losses, folder) = scene.end();
        let (content, manifest) = stored(folder.path(), "file");
        assert!(content == CAPTURE[..700] && losses.is_none());
        assert_eq!((manifest.state, manifest.end_reason), (State::Closed, Some(EndReason::IoError)));
    }

    #[test]
    fn a_stream_that_cannot_be_begun_lets_go_of_its_name() {
        let scene = Scene::new();
        std::fs::remove_dir(scene.folder.path().join(".lea/tmp")).unwrap();
        assert!(scene.begin(CAPTURE).is_err());
        assert!(!scene.vault.is_open(b"file"));
    }

    #[test]
    fn what_no_file_could_be_made_for_is_counted() {
        let other = with_a_change_at(1_200);
        for (content, lost) in [(&other[..], other.len() - 1_000), (&[CAPTURE, b"more"].concat(), 4)] {
            let scene = Scene::new();
            scene.send(CAPTURE, 1_000);
            let mut intake = scene.begin(content).unwrap();
            scene.feed(&mut intake, &content[..1_000]).unwrap();
            // From now on no manifest can be written.
            std::fs::remove_dir_all(scene.folder.path().join(".lea/tmp")).unwrap();
            assert!(scene.feed(&mut intake, &content[1_000..]).is_err());
            intake.lose(11);
            intake.finish(EndReason::IoError);
            let (losses, folder) = scene.end();
            assert_eq!((losses.streams, losses.bytes), (1, lost as u64 + 11));
            assert!(stored(folder.path(), "file").0 == CAPTURE, "what is stored stays as it is");
        }
    }

    #[test]
    fn a_part_that_another_stream_writes_is_left_alone() {
        let scene = Scene::new();
        let mut intake = scene.begin(b"no capture").unwrap();
        scene.feed(&mut intake, b"no capture").unwrap();
        let found = || stored_part(&scene.vault.shared, "file", Source::Tcp).unwrap();
        assert!(matches!(found(), Found::Foreign));
        assert_eq!(scene.vault.shared.dir.manifest("file").unwrap().unwrap().state, State::Open);
        intake.finish(EndReason::Eof);
        while scene.vault.is_open(b"file") {
            std::thread::yield_now();
        }
        assert!(matches!(found(), Found::Stored(stored) if stored.bytes == 10));
        assert!(scene.end().0.is_none());
    }
}
