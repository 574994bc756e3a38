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
        let mut cursor = Cursor {
            segment,
            reader,
            number: segment.fences.first_for(key),
            block: Cow::Borrowed(&[]),
            at: 0,
            key: Vec::new(),
            total: 0,
            docs: 0..0,
            positions: 0..0,
            ended: segment.block_count() == 0,
        };
        if !cursor.ended {
            cursor.block = segment.block(reader, cursor.number)?;
            cursor.step()?;
            while !cursor.ended && cursor.key.as_slice() < key {
                cursor.step()?;
            }
        }
        Ok(cursor)
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
        while self.at >= self.block.len() {
            if self.number + 1 >= self.segment.block_count() && self.at > 0 {
                self.ended = true;
                return Ok(());
            }
            if self.at > 0 {
                self.number += 1;
                self.block = self.segment.block(self.reader, self.number)?;
                self.at = 0;
            }
            if self.block.is_empty() {
                return Err(self.damaged(Damaged));
            }
        }
        self.read_entry().map_err(|damaged| self.damaged(damaged))
    }

    fn read_entry(&mut self) -> Result<(), Damaged> {
        let block: &[u8] = &self.block;
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
        let mut cursor = Cursor {
            segment: self.segment,
            reader: self.reader,
            number: self.number,
            block: self.segment.block(self.reader, self.number)?,
            at: 0,
            key: Vec::new(),
            total: 0,
            docs: 0..0,
            positions: 0..0,
            ended: false,
        };
        while cursor.at < cursor.block.len() {
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
