//! Receiver of streams over TCP (docs/protocol.md, section 2): one acceptor thread per listener, one thread
//! per stream, one thread per sensor that streams are fetched from.

mod accept;
mod connect;
mod memory;
mod socket;
mod stream;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use ipnet::IpNet;

use connect::SensorFetcher;

use crate::Result;
use crate::cc::stream_registry::StreamRegistry;
use crate::cc::vault::Vault;
use crate::cc::wire::name_template::NameTemplate;
use crate::runtime::metrics::Metrics;
use crate::runtime::net::acceptor::{self, AcceptorConfig, ListenerState};
use crate::runtime::net::peers::PeerLimits;
use crate::runtime::shutdown::Shutdown;
use crate::runtime::threads;

#[derive(Clone, Debug)]
pub(crate) struct TcpTimeouts {
    /// Silence that ends a name.
    pub name_timeout: Duration,
    /// Time for the first byte.
    pub handshake_timeout: Duration,
    /// Silence after which a stream is closed. `None`: never.
    pub idle_timeout: Option<Duration>,
    /// Time for the first byte after the name. `None`: no limit.
    pub content_timeout: Option<Duration>,
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
    /// Limits on each peer.
    pub peers: PeerLimits,
    /// Names for streams that start without one. `None`: they have the empty name.
    pub unnamed: Option<NameTemplate>,
    /// Sensors to fetch streams from, as `HOST:PORT`.
    pub connect: Vec<String>,
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
    allow: Vec<IpNet>,
    unnamed: Option<NameTemplate>,
    listener: Arc<ListenerState>,
}

/// Running receiver.
pub(crate) struct TcpReceiver {
    threads: Vec<JoinHandle<Result<()>>>,
}

impl TcpReceiver {
    /// Starts accepting on open listeners, and fetching from sensors.
    pub(crate) fn spawn(
        listeners: Vec<TcpListener>,
        config: &TcpConfig,
        vault: Vault,
        live: Arc<StreamRegistry>,
        metrics: Arc<Metrics>,
        shutdown: &Shutdown,
    ) -> Result<TcpReceiver> {
        let listener = ListenerState::new("tcp", config.streams_max, config.peers, &metrics);
        let context = Arc::new(ReceiverContext {
            vault,
            live,
            metrics,
            shutdown: shutdown.clone(),
            timing: config.timing.clone(),
            stream_bytes_max: config.stream_bytes_max,
            allow: config.allow.clone(),
            unnamed: config.unnamed.clone(),
            listener: Arc::clone(&listener),
        });
        let acceptor_config = AcceptorConfig::draining(accept::STREAM_STACK_BYTES);
        let mut acceptors = Vec::new();
        for socket in listeners {
            let (listener, context) = (Arc::clone(&listener), Arc::clone(&context));
            acceptors.push(acceptor::spawn(socket, acceptor_config, listener, context, shutdown.clone())?);
        }
        for target in &config.connect {
            let fetcher = SensorFetcher { target: target.clone(), context: Arc::clone(&context) };
            acceptors.push(threads::spawn("tcp-connect".to_owned(), move || fetcher.run())?);
        }
        Ok(TcpReceiver { threads: acceptors })
    }

    /// Waits until a shutdown was requested and all streams have ended.
    pub(crate) fn join(self) -> Result<()> {
        threads::join_all(self.threads)
    }
}
