//! Interfaces of a pcapng section: link type, clock and snaplen of their packets.

use serde::{Deserialize, Serialize};

/// Maximum number of different kinds of interfaces per section. A kind is a link type with a clock.
const KINDS_MAX: usize = 255;

/// Maximum number of runs of equal interfaces. Equal neighbours count as one.
const RUNS_MAX: usize = 256;

/// Maximum number of interfaces after the runs, with one byte each: a merge of captures can alternate between two kinds.
/// Together that is 14 KiB per stream. Packets of further interfaces are counted, but their time is unknown.
const SINGLE_MAX: usize = 8192;

const NS_IN_S: i128 = 1_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Interface {
    pub(super) link_type: u16,
    /// Option if_tsresol: ticks of 10^-n seconds, or of 2^-n if the highest bit is set.
    pub(super) resolution: u8,
    /// Option if_tsoffset: seconds added to each time.
    pub(super) offset_s: i64,
}

impl Interface {
    pub(super) fn new(link_type: u16) -> Interface {
        Interface { link_type, resolution: 6, offset_s: 0 }
    }

    /// Converts ticks to nanoseconds since 1970, rounded down. `None` if that cannot be a time: ticks so short that 64 bits
    /// hold less than two seconds of them, or a time that 64-bit nanoseconds do not have.
    #[inline]
    pub(super) fn time_ns(&self, ticks: u64) -> Option<i64> {
        match (self.resolution, self.offset_s) {
            (6, 0) => i64::try_from(ticks.checked_mul(1_000)?).ok(),
            (9, 0) => i64::try_from(ticks).ok(),
            _ => self.unusual_time_ns(ticks),
        }
    }

    fn unusual_time_ns(&self, ticks: u64) -> Option<i64> {
        let ticks = i128::from(ticks);
        let exponent = u32::from(self.resolution & 0x7f);
        let since_offset_ns = match self.resolution & 0x80 != 0 {
            true if exponent <= 63 => (ticks * NS_IN_S) >> exponent,
            false if exponent <= 9 => ticks * 10_i128.pow(9 - exponent),
            false if exponent <= 19 => ticks / 10_i128.pow(exponent - 9),
            _ => return None,
        };
        i64::try_from(since_offset_ns + i128::from(self.offset_s) * NS_IN_S).ok()
    }
}

/// Table of interfaces: the kinds that occur, and the kind of each interface. A merged capture has hundreds of interfaces,
/// but only a few kinds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct InterfaceTable {
    count: u32,
    kinds: Vec<Interface>,
    runs: Vec<InterfaceRun>,
    /// Kinds of the interfaces after the runs, one by one.
    single: Vec<u8>,
    first_snaplen: u32,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct InterfaceRun {
    /// First interface number after the run.
    end: u32,
    kind: u8,
}

impl InterfaceTable {
    /// Returns false for a deserialized table that no section can have.
    pub(super) fn is_consistent(&self) -> bool {
        let ends = || self.runs.iter().map(|run| run.end);
        let kinds = self.runs.iter().map(|run| run.kind).chain(self.single.iter().copied());
        self.kinds.len() <= KINDS_MAX
            && self.runs.len() <= RUNS_MAX
            && self.single.len() <= SINGLE_MAX
            && std::iter::once(0).chain(ends()).zip(ends()).all(|(before, end)| before < end)
            && kinds.into_iter().all(|kind| usize::from(kind) < self.kinds.len())
            && u64::from(self.run_end()) + self.single.len() as u64 <= u64::from(self.count)
    }

    /// Number of interfaces in the section so far.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    fn run_end(&self) -> u32 {
        self.runs.last().map_or(0, |run| run.end)
    }

    /// Number of interfaces that are remembered, from the first.
    pub(super) fn known_count(&self) -> u32 {
        self.run_end() + self.single.len() as u32
    }

    pub(super) fn push(&mut self, interface: Interface) {
        let are_all_known = self.known_count() == self.count;
        self.count = self.count.saturating_add(1);
        let Some(kind) = self.kind(interface).filter(|_| are_all_known) else { return };
        let are_runs_full = self.runs.len() == RUNS_MAX;
        match self.runs.last_mut() {
            Some(run) if run.kind == kind && self.single.is_empty() => run.end = self.count,
            _ if !are_runs_full => self.runs.push(InterfaceRun { end: self.count, kind }),
            _ if self.single.len() < SINGLE_MAX => self.single.push(kind),
            _ => {}
        }
    }

    /// Number of the kind of an interface. `None`: there are too many kinds.
    fn kind(&mut self, interface: Interface) -> Option<u8> {
        let known = self.kinds.iter().position(|kind| *kind == interface);
        if known.is_none() && self.kinds.len() < KINDS_MAX {
            self.kinds.push(interface);
        }
        known.or(self.kinds.iter().position(|kind| *kind == interface)).map(|kind| kind as u8)
    }

    pub(super) fn get(&self, number: u32) -> Option<&Interface> {
        let kind = match number.checked_sub(self.run_end()) {
            Some(single) => *self.single.get(single as usize)?,
            None => self.runs.get(self.runs.partition_point(|run| run.end <= number))?.kind,
        };
        self.kinds.get(usize::from(kind))
    }

    pub(super) fn set_first_snaplen(&mut self, snaplen: u32) {
        self.first_snaplen = snaplen;
    }

    /// Captured length of a packet of interface 0. A snaplen of 0 means no limit.
    pub(super) fn truncate_to_first_snaplen(&self, packet_bytes: u32) -> u32 {
        if self.first_snaplen == 0 { packet_bytes } else { packet_bytes.min(self.first_snaplen) }
    }
}
