//! Parser of a search request: the body (Elasticsearch's JSON) and the URL parameters become a [`Search`].
//! Pure code.
//!
//! Nothing that could change the answer is ignored: an unsupported key is rejected, unless its value is the
//! default (`"explain": false`).

use super::aggregations::{AGGREGATIONS_MAX, parse_aggregations};
use super::hits::parse_source_filter;
use super::json::OrderedJson;
use super::query_dsl::parse_query;
use super::query_string::{self, QueryStringOptions};
use super::sort::{is_default_order, parse_sort, parse_sorts};
use super::{FieldSelector, HitOptions, Operator, Query, QueryError, Search, SourceFilter};

/// Maximum size of a request body.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// Maximum of `from` + `size`, as in Elasticsearch.
pub const WINDOW_MAX: usize = 10_000;

/// `size` of a request that does not set it.
pub const SIZE_DEFAULT: usize = 10;

/// Maximum number of sort keys.
pub const SORTS_MAX: usize = 16;

/// Parses a search. The body may be empty; URL parameters override it. The caller sets the indices, which are
/// part of the path.
pub fn parse_search<'a>(
    parameters: impl IntoIterator<Item = Parameter<'a>>,
    body: &[u8],
) -> Result<Search, QueryError> {
    let mut search = Search {
        indices: Vec::new(),
        ignore_unavailable: false,
        query: Query::All,
        sort: Vec::new(),
        from: 0,
        size: SIZE_DEFAULT,
        after: None,
        source: SourceFilter::default(),
        options: HitOptions::default(),
        post_filter: None,
        aggregations: Vec::new(),
        typed_keys: false,
    };
    let mut room = AGGREGATIONS_MAX;
    let mut names_source = false;
    for (key, json) in body_members(body)? {
        if search.options.read(&key, &json)? {
            continue;
        }
        match (key.as_str(), &json) {
            ("query", OrderedJson::Object(_)) => search.query = parse_query(&json, 0)?,
            ("from", OrderedJson::Long(_) | OrderedJson::Text(_)) => {
                search.from = parse_count_value("from", json.to_long("from")?, 0)?
            }
            ("size", OrderedJson::Long(_) | OrderedJson::Text(_)) => {
                search.size = parse_count_value("size", json.to_long("size")?, SIZE_DEFAULT)?;
            }
            ("post_filter", OrderedJson::Object(_)) => search.post_filter = Some(parse_query(&json, 0)?),
            ("sort", _) => search.sort = parse_sorts(&json)?,
            ("search_after", OrderedJson::List(list)) => search.after = Some(parse_search_after(list)?),
            ("_source", _) => {
                search.source = parse_source_filter(&json)?;
                names_source = true;
            }
            ("aggs" | "aggregations", _) => search.aggregations.extend(parse_aggregations(&json, &mut room)?),
            ("track_total_hits", OrderedJson::Bool(_) | OrderedJson::Long(0..)) => {}
            ("timeout", OrderedJson::Text(text)) if is_time_value(text) => {}
            // Labels for statistics, and score weights.
            ("stats" | "indices_boost" | "track_scores", _) => {}
            ("profile" | "terminate_after" | "runtime_mappings" | "rescore" | "suggest" | "ext", json)
                if json.is_off() => {}
            _ => {
                return Err(QueryError::parsing(format!(
                    "Unknown key for a {} in [{key}].",
                    json.token_name()
                )));
            }
        }
    }
    names_source |= apply_parameters(&mut search, parameters)?;
    search.source.excludes_all |= search.options.hides_source && !names_source;
    check_limits(&search)?;
    Ok(search)
}

/// Parses the query of a `_count`: URL parameters, and a body that contains at most `query`.
pub fn parse_count<'a>(
    parameters: impl IntoIterator<Item = Parameter<'a>>,
    body: &[u8],
) -> Result<Query, QueryError> {
    let mut found = Query::All;
    for (key, json) in body_members(body)? {
        match (key.as_str(), &json) {
            ("query", OrderedJson::Object(_)) => found = parse_query(&json, 0)?,
            _ => return Err(QueryError::parsing(format!("request does not support [{key}]"))),
        }
    }
    let (query, rest) = split_query_parameters(parameters)?;
    match rest
        .iter()
        .find(|(key, value)| !is_ignored_parameter(key, value) && !is_ignore_unavailable(key, value))
    {
        Some((key, _)) => Err(unrecognized(key)),
        None => Ok(query.unwrap_or(found)),
    }
}

fn body_members(body: &[u8]) -> Result<Vec<(String, OrderedJson)>, QueryError> {
    if body.len() > BODY_BYTES_MAX {
        return Err(QueryError::argument(format!("the body is longer than {BODY_BYTES_MAX} bytes")));
    }
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Vec::new());
    }
    match OrderedJson::parse(body)? {
        OrderedJson::Object(members) => Ok(members),
        json => {
            Err(QueryError::parsing(format!("Expected [START_OBJECT] but found [{}]", json.token_name())))
        }
    }
}

/// Parses `from` or `size`; -1 means the default.
fn parse_count_value(key: &str, number: i64, default: usize) -> Result<usize, QueryError> {
    match number {
        -1 => Ok(default),
        number => usize::try_from(number).map_err(|_| {
            QueryError::argument(format!("[{key}] parameter cannot be negative, found [{number}]"))
        }),
    }
}

/// Checks the limits that involve several keys.
fn check_limits(search: &Search) -> Result<(), QueryError> {
    let window = search.from.saturating_add(search.size);
    if window > WINDOW_MAX {
        let reason = format!(
            "Result window is too large, from + size must be less than or equal to: [{WINDOW_MAX}] but was [{window}]. See \
             the scroll api for a more efficient way to request large data sets. This limit can be set by changing the \
             [index.max_result_window] index level setting."
        );
        return Err(QueryError::argument(reason));
    }
    if search.sort.len() > SORTS_MAX {
        return Err(QueryError::argument(format!("[sort] has more than {SORTS_MAX} keys")));
    }
    let Some(after) = &search.after else { return Ok(()) };
    match (search.sort.len(), after.len()) {
        (0, _) => Err(QueryError::shard("Sort must contain at least one field.")),
        (sorts, values) if sorts != values => {
            Err(QueryError::shard(format!("search_after has {values} value(s) but sort has {sorts}.")))
        }
        _ if search.from > 0 => {
            Err(QueryError::argument("`from` parameter must be set to 0 when `search_after` is used."))
        }
        _ => Ok(()),
    }
}

fn parse_search_after(list: &[OrderedJson]) -> Result<Vec<serde_json::Value>, QueryError> {
    if list.is_empty() {
        return Err(QueryError::argument("Values must contains at least one value."));
    }
    let value = |json: &OrderedJson| match json {
        OrderedJson::Null => Ok(serde_json::Value::Null),
        OrderedJson::Bool(value) => Ok((*value).into()),
        OrderedJson::Long(number) => Ok((*number).into()),
        OrderedJson::Double(number) => Ok((*number).into()),
        OrderedJson::Text(text) => Ok(text.as_str().into()),
        json => Err(QueryError::parsing(format!("found [{}] inside search_after.", json.token_name()))),
    };
    list.iter().map(value).collect()
}

/// Accepts `5s`, `100ms`, `-1`.
fn is_time_value(text: &str) -> bool {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = matches!(&text[number.len()..], "d" | "h" | "m" | "s" | "ms" | "micros" | "nanos");
    text == "-1" || text == "0" || (unit && number.parse::<u64>().is_ok())
}

fn unrecognized(key: &str) -> QueryError {
    QueryError::argument(format!("request contains unrecognized parameter: [{key}]"))
}

/// Key and value of a URL parameter.
pub type Parameter<'a> = (&'a str, &'a str);

/// Splits the parameters into the query of `q`, if there is one, and all parameters that do not belong to it.
fn split_query_parameters<'a>(
    parameters: impl IntoIterator<Item = Parameter<'a>>,
) -> Result<(Option<Query>, Vec<Parameter<'a>>), QueryError> {
    let (mut options, mut text, mut analyzes, mut rest) =
        (QueryStringOptions::default(), None, false, Vec::new());
    for (key, value) in parameters {
        match key {
            "q" => text = Some(value),
            "df" if value == "*" => options.fields = FieldSelector::All,
            "df" => options.fields = FieldSelector::Named(vec![value.to_owned()]),
            "default_operator" => {
                options.operator = match value.to_ascii_lowercase().as_str() {
                    "and" => Operator::And,
                    "or" => Operator::Or,
                    _ => {
                        return Err(QueryError::argument(format!(
                            "unknown operator [{value}], expected [and] or [or]"
                        )));
                    }
                }
            }
            "lenient" => options.lenient = Some(parse_boolean(value)?),
            "analyze_wildcard" => analyzes = parse_boolean(value)?,
            _ => rest.push((key, value)),
        }
    }
    let query = text.map(|text| query_string::parse(text, &options)).transpose()?;
    match analyzes && query.as_ref().is_some_and(|query| !query_string::has_plain_patterns(query)) {
        true => Err(QueryError::argument("[analyze_wildcard] is not supported for this query")),
        false => Ok((query, rest)),
    }
}

fn parse_boolean(value: &str) -> Result<bool, QueryError> {
    match value {
        "" | "true" => Ok(true),
        "false" => Ok(false),
        _ => {
            let reason = format!("Failed to parse value [{value}] as only [true] or [false] are allowed.");
            Err(QueryError::argument(reason))
        }
    }
}

/// Applies the URL parameters. Returns true if one of them is about the source.
fn apply_parameters<'a>(
    search: &mut Search,
    parameters: impl IntoIterator<Item = Parameter<'a>>,
) -> Result<bool, QueryError> {
    let (query, rest) = split_query_parameters(parameters)?;
    let names_source = rest.iter().any(|(key, _)| key.starts_with("_source"));
    if let Some(query) = query {
        search.query = query;
    }
    let list =
        |value: &str| value.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    let int = |key: &str, value: &str| {
        let reason = || format!("Failed to parse int parameter [{key}] with value [{value}]");
        value.parse::<i32>().map(i64::from).map_err(|_| QueryError::argument(reason()))
    };
    for (key, value) in rest {
        match key {
            "from" => search.from = parse_count_value(key, int(key, value)?, 0)?,
            "size" => search.size = parse_count_value(key, int(key, value)?, SIZE_DEFAULT)?,
            "sort" => {
                let one = |name: &String| match name.rsplit_once(':') {
                    Some((field, direction)) => parse_sort(field, Some(direction)),
                    None => parse_sort(name, None),
                };
                search.sort = list(value).iter().map(one).collect::<Result<_, _>>()?;
                if is_default_order(&search.sort) {
                    search.sort.clear();
                }
            }
            "_source" if matches!(value, "true" | "false") => search.source.excludes_all = value == "false",
            "_source" | "_source_includes" => search.source.includes = list(value),
            "_source_excludes" => search.source.excludes = list(value),
            "ignore_unavailable" => search.ignore_unavailable = parse_boolean(value)?,
            "track_total_hits" if value.parse::<u32>().is_ok() || parse_boolean(value).is_ok() => {}
            "timeout" if is_time_value(value) => {}
            "search_type" if matches!(value, "query_then_fetch" | "dfs_query_then_fetch") => {}
            "version" => search.options.version = parse_boolean(value)?,
            "seq_no_primary_term" => search.options.seq_no_primary_term = parse_boolean(value)?,
            "track_scores" => drop(parse_boolean(value)?),
            "explain" if value == "false" => {}
            key if is_ignored_parameter(key, value) => {}
            key => return Err(unrecognized(key)),
        }
    }
    Ok(names_source)
}

/// Parameters that cannot change the result, and those that only the HTTP server evaluates.
fn is_ignored_parameter(key: &str, value: &str) -> bool {
    match key {
        "pretty" | "human" | "error_trace" | "filter_path" | "format" | "preference" | "routing"
        | "request_cache" => true,
        "rest_total_hits_as_int"
        | "typed_keys"
        | "batched_reduce_size"
        | "ccs_minimize_roundtrips"
        | "stats" => true,
        "max_concurrent_shard_requests" | "pre_filter_shard_size" | "allow_partial_search_results" => true,
        "ignore_throttled" => true,
        "allow_no_indices" => value != "false",
        "expand_wildcards" => value == "open" || value == "all",
        _ => false,
    }
}

/// `ignore_unavailable` of a `_count`, which the caller evaluates.
fn is_ignore_unavailable(key: &str, value: &str) -> bool {
    key == "ignore_unavailable" && parse_boolean(value).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::date::TimeZone;
    use crate::search::query::SortKey;
    use crate::search::query::aggregations::{AggregationKind, BucketOrder, BucketOrderKey, Interval};

    #[track_caller]
    fn check_query(body: &str, expected: &str) {
        let body = format!("{{\"query\":{body}}}");
        assert_eq!(parse_search([], body.as_bytes()).unwrap().query.to_string(), expected, "{body}");
        assert_eq!(parse_count([], body.as_bytes()).unwrap().to_string(), expected, "{body}");
    }

    #[track_caller]
    fn check_refused(body: &str, kind: &str, reason: &str) {
        let error = parse_search([], body.as_bytes()).unwrap_err();
        assert_eq!((error.kind, error.reason.as_str()), (kind, reason), "{body}");
    }

    #[test]
    fn json_queries_are_parsed() {
        let table = [
            (r#"{"match_all":{}}"#, "all"),
            (r#"{"match_all":{"boost":2,"_name":"x"}}"#, "all"),
            (r#"{"match_none":{}}"#, "none"),
            (r#"{"match":{"t":"a b"}}"#, r#"any(t "a b")"#),
            (r#"{"match":{"t":5}}"#, r#"any(t "5")"#),
            (r#"{"match":{"t":{"query":"a b","operator":"AND"}}}"#, r#"every(t "a b")"#),
            (r#"{"match":{"t":{"query":"a","lenient":true}}}"#, r#"lenient any(t "a")"#),
            (r#"{"match_phrase":{"t":{"query":"a b","slop":0}}}"#, r#"phrase(t "a b")"#),
            (r#"{"multi_match":{"query":"a","fields":["t^2","k"]}}"#, r#"any(t,k "a")"#),
            (r#"{"multi_match":{"query":"a b","type":"phrase","fields":"t"}}"#, r#"phrase(t "a b")"#),
            (r#"{"multi_match":{"query":"a"}}"#, r#"lenient any(* "a")"#),
            (r#"{"term":{"k":"a"}}"#, r#"term(k "a")"#),
            (r#"{"term":{"k":{"value":1.5,"boost":1}}}"#, "term(k 1.5)"),
            (r#"{"term":{"k":18446744073709551615}}"#, r#"term(k "18446744073709551615")"#),
            (r#"{"terms":{"k":["a",1,true]}}"#, r#"(term(k "a") term(k 1) term(k true))"#),
            (r#"{"terms":{"k":[]}}"#, "none"),
            (r#"{"range":{"n":{"gte":1,"lt":5}}}"#, "range(n [1 TO 5})"),
            (r#"{"range":{"n":{"gte":1,"gt":2}}}"#, "range(n {2 TO *])"),
            (r#"{"range":{"n":{"gt":2,"gte":1}}}"#, "range(n [1 TO *])"),
            (r#"{"range":{"n":{"from":1,"to":null,"include_lower":false}}}"#, "range(n {1 TO *])"),
            (
                r#"{"range":{"d":{"lte":"now/d","format":"yyyy","time_zone":"-01:00"}}}"#,
                r#"range(d [* TO "now/d"] yyyy -01:00)"#,
            ),
            (r#"{"prefix":{"k":"97"}}"#, r#"prefix of token(k "97")"#),
            (r#"{"prefix":{"k":{"value":"97","rewrite":"constant_score"}}}"#, r#"prefix of token(k "97")"#),
            (r#"{"wildcard":{"k":{"wildcard":"a*"}}}"#, r#"wildcard of token(k "a*")"#),
            (r#"{"regexp":{"k":{"value":"a.*","case_insensitive":true}}}"#, r#"regexp(k "a.*" in any case)"#),
            (r#"{"term":{"k":{"value":"a","case_insensitive":true}}}"#, r#"token(k "a" in any case)"#),
            (r#"{"fuzzy":{"k":{"value":"ab","fuzziness":1}}}"#, r#"every(k "ab"~1)"#),
            (r#"{"match":{"t":{"query":"a b","fuzziness":"AUTO"}}}"#, r#"any(t "a b"~)"#),
            (r#"{"match":{"t":{"query":"a b c","minimum_should_match":2}}}"#, r#"some(t "a b c")~2"#),
            (r#"{"match_phrase":{"t":{"query":"a b","slop":3}}}"#, r#"phrase(t "a b")~3"#),
            (r#"{"match_phrase_prefix":{"t":"a b"}}"#, r#"phrase(t "a b"*)"#),
            (
                r#"{"multi_match":{"query":"a b","type":"phrase_prefix","fields":["t"]}}"#,
                r#"phrase(t "a b"*)"#,
            ),
            (r#"{"simple_query_string":{"query":"a + b","fields":["t"]}}"#, r#"(+any(t "a") +any(t "b"))"#),
            (r#"{"geo_distance":{"distance":"1km","g":"1,2"}}"#, "within(g 1000 m of 1,2)"),
            (
                r#"{"geo_bounding_box":{"g":{"top_left":[1,4],"bottom_right":{"lat":3,"lon":2}}}}"#,
                "within(g 4,1 to 3,2)",
            ),
            (
                r#"{"dis_max":{"queries":[{"term":{"k":"a"}},{"term":{"k":"b"}}]}}"#,
                r#"(term(k "a") term(k "b"))"#,
            ),
            (r#"{"exists":{"field":"k"}}"#, "exists(k)"),
            (r#"{"ids":{"values":["1",2]}}"#, "ids(1 2)"),
            (r#"{"constant_score":{"filter":{"match_all":{}},"boost":2}}"#, "all"),
            (r#"{"query_string":{"query":"a b","default_field":"t"}}"#, r#"any(t "a b")"#),
            (r#"{"query_string":{"query":"*","analyze_wildcard":true}}"#, "lenient all"),
            (
                r#"{"query_string":{"query":"a","fields":["t^2","k"],"default_operator":"and"}}"#,
                r#"every(t,k "a")"#,
            ),
            (r#"{"bool":{}}"#, "()"),
            (
                r#"{"bool":{"must":{"exists":{"field":"a"}},"filter":[{"exists":{"field":"b"}}],"must":null}}"#,
                "",
            ),
        ];
        for (body, expected) in &table[..table.len() - 1] {
            check_query(body, expected);
        }
        // A duplicate key.
        assert_eq!(
            parse_search([], table[table.len() - 1].0.as_bytes()).unwrap_err().kind,
            "json_parse_exception"
        );
        assert_eq!(parse_search([], b" \n").unwrap().query, Query::All);
    }

    #[test]
    fn minimum_should_match_counts_as_elasticsearch_does() {
        let check = |wanted: &str, expected: &str| {
            let should = r#"[{"exists":{"field":"a"}},{"exists":{"field":"b"}},{"exists":{"field":"c"}}]"#;
            check_query(
                &format!(r#"{{"bool":{{"should":{should},"minimum_should_match":{wanted}}}}}"#),
                expected,
            );
        };
        let of = |min: usize| {
            format!(
                "(exists(a) exists(b) exists(c)){}",
                if min == 1 { String::new() } else { format!("~{min}") }
            )
        };
        let table = [
            ("1", 1),
            ("\"-1\"", 2),
            ("\"50%\"", 1),
            ("\"-25%\"", 3),
            ("0", 1),
            ("3", 3),
            ("\"-5\"", 1),
            ("\"100%\"", 3),
            ("\"1<2\"", 2),
            ("\"2<-25% 9<-3\"", 3),
            ("\"3<1\"", 3),
            ("\"33%\"", 1),
            ("\"-100%\"", 1),
        ];
        for (wanted, min) in table {
            check(wanted, &of(min));
        }
        check("\"200%\"", "none");
        check("150", "none");
        check_query(r#"{"bool":{"minimum_should_match":1,"must":[{"match_all":{}}]}}"#, "none");
        check_query(r#"{"bool":{"should":[{"match_all":{}}],"filter":[{"match_none":{}}]}}"#, "(+none all)");
    }

    #[test]
    fn errors_use_elasticsearchs_words() {
        let parsing = |body: &str, reason: &str| check_refused(body, "parsing_exception", reason);
        let argument = |body: &str, reason: &str| check_refused(body, "illegal_argument_exception", reason);
        parsing("[]", "Expected [START_OBJECT] but found [START_ARRAY]");
        parsing(r#"{"foo":1}"#, "Unknown key for a VALUE_NUMBER in [foo].");
        parsing(r#"{"min_score":1}"#, "Unknown key for a VALUE_NUMBER in [min_score].");
        parsing(r#"{"explain":true}"#, "Unknown key for a VALUE_BOOLEAN in [explain].");
        parsing(r#"{"query":{"fuzz":{}}}"#, "unknown query [fuzz]");
        argument(r#"{"query":{"nested":{}}}"#, "the query [nested] is not supported");
        argument(r#"{"query":{}}"#, "query malformed, empty clause found");
        parsing(
            r#"{"query":{"match_all":{},"match_none":{}}}"#,
            "[match_all] malformed query, expected [END_OBJECT] but found [FIELD_NAME]",
        );
        parsing(
            r#"{"query":{"match":{"t":"a","k":"b"}}}"#,
            "[match] query doesn't support multiple fields, found [t] and [k]",
        );
        parsing(r#"{"query":{"match":{"t":{"foo":1}}}}"#, "[match] query does not support [foo]");
        parsing(r#"{"query":{"term":{"k":["a"]}}}"#, "[term] query does not support array of values");
        argument(r#"{"query":{"term":{"k":{}}}}"#, "value cannot be null");
        parsing(r#"{"query":{"range":{"n":{"foo":1}}}}"#, "[range] query does not support [foo]");
        argument(
            r#"{"query":{"range":{"d":{"time_zone":"Europe/Foo"}}}}"#,
            "Unknown time-zone ID: Europe/Foo (use an offset such as +01:00, or a name such as Europe/Berlin)",
        );
        check_refused(
            r#"{"query":{"bool":{"foo":[]}}}"#,
            "x_content_parse_exception",
            "[bool] unknown field [foo]",
        );
        parsing(r#"{"query":{"bool":{"must":[1]}}}"#, "[_na] query malformed, must start with start_object");
        parsing(r#"{"query":{"query_string":{}}}"#, "[query_string] must be provided with a [query]");
        check_refused(
            r#"{"query":{"query_string":{"query":"(a"}}}"#,
            "query_shard_exception",
            "Failed to parse query [(a]",
        );
        argument(r#"{"search_after":[1]}"#, "Sort must contain at least one field.");
        argument(r#"{"search_after":[1,2],"sort":"n"}"#, "search_after has 2 value(s) but sort has 1.");
        parsing(r#"{"aggs":{"x":{"foo":{"field":"n"}}}}"#, "Unknown aggregation type [foo]");
        argument(
            r#"{"aggs":{"x":{"significant_terms":{"field":"n"}}}}"#,
            "the aggregation type [significant_terms] is not supported",
        );
        parsing(r#"{"aggs":{"x":{}}}"#, "Missing definition for aggregation [x]");
        assert_eq!(parse_search([], b"{").unwrap_err().kind, "json_parse_exception");
        assert_eq!(parse_count([], br#"{"size":1}"#).unwrap_err().reason, "request does not support [size]");
    }

    #[test]
    fn limits_hold_on_both_sides() {
        let window = |from, size| parse_search([], format!("{{\"from\":{from},\"size\":{size}}}").as_bytes());
        assert!(window(9_990, 10).is_ok() && window(9_990, 11).is_err());
        let nested = |depth: usize| {
            let body = r#"{"bool":{"must":["#.repeat(depth) + r#"{"match_all":{}}"# + &"]}}".repeat(depth);
            parse_search([], format!("{{\"query\":{body}}}").as_bytes())
        };
        assert!(nested(20).is_ok() && nested(21).is_err() && nested(100_000 / 18).is_err());
        let terms = |count: usize| {
            let values = vec!["1"; count].join(",");
            parse_search([], format!(r#"{{"query":{{"terms":{{"k":[{values}]}}}}}}"#).as_bytes())
        };
        assert!(terms(1024).is_ok() && terms(1025).is_err());
        let aggregations = |count: usize| {
            let each: Vec<_> =
                (0..count).map(|at| format!(r#""a{at}":{{"terms":{{"field":"k"}}}}"#)).collect();
            parse_search([], format!(r#"{{"aggs":{{{}}}}}"#, each.join(",")).as_bytes())
        };
        assert!(aggregations(AGGREGATIONS_MAX).is_ok() && aggregations(AGGREGATIONS_MAX + 1).is_err());
        let sorts = |count: usize| parse_search([("sort", vec!["a"; count].join(",").as_str())], b"");
        assert!(sorts(SORTS_MAX).is_ok() && sorts(SORTS_MAX + 1).is_err());
        let padded = |bytes: usize| parse_search([], " ".repeat(bytes).as_bytes());
        assert!(padded(BODY_BYTES_MAX).is_ok() && padded(BODY_BYTES_MAX + 1).is_err());
    }

    #[test]
    fn search_keys_are_parsed() {
        let body = r#"{"from":5,"size":"7","sort":["n",{"d":"desc"},{"k":{"order":"asc","missing":"_first"}},"_doc"],
            "_source":{"includes":["a*"],"excludes":"b"},"track_total_hits":true,"timeout":"5s","version":false,
            "aggs":{"top":{"terms":{"field":"k","size":3,"order":{"_key":"asc"}},"aggs":{"days":{"date_histogram":
            {"field":"d","calendar_interval":"day","time_zone":"+01:00","min_doc_count":1}}}}}}"#;
        let found = parse_search([], body.as_bytes()).unwrap();
        assert_eq!((found.from, found.size), (5, 7));
        let keys: Vec<_> = found.sort.iter().map(|s| (&s.key, s.descending, s.missing_first)).collect();
        let field = |name: &str| SortKey::Field(name.to_owned());
        let (n, d, k) = (field("n"), field("d"), field("k"));
        assert_eq!(
            keys,
            [(&n, false, false), (&d, true, false), (&k, false, true), (&SortKey::SeqNo, false, false)]
        );
        let source =
            SourceFilter { excludes_all: false, includes: vec!["a*".into()], excludes: vec!["b".into()] };
        assert_eq!(found.source, source);
        let (name, top) = &found.aggregations[0];
        assert_eq!((name.as_str(), top.type_name, found.aggregations.len()), ("top", "terms", 1));
        let AggregationKind::Terms(terms) = &top.kind else { panic!("{top:?}") };
        let by_key = BucketOrder { key: BucketOrderKey::Key, ascending: true };
        assert_eq!((terms.size, &terms.order[..]), (3, &[by_key][..]));
        let AggregationKind::DateHistogram(days) = &top.inner[0].1.kind else { panic!("{top:?}") };
        assert_eq!((days.source.field.as_str(), days.interval, days.count_min), ("d", Interval::Day, 1));
        assert_eq!(days.source.zone, TimeZone::Offset(60));
    }

    #[test]
    fn fields_of_hits_are_parsed() {
        let parse = |body: &str| parse_search([], body.as_bytes());
        let found = parse(
            r#"{"fields":["a*",{"field":"d","format":"epoch_millis"},{"field":"*","include_unmapped":"true"}],
            "docvalue_fields":[{"field":"d","format":"date_time"}],"script_fields":{},"runtime_mappings":{}}"#,
        );
        let options = found.unwrap().options;
        let fields: Vec<_> =
            options.fields.iter().map(|one| (one.pattern.as_str(), one.includes_unmapped)).collect();
        assert_eq!(fields, [("a*", false), ("d", false), ("*", true)]);
        assert_eq!(options.fields[1].format.as_deref(), Some("epoch_millis"));
        assert_eq!(options.docvalue_fields[0].format.as_deref(), Some("date_time"));
        let hides = |body: &str| parse(body).unwrap().source.excludes_all;
        assert!(hides(r#"{"stored_fields":["*"]}"#) && hides(r#"{"stored_fields":[]}"#));
        assert!(!hides(r#"{"stored_fields":["_source"]}"#) && !hides("{}"));
        assert!(!hides(r#"{"stored_fields":["*"],"_source":{"excludes":[]}}"#));
        let with_parameter = parse_search([("_source", "true")], br#"{"stored_fields":["*"]}"#).unwrap();
        assert!(!with_parameter.source.excludes_all);
        check_refused(
            r#"{"fields":[{"field":"a","foo":1}]}"#,
            "x_content_parse_exception",
            "[fetch_field_and_format] unknown field [foo]",
        );
        check_refused(
            r#"{"docvalue_fields":"a"}"#,
            "parsing_exception",
            "Unknown key for a VALUE_STRING in [docvalue_fields].",
        );
        let many = |count: usize| parse(&format!(r#"{{"fields":[{}]}}"#, vec![r#""a""#; count].join(",")));
        assert!(many(100).is_ok() && many(101).is_err());
    }

    #[test]
    fn url_parameters_override_the_body() {
        let body = br#"{"query":{"match_none":{}},"size":5}"#;
        let pairs =
            [("q", "a b"), ("df", "t"), ("default_operator", "AND"), ("sort", "n:desc,k"), ("size", "0")];
        let found =
            parse_search(pairs.into_iter().chain([("_source", "a,b"), ("pretty", "")]), body).unwrap();
        assert_eq!(
            (found.query.to_string(), found.size, found.sort.len()),
            (r#"every(t "a b")"#.into(), 0, 2)
        );
        assert_eq!((found.sort[0].descending, found.source.includes.join(" ")), (true, "a b".into()));
        assert_eq!(parse_search([], body).unwrap().size, 5);
        let refused = |key, value| parse_search([(key, value)], b"").unwrap_err().reason;
        assert_eq!(refused("foo", "1"), "request contains unrecognized parameter: [foo]");
        assert_eq!(refused("scroll", "1m"), "request contains unrecognized parameter: [scroll]");
        assert_eq!(refused("from", "x"), "Failed to parse int parameter [from] with value [x]");
        assert_eq!(
            refused("lenient", "x"),
            "Failed to parse value [x] as only [true] or [false] are allowed."
        );
        assert_eq!(refused("size", "10001").split(',').next(), Some("Result window is too large"));
        assert_eq!(
            parse_count([("q", "destNum:1"), ("pretty", "")], b"").unwrap().to_string(),
            r#"lenient any(destNum "1")"#
        );
        assert!(parse_count([("q", "a"), ("size", "1")], b"").is_err());
    }
}
