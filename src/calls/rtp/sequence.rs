//! Sequence numbers of a stream: lost, duplicate and reordered packets, and restarts of the sender.
//!
//! Loss is the number of sequence numbers between the first and the highest that never arrived. A number is lost for good
//! when it is 512 behind the highest; until then a late packet may fill it, so runs of lost packets are counted when they
//! leave the window. (Wireshark computes `lost = expected - received`, with duplicates in `received`: there a duplicate
//! hides a lost packet.)

use serde::{Deserialize, Serialize};

/// Sequence numbers that are remembered: 10 s at 50 packets per second.
const WINDOW: u64 = 512;

/// Longest gap forward that is loss without further proof. MAX_DROPOUT of RFC 3550 appendix A.1.
const MAX_DROPOUT: i64 = 3_000;

/// Packets at the start of a segment that may be late: the lowest of them is the base of the count.
const BASE_PACKETS: u8 = 16;

/// A jump is a restart if another packet comes at most so far from it.
const CONFIRM_DISTANCE: u16 = 16;

/// A packet that comes later than this after its turn is not a straggler of the network but the start of the sequence anew,
/// as when a test tool plays the same file again. 2 s at 50 packets per second is MAX_MISORDER of RFC 3550 appendix A.1.
const MAX_AGE_NS: i64 = 2_000_000_000;

/// Timestamps may go against the sequence by this number of ticks: B-frames of video (1 s at 90 kHz).
const TIMESTAMP_SLACK: i64 = 90_000;

/// Ticks that pass between two packets at the highest clock in use (96 kHz), beyond the time that passed in the capture:
/// 2 s, for jitter and for captures whose times are coarse.
const TICKS_SLACK: i64 = 192_000;

/// Nanoseconds of a tick of 96 kHz, rounded down.
const TICK_NS: i64 = 10_416;

/// Where in the sequence a packet was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// After the highest, with this number of packets missing between them.
    Next {
        missing: u32,
    },
    /// Filled a gap, or came before the first.
    Reordered,
    Duplicate,
    /// Far from the sequence. The next packet tells whether the sender restarted.
    Held,
    /// The sender restarted with the held packet; this one confirms it.
    Restart,
    /// Before the base, after the base was settled.
    Stray,
}

/// Packet that may be the first after a restart.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct HeldPacket {
    time_ns: i64,
    timestamp: u32,
    sequence: u16,
}

/// Sequence numbers of a stream. A *segment* is what lies between two restarts.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Sequence {
    /// Whether a number arrived; its bit is the number modulo 512.
    bits: [u64; 8],
    /// Highest number of the segment, extended by 2^16 per wrap, and the lowest.
    highest: u64,
    base: u64,
    /// Numbers of the segment that arrived.
    unique: u64,
    highest_ns: i64,
    segment_ns: i64,
    highest_timestamp: u32,
    /// Shortest step of the timestamp between packets in sequence, in ticks. 0 if unknown.
    timestamp_step: u32,
    held: Option<HeldPacket>,
    /// Length of the run of lost packets that is leaving the window.
    run: u32,
    /// Packets of the segment, up to [`BASE_PACKETS`].
    segment_packets: u8,
    /// Sums of the segments before.
    closed_expected: u64,
    closed_unique: u64,
    runs: [u32; 11],
    duplicates: u64,
    reordered: u64,
    restarts: u32,
    strays: u32,
}

/// Counts of a stream, with the numbers that are still in the window taken as they are now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SequenceTotals {
    /// Packets that were sent, as far as sequence numbers tell.
    pub expected: u64,
    pub lost: u64,
    pub duplicates: u64,
    pub reordered: u64,
    pub restarts: u64,
    /// Packets out of any sequence: neither lost nor duplicates.
    pub strays: u64,
    /// Lengths of runs of lost packets: 1, 2, ... 10, more than 10.
    pub runs: [u64; 11],
    /// Number of runs and of the packets lost in them.
    pub run_count: u64,
}

impl Sequence {
    /// Arrival of the packet with the highest number. Nanoseconds since 1970.
    #[inline]
    pub(crate) fn highest_ns(&self) -> i64 {
        self.highest_ns
    }

    /// Sequence numbers that were sent so far. Never decreases.
    #[inline]
    pub(crate) fn expected(&self) -> u64 {
        let segment = if self.segment_packets == 0 { 0 } else { self.highest - self.base + 1 };
        self.closed_expected + segment
    }

    /// Sequence numbers that arrived so far. Never decreases.
    #[inline]
    pub(crate) fn unique(&self) -> u64 {
        self.closed_unique + self.unique
    }

    #[inline]
    pub(crate) fn add(&mut self, sequence: u16, timestamp: u32, time_ns: i64) -> Arrival {
        if self.segment_packets == 0 {
            self.start(sequence, timestamp, time_ns);
            return Arrival::Next { missing: 0 };
        }
        let delta = i64::from(sequence.wrapping_sub(self.highest as u16) as i16);
        if delta == 1 && (self.held.is_none() || self.is_plausible(1, timestamp, time_ns)) {
            self.settle();
            let step = timestamp.wrapping_sub(self.highest_timestamp);
            if step.wrapping_sub(1) < self.timestamp_step.wrapping_sub(1) && step as i32 > 0 {
                self.timestamp_step = step;
            }
            self.advance(1, timestamp, time_ns);
            return Arrival::Next { missing: 0 };
        }
        self.add_out_of_sequence(delta, HeldPacket { time_ns, timestamp, sequence })
    }

    #[cold]
    fn add_out_of_sequence(&mut self, delta: i64, packet: HeldPacket) -> Arrival {
        if !self.is_plausible(delta, packet.timestamp, packet.time_ns) {
            return self.hold(packet);
        }
        self.settle();
        if delta > 0 {
            self.advance(delta as u64, packet.timestamp, packet.time_ns);
            Arrival::Next { missing: (delta - 1) as u32 }
        } else {
            self.fill(delta.unsigned_abs())
        }
    }

    /// Tells whether a packet may belong to the sequence, by its timestamp and the time of its arrival.
    fn is_plausible(&self, delta: i64, timestamp: u32, time_ns: i64) -> bool {
        let ticks = i64::from(timestamp.wrapping_sub(self.highest_timestamp) as i32);
        let elapsed_ns = time_ns.saturating_sub(self.highest_ns).max(0);
        let step = i64::from(self.timestamp_step);
        let usual = delta.abs() * step;
        if delta > 0 {
            let most = elapsed_ns / TICK_NS + TICKS_SLACK + 4 * usual;
            if delta > MAX_DROPOUT {
                // A long outage takes its time, and media go on in it. Each alone may be chance.
                let outage_ns = self.packet_ns().saturating_mul(delta);
                return elapsed_ns >= outage_ns / 2 && (usual / 2..=most).contains(&ticks);
            }
            (-TIMESTAMP_SLACK..=most).contains(&ticks)
        } else {
            delta.unsigned_abs() < WINDOW
                && (-(4 * usual + TIMESTAMP_SLACK)..=TIMESTAMP_SLACK).contains(&ticks)
                && self.age_ns(delta.unsigned_abs(), elapsed_ns) <= MAX_AGE_NS
        }
    }

    /// Mean time between the packets of the segment.
    fn packet_ns(&self) -> i64 {
        let packets = (self.highest - self.base).max(1) as i64;
        self.highest_ns.saturating_sub(self.segment_ns).max(0) / packets
    }

    /// Time since the turn of the packet that is `back` numbers behind the highest.
    fn age_ns(&self, back: u64, elapsed_ns: i64) -> i64 {
        self.packet_ns().saturating_mul(back as i64).saturating_add(elapsed_ns)
    }

    fn start(&mut self, sequence: u16, timestamp: u32, time_ns: i64) {
        // One cycle above 0, so that an earlier packet does not go below it.
        self.highest = (1 << 16) + u64::from(sequence);
        self.base = self.highest;
        self.unique = 1;
        self.bits = [0; 8];
        self.set(self.highest);
        self.highest_timestamp = timestamp;
        self.highest_ns = time_ns;
        self.segment_ns = time_ns;
        self.timestamp_step = 0;
        self.segment_packets = 1;
    }

    #[inline]
    fn has(&self, number: u64) -> bool {
        self.bits[(number % WINDOW / 64) as usize] >> (number % 64) & 1 == 1
    }

    #[inline]
    fn set(&mut self, number: u64) {
        self.bits[(number % WINDOW / 64) as usize] |= 1 << (number % 64);
    }

    /// Moves the highest number up by `delta`, which is not 0.
    #[inline]
    fn advance(&mut self, delta: u64, timestamp: u32, time_ns: i64) {
        for step in 1..=delta.min(WINDOW) {
            let number = self.highest + step;
            if number - WINDOW >= self.base {
                self.leave(self.has(number));
            }
            self.bits[(number % WINDOW / 64) as usize] &= !(1 << (number % 64));
        }
        if delta > WINDOW {
            // The gap is longer than the window: its first numbers have left already.
            self.run = self.run.saturating_add((delta - WINDOW) as u32);
        }
        self.highest += delta;
        self.set(self.highest);
        self.unique += 1;
        self.highest_timestamp = timestamp;
        self.highest_ns = time_ns;
        self.segment_packets = self.segment_packets.saturating_add(1).min(BASE_PACKETS);
    }

    /// Accounts a number that leaves the window.
    #[inline]
    fn leave(&mut self, has_arrived: bool) {
        if !has_arrived {
            self.run = self.run.saturating_add(1);
        } else if self.run > 0 {
            self.end_run();
        }
    }

    fn end_run(&mut self) {
        let count = &mut self.runs[(self.run as usize).clamp(1, 11) - 1];
        *count = count.saturating_add(1);
        self.run = 0;
    }

    /// Accounts the packet that is `back` numbers behind the highest.
    fn fill(&mut self, back: u64) -> Arrival {
        let number = self.highest - back;
        let is_before_base = number < self.base;
        if !is_before_base && self.has(number) {
            self.duplicates += 1;
            return Arrival::Duplicate;
        }
        if is_before_base {
            if self.segment_packets >= BASE_PACKETS {
                self.strays = self.strays.saturating_add(1);
                return Arrival::Stray;
            }
            self.base = number;
        }
        self.set(number);
        self.unique += 1;
        self.reordered += 1;
        self.segment_packets = self.segment_packets.saturating_add(1).min(BASE_PACKETS);
        Arrival::Reordered
    }

    /// Keeps a packet far from the sequence until the next one tells whether the sender restarted. Two are needed, so that
    /// a single packet of another source, or a damaged one, does not end the segment.
    fn hold(&mut self, packet: HeldPacket) -> Arrival {
        let Some(held) = self.held else {
            self.held = Some(packet);
            return Arrival::Held;
        };
        let distance = packet.sequence.wrapping_sub(held.sequence) as i16;
        if distance == 0 && packet.timestamp == held.timestamp {
            self.duplicates += 1;
            return Arrival::Duplicate;
        }
        if distance == 0 || distance.unsigned_abs() > CONFIRM_DISTANCE {
            self.settle();
            self.held = Some(packet);
            return Arrival::Held;
        }
        self.held = None;
        self.close();
        self.restarts = self.restarts.saturating_add(1);
        self.start(held.sequence, held.timestamp, held.time_ns);
        if distance > 0 {
            self.advance(distance.unsigned_abs().into(), packet.timestamp, packet.time_ns);
        } else {
            self.fill(distance.unsigned_abs().into());
        }
        Arrival::Restart
    }

    /// Accounts the held packet, if there is one, as one of the segment: no restart came of it.
    #[inline]
    fn settle(&mut self) {
        if let Some(held) = self.held.take() {
            self.settle_packet(held);
        }
    }

    #[cold]
    fn settle_packet(&mut self, held: HeldPacket) {
        let back = u64::from((self.highest as u16).wrapping_sub(held.sequence));
        let ticks = held.timestamp.wrapping_sub(self.highest_timestamp) as i32;
        let usual = back as i64 * i64::from(self.timestamp_step);
        if back < WINDOW && i64::from(ticks).abs() <= 4 * usual + TIMESTAMP_SLACK {
            self.fill(back);
        } else {
            self.strays = self.strays.saturating_add(1);
        }
    }

    /// Ends the segment: what is in its window has left it.
    fn close(&mut self) {
        if self.segment_packets == 0 {
            return;
        }
        let oldest = self.base.max(self.highest.saturating_sub(WINDOW - 1));
        for number in oldest..=self.highest {
            self.leave(self.has(number));
        }
        self.closed_expected += self.highest - self.base + 1;
        self.closed_unique += self.unique;
        self.unique = 0;
        self.segment_packets = 0;
    }

    pub(crate) fn totals(&self) -> SequenceTotals {
        let mut ended = self.clone();
        ended.settle();
        ended.close();
        SequenceTotals {
            expected: ended.closed_expected,
            lost: ended.closed_expected.saturating_sub(ended.closed_unique),
            duplicates: ended.duplicates,
            reordered: ended.reordered,
            restarts: ended.restarts.into(),
            strays: ended.strays.into(),
            runs: ended.runs.map(u64::from),
            run_count: ended.runs.iter().copied().map(u64::from).sum(),
        }
    }
}

#[cfg(test)]
#[path = "sequence_tests.rs"]
mod tests;
