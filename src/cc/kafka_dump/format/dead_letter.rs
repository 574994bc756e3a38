//! Format of dead letters: records that were rejected, kept complete so that they can be decoded again. Each
//! line is one JSON object:
//!
//! `{"lea_dead_letter":1,"topic":"interception","partition":0,"offset":12,"file":"dump.txt","line":13,"reason":"…","value":"…"}`
//!
//! `topic`, `partition` and `offset` are present if known, `file` with `line` or `byte` if the record came
//! from a dump. The value is a string. It is base64 in `value_base64` if it is not UTF-8 or the string would
//! be much longer. A tombstone has neither.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::lines::{ParsedLine, Scratch};
use super::{DumpLocation, KafkaPosition};
use crate::cc::wire::json::{self, JsonScalar};

/// Format version: the value of the first member.
const VERSION: u32 = 1;

/// Dead letter to be written.
#[derive(Clone, Copy, Debug)]
pub struct RecordDeadLetter<'a> {
    /// Position of the record in Kafka.
    pub position: Option<KafkaPosition<'a>>,
    /// Dump file, and the location in it.
    pub source: Option<(&'a str, DumpLocation)>,
    /// Reason for the rejection.
    pub reason: &'a str,
    /// The record's value, or bytes that were not a record.
    pub value: Option<&'a [u8]>,
}

#[derive(Serialize)]
struct DeadLetterJson<'a> {
    lea_dead_letter: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    byte: Option<u64>,
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

impl RecordDeadLetter<'_> {
    /// Formats the dead letter as a line, line end included.
    pub fn to_line(&self) -> Vec<u8> {
        let position = self.position;
        // A control character takes six bytes in a string. Base64 takes at most four bytes for three.
        let controls = |bytes: &[u8]| bytes.iter().filter(|byte| **byte < 0x20).count();
        let usual = self.value.filter(|value| controls(value) <= value.len() / 32);
        let value = usual.and_then(|value| std::str::from_utf8(value).ok());
        let base64 = if value.is_some() { None } else { self.value.map(|value| STANDARD.encode(value)) };
        let written = DeadLetterJson {
            lea_dead_letter: VERSION,
            topic: position.map(|position| position.topic).filter(|topic| !topic.is_empty()),
            partition: position.map(|position| position.partition).filter(|partition| *partition >= 0),
            offset: position.map(|position| position.offset),
            file: self.source.map(|(file, _)| file),
            line: self
                .source
                .and_then(|(_, place)| if let DumpLocation::Line(line) = place { Some(line) } else { None }),
            byte: self
                .source
                .and_then(|(_, place)| if let DumpLocation::Byte(byte) = place { Some(byte) } else { None }),
            reason: self.reason,
            value,
            value_base64: base64,
        };
        let mut line = serde_json::to_vec(&written).expect("strings and numbers can be written as JSON");
        line.push(b'\n');
        line
    }
}

/// Parses a line.
pub(super) fn parse_line<'a>(line: &'a [u8], scratch: &'a mut Scratch) -> ParsedLine<'a> {
    let (mut version, mut topic, mut partition, mut offset) = (None, JsonScalar::Null, None, None);
    let (mut value, mut base64) = (JsonScalar::Null, JsonScalar::Null);
    let read = json::for_each_member(line, &mut |name, member| match name {
        "lea_dead_letter" => version = member.as_number(),
        "topic" => topic = member,
        "partition" => partition = member.as_number(),
        "offset" => offset = member.as_number(),
        "value" => value = member,
        "value_base64" => base64 = member,
        _ => {}
    });
    if let Err(error) = read {
        return ParsedLine::Damaged(error.to_string());
    }
    match version {
        Some(version) if version == i64::from(VERSION) => {}
        Some(version) => {
            return ParsedLine::Damaged(format!(
                "dead letter format {version} is not supported (this lea supports {VERSION})"
            ));
        }
        None => return ParsedLine::Damaged("not a dead letter".to_owned()),
    }
    scratch.set_topic(&topic.into_text().unwrap_or_default());
    scratch.value.clear();
    let has_value = match (value.into_text(), base64.into_text()) {
        (Some(text), _) => {
            scratch.value.extend_from_slice(text.as_bytes());
            true
        }
        (None, Some(text)) => {
            if STANDARD.decode_vec(text.as_bytes(), &mut scratch.value).is_err() {
                return ParsedLine::Damaged("value_base64 is not base64".to_owned());
            }
            true
        }
        (None, None) => false,
    };
    let partition = partition.and_then(|partition| i32::try_from(partition).ok()).unwrap_or(-1);
    let position = offset.map(|offset| KafkaPosition { topic: &scratch.topic, partition, offset });
    ParsedLine::Record(position, has_value.then_some(&scratch.value))
}
