//! A segment of the queue as bytes: a header, then records. Pure.
//!
//! Header, 40 bytes: `leaqueue`, version, the log's id, the byte of the whole log at which the segment begins, the number
//! of its first record, CRC-32C of all that. Record: the payload's length, CRC-32C of everything else in the record, its
//! number, the payload. All numbers are little endian. Bytes and records are counted over the whole log, from 0.

/// Bytes of a header.
pub const HEADER_BYTES: usize = 40;

/// Bytes of a record beside its payload.
pub const RECORD_HEAD_BYTES: usize = 16;

/// Bytes of a payload: an event of the largest size, what is added to it, names.
pub const PAYLOAD_BYTES_MAX: usize = 2 << 20;

const MAGIC: &[u8; 8] = b"leaqueue";
const VERSION: u32 = 1;

/// What stands at a segment's begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The log's random id.
    pub log: u64,
    /// Where in the log the segment begins, with its header.
    pub base: u64,
    /// The number of its first record.
    pub first: u64,
}

/// A record where it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its number.
    pub number: u64,
    /// What it holds.
    pub payload: &'a [u8],
    /// Its first byte.
    pub begin: usize,
    /// The byte behind it.
    pub end: usize,
}

impl Header {
    /// As it is written.
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
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

    /// Reads one; none where there is no whole and right one.
    pub fn read(bytes: &[u8]) -> Option<Header> {
        let bytes = bytes.get(..HEADER_BYTES)?;
        let is_right = bytes[..8] == *MAGIC
            && u32_at(bytes, 8)? == VERSION
            && crc32c::crc32c(&bytes[..36]) == u32_at(bytes, 36)?;
        is_right.then_some(Header {
            log: u64_at(bytes, 12)?,
            base: u64_at(bytes, 20)?,
            first: u64_at(bytes, 28)?,
        })
    }
}

/// Appends a record.
pub fn push(bytes: &mut Vec<u8>, number: u64, payload: &[u8]) {
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

/// The record that begins there, if it is whole and right.
pub fn record(bytes: &[u8], begin: usize) -> Option<Record<'_>> {
    let length = payload_bytes(bytes, begin)?;
    let (number, from) = (u64_at(bytes, begin + 8)?, begin + RECORD_HEAD_BYTES);
    let payload = bytes.get(from..from + length)?;
    let is_right = crc((length as u32).to_le_bytes(), number, payload) == u32_at(bytes, begin + 4)?;
    is_right.then_some(Record { number, payload, begin, end: from + length })
}

/// How long the payload of the record there says it is, as far as that can be.
pub fn payload_bytes(bytes: &[u8], begin: usize) -> Option<usize> {
    let length = u32_at(bytes, begin)? as usize;
    (length <= PAYLOAD_BYTES_MAX).then_some(length)
}

/// The next record from there on whose number is one of these, over whatever is damaged.
pub fn search(bytes: &[u8], from: usize, numbers: std::ops::Range<u64>) -> Option<Record<'_>> {
    (from..bytes.len().saturating_sub(RECORD_HEAD_BYTES - 1)).find_map(|begin| {
        // Cheap, and wrong for nearly every place that is no record's begin.
        let is_likely = u64_at(bytes, begin + 8).is_some_and(|number| numbers.contains(&number));
        is_likely.then(|| record(bytes, begin)).flatten()
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

    const HEADER: Header = Header { log: 0x0123_4567_89ab_cdef, base: 1 << 40, first: 7 };

    #[test]
    fn a_header_comes_back_and_any_other_bit_is_none() {
        let bytes = HEADER.to_bytes();
        assert_eq!(Header::read(&bytes), Some(HEADER));
        assert_eq!(Header::read(&bytes[..HEADER_BYTES - 1]), None);
        for bit in 0..8 * HEADER_BYTES {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::read(&bytes), None, "bit {bit}");
        }
    }

    #[test]
    fn a_record_comes_back_and_any_other_bit_is_none() {
        let mut bytes = Vec::new();
        push(&mut bytes, 9, b"an event");
        let found = record(&bytes, 0).unwrap();
        assert_eq!((found.number, found.payload, found.end), (9, &b"an event"[..], bytes.len()));
        for cut in 0..bytes.len() {
            assert_eq!(record(&bytes[..cut], 0), None, "{cut} bytes");
        }
        for bit in 0..8 * bytes.len() {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(record(&bytes, 0), None, "bit {bit}");
        }
    }

    #[test]
    fn payloads_of_the_longest_size_and_none_longer() {
        let mut bytes = Vec::new();
        push(&mut bytes, 0, &vec![1; PAYLOAD_BYTES_MAX]);
        assert_eq!(record(&bytes, 0).unwrap().payload.len(), PAYLOAD_BYTES_MAX);
        bytes.clear();
        push(&mut bytes, 0, &vec![1; PAYLOAD_BYTES_MAX + 1]);
        assert_eq!(record(&bytes, 0), None);
        bytes.clear();
        push(&mut bytes, 0, b"");
        assert_eq!(record(&bytes, 0).unwrap().payload, b"");
    }

    #[test]
    fn the_next_record_is_found_behind_what_is_damaged() {
        let mut bytes = Vec::new();
        let mut ends = vec![0];
        for number in 5..9 {
            push(&mut bytes, number, format!("event {number}").as_bytes());
            ends.push(bytes.len());
        }
        for at in ends[1]..ends[2] {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x55;
            assert_eq!(record(&bytes, ends[1]), None);
            assert_eq!(search(&bytes, ends[1], 6..9).unwrap().number, 7, "byte {at}");
        }
        // A record of another number is what was once written at this place.
        assert_eq!(search(&bytes, 0, 20..30), None);
    }
}
