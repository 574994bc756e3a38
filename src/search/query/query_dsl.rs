//! Parser of one query in Elasticsearch's JSON query language, `{"match": {...}}`, into a [`Query`]. Pure
//! code.
//!
//! Keys that change only the score of a document are accepted and ignored (`boost`, `_name`, `rewrite`),
//! because nothing is scored. Every other key is either evaluated or rejected.

use super::json::OrderedJson;
use super::query_string::{CLAUSES_MAX, QueryStringOptions};
use super::{Bound, FieldSelector, Operator, Query, QueryError, query_string};
use crate::search::date;

/// Maximum nesting depth of queries, as in Elasticsearch.
pub(crate) const DEPTH_MAX: usize = 20;

/// Parses `{"name": {...}}`.
pub(super) fn parse_query(json: &OrderedJson, depth: usize) -> Result<Query, QueryError> {
    if depth > DEPTH_MAX {
        return Err(QueryError::argument(format!(
            "The nested depth of the query exceeds the maximum of [{DEPTH_MAX}]"
        )));
    }
    let OrderedJson::Object(members) = json else {
        return Err(QueryError::parsing("[_na] query malformed, must start with start_object"));
    };
    let (name, body) = match members.as_slice() {
        [] => return Err(QueryError::argument("query malformed, empty clause found")),
        [(name, body)] => (name.as_str(), body),
        [(name, _), ..] => {
            let reason = format!("[{name}] malformed query, expected [END_OBJECT] but found [FIELD_NAME]");
            return Err(QueryError::parsing(reason));
        }
    };
    let OrderedJson::Object(members) = body else {
        return Err(QueryError::parsing(format!(
            "[{name}] query malformed, no start_object after query name"
        )));
    };
    match name {
        "match_all" => expect_ignored_keys(name, members).map(|()| Query::All),
        "match_none" => expect_ignored_keys(name, members).map(|()| Query::None),
        "match" | "match_phrase" => match_query(name, members),
        "multi_match" => multi_match_query(members),
        "term" => term_query(members),
        "terms" => terms_query(members),
        "range" => range_query(members),
        "prefix" | "wildcard" => pattern_query(name, members),
        "exists" => exists_query(members),
        "ids" => ids_query(members),
        "bool" => bool_query(members, depth),
        "constant_score" => constant_score_query(members, depth),
        "query_string" => query_string_query(members),
        _ => Err(QueryError::parsing(format!("unknown query [{name}]"))),
    }
}

fn unsupported(query: &str, key: &str) -> QueryError {
    QueryError::parsing(format!("[{query}] query does not support [{key}]"))
}

/// Keys that cannot change which documents match.
fn is_ignored(key: &str) -> bool {
    matches!(key, "boost" | "_name" | "rewrite")
}

fn expect_ignored_keys(query: &str, members: &[(String, OrderedJson)]) -> Result<(), QueryError> {
    match members.iter().find(|(key, _)| !is_ignored(key)) {
        Some((key, _)) => Err(QueryError::parsing(format!("[{query}] unknown field [{key}]"))),
        None => Ok(()),
    }
}

/// The single field of `{"field": ...}` and its value.
fn field<'a>(
    query: &str,
    members: &'a [(String, OrderedJson)],
) -> Result<(&'a str, &'a OrderedJson), QueryError> {
    let mut fields = members.iter().filter(|(key, _)| !is_ignored(key));
    match (fields.next(), fields.next()) {
        (Some((field, json)), None) if !field.is_empty() => Ok((field, json)),
        (Some((one, _)), Some((other, _))) => {
            let reason =
                format!("[{query}] query doesn't support multiple fields, found [{one}] and [{other}]");
            Err(QueryError::parsing(reason))
        }
        _ => Err(QueryError::argument(format!("[{query}]: field name is null or empty"))),
    }
}

fn text(query: &str, key: &str, json: &OrderedJson) -> Result<String, QueryError> {
    let wrong =
        || QueryError::parsing(format!("[{query}] unknown token [{}] after [{key}]", json.token_name()));
    json.to_text().ok_or_else(wrong)
}

fn operator(json: &OrderedJson) -> Result<Operator, QueryError> {
    let word = json.to_text().unwrap_or_default();
    match word.to_ascii_lowercase().as_str() {
        "and" => Ok(Operator::And),
        "or" => Ok(Operator::Or),
        _ => Err(QueryError::argument(format!("unknown operator [{word}], expected [and] or [or]"))),
    }
}

/// The keys that `match`, `match_phrase` and `multi_match` share.
#[derive(Default)]
struct MatchParameters {
    text: Option<String>,
    operator: Operator,
    lenient: Option<bool>,
}

impl MatchParameters {
    /// Stores the value of one key, or rejects the key.
    fn set(&mut self, query: &str, key: &str, json: &OrderedJson) -> Result<(), QueryError> {
        match (key, json.to_text().as_deref()) {
            ("query", _) => self.text = Some(text(query, key, json)?),
            ("operator", _) if query != "match_phrase" => self.operator = operator(json)?,
            ("lenient", _) if query != "match_phrase" => self.lenient = Some(json.to_bool(key)?),
            ("zero_terms_query", Some("none" | "NONE")) | ("slop", Some("0")) => {}
            // Without fuzziness and synonyms these have no effect.
            ("prefix_length" | "max_expansions" | "fuzzy_transpositions" | "fuzzy_rewrite", _)
            | ("auto_generate_synonyms_phrase_query" | "tie_breaker", _) => {}
            _ if is_ignored(key) => {}
            _ => return Err(unsupported(query, key)),
        }
        Ok(())
    }

    fn into_query(
        self,
        query: &str,
        fields: FieldSelector,
        phrase: bool,
        lenient: bool,
    ) -> Result<Query, QueryError> {
        let text =
            self.text.ok_or_else(|| QueryError::parsing(format!("No text specified for {query} query")))?;
        let found = match phrase {
            true => Query::Phrase { fields, text },
            false => Query::Match { fields, text, operator: self.operator },
        };
        Ok(match self.lenient.unwrap_or(lenient) {
            true => Query::Lenient(Box::new(found)),
            false => found,
        })
    }
}

fn match_query(query: &str, members: &[(String, OrderedJson)]) -> Result<Query, QueryError> {
    if members.is_empty() {
        return Err(QueryError::parsing("No text specified for text query"));
    }
    let (field, json) = field(query, members)?;
    let mut read = MatchParameters::default();
    match json {
        OrderedJson::Object(members) => {
            for (key, json) in members {
                read.set(query, key, json)?;
            }
        }
        OrderedJson::Null => {}
        json => read.text = Some(text(query, field, json)?),
    }
    read.into_query("text", FieldSelector::Named(vec![field.to_owned()]), query == "match_phrase", false)
}

/// Parses field names and discards their boosts.
fn parse_field_names(names: Vec<String>) -> FieldSelector {
    let unboosted = |name: String| match name.rsplit_once('^') {
        Some((name, boost)) if boost.parse::<f32>().is_ok() => name.to_owned(),
        _ => name,
    };
    match names.is_empty() || names.iter().any(|name| name == "*") {
        true => FieldSelector::All,
        false => FieldSelector::Named(names.into_iter().map(unboosted).collect()),
    }
}

fn multi_match_query(members: &[(String, OrderedJson)]) -> Result<Query, QueryError> {
    let (mut read, mut names, mut phrase) = (MatchParameters::default(), Vec::new(), false);
    for (key, json) in members {
        match (key.as_str(), json.to_text().as_deref()) {
            ("fields", _) => names = json.to_texts(key)?,
            ("type", Some("best_fields" | "most_fields")) => {}
            ("type", Some("phrase")) => phrase = true,
            ("type", _) => return Err(QueryError::parsing("[multi_match] query supports no such [type]")),
            _ => read.set("multi_match", key, json)?,
        }
    }
    let fields = parse_field_names(names);
    let all = fields == FieldSelector::All;
    read.into_query("multi_match", fields, phrase, all)
}

fn term_query(members: &[(String, OrderedJson)]) -> Result<Query, QueryError> {
    let (field, json) = field("term", members)?;
    let mut value = None;
    match json {
        OrderedJson::Object(members) => {
            for (key, json) in members {
                match key.as_str() {
                    "value" | "term" => value = json.to_value(),
                    "case_insensitive" if json.is_off() => {}
                    key if is_ignored(key) => {}
                    key => return Err(unsupported("term", key)),
                }
            }
        }
        OrderedJson::List(_) => {
            return Err(QueryError::parsing("[term] query does not support array of values"));
        }
        json => value = json.to_value(),
    }
    let value = value.ok_or_else(|| QueryError::argument("value cannot be null"))?;
    Ok(Query::Term { field: field.to_owned(), value })
}

fn terms_query(members: &[(String, OrderedJson)]) -> Result<Query, QueryError> {
    let (field, json) = field("terms", members)?;
    let OrderedJson::List(values) = json else { return Err(unsupported("terms", field)) };
    if values.len() > CLAUSES_MAX {
        return Err(QueryError::argument(format!(
            "[terms] has {} values, more than {CLAUSES_MAX}",
            values.len()
        )));
    }
    let mut should = Vec::with_capacity(values.len());
    for value in values {
        let value =
            value.to_value().ok_or_else(|| QueryError::parsing("No value specified for terms query"))?;
        should.push(Query::Term { field: field.to_owned(), value });
    }
    Ok(match should.is_empty() {
        true => Query::None,
        false => Query::Bool { must: Vec::new(), should, must_not: Vec::new(), should_min: 1 },
    })
}

fn range_query(members: &[(String, OrderedJson)]) -> Result<Query, QueryError> {
    let (field, json) = field("range", members)?;
    let OrderedJson::Object(members) = json else { return Err(unsupported("range", field)) };
    let (mut from, mut to) = ((None, true), (None, true));
    let (mut format, mut zone_minutes) = (None, 0);
    let argument = |error: date::DateError| QueryError::argument(error.to_string());
    for (key, json) in members {
        let value = || match json {
            OrderedJson::Null => Ok(None),
            json => json.to_value().map(Some).ok_or_else(|| {
                QueryError::parsing(format!("[range] [{key}] must be a string, a number or a boolean"))
            }),
        };
        match key.as_str() {
            "from" => from.0 = value()?,
            "to" => to.0 = value()?,
            "gte" => from = (value()?, true),
            "gt" => from = (value()?, false),
            "lte" => to = (value()?, true),
            "lt" => to = (value()?, false),
            "include_lower" => from.1 = json.to_bool(key)?,
            "include_upper" => to.1 = json.to_bool(key)?,
            "format" => {
                let put = text("range", key, json)?;
                date::DateFormat::parse(&put).map_err(argument)?;
                format = Some(put);
            }
            "time_zone" => {
                zone_minutes = date::parse_zone_minutes(&text("range", key, json)?).map_err(argument)?
            }
            // Applies to range fields only, which do not exist here.
            "relation" => {}
            key if is_ignored(key) => {}
            key => return Err(unsupported("range", key)),
        }
    }
    let bound = |end| match end {
        (None, _) => Bound::Open,
        (Some(value), true) => Bound::Included(value),
        (Some(value), false) => Bound::Excluded(value),
    };
    let fields = FieldSelector::Named(vec![field.to_owned()]);
    Ok(Query::Range { fields, from: bound(from), to: bound(to), format, zone_minutes })
}

fn pattern_query(query: &str, members: &[(String, OrderedJson)]) -> Result<Query, QueryError> {
    let (field, json) = field(query, members)?;
    let mut value = None;
    match json {
        OrderedJson::Object(members) => {
            for (key, json) in members {
                match key.as_str() {
                    "value" => value = json.to_text(),
                    key if key == query => value = json.to_text(),
                    "case_insensitive" if json.is_off() => {}
                    key if is_ignored(key) => {}
                    key => return Err(unsupported(query, key)),
                }
            }
        }
        json => value = json.to_text(),
    }
    let value = value.ok_or_else(|| QueryError::argument("value cannot be null"))?;
    let fields = FieldSelector::Named(vec![field.to_owned()]);
    Ok(match query {
        "prefix" => Query::Prefix { fields, prefix: value },
        _ => Query::Wildcard { fields, pattern: value },
    })
}

fn exists_query(members: &[(String, OrderedJson)]) -> Result<Query, QueryError> {
    let mut field = None;
    for (key, json) in members {
        match key.as_str() {
            "field" => field = Some(text("exists", key, json)?),
            key if is_ignored(key) => {}
            key => return Err(unsupported("exists", key)),
        }
    }
    match field {
        None => Err(QueryError::parsing("[exists] must be provided with a [field]")),
        Some(field) if field.is_empty() => Err(QueryError::argument("field name is null or empty")),
        Some(field) => Ok(Query::Exists { field }),
    }
}

fn ids_query(members: &[(String, OrderedJson)]) -> Result<Query, QueryError> {
    let mut values = Vec::new();
    for (key, json) in members {
        match key.as_str() {
            "values" => values = json.to_texts(key)?,
            key if is_ignored(key) => {}
            key => return Err(QueryError::parsing(format!("[ids] unknown field [{key}]"))),
        }
    }
    match values.len() > CLAUSES_MAX {
        true => {
            Err(QueryError::argument(format!("[ids] has {} values, more than {CLAUSES_MAX}", values.len())))
        }
        false => Ok(Query::Ids(values)),
    }
}

fn constant_score_query(members: &[(String, OrderedJson)], depth: usize) -> Result<Query, QueryError> {
    let mut filter = None;
    for (key, json) in members {
        match (key.as_str(), json) {
            ("filter", OrderedJson::Object(_)) => filter = Some(parse_query(json, depth + 1)?),
            ("filter", json) => {
                return Err(QueryError::parsing(format!("unexpected token [{}]", json.token_name())));
            }
            (key, _) if is_ignored(key) => {}
            (key, _) => return Err(unsupported("constant_score", key)),
        }
    }
    filter.ok_or_else(|| QueryError::parsing("[constant_score] requires a 'filter' element"))
}

fn bool_query(members: &[(String, OrderedJson)], depth: usize) -> Result<Query, QueryError> {
    let (mut must, mut should, mut must_not, mut wanted) = (Vec::new(), Vec::new(), Vec::new(), None);
    for (key, json) in members {
        let clauses = match key.as_str() {
            "must" | "filter" => &mut must,
            "should" => &mut should,
            "must_not" | "mustNot" => &mut must_not,
            "minimum_should_match" => {
                wanted = Some(text("bool", key, json)?);
                continue;
            }
            "adjust_pure_negative" if json.to_bool(key)? => continue,
            key if is_ignored(key) => continue,
            key => return Err(QueryError::content(format!("[bool] unknown field [{key}]"))),
        };
        match json {
            OrderedJson::Null => {}
            OrderedJson::Object(_) => clauses.push(parse_query(json, depth + 1)?),
            OrderedJson::List(list) => {
                for json in list {
                    clauses.push(parse_query(json, depth + 1)?);
                }
            }
            json => {
                let reason = format!("[bool] {key} doesn't support values of type: {}", json.token_name());
                return Err(QueryError::content(reason));
            }
        }
    }
    if must.len() + should.len() + must_not.len() > CLAUSES_MAX {
        return Err(QueryError::argument(format!("[bool] has more than {CLAUSES_MAX} clauses")));
    }
    let wanted = wanted.map_or(Ok(0), |wanted| minimum_should_match(&wanted, should.len()))?;
    // If nothing else is required, at least one optional clause must match, whatever was requested.
    let least = usize::from(must.is_empty() && !should.is_empty());
    Ok(match wanted.max(least) {
        should_min if should_min > should.len() => Query::None,
        should_min => Query::Bool { must, should, must_not, should_min },
    })
}

/// Parses `minimum_should_match` for this number of clauses: `2`, `-1` (all but one), `75%`, `-25%`, `2<75%`
/// (all if there are at most two, otherwise 75 %).
fn minimum_should_match(wanted: &str, clauses: usize) -> Result<usize, QueryError> {
    let wrong = || QueryError::argument(format!("invalid [minimum_should_match]: [{wanted}]"));
    let count = i64::try_from(clauses).map_err(|_| wrong())?;
    let simple = |text: &str| -> Result<i64, QueryError> {
        let (number, percent) = text.strip_suffix('%').map_or((text, false), |number| (number, true));
        let number: i32 = number.parse().map_err(|_| wrong())?;
        let part = if percent { count * i64::from(number) / 100 } else { i64::from(number) };
        Ok(if number < 0 { count + part } else { part })
    };
    let mut found = count;
    if wanted.contains('<') {
        for condition in wanted.split_ascii_whitespace() {
            let (above, then) = condition.split_once('<').ok_or_else(wrong)?;
            if count <= above.parse::<i64>().map_err(|_| wrong())? {
                break;
            }
            found = simple(then)?;
        }
    } else {
        found = simple(wanted.trim())?;
    }
    Ok(usize::try_from(found.max(0)).unwrap_or(usize::MAX))
}

fn query_string_query(members: &[(String, OrderedJson)]) -> Result<Query, QueryError> {
    const NAME: &str = "query_string";
    let mut options = QueryStringOptions::default();
    let (mut query, mut named, mut analyzes) = (None, 0, false);
    for (key, json) in members {
        match (key.as_str(), json.to_text().as_deref()) {
            ("query", _) => query = Some(text(NAME, key, json)?),
            ("default_field", Some(field)) => {
                (options.fields, named) = (parse_field_names(vec![field.to_owned()]), named + 1);
            }
            ("fields", None) => (options.fields, named) = (parse_field_names(json.to_texts(key)?), named + 1),
            ("default_operator", _) => options.operator = operator(json)?,
            ("lenient", _) => options.lenient = Some(json.to_bool(key)?),
            ("analyze_wildcard", _) => analyzes = json.to_bool(key)?,
            ("allow_leading_wildcard" | "enable_position_increments", Some("true"))
            | ("escape", Some("false"))
            | ("phrase_slop", Some("0"))
            | ("time_zone", Some("UTC" | "Z" | "+00:00"))
            | ("type", Some("best_fields" | "most_fields")) => {}
            ("fuzziness" | "fuzzy_prefix_length" | "fuzzy_max_expansions" | "fuzzy_rewrite", _)
            | ("fuzzy_transpositions" | "auto_generate_synonyms_phrase_query" | "tie_breaker", _)
            | ("max_determinized_states", _) => {}
            (key, _) if is_ignored(key) => {}
            (key, _) => return Err(unsupported(NAME, key)),
        }
    }
    if named > 1 {
        return Err(QueryError::argument("[query_string] cannot use [fields] with [default_field]"));
    }
    let text = query.ok_or_else(|| QueryError::parsing("[query_string] must be provided with a [query]"))?;
    let query = query_string::parse(&text, &options)?;
    match analyzes && !query_string::has_plain_patterns(&query) {
        true => Err(unsupported(NAME, "analyze_wildcard")),
        false => Ok(query),
    }
}
