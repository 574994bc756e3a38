//! One connection: reads requests, calls the handler, writes its responses. Runs on the thread of the connection.
//!
//! The socket is non-blocking. Every wait is a poll(2) of the socket and the shutdown signal, with a deadline. A wait for
//! a request ends at a shutdown if no byte of the request was received; otherwise the request has `stop_grace_ms` left.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chrono::DateTime;
use rustix::event::PollFlags;

use super::error::RequestError;
use super::parse::{ParseStep, RequestParser};
use super::request::ClientConnection;
use super::response::{Response, ResponseContext};
use super::shared::ServerShared;
use crate::runtime::net::peers::PeerPermit;
use crate::runtime::net::{PollOutcome, wait};

/// Size of one read: far larger than a look-up, and large enough to read a body in a few calls.
const INPUT_BYTES: usize = 16 << 10;

/// Limits on reading and discarding what a peer still sends after it was rejected. Without that, a reset could discard
/// the response before the peer reads it. A peer that sends more gets the reset.
const LINGER_MS: u64 = 1_000;
const LINGER_BYTES_MAX: usize = 4 << 20;

/// Time that a connection may wait for a request while its server has little room for others, and the interval at which it
/// looks.
const IDLE_IN_CROWD: Duration = Duration::from_secs(5);
const CROWD_CHECK_INTERVAL: Duration = Duration::from_secs(5);

const TOO_SLOW: RequestError = RequestError::new(408, "the request was not received in time");
const TRUNCATED: RequestError = RequestError::new(400, "the request is truncated");
const NO_MEMORY: RequestError = RequestError::new(503, "the memory for request bodies is in use, try again");

/// The result of waiting for a request.
enum ReceiveOutcome {
    Request,
    /// The handler rejected the request by its head.
    RejectedEarly(Response),
    Invalid(RequestError),
    /// The peer closed the connection, stayed idle too long, or the server is shutting down.
    End,
}

pub(super) struct Connection<'a> {
    stream: Arc<TcpStream>,
    shared: &'a ServerShared,
    parser: RequestParser,
    input: Box<[u8]>,
    /// The part of `input` that is not parsed yet.
    unread: std::ops::Range<usize>,
    output: Vec<u8>,
    date: DateHeader,
    bodies: BodyMemory<'a>,
    /// The end of the grace period, once the connection has noticed the shutdown.
    stop_until: Option<Instant>,
}

impl<'a> Connection<'a> {
    pub(super) fn new(
        stream: TcpStream,
        peer: SocketAddr,
        place: &'a PeerPermit,
        shared: &'a ServerShared,
    ) -> io::Result<Connection<'a>> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let stream = Arc::new(stream);
        let mut parser = RequestParser::new(shared.config.limits);
        parser.request_mut().peer = peer;
        parser.request_mut().client = Some(ClientConnection(Arc::clone(&stream)));
        Ok(Connection {
            stream,
            shared,
            parser,
            input: vec![0; INPUT_BYTES].into_boxed_slice(),
            unread: 0..0,
            output: Vec::new(),
            date: DateHeader::default(),
            bodies: BodyMemory { shared, place, held: 0 },
            stop_until: None,
        })
    }

    /// Serves requests until the peer or the server ends the connection. An error ends only this connection.
    pub(super) fn serve(mut self) -> io::Result<()> {
        for served in 1..=self.shared.config.requests_max {
            let response = match self.receive()? {
                ReceiveOutcome::Request => {
                    let response = self.handle();
                    self.parser.release_body();
                    response
                }
                ReceiveOutcome::RejectedEarly(response) => response,
                ReceiveOutcome::Invalid(refusal) => {
                    self.shared.record_rejection(self.parser.request().peer(), refusal.reason);
                    self.send_response(Response::text(refusal.status, refusal.reason), true)?;
                    return self.linger();
                }
                ReceiveOutcome::End => return Ok(()),
            };
            self.shared.metrics.http_requests_total.inc();
            // The peer still sends the body of a rejected request, so the start of the next one cannot be found.
            let body_comes = self.parser.feed(&[]).1 != ParseStep::Request;
            let last = served == self.shared.config.requests_max || self.shared.shutdown.is_triggered();
            if !self.send_response(response, last || body_comes)? {
                return if body_comes || !self.unread.is_empty() { self.linger() } else { Ok(()) };
            }
            self.parser.next_request();
            self.bodies.resize(self.parser.body_capacity());
        }
        Ok(())
    }

    /// Reads until a request is complete or is known to be invalid.
    fn receive(&mut self) -> io::Result<ReceiveOutcome> {
        let config = &self.shared.config;
        let idle_since = Instant::now();
        let idle_until = idle_since + Duration::from_millis(config.idle_timeout_ms);
        let mut request_until = None;
        loop {
            let (used, step) = self.parser.feed(&self.input[self.unread.clone()]);
            self.unread.start += used;
            match step {
                ParseStep::Request => return Ok(ReceiveOutcome::Request),
                ParseStep::Invalid(refusal) => return Ok(ReceiveOutcome::Invalid(refusal)),
                ParseStep::Head => {
                    if let Some(response) = self.early_rejection() {
                        return Ok(ReceiveOutcome::RejectedEarly(response));
                    }
                    // A peer that has already sent part of its body does not wait for `100 Continue`.
                    if self.parser.request().expects_continue && self.unread.is_empty() {
                        self.write(b"HTTP/1.1 100 Continue\r\n\r\n", &[])?;
                    }
                    continue;
                }
                ParseStep::NeedMore => {}
            }
            if !self.bodies.resize(self.parser.body_capacity()) {
                return Ok(ReceiveOutcome::Invalid(NO_MEMORY));
            }
            let idle = self.parser.is_idle();
            if !idle && request_until.is_none() {
                request_until = Some(Instant::now() + Duration::from_millis(config.request_timeout_ms));
            }
            let now = Instant::now();
            let until = match request_until {
                // A peer that stops in the middle of a request holds memory for nothing.
                Some(until) => until.min(now + Duration::from_millis(config.stall_timeout_ms)),
                None => idle_until.min(now + CROWD_CHECK_INTERVAL),
            };
            match self.read_input(until, idle)? {
                ReadOutcome::TimedOut if idle && Instant::now() < idle_until => {
                    let has_waited = idle_since.elapsed() >= IDLE_IN_CROWD;
                    if has_waited && self.shared.listener.is_crowded() {
                        return Ok(ReceiveOutcome::End);
                    }
                }
                ReadOutcome::Bytes => {}
                ReadOutcome::End if idle => return Ok(ReceiveOutcome::End),
                ReadOutcome::End => return Ok(ReceiveOutcome::Invalid(TRUNCATED)),
                ReadOutcome::TimedOut if idle => return Ok(ReceiveOutcome::End),
                ReadOutcome::TimedOut => return Ok(ReceiveOutcome::Invalid(TOO_SLOW)),
            }
        }
    }

    /// Reads once from the socket. All earlier input must have been parsed.
    fn read_input(&mut self, until: Instant, idle: bool) -> io::Result<ReadOutcome> {
        // Between two requests there is usually nothing to read, so waiting first saves a read.
        let mut wait_first = idle;
        loop {
            if wait_first {
                match self.wait(PollFlags::IN, until, idle) {
                    PollOutcome::Ready => {}
                    PollOutcome::ShutDown => return Ok(ReadOutcome::End),
                    PollOutcome::TimedOut => return Ok(ReadOutcome::TimedOut),
                }
            }
            // `wait` is never called for a peer that sends without a pause, so the deadline is also checked here.
            if Instant::now() >= self.cap_deadline(until) {
                return Ok(ReadOutcome::TimedOut);
            }
            match unless_blocked((&*self.stream).read(&mut self.input))? {
                Some(0) => return Ok(ReadOutcome::End),
                Some(bytes) => {
                    self.unread = 0..bytes;
                    return Ok(ReadOutcome::Bytes);
                }
                None => wait_first = true,
            }
        }
    }

    /// Waits for the socket. A shutdown ends the wait of an idle connection; otherwise it limits this and all later waits
    /// to the grace period.
    fn wait(&mut self, interest: PollFlags, until: Instant, idle: bool) -> PollOutcome {
        loop {
            if idle && self.stop_until.is_some() {
                return PollOutcome::ShutDown;
            }
            // The deadline also holds for a socket that is always ready.
            let until = self.cap_deadline(until);
            if Instant::now() >= until {
                return PollOutcome::TimedOut;
            }
            let shutdown = if self.stop_until.is_none() { Some(&self.shared.shutdown) } else { None };
            match wait(&*self.stream, interest, shutdown, Some(until)) {
                PollOutcome::ShutDown if idle => return PollOutcome::ShutDown,
                PollOutcome::ShutDown => {
                    let grace = Duration::from_millis(self.shared.config.stop_grace_ms);
                    self.stop_until = Some(Instant::now() + grace);
                }
                waited => return waited,
            }
        }
    }

    /// Returns the earlier of `until` and the end of the grace period.
    fn cap_deadline(&self, until: Instant) -> Instant {
        self.stop_until.map_or(until, |stop_until| stop_until.min(until))
    }

    fn early_rejection(&self) -> Option<Response> {
        self.call_handler(|| self.shared.handler.reject_early(self.parser.request())).unwrap_or_else(Some)
    }

    fn handle(&self) -> Response {
        self.call_handler(|| self.shared.handler.handle(self.parser.request()))
            .unwrap_or_else(|response| response)
    }

    /// Calls the handler. A panic is a bug: it is logged as an error and becomes a response that closes the connection.
    fn call_handler<T>(&self, call: impl FnOnce() -> T) -> Result<T, Response> {
        // The call changes no state of the connection, so a panic leaves none half changed.
        catch_unwind(AssertUnwindSafe(call)).map_err(|_| {
            let peer = self.parser.request().peer();
            log::error!("http_handler_panicked peer={peer}");
            Response { close: true, ..Response::text(500, "internal error, see the log") }
        })
    }

    /// Writes a response and returns true if the connection stays open.
    fn send_response(&mut self, mut response: Response, last: bool) -> io::Result<bool> {
        let to = ResponseContext::new(self.parser.request(), last);
        let held = self.parser.body_capacity() + response.body.capacity();
        if !self.bodies.resize(held) {
            self.shared.record_rejection(self.parser.request().peer(), NO_MEMORY.reason);
            response = Response::text(NO_MEMORY.status, NO_MEMORY.reason);
        }
        let mut output = std::mem::take(&mut self.output);
        output.clear();
        let body_bytes = response.write_head(&mut output, self.date.now(), to);
        let written = self.write(&output, &response.body[..body_bytes]);
        self.output = output;
        written?;
        Ok(!to.close && !response.close)
    }

    /// Writes head and body, in one call if the socket takes both.
    fn write(&mut self, head: &[u8], body: &[u8]) -> io::Result<()> {
        let until = Instant::now() + Duration::from_millis(self.shared.config.write_timeout_ms);
        let mut parts = [IoSlice::new(head), IoSlice::new(body)];
        let mut left = &mut parts[..];
        while !left.is_empty() {
            match unless_blocked((&*self.stream).write_vectored(left))? {
                Some(0) => return Err(ErrorKind::WriteZero.into()),
                Some(bytes) => IoSlice::advance_slices(&mut left, bytes),
                None => match self.wait(PollFlags::OUT, until, false) {
                    PollOutcome::Ready => {}
                    _ => {
                        let peer = self.parser.request().peer();
                        self.shared.record_rejection(peer, "the response was not read in time");
                        return Err(ErrorKind::TimedOut.into());
                    }
                },
            }
        }
        Ok(())
    }

    /// Closes the sending side, then reads and discards what the peer still sends, for a limited time.
    fn linger(&mut self) -> io::Result<()> {
        self.stream.shutdown(std::net::Shutdown::Write)?;
        let until = Instant::now() + Duration::from_millis(LINGER_MS);
        let mut discarded = 0;
        // No request is in progress, so a shutdown ends this loop at once.
        while discarded < LINGER_BYTES_MAX
            && let ReadOutcome::Bytes = self.read_input(until, true)?
        {
            discarded += self.unread.len();
        }
        Ok(())
    }
}

/// The result of a read.
enum ReadOutcome {
    Bytes,
    /// The peer has closed its side, or a shutdown was triggered while the connection was idle.
    End,
    TimedOut,
}

/// Converts the result of a read or a write: `None` if the operation would block. Which error kind says so depends on
/// the platform and on the options of the socket.
fn unless_blocked(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) => match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => Ok(None),
            _ => Err(error),
        },
    }
}

/// The share of one connection in the memory for bodies.
struct BodyMemory<'a> {
    shared: &'a ServerShared,
    place: &'a PeerPermit,
    held: usize,
}

impl BodyMemory<'_> {
    /// Changes the share to `bytes`. Returns false and changes nothing if that exceeds the limit of the server.
    fn resize(&mut self, bytes: usize) -> bool {
        if !self.place.resize_memory(self.held, bytes) {
            return false;
        }
        let all = &self.shared.config.bodies_bytes;
        if bytes <= self.held {
            all.fetch_sub(self.held - bytes, Ordering::Relaxed);
        } else {
            let more = bytes - self.held;
            let before = all.fetch_add(more, Ordering::Relaxed);
            if before + more > self.shared.config.bodies_bytes_max {
                all.fetch_sub(more, Ordering::Relaxed);
                self.place.resize_memory(bytes, self.held);
                return false;
            }
        }
        self.held = bytes;
        true
    }
}

impl Drop for BodyMemory<'_> {
    fn drop(&mut self) {
        self.resize(0);
    }
}

/// The value of the Date header, which is formatted again once per second.
#[derive(Default)]
struct DateHeader {
    second: u64,
    text: String,
}

impl DateHeader {
    fn now(&mut self) -> &str {
        // A time before 1970 becomes 1970.
        self.at(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
    }

    fn at(&mut self, second: u64) -> &str {
        if self.text.is_empty() || second != self.second {
            let time = DateTime::from_timestamp(second.try_into().unwrap_or(0), 0).unwrap_or_default();
            self.text = time.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
            self.second = second;
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::DateHeader;

    #[test]
    fn date_header_is_an_imf_fixdate() {
        let mut date = DateHeader::default();
        assert_eq!(date.at(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(date.at(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date.at(784_111_778), "Sun, 06 Nov 1994 08:49:38 GMT");
    }
}
