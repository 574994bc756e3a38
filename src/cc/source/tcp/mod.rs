//! Streams over TCP (protocol, section 2): one acceptor thread a listener, one thread a stream.

mod accept;
mod memory;
mod socket;
mod stream;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use ipnet::IpNet;
use socket2::{Domain, Protocol, Type};

use crate::cc::live::Live;
use crate::cc::vault::Vault;
use crate::counters::Counters;
use crate::logging::Throttle;
use crate::stop::Stop;
use crate::{Error, Result};

/// Connections that the kernel keeps until they are accepted: as many as come while thousands of threads start.
const BACKLOG: i32 = 4096;

/// How long things may take.
#[derive(Clone, Debug)]
pub struct Timing {
    /// Quiet that ends a name.
    pub name_gap: Duration,
    /// How long a peer may stay without a byte.
    pub handshake_timeout: Duration,
    /// How long a stream may stay silent; `None`: for ever.
    pub idle_timeout: Option<Duration>,
    /// How long a stream may go on bringing bytes after a stop was asked for.
    pub drain: Duration,
}

/// How streams are received.
#[derive(Clone, Debug)]
pub struct TcpConfig {
    /// Where to listen.
    pub listen: Vec<SocketAddr>,
    /// Peers allowed; empty: all.
    pub allow: Vec<IpNet>,
    /// Streams open at once.
    pub streams_max: usize,
    /// Bytes a stream.
    pub stream_bytes_max: u64,
    /// How long things may take.
    pub timing: Timing,
}

/// What all streams share.
struct Shared {
    vault: Vault,
    live: Arc<Live>,
    counters: Arc<Counters>,
    stop: Stop,
    timing: Timing,
    stream_bytes_max: u64,
    streams_max: usize,
    allow: Vec<IpNet>,
    throttle: Throttle,
}

/// Listeners that accept.
pub struct Receiver {
    acceptors: Vec<JoinHandle<Result<()>>>,
}

/// Opens a listening socket: IPv6 ones for IPv6 alone, so that both families can be named.
pub fn bind(addr: SocketAddr) -> Result<TcpListener> {
    let open = || {
        let socket = socket2::Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        Ok(TcpListener::from(socket))
    };
    open().map_err(Error::net("listen on", addr))
}

impl Receiver {
    /// Starts to accept on listeners that are open.
    pub fn spawn(
        listeners: Vec<TcpListener>,
        config: &TcpConfig,
        vault: Vault,
        live: Arc<Live>,
        counters: Arc<Counters>,
        stop: &Stop,
    ) -> Result<Receiver> {
        let shared = Arc::new(Shared {
            vault,
            live,
            counters,
            stop: stop.clone(),
            timing: config.timing.clone(),
            stream_bytes_max: config.stream_bytes_max,
            streams_max: config.streams_max,
            allow: config.allow.clone(),
            throttle: Throttle::default(),
        });
        let mut acceptors = Vec::new();
        for listener in listeners {
            let shared = Arc::clone(&shared);
            let acceptor = Builder::new()
                .name("tcp-accept".to_owned())
                .spawn(move || accept::run(listener, &shared))
                .map_err(Error::system("start a thread"))?;
            acceptors.push(acceptor);
        }
        Ok(Receiver { acceptors })
    }

    /// Waits until the stop was asked for and all streams have ended.
    pub fn join(self) -> Result<()> {
        let mut result = Ok(());
        for acceptor in self.acceptors {
            let ended = acceptor.join().unwrap_or_else(|_| Err(Error::Thread("tcp-accept".to_owned())));
            result = result.and(ended);
        }
        result
    }
}
