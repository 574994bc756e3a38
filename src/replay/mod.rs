//! Sends captures as real senders do. `run` starts one thread per stream, `stream` is what each thread does.
//!
//! Pure parts, without I/O and clock: `pace` (when a byte is due), `fault` (what goes wrong where), `names`,
//! `chunk` (a chunk as JSON). Packet boundaries come from [`crate::capture::reader`]. A destination
//! implements [`sink::StreamSink`]: `tcp`, `kafka`, `logstash`. Files and pacing do not depend on the
//! destination, nor the reverse.

pub(crate) mod chain;
pub(crate) mod chunk;
pub(crate) mod fault;
pub(crate) mod kafka;
pub(crate) mod logstash;
pub(crate) mod names;
pub(crate) mod pace;
pub(crate) mod run;
pub(crate) mod selection;
pub(crate) mod sink;
pub(crate) mod source;
pub(crate) mod stream;
pub(crate) mod tcp;
pub(crate) mod wait;

/// Maximum number of concurrent streams. A thread takes four memory maps, and the kernel's usual limit is
/// 65,530. Beyond it the standard library aborts the process.
pub(crate) const STREAMS_MAX: usize = 15_000;
