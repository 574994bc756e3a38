//! Writer of the store: the thread `store`. It commits all calls that arrived during the last commit, and answers
//! each caller when its documents are durable. A failed commit is rolled back and reported to its callers. The next
//! commit does not depend on it.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, select};
use roaring::RoaringBitmap;
use rusqlite::{CachedStatement, Connection, params};

use super::merger::{MergerOutput, MergerRequest};
use super::schema::block_id;
use super::segment::{IndexSegment, SegmentBlocks, SegmentError, SegmentWriter, merge_segments};
use super::snapshot::{Snapshot, compact_young, counts, doc_span, is_in_segment};
use super::storage::damage;
use super::{ids, rows, schema};
use crate::search::document::WriteMode;
use crate::search::mark::{Mark, MarkFile};
use crate::search::sqlite::state::StoreState;
use crate::search::store::{WriteReceipt, WriteRejected};

/// Maximum number of documents and bytes of one commit.
const GROUP_DOCS_MAX: usize = 20_000;
const GROUP_BYTES_MAX: usize = 16 << 20;

/// Limits at which the young segments become one disk segment: their size in memory, and their size in the table.
const YOUNG_BYTES_MAX: u64 = 12 << 20;
const YOUNG_TABLE_BYTES_MAX: u64 = 48 << 20;

/// Maximum number of blocks of retired segments that are deleted between two commits.
const DELETED_BLOCKS_MAX: i64 = 512;

/// Maximum number of documents whose rows are deleted between two commits.
const DELETED_ROWS_MAX: usize = 4_096;

/// Gives free pages back to the disk, some at a time.
const GIVE_PAGES_BACK: &str = "PRAGMA incremental_vacuum(512)";

/// How long the writer waits for the readers of a state that is to be deleted, and if there is nothing to clean up.
const READER_PAUSE: Duration = Duration::from_millis(20);
const NO_CLEANUP: Duration = Duration::from_secs(3_600);

/// A document that is ready to be written.
#[derive(Debug)]
pub(super) struct IndexedDocument {
    /// Id of the index.
    pub index: u16,
    pub doc_type: Option<String>,
    /// The id, if the sender chose one.
    pub id: Option<String>,
    pub mode: WriteMode,
    pub time_ms: i64,
    /// The source in its stored form.
    pub source: Vec<u8>,
}

/// Documents and terms of one call.
#[derive(Debug)]
pub(super) struct StoreJob {
    pub documents: Vec<IndexedDocument>,
    /// Terms of the documents. The first document has number 0.
    pub segment: IndexSegment,
    /// Bytes that count against the limit of the queue.
    pub bytes: usize,
    pub reply: Sender<Result<Vec<Result<WriteReceipt, WriteRejected>>, String>>,
}

/// What callers ask the writer to do.
#[derive(Debug)]
pub(super) enum StoreRequest {
    Write(StoreJob),
    /// Deletes documents, and answers how many of them were there.
    Delete {
        docs: RoaringBitmap,
        reply: Sender<Result<u64, String>>,
    },
    /// Removes an index without documents.
    RemoveIndex {
        index: u16,
        reply: Sender<Result<(), String>>,
    },
}

/// Reason why a commit failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    Read(#[from] SegmentError),
    #[error("all 2^32 document numbers of the store are used")]
    DocIdsExhausted,
    #[error("a segment was removed during its merge")]
    SegmentRemoved,
}

/// State of the thread.
pub(super) struct StoreWriter {
    connection: Connection,
    state: Arc<StoreState>,
    jobs: Receiver<StoreRequest>,
    /// A request that was received during a commit, and comes next.
    deferred: Option<StoreRequest>,
    merged: Receiver<MergerOutput>,
    wake: Sender<MergerRequest>,
    mark: MarkFile,
    next_doc: u32,
    /// Number of commits since the store was created.
    commits: u64,
    young_table_bytes: u64,
    pending_deletes: VecDeque<PendingDelete>,
    /// True if free pages are to be given back to the disk.
    has_free_pages: bool,
}

/// Rows to delete when no reader can see them any more.
#[derive(Debug, Default)]
struct PendingDelete {
    generation: Weak<()>,
    segments: Vec<u64>,
    /// Documents that no segment contains any more.
    docs: RoaringBitmap,
    /// Deleted documents whose postings remain.
    rows: RoaringBitmap,
}

/// Changes that take effect when a transaction commits.
struct PendingCommit {
    doc: u32,
    young_table_bytes: u64,
    segments: Vec<Arc<IndexSegment>>,
    deleted_docs: Arc<RoaringBitmap>,
    pending_delete: Option<PendingDelete>,
    has_new_segment: bool,
}

impl StoreWriter {
    /// Creates the writer and deletes what a crash left behind.
    pub(super) fn new(
        connection: Connection,
        state: Arc<StoreState>,
        jobs: Receiver<StoreRequest>,
        merged: Receiver<MergerOutput>,
        wake: Sender<MergerRequest>,
        mark: MarkFile,
    ) -> rusqlite::Result<StoreWriter> {
        let (next_doc, _) = rows::read_state(&connection)?;
        let commits = schema::read_mark(&connection)?.commits;
        state.next_segment.store(rows::delete_orphan_blocks(&connection)?, Ordering::Relaxed);
        let young_table_bytes =
            connection.query_row("SELECT coalesce(sum(length(data)), 0) FROM young_segments", [], |row| {
                row.get(0)
            })?;
        let snapshot = state.snapshot();
        let (deleted, segments) = (&snapshot.deleted_docs, &snapshot.segments);
        // What an earlier process could not delete any more.
        let docs: RoaringBitmap = deleted.iter().filter(|&doc| !is_in_segment(segments, doc)).collect();
        let rows = &**deleted - &docs;
        let left = PendingDelete { docs, rows, ..PendingDelete::default() };
        let is_clean = left.docs.is_empty() && left.rows.is_empty();
        let pending_deletes = if is_clean { VecDeque::new() } else { VecDeque::from([left]) };
        let mut writer = StoreWriter {
            connection,
            state,
            jobs,
            deferred: None,
            merged,
            wake,
            mark,
            next_doc,
            commits,
            young_table_bytes,
            pending_deletes,
            has_free_pages: !is_clean,
        };
        writer.write_mark();
        Ok(writer)
    }

    /// Writes what the store must have from now on. If that fails, a loss of this commit would not be noticed.
    fn write_mark(&mut self) {
        let mark = Mark { commits: self.commits, next_doc: u64::from(self.next_doc) };
        self.state.report_numbers(self.next_doc);
        if let Err(error) = self.mark.write(mark) {
            log::warn!("store_mark_not_written commits={} error=\"{error}\"", mark.commits);
        }
    }

    /// Runs until all senders of jobs are dropped.
    pub(super) fn run(mut self) {
        let (jobs, merged) = (self.jobs.clone(), self.merged.clone());
        let _ = self.wake.try_send(MergerRequest::Merge);
        loop {
            select! {
                recv(jobs) -> request => match request {
                    Ok(request) => self.handle(request),
                    Err(_) => break,
                },
                recv(merged) -> message => match message {
                    Ok(message) => self.apply_merger_output(message),
                    Err(_) => {
                        // The merger has panicked. Writing continues without it.
                        log::error!("store_merger_ended");
                        while let Ok(request) = jobs.recv() { self.handle(request) }
                        break;
                    }
                },
                default(self.next_cleanup()) => {}
            }
            if let Err(error) = self.clean_up() {
                log::warn!("store_cleanup_failed error=\"{error}\"");
            }
        }
        self.finish_cleanup();
        // Otherwise the next start would have to read the log.
        if let Err(error) = self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
            log::warn!("store_checkpoint_failed error=\"{error}\"");
        }
    }

    /// Completes the clean-up, if that does not take too long. Otherwise the next start continues.
    fn finish_cleanup(&mut self) {
        let deadline = Instant::now() + self.state.cleanup_time_max;
        while self.next_cleanup() != NO_CLEANUP && Instant::now() < deadline {
            let pause = self.next_cleanup();
            if let Err(error) = self.clean_up() {
                log::warn!("store_cleanup_failed error=\"{error}\"");
                return;
            }
            std::thread::sleep(pause);
        }
    }

    fn handle(&mut self, request: StoreRequest) {
        let mut next = Some(request);
        while let Some(request) = next {
            match request {
                StoreRequest::Write(job) => self.commit_group(job),
                StoreRequest::Delete { docs, reply } => {
                    let deleted = self.commit(|writer, next| writer.delete_docs(&docs, next));
                    self.has_free_pages |= deleted.is_ok();
                    drop(reply.send(deleted.map_err(|error| error.to_string())));
                }
                StoreRequest::RemoveIndex { index, reply } => {
                    let removed = self.commit(|writer, _| Ok(rows::delete_index(&writer.connection, index)?));
                    drop(reply.send(removed.map_err(|error| error.to_string())));
                }
            }
            next = self.deferred.take();
        }
    }

    fn commit_group(&mut self, first: StoreJob) {
        let (mut docs, mut bytes) = (first.documents.len(), first.bytes);
        let mut group = vec![first];
        while docs < GROUP_DOCS_MAX && bytes < GROUP_BYTES_MAX {
            let job = match self.jobs.try_recv() {
                Ok(StoreRequest::Write(job)) => job,
                Ok(other) => {
                    self.deferred = Some(other);
                    break;
                }
                Err(_) => break,
            };
            (docs, bytes) = (docs + job.documents.len(), bytes + job.bytes);
            group.push(job);
        }
        self.state.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        let changes = self.state.catalog.take_changes();
        let replies: Vec<_> = group.iter().map(|job| job.reply.clone()).collect();
        let committed = self.commit(|writer, next| {
            rows::write_catalog_changes(&writer.connection, &changes)?;
            let written =
                group.into_iter().map(|job| writer.write_job(job, next)).collect::<Result<Vec<_>, _>>()?;
            writer.flush_young(next)?;
            Ok(written)
        });
        match committed {
            // A caller that has gone away needs no answer.
            Ok(written) => {
                replies.iter().zip(written).for_each(|(reply, written)| drop(reply.send(Ok(written))))
            }
            Err(error) => {
                self.state.catalog.restore_changes(changes);
                log::warn!("store_commit_failed documents={docs} error=\"{error}\"");
                replies.iter().for_each(|reply| drop(reply.send(Err(error.to_string()))));
            }
        }
    }

    /// Runs `work` in one transaction. Publishes its changes to readers, or rolls all of them back.
    fn commit<T>(
        &mut self,
        work: impl FnOnce(&StoreWriter, &mut PendingCommit) -> Result<T, WriteError>,
    ) -> Result<T, WriteError> {
        let before = self.state.snapshot();
        let mut next = PendingCommit {
            doc: self.next_doc,
            young_table_bytes: self.young_table_bytes,
            segments: before.segments.clone(),
            deleted_docs: Arc::clone(&before.deleted_docs),
            pending_delete: None,
            has_new_segment: false,
        };
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let done = work(self, &mut next).and_then(|done| {
            self.connection
                .prepare_cached("UPDATE state SET next_doc = ?1, commits = ?2")?
                .execute(params![next.doc, self.commits + 1])?;
            self.connection.execute_batch("COMMIT")?;
            Ok(done)
        });
        match done {
            Ok(done) => {
                self.commits += 1;
                self.publish(next, &before);
                self.write_mark();
                Ok(done)
            }
            Err(error) => {
                if let Some(found) = damage::take() {
                    self.state.report_damage(&found);
                }
                // SQLite rolls back by itself after some errors. Then this statement fails.
                let _ = self.connection.execute_batch("ROLLBACK");
                Err(error)
            }
        }
    }

    fn publish(&mut self, next: PendingCommit, before: &Snapshot) {
        (self.next_doc, self.young_table_bytes) = (next.doc, next.young_table_bytes);
        let mut snapshot = Snapshot {
            segments: next.segments,
            deleted_docs: next.deleted_docs,
            generation: Arc::clone(&before.generation),
        };
        let mut young = snapshot.segments.split_off(snapshot.first_young());
        if let Err(error) = compact_young(&mut young, &snapshot.deleted_docs) {
            log::error!("store_compaction_failed error=\"{error}\"");
        }
        snapshot.segments.append(&mut young);
        if let Some(mut pending) = next.pending_delete {
            pending.generation = Arc::downgrade(&before.generation);
            snapshot.generation = Arc::default();
            self.pending_deletes.push_back(pending);
        }
        let snapshot = Arc::new(snapshot);
        *self.state.snapshot.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&snapshot);
        if next.has_new_segment {
            // A busy merger looks again after its merge.
            let _ = self.wake.try_send(MergerRequest::Merge);
        }
        if self.state.source_codec.can_train() {
            let _ = self.wake.try_send(MergerRequest::Train);
        }
    }

    /// Writes the documents of one call.
    fn write_job(
        &self,
        job: StoreJob,
        next: &mut PendingCommit,
    ) -> Result<Vec<Result<WriteReceipt, WriteRejected>>, WriteError> {
        let base = next.doc;
        let count = u32::try_from(job.documents.len()).map_err(|_| WriteError::DocIdsExhausted)?;
        let end = base.checked_add(count).ok_or(WriteError::DocIdsExhausted)?;
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
                .prepare_cached("INSERT INTO young_segments VALUES (?1, ?2, ?3)")?
                .execute(params![base, count, packed])?;
            next.young_table_bytes += packed.len() as u64;
            next.segments.push(Arc::new(segment));
        }
        Ok(written)
    }

    fn write_document(
        &self,
        insert: &mut CachedStatement<'_>,
        document: IndexedDocument,
        doc: u32,
        next: &mut PendingCommit,
    ) -> Result<Result<WriteReceipt, WriteRejected>, WriteError> {
        let mut version = 1;
        let secret = &self.state.secret;
        if self.state.catalog.index_by_id(document.index).is_none() {
            self.mark_deleted(doc, next)?;
            return Ok(Err(WriteRejected::Invalid("the index was deleted meanwhile".to_owned())));
        }
        if let Some(id) = &document.id {
            let existing = rows::find_by_id(&self.connection, secret, document.index, id, |doc| {
                counts(&next.segments, &next.deleted_docs, doc)
            })?;
            if let Some((old, old_version)) = existing {
                if document.mode == WriteMode::Create {
                    self.mark_deleted(doc, next)?;
                    return Ok(Err(WriteRejected::AlreadyExists { id: id.clone(), version: old_version }));
                }
                self.mark_deleted(old, next)?;
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
            document.doc_type,
            document.time_ms,
            document.source
        ])?;
        let id = document.id.unwrap_or_else(|| ids::make_id(secret, doc));
        Ok(Ok(WriteReceipt { id, version, seq_no: u64::from(doc), created: version == 1 }))
    }

    /// Deletes documents: marks them, and schedules the deletion of their rows.
    fn delete_docs(&self, docs: &RoaringBitmap, next: &mut PendingCommit) -> Result<u64, WriteError> {
        let mut deleted = RoaringBitmap::new();
        for doc in docs - &*next.deleted_docs {
            let Some((index, id)) = rows::id_of_doc(&self.connection, doc)? else { continue };
            if let Some(id) = id {
                rows::delete_id(&self.connection, index, &id, doc)?;
            }
            self.mark_deleted(doc, next)?;
            deleted.insert(doc);
        }
        let count = deleted.len();
        next.pending_delete.get_or_insert_default().rows |= deleted;
        self.drop_deleted_segments(next)?;
        Ok(count)
    }

    /// Removes the segments all of whose documents are deleted.
    fn drop_deleted_segments(&self, next: &mut PendingCommit) -> Result<(), WriteError> {
        let is_deleted = |segment: &IndexSegment, deleted: &RoaringBitmap| {
            matches!(segment.blocks, SegmentBlocks::Disk(_))
                && deleted.range_cardinality(segment.doc_range()) == u64::from(segment.span)
        };
        let deleted_docs = Arc::clone(&next.deleted_docs);
        let dropped: Vec<_> =
            next.segments.iter().filter(|segment| is_deleted(segment, &deleted_docs)).cloned().collect();
        for segment in &dropped {
            self.connection.prepare_cached("DELETE FROM segments WHERE id = ?1")?.execute([segment.id])?;
            self.retire_docs(segment.base, segment.span, &deleted_docs, next);
            next.pending_delete.get_or_insert_default().segments.push(segment.id);
        }
        next.segments.retain(|segment| !is_deleted(segment, &deleted_docs));
        // The merger looks for segments most of whose documents are deleted.
        next.has_new_segment = true;
        Ok(())
    }

    /// Marks a document as deleted. Its row and its postings remain until its segment is merged.
    fn mark_deleted(&self, doc: u32, next: &mut PendingCommit) -> Result<(), WriteError> {
        self.connection.prepare_cached("INSERT OR IGNORE INTO deleted_docs VALUES (?1)")?.execute([doc])?;
        Arc::make_mut(&mut next.deleted_docs).insert(doc);
        Ok(())
    }

    /// Writes the young segments to disk if there are enough.
    fn flush_young(&self, next: &mut PendingCommit) -> Result<(), WriteError> {
        let from = next.segments.partition_point(|segment| matches!(segment.blocks, SegmentBlocks::Disk(_)));
        let (base, span) = doc_span(&next.segments[from..]);
        let bytes: u64 = next.segments[from..].iter().map(|segment| segment.bytes).sum();
        if span < self.state.young_docs_max
            && bytes < YOUNG_BYTES_MAX
            && next.young_table_bytes < YOUNG_TABLE_BYTES_MAX
        {
            return Ok(());
        }
        let young: Vec<_> = next.segments[from..].iter().map(Arc::as_ref).collect();
        let (id, mut written) = (self.state.next_segment.fetch_add(1, Ordering::Relaxed), 0);
        let mut writer = SegmentWriter::default();
        merge_segments(&young, &super::snapshot::NoBlocks, &next.deleted_docs, &mut writer, |writer| {
            self.write_blocks(id, &mut written, &mut writer.full_blocks)
        })?;
        let (mut last, segment) = writer.into_disk_segment(id, base, span);
        self.write_blocks(id, &mut written, &mut last)?;
        self.write_segment(&segment)?;
        self.connection.execute("DELETE FROM young_segments", [])?;
        self.retire_docs(base, span, &next.deleted_docs.clone(), next);
        next.segments.truncate(from);
        next.segments.push(Arc::new(segment));
        (next.young_table_bytes, next.has_new_segment) = (0, true);
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
        let mut statement = self.connection.prepare_cached("INSERT INTO blocks VALUES (?1, ?2)")?;
        for block in blocks.drain(..) {
            statement.execute(params![block_id(id, *written), block])?;
            *written += 1;
        }
        Ok(())
    }

    fn write_segment(&self, segment: &IndexSegment) -> Result<(), WriteError> {
        self.connection.prepare_cached("INSERT INTO segments VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(
            params![segment.id, segment.base, segment.span, segment.bytes, segment.encode_fences()],
        )?;
        Ok(())
    }

    /// Schedules the deletion of documents that no segment contains any more.
    fn retire_docs(&self, base: u32, span: u32, deleted_docs: &RoaringBitmap, next: &mut PendingCommit) {
        if deleted_docs.range_cardinality(base..base + span) == 0 {
            return;
        }
        let docs: RoaringBitmap = deleted_docs.range(base..base + span).collect();
        *Arc::make_mut(&mut next.deleted_docs) -= &docs;
        next.pending_delete.get_or_insert_default().docs |= docs;
    }

    /// Writes the output of the merger.
    fn apply_merger_output(&mut self, message: MergerOutput) {
        match message {
            MergerOutput::Blocks { segment, first, mut blocks, done } => {
                let mut written = first;
                let stored = self.commit(|writer, _| writer.write_blocks(segment, &mut written, &mut blocks));
                if let Err(error) = &stored {
                    log::warn!("store_merge_failed error=\"{error}\"");
                    // Nobody reads the blocks of the unfinished segment, so they can be deleted.
                    self.pending_deletes
                        .push_back(PendingDelete { segments: vec![segment], ..PendingDelete::default() });
                }
                let _ = done.send(stored.is_ok());
            }
            MergerOutput::Replace { old, new, deleted: deleted_docs, done } => {
                let id = new.id;
                let switched =
                    self.commit(|writer, next| writer.replace_segments(old, new, &deleted_docs, next));
                let _ = done.send(switched.is_ok());
                if let Err(error) = switched {
                    log::warn!("store_merge_failed error=\"{error}\"");
                    self.pending_deletes
                        .push_back(PendingDelete { segments: vec![id], ..PendingDelete::default() });
                }
            }
            MergerOutput::Dictionary(bytes) => {
                let stored = self.commit(|writer, _| {
                    Ok(writer.connection.execute("INSERT INTO dictionaries (data) VALUES (?1)", [&bytes])?)
                });
                match stored {
                    Ok(_) => self.state.source_codec.add_dictionary(&bytes),
                    Err(error) => log::warn!("store_dictionary_write_failed error=\"{error}\""),
                }
            }
        }
    }

    /// Replaces the merged segments by their result.
    fn replace_segments(
        &self,
        old: Vec<u64>,
        new: IndexSegment,
        deleted_docs: &RoaringBitmap,
        next: &mut PendingCommit,
    ) -> Result<(), WriteError> {
        // A removed segment has taken its marks of deleted documents with it.
        if !old.iter().all(|id| next.segments.iter().any(|segment| segment.id == *id)) {
            return Err(WriteError::SegmentRemoved);
        }
        for id in &old {
            self.connection.prepare_cached("DELETE FROM segments WHERE id = ?1")?.execute([id])?;
        }
        self.write_segment(&new)?;
        self.retire_docs(new.base, new.span, deleted_docs, next);
        let at = next.segments.partition_point(|segment| segment.base < new.base);
        next.segments.retain(|segment| !old.contains(&segment.id));
        next.segments.insert(at, Arc::new(new));
        next.pending_delete.get_or_insert_default().segments = old;
        next.has_new_segment = true;
        Ok(())
    }

    /// Returns how long the clean-up can wait.
    fn next_cleanup(&self) -> Duration {
        let is_waiting =
            self.pending_deletes.front().is_some_and(|first| first.generation.strong_count() > 0);
        match (self.pending_deletes.is_empty(), is_waiting) {
            (true, _) if !self.has_free_pages => NO_CLEANUP,
            (_, true) => READER_PAUSE,
            _ => Duration::ZERO,
        }
    }

    /// Does a part of the clean-up that callers need not wait for.
    fn clean_up(&mut self) -> rusqlite::Result<()> {
        self.delete_pending()?;
        if self.has_free_pages && self.pending_deletes.is_empty() {
            self.has_free_pages = self.give_pages_back()?;
        }
        Ok(())
    }

    /// Gives some free pages back to the disk. Returns whether there are more.
    fn give_pages_back(&self) -> rusqlite::Result<bool> {
        let mut statement = self.connection.prepare_cached(GIVE_PAGES_BACK)?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        let left: u64 = self.connection.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
        if left == 0 {
            // The file becomes shorter when the log is moved to it. A reader may prevent it; then the next commit does it.
            self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
        }
        Ok(left > 0)
    }

    /// Deletes some of the rows that nobody can read any more.
    fn delete_pending(&mut self) -> rusqlite::Result<()> {
        let Some(first) =
            self.pending_deletes.front_mut().filter(|first| first.generation.strong_count() == 0)
        else {
            return Ok(());
        };
        let transaction = self.connection.unchecked_transaction()?;
        let docs: Vec<u32> = first.docs.iter().take(DELETED_ROWS_MAX).collect();
        let rows: Vec<u32> = first.rows.iter().take(DELETED_ROWS_MAX - docs.len()).collect();
        for doc in docs.iter().chain(&rows) {
            transaction.prepare_cached("DELETE FROM documents WHERE doc = ?1")?.execute([doc])?;
        }
        for doc in &docs {
            transaction.prepare_cached("DELETE FROM deleted_docs WHERE doc = ?1")?.execute([doc])?;
        }
        let mut left = DELETED_BLOCKS_MAX;
        let mut done = 0;
        for &segment in &first.segments {
            let range = [block_id(segment, 0), block_id(segment + 1, 0), left];
            let deleted = transaction
                .prepare_cached("DELETE FROM blocks WHERE id IN (SELECT id FROM blocks WHERE id >= ?1 AND id < ?2 LIMIT ?3)")?
                .execute(range)? as i64;
            left -= deleted;
            if left <= 0 {
                break;
            }
            done += 1;
        }
        transaction.commit()?;
        first.docs -= RoaringBitmap::from_iter(&docs);
        first.rows -= RoaringBitmap::from_iter(&rows);
        first.segments.drain(..done);
        if first.segments.is_empty() && first.docs.is_empty() && first.rows.is_empty() {
            self.pending_deletes.pop_front();
        }
        Ok(())
    }
}
