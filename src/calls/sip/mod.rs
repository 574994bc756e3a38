//! SIP messages of a capture: RFC 3261 as senders write it, not only as the RFC asks.
//!
//! The parser is a scanner: it keeps about twenty header values as slices of the message and allocates nothing. Its
//! input comes from attackers, so it accepts what a phone may have accepted, and rejects only what has no start line,
//! no Call-ID or no CSeq.

mod address;
mod body;
mod header;
mod message;
mod method;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod torture_tests;
mod uri;
mod value;
mod via;

pub(crate) use address::Address;
pub(crate) use body::Content;
pub(crate) use message::{Message, StartLine};
#[cfg(test)]
pub(crate) use message::{SipError, is_start_line};
pub(crate) use method::Method;
#[cfg(test)]
pub(crate) use uri::Uri;
pub(crate) use value::text;

/// Longest message in bytes. A UDP datagram ends at 64 KiB; over TCP, real messages with pictures or many bodies stay
/// below 256 KiB. Longer ones are rejected with [`message::SipError::TooLong`], which the caller counts.
pub(crate) const MESSAGE_BYTES_MAX: usize = 256 * 1024;

/// Most header lines that are read in one message, with continuation lines. Real messages have below 100. Those after
/// it are skipped and counted in [`Message::lines_omitted`].
pub(crate) const HEADER_LINES_MAX: u32 = 512;

/// Longest value in bytes of From, To and Via that is read. Stacks accept far less in one header. The rest of a longer
/// one is ignored and counted in [`Message::values_cut`]: a value is scanned several times.
pub(crate) const VALUE_BYTES_MAX: usize = 16 * 1024;
