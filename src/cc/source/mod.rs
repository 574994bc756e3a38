//! Blocking input: one thread a stream, named, joined by whoever started it.

pub mod dump;
pub mod kafka;
pub mod tcp;
