//! Record batches of format v2 (Kafka's protocol guide, "Record Batch" and "Record"): header, checksum, records.

use super::codec::Codec;

/// A batch's header; its records follow.
pub const HEADER_BYTES: usize = 61;

/// Offset and length: what stands before the bytes that the length counts.
pub const FRAME_BYTES: usize = 12;

/// The checksum covers what stands behind it.
const CHECKED_FROM: usize = 21;

/// The header of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The offset of the first record (or where it was, before compaction).
    pub base_offset: i64,
    /// The whole batch, header included.
    pub bytes: usize,
    /// 2, or an earlier format of which nothing else is known here.
    pub magic: u8,
    /// CRC-32C.
    pub crc: u32,
    pub attributes: u16,
    pub producer_id: i64,
    /// How many records there are.
    pub records: u32,
}

impl Header {
    /// The header at the begin of `bytes`, [`HEADER_BYTES`] at least; `None` if none can be there. Few bytes that are
    /// none pass.
    pub fn read(bytes: &[u8], bytes_max: usize) -> Option<Header> {
        let header = Header {
            base_offset: i64::from_be_bytes(at(bytes, 0)?),
            bytes: FRAME_BYTES + usize::try_from(i32::from_be_bytes(at(bytes, 8)?)).ok()?,
            magic: *bytes.get(16)?,
            crc: u32::from_be_bytes(at(bytes, 17)?),
            attributes: u16::from_be_bytes(at(bytes, 21)?),
            producer_id: i64::from_be_bytes(at(bytes, 43)?),
            records: u32::from_be_bytes(at(bytes, 57)?),
        };
        let old = header.magic < 2 && header.bytes >= 26;
        let last_offset_delta = i32::from_be_bytes(at(bytes, 23)?);
        let producer_epoch = i16::from_be_bytes(at(bytes, 51)?);
        // A record takes seven bytes at least, unless it is compressed.
        let sound = header.magic == 2
            && header.bytes >= HEADER_BYTES
            && header.attributes < 0x80
            && last_offset_delta >= 0
            && header.producer_id >= -1
            && producer_epoch >= -1
            && i32::try_from(header.records).is_ok();
        (header.base_offset >= 0 && header.bytes <= bytes_max && (old || sound)).then_some(header)
    }

    /// True if `batch`, the whole of it, has the checksum that the header says.
    pub fn is_intact(&self, batch: &[u8]) -> bool {
        batch.get(CHECKED_FROM..self.bytes).is_some_and(|checked| crc32c::crc32c(checked) == self.crc)
    }

    /// How the records are compressed; an error for numbers that no codec has.
    pub fn codec(&self) -> Result<Codec, u16> {
        Codec::of(self.attributes & 7)
    }

    /// True for a batch that ends a transaction.
    pub fn is_control(&self) -> bool {
        self.attributes & 0x20 != 0
    }
}

/// True if a message of an earlier format, the whole of it, has the checksum that it says: CRC-32 of all behind it.
pub fn is_intact_message(message: &[u8]) -> bool {
    let Some((head, checked)) = message.split_at_checked(16) else { return false };
    let mut crc = flate2::Crc::new();
    crc.update(checked);
    head.ends_with(&crc.sum().to_be_bytes())
}

/// A record in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub offset_delta: i32,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
}

/// The record at the begin of `records`, and how long it is; `None` if there is none.
pub fn record(records: &[u8]) -> Option<(Record<'_>, usize)> {
    let mut rest = records;
    let length = usize::try_from(varint(&mut rest)?).ok()?;
    let (mut body, after) = rest.split_at_checked(length)?;
    take(&mut body, 1)?; // attributes: none are in use
    varint(&mut body)?; // the time
    let offset_delta = i32::try_from(varint(&mut body)?).ok()?;
    let key = bytes(&mut body)?;
    let value = bytes(&mut body)?;
    let headers = varint(&mut body)?;
    // A header has two bytes at least, so a false number ends soon.
    for _ in 0..headers {
        bytes(&mut body)?;
        bytes(&mut body)?;
    }
    let found = Record { offset_delta, key, value };
    (body.is_empty() && headers >= 0).then_some((found, records.len() - after.len()))
}

/// True if a control record says that a transaction was aborted.
pub fn is_abort(control: &Record<'_>) -> bool {
    control.key.and_then(|key| at(key, 2)).is_some_and(|kind: [u8; 2]| kind == [0, 0])
}

/// Bytes with their length before them; -1 stands for none at all.
fn bytes<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    match varint(rest)? {
        -1 => Some(None),
        length => take(rest, usize::try_from(length).ok()?).map(Some),
    }
}

/// A signed number: seven bits a byte, the lowest first, the sign in the lowest bit.
fn varint(rest: &mut &[u8]) -> Option<i64> {
    let mut number = 0u64;
    for (at, byte) in rest.iter().enumerate().take(10) {
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            *rest = &rest[at + 1..];
            return Some((number >> 1) as i64 ^ -((number & 1) as i64));
        }
    }
    None
}

fn take<'a>(rest: &mut &'a [u8], bytes: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(bytes)?;
    *rest = after;
    Some(taken)
}

fn at<const N: usize>(bytes: &[u8], start: usize) -> Option<[u8; N]> {
    bytes.get(start..start + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_varying_length() {
        for (bytes, expected) in [
            (&[0][..], Some(0)),
            (&[1], Some(-1)),
            (&[2], Some(1)),
            (&[0x80, 0x02], Some(128)),
            (&[0xfe, 0xff, 0xff, 0xff, 0x0f], Some(i64::from(i32::MAX))),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], Some(i64::MIN)),
            (&[0x80], None),
            (&[], None),
            (&[0xff; 11], None),
        ] {
            assert_eq!(varint(&mut &*bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn a_record_is_read_to_its_end() {
        let whole = [22, 0, 0, 6, 2, b'k', 4, b'v', b'w', 2, 0, 1];
        let expected = Record { offset_delta: 3, key: Some(b"k"), value: Some(b"vw") };
        assert_eq!(record(&whole), Some((expected, whole.len())));
        for end in 0..whole.len() {
            assert_eq!(record(&whole[..end]), None, "{end}");
        }
        // A byte too many inside the record's length.
        assert_eq!(record(&[14, 0, 0, 0, 1, 1, 0, 0]), None);
        let none = Record { offset_delta: 0, key: None, value: None };
        assert_eq!(record(&[12, 0, 0, 0, 1, 1, 0, 99]), Some((none, 7)));
        // A negative number of headers.
        assert_eq!(record(&[12, 0, 0, 0, 1, 1, 1]), None);
    }
}
