//! `lea count`: counts the events that match a query. Main thread.

use super::args::query::QueryArgs;
use super::print_text;
use crate::cli::Globals;
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

impl Args {
    pub(crate) fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Warn));
        if self.query.print_explanation()? {
            return Ok(Exit::Done);
        }
        let session = self.query.open()?;
        let count = session.count(session.range)?;
        print_text(&format!("{count}\n"))?;
        Ok(Exit::Done)
    }
}
