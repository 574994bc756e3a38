//! The server: one acceptor thread, one thread per connection, a limit on their number.
//!
//! The acceptor never blocks on a peer. Order of a shutdown: the shutdown is triggered, the acceptor closes its
//! listener, idle connections end at once, requests in progress end within `stop_grace_ms`, the acceptor joins the
//! threads of the connections, [`HttpServerHandle::join`] joins the acceptor.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use super::config::HttpServerConfig;
use super::connection::{self, Connection, PollOutcome};
use super::handler::Handler;
use super::shared::ServerShared;
use crate::runtime::logging::Throttle;
use crate::runtime::metrics::Metrics;
use crate::runtime::shutdown::Shutdown;
use crate::{Error, Result};

/// The response to a connection beyond the limit. It is sent with one write that never blocks.
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 46\r\nConnection: close\r\n\r\n503 Service Unavailable: too many connections\n";

/// Limits on rejected connections. They stay open for a moment, so that the peer receives the response before the close.
const LINGERING_MAX: usize = 64;
const LINGERING_MS: u64 = 500;

/// The pause after an accept that failed because descriptors or memory ran out.
const ACCEPT_PAUSE_MS: u64 = 100;

#[derive(Debug)]
pub struct HttpServer;

/// A running server. It runs until the shutdown is triggered.
#[derive(Debug)]
#[must_use = "its threads are joined by `join`"]
pub struct HttpServerHandle {
    local_addr: SocketAddr,
    acceptor: JoinHandle<()>,
}

impl HttpServer {
    /// Starts a server on `listener` that runs until `shutdown` is triggered.
    pub fn spawn(
        listener: TcpListener,
        config: HttpServerConfig,
        handler: Arc<dyn Handler>,
        shutdown: Shutdown,
        metrics: Arc<Metrics>,
    ) -> Result<HttpServerHandle> {
        let local_addr = listener.local_addr().map_err(Error::system("read a listener's address"))?;
        listener.set_nonblocking(true).map_err(Error::net("listen on", local_addr))?;
        let name = format!("{:.8}-accept", config.name);
        let shared = Arc::new(ServerShared {
            config,
            handler,
            shutdown,
            metrics,
            open: AtomicUsize::new(0),
            bodies_bytes: AtomicUsize::new(0),
            warnings: Throttle::default(),
        });
        let acceptor =
            HttpAcceptor { listener, shared, threads: Vec::new(), lingering: VecDeque::new(), accepted: 0 };
        let acceptor = thread::Builder::new()
            .name(name)
            .spawn(move || acceptor.run())
            .map_err(Error::system("start a thread"))?;
        Ok(HttpServerHandle { local_addr, acceptor })
    }
}

impl HttpServerHandle {
    /// The address of the listener. If port 0 was requested, this has the port that the system chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Waits until the server has ended after a shutdown.
    pub fn join(self) -> Result<()> {
        let name = self.acceptor.thread().name().unwrap_or("http").to_owned();
        self.acceptor.join().map_err(|_| Error::Thread(name))
    }
}

/// A permit for one of the `connections_max` connections. It is returned when the thread of the connection ends, even if
/// that thread panics.
struct ConnectionPermit(Arc<ServerShared>);

impl ConnectionPermit {
    fn acquire(shared: &Arc<ServerShared>) -> Option<ConnectionPermit> {
        // Only the acceptor acquires permits, so the number cannot grow between the check and the addition.
        if shared.open.load(Ordering::Acquire) >= shared.config.connections_max {
            return None;
        }
        shared.open.fetch_add(1, Ordering::AcqRel);
        shared.metrics.http_connections_open.inc();
        Some(ConnectionPermit(Arc::clone(shared)))
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.metrics.http_connections_open.sub(1);
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

struct HttpAcceptor {
    listener: TcpListener,
    shared: Arc<ServerShared>,
    threads: Vec<JoinHandle<()>>,
    /// Rejected connections with the time at which each is closed, the oldest first.
    lingering: VecDeque<(Instant, TcpStream)>,
    accepted: u64,
}

impl HttpAcceptor {
    fn run(mut self) {
        loop {
            let until = self.lingering.front().map(|(until, _)| *until);
            match connection::wait(&self.listener, PollFlags::IN, Some(&self.shared.shutdown), until) {
                PollOutcome::ShutDown => break,
                PollOutcome::Ready => self.accept(),
                PollOutcome::TimedOut => {}
            }
            self.close_lingering();
            self.join_ended();
        }
        let HttpAcceptor { listener, threads, .. } = self;
        // From here on the system refuses new connections; none waits in a queue that nobody serves.
        drop(listener);
        for thread in threads {
            join(thread);
        }
    }

    fn accept(&mut self) {
        match self.listener.accept() {
            Ok((stream, peer)) => match ConnectionPermit::acquire(&self.shared) {
                Some(place) => self.start(stream, peer, place),
                None => self.reject_connection(stream, peer),
            },
            Err(error) if is_transient(&error) => {}
            Err(error) => {
                self.shared.warnings.warn("accept", format_args!("http_accept_failed error=\"{error}\""));
                // The connection stays in the system's queue: without a pause this would be a busy loop.
                let until = Instant::now() + Duration::from_millis(ACCEPT_PAUSE_MS);
                connection::wait(&self.shared.shutdown, PollFlags::empty(), None, Some(until));
            }
        }
    }

    fn start(&mut self, stream: TcpStream, peer: SocketAddr, place: ConnectionPermit) {
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
                self.shared.record_rejection(peer, "cannot start a thread");
            }
        }
    }

    /// Answers 503 and keeps the connection open for a moment. A close while the peer still sends would reset the
    /// connection, and the response would be lost.
    fn reject_connection(&mut self, mut stream: TcpStream, peer: SocketAddr) {
        self.shared.record_rejection(peer, "too many connections");
        let answered = stream.set_nonblocking(true).and_then(|()| stream.write_all(BUSY));
        if answered.and_then(|()| stream.shutdown(std::net::Shutdown::Write)).is_ok() {
            self.lingering.push_back((Instant::now() + Duration::from_millis(LINGERING_MS), stream));
        }
    }

    fn close_lingering(&mut self) {
        let now = Instant::now();
        while self
            .lingering
            .front()
            .is_some_and(|(until, _)| *until <= now || self.lingering.len() > LINGERING_MAX)
        {
            if let Some((_, mut stream)) = self.lingering.pop_front() {
                // Unread bytes would turn the close into a reset.
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

/// Returns true for an error of accept(2) that concerns only one connection, or that passes by itself.
fn is_transient(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, WouldBlock};
    matches!(error.kind(), WouldBlock | Interrupted | ConnectionAborted | ConnectionReset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busy_response_has_the_right_content_length() {
        let text = str::from_utf8(BUSY).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
    }
}
