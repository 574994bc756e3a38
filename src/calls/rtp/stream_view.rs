//! An RTP stream as it is shown.

use crate::calls::endpoint::Flow;
use crate::calls::media::MediaFormat;
use crate::calls::view::{Binding, Digit, MediaStream, Side};

use super::payload_types::static_format;
use super::quality::{LossProfile, mos_of_rating, rating};
use super::reports::ReceiverReports;
use super::sequence::SequenceTotals;
use super::stream::StreamState;

/// What others know of a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamContext<'a> {
    pub flow: Flow,
    /// Offsets of the records of the first and the last packet.
    pub first_offset: u64,
    pub last_offset: u64,
    pub side: Option<Side>,
    pub binding: Binding,
    /// Encoding name that SDP gives to the dominant payload type ([`StreamState::codec_type`]).
    pub codec: Option<&'a str>,
    /// Payload types that SDP describes.
    pub formats: &'a [MediaFormat],
    pub is_encrypted: bool,
    /// Of the lost packets, those lost by the recorder ([`super::CaptureLoss`]).
    pub lost_by_capture: u64,
    pub reports: Option<&'a ReceiverReports>,
    /// One-way delay in milliseconds for the score. Half of the round trips of both sides together, if RTCP tells them.
    pub delay_ms: Option<f64>,
}

impl StreamState {
    /// Payload type of the codec: the media type with the most packets.
    pub(crate) fn codec_type(&self) -> Option<u8> {
        self.payload_types().dominant()
    }

    fn codec(&self, name: Option<&str>) -> String {
        let first = self.payload_types().counts().next().map(|(number, _)| number);
        match (name, self.codec_type().or(first)) {
            (Some(name), _) => name.to_string(),
            (None, Some(number)) => match static_format(number) {
                Some((name, _)) => name.to_string(),
                None => format!("PT {number}"),
            },
            (None, None) => String::new(),
        }
    }

    pub(crate) fn to_view(&self, context: &StreamContext<'_>) -> MediaStream {
        let sequence = self.sequence_totals();
        let timing = self.timing_totals();
        let codec = self.codec(context.codec);
        let lost_by_capture = context.lost_by_capture.min(sequence.lost);
        let mos = self.mos(&codec, &sequence, lost_by_capture, timing.late, context.delay_ms);
        let reports = context.reports;
        let (windows, window_ns) = self.windows();
        MediaStream {
            source: context.flow.source,
            destination: context.flow.destination,
            ssrc: self.ssrc(),
            side: context.side,
            binding: context.binding,
            codec,
            clock_hz: timing.clock_hz,
            is_clock_estimated: timing.is_clock_estimated,
            is_encrypted: context.is_encrypted,
            first_ns: self.first_ns(),
            last_ns: self.last_ns(),
            packets: self.packets(),
            payload_bytes: self.payload_bytes(),
            lost: sequence.lost,
            lost_by_capture,
            duplicates: sequence.duplicates,
            reordered: sequence.reordered,
            late: timing.late,
            copies: self.copies(),
            restarts: sequence.restarts,
            loss_runs: sequence.runs,
            jitter_mean_ms: timing.jitter_mean_ms,
            jitter_max_ms: timing.jitter_max_ms,
            delta_mean_ms: timing.delta_mean_ms,
            delta_max_ms: timing.delta_max_ms,
            mos: mos.filter(|_| !context.is_encrypted),
            reported_loss: reports.and_then(ReceiverReports::reported_loss),
            reported_jitter_ms: reports.and_then(|reports| reports.reported_jitter_ms(timing.clock_hz)),
            reported_mos: reports.and_then(ReceiverReports::reported_mos),
            reported_rtt_ms: reports.and_then(ReceiverReports::reported_rtt_ms),
            digits: self.digits(context.side),
            windows,
            window_ns,
            formats: context.formats.to_vec(),
            first_offset: context.first_offset,
            last_offset: context.last_offset,
        }
    }

    /// Score of what a listener with a jitter buffer of 200 ms heard: what the network lost, and what arrived too late. What
    /// only the recorder lost, the listener heard.
    fn mos(
        &self,
        codec: &str,
        sequence: &SequenceTotals,
        lost_by_capture: u64,
        late: u64,
        delay_ms: Option<f64>,
    ) -> Option<f64> {
        let loss = LossProfile {
            expected: sequence.expected,
            lost: (sequence.lost - lost_by_capture).saturating_add(late),
            lost_in_runs: sequence.lost,
            run_count: sequence.run_count,
        };
        rating(codec, self.payload_bytes_last(), &loss, delay_ms).map(mos_of_rating)
    }

    fn digits(&self, side: Option<Side>) -> Vec<Digit> {
        let digits = self.events().map(|events| events.digits()).unwrap_or_default();
        digits
            .iter()
            .map(|event| Digit {
                time_ns: event.time_ns,
                digit: event.digit,
                duration_ms: event.duration_ms(),
                side,
            })
            .collect()
    }
}
