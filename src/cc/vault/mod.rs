//! The vault: streams into files that stay readable, complete and provable.
//!
//! A stream's own thread claims its name and decides where it goes (`names`, `intake`, `compare`), follows and
//! hashes it (`tail`) and hands what may be written to the one writer thread (`writer`); the keeper thread syncs and
//! closes (`keeper`). The last [`Vault`] dropped ends the writer, and the writer's end the keeper.

pub mod dir;
pub mod ledger;
pub mod manifest;
pub mod merge;
pub mod pool;
pub mod pressure;
pub mod scan;
mod segments;
pub mod tail;
pub mod time;

mod backlog;
pub mod checkpoint;
mod compare;
mod gather;
mod hasher;
mod intake;
mod journal;
mod keeper;
mod midstate;
mod names;
mod part;
mod recover;
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
pub use intake::{Entry, Head, Intake, Origin};
pub use keeper::Losses;
pub use names::{END_WAIT, Probe};

use crate::cc::frame::name::{file_name, part_file_name};
use crate::counters::Counters;
use crate::{Error, Result};
use backlog::Backlog;
use dir::VaultDir;
use journal::Journal;
use keeper::Ended;
use manifest::Source;
use names::Names;
use part::{Dirty, Part};
use pool::{Buffer, Pool, Size};
use pressure::Pressure;
use tail::Ready;
use writer::{Job, Writer};

/// Jobs that wait for the writer. All buffers fit in; the bound is for the small jobs.
const JOBS_MAX: usize = 512;

/// Ended streams that wait for the keeper, so many that a slow sync does not hold the writer up.
const ENDED_MAX: usize = 16_384;

/// How a vault works.
#[derive(Clone, Debug)]
pub struct VaultConfig {
    /// The output folder.
    pub dir: PathBuf,
    /// Who may read what is stored.
    pub access: Access,
    /// Whether files are hashed.
    pub hash: bool,
    /// Begun packets of all streams may take so much memory, those on their way to the writer included.
    pub pending_bytes_max: u64,
    /// Descriptors that streams and their files share.
    pub descriptors: usize,
    /// Bytes to keep free on the disk.
    pub free_bytes_min: u64,
    /// Between two syncs of a growing file.
    pub sync_interval: Duration,
}

/// What all who hold the vault share.
struct Shared {
    dir: Arc<VaultDir>,
    journal: Arc<Journal>,
    names: Arc<Names>,
    pool: Arc<Pool>,
    pressure: Arc<Pressure>,
    dirty: Arc<Dirty>,
    counters: Arc<Counters>,
    losses: Arc<Mutex<Losses>>,
    jobs: Sender<Job>,
    /// Jobs of records: to the hasher, which hands them to the writer.
    record_jobs: Sender<Job>,
    backlog: Arc<Backlog>,
    open: Mutex<HashMap<u64, Arc<Part>>>,
    next_part_id: AtomicU64,
    creating: Mutex<()>,
    /// Files of records that the last process left open, until the ledger takes them.
    left: Mutex<Vec<journal::Opened>>,
    hash: bool,
    pending_bytes_max: u64,
}

/// A handle to the vault; clones share it.
#[derive(Clone)]
pub struct Vault {
    shared: Arc<Shared>,
}

/// The vault's threads.
pub struct VaultThreads {
    hasher: JoinHandle<()>,
    writer: JoinHandle<()>,
    keeper: JoinHandle<Losses>,
    recovery: JoinHandle<()>,
}

impl Vault {
    /// Opens and locks the folder, starts the threads, and begins to recover what a crash left open.
    pub fn spawn(config: &VaultConfig, counters: Arc<Counters>) -> Result<(Vault, VaultThreads)> {
        let dir = Arc::new(VaultDir::open(&config.dir, config.access)?);
        let (journal, left) = Journal::open(&dir).map_err(Error::path("read the journal in", &config.dir))?;
        let (jobs, jobs_in) = bounded(JOBS_MAX);
        let (record_jobs, record_jobs_in) = bounded(JOBS_MAX);
        let (ended, ended_in) = bounded(ENDED_MAX);
        let shared = Arc::new(Shared {
            dir,
            journal: Arc::new(journal),
            names: Arc::default(),
            pool: Arc::default(),
            pressure: Arc::new(Pressure::new(Arc::clone(&counters))),
            dirty: Arc::default(),
            counters,
            losses: Arc::default(),
            jobs: jobs.clone(),
            record_jobs,
            backlog: Arc::default(),
            open: Mutex::default(),
            next_part_id: AtomicU64::new(0),
            creating: Mutex::default(),
            left: Mutex::default(),
            hash: config.hash,
            pending_bytes_max: config.pending_bytes_max,
        });
        let writer = Writer {
            disk: Arc::clone(&shared.dir),
            files: writer::files(),
            descriptors: config.descriptors,
            free_bytes_min: config.free_bytes_min,
            pressure: Arc::clone(&shared.pressure),
            dirty: Arc::clone(&shared.dirty),
            counters: Arc::clone(&shared.counters),
            ended,
            room: None,
        };
        let keeper = shared.keeper(config.sync_interval);
        let recovery = shared.recovery();
        // What came as records is cut back by the ledger, to where its offsets are.
        let (records, left): (Vec<_>, Vec<_>) =
            left.into_iter().partition(|opened| opened.source == Source::Kafka);
        *shared.left.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) =
            records.into_iter().filter(fits_its_name).collect();
        let left: Vec<_> = left.into_iter().filter_map(|opened| shared.hold(opened)).collect();
        let threads = VaultThreads {
            hasher: spawn("hasher", move || hasher::run(record_jobs_in, jobs))?,
            writer: spawn("writer", move || writer.run(jobs_in))?,
            keeper: spawn("keeper", move || keeper.run(ended_in))?,
            recovery: spawn("recovery", move || recovery.run(left))?,
        };
        Ok((Vault { shared }, threads))
    }

    /// Claims a stream's name, waiting for an earlier stream of this name to end (see [`END_WAIT`]).
    pub fn enter(
        &self,
        name: &[u8],
        origin: Origin,
        probe: Arc<dyn Probe>,
        stopping: impl Fn() -> bool,
    ) -> io::Result<Entry> {
        let claim = self.shared.names.claim(origin.source, name, probe, stopping);
        Entry::new(Arc::clone(&self.shared), claim, origin)
    }

    /// True if a TCP stream of this name is open or being closed.
    pub fn is_open(&self, name: &[u8]) -> bool {
        self.shared.names.is_held(Source::Tcp, name)
    }

    /// Notes that `bytes` bytes of a stream arrived and will not be stored, because it could not be begun.
    pub fn note_loss(&self, file: &str, bytes: u64) {
        self.shared.note_loss(file, bytes);
    }

    /// What makes a member of `group` with this folder the same one after a restart; made at the first call. A copy
    /// of the folder has it too, so a copy must not run beside the original.
    pub fn instance(&self, group: &str) -> Result<String> {
        let failed = || Error::path("read the instance of", self.shared.dir.path());
        let mut file = self.shared.dir.own_append("instance").map_err(failed())?;
        let mut found = String::new();
        (&mut file).take(256).read_to_string(&mut found).map_err(failed())?;
        if found.trim().is_empty() {
            let mut random = [0; 16];
            std::fs::File::open("/dev/urandom")
                .and_then(|mut source| source.read_exact(&mut random))
                .map_err(failed())?;
            found = crate::cc::frame::name::hex(&random);
            file.write_all(found.as_bytes()).and_then(|()| file.sync_all()).map_err(failed())?;
        }
        Ok(format!("lea-{group}-{}", found.trim()))
    }

    /// The buffers to read into.
    pub fn pool(&self) -> &Pool {
        &self.shared.pool
    }

    /// The state of the disk.
    pub fn pressure(&self) -> &Arc<Pressure> {
        &self.shared.pressure
    }

    /// From `at` on nothing waits for a full disk any more: what cannot be written is counted as lost.
    pub fn give_up_at(&self, at: Instant) {
        self.shared.pressure.give_up_at(at);
    }
}

impl VaultThreads {
    /// True if a thread has ended that should run as long as there is a [`Vault`].
    pub fn has_ended(&self) -> bool {
        self.hasher.is_finished() || self.writer.is_finished() || self.keeper.is_finished()
    }

    /// Waits until all is written and closed. Every [`Vault`] and [`Intake`] must be gone before.
    pub fn join(self) -> Result<Losses> {
        let failed = |name: &'static str| move |_| Error::Thread(name.to_owned());
        self.hasher.join().map_err(failed("hasher"))?;
        self.writer.join().map_err(failed("writer"))?;
        let losses = self.keeper.join().map_err(failed("keeper"))?;
        self.recovery.join().map_err(failed("recovery"))?;
        Ok(losses)
    }
}

impl Shared {
    /// Takes the next bytes of a part's stream. After an error the caller counts them as lost.
    fn take_in(&self, part: &Arc<Part>, buffer: Buffer, bytes: usize) -> io::Result<()> {
        if part.is_broken() {
            return Err(io::Error::other("its file cannot be written"));
        }
        self.wait_for_room(part, bytes);
        let mut tail = part.tail();
        let ready = tail.feed(&buffer[..bytes]);
        self.note_pending(part, tail.pending_bytes());
        let hashed = if part.is_of_records { bytes } else { 0 };
        if ready.is_some() || hashed > 0 {
            let nothing = || Ready { at: tail.written(), head: Vec::new(), body: 0..0 };
            let Ready { at, head, body } = ready.unwrap_or_else(nothing);
            let body = (!body.is_empty() || hashed > 0).then_some((buffer, body));
            let head = self.backlog.queue(head);
            self.send(Job::Write { part: Arc::clone(part), at, head, body, hashed })?;
        }
        drop(tail);
        while self.counters.pending_bytes.get() > self.pending_bytes_max && self.relieve() {}
        Ok(())
    }

    /// Waits while too much is kept back, and some of it is on its way to the writer.
    fn wait_for_room(&self, part: &Part, bytes: usize) {
        // Streams of ordinary packets never wait for those that are too much; all jobs together bound what they bring.
        if part.pending_bytes.load(Ordering::Relaxed) + bytes > Size::Small.bytes() {
            self.backlog.wait(|queued| queued + self.counters.pending_bytes.get() > self.pending_bytes_max);
        }
    }

    /// Writes what the part keeps back.
    fn write_through(&self, part: &Arc<Part>) -> bool {
        let mut tail = part.tail();
        let Some(ready) = tail.write_through() else { return false };
        self.note_pending(part, 0);
        let head = self.backlog.queue(ready.head);
        self.send(Job::Write { part: Arc::clone(part), at: ready.at, head, body: None, hashed: 0 }).is_ok()
    }

    /// Too much is waiting: writes the largest begun packet through. False if nothing waits.
    fn relieve(&self) -> bool {
        let waiting = |part: &Arc<Part>| part.pending_bytes.load(Ordering::Relaxed);
        let largest = self.open().values().max_by_key(|part| waiting(part)).cloned();
        let Some(part) = largest.filter(|part| waiting(part) > 0) else { return false };
        let relieved = self.write_through(&part);
        if relieved {
            self.counters.pending_written_through_total.one();
        }
        relieved
    }

    fn note_pending(&self, part: &Part, bytes: usize) {
        let before = part.pending_bytes.swap(bytes, Ordering::Relaxed);
        self.counters.pending_bytes.add(bytes as u64);
        self.counters.pending_bytes.sub(before as u64);
    }

    /// Waits until all is hashed that was sent of records.
    fn wait_until_hashed(&self) -> io::Result<()> {
        let (hashed, wait) = bounded(1);
        self.send(Job::Hashed(hashed))?;
        wait.recv().map_err(|_| io::Error::other("the writer is gone"))
    }

    fn send(&self, job: Job) -> io::Result<()> {
        let is_of_records = match &job {
            Job::Write { part, .. } | Job::Close(Ended { part, .. }) => part.is_of_records,
            Job::Hashed(_) | Job::Checkpoint(_) => true,
        };
        let jobs = if is_of_records { &self.record_jobs } else { &self.jobs };
        jobs.send(job).map_err(|_| io::Error::other("the writer is gone"))
    }

    /// Bytes of a part's stream that will not be stored.
    fn lose(&self, part: &Part, bytes: u64) {
        part.lack(bytes);
        self.counters.lost_bytes_total.add(bytes);
    }

    /// Bytes that will not be stored, of a stream that has no part of its own yet.
    fn note_loss(&self, file: &str, bytes: u64) {
        self.counters.lost_bytes_total.add(bytes);
        keeper::note_loss(&self.losses, file, bytes);
    }

    fn remember(&self, part: &Arc<Part>) {
        self.open().insert(part.id, Arc::clone(part));
    }

    fn forget(&self, part: &Part) {
        self.open().remove(&part.id);
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, Arc<Part>>> {
        self.open.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn next_part_id(&self) -> u64 {
        self.next_part_id.fetch_add(1, Ordering::Relaxed)
    }

    /// The files of records that the last process left open.
    fn take_left(&self) -> Vec<journal::Opened> {
        std::mem::take(&mut *self.left.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    /// Holds the name of a file that was open when the last process ended.
    fn hold(&self, opened: journal::Opened) -> Option<(journal::Opened, names::Claim)> {
        let name = fits_its_name(&opened).then(|| unhex(&opened.name_hex)).flatten()?;
        let claim = self.names.hold(opened.source, &name);
        Some((opened, claim))
    }

    fn keeper(&self, sync_interval: Duration) -> keeper::Keeper {
        keeper::Keeper {
            dir: Arc::clone(&self.dir),
            journal: Arc::clone(&self.journal),
            dirty: Arc::clone(&self.dirty),
            pressure: Arc::clone(&self.pressure),
            counters: Arc::clone(&self.counters),
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
            pressure: Arc::clone(&self.pressure),
            counters: Arc::clone(&self.counters),
            hash: self.hash,
        }
    }
}

fn spawn<T: Send + 'static>(
    name: &'static str,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>> {
    Builder::new().name(name.to_owned()).spawn(run).map_err(Error::system("start a thread"))
}

/// False for a line of the journal that could lead out of the folder.
fn fits_its_name(opened: &journal::Opened) -> bool {
    let fits = |name: Vec<u8>| part_file_name(&file_name(&name), opened.part) == opened.file;
    let fits = unhex(&opened.name_hex).is_some_and(fits);
    if !fits {
        let file = opened.file.escape_debug();
        log::warn!("journal_line_passed_over file={file} reason=\"no stream of that name has this file\"");
    }
    fits
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}
