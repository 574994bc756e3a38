//! Reads a stored file once: its length, packets and hash, in a form that can go on.

use std::io::{self, Read};

use sha2::{Digest, Sha256};

use crate::cc::frame::capture::Follower;

/// What a stored file holds.
#[derive(Debug)]
pub struct Scan {
    /// The position after its last byte.
    pub follower: Follower,
    /// The hash of all its bytes.
    pub hasher: Option<Sha256>,
}

/// Reads `file` from where it stands to its end, through `buffer`; `progress` gets the bytes of each read.
pub fn scan(
    file: &mut impl Read,
    buffer: &mut [u8],
    hash: bool,
    mut progress: impl FnMut(u64),
) -> io::Result<Scan> {
    let mut scan = Scan { follower: Follower::new(), hasher: hash.then(Sha256::new) };
    loop {
        match file.read(buffer) {
            Ok(0) => return Ok(scan),
            Ok(n) => {
                scan.follower.feed(&buffer[..n]);
                if let Some(hasher) = &mut scan.hasher {
                    hasher.update(&buffer[..n]);
                }
                progress(n as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
