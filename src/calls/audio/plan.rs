//! Plan of a call's audio: which packet is heard at which sample of the output.

use super::anchor::Run;
use super::codec::AudioCodec;
use super::resample::{self, Ratio};
use crate::calls::view::Side;

/// Rate of the output in hertz if no codec of the call can be decoded.
const DEFAULT_RATE_HZ: u32 = 8000;

/// Numbers of packets that a plan has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PlanCounts {
    pub packets: u64,
    /// Repeated packets: the same run and timestamp as one before.
    pub duplicates: u64,
    /// Packets that belong to no run: more than 10 s late, or with a stray timestamp.
    pub misplaced: u64,
    /// Packets after one of the limits of the plan. They are not heard.
    pub over_limit: u64,
}

/// Packet at its place in the output.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placement {
    /// Sample of the output at which it begins. Negative if a late packet belongs before the first arrival of the call.
    pub position: i64,
    /// Place of the payload in the capture.
    pub place: u64,
    /// RTP clock ticks after index 0 of its run.
    pub index: i32,
    pub run: u32,
    pub bytes: u16,
    pub sequence: u16,
    /// Ticks until the next packet of the run begins, or [`Placement::SPAN_OPEN`].
    pub span: u16,
    pub codec: u8,
    /// Whether sequence numbers are missing before the next packet of the run.
    pub is_before_loss: bool,
}

impl Placement {
    /// No packet follows within the ticks that the field can hold.
    pub(super) const SPAN_OPEN: u16 = u16::MAX;
}

/// Run on the samples of the output.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlanRun {
    pub stream: u32,
    pub clock_hz: u32,
    /// Sample of index 0.
    pub start: i64,
    /// Time of index 0 in nanoseconds after the beginning of the call.
    offset_ns: i64,
    /// Sample from which another run has the side for itself.
    pub limit: i64,
}

/// One side of the call.
#[derive(Debug, Default)]
pub(super) struct PlanTrack {
    pub runs: Vec<PlanRun>,
    /// Sorted by position.
    pub placements: Vec<Placement>,
    /// Longest packet with concealment and filter, in samples of the output.
    pub longest: u64,
    /// End of the last packet that can be decoded.
    end: i64,
    pub has_audio: bool,
}

/// Runs and packets of one side, before they are placed on the output.
#[derive(Debug)]
pub(super) struct TrackPackets {
    pub runs: Vec<Run>,
    pub packets: Vec<Placement>,
}

/// Packet of a plan, for what is not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlannedPacket {
    /// Begin of the packet after the beginning of the call, in units of the rate that was asked for.
    pub position: i64,
    /// Place and length of the payload in the capture.
    pub place: u64,
    pub bytes: u16,
    pub codec: AudioCodec,
}

/// Begin and end of a call's audio, by arrivals.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bounds {
    /// Arrival of the first packet.
    pub start_ns: i64,
    /// Arrival and duration of the packet that ends last, together.
    pub end_ns: i64,
    pub last_packet_ns: i64,
}

/// Audio of a call, ready to be rendered.
///
/// Sample 0 is the first arrival of either side. The output ends with the packet that ends last by its arrival, or up
/// to the duration of that packet later if its timestamp says so.
#[derive(Debug)]
pub(crate) struct Plan {
    tracks: [PlanTrack; 2],
    codecs: Vec<AudioCodec>,
    rate_hz: u32,
    start_ns: i64,
    frames: u64,
    counts: PlanCounts,
}

impl Plan {
    pub(super) fn new(
        tracks: [TrackPackets; 2],
        codecs: Vec<AudioCodec>,
        bounds: Bounds,
        mut counts: PlanCounts,
    ) -> Plan {
        let decoded = codecs.iter().filter(|codec| codec.can_decode());
        let rate_hz = decoded.map(|codec| codec.sample_rate()).max().unwrap_or(DEFAULT_RATE_HZ);
        let Bounds { start_ns, end_ns, last_packet_ns } = bounds;
        let tracks = tracks.map(|track| {
            let (track, duplicates) = place_track(track, &codecs, rate_hz, start_ns);
            counts.duplicates += duplicates;
            track
        });
        let arrived = samples_of(end_ns.saturating_sub(start_ns), rate_hz);
        let end = tracks.iter().map(|track| track.end).max().unwrap_or(0);
        let frames = end.min(arrived.saturating_add(samples_of(last_packet_ns, rate_hz))).max(arrived);
        Plan { tracks, codecs, rate_hz, start_ns, frames: u64::try_from(frames).unwrap_or(0), counts }
    }

    /// Sample rate of the output: the highest of the codecs that are decoded.
    pub(crate) fn rate_hz(&self) -> u32 {
        self.rate_hz
    }

    /// Samples per channel of the output.
    pub(crate) fn frames(&self) -> u64 {
        self.frames
    }

    /// Time of sample 0. Nanoseconds since 1970.
    pub(crate) fn start_ns(&self) -> i64 {
        self.start_ns
    }

    pub(crate) fn counts(&self) -> PlanCounts {
        self.counts
    }

    /// Reports whether a side has a packet that can be decoded.
    pub(crate) fn has_audio(&self, side: Side) -> bool {
        self.track(side).has_audio
    }

    /// Packets of a side in the order in which they are heard, without duplicates. Positions are in units of `rate_hz`.
    pub(crate) fn packets(&self, side: Side, rate_hz: u32) -> impl Iterator<Item = PlannedPacket> {
        let track = self.track(side);
        track.placements.iter().filter_map(move |placement| {
            let run = track.runs.get(placement.run as usize)?;
            let ticks = Ratio::new(rate_hz, run.clock_hz).output(i64::from(placement.index));
            Some(PlannedPacket {
                position: samples_of(run.offset_ns, rate_hz).saturating_add(ticks),
                place: placement.place,
                bytes: placement.bytes,
                codec: self.codec(placement)?,
            })
        })
    }

    pub(super) fn track(&self, side: Side) -> &PlanTrack {
        let [caller, callee] = &self.tracks;
        match side {
            Side::Caller => caller,
            Side::Callee => callee,
        }
    }

    pub(super) fn codec(&self, placement: &Placement) -> Option<AudioCodec> {
        self.codecs.get(usize::from(placement.codec)).copied()
    }

    pub(super) fn has_state(&self) -> bool {
        self.codecs.iter().any(|codec| codec.has_state())
    }

    /// Source rates that have to be converted to that of the output.
    pub(super) fn rates_hz(&self) -> impl Iterator<Item = u32> {
        self.codecs.iter().filter(|codec| codec.can_decode()).map(|codec| codec.sample_rate())
    }
}

/// Samples in a time, rounded to the nearest.
fn samples_of(ns: i64, rate_hz: u32) -> i64 {
    let scaled = i128::from(ns) * i128::from(rate_hz);
    let samples = (scaled + 500_000_000).div_euclid(1_000_000_000);
    i64::try_from(samples).unwrap_or(if ns < 0 { i64::MIN } else { i64::MAX })
}

/// Places a track on the output. Also returns the number of duplicates.
fn place_track(
    mut track: TrackPackets,
    codecs: &[AudioCodec],
    rate_hz: u32,
    start_ns: i64,
) -> (PlanTrack, u64) {
    let runs = place_runs(&mut track.runs, rate_hz, start_ns);
    let mut placements = track.packets;
    let received = placements.len();
    // Of repeated packets the first arrival stays.
    placements.sort_unstable_by_key(|packet| (packet.run, packet.index, packet.place));
    placements.dedup_by_key(|packet| (packet.run, packet.index));
    let duplicates = (received - placements.len()) as u64;
    set_spans(&mut placements);

    let (mut longest, mut end, mut has_audio) = (0, 0, false);
    for placement in &mut placements {
        let (Some(run), Some(codec)) =
            (runs.get(placement.run as usize), codecs.get(usize::from(placement.codec)))
        else {
            continue;
        };
        let ratio = Ratio::new(rate_hz, run.clock_hz);
        placement.position = run.start.saturating_add(ratio.output(i64::from(placement.index)));
        if codec.can_decode() {
            let ticks = i64::from(codec.ticks(usize::from(placement.bytes)));
            // Concealment makes it at most twice as long.
            longest = longest.max(ratio.output(2 * ticks) + 1);
            end = end.max(placement.position.saturating_add(ratio.output(ticks)).min(run.limit));
            has_audio = true;
        }
    }
    placements.sort_unstable_by_key(|packet| (packet.position, packet.run, packet.index));
    let longest = u64::try_from(longest + resample::margin(rate_hz)).unwrap_or(0);
    (PlanTrack { runs, placements, longest, end, has_audio }, duplicates)
}

/// `placements` are sorted by run and index.
fn set_spans(placements: &mut [Placement]) {
    for index in 1..placements.len() {
        let [.., first, second] = &mut placements[..=index] else { continue };
        if first.run == second.run {
            let span = i64::from(second.index) - i64::from(first.index);
            first.span = u16::try_from(span).unwrap_or(Placement::SPAN_OPEN);
            let step = second.sequence.wrapping_sub(first.sequence);
            first.is_before_loss = step > 1 && step < u16::MAX / 2;
        }
    }
}

/// Places runs on the output, and ends each where the next one begins if they follow each other.
fn place_runs(runs: &mut [Run], rate_hz: u32, start_ns: i64) -> Vec<PlanRun> {
    let mut placed: Vec<PlanRun> = Vec::with_capacity(runs.len());
    for run in runs.iter_mut() {
        // A first packet that was slow belongs before the first arrival. The run then begins with it.
        let early = start_ns.saturating_sub(run.time_of(run.first_index)).max(0);
        run.anchor_ns = run.anchor_ns.saturating_add(early);
        let offset_ns = run.anchor_ns.saturating_sub(start_ns);
        let start = samples_of(offset_ns, rate_hz);
        placed.push(PlanRun {
            stream: run.stream,
            clock_hz: run.clock_hz,
            start,
            offset_ns,
            limit: i64::MAX,
        });
    }
    let mut order: Vec<usize> = (0..runs.len()).collect();
    order.sort_by_key(|&run| runs.get(run).map(|run| run.first_arrival_ns));
    for pair in order.windows(2) {
        end_at_next(pair, runs, &mut placed, rate_hz);
    }
    order.sort_by_key(|&run| runs.get(run).map(|run| (run.stream, run.first_arrival_ns)));
    for pair in order.windows(2) {
        end_at_next(pair, runs, &mut placed, rate_hz);
    }
    placed
}

/// Ends a run where the next one begins, if the next one only began to arrive when it had ended. Runs that arrive at
/// the same time are both heard.
fn end_at_next(pair: &[usize], runs: &[Run], placed: &mut [PlanRun], rate_hz: u32) {
    let &[run, next] = pair else { return };
    let (Some(before), Some(after), Some(&next)) = (runs.get(run), runs.get(next), placed.get(next)) else {
        return;
    };
    if before.last_arrival_ns <= after.first_arrival_ns
        && let Some(run) = placed.get_mut(run)
    {
        let first = Ratio::new(rate_hz, next.clock_hz).output(after.first_index);
        run.limit = run.limit.min(next.start.saturating_add(first));
    }
}
