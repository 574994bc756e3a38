//! Collects the headers of a capture while its bytes arrive: a second file that starts with them, and goes on with the
//! next packet, is a capture too. Pure.
//!
//! Of pcap and snoop this is the file header. Of pcapng it is the section header with the interfaces and the secrets of the
//! section so far, because packets name their interface by its number.

use super::formats::CaptureFormat;
use super::{pcap, pcapng, snoop};
use crate::limits::BLOCK_BYTES_MAX;

/// Limit on the headers. They are repeated in each file, and a capture with more of them has thousands of interfaces.
pub(crate) const HEADERS_BYTES_MAX: usize = 256 << 10;

/// Bytes of a block that tell how to go on: its type and length, and of a section header the byte order too.
const BLOCK_START_BYTES: usize = 8;
const SECTION_START_BYTES: usize = 12;

/// Headers of a capture, at any byte of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeaderCopy {
    kept: Vec<u8>,
    state: State,
}

#[derive(Clone, Debug, Default)]
enum State {
    /// The first bytes: a file header of fixed length, or the magic number of pcapng.
    #[default]
    Start,
    Blocks(Blocks),
    Failed(&'static str),
}

/// Position in pcapng.
#[derive(Clone, Debug, Default)]
struct Blocks {
    big_endian: bool,
    /// First bytes of the partial block.
    start: Vec<u8>,
    /// Bytes of the block after those.
    left: usize,
    is_kept: bool,
}

impl HeaderCopy {
    /// Processes the next bytes of the capture, any number of them.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match &mut self.state {
                State::Start => {
                    let is_pcapng = self.kept.starts_with(&pcapng::MAGIC);
                    let wanted = if is_pcapng { 0 } else { pcap::FILE_HEADER_BYTES };
                    // One byte at a time up to the magic number, which decides.
                    let wanted =
                        if self.kept.len() < pcapng::MAGIC.len() { pcapng::MAGIC.len() } else { wanted };
                    let added = take(&mut self.kept, wanted, &mut bytes);
                    if is_pcapng {
                        let start = std::mem::take(&mut self.kept);
                        self.state = State::Blocks(Blocks { start, ..Blocks::default() });
                    } else if added == 0 {
                        return;
                    }
                }
                State::Blocks(blocks) => {
                    if let Err(reason) = blocks.feed(&mut self.kept, &mut bytes) {
                        (self.kept, self.state) = (Vec::new(), State::Failed(reason));
                    }
                }
                State::Failed(_) => return,
            }
        }
    }

    /// Returns the headers, at the end of a packet. Fails with the reason why there are none.
    pub(crate) fn headers(&self, format: CaptureFormat) -> Result<&[u8], &'static str> {
        let bytes = match (format, &self.state) {
            (CaptureFormat::Pcap, State::Start) => pcap::FILE_HEADER_BYTES,
            (CaptureFormat::Snoop, State::Start) => snoop::FILE_HEADER_BYTES,
            (CaptureFormat::Pcapng, State::Blocks(blocks)) if blocks.is_between() => self.kept.len(),
            (_, State::Failed(reason)) => return Err(*reason),
            _ => return Err("format"),
        };
        self.kept.get(..bytes).ok_or("format")
    }
}

/// Moves bytes to the end of `kept` until it has `wanted` of them. Returns their number.
fn take(kept: &mut Vec<u8>, wanted: usize, bytes: &mut &[u8]) -> usize {
    let added = wanted.saturating_sub(kept.len()).min(bytes.len());
    kept.extend_from_slice(&bytes[..added]);
    *bytes = &bytes[added..];
    added
}

impl Blocks {
    fn is_between(&self) -> bool {
        self.start.is_empty() && self.left == 0
    }

    /// Processes bytes of one block.
    fn feed(&mut self, kept: &mut Vec<u8>, bytes: &mut &[u8]) -> Result<(), &'static str> {
        if self.left > 0 {
            let some = self.left.min(bytes.len());
            if self.is_kept {
                kept.extend_from_slice(&bytes[..some]);
            }
            self.left -= some;
            *bytes = &bytes[some..];
            return Ok(());
        }
        take(&mut self.start, BLOCK_START_BYTES, bytes);
        let is_section = self.start.starts_with(&pcapng::MAGIC);
        if is_section {
            take(&mut self.start, SECTION_START_BYTES, bytes);
        }
        let wanted = if is_section { SECTION_START_BYTES } else { BLOCK_START_BYTES };
        if self.start.len() < wanted { Ok(()) } else { self.start_block(kept, is_section) }
    }

    fn start_block(&mut self, kept: &mut Vec<u8>, is_section: bool) -> Result<(), &'static str> {
        let start = std::mem::take(&mut self.start);
        if is_section {
            self.big_endian = pcapng::is_big_endian(&start).ok_or("malformed")?;
            kept.clear();
        }
        let word = |at: usize| {
            let bytes = [start[at], start[at + 1], start[at + 2], start[at + 3]];
            if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
        };
        let (block_type, total) = (word(0), word(4));
        if total > BLOCK_BYTES_MAX {
            return Err("malformed");
        }
        // Readers round the length up.
        let total = total.next_multiple_of(4) as usize;
        self.left = total.checked_sub(start.len()).ok_or("malformed")?;
        self.is_kept = is_section || matches!(block_type, pcapng::INTERFACE | pcapng::SECRETS);
        if self.is_kept {
            if kept.len() + total > HEADERS_BYTES_MAX {
                return Err("headers_too_long");
            }
            kept.extend_from_slice(&start);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(block_type: u32, body: &[u8], big_endian: bool) -> Vec<u8> {
        let word = |value: u32| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
        let total = word(body.len() as u32 + 12);
        [&word(block_type), &total[..], body, &total].concat()
    }

    fn section(big_endian: bool) -> Vec<u8> {
        let magic = if big_endian { [0x1a, 0x2b, 0x3c, 0x4d] } else { [0x4d, 0x3c, 0x2b, 0x1a] };
        block(0x0a0d_0d0a, &[&magic[..], &[0, 1, 0, 0], &[0xff; 8]].concat(), big_endian)
    }

    fn interface(big_endian: bool, number: u8) -> Vec<u8> {
        block(1, &[0, 1, 0, 0, 0, 0, 0, number], big_endian)
    }

    #[track_caller]
    fn check(format: CaptureFormat, content: &[u8], expected: Result<&[u8], &'static str>) {
        for step in [1, 3, 8, 20, content.len().max(1)] {
            let mut copy = HeaderCopy::default();
            content.chunks(step).for_each(|chunk| copy.feed(chunk));
            assert_eq!(copy.headers(format), expected, "step {step}");
        }
    }

    #[test]
    fn a_file_header_is_kept() {
        let pcap = include_bytes!("../../testdata/pcap/rejected-call.pcap");
        check(CaptureFormat::Pcap, pcap, Ok(&pcap[..24]));
        check(CaptureFormat::Pcap, &pcap[..23], Err("format"));
        check(CaptureFormat::Other, pcap, Err("format"));
        let snoop = [b"snoop\0\0\0\0\0\0\x02\0\0\0\x04", &[7; 60][..]].concat();
        check(CaptureFormat::Snoop, &snoop, Ok(&snoop[..16]));
    }

    #[test]
    fn section_interfaces_and_secrets_are_kept() {
        for big in [false, true] {
            let (packet, secrets) = (block(6, &[5; 40], big), block(10, &[9; 16], big));
            let content =
                [section(big), interface(big, 1), packet.clone(), interface(big, 2), secrets.clone(), packet];
            let headers = [section(big), interface(big, 1), interface(big, 2), secrets].concat();
            check(CaptureFormat::Pcapng, &content.concat(), Ok(&headers));
            check(CaptureFormat::Pcapng, &content.concat()[..content.concat().len() - 1], Err("format"));
            // Another section, with the other byte order, has its own interfaces.
            let second = [section(!big), interface(!big, 3)].concat();
            check(CaptureFormat::Pcapng, &[content.concat(), second.clone()].concat(), Ok(&second));
        }
    }

    #[test]
    fn headers_have_a_limit() {
        let (section, interface) = (section(false), interface(false, 1));
        let room = HEADERS_BYTES_MAX - section.len() - interface.len();
        let secrets = |bytes: usize| block(10, &vec![1; bytes - 12], false);
        let fits = [section.clone(), interface.clone(), secrets(room)].concat();
        check(CaptureFormat::Pcapng, &fits, Ok(&fits));
        let too_long = [section.clone(), interface.clone(), secrets(room + 4)].concat();
        check(CaptureFormat::Pcapng, &too_long, Err("headers_too_long"));
        let short = [&section[..], &[6, 0, 0, 0, 4, 0, 0, 0, 0]].concat();
        check(CaptureFormat::Pcapng, &short, Err("malformed"));
    }
}
