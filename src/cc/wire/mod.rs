//! Pure parsers of what senders put on the wire: the TCP handshake, stream names, JSON chunks. No I/O, no
//! clock.

pub mod chunk;
pub mod handshake;
pub(crate) mod json;
pub mod name;
pub(crate) mod name_template;
pub(crate) mod rubydebug;
