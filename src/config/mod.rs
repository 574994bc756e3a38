//! The configuration: a JSON file, environment variables, flags.
//!
//! Precedence, value by value: flag > environment > file > default; each value keeps where it came from. Whatever
//! is given gets checked, also where a higher layer wins: a file that is wrong says so on the day it is written,
//! not on the day a variable goes away. Runs on the main thread, before anything is started. Invariant: an
//! [`Effective`] holds only values that passed their check.
//!
//! A new key is a [`Key`] in [`KEYS`] and one `take` in [`resolve`]. A section with lists stands in the file alone
//! (`numbers`, `events`).

mod check;
pub mod events;
mod file;
mod json;
mod numbers;
mod replace;
mod template;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::iri::number;
use crate::logging::LevelFilter;
use crate::{Error, Result};

pub use file::FileLayer;
pub use replace::replace;
pub use template::Template;

/// The configuration file where `--config` names none, from the current directory.
pub const FILE_DEFAULT: &str = "config/configurationFile.conf";

/// A configuration file's bytes; real ones have some hundred.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// Looks up an environment variable; tests bring their own.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// One value of the configuration: its names in all layers.
#[derive(Debug, PartialEq, Eq)]
pub struct Key {
    /// In the file, from the top: `parameters.tcpServer.port`.
    pub path: &'static str,
    /// The environment variable; with `@` before it, the placeholder in a template.
    pub variable: &'static str,
    /// The long flag of `lea configure`.
    pub flag: &'static str,
    /// The value where no layer gives one.
    pub default: &'static str,
    empty: Empty,
}

/// What an empty text means.
#[derive(Debug, PartialEq, Eq)]
enum Empty {
    /// The receiver is off.
    Off,
    /// As if the value were not given.
    NotGiven,
    /// An error; in the environment not given, for that is how containers pass on what they do not set.
    Wrong,
}

/// How much is logged.
pub static LOGGER_LEVEL: Key = Key {
    path: "parameters.loggerLevel",
    variable: "LOGGERLEVEL",
    flag: "--logger-level",
    default: "DEBUG",
    empty: Empty::Wrong,
};
/// The address on which streams over TCP are received.
pub static TCP_ADDRESS: Key = Key {
    path: "parameters.tcpServer.address",
    variable: "TCPSERVERADDRESS",
    flag: "--tcp-address",
    default: "0.0.0.0",
    empty: Empty::Off,
};
/// The port on which streams over TCP are received.
pub static TCP_PORT: Key = Key {
    path: "parameters.tcpServer.port",
    variable: "TCPSERVERPORT",
    flag: "--tcp-port",
    default: "5004",
    empty: Empty::Wrong,
};
/// The address of the Kafka broker.
pub static KAFKA_ADDRESS: Key = Key {
    path: "parameters.kafkaServer.address",
    variable: "KAFKAADDRESS",
    flag: "--kafka-address",
    default: "",
    empty: Empty::Off,
};
/// The port of the Kafka broker.
pub static KAFKA_PORT: Key = Key {
    path: "parameters.kafkaServer.port",
    variable: "KAFKAPORT",
    flag: "--kafka-port",
    default: "5002",
    empty: Empty::Wrong,
};
/// The Kafka topic to read. Sites without Kafka leave it empty, so that is no error.
pub static KAFKA_TOPIC: Key = Key {
    path: "parameters.kafkaServer.topic",
    variable: "KAFKATOPIC",
    flag: "--kafka-topic",
    default: "interception",
    empty: Empty::NotGiven,
};

/// All keys, in the order of the file.
pub static KEYS: [&Key; 6] =
    [&LOGGER_LEVEL, &TCP_ADDRESS, &TCP_PORT, &KAFKA_ADDRESS, &KAFKA_PORT, &KAFKA_TOPIC];

/// Where a value, or a finding, comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A flag of the command line, `--tcp-port`.
    Flag(&'static str),
    /// An environment variable.
    Environment(&'static str),
    /// The file; both count from 1, the column in characters.
    File {
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
    /// No layer gives it.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(flag) => write!(f, "flag {flag}"),
            Origin::Environment(variable) => write!(f, "environment variable {variable}"),
            Origin::File { line, column } => write!(f, "line {line}, column {column}"),
            Origin::Default => f.write_str("default"),
        }
    }
}

/// Something wrong, or worth a warning, and where. Displays as `line 4, column 17: ...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where it stands.
    pub origin: Origin,
    /// What is wrong, and what would be right.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.text)
    }
}

/// An address and a port of a receiver that is on. Displays as `0.0.0.0:5004`, IPv6 in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// An IP address (IPv6 without brackets) or a host name; never empty.
    pub address: String,
    /// Never 0.
    pub port: u16,
}

impl Listen {
    /// An empty address or a port of 0 turns the receiver off (protocol, section 9).
    fn enabled(address: String, port: u16) -> Option<Listen> {
        (!address.is_empty() && port != 0).then_some(Listen { address, port })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Listen { address, port } = self;
        if address.contains(':') { write!(f, "[{address}]:{port}") } else { write!(f, "{address}:{port}") }
    }
}

/// A Kafka broker and what to read from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kafka {
    /// Where it listens.
    pub broker: Listen,
    /// The topic; never empty.
    pub topic: String,
}

/// A value of the effective configuration as text, with where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Which one.
    pub key: &'static Key,
    /// As it would stand in the file: a level in capitals, a port without leading zeros.
    pub text: String,
    /// The layer that gave it.
    pub origin: Origin,
}

/// The configuration in effect.
#[derive(Clone, Debug)]
pub struct Effective {
    /// How much is logged; `-v` and `-q` go before it (`Globals::level`).
    pub logger_level: LevelFilter,
    /// Where streams over TCP are received; none: off.
    pub tcp: Option<Listen>,
    /// Where streams over Kafka are read; none: off.
    pub kafka: Option<Kafka>,
    /// How telephone numbers are read.
    pub numbers: number::Settings,
    /// What is received as events, and how.
    pub events: events::Events,
    /// Each value with its origin, in the order of [`KEYS`].
    pub values: Vec<Value>,
    /// The file that was read; none: there is none at the default place.
    pub file: Option<PathBuf>,
    /// What the caller logs once the log has started: unknown keys and the like.
    pub warnings: Vec<Finding>,
}

impl Effective {
    /// Logs the warnings; for after the log has started.
    pub fn log_warnings(&self) {
        let file = self.file.as_deref().unwrap_or(Path::new(FILE_DEFAULT));
        for Finding { origin, text } in &self.warnings {
            log::warn!("configuration_odd file={file:?} at=\"{origin}\" reason={text:?}");
        }
    }

    /// The TCP receiver as one word for a log line: `0.0.0.0:5004` or `off`.
    pub fn tcp_word(&self) -> String {
        self.tcp.as_ref().map_or_else(|| "off".to_owned(), Listen::to_string)
    }

    /// The Kafka receiver as one word for a log line.
    pub fn kafka_word(&self) -> String {
        self.kafka.as_ref().map_or_else(|| "off".to_owned(), |kafka| kafka.broker.to_string())
    }
}

/// What may give a value; the fields stand in order of precedence.
pub struct Layers<'a> {
    /// Flags that were given.
    pub flags: &'a [(&'static Key, String)],
    /// The environment.
    pub env: Env<'a>,
    /// The file, where there is one.
    pub file: Option<&'a FileLayer>,
}

/// Reads the configuration without flags: environment over the file over the defaults.
///
/// `path` is what `--config` names, and must be readable; without it [`FILE_DEFAULT`] is read where it exists.
/// Fails with [`Error::Config`] or [`Error::Usage`] (exit code 2), which name everything that is wrong.
pub fn load(path: Option<&Path>, env: Env<'_>) -> Result<Effective> {
    let file = read_layer(path)?;
    let (effective, errors) = resolve(&Layers { flags: &[], env, file: file.as_ref() });
    refuse(file.as_ref(), &errors)?;
    Ok(effective)
}

/// Reads the file that `path` names, else the default one; none where that is missing.
pub fn read_layer(path: Option<&Path>) -> Result<Option<FileLayer>> {
    match path {
        Some(path) => FileLayer::read(path).map(Some),
        None => FileLayer::read_if_there(Path::new(FILE_DEFAULT)),
    }
}

/// The process's environment, for [`load`]. Bytes that are no UTF-8 become U+FFFD, which no check lets pass.
pub fn environment(variable: &str) -> Option<String> {
    std::env::var_os(variable).map(|value| value.to_string_lossy().into_owned())
}

/// Puts the layers together. The result counts only if the list, all that is wrong, is empty ([`refuse`]).
pub fn resolve(layers: &Layers<'_>) -> (Effective, Vec<Finding>) {
    let mut errors = layers.file.map_or_else(Vec::new, |file| file.errors.clone());
    let mut values = Vec::with_capacity(KEYS.len());
    let mut taker = Taker { layers, errors: &mut errors, values: &mut values };
    let logger_level = taker.take(&LOGGER_LEVEL, check::level);
    let tcp_address = taker.take(&TCP_ADDRESS, check::address);
    let tcp_port = taker.take(&TCP_PORT, check::port);
    let kafka_address = taker.take(&KAFKA_ADDRESS, check::address);
    let kafka_port = taker.take(&KAFKA_PORT, check::port);
    let topic = taker.take(&KAFKA_TOPIC, check::topic);
    errors.sort_by_key(|error| error.origin);
    let effective = Effective {
        logger_level,
        tcp: Listen::enabled(tcp_address, tcp_port),
        kafka: Listen::enabled(kafka_address, kafka_port).map(|broker| Kafka { broker, topic }),
        numbers: layers.file.map_or_else(number::Settings::default, |file| file.numbers.clone()),
        events: layers.file.map_or_else(events::Events::default, |file| file.events.clone()),
        values,
        file: layers.file.map(|file| file.path.clone()),
        warnings: layers.file.map_or_else(Vec::new, |file| file.warnings.clone()),
    };
    (effective, errors)
}

/// An error that names all findings, if there are any.
pub fn refuse(file: Option<&FileLayer>, errors: &[Finding]) -> Result<()> {
    if errors.is_empty() {
        return Ok(());
    }
    let reason = errors.iter().map(Finding::to_string).collect::<Vec<_>>().join("; ");
    match file {
        Some(file) if errors.iter().any(|error| matches!(error.origin, Origin::File { .. })) => {
            Err(Error::Config { path: file.path.clone(), reason })
        }
        _ => Err(Error::Usage(reason)),
    }
}

/// Takes one value after the other out of the layers.
struct Taker<'a> {
    layers: &'a Layers<'a>,
    errors: &'a mut Vec<Finding>,
    values: &'a mut Vec<Value>,
}

impl Taker<'_> {
    fn take<T: fmt::Display>(&mut self, key: &'static Key, check: fn(&str) -> Result<T, String>) -> T {
        let mut taken = None;
        for (origin, text) in self.layers.given(key) {
            match check(&text) {
                Ok(value) => taken = taken.or(Some((value, origin))),
                Err(wrong) => self.errors.push(Finding { origin, text: format!("{}: {wrong}", key.path) }),
            }
        }
        let (value, origin) = taken.unwrap_or_else(|| {
            (check(key.default).expect("every default passes its own check"), Origin::Default)
        });
        self.values.push(Value { key, text: value.to_string(), origin });
        value
    }
}

impl Layers<'_> {
    /// The texts given for a key, the highest layer first.
    fn given(&self, key: &'static Key) -> Vec<(Origin, String)> {
        let flag = self.flags.iter().rfind(|(of, _)| *of == key);
        let variable = (self.env)(key.variable);
        let in_file = self.file.and_then(|file| file.value(key));
        let texts = [
            flag.map(|(_, text)| (Origin::Flag(key.flag), text.clone())),
            variable.map(|text| (Origin::Environment(key.variable), text)),
            in_file.map(|(origin, text)| (origin, text.to_owned())),
        ];
        let is_given = |origin: &Origin, text: &str| {
            let by_env = matches!(origin, Origin::Environment(_));
            !text.is_empty() || key.empty == Empty::Off || (key.empty == Empty::Wrong && !by_env)
        };
        let trimmed = texts.into_iter().flatten().map(|(origin, text)| (origin, text.trim().to_owned()));
        trimmed.filter(|(origin, text)| is_given(origin, text)).collect()
    }
}

#[cfg(test)]
mod tests;
