//! Creation of segments: [`TermBatch`] from documents in any order of terms, [`SegmentWriter`] from sorted terms.

use std::hash::BuildHasher as _;

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};

use super::codec::{DocListWriter, put_bytes, put_positions, put_varint};
use super::{BLOCK_BYTES_MAX, FenceKeys, IndexSegment, SegmentBlocks};

/// Size at which the documents or positions of a term continue in another entry, so that a block holds several entries.
const ENTRY_BYTES_MAX: usize = 2_000;

/// Entries per complete key. Complete keys permit a binary search.
const RESTART_ENTRIES: usize = 16;

/// Postings of a full batch: 16 MiB, and as much again during sorting.
const POSTINGS_MAX: usize = 1 << 20;

/// Terms of consecutive documents, in memory.
#[derive(Debug, Default)]
pub(crate) struct TermBatch {
    /// Distinct keys, concatenated.
    keys: Vec<u8>,
    /// End of each key.
    ends: Vec<usize>,
    /// Hash table from key to slot, the index in `ends`.
    slots: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// In the order of addition.
    postings: Vec<Posting>,
}

/// One occurrence of a term in a document.
#[derive(Clone, Copy, Debug, Default)]
struct Posting {
    /// Slot of the key.
    slot: u32,
    doc: u32,
    position: Option<u32>,
}

impl TermBatch {
    /// Adds a term of document `doc`. The documents must ascend, and so must the positions within one.
    pub(crate) fn add(&mut self, key: &[u8], doc: u32, position: Option<u32>) {
        let TermBatch { keys, ends, slots, hasher, .. } = self;
        let hash = hasher.hash_one(key);
        let is_same = |slot: &u32| key_at(keys, ends, *slot) == key;
        let hash_of = |slot: &u32| hasher.hash_one(key_at(keys, ends, *slot));
        let slot = match slots.entry(hash, is_same, hash_of) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                let slot = ends.len() as u32;
                entry.insert(slot);
                keys.extend_from_slice(key);
                ends.push(keys.len());
                slot
            }
        };
        self.postings.push(Posting { slot, doc, position });
    }

    /// Tells whether the batch should be closed.
    pub(crate) fn is_full(&self) -> bool {
        self.postings.len() >= POSTINGS_MAX
    }

    /// Returns the segment of `span` documents. Its base is set when it is written.
    pub(crate) fn finish(self, span: u32) -> IndexSegment {
        let mut writer = SegmentWriter::default();
        let mut blocks = Vec::new();
        let (starts, postings) = self.postings_by_slot();
        let mut open = TermBuilder::default();
        for slot in self.slots_by_key() {
            let of_term = &postings[starts[slot as usize]..starts[slot as usize + 1]];
            open.add_postings(of_term);
            writer.write_entry(self.key(slot), open.total, open.docs.finish(), &open.positions);
            open.clear();
            blocks.append(&mut writer.full_blocks);
        }
        writer.into_segment(blocks, 0, span)
    }

    fn key(&self, slot: u32) -> &[u8] {
        key_at(&self.keys, &self.ends, slot)
    }

    /// Returns the slots in the order of their keys.
    fn slots_by_key(&self) -> impl Iterator<Item = u32> {
        // Most keys differ in their first bytes, and integers compare faster than slices.
        let start = |slot: u32| {
            let (key, mut start) = (self.key(slot), [0; 16]);
            let length = key.len().min(start.len());
            start[..length].copy_from_slice(&key[..length]);
            (u128::from_be_bytes(start), slot)
        };
        let mut order: Vec<_> = (0..self.ends.len() as u32).map(start).collect();
        order.sort_unstable_by(|(a, slot), (b, other)| {
            a.cmp(b).then_with(|| self.key(*slot).cmp(self.key(*other)))
        });
        order.into_iter().map(|(_, slot)| slot)
    }

    /// Returns the postings grouped by slot, and the start of each group.
    fn postings_by_slot(&self) -> (Vec<usize>, Vec<Posting>) {
        let mut starts = vec![0; self.ends.len() + 1];
        for posting in &self.postings {
            starts[posting.slot as usize + 1] += 1;
        }
        for slot in 1..starts.len() {
            starts[slot] += starts[slot - 1];
        }
        let mut next = starts.clone();
        let mut sorted = vec![Posting::default(); self.postings.len()];
        for posting in &self.postings {
            let at = &mut next[posting.slot as usize];
            sorted[*at] = *posting;
            *at += 1;
        }
        (starts, sorted)
    }
}

fn key_at<'a>(keys: &'a [u8], ends: &[usize], slot: u32) -> &'a [u8] {
    let slot = slot as usize;
    let start = if slot == 0 { 0 } else { ends[slot - 1] };
    &keys[start..ends[slot]]
}

/// Writer of entries into blocks.
#[derive(Debug, Default)]
pub(crate) struct SegmentWriter {
    /// Blocks that are full.
    pub full_blocks: Vec<Box<[u8]>>,
    block: Vec<u8>,
    /// Offsets of complete keys in the block.
    restarts: Vec<u16>,
    /// Entries since the last complete key.
    entries: usize,
    last_key: Vec<u8>,
    fences: FenceKeys,
    bytes: u64,
    open_term: TermBuilder,
}

/// The term whose documents are being added.
#[derive(Debug, Default)]
struct TermBuilder {
    key: Vec<u8>,
    docs: DocListWriter,
    positions: Vec<u8>,
    /// Complete entries, which wait until the total is known.
    entries: Vec<(Vec<u8>, Vec<u8>)>,
    total: u32,
    /// The positions in one document.
    doc_positions: Vec<u32>,
}

impl TermBuilder {
    /// Adds all postings of a term.
    fn add_postings(&mut self, postings: &[Posting]) {
        for of_doc in postings.chunk_by(|a, b| a.doc == b.doc) {
            self.total += 1;
            self.docs.add(of_doc[0].doc);
            if of_doc[0].position.is_some() {
                self.doc_positions.clear();
                self.doc_positions.extend(of_doc.iter().filter_map(|posting| posting.position));
                put_positions(&mut self.positions, &self.doc_positions);
            }
        }
    }

    /// Clears everything except the key, and keeps the memory.
    fn clear(&mut self) {
        self.docs.clear();
        self.positions.clear();
        self.total = 0;
    }
}

impl SegmentWriter {
    /// Starts a term. Keys must ascend.
    pub(crate) fn begin_term(&mut self, key: &[u8]) {
        self.open_term.key.clear();
        self.open_term.key.extend_from_slice(key);
    }

    /// Adds consecutive documents of the current term.
    pub(crate) fn add_docs(&mut self, from: u32, docs: u32) {
        self.split_if_large();
        self.add_run(from, docs);
    }

    /// Adds a document with its positions.
    pub(crate) fn add_doc_with_positions(&mut self, doc: u32, positions: &[u32]) {
        self.add_docs(doc, 1);
        put_positions(&mut self.open_term.positions, positions);
    }

    /// Adds the documents that `runs` passes to its argument, and their positions in encoded form.
    pub(crate) fn copy_entry<E>(
        &mut self,
        runs: impl FnOnce(&mut dyn FnMut(u32, u32)) -> Result<(), E>,
        positions: &[u8],
    ) -> Result<(), E> {
        self.split_if_large();
        runs(&mut |from, docs| self.add_run(from, docs))?;
        self.open_term.positions.extend_from_slice(positions);
        Ok(())
    }

    fn add_run(&mut self, from: u32, docs: u32) {
        self.open_term.total += docs;
        self.open_term.docs.add_run(from, docs);
    }

    fn split_if_large(&mut self) {
        let term = &mut self.open_term;
        if term.docs.len() >= ENTRY_BYTES_MAX || term.positions.len() >= ENTRY_BYTES_MAX {
            let docs = term.docs.finish().to_vec();
            term.docs.clear();
            term.entries.push((docs, std::mem::take(&mut term.positions)));
        }
    }

    /// Completes the current term. A term without documents is omitted.
    pub(crate) fn finish_term(&mut self) {
        let mut term = std::mem::take(&mut self.open_term);
        if term.total > 0 {
            // The first entry contains the total.
            let mut total = term.total;
            for (docs, positions) in term.entries.drain(..) {
                self.write_entry(&term.key, total, &docs, &positions);
                total = 0;
            }
            self.write_entry(&term.key, total, term.docs.finish(), &term.positions);
        }
        term.clear();
        self.open_term = term;
    }

    fn write_entry(&mut self, key: &[u8], total: u32, docs: &[u8], positions: &[u8]) {
        let more = key.len() + docs.len() + positions.len() + 20;
        if !self.block.is_empty() && self.block.len() + 2 * self.restarts.len() + more > BLOCK_BYTES_MAX {
            self.close_block();
        }
        if self.block.is_empty() {
            self.fences.push(shortest_separator(&self.last_key, key));
        }
        let shared = if self.block.is_empty() || self.entries == RESTART_ENTRIES {
            self.mark_restart();
            0
        } else {
            self.last_key.iter().zip(key).take_while(|(a, b)| a == b).count()
        };
        self.entries += 1;
        put_varint(&mut self.block, shared as u64);
        put_bytes(&mut self.block, &key[shared..]);
        put_varint(&mut self.block, u64::from(total));
        put_bytes(&mut self.block, docs);
        put_bytes(&mut self.block, positions);
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
    }

    /// Lets the next entry contain its complete key. An offset that does not fit 2 bytes, after a very large entry, is
    /// omitted from the table.
    fn mark_restart(&mut self) {
        self.restarts.extend(u16::try_from(self.block.len()));
        self.entries = 0;
    }

    fn close_block(&mut self) {
        if !self.block.is_empty() {
            let restarts = self.restarts.len() as u16;
            for number in self.restarts.drain(..).chain([restarts]) {
                self.block.extend_from_slice(&number.to_le_bytes());
            }
            self.entries = 0;
            self.bytes += self.block.len() as u64;
            self.full_blocks.push(std::mem::take(&mut self.block).into());
            self.block.reserve(BLOCK_BYTES_MAX);
        }
    }

    /// Closes the last block and returns a memory segment of `blocks` and the remaining full blocks.
    pub(crate) fn into_segment(mut self, mut blocks: Vec<Box<[u8]>>, base: u32, span: u32) -> IndexSegment {
        self.close_block();
        blocks.append(&mut self.full_blocks);
        IndexSegment {
            id: 0,
            base,
            span,
            blocks: SegmentBlocks::Memory(blocks),
            bytes: self.bytes,
            fences: self.fences,
        }
    }

    /// Closes the last block. Returns the remaining blocks and a disk segment.
    pub(crate) fn into_disk_segment(
        mut self,
        id: u64,
        base: u32,
        span: u32,
    ) -> (Vec<Box<[u8]>>, IndexSegment) {
        self.close_block();
        let count = self.fences.ends.len() as u32;
        let blocks = std::mem::take(&mut self.full_blocks);
        (
            blocks,
            IndexSegment {
                id,
                base,
                span,
                blocks: SegmentBlocks::Disk(count),
                bytes: self.bytes,
                fences: self.fences,
            },
        )
    }
}

/// Returns the shortest prefix of `first` that is above `last`.
fn shortest_separator<'a>(last: &[u8], first: &'a [u8]) -> &'a [u8] {
    let shared = last.iter().zip(first).take_while(|(a, b)| a == b).count();
    &first[..first.len().min(shared + 1)]
}
