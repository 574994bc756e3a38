//! Sends streams over TCP as real senders do (docs/protocol.md, section 2). Runs in the streams' threads. The
//! sockets are non-blocking, so a shutdown ends every wait.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::SendFlags;
use socket2::{Domain, Protocol, Socket, Type};

use crate::capture::formats::HEADER_BYTES_MAX;
use crate::cc::wire::handshake::{self, NameParse, Trigger};
use crate::limits::NAME_BYTES_MAX;
use crate::replay::sink::{CloseMode, Delivery, SendError, StreamSender, StreamSink};
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

/// Longest wait for the receiver to close after the last byte. A receiver closes once it has everything.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

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

/// Checks with the receiver's own parser that it finds the end of the name where it is. `start` has the first
/// [`HEADER_BYTES_MAX`] bytes of the content, or all of it.
fn check_name_end(handshake: HandshakeStyle, name: &[u8], start: &[u8]) -> Result<(), String> {
    let bytes = name.len();
    let (found, content_at) = match handshake {
        HandshakeStyle::Gap | HandshakeStyle::Split => (handshake::parse_name(name, Trigger::Silence), bytes),
        HandshakeStyle::Newline => (parse_joined(&[name, b"\n"].concat(), start), bytes + 1),
        HandshakeStyle::Joined => (parse_joined(name, start), bytes),
    };
    match found {
        NameParse::Name { name_bytes, content_at: at } if (name_bytes, at) == (bytes, content_at) => Ok(()),
        NameParse::TooLong if bytes > NAME_BYTES_MAX => {
            Err(format!("the name has {bytes} bytes, and at most {NAME_BYTES_MAX} are possible"))
        }
        NameParse::Name { name_bytes, .. } if name_bytes < bytes => Err(format!(
            "the receiver would take the first {name_bytes} bytes as the name, because a line break or the first bytes of a capture follow; choose another --name"
        )),
        _ if bytes == 0 => Err("the name is empty: give --name".to_owned()),
        _ => Err(
            "the receiver could not tell where the name ends, because the file does not start as a capture does; use --handshake newline or gap"
                .to_owned(),
        ),
    }
}

fn parse_joined(name: &[u8], start: &[u8]) -> NameParse {
    let is_whole = start.len() < HEADER_BYTES_MAX;
    let event = if is_whole { Trigger::Closed } else { Trigger::BytesReceived };
    handshake::parse_name(&[name, start].concat(), event)
}

impl StreamSink for TcpSink {
    fn check_name(&self, name: &[u8], start: &[u8]) -> Result<(), String> {
        check_name_end(self.handshake, name, start)
    }

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

    fn close(mut self: Box<Self>, how: CloseMode, shutdown: &Shutdown) -> Result<Delivery, SendError> {
        self.send(&[], shutdown)?;
        if how == CloseMode::Reset {
            // Closing with a linger time of zero sends a reset.
            let linger = self.socket.set_linger(Some(Duration::ZERO));
            linger.map_err(Error::net("reset the stream to", &self.label))?;
            return Ok(Delivery::Unknown);
        }
        self.socket
            .shutdown(std::net::Shutdown::Write)
            .map_err(Error::net("end the stream to", &self.label))?;
        self.wait_for_close(shutdown)
    }
}

impl TcpSender {
    /// Waits until the receiver closes, which it does after the last byte. A reset instead means that it has discarded
    /// bytes.
    fn wait_for_close(&mut self, shutdown: &Shutdown) -> Result<Delivery, SendError> {
        let started = Instant::now();
        loop {
            let left = CLOSE_TIMEOUT.saturating_sub(started.elapsed());
            match wait::wait_readable(shutdown, &self.socket, left) {
                Ok(true) => {}
                // Everything was sent. What the receiver has got is unknown.
                Ok(false) | Err(SendError::Stopped) => return Ok(Delivery::Unknown),
                Err(error) => return Err(error),
            }
            match self.socket.read(&mut [0; 1024]) {
                Ok(0) => return Ok(Delivery::Confirmed),
                // Receivers send nothing. Whatever it is, the end may follow.
                Ok(_) if !left.is_zero() => {}
                Ok(_) => return Ok(Delivery::Unknown),
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Err(Error::net("end the stream to", &self.label)(error).into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PCAP: &[u8] = b"\xd4\xc3\xb2\xa1\x02\x00\x04\x00";

    #[track_caller]
    fn check(handshake: HandshakeStyle, name: &[u8], start: &[u8], expected: Result<(), &str>) {
        let found = check_name_end(handshake, name, start);
        match (&found, expected) {
            (Ok(()), Ok(())) => {}
            (Err(reason), Err(part)) if reason.contains(part) => {}
            _ => panic!("{handshake:?} {}: {found:?}", name.escape_ascii()),
        }
    }

    #[test]
    fn a_name_that_the_receiver_would_not_find_is_refused() {
        use HandshakeStyle::{Gap, Joined, Newline, Split};
        for style in [Gap, Split, Newline] {
            check(style, b"call.pcap", PCAP, Ok(()));
            check(style, b"call.pcap", b"no capture", Ok(()));
            check(style, b"call.pcap", b"", Ok(()));
            check(style, b"two\nlines", PCAP, Err("the first 3 bytes"));
            check(style, b"a\xd4\xc3\xb2\xa1b", PCAP, Err("the first 1 bytes"));
            check(style, &[b'a'; 4096], PCAP, Ok(()));
            check(style, &[b'a'; 4097], PCAP, Err("the name has 4097 bytes"));
        }
        check(Gap, b"", PCAP, Err("the name is empty"));
        check(Joined, b"call.pcap", PCAP, Ok(()));
        check(Joined, b"call.pcap", b"\n\r\r\n\x1c\0\0\0\x4d\x3c\x2b\x1a", Ok(()));
        // The name would swallow some or all of the content.
        for start in [&b"no capture"[..], &[b'x'; HEADER_BYTES_MAX], &PCAP[..3], b"line\n"] {
            check(Joined, b"call.pcap", start, Err("could not tell where the name ends"));
        }
        check(Joined, b"call.pcap\n", PCAP, Err("the first 9 bytes"));
        // The end of the connection ends the name, too.
        check(Joined, b"call.pcap", b"", Ok(()));
    }
}
