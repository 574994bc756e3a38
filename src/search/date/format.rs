//! Date formats: compiles names and patterns to steps, and parses dates with them. Pure code.

use std::borrow::Cow;

use chrono::{Datelike, NaiveDate, NaiveTime, Weekday};

use super::{DATE_BYTES_MAX, DateError, Rounding, TimeZone};

/// Date formats, tried in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DateFormat {
    /// The format as it was written.
    text: String,
    alternatives: Vec<FormatAlternative>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum FormatAlternative {
    EpochMillis,
    EpochSecond,
    Pattern(Vec<FormatStep>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum FormatStep {
    Literal(char),
    /// A number, with its minimum and maximum number of digits.
    Number(DatePart, usize, usize),
    /// The last two digits of a year from 2000 on.
    YearShort,
    /// Fraction of a second, with its minimum and maximum number of digits.
    Fraction(usize, usize),
    /// `.` or `,`
    Point,
    MonthName(bool),
    DayName(bool),
    AmPm,
    Offset(OffsetStyle),
    Optional(Vec<FormatStep>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DatePart {
    Year,
    Month,
    Day,
    DayOfYear,
    Hour,
    HourOfHalf,
    Minute,
    Second,
}

/// The accepted spellings of a UTC offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OffsetStyle {
    zulu: bool,
    /// `+01`
    hours: bool,
    /// `+0100`
    bare: bool,
    /// `+01:00`
    colon: bool,
}

/// The parts of a date that have been parsed.
#[derive(Clone, Debug, Default)]
struct ParsedDate {
    numbers: [Option<u32>; 8],
    nanos: Option<u32>,
    afternoon: Option<bool>,
    weekday: Option<Weekday>,
    offset_seconds: Option<i32>,
}

/// Elasticsearch's format names without `strict_`. Two letters extend Java's patterns: `f` is a decimal
/// separator and a fraction of any length, `i` is an offset in any ISO 8601 spelling. Without `strict_`,
/// numbers can have fewer digits than the pattern has letters.
const NAMED_FORMATS: [(&str, &str); 33] = [
    ("date_optional_time", "yyyy[-MM[-dd['T'[HH[:mm[:ss[f]]][i]]]]]"),
    ("date_optional_time_nanos", "yyyy[-MM[-dd['T'[HH[:mm[:ss[f]]][i]]]]]"),
    ("date_time", "yyyy-MM-dd'T'HH:mm:ssfi"),
    ("date_time_no_millis", "yyyy-MM-dd'T'HH:mm:ssi"),
    ("date", "yyyy-MM-dd"),
    ("date_hour", "yyyy-MM-dd'T'HH"),
    ("date_hour_minute", "yyyy-MM-dd'T'HH:mm"),
    ("date_hour_minute_second", "yyyy-MM-dd'T'HH:mm:ss"),
    ("date_hour_minute_second_fraction", "yyyy-MM-dd'T'HH:mm:ssf"),
    ("date_hour_minute_second_millis", "yyyy-MM-dd'T'HH:mm:ssf"),
    ("year_month_day", "yyyy-MM-dd"),
    ("year_month", "yyyy-MM"),
    ("year", "yyyy"),
    ("ordinal_date", "yyyy-DDD"),
    ("ordinal_date_time", "yyyy-DDD'T'HH:mm:ssfi"),
    ("ordinal_date_time_no_millis", "yyyy-DDD'T'HH:mm:ssi"),
    ("time", "HH:mm:ssfi"),
    ("time_no_millis", "HH:mm:ssi"),
    ("hour", "HH"),
    ("hour_minute", "HH:mm"),
    ("hour_minute_second", "HH:mm:ss"),
    ("hour_minute_second_fraction", "HH:mm:ssf"),
    ("hour_minute_second_millis", "HH:mm:ssf"),
    ("t_time", "'T'HH:mm:ssfi"),
    ("t_time_no_millis", "'T'HH:mm:ssi"),
    ("basic_date", "yyyyMMdd"),
    ("basic_date_time", "yyyyMMdd'T'HHmmssfi"),
    ("basic_date_time_no_millis", "yyyyMMdd'T'HHmmssi"),
    ("basic_ordinal_date", "yyyyDDD"),
    ("basic_ordinal_date_time", "yyyyDDD'T'HHmmssfi"),
    ("basic_ordinal_date_time_no_millis", "yyyyDDD'T'HHmmssi"),
    ("basic_time", "HHmmssfi"),
    ("basic_time_no_millis", "HHmmssi"),
];

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

impl Default for DateFormat {
    /// The format of a date field that does not set one.
    fn default() -> DateFormat {
        DateFormat::parse("strict_date_optional_time||epoch_millis").expect("both are names of formats")
    }
}

impl DateFormat {
    /// Parses a format of a mapping or a query.
    pub fn parse(text: &str) -> Result<DateFormat, DateError> {
        let wrong =
            |why: String| DateError::Format { format: text.chars().take(DATE_BYTES_MAX).collect(), why };
        if text.len() > DATE_BYTES_MAX {
            return Err(wrong(format!("longer than {DATE_BYTES_MAX} bytes")));
        }
        let alternatives: Result<Vec<_>, String> = text.split("||").map(parse_alternative).collect();
        Ok(DateFormat { text: text.to_owned(), alternatives: alternatives.map_err(wrong)? })
    }

    /// Parses a date. `rounding` completes missing parts; `zone` applies to dates without a zone.
    pub fn parse_date(
        &self,
        text: &str,
        zone: impl Into<TimeZone>,
        rounding: Rounding,
    ) -> Result<i64, DateError> {
        let zone = zone.into();
        let no_match = || DateError::NoFormatMatches {
            text: text.chars().take(DATE_BYTES_MAX).collect(),
            format: self.text.clone(),
        };
        if text.len() > DATE_BYTES_MAX {
            return Err(no_match());
        }
        let read = |alternative: &FormatAlternative| match alternative {
            FormatAlternative::EpochMillis => parse_epoch(text, 1, zone, rounding),
            FormatAlternative::EpochSecond => parse_epoch(text, 1000, zone, rounding),
            FormatAlternative::Pattern(steps) => {
                let mut fields = ParsedDate::default();
                let rest = run_steps(steps, text, &mut fields)?;
                if rest.is_empty() { fields.instant(zone, rounding) } else { None }
            }
        };
        self.alternatives.iter().find_map(read).ok_or_else(no_match)
    }
}

/// Returns the pattern that writes dates in a named format, in the syntax of Java.
pub(super) fn written_pattern(name: &str) -> Option<String> {
    let name = name.strip_prefix("strict_").unwrap_or(name);
    let (_, pattern) = NAMED_FORMATS.iter().find(|(known, _)| *known == name)?;
    let offset = if name.starts_with("basic_") { "XX" } else { "XXX" };
    let mut written = String::new();
    for c in pattern.chars() {
        match c {
            '[' | ']' => {}
            'f' => written.push_str(".SSS"),
            'i' => written.push_str(offset),
            c => written.push(c),
        }
    }
    Some(written)
}

/// Returns the name of a format that is written as before Elasticsearch 7: `dateOptionalTime`. Other texts stay as they are.
pub(super) fn snake_case(text: &str) -> Cow<'_, str> {
    if !text.starts_with(|c: char| c.is_ascii_lowercase()) || !text.bytes().any(|b| b.is_ascii_uppercase()) {
        return text.into();
    }
    let mut name = String::new();
    for c in text.chars() {
        if c.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(c.to_ascii_lowercase());
    }
    let plain = name.strip_prefix("strict_").unwrap_or(&name);
    match NAMED_FORMATS.iter().any(|(known, _)| *known == plain) {
        true => name.into(),
        false => text.into(),
    }
}

fn parse_alternative(text: &str) -> Result<FormatAlternative, String> {
    let text = &snake_case(text);
    let (strict, name) = match text.strip_prefix("strict_") {
        Some(name) => (true, name),
        None => (text.starts_with("basic_"), text.as_ref()),
    };
    match (text.as_ref(), NAMED_FORMATS.iter().find(|(known, _)| *known == name)) {
        ("", _) => Err("No date pattern provided".to_owned()),
        ("epoch_millis", _) => Ok(FormatAlternative::EpochMillis),
        ("epoch_second", _) => Ok(FormatAlternative::EpochSecond),
        (_, Some((_, pattern))) => parse_pattern(pattern, true, strict).map(FormatAlternative::Pattern),
        _ => parse_pattern(text, false, true).map(FormatAlternative::Pattern),
    }
}

/// Compiles a pattern. The nesting of groups is bounded by the length of the pattern.
fn parse_pattern(pattern: &str, named: bool, strict: bool) -> Result<Vec<FormatStep>, String> {
    let mut open = vec![Vec::new()];
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        let step = match c {
            '\'' => {
                let literal: Vec<char> = chars.by_ref().take_while(|c| *c != '\'').collect();
                let literal = if literal.is_empty() { vec!['\''] } else { literal };
                open.last_mut().ok_or("no group")?.extend(literal.into_iter().map(FormatStep::Literal));
                continue;
            }
            '[' => {
                open.push(Vec::new());
                continue;
            }
            ']' => {
                let group = open.pop().filter(|_| !open.is_empty()).ok_or("unmatched ']'")?;
                FormatStep::Optional(group)
            }
            'f' | 'i' if named => {
                let any = OffsetStyle { zulu: true, hours: true, bare: true, colon: true };
                let fraction = vec![FormatStep::Point, FormatStep::Fraction(1, 9)];
                open.last_mut().ok_or("no group")?.extend(if c == 'f' {
                    fraction
                } else {
                    vec![FormatStep::Offset(any)]
                });
                continue;
            }
            c if c.is_ascii_alphabetic() => {
                let mut count = 1;
                while chars.next_if_eq(&c).is_some() {
                    count += 1;
                }
                letter_step(c, count, strict)?
            }
            '{' | '}' | '#' => return Err(format!("'{c}' is reserved")),
            c => FormatStep::Literal(c),
        };
        open.last_mut().ok_or("no group")?.push(step);
    }
    if open.len() != 1 {
        return Err("unmatched '['".to_owned());
    }
    open.pop().ok_or_else(|| "no group".to_owned())
}

/// Compiles a letter repeated `count` times.
fn letter_step(letter: char, count: usize, strict: bool) -> Result<FormatStep, String> {
    let two = |part| match count {
        1 => Ok(FormatStep::Number(part, 1, 2)),
        2 => Ok(FormatStep::Number(part, if strict { 2 } else { 1 }, 2)),
        _ => Err(format!("too many letters {letter}")),
    };
    let offset = |zulu, hours, bare, colon| Ok(FormatStep::Offset(OffsetStyle { zulu, hours, bare, colon }));
    match (letter, count) {
        ('y' | 'u', 2) => Ok(FormatStep::YearShort),
        ('y' | 'u', 4) => Ok(FormatStep::Number(DatePart::Year, if strict { 4 } else { 1 }, 4)),
        ('y' | 'u', 1) => Ok(FormatStep::Number(DatePart::Year, 1, 4)),
        ('M' | 'L', 3) => Ok(FormatStep::MonthName(true)),
        ('M' | 'L', 4) => Ok(FormatStep::MonthName(false)),
        ('M' | 'L', _) => two(DatePart::Month),
        ('d', _) => two(DatePart::Day),
        ('D', 1..=3) => Ok(FormatStep::Number(DatePart::DayOfYear, count, 3)),
        ('H', _) => two(DatePart::Hour),
        ('h', _) => two(DatePart::HourOfHalf),
        ('m', _) => two(DatePart::Minute),
        ('s', _) => two(DatePart::Second),
        ('S', 1..=9) => Ok(FormatStep::Fraction(count, count)),
        ('E', 1..=3) => Ok(FormatStep::DayName(true)),
        ('E', 4) => Ok(FormatStep::DayName(false)),
        ('a', 1) => Ok(FormatStep::AmPm),
        ('Z', 1..=3) => offset(false, false, true, false),
        ('Z', 5) => offset(true, false, false, true),
        ('X' | 'x', 1) => offset(letter == 'X', true, true, false),
        ('X' | 'x', 2) => offset(letter == 'X', false, true, false),
        ('X' | 'x', 3) => offset(letter == 'X', false, false, true),
        _ => Err(format!("{count} letters {letter} are not supported")),
    }
}

/// Parses a text with the steps and returns the rest of the text.
fn run_steps<'a>(steps: &[FormatStep], mut text: &'a str, fields: &mut ParsedDate) -> Option<&'a str> {
    for step in steps {
        text = match step {
            FormatStep::Literal(c) => text.strip_prefix(*c)?,
            FormatStep::Point => text.strip_prefix(['.', ','])?,
            FormatStep::Number(part, min, max) => {
                let (number, rest) = take_number(text, *min, *max)?;
                fields.set(*part, number)?;
                rest
            }
            FormatStep::YearShort => {
                let (number, rest) = take_number(text, 2, 2)?;
                fields.set(DatePart::Year, 2000 + number)?;
                rest
            }
            FormatStep::Fraction(min, max) => {
                let (fraction, rest) = take_number(text, *min, *max)?;
                let digits = (text.len() - rest.len()) as u32;
                fields.nanos = Some(fraction * 10_u32.pow(9 - digits));
                rest
            }
            FormatStep::MonthName(short) => {
                let (at, rest) = take_name(text, &MONTHS, *short)?;
                fields.set(DatePart::Month, at as u32 + 1)?;
                rest
            }
            FormatStep::DayName(short) => {
                let (at, rest) = take_name(text, &DAYS, *short)?;
                fields.weekday = Weekday::try_from(at as u8).ok();
                rest
            }
            FormatStep::AmPm => {
                fields.afternoon = Some(text.starts_with('P'));
                text.strip_prefix("AM").or(text.strip_prefix("PM"))?
            }
            FormatStep::Offset(offset) => {
                let (seconds, rest) = offset.take_offset(text)?;
                fields.offset_seconds = Some(seconds);
                rest
            }
            FormatStep::Optional(steps) => {
                let mut tried = fields.clone();
                match run_steps(steps, text, &mut tried) {
                    Some(rest) => {
                        *fields = tried;
                        rest
                    }
                    None => text,
                }
            }
        };
    }
    Some(text)
}

/// Parses a number with `min` to `max` digits; `max` is at most nine.
fn take_number(text: &str, min: usize, max: usize) -> Option<(u32, &str)> {
    let digits = text.bytes().take(max).take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(digits);
    if digits < min { None } else { Some((number.parse().ok()?, rest)) }
}

/// Parses one of the names, or its first three letters if `short`. Returns its index.
fn take_name<'a>(text: &'a str, names: &[&str], short: bool) -> Option<(usize, &'a str)> {
    names.iter().enumerate().find_map(|(at, name)| {
        let name = if short { &name[..3] } else { name };
        Some((at, text.strip_prefix(name)?))
    })
}

/// Parses an offset as seconds east of UTC: `+1`, `+01`, `+0100`, `+01:00`.
pub(super) fn parse_offset_seconds(text: &str) -> Option<i32> {
    let any = OffsetStyle { zulu: false, hours: true, bare: true, colon: true };
    let padded = match text.as_bytes() {
        [sign, hour] => format!("{}0{}", char::from(*sign), char::from(*hour)),
        _ => text.to_owned(),
    };
    let (seconds, rest) = any.take_offset(&padded)?;
    rest.is_empty().then_some(seconds)
}

impl OffsetStyle {
    fn take_offset<'a>(&self, text: &'a str) -> Option<(i32, &'a str)> {
        if let Some(rest) = text.strip_prefix('Z').filter(|_| self.zulu) {
            return Some((0, rest));
        }
        let sign = match text.chars().next()? {
            '+' => 1,
            '-' => -1,
            _ => return None,
        };
        let (hours, rest) = take_number(&text[1..], 2, 2)?;
        let colon = rest.strip_prefix(':').filter(|_| self.colon).and_then(|rest| take_number(rest, 2, 2));
        let (minutes, rest) = match (colon, take_number(rest, 2, 2).filter(|_| self.bare)) {
            (Some(found), _) | (None, Some(found)) => found,
            (None, None) if self.hours => (0, rest),
            _ => return None,
        };
        let seconds = (hours * 3600 + minutes * 60) as i32;
        (minutes < 60 && seconds <= 18 * 3600).then_some((sign * seconds, rest))
    }
}

impl ParsedDate {
    fn set(&mut self, part: DatePart, number: u32) -> Option<()> {
        let (min, max) = match part {
            DatePart::Year => (0, 9999),
            DatePart::Month => (1, 12),
            DatePart::Day => (1, 31),
            DatePart::DayOfYear => (1, 366),
            DatePart::Hour => (0, 23),
            DatePart::HourOfHalf => (1, 12),
            DatePart::Minute | DatePart::Second => (0, 59),
        };
        self.numbers[part as usize] = Some(number);
        (min..=max).contains(&number).then_some(())
    }

    /// Completes the date. A missing month or day is the first one in both rounding modes; a missing hour,
    /// minute, second or millisecond is the first or the last.
    fn instant(&self, zone: TimeZone, rounding: Rounding) -> Option<i64> {
        let number = |part: DatePart| self.numbers[part as usize];
        let open = |last| if rounding == Rounding::Up { last } else { 0 };
        let year = i32::try_from(number(DatePart::Year).unwrap_or(1970)).ok()?;
        let date = match number(DatePart::DayOfYear) {
            Some(day) => NaiveDate::from_yo_opt(year, day)?,
            None => {
                let (month, day) = (number(DatePart::Month).unwrap_or(1), number(DatePart::Day).unwrap_or(1));
                NaiveDate::from_ymd_opt(year, month, day)?
            }
        };
        let half = number(DatePart::HourOfHalf).zip(self.afternoon);
        let hour = match (number(DatePart::Hour), half) {
            (Some(hour), _) => hour,
            (None, Some((hour, afternoon))) => hour % 12 + if afternoon { 12 } else { 0 },
            (None, None) => open(23),
        };
        let (minute, second) =
            (number(DatePart::Minute).unwrap_or(open(59)), number(DatePart::Second).unwrap_or(open(59)));
        let nanos = self.nanos.unwrap_or(open(999_999_999));
        if self.weekday.is_some_and(|weekday| weekday != date.weekday()) {
            return None;
        }
        let local = date.and_time(NaiveTime::from_hms_nano_opt(hour, minute, second, nanos)?);
        match self.offset_seconds {
            Some(seconds) => local.and_utc().timestamp_millis().checked_sub(i64::from(seconds) * 1000),
            None => zone.to_utc(local),
        }
    }
}

/// Parses a number of units since 1970, with an optional fraction; milliseconds cannot be negative. As in
/// Elasticsearch, a time zone shifts even these.
fn parse_epoch(text: &str, unit_ms: i64, zone: TimeZone, rounding: Rounding) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = whole.strip_prefix('-').filter(|_| unit_ms > 1).unwrap_or(whole);
    if !digits(unsigned) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let nanos = fraction.parse::<i64>().ok()? * 10_i64.pow(9 - u32::try_from(fraction.len()).ok()?);
    let part_ms = match nanos * unit_ms / 1_000_000_000 {
        part_ms if text.contains('.') && whole.starts_with('-') => -part_ms,
        part_ms if text.contains('.') || rounding == Rounding::Down => part_ms,
        _ => unit_ms - 1,
    };
    let whole_ms = whole.parse::<i64>().ok()?.checked_mul(unit_ms)?;
    let ms = whole_ms.checked_add(part_ms)?;
    ms.checked_sub(zone.offset_ms(ms))
}
