//! Decides which received bytes can be written to the file now, so that files end at packet boundaries. Pure.
//!
//! Invariant: `pending` holds exactly the bytes from `written_bytes` to the number of received bytes. All
//! bytes before are in the file or queued in order.

use std::ops::Range;

use sha2::Sha256;

use super::resume_state;
use super::scan::FileScan;
use crate::capture::tracker::PacketTracker;

/// Tracks and hashes a stream and holds back its partial packet.
#[derive(Clone, Debug)]
pub(crate) struct PacketAligner {
    scan: FileScan,
    written_bytes: u64,
    pending: Vec<u8>,
}

/// Bytes that can be written now: `head`, then `chunk[body]`, at offset `at` of the file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PendingWrite {
    /// Offset in the file.
    pub at: u64,
    /// Bytes that were held back until now.
    pub head: Vec<u8>,
    /// Range of the chunk that follows them.
    pub body: Range<usize>,
}

impl PacketAligner {
    /// Creates the aligner of an empty file.
    pub(crate) fn new(hash: bool) -> PacketAligner {
        PacketAligner::resume(FileScan::new(hash))
    }

    /// Creates the aligner of a file with the scanned contents.
    pub(crate) fn resume(scan: FileScan) -> PacketAligner {
        PacketAligner { written_bytes: scan.bytes(), scan, pending: Vec::new() }
    }

    /// Declares that the first `bytes` bytes of the stream are already in the file, even if they are not
    /// received yet. Must not be called while a partial packet is held.
    pub(crate) fn mark_stored(&mut self, bytes: u64) {
        debug_assert!(self.pending.is_empty(), "pending bytes would belong to another file");
        self.written_bytes = bytes;
    }

    /// Accepts the next bytes of the stream. Returns the bytes that can be written now, if any.
    pub(crate) fn feed(&mut self, chunk: &[u8]) -> Option<PendingWrite> {
        let chunk_at = self.scan.bytes();
        self.scan.feed(chunk);
        let boundary = self.scan.tracker.packet_boundary().max(self.written_bytes);
        // Positions in the chunk: bytes before `from` are already stored, bytes from `to` on are held back.
        let from = position_in_chunk(self.written_bytes, chunk_at, chunk.len());
        let to = position_in_chunk(boundary, chunk_at, chunk.len());
        let write = (boundary > self.written_bytes).then(|| PendingWrite {
            at: std::mem::replace(&mut self.written_bytes, boundary),
            // A new boundary always lies in this chunk, so all bytes held back are before it.
            head: std::mem::take(&mut self.pending),
            body: from..to,
        });
        self.pending.extend_from_slice(&chunk[to..]);
        write
    }

    /// Releases the partial packet: at the end of the stream, or to free memory.
    pub(crate) fn flush(&mut self) -> Option<PendingWrite> {
        if self.pending.is_empty() {
            return None;
        }
        let head = std::mem::take(&mut self.pending);
        let at = self.written_bytes;
        self.written_bytes += head.len() as u64;
        Some(PendingWrite { at, head, body: 0..0 })
    }

    /// Returns the number of bytes that are in the file or queued.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Returns the partial packet.
    pub(crate) fn pending(&self) -> &[u8] {
        &self.pending
    }

    /// Returns the size of the partial packet.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    pub(crate) fn tracker(&self) -> &PacketTracker {
        &self.scan.tracker
    }

    /// Encodes the packet position and the hash after all received bytes. `hasher` replaces a hash that was
    /// [taken](Self::take_hasher).
    pub(crate) fn resume_state(&self, hasher: Option<Sha256>) -> String {
        match hasher {
            None => resume_state::encode(&self.scan),
            hasher => resume_state::encode(&FileScan { tracker: self.scan.tracker.clone(), hasher }),
        }
    }

    /// Takes the hash, so that another thread can continue it.
    pub(crate) fn take_hasher(&mut self) -> Option<Sha256> {
        self.scan.hasher.take()
    }

    /// Returns the SHA-256 of all received bytes in hexadecimal. `None` without hashing.
    pub(crate) fn sha256(&self) -> Option<String> {
        self.scan.sha256()
    }
}

/// Returns the index of stream position `position` in a chunk of `len` bytes that starts at `chunk_at`.
fn position_in_chunk(position: u64, chunk_at: u64, len: usize) -> usize {
    usize::try_from(position.saturating_sub(chunk_at)).unwrap_or(usize::MAX).min(len)
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::runtime::hex;

    const CAPTURE: &[u8] = include_bytes!("../../../testdata/pcap/rejected-call.pcap");

    /// Feeds `stream` in chunks of `step` bytes to a file that already has `stored` bytes. Returns the file
    /// and the number of writes.
    fn check_feed(stream: &[u8], step: usize, stored: usize) -> (Vec<u8>, usize) {
        let mut aligner = PacketAligner::new(true);
        aligner.mark_stored(stored as u64);
        let mut file = stream[..stored].to_vec();
        let mut writes = 0;
        let mut put = |write: PendingWrite, chunk: &[u8]| {
            assert_eq!(write.at, file.len() as u64, "writes are in order and without gaps");
            file.extend_from_slice(&write.head);
            file.extend_from_slice(&chunk[write.body]);
            writes += 1;
        };
        for chunk in stream.chunks(step) {
            if let Some(write) = aligner.feed(chunk) {
                put(write, chunk);
            }
        }
        if let Some(write) = aligner.flush() {
            put(write, &[]);
        }
        assert_eq!(aligner.pending_bytes(), 0);
        assert_eq!(aligner.sha256(), Some(hex::encode(&Sha256::digest(stream))));
        (file, writes)
    }

    #[test]
    fn every_chunk_length_gives_the_same_file() {
        for step in [1, 2, 3, 7, 16, 24, 40, 100, 1000, CAPTURE.len()] {
            for stored in [0, 1, 24, 100, 600, CAPTURE.len() - 1, CAPTURE.len()] {
                assert_eq!(check_feed(CAPTURE, step, stored).0, CAPTURE, "step {step}, stored {stored}");
            }
        }
    }

    #[test]
    fn a_partial_packet_is_held_back_and_then_written_once() {
        let (_, writes) = check_feed(CAPTURE, 1, 0);
        // One write for the file header and one per packet, not one per byte.
        assert!(writes < 20, "{writes} writes");
    }

    #[test]
    fn a_stream_without_packets_is_written_immediately() {
        let text = b"no capture at all";
        assert_eq!(check_feed(text, 4, 0), (text.to_vec(), 5));
    }

    #[test]
    fn a_flushed_partial_packet_can_continue() {
        let mut aligner = PacketAligner::new(false);
        let first = aligner.feed(&CAPTURE[..30]).unwrap();
        assert_eq!((first.at, first.body), (0, 0..24));
        assert_eq!(aligner.pending_bytes(), 6);
        assert_eq!(
            aligner.flush(),
            Some(PendingWrite { at: 24, head: CAPTURE[24..30].to_vec(), body: 0..0 })
        );
        let rest = aligner.feed(&CAPTURE[30..]).unwrap();
        assert_eq!((rest.at, rest.head.len(), rest.body), (30, 0, 0..CAPTURE.len() - 30));
        assert_eq!(aligner.sha256(), None);
    }
}
