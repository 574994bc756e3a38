//! One query of a request's body, `{"match": {...}}`, into a [`Query`]. Pure.
//!
//! Keys that change how well a document fits, but not whether, are taken and do nothing (`boost`, `_name`, `rewrite`):
//! nothing is scored. All others are either read or refused.

use super::json::Json;
use super::query_string::{CLAUSES_MAX, Options};
use super::{Bound, Fields, Operator, Query, QueryError, query_string};
use crate::iri::date;

/// Queries within queries, as in Elasticsearch.
pub const DEPTH_MAX: usize = 20;

/// Reads `{"name": {...}}`.
pub(super) fn query(json: &Json, depth: usize) -> Result<Query, QueryError> {
    if depth > DEPTH_MAX {
        return Err(QueryError::argument(format!(
            "The nested depth of the query exceeds the maximum of [{DEPTH_MAX}]"
        )));
    }
    let Json::Object(members) = json else {
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
    let Json::Object(members) = body else {
        return Err(QueryError::parsing(format!(
            "[{name}] query malformed, no start_object after query name"
        )));
    };
    match name {
        "match_all" => only_ignored(name, members).map(|()| Query::All),
        "match_none" => only_ignored(name, members).map(|()| Query::None),
        "match" | "match_phrase" => matching(name, members),
        "multi_match" => multi_match(members),
        "term" => term(members),
        "terms" => terms(members),
        "range" => range(members),
        "prefix" | "wildcard" => pattern(name, members),
        "exists" => exists(members),
        "ids" => ids(members),
        "bool" => boolean(members, depth),
        "constant_score" => constant_score(members, depth),
        "query_string" => query_string_query(members),
        _ => Err(QueryError::parsing(format!("unknown query [{name}]"))),
    }
}

fn unsupported(query: &str, key: &str) -> QueryError {
    QueryError::parsing(format!("[{query}] query does not support [{key}]"))
}

/// Keys that cannot change which documents are found.
fn is_ignored(key: &str) -> bool {
    matches!(key, "boost" | "_name" | "rewrite")
}

fn only_ignored(query: &str, members: &[(String, Json)]) -> Result<(), QueryError> {
    match members.iter().find(|(key, _)| !is_ignored(key)) {
        Some((key, _)) => Err(QueryError::parsing(format!("[{query}] unknown field [{key}]"))),
        None => Ok(()),
    }
}

/// The one field of `{"field": ...}`, and what stands there.
fn field<'a>(query: &str, members: &'a [(String, Json)]) -> Result<(&'a str, &'a Json), QueryError> {
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

fn text(query: &str, key: &str, json: &Json) -> Result<String, QueryError> {
    let wrong = || QueryError::parsing(format!("[{query}] unknown token [{}] after [{key}]", json.token()));
    json.text().ok_or_else(wrong)
}

fn operator(json: &Json) -> Result<Operator, QueryError> {
    let word = json.text().unwrap_or_default();
    match word.to_ascii_lowercase().as_str() {
        "and" => Ok(Operator::And),
        "or" => Ok(Operator::Or),
        _ => Err(QueryError::argument(format!("no operator [{word}]: there are [and] and [or]"))),
    }
}

/// What `match`, `match_phrase` and `multi_match` have in common.
#[derive(Default)]
struct Text {
    text: Option<String>,
    operator: Operator,
    lenient: Option<bool>,
}

impl Text {
    /// Takes a key, or refuses it.
    fn key(&mut self, query: &str, key: &str, json: &Json) -> Result<(), QueryError> {
        match (key, json.text().as_deref()) {
            ("query", _) => self.text = Some(text(query, key, json)?),
            ("operator", _) if query != "match_phrase" => self.operator = operator(json)?,
            ("lenient", _) if query != "match_phrase" => self.lenient = Some(json.bool(key)?),
            ("zero_terms_query", Some("none" | "NONE")) | ("slop", Some("0")) => {}
            // Without fuzziness and synonyms these do nothing.
            ("prefix_length" | "max_expansions" | "fuzzy_transpositions" | "fuzzy_rewrite", _)
            | ("auto_generate_synonyms_phrase_query" | "tie_breaker", _) => {}
            _ if is_ignored(key) => {}
            _ => return Err(unsupported(query, key)),
        }
        Ok(())
    }

    fn query(self, query: &str, fields: Fields, phrase: bool, lenient: bool) -> Result<Query, QueryError> {
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

fn matching(query: &str, members: &[(String, Json)]) -> Result<Query, QueryError> {
    if members.is_empty() {
        return Err(QueryError::parsing("No text specified for text query"));
    }
    let (field, json) = field(query, members)?;
    let mut read = Text::default();
    match json {
        Json::Object(members) => {
            for (key, json) in members {
                read.key(query, key, json)?;
            }
        }
        Json::Null => {}
        json => read.text = Some(text(query, field, json)?),
    }
    read.query("text", Fields::Named(vec![field.to_owned()]), query == "match_phrase", false)
}

/// Names of fields; boosts are cut off.
fn fields(names: Vec<String>) -> Fields {
    let unboosted = |name: String| match name.rsplit_once('^') {
        Some((name, boost)) if boost.parse::<f32>().is_ok() => name.to_owned(),
        _ => name,
    };
    match names.is_empty() || names.iter().any(|name| name == "*") {
        true => Fields::All,
        false => Fields::Named(names.into_iter().map(unboosted).collect()),
    }
}

fn multi_match(members: &[(String, Json)]) -> Result<Query, QueryError> {
    let (mut read, mut names, mut phrase) = (Text::default(), Vec::new(), false);
    for (key, json) in members {
        match (key.as_str(), json.text().as_deref()) {
            ("fields", _) => names = json.texts(key)?,
            ("type", Some("best_fields" | "most_fields")) => {}
            ("type", Some("phrase")) => phrase = true,
            ("type", _) => return Err(QueryError::parsing("[multi_match] query supports no such [type]")),
            _ => read.key("multi_match", key, json)?,
        }
    }
    let fields = fields(names);
    let all = fields == Fields::All;
    read.query("multi_match", fields, phrase, all)
}

fn term(members: &[(String, Json)]) -> Result<Query, QueryError> {
    let (field, json) = field("term", members)?;
    let mut value = None;
    match json {
        Json::Object(members) => {
            for (key, json) in members {
                match key.as_str() {
                    "value" | "term" => value = json.value(),
                    "case_insensitive" if json.is_off() => {}
                    key if is_ignored(key) => {}
                    key => return Err(unsupported("term", key)),
                }
            }
        }
        Json::List(_) => return Err(QueryError::parsing("[term] query does not support array of values")),
        json => value = json.value(),
    }
    let value = value.ok_or_else(|| QueryError::argument("value cannot be null"))?;
    Ok(Query::Term { field: field.to_owned(), value })
}

fn terms(members: &[(String, Json)]) -> Result<Query, QueryError> {
    let (field, json) = field("terms", members)?;
    let Json::List(values) = json else { return Err(unsupported("terms", field)) };
    if values.len() > CLAUSES_MAX {
        return Err(QueryError::argument(format!(
            "[terms] has {} values, more than {CLAUSES_MAX}",
            values.len()
        )));
    }
    let mut should = Vec::with_capacity(values.len());
    for value in values {
        let value = value.value().ok_or_else(|| QueryError::parsing("No value specified for terms query"))?;
        should.push(Query::Term { field: field.to_owned(), value });
    }
    Ok(match should.is_empty() {
        true => Query::None,
        false => Query::Bool { must: Vec::new(), should, must_not: Vec::new(), should_min: 1 },
    })
}

fn range(members: &[(String, Json)]) -> Result<Query, QueryError> {
    let (field, json) = field("range", members)?;
    let Json::Object(members) = json else { return Err(unsupported("range", field)) };
    let (mut from, mut to) = ((None, true), (None, true));
    let (mut format, mut zone_minutes) = (None, 0);
    let argument = |error: date::DateError| QueryError::argument(error.to_string());
    for (key, json) in members {
        let value = || match json {
            Json::Null => Ok(None),
            json => json
                .value()
                .map(Some)
                .ok_or_else(|| QueryError::parsing(format!("[range] [{key}] is no value"))),
        };
        match key.as_str() {
            "from" => from.0 = value()?,
            "to" => to.0 = value()?,
            "gte" => from = (value()?, true),
            "gt" => from = (value()?, false),
            "lte" => to = (value()?, true),
            "lt" => to = (value()?, false),
            "include_lower" => from.1 = json.bool(key)?,
            "include_upper" => to.1 = json.bool(key)?,
            "format" => {
                let put = text("range", key, json)?;
                date::Format::parse(&put).map_err(argument)?;
                format = Some(put);
            }
            "time_zone" => zone_minutes = date::zone_minutes(&text("range", key, json)?).map_err(argument)?,
            // How ranges that are stored relate; values have one relation.
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
    let fields = Fields::Named(vec![field.to_owned()]);
    Ok(Query::Range { fields, from: bound(from), to: bound(to), format, zone_minutes })
}

fn pattern(query: &str, members: &[(String, Json)]) -> Result<Query, QueryError> {
    let (field, json) = field(query, members)?;
    let mut value = None;
    match json {
        Json::Object(members) => {
            for (key, json) in members {
                match key.as_str() {
                    "value" => value = json.text(),
                    key if key == query => value = json.text(),
                    "case_insensitive" if json.is_off() => {}
                    key if is_ignored(key) => {}
                    key => return Err(unsupported(query, key)),
                }
            }
        }
        json => value = json.text(),
    }
    let value = value.ok_or_else(|| QueryError::argument("value cannot be null"))?;
    let fields = Fields::Named(vec![field.to_owned()]);
    Ok(match query {
        "prefix" => Query::Prefix { fields, prefix: value },
        _ => Query::Wildcard { fields, pattern: value },
    })
}

fn exists(members: &[(String, Json)]) -> Result<Query, QueryError> {
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

fn ids(members: &[(String, Json)]) -> Result<Query, QueryError> {
    let mut values = Vec::new();
    for (key, json) in members {
        match key.as_str() {
            "values" => values = json.texts(key)?,
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

fn constant_score(members: &[(String, Json)], depth: usize) -> Result<Query, QueryError> {
    let mut filter = None;
    for (key, json) in members {
        match (key.as_str(), json) {
            ("filter", Json::Object(_)) => filter = Some(query(json, depth + 1)?),
            ("filter", json) => {
                return Err(QueryError::parsing(format!("unexpected token [{}]", json.token())));
            }
            (key, _) if is_ignored(key) => {}
            (key, _) => return Err(unsupported("constant_score", key)),
        }
    }
    filter.ok_or_else(|| QueryError::parsing("[constant_score] requires a 'filter' element"))
}

fn boolean(members: &[(String, Json)], depth: usize) -> Result<Query, QueryError> {
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
            "adjust_pure_negative" if json.bool(key)? => continue,
            key if is_ignored(key) => continue,
            key => return Err(QueryError::content(format!("[bool] unknown field [{key}]"))),
        };
        match json {
            Json::Null => {}
            Json::Object(_) => clauses.push(query(json, depth + 1)?),
            Json::List(list) => {
                for json in list {
                    clauses.push(query(json, depth + 1)?);
                }
            }
            json => {
                let reason = format!("[bool] {key} doesn't support values of type: {}", json.token());
                return Err(QueryError::content(reason));
            }
        }
    }
    if must.len() + should.len() + must_not.len() > CLAUSES_MAX {
        return Err(QueryError::argument(format!("[bool] has more than {CLAUSES_MAX} clauses")));
    }
    let wanted = wanted.map_or(Ok(0), |wanted| minimum(&wanted, should.len()))?;
    // At least one must fit where nothing else has to, whatever was asked for.
    let least = usize::from(must.is_empty() && !should.is_empty());
    Ok(match wanted.max(least) {
        should_min if should_min > should.len() => Query::None,
        should_min => Query::Bool { must, should, must_not, should_min },
    })
}

/// How many of so many clauses: `2`, `-1` (all but one), `75%`, `-25%`, `2<75%` (up to two all, else 75 %).
fn minimum(wanted: &str, clauses: usize) -> Result<usize, QueryError> {
    let wrong = || QueryError::argument(format!("no [minimum_should_match]: [{wanted}]"));
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

fn query_string_query(members: &[(String, Json)]) -> Result<Query, QueryError> {
    const NAME: &str = "query_string";
    let mut options = Options::default();
    let (mut query, mut named, mut analyzes) = (None, 0, false);
    for (key, json) in members {
        match (key.as_str(), json.text().as_deref()) {
            ("query", _) => query = Some(text(NAME, key, json)?),
            ("default_field", Some(field)) => {
                (options.fields, named) = (fields(vec![field.to_owned()]), named + 1);
            }
            ("fields", None) => (options.fields, named) = (fields(json.texts(key)?), named + 1),
            ("default_operator", _) => options.operator = operator(json)?,
            ("lenient", _) => options.lenient = Some(json.bool(key)?),
            ("analyze_wildcard", _) => analyzes = json.bool(key)?,
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
