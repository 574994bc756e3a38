//! AMR and AMR-WB: RTP payloads (RFC 4867 section 4) to frames of a file (section 5).

/// Codec of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AmrKind {
    Narrowband,
    Wideband,
}

/// Frames of a payload. Payloads of calls have one or two; 12 are 240 ms.
const FRAMES_MAX: usize = 64;

/// Speech bits per frame by frame type (3GPP TS 26.101 table 1a and TS 26.201 table 1a). Later types have no data.
const NARROWBAND_BITS: [usize; 9] = [95, 103, 118, 134, 148, 159, 204, 244, 39];
const WIDEBAND_BITS: [usize; 10] = [132, 177, 253, 285, 317, 365, 397, 461, 477, 40];

impl AmrKind {
    /// `None` for types that are reserved.
    fn frame_bits(self, frame_type: u8) -> Option<usize> {
        let (bits, first_empty) = match self {
            AmrKind::Narrowband => (&NARROWBAND_BITS[..], 15),
            AmrKind::Wideband => (&WIDEBAND_BITS[..], 14),
        };
        match bits.get(usize::from(frame_type)) {
            Some(&bits) => Some(bits),
            None => (frame_type >= first_empty).then_some(0),
        }
    }

    pub(super) fn file_header(self) -> &'static [u8] {
        match self {
            AmrKind::Narrowband => b"#!AMR\n",
            AmrKind::Wideband => b"#!AMR-WB\n",
        }
    }
}

/// Bits of a payload, from the most significant on.
struct BitReader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl BitReader<'_> {
    /// At most 8 bits.
    fn read(&mut self, bits: usize) -> Option<u8> {
        let mut value = 0;
        for position in self.position..self.position + bits {
            let byte = self.bytes.get(position / 8)?;
            value = value << 1 | (byte >> (7 - position % 8) & 1);
        }
        self.position += bits;
        Some(value)
    }

    fn align(&mut self) {
        self.position = self.position.next_multiple_of(8);
    }
}

/// Appends the frames of a payload in the form of a file: a byte with type and quality, then the speech bits, padded
/// to a byte. Returns `None`, and appends nothing, if the payload is malformed. Interleaving, CRCs and robust sorting
/// are not supported.
pub(super) fn append_frames(
    kind: AmrKind,
    is_octet_aligned: bool,
    payload: &[u8],
    file: &mut Vec<u8>,
) -> Option<usize> {
    let mut reader = BitReader { bytes: payload, position: 0 };
    // Codec mode request.
    reader.read(4)?;
    let mut frames = Vec::new();
    loop {
        if is_octet_aligned {
            reader.align();
        }
        let entry = reader.read(6)?;
        let (is_last, frame_type, quality) = (entry & 0x20 == 0, entry >> 1 & 15, entry & 1);
        frames.push((frame_type, quality, kind.frame_bits(frame_type)?));
        if is_last {
            break;
        }
        if frames.len() >= FRAMES_MAX {
            return None;
        }
    }
    let mut output = Vec::new();
    for &(frame_type, quality, bits) in &frames {
        if is_octet_aligned {
            reader.align();
        }
        output.push(frame_type << 3 | quality << 2);
        for _ in 0..bits / 8 {
            output.push(reader.read(8)?);
        }
        if bits % 8 > 0 {
            output.push(reader.read(bits % 8)? << (8 - bits % 8));
        }
    }
    reader.align();
    if reader.position != payload.len() * 8 {
        return None;
    }
    file.append(&mut output);
    Some(frames.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convert(kind: AmrKind, is_octet_aligned: bool, payload: &[u8]) -> Option<Vec<u8>> {
        let mut file = Vec::new();
        append_frames(kind, is_octet_aligned, payload, &mut file).map(|_| file)
    }

    /// Writes `bits` of `value`, most significant first.
    fn bits(value: u64, bits: u32) -> Vec<bool> {
        (0..bits).rev().map(|bit| value >> bit & 1 == 1).collect()
    }

    fn bytes(bits: &[bool]) -> Vec<u8> {
        bits.chunks(8)
            .map(|chunk| chunk.iter().enumerate().fold(0, |byte, (n, &bit)| byte | u8::from(bit) << (7 - n)))
            .collect()
    }

    /// Speech bits of a frame: a pattern.
    fn speech(count: usize) -> Vec<bool> {
        (0..count).map(|n| n * n % 7 < 3).collect()
    }

    /// The same frames in both forms of payload, and in the form of a file.
    fn check(kind: AmrKind, types: &[u8]) {
        let (mut compact, mut file) = (bits(15, 4), Vec::new());
        let mut aligned = vec![0xf0];
        for (number, &frame_type) in types.iter().enumerate() {
            let is_followed = u64::from(number + 1 < types.len());
            let entry = is_followed << 5 | u64::from(frame_type) << 1 | 1;
            compact.extend(bits(entry, 6));
            aligned.push((entry << 2) as u8);
        }
        for &frame_type in types {
            let speech = speech(kind.frame_bits(frame_type).unwrap());
            compact.extend(&speech);
            aligned.extend(bytes(&speech));
            file.push(frame_type << 3 | 4);
            file.extend(bytes(&speech));
        }
        let compact = bytes(&compact);
        assert_eq!(convert(kind, false, &compact), Some(file.clone()));
        assert_eq!(convert(kind, true, &aligned), Some(file));
        for (form, payload) in [(false, &compact), (true, &aligned)] {
            for end in 0..payload.len() {
                assert_eq!(convert(kind, form, &payload[..end]), None);
            }
            assert_eq!(convert(kind, form, &[&payload[..], &[0]].concat()), None);
        }
    }

    #[test]
    fn both_forms_of_payload_become_the_frames_of_a_file() {
        check(AmrKind::Narrowband, &[7]);
        check(AmrKind::Narrowband, &[0, 8, 15, 4]);
        check(AmrKind::Wideband, &[8]);
        check(AmrKind::Wideband, &[0, 9, 15, 14, 2]);
        (0..9).for_each(|frame_type| check(AmrKind::Narrowband, &[frame_type, 7]));
        (0..10).for_each(|frame_type| check(AmrKind::Wideband, &[1, frame_type]));
    }

    /// RFC 4867 section 4.3.5.1: one frame of mode 4 (148 bits).
    #[test]
    fn a_single_compact_frame_has_twenty_bytes() {
        assert_eq!(
            convert(AmrKind::Narrowband, false, &[&[0xf2, 0x40][..], &[0; 18]].concat())
                .map(|file| file.len()),
            Some(20)
        );
    }

    #[test]
    fn reserved_types_and_endless_tables_are_malformed() {
        assert_eq!(convert(AmrKind::Narrowband, true, &[0xf0, 9 << 3]), None);
        assert_eq!(convert(AmrKind::Wideband, true, &[0xf0, 10 << 3]), None);
        let table = |count: usize| {
            let mut payload = vec![0xf0];
            payload.extend(std::iter::repeat_n(0x80 | 15 << 3, count - 1));
            payload.push(15 << 3);
            payload
        };
        assert!(convert(AmrKind::Narrowband, true, &table(64)).is_some());
        assert!(convert(AmrKind::Narrowband, true, &table(65)).is_none());
    }
}
