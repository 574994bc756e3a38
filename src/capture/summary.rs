//! Content of a stream, as its manifest records it.

use serde::{Deserialize, Serialize};

use super::compressed::Compression;
use super::damage::Damage;
use super::formats::CaptureFormat;
use super::variants::PcapVariant;

/// Content of a stream, as recorded in its manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureSummary {
    pub format: CaptureFormat,
    /// Variant of the format. `None` for the usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<PcapVariant>,
    /// Container of a compressed stream. Everything else describes what is inside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// Link types of all interfaces in the order of the file, as in LINKTYPE_ETHERNET = 1. Each one once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub link_types: Vec<u32>,
    /// Number of complete packets.
    pub packets: u64,
    /// Number of packets whose time is unknown.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub packets_without_time: u64,
    /// Earliest time of a packet. Nanoseconds since 1970.
    #[serde(
        rename = "first_packet_at",
        with = "packet_time",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub first_packet_ns: Option<i64>,
    /// Latest time of a packet. Nanoseconds since 1970.
    #[serde(
        rename = "last_packet_at",
        with = "packet_time",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub last_packet_ns: Option<i64>,
    /// Bytes after the last complete packet.
    pub truncated_bytes: u64,
    /// Byte from which the records are malformed. They are stored unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub malformed_at: Option<u64>,
    /// What readers of the file will find wrong with it, in the order of the file. Empty for a sound capture.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damage: Vec<Damage>,
    /// Number of findings omitted from the list.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub damage_omitted: u64,
    /// Place from which on a compressed stream was not looked into. What it contains after it is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inspection_stopped: Option<InspectionStop>,
}

/// Why a compressed stream is no longer looked into.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InspectionStop {
    /// Number of bytes of the file that were looked into.
    pub offset: u64,
    pub reason: String,
}

impl CaptureSummary {
    /// Returns the number of findings.
    pub fn damage_count(&self) -> u64 {
        self.damage.len() as u64 + self.damage_omitted
    }
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Serializes packet times as RFC 3339 text in UTC, with nanoseconds.
mod packet_time {
    use chrono::DateTime;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use crate::runtime::time::rfc3339_ns;

    pub(super) fn serialize<S: Serializer>(ns: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
        ns.map(rfc3339_ns).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
        let time = DateTime::parse_from_rfc3339(&text).map_err(D::Error::custom)?;
        // lea never writes times outside the range of 64-bit nanoseconds.
        time.timestamp_nanos_opt()
            .map(Some)
            .ok_or_else(|| D::Error::custom("the time is outside the range of 64-bit nanoseconds"))
    }
}
