//! A [`Client`] for tests: topics in memory, and a group that gives and takes when the test says so.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::time::Duration;

use crate::Result;
use crate::cc::source::kafka::client::{Change, Client, Partition, Polled, Progress, Record, Start};

/// What a test does before a poll: told how many there were before it.
pub type OnPoll = Box<dyn FnMut(&mut Fake, usize) + Send>;

/// What a test sets up, and what became of it.
#[derive(Default)]
pub struct Fake {
    /// Each partition's values; the first has offset 0.
    pub logs: BTreeMap<Partition, Vec<Vec<u8>>>,
    /// What the next polls bring, one each, before any record.
    pub changes: VecDeque<Change>,
    /// What the group has committed.
    pub committed: BTreeMap<Partition, i64>,
    /// The topics' ids.
    pub ids: BTreeMap<String, String>,
    /// True while commits are asked for and never acknowledged.
    pub deaf: bool,
    /// The next offsets of what is assigned.
    pub assigned: BTreeMap<Partition, i64>,
    /// Records of one poll; 0 for all.
    pub batch: usize,
    /// The first offset that is there; 0 if not named.
    pub firsts: BTreeMap<Partition, i64>,
    /// What was given up, and what the group had committed of it then.
    pub given_up: Vec<(Partition, Option<i64>)>,
    /// Called before each poll.
    pub on_poll: Option<OnPoll>,
    /// How many polls there were.
    pub polls: usize,
    /// Commits that were asked for and not acknowledged.
    pub unacknowledged: BTreeMap<Partition, i64>,
}

impl Fake {
    /// Appends a record.
    pub fn produce(&mut self, partition: &Partition, value: impl Into<Vec<u8>>) {
        self.logs.entry(partition.clone()).or_default().push(value.into());
    }

    /// Lets the next poll bring these partitions.
    pub fn give(&mut self, partitions: &[Partition]) {
        self.changes.push_back(Change::Given(partitions.to_vec()));
    }

    /// Lets the next poll take these partitions.
    pub fn take(&mut self, partitions: &[Partition], lost: bool) {
        self.changes.push_back(Change::Taken { partitions: partitions.to_vec(), lost });
    }

    /// Deletes a topic and makes it again, empty, with another id. The next poll says so; what is assigned goes on
    /// where it was, as librdkafka does.
    pub fn make_again(&mut self, topic: &str, id: &str) {
        self.ids.insert(topic.to_owned(), id.to_owned());
        self.logs.iter_mut().filter(|(at, _)| &*at.topic == topic).for_each(|(_, log)| log.clear());
        let ours: Vec<Partition> = self.assigned.keys().filter(|at| &*at.topic == topic).cloned().collect();
        if !ours.is_empty() {
            self.changes.push_back(Change::MadeAgain(ours));
        }
        self.committed.retain(|at, _| &*at.topic != topic);
    }

    fn end_of(&self, partition: &Partition) -> i64 {
        self.logs.get(partition).map_or(0, |log| log.len() as i64)
    }
}

impl Client for Fake {
    fn poll(&mut self, _: Duration, take: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>) -> Result<Polled> {
        if let Some(mut on_poll) = self.on_poll.take() {
            on_poll(self, self.polls);
            self.on_poll = Some(on_poll);
        }
        self.polls += 1;
        let change = self.changes.pop_front();
        let mut polled = Polled { change, ..Polled::default() };
        if polled.change.is_some() {
            return Ok(polled);
        }
        for (partition, next) in &mut self.assigned {
            let log = self.logs.get(partition).map_or(&[][..], Vec::as_slice);
            while let Some(value) = log.get(*next as usize) {
                if self.batch > 0 && polled.records == self.batch {
                    return Ok(polled);
                }
                let (topic, number, offset) = (&*partition.topic, partition.number, *next);
                let (timestamp_ms, key) = (Some(0), None);
                let record =
                    Record { topic, partition: number, offset, timestamp_ms, key, value: Some(value) };
                *next += 1;
                polled.records += 1;
                if take(record).is_break() {
                    return Ok(polled);
                }
            }
        }
        Ok(polled)
    }

    fn assign(&mut self, starts: &[(Partition, Start)]) -> Result<()> {
        for (partition, start) in starts {
            let next = match *start {
                Start::At(offset) => offset,
                Start::Committed => self.committed.get(partition).copied().unwrap_or(0),
                Start::Earliest => 0,
                Start::Latest => self.end_of(partition),
            };
            self.assigned.insert(partition.clone(), next);
        }
        Ok(())
    }

    fn give_up(&mut self, partitions: &[Partition]) -> Result<()> {
        self.assigned.retain(|partition, _| !partitions.contains(partition));
        let committed = |at: &Partition| (at.clone(), self.committed.get(at).copied());
        self.given_up.extend(partitions.iter().map(committed));
        Ok(())
    }

    fn commit(&mut self, offsets: &[(Partition, i64)]) -> Result<()> {
        self.unacknowledged.extend(offsets.iter().cloned());
        Ok(())
    }

    fn acknowledged(&mut self, _: Duration) -> Vec<(Partition, i64)> {
        if self.deaf {
            return Vec::new();
        }
        let acknowledged = std::mem::take(&mut self.unacknowledged);
        self.committed.extend(acknowledged.clone());
        acknowledged.into_iter().collect()
    }

    fn committed(&mut self, partitions: &[Partition], _: Duration) -> Result<Vec<Option<i64>>> {
        Ok(partitions.iter().map(|partition| self.committed.get(partition).copied()).collect())
    }

    fn bounds(&mut self, partition: &Partition, _: Duration) -> Result<(i64, i64)> {
        Ok((self.firsts.get(partition).copied().unwrap_or(0), self.end_of(partition)))
    }

    fn topic_id(&mut self, topic: &str, _: Duration) -> Result<Option<String>> {
        Ok(self.ids.get(topic).cloned())
    }

    fn progress(&mut self) -> Vec<Progress> {
        let progress = self.assigned.iter().map(|(partition, next)| Progress {
            partition: partition.clone(),
            next_offset: Some(*next),
            end_offset: Some(self.end_of(partition)),
        });
        progress.collect()
    }
}

#[test]
fn it_keeps_the_order_of_a_member() {
    let partition = Partition::new("interception", 0);
    let mut fake = Fake { batch: 2, ..Fake::default() };
    ["a", "b", "c"].iter().for_each(|value| fake.produce(&partition, *value));
    let mut seen = Vec::new();
    let mut poll = |fake: &mut Fake| {
        let mut take = |record: Record<'_>| {
            seen.push((record.offset, record.value.map(<[u8]>::to_vec)));
            ControlFlow::Continue(())
        };
        fake.poll(Duration::ZERO, &mut take).unwrap()
    };
    fake.give(std::slice::from_ref(&partition));
    assert!(matches!(poll(&mut fake).change, Some(Change::Given(_))));
    fake.assign(&[(partition.clone(), Start::Committed)]).unwrap();
    assert_eq!((poll(&mut fake).records, poll(&mut fake).records, poll(&mut fake).records), (2, 1, 0));
    assert_eq!(seen.last(), Some(&(2, Some(b"c".to_vec()))));
    fake.commit(&[(partition.clone(), 3)]).unwrap();
    assert_eq!(fake.committed(std::slice::from_ref(&partition), Duration::ZERO).unwrap(), [None]);
    assert_eq!(fake.acknowledged(Duration::ZERO), [(partition, 3)]);
}
