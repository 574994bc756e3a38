//! Parses the head of a request: request line, headers, and how the end of the body is found. Pure.
//!
//! RFC 9112 leaves some choices to a server. If two readers could understand the same bytes as two different requests,
//! this parser rejects them.

use std::ops::Range;

use super::error::{BODY_TOO_LARGE, RequestError};
use super::limits::HEADERS_MAX;
use super::request::{Method, Request};

/// How the end of the body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyLength {
    /// The body has this many bytes.
    Known(u64),
    /// The body is sent in chunks (RFC 9112, section 7.1).
    Chunked,
}

const MALFORMED_LINE: RequestError = RequestError::new(400, "malformed request line");

/// Checks a request line, including its line end. It is called as soon as the line is complete, so that a peer that
/// does not speak HTTP/1 gets its answer without a wait for the end of the head.
pub(super) fn check_request_line(line: &[u8], target_bytes_max: usize) -> Result<(), RequestError> {
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
            return Err(RequestError::new(505, "only HTTP/1.1 and HTTP/1.0 are supported"));
        }
        _ => return Err(MALFORMED_LINE),
    }
    if target.len() > target_bytes_max {
        return Err(RequestError::new(414, "the request target is too long"));
    }
    if method.is_empty() || target.is_empty() { Err(MALFORMED_LINE) } else { Ok(()) }
}

/// Parses a complete head into `request` and returns how the end of the body is found.
pub(super) fn parse_head(request: &mut Request, body_bytes_max: u64) -> Result<BodyLength, RequestError> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(&request.head) {
        Ok(httparse::Status::Complete(bytes)) if bytes == request.head.len() => {}
        Ok(_) => return Err(RequestError::new(400, "malformed head")),
        Err(httparse::Error::TooManyHeaders) => return Err(RequestError::new(431, "too many headers")),
        Err(httparse::Error::HeaderName) => return Err(RequestError::new(400, "malformed header name")),
        Err(httparse::Error::HeaderValue) => return Err(RequestError::new(400, "malformed header value")),
        Err(_) => return Err(RequestError::new(400, "malformed head")),
    }
    let position = |part: &[u8]| {
        let start = part.as_ptr() as usize - request.head.as_ptr() as usize;
        start..start + part.len()
    };
    request.http_1_0 = parsed.version == Some(0);
    let name = parsed.method.unwrap_or_default();
    request.method = Method::from_name(name.as_bytes()).ok_or(RequestError::new(501, "unknown method"))?;
    let target = parsed.path.unwrap_or_default();
    let target_at = position(target.as_bytes());
    (request.path, request.query) = split_target(target, target_at, request.method)?;
    request.headers.extend(
        parsed.headers.iter().map(|header| (position(header.name.as_bytes()), position(header.value))),
    );
    let framing = apply_headers(request)?;
    match framing {
        BodyLength::Known(bytes) if bytes > body_bytes_max => Err(BODY_TOO_LARGE),
        _ => Ok(framing),
    }
}

/// Returns the positions of path and query in the head. The target at `at` is in origin form, in absolute form, or `*`.
fn split_target(
    target: &str,
    at: Range<usize>,
    method: Method,
) -> Result<(Range<usize>, Range<usize>), RequestError> {
    let malformed = RequestError::new(400, "malformed request target");
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

/// Returns the offset of the authority in a target of absolute form.
fn absolute_form(target: &str) -> Option<usize> {
    let scheme = ["http://", "https://"]
        .into_iter()
        .find(|scheme| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))?;
    (!target[scheme.len()..].starts_with(['/', '?']) && target.len() > scheme.len()).then_some(scheme.len())
}

/// The headers that the server itself obeys.
#[derive(Default)]
struct ObeyedHeaders {
    hosts: usize,
    content_length: Option<u64>,
    is_chunked: bool,
    closes: bool,
    keeps_alive: bool,
    expects_continue: bool,
}

impl ObeyedHeaders {
    fn add(&mut self, name: &[u8], value: &[u8]) -> Result<(), RequestError> {
        if name.eq_ignore_ascii_case(b"host") {
            self.hosts += 1;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            // A second one is rejected even if it is equal: it suggests that the request was tampered with.
            if self.content_length.replace(content_length(value)?).is_some() {
                return Err(RequestError::new(400, "more than one Content-Length"));
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.is_chunked {
                return Err(RequestError::new(400, "more than one Transfer-Encoding"));
            }
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(RequestError::new(501, "the only supported Transfer-Encoding is chunked"));
            }
            self.is_chunked = true;
        } else if name.eq_ignore_ascii_case(b"connection") {
            self.closes |= has_token(value, b"close");
            self.keeps_alive |= has_token(value, b"keep-alive");
        } else if name.eq_ignore_ascii_case(b"expect") {
            if !value.eq_ignore_ascii_case(b"100-continue") {
                return Err(RequestError::new(417, "the only supported expectation is 100-continue"));
            }
            self.expects_continue = true;
        }
        Ok(())
    }
}

/// Applies the headers that the server itself obeys. Returns how the end of the body is found.
fn apply_headers(request: &mut Request) -> Result<BodyLength, RequestError> {
    let mut headers = ObeyedHeaders::default();
    for (name, value) in request.headers() {
        headers.add(name, value)?;
    }
    let http_1_0 = request.http_1_0;
    if headers.hosts > 1 || (headers.hosts == 0 && !http_1_0) {
        return Err(RequestError::new(400, "exactly one Host header is required"));
    }
    let body_length = match (headers.is_chunked, headers.content_length) {
        (true, Some(_)) => return Err(RequestError::new(400, "both Content-Length and Transfer-Encoding")),
        (true, None) if http_1_0 => return Err(RequestError::new(400, "Transfer-Encoding in HTTP/1.0")),
        (true, None) => BodyLength::Chunked,
        (false, Some(bytes)) => BodyLength::Known(bytes),
        // HTTP/1.0 has no other way to mark the end of such a body. In HTTP/1.1 the request has no body.
        (false, None) if http_1_0 && matches!(request.method, Method::Post | Method::Put | Method::Patch) => {
            return Err(RequestError::new(411, "a Content-Length is required"));
        }
        (false, None) => BodyLength::Known(0),
    };
    request.keep_alive = !headers.closes && (headers.keeps_alive || !http_1_0);
    request.expects_continue = headers.expects_continue && !http_1_0 && body_length != BodyLength::Known(0);
    Ok(body_length)
}

/// Parses a length: digits only. A number beyond 64 bits counts as a body above the limit.
fn content_length(value: &[u8]) -> Result<u64, RequestError> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(RequestError::new(400, "malformed Content-Length"));
    }
    let digits = str::from_utf8(value).unwrap_or_default();
    digits.parse().map_err(|_| BODY_TOO_LARGE)
}

/// Returns true if a comma-separated value contains `token`, in any case.
fn has_token(value: &[u8], token: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|word| word.trim_ascii().eq_ignore_ascii_case(token))
}
