//! The terms of one call, collected in batches of bounded size. Runs in the caller's thread.

use super::indexer::DocumentTerms;
use super::segment::{IndexSegment, SegmentError, TermBatch};
use super::snapshot;

/// Collects the terms of one call's documents in batches of bounded size.
#[derive(Default)]
pub(super) struct CallTerms {
    full_batches: Vec<IndexSegment>,
    batch: TermBatch,
    /// First document of the current batch.
    batch_start: u32,
    docs: u32,
}

impl CallTerms {
    pub(super) fn add(&mut self, terms: &DocumentTerms) {
        terms.add_to_batch(&mut self.batch, self.docs - self.batch_start);
        self.docs += 1;
        if self.batch.is_full() {
            self.close_batch();
        }
    }

    fn close_batch(&mut self) {
        let mut part = std::mem::take(&mut self.batch).finish(self.docs - self.batch_start);
        part.base = self.batch_start;
        self.batch_start = self.docs;
        self.full_batches.push(part);
    }

    /// Merges the batches into one segment.
    pub(super) fn finish(mut self) -> Result<IndexSegment, SegmentError> {
        if self.full_batches.is_empty() || self.batch_start < self.docs {
            self.close_batch();
        }
        match self.full_batches.len() {
            1 => Ok(self.full_batches.remove(0)),
            _ => snapshot::join_parts(self.full_batches),
        }
    }
}
