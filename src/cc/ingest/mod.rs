//! Receivers of streams. Input is blocking, with one named thread per stream, joined by the thread that
//! started it.

pub(crate) mod content_lines;
pub mod kafka;
pub(crate) mod tcp;
