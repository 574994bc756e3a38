//! Duplicate detection: dumps of one topic may overlap, and each record counts once.
//!
//! An offset alone proves nothing: a topic that was deleted and recreated starts at 0 again. A record is a
//! duplicate only if offset, length and checksum equal those of an earlier record. Positions without a topic or a
//! partition are compared within one dump only.
//!
//! Memory is bounded. A record whose predecessor may have been forgotten is reported as such, and is not dropped.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::cc::kafka_dump::format::KafkaPosition;

/// Number of fingerprints for all partitions: 64 MiB.
const FINGERPRINTS_MAX: usize = 8 << 20;

/// Gap of offsets that is filled with empty fingerprints. A run of its own needs more memory than that.
const GAP_MAX: usize = 16;

/// Fingerprints that a run counts for, besides those of its records.
const RUN_COST: usize = 16;

/// Result of looking up a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dedup {
    New,
    /// The same record occurred before.
    Duplicate,
    /// A different record had this offset.
    Conflict,
    /// A record with this offset may have occurred and been forgotten.
    Forgotten,
}

/// Table of the records seen.
#[derive(Debug, Default)]
pub(super) struct DedupTable {
    partitions: HashMap<(String, i32), usize>,
    tracks: Vec<PartitionFingerprints>,
    /// Partition of the previous record, which is usually that of the next one.
    last: usize,
    cost: usize,
}

#[derive(Debug)]
struct PartitionFingerprints {
    topic: String,
    partition: i32,
    /// Runs of fingerprints by their first offset: one fingerprint per offset, 0 if there was no record. Runs are more
    /// than [`GAP_MAX`] apart, unless records between them came later.
    runs: BTreeMap<i64, VecDeque<u64>>,
    /// First and next offset of everything that was forgotten.
    forgotten: Option<(i64, i64)>,
}

impl DedupTable {
    /// Starts another dump.
    pub(super) fn start_dump(&mut self) {
        for track in self.tracks.iter_mut().filter(|track| track.topic.is_empty() || track.partition < 0) {
            self.cost -= track.cost();
            (track.runs, track.forgotten) = (BTreeMap::new(), None);
        }
    }

    /// Looks a record up and inserts it.
    pub(super) fn check_and_insert(&mut self, position: &KafkaPosition<'_>, value: Option<&[u8]>) -> Dedup {
        let at = self.partition_mut(position);
        let track = &mut self.tracks[at];
        let (was, added) = track.check_and_insert(position.offset, fingerprint(value));
        self.cost += added;
        while self.cost > FINGERPRINTS_MAX {
            let freed = self.tracks[at].forget_some();
            self.cost -= freed;
            if freed == 0 {
                break;
            }
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
                        runs: BTreeMap::new(),
                        forgotten: None,
                    });
                    tracks.len() - 1
                });
        }
        self.last
    }
}

impl PartitionFingerprints {
    fn cost(&self) -> usize {
        self.runs.values().map(|run| run.len() + RUN_COST).sum()
    }

    /// Returns the result and by how much the cost grew.
    fn check_and_insert(&mut self, offset: i64, mark: u64) -> (Dedup, usize) {
        let before = self.runs.range_mut(..=offset).next_back();
        if let Some((first, run)) = before {
            let place = offset.saturating_sub(*first);
            if let Some(known) = usize::try_from(place).ok().and_then(|place| run.get_mut(place)) {
                let was = match std::mem::replace(known, mark) {
                    0 => Dedup::New,
                    was if was == mark => Dedup::Duplicate,
                    _ => Dedup::Conflict,
                };
                return (self.unless_forgotten(was, offset), 0);
            }
            // The next run starts after this offset, so the run can be extended to it.
            let gap = usize::try_from(place).map_or(usize::MAX, |place| place - run.len());
            if gap <= GAP_MAX {
                run.extend(std::iter::repeat_n(0, gap));
                run.push_back(mark);
                return (self.unless_forgotten(Dedup::New, offset), gap + 1);
            }
        }
        // A dump may be sorted newest first.
        let above = self.runs.remove(&offset.saturating_add(1));
        let added = if above.is_some() { 1 } else { RUN_COST + 1 };
        let mut run = above.unwrap_or_default();
        run.push_front(mark);
        self.runs.insert(offset, run);
        (self.unless_forgotten(Dedup::New, offset), added)
    }

    /// A record that looks new in an interval that was forgotten may be a duplicate.
    fn unless_forgotten(&self, was: Dedup, offset: i64) -> Dedup {
        let is_forgotten = self.forgotten.is_some_and(|(first, next)| (first..next).contains(&offset));
        if was == Dedup::New && is_forgotten { Dedup::Forgotten } else { was }
    }

    /// Forgets the lowest fingerprints. Returns by how much the cost fell.
    fn forget_some(&mut self) -> usize {
        let Some(mut lowest) = self.runs.first_entry() else { return 0 };
        let first = *lowest.key();
        let half = lowest.get().len().div_ceil(2);
        let rest = lowest.get_mut().split_off(half);
        self.runs.remove(&first);
        let (from, to) = self.forgotten.unwrap_or((first, first));
        let next = first.saturating_add(half as i64);
        self.forgotten = Some((from.min(first), to.max(next)));
        if rest.is_empty() {
            return half + RUN_COST;
        }
        self.runs.insert(next, rest);
        half
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
        // Cases: an offset before the first one, a gap, a record within the gap, and a jump.
        assert_eq!(note("a", 0, 9, "x"), Dedup::New);
        assert_eq!(note("a", 0, 25, ""), Dedup::New);
        assert_eq!(note("a", 0, 22, ""), Dedup::New);
        assert_eq!(note("a", 0, 22, ""), Dedup::Duplicate);
        assert_eq!(note("a", 0, 1 << 40, ""), Dedup::New);
        assert_eq!(note("a", 0, 1 << 40, ""), Dedup::Duplicate);
        assert_eq!(note("a", 0, 25, ""), Dedup::Duplicate);
        assert_eq!(note("a", 0, i64::MAX, ""), Dedup::New);
        assert_eq!(note("a", 0, i64::MIN, ""), Dedup::New);
        assert_eq!(note("a", 0, i64::MAX, ""), Dedup::Duplicate);
    }

    #[test]
    fn a_position_without_topic_or_partition_is_compared_within_its_dump() {
        let mut seen = DedupTable::default();
        let places = [("", 0), ("t", -1), ("", -1), ("t", 0)];
        let note = |seen: &mut DedupTable| {
            places.map(|(topic, partition)| {
                seen.check_and_insert(&KafkaPosition { topic, partition, offset: 7 }, Some(b"x"))
            })
        };
        assert_eq!(note(&mut seen), [Dedup::New; 4]);
        assert_eq!(note(&mut seen), [Dedup::Duplicate; 4]);
        seen.start_dump();
        assert_eq!(note(&mut seen), [Dedup::New, Dedup::New, Dedup::New, Dedup::Duplicate]);
    }

    /// What was forgotten is neither new nor a duplicate.
    #[test]
    fn memory_is_bounded_and_its_end_is_reported() {
        for step in [1, 1000] {
            let mut seen = DedupTable::default();
            let mut note =
                |offset| seen.check_and_insert(&KafkaPosition { topic: "t", partition: 0, offset }, None);
            let count = FINGERPRINTS_MAX as i64 / if step == 1 { 1 } else { RUN_COST as i64 } + 10;
            for nth in 0..count {
                assert_eq!(note(nth * step), Dedup::New);
            }
            assert_eq!(note(0), Dedup::Forgotten);
            assert_eq!(note((count - 1) * step), Dedup::Duplicate);
            assert!(seen.cost <= FINGERPRINTS_MAX && seen.cost == seen.tracks[0].cost());
        }
    }
}
