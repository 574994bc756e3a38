//! Registry of open streams and of Kafka partitions: the source of /streams and /partitions and of the limit
//! on open streams.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use super::partitions::PartitionRegistry;

/// Statistics of an open stream. Its own thread writes them, other threads read them.
#[derive(Debug)]
pub struct StreamStats {
    /// Number that is unique in this process.
    pub id: u64,
    pub peer: SocketAddr,
    /// Time of the accept, in milliseconds since 1970.
    pub connected_ms: i64,
    /// Escaped name of the stream, once known.
    pub name: OnceLock<String>,
    /// File of the stream, once it is chosen. That of a rotated stream changes.
    part_file: Mutex<Option<String>>,
    pub bytes: AtomicU64,
    /// Complete packets received.
    pub packets: AtomicU64,
    /// Time of the last byte, in milliseconds since 1970. 0 before the first one.
    pub last_byte_ms: AtomicI64,
}

impl StreamStats {
    /// Returns the file of the stream; until it is chosen, the file that the name leads to.
    pub fn file(&self) -> Option<String> {
        self.part_file().clone().or_else(|| self.name.get().cloned())
    }

    /// Records the file that the stream is written to now.
    pub fn set_part_file(&self, file: &str) {
        let mut part_file = self.part_file();
        if part_file.as_deref() != Some(file) {
            *part_file = Some(file.to_owned());
        }
    }

    fn part_file(&self) -> MutexGuard<'_, Option<String>> {
        self.part_file.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// `handshake` until the name is known, `idle` until the first content byte, then `receiving`.
    pub fn state(&self) -> &'static str {
        match (self.name.get(), self.last_byte_ms.load(Ordering::Relaxed)) {
            (None, _) => "handshake",
            (Some(_), 0) => "idle",
            (Some(_), _) => "receiving",
        }
    }
}

/// Registry of all open TCP streams and all partitions.
#[derive(Debug, Default)]
pub struct StreamRegistry {
    pub partitions: PartitionRegistry,
    streams: Mutex<HashMap<u64, Arc<StreamStats>>>,
    next_id: AtomicU64,
}

impl StreamRegistry {
    /// Registers a stream that was just accepted.
    pub fn add(&self, peer: SocketAddr, connected_ms: i64) -> Arc<StreamStats> {
        let stream = Arc::new(StreamStats {
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            peer,
            connected_ms,
            name: OnceLock::new(),
            part_file: Mutex::default(),
            bytes: AtomicU64::new(0),
            packets: AtomicU64::new(0),
            last_byte_ms: AtomicI64::new(0),
        });
        self.lock().insert(stream.id, Arc::clone(&stream));
        stream
    }

    /// Removes a stream that has ended.
    pub fn remove(&self, id: u64) {
        self.lock().remove(&id);
    }

    /// Returns the number of open streams.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Lists the open streams, oldest first.
    pub fn list(&self) -> Vec<Arc<StreamStats>> {
        let mut streams: Vec<_> = self.lock().values().cloned().collect();
        streams.sort_by_key(|stream| stream.id);
        streams
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<StreamStats>>> {
        self.streams.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
