//! Running of a search, and reading of the documents that it found. Runs in the caller's thread.

use std::collections::HashMap;
use std::sync::Arc;

use roaring::RoaringBitmap;
use serde_json::Value;

use super::catalog::{IndexEntry, field_ids};
use super::execute::SearchContext;
use super::indexer::DocumentIndexer;
use super::plan::{Planner, QueryPlan, exists_plan};
use super::state::StoreState;
use super::terms::each_term;
use super::{aggregate, ids, rows};
use crate::search::query::{Hit, Query, Search, SearchResult, Sort};
use crate::search::store::StoreError;

/// Maximum number of hits that a search can skip and return together (the default of Elasticsearch).
const WINDOW_MAX: usize = 10_000;

/// State of one search.
pub(super) struct SearchRun<'a> {
    pub context: &'a SearchContext<'a>,
    pub state: &'a StoreState,
    pub indexer: &'a DocumentIndexer,
    /// The indices to search.
    pub indices: Vec<Arc<IndexEntry>>,
    /// Value of `now` in dates.
    pub now_ms: i64,
}

/// Runs a search with one plan per index.
pub(super) fn run_search(
    context: &SearchContext<'_>,
    state: &StoreState,
    indexer: &DocumentIndexer,
    plans: Vec<(Arc<IndexEntry>, QueryPlan)>,
    search: &Search,
) -> Result<SearchResult, StoreError> {
    let wanted = search.from.saturating_add(search.size);
    if wanted > WINDOW_MAX {
        return Err(StoreError::Invalid(format!(
            "Result window is too large, from + size must be less than or equal to: [{WINDOW_MAX}] but was [{wanted}]"
        )));
    }
    if search.size == 0 && search.aggregations.is_empty() && search.post_filter.is_none() {
        let counts = plans.iter().map(|(index, plan)| context.count(index.id, plan));
        return Ok(SearchResult { total: counts.sum::<Result<u64, _>>()?, ..SearchResult::default() });
    }
    let mut docs = RoaringBitmap::new();
    for (index, plan) in &plans {
        docs |= context.find(index.id, plan)?;
    }
    let indices = plans.into_iter().map(|(index, _)| index).collect();
    let now_ms = crate::runtime::time::now().timestamp_millis();
    let run = SearchRun { context, state, indexer, indices, now_ms };
    let aggregations = aggregate::run_aggregations(&run, &docs, &search.aggregations, search.typed_keys)?;
    if let Some(filter) = &search.post_filter {
        docs = run.matching(filter, &docs)?;
    }
    let total = docs.len();
    let mut hits = Vec::new();
    if search.size > 0 {
        hits = run.read_hits(docs, &search.sort, search.after.as_deref(), search.from, search.size)?;
    }
    Ok(SearchResult { total, hits, aggregations, ..SearchResult::default() })
}

/// Returns the memory of a hit and of its text in the response.
fn hit_bytes(hit: &Hit) -> usize {
    512 + 2 * hit.source.len() + hit.id.len() + hit.ignored.iter().map(String::len).sum::<usize>()
}

impl SearchRun<'_> {
    /// Returns the documents among `docs` that match a query.
    pub(super) fn matching(&self, query: &Query, docs: &RoaringBitmap) -> Result<RoaringBitmap, StoreError> {
        let mut found = RoaringBitmap::new();
        for index in &self.indices {
            let plan = Planner::new(index, &index.fields(), self.now_ms).plan(query)?;
            found |= self.context.find(index.id, &plan)?;
        }
        Ok(found & docs)
    }

    /// Sorts documents and reads a page of them.
    pub(super) fn read_hits(
        &self,
        docs: RoaringBitmap,
        sorts: &[Sort],
        after: Option<&[Value]>,
        from: usize,
        size: usize,
    ) -> Result<Vec<Hit>, StoreError> {
        let keys = self.sort_fields(sorts)?;
        let ordered = self.sort_docs(docs, &keys, after, from.saturating_add(size))?;
        let page = &ordered[from.min(ordered.len())..];
        let mut ignored = ignored_members(self.context, &self.indices, page)?;
        let mut hits = Vec::with_capacity(page.len());
        for &doc in page {
            let ignored = ignored.remove(&doc).unwrap_or_default();
            let hit = Hit { ignored, ..self.hit(doc, &keys)? };
            self.context.check_deadline()?;
            self.context.charge(hit_bytes(&hit))?;
            hits.push(hit);
        }
        Ok(hits)
    }
}

/// Reads a document by number. The hit has no sort values.
pub(super) fn read_hit(
    context: &SearchContext<'_>,
    state: &StoreState,
    doc: u32,
) -> Result<(Hit, i64), StoreError> {
    let row = rows::read_document(context.connection, doc)?;
    let no_row = || StoreError::Failed { act: "read the store", cause: format!("document {doc} has no row") };
    let row = row.ok_or_else(no_row)?;
    let source = state
        .source_codec
        .decompress(&row.source)
        .map_err(|error| StoreError::Failed { act: "read the store", cause: error.to_string() })?;
    let id = row.id.unwrap_or_else(|| ids::make_id(&state.secret, doc));
    let index = state.catalog.index_by_id(row.index).map(|index| index.name.clone()).unwrap_or_default();
    let sequence = u64::from(doc);
    let hit = Hit {
        index,
        doc_type: row.doc_type,
        id,
        version: row.version,
        seq_no: sequence,
        source,
        sort: Vec::new(),
        score: None,
        ignored: Vec::new(),
    };
    Ok((hit, row.time_ms))
}

/// Returns the paths of the members that are not indexed, for those of the documents that have any.
pub(super) fn ignored_members(
    context: &SearchContext<'_>,
    indices: &[Arc<IndexEntry>],
    docs: &[u32],
) -> Result<HashMap<u32, Vec<String>>, StoreError> {
    let docs = RoaringBitmap::from_iter(docs);
    let mut marked = RoaringBitmap::new();
    for index in indices {
        marked |= context.find(index.id, &exists_plan(index.id, field_ids::IGNORED))? & &docs;
    }
    let mut paths: HashMap<u32, Vec<String>> = HashMap::new();
    if marked.is_empty() {
        return Ok(paths);
    }
    let fields: Vec<_> = indices.iter().map(|index| (index.id, field_ids::IGNORED)).collect();
    each_term(context, &fields, false, |entry| {
        let mut found = RoaringBitmap::new();
        entry.add_to(&mut found, &marked)?;
        for doc in found {
            paths.entry(doc).or_default().push(String::from_utf8_lossy(entry.value).into_owned());
        }
        Ok(true)
    })?;
    Ok(paths)
}
