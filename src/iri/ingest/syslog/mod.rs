//! Syslog messages (docs/protocol.md): parses the header, matches patterns, builds a document. Runs in the threads of
//! connections; datagrams are handled in the threads of [`super::udp`].

mod devices;
pub mod header;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use chrono::{DateTime, Local, TimeZone};
use devices::GatewayMessage;
use serde_json::{Map, Value, json};

use super::event_sink::{EventBatch, EventSink, MessageOrigin, RejectedInput, StoreClosed};
use super::framing::Framing;
use super::grok::{FieldValue, GrokPatterns};
use super::listener::{HandlerFactory, ListenerConfig, ListenerDeps, MessageHandler};
use super::udp::{DatagramHandler, UdpConfig, UdpReceiver};
use crate::Result;
use crate::runtime::json::parse_value;
use crate::runtime::time::rfc3339;
use crate::search::document::{Document, WriteMode};

/// Maximum size of a message. RFC 5424 recommends at least 2 KiB for receivers, and user agents are long.
pub const MESSAGE_BYTES_MAX: usize = 8 << 10;

/// The tag that Logstash adds to a message that matches no pattern.
const UNMATCHED_TAG: &str = "_grokparsefailure";

/// The settings that turn messages into documents.
#[derive(Debug)]
pub struct SyslogConfig {
    pub index: String,
    pub patterns: GrokPatterns,
}

/// Converts a message to a document. Returns false if no pattern matches. `peer` is the address of the sender.
pub fn to_document<Z: TimeZone>(
    message: &[u8],
    peer: &str,
    arrived: &DateTime<Z>,
    config: &SyslogConfig,
) -> (Document, bool) {
    // Other encodings are rare. A message with replacement characters is better than no message.
    let message = String::from_utf8_lossy(message);
    let header = header::parse(&message, arrived);
    let line = header.to_pattern_line(arrived);
    let mut fields = Map::new();
    let gateway = GatewayMessage::parse(header.text, arrived).filter(|_| header.time.is_none());
    let time = header.time.or(gateway.as_ref().and_then(|gateway| gateway.time));
    let time = time.map_or_else(|| rfc3339(arrived), |time| rfc3339(&time));
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
    if let Some(gateway) = &gateway {
        gateway.insert_into(&mut fields);
    }
    let has_members = insert_json_members(&mut fields, header.text);
    let found = config.patterns.match_line(&line);
    let fits = found.is_some() || has_members || gateway.is_some();
    match found {
        Some(found) => insert_fields(&mut fields, found.fields),
        None if fits => {}
        None => {
            fields.insert("tags".to_owned(), json!([UNMATCHED_TAG]));
        }
    }
    let source = serde_json::to_vec(&fields).expect("strings and numbers are valid JSON");
    let (index, source) = (config.index.clone(), source.into_boxed_slice());
    (Document { index, doc_type: None, id: None, mode: WriteMode::Index, source }, fits)
}

/// Adds the members of a message that is a JSON object, with or without `@cee:` before it. The fields of the header stay; what
/// has the name of one of them is in `message` only. Returns false if the message is something else.
fn insert_json_members(fields: &mut Map<String, Value>, text: &str) -> bool {
    let text = text.trim();
    let object = text.strip_prefix("@cee:").unwrap_or(text).trim_start();
    if !object.starts_with('{') {
        return false;
    }
    let Ok(Value::Object(members)) = parse_value(object.as_bytes()) else { return false };
    for (name, value) in members {
        fields.entry(name).or_insert(value);
    }
    true
}

/// Adds a pattern's fields, which replace those of the header. A repeated name becomes a list, as in Logstash.
fn insert_fields(into: &mut Map<String, serde_json::Value>, fields: Vec<(&str, FieldValue<'_>)>) {
    let mut last = None;
    for (name, value) in fields {
        let value = to_json(&value);
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

/// Converts a field's value to JSON.
pub fn to_json(value: &FieldValue<'_>) -> serde_json::Value {
    match value {
        FieldValue::Text(text) => (*text).into(),
        FieldValue::Int(number) => (*number).into(),
        FieldValue::Float(number) => (*number).into(),
    }
}

/// Starts a listener for syslog over TCP.
pub(crate) fn start_tcp(
    listener: TcpListener,
    deps: &ListenerDeps,
    config: Arc<SyslogConfig>,
) -> Result<JoinHandle<Result<()>>> {
    let sink = Arc::clone(&deps.sink);
    let handler_factory: HandlerFactory = Arc::new(move |peer: SocketAddr| {
        Box::new(SyslogConnection {
            writer: SyslogWriter::new(Arc::clone(&sink), Arc::clone(&config)),
            peer: peer.to_string(),
            host: peer.ip().to_canonical().to_string(),
        })
    });
    let listener_config = ListenerConfig {
        name: "syslog",
        transport: Some("tcp"),
        framing: Framing::Syslog,
        message_bytes_max: MESSAGE_BYTES_MAX,
    };
    deps.spawn(listener, listener_config, handler_factory)
}

/// Writes messages of either transport into the store.
struct SyslogWriter {
    sink: Arc<EventSink>,
    config: Arc<SyslogConfig>,
    batch: EventBatch,
}

impl SyslogWriter {
    fn new(sink: Arc<EventSink>, config: Arc<SyslogConfig>) -> SyslogWriter {
        SyslogWriter { sink, config, batch: EventBatch::default() }
    }

    /// Adds a message. `host` is the sender's address in the document, `peer` names the sender in dead letters.
    fn add(
        &mut self,
        message: &[u8],
        peer: &str,
        host: &str,
        arrived: &DateTime<Local>,
    ) -> Result<(), StoreClosed> {
        let (document, fits) = to_document(message, host, arrived, &self.config);
        if !fits {
            self.sink.metrics().syslog_unmatched_total.inc();
        }
        if self.batch.push(document) { self.flush(peer) } else { Ok(()) }
    }

    fn too_long(&self, begin: &[u8], peer: &str) {
        self.sink.metrics().events_rejected_too_long.inc();
        let reason = format!("longer than {MESSAGE_BYTES_MAX} bytes");
        let index = Some(self.config.index.as_str());
        let letter =
            RejectedInput { origin: origin(peer), index, reason: &reason, value: begin, is_truncated: true };
        self.sink.reject(&letter, "too_long");
    }

    fn flush(&mut self, peer: &str) -> Result<(), StoreClosed> {
        let from = origin(peer);
        self.batch.write(&self.sink, from)
    }
}

fn origin(peer: &str) -> MessageOrigin<'_> {
    MessageOrigin { listener: "syslog", peer }
}

/// Starts a listener for syslog over UDP.
pub(crate) fn start_udp(
    addr: SocketAddr,
    deps: &ListenerDeps,
    config: Arc<SyslogConfig>,
) -> Result<UdpReceiver> {
    let udp_config = UdpConfig {
        name: "syslog",
        thread_names: ["syslog-udp", "syslog-store"],
        message_bytes_max: MESSAGE_BYTES_MAX,
        dropped: [|metrics| &metrics.syslog_dropped_queue_full, |metrics| &metrics.syslog_dropped_kernel],
    };
    let writer = SyslogWriter::new(Arc::clone(&deps.sink), config);
    UdpReceiver::start(addr, deps, udp_config, SyslogDatagrams { writer, peer: String::new() })
}

/// The datagrams of all peers.
struct SyslogDatagrams {
    writer: SyslogWriter,
    /// The peer of the last datagram.
    peer: String,
}

impl DatagramHandler for SyslogDatagrams {
    fn handle(
        &mut self,
        datagram: &[u8],
        peer: SocketAddr,
        arrived: &DateTime<Local>,
    ) -> Result<(), StoreClosed> {
        // Some senders end datagrams with a newline or NUL.
        let end = datagram.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n' | 0));
        let Some(end) = end else { return Ok(()) };
        self.peer = peer.to_string();
        let host = peer.ip().to_canonical().to_string();
        self.writer.add(&datagram[..=end], &self.peer, &host, arrived)
    }

    fn handle_too_long(&mut self, begin: &[u8], peer: SocketAddr) {
        self.writer.too_long(begin, &peer.to_string());
    }

    fn flush(&mut self) -> Result<(), StoreClosed> {
        self.writer.flush(&self.peer)
    }
}

struct SyslogConnection {
    writer: SyslogWriter,
    peer: String,
    host: String,
}

impl MessageHandler for SyslogConnection {
    fn handle(&mut self, message: &[u8]) -> Result<(), StoreClosed> {
        self.writer.add(message, &self.peer, &self.host, &crate::runtime::time::now_local())
    }

    fn handle_too_long(&mut self, begin: &[u8]) {
        self.writer.too_long(begin, &self.peer);
    }

    fn flush(&mut self) -> Result<(), StoreClosed> {
        self.writer.flush(&self.peer)
    }

    fn finish(self: Box<Self>, _reset: bool) {}
}

#[cfg(test)]
mod tests {
    use chrono::Utc;

    use super::*;

    fn check(message: &[u8], expected: serde_json::Value) {
        let config =
            SyslogConfig { index: "syslog".to_owned(), patterns: GrokPatterns::compile(&[], &[]).unwrap() };
        let arrived = Utc.with_ymd_and_hms(2026, 11, 21, 20, 59, 41).unwrap();
        let (document, fits) = to_document(message, "192.0.2.1", &arrived, &config);
        let found: serde_json::Value = serde_json::from_slice(&document.source).unwrap();
        assert_eq!(found, expected);
        assert_eq!(fits, found.get("tags").is_none());
    }

    #[test]
    fn a_message_that_matches_gives_the_fields_of_the_pattern() {
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
    fn members_of_a_json_message_become_fields() {
        let common = |text: &str, more: Value| {
            let mut fields = json!({
                "@timestamp": "2026-11-21T20:59:41.000Z", "@version": "1", "message": text, "type": "syslog",
                "host": "192.0.2.1",
            });
            let members = more.as_object().unwrap().clone();
            fields.as_object_mut().unwrap().extend(members);
            fields
        };
        let text = r#"{"event":"login","host":"h","user":{"id":7},"message":"m"}"#;
        check(text.as_bytes(), common(text, json!({"event": "login", "user": {"id": 7}})));
        let text = r#"@cee: {"a":1}"#;
        check(text.as_bytes(), common(text, json!({"a": 1})));
        let text = r#"@cee:{"a":"x\udcffy"}"#;
        check(text.as_bytes(), common(text, json!({"a": "x\u{fffd}y"})));
        for text in ["@cee: [1]", "{\"a\":", "@cee:", "{}x"] {
            check(text.as_bytes(), common(text, json!({"tags": ["_grokparsefailure"]})));
        }
        let text = "[S=1] [SID=a:1:2] x [Time: 20:59:40]";
        let more = json!({"@timestamp": "2026-11-21T20:59:40.000Z", "gateway_sequence": 1, "gateway_session": "a:1:2"});
        check(text.as_bytes(), common(text, more));
    }

    #[test]
    fn a_message_that_matches_no_pattern_is_tagged() {
        check(
            b"hello \xff",
            json!({
                "@timestamp": "2026-11-21T20:59:41.000Z", "@version": "1", "message": "hello \u{fffd}",
                "type": "syslog", "host": "192.0.2.1", "tags": ["_grokparsefailure"],
            }),
        );
    }

    #[test]
    fn a_repeated_name_becomes_a_list() {
        let mut map = Map::new();
        map.insert("a".to_owned(), "header".into());
        insert_fields(
            &mut map,
            vec![
                ("a", FieldValue::Int(1)),
                ("b", FieldValue::Text("x")),
                ("b", FieldValue::Float(0.5)),
                ("b", FieldValue::Int(2)),
            ],
        );
        assert_eq!(serde_json::Value::Object(map), json!({"a": 1, "b": ["x", 0.5, 2]}));
    }
}
