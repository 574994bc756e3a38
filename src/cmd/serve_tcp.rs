//! `lea serve-tcp`: receives streams over TCP.

use std::net::SocketAddr;

use super::service::{self, Service, ServiceArgs, TcpArgs};
use crate::cli::Globals;
use crate::{Error, Exit, Result};

/// Receive streams over TCP
///
/// Each connection is a stream: a name, then the bytes of a capture. Each stream becomes a file of that name in the
/// output folder, beside a manifest with its hash. A growing file always ends at a packet, so Wireshark and tshark
/// open it at any time. SIGINT, SIGTERM and SIGHUP end it in good order.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Listen here; repeatable, port 0 takes a free one [default: tcpServer of the configuration]
    #[arg(short, long, value_name = "ADDR:PORT")]
    listen: Vec<SocketAddr>,
    #[command(flatten)]
    service: ServiceArgs,
    #[command(flatten)]
    tcp: TcpArgs,
}

impl Args {
    /// Receives until a signal.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        let config = self.service.start(globals)?;
        let listen = match &config.tcp {
            _ if !self.listen.is_empty() => self.listen,
            Some(listen) => service::addresses(listen)?,
            None => {
                return Err(Error::Usage(
                    "the configuration turns TCP off (an empty address or port 0); give --listen ADDR:PORT"
                        .to_owned(),
                ));
            }
        };
        Service::resolve(self.service, Some((listen, self.tcp)), None, None)?.run()
    }
}
