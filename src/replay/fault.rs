//! Faults of a stream and their positions, derived from a seed so that a run can be repeated. Pure.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// Fault that real senders show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Fault {
    /// Close in the middle of a packet and stay gone
    Cut,
    /// Reset in the middle of a packet and stay gone
    Reset,
    /// Close in the middle of a packet, then connect again and send everything from the first byte
    ReconnectResend,
    /// Close in the middle of a packet, then connect again and send the name and the next bytes
    ReconnectContinue,
    /// Send single bytes with pauses in some places
    Slow,
    /// Send some records twice (Kafka)
    Duplicate,
    /// Send some records after the one that follows them (Kafka)
    Reorder,
    /// Send a record with invalid base64 before some records (Kafka)
    BadBase64,
    /// Send a record without data or names before some records (Kafka)
    MissingField,
}

impl Fault {
    /// Reports whether the fault concerns single records, and so applies to Kafka only.
    pub(crate) fn is_record_fault(self) -> bool {
        matches!(self, Fault::Duplicate | Fault::Reorder | Fault::BadBase64 | Fault::MissingField)
    }
}

/// The splitmix64 generator (Steele, Lea, Flood 2014): small, and the same on every platform.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Sequence of `seed` for stream number `stream`.
    pub(crate) fn new(seed: u64, stream: u64) -> Random {
        let mut random = Random(seed);
        // Streams of one seed must not be shifted copies of each other.
        let start = random.next() ^ stream.wrapping_mul(0xd6e8_feb8_6659_fd93);
        Random(start)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number in `low..high`, or `low` if the range is empty.
    pub(crate) fn range(&mut self, low: u64, high: u64) -> u64 {
        // The bias of the multiplication is negligible.
        let width = u128::from(high.saturating_sub(low));
        low + ((u128::from(self.next()) * width) >> 64) as u64
    }
}

pub(crate) fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Number of slow spots in a stream, the longest spot, and the longest pause before a byte in it.
const SLOW_SPOTS: u64 = 8;
const SLOW_BYTES_MAX: u64 = 20;
const SLOW_PAUSE_MS_MAX: u64 = 50;
/// Number of faulty records per stream.
const FAULTY_RECORDS: u64 = 8;

/// Faults of one stream.
#[derive(Clone, Debug)]
pub(crate) struct FaultPlan {
    break_at: Option<u64>,
    slow: VecDeque<(u64, u64)>,
    /// Fault of single records, and the bytes whose records have it.
    records: Option<(Fault, VecDeque<u64>)>,
    random: Random,
}

/// Extent of the next send, and the pause before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NextSend {
    pub to: u64,
    pub pause: Option<Duration>,
}

impl FaultPlan {
    /// Plan without faults.
    pub(crate) fn none() -> FaultPlan {
        FaultPlan { break_at: None, slow: VecDeque::new(), records: None, random: Random(0) }
    }

    /// Draws the positions of `fault` in a stream of `bytes`. A stream of fewer than 2 bytes has no middle,
    /// and so no fault.
    pub(crate) fn draw(fault: Fault, mut random: Random, bytes: u64) -> FaultPlan {
        if bytes < 2 {
            return FaultPlan::none();
        }
        let mut plan = FaultPlan { random: random.clone(), ..FaultPlan::none() };
        let mut places = |count| {
            let mut places: Vec<u64> = (0..count).map(|_| random.range(0, bytes)).collect();
            places.sort_unstable();
            places
        };
        match fault {
            Fault::Slow => {
                let places = places(SLOW_SPOTS);
                let end = |at| (at, at + random.range(1, SLOW_BYTES_MAX + 1));
                plan.slow = places.into_iter().map(end).collect();
            }
            _ if fault.is_record_fault() => plan.records = Some((fault, places(FAULTY_RECORDS).into())),
            _ => plan.break_at = Some(random.range(1, bytes)),
        }
        plan.random = random;
        plan
    }

    /// Returns the fault of the record with the bytes `from..to`, and the byte that was drawn. Must be called
    /// for the records in order.
    pub(crate) fn record_fault(&mut self, from: u64, to: u64) -> Option<(Fault, u64)> {
        let (fault, places) = self.records.as_mut()?;
        let mut found = None;
        while let Some(at) = places.pop_front_if(|at| *at < to) {
            found = found.or((at >= from).then_some((*fault, at)));
        }
        found
    }

    /// Byte after which the connection breaks.
    pub(crate) fn break_at(&self) -> Option<u64> {
        self.break_at
    }

    pub(crate) fn set_break_at(&mut self, at: u64) {
        self.break_at = Some(at);
    }

    /// Reports, once, whether the connection breaks after `sent` bytes.
    pub(crate) fn take_break(&mut self, sent: u64) -> bool {
        let breaks = self.break_at == Some(sent);
        if breaks {
            self.break_at = None;
        }
        breaks
    }

    /// Limits the next send, which would cover the bytes `from..to`.
    pub(crate) fn next_send(&mut self, from: u64, to: u64) -> NextSend {
        let to = self.break_at.map_or(to, |at| if at > from { to.min(at) } else { to });
        while self.slow.front().is_some_and(|(_, end)| *end <= from) {
            self.slow.pop_front();
        }
        match self.slow.front() {
            Some((start, _)) if *start <= from => {
                let pause = self.random.range(1, SLOW_PAUSE_MS_MAX + 1);
                NextSend { to: from + 1, pause: Some(Duration::from_millis(pause)) }
            }
            Some((start, _)) => NextSend { to: to.min(*start), pause: None },
            None => NextSend { to, pause: None },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sends(plan: &mut FaultPlan, bytes: u64, chunk: u64) -> Vec<NextSend> {
        let mut at = 0;
        let mut sends = Vec::new();
        while at < bytes {
            let send = plan.next_send(at, bytes.min(at + chunk));
            assert!(send.to > at, "a send that goes nowhere at {at}");
            at = send.to;
            sends.push(send);
        }
        assert_eq!(at, bytes);
        sends
    }

    #[test]
    fn the_same_seed_gives_the_same_faults() {
        for fault in [Fault::Cut, Fault::Slow] {
            let draw = |seed, stream| {
                let mut plan = FaultPlan::draw(fault, Random::new(seed, stream), 10_000);
                (plan.break_at(), sends(&mut plan, 10_000, 100))
            };
            assert_eq!(draw(7, 0), draw(7, 0));
            assert_ne!(draw(7, 0), draw(8, 0));
            assert_ne!(draw(7, 0), draw(7, 1));
        }
    }

    #[test]
    fn a_break_is_inside_the_stream_and_a_send_ends_there() {
        for seed in 0..500 {
            let bytes = 2 + seed % 50;
            let mut plan = FaultPlan::draw(Fault::Reset, Random::new(seed, 0), bytes);
            let at = plan.break_at().unwrap();
            assert!(at >= 1 && at < bytes);
            assert!(sends(&mut plan, bytes, 7).iter().any(|send| send.to == at));
            assert!(!plan.take_break(at - 1) && plan.take_break(at) && !plan.take_break(at));
        }
        assert_eq!(FaultPlan::draw(Fault::Cut, Random::new(1, 0), 1).break_at(), None);
    }

    #[test]
    fn slow_spots_are_single_bytes_with_a_pause() {
        let sends = sends(&mut FaultPlan::draw(Fault::Slow, Random::new(3, 0), 10_000), 10_000, 100);
        let slow: Vec<Duration> = sends.iter().filter_map(|send| send.pause).collect();
        assert!((8..=160).contains(&slow.len()), "{} single bytes", slow.len());
        assert!(slow.iter().all(|pause| (1..=50).contains(&pause.as_millis())));
    }

    #[test]
    fn each_record_fault_occurs_once() {
        let mut plan = FaultPlan::draw(Fault::Duplicate, Random::new(3, 0), 10_000);
        let met: Vec<u64> = (0..10_000)
            .step_by(100)
            .filter_map(|from| plan.record_fault(from, from + 100).map(|(_, at)| at / 100 * 100 - from))
            .collect();
        assert!((1..=8).contains(&met.len()) && met.iter().all(|far| *far == 0), "{met:?}");
        assert_eq!(plan.break_at(), None);
        assert_eq!(FaultPlan::draw(Fault::Slow, Random::new(3, 0), 10_000).record_fault(0, 10_000), None);
    }

    #[test]
    fn random_numbers_cover_their_range() {
        let mut random = Random::new(1, 1);
        let drawn: std::collections::BTreeSet<u64> = (0..1000).map(|_| random.range(3, 8)).collect();
        assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [3, 4, 5, 6, 7]);
        assert_eq!(random.range(5, 5), 5);
    }
}
