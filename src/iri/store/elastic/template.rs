//! What an index of events is made like: the template of a name, and how a sender's mapping goes into it. Pure.
//!
//! The fields of protocol, sections 5 to 8, have the types that they are meant to have. A value that does not fit its
//! field's type is kept and not found by it (`ignore_malformed`), so that nobody's mistake loses an event; texts of unknown
//! fields are texts, whatever they look like, so that no value decides how those after it are read.

use serde_json::{Map, Value, json};

use super::event::number_field;
use super::{ADDED, client::part};
use crate::iri::billing;
use crate::iri::mapping::{Dynamic, Mapping};

/// What stands before a name in its template's.
const PREFIX: &str = "lea-";

/// Says in a template which form of it this is; one of another form is brought up to date.
const FORM: u64 = 1;

/// Above the templates that clusters come with; a longer name wins over a shorter one that its indices fit too.
const PRIORITY: usize = 200;

const DATE: &str = "strict_date_optional_time||yyyy-MM-dd HH:mm:ssZ||yyyy-MM-dd HH:mm:ss||epoch_millis";

const DATES: [&str; 5] = ["@timestamp", "time", "timestamp", "request_time", "reply_time"];

const ADDRESSES: [&str; 7] =
    ["ip_address", "ipIntruder", "ipHost", "honey_pot_ip", "intruder_ip", "source_ip", "destination_ip"];

const TEXTS: [&str; 30] = [
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
];

const LONGS: [&str; 6] =
    ["microseconds", "portHost", "portIntruder", "reply_code", "syslog_facility", "syslog_severity"];

/// The template's place.
pub fn path(name: &str) -> String {
    format!("/_index_template/{PREFIX}{}", part(name))
}

/// The templates of all names.
pub fn all() -> String {
    format!("/_index_template/{PREFIX}*")
}

/// What the templates are made of, besides a sender's mapping.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// The fields that hold numbers.
    pub numbers: Vec<String>,
    /// The index of billing rows.
    pub billing_index: String,
}

/// The template of a name as it is made first.
pub fn new(name: &str, given: &Given, sent: &Mapping) -> Value {
    let mut mappings = json!({
        "date_detection": false,
        "dynamic_templates": [{"texts": {"match_mapping_type": "string", "mapping": text()}}],
        "properties": properties(&given.numbers),
    });
    if name == given.billing_index {
        merge(&mut mappings, &billing::mapping());
    }
    add_mapping(&mut mappings, sent);
    json!({
        // A date alone: an index such as `calls-archive` is somebody else's.
        "index_patterns": [format!("{name}-*.*.*")],
        "priority": PRIORITY + name.chars().count(),
        "template": {
            "settings": {"index": {
                "mapping": {"ignore_malformed": true},
                "auto_expand_replicas": "0-1",
            }},
            "mappings": mappings,
            "aliases": {name: {}},
        },
        "_meta": {"lea": FORM, "name": name},
    })
}

/// The template in a server's answer to a question for one.
pub fn of_answer(answer: &Value) -> Option<&Value> {
    Some(&answer["index_templates"].get(0)?["index_template"])
}

/// The names whose templates a server's answer has, those of ours alone.
pub fn names(answer: &Value) -> Vec<String> {
    let templates = answer["index_templates"].as_array().map_or(&[][..], Vec::as_slice);
    let name = |template: &Value| {
        let meta = &template["index_template"]["_meta"];
        meta["lea"].as_u64().and_then(|_| meta["name"].as_str()).map(str::to_owned)
    };
    templates.iter().filter_map(name).collect()
}

/// A template that is there with what it lacks: what stands in it stays, also where people changed it. None: it lacks
/// nothing.
pub fn completed(there: &Value, name: &str, given: &Given, sent: &Mapping) -> Option<Value> {
    let mut template = new(name, given, sent);
    let wanted = template.clone();
    merge(&mut template, there);
    template["_meta"]["lea"] = wanted["_meta"]["lea"].clone();
    add_mapping(&mut template["template"]["mappings"], sent);
    // A server shows numbers and truths as texts.
    (flat(&template) != flat(there)).then_some(template)
}

/// What an index that is there has to know about what is added to events.
pub fn added_mapping(numbers: &[String]) -> Value {
    json!({"properties": {ADDED: added(numbers)}})
}

fn properties(numbers: &[String]) -> Map<String, Value> {
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
    put(&[ADDED], added(numbers));
    properties
}

fn added(numbers: &[String]) -> Value {
    let fields: Map<_, _> =
        numbers.iter().map(|field| (number_field(field), json!({"type": "keyword"}))).collect();
    json!({"properties": {"time": {"type": "date"}, "number": {"properties": fields}}})
}

fn text() -> Value {
    json!({"type": "text", "fields": {"keyword": keyword()}})
}

fn keyword() -> Value {
    json!({"type": "keyword", "ignore_above": 256})
}

/// A sender's fields take the place of those that stand there.
fn add_mapping(mappings: &mut Value, sent: &Mapping) {
    let sent_json = sent.to_json();
    if let Some(sent) = sent_json["properties"].as_object() {
        for (name, field) in sent {
            let is_object = field.get("properties").is_some();
            match &mut mappings["properties"][name] {
                there if is_object && there.get("properties").is_some() => merge(there, field),
                there => *there = field.clone(),
            }
        }
    }
    if sent.dynamic != Dynamic::True {
        mappings["dynamic"] = sent_json["dynamic"].clone();
    }
}

/// Puts `over` into `base`, member by member.
fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                match base.get_mut(key) {
                    // A field's definition is one thing.
                    Some(there) if !value["type"].is_string() => merge(there, value),
                    _ => drop(base.insert(key.clone(), value.clone())),
                }
            }
        }
        (base, over) => *base = over.clone(),
    }
}

/// The same with every number and truth as a text.
fn flat(value: &Value) -> Value {
    match value {
        Value::Object(object) => object.iter().map(|(key, value)| (key.clone(), flat(value))).collect(),
        Value::Array(array) => array.iter().map(flat).collect(),
        Value::Bool(_) | Value::Number(_) => value.to_string().into(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given() -> Given {
        let numbers = vec!["destNum".to_owned(), "a.b".to_owned()];
        Given { numbers, billing_index: "billing".to_owned() }
    }

    #[test]
    fn a_template_has_its_types() {
        let made = new("calls", &given(), &Mapping::default());
        assert_eq!(made["index_patterns"], json!(["calls-*.*.*"]));
        assert_eq!(made["priority"], 205);
        let properties = &made["template"]["mappings"]["properties"];
        assert_eq!(properties["lea"]["properties"]["number"]["properties"]["a_b"]["type"], "keyword");
        assert_eq!(properties["ipIntruder"]["type"], "ip");
        assert_eq!(properties["location"]["type"], "geo_point");
        let made = new("billing", &given(), &Mapping::default());
        let properties = &made["template"]["mappings"]["properties"];
        assert!(properties["request_time"]["format"].as_str().unwrap().starts_with("epoch_second||"));
        assert_eq!(properties["call_id"], json!({"type": "keyword"}));
        assert_eq!(completed(&made, "billing", &given(), &Mapping::default()), None);
    }

    #[test]
    fn what_is_there_stays_and_what_it_lacks_comes() {
        let made = new("calls", &given(), &Mapping::default());
        assert_eq!(completed(&made, "calls", &given(), &Mapping::default()), None);
        let mut there = made.clone();
        there["template"]["settings"]["index"] =
            json!({"mapping": {"ignore_malformed": "true"}, "number_of_shards": "3"});
        there["template"]["mappings"]["properties"]["key"] = json!({"type": "keyword"});
        let object = there["template"]["mappings"]["properties"].as_object_mut().unwrap();
        object.remove("location");
        let full = completed(&there, "calls", &given(), &Mapping::default()).unwrap();
        assert_eq!(full["template"]["settings"]["index"]["number_of_shards"], "3");
        assert_eq!(full["template"]["mappings"]["properties"]["key"], json!({"type": "keyword"}));
        assert_eq!(full["template"]["mappings"]["properties"]["location"]["type"], "geo_point");
        assert_eq!(completed(&full, "calls", &given(), &Mapping::default()), None);
    }

    #[test]
    fn a_senders_mapping_counts() {
        let sent = json!({"dynamic": "strict", "properties": {
            "destNum": {"type": "keyword"}, "x": {"properties": {"y": {"type": "long"}}}
        }});
        let sent = Mapping::parse(&sent).unwrap();
        let there = new("calls", &given(), &Mapping::default());
        for template in [new("calls", &given(), &sent), completed(&there, "calls", &given(), &sent).unwrap()]
        {
            let mappings = &template["template"]["mappings"];
            assert_eq!(mappings["dynamic"], "strict");
            assert_eq!(mappings["properties"]["destNum"], json!({"type": "keyword"}));
            assert_eq!(mappings["properties"]["x"]["properties"]["y"]["type"], "long");
            assert_eq!(completed(&template, "calls", &given(), &sent), None);
        }
    }

    #[test]
    fn names_are_those_of_our_own_templates() {
        let ours = json!({"name": "lea-a", "index_template": {"_meta": {"lea": 1, "name": "a"}}});
        let other = json!({"name": "lea-b", "index_template": {"index_patterns": ["*"]}});
        assert_eq!(names(&json!({"index_templates": [other, ours]})), ["a"]);
        assert_eq!(names(&json!({})), Vec::<String>::new());
    }
}
