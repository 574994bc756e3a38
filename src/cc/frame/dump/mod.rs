//! Dumps of Kafka topics: from a file's bytes to records. Pure; the caller reads and hands over what there is.
//!
//! A [`Reader`] is asked for one [`Step`] after another with the bytes that are not yet consumed. It says how many of
//! them it is done with, or that it needs more of them. Damage is a step like others: after it the rest goes on.
//!
//! Invariant: how the input was split into reads changes nothing. The end of the input is where it is: whole records
//! before it are given, and what is cut is told apart from what is damaged.

mod batch;
mod codec;
mod console;
mod envelope;
mod letter;
mod lines;
mod log_text;
mod segment;

pub use letter::Letter;
pub use lines::LINE_BYTES_MAX;

use crate::limits::BATCH_BYTES_MAX;
use lines::{LineFormat, Lines};
use segment::Segment;

/// So many bytes are enough for each step, and a few: more need never be kept.
pub const INPUT_BYTES_MAX: usize = BATCH_BYTES_MAX + (1 << 20);

/// So many bytes at a file's begin tell its format, or it has none.
pub const BEGIN_BYTES: usize = 64 << 10;

/// So many NULs near its begin make a dump a segment: the least that a batch's header has is some more.
const NULS_MIN: usize = 8;

/// Where a record stands in Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position<'a> {
    /// The topic; empty if the dump does not say.
    pub topic: &'a str,
    /// The partition; -1 if the dump does not say.
    pub partition: i32,
    /// The offset in the partition.
    pub offset: i64,
}

impl Position<'_> {
    /// Whether it is in this partition.
    pub fn is_in(&self, topic: &str, partition: i32) -> bool {
        // An empty text points nowhere, and some processors take 50 ns to compare no bytes there.
        self.partition == partition
            && self.topic.len() == topic.len()
            && (topic.is_empty() || self.topic == topic)
    }
}

/// Where something stands in a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line, counted from 1.
    Line(u64),
    /// A byte (of the decompressed dump), counted from 0.
    Byte(u64),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Line(line) => write!(f, "line={line}"),
            Place::Byte(byte) => write!(f, "byte={byte}"),
        }
    }
}

/// What the next bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step<'a> {
    /// The caller is done with so many bytes of the input.
    pub consumed: usize,
    /// Where it stands.
    pub place: Place,
    /// What it is.
    pub what: What<'a>,
}

/// What a step found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What<'a> {
    /// More bytes are needed: at least so many altogether, or one more than there are.
    More(usize),
    /// The end. So many bytes before it are the begin of a record whose rest is not there.
    End {
        /// 0 if the dump ends where a record does.
        cut_bytes: usize,
    },
    /// Nothing of interest: a head line, a batch's end.
    Nothing,
    /// A record.
    Record {
        /// Where it stands in Kafka, if the dump says so.
        position: Option<Position<'a>>,
        /// Its value; none if it has none.
        value: Option<&'a [u8]>,
        /// True for a last line without a line end: if the value is no JSON, the dump was cut in it.
        open_end: bool,
    },
    /// Bytes that are no part of a dump of this format.
    Damaged {
        /// Why.
        reason: String,
        /// The bytes; empty if they are too many to be kept.
        bytes: &'a [u8],
        /// False if this goes on with the damage that the step before told of.
        first: bool,
    },
    /// A producer took back what it had written in a transaction. Its records were given all the same: whether they
    /// count is not decided here.
    Aborted {
        /// The producer's id.
        producer_id: i64,
    },
}

/// A format that dumps come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A record's value a line; Logstash lines too.
    Values,
    /// Envelopes as `kcat -J` prints them.
    Kcat,
    /// The console consumer's lines: properties, tab, value.
    Console,
    /// What `DumpLogSegments --print-data-log` prints.
    LogText,
    /// Our own dead letters.
    Letters,
    /// A partition's raw segment.
    Segment,
}

impl Format {
    /// Tells the format from a dump's first bytes: [`BEGIN_BYTES`] of them, or all that there are. What is nothing else
    /// is taken for values: then each line that is none is named.
    pub fn tell(begin: &[u8]) -> Format {
        // Text has no NUL, unless it is damaged, and each batch's header has many.
        if begin.iter().take(4096).filter(|byte| **byte == 0).count() >= NULS_MIN {
            return Format::Segment;
        }
        let lines = begin.split(|byte| *byte == b'\n');
        lines.filter_map(lines::tell).next().unwrap_or(Format::Values)
    }

    /// The name that the log has for it.
    pub fn word(self) -> &'static str {
        match self {
            Format::Values => "values",
            Format::Kcat => "kcat",
            Format::Console => "console",
            Format::LogText => "log_text",
            Format::Letters => "dead_letters",
            Format::Segment => "segment",
        }
    }
}

/// Reads one dump.
#[derive(Debug)]
pub enum Reader {
    /// A format of lines.
    Lines(Lines),
    /// A raw segment.
    Segment(Segment),
}

impl Reader {
    /// A reader at a dump's begin. `partition` is what is known from elsewhere: a segment does not say it itself.
    pub fn new(format: Format, partition: Option<(&str, i32)>) -> Reader {
        let lines = match format {
            Format::Values => LineFormat::Values,
            Format::Kcat => LineFormat::Kcat,
            Format::Console => LineFormat::Console,
            Format::LogText => LineFormat::LogText,
            Format::Letters => LineFormat::Letters,
            Format::Segment => return Reader::Segment(Segment::new(partition)),
        };
        Reader::Lines(Lines::new(lines))
    }

    /// The next step. `input` is what was not consumed before, and possibly more; `ended` is true if nothing can come
    /// after it.
    pub fn step<'a>(&'a mut self, input: &'a [u8], ended: bool) -> Step<'a> {
        match self {
            Reader::Lines(lines) => lines.step(input, ended),
            Reader::Segment(segment) => segment.step(input, ended),
        }
    }
}

/// The topic and the partition that a partition's folder is named after: `interception-0`.
pub fn partition_of_folder(folder: &str) -> Option<(&str, i32)> {
    let (topic, digits) = folder.rsplit_once('-')?;
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let partition = digits.parse().ok().filter(|_| plain && !topic.is_empty())?;
    Some((topic, partition))
}

#[cfg(test)]
mod tests;
