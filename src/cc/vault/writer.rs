//! Thread `writer`: writes the queued bytes to the stream files, in order. No other thread writes to them.
//!
//! A file is opened at its first write and closed after the most recently written ones are too many, so the
//! number of descriptors is bounded. A write that fails with a transient error is retried until it succeeds:
//! the queue fills up, the streams block, and TCP slows the senders down.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use lru::LruCache;
use rustix::io::Errno;

use super::backlog::QueuedBytes;
use super::checkpoint::CheckpointBatch;
use super::dir::VaultDir;
use super::disk_retry::DiskRetry;
use super::part::{DirtyParts, StreamPart};
use super::pool::Buffer;
use super::syncer::{EndedStream, SyncJob};
use crate::runtime::metrics::Metrics;

/// Time for which a measurement of the free space is used. Other processes also use the disk.
const FREE_SPACE_MAX_AGE: Duration = Duration::from_millis(200);

/// Number of files that may be open regardless of the number of streams.
const FILES_MIN: usize = 32;

/// A job for the writer thread.
pub(super) enum WriteJob {
    /// Writes `head`, then `body`, at offset `at` of the part's file.
    Write {
        part: Arc<StreamPart>,
        at: u64,
        /// Bytes of a partial packet that were held back.
        head: QueuedBytes,
        /// A range of a pool buffer.
        body: Option<(Buffer, Range<usize>)>,
        /// Number of bytes at the start of the buffer to hash first.
        hashed: usize,
    },
    /// All bytes of the part are queued: closes its file and hands the stream to the syncer.
    Close(EndedStream),
    /// Wakes the sender when all earlier jobs are hashed. The hasher consumes it.
    HashBarrier(Sender<()>),
    /// All bytes of the checkpoint are queued before it: forwards it to the syncer.
    Checkpoint(CheckpointBatch),
}

/// File system calls of the writer, so that tests can inject faults.
pub(super) trait StreamDisk {
    type File;
    /// Opens an existing stream file for writing.
    fn open(&self, file: &str) -> io::Result<Self::File>;
    /// Writes at an offset. May write less than requested.
    fn write_at(&self, file: &Self::File, at: u64, bytes: &[IoSlice<'_>]) -> io::Result<usize>;
    /// Returns the bytes that can still be written.
    fn free_bytes(&self) -> io::Result<u64>;
}

impl StreamDisk for Arc<VaultDir> {
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

/// State of the writer thread.
pub(super) struct DiskWriter<D: StreamDisk> {
    pub disk: D,
    /// Open files by part id.
    pub files: LruCache<u64, D::File>,
    /// Descriptors shared by connections and stream files.
    pub descriptors: usize,
    /// Bytes that must stay free.
    pub free_bytes_min: u64,
    pub disk_retry: Arc<DiskRetry>,
    /// Parts that need an fsync.
    pub dirty: Arc<DirtyParts>,
    pub metrics: Arc<Metrics>,
    /// Queue to the syncer.
    pub sync_jobs: Sender<SyncJob>,
    /// Last measurement of the free space.
    pub free_space: Option<FreeSpace>,
}

/// Free space beyond the reserve.
#[derive(Clone, Copy, Debug)]
pub(super) struct FreeSpace {
    seen_at: Instant,
    bytes: u64,
}

impl<D: StreamDisk> DiskWriter<D> {
    /// Runs until all senders of jobs have ended.
    pub(super) fn run(mut self, jobs: Receiver<WriteJob>) {
        for job in jobs {
            match job {
                WriteJob::Write { part, at, head, body, .. } => {
                    let body = body.as_ref().map_or(&[][..], |(buffer, range)| &buffer[range.clone()]);
                    self.write(&part, at, &head, body);
                }
                WriteJob::Close(ended) => {
                    self.files.pop(&ended.part.id);
                    // The syncer outlives the writer. If it failed, its own error is reported.
                    let _ = self.sync_jobs.send(SyncJob::Ended(ended));
                }
                WriteJob::HashBarrier(_) => {}
                WriteJob::Checkpoint(round) => {
                    let _ = self.sync_jobs.send(SyncJob::Checkpoint(round));
                }
            }
        }
    }

    fn write(&mut self, part: &Arc<StreamPart>, at: u64, head: &[u8], body: &[u8]) {
        let bytes = (head.len() + body.len()) as u64;
        let mut done = 0;
        while done < bytes && !part.is_broken() {
            match self.write_once(part, at + done, remaining_slices(head, body, done as usize)) {
                Ok(n) => done += n as u64,
                Err(error) => {
                    log::error!("write_failed file={} at={} error=\"{error}\"", part.file, at + done);
                    break;
                }
            }
        }
        if done < bytes {
            part.mark_broken(bytes - done);
            self.metrics.lost_bytes_total.add(bytes - done);
        }
        self.metrics.written_bytes_total.add(done);
        if done > 0 && part.mark_dirty() {
            self.dirty.add(part);
        }
    }

    /// Closes the least recently written files until another one may be opened.
    fn close_idle_files(&mut self) {
        let streams = usize::try_from(self.metrics.streams_open.get()).unwrap_or(usize::MAX);
        let files_max = self.descriptors.saturating_sub(streams).max(FILES_MIN);
        while self.files.len() >= files_max {
            self.files.pop_lru();
        }
    }

    /// Writes once. Retries transient errors.
    fn write_once(&mut self, part: &StreamPart, at: u64, slices: [&[u8]; 2]) -> io::Result<usize> {
        if !self.files.contains(&part.id) {
            self.close_idle_files();
        }
        let DiskWriter {
            disk, files, free_bytes_min, disk_retry: pressure, metrics, free_space: room, ..
        } = self;
        let wanted = (slices[0].len() + slices[1].len()) as u64;
        pressure.retry("write", &part.file, || {
            if *free_bytes_min > 0 {
                check_free_space(disk, room, *free_bytes_min, wanted)?;
            }
            let file = files.try_get_or_insert(part.id, || disk.open(&part.file))?;
            let written = match slices {
                [[], body] => disk.write_at(file, at, &[IoSlice::new(body)]),
                [head, body] => disk.write_at(file, at, &[IoSlice::new(head), IoSlice::new(body)]),
            };
            metrics.writes_total.inc();
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

/// Checks that a write of `wanted` bytes leaves `free_bytes_min` bytes free. Uses a recent measurement,
/// reduced by what was written since.
fn check_free_space(
    disk: &impl StreamDisk,
    room: &mut Option<FreeSpace>,
    free_bytes_min: u64,
    wanted: u64,
) -> io::Result<()> {
    if room.is_some_and(|room| room.bytes >= wanted && room.seen_at.elapsed() < FREE_SPACE_MAX_AGE) {
        return Ok(());
    }
    *room = None;
    match disk.free_bytes()?.checked_sub(free_bytes_min) {
        Some(bytes) if bytes >= wanted => {
            *room = Some(FreeSpace { seen_at: Instant::now(), bytes });
            Ok(())
        }
        _ => Err(Errno::NOSPC.into()),
    }
}

/// Returns what remains of `head` and `body` after `done` bytes.
fn remaining_slices<'a>(head: &'a [u8], body: &'a [u8], done: usize) -> [&'a [u8]; 2] {
    match done.checked_sub(head.len()) {
        None => [&head[done..], body],
        Some(of_body) => [&[], &body[of_body..]],
    }
}

/// Creates the cache of open files. `close_idle_files` limits its size according to the number of streams.
pub(super) fn open_files<F>() -> LruCache<u64, F> {
    LruCache::unbounded()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Mutex;

    use super::*;
    use crate::cc::vault::manifest::{Manifest, StreamSource};
    use crate::cc::vault::name_locks::NameLocks;
    use crate::cc::vault::packet_aligner::PacketAligner;

    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    enum Call {
        Open,
        Write,
        FreeBytes,
    }

    const CALLS: [Call; 3] = [Call::Open, Call::Write, Call::FreeBytes];

    /// A fault at the `at`th call of a kind (from 0), or at that call and all later ones.
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

    /// A disk in memory. The reference count of `handles` is the number of open files.
    #[derive(Clone, Default)]
    struct Fake {
        state: Arc<Mutex<State>>,
        handles: Arc<()>,
    }

    impl Fake {
        /// Counts a call. Returns the fault that it meets.
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

    impl StreamDisk for Fake {
        type File = (String, Arc<()>);

        fn open(&self, file: &str) -> io::Result<Self::File> {
            if let Some(How::Fails(errno)) = self.call(Call::Open) {
                return Err(errno.into());
            }
            let handle = Arc::clone(&self.handles);
            let mut state = self.state.lock().unwrap();
            // The fake disk and its clone in the test hold one reference each.
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

    fn parts(count: usize) -> Vec<Arc<StreamPart>> {
        let manifest = |id: usize| Manifest::new(b"name", format!("file-{id}"), 1, StreamSource::Tcp);
        let part = |id: usize| Arc::new(StreamPart::new(id as u64, PacketAligner::new(false), manifest(id)));
        (0..count).map(part).collect()
    }

    fn piece(part: &StreamPart, number: usize) -> Vec<u8> {
        [HEAD, format!("piece {number} of {}", part.file).as_bytes()].concat()
    }

    fn stream(part: &StreamPart) -> Vec<u8> {
        (0..PIECES).flat_map(|number| piece(part, number)).collect()
    }

    fn writer(disk: &Fake, ended: Sender<SyncJob>, free_bytes_min: u64) -> DiskWriter<Fake> {
        let metrics = Arc::<Metrics>::default();
        DiskWriter {
            disk: disk.clone(),
            files: open_files(),
            descriptors: 0,
            free_bytes_min,
            disk_retry: Arc::new(DiskRetry::new(Arc::clone(&metrics))),
            dirty: Arc::default(),
            metrics,
            sync_jobs: ended,
            free_space: None,
        }
    }

    /// Writes the streams of `count` parts in turn, piece by piece, on a disk with this fault. `patient`
    /// retries transient errors.
    fn run(count: usize, fault: Option<Fault>, patient: bool) -> (Fake, Vec<Arc<StreamPart>>, Arc<Metrics>) {
        let disk = Fake::default();
        {
            let mut state = disk.state.lock().unwrap();
            (state.fault, state.free_bytes) = (fault, MUCH);
        }
        let (ended, ended_in) = crossbeam_channel::unbounded();
        let mut writer = writer(&disk, ended, 1);
        let metrics = Arc::clone(&writer.metrics);
        if !patient {
            writer.disk_retry.give_up_at(Instant::now());
        }
        let parts = parts(count);
        for number in 0..PIECES {
            for part in &parts {
                let at = (0..number).map(|before| piece(part, before).len() as u64).sum();
                let piece = piece(part, number);
                // Like a stream: a part that was held back and a chunk.
                writer.write(part, at, HEAD, &piece[HEAD.len()..]);
            }
        }
        let (jobs, jobs_in) = crossbeam_channel::unbounded();
        let names = Arc::<NameLocks>::default();
        for part in &parts {
            let claim = names
                .acquire_for_recovery(crate::cc::vault::manifest::StreamSource::Tcp, part.file.as_bytes());
            jobs.send(WriteJob::Close(EndedStream { part: Arc::clone(part), name_lock: claim })).unwrap();
        }
        drop(jobs);
        writer.run(jobs_in);
        let closed: Vec<_> = ended_in
            .iter()
            .map(|keep| match keep {
                SyncJob::Ended(ended) => ended.part.id,
                SyncJob::Checkpoint(_) => u64::MAX,
            })
            .collect();
        assert_eq!(closed, parts.iter().map(|part| part.id).collect::<Vec<_>>(), "all are closed, in order");
        assert_eq!(Arc::strong_count(&disk.handles), 1, "no file stays open");
        (disk, parts, metrics)
    }

    /// Checks that each file is a prefix of its stream and that missing bytes were counted. Returns the
    /// number of incomplete parts.
    fn check_starts(disk: &Fake, parts: &[Arc<StreamPart>], metrics: &Metrics) -> usize {
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
        assert_eq!((metrics.written_bytes_total.get(), metrics.lost_bytes_total.get()), (written, lost));
        broken
    }

    /// Lists a fault at each call of a run without faults.
    fn faults(how: How, for_ever: bool) -> Vec<Fault> {
        let (calm, ..) = run(2, None, true);
        let at_each = |call| (0..calm.count(call)).map(move |at| Fault { call, at, for_ever, how });
        let faults: Vec<_> = CALLS.into_iter().flat_map(at_each).collect();
        assert!(faults.len() >= 2 + 2 * PIECES, "{faults:?}");
        faults
    }

    #[test]
    fn without_a_fault_all_is_written() {
        let (disk, parts, metrics) = run(2, None, true);
        assert_eq!(check_starts(&disk, &parts, &metrics), 0);
        assert_eq!((disk.count(Call::Open), disk.count(Call::Write)), (2, 2 * PIECES));
    }

    #[test]
    fn a_transient_error_of_any_call_is_retried() {
        for fault in faults(How::Fails(Errno::NOSPC), false) {
            let (disk, parts, metrics) = run(2, Some(fault), true);
            assert_eq!(check_starts(&disk, &parts, &metrics), 0, "{fault:?}");
            assert_eq!(metrics.write_retries_total.get(), 1, "{fault:?}");
        }
    }

    #[test]
    fn a_permanent_error_ends_one_stream() {
        for fault in faults(How::Fails(Errno::IO), false) {
            let (disk, parts, metrics) = run(2, Some(fault), true);
            assert_eq!(check_starts(&disk, &parts, &metrics), 1, "{fault:?}");
            assert_eq!(metrics.write_retries_total.get(), 0, "{fault:?}");
        }
    }

    #[test]
    fn a_lasting_error_ends_all_unfinished_streams() {
        for errno in [Errno::IO, Errno::NOSPC] {
            for fault in faults(How::Fails(errno), true) {
                // The first error is permanent. The second one is transient, but retries have ended.
                let (disk, parts, metrics) = run(2, Some(fault), errno == Errno::IO);
                let broken = check_starts(&disk, &parts, &metrics);
                // An open file is not opened again, and a recent measurement is not repeated.
                let least = if fault.call == Call::Write && fault.at + 1 < 2 * PIECES { 2 } else { 1 };
                assert!(broken >= least, "{fault:?}: {broken}");
            }
        }
    }

    #[test]
    fn short_writes_of_every_length_are_continued() {
        let len = piece(&parts(1)[0], 0).len();
        for short in 1..len {
            for at in 0..2 * PIECES {
                for for_ever in [false, true] {
                    let fault = Fault { call: Call::Write, at, for_ever, how: How::Short(short) };
                    let (disk, parts, metrics) = run(2, Some(fault), true);
                    assert_eq!(check_starts(&disk, &parts, &metrics), 0, "{fault:?}");
                }
            }
        }
    }

    #[test]
    fn a_write_of_zero_bytes_means_a_full_disk() {
        let fault = Fault { call: Call::Write, at: 1, for_ever: false, how: How::Short(0) };
        let (disk, parts, metrics) = run(2, Some(fault), true);
        assert_eq!(check_starts(&disk, &parts, &metrics), 0);
        assert_eq!(metrics.write_retries_total.get(), 1);
    }

    #[test]
    fn idle_files_are_closed_when_too_many_are_open() {
        let (disk, parts, metrics) = run(3 * FILES_MIN, None, true);
        assert_eq!(check_starts(&disk, &parts, &metrics), 0);
        assert_eq!(disk.state.lock().unwrap().open_max, FILES_MIN);
        assert_eq!(disk.count(Call::Open), 3 * FILES_MIN * PIECES, "each write opened its file again");
    }

    /// Writes `len` bytes to a disk with this free space and reserve. Returns whether it succeeded.
    fn check_room(free_bytes: u64, free_bytes_min: u64, len: usize) -> bool {
        let disk = Fake::default();
        disk.state.lock().unwrap().free_bytes = free_bytes;
        let mut writer = writer(&disk, crossbeam_channel::unbounded().0, free_bytes_min);
        writer.disk_retry.give_up_at(Instant::now());
        let part = &parts(1)[0];
        writer.write(part, 0, &[], &vec![7; len]);
        !part.is_broken()
    }

    #[test]
    fn the_reserve_is_exact_to_the_byte() {
        assert!(check_room(1_100, 1_000, 100));
        assert!(!check_room(1_099, 1_000, 100));
        assert!(!check_room(999, 1_000, 1));
        assert!(check_room(0, 0, 100), "without a reserve only the disk itself reports that it is full");
    }

    #[test]
    fn free_space_is_measured_again_when_it_is_used_up() {
        let disk = Fake::default();
        disk.state.lock().unwrap().free_bytes = 1_000 + 550;
        let mut writer = writer(&disk, crossbeam_channel::unbounded().0, 1_000);
        writer.disk_retry.give_up_at(Instant::now());
        let part = &parts(1)[0];
        for at in 0..6 {
            writer.write(part, at * 100, &[], &[7; 100]);
        }
        assert_eq!((disk.file(&part.file).len(), part.lost_bytes()), (500, 100));
        assert!(disk.state.lock().unwrap().free_bytes >= 1_000);
    }
}
