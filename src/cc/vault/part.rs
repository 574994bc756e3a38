//! An open stream file: the end that is still growing, and its manifest.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use sha2::{Digest, Sha256};

use super::manifest::Manifest;
use super::packet_aligner::PacketAligner;
use crate::runtime::hex;

/// Why a file cannot be made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SyncFailure {
    /// The fsync failed, and the bytes could not be written again.
    Unsynced,
    /// The name does not lead to the file any more.
    Removed,
}

/// An open part of a stream. The stream's thread feeds the aligner, the writer thread writes, the syncer
/// thread syncs and closes.
#[derive(Debug)]
pub(super) struct StreamPart {
    /// Unique number within this process.
    pub id: u64,
    /// Name of the stream file.
    pub file: String,
    /// Whether this is a Kafka stream. One thread reads all of them, so the hasher thread hashes them.
    pub is_from_kafka: bool,
    /// Hash of a Kafka stream. It covers all bytes that the hasher thread has forwarded.
    hasher: Mutex<Option<Sha256>>,
    /// Aligns received bytes to packets. Locked while a job is sent, so that jobs of a part stay in order.
    aligner: Mutex<PacketAligner>,
    /// Size of the partial packet. Can be read without a lock, to find the largest one.
    pub pending_bytes: AtomicUsize,
    /// Whether the writer met a permanent error. Nothing more is written to this file.
    is_broken: AtomicBool,
    /// Bytes that were received and could not be written.
    lost_bytes: AtomicU64,
    /// Length of the file, as far as it was written.
    written_bytes: AtomicU64,
    /// Length of the file up to which an fsync has succeeded.
    synced_bytes: AtomicU64,
    /// Offset from which bytes were written again after a failed fsync. Their hash has to be checked. `u64::MAX`: none.
    rewritten_from: AtomicU64,
    sync_failure: OnceLock<SyncFailure>,
    is_loss_reported: AtomicBool,
    /// Number of the file on its file system. `None` until it is known.
    inode: OnceLock<u64>,
    /// Whether the file was written since the last fsync.
    is_dirty: AtomicBool,
    manifest: Mutex<Manifest>,
}

impl StreamPart {
    /// Creates the part of an existing file.
    pub(super) fn new(id: u64, mut aligner: PacketAligner, manifest: Manifest) -> StreamPart {
        let is_of_records = manifest.source.is_kafka();
        // A re-send that is being compared counts everything as stored.
        let stored_bytes = match aligner.written_bytes() {
            u64::MAX => 0,
            bytes => bytes,
        };
        StreamPart {
            id,
            file: manifest.file.clone(),
            is_from_kafka: is_of_records,
            hasher: Mutex::new(if is_of_records { aligner.take_hasher() } else { None }),
            aligner: Mutex::new(aligner),
            pending_bytes: AtomicUsize::new(0),
            is_broken: AtomicBool::new(false),
            lost_bytes: AtomicU64::new(0),
            written_bytes: AtomicU64::new(stored_bytes),
            synced_bytes: AtomicU64::new(stored_bytes),
            rewritten_from: AtomicU64::new(u64::MAX),
            sync_failure: OnceLock::new(),
            is_loss_reported: AtomicBool::new(false),
            inode: OnceLock::new(),
            is_dirty: AtomicBool::new(false),
            manifest: Mutex::new(manifest),
        }
    }

    pub(super) fn aligner(&self) -> MutexGuard<'_, PacketAligner> {
        self.aligner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Hashes bytes of a Kafka stream.
    pub(super) fn hash(&self, bytes: &[u8]) {
        if let Some(hasher) = &mut *self.hasher.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) {
            hasher.update(bytes);
        }
    }

    /// Returns the hash of a Kafka stream.
    pub(super) fn hasher(&self) -> Option<Sha256> {
        self.hasher.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// Puts the final hash of a Kafka stream into its manifest.
    pub(super) fn add_hash_to_manifest(&self) {
        let Some(hasher) = self.hasher() else { return };
        let resume_state = self.aligner().resume_state(Some(hasher.clone()));
        let mut manifest = self.manifest();
        manifest.sha256 = Some(hex::encode(&hasher.finalize()));
        manifest.resume_state = Some(resume_state);
    }

    /// Returns the manifest that will be written next.
    pub(super) fn manifest(&self) -> MutexGuard<'_, Manifest> {
        self.manifest.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Counts bytes that cannot be written and stops all further writes, which would leave a hole in the
    /// file.
    pub(super) fn mark_broken(&self, bytes: u64) {
        self.is_broken.store(true, Ordering::Relaxed);
        self.add_lost_bytes(bytes);
    }

    /// Counts bytes that were lost before they were queued. Queued bytes are still written.
    pub(super) fn add_lost_bytes(&self, bytes: u64) {
        self.lost_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Returns whether further writes are ignored.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Relaxed)
    }

    pub(super) fn lost_bytes(&self) -> u64 {
        self.lost_bytes.load(Ordering::Relaxed)
    }

    /// Records the inode of the file, once.
    pub(super) fn set_inode(&self, inode: u64) {
        let _ = self.inode.set(inode);
    }

    pub(super) fn inode(&self) -> Option<u64> {
        self.inode.get().copied()
    }

    /// Records the length of the file after a write.
    pub(super) fn mark_written(&self, bytes: u64) {
        self.written_bytes.fetch_max(bytes, Ordering::AcqRel);
    }

    pub(super) fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Acquire)
    }

    /// Records that the first `bytes` bytes are on the disk.
    pub(super) fn mark_synced(&self, bytes: u64) {
        self.synced_bytes.fetch_max(bytes, Ordering::AcqRel);
    }

    pub(super) fn synced_bytes(&self) -> u64 {
        self.synced_bytes.load(Ordering::Acquire)
    }

    /// Records that the bytes from `from` on were written again after a failed fsync.
    pub(super) fn mark_rewritten(&self, from: u64) {
        self.rewritten_from.fetch_min(from, Ordering::AcqRel);
    }

    /// Returns the offset from which bytes were written again.
    pub(super) fn rewritten_from(&self) -> Option<u64> {
        Some(self.rewritten_from.load(Ordering::Acquire)).filter(|from| *from != u64::MAX)
    }

    /// Records that the file cannot be made durable. Nothing more is written to it.
    pub(super) fn mark_sync_failed(&self, failure: SyncFailure) {
        self.is_broken.store(true, Ordering::Relaxed);
        let _ = self.sync_failure.set(failure);
    }

    pub(super) fn sync_failure(&self) -> Option<SyncFailure> {
        self.sync_failure.get().copied()
    }

    /// Returns true on the first call.
    pub(super) fn take_loss_report(&self) -> bool {
        !self.is_loss_reported.swap(true, Ordering::AcqRel)
    }

    /// Records a write. Returns whether it is the first since the last fsync.
    pub(super) fn mark_dirty(&self) -> bool {
        !self.is_dirty.swap(true, Ordering::AcqRel)
    }

    /// Records that an fsync starts. Later writes need another one.
    pub(super) fn mark_clean(&self) {
        self.is_dirty.store(false, Ordering::Release);
    }
}

/// Parts that need an fsync. The writer adds them and the syncer takes them.
#[derive(Debug, Default)]
pub(super) struct DirtyParts {
    parts: Mutex<Vec<Arc<StreamPart>>>,
    has_new_names: AtomicBool,
}

impl DirtyParts {
    pub(super) fn add(&self, part: &Arc<StreamPart>) {
        self.lock().push(Arc::clone(part));
    }

    pub(super) fn take(&self) -> Vec<Arc<StreamPart>> {
        std::mem::take(&mut *self.lock())
    }

    /// Records that a file was created or renamed.
    pub(super) fn mark_names_changed(&self) {
        self.has_new_names.store(true, Ordering::Release);
    }

    /// Returns whether files were created or renamed since the last call.
    pub(super) fn take_names_changed(&self) -> bool {
        self.has_new_names.swap(false, Ordering::AcqRel)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<StreamPart>>> {
        self.parts.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
