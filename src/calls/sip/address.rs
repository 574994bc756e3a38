//! From, To, Contact and the like: display name, URI and header parameters.

use super::VALUE_BYTES_MAX;
use super::uri::Uri;
use super::value::{Params, find_outside, split_at_byte, split_outside, text, unescape, unquote};

/// Value of a header with a URI (RFC 3261 section 20.10): `"Name" <uri>;params` or `uri;params`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Address<'a> {
    display: &'a [u8],
    uri: &'a [u8],
    params: &'a [u8],
}

impl<'a> Address<'a> {
    /// Reads the value of a header that has one address. Without angle brackets, `;` begins the header parameters.
    pub(crate) fn parse(value: &'a [u8]) -> Address<'a> {
        match find_outside(value, b'<').and_then(|at| value.split_at_checked(at)) {
            Some((display, rest)) => {
                let (uri, params) = split_at_byte(rest.get(1..).unwrap_or_default(), b'>');
                let params = params.unwrap_or_default();
                Address { display: display.trim_ascii(), uri: uri.trim_ascii(), params }
            }
            None => {
                let (uri, params) = split_at_byte(value, b';');
                Address { display: &[], uri: uri.trim_ascii(), params: params.unwrap_or_default() }
            }
        }
    }

    /// Reads the first address of a comma-separated list, within [`VALUE_BYTES_MAX`].
    pub(crate) fn parse_first(value: &'a [u8]) -> Address<'a> {
        let value = value.get(..VALUE_BYTES_MAX).unwrap_or(value);
        Address::parse(split_outside(value, b',').0)
    }

    /// Returns whether there was no header, or an empty one.
    pub(super) fn is_empty(&self) -> bool {
        self.uri.is_empty()
    }

    pub(crate) fn uri(&self) -> Uri<'a> {
        Uri::parse(self.uri)
    }

    pub(crate) fn param(&self, name: &[u8]) -> Option<&'a [u8]> {
        Params::new(self.params).get(name)
    }

    /// Tag (RFC 3261 section 19.3). Empty if there is none.
    pub(crate) fn tag(&self) -> &'a [u8] {
        self.param(b"tag").unwrap_or_default()
    }

    /// Display name without quotes and escapes.
    pub(crate) fn display_text(&self) -> String {
        let inner = unquote(self.display);
        if inner.len() == self.display.len() { text(inner) } else { text(&unescape(inner)) }
    }
}
