//! Receiver of streams over TCP (docs/protocol.md, section 2): one acceptor thread per listener, one thread
//! per stream.

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

use crate::cc::stream_registry::StreamRegistry;
use crate::cc::vault::Vault;
use crate::runtime::logging::Throttle;
use crate::runtime::metrics::Metrics;
use crate::runtime::shutdown::Shutdown;
use crate::{Error, Result};

/// Length of the kernel's accept queue: enough for the connections that arrive while thousands of threads
/// start.
const BACKLOG: i32 = 4096;

#[derive(Clone, Debug)]
pub(crate) struct TcpTimeouts {
    /// Silence that ends a name.
    pub name_timeout: Duration,
    /// Time for the first byte.
    pub handshake_timeout: Duration,
    /// Silence after which a stream is closed. `None`: never.
    pub idle_timeout: Option<Duration>,
    /// Time for which streams are read after a shutdown was requested.
    pub shutdown_timeout: Duration,
}

/// Configuration of the receiver.
#[derive(Clone, Debug)]
pub(crate) struct TcpConfig {
    /// Listening addresses.
    pub listen: Vec<SocketAddr>,
    /// Allowed peers. Empty: all.
    pub allow: Vec<IpNet>,
    /// Maximum number of open streams.
    pub streams_max: usize,
    /// Maximum size of a stream.
    pub stream_bytes_max: u64,
    pub timing: TcpTimeouts,
}

/// State shared by all streams of the receiver.
struct ReceiverContext {
    vault: Vault,
    live: Arc<StreamRegistry>,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
    timing: TcpTimeouts,
    stream_bytes_max: u64,
    streams_max: usize,
    allow: Vec<IpNet>,
    throttle: Throttle,
}

/// Running receiver.
pub(crate) struct TcpReceiver {
    acceptors: Vec<JoinHandle<Result<()>>>,
}

/// Opens a listening socket. IPv6 sockets are IPv6-only, so that both address families can be configured
/// separately.
pub(crate) fn bind(addr: SocketAddr) -> Result<TcpListener> {
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

impl TcpReceiver {
    /// Starts accepting on open listeners.
    pub(crate) fn spawn(
        listeners: Vec<TcpListener>,
        config: &TcpConfig,
        vault: Vault,
        live: Arc<StreamRegistry>,
        metrics: Arc<Metrics>,
        shutdown: &Shutdown,
    ) -> Result<TcpReceiver> {
        let shared = Arc::new(ReceiverContext {
            vault,
            live,
            metrics,
            shutdown: shutdown.clone(),
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
        Ok(TcpReceiver { acceptors })
    }

    /// Waits until a shutdown was requested and all streams have ended.
    pub(crate) fn join(self) -> Result<()> {
        let mut result = Ok(());
        for acceptor in self.acceptors {
            let ended = acceptor.join().unwrap_or_else(|_| Err(Error::Thread("tcp-accept".to_owned())));
            result = result.and(ended);
        }
        result
    }
}
