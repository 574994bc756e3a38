//! Manuals of commands: what `--help` and the man pages say beyond the options. Pure.
//!
//! Each command has one [`Manual`]; nothing in it is repeated anywhere else. Variables of options come from the clap tree,
//! those of the configuration from `config::KEYS`.

use std::fmt::Write as _;

use clap::builder::StyledStr;
use clap::builder::styling::Style;

use crate::Exit;
use crate::config::{FILE_DEFAULT, KEYS};

/// What the documentation of a command says beyond its options.
#[derive(Debug)]
pub(crate) struct Manual {
    /// Meaning of exit status 0.
    pub(crate) success: &'static str,
    /// Exit codes besides 0, 1 (failure) and 2 (wrong usage), with their meanings.
    pub(crate) exits: &'static [(Exit, &'static str)],
    /// Groups of files that the command reads or writes.
    pub(crate) files: &'static [&'static [Note]],
    /// True if the command reads the configuration file and the environment variables of its keys.
    pub(crate) reads_configuration: bool,
    /// Environment variables that belong neither to an option nor to the configuration.
    pub(crate) environment: &'static [Note],
    /// Command lines with a description.
    pub(crate) examples: &'static [Example],
    /// Related pages besides lea(1): `lea-ls(1)`, `lea.conf(5)`.
    pub(crate) see_also: &'static [&'static str],
    /// Manuals of the subcommands, by name.
    pub(crate) subcommands: &'static [(&'static str, &'static Manual)],
}

/// A file or an environment variable, with its meaning.
#[derive(Debug)]
pub(crate) struct Note {
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
}

/// A command line and what it does.
#[derive(Debug)]
pub(crate) struct Example {
    pub(crate) text: &'static str,
    pub(crate) command: &'static str,
}

/// A manual with no content, as the base of others: `Manual { examples: &[..], ..EMPTY }`.
pub(crate) const EMPTY: Manual = Manual {
    success: "Success.",
    exits: &[],
    files: &[],
    reads_configuration: false,
    environment: &[],
    examples: &[],
    see_also: &[],
    subcommands: &[],
};

/// Exit status 0 of a server.
pub(crate) const SERVER_SUCCESS: &str = "Success: shut down by a signal; everything received is stored.";

/// Exit code 3 of a batch command.
pub(crate) const INCOMPLETE: (Exit, &str) =
    (Exit::Incomplete, "Finished, but some input was rejected, differs or is missing.");

/// Exit code 130 of a command that shuts down in order.
pub(crate) const INTERRUPTED: (Exit, &str) = (Exit::Interrupted, "Interrupted by a second signal.");

/// Files of an output directory.
pub(crate) const OUTPUT_FILES: &[Note] = &[
    Note { name: "DIR/NAME", text: "Content of the stream NAME, byte for byte as received." },
    Note {
        name: "DIR/NAME.N",
        text: "Part N of the stream NAME: a later stream of the same name with different content.",
    },
    Note { name: "DIR/NAME.lea.json", text: "Manifest of the stream: sender, times, size and SHA-256." },
    Note { name: "DIR/.lea/", text: "Data of lea: lock, journal of open streams, checkpoints." },
];

/// Files of the dead letters of streams.
pub(crate) const DEAD_LETTER_FILES: &[Note] = &[Note {
    name: "DIR/.lea/dead-letters.jsonl",
    text: "Rejected Kafka records with the reason; `lea decode` reads them again.",
}];

/// Files of events in an output directory.
pub(crate) const EVENT_FILES: &[Note] = &[
    Note { name: "DIR/.lea/events.db", text: "Event store." },
    Note {
        name: "DIR/.lea/event-dead-letters.jsonl",
        text: "Rejected events with the reason; `lea events load` reads them again.",
    },
    Note {
        name: "DIR/.lea/spool/",
        text: "Events that the cluster has not acknowledged yet (with --cluster).",
    },
];

/// The event store, for commands that query it.
pub(crate) const EVENT_STORE_FILES: &[Note] = &[Note { name: "DIR/.lea/events.db", text: "Event store." }];

/// The index of calls beside captures.
pub(crate) const CALL_INDEX_FILES: &[Note] = &[
    Note { name: "DIR/.lea/calls/", text: "Results of the analysis of calls, per capture; can be deleted." },
    Note {
        name: "$XDG_CACHE_HOME/lea/calls/",
        text: "The same for captures in directories without .lea, and in those that cannot be written.",
    },
];

/// Environment variable of times.
pub(crate) const TIME_ZONE_VARIABLE: Note =
    Note { name: "TZ", text: "Time zone of the system, used by `--time-zone local`." };

/// The base of the manuals of commands that query events.
pub(crate) const EVENT_QUERY: Manual = Manual {
    files: &[EVENT_STORE_FILES],
    reads_configuration: true,
    environment: &[TIME_ZONE_VARIABLE],
    ..EMPTY
};

/// Environment variable of tables.
pub(crate) const NO_COLOR_VARIABLE: Note =
    Note { name: "NO_COLOR", text: "If set and not empty, tables have no colours." };

impl Manual {
    /// Returns the manual of a subcommand.
    pub(crate) fn subcommand(&self, name: &str) -> Option<&'static Manual> {
        self.subcommands.iter().find(|(known, _)| *known == name).map(|(_, manual)| *manual)
    }

    /// Returns true if the manual documents an exit code, itself or in a subcommand.
    pub(crate) fn documents(&self, exit: Exit) -> bool {
        matches!(exit, Exit::Done | Exit::Failed | Exit::Usage)
            || self.exits.iter().any(|(known, _)| *known == exit)
            || self.subcommands.iter().any(|(_, manual)| manual.documents(exit))
    }

    /// Returns all exit codes with their meanings, those of subcommands included.
    pub(crate) fn exit_codes(&self) -> Vec<(u8, &'static str)> {
        let mut codes = vec![
            (Exit::Done.code(), self.success),
            (Exit::Failed.code(), "Failure; the reason is on stderr."),
            (Exit::Usage.code(), "Wrong usage or configuration; nothing was started or changed."),
        ];
        let mut add = |exit: Exit, text| {
            if !codes.iter().any(|(code, _)| *code == exit.code()) {
                codes.push((exit.code(), text));
            }
        };
        self.exits.iter().for_each(|(exit, text)| add(*exit, text));
        for (exit, text) in [INCOMPLETE, INTERRUPTED] {
            if self.documents(exit) {
                add(exit, text);
            }
        }
        codes.sort_unstable_by_key(|(code, _)| *code);
        codes
    }

    /// Returns all files that the command reads or writes.
    pub(crate) fn all_files(&self) -> Vec<(&'static str, &'static str)> {
        let configuration =
            self.reads_configuration.then_some((FILE_DEFAULT, "Configuration; see lea.conf(5)."));
        let files = self.files.iter().flat_map(|group| group.iter()).map(|note| (note.name, note.text));
        configuration.into_iter().chain(files).collect()
    }

    /// Returns all environment variables that the command reads, those of its options included.
    pub(crate) fn all_variables(&self, command: &clap::Command) -> Vec<(String, String)> {
        let mut variables: Vec<(String, String)> = Vec::new();
        for argument in command.get_arguments() {
            if let (Some(variable), Some(option)) = (argument.get_env(), argument.get_long()) {
                variables.push((variable.to_string_lossy().into_owned(), format!("Value of --{option}.")));
            }
        }
        if self.reads_configuration {
            variables.extend(KEYS.iter().map(|key| {
                let default = if key.default.is_empty() { "empty" } else { key.default };
                (
                    key.variable.to_owned(),
                    format!("Overrides {} of the configuration (default: {default}).", key.path),
                )
            }));
        }
        variables.extend(self.environment.iter().map(|note| (note.name.to_owned(), note.text.to_owned())));
        variables
    }

    /// Renders the end of `--help`: exit codes, files, environment variables and examples.
    pub(crate) fn help(&self, command: &clap::Command) -> StyledStr {
        let mut help = String::new();
        let codes = self.exit_codes().into_iter().map(|(code, text)| (code.to_string(), text.to_owned()));
        add_list(&mut help, "Exit status", &codes.collect::<Vec<_>>());
        let files = self.all_files().into_iter().map(|(name, text)| (name.to_owned(), text.to_owned()));
        add_list(&mut help, "Files", &files.collect::<Vec<_>>());
        add_list(&mut help, "Environment", &self.all_variables(command));
        if !self.examples.is_empty() {
            add_heading(&mut help, "Examples");
            for Example { text, command } in self.examples {
                // Writing to a String cannot fail.
                let _ = writeln!(help, "  {text}:\n      {command}");
            }
        }
        StyledStr::from(help.trim_end().to_owned())
    }
}

/// Adds a heading as clap formats its own.
fn add_heading(help: &mut String, heading: &str) {
    let style = Style::new().bold().underline();
    if !help.is_empty() {
        help.push('\n');
    }
    let _ = writeln!(help, "{style}{heading}:{style:#}");
}

/// Adds a heading and one line per entry, if there is one.
fn add_list(help: &mut String, heading: &str, entries: &[(String, String)]) {
    if entries.is_empty() {
        return;
    }
    add_heading(help, heading);
    let width = entries.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, text) in entries {
        let _ = writeln!(help, "  {name:width$}  {text}");
    }
}
