//! Reader of JSON objects in records and dumps: one member at a time, directly from the text, without
//! allocation.
//!
//! It reads only the usual forms: strings, plain integers, `true`, `false`, `null`, `[]`, `{}`. For anything
//! else (nested values, fractions, non-ASCII text, syntax errors) it returns [`NeedsFullParser`], and the
//! caller uses `serde_json`, which also reports what is wrong and where. So `serde_json` alone decides what
//! is valid JSON.
//!
//! Invariant: an object that this reader accepts is accepted by `serde_json` too, with the same members.
//! Exception: the content of a string that was not decoded ([`RawString`]) is not validated here.

use std::borrow::Cow;
use std::fmt;

use memchr::{memchr, memchr2};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue as RawText;

/// The text has an unusual form, or is not JSON: use `serde_json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NeedsFullParser;

/// A string exactly as in the text, without its quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RawString<'a> {
    /// The bytes between the quotes, escapes included.
    pub raw: &'a [u8],
    pub escaped: bool,
}

/// Value of an object member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RawValue<'a> {
    Text(RawString<'a>),
    Number(i64),
    Null,
    /// `true`, `false`, `[]` or `{}`.
    Other,
}

impl<'a> RawString<'a> {
    /// Returns the text if the string is printable ASCII without escapes, as almost all strings are.
    pub(crate) fn as_plain_str(self) -> Result<&'a str, NeedsFullParser> {
        self.ensure_plain()?;
        std::str::from_utf8(self.raw).map_err(|_| NeedsFullParser)
    }

    /// Checks whether [`as_plain_str`](Self::as_plain_str) would succeed.
    pub(crate) fn ensure_plain(self) -> Result<(), NeedsFullParser> {
        // Without an early exit the compiler vectorizes this loop.
        let odd = |odd: bool, byte: &u8| odd | (*byte < 0x20) | (*byte == b'\\') | (*byte > 0x7e);
        if self.raw.iter().fold(false, odd) { Err(NeedsFullParser) } else { Ok(()) }
    }

    /// Decodes the escapes into `text`, which is cleared first. Input and output need not be UTF-8.
    pub(crate) fn unescape(self, text: &mut Vec<u8>) -> Result<(), NeedsFullParser> {
        text.clear();
        let mut rest = self.raw;
        while let Some(at) = memchr(b'\\', rest) {
            text.extend_from_slice(&rest[..at]);
            let (byte, length) = match *rest.get(at + 1).ok_or(NeedsFullParser)? {
                byte @ (b'"' | b'\\' | b'/') => (byte, 2),
                b'n' => (b'\n', 2),
                b'r' => (b'\r', 2),
                b't' => (b'\t', 2),
                b'b' => (8, 2),
                b'f' => (12, 2),
                b'u' => (parse_ascii_escape(&rest[at..])?, 6),
                _ => return Err(NeedsFullParser),
            };
            text.push(byte);
            rest = &rest[at + length..];
        }
        text.extend_from_slice(rest);
        Ok(())
    }
}

/// Decodes `\u00XX` below 0x80. Other code points and surrogate pairs are left to `serde_json`.
fn parse_ascii_escape(text: &[u8]) -> Result<u8, NeedsFullParser> {
    let digits = text.get(2..6).ok_or(NeedsFullParser)?;
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(NeedsFullParser);
    }
    let digits = std::str::from_utf8(digits).map_err(|_| NeedsFullParser)?;
    u8::from_str_radix(digits, 16).ok().filter(u8::is_ascii).ok_or(NeedsFullParser)
}

/// Iterator over the members of an object, in order.
#[derive(Debug)]
pub(crate) struct MemberReader<'a> {
    text: &'a [u8],
    at: usize,
    has_started: bool,
}

impl<'a> MemberReader<'a> {
    /// Starts reading. The object must be the whole of `text`.
    pub(crate) fn parse(text: &'a [u8]) -> Result<MemberReader<'a>, NeedsFullParser> {
        let mut members = MemberReader { text, at: 0, has_started: false };
        members.expect(b'{')?;
        Ok(members)
    }

    /// Returns the next member, or `None` at the end of the object. Only white space may follow the object.
    pub(crate) fn next_member(&mut self) -> Result<Option<(&'a [u8], RawValue<'a>)>, NeedsFullParser> {
        match self.peek()? {
            b'}' => {
                self.at += 1;
                let rest = &self.text[self.at..];
                return if rest.iter().all(is_space) { Ok(None) } else { Err(NeedsFullParser) };
            }
            b',' if self.has_started => self.at += 1,
            _ if self.has_started => return Err(NeedsFullParser),
            _ => {}
        }
        self.has_started = true;
        self.expect(b'"')?;
        let name = self.string()?;
        name.ensure_plain()?;
        self.expect(b':')?;
        Ok(Some((name.raw, self.value()?)))
    }

    fn value(&mut self) -> Result<RawValue<'a>, NeedsFullParser> {
        match self.peek()? {
            b'"' => {
                self.at += 1;
                self.string().map(RawValue::Text)
            }
            b'-' | b'0'..=b'9' => self.integer(),
            b'n' => self.literal(b"null", RawValue::Null),
            b't' => self.literal(b"true", RawValue::Other),
            b'f' => self.literal(b"false", RawValue::Other),
            b'[' => self.literal(b"[]", RawValue::Other),
            b'{' => self.literal(b"{}", RawValue::Other),
            _ => Err(NeedsFullParser),
        }
    }

    /// Reads a string whose opening quote has been consumed.
    fn string(&mut self) -> Result<RawString<'a>, NeedsFullParser> {
        let start = self.at;
        let mut escaped = false;
        loop {
            let rest = &self.text[self.at..];
            let found = memchr2(b'"', b'\\', rest).ok_or(NeedsFullParser)?;
            if rest[found] == b'"' {
                self.at += found + 1;
                return Ok(RawString { raw: &self.text[start..self.at - 1], escaped });
            }
            escaped = true;
            self.at += found + 2;
            if self.at > self.text.len() {
                return Err(NeedsFullParser);
            }
        }
    }

    fn integer(&mut self) -> Result<RawValue<'a>, NeedsFullParser> {
        let rest = &self.text[self.at..];
        let sign = usize::from(rest[0] == b'-');
        let digits = rest[sign..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        // Eighteen digits always fit into an i64. JSON has no leading zeros.
        let usual = (1..=18).contains(&digits) && (digits == 1 || rest[sign] != b'0');
        if !usual || matches!(rest.get(sign + digits), Some(b'.' | b'e' | b'E')) {
            return Err(NeedsFullParser);
        }
        let number =
            rest[sign..sign + digits].iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0'));
        self.at += sign + digits;
        Ok(RawValue::Number(if sign == 1 { -number } else { number }))
    }

    fn literal(&mut self, word: &[u8], value: RawValue<'a>) -> Result<RawValue<'a>, NeedsFullParser> {
        if !self.text[self.at..].starts_with(word) {
            return Err(NeedsFullParser);
        }
        self.at += word.len();
        Ok(value)
    }

    fn expect(&mut self, byte: u8) -> Result<(), NeedsFullParser> {
        if self.peek()? != byte {
            return Err(NeedsFullParser);
        }
        self.at += 1;
        Ok(())
    }

    fn peek(&mut self) -> Result<u8, NeedsFullParser> {
        while let Some(byte) = self.text.get(self.at) {
            if !is_space(byte) {
                return Ok(*byte);
            }
            self.at += 1;
        }
        Err(NeedsFullParser)
    }
}

fn is_space(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// A member's value as read by `serde_json`: a string, an integer, bytes, or something else whose content is
/// discarded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum JsonScalar<'a> {
    /// A string with its escapes decoded.
    Text(Cow<'a, str>),
    Number(i64),
    /// An array of bytes, signed or unsigned, as JavaScript and Java print a buffer. It is not empty.
    Bytes(Vec<u8>),
    /// `null`, or no value.
    #[default]
    Null,
    /// Any other array.
    Array,
    /// Any other object.
    Object,
    /// A fraction or a boolean.
    Other,
}

impl<'a> JsonScalar<'a> {
    pub(crate) fn into_text(self) -> Option<Cow<'a, str>> {
        if let JsonScalar::Text(text) = self { Some(text) } else { None }
    }

    pub(crate) fn as_number(&self) -> Option<i64> {
        if let JsonScalar::Number(number) = self { Some(*number) } else { None }
    }

    /// Name of the value's type, for messages.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            JsonScalar::Text(_) => "a string",
            JsonScalar::Number(_) => "a number",
            JsonScalar::Null => "null",
            JsonScalar::Bytes(_) | JsonScalar::Array => "an array",
            JsonScalar::Object => "an object",
            JsonScalar::Other => "a fraction or a boolean",
        }
    }
}

impl<'de> Deserialize<'de> for JsonScalar<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<JsonScalar<'de>, D::Error> {
        deserializer.deserialize_any(JsonScalarVisitor)
    }
}

struct JsonScalarVisitor;

impl<'de> Visitor<'de> for JsonScalarVisitor {
    type Value = JsonScalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<JsonScalar<'de>, E> {
        Ok(JsonScalar::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<JsonScalar<'de>, E> {
        Ok(JsonScalar::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_string<E>(self, text: String) -> Result<JsonScalar<'de>, E> {
        Ok(JsonScalar::Text(Cow::Owned(text)))
    }

    fn visit_i64<E>(self, number: i64) -> Result<JsonScalar<'de>, E> {
        Ok(JsonScalar::Number(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<JsonScalar<'de>, E> {
        Ok(i64::try_from(number).map_or(JsonScalar::Other, JsonScalar::Number))
    }

    fn visit_f64<E>(self, _: f64) -> Result<JsonScalar<'de>, E> {
        Ok(JsonScalar::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<JsonScalar<'de>, E> {
        Ok(JsonScalar::Other)
    }

    fn visit_unit<E>(self) -> Result<JsonScalar<'de>, E> {
        Ok(JsonScalar::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<JsonScalar<'de>, A::Error> {
        let mut bytes = Vec::new();
        while let Some(element) = seq.next_element::<ByteElement>()? {
            let Some(byte) = element.0 else {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(JsonScalar::Array);
            };
            bytes.push(byte);
        }
        Ok(if bytes.is_empty() { JsonScalar::Array } else { JsonScalar::Bytes(bytes) })
    }

    /// Reads an object. `{"type":"Buffer","data":[…]}` is how JavaScript prints a buffer.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<JsonScalar<'de>, A::Error> {
        let (mut is_buffer, mut data) = (false, JsonScalar::Object);
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            match &*name {
                "type" => is_buffer = matches!(map.next_value()?, JsonScalar::Text(text) if text == "Buffer"),
                "data" => data = map.next_value()?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(if is_buffer && matches!(data, JsonScalar::Bytes(_)) { data } else { JsonScalar::Object })
    }
}

/// An element of an array, if it is a byte: -128 to 255.
struct ByteElement(Option<u8>);

impl<'de> Deserialize<'de> for ByteElement {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ByteElement, D::Error> {
        let scalar = deserializer.deserialize_any(JsonScalarVisitor)?;
        let byte = scalar.as_number().filter(|number| (-128..=255).contains(number));
        Ok(ByteElement(byte.map(|number| number as u8)))
    }
}

/// Reason why a text is not a JSON object. It never contains any of the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a JSON object: {reason} at byte {at}")]
pub struct InvalidObject {
    /// The defect.
    pub reason: String,
    /// Byte in the text, from 0.
    pub at: usize,
}

impl InvalidObject {
    /// Converts the line and column of `serde_json`, both counted from 1, to a byte position.
    fn new(text: &[u8], error: &serde_json::Error) -> InvalidObject {
        let lines = text.split(|byte| *byte == b'\n').take(error.line().saturating_sub(1));
        let at = lines.map(|line| line.len() + 1).sum::<usize>() + error.column().saturating_sub(1);
        let message = error.to_string();
        let reason = match error.is_data() {
            // The original message contains the value, which may be intercepted content.
            true => "a value of another type",
            false => message.rsplit_once(" at line ").map_or(message.as_str(), |(reason, _)| reason),
        };
        InvalidObject { reason: reason.to_owned(), at: at.min(text.len()) }
    }
}

/// Parses an object with `serde_json` and calls `take` for each member, in order.
pub(crate) fn for_each_member<'a>(
    text: &'a [u8],
    take: &mut dyn FnMut(&str, JsonScalar<'a>),
) -> Result<(), InvalidObject> {
    struct Each<'b, 'a>(&'b mut dyn FnMut(&str, JsonScalar<'a>));
    impl<'de> Visitor<'de> for Each<'_, 'de> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            while let Some((name, value)) = map.next_entry::<JsonScalar<'de>, JsonScalar<'de>>()? {
                if let JsonScalar::Text(name) = name {
                    (self.0)(&name, value);
                }
            }
            Ok(())
        }
    }
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let read = deserializer.deserialize_map(Each(take)).and_then(|()| deserializer.end());
    read.map_err(|error| InvalidObject::new(text, &error))
}

/// Returns the members of an object, each value as its text.
pub(crate) fn raw_members<'a>(text: &'a [u8]) -> Result<Vec<(Cow<'a, str>, &'a str)>, InvalidObject> {
    struct Members;
    impl<'de> Visitor<'de> for Members {
        type Value = Vec<(Cow<'de, str>, &'de str)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some((name, value)) = map.next_entry::<JsonScalar<'de>, &'de RawText>()? {
                if let JsonScalar::Text(name) = name {
                    members.push((name, value.get()));
                }
            }
            Ok(members)
        }
    }
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let read = deserializer.deserialize_map(Members);
    read.and_then(|members| deserializer.end().map(|()| members))
        .map_err(|error| InvalidObject::new(text, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_read(text: &str, expected: Option<&[(&str, RawValue<'_>)]>) {
        let mut found = Vec::new();
        let read = MemberReader::parse(text.as_bytes()).and_then(|mut members| {
            while let Some((name, value)) = members.next_member()? {
                found.push((std::str::from_utf8(name).unwrap(), value));
            }
            Ok(())
        });
        assert_eq!(read.is_ok().then_some(&found[..]), expected, "{text}");
        // Whatever this reader accepts is valid JSON with the same number of members.
        let mut members = 0;
        let json = for_each_member(text.as_bytes(), &mut |_, _| members += 1);
        if read.is_ok() {
            assert_eq!((json.is_ok(), members), (true, found.len()), "{text}");
        }
    }

    #[test]
    fn usual_objects_are_accepted() {
        let text = |raw: &'static str, escaped| RawValue::Text(RawString { raw: raw.as_bytes(), escaped });
        check_read("{}", Some(&[]));
        check_read(" \t{ \r\n} ", Some(&[]));
        check_read(r#"{"a":"b"}"#, Some(&[("a", text("b", false))]));
        check_read(
            r#" { "a" : "" , "":-12,"c":0,"d":null,"e":true,"f":false,"g":[],"h":{},"i":"\"\\\u002b" } "#,
            Some(&[
                ("a", text("", false)),
                ("", RawValue::Number(-12)),
                ("c", RawValue::Number(0)),
                ("d", RawValue::Null),
                ("e", RawValue::Other),
                ("f", RawValue::Other),
                ("g", RawValue::Other),
                ("h", RawValue::Other),
                ("i", text(r#"\"\\\u002b"#, true)),
            ]),
        );
        check_read(r#"{"a":123456789012345678}"#, Some(&[("a", RawValue::Number(123_456_789_012_345_678))]));
    }

    #[test]
    fn unusual_objects_are_left_to_serde_json() {
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
    fn escapes_are_decoded() {
        let check_unescape = |raw: &str, expected: Option<&[u8]>| {
            let mut text = b"old".to_vec();
            let undone = RawString { raw: raw.as_bytes(), escaped: true }.unescape(&mut text);
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
