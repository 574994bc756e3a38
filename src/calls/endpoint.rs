//! Address and port of one side of a packet.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Address and port of one side of a packet. Smaller and faster to hash than [`std::net::SocketAddr`], which also
/// carries the flow label and scope of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    pub ip: IpAddr,
    pub port: u16,
}

impl Endpoint {
    #[cfg(test)]
    pub(crate) const UNSPECIFIED: Endpoint =
        Endpoint { ip: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), port: 0 };

    pub(crate) fn new(ip: impl Into<IpAddr>, port: u16) -> Endpoint {
        Endpoint { ip: ip.into(), port }
    }
}

/// As in `192.0.2.1:5060` and `[2001:db8::1]:5060`.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::net::SocketAddr::new(self.ip, self.port).fmt(f)
    }
}

/// Source and destination of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Flow {
    pub source: Endpoint,
    pub destination: Endpoint,
}

impl Flow {
    /// Returns the flow in the opposite direction.
    pub(crate) fn reversed(self) -> Flow {
        Flow { source: self.destination, destination: self.source }
    }

    /// Returns the flow of the RTP whose RTCP this is, if RTCP has ports of its own: each port one less (RFC 3550 section 11).
    pub(crate) fn of_rtp(self) -> Flow {
        let below = |endpoint: Endpoint| Endpoint { port: endpoint.port.wrapping_sub(1), ..endpoint };
        Flow { source: below(self.source), destination: below(self.destination) }
    }
}

/// When and where in the capture a packet was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PacketPlace {
    /// Offset of the packet's record in the capture file, in bytes.
    pub offset: u64,
    /// Length of the record including its header, in bytes.
    pub bytes: u32,
    /// Time of the packet. Nanoseconds since 1970. If the capture has none, that of the packet before it.
    pub time_ns: i64,
}
