//! Consumer of Kafka topics. `client` is the trait of a consumer, `librdkafka` implements it for brokers and
//! `fake` for tests. `settings` builds librdkafka's configuration, `native` has the calls that no safe crate
//! offers. `batch_probe` finds the end of a batch that cannot be read. `group_instance` makes the static membership id. `consume` is the loop that stores records.

mod batch_probe;
pub mod client;
pub(crate) mod consume;
#[cfg(test)]
pub(crate) mod fake;
pub(crate) mod group_instance;
pub mod librdkafka;
mod native;
pub mod settings;
