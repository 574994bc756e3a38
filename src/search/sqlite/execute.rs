//! Execution of a query plan, segment by segment. Runs in the caller's thread.

use std::rc::Rc;

use roaring::RoaringBitmap;
use rusqlite::Connection;

use super::catalog::field_ids;
use super::count_cache::CountCache;
use super::plan::{QueryPlan, prefix_end, term_key};
use super::rows;
use super::segment::{IndexSegment, SegmentCursor, SegmentError};
use super::snapshot::{Snapshot, counts};
use crate::search::budget::RequestBudget;
use crate::search::store::StoreError;

/// Keys between two checks of the deadline.
const KEYS_PER_DEADLINE_CHECK: usize = 1_024;

/// Length of a key that counts as another key.
const KEY_BYTES_PER_UNIT: usize = 128;

/// Everything that one search needs.
pub(super) struct SearchContext<'a> {
    pub snapshot: &'a Snapshot,
    /// Reads blocks and rows.
    pub connection: &'a Connection,
    pub count_cache: &'a CountCache,
    /// Key of the ids that the store makes.
    pub secret: &'a [u8],
    /// The memory and the time of the request.
    pub budget: Rc<RequestBudget>,
}

pub(super) type DocsResult = Result<RoaringBitmap, StoreError>;

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
    /// Fails if the deadline has passed, or if nobody waits for the result.
    pub(super) fn check_deadline(&self) -> Result<(), StoreError> {
        self.budget.check()
    }

    /// Takes memory for a part of the result.
    pub(super) fn charge(&self, bytes: usize) -> Result<(), StoreError> {
        self.budget.charge(bytes)
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
                let matcher = pattern.matcher();
                self.find_keys(segment, from, &prefix_end(from.to_vec()), |key| matcher.matches(&key[4..]))
            }
            ResolvedPlan::Phrase(words, slop) => self.find_phrase(segment, words, *slop),
            ResolvedPlan::PhrasePrefix(words, last, slop) => {
                self.find_phrase_prefix(segment, words, *last, *slop)
            }
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
                    self.check_deadline()?;
                    docs &= self.find_in_segment(segment, plan)?;
                }
                Ok(docs)
            }
            ResolvedPlan::AtLeast(1, plans) => {
                let mut docs = RoaringBitmap::new();
                for plan in plans {
                    self.check_deadline()?;
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
            self.check_deadline()?;
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
    pub(super) fn find_term(&self, segment: &IndexSegment, key: &[u8]) -> DocsResult {
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
        let mut work = 0;
        while let Some(key) = cursor.key().filter(|key| *key < to) {
            // Long keys take longer.
            work += 1 + key.len() / KEY_BYTES_PER_UNIT;
            if fits(key) {
                add_docs(&cursor, &mut docs)?;
            }
            cursor.step()?;
            if work >= KEYS_PER_DEADLINE_CHECK {
                self.check_deadline()?;
                work = 0;
            }
        }
        Ok(docs)
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
            QueryPlan::Matching(from, pattern) => ResolvedPlan::Like(from, pattern),
            QueryPlan::Phrase(words, slop) => ResolvedPlan::Phrase(borrow_words(words), *slop),
            QueryPlan::PhrasePrefix(words, (prefix, at), slop) => {
                ResolvedPlan::PhrasePrefix(borrow_words(words), (prefix, *at), *slop)
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
            self.check_deadline()?;
            let counts = |doc| counts(&self.snapshot.segments, &self.snapshot.deleted_docs, doc);
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
    Like(&'p [u8], &'p super::term_pattern::TermPattern),
    Phrase(Vec<(&'p [u8], u32)>, u32),
    PhrasePrefix(Vec<(&'p [u8], u32)>, (&'p [u8], u32), u32),
    Docs(Vec<u32>),
    And(Vec<ResolvedPlan<'p>>),
    AtLeast(usize, Vec<ResolvedPlan<'p>>),
    Without(Box<ResolvedPlan<'p>>, Box<ResolvedPlan<'p>>),
}

fn borrow_words(words: &[(Vec<u8>, u32)]) -> Vec<(&[u8], u32)> {
    words.iter().map(|(key, at)| (key.as_slice(), *at)).collect()
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
