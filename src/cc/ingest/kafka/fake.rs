//! In-memory [`KafkaConsumer`] for tests: the test decides when partitions are assigned and revoked.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::time::Duration;

use crate::Result;
use crate::cc::ingest::kafka::client::{
    KafkaConsumer, KafkaRecord, PartitionProgress, PollResult, Rebalance, StartOffset, TopicPartition,
};

/// Hook that runs before each poll. Gets the number of earlier polls.
pub(crate) type OnPoll = Box<dyn FnMut(&mut FakeConsumer, usize) + Send>;

/// Fake consumer: its setup, and what became of it.
#[derive(Default)]
pub(crate) struct FakeConsumer {
    /// Values of each partition. The first has offset 0.
    pub logs: BTreeMap<TopicPartition, Vec<Vec<u8>>>,
    /// Rebalances that the next polls return, one each, before any record.
    pub rebalances: VecDeque<Rebalance>,
    /// Committed offsets of the group.
    pub committed: BTreeMap<TopicPartition, i64>,
    pub ids: BTreeMap<String, String>,
    /// True while commits are never acknowledged.
    pub ignores_commits: bool,
    /// Next offset of each assigned partition.
    pub assigned: BTreeMap<TopicPartition, i64>,
    /// Maximum records per poll. 0: no limit.
    pub batch: usize,
    /// First offset of a partition, 0 if missing.
    pub firsts: BTreeMap<TopicPartition, i64>,
    /// Offset after the last record that can be read, if a transaction is open.
    pub stable: BTreeMap<TopicPartition, i64>,
    /// Offsets of an unreadable batch.
    pub unreadable: BTreeMap<TopicPartition, std::ops::Range<i64>>,
    /// Partitions that end with control records.
    pub control_tail: Vec<TopicPartition>,
    /// Number of partitions of the topic.
    pub partition_count: Option<i32>,
    /// Released partitions with their committed offset at that time.
    pub unassigned: Vec<(TopicPartition, Option<i64>)>,
    pub on_poll: Option<OnPoll>,
    /// Number of polls.
    pub polls: usize,
    /// Requested commits that are not acknowledged.
    pub unacknowledged: BTreeMap<TopicPartition, i64>,
}

impl FakeConsumer {
    pub(crate) fn produce(&mut self, partition: &TopicPartition, value: impl Into<Vec<u8>>) {
        self.logs.entry(partition.clone()).or_default().push(value.into());
    }

    /// Makes the next poll assign these partitions.
    pub(crate) fn queue_assignment(&mut self, partitions: &[TopicPartition]) {
        self.rebalances.push_back(Rebalance::Assigned(partitions.to_vec()));
    }

    /// Makes the next poll revoke these partitions.
    pub(crate) fn queue_revocation(&mut self, partitions: &[TopicPartition], lost: bool) {
        self.rebalances.push_back(Rebalance::Revoked { partitions: partitions.to_vec(), lost });
    }

    /// Deletes a topic and recreates it empty with another id. The next poll reports it. Assigned partitions
    /// keep their position, as in librdkafka.
    pub(crate) fn recreate_topic(&mut self, topic: &str, id: &str) {
        self.ids.insert(topic.to_owned(), id.to_owned());
        self.logs.iter_mut().filter(|(at, _)| &*at.topic == topic).for_each(|(_, log)| log.clear());
        let ours: Vec<TopicPartition> =
            self.assigned.keys().filter(|at| &*at.topic == topic).cloned().collect();
        if !ours.is_empty() {
            self.rebalances.push_back(Rebalance::TopicRecreated(ours));
        }
        self.committed.retain(|at, _| &*at.topic != topic);
    }

    fn end_of(&self, partition: &TopicPartition) -> i64 {
        self.logs.get(partition).map_or(0, |log| log.len() as i64)
    }
}

impl KafkaConsumer for FakeConsumer {
    fn poll(
        &mut self,
        _: Duration,
        take: &mut dyn FnMut(KafkaRecord<'_>) -> ControlFlow<()>,
    ) -> Result<PollResult> {
        if let Some(mut on_poll) = self.on_poll.take() {
            on_poll(self, self.polls);
            self.on_poll = Some(on_poll);
        }
        self.polls += 1;
        let change = self.rebalances.pop_front();
        let mut polled = PollResult { rebalance: change, ..PollResult::default() };
        if polled.rebalance.is_some() {
            return Ok(polled);
        }
        for (partition, next) in &mut self.assigned {
            let log = self.logs.get(partition).map_or(&[][..], Vec::as_slice);
            let stable = self.stable.get(partition).copied().unwrap_or(i64::MAX);
            while let Some(value) = log.get(*next as usize).filter(|_| *next < stable) {
                if self.unreadable.get(partition).is_some_and(|batch| batch.contains(next)) {
                    polled.is_unreadable = true;
                    return Ok(polled);
                }
                if self.batch > 0 && polled.records == self.batch {
                    return Ok(polled);
                }
                let (topic, number, offset) = (&*partition.topic, partition.number, *next);
                let (timestamp_ms, key) = (Some(0), None);
                let record =
                    KafkaRecord { topic, partition: number, offset, timestamp_ms, key, value: Some(value) };
                *next += 1;
                polled.records += 1;
                if take(record).is_break() {
                    return Ok(polled);
                }
            }
        }
        Ok(polled)
    }

    fn assign(&mut self, starts: &[(TopicPartition, StartOffset)]) -> Result<()> {
        for (partition, start) in starts {
            let next = match *start {
                StartOffset::At(offset) => offset,
                StartOffset::Committed => self.committed.get(partition).copied().unwrap_or(0),
                StartOffset::Earliest => 0,
                StartOffset::Latest => self.end_of(partition),
            };
            self.assigned.insert(partition.clone(), next);
        }
        Ok(())
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        self.assigned.retain(|partition, _| !partitions.contains(partition));
        let committed = |at: &TopicPartition| (at.clone(), self.committed.get(at).copied());
        self.unassigned.extend(partitions.iter().map(committed));
        Ok(())
    }

    fn commit(&mut self, offsets: &[(TopicPartition, i64)]) -> Result<()> {
        self.unacknowledged.extend(offsets.iter().cloned());
        Ok(())
    }

    fn take_acknowledged(&mut self, _: Duration) -> Vec<(TopicPartition, i64)> {
        if self.ignores_commits {
            return Vec::new();
        }
        let acknowledged = std::mem::take(&mut self.unacknowledged);
        self.committed.extend(acknowledged.clone());
        acknowledged.into_iter().collect()
    }

    fn committed(&mut self, partitions: &[TopicPartition], _: Duration) -> Result<Vec<Option<i64>>> {
        Ok(partitions.iter().map(|partition| self.committed.get(partition).copied()).collect())
    }

    fn bounds(&mut self, partition: &TopicPartition, _: Duration) -> Result<(i64, i64)> {
        let stable = self.stable.get(partition).copied().unwrap_or(i64::MAX);
        Ok((self.firsts.get(partition).copied().unwrap_or(0), self.end_of(partition).min(stable)))
    }

    fn end_offset(&mut self, partition: &TopicPartition, _: Duration) -> Result<i64> {
        Ok(self.end_of(partition))
    }

    fn partition_count(&mut self, _: &str, _: Duration) -> Result<Option<i32>> {
        Ok(self.partition_count)
    }

    fn find_unreadable(
        &mut self,
        positions: &[(TopicPartition, i64, i64)],
    ) -> Result<Vec<(TopicPartition, i64, i64)>> {
        let found = positions.iter().filter_map(|(partition, at, _)| {
            let batch = self.unreadable.get(partition).filter(|batch| batch.contains(at))?;
            Some((partition.clone(), *at, batch.end))
        });
        Ok(found.collect())
    }

    fn may_have_record(&mut self, partition: &TopicPartition, _: i64) -> Result<bool> {
        Ok(!self.control_tail.contains(partition))
    }

    fn topic_id(&mut self, topic: &str, _: Duration) -> Result<Option<String>> {
        Ok(self.ids.get(topic).cloned())
    }

    fn progress(&mut self) -> Vec<PartitionProgress> {
        let progress = self.assigned.iter().map(|(partition, next)| PartitionProgress {
            partition: partition.clone(),
            next_offset: Some(*next),
            end_offset: Some(self.end_of(partition)),
        });
        progress.collect()
    }
}

#[test]
fn the_fake_behaves_like_a_group_member() {
    let partition = TopicPartition::new("interception", 0);
    let mut fake = FakeConsumer { batch: 2, ..FakeConsumer::default() };
    ["a", "b", "c"].iter().for_each(|value| fake.produce(&partition, *value));
    let mut seen = Vec::new();
    let mut poll = |fake: &mut FakeConsumer| {
        let mut take = |record: KafkaRecord<'_>| {
            seen.push((record.offset, record.value.map(<[u8]>::to_vec)));
            ControlFlow::Continue(())
        };
        fake.poll(Duration::ZERO, &mut take).unwrap()
    };
    fake.queue_assignment(std::slice::from_ref(&partition));
    assert!(matches!(poll(&mut fake).rebalance, Some(Rebalance::Assigned(_))));
    fake.assign(&[(partition.clone(), StartOffset::Committed)]).unwrap();
    assert_eq!((poll(&mut fake).records, poll(&mut fake).records, poll(&mut fake).records), (2, 1, 0));
    assert_eq!(seen.last(), Some(&(2, Some(b"c".to_vec()))));
    fake.commit(&[(partition.clone(), 3)]).unwrap();
    assert_eq!(fake.committed(std::slice::from_ref(&partition), Duration::ZERO).unwrap(), [None]);
    assert_eq!(fake.take_acknowledged(Duration::ZERO), [(partition, 3)]);
}
