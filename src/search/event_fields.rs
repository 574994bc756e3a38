//! The types of the members that events have (docs/protocol.md), for the mappings of indices. Pure.
//!
//! The embedded store and the templates of a cluster use the same list.

use serde_json::{Map, Value, json};

use super::mapping::Mapping;

const DATE: &str = "strict_date_optional_time||yyyy-MM-dd HH:mm:ssZ||yyyy-MM-dd HH:mm:ss||epoch_millis";

const DATES: [&str; 5] = ["@timestamp", "time", "timestamp", "request_time", "reply_time"];

const ADDRESSES: [&str; 7] =
    ["ip_address", "ipIntruder", "ipHost", "honey_pot_ip", "intruder_ip", "source_ip", "destination_ip"];

const TEXTS: [&str; 33] = [
    "@version",
    "ani",
    "ani_domain",
    "call_id",
    "called_number",
    "callee_id",
    "caller_id",
    "country",
    "destNum",
    "dnis",
    "dnis_domain",
    "event",
    "from_user",
    "interceptionfilename",
    "key",
    "level",
    "logger_name",
    "message",
    "path",
    "providerid",
    "serviceid",
    "sipRequest",
    "sip_method",
    "syslog_host",
    "syslog_pid",
    "syslog_program",
    "tags",
    "to_user",
    "type",
    "userAgent",
    "user_agent",
    "user_id",
    "userid",
];

const LONGS: [&str; 6] =
    ["microseconds", "portHost", "portIntruder", "reply_code", "syslog_facility", "syslog_severity"];

/// Returns the `properties` of a mapping with all members.
pub(crate) fn properties() -> Map<String, Value> {
    let mut properties = Map::new();
    let mut put = |names: &[&str], kind: Value| {
        properties.extend(names.iter().map(|name| ((*name).to_owned(), kind.clone())));
    };
    put(&DATES, json!({"type": "date", "format": DATE}));
    put(&ADDRESSES, json!({"type": "ip", "fields": {"keyword": keyword()}}));
    put(&TEXTS, text());
    put(&LONGS, json!({"type": "long"}));
    put(&["latitude", "longitude"], json!({"type": "double"}));
    put(&["location"], json!({"type": "geo_point"}));
    properties
}

/// Returns the mapping with all members.
pub fn mapping() -> Mapping {
    Mapping::parse(&json!({ "properties": properties() }))
        .expect("the mapping is our own, and a test reads it")
}

/// Returns the definition of a text with a keyword sub-field.
pub(crate) fn text() -> Value {
    json!({"type": "text", "fields": {"keyword": keyword()}})
}

fn keyword() -> Value {
    json!({"type": "keyword", "ignore_above": 256})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mapping_has_all_members() {
        let expected = json!({ "properties": properties() });
        assert_eq!(mapping().to_json(), expected);
        assert_eq!(properties()["ipIntruder"]["fields"]["keyword"]["type"], "keyword");
    }
}
