//! What is wrong with a stored stream, as far as its manifest tells. Pure. `lea ls`, `lea verify`, the log and metrics
//! report the same.

use std::fmt;

use super::manifest::{EndReason, Manifest, ManifestState};
use crate::capture::damage::{Damage as Finding, DamageKind};
use crate::capture::formats::CaptureFormat;
use crate::runtime::metrics::Metrics;

/// Something that is wrong with a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Received bytes that were not written.
    Lost(u64),
    /// Bytes at the end of the file that may not be on the disk.
    Unsynced(u64),
    /// Bytes of an incomplete packet at the end.
    Truncated(u64),
    /// Offset of the first byte that does not fit the format.
    Malformed(u64),
    /// Anything else that readers of the capture will find wrong.
    Finding(Finding),
    /// Number of findings that the manifest does not list.
    MoreFindings(u64),
    /// The stream was longer than `--stream-bytes-max`.
    LimitReached,
    /// The stream ended because of an error.
    IoError,
    /// The receiver was killed, so bytes may be missing at the end.
    Killed,
    /// The connection was reset, so bytes may be missing at the end.
    Reset,
}

impl Damage {
    /// Returns true if something is certainly wrong, and false if nobody can know.
    pub fn is_certain(&self) -> bool {
        !matches!(self, Damage::Killed | Damage::Reset)
    }

    /// Returns the token used in the log and in metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Damage::Lost(_) => "lost",
            Damage::Unsynced(_) => "unsynced",
            Damage::Truncated(_) => "truncated",
            Damage::Malformed(_) => "malformed",
            Damage::Finding(finding) => finding.kind.as_str(),
            Damage::MoreFindings(_) => "more",
            Damage::LimitReached => "limit",
            Damage::IoError => "io_error",
            Damage::Killed => "killed",
            Damage::Reset => "reset",
        }
    }

    /// Returns true if the capture is damaged, rather than what lea did with it.
    pub fn is_of_capture(&self) -> bool {
        matches!(
            self,
            Damage::Truncated(_) | Damage::Malformed(_) | Damage::Finding(_) | Damage::MoreFindings(_)
        )
    }

    /// Counts the damage of a stream that has just ended. The other kinds have metrics of their own.
    pub(super) fn count(&self, metrics: &Metrics) {
        match self {
            Damage::Truncated(_) => metrics.streams_damaged_truncated.inc(),
            Damage::Malformed(_) => metrics.streams_damaged_malformed.inc(),
            Damage::Finding(_) => metrics.streams_damaged_other.inc(),
            _ => {}
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Lost(bytes) => write!(f, "{bytes} received bytes were not written"),
            Damage::Unsynced(bytes) => write!(f, "the last {bytes} bytes may not be on the disk"),
            Damage::Truncated(bytes) => write!(f, "truncated within a packet, {bytes} bytes of it"),
            Damage::Malformed(at) => write!(f, "malformed at byte {at}"),
            Damage::Finding(Finding { kind, offset, detail, .. }) => {
                write!(f, "{} at byte {offset}: {detail}", kind.as_str())
            }
            Damage::MoreFindings(count) => write!(f, "{count} more findings"),
            Damage::LimitReached => f.write_str("the size limit was reached"),
            Damage::IoError => f.write_str("the file could not be written"),
            Damage::Killed => f.write_str("the receiver was killed"),
            Damage::Reset => f.write_str("the connection was reset, bytes may be missing"),
        }
    }
}

impl Manifest {
    /// Returns what is wrong with the stream. Little is known about a stream that is still open.
    pub fn damage(&self) -> Vec<Damage> {
        let mut found = Vec::new();
        found.extend((self.lost_bytes > 0).then_some(Damage::Lost(self.lost_bytes)));
        found.extend((self.unsynced_bytes > 0).then_some(Damage::Unsynced(self.unsynced_bytes)));
        if self.state != ManifestState::Open {
            let truncated_bytes = self.capture.truncated_bytes;
            // Fewer bytes than a magic number are no capture that could be cut.
            let is_capture = self.capture.format != CaptureFormat::Unknown;
            found.extend((is_capture && truncated_bytes > 0).then_some(Damage::Truncated(truncated_bytes)));
            found.extend(self.capture.malformed_at.map(Damage::Malformed));
            // The two above say the same, except of what is inside a compressed stream.
            let is_plain = self.capture.compression.is_none();
            let said = [DamageKind::Truncated, DamageKind::Malformed];
            let is_other = |finding: &&Finding| !(is_plain && said.contains(&finding.kind));
            let others = self.capture.damage.iter().filter(is_other);
            found.extend(others.cloned().map(Damage::Finding));
            let omitted = self.capture.damage_omitted;
            found.extend((omitted > 0).then_some(Damage::MoreFindings(omitted)));
        }
        found.extend((self.state == ManifestState::Recovered).then_some(Damage::Killed));
        found.extend(match self.end_reason {
            Some(EndReason::Reset) => Some(Damage::Reset),
            Some(EndReason::Limit) => Some(Damage::LimitReached),
            // Otherwise it is said what is missing.
            Some(EndReason::IoError) if self.lost_bytes == 0 && self.unsynced_bytes == 0 => {
                Some(Damage::IoError)
            }
            _ => None,
        });
        found
    }
}

/// Joins damages to one text. `None` if there are none.
pub fn join(damage: &[Damage]) -> Option<String> {
    (!damage.is_empty()).then(|| damage.iter().map(Damage::to_string).collect::<Vec<_>>().join(", "))
}
