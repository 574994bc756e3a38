//! What `kafka-dump-log` (`DumpLogSegments --print-data-log`) prints: a line a batch, and below it a line a record,
//! `| offset: 0 CreateTime: … keySize: -1 valueSize: 245 … headerKeys: [] payload: {…}`. Before Kafka 2.1 there was no
//! `| `, and names were in lower case.
//!
//! Keys and values stand as they are, whatever they hold; the value's size says where it begins.

use memchr::memmem;

use super::Position;
use super::lines::{Line, Scratch};
use super::partition_of_folder;
use crate::limits::RECORD_BYTES_MAX;

const PAYLOAD: &[u8] = b" payload: ";

/// True for a line of this format.
pub fn is_line(line: &[u8]) -> bool {
    is_head(line) || is_record(line)
}

fn is_head(line: &[u8]) -> bool {
    let heads: [&[u8]; 4] = [b"Dumping ", b"Log starting offset: ", b"Starting offset: ", b"baseOffset: "];
    heads.iter().any(|head| line.starts_with(head))
}

fn is_record(line: &[u8]) -> bool {
    line.starts_with(b"| offset: ") || line.starts_with(b"offset: ")
}

/// Reads a line.
pub fn read<'a>(line: &'a [u8], scratch: &'a mut Scratch) -> Line<'a> {
    if let Some(file) = line.strip_prefix(b"Dumping ") {
        keep_partition(file, scratch);
        return Line::Nothing;
    }
    if is_head(line) {
        return match memmem::find(line, b" isvalid: false") {
            Some(_) => Line::Damaged("a batch that the broker's tool found to be damaged".to_owned()),
            None => Line::Nothing,
        };
    }
    if !is_record(line) {
        return Line::Damaged("no line of a log dump".to_owned());
    }
    let Some(offset) = number(line, b"offset: ") else {
        return Line::Damaged("a record without an offset".to_owned());
    };
    let partition = scratch.partition.unwrap_or(-1);
    let position = Some(Position { topic: &scratch.topic, partition, offset });
    match (value_at(line), value_bytes(line)) {
        (Some(start), _) => Line::Record(position, Some(&line[start..])),
        (None, _) if memmem::find(line, b" endTxnMarker: ").is_some() => Line::Nothing,
        (None, Some(size)) if size < 0 => Line::Record(position, None),
        (None, _) => {
            Line::Damaged("a record without a payload: the dump was made without --print-data-log".to_owned())
        }
    }
}

/// The line `Dumping /data/interception-0/00000000000000000000.log`.
fn keep_partition(file: &[u8], scratch: &mut Scratch) {
    let file = String::from_utf8_lossy(file);
    let folder = file.rsplit('/').nth(1).and_then(partition_of_folder);
    scratch.keep_topic(folder.map_or("", |(topic, _)| topic));
    scratch.partition = folder.map(|(_, partition)| partition);
}

/// Where the value starts.
fn value_at(line: &[u8]) -> Option<usize> {
    let by_size = value_bytes(line)
        .and_then(|size| line.len().checked_sub(usize::try_from(size).ok()?))
        .filter(|start| line[..*start].ends_with(PAYLOAD));
    by_size.or_else(|| Some(memmem::find(line, PAYLOAD)? + PAYLOAD.len()))
}

fn value_bytes(line: &[u8]) -> Option<i64> {
    number(line, b" valueSize: ").or_else(|| number(line, b" valuesize: "))
}

/// The number behind the first `mark`; what a sender wrote stands behind all of them.
fn number(line: &[u8], mark: &[u8]) -> Option<i64> {
    // The numbers stand at the line's begin: a long value need not be searched.
    let begin = &line[..line.len().min(512)];
    let digits = &begin[memmem::find(begin, mark)? + mark.len()..];
    let end = digits.iter().position(|byte| !matches!(byte, b'-' | b'0'..=b'9')).unwrap_or(digits.len());
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}

/// A value that has line ends in it: how many bytes the record has from the line's start.
pub fn longer(line: &[u8]) -> Option<usize> {
    if !is_record(line) {
        return None;
    }
    let size = usize::try_from(value_bytes(line)?).ok().filter(|size| *size <= RECORD_BYTES_MAX)?;
    let bytes = memmem::find(line, PAYLOAD)? + PAYLOAD.len() + size;
    (bytes > line.len()).then_some(bytes)
}

/// The record of several lines at the input's begin, if it is one: its end is a line's end, and no line in it begins
/// as those of other records do.
pub fn several_lines(input: &[u8], bytes: usize) -> Option<&[u8]> {
    let record = input.get(..bytes)?;
    let ends = input.get(bytes).is_none_or(|byte| *byte == b'\n');
    let mut lines = record.split(|byte| *byte == b'\n').skip(1);
    (ends && !lines.any(is_line)).then_some(record)
}
