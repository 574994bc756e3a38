//! Sums of both sides by day, country code and caller, however many callers. Main thread.
//!
//! Invariant: so many groups are in memory at most; others are sorted in temporary files and added up at the end.

use std::collections::HashMap;

use super::super::zone::Zone;
use super::SortArgs;
use super::sorter::{Sorted, Sorter};
use crate::iri::billing::{Call, Group, Key, Sums};
use crate::iri::number::Families;
use crate::{Error, Result};

/// Groups in memory.
const GROUPS_MAX: usize = 65_536;

/// Memory that sorting groups takes.
const SORT_BYTES: u64 = 16 << 20;

/// The value of calls whose callee has no country code.
pub const NO_PREFIX: &str = "other";

/// Sums of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Both {
    /// Our side's.
    pub ours: Sums,
    /// The other side's.
    pub theirs: Sums,
    /// Calls that differ or are missing on a side.
    pub differ: u64,
}

/// Adds calls up.
pub struct Totals<'a> {
    zone: Zone,
    families: Option<&'a Families>,
    groups: HashMap<Group, Both>,
    sorter: Sorter,
}

/// Groups in their order.
pub struct Groups {
    sorted: Sorted,
    begun: Option<(Group, Both)>,
}

impl<'a> Totals<'a> {
    /// No calls yet.
    pub fn new(zone: Zone, families: Option<&'a Families>, sort: &SortArgs) -> Totals<'a> {
        let sorter = Sorter::new(&sort.temp_dir(), SORT_BYTES.min(sort.memory));
        Totals { zone, families, groups: HashMap::new(), sorter }
    }

    /// Adds a call of one side or both. It belongs where our side has it.
    pub fn add(&mut self, ours: Option<&Call>, theirs: Option<&Call>, differs: bool) -> Result<()> {
        let Some(call) = ours.or(theirs) else { return Ok(()) };
        let number = |text: &str| self.families.and_then(|families| families.canonical(text));
        let caller =
            number(&call.caller).map_or_else(|| call.caller.clone(), |found| found.number().to_owned());
        let prefix = number(&call.callee);
        let prefix = prefix.map_or_else(|| NO_PREFIX.to_owned(), |found| format!("+{}", found.plan().code));
        let day = self.zone.day(call.start_us.div_euclid(1_000)).to_string();
        for (key, value) in
            [(Key::All, String::new()), (Key::Day, day), (Key::Prefix, prefix), (Key::Caller, caller)]
        {
            let both = self.groups.entry(Group { key, value }).or_default();
            ours.inspect(|call| both.ours.add(call));
            theirs.inspect(|call| both.theirs.add(call));
            both.differ += u64::from(differs);
        }
        if self.groups.len() > GROUPS_MAX { self.spill() } else { Ok(()) }
    }

    fn spill(&mut self) -> Result<()> {
        for (group, both) in self.groups.drain() {
            self.sorter.push(&encode(&group, &both))?;
        }
        Ok(())
    }

    /// The groups by key and value.
    pub fn finish(mut self) -> Result<Groups> {
        self.spill()?;
        Ok(Groups { sorted: self.sorter.finish()?, begun: None })
    }
}

impl Groups {
    /// The next group; none at the end.
    pub fn next(&mut self) -> Result<Option<(Group, Both)>> {
        while let Some(record) = self.sorted.next()? {
            let damaged = || std::io::Error::other("sums in a temporary file are damaged");
            let (group, both) = decode(record).ok_or_else(|| Error::system("sort groups")(damaged()))?;
            match &mut self.begun {
                Some((begun, sums)) if *begun == group => sums.merge(&both),
                begun => {
                    if let Some(whole) = begun.replace((group, both)) {
                        return Ok(Some(whole));
                    }
                }
            }
        }
        Ok(self.begun.take())
    }
}

impl Both {
    fn merge(&mut self, other: &Both) {
        self.ours.merge(&other.ours);
        self.theirs.merge(&other.theirs);
        self.differ += other.differ;
    }

    /// What theirs is longer than ours.
    pub fn duration_difference_us(&self) -> i64 {
        let signed = |us: u64| i64::try_from(us).unwrap_or(i64::MAX);
        signed(self.theirs.duration_us) - signed(self.ours.duration_us)
    }
}

/// `key VALUE NUL sums`: in the order of the groups.
fn encode(group: &Group, both: &Both) -> Vec<u8> {
    let mut record = vec![group.key as u8];
    record.extend_from_slice(group.value.as_bytes());
    record.push(0);
    let Both { ours, theirs, differ } = both;
    for sums in [ours, theirs] {
        for number in [sums.calls, sums.answered, sums.duration_us] {
            record.extend_from_slice(&number.to_be_bytes());
        }
    }
    record.extend_from_slice(&differ.to_be_bytes());
    record
}

fn decode(record: &[u8]) -> Option<(Group, Both)> {
    let (key, rest) = record.split_first()?;
    let key = *Key::ALL.get(usize::from(*key))?;
    let end = memchr::memchr(0, rest)?;
    let value = std::str::from_utf8(&rest[..end]).ok()?.to_owned();
    let mut numbers = rest[end + 1..].as_chunks().0.iter().map(|bytes| u64::from_be_bytes(*bytes));
    let mut sums =
        || Some(Sums { calls: numbers.next()?, answered: numbers.next()?, duration_us: numbers.next()? });
    let (ours, theirs) = (sums()?, sums()?);
    Some((Group { key, value }, Both { ours, theirs, differ: numbers.next()? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_added_up_beyond_memory() {
        let sort = SortArgs { memory: 64 << 10, temp_dir: None };
        let mut totals = Totals::new(Zone::parse("utc").unwrap(), None, &sort);
        let call = |caller: u64| {
            let row =
                format!(r#"{{"call_id":"a","request_time":"2026-11-22T00:00:00Z","caller_id":"{caller}"}}"#);
            let fields = crate::iri::billing::Fields::of_json(row.as_bytes()).unwrap();
            let clock = crate::iri::billing::Clock::utc();
            let row = crate::iri::billing::Row::read(fields, &clock, 0).unwrap().unwrap();
            crate::iri::billing::Builder::new(&row).finish(|_, _| false)
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
        assert_eq!((all.key, both.ours.calls), (Key::All, callers + 7));
        assert_eq!(both.theirs.calls + both.differ, callers + 7);
        assert_eq!((found[1].0.value.as_str(), found[2].0.value.as_str()), ("2026-11-22", NO_PREFIX));
        let twice =
            found.iter().filter(|(group, both)| group.key == Key::Caller && both.ours.calls == 2).count();
        assert_eq!(twice, 7);
    }
}
