//! URIs: `sip:`, `sips:`, `tel:` and any other.

use percent_encoding::percent_decode;

#[cfg(test)]
use super::value::Params;
use super::value::{number, split_at_byte, text};

/// URI of a request line, of From, To, Contact or Refer-To. All slices are as on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Uri<'a> {
    /// As in `sip`. Empty if there is none.
    pub scheme: &'a [u8],
    /// User part without password, still escaped. The number of a `tel:` URI.
    pub user: &'a [u8],
    /// Host without brackets. Empty in URIs without host.
    pub host: &'a [u8],
    pub port: Option<u16>,
    /// Parameters after the host, without the first semicolon.
    params: &'a [u8],
    /// The URI up to its parameters and headers.
    bare: &'a [u8],
}

impl<'a> Uri<'a> {
    /// Reads a URI. Whatever it cannot split stays in `bare`, so this cannot fail.
    pub(crate) fn parse(uri: &'a [u8]) -> Uri<'a> {
        let uri = strip_angles(uri.trim_ascii());
        let (scheme, rest) = split_scheme(uri);
        if scheme.eq_ignore_ascii_case(b"tel") {
            let (number, params) = split_at_byte(rest, b';');
            let params = params.unwrap_or_default();
            return Uri { scheme, user: number, params, bare: before(uri, params), ..Uri::default() };
        }
        let is_sip = scheme.is_empty() || is_sip_scheme(scheme);
        if !is_sip && (rest.starts_with(b"//") || memchr::memchr(b'@', rest).is_none()) {
            return Uri { scheme, bare: uri, ..Uri::default() };
        }
        Uri::parse_sip(uri, scheme, rest)
    }

    /// `user:password@host:port;params?headers` (RFC 3261 section 19.1.1). The first `@` ends the user part, which may
    /// have `;`, `?` and `/` in it.
    fn parse_sip(uri: &'a [u8], scheme: &'a [u8], rest: &'a [u8]) -> Uri<'a> {
        let (user_info, host_part) = match split_at_byte(rest, b'@') {
            (user, Some(host)) => (user, host),
            (host, None) => (&[][..], host),
        };
        let host_len = memchr::memchr2(b';', b'?', host_part).unwrap_or(host_part.len());
        let (host_port, tail) = host_part.split_at_checked(host_len).unwrap_or((host_part, &[]));
        let params = match tail.strip_prefix(b";") {
            Some(params) => split_at_byte(params, b'?').0,
            None => &[],
        };
        let (host, port) = split_port(host_port.trim_ascii());
        let user = split_at_byte(user_info, b':').0;
        Uri { scheme, user, host, port, params, bare: before(uri, tail) }
    }

    /// User part unescaped. Of a telephone number with parameters (RFC 3261 section 19.1.6), only the number.
    pub(crate) fn user_text(&self) -> String {
        let number = split_at_byte(self.user, b';').0;
        let is_number = number.iter().all(|byte| byte.is_ascii_digit() || b"+-.()*#".contains(byte));
        let user = if is_number { number } else { self.user };
        text(&percent_decode(user).collect::<Vec<u8>>())
    }

    /// URI without parameters and headers, as in `sip:+447700900123@example.com`.
    pub(crate) fn bare_text(&self) -> String {
        text(self.bare)
    }

    #[cfg(test)]
    pub(crate) fn param(&self, name: &[u8]) -> Option<&'a [u8]> {
        Params::new(self.params).get(name)
    }
}

fn is_sip_scheme(scheme: &[u8]) -> bool {
    scheme.eq_ignore_ascii_case(b"sip") || scheme.eq_ignore_ascii_case(b"sips")
}

/// `<sip:user@example.com>` occurs in request lines (RFC 4475 section 3.1.2.7).
fn strip_angles(uri: &[u8]) -> &[u8] {
    uri.strip_prefix(b"<").map_or(uri, |uri| uri.strip_suffix(b">").unwrap_or(uri).trim_ascii())
}

/// The part of `uri` before its last `tail.len()` bytes and the separator in front of them.
fn before<'a>(uri: &'a [u8], tail: &[u8]) -> &'a [u8] {
    let bare = uri.get(..uri.len().saturating_sub(tail.len())).unwrap_or(uri);
    bare.strip_suffix(b";").unwrap_or(bare)
}

/// Scheme and the rest after the colon. No scheme if what is before the colon has other characters than a scheme
/// (RFC 3986 section 3.1), as in `user@example.com:5060`.
fn split_scheme(uri: &[u8]) -> (&[u8], &[u8]) {
    let is_scheme_byte = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    match split_at_byte(uri, b':') {
        (scheme, Some(rest)) if !scheme.is_empty() && scheme.iter().all(is_scheme_byte) => (scheme, rest),
        _ => (&[], uri),
    }
}

/// Host and port of `host`, `host:port`, `[v6]`, `[v6]:port`.
pub(super) fn split_port(host_port: &[u8]) -> (&[u8], Option<u16>) {
    let (host, port) = match host_port.strip_prefix(b"[") {
        Some(inner) => {
            let (host, tail) = split_at_byte(inner, b']');
            (host, tail.and_then(|tail| split_at_byte(tail, b':').1))
        }
        None => split_at_byte(host_port, b':'),
    };
    let port = port.and_then(number).and_then(|port| u16::try_from(port).ok());
    (host.trim_ascii(), port)
}
