//! Lines of the console consumer: the properties that it was asked to print, each with a tab behind it, then the
//! value. In its order: timestamp, partition, delivery, epoch, offset, headers, key, value.

use memchr::{memchr, memchr_iter, memrchr};

use super::Position;
use super::lines::{Line, is_remark};

/// What properties begin with. Headers and the key have no mark of their own.
const TIMES: [&[u8]; 3] = [b"CreateTime:", b"LogAppendTime:", b"NO_TIMESTAMP"];
const PARTITION: &[u8] = b"Partition:";
const OFFSET: &[u8] = b"Offset:";
const OTHERS: [&[u8]; 3] = [b"Delivery:", b"Epoch:", b"NO_HEADERS"];

/// True for a line that no other format has.
pub fn is_line(line: &[u8]) -> bool {
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

/// Reads a line.
pub fn read(line: &[u8]) -> Line<'_> {
    if is_remark(line) {
        return Line::Nothing;
    }
    let (mut partition, mut offset) = (None, None);
    let mut rest = line;
    while let Some(tab) = memchr(b'\t', rest) {
        let column = &rest[..tab];
        if !is_property(column) {
            break;
        }
        partition = partition.or_else(|| number(column, PARTITION));
        offset = offset.or_else(|| number(column, OFFSET));
        rest = &rest[tab + 1..];
    }
    let position = match (partition.and_then(|partition| i32::try_from(partition).ok()), offset) {
        (Some(partition), Some(offset)) => Some(Position { topic: "", partition, offset }),
        _ => None,
    };
    let value = value(rest);
    Line::Record(position, (value != b"null").then_some(value))
}

fn number(column: &[u8], mark: &[u8]) -> Option<i64> {
    std::str::from_utf8(column.strip_prefix(mark)?).ok()?.parse().ok()
}

/// The value behind headers and key, which may hold anything but, as a rule, tabs. A record's value is an object, so
/// it is the last column that begins as one; where none does, the last column.
fn value(rest: &[u8]) -> &[u8] {
    let Some(last) = memrchr(b'\t', rest) else { return rest };
    let begins = |at: &usize| rest.get(*at) == Some(&b'{');
    let start = [last + 1].into_iter().find(begins);
    let first = || std::iter::once(0).chain(memchr_iter(b'\t', rest).map(|tab| tab + 1)).find(begins);
    &rest[start.or_else(first).unwrap_or(last + 1)..]
}
