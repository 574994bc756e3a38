//! Builders of packets for tests, written after the RFC of each header.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{TcpFlags, TcpSegment, flow};
use crate::calls::endpoint::PacketPlace;

/// Pseudo-random numbers (xorshift64*).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(super) fn below(&mut self, end: u32) -> u32 {
        (((self.next() >> 32) * u64::from(end)) >> 32) as u32
    }
}

pub(super) const SOURCE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(super) const DESTINATION: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
pub(super) const SOURCE_6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
pub(super) const DESTINATION_6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
pub(super) const IP_ID: u16 = 0x1234;

pub(super) const SIP: &[u8] = b"OPTIONS sip:+447700900123@192.0.2.1 SIP/2.0\r\n\
    Via: SIP/2.0/UDP 198.51.100.2;branch=z9hG4bK1\r\nFrom: <sip:a@example.com>;tag=1\r\n\
    To: <sip:b@example.com>\r\nCall-ID: 1@example.com\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\n\
    Content-Length: 0\r\n\r\n";

/// Joins a header and what follows it.
pub(super) fn join(header: &[u8], payload: &[u8]) -> Vec<u8> {
    [header, payload].concat()
}

pub(super) fn length(bytes: usize) -> [u8; 2] {
    (bytes as u16).to_be_bytes()
}

pub(super) fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let [high, low] = ethertype.to_be_bytes();
    join(&[0x02, 0, 0, 0, 0, 2, 0x02, 0, 0, 0, 0, 1, high, low], payload)
}

pub(super) fn vlan(id: u16, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    join(&[id.to_be_bytes(), ethertype.to_be_bytes()].concat(), payload)
}

fn ones_complement_sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// IPv4 with the fragment offset in bytes.
pub(super) fn ipv4_fragment(protocol: u8, offset: usize, more: bool, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend(length(20 + payload.len()));
    header.extend(IP_ID.to_be_bytes());
    header.extend(((offset / 8) as u16 | if more { 0x2000 } else { 0 }).to_be_bytes());
    header.extend([64, protocol, 0, 0]);
    header.extend(SOURCE.octets());
    header.extend(DESTINATION.octets());
    let checksum = !ones_complement_sum(&header);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    join(&header, payload)
}

pub(super) fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv4_fragment(protocol, 0, false, payload)
}

pub(super) fn ipv6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0];
    header.extend(length(payload.len()));
    header.extend([next_header, 64]);
    header.extend(SOURCE_6.octets());
    header.extend(DESTINATION_6.octets());
    join(&header, payload)
}

pub(super) fn ipv6_fragment(next_header: u8, offset: usize, more: bool, payload: &[u8]) -> Vec<u8> {
    let [high, low] = (offset as u16 | u16::from(more)).to_be_bytes();
    ipv6(44, &join(&[next_header, 0, high, low, 0, 0, 0x12, 0x34], payload))
}

pub(super) fn udp_between(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let header = [source.to_be_bytes(), destination.to_be_bytes(), length(8 + payload.len()), [0, 0]];
    join(&header.concat(), payload)
}

pub(super) fn udp(payload: &[u8]) -> Vec<u8> {
    udp_between(5060, 5062, payload)
}

pub(super) fn tcp(sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x13, 0xc4, 0x13, 0xc6];
    header.extend(sequence.to_be_bytes());
    header.extend([0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    join(&header, payload)
}

/// MPLS label stack with the bottom flag on the last label.
pub(super) fn mpls(labels: &[u32], payload: &[u8]) -> Vec<u8> {
    let last = labels.len() - 1;
    let stack = labels.iter().enumerate().map(|(at, label)| label << 12 | u32::from(at == last) << 8 | 64);
    join(&stack.flat_map(u32::to_be_bytes).collect::<Vec<u8>>(), payload)
}

pub(super) fn pppoe(ppp: &[u8]) -> Vec<u8> {
    let [high, low] = length(ppp.len());
    join(&[0x11, 0, 0, 7, high, low], ppp)
}

pub(super) fn gre(flags: u16, protocol: u16, optional: &[u8], payload: &[u8]) -> Vec<u8> {
    join(&join(&[flags.to_be_bytes(), protocol.to_be_bytes()].concat(), optional), payload)
}

pub(super) fn vxlan(frame: &[u8]) -> Vec<u8> {
    join(&[0x08, 0, 0, 0, 0, 0, 42, 0], frame)
}

/// GTP-U G-PDU. `optional` are the bytes after the TEID that the flags ask for.
pub(super) fn gtp(flags: u8, optional: &[u8], packet: &[u8]) -> Vec<u8> {
    let [high, low] = length(optional.len() + packet.len());
    join(&join(&[0x30 | flags, 0xff, high, low, 0, 0, 0, 1], optional), packet)
}

/// IPv4 and UDP with SIP inside.
pub(super) fn sip_packet() -> Vec<u8> {
    ipv4(17, &udp(SIP))
}

pub(super) fn sip_frame() -> Vec<u8> {
    ethernet(0x0800, &sip_packet())
}

/// Name, link type and bytes of a packet for each encapsulation, all with [`SIP`] in UDP from 5060 to 5062.
pub(super) fn encapsulations() -> Vec<(&'static str, u32, Vec<u8>)> {
    let packet = &sip_packet();
    let packet_6 = &ipv6(17, &udp(SIP));
    let frame = &sip_frame();
    let over_udp = |port, payload: &[u8]| ipv4(17, &udp_between(50_000, port, payload));
    let over_ethernet: Vec<(&'static str, u16, Vec<u8>)> = vec![
        ("ipv4", 0x0800, packet.clone()),
        ("ipv6", 0x86dd, packet_6.clone()),
        ("vlan", 0x8100, vlan(5, 0x0800, packet)),
        ("802.1ad", 0x88a8, vlan(5, 0x8100, &vlan(6, 0x86dd, packet_6))),
        ("9100", 0x9100, vlan(5, 0x8100, &vlan(6, 0x0800, packet))),
        ("mpls", 0x8847, mpls(&[16, 17, 18], packet)),
        ("mpls ipv6", 0x8847, mpls(&[16], packet_6)),
        ("mpls control word", 0x8847, mpls(&[16], &join(&[0; 4], frame))),
        ("mpls ethernet", 0x8847, mpls(&[16], frame)),
        ("pppoe", 0x8864, pppoe(&join(&[0x00, 0x21], packet))),
        ("pppoe ipv6", 0x8864, pppoe(&join(&[0x00, 0x57], packet_6))),
        ("ipip", 0x0800, ipv4(4, packet)),
        ("6in4", 0x0800, ipv4(41, packet_6)),
        ("4in6", 0x86dd, ipv6(4, packet)),
        ("gre", 0x0800, ipv4(47, &gre(0, 0x0800, &[], packet))),
        ("gre key sequence", 0x0800, ipv4(47, &gre(0x3000, 0x86dd, &[0; 8], packet_6))),
        // The checksum field is left 0.
        ("gre checksum", 0x0800, ipv4(47, &gre(0xb000, 0x0800, &[0; 12], packet))),
        ("gre ethernet", 0x0800, ipv4(47, &gre(0x2000, 0x6558, &[0; 4], frame))),
        ("gre mpls", 0x0800, ipv4(47, &gre(0, 0x8847, &[], &mpls(&[16], packet)))),
        ("erspan 1", 0x0800, ipv4(47, &gre(0, 0x88be, &[], frame))),
        (
            "erspan 2",
            0x0800,
            ipv4(47, &gre(0x1000, 0x88be, &[0; 4], &join(&[0x10, 5, 0, 1, 0, 0, 0, 1], frame))),
        ),
        (
            "erspan 3",
            0x0800,
            ipv4(47, &gre(0x1000, 0x22eb, &[0; 4], &join(&[0x20, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], frame))),
        ),
        (
            "erspan 3 subheader",
            0x0800,
            ipv4(
                47,
                &gre(
                    0x1000,
                    0x22eb,
                    &[0; 4],
                    &join(&[0x20, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], frame),
                ),
            ),
        ),
        ("pptp", 0x0800, ipv4(47, &pptp(&join(&[0xff, 0x03, 0x00, 0x21], packet)))),
        ("ah", 0x0800, ipv4(51, &join(&authentication_header(17), &udp(SIP)))),
        ("ipv6 extensions", 0x86dd, ipv6(0, &ipv6_extensions(&udp(SIP)))),
        ("ipv6 atomic fragment", 0x86dd, ipv6_fragment(17, 0, false, &udp(SIP))),
        ("mpls in ip", 0x0800, ipv4(137, &mpls(&[16], packet))),
        ("vxlan", 0x0800, over_udp(4789, &vxlan(frame))),
        ("vxlan 8472", 0x0800, over_udp(8472, &vxlan(&ethernet(0x8100, &vlan(5, 0x0800, packet))))),
        ("gtp", 0x0800, over_udp(2152, &gtp(0, &[], packet))),
        ("gtp sequence", 0x0800, over_udp(2152, &gtp(2, &[0, 1, 0, 0], packet_6))),
        // A PDU session container (0x85) of 4 bytes.
        ("gtp extension", 0x0800, over_udp(2152, &gtp(4, &[0, 0, 0, 0x85, 1, 0x10, 9, 0], packet))),
        ("geneve", 0x0800, over_udp(6081, &join(&[0, 0, 0x65, 0x58, 0, 0, 42, 0], frame))),
        (
            "geneve option",
            0x0800,
            over_udp(6081, &join(&[1, 0, 0x08, 0x00, 0, 0, 42, 0, 1, 2, 3, 0], packet)),
        ),
        (
            "gtp in vxlan",
            0x0800,
            over_udp(4789, &vxlan(&ethernet(0x0800, &over_udp(2152, &gtp(0, &[], packet))))),
        ),
    ];
    let mut samples: Vec<(&'static str, u32, Vec<u8>)> = over_ethernet
        .into_iter()
        .map(|(name, ethertype, payload)| (name, 1, ethernet(ethertype, &payload)))
        .collect();
    let snap = join(&[0xaa, 0xaa, 0x03, 0, 0, 0, 0x08, 0x00], packet);
    samples.push(("snap", 1, ethernet(snap.len() as u16, &snap)));
    samples.extend(link_layers(packet, packet_6));
    samples
}

fn link_layers(packet: &[u8], packet_6: &[u8]) -> Vec<(&'static str, u32, Vec<u8>)> {
    let sll = [0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 0x08, 0x00];
    let sll_vlan = [0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 0x81, 0x00];
    let sll2 = [0x86, 0xdd, 0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0];
    vec![
        ("null little-endian", 0, join(&[2, 0, 0, 0], packet)),
        ("null big-endian", 0, join(&[0, 0, 0, 30], packet_6)),
        ("loop", 108, join(&[0, 0, 0, 2], packet)),
        ("ppp", 9, join(&[0xff, 0x03, 0x00, 0x21], packet)),
        ("ppp compressed", 9, join(&[0x21], packet)),
        ("ppp without address", 9, join(&[0x00, 0x57], packet_6)),
        ("ppp ether", 51, pppoe(&join(&[0x00, 0x21], packet))),
        ("c-hdlc", 104, join(&[0x0f, 0x00, 0x08, 0x00], packet)),
        ("raw", 101, packet.to_vec()),
        ("raw 12", 12, packet_6.to_vec()),
        ("raw 14", 14, packet.to_vec()),
        ("link ipv4", 228, packet.to_vec()),
        ("link ipv6", 229, packet_6.to_vec()),
        ("sll", 113, join(&sll, packet)),
        ("sll vlan", 113, join(&sll_vlan, &vlan(5, 0x0800, packet))),
        ("sll2", 276, join(&sll2, packet_6)),
    ]
}

/// GRE version 1 with payload length, call id, sequence and acknowledgment.
fn pptp(ppp: &[u8]) -> Vec<u8> {
    let [high, low] = length(ppp.len());
    gre(0x3081, 0x880b, &[high, low, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1], ppp)
}

/// RFC 4302 with a check value of 12 bytes.
fn authentication_header(next_header: u8) -> Vec<u8> {
    join(&[next_header, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1], &[0; 12])
}

/// Hop-by-hop (router alert), destination options (PadN of 12 bytes), routing (type 4, none left), authentication.
fn ipv6_extensions(payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![60, 0, 5, 2, 0, 0, 1, 0];
    bytes.extend([43, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend([51, 2, 4, 0, 0, 0, 0, 0]);
    bytes.extend(DESTINATION_6.octets());
    bytes.extend(authentication_header(17));
    join(&bytes, payload)
}

/// Place of the packet with this number, 1 ms after the one before.
pub(super) fn place(number: u64) -> PacketPlace {
    PacketPlace { offset: 24 + number * 100, bytes: 100, time_ns: number as i64 * 1_000_000 }
}

/// Segment from the client (192.0.2.1:40000) to the server (198.51.100.2:5060).
pub(super) fn segment(sequence: u32, flags: TcpFlags, payload: &[u8]) -> TcpSegment<'_> {
    TcpSegment {
        flow: flow(IpAddr::V4(SOURCE), 40_000, IpAddr::V4(DESTINATION), 5060),
        ip_id: 0,
        sequence,
        flags,
        payload,
        missing_bytes: 0,
    }
}
