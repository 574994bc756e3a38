//! Events and billing rows from a queue of RabbitMQ, a JSON object a message. One thread, `amqp`.
//!
//! A message is acknowledged when its event is durable. What the broker delivers once more, after a crash between the
//! two, has the same id as before and is not stored again: the id is a hash of the body and of the publisher's message
//! id, if there is one. So equal bodies without message ids are one event.
//!
//! No client was borrowed: those that are kept (lapin, amqprs) need an async runtime, the blocking one (amiquip 0.4.2) is
//! no longer kept by its author, and the codec alone (amq-protocol) brings 55 crates, with the interface to such a
//! runtime among them. A consumer needs fourteen methods of the protocol: `frame`.

mod client;
pub mod frame;
pub mod url;

use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::Local;
use sha2::{Digest as _, Sha256};

use self::client::{Client, Delivery, Failed, Next};
use super::intake::{Batch, From, Gone, Intake, Letter};
use crate::iri::document::{Document, Mode, SOURCE_BYTES_MAX};
use crate::iri::event::{self, Indices, Line};
use crate::stop::Stop;
use crate::{Error, Result};
use url::Url;

/// Between two tries to reach the broker.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What is consumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AmqpConfig {
    /// The broker.
    pub url: Url,
    /// The queue.
    pub queue: String,
}

impl AmqpConfig {
    /// Reads a URL and a queue's name.
    pub fn parse(url: &str, queue: &str) -> Result<AmqpConfig, String> {
        if !(1..=url::NAME_BYTES_MAX).contains(&queue.len()) {
            return Err(format!("the queue has 1 to {} bytes", url::NAME_BYTES_MAX));
        }
        Ok(AmqpConfig { url: Url::parse(url)?, queue: queue.to_owned() })
    }
}

struct Consumer {
    config: AmqpConfig,
    broker: String,
    intake: Arc<Intake>,
    indices: Arc<Indices>,
    stop: Stop,
    batch: Batch,
    /// The last message in the batch.
    last_tag: Option<u64>,
}

/// How a connection ended.
enum Ended {
    /// The stop.
    Stopped,
    /// Nothing more can be stored.
    Gone,
    /// The broker; to be tried again.
    Failed(Failed),
}

impl std::convert::From<Failed> for Ended {
    fn from(failed: Failed) -> Ended {
        Ended::Failed(failed)
    }
}

impl std::convert::From<Gone> for Ended {
    fn from(Gone: Gone) -> Ended {
        Ended::Gone
    }
}

/// Consumes until the stop.
pub fn spawn(
    config: AmqpConfig,
    intake: Arc<Intake>,
    indices: Arc<Indices>,
    stop: Stop,
) -> Result<JoinHandle<Result<()>>> {
    let broker = config.url.to_string();
    let batch = Batch::default();
    let mut consumer = Consumer { config, broker, intake, indices, stop, batch, last_tag: None };
    let spawned = Builder::new().name("amqp".to_owned()).spawn(move || {
        consumer.run();
        Ok(())
    });
    spawned.map_err(Error::system("start a thread"))
}

impl Consumer {
    fn run(&mut self) {
        let mut pause = PAUSE_MIN;
        while !self.stop.is_asked() {
            let opened = Client::open(&self.config.url, &self.config.queue, &self.stop);
            let ended = match opened {
                Ok(client) => {
                    pause = PAUSE_MIN;
                    self.connected(client)
                }
                Err(failed) => failed.into(),
            };
            // What was not acknowledged comes again.
            self.batch = Batch::default();
            self.last_tag = None;
            match ended {
                Ended::Stopped | Ended::Gone | Ended::Failed(Failed::Stopped) => return,
                Ended::Failed(failed) => {
                    let (broker, queue) = (&self.broker, &self.config.queue);
                    let (pause_ms, why) = (pause.as_millis(), failed.to_string());
                    log::warn!(
                        "amqp_away broker={broker} queue={queue:?} error={why:?} next_try_ms={pause_ms}"
                    );
                }
            }
            self.stop.wait(pause);
            pause = (2 * pause).min(PAUSE_MAX);
        }
    }

    fn connected(&mut self, mut client: Client) -> Ended {
        let counters = Arc::clone(self.intake.counters());
        log::info!("amqp_consuming broker={} queue={:?}", self.broker, self.config.queue);
        counters.amqp_connected.set(1);
        let ended = self.consume(&mut client);
        counters.amqp_connected.set(0);
        match ended {
            Err(ended) => ended,
            Ok(()) => {
                client.close();
                Ended::Stopped
            }
        }
    }

    /// Takes messages until the stop; what was taken is stored then.
    fn consume(&mut self, client: &mut Client) -> Result<(), Ended> {
        loop {
            let wait = self.last_tag.is_none();
            let stop = self.stop.clone();
            match client.next(wait, &stop)? {
                Next::Delivery(delivery) => {
                    if self.take(client, delivery)? {
                        self.store(client)?;
                    }
                }
                Next::Nothing => self.store(client)?,
                Next::Stopped => return self.store(client),
            }
        }
    }

    /// Takes a message; true if it is time to store what was taken.
    fn take(&mut self, client: &mut Client, delivery: Delivery) -> Result<bool, Failed> {
        let counters = self.intake.counters();
        counters.amqp_messages_total.one();
        if delivery.redelivered {
            counters.amqp_redelivered_total.one();
        }
        match self.document(&delivery) {
            Ok(document) => {
                self.last_tag = Some(delivery.tag);
                Ok(self.batch.push(document))
            }
            Err((word, reason)) => {
                let (value, cut) = (&delivery.body[..], delivery.cut);
                let letter = Letter { from: self.from(), index: None, reason: &reason, value, cut };
                self.intake.refuse(&letter, word);
                client.reject(delivery.tag)?;
                Ok(false)
            }
        }
    }

    fn document(&self, delivery: &Delivery) -> Result<Document, (&'static str, String)> {
        let counters = self.intake.counters();
        if delivery.cut {
            counters.event_too_long_total.one();
            return Err(("too_long", format!("longer than {SOURCE_BYTES_MAX} bytes")));
        }
        match event::read(&delivery.body, &self.indices, &Local) {
            Ok(Line::Event(document)) => {
                let id = Some(id(delivery.message_id.as_deref(), &delivery.body));
                Ok(Document { id, mode: Mode::Create, ..document })
            }
            Ok(Line::Data) => {
                counters.event_malformed_total.one();
                Err(("data", "content of a stream, which is no event: send it to --data-lines".to_owned()))
            }
            Err(reason) => {
                counters.event_malformed_total.one();
                Err(("no_json", reason.to_string()))
            }
        }
    }

    /// Stores what was taken, and then acknowledges it.
    fn store(&mut self, client: &mut Client) -> Result<(), Ended> {
        let Some(tag) = self.last_tag.take() else { return Ok(()) };
        let from = From { listener: "amqp", peer: &self.broker };
        self.batch.write_or_leave(&self.intake, from)?;
        Ok(client.ack_to(tag)?)
    }

    fn from(&self) -> From<'_> {
        From { listener: "amqp", peer: &self.broker }
    }
}

/// The id of what a message has, the same one each time it is delivered.
fn id(message_id: Option<&str>, body: &[u8]) -> String {
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
    fn a_message_has_the_same_id_each_time() {
        assert_eq!(id(None, b"{}"), id(None, b"{}"));
        assert_eq!(id(None, b"{}"), id(Some(""), b"{}"));
        let ids =
            [id(None, b"ab"), id(None, b"a"), id(Some("a"), b"b"), id(Some("ab"), b""), id(Some("b"), b"b")];
        for (nth, one) in ids.iter().enumerate() {
            assert!(!ids[..nth].contains(one), "{nth}");
        }
    }
}
