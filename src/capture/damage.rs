//! What is wrong with a capture: findings that readers of the file will meet, for its manifest. A reader is Wireshark or
//! tcpdump; docs/captures.md says which one refuses what.

use serde::{Deserialize, Serialize};

/// Maximum number of findings listed. More would say the same again: the first ones matter.
pub(crate) const DAMAGE_MAX: usize = 16;

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    pub kind: DamageKind,
    /// Offset of the unit that is damaged: a packet, a block, a header, or a compressed frame.
    pub offset: u64,
    /// Whether `offset` counts decompressed bytes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub decompressed: bool,
    /// Number of complete packets before it.
    pub packets_before: u64,
    /// What is wrong, in one sentence.
    pub detail: String,
}

/// Kind of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DamageKind {
    /// The content ends inside a packet, a block or a header.
    Truncated,
    /// From here on the bytes have no structure: no packets are counted after it.
    Malformed,
    /// A block that readers reject. The blocks after it are counted, but readers stop here.
    BadBlock,
    /// A header that readers refuse, or do not know. The packets after it are counted.
    Unsupported,
    /// Another capture starts here, without an end of the one before it. Its packets are counted.
    AppendedCapture,
}

impl DamageKind {
    /// Returns the token used in manifests, tables, metrics and the log.
    pub fn as_str(self) -> &'static str {
        match self {
            DamageKind::Truncated => "truncated",
            DamageKind::Malformed => "malformed",
            DamageKind::BadBlock => "bad_block",
            DamageKind::Unsupported => "unsupported",
            DamageKind::AppendedCapture => "appended_capture",
        }
    }
}

/// Finding of a parser. It is small, because checkpoints store it; its sentence is made when it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Finding {
    PcapVersion(u16, u16),
    SectionVersion(u16, u16),
    LinkTypeBits(u32),
    LinkType(u32),
    SnoopLinkType(u32),
    PacketLength { captured: u32, max: u32 },
    RecordLength { record: u32, captured: u32 },
    BlockLength(u32),
    Trailer { first: u32, second: u32 },
    ByteOrder(u32),
    ShortBlock { block_type: u32, total: u32, min: u32 },
    LongPacket { captured: u32, max: u32 },
    PacketRoom { captured: u32, room: u32 },
    Interface { number: u32, count: u32 },
    OptionLength { code: u16, length: u16 },
    OptionRoom { code: u16, length: u16 },
    Appended,
}

impl Finding {
    pub(super) fn kind(self) -> DamageKind {
        match self {
            Finding::PcapVersion(..)
            | Finding::SectionVersion(..)
            | Finding::LinkTypeBits(_)
            | Finding::LinkType(_)
            | Finding::SnoopLinkType(_) => DamageKind::Unsupported,
            Finding::PacketLength { .. }
            | Finding::RecordLength { .. }
            | Finding::BlockLength(_)
            | Finding::Trailer { .. }
            | Finding::ByteOrder(_) => DamageKind::Malformed,
            Finding::ShortBlock { .. }
            | Finding::LongPacket { .. }
            | Finding::PacketRoom { .. }
            | Finding::Interface { .. }
            | Finding::OptionLength { .. }
            | Finding::OptionRoom { .. } => DamageKind::BadBlock,
            Finding::Appended => DamageKind::AppendedCapture,
        }
    }

    pub(super) fn detail(self) -> String {
        match self {
            Finding::PcapVersion(major, minor) if major < 2 => {
                format!("no reader supports pcap version {major}.{minor}")
            }
            Finding::PcapVersion(major, minor) => {
                format!("tcpdump does not read pcap version {major}.{minor}")
            }
            Finding::SectionVersion(major, minor) => {
                format!("no reader supports pcapng version {major}.{minor}")
            }
            Finding::LinkTypeBits(bits) => {
                format!("reserved bits of the link type are set ({bits:#010x}), which Wireshark refuses")
            }
            Finding::LinkType(link_type) => format!("Wireshark 4.0 does not read link type {link_type}"),
            Finding::SnoopLinkType(network) => {
                format!("Wireshark does not read snoop network type {network}")
            }
            Finding::PacketLength { captured, max } => {
                format!("a packet cannot have {captured} bytes: readers accept {max}")
            }
            Finding::RecordLength { record, captured } => {
                format!("a record of {record} bytes cannot contain a packet of {captured} bytes")
            }
            Finding::BlockLength(total) => format!("a block cannot have {total} bytes"),
            Finding::Trailer { first, second } => {
                format!("the lengths at the two ends of the block differ: {first} and {second}")
            }
            Finding::ByteOrder(word) => format!("{word:#010x} is not a byte-order magic"),
            Finding::ShortBlock { block_type, total, min } => {
                format!("a block of type {block_type:#x} has at least {min} bytes, not {total}")
            }
            Finding::LongPacket { captured, max } => {
                format!("the packet has {captured} bytes, but readers accept only {max} for its link type")
            }
            Finding::PacketRoom { captured, room } => {
                format!("the packet has {captured} bytes, but its block has room for {room}")
            }
            Finding::Interface { number, count } => {
                format!("the packet is of interface {number}, but the section has only {count}")
            }
            Finding::OptionLength { code, length } => {
                format!("option {code} cannot have a length of {length} bytes")
            }
            Finding::OptionRoom { code, length } => {
                format!("option {code} has {length} bytes, which is more than its block has left")
            }
            Finding::Appended => "another capture starts here, which readers take for a packet".to_owned(),
        }
    }
}

/// Findings of a stream with their places, at most [`DAMAGE_MAX`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Findings {
    list: Vec<PlacedFinding>,
    omitted: u64,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct PlacedFinding {
    offset: u64,
    packets_before: u64,
    finding: Finding,
}

impl Findings {
    pub(super) fn add(&mut self, offset: u64, packets_before: u64, finding: Finding) {
        if self.list.len() < DAMAGE_MAX {
            self.list.push(PlacedFinding { offset, packets_before, finding });
        } else {
            self.omitted += 1;
        }
    }

    pub(super) fn omitted(&self) -> u64 {
        self.omitted
    }

    /// Returns false if no capture is appended to the stream, as far as the list tells.
    pub(super) fn may_have_appended(&self) -> bool {
        self.omitted > 0 || self.list.iter().any(|placed| matches!(placed.finding, Finding::Appended))
    }

    pub(super) fn to_damage(&self) -> Vec<Damage> {
        let damage = |placed: &PlacedFinding| Damage {
            kind: placed.finding.kind(),
            offset: placed.offset,
            decompressed: false,
            packets_before: placed.packets_before,
            detail: placed.finding.detail(),
        };
        self.list.iter().map(damage).collect()
    }

    /// Returns false for deserialized findings that no stream of `received` bytes has.
    pub(super) fn is_consistent(&self, received: u64) -> bool {
        self.list.len() <= DAMAGE_MAX && self.list.iter().all(|placed| placed.offset <= received)
    }
}
