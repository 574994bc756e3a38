//! A stream at full speed with slow streams, and peers that misuse `--admin-listen`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::company::Company;
use super::content::pcap;
use super::crowd::connect;
use super::document::{Table, figures};
use super::ground::{Ground, get};
use crate::support::{DEADLINE, Random, long};

/// Returns the duration of a scenario that has no end of its own.
fn time() -> Duration {
    Duration::from_secs(if long() { 20 } else { 3 })
}

#[test]
fn a_flood_does_not_starve_slow_streams() {
    let mut table = Table::new("floods");
    let mut lines = Vec::new();
    let mut ground = Ground::new(&[]);
    // Packets of 1,500 bytes, as many as one send holds.
    let packet = pcap(1, 1484, &vec![7; 1484])[24..].to_vec();
    let whole = packet.repeat(170);
    let random = Random::with_seed(2).bytes(256 << 10);
    let floods: [(&str, &str, Vec<u8>, Vec<u8>); 3] = [
        ("1,500-byte packets", "p", pcap(1, 0, &[]), whole),
        ("bytes that are not a capture", "o", Vec::new(), random),
        ("packets of 0 bytes, 16 bytes each", "z", pcap(1, 0, &[]), vec![0; 256 << 10]),
    ];
    for (input, service, header, chunk) in floods {
        let company = Company::start(&ground, service, 3);
        let mark = ground.mark();
        let started = Instant::now();
        let mut stream = connect(ground.addr(), 0);
        stream.write_all(&[format!("flood-{service}\n").as_bytes(), &header].concat()).unwrap();
        let mut sent = header.len() as u64;
        while started.elapsed() < time() {
            stream.write_all(&chunk).unwrap();
            sent += chunk.len() as u64;
        }
        drop(stream);
        let since = ground.since(&mark, 1);
        let seconds = started.elapsed().as_secs_f64();
        let delays = company.end();
        assert_eq!(since.files[0].1.bytes, sent);
        table.row(format!("a stream at top speed: {input}"), "file complete, end `eof`", since.counted(1));
        lines.push(format!(
            "a flood of {input}: {:.0} MiB/s, RSS at most {} MiB. Meanwhile {}",
            sent as f64 / seconds / f64::from(1 << 20),
            ground.memory_kb("VmHWM") >> 10,
            delays.told()
        ));
    }
    ground.end();
    table.check();
    figures("floods-figures", &lines);
}

#[test]
fn status_that_is_mistreated_harms_no_stream() {
    let mut table = Table::new("status");
    let mut lines = Vec::new();
    let ground = Ground::new(&[]);
    let abuses: [(&str, &str, Abuse); 5] = [
        ("4 peers that request `/streams` as fast as they can", "a", ask),
        ("400 connections that send half a request and stay open", "b", half),
        ("random bytes", "c", garbage),
        ("a path, a header and a body that do not end", "d", endless),
        ("a stream name and a capture on the port of `--admin-listen`", "e", stream),
    ];
    for (input, service, abuse) in abuses {
        let company = Company::start(&ground, service, 2);
        let mark = ground.mark();
        let asked = AtomicU64::new(0);
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let peers: Vec<_> = (0..4)
                .map(|number| {
                    scope.spawn({
                        let (ground, over, asked) = (&ground, &over, &asked);
                        move || abuse(ground, number, over, asked)
                    })
                })
                .collect();
            thread::sleep(time() / 3);
            over.store(true, Ordering::Relaxed);
            peers.into_iter().for_each(|peer| peer.join().unwrap());
        });
        let refused = ground.grown(&mark, "http_requests_rejected_total");
        assert_eq!(ground.grown(&mark, "connections_total"), 0);
        let delays = company.end();
        let counted =
            if refused > 0 { "`http_requests_rejected_total` grows" } else { "`http_requests_total` grows" };
        table.row(input, "no stream is delayed, no file", counted);
        lines.push(format!("{input}: {} times. Meanwhile {}", asked.into_inner(), delays.told()));
    }
    assert!(get(ground.status, "/health").contains("ok"));
    ground.end();
    table.check();
    figures("status-figures", &lines);
}

type Abuse = fn(&Ground, u64, &AtomicBool, &AtomicU64);

fn ask(ground: &Ground, _: u64, over: &AtomicBool, asked: &AtomicU64) {
    while !over.load(Ordering::Relaxed) {
        get(ground.status, "/streams");
        asked.fetch_add(1, Ordering::Relaxed);
    }
}

fn half(ground: &Ground, number: u64, over: &AtomicBool, asked: &AtomicU64) {
    let mut stay = Vec::new();
    for count in 0..100 {
        let mut stream = connect(ground.status, (100 * number + count) as usize);
        let _ = stream.write_all(b"GET /streams HTTP/1.1\r\nHost: le");
        stay.push(stream);
        asked.fetch_add(1, Ordering::Relaxed);
    }
    wait_over(over);
}

fn garbage(ground: &Ground, number: u64, over: &AtomicBool, asked: &AtomicU64) {
    let mut random = Random::with_seed(number);
    while !over.load(Ordering::Relaxed) {
        let len = 1 + random.below(5000) as usize;
        let _ = spoken(ground, &random.bytes(len));
        asked.fetch_add(1, Ordering::Relaxed);
    }
}

fn endless(ground: &Ground, number: u64, over: &AtomicBool, asked: &AtomicU64) {
    let begin = [
        &b"GET /"[..],
        b"GET / HTTP/1.1\r\nX: ",
        b"POST /streams HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
    ][number as usize % 4];
    while !over.load(Ordering::Relaxed) {
        let mut stream = connect(ground.status, number as usize);
        let _ = stream.write_all(begin);
        while !over.load(Ordering::Relaxed) && stream.write_all(&[b'a'; 4096]).is_ok() {}
        asked.fetch_add(1, Ordering::Relaxed);
    }
}

fn stream(ground: &Ground, _: u64, over: &AtomicBool, asked: &AtomicU64) {
    let capture = crate::support::testdata("pcap/rejected-call.pcap");
    while !over.load(Ordering::Relaxed) {
        let _ = spoken(ground, &[&b"call.pcap\n"[..], &capture].concat());
        asked.fetch_add(1, Ordering::Relaxed);
    }
}

/// Sends bytes, and reads until the server closes the connection.
fn spoken(ground: &Ground, bytes: &[u8]) -> std::io::Result<()> {
    let mut stream: TcpStream = connect(ground.status, 0);
    stream.write_all(bytes)?;
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.read_to_end(&mut Vec::new()).map(drop)
}

fn wait_over(over: &AtomicBool) {
    crate::support::wait_until(DEADLINE, "the end of the scenario", || over.load(Ordering::Relaxed));
}
