//! Parser of a chunk: the value of a Kafka record (docs/protocol.md, section 3) or a Logstash line (section
//! 4), which has the same fields and more. Pure. The usual case does not allocate.
//!
//! `{"userid": "…", "data": "<base64>", "interceptionfilename": "…"}`: the fields come in any order, other
//! fields are ignored. Some producers write `user_id`. If a field occurs twice, the last one counts.
//!
//! The slow path also reads what serializers put around a value (five bytes of a schema registry, a byte order
//! mark, a NUL at the end, the object as a JSON string) and other forms of the data (url-safe or MIME base64, an
//! array of bytes). Hexadecimal data is read only if the caller knows that it is: short hexadecimal text is also
//! valid base64.
//!
//! Invariant: JSON escapes affect only the speed, never the result.

use std::borrow::Cow;
use std::sync::LazyLock;

use base64::engine::Simd;
use base64::engine::general_purpose::{NO_PAD, PAD};
use base64::{DecodeError, Engine};

use super::json::{self, InvalidObject, JsonScalar, MemberReader, NeedsFullParser, RawString, RawValue};
use crate::limits::{NAME_BYTES_MAX, RECORD_BYTES_MAX};

/// Standard alphabet, padding required. Uses the widest SIMD instructions that the processor has.
static BASE64: LazyLock<Simd> = LazyLock::new(|| Simd::standard(PAD));

/// The same without padding, for the slow path.
static BASE64_UNPADDED: LazyLock<Simd> = LazyLock::new(|| Simd::standard(NO_PAD));

/// Shortest text that is certainly hexadecimal. The first chunk of a capture has at least its header of 24 bytes.
const HEX_DIGITS_MIN: usize = 32;

/// Number of different digits in text that is certainly hexadecimal. Zeros in base64 are `AAAA`.
const HEX_DISTINCT_MIN: u32 = 8;

/// Bytes that a serializer of a schema registry writes before the value: a zero and the schema's number.
const SCHEMA_ID_BYTES: usize = 5;

/// Deepest nesting of a JSON object in strings.
const STRING_DEPTH_MAX: u32 = 4;

/// Members in which tools put a record's value.
const ENVELOPE_MEMBERS: [&str; 4] = ["payload", "value", "Value", "message"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// The stream's name: `interceptionfilename`, or `<userid>.pcap` if that is missing.
    pub name: Cow<'a, str>,
    /// The next bytes of the stream.
    pub data: ChunkData<'a>,
}

/// Encoded data that is decoded on request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkData<'a> {
    text: Cow<'a, [u8]>,
    encoding: DataEncoding,
    /// Position of the text in the value, for error messages. Unknown if the text had escapes.
    at: Option<usize>,
}

/// Encoding of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DataEncoding {
    Base64,
    Hex,
    /// Not encoded.
    Bytes,
}

/// Reason why a record is not a usable chunk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// The record has no value (a tombstone).
    #[error("no value")]
    NoValue,
    /// The value is not a JSON object.
    #[error(transparent)]
    NotJson(#[from] InvalidObject),
    /// The object has no stream name.
    #[error("no stream name: neither interceptionfilename nor userid is set")]
    NoName,
    /// The object is an envelope around a record, or around many.
    #[error("this is an envelope, not a chunk: the chunk is in its member `{0}`")]
    Envelope(&'static str),
    /// The object has no `data`.
    #[error("no data")]
    NoData,
    /// `data` has a type that contains no bytes.
    #[error("no data: the member is {0}, not a string")]
    DataType(&'static str),
    /// `data` is not base64.
    #[error("not base64: {reason}{}", at_byte(*.at))]
    BadBase64 {
        /// The defect.
        reason: &'static str,
        /// Byte in the value. Unknown if the text has escapes.
        at: Option<usize>,
    },
    /// The value or the stream's name exceeds its limit.
    #[error("too large: {what} has {bytes} bytes, the limit is {bytes_max}")]
    TooLarge {
        /// The thing that is too large: "the record" or "the name".
        what: &'static str,
        bytes: usize,
        bytes_max: usize,
    },
}

fn at_byte(at: Option<usize>) -> String {
    at.map_or_else(String::new, |at| format!(" at byte {at}"))
}

impl ChunkError {
    /// Stable token for logs and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            ChunkError::NoValue => "no_value",
            ChunkError::NotJson(_) => "not_json",
            ChunkError::NoName | ChunkError::Envelope(_) => "no_name",
            ChunkError::NoData | ChunkError::DataType(_) => "no_data",
            ChunkError::BadBase64 { .. } => "bad_base64",
            ChunkError::TooLarge { .. } => "too_large",
        }
    }
}

/// Parses a record's value. The base64 is checked only by [`ChunkData::decode`].
pub fn parse(value: &[u8]) -> Result<Chunk<'_>, ChunkError> {
    if value.len() > RECORD_BYTES_MAX {
        return Err(too_large("the record", value.len(), RECORD_BYTES_MAX));
    }
    match ChunkFields::parse_usual(value) {
        Ok(fields) => fields.into_chunk(value),
        Err(NeedsFullParser) => parse_unusual(value, 0),
    }
}

/// Parses any form of a value.
fn parse_unusual(value: &[u8], depth: u32) -> Result<Chunk<'_>, ChunkError> {
    let inner = strip_serializer(value);
    match ChunkFields::parse_any(inner) {
        Err(ChunkError::NotJson(error)) => {
            let quoted = inner.trim_ascii_start().first() == Some(&b'"') && depth < STRING_DEPTH_MAX;
            let Some(text) = quoted.then(|| serde_json::from_slice::<String>(inner).ok()).flatten() else {
                return Err(ChunkError::NotJson(error));
            };
            parse_unusual(text.as_bytes(), depth + 1).map(Chunk::into_owned)
        }
        fields => fields?.into_chunk(inner),
    }
}

/// Removes what is not part of the JSON text: a byte order mark, the number of a schema, NUL bytes at the end.
fn strip_serializer(value: &[u8]) -> &[u8] {
    let mut inner = value.strip_prefix(b"\xef\xbb\xbf").unwrap_or(value);
    if inner.first() == Some(&0)
        && let Some(rest) = inner.get(SCHEMA_ID_BYTES..)
        && matches!(rest.trim_ascii_start().first(), Some(b'{' | b'"'))
    {
        inner = rest;
    }
    while let Some(rest) = inner.strip_suffix(b"\0") {
        inner = rest;
    }
    inner
}

fn too_large(what: &'static str, bytes: usize, bytes_max: usize) -> ChunkError {
    ChunkError::TooLarge { what, bytes, bytes_max }
}

impl<'a> ChunkData<'a> {
    fn base64(text: Cow<'a, [u8]>, at: Option<usize>) -> ChunkData<'a> {
        ChunkData { text, encoding: DataEncoding::Base64, at }
    }

    /// Buffer size that is always enough for [`decode`](Self::decode).
    pub fn decoded_bytes_max(&self) -> usize {
        match self.encoding {
            DataEncoding::Base64 => self.text.len().div_ceil(4) * 3,
            DataEncoding::Hex | DataEncoding::Bytes => self.text.len(),
        }
    }

    /// Decodes into `into`, which must have at least [`decoded_bytes_max`](Self::decoded_bytes_max) bytes.
    /// Returns the number of bytes written.
    pub fn decode(&self, into: &mut [u8]) -> Result<usize, ChunkError> {
        match self.encoding {
            DataEncoding::Base64 if self.looks_like_hex() => {
                Err(ChunkError::BadBase64 { reason: "the text is hexadecimal", at: self.at })
            }
            DataEncoding::Base64 => match BASE64.decode_slice_unchecked(&*self.text, into) {
                Ok(bytes) => Ok(bytes),
                Err(error) => self.decode_variant(into).ok_or_else(|| self.base64_error(&error)),
            },
            DataEncoding::Hex => decode_hex(&self.text, into)
                .ok_or(ChunkError::BadBase64 { reason: "not hexadecimal either", at: self.at }),
            DataEncoding::Bytes => {
                into[..self.text.len()].copy_from_slice(&self.text);
                Ok(self.text.len())
            }
        }
    }

    /// Decodes base64 of the url-safe alphabet, in lines, or without padding.
    fn decode_variant(&self, into: &mut [u8]) -> Option<usize> {
        // A control character in text without escapes is not valid JSON.
        if self.at.is_some() && self.text.iter().any(u8::is_ascii_control) {
            return None;
        }
        let mut text: Vec<u8> =
            self.text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let has = |byte: u8| memchr::memchr(byte, &text).is_some();
        if (has(b'-') || has(b'_')) && (has(b'+') || has(b'/')) {
            return None;
        }
        if text.last() == Some(&b'=') {
            if !text.len().is_multiple_of(4) {
                return None;
            }
            text.truncate(text.len() - text.iter().rev().take(2).take_while(|byte| **byte == b'=').count());
        }
        for byte in &mut text {
            *byte = match *byte {
                b'-' => b'+',
                b'_' => b'/',
                other => other,
            };
        }
        BASE64_UNPADDED.decode_slice_unchecked(&text, into).ok()
    }

    fn base64_error(&self, error: &DecodeError) -> ChunkError {
        let (reason, at) = match *error {
            DecodeError::InvalidByte(at, _) => ("a character outside the base64 alphabet", Some(at)),
            DecodeError::InvalidLastSymbol { offset, .. } => {
                ("unused bits after the last byte are not zero", Some(offset))
            }
            DecodeError::InvalidLength(_) => ("truncated", Some(self.text.len())),
            DecodeError::InvalidPadding => ("wrong padding", Some(self.text.len())),
        };
        let at = self.at.zip(at).map(|(start, at)| start + at);
        ChunkError::BadBase64 { reason, at }
    }

    /// Reports whether the text is certainly hexadecimal. The first characters decide for almost all other texts.
    pub(crate) fn looks_like_hex(&self) -> bool {
        let text = &*self.text;
        let is_encoded = self.encoding != DataEncoding::Bytes;
        let is_hex = text.len() >= HEX_DIGITS_MIN
            && is_hex_text(&text[..HEX_DIGITS_MIN.min(text.len())])
            && is_hex_text(text);
        let distinct = || text.iter().fold(0u128, |seen, byte| seen | 1 << (byte & 0x7f)).count_ones();
        is_encoded && is_hex && distinct() >= HEX_DISTINCT_MIN
    }

    /// Declares that the text is hexadecimal, if it can be.
    pub(crate) fn read_as_hex(&mut self) {
        if self.encoding == DataEncoding::Base64 && is_hex_text(&self.text) {
            self.encoding = DataEncoding::Hex;
        }
    }

    /// The encoded text.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    fn into_owned(self) -> ChunkData<'static> {
        ChunkData { text: Cow::Owned(self.text.into_owned()), encoding: self.encoding, at: None }
    }
}

/// Reports whether a text has an even number of hexadecimal digits of one case.
fn is_hex_text(text: &[u8]) -> bool {
    let lower = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let upper = |byte: &u8| matches!(byte, b'0'..=b'9' | b'A'..=b'F');
    text.len().is_multiple_of(2) && (text.iter().all(lower) || text.iter().all(upper))
}

fn decode_hex(text: &[u8], into: &mut [u8]) -> Option<usize> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    for (pair, byte) in text.chunks(2).zip(&mut *into) {
        let [high, low] = *pair else { return None };
        *byte = (digit(high)? << 4 | digit(low)?) as u8;
    }
    Some(text.len() / 2)
}

impl Chunk<'_> {
    fn into_owned(self) -> Chunk<'static> {
        Chunk { name: Cow::Owned(self.name.into_owned()), data: self.data.into_owned() }
    }
}

#[derive(Default)]
struct ChunkFields<'a> {
    file_name: Option<Cow<'a, str>>,
    user_id: Option<Cow<'a, str>>,
    data: Option<ChunkData<'a>>,
}

impl<'a> ChunkFields<'a> {
    /// Parses an object in one of the usual forms, without allocation.
    fn parse_usual(value: &'a [u8]) -> Result<ChunkFields<'a>, NeedsFullParser> {
        let (mut file_name, mut user_id, mut data) = (None, None, None);
        let mut members = MemberReader::parse(value)?;
        while let Some((name, member)) = members.next_member()? {
            let text = match member {
                RawValue::Text(text) if !text.escaped => Some(text),
                RawValue::Text(_) => return Err(NeedsFullParser),
                RawValue::Number(_) | RawValue::Null | RawValue::Other => None,
            };
            if name == b"data" && data.is_none() {
                // The base64 is validated only when it is decoded. If `data` occurs twice, the first one
                // would never be validated, so that case goes to the full parser.
                data = Some(text);
                continue;
            }
            text.map_or(Ok(()), RawString::ensure_plain)?;
            match name {
                b"interceptionfilename" => file_name = text,
                b"userid" | b"user_id" => user_id = text,
                b"data" => return Err(NeedsFullParser),
                _ => {}
            }
        }
        let borrowed =
            |text: Option<RawString<'a>>| text.map(|text| text.as_plain_str().map(Cow::Borrowed)).transpose();
        let at = |raw: &[u8]| raw.as_ptr() as usize - value.as_ptr() as usize;
        Ok(ChunkFields {
            user_id: if file_name.is_some_and(|name| !name.raw.is_empty()) {
                None
            } else {
                borrowed(user_id)?
            },
            file_name: borrowed(file_name)?,
            data: data.flatten().map(|text| ChunkData::base64(Cow::Borrowed(text.raw), Some(at(text.raw)))),
        })
    }

    /// Parses any JSON object with `serde_json`, which also explains why a text is not one.
    fn parse_any(value: &'a [u8]) -> Result<ChunkFields<'a>, ChunkError> {
        let mut fields = ChunkFields::default();
        json::for_each_member(value, &mut |name, member| match name {
            "data" => fields.data = ChunkFields::any_data(member),
            "interceptionfilename" => fields.file_name = member.into_text(),
            "userid" | "user_id" => fields.user_id = member.into_text(),
            _ => {}
        })?;
        Ok(fields)
    }

    fn any_data(member: JsonScalar<'a>) -> Option<ChunkData<'a>> {
        match member {
            JsonScalar::Text(Cow::Borrowed(text)) => {
                Some(ChunkData::base64(Cow::Borrowed(text.as_bytes()), None))
            }
            JsonScalar::Text(Cow::Owned(text)) => {
                Some(ChunkData::base64(Cow::Owned(text.into_bytes()), None))
            }
            JsonScalar::Bytes(bytes) => {
                Some(ChunkData { text: Cow::Owned(bytes), encoding: DataEncoding::Bytes, at: None })
            }
            _ => None,
        }
    }

    /// Makes a chunk of the fields. `value` is the object that has them.
    fn into_chunk(self, value: &[u8]) -> Result<Chunk<'a>, ChunkError> {
        let given = |text: Option<Cow<'a, str>>| text.filter(|text| !text.is_empty());
        let name = match (given(self.file_name), given(self.user_id)) {
            (Some(name), _) => name,
            (None, Some(user_id)) => Cow::Owned(format!("{user_id}.pcap")),
            (None, None) => return Err(explain(value, ChunkError::NoName)),
        };
        if name.len() > NAME_BYTES_MAX {
            return Err(too_large("the name", name.len(), NAME_BYTES_MAX));
        }
        let data = self.data.ok_or_else(|| explain(value, ChunkError::NoData))?;
        Ok(Chunk { name, data })
    }
}

/// Finds a better reason why an object is not a chunk.
fn explain(value: &[u8], reason: ChunkError) -> ChunkError {
    let mut better = None;
    let read = json::for_each_member(value, &mut |name, member| {
        if let Some(member) = ENVELOPE_MEMBERS.iter().find(|member| **member == name) {
            better = better.take().or(Some(ChunkError::Envelope(member)));
        }
        let has_no_data = matches!(reason, ChunkError::NoData) && name == "data";
        if has_no_data && !matches!(member, JsonScalar::Null | JsonScalar::Text(_) | JsonScalar::Bytes(_)) {
            better = Some(ChunkError::DataType(member.type_name()));
        }
    });
    read.ok().and(better).unwrap_or(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(value: &[u8]) -> Result<(String, Vec<u8>), ChunkError> {
        let chunk = parse(value)?;
        let mut bytes = vec![0; chunk.data.decoded_bytes_max()];
        let length = chunk.data.decode(&mut bytes)?;
        bytes.truncate(length);
        Ok((chunk.name.into_owned(), bytes))
    }

    fn check_chunk(value: &str, name: &str, data: &[u8]) {
        assert_eq!(decoded(value.as_bytes()), Ok((name.to_owned(), data.to_vec())), "{value}");
    }

    fn check_refused(value: impl AsRef<[u8]>, expected: &str) {
        let value = value.as_ref();
        let refused = decoded(value).unwrap_err().to_string();
        assert_eq!(refused, expected, "{}", value[..value.len().min(200)].escape_ascii());
    }

    #[test]
    fn fields_in_any_order_and_unknown_fields_are_accepted() {
        check_chunk(
            r#"{"userid": "+447700900123", "data": "1MOyoQ==", "interceptionfilename": "x.pcap"}"#,
            "x.pcap",
            b"\xd4\xc3\xb2\xa1",
        );
        check_chunk(r#"{"interceptionfilename":"x","data":"","user_id":"y"}"#, "x", b"");
        check_chunk(r#"{"data":"YQ==","user_id":"y"}"#, "y.pcap", b"a");
        check_chunk(r#"{"data":"YQ==","userid":"y","interceptionfilename":null}"#, "y.pcap", b"a");
        check_chunk(r#"{"data":"YQ==","userid":"y","interceptionfilename":""}"#, "y.pcap", b"a");
        check_chunk(
            r#"{"tags": [], "n": 1, "t": true, "message": "YQ==", "data": "YWI=", "userid": "y"}"#,
            "y.pcap",
            b"ab",
        );
        check_chunk(
            r#"{"deep":[{"data":"eA=="},1.5e3],"data":"YWJj","userid":"y","more":{}}"#,
            "y.pcap",
            b"abc",
        );
        check_chunk(r#"{"userid":"a","userid":"b","data":"YQ==","data":"Yg=="}"#, "b.pcap", b"b");
    }

    #[test]
    fn escapes_do_not_change_the_result() {
        check_chunk(
            r#"{"userid":"\u002b44","data":"\/\/\/\u002f","interceptionfilename":"a\/\u00e9\ud83d\ude00.pcap"}"#,
            "a/é😀.pcap",
            b"\xff\xff\xff",
        );
        check_chunk(r#"{"\u0064ata":"YQ==","user\u005fid":"y"}"#, "y.pcap", b"a");
        check_chunk("{\"userid\":\"é\",\"data\":\"YQ==\"}", "é.pcap", b"a");
        check_chunk(" \r\n\t{ \"userid\" : \"y\" , \"data\" : \"YQ==\" } \n", "y.pcap", b"a");
    }

    #[test]
    fn what_serializers_put_around_a_value_is_removed() {
        let value = r#"{"userid":"y","data":"YQ=="}"#;
        check_chunk(&format!("\u{feff}{value}"), "y.pcap", b"a");
        check_chunk(&format!("{value}\0"), "y.pcap", b"a");
        for schema in ["\0\0\0\0\u{2}", "\0\0\0\0\n", "\0\0\0\0{", "\0\0\0\0\""] {
            check_chunk(&format!("{schema}{value}"), "y.pcap", b"a");
        }
        let mut quoted = value.to_owned();
        for _ in 0..4 {
            quoted = serde_json::to_string(&quoted).unwrap();
            check_chunk(&quoted, "y.pcap", b"a");
        }
        let quoted = serde_json::to_string(&quoted).unwrap();
        check_refused(&quoted, "not a JSON object: a value of another type at byte 37");
    }

    #[test]
    fn other_encodings_of_the_data_are_decoded() {
        let check_data = |data: &str, expected: &[u8]| {
            check_chunk(&format!(r#"{{"userid":"y","data":{data}}}"#), "y.pcap", expected);
        };
        check_data(r#""_-8=""#, b"\xff\xef");
        check_data(r#""_-8""#, b"\xff\xef");
        check_data(r#""YQ""#, b"a");
        check_data(r#""YWJj\r\nYWJj\n""#, b"abcabc");
        check_data(r#""YW Jj""#, b"abc");
        check_data("[212,195,-78,-95]", b"\xd4\xc3\xb2\xa1");
        check_data(r#"{"type":"Buffer","data":[97]}"#, b"a");
        let zeros = format!("\"{}\"", "AAAA".repeat(20));
        check_data(&zeros, &[0; 60]);

        let hex = format!(r#"{{"userid":"y","data":"{}"}}"#, "d4c3b2a1020004000000000000000000ffff0000");
        let mut chunk = parse(hex.as_bytes()).unwrap();
        assert!(chunk.data.looks_like_hex());
        chunk.data.read_as_hex();
        let mut bytes = [0; 64];
        let length = chunk.data.decode(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], b"\xd4\xc3\xb2\xa1\x02\0\x04\0\0\0\0\0\0\0\0\0\xff\xff\0\0");
        let mut short = parse(br#"{"userid":"y","data":"abcd"}"#).unwrap();
        assert!(!short.data.looks_like_hex());
        short.data.read_as_hex();
        let length = short.data.decode(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], b"\xab\xcd");
    }

    #[test]
    fn rejected_values_report_reason_and_position() {
        check_refused("", "not a JSON object: EOF while parsing a value at byte 0");
        check_refused("x", "not a JSON object: expected value at byte 0");
        check_refused("[]", "not a JSON object: a value of another type at byte 0");
        check_refused("{\"a\":\n\n x}", "not a JSON object: expected value at byte 8");
        check_refused(
            r#"{"data":"YQ==","userid":"y"}}"#,
            "not a JSON object: trailing characters at byte 28",
        );
        check_refused(
            b"{\"userid\":\"\xff\",\"data\":\"\"}",
            "not a JSON object: invalid unicode code point at byte 11",
        );
        check_refused(
            "{\"x\":\"\x01\",\"userid\":\"y\",\"data\":\"\"}",
            "not a JSON object: control character (\\u0000-\\u001F) found while parsing a string at byte 6",
        );
        check_refused("[".repeat(200), "not a JSON object: a value of another type at byte 0");
        check_refused(r#"{"data":"YQ=="}"#, "no stream name: neither interceptionfilename nor userid is set");
        check_refused(
            r#"{"data":"YQ==","userid":7}"#,
            "no stream name: neither interceptionfilename nor userid is set",
        );
        check_refused(r#"{"userid":"y"}"#, "no data");
        check_refused(r#"{"userid":"y","data":{"a":1}}"#, "no data: the member is an object, not a string");
        check_refused(r#"{"userid":"y","data":["a"]}"#, "no data: the member is an array, not a string");
        check_refused(r#"{"userid":"y","data":7}"#, "no data: the member is a number, not a string");
        for member in ENVELOPE_MEMBERS {
            let reason = format!("this is an envelope, not a chunk: the chunk is in its member `{member}`");
            check_refused(format!(r#"{{"topic":"t","{member}":"{{}}"}}"#), &reason);
        }
        check_refused(
            r#"{"userid":"y","data":"d4c3b2a1020004000000000000000000ffff000001000000"}"#,
            "not base64: the text is hexadecimal at byte 22",
        );
        check_refused(r#"{"userid":"y","data":null}"#, "no data");
        check_refused(
            r#"{"data":"YW!j","userid":"y"}"#,
            "not base64: a character outside the base64 alphabet at byte 11",
        );
        check_refused(
            "{\"data\":\"YWJj\nYWJj\",\"userid\":\"y\"}",
            "not base64: a character outside the base64 alphabet at byte 13",
        );
        check_refused(
            r#"{"data":"+-AA","userid":"y"}"#,
            "not base64: a character outside the base64 alphabet at byte 10",
        );
        check_refused(
            r#"{"data":"YWI=YWI=","userid":"y"}"#,
            "not base64: a character outside the base64 alphabet at byte 12",
        );
        check_refused(r#"{"data":"YWJjYQ=","userid":"y"}"#, "not base64: wrong padding at byte 16");
        check_refused(r#"{"data":"YWJjY","userid":"y"}"#, "not base64: truncated at byte 14");
        check_refused(
            r#"{"data":"YR==","userid":"y"}"#,
            "not base64: unused bits after the last byte are not zero at byte 10",
        );
    }

    #[test]
    fn name_and_record_limits_are_inclusive() {
        let named =
            |bytes: usize| format!(r#"{{"interceptionfilename":"{}","data":"YQ=="}}"#, "n".repeat(bytes));
        check_chunk(&named(4096), &"n".repeat(4096), b"a");
        check_refused(named(4097), "too large: the name has 4097 bytes, the limit is 4096");
        let frame = r#"{"userid":"y","data":""}"#;
        let room = RECORD_BYTES_MAX - frame.len();
        let value = |spaces: usize| format!("{frame}{}", " ".repeat(spaces));
        check_chunk(&value(room), "y.pcap", b"");
        check_refused(value(room + 1), "too large: the record has 16777217 bytes, the limit is 16777216");
    }

    #[test]
    fn data_of_every_length_is_decoded() {
        for length in 0..200 {
            let data: Vec<u8> = (0..length).map(|at| (at * 37) as u8).collect();
            let base64 = base64::engine::general_purpose::STANDARD.encode(&data);
            check_chunk(&format!(r#"{{"userid":"y","data":"{base64}"}}"#), "y.pcap", &data);
        }
    }

    #[test]
    fn a_truncated_value_is_never_a_chunk() {
        let value = br#"{"userid": "y", "data": "YWJj", "interceptionfilename": "x\/y"}"#;
        for end in 0..value.len() {
            assert!(matches!(parse(&value[..end]), Err(ChunkError::NotJson(_))), "{end}");
        }
        assert!(parse(value).is_ok());
    }
}
