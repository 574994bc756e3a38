//! The records that an open stream's file consists of: what the ledger keeps for each stream in its table.

use std::time::Instant;

use super::gaps::gaps;
use super::partition::LedgerPartition;
use crate::capture::formats::is_same_capture;
use crate::cc::vault::checkpoint::PartitionCheckpoint;
use crate::cc::vault::manifest::{EndReason, RecordSegment};
use crate::cc::vault::segments::{RecordPlacement, SegmentList};
use crate::cc::vault::stream_table::{AppendedChunk, OpenStream, StreamInfo};
use crate::cc::vault::stream_writer::StreamWriter;

/// An open stream of the ledger.
pub(super) type RecordStream = OpenStream<RecordTrail>;

pub(super) struct RecordTrail {
    /// Records that the file consists of.
    pub segments: SegmentList,
    /// Whether a record was added since the last checkpoint.
    pub is_changed: bool,
    /// Number of checkpoints started before the last record. `None` before the first record.
    last_checkpoint: Option<u64>,
    last_record_at: Instant,
}

/// Where an accepted record comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordInfo {
    pub offset: i64,
    /// Number of checkpoints started before it.
    pub checkpoint: u64,
    /// Time of the poll that returned it.
    pub at: Instant,
}

impl RecordTrail {
    pub(super) fn new(segments: Vec<RecordSegment>) -> RecordTrail {
        RecordTrail {
            segments: SegmentList::new(segments),
            is_changed: false,
            last_checkpoint: None,
            last_record_at: Instant::now(),
        }
    }

    /// Returns when the last record was added.
    pub(super) fn last_record_at(&self) -> Instant {
        self.last_record_at
    }

    /// Counts the stream as used at `now`.
    pub(super) fn postpone_idle(&mut self, now: Instant) {
        self.last_record_at = now;
    }

    /// Adds a record that contains the next bytes of the stream.
    pub(super) fn add_record(
        &mut self,
        writer: &StreamWriter,
        known: &PartitionCheckpoint,
        record: RecordInfo,
        chunk: AppendedChunk,
    ) {
        let RecordInfo { offset, checkpoint, .. } = record;
        let AppendedChunk { at, bytes, starts_capture } = chunk;
        let begins_capture = at > 0 && starts_capture;
        let no_checkpoint_since = self.last_checkpoint.replace(checkpoint) == Some(checkpoint);
        self.warn_if_unordered(writer, known);
        self.segments
            .add_record(known, RecordPlacement { offset, at, bytes, no_checkpoint_since, begins_capture });
        self.is_changed = true;
        self.last_record_at = record.at;
    }

    /// Warns once when records of a second partition arrive, because Kafka does not order them.
    fn warn_if_unordered(&self, writer: &StreamWriter, other: &PartitionCheckpoint) {
        let Some(first) = self.segments.list.first() else { return };
        let is_one = |topic: &str, partition| first.topic == topic && first.partition == partition;
        if !is_one(&other.topic, other.partition)
            && self.segments.list.iter().all(|segment| is_one(&segment.topic, segment.partition))
        {
            log::warn!(
                "order_uncertain file={} partitions={},{} note=\"use the stream name as the record key to keep the order\"",
                writer.file().unwrap_or("-"),
                first.partition,
                other.partition,
            );
        }
    }
}

impl StreamInfo for RecordTrail {
    /// From here on the segments of the stored file apply.
    fn comparison_ended(&mut self, writer: &StreamWriter) {
        self.segments.continue_stored(writer.segments());
    }

    fn is_resend(&self, head: &[u8], received_bytes: u64, content: &[u8]) -> bool {
        received_bytes >= head.len() as u64 && is_same_capture(head, content)
    }
}

/// Ends a stream.
pub(super) fn finish(stream: RecordStream, reason: EndReason, partitions: &[LedgerPartition]) {
    let OpenStream { mut writer, info: RecordTrail { mut segments, .. }, .. } = stream;
    let gaps = gaps(&segments.list, segments.omitted, partitions);
    let last = segments.list.last().map(|last| (last.topic.clone(), last.partition));
    let partition = last.and_then(|(topic, partition)| {
        partitions.iter().find(|known| known.state.partition == partition && known.state.topic == topic)
    });
    if let Some(partition) = partition {
        segments.join_committed(&partition.state);
    }
    writer.set_segments(segments);
    writer.set_gaps(gaps);
    writer.finish(reason);
}
