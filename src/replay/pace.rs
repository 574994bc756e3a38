//! Computes when each byte is due. Pure: times are durations since the stream's anchor, and no clock is read.
//!
//! A due time is computed from the anchor, not from the previous send, so a late send does not delay the
//! next.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Speed of a stream, in tcpreplay's terms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    /// The capture's own packet times, sped up by a factor.
    Captured { multiplier: f64 },
    /// Packets per second.
    Packets {
        /// Rate of one stream.
        per_second: f64,
    },
    /// Bits per second.
    Bits {
        /// Rate of one stream.
        per_second: f64,
    },
    /// As fast as the receiver accepts.
    TopSpeed,
}

impl Pace {
    /// Reports whether this pace depends on packet boundaries.
    pub(crate) fn is_by_packets(self) -> bool {
        matches!(self, Pace::Captured { .. } | Pace::Packets { .. })
    }
}

/// Due times of one stream's steps.
#[derive(Clone, Debug)]
pub(crate) struct Pacer {
    pace: Pace,
    first_ns: Option<i64>,
    steps: u64,
    due: Duration,
}

impl Pacer {
    /// Starts at the stream's first byte, which is due at the anchor.
    pub(crate) fn new(pace: Pace) -> Pacer {
        Pacer { pace, first_ns: None, steps: 0, due: Duration::ZERO }
    }

    /// Returns when the next step (a packet, or a send that starts after `sent_bytes`) is due. `None` means
    /// immediately. Times never decrease, even if packets in the capture are out of order.
    pub(crate) fn due(&mut self, sent_bytes: u64, time_ns: Option<i64>) -> Option<Duration> {
        let steps = self.steps;
        self.steps += 1;
        let seconds = match self.pace {
            Pace::TopSpeed => return None,
            Pace::Captured { multiplier } => {
                let time_ns = time_ns?;
                let first_ns = *self.first_ns.get_or_insert(time_ns);
                time_ns.saturating_sub(first_ns) as f64 / 1e9 / multiplier
            }
            Pace::Packets { per_second } => steps as f64 / per_second,
            Pace::Bits { per_second } => sent_bytes as f64 * 8.0 / per_second,
        };
        // Saturate at `Duration::MAX`. Packets before the first one are due immediately.
        let due = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX);
        self.due = self.due.max(due);
        Some(self.due)
    }
}

const SUB_BUCKETS: u64 = 16;
const BUCKETS: usize = 61 * SUB_BUCKETS as usize;

/// Histogram of how late sends were, over all streams. Buckets are a sixteenth wide, so the size does not
/// depend on the number of streams and sends.
#[derive(Debug)]
pub(crate) struct Lateness {
    buckets: Vec<AtomicU64>,
    max_ns: AtomicU64,
}

impl Default for Lateness {
    fn default() -> Lateness {
        let buckets = (0..BUCKETS).map(|_| AtomicU64::new(0)).collect();
        Lateness { buckets, max_ns: AtomicU64::new(0) }
    }
}

impl Lateness {
    /// Adds one send.
    pub(crate) fn record(&self, late: Duration) {
        let ns = u64::try_from(late.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(ns)].fetch_add(1, Ordering::Relaxed);
        self.max_ns.fetch_max(ns, Ordering::Relaxed);
    }

    /// Returns the lateness that `share` (0.0 to 1.0) of the sends did not exceed, at most a sixteenth too
    /// high. `None` without sends.
    pub(crate) fn quantile(&self, share: f64) -> Option<Duration> {
        let counts: Vec<u64> = self.buckets.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        if total == 0 {
            return None;
        }
        let wanted = ((total as f64 * share).ceil() as u64).clamp(1, total);
        let mut below = 0;
        let found = counts.iter().position(|count| {
            below += count;
            below >= wanted
        });
        let max_ns = self.max_ns.load(Ordering::Relaxed);
        Some(Duration::from_nanos(found.map_or(max_ns, |index| bucket_end(index).min(max_ns))))
    }
}

/// Values below 16 have a bucket each. Above, the four bits after the leading one select the bucket.
fn bucket(ns: u64) -> usize {
    if ns < SUB_BUCKETS {
        return ns as usize;
    }
    let exponent = u64::from(63 - ns.leading_zeros());
    let sub = (ns >> (exponent - 4)) & (SUB_BUCKETS - 1);
    ((exponent - 3) * SUB_BUCKETS + sub) as usize
}

/// Largest value of a bucket.
fn bucket_end(index: usize) -> u64 {
    let index = index as u64;
    if index < SUB_BUCKETS {
        return index;
    }
    let (exponent, sub) = (index / SUB_BUCKETS + 3, index % SUB_BUCKETS);
    let width = 1 << (exponent - 4);
    (SUB_BUCKETS + sub) * width + (width - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000_000;

    #[track_caller]
    fn check_due(pace: Pace, steps: &[(u64, Option<i64>)], due_ms: &[Option<u64>]) {
        let mut pacer = Pacer::new(pace);
        let found: Vec<Option<Duration>> =
            steps.iter().map(|(sent, time_ns)| pacer.due(*sent, *time_ns)).collect();
        let expected: Vec<Option<Duration>> =
            due_ms.iter().map(|due| due.map(Duration::from_millis)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn captured_times_scale_with_the_multiplier() {
        let steps = [(0, Some(7 * S)), (100, Some(8 * S)), (200, None), (300, Some(10 * S))];
        check_due(Pace::Captured { multiplier: 1.0 }, &steps, &[Some(0), Some(1000), None, Some(3000)]);
        check_due(Pace::Captured { multiplier: 20.0 }, &steps, &[Some(0), Some(50), None, Some(150)]);
        check_due(Pace::Captured { multiplier: 0.5 }, &steps, &[Some(0), Some(2000), None, Some(6000)]);
    }

    #[test]
    fn a_packet_out_of_order_is_due_immediately() {
        let steps = [(0, Some(5 * S)), (1, Some(7 * S)), (2, Some(4 * S)), (3, Some(8 * S))];
        check_due(Pace::Captured { multiplier: 1.0 }, &steps, &[Some(0), Some(2000), Some(2000), Some(3000)]);
    }

    #[test]
    fn rates_give_evenly_spaced_due_times() {
        let steps = [(0, None), (100, None), (200, None)];
        check_due(Pace::Packets { per_second: 50.0 }, &steps, &[Some(0), Some(20), Some(40)]);
        check_due(Pace::Bits { per_second: 8_000.0 }, &steps, &[Some(0), Some(100), Some(200)]);
        check_due(Pace::TopSpeed, &steps, &[None, None, None]);
    }

    #[test]
    fn extreme_times_saturate() {
        let mut pacer = Pacer::new(Pace::Captured { multiplier: 1e-300 });
        assert_eq!(pacer.due(0, Some(i64::MIN)), Some(Duration::ZERO));
        assert_eq!(pacer.due(0, Some(i64::MAX)), Some(Duration::MAX));
    }

    #[test]
    fn buckets_contain_their_values() {
        for ns in (0..64).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit, (1 << bit) + 1]).chain([u64::MAX]) {
            let end = bucket_end(bucket(ns));
            assert!(end >= ns && end - ns <= ns / 16, "{ns} in a bucket that ends at {end}");
        }
    }

    #[test]
    fn quantiles_are_at_most_a_sixteenth_too_high() {
        let lateness = Lateness::default();
        assert_eq!(lateness.quantile(0.5), None);
        (1..=100).for_each(|us| lateness.record(Duration::from_micros(us)));
        let near = |share, us: f64| {
            let found = lateness.quantile(share).unwrap().as_secs_f64() * 1e6;
            assert!(found >= us && found <= us * 1.07, "{share}: {found} us, not {us}");
        };
        near(0.5, 50.0);
        near(0.99, 99.0);
        assert_eq!(lateness.quantile(1.0), Some(Duration::from_micros(100)));
    }
}
