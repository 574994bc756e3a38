//! Walks over all values of fields in their order, forwards or backwards, in all segments at once.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use roaring::RoaringBitmap;

use super::evaluate::Context;
use super::plan::{behind, key};
use super::segment::{Backwards, Cursor, ReadError};
use crate::iri::store::StoreError;

/// How often a walk looks at the clock.
const ENTRIES_BETWEEN_LOOKS: u32 = 1_024;

/// An entry that a walk has come to.
pub struct Entry<'a> {
    /// The value's bytes.
    pub value: &'a [u8],
    /// Documents that have it, on the first entry of a segment; those that count no more too.
    pub total: u32,
    side: &'a Side<'a>,
}

impl Entry<'_> {
    /// Calls `run` with each run of documents.
    pub fn each_run(&self, run: impl FnMut(u32, u32)) -> Result<(), ReadError> {
        match self.side {
            Side::Forwards(cursor) => cursor.each_run(run),
            Side::Backwards(cursor) => cursor.each_run(run),
        }
    }

    /// How many of these documents are among `docs`.
    pub fn count_in(&self, docs: &RoaringBitmap) -> Result<u64, ReadError> {
        let mut count = 0;
        self.each_run(|from, run| {
            count += if run == 1 {
                u64::from(docs.contains(from))
            } else {
                docs.range_cardinality(from..from + run)
            };
        })?;
        Ok(count)
    }

    /// Adds these documents, as far as they are among `docs`.
    pub fn add_to(&self, found: &mut RoaringBitmap, docs: &RoaringBitmap) -> Result<(), ReadError> {
        self.each_run(|from, run| match run {
            1 if !docs.contains(from) => {}
            1 => drop(found.insert(from)),
            run => found.extend(docs.range(from..from + run)),
        })
    }
}

enum Side<'a> {
    Forwards(Cursor<'a>),
    Backwards(Backwards<'a>),
}

impl Side<'_> {
    fn key(&self) -> Option<&[u8]> {
        match self {
            Side::Forwards(cursor) => cursor.key(),
            Side::Backwards(cursor) => cursor.key(),
        }
    }

    fn total(&self) -> u32 {
        match self {
            Side::Forwards(cursor) => cursor.total(),
            Side::Backwards(cursor) => cursor.total(),
        }
    }

    fn step(&mut self) -> Result<(), ReadError> {
        match self {
            Side::Forwards(cursor) => cursor.step(),
            Side::Backwards(cursor) => cursor.step(),
        }
    }
}

/// One segment's part of a walk; the heap has the next one on top.
struct Head<'a> {
    side: Side<'a>,
    prefix: [u8; 4],
}

impl Head<'_> {
    fn value(&self) -> Option<&[u8]> {
        self.side.key().and_then(|key| key.strip_prefix(&self.prefix))
    }
}

impl Ord for Head<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        // One that has ended comes first, so that it is taken away.
        match (self.value(), other.value()) {
            (Some(a), Some(b)) if matches!(self.side, Side::Backwards(_)) => a.cmp(b),
            (Some(a), Some(b)) => b.cmp(a),
            (a, b) => b.is_some().cmp(&a.is_some()),
        }
    }
}

impl PartialOrd for Head<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Head<'_> {}

/// Calls `visit` with each entry of these fields (index and field number), values in order, until it says false.
pub fn walk(
    context: &Context<'_>,
    fields: &[(u16, u16)],
    is_backwards: bool,
    mut visit: impl FnMut(Entry<'_>) -> Result<bool, StoreError>,
) -> Result<(), StoreError> {
    let mut heads = BinaryHeap::new();
    for &(index, field) in fields {
        let from = key(index, field, &[]);
        let prefix = [from[0], from[1], from[2], from[3]];
        for segment in &context.snapshot.segments {
            let side = if is_backwards {
                Side::Backwards(Backwards::seek(segment, context.connection, &behind(from.clone()))?)
            } else {
                Side::Forwards(Cursor::seek(segment, context.connection, &from)?)
            };
            heads.push(Head { side, prefix });
        }
    }
    let mut until_look = ENTRIES_BETWEEN_LOOKS;
    while let Some(mut head) = heads.peek_mut() {
        let Some(value) = head.value() else {
            PeekMut::pop(head);
            continue;
        };
        if !visit(Entry { value, total: head.side.total(), side: &head.side })? {
            return Ok(());
        }
        head.side.step()?;
        until_look -= 1;
        if until_look == 0 {
            context.look()?;
            until_look = ENTRIES_BETWEEN_LOOKS;
        }
    }
    Ok(())
}
