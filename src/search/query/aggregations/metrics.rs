//! Parsers of metric aggregations. Pure code.

use super::super::QueryError;
use super::super::json::OrderedJson;
use super::members::{Members, Place, SourceReader};
use super::{AggregationKind, Metric};

/// Percentiles that are returned if the request names none.
const PERCENTS: [f64; 7] = [1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0];

/// Maximum number of percentiles of an aggregation.
const PERCENTS_MAX: usize = 1_000;

/// Parses an aggregation that returns numbers about the values of a field.
pub(super) fn parse_metric(place: Place<'_>, members: Members<'_>) -> Result<AggregationKind, QueryError> {
    let (mut source, mut keyed, mut sigma, mut list) = (SourceReader::default(), true, 2.0, None);
    for (key, json) in members {
        if source.read(place, key, json)? {
            continue;
        }
        match (place.type_name, key.as_str()) {
            ("extended_stats", "sigma") => sigma = parse_sigma(place, json)?,
            ("percentiles", "percents") | ("percentile_ranks", "values") => {
                list = Some(parse_numbers(place, key, json)?);
            }
            ("percentiles" | "percentile_ranks", "keyed") => keyed = place.boolean(key, json)?,
            // These trade precision for memory; the values here are exact.
            ("percentiles" | "percentile_ranks", "tdigest" | "hdr" | "compression")
            | ("cardinality", "precision_threshold" | "rehash" | "execution_hint") => {}
            _ => return Err(place.unknown(key)),
        }
    }
    let metric = match place.type_name {
        "avg" => Metric::Avg,
        "sum" => Metric::Sum,
        "min" => Metric::Min,
        "max" => Metric::Max,
        "stats" => Metric::Stats,
        "extended_stats" => Metric::ExtendedStats { sigma },
        "value_count" => Metric::ValueCount,
        "cardinality" => Metric::Cardinality,
        "percentiles" => Metric::Percentiles { percents: percents(list)?, keyed },
        _ => {
            let missing = || QueryError::argument("Required [values] in [percentile_ranks]");
            Metric::PercentileRanks { values: list.ok_or_else(missing)?, keyed }
        }
    };
    Ok(AggregationKind::Metric { source: source.finish()?, metric })
}

fn parse_sigma(place: Place<'_>, json: &OrderedJson) -> Result<f64, QueryError> {
    let sigma = place.number("sigma", json)?;
    if sigma < 0.0 {
        let cause =
            format!("[sigma] must be greater than or equal to 0. Found [{sigma:?}] in [{}]", place.name);
        return Err(place.failed("sigma", cause));
    }
    Ok(sigma)
}

fn parse_numbers(place: Place<'_>, key: &str, json: &OrderedJson) -> Result<Vec<f64>, QueryError> {
    let list = match json {
        OrderedJson::List(list) => list.as_slice(),
        one => std::slice::from_ref(one),
    };
    if list.len() > PERCENTS_MAX {
        return Err(QueryError::argument(format!("[{key}] has more than {PERCENTS_MAX} numbers")));
    }
    let mut numbers = list.iter().map(|json| place.number(key, json)).collect::<Result<Vec<_>, _>>()?;
    numbers.sort_by(f64::total_cmp);
    Ok(numbers)
}

fn not_built(cause: impl Into<String>) -> QueryError {
    let error = QueryError::content("Failed to build [percentiles] after last required field arrived");
    QueryError { cause: Some(cause.into()), ..error }
}

fn percents(list: Option<Vec<f64>>) -> Result<Vec<f64>, QueryError> {
    let Some(list) = list else { return Ok(PERCENTS.to_vec()) };
    if list.is_empty() {
        return Err(not_built("[percents] must not be an empty array"));
    }
    match list.iter().find(|percent| !(0.0..=100.0).contains(*percent)) {
        Some(percent) => Err(not_built(format!("percent must be in [0,100], got [{percent:?}]: [percents]"))),
        None => Ok(list),
    }
}
