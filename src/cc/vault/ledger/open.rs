//! An open stream of the ledger: its writer and the records that its file consists of.

use std::io;

use super::partition::LedgerPartition;
use crate::capture::formats::{HEADER_BYTES_MAX, is_same_capture, starts_capture};
use crate::cc::vault::checkpoint::{FileCheckpoint, PartitionCheckpoint};
use crate::cc::vault::manifest::{EndReason, RecordSegment};
use crate::cc::vault::pool::Buffer;
use crate::cc::vault::segments::{RecordPlacement, SegmentList};
use crate::cc::vault::stream_writer::StreamWriter;
use crate::cc::vault::write_coalescer::WriteCoalescer;

pub(super) struct OpenStream {
    pub writer: StreamWriter,
    /// Bytes that were not flushed to the writer yet.
    pub coalescer: WriteCoalescer,
    /// Number of bytes of the stream, including coalesced ones.
    pub received_bytes: u64,
    /// First bytes of the stream, at most [`HEADER_BYTES_MAX`].
    pub head: Vec<u8>,
    /// Records that the file consists of.
    pub segments: SegmentList,
    /// Whether a record was added since the last checkpoint.
    pub is_changed: bool,
    /// Number of checkpoints started before the last record. `None` before the first record.
    last_checkpoint: Option<u64>,
}

/// Properties of an accepted record.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordInfo {
    offset: i64,
    /// Number of checkpoints started before it.
    checkpoint: u64,
    bytes: u64,
    starts_capture: bool,
}

impl RecordInfo {
    pub(super) fn new(offset: i64, round: u64, data: &[u8]) -> RecordInfo {
        RecordInfo {
            offset,
            checkpoint: round,
            bytes: data.len() as u64,
            starts_capture: starts_capture(data) == Some(true),
        }
    }
}

impl OpenStream {
    pub(super) fn new(intake: StreamWriter, head: Vec<u8>, segments: Vec<RecordSegment>) -> OpenStream {
        OpenStream {
            received_bytes: intake.received_bytes(),
            coalescer: WriteCoalescer::default(),
            writer: intake,
            head,
            segments: SegmentList::new(segments),
            is_changed: false,
            last_checkpoint: None,
        }
    }

    /// Flushes coalesced bytes. Returns whether there were any.
    pub(super) fn flush_coalesced(&mut self) -> io::Result<bool> {
        match self.coalescer.take() {
            None => Ok(false),
            Some((buffer, bytes)) => self.feed(buffer, bytes).map(|()| true),
        }
    }

    pub(super) fn feed(&mut self, data: Buffer, bytes: usize) -> io::Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let was_comparing = self.writer.compared_bytes().is_some();
        self.writer.feed(data, bytes)?;
        if was_comparing && self.writer.compared_bytes().is_none() {
            // From here on the segments of the stored file apply.
            self.segments.continue_stored(self.writer.segments());
        }
        Ok(())
    }

    /// Adds a record that contains the next bytes of the stream.
    pub(super) fn add_record(&mut self, known: &PartitionCheckpoint, came: RecordInfo) {
        let RecordInfo { offset, checkpoint: round, bytes, starts_capture } = came;
        let at = self.received_bytes;
        let begins_capture = at > 0 && starts_capture;
        let same_round = self.last_checkpoint.replace(round) == Some(round);
        self.warn_if_unordered(known);
        self.segments.add_record(
            known,
            RecordPlacement { offset, at, bytes, no_checkpoint_since: same_round, begins_capture },
        );
        self.received_bytes += bytes;
        self.is_changed = true;
    }

    /// Warns once when records of a second partition arrive, because Kafka does not order them.
    fn warn_if_unordered(&self, other: &PartitionCheckpoint) {
        let Some(first) = self.segments.list.first() else { return };
        let is_one = |topic: &str, partition| first.topic == topic && first.partition == partition;
        if !is_one(&other.topic, other.partition)
            && self.segments.list.iter().all(|segment| is_one(&segment.topic, segment.partition))
        {
            log::warn!(
                "order_uncertain file={} partitions={},{} note=\"use the stream name as the record key to keep the order\"",
                self.writer.file().unwrap_or("-"),
                first.partition,
                other.partition,
            );
        }
    }

    /// Returns the checkpoint of the file after all queued jobs.
    pub(super) fn checkpoint(&self) -> Option<FileCheckpoint> {
        self.writer.checkpoint(self.segments.list.clone())
    }

    pub(super) fn finish(self, reason: EndReason, partitions: &[LedgerPartition]) {
        let OpenStream { writer: mut intake, mut segments, .. } = self;
        let last = segments.list.last().map(|last| (last.topic.clone(), last.partition));
        let of = last.and_then(|(topic, partition)| {
            partitions.iter().find(|known| known.state.partition == partition && known.state.topic == topic)
        });
        if let Some(of) = of {
            segments.join_committed(&of.state);
        }
        intake.set_segments(segments);
        intake.finish(reason);
    }
}

/// Returns whether `data` starts the stream again from its first byte. `received` is the number of bytes so
/// far.
pub(super) fn is_resend(head: &[u8], received: u64, data: &[u8]) -> bool {
    received >= head.len() as u64 && is_same_capture(head, data)
}

/// Appends the start of `data` to an incomplete `head`.
pub(super) fn extend_head(head: &mut Vec<u8>, received: u64, data: &[u8]) {
    if head.len() < HEADER_BYTES_MAX && received == head.len() as u64 {
        head.extend_from_slice(&data[..data.len().min(HEADER_BYTES_MAX - head.len())]);
    }
}
