//! Table of capture formats: magic numbers, header lengths and parsers. Pure.
//!
//! Everything that asks whether bytes are a capture, of which format, or how many bytes it takes to know, asks this
//! module. To add a format, put its parser into a file of this directory, and add a variant to [`CaptureFormat`] and to
//! [`Parser`], an arm to `with_parser`, and a row to [`STARTS`].
//!
//! Invariant: an answer other than "undecided" for some bytes holds for all longer bytes that start with them.

use serde::{Deserialize, Serialize};

use super::parser::PacketParser as _;
use super::pcap::{self, PcapParser, TimeUnit};
use super::pcapng::{self, PcapngParser};

/// Format of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CaptureFormat {
    /// Not enough bytes to decide.
    #[default]
    Unknown,
    Pcap,
    Pcapng,
    /// Not a capture.
    Other,
}

/// Parser of one capture format.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Parser {
    Pcap(PcapParser),
    Pcapng(PcapngParser),
}

/// Evaluates an expression with the parser, whatever its format. Static dispatch, because it runs for each packet.
macro_rules! with_parser {
    ($parser:expr, $inner:ident => $call:expr) => {
        match $parser {
            Parser::Pcap($inner) => $call,
            Parser::Pcapng($inner) => $call,
        }
    };
}
pub(super) use with_parser;

/// One way in which captures start. A format has a row for each of its magic numbers.
struct Start {
    format: CaptureFormat,
    /// File name extension, with its dot.
    extension: &'static str,
    /// First bytes of the capture. Empty for a format without a magic number: it is recognized in content, but it does
    /// not end a stream's name.
    magic: &'static [u8],
    /// Number of bytes that decide whether this is the format.
    decision_bytes: usize,
    /// Number of bytes that distinguish two captures of the format: the file header.
    header_bytes: usize,
    /// Creates the parser from the first `decision_bytes` bytes. `None`: they are not of this format.
    parser: fn(&[u8]) -> Option<Parser>,
}

/// All formats. No magic number may be a prefix of another one.
const STARTS: [Start; 5] = [
    pcap(&[0xd4, 0xc3, 0xb2, 0xa1], |_| Some(Parser::Pcap(PcapParser::new(false, TimeUnit::Microseconds)))),
    pcap(&[0xa1, 0xb2, 0xc3, 0xd4], |_| Some(Parser::Pcap(PcapParser::new(true, TimeUnit::Microseconds)))),
    pcap(&[0x4d, 0x3c, 0xb2, 0xa1], |_| Some(Parser::Pcap(PcapParser::new(false, TimeUnit::Nanoseconds)))),
    pcap(&[0xa1, 0xb2, 0x3c, 0x4d], |_| Some(Parser::Pcap(PcapParser::new(true, TimeUnit::Nanoseconds)))),
    Start {
        format: CaptureFormat::Pcapng,
        extension: ".pcapng",
        magic: &pcapng::MAGIC,
        // The block's type and length, and the byte-order magic.
        decision_bytes: 12,
        // Up to the section length.
        header_bytes: 24,
        parser: |start| PcapngParser::new(start).map(Parser::Pcapng),
    },
];

const fn pcap(magic: &'static [u8; 4], parser: fn(&[u8]) -> Option<Parser>) -> Start {
    Start {
        format: CaptureFormat::Pcap,
        extension: ".pcap",
        magic,
        decision_bytes: 4,
        header_bytes: pcap::FILE_HEADER_BYTES,
        parser,
    }
}

/// Largest number of bytes that decides whether a stream is a capture.
pub(crate) const DECISION_BYTES_MAX: usize = largest(Field::Decision);

/// Length of the longest file header.
pub(crate) const HEADER_BYTES_MAX: usize = largest(Field::Header);

/// Length of the longest magic number.
pub(crate) const MAGIC_BYTES_MAX: usize = largest(Field::Magic);

enum Field {
    Magic,
    Decision,
    Header,
}

const fn largest(field: Field) -> usize {
    let (mut max, mut row) = (0, 0);
    while row < STARTS.len() {
        let start = &STARTS[row];
        let bytes = match field {
            Field::Magic => start.magic.len(),
            Field::Decision => start.decision_bytes,
            Field::Header => start.header_bytes,
        };
        if bytes > max {
            max = bytes;
        }
        row += 1;
    }
    max
}

impl Parser {
    /// Format of the parser.
    pub(super) fn format(&self) -> CaptureFormat {
        match self {
            Parser::Pcap(_) => CaptureFormat::Pcap,
            Parser::Pcapng(_) => CaptureFormat::Pcapng,
        }
    }

    /// Link type of the first interface, once known.
    pub(super) fn link_type(&self) -> Option<u32> {
        with_parser!(self, parser => parser.link_type())
    }
}

impl Start {
    /// Reports whether the first `count` bytes of `content` agree with the magic number.
    fn agrees(&self, content: &[u8], count: usize) -> bool {
        let both = self.magic.len().min(count).min(content.len());
        self.magic[..both] == content[..both]
    }
}

/// Result of [`detect`].
pub(super) enum Detection {
    /// More bytes are needed: see [`decision_bytes`].
    Undecided,
    Capture(Parser),
    NotCapture,
}

/// Detects the format of content from its first bytes.
pub(super) fn detect(content: &[u8]) -> Detection {
    for start in STARTS.iter().filter(|start| start.agrees(content, content.len())) {
        if content.len() < start.decision_bytes {
            return Detection::Undecided;
        }
        if let Some(parser) = (start.parser)(content) {
            return Detection::Capture(parser);
        }
    }
    Detection::NotCapture
}

/// Number of bytes of content after which [`detect`] is worth the next call. It depends on the content, but not on
/// how many bytes have arrived since the last decision.
pub(super) fn decision_bytes(content: &[u8]) -> usize {
    let mut needed = 0;
    loop {
        let possible = STARTS.iter().filter(|start| start.agrees(content, needed));
        match possible.map(|start| start.decision_bytes).filter(|bytes| *bytes > needed).min() {
            Some(bytes) if content.len() >= bytes => needed = bytes,
            Some(bytes) => return bytes,
            None => return needed,
        }
    }
}

/// Reports whether content that starts with these bytes is a capture. `None`: not enough bytes to decide.
pub fn starts_capture(content: &[u8]) -> Option<bool> {
    match detect(content) {
        Detection::Undecided => None,
        Detection::Capture(_) => Some(true),
        Detection::NotCapture => Some(false),
    }
}

/// Reports whether `content` starts with the same complete file header as `known`: then it is the same capture, sent
/// again from its first byte.
pub(crate) fn is_same_capture(known: &[u8], content: &[u8]) -> bool {
    let Detection::Capture(parser) = detect(known) else { return false };
    let format = parser.format();
    let header_bytes = STARTS.iter().find(|start| start.format == format).map(|start| start.header_bytes);
    header_bytes.and_then(|bytes| known.get(..bytes)).is_some_and(|header| content.starts_with(header))
}

/// Result of [`match_magic`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MagicMatch {
    None,
    /// The bytes are the beginning of a magic number, and end before it does.
    Partial,
    Complete,
}

/// Looks for a magic number at the start of `bytes`.
pub(crate) fn match_magic(bytes: &[u8]) -> MagicMatch {
    let mut magics =
        STARTS.iter().filter(|start| !start.magic.is_empty() && start.agrees(bytes, bytes.len()));
    match magics.next() {
        None => MagicMatch::None,
        Some(start) if bytes.len() >= start.magic.len() => MagicMatch::Complete,
        Some(_) => MagicMatch::Partial,
    }
}

/// Reports whether some magic number starts with this byte: a quick check before [`match_magic`].
#[inline]
pub(crate) fn can_start_magic(byte: u8) -> bool {
    static IS_FIRST: [bool; 256] = first_magic_bytes();
    IS_FIRST[usize::from(byte)]
}

const fn first_magic_bytes() -> [bool; 256] {
    let (mut is_first, mut row) = ([false; 256], 0);
    while row < STARTS.len() {
        if let Some(byte) = STARTS[row].magic.first() {
            is_first[*byte as usize] = true;
        }
        row += 1;
    }
    is_first
}

/// Removes the extension of a capture from a file name. `None` if it has none.
pub(crate) fn strip_extension(name: &str) -> Option<&str> {
    STARTS.iter().find_map(|start| name.strip_suffix(start.extension))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PCAP: &[u8] = b"\xd4\xc3\xb2\xa1\x02\x00\x04\x00";
    const PCAPNG: &[u8] = b"\n\r\r\n\x1c\x00\x00\x00\x4d\x3c\x2b\x1a";

    #[test]
    fn captures_are_recognized_by_their_first_bytes() {
        let big_endian = b"\n\r\r\n\x00\x00\x00\x1c\x1a\x2b\x3c\x4d";
        let almost = b"\n\r\r\n\x1c\x00\x00\x00\x4d\x3c\x2b\x1b";
        for (content, expected) in [
            (PCAP, Some(true)),
            (&PCAP[..4], Some(true)),
            (&PCAP[..3], None),
            (b"", None),
            (b"\n\r\r\n", None),
            (&PCAPNG[..11], None),
            (PCAPNG, Some(true)),
            (big_endian, Some(true)),
            (almost, Some(false)),
            (b"text", Some(false)),
            (b"\xd4x", Some(false)),
        ] {
            assert_eq!(starts_capture(content), expected, "{}", content.escape_ascii());
        }
    }

    #[test]
    fn lengths_are_those_of_the_longest_row() {
        assert_eq!((MAGIC_BYTES_MAX, DECISION_BYTES_MAX, HEADER_BYTES_MAX), (4, 12, 24));
    }

    #[test]
    fn decisions_are_made_at_the_same_byte_for_all_splits() {
        for content in [PCAP, PCAPNG, b"\n\r\r\n, but not pcapng", b"some text"] {
            let decided =
                (0..=content.len()).find(|end| !matches!(detect(&content[..*end]), Detection::Undecided));
            for end in 0..content.len() {
                let needed = decision_bytes(&content[..end]);
                assert!(needed > end || decided.is_some_and(|at| at <= end), "{}", content.escape_ascii());
            }
        }
        assert_eq!((decision_bytes(b""), decision_bytes(b"x"), decision_bytes(&PCAPNG[..4])), (4, 4, 12));
    }

    #[test]
    fn a_capture_is_the_same_if_its_header_is() {
        let capture = [PCAP, &[7; 30]].concat();
        let other = [PCAP, &[8; 30]].concat();
        assert!(is_same_capture(&capture[..24], &capture));
        assert!(is_same_capture(&capture, &capture[..24]));
        assert!(!is_same_capture(&capture[..24], &other));
        assert!(!is_same_capture(&capture[..23], &capture), "the header is incomplete");
        assert!(!is_same_capture(&capture, &capture[..23]), "the header is incomplete");
        assert!(!is_same_capture(b"text that is long enough", b"text that is long enough"));
    }
}
