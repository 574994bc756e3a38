//! JSON with positions: serde_json checks the syntax, and each value keeps its byte offset.
//!
//! Pure. A [`JsonNode`] is a slice of the parsed text, so its offset is the start of the slice. Objects and lists are decoded
//! one level at a time without recursion, so deep nesting needs no stack.

use std::borrow::Cow;
use std::ops::Range;

use serde_json::value::RawValue;

use crate::runtime::json::JsonObject;

/// A syntax error and its byte offset.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct JsonSyntaxError {
    pub offset: usize,
    pub text: String,
}

/// A value in a document.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JsonNode<'a> {
    document: &'a str,
    raw: &'a str,
}

/// A key and its value in an object.
#[derive(Debug)]
pub(crate) struct JsonMember<'a> {
    pub key: Cow<'a, str>,
    /// Offset of the key. A key with escapes is not a slice of the text and gets the offset of its value.
    pub key_offset: usize,
    pub value: JsonNode<'a>,
}

/// Parses a document and checks its whole syntax.
pub(crate) fn parse(document: &str) -> Result<JsonNode<'_>, JsonSyntaxError> {
    match serde_json::from_str::<&RawValue>(document) {
        Ok(raw) => Ok(JsonNode { document, raw: raw.get() }),
        Err(error) => Err(syntax_error(document, &error)),
    }
}

impl<'a> JsonNode<'a> {
    /// Returns the value at a range of a document that was parsed before.
    pub(crate) fn at(document: &'a str, range: Range<usize>) -> JsonNode<'a> {
        JsonNode { document, raw: &document[range] }
    }

    /// Returns the range of the value in its document.
    pub(crate) fn range(&self) -> Range<usize> {
        self.offset()..self.offset() + self.raw.len()
    }

    /// Returns the byte offset of the value.
    pub(crate) fn offset(&self) -> usize {
        offset_in(self.document, self.raw)
    }

    /// Returns the type of the value as it reads in a message.
    pub(crate) fn kind(&self) -> &'static str {
        match self.raw.as_bytes().first() {
            Some(b'{') => "an object",
            Some(b'[') => "a list",
            Some(b'"') => "a string",
            Some(b't' | b'f') => "true or false",
            Some(b'n') => "null",
            _ => "a number",
        }
    }

    /// Returns the members of an object, `None` for other values.
    pub(crate) fn members(&self) -> Option<Result<Vec<JsonMember<'a>>, JsonSyntaxError>> {
        self.raw.starts_with('{').then(|| {
            let JsonObject(pairs) =
                serde_json::from_str(self.raw).map_err(|error| self.offset_error(&error))?;
            let member = |(key, raw): (Cow<'a, str>, &'a RawValue)| {
                let value = JsonNode { document: self.document, raw: raw.get() };
                let key_offset = match key {
                    Cow::Borrowed(key) => offset_in(self.document, key) - 1, // its quote
                    Cow::Owned(_) => value.offset(),
                };
                JsonMember { key, key_offset, value }
            };
            Ok(pairs.into_iter().map(member).collect())
        })
    }

    /// Returns the elements of a list, `None` for other values.
    pub(crate) fn elements(&self) -> Option<Result<Vec<JsonNode<'a>>, JsonSyntaxError>> {
        self.raw.starts_with('[').then(|| {
            let raws: Vec<&'a RawValue> =
                serde_json::from_str(self.raw).map_err(|error| self.offset_error(&error))?;
            Ok(raws.into_iter().map(|raw| JsonNode { document: self.document, raw: raw.get() }).collect())
        })
    }

    /// Returns the content of a string or the text of a number, `None` for other values.
    pub(crate) fn scalar(&self) -> Option<Result<String, JsonSyntaxError>> {
        match self.kind() {
            "a string" => Some(serde_json::from_str(self.raw).map_err(|error| self.offset_error(&error))),
            "a number" => Some(Ok(self.raw.to_owned())),
            _ => None,
        }
    }

    /// Converts an error inside a checked document. Only escapes can be wrong there, as in `"\ud800"`.
    fn offset_error(&self, error: &serde_json::Error) -> JsonSyntaxError {
        let JsonSyntaxError { offset, text } = syntax_error(self.raw, error);
        JsonSyntaxError { offset: self.offset() + offset, text }
    }
}

/// Returns line and column of a byte, both starting at 1. The column counts characters.
pub(super) fn line_and_column(document: &str, offset: usize) -> (usize, usize) {
    let before = &document.as_bytes()[..offset.min(document.len())];
    let line_start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
    let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
    // Bytes 10xxxxxx continue a character (RFC 3629, section 3).
    let column = 1 + before[line_start..].iter().filter(|&&byte| byte & 0xc0 != 0x80).count();
    (line, column)
}

/// Returns the offset of `part`, which is a slice of `document`.
fn offset_in(document: &str, part: &str) -> usize {
    part.as_ptr() as usize - document.as_ptr() as usize
}

/// Returns the offset of a comma before the closing bracket at an offset.
fn trailing_comma(text: &str, offset: usize) -> Option<usize> {
    let is_close = text.get(offset..)?.starts_with(['}', ']']);
    let before = text[..offset].trim_end();
    (is_close && before.ends_with(',')).then(|| before.len() - 1)
}

fn syntax_error(text: &str, error: &serde_json::Error) -> JsonSyntaxError {
    let line_start = match error.line() {
        0 | 1 => 0,
        line => text.match_indices('\n').nth(line - 2).map_or(text.len(), |(newline, _)| newline + 1),
    };
    let offset = (line_start + error.column().saturating_sub(1)).min(text.len());
    if let Some(comma) = trailing_comma(text, offset) {
        return JsonSyntaxError { offset: comma, text: "trailing comma".to_owned() };
    }
    let said = error.to_string();
    let reason = said.rsplit_once(" at line ").map_or(said.as_str(), |(reason, _)| reason);
    JsonSyntaxError { offset, text: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_have_positions() {
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
                ("b", (2, 2), (2, 8), "a string", Some(Ok("x\n".to_owned()))),
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
    fn syntax_errors_have_a_position() {
        check_error("", (1, 1), "EOF while parsing a value");
        check_error("{\n  \"a\": 1,\n}", (2, 9), "trailing comma");
        check_error("[1, ]", (1, 3), "trailing comma");
        check_error("{,}", (1, 2), "key must be a string");
        check_error("{\n  \"é\": @A\n}", (2, 8), "expected value");
        check_error("{} x", (1, 4), "trailing characters");
        check_error("{\"a\": 1\n\n", (3, 1), "EOF while parsing an object");
    }

    #[test]
    fn an_unpaired_surrogate_is_an_error_with_a_position() {
        let document = "\n {\"a\": \"\\ud800\"}";
        let members = parse(document).unwrap().members().unwrap().unwrap();
        let error = members[0].value.scalar().unwrap().unwrap_err();
        assert_eq!(line_and_column(document, error.offset).0, 2);
        assert!(parse("{\"\\ud800\": 1}").unwrap().members().unwrap().is_err());
    }

    #[test]
    fn deep_nesting_needs_no_stack() {
        let deep = "[".repeat(500_000) + &"]".repeat(500_000);
        let document = format!("{{\"a\": {deep}}}");
        assert_eq!(parse(&document).unwrap().members().unwrap().unwrap().len(), 1);
    }
}
