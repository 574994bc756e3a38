//! Parser of one query in Elasticsearch's JSON query language, `{"match": {...}}`, into a [`Query`]. Pure
//! code.
//!
//! Keys that change only the score of a document are accepted and ignored (`boost`, `_name`, `rewrite`),
//! because nothing is scored. Every other key is either evaluated or rejected.

use super::json::OrderedJson;
use super::query_dsl_patterns::{
    fuzzy_query, geo_box_query, geo_distance_query, parse_fuzziness, pattern_query, phrase_prefix_query,
    prefix_length, slop, term_ignoring_case,
};
use super::query_string::{CLAUSES_MAX, QueryStringOptions};
use super::{Bound, FieldSelector, Fuzziness, Operator, Query, QueryError, query_string};
use crate::search::date::{self, TimeZone};

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
        "prefix" | "wildcard" | "regexp" => pattern_query(name, members),
        "fuzzy" => fuzzy_query(members),
        "match_phrase_prefix" => phrase_prefix_query(members),
        "geo_distance" => geo_distance_query(members),
        "geo_bounding_box" => geo_box_query(members),
        "simple_query_string" => simple_query_string_query(members),
        "dis_max" => dis_max_query(members, depth),
        "type" => type_query(members),
        "exists" => exists_query(members),
        "ids" => ids_query(members),
        "bool" => bool_query(members, depth),
        "constant_score" => constant_score_query(members, depth),
        "query_string" => query_string_query(members),
        name if UNSUPPORTED.contains(&name) => {
            Err(QueryError::argument(format!("the query [{name}] is not supported")))
        }
        _ => Err(QueryError::parsing(format!("unknown query [{name}]"))),
    }
}

/// Queries of Elasticsearch that are refused by name.
const UNSUPPORTED: [&str; 27] = [
    "boosting",
    "common",
    "distance_feature",
    "function_score",
    "geo_polygon",
    "geo_shape",
    "has_child",
    "has_parent",
    "intervals",
    "match_bool_prefix",
    "more_like_this",
    "nested",
    "parent_id",
    "percolate",
    "pinned",
    "rank_feature",
    "script",
    "script_score",
    "shape",
    "span_containing",
    "span_first",
    "span_multi",
    "span_near",
    "span_not",
    "span_or",
    "span_term",
    "terms_set",
];

/// The members of an object.
pub(super) type Members<'a> = &'a [(String, OrderedJson)];

/// `dis_max`: one of the queries. Only its score differs from `bool`.
fn dis_max_query(members: Members<'_>, depth: usize) -> Result<Query, QueryError> {
    let mut should = Vec::new();
    for (key, json) in members {
        match (key.as_str(), json) {
            ("queries", OrderedJson::List(list)) => {
                should = list.iter().map(|json| parse_query(json, depth + 1)).collect::<Result<_, _>>()?;
            }
            ("queries", json) => should = vec![parse_query(json, depth + 1)?],
            ("tie_breaker", _) => {}
            (key, _) if is_ignored(key) => {}
            (key, _) => return Err(unsupported("dis_max", key)),
        }
    }
    match should.len() {
        0 => Err(QueryError::parsing("[_na] query malformed, must start with start_object")),
        count if count > CLAUSES_MAX => {
            Err(QueryError::argument(format!("[dis_max] has more than {CLAUSES_MAX} queries")))
        }
        _ => Ok(Query::Bool { must: Vec::new(), should, must_not: Vec::new(), should_min: 1 }),
    }
}

fn type_query(members: Members<'_>) -> Result<Query, QueryError> {
    let value = members.iter().find(|(key, _)| key == "value").and_then(|(_, json)| json.to_value());
    let value = value.ok_or_else(|| QueryError::argument("[type] cannot be null"))?;
    Ok(Query::Term { field: "_type".to_owned(), value })
}

fn simple_query_string_query(members: Members<'_>) -> Result<Query, QueryError> {
    const NAME: &str = "simple_query_string";
    let (mut query, mut fields, mut default, mut lenient) = (None, FieldSelector::All, Operator::Or, None);
    for (key, json) in members {
        match (key.as_str(), json.to_text().as_deref()) {
            ("query", _) => query = Some(text(NAME, key, json)?),
            ("fields", _) => fields = parse_field_names(json.to_texts(key)?),
            ("default_operator", _) => default = operator(json)?,
            ("lenient", _) => lenient = Some(json.to_bool(key)?),
            ("flags", Some("ALL" | "all" | "-1")) | ("analyze_wildcard", Some("false")) => {}
            ("fuzzy_prefix_length" | "fuzzy_max_expansions" | "fuzzy_transpositions", _)
            | ("auto_generate_synonyms_phrase_query", _) => {}
            (key, _) if is_ignored(key) => {}
            (key, _) => return Err(unsupported(NAME, key)),
        }
    }
    let text = query.ok_or_else(|| QueryError::parsing("[simple_query_string] query text missing"))?;
    if text.len() > super::query_string::QUERY_BYTES_MAX {
        return Err(QueryError::argument("the text of [simple_query_string] is too long"));
    }
    let found = super::simple_query_string::parse(&text, &fields, default);
    Ok(match lenient.unwrap_or(fields == FieldSelector::All) {
        true => Query::Lenient(Box::new(found)),
        false => found,
    })
}

pub(super) fn unsupported(query: &str, key: &str) -> QueryError {
    QueryError::parsing(format!("[{query}] query does not support [{key}]"))
}

/// Keys that cannot change which documents match.
pub(super) fn is_ignored(key: &str) -> bool {
    matches!(key, "boost" | "_name" | "rewrite")
}

fn expect_ignored_keys(query: &str, members: &[(String, OrderedJson)]) -> Result<(), QueryError> {
    match members.iter().find(|(key, _)| !is_ignored(key)) {
        Some((key, _)) => Err(QueryError::parsing(format!("[{query}] unknown field [{key}]"))),
        None => Ok(()),
    }
}

/// The single field of `{"field": ...}` and its value.
pub(super) fn field<'a>(
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
        _ => Err(QueryError::argument("field name is null or empty")),
    }
}

pub(super) fn text(query: &str, key: &str, json: &OrderedJson) -> Result<String, QueryError> {
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
    slop: u32,
    minimum: Option<String>,
    fuzziness: Option<Fuzziness>,
    prefix_chars: usize,
}

/// How the words of a text have to appear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MatchForm {
    Words,
    Phrase,
    PhrasePrefix,
}

impl MatchParameters {
    /// Stores the value of one key, or rejects the key.
    fn set(&mut self, query: &str, key: &str, json: &OrderedJson) -> Result<(), QueryError> {
        match (key, json.to_text().as_deref()) {
            ("query", _) => self.text = Some(text(query, key, json)?),
            ("operator", _) if query != "match_phrase" => self.operator = operator(json)?,
            ("lenient", _) if query != "match_phrase" => self.lenient = Some(json.to_bool(key)?),
            ("slop", _) if query != "match" => self.slop = slop(json)?,
            ("minimum_should_match", _) if query != "match_phrase" => self.minimum = json.to_text(),
            ("fuzziness", _) if query != "match_phrase" => self.fuzziness = Some(parse_fuzziness(json)?),
            ("prefix_length", _) => self.prefix_chars = prefix_length(json)?,
            ("zero_terms_query", Some("none" | "NONE")) | ("analyzer", Some("standard")) => {}
            // Without synonyms these have no effect.
            ("max_expansions" | "fuzzy_transpositions" | "fuzzy_rewrite", _)
            | ("auto_generate_synonyms_phrase_query" | "tie_breaker" | "cutoff_frequency", _) => {}
            _ if is_ignored(key) => {}
            _ => return Err(unsupported(query, key)),
        }
        Ok(())
    }

    fn into_query(
        self,
        query: &str,
        fields: FieldSelector,
        form: MatchForm,
        lenient: bool,
    ) -> Result<Query, QueryError> {
        let text =
            self.text.ok_or_else(|| QueryError::parsing(format!("No text specified for {query} query")))?;
        let found = match (form, self.slop, self.fuzziness, self.minimum) {
            (MatchForm::Phrase, 0, ..) => Query::Phrase { fields, text },
            (MatchForm::Phrase, slop, ..) => Query::NearPhrase { fields, text, slop },
            (MatchForm::PhrasePrefix, slop, ..) => Query::PhrasePrefix { fields, text, slop },
            (MatchForm::Words, _, Some(_), Some(_)) => {
                return Err(QueryError::argument("[fuzziness] with [minimum_should_match] is not supported"));
            }
            (MatchForm::Words, _, Some(fuzziness), None) => {
                let fuzziness = Fuzziness { prefix_chars: self.prefix_chars, ..fuzziness };
                Query::Fuzzy { fields, text, operator: self.operator, fuzziness }
            }
            (MatchForm::Words, _, None, Some(minimum)) if self.operator == Operator::Or => {
                Query::MatchAtLeast { fields, text, minimum }
            }
            (MatchForm::Words, ..) => Query::Match { fields, text, operator: self.operator },
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
    let form = if query == "match_phrase" { MatchForm::Phrase } else { MatchForm::Words };
    read.into_query("text", FieldSelector::Named(vec![field.to_owned()]), form, false)
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
    let (mut read, mut names, mut form) = (MatchParameters::default(), Vec::new(), MatchForm::Words);
    for (key, json) in members {
        match (key.as_str(), json.to_text().as_deref()) {
            ("fields", _) => names = json.to_texts(key)?,
            ("type", Some("best_fields" | "most_fields")) => {}
            ("type", Some("phrase")) => form = MatchForm::Phrase,
            ("type", Some("phrase_prefix")) => form = MatchForm::PhrasePrefix,
            ("type", _) => return Err(QueryError::parsing("[multi_match] query supports no such [type]")),
            _ => read.set("multi_match", key, json)?,
        }
    }
    let fields = parse_field_names(names);
    let all = fields == FieldSelector::All;
    read.into_query("multi_match", fields, form, all)
}

fn term_query(members: &[(String, OrderedJson)]) -> Result<Query, QueryError> {
    let (field, json) = field("term", members)?;
    let (mut value, mut ignores_case) = (None, false);
    match json {
        OrderedJson::Object(members) => {
            for (key, json) in members {
                match key.as_str() {
                    "value" | "term" => value = json.to_value(),
                    "case_insensitive" => ignores_case = json.to_bool(key)?,
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
    Ok(match ignores_case {
        true => term_ignoring_case(field, &value),
        false => Query::Term { field: field.to_owned(), value },
    })
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
    let (mut format, mut zone) = (None, TimeZone::UTC);
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
                zone = TimeZone::parse(&text("range", key, json)?).map_err(argument)?;
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
    Ok(Query::Range { fields, from: bound(from), to: bound(to), format, zone })
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
    let wanted = wanted.map_or(Ok(0), |wanted| minimum_count(&wanted, should.len()))?;
    // If nothing else is required, at least one optional clause must match, whatever was requested.
    let least = usize::from(must.is_empty() && !should.is_empty());
    Ok(match wanted.max(least) {
        should_min if should_min > should.len() => Query::None,
        should_min => Query::Bool { must, should, must_not, should_min },
    })
}

/// Parses `minimum_should_match` for this number of clauses: `2`, `-1` (all but one), `75%`, `-25%`, `2<75%`
/// (all if there are at most two, otherwise 75 %).
pub(crate) fn minimum_count(wanted: &str, clauses: usize) -> Result<usize, QueryError> {
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
            ("time_zone", Some(zone)) => {
                options.zone =
                    TimeZone::parse(zone).map_err(|error| QueryError::argument(error.to_string()))?;
            }
            ("allow_leading_wildcard" | "enable_position_increments", Some("true"))
            | ("escape", Some("false"))
            | ("phrase_slop", Some("0"))
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
