//! A small blocking HTTP/1.1 edge: a thread a connection, bounded, with a deadline for everything a peer does.
//!
//! `parse` turns bytes into a [`Request`] or a refusal (pure, right for every split of the input), `server` accepts,
//! `connection` reads, asks the [`Handler`] and writes, `status` is the handler behind `--status`.
//! What a peer sends is untrusted: no byte of it reaches the log, and no defect of a handler ends the server.

mod connection;
mod head;
pub mod parse;
mod process;
mod request;
mod response;
pub mod server;
pub mod status;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

pub(crate) use connection::wait;
pub use request::{Method, Request};
pub use response::Response;
pub use server::{Server, ServerConfig, ServerHandle};

use crate::{Error, Result};

/// Answers requests. Called by the thread of the connection, so by many threads at once. A call is not cut short: it
/// bounds its own time, and a stop waits for it.
pub trait Handler: Send + Sync {
    /// Answers a request whose body has been received. A panic here is answered with 500 and ends the connection.
    fn handle(&self, request: &Request) -> Response;

    /// Asked when the head is there and the body is not yet: an answer here refuses the request before its body
    /// is taken (wrong password, wrong path), and `None` lets it come. The request's body is empty here.
    fn refuse(&self, request: &Request) -> Option<Response> {
        let _ = request;
        None
    }
}

/// An address to listen on, as flags take it: `PORT` or `:PORT` is 127.0.0.1, `ADDR:PORT` is taken as given, an
/// IPv6 address stands in brackets. Names are not looked up: they may mean more than one address.
pub fn listen_address(text: &str) -> Result<SocketAddr> {
    let port = text.strip_prefix(':').unwrap_or(text);
    // `u16::parse` alone would take `+80`.
    if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) {
        return match port.parse() {
            Ok(port) => Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)),
            Err(_) => Err(Error::Usage(format!("a port is at most 65535, not {port}"))),
        };
    }
    text.parse().map_err(|_| {
        let shown = text.escape_debug();
        Error::Usage(format!("not an address to listen on: {shown} (write PORT, ADDR:PORT or [IPV6]:PORT)"))
    })
}

#[cfg(test)]
mod tests {
    use super::listen_address;

    fn check_address(text: &str, expected: Option<&str>) {
        let got = listen_address(text).ok().map(|addr| addr.to_string());
        assert_eq!(got.as_deref(), expected, "{text:?}");
    }

    #[test]
    fn addresses_to_listen_on() {
        check_address("9100", Some("127.0.0.1:9100"));
        check_address(":9100", Some("127.0.0.1:9100"));
        check_address("0", Some("127.0.0.1:0"));
        check_address("65535", Some("127.0.0.1:65535"));
        check_address("65536", None);
        check_address("99999999999999999999", None);
        check_address("0.0.0.0:80", Some("0.0.0.0:80"));
        check_address("[::1]:80", Some("[::1]:80"));
        check_address("[::]:0", Some("[::]:0"));
        check_address("::1:80", None);
        check_address("+80", None);
        check_address("-1", None);
        check_address("", None);
        check_address(":", None);
        check_address("127.0.0.1", None);
        check_address("127.0.0.1:", None);
        check_address("127.0.0.1:65536", None);
        check_address("localhost:80", None);
        check_address("80\n", None);
    }
}
