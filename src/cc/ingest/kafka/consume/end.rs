//! Decides whether a run with `--exit-at-end` has reached the end.
//!
//! Invariant: the end is reached when all partitions of the topics have been read to the end they had, by this member or by
//! others of the group. A member that was killed keeps its partitions until its session times out, and nobody reads them
//! until then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use super::{AssignedPartition, BROKER_QUERY_TIMEOUT, CHECK_INTERVAL, LoopState};
use crate::Result;
use crate::cc::ingest::kafka::client::{KafkaConsumer, TopicPartition};
use crate::cc::vault::ledger::Ledger;

/// Partitions of the topics that other members have.
#[derive(Default)]
pub(super) struct OtherPartitions {
    /// The partitions that the group has not read to their end. `None` before they are known.
    behind: Option<Vec<OtherPartition>>,
    check_at: Option<Instant>,
}

#[derive(Clone)]
struct OtherPartition {
    partition: TopicPartition,
    /// Offset after its last record when this member was at its own end.
    end: i64,
    /// Committed offset at the last check, and whether a record was looked for there.
    seen: Option<(i64, bool)>,
}

impl OtherPartitions {
    /// Logs that this member waits for others.
    pub(super) fn log_wait(&self, waited_s: u64) {
        let Some([OtherPartition { partition: first, end, .. }, ..]) = self.behind.as_deref() else { return };
        let partitions = self.behind.as_ref().map_or(0, Vec::len);
        log::warn!(
            "waiting_for_members partitions={partitions} first={first} end={end} waited_s={waited_s} note=\"other members of the group have these partitions and have not read them to their end; a killed member keeps its partitions until its session times out\""
        );
    }
}

impl OtherPartition {
    /// Reports whether records before the end are not committed. Nobody commits control records, so where the committed
    /// offset stands still, whether a record follows is tried, once.
    fn is_unread(&mut self, client: &mut dyn KafkaConsumer, committed: Option<i64>) -> Result<bool> {
        let next = match committed {
            Some(committed) => committed,
            None => client.bounds(&self.partition, BROKER_QUERY_TIMEOUT)?.0,
        };
        if next >= self.end {
            return Ok(false);
        }
        let (stands_still, is_tried) = match self.seen {
            Some((seen, is_tried)) => (seen == next, is_tried),
            None => (false, false),
        };
        self.seen = Some((next, stands_still));
        Ok(!stands_still || is_tried || client.may_have_record(&self.partition, next)?)
    }
}

impl LoopState<'_> {
    /// With `--exit-at-end`: reports whether all partitions have been read to their end.
    pub(super) fn is_at_end(&mut self) -> Result<bool> {
        if !self.own_partitions_are_at_end() {
            return Ok(false);
        }
        let now = Instant::now();
        if self.others.check_at.is_some_and(|at| now < at) {
            return Ok(false);
        }
        self.others.check_at = Some(now + CHECK_INTERVAL);
        let is_first = self.others.behind.is_none();
        match self.find_unread_others() {
            Ok(unread) if unread.is_empty() => return Ok(true),
            Ok(unread) => self.others.behind = Some(unread),
            Err(error) => {
                log::warn!(
                    "broker_query_failed act=\"check the end\" error=\"{}\"",
                    crate::error::chain(&error)
                );
                return Ok(false);
            }
        }
        if is_first {
            // Other members may wait for this one in the same way.
            self.flush_and_commit(Ledger::flush)?;
        }
        Ok(false)
    }

    /// Reports whether each partition of this member has reached the end it had when it was assigned. Control records at
    /// the end are not stored, so the client's position counts too.
    fn own_partitions_are_at_end(&mut self) -> bool {
        if !self.consumer.config.exit_at_end || self.assigned.is_empty() {
            return false;
        }
        let ledger = &self.consumer.ledger;
        let is_stored = |known: &AssignedPartition| {
            known.end.is_some_and(|end| ledger.partition(known.id).next_offset >= end)
        };
        if self.assigned.values().all(is_stored) {
            return true;
        }
        // This is queried only when idle, because the answer is computed anew for each partition.
        if !self.is_idle {
            return false;
        }
        let reached: BTreeMap<TopicPartition, i64> = self
            .consumer
            .client
            .progress()
            .into_iter()
            .filter_map(|progress| Some((progress.partition, progress.next_offset?)))
            .collect();
        self.assigned.iter().all(|(partition, known)| {
            let stored = self.consumer.ledger.partition(known.id).next_offset;
            let at = reached.get(partition).copied().unwrap_or(stored).max(stored);
            known.end.is_some_and(|end| at >= end)
        })
    }

    /// Returns the partitions of other members that have records before their end which the group has not committed.
    fn find_unread_others(&mut self) -> Result<Vec<OtherPartition>> {
        let others = match &self.others.behind {
            Some(behind) => behind.clone(),
            None => self.find_others()?,
        };
        if others.is_empty() {
            return Ok(others);
        }
        let client = &mut *self.consumer.client;
        let partitions: Vec<TopicPartition> = others.iter().map(|other| other.partition.clone()).collect();
        let committed = client.committed(&partitions, BROKER_QUERY_TIMEOUT)?;
        let mut unread = Vec::new();
        for (mut other, committed) in others.into_iter().zip(committed) {
            if other.is_unread(client, committed)? {
                unread.push(other);
            }
        }
        Ok(unread)
    }

    /// Queries the partitions that are not assigned to this member, with their ends.
    fn find_others(&mut self) -> Result<Vec<OtherPartition>> {
        let topics: BTreeSet<Arc<str>> =
            self.assigned.keys().map(|partition| Arc::clone(&partition.topic)).collect();
        let client = &mut self.consumer.client;
        let mut others = Vec::new();
        for topic in topics {
            let count = client.partition_count(&topic, BROKER_QUERY_TIMEOUT)?.unwrap_or(0);
            for number in 0..count {
                let partition = TopicPartition { topic: Arc::clone(&topic), number };
                if !self.assigned.contains_key(&partition) {
                    let (_, end) = client.bounds(&partition, BROKER_QUERY_TIMEOUT)?;
                    others.push(OtherPartition { partition, end, seen: None });
                }
            }
        }
        Ok(others)
    }
}
