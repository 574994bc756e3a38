//! Encodes a row as bytes whose order is that of the rows: by call, then by time. The external sort needs this. Pure.
//!
//! Layout: `CALL_ID NUL time kind code CALLER NUL CALLEE NUL sequence`. Equal rows are neighbours after sorting, in the
//! order of the input.

use std::borrow::Cow;

use super::label::RowKind;
use super::row::BillingRow;

/// The error for bytes that are not an encoded row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a row in a temporary file is corrupt (has another process changed it?)")]
pub struct InvalidRecord;

/// Appends an encoded row to `record`.
pub fn encode_row(row: &BillingRow<'_>, record: &mut Vec<u8>) {
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

/// Decodes a row.
pub fn decode_row(record: &[u8]) -> Result<BillingRow<'_>, InvalidRecord> {
    let mut rest = record;
    let call_id = text(&mut rest)?;
    let time_us = (u64::from_be_bytes(bytes(&mut rest)?) ^ 1 << 63) as i64;
    let [kind] = bytes(&mut rest)?;
    let kind = *RowKind::ALL.get(usize::from(kind)).ok_or(InvalidRecord)?;
    let code = u16::from_be_bytes(bytes(&mut rest)?);
    let (caller, callee) = (text(&mut rest)?, text(&mut rest)?);
    let sequence = u64::from_be_bytes(bytes(&mut rest)?);
    Ok(BillingRow { call_id, time_us, kind, code, caller, callee, sequence })
}

fn text<'a>(rest: &mut &'a [u8]) -> Result<Cow<'a, str>, InvalidRecord> {
    let end = memchr::memchr(0, rest).ok_or(InvalidRecord)?;
    let text = std::str::from_utf8(&rest[..end]).map_err(|_| InvalidRecord)?;
    *rest = &rest[end + 1..];
    Ok(Cow::Borrowed(text))
}

fn bytes<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], InvalidRecord> {
    let (bytes, after) = rest.split_first_chunk().ok_or(InvalidRecord)?;
    *rest = after;
    Ok(*bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(call_id: &str, time_us: i64, kind: RowKind, sequence: u64) -> BillingRow<'_> {
        let (caller, callee) = (Cow::Borrowed("a"), Cow::Borrowed(""));
        BillingRow { call_id: call_id.into(), time_us, kind, code: 200, caller, callee, sequence }
    }

    #[test]
    fn encoded_rows_decode_and_keep_their_order() {
        let rows = [
            row("a", -1, RowKind::ByeReply, 9),
            row("a", 0, RowKind::InviteRequest, 8),
            row("a", 0, RowKind::ByeRequest, 7),
            row("a", 256, RowKind::InviteReply, 3),
            row("a", 256, RowKind::InviteReply, 256),
            row("aa", i64::MIN, RowKind::Request, 0),
            row("b", i64::MAX, RowKind::Reply, u64::MAX),
        ];
        let records: Vec<Vec<u8>> = rows
            .iter()
            .map(|row| {
                let mut record = Vec::new();
                encode_row(row, &mut record);
                record
            })
            .collect();
        assert!(records.is_sorted());
        for (record, row) in records.iter().zip(&rows) {
            assert_eq!(decode_row(record), Ok(row.clone()));
            for end in 0..record.len() {
                assert_eq!(decode_row(&record[..end]), Err(InvalidRecord));
            }
        }
        assert!(RowKind::ALL.iter().enumerate().all(|(nth, kind)| *kind as usize == nth));
    }
}
