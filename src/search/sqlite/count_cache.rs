//! Cache of hit counts per disk segment. Called by any thread.
//!
//! A disk segment never changes, so its counts stay valid. A number that is looked up in every call and has very many
//! hits is counted only once per segment.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;

use super::plan::QueryPlan;

/// Maximum number of plans in the cache.
const PLANS_MAX: NonZeroUsize = NonZeroUsize::new(4_096).expect("it is not 0");
/// Maximum number of terms of a cached plan.
const TERMS_MAX: usize = 8;
/// Maximum size in bytes of a term in a cached plan.
const TERM_BYTES_MAX: usize = 256;

/// Counts by segment number.
type SegmentCounts = Arc<[(u64, u64)]>;

/// The cache.
pub(super) struct CountCache(Mutex<LruCache<QueryPlan, SegmentCounts>>);

impl Default for CountCache {
    fn default() -> CountCache {
        CountCache(Mutex::new(LruCache::new(PLANS_MAX)))
    }
}

impl CountCache {
    /// Returns the known counts of a plan.
    pub(super) fn get(&self, plan: &QueryPlan) -> Option<SegmentCounts> {
        if !is_cacheable(plan) {
            return None;
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(plan).cloned()
    }

    /// Stores the counts of a plan. `known` is the previous entry.
    pub(super) fn put(&self, plan: &QueryPlan, known: Option<&[(u64, u64)]>, learned: Vec<(u64, u64)>) {
        if !learned.is_empty() && known != Some(&learned[..]) && is_cacheable(plan) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).put(plan.clone(), learned.into());
        }
    }
}

/// Tells whether a plan is cached: combinations of few short terms. A single term needs no cache.
fn is_cacheable(plan: &QueryPlan) -> bool {
    let (QueryPlan::And(plans) | QueryPlan::AtLeast(_, plans)) = plan else { return false };
    let is_small = |plan: &QueryPlan| matches!(plan, QueryPlan::Term(key) if key.len() <= TERM_BYTES_MAX);
    plans.len() <= TERMS_MAX && plans.iter().all(is_small)
}
