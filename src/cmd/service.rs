//! What the long-running commands share: where streams are stored, how they are received, how it all ends.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use ipnet::IpNet;

use super::event_service::{EventConfig, EventService, EventStart};
use super::kafka::{self, KafkaConfig};
use super::values;
use crate::cc::live::Live;
use crate::cc::source::tcp::{self, Receiver, TcpConfig, Timing};
use crate::cc::vault::{Access, Losses, Vault, VaultConfig, VaultThreads};
use crate::cli::Globals;
use crate::config::{self, Effective};
use crate::counters::Counters;
use crate::http::{self, Server, ServerConfig, ServerHandle, status::Status};
use crate::limits::Machine;
use crate::logging;
use crate::stop::Stop;
use crate::{Error, Exit, Result};

/// HTTP connections of --status at once: a few people and a collector.
const STATUS_CONNECTIONS_MAX: usize = 32;

/// How often a thread that failed is looked for.
const WATCH: Duration = Duration::from_secs(1);

/// Options of every long-running command.
#[derive(Debug, clap::Args)]
pub struct ServiceArgs {
    /// Configuration file [default: config/configurationFile.conf]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    common: CommonArgs,
}

/// How any service ends, and what it shows of itself.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Service")]
struct CommonArgs {
    /// After a signal, go on reading a stream that does not end for so long, in ms; a full disk is not waited for
    /// longer either
    #[arg(long, value_name = "MS", default_value_t = 2_000)]
    drain_ms: u64,
    /// Serve /health, /metrics and /streams over HTTP here; a bare port is one of 127.0.0.1 [default: off]
    #[arg(long, value_name = "ADDR:PORT")]
    status: Option<String>,
}

/// Where and how streams are stored.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Storage")]
pub struct StoreArgs {
    /// Folder for stream files and their manifests; made if it is not there
    #[arg(short, long, value_name = "DIR", default_value = "interceptions")]
    output: PathBuf,
    /// How stream files are hashed
    #[arg(long, value_enum, default_value_t = Hash::Sha256)]
    hash: Hash,
    /// Permission bits of stream files and manifests, in octal; folders that are made get the matching ones
    #[arg(long, value_name = "MODE", default_value = "0600", value_parser = values::mode)]
    file_mode: u32,
    /// Group that stream files, manifests and folders that are made belong to, by name or number
    #[arg(long, value_name = "GROUP")]
    file_group: Option<String>,
    /// Sync growing files this often
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = values::duration)]
    sync_interval: Duration,
    /// Memory for packets that have begun, of all streams together; past it the largest is written unfinished
    #[arg(long, value_name = "BYTES", default_value = "64M", value_parser = values::bytes)]
    pending_bytes_max: u64,
    /// Keep so much room free on the disk: below it streams wait, as on a full disk [default: 16M, for manifests]
    #[arg(long, value_name = "BYTES", default_value = "16M", hide_default_value = true, value_parser = values::bytes)]
    free_bytes_min: u64,
}

/// How streams over TCP are received.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Receiving")]
pub struct TcpArgs {
    /// End a stream's name after so much quiet, in ms
    #[arg(long, value_name = "MS", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    name_gap_ms: u64,
    /// Refuse a peer that has sent nothing for so long, in ms
    #[arg(long, value_name = "MS", default_value_t = 60_000, value_parser = clap::value_parser!(u64).range(1..))]
    handshake_timeout_ms: u64,
    /// End a stream that has been silent for so long; 0 never does (a call may be on hold for hours)
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = values::duration)]
    idle_timeout: Duration,
    /// The same as --file-group
    #[arg(long, value_name = "GROUP", conflicts_with = "file_group")]
    group: Option<String>,
    /// Streams at once [default: what descriptors, memory maps and threads of this machine carry]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    streams_max: Option<u64>,
    /// End a stream after so many bytes, 0 never [default: 1T, months of any call: only a runaway sender gets there]
    #[arg(long, value_name = "BYTES", default_value = "1T", hide_default_value = true, value_parser = values::bytes)]
    stream_bytes_max: u64,
    /// Accept these peers alone; repeatable [default: all]
    #[arg(long, value_name = "CIDR", value_parser = network)]
    allow: Vec<IpNet>,
}

/// How files are hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Hash {
    /// SHA-256, as the bytes come
    Sha256,
    /// Not at all
    None,
}

/// A network, or one address. IPv4 in the words of IPv6 (`::ffff:192.0.2.0/120`) is IPv4.
fn network(text: &str) -> Result<IpNet, String> {
    let network = text
        .parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| "write a network like 192.0.2.0/24 or an address".to_owned())?;
    let prefix_len = network.prefix_len().checked_sub(96);
    Ok(match (network.addr().to_canonical(), prefix_len) {
        (addr @ IpAddr::V4(_), Some(prefix_len)) => IpNet::new(addr, prefix_len).unwrap_or(network),
        _ => network,
    })
}

/// A checked configuration of a long-running command.
pub struct Service {
    vault: VaultConfig,
    tcp: Option<TcpConfig>,
    kafka: Option<KafkaConfig>,
    events: Option<EventConfig>,
    status: Option<SocketAddr>,
    drain: Duration,
}

impl ServiceArgs {
    /// Reads the configuration and starts the log.
    pub fn start(&self, globals: &Globals) -> Result<Effective> {
        let effective = config::load(self.config.as_deref(), &config::environment)?;
        logging::start(globals.level(effective.logger_level));
        effective.log_warnings();
        Ok(effective)
    }
}

/// The addresses of a configured listener.
pub fn addresses(listen: &config::Listen) -> Result<Vec<SocketAddr>> {
    let found = (listen.address.as_str(), listen.port).to_socket_addrs();
    Ok(found.map_err(Error::net("look up", listen))?.collect())
}

impl StoreArgs {
    /// Checks the options. `group` is the files' group where `--file-group` does not say it; the files may have so many
    /// descriptors.
    pub fn resolve(self, group: Option<String>, descriptors: usize) -> Result<VaultConfig> {
        let group = self.file_group.or(group);
        Ok(VaultConfig {
            dir: self.output,
            access: Access { file_mode: self.file_mode, group: group.as_deref().map(group_id).transpose()? },
            hash: self.hash == Hash::Sha256,
            pending_bytes_max: self.pending_bytes_max,
            descriptors,
            free_bytes_min: self.free_bytes_min,
            sync_interval: self.sync_interval.max(Duration::from_millis(1)),
        })
    }
}

impl TcpArgs {
    fn resolve(self, listen: Vec<SocketAddr>, machine: Machine, drain: Duration) -> TcpConfig {
        let carried = machine.streams_max();
        let asked = self.streams_max.map(|asked| usize::try_from(asked).unwrap_or(usize::MAX));
        if let Some(asked) = asked.filter(|asked| *asked > carried) {
            log::warn!("streams_max_lowered asked={asked} carried={carried} machine={machine:?}");
        }
        TcpConfig {
            listen,
            allow: self.allow,
            streams_max: asked.unwrap_or(carried).min(carried),
            stream_bytes_max: if self.stream_bytes_max == 0 { u64::MAX } else { self.stream_bytes_max },
            timing: Timing {
                name_gap: Duration::from_millis(self.name_gap_ms),
                handshake_timeout: Duration::from_millis(self.handshake_timeout_ms),
                idle_timeout: (!self.idle_timeout.is_zero()).then_some(self.idle_timeout),
                drain,
            },
        }
    }
}

impl Service {
    /// Checks the options against each other and the machine. `tcp`: where to listen, and how; `kafka`: what to
    /// consume; `events`: what is received as events.
    pub fn resolve(
        args: ServiceArgs,
        tcp: Option<(Vec<SocketAddr>, TcpArgs)>,
        kafka: Option<KafkaConfig>,
        events: Option<EventConfig>,
    ) -> Result<Service> {
        let ServiceArgs { store, common, .. } = args;
        kafka.as_ref().map_or(Ok(()), KafkaConfig::check)?;
        let machine = Machine::prepare();
        let drain = Duration::from_millis(common.drain_ms);
        // `--group` means the files' group where there is no other: consume-kafka has the consumers' one.
        // `--group` means the files' group where there is no other: consume-kafka has the consumers' one.
        let group = tcp.as_ref().and_then(|(_, args)| args.group.clone());
        Ok(Service {
            vault: store.resolve(group, machine.descriptors_shared())?,
            tcp: tcp.map(|(listen, args)| args.resolve(listen, machine, drain)),
            kafka,
            events,
            status: common.status.as_deref().map(http::listen_address).transpose()?,
            drain,
        })
    }

    /// Receives until a signal, then drains.
    pub fn run(self) -> Result<Exit> {
        let stop = Stop::on_signals()?;
        let counters = Arc::new(Counters::default());
        let started = Instant::now();
        let (vault, threads) = Vault::spawn(&self.vault, Arc::clone(&counters))?;
        let pressure = Arc::clone(vault.pressure());
        let served = self.serve(vault, &threads, &counters, &stop);
        if served.is_err() {
            // Nothing was received: neither a full disk nor a long recovery is waited for.
            pressure.give_up_at(Instant::now());
        }
        // First the vault: a dead writer is the cause, a failed stream is not.
        let losses = threads.join()?;
        served?;
        summarize(&counters, &losses, self.events.as_ref(), started.elapsed());
        let is_whole = losses.is_none() && counters.events_lost_total.get() == 0;
        Ok(if is_whole { Exit::Done } else { Exit::Failed })
    }

    /// Listens, until the last stream has ended. Drops the vault, so that its threads end.
    fn serve(
        &self,
        vault: Vault,
        threads: &VaultThreads,
        counters: &Arc<Counters>,
        stop: &Stop,
    ) -> Result<()> {
        let live = Arc::new(Live::default());
        let status_stop = Stop::new()?;
        let receiver = self.receive(&vault, &live, counters, stop)?;
        let status = self.serve_status(&vault, &live, counters, stop, &status_stop)?;
        if let Some(status) = &status {
            logging::say(format_args!("listening addr={} for=status", status.local_addr()));
        }
        let consumer = self.kafka.clone().map(|kafka| {
            let (live, counters) = (Arc::clone(&live), Arc::clone(counters));
            kafka.spawn(vault.clone(), live, counters, self.vault.sync_interval, stop)
        });
        let consumer = consumer.transpose().inspect_err(|_| stop.ask());
        let events = self.serve_events(&vault, counters, stop).inspect_err(|_| stop.ask());
        while !stop.wait(WATCH) {
            if threads.has_ended() {
                log::error!("vault_ended note=\"nothing can be stored any more\"");
                stop.ask();
            }
        }
        log::info!("draining streams={}", live.count());
        let give_up_at = Instant::now() + self.drain;
        vault.give_up_at(give_up_at);
        if let Ok(Some(events)) = &events {
            events.give_up_at(give_up_at);
        }
        let received = receiver.map_or(Ok(()), Receiver::join);
        let consumed = consumer.and_then(|consumer| consumer.map_or(Ok(()), kafka::join));
        let taken = events.and_then(|events| events.map_or(Ok(()), EventService::join));
        status_stop.ask();
        let answered = status.map_or(Ok(()), ServerHandle::join);
        received.and(consumed).and(taken).and(answered)
    }

    /// Listens for streams over TCP.
    fn receive(
        &self,
        vault: &Vault,
        live: &Arc<Live>,
        counters: &Arc<Counters>,
        stop: &Stop,
    ) -> Result<Option<Receiver>> {
        let Some(config) = &self.tcp else { return Ok(None) };
        let listeners = config.listen.iter().map(|addr| tcp::bind(*addr)).collect::<Result<Vec<_>>>()?;
        let mut bound = Vec::new();
        for listener in &listeners {
            bound.push(listener.local_addr().map_err(Error::system("read a listener's address"))?);
        }
        let (live, counters) = (Arc::clone(live), Arc::clone(counters));
        let receiver = Receiver::spawn(listeners, config, vault.clone(), live, counters, stop)?;
        for addr in bound {
            logging::say(format_args!("listening addr={addr} for=tcp"));
        }
        Ok(Some(receiver))
    }

    /// Opens the store and listens for events. The store's threads end with the last that holds it.
    fn serve_events(
        &self,
        vault: &Vault,
        counters: &Arc<Counters>,
        stop: &Stop,
    ) -> Result<Option<EventService>> {
        let Some(config) = &self.events else { return Ok(None) };
        let opened = config.open(&self.vault.dir, self.vault.free_bytes_min, counters)?;
        let start = EventStart { opened, vault, counters, drain: self.drain, stop };
        config.spawn(&start).map(Some)
    }

    fn serve_status(
        &self,
        vault: &Vault,
        live: &Arc<Live>,
        counters: &Arc<Counters>,
        stop: &Stop,
        status_stop: &Stop,
    ) -> Result<Option<ServerHandle>> {
        let Some(addr) = self.status else { return Ok(None) };
        let handler =
            Status::new(stop.clone(), Arc::clone(vault.pressure()), Arc::clone(counters), Arc::clone(live));
        let config = ServerConfig {
            name: "status",
            connections_max: STATUS_CONNECTIONS_MAX,
            ..ServerConfig::default()
        };
        let listener = tcp::bind(addr)?;
        Server::spawn(listener, config, Arc::new(handler), status_stop.clone(), Arc::clone(counters))
            .map(Some)
    }
}

/// The number of a group that is named, or is a number.
pub fn group_id(group: &str) -> Result<u32> {
    if let Ok(id) = group.parse() {
        return Ok(id);
    }
    match nix::unistd::Group::from_name(group) {
        Ok(Some(found)) => Ok(found.gid.as_raw()),
        Ok(None) => Err(Error::Usage(format!("there is no group {group:?}"))),
        Err(error) => Err(Error::System { act: "look the group up", source: error.into() }),
    }
}

fn summarize(counters: &Counters, losses: &Losses, events: Option<&EventConfig>, time: Duration) {
    let refused = [
        &counters.refused_peer_total,
        &counters.refused_streams_max_total,
        &counters.refused_thread_total,
        &counters.refused_silent_total,
        &counters.refused_name_total,
    ];
    let queue = if events.is_some_and(EventConfig::is_cluster) {
        format!(
            " confirmed_events={} queued_events={} queued_bytes={} retried_events={} refused_events={}",
            counters.cluster_confirmed_total.get(),
            counters.queue_events.get(),
            counters.queue_bytes.get(),
            counters.cluster_retries_total.get(),
            counters.cluster_refused_total.get(),
        )
    } else {
        String::new()
    };
    let events = if events.is_some() {
        format!(
            " events={} data_lines={} dead_letters={} dropped_datagrams={} kernel_dropped_datagrams={} \
             lost_events={}",
            counters.events_stored_total.get(),
            counters.event_data_lines_total.get(),
            counters.event_dead_letters_total.get(),
            counters.syslog_udp_dropped_total.get(),
            counters.syslog_udp_kernel_dropped_total.get(),
            counters.events_lost_total.get(),
        )
    } else {
        String::new()
    };
    logging::say(format_args!(
        "summary connections={} refused={} bytes={} packets={} written_bytes={} lost_bytes={} \
         incomplete_streams={}{events}{queue} seconds={:.3}",
        counters.streams_accepted_total.get(),
        refused.iter().map(|counter| counter.get()).sum::<u64>(),
        counters.received_bytes_total.get(),
        counters.packets_total.get(),
        counters.written_bytes_total.get(),
        losses.bytes,
        losses.streams + losses.files,
        time.as_secs_f64(),
    ));
}
