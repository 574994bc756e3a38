//! Adds up the calls of both sides by day, country code and caller. Runs on the main thread.
//!
//! Invariant: at most `GROUPS_MAX` groups are in memory. Further groups are sorted in temporary files and merged at the
//! end, so the number of callers has no limit.

use std::collections::HashMap;

use super::SortArgs;
use crate::billing::external_sort::{ExternalSorter, SortedRecords};
use crate::billing::{BilledCall, CallGroup, CallSums, GroupKey};
use crate::cmd::args::time_zone::TimeZoneArg;
use crate::phone::PhoneNumberNormalizer;
use crate::{Error, Result};

/// Groups in memory.
const GROUPS_MAX: usize = 65_536;

/// Memory for sorting groups.
const SORT_BYTES: u64 = 16 << 20;

/// The group of calls whose callee has no country code.
pub(super) const NO_PREFIX: &str = "other";

/// The sums of one group for both sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct GroupTotals {
    pub ours: CallSums,
    pub theirs: CallSums,
    /// Calls that differ or are missing on one side.
    pub differing: u64,
}

/// Adds up calls by group.
pub(super) struct TotalsBuilder<'a> {
    zone: TimeZoneArg,
    families: Option<&'a PhoneNumberNormalizer>,
    groups: HashMap<CallGroup, GroupTotals>,
    sorter: ExternalSorter,
}

/// Iterates over the groups in their order.
pub(super) struct SortedTotals {
    sorted: SortedRecords,
    current: Option<(CallGroup, GroupTotals)>,
}

impl<'a> TotalsBuilder<'a> {
    pub(super) fn new(
        zone: TimeZoneArg,
        families: Option<&'a PhoneNumberNormalizer>,
        sort: &SortArgs,
    ) -> TotalsBuilder<'a> {
        let sorter = ExternalSorter::new(&sort.temp_dir(), SORT_BYTES.min(sort.sort_memory));
        TotalsBuilder { zone, families, groups: HashMap::new(), sorter }
    }

    /// Adds a call that one side or both sides have. Our record, if there is one, determines its groups.
    pub(super) fn add(
        &mut self,
        ours: Option<&BilledCall>,
        theirs: Option<&BilledCall>,
        differs: bool,
    ) -> Result<()> {
        let Some(call) = ours.or(theirs) else { return Ok(()) };
        let number = |text: &str| self.families.and_then(|families| families.normalize(text));
        let caller =
            number(&call.caller).map_or_else(|| call.caller.clone(), |found| found.as_str().to_owned());
        let prefix = number(&call.callee);
        let prefix = prefix.map_or_else(|| NO_PREFIX.to_owned(), |found| format!("+{}", found.plan().code));
        let day = self.zone.day(call.start_us.div_euclid(1_000)).to_string();
        for (key, value) in [
            (GroupKey::All, String::new()),
            (GroupKey::Day, day),
            (GroupKey::Prefix, prefix),
            (GroupKey::Caller, caller),
        ] {
            let both = self.groups.entry(CallGroup { key, value }).or_default();
            ours.inspect(|call| both.ours.add(call));
            theirs.inspect(|call| both.theirs.add(call));
            both.differing += u64::from(differs);
        }
        if self.groups.len() > GROUPS_MAX { self.spill() } else { Ok(()) }
    }

    fn spill(&mut self) -> Result<()> {
        for (group, both) in self.groups.drain() {
            self.sorter.push(&encode_group(&group, &both))?;
        }
        Ok(())
    }

    /// Returns the groups, ordered by key and value.
    pub(super) fn finish(mut self) -> Result<SortedTotals> {
        self.spill()?;
        Ok(SortedTotals { sorted: self.sorter.finish()?, current: None })
    }
}

impl SortedTotals {
    /// Returns the next group, or `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(CallGroup, GroupTotals)>> {
        while let Some(record) = self.sorted.next()? {
            let damaged =
                || std::io::Error::other("a temporary file is corrupt (has another process changed it?)");
            let (group, both) =
                decode_group(record).ok_or_else(|| Error::system("sort groups")(damaged()))?;
            match &mut self.current {
                Some((begun, sums)) if *begun == group => sums.merge(&both),
                begun => {
                    if let Some(whole) = begun.replace((group, both)) {
                        return Ok(Some(whole));
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
    pub(super) fn duration_difference_us(&self) -> i64 {
        let signed = |us: u64| i64::try_from(us).unwrap_or(i64::MAX);
        signed(self.theirs.duration_us) - signed(self.ours.duration_us)
    }
}

/// Encodes a group as `key VALUE NUL sums`, so that the order of the bytes is that of the groups.
fn encode_group(group: &CallGroup, both: &GroupTotals) -> Vec<u8> {
    let mut record = vec![group.key as u8];
    record.extend_from_slice(group.value.as_bytes());
    record.push(0);
    let GroupTotals { ours, theirs, differing: differ } = both;
    for sums in [ours, theirs] {
        for number in [sums.calls, sums.answered, sums.duration_us] {
            record.extend_from_slice(&number.to_be_bytes());
        }
    }
    record.extend_from_slice(&differ.to_be_bytes());
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

    #[test]
    fn groups_beyond_the_memory_limit_are_merged() {
        let sort = SortArgs { sort_memory: 64 << 10, temp_dir: None };
        let mut totals = TotalsBuilder::new(TimeZoneArg::parse("utc").unwrap(), None, &sort);
        let call = |caller: u64| {
            let row =
                format!(r#"{{"call_id":"a","request_time":"2026-11-22T00:00:00Z","caller_id":"{caller}"}}"#);
            let fields = crate::billing::RowFields::from_json(row.as_bytes()).unwrap();
            let clock = crate::billing::RowTimeParser::utc();
            let row = crate::billing::BillingRow::read(fields, &clock, 0).unwrap().unwrap();
            crate::billing::CallBuilder::new(&row).finish(|_, _| false)
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
        let (all, both) = &found[0];
        assert_eq!((all.key, both.ours.calls), (GroupKey::All, callers + 7));
        assert_eq!(both.theirs.calls + both.differing, callers + 7);
        assert_eq!((found[1].0.value.as_str(), found[2].0.value.as_str()), ("2026-11-22", NO_PREFIX));
        let twice = found
            .iter()
            .filter(|(group, both)| group.key == GroupKey::Caller && both.ours.calls == 2)
            .count();
        assert_eq!(twice, 7);
    }
}
