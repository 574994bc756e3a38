//! Makes segments: [`Batch`] from documents as they come, [`Writer`] from terms in their order.

use hashbrown::HashMap;

use super::codec::{DocsWriter, put, put_bytes, put_positions};
use super::{BLOCK_BYTES_MAX, Blocks, Fences, Segment};

/// An entry's documents, and its positions, are cut here, so that some entries fit a block.
const ENTRY_BYTES_MAX: usize = 2_000;

/// After so many entries one has its whole key, so that a key is found by halving.
const RESTART_ENTRIES: usize = 16;

/// Terms of documents that come one after the other, in memory.
#[derive(Debug, Default)]
pub struct Batch {
    terms: HashMap<Vec<u8>, Term>,
}

#[derive(Debug, Default)]
struct Term {
    docs: DocsWriter,
    positions: Vec<u8>,
    total: u32,
    /// The document that is being added, plus one.
    last: u32,
    /// Its positions.
    current: Vec<u32>,
}

impl Term {
    fn close_document(&mut self) {
        if !self.current.is_empty() {
            put_positions(&mut self.positions, &self.current);
            self.current.clear();
        }
    }
}

impl Batch {
    /// Adds a term of document `doc`, counted from 0; documents must rise, and positions within one.
    pub fn add(&mut self, key: &[u8], doc: u32, position: Option<u32>) {
        // One look-up, and no allocation for a known term.
        let term = self.terms.entry_ref(key).or_default();
        if term.last != doc + 1 {
            term.close_document();
            term.last = doc + 1;
            term.total += 1;
            term.docs.add(doc);
        }
        term.current.extend(position);
    }

    /// The segment of `span` documents; its base is set when it is written.
    pub fn finish(self, span: u32) -> Segment {
        let mut terms: Vec<_> = self.terms.into_iter().collect();
        terms.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let mut writer = Writer::default();
        let mut blocks = Vec::new();
        for (key, mut term) in terms {
            term.close_document();
            writer.entry(&key, term.total, &term.docs.finish(), &term.positions);
            blocks.append(&mut writer.ready);
        }
        writer.into_segment(blocks, 0, span)
    }
}

/// Writes entries into blocks.
#[derive(Debug, Default)]
pub struct Writer {
    /// Blocks that are full.
    pub ready: Vec<Box<[u8]>>,
    block: Vec<u8>,
    /// Where in the block whole keys stand.
    restarts: Vec<u16>,
    /// Entries since the last of them.
    entries: usize,
    last_key: Vec<u8>,
    fences: Fences,
    bytes: u64,
    term: Open,
}

/// The term whose documents are being added.
#[derive(Debug, Default)]
struct Open {
    key: Vec<u8>,
    docs: DocsWriter,
    positions: Vec<u8>,
    /// Entries that are complete, kept until the total is known.
    entries: Vec<(Vec<u8>, Vec<u8>)>,
    total: u32,
}

impl Writer {
    /// Begins a term; keys must rise.
    pub fn begin(&mut self, key: &[u8]) {
        self.term.key.clear();
        self.term.key.extend_from_slice(key);
        self.term.total = 0;
    }

    /// Adds consecutive documents of the term that was begun.
    pub fn docs(&mut self, from: u32, docs: u32) {
        self.cut();
        self.term.total += docs;
        self.term.docs.add_run(from, docs);
    }

    /// Adds a document with its positions.
    pub fn doc_at(&mut self, doc: u32, positions: &[u32]) {
        self.docs(doc, 1);
        put_positions(&mut self.term.positions, positions);
    }

    fn cut(&mut self) {
        let term = &mut self.term;
        if term.docs.len() >= ENTRY_BYTES_MAX || term.positions.len() >= ENTRY_BYTES_MAX {
            term.entries.push((term.docs.finish(), std::mem::take(&mut term.positions)));
        }
    }

    /// Ends the term that was begun; one without documents is passed over.
    pub fn end(&mut self) {
        let last = (self.term.docs.finish(), std::mem::take(&mut self.term.positions));
        if self.term.total == 0 {
            return;
        }
        self.term.entries.push(last);
        let key = std::mem::take(&mut self.term.key);
        let mut total = self.term.total;
        for (docs, positions) in std::mem::take(&mut self.term.entries) {
            self.entry(&key, total, &docs, &positions);
            total = 0;
        }
        self.term.key = key;
    }

    fn entry(&mut self, key: &[u8], total: u32, docs: &[u8], positions: &[u8]) {
        let more = key.len() + docs.len() + positions.len() + 20;
        if !self.block.is_empty() && self.block.len() + 2 * self.restarts.len() + more > BLOCK_BYTES_MAX {
            self.close_block();
        }
        if self.block.is_empty() {
            self.fences.push(fence(&self.last_key, key));
        }
        let shared = if self.block.is_empty() || self.entries == RESTART_ENTRIES {
            self.restart();
            0
        } else {
            self.last_key.iter().zip(key).take_while(|(a, b)| a == b).count()
        };
        self.entries += 1;
        put(&mut self.block, shared as u64);
        put_bytes(&mut self.block, &key[shared..]);
        put(&mut self.block, u64::from(total));
        put_bytes(&mut self.block, docs);
        put_bytes(&mut self.block, positions);
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
    }

    /// The next entry has its whole key. A place that two bytes cannot say (behind an entry far larger than a block)
    /// is passed over when keys are looked for.
    fn restart(&mut self) {
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
            self.ready.push(std::mem::take(&mut self.block).into());
            self.block.reserve(BLOCK_BYTES_MAX);
        }
    }

    /// Ends the last block and gives the segment of those blocks, with the last ones appended.
    pub fn into_segment(mut self, mut blocks: Vec<Box<[u8]>>, base: u32, span: u32) -> Segment {
        self.close_block();
        blocks.append(&mut self.ready);
        Segment { id: 0, base, span, blocks: Blocks::Memory(blocks), bytes: self.bytes, fences: self.fences }
    }

    /// Ends the last block, for blocks that went to the disk one by one: the last blocks, and the segment.
    pub fn into_disk(mut self, id: u64, base: u32, span: u32) -> (Vec<Box<[u8]>>, Segment) {
        self.close_block();
        let count = self.fences.ends.len() as u32;
        let blocks = std::mem::take(&mut self.ready);
        (
            blocks,
            Segment { id, base, span, blocks: Blocks::Disk(count), bytes: self.bytes, fences: self.fences },
        )
    }
}

/// The shortest key above `last` and not above `first`.
fn fence<'a>(last: &[u8], first: &'a [u8]) -> &'a [u8] {
    let shared = last.iter().zip(first).take_while(|(a, b)| a == b).count();
    &first[..first.len().min(shared + 1)]
}
