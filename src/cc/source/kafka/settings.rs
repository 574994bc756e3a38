//! What librdkafka is told, by options of ours and of the user's; for consumers and producers.

use rdkafka::client::{Client, DefaultClientContext};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaType;

use crate::cc::source::kafka::client::Reset;
use crate::{Error, Result};

/// A property of librdkafka's, as `-X key=value` sets it. Its value may be a password and is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Property {
    /// The name that librdkafka knows it by.
    pub key: String,
    value: String,
}

/// Properties that what we promise depends on, or that have an option of their own.
const OWN_KEYS: [&str; 8] = [
    "auto.offset.reset",
    "bootstrap.servers",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.partition.eof",
    "group.id",
    "group.instance.id",
    "metadata.broker.list",
];

impl Property {
    /// One of ours.
    pub fn new(key: &str, value: &str) -> Property {
        Property { key: key.to_owned(), value: value.to_owned() }
    }

    /// What it is set to; for no log.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Of an option's value.
    pub fn parse(text: &str) -> Result<Property, String> {
        let (key, value) = text.split_once('=').ok_or("write it as KEY=VALUE")?;
        if OWN_KEYS.contains(&key) {
            return Err(format!("{key} is set by lea"));
        }
        Ok(Property { key: key.to_owned(), value: value.to_owned() })
    }
}

impl std::fmt::Debug for Property {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}=...", self.key)
    }
}

/// Checks a topic's name as brokers do: 1 to 249 of letters, digits, `.`, `_`, `-`.
pub fn topic_name(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if text.is_empty() || text.len() > 249 || !text.bytes().all(fits) {
        return Err("a topic's name has 1 to 249 letters, digits, dots, underscores and hyphens".to_owned());
    }
    Ok(text.to_owned())
}

/// What producers and consumers have in common. Later properties win.
pub fn config_of(brokers: &str, own: &[(&str, &str)], properties: &[Property]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("client.id", "lea");
    config.set("reconnect.backoff.max.ms", "1000").set("socket.keepalive.enable", "true");
    for (key, value) in own {
        config.set(*key, *value);
    }
    for property in properties {
        config.set(&property.key, &property.value);
    }
    // Errors come as events; what else librdkafka has to say is for who asks for it.
    let asked = properties.iter().any(|property| property.key == "debug");
    config.set_log_level(if asked { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Critical });
    config
}

/// An error of making a client: what the user can set is wrong usage.
pub fn cannot_make(brokers: &str, error: KafkaError) -> Error {
    match error {
        // Its value may be a password.
        KafkaError::ClientConfig(_, reason, key, _) => {
            Error::Usage(format!("-X {key}: {reason}{}", how_to_build(&reason)))
        }
        KafkaError::ClientCreation(reason) => {
            Error::Usage(format!("the options for Kafka: {reason}{}", how_to_build(&reason)))
        }
        error => Error::kafka("make a client of", brokers)(error),
    }
}

/// How to come to what librdkafka was built without.
fn how_to_build(reason: &str) -> &'static str {
    match reason.contains("OpenSSL not available at build time") || reason.contains("openssl support") {
        true => " (build lea with `cargo build --release --features kafka-tls`)",
        false => "",
    }
}

/// What may help against an error that librdkafka goes on trying after.
pub fn hint(code: Option<RDKafkaErrorCode>) -> &'static str {
    match code {
        Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed) => {
            "check --sasl-mechanism, --sasl-user and the password"
        }
        Some(RDKafkaErrorCode::SSL) => {
            "check --tls-ca, --tls-cert and --tls-key, and that the port is one for TLS"
        }
        Some(RDKafkaErrorCode::UnknownTopicOrPartition) => "make the topic; it is looked for every 10 s",
        Some(RDKafkaErrorCode::Resolve) => "check the broker's name",
        Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown) => {
            "check that the broker runs, its address, and whether that wants --tls or --sasl-user"
        }
        _ => "-",
    }
}

/// Makes a client and throws it away, to know that one can be made: before anything else is started.
pub fn check(settings: &Settings) -> Result<()> {
    let mut config = settings.config();
    // No member of the group, and nothing to connect for.
    config.remove("group.id").remove("group.instance.id");
    let native = config.create_native_config();
    let client = native.and_then(|native| {
        Client::new(&config, native, RDKafkaType::RD_KAFKA_CONSUMER, DefaultClientContext)
    });
    client.map(drop).map_err(|error| cannot_make(&settings.brokers, error))
}

/// Which group to be a member of, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `HOST:PORT`, several with commas.
    pub brokers: String,
    /// The group.
    pub group: String,
    /// What makes this member the same one after a restart, so that it gets its partitions back at once. It must
    /// be no other member's.
    pub instance: Option<String>,
    /// The topics, checked by [`topic_name`].
    pub topics: Vec<String>,
    /// Where to start without a committed offset.
    pub reset: Reset,
    /// What else librdkafka is told.
    pub properties: Vec<Property>,
}

impl Settings {
    /// All of it, in librdkafka's words.
    pub fn config(&self) -> ClientConfig {
        let reset = match self.reset {
            Reset::Earliest => "earliest",
            Reset::Latest => "latest",
        };
        let mut own = vec![
            ("group.id", self.group.as_str()),
            ("auto.offset.reset", reset),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            // Only what moves is taken, and the others' begun packets can wait on.
            ("partition.assignment.strategy", "cooperative-sticky"),
            // By default librdkafka looks once a second whether there is room for more again.
            ("fetch.queue.backoff.ms", "5"),
            ("queued.max.messages.kbytes", "32768"),
            ("fetch.max.bytes", "16777216"),
            ("topic.metadata.refresh.interval.ms", "10000"),
            // A batch that was damaged on its way must not become evidence.
            ("check.crcs", "true"),
        ];
        own.extend(self.instance.as_deref().map(|instance| ("group.instance.id", instance)));
        let mut config = config_of(&self.brokers, &own, &self.properties);
        // Its line on a topic that was made again is one of these.
        let debug = config.get("debug").map_or(String::new(), |asked| format!(",{asked}"));
        config.set("debug", format!("metadata{debug}")).set_log_level(RDKafkaLogLevel::Debug);
        config
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Settings of a member, where nobody listens.
    pub fn one(properties: &[&str]) -> Settings {
        Settings {
            brokers: "127.0.0.1:1".to_owned(),
            group: "interception".to_owned(),
            instance: Some("one".to_owned()),
            topics: vec!["interception".to_owned()],
            reset: Reset::Earliest,
            properties: properties.iter().map(|text| Property::parse(text).unwrap()).collect(),
        }
    }

    #[test]
    fn properties_of_ours_are_refused_and_others_win() {
        assert!(Property::parse("fetch.max.bytes").is_err());
        assert!(Property::parse("enable.auto.commit=true").is_err());
        let settings = one(&["queued.max.messages.kbytes=1024", "sasl.password=a=b"]);
        let config = settings.config();
        assert_eq!(config.get("queued.max.messages.kbytes"), Some("1024"));
        assert_eq!(config.get("sasl.password"), Some("a=b"));
        assert_eq!(format!("{:?}", settings.properties[1]), "sasl.password=...");
    }

    #[test]
    fn names_of_topics() {
        assert!(topic_name("interception_data-2.b").is_ok());
        for text in ["", "^inter.*", "a b", "a\0b", "thema-ü", &"a".repeat(250)] {
            assert!(topic_name(text).is_err(), "{text:?}");
        }
    }
}
