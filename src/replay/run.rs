//! A run: a thread a lane (a file's copy, sent one or more times), and what they did together. The caller's thread
//! owns and joins them, moves the progress bar and names what failed.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender as Channel};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::replay::fault::{Fault, Random};
use crate::replay::names::Naming;
use crate::replay::sink::{Broken, Sink};
use crate::replay::source::Source;
use crate::replay::stream::{Counts, End, Manner, Stream};
use crate::stop::Stop;
use crate::{Error, Result, error};

/// A stream's thread holds no buffers on its stack; 10,000 of them are to fit.
const STACK_BYTES: usize = 128 * 1024;
/// How often the progress bar moves.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// Failures that the summary lists; the log has all.
const FAILURES_MAX: usize = 1000;

/// A file's copy.
#[derive(Debug)]
pub struct Lane<'a> {
    /// The file.
    pub source: &'a Source,
    /// The copy's names.
    pub naming: Naming,
}

/// What a run does.
#[derive(Debug)]
pub struct Plan<'a> {
    /// What goes at once.
    pub lanes: Vec<Lane<'a>>,
    /// How often each lane sends its file.
    pub rounds: u64,
    /// How.
    pub manner: Manner,
    /// The faults; streams take them in turn.
    pub faults: Vec<Fault>,
    /// Where the faults come from.
    pub seed: u64,
    /// True for a bar on stderr, where that is a terminal.
    pub progress: bool,
}

/// What a run did. Serialized, it is the `--json` line.
#[derive(Debug, Default, Serialize)]
pub struct Summary {
    /// Streams that were to be sent.
    pub streams: u64,
    /// Streams that were sent to their last byte.
    pub whole: u64,
    /// Streams that a fault cut off, as asked.
    pub cut_off: u64,
    /// Streams that a signal kept from their end.
    pub stopped: u64,
    /// Streams that failed.
    pub failed: u64,
    /// Connections that got as far as their name.
    pub connections: u64,
    /// Bytes of content, re-sent ones again.
    pub bytes: u64,
    /// From the first connection to the last close.
    pub seconds: f64,
    /// Megabits (10^6) a second, of all streams together.
    pub mbps: f64,
    /// How late sends were against their pace; none at top speed.
    pub lateness_p50_ms: Option<f64>,
    /// Ninety-nine of a hundred were no later.
    pub lateness_p99_ms: Option<f64>,
    /// The latest.
    pub lateness_max_ms: Option<f64>,
    /// The seed of the faults, if there were any.
    pub seed: Option<u64>,
    /// The streams that failed; the first thousand.
    pub failures: Vec<Failure>,
}

/// A stream that failed.
#[derive(Debug, Serialize)]
pub struct Failure {
    /// Its name, bytes that are no text replaced.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// What became of one stream.
struct Outcome {
    name: Vec<u8>,
    result: Result<End, Broken>,
}

/// Sends everything, then sums up. The second value is the first failure.
pub fn run(plan: &Plan<'_>, sink: &dyn Sink, stop: &Stop) -> Result<(Summary, Option<Error>)> {
    let counts = Counts::default();
    let begun = Instant::now();
    let mut tally = Tally::new(plan);
    thread::scope(|scope| -> Result<()> {
        // A bound, so that outcomes cannot pile up while the terminal is slow.
        let (outcomes, ended) = crossbeam_channel::bounded(1024);
        let mut threads = Vec::new();
        for (number, lane) in plan.lanes.iter().enumerate() {
            let (outcomes, counts) = (outcomes.clone(), &counts);
            let send = move || send_lane(plan, lane, number as u64, sink, counts, stop, &outcomes);
            let spawned = thread::Builder::new()
                .name("replay".to_owned())
                .stack_size(STACK_BYTES)
                .spawn_scoped(scope, send);
            match spawned {
                Ok(thread) => threads.push(thread),
                Err(cause) => tally.fail_lane(lane, Error::system("start a thread")(cause)),
            }
            ended.try_iter().for_each(|outcome| tally.take(outcome));
        }
        drop(outcomes);
        loop {
            match ended.recv_timeout(PROGRESS_EVERY) {
                Ok(outcome) => tally.take(outcome),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            tally.bar.set_position(counts.bytes.load(Ordering::Relaxed));
        }
        // Each is joined even if one of them failed: the scope would panic otherwise.
        let failed = threads.into_iter().map(|thread| thread.join()).filter(|ended| ended.is_err()).count();
        if failed > 0 { Err(Error::Thread("replay".to_owned())) } else { Ok(()) }
    })?;
    Ok(tally.sum_up(&counts, begun.elapsed()))
}

/// A lane's thread: its rounds, one after another, until the stop.
fn send_lane(
    plan: &Plan<'_>,
    lane: &Lane<'_>,
    number: u64,
    sink: &dyn Sink,
    counts: &Counts,
    stop: &Stop,
    outcomes: &Channel<Outcome>,
) {
    for round in 0..plan.rounds {
        let name = lane.naming.name(round);
        let nth = round * plan.lanes.len() as u64 + number;
        let fault = plan.fault_of(nth);
        let (source, manner) = (lane.source, &plan.manner);
        let result = Stream { source, name: &name, manner, fault, counts, stop }.send(sink);
        // The owner takes outcomes until the last lane is done.
        if outcomes.send(Outcome { name, result }).is_err() || stop.is_asked() {
            return;
        }
    }
}

impl Plan<'_> {
    fn fault_of(&self, nth: u64) -> Option<(Fault, Random)> {
        let count = self.faults.len() as u64;
        (count > 0).then(|| (self.faults[(nth % count) as usize], Random::new(self.seed, nth)))
    }
}

/// Counts what became of the streams.
struct Tally {
    summary: Summary,
    first: Option<Error>,
    bar: ProgressBar,
    rounds: u64,
}

impl Tally {
    fn new(plan: &Plan<'_>) -> Tally {
        let bytes: u64 = plan.lanes.iter().map(|lane| lane.source.bytes()).sum();
        let target = if plan.progress { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(bytes.saturating_mul(plan.rounds)), target);
        let style =
            ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {elapsed}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let summary = Summary {
            streams: plan.lanes.len() as u64 * plan.rounds,
            seed: (!plan.faults.is_empty()).then_some(plan.seed),
            ..Summary::default()
        };
        Tally { summary, first: None, bar, rounds: plan.rounds }
    }

    fn take(&mut self, outcome: Outcome) {
        match outcome.result {
            Ok(End::Whole) => self.summary.whole += 1,
            Ok(End::CutOff) => self.summary.cut_off += 1,
            Err(Broken::Stopped) => {} // as those that never began
            Err(Broken::Failed(cause)) => {
                self.summary.failed += 1;
                self.note_failure(&outcome.name, cause);
            }
        }
    }

    fn fail_lane(&mut self, lane: &Lane<'_>, cause: Error) {
        self.summary.failed += self.rounds;
        self.note_failure(&lane.naming.name(0), cause);
    }

    fn note_failure(&mut self, name: &[u8], cause: Error) {
        let (name, reason) = (String::from_utf8_lossy(name).into_owned(), error::chain(&cause));
        // Names may hold anything; what goes to a terminal is escaped.
        self.bar.suspend(|| log::warn!("stream_failed name={} reason={reason:?}", name.escape_debug()));
        if self.summary.failures.len() < FAILURES_MAX {
            self.summary.failures.push(Failure { name, reason });
        }
        self.first.get_or_insert(cause);
    }

    fn sum_up(self, counts: &Counts, time: Duration) -> (Summary, Option<Error>) {
        self.bar.finish_and_clear();
        let mut summary = self.summary;
        let ended = summary.whole + summary.cut_off + summary.failed;
        summary.stopped = summary.streams - ended;
        summary.connections = counts.opened.load(Ordering::Relaxed);
        summary.bytes = counts.bytes.load(Ordering::Relaxed);
        summary.seconds = rounded(time.as_secs_f64());
        summary.mbps = rounded(summary.bytes as f64 * 8.0 / 1e6 / time.as_secs_f64());
        let quantile = |share| counts.lateness.quantile(share).map(|late| rounded(late.as_secs_f64() * 1e3));
        summary.lateness_p50_ms = quantile(0.5);
        summary.lateness_p99_ms = quantile(0.99);
        summary.lateness_max_ms = quantile(1.0);
        (summary, self.first)
    }
}

/// To three places.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}
