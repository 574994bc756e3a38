//! A stream file that is open: its growing end, and its manifest.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use sha2::{Digest, Sha256};

use super::manifest::{Manifest, Source};
use super::tail::Tail;
use crate::cc::frame::name::hex;

/// An open part of a stream. Its stream's thread feeds the tail, the writer writes, the keeper syncs and closes.
#[derive(Debug)]
pub struct Part {
    /// A number that no other part of this process has.
    pub id: u64,
    /// The stream file in the vault's folder.
    pub file: String,
    /// True for a stream of records: one thread brings all of them, so they are hashed in another one.
    pub is_of_records: bool,
    /// The hash of a stream of records, of all bytes that the hasher thread has passed on.
    hasher: Mutex<Option<Sha256>>,
    /// The growing end. Held while a job is sent, so that the jobs of a part are in order.
    tail: Mutex<Tail>,
    /// Bytes that the tail keeps back, to find the largest without the locks.
    pub pending_bytes: AtomicUsize,
    /// True once the writer has met an error that does not pass: nothing more goes into this file.
    broken: AtomicBool,
    /// Bytes that were received and could not be written.
    lost_bytes: AtomicU64,
    /// True between a write and the sync that follows it.
    dirty: AtomicBool,
    manifest: Mutex<Manifest>,
}

impl Part {
    /// A part whose file is there.
    pub fn new(id: u64, mut tail: Tail, manifest: Manifest) -> Part {
        let is_of_records = manifest.source == Source::Kafka;
        Part {
            id,
            file: manifest.file.clone(),
            is_of_records,
            hasher: Mutex::new(if is_of_records { tail.take_hasher() } else { None }),
            tail: Mutex::new(tail),
            pending_bytes: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
            lost_bytes: AtomicU64::new(0),
            dirty: AtomicBool::new(false),
            manifest: Mutex::new(manifest),
        }
    }

    /// The growing end.
    pub fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Hashes bytes of a stream of records.
    pub fn hash(&self, bytes: &[u8]) {
        if let Some(hasher) = &mut *self.hasher.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) {
            hasher.update(bytes);
        }
    }

    /// The hash of a stream of records.
    pub fn hasher(&self) -> Option<Sha256> {
        self.hasher.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// Puts the hash of a stream of records into its manifest, when all of it is hashed.
    pub fn note_hash(&self) {
        let Some(hasher) = self.hasher() else { return };
        let midstate = self.tail().midstate(Some(hasher.clone()));
        let mut manifest = self.manifest();
        manifest.sha256 = Some(hex(&hasher.finalize()));
        manifest.midstate = Some(midstate);
    }

    /// The manifest as it will be written next.
    pub fn manifest(&self) -> MutexGuard<'_, Manifest> {
        self.manifest.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Counts bytes that cannot be written; after them nothing more is, or the file would have a hole.
    pub fn lose(&self, bytes: u64) {
        self.broken.store(true, Ordering::Relaxed);
        self.lack(bytes);
    }

    /// Counts bytes that never came as far as a write; what is on its way is still written.
    pub fn lack(&self, bytes: u64) {
        self.lost_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// True if nothing more goes into this file.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// Bytes lost.
    pub fn lost_bytes(&self) -> u64 {
        self.lost_bytes.load(Ordering::Relaxed)
    }

    /// Notes a write; true if it is the first since the last sync.
    pub fn soil(&self) -> bool {
        !self.dirty.swap(true, Ordering::AcqRel)
    }

    /// Notes that a sync begins: writes from now on need the next one.
    pub fn clean(&self) {
        self.dirty.store(false, Ordering::Release);
    }
}

/// Parts that need a sync, handed from the writer to the keeper.
#[derive(Debug, Default)]
pub struct Dirty {
    parts: Mutex<Vec<Arc<Part>>>,
    names: AtomicBool,
}

impl Dirty {
    /// Adds a part that was just soiled.
    pub fn add(&self, part: &Arc<Part>) {
        self.lock().push(Arc::clone(part));
    }

    /// Takes all of them.
    pub fn take(&self) -> Vec<Arc<Part>> {
        std::mem::take(&mut *self.lock())
    }

    /// Notes that a file was made or renamed.
    pub fn add_names(&self) {
        self.names.store(true, Ordering::Release);
    }

    /// True if files were made or renamed since the last call.
    pub fn take_names(&self) -> bool {
        self.names.swap(false, Ordering::AcqRel)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Part>>> {
        self.parts.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
