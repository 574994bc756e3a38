//! Prints the result of `lea billing compare`: calls that differ, then the sums of both sides.

use std::borrow::Cow;

use serde_json::json;

use super::OutputFormat;
use super::billing_calls::{call_json, format_answered, format_code, format_seconds, to_text};
use super::csv::CsvWriter;
use super::json_lines::single_line_json;
use super::stdout::StdoutLines;
use super::table::{Column, StreamedTable};
use crate::Result;
use crate::billing::{
    BilledCall, CallGroup, CallPair, CallParty, CallSums, Difference, Differences, GroupKey, GroupTotals,
    TotalsBuilder,
};
use crate::cmd::args::time_zone::TimeZoneArg;

/// The part of the result to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum CompareSection {
    /// Calls that differ, then the sums
    All,
    /// Calls that differ
    Calls,
    /// The sums
    Totals,
}

const COLUMNS: [&str; 19] = [
    "call_id",
    "differences",
    "start",
    "caller",
    "callee",
    "ours_answered",
    "theirs_answered",
    "ours_reply_code",
    "theirs_reply_code",
    "ours_setup_us",
    "theirs_setup_us",
    "setup_difference_us",
    "ours_duration_us",
    "theirs_duration_us",
    "duration_difference_us",
    "ours_hung_up",
    "theirs_hung_up",
    "ours_missing",
    "theirs_missing",
];

const TOTALS_COLUMNS: [&str; 10] = [
    "by",
    "value",
    "ours_calls",
    "theirs_calls",
    "ours_answered",
    "theirs_answered",
    "ours_duration_us",
    "theirs_duration_us",
    "duration_difference_us",
    "differ",
];

/// Prints each call that differs when it is found, then the sums.
pub(crate) struct ComparisonPrinter {
    out: ComparisonOutput,
    zone: TimeZoneArg,
    has_head: bool,
}

enum ComparisonOutput {
    Table(StdoutLines),
    Json(StdoutLines),
    Csv(Box<CsvWriter>),
}

impl ComparisonPrinter {
    pub(crate) fn start(
        format: OutputFormat,
        show: CompareSection,
        zone: TimeZoneArg,
    ) -> Result<ComparisonPrinter> {
        let head = if show == CompareSection::Totals { &TOTALS_COLUMNS[..] } else { &COLUMNS[..] };
        let out = match format {
            OutputFormat::Table => ComparisonOutput::Table(StdoutLines::start()),
            OutputFormat::Json => ComparisonOutput::Json(StdoutLines::start()),
            OutputFormat::Csv => ComparisonOutput::Csv(Box::new(CsvWriter::start(head)?)),
        };
        Ok(ComparisonPrinter { out, zone, has_head: false })
    }

    /// Prints a call that differs. Returns false if the reader of stdout is gone.
    pub(crate) fn print_call(&mut self, pair: &CallPair, differences: Differences) -> Result<bool> {
        let zone = self.zone;
        match &mut self.out {
            ComparisonOutput::Table(lines) => {
                let table = StreamedTable::new(difference_columns());
                if !std::mem::replace(&mut self.has_head, true) {
                    lines.write_line(&table.header())?;
                }
                for difference in differences.iter() {
                    if !lines.write_line(&table.row(&difference_cells(pair, difference, zone)))? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            ComparisonOutput::Json(lines) => {
                let json_or_null =
                    |call: &Option<BilledCall>| call.as_ref().map(|call| call_json(call, zone));
                let object = json!({
                    "call_id": pair.either().map(|call| &call.call_id),
                    "differences": differences.iter().map(Difference::as_str).collect::<Vec<_>>(),
                    "setup_difference_us": pair.difference_us(|call| call.setup_us),
                    "duration_difference_us": pair.difference_us(|call| call.duration_us),
                    "ours": json_or_null(&pair.ours), "theirs": json_or_null(&pair.theirs),
                });
                lines.write_line(&single_line_json(&object.to_string()))
            }
            ComparisonOutput::Csv(csv) => {
                csv.write_row(difference_record(pair, differences, zone).into_iter().map(Cow::Owned))
            }
        }
    }

    pub(crate) fn print_totals(&mut self, totals: TotalsBuilder<'_>) -> Result<()> {
        let mut groups = totals.finish()?;
        let mut equal_callers = 0_u64;
        let table = StreamedTable::new(total_columns());
        if let ComparisonOutput::Table(lines) = &mut self.out {
            if self.has_head {
                lines.write_line("")?;
            }
            lines.write_line(&table.header())?;
        }
        while let Some((group, sums)) = groups.next()? {
            let has_reader = match &mut self.out {
                ComparisonOutput::Table(_) if group.key == GroupKey::Caller && sums.differing == 0 => {
                    equal_callers += 1;
                    true
                }
                ComparisonOutput::Table(lines) => {
                    lines.write_line(&table.row(&total_cells(&group, &sums)))?
                }
                ComparisonOutput::Json(lines) => {
                    lines.write_line(&single_line_json(&total_json(&group, &sums)))?
                }
                ComparisonOutput::Csv(csv) => {
                    csv.write_row(total_record(&group, &sums).into_iter().map(Cow::Owned))?
                }
            };
            if !has_reader {
                return Ok(());
            }
        }
        match &mut self.out {
            ComparisonOutput::Table(lines) if equal_callers > 0 => {
                lines.write_line(&format!("caller: {equal_callers} more without a difference")).map(drop)
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn end(self) -> Result<()> {
        match self.out {
            ComparisonOutput::Table(lines) | ComparisonOutput::Json(lines) => lines.end(),
            ComparisonOutput::Csv(csv) => csv.end(),
        }
    }
}

/// Returns the columns of the table of differences with their widths.
fn difference_columns() -> Vec<(Column<'static>, usize)> {
    vec![
        (Column::new("DIFFERENCE").whole(), 14),
        (Column::new("OURS").number(), 12),
        (Column::new("THEIRS").number(), 12),
        (Column::new("BY").number().dropped(1), 12),
        (Column::new("START").whole().dropped(2), 32),
        (Column::new("CALLER").whole(), 16),
        (Column::new("CALLEE").whole(), 16),
        (Column::new("CALL ID").dropped(3), 36),
    ]
}

fn difference_cells(pair: &CallPair, difference: Difference, zone: TimeZoneArg) -> [String; 8] {
    let both = |format: fn(&BilledCall) -> String| {
        let or_dash = |call: &Option<BilledCall>| call.as_ref().map_or_else(|| "-".to_owned(), format);
        (or_dash(&pair.ours), or_dash(&pair.theirs))
    };
    let by = |span: fn(&BilledCall) -> Option<i64>| {
        pair.difference_us(span).map_or_else(String::new, |us| format_seconds(Some(us)))
    };
    let ((ours, theirs), difference_us) = match difference {
        Difference::MissingOurs | Difference::MissingTheirs => {
            (both(|call| format_seconds(call.duration_us)), String::new())
        }
        Difference::Answered => (both(|call| format_answered(call.answered).to_owned()), String::new()),
        Difference::ReplyCode => (both(|call| format_code(call.reply_code)), String::new()),
        Difference::Duration => (both(|call| format_seconds(call.duration_us)), by(|call| call.duration_us)),
        Difference::Setup => (both(|call| format_seconds(call.setup_us)), by(|call| call.setup_us)),
        Difference::HungUp => {
            (both(|call| call.hung_up.map_or("-", CallParty::as_str).to_owned()), String::new())
        }
    };
    let text =
        |of: fn(&BilledCall) -> &str| pair.either().map_or_else(String::new, |call| of(call).to_owned());
    let start = pair.either().map_or_else(String::new, |call| zone.format_us(call.start_us));
    let (caller, callee) = (text(|call| &call.caller), text(|call| &call.callee));
    [
        difference.as_str().to_owned(),
        ours,
        theirs,
        difference_us,
        start,
        caller,
        callee,
        text(|call| &call.call_id),
    ]
}

fn difference_record(pair: &CallPair, differences: Differences, zone: TimeZoneArg) -> Vec<String> {
    let names: Vec<&str> = differences.iter().map(Difference::as_str).collect();
    let text = |of: fn(&BilledCall) -> String| pair.either().map_or_else(String::new, of);
    let head = [
        text(|call| call.call_id.clone()),
        names.join(" "),
        pair.either().map_or_else(String::new, |call| zone.format_us(call.start_us)),
        text(|call| call.caller.clone()),
        text(|call| call.callee.clone()),
    ];
    let both = |of: fn(&BilledCall) -> String| {
        [&pair.ours, &pair.theirs].map(|call| call.as_ref().map_or_else(String::new, of))
    };
    let difference = |span: fn(&BilledCall) -> Option<i64>| [to_text(pair.difference_us(span))];
    [
        &head[..],
        &both(|call| to_text(call.answered)),
        &both(|call| to_text(call.reply_code)),
        &both(|call| to_text(call.setup_us)),
        &difference(|call| call.setup_us),
        &both(|call| to_text(call.duration_us)),
        &difference(|call| call.duration_us),
        &both(|call| call.hung_up.map_or("", CallParty::as_str).to_owned()),
        &both(|call| call.missing.to_string()),
    ]
    .concat()
}

/// Returns the columns of the table of totals with their widths.
fn total_columns() -> Vec<(Column<'static>, usize)> {
    vec![
        (Column::new("BY").whole(), 6),
        (Column::new("CALLS OURS").number(), 10),
        (Column::new("THEIRS").number(), 10),
        (Column::new("ANSWERED OURS").number().dropped(4), 13),
        (Column::new("THEIRS").number().dropped(3), 10),
        (Column::new("DURATION OURS").number().dropped(2), 18),
        (Column::new("THEIRS").number().dropped(1), 18),
        (Column::new("DIFFERENCE").number(), 16),
        (Column::new("DIFFER").number(), 6),
        (Column::new("VALUE"), 16),
    ]
}

fn total_cells(group: &CallGroup, totals: &GroupTotals) -> [String; 10] {
    let GroupTotals { ours, theirs, differing } = totals;
    let duration = |us: u64| format_seconds(Some(i64::try_from(us).unwrap_or(i64::MAX)));
    [
        group.key.as_str().to_owned(),
        ours.calls.to_string(),
        theirs.calls.to_string(),
        ours.answered.to_string(),
        theirs.answered.to_string(),
        duration(ours.duration_us),
        duration(theirs.duration_us),
        format_seconds(Some(totals.duration_difference_us())),
        differing.to_string(),
        group.value.clone(),
    ]
}

fn total_record(group: &CallGroup, totals: &GroupTotals) -> [String; TOTALS_COLUMNS.len()] {
    let GroupTotals { ours, theirs, differing } = totals;
    [
        group.key.as_str().to_owned(),
        group.value.clone(),
        ours.calls.to_string(),
        theirs.calls.to_string(),
        ours.answered.to_string(),
        theirs.answered.to_string(),
        ours.duration_us.to_string(),
        theirs.duration_us.to_string(),
        totals.duration_difference_us().to_string(),
        differing.to_string(),
    ]
}

fn total_json(group: &CallGroup, totals: &GroupTotals) -> String {
    let sums = |sums: &CallSums| json!({"calls": sums.calls, "answered": sums.answered, "duration_us": sums.duration_us});
    json!({
        "by": group.key.as_str(), "value": group.value, "ours": sums(&totals.ours), "theirs": sums(&totals.theirs),
        "duration_difference_us": totals.duration_difference_us(), "differ": totals.differing,
    })
    .to_string()
}
