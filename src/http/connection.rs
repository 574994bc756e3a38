//! One connection: reads requests, asks the handler, writes the answers. Runs on the connection's own thread.
//!
//! The socket never blocks: every wait is a poll(2) on it with a deadline, and on the stop. A wait for a request that
//! has not begun ends with the stop; once a byte of it is there, the request has `stop_grace_ms` left.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chrono::DateTime;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::parse::{Parser, Refusal, Step};
use super::response::{Answered, Response};
use super::server::Shared;
use crate::stop::Stop;

/// What is read at once. A look-up is far smaller, and bodies come in few reads.
const INPUT_BYTES: usize = 16 << 10;

/// After a refusal: how long what the peer still sends is taken and thrown away, so that it can read the answer
/// before a reset takes that away. A flood is not worth the work and gets the reset.
const LINGER_MS: u64 = 1_000;
const LINGER_BYTES_MAX: usize = 4 << 20;

const TOO_SLOW: Refusal = Refusal::new(408, "the request did not come in time");
const CUT_OFF: Refusal = Refusal::new(400, "the request is cut off");
const NO_MEMORY: Refusal = Refusal::new(503, "too much is under way, try again");

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    /// The socket is ready, or has failed: try it.
    Ready,
    /// The stop was asked for.
    Stopped,
    /// The deadline is here.
    TimedOut,
}

/// Waits until the socket is ready, the stop is asked for (if it is given), or the time has come.
pub(crate) fn wait(
    socket: &impl AsFd,
    interest: PollFlags,
    stop: Option<&Stop>,
    until: Option<Instant>,
) -> Waited {
    let mut both = [PollFd::new(socket, interest), PollFd::new(socket, PollFlags::empty())];
    let polled = match stop {
        Some(stop) => {
            both[1] = PollFd::new(stop, PollFlags::empty());
            &mut both[..]
        }
        None => &mut both[..1],
    };
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let timeout = left.map(|left| Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        match poll(polled, timeout.as_ref()) {
            Ok(0) => return Waited::TimedOut,
            Ok(_) if polled.len() == 2 && !polled[1].revents().is_empty() => return Waited::Stopped,
            Ok(_) => return Waited::Ready,
            Err(rustix::io::Errno::INTR) => {}
            // Only for want of memory in the kernel; what is tried next says so better.
            Err(_) => return Waited::Ready,
        }
    }
}

/// What came in.
enum Received {
    Request,
    /// The handler answers without the body.
    Early(Response),
    Refused(Refusal),
    /// Nothing more comes, or nothing more is wanted.
    End,
}

/// One connection.
pub(super) struct Connection<'a> {
    stream: TcpStream,
    shared: &'a Arc<Shared>,
    parser: Parser,
    input: Box<[u8]>,
    /// What was read and not yet parsed.
    unread: std::ops::Range<usize>,
    output: Vec<u8>,
    date: Date,
    bodies: Bodies<'a>,
    /// Set when the stop was noticed: then all is to be over.
    stop_until: Option<Instant>,
}

impl<'a> Connection<'a> {
    pub fn new(stream: TcpStream, peer: SocketAddr, shared: &'a Arc<Shared>) -> io::Result<Connection<'a>> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let mut parser = Parser::new(shared.config.limits);
        parser.request_mut().peer = peer;
        Ok(Connection {
            stream,
            shared,
            parser,
            input: vec![0; INPUT_BYTES].into_boxed_slice(),
            unread: 0..0,
            output: Vec::new(),
            date: Date::default(),
            bodies: Bodies { shared, held: 0 },
            stop_until: None,
        })
    }

    /// Serves request after request until one side has enough. An error is the connection's end, nothing worse.
    pub fn serve(mut self) -> io::Result<()> {
        for served in 1..=self.shared.config.requests_max {
            let response = match self.receive()? {
                Received::Request => self.handle(),
                Received::Early(response) => response,
                Received::Refused(refusal) => {
                    self.shared.refused(self.parser.request().peer(), refusal.reason);
                    self.answer(Response::text(refusal.status, refusal.reason), true)?;
                    return self.linger();
                }
                Received::End => return Ok(()),
            };
            self.shared.counters.http_requests_total.one();
            // A body that was not wanted still comes: what follows it cannot be told from it.
            let body_comes = self.parser.feed(&[]).1 != Step::Request;
            let last = served == self.shared.config.requests_max || self.shared.stop.is_asked();
            if !self.answer(response, last || body_comes)? {
                return if body_comes || !self.unread.is_empty() { self.linger() } else { Ok(()) };
            }
            self.parser.next_request();
            self.bodies.hold(self.parser.body_capacity());
        }
        Ok(())
    }

    /// Reads until a request is complete, or cannot become so.
    fn receive(&mut self) -> io::Result<Received> {
        let config = &self.shared.config;
        let idle_until = Instant::now() + Duration::from_millis(config.idle_timeout_ms);
        let mut request_until = None;
        loop {
            let (used, step) = self.parser.feed(&self.input[self.unread.clone()]);
            self.unread.start += used;
            match step {
                Step::Request => return Ok(Received::Request),
                Step::Refuse(refusal) => return Ok(Received::Refused(refusal)),
                Step::Head => {
                    if let Some(response) = self.refused_by_handler() {
                        return Ok(Received::Early(response));
                    }
                    // A peer whose body is here already does not wait for leave to send it.
                    if self.parser.request().expects_continue && self.unread.is_empty() {
                        self.write(b"HTTP/1.1 100 Continue\r\n\r\n", &[])?;
                    }
                    continue;
                }
                Step::More => {}
            }
            if !self.bodies.hold(self.parser.body_capacity()) {
                return Ok(Received::Refused(NO_MEMORY));
            }
            let idle = self.parser.is_idle();
            if !idle && request_until.is_none() {
                request_until = Some(Instant::now() + Duration::from_millis(config.request_timeout_ms));
            }
            match self.fill(request_until.unwrap_or(idle_until), idle)? {
                Filled::Bytes => {}
                Filled::End if idle => return Ok(Received::End),
                Filled::End => return Ok(Received::Refused(CUT_OFF)),
                Filled::TimedOut if idle => return Ok(Received::End),
                Filled::TimedOut => return Ok(Received::Refused(TOO_SLOW)),
            }
        }
    }

    /// Reads once more. The input is empty when this is called.
    fn fill(&mut self, until: Instant, idle: bool) -> io::Result<Filled> {
        // Between two requests nothing is there yet, as a rule: wait first, and save the vain read.
        let mut wait_first = idle;
        loop {
            if wait_first {
                match self.wait(PollFlags::IN, until, idle) {
                    Waited::Ready => {}
                    Waited::Stopped => return Ok(Filled::End),
                    Waited::TimedOut => return Ok(Filled::TimedOut),
                }
            }
            // A peer that always has more never makes this wait.
            if Instant::now() >= self.bounded(until) {
                return Ok(Filled::TimedOut);
            }
            match unless_blocked(self.stream.read(&mut self.input))? {
                Some(0) => return Ok(Filled::End),
                Some(bytes) => {
                    self.unread = 0..bytes;
                    return Ok(Filled::Bytes);
                }
                None => wait_first = true,
            }
        }
    }

    /// Waits for the socket. The stop ends the wait if nothing is under way; else it shortens this and all later ones.
    fn wait(&mut self, interest: PollFlags, until: Instant, idle: bool) -> Waited {
        loop {
            if idle && self.stop_until.is_some() {
                return Waited::Stopped;
            }
            // A socket that is always ready must not escape its deadline.
            let until = self.bounded(until);
            if Instant::now() >= until {
                return Waited::TimedOut;
            }
            let stop = if self.stop_until.is_none() { Some(&self.shared.stop) } else { None };
            match wait(&self.stream, interest, stop, Some(until)) {
                Waited::Stopped if idle => return Waited::Stopped,
                Waited::Stopped => {
                    let grace = Duration::from_millis(self.shared.config.stop_grace_ms);
                    self.stop_until = Some(Instant::now() + grace);
                }
                waited => return waited,
            }
        }
    }

    /// A deadline, or the end of the grace after a stop if that comes first.
    fn bounded(&self, until: Instant) -> Instant {
        self.stop_until.map_or(until, |stop_until| stop_until.min(until))
    }

    fn refused_by_handler(&self) -> Option<Response> {
        self.guarded(|| self.shared.handler.refuse(self.parser.request())).unwrap_or_else(Some)
    }

    fn handle(&self) -> Response {
        self.guarded(|| self.shared.handler.handle(self.parser.request())).unwrap_or_else(|response| response)
    }

    /// Calls the handler. A panic becomes a response that ends the connection, and an error line: it is a defect.
    fn guarded<T>(&self, call: impl FnOnce() -> T) -> Result<T, Response> {
        // Nothing of ours is changed by the call, so nothing can be half changed.
        catch_unwind(AssertUnwindSafe(call)).map_err(|_| {
            let peer = self.parser.request().peer();
            log::error!("http_handler_failed peer={peer}");
            Response { close: true, ..Response::text(500, "an unexpected failure, see the log") }
        })
    }

    /// Writes a response; true if the connection goes on.
    fn answer(&mut self, mut response: Response, last: bool) -> io::Result<bool> {
        let to = Answered::new(self.parser.request(), last);
        let held = self.parser.body_capacity() + response.body.capacity();
        if !self.bodies.hold(held) {
            self.shared.refused(self.parser.request().peer(), NO_MEMORY.reason);
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

    /// Writes both, in one call where the socket takes them.
    fn write(&mut self, head: &[u8], body: &[u8]) -> io::Result<()> {
        let until = Instant::now() + Duration::from_millis(self.shared.config.write_timeout_ms);
        let mut parts = [IoSlice::new(head), IoSlice::new(body)];
        let mut left = &mut parts[..];
        while !left.is_empty() {
            match unless_blocked(self.stream.write_vectored(left))? {
                Some(0) => return Err(ErrorKind::WriteZero.into()),
                Some(bytes) => IoSlice::advance_slices(&mut left, bytes),
                None => match self.wait(PollFlags::OUT, until, false) {
                    Waited::Ready => {}
                    _ => {
                        let peer = self.parser.request().peer();
                        self.shared.refused(peer, "the response was not read in time");
                        return Err(ErrorKind::TimedOut.into());
                    }
                },
            }
        }
        Ok(())
    }

    /// Ends the sending side and takes what still comes, for a moment.
    fn linger(&mut self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)?;
        let until = Instant::now() + Duration::from_millis(LINGER_MS);
        let mut thrown_away = 0;
        // Nothing is under way any more, so the stop ends this at once.
        while thrown_away < LINGER_BYTES_MAX
            && let Filled::Bytes = self.fill(until, true)?
        {
            thrown_away += self.unread.len();
        }
        Ok(())
    }
}

/// What a read gave.
enum Filled {
    Bytes,
    /// The peer sends no more, or the stop came while nothing was under way.
    End,
    TimedOut,
}

/// The result of a read or a write; `None` where it would have to wait. What such a failure is called depends on the
/// platform and on how the socket is set up, and nobody else needs to know.
fn unless_blocked(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) => match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => Ok(None),
            _ => Err(error),
        },
    }
}

/// This connection's part of the memory for bodies.
struct Bodies<'a> {
    shared: &'a Shared,
    held: usize,
}

impl Bodies<'_> {
    /// From now on holds so many bytes; false if all together would be too many, then it holds what it held.
    fn hold(&mut self, bytes: usize) -> bool {
        let all = &self.shared.bodies_bytes;
        if bytes <= self.held {
            all.fetch_sub(self.held - bytes, Ordering::Relaxed);
        } else {
            let more = bytes - self.held;
            let before = all.fetch_add(more, Ordering::Relaxed);
            if before + more > self.shared.config.bodies_bytes_max {
                all.fetch_sub(more, Ordering::Relaxed);
                return false;
            }
        }
        self.held = bytes;
        true
    }
}

impl Drop for Bodies<'_> {
    fn drop(&mut self) {
        self.hold(0);
    }
}

/// The Date header's value, made anew once a second.
#[derive(Default)]
struct Date {
    second: u64,
    text: String,
}

impl Date {
    fn now(&mut self) -> &str {
        // A clock before 1970 is shown as 1970.
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
    use super::Date;

    #[test]
    fn dates_as_http_writes_them() {
        let mut date = Date::default();
        assert_eq!(date.at(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(date.at(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date.at(784_111_778), "Sun, 06 Nov 1994 08:49:38 GMT");
    }
}
