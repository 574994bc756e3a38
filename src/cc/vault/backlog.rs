//! Bytes that were kept back and are now on their way to the writer. They take memory until they are written, so
//! they count against the ceiling of begun packets until then.

use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

/// All such bytes of a vault.
#[derive(Debug, Default)]
pub struct Backlog {
    bytes: Mutex<u64>,
    written: Condvar,
}

/// Some of them; they count until this is dropped, in whatever way.
#[derive(Debug)]
pub struct Queued {
    bytes: Vec<u8>,
    backlog: Arc<Backlog>,
}

impl Backlog {
    /// Counts bytes from now on.
    pub fn queue(self: &Arc<Backlog>, bytes: Vec<u8>) -> Queued {
        if !bytes.is_empty() {
            *self.lock() += bytes.len() as u64;
        }
        Queued { bytes, backlog: Arc::clone(self) }
    }

    /// Waits until the bytes are few enough, or none: only the writer can make them less.
    pub fn wait(&self, is_too_much: impl Fn(u64) -> bool) {
        let mut bytes = self.lock();
        while *bytes > 0 && is_too_much(*bytes) {
            bytes = self.written.wait(bytes).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.bytes.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Deref for Queued {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Queued {
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
    fn whoever_waits_goes_on_when_enough_is_written() {
        let backlog = Arc::new(Backlog::default());
        let (first, second) = (backlog.queue(vec![0; 10]), backlog.queue(vec![0; 10]));
        backlog.wait(|bytes| bytes > 20);
        let waiter = std::thread::spawn({
            let backlog = Arc::clone(&backlog);
            move || backlog.wait(|bytes| bytes > 10)
        });
        drop(first);
        waiter.join().unwrap();
        drop(second);
        backlog.wait(|_| true);
    }
}
