//! `lea serve-tcp`: receives streams over TCP. Resolves its options in the main thread; the receiver has its own threads.

use std::net::SocketAddr;

use super::args::service::ServiceArgs;
use super::args::tcp::{self, TcpArgs};
use crate::cmd::Command;
use crate::cmd::args::globals::Globals;
use crate::manual::{self, Example, Manual};
use crate::runtime::net;
use crate::{Error, Exit, Result};

/// Receive streams over TCP
///
/// Each connection carries one stream: a name, then the bytes of a capture. Each stream becomes a file of that name in the
/// output directory, with a manifest that has its SHA-256. A growing file always ends after a complete packet, so Wireshark
/// and tshark can open it at any time.
///
/// With --connect it also connects to sensors that serve captures without a name (PCAP-over-IP), and connects again after each
/// capture. Without --listen no port is opened then.
///
/// SIGINT, SIGTERM or SIGHUP starts an orderly shutdown; a second signal exits at once.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Listen on this address; repeatable; port 0 selects a free port [default: tcpServer of the configuration]
    #[arg(short, long, value_name = "ADDR:PORT", value_parser = net::parse_listen_address)]
    listen: Vec<SocketAddr>,
    #[command(flatten)]
    service: ServiceArgs,
    #[command(flatten)]
    tcp: TcpArgs,
}

impl Command for Args {
    const MANUAL: Manual = Manual {
        success: manual::SERVER_SUCCESS,
        exits: &[manual::INTERRUPTED],
        files: &[manual::OUTPUT_FILES],
        reads_configuration: true,
        examples: &[
            Example {
                text: "Receive on port 5004 of all addresses",
                command: "lea serve-tcp --listen 0.0.0.0:5004 --output interceptions",
            },
            Example {
                text: "Accept one network, and let a group read the files",
                command: "lea serve-tcp --allow 192.0.2.0/24 --file-mode 0640 --file-group adm",
            },
            Example {
                text: "Listen, and fetch captures from a sensor too",
                command: "lea serve-tcp --listen 127.0.0.1:5004 --connect 192.0.2.7:57012 --unnamed '{peer}-{time}.pcap'",
            },
        ],
        see_also: &["lea-run(1)", "lea-ls(1)", "lea-verify(1)", "lea-replay(1)", "lea.conf(5)"],
        ..manual::EMPTY
    };

    fn run(self, globals: &Globals) -> Result<Exit> {
        let config = self.service.load_settings(globals)?.config;
        let listen = match &config.tcp {
            _ if !self.listen.is_empty() || self.tcp.has_sensors() => self.listen,
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
