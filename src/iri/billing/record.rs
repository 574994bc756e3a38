//! A row as bytes that sort by call, then by time: what an external sort works on. Pure.
//!
//! `CALL_ID NUL time kind code CALLER NUL CALLEE NUL sequence`: as bytes compare, so rows do. Equal rows stand side by
//! side, in the order of the input.

use std::borrow::Cow;

use super::row::{Kind, Row};

/// Bytes that no row was encoded into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a row in a temporary file is damaged")]
pub struct BadRecord;

/// Appends a row.
pub fn encode(row: &Row<'_>, record: &mut Vec<u8>) {
    record.extend_from_slice(row.call_id.as_bytes());
    record.push(0);
    record.extend_from_slice(&(row.time_us as u64 ^ 1 << 63).to_be_bytes());
    record.push(row.kind as u8);
    record.extend_from_slice(&row.code.to_be_bytes());
    for text in [&row.caller, &row.callee] {
        record.extend_from_slice(text.as_bytes());
        record.push(0);
    }
    record.extend_from_slice(&row.sequence.to_be_bytes());
}

/// The row of those bytes.
pub fn decode(record: &[u8]) -> Result<Row<'_>, BadRecord> {
    let mut rest = record;
    let call_id = text(&mut rest)?;
    let time_us = (u64::from_be_bytes(bytes(&mut rest)?) ^ 1 << 63) as i64;
    let [kind] = bytes(&mut rest)?;
    let kind = *Kind::ALL.get(usize::from(kind)).ok_or(BadRecord)?;
    let code = u16::from_be_bytes(bytes(&mut rest)?);
    let (caller, callee) = (text(&mut rest)?, text(&mut rest)?);
    let sequence = u64::from_be_bytes(bytes(&mut rest)?);
    Ok(Row { call_id, time_us, kind, code, caller, callee, sequence })
}

fn text<'a>(rest: &mut &'a [u8]) -> Result<Cow<'a, str>, BadRecord> {
    let end = memchr::memchr(0, rest).ok_or(BadRecord)?;
    let text = std::str::from_utf8(&rest[..end]).map_err(|_| BadRecord)?;
    *rest = &rest[end + 1..];
    Ok(Cow::Borrowed(text))
}

fn bytes<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], BadRecord> {
    let (bytes, after) = rest.split_first_chunk().ok_or(BadRecord)?;
    *rest = after;
    Ok(*bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(call_id: &str, time_us: i64, kind: Kind, sequence: u64) -> Row<'_> {
        let (caller, callee) = (Cow::Borrowed("a"), Cow::Borrowed(""));
        Row { call_id: call_id.into(), time_us, kind, code: 200, caller, callee, sequence }
    }

    #[test]
    fn rows_come_back_and_sort() {
        let rows = [
            row("a", -1, Kind::ByeReply, 9),
            row("a", 0, Kind::InviteRequest, 8),
            row("a", 0, Kind::ByeRequest, 7),
            row("a", 256, Kind::InviteReply, 3),
            row("a", 256, Kind::InviteReply, 256),
            row("aa", i64::MIN, Kind::Request, 0),
            row("b", i64::MAX, Kind::Reply, u64::MAX),
        ];
        let records: Vec<Vec<u8>> = rows
            .iter()
            .map(|row| {
                let mut record = Vec::new();
                encode(row, &mut record);
                record
            })
            .collect();
        assert!(records.is_sorted());
        for (record, row) in records.iter().zip(&rows) {
            assert_eq!(decode(record), Ok(row.clone()));
            for end in 0..record.len() {
                assert_eq!(decode(&record[..end]), Err(BadRecord));
            }
        }
        assert!(Kind::ALL.iter().enumerate().all(|(nth, kind)| *kind as usize == nth));
    }
}
