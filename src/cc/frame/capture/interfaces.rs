//! The interfaces of a pcapng section: what their packets' times and lengths mean.

use serde::{Deserialize, Serialize};

use super::{PACKET_BYTES_MAX_OF_ANY, packet_bytes_max};
use crate::limits::{BLOCK_BYTES_MAX, PACKET_BYTES_MAX};

/// How many different interfaces of a section are remembered: 4 KiB a stream at most. Equal neighbours count as
/// one. A packet of an interface beyond counts as a packet, but its time is not known.
const RUNS_MAX: usize = 256;

/// What a block may have beside its packet: its fixed fields and options.
const BLOCK_BYTES_BESIDE_PACKET: u32 = 128 << 10;

const NS_IN_S: i128 = 1_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Interface {
    pub link_type: u16,
    /// The option if_tsresol: ticks of 10^-n seconds, or of 2^-n where the highest bit is set.
    pub resolution: u8,
    /// The option if_tsoffset: seconds to add to each time.
    pub offset_s: i64,
}

impl Interface {
    pub fn new(link_type: u16) -> Interface {
        Interface { link_type, resolution: 6, offset_s: 0 }
    }

    /// Nanoseconds since 1970, rounded down; the nearest that fits, where a hostile resolution or offset would not.
    pub fn time_ns(&self, ticks: u64) -> i64 {
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

/// Runs of equal interfaces: a merged capture has hundreds, and one or two kinds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Interfaces {
    count: u32,
    runs: Vec<Run>,
    first_snaplen: u32,
    /// The longest packet of any interface, where that is longer than usual.
    long_packet_bytes: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Run {
    /// The first interface number behind the run.
    end: u32,
    interface: Interface,
}

impl Interfaces {
    /// False for stored ones that no section has.
    pub fn is_sound(&self) -> bool {
        let ends = || self.runs.iter().map(|run| run.end);
        self.runs.len() <= RUNS_MAX
            && std::iter::once(0).chain(ends()).zip(ends()).all(|(before, end)| before < end)
            && self.known() <= self.count
            && self.long_packet_bytes <= PACKET_BYTES_MAX_OF_ANY
    }

    /// How many the section has so far.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// How many of them are remembered: the first ones.
    pub fn known(&self) -> u32 {
        self.runs.last().map_or(0, |run| run.end)
    }

    pub fn push(&mut self, interface: Interface) {
        let bytes_max = packet_bytes_max(interface.link_type.into());
        if bytes_max > PACKET_BYTES_MAX {
            self.long_packet_bytes = self.long_packet_bytes.max(bytes_max);
        }
        let all_known = self.known() == self.count;
        self.count = self.count.saturating_add(1);
        if !all_known {
            return;
        }
        let full = self.runs.len() == RUNS_MAX;
        match self.runs.last_mut() {
            Some(run) if run.interface == interface => run.end = self.count,
            _ if full => {}
            _ => self.runs.push(Run { end: self.count, interface }),
        }
    }

    pub fn get(&self, number: u32) -> Option<&Interface> {
        let run = self.runs.partition_point(|run| run.end <= number);
        self.runs.get(run).map(|run| &run.interface)
    }

    pub fn packet_bytes_max(&self, number: u32) -> u32 {
        self.get(number).map_or(PACKET_BYTES_MAX, |interface| packet_bytes_max(interface.link_type.into()))
    }

    pub fn block_bytes_max(&self) -> u32 {
        BLOCK_BYTES_MAX.max(self.long_packet_bytes + BLOCK_BYTES_BESIDE_PACKET)
    }

    pub fn set_first_snaplen(&mut self, snaplen: u32) {
        self.first_snaplen = snaplen;
    }

    /// How much of a packet of interface 0 was captured; a snaplen of 0 is none.
    pub fn cut_to_first_snaplen(&self, packet_bytes: u32) -> u32 {
        if self.first_snaplen == 0 { packet_bytes } else { packet_bytes.min(self.first_snaplen) }
    }
}
