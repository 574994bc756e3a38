//! Bookkeeping of the Kafka records that a stream file consists of. Pure.
//!
//! Invariant: a segment ends wherever another group member may have taken the partition over. A take-over
//! starts at a committed offset, and only offsets of checkpoints are committed. So a segment ends at each
//! checkpoint, and is joined with the next one when the group is known to have committed a later offset. `lea
//! merge` cuts files at the ends of segments.
//!
//! A segment also ends at each gap in the offsets of the directory. So a record that arrives late never belongs inside a
//! segment, and each file shows where records may be missing.

use super::checkpoint::PartitionCheckpoint;
use super::manifest::RecordSegment;

/// Limit on the segments of a file. Beyond it the middle ones are joined or omitted.
const SEGMENTS_MAX: usize = 1000;

/// Segments of a growing file.
#[derive(Clone, Debug, Default)]
pub(super) struct SegmentList {
    /// Segments in file order.
    pub list: Vec<RecordSegment>,
    /// Number of segments omitted from the list.
    pub omitted: u64,
}

/// Where the bytes of a record were written.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordPlacement {
    /// Offset of the record in its partition.
    pub offset: i64,
    /// Offset in the file of the first byte.
    pub at: u64,
    pub bytes: u64,
    /// Whether no checkpoint was started since the stream's last record.
    pub no_checkpoint_since: bool,
    /// Whether the record starts a capture in the middle of the file.
    pub begins_capture: bool,
}

impl SegmentList {
    /// Creates the list from a manifest.
    pub(super) fn new(list: Vec<RecordSegment>) -> SegmentList {
        SegmentList { list, omitted: 0 }
    }

    /// Adds a record, to the last segment if possible.
    pub(super) fn add_record(&mut self, of: &PartitionCheckpoint, place: RecordPlacement) {
        let RecordPlacement { offset, at, bytes, no_checkpoint_since: same_round, begins_capture } = place;
        let goes_on = same_round && !begins_capture;
        let follows = |last: &&mut RecordSegment| {
            goes_on
                && !last.compared
                && is_in_read_range(last, of)
                && last.next_offset <= offset
                && last.at + last.bytes == at
        };
        if let Some(last) = self.list.last_mut().filter(follows) {
            last.next_offset = offset + 1;
            last.bytes += bytes;
            return;
        }
        self.join_committed(of);
        self.limit_length();
        let previous = self.list.iter().rev().find(|segment| !segment.compared && of.is_segment(segment));
        let after_gap = previous.is_some_and(|previous| !is_in_read_range(previous, of));
        self.list.push(RecordSegment {
            topic: of.topic.clone(),
            topic_id: of.topic_id.clone(),
            partition: of.partition,
            first_offset: offset,
            next_offset: offset + 1,
            at,
            bytes,
            compared: false,
            begins_capture,
            after_gap,
        });
    }

    /// Joins the last segments of a partition if no member can have taken over between them.
    pub(super) fn join_committed(&mut self, of: &PartitionCheckpoint) {
        for at in (1..self.list.len()).rev() {
            let (before, after) = (&self.list[at - 1], &self.list[at]);
            if !is_in_read_range(before, of) || !is_in_read_range(after, of) || !are_adjacent(before, after) {
                return;
            }
            if after.first_offset < of.acknowledged {
                self.join_with_previous(at);
            }
        }
    }

    /// Continues a stored file after a comparison. `stored` are the segments of the file. Records that were
    /// equal to the file are marked as compared.
    pub(super) fn continue_stored(&mut self, stored: Vec<RecordSegment>) {
        let end = stored.iter().map(|segment| segment.at + segment.bytes).max().unwrap_or(0);
        let sent = std::mem::replace(&mut self.list, stored);
        for segment in sent {
            let before = end.saturating_sub(segment.at).min(segment.bytes);
            if before > 0 {
                self.limit_length();
                self.list.push(RecordSegment { bytes: before, compared: true, ..segment.clone() });
            }
            if segment.bytes > before || end == 0 {
                self.limit_length();
                let (at, bytes) = (segment.at + before, segment.bytes - before);
                self.list.push(RecordSegment { at, bytes, ..segment });
            }
        }
    }

    /// Returns the segments of a re-send that was equal to the stored file, marked as compared.
    pub(super) fn into_compared(self) -> Vec<RecordSegment> {
        self.list.into_iter().map(|segment| RecordSegment { compared: true, ..segment }).collect()
    }

    /// Appends segments.
    pub(super) fn append(&mut self, more: Vec<RecordSegment>) {
        for segment in more {
            self.limit_length();
            self.list.push(segment);
        }
    }

    /// Appends a record of an insertion, to the last segment if that ends right before it.
    pub(super) fn append_record(&mut self, segment: RecordSegment) {
        let follows = |last: &&mut RecordSegment| {
            is_same_partition(last, &segment)
                && last.next_offset == segment.first_offset
                && are_adjacent(last, &segment)
                && segment.next_offset == segment.first_offset + 1
        };
        match self.list.last_mut().filter(follows) {
            Some(last) => {
                last.next_offset = segment.next_offset;
                last.bytes += segment.bytes;
            }
            None => self.append(vec![segment]),
        }
    }

    /// Keeps the list within its limit: joins two segments in the middle if possible, and omits one
    /// otherwise.
    fn limit_length(&mut self) {
        if self.list.len() < SEGMENTS_MAX {
            return;
        }
        let middle = SEGMENTS_MAX / 2;
        let joint = (middle..self.list.len()).chain(1..middle).find(|at| {
            let (before, after) = (&self.list[at - 1], &self.list[*at]);
            is_same_partition(before, after) && are_adjacent(before, after)
        });
        match joint {
            Some(at) => self.join_with_previous(at),
            None => {
                self.list.remove(middle);
                self.omitted += 1;
            }
        }
    }

    fn join_with_previous(&mut self, at: usize) {
        let after = self.list.remove(at);
        let before = &mut self.list[at - 1];
        before.next_offset = after.next_offset;
        before.bytes += after.bytes;
    }
}

/// Returns whether a segment belongs to the partition and was read since its last gap.
fn is_in_read_range(segment: &RecordSegment, of: &PartitionCheckpoint) -> bool {
    of.is_segment(segment)
        && segment.next_offset <= of.next_offset
        && of.first_offset.is_some_and(|first| segment.first_offset >= first)
}

fn is_same_partition(a: &RecordSegment, b: &RecordSegment) -> bool {
    a.partition == b.partition && a.topic == b.topic && a.topic_id == b.topic_id
}

/// Returns whether two segments are consecutive, in the file and in their partition, and may be joined.
fn are_adjacent(before: &RecordSegment, after: &RecordSegment) -> bool {
    before.compared == after.compared
        && !after.begins_capture
        && !after.after_gap
        && before.at + before.bytes == after.at
        && before.next_offset <= after.first_offset
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(first_offset: i64, acknowledged: i64) -> PartitionCheckpoint {
        PartitionCheckpoint {
            topic: "t".into(),
            first_offset: Some(first_offset),
            next_offset: i64::MAX,
            acknowledged,
            ..PartitionCheckpoint::default()
        }
    }

    /// Adds records of ten bytes each. `rounds` lists the offsets that follow a checkpoint.
    fn noted(of: &PartitionCheckpoint, records: std::ops::Range<i64>, rounds: &[i64]) -> SegmentList {
        let mut segments = SegmentList::default();
        for (place, offset) in records.enumerate() {
            segments.add_record(of, at(offset, place as u64 * 10, !rounds.contains(&offset)));
        }
        segments
    }

    fn at(offset: i64, at: u64, same_round: bool) -> RecordPlacement {
        RecordPlacement { offset, at, bytes: 10, no_checkpoint_since: same_round, begins_capture: false }
    }

    fn offsets(segments: &SegmentList) -> Vec<(i64, i64, u64, u64)> {
        let offsets = |s: &RecordSegment| (s.first_offset, s.next_offset, s.at, s.bytes);
        segments.list.iter().map(offsets).collect()
    }

    #[test]
    fn segments_are_joined_when_a_later_offset_is_committed() {
        let mut segments = noted(&partition(0, 0), 0..9, &[3, 6]);
        assert_eq!(offsets(&segments), [(0, 3, 0, 30), (3, 6, 30, 30), (6, 9, 60, 30)]);
        // Offset 3 is committed, so another member may have taken over there.
        segments.join_committed(&partition(0, 3));
        assert_eq!(segments.list.len(), 3);
        segments.join_committed(&partition(0, 4));
        assert_eq!(offsets(&segments), [(0, 6, 0, 60), (6, 9, 60, 30)]);
        segments.join_committed(&partition(0, 9));
        assert_eq!(offsets(&segments), [(0, 9, 0, 90)]);
    }

    #[test]
    fn segments_before_a_gap_are_not_joined() {
        let mut segments = noted(&partition(0, 0), 0..6, &[3]);
        let later = partition(20, 20);
        segments.add_record(&later, at(20, 60, true));
        segments.add_record(&later, at(21, 70, false));
        segments.join_committed(&partition(20, 30));
        assert_eq!(offsets(&segments), [(0, 3, 0, 30), (3, 6, 30, 30), (20, 22, 60, 20)]);
    }

    #[test]
    fn equal_records_are_marked_and_the_rest_is_appended() {
        let stored = noted(&partition(0, 0), 0..5, &[]).list;
        let mut segments = noted(&partition(0, 0), 10..17, &[12]);
        segments.continue_stored(stored);
        let list: Vec<_> =
            segments.list.iter().map(|s| (s.first_offset, s.at, s.bytes, s.compared)).collect();
        assert_eq!(list, [(0, 0, 50, false), (10, 0, 20, true), (12, 20, 30, true), (12, 50, 20, false)]);
    }

    #[test]
    fn the_number_of_segments_is_bounded_without_holes() {
        let every: Vec<i64> = (0..5000).collect();
        let segments = noted(&partition(0, 0), 0..5000, &every);
        assert_eq!((segments.list.len(), segments.omitted), (SEGMENTS_MAX, 0));
        for two in segments.list.windows(2) {
            assert_eq!(two[0].at + two[0].bytes, two[1].at);
        }
        assert_eq!(segments.list.last().map(|last| last.next_offset), Some(5000));
    }

    #[test]
    fn a_capture_header_in_the_middle_starts_a_segment() {
        let mut segments = noted(&partition(0, 0), 0..3, &[]);
        let place = RecordPlacement { begins_capture: true, ..at(3, 30, true) };
        segments.add_record(&partition(0, 0), place);
        segments.join_committed(&partition(0, 100));
        assert_eq!(offsets(&segments), [(0, 3, 0, 30), (3, 4, 30, 10)]);
    }
}
