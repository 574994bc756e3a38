//! Reassembly of fragmented IPv4 and IPv6 datagrams.
//!
//! Fragments arrive in any order, repeated and overlapping. The bytes that arrived first win. A datagram is complete if its
//! pieces, which never overlap, leave no hole.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::ip::{IpPacket, peel_payload};
use super::lru_table::LruTable;
use super::{Depth, Fragment, PacketCounters, Peeled};
use crate::calls::endpoint::PacketPlace;

/// Age at which an incomplete datagram is dropped. RFC 1122 section 3.3.2 recommends 60 to 120 s, RFC 8200 section 4.5
/// requires 60 s. Linux drops after 30 s (`net.ipv4.ipfrag_time`), and a shorter time mixes fewer datagrams whose
/// identification is the same.
const INCOMPLETE_NS_MAX: u64 = 30_000_000_000;
/// Time after a datagram's completion in which further fragments of it are copies of the capture (mirror ports).
const COPIES_NS_MAX: u64 = 20_000_000;
/// Most datagrams that are incomplete at once: about 1 s of fragmented INVITEs of a large exchange.
const DATAGRAMS_MAX: usize = 4096;
/// Most completed datagrams that are remembered to recognise copies: 20 ms at 50,000 datagrams/s.
const COMPLETED_MAX: usize = 1024;
/// Most bytes of all incomplete datagrams.
const BYTES_MAX: usize = 16 * 1024 * 1024;
/// Longest payload of a datagram: the length fields of IPv4 and IPv6 have 16 bits.
const DATAGRAM_BYTES_MAX: u32 = 65_535;
/// Most pieces of one datagram. With the smallest MTU of IPv4 (68 bytes) there are 1,366.
const PIECES_MAX: usize = 2048;
/// Memory of an entry besides its bytes and pieces, rounded up.
const ENTRY_BYTES: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Key {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    id: u32,
}

/// Range of the datagram's payload, and where its bytes are in [`Partial::bytes`].
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Piece {
    start: u32,
    end: u32,
    at: u32,
}

/// Datagram of which at least one fragment was received.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Partial {
    first: PacketPlace,
    /// Bytes of the pieces, in the order of arrival.
    bytes: Vec<u8>,
    /// In the order of their offsets, without overlap.
    pieces: Vec<Piece>,
    /// Length of the whole payload, as told by the last fragment.
    total: Option<u32>,
    encapsulations: u8,
}

/// Reassembled payload of an IP datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Datagram {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    pub id: u32,
    pub bytes: Vec<u8>,
    /// Packets that arrived first and last.
    pub first: PacketPlace,
    pub last: PacketPlace,
    /// Encapsulations around it, and one for the reassembly itself.
    encapsulations: u8,
}

impl Datagram {
    pub(crate) fn peel(&self) -> Peeled<'_> {
        let packet = IpPacket {
            source: self.source,
            destination: self.destination,
            protocol: self.protocol,
            id: if self.source.is_ipv4() { self.id as u16 } else { 0 },
            payload: &self.bytes,
            missing_bytes: 0,
        };
        Depth(self.encapsulations)
            .deeper()
            .and_then(|depth| peel_payload(packet, depth))
            .unwrap_or_else(Peeled::Other)
    }
}

/// Table of incomplete datagrams, in the order of their first fragment.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Fragments {
    table: LruTable<Key, Partial>,
    /// Times at which the last datagrams were completed.
    completed: LruTable<Key, i64>,
    /// Memory of all entries.
    bytes: usize,
}

impl Fragments {
    /// Adds a fragment. Returns the datagram if it is complete now.
    pub(crate) fn add(
        &mut self,
        place: PacketPlace,
        fragment: &Fragment<'_>,
        counters: &mut PacketCounters,
    ) -> Option<Datagram> {
        self.drop_old(place.time_ns, counters);
        if !is_acceptable(fragment, counters) {
            return None;
        }
        let key = Key {
            source: fragment.source,
            destination: fragment.destination,
            protocol: fragment.protocol,
            id: fragment.id,
        };
        if self.is_copy(&key, place.time_ns) {
            counters.fragments_repeated += 1;
            return None;
        }
        if self.table.get_mut(&key).is_none() {
            self.table.insert(key, Partial::new(place));
            self.bytes += ENTRY_BYTES;
        }
        let partial = self.table.get_mut(&key)?;
        let memory_before = partial.memory();
        let outcome = partial.add(fragment, counters);
        self.bytes = (self.bytes + partial.memory()).saturating_sub(memory_before);
        let datagram = partial.complete(&key, place);
        if datagram.is_some() {
            counters.datagrams_reassembled += 1;
            self.remember(key, place.time_ns);
        }
        if outcome.is_err() {
            counters.fragment_pieces_over_limit += 1;
        }
        if outcome.is_err() || datagram.is_some() {
            self.remove(&key);
        }
        self.drop_over_limit(counters);
        datagram
    }

    /// Reports whether a datagram with this identification was completed a moment ago.
    fn is_copy(&mut self, key: &Key, now_ns: i64) -> bool {
        self.completed.get_mut(key).is_some_and(|time_ns| time_ns.abs_diff(now_ns) <= COPIES_NS_MAX)
    }

    fn remember(&mut self, key: Key, now_ns: i64) {
        self.completed.insert(key, now_ns);
        if self.completed.len() > COMPLETED_MAX {
            self.completed.remove_oldest();
        }
    }

    /// Drops datagrams that are too old. Times of a capture step back too, so the difference counts in both directions.
    fn drop_old(&mut self, now_ns: i64, counters: &mut PacketCounters) {
        while let Some((key, partial)) = self.table.oldest() {
            if partial.first.time_ns.abs_diff(now_ns) <= INCOMPLETE_NS_MAX {
                return;
            }
            counters.datagrams_incomplete += 1;
            let key = *key;
            self.remove(&key);
        }
    }

    fn drop_over_limit(&mut self, counters: &mut PacketCounters) {
        while self.table.len() > DATAGRAMS_MAX || self.bytes > BYTES_MAX {
            let Some((key, _)) = self.table.oldest() else { return };
            counters.datagrams_over_limit += 1;
            let key = *key;
            self.remove(&key);
        }
    }

    fn remove(&mut self, key: &Key) {
        if let Some(partial) = self.table.remove(key) {
            self.bytes = self.bytes.saturating_sub(partial.memory() + ENTRY_BYTES);
        }
    }
}

/// Checks offset and length.
fn is_acceptable(fragment: &Fragment<'_>, counters: &mut PacketCounters) -> bool {
    // The datagram could never be completed.
    if fragment.is_cut {
        counters.fragments_cut += 1;
        return false;
    }
    let payload_bytes = fragment.payload.len();
    let is_too_long = payload_bytes > (DATAGRAM_BYTES_MAX.saturating_sub(fragment.offset)) as usize;
    // All fragments but the last have a multiple of 8 bytes.
    if payload_bytes == 0 || is_too_long || (fragment.more && !payload_bytes.is_multiple_of(8)) {
        counters.fragments_malformed += 1;
        return false;
    }
    true
}

/// More pieces than [`PIECES_MAX`].
struct TooManyPieces;

impl Partial {
    fn new(first: PacketPlace) -> Partial {
        let (bytes, pieces) = (Vec::new(), Vec::new());
        Partial { first, bytes, pieces, total: None, encapsulations: 0 }
    }

    /// Bytes that it keeps. The allocations are at most twice as large.
    fn memory(&self) -> usize {
        self.bytes.len() + self.pieces.len() * size_of::<Piece>()
    }

    fn add(&mut self, fragment: &Fragment<'_>, counters: &mut PacketCounters) -> Result<(), TooManyPieces> {
        let start = fragment.offset;
        let end = start + fragment.payload.len() as u32;
        let highest = self.pieces.last().map_or(0, |piece| piece.end);
        let contradicts = match self.total {
            Some(total) => end > total || (!fragment.more && end != total),
            None => !fragment.more && highest > end,
        };
        if contradicts {
            counters.fragments_malformed += 1;
            return Ok(());
        }
        if !fragment.more {
            self.total = Some(end);
        }
        self.encapsulations = self.encapsulations.max(fragment.encapsulations);
        let bytes_before = self.bytes.len();
        self.insert(start, end, fragment.payload)?;
        counters.fragments_repeated += u64::from(self.bytes.len() == bytes_before);
        Ok(())
    }

    /// Inserts those bytes of the range that no piece has.
    fn insert(&mut self, start: u32, end: u32, payload: &[u8]) -> Result<(), TooManyPieces> {
        let mut from = start;
        let mut at = self.pieces.partition_point(|piece| piece.end <= start);
        while from < end {
            let next = self.pieces.get(at).copied();
            let to = next.map_or(end, |piece| piece.start.min(end));
            if from < to {
                if self.pieces.len() >= PIECES_MAX {
                    return Err(TooManyPieces);
                }
                let piece = Piece { start: from, end: to, at: self.bytes.len() as u32 };
                let new = payload.get((from - start) as usize..(to - start) as usize);
                self.bytes.extend_from_slice(new.unwrap_or_default());
                self.pieces.insert(at, piece);
                at += 1;
            }
            match next {
                Some(piece) => from = piece.end,
                None => break,
            }
            at += 1;
        }
        Ok(())
    }

    /// Returns the datagram if there is no hole.
    fn complete(&self, key: &Key, last: PacketPlace) -> Option<Datagram> {
        let total = self.total?;
        // Pieces do not overlap, so this is quick and exact; the walk below repeats it by offsets.
        if self.bytes.len() != total as usize {
            return None;
        }
        let mut bytes = Vec::with_capacity(total as usize);
        for piece in &self.pieces {
            let at = piece.at as usize;
            if piece.start as usize != bytes.len() {
                return None;
            }
            bytes.extend_from_slice(self.bytes.get(at..at + (piece.end - piece.start) as usize)?);
        }
        Some(Datagram {
            source: key.source,
            destination: key.destination,
            protocol: key.protocol,
            id: key.id,
            bytes,
            first: self.first,
            last,
            encapsulations: self.encapsulations,
        })
    }
}

#[cfg(test)]
#[path = "fragments_tests.rs"]
mod tests;
