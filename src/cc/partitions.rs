//! The partitions that this process reads, or has read: what /metrics and /partitions show of each. The thread that
//! polls writes the numbers, once a batch; others read them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::counters::Counter;

/// Partitions that are shown; what is beyond is in the totals alone. Each is ten samples for whoever collects them.
pub const PARTITIONS_MAX: usize = 1000;

/// One partition.
#[derive(Debug)]
pub struct LivePartition {
    /// The topic.
    pub topic: String,
    /// The partition's number.
    pub number: i32,
    /// False when another member of the group has it, or nobody.
    pub is_assigned: AtomicBool,
    /// Records of it that went into stream files, since the start of the process.
    pub records_total: Counter,
    /// Records of it that came again.
    pub repeated_total: Counter,
    /// Records of it that could not be used.
    pub dead_letters_total: Counter,
    /// The offset behind the last record that was taken.
    pub next_offset: Offset,
    /// What the group has acknowledged: the offset behind the last record that is stored.
    pub committed_offset: Offset,
    /// The offset behind the last record that is there, by the broker's latest answer.
    pub end_offset: Offset,
}

impl LivePartition {
    /// Records that are there and were not taken.
    pub fn lag(&self) -> Option<u64> {
        Some(self.end_offset.get()?.saturating_sub(self.next_offset.get()?))
    }
}

/// An offset, once it is known.
#[derive(Debug)]
pub struct Offset(AtomicI64);

impl Default for Offset {
    fn default() -> Offset {
        Offset(AtomicI64::new(-1))
    }
}

impl Offset {
    /// Sets it; a negative one is none.
    pub fn set(&self, offset: i64) {
        self.0.store(offset, Ordering::Relaxed);
    }

    /// The offset now.
    pub fn get(&self) -> Option<u64> {
        u64::try_from(self.0.load(Ordering::Relaxed)).ok()
    }
}

/// All partitions of this process.
#[derive(Debug, Default)]
pub struct Partitions {
    known: Mutex<BTreeMap<(String, i32), Arc<LivePartition>>>,
}

impl Partitions {
    /// The partition of that topic and number; it is assigned now. One that was there before goes on counting.
    pub fn assign(&self, topic: &str, number: i32) -> Arc<LivePartition> {
        let mut known = self.lock();
        let key = (topic.to_owned(), number);
        let partition = known.get(&key).map(Arc::clone).unwrap_or_else(|| {
            let fresh = Arc::new(LivePartition {
                topic: topic.to_owned(),
                number,
                is_assigned: AtomicBool::new(true),
                records_total: Counter::default(),
                repeated_total: Counter::default(),
                dead_letters_total: Counter::default(),
                next_offset: Offset::default(),
                committed_offset: Offset::default(),
                end_offset: Offset::default(),
            });
            if known.len() < PARTITIONS_MAX {
                known.insert(key, Arc::clone(&fresh));
            } else {
                log::debug!("partition_not_shown topic={topic} partition={number} shown={PARTITIONS_MAX}");
            }
            fresh
        });
        partition.is_assigned.store(true, Ordering::Relaxed);
        partition
    }

    /// Those that are shown, by topic and number.
    pub fn list(&self) -> Vec<Arc<LivePartition>> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, i32), Arc<LivePartition>>> {
        self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[test]
fn what_is_shown_is_bounded() {
    let partitions = Partitions::default();
    let first = partitions.assign("t", 0);
    first.records_total.add(3);
    for number in 0..PARTITIONS_MAX as i32 + 5 {
        partitions.assign("t", number).records_total.one();
    }
    let shown = partitions.list();
    assert_eq!((shown.len(), shown[0].records_total.get()), (PARTITIONS_MAX, 4));
    assert!(shown.windows(2).all(|two| two[0].number < two[1].number));
    assert_eq!(first.lag(), None);
    first.next_offset.set(7);
    first.end_offset.set(9);
    assert_eq!(first.lag(), Some(2));
}
