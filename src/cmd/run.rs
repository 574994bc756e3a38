//! `lea run`: everything that the configuration enables, in one process.

use super::event_service::{EventArgs, EventConfig};
use super::kafka::KafkaConfig;
use super::service::{self, Service, ServiceArgs, TcpArgs};
use crate::cli::Globals;
use crate::{Error, Exit, Result};

/// Run everything that the configuration enables
///
/// That is streams over TCP (`tcpServer`) and records of a Kafka topic (`kafkaServer`), into one folder, and
/// events (`events`) into the store in it. SIGINT, SIGTERM
/// and SIGHUP end it in good order.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    service: ServiceArgs,
    #[command(flatten)]
    tcp: TcpArgs,
    #[command(flatten)]
    events: EventArgs,
}

impl Args {
    /// Runs until a signal.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        let config = self.service.start(globals)?;
        let kafka = config.kafka.as_ref().map(KafkaConfig::configured);
        let listen = config.tcp.as_ref().map(service::addresses).transpose()?;
        let events = EventConfig::resolve(&config, None, &self.events)?;
        if kafka.is_none() && listen.is_none() && events.is_none() {
            return Err(Error::Usage(
                "the configuration enables nothing: set tcpServer (lea configure -t ADDRESS -u PORT) or \
                 kafkaServer (-g ADDRESS -k PORT), or events"
                    .to_owned(),
            ));
        }
        Service::resolve(self.service, listen.map(|listen| (listen, self.tcp)), kafka, events)?.run()
    }
}
