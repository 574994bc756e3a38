//! `lea completions`: completion scripts for shells.

use crate::cli::Globals;
use crate::{Exit, Result};

/// Print a completion script for a shell
#[derive(clap::Args, Debug)]
pub struct Args {}

impl Args {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        let _ = globals;
        Ok(Exit::Done)
    }
}
