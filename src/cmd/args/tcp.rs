//! Options for receiving streams over TCP.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use ipnet::IpNet;

use super::units;
use crate::cc::ingest::tcp::{TcpConfig, TcpTimeouts};
use crate::config::HostPort;
use crate::limits::MachineLimits;
use crate::{Error, Result};

/// Options for receiving streams over TCP.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Receiving")]
pub(crate) struct TcpArgs {
    /// Pause after which a stream's name is complete, 1ms to 1m
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = units::duration_in(1..=60_000))]
    name_timeout: Duration,
    /// Close a connection that sends nothing for this time
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = units::duration_in(1..=31_536_000_000))]
    handshake_timeout: Duration,
    /// End a stream that sends nothing for this time; 0 never does (a call may be on hold for hours)
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = units::duration)]
    idle_timeout: Duration,
    /// Maximum number of open streams [default: limited by descriptors, memory maps and threads of this machine]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    streams_max: Option<u64>,
    /// Maximum size of a stream, 0 for no limit [default: 1T; only a runaway sender reaches that]
    #[arg(long, value_name = "BYTES", default_value = "1T", hide_default_value = true, value_parser = units::bytes)]
    stream_bytes_max: u64,
    /// Accept connections only from this network; repeatable [default: all networks]
    #[arg(long, value_name = "CIDR", value_parser = parse_network)]
    allow: Vec<IpNet>,
}

/// Parses a network or an address. An IPv4-mapped IPv6 network (`::ffff:192.0.2.0/120`) becomes an IPv4 network.
fn parse_network(text: &str) -> Result<IpNet, String> {
    let network = text
        .parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| "expected a network such as 192.0.2.0/24, or an address".to_owned())?;
    let prefix_len = network.prefix_len().checked_sub(96);
    Ok(match (network.addr().to_canonical(), prefix_len) {
        (addr @ IpAddr::V4(_), Some(prefix_len)) => IpNet::new(addr, prefix_len).unwrap_or(network),
        _ => network,
    })
}

/// Resolves the address of a configured listener.
pub(crate) fn resolve_addresses(listen: &HostPort) -> Result<Vec<SocketAddr>> {
    let found = (listen.address.as_str(), listen.port).to_socket_addrs();
    Ok(found.map_err(Error::net("look up", listen))?.collect())
}

impl TcpArgs {
    /// Checks the options against the limits of the machine.
    pub(crate) fn resolve(
        self,
        listen: Vec<SocketAddr>,
        machine: MachineLimits,
        shutdown_timeout: Duration,
    ) -> TcpConfig {
        let allowed = machine.streams_max();
        let requested = self.streams_max.map(|max| usize::try_from(max).unwrap_or(usize::MAX));
        if let Some(requested) = requested.filter(|requested| *requested > allowed) {
            log::warn!("streams_max_lowered requested={requested} limit={allowed} machine={machine:?}");
        }
        TcpConfig {
            listen,
            allow: self.allow,
            streams_max: requested.unwrap_or(allowed).min(allowed),
            stream_bytes_max: if self.stream_bytes_max == 0 { u64::MAX } else { self.stream_bytes_max },
            timing: TcpTimeouts {
                name_timeout: self.name_timeout,
                handshake_timeout: self.handshake_timeout,
                idle_timeout: (!self.idle_timeout.is_zero()).then_some(self.idle_timeout),
                shutdown_timeout,
            },
        }
    }
}
