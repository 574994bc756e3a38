//! Writes a chunk of a stream as JSON, byte for byte as real senders do (docs/protocol.md, sections 3 and 4):
//! like Python's `json.dumps`, with a space after each comma and colon, and ASCII only. Pure.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::cc::wire::name;

/// Fields of a stream that each of its chunks repeats, encoded as JSON strings.
#[derive(Clone, Debug)]
pub(crate) struct ChunkLabels {
    user_id: String,
    stream_name: String,
}

/// Field that a faulty value lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OmittedField {
    None,
    Data,
    /// `userid` and `interceptionfilename`.
    Names,
}

impl ChunkLabels {
    /// Derives the fields from a stream name. If the name does not have the usual form, the user id is the
    /// name without its extension.
    pub(crate) fn from_stream_name(stream_name: &[u8]) -> ChunkLabels {
        let text = String::from_utf8_lossy(stream_name);
        let user_id = match name::parse_fields(stream_name) {
            Some(fields) => fields.user_id,
            None => text.strip_suffix(".pcap").unwrap_or(&text).to_owned(),
        };
        ChunkLabels { user_id: json_string(&user_id), stream_name: json_string(&text) }
    }

    /// Formats a record's value.
    pub(crate) fn value(&self, data: &str, missing: OmittedField) -> String {
        let ChunkLabels { user_id, stream_name } = self;
        match missing {
            OmittedField::None => {
                format!(
                    "{{\"userid\": {user_id}, \"data\": \"{data}\", \"interceptionfilename\": {stream_name}}}"
                )
            }
            OmittedField::Data => {
                format!("{{\"userid\": {user_id}, \"interceptionfilename\": {stream_name}}}")
            }
            OmittedField::Names => format!("{{\"data\": \"{data}\"}}"),
        }
    }

    /// Formats a line for Logstash, without a line end. `time` is RFC 3339 with milliseconds.
    pub(crate) fn line(&self, data: &str, time: &str, host: &str) -> String {
        let ChunkLabels { user_id, stream_name } = self;
        format!(
            "{{\"@timestamp\": \"{time}\", \"@version\": \"1\", \"message\": \"{data}\", \"host\": {}, \
             \"path\": \"lea\", \"tags\": [], \"type\": \"logstash\", \"level\": \"INFO\", \
             \"logger_name\": \"interception\", \"userid\": {user_id}, \"data\": \"{data}\", \
             \"interceptionfilename\": {stream_name}}}",
            json_string(host)
        )
    }
}

/// Checks that JSON can carry a stream name unchanged.
pub(crate) fn check_name(name: &[u8]) -> Result<(), String> {
    match std::str::from_utf8(name) {
        Ok("") => Err("the name is empty: give --name".to_owned()),
        Ok(_) => Ok(()),
        Err(_) => Err("JSON cannot carry a name that is not UTF-8: give --name".to_owned()),
    }
}

/// Encodes as standard base64 with padding.
pub(crate) fn encode_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Quotes a string as `json.dumps` does.
fn json_string(text: &str) -> String {
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
        let value = ChunkLabels::from_stream_name(NAME).value(&encode_base64(&call[..8]), OmittedField::None);
        assert_eq!(
            value,
            "{\"userid\": \"+447700900123\", \"data\": \"1MOyoQIABAA=\", \
             \"interceptionfilename\": \"+447700900123-2-3_21_11_2026_20:59:41.pcap\"}"
        );
    }

    #[test]
    fn faulty_values_lack_a_field() {
        let labels = ChunkLabels::from_stream_name(b"call.pcap");
        let data = labels.value("AA==", OmittedField::Data);
        assert_eq!(data, "{\"userid\": \"call\", \"interceptionfilename\": \"call.pcap\"}");
        assert_eq!(labels.value("AA==", OmittedField::Names), "{\"data\": \"AA==\"}");
    }

    #[test]
    fn any_name_becomes_valid_json() {
        for name in [&b"a\"b\\c\n\r\t\x08\x0c\x00\x7f"[..], "Anruf-ü-😀".as_bytes(), b"", b"\xff\xfe"] {
            let value = ChunkLabels::from_stream_name(name).value("", OmittedField::None);
            assert!(value.is_ascii() && !value.contains('\n'));
            let json: serde_json::Value = serde_json::from_str(&value).unwrap();
            assert_eq!(json["interceptionfilename"], *String::from_utf8_lossy(name));
        }
        assert_eq!(json_string("ü😀\u{7f}"), "\"\\u00fc\\ud83d\\ude00\\u007f\"");
    }

    #[test]
    fn names_that_json_would_change_are_refused() {
        assert_eq!(check_name("Anruf-ü".as_bytes()), Ok(()));
        assert!(check_name(b"\xff\xfe").unwrap_err().contains("not UTF-8"));
        assert!(check_name(b"").unwrap_err().contains("empty"));
    }

    #[test]
    fn a_line_has_the_logstash_envelope() {
        let line = ChunkLabels::from_stream_name(NAME).line("AA==", "2026-11-21T21:00:28.975Z", "host");
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
        assert_eq!(keys.len(), 12);
        assert_eq!((&json["message"], &json["data"]), (&"AA==".into(), &"AA==".into()));
        assert_eq!(json["userid"], "+447700900123");
    }
}
