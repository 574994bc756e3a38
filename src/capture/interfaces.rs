//! Interfaces of a pcapng section: link type, clock and snaplen of their packets.

use serde::{Deserialize, Serialize};

use super::parser::{ANY_PACKET_BYTES_MAX, packet_bytes_max};
use crate::limits::{BLOCK_BYTES_MAX, PACKET_BYTES_MAX};

/// Maximum number of different interfaces remembered per section: 4 KiB per stream. Equal neighbours count as
/// one. Packets of further interfaces are counted, but their time is unknown.
const RUNS_MAX: usize = 256;

/// Size limit of a block's fixed fields and options.
const BLOCK_OVERHEAD_BYTES_MAX: u32 = 128 << 10;

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

    /// Converts ticks to nanoseconds since 1970, rounded down, and saturates for hostile resolutions and
    /// offsets.
    pub(super) fn time_ns(&self, ticks: u64) -> i64 {
        let ticks = i128::from(ticks);
        let exponent = u32::from(self.resolution & 0x7f);
        let since_offset_ns = if self.resolution & 0x80 != 0 {
            (ticks * NS_IN_S) >> exponent
        } else if exponent <= 9 {
            ticks * 10_i128.pow(9 - exponent)
        } else {
            10_i128.checked_pow(exponent - 9).map_or(0, |ticks_in_ns| ticks / ticks_in_ns)
        };
        let ns = since_offset_ns + i128::from(self.offset_s) * NS_IN_S;
        ns.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }
}

/// Table of interfaces, stored as runs of equal ones: a merged capture has hundreds of interfaces, but only
/// one or two kinds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct InterfaceTable {
    count: u32,
    runs: Vec<InterfaceRun>,
    first_snaplen: u32,
    /// Largest packet of any interface, if that exceeds the usual limit.
    long_packet_bytes: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct InterfaceRun {
    /// First interface number after the run.
    end: u32,
    interface: Interface,
}

impl InterfaceTable {
    /// Returns false for a deserialized table that no section can have.
    pub(super) fn is_consistent(&self) -> bool {
        let ends = || self.runs.iter().map(|run| run.end);
        self.runs.len() <= RUNS_MAX
            && std::iter::once(0).chain(ends()).zip(ends()).all(|(before, end)| before < end)
            && self.known_count() <= self.count
            && self.long_packet_bytes <= ANY_PACKET_BYTES_MAX
    }

    /// Number of interfaces in the section so far.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Number of interfaces that are remembered, from the first.
    pub(super) fn known_count(&self) -> u32 {
        self.runs.last().map_or(0, |run| run.end)
    }

    pub(super) fn push(&mut self, interface: Interface) {
        let bytes_max = packet_bytes_max(interface.link_type.into());
        if bytes_max > PACKET_BYTES_MAX {
            self.long_packet_bytes = self.long_packet_bytes.max(bytes_max);
        }
        let all_known = self.known_count() == self.count;
        self.count = self.count.saturating_add(1);
        if !all_known {
            return;
        }
        let full = self.runs.len() == RUNS_MAX;
        match self.runs.last_mut() {
            Some(run) if run.interface == interface => run.end = self.count,
            _ if full => {}
            _ => self.runs.push(InterfaceRun { end: self.count, interface }),
        }
    }

    pub(super) fn get(&self, number: u32) -> Option<&Interface> {
        let run = self.runs.partition_point(|run| run.end <= number);
        self.runs.get(run).map(|run| &run.interface)
    }

    pub(super) fn packet_bytes_max(&self, number: u32) -> u32 {
        self.get(number).map_or(PACKET_BYTES_MAX, |interface| packet_bytes_max(interface.link_type.into()))
    }

    pub(super) fn block_bytes_max(&self) -> u32 {
        BLOCK_BYTES_MAX.max(self.long_packet_bytes + BLOCK_OVERHEAD_BYTES_MAX)
    }

    pub(super) fn set_first_snaplen(&mut self, snaplen: u32) {
        self.first_snaplen = snaplen;
    }

    /// Captured length of a packet of interface 0. A snaplen of 0 means no limit.
    pub(super) fn truncate_to_first_snaplen(&self, packet_bytes: u32) -> u32 {
        if self.first_snaplen == 0 { packet_bytes } else { packet_bytes.min(self.first_snaplen) }
    }
}
