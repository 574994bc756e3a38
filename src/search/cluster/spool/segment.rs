//! Encoding of spool segments: a header, followed by records. Pure code.
//!
//! ```text
//! header (40 bytes):  "leaspool"  version u32  log id u64  start u64  number of the first record u64  CRC-32C u32
//! record:             payload length u32  CRC-32C u32  number u64  payload
//! ```
//!
//! Numbers are little endian. The header's CRC covers all bytes before it; a record's CRC covers the rest of the record.
//! `start` is the position of the segment's first byte in the whole log; records are numbered from 0 over the whole log.

pub(in crate::search::cluster) const HEADER_BYTES: usize = 40;

/// Size of a record without its payload.
pub(in crate::search::cluster) const RECORD_HEAD_BYTES: usize = 16;

/// Maximum size of a payload: the largest event, the `lea` object and the names.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 2 << 20;

const MAGIC: &[u8; 8] = b"leaspool";
const VERSION: u32 = 1;

/// The header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::search::cluster) struct SegmentHeader {
    /// Random id of the log.
    pub log: u64,
    /// Position in the log where the segment starts.
    pub base: u64,
    /// Number of the segment's first record.
    pub first: u64,
}

/// A record in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::search::cluster) struct SpoolRecord<'a> {
    pub number: u64,
    pub payload: &'a [u8],
    /// Offset of its first byte.
    pub start: usize,
    /// Offset after its last byte.
    pub end: usize,
}

impl SegmentHeader {
    pub(in crate::search::cluster) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.log.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.base.to_le_bytes());
        bytes[28..36].copy_from_slice(&self.first.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..36]);
        bytes[36..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Parses a header; `None` if it is incomplete or invalid.
    pub(in crate::search::cluster) fn parse(bytes: &[u8]) -> Option<SegmentHeader> {
        let bytes = bytes.get(..HEADER_BYTES)?;
        let is_right = bytes[..8] == *MAGIC
            && u32_at(bytes, 8)? == VERSION
            && crc32c::crc32c(&bytes[..36]) == u32_at(bytes, 36)?;
        is_right.then_some(SegmentHeader {
            log: u64_at(bytes, 12)?,
            base: u64_at(bytes, 20)?,
            first: u64_at(bytes, 28)?,
        })
    }
}

pub(in crate::search::cluster) fn append_record(bytes: &mut Vec<u8>, number: u64, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("payloads are bounded").to_le_bytes();
    bytes.extend_from_slice(&length);
    bytes.extend_from_slice(&crc(length, number, payload).to_le_bytes());
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(payload);
}

fn crc(length: [u8; 4], number: u64, payload: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&length);
    crc32c::crc32c_append(crc32c::crc32c_append(crc, &number.to_le_bytes()), payload)
}

/// Parses the record at `begin`; `None` if it is incomplete or invalid.
pub(in crate::search::cluster) fn parse_record(bytes: &[u8], begin: usize) -> Option<SpoolRecord<'_>> {
    let length = payload_length(bytes, begin)?;
    let (number, from) = (u64_at(bytes, begin + 8)?, begin + RECORD_HEAD_BYTES);
    let payload = bytes.get(from..from + length)?;
    let is_right = crc((length as u32).to_le_bytes(), number, payload) == u32_at(bytes, begin + 4)?;
    is_right.then_some(SpoolRecord { number, payload, start: begin, end: from + length })
}

/// Returns the payload length of the record at `begin`, if it is plausible.
pub(in crate::search::cluster) fn payload_length(bytes: &[u8], begin: usize) -> Option<usize> {
    let length = u32_at(bytes, begin)? as usize;
    (length <= PAYLOAD_BYTES_MAX).then_some(length)
}

/// Finds the next valid record at `from` or later whose number is in `numbers`, skipping damaged bytes.
pub(in crate::search::cluster) fn find_record(
    bytes: &[u8],
    from: usize,
    numbers: std::ops::Range<u64>,
) -> Option<SpoolRecord<'_>> {
    (from..bytes.len().saturating_sub(RECORD_HEAD_BYTES - 1)).find_map(|begin| {
        // A cheap check that rules out nearly every position.
        let is_likely = u64_at(bytes, begin + 8).is_some_and(|number| numbers.contains(&number));
        is_likely.then(|| parse_record(bytes, begin)).flatten()
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: SegmentHeader = SegmentHeader { log: 0x0123_4567_89ab_cdef, base: 1 << 40, first: 7 };

    #[test]
    fn header_with_any_flipped_bit_is_invalid() {
        let bytes = HEADER.to_bytes();
        assert_eq!(SegmentHeader::parse(&bytes), Some(HEADER));
        assert_eq!(SegmentHeader::parse(&bytes[..HEADER_BYTES - 1]), None);
        for bit in 0..8 * HEADER_BYTES {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::parse(&bytes), None, "bit {bit}");
        }
    }

    #[test]
    fn record_with_any_flipped_bit_is_invalid() {
        let mut bytes = Vec::new();
        append_record(&mut bytes, 9, b"an event");
        let found = parse_record(&bytes, 0).unwrap();
        assert_eq!((found.number, found.payload, found.end), (9, &b"an event"[..], bytes.len()));
        for cut in 0..bytes.len() {
            assert_eq!(parse_record(&bytes[..cut], 0), None, "{cut} bytes");
        }
        for bit in 0..8 * bytes.len() {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse_record(&bytes, 0), None, "bit {bit}");
        }
    }

    #[test]
    fn payload_size_is_limited() {
        let mut bytes = Vec::new();
        append_record(&mut bytes, 0, &vec![1; PAYLOAD_BYTES_MAX]);
        assert_eq!(parse_record(&bytes, 0).unwrap().payload.len(), PAYLOAD_BYTES_MAX);
        bytes.clear();
        append_record(&mut bytes, 0, &vec![1; PAYLOAD_BYTES_MAX + 1]);
        assert_eq!(parse_record(&bytes, 0), None);
        bytes.clear();
        append_record(&mut bytes, 0, b"");
        assert_eq!(parse_record(&bytes, 0).unwrap().payload, b"");
    }

    #[test]
    fn search_skips_damaged_records() {
        let mut bytes = Vec::new();
        let mut ends = vec![0];
        for number in 5..9 {
            append_record(&mut bytes, number, format!("event {number}").as_bytes());
            ends.push(bytes.len());
        }
        for at in ends[1]..ends[2] {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x55;
            assert_eq!(parse_record(&bytes, ends[1]), None);
            assert_eq!(find_record(&bytes, ends[1], 6..9).unwrap().number, 7, "byte {at}");
        }
        // A record with another number is an old one in a reused block.
        assert_eq!(find_record(&bytes, 0, 20..30), None);
    }
}
