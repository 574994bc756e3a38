//! Resume state: the packet position and the SHA-256 state of a stream, as a short text. Checkpoints and
//! manifests store it so that a stream can continue without reading its file again. Pure.
//!
//! A stored state is untrusted input. The version, the checksum, each field of the packet position, and the
//! byte counts of position and hash must all match. If one does not, the file is read instead.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use sha2::Sha256;
use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use thiserror::Error;

use super::scan::FileScan;
use crate::capture::tracker::PacketTracker;

/// Version of the format below, including the fields of [`PacketTracker`] and the layout of sha2's state.
const VERSION: u8 = 4;

/// Limit on the encoded length. The largest state, with the maximum number of interfaces, is shorter.
const TEXT_BYTES_MAX: usize = 32 << 10;

const CHECKSUM_BYTES: usize = 4;
const BLOCK_BYTES: u64 = 64;

/// Reason why a stored state is not used.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(super) enum ResumeError {
    /// The text is truncated, altered, or not a resume state.
    #[error("it is damaged")]
    Damaged,
    /// Another version of lea wrote it.
    #[error("it was written by another version of lea")]
    Version,
    /// It belongs to another number of bytes.
    #[error("it belongs to another file length")]
    Length,
    /// It has no hash although one is required.
    #[error("it has no hash")]
    NoHash,
}

/// Encodes the state of a scan as Base64. Empty for a compressed stream: its decompressor cannot be stored, so the file is
/// read again.
pub(super) fn encode(scan: &FileScan) -> String {
    let mut bytes = vec![VERSION];
    if let Some(hasher) = &scan.hasher {
        bytes.push(1);
        bytes.extend_from_slice(&hasher.serialize());
    } else {
        bytes.push(0);
    }
    let Ok(mut bytes) = postcard::to_extend(&scan.tracker, bytes) else { return String::new() };
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    STANDARD_NO_PAD.encode(bytes)
}

/// Decodes the state after `received` bytes. It must have a hash if `hash` is true.
pub(super) fn decode(text: &str, received: u64, hash: bool) -> Result<FileScan, ResumeError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(ResumeError::Damaged);
    }
    let bytes = STANDARD_NO_PAD.decode(text).map_err(|_| ResumeError::Damaged)?;
    let (bytes, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(ResumeError::Damaged)?;
    if crc32c::crc32c(bytes) != u32::from_le_bytes(*checksum) {
        return Err(ResumeError::Damaged);
    }
    let rest = match bytes.split_first() {
        Some((&VERSION, rest)) => rest,
        _ => return Err(ResumeError::Version),
    };
    let (hasher, rest) = decode_hasher(rest, received)?;
    let (tracker, rest) =
        postcard::take_from_bytes::<PacketTracker>(rest).map_err(|_| ResumeError::Damaged)?;
    if !rest.is_empty() || !tracker.is_consistent() {
        return Err(ResumeError::Damaged);
    }
    if tracker.received() != received {
        return Err(ResumeError::Length);
    }
    if hash && hasher.is_none() {
        return Err(ResumeError::NoHash);
    }
    Ok(FileScan { tracker, hasher: hasher.filter(|_| hash) })
}

/// Decodes the optional hash at the start of `bytes`. Also returns the remaining bytes.
fn decode_hasher(bytes: &[u8], received: u64) -> Result<(Option<Sha256>, &[u8]), ResumeError> {
    let (has, rest) = bytes.split_first().ok_or(ResumeError::Damaged)?;
    if *has == 0 {
        return Ok((None, rest));
    }
    let state_bytes = SerializedState::<Sha256>::default().len();
    let (state, rest) = rest.split_at_checked(state_bytes).ok_or(ResumeError::Damaged)?;
    // Layout of sha2: eight words, the number of complete blocks, the number of buffered bytes, the buffer.
    let (blocks, waiting) =
        (state[32..].first_chunk::<8>().ok_or(ResumeError::Damaged)?, u64::from(state[40]));
    let taken = u64::from_le_bytes(*blocks).checked_mul(BLOCK_BYTES).and_then(|all| all.checked_add(waiting));
    if taken != Some(received) {
        return Err(ResumeError::Length);
    }
    let state = SerializedState::<Sha256>::try_from(state).map_err(|_| ResumeError::Damaged)?;
    let hasher = Sha256::deserialize(&state).map_err(|_| ResumeError::Damaged)?;
    Ok((Some(hasher), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PCAP: &[u8] = include_bytes!("../../../testdata/pcap/rejected-call.pcap");
    const PCAPNG: &[u8] = include_bytes!("../../../testdata/pcap/three-calls.pcapng");
    const TEXT: &[u8] = b"no capture at all, and longer than a block of the hash has bytes in it";

    fn scan(content: &[u8], hash: bool) -> FileScan {
        let mut scan = FileScan::new(hash);
        scan.feed(content);
        scan
    }

    /// Encodes `bytes` with a valid checksum.
    fn sealed(bytes: &[u8]) -> String {
        STANDARD_NO_PAD.encode([bytes, &crc32c::crc32c(bytes).to_le_bytes()].concat())
    }

    fn unsealed(text: &str) -> Vec<u8> {
        let mut bytes = STANDARD_NO_PAD.decode(text).unwrap();
        bytes.truncate(bytes.len() - CHECKSUM_BYTES);
        bytes
    }

    #[test]
    fn a_stream_can_be_resumed_at_any_byte() {
        for content in [PCAP, &PCAPNG[..PCAPNG.len().min(3_000)], TEXT, b""] {
            let whole = scan(content, true);
            for cut in 0..=content.len() {
                let before = scan(&content[..cut], true);
                let mut on = decode(&encode(&before), cut as u64, true).unwrap();
                on.feed(&content[cut..]);
                assert_eq!(on.sha256(), whole.sha256(), "cut at {cut}");
                assert_eq!(on.tracker.summary(), whole.tracker.summary(), "cut at {cut}");
                assert_eq!(on.tracker.packet_boundary(), whole.tracker.packet_boundary(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn the_text_is_short() {
        assert!(encode(&scan(PCAP, true)).len() < 300, "{}", encode(&scan(PCAP, true)).len());
    }

    #[test]
    fn a_state_that_does_not_fit_is_rejected() {
        let stored = encode(&scan(TEXT, true));
        let length = TEXT.len() as u64;
        let refused = |text: &str, received, hash| decode(text, received, hash).map(drop).unwrap_err();
        for other in [0, length - 1, length + 1, length + BLOCK_BYTES, u64::MAX] {
            assert_eq!(refused(&stored, other, true), ResumeError::Length);
        }
        assert_eq!(refused(&encode(&scan(TEXT, false)), length, true), ResumeError::NoHash);
        assert!(decode(&encode(&scan(TEXT, false)), length, false).is_ok());
        assert!(decode(&stored, length, false).unwrap().hasher.is_none());
        let mut later = unsealed(&stored);
        later[0] = VERSION + 1;
        assert_eq!(refused(&sealed(&later), length, true), ResumeError::Version);
        let longer = [unsealed(&stored), vec![0]].concat();
        assert_eq!(refused(&sealed(&longer), length, true), ResumeError::Damaged);
        for text in ["", "AAAA", "no base64!", &"A".repeat(TEXT_BYTES_MAX + 1)] {
            assert!(decode(text, length, true).is_err(), "{text}");
        }
    }

    #[test]
    fn each_flipped_bit_and_each_truncation_is_detected() {
        let scan = scan(&PCAP[..1_000], true);
        let stored = STANDARD_NO_PAD.decode(encode(&scan)).unwrap();
        for at in 0..stored.len() {
            for bit in 0..8 {
                let mut damaged = stored.clone();
                damaged[at] ^= 1 << bit;
                assert!(
                    decode(&STANDARD_NO_PAD.encode(damaged), 1_000, true).is_err(),
                    "bit {bit} of byte {at}"
                );
            }
            assert!(decode(&STANDARD_NO_PAD.encode(&stored[..at]), 1_000, true).is_err(), "cut at {at}");
        }
    }

    /// An attacker who can compute checksums can forge any state. It must be rejected or accept bytes without
    /// a panic.
    #[test]
    fn a_forged_state_causes_no_panic() {
        let mut random = 7u64;
        let mut below = |below: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % below
        };
        let (mut refused, mut taken) = (0, 0);
        for round in 0..60_000 {
            let content = if round % 2 == 0 { PCAP } else { &PCAPNG[..3_000] };
            let cut = below(content.len());
            let mut bytes = unsealed(&encode(&scan(&content[..cut], false)));
            for _ in 0..=below(3) {
                let at = 2 + below(bytes.len() - 2);
                bytes[at] = [0, 1, 0x7f, 0x80, 0xff, below(256) as u8][below(6)];
            }
            match decode(&sealed(&bytes), cut as u64, false) {
                Err(_) => refused += 1,
                Ok(mut scan) => {
                    taken += 1;
                    scan.feed(&content[cut..]);
                    scan.feed(&[0xff; 300]);
                    assert!(scan.tracker.packet_boundary() <= scan.tracker.received());
                }
            }
        }
        assert!(refused > 1_000 && taken > 1_000, "{refused} rejected, {taken} accepted");
    }
}
