//! Options that all daemon commands share, and how they become a service.

use std::net::SocketAddr;
use std::time::Duration;

use super::output_dir::OutputArgs;
use super::tcp::TcpArgs;
use super::units;
use crate::Result;
use crate::cc::vault::VaultConfig;
use crate::cmd::args::config::ConfigArgs;
use crate::cmd::args::globals::Globals;
use crate::daemon::events::EventServiceConfig;
use crate::daemon::kafka::KafkaConfig;
use crate::daemon::settings::Settings;
use crate::daemon::{Service, ServiceConfig};
use crate::limits::MachineLimits;
use crate::runtime::{logging, net};

/// Options of every daemon command.
#[derive(Debug, clap::Args)]
pub(crate) struct ServiceArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    daemon: DaemonArgs,
}

/// Options for shutdown and monitoring.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Service")]
struct DaemonArgs {
    /// Time after a signal for open streams to end and pending writes to complete; then the rest is given up
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = units::duration)]
    shutdown_timeout: Duration,
    /// Time in which the address of an ended stream may continue it; other bytes under its name are a part of their own
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = units::duration)]
    continue_within: Duration,
    /// Serve /health, /metrics and /streams over HTTP on this address; a port alone means 127.0.0.1 [default: off]
    #[arg(long, value_name = "ADDR:PORT", value_parser = net::parse_listen_address)]
    admin_listen: Option<SocketAddr>,
}

impl ServiceArgs {
    /// Reads the configuration and starts the log.
    pub(crate) fn load_settings(&self, globals: &Globals) -> Result<Settings> {
        let settings = self.config.load()?;
        logging::start(globals.level(settings.config.logger_level));
        settings.config.log_warnings();
        Ok(settings)
    }

    /// Checks the options against each other and against the limits of the machine. `tcp` has the listen addresses and
    /// options of the TCP listener.
    pub(crate) fn resolve(
        self,
        tcp: Option<(Vec<SocketAddr>, TcpArgs)>,
        kafka: Option<KafkaConfig>,
        events: Option<EventServiceConfig>,
    ) -> Result<Service> {
        let ServiceArgs { output, daemon, .. } = self;
        kafka.as_ref().map_or(Ok(()), KafkaConfig::check)?;
        let machine = MachineLimits::detect();
        let DaemonArgs { shutdown_timeout, continue_within, admin_listen } = daemon;
        let vault = output.resolve(machine.descriptors_shared())?;
        let rotation = tcp.as_ref().map(|(_, tcp)| tcp.rotation()).unwrap_or_default();
        Ok(Service::new(ServiceConfig {
            vault: VaultConfig { continue_within: Some(continue_within), rotation, ..vault },
            tcp: tcp.map(|(listen, args)| args.resolve(listen, machine, shutdown_timeout)),
            kafka,
            events,
            admin_listen,
            shutdown_timeout,
        }))
    }
}
