//! Event source for a RabbitMQ queue with events and billing rows, one JSON object per message. One thread, `amqp`.
//!
//! A message is acknowledged after its event is durable. A message that the broker delivers again, after a crash between
//! the two, gets the same event ID and is not stored twice: the ID is a hash of the body and of the publisher's message ID.
//! Messages with equal bodies and without message IDs are therefore one event.
//!
//! The client is our own. The maintained crates (lapin, amqprs) need an async runtime, the blocking one (amiquip 0.4.2) is
//! unmaintained, and the codec alone (amq-protocol) brings 55 crates, including an interface to such a runtime. A consumer
//! needs 14 methods of the protocol; they are in `frame`.

mod client;
pub mod frame;
pub(crate) mod url;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::Local;
use sha2::{Digest as _, Sha256};

use super::event_sink::{EventBatch, EventSink, MessageOrigin, RejectedInput, StoreClosed};
use crate::Result;
use crate::billing;
use crate::iri::event::{self, ClassifiedLine, EventIndices};
use crate::iri::ingest::amqp::client::{AmqpClient, AmqpError, Delivery, NextMessage};
use crate::runtime::metrics::SourceMetrics;
use crate::runtime::shutdown::Shutdown;
use crate::runtime::threads;
use crate::search::document::{Document, SOURCE_BYTES_MAX, WriteMode};
use url::AmqpUrl;

/// Pause before the next connection attempt. It doubles after each failure.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// A queue to consume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AmqpConfig {
    pub url: AmqpUrl,
    pub queue: String,
}

impl AmqpConfig {
    /// Parses a URL and checks the name of the queue.
    pub fn parse(url: &str, queue: &str) -> Result<AmqpConfig, String> {
        if !(1..=url::NAME_BYTES_MAX).contains(&queue.len()) {
            return Err(format!("the name of the queue must have 1 to {} bytes", url::NAME_BYTES_MAX));
        }
        Ok(AmqpConfig { url: AmqpUrl::parse(url)?, queue: queue.to_owned() })
    }
}

struct AmqpConsumer {
    config: AmqpConfig,
    broker: String,
    sink: Arc<EventSink>,
    indices: Arc<EventIndices>,
    shutdown: Shutdown,
    source_metrics: Arc<SourceMetrics>,
    batch: EventBatch,
    /// Delivery tag of the last message in the batch.
    last_tag: Option<u64>,
}

/// The reason why a session with the broker ended.
enum SessionEnd {
    Shutdown,
    /// The store accepts no more events.
    StoreClosed,
    /// The connection failed; it is tried again.
    Failed(AmqpError),
}

impl std::convert::From<AmqpError> for SessionEnd {
    fn from(failed: AmqpError) -> SessionEnd {
        SessionEnd::Failed(failed)
    }
}

impl std::convert::From<StoreClosed> for SessionEnd {
    fn from(StoreClosed: StoreClosed) -> SessionEnd {
        SessionEnd::StoreClosed
    }
}

/// Starts the consumer's thread, which runs until shutdown.
pub(crate) fn start(
    config: AmqpConfig,
    sink: Arc<EventSink>,
    indices: Arc<EventIndices>,
    shutdown: Shutdown,
) -> Result<JoinHandle<Result<()>>> {
    let broker = config.url.to_string();
    let batch = EventBatch::default();
    let source_metrics = sink.metrics().source("amqp", None);
    let mut consumer =
        AmqpConsumer { config, broker, sink, indices, shutdown, source_metrics, batch, last_tag: None };
    threads::spawn("amqp", move || {
        consumer.run();
        Ok(())
    })
}

impl AmqpConsumer {
    fn run(&mut self) {
        self.sink.metrics().amqp_up.set(false);
        let mut pause = PAUSE_MIN;
        while !self.shutdown.is_triggered() {
            let opened = AmqpClient::open(&self.config.url, &self.config.queue, &self.shutdown);
            let ended = match opened {
                Ok(client) => {
                    pause = PAUSE_MIN;
                    self.run_session(client)
                }
                Err(failed) => failed.into(),
            };
            // The broker delivers unacknowledged messages again.
            self.batch = EventBatch::default();
            self.last_tag = None;
            match ended {
                SessionEnd::Shutdown | SessionEnd::StoreClosed | SessionEnd::Failed(AmqpError::Stopped) => {
                    return;
                }
                SessionEnd::Failed(failed) => {
                    let (broker, queue) = (&self.broker, &self.config.queue);
                    let (pause_ms, why) = (pause.as_millis(), failed.to_string());
                    log::warn!(
                        "amqp_unreachable broker={broker} queue={queue:?} error={why:?} next_try_ms={pause_ms}"
                    );
                }
            }
            self.shutdown.wait(pause);
            pause = (2 * pause).min(PAUSE_MAX);
        }
    }

    fn run_session(&mut self, mut client: AmqpClient) -> SessionEnd {
        let metrics = Arc::clone(self.sink.metrics());
        log::info!("amqp_consuming broker={} queue={:?}", self.broker, self.config.queue);
        metrics.amqp_up.set(true);
        let ended = self.consume(&mut client);
        metrics.amqp_up.set(false);
        match ended {
            Err(ended) => ended,
            Ok(()) => {
                client.close();
                SessionEnd::Shutdown
            }
        }
    }

    /// Consumes messages until shutdown, and stores those that were received before.
    fn consume(&mut self, client: &mut AmqpClient) -> Result<(), SessionEnd> {
        loop {
            let wait = self.last_tag.is_none();
            let shutdown = self.shutdown.clone();
            match client.next(wait, &shutdown)? {
                NextMessage::Delivery(delivery) => {
                    if self.accept_delivery(client, delivery)? {
                        self.store_batch(client)?;
                    }
                }
                NextMessage::NoneReady => self.store_batch(client)?,
                NextMessage::Stopped => return self.store_batch(client),
            }
        }
    }

    /// Adds a message to the batch or rejects it. Returns true if the batch should be stored.
    fn accept_delivery(&mut self, client: &mut AmqpClient, delivery: Delivery) -> Result<bool, AmqpError> {
        let metrics = self.sink.metrics();
        self.source_metrics.messages.inc();
        if delivery.redelivered {
            metrics.amqp_redelivered_total.inc();
        }
        match self.to_document(&delivery) {
            Ok(document) => {
                self.last_tag = Some(delivery.tag);
                Ok(self.batch.push(document))
            }
            Err((word, reason)) => {
                let (value, cut) = (&delivery.body[..], delivery.is_truncated);
                let letter = RejectedInput {
                    origin: self.origin(),
                    index: None,
                    reason: &reason,
                    value,
                    is_truncated: cut,
                };
                self.sink.reject(&letter, word);
                client.reject(delivery.tag)?;
                Ok(false)
            }
        }
    }

    fn to_document(&self, delivery: &Delivery) -> Result<Document, (&'static str, String)> {
        let metrics = self.sink.metrics();
        if delivery.is_truncated {
            metrics.events_rejected_too_long.inc();
            return Err(("too_long", format!("longer than {SOURCE_BYTES_MAX} bytes")));
        }
        // OpenSIPS up to 2.4 sends lines instead of JSON.
        let lines = billing::opensips::from_lines(&delivery.body);
        let body = lines.as_deref().unwrap_or(&delivery.body);
        match event::classify(body, &self.indices, &Local) {
            Ok(ClassifiedLine::Event(document)) => {
                let id = Some(document_id(delivery.message_id.as_deref(), &delivery.body));
                Ok(Document { id, mode: WriteMode::Create, ..document })
            }
            Ok(ClassifiedLine::StreamContent) => {
                metrics.events_rejected_malformed.inc();
                Err(("data", "stream content is not an event: send it to --content-lines".to_owned()))
            }
            Err(reason) => {
                metrics.events_rejected_malformed.inc();
                Err(("no_json", reason.to_string()))
            }
        }
    }

    /// Stores the batch and acknowledges its messages.
    fn store_batch(&mut self, client: &mut AmqpClient) -> Result<(), SessionEnd> {
        let Some(tag) = self.last_tag.take() else { return Ok(()) };
        let from = MessageOrigin { listener: "amqp", peer: &self.broker };
        self.batch.write_resendable(&self.sink, from)?;
        Ok(client.ack_to(tag)?)
    }

    fn origin(&self) -> MessageOrigin<'_> {
        MessageOrigin { listener: "amqp", peer: &self.broker }
    }
}

/// Returns the event ID of a message, which is the same for each delivery.
fn document_id(message_id: Option<&str>, body: &[u8]) -> String {
    let message_id = message_id.unwrap_or_default();
    let hash = Sha256::new()
        .chain_update((message_id.len() as u64).to_be_bytes())
        .chain_update(message_id)
        .chain_update(body)
        .finalize();
    format!("amqp-{}", URL_SAFE_NO_PAD.encode(&hash[..20]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_gets_the_same_id_for_each_delivery() {
        assert_eq!(document_id(None, b"{}"), document_id(None, b"{}"));
        assert_eq!(document_id(None, b"{}"), document_id(Some(""), b"{}"));
        let ids = [
            document_id(None, b"ab"),
            document_id(None, b"a"),
            document_id(Some("a"), b"b"),
            document_id(Some("ab"), b""),
            document_id(Some("b"), b"b"),
        ];
        for (nth, one) in ids.iter().enumerate() {
            assert!(!ids[..nth].contains(one), "{nth}");
        }
    }
}
