//! The write-ahead log of SQLite (`events.db-wal`): which version of which page it contains. Reads only.
//!
//! A log is a header of 32 bytes and frames: a header of 24 bytes and a page. The checksum of a frame continues that of the
//! frame before it, so the first wrong one ends the log. The last frame of a transaction contains the size of the database.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::page::{PAGE_BYTES, number_at};

const HEADER_BYTES: u64 = 32;
const FRAME_HEADER_BYTES: usize = 24;
pub(super) const FRAME_BYTES: usize = FRAME_HEADER_BYTES + PAGE_BYTES;

/// Start of a log; the last bit tells the byte order of its checksums.
const MAGIC: u32 = 0x377f_0682;
const VERSION: u32 = 3_007_000;

/// Returns the number of the frame whose page starts at this byte of the log, counted from 1.
pub(super) fn frame_of_page_offset(offset: u64) -> Option<u64> {
    let from_first = offset.checked_sub(HEADER_BYTES + FRAME_HEADER_BYTES as u64)?;
    from_first.is_multiple_of(FRAME_BYTES as u64).then_some(from_first / FRAME_BYTES as u64 + 1)
}

/// Place of a page in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LoggedPage {
    /// Number of the frame, counted from 1.
    pub frame: u64,
    /// CRC-32C of the page when the log was scanned. `None`: the frame was damaged already.
    pub crc: Option<u32>,
}

/// Pages of all transactions that are complete in a log.
#[derive(Debug, Default)]
pub(super) struct LogIndex {
    header: Option<LogHeader>,
    /// Frames that were scanned, and the checksum of the last one.
    frames: u64,
    sums: (u32, u32),
    pages: HashMap<u32, LoggedPage>,
    /// Size of the database in pages after the last transaction.
    database_pages: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LogHeader {
    is_big_endian: bool,
    salts: [u8; 8],
    sums: (u32, u32),
}

impl LogHeader {
    /// Reads the header. `None` if the log is empty, or was not started completely.
    fn read(log: &File) -> io::Result<Option<LogHeader>> {
        let mut bytes = [0; HEADER_BYTES as usize];
        match log.read_exact_at(&mut bytes, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let is_big_endian = number_at(&bytes, 0) & 1 == 1;
        let sums = add_sums(is_big_endian, (0, 0), &bytes[..24]);
        let is_sound = number_at(&bytes, 0) & !1 == MAGIC
            && number_at(&bytes, 4) == VERSION
            && number_at(&bytes, 8) == PAGE_BYTES as u32
            && sums == (number_at(&bytes, 24), number_at(&bytes, 28));
        let salts = bytes[16..24].try_into().unwrap_or_default();
        Ok(is_sound.then_some(LogHeader { is_big_endian, salts, sums }))
    }
}

/// Continues the checksum of a log over whole words of 8 bytes.
fn add_sums(is_big_endian: bool, sums: (u32, u32), bytes: &[u8]) -> (u32, u32) {
    let word = |bytes: &[u8]| {
        let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
        if is_big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    };
    bytes.chunks_exact(8).fold(sums, |(mut first, mut second), pair| {
        first = first.wrapping_add(word(&pair[..4])).wrapping_add(second);
        second = second.wrapping_add(word(&pair[4..])).wrapping_add(first);
        (first, second)
    })
}

impl LogIndex {
    /// Reads what was added to the log, or all of it if it was begun anew. With `past_damage`, the scan goes on after a
    /// frame without its checksum. Returns whether anything changed.
    pub(super) fn refresh(&mut self, log: &File, past_damage: bool) -> io::Result<bool> {
        let header = LogHeader::read(log)?;
        let mut changed = false;
        if header != self.header {
            *self = LogIndex { header, ..LogIndex::default() };
            self.sums = header.map_or((0, 0), |header| header.sums);
            changed = true;
        }
        let Some(header) = header else { return Ok(changed) };
        let mut frame = vec![0; FRAME_BYTES];
        let mut open: HashMap<u32, LoggedPage> = HashMap::new();
        let (mut at, mut sums) = (self.frames, self.sums);
        loop {
            match log.read_exact_at(&mut frame, HEADER_BYTES + at * FRAME_BYTES as u64) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(changed),
                Err(error) => return Err(error),
            }
            let (head, page) = frame.split_at(FRAME_HEADER_BYTES);
            let stored = (number_at(head, 16), number_at(head, 20));
            let own = add_sums(header.is_big_endian, sums, &head[..8]);
            let is_sound = head[8..16] == header.salts && add_sums(header.is_big_endian, own, page) == stored;
            if !is_sound && !past_damage {
                return Ok(changed);
            }
            at += 1;
            // A damaged frame that says to end a transaction does not, so that nothing incomplete is applied.
            let (number, end) = (number_at(head, 0), number_at(head, 4));
            let crc = is_sound.then(|| crc32c::crc32c(page));
            open.insert(number, LoggedPage { frame: at, crc });
            sums = stored;
            if end != 0 && is_sound {
                self.pages.extend(open.drain());
                (self.database_pages, self.frames, self.sums) = (Some(end), at, sums);
                changed = true;
            }
        }
    }

    pub(super) fn get(&self, page: u32) -> Option<LoggedPage> {
        self.pages.get(&page).copied()
    }

    pub(super) fn database_pages(&self) -> Option<u32> {
        self.database_pages
    }
}

/// Reads the page of a frame.
pub(super) fn read_frame_page(log: &File, frame: u64, page: &mut [u8]) -> io::Result<()> {
    let offset = HEADER_BYTES + (frame - 1) * FRAME_BYTES as u64 + FRAME_HEADER_BYTES as u64;
    log.read_exact_at(page, offset)
}
