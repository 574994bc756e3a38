//! What every part of the process uses: log, metrics, health, shutdown signal, threads, listening sockets, times as text,
//! and creating files.

pub(crate) mod create;
pub mod health;
pub mod hex;
pub(crate) mod json;
pub mod logging;
pub mod metrics;
pub mod net;
pub(crate) mod progress;
pub mod shutdown;
pub(crate) mod terminal;
pub(crate) mod threads;
pub(crate) mod time;
