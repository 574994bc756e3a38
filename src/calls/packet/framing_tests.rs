use super::*;
use crate::calls::packet::samples::{Random, SIP, place};

/// Message, its first and last packet number, and whether bytes before it are missing.
type Framed = (Vec<u8>, u64, u64, bool);

#[derive(Default)]
struct Bench {
    framer: Framer,
    counters: PacketCounters,
    messages: Vec<Framed>,
}

impl Bench {
    fn push(&mut self, packet: u64, bytes: &[u8]) {
        let number = |place: PacketPlace| (place.offset - 24) / 100;
        let messages = &mut self.messages;
        self.framer.push(bytes, place(packet), &mut self.counters, &mut |message| {
            let Places { first, last } = message.places;
            messages.push((message.bytes.to_vec(), number(first), number(last), message.gap_before));
        });
    }

    fn texts(&self) -> Vec<&[u8]> {
        self.messages.iter().map(|message| message.0.as_slice()).collect()
    }
}

fn message_with_body(header: &str, body: &[u8]) -> Vec<u8> {
    [b"MESSAGE sip:b@example.com SIP/2.0\r\nCall-ID: 1\r\n", header.as_bytes(), b"\r\n\r\n", body].concat()
}

#[track_caller]
fn check_frames(stream: &[u8], expected: &[&[u8]]) -> PacketCounters {
    let mut whole = Bench::default();
    whole.push(0, stream);
    assert_eq!(whole.texts(), expected);
    for split in 0..stream.len() {
        let mut bench = Bench::default();
        bench.push(0, &stream[..split]);
        bench.push(1, &stream[split..]);
        assert_eq!((bench.texts(), &bench.counters), (expected.to_vec(), &whole.counters), "{split}");
    }
    let mut bench = Bench::default();
    stream.iter().zip(0..).for_each(|(byte, packet)| bench.push(packet, &[*byte]));
    assert_eq!((bench.texts(), &bench.counters), (expected.to_vec(), &whole.counters));
    whole.counters
}

#[test]
fn content_length_is_read_in_all_its_forms() {
    for header in [
        "Content-Length: 4",
        "content-length:4",
        "CONTENT-LENGTH \t :   4  ",
        "l: 4",
        "L:4",
        "Content-Length:\r\n  4",
        "Content-Length: 0004",
        "Subject: l: 9\r\nl: 4",
        "Subject: a\r\n l: 9\r\nl: 4",
        "l: 4\r\nContent-Length: 9",
    ] {
        let message = message_with_body(header, b"body");
        check_frames(&[&message[..], SIP].concat(), &[&message, SIP]);
    }
}

#[test]
fn several_messages_keep_alives_and_line_ends_are_told_apart() {
    let message = message_with_body("l: 3", b"a\r\n");
    let stream = [b"\r\n\r\n", &message[..], b"\r\n", SIP, b"\r\n\r\n", SIP].concat();
    let counters = check_frames(&stream, &[&message, SIP, SIP]);
    assert_eq!((counters.stream_keep_alive_bytes, counters.stream_junk_bytes), (10, 0));
    let unix = b"BYE sip:a@example.com SIP/2.0\nl:2\n\nok";
    check_frames(&[&unix[..], SIP].concat(), &[unix, SIP]);
}

#[test]
fn a_missing_content_length_means_no_body() {
    let message = message_with_body("To: <sip:b@example.com>", b"");
    let stream = [&message[..], b"v=0\r\ns=-\r\n", SIP].concat();
    let counters = check_frames(&stream, &[&message, SIP]);
    assert_eq!((counters.content_length_missing, counters.stream_resynchronisations), (1, 1));
    assert_eq!(counters.stream_junk_bytes, 10);
    // RFC 4475 section 3.1.2.3.
    let message = message_with_body("Content-Length: -999", b"");
    let counters = check_frames(&[&message[..], SIP].concat(), &[&message, SIP]);
    assert_eq!(counters.content_length_malformed, 1);
}

#[test]
fn junk_is_skipped_to_the_next_start_line() {
    let stream = [b"tail of a body\r\n\x00\x01\xff\nINVITE not a start line\r\n", SIP].concat();
    let counters = check_frames(&stream, &[SIP]);
    // The stream began with it, so that synchronisation was not lost.
    assert_eq!(counters.stream_resynchronisations, 0);
    assert_eq!(counters.stream_junk_bytes as usize, stream.len() - SIP.len());
}

#[test]
fn messages_have_the_places_of_their_packets() {
    let mut bench = Bench::default();
    bench.push(3, &SIP[..20]);
    bench.push(4, &SIP[20..40]);
    bench.push(5, &[&SIP[40..], SIP, &SIP[..10]].concat());
    bench.push(6, &SIP[10..]);
    // Packet 7 filled a hole before packet 6's neighbour 5, which came earlier.
    bench.push(9, &SIP[..10]);
    bench.push(8, &SIP[10..]);
    let places: Vec<(u64, u64)> = bench.messages.iter().map(|message| (message.1, message.2)).collect();
    assert_eq!(places, [(3, 5), (5, 5), (5, 6), (8, 9)]);
}

#[test]
fn a_gap_ends_a_message_and_is_told_with_the_next() {
    let mut bench = Bench::default();
    bench.push(0, SIP);
    bench.push(1, &SIP[..50]);
    bench.framer.gap(&mut bench.counters);
    bench.push(2, b"rest\r\n");
    bench.push(3, SIP);
    bench.push(4, SIP);
    let gaps: Vec<bool> = bench.messages.iter().map(|message| message.3).collect();
    assert_eq!(gaps, [false, true, false]);
    assert_eq!((bench.counters.sip_messages_incomplete, bench.counters.stream_junk_bytes), (1, 6));
    bench.push(5, &SIP[..50]);
    bench.framer.finish(&mut bench.counters);
    assert_eq!((bench.counters.sip_messages_incomplete, bench.framer.memory()), (2, 0));
}

#[test]
fn messages_have_a_length_limit() {
    let head = message_with_body("Content-Length: 262000", b"").len();
    let body = vec![b'x'; MESSAGE_BYTES_MAX - head];
    let message = message_with_body(&format!("Content-Length: {}", body.len()), &body);
    assert_eq!(message.len(), MESSAGE_BYTES_MAX);
    let mut bench = Bench::default();
    message.chunks(1400).zip(0..).for_each(|(chunk, packet)| bench.push(packet, chunk));
    assert_eq!(bench.texts(), [message.as_slice()]);

    let too_long = message_with_body(&format!("Content-Length: {}", body.len() + 1), &body);
    let endless = message_with_body("Content-Length: 99999999999999999999999", b"");
    for stream in [[&too_long[..], b"\r\n", SIP].concat(), [&endless[..], SIP].concat()] {
        let mut bench = Bench::default();
        stream.chunks(1400).zip(0..).for_each(|(chunk, packet)| bench.push(packet, chunk));
        assert_eq!(bench.texts(), [SIP]);
        assert_eq!(bench.counters.sip_messages_over_limit, 1);
    }
    // Headers without end.
    let mut bench = Bench::default();
    bench.push(0, b"MESSAGE sip:b@example.com SIP/2.0\r\n");
    for packet in 1..300 {
        bench.push(packet, "A: b\r\n".repeat(200).as_bytes());
        assert!(bench.framer.buffer.len() <= MESSAGE_BYTES_MAX);
    }
    bench.push(300, SIP);
    assert_eq!((bench.texts(), bench.counters.sip_messages_over_limit), (vec![SIP], 1));
}

#[test]
fn a_line_without_end_is_given_up() {
    for (length, is_kept) in [(START_LINE_BYTES_MAX, true), (START_LINE_BYTES_MAX + 1, false)] {
        let mut line = b"INVITE sip:".to_vec();
        line.resize(length, b'a');
        let mut bench = Bench::default();
        bench.push(0, &line);
        assert_eq!(bench.framer.buffer.is_empty(), !is_kept);
    }
}

#[test]
fn random_streams_do_not_panic_and_keep_little() {
    let mut random = Random::new(7);
    for _ in 0..300 {
        let mut stream = [SIP, &message_with_body("l: 4", b"body"), b"\r\n\r\n"].concat().repeat(4);
        for _ in 0..random.below(12) {
            let at = random.below(stream.len() as u32) as usize;
            stream[at] = random.next() as u8;
        }
        let mut bench = Bench::default();
        let mut rest = stream.as_slice();
        let mut packet = 0;
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(rest.len().min(1 + random.below(300) as usize));
            bench.push(packet, chunk);
            (rest, packet) = (after, packet + 1);
        }
        let mut whole = Bench::default();
        whole.push(0, &stream);
        assert_eq!(whole.texts(), bench.texts());
        assert_eq!(whole.counters, bench.counters);
    }
}
