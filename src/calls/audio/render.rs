//! Samples of any range of a [`Plan`].

use std::ops::Range;

use super::codec::{AudioCodec, Decoder};
use super::plan::{Placement, Plan, PlanRun, PlanTrack};
use super::resample::{self, Ratio, Resampler, UNITY_BITS};
use crate::calls::view::Side;

/// Output samples that are made at once. With the longest packet it bounds the memory of a renderer.
const BLOCK_FRAMES: u64 = 8192;

/// Packets of a side that are read before a range that does not follow the last one. A G.722 decoder needs the samples
/// before to converge: after 0.5 s of speech its output does not differ any more. These are 1.3 s at 20 ms per packet.
const WARM_UP_PACKETS: usize = 64;

/// Decoders with state that a side has at the same time. A side has one stream, or two for a moment. The one that was
/// idle longest begins anew.
const DECODERS_MAX: usize = 8;

/// Channels of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// Two channels: left the caller, right the callee.
    Both,
    /// One channel, on the same clock as both.
    One(Side),
}

impl Output {
    pub(crate) fn channels(self) -> u16 {
        self.sides().len() as u16
    }

    fn sides(self) -> &'static [Side] {
        match self {
            Output::Both => &[Side::Caller, Side::Callee],
            Output::One(Side::Caller) => &[Side::Caller],
            Output::One(Side::Callee) => &[Side::Callee],
        }
    }
}

/// Renders ranges of a plan. Ranges that follow each other are exact for every codec; after a seek, G.722 needs
/// [`WARM_UP_PACKETS`] before the range.
#[derive(Debug)]
pub(crate) struct Renderer<'a> {
    plan: &'a Plan,
    tracks: Vec<TrackRenderer<'a>>,
    /// Position after the last range. `None` after an error: then the state of the decoders is unknown.
    next: Option<u64>,
    samples: Vec<i16>,
}

impl<'a> Renderer<'a> {
    /// With `is_concealing`, a packet before lost ones is repeated once instead of silence.
    pub(crate) fn new(plan: &'a Plan, output: Output, is_concealing: bool) -> Renderer<'a> {
        let tracks =
            output.sides().iter().map(|&side| TrackRenderer::new(plan, side, is_concealing)).collect();
        Renderer { plan, tracks, next: None, samples: Vec::new() }
    }

    /// Appends interleaved samples of the frames in `range`. After the end of the plan there are none.
    ///
    /// `read` appends the payload of a packet, given its place and length, to an empty buffer.
    pub(crate) fn render<E>(
        &mut self,
        range: Range<u64>,
        mut read: impl FnMut(u64, u16, &mut Vec<u8>) -> Result<(), E>,
        interleaved: &mut Vec<i16>,
    ) -> Result<(), E> {
        let end = range.end.min(self.plan.frames());
        let mut start = range.start.min(end);
        if self.next != Some(start) {
            self.tracks.iter_mut().for_each(|track| track.seek(start));
        }
        self.next = None;
        while start < end {
            let frames = (end - start).min(BLOCK_FRAMES);
            self.render_block(start, frames as usize, &mut read, interleaved)?;
            start += frames;
        }
        self.next = Some(end);
        Ok(())
    }

    fn render_block<E>(
        &mut self,
        start: u64,
        frames: usize,
        read: &mut impl FnMut(u64, u16, &mut Vec<u8>) -> Result<(), E>,
        interleaved: &mut Vec<i16>,
    ) -> Result<(), E> {
        let channels = self.tracks.len();
        let first = interleaved.len();
        interleaved.resize(first + frames * channels, 0);
        for (channel, track) in self.tracks.iter_mut().enumerate() {
            self.samples.clear();
            track.render(start, frames, read, &mut self.samples)?;
            let places = interleaved.iter_mut().skip(first + channel).step_by(channels);
            places.zip(&self.samples).for_each(|(place, &sample)| *place = sample);
        }
        Ok(())
    }
}

/// Renders one side.
#[derive(Debug)]
struct TrackRenderer<'a> {
    plan: &'a Plan,
    track: &'a PlanTrack,
    is_concealing: bool,
    /// Filters by source rate, for rates other than that of the output.
    resamplers: Vec<(u32, Resampler)>,
    /// Index of the next packet to decode.
    cursor: usize,
    /// Sums of the samples from the beginning of the next block on, in units of 2^-14.
    ahead: Vec<i64>,
    /// Decoders by stream and codec, the one used last at the end.
    decoders: Vec<(u32, AudioCodec, Decoder)>,
    payload: Vec<u8>,
    decoded: Vec<i16>,
}

impl<'a> TrackRenderer<'a> {
    fn new(plan: &'a Plan, side: Side, is_concealing: bool) -> TrackRenderer<'a> {
        let mut rates: Vec<u32> = plan.rates_hz().filter(|&rate| rate != plan.rate_hz()).collect();
        rates.sort_unstable();
        rates.dedup();
        TrackRenderer {
            plan,
            track: plan.track(side),
            is_concealing,
            resamplers: rates.into_iter().map(|rate| (rate, Resampler::new(plan.rate_hz(), rate))).collect(),
            cursor: 0,
            ahead: Vec::new(),
            decoders: Vec::new(),
            payload: Vec::new(),
            decoded: Vec::new(),
        }
    }

    /// Makes `start` the next position.
    fn seek(&mut self, start: u64) {
        self.ahead.clear();
        self.decoders.clear();
        let first = i64::try_from(start.saturating_sub(self.track.longest)).unwrap_or(i64::MAX);
        let first = if first == 0 { i64::MIN } else { first };
        self.cursor = self.track.placements.partition_point(|packet| packet.position < first);
        if self.plan.has_state() {
            self.cursor = self.cursor.saturating_sub(WARM_UP_PACKETS);
        }
    }

    /// Appends `frames` samples from the next position, which is `start`.
    fn render<E>(
        &mut self,
        start: u64,
        frames: usize,
        read: &mut impl FnMut(u64, u16, &mut Vec<u8>) -> Result<(), E>,
        samples: &mut Vec<i16>,
    ) -> Result<(), E> {
        let start = i64::try_from(start).unwrap_or(i64::MAX);
        let room = frames + usize::try_from(self.track.longest).unwrap_or(0);
        self.ahead.resize(room.max(self.ahead.len()), 0);
        // The filter reaches back from a packet to samples before it.
        let end = start.saturating_add(frames as i64).saturating_add(self.margin());
        while let Some(placement) = self.track.placements.get(self.cursor)
            && placement.position < end
        {
            self.cursor += 1;
            self.add_packet(placement, start, read)?;
        }
        let finished = self.ahead.drain(..frames);
        samples.extend(finished.map(|sum| {
            let rounded = (sum + (1 << (UNITY_BITS - 1))) >> UNITY_BITS;
            rounded.clamp(i64::from(i16::MIN), i64::from(i16::MAX)) as i16
        }));
        Ok(())
    }

    /// Output samples by which the filter may reach before a packet.
    fn margin(&self) -> i64 {
        if self.resamplers.is_empty() { 0 } else { resample::margin(self.plan.rate_hz()) }
    }

    fn add_packet<E>(
        &mut self,
        placement: &Placement,
        start: i64,
        read: &mut impl FnMut(u64, u16, &mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let (Some(codec), Some(&run)) =
            (self.plan.codec(placement), self.track.runs.get(placement.run as usize))
        else {
            return Ok(());
        };
        let end = placement.position.saturating_add(self.track.longest as i64);
        if !codec.can_decode() || (!codec.has_state() && end < start) {
            return Ok(());
        }
        self.payload.clear();
        read(placement.place, placement.bytes, &mut self.payload)?;
        self.payload.truncate(usize::from(placement.bytes));
        self.decoded.clear();
        self.decode(codec, run.stream);
        self.fit_to_span(placement, codec);
        self.add_samples(placement, codec, &run, start);
        Ok(())
    }

    fn decode(&mut self, codec: AudioCodec, stream: u32) {
        if !codec.has_state() {
            return Decoder::new(codec).decode(&self.payload, &mut self.decoded);
        }
        let known = self.decoders.iter().position(|(of, with, _)| (*of, *with) == (stream, codec));
        let mut entry = match known {
            Some(index) => self.decoders.remove(index),
            None => (stream, codec, Decoder::new(codec)),
        };
        entry.2.decode(&self.payload, &mut self.decoded);
        if self.decoders.len() >= DECODERS_MAX {
            self.decoders.remove(0);
        }
        self.decoders.push(entry);
    }

    /// Cuts what overlaps the next packet of the run. Repeats the packet in the place of a lost one.
    fn fit_to_span(&mut self, placement: &Placement, codec: AudioCodec) {
        if placement.span == Placement::SPAN_OPEN && !placement.is_before_loss {
            return;
        }
        let span = usize::from(placement.span) * codec.samples_per_tick() as usize;
        let length = self.decoded.len();
        if span < length {
            self.decoded.truncate(span);
        } else if self.is_concealing && placement.is_before_loss {
            self.decoded.extend_from_within(..length.min(span - length));
        }
    }

    /// Adds the decoded samples to the sums from `start` on, up to the end of the run.
    fn add_samples(&mut self, placement: &Placement, codec: AudioCodec, run: &PlanRun, start: i64) {
        let source_hz = codec.sample_rate();
        let rest = run.limit.saturating_sub(placement.position).max(0);
        let rest = Ratio::new(source_hz, self.plan.rate_hz()).output(rest);
        self.decoded.truncate(usize::try_from(rest).unwrap_or(usize::MAX));
        if source_hz == self.plan.rate_hz() {
            add_exact(&self.decoded, placement.position.saturating_sub(start), &mut self.ahead);
        } else if let Some((_, resampler)) = self.resamplers.iter().find(|(rate, _)| *rate == source_hz) {
            let first = i64::from(placement.index) * i64::from(codec.samples_per_tick());
            resampler.add(first, &self.decoded, start.saturating_sub(run.start), &mut self.ahead);
        }
    }
}

/// Adds samples at `first`, which may lie before the window.
fn add_exact(samples: &[i16], first: i64, window: &mut [i64]) {
    let skipped = usize::try_from(first.saturating_neg()).unwrap_or(0);
    let samples = samples.get(skipped..).unwrap_or_default();
    let window = window.get_mut(usize::try_from(first).unwrap_or(0)..).unwrap_or_default();
    for (sum, &sample) in window.iter_mut().zip(samples) {
        *sum += i64::from(sample) << UNITY_BITS;
    }
}
