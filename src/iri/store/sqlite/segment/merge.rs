//! Makes one segment out of neighbours, and leaves out documents that are gone.

use roaring::RoaringBitmap;

use super::codec::take_positions;
use super::{Cursor, ReadBlock, ReadError, Segment, Writer};

/// Writes the terms of `segments`, which span neighbouring documents and stand in their order, without the documents in
/// `gone`. `ready` takes the writer's full blocks now and then.
pub fn merge<E: From<ReadError>>(
    segments: &[&Segment],
    reader: &dyn ReadBlock,
    gone: &RoaringBitmap,
    writer: &mut Writer,
    mut ready: impl FnMut(&mut Writer) -> Result<(), E>,
) -> Result<(), E> {
    let base = segments.first().map_or(0, |first| first.base);
    let mut sources = Vec::with_capacity(segments.len());
    for segment in segments {
        let cursor = Cursor::seek(segment, reader, &[])?;
        // Most merges meet no document that is gone; then runs are copied as they are.
        let gone = (gone.range_cardinality(segment.docs()) > 0).then_some(gone);
        sources.push((cursor, gone));
    }
    let mut queue = Queue::default();
    (0..sources.len()).for_each(|nth| queue.put(nth, &sources));
    let (mut key, mut positions) = (Vec::new(), Vec::new());
    while let Some(first) = queue.0.last() {
        key.clear();
        key.extend_from_slice(sources[*first].0.key().unwrap_or_default());
        writer.begin(&key);
        while let Some(nth) = queue.0.pop_if(|nth| sources[*nth].0.key() == Some(&key)) {
            let (cursor, gone) = &mut sources[nth];
            match gone {
                None => writer
                    .copy(|run| cursor.each_run(|from, docs| run(from - base, docs)), cursor.positions())?,
                Some(gone) => copy_without(cursor, gone, base, writer, &mut positions)?,
            }
            cursor.step()?;
            queue.put(nth, &sources);
        }
        writer.end();
        ready(writer)?;
    }
    Ok(())
}

/// The sources that have something left, the one with the least key last, and of one key the one before the others.
#[derive(Default)]
struct Queue(Vec<usize>);

impl Queue {
    /// Puts a source where it belongs.
    fn put(&mut self, nth: usize, sources: &[(Cursor<'_>, Option<&RoaringBitmap>)]) {
        let Some(key) = sources[nth].0.key() else { return };
        let is_behind = |other: &usize| (sources[*other].0.key(), *other) > (Some(key), nth);
        let at = self.0.partition_point(is_behind);
        self.0.insert(at, nth);
    }
}

/// Copies one entry's documents but for those in `gone`.
fn copy_without(
    cursor: &Cursor,
    gone: &RoaringBitmap,
    base: u32,
    writer: &mut Writer,
    positions: &mut Vec<u32>,
) -> Result<(), ReadError> {
    let bytes = cursor.positions();
    let (mut at, mut read) = (0, Ok(()));
    cursor.each_run(|from, docs| {
        for doc in from..from + docs {
            let is_there = !gone.contains(doc);
            if bytes.is_empty() {
                is_there.then(|| writer.docs(doc - base, 1));
                continue;
            }
            read = read.and_then(|()| take_positions(bytes, &mut at, positions));
            if read.is_ok() && is_there {
                writer.doc_at(doc - base, positions);
            }
        }
    })?;
    read.map_err(|damaged| cursor.damaged(damaged))
}
