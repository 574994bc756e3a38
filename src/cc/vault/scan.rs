//! Reads a stored file once through the packet tracker and SHA-256: for the recovery, for `lea verify`, and
//! to continue a stream at the end of its file. Runs in the caller's thread. Read-only.

use std::io::{self, Read};

use sha2::{Digest, Sha256};

use super::resume_state;
use crate::capture::tracker::PacketTracker;
use crate::runtime::hex;

/// Contents of a stored file, in a state that can accept the next bytes of the stream.
#[derive(Clone, Debug)]
pub struct FileScan {
    /// Packet position at the end of the file.
    pub tracker: PacketTracker,
    /// Hash of all bytes. `None` without hashing.
    pub hasher: Option<Sha256>,
}

impl FileScan {
    /// Creates the state of an empty file.
    pub fn new(hash: bool) -> FileScan {
        FileScan { tracker: PacketTracker::new(), hasher: hash.then(Sha256::new) }
    }

    pub fn feed(&mut self, bytes: &[u8]) {
        self.tracker.feed(bytes);
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
    }

    /// Decodes a stored state after `received` bytes of `file`. Logs the reason and returns `None` if it does
    /// not fit. An empty state is that of a compressed stream, which has none.
    pub fn restore(stored: &str, file: &str, received: u64, hash: bool) -> Option<FileScan> {
        if stored.is_empty() {
            return None;
        }
        resume_state::decode(stored, received, hash)
            .inspect_err(|unfit| {
                log::warn!(
                    "resume_state_rejected file={file} reason=\"{unfit}\" note=\"reading the file instead\""
                )
            })
            .ok()
    }

    /// Returns the number of bytes processed.
    pub fn bytes(&self) -> u64 {
        self.tracker.received()
    }

    /// Returns the SHA-256 of all bytes in hexadecimal.
    pub fn sha256(&self) -> Option<String> {
        self.hasher.clone().map(|hasher| hex::encode(&hasher.finalize()))
    }
}

/// Reads `file` from its current position to its end, one `buffer` at a time. Calls `progress` with the bytes
/// of each read. Bytes that another process appends after the last read are not included.
pub fn scan(
    file: &mut impl Read,
    buffer: &mut [u8],
    hash: bool,
    mut progress: impl FnMut(u64),
) -> io::Result<FileScan> {
    let mut scan = FileScan::new(hash);
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
        let mut expected = FileScan::new(true);
        expected.feed(content);
        assert_eq!((scan.bytes(), seen), (content.len() as u64, content.len() as u64));
        assert_eq!(scan.sha256(), Some(hex::encode(&Sha256::digest(content))));
        assert_eq!(scan.tracker.summary(), expected.tracker.summary());
    }

    #[test]
    fn a_file_is_read_once_and_completely() {
        let capture = include_bytes!("../../../testdata/pcap/answered-call.pcap");
        for buffer_bytes in [1, 100, 4096, 1 << 20] {
            check_scan(capture, buffer_bytes);
            check_scan(b"", buffer_bytes);
        }
    }

    #[test]
    fn a_stream_continues_at_the_end_of_the_file() {
        let capture = include_bytes!("../../../testdata/pcap/rejected-call.pcap");
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&capture[..1_000]).unwrap();
        file.rewind().unwrap();
        let mut stored = scan(&mut file, &mut [0; 64], true, |_| {}).unwrap();
        stored.feed(&capture[1_000..]);
        assert_eq!(stored.sha256(), Some(hex::encode(&Sha256::digest(capture))));
        assert_eq!(stored.tracker.packets(), 4);
        assert_eq!(scan(&mut file, &mut [0; 64], false, |_| {}).unwrap().sha256(), None);
    }
}
