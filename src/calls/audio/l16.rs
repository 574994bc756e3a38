//! L16: linear samples of 16 bits, big-endian, channels interleaved (RFC 3551 section 4.5.11).

/// Decodes a payload. A side of a call is one channel of the output, so two channels become their mean. Bytes after
/// the last complete sample of all channels are ignored.
pub(super) fn decode(channels: u8, payload: &[u8], samples: &mut Vec<i16>) {
    match channels {
        2 => samples.extend(payload.as_chunks().0.iter().map(|&[a, b, c, d]| {
            let sum = i32::from(i16::from_be_bytes([a, b])) + i32::from(i16::from_be_bytes([c, d]));
            (sum >> 1) as i16
        })),
        _ => samples.extend(payload.as_chunks().0.iter().map(|&pair| i16::from_be_bytes(pair))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(channels: u8, payload: &[u8], expected: &[i16]) {
        let mut samples = Vec::new();
        decode(channels, payload, &mut samples);
        assert_eq!(samples, expected);
    }

    #[test]
    fn samples_are_big_endian() {
        check(1, &[0x12, 0x34, 0xff, 0xfe, 0x80, 0x00], &[0x1234, -2, i16::MIN]);
    }

    #[test]
    fn two_channels_become_their_mean() {
        check(2, &[0x7f, 0xff, 0x7f, 0xff, 0x80, 0, 0x80, 0, 0, 4, 0, 2], &[i16::MAX, i16::MIN, 3]);
    }

    #[test]
    fn an_incomplete_sample_is_ignored() {
        check(1, &[1, 2, 3], &[0x0102]);
        check(2, &[0, 1, 0, 1, 9, 9, 9], &[1]);
        check(1, &[], &[]);
    }
}
