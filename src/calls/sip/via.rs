//! Via: the hop that a message takes.

use super::value::{Params, split_at_byte, split_outside};

/// Topmost Via value (RFC 3261 section 20.42): `SIP/2.0/UDP host:port;branch=z9hG4bK...`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Via<'a> {
    /// As in `UDP`.
    pub transport: &'a [u8],
    /// Host and port.
    pub sent_by: &'a [u8],
    params: &'a [u8],
}

impl<'a> Via<'a> {
    /// Reads the first value of a Via header.
    pub(crate) fn parse(value: &'a [u8]) -> Via<'a> {
        let (first, _) = split_outside(value, b',');
        let (hop, params) = split_at_byte(first, b';');
        let after_version = split_at_byte(hop, b'/').1.and_then(|rest| split_at_byte(rest, b'/').1);
        let hop = after_version.unwrap_or(hop).trim_ascii();
        let len = hop.iter().take_while(|byte| !byte.is_ascii_whitespace()).count();
        let (transport, sent_by) = hop.split_at_checked(len).unwrap_or((hop, &[]));
        Via { transport, sent_by: sent_by.trim_ascii(), params: params.unwrap_or_default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.transport.is_empty()
    }

    /// Branch (RFC 3261 section 8.1.1.7). Empty if there is none.
    pub(crate) fn branch(&self) -> &'a [u8] {
        Params::new(self.params).get(b"branch").unwrap_or_default()
    }
}
