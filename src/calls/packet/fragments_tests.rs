use std::net::Ipv4Addr;

use super::*;
use crate::calls::packet::peel;
use crate::calls::packet::samples::{
    DESTINATION, IP_ID, Random, SIP, SOURCE, ethernet, ipv4, ipv4_fragment, ipv6_fragment, place, udp, vxlan,
};

fn fragment_of(id: u32, offset: usize, more: bool, payload: &[u8]) -> Fragment<'_> {
    Fragment {
        source: IpAddr::V4(SOURCE),
        destination: IpAddr::V4(DESTINATION),
        protocol: 17,
        id,
        offset: offset as u32,
        more,
        payload,
        is_cut: false,
        encapsulations: 0,
    }
}

/// Table with its counters and a packet number.
#[derive(Default)]
struct Bench {
    fragments: Fragments,
    counters: PacketCounters,
    packets: u64,
}

impl Bench {
    fn add(&mut self, id: u32, offset: usize, more: bool, payload: &[u8]) -> Option<Vec<u8>> {
        self.packets += 1;
        let fragment = fragment_of(id, offset, more, payload);
        let datagram = self.fragments.add(place(self.packets), &fragment, &mut self.counters);
        let sum: usize = self.fragments.table.iter().map(|(_, partial)| partial.memory() + ENTRY_BYTES).sum();
        assert_eq!(self.fragments.bytes, sum);
        datagram.map(|datagram| datagram.bytes)
    }
}

fn datagram_bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 % 251) as u8).collect()
}

#[test]
fn fragmented_sip_over_ipv4_and_ipv6_is_peeled_as_a_datagram() {
    let datagram = udp(SIP);
    let (head, tail) = datagram.split_at(48);
    for (link, packets) in [
        (101, [ipv4_fragment(17, 48, false, tail), ipv4_fragment(17, 0, true, head)]),
        (101, [ipv6_fragment(17, 0, true, head), ipv6_fragment(17, 48, false, tail)]),
    ] {
        let mut bench = Bench::default();
        let mut complete = None;
        for (number, packet) in packets.iter().enumerate() {
            let Peeled::Fragment(fragment) = peel(link, packet) else { panic!() };
            complete = bench.fragments.add(place(number as u64), &fragment, &mut bench.counters);
            assert_eq!(complete.is_some(), number == 1);
        }
        let complete = complete.unwrap();
        assert_eq!((complete.first, complete.last), (place(0), place(1)));
        let Peeled::Udp(udp) = complete.peel() else { panic!() };
        assert_eq!(udp.payload, SIP);
        assert_eq!(udp.ip_id, if udp.flow.source.ip.is_ipv4() { IP_ID } else { 0 });
    }
}

#[test]
fn a_fragmented_tunnel_is_peeled_after_reassembly() {
    let inner = ethernet(0x0800, &ipv4(17, &udp(SIP)));
    let outer = crate::calls::packet::samples::udp_between(6000, 4789, &vxlan(&inner));
    let mut bench = Bench::default();
    assert_eq!(bench.add(1, 0, true, &outer[..64]), None);
    let fragment = fragment_of(1, 64, false, &outer[64..]);
    let datagram = bench.fragments.add(place(9), &fragment, &mut bench.counters).unwrap();
    assert!(matches!(datagram.peel(), Peeled::Udp(udp) if udp.payload == SIP));
    // The limit of encapsulations goes on inside of a reassembled datagram.
    let deep = Datagram { encapsulations: crate::calls::packet::ENCAPSULATIONS_MAX - 1, ..datagram };
    assert!(matches!(deep.peel(), Peeled::Other(crate::calls::packet::OtherReason::TooDeep)));
}

#[test]
fn a_repeated_fragment_does_not_complete_a_datagram_with_a_hole() {
    let bytes = datagram_bytes(48);
    let mut bench = Bench::default();
    assert_eq!(bench.add(1, 0, true, &bytes[..16]), None);
    assert_eq!(bench.add(1, 0, true, &bytes[..16]), None);
    assert_eq!(bench.add(1, 32, false, &bytes[32..]), None);
    assert_eq!(bench.counters.fragments_repeated, 1);
    assert_eq!(bench.add(1, 16, true, &bytes[16..32]), Some(bytes.clone()));
    // A copy of the capture comes within 20 ms, another datagram with this identification later.
    assert_eq!(bench.add(1, 32, false, &bytes[32..]), None);
    assert_eq!(bench.counters.fragments_repeated, 2);
    bench.packets += 25;
    for (offset, more) in [(0, true), (16, true), (32, false)] {
        let datagram = bench.add(1, offset, more, &bytes[offset..offset + 16]);
        assert_eq!(datagram.is_some(), !more);
    }
    assert_eq!(bench.counters.datagrams_reassembled, 2);
}

#[test]
fn the_bytes_that_arrive_first_win() {
    let mut bench = Bench::default();
    assert_eq!(bench.add(1, 8, true, &[1; 8]), None);
    assert_eq!(bench.add(1, 24, true, &[1; 8]), None);
    assert_eq!(bench.add(1, 32, false, &[3; 4]), None);
    let expected = [[2; 8], [1; 8], [2; 8], [1; 8]].concat();
    assert_eq!(bench.add(1, 0, true, &[2; 32]), Some([expected, vec![3; 4]].concat()));
}

#[test]
fn impossible_fragments_are_counted() {
    let mut bench = Bench::default();
    assert_eq!(bench.add(1, 0, true, &[1; 7]), None);
    assert_eq!(bench.add(1, 65_528, false, &[1; 8]), None);
    assert_eq!(bench.add(1, 0, true, &[]), None);
    assert_eq!(bench.counters.fragments_malformed, 3);
    assert_eq!(bench.add(1, 16, false, &[1; 8]), None);
    // Beyond the end, another end, and an end before known bytes.
    assert_eq!(bench.add(1, 24, true, &[1; 8]), None);
    assert_eq!(bench.add(1, 8, false, &[1; 8]), None);
    assert_eq!(bench.add(2, 16, true, &[1; 8]), None);
    assert_eq!(bench.add(2, 8, false, &[1; 8]), None);
    assert_eq!(bench.counters.fragments_malformed, 6);
    let cut = Fragment { is_cut: true, ..fragment_of(3, 0, true, &[1; 8]) };
    assert_eq!(bench.fragments.add(place(1), &cut, &mut bench.counters), None);
    assert_eq!(bench.counters.fragments_cut, 1);
    // The longest possible datagram.
    let longest = datagram_bytes(65_535);
    assert_eq!(bench.add(4, 65_528, false, &longest[65_528..]), None);
    assert_eq!(bench.add(4, 0, true, &longest[..65_528]), Some(longest));
}

#[test]
fn an_incomplete_datagram_lives_30_seconds() {
    for (age_ns, is_complete) in [(30_000_000_000, true), (30_000_000_001, false), (-30_000_000_001, false)] {
        let mut bench = Bench::default();
        let start = place(0);
        let later = PacketPlace { time_ns: start.time_ns + age_ns, ..start };
        let (head, tail) = (fragment_of(1, 0, true, &[1; 8]), fragment_of(1, 8, false, &[1; 8]));
        assert_eq!(bench.fragments.add(start, &head, &mut bench.counters), None);
        assert_eq!(bench.fragments.add(later, &tail, &mut bench.counters).is_some(), is_complete);
        assert_eq!(bench.counters.datagrams_incomplete, u64::from(!is_complete));
    }
}

#[test]
fn the_oldest_datagram_goes_if_there_are_too_many() {
    let mut bench = Bench::default();
    let add = |bench: &mut Bench, id, offset, more| {
        let fragment = fragment_of(id, offset, more, &[1; 8]);
        bench.fragments.add(place(0), &fragment, &mut bench.counters).is_some()
    };
    for id in 0..DATAGRAMS_MAX as u32 {
        add(&mut bench, id, 0, true);
    }
    assert_eq!(bench.counters.datagrams_over_limit, 0);
    add(&mut bench, 70_000, 0, true);
    assert_eq!(bench.counters.datagrams_over_limit, 1);
    assert!(add(&mut bench, 1, 8, false));
    assert!(!add(&mut bench, 0, 8, false));
    assert_eq!(bench.counters.cut_off(), 1);
}

#[test]
fn completed_datagrams_are_remembered_for_a_while() {
    let add = |bench: &mut Bench, id, time_ns| {
        let fragment = fragment_of(id, 8, true, &[1; 8]);
        let place = PacketPlace { time_ns, ..place(0) };
        bench.fragments.add(place, &fragment, &mut bench.counters);
        bench.fragments.table.len()
    };
    let mut bench = Bench::default();
    for id in 0..=COMPLETED_MAX as u32 {
        for fragment in [fragment_of(id, 0, true, &[1; 8]), fragment_of(id, 8, false, &[1; 8])] {
            bench.fragments.add(place(0), &fragment, &mut bench.counters);
        }
    }
    assert_eq!((bench.fragments.completed.len(), bench.fragments.table.len()), (COMPLETED_MAX, 0));
    assert_eq!(add(&mut bench, 0, 0), 1, "forgotten");
    assert_eq!(add(&mut bench, 1, 20_000_000), 1, "a copy");
    assert_eq!(add(&mut bench, 1, 20_000_001), 2, "another datagram");
}

#[test]
fn the_memory_of_all_datagrams_has_a_limit() {
    let payload = vec![1; 65_528];
    let mut bench = Bench::default();
    let mut id = 0;
    while bench.counters.datagrams_over_limit == 0 {
        bench.add(id, 0, true, &payload);
        assert!(bench.fragments.bytes <= BYTES_MAX);
        id += 1;
    }
    // 16 MiB hold 255 of them with their overhead.
    assert!((250..=257).contains(&id), "{id}");
}

#[test]
fn a_datagram_in_too_many_pieces_is_dropped() {
    let mut bench = Bench::default();
    for piece in 0..PIECES_MAX {
        bench.add(1, piece * 16, true, &[1; 8]);
    }
    assert_eq!((bench.counters.fragment_pieces_over_limit, bench.fragments.table.len()), (0, 1));
    bench.add(1, PIECES_MAX * 16, true, &[1; 8]);
    assert_eq!((bench.counters.fragment_pieces_over_limit, bench.fragments.table.len()), (1, 0));
    assert_eq!(bench.fragments.bytes, 0);
}

#[test]
fn random_orders_repetitions_and_overlaps_give_the_datagram() {
    let mut random = Random::new(5);
    for id in 0..100 {
        let bytes = datagram_bytes(1 + random.below(9_000) as usize);
        let units = bytes.len().div_ceil(8) as u32;
        let mut parts: Vec<(usize, usize)> = Vec::new();
        let mut at = 0;
        while at < units {
            let count = 1 + random.below(180);
            parts.push((at as usize, (at + count).min(units) as usize));
            at += count;
        }
        for _ in 0..random.below(8) {
            let start = random.below(units);
            parts.push((start as usize, (start + 1 + random.below(units - start)) as usize));
        }
        for at in (1..parts.len()).rev() {
            parts.swap(at, random.below(at as u32 + 1) as usize);
        }
        let mut bench = Bench::default();
        let mut results: Vec<Vec<u8>> = Vec::new();
        for (start, end) in parts {
            // What is stored goes through postcard in between, as in an index.
            let stored = postcard::to_allocvec(&bench.fragments).unwrap();
            bench.fragments = postcard::from_bytes(&stored).unwrap();
            let more = end < units as usize;
            results.extend(bench.add(id, start * 8, more, &bytes[start * 8..(end * 8).min(bytes.len())]));
        }
        assert_eq!(results, [bytes]);
    }
}

#[test]
fn random_fragments_do_not_panic() {
    let mut random = Random::new(6);
    let mut bench = Bench::default();
    for number in 0..50_000_u64 {
        let payload = vec![number as u8; random.below(64) as usize];
        let source = Ipv4Addr::from(0xc000_0200 | random.below(3));
        let fragment = Fragment {
            source: IpAddr::V4(source),
            offset: random.below(if number % 2 == 0 { 100 } else { 80_000 }),
            is_cut: random.below(20) == 0,
            ..fragment_of(random.below(5), 0, random.below(2) == 0, &payload)
        };
        let place = place(number * u64::from(random.below(50)));
        bench.fragments.add(place, &fragment, &mut bench.counters);
    }
    assert!(bench.counters.datagrams_reassembled > 0);
}
