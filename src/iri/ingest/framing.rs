//! Splits a byte stream into messages: lines, or syslog over TCP in either framing of RFC 6587, detected per message.
//! Pure. The messages are the same however the input is split.
//!
//! A message ends with a newline, which may follow a carriage return, or with a NUL (Python's `SysLogHandler`, GELF).
//! A message with octet counting starts with `LENGTH <`: digits, a space and the first byte of the priority.
//! By RFC 3164 and RFC 5424 a message in newline framing cannot start like this.
//!
//! A message that is too long is skipped: its first bytes are reported once.

/// Maximum digits of a length in octet counting. A longer number is not a length.
const LENGTH_DIGITS_MAX: usize = 7;

/// Bytes of a too long message that are reported.
pub const EXCERPT_BYTES: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Each message ends with a newline or a NUL.
    Lines,
    /// Each message ends with a NUL (GELF).
    Nul,
    /// Each message ends with a newline or a NUL, or has a length prefix (RFC 6587).
    Syslog,
}

/// The result of looking at the next bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum FramingStep<'a> {
    /// No complete message is in the input.
    NeedMore,
    /// A message without its framing; never empty.
    Message(&'a [u8]),
    /// The first bytes of a message that is too long.
    TooLong(&'a [u8]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FramerState {
    /// At the start of a message.
    MessageStart,
    /// In a line that is too long.
    SkipLine,
    /// In a too long message with octet counting; the value is the number of bytes to skip.
    Skip(usize),
}

/// Splits the input of one connection into messages.
#[derive(Clone, Debug)]
pub struct Framer {
    framing: Framing,
    bytes_max: usize,
    state: FramerState,
}

impl Framer {
    /// Creates a framer. `bytes_max` is the maximum size of a message, at least [`EXCERPT_BYTES`].
    pub fn new(framing: Framing, bytes_max: usize) -> Framer {
        Framer { framing, bytes_max: bytes_max.max(EXCERPT_BYTES), state: FramerState::MessageStart }
    }

    /// Returns what the unconsumed input starts with, and the number of bytes consumed. `ended` says that no input follows;
    /// then the rest of the input is a message even without its end.
    pub fn step<'a>(&mut self, input: &'a [u8], ended: bool) -> (FramingStep<'a>, usize) {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            match self.state {
                FramerState::SkipLine => match self.find_end(rest) {
                    Some(end) => at += end + 1,
                    None => return (FramingStep::NeedMore, input.len()),
                },
                FramerState::Skip(bytes) if bytes > rest.len() => {
                    self.state = FramerState::Skip(bytes - rest.len());
                    return (FramingStep::NeedMore, input.len());
                }
                FramerState::Skip(bytes) => at += bytes,
                FramerState::MessageStart => {
                    let (step, consumed) = self.step_at_start(rest, ended);
                    // Empty messages are ignored.
                    if !matches!(step, FramingStep::Message([])) {
                        return (step, at + consumed);
                    }
                    at += consumed;
                    continue;
                }
            }
            self.state = FramerState::MessageStart;
        }
    }

    fn step_at_start<'a>(&mut self, input: &'a [u8], ended: bool) -> (FramingStep<'a>, usize) {
        match if self.framing == Framing::Syslog { octet_count(input) } else { OctetCount::Absent } {
            OctetCount::Present { head, length } if length > self.bytes_max => {
                // The excerpt has its full size, however the input is split.
                let shown = length.min(EXCERPT_BYTES);
                match input.get(head..head + shown) {
                    Some(begin) => {
                        self.state = FramerState::Skip(length - shown);
                        (FramingStep::TooLong(begin), head + shown)
                    }
                    None if ended => {
                        self.state = FramerState::Skip(0);
                        (FramingStep::TooLong(&input[head..]), input.len())
                    }
                    None => (FramingStep::NeedMore, 0),
                }
            }
            OctetCount::Present { head, length } => match input.get(head..head + length) {
                Some(message) => (FramingStep::Message(strip_line_end(message)), head + length),
                None if ended => (FramingStep::Message(strip_line_end(&input[head..])), input.len()),
                None => (FramingStep::NeedMore, 0),
            },
            OctetCount::NeedMore if !ended => (FramingStep::NeedMore, 0),
            OctetCount::NeedMore | OctetCount::Absent => self.line(input, ended),
        }
    }

    fn line<'a>(&mut self, input: &'a [u8], ended: bool) -> (FramingStep<'a>, usize) {
        let end = self.find_end(&input[..input.len().min(self.bytes_max + 1)]);
        match end {
            Some(end) => (FramingStep::Message(strip_line_end(&input[..end])), end + 1),
            None if input.len() > self.bytes_max => {
                self.state = FramerState::SkipLine;
                (FramingStep::TooLong(&input[..EXCERPT_BYTES]), EXCERPT_BYTES)
            }
            None if ended && !input.is_empty() => (FramingStep::Message(strip_line_end(input)), input.len()),
            None => (FramingStep::NeedMore, 0),
        }
    }

    fn find_end(&self, input: &[u8]) -> Option<usize> {
        match self.framing {
            Framing::Nul => memchr::memchr(0, input),
            Framing::Lines | Framing::Syslog => memchr::memchr2(b'\n', 0, input),
        }
    }

    /// Skips the current line like one that is too long. For a line that exceeds the memory limit. A message with octet
    /// counting is too short to get there.
    pub fn skip_line(&mut self) {
        self.state = FramerState::SkipLine;
    }
}

/// Whether the input starts with an octet count.
enum OctetCount {
    Absent,
    NeedMore,
    Present {
        /// Bytes of the length and the space after it.
        head: usize,
        length: usize,
    },
}

fn octet_count(input: &[u8]) -> OctetCount {
    let digits = input.iter().take(LENGTH_DIGITS_MAX + 1).take_while(|byte| byte.is_ascii_digit()).count();
    if digits > LENGTH_DIGITS_MAX || input.first() == Some(&b'0') {
        return OctetCount::Absent;
    }
    match (digits, input.get(digits), input.get(digits + 1)) {
        (_, None, _) | (1.., Some(b' '), None) => OctetCount::NeedMore,
        (1.., Some(b' '), Some(b'<')) => {
            let length = input[..digits].iter().fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'));
            OctetCount::Present { head: digits + 1, length }
        }
        _ => OctetCount::Absent,
    }
}

/// Removes the carriage returns, newlines and NULs that some senders append in either framing.
fn strip_line_end(message: &[u8]) -> &[u8] {
    let end = message.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n' | 0)).map_or(0, |last| last + 1);
    &message[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns all results for input that arrives in pieces ending at `cuts`.
    fn found(framing: Framing, input: &[u8], cuts: &[usize]) -> Vec<String> {
        let mut framer = Framer::new(framing, EXCERPT_BYTES);
        let (mut found, mut from) = (Vec::new(), 0);
        for (to, ended) in cuts.iter().map(|cut| (*cut, false)).chain([(input.len(), true)]) {
            loop {
                let (step, consumed) = framer.step(&input[from..to], ended);
                from += consumed;
                let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                match step {
                    FramingStep::NeedMore => break,
                    FramingStep::Message(message) => found.push(show(message)),
                    FramingStep::TooLong(begin) => {
                        assert_eq!(begin.len(), EXCERPT_BYTES);
                        found.push(format!("too long: {}", show(&begin[..3])));
                    }
                }
            }
        }
        assert_eq!(from, input.len(), "all is consumed");
        found
    }

    fn check(framing: Framing, input: &[u8], expected: &[&str]) {
        assert_eq!(found(framing, input, &[]), expected);
        for cut in 0..=input.len() {
            assert_eq!(found(framing, input, &[cut]), expected, "cut at {cut}");
        }
        let all: Vec<usize> = (0..=input.len()).collect();
        assert_eq!(found(framing, input, &all), expected, "byte by byte");
    }

    #[test]
    fn lines_end_with_a_newline_or_the_end_of_input() {
        check(Framing::Lines, b"", &[]);
        check(Framing::Lines, b"\n\r\n", &[]);
        check(Framing::Lines, b"a\nb\r\n\n c \nd", &["a", "b", " c ", "d"]);
        check(Framing::Lines, b"5 <ab>\n", &["5 <ab>"]);
    }

    #[test]
    fn a_nul_ends_a_message_too() {
        check(Framing::Nul, b"{\n}\0\0{}\r\n\0x", &["{\n}", "{}", "x"]);
        check(Framing::Lines, b"a\0b\0\nc\r\n\0d", &["a", "b", "c", "d"]);
        check(Framing::Syslog, b"<13>a\0<14>b\x006 <1>c\0d<15>e\0", &["<13>a", "<14>b", "<1>c\0d", "<15>e"]);
        let long = format!("<1>{}\0<1>z\0", "x".repeat(EXCERPT_BYTES));
        check(Framing::Syslog, long.as_bytes(), &["too long: <1>", "<1>z"]);
    }

    #[test]
    fn each_syslog_message_may_use_either_framing() {
        let input = b"<13>a\n5 <1>bc6 <14>x\n<15>d\n9 <1>e\nf\0\n\n7 lines\n12\n3<\n012 <x\n4 <1>z";
        let expected =
            ["<13>a", "<1>bc", "<14>x", "<15>d", "<1>e\nf", "7 lines", "12", "3<", "012 <x", "<1>z"];
        check(Framing::Syslog, input, &expected);
    }

    #[test]
    fn a_message_of_the_maximum_size_passes_and_one_byte_more_is_too_long() {
        for (framing, head) in [(Framing::Lines, ""), (Framing::Syslog, ""), (Framing::Syslog, "count")] {
            let fits = format!("<1>{}", "x".repeat(EXCERPT_BYTES - 3));
            let over = format!("{fits}y");
            let framed = |message: &str| match head {
                "" => format!("{message}\n"),
                _ => format!("{} {message}", message.len()),
            };
            let input = format!("{}{}{}", framed(&fits), framed(&over), framed("<1>z"));
            check(framing, input.as_bytes(), &[&fits, "too long: <1>", "<1>z"]);
        }
    }

    #[test]
    fn the_end_of_input_ends_a_message() {
        check(Framing::Syslog, b"100 <1>abc", &["<1>abc"]);
        check(Framing::Syslog, b"100", &["100"]);
        check(Framing::Syslog, b"100 ", &["100 "]);
        let mut framer = Framer::new(Framing::Syslog, 1024);
        assert_eq!(framer.step(b"2000 <1>abc", true), (FramingStep::TooLong(b"<1>abc"), 11));
        assert_eq!(framer.step(b"", true), (FramingStep::NeedMore, 0));
        assert_eq!(found(Framing::Syslog, b"12345678 <1>a\n", &[]), ["12345678 <1>a"]);
    }

    #[test]
    fn a_skipped_line_ends_at_its_newline() {
        let mut framer = Framer::new(Framing::Lines, 1024);
        assert_eq!(framer.step(b"abc", false), (FramingStep::NeedMore, 0));
        framer.skip_line();
        assert_eq!(framer.step(b"abc", false), (FramingStep::NeedMore, 3));
        assert_eq!(framer.step(b"d\ne\n", false), (FramingStep::Message(b"e"), 4));
    }
}
