//! `lea configure`: writes, checks and prints the configuration.
//!
//! Runs in the main thread. Invariant: the configuration file is replaced atomically, and only by a text that passed the
//! same checks as at each start of `lea`.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::cli::Globals;
use crate::config::{
    self, ConfigKey, ConfigLayers, EffectiveConfig, FileLayer, Finding, Template, ValueOrigin,
};
use crate::daemon::settings::EventSettings;
use crate::runtime::logging::{self, LevelFilter};
use crate::{Error, Exit, Result, cmd};

/// Write, check or print the configuration file
///
/// Without --check or --print the command writes the file from a template. Each value comes from its flag, else from its
/// environment variable, else from the default. Nothing is written unless every value is valid. An empty address or port
/// 0 turns a receiver off.
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

    /// Configuration file [default: config/configurationFile.conf]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
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

impl Args {
    pub(crate) fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Info));
        let named = self.config.as_deref();
        let place = named.unwrap_or(Path::new(config::FILE_DEFAULT));
        match &self.check {
            Some(file) => check(file.as_deref().unwrap_or(place)),
            None if self.print => print(named, &self.flags(), self.json),
            None => write(place, self.template.as_deref(), &self.flags()),
        }
    }

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
}

fn write(place: &Path, template: Option<&Path>, flags: &[(&'static ConfigKey, String)]) -> Result<Exit> {
    let (wanted, errors) = config::resolve(&ConfigLayers { flags, env: &config::environment, file: None });
    config::fail_on_findings(None, &errors)?;
    let template = Template::load(template)?;
    for (key, _) in flags.iter().filter(|(key, _)| !template.has_placeholder(key)) {
        let ConfigKey { flag, variable, .. } = key;
        log::warn!("flag_without_place flag={flag} placeholder=@{variable} template={:?}", template.path);
    }
    let text = template.fill(&wanted.values);
    let written = check_filled(&template.path, &text)?;
    config::replace_file(place, &text)?;
    written.log_warnings();
    log::info!(
        "configured file={place:?} logger_level={} tcp={} kafka={}",
        written.logger_level,
        written.tcp_text(),
        written.kafka_text()
    );
    Ok(Exit::Done)
}

/// Checks a filled-in template as a start of `lea` would. Lines and columns refer to the filled-in text.
fn check_filled(template: &Path, text: &str) -> Result<EffectiveConfig> {
    let mut file = FileLayer::parse(template, text.as_bytes());
    EventSettings::read(&mut file);
    let (effective, errors) =
        config::resolve(&ConfigLayers { flags: &[], env: &|_| None, file: Some(&file) });
    match config::fail_on_findings(Some(&file), &errors) {
        Ok(()) => Ok(effective),
        Err(Error::Config { path, reason }) => {
            Err(Error::Config { path, reason: format!("the filled-in template is invalid: {reason}") })
        }
        Err(error) => Err(error),
    }
}

/// Prints one line per finding as `FILE:LINE:COLUMN: ...`, which editors can jump to.
fn check(place: &Path) -> Result<Exit> {
    let mut file = FileLayer::read(place)?;
    EventSettings::read(&mut file);
    let (effective, errors) =
        config::resolve(&ConfigLayers { flags: &[], env: &|_| None, file: Some(&file) });
    let mut findings: Vec<_> = errors.iter().map(|error| (error, "error")).collect();
    findings.extend(effective.warnings.iter().map(|warning| (warning, "warning")));
    findings.sort_by_key(|(finding, _)| finding.origin);
    let mut text = String::new();
    for (Finding { origin, text: what }, severity) in findings {
        text += &format!("{}: {severity}: {what}\n", location(*origin, Some(place)));
    }
    if text.is_empty() {
        text = format!("{}: nothing is wrong\n", place.display());
    }
    cmd::print_text(&text)?;
    Ok(if errors.is_empty() { Exit::Done } else { Exit::Usage })
}

fn print(named: Option<&Path>, flags: &[(&'static ConfigKey, String)], as_json: bool) -> Result<Exit> {
    let mut file = config::read_layer(named)?;
    file.as_mut().map(EventSettings::read);
    let layers = ConfigLayers { flags, env: &config::environment, file: file.as_ref() };
    let (effective, errors) = config::resolve(&layers);
    config::fail_on_findings(file.as_ref(), &errors)?;
    effective.log_warnings();
    cmd::print_text(&if as_json { to_json(&effective) } else { to_table(&effective) })?;
    Ok(Exit::Done)
}

fn to_table(effective: &EffectiveConfig) -> String {
    let rows = effective.values.iter().map(|value| {
        let text = if value.text.is_empty() { "-" } else { &value.text };
        (value.key.path, text, location(value.origin, effective.file.as_deref()))
    });
    let rows: Vec<_> = std::iter::once(("KEY", "VALUE", "FROM".to_owned())).chain(rows).collect();
    let width = |column: fn(&(&str, &str, String)) -> usize| rows.iter().map(column).max().unwrap_or(0);
    let (key_width, text_width) = (width(|row| row.0.len()), width(|row| row.1.len()));
    let line =
        |(key, text, from): &(&str, &str, String)| format!("{key:key_width$}  {text:text_width$}  {from}\n");
    rows.iter().map(line).collect()
}

fn to_json(effective: &EffectiveConfig) -> String {
    let values: Vec<_> = effective
        .values
        .iter()
        .map(|value| {
            let from = match value.origin {
                ValueOrigin::Flag(flag) => json!({ "layer": "flag", "name": flag }),
                ValueOrigin::Environment(variable) => json!({ "layer": "environment", "name": variable }),
                ValueOrigin::File { line, column } => {
                    json!({ "layer": "file", "line": line, "column": column })
                }
                ValueOrigin::Default => json!({ "layer": "default" }),
            };
            json!({ "key": value.key.path, "value": value.text, "from": from })
        })
        .collect();
    let file = effective.file.as_ref().map(|file| file.to_string_lossy());
    format!("{:#}\n", json!({ "file": file, "values": values }))
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
