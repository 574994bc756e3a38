//! JSON of answers, with the members of objects in order. Pure code.

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::json::OrderedJson;
use super::{Hit, HitOptions, Sort, SourceFilter};

/// A JSON value of an answer.
#[derive(Clone, Debug)]
pub enum OutputJson {
    Null,
    Bool(bool),
    Long(i64),
    /// NaN and infinities become texts, as in Elasticsearch.
    Double(f64),
    Text(String),
    Value(Value),
    Raw(Box<RawValue>),
    List(Vec<OutputJson>),
    Object(Vec<(String, OutputJson)>),
    /// Hits inside an aggregation, which the HTTP API renders.
    Hits(Box<BucketHits>),
}

/// The hits of a `top_hits` aggregation.
#[derive(Clone, Debug)]
pub struct BucketHits {
    pub total: u64,
    pub hits: Vec<Hit>,
    pub sort: Vec<Sort>,
    pub source: SourceFilter,
    pub options: HitOptions,
}

impl OutputJson {
    /// A whole number.
    pub(crate) fn count(number: u64) -> OutputJson {
        OutputJson::Long(i64::try_from(number).unwrap_or(i64::MAX))
    }

    /// A number, or null without one.
    pub(crate) fn number(number: Option<f64>) -> OutputJson {
        number.map_or(OutputJson::Null, OutputJson::Double)
    }

    /// Returns a member of an object.
    pub(crate) fn get(&self, name: &str) -> Option<&OutputJson> {
        match self {
            OutputJson::Object(members) => {
                members.iter().find(|(found, _)| found == name).map(|(_, value)| value)
            }
            _ => None,
        }
    }
}

impl From<&OrderedJson> for OutputJson {
    fn from(json: &OrderedJson) -> OutputJson {
        match json {
            OrderedJson::Null => OutputJson::Null,
            OrderedJson::Bool(value) => OutputJson::Bool(*value),
            OrderedJson::Long(number) => OutputJson::Long(*number),
            OrderedJson::Double(number) => OutputJson::Double(*number),
            OrderedJson::Text(text) => OutputJson::Text(text.clone()),
            OrderedJson::List(list) => OutputJson::List(list.iter().map(OutputJson::from).collect()),
            OrderedJson::Object(members) => {
                OutputJson::Object(members.iter().map(|(name, json)| (name.clone(), json.into())).collect())
            }
        }
    }
}

impl Serialize for OutputJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            OutputJson::Null | OutputJson::Hits(_) => serializer.serialize_unit(),
            OutputJson::Bool(value) => serializer.serialize_bool(*value),
            OutputJson::Long(number) => serializer.serialize_i64(*number),
            OutputJson::Double(number) if number.is_nan() => serializer.serialize_str("NaN"),
            OutputJson::Double(number) if number.is_infinite() => {
                serializer.serialize_str(if *number > 0.0 { "Infinity" } else { "-Infinity" })
            }
            OutputJson::Double(number) => serializer.serialize_f64(*number),
            OutputJson::Text(text) => serializer.serialize_str(text),
            OutputJson::Value(value) => value.serialize(serializer),
            OutputJson::Raw(raw) => raw.serialize(serializer),
            OutputJson::List(list) => {
                let mut items = serializer.serialize_seq(Some(list.len()))?;
                list.iter().try_for_each(|item| items.serialize_element(item))?;
                items.end()
            }
            OutputJson::Object(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                members.iter().try_for_each(|(name, value)| map.serialize_entry(name, value))?;
                map.end()
            }
        }
    }
}
