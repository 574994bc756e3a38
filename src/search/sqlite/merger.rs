//! Merger of disk segments: the thread `store-merge`. It reads with its own connection and sends blocks to the
//! writer, so a long merge delays no commit. It also trains the dictionary.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::{Receiver, Sender, bounded};
use roaring::RoaringBitmap;
use rusqlite::Connection;

use super::segment::{IndexSegment, SegmentBlocks, SegmentError, SegmentWriter, merge_segments};
use super::snapshot::{doc_span, mergeable_count};
use super::state::StoreState;
use super::storage::damage;

/// Largest span of a merged segment, in documents.
const MERGED_SPAN_MAX: u32 = 64 << 20;

/// Blocks sent to the writer in one message.
const BLOCKS_PER_MESSAGE: usize = 256;

/// Request of the writer.
#[derive(Debug)]
pub(super) enum MergerRequest {
    /// There are new disk segments.
    Merge,
    /// There are enough samples for a dictionary.
    Train,
}

/// Data that the writer is to write.
#[derive(Debug)]
pub(super) enum MergerOutput {
    /// Blocks of an unfinished segment.
    Blocks {
        /// Number of the segment.
        segment: u64,
        /// Number of the first block.
        first: u32,
        blocks: Vec<Box<[u8]>>,
        /// Receives true if the blocks were written.
        done: Sender<bool>,
    },
    /// A complete segment that replaces others.
    Replace {
        /// Numbers of the replaced segments.
        old: Vec<u64>,
        new: IndexSegment,
        /// Deleted documents that the merge omitted.
        deleted: Arc<RoaringBitmap>,
        /// Receives true if the segments were replaced.
        done: Sender<bool>,
    },
    /// A new dictionary.
    Dictionary(Vec<u8>),
}

/// Reason why a merge was abandoned.
#[derive(Debug, thiserror::Error)]
enum MergeError {
    #[error(transparent)]
    Read(#[from] SegmentError),
    #[error("the writer failed or is stopping")]
    Writer,
}

/// Runs until the writer ends.
pub(super) fn run(
    connection: Connection,
    state: Arc<StoreState>,
    wakes: Receiver<MergerRequest>,
    merged: Sender<MergerOutput>,
) {
    for wake in wakes {
        match wake {
            MergerRequest::Train => {
                if let Some(dictionary) = state.source_codec.train_dictionary() {
                    let _ = merged.send(MergerOutput::Dictionary(dictionary));
                }
            }
            MergerRequest::Merge => {
                if let Err(error) = merge_newest(&connection, &state, &merged) {
                    if let Some(found) = damage::take() {
                        state.report_damage(&found);
                    }
                    log::info!("store_merge_abandoned reason=\"{error}\"");
                }
            }
        }
    }
}

fn merge_newest(
    connection: &Connection,
    state: &StoreState,
    merged: &Sender<MergerOutput>,
) -> Result<(), MergeError> {
    // The snapshot includes the result of the last merge, so no segment is merged twice.
    let snapshot = state.snapshot();
    let disk = &snapshot.segments[..snapshot.first_young()];
    let count = mergeable_count(disk, state.young_docs_max);
    let mut chosen = &disk[disk.len() - count..];
    if count == 0 || doc_span(chosen).1 > MERGED_SPAN_MAX {
        let is_sparse = |segment: &Arc<IndexSegment>| {
            2 * snapshot.deleted_docs.range_cardinality(segment.doc_range()) > u64::from(segment.span)
        };
        let Some(sparse) = disk.iter().position(is_sparse) else { return Ok(()) };
        chosen = &disk[sparse..=sparse];
    }
    let (base, span) = doc_span(chosen);
    let id = state.next_segment.fetch_add(1, Ordering::Relaxed);
    let sources: Vec<_> = chosen.iter().map(Arc::as_ref).collect();
    let mut first = 0;
    let mut hand_over = |blocks: Vec<Box<[u8]>>| {
        let count = blocks.len() as u32;
        let (done, is_done) = bounded(1);
        let sent = merged.send(MergerOutput::Blocks { segment: id, first, blocks, done });
        first += count;
        if sent.is_ok() && is_done.recv() == Ok(true) { Ok(()) } else { Err(MergeError::Writer) }
    };
    let mut writer = SegmentWriter::default();
    merge_segments::<MergeError>(&sources, connection, &snapshot.deleted_docs, &mut writer, |writer| {
        if state.is_stopping.load(Ordering::Relaxed) {
            return Err(MergeError::Writer);
        }
        if writer.full_blocks.len() < BLOCKS_PER_MESSAGE {
            Ok(())
        } else {
            hand_over(std::mem::take(&mut writer.full_blocks))
        }
    })?;
    let (last, segment) = writer.into_disk_segment(id, base, span);
    hand_over(last)?;
    debug_assert!(matches!(segment.blocks, SegmentBlocks::Disk(_)));
    let old = chosen.iter().map(|segment| segment.id).collect();
    let (done, is_done) = bounded(1);
    let sent = merged.send(MergerOutput::Replace {
        old,
        new: segment,
        deleted: Arc::clone(&snapshot.deleted_docs),
        done,
    });
    if sent.is_ok() && is_done.recv() == Ok(true) { Ok(()) } else { Err(MergeError::Writer) }
}
