//! Reads the log behind its writer, record by record, over whatever is damaged. Runs on the shipper's thread.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::segment::{self, HEADER_BYTES, RECORD_HEAD_BYTES};
use super::{Position, Shared, log};

/// Bytes read at once, at least.
const READ_BYTES: usize = 1 << 20;

/// What is read instead where the disk cannot.
const PIECE_BYTES: usize = 4096;

/// The next of what the log holds.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// A record.
    Record {
        /// Its number.
        number: u64,
        /// What it holds.
        payload: Vec<u8>,
    },
    /// Bytes that are no record any more.
    Damaged(Damage),
}

/// Bytes that are no record any more.
#[derive(Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment's file.
    pub file: String,
    /// Where in it.
    pub offset: u64,
    /// The begin of it.
    pub bytes: Vec<u8>,
    /// How many bytes it has.
    pub length: u64,
    /// How many records are missing.
    pub lost: u64,
}

/// How much of what is damaged is given.
const SHOWN_BYTES_MAX: usize = 64 << 10;

/// A reader, somewhere in the log.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    /// Before the next record.
    at: Position,
    base: u64,
    file: File,
    /// Bytes of the segment from there on.
    buffer: Vec<u8>,
    buffer_from: u64,
}

impl Reader {
    /// A reader from a position on.
    pub fn open(shared: Arc<Shared>, at: Position) -> io::Result<Reader> {
        let base = shared.segment_of(at.byte);
        let file = shared.disk.open_segment(base)?;
        let at = Position { byte: at.byte.max(base + HEADER_BYTES as u64), ..at };
        Ok(Reader { shared, at, base, file, buffer: Vec::new(), buffer_from: 0 })
    }

    /// Before the next record.
    pub fn position(&self) -> Position {
        self.at
    }

    /// What comes next before `end`; none: nothing yet.
    pub fn next(&mut self, end: Position) -> io::Result<Option<Next>> {
        loop {
            if self.at.byte >= end.byte {
                return Ok(None);
            }
            let following = self.shared.segment_behind(self.base);
            let length = match following {
                None => end.byte - self.base,
                Some(next) => self.file.metadata()?.len().min(next - self.base),
            };
            let offset = self.at.byte - self.base;
            match following {
                Some(next) if offset >= length => {
                    if let Some(damage) = self.step(next)? {
                        return Ok(Some(Next::Damaged(damage)));
                    }
                }
                _ => return self.take(offset, length, following, end).map(Some),
            }
        }
    }

    /// Goes to the next segment. Records that are missing between the two are told.
    fn step(&mut self, next: u64) -> io::Result<Option<Damage>> {
        let first = self.first_of(next)?.unwrap_or(self.at.number);
        let lost = first.saturating_sub(self.at.number);
        let damage = (lost > 0).then(|| self.damage(self.at.byte - self.base, &[], 0, lost));
        self.file = self.shared.disk.open_segment(next)?;
        self.base = next;
        self.at = Position { byte: next + HEADER_BYTES as u64, number: first.max(self.at.number) };
        self.buffer.clear();
        Ok(damage)
    }

    /// The record that begins there, or what is damaged instead of it.
    fn take(&mut self, offset: u64, length: u64, following: Option<u64>, end: Position) -> io::Result<Next> {
        self.fill(offset, length, RECORD_HEAD_BYTES)?;
        if let Some(payload) = segment::payload_bytes(self.bytes(offset), 0) {
            self.fill(offset, length, RECORD_HEAD_BYTES + payload)?;
        }
        let expected = self.at.number;
        let found = segment::record(self.bytes(offset), 0).filter(|record| record.number == expected);
        if let Some(record) = found {
            let (number, payload, behind) = (record.number, record.payload.to_vec(), record.end as u64);
            self.at = Position { byte: self.at.byte + behind, number: number + 1 };
            return Ok(Next::Record { number, payload });
        }
        let rest = read_lossy(&self.file, offset, (length - offset) as usize);
        let last = match following {
            None => end.number,
            Some(next) => self.first_of(next)?.unwrap_or(end.number),
        };
        let (behind, number) = match segment::search(&rest, 0, expected + 1..last.max(expected + 1)) {
            Some(record) => (record.begin, record.number),
            None => (rest.len(), last.max(expected)),
        };
        let damage = self.damage(offset, &rest[..behind], behind as u64, number - expected);
        self.at = Position { byte: self.at.byte + behind as u64, number };
        self.buffer.clear();
        Ok(Next::Damaged(damage))
    }

    fn damage(&self, offset: u64, bytes: &[u8], length: u64, lost: u64) -> Damage {
        let file = self.shared.disk.path(self.base);
        let file = file.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        Damage { file, offset, bytes: bytes[..bytes.len().min(SHOWN_BYTES_MAX)].to_vec(), length, lost }
    }

    /// The number of a segment's first record.
    fn first_of(&self, base: u64) -> io::Result<Option<u64>> {
        log::first(&self.shared.disk, base)
    }

    /// The bytes of the segment from there on that have been read.
    fn bytes(&self, offset: u64) -> &[u8] {
        self.buffer.get((offset - self.buffer_from) as usize..).unwrap_or(&[])
    }

    /// Reads on until so many bytes from `offset` on are there, or all up to `length`.
    fn fill(&mut self, offset: u64, length: u64, wanted: usize) -> io::Result<()> {
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
            // What cannot be read is damaged, and nothing but that.
            let bytes = read_lossy(&self.file, offset + from as u64, more);
            self.buffer[from..].copy_from_slice(&bytes);
        }
        Ok(())
    }
}

/// Bytes of a file; zeros for pieces that cannot be read.
fn read_lossy(file: &File, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    if file.read_exact_at(&mut bytes, offset).is_ok() {
        return bytes;
    }
    for (nth, piece) in bytes.chunks_mut(PIECE_BYTES).enumerate() {
        if let Err(error) = file.read_exact_at(piece, offset + (nth * PIECE_BYTES) as u64) {
            ::log::error!(
                "queue_unreadable offset={} error=\"{error}\"",
                offset + (nth * PIECE_BYTES) as u64
            );
            piece.fill(0);
        }
    }
    bytes
}
