//! The buffers between the streams and the writer. There is a fixed number of them, so their memory has a ceiling
//! whatever the number of streams; whoever finds none waits, and TCP slows the sender down meanwhile.
//!
//! A stream takes a buffer only when bytes are there to be read. A thread that holds a buffer may take a scratch
//! buffer, never the other way round, and the writer takes none: so waiting always ends.

use std::ops::{Deref, DerefMut};

use crossbeam_channel::{Receiver, Sender, bounded};

/// What a buffer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Streams that bring little: 16 KiB.
    Small,
    /// Streams with much waiting in the kernel: 256 KiB, where reads stop getting cheaper.
    Large,
    /// Stored bytes, while a re-send is compared or copied: 64 KiB.
    Scratch,
}

impl Size {
    /// Length of such a buffer, in bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Size::Small => 16 << 10,
            Size::Large => 256 << 10,
            Size::Scratch => 64 << 10,
        }
    }

    /// How many there are: 4 MiB of small ones, 4 MiB of large ones, 512 KiB of scratch.
    const fn count(self) -> usize {
        match self {
            Size::Small => 256,
            Size::Large => 16,
            Size::Scratch => 8,
        }
    }
}

/// All buffers of a vault.
#[derive(Debug)]
pub struct Pool {
    small: Shelf,
    large: Shelf,
    scratch: Shelf,
}

#[derive(Debug)]
struct Shelf {
    back: Sender<Box<[u8]>>,
    free: Receiver<Box<[u8]>>,
}

impl Shelf {
    fn new(size: Size) -> Shelf {
        let (back, free) = bounded(size.count());
        for _ in 0..size.count() {
            // Zeroed memory comes untouched from the kernel: a buffer costs nothing until its first use.
            let kept = back.try_send(vec![0; size.bytes()].into_boxed_slice());
            debug_assert!(kept.is_ok(), "the shelf has room for all its buffers");
        }
        Shelf { back, free }
    }
}

impl Pool {
    /// Makes all buffers.
    pub fn new() -> Pool {
        Pool {
            small: Shelf::new(Size::Small),
            large: Shelf::new(Size::Large),
            scratch: Shelf::new(Size::Scratch),
        }
    }

    /// Takes a buffer, waiting until one comes back if all are out.
    pub fn take(&self, size: Size) -> Buffer {
        let shelf = match size {
            Size::Small => &self.small,
            Size::Large => &self.large,
            Size::Scratch => &self.scratch,
        };
        let bytes = shelf.free.recv().expect("the shelf itself holds a sender");
        Buffer { bytes, back: shelf.back.clone() }
    }
}

impl Default for Pool {
    fn default() -> Pool {
        Pool::new()
    }
}

/// A buffer that goes back to its pool when it is dropped.
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
        // The shelf has room for each of its buffers, so this never blocks and fails only if the pool is gone.
        let _ = self.back.try_send(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_taker_waits_until_a_buffer_comes_back() {
        let pool = std::sync::Arc::new(Pool::new());
        let mut out: Vec<Buffer> = (0..Size::Large.count()).map(|_| pool.take(Size::Large)).collect();
        let (got, taken) = bounded(1);
        let taker = std::thread::spawn({
            let pool = pool.clone();
            move || got.send(pool.take(Size::Large).len())
        });
        assert!(taken.recv_timeout(Duration::from_millis(50)).is_err(), "all buffers are out");
        assert_eq!(pool.take(Size::Small).len(), 16 << 10, "the other shelf is not concerned");
        out.pop();
        assert_eq!(taken.recv_timeout(Duration::from_secs(10)), Ok(256 << 10));
        taker.join().unwrap().unwrap();
    }
}
