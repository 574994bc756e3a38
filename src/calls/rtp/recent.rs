//! Copies of packets that a capture has twice, because a mirror port or the `any` interface delivered them twice.

use serde::{Deserialize, Serialize};

use super::stream::RtpPacket;

/// Packets that are remembered. At 50 packets per second there is 1 in [`COPY_WINDOW_NS`]; 16 are enough for 800 per
/// second, which is more than video of conferences has.
const RECENT_PACKETS: usize = 16;

/// Longest time between a packet and its copy. Mirrors and bridges copy within microseconds; a packet that the network
/// duplicated usually has the same IP identification too, but a resend of the sender does not.
const COPY_WINDOW_NS: i64 = 20_000_000;

/// Units of [`Recent::time`] per nanosecond, as a shift: 1,024 ns, which wraps after 73 minutes.
const TIME_SHIFT: u32 = 10;

/// Multiplier with well mixed bits: the golden ratio times 2^64.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Recent {
    time: u32,
    /// Of sequence number, timestamp, length and IP identification, and if that does not help, of the ends of the payload. 0 is
    /// empty.
    digest: u32,
}

impl Recent {
    /// Whether there is an earlier packet, and it is at most 20 ms away.
    #[inline]
    fn is_near(self, before: Recent) -> bool {
        let age = (self.time.wrapping_sub(before.time) as i32).unsigned_abs();
        age <= (COPY_WINDOW_NS >> TIME_SHIFT) as u32 && before.digest != 0
    }
}

/// The last packets of a stream, by the low bits of the sequence number.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct RecentPackets {
    packets: [Recent; RECENT_PACKETS],
    /// Packets that were displaced while a copy of them could still have come.
    displaced: u32,
}

impl RecentPackets {
    /// Remembers the packet, unless it is a copy of one that is remembered. Returns whether it is.
    #[inline]
    pub(crate) fn is_copy(&mut self, packet: &RtpPacket<'_>) -> bool {
        let recent = Recent { time: (packet.time_ns >> TIME_SHIFT) as u32, digest: digest(packet) };
        let index = usize::from(packet.header.sequence) % RECENT_PACKETS;
        let before = self.packets[index];
        if recent.is_near(before) {
            return before.digest == recent.digest || self.is_copy_at_second_place(index, recent);
        }
        self.replace(index, recent);
        false
    }

    /// Does the same for a packet whose place is taken: by a duplicate, whose copies have to be known too, or because many
    /// packets come.
    #[cold]
    fn is_copy_at_second_place(&mut self, index: usize, recent: Recent) -> bool {
        let index = (index + RECENT_PACKETS / 2) % RECENT_PACKETS;
        let before = self.packets[index];
        if recent.is_near(before) && before.digest == recent.digest {
            return true;
        }
        self.replace(index, recent);
        false
    }

    #[inline]
    fn replace(&mut self, index: usize, recent: Recent) {
        let is_displaced = recent.is_near(self.packets[index]);
        self.displaced = self.displaced.saturating_add(is_displaced.into());
        self.packets[index] = recent;
    }

    /// Number of packets whose copies may have been taken for duplicates, because too many came within 20 ms.
    pub(crate) fn displaced(&self) -> u32 {
        self.displaced
    }
}

/// Digest of what two copies have in common. Linux sends 0 as IP identification of unfragmentable packets and IPv6 has
/// none; then the payload has to tell. Its ends are enough, as sequence number and timestamp are equal already.
#[inline]
fn digest(packet: &RtpPacket<'_>) -> u32 {
    let header = &packet.header;
    let ids = u64::from(header.sequence) << 16 | u64::from(packet.ip_id);
    let mut hash = (u64::from(header.payload_bytes()) << 32 | u64::from(header.timestamp)).wrapping_mul(MIX);
    hash = (hash.rotate_left(32) ^ ids).wrapping_mul(MIX);
    if packet.ip_id == 0 {
        if let Some(head) = packet.payload.first_chunk::<8>() {
            hash = (hash ^ u64::from_le_bytes(*head)).wrapping_mul(MIX);
        }
        if let Some(tail) = packet.payload.last_chunk::<8>() {
            hash = (hash.rotate_left(32) ^ u64::from_le_bytes(*tail)).wrapping_mul(MIX);
        }
    }
    (hash >> 32) as u32 | 1
}

#[cfg(test)]
mod tests {
    use super::super::header::RtpHeader;
    use super::*;

    fn is_copy(packets: &mut RecentPackets, sequence: u16, ip_id: u16, time_ns: i64) -> bool {
        let [high, low] = sequence.to_be_bytes();
        let data = [0x80, 8, high, low, 0, 0, 0, 0, 0, 0, 0, 0, 0x55];
        let header = RtpHeader::parse(&data, data.len()).unwrap();
        packets.is_copy(&RtpPacket { time_ns, ip_id, header, payload: header.payload(&data) })
    }

    #[test]
    fn copies_of_a_packet_and_of_its_duplicate_are_known() {
        let mut packets = RecentPackets::default();
        let copies: Vec<bool> =
            [3, 4, 3, 4, 5].iter().map(|&id| is_copy(&mut packets, 7, id, 1_000)).collect();
        assert_eq!(copies, [false, false, true, true, false]);
    }

    #[test]
    fn sixteen_packets_within_20_ms_are_remembered_and_the_seventeenth_displaces_one() {
        let mut packets = RecentPackets::default();
        for sequence in 0..16 {
            assert!(!is_copy(&mut packets, sequence, sequence, 0));
        }
        assert!(is_copy(&mut packets, 0, 0, COPY_WINDOW_NS) && packets.displaced() == 0);
        assert!(!is_copy(&mut packets, 16, 16, COPY_WINDOW_NS));
        assert_eq!(packets.displaced(), 1);
        assert!(!is_copy(&mut packets, 8, 8, COPY_WINDOW_NS), "it was displaced");
    }

    #[test]
    fn the_clock_may_step_back_between_copies() {
        let mut packets = RecentPackets::default();
        assert!(!is_copy(&mut packets, 1, 1, 10_000_000));
        assert!(is_copy(&mut packets, 1, 1, 9_000_000));
        assert!(!is_copy(&mut packets, 1, 1, -12_000_000));
    }
}
