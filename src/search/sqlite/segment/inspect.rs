//! Reads every entry of a segment. For tests and the fuzz targets, which give it any bytes.

use super::codec::take_positions;
use super::{BlockReader, IndexSegment, ReverseCursor, SegmentCursor, SegmentError};

/// What a segment contains.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SegmentContent {
    /// Number of entries.
    pub entries: u64,
    /// Sum of the documents of all entries.
    pub postings: u64,
    /// Sum of the positions.
    pub positions: u64,
}

/// Reader of a segment whose blocks are in memory.
struct NoBlocks;

impl BlockReader for NoBlocks {
    fn read_block(&self, segment: u64, _: u32) -> Result<Vec<u8>, SegmentError> {
        Err(SegmentError::Damaged { segment })
    }
}

/// Reads the `data` of a row of `young_segments` with a span of `span` documents: forwards, backwards and by key. `None` if it is
/// damaged.
pub fn inspect_segment(span: u32, data: &[u8]) -> Option<SegmentContent> {
    let segment = IndexSegment::unpack(0, span, data).ok()?;
    let mut content = SegmentContent::default();
    let (mut keys, mut positions) = (Vec::new(), Vec::new());
    let mut cursor = SegmentCursor::seek(&segment, &NoBlocks, &[]).ok()?;
    while let Some(key) = cursor.key() {
        keys.push(key.to_vec());
        let mut docs = 0;
        cursor.each_run(|_, count| docs += u64::from(count)).ok()?;
        let (bytes, mut at) = (cursor.positions().to_vec(), 0);
        while at < bytes.len() {
            take_positions(&bytes, &mut at, &mut positions).ok()?;
            content.positions += positions.len() as u64;
        }
        content.entries += 1;
        content.postings += docs;
        cursor.step().ok()?;
    }
    for key in &keys {
        SegmentCursor::find(&segment, &NoBlocks, key).ok()?;
    }
    let mut cursor = ReverseCursor::seek(&segment, &NoBlocks, &[0xff; 64]).ok()?;
    while cursor.key().is_some() {
        cursor.each_run(|_, _| {}).ok()?;
        cursor.step().ok()?;
    }
    Some(content)
}
