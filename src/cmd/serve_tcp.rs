//! `lea serve-tcp`: receives streams over TCP. Resolves its options in the main thread; the receiver has its own threads.

use std::net::SocketAddr;

use super::args::service::ServiceArgs;
use super::args::tcp::{self, TcpArgs};
use crate::cli::Globals;
use crate::{Error, Exit, Result};

/// Receive streams over TCP
///
/// Each connection carries one stream: a name, then the bytes of a capture. Each stream becomes a file of that name in the
/// output directory, with a manifest that has its SHA-256. A growing file always ends after a complete packet, so Wireshark
/// and tshark can open it at any time.
///
/// SIGINT, SIGTERM or SIGHUP starts an orderly shutdown; a second signal exits at once.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Listen on this address; repeatable; port 0 selects a free port [default: tcpServer of the configuration]
    #[arg(short, long, value_name = "ADDR:PORT")]
    listen: Vec<SocketAddr>,
    #[command(flatten)]
    service: ServiceArgs,
    #[command(flatten)]
    tcp: TcpArgs,
}

impl Args {
    pub(crate) fn run(self, globals: &Globals) -> Result<Exit> {
        let config = self.service.load_settings(globals)?.config;
        let listen = match &config.tcp {
            _ if !self.listen.is_empty() => self.listen,
            Some(listen) => tcp::resolve_addresses(listen)?,
            None => {
                return Err(Error::Usage(
                    "nothing to listen on: tcpServer of the configuration has an empty address or port 0; give --listen ADDR:PORT"
                        .to_owned(),
                ));
            }
        };
        self.service.resolve(Some((listen, self.tcp)), None, None)?.run()
    }
}
