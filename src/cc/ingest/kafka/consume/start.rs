//! Starts assigned partitions at the offsets of the output directory or the group.

use std::time::Duration;

use super::{AssignedPartition, BROKER_QUERY_TIMEOUT, LoopState, StartFrom};
use crate::cc::ingest::kafka::client::{KafkaConsumer, StartOffset, TopicPartition};
use crate::cc::ingest::kafka::settings::is_transient;
use crate::cc::vault::ledger::PartitionId;
use crate::{Error, Result};

/// Pause before a failed query is repeated.
const BROKER_QUERY_RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Answers of the broker about a partition.
pub(super) struct PartitionBounds {
    /// Committed offset of the group.
    pub(super) committed: Option<i64>,
    /// Id of the topic.
    pub(super) topic_id: Option<String>,
    /// First offset in the partition.
    pub(super) first: i64,
    /// Offset after the last record that can be read: records of open transactions cannot.
    pub(super) stable_end: i64,
    /// Offset after the last record.
    pub(super) end: i64,
}

impl LoopState<'_> {
    /// Starts partitions at the offset of the output directory or the group.
    pub(super) fn start_partitions(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        log::info!("partitions_assigned count={}", partitions.len());
        let (mut starts, mut put_right) = (Vec::new(), Vec::new());
        for partition in partitions {
            let Some(bounds) = self.query_bounds_until_answered(partition) else { return Ok(()) };
            self.note_first_partitions(&partition.topic);
            let (id, start) = self.start_position(partition, &bounds);
            let PartitionBounds { committed, end, .. } = bounds;
            log::info!("partition_started partition={partition} offset={start} end={end}");
            let live = self.consumer.live.partitions.assign(&partition.topic, partition.number);
            live.next_offset.set(start);
            live.committed_offset.set(committed.unwrap_or(-1));
            live.end_offset.set(end);
            let until = self.consumer.config.exit_at_end.then_some(end);
            let assigned = AssignedPartition { id, end: until, start, live };
            self.assigned.insert(partition.clone(), assigned);
            starts.push((partition.clone(), StartOffset::At(start)));
            if committed.is_some_and(|committed| committed > start) {
                put_right.push((partition.clone(), start));
            }
        }
        self.assign_until_answered(&starts)?;
        if !put_right.is_empty() {
            // The group's offset lies after the last record. A consumer that relied on it would miss new
            // records.
            self.consumer.client.commit(&put_right)?;
        }
        Ok(())
    }

    /// Starts partitions. If the broker does not answer, retries until shutdown.
    pub(super) fn assign_until_answered(&mut self, starts: &[(TopicPartition, StartOffset)]) -> Result<()> {
        loop {
            match self.consumer.client.assign(starts) {
                Err(error) if is_transient_error(&error) && !self.consumer.shutdown.is_triggered() => {
                    log::warn!("broker_query_failed act=start error=\"{}\"", crate::error::chain(&error));
                    self.consumer.shutdown.wait(BROKER_QUERY_RETRY_PAUSE);
                }
                ended => return ended,
            }
        }
    }

    /// Returns the ledger's id and the start offset of a partition.
    fn start_position(&mut self, partition: &TopicPartition, bounds: &PartitionBounds) -> (PartitionId, i64) {
        let &PartitionBounds { committed, ref topic_id, first, stable_end, end } = bounds;
        let was_there =
            self.first_partitions.get(&*partition.topic).is_none_or(|count| partition.number < *count);
        let ledger = &mut self.consumer.ledger;
        let committed = committed.filter(|committed| *committed <= end);
        let (id, stored) = ledger.assign(&partition.topic, topic_id.as_deref(), partition.number, committed);
        let start = match stored.offset {
            // The group commits this offset, so that another member continues here.
            None if self.consumer.config.from == StartFrom::Latest && was_there => stable_end,
            None => first,
            Some(start) if stored.end > end => {
                // The next records at these offsets are new. As duplicates they would be lost.
                log::warn!(
                    "broker_log_truncated partition={partition} stored={} end={end} note=\"the broker no longer has these records; lea has already stored them\"",
                    stored.end
                );
                ledger.discard_from(id, end);
                start.min(end).max(first)
            }
            Some(start) if start < first && stored.end < first => {
                log::warn!(
                    "offset_gap partition={partition} from={start} to={first} note=\"the broker deleted these records before lea read them\""
                );
                first
            }
            // The broker deleted these records too, but that was said when it was found.
            Some(start) if start < first => ledger.first_missing(id, first),
            Some(start) => start,
        };
        if stored.offset != Some(start) || stored.end > end {
            ledger.start_at(id, start, false);
        }
        (id, start)
    }

    /// Notes how many partitions a topic has when it is assigned for the first time. Records of partitions that are added
    /// later are all new. A directory that has read the topic before has noted the offset of each partition.
    fn note_first_partitions(&mut self, topic: &str) {
        if self.consumer.config.from != StartFrom::Latest || self.first_partitions.contains_key(topic) {
            return;
        }
        let count = match self.consumer.ledger.has_consumed(topic) {
            true => Some(0),
            false => self.consumer.client.partition_count(topic, BROKER_QUERY_TIMEOUT).ok().flatten(),
        };
        self.first_partitions.insert(topic.to_owned(), count.unwrap_or(i32::MAX));
    }

    /// Queries the bounds of a partition until the broker answers. Returns `None` on shutdown, or if this
    /// member was fenced.
    fn query_bounds_until_answered(&mut self, partition: &TopicPartition) -> Option<PartitionBounds> {
        while !self.consumer.shutdown.is_triggered() {
            match query_bounds(&mut *self.consumer.client, partition, BROKER_QUERY_TIMEOUT) {
                Ok(bounds) => return Some(bounds),
                Err(_) if self.consumer.client.is_fenced() => return None,
                Err(error) => {
                    log::warn!(
                        "broker_query_failed partition={partition} error=\"{}\"",
                        crate::error::chain(&error)
                    );
                    self.consumer.shutdown.wait(BROKER_QUERY_RETRY_PAUSE);
                }
            }
        }
        None
    }
}

fn is_transient_error(error: &Error) -> bool {
    let Error::Kafka { cause, .. } = error else { return false };
    cause.rdkafka_error_code().is_some_and(is_transient)
}

/// Queries the end last, so that the committed offset cannot lie after it.
pub(super) fn query_bounds(
    client: &mut dyn KafkaConsumer,
    partition: &TopicPartition,
    timeout: Duration,
) -> Result<PartitionBounds> {
    let committed = client.committed(std::slice::from_ref(partition), timeout)?.into_iter().next().flatten();
    let topic_id = client.topic_id(&partition.topic, timeout)?;
    let (first, stable_end) = client.bounds(partition, timeout)?;
    let end = client.end_offset(partition, timeout)?.max(stable_end);
    Ok(PartitionBounds { committed, topic_id, first, stable_end, end })
}
