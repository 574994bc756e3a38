//! Reads single records of a partition, without the group: finds the end of a batch that cannot be read, and whether there
//! are records after an offset. librdkafka reports neither the partition nor the offsets of an unreadable batch, and fetches
//! it again and again. Runs in the polling thread.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::client::TopicPartition;
use super::librdkafka::is_unreadable;
use super::settings::{ConsumerSettings, client_error};
use crate::{Error, Result};

/// Time for an answer about one offset.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Number of offsets after the damage that are tried one by one. After them the steps double, so readable batches between
/// two damaged ones may be skipped. All offsets that are skipped are reported.
const SINGLE_STEPS: i64 = 16;

/// Result of reading from an offset.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Record,
    /// No record from this offset to the end of the partition.
    End,
    Unreadable,
    /// No answer in time, for example because a transaction is open.
    Unknown,
}

/// A client that reads one partition from any offset.
pub(super) struct BatchProbe<'a> {
    consumer: BaseConsumer,
    partition: &'a TopicPartition,
}

impl BatchProbe<'_> {
    pub(super) fn new<'a>(
        settings: &ConsumerSettings,
        partition: &'a TopicPartition,
    ) -> Result<BatchProbe<'a>> {
        let mut config = settings.client_config();
        config.remove("group.instance.id");
        config.set("enable.partition.eof", "true").set("queued.max.messages.kbytes", "1024");
        let consumer = config.create().map_err(|error| client_error(&settings.brokers, error))?;
        Ok(BatchProbe { consumer, partition })
    }

    /// Returns the next offset that can be read, or `end`, if the record at `at` cannot be read. `None` if it can.
    pub(super) fn next_readable(&self, at: i64, end: i64) -> Result<Option<i64>> {
        if self.is_readable(at)? {
            return Ok(None);
        }
        let (mut bad, mut step) = (at, 1);
        let mut good = loop {
            let next = bad.saturating_add(step);
            if next >= end {
                return Ok(Some(end.max(at + 1)));
            }
            if self.is_readable(next)? {
                break next;
            }
            bad = next;
            step = if bad - at < SINGLE_STEPS { 1 } else { step * 2 };
        };
        while good - bad > 1 {
            let middle = bad + (good - bad) / 2;
            match self.is_readable(middle)? {
                true => good = middle,
                false => bad = middle,
            }
        }
        Ok(Some(good))
    }

    /// Returns whether a record may follow: true unless the broker reports the end of the partition.
    pub(super) fn may_have_record(&self, offset: i64) -> Result<bool> {
        Ok(self.read_at(offset)? != Found::End)
    }

    /// Returns false if the record at an offset is in a batch that cannot be read.
    fn is_readable(&self, offset: i64) -> Result<bool> {
        Ok(self.read_at(offset)? != Found::Unreadable)
    }

    fn read_at(&self, offset: i64) -> Result<Found> {
        let failed = || Error::kafka("look for readable records in", self.partition);
        let mut list = TopicPartitionList::new();
        let TopicPartition { topic, number } = self.partition;
        list.add_partition_offset(topic, *number, Offset::Offset(offset)).map_err(failed())?;
        self.consumer.assign(&list).map_err(failed())?;
        let deadline = Instant::now() + TIMEOUT;
        loop {
            match self.consumer.poll(deadline.saturating_duration_since(Instant::now())) {
                Some(Err(KafkaError::MessageConsumption(code))) if is_unreadable(code) => {
                    return Ok(Found::Unreadable);
                }
                Some(Ok(_)) => return Ok(Found::Record),
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(Found::End),
                Some(Err(error)) if Instant::now() >= deadline => return Err(failed()(error)),
                None if Instant::now() >= deadline => return Ok(Found::Unknown),
                Some(Err(_)) | None => {}
            }
        }
    }
}
