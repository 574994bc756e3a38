//! Envelopes as `kcat -J` prints them: a JSON object a line, with topic, partition, offset and, as a string, the
//! record's value in `payload`. Wrappers that write the value as base64 are understood too.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Position;
use super::lines::{Line, Scratch, is_remark};
use crate::cc::frame::json::{self, Loose, Members, Text, Unusual, Value};

/// The value in an envelope.
enum Payload<'a> {
    /// There is no such member.
    Missing,
    /// A record without a value.
    Null,
    /// A string in the line.
    Text(Text<'a>),
    /// A string whose escapes are undone already.
    Undone,
}

struct Envelope<'a> {
    partition: Option<i64>,
    offset: Option<i64>,
    payload: Payload<'a>,
}

/// Reads a line.
pub fn read<'a>(line: &'a [u8], scratch: &'a mut Scratch) -> Line<'a> {
    if is_remark(line) {
        return Line::Nothing;
    }
    scratch.partition = None;
    let read = plain(line, scratch).or_else(|Unusual| any(line, scratch));
    let envelope = match read {
        Ok(envelope) => envelope,
        Err(reason) => return Line::Damaged(reason),
    };
    let Scratch { topic, value, decoded, .. } = scratch;
    let text: &[u8] = match envelope.payload {
        Payload::Missing => return Line::Damaged("no payload".to_owned()),
        Payload::Null => return Line::Record(position(topic, &envelope), None),
        Payload::Text(text) if !text.escaped => text.raw,
        Payload::Text(_) | Payload::Undone => value,
    };
    let position = position(topic, &envelope);
    Line::Record(position, Some(if is_base64_of_an_object(text, decoded) { decoded } else { text }))
}

fn position<'a>(topic: &'a str, envelope: &Envelope<'_>) -> Option<Position<'a>> {
    let partition = i32::try_from(envelope.partition?).ok()?;
    Some(Position { topic, partition, offset: envelope.offset? })
}

/// True if the text is base64 of a JSON object: that is in `decoded` then. No JSON object is base64 itself.
fn is_base64_of_an_object(text: &[u8], decoded: &mut Vec<u8>) -> bool {
    if text.first().is_none_or(|first| !first.is_ascii_alphanumeric()) {
        return false;
    }
    decoded.clear();
    STANDARD.decode_vec(text.trim_ascii_end(), decoded).is_ok()
        && decoded.trim_ascii_start().first() == Some(&b'{')
}

/// The usual way: no member but the payload has escapes.
fn plain<'a>(line: &'a [u8], scratch: &mut Scratch) -> Result<Envelope<'a>, Unusual> {
    let mut envelope = Envelope { partition: None, offset: None, payload: Payload::Missing };
    let mut members = Members::of(line)?;
    let mut topic = "";
    while let Some((name, value)) = members.next_member()? {
        match (name, value) {
            (b"topic", Value::Text(text)) => topic = text.plain()?,
            (b"partition", Value::Number(number)) => envelope.partition = Some(number),
            (b"offset", Value::Number(number)) => envelope.offset = Some(number),
            (b"payload", Value::Text(text)) => envelope.payload = Payload::Text(text),
            (b"payload", Value::Null) => envelope.payload = Payload::Null,
            (b"payload", _) => return Err(Unusual),
            _ => {}
        }
    }
    scratch.keep_topic(topic);
    if let Payload::Text(text) = envelope.payload
        && text.escaped
    {
        text.unescape(&mut scratch.value)?;
    }
    Ok(envelope)
}

/// Any envelope, or the reason why it is none.
fn any<'a>(line: &'a [u8], scratch: &mut Scratch) -> Result<Envelope<'a>, String> {
    let mut envelope = Envelope { partition: None, offset: None, payload: Payload::Missing };
    let mut topic = Loose::Other;
    let read = json::each_member(line, &mut |name, value| match name {
        "topic" => topic = value,
        "partition" => envelope.partition = value.number(),
        "offset" => envelope.offset = value.number(),
        "payload" => {
            envelope.payload = match value {
                Loose::Text(text) => {
                    scratch.value.clear();
                    scratch.value.extend_from_slice(text.as_bytes());
                    Payload::Undone
                }
                Loose::Other | Loose::Number(_) => Payload::Null,
            };
        }
        _ => {}
    });
    read.map_err(|error| error.to_string())?;
    scratch.keep_topic(&topic.text().unwrap_or_default());
    Ok(envelope)
}
