//! Parser for syslog headers: RFC 5424, RFC 3164 and common deviations from RFC 3164. Pure. It never fails: whatever is not
//! a header belongs to the text.
//!
//! RFC 3164 times have no year and no time zone. The zone of the receiver applies, and the year that gives the latest time
//! up to one day after the arrival. RFC 3339 times, which RFC 5424 and rsyslog's forwarding format use, are complete.

use std::fmt::Write as _;
use std::net::IpAddr;

use chrono::{DateTime, Datelike, FixedOffset, NaiveDateTime, TimeDelta, TimeZone};

use super::devices::strip_counter;

/// Maximum size of a header field (255 bytes for the host name in RFC 5424, section 6).
const FIELD_BYTES_MAX: usize = 255;

/// How far a sender's clock may be ahead before its time counts as one of the year before.
const CLOCK_AHEAD_MAX: TimeDelta = TimeDelta::days(1);

/// A parsed message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyslogMessage<'a> {
    /// Eight times the facility, plus the severity.
    pub priority: Option<u8>,
    pub time: Option<DateTime<FixedOffset>>,
    /// Name of the sending host.
    pub host: Option<&'a str>,
    pub program: Option<&'a str>,
    /// Process ID of the program.
    pub pid: Option<&'a str>,
    pub message_id: Option<&'a str>,
    /// STRUCTURED-DATA of RFC 5424, not decoded.
    pub structured_data: Option<&'a str>,
    /// The text after the header.
    pub text: &'a str,
}

/// Parses a message that arrived at `arrived`, given in the receiver's time zone.
pub fn parse<'a, Z: TimeZone>(message: &'a str, arrived: &DateTime<Z>) -> SyslogMessage<'a> {
    let (priority, rest) = parse_priority(message);
    match rest.strip_prefix("1 ").filter(|_| priority.is_some()).and_then(parse_rfc5424) {
        Some(found) => SyslogMessage { priority, ..found },
        None => SyslogMessage { priority, ..parse_rfc3164(rest, arrived) },
    }
}

/// Splits off `<PRI>`, 0 to 191.
fn parse_priority(message: &str) -> (Option<u8>, &str) {
    let found = message.strip_prefix('<').and_then(|rest| rest.split_once('>'));
    match found.map(|(digits, rest)| (digits.parse::<u8>(), digits, rest)) {
        Some((Ok(priority @ 0..=191), digits, rest))
            if digits.len() <= 3 && digits.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            (Some(priority), rest)
        }
        _ => (None, message),
    }
}

/// Parses the text after the version (RFC 5424, section 6). Returns `None` if it does not have that form.
fn parse_rfc5424(rest: &str) -> Option<SyslogMessage<'_>> {
    let mut rest = rest;
    let mut fields = [None; 5];
    for field in &mut fields {
        let (word, behind) = rest.split_once(' ')?;
        if word.is_empty() || word.len() > FIELD_BYTES_MAX {
            return None;
        }
        *field = Some(word).filter(|word| *word != "-");
        rest = behind;
    }
    let [stamp, host, program, pid, message_id] = fields;
    let time = match stamp {
        Some(stamp) => Some(DateTime::parse_from_rfc3339(stamp).ok()?),
        None => None,
    };
    let (structured_data, text) = split_structured_data(rest);
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    Some(SyslogMessage { priority: None, time, host, program, pid, message_id, structured_data, text })
}

/// Splits STRUCTURED-DATA from the text. Malformed data belongs to the text.
fn split_structured_data(rest: &str) -> (Option<&str>, &str) {
    if let Some(text) = rest.strip_prefix('-').filter(|text| text.is_empty() || text.starts_with(' ')) {
        return (None, text.strip_prefix(' ').unwrap_or(text));
    }
    let (mut within, mut quoted, mut escaped) = (false, false, false);
    for (at, c) in rest.char_indices() {
        match c {
            _ if std::mem::take(&mut escaped) => {}
            '\\' if quoted => escaped = true,
            '"' if within => quoted = !quoted,
            _ if quoted => {}
            '[' if !within => within = true,
            ']' if within => within = false,
            ' ' if !within && at > 0 => return (Some(&rest[..at]), &rest[at + 1..]),
            _ if within => {}
            _ => return (None, rest),
        }
    }
    if within || rest.is_empty() { (None, rest) } else { (Some(rest), "") }
}

/// Parses the text after the priority (RFC 3164, section 4.1), with a time in either form.
fn parse_rfc3164<'a, Z: TimeZone>(rest: &'a str, arrived: &DateTime<Z>) -> SyslogMessage<'a> {
    let none = SyslogMessage {
        priority: None,
        time: None,
        host: None,
        program: None,
        pid: None,
        message_id: None,
        structured_data: None,
        text: rest,
    };
    let timed = parse_bsd_time(rest, arrived).or_else(|| parse_iso_time(rest)).map(|timed| (None, timed));
    let Some((origin, (time, rest))) = timed.or_else(|| parse_cisco_time(rest, arrived)) else {
        return none;
    };
    let timed = SyslogMessage { time, host: origin, text: rest, ..none };
    // An IPv6 address looks like a tag.
    if let Some((host, rest)) = rest.split_once(' ').filter(|(word, _)| word.parse::<IpAddr>().is_ok()) {
        let named = SyslogMessage { host: Some(host), text: rest, ..timed };
        return match parse_tag(rest) {
            Some((program, pid, text)) => SyslogMessage { program: Some(program), pid, text, ..named },
            None => named,
        };
    }
    // If the first word is a tag, the sender left the host name out, as local senders do.
    match parse_tag(rest) {
        Some((program, pid, text)) => SyslogMessage { program: Some(program), pid, text, ..timed },
        None => match rest.split_once(' ') {
            // Firewalls of Cisco write a colon between blanks after the host.
            Some((host, rest)) if is_name(host) => match parse_tag(rest.strip_prefix(": ").unwrap_or(rest)) {
                Some((program, pid, text)) => {
                    SyslogMessage { host: Some(host), program: Some(program), pid, text, ..timed }
                }
                None => SyslogMessage { host: Some(host), text: rest, ..timed },
            },
            _ => timed,
        },
    }
}

fn is_name(word: &str) -> bool {
    (1..=FIELD_BYTES_MAX).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A time, if it exists in its year, and what follows it.
type TimeAndRest<'a> = (Option<DateTime<FixedOffset>>, &'a str);

/// Splits `PROGRAM[PID]: ` or `PROGRAM: ` from the text.
fn parse_tag(rest: &str) -> Option<(&str, Option<&str>, &str)> {
    let end = rest.find([' ', ':', '['])?;
    let program = &rest[..end];
    if !is_name(program) {
        return None;
    }
    let (pid, behind) = match rest[end..].strip_prefix('[') {
        Some(behind) => {
            let (pid, behind) = behind.split_once(']')?;
            (Some(pid).filter(|pid| is_name(pid)), behind)
        }
        None => (None, &rest[end..]),
    };
    // `PROGRAM[PID] text` is a tag as well. Without brackets and colon the word belongs to the text.
    let text = match behind.strip_prefix(':') {
        Some(text) => text,
        None if pid.is_some() && behind.starts_with(' ') => behind,
        None => return None,
    };
    Some((program, pid, text.strip_prefix(' ').unwrap_or(text)))
}

/// Splits off `Mmm dd hh:mm:ss `, where the day may have a leading space or zero. Cisco's devices write more: `*` or `.`
/// before it, a fraction, a year and `UTC:` after it.
fn parse_bsd_time<'a, Z: TimeZone>(rest: &'a str, arrived: &DateTime<Z>) -> Option<TimeAndRest<'a>> {
    let rest = rest.strip_prefix(['*', '.']).unwrap_or(rest);
    // `Nov 30 2026 14:02:07`, as firewalls of Cisco write it.
    if let (Some(day), Some((Some(year), time))) = (rest.get(..6), rest.get(6..).map(split_year))
        && time.get(..4).is_some_and(|start| start.as_bytes()[3] == b':')
    {
        let (time, length) = (format!("{day}{time}"), time.len());
        let (time, after) = parse_bsd_time(&time, arrived)?;
        let after = &rest[rest.len() - after.len().min(length)..];
        return Some((time.and_then(|time| time.with_year(year)), after));
    }
    let (stamp, behind) = (rest.get(..15)?, rest.get(15..)?);
    let behind =
        behind.strip_prefix('.').map_or(behind, |rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
    let (year, behind) = split_year(behind);
    let (is_utc, behind) = match behind.strip_prefix(" UTC") {
        Some(rest) if rest.starts_with([' ', ':']) => (true, rest),
        _ => (false, behind),
    };
    let rest = behind.strip_prefix(':').unwrap_or(behind).strip_prefix(' ')?;
    // Parsed in a leap year, so that 29 February is valid.
    let in_1972 = NaiveDateTime::parse_from_str(&format!("1972 {stamp}"), "%Y %b %e %H:%M:%S").ok();
    let in_1972 = in_1972.filter(|_| stamp.as_bytes()[3] == b' ' && stamp.as_bytes()[6] == b' ')?;
    let in_year = |year: i32| {
        let local = in_1972.with_year(year)?;
        if is_utc {
            return Some(local.and_utc().fixed_offset());
        }
        Some(arrived.timezone().from_local_datetime(&local).earliest()?.fixed_offset())
    };
    if let Some(year) = year {
        return Some((in_year(year), rest));
    }
    let is_near = |time: &DateTime<FixedOffset>| *time <= arrived.fixed_offset() + CLOCK_AHEAD_MAX;
    let year = arrived.year();
    let time = [year + 1, year, year - 1].into_iter().find_map(|year| in_year(year).filter(is_near));
    Some((time, rest))
}

/// Splits off the time of Cisco's devices that write a counter, their name or a year before it.
fn parse_cisco_time<'a, Z: TimeZone>(
    rest: &'a str,
    arrived: &DateTime<Z>,
) -> Option<(Option<&'a str>, TimeAndRest<'a>)> {
    let (origin, rest) = strip_counter(rest).unwrap_or((None, rest));
    if let Some(timed) = parse_bsd_time(rest, arrived) {
        return Some((origin, timed));
    }
    // `2026 Nov 30 14:02:07 UTC: `
    let (year, stamp) = rest.split_once(' ').filter(|(year, _)| year.len() == 4)?;
    let year: i32 = year.parse().ok()?;
    let (time, rest) = parse_bsd_time(stamp, arrived)?;
    Some((origin, (time.and_then(|time| time.with_year(year)), rest)))
}

/// Splits off ` 2026` before a space, or before a colon and a space: an IPv6 address can start with four digits.
fn split_year(rest: &str) -> (Option<i32>, &str) {
    let found = rest.strip_prefix(' ').and_then(|rest| rest.split_at_checked(4));
    match found {
        Some((digits, behind))
            if digits.bytes().all(|byte| byte.is_ascii_digit())
                && (behind.starts_with(' ') || behind.starts_with(": ")) =>
        {
            (digits.parse().ok(), behind)
        }
        _ => (None, rest),
    }
}

/// Splits off `2026-11-21T20:59:41.123456+01:00 `.
fn parse_iso_time(rest: &str) -> Option<TimeAndRest<'_>> {
    let (stamp, rest) = rest.split_once(' ')?;
    Some((Some(DateTime::parse_from_rfc3339(stamp).ok()?), rest))
}

impl SyslogMessage<'_> {
    /// Returns the message in the form that patterns match, `TIME PROGRAM[PID]: MESSAGE` with an RFC 3164 time, whatever form
    /// it arrived in. A missing time is replaced by the time of arrival, a missing program by `-` as in RFC 5424.
    pub fn to_pattern_line<Z: TimeZone>(&self, arrived: &DateTime<Z>) -> String {
        let time = self.time.unwrap_or_else(|| arrived.fixed_offset());
        let mut line = String::with_capacity(self.text.len() + 64);
        // Writing to a String cannot fail.
        let _ = write!(line, "{} {}", format_bsd_time(&time.naive_local()), self.program.unwrap_or("-"));
        if let Some(pid) = self.pid {
            let _ = write!(line, "[{pid}]");
        }
        let _ = write!(line, ": {}", self.text);
        line
    }
}

fn format_bsd_time(time: &NaiveDateTime) -> String {
    time.format("%b %e %H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use chrono::Utc;

    use super::*;

    fn at(text: &str) -> DateTime<FixedOffset> {
        DateTime::parse_from_rfc3339(text).unwrap()
    }

    /// Compares `host|program|pid|text` and the time.
    fn check(message: &str, expected: &str, time: Option<&str>) {
        let arrived = at("2026-11-21T20:59:41+01:00");
        let found = parse(message, &arrived);
        let word = |word: Option<&str>| word.unwrap_or("").to_owned();
        let shown =
            format!("{}|{}|{}|{}", word(found.host), word(found.program), word(found.pid), found.text);
        assert_eq!(shown, expected, "{message:?}");
        assert_eq!(found.time, time.map(at), "{message:?}");
    }

    const APRIL: Option<&str> = Some("2026-04-11T14:02:07+01:00");

    #[test]
    fn rfc_3164_messages() {
        check("<34>Apr 11 14:02:07 honey1 opensips[2101]: a b", "honey1|opensips|2101|a b", APRIL);
        check("<34>Apr 11 14:02:07 opensips[2101]: a b", "|opensips|2101|a b", APRIL);
        check("<34>Apr 11 14:02:07 opensips: a: b", "|opensips||a: b", APRIL);
        check("<34>Apr 11 14:02:07 honey1 /usr/sbin/cron:a", "honey1|/usr/sbin/cron||a", APRIL);
        check("<34>Apr 11 14:02:07 10.0.0.1 su: 'su' failed", "10.0.0.1|su||'su' failed", APRIL);
        check("<34>Apr 11 14:02:07 honey1 no tag here", "honey1|||no tag here", APRIL);
        check("<34>Apr 11 14:02:07 honey1 prog[7] text", "honey1|prog|7|text", APRIL);
        check("<34>Apr 11 14:02:07 ", "|||", APRIL);
        check("Apr 11 14:02:07 honey1 opensips: x", "honey1|opensips||x", APRIL);
        check("<34>Apr  1 14:02:07 h p: x", "h|p||x", Some("2026-04-01T14:02:07+01:00"));
        check("<34>Apr 11 14:02:07 2001:db8::1 su: x", "2001:db8::1|su||x", APRIL);
        check("<34>Apr 11 14:02:07 2001:db8::1 x y", "2001:db8::1|||x y", APRIL);
        check("<34>Apr 11 14:02:07 2026 h p: x", "h|p||x", APRIL);
        check("<34>Apr 11 14:02:07 2019 h p: x", "h|p||x", Some("2019-04-11T14:02:07+01:00"));
        check("<34>Apr 11 14:02:07 UTC h p: x", "h|p||x", Some("2026-04-11T14:02:07Z"));
        check(
            "<34>*Apr 11 14:02:07.123 UTC: %SYS-5-CONFIG_I: x",
            "|%SYS-5-CONFIG_I||x",
            Some("2026-04-11T14:02:07Z"),
        );
        check("<34>.Apr 11 14:02:07 2026 UTC: %X: x", "|%X||x", Some("2026-04-11T14:02:07Z"));
        check(
            "<189>123: *Apr 11 14:02:07.123 UTC: %SYS-5-X: y",
            "|%SYS-5-X||y",
            Some("2026-04-11T14:02:07Z"),
        );
        check("<189>gw1: 000123: Apr 11 14:02:07: %SYS-5-X: y", "gw1|%SYS-5-X||y", APRIL);
        check(
            "<187>: 2026 Apr 11 14:02:07 UTC: %ETHPORT-5-X: y",
            "|%ETHPORT-5-X||y",
            Some("2026-04-11T14:02:07Z"),
        );
        check("<166>Apr 11 2026 14:02:07 fw1 : %ASA-6-1: y", "fw1|%ASA-6-1||y", APRIL);
        check("<166>Apr 11 2026 14:02:07: %ASA-6-1: y", "|%ASA-6-1||y", APRIL);
        check("<166>Apr 11 14:02:07 fw1 : %ASA-6-1: y", "fw1|%ASA-6-1||y", APRIL);
        check("<189>gw1: hello", "|||gw1: hello", None);
        check("<34>Apr 11 14:02:07 UTCx h: x", "UTCx|h||x", APRIL);
        check("<34>Apr 11 14:02:60 h p: x", "h|p||x", Some("2026-04-11T14:02:60+01:00"));
        check("<34>2026-04-11T14:02:07.5+03:00 h p[1]: x", "h|p|1|x", Some("2026-04-11T14:02:07.5+03:00"));
    }

    #[test]
    fn text_without_a_valid_header_stays_text() {
        for text in
            ["", "hello", "Apr 11", "Apr 41 14:02:07 x", "Abc 11 14:02:07 x", "<999>x", "<1", "<>x", "<-1>x"]
        {
            check(text, &format!("|||{text}"), None);
        }
        check("<34>hello", "|||hello", None);
        check("<34>1 nonsense", "|||1 nonsense", None);
        check("<34>1 yesterday h p 1 - - x", "|||1 yesterday h p 1 - - x", None);
        check("é<34>Apr 11 14:02:07 é", "|||é<34>Apr 11 14:02:07 é", None);
        check("<34>Apr 11 14:02:0é h p: x", "|||Apr 11 14:02:0é h p: x", None);
    }

    #[test]
    fn rfc_5424_messages() {
        let time = Some("2026-11-21T20:59:41.003Z");
        check(
            "<165>1 2026-11-21T20:59:41.003Z host prog 8710 ID47 - \u{feff}text ü",
            "host|prog|8710|text ü",
            time,
        );
        check("<165>1 2026-11-21T20:59:41.003Z - - - - - x", "|||x", time);
        check("<165>1 - host prog - - - x", "host|prog||x", None);
        check("<165>1 - host prog - - -", "host|prog||", None);
        check(r#"<165>1 - h p - - [a b="c \\] d"][e] x y"#, "h|p||x y", None);
        check(r#"<165>1 - h p - - [a b="c"]"#, "h|p||", None);
        check("<165>1 - h p - - [a x y", "h|p||[a x y", None);
        check("<165>1 - h p - - x y", "h|p||x y", None);
        let found = parse(r#"<165>1 - h p 7 ID [a b="]"] x"#, &Utc::now());
        assert_eq!((found.priority, found.message_id), (Some(165), Some("ID")));
        assert_eq!(found.structured_data, Some(r#"[a b="]"]"#));
    }

    fn check_year(arrived: &str, stamp: &str, expected: Option<&str>) {
        let message = format!("{stamp} h p: x");
        let found = parse(&message, &at(arrived));
        assert_eq!(found.time, expected.map(at), "{stamp} at {arrived}");
        assert_eq!(found.text, "x");
    }

    #[test]
    fn the_year_is_the_one_nearest_to_the_arrival() {
        check_year("2026-12-31T23:59:59Z", "Jan  1 00:00:05", Some("2027-01-01T00:00:05Z"));
        check_year("2027-01-01T00:00:05Z", "Dec 31 23:59:59", Some("2026-12-31T23:59:59Z"));
        check_year("2026-06-15T12:00:00Z", "Jun 16 12:00:00", Some("2026-06-16T12:00:00Z"));
        check_year("2026-06-15T12:00:00Z", "Jun 16 12:00:01", Some("2025-06-16T12:00:01Z"));
        check_year("2028-03-01T12:00:00Z", "Feb 29 12:00:00", Some("2028-02-29T12:00:00Z"));
        check_year("2026-03-01T12:00:00Z", "Feb 29 12:00:00", None);
    }

    #[test]
    fn patterns_match_the_same_text_for_every_header_format() {
        let arrived = at("2026-11-21T20:59:41+01:00");
        let line = |message: &str| parse(message, &arrived).to_pattern_line(&arrived);
        let expected = "Apr 11 14:02:07 opensips[2101]: a b";
        assert_eq!(line("<34>Apr 11 14:02:07 honey1 opensips[2101]: a b"), expected);
        assert_eq!(line("<34>1 2026-04-11T14:02:07.123-03:00 honey1 opensips 2101 - - a b"), expected);
        assert_eq!(line("<34>2026-04-11T14:02:07Z honey1 opensips[2101]: a b"), expected);
        assert_eq!(line(expected), expected);
        assert_eq!(line("hello"), "Nov 21 20:59:41 -: hello");
        assert_eq!(line("Apr  1 14:02:07 p: x"), "Apr  1 14:02:07 p: x");
    }
}
