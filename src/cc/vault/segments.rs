//! Which records a file is made of, as its manifest tells it. Pure.
//!
//! Invariant: wherever another member may have taken a partition over, a segment ends. A take-over starts at an offset
//! that was committed, and each was that of a checkpoint; so at a checkpoint a segment ends, and goes on only when the
//! group is known to have committed a later offset. `lea merge` cuts files there.

use super::checkpoint::PartitionState;
use super::manifest::Segment;

/// Segments of one file, before the middle ones are joined or left out.
const SEGMENTS_MAX: usize = 1000;

/// The segments of a file that grows.
#[derive(Clone, Debug, Default)]
pub struct Segments {
    /// In the file's order.
    pub list: Vec<Segment>,
    /// Those that stand in it no more.
    pub left_out: u64,
}

/// Where a record's bytes went.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The record's offset.
    pub offset: i64,
    /// Where in the file they start.
    pub at: u64,
    /// How many they are.
    pub bytes: u64,
    /// True if no checkpoint was begun since the stream's last record.
    pub same_round: bool,
    /// True if they begin a capture in the middle of the file.
    pub begins_capture: bool,
}

impl Segments {
    /// Those that a manifest has.
    pub fn new(list: Vec<Segment>) -> Segments {
        Segments { list, left_out: 0 }
    }

    /// Notes where a record's bytes went.
    pub fn note(&mut self, of: &PartitionState, place: Place) {
        let Place { offset, at, bytes, same_round, begins_capture } = place;
        let goes_on = same_round && !begins_capture;
        let follows = |last: &&mut Segment| {
            goes_on
                && !last.compared
                && is_of(last, of)
                && last.next_offset <= offset
                && last.at + last.bytes == at
        };
        if let Some(last) = self.list.last_mut().filter(follows) {
            last.next_offset = offset + 1;
            last.bytes += bytes;
            return;
        }
        self.settle(of);
        self.make_room();
        self.list.push(Segment {
            topic: of.topic.clone(),
            topic_id: of.topic_id.clone(),
            partition: of.partition,
            first_offset: offset,
            next_offset: offset + 1,
            at,
            bytes,
            compared: false,
            begins_capture,
        });
    }

    /// Joins the last segments of a partition, as far as nobody can have taken over between them.
    pub fn settle(&mut self, of: &PartitionState) {
        for at in (1..self.list.len()).rev() {
            let (before, after) = (&self.list[at - 1], &self.list[at]);
            if !is_of(before, of) || !is_of(after, of) || !touch(before, after) {
                return;
            }
            if after.first_offset < of.acknowledged {
                self.join(at);
            }
        }
    }

    /// The records of a stream that was compared, and now goes on in a file of which `stored` tells. What was equal is
    /// marked so.
    pub fn depart(&mut self, stored: Vec<Segment>) {
        let end = stored.iter().map(|segment| segment.at + segment.bytes).max().unwrap_or(0);
        let sent = std::mem::replace(&mut self.list, stored);
        for segment in sent {
            let before = end.saturating_sub(segment.at).min(segment.bytes);
            if before > 0 {
                self.make_room();
                self.list.push(Segment { bytes: before, compared: true, ..segment.clone() });
            }
            if segment.bytes > before || end == 0 {
                self.make_room();
                let (at, bytes) = (segment.at + before, segment.bytes - before);
                self.list.push(Segment { at, bytes, ..segment });
            }
        }
    }

    /// The records of a stream that was compared and is equal to what is stored.
    pub fn end_compared(self) -> Vec<Segment> {
        self.list.into_iter().map(|segment| Segment { compared: true, ..segment }).collect()
    }

    /// Adds segments behind those that are there.
    pub fn append(&mut self, more: Vec<Segment>) {
        for segment in more {
            self.make_room();
            self.list.push(segment);
        }
    }

    /// When there are too many: joins two in the middle that could have been cut apart, else leaves one out.
    fn make_room(&mut self) {
        if self.list.len() < SEGMENTS_MAX {
            return;
        }
        let middle = SEGMENTS_MAX / 2;
        let joint = (middle..self.list.len()).chain(1..middle).find(|at| {
            let (before, after) = (&self.list[at - 1], &self.list[*at]);
            is_same(before, after) && touch(before, after)
        });
        match joint {
            Some(at) => self.join(at),
            None => {
                self.list.remove(middle);
                self.left_out += 1;
            }
        }
    }

    fn join(&mut self, at: usize) {
        let after = self.list.remove(at);
        let before = &mut self.list[at - 1];
        before.next_offset = after.next_offset;
        before.bytes += after.bytes;
    }
}

/// True if a segment is of the partition's records since its last gap.
fn is_of(segment: &Segment, of: &PartitionState) -> bool {
    segment.partition == of.partition
        && segment.topic == of.topic
        && segment.topic_id == of.topic_id
        && of.first_offset.is_some_and(|first| segment.first_offset >= first)
}

fn is_same(a: &Segment, b: &Segment) -> bool {
    a.partition == b.partition && a.topic == b.topic && a.topic_id == b.topic_id
}

/// True if one begins where the other ends, in the file and in the same way.
fn touch(before: &Segment, after: &Segment) -> bool {
    before.compared == after.compared
        && !after.begins_capture
        && before.at + before.bytes == after.at
        && before.next_offset <= after.first_offset
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(first_offset: i64, acknowledged: i64) -> PartitionState {
        PartitionState {
            topic: "t".into(),
            first_offset: Some(first_offset),
            acknowledged,
            ..PartitionState::default()
        }
    }

    /// Each record has ten bytes; `rounds` are the records that come first after a checkpoint.
    fn noted(of: &PartitionState, records: std::ops::Range<i64>, rounds: &[i64]) -> Segments {
        let mut segments = Segments::default();
        for (place, offset) in records.enumerate() {
            segments.note(of, at(offset, place as u64 * 10, !rounds.contains(&offset)));
        }
        segments
    }

    fn at(offset: i64, at: u64, same_round: bool) -> Place {
        Place { offset, at, bytes: 10, same_round, begins_capture: false }
    }

    fn offsets(segments: &Segments) -> Vec<(i64, i64, u64, u64)> {
        let offsets = |s: &Segment| (s.first_offset, s.next_offset, s.at, s.bytes);
        segments.list.iter().map(offsets).collect()
    }

    #[test]
    fn a_segment_ends_at_each_checkpoint_until_a_later_offset_is_committed() {
        let mut segments = noted(&partition(0, 0), 0..9, &[3, 6]);
        assert_eq!(offsets(&segments), [(0, 3, 0, 30), (3, 6, 30, 30), (6, 9, 60, 30)]);
        // A member may have taken over at 3, the offset that is committed.
        segments.settle(&partition(0, 3));
        assert_eq!(segments.list.len(), 3);
        segments.settle(&partition(0, 4));
        assert_eq!(offsets(&segments), [(0, 6, 0, 60), (6, 9, 60, 30)]);
        segments.settle(&partition(0, 9));
        assert_eq!(offsets(&segments), [(0, 9, 0, 90)]);
    }

    #[test]
    fn behind_a_gap_what_stands_before_it_stays_as_it_is() {
        let mut segments = noted(&partition(0, 0), 0..6, &[3]);
        let later = partition(20, 20);
        segments.note(&later, at(20, 60, true));
        segments.note(&later, at(21, 70, false));
        segments.settle(&partition(20, 30));
        assert_eq!(offsets(&segments), [(0, 3, 0, 30), (3, 6, 30, 30), (20, 22, 60, 20)]);
    }

    #[test]
    fn what_was_equal_is_marked_and_the_rest_goes_on() {
        let stored = noted(&partition(0, 0), 0..5, &[]).list;
        let mut segments = noted(&partition(0, 0), 10..17, &[12]);
        segments.depart(stored);
        let list: Vec<_> =
            segments.list.iter().map(|s| (s.first_offset, s.at, s.bytes, s.compared)).collect();
        assert_eq!(list, [(0, 0, 50, false), (10, 0, 20, true), (12, 20, 30, true), (12, 50, 20, false)]);
    }

    #[test]
    fn their_number_is_bounded_and_no_byte_is_without_one() {
        let every: Vec<i64> = (0..5000).collect();
        let segments = noted(&partition(0, 0), 0..5000, &every);
        assert_eq!((segments.list.len(), segments.left_out), (SEGMENTS_MAX, 0));
        for two in segments.list.windows(2) {
            assert_eq!(two[0].at + two[0].bytes, two[1].at);
        }
        assert_eq!(segments.list.last().map(|last| last.next_offset), Some(5000));
    }

    #[test]
    fn a_capture_in_the_middle_begins_one() {
        let mut segments = noted(&partition(0, 0), 0..3, &[]);
        let place = Place { begins_capture: true, ..at(3, 30, true) };
        segments.note(&partition(0, 0), place);
        segments.settle(&partition(0, 100));
        assert_eq!(offsets(&segments), [(0, 3, 0, 30), (3, 4, 30, 10)]);
    }
}
