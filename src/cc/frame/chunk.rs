//! A chunk: the value of a Kafka record (protocol, section 3), and a Logstash line of section 4, which has the same
//! fields among others. Pure; on the usual path without an allocation.
//!
//! `{"userid": "…", "data": "<base64>", "interceptionfilename": "…"}`, the fields in any order, others beside them;
//! some producers write `user_id`. Of a field that comes twice the last one counts.
//!
//! Invariant: whether text has escapes or not changes nothing but the time.

use std::borrow::Cow;
use std::sync::LazyLock;

use base64::engine::{Simd, general_purpose::PAD};
use base64::{DecodeError, Engine};

use super::json::{self, Members, NoObject, Text, Unusual, Value};
use crate::limits::{NAME_BYTES_MAX, RECORD_BYTES_MAX};

/// Standard alphabet, padding required; the widest instructions that the processor has.
static BASE64: LazyLock<Simd> = LazyLock::new(|| Simd::standard(PAD));

/// What a record's value says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// The stream's name: `interceptionfilename`, else `<userid>.pcap`.
    pub name: Cow<'a, str>,
    /// The stream's next bytes.
    pub data: Data<'a>,
}

/// Bytes as base64 has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data<'a> {
    base64: Cow<'a, [u8]>,
    /// Where in the value they stand, to say where they are wrong; unknown where escapes were undone.
    at: Option<usize>,
}

/// Why a record cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It has no value at all.
    #[error("no value")]
    NoValue,
    /// The value is no JSON object.
    #[error(transparent)]
    NoJson(#[from] NoObject),
    /// The object names no stream.
    #[error("no name: neither interceptionfilename nor userid")]
    NoName,
    /// The object has no `data`.
    #[error("no data")]
    NoData,
    /// `data` is not standard base64 with padding.
    #[error("no base64: {reason}{}", at_byte(*.at))]
    NoBase64 {
        /// What is wrong.
        reason: &'static str,
        /// Where in the value; unknown where its text has escapes.
        at: Option<usize>,
    },
    /// The value, or the stream's name, is longer than what is taken.
    #[error("too large: {what} of {bytes} bytes, at most {bytes_max} are taken")]
    TooLarge {
        /// Of what.
        what: &'static str,
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        bytes_max: usize,
    },
}

fn at_byte(at: Option<usize>) -> String {
    at.map_or_else(String::new, |at| format!(" at byte {at}"))
}

impl Refused {
    /// One word for it, as counters and the log have it.
    pub fn word(&self) -> &'static str {
        match self {
            Refused::NoValue => "no_value",
            Refused::NoJson(_) => "no_json",
            Refused::NoName => "no_name",
            Refused::NoData => "no_data",
            Refused::NoBase64 { .. } => "no_base64",
            Refused::TooLarge { .. } => "too_large",
        }
    }
}

/// Reads a record's value. The base64 is looked at only by [`Data::decode`].
pub fn parse(value: &[u8]) -> Result<Chunk<'_>, Refused> {
    if value.len() > RECORD_BYTES_MAX {
        return Err(too_large("a record", value.len(), RECORD_BYTES_MAX));
    }
    let fields = match Fields::plain(value) {
        Ok(fields) => fields,
        Err(Unusual) => Fields::any(value)?,
    };
    fields.chunk()
}

fn too_large(what: &'static str, bytes: usize, bytes_max: usize) -> Refused {
    Refused::TooLarge { what, bytes, bytes_max }
}

impl Data<'_> {
    /// So many bytes of room are enough for [`decode`](Self::decode).
    pub fn bytes_max(&self) -> usize {
        self.base64.len().div_ceil(4) * 3
    }

    /// Decodes into `into`, which has [`bytes_max`](Self::bytes_max) of room at least; gives how many bytes came.
    pub fn decode(&self, into: &mut [u8]) -> Result<usize, Refused> {
        BASE64.decode_slice_unchecked(&self.base64, into).map_err(|error| {
            let (reason, at) = match error {
                DecodeError::InvalidByte(at, _) => ("a byte that is not of its alphabet", Some(at)),
                DecodeError::InvalidLastSymbol { offset, .. } => ("bits behind the last byte", Some(offset)),
                DecodeError::InvalidLength(_) => ("cut short", Some(self.base64.len())),
                DecodeError::InvalidPadding => ("wrong padding", Some(self.base64.len())),
            };
            let at = self.at.zip(at).map(|(start, at)| start + at);
            Refused::NoBase64 { reason, at }
        })
    }

    /// The base64 text.
    pub fn base64(&self) -> &[u8] {
        &self.base64
    }
}

#[derive(Default)]
struct Fields<'a> {
    file_name: Option<Cow<'a, str>>,
    user_id: Option<Cow<'a, str>>,
    data: Option<Data<'a>>,
}

impl<'a> Fields<'a> {
    /// Reads an object of the usual forms.
    fn plain(value: &'a [u8]) -> Result<Fields<'a>, Unusual> {
        let (mut file_name, mut user_id, mut data) = (None, None, None);
        let mut members = Members::of(value)?;
        while let Some((name, member)) = members.next_member()? {
            let text = match member {
                Value::Text(text) if !text.escaped => Some(text),
                Value::Text(_) => return Err(Unusual),
                Value::Number(_) | Value::Null | Value::Other => None,
            };
            if name == b"data" && data.is_none() {
                // Its bytes are looked at once: when they are decoded. Of two the first would never be.
                data = Some(text);
                continue;
            }
            text.map_or(Ok(()), Text::check_plain)?;
            match name {
                b"interceptionfilename" => file_name = text,
                b"userid" | b"user_id" => user_id = text,
                b"data" => return Err(Unusual),
                _ => {}
            }
        }
        let borrowed = |text: Option<Text<'a>>| text.map(|text| text.plain().map(Cow::Borrowed)).transpose();
        let at = |raw: &[u8]| raw.as_ptr() as usize - value.as_ptr() as usize;
        Ok(Fields {
            user_id: if file_name.is_some_and(|name| !name.raw.is_empty()) {
                None
            } else {
                borrowed(user_id)?
            },
            file_name: borrowed(file_name)?,
            data: data.flatten().map(|text| Data { base64: Cow::Borrowed(text.raw), at: Some(at(text.raw)) }),
        })
    }

    /// Reads any object, or says why it is none.
    fn any(value: &'a [u8]) -> Result<Fields<'a>, Refused> {
        let mut fields = Fields::default();
        json::each_member(value, &mut |name, member| {
            let text = member.text();
            match name {
                "data" => {
                    fields.data = text.map(|text| Data {
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

    fn chunk(self) -> Result<Chunk<'a>, Refused> {
        let given = |text: Option<Cow<'a, str>>| text.filter(|text| !text.is_empty());
        let name = match (given(self.file_name), given(self.user_id)) {
            (Some(name), _) => name,
            (None, Some(user_id)) => Cow::Owned(format!("{user_id}.pcap")),
            (None, None) => return Err(Refused::NoName),
        };
        if name.len() > NAME_BYTES_MAX {
            return Err(too_large("a name", name.len(), NAME_BYTES_MAX));
        }
        let data = self.data.ok_or(Refused::NoData)?;
        Ok(Chunk { name, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(value: &[u8]) -> Result<(String, Vec<u8>), Refused> {
        let chunk = parse(value)?;
        let mut bytes = vec![0; chunk.data.bytes_max()];
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
    fn fields_come_in_any_order_and_beside_others() {
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
    fn escapes_change_nothing() {
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
    fn what_cannot_be_used_has_a_reason_and_a_place() {
        check_refused("", "no JSON object: EOF while parsing a value at byte 0");
        check_refused("x", "no JSON object: expected value at byte 0");
        check_refused("[]", "no JSON object: another value than an object at byte 0");
        check_refused("{\"a\":\n\n x}", "no JSON object: expected value at byte 8");
        check_refused(r#"{"data":"YQ==","userid":"y"}}"#, "no JSON object: trailing characters at byte 28");
        check_refused(
            b"{\"userid\":\"\xff\",\"data\":\"\"}",
            "no JSON object: invalid unicode code point at byte 11",
        );
        check_refused(
            "{\"x\":\"\x01\",\"userid\":\"y\",\"data\":\"\"}",
            "no JSON object: control character (\\u0000-\\u001F) found while parsing a string at byte 6",
        );
        check_refused("[".repeat(200), "no JSON object: another value than an object at byte 0");
        check_refused(r#"{"data":"YQ=="}"#, "no name: neither interceptionfilename nor userid");
        check_refused(r#"{"data":"YQ==","userid":7}"#, "no name: neither interceptionfilename nor userid");
        check_refused(r#"{"userid":"y"}"#, "no data");
        check_refused(r#"{"userid":"y","data":null}"#, "no data");
        check_refused(
            r#"{"data":"YW!j","userid":"y"}"#,
            "no base64: a byte that is not of its alphabet at byte 11",
        );
        check_refused(
            r#"{"data":"YWJ-","userid":"y"}"#,
            "no base64: a byte that is not of its alphabet at byte 12",
        );
        check_refused(
            r#"{"data":"YWJj\nYWJj","userid":"y"}"#,
            "no base64: a byte that is not of its alphabet",
        );
        check_refused(r#"{"data":"YQ","userid":"y"}"#, "no base64: wrong padding at byte 11");
        check_refused(r#"{"data":"YWJjY","userid":"y"}"#, "no base64: cut short at byte 14");
        check_refused(r#"{"data":"YR==","userid":"y"}"#, "no base64: bits behind the last byte at byte 10");
    }

    #[test]
    fn limits_on_both_sides() {
        let named =
            |bytes: usize| format!(r#"{{"interceptionfilename":"{}","data":"YQ=="}}"#, "n".repeat(bytes));
        check_chunk(&named(4096), &"n".repeat(4096), b"a");
        check_refused(named(4097), "too large: a name of 4097 bytes, at most 4096 are taken");
        let frame = r#"{"userid":"y","data":""}"#;
        let room = RECORD_BYTES_MAX - frame.len();
        let value = |spaces: usize| format!("{frame}{}", " ".repeat(spaces));
        check_chunk(&value(room), "y.pcap", b"");
        check_refused(value(room + 1), "too large: a record of 16777217 bytes, at most 16777216 are taken");
    }

    #[test]
    fn every_length_of_data() {
        for length in 0..200 {
            let data: Vec<u8> = (0..length).map(|at| (at * 37) as u8).collect();
            let base64 = base64::engine::general_purpose::STANDARD.encode(&data);
            check_chunk(&format!(r#"{{"userid":"y","data":"{base64}"}}"#), "y.pcap", &data);
        }
    }

    #[test]
    fn no_prefix_is_a_chunk() {
        let value = br#"{"userid": "y", "data": "YWJj", "interceptionfilename": "x\/y"}"#;
        for end in 0..value.len() {
            assert!(matches!(parse(&value[..end]), Err(Refused::NoJson(_))), "{end}");
        }
        assert!(parse(value).is_ok());
    }
}
