//! Statistics of the Kafka partitions that this process reads or has read, for /metrics and /partitions. The
//! polling thread updates them once per batch, other threads read them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::runtime::metrics::Counter;

/// Number of partitions that are listed individually. Others count in the totals only. Each partition adds
/// ten samples to /metrics.
pub(crate) const SHOWN_PARTITIONS_MAX: usize = 1000;

/// Statistics of a partition.
#[derive(Debug)]
pub struct PartitionStats {
    pub topic: String,
    pub number: i32,
    /// False if another group member, or none, has it.
    pub is_assigned: AtomicBool,
    /// Records stored in stream files since the process started.
    pub records_total: Counter,
    /// Duplicate records.
    pub duplicates_total: Counter,
    /// Records stored as dead letters.
    pub dead_letters_total: Counter,
    /// Offset after the last record that was accepted.
    pub next_offset: AtomicOffset,
    /// Offset committed by the group: the offset after the last stored record.
    pub committed_offset: AtomicOffset,
    /// Offset after the last record in the partition, from the broker's latest answer.
    pub end_offset: AtomicOffset,
}

impl PartitionStats {
    /// Number of records in the partition that were not yet accepted.
    pub fn lag(&self) -> Option<u64> {
        Some(self.end_offset.get()?.saturating_sub(self.next_offset.get()?))
    }
}

/// Offset that may be unknown.
#[derive(Debug)]
pub struct AtomicOffset(AtomicI64);

impl Default for AtomicOffset {
    fn default() -> AtomicOffset {
        AtomicOffset(AtomicI64::new(-1))
    }
}

impl AtomicOffset {
    /// Sets the offset. A negative value means unknown.
    pub fn set(&self, offset: i64) {
        self.0.store(offset, Ordering::Relaxed);
    }

    pub fn get(&self) -> Option<u64> {
        u64::try_from(self.0.load(Ordering::Relaxed)).ok()
    }
}

/// Registry of this process's partitions.
#[derive(Debug, Default)]
pub struct PartitionRegistry {
    known: Mutex<BTreeMap<(String, i32), Arc<PartitionStats>>>,
}

impl PartitionRegistry {
    /// Returns the statistics of a partition and marks it as assigned. A known partition keeps its counts.
    pub fn assign(&self, topic: &str, number: i32) -> Arc<PartitionStats> {
        let mut known = self.lock();
        let key = (topic.to_owned(), number);
        let partition = known.get(&key).map(Arc::clone).unwrap_or_else(|| {
            let fresh = Arc::new(PartitionStats {
                topic: topic.to_owned(),
                number,
                is_assigned: AtomicBool::new(true),
                records_total: Counter::default(),
                duplicates_total: Counter::default(),
                dead_letters_total: Counter::default(),
                next_offset: AtomicOffset::default(),
                committed_offset: AtomicOffset::default(),
                end_offset: AtomicOffset::default(),
            });
            if known.len() < SHOWN_PARTITIONS_MAX {
                known.insert(key, Arc::clone(&fresh));
            } else {
                log::debug!(
                    "partition_not_shown topic={topic} partition={number} shown={SHOWN_PARTITIONS_MAX}"
                );
            }
            fresh
        });
        partition.is_assigned.store(true, Ordering::Relaxed);
        partition
    }

    /// Lists the partitions by topic and number.
    pub fn list(&self) -> Vec<Arc<PartitionStats>> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, i32), Arc<PartitionStats>>> {
        self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[test]
fn the_number_of_listed_partitions_is_bounded() {
    let partitions = PartitionRegistry::default();
    let first = partitions.assign("t", 0);
    first.records_total.add(3);
    for number in 0..SHOWN_PARTITIONS_MAX as i32 + 5 {
        partitions.assign("t", number).records_total.inc();
    }
    let shown = partitions.list();
    assert_eq!((shown.len(), shown[0].records_total.get()), (SHOWN_PARTITIONS_MAX, 4));
    assert!(shown.windows(2).all(|two| two[0].number < two[1].number));
    assert_eq!(first.lag(), None);
    first.next_offset.set(7);
    first.end_offset.set(9);
    assert_eq!(first.lag(), Some(2));
}
