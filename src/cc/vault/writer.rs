//! The writer thread: takes jobs in order and writes them at their place. It alone writes into stream files.
//!
//! A file is opened at its first write and closed when others were written more recently, so descriptors are
//! bounded. A write that fails in a way that may pass is tried again until it succeeds: the queue fills, the
//! streams wait, and TCP slows the senders down.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use lru::LruCache;
use rustix::io::Errno;

use super::backlog::Queued;
use super::checkpoint::Round;
use super::dir::VaultDir;
use super::keeper::{Ended, Keep};
use super::part::{Dirty, Part};
use super::pool::Buffer;
use super::pressure::Pressure;
use crate::counters::Counters;

/// How long it counts what room was seen on the disk: others may take it.
const ROOM_EVERY: Duration = Duration::from_millis(200);

/// Files that may be open whatever the number of streams.
const FILES_MIN: usize = 32;

/// What the writer does next.
pub enum Job {
    /// Put `head`, then `body`, at offset `at` of the part's file.
    Write {
        /// Where to.
        part: Arc<Part>,
        /// The offset.
        at: u64,
        /// Bytes that were kept back.
        head: Queued,
        /// Bytes of a buffer.
        body: Option<(Buffer, Range<usize>)>,
        /// So many bytes at the buffer's begin are hashed first.
        hashed: usize,
    },
    /// All of the part's bytes are written: close its file and hand it to the keeper.
    Close(Ended),
    /// All bytes before this job are hashed: whoever waits at the other end goes on.
    Hashed(Sender<()>),
    /// All bytes before this job are written: the keeper makes them durable, and then the checkpoint.
    Checkpoint(Round),
}

/// The calls that the writer makes, so that tests can fail each of them.
pub trait Disk {
    /// An open file.
    type File;
    /// Opens an existing stream file to write into it.
    fn open(&self, file: &str) -> io::Result<Self::File>;
    /// Writes at an offset; may write less.
    fn write_at(&self, file: &Self::File, at: u64, bytes: &[IoSlice<'_>]) -> io::Result<usize>;
    /// Bytes that may still be written.
    fn free_bytes(&self) -> io::Result<u64>;
}

impl Disk for Arc<VaultDir> {
    type File = std::os::fd::OwnedFd;

    fn open(&self, file: &str) -> io::Result<Self::File> {
        self.open_to_write(file)
    }

    fn write_at(&self, file: &Self::File, at: u64, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(rustix::io::pwritev(file, bytes, at)?)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        VaultDir::free_bytes(self)
    }
}

/// What the writer works with.
pub struct Writer<D: Disk> {
    /// Where files are.
    pub disk: D,
    /// Open files by part.
    pub files: LruCache<u64, D::File>,
    /// Descriptors that streams and their files share.
    pub descriptors: usize,
    /// Bytes that must stay free.
    pub free_bytes_min: u64,
    /// The state of the disk.
    pub pressure: Arc<Pressure>,
    /// Parts that need a sync.
    pub dirty: Arc<Dirty>,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// To the keeper.
    pub ended: Sender<Keep>,
    /// The room that was last seen.
    pub room: Option<Room>,
}

/// Room on the disk above what is to stay free.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    seen_at: Instant,
    bytes: u64,
}

impl<D: Disk> Writer<D> {
    /// Works until the last sender of jobs is gone.
    pub fn run(mut self, jobs: Receiver<Job>) {
        for job in jobs {
            match job {
                Job::Write { part, at, head, body, .. } => {
                    let body = body.as_ref().map_or(&[][..], |(buffer, range)| &buffer[range.clone()]);
                    self.write(&part, at, &head, body);
                }
                Job::Close(ended) => {
                    self.files.pop(&ended.part.id);
                    // The keeper outlives the writer; if it failed, its own error is the one reported.
                    let _ = self.ended.send(Keep::Ended(ended));
                }
                Job::Hashed(_) => {}
                Job::Checkpoint(round) => {
                    let _ = self.ended.send(Keep::Checkpoint(round));
                }
            }
        }
    }

    fn write(&mut self, part: &Arc<Part>, at: u64, head: &[u8], body: &[u8]) {
        let bytes = (head.len() + body.len()) as u64;
        let mut done = 0;
        while done < bytes && !part.is_broken() {
            match self.write_some(part, at + done, skip(head, body, done as usize)) {
                Ok(n) => done += n as u64,
                Err(error) => {
                    log::error!("write_failed file={} at={} error=\"{error}\"", part.file, at + done);
                    break;
                }
            }
        }
        if done < bytes {
            part.lose(bytes - done);
            self.counters.lost_bytes_total.add(bytes - done);
        }
        self.counters.written_bytes_total.add(done);
        if done > 0 && part.soil() {
            self.dirty.add(part);
        }
    }

    /// Closes the files that were not written for longest, until another one may be opened.
    fn make_room(&mut self) {
        let streams = usize::try_from(self.counters.streams_open.get()).unwrap_or(usize::MAX);
        let files_max = self.descriptors.saturating_sub(streams).max(FILES_MIN);
        while self.files.len() >= files_max {
            self.files.pop_lru();
        }
    }

    /// One write, tried until it succeeds.
    fn write_some(&mut self, part: &Part, at: u64, slices: [&[u8]; 2]) -> io::Result<usize> {
        if !self.files.contains(&part.id) {
            self.make_room();
        }
        let Writer { disk, files, free_bytes_min, pressure, counters, room, .. } = self;
        let wanted = (slices[0].len() + slices[1].len()) as u64;
        pressure.persist("write", &part.file, || {
            if *free_bytes_min > 0 {
                look_for_room(disk, room, *free_bytes_min, wanted)?;
            }
            let file = files.try_get_or_insert(part.id, || disk.open(&part.file))?;
            let written = match slices {
                [[], body] => disk.write_at(file, at, &[IoSlice::new(body)]),
                [head, body] => disk.write_at(file, at, &[IoSlice::new(head), IoSlice::new(body)]),
            };
            counters.writes_total.one();
            match written? {
                0 => Err(Errno::NOSPC.into()),
                n => {
                    if let Some(room) = room {
                        room.bytes = room.bytes.saturating_sub(n as u64);
                    }
                    Ok(n)
                }
            }
        })
    }
}

/// Sees to it that a write of `wanted` bytes leaves `free_bytes_min` bytes free. What was seen a moment ago and not
/// written since need not be looked at again.
fn look_for_room(
    disk: &impl Disk,
    room: &mut Option<Room>,
    free_bytes_min: u64,
    wanted: u64,
) -> io::Result<()> {
    if room.is_some_and(|room| room.bytes >= wanted && room.seen_at.elapsed() < ROOM_EVERY) {
        return Ok(());
    }
    *room = None;
    match disk.free_bytes()?.checked_sub(free_bytes_min) {
        Some(bytes) if bytes >= wanted => {
            *room = Some(Room { seen_at: Instant::now(), bytes });
            Ok(())
        }
        _ => Err(Errno::NOSPC.into()),
    }
}

/// What is left of `head` and `body` after their first `done` bytes.
fn skip<'a>(head: &'a [u8], body: &'a [u8], done: usize) -> [&'a [u8]; 2] {
    match done.checked_sub(head.len()) {
        None => [&head[done..], body],
        Some(of_body) => [&[], &body[of_body..]],
    }
}

/// The open files. Their number follows that of the streams, so it is bounded where files are opened.
pub fn files<F>() -> LruCache<u64, F> {
    LruCache::unbounded()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Mutex;

    use super::super::manifest::{Manifest, Source};
    use super::super::names::Names;
    use super::super::tail::Tail;
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    enum Call {
        Open,
        Write,
        FreeBytes,
    }

    const CALLS: [Call; 3] = [Call::Open, Call::Write, Call::FreeBytes];

    /// What goes wrong at the `at`th call of a kind (from 0), and perhaps at all that follow.
    #[derive(Clone, Copy, Debug)]
    struct Fault {
        call: Call,
        at: usize,
        for_ever: bool,
        how: How,
    }

    #[derive(Clone, Copy, Debug)]
    enum How {
        Fails(Errno),
        Short(usize),
    }

    #[derive(Default)]
    struct State {
        files: HashMap<String, Vec<u8>>,
        calls: HashMap<Call, usize>,
        fault: Option<Fault>,
        free_bytes: u64,
        open_max: usize,
    }

    /// A disk in memory. An open file is a handle to its name; the count of them is the number of open files.
    #[derive(Clone, Default)]
    struct Fake {
        state: Arc<Mutex<State>>,
        handles: Arc<()>,
    }

    impl Fake {
        /// Counts a call; the fault that it meets.
        fn call(&self, call: Call) -> Option<How> {
            let mut state = self.state.lock().unwrap();
            let count = state.calls.entry(call).or_default();
            let number = *count;
            *count += 1;
            let met = |fault: &Fault| number == fault.at || (fault.for_ever && number > fault.at);
            state.fault.filter(|fault| fault.call == call && met(fault)).map(|fault| fault.how)
        }

        fn count(&self, call: Call) -> usize {
            self.state.lock().unwrap().calls.get(&call).copied().unwrap_or(0)
        }

        fn file(&self, file: &str) -> Vec<u8> {
            self.state.lock().unwrap().files.get(file).cloned().unwrap_or_default()
        }
    }

    impl Disk for Fake {
        type File = (String, Arc<()>);

        fn open(&self, file: &str) -> io::Result<Self::File> {
            if let Some(How::Fails(errno)) = self.call(Call::Open) {
                return Err(errno.into());
            }
            let handle = Arc::clone(&self.handles);
            let mut state = self.state.lock().unwrap();
            // This fake and its clone in the test are no open files.
            state.open_max = state.open_max.max(Arc::strong_count(&handle) - 2);
            Ok((file.to_owned(), handle))
        }

        fn write_at(&self, (file, _): &Self::File, at: u64, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
            let all: Vec<u8> = bytes.iter().flat_map(|slice| slice.iter().copied()).collect();
            let len = match self.call(Call::Write) {
                Some(How::Fails(errno)) => return Err(errno.into()),
                Some(How::Short(len)) => len.min(all.len()),
                None => all.len(),
            };
            let mut state = self.state.lock().unwrap();
            state.free_bytes = state.free_bytes.saturating_sub(len as u64);
            let stored = state.files.entry(file.clone()).or_default();
            assert_eq!(stored.len() as u64, at, "no hole, and nothing is written twice");
            stored.extend_from_slice(&all[..len]);
            Ok(len)
        }

        fn free_bytes(&self) -> io::Result<u64> {
            match self.call(Call::FreeBytes) {
                Some(How::Fails(errno)) => Err(errno.into()),
                _ => Ok(self.state.lock().unwrap().free_bytes),
            }
        }
    }

    const MUCH: u64 = 1 << 30;
    const HEAD: &[u8] = b"kept back, then ";
    const PIECES: usize = 3;

    fn parts(count: usize) -> Vec<Arc<Part>> {
        let manifest = |id: usize| Manifest::new(b"name", format!("file-{id}"), 1, Source::Tcp);
        let part = |id: usize| Arc::new(Part::new(id as u64, Tail::new(false), manifest(id)));
        (0..count).map(part).collect()
    }

    fn piece(part: &Part, number: usize) -> Vec<u8> {
        [HEAD, format!("piece {number} of {}", part.file).as_bytes()].concat()
    }

    fn stream(part: &Part) -> Vec<u8> {
        (0..PIECES).flat_map(|number| piece(part, number)).collect()
    }

    fn writer(disk: &Fake, ended: Sender<Keep>, free_bytes_min: u64) -> Writer<Fake> {
        let counters = Arc::<Counters>::default();
        Writer {
            disk: disk.clone(),
            files: files(),
            descriptors: 0,
            free_bytes_min,
            pressure: Arc::new(Pressure::new(Arc::clone(&counters))),
            dirty: Arc::default(),
            counters,
            ended,
            room: None,
        }
    }

    /// Writes the streams of `count` parts, piece by piece in turn, on a disk with this fault. `patient`: trouble
    /// that may pass is waited for.
    fn run(count: usize, fault: Option<Fault>, patient: bool) -> (Fake, Vec<Arc<Part>>, Arc<Counters>) {
        let disk = Fake::default();
        {
            let mut state = disk.state.lock().unwrap();
            (state.fault, state.free_bytes) = (fault, MUCH);
        }
        let (ended, ended_in) = crossbeam_channel::unbounded();
        let mut writer = writer(&disk, ended, 1);
        let counters = Arc::clone(&writer.counters);
        if !patient {
            writer.pressure.give_up_at(Instant::now());
        }
        let parts = parts(count);
        for number in 0..PIECES {
            for part in &parts {
                let at = (0..number).map(|before| piece(part, before).len() as u64).sum();
                let piece = piece(part, number);
                // As a stream does it: what was kept back, and a chunk.
                writer.write(part, at, HEAD, &piece[HEAD.len()..]);
            }
        }
        let (jobs, jobs_in) = crossbeam_channel::unbounded();
        let names = Arc::<Names>::default();
        for part in &parts {
            let claim = names.hold(super::super::manifest::Source::Tcp, part.file.as_bytes());
            jobs.send(Job::Close(Ended { part: Arc::clone(part), claim })).unwrap();
        }
        drop(jobs);
        writer.run(jobs_in);
        let closed: Vec<_> = ended_in
            .iter()
            .map(|keep| match keep {
                Keep::Ended(ended) => ended.part.id,
                Keep::Checkpoint(_) => u64::MAX,
            })
            .collect();
        assert_eq!(closed, parts.iter().map(|part| part.id).collect::<Vec<_>>(), "all are closed, in order");
        assert_eq!(Arc::strong_count(&disk.handles), 1, "no file stays open");
        (disk, parts, counters)
    }

    /// Each file is a start of its stream, and what is missing was counted. Gives the parts that lack bytes.
    fn check_starts(disk: &Fake, parts: &[Arc<Part>], counters: &Counters) -> usize {
        let (mut written, mut lost, mut broken) = (0, 0, 0);
        for part in parts {
            let (stored, stream) = (disk.file(&part.file), stream(part));
            assert!(stream.starts_with(&stored), "{}", part.file);
            assert_eq!(stored.len() as u64 + part.lost_bytes(), stream.len() as u64, "{}", part.file);
            assert_eq!(part.is_broken(), part.lost_bytes() > 0);
            written += stored.len() as u64;
            lost += part.lost_bytes();
            broken += usize::from(part.is_broken());
        }
        assert_eq!((counters.written_bytes_total.get(), counters.lost_bytes_total.get()), (written, lost));
        broken
    }

    /// Faults at each call of a run without one.
    fn faults(how: How, for_ever: bool) -> Vec<Fault> {
        let (calm, ..) = run(2, None, true);
        let at_each = |call| (0..calm.count(call)).map(move |at| Fault { call, at, for_ever, how });
        let faults: Vec<_> = CALLS.into_iter().flat_map(at_each).collect();
        assert!(faults.len() >= 2 + 2 * PIECES, "{faults:?}");
        faults
    }

    #[test]
    fn without_a_fault_all_is_written() {
        let (disk, parts, counters) = run(2, None, true);
        assert_eq!(check_starts(&disk, &parts, &counters), 0);
        assert_eq!((disk.count(Call::Open), disk.count(Call::Write)), (2, 2 * PIECES));
    }

    #[test]
    fn what_passes_is_waited_for_at_every_call() {
        for fault in faults(How::Fails(Errno::NOSPC), false) {
            let (disk, parts, counters) = run(2, Some(fault), true);
            assert_eq!(check_starts(&disk, &parts, &counters), 0, "{fault:?}");
            assert_eq!(counters.write_retries_total.get(), 1, "{fault:?}");
        }
    }

    #[test]
    fn what_does_not_pass_ends_one_stream() {
        for fault in faults(How::Fails(Errno::IO), false) {
            let (disk, parts, counters) = run(2, Some(fault), true);
            assert_eq!(check_starts(&disk, &parts, &counters), 1, "{fault:?}");
            assert_eq!(counters.write_retries_total.get(), 0, "{fault:?}");
        }
    }

    #[test]
    fn for_ever_after_it_ends_all_that_are_not_done() {
        for errno in [Errno::IO, Errno::NOSPC] {
            for fault in faults(How::Fails(errno), true) {
                // Of the first kind nobody waits for the end; of the second not after the drain.
                let (disk, parts, counters) = run(2, Some(fault), errno == Errno::IO);
                let broken = check_starts(&disk, &parts, &counters);
                // A file that is open needs no open, and a moment's room is not looked at again.
                let least = if fault.call == Call::Write && fault.at + 1 < 2 * PIECES { 2 } else { 1 };
                assert!(broken >= least, "{fault:?}: {broken}");
            }
        }
    }

    #[test]
    fn short_writes_of_every_length() {
        let len = piece(&parts(1)[0], 0).len();
        for short in 1..len {
            for at in 0..2 * PIECES {
                for for_ever in [false, true] {
                    let fault = Fault { call: Call::Write, at, for_ever, how: How::Short(short) };
                    let (disk, parts, counters) = run(2, Some(fault), true);
                    assert_eq!(check_starts(&disk, &parts, &counters), 0, "{fault:?}");
                }
            }
        }
    }

    #[test]
    fn a_write_of_nothing_is_a_full_disk() {
        let fault = Fault { call: Call::Write, at: 1, for_ever: false, how: How::Short(0) };
        let (disk, parts, counters) = run(2, Some(fault), true);
        assert_eq!(check_starts(&disk, &parts, &counters), 0);
        assert_eq!(counters.write_retries_total.get(), 1);
    }

    #[test]
    fn files_are_closed_when_there_are_too_many() {
        let (disk, parts, counters) = run(3 * FILES_MIN, None, true);
        assert_eq!(check_starts(&disk, &parts, &counters), 0);
        assert_eq!(disk.state.lock().unwrap().open_max, FILES_MIN);
        assert_eq!(
            disk.count(Call::Open),
            3 * FILES_MIN * PIECES,
            "each was written when it was closed again"
        );
    }

    /// Writes `len` bytes where so many are free, and so many are to stay free; true if it was done.
    fn check_room(free_bytes: u64, free_bytes_min: u64, len: usize) -> bool {
        let disk = Fake::default();
        disk.state.lock().unwrap().free_bytes = free_bytes;
        let mut writer = writer(&disk, crossbeam_channel::unbounded().0, free_bytes_min);
        writer.pressure.give_up_at(Instant::now());
        let part = &parts(1)[0];
        writer.write(part, 0, &[], &vec![7; len]);
        !part.is_broken()
    }

    #[test]
    fn room_is_kept_to_the_byte() {
        assert!(check_room(1_100, 1_000, 100));
        assert!(!check_room(1_099, 1_000, 100));
        assert!(!check_room(999, 1_000, 1));
        assert!(check_room(0, 0, 100), "with nothing to keep the disk itself says when it is full");
    }

    #[test]
    fn room_is_looked_at_again_when_it_is_used_up() {
        let disk = Fake::default();
        disk.state.lock().unwrap().free_bytes = 1_000 + 550;
        let mut writer = writer(&disk, crossbeam_channel::unbounded().0, 1_000);
        writer.pressure.give_up_at(Instant::now());
        let part = &parts(1)[0];
        for at in 0..6 {
            writer.write(part, at * 100, &[], &[7; 100]);
        }
        assert_eq!((disk.file(&part.file).len(), part.lost_bytes()), (500, 100));
        assert!(disk.state.lock().unwrap().free_bytes >= 1_000);
    }
}
