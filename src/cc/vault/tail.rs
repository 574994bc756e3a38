//! The growing end of a stream file: which of the bytes received may go into the file now. Pure.
//!
//! Invariant: `pending` holds exactly the bytes `written..received`, where that is not empty; bytes below `written`
//! are in the file, or on their way to it in order.

use std::ops::Range;

use sha2::Sha256;

use super::midstate;
use super::scan::Scan;
use crate::cc::frame::capture::Follower;

/// Follows a stream, hashes it, and keeps back the packet that has begun.
#[derive(Clone, Debug)]
pub struct Tail {
    scan: Scan,
    written: u64,
    pending: Vec<u8>,
}

/// What may be written now: `head`, then `chunk[body]`, at offset `at` of the file.
#[derive(Debug, PartialEq, Eq)]
pub struct Ready {
    /// Offset in the file.
    pub at: u64,
    /// Bytes that were kept back until now.
    pub head: Vec<u8>,
    /// The part of the chunk that follows them.
    pub body: Range<usize>,
}

impl Tail {
    /// The tail of an empty file.
    pub fn new(hash: bool) -> Tail {
        Tail::resume(Scan::new(hash))
    }

    /// The tail of a file that holds all that was scanned.
    pub fn resume(scan: Scan) -> Tail {
        Tail { written: scan.bytes(), scan, pending: Vec::new() }
    }

    /// Declares that the first `bytes` of the stream stand in the file, whether received yet or not. Only while
    /// nothing is pending.
    pub fn stored(&mut self, bytes: u64) {
        debug_assert!(self.pending.is_empty(), "pending bytes belong to another file");
        self.written = bytes;
    }

    /// Takes the next bytes of the stream; what may be written now, if anything.
    pub fn feed(&mut self, chunk: &[u8]) -> Option<Ready> {
        let chunk_at = self.scan.bytes();
        self.scan.feed(chunk);
        let boundary = self.scan.follower.boundary().max(self.written);
        // Positions in the chunk: before `from` all is stored already, from `to` on the bytes are kept back.
        let from = in_chunk(self.written, chunk_at, chunk.len());
        let to = in_chunk(boundary, chunk_at, chunk.len());
        let ready = (boundary > self.written).then(|| Ready {
            at: std::mem::replace(&mut self.written, boundary),
            // A boundary is only ever found by bytes of this chunk, so all that was kept back goes with it.
            head: std::mem::take(&mut self.pending),
            body: from..to,
        });
        self.pending.extend_from_slice(&chunk[to..]);
        ready
    }

    /// Gives up what is kept back: at the end of the stream, or because too much is waiting.
    pub fn write_through(&mut self) -> Option<Ready> {
        if self.pending.is_empty() {
            return None;
        }
        let head = std::mem::take(&mut self.pending);
        let at = self.written;
        self.written += head.len() as u64;
        Some(Ready { at, head, body: 0..0 })
    }

    /// Bytes that are in the file, or on their way there.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// The bytes kept back.
    pub fn pending(&self) -> &[u8] {
        &self.pending
    }

    /// How many bytes are kept back.
    pub fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    /// The position in the stream and what it contains.
    pub fn follower(&self) -> &Follower {
        &self.scan.follower
    }

    /// Packets and hash after all bytes received so far, to be stored. `hasher` is the hash of a stream whose hash was
    /// [taken](Self::take_hasher).
    pub fn midstate(&self, hasher: Option<Sha256>) -> String {
        match hasher {
            None => midstate::text(&self.scan),
            hasher => midstate::text(&Scan { follower: self.scan.follower.clone(), hasher }),
        }
    }

    /// Takes the hash, for whoever hashes the stream's bytes from now on.
    pub fn take_hasher(&mut self) -> Option<Sha256> {
        self.scan.hasher.take()
    }

    /// SHA-256 of all bytes received so far, in hexadecimal; none with `--hash none`.
    pub fn sha256(&self) -> Option<String> {
        self.scan.sha256()
    }
}

/// Where the stream's position `position` lies in a chunk of `len` bytes that starts at `chunk_at`.
fn in_chunk(position: u64, chunk_at: u64, len: usize) -> usize {
    usize::try_from(position.saturating_sub(chunk_at)).unwrap_or(usize::MAX).min(len)
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::cc::frame::name::hex;

    const CAPTURE: &[u8] = include_bytes!("../../../testdata/pcap/rejected-call.pcap");

    /// Feeds `stream` in chunks of `step` bytes to a file that holds `stored` bytes of it; gives the file.
    fn check_feed(stream: &[u8], step: usize, stored: usize) -> (Vec<u8>, usize) {
        let mut tail = Tail::new(true);
        tail.stored(stored as u64);
        let mut file = stream[..stored].to_vec();
        let mut writes = 0;
        let mut put = |ready: Ready, chunk: &[u8]| {
            assert_eq!(ready.at, file.len() as u64, "writes are in order and without gaps");
            file.extend_from_slice(&ready.head);
            file.extend_from_slice(&chunk[ready.body]);
            writes += 1;
        };
        for chunk in stream.chunks(step) {
            if let Some(ready) = tail.feed(chunk) {
                put(ready, chunk);
            }
        }
        if let Some(ready) = tail.write_through() {
            put(ready, &[]);
        }
        assert_eq!(tail.pending_bytes(), 0);
        assert_eq!(tail.sha256(), Some(hex(&Sha256::digest(stream))));
        (file, writes)
    }

    #[test]
    fn every_split_gives_the_same_file() {
        for step in [1, 2, 3, 7, 16, 24, 40, 100, 1000, CAPTURE.len()] {
            for stored in [0, 1, 24, 100, 600, CAPTURE.len() - 1, CAPTURE.len()] {
                assert_eq!(check_feed(CAPTURE, step, stored).0, CAPTURE, "step {step}, stored {stored}");
            }
        }
    }

    #[test]
    fn a_begun_packet_waits_and_its_end_is_one_write() {
        let (_, writes) = check_feed(CAPTURE, 1, 0);
        // The file header, then a write a packet: never one a byte.
        assert!(writes < 20, "{writes} writes");
    }

    #[test]
    fn what_is_no_capture_goes_as_it_comes() {
        let text = b"no capture at all";
        assert_eq!(check_feed(text, 4, 0), (text.to_vec(), 5));
    }

    #[test]
    fn a_packet_can_be_written_through_and_goes_on() {
        let mut tail = Tail::new(false);
        let first = tail.feed(&CAPTURE[..30]).unwrap();
        assert_eq!((first.at, first.body), (0, 0..24));
        assert_eq!(tail.pending_bytes(), 6);
        assert_eq!(tail.write_through(), Some(Ready { at: 24, head: CAPTURE[24..30].to_vec(), body: 0..0 }));
        let rest = tail.feed(&CAPTURE[30..]).unwrap();
        assert_eq!((rest.at, rest.head.len(), rest.body), (30, 0, 0..CAPTURE.len() - 30));
        assert_eq!(tail.sha256(), None);
    }
}
