//! Streams with loss, duplicates, reordering, copies, wraps and restarts, and with the truth about them.

use std::collections::BTreeSet;

use super::*;

/// Small generator of pseudo-random numbers (xorshift64*).
#[derive(Clone)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 32) % bound
    }

    pub(super) fn is_one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }
}

/// A packet as it arrives.
#[derive(Clone, Copy, Debug)]
struct Sent {
    time_ns: i64,
    /// Number in the segment, from 0.
    number: u64,
    sequence: u16,
    timestamp: u32,
    ip_id: u16,
    /// Number of the transmission: that of a duplicate is another one, that of a copy is not.
    transmission: u64,
}

/// Truth about a stream.
#[derive(Debug, Default, PartialEq, Eq)]
struct Truth {
    packets: u64,
    expected: u64,
    lost: u64,
    duplicates: u64,
    reordered: u64,
    copies: u64,
    restarts: u64,
    runs: [u64; 11],
}

/// Rates of a stream, as one in this number of packets; 0 is never.
struct Rates {
    loss: u64,
    burst_max: u64,
    duplicate: u64,
    reorder: u64,
    copy: u64,
}

fn rates(random: &mut Random) -> Rates {
    let mut rate = |few: u64| if random.is_one_in(3) { 0 } else { few + random.below(100) };
    let (loss, duplicate, reorder, copy) = (rate(8), rate(20), rate(20), rate(10));
    Rates { loss, burst_max: 1 + random.below(14), duplicate, reorder, copy }
}

fn happens(random: &mut Random, rate: u64) -> bool {
    rate > 0 && random.is_one_in(rate)
}

/// Packets of a segment in the order of arrival. The first two always come, so that a restart can be told.
fn segment(random: &mut Random, start_ns: i64, count: u64, ip_id: &mut u16) -> Vec<Sent> {
    let rates = rates(random);
    let (first, timestamp) = (random.next() as u16, random.next() as u32);
    let mut order: Vec<(i64, Sent)> = Vec::new();
    let mut burst = 0;
    for number in 0..count {
        *ip_id = ip_id.wrapping_add(1).max(1);
        let time_ns = start_ns + number as i64 * 20_000_000 + random.below(3_000_000) as i64;
        let sequence = first.wrapping_add(number as u16);
        let timestamp = timestamp.wrapping_add(number as u32 * 160);
        let sent = Sent { time_ns, number, sequence, timestamp, ip_id: *ip_id, transmission: 2 * number };
        if burst == 0 && happens(random, rates.loss) {
            burst = 1 + random.below(rates.burst_max);
        }
        if burst > 0 && number > 1 {
            burst -= 1;
            continue;
        }
        // A late packet comes after up to 3 others; the first packet of a stream may be late too.
        let late_ns =
            if happens(random, rates.reorder) { (1 + random.below(3) as i64) * 20_000_000 } else { 0 };
        order.push((time_ns + late_ns, sent));
        if happens(random, rates.copy) {
            order.push((time_ns + late_ns + random.below(2_000_000) as i64, sent));
        }
        if happens(random, rates.duplicate) {
            *ip_id = ip_id.wrapping_add(1).max(1);
            let duplicate_ns = time_ns + late_ns + random.below(100_000_000) as i64;
            order.push((duplicate_ns, Sent { ip_id: *ip_id, transmission: 2 * number + 1, ..sent }));
        }
    }
    order.sort_by_key(|(arrival_ns, _)| *arrival_ns);
    order.into_iter().map(|(time_ns, sent)| Sent { time_ns, ..sent }).collect()
}

/// Counts the packets of a segment, slowly and simply.
fn count(truth: &mut Truth, arrivals: &[Sent]) {
    let mut numbers = BTreeSet::new();
    let mut transmissions = BTreeSet::new();
    for sent in arrivals {
        if !transmissions.insert(sent.transmission) {
            truth.copies += 1;
            continue;
        }
        truth.packets += 1;
        let is_behind = numbers.last().is_some_and(|&highest| sent.number < highest);
        if !numbers.insert(sent.number) {
            truth.duplicates += 1;
        } else if is_behind {
            truth.reordered += 1;
        }
    }
    let list: Vec<u64> = numbers.iter().copied().collect();
    truth.expected += list[list.len() - 1] - list[0] + 1;
    for pair in list.windows(2) {
        let gap = pair[1] - pair[0] - 1;
        truth.lost += gap;
        if gap > 0 {
            truth.runs[gap.min(11) as usize - 1] += 1;
        }
    }
}

/// Arrivals of a stream with up to 4 segments, and the truth about them.
fn stream(random: &mut Random) -> (Vec<Sent>, Truth) {
    let segments = if random.is_one_in(3) { 2 + random.below(3) } else { 1 };
    let mut truth = Truth { restarts: segments - 1, ..Truth::default() };
    let (mut arrivals, mut ip_id) = (Vec::new(), random.next() as u16);
    let mut previous = 0;
    let mut start_ns = 1_700_000_000_000_000_000;
    for _ in 0..segments {
        let length = match random.below(20) {
            0 if random.is_one_in(8) => 70_000, // wraps at least once
            _ => 30 + random.below(3_000),
        };
        let sent = segment(random, start_ns, length, &mut ip_id);
        count(&mut truth, &sent);
        // One restart in 65,536 goes on with the next number by chance: then the sequence did not restart.
        let highest = arrivals[previous..].iter().max_by_key(|sent: &&Sent| sent.number);
        if highest.is_some_and(|highest| highest.sequence.wrapping_add(1) == sent[0].sequence) {
            truth.restarts -= 1;
        }
        previous = arrivals.len();
        arrivals.extend(sent);
        start_ns += (length as i64 + 10) * 20_000_000;
    }
    (arrivals, truth)
}

/// Counts of the stream as the state has them.
fn counted(arrivals: &[Sent]) -> Truth {
    let mut state = StreamState::new(1);
    for sent in arrivals {
        let mut data = [0_u8; 172];
        data[0] = 0x80;
        data[1] = 8;
        data[2..4].copy_from_slice(&sent.sequence.to_be_bytes());
        data[4..8].copy_from_slice(&sent.timestamp.to_be_bytes());
        let header = RtpHeader::parse(&data, data.len()).unwrap();
        let packet =
            RtpPacket { time_ns: sent.time_ns, ip_id: sent.ip_id, header, payload: header.payload(&data) };
        state.add(&packet, Format::default());
    }
    let totals = state.sequence_totals();
    let (windows, _) = state.windows();
    assert_eq!(windows.iter().map(|window| u64::from(window.expected)).sum::<u64>(), totals.expected);
    let received: u64 = windows.iter().map(|window| u64::from(window.received)).sum();
    assert_eq!(totals.expected - received, totals.lost);
    assert_eq!(totals.strays, 0);
    Truth {
        packets: state.packets(),
        expected: totals.expected,
        lost: totals.lost,
        duplicates: totals.duplicates,
        reordered: totals.reordered,
        copies: state.copies(),
        restarts: totals.restarts,
        runs: totals.runs,
    }
}

#[test]
fn all_counts_of_a_thousand_streams_are_right() {
    let mut random = Random(0x5eed_0001);
    let mut sum = Truth::default();
    for number in 0..1_000 {
        let seed = random.clone().0;
        let (arrivals, truth) = stream(&mut random);
        assert_eq!(counted(&arrivals), truth, "stream {number}, seed {seed:#x}");
        sum.lost += truth.lost;
        sum.duplicates += truth.duplicates;
        sum.reordered += truth.reordered;
        sum.copies += truth.copies;
        sum.restarts += truth.restarts;
    }
    let least = [sum.lost, sum.duplicates, sum.reordered, sum.copies].into_iter().min();
    assert!(least > Some(10_000) && sum.restarts > 300, "the generator tests nothing: {sum:?}");
}
