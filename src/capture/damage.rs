//! What is wrong with a capture: findings that readers of the file will meet, for its manifest.

use serde::{Deserialize, Serialize};

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    pub kind: DamageKind,
    /// Offset of the unit that is damaged: a packet, a block, or the file header.
    pub offset: u64,
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
}

impl DamageKind {
    /// Returns the token used in manifests, tables, metrics and the log.
    pub fn as_str(self) -> &'static str {
        match self {
            DamageKind::Truncated => "truncated",
            DamageKind::Malformed => "malformed",
        }
    }
}
