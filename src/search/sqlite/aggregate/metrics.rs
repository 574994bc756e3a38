//! Metric aggregations: numbers about the values of a field.

use roaring::RoaringBitmap;

use super::AggregationRun;
use super::format::ValueFormat;
use super::source::AggregatedField;
use crate::search::mapping::FieldType;
use crate::search::query::OutputJson;
use crate::search::query::aggregations::{Metric, ValueSource};
use crate::search::store::StoreError;

/// Members of a rendered aggregation.
type Members = Vec<(String, OutputJson)>;

/// A sum that compensates for the error of each addition, as in Elasticsearch (Kahan).
#[derive(Clone, Copy, Debug, Default)]
struct CompensatedSum {
    value: f64,
    lost: f64,
}

impl CompensatedSum {
    fn add(&mut self, number: f64) {
        if !number.is_finite() || !self.value.is_finite() {
            self.value += number;
            return;
        }
        let corrected = number - self.lost;
        let sum = self.value + corrected;
        self.lost = (sum - self.value) - corrected;
        self.value = sum;
    }
}

/// Count, sum and bounds of numbers.
#[derive(Clone, Copy, Debug)]
struct NumberStats {
    count: u64,
    sum: CompensatedSum,
    squares: CompensatedSum,
    min: f64,
    max: f64,
}

impl Default for NumberStats {
    fn default() -> NumberStats {
        let (sum, squares) = Default::default();
        NumberStats { count: 0, sum, squares, min: f64::INFINITY, max: f64::NEG_INFINITY }
    }
}

impl NumberStats {
    fn add(&mut self, number: f64, count: u64) {
        self.count += count;
        self.sum.add(number * count as f64);
        self.squares.add(number * number * count as f64);
        self.min = self.min.min(number);
        self.max = self.max.max(number);
    }

    fn avg(&self) -> f64 {
        self.sum.value / self.count as f64
    }
}

fn check_type(field: &AggregatedField, metric: &Metric) -> Result<(), StoreError> {
    let is_counted = matches!(metric, Metric::ValueCount | Metric::Cardinality);
    if field.is_numeric() || is_counted {
        return Ok(());
    }
    Err(unsupported_type(field, name_of(metric)))
}

/// Elasticsearch's message about a field whose type does not fit an aggregation.
pub(super) fn unsupported_type(field: &AggregatedField, aggregation: &str) -> StoreError {
    StoreError::Invalid(format!(
        "Field [{}] of type [{}] is not supported for aggregation [{aggregation}]",
        field.name, field.type_name
    ))
}

fn name_of(metric: &Metric) -> &'static str {
    match metric {
        Metric::Avg => "avg",
        Metric::Sum => "sum",
        Metric::Min => "min",
        Metric::Max => "max",
        Metric::Stats => "stats",
        Metric::ExtendedStats { .. } => "extended_stats",
        Metric::ValueCount => "value_count",
        Metric::Cardinality => "cardinality",
        Metric::Percentiles { .. } => "percentiles",
        Metric::PercentileRanks { .. } => "percentile_ranks",
    }
}

impl AggregationRun<'_> {
    /// Computes a metric over the values of documents.
    pub(super) fn metric(
        &self,
        docs: &RoaringBitmap,
        source: &ValueSource,
        metric: &Metric,
        depth: usize,
    ) -> Result<Members, StoreError> {
        let field = self.field(source, FieldType::Double)?;
        if let Some(field) = &field {
            check_type(field, metric)?;
        }
        let format = match &field {
            Some(field) => field.value_format(source),
            None => ValueFormat::new(FieldType::Double, None, source.format.as_deref(), source.zone),
        };
        match metric {
            Metric::ValueCount | Metric::Cardinality => {
                let mut found = 0;
                if let Some(field) = &field {
                    let counts_values = *metric == Metric::ValueCount;
                    self.each_count(field, docs, depth, &mut |_, count| {
                        found += if counts_values { count } else { 1 };
                        Ok(true)
                    })?;
                }
                Ok(vec![("value".to_owned(), OutputJson::count(found))])
            }
            Metric::Percentiles { .. } | Metric::PercentileRanks { .. } => {
                let mut numbers = Vec::new();
                if let Some(field) = &field {
                    self.each_number(field, docs, depth, &mut |number, count| numbers.push((number, count)))?;
                }
                numbers.sort_by(|a, b| a.0.total_cmp(&b.0));
                Ok(match metric {
                    Metric::PercentileRanks { values, keyed } => {
                        render_percentiles(values, *keyed, &ValueFormat::Raw, |value| rank(&numbers, value))
                    }
                    Metric::Percentiles { percents, keyed } => {
                        render_percentiles(percents, *keyed, &format, |percent| percentile(&numbers, percent))
                    }
                    _ => Vec::new(),
                })
            }
            metric => {
                let mut stats = NumberStats::default();
                if let Some(field) = &field {
                    self.each_number(field, docs, depth, &mut |number, count| stats.add(number, count))?;
                }
                Ok(render_stats(&stats, metric, &format))
            }
        }
    }
}

fn render_stats(stats: &NumberStats, metric: &Metric, format: &ValueFormat) -> Members {
    let some = |number: f64| (stats.count > 0).then_some(number);
    let value = match metric {
        Metric::Avg => some(stats.avg()),
        Metric::Min => some(stats.min),
        Metric::Max => some(stats.max),
        Metric::Sum => Some(stats.sum.value),
        Metric::ExtendedStats { sigma } => return render_extended_stats(stats, *sigma, format),
        _ => return render_basic_stats(stats, format, true),
    };
    let mut members = vec![("value".to_owned(), OutputJson::number(value))];
    if let Some(text) = value.and_then(|value| format.write(value)) {
        members.push(("value_as_string".to_owned(), OutputJson::Text(text)));
    }
    members
}

fn render_basic_stats(stats: &NumberStats, format: &ValueFormat, with_texts: bool) -> Members {
    let some = |number: f64| (stats.count > 0).then_some(number);
    let values = [
        ("min", some(stats.min)),
        ("max", some(stats.max)),
        ("avg", some(stats.avg())),
        ("sum", Some(stats.sum.value)),
    ];
    let mut members = vec![("count".to_owned(), OutputJson::count(stats.count))];
    members.extend(values.map(|(name, value)| (name.to_owned(), OutputJson::number(value))));
    if with_texts {
        members.extend(stats_texts(stats, format, &values));
    }
    members
}

fn stats_texts(stats: &NumberStats, format: &ValueFormat, values: &[(&str, Option<f64>)]) -> Members {
    let text = |(name, value): &(&str, Option<f64>)| {
        let text = value.filter(|_| stats.count > 0).and_then(|value| format.write(value))?;
        Some((format!("{name}_as_string"), OutputJson::Text(text)))
    };
    values.iter().filter_map(text).collect()
}

fn render_extended_stats(stats: &NumberStats, sigma: f64, format: &ValueFormat) -> Members {
    let count = stats.count as f64;
    let some = |number: f64| (stats.count > 0).then_some(number);
    let deviations = stats.squares.value - stats.sum.value * stats.sum.value / count;
    // Rounding can make it negative.
    let population = (deviations / count).max(0.0);
    let sampling = if stats.count > 1 { (deviations / (count - 1.0)).max(0.0) } else { f64::NAN };
    let avg = stats.avg();
    let values = [
        ("sum_of_squares", some(stats.squares.value)),
        ("variance", some(population)),
        ("variance_population", some(population)),
        ("variance_sampling", some(sampling)),
        ("std_deviation", some(population.sqrt())),
        ("std_deviation_population", some(population.sqrt())),
        ("std_deviation_sampling", some(sampling.sqrt())),
    ];
    let bounds = [
        ("upper", some(avg + sigma * population.sqrt())),
        ("lower", some(avg - sigma * population.sqrt())),
        ("upper_population", some(avg + sigma * population.sqrt())),
        ("lower_population", some(avg - sigma * population.sqrt())),
        ("upper_sampling", some(avg + sigma * sampling.sqrt())),
        ("lower_sampling", some(avg - sigma * sampling.sqrt())),
    ];
    let named = |values: &[(&str, Option<f64>)]| -> Members {
        values.iter().map(|(name, value)| ((*name).to_owned(), OutputJson::number(*value))).collect()
    };
    let mut members = render_basic_stats(stats, format, true);
    members.extend(named(&values));
    members.push(("std_deviation_bounds".to_owned(), OutputJson::Object(named(&bounds))));
    members.extend(stats_texts(stats, format, &values));
    let bound_texts = stats_texts(stats, format, &bounds);
    if !bound_texts.is_empty() {
        members.push((
            "std_deviation_bounds_as_string".to_owned(),
            OutputJson::Object(strip_suffixes(bound_texts)),
        ));
    }
    members
}

fn strip_suffixes(members: Members) -> Members {
    let strip = |name: String| name.strip_suffix("_as_string").map(str::to_owned).unwrap_or(name);
    members.into_iter().map(|(name, value)| (strip(name), value)).collect()
}

/// Renders the results for several numbers.
fn render_percentiles(
    keys: &[f64],
    keyed: bool,
    format: &ValueFormat,
    result: impl Fn(f64) -> Option<f64>,
) -> Members {
    let mut members = Vec::new();
    let mut list = Vec::new();
    for key in keys {
        let value = result(*key);
        let text = value.and_then(|value| format.write(value)).map(OutputJson::Text);
        if keyed {
            members.push((format!("{key:?}"), OutputJson::number(value)));
            members.extend(text.map(|text| (format!("{key:?}_as_string"), text)));
        } else {
            let mut item = vec![
                ("key".to_owned(), OutputJson::Double(*key)),
                ("value".to_owned(), OutputJson::number(value)),
            ];
            item.extend(text.map(|text| ("value_as_string".to_owned(), text)));
            list.push(OutputJson::Object(item));
        }
    }
    let values = if keyed { OutputJson::Object(members) } else { OutputJson::List(list) };
    vec![("values".to_owned(), values)]
}

/// Returns a percentile of numbers that are sorted and have counts. Elasticsearch takes the n-th number for the
/// percentile (n + 0.5) / count, and interpolates between numbers.
fn percentile(numbers: &[(f64, u64)], percent: f64) -> Option<f64> {
    let count: u64 = numbers.iter().map(|(_, count)| count).sum();
    let position = percent / 100.0 * count as f64 - 0.5;
    let nth = |nth: u64| {
        let mut left = nth;
        numbers.iter().find_map(|(number, count)| match left.checked_sub(*count) {
            Some(rest) => {
                left = rest;
                None
            }
            None => Some(*number),
        })
    };
    if count == 0 {
        return None;
    }
    if position <= 0.0 {
        return nth(0);
    }
    let last = count - 1;
    let below = (position.floor() as u64).min(last);
    let (low, high) = (nth(below)?, nth((below + 1).min(last))?);
    Some(low + (high - low) * (position - below as f64).clamp(0.0, 1.0))
}

/// Returns the percentage of numbers up to a value, as Elasticsearch's t-digest estimates it: each number stands for
/// the interval half way to its neighbours.
fn rank(numbers: &[(f64, u64)], value: f64) -> Option<f64> {
    let count: u64 = numbers.iter().map(|(_, count)| count).sum();
    match numbers {
        [] => return None,
        [(only, _)] => return Some(if value < *only { 0.0 } else { 100.0 }),
        _ => {}
    }
    let (mut below, mut left) = (0, (numbers[1].0 - numbers[0].0) / 2.0);
    for pair in numbers.windows(2) {
        let ((number, of_number), (next, _)) = (pair[0], pair[1]);
        let right = (next - number) / 2.0;
        if value < number + right {
            let (from, to) = (number - left, number + right);
            let part = if to > from { ((value - from) / (to - from)).clamp(0.0, 1.0) } else { 1.0 };
            return Some((below as f64 + of_number as f64 * part) / count as f64 * 100.0);
        }
        below += of_number;
        left = right;
    }
    Some(100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBERS: [(f64, u64); 9] =
        [(-7.0, 1), (1.0, 1), (2.0, 1), (5.0, 1), (10.0, 1), (15.0, 1), (20.0, 1), (30.0, 1), (40.0, 1)];

    #[test]
    fn percentiles_are_those_of_elasticsearch() {
        for (percent, expected) in
            [(0.0, -7.0), (8.0, -5.24), (25.0, 1.75), (50.0, 10.0), (75.0, 22.5), (88.0, 34.2), (99.0, 40.0)]
        {
            let found = percentile(&NUMBERS, percent).unwrap();
            assert!((found - expected).abs() < 1e-9, "{percent}: {found}");
        }
        assert_eq!(percentile(&[], 50.0), None);
        assert_eq!(percentile(&[(3.0, 1)], 50.0), Some(3.0));
        assert_eq!(percentile(&[(3.0, 2), (4.0, 2)], 50.0), Some(3.5));
    }

    #[test]
    fn ranks_are_those_of_elasticsearch() {
        for (value, expected) in
            [(-8.0, 100.0 / 24.0), (5.0, 37.5), (10.0, 50.0), (34.0, 790.0 / 9.0), (39.0, 100.0)]
        {
            let found = rank(&NUMBERS, value).unwrap();
            assert!((found - expected).abs() < 1e-9, "{value}: {found}");
        }
        assert_eq!(rank(&[(3.0, 1)], 3.0), Some(100.0));
    }

    #[test]
    fn sums_keep_small_numbers() {
        let mut sum = CompensatedSum::default();
        (0..10).for_each(|_| sum.add(0.1));
        assert_eq!(sum.value, 1.0);
    }
}
