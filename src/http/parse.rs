//! The request parser: turns bytes into requests or errors. Pure; the result is the same for every split of the input.
//!
//! A [`RequestParser`] consumes no byte after the end of the current request, so pipelined requests stay with the caller.
//! Everything that it stores has a limit.

use super::chunked::ChunkedDecoder;
use super::error::{BARE_LF, RequestError};
use super::head::{self, BodyLength};
use super::limits::RequestLimits;
use super::request::Request;

/// Empty lines that are skipped before a request line (RFC 9112, section 2.2, requires at least one).
const EMPTY_LINES_MAX: u8 = 4;

/// The capacity to which the body's buffer shrinks between two requests.
const KEPT_BYTES_MAX: usize = 16 << 10;

/// The result of parsing some input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseStep {
    /// All input was consumed and the request is not complete.
    NeedMore,
    /// The head is complete. This is returned once per request; the body follows, if there is one.
    Head,
    /// The request is complete.
    Request,
    /// The request is invalid. No later input can be parsed.
    Invalid(RequestError),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ParserState {
    /// In the head, whose current line starts at this offset.
    Head {
        line_from: usize,
    },
    /// In a body of known length.
    Body {
        left: u64,
    },
    ChunkedBody,
    Complete,
    Invalid(RequestError),
}

/// A parser for the requests of one connection.
#[derive(Debug)]
pub struct RequestParser {
    limits: RequestLimits,
    state: ParserState,
    request: Request,
    empty_lines: u8,
    chunks: ChunkedDecoder,
}

/// Bytes consumed, and the result. Without a result the state has changed, and parsing goes on with the rest.
type FeedResult = Result<(usize, Option<ParseStep>), RequestError>;

impl RequestParser {
    pub fn new(limits: RequestLimits) -> RequestParser {
        RequestParser {
            limits,
            state: ParserState::Head { line_from: 0 },
            request: Request::new(),
            empty_lines: 0,
            chunks: ChunkedDecoder::new(),
        }
    }

    /// The current request: complete after [`ParseStep::Request`], without its body after [`ParseStep::Head`].
    pub fn request(&self) -> &Request {
        &self.request
    }

    pub(super) fn request_mut(&mut self) -> &mut Request {
        &mut self.request
    }

    /// Returns true if no byte of a request has been parsed yet.
    pub fn is_idle(&self) -> bool {
        self.state == ParserState::Head { line_from: 0 } && self.request.head.is_empty()
    }

    /// Memory that the body of the request uses.
    pub fn body_capacity(&self) -> usize {
        self.request.body.capacity()
    }

    /// Frees the body of a complete request that was handled, so that its memory is there for the response.
    pub(super) fn release_body(&mut self) {
        if self.request.body.capacity() > KEPT_BYTES_MAX {
            self.request.body = Vec::new();
        }
    }

    /// Resets the parser for the next request.
    pub fn next_request(&mut self) {
        self.state = ParserState::Head { line_from: 0 };
        self.empty_lines = 0;
        self.chunks.reset();
        self.request.clear();
        self.request.body.shrink_to(KEPT_BYTES_MAX);
    }

    /// Parses bytes from the start of `input`. Returns how many it consumed and the result. After any result but
    /// [`ParseStep::NeedMore`] the caller passes the rest again, after [`ParseStep::Request`] it first calls
    /// [`RequestParser::next_request`].
    pub fn feed(&mut self, input: &[u8]) -> (usize, ParseStep) {
        let mut used = 0;
        loop {
            match self.feed_state(&input[used..]) {
                Ok((consumed, None)) => used += consumed,
                Ok((consumed, Some(step))) => return (used + consumed, step),
                Err(error) => {
                    self.state = ParserState::Invalid(error);
                    return (used, ParseStep::Invalid(error));
                }
            }
        }
    }

    /// Parses bytes until the state changes or more input is needed.
    fn feed_state(&mut self, input: &[u8]) -> FeedResult {
        match self.state {
            ParserState::Head { line_from } => self.feed_head(input, line_from),
            ParserState::Body { left } => {
                let (consumed, left) = self.request.append_body(input, left);
                self.state = if left == 0 { ParserState::Complete } else { ParserState::Body { left } };
                Ok((consumed, (left > 0).then_some(ParseStep::NeedMore)))
            }
            ParserState::ChunkedBody => {
                let (consumed, is_complete) =
                    self.chunks.feed(input, &mut self.request, self.limits.body_bytes_max)?;
                if is_complete {
                    self.state = ParserState::Complete;
                }
                Ok((consumed, (!is_complete).then_some(ParseStep::NeedMore)))
            }
            ParserState::Complete => Ok((0, Some(ParseStep::Request))),
            ParserState::Invalid(error) => Err(error),
        }
    }

    fn feed_head(&mut self, input: &[u8], line_from: usize) -> FeedResult {
        let line_to = memchr::memchr(b'\n', input).map(|at| at + 1);
        let consumed = line_to.unwrap_or(input.len());
        let Some(first) = self.request.head.first().or(input.first()) else {
            return Ok((0, Some(ParseStep::NeedMore)));
        };
        // The first byte of TLS and of other binary protocols is not printable.
        if !first.is_ascii_graphic() && !matches!(first, b'\r' | b'\n') {
            return Err(RequestError::new(400, "this is not HTTP"));
        }
        if self.request.head.len() + consumed > self.limits.head_bytes_max {
            return Err(match line_from {
                0 => RequestError::new(414, "the request line is too long"),
                _ => RequestError::new(431, "the headers are too long"),
            });
        }
        self.request.head.extend_from_slice(&input[..consumed]);
        match line_to {
            None => Ok((consumed, Some(ParseStep::NeedMore))),
            Some(_) => Ok((consumed, self.end_head_line(line_from)?)),
        }
    }

    /// Parses the line of the head that starts at `line_from` and ends with the line feed just appended.
    fn end_head_line(&mut self, line_from: usize) -> Result<Option<ParseStep>, RequestError> {
        let head = &mut self.request.head;
        let line = &head[line_from..];
        if !line.ends_with(b"\r\n") {
            return Err(BARE_LF);
        }
        match (line_from, line == b"\r\n") {
            (0, true) => {
                head.clear();
                self.empty_lines += 1;
                if self.empty_lines > EMPTY_LINES_MAX {
                    return Err(RequestError::new(400, "too many empty lines before the request"));
                }
            }
            (0, false) => {
                head::check_request_line(line, self.limits.target_bytes_max)?;
                self.state = ParserState::Head { line_from: head.len() };
            }
            (_, false) => self.state = ParserState::Head { line_from: head.len() },
            (_, true) => {
                self.state = match head::parse_head(&mut self.request, self.limits.body_bytes_max)? {
                    BodyLength::Known(0) => ParserState::Complete,
                    BodyLength::Known(left) => ParserState::Body { left },
                    BodyLength::Chunked => ParserState::ChunkedBody,
                };
                return Ok(Some(ParseStep::Head));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
