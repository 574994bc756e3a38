//! Parser of lines with a key or other text before the record's value, as `kcat -K` and `kcat -f` print them:
//! `key:{…}`, `{"id":1}|{…}`, `Topic interception [0] at offset 12: key k: {…}`.
//!
//! The value is the object at the end of the line. Text after it is possible, too.

use memchr::memchr;

use super::envelope;
use super::lines::{ParsedLine, Scratch, is_tool_message};
use super::scanner::{self, Scanned};

/// Number of braces in a line at which an object is looked for.
const TRIES_MAX: usize = 64;

/// Parses a line.
pub(super) fn parse_line<'a>(line: &'a [u8], scratch: &'a mut Scratch) -> ParsedLine<'a> {
    if is_tool_message(line) {
        return ParsedLine::Skip;
    }
    let Some(value) = find_value(line) else {
        // A line without JSON is metadata on a line of its own. Any other one is what is left of a record.
        let has_json = line.iter().any(|byte| matches!(byte, b'{' | b'"'));
        return match has_json {
            true => ParsedLine::Damaged("the line contains no complete JSON object".to_owned()),
            false => ParsedLine::Skip,
        };
    };
    let (partition, offset) = find_position(&line[..value.start], scratch);
    let position = envelope::position(&scratch.topic, partition, offset);
    ParsedLine::Record(position, Some(&line[value]))
}

/// Finds the value in a line: the first object that ends with the line, or else the last complete object.
pub(super) fn find_value(line: &[u8]) -> Option<std::ops::Range<usize>> {
    let line_end = line.trim_ascii_end().len();
    let (mut at, mut last) = (0, None);
    for _ in 0..TRIES_MAX {
        let Some(brace) = memchr(b'{', line.get(at..).unwrap_or_default()) else { break };
        let start = at + brace;
        match scanner::scan(&line[start..line_end]) {
            Scanned::Complete(length) if start + length == line_end => return Some(start..line_end),
            Scanned::Complete(length) => {
                last = Some(start..start + length);
                at = start + length;
            }
            Scanned::Incomplete | Scanned::Broken(_) => at = start + 1,
        }
    }
    last
}

/// Reads topic, partition and offset from the text that the manual of kcat suggests:
/// `Topic interception [0] at offset 12: …`.
fn find_position(text: &[u8], scratch: &mut Scratch) -> (Option<i64>, Option<i64>) {
    let found = parse_position(text);
    let (topic, partition, offset) = found.unwrap_or_default();
    scratch.set_topic(topic);
    found.map_or((None, None), |_| (Some(partition), Some(offset)))
}

fn parse_position(text: &[u8]) -> Option<(&str, i64, i64)> {
    let text = std::str::from_utf8(text.strip_prefix(b"Topic ")?).ok()?;
    let (topic, rest) = text.split_once(" [")?;
    let (partition, rest) = rest.split_once("] at offset ")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    Some((topic, partition.parse().ok()?, rest[..digits].parse().ok()?))
}
