//! JSON with positions: serde_json checks the syntax, and each value keeps the byte offset at which it stands.
//!
//! Pure. A [`Node`] is a slice of the text that it was parsed from, so its offset is where the slice begins.
//! Values are taken apart one level at a time, and nothing here recurses: deep nesting costs no stack.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// What serde_json says about a text, and at which byte of it.
#[derive(Debug, PartialEq, Eq)]
pub struct SyntaxError {
    pub offset: usize,
    pub text: String,
}

/// A value in a document.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    document: &'a str,
    raw: &'a str,
}

/// A key and its value in an object.
#[derive(Debug)]
pub struct Member<'a> {
    pub key: Cow<'a, str>,
    /// Where the key begins; a key with escapes is not a slice of the text, and has its value's offset.
    pub key_offset: usize,
    pub value: Node<'a>,
}

/// Parses a whole document; the syntax of everything in it is checked here.
pub fn parse(document: &str) -> Result<Node<'_>, SyntaxError> {
    match serde_json::from_str::<&RawValue>(document) {
        Ok(raw) => Ok(Node { document, raw: raw.get() }),
        Err(error) => Err(syntax_error(document, &error)),
    }
}

impl<'a> Node<'a> {
    /// The byte at which the value begins.
    pub fn offset(&self) -> usize {
        offset_in(self.document, self.raw)
    }

    /// What the value is, as a reader would call it.
    pub fn kind(&self) -> &'static str {
        match self.raw.as_bytes().first() {
            Some(b'{') => "an object",
            Some(b'[') => "a list",
            Some(b'"') => "a text",
            Some(b't' | b'f') => "true or false",
            Some(b'n') => "null",
            _ => "a number",
        }
    }

    /// The members of an object; none for any other value.
    pub fn members(&self) -> Option<Result<Vec<Member<'a>>, SyntaxError>> {
        self.raw.starts_with('{').then(|| {
            let Members(pairs) = serde_json::from_str(self.raw).map_err(|error| self.within(&error))?;
            let member = |(Key(key), raw): (Key<'a>, &'a RawValue)| {
                let value = Node { document: self.document, raw: raw.get() };
                let key_offset = match key {
                    Cow::Borrowed(key) => offset_in(self.document, key) - 1, // its quote
                    Cow::Owned(_) => value.offset(),
                };
                Member { key, key_offset, value }
            };
            Ok(pairs.into_iter().map(member).collect())
        })
    }

    /// The elements of a list; none for any other value.
    pub fn elements(&self) -> Option<Result<Vec<Node<'a>>, SyntaxError>> {
        self.raw.starts_with('[').then(|| {
            let raws: Vec<&'a RawValue> =
                serde_json::from_str(self.raw).map_err(|error| self.within(&error))?;
            Ok(raws.into_iter().map(|raw| Node { document: self.document, raw: raw.get() }).collect())
        })
    }

    /// A string without its quotes and escapes, or a number as it is written; none for any other value.
    pub fn scalar(&self) -> Option<Result<String, SyntaxError>> {
        match self.kind() {
            "a text" => Some(serde_json::from_str(self.raw).map_err(|error| self.within(&error))),
            "a number" => Some(Ok(self.raw.to_owned())),
            _ => None,
        }
    }

    /// The only errors left inside a checked document are escapes that name no character (`"\ud800"`).
    fn within(&self, error: &serde_json::Error) -> SyntaxError {
        let SyntaxError { offset, text } = syntax_error(self.raw, error);
        SyntaxError { offset: self.offset() + offset, text }
    }
}

/// Line and column of a byte, both from 1, the column in characters.
pub fn line_and_column(document: &str, offset: usize) -> (usize, usize) {
    let before = &document.as_bytes()[..offset.min(document.len())];
    let line_start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
    let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
    // Bytes 10xxxxxx continue a character (RFC 3629, 3).
    let column = 1 + before[line_start..].iter().filter(|&&byte| byte & 0xc0 != 0x80).count();
    (line, column)
}

/// Where `part` begins; it is a slice of `document`.
fn offset_in(document: &str, part: &str) -> usize {
    part.as_ptr() as usize - document.as_ptr() as usize
}

fn syntax_error(text: &str, error: &serde_json::Error) -> SyntaxError {
    let line_start = match error.line() {
        0 | 1 => 0,
        line => text.match_indices('\n').nth(line - 2).map_or(text.len(), |(newline, _)| newline + 1),
    };
    let offset = (line_start + error.column().saturating_sub(1)).min(text.len());
    let said = error.to_string();
    let reason = said.rsplit_once(" at line ").map_or(said.as_str(), |(reason, _)| reason);
    SyntaxError { offset, text: reason.to_owned() }
}

struct Members<'a>(Vec<(Key<'a>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Members(pairs))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// `Cow` alone would always own what it is given.
#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_knows_where_it_stands() {
        let document = "{ \"é\": [1],\r\n\t\"b\" : \"x\\n\", \"\\u0063\":-1.5e3}\n";
        let members = parse(document).unwrap().members().unwrap().unwrap();
        let seen: Vec<_> = members
            .iter()
            .map(|member| {
                let key = line_and_column(document, member.key_offset);
                let value = line_and_column(document, member.value.offset());
                (member.key.as_ref(), key, value, member.value.kind(), member.value.scalar())
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("é", (1, 3), (1, 8), "a list", None),
                ("b", (2, 2), (2, 8), "a text", Some(Ok("x\n".to_owned()))),
                ("c", (2, 24), (2, 24), "a number", Some(Ok("-1.5e3".to_owned()))),
            ]
        );
    }

    fn check_error(document: &str, place: (usize, usize), text: &str) {
        let error = parse(document).unwrap_err();
        assert_eq!(
            (line_and_column(document, error.offset), error.text.as_str()),
            (place, text),
            "{document:?}"
        );
    }

    #[test]
    fn syntax_errors_have_a_place() {
        check_error("", (1, 1), "EOF while parsing a value");
        check_error("{\n  \"a\": 1,\n}", (3, 1), "key must be a string");
        check_error("{\n  \"é\": @A\n}", (2, 8), "expected value");
        check_error("{} x", (1, 4), "trailing characters");
        check_error("{\"a\": 1\n\n", (3, 1), "EOF while parsing an object");
    }

    #[test]
    fn half_a_surrogate_pair_is_an_error_at_its_place() {
        let document = "\n {\"a\": \"\\ud800\"}";
        let members = parse(document).unwrap().members().unwrap().unwrap();
        let error = members[0].value.scalar().unwrap().unwrap_err();
        assert_eq!(line_and_column(document, error.offset).0, 2);
        assert!(parse("{\"\\ud800\": 1}").unwrap().members().unwrap().is_err());
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = "[".repeat(500_000) + &"]".repeat(500_000);
        let document = format!("{{\"a\": {deep}}}");
        assert_eq!(parse(&document).unwrap().members().unwrap().unwrap().len(), 1);
    }
}
