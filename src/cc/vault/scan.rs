//! Reads a stored file once, through the packet follower and SHA-256: for recovery, for `lea verify`, and to go on
//! with a stream where its file ends. Runs in the thread of whoever asks; reads only.

use std::io::{self, Read};

use sha2::{Digest, Sha256};

use super::midstate;
use crate::cc::frame::capture::Follower;
use crate::cc::frame::name::hex;

/// What a stored file contains, in a state that takes the stream's next bytes.
#[derive(Clone, Debug)]
pub struct Scan {
    /// At the end of the file.
    pub follower: Follower,
    /// Has all bytes of the file; none if hashing was not asked for.
    pub hasher: Option<Sha256>,
}

impl Scan {
    /// Of an empty file.
    pub fn new(hash: bool) -> Scan {
        Scan { follower: Follower::new(), hasher: hash.then(Sha256::new) }
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.follower.feed(bytes);
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
    }

    /// The state in which `stored` left it, if that was after `received` bytes of `file`; else why not is logged.
    pub fn restore(stored: &str, file: &str, received: u64, hash: bool) -> Option<Scan> {
        midstate::read(stored, received, hash)
            .inspect_err(|unfit| {
                log::warn!("midstate_unfit file={file} reason=\"{unfit}\" note=\"the file is read\"")
            })
            .ok()
    }

    /// Bytes taken.
    pub fn bytes(&self) -> u64 {
        self.follower.received()
    }

    /// The SHA-256 of all bytes taken, in hexadecimal.
    pub fn sha256(&self) -> Option<String> {
        self.hasher.clone().map(|hasher| hex(&hasher.finalize()))
    }
}

/// Reads `file` from where it stands (its start, or the hash is of a part) to its end, `buffer` by `buffer`; leaves its position at the end. `progress` is told
/// the bytes of each read. A file that grows meanwhile is read to where it ends at the last read.
pub fn scan(
    file: &mut impl Read,
    buffer: &mut [u8],
    hash: bool,
    mut progress: impl FnMut(u64),
) -> io::Result<Scan> {
    let mut scan = Scan::new(hash);
    loop {
        match file.read(buffer) {
            Ok(0) => return Ok(scan),
            Ok(bytes) => {
                scan.feed(&buffer[..bytes]);
                progress(bytes as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;

    fn check_scan(content: &[u8], buffer_bytes: usize) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file.rewind().unwrap();
        let mut seen = 0;
        let scan = scan(&mut file, &mut vec![0; buffer_bytes], true, |bytes| seen += bytes).unwrap();
        let mut expected = Scan::new(true);
        expected.feed(content);
        assert_eq!((scan.bytes(), seen), (content.len() as u64, content.len() as u64));
        assert_eq!(scan.sha256(), Some(hex(&Sha256::digest(content))));
        assert_eq!(scan.follower.summary(), expected.follower.summary());
    }

    #[test]
    fn a_file_is_read_once_and_whole() {
        let capture = include_bytes!("../../../testdata/pcap/answered-call.pcap");
        for buffer_bytes in [1, 100, 4096, 1 << 20] {
            check_scan(capture, buffer_bytes);
            check_scan(b"", buffer_bytes);
        }
    }

    #[test]
    fn the_stream_goes_on_where_the_file_ends() {
        let capture = include_bytes!("../../../testdata/pcap/rejected-call.pcap");
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&capture[..1_000]).unwrap();
        file.rewind().unwrap();
        let mut stored = scan(&mut file, &mut [0; 64], true, |_| {}).unwrap();
        stored.feed(&capture[1_000..]);
        assert_eq!(stored.sha256(), Some(hex(&Sha256::digest(capture))));
        assert_eq!(stored.follower.packets(), 4);
        assert_eq!(scan(&mut file, &mut [0; 64], false, |_| {}).unwrap().sha256(), None);
    }
}
