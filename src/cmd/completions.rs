//! `lea completions`: prints shell completion scripts generated from the clap tree. Runs in the main thread.

use clap_complete::Shell;

use super::output::stdout;
use crate::cmd::Command;
use crate::cmd::args::globals::Globals;
use crate::manual::{self, Example, Manual};
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

impl Command for Args {
    const MANUAL: Manual = Manual {
        examples: &[Example {
            text: "Install the completions for bash",
            command: "lea completions bash > ~/.local/share/bash-completion/completions/lea",
        }],
        ..manual::EMPTY
    };

    fn run(self, _globals: &Globals) -> Result<Exit> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut cmd::tree(), "lea", &mut script);
        stdout::print(&String::from_utf8_lossy(&script))?;
        Ok(Exit::Done)
    }
}
