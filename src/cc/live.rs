//! The streams that are open now, and the partitions that are read: what /streams and /partitions show, and what the
//! limits look at.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use super::partitions::Partitions;

/// One open stream. Its own thread writes the numbers, others read them.
#[derive(Debug)]
pub struct LiveStream {
    /// A number that no other stream of this process has.
    pub id: u64,
    /// The sender.
    pub peer: SocketAddr,
    /// When it was accepted, milliseconds since 1970.
    pub connected_ms: i64,
    /// The file it goes into, once that is known (its escaped name until a file is chosen).
    pub file: OnceLock<String>,
    /// Bytes of content received.
    pub bytes: AtomicU64,
    /// Whole packets received.
    pub packets: AtomicU64,
    /// When the last byte came, milliseconds since 1970; 0: none came yet.
    pub last_byte_ms: AtomicI64,
}

impl LiveStream {
    /// `naming` until the name is known, `waiting` until content comes, then `receiving`.
    pub fn state(&self) -> &'static str {
        match (self.file.get(), self.last_byte_ms.load(Ordering::Relaxed)) {
            (None, _) => "naming",
            (Some(_), 0) => "waiting",
            (Some(_), _) => "receiving",
        }
    }
}

/// All open streams over TCP, and all partitions.
#[derive(Debug, Default)]
pub struct Live {
    /// The partitions that records come from.
    pub partitions: Partitions,
    streams: Mutex<HashMap<u64, Arc<LiveStream>>>,
    next_id: AtomicU64,
}

impl Live {
    /// Adds a stream that was just accepted.
    pub fn add(&self, peer: SocketAddr, connected_ms: i64) -> Arc<LiveStream> {
        let stream = Arc::new(LiveStream {
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            peer,
            connected_ms,
            file: OnceLock::new(),
            bytes: AtomicU64::new(0),
            packets: AtomicU64::new(0),
            last_byte_ms: AtomicI64::new(0),
        });
        self.lock().insert(stream.id, Arc::clone(&stream));
        stream
    }

    /// Takes a stream out that has ended.
    pub fn remove(&self, id: u64) {
        self.lock().remove(&id);
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// The open streams, oldest first.
    pub fn list(&self) -> Vec<Arc<LiveStream>> {
        let mut streams: Vec<_> = self.lock().values().cloned().collect();
        streams.sort_by_key(|stream| stream.id);
        streams
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<LiveStream>>> {
        self.streams.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
