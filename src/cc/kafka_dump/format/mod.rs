//! Parsers of Kafka topic dumps: they turn the bytes of a file into records. Pure: the caller reads the file
//! and passes the bytes in.
//!
//! The caller calls [`DumpReader::step`] in a loop with the bytes that are not yet consumed. Each
//! [`ReadStep`] says how many bytes were consumed, or that more bytes are needed. Damage is a step like any
//! other: reading continues after it.
//!
//! Invariant: the result does not depend on how the input was split into reads. All complete records before
//! the end of the input are returned, and a truncated end is distinguished from damage.

mod batch;
mod codec;
mod console;
mod dead_letter;
mod detect;
mod envelope;
mod json_stream;
mod keyed;
mod lines;
mod log_text;
mod scanner;
mod segment;

pub use dead_letter::RecordDeadLetter;
pub use lines::LINE_BYTES_MAX;

use crate::limits::BATCH_BYTES_MAX;
use json_stream::JsonReader;
use lines::{LineFormat, LineReader};
use segment::SegmentReader;

/// The largest input that a step ever needs, plus some margin. The caller never has to keep more.
pub const INPUT_BYTES_MAX: usize = BATCH_BYTES_MAX + (1 << 20);

/// Number of bytes at the start of a file from which its format is detected.
pub const DETECT_BYTES_MAX: usize = 64 << 10;

/// Position of a record in Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KafkaPosition<'a> {
    /// The topic. Empty if the dump does not contain it.
    pub topic: &'a str,
    /// The partition. -1 if the dump does not contain it.
    pub partition: i32,
    pub offset: i64,
}

impl KafkaPosition<'_> {
    /// Reports whether the record belongs to this partition.
    pub fn is_in(&self, topic: &str, partition: i32) -> bool {
        // Comparing empty strings through a dangling pointer costs some processors 50 ns, so it is skipped.
        self.partition == partition
            && self.topic.len() == topic.len()
            && (topic.is_empty() || self.topic == topic)
    }
}

/// Location in a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DumpLocation {
    /// Line number, from 1.
    Line(u64),
    /// Byte position in the decompressed dump, from 0.
    Byte(u64),
}

impl std::fmt::Display for DumpLocation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DumpLocation::Line(line) => write!(f, "line={line}"),
            DumpLocation::Byte(byte) => write!(f, "byte={byte}"),
        }
    }
}

/// Result of one reading step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadStep<'a> {
    /// Number of input bytes that the caller may discard.
    pub consumed: usize,
    /// Location of the item.
    pub location: DumpLocation,
    pub item: DumpItem<'a>,
}

/// Item found by a reading step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DumpItem<'a> {
    /// More bytes are needed: at least this many in total.
    NeedBytes(usize),
    /// End of the dump. The last `truncated_bytes` bytes are the start of an incomplete record.
    End {
        /// 0 if the dump ends after a complete record.
        truncated_bytes: usize,
    },
    /// Something to ignore: a header line, the end of a batch.
    Skip,
    Record {
        /// Position in Kafka, if the dump contains it.
        position: Option<KafkaPosition<'a>>,
        /// The value, or `None` for a tombstone.
        value: Option<&'a [u8]>,
        /// True for a last line without a line end. If its value is not JSON, the dump was truncated in it.
        is_last_line: bool,
        /// The producer, if the record is part of a transaction. A [`TransactionEnd`](DumpItem::TransactionEnd)
        /// says later whether the record counts.
        producer_id: Option<i64>,
    },
    /// Bytes that do not belong to this format.
    Damaged {
        /// The reason.
        reason: String,
        /// The bytes. Empty if they are too many to be kept.
        bytes: &'a [u8],
        /// False if this continues the damage reported by the previous step.
        first: bool,
    },
    /// A producer ended a transaction. Its records have been returned before.
    TransactionEnd {
        /// Position of the marker in Kafka.
        position: KafkaPosition<'a>,
        producer_id: i64,
        /// True if the records do not count.
        is_abort: bool,
    },
}

/// Format of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DumpFormat {
    /// One record value per line. Logstash lines too.
    Values,
    /// JSON envelopes as printed by `kcat -J`.
    Kcat,
    /// Lines of Kafka's console consumer: properties, tab, value.
    Console,
    /// Output of `DumpLogSegments --print-data-log`.
    LogText,
    /// Dead letters written by lea.
    DeadLetters,
    /// Raw log segment of a partition.
    Segment,
    /// A stream of JSON values: record values or envelopes.
    Json,
    /// Lines with a key or other text before the value.
    Keyed,
}

/// A format, and why a dump was taken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detected {
    pub format: DumpFormat,
    /// The evidence.
    pub reason: &'static str,
}

impl DumpFormat {
    /// Detects the format from the start of a dump. Returns `None` if the bytes are too few to decide. `is_all` says that
    /// these are all bytes of the dump, or [`DETECT_BYTES_MAX`] of them: then the result is a format. Unknown formats
    /// are treated as values, so each line that is not a value is reported.
    pub fn detect(start: &[u8], is_all: bool) -> Option<Detected> {
        detect::detect(start, is_all)
    }

    /// What the user can do if a dump of this format has no usable record.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            DumpFormat::Segment => "it may be an index file, or not a dump",
            DumpFormat::LogText => "make the dump with --print-data-log",
            _ => "look at its first lines, and say with --format what it is",
        }
    }

    /// Stable token for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            DumpFormat::Values => "values",
            DumpFormat::Kcat => "kcat",
            DumpFormat::Console => "console",
            DumpFormat::LogText => "log_text",
            DumpFormat::DeadLetters => "dead_letters",
            DumpFormat::Segment => "segment",
            DumpFormat::Json => "json",
            DumpFormat::Keyed => "keyed",
        }
    }
}

/// Reader of one dump.
#[derive(Debug)]
pub enum DumpReader {
    Lines(LineReader),
    Segment(SegmentReader),
    Json(JsonReader),
}

impl DumpReader {
    /// Creates a reader at the start of a dump. `partition` is known from elsewhere: a segment does not
    /// contain it.
    pub fn new(format: DumpFormat, partition: Option<(&str, i32)>) -> DumpReader {
        let lines = match format {
            DumpFormat::Values => LineFormat::Values,
            DumpFormat::Kcat => LineFormat::Kcat,
            DumpFormat::Console => LineFormat::Console,
            DumpFormat::LogText => LineFormat::LogText,
            DumpFormat::DeadLetters => LineFormat::DeadLetters,
            DumpFormat::Keyed => LineFormat::Keyed,
            DumpFormat::Segment => return DumpReader::Segment(SegmentReader::new(partition)),
            DumpFormat::Json => return DumpReader::Json(JsonReader::default()),
        };
        DumpReader::Lines(LineReader::new(lines))
    }

    /// Reads the next item. `input` is what was not consumed before, and possibly more. `ended` says that no
    /// more input will follow.
    pub fn step<'a>(&'a mut self, input: &'a [u8], ended: bool) -> ReadStep<'a> {
        match self {
            DumpReader::Lines(lines) => lines.step(input, ended),
            DumpReader::Segment(segment) => segment.step(input, ended),
            DumpReader::Json(json) => json.step(input, ended),
        }
    }
}

/// Returns the value in an envelope.
pub(crate) fn unwrap_envelope(envelope: &[u8]) -> Option<Vec<u8>> {
    let mut scratch = lines::Scratch::default();
    match envelope::open(envelope, &mut scratch).ok()? {
        envelope::Opened::Record { value: envelope::ValuePlace::Input(range), .. } => {
            Some(envelope[range].to_vec())
        }
        envelope::Opened::Record { value: envelope::ValuePlace::Scratch, .. } => Some(scratch.value),
        _ => None,
    }
}

/// Parses the name of a partition's directory: `interception-0`, and `interception-0.5f1e…-delete` for one that the
/// broker deletes, moves (`-future`) or does not know (`-stray`).
pub fn parse_partition_dir(dir_name: &str) -> Option<(&str, i32)> {
    let marked = ["-delete", "-stray", "-future"].iter().find_map(|mark| dir_name.strip_suffix(mark));
    let dir_name = marked.and_then(|name| Some(name.rsplit_once('.')?.0)).unwrap_or(dir_name);
    let (topic, digits) = dir_name.rsplit_once('-')?;
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let partition = digits.parse().ok().filter(|_| plain && !topic.is_empty())?;
    Some((topic, partition))
}

#[cfg(test)]
mod tests;
