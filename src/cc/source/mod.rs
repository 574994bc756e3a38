//! Blocking input: one thread a stream, named, joined by whoever started it.

pub mod kafka;
pub mod tcp;
