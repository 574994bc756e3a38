//! Start lines of SIP messages (RFC 3261 section 7).

use memchr::memchr;

/// Bytes in which the end of a start line is looked for. A UDP datagram is not longer.
const START_LINE_BYTES_MAX: usize = 64 * 1024;
/// Longest method. The longest registered one has 9 letters, the longest of RFC 4475 has 41.
const METHOD_BYTES_MAX: usize = 64;

/// Reports whether a datagram starts like a SIP message: `METHOD SP URI SP SIP/2.0` or `SIP/2.0 SP 3DIGIT`, and a line end.
/// CRLFs before it are skipped (section 7.5).
#[inline]
pub(crate) fn looks_like_sip(bytes: &[u8]) -> bool {
    match bytes.first() {
        // RTP, RTCP, STUN, DTLS and most of DNS.
        Some(first) if !is_token(*first) && !matches!(first, b'\r' | b'\n') => false,
        _ => start_line(after_line_ends(bytes)) == StartLine::Yes,
    }
}

/// Returns what follows the CRs and LFs at the start.
pub(super) fn after_line_ends(bytes: &[u8]) -> &[u8] {
    let line_ends = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    bytes.get(line_ends..).unwrap_or_default()
}

/// What is known of the first bytes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StartLine {
    Yes,
    No,
    /// The bytes end before the line does, and contradict nothing.
    Incomplete,
}

/// Tells whether the bytes start with a start line.
///
/// Spaces around the URI and at the end of the line are tolerated, as are URIs in angle brackets: RFC 4475 section 3.1.2
/// leaves it to the receiver to accept such requests, and an analyst wants to see them.
pub(super) fn start_line(bytes: &[u8]) -> StartLine {
    let head = bytes.get(..=METHOD_BYTES_MAX).unwrap_or(bytes);
    match head.iter().position(|byte| !is_token(*byte)) {
        None if head.len() > METHOD_BYTES_MAX => StartLine::No,
        None => StartLine::Incomplete,
        Some(0) => StartLine::No,
        Some(token_bytes) => match head.get(token_bytes) {
            Some(b' ') => request_line(bytes, token_bytes),
            Some(b'/') => status_line(bytes),
            _ => StartLine::No,
        },
    }
}

/// Reports whether a start line has a registered method (IANA registry of SIP parameters), or is that of a
/// response.
pub(super) fn has_registered_start(line: &[u8]) -> bool {
    const STARTS: [&[u8]; 15] = [
        b"ACK ",
        b"BYE ",
        b"CANCEL ",
        b"INFO ",
        b"INVITE ",
        b"MESSAGE ",
        b"NOTIFY ",
        b"OPTIONS ",
        b"PRACK ",
        b"PUBLISH ",
        b"REFER ",
        b"REGISTER ",
        b"SUBSCRIBE ",
        b"UPDATE ",
        b"SIP/2.0 ",
    ];
    STARTS.iter().any(|start| line.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start)))
}

fn status_line(bytes: &[u8]) -> StartLine {
    let is_expected = |at: usize, byte: u8| match at {
        8 => matches!(byte, b'1'..=b'6'),
        9 | 10 => byte.is_ascii_digit(),
        // There should be a space even if there is no reason phrase.
        11 => matches!(byte, b' ' | b'\r' | b'\n'),
        _ => b"SIP/2.0 ".get(at).is_some_and(|expected| expected.eq_ignore_ascii_case(&byte)),
    };
    if !bytes.iter().take(12).enumerate().all(|(at, byte)| is_expected(at, *byte)) {
        return StartLine::No;
    }
    match line(bytes) {
        Ok(_) if bytes.len() >= 12 => StartLine::Yes,
        Ok(_) => StartLine::No,
        Err(verdict) => verdict,
    }
}

fn request_line(bytes: &[u8], method_bytes: usize) -> StartLine {
    const VERSION: &[u8] = b"SIP/2.0";
    let line = match line(bytes) {
        Ok(line) => line.get(method_bytes..).unwrap_or_default().trim_ascii_end(),
        Err(verdict) => return verdict,
    };
    let Some((uri, version)) = line.len().checked_sub(VERSION.len()).and_then(|at| line.split_at_checked(at))
    else {
        return StartLine::No;
    };
    let is_request = version.eq_ignore_ascii_case(VERSION)
        && matches!(uri, [.., b' ' | b'\t'])
        // Each absolute URI has a scheme.
        && memchr(b':', uri).is_some_and(|at| !uri.get(..at).unwrap_or_default().trim_ascii().is_empty());
    if is_request { StartLine::Yes } else { StartLine::No }
}

/// Returns the first line without its LF, or the verdict on a line without end.
fn line(bytes: &[u8]) -> Result<&[u8], StartLine> {
    let searched = bytes.get(..START_LINE_BYTES_MAX).unwrap_or(bytes);
    match memchr(b'\n', searched) {
        Some(end) => Ok(searched.get(..end).unwrap_or_default()),
        None if searched.len() >= START_LINE_BYTES_MAX => Err(StartLine::No),
        None => Err(StartLine::Incomplete),
    }
}

/// Characters of a `token` (RFC 3261 section 25.1).
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_sip(is_sip: bool, bytes: &[u8]) {
        assert_eq!(looks_like_sip(bytes), is_sip, "{}", String::from_utf8_lossy(bytes));
        // A whole line is never incomplete, and a prefix without line end never complete.
        if let Some(end) = memchr(b'\n', after_line_ends(bytes)) {
            let bytes = after_line_ends(bytes);
            for at in 0..=end {
                let verdict = start_line(&bytes[..at]);
                assert_ne!(verdict, StartLine::Yes, "{at}");
                assert!(!is_sip || verdict == StartLine::Incomplete, "{at}");
            }
        }
    }

    #[test]
    fn requests_and_responses_look_like_sip() {
        for line in [
            "INVITE sip:+447700900123@192.0.2.1 SIP/2.0\r\n",
            "OPTIONS sip:user@example.com sip/2.0\n",
            "\r\n\r\nBYE tel:+12025550100 SIP/2.0\r\n",
            "SIP/2.0 200 OK\r\n",
            "sip/2.0 486 \r\n",
            "SIP/2.0 603\r\n",
            // RFC 4475 sections 3.1.1.2, 3.1.2.8, 3.1.2.10, 3.3.2 and 3.1.1.13.
            "!interesting-Method0123456789_*+`.%indeed'~ sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1,weird!*pas$wo~d_too.(doesn't-it)@example.com SIP/2.0\r\n",
            "INVITE sip:user@example.com; lr SIP/2.0\r\n",
            "OPTIONS sip:remote-target@example.com SIP/2.0  \r\n",
            "OPTIONS soap.beep://192.0.2.103:3002 SIP/2.0\r\n",
            "SIP/2.0 200 = 2**3 * 5**2 \u{043d}\u{043e}\r\n",
        ] {
            check_sip(true, line.as_bytes());
        }
    }

    #[test]
    fn other_protocols_do_not_look_like_sip() {
        let lines: [&[u8]; 16] = [
            b"",
            b"\r\n\r\n",
            b"\x80\x08\x12\x34 sip:a@b SIP/2.0\r\n",
            b"\x00\x01\x00\x00",
            b"GET /index.html HTTP/1.1\r\n",
            b"HTTP/1.1 200 OK\r\n",
            b"OPTIONS rtsp://192.0.2.1/ RTSP/1.0\r\n",
            b"INVITE SIP/2.0\r\n",
            b"INVITE  SIP/2.0\r\n",
            b"INVITE : SIP/2.0\r\n",
            b"INVITE sip:a@example.com SIP/2.01\r\n",
            b"INVITE sip:a@example.comSIP/2.0\r\n",
            b"INVITE\tsip:a@example.com SIP/2.0\r\n",
            b"OPTIONS sip:t.watson@example.org SIP/7.0\r\n",
            b"SIP/2.0 2OO OK\r\n",
            b"SIP/2.0 2000 OK\r\n",
        ];
        for line in lines {
            check_sip(false, line);
        }
        assert!(!looks_like_sip(b"INVITE sip:a@example.com SIP/2.0"), "no line end");
    }

    #[test]
    fn the_rest_of_a_method_is_not_registered() {
        assert!(has_registered_start(b"INVITE sip:") && has_registered_start(b"sip/2.0 200"));
        assert!(
            !has_registered_start(b"VITE sip:")
                && !has_registered_start(b"INVITES ")
                && !has_registered_start(b"")
        );
    }

    #[test]
    fn methods_and_lines_have_limits() {
        let line = |method: usize, uri: usize| {
            format!("{} sip:{} SIP/2.0\r\n", "M".repeat(method), "u".repeat(uri)).into_bytes()
        };
        assert!(looks_like_sip(&line(METHOD_BYTES_MAX, 10)));
        assert!(!looks_like_sip(&line(METHOD_BYTES_MAX + 1, 10)));
        let others = "M sip: SIP/2.0\r\n".len();
        assert!(looks_like_sip(&line(1, START_LINE_BYTES_MAX - others)));
        assert!(!looks_like_sip(&line(1, START_LINE_BYTES_MAX - others + 1)));
    }
}
