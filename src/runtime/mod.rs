//! What every part of the process uses: log, metrics, shutdown signal, threads and listening sockets.

pub mod logging;
pub mod metrics;
pub mod net;
pub(crate) mod progress;
pub mod shutdown;
pub(crate) mod terminal;
pub(crate) mod threads;
