//! Prints the calls of `lea billing build` as a table, as CSV or as JSON lines.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::OutputFormat;
use super::csv::CsvWriter;
use super::json_lines::single_line_json;
use super::stdout::StdoutLines;
use super::table::{Column, StreamedTable};
use crate::Result;
use crate::billing::{BilledCall, CallParty};
use crate::cmd::args::time_zone::TimeZoneArg;

const COLUMNS: [&str; 13] = [
    "call_id",
    "start",
    "caller",
    "callee",
    "setup_us",
    "answered",
    "duration_us",
    "reply_code",
    "hung_up",
    "rows",
    "duplicates",
    "reordered",
    "missing",
];

/// Prints calls as they are built. The table has fixed column widths, because the calls are never all in memory.
pub(crate) enum CallPrinter {
    Table(StdoutLines, StreamedTable<'static>, TimeZoneArg),
    Json(StdoutLines, TimeZoneArg),
    Csv(Box<CsvWriter>, TimeZoneArg),
}

impl CallPrinter {
    pub(crate) fn start(format: OutputFormat, zone: TimeZoneArg) -> Result<CallPrinter> {
        Ok(match format {
            OutputFormat::Table => {
                let table = StreamedTable::new(table_columns());
                let mut lines = StdoutLines::start();
                lines.write_line(&table.header())?;
                CallPrinter::Table(lines, table, zone)
            }
            OutputFormat::Json => CallPrinter::Json(StdoutLines::start(), zone),
            OutputFormat::Csv => CallPrinter::Csv(Box::new(CsvWriter::start(&COLUMNS)?), zone),
        })
    }

    /// Prints a call. Returns false if the reader of stdout is gone.
    pub(crate) fn print(&mut self, call: &BilledCall) -> Result<bool> {
        match self {
            CallPrinter::Table(lines, table, zone) => lines.write_line(&table.row(&table_cells(call, *zone))),
            CallPrinter::Json(lines, zone) => {
                lines.write_line(&single_line_json(&call_json(call, *zone).to_string()))
            }
            CallPrinter::Csv(csv, zone) => csv.write_row(csv_cells(call, *zone).into_iter()),
        }
    }

    pub(crate) fn end(self) -> Result<()> {
        match self {
            CallPrinter::Table(lines, ..) | CallPrinter::Json(lines, _) => lines.end(),
            CallPrinter::Csv(csv, _) => csv.end(),
        }
    }
}

/// Returns the columns of the table with their widths.
fn table_columns() -> Vec<(Column<'static>, usize)> {
    vec![
        (Column::new("START").whole(), 32),
        (Column::new("SETUP").number().dropped(3), 12),
        (Column::new("ANSWERED").whole(), 8),
        (Column::new("DURATION").number(), 12),
        (Column::new("CODE").number().dropped(2), 4),
        (Column::new("HUNG UP").whole().dropped(4), 7),
        (Column::new("CALLER"), 16),
        (Column::new("CALLEE"), 16),
        (Column::new("CALL ID").dropped(5), 36),
        (Column::new("MISSING").dropped(1), 7),
    ]
}

fn table_cells(call: &BilledCall, zone: TimeZoneArg) -> Vec<String> {
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    vec![
        zone.format_us(call.start_us),
        format_seconds(call.setup_us),
        format_answered(call.answered).to_owned(),
        format_seconds(call.duration_us),
        format_code(call.reply_code),
        call.hung_up.map_or("-", CallParty::as_str).to_owned(),
        or_dash(&call.caller),
        or_dash(&call.callee),
        or_dash(&call.call_id),
        call.missing.to_string(),
    ]
}

/// Returns a call as a JSON object. An unknown value is null.
pub(super) fn call_json(call: &BilledCall, zone: TimeZoneArg) -> Value {
    json!({
        "call_id": call.call_id, "start": zone.format_us(call.start_us), "caller": call.caller, "callee": call.callee,
        "setup_us": call.setup_us, "answered": call.answered, "duration_us": call.duration_us,
        "reply_code": call.reply_code, "hung_up": call.hung_up.map(CallParty::as_str), "rows": call.rows,
        "duplicates": call.duplicates, "reordered": call.reordered, "missing": call.missing.names().collect::<Vec<_>>(),
    })
}

fn csv_cells(call: &BilledCall, zone: TimeZoneArg) -> [Cow<'_, str>; COLUMNS.len()] {
    [
        Cow::from(&call.call_id),
        zone.format_us(call.start_us).into(),
        Cow::from(&call.caller),
        Cow::from(&call.callee),
        to_text(call.setup_us).into(),
        call.answered.map_or("", |answered| if answered { "true" } else { "false" }).into(),
        to_text(call.duration_us).into(),
        to_text(call.reply_code).into(),
        call.hung_up.map_or("", CallParty::as_str).into(),
        call.rows.to_string().into(),
        call.duplicates.to_string().into(),
        call.reordered.to_string().into(),
        call.missing.to_string().into(),
    ]
}

/// Formats a value for CSV; `None` becomes an empty text.
pub(super) fn to_text(value: Option<impl ToString>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

/// Formats microseconds as seconds; `None` becomes a dash.
pub(super) fn format_seconds(us: Option<i64>) -> String {
    let format = |us: i64| {
        let sign = if us < 0 { "-" } else { "" };
        let us = us.unsigned_abs();
        format!("{sign}{}.{:06}", us / 1_000_000, us % 1_000_000)
    };
    us.map_or_else(|| "-".to_owned(), format)
}

/// Formats a reply code; `None` becomes a dash.
pub(super) fn format_code(code: Option<u16>) -> String {
    code.map_or_else(|| "-".to_owned(), |code| code.to_string())
}

/// Formats a flag as yes or no; `None` becomes a dash.
pub(super) fn format_answered(answered: Option<bool>) -> &'static str {
    answered.map_or("-", |answered| if answered { "yes" } else { "no" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_formatted_to_the_microsecond() {
        for (us, expected) in [
            (None, "-"),
            (Some(0), "0.000000"),
            (Some(1), "0.000001"),
            (Some(-1_500_000), "-1.500000"),
            (Some(i64::MAX), "9223372036854.775807"),
            (Some(i64::MIN), "-9223372036854.775808"),
        ] {
            assert_eq!(format_seconds(us), expected);
        }
    }
}
