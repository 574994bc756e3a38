//! Options that choose event sources. They are built from the list of sources.

use std::sync::Arc;

use clap::builder::ValueParser;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::daemon::sources::{IngestSource, SOURCES, SourceKind};

/// The event sources that options choose.
#[derive(Debug, Default)]
pub(crate) struct SourceArgs(Vec<Arc<dyn IngestSource>>);

impl SourceArgs {
    pub(crate) fn into_sources(self) -> Vec<Arc<dyn IngestSource>> {
        self.0
    }

    /// Returns the options for a message: `--lines, --syslog or --http`.
    pub(crate) fn option_list() -> String {
        let options: Vec<String> = SOURCES.iter().map(|kind| format!("--{}", kind.options[0].long)).collect();
        let (last, others) = options.split_last().expect("the list of sources is not empty");
        format!("{} or {last}", others.join(", "))
    }
}

impl clap::Args for SourceArgs {
    fn augment_args(command: Command) -> Command {
        command.args(SOURCES.iter().flat_map(|kind| args(kind)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        SourceArgs::augment_args(command)
    }
}

/// Returns the options of a kind of source. Several options are only valid together.
fn args(kind: &'static SourceKind) -> Vec<Arg> {
    let arg = |option: &'static crate::daemon::sources::SourceOption| {
        let mut arg = Arg::new(option.long)
            .long(option.long)
            .value_name(option.value_name)
            .help(option.help)
            .action(if kind.is_list { ArgAction::Append } else { ArgAction::Set });
        if let Some(variable) = option.env {
            arg = arg.env(variable).hide_env_values(true);
        }
        let others = kind.options.iter().filter(|other| other.long != option.long);
        others.fold(arg, |arg, other| arg.requires(other.long))
    };
    match kind.options {
        [option] => {
            let parse = |text: &str| (kind.parse)(&[text]).map(|_| text.to_owned());
            vec![arg(option).value_parser(ValueParser::from(move |text: &str| parse(text)))]
        }
        options => options.iter().map(arg).collect(),
    }
}

impl clap::FromArgMatches for SourceArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<SourceArgs, clap::Error> {
        let mut sources = Vec::new();
        for kind in SOURCES {
            for values in given_values(kind, matches) {
                let values: Vec<&str> = values.iter().map(String::as_str).collect();
                let source = (kind.parse)(&values).map_err(|why| {
                    let text = format!("--{}: {why}\n", kind.options[0].long);
                    clap::Error::raw(ErrorKind::ValueValidation, text)
                })?;
                sources.push(source);
            }
        }
        Ok(SourceArgs(sources))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = SourceArgs::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Returns the values of the options of a kind, one list for each source.
fn given_values(kind: &SourceKind, matches: &ArgMatches) -> Vec<Vec<String>> {
    let of = |long: &str| matches.get_many::<String>(long).into_iter().flatten().cloned();
    match kind.options {
        [option] => of(option.long).map(|value| vec![value]).collect(),
        options => {
            let values: Vec<String> = options.iter().flat_map(|option| of(option.long)).collect();
            if values.is_empty() { Vec::new() } else { vec![values] }
        }
    }
}
