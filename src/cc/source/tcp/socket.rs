//! The calls on a stream's socket. `WouldBlock`, time-outs and resets become values here, in one place.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv, sockopt};

use crate::cc::vault::Probe;
use crate::stop::Stop;

/// Keepalive of a stream in use: a peer that is gone is found after 60 s + 6 x 10 s.
const KEEPALIVE: Keepalive = Keepalive { idle: 60, interval: 10, count: 6 };

/// Keepalive while another stream of the same name waits for this one's end: found after 3 s.
const PROBING: Keepalive = Keepalive { idle: 1, interval: 1, count: 2 };

struct Keepalive {
    /// Seconds of silence before the first probe.
    idle: u64,
    /// Seconds between two probes.
    interval: u64,
    /// Probes without an answer before the peer counts as gone.
    count: u32,
}

/// A stream's socket; its own thread reads, others may probe it.
#[derive(Debug)]
pub struct Socket {
    tcp: TcpStream,
    lowat: AtomicU32,
}

/// What waiting ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// Bytes, the end or an error can be read. `true`: the peer has closed its side.
    Ready(bool),
    /// Nothing came in time.
    TimedOut,
    /// A drain was asked for.
    Stopping,
}

/// What reading gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// So many bytes.
    Bytes(usize),
    /// Nothing is there now.
    Nothing,
    /// The peer closed.
    End,
    /// The peer reset the connection, or is gone.
    Reset,
}

impl Socket {
    /// Takes an accepted connection over.
    pub fn new(tcp: TcpStream) -> io::Result<Socket> {
        tcp.set_nonblocking(true)?;
        let socket = Socket { tcp, lowat: AtomicU32::new(1) };
        // Urgent data are bytes like all others: left out of line, they would be lost.
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

    /// Waits until `bytes` bytes can be read (or the end, or an error), for `timeout` (`None`: without end).
    pub fn wait(&self, bytes: usize, timeout: Option<Duration>, stop: &Stop) -> io::Result<Waited> {
        self.set_lowat(bytes)?;
        let mut fds = [
            PollFd::new(&self.tcp, PollFlags::IN | PollFlags::RDHUP),
            PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::empty()),
        ];
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) => Ok(Waited::TimedOut),
            Ok(_) if !fds[1].revents().is_empty() => Ok(Waited::Stopping),
            Ok(_) => {
                let closed = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
                Ok(Waited::Ready(fds[0].revents().intersects(closed)))
            }
            Err(Errno::INTR) => Ok(Waited::Ready(false)),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads what is there.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<Read> {
        self.receive(buffer, RecvFlags::DONTWAIT)
    }

    /// Looks at what is there, and leaves it. Never sees beyond the begin of urgent data, however much is there.
    pub fn peek(&self, buffer: &mut [u8]) -> io::Result<Read> {
        self.receive(buffer, RecvFlags::DONTWAIT | RecvFlags::PEEK)
    }

    /// Bytes that have arrived and were not read.
    pub fn unread(&self) -> u64 {
        // Asked of a socket that fails otherwise, too: then nothing is known to be there.
        rustix::io::ioctl_fionread(&self.tcp).unwrap_or(0)
    }

    fn receive(&self, buffer: &mut [u8], flags: RecvFlags) -> io::Result<Read> {
        match recv(&self.tcp, buffer, flags) {
            Ok((_, 0)) => Ok(Read::End),
            Ok((_, bytes)) => Ok(Read::Bytes(bytes)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(Read::Nothing),
            Err(
                Errno::CONNRESET
                | Errno::TIMEDOUT
                | Errno::PIPE
                | Errno::CONNABORTED
                | Errno::HOSTUNREACH
                | Errno::NETUNREACH
                | Errno::HOSTDOWN
                | Errno::NETDOWN,
            ) => Ok(Read::Reset),
            Err(error) => Err(error.into()),
        }
    }

    /// Lets poll(2) report readiness only from `bytes` bytes on.
    fn set_lowat(&self, bytes: usize) -> io::Result<()> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).max(1);
        if self.lowat.swap(bytes, Ordering::Relaxed) == bytes {
            return Ok(());
        }
        set_rcvlowat(&self.tcp, bytes)
    }
}

impl Probe for Socket {
    fn probe(&self, on: bool) {
        // A socket that cannot be set is one that has ended: that is what is to be found out.
        let _ = self.keepalive(if on { &PROBING } else { &KEEPALIVE });
    }
}

/// SO_RCVLOWAT, socket(7): neither std, socket2 nor rustix has it.
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
