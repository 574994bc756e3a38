//! `lea events`: follow, load, export and delete events, test patterns, create password hashes.

mod export;
mod hash_password;
mod line;
pub(crate) mod load;
mod purge;
pub(crate) mod tail;
mod test_pattern;

use crate::cmd::args::globals::Globals;
use crate::cmd::{Command, commands};
use crate::manual::{self, Manual};
use crate::{Exit, Result};

commands! {
    enum EventsCommand {
        "tail" => Tail(tail::Args),
        "load" => Load(load::Args),
        "export" => Export(export::Args),
        "purge" => Purge(purge::Args),
        "test-pattern" => TestPattern(test_pattern::Args),
        "hash-password" => HashPassword(hash_password::Args),
    }
}

/// Follow, load, export and delete events, test patterns, create password hashes
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: EventsCommand,
}

impl Command for Args {
    const MANUAL: Manual = Manual { subcommands: EventsCommand::MANUALS, ..manual::EMPTY };

    fn run(self, globals: &Globals) -> Result<Exit> {
        self.command.run(globals)
    }
}
