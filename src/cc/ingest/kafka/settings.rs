//! librdkafka's configuration for consumers and producers, from lea's options and from `-X`.

use rdkafka::client::{Client, DefaultClientContext};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaType;

use crate::cc::ingest::kafka::client::AutoOffsetReset;
use crate::{Error, Result};

/// librdkafka property, as set by `-X KEY=VALUE`. The value may be a password and is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaProperty {
    pub key: String,
    value: String,
}

/// Properties that users cannot set, because lea's guarantees depend on them or they have an option.
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

impl KafkaProperty {
    pub fn new(key: &str, value: &str) -> KafkaProperty {
        KafkaProperty { key: key.to_owned(), value: value.to_owned() }
    }

    /// Returns the value. Never log it.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Parses the value of the option `-X`.
    pub fn parse(text: &str) -> Result<KafkaProperty, String> {
        let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
        if OWN_KEYS.contains(&key) {
            return Err(format!("{key} cannot be set: lea sets it itself"));
        }
        Ok(KafkaProperty { key: key.to_owned(), value: value.to_owned() })
    }
}

impl std::fmt::Debug for KafkaProperty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}=...", self.key)
    }
}

/// Validates a topic name by Kafka's rules: 1 to 249 of letters, digits, `.`, `_`, `-`.
pub fn parse_topic_name(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if text.is_empty() || text.len() > 249 || !text.bytes().all(fits) {
        return Err("a topic name has 1 to 249 letters, digits, dots, underscores and hyphens".to_owned());
    }
    Ok(text.to_owned())
}

/// Builds the configuration shared by producers and consumers. Later properties win.
pub fn base_config(brokers: &str, own: &[(&str, &str)], properties: &[KafkaProperty]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("client.id", "lea");
    config.set("reconnect.backoff.max.ms", "1000").set("socket.keepalive.enable", "true");
    for (key, value) in own {
        config.set(*key, *value);
    }
    for property in properties {
        config.set(&property.key, &property.value);
    }
    // Errors arrive as events. librdkafka's own log is shown only on request.
    let is_traced = properties.iter().any(|property| property.key == "debug");
    config.set_log_level(if is_traced { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Critical });
    config
}

/// Converts an error of creating a client. What the user can set is a usage error.
pub fn client_error(brokers: &str, error: KafkaError) -> Error {
    match error {
        // The value is not shown, because it may be a password.
        KafkaError::ClientConfig(_, reason, key, _) => {
            Error::Usage(format!("-X {key}: {reason}{}", build_hint(&reason)))
        }
        KafkaError::ClientCreation(reason) => {
            Error::Usage(format!("invalid options for Kafka: {reason}{}", build_hint(&reason)))
        }
        error => Error::kafka("create a Kafka client for", brokers)(error),
    }
}

/// Says how to build lea with what librdkafka lacks.
fn build_hint(reason: &str) -> &'static str {
    match reason.contains("OpenSSL not available at build time") || reason.contains("openssl support") {
        true => " (build lea with `cargo build --release --features kafka-tls`)",
        false => "",
    }
}

/// Reports whether an error may go away by itself: the brokers are starting, slow, or electing leaders.
pub(crate) fn is_transient(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::Resolve
            | Code::OperationTimedOut
            | Code::TimedOutQueue
            | Code::RequestTimedOut
            | Code::InProgress
            | Code::PreviousInProgress
            | Code::WaitingForCoordinator
            | Code::Retry
            | Code::UnknownBroker
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::BrokerNotAvailable
            | Code::ReplicaNotAvailable
            | Code::NetworkException
            | Code::CoordinatorLoadInProgress
            | Code::CoordinatorNotAvailable
            | Code::NotCoordinator
    )
}

/// Advice for an error after which librdkafka keeps trying.
pub fn hint(code: Option<RDKafkaErrorCode>) -> &'static str {
    match code {
        Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed) => {
            "check --sasl-mechanism, --sasl-user and the password"
        }
        Some(RDKafkaErrorCode::SSL) => {
            "check --tls-ca, --tls-cert and --tls-key, and that the port is one for TLS"
        }
        Some(RDKafkaErrorCode::UnknownTopicOrPartition) => "create the topic; lea looks for it every 10 s",
        Some(RDKafkaErrorCode::Resolve) => "check the broker's name",
        Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown) => {
            "check that the broker runs, that the address is right, and whether it needs --tls or --sasl-user"
        }
        _ => "-",
    }
}

/// Checks the settings before anything is started, by creating a client and dropping it.
pub fn check_settings(settings: &ConsumerSettings) -> Result<()> {
    let mut config = settings.client_config();
    // Without a group the client does not connect.
    config.remove("group.id").remove("group.instance.id");
    let native = config.create_native_config();
    let client = native.and_then(|native| {
        Client::new(&config, native, RDKafkaType::RD_KAFKA_CONSUMER, DefaultClientContext)
    });
    client.map(drop).map_err(|error| client_error(&settings.brokers, error))
}

/// Settings of a consumer group member.
#[derive(Clone, Debug)]
pub struct ConsumerSettings {
    /// Brokers as `HOST:PORT`, separated by commas.
    pub brokers: String,
    pub group: String,
    /// Static member id, which must be unique in the group. After a restart the member gets its partitions
    /// back immediately.
    pub instance: Option<String>,
    /// Topics, validated by [`parse_topic_name`].
    pub topics: Vec<String>,
    /// Start of partitions without a committed offset.
    pub reset: AutoOffsetReset,
    /// Additional librdkafka properties.
    pub properties: Vec<KafkaProperty>,
}

impl ConsumerSettings {
    /// Builds librdkafka's configuration.
    pub fn client_config(&self) -> ClientConfig {
        let reset = match self.reset {
            AutoOffsetReset::Earliest => "earliest",
            AutoOffsetReset::Latest => "latest",
        };
        let mut own = vec![
            ("group.id", self.group.as_str()),
            ("auto.offset.reset", reset),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            // A rebalance revokes only partitions that move, so the partial packets of the others stay in
            // memory.
            ("partition.assignment.strategy", "cooperative-sticky"),
            // By default librdkafka checks only once per second whether its queue has room again.
            ("fetch.queue.backoff.ms", "5"),
            ("queued.max.messages.kbytes", "32768"),
            ("fetch.max.bytes", "16777216"),
            ("topic.metadata.refresh.interval.ms", "10000"),
            // A batch that was damaged in transit must not be stored.
            ("check.crcs", "true"),
        ];
        own.extend(self.instance.as_deref().map(|instance| ("group.instance.id", instance)));
        let mut config = base_config(&self.brokers, &own, &self.properties);
        // The log line about a recreated topic is a debug message of this kind.
        let debug = config.get("debug").map_or(String::new(), |own| format!(",{own}"));
        config.set("debug", format!("metadata{debug}")).set_log_level(RDKafkaLogLevel::Debug);
        config
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Settings of a member whose broker does not exist.
    pub(crate) fn test_settings(properties: &[&str]) -> ConsumerSettings {
        ConsumerSettings {
            brokers: "127.0.0.1:1".to_owned(),
            group: "interception".to_owned(),
            instance: Some("one".to_owned()),
            topics: vec!["interception".to_owned()],
            reset: AutoOffsetReset::Earliest,
            properties: properties.iter().map(|text| KafkaProperty::parse(text).unwrap()).collect(),
        }
    }

    #[test]
    fn reserved_properties_are_rejected_and_others_override() {
        assert!(KafkaProperty::parse("fetch.max.bytes").is_err());
        assert!(KafkaProperty::parse("enable.auto.commit=true").is_err());
        let settings = test_settings(&["queued.max.messages.kbytes=1024", "sasl.password=a=b"]);
        let config = settings.client_config();
        assert_eq!(config.get("queued.max.messages.kbytes"), Some("1024"));
        assert_eq!(config.get("sasl.password"), Some("a=b"));
        assert_eq!(format!("{:?}", settings.properties[1]), "sasl.password=...");
    }

    #[test]
    fn topic_names_are_validated() {
        assert!(parse_topic_name("interception_data-2.b").is_ok());
        for text in ["", "^inter.*", "a b", "a\0b", "thema-ü", &"a".repeat(250)] {
            assert!(parse_topic_name(text).is_err(), "{text:?}");
        }
    }
}
