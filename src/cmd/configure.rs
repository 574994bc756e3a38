//! `lea configure`: writes, checks and shows the configuration.
//!
//! One thread. Invariant: the configuration file is replaced as a whole, and only by a text that passed the same
//! check as every start of `lea`.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::cli::Globals;
use crate::config::{self, Effective, FileLayer, Finding, Key, Layers, Origin, Template};
use crate::logging::{self, LevelFilter};
use crate::{Error, Exit, Result, cmd};

/// Write, check or show the configuration file
///
/// Without --check or --print it writes the file from a template: each value comes from its flag, else from the
/// environment, else it is the default; what the old file says does not count. Nothing is written unless all of it
/// is right. An empty address or the port 0 turns a receiver off.
#[derive(clap::Args, Debug)]
#[command(args_override_self = true)]
pub struct Args {
    /// Log level: DEBUG, INFO, WARN or ERROR [env: LOGGERLEVEL] [default: DEBUG]
    #[arg(short = 'd', long, value_name = "LEVEL", allow_hyphen_values = true)]
    logger_level: Option<String>,
    /// Address to receive streams over TCP on; empty: off [env: TCPSERVERADDRESS] [default: 0.0.0.0]
    #[arg(short = 't', long, value_name = "ADDR", allow_hyphen_values = true)]
    tcp_address: Option<String>,
    /// Port to receive streams over TCP on; 0: off [env: TCPSERVERPORT] [default: 5004]
    #[arg(short = 'u', long, value_name = "PORT", allow_hyphen_values = true)]
    tcp_port: Option<String>,
    /// Address of the Kafka broker; empty: off [env: KAFKAADDRESS] [default: empty]
    #[arg(short = 'g', long, value_name = "ADDR", allow_hyphen_values = true)]
    kafka_address: Option<String>,
    /// Port of the Kafka broker; 0: off [env: KAFKAPORT] [default: 5002]
    #[arg(short = 'k', long, value_name = "PORT", allow_hyphen_values = true)]
    kafka_port: Option<String>,
    /// Kafka topic to read [env: KAFKATOPIC] [default: interception]
    #[arg(short = 'w', long, value_name = "TOPIC", allow_hyphen_values = true)]
    kafka_topic: Option<String>,

    /// Configuration file [default: config/configurationFile.conf]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Template to fill in [default: config/base.conf, else the built-in one]
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// Read a file (default: that of --config), say everything that is wrong with line and column; exit code 2 if
    /// anything is
    #[arg(long, value_name = "FILE", num_args = 0..=1, conflicts_with = "print")]
    check: Option<Option<PathBuf>>,
    /// Show the configuration in effect and where each value comes from
    #[arg(long)]
    print: bool,
    /// Show it as JSON
    #[arg(long, requires = "print")]
    json: bool,

    #[command(flatten)]
    ignored: Ignored,
}

/// Flags that the old script took and ignored; command lines in use have them.
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

impl Args {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Info));
        let named = self.config.as_deref();
        let place = named.unwrap_or(Path::new(config::FILE_DEFAULT));
        match &self.check {
            Some(file) => check(file.as_deref().unwrap_or(place)),
            None if self.print => print(named, &self.flags(), self.json),
            None => write(place, self.template.as_deref(), &self.flags()),
        }
    }

    /// The values that are given on the command line.
    fn flags(&self) -> Vec<(&'static Key, String)> {
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
}

fn write(place: &Path, template: Option<&Path>, flags: &[(&'static Key, String)]) -> Result<Exit> {
    let (wanted, errors) = config::resolve(&Layers { flags, env: &config::environment, file: None });
    config::refuse(None, &errors)?;
    let template = Template::load(template)?;
    for (key, _) in flags.iter().filter(|(key, _)| !template.has(key)) {
        let Key { flag, variable, .. } = key;
        log::warn!("flag_without_place flag={flag} placeholder=@{variable} template={:?}", template.path);
    }
    let text = template.fill(&wanted.values);
    let written = check_filled(&template.path, &text)?;
    config::replace(place, &text)?;
    written.log_warnings();
    log::info!(
        "configured file={place:?} logger_level={} tcp={} kafka={}",
        written.logger_level,
        written.tcp_word(),
        written.kafka_word()
    );
    Ok(Exit::Done)
}

/// What a start of `lea` would make of the text. Lines and columns are those after filling in.
fn check_filled(template: &Path, text: &str) -> Result<Effective> {
    let file = FileLayer::parse(template, text.as_bytes());
    let (effective, errors) = config::resolve(&Layers { flags: &[], env: &|_| None, file: Some(&file) });
    match config::refuse(Some(&file), &errors) {
        Ok(()) => Ok(effective),
        Err(Error::Config { path, reason }) => {
            Err(Error::Config { path, reason: format!("the template, filled in, is wrong: {reason}") })
        }
        Err(error) => Err(error),
    }
}

/// One line for each finding, in the form that editors jump to.
fn check(place: &Path) -> Result<Exit> {
    let file = FileLayer::read(place)?;
    let (effective, errors) = config::resolve(&Layers { flags: &[], env: &|_| None, file: Some(&file) });
    let mut findings: Vec<_> = errors.iter().map(|error| (error, "error")).collect();
    findings.extend(effective.warnings.iter().map(|warning| (warning, "warning")));
    findings.sort_by_key(|(finding, _)| finding.origin);
    let mut text = String::new();
    for (Finding { origin, text: what }, severity) in findings {
        text += &format!("{}: {severity}: {what}\n", place_of(*origin, Some(place)));
    }
    if text.is_empty() {
        text = format!("{}: nothing is wrong\n", place.display());
    }
    cmd::print_data(&text)?;
    Ok(if errors.is_empty() { Exit::Done } else { Exit::Usage })
}

fn print(named: Option<&Path>, flags: &[(&'static Key, String)], as_json: bool) -> Result<Exit> {
    let file = config::read_layer(named)?;
    let layers = Layers { flags, env: &config::environment, file: file.as_ref() };
    let (effective, errors) = config::resolve(&layers);
    config::refuse(file.as_ref(), &errors)?;
    effective.log_warnings();
    cmd::print_data(&if as_json { to_json(&effective) } else { to_table(&effective) })?;
    Ok(Exit::Done)
}

fn to_table(effective: &Effective) -> String {
    let rows = effective.values.iter().map(|value| {
        let text = if value.text.is_empty() { "-" } else { &value.text };
        (value.key.path, text, place_of(value.origin, effective.file.as_deref()))
    });
    let rows: Vec<_> = std::iter::once(("KEY", "VALUE", "FROM".to_owned())).chain(rows).collect();
    let width = |column: fn(&(&str, &str, String)) -> usize| rows.iter().map(column).max().unwrap_or(0);
    let (key_width, text_width) = (width(|row| row.0.len()), width(|row| row.1.len()));
    let line =
        |(key, text, from): &(&str, &str, String)| format!("{key:key_width$}  {text:text_width$}  {from}\n");
    rows.iter().map(line).collect()
}

fn to_json(effective: &Effective) -> String {
    let values: Vec<_> = effective
        .values
        .iter()
        .map(|value| {
            let from = match value.origin {
                Origin::Flag(flag) => json!({ "layer": "flag", "name": flag }),
                Origin::Environment(variable) => json!({ "layer": "environment", "name": variable }),
                Origin::File { line, column } => json!({ "layer": "file", "line": line, "column": column }),
                Origin::Default => json!({ "layer": "default" }),
            };
            json!({ "key": value.key.path, "value": value.text, "from": from })
        })
        .collect();
    let file = effective.file.as_ref().map(|file| file.to_string_lossy());
    format!("{:#}\n", json!({ "file": file, "values": values }))
}

/// `FILE:LINE:COLUMN` for what stands in the file.
fn place_of(origin: Origin, file: Option<&Path>) -> String {
    match (origin, file) {
        (Origin::File { line, column }, Some(file)) => format!("{}:{line}:{column}", file.display()),
        _ => origin.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use crate::{cli, config};

    #[test]
    fn the_help_names_each_flag_s_variable_and_default() {
        let command = cli::command();
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
