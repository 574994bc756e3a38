//! `lea completions`: completion scripts for shells, from the clap tree.

use clap_complete::Shell;

use crate::cli::{self, Globals};
use crate::{Exit, Result, cmd};

/// Print a completion script for a shell
///
/// For bash: lea completions bash > ~/.local/share/bash-completion/completions/lea
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Args {
    /// Runs the command.
    pub fn run(self, _globals: &Globals) -> Result<Exit> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut cli::command(), "lea", &mut script);
        cmd::print_data(&String::from_utf8_lossy(&script))?;
        Ok(Exit::Done)
    }
}
