//! Answers as people and programs read them: a table, JSON lines, CSV. Main thread.
//!
//! Invariant: text from documents reaches a terminal harmless. JSON is so wherever it goes, CSV only on a terminal: in a
//! file each value is what it is.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use serde_json::Value;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::stored::{harmless, is_harmful};
use super::zone::Zone;
use crate::iri::query::Hit;
use crate::{Error, Result};

/// A column of a table is not made narrower than this.
const COLUMN_MIN: usize = 6;

/// The fields that the senders of the protocol have, in the order of a table's columns.
const FIELDS_KNOWN: [&str; 25] = [
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

/// Columns of a table where none are named.
const COLUMNS_MAX: usize = 8;

/// How answers are printed.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct FormatArgs {
    /// Print a JSON object a line
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print CSV (RFC 4180) with a head line
    #[arg(long)]
    csv: bool,
}

/// How answers are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Columns for people.
    Table,
    /// An object a line.
    Json,
    /// Comma separated values.
    Csv,
}

impl FormatArgs {
    /// The one that was chosen.
    pub fn format(self) -> Format {
        match (self.json, self.csv) {
            (true, _) => Format::Json,
            (_, true) => Format::Csv,
            _ => Format::Table,
        }
    }
}

/// Columns as wide as their widest cell, and together no wider than the terminal. Columns in `right` are numbers.
pub fn table(head: &[&str], rows: &[Vec<String>], right: &[usize]) -> Result<()> {
    let mut lines: Vec<Vec<String>> = vec![head.iter().map(|&name| harmless(name)).collect()];
    lines.extend(rows.iter().map(|row| row.iter().map(|cell| harmless(cell)).collect()));
    let width = |column: usize| lines.iter().map(|line| line[column].width()).max().unwrap_or(0);
    let mut widths: Vec<usize> = (0..head.len()).map(width).collect();
    if let Some(room) = terminal_width() {
        fit(&mut widths, room);
    }
    let mut text = String::new();
    for line in &lines {
        text.push_str(&laid_out(line, &widths, right));
        text.push('\n');
    }
    super::print_data(&text)
}

/// A line of a table; blanks at its end are left out.
fn laid_out(cells: &[String], widths: &[usize], right: &[usize]) -> String {
    let mut line = String::new();
    for (column, (cell, &width)) in cells.iter().zip(widths).enumerate() {
        let cell = cut(cell, width);
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

/// Makes the widest columns narrower until all fit.
fn fit(widths: &mut [usize], room: usize) {
    let gaps = 2 * widths.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > room {
        let Some(widest) = widths.iter_mut().max_by_key(|width| **width).filter(|width| **width > COLUMN_MIN)
        else {
            return;
        };
        *widest -= 1;
    }
}

/// The text's begin, with a mark where it was cut.
fn cut(text: &str, width: usize) -> Cow<'_, str> {
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

/// How many characters fit into a line of the terminal; none where stdout is none.
fn terminal_width() -> Option<usize> {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let columns = rustix::termios::tcgetwinsize(&stdout).map_or(0, |size| size.ws_col);
    (columns > 0).then_some(columns.into())
}

/// CSV to stdout, line by line.
pub struct Csv {
    writer: csv::Writer<StdoutLock<'static>>,
    is_terminal: bool,
}

impl Csv {
    /// Writes the head line.
    pub fn begin(head: &[&str]) -> Result<Csv> {
        let is_terminal = io::stdout().is_terminal();
        let mut csv = Csv { writer: csv::Writer::from_writer(io::stdout().lock()), is_terminal };
        csv.line(head.iter().map(|name| Cow::Borrowed(*name)))?;
        Ok(csv)
    }

    /// Writes a line. False: the reader went away.
    pub fn line<'a>(&mut self, cells: impl Iterator<Item = Cow<'a, str>>) -> Result<bool> {
        let shown = |cell: Cow<'a, str>| if self.is_terminal { Cow::Owned(harmless(&cell)) } else { cell };
        let cells: Vec<Cow<'a, str>> = cells.map(shown).collect();
        let written = self.writer.write_record(cells.iter().map(|cell| cell.as_bytes()));
        taken(written.map_err(io::Error::from))
    }

    /// Writes what is left.
    pub fn end(mut self) -> Result<()> {
        taken(self.writer.flush()).map(drop)
    }
}

/// A write's outcome; false where the reader went away, who has seen enough.
pub fn taken(written: io::Result<()>) -> Result<bool> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Error::system("write to stdout")(error)),
    }
}

/// An event with its time, as it is shown.
pub struct Event {
    /// Where it stands in the store, and its source.
    pub hit: Hit,
    /// Its time.
    pub time_ms: Option<i64>,
    source: Value,
}

impl Event {
    /// Reads a hit; the time is the sort value of that number.
    pub fn new(hit: Hit, time_at: usize) -> Event {
        let time_ms = hit.sort.get(time_at).and_then(Value::as_i64);
        let source = serde_json::from_slice(&hit.source).unwrap_or(Value::Null);
        Event { hit, time_ms, source }
    }

    /// The time as text.
    pub fn time(&self, zone: Zone) -> String {
        self.time_ms.map_or_else(|| "-".to_owned(), |ms| zone.show(ms))
    }

    /// The value of a field, `a.b` for b in a, as text; none where there is none.
    pub fn value(&self, field: &str) -> Option<Cow<'_, str>> {
        let of_event = match field {
            "_index" => Some(&self.hit.index),
            "_id" => Some(&self.hit.id),
            "_type" => self.hit.kind.as_ref(),
            _ => None,
        };
        of_event.map(|text| Cow::Borrowed(text.as_str())).or_else(|| text(found(&self.source, field)?))
    }

    /// The fields that have a value, by name.
    pub fn fields(&self) -> Vec<String> {
        let mut names = Vec::new();
        leaves(&self.source, "", &mut names);
        names
    }

    /// The event as a line of JSON: `_index`, `_id`, `_time`, and `_source` or the fields that are wanted of it.
    pub fn json(&self, zone: Zone, fields: &[String]) -> String {
        let quoted = |text: &str| Value::from(text).to_string();
        let time = self.time_ms.map_or_else(|| "null".to_owned(), |ms| quoted(&zone.show(ms)));
        let (index, id) = (quoted(&self.hit.index), quoted(&self.hit.id));
        let source = if fields.is_empty() {
            String::from_utf8_lossy(&self.hit.source).into_owned()
        } else {
            let value =
                |field: &String| found(&self.source, field).map(|value| (field.clone(), value.clone()));
            Value::Object(fields.iter().filter_map(value).collect()).to_string()
        };
        one_line(&format!("{{\"_index\":{index},\"_id\":{id},\"_time\":{time},\"_source\":{source}}}"))
    }
}

/// JSON in one line, with what a terminal must not have as escapes. Line ends stand only between values, and all other
/// such characters only in strings: the values stay what they are.
pub fn one_line(json: &str) -> String {
    let mut line = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\n' | '\r' | '\t' => line.push(' '),
            c if is_harmful(c) => line.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => line.push(c),
        }
    }
    line
}

fn found<'a>(value: &'a Value, field: &str) -> Option<&'a Value> {
    let object = value.as_object()?;
    if let Some(found) = object.get(field) {
        return Some(found);
    }
    field.match_indices('.').find_map(|(at, _)| found(object.get(&field[..at])?, &field[at + 1..]))
}

fn text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(Cow::Borrowed(text)),
        value => Some(Cow::Owned(value.to_string())),
    }
}

fn leaves(value: &Value, name: &str, names: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                leaves(value, &name, names);
            }
        }
        Value::Null => {}
        _ => names.push(name.to_owned()),
    }
}

/// A table's columns: of the known fields those that have values, else all.
pub fn columns(events: &[Event]) -> Vec<String> {
    let is_there = |field: &&&str| {
        events.iter().any(|event| event.value(field).is_some_and(|value| !matches!(&*value, "" | "[]")))
    };
    let known: Vec<String> = FIELDS_KNOWN.iter().filter(is_there).map(|&field| field.to_owned()).collect();
    let mut columns = if known.is_empty() { all_fields(events) } else { known };
    columns.truncate(COLUMNS_MAX);
    columns
}

/// All fields of the events, in the order in which they are met.
pub fn all_fields(events: &[Event]) -> Vec<String> {
    let mut seen = HashSet::new();
    let fields = events.iter().flat_map(Event::fields);
    fields.filter(|field| seen.insert(field.clone())).collect()
}

/// Prints a line; false where the reader went away.
pub fn line(text: &str) -> Result<bool> {
    let mut out = io::stdout().lock();
    taken(writeln!(out, "{text}"))
}

/// Lines to stdout that are gathered before they are written.
pub struct Lines(BufWriter<StdoutLock<'static>>);

impl Lines {
    /// Nothing is written yet.
    pub fn begin() -> Lines {
        Lines(BufWriter::with_capacity(64 << 10, io::stdout().lock()))
    }

    /// Adds a line; false where the reader went away.
    pub fn line(&mut self, text: &str) -> Result<bool> {
        taken(writeln!(self.0, "{text}"))
    }

    /// Writes what is left.
    pub fn end(mut self) -> Result<()> {
        taken(self.0.flush()).map(drop)
    }
}

/// Prints all lines.
pub fn lines(lines: impl Iterator<Item = String>) -> Result<()> {
    let mut out = Lines::begin();
    for text in lines {
        if !out.line(&text)? {
            return Ok(());
        }
    }
    out.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_get_narrower_until_they_fit() {
        for (mut widths, room, expected) in [
            (vec![5, 5], 12, [5, 5]),
            (vec![5, 50], 30, [5, 23]),
            (vec![40, 50], 30, [14, 14]),
            (vec![40, 50], 3, [COLUMN_MIN, COLUMN_MIN]),
        ] {
            fit(&mut widths, room);
            assert_eq!(widths, expected);
        }
    }

    #[test]
    fn cells_are_cut_by_what_they_take() {
        for (text, width, expected) in [
            ("abc", 3, "abc"),
            ("abcd", 3, "ab…"),
            ("日本語", 5, "日本…"),
            ("日本語", 4, "日…"),
            ("日本語", 6, "日本語"),
        ] {
            assert_eq!(cut(text, width), expected);
            assert!(cut(text, width).width() <= width);
        }
        let cells = ["a".to_owned(), "7".to_owned(), String::new()];
        assert_eq!(laid_out(&cells, &[3, 3, 2], &[1]), "a      7");
    }

    fn event(source: &str) -> Event {
        let hit = Hit {
            score: None,
            index: "calls".to_owned(),
            kind: None,
            id: "1\n".to_owned(),
            version: 1,
            sequence: 0,
            source: source.as_bytes().to_vec(),
            sort: vec![Value::from(0)],
        };
        Event::new(hit, 0)
    }

    #[test]
    fn fields_are_found_in_their_objects() {
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
    fn a_line_of_json_is_one_and_harmless() {
        let utc = Zone::parse("utc").unwrap();
        let event = event("{\r\n\t\"a\": 12345678901234567890123,\"b\":\"\u{9b}\u{202e}é\"}");
        let expected = r#"{"_index":"calls","_id":"1\n","_time":"1970-01-01T00:00:00.000Z","_source":{   "a": 12345678901234567890123,"b":"\u009b\u202eé"}}"#;
        assert_eq!(event.json(utc, &[]), expected);
        assert_eq!(event.json(utc, &["b".to_owned()]).matches("\\u").count(), 2);
    }
}
