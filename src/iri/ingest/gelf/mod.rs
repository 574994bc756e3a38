//! GELF, the format of Graylog (docs/protocol.md): one JSON object per message, over TCP with a NUL at its end, over UDP also
//! compressed and in chunks. Runs in the threads of connections; datagrams are handled in the threads of [`super::udp`].

mod chunks;

use std::borrow::Cow;
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use chrono::{DateTime, Local, TimeZone};
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use serde_json::{Map, Value};

use self::chunks::{ChunkAssembler, Chunks};
use super::event_sink::{EventBatch, EventSink, MessageOrigin, RejectedInput, StoreClosed};
use super::framing::{EXCERPT_BYTES, Framing};
use super::listener::{HandlerFactory, ListenerConfig, ListenerDeps, MessageHandler};
use super::udp::{DatagramHandler, UdpConfig, UdpReceiver};
use crate::Result;
use crate::runtime::json::parse_value;
use crate::runtime::time::{now_local, rfc3339, rfc3339_ms};
use crate::search::document::{Document, SOURCE_BYTES_MAX, WriteMode};

/// Maximum size of a message, compressed and decompressed: 128 chunks of 8 KiB.
pub const MESSAGE_BYTES_MAX: usize = SOURCE_BYTES_MAX;

/// First bytes of compressed messages (RFC 1952, RFC 1950).
const GZIP: &[u8] = &[0x1f, 0x8b];
const ZLIB: u8 = 0x78;

/// The reason why a message is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GelfError {
    #[error("not a JSON object: {0}")]
    NotAnObject(String),
    #[error("malformed compressed message")]
    Compressed,
    #[error("longer than {MESSAGE_BYTES_MAX} bytes")]
    TooLong,
}

/// Decompresses a message, if it is compressed.
pub fn decompress(message: &[u8]) -> std::result::Result<Cow<'_, [u8]>, GelfError> {
    let limit = MESSAGE_BYTES_MAX as u64 + 1;
    let mut plain = Vec::new();
    let read = match message {
        message if message.starts_with(GZIP) => {
            MultiGzDecoder::new(message).take(limit).read_to_end(&mut plain)
        }
        [ZLIB, ..] => ZlibDecoder::new(message).take(limit).read_to_end(&mut plain),
        message => return Ok(Cow::Borrowed(message)),
    };
    match read {
        Ok(bytes) if bytes > MESSAGE_BYTES_MAX => Err(GelfError::TooLong),
        Ok(_) => Ok(Cow::Owned(plain)),
        Err(_) => Err(GelfError::Compressed),
    }
}

/// Converts a message to a document. The members that syslog has too get the names that they have there. `peer` is the address
/// of the sender.
pub fn to_document<Z: TimeZone>(
    message: &[u8],
    peer: &str,
    arrived: &DateTime<Z>,
    index: &str,
) -> std::result::Result<Document, GelfError> {
    let members = match parse_value(message) {
        Ok(Value::Object(members)) => members,
        Ok(_) => return Err(GelfError::NotAnObject("expected an object".to_owned())),
        Err(error) => {
            return Err(GelfError::NotAnObject(error.to_string().replace(" at line 1 column ", " at byte ")));
        }
    };
    let time = members.get("timestamp").and_then(timestamp_ms).map_or_else(|| rfc3339(arrived), rfc3339_ms);
    let mut fields = Map::new();
    fields.insert("@timestamp".to_owned(), time.into());
    fields.insert("@version".to_owned(), "1".into());
    fields.insert("type".to_owned(), "gelf".into());
    fields.insert("host".to_owned(), peer.into());
    for (name, value) in members {
        let name = match name.as_str() {
            "version" | "timestamp" => continue,
            "short_message" => "message",
            "host" => "syslog_host",
            "level" => "syslog_severity",
            name => name.strip_prefix('_').filter(|name| !name.is_empty()).unwrap_or(name),
        };
        fields.entry(name.to_owned()).or_insert(value);
    }
    let source = serde_json::to_vec(&fields).unwrap_or_default();
    let (index, source) = (index.to_owned(), source.into_boxed_slice());
    Ok(Document { index, doc_type: None, id: None, mode: WriteMode::Index, source })
}

/// Returns a number of seconds since 1970 in milliseconds. Some senders write it as a string.
fn timestamp_ms(value: &Value) -> Option<i64> {
    let seconds = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.parse().ok()?,
        _ => return None,
    };
    // The years 0 to 9999, which every reader of RFC 3339 understands.
    (-62_167_219_200.0..253_402_300_800.0).contains(&seconds).then_some((seconds * 1_000.0).round() as i64)
}

/// Starts a listener for GELF over TCP.
pub(crate) fn start_tcp(
    listener: TcpListener,
    deps: &ListenerDeps,
    index: Arc<str>,
) -> Result<JoinHandle<Result<()>>> {
    let sink = Arc::clone(&deps.sink);
    let handler_factory: HandlerFactory = Arc::new(move |peer: SocketAddr| {
        Box::new(GelfConnection { writer: GelfWriter::new(Arc::clone(&sink), Arc::clone(&index)), peer })
    });
    let config = ListenerConfig {
        name: "gelf",
        transport: Some("tcp"),
        framing: Framing::Nul,
        message_bytes_max: MESSAGE_BYTES_MAX,
    };
    deps.spawn(listener, config, handler_factory)
}

/// Starts a listener for GELF over UDP.
pub(crate) fn start_udp(addr: SocketAddr, deps: &ListenerDeps, index: Arc<str>) -> Result<UdpReceiver> {
    let config = UdpConfig {
        name: "gelf",
        thread_names: ["gelf-udp", "gelf-store"],
        message_bytes_max: 64 << 10,
        dropped: [|metrics| &metrics.gelf_dropped_queue_full, |metrics| &metrics.gelf_dropped_kernel],
    };
    let writer = GelfWriter::new(Arc::clone(&deps.sink), index);
    UdpReceiver::start(addr, deps, config, GelfDatagrams { writer, assembler: ChunkAssembler::default() })
}

/// Writes messages of either transport into the store.
struct GelfWriter {
    sink: Arc<EventSink>,
    index: Arc<str>,
    batch: EventBatch,
    /// The peer of the last message.
    peer: String,
}

impl GelfWriter {
    fn new(sink: Arc<EventSink>, index: Arc<str>) -> GelfWriter {
        GelfWriter { sink, index, batch: EventBatch::default(), peer: String::new() }
    }

    fn add(
        &mut self,
        message: &[u8],
        peer: SocketAddr,
        arrived: &DateTime<Local>,
    ) -> std::result::Result<(), StoreClosed> {
        let host = peer.ip().to_canonical().to_string();
        let document = decompress(message).and_then(|plain| to_document(&plain, &host, arrived, &self.index));
        self.peer = peer.to_string();
        match document {
            Ok(document) => {
                if self.batch.push(document) {
                    return self.flush();
                }
                Ok(())
            }
            Err(error @ GelfError::TooLong) => {
                self.too_long(&message[..message.len().min(EXCERPT_BYTES)], peer, &error);
                Ok(())
            }
            Err(error) => {
                self.sink.metrics().events_rejected_malformed.inc();
                self.reject(message, &error.to_string(), "malformed", false);
                Ok(())
            }
        }
    }

    fn too_long(&mut self, begin: &[u8], peer: SocketAddr, error: &GelfError) {
        self.peer = peer.to_string();
        self.sink.metrics().events_rejected_too_long.inc();
        self.reject(begin, &error.to_string(), "too_long", true);
    }

    fn reject(&self, value: &[u8], reason: &str, word: &'static str, is_truncated: bool) {
        let origin = MessageOrigin { listener: "gelf", peer: &self.peer };
        self.sink
            .reject(&RejectedInput { origin, index: Some(&self.index), reason, value, is_truncated }, word);
    }

    fn flush(&mut self) -> std::result::Result<(), StoreClosed> {
        self.batch.write(&self.sink, MessageOrigin { listener: "gelf", peer: &self.peer })
    }
}

struct GelfConnection {
    writer: GelfWriter,
    peer: SocketAddr,
}

impl MessageHandler for GelfConnection {
    fn handle(&mut self, message: &[u8]) -> std::result::Result<(), StoreClosed> {
        self.writer.add(message, self.peer, &now_local())
    }

    fn handle_too_long(&mut self, begin: &[u8]) {
        self.writer.too_long(begin, self.peer, &GelfError::TooLong);
    }

    fn flush(&mut self) -> std::result::Result<(), StoreClosed> {
        self.writer.flush()
    }

    fn finish(self: Box<Self>, _reset: bool) {}
}

/// The datagrams of all peers.
struct GelfDatagrams {
    writer: GelfWriter,
    assembler: ChunkAssembler,
}

impl GelfDatagrams {
    fn count_dropped(&self, messages: u64) {
        if messages > 0 {
            self.writer.sink.metrics().gelf_dropped_incomplete.add(messages);
            self.writer.sink.warn(
                "gelf_incomplete",
                format_args!("gelf_messages_dropped reason=incomplete messages={messages}"),
            );
        }
    }
}

impl DatagramHandler for GelfDatagrams {
    fn handle(
        &mut self,
        datagram: &[u8],
        peer: SocketAddr,
        arrived: &DateTime<Local>,
    ) -> std::result::Result<(), StoreClosed> {
        let (chunks, dropped) = self.assembler.add(datagram, peer, Instant::now());
        self.count_dropped(dropped);
        match chunks {
            Chunks::NotChunked => self.writer.add(datagram, peer, arrived),
            Chunks::Complete(message) => self.writer.add(&message, peer, arrived),
            Chunks::Incomplete => Ok(()),
            Chunks::Malformed => {
                self.writer.peer = peer.to_string();
                self.writer.sink.metrics().events_rejected_malformed.inc();
                let begin = &datagram[..datagram.len().min(EXCERPT_BYTES)];
                self.writer.reject(begin, "malformed chunk", "malformed", datagram.len() > EXCERPT_BYTES);
                Ok(())
            }
        }
    }

    fn handle_too_long(&mut self, begin: &[u8], peer: SocketAddr) {
        self.writer.too_long(begin, peer, &GelfError::TooLong);
    }

    fn flush(&mut self) -> std::result::Result<(), StoreClosed> {
        let dropped = self.assembler.forget_old(Instant::now());
        self.count_dropped(dropped);
        self.writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use chrono::Utc;
    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(message: &str, expected: Value) {
        let arrived = Utc.with_ymd_and_hms(2026, 11, 21, 20, 59, 41).unwrap();
        let document = to_document(message.as_bytes(), "192.0.2.1", &arrived, "syslog").unwrap();
        let mut found: Value = serde_json::from_slice(&document.source).unwrap();
        let fields = found.as_object_mut().unwrap();
        assert_eq!(fields.remove("type"), Some("gelf".into()));
        assert_eq!(fields.remove("host"), Some("192.0.2.1".into()));
        fields.remove("@version");
        assert_eq!(found, expected, "{message}");
    }

    #[test]
    fn a_message_becomes_a_document() {
        check(
            r#"{"version":"1.1","host":"pbx1","short_message":"m","full_message":"f","timestamp":1795294781.5,"level":3,
                "_call_id":"a","_host":"b","x":{"y":1}}"#,
            json!({
                "@timestamp": "2026-11-21T20:59:41.500Z", "message": "m", "full_message": "f", "syslog_host": "pbx1",
                "syslog_severity": 3, "call_id": "a", "x": {"y": 1},
            }),
        );
        for timestamp in ["null", "\"x\"", "1e300", "-1e300", "[1]"] {
            check(
                &format!(r#"{{"timestamp":{timestamp},"_":1}}"#),
                json!({"@timestamp": "2026-11-21T20:59:41.000Z", "_": 1}),
            );
        }
        check(r#"{"timestamp":"-1"}"#, json!({"@timestamp": "1969-12-31T23:59:59.000Z"}));
        let arrived = Utc.with_ymd_and_hms(2026, 11, 21, 20, 59, 41).unwrap();
        for other in ["", "[1]", "{", "x"] {
            assert!(matches!(
                to_document(other.as_bytes(), "p", &arrived, "i"),
                Err(GelfError::NotAnObject(_))
            ));
        }
    }

    #[test]
    fn compressed_messages_are_decompressed_up_to_the_limit() {
        let gzip = |bytes: &[u8]| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        let zlib = |bytes: &[u8]| {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        assert_eq!(decompress(b"{}").unwrap(), &b"{}"[..]);
        assert_eq!(decompress(&gzip(b"{}")).unwrap(), &b"{}"[..]);
        assert_eq!(decompress(&zlib(b"{}")).unwrap(), &b"{}"[..]);
        let long = vec![b' '; MESSAGE_BYTES_MAX + 1];
        for compress in [&gzip as &dyn Fn(&[u8]) -> Vec<u8>, &zlib] {
            assert_eq!(decompress(&compress(&long[1..])).unwrap().len(), MESSAGE_BYTES_MAX);
            assert_eq!(decompress(&compress(&long)), Err(GelfError::TooLong));
            let cut = compress(b"{\"short_message\":\"m\"}");
            assert_eq!(decompress(&cut[..cut.len() / 2]), Err(GelfError::Compressed));
        }
    }
}
