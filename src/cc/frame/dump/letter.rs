//! Dead letters: what could not be used, kept whole so that it can be read again. One JSON object a line:
//!
//! `{"lea_dead_letter":1,"topic":"interception","partition":0,"offset":12,"file":"dump.txt","line":13,"reason":"…","value":"…"}`
//!
//! `topic`, `partition` and `offset` stand there if they are known, `file` with `line` or `byte` if it came from a dump.
//! The value is a string, or, where it is no UTF-8 or a string would be much longer, base64 in `value_base64`; a record
//! without a value has neither.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::lines::{Line, Scratch};
use super::{Place, Position};
use crate::cc::frame::json::{self, Loose};

/// The member that every dead letter begins with; its value is the version of this format.
pub const MARK: &[u8] = b"lea_dead_letter";

const VERSION: u32 = 1;

/// A dead letter to be written.
#[derive(Clone, Copy, Debug)]
pub struct Letter<'a> {
    /// Where the record stands in Kafka.
    pub position: Option<Position<'a>>,
    /// The dump that it came from, and where in it.
    pub found: Option<(&'a str, Place)>,
    /// Why it could not be used.
    pub reason: &'a str,
    /// The record's value, or the bytes that were no record.
    pub value: Option<&'a [u8]>,
}

#[derive(Serialize)]
struct Written<'a> {
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

impl Letter<'_> {
    /// The letter's line, with its line end.
    pub fn line(&self) -> Vec<u8> {
        let position = self.position;
        // A control character takes six bytes in a string; base64 never takes more than four for three.
        let controls = |bytes: &[u8]| bytes.iter().filter(|byte| **byte < 0x20).count();
        let usual = self.value.filter(|value| controls(value) <= value.len() / 32);
        let value = usual.and_then(|value| std::str::from_utf8(value).ok());
        let base64 = if value.is_some() { None } else { self.value.map(|value| STANDARD.encode(value)) };
        let written = Written {
            lea_dead_letter: VERSION,
            topic: position.map(|position| position.topic).filter(|topic| !topic.is_empty()),
            partition: position.map(|position| position.partition).filter(|partition| *partition >= 0),
            offset: position.map(|position| position.offset),
            file: self.found.map(|(file, _)| file),
            line: self
                .found
                .and_then(|(_, place)| if let Place::Line(line) = place { Some(line) } else { None }),
            byte: self
                .found
                .and_then(|(_, place)| if let Place::Byte(byte) = place { Some(byte) } else { None }),
            reason: self.reason,
            value,
            value_base64: base64,
        };
        let mut line = serde_json::to_vec(&written).expect("strings and numbers can be written as JSON");
        line.push(b'\n');
        line
    }
}

/// Reads a line.
pub fn read<'a>(line: &'a [u8], scratch: &'a mut Scratch) -> Line<'a> {
    let (mut version, mut topic, mut partition, mut offset) = (None, Loose::Other, None, None);
    let (mut value, mut base64) = (Loose::Other, Loose::Other);
    let read = json::each_member(line, &mut |name, member| match name {
        "lea_dead_letter" => version = member.number(),
        "topic" => topic = member,
        "partition" => partition = member.number(),
        "offset" => offset = member.number(),
        "value" => value = member,
        "value_base64" => base64 = member,
        _ => {}
    });
    if let Err(error) = read {
        return Line::Damaged(error.to_string());
    }
    match version {
        Some(version) if version == i64::from(VERSION) => {}
        Some(version) => {
            return Line::Damaged(format!("a dead letter of format {version}; this lea knows {VERSION}"));
        }
        None => return Line::Damaged("no dead letter".to_owned()),
    }
    scratch.keep_topic(&topic.text().unwrap_or_default());
    scratch.value.clear();
    let has_value = match (value.text(), base64.text()) {
        (Some(text), _) => {
            scratch.value.extend_from_slice(text.as_bytes());
            true
        }
        (None, Some(text)) => {
            if STANDARD.decode_vec(text.as_bytes(), &mut scratch.value).is_err() {
                return Line::Damaged("value_base64 is no base64".to_owned());
            }
            true
        }
        (None, None) => false,
    };
    let partition = partition.and_then(|partition| i32::try_from(partition).ok()).unwrap_or(-1);
    let position = offset.map(|offset| Position { topic: &scratch.topic, partition, offset });
    Line::Record(position, has_value.then_some(&scratch.value))
}
