//! Sends streams to a topic: one record per chunk (docs/protocol.md, section 3), with one idempotent producer
//! for all streams. Runs in the streams' threads. A thread of the producer handles acknowledgements.
//!
//! Invariant: when a stream ends without an error, all its records were acknowledged.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::metadata::Metadata;
use rdkafka::producer::{BaseRecord, NoCustomPartitioner, Producer, ProducerContext, ThreadedProducer};

use crate::cc::ingest::kafka::settings::{KafkaProperty, base_config, client_error, hint, is_transient};
use crate::replay::chunk::{self, ChunkLabels, OmittedField};
use crate::replay::fault::Fault;
use crate::replay::sink::{CloseMode, Delivery, SendError, StreamSender, StreamSink};
use crate::replay::wait::{self, ConnectAttempts};
use crate::runtime::logging::Throttle;
use crate::runtime::shutdown::Shutdown;
use crate::{Error, Result};

/// Key of the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum RecordKey {
    /// The stream's name: all records of a stream go to one partition, in order
    Stream,
    /// No key, as old senders do: a stream is spread over all partitions
    None,
}

/// Compression of record batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[allow(missing_docs, reason = "the codecs' own names")]
pub(crate) enum Compression {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Compression {
    fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }
}

/// Interval of checks for room in the producer's queue and for acknowledgements.
const DELIVERY_POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Shortest timeout of a metadata request.
const METADATA_TIMEOUT_MIN: Duration = Duration::from_millis(100);
/// Interval of checks for a metadata answer and for a shutdown.
const METADATA_POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Time for which a missing topic is looked for: it may just have been created.
const TOPIC_WAIT: Duration = Duration::from_secs(3);

/// Delivery counts of a stream.
#[derive(Debug, Default)]
struct Deliveries {
    sent: AtomicU64,
    acknowledged: AtomicU64,
    failed: AtomicU64,
    /// Error of the first failed delivery.
    reason: OnceLock<KafkaError>,
}

/// Callbacks that the producer's thread calls.
#[derive(Default)]
struct ProducerCallbacks {
    throttle: Throttle,
}

impl ClientContext for ProducerCallbacks {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, text: &str) {
        log::debug!("kafka facility={facility} text={text:?}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let hint = hint(error.rdkafka_error_code());
        let line = format_args!("kafka_error reason={reason:?} action=\"retrying\" hint=\"{hint}\"");
        self.throttle.warn("kafka", line);
    }
}

impl ProducerContext for ProducerCallbacks {
    type DeliveryOpaque = Arc<Deliveries>;

    fn delivery(&self, result: &DeliveryResult<'_>, deliveries: Arc<Deliveries>) {
        match result {
            Ok(_) => deliveries.acknowledged.fetch_add(1, Ordering::Release),
            Err((error, _)) => {
                let _ = deliveries.reason.set(error.clone());
                deliveries.failed.fetch_add(1, Ordering::Release)
            }
        };
    }
}

type RecordProducer = ThreadedProducer<ProducerCallbacks, NoCustomPartitioner>;

/// Topic that streams are sent to.
pub(crate) struct KafkaSink {
    producer: Arc<RecordProducer>,
    brokers: String,
    topic: Arc<str>,
    key: RecordKey,
    connect_timeout: Duration,
    /// True once the brokers have confirmed the topic.
    is_confirmed: Mutex<bool>,
    first_check: OnceLock<Instant>,
    /// Limits the reports of failed attempts.
    reports: Throttle,
}

/// Settings of the producer.
#[derive(Clone, Debug)]
pub(crate) struct ProducerSettings {
    /// Brokers as `HOST:PORT`, separated by commas.
    pub brokers: String,
    /// The topic, which must exist.
    pub topic: String,
    pub key: RecordKey,
    pub compression: Compression,
    /// Time limit for the brokers' first answer.
    pub connect_timeout: Duration,
    /// Additional librdkafka properties.
    pub properties: Vec<KafkaProperty>,
}

impl KafkaSink {
    /// Creates the producer. Does not wait for a broker.
    pub(crate) fn new(settings: ProducerSettings) -> Result<KafkaSink> {
        let own = [
            ("enable.idempotence", "true"),
            ("compression.type", settings.compression.name()),
            ("queue.buffering.max.kbytes", "65536"),
        ];
        let config = base_config(&settings.brokers, &own, &settings.properties);
        let producer = config
            .create_with_context(ProducerCallbacks::default())
            .map_err(|error| client_error(&settings.brokers, error))?;
        Ok(KafkaSink {
            producer: Arc::new(producer),
            brokers: settings.brokers,
            topic: settings.topic.into(),
            key: settings.key,
            connect_timeout: settings.connect_timeout,
            is_confirmed: Mutex::new(false),
            first_check: OnceLock::new(),
            reports: Throttle::default(),
        })
    }

    /// Waits until the brokers confirm the topic, once for all streams. A producer alone would report a missing topic
    /// only after minutes.
    fn check_topic(&self, shutdown: &Shutdown) -> Result<(), SendError> {
        let mut is_confirmed = self.is_confirmed.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // The streams check one after another, so they share the time limit.
        let started = *self.first_check.get_or_init(Instant::now);
        let (target, limit) = (&*self.brokers, self.connect_timeout);
        let attempts = ConnectAttempts { target, limit, started, reports: &self.reports };
        while !*is_confirmed {
            if shutdown.is_triggered() {
                return Err(SendError::Stopped);
            }
            let code = match self.query_topic(&attempts, shutdown)? {
                Ok(None) => {
                    *is_confirmed = true;
                    break;
                }
                Ok(Some(code)) if self.is_final(code, started) => {
                    let error = KafkaError::MetadataFetch(code);
                    return Err(Error::kafka("send to topic", &self.topic)(error).into());
                }
                Ok(Some(code)) => code,
                Err(error) => match error.rdkafka_error_code() {
                    Some(code) if is_transient(code) => code,
                    _ => return Err(Error::kafka("connect to", &self.brokers)(error).into()),
                },
            };
            attempts.retry(shutdown, &code.to_string(), hint(Some(code)))?;
        }
        Ok(())
    }

    /// Reports whether waiting does not help against an error of the topic. A topic that was just created may not be
    /// known to all brokers.
    fn is_final(&self, code: RDKafkaErrorCode, started: Instant) -> bool {
        let is_missing = code == RDKafkaErrorCode::UnknownTopicOrPartition;
        let may_appear = is_missing && started.elapsed() < TOPIC_WAIT.min(self.connect_timeout);
        !is_transient(code) && !may_appear
    }

    /// Queries the error of the topic, `None` if it has none. The call cannot be interrupted, so a separate thread makes
    /// it. After a shutdown that thread ends with the process.
    fn query_topic(
        &self,
        attempts: &ConnectAttempts<'_>,
        shutdown: &Shutdown,
    ) -> Result<KafkaResult<Option<RDKafkaErrorCode>>, SendError> {
        let (sender, answer) = crossbeam_channel::bounded(1);
        let (producer, topic) = (Arc::clone(&self.producer), Arc::clone(&self.topic));
        let timeout = attempts.remaining().max(METADATA_TIMEOUT_MIN);
        let query = move || {
            let metadata = producer.client().fetch_metadata(Some(&topic), timeout);
            let code = |metadata: Metadata| metadata.topics().iter().find_map(|topic| topic.error());
            // This fails if nobody waits any more.
            let _ = sender.send(metadata.map(code).map(|code| code.map(RDKafkaErrorCode::from)));
        };
        let thread = thread::Builder::new().name("kafka-topic".to_owned()).spawn(query);
        thread.map_err(Error::system("start a thread"))?;
        loop {
            match answer.recv_timeout(METADATA_POLL_INTERVAL) {
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Timeout) if shutdown.is_triggered() => return Err(SendError::Stopped),
                Err(RecvTimeoutError::Timeout) => attempts.report("the brokers do not answer"),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::Thread("kafka-topic".to_owned()).into());
                }
            }
        }
    }
}

impl StreamSink for KafkaSink {
    fn check_name(&self, name: &[u8], _: &[u8]) -> Result<(), String> {
        chunk::check_name(name)
    }

    fn open(&self, name: &[u8], shutdown: &Shutdown) -> Result<Box<dyn StreamSender>, SendError> {
        self.check_topic(shutdown)?;
        Ok(Box::new(KafkaSender {
            producer: Arc::clone(&self.producer),
            topic: Arc::clone(&self.topic),
            labels: ChunkLabels::from_stream_name(name),
            key: (self.key == RecordKey::Stream).then(|| name.to_owned()),
            deliveries: Arc::default(),
            held_value: None,
        }))
    }
}

/// Stream being sent.
struct KafkaSender {
    producer: Arc<RecordProducer>,
    topic: Arc<str>,
    labels: ChunkLabels,
    key: Option<Vec<u8>>,
    deliveries: Arc<Deliveries>,
    /// Value to be sent after the next one (fault `reorder`).
    held_value: Option<String>,
}

impl KafkaSender {
    fn send_value(&self, value: &str, shutdown: &Shutdown) -> Result<(), SendError> {
        let mut record = BaseRecord::with_opaque_to(&self.topic, Arc::clone(&self.deliveries)).payload(value);
        if let Some(key) = &self.key {
            record = record.key(&key[..]);
        }
        // Counted first, because the acknowledgement may arrive at any time.
        self.deliveries.sent.fetch_add(1, Ordering::Relaxed);
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => record = again,
                Err((error, _)) => {
                    self.deliveries.sent.fetch_sub(1, Ordering::Relaxed);
                    return Err(Error::kafka("send to topic", &self.topic)(error).into());
                }
            }
            if let Err(stopped) = wait::pause(shutdown, DELIVERY_POLL_INTERVAL) {
                self.deliveries.sent.fetch_sub(1, Ordering::Relaxed);
                return Err(stopped);
            }
        }
    }

    fn send_held(&mut self, shutdown: &Shutdown) -> Result<(), SendError> {
        self.held_value.take().map_or(Ok(()), |value| self.send_value(&value, shutdown))
    }

    /// Waits until each record was acknowledged or has failed.
    fn wait_for_acknowledgements(&self, shutdown: &Shutdown) -> Result<(), SendError> {
        let deliveries = &self.deliveries;
        let sent = deliveries.sent.load(Ordering::Relaxed);
        loop {
            let failed = deliveries.failed.load(Ordering::Acquire);
            let open = sent - failed - deliveries.acknowledged.load(Ordering::Acquire);
            let reason = deliveries.reason.get().filter(|_| failed > 0);
            match (open, reason) {
                (0, None) => return Ok(()),
                (0, Some(reason)) => {
                    let what = format!("{failed} of {sent} records to topic {}", self.topic);
                    return Err(Error::kafka("deliver", what)(reason.clone()).into());
                }
                _ => {}
            }
            if let Err(stopped) = wait::pause(shutdown, DELIVERY_POLL_INTERVAL) {
                log::warn!(
                    "records_not_acknowledged topic={} records={} of={sent}",
                    self.topic,
                    open + failed
                );
                return Err(stopped);
            }
        }
    }
}

impl StreamSender for KafkaSender {
    fn send(&mut self, bytes: &[u8], shutdown: &Shutdown) -> Result<(), SendError> {
        let value = self.labels.value(&chunk::encode_base64(bytes), OmittedField::None);
        self.send_value(&value, shutdown)?;
        self.send_held(shutdown)
    }

    fn send_faulty(
        &mut self,
        bytes: &[u8],
        fault: Fault,
        at: u64,
        shutdown: &Shutdown,
    ) -> Result<(), SendError> {
        let data = chunk::encode_base64(bytes);
        let value = self.labels.value(&data, OmittedField::None);
        match fault {
            Fault::Duplicate => self.send_value(&value, shutdown)?,
            Fault::Reorder if self.held_value.is_none() => {
                self.held_value = Some(value);
                return Ok(());
            }
            Fault::BadBase64 => {
                self.send_value(&self.labels.value(&format!("{data}!"), OmittedField::None), shutdown)?
            }
            Fault::MissingField => {
                let missing = if at.is_multiple_of(2) { OmittedField::Data } else { OmittedField::Names };
                self.send_value(&self.labels.value(&data, missing), shutdown)?;
            }
            _ => {}
        }
        self.send(bytes, shutdown)
    }

    fn close(mut self: Box<Self>, _: CloseMode, shutdown: &Shutdown) -> Result<Delivery, SendError> {
        self.send_held(shutdown)?;
        self.wait_for_acknowledgements(shutdown)?;
        Ok(Delivery::Confirmed)
    }
}
