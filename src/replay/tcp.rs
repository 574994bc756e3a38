//! Sending over TCP as the field's senders do (protocol, section 2). Runs in the streams' threads; the sockets do
//! not block, so a stop ends every wait.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::SendFlags;
use socket2::{Domain, Protocol, Socket, Type};

use crate::replay::sink::{Broken, Close, Sender, Sink};
use crate::replay::wait;
use crate::stop::Stop;
use crate::{Error, Result};

/// How the name goes before the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Handshake {
    /// The name in one send, then a second of quiet
    Gap,
    /// The name and a newline
    Newline,
    /// The name and the first data in one send
    Joined,
    /// The name over several segments, then a second of quiet
    Split,
}

/// The quiet after a name: senders sleep one second.
const NAME_GAP: Duration = Duration::from_secs(1);
/// Into how many segments a name is split, and the time between them: long enough that the network does not join
/// them, far shorter than a gap.
const SPLIT_SEGMENTS: usize = 4;
const SPLIT_PAUSE: Duration = Duration::from_millis(20);
/// How long to wait before another attempt to connect.
const CONNECT_AGAIN: Duration = Duration::from_millis(100);

/// Where to connect to.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its addresses (a host name may have several), tried in turn; one at least.
    pub addrs: Vec<SocketAddr>,
    /// As the user wrote it, for messages.
    pub label: String,
    /// For how long to try to connect.
    pub connect_timeout: Duration,
}

impl Peer {
    /// Connects, trying again until the time is over: a receiver may just be starting.
    pub fn connect(&self, stop: &Stop) -> Result<Socket, Broken> {
        let deadline = Instant::now() + self.connect_timeout;
        loop {
            let mut last = io::Error::from(io::ErrorKind::TimedOut);
            for addr in &self.addrs {
                match connect_once(*addr, deadline, stop)? {
                    Ok(socket) => return Ok(socket),
                    Err(error) => last = error,
                }
            }
            if Instant::now() + CONNECT_AGAIN >= deadline {
                return Err(Error::net("connect to", &self.label)(last).into());
            }
            wait::pause(stop, CONNECT_AGAIN)?;
        }
    }
}

/// A TCP receiver.
#[derive(Clone, Debug)]
pub struct TcpSink {
    /// Where it is.
    pub peer: Peer,
    /// How the name goes before the data.
    pub handshake: Handshake,
}

impl TcpSink {
    fn greet(&self, sender: &mut TcpSender, name: &[u8], stop: &Stop) -> Result<(), Broken> {
        match self.handshake {
            Handshake::Joined => name.clone_into(&mut sender.unsent_name),
            Handshake::Newline => sender.send(&[name, b"\n"].concat(), stop)?,
            Handshake::Gap => {
                sender.send(name, stop)?;
                wait::pause(stop, NAME_GAP)?;
            }
            Handshake::Split => {
                for segment in name.chunks(name.len().div_ceil(SPLIT_SEGMENTS).max(1)) {
                    sender.send(segment, stop)?;
                    wait::pause(stop, SPLIT_PAUSE)?;
                }
                wait::pause(stop, NAME_GAP)?;
            }
        }
        Ok(())
    }
}

impl Sink for TcpSink {
    fn open(&self, name: &[u8], stop: &Stop) -> Result<Box<dyn Sender>, Broken> {
        let socket = self.peer.connect(stop)?;
        let mut sender = TcpSender { socket, label: self.peer.label.clone(), unsent_name: Vec::new() };
        self.greet(&mut sender, name, stop)?;
        Ok(Box::new(sender))
    }
}

/// One attempt. The outer error ends the stream, the inner one only the attempt.
fn connect_once(addr: SocketAddr, deadline: Instant, stop: &Stop) -> Result<io::Result<Socket>, Broken> {
    let begin = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        match socket.connect(&addr.into()) {
            Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => Err(error),
            _ => Ok(socket),
        }
    };
    let socket = match begin() {
        Ok(socket) => socket,
        Err(error) => return Ok(Err(error)),
    };
    if !wait::writable(stop, &socket, deadline.saturating_duration_since(Instant::now()))? {
        return Ok(Err(io::ErrorKind::TimedOut.into()));
    }
    Ok(match socket.take_error() {
        Ok(None) => Ok(socket),
        Ok(Some(error)) | Err(error) => Err(error),
    })
}

/// One connection.
#[derive(Debug)]
struct TcpSender {
    socket: Socket,
    label: String,
    /// The name that waits for the first data (joined).
    unsent_name: Vec<u8>,
}

/// Sends all of it. On an error part of it may be gone.
pub fn send_all(socket: &Socket, label: &str, mut bytes: &[u8], stop: &Stop) -> Result<(), Broken> {
    while !bytes.is_empty() {
        match rustix::net::send(socket, bytes, SendFlags::NOSIGNAL) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(Errno::AGAIN) => {
                wait::writable(stop, socket, Duration::MAX)?;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(Error::net("send to", label)(error.into()).into()),
        }
    }
    Ok(())
}

impl Sender for TcpSender {
    fn send(&mut self, bytes: &[u8], stop: &Stop) -> Result<(), Broken> {
        if self.unsent_name.is_empty() {
            return send_all(&self.socket, &self.label, bytes, stop);
        }
        let mut joined = std::mem::take(&mut self.unsent_name);
        joined.extend_from_slice(bytes);
        send_all(&self.socket, &self.label, &joined, stop)
    }

    fn close(mut self: Box<Self>, how: Close, stop: &Stop) -> Result<(), Broken> {
        self.send(&[], stop)?;
        if how == Close::Reset {
            // Closing with a linger time of zero sends a reset.
            let linger = self.socket.set_linger(Some(Duration::ZERO));
            linger.map_err(Error::net("reset the stream to", &self.label))?;
        }
        Ok(())
    }
}
