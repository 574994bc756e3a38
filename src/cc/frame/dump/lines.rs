//! Dumps of lines: where a line ends, and what to do with it.

use memchr::memchr;

use super::{Format, Place, Position, Step, What, console, envelope, letter, log_text};
use crate::cc::frame::json::Members;
use crate::limits::RECORD_BYTES_MAX;

/// The longest line: a record whose quotes are escaped, and what stands around it.
pub const LINE_BYTES_MAX: usize = 2 * RECORD_BYTES_MAX + (64 << 10);

/// What a line holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineFormat {
    Values,
    Kcat,
    Console,
    LogText,
    Letters,
}

/// What a line is, once read.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// Nothing of interest.
    Nothing,
    /// A record.
    Record(Option<Position<'a>>, Option<&'a [u8]>),
    /// No line of this format.
    Damaged(String),
}

/// What readers of lines keep: memory that is used again, and what earlier lines said.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The topic that holds for now.
    pub topic: String,
    /// The partition that holds for now.
    pub partition: Option<i32>,
    /// A value whose escapes are undone.
    pub value: Vec<u8>,
    /// A value that came as base64.
    pub decoded: Vec<u8>,
}

impl Scratch {
    /// Keeps a topic; most often it is the one of the line before.
    pub fn keep_topic(&mut self, topic: &str) {
        if self.topic != topic {
            topic.clone_into(&mut self.topic);
        }
    }
}

/// Reads a dump line by line.
#[derive(Debug)]
pub struct Lines {
    format: LineFormat,
    /// Lines done with.
    lines: u64,
    /// So many bytes of the input are known to have no line end.
    searched: usize,
    /// True inside a line that is too long.
    skipping: bool,
    scratch: Scratch,
}

impl Lines {
    pub fn new(format: LineFormat) -> Lines {
        Lines { format, lines: 0, searched: 0, skipping: false, scratch: Scratch::default() }
    }

    pub fn step<'a>(&'a mut self, input: &'a [u8], ended: bool) -> Step<'a> {
        let place = Place::Line(self.lines + 1);
        let found = memchr(b'\n', &input[self.searched..]).map(|at| self.searched + at);
        let (line, consumed) = match found {
            Some(at) => (&input[..at], at + 1),
            None if input.is_empty() && ended => {
                return Step { consumed: 0, place, what: What::End { cut_bytes: 0 } };
            }
            None if self.skipping || input.len() > LINE_BYTES_MAX => {
                return self.skip(input.len(), place);
            }
            None if ended => (input, input.len()),
            None => {
                self.searched = input.len();
                return Step { consumed: 0, place, what: What::More(input.len() + 1) };
            }
        };
        if found.is_some() && (self.skipping || line.len() > LINE_BYTES_MAX) {
            let step = self.skip(consumed, place);
            self.next_line(1);
            return step;
        }
        self.read(input, line, consumed, ended, place)
    }

    /// Passes over bytes of a line that is too long; its first ones are named.
    fn skip<'a>(&mut self, consumed: usize, place: Place) -> Step<'a> {
        self.searched = 0;
        let first = !std::mem::replace(&mut self.skipping, true);
        let reason = format!("a line of more than {LINE_BYTES_MAX} bytes");
        Step { consumed, place, what: What::Damaged { reason, bytes: &[], first } }
    }

    fn next_line(&mut self, lines: u64) {
        self.searched = 0;
        self.skipping = false;
        self.lines += lines;
    }

    /// Reads a line; without its end it is the last one.
    fn read<'a>(
        &'a mut self,
        input: &'a [u8],
        line: &'a [u8],
        consumed: usize,
        ended: bool,
        place: Place,
    ) -> Step<'a> {
        self.next_line(1);
        let whole = consumed > line.len();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        // Reading it twice costs less than holding on to the first reading, which the borrow checker forbids.
        if let (LineFormat::LogText, Some(bytes)) = (self.format, log_text::longer(line)) {
            if bytes <= LINE_BYTES_MAX && bytes >= input.len() && !ended {
                self.lines -= 1;
                return Step { consumed: 0, place, what: What::More(bytes + 1) };
            }
            if let Some(record) = log_text::several_lines(input, bytes) {
                self.lines += memchr::memchr_iter(b'\n', record).count() as u64;
                let consumed = (record.len() + 1).min(input.len());
                return Step {
                    consumed,
                    place,
                    what: told(self.format.read(record, &mut self.scratch), record),
                };
            }
        }
        let what = told(self.format.read(line, &mut self.scratch), line);
        match what {
            // So is one that ends before the value: what stands there is taken for a key.
            What::Record { value: None, .. } if !whole && self.format == LineFormat::Console => {
                Step { consumed, place, what: What::End { cut_bytes: line.len() } }
            }
            // A batch's line without its end: the batch's records would follow.
            What::Nothing if !whole && self.format == LineFormat::LogText => {
                Step { consumed, place, what: What::End { cut_bytes: line.len() } }
            }
            What::Record { position, value, .. } if !whole => {
                Step { consumed, place, what: What::Record { position, value, open_end: true } }
            }
            // A line that cannot be read because the dump ends in it is cut, not damaged.
            What::Damaged { .. } if !whole => {
                Step { consumed, place, what: What::End { cut_bytes: line.len() } }
            }
            what => Step { consumed, place, what },
        }
    }
}

fn told<'a>(line: Line<'a>, bytes: &'a [u8]) -> What<'a> {
    match line {
        Line::Nothing => What::Nothing,
        Line::Record(position, value) => What::Record { position, value, open_end: false },
        Line::Damaged(reason) => What::Damaged { reason, bytes, first: true },
    }
}

impl LineFormat {
    fn read<'a>(self, line: &'a [u8], scratch: &'a mut Scratch) -> Line<'a> {
        if line.iter().all(u8::is_ascii_whitespace) {
            return Line::Nothing;
        }
        match self {
            LineFormat::Values if is_remark(line) => Line::Nothing,
            LineFormat::Values => Line::Record(None, Some(line)),
            LineFormat::Kcat => envelope::read(line, scratch),
            LineFormat::Console => console::read(line),
            LineFormat::LogText => log_text::read(line, scratch),
            LineFormat::Letters => letter::read(line, scratch),
        }
    }
}

/// What the tools say on stderr, and what is in a dump when both went into one file; and what Kafka 4's console consumer
/// says of its old option on stdout.
pub fn is_remark(line: &[u8]) -> bool {
    let remarks: [&[u8]; 3] = [b"% ", b"Processed a total of ", b"Option --property is deprecated"];
    remarks.iter().any(|remark| line.starts_with(remark))
}

/// The format that a dump with this line has, if the line tells.
pub fn tell(line: &[u8]) -> Option<Format> {
    if log_text::is_line(line) {
        return Some(Format::LogText);
    }
    if console::is_line(line) {
        return Some(Format::Console);
    }
    if line.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    // The names of the first members are enough: a long line may not be whole here.
    let mut members = Members::of(line).ok()?;
    while let Ok(Some((name, _))) = members.next_member() {
        match name {
            b"data" | b"userid" | b"user_id" | b"interceptionfilename" => return Some(Format::Values),
            b"topic" | b"partition" | b"payload" => return Some(Format::Kcat),
            letter::MARK => return Some(Format::Letters),
            _ => {}
        }
    }
    None
}
