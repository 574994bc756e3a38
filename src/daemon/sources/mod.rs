//! The list of event sources. Options, configuration keys, the check whether any source is switched on, the start and the
//! names in the log come from it.
//!
//! To add a source, write a module with its [`SourceKind`] and its [`IngestSource`], and add the kind to [`SOURCES`].

mod amqp;
mod gelf;
mod http;
mod lines;
mod syslog;

use std::cell::OnceCell;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use self::http::SharedApi;
use super::settings::EventSettings;
use crate::Result;
use crate::cc::vault::Vault;
use crate::config::check;
use crate::iri::ingest::event_sink::EventSink;
use crate::iri::ingest::listener::ListenerDeps;
use crate::iri::ingest::syslog::SyslogConfig;
use crate::phone::PhoneNumberNormalizer;
use crate::runtime::{logging, net};
use crate::search::store::Store;

/// All kinds of event sources, in the order of `--help`.
pub(crate) static SOURCES: [&SourceKind; 6] =
    [&lines::LINES, &lines::CONTENT_LINES, &syslog::SYSLOG, &gelf::GELF, &http::HTTP, &amqp::AMQP];

/// Creates a source from the values of its options, or says what is wrong with them.
pub(crate) type ParseSource = fn(&[&str]) -> Result<Arc<dyn IngestSource>, String>;

/// A kind of event source.
pub(crate) struct SourceKind {
    /// Key in `parameters.events`.
    pub key: &'static str,
    /// The options. If there are several, they are only valid together, and the value in the configuration is an object.
    pub options: &'static [SourceOption],
    /// The option is repeatable, and the value in the configuration is a list.
    pub is_list: bool,
    /// Creates a source from one value for each option.
    pub parse: ParseSource,
}

/// An option of a kind of event source.
pub(crate) struct SourceOption {
    /// Name on the command line, without `--`.
    pub long: &'static str,
    /// Key in the object of a kind with several options.
    pub key: &'static str,
    pub value_name: &'static str,
    /// Environment variable, for a value that contains a password.
    pub env: Option<&'static str>,
    pub help: &'static str,
}

/// An event source that is switched on. Displays as its name and its address.
pub(crate) trait IngestSource: fmt::Debug + fmt::Display + Send + Sync {
    /// Checks the source against the other settings.
    fn check(&self, _settings: &EventSettings) -> Result<(), String> {
        Ok(())
    }

    /// Starts the threads of the source. They run until shutdown.
    fn start(&self, context: &SourceContext<'_>) -> Result<Vec<JoinHandle<Result<()>>>>;
}

/// What sources need to run.
pub(crate) struct SourceContext<'a> {
    pub settings: &'a EventSettings,
    pub sink: Arc<EventSink>,
    pub store: Arc<dyn Store>,
    pub vault: &'a Vault,
    pub syslog: Arc<SyslogConfig>,
    /// Rewrites phone numbers in HTTP queries; `None` if numbers match only as they are written.
    pub query_normalizer: Option<Arc<PhoneNumberNormalizer>>,
    pub listeners: ListenerDeps,
    /// The HTTP API, once it has an address.
    pub api: OnceCell<SharedApi>,
}

impl SourceContext<'_> {
    /// Returns what all addresses of the HTTP API share.
    fn shared_api(&self) -> Result<&SharedApi> {
        if self.api.get().is_none() {
            let _ = self.api.set(SharedApi::new(self)?);
        }
        Ok(self.api.get().expect("it was set"))
    }
}

/// Starts all sources. If one cannot be started, those that run are ended and joined.
pub(super) fn start_all(context: &SourceContext<'_>) -> Result<Vec<JoinHandle<Result<()>>>> {
    let mut threads = Vec::new();
    for source in &context.settings.sources {
        match source.start(context) {
            Ok(started) => threads.extend(started),
            Err(error) => {
                context.listeners.shutdown.trigger();
                // The error of the start is the cause; errors of the other sources are symptoms.
                let _ = crate::runtime::threads::join_all(threads);
                return Err(error);
            }
        }
    }
    Ok(threads)
}

/// Parses the listen address of a source with a single option.
fn parse_address(values: &[&str]) -> Result<SocketAddr, String> {
    let [text] = values else { return Err("expected one address".to_owned()) };
    net::parse_listen_address(text).map_err(|error| error.to_string())
}

/// Parses `udp:ADDR:PORT` or `tcp:ADDR:PORT`. Returns true for TCP, and the address.
fn parse_transport(values: &[&str], what: &str) -> Result<(bool, SocketAddr), String> {
    let text = values.first().copied().unwrap_or_default();
    let (is_tcp, addr) = match text.split_once(':') {
        Some(("udp", addr)) => (false, addr),
        Some(("tcp", addr)) => (true, addr),
        _ => {
            let quoted = check::quote(text);
            return Err(format!(
                "{quoted} is not a {what} listener (expected udp:ADDR:PORT or tcp:ADDR:PORT)"
            ));
        }
    };
    net::parse_listen_address(addr).map(|addr| (is_tcp, addr)).map_err(|error| error.to_string())
}

/// Prints the line that scripts wait for.
fn print_listening(addr: SocketAddr, listener: &str) {
    logging::status_line(format_args!("listening addr={addr} listener={listener}"));
}
