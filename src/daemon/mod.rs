//! Starts, runs and drains the daemon: the part that `run`, `serve-tcp`, `serve-events` and `consume-kafka` share.

pub mod admin;
pub(crate) mod events;
pub(crate) mod kafka;

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use ipnet::IpNet;

use crate::cc::ingest::kafka::consume::Consumed;
use crate::cc::ingest::tcp::{TcpConfig, TcpReceiver, TcpTimeouts};
use crate::cc::stream_registry::StreamRegistry;
use crate::cc::vault::{Access, LossTotals, Vault, VaultConfig, VaultThreads};
use crate::cli::Globals;
use crate::cmd::args::units;
use crate::config::{self, EffectiveConfig};
use crate::daemon::admin::AdminHandler;
use crate::daemon::events::{EventService, EventServiceConfig, EventServiceDeps};
use crate::daemon::kafka::KafkaConfig;
use crate::http::{HttpServer, HttpServerConfig, HttpServerHandle};
use crate::limits::MachineLimits;
use crate::runtime::metrics::Metrics;
use crate::runtime::shutdown::Shutdown;
use crate::runtime::{logging, net};
use crate::{Error, Exit, Result};

/// HTTP connections of --admin-listen at the same time: a few people and a metrics collector.
const ADMIN_CONNECTIONS_MAX: usize = 32;

/// Interval at which failed threads are looked for.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Options of every daemon command.
#[derive(Debug, clap::Args)]
pub struct ServiceArgs {
    /// Configuration file [default: config/configurationFile.conf]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    store: OutputArgs,
    #[command(flatten)]
    common: DaemonArgs,
}

/// Options for shutdown and monitoring.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Service")]
struct DaemonArgs {
    /// Time after a signal for open streams to end and pending writes to complete; then the rest is given up
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = units::duration)]
    shutdown_timeout: Duration,
    /// Serve /health, /metrics and /streams over HTTP on this address; a port alone means 127.0.0.1 [default: off]
    #[arg(long, value_name = "ADDR:PORT", value_parser = net::parse_listen_address)]
    admin_listen: Option<SocketAddr>,
}

/// Options for the output directory.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Storage")]
pub struct OutputArgs {
    /// Output directory for stream files and their manifests; created if it does not exist
    #[arg(short, long, value_name = "DIR", default_value = "interceptions")]
    output: PathBuf,
    /// Hash algorithm for stream files
    #[arg(long, value_enum, default_value_t = HashAlgorithm::Sha256)]
    hash: HashAlgorithm,
    /// Permission bits of stream files and manifests, in octal; new directories get the matching ones
    #[arg(long, value_name = "MODE", default_value = "0600", value_parser = units::mode)]
    file_mode: u32,
    /// Group of stream files, manifests and new directories, by name or number
    #[arg(long, value_name = "GROUP")]
    file_group: Option<String>,
    /// Interval between fsyncs of a growing file
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = units::duration)]
    sync_interval: Duration,
    /// Memory for partial packets over all streams; at the limit the largest is written before it is complete
    #[arg(long, value_name = "BYTES", default_value = "64M", value_parser = units::bytes)]
    partial_packet_memory: u64,
    /// Disk space that stays free: below it streams wait, as on a full disk [default: 16M, for manifests]
    #[arg(long, value_name = "BYTES", default_value = "16M", hide_default_value = true, value_parser = units::bytes)]
    reserve_disk: u64,
}

/// Options for receiving streams over TCP.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Receiving")]
pub struct TcpArgs {
    /// Pause after which a stream's name is complete, 1ms to 1m
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = units::duration_in(1..=60_000))]
    name_timeout: Duration,
    /// Close a connection that sends nothing for this time
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = units::duration_in(1..=31_536_000_000))]
    handshake_timeout: Duration,
    /// End a stream that sends nothing for this time; 0 never does (a call may be on hold for hours)
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = units::duration)]
    idle_timeout: Duration,
    /// Maximum number of open streams [default: limited by descriptors, memory maps and threads of this machine]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    streams_max: Option<u64>,
    /// Maximum size of a stream, 0 for no limit [default: 1T; only a runaway sender reaches that]
    #[arg(long, value_name = "BYTES", default_value = "1T", hide_default_value = true, value_parser = units::bytes)]
    stream_bytes_max: u64,
    /// Accept connections only from this network; repeatable [default: all networks]
    #[arg(long, value_name = "CIDR", value_parser = parse_network)]
    allow: Vec<IpNet>,
}

/// Hash algorithm for stream files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum HashAlgorithm {
    /// SHA-256, updated as bytes arrive
    Sha256,
    /// No hash
    None,
}

/// Parses a network or an address. An IPv4-mapped IPv6 network (`::ffff:192.0.2.0/120`) becomes an IPv4 network.
fn parse_network(text: &str) -> Result<IpNet, String> {
    let network = text
        .parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| "expected a network such as 192.0.2.0/24, or an address".to_owned())?;
    let prefix_len = network.prefix_len().checked_sub(96);
    Ok(match (network.addr().to_canonical(), prefix_len) {
        (addr @ IpAddr::V4(_), Some(prefix_len)) => IpNet::new(addr, prefix_len).unwrap_or(network),
        _ => network,
    })
}

/// The checked settings of a daemon command.
pub struct Service {
    vault: VaultConfig,
    tcp: Option<TcpConfig>,
    kafka: Option<KafkaConfig>,
    events: Option<EventServiceConfig>,
    admin_listen: Option<SocketAddr>,
    shutdown_timeout: Duration,
}

impl ServiceArgs {
    /// Reads the configuration and starts the log.
    pub fn load_config(&self, globals: &Globals) -> Result<EffectiveConfig> {
        let effective = config::load(self.config.as_deref(), &config::environment)?;
        logging::start(globals.level(effective.logger_level));
        effective.log_warnings();
        Ok(effective)
    }
}

/// Resolves the address of a configured listener.
pub fn resolve_addresses(listen: &config::HostPort) -> Result<Vec<SocketAddr>> {
    let found = (listen.address.as_str(), listen.port).to_socket_addrs();
    Ok(found.map_err(Error::net("look up", listen))?.collect())
}

impl OutputArgs {
    /// Checks the options. `descriptors` is the number of descriptors that stream files may use.
    pub fn resolve(self, descriptors: usize) -> Result<VaultConfig> {
        let group = self.file_group;
        Ok(VaultConfig {
            dir: self.output,
            access: Access {
                file_mode: self.file_mode,
                group: group.as_deref().map(look_up_group).transpose()?,
            },
            hash: self.hash == HashAlgorithm::Sha256,
            partial_packet_bytes_max: self.partial_packet_memory,
            descriptors,
            free_bytes_min: self.reserve_disk,
            sync_interval: self.sync_interval.max(Duration::from_millis(1)),
        })
    }
}

impl TcpArgs {
    fn resolve(self, listen: Vec<SocketAddr>, machine: MachineLimits, drain: Duration) -> TcpConfig {
        let carried = machine.streams_max();
        let asked = self.streams_max.map(|asked| usize::try_from(asked).unwrap_or(usize::MAX));
        if let Some(asked) = asked.filter(|asked| *asked > carried) {
            log::warn!("streams_max_lowered requested={asked} limit={carried} machine={machine:?}");
        }
        TcpConfig {
            listen,
            allow: self.allow,
            streams_max: asked.unwrap_or(carried).min(carried),
            stream_bytes_max: if self.stream_bytes_max == 0 { u64::MAX } else { self.stream_bytes_max },
            timing: TcpTimeouts {
                name_timeout: self.name_timeout,
                handshake_timeout: self.handshake_timeout,
                idle_timeout: (!self.idle_timeout.is_zero()).then_some(self.idle_timeout),
                shutdown_timeout: drain,
            },
        }
    }
}

impl Service {
    /// Checks the options against each other and against the limits of the machine. `tcp` has the listen addresses and options
    /// of the TCP listener.
    pub fn resolve(
        args: ServiceArgs,
        tcp: Option<(Vec<SocketAddr>, TcpArgs)>,
        kafka: Option<KafkaConfig>,
        events: Option<EventServiceConfig>,
    ) -> Result<Service> {
        let ServiceArgs { store, common, .. } = args;
        kafka.as_ref().map_or(Ok(()), KafkaConfig::check)?;
        let machine = MachineLimits::detect();
        let drain = common.shutdown_timeout;
        Ok(Service {
            vault: store.resolve(machine.descriptors_shared())?,
            tcp: tcp.map(|(listen, args)| args.resolve(listen, machine, drain)),
            kafka,
            events,
            admin_listen: common.admin_listen,
            shutdown_timeout: drain,
        })
    }

    /// Receives until a signal, then drains.
    pub fn run(self) -> Result<Exit> {
        let shutdown = Shutdown::on_signals()?;
        let metrics = Arc::new(Metrics::default());
        let started = Instant::now();
        let (vault, threads) = Vault::spawn(&self.vault, Arc::clone(&metrics))?;
        let pressure = Arc::clone(vault.disk_retry());
        let served = self.serve(vault, &threads, &metrics, &shutdown);
        if served.is_err() {
            // Nothing was received, so neither a full disk nor a long recovery delays the exit.
            pressure.give_up_at(Instant::now());
        }
        // The writer is joined first: its error is the cause, an error of a receiver is the symptom.
        let losses = threads.join()?;
        let consumed = served?;
        print_summary(&metrics, &losses, self.events.as_ref(), started.elapsed());
        let is_whole = losses.is_zero() && metrics.events_lost_total.get() == 0;
        let exit = self.kafka.as_ref().zip(consumed).map_or(Exit::Done, |(kafka, all)| kafka.exit(&all));
        Ok(if is_whole { exit } else { Exit::Failed })
    }

    /// Runs all receivers until the last stream has ended, then drops the vault, which ends its threads. Returns the result of
    /// the Kafka consumer.
    fn serve(
        &self,
        vault: Vault,
        threads: &VaultThreads,
        metrics: &Arc<Metrics>,
        shutdown: &Shutdown,
    ) -> Result<Option<Consumed>> {
        let live = Arc::new(StreamRegistry::default());
        let admin_shutdown = Shutdown::new()?;
        let receiver = self.start_tcp(&vault, &live, metrics, shutdown)?;
        let status = self.start_admin(&vault, &live, metrics, shutdown, &admin_shutdown)?;
        if let Some(status) = &status {
            logging::status_line(format_args!("listening addr={} listener=admin", status.local_addr()));
        }
        let consumer = self.kafka.clone().map(|kafka| {
            let (live, metrics) = (Arc::clone(&live), Arc::clone(metrics));
            kafka.spawn(vault.clone(), live, metrics, self.vault.sync_interval, shutdown)
        });
        let consumer = consumer.transpose().inspect_err(|_| shutdown.trigger());
        let events = self.start_events(&vault, metrics, shutdown).inspect_err(|_| shutdown.trigger());
        while !shutdown.wait(WATCH_INTERVAL) {
            if threads.has_thread_ended() {
                log::error!("vault_failed note=\"no stream can be stored any more\"");
                shutdown.trigger();
            }
        }
        log::info!("draining streams={}", live.count());
        let give_up_at = Instant::now() + self.shutdown_timeout;
        vault.give_up_at(give_up_at);
        if let Ok(Some(events)) = &events {
            events.give_up_at(give_up_at);
        }
        let received = receiver.map_or(Ok(()), TcpReceiver::join);
        let consumed = consumer.and_then(|consumer| consumer.map(kafka::join).transpose());
        let taken = events.and_then(|events| events.map_or(Ok(()), EventService::join));
        admin_shutdown.trigger();
        let answered = status.map_or(Ok(()), HttpServerHandle::join);
        received.and(consumed).and_then(|consumed| taken.and(answered).map(|()| consumed))
    }

    fn start_tcp(
        &self,
        vault: &Vault,
        live: &Arc<StreamRegistry>,
        metrics: &Arc<Metrics>,
        shutdown: &Shutdown,
    ) -> Result<Option<TcpReceiver>> {
        let Some(config) = &self.tcp else { return Ok(None) };
        let listeners = config.listen.iter().map(|addr| net::bind(*addr)).collect::<Result<Vec<_>>>()?;
        let bound = listeners.iter().map(net::local_addr).collect::<Result<Vec<_>>>()?;
        let (live, metrics) = (Arc::clone(live), Arc::clone(metrics));
        let receiver = TcpReceiver::spawn(listeners, config, vault.clone(), live, metrics, shutdown)?;
        for addr in bound {
            logging::status_line(format_args!("listening addr={addr} listener=tcp"));
        }
        Ok(Some(receiver))
    }

    /// Opens the event store and starts the event sources. The store's threads end when its last handle is dropped.
    fn start_events(
        &self,
        vault: &Vault,
        metrics: &Arc<Metrics>,
        shutdown: &Shutdown,
    ) -> Result<Option<EventService>> {
        let Some(config) = &self.events else { return Ok(None) };
        let opened = config.open(&self.vault.dir, self.vault.free_bytes_min, metrics)?;
        let start = EventServiceDeps {
            event_store: opened,
            vault,
            metrics,
            shutdown_timeout: self.shutdown_timeout,
            shutdown,
        };
        config.spawn(&start).map(Some)
    }

    fn start_admin(
        &self,
        vault: &Vault,
        live: &Arc<StreamRegistry>,
        metrics: &Arc<Metrics>,
        shutdown: &Shutdown,
        admin_shutdown: &Shutdown,
    ) -> Result<Option<HttpServerHandle>> {
        let Some(addr) = self.admin_listen else { return Ok(None) };
        let handler = AdminHandler::new(
            shutdown.clone(),
            Arc::clone(vault.disk_retry()),
            Arc::clone(metrics),
            Arc::clone(live),
        );
        let config = HttpServerConfig {
            name: "admin",
            connections_max: ADMIN_CONNECTIONS_MAX,
            ..HttpServerConfig::default()
        };
        let listener = net::bind(addr)?;
        HttpServer::spawn(listener, config, Arc::new(handler), admin_shutdown.clone(), Arc::clone(metrics))
            .map(Some)
    }
}

/// Returns the ID of a group that is given by name or number.
pub fn look_up_group(group: &str) -> Result<u32> {
    if let Ok(id) = group.parse() {
        return Ok(id);
    }
    match nix::unistd::Group::from_name(group) {
        Ok(Some(found)) => Ok(found.gid.as_raw()),
        Ok(None) => Err(Error::Usage(format!("group {group:?} does not exist"))),
        Err(error) => Err(Error::System { act: "look up the group", source: error.into() }),
    }
}

fn print_summary(
    metrics: &Metrics,
    losses: &LossTotals,
    events: Option<&EventServiceConfig>,
    time: Duration,
) {
    let tcp = metrics.listener("tcp");
    let spool = if events.is_some_and(EventServiceConfig::uses_cluster) {
        format!(
            " acked_events={} spool_events={} spool_bytes={} retried_events={} rejected_events={}",
            metrics.cluster_acked_total.get(),
            metrics.spool_events.get(),
            metrics.spool_bytes.get(),
            metrics.cluster_retries_total.get(),
            metrics.cluster_rejected_total.get(),
        )
    } else {
        String::new()
    };
    let events = if events.is_some() {
        format!(
            " events={} content_lines={} dead_letters={} dropped_datagrams={} kernel_dropped_datagrams={} \
             lost_events={}",
            metrics.events_stored_total.get(),
            metrics.content_lines_total.get(),
            metrics.event_dead_letters_total.get(),
            metrics.syslog_dropped_queue_full.get(),
            metrics.syslog_dropped_kernel.get(),
            metrics.events_lost_total.get(),
        )
    } else {
        String::new()
    };
    logging::status_line(format_args!(
        "summary connections={} rejected={} bytes={} packets={} written_bytes={} lost_bytes={} \
         incomplete_streams={}{events}{spool} seconds={:.3}",
        tcp.connections.get(),
        tcp.rejected_total(),
        metrics.received_bytes_total.get(),
        metrics.packets_total.get(),
        metrics.written_bytes_total.get(),
        losses.bytes,
        losses.streams + losses.files,
        time.as_secs_f64(),
    ));
}
