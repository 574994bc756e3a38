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
mod handler;
mod head;
mod limits;
mod parse;
mod request;
mod response;
mod server;
mod shared;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

pub use config::HttpServerConfig;
pub(crate) use connection::wait;
pub use handler::Handler;
pub use limits::RequestLimits;
pub use parse::{ParseStep, RequestParser};
pub use request::{Method, Request};
pub use response::Response;
pub use server::{HttpServer, HttpServerHandle};

use crate::{Error, Result};

/// Parses an address to listen on: `PORT` and `:PORT` mean 127.0.0.1, an IPv6 address is written in brackets. Host
/// names are rejected, because a name can have several addresses.
pub fn parse_listen_address(text: &str) -> Result<SocketAddr> {
    let port = text.strip_prefix(':').unwrap_or(text);
    // `u16::parse` alone would take `+80`.
    if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) {
        return match port.parse() {
            Ok(port) => Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)),
            Err(_) => Err(Error::Usage(format!("not a port: {port} (write a number from 1 to 65535)"))),
        };
    }
    text.parse().map_err(|_| {
        let escaped = text.escape_debug();
        Error::Usage(format!("not an address to listen on: {escaped} (write PORT, ADDR:PORT or [IPV6]:PORT)"))
    })
}

#[cfg(test)]
mod tests {
    use super::parse_listen_address;

    fn check_address(text: &str, expected: Option<&str>) {
        let got = parse_listen_address(text).ok().map(|addr| addr.to_string());
        assert_eq!(got.as_deref(), expected, "{text:?}");
    }

    #[test]
    fn listen_addresses_are_a_port_or_an_address_with_a_port() {
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
