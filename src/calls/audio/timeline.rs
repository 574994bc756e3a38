//! Packets of a call in file order, gathered into a [`Plan`].

use std::collections::BTreeMap;

use super::anchor::{Arrival, Runs, StreamAnchor};
use super::codec::AudioCodec;
use super::plan::{Bounds, Plan, PlanCounts, TrackPackets};
use crate::calls::view::Side;

/// Packets of a plan: 11 hours of both sides at 50 packets per second. At 32 bytes each, it bounds memory to
/// 128 MB. More are not heard.
const PACKETS_MAX: usize = 4_000_000;

/// Streams of one side. A call has a few; each holds up to 3 KB.
const STREAMS_MAX: usize = 1024;

/// Runs of one side: a restart per second for 18 hours.
const RUNS_MAX: usize = 65_536;

/// Codecs of a call. SDP has 96 dynamic payload types per media line; a call uses three or four.
const CODECS_MAX: usize = 64;

/// A packet that is by this much older than the one before it means that the clock of the capture was set back. Less is
/// the order in which a network card delivers from several queues.
const CLOCK_STEP_NS: i64 = 500_000_000;

/// Audio packet of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AudioPacket {
    pub side: Side,
    /// Nanoseconds since 1970.
    pub time_ns: i64,
    /// RTP timestamp and sequence number.
    pub timestamp: u32,
    pub sequence: u16,
    /// Number of the stream: the SSRC, or a number that also tells apart streams with the same SSRC and other
    /// addresses.
    pub stream: u32,
    /// `None` if the packet has no sound: comfort noise, telephone events. It only counts for the length of the call.
    pub codec: Option<AudioCodec>,
    /// Place of the payload in the capture, for the function that reads it. It grows in file order.
    pub place: u64,
    /// Length of the payload as far as it was captured.
    pub bytes: u16,
}

/// Limits of a plan.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlanLimits {
    pub packets: usize,
    pub streams: usize,
    pub runs: usize,
}

/// Times of the capture as differences: a step back of the clock counts as no time at all.
#[derive(Clone, Copy, Debug, Default)]
struct CaptureClock {
    last_ns: Option<i64>,
    set_back_ns: i64,
}

impl CaptureClock {
    fn time(&mut self, time_ns: i64) -> i64 {
        let step = self.last_ns.map_or(0, |last| last.saturating_sub(time_ns));
        if step > CLOCK_STEP_NS {
            self.set_back_ns = self.set_back_ns.saturating_add(step);
        }
        self.last_ns = Some(time_ns);
        time_ns.saturating_add(self.set_back_ns)
    }
}

/// Streams of one side.
#[derive(Debug)]
struct Track {
    streams: BTreeMap<u32, StreamAnchor>,
    runs: Runs,
}

/// Builds a [`Plan`] from the packets of a call.
#[derive(Debug)]
pub(crate) struct PlanBuilder {
    tracks: [Track; 2],
    codecs: Vec<AudioCodec>,
    clock: CaptureClock,
    limits: PlanLimits,
    /// `None` before the first packet.
    bounds: Option<Bounds>,
    counts: PlanCounts,
}

impl PlanBuilder {
    pub(crate) fn new() -> PlanBuilder {
        PlanBuilder::with_limits(PlanLimits { packets: PACKETS_MAX, streams: STREAMS_MAX, runs: RUNS_MAX })
    }

    pub(super) fn with_limits(limits: PlanLimits) -> PlanBuilder {
        let track =
            || Track { streams: BTreeMap::new(), runs: Runs { runs_max: limits.runs, ..Runs::default() } };
        PlanBuilder {
            tracks: [track(), track()],
            codecs: Vec::new(),
            clock: CaptureClock::default(),
            limits,
            bounds: None,
            counts: PlanCounts::default(),
        }
    }

    /// Adds the next packet of the capture that belongs to the call.
    pub(crate) fn add(&mut self, packet: &AudioPacket) {
        let time_ns = self.clock.time(packet.time_ns);
        self.counts.packets += 1;
        let ticks = packet.codec.map_or(0, |codec| codec.ticks(usize::from(packet.bytes)));
        self.extend_bounds(time_ns, ticks, packet.codec);
        let Some(codec) = packet.codec.filter(|_| packet.bytes > 0) else { return };

        let Some(codec_number) = self.codec_number(codec) else {
            self.counts.over_limit += 1;
            return;
        };
        if self.tracks.iter().map(Track::packets).sum::<usize>() >= self.limits.packets {
            self.counts.over_limit += 1;
            return;
        }
        let [caller, callee] = &mut self.tracks;
        let track = match packet.side {
            Side::Caller => caller,
            Side::Callee => callee,
        };
        let stream_count = track.streams.len();
        if stream_count >= self.limits.streams && !track.streams.contains_key(&packet.stream) {
            self.counts.over_limit += 1;
            return;
        }
        let stream =
            track.streams.entry(packet.stream).or_insert_with(|| StreamAnchor::new(stream_count as u32));
        let arrival = Arrival {
            time_ns,
            timestamp: packet.timestamp,
            sequence: packet.sequence,
            clock_hz: codec.clock_hz(),
            ticks,
            place: packet.place,
            bytes: packet.bytes,
            codec: codec_number,
        };
        stream.add(arrival, &mut track.runs);
    }

    /// Makes the plan of all packets so far.
    pub(crate) fn finish(mut self) -> Plan {
        let tracks = self.tracks.map(|mut track| {
            for stream in track.streams.values_mut() {
                stream.finish(&mut track.runs);
            }
            self.counts.misplaced += track.runs.misplaced;
            self.counts.over_limit += track.runs.without_run;
            TrackPackets { runs: track.runs.runs, packets: track.runs.packets }
        });
        Plan::new(tracks, self.codecs, self.bounds.unwrap_or_default(), self.counts)
    }

    fn extend_bounds(&mut self, time_ns: i64, ticks: u32, codec: Option<AudioCodec>) {
        let clock_hz = codec.map_or(1, AudioCodec::clock_hz);
        let duration_ns = i64::from(ticks) * 1_000_000_000 / i64::from(clock_hz);
        let end_ns = time_ns.saturating_add(duration_ns);
        let bounds =
            self.bounds.get_or_insert(Bounds { start_ns: time_ns, end_ns, last_packet_ns: duration_ns });
        bounds.start_ns = bounds.start_ns.min(time_ns);
        if end_ns >= bounds.end_ns {
            (bounds.end_ns, bounds.last_packet_ns) = (end_ns, duration_ns);
        }
    }

    fn codec_number(&mut self, codec: AudioCodec) -> Option<u8> {
        if let Some(number) = self.codecs.iter().position(|&known| known == codec) {
            return u8::try_from(number).ok();
        }
        if self.codecs.len() >= CODECS_MAX {
            return None;
        }
        self.codecs.push(codec);
        u8::try_from(self.codecs.len() - 1).ok()
    }
}

impl Track {
    fn packets(&self) -> usize {
        self.runs.packets.len()
    }
}
