//! Follows the packets of a pcap or pcapng stream while its bytes go by: no copy, any split.

use serde::{Deserialize, Serialize};

/// The format of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Too few bytes to tell.
    #[default]
    Unknown,
    /// pcap (draft-ietf-opsawg-pcap), either byte order, micro- or nanoseconds.
    Pcap,
    /// pcapng (draft-ietf-opsawg-pcapng).
    Pcapng,
    /// No capture: any bytes.
    Other,
}

/// What a stream turned out to contain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// pcap, pcapng, or other.
    pub format: Format,
    /// The (first) link type, as in LINKTYPE_ETHERNET = 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_type: Option<u32>,
    /// Whole packets.
    pub packets: u64,
    /// The first packet's time, nanoseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_packet_ns: Option<i64>,
    /// The last packet's time, nanoseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_packet_ns: Option<i64>,
    /// Bytes after the last whole packet: of a packet that was cut.
    pub cut_off_bytes: u64,
    /// From this byte on the records made no sense and are kept as they came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unstructured_from: Option<u64>,
}

/// The position in a stream, at any byte. Small, and can be stored (checkpoints do).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Follower {
    received: u64,
}

impl Follower {
    /// At byte 0.
    pub fn new() -> Follower {
        Follower::default()
    }

    /// Takes the next bytes of the stream, any number of them.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.received += bytes.len() as u64;
    }

    /// Bytes fed so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// How many of them a reader may see: the end of the last whole packet (or block, or file header); all of
    /// them, where the stream is no capture or stopped making sense. Never decreases, never beyond `received`.
    /// While it cannot be told yet whether this is a capture (fewer than 4 bytes), 0.
    pub fn boundary(&self) -> u64 {
        self.received
    }

    /// Whole packets so far.
    pub fn packets(&self) -> u64 {
        0
    }

    /// What the stream contains, as if it ended here.
    pub fn summary(&self) -> Summary {
        Summary::default()
    }
}
