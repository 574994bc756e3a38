//! Indents JSON in the form of Elasticsearch's `pretty`. Pure.

use crate::search::budget;
use crate::search::store::StoreError;

/// The indentation of one level.
const INDENT: &str = "  ";

/// Bytes of the result between two charges to the budget of the request.
const CHARGED_BYTES: usize = 1 << 20;

/// Indents valid JSON and appends a newline. White space between tokens is removed; strings and numbers stay unchanged. Fails
/// if the budget of the request is used up: each element of nested lists gets a separate line.
pub(super) fn pretty(json: &[u8]) -> Result<Vec<u8>, StoreError> {
    let mut out = Vec::with_capacity(json.len() * 2);
    let mut charged = 0;
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(&byte) = json.get(at) {
        at += 1;
        if out.len() >= charged {
            budget::check()?;
            budget::charge(CHARGED_BYTES)?;
            charged = out.len() + CHARGED_BYTES;
        }
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {}
            b'"' => {
                let end = at + string_bytes(&json[at..]);
                out.extend_from_slice(&json[at - 1..end]);
                at = end;
            }
            b'{' | b'[' => {
                out.push(byte);
                let rest = json[at..].trim_ascii_start();
                if let Some(&end @ (b'}' | b']')) = rest.first() {
                    out.extend_from_slice(&[b' ', end]);
                    at = json.len() - rest.len() + 1;
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b" : "),
            other => out.push(other),
        }
    }
    out.push(b'\n');
    Ok(out)
}

/// Returns the length of a string after its opening quote, including the closing quote.
fn string_bytes(rest: &[u8]) -> usize {
    let mut at = 0;
    while let Some(byte) = rest.get(at) {
        at += match byte {
            b'"' => return at + 1,
            b'\\' => 2,
            _ => 1,
        };
    }
    rest.len()
}

fn line(out: &mut Vec<u8>, depth: usize) {
    out.push(b'\n');
    for _ in 0..depth {
        out.extend_from_slice(INDENT.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::pretty;

    #[track_caller]
    fn check(json: &str, expected: &str) {
        assert_eq!(String::from_utf8(pretty(json.as_bytes()).unwrap()).unwrap(), expected, "{json}");
    }

    #[test]
    fn the_layout_is_that_of_elasticsearch() {
        check(
            r#"{"count":1,"_shards":{"total":5,"failed":0}}"#,
            "{\n  \"count\" : 1,\n  \"_shards\" : {\n    \"total\" : 5,\n    \"failed\" : 0\n  }\n}\n",
        );
        check(r#"{"hits":[ ],"o":{}}"#, "{\n  \"hits\" : [ ],\n  \"o\" : { }\n}\n");
        check(r#"[{"a":-1.50}]"#, "[\n  {\n    \"a\" : -1.50\n  }\n]\n");
        check(r#"{ "a:{\"\\" : "b,[\\" }"#, "{\n  \"a:{\\\"\\\\\" : \"b,[\\\\\"\n}\n");
        check("[1,\n2]", "[\n  1,\n  2\n]\n");
        check("\"a", "\"a\n");
        check("\"a\\", "\"a\\\n");
        check("}", "\n}\n");
    }
}
