//! Dates as Elasticsearch reads them: formats, date math, rounding. Pure code; the current time is an
//! argument.
//!
//! Formats are those of Elasticsearch 7.17: names (`strict_date_optional_time`, `epoch_millis`, ...) and Java
//! patterns, with `||` between alternatives. All times are milliseconds since 1970, UTC. Compared with
//! Elasticsearch in testdata/elasticsearch/dates.jsonl.

mod format;
pub(crate) mod write;
mod zone;

use chrono::{Datelike, Days, Months, NaiveDateTime, NaiveTime, TimeDelta, Timelike};

use crate::search::query::{Bound, QueryValue};

pub use format::DateFormat;
pub use zone::TimeZone;

/// Maximum length of a date, of date math and of a format.
pub const DATE_BYTES_MAX: usize = 256;

/// The error type of all date parsers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DateError {
    #[error("failed to parse date field [{text}] with format [{format}]")]
    NoFormatMatches {
        text: String,
        /// The format as it was written.
        format: String,
    },
    /// Malformed date math after `now` or `||`.
    #[error("{why} date math [{math}]")]
    Math { math: String, why: &'static str },
    #[error("Invalid format: [{format}]: {why}")]
    Format { format: String, why: String },
    /// A time zone that is neither an offset nor a name of the IANA database.
    #[error("Unknown time-zone ID: {0} (use an offset such as +01:00, or a name such as Europe/Berlin)")]
    Zone(String),
    /// Neither a duration nor a date.
    #[error("[{0}] is neither a duration (90s, 15m, 2h, 2d, 1w), a day (today, yesterday) nor a date")]
    Span(String),
    /// Too long, or not representable in milliseconds.
    #[error("date is out of range")]
    OutOfRange,
}

/// How to complete a date that leaves parts open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// To the first instant that it can mean.
    Down,
    /// To the last instant that it can mean.
    Up,
}

/// Parses a date in one of the formats, or `now`, followed by optional date math (`now-1d/d`,
/// `2026-11-22||+1M/d`).
pub fn parse_instant(
    text: &str,
    format: &DateFormat,
    now_ms: i64,
    zone: impl Into<TimeZone>,
    rounding: Rounding,
) -> Result<i64, DateError> {
    let zone = zone.into();
    if text.len() > DATE_BYTES_MAX {
        return Err(DateError::OutOfRange);
    }
    let (anchor_ms, math) = match (text.strip_prefix("now"), text.split_once("||")) {
        (Some(math), _) => (now_ms, math),
        (None, Some((anchor, math))) => (format.parse_date(anchor, zone, Rounding::Down)?, math),
        (None, None) => return format.parse_date(text, zone, rounding),
    };
    let local = zone.to_local(anchor_ms).ok_or(DateError::OutOfRange)?;
    zone.to_utc(apply_math(math, local, rounding)?).ok_or(DateError::OutOfRange)
}

/// Returns the first and last millisecond of a range. As in Elasticsearch, `gt` excludes everything that its
/// date can mean: `gt 2026-11-22` starts on the 23rd.
pub fn parse_range(
    from: &Bound,
    to: &Bound,
    format: &DateFormat,
    now_ms: i64,
    zone: impl Into<TimeZone>,
) -> Result<(i64, i64), DateError> {
    let zone = zone.into();
    let read = |value: &QueryValue, rounding| {
        let text = match value {
            QueryValue::Text(text) => text.clone(),
            QueryValue::Long(number) => number.to_string(),
            QueryValue::Double(number) => number.to_string(),
            QueryValue::Bool(value) => value.to_string(),
        };
        parse_instant(&text, format, now_ms, zone, rounding)
    };
    let first = match from {
        Bound::Open => i64::MIN,
        Bound::Included(value) => read(value, Rounding::Down)?,
        Bound::Excluded(value) => read(value, Rounding::Up)?.saturating_add(1),
    };
    let last = match to {
        Bound::Open => i64::MAX,
        Bound::Included(value) => read(value, Rounding::Up)?,
        Bound::Excluded(value) => read(value, Rounding::Down)?.saturating_sub(1),
    };
    Ok((first, last))
}

/// Parses the value of `--since` or `--until`: a duration back from now (`90s`, `15m`, `2h`, `2d`, `1w`), a
/// date, or date math.
pub fn parse_since(text: &str, now_ms: i64) -> Result<i64, DateError> {
    let text = day_word(text).unwrap_or(text);
    let number: String = text.chars().take_while(char::is_ascii_digit).collect();
    let unit_ms = match &text[number.len()..] {
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "w" => 7 * 86_400_000,
        _ => {
            let date = parse_instant(text, &DateFormat::default(), now_ms, 0, Rounding::Down);
            return date.map_err(|_| DateError::Span(text.chars().take(DATE_BYTES_MAX).collect()));
        }
    };
    let count: i64 =
        number.parse().map_err(|_| DateError::Span(text.chars().take(DATE_BYTES_MAX).collect()))?;
    let span_ms = count.checked_mul(unit_ms).ok_or(DateError::OutOfRange)?;
    now_ms.checked_sub(span_ms).ok_or(DateError::OutOfRange)
}

/// Returns the date math of a word for a day: `today` and `yesterday` mean the start of the day, `now` this moment.
pub fn day_word(text: &str) -> Option<&'static str> {
    match text {
        "now" => Some("now"),
        "today" => Some("now/d"),
        "yesterday" => Some("now-1d/d"),
        "tomorrow" => Some("now+1d/d"),
        _ => None,
    }
}

/// Parses a time zone as minutes east of UTC: `Z`, `UTC`, `+01:00`, `-0300`, `+01`, `UTC+01:00`.
pub fn parse_zone_minutes(text: &str) -> Result<i32, DateError> {
    let rejected = || DateError::Zone(text.chars().take(DATE_BYTES_MAX).collect());
    let offset = ["UTC", "GMT", "UT"].iter().find_map(|name| text.strip_prefix(name));
    match offset.unwrap_or(text) {
        "" if !text.is_empty() => Ok(0),
        "Z" if offset.is_none() => Ok(0),
        offset => format::parse_offset_seconds(offset)
            .filter(|seconds| seconds % 60 == 0)
            .map(|s| s / 60)
            .ok_or_else(rejected),
    }
}

/// Applies a sequence of `+1M`, `-2d` and `/d` to a time.
fn apply_math(math: &str, mut time: NaiveDateTime, rounding: Rounding) -> Result<NaiveDateTime, DateError> {
    let wrong = |why| DateError::Math { math: math.to_owned(), why };
    let mut chars = math.chars().peekable();
    while let Some(operator) = chars.next() {
        if !matches!(operator, '+' | '-' | '/') {
            return Err(wrong("operator not supported for"));
        }
        let mut digits = String::new();
        while let Some(digit) = chars.next_if(char::is_ascii_digit) {
            digits.push(digit);
        }
        let unit = chars.next().ok_or_else(|| wrong("truncated"))?;
        let count: i32 = match digits.as_str() {
            "" => 1,
            digits => digits.parse().map_err(|_| wrong("number too large in"))?,
        };
        time = match operator {
            '/' if count != 1 => return Err(wrong("rounding `/` can only be used on single unit types in")),
            '/' if rounding == Rounding::Up => round_down(time, unit)
                .and_then(|time| add_units(time, 1, unit))
                .and_then(|time| time.checked_sub_signed(TimeDelta::milliseconds(1))),
            '/' => round_down(time, unit),
            '-' => add_units(time, -count, unit),
            _ => add_units(time, count, unit),
        }
        .ok_or_else(|| wrong("unit not supported, or out of range, in"))?;
    }
    Ok(time)
}

fn add_units(time: NaiveDateTime, count: i32, unit: char) -> Option<NaiveDateTime> {
    let months = |factor: u32| {
        let months = Months::new(count.unsigned_abs().checked_mul(factor)?);
        if count < 0 { time.checked_sub_months(months) } else { time.checked_add_months(months) }
    };
    let seconds = |factor: i64| time.checked_add_signed(TimeDelta::try_seconds(i64::from(count) * factor)?);
    match unit {
        'y' => months(12),
        'M' => months(1),
        'w' => seconds(7 * 86_400),
        'd' => seconds(86_400),
        'h' | 'H' => seconds(3600),
        'm' => seconds(60),
        's' => seconds(1),
        _ => None,
    }
}

fn round_down(time: NaiveDateTime, unit: char) -> Option<NaiveDateTime> {
    let date = time.date();
    let day = |date: chrono::NaiveDate| Some(date.and_time(NaiveTime::MIN));
    match unit {
        'y' => day(date.with_ordinal(1)?),
        'M' => day(date.with_day(1)?),
        'w' => day(date.checked_sub_days(Days::new(u64::from(date.weekday().num_days_from_monday())))?),
        'd' => day(date),
        'h' | 'H' => time.with_minute(0)?.with_second(0)?.with_nanosecond(0),
        'm' => time.with_second(0)?.with_nanosecond(0),
        's' => time.with_nanosecond(0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    /// 2026-11-22T10:11:12.345Z, a Sunday.
    const NOW_MS: i64 = 1_795_342_272_345;

    /// Rejected here and accepted by Elasticsearch: years before 0, zones with seconds, zone names.
    const KNOWN_DIFFERENCES: [&str; 3] =
        ["-0001-01-01", "2026-11-22T10:11:12+01:00:30", "2026-11-22T10:11:12UTC"];

    #[test]
    fn formats_have_their_old_names_too() {
        for (old, new) in [
            ("dateOptionalTime", "date_optional_time"),
            ("strictDateOptionalTime", "strict_date_optional_time"),
            ("basicDateTimeNoMillis", "basic_date_time_no_millis"),
            ("strictDate", "strict_date"),
        ] {
            assert_eq!(format::snake_case(old), new);
            assert!(DateFormat::parse(old).is_ok(), "{old}");
        }
        for same in ["yyyyMMdd", "dd", "HH:mm", "epoch_millis", "fooBar"] {
            assert_eq!(format::snake_case(same), same);
        }
    }

    #[test]
    fn dates_are_read_as_elasticsearch_reads_them() {
        let golden = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/elasticsearch/dates.jsonl"));
        let (mut cases, mut differ) = (0, Vec::new());
        for line in golden.lines() {
            let case: serde_json::Value = serde_json::from_str(line).unwrap();
            let zone = case["zone"].as_str().map_or(0, |zone| parse_zone_minutes(zone).unwrap());
            let format = case["format"]
                .as_str()
                .map_or_else(DateFormat::default, |text| DateFormat::parse(text).unwrap());
            let value = || QueryValue::Text(case["date"].as_str().unwrap().to_owned());
            let first = |bound| parse_range(&bound, &Bound::Open, &format, NOW_MS, zone).map(|found| found.0);
            let last = |bound| parse_range(&Bound::Open, &bound, &format, NOW_MS, zone).map(|found| found.1);
            let found = || -> Result<serde_json::Value, DateError> {
                let (gte, gt) = (first(Bound::Included(value()))?, first(Bound::Excluded(value()))?);
                let (lte, lt) = (last(Bound::Included(value()))?, last(Bound::Excluded(value()))?);
                Ok(vec![gte, gt, lte, lt].into())
            };
            cases += 1;
            if (found().unwrap_or_default() == case["bounds"])
                == KNOWN_DIFFERENCES.contains(&case["date"].as_str().unwrap())
            {
                differ.push(format!("{case}, not {:?}", found()));
            }
        }
        assert!(
            cases > 150 && differ.is_empty(),
            "{} of {cases} differ:\n{}",
            differ.len(),
            differ.join("\n")
        );
    }

    #[track_caller]
    fn check_instant(text: &str, down: &str, up: &str) {
        let found = |rounding| parse_instant(text, &DateFormat::default(), NOW_MS, 60, rounding).unwrap();
        let shown = |ms| DateTime::from_timestamp_millis(ms).unwrap().format("%FT%T%.3f").to_string();
        assert_eq!(
            (shown(found(Rounding::Down)), shown(found(Rounding::Up))),
            (down.into(), up.into()),
            "{text}"
        );
    }

    #[test]
    fn date_math_uses_the_time_zone() {
        check_instant("now", "2026-11-22T10:11:12.345", "2026-11-22T10:11:12.345");
        check_instant("now-2d", "2026-11-20T10:11:12.345", "2026-11-20T10:11:12.345");
        check_instant("now/d", "2026-11-21T23:00:00.000", "2026-11-22T22:59:59.999");
        check_instant("now-1d/d", "2026-11-20T23:00:00.000", "2026-11-21T22:59:59.999");
        check_instant("now/w", "2026-11-15T23:00:00.000", "2026-11-22T22:59:59.999");
        check_instant("now+1h/m", "2026-11-22T11:11:00.000", "2026-11-22T11:11:59.999");
        check_instant("2026-11-22||+1M/d", "2026-12-21T23:00:00.000", "2026-12-22T22:59:59.999");
    }

    #[test]
    fn malformed_dates_are_rejected() {
        let rejected = |text: &str| {
            parse_instant(text, &DateFormat::default(), NOW_MS, 0, Rounding::Down).unwrap_err().to_string()
        };
        assert_eq!(
            rejected("x"),
            "failed to parse date field [x] with format [strict_date_optional_time||epoch_millis]"
        );
        assert_eq!(rejected("nowhere"), "operator not supported for date math [here]");
        assert_eq!(rejected("now+"), "truncated date math [+]");
        assert_eq!(
            rejected("now/2d"),
            "rounding `/` can only be used on single unit types in date math [/2d]"
        );
        assert_eq!(rejected("now+1x"), "unit not supported, or out of range, in date math [+1x]");
        assert_eq!(
            rejected("now+2147483647y"),
            "unit not supported, or out of range, in date math [+2147483647y]"
        );
        assert_eq!(rejected("now-99999999999d"), "number too large in date math [-99999999999d]");
        let math = |bytes: usize| format!("now{}", "+1d".repeat(100)).chars().take(bytes).collect::<String>();
        assert!(
            parse_instant(&math(DATE_BYTES_MAX - 1), &DateFormat::default(), NOW_MS, 0, Rounding::Down)
                .is_ok()
        );
        assert_eq!(rejected(&math(DATE_BYTES_MAX + 1)), "date is out of range");
        for format in ["", "yyyy-MM-dd||", "qq", "yyyy[", "]", "{", "VV", &"y".repeat(257)] {
            assert!(DateFormat::parse(format).is_err(), "{format}");
        }
    }

    #[test]
    fn durations_and_time_zones_are_parsed() {
        let since = |text| parse_since(text, NOW_MS);
        assert_eq!(since("90s"), Ok(NOW_MS - 90_000));
        assert_eq!(since("2d"), Ok(NOW_MS - 172_800_000));
        assert_eq!(since("1w"), Ok(NOW_MS - 604_800_000));
        assert_eq!(since("now-1d"), Ok(NOW_MS - 86_400_000));
        assert_eq!(since("2026-11-22"), Ok(1_795_305_600_000));
        assert_eq!(since("now"), Ok(NOW_MS));
        assert_eq!(since("today"), Ok(1_795_305_600_000));
        assert_eq!(since("yesterday"), Ok(1_795_305_600_000 - 86_400_000));
        assert_eq!(since("tomorrow"), Ok(1_795_305_600_000 + 86_400_000));
        assert_eq!(since("2x"), Err(DateError::Span("2x".into())));
        assert_eq!(since("d"), Err(DateError::Span("d".into())));
        assert_eq!(since("9223372036854775807w"), Err(DateError::OutOfRange));
        for (text, minutes) in
            [("Z", 0), ("UTC", 0), ("+01:00", 60), ("-0330", -210), ("+5", 300), ("UTC+02:00", 120)]
        {
            assert_eq!(parse_zone_minutes(text), Ok(minutes), "{text}");
        }
        for text in ["", "Europe/Berlin", "+19:00", "01:00", "+1:00", "UTCZ", "+01:60"] {
            assert_eq!(parse_zone_minutes(text), Err(DateError::Zone(text.into())));
        }
    }
}
