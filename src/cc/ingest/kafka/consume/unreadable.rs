//! Passes over records that the client library cannot read, and reports them. They become gaps.

use std::time::{Duration, Instant};

use super::{CHECK_INTERVAL, LoopState};
use crate::Result;
use crate::cc::ingest::kafka::client::{StartOffset, TopicPartition};

/// Number of runs of empty records after which they are reported.
const EMPTY_RUNS_MAX: usize = 1024;

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
            log::error!(
                "records_unreadable partition={partition} from={first} to={next} note=\"a batch has a wrong checksum or cannot be decompressed; its records are missing\""
            );
            self.consumed.damaged += 1;
            self.consumer.metrics.kafka_damaged_batches_total.inc();
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
    pub(super) fn report_empty(&mut self, fresh: Vec<(TopicPartition, i64, i64)>) {
        let is_over = fresh.is_empty();
        for run in fresh {
            match self.empty.iter_mut().find(|known| known.0 == run.0 && known.2 == run.1) {
                Some(known) => known.2 = run.2,
                None => self.empty.push(run),
            }
        }
        if !is_over && self.empty.len() < EMPTY_RUNS_MAX {
            return;
        }
        for (partition, first, next) in std::mem::take(&mut self.empty) {
            log::error!(
                "records_unreadable partition={partition} from={first} to={next} note=\"these records have neither key nor value; librdkafka returns the format before Kafka 0.11 in this form; decode copies of the broker's segments with lea decode\""
            );
            self.consumed.damaged += 1;
            self.consumer.metrics.kafka_damaged_batches_total.inc();
        }
    }
}
