//! Duplicate detection: dumps of one topic may overlap, and each record counts once.
//!
//! An offset alone proves nothing: a topic that was deleted and recreated starts at 0 again. A record is a
//! duplicate only if offset, length and checksum equal those of an earlier record. Memory is bounded, so a
//! record whose predecessor was forgotten counts as new. No record is dropped in case of doubt.

use std::collections::{HashMap, VecDeque};

use crate::cc::kafka_dump::format::KafkaPosition;

/// Number of records remembered for all partitions: 64 MiB.
const RECORDS_MAX: usize = 8 << 20;

/// A larger jump of the offset discards what was remembered of the partition.
const GAP_MAX: i64 = 1 << 16;

/// Result of looking up a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dedup {
    New,
    /// The same record occurred before.
    Duplicate,
    /// A different record had this offset.
    Conflict,
}

/// Table of the records seen.
#[derive(Debug, Default)]
pub(super) struct DedupTable {
    partitions: HashMap<(String, i32), usize>,
    tracks: Vec<PartitionFingerprints>,
    /// Partition of the previous record, which is usually that of the next one.
    last: usize,
    records: usize,
}

#[derive(Debug)]
struct PartitionFingerprints {
    topic: String,
    partition: i32,
    /// Offset of the first fingerprint.
    first: i64,
    /// One fingerprint per offset from there on, 0 if there was no record.
    fingerprints: VecDeque<u64>,
}

impl DedupTable {
    /// Looks a record up and inserts it.
    pub(super) fn check_and_insert(&mut self, position: &KafkaPosition<'_>, value: Option<&[u8]>) -> Dedup {
        let at = self.partition_mut(position);
        let track = &mut self.tracks[at];
        let before = track.fingerprints.len();
        let was = track.check_and_insert(position.offset, fingerprint(value));
        self.records = self.records - before + track.fingerprints.len();
        while self.records > RECORDS_MAX && track.fingerprints.pop_front().is_some() {
            track.first += 1;
            self.records -= 1;
        }
        was
    }

    fn partition_mut(&mut self, position: &KafkaPosition<'_>) -> usize {
        let is = |track: &PartitionFingerprints| position.is_in(&track.topic, track.partition);
        if !self.tracks.get(self.last).is_some_and(is) {
            let tracks = &mut self.tracks;
            self.last = *self
                .partitions
                .entry((position.topic.to_owned(), position.partition))
                .or_insert_with(|| {
                    tracks.push(PartitionFingerprints {
                        topic: position.topic.to_owned(),
                        partition: position.partition,
                        first: position.offset,
                        fingerprints: VecDeque::new(),
                    });
                    tracks.len() - 1
                });
        }
        self.last
    }
}

impl PartitionFingerprints {
    fn check_and_insert(&mut self, offset: i64, mark: u64) -> Dedup {
        let next = self.first.saturating_add(self.fingerprints.len() as i64);
        if offset < self.first {
            return Dedup::New;
        }
        if offset < next {
            let known = &mut self.fingerprints[(offset - self.first) as usize];
            return match std::mem::replace(known, mark) {
                0 => Dedup::New,
                was if was == mark => Dedup::Duplicate,
                _ => Dedup::Conflict,
            };
        }
        if offset - next > GAP_MAX {
            self.fingerprints.clear();
            self.first = offset;
        } else {
            self.fingerprints.extend(std::iter::repeat_n(0, (offset - next) as usize));
        }
        self.fingerprints.push_back(mark);
        Dedup::New
    }
}

/// Combines length and checksum. Never 0.
fn fingerprint(value: Option<&[u8]>) -> u64 {
    let value = value.unwrap_or_default();
    (value.len() as u64 + 1) << 32 | u64::from(crc32c::crc32c(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_record_at_the_same_offset_is_a_repetition() {
        let mut seen = DedupTable::default();
        let mut note = |topic, partition, offset, value: &str| {
            seen.check_and_insert(&KafkaPosition { topic, partition, offset }, Some(value.as_bytes()))
        };
        for offset in 10..20 {
            assert_eq!(note("a", 0, offset, "x"), Dedup::New);
        }
        assert_eq!(note("a", 0, 15, "x"), Dedup::Duplicate);
        assert_eq!(note("a", 0, 15, "y"), Dedup::Conflict);
        assert_eq!(note("a", 0, 15, "y"), Dedup::Duplicate);
        assert_eq!(note("a", 1, 15, "x"), Dedup::New);
        assert_eq!(note("b", 0, 15, "x"), Dedup::New);
        // Cases: an offset before the first one, a gap, a record within the gap, and a jump that clears the
        // table.
        assert_eq!(note("a", 0, 9, "x"), Dedup::New);
        assert_eq!(note("a", 0, 25, ""), Dedup::New);
        assert_eq!(note("a", 0, 22, ""), Dedup::New);
        assert_eq!(note("a", 0, 22, ""), Dedup::Duplicate);
        assert_eq!(note("a", 0, 1 << 40, ""), Dedup::New);
        assert_eq!(note("a", 0, 1 << 40, ""), Dedup::Duplicate);
        assert_eq!(note("a", 0, 25, ""), Dedup::New);
    }

    #[test]
    fn memory_is_bounded() {
        let mut seen = DedupTable::default();
        for offset in 0..RECORDS_MAX as i64 + 10 {
            seen.check_and_insert(&KafkaPosition { topic: "", partition: 0, offset }, None);
        }
        assert_eq!(seen.records, RECORDS_MAX);
        assert_eq!(
            seen.check_and_insert(&KafkaPosition { topic: "", partition: 0, offset: 9 }, None),
            Dedup::New
        );
        assert_eq!(
            seen.check_and_insert(&KafkaPosition { topic: "", partition: 0, offset: 10 }, None),
            Dedup::Duplicate
        );
    }
}
