//! The listener's side: one acceptor thread, a thread a connection, all of them bounded and joined.
//!
//! The acceptor never blocks on a peer. Order of the end: the stop is asked for, the acceptor closes its listener,
//! idle connections end at once, requests under way within `stop_grace_ms`, the acceptor joins their threads,
//! [`ServerHandle::join`] joins the acceptor.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use super::Handler;
use super::connection::{self, Connection, Waited};
use super::parse::Limits;
use crate::counters::Counters;
use crate::logging::Throttle;
use crate::stop::Stop;
use crate::{Error, Result};

/// The answer to a connection too many. One write, never waited for.
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 46\r\nConnection: close\r\n\r\n503 Service Unavailable: too many connections\n";

/// Refused connections that are kept for a moment, so that the answer arrives before the close does.
const LEAVING_MAX: usize = 64;
const LEAVING_MS: u64 = 500;

/// The pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE_MS: u64 = 100;

/// Bounds of a server.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// What its threads are called (8 bytes at most are used): `NAME-accept`, `NAME-1`, ...
    pub name: &'static str,
    /// What a request may take.
    pub limits: Limits,
    /// Connections at once, a thread each; further ones are answered with 503.
    pub connections_max: usize,
    /// Requests on one connection; the last one is answered with `Connection: close`.
    pub requests_max: u64,
    /// Memory for the bodies of all requests and responses together; what would pass it is answered with 503.
    pub bodies_bytes_max: usize,
    /// From a request's first byte to its last.
    pub request_timeout_ms: u64,
    /// How long a connection may wait for its next request, or its first.
    pub idle_timeout_ms: u64,
    /// For writing one response: a peer that reads more slowly is cut off.
    pub write_timeout_ms: u64,
    /// After a stop: how long a request under way has to come in and be answered.
    pub stop_grace_ms: u64,
    /// Stack of a connection's thread; the handler runs on it.
    pub stack_bytes: usize,
}

impl Default for ServerConfig {
    fn default() -> ServerConfig {
        ServerConfig {
            name: "http",
            limits: Limits::default(),
            // More than slow peers from a few hosts take, and at 20 KiB each still little memory.
            connections_max: 512,
            // So many that opening a connection costs nothing, and load balancers still move on some day.
            requests_max: 1_000_000,
            bodies_bytes_max: 64 << 20,
            request_timeout_ms: 10_000,
            idle_timeout_ms: 60_000,
            write_timeout_ms: 20_000,
            stop_grace_ms: 2_000,
            stack_bytes: 256 << 10,
        }
    }
}

/// Starts servers.
#[derive(Debug)]
pub struct Server;

/// A running server. It runs until its stop is asked for.
#[derive(Debug)]
#[must_use = "its threads are joined by `join`"]
pub struct ServerHandle {
    local_addr: SocketAddr,
    acceptor: JoinHandle<()>,
}

impl Server {
    /// Serves the listener until `stop` is asked for.
    pub fn spawn(
        listener: TcpListener,
        config: ServerConfig,
        handler: Arc<dyn Handler>,
        stop: Stop,
        counters: Arc<Counters>,
    ) -> Result<ServerHandle> {
        let local_addr = listener.local_addr().map_err(Error::system("read a listener's address"))?;
        listener.set_nonblocking(true).map_err(Error::net("listen on", local_addr))?;
        let name = format!("{:.8}-accept", config.name);
        let shared = Arc::new(Shared {
            config,
            handler,
            stop,
            counters,
            open: AtomicUsize::new(0),
            bodies_bytes: AtomicUsize::new(0),
            warnings: Throttle::default(),
        });
        let acceptor =
            Acceptor { listener, shared, threads: Vec::new(), leaving: VecDeque::new(), accepted: 0 };
        let acceptor = thread::Builder::new()
            .name(name)
            .spawn(move || acceptor.run())
            .map_err(Error::system("start a thread"))?;
        Ok(ServerHandle { local_addr, acceptor })
    }
}

impl ServerHandle {
    /// Where it listens; the port is the one that was taken, where port 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Waits until the server has ended, which it does when its stop is asked for.
    pub fn join(self) -> Result<()> {
        let name = self.acceptor.thread().name().unwrap_or("http").to_owned();
        self.acceptor.join().map_err(|_| Error::Thread(name))
    }
}

/// What the threads of one server have in common.
pub(super) struct Shared {
    pub config: ServerConfig,
    pub handler: Arc<dyn Handler>,
    pub stop: Stop,
    pub counters: Arc<Counters>,
    /// Connections that have a thread.
    open: AtomicUsize,
    /// Bytes of bodies held now.
    pub bodies_bytes: AtomicUsize,
    warnings: Throttle,
}

impl Shared {
    /// Counts a refusal, and says so. The reason is ours: nothing that a peer sent reaches the log.
    pub fn refused(&self, peer: SocketAddr, reason: &'static str) {
        self.counters.http_refused_total.one();
        self.warnings.warn(reason, format_args!("http_refused peer={peer} reason=\"{reason}\""));
    }
}

/// A place among the connections; given back when the connection's thread ends, in whatever way.
struct Place(Arc<Shared>);

impl Place {
    fn take(shared: &Arc<Shared>) -> Option<Place> {
        // Only the acceptor takes places, so none is taken between the look and the step.
        if shared.open.load(Ordering::Acquire) >= shared.config.connections_max {
            return None;
        }
        shared.open.fetch_add(1, Ordering::AcqRel);
        shared.counters.http_connections_open.one();
        Some(Place(Arc::clone(shared)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.counters.http_connections_open.sub(1);
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

struct Acceptor {
    listener: TcpListener,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Refused connections, the oldest first, and when to close each.
    leaving: VecDeque<(Instant, TcpStream)>,
    accepted: u64,
}

impl Acceptor {
    fn run(mut self) {
        loop {
            let until = self.leaving.front().map(|(until, _)| *until);
            match connection::wait(&self.listener, PollFlags::IN, Some(&self.shared.stop), until) {
                Waited::Stopped => break,
                Waited::Ready => self.accept(),
                Waited::TimedOut => {}
            }
            self.close_leaving();
            self.join_ended();
        }
        let Acceptor { listener, threads, .. } = self;
        // Peers that come now are refused by the system, not left in a queue that nobody serves.
        drop(listener);
        for thread in threads {
            join(thread);
        }
    }

    fn accept(&mut self) {
        match self.listener.accept() {
            Ok((stream, peer)) => match Place::take(&self.shared) {
                Some(place) => self.start(stream, peer, place),
                None => self.refuse(stream, peer),
            },
            Err(error) if is_passing(&error) => {}
            Err(error) => {
                self.shared.warnings.warn("accept", format_args!("http_accept_failed error=\"{error}\""));
                // The connection stays in the queue: without a pause this would be a busy loop.
                let until = Instant::now() + Duration::from_millis(ACCEPT_PAUSE_MS);
                connection::wait(&self.shared.stop, PollFlags::empty(), None, Some(until));
            }
        }
    }

    fn start(&mut self, stream: TcpStream, peer: SocketAddr, place: Place) {
        self.accepted += 1;
        let config = &self.shared.config;
        let thread = thread::Builder::new()
            .name(format!("{:.8}-{}", config.name, self.accepted % 1_000_000))
            .stack_size(config.stack_bytes)
            .spawn(move || {
                if let Err(error) = Connection::new(stream, peer, &place.0).and_then(Connection::serve) {
                    log::debug!("http_connection_ended peer={peer} error=\"{error}\"");
                }
            });
        match thread {
            Ok(thread) => self.threads.push(thread),
            Err(error) => {
                log::debug!("http_thread_failed error=\"{error}\"");
                self.shared.refused(peer, "no thread could be started");
            }
        }
    }

    /// Answers 503 and keeps the connection for a moment: closing it while the peer still sends would reset it, and
    /// the answer would be lost.
    fn refuse(&mut self, mut stream: TcpStream, peer: SocketAddr) {
        self.shared.refused(peer, "too many connections");
        let answered = stream.set_nonblocking(true).and_then(|()| stream.write_all(BUSY));
        if answered.and_then(|()| stream.shutdown(Shutdown::Write)).is_ok() {
            self.leaving.push_back((Instant::now() + Duration::from_millis(LEAVING_MS), stream));
        }
    }

    fn close_leaving(&mut self) {
        let now = Instant::now();
        while self.leaving.front().is_some_and(|(until, _)| *until <= now || self.leaving.len() > LEAVING_MAX)
        {
            if let Some((_, mut stream)) = self.leaving.pop_front() {
                // What came meanwhile is taken, so that the close is no reset.
                let _ = stream.read(&mut [0; 4096]);
            }
        }
    }

    fn join_ended(&mut self) {
        for thread in self.threads.extract_if(.., |thread| thread.is_finished()) {
            join(thread);
        }
    }
}

fn join(thread: JoinHandle<()>) {
    let name = thread.thread().name().unwrap_or_default().to_owned();
    if thread.join().is_err() {
        log::error!("thread_failed name={name}");
    }
}

/// Errors of accept(2) that concern the one connection, or nothing at all.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, WouldBlock};
    matches!(error.kind(), WouldBlock | Interrupted | ConnectionAborted | ConnectionReset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_a_connection_too_many_has_its_length() {
        let text = str::from_utf8(BUSY).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
    }
}
