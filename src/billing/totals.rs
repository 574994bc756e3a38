//! Sums of calls, grouped by day, by the callee's country code and by caller. Pure.

use super::call::BilledCall;

/// The property by which calls are grouped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum GroupKey {
    /// One group with all calls.
    All,
    Day,
    /// The country code of the callee.
    Prefix,
    Caller,
}

impl GroupKey {
    pub const ALL: [GroupKey; 4] = [GroupKey::All, GroupKey::Day, GroupKey::Prefix, GroupKey::Caller];

    pub fn as_str(self) -> &'static str {
        match self {
            GroupKey::All => "all",
            GroupKey::Day => "day",
            GroupKey::Prefix => "prefix",
            GroupKey::Caller => "caller",
        }
    }
}

/// A group of calls.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallGroup {
    pub key: GroupKey,
    /// The day, country code or caller that the calls have in common.
    pub value: String,
}

/// The sums of one side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallSums {
    pub calls: u64,
    pub answered: u64,
    pub duration_us: u64,
}

impl CallSums {
    pub fn add(&mut self, call: &BilledCall) {
        self.calls += 1;
        self.answered += u64::from(call.answered == Some(true));
        let duration_us = call.duration_us.unwrap_or(0).unsigned_abs();
        self.duration_us = self.duration_us.saturating_add(duration_us);
    }

    pub fn merge(&mut self, other: &CallSums) {
        self.calls += other.calls;
        self.answered += other.answered;
        self.duration_us = self.duration_us.saturating_add(other.duration_us);
    }
}
