//! Timestamps of one RTP stream on the clock of the capture.
//!
//! A run is a part of a stream whose timestamps count without a break. Its first arrivals say at which time of the
//! capture timestamp 0 of the run was: the median of [`ANCHOR_ARRIVALS`]. From then on timestamps alone place the
//! packets, so network jitter is not heard. A new run begins if the sequence restarts, the RTP clock changes, or if
//! timestamps and arrivals differ by more than [`DRIFT_NS_MAX`] for good.

use std::collections::VecDeque;

use super::plan::Placement;

/// Number of arrivals whose median anchors a run.
const ANCHOR_ARRIVALS: usize = 8;

/// Difference between arrivals and timestamps after which a run is anchored anew.
pub(super) const DRIFT_NS_MAX: i64 = 200_000_000;

/// Number of packets in a row that must disagree with their run, and agree with each other, before a new run begins. A
/// few late packets are not a new run.
const STEADY_PACKETS: usize = 8;

/// Packets of a stream that wait until it is clear whether they are late or begin a new run. Bounds memory per stream.
/// More are placed as late packets, the oldest first.
const SUSPECTS_MAX: usize = 64;

/// Packets later than this are not placed. No network holds a packet for that time, so its timestamp is wrong.
const LATE_NS_MAX: i64 = 10_000_000_000;

/// A sequence number that differs by more than this from the one before is a restart if the next packet continues it
/// (`MAX_DROPOUT` of RFC 3550 appendix A.1).
const DROPOUT_MAX: u16 = 3000;

/// A run that is shorter when its first arrivals turn out to be late is moved, instead of a new run begun.
const START_NS_MAX: i64 = 2_000_000_000;

/// Header of an audio packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub time_ns: i64,
    pub timestamp: u32,
    pub sequence: u16,
    pub clock_hz: u32,
    /// Duration in ticks.
    pub ticks: u32,
    pub place: u64,
    pub bytes: u16,
    /// Number of the codec in the plan.
    pub codec: u8,
}

/// Part of a stream whose timestamps count without a break.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// Number of the stream within its track.
    pub stream: u32,
    pub clock_hz: u32,
    /// Time of index 0. Indices of a run are ticks after its first packet.
    pub anchor_ns: i64,
    /// Lowest index among the arrivals that anchor the run. Later packets may have lower ones.
    pub first_index: i64,
    /// Highest end of a packet.
    pub end_index: i64,
    pub first_arrival_ns: i64,
    pub last_arrival_ns: i64,
}

impl Run {
    pub(super) fn time_of(&self, index: i64) -> i64 {
        self.anchor_ns.saturating_add(ticks_to_ns(index, self.clock_hz))
    }
}

/// Result of the streams of a track.
#[derive(Debug, Default)]
pub(super) struct Runs {
    pub runs: Vec<Run>,
    /// In order of arrival, not placed at a sample yet.
    pub packets: Vec<Placement>,
    /// Packets that fit nowhere: too late, or with a timestamp of no run.
    pub misplaced: u64,
    /// Packets that would have begun a run after the limit.
    pub without_run: u64,
    pub runs_max: usize,
}

fn ticks_to_ns(ticks: i64, clock_hz: u32) -> i64 {
    let ns = i128::from(ticks) * 1_000_000_000 / i128::from(clock_hz.max(1));
    i64::try_from(ns).unwrap_or(if ns < 0 { i64::MIN } else { i64::MAX })
}

/// Difference of two timestamps or sequence positions that may wrap.
fn ticks_between(from: u32, to: u32) -> i64 {
    i64::from(to.wrapping_sub(from) as i32)
}

/// Timestamps of a run, as they count on.
#[derive(Clone, Debug)]
struct RunClock {
    run: u32,
    clock_hz: u32,
    timestamp: u32,
    /// Index of `timestamp`.
    index: i64,
    sequence: u16,
    /// Arrival minus timestamp of the first packets, in nanoseconds.
    offsets: [i64; ANCHOR_ARRIVALS],
    offset_count: usize,
    anchor_ns: i64,
}

impl RunClock {
    fn index_of(&self, arrival: &Arrival) -> i64 {
        self.index + ticks_between(self.timestamp, arrival.timestamp)
    }

    /// Time by which a packet arrived after its place. Negative if before.
    fn delay_of(&self, arrival: &Arrival) -> i64 {
        let due = self.anchor_ns.saturating_add(ticks_to_ns(self.index_of(arrival), self.clock_hz));
        arrival.time_ns.saturating_sub(due)
    }

    fn is_on_time(&self, arrival: &Arrival) -> bool {
        self.delay_of(arrival).unsigned_abs() <= DRIFT_NS_MAX as u64
    }

    /// Takes the arrival of a packet that belongs to the run.
    fn follow(&mut self, arrival: &Arrival, runs: &mut [Run]) {
        let index = self.index_of(arrival);
        let run = runs.get_mut(self.run as usize);
        if let Some(offset) = self.offsets.get_mut(self.offset_count) {
            *offset = arrival.time_ns.saturating_sub(ticks_to_ns(index, self.clock_hz));
            self.offset_count += 1;
            let mut sorted = self.offsets;
            let sorted = sorted.get_mut(..self.offset_count).unwrap_or_default();
            sorted.sort_unstable();
            // Of an even number the lower one: delays are only ever added.
            let median = sorted.get((self.offset_count - 1) / 2);
            self.anchor_ns = median.copied().unwrap_or(self.anchor_ns);
            if let Some(run) = run {
                run.anchor_ns = self.anchor_ns;
                run.first_index = run.first_index.min(index);
            }
        }
        (self.timestamp, self.index, self.sequence) = (arrival.timestamp, index, arrival.sequence);
    }
}

/// Stream that is placed on the clock of the capture.
#[derive(Clone, Debug)]
pub(super) struct StreamAnchor {
    stream: u32,
    current: Option<RunClock>,
    previous: Option<RunClock>,
    /// Packets that disagree with the current run, in order of arrival.
    suspects: VecDeque<Arrival>,
}

impl StreamAnchor {
    pub(super) fn new(stream: u32) -> StreamAnchor {
        StreamAnchor { stream, current: None, previous: None, suspects: VecDeque::new() }
    }

    pub(super) fn add(&mut self, arrival: Arrival, runs: &mut Runs) {
        let Some(current) = &self.current else { return self.begin_run(&[arrival], runs) };
        let fits = current.clock_hz == arrival.clock_hz && i32::try_from(current.index_of(&arrival)).is_ok();
        if !fits {
            self.place_suspects(0, runs);
            self.begin_run(&[arrival], runs);
        } else if current.is_on_time(&arrival) {
            self.place_suspects(0, runs);
            self.place_on_time(&arrival, runs);
        } else {
            self.suspects.push_back(arrival);
            self.judge_suspects(runs);
        }
    }

    /// Places what is left at the end of the stream. Packets that agree with the last one are a run.
    pub(super) fn finish(&mut self, runs: &mut Runs) {
        let Some(&last) = self.suspects.back() else { return };
        let agrees = |suspect: &&Arrival| {
            let media = ticks_to_ns(ticks_between(suspect.timestamp, last.timestamp), last.clock_hz);
            let arrival = last.time_ns.saturating_sub(suspect.time_ns);
            arrival.saturating_sub(media).unsigned_abs() <= DRIFT_NS_MAX as u64
        };
        let count = self.suspects.iter().rev().take_while(agrees).count();
        let is_late =
            self.current.as_ref().is_some_and(|run| (0..LATE_NS_MAX).contains(&run.delay_of(&last)));
        if count == 1 && is_late {
            return self.place_suspects(0, runs);
        }
        self.place_suspects(count, runs);
        let group: Vec<Arrival> = self.suspects.drain(..).collect();
        self.begin_run(&group, runs);
    }

    /// Decides whether the last suspects begin a new run.
    fn judge_suspects(&mut self, runs: &mut Runs) {
        let Some(current) = &self.current else { return };
        let count = match self.suspects.make_contiguous() {
            [.., first, second] if is_restart(current.sequence, first, second) => 2,
            [.., a, b, c, d, e, f, g, h] if is_steady(&[*a, *b, *c, *d, *e, *f, *g, *h]) => STEADY_PACKETS,
            _ => 0,
        };
        if count > 0 {
            self.place_suspects(count, runs);
            let group: Vec<Arrival> = self.suspects.drain(..).collect();
            if !self.move_start(&group, runs) {
                self.begin_run(&group, runs);
            }
        } else if self.suspects.len() > SUSPECTS_MAX {
            self.place_suspects(SUSPECTS_MAX, runs);
        }
    }

    /// Moves a run that has only begun to an earlier time if its first arrivals were late, as after a burst.
    fn move_start(&mut self, group: &[Arrival], runs: &mut Runs) -> bool {
        let (Some(current), Some(first)) = (&mut self.current, group.first()) else { return false };
        let index = current.index_of(first);
        let is_continued = (index - current.index).unsigned_abs() <= u64::from(current.clock_hz);
        let is_start = ticks_to_ns(current.index, current.clock_hz) <= START_NS_MAX;
        if !is_continued || !is_start || current.delay_of(first) > 0 {
            return false;
        }
        current.offset_count = 0;
        for arrival in group {
            self.place_on_time(arrival, runs);
        }
        true
    }

    fn begin_run(&mut self, group: &[Arrival], runs: &mut Runs) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { return };
        if runs.runs.len() >= runs.runs_max {
            runs.without_run += group.len() as u64;
            return;
        }
        let run = runs.runs.len() as u32;
        runs.runs.push(Run {
            stream: self.stream,
            clock_hz: first.clock_hz,
            anchor_ns: first.time_ns,
            first_index: 0,
            end_index: 0,
            first_arrival_ns: first.time_ns,
            last_arrival_ns: last.time_ns,
        });
        let clock = RunClock {
            run,
            clock_hz: first.clock_hz,
            timestamp: first.timestamp,
            index: 0,
            sequence: first.sequence,
            offsets: [0; ANCHOR_ARRIVALS],
            offset_count: 0,
            anchor_ns: first.time_ns,
        };
        self.previous = self.current.replace(clock);
        for arrival in group {
            self.place_on_time(arrival, runs);
        }
    }

    fn place_on_time(&mut self, arrival: &Arrival, runs: &mut Runs) {
        if let Some(current) = &mut self.current {
            let index = current.index_of(arrival);
            place(current.run, index, arrival, runs);
            current.follow(arrival, &mut runs.runs);
        }
    }

    /// Places the oldest suspects where their timestamps belong, until only the newest `keep` are left.
    fn place_suspects(&mut self, keep: usize, runs: &mut Runs) {
        let count = self.suspects.len().saturating_sub(keep);
        for arrival in self.suspects.drain(..count) {
            let fits = |run: &&RunClock| {
                run.clock_hz == arrival.clock_hz
                    && run.delay_of(&arrival).unsigned_abs() <= LATE_NS_MAX as u64
            };
            match [&self.current, &self.previous].into_iter().flatten().find(fits) {
                Some(run) => place(run.run, run.index_of(&arrival), &arrival, runs),
                None => runs.misplaced += 1,
            }
        }
    }
}

fn place(run: u32, index: i64, arrival: &Arrival, runs: &mut Runs) {
    let (Ok(index), Some(data)) = (i32::try_from(index), runs.runs.get_mut(run as usize)) else {
        runs.misplaced += 1;
        return;
    };
    data.end_index = data.end_index.max(i64::from(index) + i64::from(arrival.ticks));
    data.last_arrival_ns = data.last_arrival_ns.max(arrival.time_ns);
    runs.packets.push(Placement {
        position: 0,
        place: arrival.place,
        index,
        run,
        bytes: arrival.bytes,
        sequence: arrival.sequence,
        span: Placement::SPAN_OPEN,
        codec: arrival.codec,
        is_before_loss: false,
    });
}

/// Reports whether a sequence that jumped goes on from where it jumped to (RFC 3550 appendix A.1).
fn is_restart(sequence: u16, first: &Arrival, second: &Arrival) -> bool {
    let jump = (first.sequence.wrapping_sub(sequence) as i16).unsigned_abs();
    jump > DROPOUT_MAX
        && second.sequence == first.sequence.wrapping_add(1)
        && first.clock_hz == second.clock_hz
}

/// Reports whether packets arrive as their timestamps say. Packets that were held up and arrive in a burst do not:
/// less than half of their media time passes between the first and the last.
fn is_steady(group: &[Arrival; STEADY_PACKETS]) -> bool {
    let [first, .., last] = group;
    let delay = |arrival: &Arrival| {
        let media = ticks_to_ns(ticks_between(first.timestamp, arrival.timestamp), first.clock_hz);
        arrival.time_ns.saturating_sub(first.time_ns).saturating_sub(media)
    };
    let media = ticks_to_ns(ticks_between(first.timestamp, last.timestamp), first.clock_hz);
    group.iter().all(|arrival| delay(arrival).unsigned_abs() <= DRIFT_NS_MAX as u64)
        && last.time_ns.saturating_sub(first.time_ns) >= media / 2
}
