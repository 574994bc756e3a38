//! Parsers of aggregations that put documents into buckets. Pure code.

use super::super::hits::{HitOptions, parse_source_filter};
use super::super::json::OrderedJson;
use super::super::query_dsl::parse_query;
use super::super::sort::parse_sorts;
use super::super::{QueryError, QueryValue, SourceFilter};
use super::members::{Members, Place, SourceReader};
use super::{
    AggregationKind, BUCKETS_MAX, BucketOrder, BucketOrderKey, BucketRange, Composite, CompositeGrid,
    CompositeSource, DateBounds, DateHistogram, FiltersAggregation, Histogram, Interval, RangeAggregation,
    RangeType, TermsAggregation, TopHits, ValueFilter, ValueSource,
};

/// Maximum number of ranges, filters, sources or values in one aggregation.
const ITEMS_MAX: usize = 1_024;

/// Maximum length of a regular expression, as in Elasticsearch.
const PATTERN_CHARS_MAX: usize = 1_000;

/// Adds the key as the last criterion, so that the order of buckets is defined.
fn with_key(mut order: Vec<BucketOrder>) -> Vec<BucketOrder> {
    if order.iter().all(|one| one.key != BucketOrderKey::Key) {
        order.push(BucketOrder { key: BucketOrderKey::Key, ascending: true });
    }
    order
}

fn by_key() -> Vec<BucketOrder> {
    with_key(Vec::new())
}

pub(super) fn parse_terms(place: Place<'_>, members: Members<'_>) -> Result<AggregationKind, QueryError> {
    let mut source = SourceReader::default();
    let mut terms = TermsAggregation::new(ValueSource::of_field(""), 10);
    for (key, json) in members {
        if source.read(place, key, json)? {
            continue;
        }
        match key.as_str() {
            "size" => terms.size = parse_size(place, json)?,
            "min_doc_count" => terms.count_min = place.min_doc_count(json)?,
            "order" => terms.order = with_key(place.order(json)?),
            "include" => terms.include = Some(parse_value_filter(place, key, json)?),
            "exclude" => terms.exclude = Some(parse_value_filter(place, key, json)?),
            "show_term_doc_count_error" => terms.shows_error = place.boolean(key, json)?,
            // These only tune how a cluster executes the aggregation.
            "shard_size" | "shard_min_doc_count" | "execution_hint" | "collect_mode" => {}
            key => return Err(place.unknown(key)),
        }
    }
    terms.source = source.finish()?;
    Ok(AggregationKind::Terms(terms))
}

fn parse_size(place: Place<'_>, json: &OrderedJson) -> Result<usize, QueryError> {
    let size = place.long("size", json)?;
    match usize::try_from(size).ok().filter(|size| (1..=i32::MAX as usize).contains(size)) {
        Some(size) => Ok(size),
        None => {
            let cause = format!("[size] must be greater than 0. Found [{size}] in [{}]", place.name);
            Err(place.failed("size", cause))
        }
    }
}

fn parse_value_filter(place: Place<'_>, key: &str, json: &OrderedJson) -> Result<ValueFilter, QueryError> {
    match json {
        OrderedJson::Text(pattern) if pattern.chars().count() > PATTERN_CHARS_MAX => {
            Err(QueryError::argument(format!(
                "the pattern of [{key}] has more than {PATTERN_CHARS_MAX} characters"
            )))
        }
        OrderedJson::Text(pattern) => Ok(ValueFilter::Pattern(pattern.clone())),
        OrderedJson::List(list) if list.len() > ITEMS_MAX => {
            Err(QueryError::argument(format!("[{key}] has more than {ITEMS_MAX} values")))
        }
        OrderedJson::List(list) => {
            let value = |json: &OrderedJson| json.to_value().ok_or_else(|| place.wrong_type(key, json));
            Ok(ValueFilter::Values(list.iter().map(value).collect::<Result<_, _>>()?))
        }
        OrderedJson::Object(_) => Err(QueryError::argument("partitions of [terms] are not supported")),
        json => Err(place.wrong_type(key, json)),
    }
}

pub(super) fn parse_date_histogram(
    place: Place<'_>,
    members: Members<'_>,
) -> Result<AggregationKind, QueryError> {
    let mut source = SourceReader::default();
    let mut interval = None;
    let mut found = DateHistogram {
        source: ValueSource::of_field(""),
        interval: Interval::Day,
        offset_ms: 0,
        count_min: 0,
        order: by_key(),
        keyed: false,
        extended_bounds: None,
        hard_bounds: None,
    };
    for (key, json) in members {
        if source.read(place, key, json)? {
            continue;
        }
        match key.as_str() {
            "min_doc_count" => found.count_min = place.min_doc_count(json)?,
            "order" => found.order = with_key(place.order(json)?),
            "keyed" => found.keyed = place.boolean(key, json)?,
            "offset" => found.offset_ms = parse_offset(place, json)?,
            "extended_bounds" => found.extended_bounds = Some(parse_date_bounds(place, key, json)?),
            "hard_bounds" => found.hard_bounds = Some(parse_date_bounds(place, key, json)?),
            "calendar_interval" | "fixed_interval" | "interval" => {
                if interval.replace(parse_interval(place, key, json)?).is_some() {
                    return Err(QueryError::argument("Cannot use two intervals in one [date_histogram]"));
                }
            }
            key => return Err(place.unknown(key)),
        }
    }
    found.interval = interval
        .ok_or_else(|| QueryError::shard("Invalid interval specified, must be non-null and non-empty"))?;
    found.source = source.finish()?;
    Ok(AggregationKind::DateHistogram(found))
}

fn parse_interval(place: Place<'_>, key: &str, json: &OrderedJson) -> Result<Interval, QueryError> {
    let text = place.text(key, json)?;
    let milliseconds = || match json {
        OrderedJson::Long(ms) if *ms > 0 => Some(Interval::Fixed(*ms)),
        _ => None,
    };
    match key {
        "calendar_interval" => calendar_interval(&text).ok_or_else(|| {
            place.failed(key, format!("The supplied interval [{text}] could not be parsed as a calendar interval."))
        }),
        "fixed_interval" => fixed_interval(&text).ok_or_else(|| {
            place.failed(
                key,
                format!(
                    "failed to parse setting [date_histogram.fixedInterval] with value [{text}] as a time value: unit \
                     is missing or unrecognized"
                ),
            )
        }),
        _ => calendar_interval(&text).or_else(|| fixed_interval(&text)).or_else(milliseconds).ok_or_else(|| {
            let cause = format!(
                "failed to parse setting [date_histogram.interval] with value [{text}] as a time value: unit is \
                 missing or unrecognized"
            );
            place.failed(key, cause)
        }),
    }
}

fn calendar_interval(text: &str) -> Option<Interval> {
    Some(match text {
        "second" | "1s" => Interval::Second,
        "minute" | "1m" => Interval::Minute,
        "hour" | "1h" => Interval::Hour,
        "day" | "1d" => Interval::Day,
        "week" | "1w" => Interval::Week,
        "month" | "1M" => Interval::Month,
        "quarter" | "1q" => Interval::Quarter,
        "year" | "1y" => Interval::Year,
        _ => return None,
    })
}

/// A number of milliseconds, seconds, minutes, hours or days.
fn fixed_interval(text: &str) -> Option<Interval> {
    parse_duration_ms(text).filter(|ms| *ms > 0).map(Interval::Fixed)
}

fn parse_duration_ms(text: &str) -> Option<i64> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let unit_ms = match text[digits..].trim() {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" | "H" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    text[..digits].parse::<i64>().ok()?.checked_mul(unit_ms)
}

/// Parses `+6h`, `-1d` or a number of milliseconds.
fn parse_offset(place: Place<'_>, json: &OrderedJson) -> Result<i64, QueryError> {
    let OrderedJson::Text(text) = json else { return place.long("offset", json) };
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let cause = || {
        format!(
            "failed to parse setting [DateHistogramAggregationBuilder.parseOffset] with value [{rest}] as a time value: \
             unit is missing or unrecognized"
        )
    };
    let ms = if rest == "0" { Some(0) } else { parse_duration_ms(rest) };
    ms.map(|ms| sign * ms).ok_or_else(|| place.failed("offset", cause()))
}

fn parse_date_bounds(place: Place<'_>, key: &str, json: &OrderedJson) -> Result<DateBounds, QueryError> {
    let OrderedJson::Object(members) = json else { return Err(place.wrong_type(key, json)) };
    let mut bounds = DateBounds::default();
    for (name, json) in members {
        let value = match json {
            OrderedJson::Null => None,
            json => Some(json.to_value().ok_or_else(|| place.wrong_type(name, json))?),
        };
        match name.as_str() {
            "min" => bounds.min = value,
            "max" => bounds.max = value,
            name => return Err(QueryError::content(format!("[bounds] unknown field [{name}]"))),
        }
    }
    Ok(bounds)
}

pub(super) fn parse_histogram(place: Place<'_>, members: Members<'_>) -> Result<AggregationKind, QueryError> {
    let mut source = SourceReader::default();
    let mut found = Histogram {
        source: ValueSource::of_field(""),
        interval: 0.0,
        offset: 0.0,
        count_min: 0,
        order: by_key(),
        keyed: false,
        extended_bounds: None,
        hard_bounds: None,
    };
    for (key, json) in members {
        if source.read(place, key, json)? {
            continue;
        }
        match key.as_str() {
            "interval" => {
                found.interval = place.number(key, json)?;
                if found.interval <= 0.0 || !found.interval.is_finite() {
                    let cause = format!("[interval] must be >0 for histogram aggregation [{}]", place.name);
                    return Err(place.failed(key, cause));
                }
            }
            "offset" => found.offset = place.number(key, json)?,
            "min_doc_count" => found.count_min = place.min_doc_count(json)?,
            "order" => found.order = with_key(place.order(json)?),
            "keyed" => found.keyed = place.boolean(key, json)?,
            "extended_bounds" => found.extended_bounds = Some(parse_number_bounds(place, key, json)?),
            "hard_bounds" => found.hard_bounds = Some(parse_number_bounds(place, key, json)?),
            key => return Err(place.unknown(key)),
        }
    }
    found.source = source.finish()?;
    if found.interval == 0.0 {
        return Err(QueryError::shard("interval must be positive, got: 0.0"));
    }
    Ok(AggregationKind::Histogram(found))
}

type NumberBounds = (Option<f64>, Option<f64>);

fn parse_number_bounds(place: Place<'_>, key: &str, json: &OrderedJson) -> Result<NumberBounds, QueryError> {
    let OrderedJson::Object(members) = json else { return Err(place.wrong_type(key, json)) };
    let mut bounds = (None, None);
    for (name, json) in members {
        let value = if *json == OrderedJson::Null { None } else { Some(place.number(name, json)?) };
        match name.as_str() {
            "min" => bounds.0 = value,
            "max" => bounds.1 = value,
            name => return Err(QueryError::content(format!("[{key}] unknown field [{name}]"))),
        }
    }
    Ok(bounds)
}

pub(super) fn parse_range(place: Place<'_>, members: Members<'_>) -> Result<AggregationKind, QueryError> {
    let range_type = match place.type_name {
        "range" => RangeType::Number,
        "date_range" => RangeType::Date,
        _ => RangeType::Ip,
    };
    let (mut source, mut ranges, mut keyed) = (SourceReader::default(), Vec::new(), false);
    for (key, json) in members {
        if source.read(place, key, json)? {
            continue;
        }
        match (key.as_str(), json) {
            ("keyed", json) => keyed = place.boolean(key, json)?,
            ("ranges", OrderedJson::List(list)) if list.len() <= ITEMS_MAX => {
                ranges = list
                    .iter()
                    .map(|json| parse_bucket_range(place, range_type, json))
                    .collect::<Result<_, _>>()?;
            }
            ("ranges", OrderedJson::List(_)) => {
                return Err(QueryError::argument(format!("[ranges] has more than {ITEMS_MAX} ranges")));
            }
            ("ranges", json) => return Err(place.wrong_type(key, json)),
            (key, _) => return Err(place.unknown(key)),
        }
    }
    let source = source.finish()?;
    if ranges.is_empty() {
        return Err(QueryError::shard(format!("No [ranges] specified for the [{}] aggregation", place.name)));
    }
    Ok(AggregationKind::Range(RangeAggregation { source, range_type, ranges, keyed }))
}

fn parse_bucket_range(
    place: Place<'_>,
    range_type: RangeType,
    json: &OrderedJson,
) -> Result<BucketRange, QueryError> {
    let OrderedJson::Object(members) = json else { return Err(place.wrong_type("ranges", json)) };
    let mut range = BucketRange { key: None, from: None, to: None, mask: None };
    for (key, json) in members {
        let value = || match (range_type, json) {
            (_, OrderedJson::Null) => Ok(None),
            (RangeType::Number, json) => {
                place.number(key, json).map(|number| Some(QueryValue::Double(number)))
            }
            (_, json) => json.to_value().map(Some).ok_or_else(|| place.wrong_type(key, json)),
        };
        match (key.as_str(), range_type) {
            ("key", _) => range.key = json.to_text(),
            ("from", _) => range.from = value()?,
            ("to", _) => range.to = value()?,
            ("mask", RangeType::Ip) => range.mask = Some(place.text(key, json)?),
            (key, _) => return Err(QueryError::content(format!("[range] unknown field [{key}]"))),
        }
    }
    if range_type == RangeType::Ip && range.mask.is_none() && range.from.is_none() && range.to.is_none() {
        return Err(QueryError::argument(
            "Invalid [ip_range]: a range needs one of [mask], [from] or [to]".to_owned(),
        ));
    }
    Ok(range)
}

pub(super) fn parse_filter(body: &OrderedJson) -> Result<AggregationKind, QueryError> {
    parse_query(body, 0).map(AggregationKind::Filter)
}

pub(super) fn parse_filters(place: Place<'_>, members: Members<'_>) -> Result<AggregationKind, QueryError> {
    let (mut filters, mut other, mut other_name) = (None, None, None);
    for (key, json) in members {
        match (key.as_str(), json) {
            ("filters", OrderedJson::Object(members)) if members.len() <= ITEMS_MAX => {
                let named = |(name, json): &(String, OrderedJson)| Ok((name.clone(), parse_query(json, 0)?));
                let mut list = members.iter().map(named).collect::<Result<Vec<_>, QueryError>>()?;
                list.sort_by(|a, b| a.0.cmp(&b.0));
                filters = Some((list, true));
            }
            ("filters", OrderedJson::List(list)) if list.len() <= ITEMS_MAX => {
                let unnamed = |json: &OrderedJson| Ok((String::new(), parse_query(json, 0)?));
                filters = Some((list.iter().map(unnamed).collect::<Result<Vec<_>, QueryError>>()?, false));
            }
            ("filters", OrderedJson::Object(_) | OrderedJson::List(_)) => {
                return Err(QueryError::argument(format!("[filters] has more than {ITEMS_MAX} filters")));
            }
            ("other_bucket", json) => other = Some(place.boolean(key, json)?),
            ("other_bucket_key", json) => other_name = Some(place.text(key, json)?),
            (key, json) => {
                return Err(QueryError::parsing(format!(
                    "Unknown key for a {} in [{}]: [{key}].",
                    json.token_name(),
                    place.name
                )));
            }
        }
    }
    let (filters, keyed) = filters
        .filter(|(filters, _)| !filters.is_empty())
        .ok_or_else(|| QueryError::argument("[filters] cannot be empty."))?;
    let has_other = other.unwrap_or(other_name.is_some());
    let other = has_other.then(|| other_name.unwrap_or_else(|| "_other_".to_owned()));
    Ok(AggregationKind::Filters(FiltersAggregation { filters, keyed, other }))
}

pub(super) fn parse_missing(place: Place<'_>, members: Members<'_>) -> Result<AggregationKind, QueryError> {
    let mut source = SourceReader::default();
    for (key, json) in members {
        if !source.read(place, key, json)? {
            return Err(place.unknown(key));
        }
    }
    source.finish().map(AggregationKind::Missing)
}

pub(super) fn parse_top_hits(place: Place<'_>, members: Members<'_>) -> Result<AggregationKind, QueryError> {
    const WINDOW_MAX: usize = 100;
    let mut top = TopHits {
        from: 0,
        size: 3,
        sort: Vec::new(),
        source: SourceFilter::default(),
        options: HitOptions::default(),
    };
    let mut names_source = false;
    for (key, json) in members {
        if top.options.read(key, json)? {
            continue;
        }
        let count = || {
            let count = place.long(key, json)?;
            let negative = || {
                QueryError::argument(format!(
                    "[{key}] must be greater than or equal to 0. Found [{count}] in [{}]",
                    place.name
                ))
            };
            usize::try_from(count).map_err(|_| negative())
        };
        match key.as_str() {
            "from" => top.from = count()?,
            "size" => top.size = count()?,
            "sort" => top.sort = parse_sorts(json)?,
            "_source" => {
                top.source = parse_source_filter(json)?;
                names_source = true;
            }
            "track_scores" => {}
            key => {
                return Err(QueryError::parsing(format!(
                    "Unknown key for a {} in [{key}].",
                    json.token_name()
                )));
            }
        }
    }
    top.source.excludes_all |= top.options.hides_source && !names_source;
    let window = top.from.saturating_add(top.size);
    if window > WINDOW_MAX {
        return Err(QueryError::shard(format!(
            "Top hits result window is too large, the top hits aggregator [{}]'s from + size must be less than or equal \
             to: [{WINDOW_MAX}] but was [{window}]. This limit can be set by changing the \
             [index.max_inner_result_window] index level setting.",
            place.name
        )));
    }
    if top.size == 0 {
        return Err(QueryError::shard(
            "numHits must be > 0; please use TotalHitCountCollector if you just need the total hit count",
        ));
    }
    Ok(AggregationKind::TopHits(Box::new(top)))
}

pub(super) fn parse_composite(place: Place<'_>, members: Members<'_>) -> Result<AggregationKind, QueryError> {
    let (mut sources, mut size, mut after) = (Vec::new(), 10, None);
    for (key, json) in members {
        match (key.as_str(), json) {
            ("size", json) => size = parse_size(place, json)?,
            ("sources", OrderedJson::List(list)) if list.len() <= ITEMS_MAX => {
                sources = list
                    .iter()
                    .map(|json| parse_composite_source(place, json))
                    .collect::<Result<Vec<_>, _>>()?;
            }
            ("after", OrderedJson::Object(members)) => after = Some(members),
            ("sources" | "after", json) => return Err(place.wrong_type(key, json)),
            (key, _) => return Err(place.unknown(key)),
        }
    }
    if sources.is_empty() {
        let error = QueryError::content("Failed to build [composite] after last required field arrived");
        return Err(QueryError {
            cause: Some("Composite [sources] cannot be null or empty".to_owned()),
            ..error
        });
    }
    if size > BUCKETS_MAX {
        return Err(QueryError::argument(format!(
            "Trying to create too many buckets. Must be less than or equal to: [{BUCKETS_MAX}] but was [{size}]"
        )));
    }
    let after = after.map(|members| composite_after(&sources, members)).transpose()?;
    Ok(AggregationKind::Composite(Composite { size, sources, after }))
}

fn composite_after(
    sources: &[CompositeSource],
    members: Members<'_>,
) -> Result<Vec<Option<QueryValue>>, QueryError> {
    if members.len() != sources.len() {
        return Err(QueryError::shard(format!(
            "[after] has {} value(s) but [sources] has {}",
            members.len(),
            sources.len()
        )));
    }
    let value = |source: &CompositeSource| {
        let json = members.iter().find(|(name, _)| *name == source.name).map(|(_, json)| json);
        match json {
            None => Err(QueryError::shard(format!("Missing value for [after.{}]", source.name))),
            Some(OrderedJson::Null) => Ok(None),
            Some(json) => json.to_value().map(Some).ok_or_else(|| {
                QueryError::argument(format!(
                    "Invalid value type {} for [after.{}]",
                    json.token_name(),
                    source.name
                ))
            }),
        }
    };
    sources.iter().map(value).collect()
}

fn parse_composite_source(place: Place<'_>, json: &OrderedJson) -> Result<CompositeSource, QueryError> {
    let single = |json: &OrderedJson| match json {
        OrderedJson::Object(members) if members.len() == 1 => Some(members[0].clone()),
        _ => None,
    };
    let wrong = || QueryError::parsing("each of [sources] must be {NAME: {TYPE: {...}}}");
    let (name, definition) = single(json).ok_or_else(wrong)?;
    let (type_name, body) = single(&definition).ok_or_else(wrong)?;
    let OrderedJson::Object(members) = body else { return Err(wrong()) };
    let mut reader = SourceReader::default();
    let (mut interval, mut length, mut offset_ms) = (None, None, 0);
    let mut source = CompositeSource {
        name,
        source: ValueSource::of_field(""),
        grid: CompositeGrid::Terms,
        ascending: true,
        missing_bucket: false,
        missing_first: None,
    };
    for (key, json) in &members {
        if reader.read(place, key, json)? {
            continue;
        }
        match (type_name.as_str(), key.as_str()) {
            (_, "order") => source.ascending = parse_direction(place, json)?,
            (_, "missing_bucket") => source.missing_bucket = place.boolean(key, json)?,
            (_, "missing_order") => {
                source.missing_first = match place.text(key, json)?.as_str() {
                    "first" => Some(true),
                    "last" => Some(false),
                    _ => None,
                }
            }
            ("histogram", "interval") => length = Some(place.number(key, json)?),
            ("date_histogram", "calendar_interval" | "fixed_interval" | "interval") => {
                interval = Some(parse_interval(place, key, json)?);
            }
            ("date_histogram", "offset") => offset_ms = parse_offset(place, json)?,
            (type_name, key) => {
                return Err(QueryError::content(format!("[{type_name}] unknown field [{key}]")));
            }
        }
    }
    source.source = reader.finish()?;
    if source.source.missing.is_some() {
        return Err(QueryError::content(format!("[{type_name}] unknown field [missing]")));
    }
    source.grid = match (type_name.as_str(), length, interval) {
        ("terms", ..) => CompositeGrid::Terms,
        ("histogram", Some(interval), _) if interval > 0.0 => CompositeGrid::Histogram { interval },
        ("date_histogram", _, Some(interval)) => CompositeGrid::DateHistogram { interval, offset_ms },
        ("histogram" | "date_histogram", ..) => {
            return Err(QueryError::argument(format!(
                "[interval] must be greater than 0 for [{type_name}] source"
            )));
        }
        (other, ..) => {
            return Err(QueryError::parsing(format!("invalid source type: {other}")));
        }
    };
    Ok(source)
}

fn parse_direction(place: Place<'_>, json: &OrderedJson) -> Result<bool, QueryError> {
    match place.text("order", json)?.to_ascii_lowercase().as_str() {
        "asc" => Ok(true),
        "desc" => Ok(false),
        other => Err(place.failed("order", format!("No enum constant [{other}]"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_intervals_are_parsed() {
        for (text, ms) in [("90m", Some(5_400_000)), ("1d", Some(86_400_000)), ("5", None), ("1M", None)] {
            assert_eq!(fixed_interval(text), ms.map(Interval::Fixed), "{text}");
        }
        assert_eq!(calendar_interval("1M"), Some(Interval::Month));
        assert_eq!(calendar_interval("2d"), None);
        assert_eq!(fixed_interval("9223372036854775807d"), None);
    }
}
