//! Segment: the sorted terms of a span of documents, in blocks that never change.
//!
//! The key of a term consists of the index id, the field id (2 bytes each, big endian) and the encoded value. An
//! entry contains the part of the key that differs from the previous entry, the number of documents with the term,
//! the document numbers relative to the start of the segment, and positions if the field is a text. A term with many
//! documents has several entries: the first one contains the total, the others 0. Every 16th entry contains its
//! complete key. A table at the end of the block lists the offsets of these entries. A block fills one page of the
//! database. Fence keys tell which block contains a key, so a lookup reads one block. docs/store-format.md describes
//! each byte.

pub(crate) mod codec;
mod cursor;
mod inspect;
mod merge;
mod write;

use std::borrow::Cow;

pub(super) use codec::CodecError;
pub use inspect::{SegmentContent, inspect_segment};

pub(super) use cursor::{ReverseCursor, SegmentCursor};
pub(super) use merge::merge_segments;
pub(super) use write::{SegmentWriter, TermBatch};

use codec::{put_bytes, take_bytes};

/// Maximum size in bytes of a block. With the overhead of SQLite it fills a page of 8 KiB.
pub(super) const BLOCK_BYTES_MAX: usize = 8_100;

/// Location of the blocks of a segment.
#[derive(Debug)]
pub(super) enum SegmentBlocks {
    /// In memory, for a young segment.
    Memory(Vec<Box<[u8]>>),
    /// In the table `blocks`. The value is the number of blocks.
    Disk(u32),
}

/// A segment.
#[derive(Debug)]
pub(super) struct IndexSegment {
    /// Number in the table `segments`, or 0 for a memory segment.
    pub id: u64,
    /// First document.
    pub base: u32,
    /// Number of documents, deleted ones included.
    pub span: u32,
    pub blocks: SegmentBlocks,
    /// Total size of the blocks.
    pub bytes: u64,
    fences: FenceKeys,
}

/// Reader of disk blocks.
pub(super) trait BlockReader {
    fn read_block(&self, segment: u64, block: u32) -> Result<Vec<u8>, SegmentError>;
}

/// Reason why a block cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("the index is damaged (segment {segment})")]
    Damaged { segment: u64 },
}

impl IndexSegment {
    /// Returns the range of documents.
    pub(super) fn doc_range(&self) -> std::ops::Range<u32> {
        self.base..self.base + self.span
    }

    fn block_count(&self) -> u32 {
        match &self.blocks {
            SegmentBlocks::Memory(blocks) => blocks.len() as u32,
            SegmentBlocks::Disk(count) => *count,
        }
    }

    fn block<'a>(&'a self, reader: &dyn BlockReader, number: u32) -> Result<Cow<'a, [u8]>, SegmentError> {
        match &self.blocks {
            SegmentBlocks::Memory(blocks) => Ok(Cow::Borrowed(&blocks[number as usize])),
            SegmentBlocks::Disk(_) => Ok(Cow::Owned(reader.read_block(self.id, number)?)),
        }
    }

    /// Returns the fence keys as stored in the table `segments`.
    pub(super) fn encode_fences(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.fences.bytes.len() + 2 * self.fences.ends.len());
        (0..self.fences.ends.len()).for_each(|at| put_bytes(&mut bytes, self.fences.get(at)));
        bytes
    }

    /// Creates a disk segment from its row.
    pub(super) fn from_row(
        id: u64,
        base: u32,
        span: u32,
        bytes: u64,
        fences: &[u8],
    ) -> Result<IndexSegment, CodecError> {
        let (mut at, mut read) = (0, FenceKeys::default());
        while at < fences.len() {
            read.push(take_bytes(fences, &mut at)?);
        }
        let count = u32::try_from(read.ends.len()).map_err(|_| CodecError)?;
        Ok(IndexSegment { id, base, span, blocks: SegmentBlocks::Disk(count), bytes, fences: read })
    }

    /// Returns all blocks in one piece, as stored in the table `young_segments`.
    pub(super) fn pack(&self) -> Vec<u8> {
        let SegmentBlocks::Memory(blocks) = &self.blocks else { return Vec::new() };
        let mut bytes = Vec::with_capacity(self.bytes as usize + 4 * blocks.len());
        blocks.iter().for_each(|block| put_bytes(&mut bytes, block));
        bytes
    }

    /// Reads a segment from the output of [`pack`](Self::pack).
    pub(super) fn unpack(base: u32, span: u32, packed: &[u8]) -> Result<IndexSegment, CodecError> {
        let (mut at, mut blocks, mut fences) = (0, Vec::new(), FenceKeys::default());
        while at < packed.len() {
            let block = take_bytes(packed, &mut at)?;
            let mut inner = 0;
            codec::take_varint(block, &mut inner)?;
            fences.push(take_bytes(block, &mut inner)?);
            blocks.push(block.into());
        }
        Ok(IndexSegment {
            id: 0,
            base,
            span,
            blocks: SegmentBlocks::Memory(blocks),
            bytes: packed.len() as u64,
            fences,
        })
    }
}

/// One key per block: above all keys of the previous block, and not above the first key of its own.
#[derive(Debug, Default)]
struct FenceKeys {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl FenceKeys {
    fn push(&mut self, fence: &[u8]) {
        self.bytes.extend_from_slice(fence);
        self.ends.push(self.bytes.len() as u32);
    }

    fn get(&self, at: usize) -> &[u8] {
        let from = if at == 0 { 0 } else { self.ends[at - 1] as usize };
        &self.bytes[from..self.ends[at] as usize]
    }

    /// Returns the first block that may contain `key`.
    fn find_block(&self, key: &[u8]) -> u32 {
        let (mut low, mut high) = (0, self.ends.len());
        while low < high {
            let middle = (low + high) / 2;
            if self.get(middle) < key { low = middle + 1 } else { high = middle }
        }
        (low as u32).saturating_sub(1)
    }
}
