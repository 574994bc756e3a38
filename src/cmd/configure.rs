//! `lea configure`: writes, checks and shows the configuration.

use crate::cli::Globals;
use crate::{Exit, Result};

/// Write, check or show the configuration file
#[derive(clap::Args, Debug)]
pub struct Args {}

impl Args {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        let _ = globals;
        Ok(Exit::Done)
    }
}
