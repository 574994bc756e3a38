//! `lea billing`: builds calls from quick billing logs and compares the logs of two sides. Runs on the main thread.

mod build;
mod compare;

use std::path::PathBuf;

use super::args::query::{EventFilterArgs, StoreTargetArgs};
use super::args::units;
use crate::billing::RowTimeParser;
use crate::billing::external_sort::{MEMORY_BYTES_MAX, MEMORY_BYTES_MIN, SortSettings};
use crate::cmd::args::globals::Globals;
use crate::cmd::{Command, commands};
use crate::manual::{self, Manual};
use crate::search::source::SessionOptions;
use crate::{Exit, Result};

/// Build and compare calls from quick billing logs
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: BillingCommand,
}

commands! {
    enum BillingCommand {
        "build" => Build(build::Args),
        "compare" => Compare(compare::Args),
    }
}

impl Command for Args {
    const MANUAL: Manual = Manual { subcommands: BillingCommand::MANUALS, ..manual::EMPTY };

    fn run(self, globals: &Globals) -> Result<Exit> {
        self.command.run(globals)
    }
}

/// Options that limit the memory of sorting.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Sorting")]
pub(crate) struct SortArgs {
    /// Memory for sorting, from 64K to 4G; more rows are sorted in temporary files
    #[arg(long, value_name = "BYTES", default_value = "256M", value_parser = parse_sort_memory)]
    sort_memory: u64,
    /// Directory for temporary files, which need about as much space as the rows [default: $TMPDIR, else /tmp]
    #[arg(long, value_name = "DIR")]
    temp_dir: Option<PathBuf>,
}

impl SortArgs {
    fn settings(&self) -> SortSettings {
        let dir = self.temp_dir.clone().unwrap_or_else(std::env::temp_dir);
        SortSettings { dir, memory_bytes: self.sort_memory }
    }
}

fn parse_sort_memory(text: &str) -> Result<u64, String> {
    let bytes = units::bytes(text)?;
    if (MEMORY_BYTES_MIN..=MEMORY_BYTES_MAX).contains(&bytes) {
        Ok(bytes)
    } else {
        Err("write a size from 64K to 4G".to_owned())
    }
}

/// Returns the options for reading rows from a store.
fn row_options(filter: &EventFilterArgs, store: &StoreTargetArgs) -> Result<SessionOptions> {
    let mut options = filter.session_options(store)?;
    if options.indices.is_empty() {
        options.indices.push(store.load_settings()?.events.indices.billing);
    }
    Ok(options)
}

/// Returns a parser for which times without a zone are in the zone of the options.
fn row_time_parser(filter: &EventFilterArgs) -> RowTimeParser {
    let zone = filter.time_zone;
    RowTimeParser::new(move |ms| zone.offset_minutes(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sort_memory_is_limited_on_both_sides() {
        assert_eq!((parse_sort_memory("64K"), parse_sort_memory("4G")), (Ok(64 << 10), Ok(4 << 30)));
        assert!(
            parse_sort_memory("65535").is_err()
                && parse_sort_memory("4294967297").is_err()
                && parse_sort_memory("x").is_err()
        );
    }
}
