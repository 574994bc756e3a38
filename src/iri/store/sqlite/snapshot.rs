//! What a reader sees: segments and the documents among theirs that count no more. It never changes; each commit puts a
//! new one in its place.

use std::sync::Arc;

use roaring::RoaringBitmap;

use super::segment::{Blocks, ReadError, Segment, Writer, merge};

/// So many neighbours of a size become one.
const NEIGHBOURS: usize = 8;

/// Documents of a segment that waits in memory as it is until it comes to the disk: to look into some dozens of them costs
/// a question little, and to merge them twice costs a writer much.
const SETTLED_DOCS: u32 = 512;

/// The state after a commit.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// In the order of their documents: those on the disk, then those in memory.
    pub segments: Vec<Arc<Segment>>,
    /// Documents that were replaced or refused.
    pub gone: Arc<RoaringBitmap>,
    /// Lets the writer know when nobody reads what it wants to delete.
    pub era: Arc<()>,
}

impl Snapshot {
    /// Where the segments in memory begin.
    pub fn young_from(&self) -> usize {
        self.segments.partition_point(|segment| matches!(segment.blocks, Blocks::Disk(_)))
    }
}

/// How many of the last segments are to become one: none, or [`NEIGHBOURS`] and more of one size. `unit`: documents of
/// the smallest size.
pub fn neighbours(segments: &[Arc<Segment>], unit: u32) -> usize {
    let tier = |segment: &Segment| (segment.span / unit).max(1).ilog(NEIGHBOURS as u32);
    let Some(last) = segments.last().map(|last| tier(last)) else { return 0 };
    let alike = segments.iter().rev().take_while(|segment| tier(segment) <= last).count();
    if alike >= NEIGHBOURS { alike } else { 0 }
}

/// Makes few segments out of many young ones, in memory.
pub fn compact(young: &mut Vec<Arc<Segment>>, gone: &RoaringBitmap) -> Result<(), ReadError> {
    loop {
        let settled =
            young.iter().rposition(|segment| segment.span >= SETTLED_DOCS).map_or(0, |last| last + 1);
        let count = neighbours(&young[settled..], 1);
        if count == 0 {
            return Ok(());
        }
        let from = young.len() - count;
        let merged = merge_in_memory(&young[from..], gone)?;
        young.truncate(from);
        young.push(Arc::new(merged));
    }
}

fn merge_in_memory(segments: &[Arc<Segment>], gone: &RoaringBitmap) -> Result<Segment, ReadError> {
    let (base, span) = spanned(segments);
    let sources: Vec<_> = segments.iter().map(Arc::as_ref).collect();
    let mut writer = Writer::default();
    merge::<ReadError>(&sources, &Nowhere, gone, &mut writer, |_| Ok(()))?;
    Ok(writer.into_segment(Vec::new(), base, span))
}

/// One segment of neighbours, none of whose documents is gone.
pub fn joined(parts: Vec<Segment>) -> Result<Segment, ReadError> {
    merge_in_memory(&parts.into_iter().map(Arc::new).collect::<Vec<_>>(), &RoaringBitmap::new())
}

/// The first document of neighbours, and how many they span.
pub fn spanned(segments: &[Arc<Segment>]) -> (u32, u32) {
    let base = segments.first().map_or(0, |first| first.base);
    let end = segments.last().map_or(0, |last| last.base + last.span);
    (base, end - base)
}

/// Reads no block: segments in memory need none.
#[derive(Debug)]
pub struct Nowhere;

impl super::segment::ReadBlock for Nowhere {
    fn block(&self, segment: u64, _: u32) -> Result<Vec<u8>, ReadError> {
        Err(ReadError::Damaged { segment })
    }
}
