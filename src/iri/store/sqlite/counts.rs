//! Counts that were made before: a segment on the disk never changes, so what was counted in it stays so. A number that
//! is asked for in every call, and has very many hits, is counted once a segment. Called by any thread.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;

use super::plan::Plan;

/// Questions that are remembered,
const PLANS_MAX: NonZeroUsize = NonZeroUsize::new(4_096).expect("it is not 0");
/// with so many terms,
const TERMS_MAX: usize = 8;
/// each of so many bytes.
const TERM_BYTES_MAX: usize = 256;

/// A count a segment, by its number.
type BySegment = Arc<[(u64, u64)]>;

/// What is remembered.
pub struct Counts(Mutex<LruCache<Plan, BySegment>>);

impl Default for Counts {
    fn default() -> Counts {
        Counts(Mutex::new(LruCache::new(PLANS_MAX)))
    }
}

impl Counts {
    /// What is known of a plan.
    pub fn get(&self, plan: &Plan) -> Option<BySegment> {
        if !is_remembered(plan) {
            return None;
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(plan).cloned()
    }

    /// Remembers what was counted; `known` is what was known before.
    pub fn put(&self, plan: &Plan, known: Option<&[(u64, u64)]>, learned: Vec<(u64, u64)>) {
        if !learned.is_empty() && known != Some(&learned[..]) && is_remembered(plan) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).put(plan.clone(), learned.into());
        }
    }
}

/// Only small plans of terms: one term alone is found as fast.
fn is_remembered(plan: &Plan) -> bool {
    let (Plan::And(plans) | Plan::AtLeast(_, plans)) = plan else { return false };
    let is_small = |plan: &Plan| matches!(plan, Plan::Term(key) if key.len() <= TERM_BYTES_MAX);
    plans.len() <= TERMS_MAX && plans.iter().all(is_small)
}
