//! Parser of a chunk: the value of a Kafka record (docs/protocol.md, section 3) or a Logstash line (section
//! 4), which has the same fields and more. Pure. The usual case does not allocate.
//!
//! `{"userid": "…", "data": "<base64>", "interceptionfilename": "…"}`: the fields come in any order, other
//! fields are ignored. Some producers write `user_id`. If a field occurs twice, the last one counts.
//!
//! Invariant: JSON escapes affect only the speed, never the result.

use std::borrow::Cow;
use std::sync::LazyLock;

use base64::engine::{Simd, general_purpose::PAD};
use base64::{DecodeError, Engine};

use super::json::{self, InvalidObject, MemberReader, NeedsFullParser, RawString, RawValue};
use crate::limits::{NAME_BYTES_MAX, RECORD_BYTES_MAX};

/// Standard alphabet, padding required. Uses the widest SIMD instructions that the processor has.
static BASE64: LazyLock<Simd> = LazyLock::new(|| Simd::standard(PAD));

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// The stream's name: `interceptionfilename`, or `<userid>.pcap` if that is missing.
    pub name: Cow<'a, str>,
    /// The next bytes of the stream.
    pub data: ChunkData<'a>,
}

/// Base64 text that is decoded on request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkData<'a> {
    base64: Cow<'a, [u8]>,
    /// Position of the text in the value, for error messages. Unknown if the text had escapes.
    at: Option<usize>,
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
    /// The object has no `data` string.
    #[error("no data")]
    NoData,
    /// `data` is not standard base64 with padding.
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
            ChunkError::NoName => "no_name",
            ChunkError::NoData => "no_data",
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
    let fields = match ChunkFields::parse_usual(value) {
        Ok(fields) => fields,
        Err(NeedsFullParser) => ChunkFields::parse_any(value)?,
    };
    fields.into_chunk()
}

fn too_large(what: &'static str, bytes: usize, bytes_max: usize) -> ChunkError {
    ChunkError::TooLarge { what, bytes, bytes_max }
}

impl ChunkData<'_> {
    /// Buffer size that is always enough for [`decode`](Self::decode).
    pub fn decoded_bytes_max(&self) -> usize {
        self.base64.len().div_ceil(4) * 3
    }

    /// Decodes into `into`, which must have at least [`decoded_bytes_max`](Self::decoded_bytes_max) bytes.
    /// Returns the number of bytes written.
    pub fn decode(&self, into: &mut [u8]) -> Result<usize, ChunkError> {
        BASE64.decode_slice_unchecked(&self.base64, into).map_err(|error| {
            let (reason, at) = match error {
                DecodeError::InvalidByte(at, _) => ("a character outside the base64 alphabet", Some(at)),
                DecodeError::InvalidLastSymbol { offset, .. } => {
                    ("unused bits after the last byte are not zero", Some(offset))
                }
                DecodeError::InvalidLength(_) => ("truncated", Some(self.base64.len())),
                DecodeError::InvalidPadding => ("wrong padding", Some(self.base64.len())),
            };
            let at = self.at.zip(at).map(|(start, at)| start + at);
            ChunkError::BadBase64 { reason, at }
        })
    }

    pub fn base64(&self) -> &[u8] {
        &self.base64
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
            data: data
                .flatten()
                .map(|text| ChunkData { base64: Cow::Borrowed(text.raw), at: Some(at(text.raw)) }),
        })
    }

    /// Parses any JSON object with `serde_json`, which also explains why a text is not one.
    fn parse_any(value: &'a [u8]) -> Result<ChunkFields<'a>, ChunkError> {
        let mut fields = ChunkFields::default();
        json::for_each_member(value, &mut |name, member| {
            let text = member.into_text();
            match name {
                "data" => {
                    fields.data = text.map(|text| ChunkData {
                        base64: match text {
                            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
                        },
                        at: None,
                    });
                }
                "interceptionfilename" => fields.file_name = text,
                "userid" | "user_id" => fields.user_id = text,
                _ => {}
            }
        })?;
        Ok(fields)
    }

    fn into_chunk(self) -> Result<Chunk<'a>, ChunkError> {
        let given = |text: Option<Cow<'a, str>>| text.filter(|text| !text.is_empty());
        let name = match (given(self.file_name), given(self.user_id)) {
            (Some(name), _) => name,
            (None, Some(user_id)) => Cow::Owned(format!("{user_id}.pcap")),
            (None, None) => return Err(ChunkError::NoName),
        };
        if name.len() > NAME_BYTES_MAX {
            return Err(too_large("the name", name.len(), NAME_BYTES_MAX));
        }
        let data = self.data.ok_or(ChunkError::NoData)?;
        Ok(Chunk { name, data })
    }
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
        check_refused(r#"{"userid":"y","data":null}"#, "no data");
        check_refused(
            r#"{"data":"YW!j","userid":"y"}"#,
            "not base64: a character outside the base64 alphabet at byte 11",
        );
        check_refused(
            r#"{"data":"YWJ-","userid":"y"}"#,
            "not base64: a character outside the base64 alphabet at byte 12",
        );
        check_refused(
            r#"{"data":"YWJj\nYWJj","userid":"y"}"#,
            "not base64: a character outside the base64 alphabet",
        );
        check_refused(r#"{"data":"YQ","userid":"y"}"#, "not base64: wrong padding at byte 11");
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
