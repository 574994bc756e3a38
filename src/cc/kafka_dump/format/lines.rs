//! Reader of line-based dumps: it splits the input into lines and parses each line by its format.

use memchr::memchr;

use super::{
    DumpItem, DumpLocation, KafkaPosition, ReadStep, console, dead_letter, envelope, keyed, log_text,
};
use crate::limits::RECORD_BYTES_MAX;

/// Longest line: a record with escaped quotes, plus its envelope.
pub const LINE_BYTES_MAX: usize = 2 * RECORD_BYTES_MAX + (64 << 10);

/// Format of the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineFormat {
    Values,
    Kcat,
    Console,
    LogText,
    DeadLetters,
    Keyed,
}

/// Parsed line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ParsedLine<'a> {
    /// Something to ignore.
    Skip,
    /// Position and value of a record.
    Record(Option<KafkaPosition<'a>>, Option<&'a [u8]>),
    /// A record of a transaction, with its producer.
    Transactional(KafkaPosition<'a>, Option<&'a [u8]>, i64),
    /// The end of a producer's transaction, and whether it was aborted.
    TransactionEnd(KafkaPosition<'a>, i64, bool),
    /// A line that does not have this format.
    Damaged(String),
}

/// State that line parsers keep between lines: reusable buffers and the current topic and partition.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Topic of the current line.
    pub topic: String,
    /// Partition of the current line.
    pub partition: Option<i32>,
    /// The batch that the next records belong to.
    pub batch: log_text::BatchLine,
    /// Unescaped value.
    pub value: Vec<u8>,
    /// Value decoded from base64.
    pub decoded: Vec<u8>,
}

impl Scratch {
    /// Sets the topic. It is usually the topic of the previous line.
    pub(super) fn set_topic(&mut self, topic: &str) {
        if self.topic != topic {
            topic.clone_into(&mut self.topic);
        }
    }
}

/// Reader of a dump, line by line.
#[derive(Debug)]
pub struct LineReader {
    format: LineFormat,
    /// Number of lines consumed.
    lines: u64,
    /// Number of input bytes known to contain no line end.
    searched_bytes: usize,
    /// True inside a line that exceeds the limit.
    is_skipping: bool,
    scratch: Scratch,
}

impl LineReader {
    pub fn new(format: LineFormat) -> LineReader {
        LineReader { format, lines: 0, searched_bytes: 0, is_skipping: false, scratch: Scratch::default() }
    }

    pub fn step<'a>(&'a mut self, input: &'a [u8], ended: bool) -> ReadStep<'a> {
        let place = DumpLocation::Line(self.lines + 1);
        let found = memchr(b'\n', &input[self.searched_bytes..]).map(|at| self.searched_bytes + at);
        let (line, consumed) = match found {
            Some(at) => (&input[..at], at + 1),
            None if input.is_empty() && ended => {
                return ReadStep { consumed: 0, location: place, item: DumpItem::End { truncated_bytes: 0 } };
            }
            // The start of this line was skipped, and more of it may follow.
            None if self.is_skipping && input.is_empty() => {
                return ReadStep { consumed: 0, location: place, item: DumpItem::NeedBytes(1) };
            }
            None if self.is_skipping || input.len() > LINE_BYTES_MAX => {
                return self.skip_line(input.len(), place);
            }
            None if ended => (input, input.len()),
            None => {
                self.searched_bytes = input.len();
                return ReadStep { consumed: 0, location: place, item: DumpItem::NeedBytes(input.len() + 1) };
            }
        };
        if found.is_some() && (self.is_skipping || line.len() > LINE_BYTES_MAX) {
            let step = self.skip_line(consumed, place);
            self.end_line(1);
            return step;
        }
        self.read_line(input, line, consumed, ended, place)
    }

    /// Skips bytes of a line that exceeds the limit. Only the first step reports it.
    fn skip_line<'a>(&mut self, consumed: usize, place: DumpLocation) -> ReadStep<'a> {
        self.searched_bytes = 0;
        let first = !std::mem::replace(&mut self.is_skipping, true);
        let reason = format!("the line exceeds the limit of {LINE_BYTES_MAX} bytes");
        ReadStep { consumed, location: place, item: DumpItem::Damaged { reason, bytes: &[], first } }
    }

    fn end_line(&mut self, lines: u64) {
        self.searched_bytes = 0;
        self.is_skipping = false;
        self.lines += lines;
    }

    /// Reads the next line. Without a line end it is the last one.
    fn read_line<'a>(
        &'a mut self,
        input: &'a [u8],
        line: &'a [u8],
        consumed: usize,
        ended: bool,
        place: DumpLocation,
    ) -> ReadStep<'a> {
        self.end_line(1);
        let whole = consumed > line.len();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        // Parsing twice is cheap. The borrow checker does not allow keeping the first result.
        if let (LineFormat::LogText, Some(bytes)) = (self.format, log_text::multiline_record_bytes(line)) {
            if bytes <= LINE_BYTES_MAX && bytes >= input.len() && !ended {
                self.lines -= 1;
                return ReadStep { consumed: 0, location: place, item: DumpItem::NeedBytes(bytes + 1) };
            }
            if let Some(record) = log_text::multiline_record(input, bytes) {
                self.lines += memchr::memchr_iter(b'\n', record).count() as u64;
                let consumed = (record.len() + 1).min(input.len());
                return ReadStep {
                    consumed,
                    location: place,
                    item: into_item(self.format.parse_line(record, &mut self.scratch), record),
                };
            }
        }
        let what = into_item(self.format.parse_line(line, &mut self.scratch), line);
        match what {
            // A last line that ends before its value is truncated too: its last column was parsed as a key.
            DumpItem::Record { value: None, .. } if !whole && self.format == LineFormat::Console => {
                ReadStep { consumed, location: place, item: DumpItem::End { truncated_bytes: line.len() } }
            }
            // The last line is a batch header without a line end: its records are missing.
            DumpItem::Skip if !whole && self.format == LineFormat::LogText => {
                ReadStep { consumed, location: place, item: DumpItem::End { truncated_bytes: line.len() } }
            }
            DumpItem::Record { position, value, producer_id, .. } if !whole => ReadStep {
                consumed,
                location: place,
                item: DumpItem::Record { position, value, is_last_line: true, producer_id },
            },
            // A last line that cannot be parsed is truncated, not damaged.
            DumpItem::Damaged { .. } if !whole => {
                ReadStep { consumed, location: place, item: DumpItem::End { truncated_bytes: line.len() } }
            }
            what => ReadStep { consumed, location: place, item: what },
        }
    }
}

fn into_item<'a>(line: ParsedLine<'a>, bytes: &'a [u8]) -> DumpItem<'a> {
    match line {
        ParsedLine::Skip => DumpItem::Skip,
        ParsedLine::Record(position, value) => {
            DumpItem::Record { position, value, is_last_line: false, producer_id: None }
        }
        ParsedLine::Transactional(position, value, producer_id) => DumpItem::Record {
            position: Some(position),
            value,
            is_last_line: false,
            producer_id: Some(producer_id),
        },
        ParsedLine::TransactionEnd(position, producer_id, is_abort) => {
            DumpItem::TransactionEnd { position, producer_id, is_abort }
        }
        ParsedLine::Damaged(reason) => DumpItem::Damaged { reason, bytes, first: true },
    }
}

impl LineFormat {
    fn parse_line<'a>(self, line: &'a [u8], scratch: &'a mut Scratch) -> ParsedLine<'a> {
        if line.iter().all(u8::is_ascii_whitespace) {
            return ParsedLine::Skip;
        }
        match self {
            LineFormat::Values if is_tool_message(line) => ParsedLine::Skip,
            LineFormat::Values => ParsedLine::Record(None, Some(line)),
            LineFormat::Kcat => envelope::parse_line(line, scratch),
            LineFormat::Console => console::parse_line(line),
            LineFormat::LogText => log_text::parse_line(line, scratch),
            LineFormat::DeadLetters => dead_letter::parse_line(line, scratch),
            LineFormat::Keyed => keyed::parse_line(line, scratch),
        }
    }
}

/// Reports whether a line is a message of the dumping tool: those on stderr, if both outputs went to one
/// file, and the deprecation notice that Kafka 4's console consumer prints on stdout.
pub(super) fn is_tool_message(line: &[u8]) -> bool {
    let remarks: [&[u8]; 3] = [b"% ", b"Processed a total of ", b"Option --property is deprecated"];
    remarks.iter().any(|remark| line.starts_with(remark))
}
