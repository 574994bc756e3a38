//! Execution of a query plan, segment by segment. Runs in the caller's thread.

use std::time::Instant;

use roaring::RoaringBitmap;
use rusqlite::Connection;

use super::catalog::field_ids;
use super::count_cache::CountCache;
use super::plan::{QueryPlan, prefix_end, term_key};
use super::rows;
use super::segment::codec::take_positions;
use super::segment::{IndexSegment, SegmentCursor, SegmentError};
use super::snapshot::Snapshot;
use crate::search::store::StoreError;

/// Keys between two checks of the deadline.
const KEYS_PER_DEADLINE_CHECK: u32 = 1_024;

/// Everything that one search needs.
pub(super) struct SearchContext<'a> {
    pub snapshot: &'a Snapshot,
    /// Reads blocks and rows.
    pub connection: &'a Connection,
    pub count_cache: &'a CountCache,
    /// Key of the ids that the store makes.
    pub secret: &'a [u8],
    pub deadline: Instant,
    /// Time limit, for the error message.
    pub timeout_ms: u64,
}

type DocsResult = Result<RoaringBitmap, StoreError>;

impl From<SegmentError> for StoreError {
    fn from(error: SegmentError) -> StoreError {
        StoreError::Failed { act: "read the store", cause: error.to_string() }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> StoreError {
        StoreError::Failed { act: "read the store", cause: error.to_string() }
    }
}

impl SearchContext<'_> {
    /// Fails if the deadline has passed.
    pub(super) fn check_deadline(&self) -> Result<(), StoreError> {
        if Instant::now() < self.deadline { Ok(()) } else { Err(StoreError::TimedOut(self.timeout_ms)) }
    }

    /// Returns the documents of an index that match a plan.
    pub(super) fn find(&self, index: u16, plan: &QueryPlan) -> DocsResult {
        let plan = self.resolve_ids(index, plan)?;
        let mut all = RoaringBitmap::new();
        for segment in &self.snapshot.segments {
            self.check_deadline()?;
            all |= self.find_in_segment(segment, &plan)?;
        }
        all -= &*self.snapshot.deleted_docs;
        Ok(all)
    }

    /// Counts the documents of an index that match a plan.
    pub(super) fn count(&self, index: u16, plan: &QueryPlan) -> Result<u64, StoreError> {
        let resolved = self.resolve_ids(index, plan)?;
        let cached = self.count_cache.get(plan);
        let (mut total, mut learned) = (0, Vec::new());
        for segment in &self.snapshot.segments {
            let is_whole = self.snapshot.deleted_docs.range_cardinality(segment.doc_range()) == 0;
            let known = cached
                .iter()
                .flat_map(|known| known.iter())
                .find(|(id, _)| *id == segment.id && segment.id > 0);
            let count = match known.filter(|_| is_whole) {
                Some((_, count)) => *count,
                None => self.count_in_segment(segment, &resolved, is_whole)?,
            };
            if segment.id > 0 && is_whole {
                learned.push((segment.id, count));
            }
            total += count;
        }
        self.count_cache.put(plan, cached.as_deref(), learned);
        Ok(total)
    }

    /// Counts the documents of a segment. If the segment has no deleted documents, the total of a term is its count.
    fn count_in_segment(
        &self,
        segment: &IndexSegment,
        plan: &ResolvedPlan,
        is_whole: bool,
    ) -> Result<u64, StoreError> {
        match plan {
            ResolvedPlan::None => return Ok(0),
            ResolvedPlan::Term(key) if is_whole => {
                let cursor = SegmentCursor::find(segment, self.connection, key)?;
                return Ok(cursor.map_or(0, |cursor| u64::from(cursor.total())));
            }
            ResolvedPlan::AtLeast(1, plans) if is_whole => {
                if let Some(count) = self.count_if_one_term(segment, plans)? {
                    return Ok(count);
                }
            }
            _ => {}
        }
        self.check_deadline()?;
        let mut docs = self.find_in_segment(segment, plan)?;
        if !is_whole {
            docs -= &*self.snapshot.deleted_docs;
        }
        Ok(docs.len())
    }

    /// Returns the count if at most one of several terms occurs in the segment.
    fn count_if_one_term(
        &self,
        segment: &IndexSegment,
        plans: &[ResolvedPlan],
    ) -> Result<Option<u64>, StoreError> {
        let mut count = 0;
        for plan in plans {
            let ResolvedPlan::Term(key) = plan else { return Ok(None) };
            if let Some(cursor) = SegmentCursor::find(segment, self.connection, key)? {
                if count > 0 {
                    return Ok(None);
                }
                count = u64::from(cursor.total());
            }
        }
        Ok(Some(count))
    }

    fn find_in_segment(&self, segment: &IndexSegment, plan: &ResolvedPlan) -> DocsResult {
        match plan {
            ResolvedPlan::None => Ok(RoaringBitmap::new()),
            ResolvedPlan::Term(key) => self.find_term(segment, key),
            ResolvedPlan::Range(from, to) => self.find_keys(segment, from, to, |_| true),
            ResolvedPlan::Like(from, pattern) => {
                self.find_keys(segment, from, &prefix_end(from.to_vec()), |key| pattern.matches(&key[4..]))
            }
            ResolvedPlan::Phrase(words) => self.find_phrase(segment, words),
            ResolvedPlan::Docs(docs) => {
                Ok(docs.iter().copied().filter(|doc| segment.doc_range().contains(doc)).collect())
            }
            ResolvedPlan::And(plans) => {
                let mut plans = plans.iter();
                let mut docs = plans
                    .next()
                    .map_or_else(|| Ok(RoaringBitmap::new()), |plan| self.find_in_segment(segment, plan))?;
                for plan in plans {
                    if docs.is_empty() {
                        break;
                    }
                    docs &= self.find_in_segment(segment, plan)?;
                }
                Ok(docs)
            }
            ResolvedPlan::AtLeast(1, plans) => {
                let mut docs = RoaringBitmap::new();
                for plan in plans {
                    docs |= self.find_in_segment(segment, plan)?;
                }
                Ok(docs)
            }
            ResolvedPlan::AtLeast(count, plans) => self.find_at_least(segment, *count, plans),
            ResolvedPlan::Without(plan, not) => {
                let docs = self.find_in_segment(segment, plan)?;
                if docs.is_empty() { Ok(docs) } else { Ok(docs - self.find_in_segment(segment, not)?) }
            }
        }
    }

    /// `reached[n]` contains the documents that match more than n plans.
    fn find_at_least(&self, segment: &IndexSegment, count: usize, plans: &[ResolvedPlan]) -> DocsResult {
        let mut reached = vec![RoaringBitmap::new(); count];
        for plan in plans {
            let docs = self.find_in_segment(segment, plan)?;
            for at in (1..count).rev() {
                let more = &reached[at - 1] & &docs;
                reached[at] |= more;
            }
            reached[0] |= docs;
        }
        Ok(reached.pop().unwrap_or_default())
    }

    /// Returns the documents of one key.
    fn find_term(&self, segment: &IndexSegment, key: &[u8]) -> DocsResult {
        let mut docs = RoaringBitmap::new();
        let Some(mut cursor) = SegmentCursor::find(segment, self.connection, key)? else { return Ok(docs) };
        while cursor.key() == Some(key) {
            add_docs(&cursor, &mut docs)?;
            cursor.step()?;
        }
        Ok(docs)
    }

    /// Returns the documents of all keys from `from` (included) to `to` (excluded) that `fits` accepts.
    fn find_keys(
        &self,
        segment: &IndexSegment,
        from: &[u8],
        to: &[u8],
        fits: impl Fn(&[u8]) -> bool,
    ) -> DocsResult {
        let mut docs = RoaringBitmap::new();
        let mut cursor = SegmentCursor::seek(segment, self.connection, from)?;
        let mut until_look = KEYS_PER_DEADLINE_CHECK;
        while cursor.key().is_some_and(|key| key < to) {
            if cursor.key().is_some_and(&fits) {
                add_docs(&cursor, &mut docs)?;
            }
            cursor.step()?;
            until_look -= 1;
            if until_look == 0 {
                self.check_deadline()?;
                until_look = KEYS_PER_DEADLINE_CHECK;
            }
        }
        Ok(docs)
    }

    /// Returns the documents in which the words have the same distances as in the query.
    fn find_phrase(&self, segment: &IndexSegment, words: &[(&[u8], u32)]) -> DocsResult {
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

    /// Looks up ids, once for all segments.
    fn resolve_ids<'p>(&self, index: u16, plan: &'p QueryPlan) -> Result<ResolvedPlan<'p>, StoreError> {
        let all = |plans: &'p [QueryPlan]| {
            plans.iter().map(|plan| self.resolve_ids(index, plan)).collect::<Result<Vec<_>, _>>()
        };
        Ok(match plan {
            QueryPlan::None => ResolvedPlan::None,
            QueryPlan::Term(key) => ResolvedPlan::Term(key),
            QueryPlan::Range(from, to) => ResolvedPlan::Range(from, to),
            QueryPlan::Wildcard(from, pattern) => ResolvedPlan::Like(from, pattern),
            QueryPlan::Phrase(words) => {
                ResolvedPlan::Phrase(words.iter().map(|(key, at)| (key.as_slice(), *at)).collect())
            }
            QueryPlan::Ids(ids) => ResolvedPlan::Docs(self.docs_by_ids(index, ids)?),
            QueryPlan::And(plans) => ResolvedPlan::And(all(plans)?),
            QueryPlan::AtLeast(count, plans) => ResolvedPlan::AtLeast(*count, all(plans)?),
            QueryPlan::Without(plan, not) => ResolvedPlan::Without(
                Box::new(self.resolve_ids(index, plan)?),
                Box::new(self.resolve_ids(index, not)?),
            ),
        })
    }

    fn docs_by_ids(&self, index: u16, ids: &[String]) -> Result<Vec<u32>, StoreError> {
        let mut docs = Vec::with_capacity(ids.len());
        for id in ids {
            let counts = |doc| !self.snapshot.deleted_docs.contains(doc);
            if let Some((doc, _)) = rows::find_by_id(self.connection, self.secret, index, id, counts)? {
                docs.push(doc);
            }
        }
        Ok(docs)
    }

    /// Counts all documents of an index.
    pub(super) fn count_index(&self, index: u16) -> Result<u64, StoreError> {
        self.count(index, &QueryPlan::Term(term_key(index, field_ids::ALL, &[])))
    }
}

/// A plan with ids resolved to documents.
enum ResolvedPlan<'p> {
    None,
    Term(&'p [u8]),
    Range(&'p [u8], &'p [u8]),
    Like(&'p [u8], &'p super::pattern::WildcardPattern),
    Phrase(Vec<(&'p [u8], u32)>),
    Docs(Vec<u32>),
    And(Vec<ResolvedPlan<'p>>),
    AtLeast(usize, Vec<ResolvedPlan<'p>>),
    Without(Box<ResolvedPlan<'p>>, Box<ResolvedPlan<'p>>),
}

/// Adds the documents of an entry.
pub(super) fn add_docs(cursor: &SegmentCursor, docs: &mut RoaringBitmap) -> Result<(), SegmentError> {
    cursor.each_run(|from, count| {
        if count == 1 {
            docs.insert(from);
        } else {
            docs.insert_range(from..from + count);
        }
    })
}
