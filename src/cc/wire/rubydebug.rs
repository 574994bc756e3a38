//! Converts what Logstash's `rubydebug` codec prints to JSON. Pure.
//!
//! The codec prints each event as a Ruby hash over several lines:
//! `{ "userid" => "x", "tags" => [ [0] "a" ], "@timestamp" => 2026-11-21T20:59:41.046Z, "n" => nil }`.
//! Strings have Ruby's escapes. Values that JSON does not have, such as times, become strings.

/// Deepest nesting, as in `serde_json`.
const DEPTH_MAX: u32 = 127;

/// Reports whether a text looks like a hash of this codec: an object whose first member has `=>`.
pub(crate) fn is_hash(text: &[u8]) -> bool {
    let mut text = Cursor { text, at: 0 };
    let mut name = Vec::new();
    text.take(b'{') && text.take(b'"') && text.string(&mut name).is_some() && text.take_arrow()
}

/// Converts a hash to a JSON object on one line. Returns `None` if the text is not exactly one hash.
pub(crate) fn to_json(text: &[u8]) -> Option<Vec<u8>> {
    let mut cursor = Cursor { text, at: 0 };
    let mut json = Vec::with_capacity(text.len());
    if cursor.peek()? != b'{' {
        return None;
    }
    cursor.value(&mut json, 0)?;
    cursor.peek().is_none().then_some(json)
}

struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    /// Returns the next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        while self.text.get(self.at)?.is_ascii_whitespace() {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    /// Consumes `byte` if it comes next.
    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn take_arrow(&mut self) -> bool {
        self.take(b'=') && self.text.get(self.at) == Some(&b'>') && {
            self.at += 1;
            true
        }
    }

    fn value(&mut self, json: &mut Vec<u8>, depth: u32) -> Option<()> {
        if depth > DEPTH_MAX {
            return None;
        }
        match self.peek()? {
            b'"' => {
                self.at += 1;
                self.string(json)
            }
            b'{' => self.hash(json, depth),
            b'[' => self.array(json, depth),
            _ => self.word(json),
        }
    }

    fn hash(&mut self, json: &mut Vec<u8>, depth: u32) -> Option<()> {
        self.at += 1;
        json.push(b'{');
        let mut members = 0;
        while !self.take(b'}') {
            if members > 0 {
                json.push(b',');
                // The codec separates members by a comma, and the last one by nothing.
                self.take(b',').then_some(())?;
            }
            self.take(b'"').then_some(())?;
            self.string(json)?;
            self.take_arrow().then_some(())?;
            json.push(b':');
            self.value(json, depth + 1)?;
            members += 1;
        }
        json.push(b'}');
        Some(())
    }

    fn array(&mut self, json: &mut Vec<u8>, depth: u32) -> Option<()> {
        self.at += 1;
        json.push(b'[');
        let mut elements = 0;
        while !self.take(b']') {
            if elements > 0 {
                json.push(b',');
                self.take(b',').then_some(())?;
            }
            self.skip_index();
            self.value(json, depth + 1)?;
            elements += 1;
        }
        json.push(b']');
        Some(())
    }

    /// Skips `[3] ` before an element.
    fn skip_index(&mut self) {
        let start = self.at;
        if self.take(b'[') {
            let digits = self.text[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            self.at += digits;
            if digits > 0 && self.take(b']') && !matches!(self.peek(), None | Some(b',' | b']')) {
                return;
            }
        }
        self.at = start;
    }

    /// Converts what is neither a string nor a collection: `nil`, numbers, times.
    fn word(&mut self, json: &mut Vec<u8>) -> Option<()> {
        let rest = &self.text[self.at..];
        let end =
            rest.iter().position(|byte| matches!(byte, b',' | b'\n' | b'}' | b']')).unwrap_or(rest.len());
        let word = std::str::from_utf8(rest[..end].trim_ascii()).ok().filter(|word| !word.is_empty())?;
        self.at += end;
        match word {
            "nil" => json.extend_from_slice(b"null"),
            "true" | "false" => json.extend_from_slice(word.as_bytes()),
            _ if serde_json::from_str::<serde_json::Number>(word).is_ok() => {
                json.extend_from_slice(word.as_bytes());
            }
            _ => serde_json::to_writer(json, word).ok()?,
        }
        Some(())
    }

    /// Converts a string whose opening quote was consumed.
    fn string(&mut self, json: &mut Vec<u8>) -> Option<()> {
        let mut text = Vec::new();
        loop {
            let rest = &self.text[self.at..];
            let at = memchr::memchr2(b'"', b'\\', rest)?;
            text.extend_from_slice(&rest[..at]);
            self.at += at + 1;
            if rest[at] == b'"' {
                break;
            }
            self.escape(&mut text)?;
        }
        let text = std::str::from_utf8(&text).ok()?;
        serde_json::to_writer(json, text).ok()
    }

    /// Decodes an escape whose backslash was consumed.
    fn escape(&mut self, text: &mut Vec<u8>) -> Option<()> {
        let byte = *self.text.get(self.at)?;
        self.at += 1;
        let decoded = match byte {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'a' => 7,
            b'b' => 8,
            b'v' => 11,
            b'f' => 12,
            b'e' => 27,
            b'x' => return self.code(2, text),
            b'u' if self.text.get(self.at) == Some(&b'{') => {
                self.at += 1;
                let digits = memchr::memchr(b'}', &self.text[self.at..])?;
                self.code(digits, text)?;
                self.at += 1;
                return Some(());
            }
            b'u' => return self.code(4, text),
            // `\"`, `\\`, `\#` and any other character stand for themselves.
            byte => byte,
        };
        text.push(decoded);
        Some(())
    }

    /// Decodes a code point of `digits` hexadecimal digits.
    fn code(&mut self, digits: usize, text: &mut Vec<u8>) -> Option<()> {
        let hex =
            self.text.get(self.at..self.at + digits).filter(|hex| hex.iter().all(u8::is_ascii_hexdigit))?;
        self.at += digits;
        let number = u32::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?;
        // `\xe9` stands for a byte that is not UTF-8. JSON cannot express it.
        let character = char::from_u32(number).filter(|_| digits != 2 || number < 0x80)?;
        text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_json(text: &str, expected: Option<&str>) {
        let json = to_json(text.as_bytes()).map(|json| String::from_utf8(json).unwrap());
        assert_eq!(json.as_deref(), expected, "{text}");
        if let Some(json) = json {
            serde_json::from_str::<serde_json::Value>(&json).unwrap();
        }
    }

    #[test]
    fn an_event_of_several_lines_becomes_one_line() {
        let event = r##"{
           "userid" => "+447700900123",
             "data" => "1MOyoQ==",
       "@timestamp" => 2026-11-21T20:59:41.046Z,
         "@version" => "1",
             "port" => 5004,
             "rate" => 0.5,
          "missing" => nil,
               "ok" => true,
             "host" => {
        "name" => "a\"b\\c\n\e\#{x}\u00e9\u{1F600}"
    },
             "tags" => [
        [0] "a",
        [1] {
            "b" => []
        }
    ],
            "plain" => [1, 2]
}
"##;
        check_json(
            event,
            Some(
                r##"{"userid":"+447700900123","data":"1MOyoQ==","@timestamp":"2026-11-21T20:59:41.046Z","@version":"1","port":5004,"rate":0.5,"missing":null,"ok":true,"host":{"name":"a\"b\\c\n\u001b#{x}é😀"},"tags":["a",{"b":[]}],"plain":[1,2]}"##,
            ),
        );
        assert!(is_hash(event.as_bytes()));
        check_json("{}", Some("{}"));
    }

    #[test]
    fn what_is_not_a_hash_is_refused() {
        for text in [
            "",
            "{",
            "{}{}",
            r#"{"a":1}"#,
            r#"{"a" => }"#,
            r#"{"a" => "\xe9"}"#,
            r#"{"a" => "b}"#,
            r#"{"a" => "\u12"}"#,
            "[1]",
        ] {
            check_json(text, None);
        }
        let deep = format!("{}1{}", "{\"a\" => ".repeat(300), "}".repeat(300));
        check_json(&deep, None);
        assert!(!is_hash(br#"{"a": 1}"#) && !is_hash(b"{}") && !is_hash(br#"{"a" "#));
    }
}
