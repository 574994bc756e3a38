//! Detects the format of a dump from its first bytes. The first conclusive line decides, so the result is the same
//! however many bytes have arrived.

use memchr::{memchr, memmem};

use super::batch::BatchHeader;
use super::envelope::{self, ObjectKind};
use super::lines::is_tool_message;
use super::scanner::{self, Scanned};
use super::{Detected, DumpFormat, console, keyed, log_text};
use crate::cc::wire::rubydebug;
use crate::limits::BATCH_BYTES_MAX;

/// A dump with this many NUL bytes near its start is binary. The header of any batch has more.
const NULS_MIN: usize = 8;

/// Number of bytes in which NUL bytes are counted.
const BINARY_BYTES: usize = 4096;

/// Number of bytes that tell whether a dump may be binary. A shorter first line tells it, too.
const FIRST_BYTES: usize = 64;

/// Detects the format. `is_all`: more bytes will not help.
pub(super) fn detect(start: &[u8], is_all: bool) -> Option<Detected> {
    let first = memchr(b'\n', start).map_or(start.len(), |end| end + 1).min(FIRST_BYTES);
    if first == start.len() && first < FIRST_BYTES && !is_all {
        return None;
    }
    let binary = || detect_binary(&start[..start.len().min(BINARY_BYTES)]);
    if start[..first].contains(&0) {
        if start.len() < BINARY_BYTES && !is_all {
            return None;
        }
        if let Some(found) = binary() {
            return Some(found);
        }
    }
    let mut rest = start;
    while let Some(end) = memchr(b'\n', rest) {
        if let Some(found) = detect_line(&rest[..end], true) {
            return Some(found);
        }
        rest = &rest[end + 1..];
    }
    if !is_all {
        return detect_start(rest);
    }
    let unknown = Detected { format: DumpFormat::Values, reason: "no line is conclusive" };
    Some(detect_line(rest, false).or_else(binary).unwrap_or(unknown))
}

/// Detects formats with NUL bytes.
fn detect_binary(start: &[u8]) -> Option<Detected> {
    let is_header = |bytes: &[u8]| BatchHeader::parse(bytes, BATCH_BYTES_MAX).is_some();
    if start.first() == Some(&0) && is_header(start) {
        return Some(Detected { format: DumpFormat::Segment, reason: "it starts with a record batch" });
    }
    let is_v2_header = |bytes: &[u8]| {
        bytes.get(16) == Some(&2)
            && BatchHeader::parse(bytes, BATCH_BYTES_MAX).is_some_and(|header| header.magic == 2)
    };
    let nuls = start.iter().filter(|byte| **byte == 0).count();
    if nuls >= NULS_MIN && (0..start.len()).any(|at| is_v2_header(&start[at..])) {
        return Some(Detected { format: DumpFormat::Segment, reason: "it contains a record batch" });
    }
    let has_object = memmem::find(start, b"{\"").is_some() || memmem::find(start, b"\"}").is_some();
    if nuls > 0 && has_object {
        return Some(Detected { format: DumpFormat::Json, reason: "it has NUL bytes between JSON objects" });
    }
    let found = Detected { format: DumpFormat::Segment, reason: "it has many NUL bytes" };
    (nuls >= NULS_MIN).then_some(found)
}

/// Detects the format from the start of a line that may take long to arrive: a JSON document without line ends.
fn detect_start(line: &[u8]) -> Option<Detected> {
    let text = line.trim_ascii_start();
    match text.first()? {
        b'[' if text.len() > 1 => detect_array(text),
        b'{' => match scanner::scan(text) {
            // Whatever follows the second brace, there are several objects.
            Scanned::Complete(end) if text[end..].contains(&b'{') => {
                let found = Detected { format: DumpFormat::Json, reason: "several JSON objects on a line" };
                let kind = envelope::kind_of(&text[..end]);
                kind.is_some_and(|kind| kind != ObjectKind::Unknown).then_some(found)
            }
            _ => None,
        },
        _ => None,
    }
}

/// Detects the format from a line, if the line is conclusive. `has_end`: the line is complete.
fn detect_line(line: &[u8], has_end: bool) -> Option<Detected> {
    let text = line.trim_ascii();
    if text.is_empty() || is_tool_message(text) {
        return None;
    }
    if log_text::is_log_line(line) {
        return Some(Detected { format: DumpFormat::LogText, reason: "a line of kafka-dump-log" });
    }
    if console::is_console_line(line) {
        return Some(Detected { format: DumpFormat::Console, reason: "columns with tabs before a value" });
    }
    match text[0] {
        b'[' => detect_array(text),
        b'{' => detect_object(text, has_end),
        b'"' => None,
        0x1e => Some(Detected { format: DumpFormat::Json, reason: "a JSON text sequence" }),
        _ => detect_keyed(text),
    }
}

/// An array of objects or strings. Log lines of tools start with a bracket, too.
fn detect_array(text: &[u8]) -> Option<Detected> {
    let next = text[1..].iter().find(|byte| !byte.is_ascii_whitespace());
    let found = Detected { format: DumpFormat::Json, reason: "a JSON array" };
    matches!(next, None | Some(b'{' | b'[' | b'"' | b']')).then_some(found)
}

fn detect_object(text: &[u8], has_end: bool) -> Option<Detected> {
    match scanner::scan(text) {
        Scanned::Complete(end) if end == text.len() => detect_whole_object(text),
        Scanned::Complete(end) => detect_after_object(&text[..end], text[end..].trim_ascii()),
        // A damaged line.
        Scanned::Broken(_) => None,
        Scanned::Incomplete if has_end && rubydebug_or_pretty(text) => {
            Some(Detected { format: DumpFormat::Json, reason: "a JSON object over several lines" })
        }
        Scanned::Incomplete => detect_kind(envelope::kind_of_start(text)),
    }
}

/// Reports whether a line is the first of an object over several lines: it does not end within a string.
fn rubydebug_or_pretty(line: &[u8]) -> bool {
    let mut scanner = scanner::ValueScanner::default();
    scanner.scan(line) == Scanned::Incomplete && !scanner.is_in_string()
}

fn detect_whole_object(object: &[u8]) -> Option<Detected> {
    if rubydebug::is_hash(object) {
        return Some(Detected { format: DumpFormat::Json, reason: "an event of the rubydebug codec" });
    }
    detect_kind(envelope::kind_of(object).unwrap_or_else(|| envelope::kind_of_start(object)))
}

fn detect_kind(kind: ObjectKind) -> Option<Detected> {
    Some(match kind {
        ObjectKind::Chunk => Detected { format: DumpFormat::Values, reason: "a record's value on a line" },
        ObjectKind::Envelope => Detected { format: DumpFormat::Kcat, reason: "an envelope on a line" },
        ObjectKind::List => Detected { format: DumpFormat::Json, reason: "an object with a list of records" },
        ObjectKind::DeadLetter => Detected { format: DumpFormat::DeadLetters, reason: "a dead letter" },
        ObjectKind::Unknown => return None,
    })
}

/// An object with something after it on the line: more values, or the value of which it is the key.
fn detect_after_object(object: &[u8], rest: &[u8]) -> Option<Detected> {
    let kind = envelope::kind_of(object)?;
    match kind {
        _ if rest.is_empty() => None,
        ObjectKind::Unknown => detect_keyed(rest),
        ObjectKind::Chunk | ObjectKind::Envelope if !rest.contains(&b'{') && !is_separator(rest) => {
            Some(Detected { format: DumpFormat::Keyed, reason: "text after a JSON object" })
        }
        _ => Some(Detected { format: DumpFormat::Json, reason: "several JSON objects on a line" }),
    }
}

fn is_separator(rest: &[u8]) -> bool {
    rest.iter().all(|byte| byte.is_ascii_whitespace() || matches!(byte, b',' | b';' | b']' | 0x1e | 0))
}

/// A line with text before a record's value.
fn detect_keyed(text: &[u8]) -> Option<Detected> {
    let value = &text[keyed::find_value(text)?];
    let found = Detected { format: DumpFormat::Keyed, reason: "text before a JSON object" };
    matches!(envelope::kind_of(value), Some(ObjectKind::Chunk)).then_some(found)
}
