//! Computes when each byte is due. Pure: times are durations since the stream's anchor, and no clock is read.
//!
//! A due time is computed from the anchor, not from the previous send, so a late send does not delay the
//! next. Times in a capture are only as good as the clock that made them: a gap beyond the [`GapLimit`] is shortened,
//! and the stream goes on from there.

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

/// A longer time between two packets is not silence: the clock was set, or captures were appended to each other.
const CLOCK_JUMP: Duration = Duration::from_secs(24 * 3600);

/// Longest wait for a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum GapLimit {
    /// Gaps up to [`CLOCK_JUMP`] are waited for. Longer ones are not waited for at all.
    #[default]
    ClockJumps,
    /// No wait is longer than this.
    AtMost(Duration),
}

/// When a step is due.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct DueTime {
    /// Time since the anchor. `None` means immediately.
    pub due: Option<Duration>,
    /// Set if the capture's own time was not followed.
    pub shortened: Option<ShortenedGap>,
}

/// Time between two packets that was not waited for in full.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ShortenedGap {
    /// Time from the latest packet before to this one. Negative if the clock was set back.
    pub seconds: f64,
    /// What is waited instead.
    pub wait: Duration,
}

/// Due times of one stream's steps.
#[derive(Clone, Debug)]
pub(crate) struct Pacer {
    pace: Pace,
    gaps: GapLimit,
    /// Packet time from which due times are counted, and its due time.
    anchor: Option<(i64, Duration)>,
    /// Latest packet time since the anchor.
    latest_ns: i64,
    steps: u64,
    due: Duration,
}

impl Pacer {
    /// Starts at the stream's first byte, which is due at the anchor.
    pub(crate) fn new(pace: Pace, gaps: GapLimit) -> Pacer {
        Pacer { pace, gaps, anchor: None, latest_ns: 0, steps: 0, due: Duration::ZERO }
    }

    /// Returns when the next step (a packet, or a send that starts after `sent_bytes`) is due. Due times never
    /// decrease, even if packets in the capture are out of order.
    pub(crate) fn due(&mut self, sent_bytes: u64, time_ns: Option<i64>) -> DueTime {
        let steps = self.steps;
        self.steps += 1;
        let seconds = match self.pace {
            Pace::TopSpeed => return DueTime::default(),
            Pace::Captured { multiplier } => return self.captured(time_ns, multiplier),
            Pace::Packets { per_second } => steps as f64 / per_second,
            Pace::Bits { per_second } => sent_bytes as f64 * 8.0 / per_second,
        };
        self.due = self.due.max(saturating_duration(seconds));
        DueTime { due: Some(self.due), shortened: None }
    }

    fn captured(&mut self, time_ns: Option<i64>, multiplier: f64) -> DueTime {
        let Some(time_ns) = time_ns else { return DueTime::default() };
        let Some((anchor_ns, anchor_due)) = self.anchor else {
            self.restart_at(time_ns, self.due);
            return DueTime { due: Some(self.due), shortened: None };
        };
        let seconds = (i128::from(time_ns) - i128::from(self.latest_ns)) as f64 / 1e9;
        let shortened = self.shortened(seconds, multiplier).map(|wait| ShortenedGap { seconds, wait });
        match shortened {
            Some(gap) => self.restart_at(time_ns, self.due.saturating_add(gap.wait)),
            // A packet that is out of order is due immediately.
            None if seconds > 0.0 => {
                self.latest_ns = time_ns;
                let since_anchor = (i128::from(time_ns) - i128::from(anchor_ns)) as f64 / 1e9;
                let due = anchor_due.saturating_add(saturating_duration(since_anchor / multiplier));
                self.due = self.due.max(due);
            }
            None => {}
        }
        DueTime { due: Some(self.due), shortened }
    }

    /// Returns what to wait instead of a gap that is too long.
    fn shortened(&self, seconds: f64, multiplier: f64) -> Option<Duration> {
        let jump = CLOCK_JUMP.as_secs_f64();
        // Packets out of order are seconds apart, so only a clock that was set goes back by more than that.
        if seconds < -jump {
            return Some(Duration::ZERO);
        }
        match self.gaps {
            GapLimit::ClockJumps => (seconds > jump).then_some(Duration::ZERO),
            GapLimit::AtMost(max) => (seconds / multiplier > max.as_secs_f64()).then_some(max),
        }
    }

    fn restart_at(&mut self, time_ns: i64, due: Duration) {
        self.anchor = Some((time_ns, due));
        self.latest_ns = time_ns;
        self.due = due;
    }
}

/// Converts seconds, and saturates at `Duration::MAX`.
fn saturating_duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)
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
        let mut pacer = Pacer::new(pace, GapLimit::default());
        let found: Vec<Option<Duration>> =
            steps.iter().map(|(sent, time_ns)| pacer.due(*sent, *time_ns).due).collect();
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

    /// Due times in milliseconds, and the gaps that were shortened: seconds, and milliseconds waited instead.
    #[track_caller]
    fn check_gaps(
        gaps: GapLimit,
        multiplier: f64,
        seconds: &[i64],
        due_ms: &[u64],
        shortened: &[(i64, u64)],
    ) {
        let mut pacer = Pacer::new(Pace::Captured { multiplier }, gaps);
        let found: Vec<DueTime> = seconds.iter().map(|time| pacer.due(0, Some(time * S))).collect();
        let due: Vec<u64> = found.iter().map(|found| found.due.unwrap().as_millis() as u64).collect();
        assert_eq!(due, due_ms, "{gaps:?} {seconds:?}");
        let cut = found.iter().filter_map(|found| found.shortened);
        let cut: Vec<(i64, u64)> = cut.map(|gap| (gap.seconds as i64, gap.wait.as_millis() as u64)).collect();
        assert_eq!(cut, shortened, "{gaps:?} {seconds:?}");
    }

    #[test]
    fn clock_jumps_are_not_waited_for() {
        const DAY: i64 = 24 * 3600;
        const TODAY: i64 = 1_795_294_781;
        let check = |seconds: &[i64], due_ms: &[u64], shortened: &[(i64, u64)]| {
            check_gaps(GapLimit::ClockJumps, 1.0, seconds, due_ms, shortened);
        };
        // From 1970 to today; then the times count from there.
        check(&[0, TODAY, TODAY + 2], &[0, 0, 2_000], &[(TODAY, 0)]);
        // A wrong time far in the future, and back.
        let (back, future) = (TODAY + 1, 2_712_847_316);
        let jumps = [(future - TODAY - 1, 0), (back + 1 - future, 0)];
        check(&[TODAY, back, future, back + 1, back + 3], &[0, 1_000, 1_000, 1_000, 3_000], &jumps);
        // A day is silence, a second more is not.
        check(&[0, DAY], &[0, DAY as u64 * 1_000], &[]);
        check(&[0, DAY + 1, DAY + 2], &[0, 0, 1_000], &[(DAY + 1, 0)]);
        // Two interfaces whose clocks differ by an hour: one of them sets the pace.
        check(&[0, 3_600, 1, 3_601], &[0, 3_600_000, 3_600_000, 3_601_000], &[]);
    }

    #[test]
    fn no_wait_is_longer_than_the_limit() {
        let limit = GapLimit::AtMost(Duration::from_secs(2));
        check_gaps(limit, 1.0, &[0, 2, 5, 6], &[0, 2_000, 4_000, 5_000], &[(3, 2_000)]);
        // The limit is for the wait: four times faster, 8 s in the capture are 2 s.
        check_gaps(limit, 4.0, &[0, 8, 17], &[0, 2_000, 4_000], &[(9, 2_000)]);
        check_gaps(GapLimit::AtMost(Duration::ZERO), 1.0, &[0, 1, 9], &[0, 0, 0], &[(1, 0), (8, 0)]);
        let days = GapLimit::AtMost(Duration::from_secs(3 * 24 * 3600));
        check_gaps(days, 1.0, &[0, 2 * 24 * 3600], &[0, 2 * 24 * 3_600_000], &[]);
    }

    #[test]
    fn extreme_times_saturate() {
        for (gaps, expected) in [
            (GapLimit::AtMost(Duration::MAX), Duration::MAX),
            (GapLimit::AtMost(Duration::from_secs(1)), Duration::from_secs(1)),
            (GapLimit::ClockJumps, Duration::ZERO),
        ] {
            let mut pacer = Pacer::new(Pace::Captured { multiplier: 1e-300 }, gaps);
            assert_eq!(pacer.due(0, Some(i64::MIN)).due, Some(Duration::ZERO));
            assert_eq!(pacer.due(0, Some(i64::MAX)).due, Some(expected));
            assert_eq!(pacer.due(0, Some(i64::MIN)).due, Some(expected));
            assert!(pacer.due(0, Some(i64::MAX)).due >= Some(expected));
        }
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
