//! Parser of the output of `kafka-dump-log` (`DumpLogSegments --print-data-log`): one line per batch,
//! followed by one line per record, `| offset: 0 CreateTime: … keySize: -1 valueSize: 245 … headerKeys: []
//! payload: {…}`. Before Kafka 2.1, lines had no leading `| ` and names were in lower case.
//!
//! Keys and values are printed without escapes. The value's size says where it starts.

use memchr::memmem;

use super::KafkaPosition;
use super::lines::{ParsedLine, Scratch};
use super::parse_partition_dir;
use crate::limits::RECORD_BYTES_MAX;

const PAYLOAD: &[u8] = b" payload: ";
const KEY: &[u8] = b" key: ";

/// Start of a record's line without metadata (`--skip-record-metadata`).
const BARE_RECORDS: [&[u8]; 2] = [b"| key: ", b"| payload: "];

/// The batch that the next lines of records belong to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BatchLine {
    /// True within the text of an index file.
    is_index: bool,
    /// The producer, if the batch is part of a transaction.
    producer_id: Option<i64>,
    /// Offset of the next record, if no offset is missing in the batch.
    next_offset: Option<i64>,
}

/// Reports whether a line has this format.
pub(super) fn is_log_line(line: &[u8]) -> bool {
    is_head_line(line) || is_record_line(line)
}

fn is_head_line(line: &[u8]) -> bool {
    let heads: [&[u8]; 4] = [b"Dumping ", b"Log starting offset: ", b"Starting offset: ", b"baseOffset: "];
    heads.iter().any(|head| line.starts_with(head))
}

fn is_record_line(line: &[u8]) -> bool {
    line.starts_with(b"| offset: ") || line.starts_with(b"offset: ") || is_bare_record_line(line)
}

fn is_bare_record_line(line: &[u8]) -> bool {
    BARE_RECORDS.iter().any(|start| line.starts_with(start))
}

/// Parses a line.
pub(super) fn parse_line<'a>(line: &'a [u8], scratch: &'a mut Scratch) -> ParsedLine<'a> {
    if let Some(file) = line.strip_prefix(b"Dumping ") {
        set_partition(file, scratch);
        return ParsedLine::Skip;
    }
    if scratch.batch.is_index || is_remark(line) {
        return ParsedLine::Skip;
    }
    if is_head_line(line) {
        return parse_head_line(line, scratch);
    }
    if !is_record_line(line) {
        return ParsedLine::Damaged("not a line of kafka-dump-log".to_owned());
    }
    let offset = if is_bare_record_line(line) {
        scratch.batch.next_offset
    } else {
        match parse_number(line, b"offset: ") {
            None => return ParsedLine::Damaged("the record has no offset".to_owned()),
            offset => offset,
        }
    };
    scratch.batch.next_offset = scratch.batch.next_offset.map(|next| next + 1);
    let partition = scratch.partition.unwrap_or(-1);
    let producer_id = scratch.batch.producer_id;
    let position = offset.map(|offset| KafkaPosition { topic: &scratch.topic, partition, offset });
    let record = |value| match (position, producer_id) {
        (Some(position), Some(producer_id)) => ParsedLine::Transactional(position, value, producer_id),
        _ => ParsedLine::Record(position, value),
    };
    match (value_at(line), value_bytes(line)) {
        (Some(start), _) => record(Some(&line[start..])),
        (None, _) if memmem::find(line, b" endTxnMarker: ").is_some() => {
            let is_abort = memmem::find(line, b" endTxnMarker: ABORT").is_some();
            match (position, producer_id) {
                (Some(position), Some(producer)) => ParsedLine::TransactionEnd(position, producer, is_abort),
                _ => ParsedLine::Skip,
            }
        }
        (None, Some(size)) if size < 0 => record(None),
        (None, _) => {
            ParsedLine::Damaged("the record has no payload (make the dump with --print-data-log)".to_owned())
        }
    }
}

/// Parses the line of a batch: `baseOffset: 0 lastOffset: 4 count: 5 … producerId: 7 … isTransactional: true …`.
fn parse_head_line<'a>(line: &'a [u8], scratch: &mut Scratch) -> ParsedLine<'a> {
    let number = |mark: &[u8]| parse_number(line, mark);
    let is_transactional = memmem::find(line, b" isTransactional: true").is_some();
    let base = number(b"baseOffset: ");
    let count = number(b" count: ");
    let is_dense = base.zip(number(b" lastOffset: ")).map(|(base, last)| last - base + 1) == count;
    scratch.batch = BatchLine {
        is_index: false,
        producer_id: number(b" producerId: ").filter(|producer| is_transactional && *producer >= 0),
        next_offset: base.filter(|_| is_dense && count.is_some()),
    };
    match memmem::find(line, b" isvalid: false") {
        Some(_) => ParsedLine::Damaged(
            "the broker's tool reported this batch as damaged (isvalid: false)".to_owned(),
        ),
        None => ParsedLine::Skip,
    }
}

/// Reports whether a line is a remark at the end of the tool's output.
fn is_remark(line: &[u8]) -> bool {
    let remarks: [&[u8]; 4] = [
        b"Mismatches in :",
        b" Index offset: ",
        b"Non-consecutive offsets in ",
        b"Found timestamp mismatch in :",
    ];
    remarks.iter().any(|remark| line.starts_with(remark))
}

/// Parses the line `Dumping /data/interception-0/00000000000000000000.log`.
fn set_partition(file: &[u8], scratch: &mut Scratch) {
    let file = String::from_utf8_lossy(file);
    let partition = file.rsplit('/').nth(1).and_then(parse_partition_dir);
    scratch.set_topic(partition.map_or("", |(topic, _)| topic));
    scratch.partition = partition.map(|(_, partition)| partition);
    let is_index =
        [".index", ".timeindex", ".txnindex", ".snapshot"].iter().any(|end| file.trim_end().ends_with(end));
    scratch.batch = BatchLine { is_index, ..BatchLine::default() };
}

/// Finds the start of the value.
fn value_at(line: &[u8]) -> Option<usize> {
    let by_size = value_bytes(line)
        .and_then(|size| line.len().checked_sub(usize::try_from(size).ok()?))
        .filter(|start| line[..*start].ends_with(PAYLOAD));
    by_size.or_else(|| Some(memmem::find(line, PAYLOAD)? + PAYLOAD.len()))
}

/// Returns the size of a record's line by the sizes of its key and value.
fn line_bytes(line: &[u8]) -> Option<usize> {
    let value = usize::try_from(value_bytes(line)?).ok().filter(|size| *size <= RECORD_BYTES_MAX)?;
    let key = parse_number(line, b" keySize: ").or_else(|| parse_number(line, b" keysize: "));
    // The key comes after the names of the headers.
    if let Some(key) =
        key.and_then(|size| usize::try_from(size).ok()).filter(|size| *size <= RECORD_BYTES_MAX)
        && let Some(start) = memmem::find(line, KEY)
    {
        return Some(start + KEY.len() + key + PAYLOAD.len() + value);
    }
    Some(memmem::find(line, PAYLOAD)? + PAYLOAD.len() + value)
}

fn value_bytes(line: &[u8]) -> Option<i64> {
    parse_number(line, b" valueSize: ").or_else(|| parse_number(line, b" valuesize: "))
}

/// Parses the number after the first occurrence of `mark`. Text from the sender comes after all of them.
fn parse_number(line: &[u8], mark: &[u8]) -> Option<i64> {
    // All numbers are at the start of the line, so a long value need not be searched.
    let start = &line[..line.len().min(512)];
    let digits = &start[memmem::find(start, mark)? + mark.len()..];
    let end = digits.iter().position(|byte| !matches!(byte, b'-' | b'0'..=b'9')).unwrap_or(digits.len());
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}

/// Size of a record whose key or value contains line ends, from the start of its first line.
pub(super) fn multiline_record_bytes(line: &[u8]) -> Option<usize> {
    if !is_record_line(line) || is_bare_record_line(line) {
        return None;
    }
    line_bytes(line).filter(|bytes| *bytes > line.len())
}

/// Returns the multi-line record at the start of the input, if it is one: it ends at a line end, and none of
/// its lines looks like the start of another record.
pub(super) fn multiline_record(input: &[u8], bytes: usize) -> Option<&[u8]> {
    let record = input.get(..bytes)?;
    let ends = input.get(bytes).is_none_or(|byte| *byte == b'\n');
    let mut lines = record.split(|byte| *byte == b'\n').skip(1);
    (ends && !lines.any(is_log_line)).then_some(record)
}
