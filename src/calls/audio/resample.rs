//! Conversion of a sample rate to a higher one by a polyphase filter with linear phase.
//!
//! The filter is a sinc whose zeros are the samples of the source, under a Kaiser window of [`HALF_TAPS`] source
//! samples to each side. It is 6 dB down at half the source rate. From 8 to 16 kHz it is flat to 3.6 kHz, and images
//! of the source are more than 70 dB down from 4.4 kHz on; coefficients of 16 bits allow no more. Samples of the
//! source that coincide with one of the output keep their value.
//!
//! The filter is linear, so each packet adds its own part to the output. Sums are integers in units of 2^-14, so that
//! the result does not depend on where a range begins.

use std::f64::consts::PI;

/// Source samples to each side of an output sample that contribute to it.
const HALF_TAPS: usize = 24;
const TAPS: usize = 2 * HALF_TAPS;

/// Lowest source rate in hertz.
const SOURCE_HZ_MIN: u32 = 8000;

/// Shape of the Kaiser window: side lobes 80 dB down.
const KAISER_BETA: f64 = 7.86;

/// One in the units of sums.
pub(super) const UNITY_BITS: u32 = 14;

/// Ratio of two rates: `up` steps of the one for `down` of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ratio {
    up: i64,
    down: i64,
}

impl Ratio {
    /// Rates are in hertz. Zero counts as 1.
    pub(super) fn new(output_hz: u32, source_hz: u32) -> Ratio {
        let (mut a, mut b) = (output_hz.max(1), source_hz.max(1));
        while b != 0 {
            (a, b) = (b, a % b);
        }
        Ratio { up: i64::from(output_hz.max(1) / a), down: i64::from(source_hz.max(1) / a) }
    }

    /// Position in the output of a position of the source, rounded down.
    pub(super) fn output(self, source: i64) -> i64 {
        let position = (i128::from(source) * i128::from(self.up)).div_euclid(i128::from(self.down));
        i64::try_from(position).unwrap_or(if source < 0 { i64::MIN } else { i64::MAX })
    }

    /// Position of the source at or before an output position, and the rest in units of `1 / up`.
    fn source(self, output: i64) -> (i64, usize) {
        let scaled = output.saturating_mul(self.down);
        (scaled.div_euclid(self.up), scaled.rem_euclid(self.up) as usize)
    }
}

/// Output samples by which the filter reaches before and after the samples of the source.
pub(super) fn margin(output_hz: u32) -> i64 {
    Ratio::new(output_hz, SOURCE_HZ_MIN).output(HALF_TAPS as i64 + 1) + 1
}

/// Filter from one rate to a higher one.
#[derive(Clone, Debug)]
pub(super) struct Resampler {
    ratio: Ratio,
    /// Coefficients for each of the `up` phases, in units of 2^-14. Coefficient `i` belongs to source sample
    /// `i + 1 - HALF_TAPS`, counted from the one at or before the output sample.
    phases: Vec<[i16; TAPS]>,
}

impl Resampler {
    pub(super) fn new(output_hz: u32, source_hz: u32) -> Resampler {
        let ratio = Ratio::new(output_hz, source_hz);
        Resampler { ratio, phases: (0..ratio.up).map(|phase| coefficients(phase, ratio.up)).collect() }
    }

    /// Adds the part of consecutive source samples to a window of the output.
    ///
    /// `first` is the position of `samples[0]`, and `window_start` that of `window[0]`, both counted from the same
    /// time.
    pub(super) fn add(&self, first: i64, samples: &[i16], window_start: i64, window: &mut [i64]) {
        let end = first.saturating_add(samples.len() as i64);
        let half = HALF_TAPS as i64;
        let from = self.ratio.output(first.saturating_sub(half)).max(window_start);
        let window_end = window_start.saturating_add(window.len() as i64);
        let to = self.ratio.output(end.saturating_add(half)).saturating_add(1).min(window_end);
        let Some(range) = usize::try_from(from.saturating_sub(window_start))
            .ok()
            .zip(usize::try_from(to.saturating_sub(window_start)).ok())
        else {
            return;
        };
        let (source, mut phase) = self.ratio.source(from);
        let mut start = source.saturating_sub(half - 1).saturating_sub(first);
        for value in window.get_mut(range.0..range.1).unwrap_or_default() {
            *value += i64::from(self.sum(phase, samples, start));
            phase += self.ratio.down as usize;
            while phase >= self.ratio.up as usize {
                phase -= self.ratio.up as usize;
                start = start.saturating_add(1);
            }
        }
    }

    /// Weighted sum of the samples under the filter, whose first coefficient is at `samples[start]`.
    fn sum(&self, phase: usize, samples: &[i16], start: i64) -> i32 {
        let Some(taps) = self.phases.get(phase) else { return 0 };
        let (samples, taps) = match usize::try_from(start) {
            Ok(start) => (samples.get(start..).unwrap_or_default(), &taps[..]),
            Err(_) => {
                let skipped = usize::try_from(start.unsigned_abs()).unwrap_or(usize::MAX);
                (samples, taps.get(skipped..).unwrap_or_default())
            }
        };
        // The magnitudes of the coefficients sum to less than 4, so 32 bits are enough.
        samples.iter().zip(taps).map(|(&sample, &tap)| i32::from(sample) * i32::from(tap)).sum()
    }
}

/// Coefficients of one phase. They sum to one, so that a constant stays constant.
fn coefficients(phase: i64, phases: i64) -> [i16; TAPS] {
    const UNITY: i16 = 1 << UNITY_BITS;
    let fraction = phase as f64 / phases as f64;
    let mut values = [0.0; TAPS];
    for (tap, value) in values.iter_mut().enumerate() {
        let distance = tap as f64 - (HALF_TAPS as f64 - 1.0) - fraction;
        *value = sinc(distance) * kaiser(distance / HALF_TAPS as f64);
    }
    let sum: f64 = values.iter().sum();
    let mut taps = values.map(|value| (value / sum * f64::from(UNITY)).round() as i16);
    let rest = UNITY - taps.iter().sum::<i16>();
    if let Some(largest) = taps.iter_mut().max() {
        *largest += rest;
    }
    taps
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 { 1.0 } else { (PI * x).sin() / (PI * x) }
}

/// Kaiser window, which is 0 outside of -1 to 1.
fn kaiser(x: f64) -> f64 {
    if x.abs() >= 1.0 {
        return 0.0;
    }
    bessel_i0(KAISER_BETA * (1.0 - x * x).sqrt()) / bessel_i0(KAISER_BETA)
}

/// Modified Bessel function of the first kind and order 0, by its power series.
fn bessel_i0(x: f64) -> f64 {
    let (mut sum, mut term) = (1.0, 1.0);
    for k in 1..40 {
        term *= (x / 2.0 / f64::from(k)).powi(2);
        sum += term;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convert(output_hz: u32, source_hz: u32, samples: &[i16]) -> Vec<f64> {
        let ratio = Ratio::new(output_hz, source_hz);
        let mut window = vec![0; ratio.output(samples.len() as i64) as usize];
        Resampler::new(output_hz, source_hz).add(0, samples, 0, &mut window);
        window.iter().map(|&value| value as f64 / 16_384.0).collect()
    }

    fn sine(hz: f64, rate_hz: u32, amplitude: f64) -> impl Fn(usize) -> f64 {
        move |n| amplitude * (2.0 * PI * hz * n as f64 / f64::from(rate_hz)).sin()
    }

    /// Largest difference in dB below the amplitude between a tone that was converted and the same tone at the output
    /// rate.
    fn error_db(output_hz: u32, source_hz: u32, tone_hz: f64) -> f64 {
        let source = sine(tone_hz, source_hz, 30_000.0);
        let samples: Vec<i16> = (0..4000).map(|n| source(n).round() as i16).collect();
        let output = convert(output_hz, source_hz, &samples);
        let expected = sine(tone_hz, output_hz, 30_000.0);
        let edge = 100 * output_hz as usize / source_hz as usize;
        let errors = (edge..output.len() - edge).map(|n| (output[n] - expected(n)).abs());
        20.0 * (errors.fold(0.0, f64::max) / 30_000.0).log10()
    }

    #[test]
    fn tones_of_the_telephone_band_keep_their_shape() {
        for (output_hz, source_hz) in
            [(16_000, 8000), (48_000, 8000), (48_000, 16_000), (48_000, 44_100), (44_100, 8000)]
        {
            for tone in [0.0375, 0.11, 0.25, 0.425] {
                let error = error_db(output_hz, source_hz, tone * f64::from(source_hz));
                let limit = if source_hz == 44_100 || output_hz == 44_100 { -65.0 } else { -70.0 };
                assert!(error < limit, "{output_hz} {source_hz} {tone} {error}");
            }
        }
    }

    #[test]
    fn samples_that_coincide_keep_their_value() {
        let samples: Vec<i16> = (0..500).map(|n| (n * 7919 % 65_536 - 32_768) as i16).collect();
        let output = convert(16_000, 8000, &samples);
        for (n, &sample) in samples.iter().enumerate() {
            assert_eq!(output[2 * n], f64::from(sample));
        }
    }

    #[test]
    fn sums_of_the_loudest_samples_fit_into_32_bits() {
        for (output_hz, source_hz) in [(16_000, 8000), (48_000, 11_025), (48_000, 44_100)] {
            for taps in Resampler::new(output_hz, source_hz).phases {
                let magnitude: i64 = taps.iter().map(|&tap| i64::from(tap).abs()).sum();
                assert!(magnitude < 4 << UNITY_BITS);
                assert_eq!(taps.iter().map(|&tap| i64::from(tap)).sum::<i64>(), 1 << UNITY_BITS);
            }
        }
    }

    #[test]
    fn a_constant_stays_constant() {
        let output = convert(48_000, 11_025, &[1000; 400]);
        let inner = &output[200..output.len() - 200];
        assert!(inner.iter().all(|value| (value - 1000.0).abs() < 1e-9), "{inner:?}");
    }

    #[test]
    fn parts_and_windows_give_the_same_sums_as_the_whole() {
        let samples: Vec<i16> = (0..1000).map(|n| (n * 7919 % 65_536 - 32_768) as i16).collect();
        let resampler = Resampler::new(48_000, 44_100);
        let mut whole = vec![0; 1000];
        resampler.add(0, &samples, 0, &mut whole);
        let mut parts = vec![0; 1000];
        for (number, part) in samples.chunks(77).enumerate() {
            for (window, values) in parts.chunks_mut(130).enumerate() {
                resampler.add(number as i64 * 77, part, window as i64 * 130, values);
            }
        }
        assert_eq!(whole, parts);
    }

    #[test]
    fn extreme_positions_do_not_overflow() {
        let resampler = Resampler::new(16_000, 8000);
        for first in [i64::MIN, -1, 0, i64::MAX] {
            for window in [i64::MIN, -1, 0, i64::MAX] {
                resampler.add(first, &[1; 10], window, &mut [0; 10]);
            }
        }
    }
}
