//! `lea consume-kafka`: stream files from records of Kafka topics.

use super::connect::ConnectArgs;
use super::kafka::{GROUP, KafkaConfig};
use super::service::{Service, ServiceArgs};
use crate::cc::source::kafka::consume::From;
use crate::cc::source::kafka::settings::topic_name;
use crate::cli::Globals;
use crate::config;
use crate::{Error, Exit, Result};

/// Receive streams as records of Kafka topics
///
/// Each record has the next bytes of one stream, in base64. Each record is in its stream's file once, also after a
/// crash: offsets are stored with the data, and committed to the group after it. Any number of processes, each with
/// a folder of its own, share the partitions of a group.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Brokers [default: kafkaServer of the configuration]
    #[arg(short, long, value_name = "HOST:PORT,...")]
    brokers: Option<String>,
    /// Topic; repeatable [default: that of the configuration]
    #[arg(short, long, value_name = "TOPIC", value_parser = topic_name)]
    topic: Vec<String>,
    /// Group that shares the partitions
    #[arg(short, long, value_name = "GROUP", default_value = GROUP)]
    group: String,
    /// Where to start
    #[arg(long, value_enum, default_value_t = From::Stored)]
    from: From,
    /// End at the records that each partition had at the start; the exit code is 3 if one could not be used
    #[arg(long)]
    until_end: bool,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    service: ServiceArgs,
}

impl Args {
    /// Consumes until a signal, or the end.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        let config = self.service.start(globals)?;
        let configured = config.kafka.as_ref();
        let brokers = self.brokers.or_else(|| configured.map(|kafka| kafka.broker.to_string()));
        let Some(brokers) = brokers else {
            return Err(Error::Usage(
                "the configuration turns Kafka off (kafkaServer has no address); give --brokers HOST:PORT"
                    .to_owned(),
            ));
        };
        let topic = configured.map_or(GROUP, |kafka| &kafka.topic);
        let topics = if self.topic.is_empty() { vec![topic.to_owned()] } else { self.topic };
        let kafka = KafkaConfig {
            brokers,
            topics,
            group: self.group,
            from: self.from,
            until_end: self.until_end,
            properties: self.connect.resolve(config::environment)?,
        };
        Service::resolve(self.service, None, Some(kafka), None)?.run()
    }
}
