//! JSON objects as records and dumps have them: a member at a time, straight from the text, without an allocation.
//!
//! Only the usual forms are read here: strings, plain integers, `true`, `false`, `null`, `[]`, `{}`. For anything
//! else (nested values, fractions, text that is no ASCII, errors) the reader gives up with [`Unusual`], and the caller
//! asks `serde_json`, which says what is wrong and where. So what is JSON is its decision alone.
//!
//! Invariant: an object that is read to its end here is one that `serde_json` reads too, with the same members.
//! Exception: a string that is left undecoded ([`Text`]) may hold what is no JSON; who uses it finds out.

use std::borrow::Cow;
use std::fmt;

use memchr::{memchr, memchr2};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Not of the usual forms, or no JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unusual;

/// A string as it stands in the text, without its quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text<'a> {
    /// What stands between the quotes.
    pub raw: &'a [u8],
    /// True if it has escapes.
    pub escaped: bool,
}

/// A member's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A string.
    Text(Text<'a>),
    /// An integer.
    Number(i64),
    /// `null`.
    Null,
    /// `true`, `false`, `[]` or `{}`.
    Other,
}

impl<'a> Text<'a> {
    /// The string's text, where it has no escapes and is plain ASCII, as almost all have.
    pub fn plain(self) -> Result<&'a str, Unusual> {
        self.check_plain()?;
        std::str::from_utf8(self.raw).map_err(|_| Unusual)
    }

    /// Whether [`plain`](Self::plain) would give it.
    pub fn check_plain(self) -> Result<(), Unusual> {
        // No early exit: so the compiler makes wide steps of it.
        let odd = |odd: bool, byte: &u8| odd | (*byte < 0x20) | (*byte == b'\\') | (*byte > 0x7e);
        if self.raw.iter().fold(false, odd) { Err(Unusual) } else { Ok(()) }
    }

    /// Undoes the escapes into `text`, which is emptied first. The text may be any bytes; so may the result.
    pub fn unescape(self, text: &mut Vec<u8>) -> Result<(), Unusual> {
        text.clear();
        let mut rest = self.raw;
        while let Some(at) = memchr(b'\\', rest) {
            text.extend_from_slice(&rest[..at]);
            let (byte, length) = match *rest.get(at + 1).ok_or(Unusual)? {
                byte @ (b'"' | b'\\' | b'/') => (byte, 2),
                b'n' => (b'\n', 2),
                b'r' => (b'\r', 2),
                b't' => (b'\t', 2),
                b'b' => (8, 2),
                b'f' => (12, 2),
                b'u' => (ascii_escape(&rest[at..])?, 6),
                _ => return Err(Unusual),
            };
            text.push(byte);
            rest = &rest[at + length..];
        }
        text.extend_from_slice(rest);
        Ok(())
    }
}

/// The byte of `\u00XX`, below 0x80; others, and pairs, are for `serde_json`.
fn ascii_escape(text: &[u8]) -> Result<u8, Unusual> {
    let digits = text.get(2..6).ok_or(Unusual)?;
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(Unusual);
    }
    let digits = std::str::from_utf8(digits).map_err(|_| Unusual)?;
    u8::from_str_radix(digits, 16).ok().filter(u8::is_ascii).ok_or(Unusual)
}

/// The members of an object, in order.
#[derive(Debug)]
pub struct Members<'a> {
    text: &'a [u8],
    at: usize,
    begun: bool,
}

impl<'a> Members<'a> {
    /// The members of the object that is the whole of `text`.
    pub fn of(text: &'a [u8]) -> Result<Members<'a>, Unusual> {
        let mut members = Members { text, at: 0, begun: false };
        members.expect(b'{')?;
        Ok(members)
    }

    /// The next member; `None` at the end, behind which nothing else stands.
    pub fn next_member(&mut self) -> Result<Option<(&'a [u8], Value<'a>)>, Unusual> {
        match self.peek()? {
            b'}' => {
                self.at += 1;
                let rest = &self.text[self.at..];
                return if rest.iter().all(is_space) { Ok(None) } else { Err(Unusual) };
            }
            b',' if self.begun => self.at += 1,
            _ if self.begun => return Err(Unusual),
            _ => {}
        }
        self.begun = true;
        self.expect(b'"')?;
        let name = self.string()?;
        name.check_plain()?;
        self.expect(b':')?;
        Ok(Some((name.raw, self.value()?)))
    }

    fn value(&mut self) -> Result<Value<'a>, Unusual> {
        match self.peek()? {
            b'"' => {
                self.at += 1;
                self.string().map(Value::Text)
            }
            b'-' | b'0'..=b'9' => self.integer(),
            b'n' => self.word(b"null", Value::Null),
            b't' => self.word(b"true", Value::Other),
            b'f' => self.word(b"false", Value::Other),
            b'[' => self.word(b"[]", Value::Other),
            b'{' => self.word(b"{}", Value::Other),
            _ => Err(Unusual),
        }
    }

    /// The string whose opening quote is behind us.
    fn string(&mut self) -> Result<Text<'a>, Unusual> {
        let start = self.at;
        let mut escaped = false;
        loop {
            let rest = &self.text[self.at..];
            let found = memchr2(b'"', b'\\', rest).ok_or(Unusual)?;
            if rest[found] == b'"' {
                self.at += found + 1;
                return Ok(Text { raw: &self.text[start..self.at - 1], escaped });
            }
            escaped = true;
            self.at += found + 2;
            if self.at > self.text.len() {
                return Err(Unusual);
            }
        }
    }

    fn integer(&mut self) -> Result<Value<'a>, Unusual> {
        let rest = &self.text[self.at..];
        let sign = usize::from(rest[0] == b'-');
        let digits = rest[sign..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        // Eighteen digits always fit; a leading zero is no JSON.
        let usual = (1..=18).contains(&digits) && (digits == 1 || rest[sign] != b'0');
        if !usual || matches!(rest.get(sign + digits), Some(b'.' | b'e' | b'E')) {
            return Err(Unusual);
        }
        let number =
            rest[sign..sign + digits].iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0'));
        self.at += sign + digits;
        Ok(Value::Number(if sign == 1 { -number } else { number }))
    }

    fn word(&mut self, word: &[u8], value: Value<'a>) -> Result<Value<'a>, Unusual> {
        if !self.text[self.at..].starts_with(word) {
            return Err(Unusual);
        }
        self.at += word.len();
        Ok(value)
    }

    fn expect(&mut self, byte: u8) -> Result<(), Unusual> {
        if self.peek()? != byte {
            return Err(Unusual);
        }
        self.at += 1;
        Ok(())
    }

    fn peek(&mut self) -> Result<u8, Unusual> {
        while let Some(byte) = self.text.get(self.at) {
            if !is_space(byte) {
                return Ok(*byte);
            }
            self.at += 1;
        }
        Err(Unusual)
    }
}

fn is_space(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// A member's value as `serde_json` reads it: a string, an integer, or something else of which nothing is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Loose<'a> {
    /// A string, its escapes undone.
    Text(Cow<'a, str>),
    /// An integer.
    Number(i64),
    /// Anything else, or nothing.
    #[default]
    Other,
}

impl<'a> Loose<'a> {
    /// The string, if it is one.
    pub fn text(self) -> Option<Cow<'a, str>> {
        match self {
            Loose::Text(text) => Some(text),
            Loose::Number(_) | Loose::Other => None,
        }
    }

    /// The number, if it is one.
    pub fn number(&self) -> Option<i64> {
        match self {
            Loose::Number(number) => Some(*number),
            Loose::Text(_) | Loose::Other => None,
        }
    }
}

impl<'de> Deserialize<'de> for Loose<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Loose<'de>, D::Error> {
        deserializer.deserialize_any(LooseVisitor)
    }
}

struct LooseVisitor;

impl<'de> Visitor<'de> for LooseVisitor {
    type Value = Loose<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Loose<'de>, E> {
        Ok(Loose::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Loose<'de>, E> {
        Ok(Loose::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_string<E>(self, text: String) -> Result<Loose<'de>, E> {
        Ok(Loose::Text(Cow::Owned(text)))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Loose<'de>, E> {
        Ok(Loose::Number(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Loose<'de>, E> {
        Ok(i64::try_from(number).map_or(Loose::Other, Loose::Number))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Loose<'de>, E> {
        Ok(Loose::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Loose<'de>, E> {
        Ok(Loose::Other)
    }

    fn visit_unit<E>(self) -> Result<Loose<'de>, E> {
        Ok(Loose::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Loose<'de>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Loose::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Loose<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Loose::Other)
    }
}

/// Why a text is no JSON object. Says nothing of what the text holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no JSON object: {reason} at byte {at}")]
pub struct NoObject {
    /// What is wrong.
    pub reason: String,
    /// Where in the text, counted from 0.
    pub at: usize,
}

impl NoObject {
    /// `serde_json` tells line and column, counted from 1.
    fn new(text: &[u8], error: &serde_json::Error) -> NoObject {
        let lines = text.split(|byte| *byte == b'\n').take(error.line().saturating_sub(1));
        let at = lines.map(|line| line.len() + 1).sum::<usize>() + error.column().saturating_sub(1);
        let told = error.to_string();
        let reason = match error.is_data() {
            // The message would have the value in it, which may be content.
            true => "another value than an object",
            false => told.rsplit_once(" at line ").map_or(told.as_str(), |(reason, _)| reason),
        };
        NoObject { reason: reason.to_owned(), at: at.min(text.len()) }
    }
}

/// An object as `serde_json` reads it: calls `take` for each member, in order.
pub fn each_member<'a>(text: &'a [u8], take: &mut dyn FnMut(&str, Loose<'a>)) -> Result<(), NoObject> {
    struct Each<'b, 'a>(&'b mut dyn FnMut(&str, Loose<'a>));
    impl<'de> Visitor<'de> for Each<'_, 'de> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            while let Some((name, value)) = map.next_entry::<Loose<'de>, Loose<'de>>()? {
                if let Loose::Text(name) = name {
                    (self.0)(&name, value);
                }
            }
            Ok(())
        }
    }
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let read = deserializer.deserialize_map(Each(take)).and_then(|()| deserializer.end());
    read.map_err(|error| NoObject::new(text, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_read(text: &str, expected: Option<&[(&str, Value<'_>)]>) {
        let mut found = Vec::new();
        let read = Members::of(text.as_bytes()).and_then(|mut members| {
            while let Some((name, value)) = members.next_member()? {
                found.push((std::str::from_utf8(name).unwrap(), value));
            }
            Ok(())
        });
        assert_eq!(read.is_ok().then_some(&found[..]), expected, "{text}");
        // What is read here is JSON, with as many members.
        let mut members = 0;
        let json = each_member(text.as_bytes(), &mut |_, _| members += 1);
        if read.is_ok() {
            assert_eq!((json.is_ok(), members), (true, found.len()), "{text}");
        }
    }

    #[test]
    fn usual_objects_are_read() {
        let text = |raw: &'static str, escaped| Value::Text(Text { raw: raw.as_bytes(), escaped });
        check_read("{}", Some(&[]));
        check_read(" \t{ \r\n} ", Some(&[]));
        check_read(r#"{"a":"b"}"#, Some(&[("a", text("b", false))]));
        check_read(
            r#" { "a" : "" , "":-12,"c":0,"d":null,"e":true,"f":false,"g":[],"h":{},"i":"\"\\\u002b" } "#,
            Some(&[
                ("a", text("", false)),
                ("", Value::Number(-12)),
                ("c", Value::Number(0)),
                ("d", Value::Null),
                ("e", Value::Other),
                ("f", Value::Other),
                ("g", Value::Other),
                ("h", Value::Other),
                ("i", text(r#"\"\\\u002b"#, true)),
            ]),
        );
        check_read(r#"{"a":123456789012345678}"#, Some(&[("a", Value::Number(123_456_789_012_345_678))]));
    }

    #[test]
    fn the_unusual_is_left_to_others() {
        for text in [
            "",
            " ",
            "{",
            "[]",
            "{}{}",
            "{} x",
            "{,}",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{"a":1 "b":2}"#,
            r#"{"a":01}"#,
            r#"{"a":-}"#,
            r#"{"a":1.5}"#,
            r#"{"a":1e5}"#,
            r#"{"a":1234567890123456789}"#,
            r#"{"a":nul}"#,
            r#"{"a":[1]}"#,
            r#"{"a":"b}"#,
            r#"{"a":"b\"#,
            r#"{"a":"b\"}"#,
            r#"{"\u0061":"b"}"#,
            "{\"a\n\":1}",
            "{\"é\":1}",
        ] {
            check_read(text, None);
        }
    }

    #[test]
    fn escapes_are_undone() {
        let check_unescape = |raw: &str, expected: Option<&[u8]>| {
            let mut text = b"old".to_vec();
            let undone = Text { raw: raw.as_bytes(), escaped: true }.unescape(&mut text);
            assert_eq!(undone.ok().map(|()| &text[..]), expected, "{raw}");
        };
        check_unescape("", Some(b""));
        check_unescape("plain", Some(b"plain"));
        check_unescape(r#"\"\\\/\n\r\t\b\f"#, Some(b"\"\\/\n\r\t\x08\x0c"));
        check_unescape(r"a\u002bb\u007F", Some(b"a+b\x7f"));
        for bad in [r"\", r"\x", r"\u00e9", r"\u00", r"\u+0a1", r"\ud83d\ude00"] {
            check_unescape(bad, None);
        }
    }
}
