//! The partitions that this process reads: where each goes on, and what the group knows of that.

use super::super::checkpoint::PartitionState;
use super::{Commit, Ledger};

/// A partition that this process reads.
#[derive(Clone, Debug)]
pub(super) struct Partition {
    pub state: PartitionState,
    /// Offsets below this are committed to the group.
    pub committed: i64,
    pub assigned: bool,
    /// Grows when offsets were passed over that another member has: what comes then is another segment.
    pub run: u64,
}

/// Which of the ledger's partitions; stays the same for as long as the ledger lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId(pub(super) usize);

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
            let state = PartitionState {
                topic: topic.to_owned(),
                topic_id: topic_id.map(str::to_owned),
                partition,
                next_offset: 0,
            };
            self.partitions.push(Partition { state, committed: 0, assigned: false, run: 0 });
            self.partitions.len() - 1
        });
        let found = &mut self.partitions[at];
        found.assigned = true;
        if let (Some(was), Some(is)) = (&found.state.topic_id, topic_id)
            && was != is
        {
            log::warn!(
                "topic_made_again topic={topic} partition={partition} note=\"its records are taken from the start\""
            );
            found.state.topic_id = Some(is.to_owned());
            found.state.next_offset = 0;
            found.run += 1;
            return (PartitionId(at), Some(0));
        }
        if found.state.topic_id.is_none() {
            found.state.topic_id = topic_id.map(str::to_owned);
        }
        let stored = known.map(|_| found.state.next_offset);
        let start = stored.max(committed);
        if let Some(start) = start {
            found.run += u64::from(stored.is_some_and(|stored| start > stored));
            found.state.next_offset = start;
            found.committed = committed.unwrap_or(0);
        }
        (PartitionId(at), start)
    }

    /// Topic, partition and next offset.
    pub fn partition(&self, partition: PartitionId) -> &PartitionState {
        &self.partitions[partition.0].state
    }

    /// Passes over a record that is not for a stream. False if it was passed before.
    pub fn pass(&mut self, partition: PartitionId, offset: i64) -> bool {
        let next = &mut self.partitions[partition.0].state.next_offset;
        let new = offset >= *next;
        if new {
            *next = offset + 1;
        }
        new
    }

    /// The group has taken these offsets.
    pub fn committed(&mut self, commits: &[Commit]) {
        for commit in commits {
            let known = &mut self.partitions[commit.partition.0];
            known.committed = known.committed.max(commit.next_offset);
        }
    }

    /// A partition belongs to another member now.
    pub fn unassign(&mut self, partition: PartitionId) {
        self.partitions[partition.0].assigned = false;
    }
}
