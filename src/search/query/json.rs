//! JSON values of requests: objects keep the order of their keys, and duplicate keys are an error. Pure code.
//!
//! The order matters: of `gt` and `gte` the later one wins. Duplicate keys are rejected, as Elasticsearch
//! does; using only the last one would silently drop a part of the query.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{QueryError, QueryValue};

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum OrderedJson {
    Null,
    Bool(bool),
    Long(i64),
    Double(f64),
    Text(String),
    List(Vec<OrderedJson>),
    Object(Vec<(String, OrderedJson)>),
}

impl OrderedJson {
    pub(super) fn parse(bytes: &[u8]) -> Result<OrderedJson, QueryError> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        serde_json::from_slice(bytes).map_err(|error| QueryError::json(error.to_string()))
    }

    /// Elasticsearch's name of the first token of this value.
    pub(super) fn token_name(&self) -> &'static str {
        match self {
            OrderedJson::Null => "VALUE_NULL",
            OrderedJson::Bool(_) => "VALUE_BOOLEAN",
            OrderedJson::Long(_) | OrderedJson::Double(_) => "VALUE_NUMBER",
            OrderedJson::Text(_) => "VALUE_STRING",
            OrderedJson::List(_) => "START_ARRAY",
            OrderedJson::Object(_) => "START_OBJECT",
        }
    }

    /// A string, number or boolean, converted to text.
    pub(super) fn to_text(&self) -> Option<String> {
        match self {
            OrderedJson::Text(text) => Some(text.clone()),
            OrderedJson::Bool(value) => Some(value.to_string()),
            OrderedJson::Long(number) => Some(number.to_string()),
            OrderedJson::Double(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// A string, number or boolean.
    pub(super) fn to_value(&self) -> Option<QueryValue> {
        match self {
            OrderedJson::Text(text) => Some(QueryValue::Text(text.clone())),
            OrderedJson::Bool(value) => Some(QueryValue::Bool(*value)),
            OrderedJson::Long(number) => Some(QueryValue::Long(*number)),
            OrderedJson::Double(number) => Some(QueryValue::Double(*number)),
            _ => None,
        }
    }

    /// An integer, or a string that contains one.
    pub(super) fn to_long(&self, key: &str) -> Result<i64, QueryError> {
        let number = match self {
            OrderedJson::Long(number) => Some(*number),
            OrderedJson::Text(text) => text.parse().ok(),
            _ => None,
        };
        number.ok_or_else(|| {
            QueryError::parsing(format!("[{key}] must be an integer, found {}", self.excerpt()))
        })
    }

    /// A boolean, or a string that contains one.
    pub(super) fn to_bool(&self, key: &str) -> Result<bool, QueryError> {
        match self.to_text().as_deref() {
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            _ => Err(QueryError::parsing(format!("[{key}] must be true or false, found {}", self.excerpt()))),
        }
    }

    /// The strings of a list; a single string counts as a list of one.
    pub(super) fn to_texts(&self, key: &str) -> Result<Vec<String>, QueryError> {
        let list = match self {
            OrderedJson::List(list) => list.as_slice(),
            one => std::slice::from_ref(one),
        };
        let wrong = |item: &OrderedJson| {
            QueryError::parsing(format!("[{key}] has a {}, not a string", item.token_name()))
        };
        list.iter().map(|item| item.to_text().ok_or_else(|| wrong(item))).collect()
    }

    /// True for null, false, 0, `"false"` and empty containers.
    pub(super) fn is_off(&self) -> bool {
        match self {
            OrderedJson::Null | OrderedJson::Bool(false) | OrderedJson::Long(0) => true,
            OrderedJson::List(list) => list.is_empty(),
            OrderedJson::Object(members) => members.is_empty(),
            OrderedJson::Text(text) => text == "false",
            _ => false,
        }
    }

    /// Converts to a value without an order of members.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match self {
            OrderedJson::Null => serde_json::Value::Null,
            OrderedJson::Bool(value) => (*value).into(),
            OrderedJson::Long(number) => (*number).into(),
            OrderedJson::Double(number) => (*number).into(),
            OrderedJson::Text(text) => text.as_str().into(),
            OrderedJson::List(list) => list.iter().map(OrderedJson::to_json).collect(),
            OrderedJson::Object(members) => {
                let members = members.iter().map(|(name, json)| (name.clone(), json.to_json()));
                serde_json::Value::Object(members.collect())
            }
        }
    }

    fn excerpt(&self) -> String {
        match self.to_text() {
            Some(text) => format!("[{}]", text.chars().take(100).collect::<String>()),
            None => self.token_name().to_owned(),
        }
    }
}

impl<'de> Deserialize<'de> for OrderedJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OrderedJson, D::Error> {
        deserializer.deserialize_any(OrderedJsonVisitor)
    }
}

struct OrderedJsonVisitor;

impl<'de> Visitor<'de> for OrderedJsonVisitor {
    type Value = OrderedJson;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<OrderedJson, E> {
        Ok(OrderedJson::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<OrderedJson, E> {
        Ok(OrderedJson::Bool(value))
    }

    fn visit_i64<E>(self, number: i64) -> Result<OrderedJson, E> {
        Ok(OrderedJson::Long(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<OrderedJson, E> {
        // Above 63 bits the digits are kept: a long field rejects them, a keyword field matches them as text.
        Ok(i64::try_from(number).map_or_else(|_| OrderedJson::Text(number.to_string()), OrderedJson::Long))
    }

    fn visit_f64<E>(self, number: f64) -> Result<OrderedJson, E> {
        Ok(OrderedJson::Double(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<OrderedJson, E> {
        Ok(OrderedJson::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<OrderedJson, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(OrderedJson::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<OrderedJson, A::Error> {
        let (mut object, mut keys) = (Vec::new(), std::collections::HashSet::new());
        while let Some(key) = members.next_key::<String>()? {
            if !keys.insert(key.clone()) {
                return Err(de::Error::custom(format!("Duplicate field '{key}'")));
            }
            object.push((key, members.next_value()?));
        }
        Ok(OrderedJson::Object(object))
    }
}
