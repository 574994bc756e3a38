//! The configuration: a JSON file, environment variables, flags.
//!
//! Precedence per value: flag > environment > file > default. Each value keeps its origin. Every given value is checked, even
//! if a higher layer overrides it, so that an error in a file is reported when it is made and not when a variable is
//! removed. Runs in the main thread before anything is started. Invariant: an [`EffectiveConfig`] holds only checked values.
//!
//! To add a key, add a [`ConfigKey`] to [`KEYS`] and a `read` call to [`resolve`]. Sections with lists
//! exist only in the file: `numbers` is read here, those of [`OPEN_SECTIONS`] by the modules that use them.

pub(crate) mod check;
pub mod edit;
mod file;
pub(crate) mod json;
pub(crate) mod numbers;
mod replace;
pub(crate) mod section;
mod template;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::phone;
use crate::runtime::logging::LevelFilter;
use crate::{Error, Result};

pub use file::{FileLayer, read_config_text};
pub use replace::replace_file;
pub use template::Template;

/// Configuration file that is read without `--config`, relative to the current directory.
pub const FILE_DEFAULT: &str = "config/configurationFile.conf";

/// Maximum size of a configuration file. Real ones have some hundred bytes.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// Looks up an environment variable. Tests pass their own function.
pub type EnvLookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A value of the configuration and its names in all layers.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigKey {
    /// Path in the file: `parameters.tcpServer.port`.
    pub path: &'static str,
    /// Environment variable, and the placeholder in a template with `@` in front.
    pub variable: &'static str,
    /// Long flag of `lea configure`.
    pub flag: &'static str,
    /// Value if no layer has one.
    pub default: &'static str,
    /// Meaning and accepted values, for lea.conf(5).
    pub text: &'static str,
    empty: EmptyMeaning,
}

/// The meaning of an empty value.
#[derive(Debug, PartialEq, Eq)]
enum EmptyMeaning {
    /// Switches the receiver off.
    Off,
    /// The value is not given.
    NotGiven,
    /// An error; in the environment the value is not given, because containers pass unset variables as empty.
    Invalid,
}

pub static LOGGER_LEVEL: ConfigKey = ConfigKey {
    path: "parameters.loggerLevel",
    variable: "LOGGERLEVEL",
    flag: "--logger-level",
    default: "DEBUG",
    text: "Log level: DEBUG, INFO, WARN (or WARNING) or ERROR, in any case.",
    empty: EmptyMeaning::Invalid,
};
pub static TCP_ADDRESS: ConfigKey = ConfigKey {
    path: "parameters.tcpServer.address",
    variable: "TCPSERVERADDRESS",
    flag: "--tcp-address",
    default: "0.0.0.0",
    text: "Address of the TCP listener for streams: an IPv4 or IPv6 address, or a host name. Empty: off. \
           A file with events that names neither address nor port has no listener.",
    empty: EmptyMeaning::Off,
};
pub static TCP_PORT: ConfigKey = ConfigKey {
    path: "parameters.tcpServer.port",
    variable: "TCPSERVERPORT",
    flag: "--tcp-port",
    default: "5004",
    text: "Port of the TCP listener for streams, 1 to 65535. 0: off.",
    empty: EmptyMeaning::Invalid,
};
pub static KAFKA_ADDRESS: ConfigKey = ConfigKey {
    path: "parameters.kafkaServer.address",
    variable: "KAFKAADDRESS",
    flag: "--kafka-address",
    default: "",
    text: "Address of the Kafka broker: an IPv4 or IPv6 address, or a host name. Empty: off.",
    empty: EmptyMeaning::Off,
};
pub static KAFKA_PORT: ConfigKey = ConfigKey {
    path: "parameters.kafkaServer.port",
    variable: "KAFKAPORT",
    flag: "--kafka-port",
    default: "5002",
    text: "Port of the Kafka broker, 1 to 65535. 0: off.",
    empty: EmptyMeaning::Invalid,
};
/// Sites without Kafka leave the topic empty, which is not an error.
pub static KAFKA_TOPIC: ConfigKey = ConfigKey {
    path: "parameters.kafkaServer.topic",
    variable: "KAFKATOPIC",
    flag: "--kafka-topic",
    default: "interception",
    text: "Topic to consume: 1 to 249 letters, digits, dots, underscores and hyphens. Empty: the default.",
    empty: EmptyMeaning::NotGiven,
};

/// All keys in the order of the file.
pub static KEYS: [&ConfigKey; 6] =
    [&LOGGER_LEVEL, &TCP_ADDRESS, &TCP_PORT, &KAFKA_ADDRESS, &KAFKA_PORT, &KAFKA_TOPIC];

/// Sections of the file that other modules read ([`FileLayer::section`]).
pub(crate) const OPEN_SECTIONS: [&str; 1] = ["parameters.events"];

/// Origin of a value or a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ValueOrigin {
    /// A flag, `--tcp-port`.
    Flag(&'static str),
    /// An environment variable.
    Environment(&'static str),
    /// Position in the file, starting at 1; the column counts characters.
    File { line: usize, column: usize },
    /// No layer has the value.
    Default,
}

impl fmt::Display for ValueOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValueOrigin::Flag(flag) => write!(f, "flag {flag}"),
            ValueOrigin::Environment(variable) => write!(f, "environment variable {variable}"),
            ValueOrigin::File { line, column } => write!(f, "line {line}, column {column}"),
            ValueOrigin::Default => f.write_str("default"),
        }
    }
}

/// An error or a warning with its origin. Displays as `line 4, column 17: ...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub origin: ValueOrigin,
    /// What is wrong and what is allowed.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.text)
    }
}

/// Host and port of an enabled receiver. Displays as `0.0.0.0:5004`; IPv6 addresses are in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// IP address (IPv6 without brackets) or host name; never empty.
    pub address: String,
    /// Never 0.
    pub port: u16,
}

impl HostPort {
    /// Returns `None` for an empty address or port 0, which switch the receiver off (docs/protocol.md).
    fn new_if_enabled(address: String, port: u16) -> Option<HostPort> {
        (!address.is_empty() && port != 0).then_some(HostPort { address, port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HostPort { address, port } = self;
        if address.contains(':') { write!(f, "[{address}]:{port}") } else { write!(f, "{address}:{port}") }
    }
}

/// A Kafka broker and the topic to consume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaSource {
    pub broker: HostPort,
    /// Never empty.
    pub topic: String,
}

/// A value of the effective configuration as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigValue {
    pub key: &'static ConfigKey,
    /// Normalized text: a level in capitals, a port without leading zeros.
    pub text: String,
    pub origin: ValueOrigin,
}

/// The effective configuration.
#[derive(Clone, Debug)]
pub struct EffectiveConfig {
    /// Log level; `-v` and `-q` override it (`Globals::level`).
    pub logger_level: LevelFilter,
    /// Address of the TCP listener, `None` if it is off.
    pub tcp: Option<HostPort>,
    /// Kafka broker and topic, `None` if Kafka is off.
    pub kafka: Option<KafkaSource>,
    /// Kafka topic, whether Kafka is on or off. Never empty.
    pub kafka_topic: String,
    pub numbers: phone::NumberSettings,
    /// Each value with its origin, in the order of [`KEYS`].
    pub values: Vec<ConfigValue>,
    /// The file that was read, `None` if there is no file at the default path.
    pub file: Option<PathBuf>,
    /// Findings to log after the log has started.
    pub warnings: Vec<Finding>,
}

impl EffectiveConfig {
    /// Logs the warnings. Must be called after the log has started.
    pub fn log_warnings(&self) {
        let file = self.file.as_deref().unwrap_or(Path::new(FILE_DEFAULT));
        for Finding { origin, text } in &self.warnings {
            log::warn!("configuration_warning file={file:?} at=\"{origin}\" reason={text:?}");
        }
    }

    /// Returns the TCP listener for a log line: `0.0.0.0:5004` or `off`.
    pub fn tcp_text(&self) -> String {
        self.tcp.as_ref().map_or_else(|| "off".to_owned(), HostPort::to_string)
    }

    /// Returns the Kafka broker for a log line: `HOST:PORT` or `off`.
    pub fn kafka_text(&self) -> String {
        self.kafka.as_ref().map_or_else(|| "off".to_owned(), |kafka| kafka.broker.to_string())
    }
}

/// The layers of the configuration, in order of precedence.
pub struct ConfigLayers<'a> {
    pub flags: &'a [(&'static ConfigKey, String)],
    pub env: EnvLookup<'a>,
    pub file: Option<&'a FileLayer>,
    /// True if unknown keys are warnings instead of errors.
    pub is_lenient: bool,
}

/// Loads the configuration without flags.
///
/// `is_lenient` makes unknown keys warnings instead of errors. The file `path` must exist. Without a path, [`FILE_DEFAULT`] is read if it exists. Fails with [`Error::Config`] or
/// [`Error::Usage`] (exit status 2), which list all errors.
pub fn load(path: Option<&Path>, is_lenient: bool, env: EnvLookup<'_>) -> Result<EffectiveConfig> {
    let file = read_layer(path)?;
    let (effective, errors) = resolve(&ConfigLayers { flags: &[], env, file: file.as_ref(), is_lenient });
    fail_on_findings(file.as_ref(), &errors)?;
    Ok(effective)
}

/// Reads the file `path`, or the default file if it exists.
pub fn read_layer(path: Option<&Path>) -> Result<Option<FileLayer>> {
    match path {
        Some(path) => FileLayer::read(path).map(Some),
        None => FileLayer::read_if_exists(Path::new(FILE_DEFAULT)),
    }
}

/// Looks up a variable of the process's environment. Invalid UTF-8 becomes U+FFFD, which no check accepts.
pub fn environment(variable: &str) -> Option<String> {
    std::env::var_os(variable).map(|value| value.to_string_lossy().into_owned())
}

/// Combines the layers. The result is valid only if the list of errors is empty ([`fail_on_findings`]).
pub fn resolve(layers: &ConfigLayers<'_>) -> (EffectiveConfig, Vec<Finding>) {
    let mut errors = layers.file.map_or_else(Vec::new, |file| file.errors.clone());
    let mut warnings = layers.file.map_or_else(Vec::new, |file| file.warnings.clone());
    let unknown_keys = layers.file.map_or_else(Vec::new, |file| file.unknown_keys.clone());
    if layers.is_lenient { &mut warnings } else { &mut errors }.extend(unknown_keys);
    warnings.sort_by_key(|warning| warning.origin);
    let mut values = Vec::with_capacity(KEYS.len());
    let mut taker = ValueReader { layers, errors: &mut errors, values: &mut values };
    let logger_level = taker.read(&LOGGER_LEVEL, check::level);
    let tcp_address = taker.read(&TCP_ADDRESS, check::address);
    let tcp_port = taker.read(&TCP_PORT, check::port);
    let kafka_address = taker.read(&KAFKA_ADDRESS, check::address);
    let kafka_port = taker.read(&KAFKA_PORT, check::port);
    let topic = taker.read(&KAFKA_TOPIC, check::topic);
    let tcp_address = without_default_listener(layers, &mut values).unwrap_or(tcp_address);
    errors.sort_by_key(|error| error.origin);
    let effective = EffectiveConfig {
        logger_level,
        tcp: HostPort::new_if_enabled(tcp_address, tcp_port),
        kafka: HostPort::new_if_enabled(kafka_address, kafka_port)
            .map(|broker| KafkaSource { broker, topic: topic.clone() }),
        kafka_topic: topic,
        numbers: layers.file.map_or_else(phone::NumberSettings::default, |file| file.numbers.clone()),
        values,
        file: layers.file.map(|file| file.path.clone()),
        warnings,
    };
    (effective, errors)
}

/// A file that has events and names no TCP listener does not want one: returns the empty address, which turns it off.
fn without_default_listener(layers: &ConfigLayers<'_>, values: &mut [ConfigValue]) -> Option<String> {
    let has_events = layers.file.is_some_and(|file| OPEN_SECTIONS.iter().any(|path| file.has_values(path)));
    let is_of_tcp = |value: &&mut ConfigValue| [&TCP_ADDRESS, &TCP_PORT].contains(&value.key);
    let mut of_tcp: Vec<&mut ConfigValue> = values.iter_mut().filter(is_of_tcp).collect();
    if !has_events || of_tcp.iter().any(|value| value.origin != ValueOrigin::Default) {
        return None;
    }
    let address = of_tcp.iter_mut().find(|value| value.key == &TCP_ADDRESS)?;
    address.text.clear();
    Some(String::new())
}

/// Returns an error that lists all findings, if there are any.
pub fn fail_on_findings(file: Option<&FileLayer>, errors: &[Finding]) -> Result<()> {
    if errors.is_empty() {
        return Ok(());
    }
    let reason = errors.iter().map(Finding::to_string).collect::<Vec<_>>().join("; ");
    match file {
        Some(file) if errors.iter().any(|error| matches!(error.origin, ValueOrigin::File { .. })) => {
            Err(Error::Config { path: file.path.clone(), reason })
        }
        _ => Err(Error::Usage(reason)),
    }
}

/// Reads one value after the other from the layers.
struct ValueReader<'a> {
    layers: &'a ConfigLayers<'a>,
    errors: &'a mut Vec<Finding>,
    values: &'a mut Vec<ConfigValue>,
}

impl ValueReader<'_> {
    fn read<T: fmt::Display>(&mut self, key: &'static ConfigKey, check: fn(&str) -> Result<T, String>) -> T {
        let mut taken = None;
        for (origin, text) in self.layers.texts_of(key) {
            match check(&text) {
                Ok(value) => taken = taken.or(Some((value, origin))),
                Err(wrong) => self.errors.push(Finding { origin, text: format!("{}: {wrong}", key.path) }),
            }
        }
        let (value, origin) = taken.unwrap_or_else(|| {
            (check(key.default).expect("every default passes its own check"), ValueOrigin::Default)
        });
        self.values.push(ConfigValue { key, text: value.to_string(), origin });
        value
    }
}

impl ConfigLayers<'_> {
    /// Returns the texts given for a key, from the highest layer to the lowest.
    fn texts_of(&self, key: &'static ConfigKey) -> Vec<(ValueOrigin, String)> {
        let flag = self.flags.iter().rfind(|(of, _)| *of == key);
        let variable = (self.env)(key.variable);
        let in_file = self.file.and_then(|file| file.value(key));
        let texts = [
            flag.map(|(_, text)| (ValueOrigin::Flag(key.flag), text.clone())),
            variable.map(|text| (ValueOrigin::Environment(key.variable), text)),
            in_file.map(|(origin, text)| (origin, text.to_owned())),
        ];
        let is_given = |origin: &ValueOrigin, text: &str| {
            let by_env = matches!(origin, ValueOrigin::Environment(_));
            !text.is_empty()
                || key.empty == EmptyMeaning::Off
                || (key.empty == EmptyMeaning::Invalid && !by_env)
        };
        let trimmed = texts.into_iter().flatten().map(|(origin, text)| (origin, text.trim().to_owned()));
        trimmed.filter(|(origin, text)| is_given(origin, text)).collect()
    }
}

#[cfg(test)]
mod tests;
