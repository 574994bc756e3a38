//! The spool: a durable log on disk that holds acknowledged events until the cluster has stored them.
//!
//! DIR/.lea/spool contains the segments of the log and the acked position. Segments before the acked position are deleted.
//! A record is identified by its number and the log's random id.
//!
//! ```text
//! callers:      append -> channel -> thread spool-write: log, one fsync per batch -> results
//! spool-ship:   reader -> cluster -> ack
//! ```

mod disk;
mod log;
mod position;
mod reader;
pub(super) mod segment;
mod writer;

#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use crossbeam_channel::{Sender, TrySendError, bounded};

pub(super) use reader::{Damage, SpoolEntry, SpoolReader};
pub(super) use segment::PAYLOAD_BYTES_MAX;

use crate::runtime::create::create_error;
use crate::runtime::metrics::Metrics;
use crate::search::cluster::spool::disk::SpoolDisk;
use crate::search::cluster::spool::log::RecoveredLog;
use crate::search::cluster::spool::position::AckFile;
use crate::search::cluster::spool::writer::{AppendError, AppendJob, SpoolWriter};
use crate::search::store::StoreError;
use crate::{Error, Result};

/// Name of the directory in DIR/.lea.
pub(super) const DIR: &str = "spool";

/// Maximum number of calls waiting for the writer.
const JOBS_MAX: usize = 1_024;

/// Maximum segment size, which is the unit of deletion.
const SEGMENT_BYTES: u64 = 64 << 20;

/// A position in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LogPosition {
    /// Number of bytes of the log before it.
    pub byte: u64,
    /// Number of records of the log before it.
    pub number: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct SpoolConfig {
    /// Maximum size of unacked records. A larger batch is accepted only by an empty spool.
    pub bytes_max: u64,
    /// Space to leave free on the disk.
    pub free_bytes_min: u64,
    /// Size at which a segment is closed.
    pub segment_bytes: u64,
}

impl SpoolConfig {
    /// A configuration for this maximum size.
    pub fn of(bytes_max: u64, free_bytes_min: u64) -> SpoolConfig {
        // A small spool needs small segments to release space.
        let segment_bytes = (bytes_max / 16).clamp(64 << 10, SEGMENT_BYTES);
        SpoolConfig { bytes_max, free_bytes_min, segment_bytes }
    }
}

/// Payloads that are appended together.
#[derive(Debug, Default)]
pub(super) struct Payloads {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Payloads {
    /// Adds the payload that `write` appends.
    pub(super) fn add(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.ends.push(self.bytes.len());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, &end)| &self.bytes[begin..end])
    }
}

/// State shared by the threads of the spool.
#[derive(Debug)]
pub(super) struct SpoolShared {
    disk: SpoolDisk,
    log_id: u64,
    state: Mutex<SpoolState>,
    changed: Condvar,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct SpoolState {
    /// Position after the last durable record.
    end: LogPosition,
    /// The cluster has stored everything before this position.
    acked: LogPosition,
    /// Starts of the segments, oldest first.
    segments: Vec<u64>,
    /// True when nothing is appended any more.
    is_closed: bool,
    /// Time after which nothing waits for the cluster.
    deadline: Option<Instant>,
}

/// The state at the end of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WaitResult {
    /// Position after the last durable record.
    pub end: LogPosition,
    /// True when nothing is appended any more.
    pub is_closed: bool,
    /// True when nothing waits for the cluster any more.
    pub is_deadline_reached: bool,
}

impl SpoolShared {
    /// Random id that distinguishes this log from all others.
    pub(super) fn log_id(&self) -> u64 {
        self.log_id
    }

    fn lock(&self) -> MutexGuard<'_, SpoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Start of the segment that contains a byte.
    fn segment_of(&self, byte: u64) -> u64 {
        let state = self.lock();
        let before = state.segments.iter().rev().find(|base| **base <= byte);
        before.or(state.segments.first()).copied().unwrap_or_default()
    }

    fn next_segment(&self, base: u64) -> Option<u64> {
        self.lock().segments.iter().copied().find(|other| *other > base)
    }

    /// The cluster has stored everything before this position.
    pub(super) fn acked(&self) -> LogPosition {
        self.lock().acked
    }

    /// Waits until there are records after `at`, the spool is closed, or `until`.
    pub(super) fn wait_after(&self, at: LogPosition, until: Instant) -> WaitResult {
        self.wait(until, |state| state.end.byte > at.byte || state.is_closed)
    }

    /// Waits until `until` or the shutdown deadline.
    pub(super) fn pause(&self, until: Instant) -> WaitResult {
        self.wait(until, |_| false)
    }

    /// Waits until every record that exists now is acked, or until `until`. Returns true if all are acked.
    pub(super) fn wait_acked(&self, until: Instant) -> bool {
        let end = self.lock().end;
        self.wait(until, |state| state.acked.number >= end.number);
        self.lock().acked.number >= end.number
    }

    fn wait(&self, until: Instant, is_met: impl Fn(&SpoolState) -> bool) -> WaitResult {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            let is_given_up = state.deadline.is_some_and(|at| now >= at);
            if is_given_up || now >= until || is_met(&state) {
                return WaitResult {
                    end: state.end,
                    is_closed: state.is_closed,
                    is_deadline_reached: is_given_up,
                };
            }
            let until = state.deadline.map_or(until, |at| at.min(until));
            let waited = self.changed.wait_timeout(state, until.saturating_duration_since(now));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Sets the time after which nothing waits for the cluster.
    pub(super) fn set_deadline(&self, at: Instant) {
        let mut state = self.lock();
        state.deadline = Some(state.deadline.map_or(at, |before| before.min(at)));
        self.changed.notify_all();
    }

    /// The shutdown deadline, if it is set.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.lock().deadline
    }

    /// True after the shutdown deadline.
    pub(super) fn is_deadline_reached(&self) -> bool {
        self.deadline().is_some_and(|at| Instant::now() >= at)
    }

    /// Size of the unacked records.
    fn bytes(&self) -> u64 {
        let state = self.lock();
        state.end.byte - state.acked.byte
    }

    /// Publishes a completed append and wakes waiting threads.
    fn record_append(&self, end: LogPosition, new_segment: Option<u64>) {
        let mut state = self.lock();
        state.end = end;
        state.segments.extend(new_segment);
        self.update_gauges(&state);
        self.changed.notify_all();
    }

    fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    fn update_gauges(&self, state: &SpoolState) {
        self.metrics.spool_events.set(state.end.number.saturating_sub(state.acked.number));
        self.metrics.spool_bytes.set(state.end.byte - state.acked.byte);
    }
}

/// The spool. On drop, waits until accepted records are durable.
pub(super) struct Spool {
    shared: Arc<SpoolShared>,
    jobs: Option<Sender<AppendJob>>,
    writer: Option<JoinHandle<()>>,
}

/// Moves the acked position. Only one exists.
#[derive(Debug)]
pub(super) struct AckHandle {
    shared: Arc<SpoolShared>,
    ack_file: AckFile,
    is_write_failing: bool,
}

impl Spool {
    /// Opens the spool of a directory that this process has locked, and starts the writer thread.
    pub(super) fn open(
        own_dir: &Path,
        config: SpoolConfig,
        metrics: Arc<Metrics>,
    ) -> Result<(Spool, AckHandle)> {
        let dir = own_dir.join(DIR);
        let (log, shared, file) =
            open(&dir, config, metrics).map_err(create_error("open the spool", &dir))?;
        let (jobs, jobs_in) = bounded(JOBS_MAX);
        let writer = SpoolWriter::new(log, config, Arc::clone(&shared));
        let writer = Builder::new().name("spool-write".to_owned()).spawn(move || writer.run(&jobs_in));
        let writer = writer.map_err(Error::system("start a thread"))?;
        let ack_handle = AckHandle { shared: Arc::clone(&shared), ack_file: file, is_write_failing: false };
        Ok((Spool { shared, jobs: Some(jobs), writer: Some(writer) }, ack_handle))
    }

    pub(super) fn shared(&self) -> &Arc<SpoolShared> {
        &self.shared
    }

    /// Appends payloads of at most [`PAYLOAD_BYTES_MAX`] bytes each. They are durable when this returns.
    /// Returns the number of the first record.
    pub(super) fn append(&self, payloads: Payloads) -> Result<u64, StoreError> {
        let (reply, result) = bounded(1);
        let jobs = self.jobs.as_ref().ok_or(StoreError::ShuttingDown)?;
        jobs.try_send(AppendJob { payloads, reply }).map_err(|error| match error {
            TrySendError::Full(_) => StoreError::Full,
            TrySendError::Disconnected(_) => StoreError::ShuttingDown,
        })?;
        match result.recv() {
            Ok(Ok(first)) => Ok(first),
            Ok(Err(AppendError::Full)) => Err(StoreError::Full),
            Ok(Err(AppendError::Failed(cause))) => {
                Err(StoreError::Failed { act: "write to the spool", cause })
            }
            Err(_) => Err(StoreError::ShuttingDown),
        }
    }

    /// Waits until accepted records are durable, and accepts no more.
    pub(super) fn close(&mut self) {
        self.jobs = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            ::log::error!("spool_thread_failed");
        }
        self.shared.close();
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.close();
    }
}

impl AckHandle {
    /// Records that the cluster has stored everything before `position`.
    pub(super) fn ack(&mut self, position: LogPosition) {
        let kept = self.ack_file.write(&self.shared.disk, position);
        if let Err(error) = &kept
            && !self.is_write_failing
        {
            let note = "after a crash, events since then are sent again; their ids prevent duplicates";
            ::log::warn!("spool_position_write_failed error=\"{error}\" note=\"{note}\"");
        }
        self.is_write_failing = kept.is_err();
        let done = {
            let mut state = self.shared.lock();
            state.acked = position;
            self.shared.update_gauges(&state);
            self.shared.changed.notify_all();
            let count = state.segments.iter().skip(1).take_while(|base| **base <= position.byte).count();
            state.segments.drain(..count).collect::<Vec<_>>()
        };
        for base in done {
            if let Err(error) = self.shared.disk.remove(base) {
                ::log::warn!("spool_segment_remove_failed segment={base:016x} error=\"{error}\"");
            }
        }
    }
}

/// Counts the unacked records of a directory's spool; 0 if there is no spool.
pub(super) fn count_unacked(own_dir: &Path) -> Result<u64> {
    let dir = own_dir.join(DIR);
    if !dir.is_dir() {
        return Ok(0);
    }
    let metrics = Arc::default();
    open(&dir, SpoolConfig::of(u64::MAX, 0), Arc::clone(&metrics))
        .map_err(Error::path("open the spool", &dir))?;
    Ok(metrics.spool_events.get())
}

fn open(
    dir: &Path,
    config: SpoolConfig,
    metrics: Arc<Metrics>,
) -> io::Result<(log::SpoolLog, Arc<SpoolShared>, AckFile)> {
    let RecoveredLog { log, segments, torn_bytes, lost } =
        log::SpoolLog::open(SpoolDisk::open(dir)?, config.segment_bytes)?;
    let disk = SpoolDisk::open(dir)?;
    let (file, acked) = AckFile::open(&disk, log.id())?;
    let end = log.end();
    let oldest = segments.first().copied().unwrap_or_default();
    let first = log::first_record_number(&disk, oldest)?.unwrap_or(end.number);
    let begin = LogPosition { byte: oldest + segment::HEADER_BYTES as u64, number: first };
    let acked = match acked {
        Some(position) if position.byte > end.byte => {
            ::log::warn!("spool_shorter_than_acked acked={} end={}", position.byte, end.byte);
            end
        }
        Some(position) if position.byte >= begin.byte => position,
        _ => begin,
    };
    if lost > 0 {
        ::log::error!(
            "spool_shortened events={lost} note=\"they were acknowledged, and are damaged or missing\""
        );
    }
    if torn_bytes > 0 {
        ::log::info!(
            "spool_truncated bytes={torn_bytes} note=\"partial record of a crash; it was not acknowledged\""
        );
    }
    let state = SpoolState { end, acked, segments, is_closed: false, deadline: None };
    let shared =
        SpoolShared { disk, log_id: log.id(), state: Mutex::new(state), changed: Condvar::new(), metrics };
    shared.update_gauges(&shared.lock());
    Ok((log, Arc::new(shared), file))
}
