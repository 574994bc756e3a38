//! Sending captures as real senders do: `run` starts a thread a stream, `stream` is what each of them does.
//!
//! Pure parts (no I/O, no clock): `packets` (where a capture's packets end, and when they were captured), `pace`
//! (when a byte is due), `fault` (what goes wrong where), `names`. A place to send to is a [`sink::Sink`]; `tcp`
//! is one. Files and pacing know nothing of the place, nor the place of them.

pub mod fault;
pub mod names;
pub mod pace;
pub mod packets;
pub mod run;
pub mod sink;
pub mod source;
pub mod stream;
pub mod tcp;
pub mod wait;

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::{Error, Result};

/// Streams at once. A thread takes four memory maps and the kernel's usual ceiling is 65,530; past it the standard
/// library ends the process.
pub const STREAMS_MAX: usize = 15_000;

/// Raises the soft limit of open descriptors to the hard one: every stream holds a socket.
pub fn raise_descriptor_limit() -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)
        .map_err(|error| Error::system("raise the limit of open descriptors")(error.into()))
}
