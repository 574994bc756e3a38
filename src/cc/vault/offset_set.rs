//! The offsets of one partition that a directory has, as disjoint ranges in order. Pure.
//!
//! The set is bounded. When it has too many ranges, the lowest ones are replaced by an interval of which nothing is
//! known any more. An offset in that interval is [`Membership::Unknown`]: never "stored", never "missing".

use std::collections::BTreeMap;

/// Limit on the ranges of a partition: about 6 MiB. A dump that was filtered by user has one range per record.
const RANGES_MAX: usize = 65_536;

/// Offsets without a gap between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OffsetRange {
    pub first: i64,
    /// Offset after the last one.
    pub next: i64,
    /// Whether reading started at `first` because the consumer group had committed it, so another member has the offsets
    /// below.
    pub taken_over: bool,
    /// Time when `first` was read: RFC 3339, UTC.
    pub since: String,
}

/// Whether an offset is in a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Membership {
    Stored,
    Missing,
    /// The set was too large and has forgotten it.
    Unknown,
}

/// Offsets between two ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    pub first: i64,
    /// Offset after the last missing one.
    pub next: i64,
    /// Whether another member of the consumer group has these offsets.
    pub taken_over: bool,
}

/// A bounded set of offsets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OffsetSet {
    /// By first offset. No two ranges overlap or touch.
    ranges: BTreeMap<i64, OffsetRange>,
    /// First and next offset of the interval that was forgotten.
    unknown: Option<(i64, i64)>,
}

impl OffsetRange {
    /// Extends the range over another one that overlaps or touches it. The lower one decides how it started.
    pub(crate) fn join(&mut self, other: OffsetRange) {
        let next = self.next.max(other.next);
        if other.first <= self.first {
            *self = other;
        }
        self.next = next;
    }
}

impl OffsetSet {
    pub(crate) fn with_unknown(unknown: Option<(i64, i64)>) -> OffsetSet {
        OffsetSet { ranges: BTreeMap::new(), unknown: unknown.filter(|(first, next)| first < next) }
    }

    pub(crate) fn lookup(&self, offset: i64) -> Membership {
        let below = self.ranges.range(..=offset).next_back();
        if below.is_some_and(|(_, range)| offset < range.next) {
            return Membership::Stored;
        }
        match self.unknown {
            Some((first, next)) if (first..next).contains(&offset) => Membership::Unknown,
            _ => Membership::Missing,
        }
    }

    /// Adds a range, joined with all that it overlaps or touches.
    pub(crate) fn add(&mut self, mut range: OffsetRange) {
        if range.first >= range.next {
            return;
        }
        if let Some(touching) = self.take_touching(range.first, range.next) {
            range.join(touching);
        }
        self.ranges.insert(range.first, range);
        while self.ranges.len() > RANGES_MAX {
            self.forget_lowest();
        }
    }

    /// Removes all ranges that overlap or touch an interval, which may be empty. Returns their union.
    pub(crate) fn take_touching(&mut self, first: i64, next: i64) -> Option<OffsetRange> {
        let mut union: Option<OffsetRange> = None;
        while let Some((&at, _)) =
            self.ranges.range(..=next).next_back().filter(|(_, range)| range.next >= first)
        {
            let Some(range) = self.ranges.remove(&at) else { break };
            match &mut union {
                Some(union) => union.join(range),
                None => union = Some(range),
            }
        }
        union
    }

    fn forget_lowest(&mut self) {
        let Some((_, range)) = self.ranges.pop_first() else { return };
        let (first, next) = self.unknown.unwrap_or((range.first, range.next));
        self.unknown = Some((first.min(range.first), next.max(range.next)));
    }

    /// Removes all offsets from `at` on. Returns the ranges that contained them, as they were.
    pub(crate) fn truncate(&mut self, at: i64) -> Vec<OffsetRange> {
        let mut removed: Vec<OffsetRange> = self.ranges.split_off(&at).into_values().collect();
        if let Some(mut last) = self.ranges.last_entry().filter(|last| last.get().next > at) {
            removed.insert(0, last.get().clone());
            last.get_mut().next = at;
        }
        self.unknown =
            self.unknown.map(|(first, next)| (first, next.min(at))).filter(|(first, next)| first < next);
        removed
    }

    /// Returns the offset after the highest one.
    pub(crate) fn end(&self) -> Option<i64> {
        let last = self.ranges.last_key_value().map(|(_, range)| range.next);
        last.max(self.unknown.map(|(_, next)| next))
    }

    /// Returns the first offset of the lowest range.
    pub(crate) fn start(&self) -> Option<i64> {
        let first = self.ranges.first_key_value().map(|(first, _)| *first);
        let unknown = self.unknown.map(|(first, _)| first);
        first.into_iter().chain(unknown).min()
    }

    /// Returns the first offset of the next range from `offset` on.
    pub(crate) fn next_start(&self, offset: i64) -> Option<i64> {
        self.ranges.range(offset..).next().map(|(first, _)| *first)
    }

    /// Returns the lowest offset from `offset` on that is missing.
    pub(crate) fn first_missing(&self, mut offset: i64) -> i64 {
        loop {
            let below = self.ranges.range(..=offset).next_back().map(|(_, range)| range.next);
            let unknown = self.unknown.filter(|(first, _)| *first <= offset).map(|(_, next)| next);
            match below.max(unknown).filter(|next| *next > offset) {
                Some(next) => offset = next,
                None => return offset,
            }
        }
    }

    pub(crate) fn ranges(&self) -> impl Iterator<Item = &OffsetRange> {
        self.ranges.values()
    }

    pub(crate) fn unknown(&self) -> Option<(i64, i64)> {
        self.unknown
    }

    /// Returns the missing offsets between `first` and `next`, as far as they are between two ranges. The unknown
    /// interval counts as a gap, because nothing shows that its offsets were read.
    pub(crate) fn gaps(&self, first: i64, next: i64) -> Vec<Gap> {
        let mut gaps = Vec::new();
        let mut end: Option<i64> = self.unknown.map(|(first, _)| first);
        for range in self.ranges.values() {
            if let Some(end) = end.filter(|end| *end < range.first) {
                let (from, to) = (end.max(first), range.first.min(next));
                if from < to {
                    gaps.push(Gap { first: from, next: to, taken_over: range.taken_over });
                }
            }
            end = end.max(Some(range.next));
        }
        gaps
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn range(first: i64, next: i64) -> OffsetRange {
        OffsetRange { first, next, ..OffsetRange::default() }
    }

    fn set(ranges: &[(i64, i64)]) -> OffsetSet {
        let mut set = OffsetSet::default();
        ranges.iter().for_each(|(first, next)| set.add(range(*first, *next)));
        set
    }

    fn ranges(set: &OffsetSet) -> Vec<(i64, i64)> {
        set.ranges().map(|range| (range.first, range.next)).collect()
    }

    #[test]
    fn ranges_that_touch_are_joined() {
        assert_eq!(ranges(&set(&[(5, 6), (0, 2), (3, 5), (9, 9)])), [(0, 2), (3, 6)]);
        assert_eq!(ranges(&set(&[(0, 2), (4, 6), (8, 9), (2, 8)])), [(0, 9)]);
        assert_eq!(ranges(&set(&[(0, 9), (4, 6)])), [(0, 9)]);
        let mut set = set(&[(0, 2), (4, 6)]);
        assert_eq!(set.take_touching(2, 2).map(|range| (range.first, range.next)), Some((0, 2)));
        assert_eq!(set.take_touching(2, 3), None);
    }

    #[test]
    fn the_lowest_missing_offset_is_found() {
        let set = set(&[(2, 4), (6, 9)]);
        let found: Vec<_> = [0, 2, 3, 4, 5, 6, 9, 20].map(|from| set.first_missing(from)).to_vec();
        assert_eq!(found, [0, 4, 4, 4, 5, 9, 9, 20]);
        assert_eq!((set.start(), set.end(), set.next_start(3)), (Some(2), Some(9), Some(6)));
    }

    #[test]
    fn gaps_are_between_ranges_only() {
        let mut set = set(&[(2, 4), (6, 9)]);
        set.add(OffsetRange { taken_over: true, ..range(12, 13) });
        let gap = |first, next, taken_over| Gap { first, next, taken_over };
        assert_eq!(set.gaps(0, 99), [gap(4, 6, false), gap(9, 12, true)]);
        assert_eq!(set.gaps(5, 10), [gap(5, 6, false), gap(9, 10, true)]);
        assert_eq!(set.gaps(6, 9), []);
    }

    #[test]
    fn truncation_returns_what_the_offsets_were() {
        let mut whole = set(&[(2, 4), (6, 9), (12, 13)]);
        assert_eq!(whole.truncate(7), [range(6, 9), range(12, 13)]);
        assert_eq!(ranges(&whole), [(2, 4), (6, 7)]);
        assert_eq!(whole.truncate(20), []);
    }

    #[test]
    fn what_does_not_fit_is_unknown_and_never_wrong() {
        let mut set = OffsetSet::default();
        let last = 2 * (RANGES_MAX as i64 + 3);
        (0..=last).step_by(2).for_each(|offset| set.add(range(offset, offset + 1)));
        assert_eq!(set.ranges().count(), RANGES_MAX);
        assert_eq!((set.lookup(0), set.lookup(1)), (Membership::Unknown, Membership::Unknown));
        assert_eq!((set.lookup(last), set.lookup(last - 1)), (Membership::Stored, Membership::Missing));
        assert_eq!(set.first_missing(0), set.unknown().unwrap().1);
        assert_eq!(set.gaps(0, 2)[0].first, 0);
    }

    /// Compares the set with a set of single offsets.
    #[test]
    fn random_ranges_are_those_of_a_simple_set() {
        let mut state = 11u64;
        let mut below = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % below) as i64
        };
        for _ in 0..500 {
            let (mut set, mut simple) = (OffsetSet::default(), BTreeSet::new());
            for _ in 0..below(12) {
                let first = below(40);
                let next = first + below(6);
                set.add(range(first, next));
                simple.extend(first..next);
            }
            for offset in 0..50 {
                let is_stored = set.lookup(offset) == Membership::Stored;
                assert_eq!(is_stored, simple.contains(&offset));
                let missing = (offset..).find(|offset| !simple.contains(offset)).unwrap();
                assert_eq!(set.first_missing(offset), missing);
            }
            let ends = simple.first().zip(simple.last()).map_or(0..0, |(first, last)| *first..*last);
            let gaps: BTreeSet<i64> = set.gaps(0, 99).iter().flat_map(|gap| gap.first..gap.next).collect();
            assert!(gaps.into_iter().eq(ends.filter(|offset| !simple.contains(offset))));
        }
    }
}
