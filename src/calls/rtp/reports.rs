//! What the receivers of a stream report of it in RTCP.

use serde::{Deserialize, Serialize};

use super::rtcp::{ReportBlock, VoipMetrics};

/// Samples of a stream: 5.7 hours at one report per 5 s. Over it, each second one is dropped and the next ones are taken
/// less often.
const SAMPLES_MAX: usize = 4_096;

/// Sender reports that a receiver may still quote. With one every 5 s and reports that cross, the last two are quoted.
const SENDER_REPORTS: usize = 4;

/// Longest round trip that is believed. More is a clock that jumped or a made-up report.
const ROUND_TRIP_NS_MAX: i64 = 60_000_000_000;

/// Report block, as it is drawn over time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ReportSample {
    pub time_ns: i64,
    /// 0 to 1, since the report before.
    pub fraction_lost: f32,
    /// In ticks of the RTP clock, as the clock may become known later.
    pub jitter_ticks: u32,
    /// `None` if the report quotes no sender report of the capture.
    pub round_trip_ms: Option<f32>,
}

/// Sender report that passed the capture point.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct SenderReport {
    ntp_middle: u32,
    time_ns: i64,
}

/// Reports about one stream, that is one flow and SSRC.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ReceiverReports {
    samples: Vec<ReportSample>,
    /// Number of reports per sample; 0 is 1.
    stride: u32,
    sender_reports: [SenderReport; SENDER_REPORTS],
    sender_report_count: u64,
    /// Report blocks about the stream.
    blocks: u64,
    fraction_lost_max: u8,
    cumulative_lost: i32,
    jitter_ticks_max: u32,
    round_trip_ms_max: Option<f32>,
    last: Option<ReportSample>,
    /// VoIP metrics: loss and discard in 256ths, mean opinion score times 10.
    voip_loss: Option<u8>,
    voip_discard: Option<u8>,
    voip_mos_lq: Option<u8>,
    byes: u32,
}

impl ReceiverReports {
    /// Notes a sender report of the stream's own sender, for the round trip.
    pub(crate) fn add_sender_report(&mut self, ntp_middle: u32, time_ns: i64) {
        let slot = (self.sender_report_count % SENDER_REPORTS as u64) as usize;
        self.sender_reports[slot] = SenderReport { ntp_middle, time_ns };
        self.sender_report_count += 1;
    }

    /// Notes a report block about the stream.
    pub(crate) fn add_block(&mut self, block: &ReportBlock, time_ns: i64) {
        let sample = ReportSample {
            time_ns,
            fraction_lost: f32::from(block.fraction_lost) / 256.0,
            jitter_ticks: block.jitter,
            round_trip_ms: self.round_trip_ms(block, time_ns),
        };
        self.fraction_lost_max = self.fraction_lost_max.max(block.fraction_lost);
        self.cumulative_lost = block.cumulative_lost;
        self.jitter_ticks_max = self.jitter_ticks_max.max(block.jitter);
        if let Some(ms) = sample.round_trip_ms {
            self.round_trip_ms_max = Some(self.round_trip_ms_max.map_or(ms, |max| max.max(ms)));
        }
        self.last = Some(sample);
        let stride = u64::from(self.stride.max(1));
        if self.blocks.is_multiple_of(stride) {
            self.add_sample(sample);
        }
        self.blocks += 1;
    }

    fn add_sample(&mut self, sample: ReportSample) {
        if self.samples.len() >= SAMPLES_MAX {
            let mut index = 0;
            self.samples.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.stride = self.stride.max(1).saturating_mul(2);
        }
        self.samples.push(sample);
    }

    /// Round trip between the capture point and the receiver: the time between the sender report and the block that quotes
    /// it, both by the capture's clock, less the time that the receiver held it. (RFC 3550 figure 2 gives the round trip of
    /// the sender, by the sender's clock; that is this one and the one of the other direction together.)
    fn round_trip_ms(&self, block: &ReportBlock, time_ns: i64) -> Option<f32> {
        let known = self.sender_report_count.min(SENDER_REPORTS as u64) as usize;
        let mut quoted = self.sender_reports.iter().take(known);
        let report = quoted.find(|report| block.last_sr != 0 && report.ntp_middle == block.last_sr)?;
        let held_ns = i64::from(block.delay_since_last_sr).saturating_mul(1_000_000_000) >> 16;
        let round_trip_ns = time_ns.checked_sub(report.time_ns)?.checked_sub(held_ns)?;
        // The receiver's clock is coarse: a little less than 0 is 0.
        (-10_000_000..=ROUND_TRIP_NS_MAX)
            .contains(&round_trip_ns)
            .then(|| (round_trip_ns.max(0) as f64 / 1e6) as f32)
    }

    pub(crate) fn add_voip_metrics(&mut self, metrics: &VoipMetrics) {
        self.voip_loss = Some(metrics.loss_rate);
        self.voip_discard = Some(metrics.discard_rate);
        self.voip_mos_lq = metrics.mos_lq.or(self.voip_mos_lq);
    }

    pub(crate) fn add_bye(&mut self) {
        self.byes = self.byes.saturating_add(1);
    }

    /// Number of report blocks.
    #[cfg(test)]
    pub(crate) fn blocks(&self) -> u64 {
        self.blocks
    }

    #[cfg(test)]
    pub(crate) fn samples(&self) -> &[ReportSample] {
        &self.samples
    }

    /// Number of report blocks per sample.
    #[cfg(test)]
    pub(crate) fn stride(&self) -> u32 {
        self.stride.max(1)
    }

    /// Packets that the receiver lost in all, by its last report.
    #[cfg(test)]
    pub(crate) fn cumulative_lost(&self) -> Option<i32> {
        (self.blocks > 0).then_some(self.cumulative_lost)
    }

    /// Highest reported fraction lost of an interval, 0 to 1.
    pub(crate) fn reported_loss(&self) -> Option<f64> {
        (self.blocks > 0).then(|| f64::from(self.fraction_lost_max) / 256.0)
    }

    /// Highest reported jitter in milliseconds.
    pub(crate) fn reported_jitter_ms(&self, clock_hz: u32) -> Option<f64> {
        (self.blocks > 0 && clock_hz > 0)
            .then(|| f64::from(self.jitter_ticks_max) * 1e3 / f64::from(clock_hz))
    }

    /// Longest round trip in milliseconds, between the capture point and the receiver.
    pub(crate) fn reported_rtt_ms(&self) -> Option<f64> {
        self.round_trip_ms_max.map(f64::from)
    }

    /// Mean opinion score (listening quality) of the receiver's VoIP metrics.
    pub(crate) fn reported_mos(&self) -> Option<f64> {
        self.voip_mos_lq.map(|tenths| f64::from(tenths) / 10.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(fraction_lost: u8, jitter: u32, last_sr: u32, delay: u32) -> ReportBlock {
        ReportBlock {
            ssrc: 1,
            fraction_lost,
            cumulative_lost: -3,
            highest_sequence: 0,
            jitter,
            last_sr,
            delay_since_last_sr: delay,
        }
    }

    #[test]
    fn the_round_trip_is_that_of_the_example_in_rfc_3550() {
        // Figure 2: the receiver held the report for 5.250 s; A - LSR is 11.375 s, which leaves 6.125 s.
        let mut reports = ReceiverReports::default();
        reports.add_sender_report(0xb705_2000, 0);
        reports.add_block(&block(0, 0, 0xb705_2000, 0x0005_4000), 11_375_000_000);
        assert_eq!(reports.reported_rtt_ms(), Some(6_125.0));
    }

    #[test]
    fn no_round_trip_without_the_quoted_sender_report() {
        let mut reports = ReceiverReports::default();
        reports.add_block(&block(0, 0, 7, 0), 1_000);
        reports.add_block(&block(0, 0, 0, 0), 1_000);
        reports.add_sender_report(7, 2_000_000_000);
        reports.add_block(&block(0, 0, 7, 65_536), 2_000_000_000);
        assert_eq!(reports.reported_rtt_ms(), None, "the receiver claims to have held it before it came");
        for ntp in 8..12 {
            reports.add_sender_report(ntp, 2_000_000_000);
        }
        reports.add_block(&block(0, 0, 7, 0), 2_100_000_000);
        assert_eq!(reports.reported_rtt_ms(), None, "quoted too late");
    }

    #[test]
    fn the_worst_values_are_reported() {
        let mut reports = ReceiverReports::default();
        assert_eq!((reports.reported_loss(), reports.reported_jitter_ms(8_000)), (None, None));
        for (fraction, jitter) in [(0, 8), (64, 80), (1, 16)] {
            reports.add_block(&block(fraction, jitter, 0, 0), 0);
        }
        assert_eq!(reports.reported_loss(), Some(0.25));
        assert_eq!(reports.reported_jitter_ms(8_000), Some(10.0));
        assert_eq!(reports.cumulative_lost(), Some(-3));
        assert_eq!(reports.samples().len(), 3);
    }

    #[test]
    fn samples_are_thinned_out_over_the_limit() {
        let mut reports = ReceiverReports::default();
        for index in 0..4_096 {
            reports.add_block(&block(0, 0, 0, 0), index);
        }
        assert_eq!((reports.samples().len(), reports.stride()), (4_096, 1));
        for index in 4_096..100_000 {
            reports.add_block(&block(0, 0, 0, 0), index);
            assert!(reports.samples().len() <= 4_096);
        }
        let times: Vec<i64> = reports.samples().iter().map(|sample| sample.time_ns).collect();
        let stride = i64::from(reports.stride());
        assert!(stride > 1 && times.windows(2).all(|pair| pair[1] - pair[0] == stride), "evenly spaced");
        assert_eq!(reports.blocks(), 100_000);
    }
}
