//! A stream that is open: its way into its file, and the records that the file is made of.

use std::io;

use super::super::checkpoint::{FileState, PartitionState};
use super::super::gather::Gather;
use super::super::intake::Intake;
use super::super::manifest::{EndReason, Segment};
use super::super::pool::Buffer;
use super::super::segments::{Place, Segments};
use super::partition::Partition;
use crate::cc::frame::handshake::starts_capture;

/// A capture's first bytes by which a re-send is known: a pcap file header.
pub(in super::super) const HEAD_BYTES: usize = 24;

pub(super) struct Open {
    pub intake: Intake,
    /// What came last.
    pub gather: Gather,
    /// Bytes of the stream so far, with those gathered.
    pub received: u64,
    /// The stream's first bytes.
    pub head: Vec<u8>,
    /// What the stream's bytes from the file's start on came from.
    pub segments: Segments,
    /// True if a record came since the last checkpoint.
    pub changed: bool,
    /// How many checkpoints had begun when its last record came; none before the first.
    round: Option<u64>,
}

/// A record that came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Came {
    offset: i64,
    /// How many checkpoints had begun.
    round: u64,
    bytes: u64,
    starts_capture: bool,
}

impl Came {
    pub fn new(offset: i64, round: u64, data: &[u8]) -> Came {
        Came { offset, round, bytes: data.len() as u64, starts_capture: starts_capture(data) == Some(true) }
    }
}

impl Open {
    pub fn new(intake: Intake, head: Vec<u8>, segments: Vec<Segment>) -> Open {
        Open {
            received: intake.received(),
            gather: Gather::default(),
            intake,
            head,
            segments: Segments::new(segments),
            changed: false,
            round: None,
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
            // What is stored of it came from the records that its manifest names.
            self.segments.depart(self.intake.segments());
        }
        Ok(())
    }

    /// Notes a record of which the stream's next bytes are.
    pub fn note(&mut self, known: &PartitionState, came: Came) {
        let Came { offset, round, bytes, starts_capture } = came;
        let at = self.received;
        let begins_capture = at > 0 && starts_capture;
        let same_round = self.round.replace(round) == Some(round);
        self.warn_of_order(known);
        self.segments.note(known, Place { offset, at, bytes, same_round, begins_capture });
        self.received += bytes;
        self.changed = true;
    }

    /// Warns when a second partition brings records: once, for from then on the segments tell of two.
    fn warn_of_order(&self, other: &PartitionState) {
        let Some(first) = self.segments.list.first() else { return };
        let is_one = |topic: &str, partition| first.topic == topic && first.partition == partition;
        if !is_one(&other.topic, other.partition)
            && self.segments.list.iter().all(|segment| is_one(&segment.topic, segment.partition))
        {
            log::warn!(
                "order_uncertain file={} partitions={},{} note=\"send the stream's name as the records' key\"",
                self.intake.file().unwrap_or("-"),
                first.partition,
                other.partition,
            );
        }
    }

    /// What the file holds when all that was handed to the writer is written.
    pub fn state(&self) -> Option<FileState> {
        self.intake.state(self.segments.list.clone())
    }

    pub fn finish(self, reason: EndReason, partitions: &[Partition]) {
        let Open { mut intake, mut segments, .. } = self;
        let last = segments.list.last().map(|last| (last.topic.clone(), last.partition));
        let of = last.and_then(|(topic, partition)| {
            partitions.iter().find(|known| known.state.partition == partition && known.state.topic == topic)
        });
        if let Some(of) = of {
            segments.settle(&of.state);
        }
        intake.note_segments(segments);
        intake.finish(reason);
    }
}

/// True if `data` begins as the stored stream does, and both are captures.
pub(in super::super) fn is_same_head(head: &[u8], data: &[u8]) -> bool {
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
