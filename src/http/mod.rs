//! A small blocking HTTP/1.1 server: one thread per connection, a limit on every buffer, a deadline for every wait.
//!
//! `parse` turns bytes into requests; it is pure and gives the same result for every split of its input. `server`
//! accepts connections. `connection` reads requests, calls the [`Handler`] and writes its responses.
//! Peers are not trusted: no byte that a peer sent reaches the log, and a handler that panics does not end the server.

pub mod basic_auth;
mod chunked;
mod config;
mod connection;
mod error;
mod guard;
mod handler;
mod head;
mod limits;
mod parse;
mod request;
mod response;
mod server;
mod shared;

pub use config::HttpServerConfig;
pub use guard::{GuardError, RequestGuard, machine_names};
pub use handler::Handler;
pub use limits::RequestLimits;
pub use parse::{ParseStep, RequestParser};
pub use request::{Method, Request};
pub use response::Response;
pub use server::{HttpServer, HttpServerHandle};
