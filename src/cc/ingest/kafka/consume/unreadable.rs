//! Passes over records that the client library cannot read, and reports them. They become gaps.

use std::time::{Duration, Instant};

use super::{CHECK_INTERVAL, LoopState};
use crate::Result;
use crate::cc::ingest::kafka::client::{KafkaRecord, StartOffset, TopicPartition};

/// Number of runs of empty records after which they are reported.
const EMPTY_RUNS_MAX: usize = 1024;

/// Records without key and value, in runs of one offset after the other: partition, first offset, next offset.
#[derive(Default)]
pub(super) struct EmptyRuns(Vec<(TopicPartition, i64, i64)>);

impl EmptyRuns {
    pub(super) fn add_record(&mut self, record: &KafkaRecord<'_>) {
        self.add((TopicPartition::new(record.topic, record.partition), record.offset, record.offset + 1));
    }

    /// Adds a run, or extends the one that it follows.
    fn add(&mut self, run: (TopicPartition, i64, i64)) {
        match self.0.iter_mut().rev().find(|known| known.0 == run.0 && known.2 == run.1) {
            Some(known) => known.2 = run.2,
            None => self.0.push(run),
        }
    }
}

impl LoopState<'_> {
    /// Passes over a batch that cannot be read. Its offsets become a gap.
    pub(super) fn pass_unreadable_batch(&mut self) -> Result<()> {
        if Instant::now() < self.probe_at {
            return Ok(());
        }
        let ledger = &self.consumer.ledger;
        let positions: Vec<_> = self
            .assigned
            .iter()
            .map(|(partition, known)| {
                let next = ledger.position(known.id).unwrap_or(known.start);
                let end = known.live.end_offset.get().and_then(|end| i64::try_from(end).ok());
                (partition.clone(), next, end.unwrap_or(i64::MAX))
            })
            .filter(|(_, next, end)| next < end)
            .collect();
        let found = match self.consumer.client.find_unreadable(&positions) {
            Ok(found) => found,
            Err(error) => {
                log::warn!("broker_query_failed act=probe error=\"{}\"", crate::error::chain(&error));
                Vec::new()
            }
        };
        self.probe_at = Instant::now() + if found.is_empty() { CHECK_INTERVAL } else { Duration::ZERO };
        for (partition, first, next) in found {
            let note = "a batch has a wrong checksum or cannot be decompressed; its records are missing";
            if self.unreadable_ends.insert(partition.clone(), next).is_none_or(|end| end < next) {
                self.record_unreadable(&partition, first, next, note);
            }
            if let Some(known) = self.assigned.get(&partition) {
                self.consumer.ledger.skip_to(known.id, next);
                known.live.next_offset.set(next);
            }
            self.assign_until_answered(&[(partition, StartOffset::At(next))])?;
        }
        Ok(())
    }

    /// Reports records without key and value as unreadable, once for those that followed each other. librdkafka 2.5 to 2.15
    /// returns the records of the formats before Kafka 0.11 in this form (librdkafka issue 5549). As dead letters they
    /// would count as read.
    pub(super) fn report_empty(&mut self, fresh: EmptyRuns) {
        let is_over = fresh.0.is_empty();
        fresh.0.into_iter().for_each(|run| self.empty.add(run));
        if !is_over && self.empty.0.len() < EMPTY_RUNS_MAX {
            return;
        }
        for (partition, first, next) in std::mem::take(&mut self.empty.0) {
            let note = "these records have neither key nor value; librdkafka also returns the format before Kafka 0.11 \
                        in this form; decode copies of the broker's segments with lea decode";
            self.record_unreadable(&partition, first, next, note);
        }
    }

    fn record_unreadable(&mut self, partition: &TopicPartition, first: i64, next: i64, note: &str) {
        log::error!("records_unreadable partition={partition} from={first} to={next} note=\"{note}\"");
        self.consumed.damaged += 1;
        self.consumer.metrics.kafka_damaged_batches_total.inc();
    }
}

#[test]
fn only_records_that_follow_each_other_are_one_run() {
    let mut runs = EmptyRuns::default();
    for (partition, offset) in [(0, 5), (1, 6), (0, 6), (0, 8), (0, 9)] {
        let record =
            KafkaRecord { topic: "t", partition, offset, timestamp_ms: None, key: None, value: None };
        runs.add_record(&record);
    }
    let run = |number, first, next| (TopicPartition::new("t", number), first, next);
    assert_eq!(runs.0, [run(0, 5, 7), run(1, 6, 7), run(0, 8, 10)]);
}
