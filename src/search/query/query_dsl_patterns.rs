//! Parsers of queries about patterns, similar words, phrases and areas. Pure code.

use super::json::OrderedJson;
use super::query_dsl::{Members, field, is_ignored, text, unsupported};
use super::{FieldSelector, Fuzziness, Operator, Query, QueryError, QueryValue, TokenPattern};
use crate::search::geo::{GeoPoint, GeoShape, parse_distance_m};
use crate::search::regexp::Regexp;

fn named(field: &str) -> FieldSelector {
    FieldSelector::Named(vec![field.to_owned()])
}

/// `prefix`, `wildcard` and `regexp`.
pub(super) fn pattern_query(query: &str, members: Members<'_>) -> Result<Query, QueryError> {
    let (field, json) = field(query, members)?;
    let (mut value, mut ignores_case) = (None, false);
    match json {
        OrderedJson::Object(members) => {
            for (key, json) in members {
                match key.as_str() {
                    "value" => value = json.to_text(),
                    key if key == query => value = json.to_text(),
                    "case_insensitive" => ignores_case = json.to_bool(key)?,
                    // `ALL` is the default; the other flags allow fewer operators.
                    "flags" | "flags_value" | "max_determinized_states" if query == "regexp" => {}
                    key if is_ignored(key) => {}
                    key => return Err(unsupported(query, key)),
                }
            }
        }
        json => value = json.to_text(),
    }
    let value = value.ok_or_else(|| QueryError::argument("value cannot be null"))?;
    let pattern = match query {
        "prefix" => TokenPattern::Prefix(value),
        "wildcard" => TokenPattern::Wildcard(value),
        _ => {
            Regexp::new(&value, ignores_case)
                .map_err(|why| QueryError::shard_query(format!("failed to create query: {why}")))?;
            TokenPattern::Regexp(value)
        }
    };
    Ok(Query::Pattern { fields: named(field), pattern, ignores_case })
}

/// Returns a `term` query that ignores case.
pub(super) fn term_ignoring_case(field: &str, value: &QueryValue) -> Query {
    match value {
        QueryValue::Text(text) => Query::Pattern {
            fields: named(field),
            pattern: TokenPattern::Exact(text.clone()),
            ignores_case: true,
        },
        value => Query::Term { field: field.to_owned(), value: value.clone() },
    }
}

/// `fuzzy`, whose text is one token.
pub(super) fn fuzzy_query(members: Members<'_>) -> Result<Query, QueryError> {
    let (field, json) = field("fuzzy", members)?;
    let (mut value, mut fuzziness, mut prefix_chars, mut swaps) = (None, Fuzziness::default(), 0, true);
    match json {
        OrderedJson::Object(members) => {
            for (key, json) in members {
                match key.as_str() {
                    "value" | "term" => value = json.to_text(),
                    "fuzziness" => fuzziness = parse_fuzziness(json)?,
                    "prefix_length" => prefix_chars = prefix_length(json)?,
                    "transpositions" => swaps = json.to_bool(key)?,
                    "max_expansions" => {}
                    key if is_ignored(key) => {}
                    key => {
                        return Err(QueryError::parsing(format!("[fuzzy] query does not support [{key}]")));
                    }
                }
            }
        }
        OrderedJson::List(_) => {
            return Err(QueryError::parsing("[fuzzy] query does not support array of values"));
        }
        json => value = json.to_text(),
    }
    let text = value.ok_or_else(|| QueryError::argument("query value cannot be null"))?;
    let fuzziness = Fuzziness { prefix_chars, swaps, ..fuzziness };
    Ok(Query::Fuzzy { fields: named(field), text, operator: Operator::And, fuzziness })
}

pub(super) fn parse_fuzziness(json: &OrderedJson) -> Result<Fuzziness, QueryError> {
    let text = json.to_text().unwrap_or_default();
    Fuzziness::parse(&text).ok_or_else(|| QueryError::argument(format!("Invalid fuzziness value: [{text}]")))
}

pub(super) fn prefix_length(json: &OrderedJson) -> Result<usize, QueryError> {
    usize::try_from(json.to_long("prefix_length")?)
        .map_err(|_| QueryError::argument("prefixLength cannot be less than 0"))
}

pub(super) fn slop(json: &OrderedJson) -> Result<u32, QueryError> {
    u32::try_from(json.to_long("slop")?).map_err(|_| QueryError::argument("No negative slop allowed."))
}

/// `match_phrase_prefix`.
pub(super) fn phrase_prefix_query(members: Members<'_>) -> Result<Query, QueryError> {
    const NAME: &str = "match_phrase_prefix";
    let (field, json) = field(NAME, members)?;
    let (mut value, mut places) = (None, 0);
    match json {
        OrderedJson::Object(members) => {
            for (key, json) in members {
                match (key.as_str(), json.to_text().as_deref()) {
                    ("query", _) => value = Some(text(NAME, key, json)?),
                    ("slop", _) => places = slop(json)?,
                    ("max_expansions", _) | ("zero_terms_query", Some("none" | "NONE")) => {}
                    ("analyzer", Some("standard")) => {}
                    (key, _) if is_ignored(key) => {}
                    (key, _) => return Err(unsupported(NAME, key)),
                }
            }
        }
        json => value = Some(text(NAME, field, json)?),
    }
    let text = value.ok_or_else(|| QueryError::parsing("No text specified for text query"))?;
    Ok(Query::PhrasePrefix { fields: named(field), text, slop: places })
}

/// Keys of geo queries that change nothing here.
fn is_ignored_by_geo(key: &str) -> bool {
    matches!(key, "distance_type" | "type" | "optimize_bbox" | "validation_method") || is_ignored(key)
}

fn point(query: &str, json: &OrderedJson) -> Result<GeoPoint, QueryError> {
    let points = GeoPoint::parse_all(&json.to_json());
    let points =
        points.map_err(|why| QueryError::parsing(format!("failed to parse [{query}] query. {why}")))?;
    match points.as_slice() {
        [point] => Ok(*point),
        _ => Err(QueryError::parsing(format!("[{query}] needs one point"))),
    }
}

/// `geo_distance`.
pub(super) fn geo_distance_query(members: Members<'_>) -> Result<Query, QueryError> {
    const NAME: &str = "geo_distance";
    let (mut center, mut distance, mut unit, mut ignores_unmapped) = (None, None, String::new(), false);
    for (key, json) in members {
        match key.as_str() {
            "distance" => distance = json.to_text(),
            "unit" => unit = text(NAME, key, json)?,
            "ignore_unmapped" => ignores_unmapped = json.to_bool(key)?,
            key if is_ignored_by_geo(key) => {}
            field if center.is_none() => center = Some((field.to_owned(), point(NAME, json)?)),
            key => {
                return Err(QueryError::parsing(format!(
                    "[{NAME}] query doesn't support multiple fields, found [{key}]"
                )));
            }
        }
    }
    let (field, center) = center.ok_or_else(|| QueryError::parsing("geo_distance requires a field"))?;
    let distance =
        distance.ok_or_else(|| QueryError::parsing("geo_distance requires 'distance' to be specified"))?;
    let has_unit = distance.ends_with(|c: char| c.is_ascii_alphabetic());
    let written = if has_unit { distance.clone() } else { format!("{distance}{unit}") };
    let radius_m = parse_distance_m(&written)
        .ok_or_else(|| QueryError::argument(format!("invalid distance [{distance}]")))?;
    if radius_m == 0.0 {
        return Err(QueryError::argument("distance must be greater than zero"));
    }
    Ok(Query::Geo { field, shape: GeoShape::Circle { center, radius_m }, ignores_unmapped })
}

/// `geo_bounding_box`.
pub(super) fn geo_box_query(members: Members<'_>) -> Result<Query, QueryError> {
    const NAME: &str = "geo_bounding_box";
    let (mut found, mut ignores_unmapped) = (None, false);
    for (key, json) in members {
        match (key.as_str(), json) {
            ("ignore_unmapped", json) => ignores_unmapped = json.to_bool(key)?,
            (key, _) if is_ignored_by_geo(key) => {}
            (field, OrderedJson::Object(corners)) if found.is_none() => {
                found = Some((field.to_owned(), parse_box(corners)?));
            }
            (key, json) => {
                let token = json.token_name();
                return Err(QueryError::parsing(format!(
                    "failed to parse [{NAME}] query. unexpected field [{key}] {token}"
                )));
            }
        }
    }
    let (field, shape) =
        found.ok_or_else(|| QueryError::parsing(format!("failed to parse [{NAME}] query. no field")))?;
    Ok(Query::Geo { field, shape, ignores_unmapped })
}

fn parse_box(corners: Members<'_>) -> Result<GeoShape, QueryError> {
    const NAME: &str = "geo_bounding_box";
    let (mut top, mut left, mut bottom, mut right) = (None, None, None, None);
    for (key, json) in corners {
        let number = || match json.to_text().map(|text| text.trim().parse::<f64>()) {
            Some(Ok(number)) => Ok(Some(number)),
            _ => {
                Err(QueryError::parsing(format!("failed to parse [{NAME}] query. [{key}] must be a number")))
            }
        };
        match key.as_str() {
            "top_left" => {
                let point = point(NAME, json)?;
                (top, left) = (Some(point.lat), Some(point.lon));
            }
            "bottom_right" => {
                let point = point(NAME, json)?;
                (bottom, right) = (Some(point.lat), Some(point.lon));
            }
            "top_right" => {
                let point = point(NAME, json)?;
                (top, right) = (Some(point.lat), Some(point.lon));
            }
            "bottom_left" => {
                let point = point(NAME, json)?;
                (bottom, left) = (Some(point.lat), Some(point.lon));
            }
            "top" => top = number()?,
            "left" => left = number()?,
            "bottom" => bottom = number()?,
            "right" => right = number()?,
            key => {
                return Err(QueryError::parsing(format!(
                    "failed to parse [{NAME}] query. unexpected field [{key}]"
                )));
            }
        }
    }
    match (top, left, bottom, right) {
        (Some(top), Some(left), Some(bottom), Some(right)) if top >= bottom => {
            Ok(GeoShape::Box { top, left, bottom, right })
        }
        (Some(top), Some(_), Some(bottom), Some(_)) => {
            Err(QueryError::argument(format!("top is below bottom corner: {top:?} vs. {bottom:?}")))
        }
        _ => Err(QueryError::parsing(format!("failed to parse [{NAME}] query. a corner is missing"))),
    }
}
