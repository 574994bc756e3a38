//! Buffers that carry data from the streams to the writer. Their number is fixed, so memory stays bounded for
//! any number of streams. A thread that finds no free buffer waits, and TCP slows its sender down.
//!
//! Deadlock freedom: a stream takes a buffer only when data is readable; a thread that holds a buffer may
//! take a scratch buffer, but not the reverse; the writer takes none.

use std::ops::{Deref, DerefMut};

use crossbeam_channel::{Receiver, Sender, bounded};

/// Size and purpose of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BufferSize {
    /// 16 KiB, for streams with little data.
    Small,
    /// 256 KiB, for streams with much data waiting in the kernel. Larger reads are no cheaper.
    Large,
    /// 64 KiB for stored bytes, while a re-send is compared or copied.
    Scratch,
}

impl BufferSize {
    /// Returns the length of a buffer in bytes.
    pub const fn bytes(self) -> usize {
        match self {
            BufferSize::Small => 16 << 10,
            BufferSize::Large => 256 << 10,
            BufferSize::Scratch => 64 << 10,
        }
    }

    /// Returns the number of buffers: 4 MiB of small, 4 MiB of large, 512 KiB of scratch buffers.
    const fn count(self) -> usize {
        match self {
            BufferSize::Small => 256,
            BufferSize::Large => 16,
            BufferSize::Scratch => 8,
        }
    }
}

/// All buffers of a vault.
#[derive(Debug)]
pub struct BufferPool {
    small: BufferShelf,
    large: BufferShelf,
    scratch: BufferShelf,
}

#[derive(Debug)]
struct BufferShelf {
    back: Sender<Box<[u8]>>,
    free: Receiver<Box<[u8]>>,
}

impl BufferShelf {
    fn new(size: BufferSize) -> BufferShelf {
        let (back, free) = bounded(size.count());
        for _ in 0..size.count() {
            // The kernel provides zeroed pages on first use, so unused buffers need no memory.
            let kept = back.try_send(vec![0; size.bytes()].into_boxed_slice());
            debug_assert!(kept.is_ok(), "the shelf has room for all its buffers");
        }
        BufferShelf { back, free }
    }
}

impl BufferPool {
    /// Allocates all buffers.
    pub fn new() -> BufferPool {
        BufferPool {
            small: BufferShelf::new(BufferSize::Small),
            large: BufferShelf::new(BufferSize::Large),
            scratch: BufferShelf::new(BufferSize::Scratch),
        }
    }

    /// Takes a buffer. Blocks until one is free.
    pub fn take(&self, size: BufferSize) -> Buffer {
        let shelf = match size {
            BufferSize::Small => &self.small,
            BufferSize::Large => &self.large,
            BufferSize::Scratch => &self.scratch,
        };
        let bytes = shelf.free.recv().expect("the shelf keeps a sender itself");
        Buffer { bytes, back: shelf.back.clone() }
    }
}

impl Default for BufferPool {
    fn default() -> BufferPool {
        BufferPool::new()
    }
}

/// A buffer that returns to its pool when dropped.
#[derive(Debug)]
pub struct Buffer {
    bytes: Box<[u8]>,
    back: Sender<Box<[u8]>>,
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // The shelf has room for each of its buffers, so this never blocks. It fails only if the pool is
        // gone.
        let _ = self.back.try_send(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn take_blocks_until_a_buffer_is_returned() {
        let pool = std::sync::Arc::new(BufferPool::new());
        let mut out: Vec<Buffer> =
            (0..BufferSize::Large.count()).map(|_| pool.take(BufferSize::Large)).collect();
        let (got, taken) = bounded(1);
        let taker = std::thread::spawn({
            let pool = pool.clone();
            move || got.send(pool.take(BufferSize::Large).len())
        });
        assert!(taken.recv_timeout(Duration::from_millis(50)).is_err(), "all buffers are in use");
        assert_eq!(pool.take(BufferSize::Small).len(), 16 << 10, "other sizes are not affected");
        out.pop();
        assert_eq!(taken.recv_timeout(Duration::from_secs(10)), Ok(256 << 10));
        taker.join().unwrap().unwrap();
    }
}
