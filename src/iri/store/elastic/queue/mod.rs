//! The queue on the disk: what is acknowledged is in it, durably, until the cluster has it.
//!
//! One log of records in DIR/.lea/queue, and one position: up to there the cluster has all, and what lies before it is
//! taken away, segment by segment. A record's number and the log's random id are its identity for ever.
//!
//! ```text
//! callers: append -> channel -> thread queue-write: log, one sync for all that wait -> answers
//! thread queue-ship: reader -> cluster -> confirm
//! ```

mod disk;
mod log;
mod position;
mod reader;
mod segment;
mod writer;

#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use crossbeam_channel::{Sender, TrySendError, bounded};

pub use reader::{Damage, Next, Reader};
pub use segment::PAYLOAD_BYTES_MAX;

use self::disk::Disk;
use self::log::Opened;
use self::position::Confirmed;
use self::writer::{Denied, Job, Writer};
use crate::counters::Counters;
use crate::iri::store::StoreError;
use crate::{Error, Result};

/// The folder within DIR/.lea.
pub const DIR: &str = "queue";

/// Calls that wait for the writer.
const JOBS_MAX: usize = 1_024;

/// Bytes of a segment: what is confirmed is taken away in pieces of it.
const SEGMENT_BYTES: u64 = 64 << 20;

/// A place in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Bytes of the whole log before it.
    pub byte: u64,
    /// Records of the whole log before it.
    pub number: u64,
}

/// What the queue may take.
#[derive(Clone, Copy, Debug)]
pub struct QueueConfig {
    /// Bytes that are not confirmed. What is larger goes into an empty queue alone.
    pub bytes_max: u64,
    /// Bytes that stay free on the disk.
    pub free_bytes_min: u64,
    /// Bytes from which on a segment is followed by the next.
    pub segment_bytes: u64,
}

impl QueueConfig {
    /// A queue of that size.
    pub fn of(bytes_max: u64, free_bytes_min: u64) -> QueueConfig {
        // A short queue gives room back in small pieces too.
        let segment_bytes = (bytes_max / 16).clamp(64 << 10, SEGMENT_BYTES);
        QueueConfig { bytes_max, free_bytes_min, segment_bytes }
    }
}

/// Payloads that are appended together.
#[derive(Debug, Default)]
pub struct Payloads {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Payloads {
    /// Adds the payload that `write` appends.
    pub fn add(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.ends.push(self.bytes.len());
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, &end)| &self.bytes[begin..end])
    }
}

/// What the threads of the queue share.
#[derive(Debug)]
pub struct Shared {
    disk: Disk,
    log: u64,
    state: Mutex<State>,
    moved: Condvar,
    counters: Arc<Counters>,
}

#[derive(Debug)]
struct State {
    /// Behind the last record that is durable.
    end: Position,
    /// The cluster has all before it.
    confirmed: Position,
    /// Where the segments begin, the oldest first.
    segments: Vec<u64>,
    /// Nothing is appended any more.
    is_closed: bool,
    /// From then on nobody waits for the cluster.
    give_up_at: Option<Instant>,
}

/// What a wait ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Behind the last record that is durable.
    pub end: Position,
    /// Nothing is appended any more.
    pub is_closed: bool,
    /// Nobody waits for the cluster any more.
    pub is_given_up: bool,
}

impl Shared {
    /// What tells this log's records from those of any other.
    pub fn log(&self) -> u64 {
        self.log
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The segment that a byte is in.
    fn segment_of(&self, byte: u64) -> u64 {
        let state = self.lock();
        let before = state.segments.iter().rev().find(|base| **base <= byte);
        before.or(state.segments.first()).copied().unwrap_or_default()
    }

    fn segment_behind(&self, base: u64) -> Option<u64> {
        self.lock().segments.iter().copied().find(|other| *other > base)
    }

    /// Up to where the cluster has all.
    pub fn confirmed(&self) -> Position {
        self.lock().confirmed
    }

    /// Waits until something is behind `at`, nothing will be, or `until`.
    pub fn wait_behind(&self, at: Position, until: Instant) -> Seen {
        self.wait(until, |state| state.end.byte > at.byte || state.is_closed)
    }

    /// Waits until `until`, or all waiting is given up.
    pub fn pause(&self, until: Instant) -> Seen {
        self.wait(until, |_| false)
    }

    /// Waits until all up to the end of now is confirmed, or `until`; true if it is.
    pub fn wait_confirmed(&self, until: Instant) -> bool {
        let end = self.lock().end;
        self.wait(until, |state| state.confirmed.number >= end.number);
        self.lock().confirmed.number >= end.number
    }

    fn wait(&self, until: Instant, is_met: impl Fn(&State) -> bool) -> Seen {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            let is_given_up = state.give_up_at.is_some_and(|at| now >= at);
            if is_given_up || now >= until || is_met(&state) {
                return Seen { end: state.end, is_closed: state.is_closed, is_given_up };
            }
            let until = state.give_up_at.map_or(until, |at| at.min(until));
            let waited = self.moved.wait_timeout(state, until.saturating_duration_since(now));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// From `at` on nobody waits for the cluster.
    pub fn give_up_at(&self, at: Instant) {
        let mut state = self.lock();
        state.give_up_at = Some(state.give_up_at.map_or(at, |before| before.min(at)));
        self.moved.notify_all();
    }

    /// When waiting is given up, once that is known.
    pub fn gives_up_at(&self) -> Option<Instant> {
        self.lock().give_up_at
    }

    /// True if nobody waits for the cluster any more.
    pub fn is_given_up(&self) -> bool {
        self.gives_up_at().is_some_and(|at| Instant::now() >= at)
    }

    /// Bytes that are not confirmed.
    fn bytes(&self) -> u64 {
        let state = self.lock();
        state.end.byte - state.confirmed.byte
    }

    /// Counts what was appended, and wakes who waits for it.
    fn appended(&self, end: Position, begun: Option<u64>) {
        let mut state = self.lock();
        state.end = end;
        state.segments.extend(begun);
        self.show(&state);
        self.moved.notify_all();
    }

    fn close(&self) {
        self.lock().is_closed = true;
        self.moved.notify_all();
    }

    fn show(&self, state: &State) {
        self.counters.queue_events.set(state.end.number.saturating_sub(state.confirmed.number));
        self.counters.queue_bytes.set(state.end.byte - state.confirmed.byte);
    }
}

/// The queue. Dropped last, it waits until what was taken is durable.
pub struct Queue {
    shared: Arc<Shared>,
    jobs: Option<Sender<Job>>,
    writer: Option<JoinHandle<()>>,
}

/// Moves the confirmed position on. There is one.
#[derive(Debug)]
pub struct Confirmer {
    shared: Arc<Shared>,
    file: Confirmed,
    is_stuck: bool,
}

impl Queue {
    /// Opens the queue of a folder, in which this process alone writes, and starts its writer.
    pub fn open(own_dir: &Path, config: QueueConfig, counters: Arc<Counters>) -> Result<(Queue, Confirmer)> {
        let dir = own_dir.join(DIR);
        let (log, shared, file) =
            open(&dir, config, counters).map_err(Error::path("open the queue", &dir))?;
        let (jobs, jobs_in) = bounded(JOBS_MAX);
        let writer = Writer::new(log, config, Arc::clone(&shared));
        let writer = Builder::new().name("queue-write".to_owned()).spawn(move || writer.run(&jobs_in));
        let writer = writer.map_err(Error::system("start a thread"))?;
        let confirmer = Confirmer { shared: Arc::clone(&shared), file, is_stuck: false };
        Ok((Queue { shared, jobs: Some(jobs), writer: Some(writer) }, confirmer))
    }

    /// What the threads of the queue share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Appends payloads, each [`PAYLOAD_BYTES_MAX`] at most. When this returns they are durable; gives the number of the
    /// first.
    pub fn append(&self, payloads: Payloads) -> Result<u64, StoreError> {
        let (reply, answer) = bounded(1);
        let jobs = self.jobs.as_ref().ok_or(StoreError::Stopping)?;
        jobs.try_send(Job { payloads, reply }).map_err(|error| match error {
            TrySendError::Full(_) => StoreError::Full,
            TrySendError::Disconnected(_) => StoreError::Stopping,
        })?;
        match answer.recv() {
            Ok(Ok(first)) => Ok(first),
            Ok(Err(Denied::Full)) => Err(StoreError::Full),
            Ok(Err(Denied::Failed(cause))) => Err(StoreError::Failed { act: "write the queue", cause }),
            Err(_) => Err(StoreError::Stopping),
        }
    }

    /// Waits until what was taken is durable; nothing more can be.
    pub fn close(&mut self) {
        self.jobs = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            ::log::error!("queue_thread_failed");
        }
        self.shared.close();
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.close();
    }
}

impl Confirmer {
    /// The cluster has all before `position`.
    pub fn confirm(&mut self, position: Position) {
        let kept = self.file.keep(&self.shared.disk, position);
        if let Err(error) = &kept
            && !self.is_stuck
        {
            let note = "after a crash the events since then are sent again, which doubles none";
            ::log::warn!("queue_position_not_written error=\"{error}\" note=\"{note}\"");
        }
        self.is_stuck = kept.is_err();
        let done = {
            let mut state = self.shared.lock();
            state.confirmed = position;
            self.shared.show(&state);
            self.shared.moved.notify_all();
            let count = state.segments.iter().skip(1).take_while(|base| **base <= position.byte).count();
            state.segments.drain(..count).collect::<Vec<_>>()
        };
        for base in done {
            if let Err(error) = self.shared.disk.remove(base) {
                ::log::warn!("queue_segment_not_removed segment={base:016x} error=\"{error}\"");
            }
        }
    }
}

/// How many records a folder's queue has that are not confirmed; 0 where there is no queue.
pub fn left(own_dir: &Path) -> Result<u64> {
    let dir = own_dir.join(DIR);
    if !dir.is_dir() {
        return Ok(0);
    }
    let counters = Arc::default();
    open(&dir, QueueConfig::of(u64::MAX, 0), Arc::clone(&counters))
        .map_err(Error::path("open the queue", &dir))?;
    Ok(counters.queue_events.get())
}

fn open(
    dir: &Path,
    config: QueueConfig,
    counters: Arc<Counters>,
) -> io::Result<(log::Log, Arc<Shared>, Confirmed)> {
    let Opened { log, segments, torn_bytes } = log::Log::open(Disk::open(dir)?, config.segment_bytes)?;
    let disk = Disk::open(dir)?;
    let (file, confirmed) = Confirmed::open(&disk, log.id())?;
    let end = log.end();
    let oldest = segments.first().copied().unwrap_or_default();
    let first = log::first(&disk, oldest)?.unwrap_or(end.number);
    let begin = Position { byte: oldest + segment::HEADER_BYTES as u64, number: first };
    let confirmed = match confirmed {
        Some(position) if position.byte > end.byte => {
            ::log::warn!("queue_shorter_than_confirmed confirmed={} end={}", position.byte, end.byte);
            end
        }
        Some(position) if position.byte >= begin.byte => position,
        _ => begin,
    };
    if torn_bytes > 0 {
        ::log::info!(
            "queue_cut bytes={torn_bytes} note=\"what a crash left half written; it was not acknowledged\""
        );
    }
    let state = State { end, confirmed, segments, is_closed: false, give_up_at: None };
    let shared = Shared { disk, log: log.id(), state: Mutex::new(state), moved: Condvar::new(), counters };
    shared.show(&shared.lock());
    Ok((log, Arc::new(shared), file))
}
