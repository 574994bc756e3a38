//! What the commands that consume from Kafka share: which member of which group to be, and its thread.

use std::io::IsTerminal;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cc::live::Live;
use crate::cc::source::kafka::client::Reset;
use crate::cc::source::kafka::consume::{ConsumeConfig, Consumed, Consumer, From};
use crate::cc::source::kafka::librdkafka::Member;
use crate::cc::source::kafka::settings::{self, Property, Settings};
use crate::cc::vault::Vault;
use crate::cc::vault::ledger::{Ledger, STREAMS_MAX};
use crate::config;
use crate::counters::Counters;
use crate::logging;
use crate::stop::Stop;
use crate::{Error, Exit, Result};

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
    /// What the configuration file says, with properties from the options.
    pub fn configured(kafka: &config::Kafka, properties: Vec<Property>) -> KafkaConfig {
        KafkaConfig {
            brokers: kafka.broker.to_string(),
            topics: vec![kafka.topic.clone()],
            group: GROUP.to_owned(),
            from: From::Stored,
            until_end: false,
            properties,
        }
    }

    /// Fails if the options are such that no client can be made.
    pub fn check(&self) -> Result<()> {
        settings::check(&self.settings(None))
    }

    fn settings(&self, instance: Option<String>) -> Settings {
        Settings {
            brokers: self.brokers.clone(),
            group: self.group.clone(),
            instance,
            topics: self.topics.clone(),
            reset: if self.from == From::Latest { Reset::Latest } else { Reset::Earliest },
            properties: self.properties.clone(),
        }
    }

    /// Starts the consumer's thread. When it ends, by itself or with an error, all ends.
    pub fn spawn(
        self,
        vault: Vault,
        live: Arc<Live>,
        counters: Arc<Counters>,
        checkpoint_interval: Duration,
        stop: &Stop,
    ) -> Result<JoinHandle<Result<Consumed>>> {
        let stop = stop.clone();
        let run = move || {
            let ended = self.consume(vault, live, counters, checkpoint_interval, &stop);
            stop.ask();
            ended
        };
        Builder::new().name("kafka".to_owned()).spawn(run).map_err(Error::system("start a thread"))
    }

    fn consume(
        self,
        vault: Vault,
        live: Arc<Live>,
        counters: Arc<Counters>,
        checkpoint_interval: Duration,
        stop: &Stop,
    ) -> Result<Consumed> {
        let ledger = Ledger::open(&vault, &self.brokers, STREAMS_MAX)?;
        // A member of a batch leaves the group at its end; one that serves gets its partitions back after a restart.
        let instance = (!self.until_end).then(|| vault.instance(&self.group)).transpose()?;
        let settings = self.settings(instance);
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
            Consumer { client: &mut client, ledger, config, counters, live, stop, progress: &mut progress };
        let consumed = consumer.run()?;
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        logging::say(format_args!(
            "consumed records={} repeated={} dead_letters={} damaged={}",
            consumed.records, consumed.repeated, consumed.dead_letters, consumed.damaged
        ));
        Ok(consumed)
    }

    /// How a run ends that consumed this: one without an end is done whenever it ends.
    pub fn exit(&self, consumed: &Consumed) -> Exit {
        let whole = consumed.at_end && consumed.dead_letters + consumed.damaged == 0;
        if whole || !self.until_end { Exit::Done } else { Exit::Differs }
    }
}

/// Waits for the consumer's thread.
pub fn join(consumer: JoinHandle<Result<Consumed>>) -> Result<Consumed> {
    consumer.join().unwrap_or_else(|_| Err(Error::Thread("kafka".to_owned())))
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
