//! The thread `queue-write`: what waits is appended together and synced once, then each caller is answered.

use std::io;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};
use rustix::io::Errno;

use super::log::Log;
use super::segment::{self, RECORD_HEAD_BYTES};
use super::{Payloads, QueueConfig, Shared};
use crate::logging::Throttle;

/// Bytes that are gathered for one sync. A single job may bring more.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// Room of the batch that is kept between batches.
const BATCH_BYTES_KEPT: usize = 16 << 20;

/// What a caller appends.
pub struct Job {
    /// What.
    pub payloads: Payloads,
    /// Where the answer goes: the number of the first.
    pub reply: Sender<Result<u64, Denied>>,
}

/// Why nothing of a job was written.
#[derive(Clone, Debug)]
pub enum Denied {
    /// No room in the queue, or on the disk.
    Full,
    /// The disk failed.
    Failed(String),
}

/// The writer.
pub struct Writer {
    log: Log,
    config: QueueConfig,
    shared: Arc<Shared>,
    throttle: Throttle,
    batch: Vec<u8>,
    /// Who waits for the batch, and the number of their first record.
    waiting: Vec<(Sender<Result<u64, Denied>>, u64)>,
    /// Behind the last record of the batch.
    next: u64,
}

impl Writer {
    /// A writer of that log.
    pub fn new(log: Log, config: QueueConfig, shared: Arc<Shared>) -> Writer {
        let next = log.end().number;
        Writer {
            log,
            config,
            shared,
            throttle: Throttle::default(),
            batch: Vec::new(),
            waiting: Vec::new(),
            next,
        }
    }

    /// Writes until nobody can send any more.
    pub fn run(mut self, jobs: &Receiver<Job>) {
        while let Ok(first) = jobs.recv() {
            let mut next = Some(first);
            while let Some(job) = next {
                self.gather(job);
                next = if self.batch.len() < BATCH_BYTES_MAX { jobs.try_recv().ok() } else { None };
            }
            self.write();
        }
    }

    /// Puts a job into the batch, if there is room for it.
    fn gather(&mut self, job: Job) {
        let bytes = job.payloads.bytes.len() + job.payloads.ends.len() * RECORD_HEAD_BYTES;
        if let Err(full) = self.has_room(bytes as u64) {
            self.shared.counters.queue_full.set(1);
            self.throttle.warn(full, format_args!("queue_full reason={full} note=\"senders wait\""));
            // A caller that is gone needs no answer.
            let _ = job.reply.send(Err(Denied::Full));
            return;
        }
        self.waiting.push((job.reply, self.next));
        self.batch.reserve(bytes);
        for payload in job.payloads.iter() {
            segment::push(&mut self.batch, self.next, payload);
            self.next += 1;
        }
    }

    /// Whether so many bytes may still be written; else why not.
    fn has_room(&self, bytes: u64) -> Result<(), &'static str> {
        let queued = self.shared.bytes() + self.batch.len() as u64;
        if queued > 0 && queued + bytes > self.config.bytes_max {
            return Err("queue_bytes_max");
        }
        // Where that cannot be asked, the write shows it.
        match self.log.disk().free_bytes() {
            Ok(free) if free < self.config.free_bytes_min.saturating_add(bytes + self.batch.len() as u64) => {
                Err("disk_full")
            }
            _ => Ok(()),
        }
    }

    /// Makes the batch durable and answers who waits for it.
    fn write(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let records = self.next - self.log.end().number;
        let written = self.log.append(&self.batch, records);
        let denied = match &written {
            Ok(begun) => {
                self.shared.counters.queue_full.set(0);
                self.shared.appended(self.log.end(), *begun);
                None
            }
            Err(error) => Some(self.denied(error)),
        };
        for (reply, first) in self.waiting.drain(..) {
            let _ = reply.send(denied.clone().map_or(Ok(first), Err));
        }
        self.next = self.log.end().number;
        self.batch.clear();
        self.batch.shrink_to(BATCH_BYTES_KEPT);
    }

    fn denied(&self, error: &io::Error) -> Denied {
        if matches!(Errno::from_io_error(error), Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) {
            self.shared.counters.queue_full.set(1);
            self.throttle
                .warn("disk_full", format_args!("queue_full reason=disk_full note=\"senders wait\""));
            return Denied::Full;
        }
        if self.throttle.is_due("failed") {
            log::error!("queue_not_written error=\"{error}\" note=\"senders wait\"");
        }
        Denied::Failed(error.to_string())
    }
}
