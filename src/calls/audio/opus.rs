//! Durations of Opus packets by their first byte, the TOC (RFC 6716 section 3.1), and packets that stand for lost ones.

/// Longest packet in samples at 48 kHz: 120 ms (RFC 6716 section 3.2, rule R5).
pub(super) const PACKET_SAMPLES_MAX: u32 = 5760;

/// Shortest frame in samples at 48 kHz: 2.5 ms.
pub(super) const FRAME_SAMPLES_MIN: u32 = 120;

const STEREO: u8 = 0b100;

/// Bit of the TOC that says two channels.
pub(super) fn is_stereo(toc: u8) -> bool {
    toc & STEREO != 0
}

/// Samples per frame at 48 kHz (RFC 6716 table 2).
fn frame_samples(toc: u8) -> u32 {
    let configuration = toc >> 3;
    match configuration {
        // SILK: 10, 20, 40, 60 ms.
        0..12 => [480, 960, 1920, 2880][usize::from(configuration % 4)],
        // Hybrid: 10, 20 ms.
        12..16 => [480, 960][usize::from(configuration % 2)],
        // CELT: 2.5, 5, 10, 20 ms.
        _ => 120 << (configuration % 4),
    }
}

/// Samples of a packet at 48 kHz. `None` if it is malformed as far as its length and number of frames tell.
pub(super) fn packet_samples(packet: &[u8]) -> Option<u32> {
    let (&toc, rest) = packet.split_first()?;
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(rest.first()? & 0x3f),
    };
    let samples = frames * frame_samples(toc);
    (1..=PACKET_SAMPLES_MAX).contains(&samples).then_some(samples)
}

/// Returns a packet whose frames are empty, so that a decoder conceals them, and its samples at 48 kHz. It lasts at
/// most `samples`, and at most 120 ms. `None` if `samples` is less than the shortest frame.
///
/// The packet has the mode, bandwidth and channels of the one before, given by its TOC (RFC 7845 section 4.1). Only
/// CELT has frames below 10 ms.
pub(super) fn lost_packet(previous_toc: u8, samples: u32) -> Option<(Vec<u8>, u32)> {
    let configuration = previous_toc >> 3;
    let channels = previous_toc & STEREO;
    let configuration = match (samples, configuration) {
        (..FRAME_SAMPLES_MIN, _) => return None,
        // A frame of 2.5 or 5 ms: CELT of the same bandwidth. Medium band has none, the next one is wide band.
        (..480, 0..4) => 16,
        (..480, 4..12) => 20,
        (..480, 12..14) => 24,
        (..480, 14..16) => 28,
        (..480, celt) => celt & !3,
        // 10 or 20 ms in the same mode.
        (_, silk @ 0..12) => silk & !3,
        (_, hybrid @ 12..16) => hybrid & !1,
        (_, celt) => (celt & !3) + 2,
    };
    let is_short = samples < 480;
    let configuration = configuration + u8::from(if is_short { samples >= 240 } else { samples >= 960 });
    let toc = configuration << 3 | channels;
    let frame = frame_samples(toc);
    match (samples / frame).min(PACKET_SAMPLES_MAX / frame) {
        1 => Some((vec![toc], frame)),
        frames => Some((vec![toc | 3, frames as u8], frames * frame)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_table_2() {
        let ms = |configuration: u8| f64::from(packet_samples(&[configuration << 3]).unwrap()) / 48.0;
        let expected = [
            [10.0, 20.0, 40.0, 60.0],
            [10.0, 20.0, 40.0, 60.0],
            [10.0, 20.0, 40.0, 60.0],
            [10.0, 20.0, 10.0, 20.0],
            [2.5, 5.0, 10.0, 20.0],
            [2.5, 5.0, 10.0, 20.0],
            [2.5, 5.0, 10.0, 20.0],
            [2.5, 5.0, 10.0, 20.0],
        ];
        for configuration in 0..32 {
            assert_eq!(
                ms(configuration),
                expected[usize::from(configuration / 4)][usize::from(configuration % 4)]
            );
        }
    }

    #[test]
    fn the_number_of_frames_is_read_and_checked() {
        let toc = 1 << 3;
        assert_eq!(packet_samples(&[toc | 1, 0]), Some(1920));
        assert_eq!(packet_samples(&[toc | 2, 0]), Some(1920));
        assert_eq!(packet_samples(&[toc | 3, 6]), Some(5760));
        assert_eq!(packet_samples(&[toc | 3, 0x80 | 2]), Some(1920));
        for malformed in [&[][..], &[toc | 3], &[toc | 3, 0], &[toc | 3, 7], &[3 << 3 | 3, 3]] {
            assert_eq!(packet_samples(malformed), None);
        }
    }

    #[test]
    fn a_packet_for_lost_ones_fills_the_gap_in_steps() {
        for toc in 0..=255_u8 {
            for gap in [0, 119, 120, 360, 479, 480, 960, 1080, 1440, 5760, 6000, 48_000] {
                let mut rest = gap;
                while let Some((packet, samples)) = lost_packet(toc, rest) {
                    assert_eq!(packet_samples(&packet), Some(samples), "{toc} {rest}");
                    assert_eq!(is_stereo(packet[0]), is_stereo(toc));
                    rest -= samples;
                }
                assert_eq!(rest, gap % 120, "{toc} {gap}");
            }
        }
    }
}
