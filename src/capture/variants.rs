//! Variants of pcap that share a magic number, told apart as Wireshark does: by the headers of the first packets, and by
//! the version and the link type in the file header.

use serde::{Deserialize, Serialize};

use super::parser::{Header, header_u16, header_u32};

/// Variant of pcap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PcapVariant {
    /// Microseconds, and headers of 16 bytes.
    Usual,
    Nanosecond,
    /// AIX: version 2.2 with nanoseconds and other link types.
    Aix,
    /// Patch ss991029 to libpcap, with its own magic number. Routers of AVM write it.
    Modified,
    /// Patch ss990417 to libpcap, with the usual magic number.
    #[serde(rename = "red_hat_6_1")]
    RedHat61,
    /// Patch ss990915 to libpcap, with the magic number of `Modified`.
    #[serde(rename = "suse_6_3")]
    Suse63,
    Nokia,
    IxiaHardware,
    IxiaSoftware,
}

impl PcapVariant {
    pub(super) fn packet_header_bytes(self) -> u32 {
        match self {
            PcapVariant::Modified | PcapVariant::RedHat61 => 24,
            PcapVariant::Suse63 => 28,
            PcapVariant::Nokia => 20,
            _ => 16,
        }
    }

    pub(super) fn has_nanoseconds(self) -> bool {
        matches!(self, PcapVariant::Nanosecond | PcapVariant::Aix | PcapVariant::IxiaHardware)
    }

    /// Number of bytes after a packet header that are needed to tell the other variants of the magic number apart. They
    /// contain the headers of those, which start later.
    pub(super) fn probe_bytes(self) -> usize {
        match self {
            PcapVariant::Usual => 8,
            PcapVariant::Modified => 4,
            _ => 0,
        }
    }
}

/// Progress of telling the variants of a magic number apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Probe {
    /// The first packet tells nothing: its header starts at the same byte in all variants.
    FirstPacket,
    /// The header of the second packet decides.
    SecondPacket,
    Decided,
}

/// What a plausible packet header is.
pub(super) struct Plausibility {
    pub(super) big_endian: bool,
    pub(super) packet_bytes_max: u32,
    pub(super) snaplen: u32,
    /// Time of the first packet, in seconds since 1970.
    pub(super) first_seconds: u32,
}

impl Plausibility {
    /// Number of things that are wrong with a packet header of 16 bytes that starts at `at`: Wireshark's measure.
    pub(super) fn demerits(&self, header: &Header, at: usize) -> u32 {
        const ORIGINAL_BYTES_MAX: u32 = 128 << 20;
        let word = |offset| header_u32(header, at + offset, self.big_endian);
        let (fraction, captured, original) = (word(4), word(8), word(12));
        u32::from(fraction >= 1_000_000)
            + u32::from(captured > self.packet_bytes_max)
            + u32::from(self.snaplen > 0 && captured > self.snaplen)
            + u32::from(original > ORIGINAL_BYTES_MAX)
            + u32::from(captured > original)
    }

    /// Number of things that are wrong with a packet header of another variant than the assumed one. Zeros in a packet look
    /// like a header, so it must also have bytes, and be of the same time as the first packet.
    fn other_demerits(&self, header: &Header, at: usize) -> u32 {
        const YEAR_S: u32 = 366 * 86_400;
        let word = |offset| header_u32(header, at + offset, self.big_endian);
        self.demerits(header, at)
            + u32::from(word(8) == 0)
            + u32::from(word(0).abs_diff(self.first_seconds) > YEAR_S)
    }

    /// Number of things that are wrong with the 7 bytes that the patched libpcap added to a packet header: interface
    /// index, protocol, packet type.
    fn patch_demerits(&self, header: &Header, at: usize) -> u32 {
        let protocol = header_u16(header, at + 4, self.big_endian);
        let is_protocol = protocol >= 0x600 || matches!(protocol, 0..=0x17 | 0x60 | 0x200 | 0x400);
        u32::from(header_u32(header, at, self.big_endian) > 10_000)
            + u32::from(!is_protocol)
            + u32::from(header[at + 6] > 4)
    }
}

/// Chooses the variant by the second packet, whose header is not plausible in the `assumed` one: another variant in which
/// it is. `header` starts where the packet's header would start in the assumed variant. Also returns the number of bytes
/// after that header.
pub(super) fn choose(header: &Header, assumed: PcapVariant, plausible: &Plausibility) -> (u32, PcapVariant) {
    let suse_demerits = || plausible.other_demerits(header, 4) + plausible.patch_demerits(header, 20);
    let choice = match assumed {
        PcapVariant::Modified if suse_demerits() == 0 => PcapVariant::Suse63,
        PcapVariant::Usual if plausible.other_demerits(header, 8) == 0 => PcapVariant::RedHat61,
        PcapVariant::Usual if plausible.other_demerits(header, 4) == 0 => PcapVariant::Nokia,
        assumed => assumed,
    };
    (assumed.probe_bytes() as u32, choice)
}

/// The link type that stands for an interface type of AIX, which its file headers have instead.
pub(super) fn aix_link_type(network: u32) -> Option<u32> {
    match network {
        // Ethernet, Token Ring, FDDI, loopback.
        6 => Some(1),
        9 => Some(6),
        15 => Some(10),
        24 => Some(0),
        _ => None,
    }
}
