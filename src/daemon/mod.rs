//! Starts, runs and drains the daemon: the part that `run`, `serve-tcp`, `serve-events` and `consume-kafka` share. Runs in
//! the main thread.
//!
//! Order of a shutdown: the signal ends the input, receivers are joined, the last handle of the vault is dropped, which
//! ends its threads, these are joined, and one summary line is printed.

pub mod admin;
pub(crate) mod events;
pub(crate) mod kafka;
mod retention;
pub(crate) mod settings;
pub(crate) mod sources;
mod summary;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::cc::ingest::kafka::consume::Consumed;
use crate::cc::ingest::tcp::{TcpConfig, TcpReceiver};
use crate::cc::stream_registry::StreamRegistry;
use crate::cc::vault::{Vault, VaultConfig, VaultThreads};
use crate::daemon::admin::AdminHandler;
use crate::daemon::events::{EventService, EventServiceConfig, EventServiceDeps};
use crate::daemon::kafka::KafkaConfig;
use crate::http::{HttpServer, HttpServerConfig, HttpServerHandle, RequestGuard, machine_names};
use crate::runtime::health::Problem;
use crate::runtime::metrics::Metrics;
use crate::runtime::shutdown::Shutdown;
use crate::runtime::{logging, net, threads};
use crate::{Exit, Result};

/// HTTP connections of --admin-listen at the same time: a few people and a metrics collector.
const ADMIN_CONNECTIONS_MAX: usize = 32;

/// Interval at which failed threads are looked for.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// The checked settings of a daemon.
pub(crate) struct ServiceConfig {
    pub vault: VaultConfig,
    pub tcp: Option<TcpConfig>,
    pub kafka: Option<KafkaConfig>,
    pub events: Option<EventServiceConfig>,
    pub admin_listen: Option<SocketAddr>,
    /// Time after shutdown during which input is still received.
    pub shutdown_timeout: Duration,
}

/// A daemon that was not started yet.
pub(crate) struct Service {
    config: ServiceConfig,
    metrics: Arc<Metrics>,
    live: Arc<StreamRegistry>,
}

/// The running receivers. A receiver that could not be started is an error in its place.
struct Receivers {
    tcp: Option<TcpReceiver>,
    admin: Option<HttpServerHandle>,
    admin_shutdown: Shutdown,
    kafka: Result<Option<JoinHandle<Result<Consumed>>>>,
    events: Result<Option<EventService>>,
}

impl Service {
    pub(crate) fn new(config: ServiceConfig) -> Service {
        Service { config, metrics: Arc::default(), live: Arc::default() }
    }

    /// Receives until a signal, then drains.
    pub(crate) fn run(self) -> Result<Exit> {
        let shutdown = Shutdown::on_signals()?;
        let started = Instant::now();
        let (vault, threads) = Vault::spawn(&self.config.vault, Arc::clone(&self.metrics))?;
        let disk_retry = Arc::clone(vault.disk_retry());
        let served = self.serve(vault, &threads, &shutdown);
        if served.is_err() {
            // Nothing was received, so neither a full disk nor a long recovery delays the exit.
            disk_retry.give_up_at(Instant::now());
        }
        // The writer is joined first: its error is the cause, an error of a receiver is the symptom.
        let losses = threads.join()?;
        let consumed = served?;
        let events = self.config.events.as_ref();
        let cluster = events.is_some_and(EventServiceConfig::uses_cluster);
        let used = summary::UsedParts { events: events.is_some(), cluster };
        summary::print(&self.metrics, &losses, used, started.elapsed());
        let is_whole = losses.is_zero() && !self.metrics.has_failed();
        let kafka = self.config.kafka.as_ref().zip(consumed);
        let exit = kafka.map_or(Exit::Done, |(kafka, consumed)| kafka.exit(&consumed));
        Ok(if is_whole { exit } else { Exit::Failed })
    }

    /// Runs all receivers until the last stream has ended, then drops the vault, which ends its threads. Returns the result of
    /// the Kafka consumer.
    fn serve(&self, vault: Vault, threads: &VaultThreads, shutdown: &Shutdown) -> Result<Option<Consumed>> {
        let receivers = self.start(&vault, shutdown)?;
        while !shutdown.wait(WATCH_INTERVAL) {
            if threads.has_thread_ended() {
                log::error!("vault_failed note=\"no stream can be stored any more\"");
                shutdown.trigger();
            }
            if self.metrics.health.is_raised(Problem::OutputRemoved) {
                shutdown.trigger();
            }
        }
        log::info!("draining streams={}", self.live.count());
        let give_up_at = Instant::now() + self.config.shutdown_timeout;
        vault.give_up_at(give_up_at);
        receivers.drain(give_up_at)
    }

    /// Starts all receivers. An error of a later receiver triggers shutdown, so that the earlier ones drain.
    fn start(&self, vault: &Vault, shutdown: &Shutdown) -> Result<Receivers> {
        let admin_shutdown = Shutdown::new()?;
        // The admin server holds no handle of the vault, so an error of the TCP listener may leave it running.
        let admin = self.start_admin(shutdown, &admin_shutdown)?;
        let tcp = self.start_tcp(vault, shutdown)?;
        let kafka = self.config.kafka.clone().map(|kafka| {
            let (live, metrics) = (Arc::clone(&self.live), Arc::clone(&self.metrics));
            kafka.spawn(vault.clone(), live, metrics, self.config.vault.sync_interval, shutdown)
        });
        let kafka = kafka.transpose().inspect_err(|_| shutdown.trigger());
        let events = self.start_events(vault, shutdown).inspect_err(|_| shutdown.trigger());
        Ok(Receivers { tcp, admin, admin_shutdown, kafka, events })
    }

    fn start_tcp(&self, vault: &Vault, shutdown: &Shutdown) -> Result<Option<TcpReceiver>> {
        let Some(config) = &self.config.tcp else { return Ok(None) };
        let listeners = config.listen.iter().map(|addr| net::bind(*addr)).collect::<Result<Vec<_>>>()?;
        let bound = listeners.iter().map(net::local_addr).collect::<Result<Vec<_>>>()?;
        let (live, metrics) = (Arc::clone(&self.live), Arc::clone(&self.metrics));
        let receiver = TcpReceiver::spawn(listeners, config, vault.clone(), live, metrics, shutdown)?;
        for addr in bound {
            logging::status_line(format_args!("listening addr={addr} listener=tcp"));
        }
        Ok(Some(receiver))
    }

    /// Opens the event store and starts the event sources. The store's threads end when its last handle is dropped.
    fn start_events(&self, vault: &Vault, shutdown: &Shutdown) -> Result<Option<EventService>> {
        let Some(config) = &self.config.events else { return Ok(None) };
        let VaultConfig { dir, free_bytes_min, access, .. } = &self.config.vault;
        let deps = EventServiceDeps {
            event_store: config.open(dir, *access, *free_bytes_min, &self.metrics)?,
            vault,
            metrics: &self.metrics,
            shutdown_timeout: self.config.shutdown_timeout,
            shutdown,
        };
        config.start(deps).map(Some)
    }

    /// Starts the admin server. It runs until all receivers have drained.
    fn start_admin(
        &self,
        shutdown: &Shutdown,
        admin_shutdown: &Shutdown,
    ) -> Result<Option<HttpServerHandle>> {
        let Some(addr) = self.config.admin_listen else { return Ok(None) };
        let metrics = Arc::clone(&self.metrics);
        let handler = AdminHandler::new(shutdown.clone(), Arc::clone(&metrics), Arc::clone(&self.live));
        // Web pages reach a loopback address only through the browser of this machine.
        let guard = RequestGuard::new(machine_names(), Vec::new());
        let handler =
            handler.with_guard(if addr.ip().is_loopback() { guard } else { guard.allow_any_host() });
        let config = HttpServerConfig {
            name: "admin",
            connections_max: ADMIN_CONNECTIONS_MAX,
            ..HttpServerConfig::default()
        };
        let listener = net::bind(addr)?;
        let server = HttpServer::spawn(listener, config, Arc::new(handler), admin_shutdown.clone(), metrics)?;
        logging::status_line(format_args!("listening addr={} listener=admin", server.local_addr()));
        Ok(Some(server))
    }
}

impl Receivers {
    /// Joins all receivers after shutdown. From `give_up_at` on, sources no longer wait for a store that fails.
    fn drain(self, give_up_at: Instant) -> Result<Option<Consumed>> {
        let Receivers { tcp, admin, admin_shutdown, kafka, events } = self;
        if let Ok(Some(events)) = &events {
            events.give_up_at(give_up_at);
        }
        let tcp = tcp.map_or(Ok(()), TcpReceiver::join);
        let consumed = kafka.and_then(|kafka| kafka.map(threads::join).transpose());
        let events = events.and_then(|events| events.map_or(Ok(()), EventService::join));
        // The admin server answers while the others drain.
        admin_shutdown.trigger();
        let admin = admin.map_or(Ok(()), HttpServerHandle::join);
        tcp.and(consumed).and_then(|consumed| events.and(admin).map(|()| consumed))
    }
}
