//! Decides when the consumer loop says what it waits for, and when it has waited too long. Pure: time is an argument.

use std::time::{Duration, Instant};

/// Time without progress before the first line.
const FIRST: Duration = Duration::from_secs(3);

/// Interval between lines, and between those of a wait that is already long: a group may have more members than partitions
/// for good.
const INTERVALS: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(60)];

/// Wait from which on the longer interval applies.
const LONG: Duration = Duration::from_secs(120);

/// A wait without progress.
#[derive(Debug)]
pub(super) struct WaitWatch {
    since: Instant,
    next_line: Instant,
}

impl WaitWatch {
    pub(super) fn new(now: Instant) -> WaitWatch {
        WaitWatch { since: now, next_line: now + FIRST }
    }

    /// Notes progress.
    pub(super) fn restart(&mut self, now: Instant) {
        *self = WaitWatch::new(now);
    }

    /// Returns how long nothing has progressed.
    pub(super) fn waited(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    /// Returns whether it is time for a line.
    pub(super) fn take_due(&mut self, now: Instant) -> bool {
        if now < self.next_line {
            return false;
        }
        let [often, seldom] = INTERVALS;
        self.next_line = now + if self.waited(now) < LONG { often } else { seldom };
        true
    }
}

#[test]
fn a_line_is_due_every_few_seconds_and_later_every_minute() {
    let start = Instant::now();
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    let mut watch = WaitWatch::new(start);
    let due: Vec<u64> = (0..300).filter(|seconds| watch.take_due(at(*seconds))).collect();
    assert_eq!(due[..4], [3, 8, 13, 18]);
    assert_eq!(due[due.len() - 3..], [123, 183, 243]);
    assert_eq!(watch.waited(at(10)), Duration::from_secs(10));
    watch.restart(at(300));
    assert!(!watch.take_due(at(302)) && watch.take_due(at(303)));
}
