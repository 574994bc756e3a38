//! G.722 at 64 kbit/s (Recommendation ITU-T G.722, mode 1): two bands coded by ADPCM, 6 bits for 0 to 4 kHz and 2 bits
//! for 4 to 8 kHz, joined by a quadrature mirror filter. One byte gives two samples at 16 kHz.
//!
//! Names in comments such as UPPOL2 are the blocks of the Recommendation, section 6.2.

use std::ops::RangeInclusive;

/// Quantiser outputs of the lower band by all 6 bits of the code (block INVQBL; table QM6).
const LOW_6_BITS: [i32; 64] = [
    -136, -136, -136, -136, -24808, -21904, -19008, -16704, -14984, -13512, -12280, -11192, -10232, -9360,
    -8576, -7856, -7192, -6576, -6000, -5456, -4944, -4464, -4008, -3576, -3168, -2776, -2400, -2032, -1688,
    -1360, -1040, -728, 24808, 21904, 19008, 16704, 14984, 13512, 12280, 11192, 10232, 9360, 8576, 7856,
    7192, 6576, 6000, 5456, 4944, 4464, 4008, 3576, 3168, 2776, 2400, 2032, 1688, 1360, 1040, 728, 432, 136,
    -432, -136,
];
/// The same by the upper 4 bits, which alone adapt the predictor (block INVQAL; table QM4).
const LOW_4_BITS: [i32; 16] =
    [0, -20456, -12896, -8968, -6288, -4240, -2584, -1200, 20456, 12896, 8968, 6288, 4240, 2584, 1200, 0];
/// Quantiser outputs of the higher band (block INVQAH; table QM2).
const HIGH_2_BITS: [i32; 4] = [-7408, -1616, 7408, 1616];
/// Change of the logarithmic scale factor by the upper 4 bits of the code (block LOGSCL; tables WL and RL4).
const LOW_SCALE_STEPS: [i32; 16] =
    [-60, 3042, 1198, 538, 334, 172, 58, -30, 3042, 1198, 538, 334, 172, 58, -30, -60];
/// The same for the higher band (block LOGSCH; tables WH and RH2).
const HIGH_SCALE_STEPS: [i32; 4] = [798, -214, 798, -214];
/// Mantissas of the scale factor: 2048 * 2^(i/32) (blocks SCALEL and SCALEH; table ILB).
const SCALE_MANTISSAS: [i32; 32] = [
    2048, 2093, 2139, 2186, 2233, 2282, 2332, 2383, 2435, 2489, 2543, 2599, 2656, 2714, 2774, 2834, 2896,
    2960, 3025, 3091, 3158, 3228, 3298, 3371, 3444, 3520, 3597, 3676, 3756, 3838, 3922, 4008,
];
/// Even coefficients of the receive filter; the odd ones are the same in the opposite order (block ACCUMC; table H).
const MIRROR_FILTER: [i32; 12] = [3, -11, 12, 32, -210, 951, 3876, -805, 362, -156, 53, -11];

/// Range of the signal of a band (blocks LIMIT).
const BAND: RangeInclusive<i32> = -16384..=16383;

fn clamp(value: i32, range: RangeInclusive<i32>) -> i32 {
    value.clamp(*range.start(), *range.end())
}

fn saturate(value: i32) -> i32 {
    value.clamp(-32768, 32767)
}

/// Adaptive predictor of one band: two poles, six zeros. All values have 16 bits.
#[derive(Clone, Debug, Default)]
struct Predictor {
    /// Prediction for the next sample: `s` of the Recommendation, and `sz`, its part from the zeros.
    prediction: i32,
    zero_prediction: i32,
    /// Coefficients `a1`, `a2` and `b1` to `b6`.
    poles: [i32; 2],
    zeros: [i32; 6],
    /// Last reconstructed signals, last partially reconstructed signals, last differences. Newest first.
    signals: [i32; 2],
    partial_signals: [i32; 2],
    differences: [i32; 6],
}

impl Predictor {
    /// Adapts to a difference and computes the prediction for the next sample (blocks RECONS to PREDIC).
    fn adapt(&mut self, difference: i32) {
        let signal = saturate(self.prediction + difference);
        let partial_signal = saturate(self.zero_prediction + difference);
        self.adapt_poles(partial_signal);
        self.adapt_zeros(difference);

        self.signals = [signal, self.signals[0]];
        self.partial_signals = [partial_signal, self.partial_signals[0]];
        self.differences.rotate_right(1);
        self.differences[0] = difference;

        let weighted = |coefficient: i32, value: i32| (coefficient * saturate(value + value)) >> 15;
        let from_poles =
            saturate(weighted(self.poles[0], self.signals[0]) + weighted(self.poles[1], self.signals[1]));
        let from_zeros = self.zeros.iter().zip(self.differences).map(|(&b, d)| weighted(b, d)).sum();
        self.zero_prediction = saturate(from_zeros);
        self.prediction = saturate(from_poles + self.zero_prediction);
    }

    /// Blocks UPPOL2 and UPPOL1. The limits keep the filter stable.
    fn adapt_poles(&mut self, partial_signal: i32) {
        let is_negative = partial_signal < 0;
        let [equals_last, equals_second] = self.partial_signals.map(|last| (last < 0) == is_negative);
        let [first, second] = self.poles;

        let scaled = saturate(first << 2);
        let gradient = saturate(if equals_last { -scaled } else { scaled }) >> 7;
        let step = if equals_second { 128 } else { -128 };
        let second = (step + gradient + ((second * 32512) >> 15)).clamp(-12288, 12288);

        let step = if equals_last { 192 } else { -192 };
        let limit = 15360 - second;
        let first = saturate(step + ((first * 32640) >> 15)).clamp(-limit, limit);
        self.poles = [first, second];
    }

    /// Block UPZERO.
    fn adapt_zeros(&mut self, difference: i32) {
        for (zero, last) in self.zeros.iter_mut().zip(self.differences) {
            let step = match ((difference < 0) == (last < 0), difference) {
                (_, 0) => 0,
                (true, _) => 128,
                (false, _) => -128,
            };
            *zero = saturate(step + ((*zero * 32640) >> 15));
        }
    }
}

/// Scale factor of the quantiser of one band.
#[derive(Clone, Debug)]
struct Scale {
    /// Logarithm to base 2, in 1/2048.
    logarithm: i32,
    factor: i32,
}

impl Scale {
    /// Blocks LOGSCL and SCALEL or LOGSCH and SCALEH. `shift` is 8 for the lower band and 10 for the higher one.
    fn adapt(&mut self, step: i32, logarithm_max: i32, shift: i32) {
        self.logarithm = (((self.logarithm * 127) >> 7) + step).clamp(0, logarithm_max);
        // The index has 5 bits, as many as the table.
        let mantissa = SCALE_MANTISSAS[(self.logarithm >> 6 & 31) as usize];
        let shift = shift - (self.logarithm >> 11);
        self.factor = if shift < 0 { mantissa << -shift } else { mantissa >> shift } << 2;
    }
}

/// Decoder of one stream.
#[derive(Clone, Debug)]
pub(super) struct G722Decoder {
    low: Predictor,
    low_scale: Scale,
    high: Predictor,
    high_scale: Scale,
    /// Last sums and differences of both bands, newest first.
    sums: [i32; 12],
    differences: [i32; 12],
}

impl G722Decoder {
    pub(super) fn new() -> G722Decoder {
        G722Decoder {
            low: Predictor::default(),
            low_scale: Scale { logarithm: 0, factor: 32 },
            high: Predictor::default(),
            high_scale: Scale { logarithm: 0, factor: 8 },
            sums: [0; 12],
            differences: [0; 12],
        }
    }

    /// Appends two samples per byte.
    pub(super) fn decode(&mut self, payload: &[u8], samples: &mut Vec<i16>) {
        samples.reserve(payload.len() * 2);
        for &code in payload {
            let low = self.decode_low(code & 0x3f);
            let high = self.decode_high(code >> 6);
            samples.extend(self.join(low, high));
        }
    }

    /// `code` has 6 bits.
    fn decode_low(&mut self, code: u8) -> i32 {
        let upper = usize::from(code >> 2);
        let difference = (self.low_scale.factor * LOW_6_BITS[usize::from(code)]) >> 15;
        let signal = clamp(self.low.prediction + difference, BAND);
        self.low.adapt((self.low_scale.factor * LOW_4_BITS[upper]) >> 15);
        self.low_scale.adapt(LOW_SCALE_STEPS[upper], 18432, 8);
        signal
    }

    /// `code` has 2 bits.
    fn decode_high(&mut self, code: u8) -> i32 {
        let code = usize::from(code);
        let difference = (self.high_scale.factor * HIGH_2_BITS[code]) >> 15;
        let signal = clamp(self.high.prediction + difference, BAND);
        self.high.adapt(difference);
        self.high_scale.adapt(HIGH_SCALE_STEPS[code], 22528, 10);
        signal
    }

    /// Joins a sample of each band into two of the output (receive quadrature mirror filter, blocks RECA to SELECT).
    fn join(&mut self, low: i32, high: i32) -> [i16; 2] {
        self.differences.rotate_right(1);
        self.differences[0] = low - high;
        self.sums.rotate_right(1);
        self.sums[0] = low + high;
        let even: i32 = self.differences.iter().zip(MIRROR_FILTER).map(|(value, h)| value * h).sum();
        let odd: i32 = self.sums.iter().zip(MIRROR_FILTER.iter().rev()).map(|(value, h)| value * h).sum();
        [even, odd].map(|sum| saturate(sum >> 11) as i16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `decoded_by_ffmpeg` is `ffmpeg -f g722 -i encoded -f s16le`.
    fn check_decoder(encoded: &[u8], decoded_by_ffmpeg: &[u8]) {
        let mut samples = Vec::new();
        let mut decoder = G722Decoder::new();
        for payload in encoded.chunks(160) {
            decoder.decode(payload, &mut samples);
        }
        let expected: Vec<i16> =
            decoded_by_ffmpeg.as_chunks().0.iter().map(|&b| i16::from_le_bytes(b)).collect();
        assert_eq!(samples.len(), expected.len());
        assert_eq!(samples.iter().zip(&expected).position(|(a, b)| a != b), None);
    }

    #[test]
    fn speech_decodes_as_ffmpeg_decodes_it() {
        check_decoder(
            include_bytes!("../../../testdata/audio/speech.g722"),
            include_bytes!("../../../testdata/audio/speech-g722.s16le"),
        );
    }

    #[test]
    fn a_loud_sweep_decodes_as_ffmpeg_decodes_it() {
        check_decoder(
            include_bytes!("../../../testdata/audio/sweep.g722"),
            include_bytes!("../../../testdata/audio/sweep-g722.s16le"),
        );
    }

    /// Reaches the limits of every block, which an encoder does not.
    #[test]
    fn random_codes_decode_as_ffmpeg_decodes_them() {
        check_decoder(
            include_bytes!("../../../testdata/audio/random.g722"),
            include_bytes!("../../../testdata/audio/random-g722.s16le"),
        );
    }

    /// Number of samples after which a decoder that began at `start` gives the samples of one that read all.
    fn convergence(encoded: &[u8], start: usize) -> usize {
        let (mut whole, mut part) = (Vec::new(), Vec::new());
        G722Decoder::new().decode(encoded, &mut whole);
        G722Decoder::new().decode(&encoded[start..], &mut part);
        let whole = &whole[start * 2..];
        whole.iter().zip(&part).rposition(|(a, b)| a != b).map_or(0, |last| last + 1)
    }

    #[test]
    fn a_decoder_that_begins_late_converges_within_the_warm_up() {
        let speech = include_bytes!("../../../testdata/audio/speech.g722");
        let sweep = include_bytes!("../../../testdata/audio/sweep.g722");
        for encoded in [&speech[..], sweep] {
            for start in (0..encoded.len() - 5_600).step_by(800) {
                let samples = convergence(encoded, start);
                assert!(samples < 8_000, "{start} {samples}");
            }
        }
    }

    #[test]
    fn any_codes_give_two_samples_per_byte() {
        for code in 0..=255_u8 {
            let mut samples = Vec::new();
            G722Decoder::new().decode(&[code; 200], &mut samples);
            assert_eq!(samples.len(), 400);
        }
    }
}
