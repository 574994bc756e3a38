//! `lea completions`: prints shell completion scripts generated from the clap tree. Runs in the main thread.

use clap_complete::Shell;

use crate::cli::{self, Globals};
use crate::{Exit, Result, cmd};

/// Print a completion script for a shell
///
/// The script completes subcommands, options and their values. Install it where the shell looks for completions.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Shell to print the script for
    #[arg(value_enum)]
    shell: Shell,
}

impl Args {
    pub(crate) fn run(self, _globals: &Globals) -> Result<Exit> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut cli::command(), "lea", &mut script);
        cmd::print_text(&String::from_utf8_lossy(&script))?;
        Ok(Exit::Done)
    }
}
