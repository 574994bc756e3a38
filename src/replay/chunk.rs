//! A chunk of a stream as JSON, byte for byte as the field's senders write it (protocol, sections 3 and 4): Python's
//! `json.dumps`, with a blank behind each comma and colon and only ASCII. Pure.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::cc::frame::name;

/// The fields of a stream that each of its chunks repeats, as they stand in JSON.
#[derive(Clone, Debug)]
pub struct Labels {
    user_id: String,
    stream_name: String,
}

/// What is left out of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Nothing.
    None,
    /// The content.
    Data,
    /// All that a stream could be told by.
    Names,
}

impl Labels {
    /// Of a stream's name. A name that is not of the usual form stands for its user, without its extension.
    pub fn of(stream_name: &[u8]) -> Labels {
        let text = String::from_utf8_lossy(stream_name);
        let user_id = match name::fields(stream_name) {
            Some(fields) => fields.user_id,
            None => text.strip_suffix(".pcap").unwrap_or(&text).to_owned(),
        };
        Labels { user_id: quoted(&user_id), stream_name: quoted(&text) }
    }

    /// A record's value.
    pub fn value(&self, data: &str, missing: Missing) -> String {
        let Labels { user_id, stream_name } = self;
        match missing {
            Missing::None => {
                format!(
                    "{{\"userid\": {user_id}, \"data\": \"{data}\", \"interceptionfilename\": {stream_name}}}"
                )
            }
            Missing::Data => format!("{{\"userid\": {user_id}, \"interceptionfilename\": {stream_name}}}"),
            Missing::Names => format!("{{\"data\": \"{data}\"}}"),
        }
    }

    /// A line for Logstash, without its end. `time` is RFC 3339 with milliseconds.
    pub fn line(&self, data: &str, time: &str, host: &str) -> String {
        let Labels { user_id, stream_name } = self;
        format!(
            "{{\"@timestamp\": \"{time}\", \"@version\": \"1\", \"message\": \"{data}\", \"host\": {}, \
             \"path\": \"lea\", \"tags\": [], \"type\": \"logstash\", \"level\": \"INFO\", \
             \"logger_name\": \"interception\", \"userid\": {user_id}, \"data\": \"{data}\", \
             \"interceptionfilename\": {stream_name}}}",
            quoted(host)
        )
    }
}

/// Standard base64 with padding.
pub fn encoded(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// A string as `json.dumps` writes it.
fn quoted(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for char in text.chars() {
        match char {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            '\u{8}' => json.push_str("\\b"),
            '\u{c}' => json.push_str("\\f"),
            ' '..='~' => json.push(char),
            _ => {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    // Writing to a String cannot fail.
                    let _ = write!(json, "\\u{unit:04x}");
                }
            }
        }
    }
    json.push('"');
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &[u8] = b"+447700900123-2-3_21_11_2026_20:59:41.pcap";

    #[test]
    fn a_value_is_what_a_real_sender_writes() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/pcap/answered-call.pcap");
        let call = std::fs::read(path).unwrap();
        let value = Labels::of(NAME).value(&encoded(&call[..8]), Missing::None);
        assert_eq!(
            value,
            "{\"userid\": \"+447700900123\", \"data\": \"1MOyoQIABAA=\", \
             \"interceptionfilename\": \"+447700900123-2-3_21_11_2026_20:59:41.pcap\"}"
        );
    }

    #[test]
    fn fields_can_be_missing() {
        let labels = Labels::of(b"call.pcap");
        let data = labels.value("AA==", Missing::Data);
        assert_eq!(data, "{\"userid\": \"call\", \"interceptionfilename\": \"call.pcap\"}");
        assert_eq!(labels.value("AA==", Missing::Names), "{\"data\": \"AA==\"}");
    }

    #[test]
    fn any_name_is_json() {
        for name in [&b"a\"b\\c\n\r\t\x08\x0c\x00\x7f"[..], "Anruf-ü-😀".as_bytes(), b"", b"\xff\xfe"] {
            let value = Labels::of(name).value("", Missing::None);
            assert!(value.is_ascii() && !value.contains('\n'));
            let json: serde_json::Value = serde_json::from_str(&value).unwrap();
            assert_eq!(json["interceptionfilename"], *String::from_utf8_lossy(name));
        }
        assert_eq!(quoted("ü😀\u{7f}"), "\"\\u00fc\\ud83d\\ude00\\u007f\"");
    }

    #[test]
    fn a_line_has_the_envelope() {
        let line = Labels::of(NAME).line("AA==", "2026-11-21T21:00:28.975Z", "host");
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
        assert_eq!(keys.len(), 12);
        assert_eq!((&json["message"], &json["data"]), (&"AA==".into(), &"AA==".into()));
        assert_eq!(json["userid"], "+447700900123");
    }
}
