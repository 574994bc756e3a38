//! Whose records count: for each offset of a partition one of the folders that have read it. Pure.
//!
//! A member that died may have records beyond the offset at which another one went on, so both have them. The files of
//! a folder can be cut at an offset only where no segment goes across it; where that is not so, what is doubled is
//! named, and nothing is left out.

use std::collections::{BTreeMap, BTreeSet};

use super::super::checkpoint::ReadRange;
use super::super::manifest::Segment;

/// A partition of one life of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The topic.
    pub topic: String,
    /// Its id, where the broker told it.
    pub topic_id: Option<String>,
    /// The partition.
    pub partition: i32,
}

impl Key {
    /// That of a segment.
    pub fn of(segment: &Segment) -> Key {
        Key { topic: segment.topic.clone(), topic_id: segment.topic_id.clone(), partition: segment.partition }
    }

    /// That of a range.
    pub fn of_range(range: &ReadRange) -> Key {
        Key { topic: range.topic.clone(), topic_id: range.topic_id.clone(), partition: range.partition }
    }
}

/// What one folder has of a partition.
#[derive(Clone, Debug, Default)]
pub struct Share {
    /// What it has read: first and next offset, and whether the group had committed the first.
    pub reads: Vec<(i64, i64, bool)>,
    /// The first and next offsets of all its segments.
    pub segments: Vec<(i64, i64)>,
}

/// Offsets that belong to one folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owned {
    /// Which folder.
    pub folder: usize,
    /// The first offset.
    pub first: i64,
    /// The offset after the last one.
    pub next: i64,
}

/// Offsets that no folder has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The first; none where it is only known that some were read before.
    pub first: Option<i64>,
    /// The offset after the last one.
    pub next: i64,
}

/// An offset at which one folder's records should end and another's begin, and one of them cannot be cut there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uncut {
    /// The folder that cannot be cut.
    pub folder: usize,
    /// Where.
    pub offset: i64,
}

/// What becomes of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In order, without overlaps.
    pub owned: Vec<Owned>,
    /// In order.
    pub missing: Vec<Missing>,
    /// In order.
    pub uncut: Vec<Uncut>,
}

impl Plan {
    /// True if records of these offsets count from this folder.
    pub fn counts(&self, folder: usize, first: i64, next: i64) -> bool {
        let from = self.owned.partition_point(|owned| owned.next <= first);
        self.owned[from..].iter().take_while(|owned| owned.first < next).any(|owned| owned.folder == folder)
    }
}

/// A switch at a place where a file cannot be cut costs more than any number of switches.
const UNCUT_COST: u64 = 1 << 32;

/// Plans one partition. `shares` are the folders', in the order in which they were named: where several have the same
/// records, the first one's count.
pub fn plan(shares: &BTreeMap<usize, Share>) -> Plan {
    let ranges = ranges(shares);
    let points: Vec<i64> = {
        let all: BTreeSet<i64> = ranges.iter().flat_map(|range| [range.first, range.next]).collect();
        all.into_iter().collect()
    };
    let crossed: BTreeMap<usize, Vec<bool>> =
        shares.iter().map(|(folder, share)| (*folder, crossed(share, &points))).collect();
    let is_crossed = |range: &Owned, point: usize| {
        points[point] != range.first && points[point] != range.next && crossed[&range.folder][point]
    };
    let way = cheapest(&ranges, &points, &is_crossed);
    let mut plan = Plan { missing: before(shares, &points), ..Plan::default() };
    for (at, chosen) in way.iter().enumerate() {
        let Some(chosen) = chosen.map(|chosen| &ranges[chosen]) else {
            let (first, next) = (points[at], points[at + 1]);
            plan.missing.push(Missing { first: Some(first), next });
            continue;
        };
        let before = at.checked_sub(1).and_then(|before| way[before]).map(|before| &ranges[before]);
        if let Some(owned) = plan.owned.last_mut().filter(|_| before == Some(chosen)) {
            owned.next = points[at + 1];
            continue;
        }
        for range in before.into_iter().chain([chosen]).filter(|range| is_crossed(range, at)) {
            plan.uncut.push(Uncut { folder: range.folder, offset: points[at] });
        }
        plan.owned.push(Owned { first: points[at], next: points[at + 1], ..*chosen });
    }
    plan
}

/// All that was read. A folder that does not tell (an earlier version made it) has read what its segments have.
fn ranges(shares: &BTreeMap<usize, Share>) -> Vec<Owned> {
    let mut ranges = Vec::new();
    for (folder, share) in shares {
        let folder = *folder;
        let told = share.reads.iter().map(|(first, next, _)| (*first, *next));
        let is_told = |offset: i64| told.clone().any(|(first, next)| (first..next).contains(&offset));
        let untold = share.segments.iter().filter(|(first, _)| !is_told(*first));
        let untold = untold.copied().reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        ranges.extend(told.clone().chain(untold).map(|(first, next)| Owned { folder, first, next }));
    }
    ranges.retain(|range| range.first < range.next);
    ranges
}

/// For each point: whether a segment of the folder goes across it.
fn crossed(share: &Share, points: &[i64]) -> Vec<bool> {
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

/// For each two neighbouring points the range whose records count between them: with as few cuts where none can be,
/// and then as few switches, as there can be. None where nobody has read.
fn cheapest(
    ranges: &[Owned],
    points: &[i64],
    is_crossed: &impl Fn(&Owned, usize) -> bool,
) -> Vec<Option<usize>> {
    // Of each step: the ranges that cover it, what the way to it through them costs, and the one before.
    let mut steps: Vec<Vec<(usize, u64, Option<usize>)>> = Vec::new();
    for at in 0..points.len().saturating_sub(1) {
        let covers = |range: &Owned| range.first <= points[at] && points[at + 1] <= range.next;
        let fault = |range: usize| if is_crossed(&ranges[range], at) { UNCUT_COST } else { 0 };
        let before = steps.last().map_or(&[][..], Vec::as_slice);
        let covering = ranges.iter().enumerate().filter(|(_, range)| covers(range));
        let step = covering.map(|(range, _)| {
            let costs = before.iter().map(|(other, cost, _)| {
                let switch = if *other == range { 0 } else { 1 + fault(*other) + fault(range) };
                (cost + switch, Some(*other))
            });
            // Of two equal ways the one that is in this range already: a switch belongs where a take-over began.
            let stays = |other: &Option<usize>| *other == Some(range);
            let best = costs.min_by_key(|(cost, other)| (*cost, !stays(other)));
            let (cost, other) = best.unwrap_or((fault(range), None));
            (range, cost, other)
        });
        steps.push(step.collect());
    }
    let mut way = vec![None; steps.len()];
    let mut wanted: Option<usize> = None;
    for (at, step) in steps.iter().enumerate().rev() {
        let chosen = match wanted {
            Some(wanted) => step.iter().find(|(range, ..)| *range == wanted),
            None => step.iter().min_by_key(|(_, cost, _)| *cost),
        };
        way[at] = chosen.map(|(range, ..)| *range);
        wanted = chosen.and_then(|(_, _, before)| *before);
    }
    way
}

/// What was read before all that the folders have: known where the first of them took over.
fn before(shares: &BTreeMap<usize, Share>, points: &[i64]) -> Vec<Missing> {
    let Some(&next) = points.first().filter(|first| **first > 0) else { return Vec::new() };
    let mut first_reads = shares.values().flat_map(|share| &share.reads).filter(|(first, ..)| *first == next);
    let has_begin = shares.values().flat_map(|share| &share.segments).any(|(first, _)| *first < next);
    let taken_over = first_reads.clone().count() > 0 && first_reads.all(|(_, _, taken_over)| *taken_over);
    if taken_over && !has_begin { vec![Missing { first: None, next }] } else { Vec::new() }
}

/// The ids of each topic in the order in which the folders met them.
pub fn generations(ranges: &[&ReadRange]) -> BTreeMap<(String, Option<String>), usize> {
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

    /// Folders as what they have read and their segments; whose records count, what is missing, what cannot be cut.
    #[track_caller]
    fn check(
        folders: &[(Reads<'_>, Reads<'_>)],
        owned: &[(usize, i64, i64)],
        missing: Reads<'_>,
        uncut: &[(usize, i64)],
    ) {
        let share = |(reads, segments): &(Reads<'_>, Reads<'_>)| Share {
            reads: reads.iter().map(|(first, next)| (*first, *next, false)).collect(),
            segments: segments.to_vec(),
        };
        let plan = plan(&folders.iter().map(share).enumerate().collect());
        let is: Vec<_> = plan.owned.iter().map(|owned| (owned.folder, owned.first, owned.next)).collect();
        assert_eq!(is, owned);
        let is: Vec<_> = plan.missing.iter().map(|missing| (missing.first.unwrap(), missing.next)).collect();
        assert_eq!(is, missing);
        let is: Vec<_> = plan.uncut.iter().map(|uncut| (uncut.folder, uncut.offset)).collect();
        assert_eq!(is, uncut);
    }

    #[test]
    fn a_clean_hand_over_is_no_cut() {
        check(
            &[(&[(0, 40), (60, 80)], &[(0, 40), (60, 75)]), (&[(40, 60)], &[(41, 60)])],
            &[(0, 0, 40), (1, 40, 60), (0, 60, 80)],
            &[],
            &[],
        );
    }

    #[test]
    fn who_died_is_cut_where_the_other_went_on() {
        check(
            &[(&[(0, 50)], &[(0, 30), (30, 40), (40, 50)]), (&[(40, 90)], &[(40, 90)])],
            &[(0, 0, 40), (1, 40, 90)],
            &[],
            &[],
        );
        // Also when it came back later.
        check(
            &[(&[(0, 50), (90, 99)], &[(0, 40), (40, 50), (90, 99)]), (&[(40, 90)], &[(40, 90)])],
            &[(0, 0, 40), (1, 40, 90), (0, 90, 99)],
            &[],
            &[],
        );
    }

    #[test]
    fn what_another_folder_has_whole_is_not_needed() {
        check(&[(&[(0, 90)], &[(0, 90)]), (&[(40, 50)], &[(40, 50)])], &[(0, 0, 90)], &[], &[]);
        check(&[(&[(40, 50)], &[(40, 50)]), (&[(0, 90)], &[(0, 90)])], &[(1, 0, 90)], &[], &[]);
        // Two took over at 40; the third one at 45, where only the second ends.
        check(
            &[(&[(0, 60)], &[(0, 40), (40, 60)]), (&[(40, 45)], &[(40, 45)]), (&[(45, 90)], &[(45, 90)])],
            &[(0, 0, 40), (1, 40, 45), (2, 45, 90)],
            &[],
            &[],
        );
    }

    #[test]
    fn what_nobody_has_read_is_missing() {
        check(&[(&[(0, 40)], &[(0, 40)]), (&[(60, 80)], &[])], &[(0, 0, 40), (1, 60, 80)], &[(40, 60)], &[]);
        // No records of these streams, but they were read.
        check(&[(&[(0, 80)], &[(0, 10), (70, 80)])], &[(0, 0, 80)], &[], &[]);
        check(&[], &[], &[], &[]);
    }

    #[test]
    fn what_was_read_before_all_of_it_is_missing_too() {
        let share = Share { reads: vec![(40, 60, true)], segments: vec![(40, 60)] };
        let planned = plan(&BTreeMap::from([(0, share.clone())]));
        assert_eq!(planned.missing, [Missing { first: None, next: 40 }]);
        let begin = Share { reads: vec![(40, 41, false)], segments: vec![] };
        assert_eq!(plan(&BTreeMap::from([(0, share), (1, begin)])).missing, []);
    }

    #[test]
    fn where_no_checkpoint_was_it_is_said() {
        check(
            &[(&[(0, 50)], &[(0, 50)]), (&[(40, 90)], &[(40, 90)])],
            &[(0, 0, 40), (1, 40, 90)],
            &[],
            &[(0, 40)],
        );
    }

    #[test]
    fn who_tells_nothing_has_read_what_it_has() {
        check(&[(&[], &[(0, 10), (30, 40)]), (&[(40, 50)], &[])], &[(0, 0, 40), (1, 40, 50)], &[], &[]);
    }

    #[test]
    fn a_segment_counts_from_the_folder_that_has_its_offsets() {
        let share = |first, next| Share { reads: vec![(first, next, false)], segments: vec![] };
        let plan = plan(&BTreeMap::from([(3, share(0, 10)), (5, share(10, 20)), (7, share(30, 40))]));
        for (folder, first, next, expected) in [
            (3, 0, 10, true),
            (5, 0, 10, false),
            (3, 10, 11, false),
            (5, 19, 20, true),
            (7, 20, 30, false),
            (7, 39, 40, true),
            (7, 40, 41, false),
            (5, 5, 15, true),
        ] {
            assert_eq!(plan.counts(folder, first, next), expected, "{folder} {first} {next}");
        }
    }

    #[test]
    fn lives_of_a_topic_are_in_the_order_of_time() {
        let range = |id: &str, since: &str| ReadRange {
            topic: "t".into(),
            topic_id: Some(id.into()),
            partition: 0,
            first_offset: 0,
            next_offset: 1,
            taken_over: false,
            since: since.into(),
        };
        let (one, two, again) = (range("z", "2026-01"), range("a", "2026-02"), range("z", "2026-03"));
        let found = generations(&[&two, &again, &one]);
        assert_eq!(found[&("t".into(), Some("z".into()))], 0);
        assert_eq!(found[&("t".into(), Some("a".into()))], 1);
    }
}
