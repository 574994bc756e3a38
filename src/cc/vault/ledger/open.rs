//! A stream that is open: its way into its file, and the records that the file is made of.

use std::collections::BTreeSet;
use std::io;

use super::super::checkpoint::FileState;
use super::super::gather::Gather;
use super::super::intake::Intake;
use super::super::manifest::{EndReason, Segment};
use super::super::pool::Buffer;
use super::PartitionId;
use super::partition::Partition;
use crate::cc::frame::handshake::starts_capture;

/// A capture's first bytes by which a re-send is known: a pcap file header.
pub(super) const HEAD_BYTES: usize = 24;

/// Segments of one file, before the middle ones are left out.
const SEGMENTS_MAX: usize = 1000;

pub(super) struct Open {
    pub intake: Intake,
    /// What came last.
    pub gather: Gather,
    /// Bytes of the stream so far, with those gathered.
    pub received: u64,
    /// The stream's first bytes.
    pub head: Vec<u8>,
    /// What the stream's bytes from the file's start on came from.
    pub segments: Vec<Segment>,
    segments_left_out: u64,
    partitions: BTreeSet<(usize, i32)>,
    /// True if a record came since the last checkpoint.
    pub changed: bool,
    /// The run of its last record's partition.
    run: u64,
}

impl Open {
    pub fn new(intake: Intake, head: Vec<u8>, segments: Vec<Segment>) -> Open {
        Open {
            received: intake.received(),
            gather: Gather::default(),
            intake,
            head,
            segments,
            segments_left_out: 0,
            partitions: BTreeSet::new(),
            changed: false,
            run: 0,
        }
    }

    /// Hands over what is gathered; true if there was any.
    pub fn hand_over(&mut self) -> io::Result<bool> {
        match self.gather.take() {
            None => Ok(false),
            Some((buffer, bytes)) => self.feed(buffer, bytes).map(|()| true),
        }
    }

    pub fn feed(&mut self, data: Buffer, bytes: usize) -> io::Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let was_comparing = self.intake.comparing().is_some();
        self.intake.feed(data, bytes)?;
        if was_comparing && self.intake.comparing().is_none() {
            self.keep_stored_segments();
        }
        Ok(())
    }

    /// Notes a record of which the stream's next bytes are.
    pub fn note(&mut self, id: PartitionId, known: &Partition, offset: i64, bytes: usize) {
        self.note_segment(known, offset, self.received, bytes as u64);
        self.received += bytes as u64;
        self.changed = true;
        self.partitions.insert((id.0, known.state.partition));
        self.run = known.run;
    }

    /// Notes where the bytes came from.
    fn note_segment(&mut self, known: &Partition, offset: i64, at: u64, bytes: u64) {
        let state = &known.state;
        let same_run = self.partitions.is_empty() || self.run == known.run;
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
        let first = (&self.segments[0].topic, self.segments[0].partition);
        let other = (&state.topic, state.partition);
        if first != other && self.partitions.len() == 1 {
            log::warn!(
                "order_uncertain file={} partitions={},{} note=\"send the stream's name as the records' key\"",
                self.intake.file().unwrap_or("-"),
                first.1,
                other.1,
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

/// True if a stream of which `received` bytes came starts from its first byte again.
pub(super) fn is_sent_again(head: &[u8], received: u64, data: &[u8]) -> bool {
    received >= HEAD_BYTES as u64 && is_same_head(head, data)
}

/// Takes what `data` has of the stream's first bytes, if it follows those.
pub(super) fn extend_head(head: &mut Vec<u8>, received: u64, data: &[u8]) {
    if head.len() < HEAD_BYTES && received == head.len() as u64 {
        head.extend_from_slice(&data[..data.len().min(HEAD_BYTES - head.len())]);
    }
}
