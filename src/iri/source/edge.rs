//! Listeners for messages over TCP: one acceptor thread a listener, one thread a connection, all bounded and joined.
//!
//! A connection's thread reads what is there, takes messages out of it ([`Framer`]) and gives them to its [`Taker`],
//! which waits where the store is full; then nothing is read, and TCP slows the sender. Whatever a peer sends, the
//! connection goes on. After a stop it takes what has arrived, and what still comes for as long as the drain
//! lasts.
//!
//! Invariant: lines under way take [`HELD_BYTES_MAX`] of memory at most, all connections together, beside the
//! [`KEPT_BYTES`] that each may keep.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use socket2::{SockRef, TcpKeepalive};

use super::frame::{Framer, Framing, Step};
use super::intake::{Gone, Intake};
use crate::http::wait;
use crate::stop::Stop;
use crate::{Error, Result};

/// Connections of one listener: shippers keep one each.
pub const CONNECTIONS_MAX: usize = 512;

/// Memory for lines under way that are longer than [`KEPT_BYTES`], of all connections together.
const HELD_BYTES_MAX: usize = 64 << 20;

/// What a connection may keep without asking.
const KEPT_BYTES: usize = 32 << 10;

/// What is read at once.
const READ_BYTES: usize = 16 << 10;

/// Bytes after which what was taken is written, though more is there.
const FLUSH_BYTES: usize = 512 << 10;

/// Stack of a connection's thread: patterns are matched on it.
const STACK_BYTES: usize = 512 << 10;

/// After an accept(2) that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Between two looks for threads that have ended.
const LOOK: Duration = Duration::from_secs(1);

/// Connections taken out of the backlog after a stop.
const BACKLOG_MAX: usize = 4096;

/// What takes the messages of one connection.
pub trait Taker {
    /// Takes a message; `Gone` ends the connection.
    fn take(&mut self, message: &[u8]) -> Result<(), Gone>;
    /// A message was too long; this is its begin.
    fn too_long(&mut self, begin: &[u8]);
    /// Nothing more is there for now: makes durable what was taken.
    fn flush(&mut self) -> Result<(), Gone>;
    /// The connection has ended.
    fn end(self: Box<Self>, reset: bool);
}

/// Makes the taker of a connection from this peer.
pub type Takers = Arc<dyn Fn(SocketAddr) -> Box<dyn Taker> + Send + Sync>;

/// How a listener works.
#[derive(Clone)]
pub struct EdgeConfig {
    /// What its threads are called and the log says: `lines`, `data-lines`, `syslog`.
    pub name: &'static str,
    /// How messages are framed.
    pub framing: Framing,
    /// A message's bytes.
    pub message_bytes_max: usize,
    /// After a stop, how long a connection may go on bringing bytes.
    pub drain: Duration,
}

struct Shared {
    config: EdgeConfig,
    intake: Arc<Intake>,
    takers: Takers,
    stop: Stop,
    open: AtomicUsize,
    held_bytes: Arc<AtomicUsize>,
}

/// What all listeners of a process share.
#[derive(Clone)]
pub struct Edges {
    /// Into the store.
    pub intake: Arc<Intake>,
    /// Ends all of them.
    pub stop: Stop,
    /// Bytes of lines under way.
    pub held_bytes: Arc<AtomicUsize>,
}

impl Edges {
    /// Accepts on a listener that is open, until the stop.
    pub fn spawn(
        &self,
        listener: TcpListener,
        config: EdgeConfig,
        takers: Takers,
    ) -> Result<JoinHandle<Result<()>>> {
        listener.set_nonblocking(true).map_err(Error::system("set up a listener"))?;
        let name = format!("{:.8}-accept", config.name);
        let shared = Arc::new(Shared {
            config,
            intake: Arc::clone(&self.intake),
            takers,
            stop: self.stop.clone(),
            open: AtomicUsize::new(0),
            held_bytes: Arc::clone(&self.held_bytes),
        });
        let run = move || accept(listener, &shared).inspect_err(|_| shared.stop.ask());
        Builder::new().name(name).spawn(run).map_err(Error::system("start a thread"))
    }
}

fn accept(listener: TcpListener, shared: &Arc<Shared>) -> Result<()> {
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    let mut last = 0..BACKLOG_MAX;
    let ended = loop {
        let stopping = shared.stop.is_asked();
        if stopping && last.next().is_none() {
            break Ok(());
        }
        match listener.accept() {
            Ok((stream, peer)) => threads.extend(admit(stream, peer, shared)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && stopping => break Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let until = (!threads.is_empty()).then(|| Instant::now() + LOOK);
                wait(&listener, PollFlags::IN, Some(&shared.stop), until);
            }
            Err(error) => match error.raw_os_error() {
                // The peer was gone before it was accepted.
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
    // Who connects while the others drain is refused by the kernel, and not taken and forgotten.
    drop(listener);
    threads.into_iter().for_each(join);
    ended
}

fn join(thread: JoinHandle<()>) {
    let name = thread.thread().name().unwrap_or_default().to_owned();
    if thread.join().is_err() {
        // The others go on: one connection's defect is not theirs.
        log::error!("thread_failed name={name} note=\"this is a defect in lea\"");
    }
}

/// Starts a thread for the connection, or closes it and says why.
fn admit(stream: TcpStream, peer: SocketAddr, shared: &Arc<Shared>) -> Option<JoinHandle<()>> {
    let counters = shared.intake.counters();
    counters.event_connections_total.one();
    let refuse = |reason: &'static str| {
        counters.event_connections_refused_total.one();
        let name = shared.config.name;
        shared.intake.warn(reason, format_args!("refused reason={reason} for={name} peer={peer}"));
        None
    };
    if shared.open.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
        return refuse("connections_max");
    }
    let place = Place::take(shared);
    let run = move || serve(stream, peer, &place.0);
    let name = format!("{:.10}-{}", shared.config.name, counters.event_connections_total.get() % 10_000);
    match Builder::new().name(name).stack_size(STACK_BYTES).spawn(run) {
        Ok(thread) => Some(thread),
        Err(error) => {
            log::debug!("thread_failed error=\"{error}\"");
            refuse("no_thread")
        }
    }
}

/// A place among the connections; given back when the connection's thread ends, in whatever way.
struct Place(Arc<Shared>);

impl Place {
    fn take(shared: &Arc<Shared>) -> Place {
        shared.open.fetch_add(1, Ordering::Relaxed);
        shared.intake.counters().event_connections_open.one();
        Place(Arc::clone(shared))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.intake.counters().event_connections_open.sub(1);
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

fn serve(stream: TcpStream, peer: SocketAddr, shared: &Shared) {
    let name = shared.config.name;
    log::info!("connected for={name} peer={peer}");
    let mut connection = Connection {
        framer: Framer::new(shared.config.framing, shared.config.message_bytes_max),
        taker: (shared.takers)(peer),
        input: Input { bytes: Vec::new(), from: 0, held: 0, held_bytes: Arc::clone(&shared.held_bytes) },
        unflushed_bytes: 0,
        shared,
    };
    let ended = connection.run(&stream);
    connection.taker.end(matches!(ended, End::Reset));
    if matches!(ended, End::Drained)
        && let Ok(bytes @ 1..) = rustix::io::ioctl_fionread(&stream)
    {
        // They came after the stop, and the sender may hold more.
        log::warn!("not_read for={name} peer={peer} bytes={bytes} note=\"a longer --drain-ms takes more\"");
    }
    log::info!("disconnected for={name} peer={peer} reason={}", ended.word());
}

/// Why a connection ended.
enum End {
    /// The peer closed it.
    Eof,
    /// It failed, or the peer is gone.
    Reset,
    /// The stop.
    Drained,
    /// Nothing more can be stored.
    Gone,
}

impl End {
    fn word(&self) -> &'static str {
        match self {
            End::Eof => "eof",
            End::Reset => "reset",
            End::Drained => "drained",
            End::Gone => "no_store",
        }
    }
}

impl From<Gone> for End {
    fn from(Gone: Gone) -> End {
        End::Gone
    }
}

/// What is still taken after a stop.
struct Drain {
    /// Bytes that had arrived by then: these are taken, however long it takes to store them.
    owed_bytes: u64,
    /// Until then more is taken.
    until: Instant,
}

impl Drain {
    fn of(stream: &TcpStream, drain: Duration) -> Drain {
        let owed_bytes = rustix::io::ioctl_fionread(stream).unwrap_or(0);
        Drain { owed_bytes, until: Instant::now() + drain }
    }
}

struct Connection<'a> {
    framer: Framer,
    taker: Box<dyn Taker>,
    input: Input,
    unflushed_bytes: usize,
    shared: &'a Shared,
}

impl Connection<'_> {
    fn run(&mut self, stream: &TcpStream) -> End {
        if set_up(stream).is_err() {
            return End::Reset;
        }
        let mut drain: Option<Drain> = None;
        loop {
            match self.input.read(stream) {
                Ok(0) => {
                    return self
                        .take(true)
                        .and_then(|()| self.taker.flush())
                        .map_or(End::Gone, |()| End::Eof);
                }
                Ok(bytes) => {
                    self.unflushed_bytes += bytes;
                    if let Some(drain) = &mut drain {
                        drain.owed_bytes = drain.owed_bytes.saturating_sub(bytes as u64);
                    }
                    if let Err(gone) = self.take(false) {
                        return gone.into();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.flush().is_err() {
                        return End::Gone;
                    }
                    if drain.is_some() {
                        return End::Drained;
                    }
                    wait(stream, PollFlags::IN, Some(&self.shared.stop), None);
                }
                Err(_) => return self.flush().map_or(End::Gone, |()| End::Reset),
            }
            if self.shared.stop.is_asked() {
                let drain = drain.get_or_insert_with(|| Drain::of(stream, self.shared.config.drain));
                if drain.owed_bytes == 0 && Instant::now() >= drain.until {
                    return self.flush().map_or(End::Gone, |()| End::Drained);
                }
            }
        }
    }

    /// Takes the messages that are whole.
    fn take(&mut self, ended: bool) -> Result<(), Gone> {
        loop {
            let (step, consumed) = self.framer.step(&self.input.bytes[self.input.from..], ended);
            match step {
                Step::Message(message) => self.taker.take(message)?,
                Step::TooLong(begin) => self.taker.too_long(begin),
                Step::More => {
                    self.input.from += consumed;
                    break;
                }
            }
            self.input.from += consumed;
        }
        if !self.input.tidy() {
            let begin = &self.input.bytes[..self.input.bytes.len().min(super::frame::BEGIN_BYTES)];
            self.taker.too_long(begin);
            self.framer.pass_over();
            self.input.clear();
        }
        if self.unflushed_bytes >= FLUSH_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Gone> {
        self.unflushed_bytes = 0;
        self.taker.flush()
    }
}

fn set_up(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    // A peer that is gone is found after two minutes.
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(10))
        .with_retries(6);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// What was read and not yet taken.
struct Input {
    bytes: Vec<u8>,
    from: usize,
    /// What this connection has of `held_bytes`.
    held: usize,
    held_bytes: Arc<AtomicUsize>,
}

impl Input {
    fn read(&mut self, mut stream: &TcpStream) -> io::Result<usize> {
        let end = self.bytes.len();
        self.bytes.resize(end + READ_BYTES, 0);
        let read = stream.read(&mut self.bytes[end..]);
        self.bytes.truncate(end + read.as_ref().map_or(0, |bytes| *bytes));
        read
    }

    /// Gives back what was taken. False if there is no memory for what is left.
    fn tidy(&mut self) -> bool {
        self.bytes.drain(..self.from);
        self.from = 0;
        if self.bytes.len() <= KEPT_BYTES {
            if self.bytes.capacity() > 2 * KEPT_BYTES {
                self.bytes.shrink_to(KEPT_BYTES);
            }
            self.hold(0);
            return true;
        }
        let wanted = self.bytes.len();
        if wanted > self.held
            && self.held_bytes.load(Ordering::Relaxed) + (wanted - self.held) > HELD_BYTES_MAX
        {
            return false;
        }
        self.hold(wanted);
        true
    }

    fn hold(&mut self, bytes: usize) {
        self.held_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.held_bytes.fetch_sub(self.held, Ordering::Relaxed);
        self.held = bytes;
    }

    fn clear(&mut self) {
        self.bytes = Vec::new();
        self.hold(0);
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.hold(0);
    }
}
