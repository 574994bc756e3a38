//! A response and its bytes on the wire. Pure.

use std::borrow::Cow;
use std::io::Write as _;

use super::request::{Method, Request};

/// The response of a handler. The server adds Content-Length, Date and Connection.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub content_type: &'static str,
    /// Further headers. Control characters in a value are replaced by spaces.
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
    /// The body. To a HEAD request the server sends only its length.
    pub body: Vec<u8>,
    /// True if the server has to close the connection after this response.
    pub close: bool,
}

impl Response {
    pub fn new(status: u16, content_type: &'static str, body: impl Into<Vec<u8>>) -> Response {
        Response { status, content_type, headers: Vec::new(), body: body.into(), close: false }
    }

    /// Returns a response with one line of plain text: the status and a reason.
    pub fn text(status: u16, reason: &str) -> Response {
        let body = format!("{status} {}: {reason}\n", reason_phrase(status));
        Response::new(status, "text/plain; charset=utf-8", body)
    }

    pub fn json(status: u16, body: impl Into<Vec<u8>>) -> Response {
        Response::new(status, "application/json", body)
    }

    /// Adds a header.
    pub fn with_header(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Response {
        self.headers.push((name, value.into()));
        self
    }

    /// Returns true if a response with this status has a body (RFC 9110, section 6.4.1).
    fn has_body(&self) -> bool {
        !matches!(self.status, 100..=199 | 204 | 304)
    }

    /// Appends the head to `out` and returns how many bytes of the body follow it. `date` is an IMF-fixdate.
    pub(super) fn write_head(&self, out: &mut Vec<u8>, date: &str, to: ResponseContext) -> usize {
        // Writing to a Vec cannot fail.
        let _ = write!(out, "HTTP/1.1 {} {}\r\nDate: {date}\r\n", self.status, reason_phrase(self.status));
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
            // A value may contain a peer's text, which must not start a header line.
            out.extend(value.bytes().map(|byte| if byte < b' ' || byte == 0x7f { b' ' } else { byte }));
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
        if self.has_body() && !to.head_only { self.body.len() } else { 0 }
    }
}

/// Properties of the request and the connection that change how a response is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResponseContext {
    pub http_1_0: bool,
    pub head_only: bool,
    pub close: bool,
}

impl ResponseContext {
    pub(super) fn new(request: &Request, close: bool) -> ResponseContext {
        ResponseContext {
            http_1_0: request.http_1_0,
            head_only: request.method() == Method::Head,
            close: close || !request.keep_alive,
        }
    }
}

/// Returns the reason phrase of a status code.
fn reason_phrase(status: u16) -> &'static str {
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
        // The reason phrase may be empty (RFC 9112, section 4).
        _ => "",
    }
}
