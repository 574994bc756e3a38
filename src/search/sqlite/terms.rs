//! Enumeration of all terms of fields in order, forward or reverse, over all segments at once.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use roaring::RoaringBitmap;

use super::execute::SearchContext;
use super::plan::{prefix_end, term_key};
use super::segment::{ReverseCursor, SegmentCursor, SegmentError};
use crate::search::store::StoreError;

/// Entries between two checks of the deadline.
const ENTRIES_PER_DEADLINE_CHECK: usize = 1_024;

/// Length of a value that counts as another entry.
const VALUE_BYTES_PER_UNIT: usize = 128;

/// Current entry of an enumeration.
pub(super) struct TermEntry<'a> {
    pub value: &'a [u8],
    /// Documents with the value, deleted ones included. Set in the first entry of the term in a segment, otherwise 0.
    pub total: u32,
    cursor: &'a TermCursor<'a>,
}

impl TermEntry<'_> {
    /// Calls `run` with each run of consecutive documents.
    pub(super) fn each_run(&self, run: impl FnMut(u32, u32)) -> Result<(), SegmentError> {
        match self.cursor {
            TermCursor::Forward(cursor) => cursor.each_run(run),
            TermCursor::Reverse(cursor) => cursor.each_run(run),
        }
    }

    /// Counts the documents of the entry that are in `docs`.
    pub(super) fn count_in(&self, docs: &RoaringBitmap) -> Result<u64, SegmentError> {
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

    /// Adds the documents of the entry that are in `docs`.
    pub(super) fn add_to(&self, found: &mut RoaringBitmap, docs: &RoaringBitmap) -> Result<(), SegmentError> {
        self.each_run(|from, run| match run {
            1 if !docs.contains(from) => {}
            1 => drop(found.insert(from)),
            run => found.extend(docs.range(from..from + run)),
        })
    }
}

enum TermCursor<'a> {
    Forward(SegmentCursor<'a>),
    Reverse(ReverseCursor<'a>),
}

impl TermCursor<'_> {
    fn key(&self) -> Option<&[u8]> {
        match self {
            TermCursor::Forward(cursor) => cursor.key(),
            TermCursor::Reverse(cursor) => cursor.key(),
        }
    }

    fn total(&self) -> u32 {
        match self {
            TermCursor::Forward(cursor) => cursor.total(),
            TermCursor::Reverse(cursor) => cursor.total(),
        }
    }

    fn step(&mut self) -> Result<(), SegmentError> {
        match self {
            TermCursor::Forward(cursor) => cursor.step(),
            TermCursor::Reverse(cursor) => cursor.step(),
        }
    }
}

/// Position of an enumeration in one segment. The heap has the next entry on top.
struct TermSource<'a> {
    cursor: TermCursor<'a>,
    prefix: [u8; 4],
}

impl TermSource<'_> {
    fn value(&self) -> Option<&[u8]> {
        self.cursor.key().and_then(|key| key.strip_prefix(&self.prefix))
    }
}

impl Ord for TermSource<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        // A cursor at its end sorts first, so that it is removed.
        match (self.value(), other.value()) {
            (Some(a), Some(b)) if matches!(self.cursor, TermCursor::Reverse(_)) => a.cmp(b),
            (Some(a), Some(b)) => b.cmp(a),
            (a, b) => b.is_some().cmp(&a.is_some()),
        }
    }
}

impl PartialOrd for TermSource<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for TermSource<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for TermSource<'_> {}

/// Calls `visit` with each entry of these fields (index id, field id) in the order of values, until it returns false.
pub(super) fn each_term(
    context: &SearchContext<'_>,
    fields: &[(u16, u16)],
    is_backwards: bool,
    mut visit: impl FnMut(TermEntry<'_>) -> Result<bool, StoreError>,
) -> Result<(), StoreError> {
    let mut heads = BinaryHeap::new();
    for &(index, field) in fields {
        let from = term_key(index, field, &[]);
        let prefix = [from[0], from[1], from[2], from[3]];
        context.check_deadline()?;
        for segment in &context.snapshot.segments {
            let cursor = if is_backwards {
                TermCursor::Reverse(ReverseCursor::seek(
                    segment,
                    context.connection,
                    &prefix_end(from.clone()),
                )?)
            } else {
                TermCursor::Forward(SegmentCursor::seek(segment, context.connection, &from)?)
            };
            heads.push(TermSource { cursor, prefix });
        }
    }
    let mut work = 0;
    while let Some(mut head) = heads.peek_mut() {
        let Some(value) = head.value() else {
            PeekMut::pop(head);
            continue;
        };
        work += 1 + value.len() / VALUE_BYTES_PER_UNIT;
        if !visit(TermEntry { value, total: head.cursor.total(), cursor: &head.cursor })? {
            return Ok(());
        }
        head.cursor.step()?;
        if work >= ENTRIES_PER_DEADLINE_CHECK {
            context.check_deadline()?;
            work = 0;
        }
    }
    Ok(())
}
