//! Packets that the recorder lost, not the network: they are missing in several unrelated streams at the same time.

use serde::{Deserialize, Serialize};

/// Gaps whose starts, and whose ends, are at most so far apart are simultaneous. A gap starts at the last packet before
/// it, which is up to one packet time (20 to 40 ms) earlier than the loss.
const SIMULTANEOUS_NS: i64 = 50_000_000;

/// Other groups that have to miss packets at the same time.
const OTHER_GROUPS: usize = 2;

/// Gaps that are kept, of 40 bytes each. Of a capture with more, a sample is enough; the others are counted.
const GAPS_MAX: usize = 65_536;

/// Neighbours in time that are compared with a gap, on each side. Bounds the time for gaps that are all simultaneous and
/// of one group, where none is found.
const NEIGHBOURS_MAX: usize = 256;

/// Gap of a stream.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct StreamGap {
    /// Arrival of the packets before and after it. Nanoseconds since 1970.
    start_ns: i64,
    end_ns: i64,
    /// What is related: streams of one group do not testify for each other.
    group: u64,
    stream: u32,
    missing: u32,
}

/// Gaps of all streams of a capture.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct CaptureLoss {
    gaps: Vec<StreamGap>,
    /// Gaps over the limit.
    omitted: u64,
}

/// Packets of a stream that are missing in other streams' time too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SharedGaps {
    pub stream: u32,
    pub missing: u64,
}

impl CaptureLoss {
    /// Adds a gap of `missing` packets of the stream with the number `stream`. `group` is the same for related streams,
    /// such as both directions of a call.
    pub(crate) fn add(&mut self, stream: u32, group: u64, start_ns: i64, end_ns: i64, missing: u32) {
        if self.gaps.len() >= GAPS_MAX {
            self.omitted += 1;
            return;
        }
        self.gaps.push(StreamGap { start_ns, end_ns, group, stream, missing });
    }

    /// Gaps over the limit.
    pub(crate) fn omitted(&self) -> u64 {
        self.omitted
    }

    /// Streams with packets that were missing in at least two other groups at the same time, in the order of their numbers.
    /// Late packets may have filled a gap: at most as many are lost as the stream says.
    pub(crate) fn shared(&self) -> Vec<SharedGaps> {
        let mut gaps = self.gaps.clone();
        gaps.sort_by_key(|gap| gap.start_ns);
        let shared = gaps.iter().enumerate().filter(|&(index, gap)| is_shared(&gaps, index, gap));
        let mut list: Vec<SharedGaps> =
            shared.map(|(_, gap)| SharedGaps { stream: gap.stream, missing: gap.missing.into() }).collect();
        list.sort_by_key(|gaps| gaps.stream);
        list.dedup_by(|next, sum| {
            let is_same = next.stream == sum.stream;
            if is_same {
                sum.missing += next.missing;
            }
            is_same
        });
        list
    }
}

fn is_shared(gaps: &[StreamGap], index: usize, gap: &StreamGap) -> bool {
    let is_simultaneous = |other: &&StreamGap| {
        other.group != gap.group
            && other.end_ns.saturating_sub(gap.end_ns).saturating_abs() <= SIMULTANEOUS_NS
    };
    let is_near =
        |other: &&StreamGap| other.start_ns.saturating_sub(gap.start_ns).saturating_abs() <= SIMULTANEOUS_NS;
    let (before, after) = gaps.split_at_checked(index).unwrap_or_default();
    let before = before.iter().rev().take(NEIGHBOURS_MAX).take_while(is_near);
    let after = after.iter().skip(1).take(NEIGHBOURS_MAX).take_while(is_near);
    let mut groups = [None; OTHER_GROUPS];
    for other in before.chain(after).filter(is_simultaneous) {
        if groups.contains(&Some(other.group)) {
            continue;
        }
        match groups.iter_mut().find(|slot| slot.is_none()) {
            Some(slot) => *slot = Some(other.group),
            None => break,
        }
    }
    groups.iter().all(Option::is_some)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    /// Gaps as (stream, group, start and end in ms, missing).
    fn shared(gaps: &[(u32, u64, i64, i64, u32)]) -> Vec<(u32, u64)> {
        let mut loss = CaptureLoss::default();
        for &(stream, group, start, end, missing) in gaps {
            loss.add(stream, group, start * MS, end * MS, missing);
        }
        loss.shared().iter().map(|gaps| (gaps.stream, gaps.missing)).collect()
    }

    #[test]
    fn gaps_of_three_unrelated_streams_at_once_are_the_recorders() {
        let gaps = [
            (3, 3, 1_000, 1_500, 24),
            (1, 1, 1_020, 1_510, 24),
            (2, 2, 1_050, 1_540, 23),
            (1, 1, 5_000, 5_040, 1),
        ];
        assert_eq!(shared(&gaps), [(1, 24), (2, 23), (3, 24)]);
        assert_eq!(shared(&gaps[..2]), [], "two streams may share a bad link");
    }

    #[test]
    fn related_streams_do_not_testify_for_each_other() {
        assert_eq!(shared(&[(1, 7, 0, 60, 2), (2, 7, 0, 60, 2), (3, 8, 0, 60, 2), (4, 8, 0, 60, 2)]), []);
    }

    #[test]
    fn both_sides_of_50_ms() {
        assert_eq!(shared(&[(1, 1, 0, 60, 2), (2, 2, 25, 85, 2), (3, 3, 50, 110, 2)]).len(), 3);
        assert_eq!(shared(&[(1, 1, 0, 60, 2), (2, 2, 25, 85, 2), (3, 3, 51, 110, 2)]), [(2, 2)]);
        assert_eq!(shared(&[(1, 1, 0, 60, 2), (2, 2, 25, 85, 2), (3, 3, 50, 111, 2)]), [(2, 2)]);
    }

    #[test]
    fn several_gaps_of_a_stream_are_summed() {
        let at = |start: i64| (1..=3).map(move |stream| (stream, stream.into(), start, start + 60, 2));
        let gaps: Vec<_> = at(0).chain(at(1_000)).collect();
        assert_eq!(shared(&gaps), [(1, 4), (2, 4), (3, 4)]);
    }

    #[test]
    fn gaps_over_the_limit_are_counted_and_the_time_is_bounded() {
        let mut loss = CaptureLoss::default();
        for _ in 0..GAPS_MAX {
            loss.add(1, 1, 0, 0, 1);
        }
        assert_eq!(loss.omitted(), 0);
        loss.add(2, 2, 0, 0, 1);
        assert_eq!(loss.omitted(), 1);
        assert_eq!(loss.shared(), []);
        let mut extremes = CaptureLoss::default();
        extremes.add(1, 1, i64::MIN, i64::MAX, u32::MAX);
        extremes.add(2, 2, i64::MAX, i64::MIN, u32::MAX);
        assert_eq!(extremes.shared(), []);
    }
}
