//! Reads rows of tables page by page, without the tree above the pages: for a database whose upper pages are damaged. Each leaf
//! page of a table describes its rows completely, but not to which table they belong; their columns tell.
//!
//! The format of pages and records is that of SQLite (<https://www.sqlite.org/fileformat2.html>).

use std::io;
use std::path::Path;

use super::page::{PAGE_BYTES, Page, RESERVED_BYTES, number_at};
use super::view::FileView;

const USABLE_BYTES: usize = PAGE_BYTES - RESERVED_BYTES;
const LEAF_OF_TABLE: u8 = 0x0d;

/// Longest row.
const ROW_BYTES_MAX: u64 = 1 << 30;

/// A value of a row.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::search::sqlite) enum Column {
    Null,
    Integer(i64),
    Text(String),
    Blob(Vec<u8>),
    Other,
}

/// Calls `each` with the number and the columns of each row on a page that is as it was written. Pages that are free are left out,
/// if it is known which are.
pub(in crate::search::sqlite) fn scan_rows(
    path: &Path,
    mut each: impl FnMut(i64, Vec<Column>),
) -> io::Result<()> {
    let mut view = FileView::open(path, true)?;
    view.begin()?;
    let done = scan_view(&view, &mut each);
    view.end();
    done
}

fn scan_view(view: &FileView, each: &mut impl FnMut(i64, Vec<Column>)) -> io::Result<()> {
    let free = view.free_pages()?;
    let mut page = [0; PAGE_BYTES];
    for number in (1..=view.page_count()).filter(|&number| !free.contains(number)) {
        if view.read_page(number, &mut page)?.is_some() || page[0] != LEAF_OF_TABLE {
            continue;
        }
        let cells = usize::from(u16::from_be_bytes([page[3], page[4]]));
        for cell in 0..cells.min(PAGE_BYTES / 2 - 4) {
            let at = usize::from(u16::from_be_bytes([page[8 + 2 * cell], page[9 + 2 * cell]]));
            let row =
                read_cell(view, &page, at)?.and_then(|(row, payload)| Some((row, read_record(&payload)?)));
            if let Some((row, columns)) = row {
                each(row, columns);
            }
        }
    }
    Ok(())
}

/// Reads a cell and its overflow pages. `None` if one of them is damaged.
fn read_cell(view: &FileView, page: &Page, mut at: usize) -> io::Result<Option<(i64, Vec<u8>)>> {
    let head = take_varint(page, &mut at).zip(take_varint(page, &mut at));
    let Some((bytes, row)) = head.filter(|(bytes, _)| *bytes <= ROW_BYTES_MAX) else { return Ok(None) };
    let bytes = bytes as usize;
    let local = local_bytes(bytes);
    let Some(part) = page.get(at..at + local) else { return Ok(None) };
    let mut payload = part.to_vec();
    let mut next = if local < bytes { number_at(page, at + local) } else { 0 };
    let mut overflow = [0; PAGE_BYTES];
    while payload.len() < bytes {
        if next == 0 || next > view.page_count() || view.read_page(next, &mut overflow)?.is_some() {
            return Ok(None);
        }
        let wanted = (bytes - payload.len()).min(USABLE_BYTES - 4);
        payload.extend_from_slice(&overflow[4..4 + wanted]);
        next = number_at(&overflow, 0);
    }
    Ok(Some((row as i64, payload)))
}

/// Returns how many bytes of a row are in its leaf page.
fn local_bytes(bytes: usize) -> usize {
    let most = USABLE_BYTES - 35;
    if bytes <= most {
        return bytes;
    }
    let least = (USABLE_BYTES - 12) * 32 / 255 - 23;
    let local = least + (bytes - least) % (USABLE_BYTES - 4);
    if local <= most { local } else { least }
}

fn read_record(payload: &[u8]) -> Option<Vec<Column>> {
    let mut at = 0;
    let header = usize::try_from(take_varint(payload, &mut at)?).ok()?;
    let mut values = payload.get(header..)?;
    let mut columns = Vec::new();
    while at < header {
        let kind = take_varint(payload, &mut at)?;
        let bytes = match kind {
            0 | 8 | 9 => 0,
            1..=4 => kind as usize,
            5 => 6,
            6 | 7 => 8,
            _ => usize::try_from(kind.checked_sub(12)? / 2).ok()?,
        };
        let (value, rest) = values.split_at_checked(bytes)?;
        values = rest;
        columns.push(match kind {
            0 => Column::Null,
            8 | 9 => Column::Integer(kind as i64 - 8),
            1..=6 => Column::Integer(integer(value)),
            7 => Column::Other,
            _ if kind % 2 == 1 => Column::Text(String::from_utf8(value.to_vec()).ok()?),
            _ => Column::Blob(value.to_vec()),
        });
    }
    Some(columns)
}

/// Reads a big-endian number in two's complement.
fn integer(bytes: &[u8]) -> i64 {
    let sign = bytes.first().map_or(0, |first| i64::from(*first as i8));
    bytes.iter().skip(1).fold(sign, |number, byte| number << 8 | i64::from(*byte))
}

/// Reads a variable-length number of SQLite: 7 bits a byte, high ones first, and 8 in a ninth byte.
fn take_varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut number = 0u64;
    for nth in 0..9 {
        let byte = *bytes.get(*at)?;
        *at += 1;
        if nth == 8 {
            return Some(number << 8 | u64::from(byte));
        }
        number = number << 7 | u64::from(byte & 0x7f);
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_value() {
        for (bytes, expected) in [(&[0x7f][..], 127), (&[0x81, 0x00], 128), (&[0xff; 9], u64::MAX)] {
            assert_eq!(take_varint(bytes, &mut 0), Some(expected), "{bytes:?}");
        }
        assert_eq!(take_varint(&[0x81], &mut 0), None);
        for (bytes, expected) in [(&[0xff][..], -1), (&[0x01, 0x00], 256), (&[0xff, 0x7f], -129), (&[], 0)] {
            assert_eq!(integer(bytes), expected, "{bytes:?}");
        }
        // A header of 4 bytes: NULL, an integer of one byte, a text of two.
        let columns = [Column::Null, Column::Integer(-2), Column::Text("ab".to_owned())];
        assert_eq!(read_record(&[4, 0, 1, 17, 0xfe, b'a', b'b']), Some(columns.to_vec()));
        assert_eq!(read_record(&[4, 0, 1, 17, 0xfe, b'a']), None);
    }
}
