//! `lea count`: how many events answer a question. Main thread.

use super::asked::QuestionArgs;
use super::print_data;
use crate::cli::Globals;
use crate::logging::{self, LevelFilter};
use crate::{Exit, Result};

/// Count the events that answer a question
///
/// The number alone goes to stdout. The exit code is 0 also where it is 0. QUERY is as in lea search.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    question: QuestionArgs,
}

impl Args {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Warn));
        if self.question.is_explained()? {
            return Ok(Exit::Done);
        }
        let asked = self.question.open()?;
        let count = asked.count(asked.span)?;
        print_data(&format!("{count}\n"))?;
        Ok(Exit::Done)
    }
}
