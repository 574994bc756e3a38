//! Events in the forms of OpenSIPS' modules event_rabbitmq and event_stream. Pure.
//!
//! Up to 2.4 an event is its name and one line per argument, `name::value`, where the value may be in double quotes. From 3.0
//! on it is a JSON-RPC notification with the name as `method` and the arguments as `params`.
//! Both become one object of the arguments, with the name as `event` unless an argument has that name.

use serde_json::value::RawValue;

use crate::runtime::json::{JsonObject, string_value};

/// Limit on the arguments of an event.
const ARGUMENTS_MAX: usize = 1_000;

/// Returns the event in a JSON-RPC notification as one object, or `None` for any other object.
pub(crate) fn from_notification(members: &JsonObject<'_>) -> Option<Vec<u8>> {
    members.get("jsonrpc")?;
    let name = string_value(members.get("method")?)?;
    let params = members.get("params")?.get();
    let arguments: JsonObject<'_> = serde_json::from_str(params).ok()?;
    if arguments.get("event").is_some() {
        return Some(params.as_bytes().to_vec());
    }
    // An object ends with its brace, and `params` is one.
    let mut object = params.trim_end().as_bytes().to_vec();
    object.pop();
    push_text(&mut object, "event", &name);
    object.push(b'}');
    Some(object)
}

/// Returns the event in lines as one object, or `None` if the text has another form.
pub(crate) fn from_lines(text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    let mut lines = text.lines();
    let name = lines.next()?.trim_end();
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return None;
    }
    let mut object = vec![b'{'];
    let mut has_event = false;
    for (nth, line) in lines.filter(|line| !line.is_empty()).enumerate() {
        let (argument, value) = line.split_once("::")?;
        if argument.is_empty() || nth >= ARGUMENTS_MAX {
            return None;
        }
        has_event |= argument == "event";
        let quoted = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        push_text(&mut object, argument, quoted.unwrap_or(value));
    }
    // Without an argument it is some line of text.
    if object.len() == 1 {
        return None;
    }
    if !has_event {
        push_text(&mut object, "event", name);
    }
    object.push(b'}');
    Some(object)
}

/// Returns the arguments of an event in either form.
pub(crate) fn from_any(text: &[u8]) -> Option<Vec<u8>> {
    match serde_json::from_slice::<JsonObject<'_>>(text) {
        Ok(members) => from_notification(&members),
        Err(_) if serde_json::from_slice::<&RawValue>(text).is_ok() => None,
        Err(_) => from_lines(text),
    }
}

/// Appends a member to an object without its closing brace.
fn push_text(object: &mut Vec<u8>, name: &str, value: &str) {
    if !object.trim_ascii_end().ends_with(b"{") {
        object.push(b',');
    }
    // Writing to a Vec cannot fail, and every string is valid JSON.
    let _ = serde_json::to_writer(&mut *object, name);
    object.push(b':');
    let _ = serde_json::to_writer(&mut *object, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        let found = from_any(text.as_bytes()).map(|object| String::from_utf8(object).unwrap());
        assert_eq!(found.as_deref(), expected, "{text}");
    }

    #[test]
    fn an_event_in_lines_becomes_an_object() {
        check(
            "E_QBL\ncall_id::a1@192.0.2.1\nrequest_time::1795305600\nreply_code::\"200\"\n",
            Some(
                r#"{"call_id":"a1@192.0.2.1","request_time":"1795305600","reply_code":"200","event":"E_QBL"}"#,
            ),
        );
        check("E_QBL\r\ncall_id::a\r\n", Some(r#"{"call_id":"a","event":"E_QBL"}"#));
        check("E_PIKE_BLOCKED\nip::::1", Some(r#"{"ip":"::1","event":"E_PIKE_BLOCKED"}"#));
        check("E_QBL\nevent::INVITE\nuri::sip:a\"b", Some(r#"{"event":"INVITE","uri":"sip:a\"b"}"#));
        for other in [
            "",
            "E_QBL",
            "E_QBL\n",
            "a b\nc::d",
            "E_QBL\nno argument",
            "E_QBL\n::v",
            "[1]",
            "7",
            "\"a\"",
            "{\"a\":1}",
        ] {
            check(other, None);
        }
        let many = |count: usize| format!("E\n{}", "a::b\n".repeat(count));
        assert!(from_lines(many(ARGUMENTS_MAX).as_bytes()).is_some());
        assert!(from_lines(many(ARGUMENTS_MAX + 1).as_bytes()).is_none());
    }

    #[test]
    fn a_notification_becomes_an_object() {
        check(
            r#"{"jsonrpc":"2.0","method":"E_QBL","params":{"call_id":"a","request_time":1795305600}}"#,
            Some(r#"{"call_id":"a","request_time":1795305600,"event":"E_QBL"}"#),
        );
        check(r#"{"jsonrpc":"2.0","method":"E_X","params":{ }}"#, Some(r#"{ "event":"E_X"}"#));
        check(r#"{"jsonrpc":"2.0","method":"E_X","params":{"event":"BYE"}}"#, Some(r#"{"event":"BYE"}"#));
        check(r#"{"jsonrpc":"2.0","method":"E_X","params":["a"]}"#, None);
        check(r#"{"jsonrpc":"2.0","result":{"a":1}}"#, None);
        check(r#"{"method":"INVITE","params":{"a":1}}"#, None);
    }
}
