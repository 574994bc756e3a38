//! Holds back the records of transactions until it is known whether they count, as a consumer with
//! `isolation.level=read_committed` does. Records of the partition after them are held back, too, so the order stays.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use super::format::{DumpLocation, KafkaPosition};

/// Memory for records that are held back. A producer commits every few seconds.
const HELD_BYTES_MAX: usize = 256 << 20;

/// Memory for a record beyond its value.
const RECORD_BYTES: usize = 128;

/// A record that is held back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HeldRecord {
    pub file: Rc<str>,
    pub location: DumpLocation,
    pub offset: i64,
    pub value: Option<Vec<u8>>,
    pub fate: Fate,
}

/// What is known about a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The transaction of this producer has not ended.
    Open(i64),
    Counts,
    Aborted,
}

/// Records of a partition that need not wait any longer, in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Released {
    pub topic: String,
    pub partition: i32,
    pub records: Vec<HeldRecord>,
}

/// The records that are held back.
#[derive(Debug, Default)]
pub(super) struct TransactionBuffer {
    partitions: HashMap<(String, i32), VecDeque<HeldRecord>>,
    bytes: usize,
}

impl TransactionBuffer {
    /// Reports whether a record must be held back: it is part of a transaction, or comes after one that is open.
    pub(super) fn must_hold(&self, position: &KafkaPosition<'_>, producer_id: Option<i64>) -> bool {
        let is_held = |key: &(String, i32)| position.is_in(&key.0, key.1);
        producer_id.is_some() || !self.partitions.is_empty() && self.partitions.keys().any(is_held)
    }

    /// Holds a record back. If there are too many, all of its partition are released.
    pub(super) fn hold(&mut self, position: &KafkaPosition<'_>, record: HeldRecord) -> Option<Released> {
        self.bytes += RECORD_BYTES + record.value.as_ref().map_or(0, Vec::len);
        let key = (position.topic.to_owned(), position.partition);
        self.partitions.entry(key.clone()).or_default().push_back(record);
        if self.bytes <= HELD_BYTES_MAX { None } else { self.release_all(&key) }
    }

    /// Ends the transaction of a producer, and returns the records that need not wait any longer.
    pub(super) fn end(
        &mut self,
        position: &KafkaPosition<'_>,
        producer_id: i64,
        is_abort: bool,
    ) -> Option<Released> {
        let key = (position.topic.to_owned(), position.partition);
        let held = self.partitions.get_mut(&key)?;
        for record in held.iter_mut().filter(|record| record.fate == Fate::Open(producer_id)) {
            record.fate = if is_abort { Fate::Aborted } else { Fate::Counts };
        }
        let known = held.iter().take_while(|record| !matches!(record.fate, Fate::Open(_))).count();
        let records: Vec<HeldRecord> = held.drain(..known).collect();
        if held.is_empty() {
            self.partitions.remove(&key);
        }
        Some(self.released(key, records))
    }

    fn release_all(&mut self, key: &(String, i32)) -> Option<Released> {
        let records = self.partitions.remove(key)?.into();
        Some(self.released(key.clone(), records))
    }

    fn released(&mut self, (topic, partition): (String, i32), records: Vec<HeldRecord>) -> Released {
        let bytes = |record: &HeldRecord| RECORD_BYTES + record.value.as_ref().map_or(0, Vec::len);
        self.bytes -= records.iter().map(bytes).sum::<usize>();
        Released { topic, partition, records }
    }

    /// Releases what is held back for good: all partitions, or those that belong to one dump only because their
    /// topic or number is unknown.
    pub(super) fn drain(&mut self, all: bool) -> Vec<Released> {
        let is_unknown = |key: &&(String, i32)| all || key.0.is_empty() || key.1 < 0;
        let mut keys: Vec<(String, i32)> = self.partitions.keys().filter(is_unknown).cloned().collect();
        keys.sort();
        keys.iter().filter_map(|key| self.release_all(key)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(offset: i64) -> KafkaPosition<'static> {
        KafkaPosition { topic: "t", partition: 0, offset }
    }

    fn hold(
        buffer: &mut TransactionBuffer,
        offset: i64,
        producer_id: Option<i64>,
        bytes: usize,
    ) -> Option<Released> {
        let fate = producer_id.map_or(Fate::Counts, Fate::Open);
        let value = Some(vec![0; bytes]);
        let record = HeldRecord { file: "f".into(), location: DumpLocation::Line(1), offset, value, fate };
        buffer.hold(&position(offset), record)
    }

    fn offsets(released: Option<Released>) -> Vec<(i64, Fate)> {
        released.into_iter().flat_map(|it| it.records).map(|record| (record.offset, record.fate)).collect()
    }

    #[test]
    fn records_wait_for_the_end_of_the_transactions_before_them() {
        let mut buffer = TransactionBuffer::default();
        assert!(!buffer.must_hold(&position(0), None));
        assert!(buffer.must_hold(&position(0), Some(7)));
        for (offset, producer) in [(0, Some(7)), (1, None), (2, Some(8)), (3, Some(7)), (4, None)] {
            assert!(producer.is_some() || buffer.must_hold(&position(offset), None));
            hold(&mut buffer, offset, producer, 1);
        }
        assert!(!buffer.must_hold(&KafkaPosition { topic: "t", partition: 1, offset: 0 }, None));
        assert_eq!(offsets(buffer.end(&position(5), 9, true)), []);
        assert_eq!(offsets(buffer.end(&position(5), 7, false)), [(0, Fate::Counts), (1, Fate::Counts)]);
        let last = [(2, Fate::Aborted), (3, Fate::Counts), (4, Fate::Counts)];
        assert_eq!(offsets(buffer.end(&position(6), 8, true)), last);
        assert_eq!((buffer.bytes, buffer.partitions.len()), (0, 0));
    }

    #[test]
    fn what_never_ends_is_released_in_order() {
        let mut buffer = TransactionBuffer::default();
        hold(&mut buffer, 0, Some(7), 1);
        hold(&mut buffer, 1, None, 1);
        assert!(buffer.drain(false).is_empty());
        let released = buffer.drain(true).pop();
        assert_eq!(offsets(released), [(0, Fate::Open(7)), (1, Fate::Counts)]);
        // More than the memory for held records.
        let half = HELD_BYTES_MAX / 2;
        assert_eq!(offsets(hold(&mut buffer, 2, Some(7), half)), []);
        assert_eq!(offsets(hold(&mut buffer, 3, Some(7), half)).len(), 2);
        assert_eq!(buffer.bytes, 0);
    }
}
