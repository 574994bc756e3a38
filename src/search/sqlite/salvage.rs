//! Reads what is left of a damaged store, and tells what is not. Called by a command, in its thread.
//!
//! Each document is looked for on its own, so a damaged page costs the documents in it. Documents below a damaged page of the
//! table are then looked for page by page. The index tells which
//! documents there must be: a document that is in the index and cannot be read is lost. Where the index is damaged too, each
//! document number without a document may be a loss.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use roaring::RoaringBitmap;
use rusqlite::{Connection, Row, params};

use super::catalog::field_ids;
use super::compress::SourceCodec;
use super::plan::term_key;
use super::schema::{self, StoreOpenError};
use super::segment::{IndexSegment, SegmentCursor};
use super::storage::damage;
use super::storage::scan::{Column, scan_rows};
use super::{file, ids, rows};
use crate::search::mark;
use crate::search::query::Hit;
use crate::{Error, Result};

/// Documents read in one query.
const ROWS_MAX: u32 = 256;

/// Ranges of documents that a line names.
const RANGES_LISTED_MAX: usize = 10;

/// What was found in a damaged store.
#[derive(Debug, Default)]
pub(crate) struct SalvageReport {
    /// Events that were read.
    pub events: u64,
    /// Events that cannot be read. Where the index is damaged too, an upper bound.
    pub lost: u64,
    /// What is damaged and what is lost, one text each.
    pub findings: Vec<String>,
}

/// An event.
pub(crate) struct SalvagedEvent {
    /// Its only sort value is the time of the event.
    pub hit: Hit,
}

/// Calls `each` with every event of a store that can be read, in the order of arrival, until it returns false.
pub(crate) fn salvage(
    dir: &Path,
    each: &mut dyn FnMut(SalvagedEvent) -> Result<bool>,
) -> Result<SalvageReport> {
    let path = file::path(dir);
    let failed = |cause: String| Error::Store { act: "read", path: path.clone(), cause };
    let mark = mark::read(&schema::mark_path(&path)).unwrap_or_default().mark.unwrap_or_default();
    let mut salvage = Salvage::new(mark.next_doc);
    match schema::open_to_salvage(&path) {
        Ok(connection) => {
            // One transaction: a writer may run.
            let transaction =
                connection.unchecked_transaction().map_err(|error| failed(error.to_string()))?;
            if let Ok(has) = schema::read_mark(&transaction)
                && has < mark
            {
                salvage.report.findings.push(without_advice(&StoreOpenError::Lost { has, should: mark }));
            }
            salvage.read_catalog(&transaction);
            salvage.read_index(&transaction);
            salvage.read_documents(&transaction, each)?;
        }
        Err(error @ (StoreOpenError::Damaged(_) | StoreOpenError::Empty)) => {
            let cause = without_advice(&error);
            salvage.report.findings.push(format!(
                "the tables cannot be read, only their rows (deleted events may be among these): {cause}"
            ));
            salvage.expect_all();
            salvage.is_without_tree = true;
        }
        Err(error) => return Err(failed(error.to_string())),
    }
    if !salvage.is_ended && (!salvage.report.findings.is_empty() || !salvage.failed.is_empty()) {
        salvage.scan(&path, each).map_err(|error| failed(error.to_string()))??;
    }
    Ok(salvage.report())
}

/// Returns the text of an error that the caller has followed already.
pub(super) fn without_advice(error: &StoreOpenError) -> String {
    let text = error.to_string();
    text.trim_end_matches(schema::ADVICE).trim_end_matches("; ").to_owned()
}

#[derive(Default)]
struct Salvage {
    report: SalvageReport,
    /// Names of indices by id.
    names: HashMap<u16, String>,
    secret: Option<Vec<u8>>,
    codec: SourceCodec,
    deleted: RoaringBitmap,
    /// Documents in the index, by the id of their index.
    expected: BTreeMap<u16, RoaringBitmap>,
    /// Documents that no readable segment contains.
    unknown: RoaringBitmap,
    seen: RoaringBitmap,
    /// Documents whose row cannot be read.
    failed: RoaringBitmap,
    next_doc: u64,
    /// True if the tables cannot be read.
    is_without_tree: bool,
    /// True if the reader of the events wants no more.
    is_ended: bool,
}

impl Salvage {
    fn new(acknowledged: u64) -> Salvage {
        Salvage { next_doc: acknowledged, ..Salvage::default() }
    }

    /// Reads one thing. If that fails, the finding names it.
    fn part<T>(&mut self, what: &str, read: impl FnOnce() -> rusqlite::Result<T>) -> Option<T> {
        damage::take();
        let error = match read() {
            Ok(read) => return Some(read),
            Err(error) => damage::take().map_or_else(|| error.to_string(), |found| found.to_string()),
        };
        self.report.findings.push(format!("{what} cannot be read: {error}"));
        None
    }

    fn read_catalog(&mut self, connection: &Connection) {
        let state = self.part("the state of the store", || rows::read_state(connection));
        if let Some((next_doc, secret)) = state {
            self.next_doc = self.next_doc.max(u64::from(next_doc));
            self.secret = Some(secret);
        }
        let names = self.part("the names of the indices", || {
            let mut statement = connection.prepare("SELECT id, name FROM indices")?;
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        });
        self.names = names.unwrap_or_default();
        self.part("the fields of the indices (their searches fail)", || {
            let mut statement = connection.prepare("SELECT definition FROM fields")?;
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
            Ok(())
        });
        let codec = SourceCodec::default();
        self.part("a dictionary of the events", || rows::read_dictionaries(connection, &codec));
        self.codec = codec;
        let deleted = self.part("the list of deleted events (events may be among these)", || {
            rows::read_deleted_docs(connection)
        });
        self.deleted = deleted.unwrap_or_default();
        self.part("the table of ids (their look-ups fail)", || {
            let mut statement = connection.prepare("SELECT doc FROM ids")?;
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
            Ok(())
        });
    }

    /// Reads which documents there must be.
    fn read_index(&mut self, connection: &Connection) {
        let (mut segments, mut is_complete) = (Vec::new(), true);
        for (what, sql) in [
            ("a row of the segments", "SELECT id, base, span, bytes, fences FROM segments"),
            ("a row of the young segments", "SELECT base, span, data FROM young_segments"),
        ] {
            let read = self.part(what, || {
                let mut statement = connection.prepare(sql)?;
                let mut rows = statement.query([])?;
                let mut is_complete = true;
                while let Some(row) = rows.next()? {
                    let segment = read_segment(row)?;
                    is_complete &= segment.is_some();
                    segments.extend(segment);
                }
                Ok(is_complete)
            });
            is_complete &= read == Some(true);
        }
        self.expect_all();
        if is_complete {
            // Other documents before the end were deleted with their segment.
            let end = segments.iter().map(|segment| segment.doc_range().end).max().unwrap_or(0);
            self.unknown.remove_range(..end);
        }
        let ids: Vec<u16> =
            if self.names.is_empty() { (0..100).collect() } else { self.names.keys().copied().collect() };
        for segment in &segments {
            self.read_segment(connection, segment, &ids);
        }
    }

    /// Expects a document for each number, until the index tells more.
    fn expect_all(&mut self) {
        if self.next_doc > 0 {
            self.unknown.insert_range(0..=u32::try_from(self.next_doc - 1).unwrap_or(u32::MAX));
        }
    }

    fn read_segment(&mut self, connection: &Connection, segment: &IndexSegment, ids: &[u16]) {
        damage::take();
        let read = ids.iter().try_for_each(|&index| {
            let key = term_key(index, field_ids::ALL, &[]);
            let mut cursor = SegmentCursor::seek(segment, connection, &key)?;
            while cursor.key() == Some(&key[..]) {
                let docs = self.expected.entry(index).or_default();
                cursor.each_run(|from, count| {
                    docs.insert_range(from..=from + (count - 1));
                })?;
                cursor.step()?;
            }
            Ok::<_, super::segment::SegmentError>(())
        });
        let found = damage::take();
        match read {
            Ok(()) => drop(self.unknown.remove_range(segment.doc_range())),
            Err(error) => {
                let range = list(&RoaringBitmap::from_iter(segment.doc_range()));
                let cause = found.map_or_else(|| error.to_string(), |found| found.to_string());
                self.report.findings.push(format!("searches in the events {range} fail: {cause}"));
                self.unknown.insert_range(segment.doc_range());
            }
        }
    }

    fn read_documents(
        &mut self,
        connection: &Connection,
        each: &mut dyn FnMut(SalvagedEvent) -> Result<bool>,
    ) -> Result<()> {
        let mut next = 0;
        while u64::from(next) < self.next_doc {
            damage::take();
            let mut found = Vec::new();
            let read = read_rows(connection, next, ROWS_MAX, &mut found);
            let last = found.last().map(|row: &SalvagedRow| row.doc);
            let is_end = read.is_ok() && found.len() < ROWS_MAX as usize;
            for row in found {
                if !self.pass_on(row, each)? {
                    return Ok(());
                }
            }
            if is_end {
                return Ok(());
            }
            let Some(after) = last.map_or(Some(next), |last| last.checked_add(1)) else { return Ok(()) };
            next = after;
            if read.is_err() {
                let Some(after) = self.skip_damage(connection, next, each)? else { return Ok(()) };
                next = after;
            }
        }
        Ok(())
    }

    /// Reads documents one by one until one can be read again. Returns the next one.
    fn skip_damage(
        &mut self,
        connection: &Connection,
        from: u32,
        each: &mut dyn FnMut(SalvagedEvent) -> Result<bool>,
    ) -> Result<Option<u32>> {
        for doc in from..=u32::try_from(self.next_doc.saturating_sub(1)).unwrap_or(u32::MAX) {
            let mut found = Vec::new();
            match read_rows(connection, doc, 1, &mut found) {
                Ok(()) => {
                    let next = found.first().map_or(doc, |row| row.doc);
                    if let Some(row) = found.pop()
                        && !self.pass_on(row, each)?
                    {
                        return Ok(None);
                    }
                    return Ok(next.checked_add(1));
                }
                Err(_) => drop(self.failed.insert(doc)),
            }
        }
        Ok(None)
    }

    fn pass_on(
        &mut self,
        row: SalvagedRow,
        each: &mut dyn FnMut(SalvagedEvent) -> Result<bool>,
    ) -> Result<bool> {
        let doc = row.doc;
        if self.deleted.contains(doc) {
            return Ok(true);
        }
        let Ok(source) = self.codec.decompress(&row.source) else {
            self.failed.insert(doc);
            return Ok(true);
        };
        self.seen.insert(doc);
        self.report.events += 1;
        let made = || self.secret.as_ref().map(|secret| ids::make_id(secret, doc));
        let hit = Hit {
            index: self.names.get(&row.index).cloned().unwrap_or_else(|| format!("index-{}", row.index)),
            doc_type: row.doc_type,
            id: row.id.or_else(made).unwrap_or_else(|| format!("document-{doc}")),
            version: 1,
            seq_no: u64::from(doc),
            source,
            sort: vec![row.time_ms.into()],
            score: None,
            ignored: Vec::new(),
        };
        let goes_on = each(SalvagedEvent { hit })?;
        self.is_ended |= !goes_on;
        Ok(goes_on)
    }

    /// Looks for the rows of documents page by page, and writes those that were not found through the tables.
    fn scan(
        &mut self,
        path: &Path,
        each: &mut dyn FnMut(SalvagedEvent) -> Result<bool>,
    ) -> std::io::Result<Result<()>> {
        let (mut documents, mut dictionaries) = (BTreeMap::new(), BTreeMap::new());
        scan_rows(path, |row, columns| match &columns[..] {
            [
                Column::Null,
                Column::Integer(index),
                id,
                _,
                doc_type,
                Column::Integer(time_ms),
                Column::Blob(source),
            ] => {
                let text = |column: &Column| match column {
                    Column::Text(text) => Some(text.clone()),
                    _ => None,
                };
                let (Ok(doc), Ok(index)) = (u32::try_from(row), u16::try_from(*index)) else { return };
                if !self.seen.contains(doc) {
                    let (id, doc_type, source) = (text(id), text(doc_type), source.clone());
                    documents
                        .insert(doc, SalvagedRow { doc, index, id, doc_type, time_ms: *time_ms, source });
                }
            }
            // The rest is of use only if the tables cannot be read.
            _ if !self.is_without_tree => {}
            [Column::Null, Column::Text(name), Column::Integer(_)] => {
                if let Ok(id) = u16::try_from(row) {
                    self.names.insert(id, name.clone());
                }
            }
            [Column::Null, Column::Integer(_), Column::Blob(secret), Column::Integer(_)] => {
                self.secret = Some(secret.clone());
            }
            // Blocks have two columns too, and greater numbers.
            [Column::Null, Column::Blob(data)] if row < 1 << 24 => {
                dictionaries.insert(row, data.clone());
            }
            [Column::Null] => drop(u32::try_from(row).map(|doc| self.deleted.insert(doc))),
            _ => {}
        })?;
        dictionaries.values().for_each(|dictionary| self.codec.add_dictionary(dictionary));
        for row in documents.into_values() {
            let doc = row.doc;
            match self.pass_on(row, each) {
                Ok(true) => drop(self.failed.remove(doc)),
                Ok(false) => break,
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(()))
    }

    fn report(mut self) -> SalvageReport {
        damage::take();
        let mut lost = RoaringBitmap::new();
        for (index, docs) in &self.expected {
            let missing = &(docs - &self.seen) - &self.deleted;
            if missing.is_empty() {
                continue;
            }
            let name = self.names.get(index).cloned().unwrap_or_else(|| format!("index-{index}"));
            let all = (docs - &self.deleted).len();
            self.report.findings.push(format!(
                "{} of {all} events of index {name} cannot be read: {}",
                missing.len(),
                list(&missing)
            ));
            lost |= missing;
        }
        let unknown = &(&(&self.unknown - &self.seen) - &self.deleted) - &lost;
        if !unknown.is_empty() {
            self.report.findings.push(format!(
                "up to {} more events cannot be read, of unknown indices: {}",
                unknown.len(),
                list(&unknown)
            ));
        }
        self.report.lost = lost.len() + unknown.len();
        self.report
    }
}

/// A row of the table of documents.
struct SalvagedRow {
    doc: u32,
    index: u16,
    id: Option<String>,
    doc_type: Option<String>,
    time_ms: i64,
    source: Vec<u8>,
}

/// Reads rows from a document on. Those before an error are in `found`.
fn read_rows(
    connection: &Connection,
    from: u32,
    limit: u32,
    found: &mut Vec<SalvagedRow>,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "SELECT doc, index_id, id, type, time_ms, source FROM documents WHERE doc >= ?1 ORDER BY doc LIMIT ?2",
    )?;
    let mut rows = statement.query(params![from, limit])?;
    while let Some(row) = rows.next()? {
        found.push(SalvagedRow {
            doc: row.get(0)?,
            index: row.get(1)?,
            id: row.get(2)?,
            doc_type: row.get(3)?,
            time_ms: row.get(4)?,
            source: row.get(5)?,
        });
    }
    Ok(())
}

/// Reads a row of either table of segments. `None` if its bytes are not those of a segment.
fn read_segment(row: &Row<'_>) -> rusqlite::Result<Option<IndexSegment>> {
    Ok(if row.as_ref().column_count() == 3 {
        IndexSegment::unpack(row.get(0)?, row.get(1)?, row.get_ref(2)?.as_blob()?).ok()
    } else {
        let fences = row.get_ref(4)?.as_blob()?;
        IndexSegment::from_row(row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, fences).ok()
    })
}

/// Lists documents as ranges.
fn list(docs: &RoaringBitmap) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for doc in docs {
        if let Some(last) = ranges.last_mut().filter(|last| last.1 + 1 == doc) {
            last.1 = doc;
            continue;
        }
        // One more than is listed, so that there is "more".
        if ranges.len() > RANGES_LISTED_MAX {
            break;
        }
        ranges.push((doc, doc));
    }
    let is_more = ranges.len() > RANGES_LISTED_MAX;
    let range = |&(first, last): &(u32, u32)| match last {
        last if last == first => format!("{first}"),
        last => format!("{first} to {last}"),
    };
    let listed: Vec<String> = ranges.iter().take(RANGES_LISTED_MAX).map(range).collect();
    format!("numbers {}{}", listed.join(", "), if is_more { " and more" } else { "" })
}
