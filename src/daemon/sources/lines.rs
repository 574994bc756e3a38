//! JSON lines over TCP: all lines on one listener, only stream content on another.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::{IngestSource, SourceContext, SourceKind, SourceOption, parse_address, print_listening};
use crate::Result;
use crate::iri::ingest::lines::{self, LineKind};
use crate::runtime::net;

pub(super) static LINES: SourceKind = SourceKind {
    key: "lines",
    options: &[SourceOption {
        long: "lines",
        key: "",
        value_name: "ADDR:PORT",
        env: None,
        help: "Listen for JSON lines with events and stream content; a bare port listens on 127.0.0.1, port 0 takes a free \
               one [usual port: 5959]",
    }],
    is_list: false,
    parse: |values| Ok(Arc::new(Lines { addr: parse_address(values)?, kind: LineKind::All })),
};

pub(super) static CONTENT_LINES: SourceKind = SourceKind {
    key: "contentLines",
    options: &[SourceOption {
        long: "content-lines",
        key: "",
        value_name: "ADDR:PORT",
        env: None,
        help: "Listen for JSON lines with stream content only [usual port: 5960]",
    }],
    is_list: false,
    parse: |values| Ok(Arc::new(Lines { addr: parse_address(values)?, kind: LineKind::Content })),
};

#[derive(Debug)]
struct Lines {
    addr: SocketAddr,
    kind: LineKind,
}

impl fmt::Display for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.addr)
    }
}

impl IngestSource for Lines {
    fn start(&self, context: &SourceContext<'_>) -> Result<Vec<JoinHandle<Result<()>>>> {
        let listener = net::bind(self.addr)?;
        let addr = net::local_addr(&listener)?;
        let thread = lines::start(
            listener,
            self.kind,
            &context.listeners,
            context.vault.clone(),
            Arc::new(context.settings.indices.clone()),
        )?;
        print_listening(addr, self.kind.as_str());
        Ok(vec![thread])
    }
}
