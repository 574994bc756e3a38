//! `lea serve-tcp`: receives streams over TCP.

use crate::cli::Globals;
use crate::{Exit, Result};

/// Receive streams over TCP
#[derive(clap::Args, Debug)]
pub struct Args {}

impl Args {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        let _ = globals;
        Ok(Exit::Done)
    }
}
