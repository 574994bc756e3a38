//! The one that writes: the thread `store`. It commits what has gathered while the last commit ran, and answers each
//! caller when its documents are durable. What cannot be committed is rolled back and answered so; the next group is
//! tried as if nothing had been.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};

use crossbeam_channel::{Receiver, Sender, select};
use roaring::RoaringBitmap;
use rusqlite::{CachedStatement, Connection, params};

use super::merger::{Merged, Wake};
use super::schema::block_id;
use super::segment::{Blocks, ReadError, Segment, Writer as SegmentWriter, merge};
use super::snapshot::{Snapshot, compact, spanned};
use super::{Shared, ids, rows};
use crate::iri::document::Mode;
use crate::iri::store::{Refused, Written};

/// Documents and bytes of one commit.
const GROUP_DOCS_MAX: usize = 20_000;
const GROUP_BYTES_MAX: usize = 16 << 20;

/// Young segments become one on the disk when they have many documents, or take so much memory, or so much of the table
/// `recent`.
const YOUNG_BYTES_MAX: u64 = 12 << 20;
const RECENT_BYTES_MAX: u64 = 48 << 20;

/// Blocks of a segment that is gone are deleted so many at a time, between commits.
const DELETED_BLOCKS_MAX: i64 = 512;

/// A document that is ready to be written.
#[derive(Debug)]
pub struct Prepared {
    /// The index's number.
    pub index: u16,
    /// Its type.
    pub kind: Option<String>,
    /// The id, where one was given.
    pub id: Option<String>,
    /// What happens where the id is there.
    pub mode: Mode,
    /// Its time.
    pub time_ms: i64,
    /// The source as it is kept.
    pub source: Vec<u8>,
}

/// One call's documents and their terms.
#[derive(Debug)]
pub struct Job {
    /// In their order.
    pub documents: Vec<Prepared>,
    /// Their terms, with 0 as the first document.
    pub segment: Segment,
    /// What they take in the queue.
    pub bytes: usize,
    /// Where the answer goes.
    pub reply: Sender<Result<Vec<Result<Written, Refused>>, String>>,
}

/// Why a commit failed.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// SQLite says so.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// A segment cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// There are as many documents as numbers.
    #[error("the store has numbers for 2^32 documents, and all are used")]
    Numbers,
}

/// The thread's state.
pub struct Writer {
    connection: Connection,
    shared: Arc<Shared>,
    jobs: Receiver<Job>,
    merged: Receiver<Merged>,
    wake: Sender<Wake>,
    next_doc: u32,
    recent_bytes: u64,
    retired: VecDeque<Retired>,
}

/// What is to be deleted once nobody reads it.
#[derive(Debug, Default)]
struct Retired {
    era: Weak<()>,
    segments: Vec<u64>,
    docs: RoaringBitmap,
}

/// What a group will change once it is committed.
struct Next {
    doc: u32,
    recent_bytes: u64,
    segments: Vec<Arc<Segment>>,
    gone: Arc<RoaringBitmap>,
    retired: Option<Retired>,
    flushed: bool,
}

impl Writer {
    /// Takes the connection over, and deletes what a crash left behind.
    pub fn new(
        connection: Connection,
        shared: Arc<Shared>,
        jobs: Receiver<Job>,
        merged: Receiver<Merged>,
        wake: Sender<Wake>,
    ) -> rusqlite::Result<Writer> {
        let (next_doc, _) = rows::read_state(&connection)?;
        shared.next_segment.store(delete_orphans(&connection)?, Ordering::Relaxed);
        let recent_bytes =
            connection
                .query_row("SELECT coalesce(sum(length(data)), 0) FROM recent", [], |row| row.get(0))?;
        let retired = VecDeque::new();
        Ok(Writer { connection, shared, jobs, merged, wake, next_doc, recent_bytes, retired })
    }

    /// Runs until every sender of jobs is gone.
    pub fn run(mut self) {
        let (jobs, merged) = (self.jobs.clone(), self.merged.clone());
        let _ = self.wake.try_send(Wake::Merge);
        loop {
            select! {
                recv(jobs) -> job => match job {
                    Ok(job) => self.group(job),
                    Err(_) => break,
                },
                recv(merged) -> message => match message {
                    Ok(message) => self.take_merged(message),
                    Err(_) => {
                        // The merger ended by a panic: writing goes on without it.
                        log::error!("store_merge_ended");
                        while let Ok(job) = jobs.recv() { self.group(job) }
                        break;
                    }
                },
            }
            if let Err(error) = self.delete_retired() {
                log::warn!("store_not_cleaned error=\"{error}\"");
            }
        }
        // Left to the next start otherwise, which would find a log to read.
        if let Err(error) = self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
            log::warn!("store_not_checkpointed error=\"{error}\"");
        }
    }

    fn group(&mut self, first: Job) {
        let (mut docs, mut bytes) = (first.documents.len(), first.bytes);
        let mut group = vec![first];
        while docs < GROUP_DOCS_MAX && bytes < GROUP_BYTES_MAX {
            let Ok(job) = self.jobs.try_recv() else { break };
            (docs, bytes) = (docs + job.documents.len(), bytes + job.bytes);
            group.push(job);
        }
        self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        let changes = self.shared.catalogue.take_changes();
        let replies: Vec<_> = group.iter().map(|job| job.reply.clone()).collect();
        let committed = self.commit(|writer, next| {
            rows::write_changes(&writer.connection, &changes)?;
            let written =
                group.into_iter().map(|job| writer.write_job(job, next)).collect::<Result<Vec<_>, _>>()?;
            writer.flush(next)?;
            Ok(written)
        });
        match committed {
            // A caller that is gone needs no answer.
            Ok(written) => {
                replies.iter().zip(written).for_each(|(reply, written)| drop(reply.send(Ok(written))))
            }
            Err(error) => {
                self.shared.catalogue.give_back(changes);
                log::warn!("store_commit_failed documents={docs} error=\"{error}\"");
                replies.iter().for_each(|reply| drop(reply.send(Err(error.to_string()))));
            }
        }
    }

    /// Does `work` in one transaction and lets readers see it, or undoes all of it.
    fn commit<T>(
        &mut self,
        work: impl FnOnce(&Writer, &mut Next) -> Result<T, WriteError>,
    ) -> Result<T, WriteError> {
        let before = self.shared.snapshot();
        let mut next = Next {
            doc: self.next_doc,
            recent_bytes: self.recent_bytes,
            segments: before.segments.clone(),
            gone: Arc::clone(&before.gone),
            retired: None,
            flushed: false,
        };
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let done = work(self, &mut next).and_then(|done| {
            self.connection.prepare_cached("UPDATE state SET next_doc = ?1")?.execute([next.doc])?;
            self.connection.execute_batch("COMMIT")?;
            Ok(done)
        });
        match done {
            Ok(done) => {
                self.publish(next, &before);
                Ok(done)
            }
            Err(error) => {
                // SQLite has rolled back by itself after some errors; then this one fails.
                let _ = self.connection.execute_batch("ROLLBACK");
                Err(error)
            }
        }
    }

    fn publish(&mut self, next: Next, before: &Snapshot) {
        (self.next_doc, self.recent_bytes) = (next.doc, next.recent_bytes);
        let mut snapshot =
            Snapshot { segments: next.segments, gone: next.gone, era: Arc::clone(&before.era) };
        let mut young = snapshot.segments.split_off(snapshot.young_from());
        if let Err(error) = compact(&mut young, &snapshot.gone) {
            log::error!("store_not_compacted error=\"{error}\"");
        }
        snapshot.segments.append(&mut young);
        if let Some(mut retired) = next.retired {
            retired.era = Arc::downgrade(&before.era);
            snapshot.era = Arc::default();
            self.retired.push_back(retired);
        }
        let snapshot = Arc::new(snapshot);
        *self.shared.snapshot.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&snapshot);
        if next.flushed {
            // A merger that is at work looks again by itself.
            let _ = self.wake.try_send(Wake::Merge);
        }
        if self.shared.sources.can_train() {
            let _ = self.wake.try_send(Wake::Train);
        }
    }

    /// Writes one call's documents.
    fn write_job(&self, job: Job, next: &mut Next) -> Result<Vec<Result<Written, Refused>>, WriteError> {
        let base = next.doc;
        let count = u32::try_from(job.documents.len()).map_err(|_| WriteError::Numbers)?;
        let end = base.checked_add(count).ok_or(WriteError::Numbers)?;
        let mut written = Vec::with_capacity(job.documents.len());
        let mut insert =
            self.connection.prepare_cached("INSERT INTO documents VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
        for (document, doc) in job.documents.into_iter().zip(base..end) {
            written.push(self.write_document(&mut insert, document, doc, next)?);
        }
        next.doc = end;
        if count > 0 {
            let mut segment = job.segment;
            segment.base = base;
            let packed = segment.pack();
            self.connection
                .prepare_cached("INSERT INTO recent VALUES (?1, ?2, ?3)")?
                .execute(params![base, count, packed])?;
            next.recent_bytes += packed.len() as u64;
            next.segments.push(Arc::new(segment));
        }
        Ok(written)
    }

    fn write_document(
        &self,
        insert: &mut CachedStatement<'_>,
        document: Prepared,
        doc: u32,
        next: &mut Next,
    ) -> Result<Result<Written, Refused>, WriteError> {
        let mut version = 1;
        let secret = &self.shared.secret;
        if let Some(id) = &document.id {
            let there = find(&self.connection, secret, document.index, id, |doc| !next.gone.contains(doc))?;
            if let Some((old, old_version)) = there {
                if document.mode == Mode::Create {
                    self.let_go(doc, next)?;
                    return Ok(Err(Refused::Exists { id: id.clone(), version: old_version }));
                }
                self.let_go(old, next)?;
                version = old_version + 1;
            }
            self.connection
                .prepare_cached("INSERT OR REPLACE INTO ids VALUES (?1, ?2, ?3)")?
                .execute(params![document.index, id, doc])?;
        }
        insert.execute(params![
            doc,
            document.index,
            document.id,
            (version > 1).then_some(version),
            document.kind,
            document.time_ms,
            document.source
        ])?;
        let id = document.id.unwrap_or_else(|| ids::make(secret, doc));
        Ok(Ok(Written { id, version, sequence: u64::from(doc), created: version == 1 }))
    }

    /// A document counts no more. Its row and its postings stay until the segment that it is in is merged.
    fn let_go(&self, doc: u32, next: &mut Next) -> Result<(), WriteError> {
        self.connection.prepare_cached("INSERT OR IGNORE INTO gone VALUES (?1)")?.execute([doc])?;
        Arc::make_mut(&mut next.gone).insert(doc);
        Ok(())
    }

    /// Brings young segments to the disk when there are enough.
    fn flush(&self, next: &mut Next) -> Result<(), WriteError> {
        let from = next.segments.partition_point(|segment| matches!(segment.blocks, Blocks::Disk(_)));
        let (base, span) = spanned(&next.segments[from..]);
        let bytes: u64 = next.segments[from..].iter().map(|segment| segment.bytes).sum();
        if span < self.shared.young_docs_max
            && bytes < YOUNG_BYTES_MAX
            && next.recent_bytes < RECENT_BYTES_MAX
        {
            return Ok(());
        }
        let young: Vec<_> = next.segments[from..].iter().map(Arc::as_ref).collect();
        let (id, mut written) = (self.shared.next_segment.fetch_add(1, Ordering::Relaxed), 0);
        let mut writer = SegmentWriter::default();
        merge(&young, &super::snapshot::Nowhere, &next.gone, &mut writer, |writer| {
            self.write_blocks(id, &mut written, &mut writer.ready)
        })?;
        let (mut last, segment) = writer.into_disk(id, base, span);
        self.write_blocks(id, &mut written, &mut last)?;
        self.write_segment(&segment)?;
        self.connection.execute("DELETE FROM recent", [])?;
        self.purge(base, span, &next.gone.clone(), next);
        next.segments.truncate(from);
        next.segments.push(Arc::new(segment));
        (next.recent_bytes, next.flushed) = (0, true);
        Ok(())
    }

    fn write_blocks(
        &self,
        id: u64,
        written: &mut u32,
        blocks: &mut Vec<Box<[u8]>>,
    ) -> Result<(), WriteError> {
        if blocks.is_empty() {
            return Ok(());
        }
        let mut statement = self.connection.prepare_cached("INSERT INTO block VALUES (?1, ?2)")?;
        for block in blocks.drain(..) {
            statement.execute(params![block_id(id, *written), block])?;
            *written += 1;
        }
        Ok(())
    }

    fn write_segment(&self, segment: &Segment) -> Result<(), WriteError> {
        self.connection
            .prepare_cached("INSERT INTO segment VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![segment.id, segment.base, segment.span, segment.bytes, segment.fences()])?;
        Ok(())
    }

    /// Documents of a span that no segment has any more: their rows go when nobody reads them.
    fn purge(&self, base: u32, span: u32, gone: &RoaringBitmap, next: &mut Next) {
        if gone.range_cardinality(base..base + span) == 0 {
            return;
        }
        let docs: RoaringBitmap = gone.range(base..base + span).collect();
        *Arc::make_mut(&mut next.gone) -= &docs;
        next.retired.get_or_insert_default().docs |= docs;
    }

    /// Takes what the merger made.
    fn take_merged(&mut self, message: Merged) {
        match message {
            Merged::Blocks { segment, first, mut blocks, done } => {
                let mut written = first;
                let stored = self.commit(|writer, _| writer.write_blocks(segment, &mut written, &mut blocks));
                if let Err(error) = &stored {
                    log::warn!("store_merge_failed error=\"{error}\"");
                    // What is there of it is deleted; nobody reads it.
                    self.retired.push_back(Retired { segments: vec![segment], ..Retired::default() });
                }
                let _ = done.send(stored.is_ok());
            }
            Merged::Switch { old, new, gone, done } => {
                let id = new.id;
                let switched = self.commit(|writer, next| writer.switch(old, new, &gone, next));
                let _ = done.send(switched.is_ok());
                if let Err(error) = switched {
                    log::warn!("store_merge_failed error=\"{error}\"");
                    self.retired.push_back(Retired { segments: vec![id], ..Retired::default() });
                }
            }
            Merged::Dictionary(bytes) => {
                let stored = self.commit(|writer, _| {
                    Ok(writer.connection.execute("INSERT INTO dictionary (data) VALUES (?1)", [&bytes])?)
                });
                match stored {
                    Ok(_) => self.shared.sources.add_dictionary(&bytes),
                    Err(error) => log::warn!("store_dictionary_failed error=\"{error}\""),
                }
            }
        }
    }

    /// Puts a merged segment in the place of those that it was made of.
    fn switch(
        &self,
        old: Vec<u64>,
        new: Segment,
        gone: &RoaringBitmap,
        next: &mut Next,
    ) -> Result<(), WriteError> {
        for id in &old {
            self.connection.prepare_cached("DELETE FROM segment WHERE id = ?1")?.execute([id])?;
        }
        self.write_segment(&new)?;
        self.purge(new.base, new.span, gone, next);
        let at = next.segments.partition_point(|segment| segment.base < new.base);
        next.segments.retain(|segment| !old.contains(&segment.id));
        next.segments.insert(at, Arc::new(new));
        next.retired.get_or_insert_default().segments = old;
        next.flushed = true;
        Ok(())
    }

    /// Deletes some of what nobody reads any more.
    fn delete_retired(&mut self) -> rusqlite::Result<()> {
        let Some(first) = self.retired.front_mut().filter(|first| first.era.strong_count() == 0) else {
            return Ok(());
        };
        let transaction = self.connection.unchecked_transaction()?;
        for doc in first.docs.iter() {
            transaction.prepare_cached("DELETE FROM documents WHERE doc = ?1")?.execute([doc])?;
            transaction.prepare_cached("DELETE FROM gone WHERE doc = ?1")?.execute([doc])?;
        }
        let mut left = DELETED_BLOCKS_MAX;
        let mut done = 0;
        for &segment in &first.segments {
            let range = [block_id(segment, 0), block_id(segment + 1, 0), left];
            let deleted = transaction
                .prepare_cached("DELETE FROM block WHERE id IN (SELECT id FROM block WHERE id >= ?1 AND id < ?2 LIMIT ?3)")?
                .execute(range)? as i64;
            left -= deleted;
            if left <= 0 {
                break;
            }
            done += 1;
        }
        transaction.commit()?;
        first.docs.clear();
        first.segments.drain(..done);
        if first.segments.is_empty() {
            self.retired.pop_front();
        }
        Ok(())
    }
}

/// The document of an id, and its version, if it counts.
pub fn find(
    connection: &Connection,
    secret: &[u8],
    index: u16,
    id: &str,
    counts: impl Fn(u32) -> bool,
) -> rusqlite::Result<Option<(u32, u64)>> {
    let given = rows::doc_of_id(connection, index, id)?;
    let made = || ids::read(secret, id).filter(|&doc| counts(doc));
    let Some(doc) = given.or_else(made) else { return Ok(None) };
    let row = rows::read_document(connection, doc)?.filter(|row| row.index == index);
    Ok(row.filter(|row| given.is_some() || row.id.is_none()).map(|row| (doc, row.version)))
}

/// Deletes blocks that belong to no segment; gives the next segment's number.
fn delete_orphans(connection: &Connection) -> rusqlite::Result<u64> {
    let mut known = connection.prepare("SELECT id FROM segment ORDER BY id")?;
    let known = known.query_map([], |row| row.get::<_, u64>(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
    let mut from = 0;
    for &id in &known {
        connection
            .execute("DELETE FROM block WHERE id >= ?1 AND id < ?2", [block_id(from, 0), block_id(id, 0)])?;
        from = id + 1;
    }
    connection.execute("DELETE FROM block WHERE id >= ?1", [block_id(from, 0)])?;
    Ok(from.max(1))
}
