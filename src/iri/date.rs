//! Dates as Elasticsearch reads them: formats, date math, rounding. Pure: the time of now is an argument.
//!
//! Formats are those of Elasticsearch 7.17: names (`strict_date_optional_time`, `epoch_millis`, ...) and Java's
//! patterns, several with `||` between them. All times are milliseconds since 1970, UTC; zones are minutes east of UTC:
//! a zone's name would need its history, and is refused. Checked against the real one in
//! testdata/elasticsearch/dates.jsonl.

mod format;

use chrono::{DateTime, Datelike, Days, Months, NaiveDateTime, NaiveTime, TimeDelta, Timelike};

use super::query::{Bound, Value};

pub use format::Format;

/// A date's text, its math and a format.
pub const DATE_BYTES_MAX: usize = 256;

/// Why a date was not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DateError {
    /// It fits no format.
    #[error("failed to parse date field [{text}] with format [{format}]")]
    Unfit {
        /// The date.
        text: String,
        /// The formats, as they were put.
        format: String,
    },
    /// What stands behind `now` or `||` is no date math.
    #[error("{why} date math [{math}]")]
    Math {
        /// The math.
        math: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A format that is not known.
    #[error("Invalid format: [{format}]: {why}")]
    Format {
        /// The format.
        format: String,
        /// What is wrong with it.
        why: String,
    },
    /// A zone that is no offset.
    #[error("time zone [{0}] is not supported: give an offset such as +01:00")]
    Zone(String),
    /// A span that is none.
    #[error("[{0}] is neither a span such as 90s, 15m, 2h, 2d or 1w nor a date")]
    Span(String),
    /// Too long, or beyond what milliseconds can say.
    #[error("date is out of range")]
    OutOfRange,
}

/// Which instant a date that leaves parts open means: its first or its last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// The first.
    Down,
    /// The last.
    Up,
}

/// The instant that a text means: a date of one of the formats, or `now`, with date math behind it
/// (`now-1d/d`, `2026-11-22||+1M/d`).
pub fn instant(
    text: &str,
    format: &Format,
    now_ms: i64,
    zone_minutes: i32,
    rounding: Rounding,
) -> Result<i64, DateError> {
    if text.len() > DATE_BYTES_MAX {
        return Err(DateError::OutOfRange);
    }
    let (anchor_ms, math) = match (text.strip_prefix("now"), text.split_once("||")) {
        (Some(math), _) => (now_ms, math),
        (None, Some((anchor, math))) => (format.read(anchor, zone_minutes, Rounding::Down)?, math),
        (None, None) => return format.read(text, zone_minutes, rounding),
    };
    let local = local(anchor_ms, zone_minutes)?;
    utc(calculate(math, local, rounding)?, zone_minutes)
}

/// The first and the last millisecond of a range. As in Elasticsearch the lower end of `gt` is the end of what it
/// names, and so on: `gt 2026-11-22` begins with the 23rd.
pub fn range(
    from: &Bound,
    to: &Bound,
    format: &Format,
    now_ms: i64,
    zone_minutes: i32,
) -> Result<(i64, i64), DateError> {
    let read = |value: &Value, rounding| {
        let text = match value {
            Value::Text(text) => text.clone(),
            Value::Long(number) => number.to_string(),
            Value::Double(number) => number.to_string(),
            Value::Bool(value) => value.to_string(),
        };
        instant(&text, format, now_ms, zone_minutes, rounding)
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

/// The instant since which something is asked: a span back from now (`90s`, `15m`, `2h`, `2d`, `1w`), a date, or
/// date math.
pub fn since(text: &str, now_ms: i64) -> Result<i64, DateError> {
    let number: String = text.chars().take_while(char::is_ascii_digit).collect();
    let unit_ms = match &text[number.len()..] {
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "w" => 7 * 86_400_000,
        _ => {
            let date = instant(text, &Format::default(), now_ms, 0, Rounding::Down);
            return date.map_err(|_| DateError::Span(text.chars().take(DATE_BYTES_MAX).collect()));
        }
    };
    let count: i64 =
        number.parse().map_err(|_| DateError::Span(text.chars().take(DATE_BYTES_MAX).collect()))?;
    let span_ms = count.checked_mul(unit_ms).ok_or(DateError::OutOfRange)?;
    now_ms.checked_sub(span_ms).ok_or(DateError::OutOfRange)
}

/// Minutes east of UTC: `Z`, `UTC`, `+01:00`, `-0300`, `+01`, `UTC+01:00`.
pub fn zone_minutes(text: &str) -> Result<i32, DateError> {
    let refused = || DateError::Zone(text.chars().take(DATE_BYTES_MAX).collect());
    let offset = ["UTC", "GMT", "UT"].iter().find_map(|name| text.strip_prefix(name));
    match offset.unwrap_or(text) {
        "" if !text.is_empty() => Ok(0),
        "Z" if offset.is_none() => Ok(0),
        offset => format::offset_seconds(offset)
            .filter(|seconds| seconds % 60 == 0)
            .map(|s| s / 60)
            .ok_or_else(refused),
    }
}

fn local(ms: i64, zone_minutes: i32) -> Result<NaiveDateTime, DateError> {
    let shifted = ms.checked_add(i64::from(zone_minutes) * 60_000);
    let local = shifted.and_then(DateTime::from_timestamp_millis).ok_or(DateError::OutOfRange)?;
    Ok(local.naive_utc())
}

fn utc(local: NaiveDateTime, zone_minutes: i32) -> Result<i64, DateError> {
    let shifted = local.and_utc().timestamp_millis().checked_sub(i64::from(zone_minutes) * 60_000);
    shifted.ok_or(DateError::OutOfRange)
}

/// `+1M`, `-2d`, `/d`, one behind the other.
fn calculate(math: &str, mut time: NaiveDateTime, rounding: Rounding) -> Result<NaiveDateTime, DateError> {
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
                .and_then(|time| add(time, 1, unit))
                .and_then(|time| time.checked_sub_signed(TimeDelta::milliseconds(1))),
            '/' => round_down(time, unit),
            '-' => add(time, -count, unit),
            _ => add(time, count, unit),
        }
        .ok_or_else(|| wrong("unit not supported, or out of range, in"))?;
    }
    Ok(time)
}

fn add(time: NaiveDateTime, count: i32, unit: char) -> Option<NaiveDateTime> {
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
