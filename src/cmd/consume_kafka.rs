//! `lea consume-kafka`: receives streams as records of Kafka topics. Checks its arguments in the main thread; the
//! consumer has its own thread.

use std::time::Duration;

use super::args::kafka::{KafkaConnectionArgs, VARIABLES};
use super::args::service::ServiceArgs;
use super::args::units;
use crate::cc::ingest::kafka::consume::StartFrom;
use crate::cc::ingest::kafka::settings::parse_topic_name;
use crate::cmd::Command;
use crate::cmd::args::globals::Globals;
use crate::config;
use crate::daemon::kafka::{DEFAULT_GROUP, KafkaConfig};
use crate::manual::{self, Example, Manual};
use crate::{Error, Exit, Result};

/// Receive streams as records of Kafka topics
///
/// Each record carries the next bytes of one stream in base64. lea appends each record to its stream's file exactly once,
/// even after a crash: it stores offsets with the data and commits them to the consumer group afterwards. Several
/// processes can share the partitions of a group; each needs its own output directory, and `lea merge` combines them.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Brokers, separated by commas [default: kafkaServer of the configuration]
    #[arg(short, long, value_name = "HOST:PORT,...")]
    brokers: Option<String>,
    /// Topic to consume; repeatable [default: kafkaServer.topic of the configuration]
    #[arg(short, long, value_name = "TOPIC", value_parser = parse_topic_name)]
    topic: Vec<String>,
    /// Consumer group
    #[arg(short, long, value_name = "GROUP", default_value = DEFAULT_GROUP)]
    group: String,
    /// Offset to start from
    #[arg(long, value_enum, default_value_t = StartFrom::Stored)]
    from: StartFrom,
    /// Exit when the group has read what each partition had at the start; exit with 3 if a record was rejected
    #[arg(long)]
    exit_at_end: bool,
    /// With --exit-at-end: exit with 3 after this time without a partition or a record
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = units::duration, requires = "exit_at_end")]
    wait_timeout: Duration,
    /// Close a stream that gets no record for this time; a later record continues it; 0 never does
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = units::duration)]
    idle_timeout: Duration,
    /// Keep the partitions of this directory for the session timeout after a stop, so that a restart gets them back; by
    /// default the consumer leaves the group when it stops
    #[arg(long, conflicts_with = "exit_at_end")]
    static_member: bool,
    #[command(flatten)]
    connect: KafkaConnectionArgs,
    #[command(flatten)]
    service: ServiceArgs,
}

/// Exit code 3 of a run with --exit-at-end.
const CONSUMED_INCOMPLETE: (Exit, &str) = (
    Exit::Incomplete,
    "With --exit-at-end: a record was rejected, not stored or not readable, or the end was not reached.",
);

impl Command for Args {
    const MANUAL: Manual = Manual {
        success: manual::SERVER_SUCCESS,
        exits: &[CONSUMED_INCOMPLETE, manual::INTERRUPTED],
        files: &[manual::OUTPUT_FILES, manual::DEAD_LETTER_FILES],
        reads_configuration: true,
        environment: VARIABLES,
        examples: &[
            Example {
                text: "Receive the topic of the configuration",
                command: "lea consume-kafka --output interceptions",
            },
            Example {
                text: "Copy a topic once, then exit",
                command: "lea consume-kafka --brokers kafka:9092 --topic interception --group copy --exit-at-end --output copy",
            },
        ],
        see_also: &["lea-run(1)", "lea-decode(1)", "lea-merge(1)", "lea.conf(5)"],
        ..manual::EMPTY
    };

    fn run(self, globals: &Globals) -> Result<Exit> {
        let config = self.service.load_settings(globals)?.config;
        let configured = config.kafka.as_ref();
        let brokers = self.brokers.or_else(|| configured.map(|kafka| kafka.broker.to_string()));
        let Some(brokers) = brokers else {
            return Err(Error::Usage(
                "no brokers: kafkaServer of the configuration has no address or port 0; give --brokers HOST:PORT"
                    .to_owned(),
            ));
        };
        let topics = if self.topic.is_empty() { vec![config.kafka_topic] } else { self.topic };
        let kafka = KafkaConfig {
            brokers,
            topics,
            group: self.group,
            start_from: self.from,
            exit_at_end: self.exit_at_end,
            wait_timeout: self.wait_timeout,
            idle_timeout: units::unless_zero(self.idle_timeout),
            is_static_member: self.static_member,
            properties: self.connect.resolve(config::environment)?,
        };
        self.service.resolve(None, Some(kafka), None)?.run()
    }
}
