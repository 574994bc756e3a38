//! Content of a stream, as its manifest records it.

use serde::{Deserialize, Serialize};

use super::damage::Damage;
use super::formats::CaptureFormat;

/// Content of a stream, as recorded in its manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureSummary {
    pub format: CaptureFormat,
    /// Link type of the first interface, as in LINKTYPE_ETHERNET = 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_type: Option<u32>,
    /// Number of complete packets.
    pub packets: u64,
    /// Time of the first packet that has one, in file order. Nanoseconds since 1970.
    #[serde(
        rename = "first_packet_at",
        with = "packet_time",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub first_packet_ns: Option<i64>,
    /// Time of the last packet that has one, in file order. Nanoseconds since 1970.
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
