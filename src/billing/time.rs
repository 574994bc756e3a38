//! Parses the times of rows, to the microsecond: numbers of seconds since 1970, or dates. Pure.

use std::fmt;

use crate::search::date::{DateFormat, Rounding};

/// The accepted formats of dates. `strict_date_optional_time` covers ISO 8601.
pub(super) const DATE_FORMATS: &str = "strict_date_optional_time||yyyy-MM-dd HH:mm:ss||yyyy-MM-dd HH:mm:ssXX||yyyy-MM-dd HH:mm:ssXXX||\
                     yyyy/MM/dd HH:mm:ss||yyyy/MM/dd HH:mm:ssXX";

/// The smallest number that is taken as milliseconds: as seconds it would be in the year 5138.
const MILLIS_FROM: i64 = 100_000_000_000;

/// The smallest number that is taken as microseconds.
const MICROS_FROM: i64 = 100_000_000_000_000;

/// The latest accepted time, the end of the year 9999. With it, sums of durations cannot overflow.
const SECONDS_MAX: i64 = 253_402_300_799;

/// Parses times. It knows the time zone of texts that do not name one.
pub struct RowTimeParser {
    format: DateFormat,
    /// Returns the zone's offset in minutes east of UTC, at a time in milliseconds.
    zone_minutes: Box<dyn Fn(i64) -> i32 + Send + Sync>,
}

/// The error for a text that is not a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidTime;

impl fmt::Debug for RowTimeParser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowTimeParser").finish_non_exhaustive()
    }
}

impl RowTimeParser {
    /// Creates a parser. `zone_minutes` returns the offset of texts without a zone, in minutes east of UTC, at a time in
    /// milliseconds.
    pub fn new(zone_minutes: impl Fn(i64) -> i32 + Send + Sync + 'static) -> RowTimeParser {
        let format = DateFormat::parse(DATE_FORMATS).expect("the formats are our own, and tests read them");
        RowTimeParser { format, zone_minutes: Box::new(zone_minutes) }
    }

    /// Creates a parser for which texts without a zone are UTC.
    pub fn utc() -> RowTimeParser {
        RowTimeParser::new(|_| 0)
    }

    /// Parses seconds since 1970 with or without a fraction, milliseconds or microseconds (recognised by their size), or
    /// a date. Returns microseconds.
    pub fn parse(&self, text: &str) -> Result<i64, InvalidTime> {
        let text = text.trim();
        let us = match parse_number(text) {
            Some(us) => us,
            None => self.parse_date(text)?,
        };
        let is_time = (0..=SECONDS_MAX * 1_000_000).contains(&us);
        if is_time { Ok(us) } else { Err(InvalidTime) }
    }

    /// Parses a date. The fraction is parsed here, since it can be finer than the milliseconds of `Format`.
    fn parse_date(&self, text: &str) -> Result<i64, InvalidTime> {
        let point = text.find(['.', ',']).filter(|at| text[..*at].contains(':'));
        let (whole, fraction) = match point {
            None => (text.to_owned(), 0),
            Some(at) => {
                let digits = text[at + 1..].bytes().take_while(u8::is_ascii_digit).count();
                let (fraction, zone) = text[at + 1..].split_at(digits);
                (format!("{}{zone}", &text[..at]), parse_fraction(fraction).ok_or(InvalidTime)?)
            }
        };
        let read = |zone| self.format.parse_date(&whole, zone, Rounding::Down).map_err(|_| InvalidTime);
        // The offset depends on the time (summer time), and the time on the offset: two steps find both.
        let near = read((self.zone_minutes)(read(0)?))?;
        let ms = read((self.zone_minutes)(near))?;
        ms.checked_mul(1_000).and_then(|us| us.checked_add(fraction)).ok_or(InvalidTime)
    }
}

/// Parses a number of seconds digit by digit, since a floating-point number would round it.
fn parse_number(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(whole, rest)| (whole, Some(rest)));
    if whole.is_empty() || !whole.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let whole: i64 = whole.parse().ok()?;
    match fraction {
        Some(fraction) => whole.checked_mul(1_000_000)?.checked_add(parse_fraction(fraction)?),
        None if whole >= MICROS_FROM => Some(whole),
        None if whole >= MILLIS_FROM => whole.checked_mul(1_000),
        None => whole.checked_mul(1_000_000),
    }
}

/// Returns the microseconds in the digits of a fraction. Further digits are ignored.
fn parse_fraction(digits: &str) -> Option<i64> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let six = digits.bytes().chain(std::iter::repeat(b'0')).take(6);
    Some(six.fold(0, |number, digit| number * 10 + i64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<i64>) {
        assert_eq!(RowTimeParser::utc().parse(text).ok(), expected, "{text}");
    }

    #[test]
    fn numbers_are_seconds_milliseconds_or_microseconds_by_size() {
        check("1795305600", Some(1_795_305_600_000_000));
        check("1795305600.123456", Some(1_795_305_600_123_456));
        check("1795305600.1", Some(1_795_305_600_100_000));
        check("1795305600.1234569", Some(1_795_305_600_123_456));
        check("1795305600123", Some(1_795_305_600_123_000));
        check("1795305600123456", Some(1_795_305_600_123_456));
        check("99999999999", Some(99_999_999_999_000_000));
        check("100000000000", Some(100_000_000_000_000));
        check("0", Some(0));
        for wrong in
            ["", "-1", "1.", ".5", "1e9", "99999999999999999999", "999999999999999999", "1.2.3", "0x1"]
        {
            check(wrong, None);
        }
    }

    #[test]
    fn dates_may_have_zones_and_fractions() {
        let midnight = 1_795_305_600_000_000;
        check("2026-11-22T00:00:00Z", Some(midnight));
        check("2026-11-22T00:00:00.000001Z", Some(midnight + 1));
        check("2026-11-22T01:00:00.5+01:00", Some(midnight + 500_000));
        check("2026-11-22 00:00:00", Some(midnight));
        check("2026-11-22 00:00:00.25", Some(midnight + 250_000));
        check("2026-11-21 21:00:00-0300", Some(midnight));
        check("2026-11-21 21:00:00.75-03:00", Some(midnight + 750_000));
        check("2026/11/22 00:00:00", Some(midnight));
        check("2026-11-22", Some(midnight));
        for wrong in [
            "2026-13-22T00:00:00Z",
            "2026-11-22T00:00:00.Z",
            "Nov 22 2026",
            "1969-12-31T23:59:59Z",
            "2026-11-22T00:00:00é",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn a_date_without_a_zone_is_in_the_zone_of_the_parser() {
        let clock = RowTimeParser::new(|_| 60);
        assert_eq!(clock.parse("2026-11-22T01:00:00"), Ok(1_795_305_600_000_000));
        assert_eq!(clock.parse("2026-11-22T00:00:00Z"), Ok(1_795_305_600_000_000));
    }
}
