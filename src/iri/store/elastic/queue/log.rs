//! The log on the disk: segments, one behind the other, that records are appended to. Used by the queue's writer alone.
//!
//! Invariants: what [`Log::append`] returned for is durable; a failed append leaves nothing behind that counts, and the
//! next one begins where it began.

use std::fs::File;
use std::io::{self, Read};

use super::Position;
use super::disk::Disk;
use super::segment::{self, HEADER_BYTES, Header, RECORD_HEAD_BYTES};

/// The log of a folder, open to be appended to.
#[derive(Debug)]
pub struct Log {
    disk: Disk,
    id: u64,
    segment_bytes: u64,
    file: File,
    /// Where the last segment begins.
    base: u64,
    /// Behind the last record.
    end: Position,
    /// A failed append could not be cut off yet.
    is_soiled: bool,
}

/// A log that was opened.
#[derive(Debug)]
pub struct Opened {
    /// The log.
    pub log: Log,
    /// Its segments, the oldest first; one at least.
    pub segments: Vec<u64>,
    /// Bytes of a begun record that a crash left at its end, and that were cut off.
    pub torn_bytes: u64,
}

impl Log {
    /// Opens the log of a folder; makes one where there is none.
    pub fn open(disk: Disk, segment_bytes: u64) -> io::Result<Opened> {
        let mut segments = disk.segments()?;
        if let Some(&last) = segments.last()
            && is_unborn(&disk, last)?
        {
            disk.remove(last)?;
            segments.pop();
        }
        let Some(&base) = segments.last() else {
            let id = random()?;
            let file = begin(&disk, Header { log: id, base: 0, first: 0 })?;
            let end = Position { byte: HEADER_BYTES as u64, number: 0 };
            let log = Log { disk, id, segment_bytes, file, base: 0, end, is_soiled: false };
            return Ok(Opened { log, segments: vec![0], torn_bytes: 0 });
        };
        let known = segments.iter().rev().find_map(|&base| header(&disk, base).ok().flatten());
        let id = known.map_or_else(random, |header| Ok(header.log))?;
        let file = disk.open_segment(base)?;
        let mut bytes = Vec::new();
        (&file).read_to_end(&mut bytes)?;
        let end = end(&bytes, base);
        let torn_bytes = bytes.len() as u64 - (end.byte - base);
        if torn_bytes > 0 {
            disk.cut(&file, end.byte - base)?;
            disk.sync(&file)?;
        }
        let log = Log { disk, id, segment_bytes, file, base, end, is_soiled: false };
        Ok(Opened { log, segments, torn_bytes })
    }

    /// What tells this log's records from those of any other.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Behind the last record.
    pub fn end(&self) -> Position {
        self.end
    }

    /// Where it is.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Appends records, `records` of them, made by [`segment::push`] with the numbers from [`Log::end`] on, durably. Gives
    /// the segment that was begun for them, if one was.
    pub fn append(&mut self, bytes: &[u8], records: u64) -> io::Result<Option<u64>> {
        if self.is_soiled {
            self.disk.cut(&self.file, self.end.byte - self.base)?;
            self.is_soiled = false;
        }
        let begun = self.end.byte - self.base >= self.segment_bytes;
        if begun {
            self.roll()?;
        }
        let at = self.end.byte - self.base;
        let written = self.disk.write(&self.file, bytes, at).and_then(|()| self.disk.sync(&self.file));
        if let Err(error) = written {
            self.is_soiled = self.disk.cut(&self.file, at).is_err();
            return Err(error);
        }
        self.end = Position { byte: self.end.byte + bytes.len() as u64, number: self.end.number + records };
        Ok(begun.then_some(self.base))
    }

    /// Begins the next segment.
    fn roll(&mut self) -> io::Result<()> {
        let base = self.end.byte;
        let made = begin(&self.disk, Header { log: self.id, base, first: self.end.number });
        self.file = made.inspect_err(|_| {
            // If that fails too, the next attempt or the next start takes it away: it has no record.
            let _ = self.disk.remove(base);
        })?;
        self.base = base;
        self.end.byte += HEADER_BYTES as u64;
        Ok(())
    }
}

/// Makes a segment, durably.
fn begin(disk: &Disk, header: Header) -> io::Result<File> {
    let file = disk.create(header.base)?;
    disk.write(&file, &header.to_bytes(), 0)?;
    disk.sync(&file)?;
    disk.sync_names()?;
    Ok(file)
}

/// True for a segment that a crash left before it had its header, and so any record.
fn is_unborn(disk: &Disk, base: u64) -> io::Result<bool> {
    let length = disk.open_segment(base)?.metadata()?.len();
    Ok(length < HEADER_BYTES as u64 || (length == HEADER_BYTES as u64 && header(disk, base)?.is_none()))
}

/// The header of a segment, if it is right.
pub fn header(disk: &Disk, base: u64) -> io::Result<Option<Header>> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    disk.open_segment(base)?.take(HEADER_BYTES as u64).read_to_end(&mut bytes)?;
    Ok(Header::read(&bytes).filter(|header| header.base == base))
}

/// The number of a segment's first record: that in its header, or that of the first record which is right.
pub fn first(disk: &Disk, base: u64) -> io::Result<Option<u64>> {
    if let Some(header) = header(disk, base)? {
        return Ok(Some(header.first));
    }
    let mut bytes = Vec::new();
    disk.open_segment(base)?.read_to_end(&mut bytes)?;
    Ok(segment::search(&bytes, 0, 0..u64::MAX).map(|record| record.number))
}

/// Behind the last whole record of the last segment. What is damaged before it stays: the reader names it.
fn end(bytes: &[u8], base: u64) -> Position {
    let (mut at, mut number) = (HEADER_BYTES, Header::read(bytes).map(|header| header.first));
    loop {
        let next =
            segment::record(bytes, at).filter(|record| number.is_none_or(|number| number == record.number));
        let next = next.or_else(|| {
            let from = number.unwrap_or(0);
            // Without a right header any number may be the first.
            let records = (bytes.len() / RECORD_HEAD_BYTES) as u64;
            let until = number.map_or(u64::MAX, |number| number.saturating_add(records));
            segment::search(bytes, at, from..until)
        });
        match next {
            Some(record) => (at, number) = (record.end, Some(record.number + 1)),
            None => break,
        }
    }
    Position { byte: base + at as u64, number: number.unwrap_or(0) }
}

fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u64::from_le_bytes(bytes))
}
