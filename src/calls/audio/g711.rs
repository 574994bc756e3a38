//! G.711: A-law and mu-law to linear samples (Recommendation ITU-T G.711, tables 1 and 2).
//!
//! A-law has 13 significant bits and mu-law 14. Both are scaled to 16 bits, as all common decoders do.

/// Linear values of all A-law codes.
pub(super) static ALAW: [i16; 256] = table(Law::A);
/// Linear values of all mu-law codes.
pub(super) static ULAW: [i16; 256] = table(Law::Mu);

/// Decodes one sample per byte with `table`, which is [`ALAW`] or [`ULAW`].
pub(super) fn decode(table: &[i16; 256], payload: &[u8], samples: &mut Vec<i16>) {
    // A byte is always a valid index of a table of 256 values.
    samples.extend(payload.iter().map(|&code| table[usize::from(code)]));
}

#[derive(Clone, Copy)]
enum Law {
    A,
    Mu,
}

const fn table(law: Law) -> [i16; 256] {
    let mut values = [0; 256];
    let mut code = 0;
    while code < values.len() {
        values[code] = match law {
            Law::A => alaw_value(code as i32),
            Law::Mu => ulaw_value(code as i32),
        };
        code += 1;
    }
    values
}

/// On the wire, every second bit of an A-law code is inverted. Then: sign (1 is positive), 3 bits of the segment, 4 of
/// the step.
const fn alaw_value(code: i32) -> i16 {
    let code = code ^ 0x55;
    let (segment, step) = (code >> 4 & 7, code & 15);
    // The middle of the quantisation interval; segment 0 has the same step size as segment 1.
    let magnitude = match segment {
        0 => step * 16 + 8,
        _ => (step * 16 + 0x108) << (segment - 1),
    };
    (if code & 0x80 != 0 { magnitude } else { -magnitude }) as i16
}

/// On the wire, all bits of a mu-law code are inverted. The bias of 33 units of 14 bits is 0x84 units of 16 bits.
const fn ulaw_value(code: i32) -> i16 {
    const BIAS: i32 = 0x84;
    let code = !code;
    let (segment, step) = (code >> 4 & 7, code & 15);
    let magnitude = (((step << 3) + BIAS) << segment) - BIAS;
    (if code & 0x80 == 0 { magnitude } else { -magnitude }) as i16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 256 little-endian samples: `ffmpeg -f alaw -i all-codes -f s16le`, where all-codes has the bytes 0 to 255.
    fn check_law(table: &[i16; 256], decoded_by_ffmpeg: &[u8]) {
        let codes: Vec<u8> = (0..=255).collect();
        let mut samples = Vec::new();
        decode(table, &codes, &mut samples);
        let expected: Vec<i16> =
            decoded_by_ffmpeg.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
        assert_eq!(samples, expected);
    }

    #[test]
    fn all_codes_decode_as_ffmpeg_decodes_them() {
        check_law(&ALAW, include_bytes!("../../../testdata/audio/alaw.s16le"));
        check_law(&ULAW, include_bytes!("../../../testdata/audio/ulaw.s16le"));
    }

    #[test]
    fn silence_and_the_extremes_of_the_recommendation_are_right() {
        assert_eq!((ALAW[0xd5], ALAW[0x55], ALAW[0xaa], ALAW[0x2a]), (8, -8, 32256, -32256));
        assert_eq!((ULAW[0xff], ULAW[0x7f], ULAW[0x80], ULAW[0x00]), (0, 0, 32124, -32124));
    }
}
