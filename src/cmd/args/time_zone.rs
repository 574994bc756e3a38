//! The time zone for reading and formatting times. Pure, except that `Local` reads the system's time zone, and
//! [`TimeZoneArg::parse_since`] the clock.

use chrono::{DateTime, FixedOffset, Local, NaiveDate, Offset, SecondsFormat, TimeDelta, TimeZone, Utc};

use crate::runtime::time::{now_ms, rfc3339_with_offset};
use crate::search::date::{self, DateError, DateFormat, Rounding};
use crate::{Error, Result};

/// A time zone given as an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeZoneArg {
    /// The time zone of the system or of the variable TZ, with daylight saving time.
    Local,
    /// A fixed offset from UTC.
    Fixed(FixedOffset),
}

impl TimeZoneArg {
    /// Parses `local`, `utc`, `Z` or `+01:00`.
    pub(crate) fn parse(text: &str) -> Result<TimeZoneArg, String> {
        if text.eq_ignore_ascii_case("local") {
            return Ok(TimeZoneArg::Local);
        }
        let text = if text.eq_ignore_ascii_case("utc") { "UTC" } else { text };
        let refused = || "expected local, utc, or an offset like +01:00".to_owned();
        let minutes = date::parse_zone_minutes(text).map_err(|_| refused())?;
        FixedOffset::east_opt(minutes * 60).map(TimeZoneArg::Fixed).ok_or_else(refused)
    }

    /// Parses a time: a duration before now (`2h`), `yesterday`, `today`, `now`, a timestamp, a date, or date math
    /// (`now-1d/d`).
    pub(crate) fn parse_time(self, text: &str, now_ms: i64) -> Result<i64, DateError> {
        let text = date::day_word(text).unwrap_or(text);
        let is_span = text.ends_with(['s', 'm', 'h', 'd', 'w'])
            && text[..text.len() - 1].bytes().all(|byte| byte.is_ascii_digit());
        if is_span {
            return date::parse_since(text, now_ms);
        }
        let read = |zone_minutes| {
            let date =
                date::parse_instant(text, &DateFormat::default(), now_ms, zone_minutes, Rounding::Down);
            date.map_err(|_| DateError::Span(text.chars().take(date::DATE_BYTES_MAX).collect()))
        };
        // Daylight saving time: the offset depends on the date, and the date on the offset. Two passes settle both.
        let near = read(self.offset(now_ms).local_minus_utc() / 60)?;
        read(self.offset(near).local_minus_utc() / 60)
    }

    /// Parses the value of `--since`, relative to now. Milliseconds since 1970.
    pub(crate) fn parse_since(self, text: &str) -> Result<i64> {
        let since = self.parse_time(text, now_ms());
        since.map_err(|error| Error::Usage(format!("--since: {error}")))
    }

    fn offset(self, ms: i64) -> FixedOffset {
        match self {
            TimeZoneArg::Fixed(offset) => offset,
            TimeZoneArg::Local => Local.offset_from_utc_datetime(&clamped_utc(ms).naive_utc()).fix(),
        }
    }

    /// Formats as RFC 3339 with milliseconds; UTC is `Z`.
    pub(crate) fn format_ms(self, ms: i64) -> String {
        rfc3339_with_offset(&self.local_time(ms))
    }

    /// Formats as RFC 3339 with microseconds.
    pub(crate) fn format_us(self, us: i64) -> String {
        let within = TimeDelta::microseconds(us.rem_euclid(1_000));
        let at = self.local_time(us.div_euclid(1_000));
        at.checked_add_signed(within).unwrap_or(at).to_rfc3339_opts(SecondsFormat::Micros, true)
    }

    /// Returns the offset at a time, in minutes east of UTC.
    pub(crate) fn offset_minutes(self, ms: i64) -> i32 {
        self.offset(ms).local_minus_utc() / 60
    }

    /// Returns the date of a time.
    pub(crate) fn day(self, ms: i64) -> NaiveDate {
        self.local_time(ms).date_naive()
    }

    fn local_time(self, ms: i64) -> DateTime<FixedOffset> {
        clamped_utc(ms).with_timezone(&self.offset(ms))
    }
}

/// Converts to UTC; times outside the calendar's range are clamped.
fn clamped_utc(ms: i64) -> DateTime<Utc> {
    const DAY_MS: i64 = 86_400_000;
    let least = DateTime::<Utc>::MIN_UTC.timestamp_millis() + DAY_MS;
    let most = DateTime::<Utc>::MAX_UTC.timestamp_millis() - DAY_MS;
    DateTime::from_timestamp_millis(ms.clamp(least, most)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_795_305_600_000; // 2026-11-22T00:00:00Z

    fn check_read(zone: &str, text: &str, expected: &str) {
        let zone = TimeZoneArg::parse(zone).unwrap();
        let read =
            zone.parse_time(text, NOW_MS).map(|ms| zone.format_ms(ms)).map_err(|error| error.to_string());
        assert_eq!(read, Ok(expected.to_owned()), "{text}");
    }

    #[test]
    fn durations_dates_and_date_math_are_parsed() {
        check_read("utc", "2d", "2026-11-20T00:00:00.000Z");
        check_read("utc", "90s", "2026-11-21T23:58:30.000Z");
        check_read("utc", "2026-11-21", "2026-11-21T00:00:00.000Z");
        check_read("+01:00", "2026-11-21", "2026-11-21T00:00:00.000+01:00");
        check_read("+01:00", "2026-11-21T12:00:00Z", "2026-11-21T13:00:00.000+01:00");
        check_read("-03:00", "now/d", "2026-11-21T00:00:00.000-03:00");
        check_read("utc", "now", "2026-11-22T00:00:00.000Z");
        check_read("utc", "today", "2026-11-22T00:00:00.000Z");
        check_read("-03:00", "today", "2026-11-21T00:00:00.000-03:00");
        check_read("-03:00", "yesterday", "2026-11-20T00:00:00.000-03:00");
        check_read("+01:00", "yesterday", "2026-11-21T00:00:00.000+01:00");
        check_read("+01:00", "tomorrow", "2026-11-23T00:00:00.000+01:00");
        for wrong in ["", "d", "Yesterday", "todays", "2x", "99999999999999999999d", "2026-13-01"] {
            assert!(TimeZoneArg::Local.parse_time(wrong, NOW_MS).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_day_starts_at_midnight_of_the_zone() {
        let day = |zone: &str, ms| TimeZoneArg::parse(zone).unwrap().day(ms).to_string();
        assert_eq!(day("utc", NOW_MS - 1), "2026-11-21");
        assert_eq!(day("+00:01", NOW_MS - 1), "2026-11-22");
        assert_eq!(day("-00:01", NOW_MS), "2026-11-21");
    }

    #[test]
    fn microseconds_are_formatted() {
        let zone = TimeZoneArg::parse("+01:00").unwrap();
        assert_eq!(zone.format_us(NOW_MS * 1_000 + 1), "2026-11-22T01:00:00.000001+01:00");
        assert_eq!(zone.offset_minutes(NOW_MS), 60);
    }

    #[test]
    fn only_zones_are_parsed() {
        for wrong in ["", "Mars", "+25:99", "1"] {
            assert!(TimeZoneArg::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(TimeZoneArg::parse("Local"), Ok(TimeZoneArg::Local));
        for ms in [i64::MIN, i64::MAX] {
            assert!(
                !TimeZoneArg::Local.format_ms(ms).is_empty() && !TimeZoneArg::Local.format_us(ms).is_empty()
            );
        }
    }
}
