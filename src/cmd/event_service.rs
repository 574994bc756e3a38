//! What `lea run` and `lea serve-events` share for events: options, the store, the listeners around it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cc::source::tcp;
use crate::cc::vault::Vault;
use crate::config::Effective;
use crate::config::events::{Events, SyslogListen};
use crate::counters::Counters;
use crate::http::{self, Server, ServerHandle};
use crate::iri::elastic::{Elastic, Users};
use crate::iri::number::Families;
use crate::iri::source::amqp::AmqpConfig;
use crate::iri::source::intake::Intake;
use crate::iri::source::{Sources, SourcesConfig};
use crate::iri::store::Store;
use crate::iri::store::dead_letters::DeadLetters;
use crate::iri::store::sqlite::{SqliteStore, StoreConfig};
use crate::stop::Stop;
use crate::{Error, Result, logging};

/// Where events are received.
#[derive(Debug, clap::Args)]
pub struct ListenArgs {
    /// Take JSON lines here, events and content of streams; a bare port is one of 127.0.0.1, 0 takes a free one. The
    /// usual port is 5959
    #[arg(long, value_name = "ADDR:PORT", value_parser = listen)]
    lines: Option<SocketAddr>,
    /// Take JSON lines with content of streams alone here. The usual port is 5960
    #[arg(long, value_name = "ADDR:PORT", value_parser = listen)]
    data_lines: Option<SocketAddr>,
    /// Take syslog here, udp:ADDR:PORT or tcp:ADDR:PORT; repeatable
    #[arg(long, value_name = "udp|tcp:ADDR:PORT", value_parser = SyslogListen::parse)]
    syslog: Vec<SyslogListen>,
    /// Speak Elasticsearch's dialect here. The usual port is 9200. Without users in the configuration this is an
    /// address of this machine's own
    #[arg(long, value_name = "ADDR:PORT", value_parser = listen)]
    http: Option<SocketAddr>,
    /// Consume a queue of RabbitMQ, amqp://USER:PASSWORD@HOST:PORT/VHOST: billing rows and events, a JSON object a message.
    /// The password is better given in the environment
    #[arg(long, value_name = "URL", env = "LEA_AMQP", hide_env_values = true, requires = "queue")]
    amqp: Option<String>,
    /// The queue; it must be there
    #[arg(long, value_name = "NAME", requires = "amqp")]
    queue: Option<String>,
}

/// How events are received.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Events")]
pub struct EventArgs {
    /// Read national numbers as those of this country, two letters of ISO 3166-1 [default: defaultRegion of the
    /// configuration, else they are left alone]
    #[arg(long, value_name = "REGION")]
    default_region: Option<String>,
    /// What a number that is asked for over HTTP means: every spelling of it, or only how it is written
    #[arg(long, value_enum, default_value_t = NumberMatch::Families)]
    number_match: NumberMatch,
}

/// What a number that is asked for means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum NumberMatch {
    /// Every spelling of it
    Families,
    /// How it is written
    Exact,
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    http::listen_address(text).map_err(|error| error.to_string())
}

/// What is received, checked.
pub struct EventConfig {
    listen: Events,
    families: Arc<Families>,
    number_match: NumberMatch,
}

impl EventConfig {
    /// Options over the configuration; none if nothing is to be received.
    pub fn resolve(
        config: &Effective,
        listen: Option<&ListenArgs>,
        events: &EventArgs,
    ) -> Result<Option<EventConfig>> {
        let mut received = config.events.clone();
        if let Some(given) = listen.filter(|given| !given.is_empty()) {
            let ListenArgs { lines, data_lines, syslog, http, amqp, queue } = given;
            let (lines, data_lines, http) = (*lines, *data_lines, *http);
            let amqp = amqp.as_deref().zip(queue.as_deref());
            let amqp = amqp.map(|(url, queue)| AmqpConfig::parse(url, queue)).transpose();
            let amqp = amqp.map_err(|why| Error::Usage(format!("--amqp: {why}")))?;
            received = Events { lines, data_lines, syslog: syslog.clone(), amqp, http, ..received };
        }
        if received.is_off() {
            return Ok(None);
        }
        let mut numbers = config.numbers.clone();
        if let Some(region) = &events.default_region {
            numbers.default_region = Some(region.clone());
        }
        if let Some(addr) = received.http.filter(|addr| !addr.ip().is_loopback() && received.users.is_empty())
        {
            return Err(Error::Usage(format!(
                "HTTP on {addr} needs users: set parameters.events.users in the configuration (lea events \
                 hash-password makes the hashes), or listen on 127.0.0.1"
            )));
        }
        let families = Families::new(numbers).map_err(|error| Error::Usage(error.to_string()))?;
        let (families, number_match) = (Arc::new(families), events.number_match);
        Ok(Some(EventConfig { listen: received, families, number_match }))
    }

    /// Opens the store of a folder.
    pub fn open(&self, dir: &Path) -> Result<Arc<SqliteStore>> {
        let families = Arc::clone(&self.families);
        let family = move |field: &str, value: &str| {
            let canonical = families.is_number_field(field).then(|| families.canonical(value)).flatten();
            canonical.map(|canonical| canonical.number().to_owned())
        };
        let billing_index = self.listen.indices.billing.clone();
        let config = StoreConfig { family: Arc::new(family), billing_index, ..StoreConfig::default() };
        SqliteStore::open(dir, config).map(Arc::new)
    }

    /// Listens until the stop.
    pub fn spawn(&self, start: &EventStart<'_>) -> Result<EventService> {
        let letters = DeadLetters::open(start.dir)?;
        let store: Arc<dyn Store> = start.store.clone();
        let intake = Arc::new(Intake::new(store, letters, Arc::clone(start.counters)));
        let config = SourcesConfig {
            lines: self.listen.lines,
            data_lines: self.listen.data_lines,
            syslog: self.listen.syslog.clone(),
            amqp: self.listen.amqp.clone(),
            patterns: self.listen.patterns.clone(),
            definitions: self.listen.definitions.clone(),
            indices: self.listen.indices.clone(),
            drain: start.drain,
        };
        let sources = Sources::spawn(&config, intake, start.vault, start.stop)?;
        match self.serve_http(start) {
            Ok(http) => Ok(EventService { sources, http }),
            Err(error) => {
                start.stop.ask();
                sources.join().and(Err(error))
            }
        }
    }

    fn serve_http(&self, start: &EventStart<'_>) -> Result<Option<ServerHandle>> {
        let Some(addr) = self.listen.http else { return Ok(None) };
        let users = Users::new(self.listen.users.clone()).map_err(|error| Error::Usage(error.to_string()))?;
        let families = match self.number_match {
            NumberMatch::Families => Some(Arc::clone(&self.families)),
            NumberMatch::Exact => None,
        };
        let counters = Arc::clone(start.counters);
        let handler = Elastic::new(start.store.clone(), families, users, Arc::clone(&counters));
        let listener = tcp::bind(addr)?;
        let config = Elastic::server_config();
        let server = Server::spawn(listener, config, Arc::new(handler), start.stop.clone(), counters)?;
        logging::say(format_args!("listening addr={} for=http", server.local_addr()));
        Ok(Some(server))
    }
}

impl ListenArgs {
    fn is_empty(&self) -> bool {
        self.lines.is_none()
            && self.data_lines.is_none()
            && self.syslog.is_empty()
            && self.http.is_none()
            && self.amqp.is_none()
    }
}

/// What the listeners need.
pub struct EventStart<'a> {
    /// The output folder.
    pub dir: &'a Path,
    /// Its store.
    pub store: Arc<SqliteStore>,
    /// Its vault.
    pub vault: &'a Vault,
    /// What is counted.
    pub counters: &'a Arc<Counters>,
    /// After the stop, how long what a peer still sends is taken.
    pub drain: Duration,
    /// Ends the listeners.
    pub stop: &'a Stop,
}

/// Listeners that run.
pub struct EventService {
    sources: Sources,
    http: Option<ServerHandle>,
}

impl EventService {
    /// From `at` on a store that does not take events is not waited for any more.
    pub fn give_up_at(&self, at: Instant) {
        self.sources.give_up_at(at);
    }

    /// Waits until the stop was asked for, and all that came is stored.
    pub fn join(self) -> Result<()> {
        let received = self.sources.join();
        received.and(self.http.map_or(Ok(()), ServerHandle::join))
    }
}
