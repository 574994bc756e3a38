//! Finds the documents of a plan, segment by segment. Runs in the caller's thread.

use std::time::Instant;

use roaring::RoaringBitmap;
use rusqlite::Connection;

use super::counts::Counts;
use super::plan::{Plan, behind, key};
use super::segment::codec::take_positions;
use super::segment::{Cursor, ReadError, Segment};
use super::snapshot::Snapshot;
use super::{catalogue::number, writer};
use crate::iri::store::StoreError;

/// How often a walk over keys looks at the clock.
const KEYS_BETWEEN_LOOKS: u32 = 1_024;

/// A search that is going on.
pub struct Context<'a> {
    /// What it sees.
    pub snapshot: &'a Snapshot,
    /// Reads blocks and rows.
    pub connection: &'a Connection,
    /// Counts that are known already.
    pub counts: &'a Counts,
    /// What ids are made with.
    pub secret: &'a [u8],
    /// When it is given up.
    pub deadline: Instant,
    /// How long it may take.
    pub timeout_ms: u64,
}

type Docs = Result<RoaringBitmap, StoreError>;

impl From<ReadError> for StoreError {
    fn from(error: ReadError) -> StoreError {
        StoreError::Failed { act: "read the store", cause: error.to_string() }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> StoreError {
        StoreError::Failed { act: "read the store", cause: error.to_string() }
    }
}

impl Context<'_> {
    /// Fails once the time is up.
    pub fn look(&self) -> Result<(), StoreError> {
        if Instant::now() < self.deadline { Ok(()) } else { Err(StoreError::TimedOut(self.timeout_ms)) }
    }

    /// The documents of a plan that count, of one index.
    pub fn find(&self, index: u16, plan: &Plan) -> Docs {
        let plan = self.with_ids(index, plan)?;
        let mut all = RoaringBitmap::new();
        for segment in &self.snapshot.segments {
            self.look()?;
            all |= self.find_in(segment, &plan)?;
        }
        all -= &*self.snapshot.gone;
        Ok(all)
    }

    /// How many documents of a plan count, of one index.
    pub fn count(&self, index: u16, plan: &Plan) -> Result<u64, StoreError> {
        let resolved = self.with_ids(index, plan)?;
        let cached = self.counts.get(plan);
        let (mut total, mut learned) = (0, Vec::new());
        for segment in &self.snapshot.segments {
            let is_whole = self.snapshot.gone.range_cardinality(segment.docs()) == 0;
            let known = cached
                .iter()
                .flat_map(|known| known.iter())
                .find(|(id, _)| *id == segment.id && segment.id > 0);
            let count = match known.filter(|_| is_whole) {
                Some((_, count)) => *count,
                None => self.count_in(segment, &resolved, is_whole)?,
            };
            if segment.id > 0 && is_whole {
                learned.push((segment.id, count));
            }
            total += count;
        }
        self.counts.put(plan, cached.as_deref(), learned);
        Ok(total)
    }

    /// How many documents of a segment: where none of it is gone, a term's own number says it.
    fn count_in(&self, segment: &Segment, plan: &Resolved, is_whole: bool) -> Result<u64, StoreError> {
        match plan {
            Resolved::None => return Ok(0),
            Resolved::Term(key) if is_whole => {
                let cursor = Cursor::find(segment, self.connection, key)?;
                return Ok(cursor.map_or(0, |cursor| u64::from(cursor.total())));
            }
            Resolved::AtLeast(1, plans) if is_whole => {
                if let Some(count) = self.count_of_one(segment, plans)? {
                    return Ok(count);
                }
            }
            _ => {}
        }
        self.look()?;
        let mut docs = self.find_in(segment, plan)?;
        if !is_whole {
            docs -= &*self.snapshot.gone;
        }
        Ok(docs.len())
    }

    /// Where at most one of several terms is in the segment: how many documents have it.
    fn count_of_one(&self, segment: &Segment, plans: &[Resolved]) -> Result<Option<u64>, StoreError> {
        let mut found = 0;
        for plan in plans {
            let Resolved::Term(key) = plan else { return Ok(None) };
            if let Some(cursor) = Cursor::find(segment, self.connection, key)? {
                if found > 0 {
                    return Ok(None);
                }
                found = u64::from(cursor.total());
            }
        }
        Ok(Some(found))
    }

    fn find_in(&self, segment: &Segment, plan: &Resolved) -> Docs {
        match plan {
            Resolved::None => Ok(RoaringBitmap::new()),
            Resolved::Term(key) => self.term(segment, key),
            Resolved::Range(from, to) => self.keys(segment, from, to, |_| true),
            Resolved::Like(from, pattern) => {
                self.keys(segment, from, &behind(from.to_vec()), |key| pattern.fits(&key[4..]))
            }
            Resolved::Phrase(words) => self.phrase(segment, words),
            Resolved::Docs(docs) => {
                Ok(docs.iter().copied().filter(|doc| segment.docs().contains(doc)).collect())
            }
            Resolved::And(plans) => {
                let mut plans = plans.iter();
                let mut found = plans
                    .next()
                    .map_or_else(|| Ok(RoaringBitmap::new()), |plan| self.find_in(segment, plan))?;
                for plan in plans {
                    if found.is_empty() {
                        break;
                    }
                    found &= self.find_in(segment, plan)?;
                }
                Ok(found)
            }
            Resolved::AtLeast(1, plans) => {
                let mut found = RoaringBitmap::new();
                for plan in plans {
                    found |= self.find_in(segment, plan)?;
                }
                Ok(found)
            }
            Resolved::AtLeast(count, plans) => self.at_least(segment, *count, plans),
            Resolved::Without(plan, not) => {
                let found = self.find_in(segment, plan)?;
                if found.is_empty() { Ok(found) } else { Ok(found - self.find_in(segment, not)?) }
            }
        }
    }

    /// `reached[n]` has the documents of more than n plans.
    fn at_least(&self, segment: &Segment, count: usize, plans: &[Resolved]) -> Docs {
        let mut reached = vec![RoaringBitmap::new(); count];
        for plan in plans {
            let found = self.find_in(segment, plan)?;
            for at in (1..count).rev() {
                let more = &reached[at - 1] & &found;
                reached[at] |= more;
            }
            reached[0] |= found;
        }
        Ok(reached.pop().unwrap_or_default())
    }

    /// The documents of one key.
    fn term(&self, segment: &Segment, key: &[u8]) -> Docs {
        let mut docs = RoaringBitmap::new();
        let Some(mut cursor) = Cursor::find(segment, self.connection, key)? else { return Ok(docs) };
        while cursor.key() == Some(key) {
            add(&cursor, &mut docs)?;
            cursor.step()?;
        }
        Ok(docs)
    }

    /// The documents of all keys from `from` on and below `to` that fit.
    fn keys(&self, segment: &Segment, from: &[u8], to: &[u8], fits: impl Fn(&[u8]) -> bool) -> Docs {
        let mut docs = RoaringBitmap::new();
        let mut cursor = Cursor::seek(segment, self.connection, from)?;
        let mut until_look = KEYS_BETWEEN_LOOKS;
        while cursor.key().is_some_and(|key| key < to) {
            if cursor.key().is_some_and(&fits) {
                add(&cursor, &mut docs)?;
            }
            cursor.step()?;
            until_look -= 1;
            if until_look == 0 {
                self.look()?;
                until_look = KEYS_BETWEEN_LOOKS;
            }
        }
        Ok(docs)
    }

    /// Documents in which the words stand as far apart as in the question.
    fn phrase(&self, segment: &Segment, words: &[(&[u8], u32)]) -> Docs {
        let mut both = RoaringBitmap::new();
        for (at, (key, _)) in words.iter().enumerate() {
            let docs = self.term(segment, key)?;
            both = if at == 0 { docs } else { both & docs };
            if both.is_empty() {
                return Ok(both);
            }
        }
        // Where the phrase may begin, in each document that has all words: fewer with each word.
        let mut begins: Vec<(u32, Vec<u32>)> = Vec::new();
        for (at, (key, behind)) in words.iter().enumerate() {
            let mut left = begins.iter_mut().peekable();
            let mut first = Vec::new();
            self.positions(segment, key, |doc, positions| {
                if !both.contains(doc) {
                    return;
                }
                let here = positions.iter().filter_map(|position| position.checked_sub(*behind));
                if at == 0 {
                    return first.push((doc, here.collect()));
                }
                while left.next_if(|(other, _)| *other < doc).is_some() {}
                if let Some((_, begins)) = left.next_if(|(other, _)| *other == doc) {
                    let here: Vec<u32> = here.collect();
                    begins.retain(|begin| here.binary_search(begin).is_ok());
                }
            })?;
            if at == 0 {
                begins = first;
            } else {
                begins.retain(|(_, begins)| !begins.is_empty());
            }
            self.look()?;
        }
        Ok(begins.into_iter().map(|(doc, _)| doc).collect())
    }

    /// Calls `each` with each document of a key and its positions.
    fn positions(
        &self,
        segment: &Segment,
        key: &[u8],
        mut each: impl FnMut(u32, &[u32]),
    ) -> Result<(), StoreError> {
        let Some(mut cursor) = Cursor::find(segment, self.connection, key)? else { return Ok(()) };
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

    /// Looks ids up, once for all segments.
    fn with_ids<'p>(&self, index: u16, plan: &'p Plan) -> Result<Resolved<'p>, StoreError> {
        let all = |plans: &'p [Plan]| {
            plans.iter().map(|plan| self.with_ids(index, plan)).collect::<Result<Vec<_>, _>>()
        };
        Ok(match plan {
            Plan::None => Resolved::None,
            Plan::Term(key) => Resolved::Term(key),
            Plan::Range(from, to) => Resolved::Range(from, to),
            Plan::Like(from, pattern) => Resolved::Like(from, pattern),
            Plan::Phrase(words) => {
                Resolved::Phrase(words.iter().map(|(key, at)| (key.as_slice(), *at)).collect())
            }
            Plan::Ids(ids) => Resolved::Docs(self.docs_of(index, ids)?),
            Plan::And(plans) => Resolved::And(all(plans)?),
            Plan::AtLeast(count, plans) => Resolved::AtLeast(*count, all(plans)?),
            Plan::Without(plan, not) => {
                Resolved::Without(Box::new(self.with_ids(index, plan)?), Box::new(self.with_ids(index, not)?))
            }
        })
    }

    fn docs_of(&self, index: u16, ids: &[String]) -> Result<Vec<u32>, StoreError> {
        let mut docs = Vec::with_capacity(ids.len());
        for id in ids {
            let counts = |doc| !self.snapshot.gone.contains(doc);
            if let Some((doc, _)) = writer::find(self.connection, self.secret, index, id, counts)? {
                docs.push(doc);
            }
        }
        Ok(docs)
    }

    /// All documents of an index.
    pub fn index_docs(&self, index: u16) -> Result<u64, StoreError> {
        self.count(index, &Plan::Term(key(index, number::ALL, &[])))
    }
}

/// A plan whose ids are looked up.
enum Resolved<'p> {
    None,
    Term(&'p [u8]),
    Range(&'p [u8], &'p [u8]),
    Like(&'p [u8], &'p super::pattern::Pattern),
    Phrase(Vec<(&'p [u8], u32)>),
    Docs(Vec<u32>),
    And(Vec<Resolved<'p>>),
    AtLeast(usize, Vec<Resolved<'p>>),
    Without(Box<Resolved<'p>>, Box<Resolved<'p>>),
}

/// Adds an entry's documents.
pub fn add(cursor: &Cursor, docs: &mut RoaringBitmap) -> Result<(), ReadError> {
    cursor.each_run(|from, count| {
        if count == 1 {
            docs.insert(from);
        } else {
            docs.insert_range(from..from + count);
        }
    })
}
