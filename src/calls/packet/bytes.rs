//! Checked reads of big-endian numbers. Bytes that are not there are [`OtherReason::Truncated`].

use super::OtherReason;

pub(super) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], OtherReason> {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().ok_or(OtherReason::Truncated)
}

pub(super) fn u8_at(bytes: &[u8], at: usize) -> Result<u8, OtherReason> {
    bytes.get(at).copied().ok_or(OtherReason::Truncated)
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Result<u16, OtherReason> {
    array_at(bytes, at).map(u16::from_be_bytes)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Result<u32, OtherReason> {
    array_at(bytes, at).map(u32::from_be_bytes)
}

/// Returns the bytes after a header of `header_bytes`.
pub(super) fn after(bytes: &[u8], header_bytes: usize) -> Result<&[u8], OtherReason> {
    bytes.get(header_bytes..).ok_or(OtherReason::Truncated)
}

/// Returns at most the first `bytes_max` bytes.
pub(super) fn at_most(bytes: &[u8], bytes_max: usize) -> &[u8] {
    bytes.get(..bytes_max).unwrap_or(bytes)
}
