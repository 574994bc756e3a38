//! The state that a reader sees: segments, and the deleted documents among theirs. A snapshot never changes. Each
//! commit replaces it with a new one.

use std::sync::Arc;

use roaring::RoaringBitmap;

use super::segment::{IndexSegment, SegmentBlocks, SegmentError, SegmentWriter, merge_segments};

/// Number of neighbouring segments of similar size that are merged into one.
const MERGE_FACTOR: usize = 8;

/// Documents of a memory segment that is not merged again until it is written to disk. Looking into a few dozen of them
/// costs a query little, and merging them twice would cost the writer much.
const SETTLED_DOCS: u32 = 512;

/// The state after a commit.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    /// Sorted by document number: disk segments, then memory segments.
    pub segments: Vec<Arc<IndexSegment>>,
    /// Documents that were replaced or rejected.
    pub deleted_docs: Arc<RoaringBitmap>,
    /// Reference count of the readers of this and equal states. The writer deletes retired rows when it drops to zero.
    pub generation: Arc<()>,
}

impl Snapshot {
    /// Returns the position of the first memory segment.
    pub(super) fn first_young(&self) -> usize {
        self.segments.partition_point(|segment| matches!(segment.blocks, SegmentBlocks::Disk(_)))
    }
}

/// Returns whether a document counts: it is in a segment, and not deleted.
pub(super) fn counts(segments: &[Arc<IndexSegment>], deleted_docs: &RoaringBitmap, doc: u32) -> bool {
    !deleted_docs.contains(doc) && is_in_segment(segments, doc)
}

/// Returns whether a segment contains a document, deleted or not.
pub(super) fn is_in_segment(segments: &[Arc<IndexSegment>], doc: u32) -> bool {
    let at = segments.partition_point(|segment| segment.base <= doc);
    at > 0 && segments[at - 1].doc_range().contains(&doc)
}

/// Returns how many of the last segments are to be merged: none, or at least [`MERGE_FACTOR`] of similar size.
/// `unit` is the number of documents of the smallest size.
pub(super) fn mergeable_count(segments: &[Arc<IndexSegment>], unit: u32) -> usize {
    let tier = |segment: &IndexSegment| (segment.span / unit).max(1).ilog(MERGE_FACTOR as u32);
    let Some(last) = segments.last().map(|last| tier(last)) else { return 0 };
    let alike = segments.iter().rev().take_while(|segment| tier(segment) <= last).count();
    if alike >= MERGE_FACTOR { alike } else { 0 }
}

/// Merges many young segments into a few, in memory.
pub(super) fn compact_young(
    young: &mut Vec<Arc<IndexSegment>>,
    deleted_docs: &RoaringBitmap,
) -> Result<(), SegmentError> {
    loop {
        let settled =
            young.iter().rposition(|segment| segment.span >= SETTLED_DOCS).map_or(0, |last| last + 1);
        let count = mergeable_count(&young[settled..], 1);
        if count == 0 {
            return Ok(());
        }
        let from = young.len() - count;
        let merged = merge_in_memory(&young[from..], deleted_docs)?;
        young.truncate(from);
        young.push(Arc::new(merged));
    }
}

fn merge_in_memory(
    segments: &[Arc<IndexSegment>],
    deleted_docs: &RoaringBitmap,
) -> Result<IndexSegment, SegmentError> {
    let (base, span) = doc_span(segments);
    let sources: Vec<_> = segments.iter().map(Arc::as_ref).collect();
    let mut writer = SegmentWriter::default();
    merge_segments::<SegmentError>(&sources, &NoBlocks, deleted_docs, &mut writer, |_| Ok(()))?;
    Ok(writer.into_segment(Vec::new(), base, span))
}

/// Merges neighbouring segments without deleted documents.
pub(super) fn join_parts(parts: Vec<IndexSegment>) -> Result<IndexSegment, SegmentError> {
    merge_in_memory(&parts.into_iter().map(Arc::new).collect::<Vec<_>>(), &RoaringBitmap::new())
}

/// Returns the first document of neighbouring segments and the number of documents that they span.
pub(super) fn doc_span(segments: &[Arc<IndexSegment>]) -> (u32, u32) {
    let base = segments.first().map_or(0, |first| first.base);
    let end = segments.last().map_or(0, |last| last.base + last.span);
    (base, end - base)
}

/// Block reader for memory segments, which never need one.
#[derive(Debug)]
pub(super) struct NoBlocks;

impl super::segment::BlockReader for NoBlocks {
    fn read_block(&self, segment: u64, _: u32) -> Result<Vec<u8>, SegmentError> {
        Err(SegmentError::Damaged { segment })
    }
}
