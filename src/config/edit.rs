//! Changes single values in the text of a configuration file. Everything else stays as it is, byte for byte. Pure.

use serde_json::Value;

use super::json::{self, JsonNode};

/// A value to set, by its path from the top: `parameters.tcpServer.port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub path: String,
    pub value: Value,
}

impl Change {
    /// Parses `KEY=VALUE`; the key may omit `parameters.`. A value that starts with `{`, `[` or `"` is JSON, any other is a text,
    /// or a number if the key takes one.
    pub fn parse(text: &str) -> Result<Change, String> {
        let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE, such as events.http=9200")?;
        let key = key.trim();
        if key.is_empty() || key.split('.').any(str::is_empty) {
            return Err(format!("{key:?} is not a key, such as events.http"));
        }
        let path = if key.starts_with("parameters.") { key.to_owned() } else { format!("parameters.{key}") };
        let value = if value.starts_with(['{', '[', '"']) {
            serde_json::from_str(value).map_err(|error| format!("{key}: not valid JSON: {error}"))?
        } else {
            to_json(&path, value)
        };
        Ok(Change { path, value })
    }

    /// A change of a value that is given as text, as a flag gives it.
    pub fn of_text(path: &str, text: &str) -> Change {
        Change { path: path.to_owned(), value: to_json(path, text) }
    }
}

fn to_json(path: &str, text: &str) -> Value {
    let takes_number = path.ends_with(".port") || path.ends_with(".keepDays");
    let number = text.parse::<u32>().ok().filter(|_| takes_number);
    number.map_or_else(|| Value::from(text), Value::from)
}

/// Applies changes to the text of a file. The text must be a JSON object; the error says what it is instead.
pub fn apply(text: &str, changes: &[Change]) -> Result<String, String> {
    let mut text = text.to_owned();
    for change in changes {
        text = apply_one(&text, change)?;
    }
    Ok(text)
}

fn apply_one(text: &str, change: &Change) -> Result<String, String> {
    // A byte order mark is not part of the JSON and is kept.
    let (mark, document) = text.split_at(if text.starts_with('\u{feff}') { 3 } else { 0 });
    let root = json::parse(document).map_err(|error| {
        let (line, column) = json::line_and_column(document, error.offset);
        format!("line {line}, column {column}: not valid JSON: {}", error.text)
    })?;
    let names: Vec<&str> = change.path.split('.').collect();
    let edit = find_edit(root, &names, &change.value)?;
    let (start, end) = edit.range;
    Ok(format!("{mark}{}{}{}", &document[..start], edit.text, &document[end..]))
}

/// A text that replaces a range of bytes.
struct Edit {
    range: (usize, usize),
    text: String,
}

/// Finds the value of a path below a node, or the place for it.
fn find_edit(node: JsonNode<'_>, names: &[&str], value: &Value) -> Result<Edit, String> {
    let Some(members) = node.members() else {
        return Err(format!("expected an object around {:?}, found {}", names.join("."), node.kind()));
    };
    let members = members.map_err(|error| error.text)?;
    let [name, rest @ ..] = names else { return Err("the key is empty".to_owned()) };
    match members.iter().rfind(|member| member.key == *name) {
        Some(member) if rest.is_empty() => {
            let range = member.value.range();
            Ok(Edit { range: (range.start, range.end), text: value.to_string() })
        }
        Some(member) => find_edit(member.value, rest, value),
        None => {
            let start = node.offset() + 1;
            let nested = rest.iter().rev().fold(value.clone(), |value, name| {
                Value::Object([((*name).to_owned(), value)].into_iter().collect())
            });
            let end = if members.is_empty() { "" } else { "," };
            Ok(Edit { range: (start, start), text: format!("{}: {nested}{end}", Value::from(*name)) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, change: &str, expected: &str) {
        let change = Change::parse(change).unwrap();
        assert_eq!(apply(text, &[change]).as_deref(), Ok(expected));
    }

    #[test]
    fn only_the_named_value_changes() {
        let text = "\u{feff}{\r\n \"mail\": 1, \"parameters\": {\"tcpServer\" : {\"port\":5004 , \"backlog\": 5}}}\r\n";
        check(text, "tcpServer.port=25104", &text.replace("5004", "25104"));
        check(text, "parameters.tcpServer.port=\"1\"", &text.replace("5004", "\"1\""));
        check(text, "tcpServer={}", &text.replace("{\"port\":5004 , \"backlog\": 5}", "{}"));
    }

    #[test]
    fn a_missing_value_is_inserted_with_its_objects() {
        check("{}", "events.http=9200", "{\"parameters\": {\"events\":{\"http\":\"9200\"}}}");
        check(
            "{\"parameters\": {\"a\": 1}}",
            "events.syslog=[\"udp:514\"]",
            "{\"parameters\": {\"events\": {\"syslog\":[\"udp:514\"]},\"a\": 1}}",
        );
        check("{\"parameters\": {}}", "loggerLevel=INFO", "{\"parameters\": {\"loggerLevel\": \"INFO\"}}");
    }

    #[test]
    fn of_a_repeated_key_the_last_value_changes() {
        check("{\"parameters\":{\"a\":1,\"a\":2}}", "a=x", "{\"parameters\":{\"a\":1,\"a\":\"x\"}}");
    }

    #[test]
    fn invalid_changes_and_files_are_errors() {
        for text in ["port", "=1", "a..b=1", "a=[1"] {
            assert!(Change::parse(text).is_err(), "{text}");
        }
        let change = [Change::of_text("parameters.tcpServer.port", "1")];
        for text in ["", "left alone", "[]", "{\"parameters\": 1}", "{\"parameters\": {\"tcpServer\": []}}"] {
            assert!(apply(text, &change).is_err(), "{text}");
        }
        assert_eq!(apply("{}", &change).unwrap(), "{\"parameters\": {\"tcpServer\":{\"port\":1}}}");
    }
}
