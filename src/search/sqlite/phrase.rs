//! Search for phrases in the positions of a segment. Runs in the caller's thread.

use std::collections::HashMap;

use roaring::RoaringBitmap;

use super::execute::{DocsResult, SearchContext};
use super::plan::prefix_end;
use super::segment::codec::take_positions;
use super::segment::{IndexSegment, SegmentCursor};
use crate::search::store::StoreError;

/// Maximum number of words that a prefix at the end of a phrase stands for, as in Elasticsearch (`max_expansions`).
const EXPANSIONS_MAX: usize = 50;

impl SearchContext<'_> {
    /// Returns the documents in which the words have the same distances as in the query.
    pub(super) fn find_phrase(
        &self,
        segment: &IndexSegment,
        words: &[(&[u8], u32)],
        slop: u32,
    ) -> DocsResult {
        if slop > 0 {
            return self.find_near_phrase(segment, words, slop);
        }
        let mut common = RoaringBitmap::new();
        for (at, (key, _)) in words.iter().enumerate() {
            let docs = self.find_term(segment, key)?;
            common = if at == 0 { docs } else { common & docs };
            if common.is_empty() {
                return Ok(common);
            }
        }
        // Possible start positions of the phrase, per document that has all words. Each word removes some.
        let mut starts: Vec<(u32, Vec<u32>)> = Vec::new();
        for (at, (key, distance)) in words.iter().enumerate() {
            let mut candidates = starts.iter_mut().peekable();
            let mut first = Vec::new();
            self.each_positions(segment, key, |doc, positions| {
                if !common.contains(doc) {
                    return;
                }
                let positions_here = positions.iter().filter_map(|position| position.checked_sub(*distance));
                if at == 0 {
                    return first.push((doc, positions_here.collect()));
                }
                while candidates.next_if(|(other, _)| *other < doc).is_some() {}
                if let Some((_, starts)) = candidates.next_if(|(other, _)| *other == doc) {
                    let positions_here: Vec<u32> = positions_here.collect();
                    starts.retain(|start| positions_here.binary_search(start).is_ok());
                }
            })?;
            if at == 0 {
                starts = first;
            } else {
                starts.retain(|(_, starts)| !starts.is_empty());
            }
            self.check_deadline()?;
        }
        Ok(starts.into_iter().map(|(doc, _)| doc).collect())
    }

    /// Calls `each` with each document of a key and its positions.
    fn each_positions(
        &self,
        segment: &IndexSegment,
        key: &[u8],
        mut each: impl FnMut(u32, &[u32]),
    ) -> Result<(), StoreError> {
        let Some(mut cursor) = SegmentCursor::find(segment, self.connection, key)? else { return Ok(()) };
        let mut positions = Vec::new();
        while cursor.key() == Some(key) {
            let (mut at, mut read) = (0, Ok(()));
            let bytes = cursor.positions();
            cursor.each_run(|from, docs| {
                for doc in from..from + docs {
                    read = read.and_then(|()| take_positions(bytes, &mut at, &mut positions));
                    if read.is_ok() {
                        each(doc, &positions);
                    }
                }
            })?;
            read.map_err(|damaged| cursor.damaged(damaged))?;
            cursor.step()?;
        }
        Ok(())
    }

    /// Returns the documents in which the words are near each other.
    fn find_near_phrase(&self, segment: &IndexSegment, words: &[(&[u8], u32)], slop: u32) -> DocsResult {
        // Positions of the start of the phrase that each word suggests, per document and word.
        let mut starts: HashMap<u32, Vec<Vec<i64>>> = HashMap::new();
        for (nth, (key, distance)) in words.iter().enumerate() {
            self.each_positions(segment, key, |doc, positions| {
                let found = positions.iter().map(|at| i64::from(*at) - i64::from(*distance)).collect();
                if nth == 0 {
                    starts.insert(doc, vec![found]);
                } else if let Some(lists) = starts.get_mut(&doc).filter(|lists| lists.len() == nth) {
                    lists.push(found);
                }
            })?;
            starts.retain(|_, lists| lists.len() > nth);
            self.check_deadline()?;
        }
        let is_near =
            |lists: &[Vec<i64>]| smallest_spread(lists).is_some_and(|spread| spread <= i64::from(slop));
        let mut docs: Vec<u32> =
            starts.iter().filter(|(_, lists)| is_near(lists)).map(|(doc, _)| *doc).collect();
        docs.sort_unstable();
        Ok(docs.into_iter().collect())
    }

    /// Returns the documents with a phrase whose last word starts with a prefix.
    pub(super) fn find_phrase_prefix(
        &self,
        segment: &IndexSegment,
        words: &[(&[u8], u32)],
        (prefix, at): (&[u8], u32),
        slop: u32,
    ) -> DocsResult {
        let end = prefix_end(prefix.to_vec());
        let mut keys: Vec<Vec<u8>> = Vec::new();
        let mut cursor = SegmentCursor::seek(segment, self.connection, prefix)?;
        while let Some(key) = cursor.key().filter(|key| *key < end.as_slice()) {
            if keys.last().is_none_or(|last| last.as_slice() != key) {
                if keys.len() == EXPANSIONS_MAX {
                    break;
                }
                keys.push(key.to_vec());
            }
            cursor.step()?;
        }
        let mut docs = RoaringBitmap::new();
        for key in &keys {
            let mut words = words.to_vec();
            words.push((key.as_slice(), at));
            docs |= match words.as_slice() {
                [(only, _)] => self.find_term(segment, only)?,
                words => self.find_phrase(segment, words, slop)?,
            };
        }
        Ok(docs)
    }
}

/// Returns the smallest difference between the largest and the smallest of one number from each sorted list.
fn smallest_spread(lists: &[Vec<i64>]) -> Option<i64> {
    let mut at = vec![0; lists.len()];
    let mut smallest: Option<i64> = None;
    loop {
        let current = |nth: usize| lists[nth].get(at[nth]).copied();
        let values: Option<Vec<i64>> = (0..lists.len()).map(current).collect();
        let Some(values) = values else { return smallest };
        let (low, high) = (*values.iter().min()?, *values.iter().max()?);
        smallest = Some(smallest.map_or(high - low, |known| known.min(high - low)));
        let lowest = values.iter().position(|value| *value == low)?;
        at[lowest] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::smallest_spread;

    #[test]
    fn spread_is_the_smallest() {
        assert_eq!(smallest_spread(&[vec![0, 10], vec![3, 9], vec![8]]), Some(2));
        assert_eq!(smallest_spread(&[vec![1], vec![1]]), Some(0));
        assert_eq!(smallest_spread(&[vec![1], vec![]]), None);
    }
}
