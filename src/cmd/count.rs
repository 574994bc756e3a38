//! `lea count`: how many events answer a question. Main thread.

use super::asked::{WhereArgs, WhichArgs, explain};
use super::print_data;
use crate::cli::Globals;
use crate::logging::{self, LevelFilter};
use crate::{Exit, Result};

/// Count the events that answer a question
///
/// The number alone goes to stdout. The exit code is 0 also where it is 0. QUERY is as in lea search.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The question [default: all events]
    #[arg(value_name = "QUERY")]
    query: Option<String>,
    #[command(flatten)]
    place: WhereArgs,
    #[command(flatten)]
    which: WhichArgs,
    /// Print how the question is read, and do not ask it
    #[arg(long)]
    explain: bool,
}

impl Args {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Warn));
        if self.explain {
            explain(&self.which, &self.place, self.query.as_deref())?;
            return Ok(Exit::Done);
        }
        let asked = self.which.open(&self.place, self.query.as_deref())?;
        let count = asked.count(asked.span)?;
        print_data(&format!("{count}\n"))?;
        Ok(Exit::Done)
    }
}
