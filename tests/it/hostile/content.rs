//! Content that is not a capture or has wrong lengths, and bytes that keep the handshake from completing.

use std::io::Write;
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use rustix::net::{SendFlags, send};

use super::company::Company;
use super::crowd::connect;
use super::document::Table;
use super::ground::Ground;
use crate::support::capture::packets;
use crate::support::{DEADLINE, Handshake, Random, Sender, testdata, wait_until};

/// A pcapng section header and an Ethernet interface.
const SECTION: &[u8] =
    b"\n\r\r\n\x1c\0\0\0\x4d\x3c\x2b\x1a\x01\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\x1c\0\0\0";
const INTERFACE: &[u8] = b"\x01\0\0\0\x14\0\0\0\x01\0\0\0\0\0\x04\0\x14\0\0\0";

/// Returns a pcapng block: its type, the length at its start, its body, and the length at its end, which may
/// differ.
fn block(kind: u32, total_bytes: u32, body: &[u8], trailer: u32) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &total_bytes.to_le_bytes(), body, &trailer.to_le_bytes()].concat()
}

/// Returns the body of an enhanced packet block.
fn packet_body(interface: u32, captured: u32, data: &[u8]) -> Vec<u8> {
    let words = [interface, 0, 0, captured, captured].map(u32::to_le_bytes).concat();
    [&words[..], data].concat()
}

/// Returns a pcap stream: a header with this link type, and a packet with this captured length.
pub(super) fn pcap(link_type: u32, claimed: u32, data: &[u8]) -> Vec<u8> {
    let header = b"\xd4\xc3\xb2\xa1\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\x04\0";
    let packet = [1u32, 0, claimed, claimed].map(u32::to_le_bytes).concat();
    [&header[..], &link_type.to_le_bytes(), &packet, data].concat()
}

fn contents() -> Vec<(&'static str, Vec<u8>)> {
    let capture = testdata("pcap/rejected-call.pcap");
    let pcapng = testdata("pcap/three-calls.pcapng");
    let begun = [SECTION, INTERFACE].concat();
    let behind = |block: Vec<u8>| [&begun[..], &block, b"and more bytes behind it"].concat();
    let ends = packets(&capture);
    let mut lie = capture.clone();
    lie[ends[1].end + 8..ends[1].end + 12].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes());
    // The seed is fixed because the table must be the same in each run.
    let mut random = Random::with_seed(1);
    vec![
        ("100,000 random bytes", random.bytes(100_000)),
        (
            "a pcap magic number, and 100,000 random bytes",
            [b"\xd4\xc3\xb2\xa1", &random.bytes(100_000)[..]].concat(),
        ),
        (
            "a pcapng magic number, and 100,000 random bytes",
            [b"\n\r\r\n", &random.bytes(100_000)[..]].concat(),
        ),
        ("100,000 times 0", vec![0; 100_000]),
        ("a pcap, truncated in the file header", capture[..23].to_vec()),
        ("a pcap, truncated in a packet", capture[..ends[1].end + 20].to_vec()),
        ("a pcapng, truncated in the section header", pcapng[..11].to_vec()),
        ("a pcapng, truncated in a block", pcapng[..1001].to_vec()),
        ("a pcap whose 3rd packet claims 2^31-1 bytes", lie),
        ("a packet that claims 262,144 bytes, the maximum", pcap(1, 262_144, b"and has 14 more")),
        ("a packet that claims 262,145 bytes", pcap(1, 262_145, b"and has 14 more")),
        ("a packet that claims 2^32-1 bytes", pcap(1, u32::MAX, b"")),
        (
            "a USB packet that claims 128 MiB, the maximum of that link type",
            pcap(249, 128 << 20, b"and has 14 more"),
        ),
        ("1,000 packets of 0 bytes", [pcap(1, 0, b""), vec![0; 999 * 16]].concat()),
        ("a block of length 0", behind(block(6, 0, b"", 0))),
        ("a block of length 11", behind(block(6, 11, b"", 11))),
        ("a block of length 13", behind(block(0xbad, 13, b"x", 13))),
        ("a block of length 2^32-4", behind(block(0xbad, u32::MAX - 3, b"", u32::MAX - 3))),
        ("a block of 16 MiB, the maximum", behind(block(0xbad, 16 << 20, b"", 16 << 20))),
        ("a block of 16 MiB and 4", behind(block(0xbad, (16 << 20) + 4, b"", (16 << 20) + 4))),
        ("a block whose two lengths differ", behind(block(0xbad, 16, b"abcd", 20))),
        ("a packet longer than its block", behind(block(6, 36, &packet_body(0, 5, b"abcd"), 36))),
        (
            "a packet of 2^32-1 bytes in a block of 36",
            behind(block(6, 36, &packet_body(0, u32::MAX, b"abcd"), 36)),
        ),
        (
            "a packet of an interface that does not exist",
            behind(block(6, 36, &packet_body(7, 4, b"abcd"), 36)),
        ),
        ("a packet before any interface", [SECTION, &block(6, 36, &packet_body(0, 4, b"abcd"), 36)].concat()),
        (
            "a simple packet of 2^32-1 bytes",
            behind(block(3, 20, &[&u32::MAX.to_le_bytes()[..], b"abcd"].concat(), 20)),
        ),
        (
            "an interface option longer than its block",
            [SECTION, &block(1, 24, b"\x01\0\0\0\0\0\x04\0\x09\0\xff\xff", 24)].concat(),
        ),
        (
            "a time resolution of 10^-127 s",
            [
                SECTION,
                &block(1, 28, b"\x01\0\0\0\0\0\x04\0\x09\0\x01\0\x7f\0\0\0", 28),
                &block(6, 36, &packet_body(0, 4, b"abcd"), 36),
            ]
            .concat(),
        ),
        (
            "a section of an unknown byte order",
            [
                SECTION,
                b"\n\r\r\n\x1c\0\0\0\x4d\x3c\x2b\x1b\x01\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\x1c\0\0\0",
            ]
            .concat(),
        ),
        (
            "a second section in the other byte order",
            [
                SECTION,
                b"\n\r\r\n\0\0\0\x1c\x1a\x2b\x3c\x4d\0\x01\0\0\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\x1c",
            ]
            .concat(),
        ),
        ("10,000 interfaces", [SECTION, &INTERFACE.repeat(10_000)].concat()),
        ("a second pcap header after the last packet", [&capture[..], &capture[..24]].concat()),
    ]
}

#[test]
fn content_is_stored_as_it_came() {
    let mut table = Table::new("content");
    let ground = Ground::new(&[]);
    let company = Company::start(&ground, "content", 2);
    for (number, (input, content)) in contents().into_iter().enumerate() {
        let mark = ground.mark();
        let mut sender = Sender::open(ground.addr(), format!("c{number}"), Handshake::Newline);
        sender.send(&content);
        sender.finish();
        let since = ground.since(&mark, 1);
        table.row(input, since.told(&ground.output(), &content), since.counted(1));
    }
    company.end();
    ground.end();
    table.check();
}

/// Bytes sent in two steps. After the first step the handshake may wait for more bytes.
struct Stall {
    input: &'static str,
    /// Bytes of the first step.
    first: Vec<u8>,
    /// A byte sent as urgent data.
    urgent: Option<u8>,
    /// Bytes of the second step.
    rest: Vec<u8>,
    /// Expected content of the file, or `None` if the name is rejected.
    content: Option<Vec<u8>>,
}

/// Inputs that could make a handshake wait and be woken at the same time.
#[test]
fn a_handshake_that_cannot_go_on_costs_nothing() {
    let name = vec![b'n'; 4096];
    let stalls = [
        Stall {
            input: "a name of 4,096 bytes, `\\r\\n\\r\\r`, `x`",
            first: [&name[..], b"\r\n\r\rx"].concat(),
            urgent: None,
            rest: vec![],
            content: Some(b"\r\rx".to_vec()),
        },
        Stall {
            input: "a name of 4,096 bytes, `\\r\\n\\r\\r\\n`: a pcapng magic number after one byte too many",
            first: [&name[..], b"\r\n\r\r\n"].concat(),
            urgent: None,
            rest: vec![],
            content: None,
        },
        Stall {
            input: "urgent data within the name",
            first: b"urgent-1".to_vec(),
            urgent: Some(b'!'),
            rest: b".pcap".to_vec(),
            content: Some(b"!.pcap".to_vec()),
        },
        Stall {
            input: "urgent data within the magic number",
            first: b"urgent-2\n\xd4\xc3".to_vec(),
            urgent: Some(0xb2),
            rest: b"\xa1".to_vec(),
            content: Some(b"\xd4\xc3\xb2\xa1".to_vec()),
        },
        Stall {
            input: "urgent data within the magic number, for a stored name",
            first: b"urgent-2\n\xd4\xc3".to_vec(),
            urgent: Some(0xb2),
            rest: b"\xa1".to_vec(),
            content: Some(b"\xd4\xc3\xb2\xa1\xd4\xc3\xb2\xa1".to_vec()),
        },
        Stall {
            input: "urgent data within the content",
            first: [b"urgent-3\n", &pcap(1, 20, b"0123456789")[..]].concat(),
            urgent: Some(b'!'),
            rest: b"123456789".to_vec(),
            content: Some(pcap(1, 20, b"0123456789!123456789")),
        },
    ];
    let mut table = Table::new("stalls");
    let mut ground = Ground::new(&["--name-timeout", "200ms"]);
    for stall in stalls {
        check_stall(&mut ground, &mut table, stall);
    }
    ground.end();
    table.check();
}

fn check_stall(ground: &mut Ground, table: &mut Table, stall: Stall) {
    /// How long the peer stays connected.
    const STAY: Duration = Duration::from_millis(800);
    let mark = ground.mark();
    let mut stream = connect(ground.addr(), 0);
    let before = ground.processor_time();
    stream.write_all(&stall.first).unwrap();
    wait_until(DEADLINE, "the connection to be accepted", || ground.grown(&mark, "connections_total") == 1);
    if let Some(urgent) = stall.urgent {
        send(&stream, &[urgent], SendFlags::OOB).unwrap();
    }
    stream.write_all(&stall.rest).unwrap();
    thread::sleep(STAY);
    let took = ground.processor_time() - before;
    assert!(took < STAY / 4, "{}: {took:?} of processor time for a peer that does nothing", stall.input);
    let _ = stream.shutdown(Shutdown::Write);
    let since = ground.since(&mark, 1);
    let sent = stall.content.clone().unwrap_or_default();
    let stored = std::fs::read_dir(ground.output())
        .unwrap()
        .filter_map(|entry| std::fs::read(entry.unwrap().path()).ok());
    let found = stored.into_iter().any(|stored| stored == sent);
    assert_eq!(found, stall.content.is_some(), "{}: what is stored is not what came", stall.input);
    table.row(stall.input, since.told(&ground.output(), &sent), since.counted(1));
}
