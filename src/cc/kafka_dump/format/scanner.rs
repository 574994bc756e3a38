//! Finds the end of a JSON value in bytes that arrive in pieces. It follows strings and brackets, and checks
//! just enough of the grammar to notice where a damaged value ends and the next one starts. The text that
//! Logstash's rubydebug codec writes has the same strings and brackets.

use memchr::memchr3;

/// Deepest nesting, as in `serde_json`.
const DEPTH_MAX: u32 = 127;

/// Result of scanning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scanned {
    /// The value is not complete.
    Incomplete,
    /// The value ends before this byte.
    Complete(usize),
    /// The text before this byte is not a value. The next value may start here.
    Broken(usize),
}

/// Scanner of one value. It never looks at a byte twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ValueScanner {
    /// Number of bytes that were scanned.
    pub(super) scanned: usize,
    depth: u32,
    /// One bit per open bracket, the innermost one lowest: 1 for an array, 0 for an object.
    arrays: u128,
    is_in_string: bool,
    /// The last byte outside of strings that is not white space.
    last: u8,
}

impl ValueScanner {
    /// Scans the value that starts at the first byte of `text`. `text` is what was passed before, and possibly more.
    pub(super) fn scan(&mut self, text: &[u8]) -> Scanned {
        loop {
            if self.is_in_string {
                match self.scan_string(text) {
                    Scanned::Complete(end) if self.depth == 0 => return Scanned::Complete(end),
                    Scanned::Complete(_) => {}
                    other => return other,
                }
            }
            let Some(byte) = text.get(self.scanned).copied() else { return Scanned::Incomplete };
            match byte {
                b'"' => self.is_in_string = true,
                b'{' | b'[' if !self.may_open() => return Scanned::Broken(self.scanned),
                b'{' | b'[' => {
                    self.depth += 1;
                    self.arrays = self.arrays << 1 | u128::from(byte == b'[');
                }
                b'}' | b']' if self.is_in_array() != (byte == b']') => return Scanned::Broken(self.scanned),
                b'}' | b']' if self.depth <= 1 => return Scanned::Complete(self.scanned + 1),
                b'}' | b']' => {
                    self.depth -= 1;
                    self.arrays >>= 1;
                }
                // A record separator or the end of a C string is never part of a value.
                0 | 0x1e => return Scanned::Broken(self.scanned),
                _ => {}
            }
            self.scanned += 1;
            if !byte.is_ascii_whitespace() {
                self.last = byte;
            }
        }
    }

    /// Scans to the end of a string.
    fn scan_string(&mut self, text: &[u8]) -> Scanned {
        loop {
            let rest = text.get(self.scanned..).unwrap_or_default();
            let Some(at) = memchr3(b'"', b'\\', b'\n', rest) else {
                self.scanned = text.len();
                return Scanned::Incomplete;
            };
            let at = self.scanned + at;
            self.scanned = at;
            match text[at] {
                b'"' => {
                    (self.scanned, self.is_in_string, self.last) = (at + 1, false, b'"');
                    return Scanned::Complete(at + 1);
                }
                b'\\' if at + 1 >= text.len() => return Scanned::Incomplete,
                b'\\' if text[at + 1] != b'\n' => self.scanned = at + 2,
                // JSON has no line ends in strings: the rest of this one is missing.
                _ => return Scanned::Broken(at),
            }
        }
    }

    fn is_in_array(&self) -> bool {
        self.arrays & 1 == 1
    }

    /// Reports whether a bracket may follow the last byte. If not, a bracket is missing and another value starts.
    fn may_open(&self) -> bool {
        let is_allowed = match self.last {
            0 | b':' | b'>' => true,
            // rubydebug writes the index of an element before it.
            b',' | b'[' | b']' => self.is_in_array(),
            _ => false,
        };
        is_allowed && self.depth < DEPTH_MAX
    }

    /// Says that the caller discarded `bytes` bytes from the start of the value.
    pub(super) fn discard(&mut self, bytes: usize) {
        self.scanned -= bytes;
    }

    pub(super) fn is_in_string(&self) -> bool {
        self.is_in_string
    }
}

/// Scans a value that is available as a whole.
pub(super) fn scan(text: &[u8]) -> Scanned {
    ValueScanner::default().scan(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_scan(text: &str, expected: Scanned) {
        assert_eq!(scan(text.as_bytes()), expected, "{text}");
        // The result does not depend on how the text is split.
        let mut scanner = ValueScanner::default();
        let steps = (1..=text.len()).map(|end| scanner.scan(&text.as_bytes()[..end]));
        let found = steps.into_iter().find(|step| *step != Scanned::Incomplete);
        assert_eq!(found.unwrap_or(Scanned::Incomplete), expected, "{text}");
    }

    #[test]
    fn the_end_of_a_value_is_found() {
        check_scan("{}x", Scanned::Complete(2));
        check_scan(r#"{"a":"}\"{","b":[{},{"c":[]}]} {"#, Scanned::Complete(30));
        check_scan("{\n  \"a\": 1\n},", Scanned::Complete(12));
        check_scan(r#""a\\" "b""#, Scanned::Complete(5));
        check_scan("{ \"a\" => [\n [0] { \"b\" => nil },\n [1] { } ] }\n", Scanned::Complete(44));
        check_scan(r#"{"a":"b"#, Scanned::Incomplete);
        check_scan(r#"{"a":"b\"#, Scanned::Incomplete);
        check_scan("", Scanned::Incomplete);
    }

    #[test]
    fn a_value_ends_where_it_is_damaged() {
        check_scan("{\"a\":\"b\n{\"a\":1}", Scanned::Broken(7));
        check_scan("{\"a\":\"b\"\n{\"a\":1}", Scanned::Broken(9));
        check_scan("{\"a\":1\n{\"a\":1}", Scanned::Broken(7));
        check_scan("{\"a\":1,\n{\"a\":1}", Scanned::Broken(8));
        check_scan("{\"a\":[1}", Scanned::Broken(7));
        check_scan("{\"a\":1]", Scanned::Broken(6));
        check_scan("{\"a\":1\0{\"a\":1}", Scanned::Broken(6));
        let deep = "{\"a\":".repeat(200);
        assert_eq!(scan(deep.as_bytes()), Scanned::Broken(5 * 127));
    }
}
