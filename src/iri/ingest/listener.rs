//! TCP listeners for framed messages. Each listener has one acceptor thread and one thread per connection; all of them
//! are bounded and joined.
//!
//! The thread of a connection reads from its socket, splits the bytes into messages ([`Framer`]) and passes them to its
//! [`MessageHandler`]. The handler blocks while the store is full, so the thread stops reading and TCP slows the sender.
//! Invalid input never ends a connection, except HTTP: a web page must not store events through its visitor. After shutdown is triggered, a connection still handles the bytes that have
//! arrived, and the bytes that arrive within the shutdown timeout.
//!
//! Invariant: incomplete messages use at most [`MemoryLimits::held_messages`] of memory over all connections, in addition to
//! the [`UNCOUNTED_BYTES`] of each connection. One connection holds at most a message of the maximum size.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use socket2::{SockRef, TcpKeepalive};

use super::event_sink::{EventSink, StoreClosed};
use super::framing::{Framer, Framing, FramingStep};
use crate::Result;
use crate::limits::MemoryLimits;
use crate::runtime::metrics::SourceMetrics;
use crate::runtime::net::acceptor::{self, AcceptorConfig, ConnectionHandler, ListenerState};
use crate::runtime::net::peers::{PeerLimits, PeerPermit};
use crate::runtime::net::{PollOutcome, wait};
use crate::runtime::shutdown::Shutdown;

/// Connections of one listener. A log shipper keeps one open.
pub(crate) const CONNECTIONS_MAX: usize = 512;

/// Time without a byte after which a connection ends while its listener has little room for others.
const IDLE_IN_CROWD: Duration = Duration::from_secs(60);

/// Buffered bytes of a connection that do not count towards the memory for incomplete messages.
const UNCOUNTED_BYTES: usize = 32 << 10;

/// Size of one read.
const READ_BYTES: usize = 16 << 10;

/// Received bytes after which the handler is flushed although more input is waiting.
const FLUSH_BYTES: usize = 512 << 10;

/// Stack of a connection's thread. Patterns are matched on it.
const STACK_BYTES: usize = 512 << 10;

/// Handles the messages of one connection.
pub(crate) trait MessageHandler {
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
    /// Name in the log, in metrics and in thread names: `lines`, `content-lines`, `syslog`.
    pub name: &'static str,
    /// Transport in metrics, for a source that has several.
    pub transport: Option<&'static str>,
    pub framing: Framing,
    /// Maximum size of a message.
    pub message_bytes_max: usize,
}

struct ListenerShared {
    sink: Arc<EventSink>,
    config: ListenerConfig,
    shutdown_timeout: Duration,
    source_metrics: Arc<SourceMetrics>,
    handler_factory: HandlerFactory,
    shutdown: Shutdown,
    held_bytes: Arc<AtomicUsize>,
    state: Arc<ListenerState>,
}

/// Dependencies that all listeners of a process share.
#[derive(Clone)]
pub(crate) struct ListenerDeps {
    pub sink: Arc<EventSink>,
    pub shutdown: Shutdown,
    /// Time after shutdown during which connections still receive.
    pub shutdown_timeout: Duration,
    /// Bytes of incomplete messages over all connections.
    held_bytes: Arc<AtomicUsize>,
}

impl ListenerDeps {
    pub(crate) fn new(sink: Arc<EventSink>, shutdown: Shutdown, shutdown_timeout: Duration) -> ListenerDeps {
        ListenerDeps { sink, shutdown, shutdown_timeout, held_bytes: Arc::default() }
    }

    /// Starts the acceptor thread of an open listener. The thread ends after shutdown.
    pub(crate) fn spawn(
        &self,
        listener: TcpListener,
        config: ListenerConfig,
        handler_factory: HandlerFactory,
    ) -> Result<JoinHandle<Result<()>>> {
        let peers = PeerLimits::of_connections(CONNECTIONS_MAX);
        let state = ListenerState::new(config.name, CONNECTIONS_MAX, peers, self.sink.metrics());
        let source_metrics = self.sink.metrics().source(config.name, config.transport);
        let (shutdown, held_bytes) = (self.shutdown.clone(), Arc::clone(&self.held_bytes));
        let shared = ListenerShared {
            sink: Arc::clone(&self.sink),
            config,
            shutdown_timeout: self.shutdown_timeout,
            source_metrics,
            handler_factory,
            shutdown: shutdown.clone(),
            held_bytes,
            state: Arc::clone(&state),
        };
        acceptor::spawn(listener, AcceptorConfig::draining(STACK_BYTES), state, Arc::new(shared), shutdown)
    }
}

impl ListenerShared {
    fn reject_http(&self, peer: SocketAddr) {
        self.sink.metrics().events_rejected_http.inc();
        let name = self.config.name;
        let note = "this port does not speak HTTP";
        let line =
            format_args!("connection_rejected listener={name} reason=http peer={peer} note=\"{note}\"");
        self.sink.warn("http", line);
    }
}

impl ConnectionHandler for ListenerShared {
    type Connection = (TcpStream, SocketAddr, PeerPermit);

    fn prepare(
        self: &Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        place: PeerPermit,
    ) -> Option<(TcpStream, SocketAddr, PeerPermit)> {
        Some((stream, peer, place))
    }

    fn serve(&self, (stream, peer, _place): (TcpStream, SocketAddr, PeerPermit)) {
        let name = self.config.name;
        log::info!("connection_opened listener={name} peer={peer}");
        let held_bytes = Arc::clone(&self.held_bytes);
        let mut connection = MessageConnection {
            framer: Framer::new(self.config.framing, self.config.message_bytes_max),
            handler: (self.handler_factory)(peer),
            input: InputBuffer { bytes: Vec::new(), consumed: 0, held: 0, held_bytes },
            unflushed_bytes: 0,
            is_started: false,
            peer,
            shared: self,
        };
        let ended = connection.run(&stream);
        connection.handler.finish(matches!(ended, ConnectionEnd::Reset));
        if matches!(ended, ConnectionEnd::Shutdown)
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
}

/// The reason why a connection ended.
enum ConnectionEnd {
    /// The peer closed the connection.
    Eof,
    /// The peer reset the connection or is dead.
    Reset,
    /// Shutdown was triggered.
    Shutdown,
    /// The store accepts no more events.
    StoreClosed,
    /// The peer sent nothing, and others wait for a place.
    Idle,
    /// The peer speaks HTTP, as a web page does that tries the ports of its visitor.
    Http,
}

impl ConnectionEnd {
    fn as_str(&self) -> &'static str {
        match self {
            ConnectionEnd::Eof => "eof",
            ConnectionEnd::Reset => "reset",
            ConnectionEnd::Shutdown => "shutdown",
            ConnectionEnd::StoreClosed => "store_closed",
            ConnectionEnd::Idle => "idle",
            ConnectionEnd::Http => "http",
        }
    }
}

impl From<StoreClosed> for ConnectionEnd {
    fn from(StoreClosed: StoreClosed) -> ConnectionEnd {
        ConnectionEnd::StoreClosed
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
    /// True after the first message.
    is_started: bool,
    peer: SocketAddr,
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
                    let ended = self.handle_messages(true).and_then(|()| Ok(self.handler.flush()?));
                    return ended.map_or_else(|end| end, |()| ConnectionEnd::Eof);
                }
                Ok(bytes) => {
                    self.unflushed_bytes += bytes;
                    if let Some(drain) = &mut drain {
                        drain.owed_bytes = drain.owed_bytes.saturating_sub(bytes as u64);
                    }
                    if let Err(end) = self.handle_messages(false) {
                        return end;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.flush().is_err() {
                        return ConnectionEnd::StoreClosed;
                    }
                    if drain.is_some() {
                        return ConnectionEnd::Shutdown;
                    }
                    let until = Instant::now() + IDLE_IN_CROWD;
                    let waited = wait(stream, PollFlags::IN, Some(&self.shared.shutdown), Some(until));
                    if waited == PollOutcome::TimedOut && self.shared.state.is_crowded() {
                        return ConnectionEnd::Idle;
                    }
                }
                Err(_) => return self.flush().map_or(ConnectionEnd::StoreClosed, |()| ConnectionEnd::Reset),
            }
            if self.shared.shutdown.is_triggered() {
                let drain =
                    drain.get_or_insert_with(|| DrainBudget::start(stream, self.shared.shutdown_timeout));
                if drain.owed_bytes == 0 && Instant::now() >= drain.until {
                    return self.flush().map_or(ConnectionEnd::StoreClosed, |()| ConnectionEnd::Shutdown);
                }
            }
        }
    }

    /// Handles all complete messages in the buffer.
    fn handle_messages(&mut self, ended: bool) -> Result<(), ConnectionEnd> {
        loop {
            let (step, consumed) = self.framer.step(&self.input.bytes[self.input.consumed..], ended);
            match step {
                FramingStep::Message(message) => {
                    if !std::mem::replace(&mut self.is_started, true) && is_http_request(message) {
                        self.shared.reject_http(self.peer);
                        return Err(ConnectionEnd::Http);
                    }
                    self.shared.source_metrics.messages.inc();
                    self.handler.handle(message)?;
                }
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
        if self.unflushed_bytes >= FLUSH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StoreClosed> {
        self.unflushed_bytes = 0;
        self.handler.flush()
    }
}

/// Tells whether a message is the request line of HTTP/1 (RFC 9112, section 3).
fn is_http_request(message: &[u8]) -> bool {
    let mut words = message.split(|byte| *byte == b' ');
    let is_method = |word: &[u8]| (3..=7).contains(&word.len()) && word.iter().all(u8::is_ascii_uppercase);
    let is_version = |word: &[u8]| matches!(word, b"HTTP/1.0" | b"HTTP/1.1");
    words.next().is_some_and(is_method) && words.nth(1).is_some_and(is_version) && words.next().is_none()
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
            && self.held_bytes.load(Ordering::Relaxed) + (wanted - self.held)
                > MemoryLimits::detect().held_messages
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
