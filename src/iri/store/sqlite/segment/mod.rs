//! A segment: the terms of a span of documents, sorted, in blocks that never change.
//!
//! A term's key is the index's number, the field's number (both two bytes, the high one first) and the value in an order
//! that bytes keep. An entry has the part of the key that differs from the entry before, how many documents have the
//! term, and their numbers from the segment's first one on, with positions where the field is a text. A term with many
//! documents has several entries, one behind the other: the first says how many there are in all, the others 0.
//! Every sixteenth entry has its whole key; where those stand is written at the block's end, two bytes each and two for
//! how many. A block is one page of the database. `fences` say which block a key is in, so a look-up reads one block.

pub mod codec;
mod cursor;
mod merge;
mod write;

use std::borrow::Cow;

pub use codec::Damaged;
pub use cursor::{Backwards, Cursor};
pub use merge::merge;
pub use write::{Batch, Writer};

use codec::{put_bytes, take_bytes};

/// Bytes of a block: with what SQLite adds it fills a page of 8 KiB.
pub const BLOCK_BYTES_MAX: usize = 8_100;

/// Where a segment's blocks are.
#[derive(Debug)]
pub enum Blocks {
    /// In memory, because it is young and small.
    Memory(Vec<Box<[u8]>>),
    /// In the table `block`, so many.
    Disk(u32),
}

/// A segment.
#[derive(Debug)]
pub struct Segment {
    /// Its number in the table `segment`; 0 for one in memory.
    pub id: u64,
    /// The first document.
    pub base: u32,
    /// So many documents follow, the first one included; some may be gone.
    pub span: u32,
    /// Its blocks.
    pub blocks: Blocks,
    /// What the blocks take.
    pub bytes: u64,
    fences: Fences,
}

/// Reads blocks that are on the disk.
pub trait ReadBlock {
    /// The block of that number.
    fn block(&self, segment: u64, block: u32) -> Result<Vec<u8>, ReadError>;
}

/// Why a block cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// SQLite says so.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// Its bytes make no sense.
    #[error("the index is damaged (segment {segment})")]
    Damaged {
        /// In this one.
        segment: u64,
    },
}

impl Segment {
    /// The documents that it spans.
    pub fn docs(&self) -> std::ops::Range<u32> {
        self.base..self.base + self.span
    }

    fn block_count(&self) -> u32 {
        match &self.blocks {
            Blocks::Memory(blocks) => blocks.len() as u32,
            Blocks::Disk(count) => *count,
        }
    }

    fn block<'a>(&'a self, reader: &dyn ReadBlock, number: u32) -> Result<Cow<'a, [u8]>, ReadError> {
        match &self.blocks {
            Blocks::Memory(blocks) => Ok(Cow::Borrowed(&blocks[number as usize])),
            Blocks::Disk(_) => Ok(Cow::Owned(reader.block(self.id, number)?)),
        }
    }

    /// The fences as they are kept in the table `segment`.
    pub fn fences(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.fences.bytes.len() + 2 * self.fences.ends.len());
        (0..self.fences.ends.len()).for_each(|at| put_bytes(&mut bytes, self.fences.get(at)));
        bytes
    }

    /// A segment that is on the disk, from its row.
    pub fn on_disk(id: u64, base: u32, span: u32, bytes: u64, fences: &[u8]) -> Result<Segment, Damaged> {
        let (mut at, mut read) = (0, Fences::default());
        while at < fences.len() {
            read.push(take_bytes(fences, &mut at)?);
        }
        let count = u32::try_from(read.ends.len()).map_err(|_| Damaged)?;
        Ok(Segment { id, base, span, blocks: Blocks::Disk(count), bytes, fences: read })
    }

    /// All in one piece: as a young segment is kept in the table `recent`.
    pub fn pack(&self) -> Vec<u8> {
        let Blocks::Memory(blocks) = &self.blocks else { return Vec::new() };
        let mut bytes = Vec::with_capacity(self.bytes as usize + 4 * blocks.len());
        blocks.iter().for_each(|block| put_bytes(&mut bytes, block));
        bytes
    }

    /// The opposite of [`pack`](Self::pack).
    pub fn unpack(base: u32, span: u32, packed: &[u8]) -> Result<Segment, Damaged> {
        let (mut at, mut blocks, mut fences) = (0, Vec::new(), Fences::default());
        while at < packed.len() {
            let block = take_bytes(packed, &mut at)?;
            let mut inner = 0;
            codec::take(block, &mut inner)?;
            fences.push(take_bytes(block, &mut inner)?);
            blocks.push(block.into());
        }
        Ok(Segment { id: 0, base, span, blocks: Blocks::Memory(blocks), bytes: packed.len() as u64, fences })
    }
}

/// For each block a key that is above all keys before the block, and not above its first.
#[derive(Debug, Default)]
struct Fences {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl Fences {
    fn push(&mut self, fence: &[u8]) {
        self.bytes.extend_from_slice(fence);
        self.ends.push(self.bytes.len() as u32);
    }

    fn get(&self, at: usize) -> &[u8] {
        let from = if at == 0 { 0 } else { self.ends[at - 1] as usize };
        &self.bytes[from..self.ends[at] as usize]
    }

    /// The first block that may have `key`: all keys of those before are below it.
    fn first_for(&self, key: &[u8]) -> u32 {
        let (mut low, mut high) = (0, self.ends.len());
        while low < high {
            let middle = (low + high) / 2;
            if self.get(middle) < key { low = middle + 1 } else { high = middle }
        }
        (low as u32).saturating_sub(1)
    }
}
