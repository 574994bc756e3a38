//! `lea verify`: checks stored streams.

use crate::cli::Globals;
use crate::{Exit, Result};

/// Check stored streams against their manifests, or against what was sent
#[derive(clap::Args, Debug)]
pub struct Args {}

impl Args {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        let _ = globals;
        Ok(Exit::Done)
    }
}
