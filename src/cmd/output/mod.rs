//! Output formats for query results: table, JSON lines, CSV. Runs in the main thread.
//!
//! Invariant: text from documents is escaped before it reaches a terminal. JSON output is always escaped, CSV only on a
//! terminal, so that a CSV file has the exact values.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use serde_json::Value;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::args::listing::{escape, needs_escape};
use super::args::time_zone::TimeZoneArg;
use crate::search::query::Hit;
use crate::{Error, Result};

/// Smallest width of a table column.
const COLUMN_MIN: usize = 6;

/// Fields that known senders use, in the order of table columns.
const KNOWN_FIELDS: [&str; 25] = [
    "event",
    "userid",
    "from_user",
    "to_user",
    "ip_address",
    "sipRequest",
    "sip_method",
    "ipIntruder",
    "intruder_ip",
    "source_ip",
    "ani",
    "dnis",
    "destNum",
    "called_number",
    "userAgent",
    "user_agent",
    "sip_user_agent",
    "country",
    "caller_id",
    "callee_id",
    "call_id",
    "reply_code",
    "program",
    "message",
    "tags",
];

/// Most table columns if the caller names none.
const COLUMNS_MAX: usize = 8;

/// Options for the output format.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct OutputFormatArgs {
    /// Print one JSON object per line
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print CSV (RFC 4180) with a header line
    #[arg(long)]
    csv: bool,
}

/// Output format of query results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutputFormat {
    /// Aligned columns.
    Table,
    /// One JSON object per line.
    Json,
    /// Comma-separated values.
    Csv,
}

impl OutputFormatArgs {
    /// Returns the chosen format.
    pub(crate) fn format(self) -> OutputFormat {
        match (self.json, self.csv) {
            (true, _) => OutputFormat::Json,
            (_, true) => OutputFormat::Csv,
            _ => OutputFormat::Table,
        }
    }
}

/// Prints a table that fits the terminal's width. Columns whose indices are in `right` are right-aligned.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>], right: &[usize]) -> Result<()> {
    let mut lines: Vec<Vec<String>> = vec![head.iter().map(|&name| escape(name)).collect()];
    lines.extend(rows.iter().map(|row| row.iter().map(|cell| escape(cell)).collect()));
    let width = |column: usize| lines.iter().map(|line| line[column].width()).max().unwrap_or(0);
    let mut widths: Vec<usize> = (0..head.len()).map(width).collect();
    if let Some(room) = terminal_width() {
        shrink_columns(&mut widths, room);
    }
    let mut text = String::new();
    for line in &lines {
        text.push_str(&format_row(line, &widths, right));
        text.push('\n');
    }
    super::print_text(&text)
}

/// Formats a line of a table, without trailing blanks.
fn format_row(cells: &[String], widths: &[usize], right: &[usize]) -> String {
    let mut line = String::new();
    for (column, (cell, &width)) in cells.iter().zip(widths).enumerate() {
        let cell = truncate_cell(cell, width);
        let blanks = " ".repeat(width - cell.width().min(width));
        if column > 0 {
            line.push_str("  ");
        }
        let (before, after) =
            if right.contains(&column) { (blanks.as_str(), "") } else { ("", blanks.as_str()) };
        line.extend([before, &cell, after]);
    }
    line.truncate(line.trim_end().len());
    line
}

/// Narrows the widest columns until the line fits.
fn shrink_columns(widths: &mut [usize], room: usize) {
    let gaps = 2 * widths.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > room {
        let Some(widest) = widths.iter_mut().max_by_key(|width| **width).filter(|width| **width > COLUMN_MIN)
        else {
            return;
        };
        *widest -= 1;
    }
}

/// Truncates a cell to a width, with `…` at the end.
fn truncate_cell(text: &str, width: usize) -> Cow<'_, str> {
    if text.width() <= width {
        return Cow::Borrowed(text);
    }
    let (mut kept, mut used) = (String::new(), 0);
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used + 1 > width {
            break;
        }
        kept.push(c);
    }
    kept.push('…');
    Cow::Owned(kept)
}

/// Returns the width of the terminal, or none if stdout is not a terminal.
pub(crate) fn terminal_width() -> Option<usize> {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let columns = rustix::termios::tcgetwinsize(&stdout).map_or(0, |size| size.ws_col);
    (columns > 0).then_some(columns.into())
}

/// Writes CSV to stdout.
pub(crate) struct CsvWriter {
    writer: csv::Writer<StdoutLock<'static>>,
    is_terminal: bool,
}

impl CsvWriter {
    /// Writes the header line.
    pub(crate) fn start(head: &[&str]) -> Result<CsvWriter> {
        let is_terminal = io::stdout().is_terminal();
        let mut csv = CsvWriter { writer: csv::Writer::from_writer(io::stdout().lock()), is_terminal };
        csv.write_row(head.iter().map(|name| Cow::Borrowed(*name)))?;
        Ok(csv)
    }

    /// Writes a row. Returns false if the reader of stdout closed the pipe.
    pub(crate) fn write_row<'a>(&mut self, cells: impl Iterator<Item = Cow<'a, str>>) -> Result<bool> {
        let shown = |cell: Cow<'a, str>| if self.is_terminal { Cow::Owned(escape(&cell)) } else { cell };
        let cells: Vec<Cow<'a, str>> = cells.map(shown).collect();
        let written = self.writer.write_record(cells.iter().map(|cell| cell.as_bytes()));
        is_reader_there(written.map_err(|error| match error.into_kind() {
            csv::ErrorKind::Io(error) => error,
            other => io::Error::other(format!("{other:?}")),
        }))
    }

    /// Flushes the output.
    pub(crate) fn end(mut self) -> Result<()> {
        is_reader_there(self.writer.flush()).map(drop)
    }
}

/// Converts the result of a write to stdout: false if the reader closed the pipe, which is not an error.
pub(crate) fn is_reader_there(written: io::Result<()>) -> Result<bool> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Error::system("write to stdout")(error)),
    }
}

/// An event and its time, for output.
pub(crate) struct EventView {
    /// The search hit with index, ID and source.
    pub hit: Hit,
    /// Time of the event.
    pub time_ms: Option<i64>,
    source: Value,
}

impl EventView {
    /// Reads a hit. The time is its sort value number `time_at`.
    pub(crate) fn new(hit: Hit, time_at: usize) -> EventView {
        let time_ms = hit.sort.get(time_at).and_then(Value::as_i64);
        let source = serde_json::from_slice(&hit.source).unwrap_or(Value::Null);
        EventView { hit, time_ms, source }
    }

    /// Formats the time, or `-`.
    pub(crate) fn time(&self, zone: TimeZoneArg) -> String {
        self.time_ms.map_or_else(|| "-".to_owned(), |ms| zone.format_ms(ms))
    }

    /// Returns the value of a field as text; `a.b` is `b` within `a`.
    pub(crate) fn value(&self, field: &str) -> Option<Cow<'_, str>> {
        let of_event = match field {
            "_index" => Some(&self.hit.index),
            "_id" => Some(&self.hit.id),
            "_type" => self.hit.doc_type.as_ref(),
            _ => None,
        };
        of_event
            .map(|text| Cow::Borrowed(text.as_str()))
            .or_else(|| value_text(find_field(&self.source, field)?))
    }

    /// Returns the names of all fields that have a value.
    pub(crate) fn fields(&self) -> Vec<String> {
        let mut names = Vec::new();
        collect_leaf_names(&self.source, "", &mut names);
        names
    }

    /// Formats the event as a JSON line with `_index`, `_id`, `_time` and `_source`, which has only `fields` if any are given.
    pub(crate) fn json(&self, zone: TimeZoneArg, fields: &[String]) -> String {
        let quoted = |text: &str| Value::from(text).to_string();
        let time = self.time_ms.map_or_else(|| "null".to_owned(), |ms| quoted(&zone.format_ms(ms)));
        let (index, id) = (quoted(&self.hit.index), quoted(&self.hit.id));
        let source = if fields.is_empty() {
            String::from_utf8_lossy(&self.hit.source).into_owned()
        } else {
            let value =
                |field: &String| find_field(&self.source, field).map(|value| (field.clone(), value.clone()));
            Value::Object(fields.iter().filter_map(value).collect()).to_string()
        };
        single_line_json(&format!(
            "{{\"_index\":{index},\"_id\":{id},\"_time\":{time},\"_source\":{source}}}"
        ))
    }
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

fn find_field<'a>(value: &'a Value, field: &str) -> Option<&'a Value> {
    let object = value.as_object()?;
    if let Some(found) = object.get(field) {
        return Some(found);
    }
    field.match_indices('.').find_map(|(at, _)| find_field(object.get(&field[..at])?, &field[at + 1..]))
}

fn value_text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(Cow::Borrowed(text)),
        value => Some(Cow::Owned(value.to_string())),
    }
}

fn collect_leaf_names(value: &Value, name: &str, names: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                collect_leaf_names(value, &name, names);
            }
        }
        Value::Null => {}
        _ => names.push(name.to_owned()),
    }
}

/// Selects the columns of a table: the known fields that have values, else all fields.
pub(crate) fn table_columns(events: &[EventView]) -> Vec<String> {
    let is_there = |field: &&&str| {
        events.iter().any(|event| event.value(field).is_some_and(|value| !matches!(&*value, "" | "[]")))
    };
    let known: Vec<String> = KNOWN_FIELDS.iter().filter(is_there).map(|&field| field.to_owned()).collect();
    let mut columns = if known.is_empty() { all_fields(events) } else { known };
    columns.truncate(COLUMNS_MAX);
    columns
}

/// Returns all fields of the events in order of first occurrence.
pub(crate) fn all_fields(events: &[EventView]) -> Vec<String> {
    let mut seen = HashSet::new();
    let fields = events.iter().flat_map(EventView::fields);
    fields.filter(|field| seen.insert(field.clone())).collect()
}

/// Prints a line. Returns false if the reader of stdout closed the pipe.
pub(crate) fn print_line(text: &str) -> Result<bool> {
    let mut out = io::stdout().lock();
    is_reader_there(writeln!(out, "{text}"))
}

/// Buffered lines for stdout.
pub(crate) struct StdoutLines(BufWriter<StdoutLock<'static>>);

impl StdoutLines {
    pub(crate) fn start() -> StdoutLines {
        StdoutLines(BufWriter::with_capacity(64 << 10, io::stdout().lock()))
    }

    /// Writes a line. Returns false if the reader of stdout closed the pipe.
    pub(crate) fn write_line(&mut self, text: &str) -> Result<bool> {
        is_reader_there(writeln!(self.0, "{text}"))
    }

    /// Flushes the output.
    pub(crate) fn end(mut self) -> Result<()> {
        is_reader_there(self.0.flush()).map(drop)
    }
}

/// Prints lines until the end, or until the reader of stdout closes the pipe.
pub(crate) fn print_lines(lines: impl Iterator<Item = String>) -> Result<()> {
    let mut out = StdoutLines::start();
    for text in lines {
        if !out.write_line(&text)? {
            return Ok(());
        }
    }
    out.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widest_columns_are_narrowed_until_the_line_fits() {
        for (mut widths, room, expected) in [
            (vec![5, 5], 12, [5, 5]),
            (vec![5, 50], 30, [5, 23]),
            (vec![40, 50], 30, [14, 14]),
            (vec![40, 50], 3, [COLUMN_MIN, COLUMN_MIN]),
        ] {
            shrink_columns(&mut widths, room);
            assert_eq!(widths, expected);
        }
    }

    #[test]
    fn cells_are_truncated_by_display_width() {
        for (text, width, expected) in [
            ("abc", 3, "abc"),
            ("abcd", 3, "ab…"),
            ("日本語", 5, "日本…"),
            ("日本語", 4, "日…"),
            ("日本語", 6, "日本語"),
        ] {
            assert_eq!(truncate_cell(text, width), expected);
            assert!(truncate_cell(text, width).width() <= width);
        }
        let cells = ["a".to_owned(), "7".to_owned(), String::new()];
        assert_eq!(format_row(&cells, &[3, 3, 2], &[1]), "a      7");
    }

    fn event(source: &str) -> EventView {
        let hit = Hit {
            score: None,
            index: "calls".to_owned(),
            doc_type: None,
            id: "1\n".to_owned(),
            version: 1,
            seq_no: 0,
            source: source.as_bytes().to_vec(),
            sort: vec![Value::from(0)],
        };
        EventView::new(hit, 0)
    }

    #[test]
    fn dotted_field_names_reach_into_objects() {
        let event = event(r#"{"a":{"b":1,"c.d":"x"},"a.e":[1],"n":null,"f":1.50}"#);
        for (field, expected) in [
            ("a.b", Some("1")),
            ("a.c.d", Some("x")),
            ("a.e", Some("[1]")),
            ("f", Some("1.5")),
            ("n", None),
            ("a.x", None),
            ("", None),
            ("_index", Some("calls")),
        ] {
            assert_eq!(event.value(field).as_deref(), expected, "{field}");
        }
        assert_eq!(event.fields(), ["a.b", "a.c.d", "a.e", "f"]);
    }

    #[test]
    fn json_output_is_one_escaped_line() {
        let utc = TimeZoneArg::parse("utc").unwrap();
        let event = event("{\r\n\t\"a\": 12345678901234567890123,\"b\":\"\u{9b}\u{202e}é\"}");
        let expected = r#"{"_index":"calls","_id":"1\n","_time":"1970-01-01T00:00:00.000Z","_source":{   "a": 12345678901234567890123,"b":"\u009b\u202eé"}}"#;
        assert_eq!(event.json(utc, &[]), expected);
        assert_eq!(event.json(utc, &["b".to_owned()]).matches("\\u").count(), 2);
    }
}
