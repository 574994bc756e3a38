//! What the ledger knows of partitions that come from dumps: which offsets the folder has never had, and dumps that say
//! nothing of partitions.

use super::{Ledger, Partition, PartitionId};
use crate::cc::vault::checkpoint::PartitionState;

/// Gaps that are kept of a partition. Of more the shortest is forgotten: what comes of it later counts as known.
const GAPS_MAX: usize = 64;

/// Dumps without partitions that are remembered, the last ones.
const DUMPS_MAX: usize = 256;

impl Ledger {
    /// Takes a partition up for records of a dump. With an `id` the partition is that of this one dump, whatever other
    /// dumps say.
    pub fn take_up(&mut self, topic: &str, partition: i32, id: Option<&str>) -> PartitionId {
        let is = |known: &Partition| {
            let state = &known.state;
            let same = id.is_none() || state.topic_id.as_deref() == id;
            same && state.partition == partition && state.topic == topic
        };
        let found = self.partitions.iter().position(is);
        let at = found.unwrap_or_else(|| {
            self.partitions.push(Partition::new(topic, id, partition));
            self.partitions.len() - 1
        });
        self.expect_gap(PartitionId(at));
        PartitionId(at)
    }

    /// Another dump begins: the partition's next record may leave out some.
    pub fn expect_gap(&mut self, partition: PartitionId) {
        self.partitions[partition.0].jumps = true;
    }

    /// True if a record below the partition's next offset was never taken: the folder's records begin behind it, or
    /// leave it out.
    pub fn was_passed_over(&self, partition: PartitionId, offset: i64) -> bool {
        let gaps = &self.partitions[partition.0].state.gaps;
        gaps.iter().any(|(from, to)| (*from..*to).contains(&offset))
    }
}

impl Partition {
    pub(super) fn new(topic: &str, topic_id: Option<&str>, partition: i32) -> Partition {
        let state = PartitionState {
            topic: topic.to_owned(),
            topic_id: topic_id.map(str::to_owned),
            partition,
            next_offset: 0,
            gaps: Vec::new(),
        };
        Partition { state, committed: 0, assigned: false, run: 0, jumps: false }
    }
}

impl PartitionState {
    /// Notes that offsets are passed over.
    pub(super) fn note_gap(&mut self, from: i64, to: i64) {
        self.gaps.push((from, to));
        if self.gaps.len() > GAPS_MAX {
            let shortest = (0..self.gaps.len()).min_by_key(|at| self.gaps[*at].1 - self.gaps[*at].0);
            shortest.map(|at| self.gaps.remove(at));
        }
    }
}

/// Forgets dumps without partitions, if they are many; the first ones first.
pub(super) fn forget_old(partitions: &mut Vec<Partition>) {
    let is_dump = |known: &Partition| known.state.topic.is_empty();
    let mut surplus = partitions.iter().filter(|known| is_dump(known)).count().saturating_sub(DUMPS_MAX);
    partitions.retain(|known| {
        let forgotten = surplus > 0 && is_dump(known);
        surplus -= usize::from(forgotten);
        !forgotten
    });
}
