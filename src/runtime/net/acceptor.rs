//! The acceptor: one thread per listener that accepts connections, limits their number, starts a thread for each of them
//! and joins it.
//!
//! After shutdown the acceptor accepts what is left in the backlog, closes the listener, so that the kernel rejects later
//! peers, and joins the threads of its connections.
//! Invariant: the acceptor never blocks on a peer.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;

use super::peers::{PeerLimits, PeerPermit, PeerTable};
use super::{BACKLOG, wait};
use crate::runtime::logging::Throttle;
use crate::runtime::metrics::{ListenerMetrics, Metrics, RejectReason};
use crate::runtime::shutdown::Shutdown;
use crate::runtime::threads;
use crate::{Error, Result};

/// Pause after accept(2) failed for lack of descriptors or memory.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Ended threads that are not joined yet. Each still has its stack, which uses 2 memory maps.
const UNJOINED_MAX: usize = 64;

/// Interval at which ended threads are joined while nobody connects.
const JOIN_INTERVAL: Duration = Duration::from_secs(1);

/// Rejected connections that stay open, so that their peers can read the response.
const LINGERING_MAX: usize = 64;
const LINGERING_TIME: Duration = Duration::from_millis(500);

/// Handles the connections of a listener.
pub(crate) trait ConnectionHandler: Send + Sync + 'static {
    /// An accepted connection that waits for its thread.
    type Connection: Send + 'static;

    /// Returns false to reject a peer by its address.
    fn is_allowed(&self, _peer: SocketAddr) -> bool {
        true
    }

    /// Prepares an accepted connection. Runs in the acceptor's thread. `None` closes it: the peer is already gone. The
    /// connection keeps its place among those of its peer.
    fn prepare(
        self: &Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        place: PeerPermit,
    ) -> Option<Self::Connection>;

    /// Serves a connection until its end. Runs in the connection's thread.
    fn serve(&self, connection: Self::Connection);

    /// Returns the bytes that a peer receives when the limit of connections is reached. They are sent with one write.
    fn limit_response(&self) -> Option<&'static [u8]> {
        None
    }
}

/// The settings of an acceptor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AcceptorConfig {
    /// Stack of a connection's thread.
    pub stack_bytes: usize,
    /// Connections accepted from the backlog after shutdown. The limit keeps peers that connect without a pause from
    /// delaying the shutdown.
    pub drained_backlog_max: usize,
}

impl AcceptorConfig {
    /// Accepts the whole backlog after shutdown.
    pub(crate) fn draining(stack_bytes: usize) -> AcceptorConfig {
        AcceptorConfig { stack_bytes, drained_backlog_max: BACKLOG as usize }
    }
}

/// The state that the acceptors of one listener and its connections share. A listener may have several addresses.
#[derive(Debug)]
pub(crate) struct ListenerState {
    name: &'static str,
    connections_max: usize,
    open: AtomicUsize,
    peers: Arc<PeerTable>,
    metrics: Arc<ListenerMetrics>,
    throttle: Throttle,
}

impl ListenerState {
    /// Creates the state of a listener. `name` is its name in the log, in metrics and in thread names.
    pub(crate) fn new(
        name: &'static str,
        connections_max: usize,
        peers: PeerLimits,
        metrics: &Metrics,
    ) -> Arc<ListenerState> {
        Arc::new(ListenerState {
            name,
            connections_max,
            open: AtomicUsize::new(0),
            peers: PeerTable::new(peers),
            metrics: metrics.listener(name),
            throttle: Throttle::default(),
        })
    }

    /// Returns true if there is little room for other peers, so that idle connections should end.
    pub(crate) fn is_crowded(&self) -> bool {
        self.open.load(Ordering::Relaxed) >= self.connections_max - self.connections_max / 4
    }

    /// Counts and logs a rejected connection.
    pub(crate) fn reject(&self, reason: RejectReason, peer: SocketAddr) {
        self.metrics.rejected(reason).inc();
        let (name, reason) = (self.name, reason.as_str());
        let line = format_args!("connection_rejected listener={name} reason={reason} peer={peer}");
        self.throttle.warn(reason, line);
    }
}

/// A slot among the open connections of a listener. It is released when the connection ends, even by a panic.
struct ConnectionPermit(Arc<ListenerState>);

impl ConnectionPermit {
    /// Returns `None` if the limit is reached.
    fn acquire(state: &Arc<ListenerState>) -> Option<ConnectionPermit> {
        // Several acceptors may share the state, so the slot is taken before the limit is checked.
        if state.open.fetch_add(1, Ordering::AcqRel) >= state.connections_max {
            state.open.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        state.metrics.open.inc();
        Some(ConnectionPermit(Arc::clone(state)))
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        // In this order, a metric below the limit means that there is room.
        self.0.open.fetch_sub(1, Ordering::AcqRel);
        self.0.metrics.open.dec();
    }
}

/// Starts the acceptor's thread. An error of accept(2) triggers `shutdown` and is returned when the thread is joined.
pub(crate) fn spawn<H: ConnectionHandler>(
    listener: TcpListener,
    config: AcceptorConfig,
    state: Arc<ListenerState>,
    handler: Arc<H>,
    shutdown: Shutdown,
) -> Result<JoinHandle<Result<()>>> {
    listener.set_nonblocking(true).map_err(Error::system("configure a listener"))?;
    let name = thread_name(state.name, "accept");
    let threads = ConnectionThreads { name: state.name, ..ConnectionThreads::default() };
    let acceptor =
        Acceptor { listener, config, state, handler, shutdown, threads, lingering: VecDeque::new() };
    threads::spawn(name, move || acceptor.run())
}

/// Returns `NAME-SUFFIX`, with the name shortened so that `ps -L` shows all of it.
fn thread_name(name: &str, suffix: impl std::fmt::Display) -> String {
    let name = &name[..name.len().min(8)];
    format!("{}-{suffix}", name.trim_end_matches('-'))
}

struct Acceptor<H: ConnectionHandler> {
    listener: TcpListener,
    config: AcceptorConfig,
    state: Arc<ListenerState>,
    handler: Arc<H>,
    shutdown: Shutdown,
    threads: ConnectionThreads,
    /// Rejected connections that were sent a response, and when to close them. The oldest is first.
    lingering: VecDeque<(Instant, TcpStream)>,
}

impl<H: ConnectionHandler> Acceptor<H> {
    fn run(mut self) -> Result<()> {
        let accepted = self.accept_all().inspect_err(|_| self.shutdown.trigger());
        let Acceptor { listener, threads, .. } = self;
        // The kernel rejects peers that connect while the others drain.
        drop(listener);
        threads.join_all();
        accepted
    }

    /// Accepts connections until shutdown, then those in the backlog.
    fn accept_all(&mut self) -> Result<()> {
        let mut drained = 0;
        loop {
            let is_draining = self.shutdown.is_triggered();
            if is_draining && drained >= self.config.drained_backlog_max {
                return Ok(());
            }
            drained += usize::from(is_draining);
            match self.listener.accept() {
                Ok((stream, peer)) => self.admit(stream, peer),
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::AGAIN) if is_draining => return Ok(()),
                    Some(Errno::AGAIN) => self.wait(),
                    Some(errno) if is_of_one_connection(errno) => {}
                    Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS) => {
                        let name = self.state.name;
                        let line = format_args!("accept_failed listener={name} error=\"{error}\"");
                        self.state.throttle.warn("accept", line);
                        std::thread::sleep(RETRY_PAUSE);
                    }
                    _ => return Err(Error::System { act: "accept a connection", source: error }),
                },
            }
            self.close_lingering();
        }
    }

    /// Waits for a connection or shutdown. If neither comes, joins ended threads.
    fn wait(&mut self) {
        let join_at = self.threads.any().then(|| Instant::now() + JOIN_INTERVAL);
        let close_at = self.lingering.front().map(|(until, _)| *until);
        let until = join_at.into_iter().chain(close_at).min();
        if wait(&self.listener, PollFlags::IN, Some(&self.shutdown), until) == super::PollOutcome::TimedOut {
            self.threads.join_ended();
        }
    }

    /// Starts the thread of a connection, or closes the connection and logs the reason.
    fn admit(&mut self, stream: TcpStream, peer: SocketAddr) {
        self.state.metrics.connections.inc();
        if !self.handler.is_allowed(peer) {
            return self.state.reject(RejectReason::NotAllowed, peer);
        }
        let Some(permit) = ConnectionPermit::acquire(&self.state) else {
            return self.reject_over_limit(stream, peer, RejectReason::LimitReached);
        };
        let Some(place) = self.state.peers.connect(peer.ip(), Instant::now()) else {
            drop(permit);
            return self.reject_over_limit(stream, peer, RejectReason::PeerLimitReached);
        };
        let Some(connection) = self.handler.prepare(stream, peer, place) else { return };
        let handler = Arc::clone(&self.handler);
        let run = move || {
            let _permit = permit;
            handler.serve(connection);
        };
        if let Err(error) = self.threads.start(self.config.stack_bytes, run) {
            log::debug!("thread_start_failed error=\"{error}\"");
            self.state.reject(RejectReason::NoThread, peer);
        }
    }

    fn reject_over_limit(&mut self, mut stream: TcpStream, peer: SocketAddr, reason: RejectReason) {
        self.state.reject(reason, peer);
        let Some(response) = self.handler.limit_response() else { return };
        let sent = stream.set_nonblocking(true).and_then(|()| stream.write_all(response));
        if sent.and_then(|()| stream.shutdown(std::net::Shutdown::Write)).is_ok() {
            // To close it while the peer still sends would reset the connection, and the response would be lost.
            self.lingering.push_back((Instant::now() + LINGERING_TIME, stream));
        }
    }

    fn close_lingering(&mut self) {
        if self.lingering.is_empty() {
            return;
        }
        let now = Instant::now();
        while self
            .lingering
            .front()
            .is_some_and(|(until, _)| *until <= now || self.lingering.len() > LINGERING_MAX)
        {
            if let Some((_, mut stream)) = self.lingering.pop_front() {
                // Received bytes that nobody reads would turn the close into a reset.
                let _ = stream.read(&mut [0; 4096]);
            }
        }
    }
}

/// Returns true for errors of accept(2) that concern only the connection, or nothing: the next call may succeed.
fn is_of_one_connection(errno: Errno) -> bool {
    matches!(errno, Errno::CONNABORTED | Errno::CONNRESET | Errno::INTR | Errno::PROTO | Errno::PERM)
}

/// The threads of a listener's connections.
#[derive(Default)]
struct ConnectionThreads {
    name: &'static str,
    started: u64,
    threads: Vec<JoinHandle<()>>,
    ended: Arc<AtomicUsize>,
}

/// Counts a thread as ended, even if it panics.
struct CountEnded(Arc<AtomicUsize>);

impl Drop for CountEnded {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl ConnectionThreads {
    fn start(&mut self, stack_bytes: usize, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        // The limit grows with the number of threads, so that looking through all of them costs little per connection.
        if self.ended.load(Ordering::Relaxed) >= UNJOINED_MAX + self.threads.len() / 32 {
            self.join_ended();
        }
        self.started += 1;
        let ended = Arc::clone(&self.ended);
        let name = thread_name(self.name, self.started % 1_000_000);
        let thread = Builder::new().name(name).stack_size(stack_bytes).spawn(move || {
            let _ended = CountEnded(ended);
            run();
        })?;
        self.threads.push(thread);
        Ok(())
    }

    fn any(&self) -> bool {
        !self.threads.is_empty()
    }

    fn join_ended(&mut self) {
        for thread in self.threads.extract_if(.., |thread| thread.is_finished()) {
            self.ended.fetch_sub(1, Ordering::Relaxed);
            threads::join_connection(thread);
        }
    }

    fn join_all(self) {
        self.threads.into_iter().for_each(threads::join_connection);
    }
}
