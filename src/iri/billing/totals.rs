//! Calls of two sides added up: by caller, by the callee's country code, by day. Pure.

use super::call::Call;

/// What calls are added up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Key {
    /// All calls.
    All,
    /// The day of the call.
    Day,
    /// The country code of the callee.
    Prefix,
    /// The caller.
    Caller,
}

impl Key {
    /// All.
    pub const ALL: [Key; 4] = [Key::All, Key::Day, Key::Prefix, Key::Caller];

    /// As it is shown.
    pub fn word(self) -> &'static str {
        match self {
            Key::All => "all",
            Key::Day => "day",
            Key::Prefix => "prefix",
            Key::Caller => "caller",
        }
    }
}

/// A group of calls.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group {
    /// What they have in common.
    pub key: Key,
    /// The value.
    pub value: String,
}

/// One side's sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Calls.
    pub calls: u64,
    /// Calls that were answered.
    pub answered: u64,
    /// Durations together.
    pub duration_us: u64,
}

impl Sums {
    /// Adds a call.
    pub fn add(&mut self, call: &Call) {
        self.calls += 1;
        self.answered += u64::from(call.answered == Some(true));
        let duration_us = call.duration_us.unwrap_or(0).unsigned_abs();
        self.duration_us = self.duration_us.saturating_add(duration_us);
    }

    /// Adds other sums.
    pub fn merge(&mut self, other: &Sums) {
        self.calls += other.calls;
        self.answered += other.answered;
        self.duration_us = self.duration_us.saturating_add(other.duration_us);
    }
}
