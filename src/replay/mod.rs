//! Sends captures as real senders do. `run` starts one thread per stream, `stream` is what each thread does.
//!
//! Pure parts, without I/O and clock: `pace` (when a byte is due), `fault` (what goes wrong where), `names`,
//! `chunk` (a chunk as JSON). Packet boundaries come from [`crate::capture::reader`]. A destination
//! implements [`sink::StreamSink`]: `tcp`, `kafka`, `logstash`. Files and pacing do not depend on the
//! destination, nor the reverse.

pub mod chunk;
pub mod fault;
pub mod kafka;
pub mod logstash;
pub mod names;
pub mod pace;
pub mod run;
pub mod sink;
pub mod source;
pub mod stream;
pub mod tcp;
pub mod wait;

/// Maximum number of concurrent streams. A thread takes four memory maps, and the kernel's usual limit is
/// 65,530. Beyond it the standard library aborts the process.
pub const STREAMS_MAX: usize = 15_000;
