//! JSON as requests have it: an object's keys in their order, none of them twice. Pure.
//!
//! The order counts (of `gt` and `gte` the later one holds), and a key that comes twice is refused, as Elasticsearch
//! does it: taking the last would leave out what was asked.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{QueryError, Value};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Long(i64),
    Double(f64),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    pub fn read(bytes: &[u8]) -> Result<Json, QueryError> {
        serde_json::from_slice(bytes).map_err(|error| QueryError::json(error.to_string()))
    }

    /// Elasticsearch's word for what this begins with.
    pub fn token(&self) -> &'static str {
        match self {
            Json::Null => "VALUE_NULL",
            Json::Bool(_) => "VALUE_BOOLEAN",
            Json::Long(_) | Json::Double(_) => "VALUE_NUMBER",
            Json::Text(_) => "VALUE_STRING",
            Json::List(_) => "START_ARRAY",
            Json::Object(_) => "START_OBJECT",
        }
    }

    /// A string, a number or a boolean as text.
    pub fn text(&self) -> Option<String> {
        match self {
            Json::Text(text) => Some(text.clone()),
            Json::Bool(value) => Some(value.to_string()),
            Json::Long(number) => Some(number.to_string()),
            Json::Double(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// A string, a number or a boolean as it is.
    pub fn value(&self) -> Option<Value> {
        match self {
            Json::Text(text) => Some(Value::Text(text.clone())),
            Json::Bool(value) => Some(Value::Bool(*value)),
            Json::Long(number) => Some(Value::Long(*number)),
            Json::Double(number) => Some(Value::Double(*number)),
            _ => None,
        }
    }

    /// An integer; a string that is one too.
    pub fn long(&self, key: &str) -> Result<i64, QueryError> {
        let number = match self {
            Json::Long(number) => Some(*number),
            Json::Text(text) => text.parse().ok(),
            _ => None,
        };
        number
            .ok_or_else(|| QueryError::parsing(format!("[{key}] must be an integer, found {}", self.shown())))
    }

    /// A boolean; a string that is one too.
    pub fn bool(&self, key: &str) -> Result<bool, QueryError> {
        match self.text().as_deref() {
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            _ => Err(QueryError::parsing(format!("[{key}] must be true or false, found {}", self.shown()))),
        }
    }

    /// The strings of a list, or the one that stands there alone.
    pub fn texts(&self, key: &str) -> Result<Vec<String>, QueryError> {
        let list = match self {
            Json::List(list) => list.as_slice(),
            one => std::slice::from_ref(one),
        };
        let wrong =
            |item: &Json| QueryError::parsing(format!("[{key}] has a {}, not a string", item.token()));
        list.iter().map(|item| item.text().ok_or_else(|| wrong(item))).collect()
    }

    /// Off, empty, or not there.
    pub fn is_off(&self) -> bool {
        match self {
            Json::Null | Json::Bool(false) | Json::Long(0) => true,
            Json::List(list) => list.is_empty(),
            Json::Object(members) => members.is_empty(),
            Json::Text(text) => text == "false",
            _ => false,
        }
    }

    fn shown(&self) -> String {
        match self.text() {
            Some(text) => format!("[{}]", text.chars().take(100).collect::<String>()),
            None => self.token().to_owned(),
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
        Ok(Json::Long(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
        // Past 63 bits its digits are kept: a long field refuses them, a keyword has them as they are.
        Ok(i64::try_from(number).map_or_else(|_| Json::Text(number.to_string()), Json::Long))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Json, E> {
        Ok(Json::Double(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let (mut object, mut keys) = (Vec::new(), std::collections::HashSet::new());
        while let Some(key) = members.next_key::<String>()? {
            if !keys.insert(key.clone()) {
                return Err(de::Error::custom(format!("Duplicate field '{key}'")));
            }
            object.push((key, members.next_value()?));
        }
        Ok(Json::Object(object))
    }
}
