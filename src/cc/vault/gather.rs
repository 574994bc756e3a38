//! Small chunks of a stream, put behind one another in a buffer before they go on: so records of a few kilobytes are
//! neither followed nor written one by one. Runs in the stream's thread.
//!
//! Invariant: what is gathered counts for nothing until it is handed over; whoever vouches for it hands it over first.

use super::pool::{Buffer, Size};

/// Streams that may gather at once: half of the small buffers. The others go round, so a thread that gathers finds one
/// however long it keeps these.
pub const GATHERING_MAX: usize = 128;

/// The last bytes of a stream, not yet handed over.
#[derive(Debug, Default)]
pub struct Gather {
    buffer: Option<Buffer>,
    bytes: usize,
}

impl Gather {
    /// True if it keeps no buffer.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_none()
    }

    /// Room for `bytes` bytes behind those, if there is as much. [`add`](Self::add) says how many were put there.
    pub fn room(&mut self, bytes: usize) -> Option<&mut [u8]> {
        let room = &mut self.buffer.as_mut()?[self.bytes..];
        (room.len() >= bytes).then_some(room)
    }

    /// Counts bytes that were put into the [`room`](Self::room).
    pub fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// Starts with the first `bytes` bytes of a buffer; gives it back if no more should be gathered in it: large ones
    /// are few, and one that is almost full has room for nothing.
    pub fn start(&mut self, buffer: Buffer, bytes: usize) -> Option<Buffer> {
        debug_assert!(self.is_empty(), "what was gathered is handed over first");
        if buffer.len() > Size::Small.bytes() || bytes > buffer.len() / 2 {
            return Some(buffer);
        }
        (self.buffer, self.bytes) = (Some(buffer), bytes);
        None
    }

    /// Takes what is gathered, to hand it over.
    pub fn take(&mut self) -> Option<(Buffer, usize)> {
        let bytes = std::mem::take(&mut self.bytes);
        self.buffer.take().map(|buffer| (buffer, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::super::pool::Pool;
    use super::*;

    /// Gathers `count` chunks of `bytes` bytes in one buffer; how many fit.
    fn check_gather(bytes: usize, count: usize) -> usize {
        let pool = Pool::new();
        let chunk = |number: usize| vec![number as u8; bytes];
        let mut buffer = pool.take(Size::Small);
        buffer[..bytes].copy_from_slice(&chunk(0));
        let mut gather = Gather::default();
        if gather.start(buffer, bytes).is_some() {
            return 0;
        }
        let mut all = chunk(0);
        let mut fit = 1;
        while fit < count
            && let Some(room) = gather.room(bytes)
        {
            room[..bytes].copy_from_slice(&chunk(fit));
            gather.add(bytes);
            all.extend(chunk(fit));
            fit += 1;
        }
        let (buffer, gathered) = gather.take().unwrap();
        assert_eq!(buffer[..gathered], all[..]);
        assert!(gather.is_empty() && gather.room(0).is_none());
        fit
    }

    #[test]
    fn chunks_stand_behind_one_another_as_far_as_they_fit() {
        let small = Size::Small.bytes();
        for (bytes, count, fit) in
            [(100, 3, 3), (3000, 9, 5), (small / 2, 9, 2), (small / 2 + 1, 9, 0), (small / 16, 99, 16)]
        {
            assert_eq!(check_gather(bytes, count), fit, "{bytes} bytes");
        }
    }

    #[test]
    fn a_large_buffer_is_not_kept_and_nothing_is_nothing() {
        let pool = Pool::new();
        let mut gather = Gather::default();
        assert!(gather.start(pool.take(Size::Large), 1).is_some());
        assert!(gather.is_empty());
        assert!(gather.start(pool.take(Size::Small), 0).is_none());
        assert_eq!(gather.take().map(|(_, bytes)| bytes), Some(0));
    }
}
