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

/// Reports whether a line has this format.
pub(super) fn is_log_line(line: &[u8]) -> bool {
    is_head_line(line) || is_record_line(line)
}

fn is_head_line(line: &[u8]) -> bool {
    let heads: [&[u8]; 4] = [b"Dumping ", b"Log starting offset: ", b"Starting offset: ", b"baseOffset: "];
    heads.iter().any(|head| line.starts_with(head))
}

fn is_record_line(line: &[u8]) -> bool {
    line.starts_with(b"| offset: ") || line.starts_with(b"offset: ")
}

/// Parses a line.
pub(super) fn parse_line<'a>(line: &'a [u8], scratch: &'a mut Scratch) -> ParsedLine<'a> {
    if let Some(file) = line.strip_prefix(b"Dumping ") {
        set_partition(file, scratch);
        return ParsedLine::Skip;
    }
    if is_head_line(line) {
        return match memmem::find(line, b" isvalid: false") {
            Some(_) => ParsedLine::Damaged(
                "the broker's tool reported this batch as damaged (isvalid: false)".to_owned(),
            ),
            None => ParsedLine::Skip,
        };
    }
    if !is_record_line(line) {
        return ParsedLine::Damaged("not a line of kafka-dump-log".to_owned());
    }
    let Some(offset) = parse_number(line, b"offset: ") else {
        return ParsedLine::Damaged("the record has no offset".to_owned());
    };
    let partition = scratch.partition.unwrap_or(-1);
    let position = Some(KafkaPosition { topic: &scratch.topic, partition, offset });
    match (value_at(line), value_bytes(line)) {
        (Some(start), _) => ParsedLine::Record(position, Some(&line[start..])),
        (None, _) if memmem::find(line, b" endTxnMarker: ").is_some() => ParsedLine::Skip,
        (None, Some(size)) if size < 0 => ParsedLine::Record(position, None),
        (None, _) => {
            ParsedLine::Damaged("the record has no payload (make the dump with --print-data-log)".to_owned())
        }
    }
}

/// Parses the line `Dumping /data/interception-0/00000000000000000000.log`.
fn set_partition(file: &[u8], scratch: &mut Scratch) {
    let file = String::from_utf8_lossy(file);
    let partition = file.rsplit('/').nth(1).and_then(parse_partition_dir);
    scratch.set_topic(partition.map_or("", |(topic, _)| topic));
    scratch.partition = partition.map(|(_, partition)| partition);
}

/// Finds the start of the value.
fn value_at(line: &[u8]) -> Option<usize> {
    let by_size = value_bytes(line)
        .and_then(|size| line.len().checked_sub(usize::try_from(size).ok()?))
        .filter(|start| line[..*start].ends_with(PAYLOAD));
    by_size.or_else(|| Some(memmem::find(line, PAYLOAD)? + PAYLOAD.len()))
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

/// Size of a record whose value contains line ends, from the start of its first line.
pub(super) fn multiline_record_bytes(line: &[u8]) -> Option<usize> {
    if !is_record_line(line) {
        return None;
    }
    let size = usize::try_from(value_bytes(line)?).ok().filter(|size| *size <= RECORD_BYTES_MAX)?;
    let bytes = memmem::find(line, PAYLOAD)? + PAYLOAD.len() + size;
    (bytes > line.len()).then_some(bytes)
}

/// Returns the multi-line record at the start of the input, if it is one: it ends at a line end, and none of
/// its lines looks like the start of another record.
pub(super) fn multiline_record(input: &[u8], bytes: usize) -> Option<&[u8]> {
    let record = input.get(..bytes)?;
    let ends = input.get(bytes).is_none_or(|byte| *byte == b'\n');
    let mut lines = record.split(|byte| *byte == b'\n').skip(1);
    (ends && !lines.any(is_log_line)).then_some(record)
}
