//! What the SIP honeypot SentryPeer logs (`-j`: a JSON object a line), under the names that proxies use (protocol,
//! section 7). Pure.
//!
//! `called_number` becomes `destNum`, `sip_method` `sipRequest`, `sip_user_agent` `userAgent`, `source_ip` `ipIntruder`
//! and `destination_ip` `ipHost`; what else is there stays. Newer versions write addresses with a port: that goes into
//! `portIntruder` and `portHost`. `time` is `event_timestamp` in UTC.

use std::net::{IpAddr, SocketAddr};

use chrono::{NaiveDateTime, TimeDelta, TimeZone};

use super::event::{Members, push_member, rfc3339, text};

/// The object under the other names.
pub(super) fn renamed<Z: TimeZone>(members: &Members<'_>, zone: &Z) -> Vec<u8> {
    let mut source = vec![b'{'];
    for (name, raw) in &members.0 {
        let renamed = match name.as_ref() {
            "called_number" => "destNum",
            "sip_method" => "sipRequest",
            "sip_user_agent" => "userAgent",
            "source_ip" => {
                push_address(&mut source, raw, "ipIntruder", "portIntruder");
                continue;
            }
            "destination_ip" => {
                push_address(&mut source, raw, "ipHost", "portHost");
                continue;
            }
            name => name,
        };
        push_raw(&mut source, renamed, raw.get());
    }
    let stamp = members.text("event_timestamp");
    if let Some(time) = stamp.and_then(|stamp| utc(&stamp, zone)).filter(|_| members.text("time").is_none()) {
        push_member(&mut source, "time", &time);
    }
    source.push(b'}');
    source
}

/// Appends `,"name":RAW`.
fn push_raw(object: &mut Vec<u8>, name: &str, raw: &str) {
    if object.last() != Some(&b'{') {
        object.push(b',');
    }
    serde_json::to_writer(&mut *object, name).expect("a Vec takes all, and a string is JSON");
    object.push(b':');
    object.extend_from_slice(raw.as_bytes());
}

fn push_address(object: &mut Vec<u8>, raw: &serde_json::value::RawValue, ip: &str, port: &str) {
    let with_port = text(raw).and_then(|text| {
        // An IPv6 address alone can look like a shorter one with a port.
        let alone = text.parse::<IpAddr>().is_ok();
        text.parse::<SocketAddr>().ok().filter(|_| !alone)
    });
    match with_port {
        Some(address) => {
            push_member(object, ip, &address.ip().to_string());
            push_raw(object, port, &address.port().to_string());
        }
        None => push_raw(object, ip, raw.get()),
    }
}

/// `2022-02-22 11:19:15.848934346`, local time of the honeypot, in UTC. What stands behind the point are nanoseconds
/// without leading zeros, to six digits at least, and so no fraction where they are fewer than nine digits.
fn utc<Z: TimeZone>(stamp: &str, zone: &Z) -> Option<String> {
    let (seconds, nanoseconds) = stamp.split_once('.').unwrap_or((stamp, "0"));
    let seconds = NaiveDateTime::parse_from_str(seconds, "%Y-%m-%d %H:%M:%S").ok()?;
    let nanoseconds = nanoseconds.parse::<u32>().ok().filter(|nanoseconds| *nanoseconds < 1_000_000_000)?;
    let local = seconds + TimeDelta::nanoseconds(nanoseconds.into());
    // In the hour that comes twice the first is taken; in the one that does not come there is no time.
    zone.from_local_datetime(&local).earliest().map(|time| rfc3339(&time))
}

#[cfg(test)]
mod tests {
    use chrono::{FixedOffset, Utc};

    use super::super::event::{Indices, Line, read};
    use super::*;

    #[test]
    fn names_become_those_of_proxies() {
        let line = r#"{"app_name":"sentrypeer","event_timestamp":"2026-11-21 11:19:15.848934346","transport_type":"UDP","source_ip":"203.0.113.9","destination_ip":"198.51.100.7","called_number":"9011972598294121","sip_method":"OPTIONS","sip_user_agent":"friendly-scanner","n":{"a":[1]}}"#;
        let Ok(Line::Event(document)) = read(line.as_bytes(), &Indices::default(), &Utc) else { panic!() };
        assert_eq!(document.index, "sentrypeer");
        assert_eq!(
            str::from_utf8(&document.source).unwrap(),
            r#"{"app_name":"sentrypeer","event_timestamp":"2026-11-21 11:19:15.848934346","transport_type":"UDP","ipIntruder":"203.0.113.9","ipHost":"198.51.100.7","destNum":"9011972598294121","sipRequest":"OPTIONS","userAgent":"friendly-scanner","n":{"a":[1]},"time":"2026-11-21T11:19:15.848Z"}"#
        );
    }

    fn check_address(address: &str, expected: &str) {
        let line = format!(r#"{{"source_ip":{address},"called_number":"1"}}"#);
        let Ok(Line::Event(document)) = read(line.as_bytes(), &Indices::default(), &Utc) else { panic!() };
        let expected = format!("{{{expected},\"destNum\":\"1\"}}");
        assert_eq!(str::from_utf8(&document.source).unwrap(), expected);
    }

    #[test]
    fn ports_go_into_fields_of_their_own() {
        check_address(r#""203.0.113.9:5060""#, r#""ipIntruder":"203.0.113.9","portIntruder":5060"#);
        check_address(r#""[2001:db8::9]:5060""#, r#""ipIntruder":"2001:db8::9","portIntruder":5060"#);
        check_address(r#""2001:db8::9""#, r#""ipIntruder":"2001:db8::9""#);
        check_address(r#""nowhere""#, r#""ipIntruder":"nowhere""#);
        check_address("7", r#""ipIntruder":7"#);
    }

    #[test]
    fn nanoseconds_have_no_leading_zeros() {
        let zone = FixedOffset::east_opt(3600).unwrap();
        let check = |stamp: &str, expected: Option<&str>| assert_eq!(utc(stamp, &zone).as_deref(), expected);
        check("2026-11-21 11:19:15.848934346", Some("2026-11-21T10:19:15.848Z"));
        check("2026-11-21 11:19:15.5123456", Some("2026-11-21T10:19:15.005Z"));
        check("2026-11-21 11:19:15.000001", Some("2026-11-21T10:19:15.000Z"));
        check("2026-11-21 11:19:15", Some("2026-11-21T10:19:15.000Z"));
        check("2026-11-21 11:19:15.1000000000", None);
        check("2026-11-21T11:19:15Z", None);
        check("", None);
    }
}
