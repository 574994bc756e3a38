//! TCP listeners for framed messages. Each listener has one acceptor thread and one thread per connection; all of them
//! are bounded and joined.
//!
//! The thread of a connection reads from its socket, splits the bytes into messages ([`Framer`]) and passes them to its
//! [`MessageHandler`]. The handler blocks while the store is full, so the thread stops reading and TCP slows the sender.
//! Invalid input never ends a connection. After shutdown is triggered, a connection still handles the bytes that have
//! arrived, and the bytes that arrive within the shutdown timeout.
//!
//! Invariant: incomplete messages use at most [`HELD_BYTES_MAX`] of memory over all connections, in addition to the
//! [`UNCOUNTED_BYTES`] of each connection.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use socket2::{SockRef, TcpKeepalive};

use super::event_sink::{EventSink, StoreClosed};
use super::framing::{Framer, Framing, FramingStep};
use crate::http::wait;
use crate::runtime::shutdown::Shutdown;
use crate::{Error, Result};

/// Connections of one listener. A log shipper keeps one open.
pub(crate) const CONNECTIONS_MAX: usize = 512;

/// Memory for incomplete messages longer than [`UNCOUNTED_BYTES`], over all connections.
const HELD_BYTES_MAX: usize = 64 << 20;

/// Buffered bytes of a connection that do not count towards [`HELD_BYTES_MAX`].
const UNCOUNTED_BYTES: usize = 32 << 10;

/// Size of one read.
const READ_BYTES: usize = 16 << 10;

/// Received bytes after which the handler is flushed although more input is waiting.
const FLUSH_BYTES: usize = 512 << 10;

/// Stack of a connection's thread. Patterns are matched on it.
const STACK_BYTES: usize = 512 << 10;

/// Pause after accept(2) failed for lack of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Interval at which ended threads are joined.
const JOIN_INTERVAL: Duration = Duration::from_secs(1);

/// Connections accepted from the backlog after shutdown is triggered.
const DRAINED_BACKLOG_MAX: usize = 4096;

/// Handles the messages of one connection.
pub trait MessageHandler {
    /// Handles one message. An error ends the connection.
    fn handle(&mut self, message: &[u8]) -> Result<(), StoreClosed>;
    /// Handles the first bytes of a message that is too long.
    fn handle_too_long(&mut self, begin: &[u8]);
    /// Stores the handled messages durably. Called when no more input is waiting.
    fn flush(&mut self) -> Result<(), StoreClosed>;
    /// Handles the end of the connection.
    fn finish(self: Box<Self>, reset: bool);
}

/// Creates the handler of a connection from the peer.
pub(crate) type HandlerFactory = Arc<dyn Fn(SocketAddr) -> Box<dyn MessageHandler> + Send + Sync>;

/// The settings of one listener.
#[derive(Clone)]
pub(crate) struct ListenerConfig {
    /// Name in thread names and in the log: `lines`, `content-lines`, `syslog`.
    pub name: &'static str,
    pub framing: Framing,
    /// Maximum size of a message.
    pub message_bytes_max: usize,
    /// Time after shutdown during which a connection still receives.
    pub drain: Duration,
}

struct ListenerShared {
    config: ListenerConfig,
    intake: Arc<EventSink>,
    handler_factory: HandlerFactory,
    shutdown: Shutdown,
    open: AtomicUsize,
    held_bytes: Arc<AtomicUsize>,
}

/// Dependencies that all listeners of a process share.
#[derive(Clone)]
pub(crate) struct ListenerDeps {
    pub intake: Arc<EventSink>,
    pub shutdown: Shutdown,
    /// Bytes of incomplete messages over all connections.
    pub held_bytes: Arc<AtomicUsize>,
}

impl ListenerDeps {
    /// Starts the acceptor thread of an open listener. The thread ends after shutdown.
    pub(crate) fn spawn(
        &self,
        listener: TcpListener,
        config: ListenerConfig,
        takers: HandlerFactory,
    ) -> Result<JoinHandle<Result<()>>> {
        listener.set_nonblocking(true).map_err(Error::system("configure a listener"))?;
        let name = format!("{:.8}-accept", config.name);
        let shared = Arc::new(ListenerShared {
            config,
            intake: Arc::clone(&self.intake),
            handler_factory: takers,
            shutdown: self.shutdown.clone(),
            open: AtomicUsize::new(0),
            held_bytes: Arc::clone(&self.held_bytes),
        });
        let run = move || accept(listener, &shared).inspect_err(|_| shared.shutdown.trigger());
        Builder::new().name(name).spawn(run).map_err(Error::system("start a thread"))
    }
}

fn accept(listener: TcpListener, shared: &Arc<ListenerShared>) -> Result<()> {
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    let mut last = 0..DRAINED_BACKLOG_MAX;
    let ended = loop {
        let stopping = shared.shutdown.is_triggered();
        if stopping && last.next().is_none() {
            break Ok(());
        }
        match listener.accept() {
            Ok((stream, peer)) => threads.extend(admit(stream, peer, shared)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && stopping => break Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let until = (!threads.is_empty()).then(|| Instant::now() + JOIN_INTERVAL);
                wait(&listener, PollFlags::IN, Some(&shared.shutdown), until);
            }
            Err(error) => match error.raw_os_error() {
                // The peer closed the connection before it was accepted.
                Some(libc::ECONNABORTED | libc::EINTR | libc::EPROTO | libc::EPERM) => {}
                Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS) => {
                    shared.intake.warn("accept", format_args!("accept_failed error=\"{error}\""));
                    std::thread::sleep(ACCEPT_PAUSE);
                }
                _ => break Err(Error::System { act: "accept a connection", source: error }),
            },
        }
        threads.extract_if(.., |thread| thread.is_finished()).for_each(join);
    };
    // The kernel rejects peers that connect while the others drain.
    drop(listener);
    threads.into_iter().for_each(join);
    ended
}

fn join(thread: JoinHandle<()>) {
    let name = thread.thread().name().unwrap_or_default().to_owned();
    if thread.join().is_err() {
        // The other connections continue: a panic concerns only its own connection.
        log::error!("thread_failed name={name} note=\"this is a defect in lea\"");
    }
}

/// Starts the thread of a connection, or closes the connection and logs the reason.
fn admit(stream: TcpStream, peer: SocketAddr, shared: &Arc<ListenerShared>) -> Option<JoinHandle<()>> {
    let metrics = shared.intake.metrics();
    metrics.event_connections_total.inc();
    let refuse = |reason: &'static str| {
        metrics.event_connections_refused_total.inc();
        let name = shared.config.name;
        shared
            .intake
            .warn(reason, format_args!("connection_rejected listener={name} reason={reason} peer={peer}"));
        None
    };
    if shared.open.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
        return refuse("limit_reached");
    }
    let place = ConnectionPermit::acquire(shared);
    let run = move || serve(stream, peer, &place.0);
    let name = format!("{:.10}-{}", shared.config.name, metrics.event_connections_total.get() % 10_000);
    match Builder::new().name(name).stack_size(STACK_BYTES).spawn(run) {
        Ok(thread) => Some(thread),
        Err(error) => {
            log::debug!("thread_failed error=\"{error}\"");
            refuse("no_thread")
        }
    }
}

/// A slot among the connections of a listener. It is released when the connection's thread ends, even by a panic.
struct ConnectionPermit(Arc<ListenerShared>);

impl ConnectionPermit {
    fn acquire(shared: &Arc<ListenerShared>) -> ConnectionPermit {
        shared.open.fetch_add(1, Ordering::Relaxed);
        shared.intake.metrics().event_connections_open.inc();
        ConnectionPermit(Arc::clone(shared))
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.intake.metrics().event_connections_open.sub(1);
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

fn serve(stream: TcpStream, peer: SocketAddr, shared: &ListenerShared) {
    let name = shared.config.name;
    log::info!("connection_opened listener={name} peer={peer}");
    let mut connection = MessageConnection {
        framer: Framer::new(shared.config.framing, shared.config.message_bytes_max),
        handler: (shared.handler_factory)(peer),
        input: InputBuffer {
            bytes: Vec::new(),
            consumed: 0,
            held: 0,
            held_bytes: Arc::clone(&shared.held_bytes),
        },
        unflushed_bytes: 0,
        shared,
    };
    let ended = connection.run(&stream);
    connection.handler.finish(matches!(ended, ConnectionEnd::Reset));
    if matches!(ended, ConnectionEnd::Drained)
        && let Ok(bytes @ 1..) = rustix::io::ioctl_fionread(&stream)
    {
        // These bytes arrived after shutdown, and the sender may hold more.
        log::warn!(
            "unread_bytes_dropped listener={name} peer={peer} bytes={bytes} \
             note=\"set a longer --shutdown-timeout to receive more\""
        );
    }
    log::info!("connection_closed listener={name} peer={peer} reason={}", ended.as_str());
}

/// The reason why a connection ended.
enum ConnectionEnd {
    /// The peer closed the connection.
    Eof,
    /// The peer reset the connection or is dead.
    Reset,
    /// Shutdown was triggered.
    Drained,
    /// The store accepts no more events.
    Gone,
}

impl ConnectionEnd {
    fn as_str(&self) -> &'static str {
        match self {
            ConnectionEnd::Eof => "eof",
            ConnectionEnd::Reset => "reset",
            ConnectionEnd::Drained => "drained",
            ConnectionEnd::Gone => "no_store",
        }
    }
}

impl From<StoreClosed> for ConnectionEnd {
    fn from(StoreClosed: StoreClosed) -> ConnectionEnd {
        ConnectionEnd::Gone
    }
}

/// The input that a connection still handles after shutdown is triggered.
struct DrainBudget {
    /// Bytes that had arrived by then. They are handled however long storing them takes.
    owed_bytes: u64,
    /// Time until which later bytes are handled.
    until: Instant,
}

impl DrainBudget {
    fn start(stream: &TcpStream, drain: Duration) -> DrainBudget {
        let owed_bytes = rustix::io::ioctl_fionread(stream).unwrap_or(0);
        DrainBudget { owed_bytes, until: Instant::now() + drain }
    }
}

struct MessageConnection<'a> {
    framer: Framer,
    handler: Box<dyn MessageHandler>,
    input: InputBuffer,
    unflushed_bytes: usize,
    shared: &'a ListenerShared,
}

impl MessageConnection<'_> {
    fn run(&mut self, stream: &TcpStream) -> ConnectionEnd {
        if configure_socket(stream).is_err() {
            return ConnectionEnd::Reset;
        }
        let mut drain: Option<DrainBudget> = None;
        loop {
            match self.input.read(stream) {
                Ok(0) => {
                    return self
                        .handle_messages(true)
                        .and_then(|()| self.handler.flush())
                        .map_or(ConnectionEnd::Gone, |()| ConnectionEnd::Eof);
                }
                Ok(bytes) => {
                    self.unflushed_bytes += bytes;
                    if let Some(drain) = &mut drain {
                        drain.owed_bytes = drain.owed_bytes.saturating_sub(bytes as u64);
                    }
                    if let Err(gone) = self.handle_messages(false) {
                        return gone.into();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.flush().is_err() {
                        return ConnectionEnd::Gone;
                    }
                    if drain.is_some() {
                        return ConnectionEnd::Drained;
                    }
                    wait(stream, PollFlags::IN, Some(&self.shared.shutdown), None);
                }
                Err(_) => return self.flush().map_or(ConnectionEnd::Gone, |()| ConnectionEnd::Reset),
            }
            if self.shared.shutdown.is_triggered() {
                let drain = drain.get_or_insert_with(|| DrainBudget::start(stream, self.shared.config.drain));
                if drain.owed_bytes == 0 && Instant::now() >= drain.until {
                    return self.flush().map_or(ConnectionEnd::Gone, |()| ConnectionEnd::Drained);
                }
            }
        }
    }

    /// Handles all complete messages in the buffer.
    fn handle_messages(&mut self, ended: bool) -> Result<(), StoreClosed> {
        loop {
            let (step, consumed) = self.framer.step(&self.input.bytes[self.input.consumed..], ended);
            match step {
                FramingStep::Message(message) => self.handler.handle(message)?,
                FramingStep::TooLong(begin) => self.handler.handle_too_long(begin),
                FramingStep::NeedMore => {
                    self.input.consumed += consumed;
                    break;
                }
            }
            self.input.consumed += consumed;
        }
        if !self.input.compact() {
            let begin = &self.input.bytes[..self.input.bytes.len().min(super::framing::EXCERPT_BYTES)];
            self.handler.handle_too_long(begin);
            self.framer.skip_line();
            self.input.clear();
        }
        if self.unflushed_bytes >= FLUSH_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), StoreClosed> {
        self.unflushed_bytes = 0;
        self.handler.flush()
    }
}

fn configure_socket(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    // A dead peer is detected after two minutes.
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(10))
        .with_retries(6);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// Bytes that were read and not yet handled.
struct InputBuffer {
    bytes: Vec<u8>,
    consumed: usize,
    /// This connection's share of `held_bytes`.
    held: usize,
    held_bytes: Arc<AtomicUsize>,
}

impl InputBuffer {
    fn read(&mut self, mut stream: &TcpStream) -> io::Result<usize> {
        let end = self.bytes.len();
        self.bytes.resize(end + READ_BYTES, 0);
        let read = stream.read(&mut self.bytes[end..]);
        self.bytes.truncate(end + read.as_ref().map_or(0, |bytes| *bytes));
        read
    }

    /// Removes the handled bytes. Returns false if the memory limit does not allow the rest.
    fn compact(&mut self) -> bool {
        self.bytes.drain(..self.consumed);
        self.consumed = 0;
        if self.bytes.len() <= UNCOUNTED_BYTES {
            if self.bytes.capacity() > 2 * UNCOUNTED_BYTES {
                self.bytes.shrink_to(UNCOUNTED_BYTES);
            }
            self.set_held_bytes(0);
            return true;
        }
        let wanted = self.bytes.len();
        if wanted > self.held
            && self.held_bytes.load(Ordering::Relaxed) + (wanted - self.held) > HELD_BYTES_MAX
        {
            return false;
        }
        self.set_held_bytes(wanted);
        true
    }

    fn set_held_bytes(&mut self, bytes: usize) {
        self.held_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.held_bytes.fetch_sub(self.held, Ordering::Relaxed);
        self.held = bytes;
    }

    fn clear(&mut self) {
        self.bytes = Vec::new();
        self.set_held_bytes(0);
    }
}

impl Drop for InputBuffer {
    fn drop(&mut self) {
        self.set_held_bytes(0);
    }
}
