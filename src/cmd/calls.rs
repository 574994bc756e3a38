//! `lea calls`: the calls inside captures, and reports on call events. Runs in the main thread.

mod list;
mod report;
mod rows;
mod show;
mod split;
mod streams;
mod target;
mod wav;

use crate::cmd::args::globals::Globals;
use crate::cmd::{Command, commands};
use crate::manual::{self, Manual};
use crate::{Exit, Result};

/// See and hear the calls in captures, and report on call events
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: CallsCommand,
}

commands! {
    enum CallsCommand {
        "list" => List(list::Args),
        "show" => Show(show::Args),
        "rtp" => Rtp(streams::Args),
        "wav" => Wav(wav::Args),
        "split" => Split(split::Args),
        "report" => Report(report::Args),
    }
}

impl Command for Args {
    const MANUAL: Manual = Manual { subcommands: CallsCommand::MANUALS, ..manual::EMPTY };

    fn run(self, globals: &Globals) -> Result<Exit> {
        self.command.run(globals)
    }
}
