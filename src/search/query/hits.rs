//! What a search returns of each hit. Pure code.

use super::QueryError;
use super::json::OrderedJson;

/// The part of a source to return.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceFilter {
    /// Return no source.
    pub excludes_all: bool,
    /// Return only these fields, if any are given; patterns with `*`.
    pub includes: Vec<String>,
    /// Do not return these fields.
    pub excludes: Vec<String>,
}

/// Parts of a hit besides its source.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HitOptions {
    /// Return `_version`.
    pub version: bool,
    /// Return `_seq_no` and `_primary_term`.
    pub seq_no_primary_term: bool,
}

impl HitOptions {
    /// Reads a member of a request. Returns false if it is not about hits.
    pub(super) fn read(&mut self, key: &str, json: &OrderedJson) -> Result<bool, QueryError> {
        match key {
            "version" => self.version = json.to_bool(key)?,
            "seq_no_primary_term" => self.seq_no_primary_term = json.to_bool(key)?,
            "explain" | "highlight" | "stored_fields" | "fields" | "docvalue_fields" | "script_fields" => {
                return Ok(json.is_off());
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

pub(super) fn parse_source_filter(json: &OrderedJson) -> Result<SourceFilter, QueryError> {
    let mut filter = SourceFilter::default();
    match json {
        OrderedJson::Bool(wanted) => filter.excludes_all = !wanted,
        OrderedJson::Text(_) | OrderedJson::List(_) => filter.includes = json.to_texts("_source")?,
        OrderedJson::Object(members) => {
            for (key, json) in members {
                match key.as_str() {
                    "includes" | "include" => filter.includes = json.to_texts(key)?,
                    "excludes" | "exclude" => filter.excludes = json.to_texts(key)?,
                    key => {
                        let reason = format!("Unknown key for a {} in [{key}].", json.token_name());
                        return Err(QueryError::parsing(reason));
                    }
                }
            }
        }
        json => {
            let reason = "Expected one of [VALUE_BOOLEAN, VALUE_STRING, START_ARRAY, START_OBJECT] but found";
            return Err(QueryError::parsing(format!("{reason} [{}]", json.token_name())));
        }
    }
    Ok(filter)
}
