//! System calls on a stream's socket. `WouldBlock`, timeouts and resets become values here, in one place.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv, sockopt};

use crate::cc::vault::PeerProbe;
use crate::runtime::shutdown::Shutdown;

/// Keepalive of a stream in use: a peer that disappeared is detected after 60 s + 6 x 10 s.
const KEEPALIVE: Keepalive = Keepalive { idle: 60, interval: 10, count: 6 };

/// Keepalive while another stream of the same name waits for this one to end: detected after 3 s.
const PROBE_KEEPALIVE: Keepalive = Keepalive { idle: 1, interval: 1, count: 2 };

struct Keepalive {
    /// Seconds of silence before the first probe.
    idle: u64,
    /// Seconds between two probes.
    interval: u64,
    /// Unanswered probes before the peer counts as gone.
    count: u32,
}

/// Socket of a stream. Its own thread reads it, other threads may probe it.
#[derive(Debug)]
pub(super) struct StreamSocket {
    tcp: TcpStream,
    min_ready_bytes: AtomicU32,
}

/// Result of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitOutcome {
    /// Bytes, the end or an error can be read. `true`: the peer has closed its side.
    Ready(bool),
    TimedOut,
    /// A shutdown was requested.
    ShuttingDown,
}

/// Result of reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SocketRead {
    /// Number of bytes read.
    Bytes(usize),
    /// No bytes are available now.
    WouldBlock,
    Eof,
    /// The peer reset the connection or disappeared.
    Reset,
}

impl StreamSocket {
    /// Takes over an accepted connection.
    pub(super) fn new(tcp: TcpStream) -> io::Result<StreamSocket> {
        tcp.set_nonblocking(true)?;
        let socket = StreamSocket { tcp, min_ready_bytes: AtomicU32::new(1) };
        // Urgent data counts as content. Out of line it would be lost.
        sockopt::set_socket_oobinline(&socket.tcp, true)?;
        sockopt::set_socket_keepalive(&socket.tcp, true)?;
        socket.keepalive(&KEEPALIVE)?;
        Ok(socket)
    }

    fn keepalive(&self, keepalive: &Keepalive) -> io::Result<()> {
        sockopt::set_tcp_keepidle(&self.tcp, Duration::from_secs(keepalive.idle))?;
        sockopt::set_tcp_keepintvl(&self.tcp, Duration::from_secs(keepalive.interval))?;
        sockopt::set_tcp_keepcnt(&self.tcp, keepalive.count)?;
        Ok(())
    }

    /// Waits until `bytes` bytes, the end or an error can be read, for at most `timeout` (`None`: no limit).
    pub(super) fn wait(
        &self,
        bytes: usize,
        timeout: Option<Duration>,
        shutdown: &Shutdown,
    ) -> io::Result<WaitOutcome> {
        self.set_min_ready_bytes(bytes)?;
        let mut fds = [
            PollFd::new(&self.tcp, PollFlags::IN | PollFlags::RDHUP),
            PollFd::from_borrowed_fd(shutdown.as_fd(), PollFlags::empty()),
        ];
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) => Ok(WaitOutcome::TimedOut),
            Ok(_) if !fds[1].revents().is_empty() => Ok(WaitOutcome::ShuttingDown),
            Ok(_) => {
                let closed = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
                Ok(WaitOutcome::Ready(fds[0].revents().intersects(closed)))
            }
            Err(Errno::INTR) => Ok(WaitOutcome::Ready(false)),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the available bytes.
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<SocketRead> {
        self.receive(buffer, RecvFlags::DONTWAIT)
    }

    /// Peeks at the available bytes. It never sees past the start of urgent data.
    pub(super) fn peek(&self, buffer: &mut [u8]) -> io::Result<SocketRead> {
        self.receive(buffer, RecvFlags::DONTWAIT | RecvFlags::PEEK)
    }

    /// Number of received bytes that were not read.
    pub(super) fn unread_bytes(&self) -> u64 {
        // This is called for sockets that already failed: then 0 is assumed.
        rustix::io::ioctl_fionread(&self.tcp).unwrap_or(0)
    }

    fn receive(&self, buffer: &mut [u8], flags: RecvFlags) -> io::Result<SocketRead> {
        match recv(&self.tcp, buffer, flags) {
            Ok((_, 0)) => Ok(SocketRead::Eof),
            Ok((_, bytes)) => Ok(SocketRead::Bytes(bytes)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(SocketRead::WouldBlock),
            Err(
                Errno::CONNRESET
                | Errno::TIMEDOUT
                | Errno::PIPE
                | Errno::CONNABORTED
                | Errno::HOSTUNREACH
                | Errno::NETUNREACH
                | Errno::HOSTDOWN
                | Errno::NETDOWN,
            ) => Ok(SocketRead::Reset),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes poll(2) report readiness only if at least `bytes` bytes are available.
    fn set_min_ready_bytes(&self, bytes: usize) -> io::Result<()> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).max(1);
        if self.min_ready_bytes.swap(bytes, Ordering::Relaxed) == bytes {
            return Ok(());
        }
        set_rcvlowat(&self.tcp, bytes)
    }
}

impl PeerProbe for StreamSocket {
    fn probe(&self, on: bool) {
        // Setting the option fails only if the connection has ended, which is what the probe is for.
        let _ = self.keepalive(if on { &PROBE_KEEPALIVE } else { &KEEPALIVE });
    }
}

/// Sets SO_RCVLOWAT, see socket(7). Neither std, socket2 nor rustix supports it.
#[allow(unsafe_code)]
fn set_rcvlowat(socket: &impl AsRawFd, bytes: u32) -> io::Result<()> {
    let value = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    // SAFETY: the pointer is to a live c_int and the length is its size, as setsockopt(2) wants for this option;
    // the descriptor is open for as long as `socket` is borrowed.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
