//! The commands: one module per command with its arguments (clap), its manual and `run`. `args` has option groups that
//! several commands share, `output` writes tables, CSV and JSON lines.
//!
//! A new command is a module with `Args`, its [`Command`] implementation, and a line in the list below. Help, man pages,
//! completions and dispatch follow from that.

use clap::{CommandFactory, FromArgMatches, Parser};

use crate::manual::{EMPTY, Example, Manual};
use crate::{Exit, Result};
use args::globals::Globals;

pub(crate) mod args;
pub(crate) mod billing;
mod calls;
mod completions;
mod configure;
mod consume_kafka;
mod count;
mod decode;
mod events;
mod ls;
mod man;
mod mend;
mod merge;
mod number;
pub(crate) mod output;
mod replay;
mod run;
mod search;
mod serve_events;
mod serve_tcp;
mod tail;
mod top;
mod verify;

/// A command: its options, its manual, and what it does.
pub(crate) trait Command: clap::Args {
    /// The manual beyond the options.
    const MANUAL: Manual;

    /// Runs the command in the main thread.
    fn run(self, globals: &Globals) -> Result<Exit>;
}

/// Defines an enum of commands with their names, for clap, and with their manuals.
macro_rules! commands {
    ($vis:vis enum $enum:ident { $($name:literal => $variant:ident($args:ty)),+ $(,)? }) => {
        #[derive(Debug, clap::Subcommand)]
        #[allow(clippy::large_enum_variant, reason = "there is one value per process")]
        $vis enum $enum {
            $(#[command(name = $name)] $variant($args)),+
        }

        impl $enum {
            /// Names and manuals of the commands.
            $vis const MANUALS: &'static [(&'static str, &'static $crate::manual::Manual)] =
                &[$(($name, &<$args as $crate::cmd::Command>::MANUAL)),+];

            $vis fn run(self, globals: &$crate::cmd::args::globals::Globals) -> $crate::Result<$crate::Exit> {
                match self {
                    $($enum::$variant(args) => $crate::cmd::run_documented(args, globals)),+
                }
            }
        }
    };
}
pub(crate) use commands;

commands! {
    enum TopCommand {
        "run" => Run(run::Args),
        "serve-tcp" => ServeTcp(serve_tcp::Args),
        "serve-events" => ServeEvents(serve_events::Args),
        "consume-kafka" => ConsumeKafka(consume_kafka::Args),
        "configure" => Configure(configure::Args),
        "events" => Events(events::Args),
        "ls" => Ls(ls::Args),
        "verify" => Verify(verify::Args),
        "tail" => Tail(tail::Args),
        "mend" => Mend(mend::Args),
        "replay" => Replay(replay::Args),
        "decode" => Decode(decode::Args),
        "merge" => Merge(merge::Args),
        "search" => Search(search::Args),
        "count" => Count(count::Args),
        "top" => Top(top::Args),
        "calls" => Calls(calls::Args),
        "billing" => Billing(billing::Args),
        "number" => Number(number::Args),
        "completions" => Completions(completions::Args),
        "man" => Man(man::Args),
    }
}

/// The manual of `lea` itself.
const MANUAL: Manual = Manual {
    examples: &[
        Example { text: "Receive streams over TCP on port 5004", command: "lea serve-tcp" },
        Example { text: "List what was stored", command: "lea ls interceptions" },
        Example { text: "Find the events of a number", command: "lea search '\"+447700900123\"' --since 1d" },
    ],
    see_also: &["lea.conf(5)"],
    subcommands: TopCommand::MANUALS,
    ..EMPTY
};

/// Receives intercepted calls and call events, stores them, and searches them
///
/// lea is the receiving end (LEMF) of a lawful-interception interface. It stores each captured call as a pcap file with
/// a manifest that proves its integrity, stores call events in a searchable database, and answers queries about them.
#[derive(Debug, Parser)]
#[command(name = "lea", version, max_term_width = 100, arg_required_else_help = true)]
pub(crate) struct CommandLine {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: TopCommand,
}

impl CommandLine {
    /// Runs the command.
    pub(crate) fn run(self) -> Result<Exit> {
        self.command.run(&self.globals)
    }
}

/// Parses the command line. Prints help or a usage error and exits if there is nothing to run.
pub(crate) fn parse() -> CommandLine {
    let matches = tree().get_matches();
    CommandLine::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// Returns the clap tree with the manuals at the end of each `--help`.
pub(crate) fn tree() -> clap::Command {
    add_manual(CommandLine::command(), &MANUAL)
}

fn add_manual(command: clap::Command, manual: &'static Manual) -> clap::Command {
    let help = manual.help(&command);
    command.after_long_help(help).mut_subcommands(|subcommand| {
        match manual.subcommand(subcommand.get_name()) {
            Some(manual) => add_manual(subcommand, manual),
            None => subcommand,
        }
    })
}

/// Runs a command and checks that its manual has the exit code.
fn run_documented<C: Command>(command: C, globals: &Globals) -> Result<Exit> {
    let exit = command.run(globals)?;
    debug_assert!(C::MANUAL.documents(exit), "the manual lacks exit code {}", exit.code());
    Ok(exit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_command(command: &clap::Command, manual: &Manual) {
        let name = command.get_name();
        assert!(command.get_about().is_some(), "{name} has no description");
        for subcommand in command.get_subcommands().filter(|subcommand| subcommand.get_name() != "help") {
            let manual = manual.subcommand(subcommand.get_name());
            check_command(subcommand, manual.unwrap_or_else(|| panic!("{name} {subcommand} has no manual")));
        }
        let is_shown = !command.is_hide_set() && !command.has_subcommands();
        assert!(!is_shown || (1..=3).contains(&manual.examples.len()), "{name} has 1 to 3 examples");
    }

    #[test]
    fn each_command_has_a_manual_with_examples() {
        check_command(&tree(), &MANUAL);
        tree().debug_assert();
    }

    fn examples(manual: &'static Manual) -> Vec<&'static str> {
        let below = manual.subcommands.iter().flat_map(|(_, manual)| examples(manual));
        manual.examples.iter().map(|example| example.command).chain(below).collect()
    }

    /// Splits a command line at blanks outside single quotes.
    fn split(line: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        let mut is_quoted = false;
        for c in line.chars() {
            match c {
                '\'' => is_quoted = !is_quoted,
                ' ' if !is_quoted => words.push(String::new()),
                c => words.last_mut().unwrap().push(c),
            }
        }
        words
    }

    #[test]
    fn each_example_is_a_valid_command_line() {
        for example in examples(&MANUAL) {
            let command = &example[example.find("lea ").unwrap_or_else(|| panic!("{example}"))..];
            let words = split(command.split(" | ").next().unwrap().split(" > ").next().unwrap());
            let words = words.iter().take_while(|word| *word != "<");
            if let Err(error) = tree().try_get_matches_from(words) {
                panic!("{example}: {error}");
            }
        }
    }

    #[test]
    fn related_pages_exist() {
        fn names(command: &clap::Command, prefix: &str) -> Vec<String> {
            let name = format!("{prefix}{}", command.get_name());
            let below = command.get_subcommands().flat_map(|below| names(below, &format!("{name}-")));
            std::iter::once(name.clone()).chain(below).collect()
        }
        fn pages(manual: &'static Manual) -> Vec<&'static str> {
            let below = manual.subcommands.iter().flat_map(|(_, manual)| pages(manual));
            manual.see_also.iter().copied().chain(below).collect()
        }
        let known = names(&tree(), "");
        for page in pages(&MANUAL).into_iter().filter(|page| *page != "lea.conf(5)") {
            let name = page.strip_suffix("(1)").unwrap_or_else(|| panic!("{page}"));
            assert!(known.iter().any(|known| known == name), "{page} does not exist");
        }
    }
}
