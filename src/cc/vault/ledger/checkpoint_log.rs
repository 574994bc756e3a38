//! Checkpoints of the ledger: collects what changed since the last one, sends it to the syncer, and releases
//! the offsets to commit when it is durable.

use std::io;

use crossbeam_channel::{Receiver, TryRecvError, bounded};

use super::partition::LedgerPartition;
use super::record_trail::RecordStream;
use super::{Ledger, PartitionId};
use crate::cc::vault::checkpoint::{Checkpoint, CheckpointBatch, ComparisonCheckpoint};
use crate::cc::vault::manifest::RecordSegment;
use crate::cc::vault::stream_table::OpenStream;
use crate::cc::vault::writer::WriteJob;
use crate::runtime::hex;

/// The checkpoint log is rewritten when it reaches this size and four times the size of its last rewrite.
pub(super) const LOG_BYTES_MIN: u64 = 8 << 20;

/// An offset to commit for the consumer group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OffsetCommit {
    pub partition: PartitionId,
    /// Offset after the last stored record.
    pub next_offset: i64,
}

/// A checkpoint that is not durable yet.
pub(super) struct PendingCheckpoint {
    pub done: Receiver<io::Result<()>>,
    pub commits: Vec<OffsetCommit>,
}

impl Ledger {
    /// Starts a checkpoint unless one is pending.
    pub(crate) fn start_checkpoint(&mut self) -> io::Result<()> {
        if self.pending_checkpoint.is_some() {
            return Ok(());
        }
        self.flush_coalesced()?;
        if self.has_failed {
            return Err(io::Error::other("accepted data could not be written"));
        }
        self.shared.queue.wait_until_hashed()?;
        let replaces = self.log_bytes >= self.log_bytes_max || self.rewrites_log;
        if std::mem::take(&mut self.dead_letters.is_changed) {
            self.dead_letters.file.sync_data()?;
        }
        let text = self.collect_checkpoint(replaces).to_lines()?;
        self.unwritten_ranges.clear();
        self.rewrites_log = false;
        self.checkpoints_started += 1;
        if replaces {
            self.log_bytes = 0;
            self.log_bytes_max = LOG_BYTES_MIN.max(4 * text.len() as u64);
        }
        self.log_bytes += text.len() as u64;
        let (done, done_in) = bounded(1);
        self.shared.queue.send(WriteJob::Checkpoint(CheckpointBatch {
            text,
            replaces_all: replaces,
            done,
        }))?;
        let commits = self
            .partitions
            .iter()
            .enumerate()
            .filter(|(_, known)| known.is_assigned || known.is_dump)
            .filter_map(|(at, known)| {
                // Late records are stored when they are inserted.
                let late = self.late.lowest(PartitionId(at)).unwrap_or(i64::MAX);
                let next_offset = known.state.next_offset.min(late);
                let commit = OffsetCommit { partition: PartitionId(at), next_offset };
                (next_offset > known.state.acknowledged).then_some(commit)
            })
            .collect();
        self.pending_checkpoint = Some(PendingCheckpoint { done: done_in, commits });
        Ok(())
    }

    /// Returns the offsets to commit once the pending checkpoint is durable, and `None` before.
    pub(crate) fn poll_checkpoint(&mut self) -> io::Result<Option<Vec<OffsetCommit>>> {
        let Some(pending) = &self.pending_checkpoint else { return Ok(None) };
        match pending.done.try_recv() {
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(io::Error::other("the syncer thread has ended")),
            Ok(written) => self.complete_checkpoint(written).map(Some),
        }
    }

    /// Makes everything accepted durable. Returns the offsets to commit.
    pub(crate) fn finish_checkpoint(&mut self) -> io::Result<Vec<OffsetCommit>> {
        // A pending checkpoint may have started before the last record.
        let before = self.wait_for_checkpoint()?;
        self.start_checkpoint()?;
        let commits = self.wait_for_checkpoint()?;
        Ok(if commits.is_empty() { before } else { commits })
    }

    /// Writes partial packets and makes everything durable, before a shutdown. Returns the offsets to commit.
    pub(crate) fn flush(&mut self) -> io::Result<Vec<OffsetCommit>> {
        self.flush_if(|_| true)
    }

    /// Does the same for streams of these partitions, before they are revoked. Other streams keep their
    /// partial packets.
    pub(crate) fn flush_partitions(&mut self, partitions: &[PartitionId]) -> io::Result<Vec<OffsetCommit>> {
        let states: Vec<_> = partitions.iter().map(|id| self.partitions[id.0].state.clone()).collect();
        let is_of = |segment: &RecordSegment| {
            states.iter().any(|state| (segment.partition, &segment.topic) == (state.partition, &state.topic))
        };
        self.flush_if(|stream| stream.info.segments.list.iter().any(is_of))
    }

    fn flush_if(&mut self, is_due: impl Fn(&RecordStream) -> bool) -> io::Result<Vec<OffsetCommit>> {
        self.flush_coalesced()?;
        self.insert_late()?;
        for (_, stream) in self.streams.iter_mut().filter(|(_, stream)| is_due(stream)) {
            stream.info.is_changed |= stream.writer.flush();
        }
        self.finish_checkpoint()
    }

    pub(super) fn wait_for_checkpoint(&mut self) -> io::Result<Vec<OffsetCommit>> {
        let Some(pending) = &self.pending_checkpoint else { return Ok(Vec::new()) };
        let written = pending.done.recv().map_err(|_| io::Error::other("the syncer thread has ended"))?;
        self.complete_checkpoint(written)
    }

    fn complete_checkpoint(&mut self, written: io::Result<()>) -> io::Result<Vec<OffsetCommit>> {
        let commits = self.pending_checkpoint.take().map(|pending| pending.commits).unwrap_or_default();
        written?;
        let is_dump = |commit: &OffsetCommit| self.partitions[commit.partition.0].is_dump;
        let (dumps, commits): (Vec<_>, Vec<_>) = commits.into_iter().partition(is_dump);
        self.record_commits(&dumps);
        Ok(commits)
    }

    /// Collects what changed since the last checkpoint, or everything if `all` is set.
    pub(super) fn collect_checkpoint(&mut self, all: bool) -> Checkpoint {
        let all_ranges = || {
            let others = self.partitions.iter().flat_map(LedgerPartition::other_ranges);
            others.chain(self.replaced_ranges.iter().cloned()).collect()
        };
        let mut batch = Checkpoint {
            partitions: self.partitions.iter().map(LedgerPartition::checkpoint).collect(),
            reads: if all { all_ranges() } else { self.unwritten_ranges.clone() },
            compared: self.comparisons.clone(),
            dead_letter_bytes: Some(self.dead_letters.bytes),
            ..Checkpoint::default()
        };
        for (name, stream) in self.streams.iter_mut() {
            let OpenStream { writer, info, .. } = stream;
            if let Some(received) = writer.compared_bytes() {
                let (segments, file) = (info.segments.list.clone(), writer.compared_file());
                let compared = ComparisonCheckpoint { name_hex: hex::encode(name), received, segments, file };
                batch.compared.insert(compared.name_hex.clone(), compared);
            } else if (info.is_changed || all)
                && let Some(file) = writer.checkpoint(info.segments.list.clone())
            {
                batch.files.insert(file.file.clone(), file);
            }
            info.is_changed = false;
        }
        batch
    }
}
