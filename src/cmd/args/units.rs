//! Parsers of option values: sizes, durations, permission bits. Pure.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Parses a number of bytes: `4096`, `64K`, `64KiB`, `1.5G`. Units are powers of 1,024.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split_unit(text);
    let shift = match unit.trim_end_matches("iB").trim_end_matches('B') {
        "" => 0,
        "K" | "k" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(format!("unknown unit {unit:?}: use K, M, G or T, or none for bytes")),
    };
    let value = parse_number(number)? * (1u64 << shift) as f64;
    // A file is shorter than 2^63 bytes, and up to there a double is precise enough for a limit.
    if value < 9.2e18 { Ok(value as u64) } else { Err("larger than any file can be".to_owned()) }
}

/// Parses a duration: `500ms`, `1s`, `1.5m`, `2h`, or a number of seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text);
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(format!("unknown unit {unit:?}: use ms, s, m, h or d")),
    };
    Duration::try_from_secs_f64(parse_number(number)? * seconds).map_err(|error| error.to_string())
}

/// Returns a duration of which zero means "off".
pub(crate) fn unless_zero(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}

/// Returns a parser of durations within a range of milliseconds.
pub(crate) fn duration_in(
    range_ms: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<Duration, String> + Clone + Send + Sync + 'static {
    let (min, max) = (Duration::from_millis(*range_ms.start()), Duration::from_millis(*range_ms.end()));
    move |text| match duration(text)? {
        value if (min..=max).contains(&value) => Ok(value),
        _ => Err(format!("out of range: expected {} to {}", format_duration(min), format_duration(max))),
    }
}

/// Formats a duration of whole milliseconds with its largest exact unit.
fn format_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let unit = units.into_iter().find(|(unit, _)| ms > 0 && ms.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{ms}ms"), |(unit, name)| format!("{}{name}", ms / unit))
}

/// Parses permission bits in octal: `0640`.
pub(crate) fn mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8)
        .map_err(|_| "not an octal number (expected something like 0640)".to_owned())?;
    match mode {
        _ if mode & !0o666 != 0 => Err("only read and write bits are allowed, as in 0640".to_owned()),
        _ if mode & 0o600 != 0o600 => Err("the owner needs read and write permission, as in 0600".to_owned()),
        _ => Ok(mode),
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..at], text[at..].trim())
}

fn parse_number(number: &str) -> Result<f64, String> {
    number.parse().map_err(|_| format!("not a number: {number:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        let check_bytes = |text, expected: Option<u64>| assert_eq!(bytes(text).ok(), expected, "{text}");
        check_bytes("0", Some(0));
        check_bytes("4096", Some(4096));
        check_bytes("64K", Some(65_536));
        check_bytes("64 MiB", Some(64 << 20));
        check_bytes("1.5G", Some(3 << 29));
        check_bytes("9000000T", None);
        check_bytes("-1", None);
        check_bytes("x", None);
        check_bytes("1Q", None);
    }

    #[test]
    fn durations_have_units() {
        let check = |text, expected: Option<u64>| {
            assert_eq!(duration(text).ok().map(|value| value.as_millis() as u64), expected, "{text}");
        };
        check("500ms", Some(500));
        check("1", Some(1000));
        check("1.5m", Some(90_000));
        check("2h", Some(7_200_000));
        check("1y", None);
        check("", None);
    }

    #[test]
    fn a_duration_out_of_range_says_the_range() {
        let parse = duration_in(1..=60_000);
        assert_eq!((parse("1ms"), parse("1m")), (Ok(Duration::from_millis(1)), Ok(Duration::from_secs(60))));
        for text in ["0", "61s", "0.5ms"] {
            assert_eq!(parse(text), Err("out of range: expected 1ms to 1m".to_owned()), "{text}");
        }
        assert!(duration_in(5..=1_500)("0").unwrap_err().ends_with("5ms to 1500ms"));
    }

    #[test]
    fn modes_are_octal_and_readable_by_the_owner() {
        assert_eq!(mode("0640"), Ok(0o640));
        assert_eq!(mode("600"), Ok(0o600));
        assert!(mode("0755").is_err() && mode("0440").is_err() && mode("8").is_err() && mode("+600").is_ok());
    }
}
