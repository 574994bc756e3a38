//! Event sources: JSON lines, syslog, GELF and AMQP. All input is blocking, with one thread per connection.
//!
//! `listener` accepts connections and reads, `framing` splits bytes into messages, `lines`, `syslog` and `gelf` turn messages into
//! documents (with `iri::event` and `grok`), `event_sink` writes documents. `udp` receives datagrams.
//! A source uses the store only through its trait.

pub mod amqp;
pub(crate) mod event_sink;
pub mod framing;
pub mod gelf;
pub(crate) mod grok;
pub(crate) mod lines;
pub(crate) mod listener;
pub mod syslog;
pub(crate) mod udp;
