//! State that the acceptor and the connections of one server share.

use std::net::SocketAddr;
use std::sync::Arc;

use super::config::HttpServerConfig;
use super::handler::Handler;
use crate::runtime::logging::Throttle;
use crate::runtime::metrics::Metrics;
use crate::runtime::net::acceptor::ListenerState;
use crate::runtime::shutdown::Shutdown;

pub(super) struct ServerShared {
    pub(super) config: HttpServerConfig,
    pub(super) handler: Arc<dyn Handler>,
    pub(super) shutdown: Shutdown,
    pub(super) metrics: Arc<Metrics>,
    pub(super) warnings: Throttle,
    pub(super) listener: Arc<ListenerState>,
}

impl ServerShared {
    /// Counts and logs a rejected request. `reason` is a fixed text: no byte of a peer reaches the log.
    pub(super) fn record_rejection(&self, peer: SocketAddr, reason: &'static str) {
        self.metrics.http_rejected_bad_request.inc();
        self.warnings.warn(reason, format_args!("http_rejected peer={peer} reason=\"{reason}\""));
    }
}
