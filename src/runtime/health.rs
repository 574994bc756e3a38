//! The health of the process, in one place: everything that writes reports here what it cannot do, and /health, metrics and
//! the exit code follow from it.
//!
//! [`Health`] holds what was reported. What other parts of the process count anyway (a full spool, lost bytes) is derived
//! from [`Metrics`] by [`Metrics::problems`], so that it cannot be reported twice.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::metrics::Metrics;
use super::time::now_ms;

/// Something that keeps the process from storing what it receives. The most severe is first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// The output directory was removed. The process ends.
    OutputRemoved,
    /// A file, a manifest or the directory could not be written or synced.
    StorageFailed,
    /// The disk is full or cannot be written; streams wait.
    DiskFull,
    /// The disk has too little room for events; the rest is for streams.
    StoreDiskFull,
    /// The spool is full; senders of events wait.
    SpoolFull,
    /// The event store accepts nothing; senders of events wait.
    StoreStalled,
    /// A part of the event store is damaged on disk. The other parts are used, and new events are stored.
    StoreDamaged,
    /// The event store has used most of its document numbers, and will accept no more events some day.
    StoreNumbersLow,
    /// A file of an earlier run could not be recovered.
    RecoveryFailed,
    /// Something that was received is not stored, or may not be. Stays for as long as the process runs.
    DataLost,
    /// The cluster does not accept events; they are kept in the spool.
    ClusterUnreachable,
}

impl Problem {
    pub const ALL: [Problem; 11] = [
        Problem::OutputRemoved,
        Problem::StorageFailed,
        Problem::DiskFull,
        Problem::StoreDiskFull,
        Problem::SpoolFull,
        Problem::StoreStalled,
        Problem::StoreDamaged,
        Problem::StoreNumbersLow,
        Problem::RecoveryFailed,
        Problem::DataLost,
        Problem::ClusterUnreachable,
    ];

    /// Returns the word in /health and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Problem::OutputRemoved => "output_removed",
            Problem::StorageFailed => "storage_failed",
            Problem::DiskFull => "disk_full",
            Problem::StoreDiskFull => "store_disk_full",
            Problem::SpoolFull => "spool_full",
            Problem::StoreStalled => "store_stalled",
            Problem::StoreDamaged => "store_damaged",
            Problem::StoreNumbersLow => "store_numbers_low",
            Problem::RecoveryFailed => "recovery_failed",
            Problem::DataLost => "data_lost",
            Problem::ClusterUnreachable => "cluster_unreachable",
        }
    }

    /// Returns true if the process still stores what it receives, so that senders need not switch to another one.
    pub fn is_accepting(self) -> bool {
        matches!(
            self,
            Problem::StoreDamaged
                | Problem::StoreNumbersLow
                | Problem::RecoveryFailed
                | Problem::DataLost
                | Problem::ClusterUnreachable
        )
    }

    /// Returns true if the process must not exit with 0 after this problem.
    fn is_failure(self) -> bool {
        matches!(
            self,
            Problem::OutputRemoved | Problem::StoreDamaged | Problem::RecoveryFailed | Problem::DataLost
        )
    }
}

/// A problem that exists now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveProblem {
    pub problem: Problem,
    /// Time of the report, in milliseconds since 1970. `None` for problems that are derived from metrics.
    pub since_ms: Option<i64>,
}

/// The problems that were reported.
#[derive(Debug, Default)]
pub struct Health {
    reported: Mutex<BTreeMap<Problem, Report>>,
}

#[derive(Debug)]
struct Report {
    since_ms: i64,
    /// Number of threads that wait because of the problem.
    waiting: usize,
}

impl Health {
    /// Reports a problem that lasts until it is [cleared](Self::clear).
    pub fn raise(&self, problem: Problem) {
        self.lock().entry(problem).or_insert_with(Report::now);
    }

    /// Reports that a problem is over.
    pub fn clear(&self, problem: Problem) {
        self.lock().remove(&problem);
    }

    /// Reports that one more thread waits because of a problem.
    pub fn begin_wait(&self, problem: Problem) {
        self.lock().entry(problem).or_insert_with(Report::now).waiting += 1;
    }

    /// Reports that a thread no longer waits. Returns whether it was the last one.
    pub fn end_wait(&self, problem: Problem) -> bool {
        let mut reported = self.lock();
        let Some(report) = reported.get_mut(&problem) else { return false };
        report.waiting = report.waiting.saturating_sub(1);
        let is_last = report.waiting == 0;
        if is_last {
            reported.remove(&problem);
        }
        is_last
    }

    /// Returns whether a problem was reported and is not over.
    pub fn is_raised(&self, problem: Problem) -> bool {
        self.lock().contains_key(&problem)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Problem, Report>> {
        self.reported.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Report {
    fn now() -> Report {
        Report { since_ms: now_ms(), waiting: 0 }
    }
}

impl Metrics {
    /// Returns all problems, the most severe first.
    pub fn problems(&self) -> Vec<ActiveProblem> {
        let reported = self.health.lock();
        let active = Problem::ALL.into_iter().filter_map(|problem| match reported.get(&problem) {
            Some(report) => Some(ActiveProblem { problem, since_ms: Some(report.since_ms) }),
            None => self.has(problem).then_some(ActiveProblem { problem, since_ms: None }),
        });
        active.collect()
    }

    /// Returns whether the process must exit with a failure, although it ended in good order.
    pub fn has_failed(&self) -> bool {
        self.problems().iter().any(|active| active.problem.is_failure())
    }

    /// Returns whether the metrics show a problem.
    fn has(&self, problem: Problem) -> bool {
        match problem {
            Problem::SpoolFull => self.spool_full.get() > 0,
            Problem::StoreStalled => self.store_waiting_threads.get() > 0,
            Problem::ClusterUnreachable => self.cluster_up.is_down(),
            Problem::DataLost => self.lost_anything(),
            Problem::OutputRemoved
            | Problem::StorageFailed
            | Problem::DiskFull
            | Problem::StoreDiskFull
            | Problem::StoreDamaged
            | Problem::StoreNumbersLow
            | Problem::RecoveryFailed => false,
        }
    }

    fn lost_anything(&self) -> bool {
        let counters = [
            &self.lost_bytes_total,
            &self.streams_failed_total,
            &self.unsynced_bytes_total,
            &self.storage_failures_total,
            &self.events_lost_total,
            &self.event_dead_letters_dropped_total,
            &self.spool_damaged_total,
        ];
        counters.into_iter().any(|counter| counter.get() > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(metrics: &Metrics) -> Vec<&'static str> {
        metrics.problems().iter().map(|active| active.problem.as_str()).collect()
    }

    #[test]
    fn the_most_severe_problem_is_first() {
        let metrics = Metrics::default();
        assert!(problems(&metrics).is_empty() && !metrics.has_failed());
        metrics.cluster_up.set(false);
        metrics.spool_full.set(1);
        metrics.health.raise(Problem::StorageFailed);
        assert_eq!(problems(&metrics), ["storage_failed", "spool_full", "cluster_unreachable"]);
        metrics.health.clear(Problem::StorageFailed);
        assert_eq!(problems(&metrics), ["spool_full", "cluster_unreachable"]);
        assert!(!metrics.has_failed(), "nothing is lost");
    }

    #[test]
    fn a_loss_stays() {
        let lose: [fn(&Metrics); 4] = [
            |metrics| metrics.lost_bytes_total.inc(),
            |metrics| metrics.unsynced_bytes_total.inc(),
            |metrics| metrics.event_dead_letters_dropped_total.inc(),
            |metrics| metrics.health.raise(Problem::RecoveryFailed),
        ];
        for lose in lose {
            let metrics = Metrics::default();
            lose(&metrics);
            assert!(metrics.has_failed());
            assert!(metrics.problems()[0].problem.is_accepting(), "the next stream can be stored");
        }
    }

    #[test]
    fn a_wait_ends_with_its_last_thread() {
        let health = Health::default();
        health.begin_wait(Problem::DiskFull);
        health.begin_wait(Problem::DiskFull);
        assert!(!health.end_wait(Problem::DiskFull) && health.is_raised(Problem::DiskFull));
        assert!(health.end_wait(Problem::DiskFull) && !health.is_raised(Problem::DiskFull));
        assert!(!health.end_wait(Problem::DiskFull));
    }
}
