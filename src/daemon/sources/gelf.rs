//! GELF over UDP or TCP.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::{IngestSource, SourceContext, SourceKind, SourceOption, parse_transport, print_listening};
use crate::Result;
use crate::iri::ingest::gelf;
use crate::runtime::net;

pub(super) static GELF: SourceKind = SourceKind {
    key: "gelf",
    options: &[SourceOption {
        long: "gelf",
        key: "",
        value_name: "udp|tcp:ADDR:PORT",
        env: None,
        help: "Listen for GELF on udp:ADDR:PORT or tcp:ADDR:PORT; repeatable [usual port: 12201]",
    }],
    is_list: true,
    parse: |values| {
        let (is_tcp, addr) = parse_transport(values, "GELF")?;
        Ok(Arc::new(Gelf { is_tcp, addr }))
    },
};

#[derive(Debug)]
struct Gelf {
    /// True: messages end with a NUL in a byte stream. False: datagrams.
    is_tcp: bool,
    addr: SocketAddr,
}

impl fmt::Display for Gelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gelf {} {}", if self.is_tcp { "tcp" } else { "udp" }, self.addr)
    }
}

impl IngestSource for Gelf {
    fn start(&self, context: &SourceContext<'_>) -> Result<Vec<JoinHandle<Result<()>>>> {
        let index: Arc<str> = context.settings.indices.syslog.as_str().into();
        if !self.is_tcp {
            let receiver = gelf::start_udp(self.addr, &context.listeners, index)?;
            print_listening(receiver.local_addr, "gelf transport=udp");
            return Ok(receiver.threads);
        }
        let listener = net::bind(self.addr)?;
        let addr = net::local_addr(&listener)?;
        let thread = gelf::start_tcp(listener, &context.listeners, index)?;
        print_listening(addr, "gelf transport=tcp");
        Ok(vec![thread])
    }
}
