//! `lea run`: everything that the configuration enables.

use crate::cli::Globals;
use crate::{Exit, Result};

/// Run everything that the configuration enables
#[derive(clap::Args, Debug)]
pub struct Args {}

impl Args {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        let _ = globals;
        Ok(Exit::Done)
    }
}
