//! Which records came already: dumps of one topic may overlap, and a record counts once.
//!
//! An offset alone is no proof: a topic that was deleted and made again starts at 0. So a record is a repetition only
//! if offset, length and checksum are those of one that came. Where that is not known any more (the memory is bounded)
//! it counts as new: nothing is dropped that might be missing then.

use std::collections::{HashMap, VecDeque};

use crate::cc::frame::dump::Position;

/// Records that are remembered, of all partitions: 64 MiB.
const RECORDS_MAX: usize = 8 << 20;

/// A longer gap between two offsets is no gap of a topic, and what came before it is forgotten.
const GAP_MAX: i64 = 1 << 16;

/// What is known of a record's offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Was {
    /// It is new.
    New,
    /// This very record came before.
    Same,
    /// Another record came with this offset.
    Other,
}

/// Records that came.
#[derive(Debug, Default)]
pub struct Seen {
    partitions: HashMap<(String, i32), usize>,
    tracks: Vec<Track>,
    /// The partition of the last record: most often that of the next one.
    last: usize,
    records: usize,
}

#[derive(Debug)]
struct Track {
    topic: String,
    partition: i32,
    /// The offset of the first mark.
    first: i64,
    /// Of each offset from there on the mark of its record; 0 for none.
    marks: VecDeque<u64>,
}

impl Seen {
    /// Notes a record; tells if it came before.
    pub fn note(&mut self, position: &Position<'_>, value: Option<&[u8]>) -> Was {
        let at = self.track(position);
        let track = &mut self.tracks[at];
        let before = track.marks.len();
        let was = track.note(position.offset, mark(value));
        self.records = self.records - before + track.marks.len();
        while self.records > RECORDS_MAX && track.marks.pop_front().is_some() {
            track.first += 1;
            self.records -= 1;
        }
        was
    }

    fn track(&mut self, position: &Position<'_>) -> usize {
        let is = |track: &Track| position.is_in(&track.topic, track.partition);
        if !self.tracks.get(self.last).is_some_and(is) {
            let tracks = &mut self.tracks;
            self.last = *self
                .partitions
                .entry((position.topic.to_owned(), position.partition))
                .or_insert_with(|| {
                    tracks.push(Track {
                        topic: position.topic.to_owned(),
                        partition: position.partition,
                        first: position.offset,
                        marks: VecDeque::new(),
                    });
                    tracks.len() - 1
                });
        }
        self.last
    }
}

impl Track {
    fn note(&mut self, offset: i64, mark: u64) -> Was {
        let next = self.first.saturating_add(self.marks.len() as i64);
        if offset < self.first {
            return Was::New;
        }
        if offset < next {
            let known = &mut self.marks[(offset - self.first) as usize];
            return match std::mem::replace(known, mark) {
                0 => Was::New,
                was if was == mark => Was::Same,
                _ => Was::Other,
            };
        }
        if offset - next > GAP_MAX {
            self.marks.clear();
            self.first = offset;
        } else {
            self.marks.extend(std::iter::repeat_n(0, (offset - next) as usize));
        }
        self.marks.push_back(mark);
        Was::New
    }
}

/// Length and checksum; never 0.
fn mark(value: Option<&[u8]>) -> u64 {
    let value = value.unwrap_or_default();
    (value.len() as u64 + 1) << 32 | u64::from(crc32c::crc32c(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_record_at_the_same_offset_is_a_repetition() {
        let mut seen = Seen::default();
        let mut note = |topic, partition, offset, value: &str| {
            seen.note(&Position { topic, partition, offset }, Some(value.as_bytes()))
        };
        for offset in 10..20 {
            assert_eq!(note("a", 0, offset, "x"), Was::New);
        }
        assert_eq!(note("a", 0, 15, "x"), Was::Same);
        assert_eq!(note("a", 0, 15, "y"), Was::Other);
        assert_eq!(note("a", 0, 15, "y"), Was::Same);
        assert_eq!(note("a", 1, 15, "x"), Was::New);
        assert_eq!(note("b", 0, 15, "x"), Was::New);
        // Before the first one; a gap, and into it; a leap, which forgets.
        assert_eq!(note("a", 0, 9, "x"), Was::New);
        assert_eq!(note("a", 0, 25, ""), Was::New);
        assert_eq!(note("a", 0, 22, ""), Was::New);
        assert_eq!(note("a", 0, 22, ""), Was::Same);
        assert_eq!(note("a", 0, 1 << 40, ""), Was::New);
        assert_eq!(note("a", 0, 1 << 40, ""), Was::Same);
        assert_eq!(note("a", 0, 25, ""), Was::New);
    }

    #[test]
    fn memory_is_bounded() {
        let mut seen = Seen::default();
        for offset in 0..RECORDS_MAX as i64 + 10 {
            seen.note(&Position { topic: "", partition: 0, offset }, None);
        }
        assert_eq!(seen.records, RECORDS_MAX);
        assert_eq!(seen.note(&Position { topic: "", partition: 0, offset: 9 }, None), Was::New);
        assert_eq!(seen.note(&Position { topic: "", partition: 0, offset: 10 }, None), Was::Same);
    }
}
