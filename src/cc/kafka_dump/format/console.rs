//! Parser of lines of Kafka's console consumer: the requested properties, each followed by a
//! tab, then the value. The order is: timestamp, partition, delivery, epoch, offset, headers, key, value.

use memchr::{memchr, memchr_iter, memrchr};

use super::KafkaPosition;
use super::lines::{ParsedLine, is_tool_message};

/// Prefixes of properties. Headers and the key have no prefix.
const TIMES: [&[u8]; 3] = [b"CreateTime:", b"LogAppendTime:", b"NO_TIMESTAMP"];
const PARTITION: &[u8] = b"Partition:";
const OFFSET: &[u8] = b"Offset:";
const OTHERS: [&[u8]; 3] = [b"Delivery:", b"Epoch:", b"NO_HEADERS"];

/// Reports whether a line can only have this format.
pub(super) fn is_console_line(line: &[u8]) -> bool {
    let Some(tab) = memchr(b'\t', line) else { return false };
    let first = &line[..tab];
    if line.first() == Some(&b'{') {
        return false;
    }
    is_property(first) || memchr_iter(b'\t', line).any(|at| line.get(at + 1) == Some(&b'{'))
}

fn is_property(column: &[u8]) -> bool {
    TIMES.iter().chain(&OTHERS).chain(&[PARTITION, OFFSET]).any(|mark| column.starts_with(mark))
}

/// Parses a line.
pub(super) fn parse_line(line: &[u8]) -> ParsedLine<'_> {
    if is_tool_message(line) {
        return ParsedLine::Skip;
    }
    let (mut partition, mut offset) = (None, None);
    let mut rest = line;
    while let Some(tab) = memchr(b'\t', rest) {
        let column = &rest[..tab];
        if !is_property(column) {
            break;
        }
        partition = partition.or_else(|| parse_number(column, PARTITION));
        offset = offset.or_else(|| parse_number(column, OFFSET));
        rest = &rest[tab + 1..];
    }
    let position = match (partition.and_then(|partition| i32::try_from(partition).ok()), offset) {
        (Some(partition), Some(offset)) => Some(KafkaPosition { topic: "", partition, offset }),
        _ => None,
    };
    let value = value_column(rest);
    ParsedLine::Record(position, (value != b"null").then_some(value))
}

fn parse_number(column: &[u8], mark: &[u8]) -> Option<i64> {
    std::str::from_utf8(column.strip_prefix(mark)?).ok()?.parse().ok()
}

/// Finds the value after headers and key. These may contain anything, but rarely tabs. A record's value is a
/// JSON object, so it is the last column if that starts with `{`. Otherwise it is everything from the first
/// column that does, or else the last column.
fn value_column(rest: &[u8]) -> &[u8] {
    let Some(last) = memrchr(b'\t', rest) else { return rest };
    let is_object = |at: &usize| rest.get(*at) == Some(&b'{');
    let start = [last + 1].into_iter().find(is_object);
    let first = || std::iter::once(0).chain(memchr_iter(b'\t', rest).map(|tab| tab + 1)).find(is_object);
    &rest[start.or_else(first).unwrap_or(last + 1)..]
}
