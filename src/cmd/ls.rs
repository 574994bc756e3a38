//! `lea ls`: a table of the streams in a folder.

use crate::cli::Globals;
use crate::{Exit, Result};

/// List the streams in a folder
#[derive(clap::Args, Debug)]
pub struct Args {}

impl Args {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        let _ = globals;
        Ok(Exit::Done)
    }
}
