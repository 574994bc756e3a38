//! Parser of the `aggs` object of a search request, `{"name": {"terms": {...}}}`. Pure code.

use super::super::QueryError;
use super::super::json::OrderedJson;
use super::members::Place;
use super::{Aggregation, AggregationKind, BucketOrderKey, Metric, NamedAggregations, buckets, metrics};

/// Maximum number of aggregations in one request, nested ones included.
pub(crate) const AGGREGATIONS_MAX: usize = 256;

/// Maximum nesting depth of aggregations.
const DEPTH_MAX: usize = 16;

/// The types that are supported.
const TYPES: [&str; 22] = [
    "avg",
    "sum",
    "min",
    "max",
    "stats",
    "extended_stats",
    "value_count",
    "cardinality",
    "percentiles",
    "percentile_ranks",
    "terms",
    "date_histogram",
    "histogram",
    "range",
    "date_range",
    "ip_range",
    "filter",
    "filters",
    "missing",
    "global",
    "top_hits",
    "composite",
];

/// Types of Elasticsearch that are refused by name.
const UNSUPPORTED_TYPES: [&str; 47] = [
    "adjacency_matrix",
    "auto_date_histogram",
    "avg_bucket",
    "boxplot",
    "bucket_correlation",
    "bucket_count_ks_test",
    "bucket_script",
    "bucket_selector",
    "bucket_sort",
    "categorize_text",
    "children",
    "cumulative_cardinality",
    "cumulative_sum",
    "derivative",
    "diversified_sampler",
    "extended_stats_bucket",
    "geo_bounds",
    "geo_centroid",
    "geo_line",
    "geohash_grid",
    "geotile_grid",
    "inference",
    "matrix_stats",
    "max_bucket",
    "median_absolute_deviation",
    "min_bucket",
    "moving_avg",
    "moving_fn",
    "moving_percentiles",
    "multi_terms",
    "nested",
    "normalize",
    "parent",
    "percentiles_bucket",
    "random_sampler",
    "rare_terms",
    "rate",
    "reverse_nested",
    "sampler",
    "scripted_metric",
    "serial_diff",
    "significant_terms",
    "significant_text",
    "stats_bucket",
    "string_stats",
    "sum_bucket",
    "variable_width_histogram",
];

/// Parses an `aggs` object. `room` is the number of aggregations that the request may still have.
pub(in crate::search::query) fn parse_aggregations(
    json: &OrderedJson,
    room: &mut usize,
) -> Result<NamedAggregations, QueryError> {
    parse_level(json, room, 0)
}

fn parse_level(json: &OrderedJson, room: &mut usize, depth: usize) -> Result<NamedAggregations, QueryError> {
    if depth == DEPTH_MAX {
        return Err(QueryError::argument(format!("aggregations are nested more than {DEPTH_MAX} deep")));
    }
    let OrderedJson::Object(members) = json else {
        return Err(QueryError::parsing(format!("Unknown key for a {} in [aggs].", json.token_name())));
    };
    let mut found = Vec::new();
    for (name, json) in members {
        if name.is_empty() || name.contains(['[', ']', '>']) {
            let reason = format!(
                "Invalid aggregation name [{name}]. Aggregation names can contain any character except '[', ']', and '>'"
            );
            return Err(QueryError::parsing(reason));
        }
        *room = room.checked_sub(1).ok_or_else(|| {
            QueryError::argument(format!("a request can have at most {AGGREGATIONS_MAX} aggregations"))
        })?;
        found.push((name.clone(), parse_aggregation(name, json, room, depth)?));
    }
    Ok(found)
}

fn parse_aggregation(
    name: &str,
    json: &OrderedJson,
    room: &mut usize,
    depth: usize,
) -> Result<Aggregation, QueryError> {
    let OrderedJson::Object(members) = json else {
        let token = json.token_name();
        let reason =
            format!("Aggregation definition for [{name} starts with a [{token}], expected a [START_OBJECT].");
        return Err(QueryError::parsing(reason));
    };
    let (mut definition, mut nested, mut meta): (Option<(&str, &OrderedJson)>, Option<&OrderedJson>, _) =
        (None, None, None);
    for (key, json) in members {
        match (key.as_str(), definition) {
            ("aggs" | "aggregations", _) if nested.replace(json).is_some() => {
                let reason = format!("Found two sub aggregation definitions under [{name}]");
                return Err(QueryError::parsing(reason));
            }
            ("aggs" | "aggregations", _) => {}
            ("meta", _) => meta = Some(json.clone()),
            (kind, Some((one, _))) => {
                let reason =
                    format!("Found two aggregation type definitions in [{name}]: [{one}] and [{kind}]");
                return Err(QueryError::parsing(reason));
            }
            (kind, None) => definition = Some((kind, json)),
        }
    }
    let missing = || QueryError::parsing(format!("Missing definition for aggregation [{name}]"));
    let (type_name, body) = definition.ok_or_else(missing)?;
    let Some(type_name) = TYPES.iter().copied().find(|known| *known == type_name) else {
        return Err(unknown_type(type_name));
    };
    let place = Place { name, type_name };
    let kind = parse_kind(place, body)?;
    let inner = nested.map_or(Ok(Vec::new()), |json| parse_level(json, room, depth + 1))?;
    check_inner(place, &kind, &inner, depth)?;
    Ok(Aggregation { type_name: place.type_name, kind, inner, meta, body: body.clone() })
}

fn unknown_type(type_name: &str) -> QueryError {
    match UNSUPPORTED_TYPES.contains(&type_name) {
        true => QueryError::argument(format!("the aggregation type [{type_name}] is not supported")),
        false => QueryError::parsing(format!("Unknown aggregation type [{type_name}]")),
    }
}

fn parse_kind(place: Place<'_>, body: &OrderedJson) -> Result<AggregationKind, QueryError> {
    let members = match (place.type_name, body) {
        (_, OrderedJson::Object(members)) => members.as_slice(),
        (type_name, json) => {
            let reason = format!(
                "Expected [START_OBJECT] under [{type_name}], but got a [{}] in [{}]",
                json.token_name(),
                place.name
            );
            return Err(QueryError::parsing(reason));
        }
    };
    match place.type_name {
        "terms" => buckets::parse_terms(place, members),
        "date_histogram" => buckets::parse_date_histogram(place, members),
        "histogram" => buckets::parse_histogram(place, members),
        "range" | "date_range" | "ip_range" => buckets::parse_range(place, members),
        "filter" => buckets::parse_filter(body),
        "filters" => buckets::parse_filters(place, members),
        "missing" => buckets::parse_missing(place, members),
        "global" => Ok(AggregationKind::Global),
        "top_hits" => buckets::parse_top_hits(place, members),
        "composite" => buckets::parse_composite(place, members),
        _ => metrics::parse_metric(place, members),
    }
}

/// Rejects aggregations in places where they make no sense.
fn check_inner(
    place: Place<'_>,
    kind: &AggregationKind,
    inner: &NamedAggregations,
    depth: usize,
) -> Result<(), QueryError> {
    let Place { name, type_name } = place;
    check_order(kind, inner)?;
    let has_buckets = !matches!(kind, AggregationKind::Metric { .. } | AggregationKind::TopHits(_));
    if !has_buckets && !inner.is_empty() {
        return Err(QueryError::aggregation(format!(
            "Aggregator [{name}] of type [{type_name}] cannot accept sub-aggregations"
        )));
    }
    if depth > 0 && *kind == AggregationKind::Global {
        return Err(QueryError::aggregation(format!(
            "Aggregation [{name}] cannot have a global sub-aggregation: a [global] aggregation is only allowed at the \
             top level"
        )));
    }
    let composite = inner.iter().find(|(_, inner)| matches!(inner.kind, AggregationKind::Composite(_)));
    if composite.is_some() && !matches!(kind, AggregationKind::Filter(_)) {
        return Err(QueryError::argument(format!(
            "[composite] aggregation cannot be used with a parent aggregation of type: [{}]",
            factory_name(type_name)
        )));
    }
    Ok(())
}

/// Rejects an order by a metric that does not exist.
fn check_order(kind: &AggregationKind, inner: &NamedAggregations) -> Result<(), QueryError> {
    let order = match kind {
        AggregationKind::Terms(terms) => &terms.order,
        AggregationKind::DateHistogram(histogram) => &histogram.order,
        AggregationKind::Histogram(histogram) => &histogram.order,
        _ => return Ok(()),
    };
    for one in order {
        if let BucketOrderKey::Metric { path, value } = &one.key {
            check_path(path, value.as_deref(), inner).map_err(|why| {
                QueryError::reduce(format!("Invalid aggregation order path [{}]. {why}", path.join(">")))
            })?;
        }
    }
    Ok(())
}

fn check_path(path: &[String], value: Option<&str>, inner: &NamedAggregations) -> Result<(), String> {
    let Some((name, rest)) = path.split_first() else { return Err("It is empty".to_owned()) };
    let found = inner.iter().find(|(found, _)| found == name);
    let Some((_, aggregation)) = found else { return Err(format!("Cannot find aggregation named [{name}]")) };
    match (&aggregation.kind, rest) {
        (AggregationKind::Filter(_) | AggregationKind::Missing(_), []) => match value {
            None | Some("doc_count") => Ok(()),
            Some(value) => Err(format!(
                "Ordering on a single-bucket aggregation can only be done on its doc_count, not on [{value}]"
            )),
        },
        (AggregationKind::Filter(_) | AggregationKind::Missing(_), rest) => {
            check_path(rest, value, &aggregation.inner)
        }
        (AggregationKind::Metric { metric, .. }, []) => check_metric_value(metric, value),
        _ => Err(format!("[{name}] is neither a metric nor has one bucket")),
    }
}

fn check_metric_value(metric: &Metric, value: Option<&str>) -> Result<(), String> {
    let known: &[&str] = match metric {
        Metric::Stats => &["count", "min", "max", "avg", "sum"],
        Metric::ExtendedStats { .. } => &[
            "count",
            "min",
            "max",
            "avg",
            "sum",
            "sum_of_squares",
            "variance",
            "variance_population",
            "variance_sampling",
            "std_deviation",
            "std_deviation_population",
            "std_deviation_sampling",
            "std_upper",
            "std_lower",
        ],
        Metric::Percentiles { percents: numbers, .. } | Metric::PercentileRanks { values: numbers, .. } => {
            let is_known =
                value.and_then(|value| value.parse().ok()).is_some_and(|value| numbers.contains(&value));
            return if is_known { Ok(()) } else { Err("Unknown percentile".to_owned()) };
        }
        _ => {
            return if matches!(value, None | Some("value")) {
                Ok(())
            } else {
                Err("Unknown value".to_owned())
            };
        }
    };
    match value {
        Some(value) if known.contains(&value) => Ok(()),
        Some(value) => Err(format!("Unknown value key [{value}]")),
        None => Err("Missing value key in a multi-value metric aggregation".to_owned()),
    }
}

/// Elasticsearch's name of the class that makes the aggregation, which the message contains.
fn factory_name(type_name: &str) -> &'static str {
    match type_name {
        "terms" => "TermsAggregatorFactory",
        "date_histogram" => "DateHistogramAggregatorFactory",
        "histogram" => "HistogramAggregatorFactory",
        "range" => "RangeAggregatorFactory",
        "date_range" => "DateRangeAggregatorFactory",
        "filters" => "FiltersAggregatorFactory",
        "missing" => "MissingAggregatorFactory",
        "global" => "GlobalAggregatorFactory",
        _ => "AggregatorFactory",
    }
}
