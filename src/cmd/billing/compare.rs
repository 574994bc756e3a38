//! `lea billing compare`: compares the calls of two sides. Runs on the main thread.

use super::SortArgs;
use crate::billing::calls::{CallReader, RowSource};
use crate::billing::input::RowCounts;
use crate::billing::{CallPair, Differences, PairReader, TotalsBuilder};
use crate::cmd::Command;
use crate::cmd::args::globals::Globals;
use crate::cmd::args::query::{EventFilterArgs, StoreAccessArgs, StoreTargetArgs};
use crate::cmd::args::units;
use crate::cmd::output::billing_comparison::{CompareSection, ComparisonPrinter};
use crate::cmd::output::{OutputFormat, OutputFormatArgs};
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
    access: StoreAccessArgs,
    #[command(flatten)]
    which: EventFilterArgs,
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
        examples: &[
            Example { text: "Compare two logs", command: "lea billing compare ours.jsonl theirs.csv" },
            Example {
                text: "Print only the totals",
                command: "lea billing compare ours.jsonl theirs.csv --show totals",
            },
        ],
        see_also: &["lea-billing-build(1)"],
        ..manual::EVENT_QUERY
    };

    fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Warn));
        let section = self.section()?;
        if self.ours == "-" && self.theirs == "-" {
            return Err(Error::Usage(
                "OURS and THEIRS are both stdin (-): name a file for one of them".to_owned(),
            ));
        }
        let target = StoreTargetArgs { store: String::new(), access: self.access.clone() };
        let options = super::row_options(&self.which, &target)?;
        let zone = self.which.time_zone;
        let day = |ms| zone.day(ms).to_string();
        let mut totals = TotalsBuilder::new(day, options.normalizer.as_deref(), &self.sort.settings());
        let mut pairs =
            PairReader::new(self.read_side(&self.ours, &options)?, self.read_side(&self.theirs, &options)?);
        let mut printer = ComparisonPrinter::start(self.format.format(), section, zone)?;
        let mut summary = CompareSummary::default();
        let mut has_reader = true;
        while let Some(pair) = pairs.next()? {
            let differences = pair.compare(self.tolerance);
            summary.add(&pair, differences);
            totals.add(pair.ours.as_ref(), pair.theirs.as_ref(), !differences.is_empty())?;
            if has_reader && section != CompareSection::Totals && !differences.is_empty() {
                has_reader = printer.print_call(&pair, differences)?;
            }
        }
        if has_reader && section != CompareSection::Calls {
            printer.print_totals(totals)?;
        }
        printer.end()?;
        Ok(summary.report(pairs.ours.counts, pairs.theirs.counts))
    }
}

impl Args {
    fn section(&self) -> Result<CompareSection> {
        match (self.show, self.format.format()) {
            (Some(CompareSection::All), OutputFormat::Csv) => {
                Err(Error::Usage("--csv prints one table: add --show calls or --show totals".to_owned()))
            }
            (None, OutputFormat::Csv) => Ok(CompareSection::Calls),
            (section, _) => Ok(section.unwrap_or(CompareSection::All)),
        }
    }

    /// Reads one side. Each side gets half of the memory.
    fn read_side(&self, name: &str, options: &SessionOptions) -> Result<CallReader> {
        let names = [name.to_owned()];
        let times = super::row_time_parser(&self.which);
        let source = RowSource { names: &names, options, times: &times };
        let sort = self.sort.settings();
        CallReader::read(&source, &sort.with_memory(sort.memory_bytes / 2))
    }
}

impl CompareSummary {
    fn add(&mut self, pair: &CallPair, differences: Differences) {
        self.calls += 1;
        self.incomplete += u64::from(pair.is_incomplete());
        match (&pair.ours, &pair.theirs) {
            (None, _) => self.missing_ours += 1,
            (_, None) => self.missing_theirs += 1,
            _ => self.differing += u64::from(!differences.is_empty()),
        }
    }

    /// Prints the summary line and returns the exit code.
    fn report(&self, ours: RowCounts, theirs: RowCounts) -> Exit {
        let CompareSummary { calls, differing, missing_ours, missing_theirs, incomplete } = self;
        let rejected = ours.rejected + theirs.rejected;
        logging::status_line(format_args!(
            "compared calls={calls} differ={differing} missing_ours={missing_ours} missing_theirs={missing_theirs} \
             incomplete={incomplete} rows_ours={} rows_theirs={} rejected={rejected}",
            ours.rows, theirs.rows
        ));
        let is_equal = differing + missing_ours + missing_theirs == 0;
        if rejected == 0 && is_equal { Exit::Done } else { Exit::Incomplete }
    }
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
