//! One row of the log, from the texts of its fields. Pure.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::time::Clock;

/// Bytes of a call id, a caller or a callee: as of a document's id.
pub const ID_BYTES_MAX: usize = 512;

/// What a row is about. The order is that in which rows of one microsecond happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// The INVITE passed.
    InviteRequest,
    /// A request, and the row does not say which.
    Request,
    /// A reply to the INVITE passed.
    InviteReply,
    /// A reply, and the row does not say to what.
    Reply,
    /// The BYE passed.
    ByeRequest,
    /// The reply to the BYE passed.
    ByeReply,
}

impl Kind {
    /// All, by their number.
    pub const ALL: [Kind; 6] = [
        Kind::InviteRequest,
        Kind::Request,
        Kind::InviteReply,
        Kind::Reply,
        Kind::ByeRequest,
        Kind::ByeReply,
    ];

    /// True for a reply.
    pub fn is_reply(self) -> bool {
        matches!(self, Kind::InviteReply | Kind::Reply | Kind::ByeReply)
    }
}

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row<'a> {
    /// The call.
    pub call_id: Cow<'a, str>,
    /// When it happened: for a reply its own time, else the request's.
    pub time_us: i64,
    /// What it is about.
    pub kind: Kind,
    /// The reply code; 0: none.
    pub code: u16,
    /// The side that sent the request.
    pub caller: Cow<'a, str>,
    /// The side that it was sent to.
    pub callee: Cow<'a, str>,
    /// Its place in the input.
    pub sequence: u64,
}

/// Why a row cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It is not JSON, or no object.
    #[error("no JSON object of fields: {0}")]
    Json(String),
    /// A field is not there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field has a value that it cannot have.
    #[error("{field}: {why}")]
    Field {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// What the row is about is none of the four.
    #[error("{0:?} is neither a request nor a reply of INVITE or BYE")]
    Kind(String),
}

/// The fields of a row as texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields<'a> {
    /// When the request passed.
    pub request_time: Option<Cow<'a, str>>,
    /// When the reply passed.
    pub reply_time: Option<Cow<'a, str>>,
    /// Who sent the request.
    pub caller_id: Option<Cow<'a, str>>,
    /// To whom.
    pub callee_id: Option<Cow<'a, str>>,
    /// The call.
    pub call_id: Option<Cow<'a, str>>,
    /// The fraction of the row's time.
    pub microseconds: Option<Cow<'a, str>>,
    /// The code of the reply.
    pub reply_code: Option<Cow<'a, str>>,
    /// The method: INVITE or BYE, maybe with the word request or reply.
    pub method: Option<Cow<'a, str>>,
    /// The same under a name that means anything: it counts where it has one of these words.
    pub event: Option<Cow<'a, str>>,
}

/// The same as JSON has it; values are as they stand.
#[derive(Deserialize)]
struct Json<'a> {
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

/// A column of a table that has rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// `request_time`
    RequestTime,
    /// `reply_time`
    ReplyTime,
    /// `caller_id`
    CallerId,
    /// `callee_id`
    CalleeId,
    /// `call_id`
    CallId,
    /// `microseconds`
    Microseconds,
    /// `reply_code`
    ReplyCode,
    /// `method`, `sip_method`, `sipRequest`
    Method,
    /// `event`, `type`, `row`
    Event,
}

impl Column {
    /// The column of that name; none for one that says nothing about calls.
    pub fn named(name: &str) -> Option<Column> {
        Some(match name {
            "request_time" => Column::RequestTime,
            "reply_time" => Column::ReplyTime,
            "caller_id" => Column::CallerId,
            "callee_id" => Column::CalleeId,
            "call_id" => Column::CallId,
            "microseconds" => Column::Microseconds,
            "reply_code" => Column::ReplyCode,
            "method" | "sip_method" | "sipRequest" => Column::Method,
            "event" | "type" | "row" => Column::Event,
            _ => return None,
        })
    }
}

impl<'a> Fields<'a> {
    /// The fields of a JSON object.
    pub fn of_json(text: &'a [u8]) -> Result<Fields<'a>, Unfit> {
        let json: Json<'a> = serde_json::from_slice(text)
            .map_err(|error| Unfit::Json(error.to_string().replace(" at line 1 column ", " at byte ")))?;
        let mut fields = Fields::default();
        for (column, raw, field) in [
            (Column::RequestTime, json.request_time, "request_time"),
            (Column::ReplyTime, json.reply_time, "reply_time"),
            (Column::CallerId, json.caller_id, "caller_id"),
            (Column::CalleeId, json.callee_id, "callee_id"),
            (Column::CallId, json.call_id, "call_id"),
            (Column::Microseconds, json.microseconds, "microseconds"),
            (Column::ReplyCode, json.reply_code, "reply_code"),
            (Column::Method, json.method, "method"),
            (Column::Method, json.sip_method, "sip_method"),
            (Column::Method, json.sip_request, "sipRequest"),
        ] {
            if let Some(text) = scalar(raw, field)? {
                fields.put(column, text);
            }
        }
        // Anything may stand under these names.
        for raw in [json.event, json.kind, json.row] {
            if let Ok(Some(text)) = scalar(raw, "event") {
                fields.put(Column::Event, text);
            }
        }
        Ok(fields)
    }

    /// Puts the value of a column. Of several that name the method the first counts.
    pub fn put(&mut self, column: Column, text: Cow<'a, str>) {
        let place = match column {
            Column::RequestTime => &mut self.request_time,
            Column::ReplyTime => &mut self.reply_time,
            Column::CallerId => &mut self.caller_id,
            Column::CalleeId => &mut self.callee_id,
            Column::CallId => &mut self.call_id,
            Column::Microseconds => &mut self.microseconds,
            Column::ReplyCode => &mut self.reply_code,
            Column::Method if self.method.is_some() || is_nothing(&text) => return,
            Column::Method => &mut self.method,
            Column::Event if self.event.is_some() || Said::of(&text).is_none() => return,
            Column::Event => &mut self.event,
        };
        *place = Some(text);
    }
}

/// True for a text that stands where there is no value.
pub fn is_nothing(text: &str) -> bool {
    matches!(text.trim(), "" | "-" | "0" | "null" | "<null>" | "NULL")
}

fn scalar<'a>(raw: Option<&'a RawValue>, field: &'static str) -> Result<Option<Cow<'a, str>>, Unfit> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    let Some(raw) = raw.map(RawValue::get) else { return Ok(None) };
    match raw.as_bytes().first() {
        Some(b'"') => match serde_json::from_str(raw) {
            Ok(Text(text)) => Ok(Some(text)),
            Err(_) => Err(Unfit::Field { field, why: "its text cannot be read" }),
        },
        Some(b'{' | b'[') => Err(Unfit::Field { field, why: "a text or a number is expected" }),
        Some(b'n') => Ok(None),
        _ => Ok(Some(Cow::Borrowed(raw))),
    }
}

impl<'a> Row<'a> {
    /// Reads a row; none where it is about another method. `sequence` is its place in the input.
    pub fn read(fields: Fields<'a>, clock: &Clock, sequence: u64) -> Result<Option<Row<'a>>, Unfit> {
        let some = |text: Option<Cow<'a, str>>| text.filter(|text| !is_nothing(text));
        let (request_time, reply_time) = (some(fields.request_time), some(fields.reply_time));
        let code = some(fields.reply_code).map_or(Ok(0), |text| code(&text))?;
        let said = match some(fields.method) {
            Some(method) => Said::of(&method).ok_or_else(|| Unfit::Kind(shown(&method))).map(Some)?,
            None => some(fields.event).and_then(|event| Said::of(&event)),
        };
        let said = said.unwrap_or_default();
        if said.method == Method::Other {
            return Ok(None);
        }
        let is_reply = said.is_reply.unwrap_or(reply_time.is_some() || code != 0);
        // A reply that names only its request's time happened then, as far as anybody knows.
        let own = if is_reply { reply_time.or(request_time) } else { request_time };
        let own = own.ok_or(Unfit::Missing(if is_reply { "reply_time" } else { "request_time" }))?;
        let us = clock.read(&own).map_err(|_| Unfit::Field {
            field: if is_reply { "reply_time" } else { "request_time" },
            why: "neither seconds since 1970 nor a date",
        })?;
        let micros = fields.microseconds.filter(|text| !text.trim().is_empty());
        let micros = micros.map_or(Ok(0), |text| micros_of(&text))?;
        // A time with a fraction of its own needs no other.
        let fraction = if us % 1_000_000 == 0 { micros } else { 0 };
        let required = |text: Option<Cow<'a, str>>, field| match text {
            Some(text) if !text.is_empty() => checked(text, field),
            _ => Err(Unfit::Missing(field)),
        };
        Ok(Some(Row {
            call_id: required(fields.call_id, "call_id")?,
            time_us: us + fraction,
            kind: said.kind(is_reply),
            code: if is_reply { code } else { 0 },
            caller: checked(fields.caller_id.unwrap_or_default(), "caller_id")?,
            callee: checked(fields.callee_id.unwrap_or_default(), "callee_id")?,
            sequence,
        }))
    }
}

fn checked<'a>(text: Cow<'a, str>, field: &'static str) -> Result<Cow<'a, str>, Unfit> {
    match text {
        text if text.len() > ID_BYTES_MAX => Err(Unfit::Field { field, why: "longer than 512 bytes" }),
        text if text.contains('\0') => Err(Unfit::Field { field, why: "it has a NUL" }),
        text => Ok(text),
    }
}

fn code(text: &str) -> Result<u16, Unfit> {
    let code = text.trim().parse().ok().filter(|code| (100..700).contains(code));
    code.ok_or(Unfit::Field { field: "reply_code", why: "no SIP reply code (100 to 699)" })
}

/// Scripts whose numbers are floats write zeros behind them.
fn micros_of(text: &str) -> Result<i64, Unfit> {
    let (whole, zeros) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    let is_whole = zeros.bytes().all(|byte| byte == b'0');
    let micros = whole.parse().ok().filter(|micros| is_whole && (0..1_000_000).contains(micros));
    micros.ok_or(Unfit::Field { field: "microseconds", why: "no fraction of a second (0 to 999999)" })
}

fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

/// What a row says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Said {
    method: Method,
    is_reply: Option<bool>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Method {
    #[default]
    Unsaid,
    Invite,
    Bye,
    /// A method that is no part of the log: ACK, CANCEL, OPTIONS.
    Other,
}

/// Methods beside INVITE and BYE (RFC 3261, 3262, 3311, 3428, 3515, 3903, 6086, 6665).
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

impl Said {
    /// `INVITE`, `invite_request`, `BYE reply`, `request`; none where no word is known.
    fn of(text: &str) -> Option<Said> {
        let mut said = Said::default();
        let mut is_known = false;
        for word in text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
            let is = |known: &str| word.eq_ignore_ascii_case(known);
            match () {
                () if is("invite") => said.method = Method::Invite,
                () if is("bye") => said.method = Method::Bye,
                () if is("request") || is("req") => said.is_reply = Some(false),
                () if is("reply") || is("response") || is("resp") => said.is_reply = Some(true),
                () if OTHER_METHODS.iter().any(|method| is(method)) => said.method = Method::Other,
                () => continue,
            }
            is_known = true;
        }
        is_known.then_some(said)
    }

    fn kind(self, is_reply: bool) -> Kind {
        match (self.method, is_reply) {
            (Method::Invite, false) => Kind::InviteRequest,
            (Method::Invite, true) => Kind::InviteReply,
            (Method::Bye, false) => Kind::ByeRequest,
            (Method::Bye, true) => Kind::ByeReply,
            (_, false) => Kind::Request,
            (_, true) => Kind::Reply,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Option<Row<'_>>, Unfit> {
        Row::read(Fields::of_json(line.as_bytes())?, &Clock::utc(), 7)
    }

    #[track_caller]
    fn check(line: &str, kind: Kind, time_us: i64, code: u16) {
        let row = read(line).unwrap().unwrap();
        assert_eq!((row.kind, row.time_us, row.code), (kind, time_us, code), "{line}");
    }

    #[test]
    fn a_row_says_what_it_is_about() {
        let time = r#""call_id":"a","request_time":5,"microseconds":7"#;
        check(&format!(r#"{{{time},"method":"INVITE"}}"#), Kind::InviteRequest, 5_000_007, 0);
        check(&format!(r#"{{{time},"sip_method":"bye"}}"#), Kind::ByeRequest, 5_000_007, 0);
        check(
            &format!(r#"{{{time},"type":"invite_reply","reply_code":200}}"#),
            Kind::InviteReply,
            5_000_007,
            200,
        );
        check(
            &format!(r#"{{{time},"event":"BYE-response","reply_time":"6","reply_code":"200"}}"#),
            Kind::ByeReply,
            6_000_007,
            200,
        );
        check(
            &format!(r#"{{{time},"method":"INVITE","reply_time":6,"reply_code":486}}"#),
            Kind::InviteReply,
            6_000_007,
            486,
        );
        check(
            &format!(r#"{{{time},"method":"INVITE","reply_time":"","reply_code":0}}"#),
            Kind::InviteRequest,
            5_000_007,
            0,
        );
        check(&format!(r#"{{{time}}}"#), Kind::Request, 5_000_007, 0);
        check(&format!(r#"{{{time},"reply_time":6}}"#), Kind::Reply, 6_000_007, 0);
        check(&format!(r#"{{{time},"row":"reply"}}"#), Kind::Reply, 5_000_007, 0);
        // A request that has the fields of its reply filled in says that it is a request.
        check(
            &format!(r#"{{{time},"row":"INVITE request","reply_time":6,"reply_code":200}}"#),
            Kind::InviteRequest,
            5_000_007,
            0,
        );
        check(&format!(r#"{{{time},"type":"_doc"}}"#), Kind::Request, 5_000_007, 0);
        assert_eq!(read(&format!(r#"{{{time},"method":"CANCEL"}}"#)), Ok(None));
        assert_eq!(read(&format!(r#"{{{time},"method":"SPAM"}}"#)), Err(Unfit::Kind("SPAM".into())));
    }

    #[test]
    fn a_fraction_of_the_time_itself_goes_first() {
        check(r#"{"call_id":"a","request_time":5.25,"microseconds":7}"#, Kind::Request, 5_250_000, 0);
        check(
            r#"{"call_id":"a","request_time":"1970-01-01T00:00:05Z","microseconds":"000007"}"#,
            Kind::Request,
            5_000_007,
            0,
        );
    }

    #[test]
    fn what_is_wrong_says_where() {
        let why = |line: &str| read(line).unwrap_err().to_string();
        assert_eq!(why(r#"{"request_time":1}"#), "call_id is missing");
        assert_eq!(why(r#"{"call_id":"","request_time":1}"#), "call_id is missing");
        assert_eq!(why(r#"{"call_id":"a"}"#), "request_time is missing");
        assert_eq!(why(r#"{"call_id":"a","reply_code":200}"#), "reply_time is missing");
        assert_eq!(
            why(r#"{"call_id":"a","request_time":"x"}"#),
            "request_time: neither seconds since 1970 nor a date"
        );
        assert!(why(r#"{"call_id":"a","request_time":[1]}"#).starts_with("request_time: a text or a number"));
        assert!(why("[1]").starts_with("no JSON object"));
        assert!(why("{").starts_with("no JSON object"));
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
        assert_eq!(why(r#"{"call_id":"a\u0000","request_time":1}"#), "call_id: it has a NUL");
    }
}
