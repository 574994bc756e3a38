//! Where events come from: JSON lines, syslog. Blocking, a thread a connection.
//!
//! `edge` accepts and reads, `frame` finds messages, `lines` and `syslog` make documents of them (by `iri::event` and
//! `grok`), `intake` writes them. A source knows the store by its trait alone.

pub mod edge;
pub mod frame;
pub mod grok;
pub mod intake;
pub mod lines;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::event::Indices;
use crate::cc::source::tcp;
use crate::cc::vault::Vault;
use crate::stop::Stop;
use crate::{Error, Result, logging};
use edge::{EdgeConfig, Edges, Takers};
use frame::Framing;
use intake::Intake;
use lines::{LINE_BYTES_MAX, Port};

/// What is received.
#[derive(Clone, Debug)]
pub struct SourcesConfig {
    /// JSON lines.
    pub lines: Option<SocketAddr>,
    /// JSON lines with content of streams alone.
    pub data_lines: Option<SocketAddr>,
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
        let edges =
            Edges { intake: Arc::clone(&intake), stop: stop.clone(), held_bytes: Arc::default() };
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
        self.intake.sync();
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
        logging::say(format_args!("listening addr={bound} for={name}"));
        Ok(())
    }
}
