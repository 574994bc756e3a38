//! The event part of `lea run` and `lea serve-events`: options, the event store and the listeners.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::billing;
use crate::cc::vault::Vault;
use crate::cmd::args::units;
use crate::config::EffectiveConfig;
use crate::config::events::{EventSettings, KEEP_DAYS_MAX, SyslogListen};
use crate::es_api::EsApi;
use crate::http::basic_auth::Users;
use crate::http::{HttpServer, HttpServerHandle};
use crate::iri::ingest::amqp::AmqpConfig;
use crate::iri::ingest::event_sink::EventSink;
use crate::iri::ingest::{Sources, SourcesConfig};
use crate::phone::PhoneNumberNormalizer;
use crate::runtime::metrics::Metrics;
use crate::runtime::shutdown::Shutdown;
use crate::runtime::{logging, net};
use crate::search::cluster::{self, ClusterStore, ClusterStoreConfig, EsClient, ShipConfig, SpoolConfig};
use crate::search::dead_letters::EventDeadLetters;
use crate::search::sqlite::{SqliteStore, StoreConfig};
use crate::search::store::Store;
use crate::{Error, Result};

/// Options that choose event sources.
#[derive(Debug, clap::Args)]
pub struct ListenerArgs {
    /// Listen for JSON lines with events and stream content; a bare port listens on 127.0.0.1, port 0 takes a free one [usual
    /// port: 5959]
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_listen_address)]
    lines: Option<SocketAddr>,
    /// Listen for JSON lines with stream content only [usual port: 5960]
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_listen_address)]
    content_lines: Option<SocketAddr>,
    /// Listen for syslog on udp:ADDR:PORT or tcp:ADDR:PORT; repeatable
    #[arg(long, value_name = "udp|tcp:ADDR:PORT", value_parser = SyslogListen::parse)]
    syslog: Vec<SyslogListen>,
    /// Serve the Elasticsearch-compatible HTTP API here; without users in the configuration only on a loopback address [usual
    /// port: 9200]
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_listen_address)]
    http: Option<SocketAddr>,
    /// Consume events and billing rows from RabbitMQ at amqp://USER:PASSWORD@HOST:PORT/VHOST, one JSON object per message; set
    /// the environment variable to keep the password out of the process list
    #[arg(long, value_name = "URL", env = "LEA_AMQP", hide_env_values = true, requires = "amqp_queue")]
    amqp: Option<String>,
    /// Name of an existing RabbitMQ queue
    #[arg(long, value_name = "NAME", requires = "amqp")]
    amqp_queue: Option<String>,
}

/// Options for handling events.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Events")]
pub struct EventArgs {
    /// Country of national numbers, two letters of ISO 3166-1 [default: defaultRegion of the configuration, else national
    /// numbers are not normalized]
    #[arg(long, value_name = "REGION")]
    default_region: Option<String>,
    /// How a number in an HTTP query matches: in every spelling, or only as it is written
    #[arg(long, value_enum, default_value_t = NumberMatch::Canonical)]
    number_match: NumberMatch,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Options for storing events in a cluster.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Cluster")]
struct ClusterArgs {
    /// Store events in a cluster (Elasticsearch 7.17 to 9, OpenSearch 2 or 3) instead of DIR: http[s]://USER:PASSWORD@HOST:9200.
    /// Senders get their acknowledgement when an event is in the spool (DIR/.lea/spool). Set the environment variable to keep
    /// the password out of the process list [default: cluster of the configuration, else none]
    #[arg(long, value_name = "URL", env = "LEA_CLUSTER", hide_env_values = true)]
    cluster: Option<String>,
    /// CA certificates (PEM) to verify an https cluster with [default: the system's CA certificates]
    #[arg(long, value_name = "FILE")]
    cluster_ca: Option<PathBuf>,
    /// Maximum size of the spool; senders wait while it is full
    #[arg(long, value_name = "BYTES", default_value = "4G", value_parser = parse_spool_bytes)]
    spool_bytes_max: u64,
    /// Delete daily indices that are older than N days [default: never]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=KEEP_DAYS_MAX))]
    keep_days: Option<u32>,
}

/// Timeout of a query to a cluster.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(30);

/// Minimum spool size: a bulk request must fit.
const SPOOL_BYTES_MIN: u64 = 1 << 20;

fn parse_spool_bytes(text: &str) -> Result<u64, String> {
    let bytes = units::bytes(text)?;
    if bytes < SPOOL_BYTES_MIN { Err("must be at least 1M".to_owned()) } else { Ok(bytes) }
}

/// How a number in a query matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum NumberMatch {
    /// In every spelling
    Canonical,
    /// Only as it is written
    Exact,
}

fn parse_listen_address(text: &str) -> Result<SocketAddr, String> {
    net::parse_listen_address(text).map_err(|error| error.to_string())
}

/// The checked settings of the event part.
pub struct EventServiceConfig {
    settings: EventSettings,
    normalizer: Arc<PhoneNumberNormalizer>,
    number_match: NumberMatch,
    /// The cluster that stores events; `None` for the embedded store.
    cluster: Option<ClusterConfig>,
}

/// A cluster as the event store.
struct ClusterConfig {
    client: EsClient,
    spool_bytes_max: u64,
    keep_days: Option<u32>,
}

impl ClusterArgs {
    /// Combines options and configuration; options win.
    fn resolve(&self, configured: &EventSettings) -> Result<Option<ClusterConfig>> {
        let url = self.cluster.as_deref().or(configured.cluster.as_deref()).filter(|url| !url.is_empty());
        let ca = self.cluster_ca.as_deref().or(configured.cluster_ca.as_deref());
        let keep_days = self.keep_days.or(configured.keep_days);
        let Some(url) = url else {
            return match (&self.cluster_ca, self.keep_days) {
                (None, None) => Ok(None),
                _ => Err(Error::Usage("--cluster-ca and --keep-days require --cluster".to_owned())),
            };
        };
        let client = EsClient::new("--cluster", url, None, ca)?;
        if client.url_indices().is_some() {
            let why = "--cluster: the URL must not contain an index; set index names in the configuration";
            return Err(Error::Usage(why.to_owned()));
        }
        Ok(Some(ClusterConfig { client, spool_bytes_max: self.spool_bytes_max, keep_days }))
    }
}

impl EventServiceConfig {
    /// Combines options and configuration; options win. Returns `None` if no source is switched on.
    pub fn resolve(
        config: &EffectiveConfig,
        listen: Option<&ListenerArgs>,
        events: &EventArgs,
    ) -> Result<Option<EventServiceConfig>> {
        let mut received = config.events.clone();
        if let Some(given) = listen.filter(|given| !given.is_empty()) {
            let ListenerArgs { lines, content_lines, syslog, http, amqp, amqp_queue } = given;
            let (lines, content_lines, http) = (*lines, *content_lines, *http);
            let amqp = amqp.as_deref().zip(amqp_queue.as_deref());
            let amqp = amqp.map(|(url, queue)| AmqpConfig::parse(url, queue)).transpose();
            let amqp = amqp.map_err(|why| Error::Usage(format!("--amqp: {why}")))?;
            received = EventSettings { lines, content_lines, syslog: syslog.clone(), amqp, http, ..received };
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
        let normalizer =
            PhoneNumberNormalizer::new(numbers).map_err(|error| Error::Usage(error.to_string()))?;
        let (normalizer, number_match) = (Arc::new(normalizer), events.number_match);
        let cluster = events.cluster.resolve(&received)?;
        Ok(Some(EventServiceConfig { settings: received, normalizer, number_match, cluster }))
    }

    /// Returns true if events are stored in a cluster.
    pub fn uses_cluster(&self) -> bool {
        self.cluster.is_some()
    }

    /// Opens the embedded store, or the spool for a cluster. `free_bytes_min` stay free on the disk.
    pub fn open(&self, dir: &Path, free_bytes_min: u64, metrics: &Arc<Metrics>) -> Result<EventStore> {
        let letters = Arc::new(EventDeadLetters::open(dir)?);
        let store: Arc<dyn Store> = match &self.cluster {
            Some(cluster) => {
                let config = ClusterStoreConfig {
                    client: cluster.client.clone(),
                    search_timeout: SEARCH_TIMEOUT,
                    normalizer: Some(Arc::clone(&self.normalizer)),
                    templates: billing::index_templates(&self.settings.indices.billing),
                    spool: SpoolConfig::of(cluster.spool_bytes_max, free_bytes_min),
                    ship: ShipConfig { keep_days: cluster.keep_days, ..ShipConfig::default() },
                };
                log::info!("store cluster={}", cluster.client.address());
                Arc::new(ClusterStore::open(dir, config, Arc::clone(&letters), Arc::clone(metrics))?)
            }
            None => {
                let left = cluster::count_spooled_events(dir)?;
                if left > 0 {
                    log::warn!(
                        "spool_not_empty events={left} note=\"these events are for a cluster: start with --cluster to send them\""
                    );
                }
                Arc::new(self.open_embedded(dir)?)
            }
        };
        Ok(EventStore { store, dead_letters: letters })
    }

    fn open_embedded(&self, dir: &Path) -> Result<SqliteStore> {
        let templates = billing::index_templates(&self.settings.indices.billing);
        let config = StoreConfig { templates, ..StoreConfig::default() };
        SqliteStore::open(dir, config.with_normalizer(Arc::clone(&self.normalizer)))
    }

    /// Starts all event sources. They run until shutdown.
    pub fn spawn(&self, start: &EventServiceDeps<'_>) -> Result<EventService> {
        let EventStore { store, dead_letters: letters } = start.event_store.clone();
        let intake = Arc::new(EventSink::new(Arc::clone(&store), letters, Arc::clone(start.metrics)));
        let config = SourcesConfig {
            lines: self.settings.lines,
            content_lines: self.settings.content_lines,
            syslog: self.settings.syslog.clone(),
            amqp: self.settings.amqp.clone(),
            patterns: self.settings.patterns.clone(),
            definitions: self.settings.definitions.clone(),
            indices: self.settings.indices.clone(),
            shutdown_timeout: start.shutdown_timeout,
        };
        let sources = Sources::spawn(&config, Arc::clone(&intake), start.vault, start.shutdown)?;
        match self.serve_http(start, intake) {
            Ok(http) => Ok(EventService { sources, http, store }),
            Err(error) => {
                start.shutdown.trigger();
                sources.join().and(Err(error))
            }
        }
    }

    fn serve_http(
        &self,
        start: &EventServiceDeps<'_>,
        intake: Arc<EventSink>,
    ) -> Result<Option<HttpServerHandle>> {
        let Some(addr) = self.settings.http else { return Ok(None) };
        let users =
            Users::new(self.settings.users.clone()).map_err(|error| Error::Usage(error.to_string()))?;
        let normalizer = match self.number_match {
            NumberMatch::Canonical => Some(Arc::clone(&self.normalizer)),
            NumberMatch::Exact => None,
        };
        let metrics = Arc::clone(start.metrics);
        let handler =
            EsApi::new(Arc::clone(&start.event_store.store), normalizer, users, Arc::clone(&metrics))
                .with_dead_letters(intake);
        let listener = net::bind(addr)?;
        let config = EsApi::server_config();
        let server = HttpServer::spawn(listener, config, Arc::new(handler), start.shutdown.clone(), metrics)?;
        logging::status_line(format_args!("listening addr={} listener=http", server.local_addr()));
        Ok(Some(server))
    }
}

impl ListenerArgs {
    fn is_empty(&self) -> bool {
        self.lines.is_none()
            && self.content_lines.is_none()
            && self.syslog.is_empty()
            && self.http.is_none()
            && self.amqp.is_none()
    }
}

/// The event store and its dead letters.
#[derive(Clone)]
pub struct EventStore {
    store: Arc<dyn Store>,
    dead_letters: Arc<EventDeadLetters>,
}

/// Dependencies of the event sources.
pub struct EventServiceDeps<'a> {
    pub event_store: EventStore,
    pub vault: &'a Vault,
    pub metrics: &'a Arc<Metrics>,
    /// Time after shutdown during which peers' input is still received.
    pub shutdown_timeout: Duration,
    pub shutdown: &'a Shutdown,
}

/// The running event part.
pub struct EventService {
    sources: Sources,
    http: Option<HttpServerHandle>,
    store: Arc<dyn Store>,
}

impl EventService {
    /// Sets the time after which sources no longer wait for a store that accepts no events.
    pub fn give_up_at(&self, at: Instant) {
        self.sources.give_up_at(at);
        self.store.set_shutdown_deadline(at);
    }

    /// Joins all threads. Returns after shutdown, when all received events are stored.
    pub fn join(self) -> Result<()> {
        let received = self.sources.join();
        received.and(self.http.map_or(Ok(()), HttpServerHandle::join))
    }
}
