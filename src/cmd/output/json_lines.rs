//! JSON lines on stdout.

use serde::Serialize;

use super::stdout::StdoutLines;
use crate::runtime::terminal::needs_escape;
use crate::{Error, Result};

/// Prints one JSON object per line.
pub(crate) fn print<T: Serialize>(objects: impl IntoIterator<Item = T>) -> Result<()> {
    let mut out = StdoutLines::start();
    for object in objects {
        let line =
            serde_json::to_string(&object).map_err(|error| Error::system("format JSON")(error.into()))?;
        if !out.write_line(&line)? {
            return Ok(());
        }
    }
    out.end()
}

/// Returns JSON in one line with control characters escaped. Values do not change: line ends occur only between values, and
/// other control characters only in strings.
pub(crate) fn single_line_json(json: &str) -> String {
    let mut line = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\n' | '\r' | '\t' => line.push(' '),
            c if needs_escape(c) => line.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => line.push(c),
        }
    }
    line
}
