//! The trait of an HTTP application.

use super::request::Request;
use super::response::Response;

/// Answers requests. The threads of all connections call it at the same time. The server never interrupts a call, and
/// a shutdown waits for it, so a handler has to limit its own time.
pub trait Handler: Send + Sync {
    /// Answers a request whose body is complete. If it panics, the server answers 500 and closes the connection.
    fn handle(&self, request: &Request) -> Response;

    /// Rejects a request by its head, before the body is read (wrong password, wrong path). `None` lets the body in.
    /// The body of `request` is empty here.
    fn reject_early(&self, request: &Request) -> Option<Response> {
        let _ = request;
        None
    }
}
