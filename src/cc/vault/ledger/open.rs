//! A stream that is open: its way into its file, and the records that the file is made of.

use std::io;

use super::super::checkpoint::{FileState, PartitionState};
use super::super::intake::Intake;
use super::super::manifest::{EndReason, Segment};
use super::super::pool::Buffer;
use super::partition::Partition;
use crate::cc::frame::handshake::starts_capture;

/// A capture's first bytes by which a re-send is known: a pcap file header.
pub(super) const HEAD_BYTES: usize = 24;

/// Segments of one file, before the middle ones are left out.
const SEGMENTS_MAX: usize = 1000;

pub(super) struct Open {
    pub intake: Intake,
    /// The stream's first bytes.
    pub head: Vec<u8>,
    /// What the stream's bytes from the file's start on came from.
    pub segments: Vec<Segment>,
    segments_left_out: u64,
    /// True if a record came since the last checkpoint.
    pub changed: bool,
    /// The run of its last record's partition; none before its first record.
    run: Option<u64>,
}

impl Open {
    pub fn new(intake: Intake, head: Vec<u8>, segments: Vec<Segment>) -> Open {
        Open { intake, head, segments, segments_left_out: 0, changed: false, run: None }
    }

    pub fn take(&mut self, known: &Partition, offset: i64, data: Buffer, bytes: usize) -> io::Result<()> {
        let at = self.intake.received();
        if self.head.len() < HEAD_BYTES && at == self.head.len() as u64 {
            let some = bytes.min(HEAD_BYTES - self.head.len());
            self.head.extend_from_slice(&data[..some]);
        }
        let was_comparing = self.intake.comparing().is_some();
        self.changed = true;
        if bytes > 0 {
            self.intake.feed(data, bytes)?;
        }
        self.note(known, offset, at, bytes as u64);
        if was_comparing && self.intake.comparing().is_none() {
            self.keep_stored_segments();
        }
        self.run = Some(known.run);
        Ok(())
    }

    pub fn take_more(&mut self, data: Buffer, bytes: usize) -> io::Result<()> {
        self.intake.feed(data, bytes)?;
        if let Some(last) = self.segments.last_mut() {
            last.bytes += bytes as u64;
        }
        Ok(())
    }

    /// Notes where the bytes came from.
    fn note(&mut self, known: &Partition, offset: i64, at: u64, bytes: u64) {
        let state = &known.state;
        let same_run = self.run.is_none_or(|run| run == known.run);
        let follows = |last: &&mut Segment| {
            same_run
                && last.partition == state.partition
                && last.topic == state.topic
                && last.topic_id == state.topic_id
                && last.next_offset <= offset
                && last.at + last.bytes == at
        };
        if let Some(last) = self.segments.last_mut().filter(follows) {
            last.next_offset = offset + 1;
            last.bytes += bytes;
            return;
        }
        self.warn_of_order(state);
        if self.segments.len() >= SEGMENTS_MAX {
            self.segments.remove(SEGMENTS_MAX / 2);
            self.segments_left_out += 1;
        }
        self.segments.push(Segment {
            topic: state.topic.clone(),
            topic_id: state.topic_id.clone(),
            partition: state.partition,
            first_offset: offset,
            next_offset: offset + 1,
            at,
            bytes,
        });
    }

    /// Warns when a second partition brings records: once, for from then on the segments tell of two.
    fn warn_of_order(&self, other: &PartitionState) {
        let Some(first) = self.segments.first() else { return };
        let is_one = |topic: &str, partition| first.topic == topic && first.partition == partition;
        if !is_one(&other.topic, other.partition)
            && self.segments.iter().all(|segment| is_one(&segment.topic, segment.partition))
        {
            log::warn!(
                "order_uncertain file={} partitions={},{} note=\"send the stream's name as the records' key\"",
                self.intake.file().unwrap_or("-"),
                first.partition,
                other.partition,
            );
        }
    }

    /// The stream was compared and goes on in a part: what is stored of it came from the records that its manifest
    /// names.
    fn keep_stored_segments(&mut self) {
        let stored = self.intake.segments();
        let end = stored.last().map_or(0, |last| last.at + last.bytes);
        let mut segments = stored;
        for mut segment in std::mem::take(&mut self.segments) {
            let before = end.saturating_sub(segment.at).min(segment.bytes);
            segment.at += before;
            segment.bytes -= before;
            if segment.bytes > 0 || end == 0 {
                segments.push(segment);
            }
        }
        self.segments = segments;
    }

    /// What the file holds when all that was handed to the writer is written.
    pub fn state(&self) -> Option<FileState> {
        self.intake.state(self.segments.clone())
    }

    pub fn finish(self, reason: EndReason) {
        let Open { intake, segments, segments_left_out, .. } = self;
        intake.note_segments(segments, segments_left_out);
        intake.finish(reason);
    }
}

/// True if `data` begins as the stored stream does, and both are captures.
pub(super) fn is_same_head(head: &[u8], data: &[u8]) -> bool {
    head.len() == HEAD_BYTES && data.starts_with(head) && starts_capture(head) == Some(true)
}
