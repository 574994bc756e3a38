use super::*;
use crate::calls::packet::samples::{Random, SIP, place};

const REQUEST: &[u8] = b"GET /ws HTTP/1.1\r\nHost: example.com\r\nUpgrade: WebSocket\r\n\
    Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: chat, sip\r\nSec-WebSocket-Version: 13\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Frame with the length in its shortest form.
fn frame(first: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let mask_flag = if mask.is_some() { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(mask_flag | length as u8),
        length @ 126..=0xffff => {
            bytes.push(mask_flag | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(mask_flag | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    let mask_bytes = mask.unwrap_or_default();
    bytes.extend(mask.iter().flatten());
    bytes.extend(payload.iter().zip(mask_bytes.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

const MASK: Option<[u8; 4]> = Some([0x37, 0xfa, 0x21, 0x3d]);

#[derive(Default)]
struct Bench {
    websocket: WebSocket,
    counters: PacketCounters,
    messages: Vec<Vec<u8>>,
}

impl Bench {
    fn push(&mut self, packet: u64, bytes: &[u8]) {
        let messages = &mut self.messages;
        self.websocket.push(bytes, place(packet), &mut self.counters, &mut |message| {
            messages.push(message.bytes.to_vec());
        });
    }
}

#[track_caller]
fn check_messages(stream: &[u8], expected: &[&[u8]]) -> PacketCounters {
    let mut whole = Bench::default();
    whole.push(0, stream);
    assert_eq!(whole.messages, expected);
    // Each split of a short stream, and some of a long one.
    let step = if stream.len() < 5_000 { 1 } else { stream.len() / 20 };
    for split in (0..stream.len()).step_by(step) {
        let mut bench = Bench::default();
        bench.push(0, &stream[..split]);
        bench.push(1, &stream[split..]);
        assert_eq!((&bench.messages, &bench.counters), (&whole.messages, &whole.counters), "{split}");
    }
    whole.counters
}

#[test]
fn handshakes_are_recognised() {
    let length = REQUEST.len();
    assert_eq!(handshake(REQUEST), Handshake::Upgrade { head_bytes: length, names_sip: true });
    assert_eq!(handshake(RESPONSE), Handshake::Upgrade { head_bytes: RESPONSE.len(), names_sip: false });
    for end in 1..length {
        assert_eq!(handshake(&REQUEST[..end]), Handshake::Incomplete, "{end}");
    }
    let plain = b"HTTP/1.1 403 Forbidden\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(handshake(plain), Handshake::Other { head_bytes: plain.len() });
    assert_eq!(handshake(b"GETX"), Handshake::None);
    assert_eq!(handshake(b""), Handshake::None);
}

#[test]
fn the_frames_of_rfc_6455_section_5_7_are_read() {
    let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(hello.to_vec(), frame(0x81, MASK, b"Hello"));
    let counters = check_messages(&[&hello[..], &[0x81, 5], b"Hello"].concat(), &[]);
    assert_eq!(counters.websocket_messages_not_sip, 2);
}

#[test]
fn masked_fragmented_and_long_frames_give_their_messages() {
    let (head, tail) = SIP.split_at(100);
    let long = [SIP, &[b'x'; 70_000]].concat();
    let stream = [
        REQUEST,
        &frame(0x81, MASK, SIP),
        &frame(0x02, MASK, head),
        &frame(0x89, MASK, b"ping"),
        &frame(0x00, MASK, b""),
        &frame(0x8a, None, b""),
        &frame(0x80, MASK, tail),
        &frame(0x82, None, b"\r\n\r\n"),
        &frame(0x81, None, &long),
        &frame(0x88, MASK, &[3, 0xe8]),
    ];
    let counters = check_messages(&stream.concat(), &[SIP, SIP, &long]);
    assert_eq!((counters.sip_stream_messages, counters.stream_keep_alive_bytes), (3, 4));
    assert_eq!(counters.websocket_frames_malformed, 0);
}

#[test]
fn compressed_messages_are_counted_once() {
    let stream = [
        RESPONSE,
        &frame(0x41, None, b"deflated"),
        &frame(0x80, None, b"deflated"),
        &frame(0xc1, None, b"deflated"),
        &frame(0x81, None, SIP),
    ];
    let counters = check_messages(&stream.concat(), &[SIP]);
    assert_eq!((counters.websocket_messages_compressed, counters.websocket_messages_not_sip), (2, 0));
}

#[test]
fn messages_have_a_length_limit() {
    let body = vec![b'x'; MESSAGE_BYTES_MAX - SIP.len()];
    let longest = [SIP, &body].concat();
    let counters = check_messages(&frame(0x81, MASK, &longest), &[&longest]);
    assert_eq!(counters.websocket_messages_over_limit, 0);
    // As fragments, after which the stream goes on.
    let stream = [&frame(0x01, None, &longest)[..], &frame(0x80, None, b"x"), &frame(0x81, None, SIP)];
    let counters = check_messages(&stream.concat(), &[SIP]);
    assert_eq!((counters.websocket_messages_over_limit, counters.websocket_messages_not_sip), (1, 0));
    // As one frame: its length is not believed.
    let mut bench = Bench::default();
    bench.push(0, &[0x82, 127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2]);
    bench.push(1, b"more of it");
    bench.push(2, &frame(0x81, MASK, SIP));
    assert_eq!(bench.messages, [SIP]);
    assert_eq!(bench.counters.websocket_messages_over_limit, 1);
}

#[test]
fn control_frames_and_handshakes_have_a_length_limit() {
    for (bytes, is_malformed) in [(125, false), (126, true)] {
        let mut bench = Bench::default();
        bench.push(0, &frame(0x89, MASK, &vec![0; bytes]));
        assert_eq!(bench.counters.websocket_frames_malformed, u64::from(is_malformed));
    }
    for (bytes, is_lost) in [(HANDSHAKE_BYTES_MAX, false), (HANDSHAKE_BYTES_MAX + 1, true)] {
        let mut head = b"GET / HTTP/1.1\r\nA: ".to_vec();
        head.resize(bytes, b'a');
        let mut bench = Bench::default();
        bench.push(0, &head);
        assert_eq!(bench.websocket.step == Step::Lost, is_lost);
    }
}

#[test]
fn frames_are_found_again_after_a_gap() {
    let mut bench = Bench::default();
    bench.push(0, REQUEST);
    bench.push(1, &frame(0x81, MASK, SIP)[..40]);
    bench.websocket.gap(&mut bench.counters);
    bench.push(2, b"middle of a frame");
    bench.push(3, &frame(0x81, MASK, SIP));
    assert_eq!(bench.messages, [SIP]);
    assert_eq!(bench.counters.sip_messages_incomplete, 1);
    bench.push(4, &[0x83, 0]);
    bench.push(5, &frame(0x81, None, SIP));
    assert_eq!((bench.messages.len(), bench.counters.websocket_frames_malformed), (2, 1));
}

#[test]
fn a_connection_without_sip_is_noticed() {
    let mut bench = Bench::default();
    bench.push(0, RESPONSE);
    for packet in 1..=u64::from(MESSAGES_WITHOUT_SIP_MAX) {
        assert!(!bench.websocket.is_without_sip());
        bench.push(packet, &frame(0x81, None, b"{\"a\":1}"));
    }
    assert!(bench.websocket.is_without_sip());
    let mut named = Bench::default();
    named.push(0, &[REQUEST, &frame(0x81, None, b"{}").repeat(9)].concat());
    assert!(!named.websocket.is_without_sip());
}

#[test]
fn random_frames_do_not_panic() {
    let mut random = Random::new(8);
    for _ in 0..2_000 {
        let mut stream =
            [&frame(0x01, MASK, &SIP[..90]), &frame(0x89, None, b"p")[..], &frame(0x80, MASK, &SIP[90..])]
                .concat()
                .repeat(3);
        for _ in 0..random.below(6) {
            let at = random.below(stream.len() as u32) as usize;
            stream[at] = random.next() as u8;
        }
        let mut bench = Bench::default();
        let mut rest = stream.as_slice();
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(rest.len().min(1 + random.below(200) as usize));
            bench.push(0, chunk);
            rest = after;
        }
    }
}
