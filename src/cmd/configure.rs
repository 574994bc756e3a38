//! `lea configure`: writes, checks and prints the configuration.
//!
//! Runs in the main thread. Invariant: the configuration file is replaced atomically, and only by a text that passed the
//! same checks as at each start of `lea`.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::output::stdout;
use super::output::table::{self, Column};
use crate::cmd::Command;
use crate::cmd::args::config::ConfigArgs;
use crate::cmd::args::globals::Globals;
use crate::config::edit::{self, Change};
use crate::config::{
    self, ConfigKey, ConfigLayers, EffectiveConfig, FileLayer, Finding, Template, ValueOrigin,
};
use crate::daemon::settings::{EventSettings, Settings};
use crate::manual::{self, Example, Manual, Note};
use crate::runtime::logging::{self, LevelFilter};
use crate::{Error, Exit, Result};

/// Write, check or print the configuration file
///
/// If the file exists, the command changes only the values that a flag or --set names, and keeps the old file as FILE.bak. If
/// the file does not exist, or with --template, it writes the file from a template: each value comes from its flag, else
/// from its environment variable, else from the default. Nothing is written unless every value is valid. An empty address or
/// port 0 turns a receiver off.
#[derive(clap::Args, Debug)]
#[command(args_override_self = true)]
pub(crate) struct Args {
    /// Log level: DEBUG, INFO, WARN or ERROR [env: LOGGERLEVEL] [default: DEBUG]
    #[arg(short = 'd', long, value_name = "LEVEL", allow_hyphen_values = true)]
    logger_level: Option<String>,
    /// Address of the TCP listener for streams; empty: off [env: TCPSERVERADDRESS] [default: 0.0.0.0]
    #[arg(short = 't', long, value_name = "ADDR", allow_hyphen_values = true)]
    tcp_address: Option<String>,
    /// Port of the TCP listener for streams; 0: off [env: TCPSERVERPORT] [default: 5004]
    #[arg(short = 'u', long, value_name = "PORT", allow_hyphen_values = true)]
    tcp_port: Option<String>,
    /// Address of the Kafka broker; empty: off [env: KAFKAADDRESS] [default: empty]
    #[arg(short = 'g', long, value_name = "ADDR", allow_hyphen_values = true)]
    kafka_address: Option<String>,
    /// Port of the Kafka broker; 0: off [env: KAFKAPORT] [default: 5002]
    #[arg(short = 'k', long, value_name = "PORT", allow_hyphen_values = true)]
    kafka_port: Option<String>,
    /// Kafka topic to consume [env: KAFKATOPIC] [default: interception]
    #[arg(short = 'w', long, value_name = "TOPIC", allow_hyphen_values = true)]
    kafka_topic: Option<String>,

    /// Set any key, such as events.http=9200; a VALUE that starts with {, [ or " is JSON; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = Change::parse)]
    set: Vec<Change>,

    #[command(flatten)]
    config: ConfigArgs,
    /// Template of the configuration file [default: config/base.conf, else a built-in one]
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// Report every error in FILE with line and column; exit with 2 if there is one [default FILE: that of --config]
    #[arg(long, value_name = "FILE", num_args = 0..=1, conflicts_with = "print")]
    check: Option<Option<PathBuf>>,
    /// Print the effective configuration and where each value comes from
    #[arg(long)]
    print: bool,
    /// Print JSON
    #[arg(long, requires = "print")]
    json: bool,

    #[command(flatten)]
    ignored: Ignored,
}

/// Flags that the original configure script accepted and ignored. Existing command lines use them.
#[derive(clap::Args, Debug)]
struct Ignored {
    #[arg(short = 'i', hide = true, allow_hyphen_values = true)]
    i: Option<String>,
    #[arg(short = 'p', hide = true, allow_hyphen_values = true)]
    p: Option<String>,
    #[arg(short = 'b', hide = true, allow_hyphen_values = true)]
    b: Option<String>,
    #[arg(short = 'e', hide = true, allow_hyphen_values = true)]
    e: Option<String>,
    #[arg(short = 'f', hide = true, allow_hyphen_values = true)]
    f: Option<String>,
}

impl Command for Args {
    const MANUAL: Manual = Manual {
        files: &[&[Note {
            name: "config/base.conf",
            text: "Template; if it does not exist, a built-in one is used.",
        }]],
        reads_configuration: true,
        examples: &[
            Example { text: "Receive streams on TCP port 25104", command: "lea configure --tcp-port 25104" },
            Example { text: "Check the configuration file", command: "lea configure --check" },
            Example { text: "Print the effective configuration", command: "lea configure --print" },
        ],
        see_also: &["lea.conf(5)", "lea-run(1)"],
        ..manual::EMPTY
    };

    fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Info));
        let named = self.config.config.as_deref();
        let place = named.unwrap_or(Path::new(config::FILE_DEFAULT));
        match &self.check {
            Some(file) => self.check(file.as_deref().unwrap_or(place)),
            None if self.print => self.print(named),
            None if self.template.is_none() && place.exists() => self.change(place),
            None => self.write(place),
        }
    }
}

impl Args {
    /// Returns the values given on the command line.
    fn flags(&self) -> Vec<(&'static ConfigKey, String)> {
        let flags = [
            (&config::LOGGER_LEVEL, &self.logger_level),
            (&config::TCP_ADDRESS, &self.tcp_address),
            (&config::TCP_PORT, &self.tcp_port),
            (&config::KAFKA_ADDRESS, &self.kafka_address),
            (&config::KAFKA_PORT, &self.kafka_port),
            (&config::KAFKA_TOPIC, &self.kafka_topic),
        ];
        flags.into_iter().filter_map(|(key, text)| Some((key, text.clone()?))).collect()
    }

    /// Changes the values in the file that are given.
    fn change(&self, place: &Path) -> Result<Exit> {
        let invalid = |reason| Error::Config { path: place.to_owned(), reason };
        let flags = self.flags();
        let (_, errors) = config::resolve(&ConfigLayers {
            flags: &flags,
            env: &|_| None,
            file: None,
            is_lenient: self.config.lenient,
        });
        config::fail_on_findings(None, &errors)?;
        let named = flags.iter().map(|(key, text)| Change::of_text(key.path, &normalized(key, text)));
        let changes: Vec<Change> = named.chain(self.set.iter().cloned()).collect();
        let old = config::read_config_text(place)?;
        let new = edit::apply(&old, &changes).map_err(|reason| {
            invalid(format!("{reason} (--template writes a new file, and keeps the old one as FILE.bak)"))
        })?;
        let effective = self.check_text(place, &new)?;
        if new == old {
            log::info!("configuration_unchanged file={place:?}");
            return Ok(Exit::Done);
        }
        config::replace_file(place, &new, true)?;
        log_written(place, &effective);
        Ok(Exit::Done)
    }

    /// Writes the file from a template.
    fn write(&self, place: &Path) -> Result<Exit> {
        let flags = self.flags();
        let layers = ConfigLayers {
            flags: &flags,
            env: &config::environment,
            file: None,
            is_lenient: self.config.lenient,
        };
        let (wanted, errors) = config::resolve(&layers);
        config::fail_on_findings(None, &errors)?;
        let template = Template::load(self.template.as_deref())?;
        for (key, _) in flags.iter().filter(|(key, _)| !template.has_placeholder(key)) {
            let ConfigKey { flag, variable, .. } = key;
            log::warn!(
                "flag_without_placeholder flag={flag} placeholder=@{variable} template={:?}",
                template.path
            );
        }
        let filled = template.fill(&wanted.values);
        let text = edit::apply(&filled, &self.set).map_err(|reason| Error::Config {
            path: template.path.clone(),
            reason: format!("the filled-in template is invalid: {reason}"),
        })?;
        let effective = self.check_text(&template.path, &text).map_err(|error| match error {
            Error::Config { path, reason } => {
                Error::Config { path, reason: format!("the filled-in template is invalid: {reason}") }
            }
            error => error,
        })?;
        config::replace_file(place, &text, true)?;
        log_written(place, &effective);
        Ok(Exit::Done)
    }

    /// Checks a text as a start of `lea` would. Findings are reported with `path`.
    fn check_text(&self, path: &Path, text: &str) -> Result<EffectiveConfig> {
        let mut file = FileLayer::parse(path, text.as_bytes());
        let (settings, errors) = self.resolve_file(&mut file);
        config::fail_on_findings(Some(&file), &errors)?;
        settings.config.log_warnings();
        Ok(settings.config)
    }

    fn resolve_file(&self, file: &mut FileLayer) -> (Settings, Vec<Finding>) {
        let events = EventSettings::read(file);
        let is_lenient = self.config.lenient;
        let layers = ConfigLayers { flags: &[], env: &|_| None, file: Some(file), is_lenient };
        let (config, errors) = config::resolve(&layers);
        (Settings { config, events }, errors)
    }

    /// Prints one line per finding as `FILE:LINE:COLUMN: ...`, which editors can jump to, or a summary.
    fn check(&self, place: &Path) -> Result<Exit> {
        let mut file = FileLayer::read(place)?;
        let (settings, errors) = self.resolve_file(&mut file);
        let mut findings: Vec<_> = errors.iter().map(|error| (error, "error")).collect();
        findings.extend(settings.config.warnings.iter().map(|warning| (warning, "warning")));
        findings.sort_by_key(|(finding, _)| finding.origin);
        let mut text = String::new();
        for (Finding { origin, text: what }, severity) in findings {
            text += &format!("{}: {severity}: {what}\n", location(*origin, Some(place)));
        }
        if errors.is_empty() {
            text += &format!("{}: OK: {}\n", place.display(), settings.summary());
        }
        stdout::print(&text)?;
        Ok(if errors.is_empty() { Exit::Done } else { Exit::Usage })
    }

    fn print(&self, named: Option<&Path>) -> Result<Exit> {
        let mut file = config::read_layer(named)?;
        let events = file.as_mut().map(EventSettings::read).unwrap_or_default();
        let flags = self.flags();
        let layers = ConfigLayers {
            flags: &flags,
            env: &config::environment,
            file: file.as_ref(),
            is_lenient: self.config.lenient,
        };
        let (config, errors) = config::resolve(&layers);
        config::fail_on_findings(file.as_ref(), &errors)?;
        config.log_warnings();
        let settings = Settings { config, events };
        let rows = rows(&settings, file.as_ref());
        if self.json { print_json(&settings.config, &rows) } else { print_table(&settings.config, &rows) }?;
        Ok(Exit::Done)
    }
}

/// A port without leading zeros and a level in capitals, as the file has them.
fn normalized(key: &'static ConfigKey, text: &str) -> String {
    let layers =
        ConfigLayers { flags: &[(key, text.to_owned())], env: &|_| None, file: None, is_lenient: true };
    let (effective, _) = config::resolve(&layers);
    let value = effective.values.iter().find(|value| value.key == key);
    value.map_or_else(|| text.to_owned(), |value| value.text.clone())
}

fn log_written(place: &Path, effective: &EffectiveConfig) {
    log::info!(
        "configuration_written file={place:?} logger_level={} tcp={} kafka={}",
        effective.logger_level,
        effective.tcp_text(),
        effective.kafka_text()
    );
}

/// A value of the effective configuration: key, text and origin.
type Row = (String, String, ValueOrigin);

/// Returns all values, those of `numbers` and `events` included.
fn rows(settings: &Settings, file: Option<&FileLayer>) -> Vec<Row> {
    let values = settings
        .config
        .values
        .iter()
        .map(|value| (value.key.path.to_owned(), value.text.clone(), value.origin));
    let sections = settings.section_values().into_iter().map(|(path, text)| {
        let origin = file.and_then(|file| file.origin_of(&path)).unwrap_or(ValueOrigin::Default);
        (path, text, origin)
    });
    values.chain(sections).collect()
}

fn print_table(effective: &EffectiveConfig, rows: &[Row]) -> Result<()> {
    let columns =
        [Column::new("KEY").whole(), Column::new("VALUE"), Column::new("FROM").shortened_to(20).dropped(1)];
    let cells = |(key, text, origin): &Row| {
        let text = if text.is_empty() { "-".to_owned() } else { text.clone() };
        vec![key.clone(), text, location(*origin, effective.file.as_deref())]
    };
    table::print(&columns, &rows.iter().map(cells).collect::<Vec<_>>())
}

fn print_json(effective: &EffectiveConfig, rows: &[Row]) -> Result<()> {
    let value = |(key, text, origin): &Row| {
        let from = match origin {
            ValueOrigin::Flag(flag) => json!({ "layer": "flag", "name": flag }),
            ValueOrigin::Environment(variable) => json!({ "layer": "environment", "name": variable }),
            ValueOrigin::File { line, column } => json!({ "layer": "file", "line": line, "column": column }),
            ValueOrigin::Default => json!({ "layer": "default" }),
        };
        json!({ "key": key, "value": text, "from": from })
    };
    let values: Vec<_> = rows.iter().map(value).collect();
    let file = effective.file.as_ref().map(|file| file.to_string_lossy());
    stdout::print(&format!("{:#}\n", json!({ "file": file, "values": values }))).map(drop)
}

/// Formats an origin; a place in the file is `FILE:LINE:COLUMN`.
fn location(origin: ValueOrigin, file: Option<&Path>) -> String {
    match (origin, file) {
        (ValueOrigin::File { line, column }, Some(file)) => format!("{}:{line}:{column}", file.display()),
        _ => origin.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use crate::{cmd, config};

    #[test]
    fn the_help_names_each_flag_s_variable_and_default() {
        let command = cmd::tree();
        let configure = command.find_subcommand("configure").unwrap();
        for key in config::KEYS {
            let flag = configure.get_arguments().find(|arg| arg.get_long() == key.flag.strip_prefix("--"));
            let help = flag.unwrap().get_help().unwrap().to_string();
            let default = if key.default.is_empty() { "empty" } else { key.default };
            let names = format!("[env: {}] [default: {default}]", key.variable);
            assert!(help.ends_with(&names), "{help}");
        }
    }
}
