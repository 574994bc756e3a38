//! Mean opinion score by the E-model: ITU-T G.107 (06/2015) with its default values, and codec values of G.113.
//!
//! `R = 93.2 - Id - Ie,eff`. 93.2 is the rating of a connection with all defaults (table 3 of G.107). Of the delay
//! impairment, only a known delay counts; nobody who sees packets at one point knows the delay from mouth to ear, so that
//! without RTCP the score is that of listening.

/// Rating of a connection without delay, loss and low-rate codec (G.107 with default values).
const DEFAULT_RATING: f64 = 93.2;

/// Range of the burst ratio that G.107 permits (table 2 and the note on it).
const BURST_RATIO_MAX: f64 = 8.0;

/// Equipment impairment factor Ie, and packet-loss robustness factor Bpl (G.113 Appendix I).
#[derive(Clone, Copy, Debug, PartialEq)]
struct CodecImpairment {
    ie: f64,
    bpl: f64,
}

/// Published values of a codec, by its encoding name. `None` if none are published for the narrowband E-model: G.722, AMR-WB
/// and Opus have other scales (G.107.1, G.107.2), and AMR, iLBC and GSM full rate have no Bpl that lea could cite.
///
/// - G.711: 25.1 with packet-loss concealment, not 4.3 without. Receivers conceal (G.711 Appendix I or better is in all
///   phones and gateways in use), and 4.3 would call 1 % of loss 18 points.
/// - G.729: values of G.729A with VAD, 11 and 19. RTP does not tell G.729 (Ie 10) from its Annex A.
/// - G.723.1: values of 6.3 kbit/s. Frames of 20 bytes are 5.3 kbit/s, for which no Bpl is published.
fn impairment(codec: &str, payload_bytes: u32) -> Option<CodecImpairment> {
    const NAMES: [(&str, f64, f64); 6] = [
        ("PCMU", 0.0, 25.1),
        ("PCMA", 0.0, 25.1),
        ("G729", 11.0, 19.0),
        ("G729A", 11.0, 19.0),
        ("G723", 15.0, 16.1),
        ("GSM-EFR", 5.0, 10.0),
    ];
    let &(name, ie, bpl) = NAMES.iter().find(|(name, ..)| codec.eq_ignore_ascii_case(name))?;
    let is_slow_g723 = name == "G723" && payload_bytes.is_multiple_of(20) && payload_bytes > 0;
    (!is_slow_g723).then_some(CodecImpairment { ie, bpl })
}

/// Loss of a stream as the listener has it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct LossProfile {
    /// Packets sent.
    pub expected: u64,
    /// Packets that were not played: lost in the network, or too late for the jitter buffer.
    pub lost: u64,
    /// Packets lost in runs, and the number of runs. Late ones are not among them.
    pub lost_in_runs: u64,
    pub run_count: u64,
}

impl LossProfile {
    /// Ppl: percent of packets lost.
    fn percent(&self) -> f64 {
        if self.expected == 0 {
            0.0
        } else {
            self.lost.min(self.expected) as f64 * 100.0 / self.expected as f64
        }
    }

    /// BurstR: mean length of the runs of lost packets, compared with that of random loss, which is `1 / (1 - Ppl)`
    /// (G.107 clause 7.5). 1 is random.
    fn burst_ratio(&self) -> f64 {
        if self.run_count == 0 || self.expected == 0 {
            return 1.0;
        }
        let mean = self.lost_in_runs as f64 / self.run_count as f64;
        let probability = (self.lost_in_runs as f64 / self.expected as f64).min(1.0);
        (mean * (1.0 - probability)).clamp(1.0, BURST_RATIO_MAX)
    }
}

/// Transmission rating R of a stream, or `None` if no values are published for the codec.
///
/// `payload_bytes` is the usual length of a payload. `delay_ms` is the one-way delay; `None` leaves Id at 0.
pub(crate) fn rating(
    codec: &str,
    payload_bytes: u32,
    loss: &LossProfile,
    delay_ms: Option<f64>,
) -> Option<f64> {
    let CodecImpairment { ie, bpl } = impairment(codec, payload_bytes)?;
    let percent = loss.percent();
    let effective = ie + (95.0 - ie) * percent / (percent / loss.burst_ratio() + bpl);
    Some(DEFAULT_RATING - delay_ms.map_or(0.0, delay_impairment) - effective)
}

/// Mean opinion score of a rating (G.107 Annex B).
pub(crate) fn mos_of_rating(rating: f64) -> f64 {
    match rating {
        r if r <= 0.0 => 1.0,
        r if r >= 100.0 => 4.5,
        // Below 6.5 the polynomial dips under 1.
        r => (1.0 + 0.035 * r + r * (r - 60.0) * (100.0 - r) * 7e-6).max(1.0),
    }
}

/// Id for a one-way delay in milliseconds: talker echo, listener echo and absolute delay (G.107 clause 7.4), with TELR 65,
/// WEPL 110 and the round trip of twice the delay. What Id is without delay is in [`DEFAULT_RATING`] already.
fn delay_impairment(delay_ms: f64) -> f64 {
    let delay_ms = delay_ms.clamp(0.0, 60_000.0);
    let total = |ms: f64| talker_echo(ms) + listener_echo(2.0 * ms) + absolute_delay(ms);
    (total(delay_ms) - total(0.0)).max(0.0)
}

/// Idd (equations 7-27 and 7-28).
fn absolute_delay(ms: f64) -> f64 {
    if ms <= 100.0 {
        return 0.0;
    }
    let x = (ms / 100.0).log2();
    25.0 * ((1.0 + x.powi(6)).powf(1.0 / 6.0) - 3.0 * (1.0 + (x / 3.0).powi(6)).powf(1.0 / 6.0) + 2.0)
}

/// -1.5 (No - RLR) with the default noise of -61.18 dBm0p and receive loudness rating of 2 dB.
const RECEIVE_RATING: f64 = 1.5 * (61.18 + 2.0);

/// Idte (equations 7-19 to 7-23), for a side tone masking rating between 9 and 20 dB.
fn talker_echo(ms: f64) -> f64 {
    let level = 65.0 - 40.0 * ((1.0 + ms / 10.0) / (1.0 + ms / 150.0)).log10() + 6.0 * (-0.3 * ms * ms).exp();
    let half = (RECEIVE_RATING - (80.0 + 2.5 * (level - 14.0))) / 2.0;
    (half + (half * half + 100.0).sqrt() - 1.0) * (1.0 - (-ms).exp())
}

/// Idle (equations 7-25 and 7-26).
fn listener_echo(round_trip_ms: f64) -> f64 {
    let half = (RECEIVE_RATING - 10.5 * (110.0 + 7.0) * (round_trip_ms + 1.0).powf(-0.25)) / 2.0;
    half + (half * half + 169.0).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: f64, expected: f64, tolerance: f64) {
        assert!((value - expected).abs() <= tolerance, "{value} is not {expected}");
    }

    fn random(lost: u64) -> LossProfile {
        LossProfile { expected: 1_000, lost, lost_in_runs: lost, run_count: lost }
    }

    #[test]
    fn scores_are_those_of_the_table_of_g_107() {
        // Table B.1 of G.107: lower limits of R and of the score for the categories of user satisfaction. It prints 4.03
        // where its own formula gives 4.024.
        for (rating, mos) in [(90.0, 4.34), (80.0, 4.03), (70.0, 3.60), (60.0, 3.10), (50.0, 2.58)] {
            check(mos_of_rating(rating), mos, 0.006_5);
        }
        check(mos_of_rating(93.2), 4.41, 0.005);
        assert_eq!((mos_of_rating(-5.0), mos_of_rating(0.0), mos_of_rating(3.0)), (1.0, 1.0, 1.0));
        assert_eq!((mos_of_rating(100.0), mos_of_rating(120.0)), (4.5, 4.5));
    }

    #[test]
    fn codecs_without_loss_have_their_published_impairment() {
        for (codec, expected) in
            [("PCMA", 93.2), ("pcmu", 93.2), ("G729", 82.2), ("G723", 78.2), ("GSM-EFR", 88.2)]
        {
            assert_eq!(rating(codec, 24, &LossProfile::default(), None), Some(expected), "{codec}");
        }
        for codec in ["opus", "G722", "AMR-WB", "iLBC", "L16", "PT 97", ""] {
            assert_eq!(rating(codec, 24, &LossProfile::default(), None), None, "{codec}");
        }
        assert_eq!(rating("G723", 20, &LossProfile::default(), None), None, "5.3 kbit/s");
    }

    #[test]
    fn random_loss_follows_the_formula_of_clause_7_5() {
        // Ie,eff = 95 * Ppl / (Ppl + 25.1): 3.64 at 1 %, 15.78 at 5 %, 27.07 at 10 %.
        for (lost, effective) in [(10, 3.640), (50, 15.781), (100, 27.066)] {
            let mut loss = random(lost);
            loss.run_count = lost; // runs of 1 are a burst ratio below 1, taken as 1
            check(rating("PCMA", 160, &loss, None).unwrap(), 93.2 - effective, 0.001);
        }
        // G.729A with 2 %: 11 + 84 * 2 / 21 = 19.
        check(rating("G729", 20, &random(20), None).unwrap(), 93.2 - 19.0, 0.001);
    }

    #[test]
    fn bursts_are_worse_than_random_loss() {
        let burst = LossProfile { expected: 1_000, lost: 20, lost_in_runs: 20, run_count: 4 };
        // Runs of 5: BurstR = 5 * 0.98 = 4.9; Ie,eff = 95 * 2 / (2 / 4.9 + 25.1) = 7.449, against 7.011.
        check(rating("PCMA", 160, &burst, None).unwrap(), 93.2 - 7.449, 0.001);
        check(rating("PCMA", 160, &random(20), None).unwrap(), 93.2 - 7.011, 0.001);
        let long = LossProfile { run_count: 1, ..burst };
        // BurstR 19.6 is taken as 8.
        check(rating("PCMA", 160, &long, None).unwrap(), 93.2 - 95.0 * 2.0 / (0.25 + 25.1), 0.001);
    }

    #[test]
    fn delay_counts_only_if_it_is_known() {
        assert_eq!(delay_impairment(0.0), 0.0);
        // Idd by the equations, computed by hand: X = 1 at 200 ms, 2 at 400 ms.
        check(absolute_delay(200.0), 3.04, 0.01);
        check(absolute_delay(400.0), 24.07, 0.02);
        // Cole and Rosenbluth (2001) fitted Id = 0.024 d + 0.11 (d - 177.3) H(d - 177.3) to the whole of it.
        for delay in [50.0, 100.0, 150.0, 200.0, 250.0, 300.0, 400.0_f64] {
            let fit = 0.024 * delay + 0.11 * (delay - 177.3).max(0.0);
            check(delay_impairment(delay), fit, 3.5);
        }
        let delayed = rating("PCMA", 160, &LossProfile::default(), Some(400.0)).unwrap();
        assert!(delayed < 65.0 && delayed > 55.0, "{delayed}");
    }

    #[test]
    fn impossible_values_give_a_finite_rating() {
        let all_lost = LossProfile { expected: 10, lost: 50, lost_in_runs: 50, run_count: 1 };
        let worst = rating("PCMA", 160, &all_lost, Some(f64::MAX)).unwrap();
        assert!(worst.is_finite() && mos_of_rating(worst) == 1.0);
        assert!(mos_of_rating(rating("PCMA", 160, &all_lost, None).unwrap()) >= 1.0);
    }
}
