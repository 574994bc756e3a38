//! JSON objects with their members in order. Pure code.
//!
//! Values are not decoded: they are slices of the text, so they can be copied byte for byte, and deep nesting needs no
//! stack.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// A JSON object. Keys can repeat.
#[derive(Debug)]
pub(crate) struct JsonObject<'a>(pub Vec<(Cow<'a, str>, &'a RawValue)>);

/// A JSON string that is borrowed if it has no escapes.
// A plain `Cow` field would always be deserialised as owned.
#[derive(serde::Deserialize)]
pub(crate) struct BorrowedText<'a>(#[serde(borrow)] pub Cow<'a, str>);

impl<'de> Deserialize<'de> for JsonObject<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = JsonObject<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<JsonObject<'de>, A::Error> {
                let mut members = Vec::with_capacity(16);
                while let Some((BorrowedText(name), value)) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(JsonObject(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

impl<'a> JsonObject<'a> {
    /// Returns a member. Of repeated members the last one counts.
    pub(crate) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().rfind(|(found, _)| found == name).map(|(_, raw)| *raw)
    }

    /// Returns a member's value if it is a string that is not empty.
    pub(crate) fn non_empty_string(&self, name: &str) -> Option<Cow<'a, str>> {
        string_value(self.get(name)?).filter(|text| !text.is_empty())
    }

    /// Returns a member's value if it is a string or a number.
    pub(crate) fn scalar(&self, name: &str) -> Option<Cow<'a, str>> {
        let raw = self.get(name)?;
        let is_number = |raw: &&str| raw.starts_with(|first: char| first == '-' || first.is_ascii_digit());
        string_value(raw).or_else(|| Some(raw.get()).filter(is_number).map(Cow::Borrowed))
    }
}

/// Returns the value of a JSON string, `None` for other JSON values.
pub(crate) fn string_value(raw: &RawValue) -> Option<Cow<'_, str>> {
    if let Ok(BorrowedText(text)) = serde_json::from_str(raw.get()) {
        return Some(text);
    }
    let repaired = replace_lone_surrogates(raw.get().as_bytes())?;
    serde_json::from_slice::<String>(&repaired).ok().map(Cow::Owned)
}

/// Parses a JSON value. A lone surrogate (`\udcff`, which Python writes for a byte that is not UTF-8) becomes U+FFFD.
pub(crate) fn parse_value(text: &[u8]) -> serde_json::Result<Value> {
    serde_json::from_slice(text).or_else(|error| match replace_lone_surrogates(text) {
        Some(repaired) => serde_json::from_slice(&repaired),
        None => Err(error),
    })
}

/// Returns the text with lone surrogates replaced if it is not JSON otherwise.
pub(crate) fn repaired(text: &[u8]) -> Option<Vec<u8>> {
    replace_lone_surrogates(text).filter(|_| serde_json::from_slice::<JsonObject<'_>>(text).is_err())
}

/// Returns the text with lone surrogates in escape sequences replaced, or `None` if it has none (RFC 8259, 8.2).
fn replace_lone_surrogates(text: &[u8]) -> Option<Vec<u8>> {
    let mut repaired: Option<Vec<u8>> = None;
    let mut at = 0;
    while let Some(found) = memchr::memchr(b'\\', &text[at..]) {
        at += found;
        let next = surrogate(text, at + 6);
        at += match surrogate(text, at) {
            Some(Surrogate::High) if next == Some(Surrogate::Low) => 12,
            Some(_) => {
                let repaired = repaired.get_or_insert_with(|| text.to_vec());
                repaired[at + 2..at + 6].copy_from_slice(b"fffd");
                6
            }
            None => 2,
        };
        if at >= text.len() {
            break;
        }
    }
    repaired
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Surrogate {
    High,
    Low,
}

/// Returns which half the escape sequence `\uXXXX` at this place is, if it is one.
fn surrogate(text: &[u8], at: usize) -> Option<Surrogate> {
    let digits = text.get(at..at + 6)?.strip_prefix(b"\\u")?;
    match u16::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()? {
        0xd800..=0xdbff => Some(Surrogate::High),
        0xdc00..=0xdfff => Some(Surrogate::Low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_order_and_their_text() {
        let text = r#"{"b": 1.50,"a":[ ],"b":"x\n","":null,"\u0061b":-2}"#;
        let object: JsonObject<'_> = serde_json::from_str(text).unwrap();
        let members: Vec<_> = object.0.iter().map(|(name, raw)| (name.as_ref(), raw.get())).collect();
        assert_eq!(members, [("b", "1.50"), ("a", "[ ]"), ("b", r#""x\n""#), ("", "null"), ("ab", "-2")]);
        assert!(matches!(object.0[0].0, Cow::Borrowed(_)));
        assert_eq!(object.non_empty_string("b").as_deref(), Some("x\n"));
        assert_eq!(object.scalar("ab").as_deref(), Some("-2"));
        assert_eq!((object.scalar("a"), object.scalar(""), object.scalar("c")), (None, None, None));
        for wrong in ["[]", "1", "{", "{} {}", r#"{"a"}"#] {
            assert!(serde_json::from_str::<JsonObject<'_>>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lone_surrogates_are_replaced() {
        for (text, expected) in [
            (r#"{"a":"x\udcffy"}"#, "x\u{fffd}y"),
            (r#"{"a":"\uD83D\uDE00"}"#, "\u{1f600}"),
            (r#"{"a":"\uD83D"}"#, "\u{fffd}"),
            (r#"{"a":"\uD83D\uD83D\uDE00"}"#, "\u{fffd}\u{1f600}"),
            (r#"{"a":"\uDE00\uD83D"}"#, "\u{fffd}\u{fffd}"),
            (r#"{"a":"\\udcff\ud800\\"}"#, "\\udcff\u{fffd}\\"),
        ] {
            assert_eq!(parse_value(text.as_bytes()).unwrap()["a"], expected, "{text}");
            let object: JsonObject<'_> = serde_json::from_str(text).unwrap();
            assert_eq!(object.non_empty_string("a").as_deref(), Some(expected), "{text}");
        }
        for text in [r#"{"a":"\ud8"}"#, r#"{"a":"\ud800"#, r#"{"a":"\u+800"}"#, r#"{"a":"\"#, "\\"] {
            assert!(parse_value(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn deep_nesting_needs_no_stack() {
        let text = format!("{{\"a\":{}1{}}}", "[".repeat(500_000), "]".repeat(500_000));
        let object: JsonObject<'_> = serde_json::from_str(&text).unwrap();
        assert_eq!(object.0.len(), 1);
    }
}
