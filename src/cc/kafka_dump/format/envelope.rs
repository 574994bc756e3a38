//! Parser of JSON envelopes: objects that contain a record's value, and mostly its topic, partition and offset.
//!
//! `kcat -J` prints one per line, with the value as a string in `payload`, and is parsed without allocation. Other
//! tools (rpk, kt, kaf, AKHQ, kafka-ui, the REST proxy, kafkajs, Vector, Filebeat, Logstash) use other names, and
//! values that are objects, base64, hexadecimal or an array of bytes.

use std::borrow::Cow;
use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::KafkaPosition;
use super::lines::{ParsedLine, Scratch, is_tool_message};
use crate::cc::wire::json::{self, JsonScalar, MemberReader, NeedsFullParser, RawString, RawValue};

/// Deepest nesting of envelopes.
const DEPTH_MAX: u32 = 6;

/// Members that contain the value, the first one that is present counts.
const VALUES: [&str; 7] = ["payload", "Payload", "value", "Value", "message", "Message", "content"];
/// Members that contain a list of envelopes.
const LISTS: [&str; 5] = ["records", "messages", "results", "items", "data"];
const TOPICS: [&str; 4] = ["topic", "Topic", "topic_name", "topicName"];
const PARTITIONS: [&str; 5] = ["partition", "Partition", "partition_id", "partitionId", "partitionID"];
const OFFSETS: [&str; 2] = ["offset", "Offset"];
/// Objects that contain the position.
const POSITIONS: [&str; 4] = ["kafka", "@metadata", "metadata", "meta"];
/// Members of a chunk.
const CHUNK_NAMES: [&str; 3] = ["interceptionfilename", "userid", "user_id"];

/// Kind of a JSON object, by its members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ObjectKind {
    /// The value of a record.
    Chunk,
    /// An object with the value of a record.
    Envelope,
    /// An object with a list of envelopes.
    List,
    DeadLetter,
    Unknown,
}

/// Location of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ValuePlace {
    /// Bytes of the object that was opened.
    Input(Range<usize>),
    /// The buffer `value` of the scratch.
    Scratch,
    Tombstone,
}

/// Content of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// A record. Its topic is in the scratch.
    Record { partition: Option<i64>, offset: Option<i64>, value: ValuePlace },
    /// Objects that are records or envelopes.
    List(Vec<Range<usize>>),
}

type Members<'a> = [(Cow<'a, str>, &'a str)];

/// Returns the kind of an object from the names of its members and the starts of their values.
pub(super) fn object_kind<'a>(mut members: impl Iterator<Item = (&'a str, &'a [u8])>) -> ObjectKind {
    let (mut is_chunk, mut has_data, mut has_value, mut has_list) = (false, false, false, false);
    for (name, value) in &mut members {
        match name {
            "lea_dead_letter" => return ObjectKind::DeadLetter,
            _ if CHUNK_NAMES.contains(&name) => is_chunk = true,
            _ if VALUES.contains(&name) => has_value = true,
            _ if LISTS.contains(&name) && is_list_of_objects(value) => has_list = true,
            "data" if value.first() == Some(&b'{') => has_value = true,
            "data" => has_data = true,
            _ => {}
        }
    }
    match (is_chunk, has_value, has_list, has_data) {
        (true, ..) => ObjectKind::Chunk,
        (_, true, ..) => ObjectKind::Envelope,
        (_, _, true, _) => ObjectKind::List,
        (.., true) => ObjectKind::Chunk,
        _ => ObjectKind::Unknown,
    }
}

fn is_list_of_objects(value: &[u8]) -> bool {
    let mut start = value.iter().filter(|byte| !byte.is_ascii_whitespace());
    start.next() == Some(&b'[') && start.next() == Some(&b'{')
}

/// Returns the kind of an object that is complete.
pub(super) fn kind_of(object: &[u8]) -> Option<ObjectKind> {
    json::raw_members(object).ok().map(|members| kind_of_members(&members))
}

fn kind_of_members(members: &Members<'_>) -> ObjectKind {
    object_kind(members.iter().map(|(name, value)| (&**name, value.as_bytes())))
}

/// Returns the kind of an object whose end may be missing.
pub(super) fn kind_of_start(object: &[u8]) -> ObjectKind {
    let mut names = Vec::new();
    if let Ok(mut members) = MemberReader::parse(object) {
        while let Ok(Some((name, _))) = members.next_member() {
            names.push(std::str::from_utf8(name).unwrap_or_default());
        }
    }
    object_kind(names.into_iter().map(|name| (name, &b""[..])))
}

/// Parses a line.
pub(super) fn parse_line<'a>(line: &'a [u8], scratch: &'a mut Scratch) -> ParsedLine<'a> {
    if is_tool_message(line) {
        return ParsedLine::Skip;
    }
    if let Ok(envelope) = parse_usual(line, scratch) {
        return usual_record(envelope, scratch);
    }
    match open(line, scratch) {
        Ok(Opened::Record { partition, offset, value }) => {
            let Scratch { topic, value: unescaped, .. } = scratch;
            let position = position(topic, partition, offset);
            match value {
                ValuePlace::Input(range) => ParsedLine::Record(position, Some(&line[range])),
                ValuePlace::Scratch => ParsedLine::Record(position, Some(unescaped)),
                ValuePlace::Tombstone => ParsedLine::Record(position, None),
            }
        }
        Ok(Opened::List(_)) => {
            ParsedLine::Damaged("a list of records among single records (try --format json)".to_owned())
        }
        Err(reason) => ParsedLine::Damaged(reason),
    }
}

pub(super) fn position(
    topic: &str,
    partition: Option<i64>,
    offset: Option<i64>,
) -> Option<KafkaPosition<'_>> {
    let partition = i32::try_from(partition?).ok()?;
    Some(KafkaPosition { topic, partition, offset: offset? })
}

/// Envelope of the usual form.
struct UsualEnvelope<'a> {
    partition: Option<i64>,
    offset: Option<i64>,
    /// The payload, or `None` for a tombstone. If it has escapes, it was unescaped into the scratch.
    payload: Option<RawString<'a>>,
}

/// Parses the usual form: only the payload has escapes.
fn parse_usual<'a>(line: &'a [u8], scratch: &mut Scratch) -> Result<UsualEnvelope<'a>, NeedsFullParser> {
    let (mut partition, mut offset, mut payload) = (None, None, None);
    let mut members = MemberReader::parse(line)?;
    let mut topic = "";
    while let Some((name, value)) = members.next_member()? {
        match (name, value) {
            (b"topic", RawValue::Text(text)) => topic = text.as_plain_str()?,
            (b"partition", RawValue::Number(number)) => partition = Some(number),
            (b"offset", RawValue::Number(number)) => offset = Some(number),
            (b"payload", RawValue::Text(text)) => payload = Some(Some(text)),
            (b"payload", RawValue::Null) => payload = Some(None),
            (b"payload" | b"topic" | b"partition" | b"offset", _) => return Err(NeedsFullParser),
            _ => {}
        }
    }
    let payload = payload.ok_or(NeedsFullParser)?;
    scratch.set_topic(topic);
    if let Some(text) = payload.filter(|text| text.escaped) {
        text.unescape(&mut scratch.value)?;
    }
    Ok(UsualEnvelope { partition, offset, payload })
}

fn usual_record<'a>(envelope: UsualEnvelope<'a>, scratch: &'a mut Scratch) -> ParsedLine<'a> {
    let UsualEnvelope { partition, offset, payload } = envelope;
    let Scratch { topic, value, decoded, .. } = scratch;
    let position = position(topic, partition, offset);
    let Some(payload) = payload else { return ParsedLine::Record(position, None) };
    let text: &[u8] = if payload.escaped { value } else { payload.raw };
    ParsedLine::Record(position, Some(if decode_object(text, decoded) { decoded } else { text }))
}

/// Decodes base64 or hexadecimal text that contains a JSON object into `decoded`, and reports whether it did.
/// Valid JSON objects are neither.
fn decode_object(text: &[u8], decoded: &mut Vec<u8>) -> bool {
    if text.first().is_none_or(|first| !first.is_ascii_alphanumeric()) {
        return false;
    }
    let text = text.trim_ascii_end();
    decoded.clear();
    if STANDARD.decode_vec(text, decoded).is_ok() && starts_object(decoded) {
        return true;
    }
    decoded.clear();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    for pair in text.chunks(2) {
        let [high, low] = *pair else { return false };
        let (Some(high), Some(low)) = (digit(high), digit(low)) else { return false };
        decoded.push((high << 4 | low) as u8);
    }
    starts_object(decoded)
}

/// Reports whether a value starts with an object, possibly after the five bytes of a schema registry.
fn starts_object(value: &[u8]) -> bool {
    let object = if value.first() == Some(&0) { value.get(5..).unwrap_or_default() } else { value };
    object.trim_ascii_start().first() == Some(&b'{')
}

/// Unescapes a JSON string that contains the value of a record, as JSON or encoded, into the scratch. Returns false
/// if it does not.
pub(super) fn open_string(text: &[u8], scratch: &mut Scratch) -> bool {
    let Ok(JsonScalar::Text(text)) = serde_json::from_slice(text) else { return false };
    let Scratch { value, decoded, .. } = scratch;
    value.clear();
    value.extend_from_slice(text.as_bytes());
    if decode_object(value, decoded) {
        std::mem::swap(value, decoded);
    }
    starts_object(value)
}

/// Finds the value of a record in any object, or the list of its records. The error is the reason as text.
pub(super) fn open(object: &[u8], scratch: &mut Scratch) -> Result<Opened, String> {
    let mut opener = Opener { base: object, scratch, topic: None, partition: None, offset: None };
    let text = std::str::from_utf8(object).map_err(|error| {
        format!("not a JSON object: invalid unicode code point at byte {}", error.valid_up_to())
    })?;
    let found = opener.open(text, 0)?;
    let Opener { topic, partition, offset, .. } = opener;
    scratch.set_topic(&topic.unwrap_or_default());
    Ok(match found {
        Found::Value(value) => Opened::Record { partition, offset, value },
        Found::List(list) => Opened::List(list),
    })
}

enum Found {
    Value(ValuePlace),
    List(Vec<Range<usize>>),
}

struct Opener<'a, 's> {
    base: &'a [u8],
    scratch: &'s mut Scratch,
    topic: Option<String>,
    partition: Option<i64>,
    offset: Option<i64>,
}

impl<'a> Opener<'a, '_> {
    fn open(&mut self, object: &'a str, depth: u32) -> Result<Found, String> {
        let members = json::raw_members(object.as_bytes()).map_err(|error| error.to_string())?;
        if depth > DEPTH_MAX {
            return Err("envelopes are nested too deeply".to_owned());
        }
        self.find_position(&members, 0);
        let get = |name: &str| members.iter().rev().find(|(known, _)| known == name).map(|(_, value)| *value);
        match kind_of_members(&members) {
            ObjectKind::Envelope => {
                let value = VALUES.iter().find_map(|name| get(name)).or_else(|| get("data"));
                self.open_value(value.unwrap_or("null"), depth)
            }
            ObjectKind::List => {
                let list = LISTS
                    .iter()
                    .find_map(|name| get(name).filter(|list| is_list_of_objects(list.as_bytes())));
                self.open_list(list.unwrap_or("[]"))
            }
            // `{"type":"BINARY","data":"…"}`, the value of a record in version 3 of the REST proxy.
            ObjectKind::Chunk if depth > 0 && get("type").is_some() && !has_chunk_name(&members) => {
                self.open_value(get("data").unwrap_or("null"), depth)
            }
            ObjectKind::Unknown if depth == 0 && is_position(&members) => {
                Err("the envelope has no payload".to_owned())
            }
            _ => Ok(Found::Value(ValuePlace::Input(self.range(object)))),
        }
    }

    fn open_value(&mut self, value: &'a str, depth: u32) -> Result<Found, String> {
        match value.as_bytes().first() {
            Some(b'n') => return Ok(Found::Value(ValuePlace::Tombstone)),
            Some(b'{' | b'[') => {
                if let Ok(JsonScalar::Bytes(bytes)) = serde_json::from_str(value) {
                    self.scratch.value = bytes;
                } else if value.starts_with('{') {
                    return self.open(value, depth + 1);
                } else {
                    return Err("the payload is an array, and not one of bytes".to_owned());
                }
            }
            Some(b'"') => {
                let text: Cow<'_, str> = serde_json::from_str(value).map_err(|error| error.to_string())?;
                self.scratch.value.clear();
                self.scratch.value.extend_from_slice(text.as_bytes());
                let Scratch { value, decoded, .. } = &mut *self.scratch;
                if decode_object(value, decoded) {
                    std::mem::swap(value, decoded);
                }
            }
            _ => return Err("the payload is a number or a boolean".to_owned()),
        }
        Ok(Found::Value(ValuePlace::Scratch))
    }

    fn open_list(&self, list: &'a str) -> Result<Found, String> {
        let elements: Vec<&serde_json::value::RawValue> =
            serde_json::from_str(list).map_err(|error| error.to_string())?;
        Ok(Found::List(elements.iter().map(|element| self.range(element.get())).collect()))
    }

    /// The bytes of `part` within the object. `part` is a part of it.
    fn range(&self, part: &str) -> Range<usize> {
        let start = part.as_ptr() as usize - self.base.as_ptr() as usize;
        start..start + part.len()
    }

    /// Finds topic, partition and offset. The innermost ones count.
    fn find_position(&mut self, members: &Members<'a>, depth: u32) {
        for (name, value) in members {
            let name = &**name;
            if TOPICS.contains(&name) {
                self.topic = topic_name(value).or(self.topic.take());
            } else if PARTITIONS.contains(&name) {
                self.partition = number(value).or(self.partition);
            } else if OFFSETS.contains(&name) {
                self.offset = number(value).or(self.offset);
            } else if POSITIONS.contains(&name)
                && depth < 2
                && let Ok(inner) = json::raw_members(value.as_bytes())
            {
                self.find_position(&inner, depth + 1);
            }
        }
    }
}

fn has_chunk_name(members: &Members<'_>) -> bool {
    members.iter().any(|(name, _)| CHUNK_NAMES.contains(&&**name))
}

/// Reports whether an object has the position of a record.
fn is_position(members: &Members<'_>) -> bool {
    let names = || TOPICS.iter().chain(&PARTITIONS).chain(&OFFSETS);
    members.iter().any(|(name, _)| names().any(|known| known == name))
}

/// Reads a topic's name: a string, or an object with its name.
fn topic_name(value: &str) -> Option<String> {
    if let Ok(name) = serde_json::from_str(value) {
        return Some(name);
    }
    let members = json::raw_members(value.as_bytes()).ok()?;
    let (_, name) = members.iter().find(|(name, _)| name == "name")?;
    serde_json::from_str(name).ok()
}

/// Reads a number, which JavaScript clients write as a string.
fn number(value: &str) -> Option<i64> {
    match serde_json::from_str(value) {
        Ok(JsonScalar::Number(number)) => Some(number),
        Ok(JsonScalar::Text(text)) => text.parse().ok(),
        _ => None,
    }
}
