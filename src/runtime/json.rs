//! JSON objects with their members in order. Pure code.
//!
//! Values are not decoded: they are slices of the text, so they can be copied byte for byte, and deep nesting needs no
//! stack.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A JSON object. Keys can repeat.
#[derive(Debug)]
pub(crate) struct JsonObject<'a>(pub Vec<(Cow<'a, str>, &'a RawValue)>);

// A plain `Cow` field would always be deserialised as owned.
#[derive(serde::Deserialize)]
struct BorrowedText<'a>(#[serde(borrow)] Cow<'a, str>);

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
    serde_json::from_str::<BorrowedText<'_>>(raw.get()).ok().map(|BorrowedText(text)| text)
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
    fn deep_nesting_needs_no_stack() {
        let text = format!("{{\"a\":{}1{}}}", "[".repeat(500_000), "]".repeat(500_000));
        let object: JsonObject<'_> = serde_json::from_str(&text).unwrap();
        assert_eq!(object.0.len(), 1);
    }
}
