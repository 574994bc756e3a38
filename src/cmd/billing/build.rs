//! `lea billing build`: builds calls from rows. Runs on the main thread.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::SortArgs;
use crate::billing::calls::{CallReader, RowSource};
use crate::billing::{BilledCall, CallParty};
use crate::cmd::Command;
use crate::cmd::args::globals::Globals;
use crate::cmd::args::query::{EventFilterArgs, StoreTargetArgs};
use crate::cmd::args::time_zone::TimeZoneArg;
use crate::cmd::output::table::{Column, StreamedTable};
use crate::cmd::output::{self, CsvWriter, OutputFormat, OutputFormatArgs, StdoutLines};
use crate::manual::{self, Example, Manual};
use crate::runtime::logging::{self, LevelFilter};
use crate::{Exit, Result};

/// Build calls from the rows of quick billing logs
///
/// Prints one line per call: set-up delay, whether it was answered, duration, reply code and who hung up. All rows with
/// the same call_id belong to one call, in any order. Duplicates count once. The last column names missing rows.
///
/// FILE is JSON (one row per line, or a list), CSV with a header, a directory that a receiver writes to, or a URL. The
/// output of `lea search --json` and `rabbitmqadmin get` is also read. Without FILE, the rows are read from the store.
/// --since and --until select calls by their start.
///
/// The exit code is 3 if a row was rejected or a call is incomplete.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Billing logs; - is stdin [default: the store]
    #[arg(value_name = "FILE")]
    files: Vec<String>,
    #[command(flatten)]
    format: OutputFormatArgs,
    #[command(flatten)]
    sort: SortArgs,
    #[command(flatten)]
    place: StoreTargetArgs,
    #[command(flatten)]
    which: EventFilterArgs,
}

/// The numbers of the summary line.
#[derive(Debug, Default)]
struct BuildSummary {
    calls: u64,
    answered: u64,
    incomplete: u64,
    duplicates: u64,
    reordered: u64,
}

impl Command for Args {
    const MANUAL: Manual = Manual {
        exits: &[manual::INCOMPLETE],
        files: &[manual::EVENT_STORE_FILES],
        reads_configuration: true,
        environment: &[manual::TIME_ZONE_VARIABLE],
        examples: &[
            Example { text: "Build the calls of a log", command: "lea billing build ours.jsonl --csv" },
            Example {
                text: "Build the calls of the last day from the event store",
                command: "lea billing build --since 1d",
            },
        ],
        see_also: &["lea-billing-compare(1)"],
        ..manual::EMPTY
    };

    fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Warn));
        let options = super::row_options(&self.which, &self.place)?;
        let times = super::row_time_parser(&self.which);
        let source = RowSource { names: &self.files, options: &options, times: &times };
        let mut calls = CallReader::read(&source, &self.sort.settings())?;
        let mut printer = CallPrinter::start(self.format.format(), self.which.time_zone)?;
        let mut summary = BuildSummary::default();
        while let Some(call) = calls.next()? {
            summary.add(&call);
            if !printer.print(&call)? {
                break;
            }
        }
        printer.end()?;
        let counts = calls.counts;
        let BuildSummary { calls, answered, incomplete, duplicates, reordered } = summary;
        logging::status_line(format_args!(
            "built calls={calls} answered={answered} incomplete={incomplete} rows={} duplicates={duplicates} \
             reordered={reordered} other_methods={} rejected={}",
            counts.rows, counts.other_methods, counts.rejected
        ));
        Ok(if counts.rejected == 0 && incomplete == 0 { Exit::Done } else { Exit::Incomplete })
    }
}

impl BuildSummary {
    fn add(&mut self, call: &BilledCall) {
        self.calls += 1;
        self.answered += u64::from(call.answered == Some(true));
        self.incomplete += u64::from(!call.missing.is_empty());
        self.duplicates += call.duplicates;
        self.reordered += call.reordered;
    }
}

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
enum CallPrinter {
    Table(StdoutLines, StreamedTable<'static>, TimeZoneArg),
    Json(StdoutLines, TimeZoneArg),
    Csv(Box<CsvWriter>, TimeZoneArg),
}

impl CallPrinter {
    fn start(format: OutputFormat, zone: TimeZoneArg) -> Result<CallPrinter> {
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
    fn print(&mut self, call: &BilledCall) -> Result<bool> {
        match self {
            CallPrinter::Table(lines, table, zone) => lines.write_line(&table.row(&table_cells(call, *zone))),
            CallPrinter::Json(lines, zone) => {
                lines.write_line(&output::single_line_json(&call_json(call, *zone).to_string()))
            }
            CallPrinter::Csv(csv, zone) => csv.write_row(csv_cells(call, *zone).into_iter()),
        }
    }

    fn end(self) -> Result<()> {
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
    // A call that was not answered has no duration.
    let duration_us =
        call.duration_us.filter(|duration_us| call.answered != Some(false) || *duration_us != 0);
    vec![
        zone.format_us(call.start_us),
        format_seconds(call.setup_us),
        format_answered(call.answered).to_owned(),
        format_seconds(duration_us),
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

/// Formats a number; `None` becomes an empty text.
pub(super) fn to_text(number: Option<impl ToString>) -> String {
    number.map_or_else(String::new, |number| number.to_string())
}

/// Formats microseconds as seconds; `None` becomes a dash.
pub(super) fn format_seconds(us: Option<i64>) -> String {
    let shown = |us: i64| {
        let sign = if us < 0 { "-" } else { "" };
        let us = us.unsigned_abs();
        format!("{sign}{}.{:06}", us / 1_000_000, us % 1_000_000)
    };
    us.map_or_else(|| "-".to_owned(), shown)
}

/// Formats a reply code; `None` becomes a dash.
pub(super) fn format_code(number: Option<u16>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
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
