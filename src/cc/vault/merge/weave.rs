//! The order of a stream's records from several files. Pure.
//!
//! Within a file the order is that in which records came, within a partition that of offsets, within a topic's name that
//! of its lives. One member's take-over comes after what it took over, so these never contradict each other; if files
//! say otherwise, offsets win.

use std::collections::{BTreeMap, VecDeque};

/// Records that stand in a file one behind the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Which file.
    pub file: usize,
    /// Which segment of it.
    pub segment: usize,
    /// The life of the topic, among those of all topics.
    pub generation: usize,
    /// The topic, as a number.
    pub topic: usize,
    /// The partition.
    pub partition: i32,
    /// The first record's offset.
    pub first_offset: i64,
}

/// Puts the files' pieces into one order.
pub fn weave(files: Vec<Vec<Piece>>) -> Vec<Piece> {
    // What is still to come of a topic's life, and of a partition in it.
    let mut lives: BTreeMap<usize, BTreeMap<usize, usize>> = BTreeMap::new();
    let mut offsets: BTreeMap<(usize, i32), BTreeMap<i64, usize>> = BTreeMap::new();
    for piece in files.iter().flatten() {
        *lives.entry(piece.topic).or_default().entry(piece.generation).or_default() += 1;
        let partition = offsets.entry((piece.generation, piece.partition)).or_default();
        *partition.entry(piece.first_offset).or_default() += 1;
    }
    let mut queues: Vec<VecDeque<Piece>> = files.into_iter().map(VecDeque::from).collect();
    let mut woven = Vec::new();
    loop {
        let heads = queues.iter().enumerate().filter_map(|(queue, pieces)| Some((queue, pieces.front()?)));
        let is_next = |piece: &Piece| {
            lives[&piece.topic].keys().next() == Some(&piece.generation)
                && offsets[&(piece.generation, piece.partition)].keys().next() == Some(&piece.first_offset)
        };
        let order = |piece: &Piece| (!is_next(piece), piece.generation, piece.partition, piece.first_offset);
        let Some((queue, _)) = heads.min_by_key(|(_, piece)| order(piece)) else { return woven };
        let Some(piece) = queues[queue].pop_front() else { return woven };
        take_one(lives.entry(piece.topic).or_default(), piece.generation);
        take_one(offsets.entry((piece.generation, piece.partition)).or_default(), piece.first_offset);
        woven.push(piece);
    }
}

fn take_one<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K) {
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

    /// Files as (generation, partition, offset); the order as (file, offset).
    #[track_caller]
    fn check(files: &[&[(usize, i32, i64)]], expected: &[(usize, i64)]) {
        let pieces = |(file, pieces): (usize, &&[(usize, i32, i64)])| -> Vec<Piece> {
            let piece =
                |(segment, (generation, partition, first_offset)): (usize, &(usize, i32, i64))| Piece {
                    file,
                    segment,
                    generation: *generation,
                    topic: 0,
                    partition: *partition,
                    first_offset: *first_offset,
                };
            pieces.iter().enumerate().map(piece).collect()
        };
        let woven = weave(files.iter().enumerate().map(pieces).collect());
        let order: Vec<_> = woven.iter().map(|piece| (piece.file, piece.first_offset)).collect();
        assert_eq!(order, expected);
    }

    #[test]
    fn offsets_order_what_members_have() {
        check(&[&[(0, 0, 0), (0, 0, 60)], &[(0, 0, 40)]], &[(0, 0), (1, 40), (0, 60)]);
        check(&[&[(0, 0, 40)], &[(0, 0, 0)]], &[(1, 0), (0, 40)]);
        check(&[], &[]);
    }

    #[test]
    fn the_order_in_a_file_stays() {
        check(&[&[(0, 1, 7), (0, 0, 3), (0, 1, 9)]], &[(0, 7), (0, 3), (0, 9)]);
        // Partition 1 went to the second member, and partition 0 stayed.
        check(&[&[(0, 1, 7), (0, 0, 3), (0, 0, 20)], &[(0, 1, 9)]], &[(0, 7), (0, 3), (0, 20), (1, 9)]);
    }

    #[test]
    fn what_a_topic_had_first_comes_first() {
        check(&[&[(1, 0, 0)], &[(0, 0, 50), (1, 0, 8)]], &[(1, 50), (0, 0), (1, 8)]);
    }

    #[test]
    fn what_contradicts_itself_ends_too() {
        check(&[&[(0, 0, 5), (0, 0, 1)], &[(0, 0, 3)]], &[(1, 3), (0, 5), (0, 1)]);
    }
}
