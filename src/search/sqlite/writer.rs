//! Writer of the store: the thread `store`. It commits all calls that arrived during the last commit, and answers
//! each caller when its documents are durable. A failed commit is rolled back and reported to its callers. The next
//! commit does not depend on it.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};

use crossbeam_channel::{Receiver, Sender, select};
use roaring::RoaringBitmap;
use rusqlite::{CachedStatement, Connection, params};

use super::merger::{MergerOutput, MergerRequest};
use super::schema::block_id;
use super::segment::{IndexSegment, SegmentBlocks, SegmentError, SegmentWriter, merge_segments};
use super::snapshot::{Snapshot, compact_young, doc_span};
use super::{ids, rows};
use crate::search::document::WriteMode;
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

/// Reason why a commit failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    Read(#[from] SegmentError),
    #[error("all 2^32 document numbers of the store are used")]
    DocIdsExhausted,
}

/// State of the thread.
pub(super) struct StoreWriter {
    connection: Connection,
    state: Arc<StoreState>,
    jobs: Receiver<StoreJob>,
    merged: Receiver<MergerOutput>,
    wake: Sender<MergerRequest>,
    next_doc: u32,
    young_table_bytes: u64,
    pending_deletes: VecDeque<PendingDelete>,
}

/// Rows to delete when no reader can see them any more.
#[derive(Debug, Default)]
struct PendingDelete {
    generation: Weak<()>,
    segments: Vec<u64>,
    docs: RoaringBitmap,
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
        jobs: Receiver<StoreJob>,
        merged: Receiver<MergerOutput>,
        wake: Sender<MergerRequest>,
    ) -> rusqlite::Result<StoreWriter> {
        let (next_doc, _) = rows::read_state(&connection)?;
        state.next_segment.store(rows::delete_orphan_blocks(&connection)?, Ordering::Relaxed);
        let young_table_bytes =
            connection.query_row("SELECT coalesce(sum(length(data)), 0) FROM young_segments", [], |row| {
                row.get(0)
            })?;
        let pending_deletes = VecDeque::new();
        Ok(StoreWriter {
            connection,
            state,
            jobs,
            merged,
            wake,
            next_doc,
            young_table_bytes,
            pending_deletes,
        })
    }

    /// Runs until all senders of jobs are dropped.
    pub(super) fn run(mut self) {
        let (jobs, merged) = (self.jobs.clone(), self.merged.clone());
        let _ = self.wake.try_send(MergerRequest::Merge);
        loop {
            select! {
                recv(jobs) -> job => match job {
                    Ok(job) => self.commit_group(job),
                    Err(_) => break,
                },
                recv(merged) -> message => match message {
                    Ok(message) => self.apply_merger_output(message),
                    Err(_) => {
                        // The merger has panicked. Writing continues without it.
                        log::error!("store_merger_ended");
                        while let Ok(job) = jobs.recv() { self.commit_group(job) }
                        break;
                    }
                },
            }
            if let Err(error) = self.delete_pending() {
                log::warn!("store_cleanup_failed error=\"{error}\"");
            }
        }
        // Otherwise the next start would have to read the log.
        if let Err(error) = self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
            log::warn!("store_checkpoint_failed error=\"{error}\"");
        }
    }

    fn commit_group(&mut self, first: StoreJob) {
        let (mut docs, mut bytes) = (first.documents.len(), first.bytes);
        let mut group = vec![first];
        while docs < GROUP_DOCS_MAX && bytes < GROUP_BYTES_MAX {
            let Ok(job) = self.jobs.try_recv() else { break };
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
        if let Some(id) = &document.id {
            let existing = rows::find_by_id(&self.connection, secret, document.index, id, |doc| {
                !next.deleted_docs.contains(doc)
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

    /// Deletes some of the rows that nobody can read any more.
    fn delete_pending(&mut self) -> rusqlite::Result<()> {
        let Some(first) =
            self.pending_deletes.front_mut().filter(|first| first.generation.strong_count() == 0)
        else {
            return Ok(());
        };
        let transaction = self.connection.unchecked_transaction()?;
        for doc in first.docs.iter() {
            transaction.prepare_cached("DELETE FROM documents WHERE doc = ?1")?.execute([doc])?;
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
        first.docs.clear();
        first.segments.drain(..done);
        if first.segments.is_empty() {
            self.pending_deletes.pop_front();
        }
        Ok(())
    }
}
