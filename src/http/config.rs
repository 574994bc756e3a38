//! Limits and timeouts of a server.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use super::limits::RequestLimits;

/// Limits and timeouts of a server.
#[derive(Clone, Debug)]
pub struct HttpServerConfig {
    /// The prefix of its threads' names: `NAME-accept`, `NAME-1` and so on. Only its first 8 bytes are used.
    pub name: &'static str,
    pub limits: RequestLimits,
    /// Open connections, one thread each. The server answers 503 to further ones.
    pub connections_max: usize,
    /// Requests on one connection. The response to the last one has `Connection: close`.
    pub requests_max: u64,
    /// Memory for the bodies of all requests and responses together. The server answers 503 beyond it.
    pub bodies_bytes_max: usize,
    /// Bytes that these bodies use now. Servers with clones of one configuration share them.
    pub bodies_bytes: Arc<AtomicUsize>,
    /// Time from the first byte of a request to its last.
    pub request_timeout_ms: u64,
    /// Time between two reads of a request.
    pub stall_timeout_ms: u64,
    /// Time that a connection may wait for a request.
    pub idle_timeout_ms: u64,
    /// Time for writing one response. A peer that reads more slowly is disconnected.
    pub write_timeout_ms: u64,
    /// Time that a request in progress has after a shutdown to be received and answered.
    pub stop_grace_ms: u64,
    /// Stack size of a connection's thread, which also runs the handler.
    pub stack_bytes: usize,
}

impl Default for HttpServerConfig {
    fn default() -> HttpServerConfig {
        HttpServerConfig {
            name: "http",
            limits: RequestLimits::default(),
            // A few hosts with slow connections do not reach it, and at 20 KiB each it costs little memory.
            connections_max: 512,
            // Large enough to make reconnects cheap. Small enough that load balancers can move a client one day.
            requests_max: 1_000_000,
            bodies_bytes_max: 64 << 20,
            bodies_bytes: Arc::default(),
            request_timeout_ms: 10_000,
            stall_timeout_ms: 10_000,
            idle_timeout_ms: 60_000,
            write_timeout_ms: 20_000,
            stop_grace_ms: 2_000,
            stack_bytes: 256 << 10,
        }
    }
}
