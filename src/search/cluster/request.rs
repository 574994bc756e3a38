//! Request bodies of Elasticsearch: the translation of a [`Search`]. Pure code.
//!
//! Elasticsearch 7.17 to 9 and OpenSearch 2 and 3 accept the same form: no mapping types, `track_total_hits`,
//! separate calendar and fixed intervals, ranges with `gte` and `lt`. A clause with one field becomes the
//! query of that name. A clause with several fields, patterns or all fields becomes `multi_match` or
//! `query_string`; the cluster expands these, because it knows the fields. Hidden fields of the embedded
//! store are part of the `lea` object in the cluster ([`cluster_field`]).

use std::borrow::Cow;

use serde_json::{Map, Value as Json, json};

use super::{LEA_NUMBER_FIELD, LEA_OBJECT, LEA_TIME_FIELD};
use crate::search::date::TimeZone;
use crate::search::geo::GeoShape;
use crate::search::query::aggregations::{AggregationKind, FiltersAggregation, Interval};
use crate::search::query::canonical_numbers::ALL_NUMBERS_FIELD;
use crate::search::query::json::OrderedJson;
use crate::search::query::{
    Aggregation, Bound, FieldSelector, HitOptions, Operator, Query, QueryValue, Search, Sort, SortKey,
    SourceFilter, TokenPattern,
};
use crate::search::store::EVENT_TIME;

/// The names under which a server stores the fields of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldNames {
    /// The names of the query: another lea, and servers that lea does not fill.
    AsWritten,
    /// Those of a cluster that lea fills, where hidden fields are part of the `lea` object.
    Cluster,
}

impl FieldNames {
    fn name(self, name: &str) -> Cow<'_, str> {
        match self {
            FieldNames::AsWritten => name.into(),
            FieldNames::Cluster => cluster_field(name),
        }
    }
}

/// Maps a field of a query to its name in a cluster that lea fills.
fn cluster_field(name: &str) -> Cow<'_, str> {
    if name == EVENT_TIME {
        return LEA_TIME_FIELD.into();
    }
    if name == ALL_NUMBERS_FIELD {
        return format!("{LEA_NUMBER_FIELD}.*").into();
    }
    match name.strip_suffix(ALL_NUMBERS_FIELD).and_then(|name| name.strip_suffix('.')) {
        Some(of) => format!("{LEA_NUMBER_FIELD}.{}", of.replace('.', "_")).into(),
        None => name.into(),
    }
}

/// Body of a `_search` in a cluster that lea fills. `timeout` is the time after which the cluster stops.
pub(crate) fn search(search: &Search, timeout: &str) -> Json {
    let page = Page {
        sort: &search.sort,
        size: search.size,
        after: search.after.as_deref(),
        aggregations: &search.aggregations,
    };
    let mut body = page.body(query(&search.query), FieldNames::Cluster);
    body["timeout"] = timeout.into();
    if search.from > 0 {
        body["from"] = search.from.into();
    }
    // The values of fields are read from the complete source.
    if let Some(filter) = source_filter(&search.source).filter(|_| !search.options.reads_source()) {
        body["_source"] = filter;
    }
    if let Some(filter) = &search.post_filter {
        body["post_filter"] = query(filter);
    }
    add_hit_options(&mut body, &search.options);
    body
}

fn add_hit_options(body: &mut Json, options: &HitOptions) {
    for (name, is_on) in [("version", options.version), ("seq_no_primary_term", options.seq_no_primary_term)]
    {
        if is_on {
            body[name] = true.into();
        }
    }
}

/// The parts of a search besides its query.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page<'a> {
    pub sort: &'a [Sort],
    pub size: usize,
    pub after: Option<&'a [Json]>,
    pub aggregations: &'a [(String, Aggregation)],
}

impl Page<'_> {
    /// Body of a `_search`.
    pub(crate) fn body(self, query: Json, names: FieldNames) -> Json {
        let mut body = json!({"query": query, "size": self.size, "track_total_hits": true});
        if !self.sort.is_empty() {
            body["sort"] = self.sort.iter().map(|key| sort(key, names)).collect();
        }
        if let Some(after) = self.after {
            body["search_after"] = after.into();
        }
        if !self.aggregations.is_empty() {
            body["aggs"] = aggregations(self.aggregations, names);
        }
        body
    }
}

/// Translates a query.
pub(crate) fn query(query: &Query) -> Json {
    translate(query, false)
}

/// With `lenient`, a value that does not fit its field's type matches nothing instead of being an error.
fn translate(query: &Query, lenient: bool) -> Json {
    match query {
        Query::All => json!({"match_all": {}}),
        Query::None => json!({"match_none": {}}),
        Query::Match { fields, text, operator } => {
            let operator = if *operator == Operator::And { "and" } else { "or" };
            match_query(fields, text, json!({"operator": operator}), lenient)
        }
        Query::Phrase { fields, text } => match_query(fields, text, json!({"type": "phrase"}), lenient),
        Query::Term { field: name, value } if name == ALL_NUMBERS_FIELD => {
            json!({"multi_match": {"query": value_json(value), "fields": [cluster_field(name)]}})
        }
        Query::Term { field: name, value } => {
            json!({"term": {cluster_field(name).as_ref(): {"value": value_json(value)}}})
        }
        Query::Range { fields, from, to, format, zone } => match single_field(fields) {
            Some(name) if !lenient => range_query(name, from, to, format.as_deref(), *zone),
            _ => {
                let mut found = query_string(fields, &range_text(from, to), lenient);
                if !zone.is_utc() {
                    found["query_string"]["time_zone"] = zone.name().into();
                }
                found
            }
        },
        Query::Prefix { fields, prefix } => query_string(fields, &format!("{}*", escape(prefix)), lenient),
        Query::Wildcard { fields, pattern } => match single_field(fields).filter(|_| !has_wildcards(pattern))
        {
            Some(name) => json!({"wildcard": {cluster_field(name).as_ref(): {"value": pattern}}}),
            None => query_string(fields, &escape_pattern(pattern), lenient),
        },
        Query::MatchAtLeast { fields, text, minimum } => {
            multi_match(fields, text, json!({"minimum_should_match": minimum}), lenient)
        }
        Query::NearPhrase { fields, text, slop } => {
            multi_match(fields, text, json!({"type": "phrase", "slop": slop}), lenient)
        }
        Query::PhrasePrefix { fields, text, slop } => {
            multi_match(fields, text, json!({"type": "phrase_prefix", "slop": slop}), lenient)
        }
        Query::Fuzzy { fields, text, operator, fuzziness } => {
            let operator = if *operator == Operator::And { "and" } else { "or" };
            let (low, high) = fuzziness.auto_lengths;
            let edits = fuzziness.edits_max.map_or(json!(format!("AUTO:{low},{high}")), Json::from);
            let how = json!({
                "operator": operator, "fuzziness": edits, "prefix_length": fuzziness.prefix_chars,
                "fuzzy_transpositions": fuzziness.swaps,
            });
            multi_match(fields, text, how, lenient)
        }
        Query::Pattern { fields, pattern, ignores_case } => pattern_query(fields, pattern, *ignores_case),
        Query::Geo { field, shape, ignores_unmapped } => geo_query(field, shape, *ignores_unmapped),
        Query::Exists { field: name } => json!({"exists": {"field": cluster_field(name)}}),
        Query::Ids(ids) => json!({"ids": {"values": ids}}),
        Query::Lenient(query) => translate(query, true),
        Query::Bool { must, should, must_not, should_min } => {
            bool_query([must, should, must_not], *should_min, lenient)
        }
    }
}

/// The field name, if the selector names exactly one.
fn single_field(fields: &FieldSelector) -> Option<&str> {
    match fields {
        FieldSelector::Named(names) if names.len() == 1 && !names[0].contains('*') => Some(&names[0]),
        _ => None,
    }
}

/// Value of the `fields` parameter. `None`: all fields, which the index settings define.
fn fields_json(fields: &FieldSelector) -> Option<Json> {
    match fields {
        FieldSelector::All => None,
        FieldSelector::Named(names) => Some(names.iter().map(|name| cluster_field(name)).collect()),
    }
}

/// A `match` or `match_phrase` query, or a `multi_match` with the parameters `how`.
fn match_query(fields: &FieldSelector, text: &str, how: Json, lenient: bool) -> Json {
    let is_phrase = how.get("type").is_some();
    if let (Some(name), false) = (single_field(fields), lenient && is_phrase) {
        let (kind, mut body) = if is_phrase { ("match_phrase", json!({})) } else { ("match", how) };
        body["query"] = text.into();
        if lenient {
            body["lenient"] = true.into();
        }
        return json!({kind: {cluster_field(name).as_ref(): body}});
    }
    let mut body = how;
    body["query"] = text.into();
    body["lenient"] = lenient.into();
    if let Some(fields) = fields_json(fields) {
        body["fields"] = fields;
    }
    json!({"multi_match": body})
}

/// A `multi_match` query with the parameters `how`.
fn multi_match(fields: &FieldSelector, text: &str, how: Json, lenient: bool) -> Json {
    let mut body = how;
    body["query"] = text.into();
    body["lenient"] = lenient.into();
    if let Some(fields) = fields_json(fields) {
        body["fields"] = fields;
    }
    json!({"multi_match": body})
}

/// A `prefix`, `wildcard`, `regexp` or `term` query for each field.
fn pattern_query(fields: &FieldSelector, pattern: &TokenPattern, ignores_case: bool) -> Json {
    let (kind, text) = match pattern {
        TokenPattern::Exact(text) => ("term", text),
        TokenPattern::Prefix(text) => ("prefix", text),
        TokenPattern::Wildcard(text) => ("wildcard", text),
        TokenPattern::Regexp(text) => ("regexp", text),
    };
    let names = match (fields, pattern) {
        (FieldSelector::Named(names), _) if names.iter().all(|name| !name.contains('*')) => names,
        (fields, TokenPattern::Regexp(text)) => {
            return query_string(fields, &format!("/{}/", text.replace('/', "\\/")), true);
        }
        (fields, TokenPattern::Wildcard(text)) => return query_string(fields, &escape_pattern(text), true),
        (fields, TokenPattern::Prefix(text)) => {
            return query_string(fields, &format!("{}*", escape(text)), true);
        }
        (fields, TokenPattern::Exact(text)) => return query_string(fields, &escape(text), true),
    };
    let one = |name: &String| {
        let mut body = json!({"value": text});
        if ignores_case {
            body["case_insensitive"] = true.into();
        }
        json!({kind: {cluster_field(name).as_ref(): body}})
    };
    match names.as_slice() {
        [name] => one(name),
        names => json!({"bool": {"should": names.iter().map(one).collect::<Vec<_>>()}}),
    }
}

fn geo_query(field: &str, shape: &GeoShape, ignores_unmapped: bool) -> Json {
    match shape {
        GeoShape::Circle { center, radius_m } => json!({"geo_distance": {
            "distance": format!("{radius_m}m"), field: {"lat": center.lat, "lon": center.lon},
            "ignore_unmapped": ignores_unmapped,
        }}),
        GeoShape::Box { top, left, bottom, right } => json!({"geo_bounding_box": {
            field: {"top": top, "left": left, "bottom": bottom, "right": right},
            "ignore_unmapped": ignores_unmapped,
        }}),
    }
}

/// A `query_string` query.
fn query_string(fields: &FieldSelector, text: &str, lenient: bool) -> Json {
    let mut body = json!({"query": text, "lenient": lenient});
    if let Some(fields) = fields_json(fields) {
        body["fields"] = fields;
    }
    json!({"query_string": body})
}

fn range_query(name: &str, from: &Bound, to: &Bound, format: Option<&str>, zone: TimeZone) -> Json {
    let mut body = Map::new();
    let mut end = |bound: &Bound, included: &str, excluded: &str| match bound {
        Bound::Open => {}
        Bound::Included(value) => drop(body.insert(included.to_owned(), value_json(value))),
        Bound::Excluded(value) => drop(body.insert(excluded.to_owned(), value_json(value))),
    };
    end(from, "gte", "gt");
    end(to, "lte", "lt");
    if let Some(format) = format {
        body.insert("format".to_owned(), format.into());
    }
    if !zone.is_utc() {
        body.insert("time_zone".to_owned(), zone.name().into());
    }
    json!({"range": {cluster_field(name).as_ref(): body}})
}

/// A range in the query language.
fn range_text(from: &Bound, to: &Bound) -> String {
    let end = |bound: &Bound| match bound {
        Bound::Open => "*".to_owned(),
        Bound::Included(value) | Bound::Excluded(value) => quote(value),
    };
    let open = if matches!(from, Bound::Excluded(_)) { '{' } else { '[' };
    let close = if matches!(to, Bound::Excluded(_)) { '}' } else { ']' };
    format!("{open}{} TO {}{close}", end(from), end(to))
}

fn quote(value: &QueryValue) -> String {
    let text = match value {
        QueryValue::Text(text) => text.clone(),
        QueryValue::Long(number) => number.to_string(),
        QueryValue::Double(number) => number.to_string(),
        QueryValue::Bool(value) => value.to_string(),
    };
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Escapes a text for the query language. Letters, digits and non-ASCII characters need no escape.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii() && !c.is_ascii_alphanumeric() && c != '_' && !c.is_ascii_control()
            || c.is_whitespace()
        {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Escapes a pattern for the query language: `*`, `?` and existing escapes keep their meaning.
fn escape_pattern(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' => out.push(c),
            '\\' => {
                out.push('\\');
                out.push(chars.next().unwrap_or('\\'));
            }
            c => out.push_str(&escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    out
}

/// False for a pattern without wildcards, which the query language would treat as text.
fn has_wildcards(pattern: &str) -> bool {
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' => return true,
            '\\' => drop(chars.next()),
            _ => {}
        }
    }
    false
}

/// `clauses` are `must`, `should` and `must_not`.
fn bool_query(clauses: [&[Query]; 3], should_min: usize, lenient: bool) -> Json {
    let [must, should, must_not] = clauses;
    let all = |queries: &[Query]| queries.iter().map(|query| translate(query, lenient)).collect::<Vec<_>>();
    let some = if should_min == 1 { any_of(should, lenient) } else { all(should) };
    if must.is_empty() && must_not.is_empty() && some.len() == 1 && should_min == 1 {
        return some.into_iter().next().unwrap_or_default();
    }
    let mut body = Map::new();
    for (name, clauses) in [("must", all(must)), ("should", some), ("must_not", all(must_not))] {
        if !clauses.is_empty() {
            body.insert(name.to_owned(), clauses.into());
        }
    }
    if !should.is_empty() {
        body.insert("minimum_should_match".to_owned(), should_min.into());
    }
    json!({"bool": body})
}

/// Translates alternatives. Values of the same field are merged into one `terms` query, across nested groups:
/// clusters limit the number of clauses, and each phone number adds its canonical form.
fn any_of(queries: &[Query], lenient: bool) -> Vec<Json> {
    let (mut terms, mut others) = (Vec::new(), Vec::new());
    collect_terms(queries, lenient, &mut terms, &mut others);
    let terms = terms.into_iter().map(|(name, mut values)| match values.len() {
        1 => json!({"term": {name: {"value": values.remove(0)}}}),
        _ => json!({"terms": {name: values}}),
    });
    terms.chain(others).collect()
}

fn collect_terms(
    queries: &[Query],
    lenient: bool,
    terms: &mut Vec<(String, Vec<Json>)>,
    others: &mut Vec<Json>,
) {
    for query in queries {
        match query {
            Query::Term { field: name, value } if name != ALL_NUMBERS_FIELD => {
                let (name, value) = (cluster_field(name), value_json(value));
                match terms.iter_mut().find(|(of, _)| *of == name) {
                    Some((_, values)) => values.push(value),
                    None => terms.push((name.into_owned(), vec![value])),
                }
            }
            Query::Bool { must, should, must_not, should_min: 1 }
                if must.is_empty() && must_not.is_empty() =>
            {
                collect_terms(should, lenient, terms, others);
            }
            other => others.push(translate(other, lenient)),
        }
    }
}

fn value_json(value: &QueryValue) -> Json {
    match value {
        QueryValue::Text(text) => text.as_str().into(),
        QueryValue::Long(number) => (*number).into(),
        QueryValue::Double(number) => (*number).into(),
        QueryValue::Bool(value) => (*value).into(),
    }
}

/// Translates one sort key.
fn sort(sort: &Sort, names: FieldNames) -> Json {
    let mut how = json!({"order": if sort.descending { "desc" } else { "asc" }});
    let name = match &sort.key {
        SortKey::SeqNo => "_doc".into(),
        SortKey::Score => "_score".into(),
        SortKey::Field(name) => {
            if sort.missing_first {
                how["missing"] = "_first".into();
            }
            if let Some(kind) = &sort.unmapped_type {
                how["unmapped_type"] = kind.as_str().into();
            }
            if let Some(format) = &sort.format {
                how["format"] = format.as_str().into();
            }
            names.name(name)
        }
    };
    json!({name.as_ref(): how})
}

/// Source filter. `None` returns the complete source, byte for byte as stored.
fn source_filter(filter: &SourceFilter) -> Option<Json> {
    if filter.excludes_all {
        return Some(false.into());
    }
    if filter.includes.is_empty() && filter.excludes.is_empty() {
        return None;
    }
    // A list of excluded fields also has to exclude the `lea` object.
    let excludes = filter.excludes.iter().map(String::as_str).chain([LEA_OBJECT]).collect::<Vec<_>>();
    Some(json!({"includes": filter.includes, "excludes": excludes}))
}

/// Translates aggregations. They are sent as they were written, apart from the names of fields and from queries, in
/// which numbers were expanded.
fn aggregations(aggregations: &[(String, Aggregation)], names: FieldNames) -> Json {
    let named = |(name, one): &(String, Aggregation)| (name.clone(), aggregation(one, names));
    Json::Object(aggregations.iter().map(named).collect())
}

fn aggregation(aggregation: &Aggregation, names: FieldNames) -> Json {
    let body = match &aggregation.kind {
        AggregationKind::Filter(filter) => query(filter),
        AggregationKind::Filters(filters) => filters_body(filters),
        AggregationKind::DateHistogram(histogram) => {
            let mut body = renamed(&aggregation.body, names, false);
            if body.as_object_mut().and_then(|members| members.remove("interval")).is_some() {
                let (key, interval) = interval_member(histogram.interval);
                body[key] = interval.into();
            }
            body
        }
        _ => renamed(&aggregation.body, names, false),
    };
    let mut translated = json!({aggregation.type_name: body});
    if let Some(meta) = &aggregation.meta {
        translated["meta"] = meta.to_json();
    }
    if !aggregation.inner.is_empty() {
        translated["aggs"] = aggregations(&aggregation.inner, names);
    }
    translated
}

/// Returns the member that newer versions have instead of `interval`.
fn interval_member(interval: Interval) -> (&'static str, String) {
    let unit = match interval {
        Interval::Fixed(ms) => return ("fixed_interval", format!("{ms}ms")),
        Interval::Second => "1s",
        Interval::Minute => "1m",
        Interval::Hour => "1h",
        Interval::Day => "1d",
        Interval::Week => "1w",
        Interval::Month => "1M",
        Interval::Quarter => "1q",
        Interval::Year => "1y",
    };
    ("calendar_interval", unit.to_owned())
}

fn filters_body(filters: &FiltersAggregation) -> Json {
    let list: Json = match filters.keyed {
        true => filters
            .filters
            .iter()
            .map(|(name, filter)| (name.clone(), query(filter)))
            .collect::<Map<_, _>>()
            .into(),
        false => filters.filters.iter().map(|(_, filter)| query(filter)).collect(),
    };
    let mut body = json!({"filters": list});
    if let Some(name) = &filters.other {
        body["other_bucket"] = true.into();
        body["other_bucket_key"] = name.as_str().into();
    }
    body
}

/// Translates the value of each member `field`, and of the keys of `sort`.
fn renamed(json: &OrderedJson, names: FieldNames, is_sort: bool) -> Json {
    match json {
        OrderedJson::Object(members) => {
            let member = |(key, json): &(String, OrderedJson)| match (key.as_str(), json) {
                ("field", OrderedJson::Text(name)) => (key.clone(), names.name(name).into()),
                ("sort", json) => (key.clone(), renamed(json, names, true)),
                (key, json) if is_sort => (names.name(key).into_owned(), renamed(json, names, false)),
                (_, json) => (key.clone(), renamed(json, names, false)),
            };
            Json::Object(members.iter().map(member).collect())
        }
        OrderedJson::List(list) => list.iter().map(|json| renamed(json, names, is_sort)).collect(),
        OrderedJson::Text(name) if is_sort => names.name(name).into(),
        json => json.to_json(),
    }
}

/// Removes the `lea` object from the end of a source; a source without it is returned unchanged.
pub(crate) fn strip_lea_object(source: &[u8]) -> Vec<u8> {
    stripped(source).unwrap_or_else(|| source.to_vec())
}

/// Inside a JSON string the quotes of the pattern would be escaped, so a match is a member; it belongs to the
/// outermost object if only the closing brace follows.
fn stripped(source: &[u8]) -> Option<Vec<u8>> {
    let name = format!("\"{LEA_OBJECT}\":{{");
    let at = source.windows(name.len()).rposition(|window| window == name.as_bytes())?;
    let object = &source[at + name.len() - 1..];
    let mut values = serde_json::Deserializer::from_slice(object).into_iter::<serde::de::IgnoredAny>();
    values.next()?.ok()?;
    if object[values.byte_offset()..].trim_ascii() != b"}" {
        return None;
    }
    let before = source[..at].trim_ascii_end();
    let before = before.strip_suffix(b",").or_else(|| before.ends_with(b"{").then_some(before))?;
    let mut left = before.to_vec();
    left.push(b'}');
    Some(left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phone::{NumberSettings, PhoneNumberNormalizer};
    use crate::search::query::add_canonical_terms;
    use crate::search::query::search_request;

    /// Checks the translation of a request body.
    #[track_caller]
    fn check(text: &str, expected: Json) {
        let parsed = search_request::parse_search([], text.as_bytes()).unwrap();
        let mut found = search(&parsed, "9s");
        for key in ["track_total_hits", "timeout", "size"] {
            found.as_object_mut().unwrap().remove(key).unwrap();
        }
        assert_eq!(found, expected, "{text}");
    }

    #[track_caller]
    fn check_query(text: &str, expected: Json) {
        let parsed = search_request::parse_search([], format!("{{\"query\":{text}}}").as_bytes()).unwrap();
        assert_eq!(query(&parsed.query), expected, "{text}");
    }

    /// Checks the translation of a `q` parameter. Without a default field it is lenient.
    #[track_caller]
    fn check_text(text: &str, expected: Json) {
        assert_eq!(query(&search_request::parse_count([("q", text)], b"").unwrap()), expected, "{text}");
    }

    /// Like `check_text`, but not lenient.
    #[track_caller]
    fn check_strict(text: &str, expected: Json) {
        assert_eq!(
            query(&search_request::parse_count([("q", text), ("lenient", "false")], b"").unwrap()),
            expected,
            "{text}"
        );
    }

    #[track_caller]
    fn check_number(text: &str, expected: Json) {
        let normalizer = PhoneNumberNormalizer::new(NumberSettings::default()).unwrap();
        let parsed =
            add_canonical_terms(search_request::parse_count([("q", text)], b"").unwrap(), &normalizer);
        assert_eq!(query(&parsed), expected, "{text}");
    }

    #[test]
    fn field_names_of_other_servers_are_not_translated() {
        let by_time = Sort::by_field(EVENT_TIME, true);
        let terms = Aggregation::terms("destNum._number", 5);
        let aggregations = [("top".to_owned(), terms)];
        let page = Page { sort: &[by_time], size: 1, after: Some(&[json!(7)]), aggregations: &aggregations };
        let body = page.body(json!({"match_all": {}}), FieldNames::AsWritten);
        assert_eq!(body["sort"], json!([{"_event_time": {"order": "desc"}}]));
        assert_eq!(body["search_after"], json!([7]));
        assert_eq!(body["aggs"]["top"]["terms"]["field"], "destNum._number");
        let body = page.body(json!({"match_all": {}}), FieldNames::Cluster);
        assert_eq!(body["sort"], json!([{"lea.time": {"order": "desc"}}]));
        assert_eq!(body["aggs"]["top"]["terms"]["field"], "lea.number.destNum");
    }

    #[test]
    fn search_body_has_only_requested_keys() {
        let parsed = search_request::parse_search([], b"").unwrap();
        let expected =
            json!({"query": {"match_all": {}}, "size": 10, "track_total_hits": true, "timeout": "9s"});
        assert_eq!(search(&parsed, "9s"), expected);
        check(
            r#"{"from":5,"sort":["n",{"d":{"order":"desc","missing":"_first","unmapped_type":"date"}},"_doc"]}"#,
            json!({"query": {"match_all": {}}, "from": 5, "sort": [
                {"n": {"order": "asc"}}, {"d": {"order": "desc", "missing": "_first", "unmapped_type": "date"}},
                {"_doc": {"order": "asc"}},
            ]}),
        );
        check(
            r#"{"sort":[{"_event_time":"desc"}],"search_after":[1460383327000]}"#,
            json!({"query": {"match_all": {}}, "sort": [{"lea.time": {"order": "desc"}}], "search_after": [1_460_383_327_000_i64]}),
        );
        check(r#"{"_source":false}"#, json!({"query": {"match_all": {}}, "_source": false}));
        check(
            r#"{"_source":{"includes":"a*","excludes":["b"]}}"#,
            json!({"query": {"match_all": {}}, "_source": {"includes": ["a*"], "excludes": ["b", "lea"]}}),
        );
    }

    #[test]
    fn each_json_query_is_translated() {
        check_query(r#"{"match_none":{}}"#, json!({"match_none": {}}));
        check_query(r#"{"match":{"t":"a b"}}"#, json!({"match": {"t": {"query": "a b", "operator": "or"}}}));
        check_query(
            r#"{"match":{"t":{"query":"a b","operator":"and","lenient":true}}}"#,
            json!({"match": {"t": {"query": "a b", "operator": "and", "lenient": true}}}),
        );
        check_query(r#"{"match_phrase":{"t":"a b"}}"#, json!({"match_phrase": {"t": {"query": "a b"}}}));
        check_query(
            r#"{"multi_match":{"query":"a b","type":"phrase","fields":["t","k.*"]}}"#,
            json!({"multi_match": {"query": "a b", "type": "phrase", "lenient": false, "fields": ["t", "k.*"]}}),
        );
        check_query(
            r#"{"multi_match":{"query":"a"}}"#,
            json!({"multi_match": {"query": "a", "operator": "or", "lenient": true}}),
        );
        check_query(r#"{"term":{"k":1.5}}"#, json!({"term": {"k": {"value": 1.5}}}));
        check_query(r#"{"terms":{"k":["a",1,true]}}"#, json!({"terms": {"k": ["a", 1, true]}}));
        check_query(r#"{"terms":{"k":["a"]}}"#, json!({"term": {"k": {"value": "a"}}}));
        check_query(
            r#"{"range":{"d":{"gte":"2016","lt":5,"format":"yyyy","time_zone":"-03:30"}}}"#,
            json!({"range": {"d": {"gte": "2016", "lt": 5, "format": "yyyy", "time_zone": "-03:30"}}}),
        );
        check_query(r#"{"range":{"d":{"gt":1,"lte":2}}}"#, json!({"range": {"d": {"gt": 1, "lte": 2}}}));
        check_query(r#"{"prefix":{"k":"a b*"}}"#, json!({"prefix": {"k": {"value": "a b*"}}}));
        check_query(r#"{"wildcard":{"k":"a:*\\*?"}}"#, json!({"wildcard": {"k": {"value": "a:*\\*?"}}}));
        check_query(
            r#"{"regexp":{"k":{"value":"a.*","case_insensitive":true}}}"#,
            json!({"regexp": {"k": {"value": "a.*", "case_insensitive": true}}}),
        );
        check_query(
            r#"{"query_string":{"query":"a? /b.*/","default_field":"k"}}"#,
            json!({"bool": {"should": [
                {"query_string": {"query": "a?", "lenient": false, "fields": ["k"]}},
                {"regexp": {"k": {"value": "b.*"}}},
            ], "minimum_should_match": 1}}),
        );
        check_query(
            r#"{"geo_distance":{"distance":"1km","g":"1,2"}}"#,
            json!({"geo_distance": {"distance": "1000m", "g": {"lat": 1.0, "lon": 2.0}, "ignore_unmapped": false}}),
        );
        check_query(r#"{"wildcard":{"k":"AND \\*"}}"#, json!({"wildcard": {"k": {"value": "AND \\*"}}}));
        check_query(r#"{"exists":{"field":"k"}}"#, json!({"exists": {"field": "k"}}));
        check_query(
            r#"{"exists":{"field":"destNum._number"}}"#,
            json!({"exists": {"field": "lea.number.destNum"}}),
        );
        check_query(r#"{"ids":{"values":["1",2]}}"#, json!({"ids": {"values": ["1", "2"]}}));
        check_query(r#"{"bool":{}}"#, json!({"bool": {}}));
        check_query(
            r#"{"bool":{"must":[{"match_all":{}}],"should":[{"term":{"k":1}},{"exists":{"field":"k"}}],"must_not":{"match_none":{}}}}"#,
            json!({"bool": {
                "must": [{"match_all": {}}], "should": [{"term": {"k": {"value": 1}}}, {"exists": {"field": "k"}}],
                "must_not": [{"match_none": {}}], "minimum_should_match": 0,
            }}),
        );
        check_query(
            r#"{"bool":{"should":[{"term":{"k":1}},{"term":{"k":2}},{"term":{"l":3}}],"minimum_should_match":2}}"#,
            json!({"bool": {
                "should": [{"term": {"k": {"value": 1}}}, {"term": {"k": {"value": 2}}}, {"term": {"l": {"value": 3}}}],
                "minimum_should_match": 2,
            }}),
        );
    }

    #[test]
    fn each_query_string_clause_is_translated() {
        check_text("*", json!({"match_all": {}}));
        check_text("k:a", json!({"match": {"k": {"query": "a", "operator": "or", "lenient": true}}}));
        check_strict("k:a", json!({"match": {"k": {"query": "a", "operator": "or"}}}));
        check_strict("k:\"a b\"", json!({"match_phrase": {"k": {"query": "a b"}}}));
        check_text(
            "friendly-scanner",
            json!({"multi_match": {"query": "friendly-scanner", "operator": "or", "lenient": true}}),
        );
        check_text("\"a b\"", json!({"multi_match": {"query": "a b", "type": "phrase", "lenient": true}}));
        check_strict("k:[1 TO 5}", json!({"range": {"k": {"gte": "1", "lt": "5"}}}));
        check_text("[1 TO 5}", json!({"query_string": {"query": "[\"1\" TO \"5\"}", "lenient": true}}));
        check_text(r#">a\""#, json!({"query_string": {"query": r#"{"a\"" TO *]"#, "lenient": true}}));
        check_text("97*", json!({"query_string": {"query": "97*", "lenient": true}}));
        check_strict(
            r"k:a\:b?",
            json!({"query_string": {"query": r"a\:b?", "lenient": false, "fields": ["k"]}}),
        );
        check_text("k:*", json!({"exists": {"field": "k"}}));
        check_strict(
            r"k.\*:a",
            json!({"multi_match": {"query": "a", "operator": "or", "lenient": false, "fields": ["k.*"]}}),
        );
        check_text(
            "k:a AND NOT b",
            json!({"bool": {
                "must": [{"match": {"k": {"query": "a", "operator": "or", "lenient": true}}}],
                "must_not": [{"multi_match": {"query": "b", "operator": "or", "lenient": true}}],
            }}),
        );
        // Only these forms accept `lenient`.
        check_text(
            "k:[a TO b] OR l:\"c d\"",
            json!({"bool": {"should": [
                {"query_string": {"query": "[\"a\" TO \"b\"]", "lenient": true, "fields": ["k"]}},
                {"multi_match": {"query": "c d", "type": "phrase", "lenient": true, "fields": ["l"]}},
            ], "minimum_should_match": 1}}),
        );
    }

    #[test]
    fn phone_numbers_search_the_canonical_field() {
        let number = "9011972598294121";
        check_number(
            &format!("destNum:{number}"),
            json!({"bool": {"should": [
                {"term": {"lea.number.destNum": {"value": "+972598294121"}}},
                {"match": {"destNum": {"query": number, "operator": "or", "lenient": true}}},
            ], "minimum_should_match": 1}}),
        );
        check_number(
            number,
            json!({"bool": {"should": [
                {"multi_match": {"query": number, "operator": "or", "lenient": true}},
                {"multi_match": {"query": "+972598294121", "fields": ["lea.number.*"]}},
            ], "minimum_should_match": 1}}),
        );
        // Too short for a phone number.
        check_number("100", json!({"multi_match": {"query": "100", "operator": "or", "lenient": true}}));
        let normalizer = PhoneNumberNormalizer::new(NumberSettings::default()).unwrap();
        let text = br#"{"query":{"terms":{"destNum":["00972598294121","1","+12025550100"]}}}"#;
        let parsed = add_canonical_terms(search_request::parse_search([], text).unwrap().query, &normalizer);
        assert_eq!(
            query(&parsed),
            json!({"bool": {"should": [
                {"terms": {"destNum": ["00972598294121", "1", "+12025550100"]}},
                {"terms": {"lea.number.destNum": ["+972598294121", "+12025550100"]}},
            ], "minimum_should_match": 1}})
        );
        assert_eq!(cluster_field("call.to._number"), "lea.number.call_to");
        assert_eq!(cluster_field("_number"), "lea.number.*");
        assert_eq!(cluster_field("my_number"), "my_number");
    }

    #[test]
    fn each_aggregation_is_translated() {
        check(
            r#"{"aggs":{"top":{"terms":{"field":"k","size":3,"order":{"_key":"asc"},"min_doc_count":2},"aggs":
            {"d":{"date_histogram":{"field":"_event_time","calendar_interval":"day","time_zone":"+01:00"}}}},
            "m":{"date_histogram":{"field":"d","calendar_interval":"month","min_doc_count":1}}}}"#,
            json!({"query": {"match_all": {}}, "aggs": {
                "top": {
                    "terms": {"field": "k", "size": 3, "order": {"_key": "asc"}, "min_doc_count": 2},
                    "aggs": {"d": {"date_histogram": {
                        "field": "lea.time", "calendar_interval": "day", "time_zone": "+01:00",
                    }}},
                },
                "m": {"date_histogram": {"field": "d", "calendar_interval": "month", "min_doc_count": 1}},
            }}),
        );
        // Later versions have no `interval`.
        for (written, key, interval) in [
            ("\"week\"", "calendar_interval", "1w"),
            ("\"90m\"", "fixed_interval", "5400000ms"),
            ("3600000", "fixed_interval", "3600000ms"),
        ] {
            check(
                &format!(r#"{{"aggs":{{"a":{{"date_histogram":{{"field":"d","interval":{written}}}}}}}}}"#),
                json!({"query": {"match_all": {}}, "aggs": {"a": {"date_histogram": {"field": "d", key: interval}}}}),
            );
        }
        check(
            r#"{"aggs":{"f":{"filter":{"term":{"k":"a"}},"aggs":{"h":{"top_hits":{"sort":[{"_event_time":"desc"}]}}}}}}"#,
            json!({"query": {"match_all": {}}, "aggs": {"f": {
                "filter": {"term": {"k": {"value": "a"}}},
                "aggs": {"h": {"top_hits": {"sort": [{"lea.time": "desc"}]}}},
            }}}),
        );
    }

    #[track_caller]
    fn check_cut(source: &str, expected: &str) {
        assert_eq!(String::from_utf8(strip_lea_object(source.as_bytes())).unwrap(), expected, "{source}");
    }

    #[test]
    fn only_the_lea_object_is_removed() {
        check_cut(r#"{"a": 1.0,"lea":{"time":"2026","number":{"a":"+1"}}}"#, r#"{"a": 1.0}"#);
        check_cut(r#"{"a":1 , "lea":{"time":"2026"} } "#, r#"{"a":1 }"#);
        check_cut(r#"{"lea":{"time":"2026"}}"#, "{}");
        for whole in [
            "{}",
            "",
            r#"{"a":"x,\"lea\":{\"b\":1}}"}"#,
            r#"{"a":{"b":1,"lea":{"time":"2026"}}}"#,
            r#"{"lea":{"time":"2026"},"a":1}"#,
            r#"{"lea":{"time":"#,
            r#"{"a":[{"lea":{}}]}"#,
            r#"{"lea":1}"#,
        ] {
            check_cut(whole, whole);
        }
    }

    #[test]
    fn special_characters_are_escaped() {
        assert_eq!(escape("a-b/c d_é9"), r"a\-b\/c\ d_é9");
        assert_eq!(escape("\u{3000}AND"), "\\\u{3000}AND");
        assert_eq!(escape_pattern("a\\"), "a\\\\");
        assert_eq!(escape_pattern("<x>*"), "\\<x\\>*");
    }
}
