//! Reads the calls of two sides side by side, matched by call ID. Runs on the main thread.

use std::cmp::Ordering;

use super::call::BilledCall;
use super::calls::CallReader;
use super::compare::{Differences, compare_calls};
use crate::Result;

/// One call as our side and as the other side has it. At least one side has it.
#[derive(Debug, Default)]
pub(crate) struct CallPair {
    pub(crate) ours: Option<BilledCall>,
    pub(crate) theirs: Option<BilledCall>,
}

impl CallPair {
    pub(crate) fn compare(&self, tolerance_us: i64) -> Differences {
        compare_calls(self.ours.as_ref(), self.theirs.as_ref(), tolerance_us)
    }

    /// Returns our record of the call, or else theirs.
    pub(crate) fn either(&self) -> Option<&BilledCall> {
        self.ours.as_ref().or(self.theirs.as_ref())
    }

    /// Returns their value minus ours.
    pub(crate) fn difference_us(&self, value: impl Fn(&BilledCall) -> Option<i64>) -> Option<i64> {
        let (ours, theirs) = (self.ours.as_ref().and_then(&value), self.theirs.as_ref().and_then(&value));
        ours.zip(theirs).map(|(ours, theirs)| theirs - ours)
    }

    pub(crate) fn is_incomplete(&self) -> bool {
        let mut calls = self.ours.iter().chain(&self.theirs);
        calls.any(|call| !call.missing.is_empty())
    }

    /// Takes the calls with the lower call ID.
    fn take_lower(&mut self) -> CallPair {
        let order = match (&self.ours, &self.theirs) {
            (Some(ours), Some(theirs)) => ours.call_id.cmp(&theirs.call_id),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        let takes_ours = order != Ordering::Greater;
        let takes_theirs = order != Ordering::Less;
        CallPair { ours: self.ours.take_if(|_| takes_ours), theirs: self.theirs.take_if(|_| takes_theirs) }
    }
}

/// Iterates over the calls of two sides in the order of their IDs.
pub(crate) struct PairReader {
    pub(crate) ours: CallReader,
    pub(crate) theirs: CallReader,
    /// The calls that were read and not returned yet.
    next: CallPair,
}

impl PairReader {
    pub(crate) fn new(ours: CallReader, theirs: CallReader) -> PairReader {
        PairReader { ours, theirs, next: CallPair::default() }
    }

    /// Returns the next call, or `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<CallPair>> {
        if self.next.ours.is_none() {
            self.next.ours = self.ours.next()?;
        }
        if self.next.theirs.is_none() {
            self.next.theirs = self.theirs.next()?;
        }
        let pair = self.next.take_lower();
        Ok(pair.either().is_some().then_some(pair))
    }
}
