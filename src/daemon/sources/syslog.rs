//! Syslog over UDP or TCP.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::{IngestSource, SourceContext, SourceKind, SourceOption, parse_transport, print_listening};
use crate::Result;
use crate::iri::ingest::syslog;
use crate::runtime::net;

pub(super) static SYSLOG: SourceKind = SourceKind {
    key: "syslog",
    options: &[SourceOption {
        long: "syslog",
        key: "",
        value_name: "udp|tcp:ADDR:PORT",
        env: None,
        help: "Listen for syslog on udp:ADDR:PORT or tcp:ADDR:PORT; repeatable",
    }],
    is_list: true,
    parse: |values| Ok(Arc::new(Syslog::parse(values)?)),
};

#[derive(Debug)]
enum Syslog {
    /// Each datagram is a message.
    Udp(SocketAddr),
    /// Messages are framed in a byte stream (RFC 6587).
    Tcp(SocketAddr),
}

impl Syslog {
    /// Parses `udp:ADDR:PORT` or `tcp:ADDR:PORT`.
    fn parse(values: &[&str]) -> Result<Syslog, String> {
        let (is_tcp, addr) = parse_transport(values, "syslog")?;
        Ok(if is_tcp { Syslog::Tcp(addr) } else { Syslog::Udp(addr) })
    }
}

impl fmt::Display for Syslog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Syslog::Udp(addr) => write!(f, "syslog udp {addr}"),
            Syslog::Tcp(addr) => write!(f, "syslog tcp {addr}"),
        }
    }
}

impl IngestSource for Syslog {
    fn start(&self, context: &SourceContext<'_>) -> Result<Vec<JoinHandle<Result<()>>>> {
        let config = Arc::clone(&context.syslog);
        match *self {
            Syslog::Udp(addr) => {
                let receiver = syslog::start_udp(addr, &context.listeners, config)?;
                print_listening(receiver.local_addr, "syslog transport=udp");
                Ok(receiver.threads)
            }
            Syslog::Tcp(addr) => {
                let listener = net::bind(addr)?;
                let addr = net::local_addr(&listener)?;
                let thread = syslog::start_tcp(listener, &context.listeners, config)?;
                print_listening(addr, "syslog transport=tcp");
                Ok(vec![thread])
            }
        }
    }
}
