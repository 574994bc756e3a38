//! `lea events`: events as they come, and files of them.

mod line;
pub mod load;
pub mod tail;
mod target;

use crate::cli::Globals;
use crate::{Exit, Result};

/// Follow events as they come, and take files of them in
#[derive(Debug, clap::Subcommand)]
#[allow(missing_docs, reason = "each one's Args say it")]
pub enum Command {
    Tail(tail::Args),
    Load(load::Args),
}

impl Command {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        match self {
            Command::Tail(args) => args.run(globals),
            Command::Load(args) => args.run(globals),
        }
    }
}
