//! Reader of a dump as a stream of JSON values: pretty-printed objects, arrays of objects, several values on a line,
//! values between NUL bytes or other separators, and events as Logstash's rubydebug codec prints them. Each value is
//! the value of a record, an envelope around it, or a list of envelopes.
//!
//! Damage ends where the next value starts, or at the end of the line.

use std::ops::Range;

use memchr::{memchr, memchr_iter, memchr2};

use super::envelope::{self, Opened, ValuePlace};
use super::lines::{LINE_BYTES_MAX, Scratch, is_tool_message};
use super::scanner::{self, Scanned, ValueScanner};
use super::{DumpItem, DumpLocation, ReadStep};
use crate::cc::wire::rubydebug;

/// Bytes that a serializer of a schema registry writes before a value.
const SCHEMA_ID_BYTES: usize = 5;

/// Number of places in an incomplete value at which another value is looked for.
const RESTARTS_MAX: usize = 64;

/// Reader of JSON values.
#[derive(Debug, Default)]
pub struct JsonReader {
    /// Number of lines consumed.
    lines: u64,
    values: ValueReader,
}

/// The reader without its location.
#[derive(Debug, Default)]
struct ValueReader {
    /// Scanner of the value at the start of the input, if one starts there.
    value: Option<ValueScanner>,
    /// True inside a value that exceeds the limit.
    is_skipping: bool,
    /// True after damage: further damage continues it.
    is_damaged: bool,
    /// The list at the start of the input whose records are being returned.
    list: Option<OpenList>,
    scratch: Scratch,
}

#[derive(Debug)]
struct OpenList {
    bytes: usize,
    elements: std::vec::IntoIter<Range<usize>>,
}

/// What follows between two values.
enum Gap {
    NeedBytes(usize),
    /// This number of bytes are separators.
    Separators(usize),
    /// A value starts.
    Value,
    /// This number of bytes are neither.
    Text(usize),
}

impl JsonReader {
    pub fn step<'a>(&'a mut self, input: &'a [u8], ended: bool) -> ReadStep<'a> {
        let location = DumpLocation::Line(self.lines + 1);
        let (consumed, item) = self.values.step(input, ended);
        self.lines += memchr_iter(b'\n', &input[..consumed]).count() as u64;
        ReadStep { consumed, location, item }
    }
}

impl ValueReader {
    fn step<'a>(&'a mut self, input: &'a [u8], ended: bool) -> (usize, DumpItem<'a>) {
        if self.list.is_some() {
            self.next_element(input)
        } else if self.value.is_some() {
            self.read_value(input, ended)
        } else {
            self.read_gap(input, ended)
        }
    }

    /// Reads what is between two values.
    fn read_gap<'a>(&mut self, input: &'a [u8], ended: bool) -> (usize, DumpItem<'a>) {
        if input.is_empty() && ended {
            return (0, DumpItem::End { truncated_bytes: 0 });
        }
        match find_gap(input, ended) {
            Gap::NeedBytes(bytes) => (0, DumpItem::NeedBytes(bytes)),
            Gap::Separators(bytes) => (bytes, DumpItem::Skip),
            Gap::Value => {
                self.value = Some(ValueScanner::default());
                (0, DumpItem::Skip)
            }
            Gap::Text(bytes) => (bytes, self.read_text(&input[..bytes])),
        }
    }

    /// Reads text that is not a value.
    fn read_text<'a>(&mut self, text: &'a [u8]) -> DumpItem<'a> {
        match text.trim_ascii() {
            b"null" => {
                DumpItem::Record { position: None, value: None, is_last_line: false, producer_id: None }
            }
            text if is_tool_message(text) => DumpItem::Skip,
            _ => self.damage("text between the JSON values".to_owned(), text),
        }
    }

    /// Reports a damaged value, which starts new damage.
    fn damaged_value<'a>(&mut self, reason: String, bytes: &'a [u8]) -> DumpItem<'a> {
        self.is_damaged = false;
        self.damage(reason, bytes)
    }

    fn damage<'a>(&mut self, reason: String, bytes: &'a [u8]) -> DumpItem<'a> {
        let first = !std::mem::replace(&mut self.is_damaged, true);
        DumpItem::Damaged { reason, bytes, first }
    }

    /// Reads the value at the start of the input.
    fn read_value<'a>(&'a mut self, input: &'a [u8], ended: bool) -> (usize, DumpItem<'a>) {
        let Some(scanner) = &mut self.value else { return (0, DumpItem::Skip) };
        match scanner.scan(input) {
            Scanned::Complete(end) if self.is_skipping => {
                (self.value, self.is_skipping) = (None, false);
                (end, DumpItem::Skip)
            }
            Scanned::Complete(end) if end > LINE_BYTES_MAX => {
                self.value = None;
                (end, self.too_long())
            }
            Scanned::Complete(end) => {
                self.value = None;
                self.open(input, end, ended)
            }
            Scanned::Broken(at) => {
                (self.value, self.is_skipping) = (None, false);
                (at, self.damaged_value("the JSON value is damaged".to_owned(), &input[..at]))
            }
            Scanned::Incomplete if ended => self.end(input),
            Scanned::Incomplete if self.is_skipping || input.len() > LINE_BYTES_MAX => {
                let scanned = scanner.scanned;
                if scanned == 0 {
                    return (0, DumpItem::NeedBytes(input.len() + 1));
                }
                scanner.discard(scanned);
                if std::mem::replace(&mut self.is_skipping, true) {
                    return (scanned, DumpItem::Skip);
                }
                (scanned, self.too_long())
            }
            Scanned::Incomplete => (0, DumpItem::NeedBytes(input.len() + 1)),
        }
    }

    fn too_long<'a>(&mut self) -> DumpItem<'a> {
        self.damaged_value(format!("the JSON value exceeds the limit of {LINE_BYTES_MAX} bytes"), &[])
    }

    /// Handles a value that is incomplete at the end of the input. Either the dump is truncated, or the value is
    /// damaged and contains what follows it.
    fn end<'a>(&mut self, input: &'a [u8]) -> (usize, DumpItem<'a>) {
        (self.value, self.is_skipping) = (None, false);
        match find_contained_value(input) {
            Some(at) => (at, self.damaged_value("the JSON value is damaged".to_owned(), &input[..at])),
            None => (input.len(), DumpItem::End { truncated_bytes: input.len() }),
        }
    }

    /// Opens a complete value: `input[..end]`.
    fn open<'a>(&'a mut self, input: &'a [u8], end: usize, ended: bool) -> (usize, DumpItem<'a>) {
        let text = &input[..end];
        if text[0] == b'"' {
            return self.open_string(input, end, ended);
        }
        match open_object(text, &mut self.scratch) {
            Ok(Opened::Record { partition, offset, value }) => {
                self.is_damaged = false;
                (end, self.record(text, partition, offset, value))
            }
            Ok(Opened::List(elements)) => {
                self.is_damaged = false;
                self.list = Some(OpenList { bytes: end, elements: elements.into_iter() });
                (0, DumpItem::Skip)
            }
            Err(reason) => (end, self.damaged_value(reason, text)),
        }
    }

    /// Opens a string: the value of a record as JSON, or in base64.
    fn open_string<'a>(&'a mut self, input: &'a [u8], end: usize, ended: bool) -> (usize, DumpItem<'a>) {
        // A string before a colon is the name of a member: the start of its object is missing.
        let next = input[end..].iter().find(|byte| !byte.is_ascii_whitespace());
        if next.is_none() && !ended {
            self.value = Some(ValueScanner::default());
            return (0, DumpItem::NeedBytes(input.len() + 1));
        }
        if next != Some(&b':') && envelope::open_string(&input[..end], &mut self.scratch) {
            self.is_damaged = false;
            let value = Some(&*self.scratch.value);
            return (end, DumpItem::Record { position: None, value, is_last_line: false, producer_id: None });
        }
        let line = memchr2(b'\n', 0, &input[end..]);
        if line.is_none() && !ended && input.len() <= LINE_BYTES_MAX {
            self.value = Some(ValueScanner::default());
            return (0, DumpItem::NeedBytes(input.len() + 1));
        }
        let bytes = line.map_or(input.len(), |at| end + at);
        (bytes, self.damage("a string between the JSON values".to_owned(), &input[..bytes]))
    }

    fn record<'a>(
        &'a self,
        text: &'a [u8],
        partition: Option<i64>,
        offset: Option<i64>,
        value: ValuePlace,
    ) -> DumpItem<'a> {
        let position = envelope::position(&self.scratch.topic, partition, offset);
        let value = match value {
            ValuePlace::Input(range) => Some(&text[range]),
            ValuePlace::Scratch => Some(&*self.scratch.value),
            ValuePlace::Tombstone => None,
        };
        DumpItem::Record { position, value, is_last_line: false, producer_id: None }
    }

    /// Returns the next record of a list.
    fn next_element<'a>(&'a mut self, input: &'a [u8]) -> (usize, DumpItem<'a>) {
        let Some(list) = &mut self.list else { return (0, DumpItem::Skip) };
        let bytes = list.bytes;
        let Some(element) = list.elements.next() else {
            self.list = None;
            return (bytes, DumpItem::Skip);
        };
        let text = &input[element];
        match open_object(text, &mut self.scratch) {
            Ok(Opened::Record { partition, offset, value }) => {
                (0, self.record(text, partition, offset, value))
            }
            Ok(Opened::List(_)) => {
                (0, DumpItem::Damaged { reason: "a list in a list".to_owned(), bytes: text, first: true })
            }
            Err(reason) => (0, DumpItem::Damaged { reason, bytes: text, first: true }),
        }
    }
}

/// Opens an object in JSON or as the rubydebug codec prints it.
fn open_object(text: &[u8], scratch: &mut Scratch) -> Result<Opened, String> {
    if !rubydebug::is_hash(text) {
        return envelope::open(text, scratch);
    }
    let json = rubydebug::to_json(text).ok_or("not an event as the rubydebug codec prints it")?;
    let opened = envelope::open(&json, scratch)?;
    Ok(match opened {
        Opened::Record { partition, offset, value: ValuePlace::Input(range) } => {
            scratch.value.clear();
            scratch.value.extend_from_slice(&json[range]);
            Opened::Record { partition, offset, value: ValuePlace::Scratch }
        }
        Opened::List(_) => return Err("a list of records in an event".to_owned()),
        opened => opened,
    })
}

/// Looks at what is between two values.
fn find_gap(input: &[u8], ended: bool) -> Gap {
    let is_separator =
        |byte: &&u8| byte.is_ascii_whitespace() || matches!(byte, b',' | b';' | b'[' | b']' | 0x1e);
    let separators = input.iter().take_while(is_separator).count();
    if separators > 0 {
        return Gap::Separators(separators);
    }
    match input.first() {
        None => Gap::NeedBytes(1),
        Some(b'{' | b'"') => Gap::Value,
        Some(0) => find_schema_id(input, ended),
        Some(0xef) if input.len() < 3 && !ended => Gap::NeedBytes(3),
        Some(_) if input.starts_with(b"\xef\xbb\xbf") => Gap::Separators(3),
        Some(_) => {
            let is_end = |byte: &u8| matches!(byte, b'\n' | b'{' | b'"' | b',' | b']' | 0);
            match input.iter().position(is_end) {
                Some(at) => Gap::Text(at),
                None if ended || input.len() > LINE_BYTES_MAX => Gap::Text(input.len()),
                None => Gap::NeedBytes(input.len() + 1),
            }
        }
    }
}

/// A NUL ends a value, or is the first of five bytes that a serializer writes before it.
fn find_schema_id(input: &[u8], ended: bool) -> Gap {
    if input.len() <= SCHEMA_ID_BYTES && !ended {
        return Gap::NeedBytes(SCHEMA_ID_BYTES + 1);
    }
    // After a NUL at the end of a value the next value starts at once, or after white space.
    let starts_value =
        |at: usize| matches!(input.get(at), Some(b'{')) && !matches!(input.get(at + 1), Some(b'{'));
    match starts_value(SCHEMA_ID_BYTES) && !starts_value(1) {
        true => Gap::Separators(SCHEMA_ID_BYTES),
        false => Gap::Separators(1),
    }
}

/// Finds a record within an incomplete value.
fn find_contained_value(input: &[u8]) -> Option<usize> {
    let mut at = 0;
    for _ in 0..RESTARTS_MAX {
        at += 1 + memchr(b'{', input.get(at + 1..)?)?;
        // An object after a colon or an arrow is a member.
        if matches!(input[..at].trim_ascii_end().last(), Some(b':' | b'>')) {
            continue;
        }
        if let Scanned::Complete(length) = scanner::scan(&input[at..])
            && is_record(&input[at..at + length])
        {
            return Some(at);
        }
    }
    None
}

/// Reports whether a complete object is a record and not just a member of one.
fn is_record(object: &[u8]) -> bool {
    use envelope::ObjectKind::{Chunk, Envelope};
    let json = rubydebug::to_json(object);
    matches!(envelope::kind_of(json.as_deref().unwrap_or(object)), Some(Chunk | Envelope))
}
