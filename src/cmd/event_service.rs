//! What `lea run` and `lea serve-events` share for events: options, the store, the listeners around it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::values;
use crate::cc::source::tcp;
use crate::cc::vault::Vault;
use crate::config::Effective;
use crate::config::events::{Events, KEEP_DAYS_MAX, SyslogListen};
use crate::counters::Counters;
use crate::http::{self, Server, ServerHandle};
use crate::iri::elastic::{Elastic, Users};
use crate::iri::number::Families;
use crate::iri::source::amqp::AmqpConfig;
use crate::iri::source::intake::Intake;
use crate::iri::source::{Sources, SourcesConfig};
use crate::iri::store::Store;
use crate::iri::store::dead_letters::DeadLetters;
use crate::iri::store::elastic::{self, Client, ElasticConfig, ElasticStore, QueueConfig, ShipConfig};
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
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// A cluster as the store.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "A cluster as the store")]
struct ClusterArgs {
    /// Store events there rather than in DIR: http:// or https://USER:PASSWORD@HOST:9200 of Elasticsearch 7.17 to 9, or
    /// OpenSearch 2 or 3. They are acknowledged when they are in the queue in DIR/.lea/queue. A password is better given in the
    /// environment [default: store of the configuration, else none]
    #[arg(long, value_name = "URL", env = "LEA_EVENTS_STORE", hide_env_values = true)]
    store: Option<String>,
    /// Trust the certificates in this file (PEM), rather than the world's, where the cluster is asked over https
    #[arg(long, value_name = "FILE")]
    store_ca: Option<PathBuf>,
    /// Bytes of events that the cluster has not confirmed yet; past it, or on a full disk, senders wait
    #[arg(long, value_name = "BYTES", default_value = "4G", value_parser = queue_bytes)]
    queue_bytes_max: u64,
    /// Delete the daily indices of events from more than N days ago [default: never]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=KEEP_DAYS_MAX))]
    keep_days: Option<u32>,
}

/// What a question to a cluster may take.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(30);

/// Below that not even a bulk fits.
const QUEUE_BYTES_MIN: u64 = 1 << 20;

fn queue_bytes(text: &str) -> Result<u64, String> {
    let bytes = values::bytes(text)?;
    if bytes < QUEUE_BYTES_MIN { Err("at least 1M".to_owned()) } else { Ok(bytes) }
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
    /// None: the folder's own store.
    cluster: Option<ClusterConfig>,
}

/// A cluster as the store, checked.
struct ClusterConfig {
    client: Client,
    queue_bytes_max: u64,
    keep_days: Option<u32>,
}

impl ClusterArgs {
    /// Options over the configuration.
    fn resolve(&self, configured: &Events) -> Result<Option<ClusterConfig>> {
        let url = self.store.as_deref().or(configured.store.as_deref()).filter(|url| !url.is_empty());
        let ca = self.store_ca.as_deref().or(configured.store_ca.as_deref());
        let keep_days = self.keep_days.or(configured.keep_days);
        let Some(url) = url else {
            return match (&self.store_ca, self.keep_days) {
                (None, None) => Ok(None),
                _ => {
                    Err(Error::Usage("--store-ca and --keep-days are for a cluster: give --store".to_owned()))
                }
            };
        };
        let client = Client::new(url, None, ca)?;
        if client.index().is_some() {
            let why = "--store: the indices of events are set in the configuration, the URL has none";
            return Err(Error::Usage(why.to_owned()));
        }
        Ok(Some(ClusterConfig { client, queue_bytes_max: self.queue_bytes_max, keep_days }))
    }
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
        let cluster = events.cluster.resolve(&received)?;
        Ok(Some(EventConfig { listen: received, families, number_match, cluster }))
    }

    /// True if events go into a cluster.
    pub fn is_cluster(&self) -> bool {
        self.cluster.is_some()
    }

    /// Opens the store: that of the folder, or the queue in it to the cluster. `free_bytes_min` stay free on the disk.
    pub fn open(&self, dir: &Path, free_bytes_min: u64, counters: &Arc<Counters>) -> Result<Opened> {
        let letters = Arc::new(DeadLetters::open(dir)?);
        let store: Arc<dyn Store> = match &self.cluster {
            Some(cluster) => {
                let config = ElasticConfig {
                    client: cluster.client.clone(),
                    search_timeout: SEARCH_TIMEOUT,
                    families: Some(Arc::clone(&self.families)),
                    billing_index: self.listen.indices.billing.clone(),
                    queue: QueueConfig::of(cluster.queue_bytes_max, free_bytes_min),
                    ship: ShipConfig { keep_days: cluster.keep_days, ..ShipConfig::default() },
                };
                log::info!("store cluster={}", cluster.client.address());
                Arc::new(ElasticStore::open(dir, config, Arc::clone(&letters), Arc::clone(counters))?)
            }
            None => {
                let left = elastic::left_events(dir)?;
                if left > 0 {
                    log::warn!(
                        "queue_left events={left} note=\"they were for a cluster: start with --store\""
                    );
                }
                Arc::new(self.open_folder(dir)?)
            }
        };
        Ok(Opened { store, letters })
    }

    fn open_folder(&self, dir: &Path) -> Result<SqliteStore> {
        let billing_index = self.listen.indices.billing.clone();
        let config = StoreConfig { billing_index, ..StoreConfig::default() };
        SqliteStore::open(dir, config.with_families(Arc::clone(&self.families)))
    }

    /// Listens until the stop.
    pub fn spawn(&self, start: &EventStart<'_>) -> Result<EventService> {
        let Opened { store, letters } = start.opened.clone();
        let intake = Arc::new(Intake::new(Arc::clone(&store), letters, Arc::clone(start.counters)));
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
        let sources = Sources::spawn(&config, Arc::clone(&intake), start.vault, start.stop)?;
        match self.serve_http(start, intake) {
            Ok(http) => Ok(EventService { sources, http, store }),
            Err(error) => {
                start.stop.ask();
                sources.join().and(Err(error))
            }
        }
    }

    fn serve_http(&self, start: &EventStart<'_>, intake: Arc<Intake>) -> Result<Option<ServerHandle>> {
        let Some(addr) = self.listen.http else { return Ok(None) };
        let users = Users::new(self.listen.users.clone()).map_err(|error| Error::Usage(error.to_string()))?;
        let families = match self.number_match {
            NumberMatch::Families => Some(Arc::clone(&self.families)),
            NumberMatch::Exact => None,
        };
        let counters = Arc::clone(start.counters);
        let handler = Elastic::new(Arc::clone(&start.opened.store), families, users, Arc::clone(&counters))
            .with_letters(intake);
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

/// A store that was opened.
#[derive(Clone)]
pub struct Opened {
    store: Arc<dyn Store>,
    letters: Arc<DeadLetters>,
}

/// What the listeners need.
pub struct EventStart<'a> {
    /// Where events go.
    pub opened: Opened,
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
    store: Arc<dyn Store>,
}

impl EventService {
    /// From `at` on a store that does not take events is not waited for any more.
    pub fn give_up_at(&self, at: Instant) {
        self.sources.give_up_at(at);
        self.store.give_up_at(at);
    }

    /// Waits until the stop was asked for, and all that came is stored.
    pub fn join(self) -> Result<()> {
        let received = self.sources.join();
        received.and(self.http.map_or(Ok(()), ServerHandle::join))
    }
}
