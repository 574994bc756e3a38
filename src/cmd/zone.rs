//! The time zone in which times are given and shown. Pure, but for the system's time zone.

use chrono::{DateTime, FixedOffset, Local, NaiveDate, Offset, SecondsFormat, TimeDelta, TimeZone, Utc};

use crate::iri::date::{self, DateError, Format, Rounding};

/// A time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// The system's, or that of the variable TZ; with summer time where there is one.
    Local,
    /// So far from UTC.
    Fixed(FixedOffset),
}

impl Zone {
    /// `local`, `utc`, `Z`, `+01:00`.
    pub fn parse(text: &str) -> Result<Zone, String> {
        if text.eq_ignore_ascii_case("local") {
            return Ok(Zone::Local);
        }
        let text = if text.eq_ignore_ascii_case("utc") { "UTC" } else { text };
        let refused = || "write local, utc, or an offset like +01:00".to_owned();
        let minutes = date::zone_minutes(text).map_err(|_| refused())?;
        FixedOffset::east_opt(minutes * 60).map(Zone::Fixed).ok_or_else(refused)
    }

    /// The instant that a text means: a span back from now, a time, a date, or date math.
    pub fn read(self, text: &str, now_ms: i64) -> Result<i64, DateError> {
        let is_span = text.ends_with(['s', 'm', 'h', 'd', 'w'])
            && text[..text.len() - 1].bytes().all(|byte| byte.is_ascii_digit());
        if is_span {
            return date::since(text, now_ms);
        }
        let read = |zone_minutes| {
            let date = date::instant(text, &Format::default(), now_ms, zone_minutes, Rounding::Down);
            date.map_err(|_| DateError::Span(text.chars().take(date::DATE_BYTES_MAX).collect()))
        };
        // Summer time: the offset is that of the date which the offset helps to find.
        let near = read(self.offset(now_ms).local_minus_utc() / 60)?;
        read(self.offset(near).local_minus_utc() / 60)
    }

    fn offset(self, ms: i64) -> FixedOffset {
        match self {
            Zone::Fixed(offset) => offset,
            Zone::Local => Local.offset_from_utc_datetime(&utc(ms).naive_utc()).fix(),
        }
    }

    /// RFC 3339 with milliseconds; UTC with `Z`.
    pub fn show(self, ms: i64) -> String {
        self.at(ms).to_rfc3339_opts(SecondsFormat::Millis, true)
    }

    /// The same with microseconds.
    pub fn show_us(self, us: i64) -> String {
        let within = TimeDelta::microseconds(us.rem_euclid(1_000));
        let at = self.at(us.div_euclid(1_000));
        at.checked_add_signed(within).unwrap_or(at).to_rfc3339_opts(SecondsFormat::Micros, true)
    }

    /// Minutes east of UTC at a time.
    pub fn offset_minutes(self, ms: i64) -> i32 {
        self.offset(ms).local_minus_utc() / 60
    }

    /// The day.
    pub fn day(self, ms: i64) -> NaiveDate {
        self.at(ms).date_naive()
    }

    fn at(self, ms: i64) -> DateTime<FixedOffset> {
        utc(ms).with_timezone(&self.offset(ms))
    }
}

/// Times beyond what a calendar has are its ends.
fn utc(ms: i64) -> DateTime<Utc> {
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
        let zone = Zone::parse(zone).unwrap();
        let read = zone.read(text, NOW_MS).map(|ms| zone.show(ms)).map_err(|error| error.to_string());
        assert_eq!(read, Ok(expected.to_owned()), "{text}");
    }

    #[test]
    fn spans_and_dates() {
        check_read("utc", "2d", "2026-11-20T00:00:00.000Z");
        check_read("utc", "90s", "2026-11-21T23:58:30.000Z");
        check_read("utc", "2026-11-21", "2026-11-21T00:00:00.000Z");
        check_read("+01:00", "2026-11-21", "2026-11-21T00:00:00.000+01:00");
        check_read("+01:00", "2026-11-21T12:00:00Z", "2026-11-21T13:00:00.000+01:00");
        check_read("-03:00", "now/d", "2026-11-21T00:00:00.000-03:00");
        for wrong in ["", "d", "yesterday", "2x", "99999999999999999999d", "2026-13-01"] {
            assert!(Zone::Local.read(wrong, NOW_MS).is_err(), "{wrong}");
        }
    }

    #[test]
    fn days_begin_in_the_zone() {
        let day = |zone: &str, ms| Zone::parse(zone).unwrap().day(ms).to_string();
        assert_eq!(day("utc", NOW_MS - 1), "2026-11-21");
        assert_eq!(day("+00:01", NOW_MS - 1), "2026-11-22");
        assert_eq!(day("-00:01", NOW_MS), "2026-11-21");
    }

    #[test]
    fn microseconds_are_shown() {
        let zone = Zone::parse("+01:00").unwrap();
        assert_eq!(zone.show_us(NOW_MS * 1_000 + 1), "2026-11-22T01:00:00.000001+01:00");
        assert_eq!(zone.offset_minutes(NOW_MS), 60);
    }

    #[test]
    fn zones() {
        for wrong in ["", "Mars", "+25:99", "1"] {
            assert!(Zone::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Zone::parse("Local"), Ok(Zone::Local));
        for ms in [i64::MIN, i64::MAX] {
            assert!(!Zone::Local.show(ms).is_empty() && !Zone::Local.show_us(ms).is_empty());
        }
    }
}
