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
    /// Return the values of these fields, from the source.
    pub fields: Vec<WantedField>,
    /// Return the values of these fields, as a column stores them.
    pub docvalue_fields: Vec<WantedField>,
    /// `stored_fields`: return no source, unless the request asks for it in another way.
    pub hides_source: bool,
}

/// A field whose values a search returns.
#[derive(Clone, Debug, PartialEq)]
pub struct WantedField {
    /// Full name, or a pattern with `*`.
    pub pattern: String,
    /// Format of dates.
    pub format: Option<String>,
    /// Return values that no field of the mapping has.
    pub includes_unmapped: bool,
}

/// Limit of `docvalue_fields` in Elasticsearch, here for `fields` too.
const WANTED_MAX: usize = 100;

impl HitOptions {
    /// Tells whether values of fields are wanted, which are read from the source.
    pub(crate) fn reads_source(&self) -> bool {
        !self.fields.is_empty() || !self.docvalue_fields.is_empty()
    }

    /// Reads a member of a request. Returns false if it is not about hits.
    pub(super) fn read(&mut self, key: &str, json: &OrderedJson) -> Result<bool, QueryError> {
        match key {
            "version" => self.version = json.to_bool(key)?,
            "seq_no_primary_term" => self.seq_no_primary_term = json.to_bool(key)?,
            "fields" | "docvalue_fields" if matches!(json, OrderedJson::List(_)) => {
                let wanted = parse_wanted_fields(key, json)?;
                match key {
                    "fields" => self.fields = wanted,
                    _ => self.docvalue_fields = wanted,
                }
            }
            "stored_fields" if matches!(json, OrderedJson::Text(_) | OrderedJson::List(_)) => {
                let names = json.to_texts(key)?;
                if names.iter().any(|name| name == "_none_") {
                    return Err(QueryError::argument(
                        "[stored_fields] [_none_] is not supported in a search",
                    ));
                }
                // No field is stored, except the source.
                self.hides_source = !names.iter().any(|name| name == "_source");
            }
            "explain" | "highlight" | "stored_fields" | "fields" | "docvalue_fields" | "script_fields" => {
                return Ok(json.is_off());
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn parse_wanted_fields(key: &str, json: &OrderedJson) -> Result<Vec<WantedField>, QueryError> {
    let OrderedJson::List(list) = json else { return Ok(Vec::new()) };
    if list.len() > WANTED_MAX {
        return Err(QueryError::argument(format!(
            "Trying to retrieve too many {key}. Must be less than or equal to: [{WANTED_MAX}] but was [{}]. This limit can \
             be set by changing the [index.max_{key}_search] index level setting.",
            list.len()
        )));
    }
    list.iter().map(parse_wanted_field).collect()
}

fn parse_wanted_field(json: &OrderedJson) -> Result<WantedField, QueryError> {
    let mut wanted = WantedField { pattern: String::new(), format: None, includes_unmapped: false };
    match json {
        OrderedJson::Text(name) => wanted.pattern = name.clone(),
        OrderedJson::Object(members) => {
            for (key, json) in members {
                match (key.as_str(), json.to_text()) {
                    ("field", Some(name)) => wanted.pattern = name,
                    ("format", format) => wanted.format = format,
                    ("include_unmapped", _) => wanted.includes_unmapped = json.to_bool(key)?,
                    (key, _) => {
                        let reason = format!("[fetch_field_and_format] unknown field [{key}]");
                        return Err(QueryError {
                            kind: "x_content_parse_exception",
                            ..QueryError::argument(reason)
                        });
                    }
                }
            }
        }
        json => {
            let reason =
                format!("[fetch_field_and_format] Expected START_OBJECT but was: {}", json.token_name());
            return Err(QueryError::parsing(reason));
        }
    }
    match wanted.pattern.is_empty() {
        true => Err(QueryError::argument("Required [field]")),
        false => Ok(wanted),
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
