//! Parser of the `aggs` object of a search request, `{"name": {"terms": {...}}}`. Pure code.

use super::json::OrderedJson;
use super::{Aggregation, Interval, QueryError};
use crate::search::date;

/// Maximum number of aggregations in one request, nested ones included.
pub(crate) const AGGREGATIONS_MAX: usize = 32;

/// Maximum `size` of a `terms` aggregation (Elasticsearch's limit for buckets).
pub(crate) const BUCKETS_MAX: i64 = 65_536;

/// Parses an `aggs` object. `room` is the number of aggregations that the request may still have.
pub(super) fn parse_aggregations(
    json: &OrderedJson,
    room: &mut usize,
) -> Result<Vec<(String, Aggregation)>, QueryError> {
    let OrderedJson::Object(members) = json else {
        return Err(QueryError::parsing(format!("Unknown key for a {} in [aggs].", json.token_name())));
    };
    let mut found = Vec::new();
    for (name, json) in members {
        if name.is_empty() || name.contains(['[', ']', '>']) {
            let reason =
                format!("Invalid aggregation name [{name}]. It can't be empty or have '[', ']' or '>'");
            return Err(QueryError::parsing(reason));
        }
        *room = room.checked_sub(1).ok_or_else(|| {
            QueryError::argument(format!("a request can have at most {AGGREGATIONS_MAX} aggregations"))
        })?;
        found.push((name.clone(), parse_aggregation(name, json, room)?));
    }
    Ok(found)
}

fn parse_aggregation(name: &str, json: &OrderedJson, room: &mut usize) -> Result<Aggregation, QueryError> {
    let OrderedJson::Object(members) = json else {
        let token = json.token_name();
        let reason = format!(
            "Aggregation definition for [{name}] starts with a [{token}], expected a [START_OBJECT]."
        );
        return Err(QueryError::parsing(reason));
    };
    let (mut found, mut nested): (Option<(&str, &OrderedJson)>, Option<&OrderedJson>) = (None, None);
    for (key, json) in members {
        match (key.as_str(), found) {
            ("aggs" | "aggregations", _) if nested.replace(json).is_some() => {
                return Err(QueryError::parsing(format!(
                    "Found two sub aggregation definitions under [{name}]"
                )));
            }
            ("aggs" | "aggregations", _) => {}
            (kind, Some((one, _))) => {
                let reason =
                    format!("Found two aggregation type definitions in [{name}]: [{one}] and [{kind}]");
                return Err(QueryError::parsing(reason));
            }
            (kind, None) => found = Some((kind, json)),
        }
    }
    let (kind, body) =
        found.ok_or_else(|| QueryError::parsing(format!("Missing definition for aggregation [{name}]")))?;
    let members = match body {
        OrderedJson::Object(members) => members,
        _ => return Err(QueryError::parsing(format!("Expected [START_OBJECT] under [{kind}] in [{name}]"))),
    };
    let inner = nested.map_or(Ok(Vec::new()), |json| parse_aggregations(json, room))?;
    match kind {
        "terms" => parse_terms(members, inner),
        "date_histogram" => parse_date_histogram(members, inner),
        _ => Err(QueryError::parsing(format!("Unknown aggregation type [{kind}]"))),
    }
}

fn unknown(kind: &str, key: &str) -> QueryError {
    QueryError::content(format!("[{kind}] unknown field [{key}]"))
}

fn field(kind: &str, field: Option<String>) -> Result<String, QueryError> {
    field.ok_or_else(|| QueryError::argument(format!("[{kind}]: Required one of fields [field, script]")))
}

fn parse_min_doc_count(kind: &str, json: &OrderedJson) -> Result<u64, QueryError> {
    let count = json.to_long("min_doc_count")?;
    let reason = || format!("[{kind}] [min_doc_count] must be 0 or more. Found [{count}]");
    u64::try_from(count).map_err(|_| QueryError::argument(reason()))
}

fn parse_terms(
    members: &[(String, OrderedJson)],
    inner: Vec<(String, Aggregation)>,
) -> Result<Aggregation, QueryError> {
    let (mut name, mut size, mut min, mut order) = (None, 10, 1, (false, false));
    for (key, json) in members {
        match key.as_str() {
            "field" => name = json.to_text(),
            "size" => size = json.to_long(key)?,
            "min_doc_count" => min = parse_min_doc_count("terms", json)?,
            "order" => order = parse_terms_order(json)?,
            // These only tune how a cluster executes the aggregation.
            "shard_size" | "shard_min_doc_count" | "execution_hint" | "collect_mode" => {}
            "show_term_doc_count_error" if json.is_off() => {}
            key => return Err(unknown("terms", key)),
        }
    }
    if !(1..=BUCKETS_MAX).contains(&size) {
        return Err(QueryError::argument(format!("[size] must be 1 to {BUCKETS_MAX}. Found [{size}]")));
    }
    let ((by_key, ascending), size) = (order, usize::try_from(size).unwrap_or_default());
    Ok(Aggregation::Terms { field: field("terms", name)?, size, by_key, ascending, count_min: min, inner })
}

/// Returns `(by key, ascending)` for `{"_count": "desc"}`, or for a list whose second entry orders equal
/// counts by key.
fn parse_terms_order(json: &OrderedJson) -> Result<(bool, bool), QueryError> {
    let one = |json: &OrderedJson| match json {
        OrderedJson::Object(members) if members.len() == 1 => {
            let ascending = match members[0].1.to_text().map(|word| word.to_ascii_lowercase()).as_deref() {
                Some("asc") => true,
                Some("desc") => false,
                _ => return Err(QueryError::parsing("Unknown order direction, expected [asc] or [desc]")),
            };
            match members[0].0.as_str() {
                "_key" | "_term" => Ok((true, ascending)),
                "_count" => Ok((false, ascending)),
                path => Err(QueryError::argument(format!("[order] by [{path}] is not supported"))),
            }
        }
        json => {
            Err(QueryError::content(format!("order doesn't support values of type: {}", json.token_name())))
        }
    };
    match json {
        OrderedJson::List(list) => match list.iter().map(one).collect::<Result<Vec<_>, _>>()?.as_slice() {
            [order] | [order, (true, true)] => Ok(*order),
            _ => Err(QueryError::argument("[order] by these keys together is not supported")),
        },
        json => one(json),
    }
}

fn parse_date_histogram(
    members: &[(String, OrderedJson)],
    inner: Vec<(String, Aggregation)>,
) -> Result<Aggregation, QueryError> {
    let (mut name, mut min, mut zone_minutes) = (None, 0, 0);
    let mut interval = None;
    for (key, json) in members {
        let text = json.to_text().unwrap_or_default();
        let one = match key.as_str() {
            "field" => {
                name = json.to_text();
                continue;
            }
            "min_doc_count" => {
                min = parse_min_doc_count("date_histogram", json)?;
                continue;
            }
            "time_zone" => {
                zone_minutes = date::parse_zone_minutes(&text)
                    .map_err(|error| QueryError::argument(error.to_string()))?;
                continue;
            }
            "order" if parse_terms_order(json)? == (true, true) => continue,
            "keyed" if json.is_off() => continue,
            "calendar_interval" => calendar_interval(&text),
            "fixed_interval" => fixed_interval(&text),
            "interval" => calendar_interval(&text).or_else(|| fixed_interval(&text)),
            key => return Err(unknown("date_histogram", key)),
        };
        let one = one.ok_or_else(|| {
            QueryError::argument(format!("The supplied interval [{text}] could not be parsed as a [{key}]."))
        })?;
        if interval.replace(one).is_some() {
            return Err(QueryError::argument("Cannot use two intervals in one [date_histogram]"));
        }
    }
    let interval = interval
        .ok_or_else(|| QueryError::argument("Invalid interval specified, must be non-null and non-empty"))?;
    let field = field("date_histogram", name)?;
    Ok(Aggregation::DateHistogram { field, interval, zone_minutes, count_min: min, inner })
}

/// One calendar unit. Time zones are fixed offsets, so all days have the same length.
fn calendar_interval(text: &str) -> Option<Interval> {
    Some(match text {
        "second" | "1s" => Interval::Fixed(1000),
        "minute" | "1m" => Interval::Fixed(60_000),
        "hour" | "1h" => Interval::Fixed(3_600_000),
        "day" | "1d" => Interval::Fixed(86_400_000),
        "week" | "1w" => Interval::Week,
        "month" | "1M" => Interval::Month,
        "quarter" | "1q" => Interval::Quarter,
        "year" | "1y" => Interval::Year,
        _ => return None,
    })
}

/// A number of milliseconds, seconds, minutes, hours or days.
fn fixed_interval(text: &str) -> Option<Interval> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let unit_ms = match &text[digits..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let interval_ms = text[..digits].parse::<i64>().ok()?.checked_mul(unit_ms)?;
    (interval_ms > 0).then_some(Interval::Fixed(interval_ms))
}
