//! The command line: the clap tree, from which help, man pages and completions are generated, and the entry point.

use clap::{ArgAction, CommandFactory, Parser, Subcommand};

use crate::runtime::logging::{self, LevelFilter};
use crate::{Exit, Result, cmd, error};

/// Receives intercepted calls and call events, stores them, and searches them
///
/// lea is the receiving end (LEMF) of a lawful-interception interface. It stores each captured call as a pcap file with
/// a manifest that proves its integrity, stores call events in a searchable database, and answers queries about them.
#[derive(Debug, Parser)]
#[command(name = "lea", version, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// The options that every subcommand accepts.
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
    /// Returns the log level: from -v and -q if given, else from the configuration.
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
#[allow(clippy::large_enum_variant, reason = "one value per process")]
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

/// Returns the clap tree, for man pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Parses the command line, runs the subcommand and reports an error in one line.
pub fn main() -> Exit {
    // clap prints usage errors itself and exits with 2, which is also `Exit::Usage`.
    let cli = Cli::parse();
    match cli.command.run(&cli.globals) {
        Ok(exit) => exit,
        Err(error) => {
            logging::status_line(format_args!("lea: {}", error::chain(&error)));
            error.exit()
        }
    }
}
