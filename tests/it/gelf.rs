//! GELF from graypy, and by hand: over UDP (plain, compressed, in chunks) and over TCP.

use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;

use crate::support::events::send;
use crate::support::{DEADLINE, Events, Workdir, wait_for};

const PROGRAM: &str = "
import logging, sys, graypy
kind, port = sys.argv[1], int(sys.argv[2])
if kind == 'tcp':
    handler = graypy.GELFTCPHandler('127.0.0.1', port)
elif kind == 'chunked':
    chunker = graypy.handler.GELFWarningChunker(chunk_size=1000)
    handler = graypy.GELFUDPHandler('127.0.0.1', port, gelf_chunker=chunker, compress=False)
else:
    handler = graypy.GELFUDPHandler('127.0.0.1', port, compress=(kind == 'compressed'))
logger = logging.getLogger('pbx')
logger.addHandler(handler)
padding = 'x' * (20000 if kind == 'chunked' else 10)
for n in range(50):
    logger.warning('%s attempt %d', kind, n, extra={'call_id': 'c%d' % n, 'padding': padding})
handler.close()
";

fn graypy() -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/python-graypy");
    let output = Command::new(script).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn graypy_over_udp_and_tcp() {
    let work = Workdir::new();
    let mut events =
        Events::start(&work.join("out"), &["--gelf", "udp:127.0.0.1:0", "--gelf", "tcp:127.0.0.1:0"]);
    let (udp, tcp) = (events.addr("gelf transport=udp"), events.addr("gelf transport=tcp"));
    let python = graypy();
    for (kind, port) in
        [("tcp", tcp.port()), ("plain", udp.port()), ("compressed", udp.port()), ("chunked", udp.port())]
    {
        let output = Command::new(&python).args(["-c", PROGRAM, kind, &port.to_string()]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        events.wait_count(&format!("/syslog/_count?q=message:{kind}"), 50);
    }
    assert_eq!(events.count("/syslog/_count?q=call_id:c7+AND+type:gelf"), 4);
    let last = events.get("/syslog/_search?q=message:%22chunked+attempt+49%22");
    let source = &last["hits"]["hits"][0]["_source"];
    assert_eq!(source["padding"].as_str().map(str::len), Some(20_000), "{last}");
    assert_eq!(source["syslog_severity"], 4, "{last}");
    events.term();
}

#[test]
fn malformed_gelf_is_a_dead_letter_and_takes_nothing_away() {
    let work = Workdir::new();
    let flags = ["--gelf", "udp:127.0.0.1:0", "--gelf", "tcp:127.0.0.1:0"];
    let mut events = Events::start(&work.join("out"), &flags);
    let (udp, tcp) = (events.addr("gelf transport=udp"), events.addr("gelf transport=tcp"));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let incomplete = [&[0x1e, 0x0f][..], b"12345678", &[0, 2], b"{"].concat();
    for datagram in [
        b"no JSON".as_slice(),
        b"\x1f\x8bno gzip",
        &[0x1e, 0x0f, 1],
        &incomplete,
        b"{\"short_message\":\"m\"}",
    ] {
        socket.send_to(datagram, udp).unwrap();
    }
    events.wait_count("/syslog/_count", 1);
    let long = format!("{{\"short_message\":\"{}\"}}", "x".repeat(1 << 20));
    send(tcp, format!("{{\n\"short_message\":\"m\"\n}}\0{long}\0[1]\0{{\"short_message\":\"m\"}}"));
    events.wait_count("/syslog/_count?q=message:m", 3);
    let letters = events.output().join(".lea/event-dead-letters.jsonl");
    let count = || std::fs::read_to_string(&letters).unwrap_or_default().lines().count();
    wait_for(DEADLINE, "five dead letters", || (count() == 5).then_some(()));
    events.term();
}
