//! Cursors over the entries of a segment.

use std::borrow::Cow;
use std::ops::Range;

use super::codec::{CodecError, each_run, take_bytes, take_varint};
use super::{BlockReader, IndexSegment, SegmentError};

/// Forward cursor. It is at an entry, or after the last one.
pub(crate) struct SegmentCursor<'a> {
    segment: &'a IndexSegment,
    reader: &'a dyn BlockReader,
    number: u32,
    block: Cow<'a, [u8]>,
    /// End of the entries in the block.
    end: usize,
    at: usize,
    key: Vec<u8>,
    total: u32,
    docs: Range<usize>,
    positions: Range<usize>,
    is_at_end: bool,
}

impl<'a> SegmentCursor<'a> {
    /// Moves to the first entry whose key is not below `key`.
    pub(crate) fn seek(
        segment: &'a IndexSegment,
        reader: &'a dyn BlockReader,
        key: &[u8],
    ) -> Result<SegmentCursor<'a>, SegmentError> {
        let mut cursor = SegmentCursor::new(segment, reader, segment.fences.find_block(key));
        if !cursor.is_at_end {
            cursor.load()?;
            cursor.seek_restart(key).map_err(|damaged| cursor.damaged(damaged))?;
            cursor.step()?;
            while !cursor.is_at_end && cursor.key.as_slice() < key {
                cursor.step()?;
            }
        }
        Ok(cursor)
    }

    fn new(segment: &'a IndexSegment, reader: &'a dyn BlockReader, number: u32) -> SegmentCursor<'a> {
        SegmentCursor {
            segment,
            reader,
            number,
            block: Cow::Borrowed(&[]),
            end: 0,
            at: 0,
            key: Vec::new(),
            total: 0,
            docs: 0..0,
            positions: 0..0,
            is_at_end: segment.block_count() == 0,
        }
    }

    /// Loads block `number`. The next step moves to its first entry.
    fn load(&mut self) -> Result<(), SegmentError> {
        self.block = self.segment.block(self.reader, self.number)?;
        self.at = 0;
        let restarts = self.restarts();
        self.end = self.block.len().checked_sub(2 + 2 * restarts).ok_or_else(|| self.damaged(CodecError))?;
        if self.end == 0 { Err(self.damaged(CodecError)) } else { Ok(()) }
    }

    fn restarts(&self) -> usize {
        self.block.last_chunk().map_or(0, |last| usize::from(u16::from_le_bytes(*last)))
    }

    fn restart(&self, nth: usize) -> usize {
        let at = self.end + 2 * nth;
        usize::from(u16::from_le_bytes([self.block[at], self.block[at + 1]]))
    }

    /// Moves to the last complete key below `key`, by binary search. The next step reads its entry.
    fn seek_restart(&mut self, key: &[u8]) -> Result<(), CodecError> {
        let (mut low, mut high) = (0, self.restarts());
        while low < high {
            let middle = (low + high) / 2;
            let mut at = self.restart(middle);
            take_varint(&self.block, &mut at)?;
            if take_bytes(&self.block, &mut at)? < key { low = middle + 1 } else { high = middle }
        }
        self.at = if low == 0 { 0 } else { self.restart(low - 1) };
        if self.at < self.end { Ok(()) } else { Err(CodecError) }
    }

    /// Moves to the first entry with exactly this key. Usually reads one block.
    pub(crate) fn find(
        segment: &'a IndexSegment,
        reader: &'a dyn BlockReader,
        key: &[u8],
    ) -> Result<Option<SegmentCursor<'a>>, SegmentError> {
        let cursor = SegmentCursor::seek(segment, reader, key)?;
        Ok((!cursor.is_at_end && cursor.key == key).then_some(cursor))
    }

    /// Returns the key, or `None` after the last entry.
    pub(crate) fn key(&self) -> Option<&[u8]> {
        (!self.is_at_end).then_some(&self.key)
    }

    /// Returns the number of documents with the term, or 0 in a continuation entry.
    pub(crate) fn total(&self) -> u32 {
        self.total
    }

    /// Moves to the next entry.
    pub(crate) fn step(&mut self) -> Result<(), SegmentError> {
        if self.at >= self.end {
            if self.number + 1 >= self.segment.block_count() {
                self.is_at_end = true;
                return Ok(());
            }
            self.number += 1;
            self.load()?;
        }
        self.read_entry().map_err(|damaged| self.damaged(damaged))
    }

    fn read_entry(&mut self) -> Result<(), CodecError> {
        let block = &self.block[..self.end];
        let mut at = self.at;
        let shared = usize::try_from(take_varint(block, &mut at)?).map_err(|_| CodecError)?;
        let rest = take_bytes(block, &mut at)?;
        if shared > self.key.len() {
            return Err(CodecError);
        }
        self.key.truncate(shared);
        self.key.extend_from_slice(rest);
        self.total = u32::try_from(take_varint(block, &mut at)?).map_err(|_| CodecError)?;
        let docs = take_bytes(block, &mut at)?.len();
        self.docs = at - docs..at;
        let positions = take_bytes(block, &mut at)?.len();
        self.positions = at - positions..at;
        self.at = at;
        Ok(())
    }

    /// Calls `run` with each run of documents in the entry.
    pub(crate) fn each_run(&self, run: impl FnMut(u32, u32)) -> Result<(), SegmentError> {
        each_run_of(self.segment, &self.block[self.docs.clone()], run)
    }

    /// Returns the encoded positions, see [`super::codec::take_positions`].
    pub(crate) fn positions(&self) -> &[u8] {
        &self.block[self.positions.clone()]
    }

    /// Returns the error for damage in this segment.
    pub(crate) fn damaged(&self, _: CodecError) -> SegmentError {
        SegmentError::Damaged { segment: self.segment.id }
    }
}

/// Reverse cursor. It is at an entry, or before the first one.
pub(crate) struct ReverseCursor<'a> {
    segment: &'a IndexSegment,
    reader: &'a dyn BlockReader,
    number: u32,
    block: Cow<'a, [u8]>,
    /// Remaining entries of the block, the next one last.
    entries: Vec<BufferedEntry>,
}

struct BufferedEntry {
    key: Vec<u8>,
    total: u32,
    docs: Range<usize>,
}

impl<'a> ReverseCursor<'a> {
    /// Moves to the last entry whose key is below `key`.
    pub(crate) fn seek(
        segment: &'a IndexSegment,
        reader: &'a dyn BlockReader,
        key: &[u8],
    ) -> Result<ReverseCursor<'a>, SegmentError> {
        let number = segment.fences.find_block(key);
        let mut cursor =
            ReverseCursor { segment, reader, number, block: Cow::Borrowed(&[]), entries: Vec::new() };
        if segment.block_count() > 0 {
            cursor.load()?;
            cursor.entries.retain(|entry| entry.key.as_slice() < key);
            cursor.load_until_entry()?;
        }
        Ok(cursor)
    }

    fn load(&mut self) -> Result<(), SegmentError> {
        let mut cursor = SegmentCursor::new(self.segment, self.reader, self.number);
        cursor.load()?;
        while cursor.at < cursor.end {
            cursor.step()?;
            self.entries.push(BufferedEntry {
                key: cursor.key.clone(),
                total: cursor.total,
                docs: cursor.docs.clone(),
            });
        }
        self.block = cursor.block;
        Ok(())
    }

    /// Loads earlier blocks until there is an entry or no block is left.
    fn load_until_entry(&mut self) -> Result<(), SegmentError> {
        while self.entries.is_empty() && self.number > 0 {
            self.number -= 1;
            self.load()?;
        }
        Ok(())
    }

    /// Returns the key, or `None` before the first entry.
    pub(crate) fn key(&self) -> Option<&[u8]> {
        self.entries.last().map(|entry| entry.key.as_slice())
    }

    /// See [`SegmentCursor::total`].
    pub(crate) fn total(&self) -> u32 {
        self.entries.last().map_or(0, |entry| entry.total)
    }

    /// Moves to the previous entry.
    pub(crate) fn step(&mut self) -> Result<(), SegmentError> {
        self.entries.pop();
        self.load_until_entry()
    }

    /// See [`SegmentCursor::each_run`].
    pub(crate) fn each_run(&self, run: impl FnMut(u32, u32)) -> Result<(), SegmentError> {
        let docs = self.entries.last().map_or(0..0, |entry| entry.docs.clone());
        each_run_of(self.segment, &self.block[docs], run)
    }
}

fn each_run_of(
    segment: &IndexSegment,
    docs: &[u8],
    mut run: impl FnMut(u32, u32),
) -> Result<(), SegmentError> {
    let mut outside = false;
    let read = each_run(docs, |from, docs| {
        if from.checked_add(docs).is_none_or(|end| end > segment.span) {
            outside = true;
        } else {
            run(segment.base + from, docs);
        }
    });
    let read = if outside { Err(CodecError) } else { read };
    read.map_err(|_| SegmentError::Damaged { segment: segment.id })
}
