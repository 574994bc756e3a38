use super::*;
use crate::calls::packet::samples::{Random, SIP, place, segment};
use crate::calls::packet::stream::{HOLE_BYTES_MAX, SEQUENCE_JUMP_MAX};

/// Message: its bytes, its first and last packet number, and whether bytes before it are missing.
type Received = (Vec<u8>, u64, u64, bool);

#[derive(Default)]
struct Bench {
    connections: Connections,
    counters: PacketCounters,
    packets: u64,
    messages: Vec<Received>,
}

impl Bench {
    fn add_at(&mut self, place: PacketPlace, segment: &TcpSegment<'_>) {
        let messages = &mut self.messages;
        let number = |place: PacketPlace| (place.offset - 24) / 100;
        self.connections.add(place, segment, &mut self.counters, &mut |message| {
            let (first, last) = (number(message.first_place), number(message.place));
            messages.push((message.bytes.to_vec(), first, last, message.gap_before));
        });
        if !self.packets.is_multiple_of(61) {
            return;
        }
        let connections = &self.connections;
        let tables = [&connections.known, &connections.undecided];
        let sum: usize = tables.iter().flat_map(|table| table.iter()).map(|(_, entry)| entry.memory()).sum();
        assert_eq!(connections.bytes, sum);
    }

    fn add(&mut self, segment: &TcpSegment<'_>) {
        self.packets += 1;
        self.add_at(place(self.packets), segment);
    }

    fn data(&mut self, sequence: u32, payload: &[u8]) {
        self.add(&segment(sequence, TcpFlags::ACK, payload));
    }

    fn syn(&mut self, sequence: u32) {
        self.add(&segment(sequence, TcpFlags::SYN, b""));
    }

    fn finish(&mut self) {
        let messages = &mut self.messages;
        self.connections.finish(0, &mut self.counters, &mut |message| {
            messages.push((message.bytes.to_vec(), 0, 0, message.gap_before));
        });
        assert_eq!(self.connections.bytes, 0);
        assert_eq!(self.connections.holes.len(), 0);
    }

    fn texts(&self) -> Vec<&[u8]> {
        self.messages.iter().map(|message| message.0.as_slice()).collect()
    }
}

/// The sender at another port.
fn from_port<'a>(port: u16, segment: &TcpSegment<'a>) -> TcpSegment<'a> {
    let mut segment = *segment;
    segment.flow.source.port = port;
    segment
}

/// Message with a body of `bytes` that ends with a line end, as SDP does, and a number of its own.
fn message(number: u32, bytes: usize) -> Vec<u8> {
    let mut body = "b".repeat(bytes);
    if bytes >= 2 {
        body.replace_range(bytes - 2.., "\r\n");
    }
    format!(
        "MESSAGE sip:b@example.com SIP/2.0\r\nCSeq: {number} MESSAGE\r\nContent-Length: {bytes}\r\n\r\n{body}"
    )
    .into_bytes()
}

#[test]
fn messages_of_both_directions_come_with_flow_and_transport() {
    let mut connections = Connections::default();
    let mut counters = PacketCounters::default();
    let mut flows = Vec::new();
    let response = b"SIP/2.0 200 OK\r\nl: 0\r\n\r\n";
    let request = segment(1, TcpFlags::ACK, SIP);
    let mut reply = segment(1, TcpFlags::ACK, response);
    reply.flow = reply.flow.reversed();
    for (number, segment) in [request, reply].iter().enumerate() {
        connections.add(place(number as u64), segment, &mut counters, &mut |message| {
            assert_eq!(message.transport, StreamTransport::Tcp);
            flows.push(message.flow);
        });
    }
    assert_eq!(flows, [request.flow, request.flow.reversed()]);
    assert_eq!((counters.tcp_connections, counters.sip_stream_messages), (1, 2));
}

#[test]
fn reordered_segments_are_put_in_order() {
    let stream = [message(1, 300), message(2, 10), message(3, 500)].concat();
    let mut bench = Bench::default();
    bench.syn(u32::MAX - 200);
    let base = u32::MAX - 199;
    for (start, end) in [(600, stream.len()), (100, 200), (200, 600), (0, 100)] {
        bench.data(base.wrapping_add(start as u32), &stream[start..end]);
    }
    assert_eq!(bench.texts(), [message(1, 300), message(2, 10), message(3, 500)]);
    // The packet with the SYN is number 1. The last bytes came first.
    let places: Vec<(u64, u64)> = bench.messages.iter().map(|message| (message.1, message.2)).collect();
    assert_eq!(places, [(3, 5), (4, 4), (2, 4)]);
    assert_eq!((bench.counters.tcp_holes, bench.counters.tcp_segments_reordered), (0, 3));
}

#[test]
fn the_bytes_that_arrive_first_win() {
    let stream = message(1, 100);
    let body = stream.len() - 100;
    let mut bench = Bench::default();
    bench.data(1000, &stream[..body]);
    bench.data(1000 + body as u32 + 40, &stream[body + 40..body + 60]);
    bench.data(1000 + body as u32 - 10, &[b'X'; 110]);
    let expected = [&stream[..body], &[b'X'; 40], &stream[body + 40..body + 60], &[b'X'; 40]].concat();
    assert_eq!(bench.texts(), [expected]);
    bench.data(1000, &stream);
    assert_eq!((bench.messages.len(), bench.counters.tcp_segments_repeated), (1, 1));
}

#[test]
fn a_hole_is_skipped_after_its_time() {
    for (age_ns, is_skipped) in [(5_000_000_000, false), (5_000_000_001, true)] {
        let mut bench = Bench::default();
        bench.data(1000, &[SIP, &message(1, 200)[..50]].concat());
        let after = 1000 + SIP.len() as u32 + 400;
        bench.data(after, SIP);
        let start = place(bench.packets);
        // A segment of another connection brings the time.
        let later = PacketPlace { time_ns: start.time_ns + age_ns, ..start };
        bench.add_at(later, &from_port(9, &segment(1, TcpFlags::ACK, b"x\n")));
        assert_eq!(bench.messages.len(), if is_skipped { 2 } else { 1 });
        assert_eq!(bench.counters.tcp_holes, u64::from(is_skipped));
        if is_skipped {
            assert!(bench.messages[1].3, "the gap is told");
            assert_eq!(bench.counters.sip_messages_incomplete, 1);
            assert_eq!(bench.connections.holes.len(), 0);
        }
    }
}

#[test]
fn a_hole_is_skipped_if_too_much_is_kept() {
    let body_bytes = 1024 - (message(7, 900).len() - 900);
    let messages = message(7, body_bytes).repeat(HOLE_BYTES_MAX / 1024);
    assert_eq!(messages.len(), HOLE_BYTES_MAX);
    let mut bench = Bench::default();
    bench.data(1000, SIP);
    let after = 1001 + SIP.len() as u32;
    bench.data(after, &messages[..HOLE_BYTES_MAX - 1]);
    assert_eq!((bench.messages.len(), bench.counters.tcp_holes), (1, 0));
    bench.data(after + HOLE_BYTES_MAX as u32 - 1, &messages[HOLE_BYTES_MAX - 1..]);
    assert_eq!((bench.messages.len(), bench.counters.tcp_holes), (65, 1));
    // Tiny pieces.
    let mut bench = Bench::default();
    bench.data(1000, SIP);
    for piece in 0..1023 {
        bench.data(after + piece * 2, b"x");
    }
    assert_eq!(bench.counters.tcp_holes, 0);
    bench.data(after + 1023 * 2, b"x");
    assert_eq!(bench.counters.tcp_holes, 1);
}

#[test]
fn cut_segments_leave_a_gap_of_their_missing_bytes() {
    let stream = message(1, 400);
    let mut bench = Bench::default();
    let cut =
        TcpSegment { missing_bytes: 300, ..segment(1000, TcpFlags::ACK, &stream[..stream.len() - 300]) };
    bench.add(&cut);
    bench.data(1000 + stream.len() as u32, SIP);
    assert_eq!(bench.texts(), [SIP]);
    assert!(bench.messages[0].3);
    assert_eq!((bench.counters.tcp_holes, bench.counters.sip_messages_incomplete), (1, 1));
    // The same, kept after a hole.
    let mut bench = Bench::default();
    bench.syn(999);
    bench.add(&TcpSegment { sequence: 1000 + SIP.len() as u32, ..cut });
    bench.data(1000, SIP);
    bench.data(1000 + (SIP.len() + stream.len()) as u32, SIP);
    assert_eq!(bench.texts(), [SIP, SIP]);
}

#[test]
fn a_stream_is_picked_up_in_the_middle_of_a_message() {
    let mut bench = Bench::default();
    let old = message(1, 100);
    bench.data(5000, &old[30..]);
    bench.data(5000 + old.len() as u32 - 30, b"\r\n\r\n");
    bench.data(5004 + old.len() as u32 - 30, SIP);
    assert_eq!(bench.texts(), [SIP]);
}

#[test]
fn a_syn_starts_a_new_connection() {
    let mut bench = Bench::default();
    bench.syn(99);
    bench.data(100, &[SIP, &SIP[..60]].concat());
    bench.syn(99);
    bench.data(100 + SIP.len() as u32 + 60, &SIP[60..]);
    assert_eq!(bench.messages.len(), 2, "a copy of the SYN changes nothing");
    bench.data(100 + 2 * SIP.len() as u32, &SIP[..60]);
    bench.syn(150);
    bench.data(151, SIP);
    assert_eq!(bench.messages.len(), 3);
    assert_eq!(bench.counters.sip_messages_incomplete, 1);
    // A jump without SYN.
    bench.data(0x8000_0000, SIP);
    assert_eq!((bench.messages.len(), bench.counters.tcp_sequence_jumps), (4, 1));
}

#[test]
fn a_jump_of_the_sequence_number_has_a_limit() {
    for (distance, jumps) in [(SEQUENCE_JUMP_MAX, 0), (SEQUENCE_JUMP_MAX + 1, 1)] {
        let mut bench = Bench::default();
        let next = SIP.len() as u32;
        bench.data(0, SIP);
        bench.data(next + distance, SIP);
        assert_eq!((bench.counters.tcp_sequence_jumps, bench.messages.len() as u64), (jumps, 1 + jumps));
        let mut bench = Bench::default();
        bench.data(0, SIP);
        bench.data(next.wrapping_sub(distance), SIP);
        assert_eq!((bench.counters.tcp_sequence_jumps, bench.messages.len() as u64), (jumps, 1 + jumps));
        // A FIN that far away is that of another connection.
        let mut bench = Bench::default();
        bench.data(0, SIP);
        bench.add(&segment(next + distance, TcpFlags::FIN, b""));
        bench.data(next, &SIP[..60]);
        bench.data(next + 60, &SIP[60..]);
        assert_eq!(bench.messages.len(), 2);
    }
}

#[test]
fn fin_and_rst_end_a_connection() {
    for flag in [TcpFlags::FIN, TcpFlags::RST] {
        let mut bench = Bench::default();
        bench.data(1000, &[SIP, &SIP[..60]].concat());
        let end = 1060 + SIP.len() as u32;
        if flag == TcpFlags::FIN {
            // The FIN is for later than the bytes before it.
            bench.add(&segment(end + 10, flag, b""));
            assert_eq!(bench.counters.sip_messages_incomplete, 0);
            bench.data(end, &SIP[60..70]);
        } else {
            bench.add(&segment(end, flag, b""));
        }
        assert_eq!(bench.counters.sip_messages_incomplete, 1);
        // A late retransmission gives no second message.
        bench.data(1000, SIP);
        assert_eq!((bench.messages.len(), bench.counters.tcp_segments_repeated), (1, 1));
    }
    // An RST hands out what waits for a hole.
    let mut bench = Bench::default();
    bench.data(1000, SIP);
    bench.data(1010 + SIP.len() as u32, SIP);
    bench.add(&segment(9, TcpFlags::RST, b""));
    assert_eq!(bench.messages.len(), 2);
    assert_eq!(bench.connections.holes.len(), 0);
}

#[test]
fn a_connection_without_sip_is_ignored_until_its_next_syn() {
    let mut bench = Bench::default();
    let mut sequence = 1000;
    let mut send = |bench: &mut Bench, payload: &[u8]| {
        bench.data(sequence, payload);
        sequence += payload.len() as u32;
    };
    for text in ["EHLO example.com\r\n", "\r\n\r\n", "MAIL FROM:<a@example.com>\r\n"] {
        send(&mut bench, text.as_bytes());
    }
    assert_eq!((bench.connections.undecided.len(), bench.counters.tcp_connections_ignored), (1, 0));
    send(&mut bench, b"RCPT TO:<b@example.com>\r\n");
    assert_eq!((bench.connections.undecided.len(), bench.counters.tcp_connections_ignored), (0, 1));
    send(&mut bench, SIP);
    assert_eq!((bench.messages.len(), bench.counters.tcp_segments_ignored), (0, 1));
    bench.syn(70_000);
    bench.data(70_001, SIP);
    assert_eq!(bench.messages.len(), 1);
    // A method that is not registered, at the start of a stream.
    let unregistered = [b"X", SIP].concat();
    bench.syn(90_000);
    bench.data(90_001, &unregistered);
    assert_eq!(bench.texts(), [SIP, &unregistered]);
    // SIP in the third segment, and a start line in many small ones.
    let mut bench = Bench::default();
    bench.data(10, b"x\n");
    bench.data(12, b"y\n");
    SIP.iter().zip(14..).for_each(|(byte, sequence)| bench.data(sequence, &[*byte]));
    assert_eq!(bench.texts(), [SIP]);
}

#[test]
fn connections_have_limits() {
    let mut bench = Bench::default();
    for port in 1..=KNOWN_MAX as u16 {
        bench.add(&from_port(port, &segment(1, TcpFlags::ACK, SIP)));
    }
    assert_eq!((bench.connections.known.len(), bench.counters.cut_off()), (KNOWN_MAX, 0));
    bench.add(&from_port(5000, &segment(1, TcpFlags::ACK, &SIP[..200])));
    bench.add(&from_port(5001, &segment(1, TcpFlags::ACK, SIP)));
    assert_eq!((bench.connections.known.len(), bench.counters.tcp_connections_over_limit), (KNOWN_MAX, 2));
    // Undecided ones push out none of them.
    for port in 10_000..10_000 + UNDECIDED_MAX as u16 {
        bench.add(&from_port(port, &segment(1, TcpFlags::ACK, b"x\n")));
    }
    assert_eq!(bench.counters.tcp_connections_forgotten, 0);
    bench.add(&from_port(9999, &segment(1, TcpFlags::ACK, b"x\n")));
    assert_eq!(bench.counters.tcp_connections_forgotten, 1);
    assert_eq!((bench.connections.undecided.len(), bench.counters.cut_off()), (UNDECIDED_MAX, 2));
    // SYNs and ignored connections.
    for port in 0..SYNS_MAX as u16 + 10 {
        bench.add(&from_port(20_000 + port, &segment(1, TcpFlags::SYN, b"")));
    }
    assert_eq!((bench.connections.syns.len(), bench.connections.known.len()), (SYNS_MAX, KNOWN_MAX));
    for port in 0..IGNORED_MAX as u16 + 10 {
        (1..4).for_each(|at| bench.add(&from_port(30_000 + port, &segment(at * 2, TcpFlags::ACK, b"x\n"))));
    }
    assert_eq!(bench.connections.ignored.len(), IGNORED_MAX);
    bench.finish();
}

#[test]
fn the_memory_of_all_connections_has_a_limit() {
    let mut bench = Bench::default();
    let stream = message(1, 250_000);
    let mut port = 0;
    while bench.counters.tcp_connections_over_limit == 0 {
        port += 1;
        for (number, chunk) in stream[..stream.len() - 1].chunks(60_000).enumerate() {
            bench.add(&from_port(port, &segment(number as u32 * 60_000, TcpFlags::ACK, chunk)));
            assert!(bench.connections.bytes <= BYTES_MAX);
        }
    }
    assert_eq!(usize::from(port), BYTES_MAX / (stream.len() - 1) + 1);
}

#[test]
fn websocket_connections_are_decoded_in_both_directions() {
    let mut connections = Connections::default();
    let mut counters = PacketCounters::default();
    let mut messages = Vec::new();
    let get = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: sip\r\n\r\n";
    let consent = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
    let length = (SIP.len() as u16).to_be_bytes();
    // A mask of 0 leaves the payload as it is.
    let masked = [&[0x81, 0xfe, length[0], length[1], 0, 0, 0, 0], SIP].concat();
    let unmasked = [&[0x82, 126, length[0], length[1]], SIP].concat();
    let client = |sequence: usize, payload| segment(sequence as u32, TcpFlags::ACK, payload);
    let server = |sequence: usize, payload| {
        let segment = segment(sequence as u32, TcpFlags::ACK, payload);
        TcpSegment { flow: segment.flow.reversed(), ..segment }
    };
    let segments = [
        client(0, &get[..30]),
        client(30, &get[30..]),
        server(0, consent),
        server(consent.len(), &unmasked[..9]),
        client(get.len(), &masked),
        server(consent.len() + 9, &unmasked[9..]),
    ];
    for (number, segment) in segments.iter().enumerate() {
        connections.add(place(number as u64), segment, &mut counters, &mut |message| {
            assert_eq!((message.bytes, message.transport), (SIP, StreamTransport::WebSocket));
            messages.push((message.flow, message.first_place, message.place));
        });
    }
    let flow = segments[0].flow;
    assert_eq!(messages, [(flow, place(4), place(4)), (flow.reversed(), place(3), place(5))]);
    // Without a handshake.
    let mut bench = Bench::default();
    bench.data(1, &masked);
    assert_eq!(bench.texts(), [SIP]);
}

/// Cuts a stream into segments with overlaps.
fn random_segments(random: &mut Random, length: usize) -> Vec<(usize, usize)> {
    let mut segments = Vec::new();
    let mut at = 0;
    while at < length {
        let end = (at + 1 + random.below(700) as usize).min(length);
        segments.push((
            at.saturating_sub(if random.below(4) == 0 { random.below(300) as usize } else { 0 }),
            end,
        ));
        if random.below(5) == 0 {
            segments.push((at, end));
        }
        at = end;
    }
    for at in 0..segments.len() {
        if random.below(3) == 0 {
            let other = (at + random.below(8) as usize).min(segments.len() - 1);
            segments.swap(at, other);
        }
    }
    segments
}

#[test]
fn random_splits_orders_and_retransmissions_give_exactly_the_messages() {
    let mut random = Random::new(9);
    for round in 0..300 {
        let count = 1 + random.below(30);
        let messages: Vec<Vec<u8>> =
            (0..count).map(|number| message(number, random.below(2_000) as usize)).collect();
        let mut stream = Vec::new();
        for message in &messages {
            stream.extend_from_slice(message);
            stream.extend_from_slice(&b"\r\n\r\n"[..random.below(3) as usize * 2]);
        }
        let initial = if round % 2 == 0 { u32::MAX - random.below(20_000) } else { random.next() as u32 };
        let mut bench = Bench::default();
        bench.syn(initial);
        for (start, end) in random_segments(&mut random, stream.len()) {
            bench.data(initial.wrapping_add(1 + start as u32), &stream[start..end]);
            if random.below(50) == 0 {
                let stored = postcard::to_allocvec(&bench.connections).unwrap();
                bench.connections = postcard::from_bytes(&stored).unwrap();
            }
        }
        assert_eq!(bench.texts(), messages, "{round}");
        assert!(bench.messages.iter().all(|message| !message.3 && message.1 <= message.2));
        assert_eq!((bench.counters.tcp_holes, bench.counters.stream_junk_bytes), (0, 0));
        bench.finish();
        assert_eq!(bench.texts().len(), messages.len());
    }
}

#[test]
fn random_losses_lose_only_the_messages_they_hit() {
    let mut random = Random::new(10);
    for _ in 0..300 {
        let messages: Vec<Vec<u8>> =
            (0..20).map(|number| message(number, random.below(900) as usize)).collect();
        let stream = messages.concat();
        let lost = 2_000 + random.below(3_000) as usize;
        let lost = lost..lost + 1 + random.below(1_000) as usize;
        let mut bench = Bench::default();
        for (start, end) in [(0, lost.start), (lost.end, stream.len())] {
            for at in (start..end).step_by(500) {
                bench.data(7 + at as u32, &stream[at..(at + 500).min(end)]);
            }
        }
        bench.finish();
        let mut at = 0;
        let expected: Vec<&[u8]> = messages
            .iter()
            .map(|message| {
                at += message.len();
                (message.as_slice(), at - message.len())
            })
            .filter(|(message, at)| at + message.len() <= lost.start || *at >= lost.end)
            .map(|(message, _)| message)
            .collect();
        assert_eq!(bench.texts(), expected);
        assert_eq!(bench.messages.iter().filter(|message| message.3).count(), 1);
    }
}

#[test]
fn random_segments_do_not_panic() {
    let mut random = Random::new(11);
    let mut bench = Bench::default();
    let stream = [SIP, &message(1, 300), b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n\x81\x02hi"].concat();
    for number in 0..60_000_u64 {
        let start = random.below(stream.len() as u32) as usize;
        let end = (start + random.below(400) as usize).min(stream.len());
        let mut payload = stream[start..end].to_vec();
        if let (Some(byte), 0) = (payload.first_mut(), random.below(8)) {
            *byte = random.next() as u8;
        }
        let flags = match random.below(40) {
            0 => TcpFlags(random.next() as u8),
            _ => TcpFlags::ACK,
        };
        let sequence = (start as u32).wrapping_sub(random.below(3) * 0x4000_0000);
        let missing_bytes = if random.below(30) == 0 { random.next() as u32 >> random.below(32) } else { 0 };
        let mut segment = TcpSegment { missing_bytes, ..segment(sequence, flags, &payload) };
        segment.flow.source.port = random.below(12) as u16;
        if random.below(2) == 0 {
            segment.flow = segment.flow.reversed();
        }
        let place = place(number * u64::from(random.below(3)));
        bench.add_at(place, &segment);
    }
    assert!(bench.counters.sip_stream_messages > 100);
    bench.finish();
}
