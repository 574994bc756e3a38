//! What the commands that consume from Kafka share: which member of which group to be, and its thread.

use std::io::IsTerminal;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cc::source::kafka::client::Reset;
use crate::cc::source::kafka::consume::{ConsumeConfig, Consumed, Consumer, From};
use crate::cc::source::kafka::librdkafka::Member;
use crate::cc::source::kafka::settings::{Property, Settings};
use crate::cc::vault::Vault;
use crate::cc::vault::ledger::{Ledger, STREAMS_MAX};
use crate::config;
use crate::counters::Counters;
use crate::logging;
use crate::stop::Stop;
use crate::{Error, Result};

/// The group that receivers have always been in (protocol, section 3).
pub const GROUP: &str = "interception";

/// What to consume.
#[derive(Clone, Debug)]
pub struct KafkaConfig {
    /// `HOST:PORT`, several with commas.
    pub brokers: String,
    /// The topics.
    pub topics: Vec<String>,
    /// The group.
    pub group: String,
    /// Where to start.
    pub from: From,
    /// End at the records that each partition had at the start.
    pub until_end: bool,
    /// What else librdkafka is told.
    pub properties: Vec<Property>,
}

impl KafkaConfig {
    /// What the configuration file says.
    pub fn configured(kafka: &config::Kafka) -> KafkaConfig {
        KafkaConfig {
            brokers: kafka.broker.to_string(),
            topics: vec![kafka.topic.clone()],
            group: GROUP.to_owned(),
            from: From::Stored,
            until_end: false,
            properties: Vec::new(),
        }
    }

    /// Starts the consumer's thread. When it ends, by itself or with an error, all ends.
    pub fn spawn(
        self,
        vault: Vault,
        counters: Arc<Counters>,
        checkpoint_interval: Duration,
        stop: &Stop,
    ) -> Result<JoinHandle<Result<Consumed>>> {
        let stop = stop.clone();
        let run = move || {
            let ended = self.consume(vault, counters, checkpoint_interval, &stop);
            stop.ask();
            ended
        };
        Builder::new().name("kafka".to_owned()).spawn(run).map_err(Error::system("start a thread"))
    }

    fn consume(
        self,
        vault: Vault,
        counters: Arc<Counters>,
        checkpoint_interval: Duration,
        stop: &Stop,
    ) -> Result<Consumed> {
        let ledger = Ledger::open(&vault, &self.brokers, STREAMS_MAX)?;
        let settings = Settings {
            // A member of a batch leaves the group at its end; one that serves gets its partitions back after a restart.
            instance: (!self.until_end).then(|| vault.instance(&self.group)).transpose()?,
            reset: if self.from == From::Latest { Reset::Latest } else { Reset::Earliest },
            brokers: self.brokers,
            group: self.group,
            topics: self.topics,
            properties: self.properties,
        };
        let mut client = Member::join(&settings)?;
        log::info!(
            "consuming brokers={} topics={} group={}",
            settings.brokers,
            settings.topics.join(","),
            settings.group
        );
        let bar = bar(self.until_end);
        let mut progress = |done, all| {
            if let Some(bar) = &bar {
                bar.set_length(all);
                bar.set_position(done);
            }
        };
        let config = ConsumeConfig { from: self.from, until_end: self.until_end, checkpoint_interval };
        let consumer =
            Consumer { client: &mut client, ledger, config, counters, stop, progress: &mut progress };
        let consumed = consumer.run()?;
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        logging::say(format_args!(
            "consumed records={} repeated={} dead_letters={}",
            consumed.records, consumed.repeated, consumed.dead_letters
        ));
        Ok(consumed)
    }
}

/// Waits for the consumer's thread.
pub fn join(consumer: JoinHandle<Result<Consumed>>) -> Result<()> {
    consumer.join().unwrap_or_else(|_| Err(Error::Thread("kafka".to_owned()))).map(drop)
}

/// A progress bar, for work that has an end, on a terminal.
fn bar(until_end: bool) -> Option<ProgressBar> {
    if !until_end || !std::io::stderr().is_terminal() {
        return None;
    }
    let style =
        ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} records {per_sec} {eta}").ok()?;
    Some(ProgressBar::new(0).with_style(style))
}
