//! Orders the records of one stream from several files. Pure.
//!
//! The order keeps the order within each file, of offsets within each partition, and of incarnations within
//! each topic. A take-over comes after what it continues, so these orders normally agree. If files contradict
//! them, offsets win.

use std::collections::{BTreeMap, VecDeque};

/// A reference to a segment of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SegmentRef {
    /// Index of the file.
    pub file: usize,
    /// Index of the segment in the file.
    pub segment: usize,
    /// Incarnation of the topic, numbered across all topics.
    pub generation: usize,
    /// Number of the topic.
    pub topic: usize,
    pub partition: i32,
    pub first_offset: i64,
}

/// Interleaves the segments of several files.
pub(super) fn interleave(files: Vec<Vec<SegmentRef>>) -> Vec<SegmentRef> {
    // Remaining segments of each incarnation of a topic and of each partition.
    let mut lives: BTreeMap<usize, BTreeMap<usize, usize>> = BTreeMap::new();
    let mut offsets: BTreeMap<(usize, i32), BTreeMap<i64, usize>> = BTreeMap::new();
    for piece in files.iter().flatten() {
        *lives.entry(piece.topic).or_default().entry(piece.generation).or_default() += 1;
        let partition = offsets.entry((piece.generation, piece.partition)).or_default();
        *partition.entry(piece.first_offset).or_default() += 1;
    }
    let mut queues: Vec<VecDeque<SegmentRef>> = files.into_iter().map(VecDeque::from).collect();
    let mut woven = Vec::new();
    loop {
        let heads = queues.iter().enumerate().filter_map(|(queue, pieces)| Some((queue, pieces.front()?)));
        let is_next = |piece: &SegmentRef| {
            lives[&piece.topic].keys().next() == Some(&piece.generation)
                && offsets[&(piece.generation, piece.partition)].keys().next() == Some(&piece.first_offset)
        };
        let order =
            |piece: &SegmentRef| (!is_next(piece), piece.generation, piece.partition, piece.first_offset);
        let Some((queue, _)) = heads.min_by_key(|(_, piece)| order(piece)) else { return woven };
        let Some(piece) = queues[queue].pop_front() else { return woven };
        decrement(lives.entry(piece.topic).or_default(), piece.generation);
        decrement(offsets.entry((piece.generation, piece.partition)).or_default(), piece.first_offset);
        woven.push(piece);
    }
}

fn decrement<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks the order of files given as (generation, partition, offset). The result is (file, offset).
    #[track_caller]
    fn check(files: &[&[(usize, i32, i64)]], expected: &[(usize, i64)]) {
        let pieces = |(file, pieces): (usize, &&[(usize, i32, i64)])| -> Vec<SegmentRef> {
            let piece =
                |(segment, (generation, partition, first_offset)): (usize, &(usize, i32, i64))| SegmentRef {
                    file,
                    segment,
                    generation: *generation,
                    topic: 0,
                    partition: *partition,
                    first_offset: *first_offset,
                };
            pieces.iter().enumerate().map(piece).collect()
        };
        let woven = interleave(files.iter().enumerate().map(pieces).collect());
        let order: Vec<_> = woven.iter().map(|piece| (piece.file, piece.first_offset)).collect();
        assert_eq!(order, expected);
    }

    #[test]
    fn segments_are_ordered_by_offset() {
        check(&[&[(0, 0, 0), (0, 0, 60)], &[(0, 0, 40)]], &[(0, 0), (1, 40), (0, 60)]);
        check(&[&[(0, 0, 40)], &[(0, 0, 0)]], &[(1, 0), (0, 40)]);
        check(&[], &[]);
    }

    #[test]
    fn the_order_within_a_file_is_kept() {
        check(&[&[(0, 1, 7), (0, 0, 3), (0, 1, 9)]], &[(0, 7), (0, 3), (0, 9)]);
        // Partition 1 moved to the second member and partition 0 stayed.
        check(&[&[(0, 1, 7), (0, 0, 3), (0, 0, 20)], &[(0, 1, 9)]], &[(0, 7), (0, 3), (0, 20), (1, 9)]);
    }

    #[test]
    fn older_incarnations_come_first() {
        check(&[&[(1, 0, 0)], &[(0, 0, 50), (1, 0, 8)]], &[(1, 50), (0, 0), (1, 8)]);
    }

    #[test]
    fn contradicting_files_are_ordered_by_offset() {
        check(&[&[(0, 0, 5), (0, 0, 1)], &[(0, 0, 3)]], &[(1, 3), (0, 5), (0, 1)]);
    }
}
