//! Tells whether a TCP stream carries SIP or WebSocket, from its first bytes.

use memchr::memchr;

use super::start_line::{StartLine, after_line_ends, start_line};
use super::websocket::{Handshake, handshake, starts_with_sip_frame};

/// Most bytes that are kept of a stream whose kind is not known: the longest start line, or the longest HTTP head.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// What is known of the first bytes of a stream, or of one of its segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detection {
    Sip,
    WebSocket,
    /// The bytes from this offset on may become one of them.
    Incomplete(usize),
    Neither,
}

/// Looks for a WebSocket handshake or frame at the start, and for a SIP start line at the start of each line: a stream may
/// be picked up in the middle of a message.
pub(super) fn detect(bytes: &[u8]) -> Detection {
    match handshake(bytes) {
        Handshake::Upgrade { .. } => return Detection::WebSocket,
        Handshake::Incomplete if bytes.len() <= HEAD_BYTES_MAX => return Detection::Incomplete(0),
        Handshake::Incomplete | Handshake::Other { .. } => return Detection::Neither,
        Handshake::None => {}
    }
    if starts_with_sip_frame(bytes) {
        return Detection::WebSocket;
    }
    let mut rest = bytes;
    loop {
        rest = after_line_ends(rest);
        match start_line(rest) {
            StartLine::Yes => return Detection::Sip,
            StartLine::Incomplete if rest.len() <= HEAD_BYTES_MAX => {
                return Detection::Incomplete(bytes.len() - rest.len());
            }
            StartLine::Incomplete | StartLine::No => {}
        }
        match memchr(b'\n', rest).and_then(|lf| rest.get(lf + 1..)) {
            Some(next) => rest = next,
            None => return Detection::Neither,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sip_is_found_at_the_start_of_a_line() {
        assert_eq!(detect(b"OPTIONS sip:192.0.2.1 SIP/2.0\r\n"), Detection::Sip);
        assert_eq!(detect(b"\r\n\r\nSIP/2.0 200 OK\r\n"), Detection::Sip);
        assert_eq!(detect(b"a=sendrecv\r\nBYE sip:192.0.2.1 SIP/2.0\r\n"), Detection::Sip);
        assert_eq!(detect(b"a=sendrecv\r\nBYE sip:"), Detection::Incomplete(12));
        assert_eq!(detect(b""), Detection::Incomplete(0));
    }

    #[test]
    fn other_protocols_are_neither() {
        let tls = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01];
        for bytes in [&tls[..], b"SSH-2.0-OpenSSH_9.2\r\n\x00", b"220 mail.example.com ESMTP\r\n\x00"] {
            assert_eq!(detect(bytes), Detection::Neither);
        }
        assert_eq!(detect(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"), Detection::Neither);
        assert_eq!(detect(b"GET / HTTP/1.1\r\nHost: example.com\r\n"), Detection::Incomplete(0));
    }

    #[test]
    fn a_head_has_a_limit() {
        let mut http = b"GET / HTTP/1.1\r\nA: ".to_vec();
        http.resize(HEAD_BYTES_MAX, b'a');
        assert_eq!(detect(&http), Detection::Incomplete(0));
        http.push(b'a');
        assert_eq!(detect(&http), Detection::Neither);
        let mut line = b"INVITE sip:".to_vec();
        line.resize(HEAD_BYTES_MAX, b'a');
        assert_eq!(detect(&line), Detection::Incomplete(0));
        line.push(b'a');
        assert_eq!(detect(&line), Detection::Neither);
    }
}
