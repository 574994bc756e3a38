//! Date formats: names and patterns into steps, and texts by these steps into instants. Pure.

use chrono::{Datelike, NaiveDate, NaiveTime, Weekday};

use super::{DATE_BYTES_MAX, DateError, Rounding};

/// Formats of a date, tried in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// As it was put.
    text: String,
    alternatives: Vec<Alternative>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Alternative {
    EpochMillis,
    EpochSecond,
    Pattern(Vec<Step>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Literal(char),
    /// A number of so many digits.
    Number(Part, usize, usize),
    /// The last two digits of a year from 2000.
    YearShort,
    /// Digits of a second's fraction, so many.
    Fraction(usize, usize),
    /// A point or a comma.
    Point,
    MonthName(bool),
    DayName(bool),
    Half,
    Offset(Offset),
    Optional(Vec<Step>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Year,
    Month,
    Day,
    DayOfYear,
    Hour,
    HourOfHalf,
    Minute,
    Second,
}

/// Which spellings of an offset there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Offset {
    zulu: bool,
    /// `+01` alone.
    hours: bool,
    /// `+0100`.
    bare: bool,
    /// `+01:00`.
    colon: bool,
}

/// What was read of a date.
#[derive(Clone, Debug, Default)]
struct Fields {
    numbers: [Option<u32>; 8],
    nanos: Option<u32>,
    afternoon: Option<bool>,
    weekday: Option<Weekday>,
    offset_seconds: Option<i32>,
}

/// Elasticsearch's names, without `strict_`. Beyond Java's letters: `f` is a fraction of any length with its point,
/// `i` is an offset in any of ISO's spellings. With one digit a field takes fewer than it should: strict names have
/// fields of full width.
const NAMES: [(&str, &str); 33] = [
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

impl Default for Format {
    /// What a date field has without a format.
    fn default() -> Format {
        Format::parse("strict_date_optional_time||epoch_millis").expect("both are names of formats")
    }
}

impl Format {
    /// Reads a format as it stands in a mapping or a query.
    pub fn parse(text: &str) -> Result<Format, DateError> {
        let wrong =
            |why: String| DateError::Format { format: text.chars().take(DATE_BYTES_MAX).collect(), why };
        if text.len() > DATE_BYTES_MAX {
            return Err(wrong(format!("longer than {DATE_BYTES_MAX} bytes")));
        }
        let alternatives: Result<Vec<_>, String> = text.split("||").map(alternative).collect();
        Ok(Format { text: text.to_owned(), alternatives: alternatives.map_err(wrong)? })
    }

    /// The instant that a date means; what it leaves open is the first or the last. The zone is that of dates
    /// without one.
    pub fn read(&self, text: &str, zone_minutes: i32, rounding: Rounding) -> Result<i64, DateError> {
        let unfit = || DateError::Unfit {
            text: text.chars().take(DATE_BYTES_MAX).collect(),
            format: self.text.clone(),
        };
        if text.len() > DATE_BYTES_MAX {
            return Err(unfit());
        }
        let read = |alternative: &Alternative| match alternative {
            Alternative::EpochMillis => epoch(text, 1, zone_minutes, rounding),
            Alternative::EpochSecond => epoch(text, 1000, zone_minutes, rounding),
            Alternative::Pattern(steps) => {
                let mut fields = Fields::default();
                let rest = follow(steps, text, &mut fields)?;
                if rest.is_empty() { fields.instant(zone_minutes, rounding) } else { None }
            }
        };
        self.alternatives.iter().find_map(read).ok_or_else(unfit)
    }
}

fn alternative(text: &str) -> Result<Alternative, String> {
    let (strict, name) = match text.strip_prefix("strict_") {
        Some(name) => (true, name),
        None => (text.starts_with("basic_"), text),
    };
    match (text, NAMES.iter().find(|(known, _)| *known == name)) {
        ("", _) => Err("No date pattern provided".to_owned()),
        ("epoch_millis", _) => Ok(Alternative::EpochMillis),
        ("epoch_second", _) => Ok(Alternative::EpochSecond),
        (_, Some((_, pattern))) => steps(pattern, true, strict).map(Alternative::Pattern),
        _ => steps(text, false, true).map(Alternative::Pattern),
    }
}

/// The steps of a pattern. Groups in groups are no deeper than a pattern is long.
fn steps(pattern: &str, named: bool, strict: bool) -> Result<Vec<Step>, String> {
    let mut open = vec![Vec::new()];
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        let step = match c {
            '\'' => {
                let literal: Vec<char> = chars.by_ref().take_while(|c| *c != '\'').collect();
                let literal = if literal.is_empty() { vec!['\''] } else { literal };
                open.last_mut().ok_or("no group")?.extend(literal.into_iter().map(Step::Literal));
                continue;
            }
            '[' => {
                open.push(Vec::new());
                continue;
            }
            ']' => {
                let group = open.pop().filter(|_| !open.is_empty()).ok_or("a ']' that ends nothing")?;
                Step::Optional(group)
            }
            'f' | 'i' if named => {
                let any = Offset { zulu: true, hours: true, bare: true, colon: true };
                let fraction = vec![Step::Point, Step::Fraction(1, 9)];
                open.last_mut().ok_or("no group")?.extend(if c == 'f' {
                    fraction
                } else {
                    vec![Step::Offset(any)]
                });
                continue;
            }
            c if c.is_ascii_alphabetic() => {
                let mut count = 1;
                while chars.next_if_eq(&c).is_some() {
                    count += 1;
                }
                letters(c, count, strict)?
            }
            '{' | '}' | '#' => return Err(format!("'{c}' is reserved")),
            c => Step::Literal(c),
        };
        open.last_mut().ok_or("no group")?.push(step);
    }
    if open.len() != 1 {
        return Err("a '[' has no end".to_owned());
    }
    open.pop().ok_or_else(|| "no group".to_owned())
}

/// So many of a letter.
fn letters(letter: char, count: usize, strict: bool) -> Result<Step, String> {
    let two = |part| match count {
        1 => Ok(Step::Number(part, 1, 2)),
        2 => Ok(Step::Number(part, if strict { 2 } else { 1 }, 2)),
        _ => Err(format!("too many of the letter {letter}")),
    };
    let offset = |zulu, hours, bare, colon| Ok(Step::Offset(Offset { zulu, hours, bare, colon }));
    match (letter, count) {
        ('y' | 'u', 2) => Ok(Step::YearShort),
        ('y' | 'u', 4) => Ok(Step::Number(Part::Year, if strict { 4 } else { 1 }, 4)),
        ('y' | 'u', 1) => Ok(Step::Number(Part::Year, 1, 4)),
        ('M' | 'L', 3) => Ok(Step::MonthName(true)),
        ('M' | 'L', 4) => Ok(Step::MonthName(false)),
        ('M' | 'L', _) => two(Part::Month),
        ('d', _) => two(Part::Day),
        ('D', 1..=3) => Ok(Step::Number(Part::DayOfYear, count, 3)),
        ('H', _) => two(Part::Hour),
        ('h', _) => two(Part::HourOfHalf),
        ('m', _) => two(Part::Minute),
        ('s', _) => two(Part::Second),
        ('S', 1..=9) => Ok(Step::Fraction(count, count)),
        ('E', 1..=3) => Ok(Step::DayName(true)),
        ('E', 4) => Ok(Step::DayName(false)),
        ('a', 1) => Ok(Step::Half),
        ('Z', 1..=3) => offset(false, false, true, false),
        ('Z', 5) => offset(true, false, false, true),
        ('X' | 'x', 1) => offset(letter == 'X', true, true, false),
        ('X' | 'x', 2) => offset(letter == 'X', false, true, false),
        ('X' | 'x', 3) => offset(letter == 'X', false, false, true),
        _ => Err(format!("{count} of the letter {letter} are not supported")),
    }
}

/// Reads what the steps say; gives the rest of the text.
fn follow<'a>(steps: &[Step], mut text: &'a str, fields: &mut Fields) -> Option<&'a str> {
    for step in steps {
        text = match step {
            Step::Literal(c) => text.strip_prefix(*c)?,
            Step::Point => text.strip_prefix(['.', ','])?,
            Step::Number(part, min, max) => {
                let (number, rest) = number(text, *min, *max)?;
                fields.set(*part, number)?;
                rest
            }
            Step::YearShort => {
                let (number, rest) = number(text, 2, 2)?;
                fields.set(Part::Year, 2000 + number)?;
                rest
            }
            Step::Fraction(min, max) => {
                let (fraction, rest) = number(text, *min, *max)?;
                let digits = (text.len() - rest.len()) as u32;
                fields.nanos = Some(fraction * 10_u32.pow(9 - digits));
                rest
            }
            Step::MonthName(short) => {
                let (at, rest) = name(text, &MONTHS, *short)?;
                fields.set(Part::Month, at as u32 + 1)?;
                rest
            }
            Step::DayName(short) => {
                let (at, rest) = name(text, &DAYS, *short)?;
                fields.weekday = Weekday::try_from(at as u8).ok();
                rest
            }
            Step::Half => {
                fields.afternoon = Some(text.starts_with('P'));
                text.strip_prefix("AM").or(text.strip_prefix("PM"))?
            }
            Step::Offset(offset) => {
                let (seconds, rest) = offset.read(text)?;
                fields.offset_seconds = Some(seconds);
                rest
            }
            Step::Optional(steps) => {
                let mut tried = fields.clone();
                match follow(steps, text, &mut tried) {
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

/// A number of so many digits, nine at most.
fn number(text: &str, min: usize, max: usize) -> Option<(u32, &str)> {
    let digits = text.bytes().take(max).take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(digits);
    if digits < min { None } else { Some((number.parse().ok()?, rest)) }
}

/// Which of the names, by its first three letters where they are short.
fn name<'a>(text: &'a str, names: &[&str], short: bool) -> Option<(usize, &'a str)> {
    names.iter().enumerate().find_map(|(at, name)| {
        let name = if short { &name[..3] } else { name };
        Some((at, text.strip_prefix(name)?))
    })
}

/// Seconds east of UTC: `+1`, `+01`, `+0100`, `+01:00`.
pub(super) fn offset_seconds(text: &str) -> Option<i32> {
    let any = Offset { zulu: false, hours: true, bare: true, colon: true };
    let padded = match text.as_bytes() {
        [sign, hour] => format!("{}0{}", char::from(*sign), char::from(*hour)),
        _ => text.to_owned(),
    };
    let (seconds, rest) = any.read(&padded)?;
    rest.is_empty().then_some(seconds)
}

impl Offset {
    fn read<'a>(&self, text: &'a str) -> Option<(i32, &'a str)> {
        if let Some(rest) = text.strip_prefix('Z').filter(|_| self.zulu) {
            return Some((0, rest));
        }
        let sign = match text.chars().next()? {
            '+' => 1,
            '-' => -1,
            _ => return None,
        };
        let (hours, rest) = number(&text[1..], 2, 2)?;
        let colon = rest.strip_prefix(':').filter(|_| self.colon).and_then(|rest| number(rest, 2, 2));
        let (minutes, rest) = match (colon, number(rest, 2, 2).filter(|_| self.bare)) {
            (Some(found), _) | (None, Some(found)) => found,
            (None, None) if self.hours => (0, rest),
            _ => return None,
        };
        let seconds = (hours * 3600 + minutes * 60) as i32;
        (minutes < 60 && seconds <= 18 * 3600).then_some((sign * seconds, rest))
    }
}

impl Fields {
    fn set(&mut self, part: Part, number: u32) -> Option<()> {
        let (min, max) = match part {
            Part::Year => (0, 9999),
            Part::Month => (1, 12),
            Part::Day => (1, 31),
            Part::DayOfYear => (1, 366),
            Part::Hour => (0, 23),
            Part::HourOfHalf => (1, 12),
            Part::Minute | Part::Second => (0, 59),
        };
        self.numbers[part as usize] = Some(number);
        (min..=max).contains(&number).then_some(())
    }

    /// What a date leaves open is the first month and day, whichever way it is rounded, and the first or the last
    /// hour, minute, second and millisecond.
    fn instant(&self, zone_minutes: i32, rounding: Rounding) -> Option<i64> {
        let number = |part: Part| self.numbers[part as usize];
        let open = |last| if rounding == Rounding::Up { last } else { 0 };
        let year = i32::try_from(number(Part::Year).unwrap_or(1970)).ok()?;
        let date = match number(Part::DayOfYear) {
            Some(day) => NaiveDate::from_yo_opt(year, day)?,
            None => {
                let (month, day) = (number(Part::Month).unwrap_or(1), number(Part::Day).unwrap_or(1));
                NaiveDate::from_ymd_opt(year, month, day)?
            }
        };
        let half = number(Part::HourOfHalf).zip(self.afternoon);
        let hour = match (number(Part::Hour), half) {
            (Some(hour), _) => hour,
            (None, Some((hour, afternoon))) => hour % 12 + if afternoon { 12 } else { 0 },
            (None, None) => open(23),
        };
        let (minute, second) =
            (number(Part::Minute).unwrap_or(open(59)), number(Part::Second).unwrap_or(open(59)));
        let nanos = self.nanos.unwrap_or(open(999_999_999));
        if self.weekday.is_some_and(|weekday| weekday != date.weekday()) {
            return None;
        }
        let local = date.and_time(NaiveTime::from_hms_nano_opt(hour, minute, second, nanos)?);
        let offset_seconds = self.offset_seconds.unwrap_or(zone_minutes.checked_mul(60)?);
        local.and_utc().timestamp_millis().checked_sub(i64::from(offset_seconds) * 1000)
    }
}

/// A number of units since 1970, with a fraction or without; milliseconds are never negative. As in Elasticsearch a
/// zone shifts even these.
fn epoch(text: &str, unit_ms: i64, zone_minutes: i32, rounding: Rounding) -> Option<i64> {
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
    whole_ms.checked_add(part_ms)?.checked_sub(i64::from(zone_minutes) * 60_000)
}
