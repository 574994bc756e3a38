//! `lea count`: counts the events that match a query. Main thread.

use super::args::query::QueryArgs;
use super::output::stdout::{self, print_line};
use crate::cmd::Command;
use crate::cmd::args::globals::Globals;
use crate::manual::{self, Example, Manual};
use crate::runtime::logging::{self, LevelFilter};
use crate::{Exit, Result};

/// Count the events that match a query
///
/// Prints only the number. The exit code is 0 even if it is 0.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    query: QueryArgs,
}

impl Command for Args {
    const MANUAL: Manual = Manual {
        examples: &[Example {
            text: "Count the rejected calls of two days",
            command: "lea count event:rejected_call --since 2d",
        }],
        see_also: &["lea-search(1)", "lea-top(1)"],
        ..manual::EVENT_QUERY
    };

    fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Warn));
        if let Some(explanation) = self.query.explanation()? {
            print_line(&explanation)?;
            return Ok(Exit::Done);
        }
        let session = self.query.open()?;
        let count = session.count(session.range)?;
        stdout::print(&format!("{count}\n"))?;
        Ok(Exit::Done)
    }
}
