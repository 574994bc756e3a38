//! Merge of neighbouring segments, without deleted documents.

use roaring::RoaringBitmap;

use super::codec::take_positions;
use super::{BlockReader, IndexSegment, SegmentCursor, SegmentError, SegmentWriter};

/// Writes the terms of neighbouring segments, in the order of their documents, without the documents in `gone`.
/// `ready` is called after each term and may take the full blocks of the writer.
pub(crate) fn merge_segments<E: From<SegmentError>>(
    segments: &[&IndexSegment],
    reader: &dyn BlockReader,
    deleted_docs: &RoaringBitmap,
    writer: &mut SegmentWriter,
    mut ready: impl FnMut(&mut SegmentWriter) -> Result<(), E>,
) -> Result<(), E> {
    let base = segments.first().map_or(0, |first| first.base);
    let mut sources = Vec::with_capacity(segments.len());
    for segment in segments {
        let cursor = SegmentCursor::seek(segment, reader, &[])?;
        // Most merges contain no deleted document. Then runs are copied unchanged.
        let deleted_docs = (deleted_docs.range_cardinality(segment.doc_range()) > 0).then_some(deleted_docs);
        sources.push((cursor, deleted_docs));
    }
    let mut queue = MergeQueue::default();
    (0..sources.len()).for_each(|nth| queue.insert(nth, &sources));
    let (mut key, mut positions) = (Vec::new(), Vec::new());
    while let Some(first) = queue.0.last() {
        key.clear();
        key.extend_from_slice(sources[*first].0.key().unwrap_or_default());
        writer.begin_term(&key);
        while let Some(nth) = queue.0.pop_if(|nth| sources[*nth].0.key() == Some(&key)) {
            let (cursor, deleted_docs) = &mut sources[nth];
            match deleted_docs {
                None => writer.copy_entry(
                    |run| cursor.each_run(|from, docs| run(from - base, docs)),
                    cursor.positions(),
                )?,
                Some(deleted_docs) => {
                    copy_without_deleted(cursor, deleted_docs, base, writer, &mut positions)?
                }
            }
            cursor.step()?;
            queue.insert(nth, &sources);
        }
        writer.finish_term();
        ready(writer)?;
    }
    Ok(())
}

/// Sources with entries left, the smallest key last. Among equal keys the earlier source comes last.
#[derive(Default)]
struct MergeQueue(Vec<usize>);

impl MergeQueue {
    /// Inserts a source at its place.
    fn insert(&mut self, nth: usize, sources: &[(SegmentCursor<'_>, Option<&RoaringBitmap>)]) {
        let Some(key) = sources[nth].0.key() else { return };
        let is_behind = |other: &usize| (sources[*other].0.key(), *other) > (Some(key), nth);
        let at = self.0.partition_point(is_behind);
        self.0.insert(at, nth);
    }
}

/// Copies the documents of one entry that are not in `gone`.
fn copy_without_deleted(
    cursor: &SegmentCursor,
    deleted_docs: &RoaringBitmap,
    base: u32,
    writer: &mut SegmentWriter,
    positions: &mut Vec<u32>,
) -> Result<(), SegmentError> {
    let bytes = cursor.positions();
    let (mut at, mut read) = (0, Ok(()));
    cursor.each_run(|from, docs| {
        for doc in from..from + docs {
            let is_kept = !deleted_docs.contains(doc);
            if bytes.is_empty() {
                is_kept.then(|| writer.add_docs(doc - base, 1));
                continue;
            }
            read = read.and_then(|()| take_positions(bytes, &mut at, positions));
            if read.is_ok() && is_kept {
                writer.add_doc_with_positions(doc - base, positions);
            }
        }
    })?;
    read.map_err(|damaged| cursor.damaged(damaged))
}
