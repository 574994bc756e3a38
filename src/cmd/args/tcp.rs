//! Options for receiving streams over TCP.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use ipnet::IpNet;

use super::units;
use crate::cc::ingest::tcp::{TcpConfig, TcpTimeouts};
use crate::cc::vault::RotationLimits;
use crate::cc::wire::name_template::NameTemplate;
use crate::config::HostPort;
use crate::limits::MachineLimits;
use crate::runtime::net::peers::PeerLimits;
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
    /// End a stream that sends its name and no content for this time; 0 never does
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = units::duration)]
    content_timeout: Duration,
    /// Maximum number of open streams [default: limited by descriptors, memory maps and threads of this machine]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    streams_max: Option<u64>,
    /// Maximum number of open streams of one address, or of one IPv6 /64 network [default: 15/16 of --streams-max]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    peer_streams_max: Option<u64>,
    /// Maximum number of new stream names of one address in an hour
    #[arg(long, value_name = "N", default_value = "1000000", value_parser = clap::value_parser!(u64).range(1..))]
    peer_names_max: u64,
    /// Maximum number of bytes per second from one address, 0 for no limit
    #[arg(long, value_name = "BYTES", default_value = "0", value_parser = units::bytes)]
    peer_rate_max: u64,
    /// Maximum size of a stream, 0 for no limit [default: 1T; only a runaway sender reaches that]
    #[arg(long, value_name = "BYTES", default_value = "1T", hide_default_value = true, value_parser = units::bytes)]
    stream_bytes_max: u64,
    /// Accept connections only from this network; repeatable [default: all networks]
    #[arg(long, value_name = "CIDR", value_parser = parse_network)]
    allow: Vec<IpNet>,
    /// Name for a stream that starts without one; {peer}, {port} and {time} are filled in [default: an empty name]
    #[arg(long, value_name = "TEMPLATE", value_parser = NameTemplate::parse)]
    unnamed: Option<NameTemplate>,
    /// Go on in a new file with the first packet after this size, 64K or more; each file is a capture [default: one file]
    #[arg(long, value_name = "SIZE", value_parser = rotation_size)]
    rotate_size: Option<u64>,
    /// Go on in a new file after this time, 1s or more; each file is a capture [default: one file]
    #[arg(long, value_name = "TIME", value_parser = units::duration_in(1_000..=31_536_000_000))]
    rotate_interval: Option<Duration>,
    /// Fetch streams from this sensor (PCAP-over-IP), named by --unnamed [default: {peer}-{time}.pcap]; repeatable
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_target)]
    connect: Vec<String>,
}

/// Smallest file of a rotated stream. Smaller ones would be countless.
const ROTATION_BYTES_MIN: u64 = 64 << 10;

fn rotation_size(text: &str) -> Result<u64, String> {
    match units::bytes(text)? {
        bytes if bytes < ROTATION_BYTES_MIN => Err("too small: 64K is the least".to_owned()),
        bytes => Ok(bytes),
    }
}

/// Checks the form of `HOST:PORT`. The name is looked up when it is used.
fn parse_target(text: &str) -> Result<String, String> {
    let is_target =
        |(host, port): (&str, &str)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0);
    if text.rsplit_once(':').is_some_and(is_target) {
        Ok(text.to_owned())
    } else {
        Err("expected HOST:PORT".to_owned())
    }
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
    /// Returns true if streams are fetched from sensors, so that no listener is needed.
    pub(crate) fn has_sensors(&self) -> bool {
        !self.connect.is_empty()
    }

    /// When streams go on in a new file.
    pub(crate) fn rotation(&self) -> RotationLimits {
        RotationLimits { bytes: self.rotate_size, age: self.rotate_interval }
    }

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
        let streams_max = requested.unwrap_or(allowed).min(allowed);
        let of_peer = self.peer_streams_max.map(|max| usize::try_from(max).unwrap_or(usize::MAX));
        TcpConfig {
            listen,
            allow: self.allow,
            streams_max,
            peers: PeerLimits {
                // Some room is left for others, whatever one peer does.
                connections_max: of_peer.unwrap_or(streams_max - streams_max / 16),
                names_max: self.peer_names_max,
                bytes_per_second: (self.peer_rate_max > 0).then_some(self.peer_rate_max),
                // Streams share the buffers of a pool.
                memory_bytes_max: usize::MAX,
            },
            unnamed: self.unnamed,
            connect: self.connect,
            stream_bytes_max: if self.stream_bytes_max == 0 { u64::MAX } else { self.stream_bytes_max },
            timing: TcpTimeouts {
                name_timeout: self.name_timeout,
                handshake_timeout: self.handshake_timeout,
                idle_timeout: units::unless_zero(self.idle_timeout),
                content_timeout: units::unless_zero(self.content_timeout),
                shutdown_timeout,
            },
        }
    }
}
