//! Makes segments: [`Batch`] from documents as they come, [`Writer`] from terms in their order.

use std::hash::BuildHasher as _;

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};

use super::codec::{DocsWriter, put, put_bytes, put_positions};
use super::{BLOCK_BYTES_MAX, Blocks, Fences, Segment};

/// An entry's documents, and its positions, are cut here, so that some entries fit a block.
const ENTRY_BYTES_MAX: usize = 2_000;

/// After so many entries one has its whole key, so that a key is found by halving.
const RESTART_ENTRIES: usize = 16;

/// Postings of a batch: 16 MiB, and as much again while they are sorted.
const POSTINGS_MAX: usize = 1 << 20;

/// Terms of documents that come one after the other, in memory.
#[derive(Debug, Default)]
pub struct Batch {
    /// The keys, each once, one behind the other.
    keys: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
    /// The keys' places in `ends`, by their hash.
    places: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// In the order in which they came.
    postings: Vec<Posting>,
}

/// A term stands in a document.
#[derive(Clone, Copy, Debug, Default)]
struct Posting {
    /// The key's place.
    place: u32,
    doc: u32,
    position: Option<u32>,
}

impl Batch {
    /// Adds a term of document `doc`, counted from 0; documents must rise, and positions within one.
    pub fn add(&mut self, key: &[u8], doc: u32, position: Option<u32>) {
        let Batch { keys, ends, places, hasher, .. } = self;
        let hash = hasher.hash_one(key);
        let is_same = |place: &u32| key_at(keys, ends, *place) == key;
        let hash_of = |place: &u32| hasher.hash_one(key_at(keys, ends, *place));
        let place = match places.entry(hash, is_same, hash_of) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                let place = ends.len() as u32;
                entry.insert(place);
                keys.extend_from_slice(key);
                ends.push(keys.len());
                place
            }
        };
        self.postings.push(Posting { place, doc, position });
    }

    /// True if it is time for another batch.
    pub fn is_full(&self) -> bool {
        self.postings.len() >= POSTINGS_MAX
    }

    /// The segment of `span` documents; its base is set when it is written.
    pub fn finish(self, span: u32) -> Segment {
        let mut writer = Writer::default();
        let mut blocks = Vec::new();
        let (begins, postings) = self.by_place();
        let mut open = Open::default();
        for place in self.in_order() {
            let of_term = &postings[begins[place as usize]..begins[place as usize + 1]];
            open.fill(of_term);
            writer.entry(self.key(place), open.total, open.docs.close(), &open.positions);
            open.clear();
            blocks.append(&mut writer.ready);
        }
        writer.into_segment(blocks, 0, span)
    }

    fn key(&self, place: u32) -> &[u8] {
        key_at(&self.keys, &self.ends, place)
    }

    /// The places in the order of their keys.
    fn in_order(&self) -> impl Iterator<Item = u32> {
        // Most keys differ in their first bytes, and a number is compared faster than a slice.
        let begin = |place: u32| {
            let (key, mut begin) = (self.key(place), [0; 16]);
            let length = key.len().min(begin.len());
            begin[..length].copy_from_slice(&key[..length]);
            (u128::from_be_bytes(begin), place)
        };
        let mut order: Vec<_> = (0..self.ends.len() as u32).map(begin).collect();
        order.sort_unstable_by(|(a, place), (b, other)| {
            a.cmp(b).then_with(|| self.key(*place).cmp(self.key(*other)))
        });
        order.into_iter().map(|(_, place)| place)
    }

    /// The postings of each place together, as they came, and where those of each place begin.
    fn by_place(&self) -> (Vec<usize>, Vec<Posting>) {
        let mut begins = vec![0; self.ends.len() + 1];
        for posting in &self.postings {
            begins[posting.place as usize + 1] += 1;
        }
        for place in 1..begins.len() {
            begins[place] += begins[place - 1];
        }
        let mut next = begins.clone();
        let mut sorted = vec![Posting::default(); self.postings.len()];
        for posting in &self.postings {
            let at = &mut next[posting.place as usize];
            sorted[*at] = *posting;
            *at += 1;
        }
        (begins, sorted)
    }
}

fn key_at<'a>(keys: &'a [u8], ends: &[usize], place: u32) -> &'a [u8] {
    let place = place as usize;
    let begin = if place == 0 { 0 } else { ends[place - 1] };
    &keys[begin..ends[place]]
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
    /// The positions in one document.
    at: Vec<u32>,
}

impl Open {
    /// Takes all postings of a term.
    fn fill(&mut self, postings: &[Posting]) {
        for of_doc in postings.chunk_by(|a, b| a.doc == b.doc) {
            self.total += 1;
            self.docs.add(of_doc[0].doc);
            if of_doc[0].position.is_some() {
                self.at.clear();
                self.at.extend(of_doc.iter().filter_map(|posting| posting.position));
                put_positions(&mut self.positions, &self.at);
            }
        }
    }

    /// Empties all but the key, and keeps the memory.
    fn clear(&mut self) {
        self.docs.clear();
        self.positions.clear();
        self.total = 0;
    }
}

impl Writer {
    /// Begins a term; keys must rise.
    pub fn begin(&mut self, key: &[u8]) {
        self.term.key.clear();
        self.term.key.extend_from_slice(key);
    }

    /// Adds consecutive documents of the term that was begun.
    pub fn docs(&mut self, from: u32, docs: u32) {
        self.cut();
        self.run(from, docs);
    }

    /// Adds a document with its positions.
    pub fn doc_at(&mut self, doc: u32, positions: &[u32]) {
        self.docs(doc, 1);
        put_positions(&mut self.term.positions, positions);
    }

    /// Adds what `runs` calls its argument with, and the positions of those documents as another entry has them.
    pub fn copy<E>(
        &mut self,
        runs: impl FnOnce(&mut dyn FnMut(u32, u32)) -> Result<(), E>,
        positions: &[u8],
    ) -> Result<(), E> {
        self.cut();
        runs(&mut |from, docs| self.run(from, docs))?;
        self.term.positions.extend_from_slice(positions);
        Ok(())
    }

    fn run(&mut self, from: u32, docs: u32) {
        self.term.total += docs;
        self.term.docs.add_run(from, docs);
    }

    fn cut(&mut self) {
        let term = &mut self.term;
        if term.docs.len() >= ENTRY_BYTES_MAX || term.positions.len() >= ENTRY_BYTES_MAX {
            let docs = term.docs.close().to_vec();
            term.docs.clear();
            term.entries.push((docs, std::mem::take(&mut term.positions)));
        }
    }

    /// Ends the term that was begun; one without documents is passed over.
    pub fn end(&mut self) {
        let mut term = std::mem::take(&mut self.term);
        if term.total > 0 {
            // The total stands in the first entry.
            let mut total = term.total;
            for (docs, positions) in term.entries.drain(..) {
                self.entry(&term.key, total, &docs, &positions);
                total = 0;
            }
            self.entry(&term.key, total, term.docs.close(), &term.positions);
        }
        term.clear();
        self.term = term;
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
