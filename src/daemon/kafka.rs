//! The Kafka consumer of the daemon: its settings, its consumer group and its thread.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::cc::ingest::kafka::client::AutoOffsetReset;
use crate::cc::ingest::kafka::consume::{ConsumeConfig, ConsumeLoop, Consumed, StartFrom};
use crate::cc::ingest::kafka::group_instance;
use crate::cc::ingest::kafka::librdkafka::RdKafkaConsumer;
use crate::cc::ingest::kafka::settings::{self, ConsumerSettings, KafkaProperty};
use crate::cc::stream_registry::StreamRegistry;
use crate::cc::vault::Vault;
use crate::cc::vault::dir::META_DIR;
use crate::cc::vault::ledger::{Ledger, STREAMS_MAX};
use crate::cc::vault::manifest::StreamSource;
use crate::config;
use crate::runtime::metrics::Metrics;
use crate::runtime::progress::Progress;
use crate::runtime::shutdown::Shutdown;
use crate::runtime::{logging, threads};
use crate::{Error, Exit, Result};

/// Consumer group of the original receivers (docs/protocol.md).
pub(crate) const DEFAULT_GROUP: &str = "interception";

/// Limit on waits with `--exit-at-end`: more than the session timeout (45 s) of a member that was killed.
pub(crate) const DEFAULT_WAIT_TIMEOUT: Duration = Duration::from_secs(2 * 60);

/// What to consume.
#[derive(Clone, Debug)]
pub(crate) struct KafkaConfig {
    /// `HOST:PORT`, separated by commas.
    pub brokers: String,
    pub topics: Vec<String>,
    /// The consumer group.
    pub group: String,
    pub start_from: StartFrom,
    /// Stop at the end offsets that the partitions had at the start.
    pub exit_at_end: bool,
    /// With `exit_at_end`: time without progress after which the run ends incomplete.
    pub wait_timeout: Duration,
    /// Time without a record after which a stream is closed. `None`: never.
    pub idle_timeout: Option<Duration>,
    /// Whether the group keeps this member's partitions for the session timeout after it has stopped.
    pub is_static_member: bool,
    /// Additional librdkafka properties.
    pub properties: Vec<KafkaProperty>,
}

impl KafkaConfig {
    /// Uses broker and topic of the configuration file, and properties of the command line.
    pub(crate) fn configured(
        kafka: &config::KafkaSource,
        properties: Vec<KafkaProperty>,
        idle_timeout: Option<Duration>,
    ) -> KafkaConfig {
        KafkaConfig {
            brokers: kafka.broker.to_string(),
            topics: vec![kafka.topic.clone()],
            group: DEFAULT_GROUP.to_owned(),
            start_from: StartFrom::Stored,
            exit_at_end: false,
            wait_timeout: DEFAULT_WAIT_TIMEOUT,
            idle_timeout,
            is_static_member: false,
            properties,
        }
    }

    /// Fails if librdkafka rejects the settings.
    pub(crate) fn check(&self) -> Result<()> {
        settings::check_settings(&self.settings(None))
    }

    fn settings(&self, instance: Option<String>) -> ConsumerSettings {
        ConsumerSettings {
            brokers: self.brokers.clone(),
            group: self.group.clone(),
            instance,
            topics: self.topics.clone(),
            reset: if self.start_from == StartFrom::Latest {
                AutoOffsetReset::Latest
            } else {
                AutoOffsetReset::Earliest
            },
            properties: self.properties.clone(),
        }
    }

    /// Starts the consumer's thread. Its end triggers shutdown, with or without an error.
    pub(crate) fn spawn(
        self,
        vault: Vault,
        live: Arc<StreamRegistry>,
        metrics: Arc<Metrics>,
        checkpoint_interval: Duration,
        shutdown: &Shutdown,
    ) -> Result<JoinHandle<Result<Consumed>>> {
        let shutdown = shutdown.clone();
        let run = move || {
            let ended = self.consume(vault, live, metrics, checkpoint_interval, &shutdown);
            shutdown.trigger();
            ended
        };
        threads::spawn("kafka", run)
    }

    fn consume(
        self,
        vault: Vault,
        live: Arc<StreamRegistry>,
        metrics: Arc<Metrics>,
        checkpoint_interval: Duration,
        shutdown: &Shutdown,
    ) -> Result<Consumed> {
        let ledger = Ledger::open(&vault, StreamSource::Kafka, &self.brokers, STREAMS_MAX)?;
        // Without static membership the member leaves the group when it stops, and others get its partitions at once.
        let instance = self.is_static_member.then(|| group_instance_id(&vault, &self.group)).transpose()?;
        let settings = self.settings(instance);
        let mut client = RdKafkaConsumer::join(&settings)?;
        log::info!(
            "consuming brokers={} topics={} group={}",
            settings.brokers,
            settings.topics.join(","),
            settings.group
        );
        let bar = Progress::new(
            self.exit_at_end,
            Some(0),
            "{bar:40} {human_pos}/{human_len} records {per_sec} {eta}",
        );
        let mut progress = |done, all| {
            bar.set_length(all);
            bar.set_position(done);
        };
        let config = ConsumeConfig {
            from: self.start_from,
            exit_at_end: self.exit_at_end,
            checkpoint_interval,
            idle_timeout: self.idle_timeout,
            wait_timeout: self.wait_timeout,
        };
        let consumer = ConsumeLoop {
            client: &mut client,
            ledger,
            config,
            metrics,
            live,
            shutdown,
            progress: &mut progress,
        };
        let consumed = consumer.run()?;
        drop(bar);
        logging::status_line(format_args!(
            "consumed records={} duplicates={} dead_letters={} late={} damaged_batches={}",
            consumed.records, consumed.duplicates, consumed.dead_letters, consumed.late, consumed.damaged
        ));
        Ok(consumed)
    }

    /// Returns how the run ended. A run without an end is always done.
    pub(crate) fn exit(&self, consumed: &Consumed) -> Exit {
        let whole = consumed.at_end && consumed.dead_letters + consumed.late + consumed.damaged == 0;
        if whole || !self.exit_at_end { Exit::Done } else { Exit::Incomplete }
    }
}

/// Returns the static membership id of the vault's directory.
fn group_instance_id(vault: &Vault, group: &str) -> Result<String> {
    let path = vault.path().join(META_DIR).join(group_instance::FILE);
    vault
        .open_meta_file(group_instance::FILE)
        .and_then(|file| group_instance::group_instance_id(file, group))
        .map_err(Error::path("read or create the group instance id in", path))
}
