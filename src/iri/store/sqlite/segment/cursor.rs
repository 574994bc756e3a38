//! Walks over a segment's entries, from a key on.

use std::borrow::Cow;
use std::ops::Range;

use super::codec::{Damaged, each_run, take, take_bytes};
use super::{ReadBlock, ReadError, Segment};

/// A place in a segment. It stands on an entry, or behind the last.
pub struct Cursor<'a> {
    segment: &'a Segment,
    reader: &'a dyn ReadBlock,
    number: u32,
    block: Cow<'a, [u8]>,
    /// Where the block's entries end.
    end: usize,
    at: usize,
    key: Vec<u8>,
    total: u32,
    docs: Range<usize>,
    positions: Range<usize>,
    ended: bool,
}

impl<'a> Cursor<'a> {
    /// Stands on the first entry whose key is not below `key`.
    pub fn seek(
        segment: &'a Segment,
        reader: &'a dyn ReadBlock,
        key: &[u8],
    ) -> Result<Cursor<'a>, ReadError> {
        let mut cursor = Cursor::new(segment, reader, segment.fences.first_for(key));
        if !cursor.ended {
            cursor.load()?;
            cursor.halve(key).map_err(|damaged| cursor.damaged(damaged))?;
            cursor.step()?;
            while !cursor.ended && cursor.key.as_slice() < key {
                cursor.step()?;
            }
        }
        Ok(cursor)
    }

    fn new(segment: &'a Segment, reader: &'a dyn ReadBlock, number: u32) -> Cursor<'a> {
        Cursor {
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
            ended: segment.block_count() == 0,
        }
    }

    /// Loads the block `number`; the next step is to its first entry.
    fn load(&mut self) -> Result<(), ReadError> {
        self.block = self.segment.block(self.reader, self.number)?;
        self.at = 0;
        let restarts = self.restarts();
        self.end = self.block.len().checked_sub(2 + 2 * restarts).ok_or_else(|| self.damaged(Damaged))?;
        if self.end == 0 { Err(self.damaged(Damaged)) } else { Ok(()) }
    }

    fn restarts(&self) -> usize {
        self.block.last_chunk().map_or(0, |last| usize::from(u16::from_le_bytes(*last)))
    }

    fn restart(&self, nth: usize) -> usize {
        let at = self.end + 2 * nth;
        usize::from(u16::from_le_bytes([self.block[at], self.block[at + 1]]))
    }

    /// Goes to the last whole key that is below `key`: the next step is to its entry.
    fn halve(&mut self, key: &[u8]) -> Result<(), Damaged> {
        let (mut low, mut high) = (0, self.restarts());
        while low < high {
            let middle = (low + high) / 2;
            let mut at = self.restart(middle);
            take(&self.block, &mut at)?;
            if take_bytes(&self.block, &mut at)? < key { low = middle + 1 } else { high = middle }
        }
        self.at = if low == 0 { 0 } else { self.restart(low - 1) };
        if self.at < self.end { Ok(()) } else { Err(Damaged) }
    }

    /// Stands on the first entry of exactly that key; `None` where there is none. Reads one block nearly always.
    pub fn find(
        segment: &'a Segment,
        reader: &'a dyn ReadBlock,
        key: &[u8],
    ) -> Result<Option<Cursor<'a>>, ReadError> {
        let cursor = Cursor::seek(segment, reader, key)?;
        Ok((!cursor.ended && cursor.key == key).then_some(cursor))
    }

    /// The key, `None` behind the last entry.
    pub fn key(&self) -> Option<&[u8]> {
        (!self.ended).then_some(&self.key)
    }

    /// How many documents have the term; 0 on a further entry of the same.
    pub fn total(&self) -> u32 {
        self.total
    }

    /// Goes on to the next entry.
    pub fn step(&mut self) -> Result<(), ReadError> {
        if self.at >= self.end {
            if self.number + 1 >= self.segment.block_count() {
                self.ended = true;
                return Ok(());
            }
            self.number += 1;
            self.load()?;
        }
        self.read_entry().map_err(|damaged| self.damaged(damaged))
    }

    fn read_entry(&mut self) -> Result<(), Damaged> {
        let block = &self.block[..self.end];
        let mut at = self.at;
        let shared = usize::try_from(take(block, &mut at)?).map_err(|_| Damaged)?;
        let rest = take_bytes(block, &mut at)?;
        if shared > self.key.len() {
            return Err(Damaged);
        }
        self.key.truncate(shared);
        self.key.extend_from_slice(rest);
        self.total = u32::try_from(take(block, &mut at)?).map_err(|_| Damaged)?;
        let docs = take_bytes(block, &mut at)?.len();
        self.docs = at - docs..at;
        let positions = take_bytes(block, &mut at)?.len();
        self.positions = at - positions..at;
        self.at = at;
        Ok(())
    }

    /// Calls `run` with each run of this entry's documents, by their numbers in the store.
    pub fn each_run(&self, run: impl FnMut(u32, u32)) -> Result<(), ReadError> {
        each_run_of(self.segment, &self.block[self.docs.clone()], run)
    }

    /// The positions of this entry's documents, as [`super::codec::take_positions`] reads them.
    pub fn positions(&self) -> &[u8] {
        &self.block[self.positions.clone()]
    }

    /// What a damaged place of this segment is reported as.
    pub fn damaged(&self, _: Damaged) -> ReadError {
        ReadError::Damaged { segment: self.segment.id }
    }
}

/// A place in a segment that goes backwards. It stands on an entry, or before the first.
pub struct Backwards<'a> {
    segment: &'a Segment,
    reader: &'a dyn ReadBlock,
    number: u32,
    block: Cow<'a, [u8]>,
    /// The entries of this block that are still to come, the next one last.
    entries: Vec<Place>,
}

struct Place {
    key: Vec<u8>,
    total: u32,
    docs: Range<usize>,
}

impl<'a> Backwards<'a> {
    /// Stands on the last entry whose key is below `key`.
    pub fn seek(
        segment: &'a Segment,
        reader: &'a dyn ReadBlock,
        key: &[u8],
    ) -> Result<Backwards<'a>, ReadError> {
        let number = segment.fences.first_for(key);
        let mut cursor =
            Backwards { segment, reader, number, block: Cow::Borrowed(&[]), entries: Vec::new() };
        if segment.block_count() > 0 {
            cursor.load()?;
            cursor.entries.retain(|place| place.key.as_slice() < key);
            cursor.fill()?;
        }
        Ok(cursor)
    }

    fn load(&mut self) -> Result<(), ReadError> {
        let mut cursor = Cursor::new(self.segment, self.reader, self.number);
        cursor.load()?;
        while cursor.at < cursor.end {
            cursor.step()?;
            self.entries.push(Place {
                key: cursor.key.clone(),
                total: cursor.total,
                docs: cursor.docs.clone(),
            });
        }
        self.block = cursor.block;
        Ok(())
    }

    /// Loads earlier blocks until there is an entry, or no block.
    fn fill(&mut self) -> Result<(), ReadError> {
        while self.entries.is_empty() && self.number > 0 {
            self.number -= 1;
            self.load()?;
        }
        Ok(())
    }

    /// The key, `None` before the first entry.
    pub fn key(&self) -> Option<&[u8]> {
        self.entries.last().map(|place| place.key.as_slice())
    }

    /// As [`Cursor::total`].
    pub fn total(&self) -> u32 {
        self.entries.last().map_or(0, |place| place.total)
    }

    /// Goes back to the entry before.
    pub fn step(&mut self) -> Result<(), ReadError> {
        self.entries.pop();
        self.fill()
    }

    /// As [`Cursor::each_run`].
    pub fn each_run(&self, run: impl FnMut(u32, u32)) -> Result<(), ReadError> {
        let docs = self.entries.last().map_or(0..0, |place| place.docs.clone());
        each_run_of(self.segment, &self.block[docs], run)
    }
}

fn each_run_of(segment: &Segment, docs: &[u8], mut run: impl FnMut(u32, u32)) -> Result<(), ReadError> {
    let mut outside = false;
    let read = each_run(docs, |from, docs| {
        if from.checked_add(docs).is_none_or(|end| end > segment.span) {
            outside = true;
        } else {
            run(segment.base + from, docs);
        }
    });
    let read = if outside { Err(Damaged) } else { read };
    read.map_err(|_| ReadError::Damaged { segment: segment.id })
}
