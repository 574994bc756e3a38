//! The head of a request: what it says about the request and about the length of its body. Pure.
//!
//! RFC 9112 leaves a server some choices; here the stricter one is taken wherever two readers of the same bytes
//! could see two different requests.

use std::ops::Range;

use super::parse::{HEADERS_MAX, Refusal};
use super::request::{Method, Request};

/// How the body's end is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes.
    Length(u64),
    /// Chunks (RFC 9112, section 7.1).
    Chunked,
}

const MALFORMED_LINE: Refusal = Refusal::new(400, "malformed request line");

/// Checks a request line, line end included, as soon as it is there: what speaks no HTTP/1 is refused without
/// waiting for a head that never ends.
pub(super) fn check_request_line(line: &[u8], target_bytes_max: usize) -> Result<(), Refusal> {
    let line = line.strip_suffix(b"\r\n").unwrap_or(line);
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(MALFORMED_LINE);
    };
    match version {
        b"HTTP/1.1" | b"HTTP/1.0" => {}
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            return Err(Refusal::new(505, "only HTTP/1.1 and HTTP/1.0 are spoken here"));
        }
        _ => return Err(MALFORMED_LINE),
    }
    if target.len() > target_bytes_max {
        return Err(Refusal::new(414, "the request target is too long"));
    }
    if method.is_empty() || target.is_empty() { Err(MALFORMED_LINE) } else { Ok(()) }
}

/// Takes a whole head apart: fills in the request and says how its body ends.
pub(super) fn take_apart(request: &mut Request, body_bytes_max: u64) -> Result<Framing, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(&request.head) {
        Ok(httparse::Status::Complete(bytes)) if bytes == request.head.len() => {}
        Ok(_) => return Err(Refusal::new(400, "malformed head")),
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::new(431, "too many headers")),
        Err(httparse::Error::HeaderName) => return Err(Refusal::new(400, "malformed header name")),
        Err(httparse::Error::HeaderValue) => return Err(Refusal::new(400, "malformed header value")),
        Err(_) => return Err(Refusal::new(400, "malformed head")),
    }
    let position = |part: &[u8]| {
        let start = part.as_ptr() as usize - request.head.as_ptr() as usize;
        start..start + part.len()
    };
    request.http_1_0 = parsed.version == Some(0);
    let name = parsed.method.unwrap_or_default();
    request.method = Method::from_name(name.as_bytes()).ok_or(Refusal::new(501, "unknown method"))?;
    let target = parsed.path.unwrap_or_default();
    let target_at = position(target.as_bytes());
    (request.path, request.query) = split_target(target, target_at, request.method)?;
    request.headers.extend(
        parsed.headers.iter().map(|header| (position(header.name.as_bytes()), position(header.value))),
    );
    let framing = rules(request)?;
    match framing {
        Framing::Length(bytes) if bytes > body_bytes_max => {
            Err(Refusal::new(413, "the body is larger than is allowed here"))
        }
        _ => Ok(framing),
    }
}

/// Path and query of a target that stands `at` in the head: origin form, absolute form, or `*`.
fn split_target(
    target: &str,
    at: Range<usize>,
    method: Method,
) -> Result<(Range<usize>, Range<usize>), Refusal> {
    let malformed = Refusal::new(400, "malformed request target");
    if target.contains('#') {
        return Err(malformed);
    }
    let path_from = match target.as_bytes() {
        [b'/', ..] => 0,
        b"*" if method == Method::Options => 0,
        _ => {
            let authority_from = absolute_form(target).ok_or(malformed)?;
            let authority = &target[authority_from..];
            authority_from + authority.find(['/', '?']).unwrap_or(authority.len())
        }
    };
    let path_to = target[path_from..].find('?').map_or(target.len(), |mark| path_from + mark);
    let query_from = (path_to + 1).min(target.len());
    Ok((at.start + path_from..at.start + path_to, at.start + query_from..at.end))
}

/// Where the authority of an absolute form starts.
fn absolute_form(target: &str) -> Option<usize> {
    let scheme = ["http://", "https://"]
        .into_iter()
        .find(|scheme| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))?;
    (!target[scheme.len()..].starts_with(['/', '?']) && target.len() > scheme.len()).then_some(scheme.len())
}

/// The headers that the edge itself obeys.
fn rules(request: &mut Request) -> Result<Framing, Refusal> {
    let mut hosts = 0;
    let mut length = None;
    let mut chunked = false;
    let (mut close, mut keep_alive, mut expects) = (false, false, false);
    for (name, value) in request.headers() {
        if name.eq_ignore_ascii_case(b"host") {
            hosts += 1;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            // A second one is refused even where it is equal: whoever sends two has been tampered with.
            if length.replace(content_length(value)?).is_some() {
                return Err(Refusal::new(400, "more than one Content-Length"));
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if chunked {
                return Err(Refusal::new(400, "more than one Transfer-Encoding"));
            }
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Refusal::new(501, "the only Transfer-Encoding understood is chunked"));
            }
            chunked = true;
        } else if name.eq_ignore_ascii_case(b"connection") {
            close |= has_token(value, b"close");
            keep_alive |= has_token(value, b"keep-alive");
        } else if name.eq_ignore_ascii_case(b"expect") {
            if !value.eq_ignore_ascii_case(b"100-continue") {
                return Err(Refusal::new(417, "the only expectation understood is 100-continue"));
            }
            expects = true;
        }
    }
    let http_1_0 = request.http_1_0;
    if hosts > 1 || (hosts == 0 && !http_1_0) {
        return Err(Refusal::new(400, "exactly one Host is needed"));
    }
    let framing = match (chunked, length) {
        (true, Some(_)) => return Err(Refusal::new(400, "Content-Length beside Transfer-Encoding")),
        (true, None) if http_1_0 => return Err(Refusal::new(400, "Transfer-Encoding in HTTP/1.0")),
        (true, None) => Framing::Chunked,
        (false, Some(bytes)) => Framing::Length(bytes),
        // HTTP/1.0 knows no other way to say where such a body ends. In HTTP/1.1 there is none then.
        (false, None) if http_1_0 && matches!(request.method, Method::Post | Method::Put | Method::Patch) => {
            return Err(Refusal::new(411, "a Content-Length is needed"));
        }
        (false, None) => Framing::Length(0),
    };
    request.keep_alive = !close && (keep_alive || !http_1_0);
    request.expects_continue = expects && !http_1_0 && framing != Framing::Length(0);
    Ok(framing)
}

/// Digits and nothing else; too many of them for a u64 are a body too large.
fn content_length(value: &[u8]) -> Result<u64, Refusal> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::new(400, "malformed Content-Length"));
    }
    let digits = str::from_utf8(value).unwrap_or_default();
    digits.parse().map_err(|_| Refusal::new(413, "the body is larger than is allowed here"))
}

/// True if a comma-separated value has that word.
fn has_token(value: &[u8], token: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|word| word.trim_ascii().eq_ignore_ascii_case(token))
}
