//! Parser of the JSON envelopes that `kcat -J` prints: one object per line with topic, partition, offset and,
//! as a string in `payload`, the record's value. A payload in base64, as some wrappers write it, is decoded
//! too.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::KafkaPosition;
use super::lines::{ParsedLine, Scratch, is_tool_message};
use crate::cc::wire::json::{self, JsonScalar, MemberReader, NeedsFullParser, RawString, RawValue};

/// Record value in an envelope.
enum Payload<'a> {
    /// The member is missing.
    Missing,
    /// A tombstone.
    Null,
    /// A string that is still escaped as in the line.
    Text(RawString<'a>),
    /// A string that has been unescaped into the scratch buffer.
    Unescaped,
}

struct Envelope<'a> {
    partition: Option<i64>,
    offset: Option<i64>,
    payload: Payload<'a>,
}

/// Parses a line.
pub(super) fn parse_line<'a>(line: &'a [u8], scratch: &'a mut Scratch) -> ParsedLine<'a> {
    if is_tool_message(line) {
        return ParsedLine::Skip;
    }
    scratch.partition = None;
    let read = parse_usual(line, scratch).or_else(|NeedsFullParser| parse_any(line, scratch));
    let envelope = match read {
        Ok(envelope) => envelope,
        Err(reason) => return ParsedLine::Damaged(reason),
    };
    let Scratch { topic, value, decoded, .. } = scratch;
    let text: &[u8] = match envelope.payload {
        Payload::Missing => return ParsedLine::Damaged("the envelope has no payload".to_owned()),
        Payload::Null => return ParsedLine::Record(position(topic, &envelope), None),
        Payload::Text(text) if !text.escaped => text.raw,
        Payload::Text(_) | Payload::Unescaped => value,
    };
    let position = position(topic, &envelope);
    ParsedLine::Record(position, Some(if decode_base64_object(text, decoded) { decoded } else { text }))
}

fn position<'a>(topic: &'a str, envelope: &Envelope<'_>) -> Option<KafkaPosition<'a>> {
    let partition = i32::try_from(envelope.partition?).ok()?;
    Some(KafkaPosition { topic, partition, offset: envelope.offset? })
}

/// Decodes base64 that contains a JSON object into `decoded`, and reports whether it did. Valid JSON objects
/// are never valid base64.
fn decode_base64_object(text: &[u8], decoded: &mut Vec<u8>) -> bool {
    if text.first().is_none_or(|first| !first.is_ascii_alphanumeric()) {
        return false;
    }
    decoded.clear();
    STANDARD.decode_vec(text.trim_ascii_end(), decoded).is_ok()
        && decoded.trim_ascii_start().first() == Some(&b'{')
}

/// Parses the usual form: only the payload has escapes.
fn parse_usual<'a>(line: &'a [u8], scratch: &mut Scratch) -> Result<Envelope<'a>, NeedsFullParser> {
    let mut envelope = Envelope { partition: None, offset: None, payload: Payload::Missing };
    let mut members = MemberReader::parse(line)?;
    let mut topic = "";
    while let Some((name, value)) = members.next_member()? {
        match (name, value) {
            (b"topic", RawValue::Text(text)) => topic = text.as_plain_str()?,
            (b"partition", RawValue::Number(number)) => envelope.partition = Some(number),
            (b"offset", RawValue::Number(number)) => envelope.offset = Some(number),
            (b"payload", RawValue::Text(text)) => envelope.payload = Payload::Text(text),
            (b"payload", RawValue::Null) => envelope.payload = Payload::Null,
            (b"payload", _) => return Err(NeedsFullParser),
            _ => {}
        }
    }
    scratch.set_topic(topic);
    if let Payload::Text(text) = envelope.payload
        && text.escaped
    {
        text.unescape(&mut scratch.value)?;
    }
    Ok(envelope)
}

/// Parses any envelope, or returns the reason why the line is not one.
fn parse_any<'a>(line: &'a [u8], scratch: &mut Scratch) -> Result<Envelope<'a>, String> {
    let mut envelope = Envelope { partition: None, offset: None, payload: Payload::Missing };
    let mut topic = JsonScalar::Other;
    let read = json::for_each_member(line, &mut |name, value| match name {
        "topic" => topic = value,
        "partition" => envelope.partition = value.as_number(),
        "offset" => envelope.offset = value.as_number(),
        "payload" => {
            envelope.payload = match value {
                JsonScalar::Text(text) => {
                    scratch.value.clear();
                    scratch.value.extend_from_slice(text.as_bytes());
                    Payload::Unescaped
                }
                JsonScalar::Other | JsonScalar::Number(_) => Payload::Null,
            };
        }
        _ => {}
    });
    read.map_err(|error| error.to_string())?;
    scratch.set_topic(&topic.into_text().unwrap_or_default());
    Ok(envelope)
}
