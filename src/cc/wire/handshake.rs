//! Finds the end of a stream's name in the first bytes of a TCP stream (docs/protocol.md, section 2). Pure:
//! the result depends only on the bytes so far and on what happened since.
//!
//! Invariants: the result does not depend on how the bytes were split into segments. Once some bytes give a
//! result other than `Incomplete`, every longer input that starts with them gives the same result.

use crate::capture::formats::{self, MagicMatch};
use crate::limits::NAME_BYTES_MAX;

/// The number of bytes that always decides: the longest name, `\r\n`, and the bytes that tell whether that `\n`
/// starts a magic number.
pub const HANDSHAKE_BYTES_MAX: usize = NAME_BYTES_MAX + 2 + formats::MAGIC_BYTES_MAX - 1;

/// Reason why the receiver tries again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// More bytes have arrived.
    BytesReceived,
    /// The sender was silent for `--name-timeout`.
    Silence,
    /// The peer has closed, or lea is shutting down.
    Closed,
}

/// Result of parsing the bytes received so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameParse {
    /// Undecided: try again with more bytes, after a silence, or at the end.
    Incomplete,
    /// The name is `received[..name_bytes]`. Content starts at `received[content_at..]`.
    Name {
        name_bytes: usize,
        /// Start of the content: after the newline if one ended the name.
        content_at: usize,
    },
    /// More than 4,096 bytes without the end of a name.
    TooLong,
    /// The stream ended before its first byte.
    Empty,
}

/// Parses the bytes received so far. More than [`HANDSHAKE_BYTES_MAX`] are never needed.
pub fn parse_name(received: &[u8], event: Trigger) -> NameParse {
    for at in 0..received.len().min(NAME_BYTES_MAX + 1) {
        match classify(&received[at..]) {
            BytePosition::NameByte => {}
            BytePosition::Magic => return NameParse::Name { name_bytes: at, content_at: at },
            BytePosition::Newline { bytes, certain } if certain || event != Trigger::BytesReceived => {
                return NameParse::Name { name_bytes: at, content_at: at + bytes };
            }
            // The ambiguous sequence extends to the last byte, so nothing after it can be decided yet.
            BytePosition::Newline { .. } | BytePosition::Ambiguous if event == Trigger::BytesReceived => {
                return NameParse::Incomplete;
            }
            BytePosition::Newline { .. } | BytePosition::Ambiguous => {}
        }
    }
    match (received.len(), event) {
        (bytes, _) if bytes > NAME_BYTES_MAX => NameParse::TooLong,
        (_, Trigger::BytesReceived) | (0, Trigger::Silence) => NameParse::Incomplete,
        (0, Trigger::Closed) => NameParse::Empty,
        (bytes, Trigger::Silence | Trigger::Closed) => {
            NameParse::Name { name_bytes: bytes, content_at: bytes }
        }
    }
}

/// Meaning of one byte position.
enum BytePosition {
    NameByte,
    /// The first byte of the content.
    Magic,
    /// A newline. If not `certain`, the next bytes may turn its `\n` into the first byte of content.
    Newline {
        bytes: usize,
        certain: bool,
    },
    /// Start of a sequence that may become a magic or a newline.
    Ambiguous,
}

// Every new segment of a slow sender is parsed from its first byte again, so this must be cheap.
#[inline]
fn classify(rest: &[u8]) -> BytePosition {
    match rest {
        [b'\n', ..] => match formats::match_magic(rest) {
            MagicMatch::Complete => BytePosition::Magic,
            undecided => BytePosition::Newline { bytes: 1, certain: undecided == MagicMatch::None },
        },
        [b'\r'] => BytePosition::Ambiguous,
        [b'\r', after @ ..] => match classify(after) {
            BytePosition::Newline { bytes: 1, certain } => BytePosition::Newline { bytes: 2, certain },
            // `\r` before a pcapng magic is the last byte of the name: its `\n` belongs to the content.
            _ => BytePosition::NameByte,
        },
        [byte, ..] if !formats::can_start_magic(*byte) => BytePosition::NameByte,
        _ => match formats::match_magic(rest) {
            MagicMatch::Complete => BytePosition::Magic,
            MagicMatch::None => BytePosition::NameByte,
            MagicMatch::Partial => BytePosition::Ambiguous,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &[u8] = b"+447700900123-2-3_21_11_2026_20:59:41.pcap";
    const PCAP: &[u8] = b"\xd4\xc3\xb2\xa1\x02\x00\x04\x00";

    fn name(name_bytes: usize, content_at: usize) -> NameParse {
        NameParse::Name { name_bytes, content_at }
    }

    /// The result when the bytes arrive in these segments, followed by the trigger `last`.
    fn decide_segments(bytes: &[u8], ends: impl Iterator<Item = usize>, last: Trigger) -> NameParse {
        for end in ends {
            let verdict = parse_name(&bytes[..end], Trigger::BytesReceived);
            if verdict != NameParse::Incomplete {
                return verdict;
            }
        }
        parse_name(bytes, last)
    }

    fn check_decide(bytes: &[u8], last: Trigger, expected: NameParse) {
        let shown = bytes.escape_ascii().to_string();
        let all = decide_segments(bytes, [bytes.len()].into_iter(), last);
        assert_eq!(all, expected, "{shown} {last:?}");
        // For long names only splits near the end are interesting. Testing all splits would take too long.
        let from = bytes.len().saturating_sub(100);
        assert_eq!(decide_segments(bytes, from..=bytes.len(), last), expected, "{shown} byte by byte");
        for split in from..bytes.len() {
            let verdict = decide_segments(bytes, [split, bytes.len()].into_iter(), last);
            assert_eq!(verdict, expected, "{shown} split at {split}");
        }
    }

    #[test]
    fn the_earliest_end_of_a_name_wins() {
        let n = NAME.len();
        let with = |content: &[u8]| [NAME, content].concat();
        for last in [Trigger::BytesReceived, Trigger::Silence, Trigger::Closed] {
            let magics: [&[u8]; 14] = [
                b"\xd4\xc3\xb2\xa1",
                b"\xa1\xb2\xc3\xd4",
                b"\x4d\x3c\xb2\xa1",
                b"\xa1\xb2\x3c\x4d",
                b"\x34\xcd\xb2\xa1",
                b"\xa1\xb2\xcd\x34",
                b"\xac\x01\0\x1c",
                b"\x1c\0\x01\xac",
                b"\xab\x01\0\x1c",
                b"\x1c\0\x01\xab",
                b"snoop\0\0\0\0\0\0\x02",
                b"\x1f\x8b\x08",
                b"\x28\xb5\x2f\xfd",
                b"\x04\x22\x4d\x18",
            ];
            for magic in magics {
                check_decide(&with(magic), last, name(n, n));
            }
            // A name that ends like the beginning of a magic number, and NUL padding.
            check_decide(b"snoop\nx", last, name(5, 6));
            check_decide(b"snoop\0\0\0\0\0\0\0\nx", last, name(12, 13));
            check_decide(&with(b"\n\r\r\n\x1c\x00"), last, name(n, n));
            check_decide(&with(b"\n\n\r\r\n"), last, name(n, n + 1));
            check_decide(&with(b"\r\n\n\r\r\n"), last, name(n, n + 2));
            check_decide(&with(b"\r\n\r\r\n"), last, name(n + 1, n + 1));
            check_decide(&with(b"\r\r\n\xd4\xc3\xb2\xa1"), last, name(n + 1, n + 3));
            check_decide(&with(b"\n\xd4\xc3\xb2\xa1"), last, name(n, n + 1));
            check_decide(&with(b"\n\r\rx"), last, name(n, n + 1));
            check_decide(&with(b"\r\n\r\rx"), last, name(n, n + 2));
            check_decide(&with(b"\xd4\xc3\xb2\n."), last, name(n + 3, n + 4));
            check_decide(PCAP, last, name(0, 0));
            check_decide(b"\nabc", last, name(0, 1));
        }
    }

    #[test]
    fn silence_or_end_of_stream_decides_ambiguous_bytes() {
        let n = NAME.len();
        let with = |content: &[u8]| [NAME, content].concat();
        for last in [Trigger::Silence, Trigger::Closed] {
            check_decide(NAME, last, name(n, n));
            check_decide(&with(b"\n"), last, name(n, n + 1));
            check_decide(&with(b"\n\r"), last, name(n, n + 1));
            check_decide(&with(b"\n\r\r"), last, name(n, n + 1));
            check_decide(&with(b"\r\n"), last, name(n, n + 2));
            check_decide(&with(b"\r\n\r\r"), last, name(n, n + 2));
            check_decide(&with(b"\r"), last, name(n + 1, n + 1));
            check_decide(&with(b"\xd4\xc3\xb2"), last, name(n + 3, n + 3));
        }
        for open in [NAME, &with(b"\n"), &with(b"\r\n\r\r"), &with(b"\xd4\xc3\xb2"), b""] {
            check_decide(open, Trigger::BytesReceived, NameParse::Incomplete);
        }
        check_decide(b"", Trigger::Silence, NameParse::Incomplete);
        check_decide(b"", Trigger::Closed, NameParse::Empty);
    }

    #[test]
    fn names_of_4096_bytes_are_accepted_and_longer_ones_rejected() {
        let max = vec![b'a'; NAME_BYTES_MAX];
        let over = vec![b'a'; NAME_BYTES_MAX + 1];
        let with = |name: &[u8], content: &[u8]| [name, content].concat();
        check_decide(&max, Trigger::BytesReceived, NameParse::Incomplete);
        check_decide(&max, Trigger::Silence, name(4096, 4096));
        check_decide(&over, Trigger::BytesReceived, NameParse::TooLong);
        check_decide(&over, Trigger::Silence, NameParse::TooLong);
        check_decide(&with(&max, b"\nx"), Trigger::BytesReceived, name(4096, 4097));
        check_decide(&with(&max, b"\r\nx"), Trigger::BytesReceived, name(4096, 4098));
        check_decide(&with(&max, PCAP), Trigger::BytesReceived, name(4096, 4096));
        check_decide(&with(&max, b"\n\r\r\n"), Trigger::BytesReceived, name(4096, 4096));
        check_decide(&with(&max, b"\n"), Trigger::Silence, name(4096, 4097));
        check_decide(&with(&max, b"\xd4\xc3"), Trigger::BytesReceived, NameParse::Incomplete);
        check_decide(&with(&max, b"\xd4\xc3"), Trigger::Silence, NameParse::TooLong);
        check_decide(&with(&max, b"\xd4\xc3x"), Trigger::BytesReceived, NameParse::TooLong);
        check_decide(&with(&over, PCAP), Trigger::BytesReceived, NameParse::TooLong);
        check_decide(&with(&over, b"\n"), Trigger::Closed, NameParse::TooLong);
        // The next byte completes the name or makes it too long.
        let open = with(&max, b"\r\n\r\r");
        check_decide(&open, Trigger::BytesReceived, NameParse::Incomplete);
        check_decide(&with(&open, b"x"), Trigger::BytesReceived, name(4096, 4098));
        check_decide(&with(&open, b"\n"), Trigger::BytesReceived, NameParse::TooLong);
        // The longest input that is still undecided ends in all but the last byte of the longest magic number.
        let longest = with(&max, b"snoop\0\0\0\0\0\0");
        assert!(longest.len() < HANDSHAKE_BYTES_MAX);
        check_decide(&longest, Trigger::BytesReceived, NameParse::Incomplete);
        check_decide(&with(&longest, b"\x02"), Trigger::BytesReceived, name(4096, 4096));
        check_decide(&with(&longest, b"\x00"), Trigger::BytesReceived, NameParse::TooLong);
    }

    /// Direct transcription of the protocol's rules, for a complete input.
    fn reference(bytes: &[u8]) -> NameParse {
        let is_magic = |at: usize| {
            let magics: [&[u8]; 3] = [b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\xc3\xd4", b"\n\r\r\n"];
            magics.iter().any(|magic| bytes[at..].starts_with(magic))
        };
        for at in 0..bytes.len() {
            if is_magic(at) {
                return name(at, at);
            }
            if bytes[at] == b'\n' {
                return name(at, at + 1);
            }
            if bytes[at..].starts_with(b"\r\n") && !is_magic(at + 1) {
                return name(at, at + 2);
            }
        }
        if bytes.is_empty() { NameParse::Empty } else { name(bytes.len(), bytes.len()) }
    }

    fn all_strings(alphabet: &[u8], bytes_max: usize) -> Vec<Vec<u8>> {
        let mut all = vec![Vec::new()];
        let mut from = 0;
        for _ in 0..bytes_max {
            let to = all.len();
            for shorter in from..to {
                for byte in alphabet {
                    let mut longer = all[shorter].clone();
                    longer.push(*byte);
                    all.push(longer);
                }
            }
            from = to;
        }
        all
    }

    #[test]
    fn every_short_input_is_decided_as_early_as_possible() {
        let strings = all_strings(b"a\r\n\xd4\xc3\xb2\xa1", 4);
        for start in &strings {
            assert_eq!(parse_name(start, Trigger::Closed), reference(start), "{}", start.escape_ascii());
            // Decided before the end exactly if no continuation changes the result.
            let now = reference(start);
            let settled = strings.iter().all(|more| reference(&[&start[..], more].concat()) == now);
            let expected = if settled { now } else { NameParse::Incomplete };
            assert_eq!(parse_name(start, Trigger::BytesReceived), expected, "{}", start.escape_ascii());
        }
    }
}
