//! Messages in a stream of bytes: lines, and syslog over TCP with both framings of RFC 6587, told apart for each message.
//! Pure; the same messages for every split of the input.
//!
//! A newline ends a message, before it stands an optional carriage return (some senders of syslog end with NUL too).
//! Octet counting is told by `LENGTH <`: digits, a space and the begin of a priority. No message in newline framing
//! begins so by RFC 3164 and 5424.
//!
//! What is too long is passed over: its begin is shown once, and its end is found as usual.

/// Digits of a length in octet counting. Longer numbers are no lengths of messages.
const LENGTH_DIGITS_MAX: usize = 7;

/// So much of what is too long is shown.
pub const BEGIN_BYTES: usize = 1024;

/// How messages are framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// By newlines.
    Lines,
    /// By newlines or by octet counting (RFC 6587).
    Syslog,
}

/// What the next bytes are.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// More bytes are needed, or there are none.
    More,
    /// A message without its frame; never empty.
    Message(&'a [u8]),
    /// The begin of a message that is too long.
    TooLong(&'a [u8]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At the begin of a message.
    Begin,
    /// Within a line that is too long.
    SkipLine,
    /// So many bytes of a counted message are too many.
    Skip(usize),
}

/// Finds messages.
#[derive(Clone, Debug)]
pub struct Framer {
    framing: Framing,
    bytes_max: usize,
    state: State,
}

impl Framer {
    /// Messages have `bytes_max` bytes at most, and not less than [`BEGIN_BYTES`].
    pub fn new(framing: Framing, bytes_max: usize) -> Framer {
        Framer { framing, bytes_max: bytes_max.max(BEGIN_BYTES), state: State::Begin }
    }

    /// Looks at the bytes that were not consumed yet; gives what they are and how many bytes that consumes. `ended`:
    /// no more will come, and what is left without an end is a message too.
    pub fn step<'a>(&mut self, input: &'a [u8], ended: bool) -> (Step<'a>, usize) {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            match self.state {
                State::SkipLine => match memchr::memchr(b'\n', rest) {
                    Some(end) => at += end + 1,
                    None => return (Step::More, input.len()),
                },
                State::Skip(bytes) if bytes > rest.len() => {
                    self.state = State::Skip(bytes - rest.len());
                    return (Step::More, input.len());
                }
                State::Skip(bytes) => at += bytes,
                State::Begin => {
                    let (step, consumed) = self.begin(rest, ended);
                    // Empty messages are nothing.
                    if !matches!(step, Step::Message([])) {
                        return (step, at + consumed);
                    }
                    at += consumed;
                    continue;
                }
            }
            self.state = State::Begin;
        }
    }

    fn begin<'a>(&mut self, input: &'a [u8], ended: bool) -> (Step<'a>, usize) {
        match if self.framing == Framing::Syslog { counted(input) } else { Counted::No } {
            Counted::Yes { head, length } if length > self.bytes_max => {
                // The begin is shown when there is enough of it to be shown, however it came.
                let shown = length.min(BEGIN_BYTES);
                match input.get(head..head + shown) {
                    Some(begin) => {
                        self.state = State::Skip(length - shown);
                        (Step::TooLong(begin), head + shown)
                    }
                    None if ended => {
                        self.state = State::Skip(0);
                        (Step::TooLong(&input[head..]), input.len())
                    }
                    None => (Step::More, 0),
                }
            }
            Counted::Yes { head, length } => match input.get(head..head + length) {
                Some(message) => (Step::Message(bare(message)), head + length),
                None if ended => (Step::Message(bare(&input[head..])), input.len()),
                None => (Step::More, 0),
            },
            Counted::Maybe if !ended => (Step::More, 0),
            Counted::Maybe | Counted::No => self.line(input, ended),
        }
    }

    fn line<'a>(&mut self, input: &'a [u8], ended: bool) -> (Step<'a>, usize) {
        let end = memchr::memchr(b'\n', &input[..input.len().min(self.bytes_max + 1)]);
        match end {
            Some(end) => (Step::Message(bare(&input[..end])), end + 1),
            None if input.len() > self.bytes_max => {
                self.state = State::SkipLine;
                (Step::TooLong(&input[..BEGIN_BYTES]), BEGIN_BYTES)
            }
            None if ended && !input.is_empty() => (Step::Message(bare(input)), input.len()),
            None => (Step::More, 0),
        }
    }

    /// There is no memory for the line under way: passes it over like one that is too long. A message with a count
    /// cannot get here, for it is short.
    pub fn pass_over(&mut self) {
        self.state = State::SkipLine;
    }
}

/// Whether octets are counted here.
enum Counted {
    No,
    /// More bytes tell.
    Maybe,
    Yes {
        /// Bytes of the length and its space.
        head: usize,
        length: usize,
    },
}

fn counted(input: &[u8]) -> Counted {
    let digits = input.iter().take(LENGTH_DIGITS_MAX + 1).take_while(|byte| byte.is_ascii_digit()).count();
    if digits > LENGTH_DIGITS_MAX || input.first() == Some(&b'0') {
        return Counted::No;
    }
    match (digits, input.get(digits), input.get(digits + 1)) {
        (_, None, _) | (1.., Some(b' '), None) => Counted::Maybe,
        (1.., Some(b' '), Some(b'<')) => {
            let length = input[..digits].iter().fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'));
            Counted::Yes { head: digits + 1, length }
        }
        _ => Counted::No,
    }
}

/// The message without what some senders put at its end, whatever the framing.
fn bare(message: &[u8]) -> &[u8] {
    let end = message.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n' | 0)).map_or(0, |last| last + 1);
    &message[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that is found when the input comes in pieces that end at `cuts`.
    fn found(framing: Framing, input: &[u8], cuts: &[usize]) -> Vec<String> {
        let mut framer = Framer::new(framing, BEGIN_BYTES);
        let (mut found, mut from) = (Vec::new(), 0);
        for (to, ended) in cuts.iter().map(|cut| (*cut, false)).chain([(input.len(), true)]) {
            loop {
                let (step, consumed) = framer.step(&input[from..to], ended);
                from += consumed;
                let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                match step {
                    Step::More => break,
                    Step::Message(message) => found.push(show(message)),
                    Step::TooLong(begin) => {
                        assert_eq!(begin.len(), BEGIN_BYTES);
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
    fn lines_end_with_a_newline_or_the_end() {
        check(Framing::Lines, b"", &[]);
        check(Framing::Lines, b"\n\r\n", &[]);
        check(Framing::Lines, b"a\nb\r\n\n c \nd", &["a", "b", " c ", "d"]);
        check(Framing::Lines, b"5 <ab>\n", &["5 <ab>"]);
    }

    #[test]
    fn both_framings_of_syslog_are_told_apart_message_by_message() {
        let input = b"<13>a\n5 <1>bc6 <14>x\n<15>d\n9 <1>e\nf\0\n\n7 lines\n12\n3<\n012 <x\n4 <1>z";
        let expected =
            ["<13>a", "<1>bc", "<14>x", "<15>d", "<1>e\nf", "7 lines", "12", "3<", "012 <x", "<1>z"];
        check(Framing::Syslog, input, &expected);
    }

    #[test]
    fn both_sides_of_the_limit() {
        for (framing, head) in [(Framing::Lines, ""), (Framing::Syslog, ""), (Framing::Syslog, "count")] {
            let fits = format!("<1>{}", "x".repeat(BEGIN_BYTES - 3));
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
    fn what_is_cut_by_the_end_is_a_message() {
        check(Framing::Syslog, b"100 <1>abc", &["<1>abc"]);
        check(Framing::Syslog, b"100", &["100"]);
        check(Framing::Syslog, b"100 ", &["100 "]);
        let mut framer = Framer::new(Framing::Syslog, 1024);
        assert_eq!(framer.step(b"2000 <1>abc", true), (Step::TooLong(b"<1>abc"), 11));
        assert_eq!(framer.step(b"", true), (Step::More, 0));
        assert_eq!(found(Framing::Syslog, b"12345678 <1>a\n", &[]), ["12345678 <1>a"]);
    }

    #[test]
    fn a_line_that_is_passed_over_ends_at_its_newline() {
        let mut framer = Framer::new(Framing::Lines, 1024);
        assert_eq!(framer.step(b"abc", false), (Step::More, 0));
        framer.pass_over();
        assert_eq!(framer.step(b"abc", false), (Step::More, 3));
        assert_eq!(framer.step(b"d\ne\n", false), (Step::Message(b"e"), 4));
    }
}
