//! Event sources: JSON lines, syslog and AMQP. All input is blocking, with one thread per connection.
//!
//! `listener` accepts connections and reads, `framing` splits bytes into messages, `lines` and `syslog` turn messages into
//! documents (with `iri::event` and `grok`), `event_sink` writes documents. A source uses the store only through its trait.

pub mod amqp;
pub(crate) mod event_sink;
pub mod framing;
pub(crate) mod grok;
pub(crate) mod lines;
pub(crate) mod listener;
pub mod syslog;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::event::EventIndices;
use crate::cc::vault::Vault;
use crate::config::events::SyslogListen;
use crate::runtime::logging;
use crate::runtime::shutdown::Shutdown;
use crate::runtime::{net, threads};
use crate::{Error, Result};
use amqp::AmqpConfig;
use event_sink::EventSink;
use framing::Framing;
use grok::GrokPatterns;
use lines::{LINE_BYTES_MAX, LinePort};
use listener::{HandlerFactory, ListenerConfig, ListenerDeps};
use syslog::{MESSAGE_BYTES_MAX, SyslogConfig, UdpReceiver};

/// The sources to start and their settings.
#[derive(Clone, Debug)]
pub struct SourcesConfig {
    pub lines: Option<SocketAddr>,
    /// Listener for JSON lines that may hold only stream content.
    pub content_lines: Option<SocketAddr>,
    pub syslog: Vec<SyslogListen>,
    pub amqp: Option<AmqpConfig>,
    /// Patterns for syslog messages. If empty, the built-in ones are used.
    pub patterns: Vec<String>,
    /// Named patterns that `patterns` may refer to.
    pub definitions: Vec<(String, String)>,
    pub indices: EventIndices,
    /// Time after shutdown during which peers' input is still received.
    pub shutdown_timeout: Duration,
}

/// The running sources.
pub struct Sources {
    sink: Arc<EventSink>,
    threads: Vec<JoinHandle<Result<()>>>,
}

/// The state while sources are started.
struct SourceStarter<'a> {
    config: &'a SourcesConfig,
    listener_deps: ListenerDeps,
    vault: &'a Vault,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Sources {
    /// Starts all configured sources. They run until `shutdown` is triggered.
    pub fn spawn(
        config: &SourcesConfig,
        sink: Arc<EventSink>,
        vault: &Vault,
        shutdown: &Shutdown,
    ) -> Result<Sources> {
        let edges =
            ListenerDeps { sink: Arc::clone(&sink), shutdown: shutdown.clone(), held_bytes: Arc::default() };
        let mut start = SourceStarter { config, listener_deps: edges, vault, threads: Vec::new() };
        let started = start.start_all();
        let sources = Sources { sink, threads: start.threads };
        match started {
            Ok(()) => Ok(sources),
            Err(error) => {
                shutdown.trigger();
                sources.join().and(Err(error))
            }
        }
    }

    /// Sets the time after which sources no longer wait for a store that accepts no events.
    pub fn give_up_at(&self, at: Instant) {
        self.sink.give_up_at(at);
    }

    /// Joins all threads. Returns after shutdown, when all received events are stored.
    pub fn join(self) -> Result<()> {
        threads::join_all(self.threads)
    }
}

impl SourceStarter<'_> {
    fn start_all(&mut self) -> Result<()> {
        let ports =
            [(LinePort::Lines, self.config.lines), (LinePort::ContentLines, self.config.content_lines)];
        for (port, addr) in ports {
            let Some(addr) = addr else { continue };
            let handler_factory = lines::handler_factory(
                port,
                Arc::clone(&self.listener_deps.sink),
                self.vault.clone(),
                Arc::new(self.config.indices.clone()),
                self.listener_deps.shutdown.clone(),
            );
            self.tcp(addr, port.as_str(), None, Framing::Lines, LINE_BYTES_MAX, handler_factory)?;
        }
        if let Some(config) = self.config.amqp.clone() {
            let indices = Arc::new(self.config.indices.clone());
            let (sink, shutdown) =
                (Arc::clone(&self.listener_deps.sink), self.listener_deps.shutdown.clone());
            self.threads.push(amqp::spawn(config, sink, indices, shutdown)?);
        }
        let index = self.config.indices.syslog.clone();
        let patterns = GrokPatterns::compile(&self.config.patterns, &self.config.definitions)
            .map_err(|error| Error::Usage(error.to_string()))?;
        let syslog = Arc::new(SyslogConfig { index, patterns });
        for listen in &self.config.syslog {
            match *listen {
                SyslogListen::Tcp(addr) => {
                    let handler_factory =
                        syslog::handler_factory(Arc::clone(&self.listener_deps.sink), Arc::clone(&syslog));
                    self.tcp(
                        addr,
                        "syslog",
                        Some("tcp"),
                        Framing::Syslog,
                        MESSAGE_BYTES_MAX,
                        handler_factory,
                    )?;
                }
                SyslogListen::Udp(addr) => {
                    let (sink, timeout) = (&self.listener_deps.sink, self.config.shutdown_timeout);
                    let receiver =
                        UdpReceiver::spawn(addr, sink, &syslog, timeout, &self.listener_deps.shutdown)?;
                    self.threads.extend(receiver.threads);
                    print_listening(receiver.local_addr, "syslog transport=udp");
                }
            }
        }
        Ok(())
    }

    fn tcp(
        &mut self,
        addr: SocketAddr,
        name: &'static str,
        transport: Option<&'static str>,
        framing: Framing,
        message_bytes_max: usize,
        handler_factory: HandlerFactory,
    ) -> Result<()> {
        let listener = net::bind(addr)?;
        let bound = net::local_addr(&listener)?;
        let config = ListenerConfig {
            name,
            transport,
            framing,
            message_bytes_max,
            shutdown_timeout: self.config.shutdown_timeout,
        };
        self.threads.push(self.listener_deps.spawn(listener, config, handler_factory)?);
        print_listening(bound, if name == "syslog" { "syslog transport=tcp" } else { name });
        Ok(())
    }
}

fn print_listening(addr: SocketAddr, what: &str) {
    logging::status_line(format_args!("listening addr={addr} listener={what}"));
}
