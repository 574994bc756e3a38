//! Checkpoints: what changed since the last one, on its way to the disk, and the offsets that may be committed after
//! it.

use std::io;

use crossbeam_channel::{Receiver, TryRecvError, bounded};

use super::super::checkpoint::{Checkpoint, Compared, Round};
use super::super::manifest::Segment;
use super::super::writer::Job;
use super::{Ledger, Open, PartitionId};
use crate::cc::frame::name::hex;

/// The rounds are written anew when they have grown to this and to four times what they had then.
pub(super) const ROUNDS_BYTES_MIN: u64 = 8 << 20;

/// An offset to commit to the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The partition.
    pub partition: PartitionId,
    /// The offset of the first record that is not stored.
    pub next_offset: i64,
}

/// A checkpoint on its way to the disk.
pub(super) struct InFlight {
    pub done: Receiver<io::Result<()>>,
    pub commits: Vec<Commit>,
}

impl Ledger {
    /// Begins a checkpoint, unless one is under way.
    pub fn checkpoint(&mut self) -> io::Result<()> {
        if self.in_flight.is_some() {
            return Ok(());
        }
        self.hand_over()?;
        if self.failed {
            return Err(io::Error::other("what it would vouch for is not on its way into the files"));
        }
        self.shared.wait_until_hashed()?;
        let replaces = self.rounds_bytes >= self.rounds_bytes_max;
        if std::mem::take(&mut self.letters.changed) {
            self.letters.file.sync_data()?;
        }
        let text = self.round(replaces).text()?;
        self.reads_kept = self.reads.len();
        self.round += 1;
        if replaces {
            self.rounds_bytes = 0;
            self.rounds_bytes_max = ROUNDS_BYTES_MIN.max(4 * text.len() as u64);
        }
        self.rounds_bytes += text.len() as u64;
        let (done, done_in) = bounded(1);
        self.shared.send(Job::Checkpoint(Round { text, replaces, done }))?;
        let commits = self
            .partitions
            .iter()
            .enumerate()
            .filter(|(_, known)| {
                (known.assigned || known.is_dump) && known.state.next_offset > known.state.acknowledged
            })
            .map(|(at, known)| Commit { partition: PartitionId(at), next_offset: known.state.next_offset })
            .collect();
        self.in_flight = Some(InFlight { done: done_in, commits });
        Ok(())
    }

    /// The offsets to commit, once the checkpoint under way is durable; none before.
    pub fn finished(&mut self) -> io::Result<Option<Vec<Commit>>> {
        let Some(in_flight) = &self.in_flight else { return Ok(None) };
        match in_flight.done.try_recv() {
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(io::Error::other("the keeper is gone")),
            Ok(kept) => self.finish_round(kept).map(Some),
        }
    }

    /// Makes all that was taken durable; gives the offsets to commit.
    pub fn checkpoint_now(&mut self) -> io::Result<Vec<Commit>> {
        // One that is under way may have begun before the last record came.
        let before = self.wait_for_round()?;
        self.checkpoint()?;
        let commits = self.wait_for_round()?;
        Ok(if commits.is_empty() { before } else { commits })
    }

    /// Writes begun packets, makes all durable: at the end. Gives the offsets to commit.
    pub fn flush(&mut self) -> io::Result<Vec<Commit>> {
        self.flush_if(|_| true)
    }

    /// The same before these partitions are given up. Packets of streams that have nothing of them wait on.
    pub fn flush_of(&mut self, partitions: &[PartitionId]) -> io::Result<Vec<Commit>> {
        let states: Vec<_> = partitions.iter().map(|id| self.partitions[id.0].state.clone()).collect();
        let is_of = |segment: &Segment| {
            states.iter().any(|state| (segment.partition, &segment.topic) == (state.partition, &state.topic))
        };
        self.flush_if(|open| open.segments.list.iter().any(is_of))
    }

    fn flush_if(&mut self, is_due: impl Fn(&Open) -> bool) -> io::Result<Vec<Commit>> {
        self.hand_over()?;
        for (_, open) in self.streams.iter_mut().filter(|(_, open)| is_due(open)) {
            open.changed |= open.intake.write_through();
        }
        self.checkpoint_now()
    }

    pub(super) fn wait_for_round(&mut self) -> io::Result<Vec<Commit>> {
        let Some(in_flight) = &self.in_flight else { return Ok(Vec::new()) };
        let kept = in_flight.done.recv().map_err(|_| io::Error::other("the keeper is gone"))?;
        self.finish_round(kept)
    }

    fn finish_round(&mut self, kept: io::Result<()>) -> io::Result<Vec<Commit>> {
        let commits = self.in_flight.take().map(|in_flight| in_flight.commits).unwrap_or_default();
        kept?;
        let is_dump = |commit: &Commit| self.partitions[commit.partition.0].is_dump;
        let (dumps, commits): (Vec<_>, Vec<_>) = commits.into_iter().partition(is_dump);
        self.committed(&dumps);
        Ok(commits)
    }

    /// What changed since the last round, or all that is open.
    pub(super) fn round(&mut self, all: bool) -> Checkpoint {
        let mut round = Checkpoint {
            partitions: self.partitions.iter().map(|known| known.state.clone()).collect(),
            reads: self.reads[if all { 0 } else { self.reads_kept }..].to_vec(),
            compared: self.compared.clone(),
            dead_letter_bytes: Some(self.letters.bytes),
            ..Checkpoint::default()
        };
        for (name, open) in self.streams.iter_mut() {
            if let Some(received) = open.intake.comparing() {
                let (segments, file) = (open.segments.list.clone(), open.intake.compared_file());
                let compared = Compared { name_hex: hex(name), received, segments, file };
                round.compared.insert(compared.name_hex.clone(), compared);
            } else if (open.changed || all)
                && let Some(file) = open.state()
            {
                round.files.insert(file.file.clone(), file);
            }
            open.changed = false;
        }
        round
    }
}
