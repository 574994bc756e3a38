//! The log of the spool: a sequence of segments to which records are appended. Used only by the thread
//! `spool-write`.
//!
//! Invariants: when [`SpoolLog::append`] returns, its records are durable. A failed append leaves no valid
//! records, and the next one starts at the same position.

use std::fs::File;
use std::io::{self, Read};

use super::LogPosition;
use super::disk::SpoolDisk;
use super::segment::{self, HEADER_BYTES, RECORD_HEAD_BYTES, SegmentHeader};
use crate::search::mark::{Mark, MarkFile};

/// The log of a directory, open for appending.
#[derive(Debug)]
pub(super) struct SpoolLog {
    disk: SpoolDisk,
    id: u64,
    segment_bytes: u64,
    file: File,
    /// Start of the last segment.
    base: u64,
    /// Position after the last record.
    end: LogPosition,
    /// True if the bytes of a failed append are still in the file.
    has_failed_tail: bool,
    mark: MarkFile,
}

/// A log and what its recovery found.
#[derive(Debug)]
pub(super) struct RecoveredLog {
    pub log: SpoolLog,
    /// The segments, oldest first; at least one.
    pub segments: Vec<u64>,
    /// Length of a partial record that a crash left at the end, and that was removed.
    pub torn_bytes: u64,
    /// Number of acknowledged records that are missing at the end. The reader reports them.
    pub lost: u64,
}

impl SpoolLog {
    /// Opens the log of a directory, or creates one.
    pub(super) fn open(disk: SpoolDisk, segment_bytes: u64) -> io::Result<RecoveredLog> {
        let (mark_file, mark) = disk.open_mark()?;
        let mut segments = disk.segments()?;
        if let Some(&last) = segments.last()
            && lacks_header(&disk, last)?
        {
            disk.remove(last)?;
            segments.pop();
        }
        let Some(&base) = segments.last() else {
            let id = random_id()?;
            let file = create_segment(&disk, SegmentHeader { log: id, base: 0, first: 0 })?;
            let end = LogPosition { byte: HEADER_BYTES as u64, number: 0 };
            let log = SpoolLog {
                disk,
                id,
                segment_bytes,
                file,
                base: 0,
                end,
                has_failed_tail: false,
                mark: mark_file,
            };
            return Ok(RecoveredLog { log, segments: vec![0], torn_bytes: 0, lost: 0 });
        };
        let known = segments.iter().rev().find_map(|&base| read_header(&disk, base).ok().flatten());
        let id = known.map_or_else(random_id, |header| Ok(header.log))?;
        let file = disk.open_segment(base)?;
        let mut bytes = Vec::new();
        (&file).read_to_end(&mut bytes)?;
        let mut end = find_end(&bytes, base);
        let mut torn_bytes = bytes.len() as u64 - (end.byte - base);
        let lost =
            mark.filter(|mark| mark.next_doc == id).map_or(0, |mark| mark.commits.saturating_sub(end.number));
        if lost > 0 {
            // The numbers of lost records are not used again, since the cluster may have some of them. What is in their place
            // stays, so that the reader reports it.
            if torn_bytes == 0 {
                disk.write(&file, &[0; RECORD_HEAD_BYTES], end.byte - base)?;
                disk.sync(&file)?;
                torn_bytes = RECORD_HEAD_BYTES as u64;
            }
            end = LogPosition { byte: end.byte + torn_bytes, number: end.number + lost };
            torn_bytes = 0;
        }
        if torn_bytes > 0 {
            disk.truncate(&file, end.byte - base)?;
            disk.sync(&file)?;
        }
        let log =
            SpoolLog { disk, id, segment_bytes, file, base, end, has_failed_tail: false, mark: mark_file };
        Ok(RecoveredLog { log, segments, torn_bytes, lost })
    }

    /// Random id that distinguishes this log from all others.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Position after the last record.
    pub(super) fn end(&self) -> LogPosition {
        self.end
    }

    pub(super) fn disk(&self) -> &SpoolDisk {
        &self.disk
    }

    /// Appends `records` records durably. `bytes` was encoded with [`segment::append_record`], with the
    /// numbers from [`SpoolLog::end`] on. Returns the start of a new segment, if one was needed.
    pub(super) fn append(&mut self, bytes: &[u8], records: u64) -> io::Result<Option<u64>> {
        if self.has_failed_tail {
            self.disk.truncate(&self.file, self.end.byte - self.base)?;
            self.has_failed_tail = false;
        }
        let is_new = self.end.byte - self.base >= self.segment_bytes;
        if is_new {
            self.start_segment()?;
        }
        let at = self.end.byte - self.base;
        let written = self.disk.write(&self.file, bytes, at).and_then(|()| self.disk.sync(&self.file));
        if let Err(error) = written {
            self.has_failed_tail = self.disk.truncate(&self.file, at).is_err();
            return Err(error);
        }
        self.end =
            LogPosition { byte: self.end.byte + bytes.len() as u64, number: self.end.number + records };
        if let Err(error) = self.mark.write(Mark { commits: self.end.number, next_doc: self.id }) {
            ::log::warn!("spool_mark_not_written error=\"{error}\"");
        }
        Ok(is_new.then_some(self.base))
    }

    /// Creates the next segment.
    fn start_segment(&mut self) -> io::Result<()> {
        let base = self.end.byte;
        let made = create_segment(&self.disk, SegmentHeader { log: self.id, base, first: self.end.number });
        self.file = made.inspect_err(|_| {
            // If this fails, the next attempt or start removes the file, because it has no record.
            let _ = self.disk.remove(base);
        })?;
        self.base = base;
        self.end.byte += HEADER_BYTES as u64;
        Ok(())
    }
}

/// Creates a segment durably.
fn create_segment(disk: &SpoolDisk, header: SegmentHeader) -> io::Result<File> {
    let file = disk.create(header.base)?;
    disk.write(&file, &header.to_bytes(), 0)?;
    disk.sync(&file)?;
    disk.sync_names()?;
    Ok(file)
}

/// True for a segment that a crash left without a header, and therefore without records.
fn lacks_header(disk: &SpoolDisk, base: u64) -> io::Result<bool> {
    let length = disk.open_segment(base)?.metadata()?.len();
    Ok(length < HEADER_BYTES as u64 || (length == HEADER_BYTES as u64 && read_header(disk, base)?.is_none()))
}

/// Reads a segment's header, if it is valid.
pub(super) fn read_header(disk: &SpoolDisk, base: u64) -> io::Result<Option<SegmentHeader>> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    disk.open_segment(base)?.take(HEADER_BYTES as u64).read_to_end(&mut bytes)?;
    Ok(SegmentHeader::parse(&bytes).filter(|header| header.base == base))
}

/// Returns the number of a segment's first record, from its header or from its first valid record.
pub(super) fn first_record_number(disk: &SpoolDisk, base: u64) -> io::Result<Option<u64>> {
    if let Some(header) = read_header(disk, base)? {
        return Ok(Some(header.first));
    }
    let mut bytes = Vec::new();
    disk.open_segment(base)?.read_to_end(&mut bytes)?;
    Ok(segment::find_record(&bytes, 0, 0..u64::MAX).map(|record| record.number))
}

/// Finds the position after the last valid record of the last segment. Damaged records before it stay; the
/// reader reports them.
fn find_end(bytes: &[u8], base: u64) -> LogPosition {
    let (mut at, mut number) = (HEADER_BYTES, SegmentHeader::parse(bytes).map(|header| header.first));
    loop {
        let next = segment::parse_record(bytes, at)
            .filter(|record| number.is_none_or(|number| number == record.number));
        let next = next.or_else(|| {
            let from = number.unwrap_or(0);
            // Without a valid header the first number is unknown.
            let records = (bytes.len() / RECORD_HEAD_BYTES) as u64;
            let until = number.map_or(u64::MAX, |number| number.saturating_add(records));
            segment::find_record(bytes, at, from..until)
        });
        match next {
            Some(record) => (at, number) = (record.end, Some(record.number + 1)),
            None => break,
        }
    }
    LogPosition { byte: base + at as u64, number: number.unwrap_or(0) }
}

fn random_id() -> io::Result<u64> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u64::from_le_bytes(bytes))
}
