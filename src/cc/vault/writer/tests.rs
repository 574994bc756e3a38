//! Tests of the writer with faults injected at every file system call.

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

fn writer(disk: &Fake, sync_jobs: Sender<SyncJob>, free_bytes_min: u64) -> DiskWriter<Fake> {
    let metrics = Arc::<Metrics>::default();
    DiskWriter {
        disk: disk.clone(),
        files: open_files(),
        descriptors: 0,
        free_bytes_min,
        disk_retry: Arc::new(DiskRetry::new(Arc::clone(&metrics))),
        dirty: Arc::default(),
        metrics,
        sync_jobs,
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
    let (sync_jobs, sync_jobs_in) = crossbeam_channel::unbounded();
    let mut writer = writer(&disk, sync_jobs, 1);
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
        let name_lock =
            names.acquire_for_recovery(crate::cc::vault::manifest::StreamSource::Tcp, part.file.as_bytes());
        jobs.send(WriteJob::Close(EndedStream { part: Arc::clone(part), name_lock: Some(name_lock) }))
            .unwrap();
    }
    drop(jobs);
    writer.run(jobs_in);
    let closed: Vec<_> = sync_jobs_in
        .iter()
        .map(|job| match job {
            SyncJob::Ended(sync_jobs) => sync_jobs.part.id,
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
