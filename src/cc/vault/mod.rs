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
pub mod fuzzing;
pub(crate) mod ledger;
pub mod manifest;
pub(crate) mod merge;
pub(crate) mod packet_aligner;
pub(crate) mod pool;
pub mod scan;
mod segments;

mod backlog;
pub(crate) mod chains;
pub(crate) mod checkpoint;
mod compare;
mod continuation;
pub mod damage;
mod hasher;
mod insertion;
mod journal;
mod name_locks;
pub(crate) mod offset_set;
mod part;
mod pending_stream;
mod recover;
mod resume_state;
mod rotation;
mod stored_parts;
pub(crate) mod stream_table;
mod stream_writer;
mod syncer;
mod write_coalescer;
mod write_queue;
mod writer;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;

pub use dir::Access;
pub use name_locks::{PeerProbe, SAME_NAME_TIMEOUT};
pub use pending_stream::{PendingStream, StreamOrigin, StreamStart};
pub use rotation::RotationLimits;
pub use stream_writer::{StreamEnd, StreamWriter};
pub use syncer::LossTotals;

use crate::cc::wire::name::{file_name, part_file_name};
use crate::runtime::hex;
use crate::runtime::metrics::Metrics;
use crate::{Error, Result};
use dir::VaultDir;
use disk_retry::DiskRetry;
use journal::{Journal, JournalEntry, LastRun};
use manifest::StreamSource;
use name_locks::{NameLock, NameLocks};
use part::DirtyParts;
use pool::BufferPool;
use write_coalescer::CoalescingSlots;
use write_queue::WriteQueue;
use writer::DiskWriter;

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
    /// Time after its end in which the address of a stream may continue it. `None`: without a limit, from every address.
    pub continue_within: Option<Duration>,
    /// When a growing stream over TCP goes on in a new file.
    pub rotation: RotationLimits,
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
    queue: WriteQueue,
    coalescing_slots: Arc<CoalescingSlots>,
    next_part_id: AtomicU64,
    creating: Mutex<()>,
    /// Files of Kafka streams that the last process left open, until the ledger takes them.
    unclosed_kafka_files: Mutex<Vec<JournalEntry>>,
    hash: bool,
    continue_within: Option<Duration>,
    rotation: RotationLimits,
}

/// A handle to the output directory. Clones share the same state.
#[derive(Clone)]
pub struct Vault {
    shared: Arc<VaultInner>,
}

pub struct VaultThreads {
    hasher: JoinHandle<()>,
    writer: JoinHandle<()>,
    syncer: JoinHandle<LossTotals>,
    recovery: JoinHandle<()>,
}

impl Vault {
    /// Opens and locks the directory, starts the threads, and starts to recover the files that a crash left
    /// open.
    pub fn spawn(config: &VaultConfig, metrics: Arc<Metrics>) -> Result<(Vault, VaultThreads)> {
        let dir = Arc::new(VaultDir::open(&config.dir, config.access)?);
        let (journal, LastRun { unclosed, is_clean }) =
            Journal::open(&dir).map_err(Error::path("read the journal in", &config.dir))?;
        let (write_jobs, write_jobs_in) = bounded(WRITE_JOBS_MAX);
        let (record_jobs, record_jobs_in) = bounded(WRITE_JOBS_MAX);
        let (sync_jobs, sync_jobs_in) = bounded(SYNC_JOBS_MAX);
        let shared = Arc::new(VaultInner {
            dir,
            journal: Arc::new(journal),
            name_locks: Arc::default(),
            pool: Arc::default(),
            disk_retry: Arc::new(DiskRetry::new(Arc::clone(&metrics))),
            dirty: Arc::default(),
            queue: WriteQueue::new(
                write_jobs.clone(),
                record_jobs,
                config.partial_packet_bytes_max,
                Arc::clone(&metrics),
            ),
            metrics,
            losses: Arc::default(),
            coalescing_slots: Arc::default(),
            next_part_id: AtomicU64::new(0),
            creating: Mutex::default(),
            unclosed_kafka_files: Mutex::default(),
            hash: config.hash,
            continue_within: config.continue_within,
            rotation: config.rotation,
        });
        let writer = DiskWriter {
            disk: Arc::clone(&shared.dir),
            files: writer::open_files(),
            descriptors: config.descriptors,
            free_bytes_min: config.free_bytes_min,
            disk_retry: Arc::clone(&shared.disk_retry),
            dirty: Arc::clone(&shared.dirty),
            metrics: Arc::clone(&shared.metrics),
            sync_jobs,
            free_space: None,
        };
        let syncer = shared.syncer(config);
        let recovery = shared.recovery();
        // The ledger rolls back files of Kafka streams to the offsets of the last checkpoint.
        let (records, unclosed): (Vec<_>, Vec<_>) =
            unclosed.into_iter().partition(|entry| entry.source.is_kafka());
        *shared.unclosed_kafka_files.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) =
            records.into_iter().filter(matches_stream_name).collect();
        let unclosed: Vec<_> = unclosed.into_iter().filter_map(|entry| shared.lock_name(entry)).collect();
        let threads = VaultThreads {
            hasher: spawn_thread("hasher", move || hasher::run(record_jobs_in, write_jobs))?,
            writer: spawn_thread("writer", move || writer.run(write_jobs_in))?,
            syncer: spawn_thread("syncer", move || syncer.run(sync_jobs_in))?,
            recovery: spawn_thread("recovery", move || recovery.run(unclosed, !is_clean))?,
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
        let name_lock = self.shared.name_locks.acquire(origin.source, name, probe, stopping);
        PendingStream::new(Arc::clone(&self.shared), name_lock, origin)
    }

    /// Returns whether a TCP stream of this name is open or being closed.
    pub fn is_open(&self, name: &[u8]) -> bool {
        self.shared.name_locks.is_locked(StreamSource::Tcp, name)
    }

    /// Records that `bytes` bytes of a stream were received and cannot be stored, because its file could not
    /// be opened.
    pub fn record_loss(&self, file: &str, bytes: u64) {
        self.shared.record_loss(file, bytes);
    }

    /// Path of the output directory, as given by the user.
    pub fn path(&self) -> &Path {
        self.shared.dir.path()
    }

    /// Opens a file in `.lea` for reading and appending. Creates it if it is missing.
    pub fn open_meta_file(&self, name: &str) -> io::Result<File> {
        self.shared.dir.meta_append(name)
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
        self.hasher.is_finished() || self.writer.is_finished() || self.syncer.is_finished()
    }

    /// Waits until everything is written and closed. All [`Vault`]s and [`StreamWriter`]s must have been
    /// dropped before.
    pub fn join(self) -> Result<LossTotals> {
        let failed = |name: &'static str| move |_| Error::Thread(name.to_owned());
        self.hasher.join().map_err(failed("hasher"))?;
        self.writer.join().map_err(failed("writer"))?;
        let losses = self.syncer.join().map_err(failed("syncer"))?;
        self.recovery.join().map_err(failed("recovery"))?;
        Ok(losses)
    }
}

impl VaultInner {
    /// Records bytes that cannot be stored, of a stream that has no part yet.
    fn record_loss(&self, file: &str, bytes: u64) {
        self.metrics.lost_bytes_total.add(bytes);
        syncer::record_loss(&self.losses, file, bytes);
    }

    fn allocate_part_id(&self) -> u64 {
        self.next_part_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Takes the files of Kafka streams that the last process left open.
    fn take_unclosed_kafka_files(&self) -> Vec<JournalEntry> {
        std::mem::take(
            &mut *self.unclosed_kafka_files.lock().unwrap_or_else(|poisoned| poisoned.into_inner()),
        )
    }

    /// Locks the name of a file that was open when the last process ended.
    fn lock_name(&self, entry: JournalEntry) -> Option<(JournalEntry, NameLock)> {
        let name = matches_stream_name(&entry).then(|| hex::decode(&entry.name_hex)).flatten()?;
        let name_lock = self.name_locks.acquire_for_recovery(entry.source, &name);
        Some((entry, name_lock))
    }

    fn syncer(&self, config: &VaultConfig) -> syncer::Syncer {
        syncer::Syncer {
            dir: Arc::clone(&self.dir),
            journal: Arc::clone(&self.journal),
            dirty: Arc::clone(&self.dirty),
            disk_retry: Arc::clone(&self.disk_retry),
            metrics: Arc::clone(&self.metrics),
            hash: self.hash,
            sync_interval: config.sync_interval,
            free_bytes_min: config.free_bytes_min,
            losses: Arc::clone(&self.losses),
        }
    }

    fn recovery(&self) -> recover::Recovery {
        recover::Recovery {
            dir: Arc::clone(&self.dir),
            journal: Arc::clone(&self.journal),
            name_locks: Arc::clone(&self.name_locks),
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
fn matches_stream_name(entry: &JournalEntry) -> bool {
    let fits = |name: Vec<u8>| part_file_name(&file_name(&name), entry.part) == entry.file;
    let fits = hex::decode(&entry.name_hex).is_some_and(fits);
    if !fits {
        let file = entry.file.escape_debug();
        log::warn!(
            "journal_line_skipped file={file} reason=\"the file name does not follow from the stream name\""
        );
    }
    fits
}
