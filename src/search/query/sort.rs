//! Sort keys of a search. Pure code.

use super::QueryError;
use super::json::OrderedJson;

/// One sort key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sort {
    pub key: SortKey,
    pub descending: bool,
    /// True: documents without the field come first.
    pub missing_first: bool,
    /// Field type to assume if no index has the field; `None`: an unknown field is an error.
    pub unmapped_type: Option<String>,
    /// Format of dates in the sort values.
    pub format: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SortKey {
    /// Order of insertion (`_doc`, `_shard_doc`).
    SeqNo,
    /// The score, which is the same for all documents.
    Score,
    /// A field's value. `_id`, `_index` and `_type` are fields too.
    Field(String),
}

impl Sort {
    /// Sorts by a field.
    pub fn by_field(field: &str, descending: bool) -> Sort {
        Sort { key: SortKey::Field(field.to_owned()), descending, ..Sort::by_seq_no(false) }
    }

    /// Sorts by the order of insertion.
    pub fn by_seq_no(descending: bool) -> Sort {
        Sort { key: SortKey::SeqNo, descending, missing_first: false, unmapped_type: None, format: None }
    }
}

/// Accepts `"field"`, `{"field": "desc"}`, `{"field": {"order": ...}}`, or a list of these.
pub(super) fn parse_sorts(json: &OrderedJson) -> Result<Vec<Sort>, QueryError> {
    let list = match json {
        OrderedJson::List(list) => list.as_slice(),
        one => std::slice::from_ref(one),
    };
    let mut found = Vec::new();
    for json in list {
        match json {
            OrderedJson::Text(field) => found.push(parse_sort(field, None)?),
            OrderedJson::Object(members) => {
                for (field, json) in members {
                    found.push(match json {
                        OrderedJson::Object(options) => parse_sort_object(field, options)?,
                        json => parse_sort(field, Some(&json.to_text().unwrap_or_default()))?,
                    });
                }
            }
            _ => {
                let reason = "malformed sort format, within the sort array, an object, or an actual string are allowed";
                return Err(QueryError::argument(reason));
            }
        }
    }
    // As in Elasticsearch, the score alone is the default order.
    Ok(if is_default_order(&found) { Vec::new() } else { found })
}

/// Returns true for the order of a search without sort keys.
pub(super) fn is_default_order(sorts: &[Sort]) -> bool {
    matches!(sorts, [Sort { key: SortKey::Score, descending: true, .. }])
}

/// Parses one sort key.
pub(super) fn parse_sort(field: &str, direction: Option<&str>) -> Result<Sort, QueryError> {
    let key = match field {
        "" => return Err(QueryError::argument("[sort] has an empty field name")),
        "_doc" | "_shard_doc" => SortKey::SeqNo,
        "_score" => SortKey::Score,
        field => SortKey::Field(field.to_owned()),
    };
    let descending = match direction.map(str::to_ascii_lowercase).as_deref() {
        None => key == SortKey::Score,
        Some("asc") => false,
        Some("desc") => true,
        Some(other) => {
            return Err(QueryError::argument(format!(
                "unknown sort order [{other}], expected [asc] or [desc]"
            )));
        }
    };
    Ok(Sort { key, descending, ..Sort::by_seq_no(false) })
}

fn parse_sort_object(field: &str, options: &[(String, OrderedJson)]) -> Result<Sort, QueryError> {
    let order = options.iter().find(|(key, _)| key == "order").and_then(|(_, json)| json.to_text());
    let mut found = parse_sort(field, order.as_deref())?;
    for (key, json) in options {
        match (key.as_str(), json.to_text().as_deref()) {
            ("order", Some(_)) => {}
            ("unmapped_type", Some(kind)) => found.unmapped_type = Some(kind.to_owned()),
            ("missing", Some("_last")) => found.missing_first = false,
            ("missing", Some("_first")) => found.missing_first = true,
            ("format", Some(format)) => found.format = Some(format.to_owned()),
            ("numeric_type", Some("date" | "long" | "double")) => {}
            // These modes are the defaults for a field with several values.
            ("mode", Some("min")) if !found.descending => {}
            ("mode", Some("max")) if found.descending => {}
            _ => return Err(QueryError::content(format!("[field_sort] unknown field [{key}]"))),
        }
    }
    Ok(found)
}
