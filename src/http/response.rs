//! A response, and its bytes on the wire.

use std::borrow::Cow;
use std::io::Write as _;

use super::request::Request;

/// What a handler answers. Content-Length, Date and Connection are the server's business.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The body's type.
    pub content_type: &'static str,
    /// Further headers. A control character in a value becomes a blank.
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
    /// The body; on HEAD the server sends only its length.
    pub body: Vec<u8>,
    /// Close the connection after this response.
    pub close: bool,
}

impl Response {
    /// A response with that body.
    pub fn new(status: u16, content_type: &'static str, body: impl Into<Vec<u8>>) -> Response {
        Response { status, content_type, headers: Vec::new(), body: body.into(), close: false }
    }

    /// A response of one line of text for people: the status and a reason.
    pub fn text(status: u16, reason: &str) -> Response {
        let body = format!("{status} {}: {reason}\n", phrase(status));
        Response::new(status, "text/plain; charset=utf-8", body)
    }

    /// A response with a JSON body.
    pub fn json(status: u16, body: impl Into<Vec<u8>>) -> Response {
        Response::new(status, "application/json", body)
    }

    /// The same with a further header.
    pub fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Response {
        self.headers.push((name, value.into()));
        self
    }

    /// True if the status has a body (RFC 9110, section 6.4.1).
    fn has_body(&self) -> bool {
        !matches!(self.status, 100..=199 | 204 | 304)
    }

    /// Writes the head to the end of `out`, and says how much of the body is to follow it. `http_1_0` is the peer's
    /// version, `date` an IMF-fixdate.
    pub(super) fn write_head(&self, out: &mut Vec<u8>, date: &str, to: Answered) -> usize {
        // Writing to a Vec cannot fail.
        let _ = write!(out, "HTTP/1.1 {} {}\r\nDate: {date}\r\n", self.status, phrase(self.status));
        if self.has_body() {
            let length = self.body.len();
            let _ = write!(out, "Content-Type: {}\r\nContent-Length: {length}\r\n", self.content_type);
        }
        if self.close || to.close {
            out.extend_from_slice(b"Connection: close\r\n");
        } else if to.http_1_0 {
            out.extend_from_slice(b"Connection: keep-alive\r\n");
        }
        for (name, value) in &self.headers {
            let _ = write!(out, "{name}: ");
            // A value may have come from a peer: no line of its own for it.
            out.extend(value.bytes().map(|byte| if byte < b' ' || byte == 0x7f { b' ' } else { byte }));
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
        if self.has_body() && !to.head_only { self.body.len() } else { 0 }
    }
}

/// What a response's form depends on beside itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answered {
    pub http_1_0: bool,
    pub head_only: bool,
    pub close: bool,
}

impl Answered {
    pub(super) fn new(request: &Request, close: bool) -> Answered {
        Answered {
            http_1_0: request.http_1_0,
            head_only: request.method() == super::Method::Head,
            close: close || !request.keep_alive,
        }
    }
}

/// The reason phrase of the codes in use.
fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        // The phrase may be empty (RFC 9112, section 4).
        _ => "",
    }
}
