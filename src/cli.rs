//! The clap tree: help, man pages and completions all come from it.

use clap::{ArgAction, CommandFactory, Parser, Subcommand};

use crate::logging::{self, LevelFilter};
use crate::{Exit, Result, cmd, error};

/// The receiving end of lawful interception in a test or production lab.
///
/// Streams of captured calls come in over TCP and become files that can be read while they grow and proven
/// afterwards.
#[derive(Debug, Parser)]
#[command(name = "lea", version, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// Options of every subcommand.
#[derive(Clone, Debug, clap::Args)]
pub struct Globals {
    /// Log more: once for DEBUG
    #[arg(short, long, action = ArgAction::Count, global = true, conflicts_with = "quiet")]
    pub verbose: u8,
    /// Log less: once for warnings, twice for errors only
    #[arg(short, long, action = ArgAction::Count, global = true)]
    pub quiet: u8,
}

impl Globals {
    /// The level of the log: the flags, else what the configuration says.
    pub fn level(&self, configured: LevelFilter) -> LevelFilter {
        match (self.verbose, self.quiet) {
            (0, 0) => configured,
            (0, 1) => LevelFilter::Warn,
            (0, _) => LevelFilter::Error,
            (_, _) => LevelFilter::Debug,
        }
    }
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one, once a process")]
enum Command {
    Run(cmd::run::Args),
    ServeTcp(cmd::serve_tcp::Args),
    ServeEvents(cmd::serve_events::Args),
    ConsumeKafka(cmd::consume_kafka::Args),
    Configure(cmd::configure::Args),
    Events(cmd::events::Args),
    Ls(cmd::ls::Args),
    Verify(cmd::verify::Args),
    Replay(cmd::replay::Args),
    Decode(cmd::decode::Args),
    Merge(cmd::merge::Args),
    Search(cmd::search::Args),
    Count(cmd::count::Args),
    Top(cmd::top::Args),
    Calls(cmd::calls::Args),
    Billing(cmd::billing::Args),
    Number(cmd::number::Args),
    Completions(cmd::completions::Args),
    Man(cmd::man::Args),
}

impl Command {
    fn run(self, globals: &Globals) -> Result<Exit> {
        match self {
            Command::Run(args) => args.run(globals),
            Command::ServeTcp(args) => args.run(globals),
            Command::ServeEvents(args) => args.run(globals),
            Command::ConsumeKafka(args) => args.run(globals),
            Command::Configure(args) => args.run(globals),
            Command::Events(args) => args.run(globals),
            Command::Ls(args) => args.run(globals),
            Command::Verify(args) => args.run(globals),
            Command::Replay(args) => args.run(globals),
            Command::Decode(args) => args.run(globals),
            Command::Merge(args) => args.run(globals),
            Command::Search(args) => args.run(globals),
            Command::Count(args) => args.run(globals),
            Command::Top(args) => args.run(globals),
            Command::Calls(args) => args.run(globals),
            Command::Billing(args) => args.run(globals),
            Command::Number(args) => args.run(globals),
            Command::Completions(args) => args.run(globals),
            Command::Man(args) => args.run(globals),
        }
    }
}

/// The clap tree, for man pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Parses the command line, runs the subcommand, reports an error in one line.
pub fn main() -> Exit {
    // clap prints usage errors itself and exits with 2, the code of wrong usage here too.
    let cli = Cli::parse();
    match cli.command.run(&cli.globals) {
        Ok(exit) => exit,
        Err(error) => {
            logging::say(format_args!("lea: {}", error::chain(&error)));
            error.exit()
        }
    }
}
