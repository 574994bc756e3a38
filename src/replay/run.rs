//! Runs a replay: one thread per lane (a copy of a file, sent one or more times), and a summary. The caller's
//! thread owns and joins the lanes, updates the progress bar and logs failures.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender as Channel};
use serde::Serialize;

use crate::replay::fault::{Fault, Random};
use crate::replay::names::LaneNames;
use crate::replay::sink::{SendError, StreamSink};
use crate::replay::source::ReplayFile;
use crate::replay::stream::{OutgoingStream, ReplayCounts, ReplayOptions, StreamEnd};
use crate::runtime::progress::Progress;
use crate::runtime::shutdown::Shutdown;
use crate::{Error, Result, error};

/// Stack size of a stream's thread. It holds no buffers on its stack, and 10,000 threads must fit.
const STACK_BYTES: usize = 128 * 1024;
/// Interval of progress bar updates.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// Number of failures that the summary lists. The log has all.
const FAILURES_MAX: usize = 1000;

/// Copy of a file, sent one or more times.
#[derive(Debug)]
pub(crate) struct Lane<'a> {
    pub source: &'a ReplayFile,
    pub naming: LaneNames,
}

/// Description of a run.
#[derive(Debug)]
pub(crate) struct ReplayPlan<'a> {
    /// Lanes, which run concurrently.
    pub lanes: Vec<Lane<'a>>,
    /// Number of times each lane sends its file.
    pub rounds: u64,
    pub options: ReplayOptions,
    /// Faults, assigned to the streams in rotation.
    pub faults: Vec<Fault>,
    /// Seed of the faults.
    pub seed: u64,
    /// True to show a progress bar on stderr, if that is a terminal.
    pub progress: bool,
}

/// Result of a run. Serialized, it is the `--json` line.
#[derive(Debug, Default, Serialize)]
pub(crate) struct ReplaySummary {
    /// Streams planned.
    pub streams: u64,
    /// Streams sent to their last byte.
    pub whole: u64,
    /// Streams cut off by a requested fault.
    pub cut_off: u64,
    /// Streams interrupted by a signal.
    pub stopped: u64,
    pub failed: u64,
    /// Connections on which the name was sent.
    pub connections: u64,
    /// Bytes of content. Re-sent bytes count again.
    pub bytes: u64,
    /// Of these bytes, those of which it is unknown whether the receiver has them: their connection was reset or
    /// failed, the receiver did not close it, or the destination has no acknowledgements.
    pub unconfirmed_bytes: u64,
    /// Gaps between packets that were not waited for in full.
    pub gaps_shortened: u64,
    /// Time from the first connection to the last close.
    pub seconds: f64,
    /// Megabits (10^6 bits) per second, all streams together.
    pub mbps: f64,
    /// Median lateness of sends against their pace. `None` at top speed.
    pub lateness_p50_ms: Option<f64>,
    /// 99th percentile.
    pub lateness_p99_ms: Option<f64>,
    /// Maximum.
    pub lateness_max_ms: Option<f64>,
    /// Seed of the faults, if there were any.
    pub seed: Option<u64>,
    /// Failed streams, the first thousand.
    pub failures: Vec<StreamFailure>,
}

/// Failed stream.
#[derive(Debug, Serialize)]
pub(crate) struct StreamFailure {
    /// Name of the stream. Bytes that are not UTF-8 are replaced.
    pub name: String,
    pub reason: String,
}

/// Result of one stream.
struct StreamOutcome {
    name: Vec<u8>,
    result: Result<StreamEnd, SendError>,
}

/// Sends everything and returns the summary and the first failure.
pub(crate) fn run(
    plan: &ReplayPlan<'_>,
    sink: &dyn StreamSink,
    shutdown: &Shutdown,
) -> Result<(ReplaySummary, Option<Error>)> {
    let counts = ReplayCounts::default();
    let started = Instant::now();
    let mut tally = Tally::new(plan);
    thread::scope(|scope| -> Result<()> {
        // Bounded, so that outcomes cannot pile up while the terminal is slow.
        let (outcomes, ended) = crossbeam_channel::bounded(1024);
        let mut threads = Vec::new();
        for (number, lane) in plan.lanes.iter().enumerate() {
            let (outcomes, counts) = (outcomes.clone(), &counts);
            let send = move || send_lane(plan, lane, number as u64, sink, counts, shutdown, &outcomes);
            let spawned = thread::Builder::new()
                .name("replay".to_owned())
                .stack_size(STACK_BYTES)
                .spawn_scoped(scope, send);
            match spawned {
                Ok(thread) => threads.push(thread),
                Err(cause) => tally.fail_lane(lane, Error::system("start a thread")(cause)),
            }
            ended.try_iter().for_each(|outcome| tally.add_outcome(outcome));
        }
        drop(outcomes);
        loop {
            match ended.recv_timeout(PROGRESS_EVERY) {
                Ok(outcome) => tally.add_outcome(outcome),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            tally.bar.set_position(counts.bytes.load(Ordering::Relaxed));
        }
        // All threads are joined even if one panicked: otherwise the scope would panic.
        let failed = threads.into_iter().map(|thread| thread.join()).filter(|ended| ended.is_err()).count();
        if failed > 0 { Err(Error::Thread("replay".to_owned())) } else { Ok(()) }
    })?;
    Ok(tally.into_summary(&counts, started.elapsed()))
}

/// Body of a lane's thread: sends its rounds, one after another, until the shutdown.
fn send_lane(
    plan: &ReplayPlan<'_>,
    lane: &Lane<'_>,
    number: u64,
    sink: &dyn StreamSink,
    counts: &ReplayCounts,
    shutdown: &Shutdown,
    outcomes: &Channel<StreamOutcome>,
) {
    for round in 0..plan.rounds {
        let name = lane.naming.name_of_round(round);
        let nth = round * plan.lanes.len() as u64 + number;
        let fault = plan.fault_for_stream(nth);
        let (source, manner) = (lane.source, &plan.options);
        let result =
            OutgoingStream { source, name: &name, options: manner, fault, counts, shutdown }.send(sink);
        // The owner receives outcomes until the last lane is done.
        if outcomes.send(StreamOutcome { name, result }).is_err() || shutdown.is_triggered() {
            return;
        }
    }
}

impl ReplayPlan<'_> {
    fn fault_for_stream(&self, nth: u64) -> Option<(Fault, Random)> {
        let count = self.faults.len() as u64;
        (count > 0).then(|| (self.faults[(nth % count) as usize], Random::new(self.seed, nth)))
    }
}

/// Counts the outcomes.
struct Tally {
    summary: ReplaySummary,
    first: Option<Error>,
    bar: Progress,
    rounds: u64,
}

impl Tally {
    fn new(plan: &ReplayPlan<'_>) -> Tally {
        let bytes: u64 = plan.lanes.iter().map(|lane| lane.source.bytes()).sum();
        let length = Some(bytes.saturating_mul(plan.rounds));
        let bar = Progress::new(
            plan.progress,
            length,
            "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {elapsed}",
        );
        let summary = ReplaySummary {
            streams: plan.lanes.len() as u64 * plan.rounds,
            seed: (!plan.faults.is_empty()).then_some(plan.seed),
            ..ReplaySummary::default()
        };
        Tally { summary, first: None, bar, rounds: plan.rounds }
    }

    fn add_outcome(&mut self, outcome: StreamOutcome) {
        match outcome.result {
            Ok(StreamEnd::Whole) => self.summary.whole += 1,
            Ok(StreamEnd::CutByFault) => self.summary.cut_off += 1,
            Err(SendError::Stopped) => {} // counted with the streams that never started
            Err(SendError::Failed(cause)) => {
                self.summary.failed += 1;
                self.note_failure(&outcome.name, cause);
            }
        }
    }

    fn fail_lane(&mut self, lane: &Lane<'_>, cause: Error) {
        self.summary.failed += self.rounds;
        self.note_failure(&lane.naming.name_of_round(0), cause);
    }

    fn note_failure(&mut self, name: &[u8], cause: Error) {
        let (name, reason) = (String::from_utf8_lossy(name).into_owned(), error::chain(&cause));
        // Names may contain anything, so they are escaped for the terminal.
        log::warn!("stream_failed name={} reason={reason:?}", name.escape_debug());
        if self.summary.failures.len() < FAILURES_MAX {
            self.summary.failures.push(StreamFailure { name, reason });
        }
        self.first.get_or_insert(cause);
    }

    fn into_summary(self, counts: &ReplayCounts, time: Duration) -> (ReplaySummary, Option<Error>) {
        drop(self.bar);
        let mut summary = self.summary;
        let ended = summary.whole + summary.cut_off + summary.failed;
        summary.stopped = summary.streams - ended;
        summary.connections = counts.opened.load(Ordering::Relaxed);
        summary.bytes = counts.bytes.load(Ordering::Relaxed);
        summary.unconfirmed_bytes =
            summary.bytes.saturating_sub(counts.confirmed_bytes.load(Ordering::Relaxed));
        summary.gaps_shortened = counts.gaps_shortened.load(Ordering::Relaxed);
        summary.seconds = rounded(time.as_secs_f64());
        summary.mbps = rounded(summary.bytes as f64 * 8.0 / 1e6 / time.as_secs_f64());
        let quantile = |share| counts.lateness.quantile(share).map(|late| rounded(late.as_secs_f64() * 1e3));
        summary.lateness_p50_ms = quantile(0.5);
        summary.lateness_p99_ms = quantile(0.99);
        summary.lateness_max_ms = quantile(1.0);
        (summary, self.first)
    }
}

/// Rounds to three decimal places.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}
