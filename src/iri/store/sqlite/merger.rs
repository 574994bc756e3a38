//! Makes large segments out of small ones, beside the writer: the thread `store-merge`. It reads with a connection of
//! its own and hands blocks to the writer, so a long merge holds up no commit. It trains the dictionary too.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::{Receiver, Sender, bounded};
use roaring::RoaringBitmap;
use rusqlite::Connection;

use super::Shared;
use super::segment::{Blocks, ReadError, Segment, Writer, merge};
use super::snapshot::{neighbours, spanned};

/// Documents of the largest: two of those are not merged again.
const SPAN_MAX: u32 = 64 << 20;

/// Blocks that go to the writer at once.
const BLOCKS_MAX: usize = 256;

/// What the writer asks for.
#[derive(Debug)]
pub enum Wake {
    /// There are new segments on the disk.
    Merge,
    /// There are samples enough for a dictionary.
    Train,
}

/// What the writer is to write.
#[derive(Debug)]
pub enum Merged {
    /// Blocks of a segment that is being made.
    Blocks {
        /// The segment's number.
        segment: u64,
        /// The number of the first of these.
        first: u32,
        /// The blocks.
        blocks: Vec<Box<[u8]>>,
        /// Whether they were written.
        done: Sender<bool>,
    },
    /// All blocks of a segment are written: it takes the place of others.
    Switch {
        /// The others.
        old: Vec<u64>,
        /// The segment.
        new: Segment,
        /// Documents that were left out.
        gone: Arc<RoaringBitmap>,
        /// Whether it did.
        done: Sender<bool>,
    },
    /// A dictionary.
    Dictionary(Vec<u8>),
}

/// Why a merge was given up.
#[derive(Debug, thiserror::Error)]
enum Abandoned {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the writer could not write it, or is stopping")]
    Writer,
}

/// Runs until the writer is gone.
pub fn run(connection: Connection, shared: Arc<Shared>, wakes: Receiver<Wake>, merged: Sender<Merged>) {
    for wake in wakes {
        match wake {
            Wake::Train => {
                if let Some(dictionary) = shared.sources.train() {
                    let _ = merged.send(Merged::Dictionary(dictionary));
                }
            }
            Wake::Merge => {
                if let Err(error) = merge_last(&connection, &shared, &merged) {
                    log::info!("store_merge_given_up reason=\"{error}\"");
                }
            }
        }
    }
}

fn merge_last(connection: &Connection, shared: &Shared, merged: &Sender<Merged>) -> Result<(), Abandoned> {
    // The state of now: the last merge has been switched to, so nothing is merged twice.
    let snapshot = shared.snapshot();
    let disk = &snapshot.segments[..snapshot.young_from()];
    let count = neighbours(disk, shared.young_docs_max);
    let chosen = &disk[disk.len() - count..];
    let (base, span) = spanned(chosen);
    if count == 0 || span > SPAN_MAX {
        return Ok(());
    }
    let id = shared.next_segment.fetch_add(1, Ordering::Relaxed);
    let sources: Vec<_> = chosen.iter().map(Arc::as_ref).collect();
    let mut first = 0;
    let mut hand_over = |blocks: Vec<Box<[u8]>>| {
        let count = blocks.len() as u32;
        let (done, is_done) = bounded(1);
        let sent = merged.send(Merged::Blocks { segment: id, first, blocks, done });
        first += count;
        if sent.is_ok() && is_done.recv() == Ok(true) { Ok(()) } else { Err(Abandoned::Writer) }
    };
    let mut writer = Writer::default();
    merge::<Abandoned>(&sources, connection, &snapshot.gone, &mut writer, |writer| {
        if shared.stopping.load(Ordering::Relaxed) {
            return Err(Abandoned::Writer);
        }
        if writer.ready.len() < BLOCKS_MAX { Ok(()) } else { hand_over(std::mem::take(&mut writer.ready)) }
    })?;
    let (last, segment) = writer.into_disk(id, base, span);
    hand_over(last)?;
    debug_assert!(matches!(segment.blocks, Blocks::Disk(_)));
    let old = chosen.iter().map(|segment| segment.id).collect();
    let (done, is_done) = bounded(1);
    let sent = merged.send(Merged::Switch { old, new: segment, gone: Arc::clone(&snapshot.gone), done });
    if sent.is_ok() && is_done.recv() == Ok(true) { Ok(()) } else { Err(Abandoned::Writer) }
}
