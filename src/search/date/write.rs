//! Writes dates in the format of their field. Pure.

use std::fmt::Write as _;

use chrono::{DateTime, Datelike, FixedOffset, Timelike};

use super::TimeZone;
use super::format::{snake_case, written_pattern};
use crate::runtime::time::rfc3339_with_offset;

/// Writes dates in one format and one time zone.
#[derive(Clone, Debug)]
pub(crate) struct DateWriter {
    zone: TimeZone,
    form: DateForm,
}

#[derive(Clone, Debug)]
enum DateForm {
    /// `2026-11-22T20:59:41.000Z`
    Iso,
    Millis,
    Seconds,
    /// A pattern in the syntax of Java's `DateTimeFormatter`.
    Pattern(String),
}

impl DateWriter {
    /// Creates a writer for the first of a field's formats. `None` is the default of Elasticsearch.
    pub(crate) fn new(format: Option<&str>, zone: TimeZone) -> DateWriter {
        let first = format.unwrap_or_default().split("||").next().unwrap_or_default();
        let form = match snake_case(first).as_ref() {
            "epoch_millis" => DateForm::Millis,
            "epoch_second" => DateForm::Seconds,
            "" => DateForm::Iso,
            name if name.ends_with("date_optional_time") => DateForm::Iso,
            other => DateForm::Pattern(written_pattern(other).unwrap_or_else(|| other.to_owned())),
        };
        DateWriter { zone, form }
    }

    /// Returns the text of a date given in milliseconds since 1970.
    pub(crate) fn write(&self, ms: i64) -> String {
        let Some(date) = DateTime::from_timestamp_millis(ms) else { return ms.to_string() };
        let date = date.with_timezone(&self.zone.offset_at(ms));
        match &self.form {
            DateForm::Iso => rfc3339_with_offset(&date),
            DateForm::Millis => ms.to_string(),
            DateForm::Seconds => ms.div_euclid(1000).to_string(),
            DateForm::Pattern(pattern) => write_by_pattern(pattern, &date),
        }
    }
}

fn write_by_pattern(pattern: &str, date: &DateTime<FixedOffset>) -> String {
    let mut out = String::new();
    let mut rest = pattern.chars().peekable();
    while let Some(letter) = rest.next() {
        let mut count = 1;
        if letter == '\'' {
            // Two quotes in a row mean one quote; text between single quotes is literal.
            if rest.next_if_eq(&'\'').is_some() {
                out.push('\'');
                continue;
            }
            out.extend(rest.by_ref().take_while(|letter| *letter != '\''));
            continue;
        }
        while rest.next_if_eq(&letter).is_some() {
            count += 1;
        }
        write_field(&mut out, letter, count, date);
    }
    out
}

/// Writes the value for a run of one pattern letter.
fn write_field(out: &mut String, letter: char, count: usize, date: &DateTime<FixedOffset>) {
    let value = match letter {
        'y' | 'u' if count == 2 => i64::from(date.year().rem_euclid(100)),
        'y' | 'u' => i64::from(date.year()),
        'M' if count >= 3 => {
            let _ = write!(out, "{}", date.format(if count == 3 { "%b" } else { "%B" }));
            return;
        }
        'E' => {
            let _ = write!(out, "{}", date.format(if count <= 3 { "%a" } else { "%A" }));
            return;
        }
        'M' => i64::from(date.month()),
        'd' => i64::from(date.day()),
        'H' => i64::from(date.hour()),
        'm' => i64::from(date.minute()),
        's' => i64::from(date.second()),
        'S' => {
            let digits = format!("{:09}", date.nanosecond() % 1_000_000_000);
            out.push_str(&digits[..count.min(9)]);
            return;
        }
        'Z' | 'X' | 'x' => {
            let zero = date.offset().local_minus_utc() == 0 && letter == 'X';
            let form = if count == 3 || count == 5 { "%:z" } else { "%z" };
            let _ = match zero {
                true => write!(out, "Z"),
                false => write!(out, "{}", date.format(form)),
            };
            return;
        }
        other => {
            out.extend(std::iter::repeat_n(other, count));
            return;
        }
    };
    let _ = write!(out, "{value:0count$}");
}

#[cfg(test)]
mod tests {
    use super::{DateWriter, TimeZone};

    /// 2026-11-22T20:59:41.007Z
    const MS: i64 = 1_795_381_181_007;

    #[track_caller]
    fn check(format: Option<&str>, zone_minutes: i32, expected: &str) {
        assert_eq!(DateWriter::new(format, TimeZone::Offset(zone_minutes)).write(MS), expected, "{format:?}");
    }

    #[test]
    fn dates_are_written_in_the_format_of_their_field() {
        check(None, 0, "2026-11-22T20:59:41.007Z");
        check(None, 120, "2026-11-22T22:59:41.007+02:00");
        check(Some("strict_date_optional_time||epoch_millis"), 0, "2026-11-22T20:59:41.007Z");
        check(Some("epoch_millis"), 0, "1795381181007");
        check(Some("epoch_second"), 0, "1795381181");
        check(Some("yyyy-MM-dd HH:mm:ssZ||epoch_millis"), 0, "2026-11-22 20:59:41+0000");
        check(Some("yyyy-MM-dd'T'HH:mm:ss.SSSXXX"), -180, "2026-11-22T17:59:41.007-03:00");
        check(Some("yyyy/MM/dd HH:mm:ss"), 0, "2026/11/22 20:59:41");
        check(Some("d MMM yy"), 0, "22 Nov 26");
        check(Some("date"), 0, "2026-11-22");
        check(Some("strict_date_time"), 120, "2026-11-22T22:59:41.007+02:00");
        check(Some("basic_date_time_no_millis"), 0, "20261122T205941Z");
    }
}
