//! Sends streams over TCP as real senders do (docs/protocol.md, section 2). Runs in the streams' threads. The
//! sockets are non-blocking, so a shutdown ends every wait.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::SendFlags;
use socket2::{Domain, Protocol, Socket, Type};

use crate::replay::sink::{CloseMode, SendError, StreamSender, StreamSink};
use crate::replay::wait::{self, ConnectAttempts};
use crate::runtime::logging::Throttle;
use crate::runtime::shutdown::Shutdown;
use crate::{Error, Result};

/// Way in which the name is sent before the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum HandshakeStyle {
    /// The name in one send, then one second of silence
    Gap,
    /// The name and a newline
    Newline,
    /// The name and the first data in one send
    Joined,
    /// The name in several segments, then one second of silence
    Split,
}

/// Silence after a name: real senders sleep one second.
const NAME_SILENCE: Duration = Duration::from_secs(1);
/// Number of segments of a split name, and the pause between them. It is long enough that the network does
/// not merge them, and far shorter than the name timeout.
const SPLIT_SEGMENTS: usize = 4;
const SPLIT_PAUSE: Duration = Duration::from_millis(20);
/// Longest wait for the answer to a connection attempt before it is reported.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

const ADVICE: &str = "check the address, and that the receiver is running";

/// Address of a TCP receiver.
#[derive(Clone, Debug)]
pub(crate) struct TcpTarget {
    /// Addresses, tried in turn. A host name may have several. Never empty.
    pub addrs: Vec<SocketAddr>,
    /// Address as the user wrote it, for messages.
    pub label: String,
    /// Time limit for connecting.
    pub connect_timeout: Duration,
    /// Limits the reports of failed attempts.
    pub reports: Arc<Throttle>,
}

impl TcpTarget {
    pub(crate) fn new(addrs: Vec<SocketAddr>, label: &str, connect_timeout: Duration) -> TcpTarget {
        TcpTarget { addrs, label: label.to_owned(), connect_timeout, reports: Arc::default() }
    }

    /// Connects, and retries until the time limit, because the receiver may still be starting.
    pub(crate) fn connect(&self, shutdown: &Shutdown) -> Result<Socket, SendError> {
        self.connect_within(self.connect_timeout, shutdown)
    }

    /// Connects, and retries until `limit`.
    pub(crate) fn connect_within(&self, limit: Duration, shutdown: &Shutdown) -> Result<Socket, SendError> {
        let attempts =
            ConnectAttempts { target: &self.label, limit, started: Instant::now(), reports: &self.reports };
        loop {
            let mut last = io::Error::from(io::ErrorKind::TimedOut);
            for addr in &self.addrs {
                match connect_once(*addr, &attempts, shutdown)? {
                    Ok(socket) => return Ok(socket),
                    Err(error) => last = error,
                }
            }
            attempts.retry(shutdown, &last.to_string(), ADVICE)?;
        }
    }
}

/// Destination that receives streams over TCP.
#[derive(Clone, Debug)]
pub(crate) struct TcpSink {
    pub peer: TcpTarget,
    /// Way in which the name is sent before the content.
    pub handshake: HandshakeStyle,
}

impl TcpSink {
    fn send_name(&self, sender: &mut TcpSender, name: &[u8], shutdown: &Shutdown) -> Result<(), SendError> {
        match self.handshake {
            HandshakeStyle::Joined => name.clone_into(&mut sender.unsent_name),
            HandshakeStyle::Newline => sender.send(&[name, b"\n"].concat(), shutdown)?,
            HandshakeStyle::Gap => {
                sender.send(name, shutdown)?;
                wait::pause(shutdown, NAME_SILENCE)?;
            }
            HandshakeStyle::Split => {
                for segment in name.chunks(name.len().div_ceil(SPLIT_SEGMENTS).max(1)) {
                    sender.send(segment, shutdown)?;
                    wait::pause(shutdown, SPLIT_PAUSE)?;
                }
                wait::pause(shutdown, NAME_SILENCE)?;
            }
        }
        Ok(())
    }
}

impl StreamSink for TcpSink {
    fn open(&self, name: &[u8], shutdown: &Shutdown) -> Result<Box<dyn StreamSender>, SendError> {
        let socket = self.peer.connect(shutdown)?;
        let mut sender = TcpSender { socket, label: self.peer.label.clone(), unsent_name: Vec::new() };
        self.send_name(&mut sender, name, shutdown)?;
        Ok(Box::new(sender))
    }
}

/// Makes one attempt to connect. The outer error ends the stream, the inner one only the attempt.
fn connect_once(
    addr: SocketAddr,
    attempts: &ConnectAttempts<'_>,
    shutdown: &Shutdown,
) -> Result<io::Result<Socket>, SendError> {
    let start = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        match socket.connect(&addr.into()) {
            Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => Err(error),
            _ => Ok(socket),
        }
    };
    let socket = match start() {
        Ok(socket) => socket,
        Err(error) => return Ok(Err(error)),
    };
    while !wait::wait_writable(shutdown, &socket, attempts.remaining().min(REPORT_INTERVAL))? {
        if attempts.remaining().is_zero() {
            return Ok(Err(io::ErrorKind::TimedOut.into()));
        }
        attempts.report("no answer yet");
    }
    Ok(match socket.take_error() {
        Ok(None) => Ok(socket),
        Ok(Some(error)) | Err(error) => Err(error),
    })
}

/// Open connection.
#[derive(Debug)]
struct TcpSender {
    socket: Socket,
    label: String,
    /// Name that is sent with the first content (handshake `joined`).
    unsent_name: Vec<u8>,
}

/// Sends all bytes. After an error, part of them may have been sent.
pub(crate) fn send_all(
    socket: &Socket,
    label: &str,
    mut bytes: &[u8],
    shutdown: &Shutdown,
) -> Result<(), SendError> {
    while !bytes.is_empty() {
        match rustix::net::send(socket, bytes, SendFlags::NOSIGNAL) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(Errno::AGAIN) => {
                wait::wait_writable(shutdown, socket, Duration::MAX)?;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(Error::net("send to", label)(error.into()).into()),
        }
    }
    Ok(())
}

impl StreamSender for TcpSender {
    fn send(&mut self, bytes: &[u8], shutdown: &Shutdown) -> Result<(), SendError> {
        if self.unsent_name.is_empty() {
            return send_all(&self.socket, &self.label, bytes, shutdown);
        }
        let mut joined = std::mem::take(&mut self.unsent_name);
        joined.extend_from_slice(bytes);
        send_all(&self.socket, &self.label, &joined, shutdown)
    }

    fn close(mut self: Box<Self>, how: CloseMode, shutdown: &Shutdown) -> Result<(), SendError> {
        self.send(&[], shutdown)?;
        if how == CloseMode::Reset {
            // Closing with a linger time of zero sends a reset.
            let linger = self.socket.set_linger(Some(Duration::ZERO));
            linger.map_err(Error::net("reset the stream to", &self.label))?;
        }
        Ok(())
    }
}
