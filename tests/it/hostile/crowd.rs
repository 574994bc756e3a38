//! Many connections at once, all from this process.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, SockRef, Socket, Type};

use crate::support::{DEADLINE, long};

/// Two crowds of the long form together would exceed the descriptor limit of one process.
static ONE: Mutex<()> = Mutex::new(());

/// Open connections, in the order of their creation.
pub(super) struct Crowd {
    pub streams: Vec<TcpStream>,
    _one: Option<MutexGuard<'static, ()>>,
}

/// Returns the number of connections: 10,000 in the long form.
pub(super) fn size() -> usize {
    if long() { 10_000 } else { 1_000 }
}

impl Crowd {
    /// Creates an empty crowd.
    pub(super) fn new() -> Crowd {
        let one = long().then(|| ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
        let maximum = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
        Crowd { streams: Vec::new(), _one: one }
    }

    /// Opens `count` more connections. Each sends what `first` returns for its number.
    #[track_caller]
    pub(super) fn come(&mut self, addr: SocketAddr, count: usize, first: impl Fn(usize) -> Vec<u8>) {
        for _ in 0..count {
            let number = self.streams.len();
            let mut stream = connect(addr, number);
            stream.write_all(&first(number)).unwrap();
            self.streams.push(stream);
        }
    }

    /// Opens `count` more connections, which may be rejected before they can send.
    #[track_caller]
    pub(super) fn come_whatever(&mut self, addr: SocketAddr, count: usize) {
        for number in 0..count {
            let mut stream = connect(addr, number);
            let _ = stream.write_all(b"one too many");
            self.streams.push(stream);
        }
    }

    /// Closes all connections.
    pub(super) fn close(&mut self) {
        self.streams.clear();
    }

    /// Resets all connections.
    pub(super) fn reset(&mut self) {
        self.streams.drain(..).for_each(reset);
    }
}

/// Connects from one of several local addresses, because one address has only 28,000 ports.
#[track_caller]
pub(super) fn connect(addr: SocketAddr, number: usize) -> TcpStream {
    connect_from(2 + (number % 8) as u8, addr)
}

/// Connects from 127.0.0.`host`.
#[track_caller]
pub(super) fn connect_from(host: u8, addr: SocketAddr) -> TcpStream {
    let from = IpAddr::V4(Ipv4Addr::new(127, 0, 0, host));
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
    // A full accept queue is not a failure: the kernel retries each second.
    socket
        .connect_timeout(&addr.into(), DEADLINE)
        .unwrap_or_else(|error| panic!("a connection from {from}: {error}"));
    socket.set_tcp_nodelay(true).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// Ends a connection with a reset.
pub(super) fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}
