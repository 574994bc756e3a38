//! The thread `spool-write`: appends all waiting jobs as one batch with one fsync, then replies to each
//! caller.

use std::io;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};
use rustix::io::Errno;

use super::log::SpoolLog;
use super::segment::{self, RECORD_HEAD_BYTES};
use super::{Payloads, SpoolConfig, SpoolShared};
use crate::runtime::logging::Throttle;

/// Size at which a batch is written. A single job can be larger.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// Capacity of the batch buffer that is kept between batches.
const BATCH_BYTES_KEPT: usize = 16 << 20;

/// An append request of a caller.
pub(super) struct AppendJob {
    pub payloads: Payloads,
    /// Receives the number of the first record.
    pub reply: Sender<Result<u64, AppendError>>,
}

/// Why no part of a job was written.
#[derive(Clone, Debug)]
pub(super) enum AppendError {
    /// The limit of the spool is reached, or the disk is full.
    Full,
    Failed(String),
}

pub(super) struct SpoolWriter {
    log: SpoolLog,
    config: SpoolConfig,
    shared: Arc<SpoolShared>,
    throttle: Throttle,
    batch: Vec<u8>,
    /// Callers waiting for the batch, with the number of their first record.
    waiting: Vec<(Sender<Result<u64, AppendError>>, u64)>,
    /// Number of the record after the batch.
    next: u64,
}

impl SpoolWriter {
    pub(super) fn new(log: SpoolLog, config: SpoolConfig, shared: Arc<SpoolShared>) -> SpoolWriter {
        let next = log.end().number;
        SpoolWriter {
            log,
            config,
            shared,
            throttle: Throttle::default(),
            batch: Vec::new(),
            waiting: Vec::new(),
            next,
        }
    }

    /// Runs until all senders are dropped.
    pub(super) fn run(mut self, jobs: &Receiver<AppendJob>) {
        while let Ok(first) = jobs.recv() {
            let mut next = Some(first);
            while let Some(job) = next {
                self.add_job(job);
                next = if self.batch.len() < BATCH_BYTES_MAX { jobs.try_recv().ok() } else { None };
            }
            self.commit_batch();
        }
    }

    /// Adds a job to the batch if there is room for it.
    fn add_job(&mut self, job: AppendJob) {
        let bytes = job.payloads.bytes.len() + job.payloads.ends.len() * RECORD_HEAD_BYTES;
        if let Err(full) = self.check_room(bytes as u64) {
            self.shared.metrics.spool_full.set(1);
            self.throttle.warn(full, format_args!("spool_full reason={full} note=\"senders wait\""));
            // The caller may be gone.
            let _ = job.reply.send(Err(AppendError::Full));
            return;
        }
        self.waiting.push((job.reply, self.next));
        self.batch.reserve(bytes);
        for payload in job.payloads.iter() {
            segment::append_record(&mut self.batch, self.next, payload);
            self.next += 1;
        }
    }

    /// Returns the reason if the spool or the disk has no room for this many bytes.
    fn check_room(&self, bytes: u64) -> Result<(), &'static str> {
        let queued = self.shared.bytes() + self.batch.len() as u64;
        if queued > 0 && queued + bytes > self.config.bytes_max {
            return Err("spool_bytes_max");
        }
        // If the free space is unknown, the write itself will fail.
        match self.log.disk().free_bytes() {
            Ok(free) if free < self.config.free_bytes_min.saturating_add(bytes + self.batch.len() as u64) => {
                Err("disk_full")
            }
            _ => Ok(()),
        }
    }

    /// Writes the batch durably and replies to its callers.
    fn commit_batch(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let records = self.next - self.log.end().number;
        let written = self.log.append(&self.batch, records);
        let denied = match &written {
            Ok(new_segment) => {
                self.shared.metrics.spool_full.set(0);
                self.shared.record_append(self.log.end(), *new_segment);
                None
            }
            Err(error) => Some(self.to_append_error(error)),
        };
        for (reply, first) in self.waiting.drain(..) {
            let _ = reply.send(denied.clone().map_or(Ok(first), Err));
        }
        self.next = self.log.end().number;
        self.batch.clear();
        self.batch.shrink_to(BATCH_BYTES_KEPT);
    }

    fn to_append_error(&self, error: &io::Error) -> AppendError {
        if matches!(Errno::from_io_error(error), Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) {
            self.shared.metrics.spool_full.set(1);
            self.throttle
                .warn("disk_full", format_args!("spool_full reason=disk_full note=\"senders wait\""));
            return AppendError::Full;
        }
        if self.throttle.is_due("failed") {
            log::error!("spool_write_failed error=\"{error}\" note=\"senders wait\"");
        }
        AppendError::Failed(error.to_string())
    }
}
