//! Tests of peeling: each encapsulation, each prefix, damaged packets, and the captures of testdata.

use std::net::IpAddr;

use super::samples::*;
use super::*;

const ETHERNET: u32 = 1;

#[track_caller]
fn udp_of(peeled: Peeled<'_>) -> UdpDatagram<'_> {
    match peeled {
        Peeled::Udp(datagram) => datagram,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_encapsulation_is_peeled_to_the_innermost_datagram() {
    for (name, link_type, bytes) in encapsulations() {
        let Peeled::Udp(datagram) = peel(link_type, &bytes) else {
            panic!("{name}: {:?}", peel(link_type, &bytes))
        };
        assert_eq!(datagram.payload, SIP, "{name}");
        assert_eq!((datagram.flow.source.port, datagram.flow.destination.port), (5060, 5062), "{name}");
        match datagram.flow.source.ip {
            IpAddr::V4(ip) => assert_eq!((ip, datagram.ip_id), (SOURCE, IP_ID), "{name}"),
            IpAddr::V6(ip) => assert_eq!((ip, datagram.ip_id), (SOURCE_6, 0), "{name}"),
        }
        assert!(!datagram.is_cut, "{name}");
    }
}

#[test]
fn a_packet_that_is_cut_anywhere_is_never_taken_for_a_whole_one() {
    for (name, link_type, bytes) in encapsulations() {
        for end in 0..bytes.len() {
            if let Peeled::Udp(datagram) = peel(link_type, &bytes[..end]) {
                assert!(datagram.is_cut, "{name} {end}");
                // A tunnel whose inner header is cut is left as UDP.
                let is_inner = datagram.flow.destination.port == 5062;
                assert!(!is_inner || SIP.starts_with(datagram.payload), "{name} {end}");
            }
        }
    }
}

#[test]
fn damaged_packets_do_not_panic() {
    let mut random = Random::new(1);
    let mut counters = PacketCounters::default();
    for (_, link_type, bytes) in encapsulations() {
        for _ in 0..2_000 {
            let mut damaged = bytes.clone();
            for _ in 0..=random.below(6) {
                let at = random.below(damaged.len().min(120) as u32) as usize;
                damaged[at] = random.next() as u8;
            }
            damaged.truncate(random.below(bytes.len() as u32 * 2) as usize);
            counters.count(&peel(link_type, &damaged));
        }
    }
    for _ in 0..100_000 {
        let bytes: Vec<u8> = (0..random.below(80)).map(|_| random.next() as u8).collect();
        counters.count(&peel(random.below(300), &bytes));
        counters.count(&peel_ip_payload(
            random.next() as u8,
            IpAddr::V4(SOURCE),
            IpAddr::V4(DESTINATION),
            &bytes,
        ));
    }
    assert!(counters.packets_malformed > 0 && counters.packets_truncated > 0);
}

#[test]
fn the_fast_path_agrees_with_the_layers() {
    let mut random = Random::new(2);
    let mut fast = 0;
    for _ in 0..200_000 {
        let mut bytes = sip_frame();
        for _ in 0..random.below(3) {
            bytes[12 + random.below(30) as usize] = random.next() as u8;
        }
        bytes.truncate(30 + random.below(bytes.len() as u32) as usize);
        if let Some(datagram) = ip::peel_plain_udp(&bytes) {
            assert_eq!(link::peel_link(ETHERNET, &bytes), Ok(Peeled::Udp(datagram)));
            fast += 1;
        }
    }
    assert!(fast > 50_000, "{fast}");
}

#[test]
fn ethernet_padding_is_trimmed() {
    let mut bytes = ethernet(0x0800, &ipv4(17, &udp(b"abc")));
    bytes.resize(60, 0xee);
    let datagram = udp_of(peel(ETHERNET, &bytes));
    assert_eq!((datagram.payload, datagram.is_cut), (&b"abc"[..], false));
    let mut bytes = ethernet(0x0800, &ipv4(6, &tcp(7, 0x10, b"")));
    bytes.resize(60, 0xee);
    assert!(matches!(peel(ETHERNET, &bytes), Peeled::Tcp(segment) if segment.payload.is_empty()));
}

#[test]
fn lengths_of_0_mean_the_rest_of_the_packet() {
    let mut bytes = ethernet(0x0800, &ipv4(17, &udp(SIP)));
    bytes[16..18].fill(0);
    assert_eq!(udp_of(peel(ETHERNET, &bytes)).payload, SIP);
    bytes[38..40].fill(0);
    assert_eq!(udp_of(peel(ETHERNET, &bytes)).payload, SIP);
    let mut bytes = ethernet(0x86dd, &ipv6(6, &tcp(7, 0x18, SIP)));
    bytes[18..20].fill(0);
    assert!(matches!(peel(ETHERNET, &bytes), Peeled::Tcp(segment) if segment.payload == SIP));
}

#[test]
fn cut_packets_are_marked() {
    let bytes = sip_frame();
    let datagram = udp_of(peel(ETHERNET, &bytes[..96]));
    assert_eq!((datagram.payload, datagram.is_cut), (&SIP[..96 - 42], true));
    let bytes = ethernet(0x0800, &ipv4(6, &tcp(7, 0x18, SIP)));
    let Peeled::Tcp(segment) = peel(ETHERNET, &bytes[..96]) else { panic!() };
    assert_eq!((segment.payload, segment.missing_bytes), (&SIP[..96 - 54], (SIP.len() - 42) as u32));
    assert!(segment.is_cut());
    assert_eq!(peel(ETHERNET, &bytes[..53]), Peeled::Other(OtherReason::Truncated));
}

#[test]
fn tcp_and_sctp_headers_are_read() {
    let bytes = ethernet(0x0800, &ipv4(6, &tcp(0xfedc_ba98, 0x18, SIP)));
    let Peeled::Tcp(segment) = peel(ETHERNET, &bytes) else { panic!() };
    assert_eq!((segment.sequence, segment.flags, segment.ip_id), (0xfedc_ba98, TcpFlags(0x18), IP_ID));
    assert_eq!((segment.flow.source.port, segment.flow.destination.port), (5060, 5062));
    let sctp = [0x13, 0xc4, 0x13, 0xc6, 0, 0, 0, 1, 0, 0, 0, 0, 0, 3, 0, 20];
    let bytes = ethernet(0x0800, &ipv4(132, &sctp));
    let Peeled::Sctp(packet) = peel(ETHERNET, &bytes) else { panic!() };
    assert_eq!((packet.flow.source.port, packet.chunks), (5060, &[0, 3, 0, 20][..]));
}

#[test]
fn fragments_are_returned_with_their_offset() {
    let bytes = ethernet(0x0800, &ipv4_fragment(17, 1480, true, &[1; 16]));
    let Peeled::Fragment(fragment) = peel(ETHERNET, &bytes) else { panic!() };
    assert_eq!((fragment.id, fragment.offset, fragment.more), (u32::from(IP_ID), 1480, true));
    let bytes = ethernet(0x86dd, &ipv6_fragment(17, 1448, false, &[1; 10]));
    let Peeled::Fragment(fragment) = peel(ETHERNET, &bytes) else { panic!() };
    assert_eq!((fragment.id, fragment.offset, fragment.more), (0x1234, 1448, false));
    assert_eq!((fragment.protocol, fragment.payload), (17, &[1; 10][..]));
}

#[test]
fn a_tunnel_port_with_something_else_inside_is_ordinary_udp() {
    let rtp: Vec<u8> = [0x80, 8, 0, 1, 0, 0, 0, 160, 1, 2, 3, 4].into_iter().chain([0xd5; 160]).collect();
    // VXLAN with ARP, GTP-U echo request.
    let arp = vxlan(&ethernet(0x0806, &[0; 28]));
    let echo = [0x32, 1, 0, 4, 0, 0, 0, 0, 0, 1, 0, 0];
    for port in [4789, 8472, 2152, 6081] {
        for payload in [&rtp[..], &arp, &echo, SIP, b""] {
            let bytes = ethernet(0x0800, &ipv4(17, &udp_between(6000, port, payload)));
            assert_eq!(udp_of(peel(ETHERNET, &bytes)).payload, payload, "{port}");
        }
    }
    // ICMP inside is an IP packet.
    let icmp = vxlan(&ethernet(0x0800, &ipv4(1, &[8, 0, 0, 0])));
    let bytes = ethernet(0x0800, &ipv4(17, &udp_between(6000, 4789, &icmp)));
    assert_eq!(peel(ETHERNET, &bytes), Peeled::Other(OtherReason::TransportProtocol));
}

#[test]
fn encapsulations_have_a_limit() {
    let nested = |depth| (0..depth).fold(sip_packet(), |packet, _| ipv4(4, &packet));
    assert_eq!(udp_of(peel(101, &nested(ENCAPSULATIONS_MAX))).payload, SIP);
    assert_eq!(peel(101, &nested(ENCAPSULATIONS_MAX + 1)), Peeled::Other(OtherReason::TooDeep));
    let labels = |count| ethernet(0x8847, &mpls(&vec![16; count], &sip_packet()));
    assert_eq!(udp_of(peel(ETHERNET, &labels(16))).payload, SIP);
    assert_eq!(peel(ETHERNET, &labels(17)), Peeled::Other(OtherReason::TooDeep));
    let extensions = |count: usize| {
        let mut bytes: Vec<u8> = [60, 0, 1, 4, 0, 0, 0, 0].repeat(count);
        bytes[8 * (count - 1)] = 17;
        ipv6(60, &join(&bytes, &udp(SIP)))
    };
    assert_eq!(udp_of(peel(101, &extensions(15))).payload, SIP);
    assert_eq!(peel(101, &extensions(16)), Peeled::Other(OtherReason::TooDeep));
    let gtp_extensions = |count: usize| {
        let mut optional = vec![0, 0, 0];
        optional.extend([0x85, 1, 0x10, 9].repeat(count));
        optional.push(0);
        ipv4(17, &udp_between(6000, 2152, &gtp(4, &optional, &sip_packet())))
    };
    assert_eq!(udp_of(peel(101, &gtp_extensions(15))).flow.destination.port, 5062);
    assert_eq!(udp_of(peel(101, &gtp_extensions(16))).flow.destination.port, 2152);
}

#[test]
fn what_is_not_analysed_has_a_reason() {
    let check = |bytes: &[u8], reason| assert_eq!(peel(ETHERNET, bytes), Peeled::Other(reason));
    check(&ethernet(0x0806, &[0; 28]), OtherReason::NetworkProtocol);
    check(&ethernet(0x0026, &[0x42, 0x42, 3, 0, 0, 0, 0, 0]), OtherReason::NetworkProtocol);
    check(&ethernet(0x0800, &ipv4(1, &[8, 0])), OtherReason::TransportProtocol);
    check(&ethernet(0x0800, &ipv4(50, &[0; 40])), OtherReason::TransportProtocol);
    check(&ethernet(0x0800, &[0x41; 40]), OtherReason::Malformed);
    check(&[], OtherReason::Truncated);
    assert_eq!(peel(105, &sip_frame()), Peeled::Other(OtherReason::LinkType));
}

#[test]
fn counters_have_names_and_limits_add_up() {
    let mut counters = PacketCounters { fragments_cut: 3, ..PacketCounters::default() };
    counters.count(&Peeled::Other(OtherReason::TooDeep));
    assert_eq!(counters.cut_off(), 1);
    let row = counters.rows().into_iter().find(|row| row.0 == "fragments_cut").unwrap();
    assert_eq!((row.1, row.3), (CounterKind::Damage, 3));
}

/// Numbers of packets and of SIP messages, as `tshark -z io,phs` counts them.
#[test]
fn captures_of_testdata_have_the_packets_that_tshark_counts() {
    for (name, packets, sip) in
        [("answered-call.pcap", 506, 6), ("rejected-call.pcap", 4, 4), ("three-calls.pcapng", 1518, 18)]
    {
        let captured = crate::calls::samples::packets(&format!("pcap/{name}"));
        let datagrams: Vec<UdpDatagram<'_>> =
            captured.iter().map(|(_, link_type, bytes)| udp_of(peel(*link_type, bytes))).collect();
        assert_eq!(datagrams.len(), packets, "{name}");
        assert_eq!(
            datagrams.iter().filter(|datagram| looks_like_sip(datagram.payload)).count(),
            sip,
            "{name}"
        );
        assert!(datagrams.iter().all(|datagram| !datagram.is_cut), "{name}");
    }
}
