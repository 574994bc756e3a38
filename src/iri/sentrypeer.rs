//! Renames the fields of records from the SIP honeypot SentryPeer (option `-j`: one JSON object per line) to those that
//! proxies use (docs/protocol.md). Pure.
//!
//! `called_number` becomes `destNum`, `sip_method` becomes `sipRequest`, `sip_user_agent` becomes `userAgent`, `source_ip`
//! becomes `ipIntruder`, `destination_ip` becomes `ipHost`. Other fields keep their names. Newer versions append a port to
//! addresses, which becomes `portIntruder` or `portHost`. The field `time` is `event_timestamp` in UTC.

use std::net::{IpAddr, SocketAddr};

use chrono::{NaiveDateTime, TimeDelta, TimeZone};

use super::event::push_member;
use crate::runtime::json::{JsonObject, string_value};
use crate::runtime::time::rfc3339;

pub(super) fn rename_fields<Z: TimeZone>(members: &JsonObject<'_>, zone: &Z) -> Vec<u8> {
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
    let stamp = members.non_empty_string("event_timestamp");
    if let Some(time) = stamp
        .and_then(|stamp| local_time_to_utc(&stamp, zone))
        .filter(|_| members.non_empty_string("time").is_none())
    {
        push_member(&mut source, "time", &time);
    }
    source.push(b'}');
    source
}

fn push_raw(object: &mut Vec<u8>, name: &str, raw: &str) {
    if object.last() != Some(&b'{') {
        object.push(b',');
    }
    serde_json::to_writer(&mut *object, name)
        .expect("writing to a Vec cannot fail, and every string is valid JSON");
    object.push(b':');
    object.extend_from_slice(raw.as_bytes());
}

fn push_address(object: &mut Vec<u8>, raw: &serde_json::value::RawValue, ip: &str, port: &str) {
    let with_port = string_value(raw).and_then(|text| {
        // An IPv6 address without a port can also be parsed as a shorter address with a port.
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

/// Converts a local time of the honeypot such as `2022-02-22 11:19:15.848934346` to UTC. SentryPeer prints nanoseconds as
/// an integer without leading zeros, so the digits after the point are not a fraction.
fn local_time_to_utc<Z: TimeZone>(stamp: &str, zone: &Z) -> Option<String> {
    let (seconds, nanoseconds) = stamp.split_once('.').unwrap_or((stamp, "0"));
    let seconds = NaiveDateTime::parse_from_str(seconds, "%Y-%m-%d %H:%M:%S").ok()?;
    let nanoseconds = nanoseconds.parse::<u32>().ok().filter(|nanoseconds| *nanoseconds < 1_000_000_000)?;
    let local = seconds + TimeDelta::nanoseconds(nanoseconds.into());
    // Of an ambiguous local time the earlier one is used; a local time that does not exist gives none.
    zone.from_local_datetime(&local).earliest().map(|time| rfc3339(&time))
}

#[cfg(test)]
mod tests {
    use chrono::{FixedOffset, Utc};

    use super::*;
    use crate::iri::event::{ClassifiedLine, EventIndices, classify};

    #[test]
    fn fields_get_the_names_that_proxies_use() {
        let line = r#"{"app_name":"sentrypeer","event_timestamp":"2026-11-21 11:19:15.848934346","transport_type":"UDP","source_ip":"203.0.113.9","destination_ip":"198.51.100.7","called_number":"9011972598294121","sip_method":"OPTIONS","sip_user_agent":"friendly-scanner","n":{"a":[1]}}"#;
        let Ok(ClassifiedLine::Event(document)) = classify(line.as_bytes(), &EventIndices::default(), &Utc)
        else {
            panic!()
        };
        assert_eq!(document.index, "sentrypeer");
        assert_eq!(
            str::from_utf8(&document.source).unwrap(),
            r#"{"app_name":"sentrypeer","event_timestamp":"2026-11-21 11:19:15.848934346","transport_type":"UDP","ipIntruder":"203.0.113.9","ipHost":"198.51.100.7","destNum":"9011972598294121","sipRequest":"OPTIONS","userAgent":"friendly-scanner","n":{"a":[1]},"time":"2026-11-21T11:19:15.848Z"}"#
        );
    }

    fn check_address(address: &str, expected: &str) {
        let line = format!(r#"{{"source_ip":{address},"called_number":"1"}}"#);
        let Ok(ClassifiedLine::Event(document)) = classify(line.as_bytes(), &EventIndices::default(), &Utc)
        else {
            panic!()
        };
        let expected = format!("{{{expected},\"destNum\":\"1\"}}");
        assert_eq!(str::from_utf8(&document.source).unwrap(), expected);
    }

    #[test]
    fn ports_become_separate_fields() {
        check_address(r#""203.0.113.9:5060""#, r#""ipIntruder":"203.0.113.9","portIntruder":5060"#);
        check_address(r#""[2001:db8::9]:5060""#, r#""ipIntruder":"2001:db8::9","portIntruder":5060"#);
        check_address(r#""2001:db8::9""#, r#""ipIntruder":"2001:db8::9""#);
        check_address(r#""nowhere""#, r#""ipIntruder":"nowhere""#);
        check_address("7", r#""ipIntruder":7"#);
    }

    #[test]
    fn nanoseconds_have_no_leading_zeros() {
        let zone = FixedOffset::east_opt(3600).unwrap();
        let check = |stamp: &str, expected: Option<&str>| {
            assert_eq!(local_time_to_utc(stamp, &zone).as_deref(), expected)
        };
        check("2026-11-21 11:19:15.848934346", Some("2026-11-21T10:19:15.848Z"));
        check("2026-11-21 11:19:15.5123456", Some("2026-11-21T10:19:15.005Z"));
        check("2026-11-21 11:19:15.000001", Some("2026-11-21T10:19:15.000Z"));
        check("2026-11-21 11:19:15", Some("2026-11-21T10:19:15.000Z"));
        check("2026-11-21 11:19:15.1000000000", None);
        check("2026-11-21T11:19:15Z", None);
        check("", None);
    }
}
