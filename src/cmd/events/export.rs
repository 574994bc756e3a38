//! `lea events export`: writes all events as JSON lines. Main thread.

use std::ops::ControlFlow;
use std::path::Path;

use crate::cmd::Command;
use crate::cmd::args::globals::Globals;
use crate::cmd::args::query::{EventFilterArgs, StoreTargetArgs};
use crate::cmd::output::{EventView, StdoutLines};
use crate::manual::{self, Example, Manual};
use crate::runtime::logging::{self, LevelFilter};
use crate::runtime::terminal::escape;
use crate::search::glob::glob_matches;
use crate::search::sqlite::salvage::salvage;
use crate::{Error, Exit, Result};

/// Write all events as JSON lines
///
/// Prints one object per line with _index, _id, _time (the time of the event) and _source (the event as received), in the
/// order of time. "lea events load" reads these lines. Nothing is changed, and a receiver may run.
///
/// If a part of the store is damaged, the command fails. With --damaged it writes everything that can be read, in the order
/// of arrival, and says on stderr what cannot; the exit status is 3 if anything is damaged or missing.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write what can be read of a damaged store in a directory
    #[arg(long, conflicts_with_all = ["since", "until"])]
    damaged: bool,
    #[command(flatten)]
    store_target: StoreTargetArgs,
    #[command(flatten)]
    filter: EventFilterArgs,
}

impl Command for Args {
    const MANUAL: Manual = Manual {
        exits: &[(Exit::Incomplete, "A part of the store is damaged, and --damaged was given.")],
        examples: &[
            Example {
                text: "Export all events",
                command: "lea events export --store interceptions > events.jsonl",
            },
            Example {
                text: "Save what is left of a damaged store",
                command: "lea events export --damaged --store interceptions > events.jsonl",
            },
        ],
        see_also: &["lea-search(1)", "lea-events-load(1)", "lea-verify(1)"],
        ..manual::EVENT_QUERY
    };

    fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Warn));
        if self.damaged { self.export_damaged() } else { self.export_all() }
    }
}

impl Args {
    fn export_all(&self) -> Result<Exit> {
        let session = self.filter.open(&self.store_target, None)?;
        let (zone, mut lines, mut events) = (self.filter.time_zone, StdoutLines::start(), 0);
        session.scan(session.range, false, &mut |hit| {
            events += 1;
            let is_read = lines.write_line(&EventView::new(hit, 0).json(zone, &[]))?;
            Ok(if is_read { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        lines.end()?;
        logging::status_line(format_args!("exported events={events}"));
        Ok(Exit::Done)
    }

    fn export_damaged(&self) -> Result<Exit> {
        let target = self.store_target.target();
        if target.is_url() {
            return Err(Error::Usage("--damaged: --store must be a directory, not a URL".to_owned()));
        }
        let (zone, mut lines, mut events) = (self.filter.time_zone, StdoutLines::start(), 0_u64);
        let report = salvage(Path::new(&target.location), &mut |event| {
            let is_chosen = |name: &String| glob_matches(name, &event.hit.index);
            if !self.filter.index.is_empty() && !self.filter.index.iter().any(is_chosen) {
                return Ok(true);
            }
            events += 1;
            lines.write_line(&EventView::new(event.hit, 0).json(zone, &[]))
        })?;
        lines.end()?;
        for finding in &report.findings {
            logging::status_line(format_args!("damaged: {}", escape(finding)));
        }
        logging::status_line(format_args!("exported events={events} lost={}", report.lost));
        Ok(if report.findings.is_empty() { Exit::Done } else { Exit::Incomplete })
    }
}
