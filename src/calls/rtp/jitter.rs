//! Inter-arrival jitter, time between packets, lateness, and the RTP clock they need.
//!
//! Jitter is that of RFC 3550 section 6.4.1: `J += (|D| - J) / 16`, where D is the difference of the times between two
//! packets at the sender (timestamps) and here. Mean and maximum follow the table of `tshark -z rtp,streams` 4.0, so that
//! both can be compared. What it does was found by measurement:
//!
//! - J takes in each packet in the order of arrival, reordered ones too, as in the RFC.
//! - Mean and maximum of J and of the time between packets leave out packets with the marker, comfort noise, and the packet
//!   after comfort noise. In the means such a packet counts as if it had the mean value.
//!
//! Where lea departs from tshark on purpose:
//!
//! - tshark takes duplicates in, as packets with the timestamp of the one before. Here they are left out.
//! - tshark takes telephone-events in: their timestamp is that of the start of the event, so that each event distorts J.
//!   Here they are left out, and the packet after them does not count for mean and maximum.
//! - tshark divides clocks by 1,000 without remainder, so that 44.1 kHz is 44 kHz and 11.025 kHz is 11 kHz.
//! - tshark has no jitter without a clock; here it is estimated.
//! - A timestamp that leaves its course by more than 5 s is a new course, and no jitter of hours.

use serde::{Deserialize, Serialize};

/// Clocks that are considered if none is known: 8, 16, 24, 32, 44.1, 48 kHz of audio, and 90 kHz of video.
const CANDIDATES_HZ: [u32; 7] = [8_000, 16_000, 24_000, 32_000, 44_100, 48_000, 90_000];

/// Nanoseconds per tick of the candidates.
const CANDIDATES_TICK_NS: [f64; 7] = {
    let mut ticks = [0.0; 7];
    let mut index = 0;
    while index < ticks.len() {
        ticks[index] = 1e9 / CANDIDATES_HZ[index] as f64;
        index += 1;
    }
    ticks
};

/// Clock that is assumed before there is enough to estimate it: that of nearly all telephony.
const DEFAULT_CLOCK_HZ: u32 = 8_000;

/// Time that has to pass before the estimate counts. 1 s, with at most 40 ms of jitter at its ends, is wrong by 4 %; 44.1
/// and 48 kHz differ by 8 %.
const ESTIMATE_NS: i64 = 1_000_000_000;

/// Packets with a longer gap do not enter the estimate: after a hold, timestamps may have gone on or not.
const ESTIMATE_GAP_NS: i64 = 1_000_000_000;

/// Ticks in [`ESTIMATE_GAP_NS`] at the highest clock.
const ESTIMATE_GAP_TICKS: i64 = 96_000;

/// Windows ([`super::windows`]) of 5 s whose jitter is kept for each candidate. After an hour without SDP the clock stays as
/// estimated.
pub(crate) const CANDIDATE_WINDOWS_MAX: usize = 720;

/// A timestamp that deviates by more from the capture's clock is a new course of the sender, as after a hold or a transfer.
const TIMESTAMP_JUMP_NS: f64 = 5e9;

/// Jitter buffer whose misses are counted as late.
const PLAYOUT_NS: f64 = 200e6;

/// Rate at which the playout clock follows the sender's: 500 ppm, more than quartz clocks differ by (100 ppm).
const PLAYOUT_DRIFT: f64 = 0.000_5;

/// Late packets in a row after which the playout clock starts anew, as a receiver does that hears nothing for a second.
const PLAYOUT_RESET_PACKETS: u8 = 50;

/// Silence before a marker from which on it is a new talkspurt, for which the playout clock may start anew.
const TALKSPURT_NS: f64 = 200e6;

/// What jitter needs of a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MediaPacket {
    pub time_ns: i64,
    pub timestamp: u32,
    pub is_marker: bool,
    pub is_comfort_noise: bool,
}

/// Statistics of a stream at one clock. Nanoseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Timing {
    jitter: f64,
    jitter_max: f64,
    /// Mean times number of intervals.
    jitter_sum: f64,
    /// Transit time compared with that of the first packet, and that of the packets that are played out without delay.
    transit: f64,
    playout: f64,
    late: u32,
    late_run: u8,
}

/// What one interval adds to a [`Timing`].
#[derive(Clone, Copy)]
struct Interval {
    elapsed_ns: f64,
    ticks: f64,
    /// Intervals so far, with this one.
    count: f64,
    is_regular: bool,
    is_marker: bool,
}

impl Timing {
    #[inline]
    fn add(&mut self, interval: &Interval, tick_ns: f64) -> bool {
        let media_ns = interval.ticks * tick_ns;
        let difference = interval.elapsed_ns - media_ns;
        let is_jump = difference.abs() > TIMESTAMP_JUMP_NS;
        if is_jump {
            self.playout = self.transit;
        } else {
            self.jitter += (difference.abs() - self.jitter) / 16.0;
            self.add_to_playout(difference, interval, media_ns);
        }
        if interval.is_regular && !is_jump {
            self.jitter_sum += self.jitter;
            self.jitter_max = self.jitter_max.max(self.jitter);
        } else {
            self.jitter_sum = weighted_on(self.jitter_sum, interval.count);
        }
        is_jump
    }

    #[inline]
    fn add_to_playout(&mut self, difference: f64, interval: &Interval, media_ns: f64) {
        self.transit += difference;
        self.playout = (self.playout + interval.elapsed_ns * PLAYOUT_DRIFT).min(self.transit);
        if interval.is_marker && media_ns > TALKSPURT_NS {
            self.playout = self.transit;
        }
        if self.transit - self.playout <= PLAYOUT_NS {
            self.late_run = 0;
            return;
        }
        self.late = self.late.saturating_add(1);
        self.late_run += 1;
        if self.late_run >= PLAYOUT_RESET_PACKETS {
            self.playout = self.transit;
            self.late_run = 0;
        }
    }
}

/// Sum of `count` values of which the last equals the mean of the others.
#[inline]
fn weighted_on(sum: f64, count: f64) -> f64 {
    if count > 1.5 { sum * (count / (count - 1.0)) } else { sum }
}

/// Statistics at each clock that may be that of the stream. Jitter cannot be converted from one clock to another, so it is
/// computed for all until the clock is known: late binding then gives what an early one would have given.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Candidates {
    timings: [Timing; 7],
    /// Ticks and nanoseconds that passed between packets in order.
    ticks: i64,
    elapsed_ns: i64,
    /// Highest jitter of the current window, and of those before in units of 0.1 ms.
    window_max: [f32; 7],
    windows: Vec<[u16; 7]>,
}

impl Candidates {
    /// Index of the clock whose ratio to the observed one is nearest to 1.
    fn estimate(&self) -> usize {
        if self.elapsed_ns < ESTIMATE_NS || self.ticks <= 0 {
            return nearest_candidate(DEFAULT_CLOCK_HZ.into());
        }
        nearest_candidate(self.ticks as f64 * 1e9 / self.elapsed_ns as f64)
    }

    fn add(&mut self, interval: &Interval, elapsed_ns: i64, ticks: i32) {
        for ((timing, max), tick_ns) in
            self.timings.iter_mut().zip(&mut self.window_max).zip(CANDIDATES_TICK_NS)
        {
            timing.add(interval, tick_ns);
            *max = max.max(timing.jitter as f32);
        }
        let ticks = i64::from(ticks);
        if (0..ESTIMATE_GAP_NS).contains(&elapsed_ns) && (1..ESTIMATE_GAP_TICKS).contains(&ticks) {
            self.elapsed_ns = self.elapsed_ns.saturating_add(elapsed_ns);
            self.ticks = self.ticks.saturating_add(ticks);
        }
    }
}

fn nearest_candidate(clock_hz: f64) -> usize {
    let distance = |hz: u32| (clock_hz / f64::from(hz)).ln().abs();
    (0..CANDIDATES_HZ.len())
        .min_by(|&a, &b| distance(CANDIDATES_HZ[a]).total_cmp(&distance(CANDIDATES_HZ[b])))
        .unwrap_or_default()
}

/// Jitter, lateness and time between the media packets of a stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Jitter {
    /// Clock in hertz; 0 as long as there are candidates.
    clock_hz: u32,
    is_estimated: bool,
    tick_ns: f64,
    last_ns: i64,
    last_timestamp: u32,
    has_last: bool,
    /// The packet before was comfort noise or an event.
    is_after_gap: bool,
    /// Intervals between packets.
    count: u64,
    delta_min: i64,
    delta_max: i64,
    delta_sum: f64,
    timing: Timing,
    /// Highest jitter of the current window.
    window_max: f32,
    candidates: Option<Box<Candidates>>,
    /// Times that timestamps took a new course.
    timestamp_jumps: u32,
}

impl Default for Jitter {
    fn default() -> Self {
        Jitter {
            clock_hz: 0,
            is_estimated: false,
            tick_ns: 0.0,
            last_ns: 0,
            last_timestamp: 0,
            has_last: false,
            is_after_gap: false,
            count: 0,
            delta_min: i64::MAX,
            delta_max: 0,
            delta_sum: 0.0,
            timing: Timing::default(),
            window_max: 0.0,
            candidates: None,
            timestamp_jumps: 0,
        }
    }
}

/// Mean, least and highest of a stream, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct TimingTotals {
    pub clock_hz: u32,
    pub is_clock_estimated: bool,
    pub jitter_mean_ms: f64,
    pub jitter_max_ms: f64,
    pub delta_min_ms: f64,
    pub delta_mean_ms: f64,
    pub delta_max_ms: f64,
    pub late: u64,
    pub timestamp_jumps: u32,
}

impl Jitter {
    /// Accounts a packet. `clock_hz` is 0 if it is unknown; then the clock of the packets before is used.
    #[inline]
    pub(crate) fn add(&mut self, packet: &MediaPacket, clock_hz: u32) {
        if clock_hz != self.clock_hz || self.is_estimated || (clock_hz == 0 && self.candidates.is_none()) {
            self.change_clock(clock_hz);
        }
        if !self.has_last {
            return self.start(packet);
        }
        let elapsed_ns = packet.time_ns.saturating_sub(self.last_ns).max(0);
        let ticks = packet.timestamp.wrapping_sub(self.last_timestamp) as i32;
        self.count += 1;
        let interval = Interval {
            elapsed_ns: elapsed_ns as f64,
            ticks: f64::from(ticks),
            count: self.count as f64,
            is_regular: !packet.is_marker && !packet.is_comfort_noise && !self.is_after_gap,
            is_marker: packet.is_marker,
        };
        if interval.is_regular {
            self.delta_sum += interval.elapsed_ns;
            self.delta_min = self.delta_min.min(elapsed_ns);
            self.delta_max = self.delta_max.max(elapsed_ns);
        } else {
            self.delta_sum = weighted_on(self.delta_sum, interval.count);
        }
        if let Some(candidates) = &mut self.candidates {
            candidates.add(&interval, elapsed_ns, ticks);
        } else {
            let is_jump = self.timing.add(&interval, self.tick_ns);
            self.timestamp_jumps = self.timestamp_jumps.saturating_add(is_jump.into());
            self.window_max = self.window_max.max(self.timing.jitter as f32);
        }
        self.start(packet);
    }

    /// Takes the packet as the one before the next.
    #[inline]
    fn start(&mut self, packet: &MediaPacket) {
        self.last_ns = packet.time_ns;
        self.last_timestamp = packet.timestamp;
        self.is_after_gap = packet.is_comfort_noise;
        self.has_last = true;
    }

    /// Starts anew with the next packet: there is no interval before it.
    pub(crate) fn restart(&mut self) {
        self.has_last = false;
    }

    /// Notes that packets without a place in the timing came: the interval over them is longer than usual.
    #[inline]
    pub(crate) fn add_gap(&mut self) {
        self.is_after_gap = true;
    }

    #[cold]
    fn change_clock(&mut self, clock_hz: u32) {
        match (clock_hz, self.clock_hz) {
            (0, 0) if self.candidates.is_none() => self.candidates = Some(Box::default()),
            (0, _) => {}
            (new, old) if new == old => self.is_estimated = false,
            (_, 0) => self.set_clock(clock_hz),
            // Another codec: the timestamps of both cannot be compared.
            _ => {
                self.set_clock(clock_hz);
                self.has_last = false;
            }
        }
    }

    /// Makes the clock known. Statistics so far are those of the candidate with this clock, or with the nearest one.
    fn set_clock(&mut self, clock_hz: u32) {
        if let Some(candidates) = self.candidates.take() {
            let index = nearest_candidate(clock_hz.into());
            self.timing = candidates.timings[index];
            self.window_max = candidates.window_max[index];
        }
        self.clock_hz = clock_hz;
        self.is_estimated = false;
        self.tick_ns = 1e9 / f64::from(clock_hz);
    }

    /// Tells the clock, if it is unknown or estimated. A known one stays: the packets were computed with it.
    pub(crate) fn bind(&mut self, clock_hz: u32) {
        if self.clock_hz == 0 {
            self.set_clock(clock_hz);
        } else if self.clock_hz == clock_hz {
            self.is_estimated = false;
        }
    }

    /// Whether the clock has to be looked for.
    pub(crate) fn has_unknown_clock(&self) -> bool {
        self.clock_hz == 0
    }

    /// Jitter of the windows so far at the clock, in units of 0.1 ms, if the clock is not bound yet.
    pub(crate) fn candidate_windows(&self, clock_hz: u32) -> Option<impl Iterator<Item = u16> + '_> {
        let candidates = self.candidates.as_deref()?;
        let index = nearest_candidate(clock_hz.into());
        Some(candidates.windows.iter().map(move |jitter| jitter[index]))
    }

    /// Highest jitter of the current window in microseconds, at the best clock so far.
    pub(crate) fn window_max_us(&self) -> u32 {
        let max = match self.candidates.as_deref() {
            Some(candidates) => candidates.window_max[candidates.estimate()],
            None => self.window_max,
        };
        (max / 1e3) as u32
    }

    /// Ends the current window.
    pub(crate) fn end_window(&mut self) {
        self.window_max = 0.0;
        if self.clock_hz == 0 && self.candidates.is_none() {
            self.candidates = Some(Box::default());
        }
        let Some(candidates) = self.candidates.as_deref_mut() else { return };
        candidates.windows.push(candidates.window_max.map(|ns| (ns / 1e5) as u16));
        candidates.window_max = [0.0; 7];
        if candidates.windows.len() >= CANDIDATE_WINDOWS_MAX {
            let clock_hz = CANDIDATES_HZ[candidates.estimate()];
            self.set_clock(clock_hz);
            self.is_estimated = true;
        }
    }

    /// Clock in hertz that is used now: the known one, or the best estimate.
    pub(crate) fn clock_hz(&self) -> u32 {
        match self.candidates.as_deref() {
            Some(candidates) => CANDIDATES_HZ[candidates.estimate()],
            None if self.clock_hz == 0 => DEFAULT_CLOCK_HZ,
            None => self.clock_hz,
        }
    }

    pub(crate) fn totals(&self) -> TimingTotals {
        let timing = match self.candidates.as_deref() {
            Some(candidates) => &candidates.timings[candidates.estimate()],
            None => &self.timing,
        };
        let count = self.count.max(1) as f64;
        TimingTotals {
            clock_hz: self.clock_hz(),
            is_clock_estimated: self.is_estimated || self.clock_hz == 0,
            jitter_mean_ms: timing.jitter_sum / count / 1e6,
            jitter_max_ms: timing.jitter_max / 1e6,
            delta_min_ms: if self.delta_min == i64::MAX { 0.0 } else { self.delta_min as f64 / 1e6 },
            delta_mean_ms: self.delta_sum / count / 1e6,
            delta_max_ms: self.delta_max as f64 / 1e6,
            late: timing.late.into(),
            timestamp_jumps: self.timestamp_jumps,
        }
    }
}

#[cfg(test)]
#[path = "jitter_tests.rs"]
mod tests;
