//! Parser of record batches in format v2 (header, checksum, records: Kafka's protocol guide, "Record Batch" and
//! "Record"), and of messages in the earlier formats v0 and v1 ("Old Message Format").

use super::codec::Codec;

/// Size of a batch header. The records follow it.
pub(super) const HEADER_BYTES: usize = 61;

/// Size of the offset and length fields, which the length does not count.
pub(super) const LENGTH_PREFIX_BYTES: usize = 12;

/// Size of the smallest message in an earlier format: no time, no key, an empty value.
pub(super) const MESSAGE_BYTES_MIN: usize = 26;

/// Start of the bytes that the checksum covers.
const CRC_START: usize = 21;

/// Header of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchHeader {
    /// Offset of the first record, before compaction may have removed it.
    pub base_offset: i64,
    /// Size of the batch, header included.
    pub bytes: usize,
    /// Format version: 2, or 0 or 1 for a message.
    pub magic: u8,
    pub crc: u32,
    pub attributes: u16,
    pub producer_id: i64,
    pub records: u32,
}

impl BatchHeader {
    /// Parses the header at the start of `bytes`, which has at least [`HEADER_BYTES`] bytes. Returns `None`
    /// if this cannot be a header. Few other byte sequences pass.
    pub(super) fn parse(bytes: &[u8], bytes_max: usize) -> Option<BatchHeader> {
        if *bytes.get(16)? < 2 {
            return BatchHeader::parse_message(bytes, bytes_max);
        }
        let header = BatchHeader {
            base_offset: i64::from_be_bytes(at(bytes, 0)?),
            bytes: LENGTH_PREFIX_BYTES + usize::try_from(i32::from_be_bytes(at(bytes, 8)?)).ok()?,
            magic: *bytes.get(16)?,
            crc: u32::from_be_bytes(at(bytes, 17)?),
            attributes: u16::from_be_bytes(at(bytes, 21)?),
            producer_id: i64::from_be_bytes(at(bytes, 43)?),
            records: u32::from_be_bytes(at(bytes, 57)?),
        };
        let last_offset_delta = i32::from_be_bytes(at(bytes, 23)?);
        let producer_epoch = i16::from_be_bytes(at(bytes, 51)?);
        // An uncompressed record takes at least seven bytes.
        let sound = header.magic == 2
            && header.bytes >= HEADER_BYTES
            && header.attributes < 0x80
            && last_offset_delta >= 0
            && header.producer_id >= -1
            && producer_epoch >= -1
            && i32::try_from(header.records).is_ok();
        (header.base_offset >= 0 && header.bytes <= bytes_max && sound).then_some(header)
    }

    /// Parses the start of a message in an earlier format.
    fn parse_message(bytes: &[u8], bytes_max: usize) -> Option<BatchHeader> {
        let header = BatchHeader {
            base_offset: i64::from_be_bytes(at(bytes, 0)?),
            bytes: LENGTH_PREFIX_BYTES + usize::try_from(i32::from_be_bytes(at(bytes, 8)?)).ok()?,
            magic: *bytes.get(16)?,
            crc: u32::from_be_bytes(at(bytes, 12)?),
            attributes: (*bytes.get(17)?).into(),
            producer_id: -1,
            records: 1,
        };
        let is_sound = header.base_offset >= 0 && header.attributes < 0x10;
        (is_sound && (MESSAGE_BYTES_MIN..=bytes_max).contains(&header.bytes)).then_some(header)
    }

    /// Reports whether the record is part of a transaction.
    pub(super) fn is_transactional(&self) -> bool {
        self.attributes & 0x10 != 0 && self.magic == 2
    }

    /// Verifies the checksum of the complete batch.
    pub(super) fn is_intact(&self, batch: &[u8]) -> bool {
        batch.get(CRC_START..self.bytes).is_some_and(|checked| crc32c::crc32c(checked) == self.crc)
    }

    /// Returns the compression codec, or the unknown codec number as an error.
    pub(super) fn codec(&self) -> Result<Codec, u16> {
        Codec::from_number(self.attributes & 7)
    }

    /// Reports whether this batch ends a transaction.
    pub(super) fn is_control(&self) -> bool {
        self.attributes & 0x20 != 0
    }
}

/// Message in format v0 or v1: a record, or a wrapper around compressed records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub offset: i64,
    pub magic: u8,
    pub attributes: u16,
    pub value: Option<&'a [u8]>,
    /// Size of the message, offset and length included.
    pub bytes: usize,
}

impl<'a> Message<'a> {
    /// Parses the message at the start of `bytes`. Its lengths must add up.
    pub(super) fn parse(bytes: &'a [u8], bytes_max: usize) -> Option<Message<'a>> {
        let header = BatchHeader::parse(bytes, bytes_max).filter(|header| header.magic < 2)?;
        let times = if header.magic == 1 { 8 } else { 0 };
        let mut rest = bytes.get(18 + times..header.bytes)?;
        read_sized(&mut rest)?;
        let value = read_sized(&mut rest)?;
        let BatchHeader { base_offset: offset, magic, attributes, bytes, .. } = header;
        rest.is_empty().then_some(Message { offset, magic, attributes, value, bytes })
    }

    pub(super) fn codec(&self) -> Result<Codec, u16> {
        Codec::from_number(self.attributes & 7)
    }
}

/// Reads a byte string with a length of four bytes before it. -1 means null.
fn read_sized<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    match i32::from_be_bytes(take(rest, 4)?.try_into().ok()?) {
        -1 => Some(None),
        length => take(rest, usize::try_from(length).ok()?).map(Some),
    }
}

/// Verifies the checksum of a complete message: a CRC-32 of everything after it.
pub(super) fn is_intact_message(message: &[u8]) -> bool {
    let Some((head, checked)) = message.split_at_checked(16) else { return false };
    let mut crc = flate2::Crc::new();
    crc.update(checked);
    head.ends_with(&crc.sum().to_be_bytes())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchRecord<'a> {
    pub offset_delta: i32,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
}

/// Parses the record at the start of `records` and returns it with its length, or `None` if there is no valid
/// record.
pub(super) fn parse_record(records: &[u8]) -> Option<(BatchRecord<'_>, usize)> {
    let mut rest = records;
    let length = usize::try_from(read_varint(&mut rest)?).ok()?;
    let (mut body, after) = rest.split_at_checked(length)?;
    take(&mut body, 1)?; // attributes: none are in use
    read_varint(&mut body)?; // the time
    let offset_delta = i32::try_from(read_varint(&mut body)?).ok()?;
    let key = read_bytes(&mut body)?;
    let value = read_bytes(&mut body)?;
    let headers = read_varint(&mut body)?;
    // A header takes at least two bytes, so a wrong count ends soon.
    for _ in 0..headers {
        read_bytes(&mut body)?;
        read_bytes(&mut body)?;
    }
    let found = BatchRecord { offset_delta, key, value };
    (body.is_empty() && headers >= 0).then_some((found, records.len() - after.len()))
}

/// Reports whether a control record aborts its transaction. Returns `None` for other control records.
pub(super) fn is_abort(control: &BatchRecord<'_>) -> Option<bool> {
    match control.key.and_then(|key| at(key, 2))? {
        [0, 0] => Some(true),
        [0, 1] => Some(false),
        _ => None,
    }
}

/// Reads a byte string with a length prefix. -1 means null.
fn read_bytes<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    match read_varint(rest)? {
        -1 => Some(None),
        length => take(rest, usize::try_from(length).ok()?).map(Some),
    }
}

/// Reads a zigzag varint: seven bits per byte, lowest first.
fn read_varint(rest: &mut &[u8]) -> Option<i64> {
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
    let (head, after) = rest.split_at_checked(bytes)?;
    *rest = after;
    Some(head)
}

fn at<const N: usize>(bytes: &[u8], start: usize) -> Option<[u8; N]> {
    bytes.get(start..start + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_are_read() {
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
            assert_eq!(read_varint(&mut &*bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn a_record_is_read_to_its_end() {
        let whole = [22, 0, 0, 6, 2, b'k', 4, b'v', b'w', 2, 0, 1];
        let expected = BatchRecord { offset_delta: 3, key: Some(b"k"), value: Some(b"vw") };
        assert_eq!(parse_record(&whole), Some((expected, whole.len())));
        for end in 0..whole.len() {
            assert_eq!(parse_record(&whole[..end]), None, "{end}");
        }
        // One byte too many inside the record's length.
        assert_eq!(parse_record(&[14, 0, 0, 0, 1, 1, 0, 0]), None);
        let none = BatchRecord { offset_delta: 0, key: None, value: None };
        assert_eq!(parse_record(&[12, 0, 0, 0, 1, 1, 0, 99]), Some((none, 7)));
        // A negative number of headers.
        assert_eq!(parse_record(&[12, 0, 0, 0, 1, 1, 1]), None);
    }
}
