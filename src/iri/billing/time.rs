//! Times of rows: seconds since 1970 or a date's text, to the microsecond. Pure.

use std::fmt;

use super::super::date::{Format, Rounding};

/// Texts that are dates; `strict_date_optional_time` has the rest.
const DATES: &str = "strict_date_optional_time||yyyy-MM-dd HH:mm:ss||yyyy-MM-dd HH:mm:ssXX||yyyy-MM-dd HH:mm:ssXXX||\
                     yyyy/MM/dd HH:mm:ss||yyyy/MM/dd HH:mm:ssXX";

/// A number of milliseconds from here on: as seconds it would be the year 5138.
const MILLIS_FROM: i64 = 100_000_000_000;

/// A number of microseconds from here on.
const MICROS_FROM: i64 = 100_000_000_000_000;

/// Times before and after are no times of calls; and sums of spans between them fit.
const SECONDS_MAX: i64 = 253_402_300_799;

/// Reads times; knows the zone of those that name none.
pub struct Clock {
    format: Format,
    /// Minutes east of UTC at a time in milliseconds.
    zone_minutes: Box<dyn Fn(i64) -> i32 + Send + Sync>,
}

/// A text that is no time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoTime;

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").finish_non_exhaustive()
    }
}

impl Clock {
    /// Texts without a zone are in this one: minutes east of UTC at a time in milliseconds.
    pub fn new(zone_minutes: impl Fn(i64) -> i32 + Send + Sync + 'static) -> Clock {
        let format = Format::parse(DATES).expect("the formats are our own, and tests read them");
        Clock { format, zone_minutes: Box::new(zone_minutes) }
    }

    /// Texts without a zone are UTC.
    pub fn utc() -> Clock {
        Clock::new(|_| 0)
    }

    /// Seconds since 1970, with or without a fraction; milliseconds or microseconds where the number can be nothing else;
    /// a date's text.
    pub fn read(&self, text: &str) -> Result<i64, NoTime> {
        let text = text.trim();
        let us = match number(text) {
            Some(us) => us,
            None => self.date(text)?,
        };
        let is_time = (0..=SECONDS_MAX * 1_000_000).contains(&us);
        if is_time { Ok(us) } else { Err(NoTime) }
    }

    /// Dates are read without their fraction, which is finer than milliseconds.
    fn date(&self, text: &str) -> Result<i64, NoTime> {
        let point = text.find(['.', ',']).filter(|at| text[..*at].contains(':'));
        let (whole, fraction) = match point {
            None => (text.to_owned(), 0),
            Some(at) => {
                let digits = text[at + 1..].bytes().take_while(u8::is_ascii_digit).count();
                let (fraction, zone) = text[at + 1..].split_at(digits);
                (format!("{}{zone}", &text[..at]), micros(fraction).ok_or(NoTime)?)
            }
        };
        let read = |zone| self.format.read(&whole, zone, Rounding::Down).map_err(|_| NoTime);
        // Summer time: the offset is that of the date which the offset helps to find.
        let near = read((self.zone_minutes)(read(0)?))?;
        let ms = read((self.zone_minutes)(near))?;
        ms.checked_mul(1_000).and_then(|us| us.checked_add(fraction)).ok_or(NoTime)
    }
}

/// A number, read digit by digit: a double would round it.
fn number(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(whole, rest)| (whole, Some(rest)));
    if whole.is_empty() || !whole.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let whole: i64 = whole.parse().ok()?;
    match fraction {
        Some(fraction) => whole.checked_mul(1_000_000)?.checked_add(micros(fraction)?),
        None if whole >= MICROS_FROM => Some(whole),
        None if whole >= MILLIS_FROM => whole.checked_mul(1_000),
        None => whole.checked_mul(1_000_000),
    }
}

/// The microseconds of a fraction's digits; finer ones are cut off.
fn micros(digits: &str) -> Option<i64> {
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
        assert_eq!(Clock::utc().read(text).ok(), expected, "{text}");
    }

    #[test]
    fn numbers() {
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
    fn dates() {
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
    fn a_text_without_a_zone_is_in_the_clocks() {
        let clock = Clock::new(|_| 60);
        assert_eq!(clock.read("2026-11-22T01:00:00"), Ok(1_795_305_600_000_000));
        assert_eq!(clock.read("2026-11-22T00:00:00Z"), Ok(1_795_305_600_000_000));
    }
}
