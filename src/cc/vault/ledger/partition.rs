//! The partitions that this process reads: where each goes on, and what the group knows of that.

use super::super::checkpoint::PartitionState;
use super::super::time::now_rfc3339;
use super::{Commit, Ledger};

/// A partition that this process reads.
#[derive(Clone, Debug)]
pub(super) struct Partition {
    pub state: PartitionState,
    pub assigned: bool,
    /// True if its records come from dumps: what is durable of them is acknowledged, since no group is asked.
    pub is_dump: bool,
    /// True if the next record may lie behind offsets that were never read.
    pub jumps: bool,
}

/// Which of the ledger's partitions; stays the same for as long as the ledger lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId(pub(super) usize);

impl Partition {
    pub fn new(topic: &str, topic_id: Option<&str>, partition: i32) -> Partition {
        Partition::from(PartitionState {
            topic: topic.to_owned(),
            topic_id: topic_id.map(str::to_owned),
            partition,
            ..PartitionState::default()
        })
    }
}

impl From<PartitionState> for Partition {
    fn from(state: PartitionState) -> Partition {
        Partition { state, assigned: false, is_dump: false, jumps: false }
    }
}

impl Ledger {
    /// Takes a partition up; gives it and the offset to read from. `committed` is the group's offset, if it has one.
    /// Where another member has read on meanwhile, the group's offset wins.
    pub fn assign(
        &mut self,
        topic: &str,
        topic_id: Option<&str>,
        partition: i32,
        committed: Option<i64>,
    ) -> (PartitionId, Option<i64>) {
        let known = self
            .partitions
            .iter()
            .position(|known| known.state.topic == topic && known.state.partition == partition);
        let at = known.unwrap_or_else(|| {
            self.partitions.push(Partition::new(topic, topic_id, partition));
            self.partitions.len() - 1
        });
        let Partition { state, assigned, is_dump, .. } = &mut self.partitions[at];
        (*assigned, *is_dump) = (true, false);
        if let (Some(was), Some(is)) = (&state.topic_id, topic_id)
            && was != is
        {
            log::warn!(
                "topic_made_again topic={topic} partition={partition} note=\"its records are taken from the start\""
            );
            self.go_to(PartitionId(at), 0);
            self.partitions[at].state.topic_id = Some(is.to_owned());
            return (PartitionId(at), Some(0));
        }
        if state.topic_id.is_none() {
            state.topic_id = topic_id.map(str::to_owned);
        }
        let stored = known.map(|_| state.next_offset);
        let start = stored.max(committed);
        if start > stored {
            self.reads.extend(state.read());
            state.start(start, true, now_rfc3339());
        }
        if start.is_some() {
            state.acknowledged = committed.unwrap_or(0);
        }
        (PartitionId(at), start)
    }

    /// A partition goes on elsewhere: before what was taken of it, where other records have those offsets now and are
    /// none that come again, or behind records that nobody can read any more.
    pub fn go_to(&mut self, partition: PartitionId, offset: i64) {
        let state = &mut self.partitions[partition.0].state;
        self.reads.extend(state.read());
        state.start(Some(offset), false, now_rfc3339());
        // The group may have no more than that either.
        state.acknowledged = 0;
    }

    /// Topic, partition and next offset.
    pub fn partition(&self, partition: PartitionId) -> &PartitionState {
        &self.partitions[partition.0].state
    }

    /// Passes over a record that is not for a stream. False if it was passed before.
    pub fn pass(&mut self, partition: PartitionId, offset: i64) -> bool {
        self.begin_read(partition, offset);
        let next = &mut self.partitions[partition.0].state.next_offset;
        let new = offset >= *next;
        if new {
            *next = offset + 1;
        }
        new
    }

    /// Where no offset said where to start, the first record does; so does one that lies behind a gap.
    pub(super) fn begin_read(&mut self, partition: PartitionId, offset: i64) {
        let Partition { state, jumps, .. } = &mut self.partitions[partition.0];
        let is_behind_gap = std::mem::take(jumps) && offset > state.next_offset;
        if state.first_offset.is_none() || is_behind_gap {
            self.reads.extend(state.read());
            state.start(Some(offset), false, now_rfc3339());
        }
    }

    /// The group has taken these offsets.
    pub fn committed(&mut self, commits: &[Commit]) {
        for commit in commits {
            let state = &mut self.partitions[commit.partition.0].state;
            state.acknowledged = state.acknowledged.max(commit.next_offset);
        }
    }

    /// A partition belongs to another member now.
    pub fn unassign(&mut self, partition: PartitionId) {
        self.partitions[partition.0].assigned = false;
    }
}
