//! Syslog into the store (protocol, section 6): header apart, patterns, a document. Runs in the connections' threads, and
//! for datagrams in that of `udp`.

pub mod header;
mod udp;

use std::net::SocketAddr;
use std::sync::Arc;

use chrono::{DateTime, Local, TimeZone};
use serde_json::{Map, json};

pub use udp::UdpReceiver;

use super::edge::{Taker, Takers};
use super::grok::{Patterns, Value};
use super::intake::{Batch, From, Gone, Intake, Letter};
use crate::iri::document::{Document, Mode};
use crate::iri::event::rfc3339;

/// A message: what RFC 5424 asks receivers to take is 2 KiB, and user agents are long.
pub const MESSAGE_BYTES_MAX: usize = 8 << 10;

/// What Logstash calls a line that no pattern fits.
const UNMATCHED_TAG: &str = "_grokparsefailure";

/// How messages become documents.
#[derive(Debug)]
pub struct SyslogConfig {
    /// Where they go.
    pub index: String,
    /// What takes them apart.
    pub patterns: Patterns,
}

/// A message as a document; false if no pattern fits. `peer`: who delivered it.
pub fn document<Z: TimeZone>(
    message: &[u8],
    peer: &str,
    arrived: &DateTime<Z>,
    config: &SyslogConfig,
) -> (Document, bool) {
    // Other encodings are rare, and a log line with a sign too many is better than none.
    let message = String::from_utf8_lossy(message);
    let header = header::parse(&message, arrived);
    let line = header.line(arrived);
    let mut fields = Map::new();
    let time = header.time.map_or_else(|| rfc3339(arrived), |time| rfc3339(&time));
    fields.insert("@timestamp".to_owned(), time.into());
    fields.insert("@version".to_owned(), "1".into());
    fields.insert("message".to_owned(), header.text.into());
    fields.insert("type".to_owned(), "syslog".into());
    fields.insert("host".to_owned(), peer.into());
    let texts = [
        ("syslog_host", header.host),
        ("syslog_program", header.program),
        ("syslog_pid", header.pid),
        ("syslog_message_id", header.message_id),
        ("syslog_structured_data", header.structured_data),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            fields.insert(name.to_owned(), text.into());
        }
    }
    if let Some(priority) = header.priority {
        fields.insert("syslog_facility".to_owned(), (priority / 8).into());
        fields.insert("syslog_severity".to_owned(), (priority % 8).into());
    }
    let found = config.patterns.fields(&line);
    let fits = found.is_some();
    match found {
        Some(found) => insert(&mut fields, found.fields),
        None => {
            fields.insert("tags".to_owned(), json!([UNMATCHED_TAG]));
        }
    }
    let source = serde_json::to_vec(&fields).expect("texts and numbers can be written as JSON");
    let (index, source) = (config.index.clone(), source.into_boxed_slice());
    (Document { index, kind: None, id: None, mode: Mode::Index, source }, fits)
}

/// Puts a pattern's fields over those of the header; a name that comes again becomes a list, as with Logstash.
fn insert(into: &mut Map<String, serde_json::Value>, fields: Vec<(&str, Value<'_>)>) {
    let mut last = None;
    for (name, value) in fields {
        let value = json(&value);
        match into.get_mut(name).filter(|_| last == Some(name)) {
            Some(serde_json::Value::Array(list)) => list.push(value),
            Some(first) => *first = json!([first.take(), value]),
            None => {
                into.insert(name.to_owned(), value);
            }
        }
        last = Some(name);
    }
}

/// A field's value in JSON.
pub fn json(value: &Value<'_>) -> serde_json::Value {
    match value {
        Value::Text(text) => (*text).into(),
        Value::Int(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
    }
}

/// Makes what takes the messages of a connection.
pub fn takers(intake: Arc<Intake>, config: Arc<SyslogConfig>) -> Takers {
    Arc::new(move |peer: SocketAddr| {
        let messages = Messages::new("syslog", Arc::clone(&intake), Arc::clone(&config));
        Box::new(Connection { messages, peer: peer.to_string(), host: peer.ip().to_canonical().to_string() })
    })
}

/// What messages of any transport go through.
struct Messages {
    listener: &'static str,
    intake: Arc<Intake>,
    config: Arc<SyslogConfig>,
    batch: Batch,
}

impl Messages {
    fn new(listener: &'static str, intake: Arc<Intake>, config: Arc<SyslogConfig>) -> Messages {
        Messages { listener, intake, config, batch: Batch::default() }
    }

    fn from<'a>(&self, peer: &'a str) -> From<'a> {
        From { listener: self.listener, peer }
    }

    /// Takes a message that came from the address `host`, under which dead letters name it as `peer`.
    fn take(
        &mut self,
        message: &[u8],
        peer: &str,
        host: &str,
        arrived: &DateTime<Local>,
    ) -> Result<(), Gone> {
        let (document, fits) = document(message, host, arrived, &self.config);
        if !fits {
            self.intake.counters().syslog_unmatched_total.one();
        }
        if self.batch.push(document) { self.flush(peer) } else { Ok(()) }
    }

    fn too_long(&self, begin: &[u8], peer: &str) {
        self.intake.counters().event_too_long_total.one();
        let reason = format!("longer than {MESSAGE_BYTES_MAX} bytes");
        let index = Some(self.config.index.as_str());
        let letter = Letter { from: self.from(peer), index, reason: &reason, value: begin, cut: true };
        self.intake.refuse(&letter, "too_long");
    }

    fn flush(&mut self, peer: &str) -> Result<(), Gone> {
        let from = self.from(peer);
        self.batch.write(&self.intake, from)
    }
}

struct Connection {
    messages: Messages,
    peer: String,
    host: String,
}

impl Taker for Connection {
    fn take(&mut self, message: &[u8]) -> Result<(), Gone> {
        self.messages.intake.counters().syslog_tcp_messages_total.one();
        self.messages.take(message, &self.peer, &self.host, &Local::now())
    }

    fn too_long(&mut self, begin: &[u8]) {
        self.messages.too_long(begin, &self.peer);
    }

    fn flush(&mut self) -> Result<(), Gone> {
        self.messages.flush(&self.peer)
    }

    fn end(self: Box<Self>, _reset: bool) {}
}

#[cfg(test)]
mod tests {
    use chrono::Utc;

    use super::*;

    fn check(message: &[u8], expected: serde_json::Value) {
        let config =
            SyslogConfig { index: "syslog".to_owned(), patterns: Patterns::compile(&[], &[]).unwrap() };
        let arrived = Utc.with_ymd_and_hms(2026, 11, 21, 20, 59, 41).unwrap();
        let (document, fits) = document(message, "192.0.2.1", &arrived, &config);
        let found: serde_json::Value = serde_json::from_slice(&document.source).unwrap();
        assert_eq!(found, expected);
        assert_eq!(fits, found.get("tags").is_none());
    }

    #[test]
    fn a_line_that_fits_gives_its_fields() {
        let text = "198.51.100.7,203.0.113.9,INVITE,sip:100@198.51.100.7,sip:9011972598294121@198.51.100.7,\
            friendly-scanner,[-46.63,-23.54]";
        let message = format!("<134>Apr 11 14:02:07 honey1 opensips[2101]: {text}");
        check(
            message.as_bytes(),
            json!({
                "@timestamp": "2026-04-11T14:02:07.000Z", "@version": "1", "message": text, "type": "syslog",
                "host": "192.0.2.1", "syslog_host": "honey1", "syslog_program": "opensips", "syslog_pid": "2101",
                "syslog_facility": 16, "syslog_severity": 6, "syslog_timestamp": "Apr 11 14:02:07",
                "honey_pot_ip": "198.51.100.7", "intruder_ip": "203.0.113.9", "sip_method": "INVITE", "ani": "100",
                "ani_domain": "198.51.100.7", "dnis": "9011972598294121", "dnis_domain": "198.51.100.7",
                "user_agent": "friendly-scanner", "longitude": "-46.63", "latitude": "-23.54",
            }),
        );
    }

    #[test]
    fn a_line_that_fits_none_is_kept_with_a_tag() {
        check(
            b"hello \xff",
            json!({
                "@timestamp": "2026-11-21T20:59:41.000Z", "@version": "1", "message": "hello \u{fffd}",
                "type": "syslog", "host": "192.0.2.1", "tags": ["_grokparsefailure"],
            }),
        );
    }

    #[test]
    fn a_name_that_comes_again_is_a_list() {
        let mut map = Map::new();
        map.insert("a".to_owned(), "header".into());
        insert(
            &mut map,
            vec![
                ("a", Value::Int(1)),
                ("b", Value::Text("x")),
                ("b", Value::Float(0.5)),
                ("b", Value::Int(2)),
            ],
        );
        assert_eq!(serde_json::Value::Object(map), json!({"a": 1, "b": ["x", 0.5, 2]}));
    }
}
