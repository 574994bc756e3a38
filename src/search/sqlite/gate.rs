//! The memory for indexing: documents are turned into terms in the threads of their senders, and that takes up to 35 times
//! their size. A call that does not fit waits, so that its sender is slowed down.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::search::budget;
use crate::search::store::StoreError;

/// Interval at which a waiting call looks whether its request is over.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// Memory of a word: its occurrence, once more while they are sorted, and the rest of its key.
const WORD_BYTES: usize = 64;

#[derive(Debug)]
pub(super) struct IndexingGate {
    held: Mutex<usize>,
    freed: Condvar,
    bytes_max: usize,
}

/// A share of the memory. It is free again when this is dropped.
#[derive(Debug)]
pub(super) struct IndexingPermit<'a> {
    gate: &'a IndexingGate,
    bytes: usize,
}

impl IndexingGate {
    pub(super) fn new(bytes_max: usize) -> IndexingGate {
        IndexingGate { held: Mutex::new(0), freed: Condvar::new(), bytes_max }
    }

    /// Waits until there is room. A call that is larger than the whole memory is let in alone. Fails only if the thread has a
    /// budget and its time is over.
    pub(super) fn enter(&self, bytes: usize) -> Result<IndexingPermit<'_>, StoreError> {
        let mut held = self.lock();
        while *held > 0 && held.saturating_add(bytes) > self.bytes_max {
            budget::check()?;
            held = self.freed.wait_timeout(held, CHECK_INTERVAL).unwrap_or_else(PoisonError::into_inner).0;
        }
        *held += bytes;
        Ok(IndexingPermit { gate: self, bytes })
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for IndexingPermit<'_> {
    fn drop(&mut self) {
        *self.gate.lock() -= self.bytes;
        self.gate.freed.notify_all();
    }
}

/// Estimates the memory that indexing a document takes, by its words. A character that is not ASCII may be one word.
pub(super) fn indexing_bytes(source: &[u8]) -> usize {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || (0x80..0xc0).contains(&byte);
    let ends = source.windows(2).filter(|pair| is_word(pair[0]) && !is_word(pair[1])).count();
    source.len().saturating_mul(4) + ends * WORD_BYTES + 1_024
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::search::budget::{RequestBudget, RequestMemory, enter};

    #[test]
    fn t3_the_memory_for_indexing_is_limited() {
        let gate = IndexingGate::new(100);
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let _permit = gate.enter(40).unwrap();
                        let held = now.fetch_add(40, Ordering::SeqCst) + 40;
                        most.fetch_max(held, Ordering::SeqCst);
                        std::thread::yield_now();
                        now.fetch_sub(40, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!(most.into_inner() <= 80);
        let large = gate.enter(1_000).unwrap();
        let memory = RequestMemory::new(0);
        let _scope = enter(RequestBudget::new(&memory, 0, Duration::from_millis(100)));
        assert!(matches!(gate.enter(1), Err(StoreError::TimedOut(100))));
        drop(large);
        assert!(gate.enter(1).is_ok());
    }

    #[test]
    fn many_short_words_count_more_than_their_bytes() {
        let words = "a ".repeat(1_000);
        assert!(indexing_bytes(words.as_bytes()) > 30 * words.len());
        let ideographs = "\u{6f22}".repeat(1_000);
        assert!(indexing_bytes(ideographs.as_bytes()) > 20 * ideographs.len());
        assert!(indexing_bytes("a".repeat(4_000).as_bytes()) < 20_000);
    }
}
