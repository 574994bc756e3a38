//! Where a stream stands, as a short text: its packets and its hash after all bytes received. Checkpoints and
//! manifests hold it, so that the stream goes on without its file being read again. Pure.
//!
//! What is read back is checked like anything that comes from outside: version, checksum, each field of the packet
//! position, and that hash and position have taken exactly the bytes that the file has. Where something does not fit,
//! the file is read instead.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use sha2::Sha256;
use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use thiserror::Error;

use super::scan::Scan;
use crate::cc::frame::capture::Follower;

/// Of the layout below, of [`Follower`]'s fields and of sha2's state: whichever changes, this does.
const VERSION: u8 = 1;

/// The version, a packet position with as many interfaces as are remembered, a hash and the checksum have less.
const TEXT_BYTES_MAX: usize = 16 << 10;

const CHECKSUM_BYTES: usize = 4;
const BLOCK_BYTES: u64 = 64;

/// Why a stored state is not used.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Unfit {
    /// It is cut, or changed, or never was one.
    #[error("it is damaged")]
    Damaged,
    /// Another version of the program wrote it.
    #[error("it is of another version")]
    Version,
    /// It belongs to another number of bytes.
    #[error("it is not of this length")]
    Length,
    /// It has no hash, and one is asked for.
    #[error("it has no hash")]
    NoHash,
}

/// A scan's state as text.
pub fn text(scan: &Scan) -> String {
    let mut bytes = vec![VERSION];
    if let Some(hasher) = &scan.hasher {
        bytes.push(1);
        bytes.extend_from_slice(&hasher.serialize());
    } else {
        bytes.push(0);
    }
    // It can fail only for what has no known length, and then there is no state.
    let Ok(mut bytes) = postcard::to_extend(&scan.follower, bytes) else { return String::new() };
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    STANDARD_NO_PAD.encode(bytes)
}

/// The state after `received` bytes, hashed if `hash` asks for it.
pub fn read(text: &str, received: u64, hash: bool) -> Result<Scan, Unfit> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Unfit::Damaged);
    }
    let bytes = STANDARD_NO_PAD.decode(text).map_err(|_| Unfit::Damaged)?;
    let (bytes, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(Unfit::Damaged)?;
    if crc32c::crc32c(bytes) != u32::from_le_bytes(*checksum) {
        return Err(Unfit::Damaged);
    }
    let rest = match bytes.split_first() {
        Some((&VERSION, rest)) => rest,
        _ => return Err(Unfit::Version),
    };
    let (hasher, rest) = hasher(rest, received)?;
    let (follower, rest) = postcard::take_from_bytes::<Follower>(rest).map_err(|_| Unfit::Damaged)?;
    if !rest.is_empty() || !follower.is_sound() {
        return Err(Unfit::Damaged);
    }
    if follower.received() != received {
        return Err(Unfit::Length);
    }
    if hash && hasher.is_none() {
        return Err(Unfit::NoHash);
    }
    Ok(Scan { follower, hasher: hasher.filter(|_| hash) })
}

/// The hash at the start of `bytes`, if there is one, and what follows it.
fn hasher(bytes: &[u8], received: u64) -> Result<(Option<Sha256>, &[u8]), Unfit> {
    let (has, rest) = bytes.split_first().ok_or(Unfit::Damaged)?;
    if *has == 0 {
        return Ok((None, rest));
    }
    let state_bytes = SerializedState::<Sha256>::default().len();
    let (state, rest) = rest.split_at_checked(state_bytes).ok_or(Unfit::Damaged)?;
    // sha2's layout: the eight words, the number of whole blocks, the number of bytes that wait, those bytes.
    let (blocks, waiting) = (state[32..].first_chunk::<8>().ok_or(Unfit::Damaged)?, u64::from(state[40]));
    let taken = u64::from_le_bytes(*blocks).checked_mul(BLOCK_BYTES).and_then(|all| all.checked_add(waiting));
    if taken != Some(received) {
        return Err(Unfit::Length);
    }
    let state = SerializedState::<Sha256>::try_from(state).map_err(|_| Unfit::Damaged)?;
    let hasher = Sha256::deserialize(&state).map_err(|_| Unfit::Damaged)?;
    Ok((Some(hasher), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PCAP: &[u8] = include_bytes!("../../../testdata/pcap/rejected-call.pcap");
    const PCAPNG: &[u8] = include_bytes!("../../../testdata/pcap/three-calls.pcapng");
    const TEXT: &[u8] = b"no capture at all, and longer than a block of the hash has bytes in it";

    fn scan(content: &[u8], hash: bool) -> Scan {
        let mut scan = Scan::new(hash);
        scan.feed(content);
        scan
    }

    /// The text of `bytes` with a checksum that is right.
    fn sealed(bytes: &[u8]) -> String {
        STANDARD_NO_PAD.encode([bytes, &crc32c::crc32c(bytes).to_le_bytes()].concat())
    }

    fn unsealed(text: &str) -> Vec<u8> {
        let mut bytes = STANDARD_NO_PAD.decode(text).unwrap();
        bytes.truncate(bytes.len() - CHECKSUM_BYTES);
        bytes
    }

    #[test]
    fn a_stream_goes_on_from_any_byte() {
        for content in [PCAP, &PCAPNG[..PCAPNG.len().min(3_000)], TEXT, b""] {
            let whole = scan(content, true);
            for cut in 0..=content.len() {
                let before = scan(&content[..cut], true);
                let mut on = read(&text(&before), cut as u64, true).unwrap();
                on.feed(&content[cut..]);
                assert_eq!(on.sha256(), whole.sha256(), "cut at {cut}");
                assert_eq!(on.follower.summary(), whole.follower.summary(), "cut at {cut}");
                assert_eq!(on.follower.boundary(), whole.follower.boundary(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn it_is_short() {
        assert!(text(&scan(PCAP, true)).len() < 300, "{}", text(&scan(PCAP, true)).len());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let stored = text(&scan(TEXT, true));
        let length = TEXT.len() as u64;
        let refused = |text: &str, received, hash| read(text, received, hash).map(drop).unwrap_err();
        for other in [0, length - 1, length + 1, length + BLOCK_BYTES, u64::MAX] {
            assert_eq!(refused(&stored, other, true), Unfit::Length);
        }
        assert_eq!(refused(&text(&scan(TEXT, false)), length, true), Unfit::NoHash);
        assert!(read(&text(&scan(TEXT, false)), length, false).is_ok());
        assert!(read(&stored, length, false).unwrap().hasher.is_none());
        let mut later = unsealed(&stored);
        later[0] = VERSION + 1;
        assert_eq!(refused(&sealed(&later), length, true), Unfit::Version);
        let longer = [unsealed(&stored), vec![0]].concat();
        assert_eq!(refused(&sealed(&longer), length, true), Unfit::Damaged);
        for text in ["", "AAAA", "no base64!", &"A".repeat(TEXT_BYTES_MAX + 1)] {
            assert!(read(text, length, true).is_err(), "{text}");
        }
    }

    #[test]
    fn each_damaged_bit_and_each_cut_is_noticed() {
        let scan = scan(&PCAP[..1_000], true);
        let stored = STANDARD_NO_PAD.decode(text(&scan)).unwrap();
        for at in 0..stored.len() {
            for bit in 0..8 {
                let mut damaged = stored.clone();
                damaged[at] ^= 1 << bit;
                assert!(
                    read(&STANDARD_NO_PAD.encode(damaged), 1_000, true).is_err(),
                    "bit {bit} of byte {at}"
                );
            }
            assert!(read(&STANDARD_NO_PAD.encode(&stored[..at]), 1_000, true).is_err(), "cut at {at}");
        }
    }

    /// Whoever can write checksums can write any state: it is refused, or it takes bytes without harm.
    #[test]
    fn no_forged_state_does_harm() {
        let mut random = 7u64;
        let mut below = |below: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % below
        };
        let (mut refused, mut taken) = (0, 0);
        for round in 0..60_000 {
            let content = if round % 2 == 0 { PCAP } else { &PCAPNG[..3_000] };
            let cut = below(content.len());
            let mut bytes = unsealed(&text(&scan(&content[..cut], false)));
            for _ in 0..=below(3) {
                let at = 2 + below(bytes.len() - 2);
                bytes[at] = [0, 1, 0x7f, 0x80, 0xff, below(256) as u8][below(6)];
            }
            match read(&sealed(&bytes), cut as u64, false) {
                Err(_) => refused += 1,
                Ok(mut scan) => {
                    taken += 1;
                    scan.feed(&content[cut..]);
                    scan.feed(&[0xff; 300]);
                    assert!(scan.follower.boundary() <= scan.follower.received());
                }
            }
        }
        assert!(refused > 1_000 && taken > 1_000, "{refused} refused, {taken} taken");
    }
}
