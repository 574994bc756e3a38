//! Decides for each offset of a partition which member's records are used. Pure.
//!
//! A member that died may have records beyond the offset at which another one took over, so both have them. A
//! file can be split at an offset only if no segment crosses it. If one does, nothing is omitted and the
//! possible duplicates are reported.

use std::collections::{BTreeMap, BTreeSet};

use crate::cc::vault::checkpoint::ReadRange;
use crate::cc::vault::manifest::RecordSegment;

/// A partition of one incarnation of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PartitionKey {
    pub topic: String,
    /// Topic id, if the broker reported one.
    pub topic_id: Option<String>,
    pub partition: i32,
}

impl PartitionKey {
    pub(super) fn of_segment(segment: &RecordSegment) -> PartitionKey {
        PartitionKey {
            topic: segment.topic.clone(),
            topic_id: segment.topic_id.clone(),
            partition: segment.partition,
        }
    }

    pub(super) fn of_range(range: &ReadRange) -> PartitionKey {
        PartitionKey {
            topic: range.topic.clone(),
            topic_id: range.topic_id.clone(),
            partition: range.partition,
        }
    }
}

/// What one member has of a partition.
#[derive(Clone, Debug, Default)]
pub(super) struct DirRanges {
    /// Offset ranges read: first offset, next offset, and whether the group had committed the first offset.
    pub reads: Vec<(i64, i64, bool)>,
    /// First and next offset of each segment.
    pub segments: Vec<(i64, i64)>,
}

/// A range of offsets whose records are taken from one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OwnedRange {
    /// Index of the member's directory.
    pub dir: usize,
    pub first: i64,
    /// Offset after the last one.
    pub next: i64,
}

/// A range of offsets that no member has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UnreadRange {
    /// First offset. `None` if only the end of the range is known.
    pub first: Option<i64>,
    /// Offset after the last one.
    pub next: i64,
}

/// An offset at which the records should switch to another member, but a segment crosses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SplitImpossible {
    /// Index of the directory whose segment crosses the offset.
    pub dir: usize,
    pub offset: i64,
}

/// The merge plan of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MergePlan {
    /// In order and without overlaps.
    pub owned: Vec<OwnedRange>,
    pub missing: Vec<UnreadRange>,
    pub impossible_splits: Vec<SplitImpossible>,
}

impl MergePlan {
    /// Returns whether records of these offsets are taken from this member.
    pub(super) fn owns(&self, dir: usize, first: i64, next: i64) -> bool {
        let from = self.owned.partition_point(|owned| owned.next <= first);
        self.owned[from..].iter().take_while(|owned| owned.first < next).any(|owned| owned.dir == dir)
    }
}

/// Cost of a switch where a file cannot be split. It exceeds any number of ordinary switches.
const SPLIT_IMPOSSIBLE_COST: u64 = 1 << 32;

/// Plans one partition. If several members have the same records, those of the first one in `shares` are
/// used.
pub(super) fn plan(shares: &BTreeMap<usize, DirRanges>) -> MergePlan {
    let ranges = ranges(shares);
    let points: Vec<i64> = {
        let all: BTreeSet<i64> = ranges.iter().flat_map(|range| [range.first, range.next]).collect();
        all.into_iter().collect()
    };
    let crossed: BTreeMap<usize, Vec<bool>> =
        shares.iter().map(|(dir, share)| (*dir, crossed_points(share, &points))).collect();
    let is_crossed = |range: &OwnedRange, point: usize| {
        points[point] != range.first && points[point] != range.next && crossed[&range.dir][point]
    };
    let path = cheapest_path(&ranges, &points, &is_crossed);
    let mut plan = MergePlan { missing: unread_before(shares, &points), ..MergePlan::default() };
    for (at, chosen) in path.iter().enumerate() {
        let Some(chosen) = chosen.map(|chosen| &ranges[chosen]) else {
            let (first, next) = (points[at], points[at + 1]);
            plan.missing.push(UnreadRange { first: Some(first), next });
            continue;
        };
        let before = at.checked_sub(1).and_then(|before| path[before]).map(|before| &ranges[before]);
        if let Some(owned) = plan.owned.last_mut().filter(|_| before == Some(chosen)) {
            owned.next = points[at + 1];
            continue;
        }
        for range in before.into_iter().chain([chosen]).filter(|range| is_crossed(range, at)) {
            plan.impossible_splits.push(SplitImpossible { dir: range.dir, offset: points[at] });
        }
        plan.owned.push(OwnedRange { first: points[at], next: points[at + 1], ..*chosen });
    }
    plan
}

/// Returns all ranges that were read. A member without recorded ranges (of an earlier version) has read what
/// its segments contain.
fn ranges(shares: &BTreeMap<usize, DirRanges>) -> Vec<OwnedRange> {
    let mut ranges = Vec::new();
    for (dir, share) in shares {
        let dir = *dir;
        let mut recorded: Vec<(i64, i64)> =
            share.reads.iter().map(|(first, next, _)| (*first, *next)).collect();
        recorded.sort_unstable();
        // Ranges may overlap if offsets were used twice, so the end that counts is the highest one so far.
        let ends = recorded.iter().scan(i64::MIN, |end, (_, next)| {
            *end = (*end).max(*next);
            Some(*end)
        });
        let ends: Vec<i64> = ends.collect();
        let is_told = |offset: i64| {
            let below = recorded.partition_point(|(first, _)| *first <= offset);
            below.checked_sub(1).is_some_and(|at| offset < ends[at])
        };
        let untold = share.segments.iter().filter(|(first, _)| !is_told(*first));
        let untold = untold.copied().reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        let all = recorded.iter().copied().chain(untold);
        ranges.extend(all.map(|(first, next)| OwnedRange { dir, first, next }));
    }
    ranges.retain(|range| range.first < range.next);
    ranges
}

/// Returns for each point whether a segment of the member crosses it.
fn crossed_points(share: &DirRanges, points: &[i64]) -> Vec<bool> {
    let mut steps = vec![0i64; points.len() + 1];
    for (first, next) in &share.segments {
        let from = points.partition_point(|point| point <= first);
        let to = points.partition_point(|point| point < next);
        if from < to {
            steps[from] += 1;
            steps[to] -= 1;
        }
    }
    let mut depth = 0;
    let depths = steps.iter().map(|step| {
        depth += step;
        depth > 0
    });
    depths.take(points.len()).collect()
}

/// Chooses a range for each interval between two points, with as few impossible splits and then as few
/// switches as possible. `None` if nobody has read the interval.
fn cheapest_path(
    ranges: &[OwnedRange],
    points: &[i64],
    is_crossed: &impl Fn(&OwnedRange, usize) -> bool,
) -> Vec<Option<usize>> {
    // For each interval: the ranges that cover it, the cost of the best path through each, and its
    // predecessor.
    let mut steps: Vec<Vec<(usize, u64, Option<usize>)>> = Vec::new();
    let mut by_start: Vec<usize> = (0..ranges.len()).collect();
    by_start.sort_by_key(|range| ranges[*range].first);
    let mut later = by_start.into_iter().peekable();
    // The ranges that cover the interval, in the order of `ranges`.
    let mut covering: Vec<usize> = Vec::new();
    for (at, &point) in points.iter().enumerate().take(points.len().saturating_sub(1)) {
        covering.retain(|range| point < ranges[*range].next);
        while let Some(range) = later.next_if(|range| ranges[*range].first <= point) {
            covering.push(range);
        }
        covering.sort_unstable();
        let fault = |range: usize| if is_crossed(&ranges[range], at) { SPLIT_IMPOSSIBLE_COST } else { 0 };
        let before = steps.last().map_or(&[][..], Vec::as_slice);
        let step = covering.iter().map(|&range| {
            let costs = before.iter().map(|(other, cost, _)| {
                let switch = if *other == range { 0 } else { 1 + fault(*other) + fault(range) };
                (cost + switch, Some(*other))
            });
            // Of two paths with equal cost, prefers to stay in the same range: a switch belongs at the start
            // of a take-over.
            let stays = |other: &Option<usize>| *other == Some(range);
            let best = costs.min_by_key(|(cost, other)| (*cost, !stays(other)));
            let (cost, other) = best.unwrap_or((fault(range), None));
            (range, cost, other)
        });
        steps.push(step.collect());
    }
    let mut path = vec![None; steps.len()];
    let mut wanted: Option<usize> = None;
    for (at, step) in steps.iter().enumerate().rev() {
        let chosen = match wanted {
            Some(wanted) => step.iter().find(|(range, ..)| *range == wanted),
            None => step.iter().min_by_key(|(_, cost, _)| *cost),
        };
        path[at] = chosen.map(|(range, ..)| *range);
        wanted = chosen.and_then(|(_, _, before)| *before);
    }
    path
}

/// Returns the offsets before the first range, if the member that starts there had taken them over.
fn unread_before(shares: &BTreeMap<usize, DirRanges>, points: &[i64]) -> Vec<UnreadRange> {
    let Some(&next) = points.first().filter(|first| **first > 0) else { return Vec::new() };
    let mut first_reads = shares.values().flat_map(|share| &share.reads).filter(|(first, ..)| *first == next);
    let has_begin = shares.values().flat_map(|share| &share.segments).any(|(first, _)| *first < next);
    let taken_over = first_reads.clone().count() > 0 && first_reads.all(|(_, _, taken_over)| *taken_over);
    if taken_over && !has_begin { vec![UnreadRange { first: None, next }] } else { Vec::new() }
}

/// Numbers the ids of each topic in the order in which the members first read them.
pub(super) fn generations(ranges: &[&ReadRange]) -> BTreeMap<(String, Option<String>), usize> {
    let mut since: BTreeMap<(&str, &Option<String>), &str> = BTreeMap::new();
    for range in ranges {
        let found = since.entry((&range.topic, &range.topic_id)).or_insert(&range.since);
        *found = (*found).min(&range.since);
    }
    let mut order: Vec<_> = since.into_iter().collect();
    order.sort_by_key(|((topic, id), since)| (*topic, *since, id.is_some()));
    let numbered = order.into_iter().enumerate();
    numbered.map(|(number, ((topic, id), _))| ((topic.to_owned(), id.clone()), number)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Reads<'a> = &'a [(i64, i64)];

    /// Plans members, given as ranges read and segments. Checks owned ranges, missing ranges and impossible
    /// splits.
    #[track_caller]
    fn check(
        members: &[(Reads<'_>, Reads<'_>)],
        owned: &[(usize, i64, i64)],
        missing: Reads<'_>,
        splits: &[(usize, i64)],
    ) {
        let share = |(reads, segments): &(Reads<'_>, Reads<'_>)| DirRanges {
            reads: reads.iter().map(|(first, next)| (*first, *next, false)).collect(),
            segments: segments.to_vec(),
        };
        let plan = plan(&members.iter().map(share).enumerate().collect());
        let is: Vec<_> = plan.owned.iter().map(|owned| (owned.dir, owned.first, owned.next)).collect();
        assert_eq!(is, owned);
        let is: Vec<_> = plan.missing.iter().map(|missing| (missing.first.unwrap(), missing.next)).collect();
        assert_eq!(is, missing);
        let is: Vec<_> = plan.impossible_splits.iter().map(|split| (split.dir, split.offset)).collect();
        assert_eq!(is, splits);
    }

    #[test]
    fn a_clean_take_over_needs_no_split() {
        check(
            &[(&[(0, 40), (60, 80)], &[(0, 40), (60, 75)]), (&[(40, 60)], &[(41, 60)])],
            &[(0, 0, 40), (1, 40, 60), (0, 60, 80)],
            &[],
            &[],
        );
    }

    #[test]
    fn a_dead_member_is_split_where_the_other_took_over() {
        check(
            &[(&[(0, 50)], &[(0, 30), (30, 40), (40, 50)]), (&[(40, 90)], &[(40, 90)])],
            &[(0, 0, 40), (1, 40, 90)],
            &[],
            &[],
        );
        // The same if the member comes back later.
        check(
            &[(&[(0, 50), (90, 99)], &[(0, 40), (40, 50), (90, 99)]), (&[(40, 90)], &[(40, 90)])],
            &[(0, 0, 40), (1, 40, 90), (0, 90, 99)],
            &[],
            &[],
        );
    }

    #[test]
    fn records_that_another_member_has_completely_are_not_used() {
        check(&[(&[(0, 90)], &[(0, 90)]), (&[(40, 50)], &[(40, 50)])], &[(0, 0, 90)], &[], &[]);
        check(&[(&[(40, 50)], &[(40, 50)]), (&[(0, 90)], &[(0, 90)])], &[(1, 0, 90)], &[], &[]);
        // Two members took over at 40. The third one took over at 45, where only the second one ends.
        check(
            &[(&[(0, 60)], &[(0, 40), (40, 60)]), (&[(40, 45)], &[(40, 45)]), (&[(45, 90)], &[(45, 90)])],
            &[(0, 0, 40), (1, 40, 45), (2, 45, 90)],
            &[],
            &[],
        );
    }

    #[test]
    fn offsets_that_nobody_read_are_missing() {
        check(&[(&[(0, 40)], &[(0, 40)]), (&[(60, 80)], &[])], &[(0, 0, 40), (1, 60, 80)], &[(40, 60)], &[]);
        // The ranges were read although they have no records of these streams.
        check(&[(&[(0, 80)], &[(0, 10), (70, 80)])], &[(0, 0, 80)], &[], &[]);
        check(&[], &[], &[], &[]);
    }

    #[test]
    fn offsets_before_a_take_over_are_missing() {
        let share = DirRanges { reads: vec![(40, 60, true)], segments: vec![(40, 60)] };
        let planned = plan(&BTreeMap::from([(0, share.clone())]));
        assert_eq!(planned.missing, [UnreadRange { first: None, next: 40 }]);
        let begin = DirRanges { reads: vec![(40, 41, false)], segments: vec![] };
        assert_eq!(plan(&BTreeMap::from([(0, share), (1, begin)])).missing, []);
    }

    #[test]
    fn an_impossible_split_is_reported() {
        check(
            &[(&[(0, 50)], &[(0, 50)]), (&[(40, 90)], &[(40, 90)])],
            &[(0, 0, 40), (1, 40, 90)],
            &[],
            &[(0, 40)],
        );
    }

    #[test]
    fn a_member_without_ranges_has_read_its_segments() {
        check(&[(&[], &[(0, 10), (30, 40)]), (&[(40, 50)], &[])], &[(0, 0, 40), (1, 40, 50)], &[], &[]);
    }

    #[test]
    fn a_segment_is_taken_from_the_member_that_owns_its_offsets() {
        let share = |first, next| DirRanges { reads: vec![(first, next, false)], segments: vec![] };
        let plan = plan(&BTreeMap::from([(3, share(0, 10)), (5, share(10, 20)), (7, share(30, 40))]));
        for (dir, first, next, expected) in [
            (3, 0, 10, true),
            (5, 0, 10, false),
            (3, 10, 11, false),
            (5, 19, 20, true),
            (7, 20, 30, false),
            (7, 39, 40, true),
            (7, 40, 41, false),
            (5, 5, 15, true),
        ] {
            assert_eq!(plan.owns(dir, first, next), expected, "{dir} {first} {next}");
        }
    }

    #[test]
    fn incarnations_of_a_topic_are_ordered_by_time() {
        let range = |id: &str, since: &str| ReadRange {
            topic: "t".into(),
            topic_id: Some(id.into()),
            partition: 0,
            first_offset: 0,
            next_offset: 1,
            taken_over: false,
            since: since.into(),
            is_replaced: false,
        };
        let (one, two, again) = (range("z", "2026-01"), range("a", "2026-02"), range("z", "2026-03"));
        let found = generations(&[&two, &again, &one]);
        assert_eq!(found[&("t".into(), Some("z".into()))], 0);
        assert_eq!(found[&("t".into(), Some("a".into()))], 1);
    }
}
