//! Deletion of old events and of whole indices. Called by any thread; the writer deletes some thousand at a time, so that
//! new events do not wait.
//!
//! A deleted event is marked at once, and no later read returns it. The writer then removes its row, when no reader can use
//! it any more, and a segment all of whose documents are deleted. The merger writes a segment anew when most of its
//! documents are deleted. Free pages at the end of the file are given back to the disk.

use crossbeam_channel::bounded;
use roaring::RoaringBitmap;

use super::SqliteStore;
use super::catalog::{IndexEntry, field_ids};
use super::plan::{QueryPlan, term_key};
use super::writer::StoreRequest;
use crate::search::date::TimeZone;
use crate::search::query::{Bound, FieldSelector, Query, QueryValue};
use crate::search::store::{EVENT_TIME, StoreError};

/// Documents that are deleted in one transaction.
const DELETED_AT_ONCE: usize = 4_096;

impl SqliteStore {
    /// See [`crate::search::store::Store::purge`].
    pub(super) fn purge_events(
        &self,
        indices: &[String],
        before_ms: i64,
        dry_run: bool,
    ) -> Result<Vec<(String, u64)>, StoreError> {
        let older = Query::Range {
            fields: FieldSelector::Named(vec![EVENT_TIME.to_owned()]),
            from: Bound::Open,
            to: Bound::Excluded(QueryValue::Long(before_ms)),
            format: Some("epoch_millis".to_owned()),
            zone: TimeZone::UTC,
        };
        let mut purged = Vec::new();
        for (index, plan) in self.plan_query(self.select_indices(indices, false)?, &older)? {
            let docs = self.with_context(|context| context.find(index.id, &plan))?;
            let deleted = if dry_run { docs.len() } else { self.delete_docs(&docs)? };
            if deleted > 0 {
                purged.push((index.name.clone(), deleted));
            }
        }
        Ok(purged)
    }

    /// See [`crate::search::store::Store::delete_index`].
    pub(super) fn delete_whole_index(&self, name: &str) -> Result<u64, StoreError> {
        let missing = || StoreError::IndexNotFound(name.to_owned());
        let index = self.state.catalog.remove(name).ok_or_else(missing)?;
        let deleted = self.delete_removed(&index);
        if deleted.is_err() {
            // Some events may be left, and their index must be there.
            self.state.catalog.restore(index);
        }
        deleted
    }

    fn delete_removed(&self, index: &IndexEntry) -> Result<u64, StoreError> {
        // From here on no event is added to the index: the writer rejects those that still wait.
        self.write_catalog()?;
        let all = QueryPlan::Term(term_key(index.id, field_ids::ALL, &[]));
        let docs = self.with_context(|context| context.find(index.id, &all))?;
        let deleted = self.delete_docs(&docs)?;
        let (reply, answer) = bounded(1);
        self.request(StoreRequest::RemoveIndex { index: index.id, reply }, || answer.recv().ok())?;
        log::info!("index_deleted index={} events={deleted} reason=request", index.name);
        Ok(deleted)
    }

    /// Deletes documents. Returns how many there were.
    pub(super) fn delete_docs(&self, docs: &RoaringBitmap) -> Result<u64, StoreError> {
        let mut deleted = 0;
        let mut rest = docs.iter().peekable();
        while rest.peek().is_some() {
            let docs: RoaringBitmap = rest.by_ref().take(DELETED_AT_ONCE).collect();
            let (reply, answer) = bounded(1);
            deleted += self.request(StoreRequest::Delete { docs, reply }, || answer.recv().ok())?;
        }
        Ok(deleted)
    }

    /// Sends a request to the writer and waits for its result. A full queue is waited for.
    fn request<T>(
        &self,
        request: StoreRequest,
        answer: impl FnOnce() -> Option<Result<T, String>>,
    ) -> Result<T, StoreError> {
        let jobs = self.jobs()?;
        jobs.send(request).map_err(|_| StoreError::ShuttingDown)?;
        let answer = answer().ok_or(StoreError::ShuttingDown)?;
        answer.map_err(|cause| StoreError::Failed { act: "delete from the store", cause })
    }
}
