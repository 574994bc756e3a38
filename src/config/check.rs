//! Checks of single values. Pure. Each check returns the value, or a sentence that says what is allowed.

use std::net::IpAddr;

use crate::runtime::logging::LevelFilter;

/// Maximum size of a host name (RFC 1035, section 2.3.4).
const HOST_BYTES_MAX: usize = 253;
/// Maximum size of a label, the part of a host name between dots.
const LABEL_BYTES_MAX: usize = 63;
/// Maximum size of a Kafka topic name.
const TOPIC_BYTES_MAX: usize = 249;
/// Maximum number of characters of a wrong value in a message.
const QUOTED_CHARS_MAX: usize = 60;

/// Quotes, escapes and shortens a value for a terminal.
pub(crate) fn quote(text: &str) -> String {
    match text.char_indices().nth(QUOTED_CHARS_MAX) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// Returns `; did you mean "NAME"?` if a known name is similar, else nothing.
pub(crate) fn did_you_mean(name: &str, known: &[&str]) -> String {
    let name = name.to_lowercase();
    let distance = |known: &&&str| edit_distance(&name, &known.to_lowercase());
    // At most a third of the name may differ.
    let nearest = known.iter().min_by_key(distance).filter(|known| distance(known) * 3 <= known.len());
    nearest.map_or_else(String::new, |known| format!("; did you mean {known:?}?"))
}

/// Number of characters to insert, remove or replace to get from one text to the other (Levenshtein).
fn edit_distance(from: &str, to: &str) -> usize {
    // Long names are not similar to any key.
    if from.len() > QUOTED_CHARS_MAX {
        return from.len();
    }
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (nth, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = nth + 1;
        for (at, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[at + 1];
            row[at + 1] = replaced.min(row[at] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

/// Parses a log level in any case.
pub(super) fn level(text: &str) -> Result<LevelFilter, String> {
    match text.to_ascii_uppercase().as_str() {
        "DEBUG" => Ok(LevelFilter::Debug),
        "INFO" => Ok(LevelFilter::Info),
        "WARN" | "WARNING" => Ok(LevelFilter::Warn),
        "ERROR" => Ok(LevelFilter::Error),
        _ => Err(format!("{} is not a log level (expected DEBUG, INFO, WARN or ERROR)", quote(text))),
    }
}

/// Parses a port; 0 switches the receiver off.
pub(super) fn port(text: &str) -> Result<u16, String> {
    // `parse` alone accepts "+5004".
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits => Ok(port),
        _ => Err(format!("{} is not a port (expected a number from 1 to 65535, or 0 for off)", quote(text))),
    }
}

/// Checks an IP address or a host name; empty switches the receiver off. Removes the brackets of an IPv6 address.
pub(super) fn address(text: &str) -> Result<String, String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if text.is_empty() || is_ip(bare) || is_host(text) {
        return Ok(bare.to_owned());
    }
    let port_too = match text.rsplit_once(':') {
        Some((host, number)) if port(number).is_ok() && address(host).is_ok() => {
            " (the port has its own key)"
        }
        _ => "",
    };
    Err(format!("{} is neither an IP address nor a host name{port_too}", quote(text)))
}

fn is_ip(text: &str) -> bool {
    match text.split_once('%') {
        // A link-local address needs its interface: fe80::1%eth0 (RFC 4007, section 11).
        Some((ip, zone)) => matches!(ip.parse(), Ok(IpAddr::V6(_))) && is_label(zone),
        None => text.parse::<IpAddr>().is_ok(),
    }
}

fn is_host(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    // No top-level domain is a number, so this is a mistyped IP address (RFC 3696, section 2).
    let numeric = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    name.len() <= HOST_BYTES_MAX && !numeric && name.split('.').all(is_label)
}

/// Returns true for letters, digits, `-` and `_`; host names in container networks contain underscores.
fn is_label(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=LABEL_BYTES_MAX).contains(&text.len())
        && text.bytes().all(allowed)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Checks a topic name by the rules of Kafka.
pub(super) fn topic(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let long = !(1..=TOPIC_BYTES_MAX).contains(&text.len());
    if long || !text.bytes().all(allowed) || text == "." || text == ".." {
        return Err(format!(
            "{} is not a Kafka topic name (expected 1 to {TOPIC_BYTES_MAX} letters, digits, dots, underscores and hyphens)",
            quote(text)
        ));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_names_are_suggested() {
        let known = ["tcpServer", "kafkaServer", "events"];
        for (name, expected) in [
            ("tcpSrver", "tcpServer"),
            ("TCPSERVER", "tcpServer"),
            ("event", "events"),
            ("kafka", ""),
            ("x", ""),
            (&"t".repeat(1000), ""),
        ] {
            let hint = did_you_mean(name, &known);
            let expected =
                if expected.is_empty() { String::new() } else { format!("; did you mean {expected:?}?") };
            assert_eq!(hint, expected, "{name}");
        }
    }

    fn check_all<T: ToString>(check: fn(&str) -> Result<T, String>, right: &[(&str, &str)], wrong: &[&str]) {
        for (text, value) in right {
            assert_eq!(check(text).map(|value| value.to_string()), Ok((*value).to_owned()), "{text:?}");
        }
        for text in wrong {
            assert!(check(text).is_err(), "{text:?} passed");
        }
    }

    #[test]
    fn levels() {
        let right =
            [("DEBUG", "DEBUG"), ("info", "INFO"), ("Warn", "WARN"), ("warning", "WARN"), ("ERROR", "ERROR")];
        check_all(level, &right, &["", "TRACE", "OFF", "INFORMATION", "INFO ", "ΙNFO"]);
    }

    #[test]
    fn ports() {
        let right = [("0", "0"), ("1", "1"), ("5004", "5004"), ("65535", "65535"), ("05004", "5004")];
        check_all(
            port,
            &right,
            &["", "-1", "-0", "+1", "65536", "99999999999999999999", "5004.0", "5e3", "0x10", "٣"],
        );
    }

    #[test]
    fn addresses() {
        let longest = format!("{}.{}.{}.{}", "a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61));
        let right = [
            ("", ""),
            ("0.0.0.0", "0.0.0.0"),
            ("10.0.0.1", "10.0.0.1"),
            ("::", "::"),
            ("[::1]", "::1"),
            ("fe80::1%eth0", "fe80::1%eth0"),
            ("localhost", "localhost"),
            ("kafka_1", "kafka_1"),
            ("broker.example.", "broker.example."),
            ("3com.example", "3com.example"),
            (&longest, &longest),
        ];
        let wrong = [
            &format!("{longest}d"),
            &format!("{}.a", "a".repeat(64)),
            "300.1.1.1",
            "10.0.0",
            "5004",
            ".",
            "a..b",
            "-g",
            "a-",
            "[10.0.0.1",
            "[localhost]",
            "10.0.0.1%eth0",
            "::1%",
            "a b",
            "tcp://a",
            "a/b",
            "a\"b",
            "a\nb",
            "*",
            "höst",
        ];
        check_all(address, &right, &wrong);
        let with_port = address("10.0.0.1:5004").unwrap_err();
        assert!(with_port.ends_with("(the port has its own key)"), "{with_port}");
    }

    #[test]
    fn topics() {
        let longest = "t".repeat(TOPIC_BYTES_MAX);
        let right = [("interception", "interception"), ("a.b_c-1", "a.b_c-1"), (&longest, &longest)];
        check_all(topic, &right, &["", ".", "..", "a b", "a/b", "a\"b", "ä", &format!("{longest}t")]);
    }

    #[test]
    fn quoted_values_are_escaped_and_short() {
        assert_eq!(quote("a\u{1b}[2J\n"), r#""a\u{1b}[2J\n""#);
        assert_eq!(quote(&"é".repeat(61)), format!("\"{}\"...", "é".repeat(60)));
        assert_eq!(quote(&"é".repeat(60)), format!("\"{}\"", "é".repeat(60)));
    }
}
