//! Sending to a topic: a record a chunk (protocol, section 3), through one idempotent producer for all streams. Runs
//! in the streams' threads; a thread of the producer's hears of what was acknowledged.
//!
//! Invariant: a stream that ends well has every record of its acknowledged.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, NoCustomPartitioner, Producer, ProducerContext, ThreadedProducer};

use crate::cc::source::kafka::settings::{Property, cannot_make, config_of, hint};
use crate::logging::Throttle;
use crate::replay::chunk::{self, Labels, Missing};
use crate::replay::fault::Fault;
use crate::replay::sink::{Broken, Close, Sender, Sink};
use crate::replay::wait;
use crate::stop::Stop;
use crate::{Error, Result};

/// What a record's key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Key {
    /// The stream's name: all of a stream goes to one partition, in order
    Stream,
    /// No key, as old senders do: a stream is spread over all partitions
    None,
}

/// How batches of records are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[allow(missing_docs, reason = "the codecs' own names")]
pub enum Compression {
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

/// How long to wait for room in the producer's queue, or for acknowledgements, before looking again.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// How long one question for the topic may take; a stop is seen between two.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// What the producer was told to send of a stream, and what became of it.
#[derive(Debug, Default)]
struct Deliveries {
    sent: AtomicU64,
    acknowledged: AtomicU64,
    failed: AtomicU64,
    /// Why the first one failed.
    reason: OnceLock<KafkaError>,
}

/// What the producer's thread calls.
#[derive(Default)]
struct Context {
    throttle: Throttle,
}

impl ClientContext for Context {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, text: &str) {
        log::debug!("kafka facility={facility} text={text:?}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let hint = hint(error.rdkafka_error_code());
        let line = format_args!("kafka_error reason={reason:?} action=\"going on trying\" hint=\"{hint}\"");
        self.throttle.warn("kafka", line);
    }
}

impl ProducerContext for Context {
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

type Records = ThreadedProducer<Context, NoCustomPartitioner>;

/// A topic to send to.
pub struct KafkaSink {
    producer: Arc<Records>,
    brokers: String,
    topic: Arc<str>,
    key: Key,
    connect_timeout: Duration,
    /// True once the brokers have answered.
    is_reached: Mutex<bool>,
}

/// How to send.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `HOST:PORT`, several with commas.
    pub brokers: String,
    /// The topic; it must be there.
    pub topic: String,
    /// The records' keys.
    pub key: Key,
    /// Of batches.
    pub compression: Compression,
    /// For how long to wait for the brokers' first answer.
    pub connect_timeout: Duration,
    /// What else librdkafka is told.
    pub properties: Vec<Property>,
}

impl KafkaSink {
    /// Makes the producer. Nothing here waits for a broker.
    pub fn new(settings: Settings) -> Result<KafkaSink> {
        let own = [
            ("enable.idempotence", "true"),
            ("compression.type", settings.compression.name()),
            ("queue.buffering.max.kbytes", "65536"),
        ];
        let config = config_of(&settings.brokers, &own, &settings.properties);
        let producer = config
            .create_with_context(Context::default())
            .map_err(|error| cannot_make(&settings.brokers, error))?;
        Ok(KafkaSink {
            producer: Arc::new(producer),
            brokers: settings.brokers,
            topic: settings.topic.into(),
            key: settings.key,
            connect_timeout: settings.connect_timeout,
            is_reached: Mutex::new(false),
        })
    }

    /// Asks for the topic, once for all streams: a topic that is not there fails at once, and not after the minutes
    /// for which a producer tries to deliver.
    fn reach(&self, stop: &Stop) -> Result<(), Broken> {
        let mut is_reached = self.is_reached.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if *is_reached {
            return Ok(());
        }
        let deadline = Instant::now() + self.connect_timeout;
        let metadata = loop {
            if stop.is_asked() {
                return Err(Broken::Stopped);
            }
            let rest = deadline.saturating_duration_since(Instant::now());
            match self.producer.client().fetch_metadata(Some(&self.topic), rest.min(ASK_AGAIN)) {
                Ok(metadata) => break metadata,
                Err(_) if rest > ASK_AGAIN => {}
                Err(error) => return Err(Error::kafka("connect to", &self.brokers)(error).into()),
            }
        };
        let problem = metadata.topics().iter().find_map(|topic| topic.error());
        if let Some(code) = problem {
            let error = KafkaError::MetadataFetch(code.into());
            return Err(Error::kafka("send to topic", &self.topic)(error).into());
        }
        *is_reached = true;
        Ok(())
    }
}

impl Sink for KafkaSink {
    fn open(&self, name: &[u8], stop: &Stop) -> Result<Box<dyn Sender>, Broken> {
        self.reach(stop)?;
        Ok(Box::new(KafkaSender {
            producer: Arc::clone(&self.producer),
            topic: Arc::clone(&self.topic),
            labels: Labels::of(name),
            key: (self.key == Key::Stream).then(|| name.to_owned()),
            deliveries: Arc::default(),
            held: None,
        }))
    }
}

/// A stream.
struct KafkaSender {
    producer: Arc<Records>,
    topic: Arc<str>,
    labels: Labels,
    key: Option<Vec<u8>>,
    deliveries: Arc<Deliveries>,
    /// The value that is to go behind the next one (reorder).
    held: Option<String>,
}

impl KafkaSender {
    fn send_value(&self, value: &str, stop: &Stop) -> Result<(), Broken> {
        let mut record = BaseRecord::with_opaque_to(&self.topic, Arc::clone(&self.deliveries)).payload(value);
        if let Some(key) = &self.key {
            record = record.key(&key[..]);
        }
        // Before the acknowledgement can come.
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
            if let Err(stopped) = wait::pause(stop, LOOK_AGAIN) {
                self.deliveries.sent.fetch_sub(1, Ordering::Relaxed);
                return Err(stopped);
            }
        }
    }

    fn send_held(&mut self, stop: &Stop) -> Result<(), Broken> {
        self.held.take().map_or(Ok(()), |value| self.send_value(&value, stop))
    }

    /// Waits until each record is acknowledged or has failed.
    fn settle(&self, stop: &Stop) -> Result<(), Broken> {
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
            if let Err(stopped) = wait::pause(stop, LOOK_AGAIN) {
                log::warn!("not_acknowledged topic={} records={} of={sent}", self.topic, open + failed);
                return Err(stopped);
            }
        }
    }
}

impl Sender for KafkaSender {
    fn send(&mut self, bytes: &[u8], stop: &Stop) -> Result<(), Broken> {
        let value = self.labels.value(&chunk::encoded(bytes), Missing::None);
        self.send_value(&value, stop)?;
        self.send_held(stop)
    }

    fn send_faulty(&mut self, bytes: &[u8], fault: Fault, at: u64, stop: &Stop) -> Result<(), Broken> {
        let data = chunk::encoded(bytes);
        let value = self.labels.value(&data, Missing::None);
        match fault {
            Fault::Duplicate => self.send_value(&value, stop)?,
            Fault::Reorder if self.held.is_none() => {
                self.held = Some(value);
                return Ok(());
            }
            Fault::BadBase64 => {
                self.send_value(&self.labels.value(&format!("{data}!"), Missing::None), stop)?
            }
            Fault::MissingField => {
                let missing = if at.is_multiple_of(2) { Missing::Data } else { Missing::Names };
                self.send_value(&self.labels.value(&data, missing), stop)?;
            }
            _ => {}
        }
        self.send(bytes, stop)
    }

    fn close(mut self: Box<Self>, _: Close, stop: &Stop) -> Result<(), Broken> {
        self.send_held(stop)?;
        self.settle(stop)
    }
}
