//! The output directory ("vault"): stores each stream in a file, with a manifest that describes and proves it.
//!
//! The stream's own thread locks the stream's name (`name_locks`), decides which file the stream goes into
//! (`stream_writer`, `compare`), aligns the bytes to packets, hashes them (`packet_aligner`) and sends write jobs.
//!
//! | Thread | What it does |
//! |---|---|
//! | `hasher` | hashes the records of Kafka streams |
//! | `writer` | writes to stream files; no other thread does |
//! | `syncer` | calls fsync, publishes manifests, writes checkpoints, closes streams |
//! | `recovery` | repairs the manifests of files that a crash left open, then ends |
//!
//! Dropping the last [`Vault`] ends the writer thread, and the end of the writer ends the syncer.

pub(crate) mod dir;
pub mod disk_retry;
pub(crate) mod ledger;
pub mod manifest;
pub(crate) mod merge;
pub(crate) mod packet_aligner;
pub(crate) mod pool;
pub mod scan;
mod segments;
pub(crate) mod time;

mod backlog;
pub(crate) mod checkpoint;
mod compare;
mod hasher;
mod journal;
mod name_locks;
mod part;
mod recover;
mod resume_state;
mod stream_writer;
mod syncer;
mod write_coalescer;
mod writer;

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};

pub use dir::Access;
pub use name_locks::{PeerProbe, SAME_NAME_TIMEOUT};
pub use stream_writer::{PendingStream, StreamOrigin, StreamStart, StreamWriter};
pub use syncer::LossTotals;

use crate::cc::wire::name::{file_name, part_file_name};
use crate::runtime::metrics::Metrics;
use crate::{Error, Result};
use backlog::WriteBacklog;
use dir::VaultDir;
use disk_retry::DiskRetry;
use journal::Journal;
use manifest::StreamSource;
use name_locks::NameLocks;
use packet_aligner::PendingWrite;
use part::{DirtyParts, StreamPart};
use pool::{Buffer, BufferPool, BufferSize};
use syncer::EndedStream;
use writer::{DiskWriter, WriteJob};

/// Capacity of the queue of write jobs. All pool buffers fit in, so the limit only affects jobs without a
/// buffer.
const WRITE_JOBS_MAX: usize = 512;

/// Capacity of the queue to the syncer. It is large so that a slow fsync does not block the writer.
const SYNC_JOBS_MAX: usize = 16_384;

#[derive(Clone, Debug)]
pub struct VaultConfig {
    pub dir: PathBuf,
    pub access: Access,
    /// Whether files are hashed with SHA-256.
    pub hash: bool,
    /// Limit on the memory for partial packets of all streams, including those queued for the writer.
    pub partial_packet_bytes_max: u64,
    /// File descriptors shared by connections and stream files.
    pub descriptors: usize,
    /// Bytes that always stay free on the disk.
    pub free_bytes_min: u64,
    /// Time between two fsyncs of a growing file.
    pub sync_interval: Duration,
}

/// State shared by all [`Vault`] handles and stream writers.
struct VaultInner {
    dir: Arc<VaultDir>,
    journal: Arc<Journal>,
    name_locks: Arc<NameLocks>,
    pool: Arc<BufferPool>,
    disk_retry: Arc<DiskRetry>,
    dirty: Arc<DirtyParts>,
    metrics: Arc<Metrics>,
    losses: Arc<Mutex<LossTotals>>,
    write_jobs: Sender<WriteJob>,
    /// Jobs of Kafka streams. The hasher receives them and forwards them to the writer.
    record_jobs: Sender<WriteJob>,
    backlog: Arc<WriteBacklog>,
    open_parts: Mutex<HashMap<u64, Arc<StreamPart>>>,
    next_part_id: AtomicU64,
    creating: Mutex<()>,
    /// Files of Kafka streams that the last process left open, until the ledger takes them.
    unclosed_kafka_files: Mutex<Vec<journal::JournalEntry>>,
    hash: bool,
    pending_bytes_max: u64,
}

/// A handle to the output directory. Clones share the same state.
#[derive(Clone)]
pub struct Vault {
    shared: Arc<VaultInner>,
}

pub struct VaultThreads {
    hasher: JoinHandle<()>,
    writer: JoinHandle<()>,
    keeper: JoinHandle<LossTotals>,
    recovery: JoinHandle<()>,
}

impl Vault {
    /// Opens and locks the directory, starts the threads, and starts to recover the files that a crash left
    /// open.
    pub fn spawn(config: &VaultConfig, metrics: Arc<Metrics>) -> Result<(Vault, VaultThreads)> {
        let dir = Arc::new(VaultDir::open(&config.dir, config.access)?);
        let (journal, left) = Journal::open(&dir).map_err(Error::path("read the journal in", &config.dir))?;
        let (jobs, jobs_in) = bounded(WRITE_JOBS_MAX);
        let (record_jobs, record_jobs_in) = bounded(WRITE_JOBS_MAX);
        let (ended, ended_in) = bounded(SYNC_JOBS_MAX);
        let shared = Arc::new(VaultInner {
            dir,
            journal: Arc::new(journal),
            name_locks: Arc::default(),
            pool: Arc::default(),
            disk_retry: Arc::new(DiskRetry::new(Arc::clone(&metrics))),
            dirty: Arc::default(),
            metrics,
            losses: Arc::default(),
            write_jobs: jobs.clone(),
            record_jobs,
            backlog: Arc::default(),
            open_parts: Mutex::default(),
            next_part_id: AtomicU64::new(0),
            creating: Mutex::default(),
            unclosed_kafka_files: Mutex::default(),
            hash: config.hash,
            pending_bytes_max: config.partial_packet_bytes_max,
        });
        let writer = DiskWriter {
            disk: Arc::clone(&shared.dir),
            files: writer::open_files(),
            descriptors: config.descriptors,
            free_bytes_min: config.free_bytes_min,
            disk_retry: Arc::clone(&shared.disk_retry),
            dirty: Arc::clone(&shared.dirty),
            metrics: Arc::clone(&shared.metrics),
            sync_jobs: ended,
            free_space: None,
        };
        let keeper = shared.syncer(config.sync_interval);
        let recovery = shared.recovery();
        // The ledger rolls back files of Kafka streams to the offsets of the last checkpoint.
        let (records, left): (Vec<_>, Vec<_>) =
            left.into_iter().partition(|opened| opened.source == StreamSource::Kafka);
        *shared.unclosed_kafka_files.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) =
            records.into_iter().filter(matches_stream_name).collect();
        let left: Vec<_> = left.into_iter().filter_map(|opened| shared.lock_name(opened)).collect();
        let threads = VaultThreads {
            hasher: spawn_thread("hasher", move || hasher::run(record_jobs_in, jobs))?,
            writer: spawn_thread("writer", move || writer.run(jobs_in))?,
            keeper: spawn_thread("keeper", move || keeper.run(ended_in))?,
            recovery: spawn_thread("recovery", move || recovery.run(left))?,
        };
        Ok((Vault { shared }, threads))
    }

    /// Locks a stream's name. Waits for an earlier stream of the same name to end (see
    /// [`SAME_NAME_TIMEOUT`]).
    pub fn open_stream(
        &self,
        name: &[u8],
        origin: StreamOrigin,
        probe: Arc<dyn PeerProbe>,
        stopping: impl Fn() -> bool,
    ) -> io::Result<PendingStream> {
        let claim = self.shared.name_locks.acquire(origin.source, name, probe, stopping);
        PendingStream::new(Arc::clone(&self.shared), claim, origin)
    }

    /// Returns whether a TCP stream of this name is open or being closed.
    pub fn is_open(&self, name: &[u8]) -> bool {
        self.shared.name_locks.is_locked(StreamSource::Tcp, name)
    }

    /// Records that `bytes` bytes of a stream were received and cannot be stored, because its file could not
    /// be opened.
    pub fn record_loss(&self, file: &str, bytes: u64) {
        self.shared.note_loss(file, bytes);
    }

    /// Returns the Kafka static membership id of this directory in consumer group `group`. The id is created
    /// on first use and survives restarts. A copy of the directory has the same id, so a copy must not run at
    /// the same time as the original.
    pub fn group_instance_id(&self, group: &str) -> Result<String> {
        let failed = || Error::path("read the instance of", self.shared.dir.path());
        let mut file = self.shared.dir.meta_append("instance").map_err(failed())?;
        let mut found = String::new();
        (&mut file).take(256).read_to_string(&mut found).map_err(failed())?;
        if found.trim().is_empty() {
            let mut random = [0; 16];
            std::fs::File::open("/dev/urandom")
                .and_then(|mut source| source.read_exact(&mut random))
                .map_err(failed())?;
            found = crate::cc::wire::name::hex(&random);
            file.write_all(found.as_bytes()).and_then(|()| file.sync_all()).map_err(failed())?;
        }
        Ok(format!("lea-{group}-{}", found.trim()))
    }

    pub fn pool(&self) -> &BufferPool {
        &self.shared.pool
    }

    pub fn disk_retry(&self) -> &Arc<DiskRetry> {
        &self.shared.disk_retry
    }

    /// Ends all waiting for a full disk at `at`: data that cannot be written after that time is counted as
    /// lost.
    pub fn give_up_at(&self, at: Instant) {
        self.shared.disk_retry.give_up_at(at);
    }
}

impl VaultThreads {
    /// Returns whether a thread has ended that must run as long as a [`Vault`] exists.
    pub fn has_thread_ended(&self) -> bool {
        self.hasher.is_finished() || self.writer.is_finished() || self.keeper.is_finished()
    }

    /// Waits until everything is written and closed. All [`Vault`]s and [`StreamWriter`]s must have been
    /// dropped before.
    pub fn join(self) -> Result<LossTotals> {
        let failed = |name: &'static str| move |_| Error::Thread(name.to_owned());
        self.hasher.join().map_err(failed("hasher"))?;
        self.writer.join().map_err(failed("writer"))?;
        let losses = self.keeper.join().map_err(failed("keeper"))?;
        self.recovery.join().map_err(failed("recovery"))?;
        Ok(losses)
    }
}

impl VaultInner {
    /// Accepts the next bytes of a part's stream. After an error the caller counts them as lost.
    fn accept_bytes(&self, part: &Arc<StreamPart>, buffer: Buffer, bytes: usize) -> io::Result<()> {
        if part.is_broken() {
            return Err(io::Error::other("the file cannot be written"));
        }
        self.wait_for_memory(part, bytes);
        let mut tail = part.aligner();
        let ready = tail.feed(&buffer[..bytes]);
        self.update_pending(part, tail.pending_bytes());
        let hashed = if part.is_from_kafka { bytes } else { 0 };
        if ready.is_some() || hashed > 0 {
            let nothing = || PendingWrite { at: tail.written_bytes(), head: Vec::new(), body: 0..0 };
            let PendingWrite { at, head, body } = ready.unwrap_or_else(nothing);
            let body = (!body.is_empty() || hashed > 0).then_some((buffer, body));
            let head = self.backlog.queue(head);
            self.send(WriteJob::Write { part: Arc::clone(part), at, head, body, hashed })?;
        }
        drop(tail);
        while self.metrics.partial_packet_bytes.get() > self.pending_bytes_max && self.flush_largest() {}
        Ok(())
    }

    /// Blocks while partial packets take too much memory and some of it is queued for the writer.
    fn wait_for_memory(&self, part: &StreamPart, bytes: usize) {
        // Streams of ordinary packets never wait for streams of huge ones: the job queue bounds what they
        // add.
        if part.pending_bytes.load(Ordering::Relaxed) + bytes > BufferSize::Small.bytes() {
            self.backlog.wait_while(|queued| {
                queued + self.metrics.partial_packet_bytes.get() > self.pending_bytes_max
            });
        }
    }

    /// Writes the partial packet of a part. Returns whether there was one.
    fn flush_part(&self, part: &Arc<StreamPart>) -> bool {
        let mut tail = part.aligner();
        let Some(ready) = tail.flush() else { return false };
        self.update_pending(part, 0);
        let head = self.backlog.queue(ready.head);
        self.send(WriteJob::Write { part: Arc::clone(part), at: ready.at, head, body: None, hashed: 0 })
            .is_ok()
    }

    /// Writes the largest partial packet to free memory. Returns false if there is none.
    fn flush_largest(&self) -> bool {
        let waiting = |part: &Arc<StreamPart>| part.pending_bytes.load(Ordering::Relaxed);
        let largest = self.open_parts().values().max_by_key(|part| waiting(part)).cloned();
        let Some(part) = largest.filter(|part| waiting(part) > 0) else { return false };
        let relieved = self.flush_part(&part);
        if relieved {
            self.metrics.partial_packets_flushed_total.inc();
        }
        relieved
    }

    fn update_pending(&self, part: &StreamPart, bytes: usize) {
        let before = part.pending_bytes.swap(bytes, Ordering::Relaxed);
        self.metrics.partial_packet_bytes.add(bytes as u64);
        self.metrics.partial_packet_bytes.sub(before as u64);
    }

    /// Blocks until all records sent so far are hashed.
    fn wait_until_hashed(&self) -> io::Result<()> {
        let (hashed, wait) = bounded(1);
        self.send(WriteJob::HashBarrier(hashed))?;
        wait.recv().map_err(|_| io::Error::other("the writer thread has ended"))
    }

    fn send(&self, job: WriteJob) -> io::Result<()> {
        let is_of_records = match &job {
            WriteJob::Write { part, .. } | WriteJob::Close(EndedStream { part, .. }) => part.is_from_kafka,
            WriteJob::HashBarrier(_) | WriteJob::Checkpoint(_) => true,
        };
        let jobs = if is_of_records { &self.record_jobs } else { &self.write_jobs };
        jobs.send(job).map_err(|_| io::Error::other("the writer thread has ended"))
    }

    /// Records bytes of a part's stream that cannot be stored.
    fn record_part_loss(&self, part: &StreamPart, bytes: u64) {
        part.add_lost_bytes(bytes);
        self.metrics.lost_bytes_total.add(bytes);
    }

    /// Records bytes that cannot be stored, of a stream that has no part yet.
    fn note_loss(&self, file: &str, bytes: u64) {
        self.metrics.lost_bytes_total.add(bytes);
        syncer::record_loss(&self.losses, file, bytes);
    }

    fn register_part(&self, part: &Arc<StreamPart>) {
        self.open_parts().insert(part.id, Arc::clone(part));
    }

    fn unregister_part(&self, part: &StreamPart) {
        self.open_parts().remove(&part.id);
    }

    fn open_parts(&self) -> MutexGuard<'_, HashMap<u64, Arc<StreamPart>>> {
        self.open_parts.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn allocate_part_id(&self) -> u64 {
        self.next_part_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Takes the files of Kafka streams that the last process left open.
    fn take_unclosed_kafka_files(&self) -> Vec<journal::JournalEntry> {
        std::mem::take(
            &mut *self.unclosed_kafka_files.lock().unwrap_or_else(|poisoned| poisoned.into_inner()),
        )
    }

    /// Locks the name of a file that was open when the last process ended.
    fn lock_name(
        &self,
        opened: journal::JournalEntry,
    ) -> Option<(journal::JournalEntry, name_locks::NameLock)> {
        let name = matches_stream_name(&opened).then(|| decode_hex(&opened.name_hex)).flatten()?;
        let claim = self.name_locks.acquire_for_recovery(opened.source, &name);
        Some((opened, claim))
    }

    fn syncer(&self, sync_interval: Duration) -> syncer::Syncer {
        syncer::Syncer {
            dir: Arc::clone(&self.dir),
            journal: Arc::clone(&self.journal),
            dirty: Arc::clone(&self.dirty),
            disk_retry: Arc::clone(&self.disk_retry),
            metrics: Arc::clone(&self.metrics),
            hash: self.hash,
            sync_interval,
            losses: Arc::clone(&self.losses),
        }
    }

    fn recovery(&self) -> recover::Recovery {
        recover::Recovery {
            dir: Arc::clone(&self.dir),
            journal: Arc::clone(&self.journal),
            pool: Arc::clone(&self.pool),
            disk_retry: Arc::clone(&self.disk_retry),
            metrics: Arc::clone(&self.metrics),
            hash: self.hash,
        }
    }
}

fn spawn_thread<T: Send + 'static>(
    name: &'static str,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>> {
    Builder::new().name(name.to_owned()).spawn(run).map_err(Error::system("start a thread"))
}

/// Returns false for a journal line whose file name does not follow from its stream name: it could point
/// outside the directory.
fn matches_stream_name(opened: &journal::JournalEntry) -> bool {
    let fits = |name: Vec<u8>| part_file_name(&file_name(&name), opened.part) == opened.file;
    let fits = decode_hex(&opened.name_hex).is_some_and(fits);
    if !fits {
        let file = opened.file.escape_debug();
        log::warn!(
            "journal_line_skipped file={file} reason=\"the file name does not follow from the stream name\""
        );
    }
    fits
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}
