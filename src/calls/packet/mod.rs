//! From a captured packet to SIP and RTP: headers and tunnels are peeled off, fragments and TCP streams reassembled, SIP
//! messages cut out of streams.
//!
//! Everything here is pure. [`peel`] returns slices of the packet and allocates nothing. [`Fragments`] and [`Connections`]
//! are the only state, and both are bounded. Checksums are not verified: captures of the sending host have wrong ones.

mod bytes;
mod counters;
mod detect;
mod fragments;
mod framing;
mod header_lines;
mod ip;
mod link;
mod lru_table;
#[cfg(test)]
mod samples;
mod start_line;
mod stream;
mod tcp;
#[cfg(test)]
mod tests;
mod tunnel;
mod websocket;

use std::net::IpAddr;

pub(crate) use counters::{CounterKind, PacketCounters};
pub(crate) use fragments::Fragments;
pub(crate) use start_line::looks_like_sip;
pub(crate) use tcp::{Connections, StreamMessage, StreamTransport};

use super::endpoint::{Endpoint, Flow};

/// Most encapsulations in one packet: VLAN tags, label stacks and tunnels. Real ones have up to 5 (QinQ, MPLS and GTP-U
/// over VXLAN). The limit bounds the recursion.
const ENCAPSULATIONS_MAX: u8 = 8;

/// Innermost transport segment of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peeled<'a> {
    Udp(UdpDatagram<'a>),
    Tcp(TcpSegment<'a>),
    Fragment(Fragment<'a>),
    Sctp(SctpPacket<'a>),
    Other(OtherReason),
}

/// UDP datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UdpDatagram<'a> {
    pub flow: Flow,
    /// Identification of the IPv4 header. 0 for IPv6.
    pub ip_id: u16,
    pub payload: &'a [u8],
    /// Fewer bytes were captured than the UDP length says.
    pub is_cut: bool,
}

/// TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TcpSegment<'a> {
    pub flow: Flow,
    /// Identification of the IPv4 header. 0 for IPv6.
    pub ip_id: u16,
    pub sequence: u32,
    pub flags: TcpFlags,
    pub payload: &'a [u8],
    /// Bytes of the payload that were on the wire, but not captured. They follow `payload`.
    pub missing_bytes: u32,
}

impl TcpSegment<'_> {
    pub(crate) fn is_cut(&self) -> bool {
        self.missing_bytes > 0
    }
}

/// Flags of a TCP header (RFC 9293 section 3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TcpFlags(pub u8);

impl TcpFlags {
    pub(crate) const FIN: TcpFlags = TcpFlags(0x01);
    pub(crate) const SYN: TcpFlags = TcpFlags(0x02);
    pub(crate) const RST: TcpFlags = TcpFlags(0x04);
    pub(crate) const ACK: TcpFlags = TcpFlags(0x10);

    pub(crate) fn contains(self, flag: TcpFlags) -> bool {
        self.0 & flag.0 == flag.0
    }
}

/// SCTP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SctpPacket<'a> {
    pub flow: Flow,
    /// Chunks after the common header.
    pub chunks: &'a [u8],
    pub is_cut: bool,
}

/// Fragment of an IPv4 or IPv6 datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fragment<'a> {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// IPv4 protocol, or the next header after the IPv6 fragment header.
    pub protocol: u8,
    pub id: u32,
    /// Offset of `payload` in the datagram's payload, in bytes.
    pub offset: u32,
    /// Another fragment follows.
    pub more: bool,
    pub payload: &'a [u8],
    pub is_cut: bool,
    /// Encapsulations around it, so that the limit also holds for what is inside of the datagram.
    pub encapsulations: u8,
}

/// Why a packet has no segment that is analysed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum OtherReason {
    /// The link type is unknown.
    LinkType,
    /// Not IP: ARP, LLDP, spanning tree and similar.
    NetworkProtocol,
    /// IP, but not UDP, TCP or SCTP: ICMP, ESP and similar.
    TransportProtocol,
    /// The captured bytes end inside a header.
    Truncated,
    /// A header contradicts itself or the packet's length.
    Malformed,
    /// More encapsulations than the limit.
    TooDeep,
}

/// Peels a captured packet down to its innermost transport segment. `link_type` is a LINKTYPE_ value of tcpdump.org.
pub(crate) fn peel(link_type: u32, bytes: &[u8]) -> Peeled<'_> {
    if link_type == link::ETHERNET
        && let Some(datagram) = ip::peel_plain_udp(bytes)
    {
        return Peeled::Udp(datagram);
    }
    link::peel_link(link_type, bytes).unwrap_or_else(Peeled::Other)
}

/// Peels the payload of an IP datagram.
#[cfg(test)]
pub(crate) fn peel_ip_payload(protocol: u8, source: IpAddr, destination: IpAddr, bytes: &[u8]) -> Peeled<'_> {
    let packet = ip::IpPacket { source, destination, protocol, id: 0, payload: bytes, missing_bytes: 0 };
    ip::peel_payload(packet, Depth(0)).unwrap_or_else(Peeled::Other)
}

/// Result of a layer. The error becomes [`Peeled::Other`].
type Layer<'a> = Result<Peeled<'a>, OtherReason>;

/// Number of encapsulations that were peeled.
#[derive(Clone, Copy, Debug)]
struct Depth(u8);

impl Depth {
    fn deeper(self) -> Result<Depth, OtherReason> {
        if self.0 >= ENCAPSULATIONS_MAX { Err(OtherReason::TooDeep) } else { Ok(Depth(self.0 + 1)) }
    }
}

fn flow(source: IpAddr, source_port: u16, destination: IpAddr, destination_port: u16) -> Flow {
    Flow {
        source: Endpoint { ip: source, port: source_port },
        destination: Endpoint { ip: destination, port: destination_port },
    }
}
