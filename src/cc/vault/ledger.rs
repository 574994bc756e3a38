//! Streams that come as records of partitions, and nothing of them twice. Runs in the thread that polls the records.
//!
//! A stream from Kafka has no end, so nothing here depends on time. Each record's offset is looked at first: below
//! the partition's next one it was taken before. A checkpoint says what the files held at which offsets; until it is
//! durable nothing is committed, and what was written after it is cut off again at the next start. A stream that was
//! not written for longest is closed when too many are open, but never before a checkpoint has its bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crossbeam_channel::{Receiver, TryRecvError, bounded};
use lru::LruCache;

use super::checkpoint::{self, Checkpoint, Compared, FileState, PartitionState, Round};
use super::intake::{Head, Intake, Origin};
use super::journal::Opened;
use super::manifest::{EndReason, Manifest, Segment, Source, State};
use super::names::Probe;
use super::pool::{Buffer, Size};
use super::time::now_ms;
use super::writer::Job;
use super::{Shared, Vault, recover, unhex};
use crate::cc::frame::handshake::starts_capture;
use crate::cc::frame::name::hex;
use crate::{Error, Result};
use gather::Gathered;

/// Streams kept open: some 3 KiB each, and few enough descriptors are bounded elsewhere.
pub const STREAMS_MAX: usize = 16_384;

/// A capture's first bytes by which a re-send is known: a pcap file header.
const HEAD_BYTES: usize = 24;

/// The file of records that cannot be used, in the folder of our own files.
pub const DEAD_LETTERS: &str = "dead-letters.jsonl";

/// Segments of one file, before the middle ones are left out.
const SEGMENTS_MAX: usize = 1000;

/// The rounds are written anew when they have grown to this and to four times what they had then.
const ROUNDS_BYTES_MIN: u64 = 8 << 20;

/// A partition that this process reads.
#[derive(Clone, Debug)]
struct Partition {
    state: PartitionState,
    /// Offsets below this are committed to the group.
    committed: i64,
    assigned: bool,
    /// Grows when offsets were passed over that another member has: what comes then is another segment.
    run: u64,
    /// True if the next record may lie behind offsets that were never read.
    jumps: bool,
}

/// Which of the ledger's partitions; stays the same for as long as the ledger lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId(usize);

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Its bytes are on their way into the stream's file.
    New,
    /// It was taken before.
    Repeated,
}

/// An offset to commit to the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The partition.
    pub partition: PartitionId,
    /// The offset of the first record that is not stored.
    pub next_offset: i64,
}

/// A checkpoint on its way to the disk.
struct InFlight {
    done: Receiver<io::Result<()>>,
    commits: Vec<Commit>,
}

struct Open {
    intake: Intake,
    /// The stream's first bytes.
    head: Vec<u8>,
    /// What the stream's bytes from the file's start on came from.
    segments: Vec<Segment>,
    segments_left_out: u64,
    partitions: BTreeSet<(usize, i32)>,
    /// True if a record came since the last checkpoint.
    changed: bool,
    /// The run of its last record's partition.
    run: u64,
    /// Bytes that the intake has not.
    gathered: Gathered,
}

/// The streams of all partitions that this process reads.
pub struct Ledger {
    shared: Arc<Shared>,
    vault: Vault,
    origin: String,
    streams: LruCache<Box<[u8]>, Open>,
    streams_max: usize,
    partitions: Vec<Partition>,
    /// Comparisons that the last process had begun.
    compared: BTreeMap<String, Compared>,
    in_flight: Option<InFlight>,
    rounds_bytes: u64,
    rounds_bytes_max: u64,
    letters: Letters,
    /// Room that streams gather in.
    gathered_room: usize,
    /// Streams that were opened, again and again too.
    begun: u64,
}

/// Records that cannot be used, each a line.
struct Letters {
    file: File,
    bytes: u64,
    changed: bool,
}

/// Nobody waits for the end of a stream that has none.
struct Endless;

impl Probe for Endless {
    fn probe(&self, _on: bool) {}
}

impl Ledger {
    /// Cuts the files back to the last checkpoint. `origin` is what manifests name as the peer.
    pub fn open(vault: &Vault, origin: &str, streams_max: usize) -> Result<Ledger> {
        let shared = Arc::clone(&vault.shared);
        let failed = || Error::path("go on from the checkpoints in", shared.dir.path());
        let checkpoint = Checkpoint::read(&shared.dir).map_err(failed())?;
        let left = shared.take_left();
        let letters = Letters::open(&shared, checkpoint.dead_letter_bytes).map_err(failed())?;
        cut_back(&shared, &checkpoint, &left, letters.bytes).map_err(failed())?;
        let partition = |state: &PartitionState| Partition {
            state: state.clone(),
            committed: 0,
            assigned: false,
            run: 0,
            jumps: false,
        };
        let mut partitions = checkpoint.partitions.iter().map(partition).collect();
        dumps::forget_old(&mut partitions);
        Ok(Ledger {
            vault: vault.clone(),
            origin: origin.to_owned(),
            streams: LruCache::unbounded(),
            streams_max: streams_max.max(1),
            partitions,
            letters,
            compared: checkpoint.compared,
            in_flight: None,
            rounds_bytes: 0,
            rounds_bytes_max: ROUNDS_BYTES_MIN,
            gathered_room: 0,
            begun: 0,
            shared,
        })
    }

    /// Takes a partition up; gives it and the offset to read from. `committed` is the group's offset, if it has one.
    /// Where another member has read on meanwhile, the group's offset wins.
    pub fn assign(
        &mut self,
        topic: &str,
        topic_id: Option<&str>,
        partition: i32,
        committed: Option<i64>,
    ) -> (PartitionId, Option<i64>) {
        let known = self
            .partitions
            .iter()
            .position(|known| known.state.topic == topic && known.state.partition == partition);
        let at = known.unwrap_or_else(|| {
            self.partitions.push(Partition::new(topic, topic_id, partition));
            self.partitions.len() - 1
        });
        let found = &mut self.partitions[at];
        (found.assigned, found.jumps) = (true, true);
        if let (Some(was), Some(is)) = (&found.state.topic_id, topic_id)
            && was != is
        {
            log::warn!(
                "topic_made_again topic={topic} partition={partition} note=\"its records are taken from the start\""
            );
            found.state.topic_id = Some(is.to_owned());
            found.state.next_offset = 0;
            found.state.gaps.clear();
            found.run += 1;
            return (PartitionId(at), Some(0));
        }
        if found.state.topic_id.is_none() {
            found.state.topic_id = topic_id.map(str::to_owned);
        }
        let stored = known.map(|_| found.state.next_offset);
        let start = stored.max(committed);
        if let Some(start) = start {
            if start > found.state.next_offset {
                found.run += u64::from(stored.is_some());
                found.state.note_gap(found.state.next_offset, start);
            }
            found.state.next_offset = start;
            found.committed = committed.unwrap_or(0);
        }
        (PartitionId(at), start)
    }

    /// Topic, partition and next offset.
    pub fn partition(&self, partition: PartitionId) -> &PartitionState {
        &self.partitions[partition.0].state
    }

    /// Takes a record: the next `bytes` of `data` are the stream's. An error means that its file cannot be written.
    pub fn take(
        &mut self,
        partition: PartitionId,
        offset: i64,
        name: &[u8],
        data: Buffer,
        bytes: usize,
    ) -> io::Result<Taken> {
        if offset < self.partitions[partition.0].state.next_offset {
            return Ok(Taken::Repeated);
        }
        let open = self.streams.peek(name);
        if open.is_none_or(|open| open.is_sent_again(open.received(), &data[..bytes])) {
            self.begin(name, &data[..bytes])?;
        }
        let known = &self.partitions[partition.0];
        let Some(open) = self.streams.get_mut(name) else {
            return Err(io::Error::other("the stream is gone"));
        };
        open.hand_on(self.vault.pool())?;
        open.take(partition, known, offset, data, bytes)?;
        // Last: a checkpoint on the way here must not vouch for this record.
        self.pass(partition, offset);
        Ok(Taken::New)
    }

    /// Passes over a record that is not for a stream. False if it was passed before.
    pub fn pass(&mut self, partition: PartitionId, offset: i64) -> bool {
        let Partition { state, jumps, .. } = &mut self.partitions[partition.0];
        let new = offset >= state.next_offset;
        if new {
            if std::mem::take(jumps) && offset > state.next_offset {
                state.note_gap(state.next_offset, offset);
            }
            state.next_offset = offset + 1;
        }
        new
    }

    /// Takes the next `bytes` of the record that was taken last, where it has more than a buffer holds.
    pub fn take_more(&mut self, name: &[u8], data: Buffer, bytes: usize) -> io::Result<()> {
        let open = self.streams.get_mut(name).ok_or_else(|| io::Error::other("the stream is not open"))?;
        open.take_more(data, bytes)
    }

    /// Keeps a record that cannot be used, as a line of the dead letters.
    pub fn keep_letter(&mut self, partition: PartitionId, offset: i64, line: &[u8]) -> io::Result<Taken> {
        if offset < self.partitions[partition.0].state.next_offset {
            return Ok(Taken::Repeated);
        }
        let Letters { file, bytes, changed } = &mut self.letters;
        self.shared.pressure.persist("dead letter", DEAD_LETTERS, || {
            // Half a line (a full disk) must not stand before the next attempt's.
            file.set_len(*bytes)?;
            file.write_all(line)
        })?;
        (*bytes, *changed) = (*bytes + line.len() as u64, true);
        self.pass(partition, offset);
        Ok(Taken::New)
    }

    /// Streams that are open.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Streams that were begun; one that was closed and came again counts again.
    pub fn begun(&self) -> u64 {
        self.begun
    }

    /// Begins a checkpoint, unless one is under way.
    pub fn checkpoint(&mut self) -> io::Result<()> {
        if self.in_flight.is_some() {
            return Ok(());
        }
        self.hand_on()?;
        let replaces = self.rounds_bytes >= self.rounds_bytes_max;
        if std::mem::take(&mut self.letters.changed) {
            self.letters.file.sync_data()?;
        }
        let text = self.round(replaces).text()?;
        if replaces {
            self.rounds_bytes = 0;
            self.rounds_bytes_max = ROUNDS_BYTES_MIN.max(4 * text.len() as u64);
        }
        self.rounds_bytes += text.len() as u64;
        let (done, done_in) = bounded(1);
        self.shared.send(Job::Checkpoint(Round { text, replaces, done }))?;
        let commits = self
            .partitions
            .iter()
            .enumerate()
            .filter(|(_, known)| known.assigned && known.state.next_offset > known.committed)
            .map(|(at, known)| Commit { partition: PartitionId(at), next_offset: known.state.next_offset })
            .collect();
        self.in_flight = Some(InFlight { done: done_in, commits });
        Ok(())
    }

    /// The offsets to commit, once the checkpoint under way is durable; none before.
    pub fn finished(&mut self) -> io::Result<Option<Vec<Commit>>> {
        let Some(in_flight) = &self.in_flight else { return Ok(None) };
        match in_flight.done.try_recv() {
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(io::Error::other("the keeper is gone")),
            Ok(kept) => self.finish_round(kept).map(Some),
        }
    }

    /// Makes all that was taken durable; gives the offsets to commit.
    pub fn checkpoint_now(&mut self) -> io::Result<Vec<Commit>> {
        // One that is under way may have begun before the last record came.
        let before = self.wait_for_round()?;
        self.checkpoint()?;
        let commits = self.wait_for_round()?;
        Ok(if commits.is_empty() { before } else { commits })
    }

    /// The group has taken these offsets.
    pub fn committed(&mut self, commits: &[Commit]) {
        for commit in commits {
            let known = &mut self.partitions[commit.partition.0];
            known.committed = known.committed.max(commit.next_offset);
        }
    }

    /// Writes begun packets, makes all durable: before partitions are given up. Gives the offsets to commit.
    pub fn flush(&mut self) -> io::Result<Vec<Commit>> {
        self.hand_on()?;
        for (_, open) in self.streams.iter_mut() {
            open.changed |= open.intake.write_through();
        }
        self.checkpoint_now()
    }

    /// A partition belongs to another member now.
    pub fn unassign(&mut self, partition: PartitionId) {
        self.partitions[partition.0].assigned = false;
    }

    /// Closes all streams. Call it after [`flush`](Self::flush), and when its offsets are committed.
    pub fn close(mut self) {
        // What is closed needs no round, and from now on others may add to the dead letters.
        let round = Checkpoint { files: BTreeMap::new(), dead_letter_bytes: None, ..self.round(true) };
        while let Some((_, open)) = self.streams.pop_lru() {
            open.finish(EndReason::Drained);
        }
        if let Ok(text) = round.text() {
            // If the keeper is gone the rounds stay as they are: the next start goes by them.
            let _ = self.shared.send(Job::Checkpoint(Round { text, replaces: true, done: bounded(1).0 }));
        }
    }

    fn wait_for_round(&mut self) -> io::Result<Vec<Commit>> {
        let Some(in_flight) = &self.in_flight else { return Ok(Vec::new()) };
        let kept = in_flight.done.recv().map_err(|_| io::Error::other("the keeper is gone"))?;
        self.finish_round(kept)
    }

    fn finish_round(&mut self, kept: io::Result<()>) -> io::Result<Vec<Commit>> {
        let commits = self.in_flight.take().map(|in_flight| in_flight.commits).unwrap_or_default();
        kept.map(|()| commits)
    }

    /// What changed since the last round, or all that is open.
    fn round(&mut self, all: bool) -> Checkpoint {
        let mut round = Checkpoint {
            partitions: self.partitions.iter().map(|known| known.state.clone()).collect(),
            compared: self.compared.clone(),
            dead_letter_bytes: Some(self.letters.bytes),
            ..Checkpoint::default()
        };
        for (name, open) in self.streams.iter_mut() {
            if let Some(received) = open.intake.comparing() {
                let compared = Compared { name_hex: hex(name), received, segments: open.segments.clone() };
                round.compared.insert(compared.name_hex.clone(), compared);
            } else if (open.changed || all)
                && let Some(file) = open.state()
            {
                round.files.insert(file.file.clone(), file);
            }
            open.changed = false;
        }
        round
    }

    /// Closes streams that were not written for longest, if too many are open.
    fn make_room(&mut self) -> io::Result<()> {
        if self.streams.len() < self.streams_max {
            return Ok(());
        }
        self.checkpoint_now()?;
        // Many at once, so that checkpoints stay few.
        let mut comparing = Vec::new();
        for _ in 0..self.streams_max.div_ceil(2) {
            match self.streams.pop_lru() {
                Some((name, open)) if open.intake.comparing().is_some() => comparing.push((name, open)),
                Some((_, open)) => open.finish(EndReason::Idle),
                None => break,
            }
        }
        for (name, open) in comparing {
            self.streams.put(name, open);
        }
        Ok(())
    }

    /// Begins a stream with `data`; one that is open is being sent again.
    fn begin(&mut self, name: &[u8], data: &[u8]) -> io::Result<()> {
        let mut head = None;
        if self.streams.contains(name) {
            self.checkpoint_now()?;
            if let Some(open) = self.streams.pop(name) {
                open.finish(EndReason::Eof);
            }
            head = Some(Head::Capture);
        } else {
            self.make_room()?;
        }
        let open = self.enter(name, data, head)?;
        self.streams.put(name.into(), open);
        self.begun += 1;
        Ok(())
    }

    /// Opens a stream; `head` says whether it starts from its first byte, if that is known.
    fn enter(&mut self, name: &[u8], data: &[u8], head: Option<Head>) -> io::Result<Open> {
        let origin = Origin { source: Source::Kafka, peer: self.origin.clone(), connected_ms: now_ms() };
        let entry = self.vault.enter(name, origin, Arc::new(Endless), || false)?;
        if let Some(compared) = self.compared.remove(&hex(name)) {
            let intake = entry.compare_on(compared.received)?;
            return Ok(Open::new(intake, Vec::new(), compared.segments));
        }
        let stored_head = entry.stored_head(HEAD_BYTES)?;
        let again = || if is_same_head(&stored_head, data) { Head::Capture } else { Head::Other };
        let intake = entry.begin(head.unwrap_or_else(again))?;
        let segments = intake.segments();
        Ok(Open::new(intake, stored_head, segments))
    }
}

/// True if `data` begins as the stored stream does, and both are captures.
fn is_same_head(head: &[u8], data: &[u8]) -> bool {
    head.len() == HEAD_BYTES && data.starts_with(head) && starts_capture(head) == Some(true)
}

impl Open {
    fn new(intake: Intake, head: Vec<u8>, segments: Vec<Segment>) -> Open {
        Open {
            intake,
            head,
            segments,
            segments_left_out: 0,
            partitions: BTreeSet::new(),
            changed: false,
            run: 0,
            gathered: Gathered::default(),
        }
    }

    /// The stream's bytes so far.
    fn received(&self) -> u64 {
        self.intake.received() + self.gathered.bytes() as u64
    }

    /// True if `data`, which comes behind `received` bytes of the stream, is its begin once more.
    fn is_sent_again(&self, received: u64, data: &[u8]) -> bool {
        received >= HEAD_BYTES as u64 && is_same_head(&self.head, data)
    }

    fn take(
        &mut self,
        id: PartitionId,
        known: &Partition,
        offset: i64,
        data: Buffer,
        bytes: usize,
    ) -> io::Result<()> {
        let at = self.intake.received();
        if self.head.len() < HEAD_BYTES && at == self.head.len() as u64 {
            let some = bytes.min(HEAD_BYTES - self.head.len());
            self.head.extend_from_slice(&data[..some]);
        }
        let was_comparing = self.intake.comparing().is_some();
        self.changed = true;
        if bytes > 0 {
            self.intake.feed(data, bytes)?;
        }
        self.note(known, offset, at, bytes as u64);
        if was_comparing && self.intake.comparing().is_none() {
            self.keep_stored_segments();
        }
        self.partitions.insert((id.0, known.state.partition));
        self.run = known.run;
        Ok(())
    }

    fn take_more(&mut self, data: Buffer, bytes: usize) -> io::Result<()> {
        self.intake.feed(data, bytes)?;
        if let Some(last) = self.segments.last_mut() {
            last.bytes += bytes as u64;
        }
        Ok(())
    }

    /// Notes where the bytes came from.
    fn note(&mut self, known: &Partition, offset: i64, at: u64, bytes: u64) {
        let state = &known.state;
        let same_run = self.partitions.is_empty() || self.run == known.run;
        let follows = |last: &&mut Segment| {
            same_run
                && last.partition == state.partition
                && last.topic == state.topic
                && last.topic_id == state.topic_id
                && last.next_offset <= offset
                && last.at + last.bytes == at
        };
        if let Some(last) = self.segments.last_mut().filter(follows) {
            last.next_offset = offset + 1;
            last.bytes += bytes;
            return;
        }
        if self.segments.len() >= SEGMENTS_MAX {
            self.segments.remove(SEGMENTS_MAX / 2);
            self.segments_left_out += 1;
        }
        self.segments.push(Segment {
            topic: state.topic.clone(),
            topic_id: state.topic_id.clone(),
            partition: state.partition,
            first_offset: offset,
            next_offset: offset + 1,
            at,
            bytes,
        });
        let first = (&self.segments[0].topic, self.segments[0].partition);
        let other = (&state.topic, state.partition);
        if first != other && self.partitions.len() == 1 {
            log::warn!(
                "order_uncertain file={} partitions={},{} note=\"send the stream's name as the records' key\"",
                self.intake.file().unwrap_or("-"),
                first.1,
                other.1,
            );
        }
    }

    /// The stream was compared and goes on in a part: what is stored of it came from the records that its manifest
    /// names.
    fn keep_stored_segments(&mut self) {
        let stored = self.intake.segments();
        let end = stored.last().map_or(0, |last| last.at + last.bytes);
        let mut segments = stored;
        for mut segment in std::mem::take(&mut self.segments) {
            let before = end.saturating_sub(segment.at).min(segment.bytes);
            segment.at += before;
            segment.bytes -= before;
            if segment.bytes > 0 || end == 0 {
                segments.push(segment);
            }
        }
        self.segments = segments;
    }

    /// What the file holds when all that was handed to the writer is written.
    fn state(&self) -> Option<FileState> {
        let (file, bytes, pending) = self.intake.position()?;
        Some(FileState { file, bytes, pending: hex(&pending), segments: self.segments.clone() })
    }

    fn finish(self, reason: EndReason) {
        let Open { mut intake, segments, segments_left_out, gathered, .. } = self;
        if gathered.bytes() > 0 {
            // What it has gathered could not be handed on.
            intake.lose(gathered.bytes() as u64);
        }
        intake.note_segments(segments, segments_left_out);
        intake.finish(reason);
    }
}

impl Letters {
    /// Opens the dead letters, and cuts off what a crash left behind the last checkpoint.
    fn open(shared: &Shared, bytes: Option<u64>) -> io::Result<Letters> {
        let file = shared.dir.own_append(DEAD_LETTERS)?;
        let found = file.metadata()?.len();
        let bytes = bytes.map_or(found, |bytes| bytes.min(found));
        file.set_len(bytes)?;
        Ok(Letters { file, bytes, changed: false })
    }
}

/// Makes the files what they were at the last checkpoint. Can be cut off at any point and done again.
fn cut_back(
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
    let file = std::fs::File::from(fd);
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

mod dumps;
mod gather;

pub use gather::Untaken;

#[cfg(test)]
mod tests;
