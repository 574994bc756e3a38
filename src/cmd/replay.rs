//! `lea replay`: sends captures as real senders do.

use crate::cli::Globals;
use crate::{Exit, Result};

/// Send captures as real senders do
#[derive(clap::Args, Debug)]
pub struct Args {}

impl Args {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        let _ = globals;
        Ok(Exit::Done)
    }
}
