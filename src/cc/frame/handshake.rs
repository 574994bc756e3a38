//! Where a stream's name ends (protocol, section 2). Pure: a function of the bytes so far and of what happened.
//!
//! Invariant: the way the bytes were split into segments changes nothing. A verdict other than `More` given for
//! some bytes is the verdict for every longer input that starts with them.

use super::capture::{self, Magic};
use crate::limits::NAME_BYTES_MAX;

/// So many bytes decide every name: the last allowed `\r\n`, and the three bytes that tell whether its `\n`
/// starts a pcapng stream.
pub const DECIDE_BYTES_MAX: usize = NAME_BYTES_MAX + 5;

/// What made the receiver ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// More bytes came.
    Data,
    /// Nothing came for the name gap.
    Gap,
    /// The peer closed, or the receiver drains.
    End,
}

/// What the bytes so far are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Undecided: ask again with more bytes, or at a gap or the end.
    More,
    /// The name is `received[..name_bytes]`; content starts at `received[content_at..]`.
    Name {
        /// Length of the name.
        name_bytes: usize,
        /// Where content starts: after the newline, if one ended the name.
        content_at: usize,
    },
    /// More than 4,096 bytes and no end of a name.
    TooLong,
    /// The end, and not a byte came.
    Nothing,
}

/// Decides on all bytes received so far (never more than [`DECIDE_BYTES_MAX`] are needed).
pub fn decide(received: &[u8], event: Event) -> Verdict {
    for at in 0..received.len().min(NAME_BYTES_MAX + 1) {
        match look(&received[at..]) {
            Here::Data => {}
            Here::Magic => return Verdict::Name { name_bytes: at, content_at: at },
            Here::Newline { bytes, certain } if certain || event != Event::Data => {
                return Verdict::Name { name_bytes: at, content_at: at + bytes };
            }
            // What has begun here reaches to the last byte: nothing behind it can be decided before it is.
            Here::Newline { .. } | Here::Begun if event == Event::Data => return Verdict::More,
            Here::Newline { .. } | Here::Begun => {}
        }
    }
    match (received.len(), event) {
        (bytes, _) if bytes > NAME_BYTES_MAX => Verdict::TooLong,
        (_, Event::Data) | (0, Event::Gap) => Verdict::More,
        (0, Event::End) => Verdict::Nothing,
        (bytes, Event::Gap | Event::End) => Verdict::Name { name_bytes: bytes, content_at: bytes },
    }
}

/// What stands at one position of the bytes.
enum Here {
    /// A byte of the name.
    Data,
    /// The first byte of content.
    Magic,
    /// A newline, unless (`!certain`) the next bytes make its `\n` the first byte of content.
    Newline { bytes: usize, certain: bool },
    /// What may become a magic or a newline with the next bytes.
    Begun,
}

// Each segment of a slow sender has all bytes looked at again, so this is kept cheap.
#[inline]
fn look(rest: &[u8]) -> Here {
    match rest {
        [b'\n', ..] => match capture::magic(rest) {
            Some(Some(_)) => Here::Magic,
            undecided => Here::Newline { bytes: 1, certain: undecided.is_some() },
        },
        [b'\r'] => Here::Begun,
        [b'\r', after @ ..] => match look(after) {
            Here::Newline { bytes: 1, certain } => Here::Newline { bytes: 2, certain },
            // `\r` before a pcapng magic is the name's last byte: the `\n` is data.
            _ => Here::Data,
        },
        [byte, ..] if !capture::may_start_magic(*byte) => Here::Data,
        _ => match capture::magic(rest) {
            Some(Some(_)) => Here::Magic,
            Some(None) => Here::Data,
            None => Here::Begun,
        },
    }
}

/// True if content that starts with these bytes is a capture: a pcap magic, or a pcapng section header with its
/// byte-order magic. `None`: too few bytes to say.
pub fn starts_capture(content: &[u8]) -> Option<bool> {
    match capture::magic(content)? {
        None => Some(false),
        Some(Magic::Pcap { .. }) => Some(true),
        Some(Magic::Pcapng) => capture::section_order(content).map(|order| order.is_some()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &[u8] = b"+447700900123-2-3_21_11_2026_20:59:41.pcap";
    const PCAP: &[u8] = b"\xd4\xc3\xb2\xa1\x02\x00\x04\x00";

    fn name(name_bytes: usize, content_at: usize) -> Verdict {
        Verdict::Name { name_bytes, content_at }
    }

    /// The verdict when the bytes come in these segments and then `last` happens.
    fn decide_segments(bytes: &[u8], ends: impl Iterator<Item = usize>, last: Event) -> Verdict {
        for end in ends {
            let verdict = decide(&bytes[..end], Event::Data);
            if verdict != Verdict::More {
                return verdict;
            }
        }
        decide(bytes, last)
    }

    fn check_decide(bytes: &[u8], last: Event, expected: Verdict) {
        let shown = bytes.escape_ascii().to_string();
        let all = decide_segments(bytes, [bytes.len()].into_iter(), last);
        assert_eq!(all, expected, "{shown} {last:?}");
        // Of the long names, the end decides: all splits of the rest would only take time.
        let from = bytes.len().saturating_sub(100);
        assert_eq!(decide_segments(bytes, from..=bytes.len(), last), expected, "{shown} byte by byte");
        for split in from..bytes.len() {
            let verdict = decide_segments(bytes, [split, bytes.len()].into_iter(), last);
            assert_eq!(verdict, expected, "{shown} split at {split}");
        }
    }

    #[test]
    fn the_first_end_wins() {
        let n = NAME.len();
        let with = |content: &[u8]| [NAME, content].concat();
        for last in [Event::Data, Event::Gap, Event::End] {
            for magic in [b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\xc3\xd4", b"\x4d\x3c\xb2\xa1", b"\xa1\xb2\x3c\x4d"]
            {
                check_decide(&with(magic), last, name(n, n));
            }
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
    fn a_gap_and_the_end_decide_what_is_left_open() {
        let n = NAME.len();
        let with = |content: &[u8]| [NAME, content].concat();
        for last in [Event::Gap, Event::End] {
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
            check_decide(open, Event::Data, Verdict::More);
        }
        check_decide(b"", Event::Gap, Verdict::More);
        check_decide(b"", Event::End, Verdict::Nothing);
    }

    #[test]
    fn a_name_has_4096_bytes_at_most() {
        let max = vec![b'a'; NAME_BYTES_MAX];
        let over = vec![b'a'; NAME_BYTES_MAX + 1];
        let with = |name: &[u8], content: &[u8]| [name, content].concat();
        check_decide(&max, Event::Data, Verdict::More);
        check_decide(&max, Event::Gap, name(4096, 4096));
        check_decide(&over, Event::Data, Verdict::TooLong);
        check_decide(&over, Event::Gap, Verdict::TooLong);
        check_decide(&with(&max, b"\nx"), Event::Data, name(4096, 4097));
        check_decide(&with(&max, b"\r\nx"), Event::Data, name(4096, 4098));
        check_decide(&with(&max, PCAP), Event::Data, name(4096, 4096));
        check_decide(&with(&max, b"\n\r\r\n"), Event::Data, name(4096, 4096));
        check_decide(&with(&max, b"\n"), Event::Gap, name(4096, 4097));
        check_decide(&with(&max, b"\xd4\xc3"), Event::Data, Verdict::More);
        check_decide(&with(&max, b"\xd4\xc3"), Event::Gap, Verdict::TooLong);
        check_decide(&with(&max, b"\xd4\xc3x"), Event::Data, Verdict::TooLong);
        check_decide(&with(&over, PCAP), Event::Data, Verdict::TooLong);
        check_decide(&with(&over, b"\n"), Event::End, Verdict::TooLong);
        // The longest input that is still undecided: what comes next makes it a name, or one byte too long.
        let longest = with(&max, b"\r\n\r\r");
        assert_eq!(longest.len() + 1, DECIDE_BYTES_MAX);
        check_decide(&longest, Event::Data, Verdict::More);
        check_decide(&with(&longest, b"x"), Event::Data, name(4096, 4098));
        check_decide(&with(&longest, b"\n"), Event::Data, Verdict::TooLong);
    }

    /// The rules read straight from the protocol, for an input that is complete.
    fn reference(bytes: &[u8]) -> Verdict {
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
        if bytes.is_empty() { Verdict::Nothing } else { name(bytes.len(), bytes.len()) }
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
    fn every_short_input_is_decided_as_early_as_it_can_be() {
        let strings = all_strings(b"a\r\n\xd4\xc3\xb2\xa1", 4);
        for start in &strings {
            assert_eq!(decide(start, Event::End), reference(start), "{}", start.escape_ascii());
            // Decided with more to come: exactly if no continuation changes the verdict.
            let now = reference(start);
            let settled = strings.iter().all(|more| reference(&[&start[..], more].concat()) == now);
            let expected = if settled { now } else { Verdict::More };
            assert_eq!(decide(start, Event::Data), expected, "{}", start.escape_ascii());
        }
    }

    #[test]
    fn captures_are_told_by_their_first_bytes() {
        let pcapng = b"\n\r\r\n\x1c\x00\x00\x00\x4d\x3c\x2b\x1a";
        let pcapng_big = b"\n\r\r\n\x00\x00\x00\x1c\x1a\x2b\x3c\x4d";
        let not_pcapng = b"\n\r\r\n\x1c\x00\x00\x00\x4d\x3c\x2b\x1b";
        assert_eq!(starts_capture(PCAP), Some(true));
        assert_eq!(starts_capture(&PCAP[..4]), Some(true));
        assert_eq!(starts_capture(&PCAP[..3]), None);
        assert_eq!(starts_capture(b""), None);
        assert_eq!(starts_capture(b"\n\r\r\n"), None);
        assert_eq!(starts_capture(&pcapng[..11]), None);
        assert_eq!(starts_capture(pcapng), Some(true));
        assert_eq!(starts_capture(pcapng_big), Some(true));
        assert_eq!(starts_capture(not_pcapng), Some(false));
        assert_eq!(starts_capture(b"text"), Some(false));
        assert_eq!(starts_capture(b"\xd4x"), Some(false));
    }
}
