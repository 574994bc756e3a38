//! The server: one acceptor thread, one thread per connection, a limit on their number.
//!
//! The acceptor never blocks on a peer. Order of a shutdown: the shutdown is triggered, the acceptor closes its
//! listener, idle connections end at once, requests in progress end within `stop_grace_ms`, the acceptor joins the
//! threads of the connections, [`HttpServerHandle::join`] joins the acceptor.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;

use super::config::HttpServerConfig;
use super::connection::Connection;
use super::handler::Handler;
use super::shared::ServerShared;
use crate::Result;
use crate::runtime::logging::Throttle;
use crate::runtime::metrics::Metrics;
use crate::runtime::net::acceptor::{self, AcceptorConfig, ConnectionHandler, ListenerState};
use crate::runtime::net::peers::{PeerLimits, PeerPermit};
use crate::runtime::shutdown::Shutdown;
use crate::runtime::{net, threads};

/// The response to a connection beyond the limit. It is sent with one write that never blocks.
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 46\r\nConnection: close\r\n\r\n503 Service Unavailable: too many connections\n";

#[derive(Debug)]
pub struct HttpServer;

/// A running server. It runs until the shutdown is triggered.
#[derive(Debug)]
#[must_use = "its threads are joined by `join`"]
pub struct HttpServerHandle {
    local_addr: SocketAddr,
    acceptor: JoinHandle<Result<()>>,
}

impl HttpServer {
    /// Starts a server on `listener` that runs until `shutdown` is triggered.
    pub fn spawn(
        listener: TcpListener,
        config: HttpServerConfig,
        handler: Arc<dyn Handler>,
        shutdown: Shutdown,
        metrics: Arc<Metrics>,
    ) -> Result<HttpServerHandle> {
        let local_addr = net::local_addr(&listener)?;
        // A peer leaves a part of the memory for bodies to others, too.
        let peers = PeerLimits {
            memory_bytes_max: config.bodies_bytes_max / 4 * 3,
            ..PeerLimits::of_connections(config.connections_max)
        };
        let state = ListenerState::new(config.name, config.connections_max, peers, &metrics);
        // After a shutdown no request from the backlog would be answered.
        let acceptor_config = AcceptorConfig { stack_bytes: config.stack_bytes, drained_backlog_max: 0 };
        let listener_state = Arc::clone(&state);
        let shared = ServerShared {
            config,
            handler,
            shutdown: shutdown.clone(),
            metrics,
            warnings: Throttle::default(),
            listener: listener_state,
        };
        let acceptor = acceptor::spawn(listener, acceptor_config, state, Arc::new(shared), shutdown)?;
        Ok(HttpServerHandle { local_addr, acceptor })
    }
}

impl HttpServerHandle {
    /// The address of the listener. If port 0 was requested, this has the port that the system chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Returns the acceptor thread, which ends after a shutdown when all connections have ended.
    pub(crate) fn into_thread(self) -> JoinHandle<Result<()>> {
        self.acceptor
    }

    /// Waits until the server has ended after a shutdown.
    pub fn join(self) -> Result<()> {
        threads::join(self.acceptor)
    }
}

impl ConnectionHandler for ServerShared {
    type Connection = (TcpStream, SocketAddr, PeerPermit);

    fn prepare(
        self: &Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        place: PeerPermit,
    ) -> Option<(TcpStream, SocketAddr, PeerPermit)> {
        Some((stream, peer, place))
    }

    fn serve(&self, (stream, peer, place): (TcpStream, SocketAddr, PeerPermit)) {
        if let Err(error) = Connection::new(stream, peer, &place, self).and_then(Connection::serve) {
            log::debug!("http_connection_ended peer={peer} error=\"{error}\"");
        }
    }

    fn limit_response(&self) -> Option<&'static [u8]> {
        Some(BUSY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busy_response_has_the_right_content_length() {
        let text = str::from_utf8(BUSY).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
    }
}
