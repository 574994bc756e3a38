//! IPv4, IPv6 with its extension headers, UDP, TCP, and the dispatch to tunnels.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::bytes::{after, array_at, at_most, u8_at, u16_at, u32_at};
use super::link::peel_mpls;
use super::tunnel::{is_tunnel_port, peel_gre, peel_udp_tunnel};
use super::{
    Depth, Fragment, Layer, OtherReason, Peeled, SctpPacket, TcpFlags, TcpSegment, UdpDatagram, flow,
};

const PROTOCOL_HOP_BY_HOP: u8 = 0;
const PROTOCOL_IPV4: u8 = 4;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_IPV6: u8 = 41;
const PROTOCOL_ROUTING: u8 = 43;
const PROTOCOL_FRAGMENT: u8 = 44;
const PROTOCOL_GRE: u8 = 47;
const PROTOCOL_AH: u8 = 51;
const PROTOCOL_DESTINATION: u8 = 60;
const PROTOCOL_SCTP: u8 = 132;
const PROTOCOL_MOBILITY: u8 = 135;
const PROTOCOL_MPLS: u8 = 137;
const PROTOCOL_HIP: u8 = 139;
const PROTOCOL_SHIM6: u8 = 140;

/// Most extension headers of an IPv6 packet. RFC 8200 section 4.1 lists 7 that each occur once, and one of them twice.
const EXTENSION_HEADERS_MAX: usize = 16;

const IPV4_HEADER_BYTES: usize = 20;
const IPV6_HEADER_BYTES: usize = 40;
const UDP_HEADER_BYTES: usize = 8;
const SCTP_HEADER_BYTES: usize = 12;

/// Payload of an IP packet, with what the layers above need of its header.
#[derive(Clone, Copy, Debug)]
pub(super) struct IpPacket<'a> {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    /// Identification of IPv4. 0 for IPv6.
    pub id: u16,
    pub payload: &'a [u8],
    /// Bytes after `payload` that were not captured.
    pub missing_bytes: u32,
}

/// Peels the packet that most captures consist of: Ethernet, IPv4 without options, UDP. Anything else returns `None` and is
/// peeled layer by layer, with the same result for the same packet.
#[inline]
pub(super) fn peel_plain_udp(bytes: &[u8]) -> Option<UdpDatagram<'_>> {
    const HEADERS_BYTES: usize = 14 + IPV4_HEADER_BYTES + UDP_HEADER_BYTES;
    let (headers, payload) = bytes.split_first_chunk::<HEADERS_BYTES>()?;
    #[rustfmt::skip]
    let [_, _, _, _, _, _, _, _, _, _, _, _, 0x08, 0x00,
         0x45, _, l0, l1, i0, i1, f0, f1, _, PROTOCOL_UDP, _, _, s0, s1, s2, s3, d0, d1, d2, d3,
         sp0, sp1, dp0, dp1, u0, u1, _, _] = *headers else { return None };
    let destination_port = u16::from_be_bytes([dp0, dp1]);
    let udp_bytes = usize::from(u16::from_be_bytes([u0, u1]));
    let ip_bytes = usize::from(u16::from_be_bytes([l0, l1]));
    // More fragments, fragment offset. A length of IP that is not 20 more than that of UDP is left to the slow path.
    if (f0 & 0x3f) | f1 != 0
        || udp_bytes < UDP_HEADER_BYTES
        || ip_bytes != udp_bytes + IPV4_HEADER_BYTES
        || is_tunnel_port(destination_port)
    {
        return None;
    }
    let payload_bytes = udp_bytes - UDP_HEADER_BYTES;
    Some(UdpDatagram {
        flow: flow(
            IpAddr::V4(Ipv4Addr::new(s0, s1, s2, s3)),
            u16::from_be_bytes([sp0, sp1]),
            IpAddr::V4(Ipv4Addr::new(d0, d1, d2, d3)),
            destination_port,
        ),
        ip_id: u16::from_be_bytes([i0, i1]),
        payload: at_most(payload, payload_bytes),
        is_cut: payload.len() < payload_bytes,
    })
}

/// Peels an IP packet of either version.
pub(super) fn peel_ip(bytes: &[u8], depth: Depth) -> Layer<'_> {
    match u8_at(bytes, 0)? >> 4 {
        4 => peel_ipv4(bytes, depth),
        6 => peel_ipv6(bytes, depth),
        _ => Err(OtherReason::Malformed),
    }
}

/// Reports whether the lengths of an IPv4 header agree with each other.
pub(super) fn looks_like_ipv4(bytes: &[u8]) -> bool {
    let (Ok(first), Ok(total)) = (u8_at(bytes, 0), u16_at(bytes, 2)) else { return false };
    let header_bytes = u16::from(first & 0x0f) * 4;
    first >> 4 == 4 && header_bytes >= 20 && (total == 0 || total >= header_bytes)
}

/// Splits what follows an IP header into captured and missing bytes. What is longer than the header says is padding of
/// Ethernet. Segmentation offload leaves a length of 0 in the headers that a capture of the sending host sees: then the
/// payload goes to the end.
fn split_payload(bytes: &[u8], length: Option<usize>) -> (&[u8], u32) {
    match length {
        None => (bytes, 0),
        Some(length) => {
            let missing = length.saturating_sub(bytes.len());
            (at_most(bytes, length), u32::try_from(missing).unwrap_or(u32::MAX))
        }
    }
}

/// IPv4 (RFC 791 section 3.1).
fn peel_ipv4(bytes: &[u8], depth: Depth) -> Layer<'_> {
    let header: [u8; IPV4_HEADER_BYTES] = array_at(bytes, 0)?;
    let header_bytes = usize::from(u8_at(&header, 0)? & 0x0f) * 4;
    let total_bytes = usize::from(u16_at(&header, 2)?);
    if header_bytes < IPV4_HEADER_BYTES || (total_bytes != 0 && total_bytes < header_bytes) {
        return Err(OtherReason::Malformed);
    }
    let length = (total_bytes != 0).then(|| total_bytes - header_bytes);
    let (payload, missing_bytes) = split_payload(after(bytes, header_bytes)?, length);
    let flags_and_offset = u16_at(&header, 6)?;
    let packet = IpPacket {
        source: IpAddr::V4(Ipv4Addr::from(array_at::<4>(&header, 12)?)),
        destination: IpAddr::V4(Ipv4Addr::from(array_at::<4>(&header, 16)?)),
        protocol: u8_at(&header, 9)?,
        id: u16_at(&header, 4)?,
        payload,
        missing_bytes,
    };
    let more = flags_and_offset & 0x2000 != 0;
    let offset = u32::from(flags_and_offset & 0x1fff) * 8;
    if more || offset != 0 {
        return Ok(fragment(&packet, u32::from(packet.id), offset, more, depth));
    }
    peel_payload(packet, depth)
}

/// IPv6 (RFC 8200 section 3).
fn peel_ipv6(bytes: &[u8], depth: Depth) -> Layer<'_> {
    let header: [u8; IPV6_HEADER_BYTES] = array_at(bytes, 0)?;
    let length = usize::from(u16_at(&header, 4)?);
    let (payload, missing_bytes) =
        split_payload(after(bytes, IPV6_HEADER_BYTES)?, (length != 0).then_some(length));
    let packet = IpPacket {
        source: IpAddr::V6(Ipv6Addr::from(array_at::<16>(&header, 8)?)),
        destination: IpAddr::V6(Ipv6Addr::from(array_at::<16>(&header, 24)?)),
        protocol: u8_at(&header, 6)?,
        id: 0,
        payload,
        missing_bytes,
    };
    peel_payload(packet, depth)
}

fn fragment<'a>(packet: &IpPacket<'a>, id: u32, offset: u32, more: bool, depth: Depth) -> Peeled<'a> {
    Peeled::Fragment(Fragment {
        source: packet.source,
        destination: packet.destination,
        protocol: packet.protocol,
        id,
        offset,
        more,
        payload: packet.payload,
        is_cut: packet.missing_bytes > 0,
        encapsulations: depth.0,
    })
}

/// Peels extension headers, then a transport segment or a tunnel.
pub(super) fn peel_payload(mut packet: IpPacket<'_>, depth: Depth) -> Layer<'_> {
    for _ in 0..EXTENSION_HEADERS_MAX {
        let bytes = packet.payload;
        let header_bytes = match packet.protocol {
            PROTOCOL_UDP => return peel_udp(&packet, depth),
            PROTOCOL_TCP => return peel_tcp(&packet),
            PROTOCOL_SCTP => return peel_sctp(&packet),
            PROTOCOL_IPV4 | PROTOCOL_IPV6 => return peel_ip(bytes, depth.deeper()?),
            PROTOCOL_GRE => return peel_gre(bytes, depth.deeper()?),
            PROTOCOL_MPLS => return peel_mpls(bytes, depth.deeper()?),
            PROTOCOL_HOP_BY_HOP | PROTOCOL_ROUTING | PROTOCOL_DESTINATION | PROTOCOL_MOBILITY
            | PROTOCOL_HIP | PROTOCOL_SHIM6 => usize::from(u8_at(bytes, 1)?) * 8 + 8,
            // RFC 4302 section 2.2: in units of 4 bytes, minus 2.
            PROTOCOL_AH => usize::from(u8_at(bytes, 1)?) * 4 + 8,
            PROTOCOL_FRAGMENT => 8,
            _ => return Err(OtherReason::TransportProtocol),
        };
        let is_fragment_header = packet.protocol == PROTOCOL_FRAGMENT;
        packet.protocol = u8_at(bytes, 0)?;
        packet.payload = after(bytes, header_bytes)?;
        if is_fragment_header {
            let offset_and_more = u16_at(bytes, 2)?;
            let offset = u32::from(offset_and_more & 0xfff8);
            let more = offset_and_more & 1 != 0;
            // An atomic fragment (RFC 6946) is the whole datagram.
            if more || offset != 0 {
                return Ok(fragment(&packet, u32_at(bytes, 4)?, offset, more, depth));
            }
        }
    }
    Err(OtherReason::TooDeep)
}

/// UDP (RFC 768).
fn peel_udp<'a>(packet: &IpPacket<'a>, depth: Depth) -> Layer<'a> {
    let [s0, s1, d0, d1, l0, l1, _, _] = array_at(packet.payload, 0)?;
    let udp_bytes = usize::from(u16::from_be_bytes([l0, l1]));
    let captured = after(packet.payload, UDP_HEADER_BYTES)?;
    let (payload, is_cut) = match udp_bytes {
        0 => (captured, packet.missing_bytes > 0),
        1..UDP_HEADER_BYTES => return Err(OtherReason::Malformed),
        _ => {
            let payload_bytes = udp_bytes - UDP_HEADER_BYTES;
            (at_most(captured, payload_bytes), captured.len() < payload_bytes)
        }
    };
    let destination_port = u16::from_be_bytes([d0, d1]);
    if is_tunnel_port(destination_port)
        && let Some(inner) = peel_udp_tunnel(destination_port, payload, depth)
    {
        return inner;
    }
    Ok(Peeled::Udp(UdpDatagram {
        flow: flow(packet.source, u16::from_be_bytes([s0, s1]), packet.destination, destination_port),
        ip_id: packet.id,
        payload,
        is_cut,
    }))
}

/// TCP (RFC 9293 section 3.1).
fn peel_tcp<'a>(packet: &IpPacket<'a>) -> Layer<'a> {
    const TCP_HEADER_BYTES: usize = 20;
    let header: [u8; TCP_HEADER_BYTES] = array_at(packet.payload, 0)?;
    let header_bytes = usize::from(u8_at(&header, 12)? >> 4) * 4;
    if header_bytes < TCP_HEADER_BYTES {
        return Err(OtherReason::Malformed);
    }
    // Options that were not captured leave no payload.
    let cut_options = u32::try_from(header_bytes.saturating_sub(packet.payload.len())).unwrap_or(u32::MAX);
    if cut_options > packet.missing_bytes {
        return Err(OtherReason::Malformed);
    }
    Ok(Peeled::Tcp(TcpSegment {
        flow: flow(packet.source, u16_at(&header, 0)?, packet.destination, u16_at(&header, 2)?),
        ip_id: packet.id,
        sequence: u32_at(&header, 4)?,
        flags: TcpFlags(u8_at(&header, 13)?),
        payload: packet.payload.get(header_bytes..).unwrap_or_default(),
        missing_bytes: packet.missing_bytes - cut_options,
    }))
}

/// SCTP common header (RFC 9260 section 3.1).
fn peel_sctp<'a>(packet: &IpPacket<'a>) -> Layer<'a> {
    Ok(Peeled::Sctp(SctpPacket {
        flow: flow(packet.source, u16_at(packet.payload, 0)?, packet.destination, u16_at(packet.payload, 2)?),
        chunks: after(packet.payload, SCTP_HEADER_BYTES)?,
        is_cut: packet.missing_bytes > 0,
    }))
}
