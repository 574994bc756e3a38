//! Baseline of the Kafka benchmark: the least work that a consumer with lea's client and settings can do.
//!
//! `kafka_poll BROKERS TOPIC GROUP RECORDS` polls RECORDS records, adds up the lengths of their values and
//! prints the sum. Nothing is decoded, stored or committed.

use std::time::Duration;

use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};

use lea::cc::ingest::kafka::client::AutoOffsetReset;
use lea::cc::ingest::kafka::settings::{ConsumerSettings, client_error};
use lea::runtime::logging;
use lea::{Error, Exit, Result, error};

const POLL: Duration = Duration::from_millis(100);
/// Consecutive empty polls before giving up: one minute.
const EMPTY_POLLS_MAX: u32 = 600;

fn main() -> std::process::ExitCode {
    let exit = run().unwrap_or_else(|error| {
        logging::status_line(format_args!("kafka_poll: {}", error::chain(&error)));
        error.exit()
    });
    exit.into()
}

fn run() -> Result<Exit> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [brokers, topic, group, records] = &args[..] else {
        return Err(Error::Usage("kafka_poll BROKERS TOPIC GROUP RECORDS".to_owned()));
    };
    let wanted: u64 = records.parse().map_err(|_| Error::Usage("RECORDS is a number".to_owned()))?;
    let settings = ConsumerSettings {
        brokers: brokers.clone(),
        group: group.clone(),
        instance: None,
        topics: vec![topic.clone()],
        reset: AutoOffsetReset::Earliest,
        properties: Vec::new(),
    };
    let consumer: BaseConsumer =
        settings.client_config().create().map_err(|error| client_error(&settings.brokers, error))?;
    consumer.subscribe(&[topic]).map_err(Error::kafka("subscribe to", topic))?;
    let bytes = poll(&consumer, wanted, topic)?;
    logging::status_line(format_args!("records={wanted} bytes={bytes}"));
    Ok(Exit::Done)
}

fn poll(consumer: &BaseConsumer, wanted: u64, topic: &str) -> Result<u64> {
    let (mut records, mut bytes, mut empty_polls) = (0, 0, 0);
    while records < wanted {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                records += 1;
                bytes += message.payload().map_or(0, <[u8]>::len) as u64;
                empty_polls = 0;
            }
            Some(Err(error)) => return Err(Error::kafka("poll", topic)(error)),
            None => empty_polls += 1,
        }
        if empty_polls > EMPTY_POLLS_MAX {
            return Err(Error::Usage(format!("{topic} has {records} records")));
        }
    }
    Ok(bytes)
}
