//! `lea billing build`: builds calls from rows. Runs on the main thread.

use super::SortArgs;
use crate::billing::BilledCall;
use crate::billing::calls::{CallReader, RowSource};
use crate::cmd::Command;
use crate::cmd::args::globals::Globals;
use crate::cmd::args::query::{EventFilterArgs, StoreTargetArgs};
use crate::cmd::output::OutputFormatArgs;
use crate::cmd::output::billing_calls::CallPrinter;
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
        examples: &[
            Example { text: "Build the calls of a log", command: "lea billing build ours.jsonl --csv" },
            Example {
                text: "Build the calls of the last day from the event store",
                command: "lea billing build --since 1d",
            },
        ],
        see_also: &["lea-billing-compare(1)"],
        ..manual::EVENT_QUERY
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
