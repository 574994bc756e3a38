//! `lea run`: runs all receivers that the configuration enables in one process. Resolves its options in the main thread;
//! the receivers have their own threads.

use std::time::Duration;

use super::args::events::EventArgs;
use super::args::kafka::{KafkaConnectionArgs, VARIABLES};
use super::args::service::ServiceArgs;
use super::args::tcp::{self, TcpArgs};
use super::args::units;
use crate::cmd::Command;
use crate::cmd::args::globals::Globals;
use crate::config;
use crate::daemon::kafka::KafkaConfig;
use crate::manual::{self, Example, Manual};
use crate::{Error, Exit, Result};

/// Run all receivers that the configuration enables
///
/// lea stores streams received over TCP (`tcpServer`) and from a Kafka topic (`kafkaServer`) in one output directory, and
/// events (`events`) in the event store of that directory or in a cluster.
///
/// SIGINT, SIGTERM or SIGHUP starts an orderly shutdown; a second signal exits at once.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    service: ServiceArgs,
    #[command(flatten)]
    tcp: TcpArgs,
    #[command(flatten)]
    connect: KafkaConnectionArgs,
    /// Close a Kafka stream that gets no record for this time; a later record continues it; 0 never does
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = units::duration)]
    kafka_idle_timeout: Duration,
    #[command(flatten)]
    events: EventArgs,
}

impl Command for Args {
    const MANUAL: Manual = Manual {
        success: manual::SERVER_SUCCESS,
        exits: &[manual::INTERRUPTED],
        files: &[manual::OUTPUT_FILES, manual::EVENT_FILES],
        reads_configuration: true,
        environment: VARIABLES,
        examples: &[
            Example { text: "Run all receivers of config/configurationFile.conf", command: "lea run" },
            Example {
                text: "Use another configuration, and serve metrics on port 9100",
                command: "lea run --config /etc/lea/lea.conf --output /var/lib/lea --admin-listen 9100",
            },
        ],
        see_also: &[
            "lea.conf(5)",
            "lea-configure(1)",
            "lea-serve-tcp(1)",
            "lea-serve-events(1)",
            "lea-consume-kafka(1)",
        ],
        ..manual::EMPTY
    };

    fn run(self, globals: &Globals) -> Result<Exit> {
        let settings = self.service.load_settings(globals)?;
        let config = &settings.config;
        if config.kafka.is_none() && self.connect.is_given() {
            log::warn!(
                "options_ignored what=\"Kafka connection\" note=\"kafkaServer is off in the configuration\""
            );
        }
        let properties = self.connect.resolve(config::environment)?;
        let idle_timeout = units::unless_zero(self.kafka_idle_timeout);
        let kafka =
            config.kafka.as_ref().map(|kafka| KafkaConfig::configured(kafka, properties, idle_timeout));
        let listen = config.tcp.as_ref().map(tcp::resolve_addresses).transpose()?;
        let listen = listen.or(self.tcp.has_sensors().then(Vec::new));
        let events = self.events.resolve(&settings, None)?;
        if listen.is_none() && !self.tcp.rotation().is_off() {
            log::warn!(
                "options_ignored what=rotation note=\"only streams over TCP are rotated, and tcpServer is off\""
            );
        }
        if kafka.is_none() && listen.is_none() && events.is_none() {
            return Err(Error::Usage(
                "the configuration enables no receiver: set tcpServer (lea configure -t ADDRESS -u PORT), \
                 kafkaServer (-g ADDRESS -k PORT) or events"
                    .to_owned(),
            ));
        }
        self.service.resolve(listen.map(|listen| (listen, self.tcp)), kafka, events)?.run()
    }
}
