//! Records of Kafka topics. `client` is what is asked of a Kafka client, `librdkafka` the one that asks a broker,
//! `settings` what it is told, `native` the calls that no safe crate has, `fake` the one for tests; `consume` is the
//! loop over it.

pub mod client;
pub mod consume;
#[cfg(test)]
pub mod fake;
pub mod librdkafka;
mod native;
pub mod settings;
