//! The yardstick of the Kafka benchmark: the least that a consumer with our client and our settings can do.
//!
//! `kafka_poll BROKERS TOPIC GROUP RECORDS` polls so many records, looks at each value's length, and prints how many
//! bytes there were. Nothing is decoded, stored or committed.

use std::time::Duration;

use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};

use lea::cc::source::kafka::client::Reset;
use lea::cc::source::kafka::settings::{Settings, cannot_make};
use lea::{Error, Exit, Result, error, logging};

/// One poll.
const POLL: Duration = Duration::from_millis(100);
/// So many polls may bring nothing one after another: a minute.
const EMPTY_POLLS_MAX: u32 = 600;

fn main() -> std::process::ExitCode {
    let exit = run().unwrap_or_else(|error| {
        logging::say(format_args!("kafka_poll: {}", error::chain(&error)));
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
    let settings = Settings {
        brokers: brokers.clone(),
        group: group.clone(),
        instance: None,
        topics: vec![topic.clone()],
        reset: Reset::Earliest,
        properties: Vec::new(),
    };
    let consumer: BaseConsumer =
        settings.config().create().map_err(|error| cannot_make(&settings.brokers, error))?;
    consumer.subscribe(&[topic]).map_err(Error::kafka("subscribe to", topic))?;
    let bytes = poll(&consumer, wanted, topic)?;
    logging::say(format_args!("records={wanted} bytes={bytes}"));
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
