//! Values of options that more than one command takes.

use std::time::Duration;

/// A number of bytes: `4096`, `64K`, `64KiB`, `1.5G`; powers of 1,024.
pub fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let shift = match unit.trim_end_matches("iB").trim_end_matches('B') {
        "" => 0,
        "K" | "k" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(format!("unknown unit {unit:?}; write bytes, or K, M, G or T")),
    };
    let value = parse(number)? * (1u64 << shift) as f64;
    // Beyond 2^63 no file goes; and up to there a double is exact enough for a bound.
    if value < 9.2e18 { Ok(value as u64) } else { Err("too large".to_owned()) }
}

/// A duration: `500ms`, `1s`, `1.5m`, `2h`, or a bare number of seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(format!("unknown unit {unit:?}; write ms, s, m, h or d")),
    };
    Duration::try_from_secs_f64(parse(number)? * seconds).map_err(|error| error.to_string())
}

/// A duration that 0 turns off.
pub fn duration_or_off(text: &str) -> Result<Option<Duration>, String> {
    duration(text).map(|value| (!value.is_zero()).then_some(value))
}

/// Permission bits in octal: `0640`.
pub fn mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).map_err(|_| "write it in octal, like 0640".to_owned())?;
    match mode {
        _ if mode & !0o666 != 0 => Err("only read and write bits make sense, like 0640".to_owned()),
        _ if mode & 0o600 != 0o600 => Err("the service itself must read and write: 06..".to_owned()),
        _ => Ok(mode),
    }
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..at], text[at..].trim())
}

fn parse(number: &str) -> Result<f64, String> {
    number.parse().map_err(|_| format!("not a number: {number:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_bytes() {
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
    fn durations() {
        let check = |text, expected: Option<u64>| {
            assert_eq!(duration(text).ok().map(|value| value.as_millis() as u64), expected, "{text}");
        };
        check("500ms", Some(500));
        check("1", Some(1000));
        check("1.5m", Some(90_000));
        check("2h", Some(7_200_000));
        check("1y", None);
        check("", None);
        assert_eq!(duration_or_off("0"), Ok(None));
    }

    #[test]
    fn modes() {
        assert_eq!(mode("0640"), Ok(0o640));
        assert_eq!(mode("600"), Ok(0o600));
        assert!(mode("0755").is_err() && mode("0440").is_err() && mode("8").is_err() && mode("+600").is_ok());
    }
}
