//! The path of stream bytes to the writer thread: aligns them to packets and queues what can be written. Runs in the
//! threads of the streams.
//!
//! Invariants: the jobs of a part are queued in order. Partial packets of all streams, including queued ones, take at
//! most `partial_packet_bytes_max` bytes, apart from one small buffer per stream.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};

use crossbeam_channel::{Sender, bounded};

use super::backlog::WriteBacklog;
use super::packet_aligner::PendingWrite;
use super::part::StreamPart;
use super::pool::{Buffer, BufferSize};
use super::syncer::EndedStream;
use super::writer::WriteJob;
use crate::runtime::metrics::Metrics;

/// Queues the bytes of all open parts.
pub(super) struct WriteQueue {
    write_jobs: Sender<WriteJob>,
    /// Jobs of Kafka streams. The hasher receives them and forwards them to the writer.
    record_jobs: Sender<WriteJob>,
    /// Bytes of partial packets that are queued.
    backlog: Arc<WriteBacklog>,
    open_parts: Mutex<HashMap<u64, Arc<StreamPart>>>,
    partial_packet_bytes_max: u64,
    metrics: Arc<Metrics>,
}

impl WriteQueue {
    pub(super) fn new(
        write_jobs: Sender<WriteJob>,
        record_jobs: Sender<WriteJob>,
        partial_packet_bytes_max: u64,
        metrics: Arc<Metrics>,
    ) -> WriteQueue {
        WriteQueue {
            write_jobs,
            record_jobs,
            backlog: Arc::default(),
            open_parts: Mutex::default(),
            partial_packet_bytes_max,
            metrics,
        }
    }

    /// Adds a part to the candidates of [`flush_largest`](Self::flush_largest).
    pub(super) fn register_part(&self, part: &Arc<StreamPart>) {
        self.open_parts().insert(part.id, Arc::clone(part));
    }

    pub(super) fn unregister_part(&self, part: &StreamPart) {
        self.open_parts().remove(&part.id);
    }

    /// Accepts the next bytes of a part's stream. After an error the caller counts them as lost.
    pub(super) fn accept_bytes(
        &self,
        part: &Arc<StreamPart>,
        buffer: Buffer,
        bytes: usize,
    ) -> io::Result<()> {
        if part.is_broken() {
            return Err(io::Error::other("the file cannot be written"));
        }
        self.wait_for_memory(part, bytes);
        let mut aligner = part.aligner();
        let write = aligner.feed(&buffer[..bytes]);
        self.update_pending(part, aligner.pending_bytes());
        let hashed = if part.is_from_kafka { bytes } else { 0 };
        if write.is_some() || hashed > 0 {
            let nothing = || PendingWrite { at: aligner.written_bytes(), head: Vec::new(), body: 0..0 };
            let PendingWrite { at, head, body } = write.unwrap_or_else(nothing);
            let body = (!body.is_empty() || hashed > 0).then_some((buffer, body));
            let head = self.backlog.queue(head);
            self.send(WriteJob::Write { part: Arc::clone(part), at, head, body, hashed })?;
        }
        drop(aligner);
        while self.metrics.partial_packet_bytes.get() > self.partial_packet_bytes_max && self.flush_largest()
        {
        }
        Ok(())
    }

    /// Blocks while partial packets take too much memory and some of it is queued for the writer.
    fn wait_for_memory(&self, part: &StreamPart, bytes: usize) {
        // Streams of ordinary packets never wait for streams of huge ones: the job queue bounds what they add.
        if part.pending_bytes.load(Ordering::Relaxed) + bytes > BufferSize::Small.bytes() {
            self.backlog.wait_while(|queued| {
                queued + self.metrics.partial_packet_bytes.get() > self.partial_packet_bytes_max
            });
        }
    }

    /// Writes the partial packet of a part. Returns whether there was one.
    pub(super) fn flush_part(&self, part: &Arc<StreamPart>) -> bool {
        let mut aligner = part.aligner();
        let Some(write) = aligner.flush() else { return false };
        self.update_pending(part, 0);
        let head = self.backlog.queue(write.head);
        self.send(WriteJob::Write { part: Arc::clone(part), at: write.at, head, body: None, hashed: 0 })
            .is_ok()
    }

    /// Writes the largest partial packet to free memory. Returns false if there is none.
    fn flush_largest(&self) -> bool {
        let pending = |part: &Arc<StreamPart>| part.pending_bytes.load(Ordering::Relaxed);
        let largest = self.open_parts().values().max_by_key(|part| pending(part)).cloned();
        let Some(part) = largest.filter(|part| pending(part) > 0) else { return false };
        let is_flushed = self.flush_part(&part);
        if is_flushed {
            self.metrics.partial_packets_flushed_total.inc();
        }
        is_flushed
    }

    fn update_pending(&self, part: &StreamPart, bytes: usize) {
        let before = part.pending_bytes.swap(bytes, Ordering::Relaxed);
        self.metrics.partial_packet_bytes.add(bytes as u64);
        self.metrics.partial_packet_bytes.sub(before as u64);
    }

    /// Blocks until all records queued so far are hashed.
    pub(super) fn wait_until_hashed(&self) -> io::Result<()> {
        let (hashed, wait) = bounded(1);
        self.send(WriteJob::HashBarrier(hashed))?;
        wait.recv().map_err(|_| io::Error::other("the writer thread has ended"))
    }

    pub(super) fn send(&self, job: WriteJob) -> io::Result<()> {
        let is_from_kafka = match &job {
            WriteJob::Write { part, .. } | WriteJob::Close(EndedStream { part, .. }) => part.is_from_kafka,
            WriteJob::HashBarrier(_) | WriteJob::Checkpoint(_) => true,
        };
        let jobs = if is_from_kafka { &self.record_jobs } else { &self.write_jobs };
        jobs.send(job).map_err(|_| io::Error::other("the writer thread has ended"))
    }

    /// Records bytes of a part's stream that cannot be stored.
    pub(super) fn record_loss(&self, part: &StreamPart, bytes: u64) {
        part.add_lost_bytes(bytes);
        self.metrics.lost_bytes_total.add(bytes);
    }

    pub(super) fn open_parts(&self) -> MutexGuard<'_, HashMap<u64, Arc<StreamPart>>> {
        self.open_parts.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
