//! Where events come from: JSON lines, syslog, queues. Blocking, a thread a connection.
//!
//! `edge` accepts and reads, `frame` finds messages, `lines` and `syslog` make documents of them (by `iri::event` and
//! `grok`), `intake` writes them. A source knows the store by its trait alone.

pub mod amqp;
pub mod edge;
pub mod frame;
pub mod grok;
pub mod intake;
pub mod lines;
pub mod syslog;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::event::Indices;
use crate::cc::source::tcp;
use crate::cc::vault::Vault;
use crate::config::events::SyslogListen;
use crate::stop::Stop;
use crate::{Error, Result, logging};
use amqp::AmqpConfig;
use edge::{EdgeConfig, Edges, Takers};
use frame::Framing;
use grok::Patterns;
use intake::Intake;
use lines::{LINE_BYTES_MAX, Port};
use syslog::{MESSAGE_BYTES_MAX, SyslogConfig, UdpReceiver};

/// What is received.
#[derive(Clone, Debug)]
pub struct SourcesConfig {
    /// JSON lines.
    pub lines: Option<SocketAddr>,
    /// JSON lines with content of streams alone.
    pub data_lines: Option<SocketAddr>,
    /// Syslog.
    pub syslog: Vec<SyslogListen>,
    /// A queue.
    pub amqp: Option<AmqpConfig>,
    /// Patterns of syslog lines; none: the built-in ones.
    pub patterns: Vec<String>,
    /// Names that they may use.
    pub definitions: Vec<(String, String)>,
    /// Where events go.
    pub indices: Indices,
    /// After a stop, how long what a peer still sends is taken.
    pub drain: Duration,
}

/// Listeners that receive.
pub struct Sources {
    intake: Arc<Intake>,
    threads: Vec<JoinHandle<Result<()>>>,
}

/// What the listeners need while they are started.
struct Start<'a> {
    config: &'a SourcesConfig,
    edges: Edges,
    vault: &'a Vault,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Sources {
    /// Listens, until `stop` is asked for.
    pub fn spawn(config: &SourcesConfig, intake: Arc<Intake>, vault: &Vault, stop: &Stop) -> Result<Sources> {
        let edges = Edges { intake: Arc::clone(&intake), stop: stop.clone(), held_bytes: Arc::default() };
        let mut start = Start { config, edges, vault, threads: Vec::new() };
        let started = start.all();
        let sources = Sources { intake, threads: start.threads };
        match started {
            Ok(()) => Ok(sources),
            Err(error) => {
                stop.ask();
                sources.join().and(Err(error))
            }
        }
    }

    /// From `at` on a store that does not take events is not waited for any more.
    pub fn give_up_at(&self, at: Instant) {
        self.intake.give_up_at(at);
    }

    /// Waits until the stop was asked for, and all that came is stored.
    pub fn join(self) -> Result<()> {
        let mut result = Ok(());
        for thread in self.threads {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            let ended = thread.join().unwrap_or_else(|_| Err(Error::Thread(name)));
            result = result.and(ended);
        }
        result
    }
}

impl Start<'_> {
    fn all(&mut self) -> Result<()> {
        let ports = [(Port::Lines, self.config.lines), (Port::DataLines, self.config.data_lines)];
        for (port, addr) in ports {
            let Some(addr) = addr else { continue };
            let takers = lines::takers(
                port,
                Arc::clone(&self.edges.intake),
                self.vault.clone(),
                Arc::new(self.config.indices.clone()),
                self.edges.stop.clone(),
            );
            self.tcp(addr, port.word(), Framing::Lines, LINE_BYTES_MAX, takers)?;
        }
        if let Some(config) = self.config.amqp.clone() {
            let indices = Arc::new(self.config.indices.clone());
            let (intake, stop) = (Arc::clone(&self.edges.intake), self.edges.stop.clone());
            self.threads.push(amqp::spawn(config, intake, indices, stop)?);
        }
        let index = self.config.indices.syslog.clone();
        let patterns = Patterns::compile(&self.config.patterns, &self.config.definitions)
            .map_err(|error| Error::Usage(error.to_string()))?;
        let syslog = Arc::new(SyslogConfig { index, patterns });
        for listen in &self.config.syslog {
            match *listen {
                SyslogListen::Tcp(addr) => {
                    let takers = syslog::takers(Arc::clone(&self.edges.intake), Arc::clone(&syslog));
                    self.tcp(addr, "syslog", Framing::Syslog, MESSAGE_BYTES_MAX, takers)?;
                }
                SyslogListen::Udp(addr) => {
                    let (intake, drain) = (&self.edges.intake, self.config.drain);
                    let receiver = UdpReceiver::spawn(addr, intake, &syslog, drain, &self.edges.stop)?;
                    self.threads.extend(receiver.threads);
                    listening(receiver.local_addr, "syslog transport=udp");
                }
            }
        }
        Ok(())
    }

    fn tcp(
        &mut self,
        addr: SocketAddr,
        name: &'static str,
        framing: Framing,
        message_bytes_max: usize,
        takers: Takers,
    ) -> Result<()> {
        let listener = tcp::bind(addr)?;
        let bound = listener.local_addr().map_err(Error::system("read a listener's address"))?;
        let config = EdgeConfig { name, framing, message_bytes_max, drain: self.config.drain };
        self.threads.push(self.edges.spawn(listener, config, takers)?);
        listening(bound, if name == "syslog" { "syslog transport=tcp" } else { name });
        Ok(())
    }
}

fn listening(addr: SocketAddr, what: &str) {
    logging::say(format_args!("listening addr={addr} for={what}"));
}
