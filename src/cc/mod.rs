//! Content of communication (CC, ETSI HI3): intercepted streams and the files they are stored in.
//!
//! `ingest` receives streams over TCP, from Kafka and from Logstash lines. `kafka_dump` decodes dumps of
//! topics. `wire` has the pure parsers. `vault` stores streams in files. `stream_registry` and `partitions`
//! list what is open now.

pub mod ingest;
pub mod kafka_dump;
pub(crate) mod partitions;
pub mod stream_registry;
pub mod vault;
pub mod wire;
