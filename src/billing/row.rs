//! Parses one row of the log, given as JSON or as the cells of a table. Pure.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::time::RowTimeParser;

/// Length limit of a call ID, a caller or a callee. It equals that of a document's ID.
pub const ID_BYTES_MAX: usize = 512;

/// The SIP message that a row describes. The order is the one assumed for rows with the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum RowKind {
    InviteRequest,
    /// A request whose method the row does not name.
    Request,
    InviteReply,
    /// A reply to a request that the row does not name.
    Reply,
    ByeRequest,
    ByeReply,
}

impl RowKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [RowKind; 6] = [
        RowKind::InviteRequest,
        RowKind::Request,
        RowKind::InviteReply,
        RowKind::Reply,
        RowKind::ByeRequest,
        RowKind::ByeReply,
    ];

    pub fn is_reply(self) -> bool {
        matches!(self, RowKind::InviteReply | RowKind::Reply | RowKind::ByeReply)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BillingRow<'a> {
    pub call_id: Cow<'a, str>,
    /// The time of the message: `reply_time` for a reply, else `request_time`.
    pub time_us: i64,
    pub kind: RowKind,
    /// The reply code, or 0.
    pub code: u16,
    /// The sender of the request.
    pub caller: Cow<'a, str>,
    /// The recipient of the request.
    pub callee: Cow<'a, str>,
    /// The position in the input.
    pub sequence: u64,
}

/// The reason why a row is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    #[error("not a JSON object of fields: {0}")]
    Json(String),
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field has a malformed value.
    #[error("{field}: {why}")]
    Field { field: &'static str, why: &'static str },
    /// The method is not a SIP method.
    #[error("{0:?} is not a SIP method (write INVITE or BYE, with \"request\" or \"reply\")")]
    Kind(String),
}

/// The fields of a row as texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowFields<'a> {
    pub request_time: Option<Cow<'a, str>>,
    pub reply_time: Option<Cow<'a, str>>,
    pub caller_id: Option<Cow<'a, str>>,
    pub callee_id: Option<Cow<'a, str>>,
    pub call_id: Option<Cow<'a, str>>,
    /// The fraction of the row's time.
    pub microseconds: Option<Cow<'a, str>>,
    pub reply_code: Option<Cow<'a, str>>,
    /// The method, with or without the word "request" or "reply".
    pub method: Option<Cow<'a, str>>,
    /// The value of a field with a general name (`event`, `type`, `row`), if it contains a known method or word.
    pub event: Option<Cow<'a, str>>,
}

/// The members of a row's JSON object, not parsed.
#[derive(Deserialize)]
struct RowJson<'a> {
    #[serde(borrow)]
    request_time: Option<&'a RawValue>,
    #[serde(borrow)]
    reply_time: Option<&'a RawValue>,
    #[serde(borrow)]
    caller_id: Option<&'a RawValue>,
    #[serde(borrow)]
    callee_id: Option<&'a RawValue>,
    #[serde(borrow)]
    call_id: Option<&'a RawValue>,
    #[serde(borrow)]
    microseconds: Option<&'a RawValue>,
    #[serde(borrow)]
    reply_code: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<&'a RawValue>,
    #[serde(borrow)]
    sip_method: Option<&'a RawValue>,
    #[serde(borrow, rename = "sipRequest")]
    sip_request: Option<&'a RawValue>,
    #[serde(borrow)]
    event: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    row: Option<&'a RawValue>,
}

/// A column of a table of rows. A variant can have several names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowColumn {
    RequestTime,
    ReplyTime,
    CallerId,
    CalleeId,
    CallId,
    Microseconds,
    ReplyCode,
    /// `method`, `sip_method`, `sipRequest`
    Method,
    /// `event`, `type`, `row`
    Event,
}

impl RowColumn {
    /// Returns the column with that name, or `None` for a column that rows do not use.
    pub fn from_name(name: &str) -> Option<RowColumn> {
        Some(match name {
            "request_time" => RowColumn::RequestTime,
            "reply_time" => RowColumn::ReplyTime,
            "caller_id" => RowColumn::CallerId,
            "callee_id" => RowColumn::CalleeId,
            "call_id" => RowColumn::CallId,
            "microseconds" => RowColumn::Microseconds,
            "reply_code" => RowColumn::ReplyCode,
            "method" | "sip_method" | "sipRequest" => RowColumn::Method,
            "event" | "type" | "row" => RowColumn::Event,
            _ => return None,
        })
    }
}

impl<'a> RowFields<'a> {
    /// Reads the fields of a JSON object.
    pub fn from_json(text: &'a [u8]) -> Result<RowFields<'a>, RowError> {
        let json: RowJson<'a> = serde_json::from_slice(text)
            .map_err(|error| RowError::Json(error.to_string().replace(" at line 1 column ", " at byte ")))?;
        let mut fields = RowFields::default();
        for (column, raw, field) in [
            (RowColumn::RequestTime, json.request_time, "request_time"),
            (RowColumn::ReplyTime, json.reply_time, "reply_time"),
            (RowColumn::CallerId, json.caller_id, "caller_id"),
            (RowColumn::CalleeId, json.callee_id, "callee_id"),
            (RowColumn::CallId, json.call_id, "call_id"),
            (RowColumn::Microseconds, json.microseconds, "microseconds"),
            (RowColumn::ReplyCode, json.reply_code, "reply_code"),
            (RowColumn::Method, json.method, "method"),
            (RowColumn::Method, json.sip_method, "sip_method"),
            (RowColumn::Method, json.sip_request, "sipRequest"),
        ] {
            if let Some(text) = scalar_text(raw, field)? {
                fields.set(column, text);
            }
        }
        // These names are general, so a value of another type is ignored.
        for raw in [json.event, json.kind, json.row] {
            if let Ok(Some(text)) = scalar_text(raw, "event") {
                fields.set(RowColumn::Event, text);
            }
        }
        Ok(fields)
    }

    /// Sets the value of a column. Of several columns with a method the first counts.
    pub fn set(&mut self, column: RowColumn, text: Cow<'a, str>) {
        let place = match column {
            RowColumn::RequestTime => &mut self.request_time,
            RowColumn::ReplyTime => &mut self.reply_time,
            RowColumn::CallerId => &mut self.caller_id,
            RowColumn::CalleeId => &mut self.callee_id,
            RowColumn::CallId => &mut self.call_id,
            RowColumn::Microseconds => &mut self.microseconds,
            RowColumn::ReplyCode => &mut self.reply_code,
            RowColumn::Method if self.method.is_some() || is_absent(&text) => return,
            RowColumn::Method => &mut self.method,
            RowColumn::Event if self.event.is_some() || RowLabel::parse(&text).is_none() => return,
            RowColumn::Event => &mut self.event,
        };
        *place = Some(text);
    }
}

/// Returns true for a text that means "no value".
pub(super) fn is_absent(text: &str) -> bool {
    matches!(text.trim(), "" | "-" | "0" | "null" | "<null>" | "NULL")
}

fn scalar_text<'a>(raw: Option<&'a RawValue>, field: &'static str) -> Result<Option<Cow<'a, str>>, RowError> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    let Some(raw) = raw.map(RawValue::get) else { return Ok(None) };
    match raw.as_bytes().first() {
        Some(b'"') => match serde_json::from_str(raw) {
            Ok(Text(text)) => Ok(Some(text)),
            Err(_) => Err(RowError::Field { field, why: "malformed JSON string" }),
        },
        Some(b'{' | b'[') => Err(RowError::Field { field, why: "expected a string or a number" }),
        Some(b'n') => Ok(None),
        _ => Ok(Some(Cow::Borrowed(raw))),
    }
}

impl<'a> BillingRow<'a> {
    /// Parses a row. Returns `None` for a method that the log does not use. `sequence` is the position in the input.
    pub fn read(
        fields: RowFields<'a>,
        clock: &RowTimeParser,
        sequence: u64,
    ) -> Result<Option<BillingRow<'a>>, RowError> {
        let some = |text: Option<Cow<'a, str>>| text.filter(|text| !is_absent(text));
        let (request_time, reply_time) = (some(fields.request_time), some(fields.reply_time));
        let code = some(fields.reply_code).map_or(Ok(0), |text| parse_reply_code(&text))?;
        let said = match some(fields.method) {
            Some(method) => RowLabel::parse(&method)
                .ok_or_else(|| RowError::Kind(truncate_for_message(&method)))
                .map(Some)?,
            None => some(fields.event).and_then(|event| RowLabel::parse(&event)),
        };
        let said = said.unwrap_or_default();
        if said.method == SipMethod::Other {
            return Ok(None);
        }
        let is_reply = said.is_reply.unwrap_or(reply_time.is_some() || code != 0);
        // A reply that has only the time of its request gets that time.
        let own = if is_reply { reply_time.or(request_time) } else { request_time };
        let own = own.ok_or(RowError::Missing(if is_reply { "reply_time" } else { "request_time" }))?;
        let us = clock.parse(&own).map_err(|_| RowError::Field {
            field: if is_reply { "reply_time" } else { "request_time" },
            why: "not a time (write seconds since 1970 or a date such as 2026-11-22T14:02:07Z)",
        })?;
        let micros = fields.microseconds.filter(|text| !text.trim().is_empty());
        let micros = micros.map_or(Ok(0), |text| parse_microseconds(&text))?;
        // `microseconds` is ignored if the time itself has a fraction.
        let fraction = if us % 1_000_000 == 0 { micros } else { 0 };
        let required = |text: Option<Cow<'a, str>>, field| match text {
            Some(text) if !text.is_empty() => check_id(text, field),
            _ => Err(RowError::Missing(field)),
        };
        Ok(Some(BillingRow {
            call_id: required(fields.call_id, "call_id")?,
            time_us: us + fraction,
            kind: said.kind(is_reply),
            code: if is_reply { code } else { 0 },
            caller: check_id(fields.caller_id.unwrap_or_default(), "caller_id")?,
            callee: check_id(fields.callee_id.unwrap_or_default(), "callee_id")?,
            sequence,
        }))
    }
}

fn check_id<'a>(text: Cow<'a, str>, field: &'static str) -> Result<Cow<'a, str>, RowError> {
    match text {
        text if text.len() > ID_BYTES_MAX => Err(RowError::Field { field, why: "longer than 512 bytes" }),
        text if text.contains('\0') => Err(RowError::Field { field, why: "it contains a NUL byte" }),
        text => Ok(text),
    }
}

fn parse_reply_code(text: &str) -> Result<u16, RowError> {
    let code = text.trim().parse().ok().filter(|code| (100..700).contains(code));
    code.ok_or(RowError::Field { field: "reply_code", why: "not a SIP reply code (100 to 699)" })
}

/// Parses a number of microseconds. Some scripts write it as a float, so `.0` at its end is accepted.
fn parse_microseconds(text: &str) -> Result<i64, RowError> {
    let (whole, zeros) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    let is_whole = zeros.bytes().all(|byte| byte == b'0');
    let micros = whole.parse().ok().filter(|micros| is_whole && (0..1_000_000).contains(micros));
    micros.ok_or(RowError::Field { field: "microseconds", why: "not a number of microseconds (0 to 999999)" })
}

fn truncate_for_message(text: &str) -> String {
    text.chars().take(64).collect()
}

/// The meaning of a row's `method` or `event` field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct RowLabel {
    method: SipMethod,
    is_reply: Option<bool>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum SipMethod {
    #[default]
    Unknown,
    Invite,
    Bye,
    /// A method that the log does not use, such as ACK, CANCEL or OPTIONS.
    Other,
}

/// SIP methods other than INVITE and BYE (RFC 3261, 3262, 3311, 3428, 3515, 3903, 6086, 6665).
const OTHER_METHODS: [&str; 12] = [
    "ack",
    "cancel",
    "options",
    "register",
    "prack",
    "update",
    "message",
    "refer",
    "publish",
    "info",
    "subscribe",
    "notify",
];

impl RowLabel {
    /// Parses a text such as `INVITE`, `invite_request`, `BYE reply` or `request`. Returns `None` if it has no known word.
    fn parse(text: &str) -> Option<RowLabel> {
        let mut said = RowLabel::default();
        let mut is_known = false;
        for word in text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
            let is = |known: &str| word.eq_ignore_ascii_case(known);
            match () {
                () if is("invite") => said.method = SipMethod::Invite,
                () if is("bye") => said.method = SipMethod::Bye,
                () if is("request") || is("req") => said.is_reply = Some(false),
                () if is("reply") || is("response") || is("resp") => said.is_reply = Some(true),
                () if OTHER_METHODS.iter().any(|method| is(method)) => said.method = SipMethod::Other,
                () => continue,
            }
            is_known = true;
        }
        is_known.then_some(said)
    }

    fn kind(self, is_reply: bool) -> RowKind {
        match (self.method, is_reply) {
            (SipMethod::Invite, false) => RowKind::InviteRequest,
            (SipMethod::Invite, true) => RowKind::InviteReply,
            (SipMethod::Bye, false) => RowKind::ByeRequest,
            (SipMethod::Bye, true) => RowKind::ByeReply,
            (_, false) => RowKind::Request,
            (_, true) => RowKind::Reply,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Option<BillingRow<'_>>, RowError> {
        BillingRow::read(RowFields::from_json(line.as_bytes())?, &RowTimeParser::utc(), 7)
    }

    #[track_caller]
    fn check(line: &str, kind: RowKind, time_us: i64, code: u16) {
        let row = read(line).unwrap().unwrap();
        assert_eq!((row.kind, row.time_us, row.code), (kind, time_us, code), "{line}");
    }

    #[test]
    fn the_kind_of_a_row_follows_from_its_method_or_its_reply_fields() {
        let time = r#""call_id":"a","request_time":5,"microseconds":7"#;
        check(&format!(r#"{{{time},"method":"INVITE"}}"#), RowKind::InviteRequest, 5_000_007, 0);
        check(&format!(r#"{{{time},"sip_method":"bye"}}"#), RowKind::ByeRequest, 5_000_007, 0);
        check(
            &format!(r#"{{{time},"type":"invite_reply","reply_code":200}}"#),
            RowKind::InviteReply,
            5_000_007,
            200,
        );
        check(
            &format!(r#"{{{time},"event":"BYE-response","reply_time":"6","reply_code":"200"}}"#),
            RowKind::ByeReply,
            6_000_007,
            200,
        );
        check(
            &format!(r#"{{{time},"method":"INVITE","reply_time":6,"reply_code":486}}"#),
            RowKind::InviteReply,
            6_000_007,
            486,
        );
        check(
            &format!(r#"{{{time},"method":"INVITE","reply_time":"","reply_code":0}}"#),
            RowKind::InviteRequest,
            5_000_007,
            0,
        );
        check(&format!(r#"{{{time}}}"#), RowKind::Request, 5_000_007, 0);
        check(&format!(r#"{{{time},"reply_time":6}}"#), RowKind::Reply, 6_000_007, 0);
        check(&format!(r#"{{{time},"row":"reply"}}"#), RowKind::Reply, 5_000_007, 0);
        // The word "request" counts more than filled reply fields.
        check(
            &format!(r#"{{{time},"row":"INVITE request","reply_time":6,"reply_code":200}}"#),
            RowKind::InviteRequest,
            5_000_007,
            0,
        );
        check(&format!(r#"{{{time},"type":"_doc"}}"#), RowKind::Request, 5_000_007, 0);
        assert_eq!(read(&format!(r#"{{{time},"method":"CANCEL"}}"#)), Ok(None));
        assert_eq!(read(&format!(r#"{{{time},"method":"SPAM"}}"#)), Err(RowError::Kind("SPAM".into())));
    }

    #[test]
    fn a_fraction_in_the_time_takes_precedence_over_microseconds() {
        check(r#"{"call_id":"a","request_time":5.25,"microseconds":7}"#, RowKind::Request, 5_250_000, 0);
        check(
            r#"{"call_id":"a","request_time":"1970-01-01T00:00:05Z","microseconds":"000007"}"#,
            RowKind::Request,
            5_000_007,
            0,
        );
    }

    #[test]
    fn errors_name_the_field() {
        let why = |line: &str| read(line).unwrap_err().to_string();
        assert_eq!(why(r#"{"request_time":1}"#), "call_id is missing");
        assert_eq!(why(r#"{"call_id":"","request_time":1}"#), "call_id is missing");
        assert_eq!(why(r#"{"call_id":"a"}"#), "request_time is missing");
        assert_eq!(why(r#"{"call_id":"a","reply_code":200}"#), "reply_time is missing");
        assert_eq!(
            why(r#"{"call_id":"a","request_time":"x"}"#),
            "request_time: not a time (write seconds since 1970 or a date such as 2026-11-22T14:02:07Z)"
        );
        assert!(why(r#"{"call_id":"a","request_time":[1]}"#).starts_with("request_time: expected a string"));
        assert!(why("[1]").starts_with("not a JSON object"));
        assert!(why("{").starts_with("not a JSON object"));
        let row =
            |field: &str, value: &str| format!(r#"{{"call_id":"a","request_time":1,"{field}":{value}}}"#);
        for (field, good, bad) in [
            ("microseconds", &["0", "999999", "7.000", "\"\""][..], &["1000000", "-1", "1.5", "\"x\""][..]),
            ("reply_code", &["100", "699", "0", "null"], &["99", "700", "65736", "\"OK\""]),
        ] {
            assert!(good.iter().all(|value| read(&row(field, value)).is_ok()), "{field}");
            assert!(bad.iter().all(|value| why(&row(field, value)).starts_with(field)), "{field}");
        }
        for (length, is_good) in [(ID_BYTES_MAX, true), (ID_BYTES_MAX + 1, false)] {
            let text = format!("\"{}\"", "x".repeat(length));
            assert_eq!(read(&row("caller_id", &text)).is_ok(), is_good);
            assert_eq!(read(&format!(r#"{{"request_time":1,"call_id":{text}}}"#)).is_ok(), is_good);
        }
        assert_eq!(why(r#"{"call_id":"a\u0000","request_time":1}"#), "call_id: it contains a NUL byte");
    }
}
