//! Sending captures as real senders do: `run` starts a thread a stream, `stream` is what each of them does.
//!
//! Pure parts (no I/O, no clock): `packets` (where a capture's packets end, and when they were captured), `pace`
//! (when a byte is due), `fault` (what goes wrong where), `names`, `chunk` (a chunk as JSON). A place to send to is a
//! [`sink::Sink`]: `tcp`, `kafka`, `logstash`. Files and pacing know nothing of the place, nor the place of them.

pub mod chunk;
pub mod fault;
pub mod kafka;
pub mod logstash;
pub mod names;
pub mod pace;
pub mod packets;
pub mod run;
pub mod sink;
pub mod source;
pub mod stream;
pub mod tcp;
pub mod wait;

/// Streams at once. A thread takes four memory maps and the kernel's usual ceiling is 65,530; past it the standard
/// library ends the process.
pub const STREAMS_MAX: usize = 15_000;
