//! Table of formats: magic numbers, header lengths, parsers and decompressors. Pure.
//!
//! Everything that asks whether bytes are a capture, of which format, or how many bytes it takes to know, asks this
//! module. To add a format, put its parser into a file of this directory, and add a variant to [`CaptureFormat`] and to
//! [`Parser`], an arm to `with_parser`, and a row to [`STARTS`].
//!
//! Invariant: an answer other than "undecided" for some bytes holds for all longer bytes that start with them.

use serde::{Deserialize, Serialize};

use super::compressed::Compression;
use super::erf::{self, ErfParser};
use super::parser::PacketParser as _;
use super::pcap::{self, PcapMagic, PcapParser};
use super::pcapng::{self, PcapngParser};
use super::snoop::{self, SnoopParser};
use super::variants::PcapVariant;

/// Format of a stream. That of a compressed stream is the format of its decompressed content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CaptureFormat {
    /// Not enough bytes to decide.
    #[default]
    Unknown,
    Pcap,
    Pcapng,
    Snoop,
    Erf,
    /// Not a capture.
    Other,
}

impl CaptureFormat {
    /// Returns whether the format is recognized by a magic number.
    pub(super) fn has_magic(self) -> bool {
        self != CaptureFormat::Erf
    }
}

/// Parser of one capture format.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Parser {
    Pcap(PcapParser),
    Pcapng(PcapngParser),
    Snoop(SnoopParser),
    Erf(ErfParser),
}

/// Evaluates an expression with the parser, whatever its format. Static dispatch, because it runs for each packet.
macro_rules! with_parser {
    ($parser:expr, $inner:ident => $call:expr) => {
        match $parser {
            Parser::Pcap($inner) => $call,
            Parser::Pcapng($inner) => $call,
            Parser::Snoop($inner) => $call,
            Parser::Erf($inner) => $call,
        }
    };
}
pub(super) use with_parser;

/// What starts with a row's bytes.
#[derive(Clone, Copy)]
enum Content {
    /// Creates the parser from the first `decision_bytes` bytes. `None`: they are not of this format.
    Capture(fn(&[u8]) -> Option<Parser>),
    Compressed(Compression),
}

/// One way in which streams start. A format has a row for each of its magic numbers.
struct Start {
    content: Content,
    /// File name extension, with its dot.
    extension: &'static str,
    /// First bytes of the stream. Empty for a format without a magic number: it is recognized in content, but it does
    /// not end a stream's name.
    magic: &'static [u8],
    /// Reports whether the bytes so far may be of this format, beyond the magic number.
    may_start: fn(&[u8]) -> bool,
    /// Number of bytes after which `may_start` is worth a call.
    early_bytes: usize,
    /// Number of bytes that decide whether this is the format.
    decision_bytes: usize,
    /// Number of bytes that distinguish two streams of the format: the file header, or as many bytes.
    header_bytes: usize,
}

/// All formats. No magic number may be a prefix of another one.
const STARTS: [Start; 19] = [
    pcap(b"\xd4\xc3\xb2\xa1", |_| pcap_parser(PcapMagic::Microseconds, false)),
    pcap(b"\xa1\xb2\xc3\xd4", |_| pcap_parser(PcapMagic::Microseconds, true)),
    pcap(b"\x4d\x3c\xb2\xa1", |_| pcap_parser(PcapMagic::Nanoseconds, false)),
    pcap(b"\xa1\xb2\x3c\x4d", |_| pcap_parser(PcapMagic::Nanoseconds, true)),
    pcap(b"\x34\xcd\xb2\xa1", |_| pcap_parser(PcapMagic::Modified, false)),
    pcap(b"\xa1\xb2\xcd\x34", |_| pcap_parser(PcapMagic::Modified, true)),
    ixia(b"\xac\x01\x00\x1c", |_| pcap_parser(PcapMagic::IxiaHardware, false)),
    ixia(b"\x1c\x00\x01\xac", |_| pcap_parser(PcapMagic::IxiaHardware, true)),
    ixia(b"\xab\x01\x00\x1c", |_| pcap_parser(PcapMagic::IxiaSoftware, false)),
    ixia(b"\x1c\x00\x01\xab", |_| pcap_parser(PcapMagic::IxiaSoftware, true)),
    Start {
        content: Content::Capture(|start| PcapngParser::new(start).map(Parser::Pcapng)),
        extension: ".pcapng",
        // The block's type and length, and the byte-order magic.
        decision_bytes: 12,
        // Up to the section length.
        ..row(&pcapng::MAGIC, 24)
    },
    // The version, of which readers know 2 to 5, belongs to the magic number: a name may end in "snoop" and NUL padding.
    snoop(b"snoop\0\0\0\0\0\0\x02"),
    snoop(b"snoop\0\0\0\0\0\0\x03"),
    snoop(b"snoop\0\0\0\0\0\0\x04"),
    snoop(b"snoop\0\0\0\0\0\0\x05"),
    // Compressed streams start alike, so more bytes than the header distinguish them. The third byte is the method.
    compressed(Compression::Gzip, b"\x1f\x8b\x08"),
    compressed(Compression::Zstd, b"\x28\xb5\x2f\xfd"),
    compressed(Compression::Lz4, b"\x04\x22\x4d\x18"),
    // Last: it has no magic number.
    Start {
        content: Content::Capture(|_| Some(Parser::Erf(ErfParser::new()))),
        extension: ".erf",
        may_start: erf::may_start,
        early_bytes: erf::EARLY_BYTES,
        decision_bytes: erf::RECORD_HEADER_BYTES,
        ..row(b"", erf::RECORD_HEADER_BYTES)
    },
];

const fn row(magic: &'static [u8], header_bytes: usize) -> Start {
    Start {
        content: Content::Capture(|_| None),
        extension: "",
        magic,
        may_start: |_| true,
        early_bytes: magic.len(),
        decision_bytes: magic.len(),
        header_bytes,
    }
}

fn pcap_parser(magic: PcapMagic, big_endian: bool) -> Option<Parser> {
    Some(Parser::Pcap(PcapParser::new(magic, big_endian)))
}

const fn pcap(magic: &'static [u8; 4], parser: fn(&[u8]) -> Option<Parser>) -> Start {
    Start { content: Content::Capture(parser), extension: ".pcap", ..row(magic, pcap::FILE_HEADER_BYTES) }
}

const fn ixia(magic: &'static [u8; 4], parser: fn(&[u8]) -> Option<Parser>) -> Start {
    Start { header_bytes: pcap::IXIA_FILE_HEADER_BYTES, ..pcap(magic, parser) }
}

const fn snoop(magic: &'static [u8; 12]) -> Start {
    Start {
        content: Content::Capture(|_| Some(Parser::Snoop(SnoopParser::new()))),
        extension: ".snoop",
        ..row(magic, snoop::FILE_HEADER_BYTES)
    }
}

const fn compressed(compression: Compression, magic: &'static [u8]) -> Start {
    Start { content: Content::Compressed(compression), extension: compression.extension(), ..row(magic, 24) }
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
            Parser::Snoop(_) => CaptureFormat::Snoop,
            Parser::Erf(_) => CaptureFormat::Erf,
        }
    }

    /// Variant of the format. `None`: the usual one, or the format has none.
    pub(super) fn variant(&self) -> Option<PcapVariant> {
        match self {
            Parser::Pcap(parser) => Some(parser.variant()).filter(|variant| *variant != PcapVariant::Usual),
            Parser::Pcapng(_) | Parser::Snoop(_) | Parser::Erf(_) => None,
        }
    }

    /// Reports whether a packet can follow on a copy of the headers, because nothing in them depends on earlier packets.
    pub(super) fn can_be_cut(&self) -> bool {
        match self {
            Parser::Pcap(parser) => matches!(parser.variant(), PcapVariant::Usual | PcapVariant::Nanosecond),
            Parser::Pcapng(_) | Parser::Snoop(_) => true,
            // Without a magic number, the second file might not be recognised.
            Parser::Erf(_) => false,
        }
    }

    /// Returns false for a deserialized parser that no input leads to, as far as continuing could do harm.
    pub(super) fn is_consistent(&self) -> bool {
        with_parser!(self, parser => parser.is_consistent())
    }
}

impl Start {
    /// Reports whether the first `count` bytes of `content` agree with this row.
    fn agrees(&self, content: &[u8], count: usize) -> bool {
        let start = &content[..count.min(content.len())];
        let both = self.magic.len().min(start.len());
        self.magic[..both] == start[..both] && (self.may_start)(start)
    }

    fn has_magic(&self) -> bool {
        !self.magic.is_empty()
    }
}

/// Result of [`detect`].
pub(super) enum Detection {
    /// More bytes are needed: see [`decision_bytes`].
    Undecided,
    Capture(Parser),
    Compressed(Compression),
    NotCapture,
}

/// Reports whether content is compressed, as far as its first bytes tell.
pub(crate) fn is_compressed(start: &[u8]) -> bool {
    matches!(detect(start), Detection::Compressed(_))
}

/// Detects the format of content from its first bytes.
pub(super) fn detect(content: &[u8]) -> Detection {
    detect_with(content, |_| true).0
}

/// Detects the format of content, and finds its row, among the rows that `is_wanted` accepts.
fn detect_with(content: &[u8], is_wanted: fn(&Start) -> bool) -> (Detection, Option<&'static Start>) {
    static ROWS: [Start; STARTS.len()] = STARTS;
    for start in ROWS.iter().filter(|start| is_wanted(start) && start.agrees(content, content.len())) {
        if content.len() < start.decision_bytes {
            return (Detection::Undecided, Some(start));
        }
        match start.content {
            Content::Compressed(compression) => return (Detection::Compressed(compression), Some(start)),
            Content::Capture(parser) => {
                if let Some(parser) = parser(content) {
                    return (Detection::Capture(parser), Some(start));
                }
            }
        }
    }
    (Detection::NotCapture, None)
}

/// Number of bytes of content after which [`detect`] is worth the next call. It depends on the content, but not on
/// how many bytes have arrived since the last decision.
pub(super) fn decision_bytes(content: &[u8]) -> usize {
    let mut needed = 0;
    loop {
        let possible = STARTS.iter().filter(|start| start.agrees(content, needed));
        let steps = possible.flat_map(|start| [start.early_bytes, start.decision_bytes]);
        match steps.filter(|bytes| *bytes > needed).min() {
            Some(bytes) if content.len() >= bytes => {
                needed = bytes;
                if !matches!(detect(&content[..needed]), Detection::Undecided) {
                    return needed;
                }
            }
            Some(bytes) => return bytes,
            None => return needed,
        }
    }
}

/// Reports whether content that starts with these bytes is a capture, compressed or not. `None`: not enough bytes to
/// decide. Formats without a magic number do not count, because a piece of anything may look like them.
pub fn starts_capture(content: &[u8]) -> Option<bool> {
    // Called for each Kafka record, nearly all of which are in the middle of a stream.
    if content.first().is_some_and(|byte| !can_start_magic(*byte)) {
        return Some(false);
    }
    match detect_with(content, Start::has_magic).0 {
        Detection::Undecided => None,
        Detection::Capture(_) | Detection::Compressed(_) => Some(true),
        Detection::NotCapture => Some(false),
    }
}

/// Reports whether content that starts with these bytes is a capture that is not compressed.
pub(crate) fn starts_plain_capture(content: &[u8]) -> bool {
    matches!(detect_with(content, Start::has_magic).0, Detection::Capture(_))
}

/// Reports whether content that starts with these bytes starts a capture, given the first bytes of the capture that is
/// stored under its name. In a format without a magic number only those tell. `None`: not enough bytes to decide.
pub(crate) fn starts_again(stored: &[u8], content: &[u8]) -> Option<bool> {
    let (Detection::Capture(_), Some(start)) = detect_with(stored, |_| true) else {
        return starts_capture(content);
    };
    let header = stored.get(..start.header_bytes).filter(|_| !start.has_magic());
    match (starts_capture(content), header) {
        (Some(false), Some(header)) if content.len() >= header.len() => Some(content.starts_with(header)),
        (Some(false), Some(header)) if header.starts_with(content) => None,
        (decided, _) => decided,
    }
}

/// Reports whether these are the first bytes of a capture. `false` if there are too few of them.
pub(super) fn starts_appended(content: &[u8]) -> bool {
    matches!(detect_with(content, Start::has_magic).0, Detection::Capture(_))
}

/// Reports whether content that ends after these bytes may be the beginning of a capture or a compressed stream.
pub(super) fn is_cut_magic(content: &[u8]) -> bool {
    matches!(detect_with(content, Start::has_magic).0, Detection::Undecided)
}

/// Reports whether `content` starts with the same complete file header as `known`: then it is the same capture, sent
/// again from its first byte.
pub(crate) fn is_same_capture(known: &[u8], content: &[u8]) -> bool {
    // Called for each Kafka record too.
    if known.first() != content.first() {
        return false;
    }
    let header = match detect_with(known, |_| true) {
        (Detection::Capture(_) | Detection::Compressed(_), Some(start)) => known.get(..start.header_bytes),
        _ => None,
    };
    header.is_some_and(|header| content.starts_with(header))
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
    let mut magics = STARTS.iter().filter(|start| start.has_magic() && start.agrees(bytes, bytes.len()));
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

/// Removes the extension of a capture from a file name, and that of its compression. `None` if it has none.
pub(crate) fn strip_extension(name: &str) -> Option<&str> {
    let strip = |name, is_wanted: fn(&Content) -> bool| {
        let mut rows = STARTS.iter().filter(move |start| is_wanted(&start.content));
        rows.find_map(|start| str::strip_suffix(name, start.extension))
    };
    let name = strip(name, |content| matches!(content, Content::Compressed(_))).unwrap_or(name);
    strip(name, |content| matches!(content, Content::Capture(_)))
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
    fn without_a_magic_number_the_stored_bytes_tell_whether_a_capture_starts_again() {
        let erf = b"\0\0\0\x80\x7d\x2d\x02\x6b\x02\x04\x00\x58\0\0\0\x46 and a packet";
        for (stored, content, expected) in [
            (&erf[..], &erf[..], Some(true)),
            (erf, &erf[..16], Some(true)),
            (erf, &erf[..15], None),
            (erf, b"\0\0\0\x81", Some(false)),
            (erf, b"\0\0\0\x80\x7d\x2d\x02\x6b\x02\x04\x00\x58\0\0\0\x47", Some(false)),
            (erf, PCAP, Some(true)),
            (PCAP, erf, Some(false)),
            (PCAP, PCAP, Some(true)),
            (b"text", b"text", Some(false)),
        ] {
            assert_eq!(starts_again(stored, content), expected, "{}", content.escape_ascii());
        }
    }

    #[test]
    fn lengths_are_those_of_the_longest_row() {
        assert_eq!((MAGIC_BYTES_MAX, DECISION_BYTES_MAX, HEADER_BYTES_MAX), (12, 16, 28));
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
        assert_eq!((decision_bytes(b""), decision_bytes(b"xxx"), decision_bytes(&PCAPNG[..4])), (3, 9, 9));
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
