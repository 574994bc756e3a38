//! Coalesces small chunks of a stream in one buffer, so that records of a few kilobytes are not processed and
//! written one by one. Runs in the stream's thread.
//!
//! Invariant: coalesced bytes have not reached the stream writer. Flush them before anything relies on them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::pool::{Buffer, BufferSize};

/// Streams of a vault that may coalesce at the same time. This is half of the small buffers; the other half keeps
/// circulating, so a thread that coalesces always gets a buffer.
pub(super) const COALESCING_STREAMS_MAX: usize = 128;

/// Counts the streams of a vault that coalesce.
#[derive(Debug, Default)]
pub(super) struct CoalescingSlots {
    taken: AtomicUsize,
}

impl CoalescingSlots {
    pub(super) fn has_free(&self) -> bool {
        self.taken.load(Ordering::Relaxed) < COALESCING_STREAMS_MAX
    }

    /// Takes a slot. Returns `None` if all are taken.
    fn take(self: &Arc<CoalescingSlots>) -> Option<CoalescingSlot> {
        let is_free = |taken: usize| (taken < COALESCING_STREAMS_MAX).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, is_free).ok()?;
        Some(CoalescingSlot(Arc::clone(self)))
    }
}

/// Permission to coalesce. Dropping it frees the slot.
#[derive(Debug)]
struct CoalescingSlot(Arc<CoalescingSlots>);

impl Drop for CoalescingSlot {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The last bytes of a stream that have not been flushed.
#[derive(Debug, Default)]
pub(super) struct WriteCoalescer {
    buffer: Option<(Buffer, CoalescingSlot)>,
    bytes: usize,
}

impl WriteCoalescer {
    /// Returns whether no buffer is held.
    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_none()
    }

    /// Returns at least `bytes` bytes of free space after the coalesced bytes, if available. The caller fills
    /// it and calls [`advance`](Self::advance).
    pub(super) fn spare_space(&mut self, bytes: usize) -> Option<&mut [u8]> {
        let (buffer, _) = self.buffer.as_mut()?;
        let space = &mut buffer[self.bytes..];
        (space.len() >= bytes).then_some(space)
    }

    /// Adds `bytes` bytes that the caller wrote to [`spare_space`](Self::spare_space).
    pub(super) fn advance(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// Starts with the first `bytes` bytes of `buffer`. Returns the buffer if it is not suited or all slots are taken:
    /// large buffers are scarce, and one that is more than half full has too little space.
    pub(super) fn start(
        &mut self,
        slots: &Arc<CoalescingSlots>,
        buffer: Buffer,
        bytes: usize,
    ) -> Option<Buffer> {
        debug_assert!(self.is_empty(), "the buffer must be flushed first");
        if buffer.len() > BufferSize::Small.bytes() || bytes > buffer.len() / 2 {
            return Some(buffer);
        }
        let Some(slot) = slots.take() else { return Some(buffer) };
        (self.buffer, self.bytes) = (Some((buffer, slot)), bytes);
        None
    }

    /// Takes the coalesced bytes in order to flush them.
    pub(super) fn take(&mut self) -> Option<(Buffer, usize)> {
        let bytes = std::mem::take(&mut self.bytes);
        self.buffer.take().map(|(buffer, _)| (buffer, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cc::vault::pool::BufferPool;

    /// Coalesces up to `count` chunks of `bytes` bytes in one buffer. Returns how many fit.
    fn check_coalescing(bytes: usize, count: usize) -> usize {
        let pool = BufferPool::new();
        let chunk = |number: usize| vec![number as u8; bytes];
        let mut buffer = pool.take(BufferSize::Small);
        buffer[..bytes].copy_from_slice(&chunk(0));
        let mut coalescer = WriteCoalescer::default();
        if coalescer.start(&Arc::default(), buffer, bytes).is_some() {
            return 0;
        }
        let mut all = chunk(0);
        let mut fit = 1;
        while fit < count
            && let Some(room) = coalescer.spare_space(bytes)
        {
            room[..bytes].copy_from_slice(&chunk(fit));
            coalescer.advance(bytes);
            all.extend(chunk(fit));
            fit += 1;
        }
        let (buffer, coalesced) = coalescer.take().unwrap();
        assert_eq!(buffer[..coalesced], all[..]);
        assert!(coalescer.is_empty() && coalescer.spare_space(0).is_none());
        fit
    }

    #[test]
    fn chunks_are_coalesced_while_they_fit() {
        let small = BufferSize::Small.bytes();
        for (bytes, count, fit) in
            [(100, 3, 3), (3000, 9, 5), (small / 2, 9, 2), (small / 2 + 1, 9, 0), (small / 16, 99, 16)]
        {
            assert_eq!(check_coalescing(bytes, count), fit, "{bytes} bytes");
        }
    }

    #[test]
    fn a_large_buffer_is_returned_and_an_empty_chunk_is_kept() {
        let pool = BufferPool::new();
        let mut coalescer = WriteCoalescer::default();
        assert!(coalescer.start(&Arc::default(), pool.take(BufferSize::Large), 1).is_some());
        assert!(coalescer.is_empty());
        assert!(coalescer.start(&Arc::default(), pool.take(BufferSize::Small), 0).is_none());
        assert_eq!(coalescer.take().map(|(_, bytes)| bytes), Some(0));
    }

    #[test]
    fn the_number_of_streams_that_coalesce_is_limited() {
        let (pool, slots) = (BufferPool::new(), Arc::<CoalescingSlots>::default());
        let mut coalescers: Vec<WriteCoalescer> = Vec::new();
        while slots.has_free() {
            let mut coalescer = WriteCoalescer::default();
            assert!(coalescer.start(&slots, pool.take(BufferSize::Small), 1).is_none());
            coalescers.push(coalescer);
        }
        assert_eq!(coalescers.len(), COALESCING_STREAMS_MAX);
        assert!(WriteCoalescer::default().start(&slots, pool.take(BufferSize::Small), 1).is_some());
        assert!(coalescers[0].take().is_some());
        assert!(slots.has_free());
    }
}
