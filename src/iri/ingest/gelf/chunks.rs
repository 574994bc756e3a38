//! Puts the chunks of GELF messages together. Pure; the time is an argument.
//!
//! A chunk has a head of 12 bytes: 0x1e 0x0f, the ID of the message (8 bytes), the number of the chunk and the number of chunks.
//! The chunks of a message may come in any order. Nobody says when a message is given up, so it is after [`LIFETIME`].
//!
//! Invariant: incomplete messages have limits, together and per peer.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::runtime::net::peers::peer_key;

const MAGIC: &[u8] = &[0x1e, 0x0f];
const HEAD_BYTES: usize = 12;

/// Maximum number of chunks of a message.
const CHUNKS_MAX: usize = 128;

/// Maximum size of a message.
const MESSAGE_BYTES_MAX: usize = super::MESSAGE_BYTES_MAX;

/// Time after the first chunk in which a message must be complete, as in Graylog.
const LIFETIME: Duration = Duration::from_secs(5);

/// Time between two scans of all incomplete messages while there is no room.
const SCAN_INTERVAL: Duration = Duration::from_millis(100);

/// Limits on incomplete messages: together, and of one peer.
const MESSAGES_MAX: usize = 4_096;
const MESSAGES_OF_PEER_MAX: usize = 1_024;
const BYTES_MAX: usize = 16 << 20;
const BYTES_OF_PEER_MAX: usize = 4 << 20;

/// What a datagram leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Chunks {
    /// The datagram is a message.
    NotChunked,
    /// The message is complete.
    Complete(Vec<u8>),
    /// Other chunks are missing, or the message was given up.
    Incomplete,
    Malformed,
}

struct PartialMessage {
    chunks: Vec<Option<Box<[u8]>>>,
    missing: usize,
    bytes: usize,
    since: Instant,
}

#[derive(Clone, Copy, Default)]
struct PeerUse {
    messages: usize,
    bytes: usize,
}

/// Incomplete messages of all peers.
#[derive(Default)]
pub(super) struct ChunkAssembler {
    /// By the address of the peer and the ID.
    messages: HashMap<(SocketAddr, [u8; 8]), PartialMessage>,
    peers: HashMap<IpAddr, PeerUse>,
    bytes: usize,
    /// When old messages were last looked for.
    scanned_at: Option<Instant>,
}

impl ChunkAssembler {
    /// Adds a datagram. The number says how many messages were given up for lack of room or time.
    pub(super) fn add(&mut self, datagram: &[u8], peer: SocketAddr, now: Instant) -> (Chunks, u64) {
        if !datagram.starts_with(MAGIC) {
            return (Chunks::NotChunked, 0);
        }
        let Some((head, part)) = datagram.split_at_checked(HEAD_BYTES) else { return (Chunks::Malformed, 0) };
        let (nth, count) = (usize::from(head[10]), usize::from(head[11]));
        if !(1..=CHUNKS_MAX).contains(&count) || nth >= count {
            return (Chunks::Malformed, 0);
        }
        let mut id = [0; 8];
        id.copy_from_slice(&head[2..10]);
        let key = (peer, id);
        let of_peer = self.peers.get(&peer_key(peer.ip())).copied().unwrap_or_default();
        let mut dropped = 0;
        if self.messages.len() >= MESSAGES_MAX || self.bytes + part.len() > BYTES_MAX {
            let is_due = self.scanned_at.is_none_or(|at| now.duration_since(at) >= SCAN_INTERVAL);
            dropped = if is_due { self.forget_old(now) } else { 0 };
        }
        let is_new = !self.messages.contains_key(&key);
        let has_room = self.bytes + part.len() <= BYTES_MAX
            && of_peer.bytes + part.len() <= BYTES_OF_PEER_MAX
            && !(is_new && (self.messages.len() >= MESSAGES_MAX || of_peer.messages >= MESSAGES_OF_PEER_MAX));
        if !has_room {
            dropped += 1;
            self.remove(&key);
            return (Chunks::Incomplete, dropped);
        }
        if is_new {
            let chunks = vec![None; count];
            self.messages.insert(key, PartialMessage { chunks, missing: count, bytes: 0, since: now });
            self.peers.entry(peer_key(peer.ip())).or_default().messages += 1;
        }
        let message = self.messages.get_mut(&key).expect("it was found or inserted");
        match message.chunks.get_mut(nth) {
            // The network may duplicate a datagram.
            Some(Some(_)) => return (Chunks::Incomplete, dropped),
            Some(chunk) if message.bytes + part.len() <= MESSAGE_BYTES_MAX => *chunk = Some(part.into()),
            // Another number of chunks, or a message that is too long.
            _ => {
                self.remove(&key);
                return (Chunks::Malformed, dropped);
            }
        }
        message.missing -= 1;
        message.bytes += part.len();
        let is_complete = message.missing == 0;
        self.bytes += part.len();
        self.peers.entry(peer_key(peer.ip())).or_default().bytes += part.len();
        let complete = if is_complete { self.remove(&key) } else { None };
        match complete {
            Some(message) => {
                (Chunks::Complete(message.chunks.into_iter().flatten().flatten().collect()), dropped)
            }
            None => (Chunks::Incomplete, dropped),
        }
    }

    /// Gives up messages that are too old. Returns their number.
    pub(super) fn forget_old(&mut self, now: Instant) -> u64 {
        self.scanned_at = Some(now);
        let is_old = |message: &PartialMessage| now.duration_since(message.since) >= LIFETIME;
        let old: Vec<_> =
            self.messages.iter().filter(|(_, message)| is_old(message)).map(|(key, _)| *key).collect();
        old.iter().for_each(|key| drop(self.remove(key)));
        old.len() as u64
    }

    fn remove(&mut self, key: &(SocketAddr, [u8; 8])) -> Option<PartialMessage> {
        let message = self.messages.remove(key)?;
        self.bytes -= message.bytes;
        let peer = peer_key(key.0.ip());
        if let Some(of_peer) = self.peers.get_mut(&peer) {
            of_peer.messages -= 1;
            of_peer.bytes -= message.bytes;
            if of_peer.messages == 0 {
                self.peers.remove(&peer);
            }
        }
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(id: u64, nth: u8, count: u8, part: &[u8]) -> Vec<u8> {
        [MAGIC, &id.to_be_bytes(), &[nth, count], part].concat()
    }

    fn peer(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 5))
    }

    #[test]
    fn chunks_in_any_order_make_a_message() {
        let (mut assembler, now) = (ChunkAssembler::default(), Instant::now());
        assert_eq!(assembler.add(b"{}", peer(1), now), (Chunks::NotChunked, 0));
        assert_eq!(assembler.add(&chunk(7, 2, 3, b"c"), peer(1), now), (Chunks::Incomplete, 0));
        assert_eq!(
            assembler.add(&chunk(7, 2, 3, b"c"), peer(1), now),
            (Chunks::Incomplete, 0),
            "a duplicate"
        );
        assert_eq!(
            assembler.add(&chunk(7, 1, 3, b"x"), peer(2), now),
            (Chunks::Incomplete, 0),
            "another peer"
        );
        assert_eq!(assembler.add(&chunk(7, 0, 3, b"a"), peer(1), now), (Chunks::Incomplete, 0));
        assert_eq!(
            assembler.add(&chunk(7, 1, 3, b"b"), peer(1), now),
            (Chunks::Complete(b"abc".to_vec()), 0)
        );
        assert_eq!(assembler.add(&chunk(8, 0, 1, b"z"), peer(1), now), (Chunks::Complete(b"z".to_vec()), 0));
        assert_eq!((assembler.messages.len(), assembler.bytes), (1, 1));
    }

    #[test]
    fn malformed_chunks_are_rejected() {
        let (mut assembler, now) = (ChunkAssembler::default(), Instant::now());
        let short = &chunk(1, 0, 1, b"")[..11];
        for datagram in [short, &chunk(1, 0, 0, b"a"), &chunk(1, 1, 1, b"a"), &chunk(1, 0, 129, b"a"), MAGIC]
        {
            assert_eq!(assembler.add(datagram, peer(1), now), (Chunks::Malformed, 0));
        }
        assert_eq!(assembler.add(&chunk(1, 0, 2, b"a"), peer(1), now), (Chunks::Incomplete, 0));
        assert_eq!(assembler.add(&chunk(1, 4, 5, b"a"), peer(1), now), (Chunks::Malformed, 0));
        assert_eq!((assembler.messages.len(), assembler.bytes, assembler.peers.len()), (0, 0, 0));
    }

    #[test]
    fn a_message_that_stays_incomplete_is_given_up() {
        let (mut assembler, now) = (ChunkAssembler::default(), Instant::now());
        assembler.add(&chunk(1, 0, 2, b"a"), peer(1), now);
        assert_eq!(assembler.forget_old(now + LIFETIME / 2), 0);
        assert_eq!(assembler.forget_old(now + LIFETIME), 1);
        assert_eq!(assembler.add(&chunk(1, 1, 2, b"b"), peer(1), now), (Chunks::Incomplete, 0));
    }

    #[test]
    fn a_peer_cannot_use_the_room_of_others() {
        let (mut assembler, now) = (ChunkAssembler::default(), Instant::now());
        let part = vec![b'x'; 8_000];
        let mut dropped = 0;
        for id in 0..2_000 {
            dropped += assembler.add(&chunk(id, 0, 128, &part), peer(1), now).1;
        }
        assert!(dropped > 0 && assembler.bytes <= BYTES_OF_PEER_MAX);
        assert_eq!(assembler.add(&chunk(1, 0, 2, &part), peer(2), now), (Chunks::Incomplete, 0));
        assert!(matches!(assembler.add(&chunk(1, 1, 2, &part), peer(2), now), (Chunks::Complete(_), 0)));
        for id in 0..10_000 {
            assembler.add(&chunk(id, 0, 2, b""), peer(3), now);
        }
        assert!(assembler.messages.len() <= MESSAGES_MAX);
        for last in 4..=255 {
            for id in 0..600 {
                assembler.add(&chunk(id, 0, 128, &part), peer(last), now);
            }
        }
        assert!(assembler.bytes <= BYTES_MAX && assembler.messages.len() <= MESSAGES_MAX);
        assembler.forget_old(now + LIFETIME);
        assert_eq!((assembler.messages.len(), assembler.bytes, assembler.peers.len()), (0, 0, 0));
    }
}
