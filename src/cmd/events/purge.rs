//! `lea events purge`: deletes old events. Main thread.

use std::path::Path;
use std::time::Duration;

use crate::cmd::Command;
use crate::cmd::args::globals::Globals;
use crate::cmd::args::query::StoreTargetArgs;
use crate::cmd::args::time_zone::TimeZoneArg;
use crate::cmd::output::print_line;
use crate::manual::{self, Example, Manual};
use crate::runtime::logging::{self, LevelFilter};
use crate::runtime::terminal::escape;
use crate::search::source::purge_directory;
use crate::{Error, Exit, Result};

/// How long the command gives the room of deleted events back to the disk.
const CLEANUP_TIME_MAX: Duration = Duration::from_secs(24 * 3_600);

/// Delete events from before a time
///
/// Deletes the events whose time is before TIME, and prints for each index how many there were. The room on the disk is given
/// back. With --dry-run nothing is deleted; a receiver may run then. A receiver with --keep-days (keepDays in the
/// configuration) deletes old events itself, while it runs.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Delete events before TIME: a duration before now (30d, 4w), yesterday, today, a date or a time
    #[arg(long, value_name = "TIME")]
    before: String,
    /// Only count the events
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Only events in these indices; * matches any characters [default: all]
    #[arg(long, value_name = "INDEX", value_delimiter = ',')]
    index: Vec<String>,
    /// Time zone of TIME: local, utc, or an offset like +01:00
    #[arg(long, value_name = "ZONE", default_value = "local", allow_hyphen_values = true, value_parser = TimeZoneArg::parse)]
    time_zone: TimeZoneArg,
    #[command(flatten)]
    store_target: StoreTargetArgs,
}

impl Command for Args {
    const MANUAL: Manual = Manual {
        examples: &[
            Example {
                text: "Count the events from before 2026",
                command: "lea events purge --before 2026-01-01 --dry-run",
            },
            Example {
                text: "Keep the events of a year",
                command: "lea events purge --before 365d --store interceptions",
            },
        ],
        see_also: &["lea-events-export(1)", "lea-serve-events(1)"],
        ..manual::EVENT_QUERY
    };

    fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Info));
        let target = self.store_target.target();
        if target.is_url() {
            let wrong = "--store: purge needs a directory; a server deletes old events with keepDays";
            return Err(Error::Usage(wrong.to_owned()));
        }
        let before = self
            .time_zone
            .parse_time(&self.before, crate::runtime::time::now().timestamp_millis())
            .map_err(|error| Error::Usage(format!("--before: {error}")))?;
        let dir = Path::new(&target.location);
        let purged = purge_directory(dir, &self.index, before, self.dry_run, CLEANUP_TIME_MAX)?;
        for (index, events) in &purged {
            print_line(&format!("{events} {}", escape(index)))?;
        }
        let events: u64 = purged.iter().map(|(_, events)| events).sum();
        if self.dry_run {
            logging::status_line(format_args!("found events={events} before={}", self.before));
        } else {
            logging::status_line(format_args!("purged events={events} before={}", self.before));
        }
        Ok(Exit::Done)
    }
}
