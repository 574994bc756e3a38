//! Listening sockets: addresses, bind, waiting with poll(2), and the acceptor that all listeners for TCP connections share.

pub(crate) mod acceptor;
pub(crate) mod peers;
pub(crate) mod port_holder;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, Type};

use crate::runtime::shutdown::Shutdown;
use crate::{Error, Result};
use port_holder::{Transport, listen_error};

/// Connections that the kernel queues until they are accepted: enough for those that arrive while thousands of threads
/// start.
pub(crate) const BACKLOG: i32 = 4096;

/// Opens a listening socket. An IPv6 socket accepts only IPv6, so that both address families can be given.
pub fn bind(addr: SocketAddr) -> Result<TcpListener> {
    let open = || {
        let socket = socket2::Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        Ok(TcpListener::from(socket))
    };
    open().map_err(listen_error(Transport::Tcp, addr))
}

/// Returns the address of a listener, with the port that the kernel chose for port 0.
pub fn local_addr(listener: &TcpListener) -> Result<SocketAddr> {
    listener.local_addr().map_err(Error::system("read the address of a listener"))
}

/// Parses an address to listen on: `PORT` and `:PORT` mean 127.0.0.1, an IPv6 address is written in brackets. Host
/// names are rejected, because a name can have several addresses.
pub fn parse_listen_address(text: &str) -> Result<SocketAddr> {
    let port = text.strip_prefix(':').unwrap_or(text);
    // `u16::parse` alone would take `+80`.
    if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) {
        return match port.parse() {
            Ok(port) => Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)),
            Err(_) => Err(Error::Usage(format!(
                "port {port} is out of range (expected 1 to 65535, or 0 for a free port)"
            ))),
        };
    }
    let out_of_range = text.rsplit_once(':').filter(|(_, port)| is_port_out_of_range(port));
    if let Some((_, port)) = out_of_range {
        return parse_listen_address(port);
    }
    text.parse().map_err(|_| {
        let escaped = text.escape_debug();
        Error::Usage(format!("not an address to listen on: {escaped} (write PORT, ADDR:PORT or [IPV6]:PORT)"))
    })
}

fn is_port_out_of_range(port: &str) -> bool {
    !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_err()
}

/// The reason why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PollOutcome {
    /// The socket is ready or has failed; the next operation on it tells which.
    Ready,
    ShutDown,
    TimedOut,
}

/// Waits until the socket is ready, the shutdown (if given) is triggered, or the deadline has passed.
pub(crate) fn wait(
    socket: &impl AsFd,
    interest: PollFlags,
    shutdown: Option<&Shutdown>,
    until: Option<Instant>,
) -> PollOutcome {
    let mut both = [PollFd::new(socket, interest), PollFd::new(socket, PollFlags::empty())];
    let polled = match shutdown {
        Some(shutdown) => {
            both[1] = PollFd::new(shutdown, PollFlags::empty());
            &mut both[..]
        }
        None => &mut both[..1],
    };
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let timeout = left.map(|left| Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        match poll(polled, timeout.as_ref()) {
            Ok(0) => return PollOutcome::TimedOut,
            Ok(_) if polled.len() == 2 && !polled[1].revents().is_empty() => return PollOutcome::ShutDown,
            Ok(_) => return PollOutcome::Ready,
            Err(rustix::io::Errno::INTR) => {}
            // Happens only if the kernel is out of memory; the next operation on the socket reports that better.
            Err(_) => return PollOutcome::Ready,
        }
    }
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
