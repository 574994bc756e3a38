//! `lea billing compare`: compares the calls of two sides. Runs on the main thread.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::json;

use super::SortArgs;
use super::build::{call_json, format_answered, format_code, format_seconds, to_text};
use crate::billing::calls::{CallReader, RowSource};
use crate::billing::{
    self, BilledCall, CallGroup, CallParty, Difference, Differences, GroupKey, GroupTotals, TotalsBuilder,
};
use crate::cmd::Command;
use crate::cmd::args::config::ConfigArgs;
use crate::cmd::args::globals::Globals;
use crate::cmd::args::query::{EventFilterArgs, StoreTargetArgs};
use crate::cmd::args::time_zone::TimeZoneArg;
use crate::cmd::args::units;
use crate::cmd::output::table::{Column, StreamedTable};
use crate::cmd::output::{self, CsvWriter, OutputFormat, OutputFormatArgs, StdoutLines};
use crate::manual::{self, Example, Manual};
use crate::runtime::logging::{self, LevelFilter};
use crate::search::source::SessionOptions;
use crate::{Error, Exit, Result};

/// The largest accepted tolerance: one day.
const TOLERANCE_US_MAX: i64 = 86_400_000_000;

/// Compare the billing logs of two sides, call by call
///
/// OURS and THEIRS are each a file, - for stdin, a directory that a receiver writes to, or a URL, as for `lea billing
/// build`. Calls are matched by call_id. Two calls differ if only one side has the call or says that it was answered,
/// or if the reply code, the side that hung up, the duration or the set-up delay differ. The clocks of the sides need
/// not agree, because only durations are compared.
///
/// Then lea prints the sums of both sides: for all calls, by day, by the callee's country code and by caller. All
/// dialled forms of a number count as one caller. A table lists only the callers whose calls differ.
///
/// The exit code is 3 if calls differ, if a call is missing on one side, or if a row was rejected.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The log of our side
    #[arg(value_name = "OURS")]
    ours: String,
    /// The log of the other side
    #[arg(value_name = "THEIRS")]
    theirs: String,
    /// Largest difference in duration or set-up delay that is ignored, at most one day
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = tolerance)]
    tolerance: i64,
    /// Part to print [default: all, or calls with --csv]
    #[arg(long, value_enum)]
    show: Option<CompareSection>,
    #[command(flatten)]
    format: OutputFormatArgs,
    #[command(flatten)]
    sort: SortArgs,
    #[command(flatten)]
    config: ConfigArgs,
    /// CA certificates (PEM) for https URLs [default: system roots]
    #[arg(long, value_name = "FILE")]
    store_ca: Option<std::path::PathBuf>,
    /// How long to wait for a server that is unreachable or overloaded
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = units::duration_in(0..=86_400_000))]
    connect_timeout: std::time::Duration,
    #[command(flatten)]
    which: EventFilterArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum CompareSection {
    /// Calls that differ, then the sums
    All,
    /// Calls that differ
    Calls,
    /// The sums
    Totals,
}

fn tolerance(text: &str) -> Result<i64, String> {
    let us = i64::try_from(units::duration(text)?.as_micros()).unwrap_or(i64::MAX);
    if us <= TOLERANCE_US_MAX { Ok(us) } else { Err("write at most one day (1d)".to_owned()) }
}

/// The numbers of the summary line.
#[derive(Debug, Default)]
struct CompareSummary {
    calls: u64,
    differing: u64,
    missing_ours: u64,
    missing_theirs: u64,
    incomplete: u64,
}

impl Command for Args {
    const MANUAL: Manual = Manual {
        exits: &[(Exit::Incomplete, "The sides differ, or a row was rejected.")],
        files: &[manual::EVENT_STORE_FILES],
        reads_configuration: true,
        environment: &[manual::TIME_ZONE_VARIABLE],
        examples: &[
            Example { text: "Compare two logs", command: "lea billing compare ours.jsonl theirs.csv" },
            Example {
                text: "Print only the totals",
                command: "lea billing compare ours.jsonl theirs.csv --show totals",
            },
        ],
        see_also: &["lea-billing-build(1)"],
        ..manual::EMPTY
    };

    fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Warn));
        let format = self.format.format();
        let show = match (self.show, format) {
            (Some(CompareSection::All), OutputFormat::Csv) => {
                return Err(Error::Usage(
                    "--csv prints one table: add --show calls or --show totals".to_owned(),
                ));
            }
            (None, OutputFormat::Csv) => CompareSection::Calls,
            (show, _) => show.unwrap_or(CompareSection::All),
        };
        if self.ours == "-" && self.theirs == "-" {
            return Err(Error::Usage(
                "OURS and THEIRS are both stdin (-): name a file for one of them".to_owned(),
            ));
        }
        let place = StoreTargetArgs {
            store: String::new(),
            config: self.config.clone(),
            store_ca: self.store_ca.clone(),
            connect_timeout: self.connect_timeout,
        };
        let options = super::row_options(&self.which, &place)?;
        let mut ours = self.side(&self.ours, &options)?;
        let mut theirs = self.side(&self.theirs, &options)?;
        let zone = self.which.time_zone;
        let day = |ms| zone.day(ms).to_string();
        let mut totals = TotalsBuilder::new(day, options.normalizer.as_deref(), &self.sort.settings());
        let mut printer = ComparePrinter::start(format, show, zone)?;
        let mut counted = CompareSummary::default();
        let mut is_read = true;
        let mut next = (ours.next()?, theirs.next()?);
        while next.0.is_some() || next.1.is_some() {
            let pair = take_lower_pair(&mut next);
            let differences = billing::compare_calls(pair.0.as_ref(), pair.1.as_ref(), self.tolerance);
            counted.add(&pair, differences);
            totals.add(pair.0.as_ref(), pair.1.as_ref(), !differences.is_empty())?;
            if is_read && show != CompareSection::Totals && !differences.is_empty() {
                is_read = printer.print_call(&pair, differences)?;
            }
            if next.0.is_none() {
                next.0 = ours.next()?;
            }
            if next.1.is_none() {
                next.1 = theirs.next()?;
            }
        }
        if is_read && show != CompareSection::Calls {
            printer.print_totals(totals)?;
        }
        printer.end()?;
        let rejected = ours.counts.rejected + theirs.counts.rejected;
        let CompareSummary { calls, differing: differ, missing_ours, missing_theirs, incomplete } = counted;
        logging::status_line(format_args!(
            "compared calls={calls} differ={differ} missing_ours={missing_ours} missing_theirs={missing_theirs} \
             incomplete={incomplete} rows_ours={} rows_theirs={} rejected={rejected}",
            ours.counts.rows, theirs.counts.rows
        ));
        Ok(if rejected == 0 && differ + missing_ours + missing_theirs == 0 {
            Exit::Done
        } else {
            Exit::Incomplete
        })
    }
}

impl Args {
    /// Reads one side. Each side gets half of the memory.
    fn side(&self, name: &str, options: &SessionOptions) -> Result<CallReader> {
        let names = [name.to_owned()];
        let times = super::row_time_parser(&self.which);
        let source = RowSource { names: &names, options, times: &times };
        let sort = self.sort.settings();
        CallReader::read(&source, &sort.with_memory(sort.memory_bytes / 2))
    }
}

/// One call as our side and as the other side has it.
type CallPair = (Option<BilledCall>, Option<BilledCall>);

/// Takes the calls with the lower call ID.
fn take_lower_pair((ours, theirs): &mut CallPair) -> CallPair {
    let order = match (&ours, &theirs) {
        (Some(one), Some(other)) => one.call_id.cmp(&other.call_id),
        (Some(_), None) => Ordering::Less,
        _ => Ordering::Greater,
    };
    match order {
        Ordering::Less => (ours.take(), None),
        Ordering::Equal => (ours.take(), theirs.take()),
        Ordering::Greater => (None, theirs.take()),
    }
}

impl CompareSummary {
    fn add(&mut self, (ours, theirs): &CallPair, differences: Differences) {
        self.calls += 1;
        let is_incomplete =
            |call: &Option<BilledCall>| call.as_ref().is_some_and(|call| !call.missing.is_empty());
        self.incomplete += u64::from(is_incomplete(ours) || is_incomplete(theirs));
        match (ours, theirs) {
            (None, _) => self.missing_ours += 1,
            (_, None) => self.missing_theirs += 1,
            _ => self.differing += u64::from(!differences.is_empty()),
        }
    }
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
struct ComparePrinter {
    out: CompareOutput,
    zone: TimeZoneArg,
    has_head: bool,
}

enum CompareOutput {
    Table(StdoutLines),
    Json(StdoutLines),
    Csv(Box<CsvWriter>),
}

impl ComparePrinter {
    fn start(format: OutputFormat, show: CompareSection, zone: TimeZoneArg) -> Result<ComparePrinter> {
        let head = if show == CompareSection::Totals { &TOTALS_COLUMNS[..] } else { &COLUMNS[..] };
        let out = match format {
            OutputFormat::Table => CompareOutput::Table(StdoutLines::start()),
            OutputFormat::Json => CompareOutput::Json(StdoutLines::start()),
            OutputFormat::Csv => CompareOutput::Csv(Box::new(CsvWriter::start(head)?)),
        };
        Ok(ComparePrinter { out, zone, has_head: false })
    }

    /// Prints a call that differs. Returns false if the reader of stdout is gone.
    fn print_call(&mut self, pair: &CallPair, differences: Differences) -> Result<bool> {
        let zone = self.zone;
        match &mut self.out {
            CompareOutput::Table(lines) => {
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
            CompareOutput::Json(lines) => {
                let (ours, theirs) = pair;
                let shown = |call: &Option<BilledCall>| call.as_ref().map(|call| call_json(call, zone));
                let object = json!({
                    "call_id": either_side(pair).map(|call| &call.call_id),
                    "differences": differences.iter().map(Difference::as_str).collect::<Vec<_>>(),
                    "setup_difference_us": difference_us(pair, |call| call.setup_us),
                    "duration_difference_us": difference_us(pair, |call| call.duration_us),
                    "ours": shown(ours), "theirs": shown(theirs),
                });
                lines.write_line(&output::single_line_json(&object.to_string()))
            }
            CompareOutput::Csv(csv) => {
                csv.write_row(difference_record(pair, differences, zone).into_iter().map(Cow::Owned))
            }
        }
    }

    fn print_totals(&mut self, totals: TotalsBuilder<'_>) -> Result<()> {
        let mut groups = totals.finish()?;
        let mut callers_equal = 0_u64;
        let table = StreamedTable::new(total_columns());
        if let CompareOutput::Table(lines) = &mut self.out {
            if self.has_head {
                lines.write_line("")?;
            }
            lines.write_line(&table.header())?;
        }
        while let Some((group, both)) = groups.next()? {
            let is_taken = match &mut self.out {
                CompareOutput::Table(_) if group.key == GroupKey::Caller && both.differing == 0 => {
                    callers_equal += 1;
                    true
                }
                CompareOutput::Table(lines) => lines.write_line(&table.row(&total_cells(&group, &both)))?,
                CompareOutput::Json(lines) => {
                    lines.write_line(&output::single_line_json(&total_json(&group, &both)))?
                }
                CompareOutput::Csv(csv) => {
                    csv.write_row(total_record(&group, &both).into_iter().map(Cow::Owned))?
                }
            };
            if !is_taken {
                return Ok(());
            }
        }
        match &mut self.out {
            CompareOutput::Table(lines) if callers_equal > 0 => {
                lines.write_line(&format!("caller: {callers_equal} more without a difference")).map(drop)
            }
            _ => Ok(()),
        }
    }

    fn end(self) -> Result<()> {
        match self.out {
            CompareOutput::Table(lines) | CompareOutput::Json(lines) => lines.end(),
            CompareOutput::Csv(csv) => csv.end(),
        }
    }
}

fn either_side((ours, theirs): &CallPair) -> Option<&BilledCall> {
    ours.as_ref().or(theirs.as_ref())
}

/// Returns their value minus ours.
fn difference_us((ours, theirs): &CallPair, span: impl Fn(&BilledCall) -> Option<i64>) -> Option<i64> {
    let (ours, theirs) = (ours.as_ref().and_then(&span), theirs.as_ref().and_then(&span));
    ours.zip(theirs).map(|(ours, theirs)| theirs - ours)
}

/// Returns the columns of the table of differences with their widths.
fn difference_columns() -> Vec<(Column<'static>, usize)> {
    vec![
        (Column::new("DIFFERENCE").whole(), 14),
        (Column::new("OURS").number(), 14),
        (Column::new("THEIRS").number(), 14),
        (Column::new("BY").number().dropped(1), 14),
        (Column::new("START").whole().dropped(2), 32),
        (Column::new("CALLER"), 16),
        (Column::new("CALLEE"), 16),
        (Column::new("CALL ID").dropped(3), 36),
    ]
}

fn difference_cells(pair: &CallPair, difference: Difference, zone: TimeZoneArg) -> [String; 8] {
    let (ours, theirs) = pair;
    let show = |what: fn(&BilledCall) -> String| {
        let shown = |call: &Option<BilledCall>| call.as_ref().map_or_else(|| "-".to_owned(), what);
        (shown(ours), shown(theirs))
    };
    let spans = |span: fn(&BilledCall) -> Option<i64>| {
        difference_us(pair, span).map_or_else(String::new, |us| format_seconds(Some(us)))
    };
    let ((one, other), more) = match difference {
        Difference::MissingOurs | Difference::MissingTheirs => {
            (show(|call| format_seconds(call.duration_us)), String::new())
        }
        Difference::Answered => (show(|call| format_answered(call.answered).to_owned()), String::new()),
        Difference::ReplyCode => (show(|call| format_code(call.reply_code)), String::new()),
        Difference::Duration => {
            (show(|call| format_seconds(call.duration_us)), spans(|call| call.duration_us))
        }
        Difference::Setup => (show(|call| format_seconds(call.setup_us)), spans(|call| call.setup_us)),
        Difference::HungUp => {
            (show(|call| call.hung_up.map_or("-", CallParty::as_str).to_owned()), String::new())
        }
    };
    let text =
        |of: fn(&BilledCall) -> &str| either_side(pair).map_or_else(String::new, |call| of(call).to_owned());
    let start = either_side(pair).map_or_else(String::new, |call| zone.format_us(call.start_us));
    let (caller, callee) = (text(|call| &call.caller), text(|call| &call.callee));
    [difference.as_str().to_owned(), one, other, more, start, caller, callee, text(|call| &call.call_id)]
}

fn difference_record(pair: &CallPair, differences: Differences, zone: TimeZoneArg) -> Vec<String> {
    let (ours, theirs) = pair;
    let words: Vec<&str> = differences.iter().map(Difference::as_str).collect();
    let text = |of: fn(&BilledCall) -> String| either_side(pair).map_or_else(String::new, of);
    let begin = [
        text(|call| call.call_id.clone()),
        words.join(" "),
        either_side(pair).map_or_else(String::new, |call| zone.format_us(call.start_us)),
        text(|call| call.caller.clone()),
        text(|call| call.callee.clone()),
    ];
    let both =
        |of: fn(&BilledCall) -> String| [ours, theirs].map(|call| call.as_ref().map_or_else(String::new, of));
    let difference = |span: fn(&BilledCall) -> Option<i64>| [to_text(difference_us(pair, span))];
    [
        &begin[..],
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
        (Column::new("BY").number(), 16),
        (Column::new("DIFFER").number(), 6),
        (Column::new("VALUE"), 16),
    ]
}

fn total_cells(group: &CallGroup, both: &GroupTotals) -> [String; 10] {
    let GroupTotals { ours, theirs, differing: differ } = both;
    let duration = |us: u64| format_seconds(Some(i64::try_from(us).unwrap_or(i64::MAX)));
    [
        group.key.as_str().to_owned(),
        ours.calls.to_string(),
        theirs.calls.to_string(),
        ours.answered.to_string(),
        theirs.answered.to_string(),
        duration(ours.duration_us),
        duration(theirs.duration_us),
        format_seconds(Some(both.duration_difference_us())),
        differ.to_string(),
        group.value.clone(),
    ]
}

fn total_record(group: &CallGroup, both: &GroupTotals) -> [String; TOTALS_COLUMNS.len()] {
    let GroupTotals { ours, theirs, differing: differ } = both;
    [
        group.key.as_str().to_owned(),
        group.value.clone(),
        ours.calls.to_string(),
        theirs.calls.to_string(),
        ours.answered.to_string(),
        theirs.answered.to_string(),
        ours.duration_us.to_string(),
        theirs.duration_us.to_string(),
        both.duration_difference_us().to_string(),
        differ.to_string(),
    ]
}

fn total_json(group: &CallGroup, both: &GroupTotals) -> String {
    let sums = |sums: &billing::CallSums| json!({"calls": sums.calls, "answered": sums.answered, "duration_us": sums.duration_us});
    json!({
        "by": group.key.as_str(), "value": group.value, "ours": sums(&both.ours), "theirs": sums(&both.theirs),
        "duration_difference_us": both.duration_difference_us(), "differ": both.differing,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tolerance_is_at_most_one_day() {
        assert_eq!(
            (tolerance("1s"), tolerance("250ms"), tolerance("0")),
            (Ok(1_000_000), Ok(250_000), Ok(0))
        );
        assert_eq!(tolerance("1d"), Ok(TOLERANCE_US_MAX));
        assert!(tolerance("86401s").is_err() && tolerance("x").is_err());
    }
}
