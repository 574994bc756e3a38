//! Builds one row of the log from its fields. Pure.

use std::borrow::Cow;

use super::fields::{RowColumn, RowError, RowFields};
use super::label::{RowKind, RowLabel, SipMethod};
use super::time::RowTimeParser;

/// Length limit of a call ID, a caller or a callee. It equals that of a document's ID.
pub(super) const ID_BYTES_MAX: usize = 512;

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

impl<'a> BillingRow<'a> {
    /// Builds a row. Returns `None` for a method that the log does not use. `sequence` is the position in the input.
    pub fn from_fields(
        mut fields: RowFields<'a>,
        times: &RowTimeParser,
        sequence: u64,
    ) -> Result<Option<BillingRow<'a>>, RowError> {
        let code = fields.take_value(RowColumn::ReplyCode);
        let code = code.map_or(Ok(0), |text| parse_reply_code(&text))?;
        let label = parse_label(&mut fields)?;
        if label.method == SipMethod::Other {
            return Ok(None);
        }
        let is_reply = label.is_reply.unwrap_or(fields.has_value(RowColumn::ReplyTime) || code != 0);
        Ok(Some(BillingRow {
            time_us: parse_time(&mut fields, times, is_reply)?,
            kind: label.kind(is_reply),
            code: if is_reply { code } else { 0 },
            call_id: match fields.take_text(RowColumn::CallId) {
                Some(text) if !text.is_empty() => check_id(text, "call_id")?,
                _ => return Err(RowError::Missing("call_id")),
            },
            caller: check_id(fields.take_text(RowColumn::CallerId).unwrap_or_default(), "caller_id")?,
            callee: check_id(fields.take_text(RowColumn::CalleeId).unwrap_or_default(), "callee_id")?,
            sequence,
        }))
    }
}

/// Returns what the method, or else the event, says about the row.
fn parse_label(fields: &mut RowFields<'_>) -> Result<RowLabel, RowError> {
    let label = match fields.take_value(RowColumn::Method) {
        Some(method) => {
            let label = RowLabel::parse(&method);
            Some(label.ok_or_else(|| RowError::Kind(truncate_for_message(&method)))?)
        }
        None => fields.take_value(RowColumn::Event).and_then(|event| RowLabel::parse(&event)),
    };
    Ok(label.unwrap_or_default())
}

/// Returns the time of a row in microseconds.
fn parse_time(fields: &mut RowFields<'_>, times: &RowTimeParser, is_reply: bool) -> Result<i64, RowError> {
    let field = if is_reply { "reply_time" } else { "request_time" };
    let request_time = fields.take_value(RowColumn::RequestTime);
    let time = match fields.take_value(RowColumn::ReplyTime).filter(|_| is_reply) {
        Some(reply_time) => Some(reply_time),
        // A reply that has only the time of its request gets that time.
        None => request_time,
    };
    let us = times.parse(&time.ok_or(RowError::Missing(field))?).map_err(|_| RowError::Field {
        field,
        why: "not a time (write seconds since 1970 or a date such as 2026-11-22T14:02:07Z)",
    })?;
    let micros = fields.take_text(RowColumn::Microseconds).filter(|text| !text.trim().is_empty());
    let micros = micros.map_or(Ok(0), |text| parse_microseconds(&text))?;
    // `microseconds` is ignored if the time itself has a fraction.
    Ok(if us % 1_000_000 == 0 { us + micros } else { us })
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
///
/// Nothing defines the field. Within its second it is less than a million; some count from 1970 or from the request instead.
/// The last six digits keep the time within the second that the row names, whatever they count from.
fn parse_microseconds(text: &str) -> Result<i64, RowError> {
    let (whole, zeros) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    let is_whole = zeros.bytes().all(|byte| byte == b'0');
    let micros = whole.parse::<i64>().ok().filter(|micros| is_whole && *micros >= 0);
    let micros = micros.map(|micros| micros % 1_000_000);
    micros.ok_or(RowError::Field {
        field: "microseconds",
        why: "not a number of microseconds (write 0 to 999999)",
    })
}

fn truncate_for_message(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Option<BillingRow<'_>>, RowError> {
        BillingRow::from_fields(RowFields::from_json(line.as_bytes())?, &RowTimeParser::utc(), 7)
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
    fn microseconds_from_a_million_on_stay_within_the_second() {
        let check_micros = |micros: &str, expected: i64| {
            let line = format!(r#"{{"call_id":"a","request_time":1795305600,"microseconds":{micros}}}"#);
            check(&line, RowKind::Request, 1_795_305_600_000_000 + expected, 0);
        };
        check_micros("1000000", 0);
        check_micros("3250000", 250_000);
        check_micros("1795305600250000", 250_000);
        check_micros("\"9223372036854775807\"", 775_807);
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
            (
                "microseconds",
                &["0", "999999", "1000000", "7.000", "\"\""][..],
                &["-1", "1.5", "\"x\"", "9223372036854775808"][..],
            ),
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
