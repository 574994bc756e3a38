//! Division of time into buckets. Pure.

use chrono::{Datelike, Days, Months, NaiveDate, NaiveDateTime, NaiveTime};

use super::super::values::HOUR_MS;
use crate::search::date::TimeZone;
use crate::search::query::aggregations::Interval;

/// Division of time into buckets.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeGrid {
    pub interval: Interval,
    pub zone: TimeZone,
    /// Shift of the start of each bucket.
    pub offset_ms: i64,
}

impl TimeGrid {
    /// Tells whether each hour may lie in one bucket. With a named zone each hour has to be checked.
    pub(super) fn may_have_whole_hours(self) -> bool {
        let is_whole = match self.interval {
            Interval::Fixed(ms) => ms % HOUR_MS == 0,
            Interval::Second | Interval::Minute => false,
            _ => true,
        };
        let has_whole_zone = match self.zone {
            TimeZone::Offset(minutes) => minutes % 60 == 0,
            TimeZone::Named(_) => true,
        };
        is_whole && has_whole_zone && self.offset_ms % HOUR_MS == 0
    }

    /// Tells whether an hour since 1970 lies in one bucket.
    pub(super) fn has_whole_hour(self, hour: i64) -> bool {
        let start = hour.saturating_mul(HOUR_MS);
        matches!(self.zone, TimeZone::Offset(_))
            || self.bucket_start(start) == self.bucket_start(start.saturating_add(HOUR_MS - 1))
    }

    /// Returns the start of the bucket that contains a time.
    pub(super) fn bucket_start(self, at_ms: i64) -> i64 {
        self.round_down(at_ms.saturating_sub(self.offset_ms)).saturating_add(self.offset_ms)
    }

    fn round_down(self, at_ms: i64) -> i64 {
        let zone_ms = self.zone.offset_ms(at_ms);
        let unit_ms = match self.interval {
            Interval::Fixed(ms) => ms.max(1),
            Interval::Second => 1000,
            Interval::Minute => 60_000,
            Interval::Hour => HOUR_MS,
            calendar => {
                let day = self.zone.to_local(at_ms).map(|local| local.date());
                let start = day.and_then(|day| first_day_of(calendar, day)).map(midnight);
                return start.and_then(|start| self.zone.to_utc(start)).unwrap_or(at_ms);
            }
        };
        let local = at_ms.saturating_add(zone_ms);
        let rounded = local - local.rem_euclid(unit_ms);
        if let (Interval::Fixed(_), TimeZone::Named(_)) = (self.interval, self.zone)
            && let Some(start) = naive(rounded).and_then(|local| self.zone.to_utc(local))
            && start <= at_ms
        {
            return start;
        }
        rounded.saturating_sub(zone_ms)
    }

    /// Returns the start of the next bucket.
    pub(super) fn next_bucket_start(self, start_ms: i64) -> Option<i64> {
        let start = start_ms.checked_sub(self.offset_ms)?;
        let plain = |ms: i64| start.checked_add(ms);
        let next = match self.interval {
            Interval::Fixed(ms) => match self.zone {
                TimeZone::Offset(_) => plain(ms.max(1)),
                TimeZone::Named(_) => {
                    let local = start.checked_add(self.zone.offset_ms(start))?.checked_add(ms.max(1))?;
                    // A change of the clock can make two starts equal.
                    self.zone.to_utc(naive(local)?).filter(|next| *next > start).or_else(|| plain(ms.max(1)))
                }
            },
            Interval::Second => plain(1000),
            Interval::Minute => plain(60_000),
            Interval::Hour => plain(HOUR_MS),
            calendar => {
                let day = self.zone.to_local(start)?.date();
                let next = match calendar {
                    Interval::Day => day.checked_add_days(Days::new(1)),
                    Interval::Week => day.checked_add_days(Days::new(7)),
                    Interval::Quarter => day.checked_add_months(Months::new(3)),
                    Interval::Year => day.checked_add_months(Months::new(12)),
                    _ => day.checked_add_months(Months::new(1)),
                };
                self.zone.to_utc(midnight(next?))
            }
        };
        next?.checked_add(self.offset_ms)
    }
}

fn naive(local_ms: i64) -> Option<NaiveDateTime> {
    Some(chrono::DateTime::from_timestamp_millis(local_ms)?.naive_utc())
}

fn midnight(day: NaiveDate) -> NaiveDateTime {
    day.and_time(NaiveTime::MIN)
}

fn first_day_of(interval: Interval, day: NaiveDate) -> Option<NaiveDate> {
    match interval {
        Interval::Week => day.checked_sub_days(Days::new(u64::from(day.weekday().num_days_from_monday()))),
        Interval::Month => day.with_day(1),
        Interval::Quarter => day.with_day(1)?.with_month((day.month0() / 3) * 3 + 1),
        Interval::Year => day.with_day(1)?.with_month(1),
        _ => Some(day),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utc(text: &str) -> i64 {
        chrono::DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis()
    }

    #[track_caller]
    fn check(interval: Interval, zone: &str, offset_ms: i64, at: &str, start: &str, next: &str) {
        let grid = TimeGrid { interval, zone: TimeZone::parse(zone).unwrap(), offset_ms };
        let found = grid.bucket_start(utc(at));
        assert_eq!(found, utc(start), "{interval:?} {zone} {at}");
        assert_eq!(grid.next_bucket_start(found), Some(utc(next)), "{interval:?} {zone} {at}");
    }

    #[test]
    fn buckets_start_where_elasticsearch_starts_them() {
        let day = Interval::Day;
        check(day, "UTC", 0, "2026-11-22T20:59:41Z", "2026-11-22T00:00:00Z", "2026-11-23T00:00:00Z");
        check(day, "-03:00", 0, "2026-11-22T01:00:00Z", "2026-11-21T03:00:00Z", "2026-11-22T03:00:00Z");
        check(
            day,
            "UTC",
            6 * HOUR_MS,
            "2016-04-12T01:00:00Z",
            "2016-04-11T06:00:00Z",
            "2016-04-12T06:00:00Z",
        );
        // Days of 25 and 23 hours.
        check(
            day,
            "Europe/Berlin",
            0,
            "2026-10-25T12:00:00Z",
            "2026-10-24T22:00:00Z",
            "2026-10-25T23:00:00Z",
        );
        check(
            day,
            "Europe/Berlin",
            0,
            "2026-03-29T12:00:00Z",
            "2026-03-28T23:00:00Z",
            "2026-03-29T22:00:00Z",
        );
        let month = Interval::Month;
        check(
            month,
            "Europe/Berlin",
            0,
            "2026-03-31T23:00:00Z",
            "2026-03-31T22:00:00Z",
            "2026-04-30T22:00:00Z",
        );
        check(
            Interval::Week,
            "UTC",
            0,
            "2026-11-22T20:00:00Z",
            "2026-11-16T00:00:00Z",
            "2026-11-23T00:00:00Z",
        );
        check(
            Interval::Quarter,
            "UTC",
            0,
            "2026-11-22T20:00:00Z",
            "2026-10-01T00:00:00Z",
            "2027-01-01T00:00:00Z",
        );
        check(
            Interval::Year,
            "UTC",
            0,
            "2026-11-22T20:00:00Z",
            "2026-01-01T00:00:00Z",
            "2027-01-01T00:00:00Z",
        );
        let fixed = Interval::Fixed(36 * HOUR_MS);
        check(
            fixed,
            "Europe/Berlin",
            0,
            "2016-04-11T17:02:07Z",
            "2016-04-10T22:00:00Z",
            "2016-04-12T10:00:00Z",
        );
        check(
            Interval::Hour,
            "+05:30",
            0,
            "2026-11-22T20:59:41Z",
            "2026-11-22T20:30:00Z",
            "2026-11-22T21:30:00Z",
        );
    }
}
