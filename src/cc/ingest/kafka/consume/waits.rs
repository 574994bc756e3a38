//! Says what the consumer loop waits for, and ends a wait that takes too long.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::start::query_bounds;
use super::{AssignedPartition, LoopState};

/// Time for a broker to answer a query that only explains a wait.
const WAIT_QUERY_TIMEOUT: Duration = Duration::from_secs(1);

/// Number of partitions whose wait is explained.
const EXPLAINED_MAX: usize = 5;

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

impl LoopState<'_> {
    /// Says every few seconds what the loop waits for. With `--exit-at-end`: returns true after too long a wait.
    pub(super) fn has_waited_too_long(&mut self) -> bool {
        let now = Instant::now();
        let is_behind = self.consumer.config.exit_at_end || self.has_lag();
        let is_waiting = self.is_idle && (self.assigned.is_empty() || is_behind);
        if !is_waiting {
            self.waiting.restart(now);
            return false;
        }
        let waited = self.waiting.waited(now);
        let is_due = self.waiting.take_due(now);
        if is_due {
            self.log_wait(waited);
        }
        let limit = self.consumer.config.wait_timeout;
        let is_over = self.consumer.config.exit_at_end && waited >= limit;
        if is_over {
            log::error!(
                "wait_timed_out waited_s={} note=\"the end was not reached; see --wait-timeout\"",
                waited.as_secs()
            );
        }
        is_over
    }

    /// Returns whether a partition has records that were not read. With `--exit-at-end`, those that it had at the start.
    fn has_lag(&self) -> bool {
        let has_lag = |known: &AssignedPartition| {
            let next = known.live.next_offset.get().and_then(|next| i64::try_from(next).ok());
            match (known.end, next) {
                (Some(end), Some(next)) => next < end,
                _ => known.live.lag().is_some_and(|lag| lag > 0),
            }
        };
        self.assigned.values().any(has_lag)
    }

    fn log_wait(&mut self, waited: Duration) {
        let waited = waited.as_secs();
        if self.assigned.is_empty() {
            let (state, members, note) = match self.consumer.client.group_state(WAIT_QUERY_TIMEOUT) {
                None => ("unknown".to_owned(), 0, "no broker answers"),
                Some(group) => {
                    let note = match &*group.state {
                        "Stable" => "other members have all partitions, or the topic does not exist",
                        "PreparingRebalance" => {
                            "the group waits for its other members, or until their sessions time out"
                        }
                        _ => "the group is about to assign partitions",
                    };
                    (group.state, group.members, note)
                }
            };
            log::warn!(
                "waiting_for_partitions waited_s={waited} group_state={state} members={members} note=\"{note}\""
            );
            return;
        }
        self.others.log_wait(waited);
        let behind =
            self.assigned.iter().filter(|(_, known)| known.live.lag() != Some(0)).take(EXPLAINED_MAX);
        let partitions: Vec<_> = behind.map(|(at, known)| (at.clone(), Arc::clone(&known.live))).collect();
        for (partition, live) in partitions {
            let next = live.next_offset.get().and_then(|next| i64::try_from(next).ok()).unwrap_or(0);
            let bounds = query_bounds(&mut *self.consumer.client, &partition, WAIT_QUERY_TIMEOUT);
            let note = match bounds {
                Ok(bounds) if next >= bounds.end => continue,
                Ok(bounds) if next >= bounds.stable_end => {
                    "a transaction is open; its records cannot be read before it ends"
                }
                Ok(_) => "the broker returns no record",
                Err(_) => "the broker does not answer",
            };
            let end = live.end_offset.get().unwrap_or(0);
            log::warn!(
                "waiting_for_records partition={partition} waited_s={waited} next={next} end={end} note=\"{note}\""
            );
        }
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
