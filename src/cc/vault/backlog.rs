//! Counts the bytes of partial packets that are queued for the writer. They use memory until they are
//! written, so they count against the limit on partial packets until then.

use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

/// The number of queued bytes of a vault.
#[derive(Debug, Default)]
pub(super) struct WriteBacklog {
    bytes: Mutex<u64>,
    written: Condvar,
}

/// Some queued bytes. They are counted until this value is dropped.
#[derive(Debug)]
pub(super) struct QueuedBytes {
    bytes: Vec<u8>,
    backlog: Arc<WriteBacklog>,
}

impl WriteBacklog {
    /// Starts to count `bytes`.
    pub(super) fn queue(self: &Arc<WriteBacklog>, bytes: Vec<u8>) -> QueuedBytes {
        if !bytes.is_empty() {
            *self.lock() += bytes.len() as u64;
        }
        QueuedBytes { bytes, backlog: Arc::clone(self) }
    }

    /// Blocks while `is_too_much` returns true for the queued byte count and the count is not 0. Only the
    /// writer lowers it.
    pub(super) fn wait_while(&self, is_too_much: impl Fn(u64) -> bool) {
        let mut bytes = self.lock();
        while *bytes > 0 && is_too_much(*bytes) {
            bytes = self.written.wait(bytes).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.bytes.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Deref for QueuedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for QueuedBytes {
    fn drop(&mut self) {
        if !self.bytes.is_empty() {
            *self.backlog.lock() -= self.bytes.len() as u64;
            self.backlog.written.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiter_continues_when_enough_is_written() {
        let backlog = Arc::new(WriteBacklog::default());
        let (first, second) = (backlog.queue(vec![0; 10]), backlog.queue(vec![0; 10]));
        backlog.wait_while(|bytes| bytes > 20);
        let waiter = std::thread::spawn({
            let backlog = Arc::clone(&backlog);
            move || backlog.wait_while(|bytes| bytes > 10)
        });
        drop(first);
        waiter.join().unwrap();
        drop(second);
        backlog.wait_while(|_| true);
    }
}
