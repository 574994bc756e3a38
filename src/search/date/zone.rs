//! Time zones: offsets, and names of the IANA database (`Europe/Berlin`). Pure code.

use chrono::{DateTime, FixedOffset, LocalResult, NaiveDateTime, Offset, TimeDelta, TimeZone as _};

use super::{DATE_BYTES_MAX, DateError, format};

/// A time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeZone {
    /// Minutes east of UTC.
    Offset(i32),
    /// A zone of the IANA database, whose offset changes.
    Named(chrono_tz::Tz),
}

impl Default for TimeZone {
    fn default() -> TimeZone {
        TimeZone::UTC
    }
}

/// Minutes east of UTC.
impl From<i32> for TimeZone {
    fn from(minutes: i32) -> TimeZone {
        TimeZone::Offset(minutes)
    }
}

impl TimeZone {
    pub const UTC: TimeZone = TimeZone::Offset(0);

    /// Parses `Z`, `UTC`, `+01:00`, `-0300`, `+01`, `UTC+01:00` or a name of the IANA database.
    pub fn parse(text: &str) -> Result<TimeZone, DateError> {
        let rejected = || DateError::Zone(text.chars().take(DATE_BYTES_MAX).collect());
        let offset = ["UTC", "GMT", "UT"].iter().find_map(|name| text.strip_prefix(name));
        match offset.unwrap_or(text) {
            "" if !text.is_empty() => Ok(TimeZone::UTC),
            "Z" if offset.is_none() => Ok(TimeZone::UTC),
            offset => match format::parse_offset_seconds(offset) {
                Some(seconds) if seconds % 60 == 0 => Ok(TimeZone::Offset(seconds / 60)),
                Some(_) => Err(rejected()),
                None => text.parse().map(TimeZone::Named).map_err(|_| rejected()),
            },
        }
    }

    /// Returns true if the zone is UTC.
    pub fn is_utc(self) -> bool {
        self == TimeZone::UTC
    }

    /// Returns the name that Elasticsearch understands: `+05:30` or `Europe/Berlin`.
    pub fn name(self) -> String {
        match self {
            TimeZone::Named(zone) => zone.name().to_owned(),
            TimeZone::Offset(minutes) => {
                let sign = if minutes < 0 { '-' } else { '+' };
                let minutes = minutes.unsigned_abs();
                format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
            }
        }
    }

    /// Returns the offset at an instant, in milliseconds east of UTC.
    pub fn offset_ms(self, utc_ms: i64) -> i64 {
        match self {
            TimeZone::Offset(minutes) => i64::from(minutes) * 60_000,
            TimeZone::Named(_) => i64::from(self.offset_at(utc_ms).local_minus_utc()) * 1000,
        }
    }

    /// Returns the offset at an instant.
    pub fn offset_at(self, utc_ms: i64) -> FixedOffset {
        let utc = FixedOffset::east_opt(0).expect("0 is a valid offset");
        match self {
            TimeZone::Offset(minutes) => FixedOffset::east_opt(minutes.saturating_mul(60)).unwrap_or(utc),
            TimeZone::Named(zone) => DateTime::from_timestamp_millis(utc_ms)
                .map_or(utc, |time| zone.offset_from_utc_datetime(&time.naive_utc()).fix()),
        }
    }

    /// Converts an instant to local time.
    pub fn to_local(self, utc_ms: i64) -> Option<NaiveDateTime> {
        let local = utc_ms.checked_add(self.offset_ms(utc_ms))?;
        Some(DateTime::from_timestamp_millis(local)?.naive_utc())
    }

    /// Converts local time to an instant. A time that exists twice is the first one; a time that a change of the
    /// clock skips is the instant of the change.
    pub fn to_utc(self, local: NaiveDateTime) -> Option<i64> {
        let TimeZone::Named(zone) = self else {
            return local.and_utc().timestamp_millis().checked_sub(self.offset_ms(0));
        };
        match zone.from_local_datetime(&local) {
            LocalResult::Single(time) | LocalResult::Ambiguous(time, _) => Some(time.timestamp_millis()),
            LocalResult::None => {
                // The clock skips at most a day.
                let before =
                    zone.from_local_datetime(&local.checked_sub_signed(TimeDelta::days(1))?).earliest()?;
                let mut low = before.timestamp();
                let mut high = low + 2 * 86_400;
                let offset = self.offset_ms(low * 1000);
                while low + 1 < high {
                    let middle = low + (high - low) / 2;
                    if self.offset_ms(middle * 1000) == offset { low = middle } else { high = middle }
                }
                Some(high * 1000)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utc(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis()
    }

    #[test]
    fn zones_are_parsed_and_named() {
        for (text, name) in [
            ("Z", "+00:00"),
            ("UTC", "+00:00"),
            ("+05:30", "+05:30"),
            ("-0300", "-03:00"),
            ("+1", "+01:00"),
            ("UTC+01:00", "+01:00"),
            ("Europe/Berlin", "Europe/Berlin"),
        ] {
            assert_eq!(TimeZone::parse(text).unwrap().name(), name, "{text}");
        }
        for wrong in ["", "Foo/Bar", "+25:00", "berlin"] {
            assert!(TimeZone::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn local_times_are_converted_at_changes_of_the_clock() {
        let berlin = TimeZone::parse("Europe/Berlin").unwrap();
        let local = |text: &str| NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S").unwrap();
        for (text, instant) in [
            ("2026-01-01T00:00:00", "2025-12-31T23:00:00Z"),
            ("2026-07-01T00:00:00", "2026-06-30T22:00:00Z"),
            // Exists twice.
            ("2026-10-25T02:30:00", "2026-10-25T00:30:00Z"),
            // Does not exist.
            ("2026-03-29T02:30:00", "2026-03-29T01:00:00Z"),
        ] {
            assert_eq!(berlin.to_utc(local(text)), Some(utc(instant)), "{text}");
        }
        let summer = utc("2026-07-01T00:00:00Z");
        assert_eq!(berlin.to_local(summer), Some(local("2026-07-01T02:00:00")));
        assert_eq!(TimeZone::Offset(-180).to_utc(local("2026-07-01T00:00:00")), Some(summer + 3 * 3_600_000));
    }
}
