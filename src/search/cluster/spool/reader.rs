//! Reads the records of the spool after they were written, and skips damaged ones. Runs on the thread
//! `spool-ship`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::segment::{self, HEADER_BYTES, RECORD_HEAD_BYTES};
use super::{LogPosition, SpoolShared, log};

/// Minimum size of a read.
const READ_BYTES: usize = 1 << 20;

/// Size of a read when the disk reports errors.
const PIECE_BYTES: usize = 4096;

/// The next entry of the log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SpoolEntry {
    Record { number: u64, payload: Vec<u8> },
    Damaged(Damage),
}

/// A damaged range of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    /// Name of the segment's file.
    pub file: String,
    pub offset: u64,
    /// The first bytes of the range.
    pub bytes: Vec<u8>,
    /// Length of the range.
    pub length: u64,
    /// Number of records lost.
    pub lost: u64,
}

/// Maximum number of damaged bytes to keep.
const DAMAGE_BYTES_MAX: usize = 64 << 10;

#[derive(Debug)]
pub(crate) struct SpoolReader {
    shared: Arc<SpoolShared>,
    /// Position of the next record.
    at: LogPosition,
    base: u64,
    file: File,
    /// Bytes of the segment from `buffer_from` on.
    buffer: Vec<u8>,
    buffer_from: u64,
}

impl SpoolReader {
    /// Creates a reader that starts at a position.
    pub(crate) fn open(shared: Arc<SpoolShared>, at: LogPosition) -> io::Result<SpoolReader> {
        let base = shared.segment_of(at.byte);
        let file = shared.disk.open_segment(base)?;
        let at = LogPosition { byte: at.byte.max(base + HEADER_BYTES as u64), ..at };
        Ok(SpoolReader { shared, at, base, file, buffer: Vec::new(), buffer_from: 0 })
    }

    /// Position of the next record.
    pub(crate) fn position(&self) -> LogPosition {
        self.at
    }

    /// Returns the next entry before `end`; `None` if there is none yet.
    pub(crate) fn next(&mut self, end: LogPosition) -> io::Result<Option<SpoolEntry>> {
        loop {
            if self.at.byte >= end.byte {
                return Ok(None);
            }
            let next_base = self.shared.next_segment(self.base);
            let length = match next_base {
                None => end.byte - self.base,
                Some(next) => self.file.metadata()?.len().min(next - self.base),
            };
            let offset = self.at.byte - self.base;
            match next_base {
                Some(next) if offset >= length => {
                    if let Some(damage) = self.enter_segment(next)? {
                        return Ok(Some(SpoolEntry::Damaged(damage)));
                    }
                }
                _ => return self.read_entry(offset, length, next_base, end).map(Some),
            }
        }
    }

    /// Moves to the next segment. Returns records missing between the two as damage.
    fn enter_segment(&mut self, next: u64) -> io::Result<Option<Damage>> {
        let first = self.first_record_of(next)?.unwrap_or(self.at.number);
        let lost = first.saturating_sub(self.at.number);
        let damage = (lost > 0).then(|| self.damage(self.at.byte - self.base, &[], 0, lost));
        self.file = self.shared.disk.open_segment(next)?;
        self.base = next;
        self.at = LogPosition { byte: next + HEADER_BYTES as u64, number: first.max(self.at.number) };
        self.buffer.clear();
        Ok(damage)
    }

    /// Reads the record at an offset, or the damage in its place.
    fn read_entry(
        &mut self,
        offset: u64,
        length: u64,
        next_base: Option<u64>,
        end: LogPosition,
    ) -> io::Result<SpoolEntry> {
        self.fill_buffer(offset, length, RECORD_HEAD_BYTES)?;
        if let Some(payload) = segment::payload_length(self.bytes(offset), 0) {
            self.fill_buffer(offset, length, RECORD_HEAD_BYTES + payload)?;
        }
        let expected = self.at.number;
        let found = segment::parse_record(self.bytes(offset), 0).filter(|record| record.number == expected);
        if let Some(record) = found {
            let (number, payload, after) = (record.number, record.payload.to_vec(), record.end as u64);
            self.at = LogPosition { byte: self.at.byte + after, number: number + 1 };
            return Ok(SpoolEntry::Record { number, payload });
        }
        let rest = read_lossy(&self.file, offset, (length - offset) as usize);
        let last = match next_base {
            None => end.number,
            Some(next) => self.first_record_of(next)?.unwrap_or(end.number),
        };
        let (after, number) = match segment::find_record(&rest, 0, expected + 1..last.max(expected + 1)) {
            Some(record) => (record.start, record.number),
            None => (rest.len(), last.max(expected)),
        };
        let damage = self.damage(offset, &rest[..after], after as u64, number - expected);
        self.at = LogPosition { byte: self.at.byte + after as u64, number };
        self.buffer.clear();
        Ok(SpoolEntry::Damaged(damage))
    }

    fn damage(&self, offset: u64, bytes: &[u8], length: u64, lost: u64) -> Damage {
        let file = self.shared.disk.path(self.base);
        let file = file.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        Damage { file, offset, bytes: bytes[..bytes.len().min(DAMAGE_BYTES_MAX)].to_vec(), length, lost }
    }

    /// Number of a segment's first record.
    fn first_record_of(&self, base: u64) -> io::Result<Option<u64>> {
        log::first_record_number(&self.shared.disk, base)
    }

    /// The buffered bytes from an offset on.
    fn bytes(&self, offset: u64) -> &[u8] {
        self.buffer.get((offset - self.buffer_from) as usize..).unwrap_or(&[])
    }

    /// Reads until `wanted` bytes from `offset` on are buffered, or all up to `length`.
    fn fill_buffer(&mut self, offset: u64, length: u64, wanted: usize) -> io::Result<()> {
        if self.buffer.is_empty() || offset < self.buffer_from {
            self.buffer.clear();
            self.buffer_from = offset;
        }
        let there = self.bytes(offset).len();
        if there >= wanted {
            return Ok(());
        }
        let passed = (offset - self.buffer_from) as usize;
        self.buffer.drain(..passed.min(self.buffer.len()));
        self.buffer_from = offset;
        let more = (wanted - there).max(READ_BYTES).min(((length - offset) as usize).saturating_sub(there));
        let from = self.buffer.len();
        self.buffer.resize(from + more, 0);
        let read = self.file.read_exact_at(&mut self.buffer[from..], offset + from as u64);
        if read.is_err() {
            // Only the unreadable parts are treated as damaged.
            let bytes = read_lossy(&self.file, offset + from as u64, more);
            self.buffer[from..].copy_from_slice(&bytes);
        }
        Ok(())
    }
}

/// Reads bytes of a file; unreadable parts are replaced by zeros.
fn read_lossy(file: &File, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    if file.read_exact_at(&mut bytes, offset).is_ok() {
        return bytes;
    }
    for (nth, piece) in bytes.chunks_mut(PIECE_BYTES).enumerate() {
        if let Err(error) = file.read_exact_at(piece, offset + (nth * PIECE_BYTES) as u64) {
            ::log::error!(
                "spool_read_error offset={} error=\"{error}\"",
                offset + (nth * PIECE_BYTES) as u64
            );
            piece.fill(0);
        }
    }
    bytes
}
