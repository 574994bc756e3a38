//! Sums of the calls of both sides, grouped by day, by the callee's country code and by caller. Runs on the main thread.
//!
//! Invariant: at most `GROUPS_MAX` groups are in memory. Further groups are sorted in temporary files and merged at the
//! end, so the number of callers has no limit.

use std::collections::HashMap;

use super::call::BilledCall;
use super::external_sort::{ExternalSorter, SortSettings, SortedRecords};
use crate::phone::PhoneNumberNormalizer;
use crate::{Error, Result};

/// Groups in memory.
const GROUPS_MAX: usize = 65_536;

/// Memory for sorting groups.
const SORT_BYTES: u64 = 16 << 20;

/// The group of calls whose callee has no country code.
pub(crate) const NO_PREFIX: &str = "other";

/// The property by which calls are grouped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(crate) enum GroupKey {
    /// One group with all calls.
    All,
    Day,
    /// The country code of the callee.
    Prefix,
    Caller,
}

impl GroupKey {
    pub(crate) const ALL: [GroupKey; 4] = [GroupKey::All, GroupKey::Day, GroupKey::Prefix, GroupKey::Caller];

    pub(crate) fn as_str(self) -> &'static str {
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
pub(crate) struct CallGroup {
    pub key: GroupKey,
    /// The day, country code or caller that the calls have in common.
    pub value: String,
}

/// The sums of one side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CallSums {
    pub calls: u64,
    pub answered: u64,
    pub duration_us: u64,
}

impl CallSums {
    pub(crate) fn add(&mut self, call: &BilledCall) {
        self.calls += 1;
        self.answered += u64::from(call.answered == Some(true));
        let duration_us = call.duration_us.unwrap_or(0).unsigned_abs();
        self.duration_us = self.duration_us.saturating_add(duration_us);
    }

    pub(crate) fn merge(&mut self, other: &CallSums) {
        self.calls += other.calls;
        self.answered += other.answered;
        self.duration_us = self.duration_us.saturating_add(other.duration_us);
    }
}

/// The sums of one group for both sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GroupTotals {
    pub ours: CallSums,
    pub theirs: CallSums,
    /// Calls that differ or are missing on one side.
    pub differing: u64,
}

/// Adds up calls by group.
pub(crate) struct TotalsBuilder<'a> {
    /// Returns the day of a time in milliseconds.
    day: Box<dyn Fn(i64) -> String + 'a>,
    normalizer: Option<&'a PhoneNumberNormalizer>,
    groups: HashMap<CallGroup, GroupTotals>,
    sorter: ExternalSorter,
}

/// Iterates over the groups in their order.
pub(crate) struct SortedTotals {
    sorted: SortedRecords,
    current: Option<(CallGroup, GroupTotals)>,
}

impl<'a> TotalsBuilder<'a> {
    /// `day` returns the day of a time in milliseconds.
    pub(crate) fn new(
        day: impl Fn(i64) -> String + 'a,
        normalizer: Option<&'a PhoneNumberNormalizer>,
        sort: &SortSettings,
    ) -> TotalsBuilder<'a> {
        let sorter = ExternalSorter::new(&sort.with_memory(SORT_BYTES.min(sort.memory_bytes)));
        TotalsBuilder { day: Box::new(day), normalizer, groups: HashMap::new(), sorter }
    }

    /// Adds a call that one side or both sides have. Our record, if there is one, determines its groups.
    pub(crate) fn add(
        &mut self,
        ours: Option<&BilledCall>,
        theirs: Option<&BilledCall>,
        differs: bool,
    ) -> Result<()> {
        let Some(call) = ours.or(theirs) else { return Ok(()) };
        let normalize = |text: &str| self.normalizer.and_then(|normalizer| normalizer.normalize(text));
        let caller =
            normalize(&call.caller).map_or_else(|| call.caller.clone(), |number| number.as_str().to_owned());
        let prefix = normalize(&call.callee)
            .map_or_else(|| NO_PREFIX.to_owned(), |number| format!("+{}", number.plan().code));
        let day = (self.day)(call.start_us.div_euclid(1_000));
        for (key, value) in [
            (GroupKey::All, String::new()),
            (GroupKey::Day, day),
            (GroupKey::Prefix, prefix),
            (GroupKey::Caller, caller),
        ] {
            let totals = self.groups.entry(CallGroup { key, value }).or_default();
            ours.inspect(|call| totals.ours.add(call));
            theirs.inspect(|call| totals.theirs.add(call));
            totals.differing += u64::from(differs);
        }
        if self.groups.len() > GROUPS_MAX { self.spill() } else { Ok(()) }
    }

    fn spill(&mut self) -> Result<()> {
        for (group, totals) in self.groups.drain() {
            self.sorter.push(&encode_group(&group, &totals))?;
        }
        Ok(())
    }

    /// Returns the groups, ordered by key and value.
    pub(crate) fn finish(mut self) -> Result<SortedTotals> {
        self.spill()?;
        Ok(SortedTotals { sorted: self.sorter.finish()?, current: None })
    }
}

impl SortedTotals {
    /// Returns the next group, or `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<(CallGroup, GroupTotals)>> {
        while let Some(record) = self.sorted.next()? {
            let corrupt =
                || std::io::Error::other("a temporary file is corrupt (has another process changed it?)");
            let (group, totals) =
                decode_group(record).ok_or_else(|| Error::system("sort groups")(corrupt()))?;
            match &mut self.current {
                Some((current, sums)) if *current == group => sums.merge(&totals),
                current => {
                    if let Some(complete) = current.replace((group, totals)) {
                        return Ok(Some(complete));
                    }
                }
            }
        }
        Ok(self.current.take())
    }
}

impl GroupTotals {
    fn merge(&mut self, other: &GroupTotals) {
        self.ours.merge(&other.ours);
        self.theirs.merge(&other.theirs);
        self.differing += other.differing;
    }

    /// The total duration of their side minus that of ours.
    pub(crate) fn duration_difference_us(&self) -> i64 {
        let signed = |us: u64| i64::try_from(us).unwrap_or(i64::MAX);
        signed(self.theirs.duration_us) - signed(self.ours.duration_us)
    }
}

/// Encodes a group as `key VALUE NUL sums`, so that the order of the bytes is that of the groups.
fn encode_group(group: &CallGroup, totals: &GroupTotals) -> Vec<u8> {
    let mut record = vec![group.key as u8];
    record.extend_from_slice(group.value.as_bytes());
    record.push(0);
    let GroupTotals { ours, theirs, differing } = totals;
    for sums in [ours, theirs] {
        for number in [sums.calls, sums.answered, sums.duration_us] {
            record.extend_from_slice(&number.to_be_bytes());
        }
    }
    record.extend_from_slice(&differing.to_be_bytes());
    record
}

fn decode_group(record: &[u8]) -> Option<(CallGroup, GroupTotals)> {
    let (key, rest) = record.split_first()?;
    let key = *GroupKey::ALL.get(usize::from(*key))?;
    let end = memchr::memchr(0, rest)?;
    let value = std::str::from_utf8(&rest[..end]).ok()?.to_owned();
    let mut numbers = rest[end + 1..].as_chunks().0.iter().map(|bytes| u64::from_be_bytes(*bytes));
    let mut sums =
        || Some(CallSums { calls: numbers.next()?, answered: numbers.next()?, duration_us: numbers.next()? });
    let (ours, theirs) = (sums()?, sums()?);
    Some((CallGroup { key, value }, GroupTotals { ours, theirs, differing: numbers.next()? }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::billing::{BillingRow, CallBuilder, RowFields, RowTimeParser};

    #[test]
    fn groups_beyond_the_memory_limit_are_merged() {
        let sort = SortSettings { dir: std::env::temp_dir(), memory_bytes: 64 << 10 };
        let day = |ms: i64| format!("day {}", ms.div_euclid(86_400_000));
        let mut totals = TotalsBuilder::new(day, None, &sort);
        let call = |caller: u64| {
            let row =
                format!(r#"{{"call_id":"a","request_time":"2026-11-22T00:00:00Z","caller_id":"{caller}"}}"#);
            let fields = RowFields::from_json(row.as_bytes()).unwrap();
            let row = BillingRow::from_fields(fields, &RowTimeParser::utc(), 0).unwrap().unwrap();
            CallBuilder::new(&row).finish(|_, _| false)
        };
        let callers = GROUPS_MAX as u64 + 10;
        for nth in 0..callers + 7 {
            let call = call(nth % callers);
            totals.add(Some(&call), (nth % 2 == 0).then_some(&call), nth % 2 == 1).unwrap();
        }
        let mut groups = totals.finish().unwrap();
        let mut found = Vec::new();
        while let Some(group) = groups.next().unwrap() {
            found.push(group);
        }
        assert!(found.is_sorted_by(|(one, _), (other, _)| one < other));
        assert_eq!(found.len() as u64, callers + 3);
        let (all, sums) = &found[0];
        assert_eq!((all.key, sums.ours.calls), (GroupKey::All, callers + 7));
        assert_eq!(sums.theirs.calls + sums.differing, callers + 7);
        assert_eq!((found[1].0.value.as_str(), found[2].0.value.as_str()), ("day 20779", NO_PREFIX));
        let twice = found
            .iter()
            .filter(|(group, sums)| group.key == GroupKey::Caller && sums.ours.calls == 2)
            .count();
        assert_eq!(twice, 7);
    }
}
