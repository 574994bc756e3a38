//! Connections that are not streams, too many connections, and streams that start and end quickly.

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use super::company::Company;
use super::crowd::{Crowd, connect, reset, size};
use super::document::{Table, figures};
use super::ground::{Ground, Mark, Since, get};
use crate::support::sender::CHUNK_BYTES;
use crate::support::{DEADLINE, Handshake, Random, Sender, long, testdata, wait_until};
use lea::cc::vault::manifest::Manifest;

/// A usual stream name, cut in the middle.
fn half_name(number: usize) -> Vec<u8> {
    format!("+44770090{number:05}-2-3_21_11_2").into_bytes()
}

/// Returns how many streams ended in each way, or `all`.
fn ended(since: &Since, count: usize) -> String {
    let empty = since.files.iter().filter(|(_, manifest)| manifest.bytes == 0).count();
    let of = |some: usize| if some == count { "each".to_owned() } else { format!("{some} of them") };
    match (since.files.len(), empty) {
        (0, _) => "no file".to_owned(),
        (files, empty) if files == empty => format!("an empty file {}", of(files)),
        (files, empty) => format!("a file {}, {empty} of them empty", of(files)),
    }
}

/// Runs one scenario with many connections and real streams.
fn check_crowd(
    table: &mut Table,
    lines: &mut Vec<String>,
    (input, service): (&str, &str),
    ground: &mut Ground,
    act: impl FnOnce(&mut Crowd, &Ground) -> String,
) {
    let count = size();
    let company = Company::start(ground, service, 2);
    let mark = ground.mark();
    let mut crowd = Crowd::new();
    let started = Instant::now();
    let did = act(&mut crowd, ground);
    crowd.close();
    let since = ground.since(&mark, count);
    let seconds = started.elapsed().as_secs_f64();
    let delays = company.end();
    table.row(input, format!("{did}; {}", ended(&since, count)), since.counted(count));
    lines.push(format!(
        "{input}: {count} connections in {seconds:.1} s, RSS at most {} MiB. Meanwhile {}",
        ground.memory_kb("VmHWM") / 1024,
        delays.told()
    ));
}

/// Waits until the server has accepted all connections.
fn wait_accepted(ground: &Ground, mark: &Mark, count: usize) {
    wait_until(4 * DEADLINE, "the crowd to be accepted", || {
        ground.grown(mark, "connections_total") >= count as u64
    });
}

#[test]
fn crowds_that_are_no_streams() {
    let mut table = Table::new("crowds");
    let mut lines = Vec::new();
    let mut ground = Ground::new(&["--handshake-timeout", "1500ms", "--name-timeout", "300ms"]);
    let count = size();

    check_crowd(
        &mut table,
        &mut lines,
        ("half a name, connection stays open", "a"),
        &mut ground,
        |crowd, ground| {
            let before = ground.files();
            crowd.come(ground.addr(), count, half_name);
            wait_until(4 * DEADLINE, "all to be named", || {
                get(ground.status, "/streams").matches("\"state\":\"idle\"").count() == count
            });
            assert_eq!(ground.files(), before, "a name alone makes no file while its stream is open");
            "the bytes become the name after the quiet time; no file until the connection closes".to_owned()
        },
    );
    check_crowd(
        &mut table,
        &mut lines,
        ("half a name, connection closed", "b"),
        &mut ground,
        |crowd, ground| {
            crowd.come(ground.addr(), count, |number| [b"b", &half_name(number)[..]].concat());
            "the bytes become the name".to_owned()
        },
    );
    check_crowd(
        &mut table,
        &mut lines,
        ("half a name, connection reset", "c"),
        &mut ground,
        |crowd, ground| {
            let mark = ground.mark();
            crowd.come(ground.addr(), count, |number| [b"c", &half_name(number)[..]].concat());
            wait_accepted(ground, &mark, count);
            crowd.reset();
            "the bytes become the name".to_owned()
        },
    );
    check_crowd(
        &mut table,
        &mut lines,
        ("no bytes, connection stays open", "d"),
        &mut ground,
        |crowd, ground| {
            let mark = ground.mark();
            crowd.come(ground.addr(), count, |_| Vec::new());
            wait_until(4 * DEADLINE, "all to be refused", || {
                ground.grown(&mark, "connections_rejected_total{reason=\"silent\"}") >= count as u64
            });
            "closed after `--handshake-timeout`".to_owned()
        },
    );
    check_crowd(
        &mut table,
        &mut lines,
        ("no bytes, connection closed", "e"),
        &mut ground,
        |crowd, ground| {
            crowd.come(ground.addr(), count, |_| Vec::new());
            "closed".to_owned()
        },
    );
    check_crowd(&mut table, &mut lines, ("no bytes, connection reset", "f"), &mut ground, |crowd, ground| {
        crowd.come(ground.addr(), count, |_| Vec::new());
        crowd.reset();
        "closed".to_owned()
    });
    check_crowd(
        &mut table,
        &mut lines,
        ("5,000 bytes of a name that does not end", "g"),
        &mut ground,
        |crowd, ground| {
            let mark = ground.mark();
            crowd.come(ground.addr(), count, |_| vec![b'n'; 5000]);
            wait_until(4 * DEADLINE, "all to be refused", || {
                ground.grown(&mark, "connections_rejected_total{reason=\"name_too_long\"}") >= count as u64
            });
            "closed after 4,096 bytes".to_owned()
        },
    );
    ground.end();
    table.check();
    figures("crowds-figures", &lines);
}

#[test]
fn more_connections_than_the_limit() {
    const LIMIT: usize = 100;
    let mut table = Table::new("limits");
    let mut ground = Ground::new(&["--streams-max", "100", "--allow", "127.0.0.0/28"]);
    let mut check = |input, service, act: &dyn Fn(&mut Crowd, &Ground) -> usize| {
        let company = Company::start(&ground, service, 2);
        let mark = ground.mark();
        let mut crowd = Crowd::new();
        let count = act(&mut crowd, &ground);
        crowd.close();
        let since = ground.since(&mark, count);
        company.end();
        table.row(input, ended(&since, count), since.counted(count));
    };
    check(
        "`--streams-max 100`, 98 streams in addition to 2 real ones, then 900 more",
        "a",
        &|crowd, ground| {
            crowd.come(ground.addr(), LIMIT - 2, half_name);
            wait_until(DEADLINE, "as many streams as may be", || {
                ground.counter("streams_open") == LIMIT as u64
            });
            let mark = ground.mark();
            crowd.come_whatever(ground.addr(), 900);
            wait_until(DEADLINE, "900 refused", || {
                ground.grown(&mark, "connections_rejected_total{reason=\"limit_reached\"}") == 900
            });
            LIMIT - 2 + 900
        },
    );
    check("`--allow 127.0.0.0/28`, 500 connections from 127.0.0.200", "b", &|_, ground| {
        let mark = ground.mark();
        for _ in 0..500 {
            drop(super::crowd::connect_from(200, ground.addr()));
        }
        wait_until(DEADLINE, "500 refused", || {
            ground.grown(&mark, "connections_rejected_total{reason=\"not_allowed\"}") == 500
        });
        500
    });
    // The limit counts open streams: once they have ended, new streams are accepted.
    let company = Company::start(&ground, "c", 2);
    company.end();
    assert!(ground.server.process().is_running());
    ground.end();
    table.check();
}

/// Sends `bytes` one byte at a time.
fn drip(ground: &Ground, bytes: &[u8], interval: Duration) {
    let mut stream = connect(ground.addr(), 0);
    for byte in bytes {
        stream.write_all(&[*byte]).unwrap();
        thread::sleep(interval);
    }
}

#[test]
fn one_byte_at_a_time() {
    let mut table = Table::new("drips");
    let ground = Ground::new(&["--name-timeout", "500ms", "--handshake-timeout", "800ms"]);
    let company = Company::start(&ground, "drip", 2);
    let slow = Duration::from_millis(if long() { 60_000 } else { 1_000 });
    let mut check = |input: &str, bytes: &[u8], interval, content: &[u8]| {
        let mark = ground.mark();
        drip(&ground, bytes, interval);
        let since = ground.since(&mark, 1);
        table.row(input, since.told(&ground.output(), content), since.counted(1));
    };
    check(
        "`xyz`, each byte after more than `--name-timeout` (a minute in the long form)",
        b"xyz",
        slow,
        b"yz",
    );
    check(
        "a name of 20 bytes, each byte after less than `--name-timeout`",
        b"drip-drip-drip-drip.",
        Duration::from_millis(100),
        b"",
    );
    company.end();
    ground.end();
    table.check();
}

#[test]
fn streams_that_come_and_go() {
    let mut table = Table::new("churn");
    let mut lines = Vec::new();
    let mut ground = Ground::new(&[]);
    let capture = testdata("pcap/rejected-call.pcap");
    let one_after_another = if long() { 2000 } else { 500 };

    let company = Company::start(&ground, "a", 2);
    let mark = ground.mark();
    let started = Instant::now();
    for number in 0..one_after_another {
        let mut sender = Sender::open(ground.addr(), format!("churn-{number}.pcap"), Handshake::Joined);
        sender.send(&capture);
        sender.finish();
    }
    let since = ground.since(&mark, one_after_another);
    let seconds = started.elapsed().as_secs_f64();
    let delays = company.end();
    table.row(
        "2,000 short streams one after another (500 in the short form)",
        whole(&since, one_after_another, capture.len()),
        since.counted(one_after_another),
    );
    lines.push(format!(
        "{one_after_another} short streams one after another: {seconds:.1} s. Meanwhile {}",
        delays.told()
    ));

    let company = Company::start(&ground, "b", 2);
    let mark = ground.mark();
    let mut crowd = Crowd::new();
    let started = Instant::now();
    crowd.come(ground.addr(), 500, |number| [format!("burst-{number}.pcap").as_bytes(), &capture].concat());
    crowd.close();
    let since = ground.since(&mark, 500);
    let seconds = started.elapsed().as_secs_f64();
    let delays = company.end();
    table.row("500 short streams at once", whole(&since, 500, capture.len()), since.counted(500));
    lines.push(format!(
        "500 short streams at once: {seconds:.1} s, RSS at most {} MiB. Meanwhile {}",
        ground.memory_kb("VmHWM") / 1024,
        delays.told()
    ));
    ground.end();
    table.check();
    figures("churn-figures", &lines);
}

/// Checks that each stream has a complete file.
fn whole(since: &Since, count: usize, bytes: usize) -> String {
    assert_eq!(since.files.len(), count);
    assert!(since.files.iter().all(|(_, manifest)| manifest.bytes == bytes as u64 && manifest.part == 1));
    "one complete file each".to_owned()
}

#[test]
fn streams_of_one_name() {
    let count: usize = if long() { 8000 } else { 500 };
    let mut table = Table::new("one-name");
    let mut ground = Ground::new(&[]);
    let capture = testdata("pcap/rejected-call.pcap");

    // The first stream is open. The second one waits for its end and is reset while it waits.
    let company = Company::start(&ground, "a", 2);
    let mark = ground.mark();
    let mut first = Sender::open(ground.addr(), "held.pcap", Handshake::Joined);
    first.send_chunks(&capture, CHUNK_BYTES);
    wait_until(DEADLINE, "the first one's file", || ground.files().contains("held.pcap"));
    let mut second = Sender::open(ground.addr(), "held.pcap", Handshake::Joined);
    second.send(&capture[..1000]);
    wait_until(DEADLINE, "the second one to wait", || {
        get(ground.status, "/streams").matches("\"file\":\"held.pcap\"").count() == 2
    });
    second.reset();
    wait_until(DEADLINE, "the end of the second one", || ground.grown(&mark, "streams_ended_total") == 1);
    first.finish();
    let since = ground.since(&mark, 2);
    company.end();
    table.row(
        "a peer that resets while it waits for a stream of the same name to end",
        since.told(&ground.output(), &capture),
        since.counted(1),
    );

    // Many streams with the same name at once, each with different content. Half of them arrive while others
    // wait or are open.
    let company = Company::start(&ground, "b", 2);
    let mark = ground.mark();
    let mut crowd = Crowd::new();
    let mut contents: Vec<Vec<u8>> =
        (0..count).map(|number| [&capture[..], &number.to_be_bytes()].concat()).collect();
    let started = Instant::now();
    let first = |number: usize| [b"same.pcap", &contents[number][..]].concat();
    crowd.come(ground.addr(), count / 2, first);
    wait_until(DEADLINE, "half to have a part", || {
        ground.grown(&mark, "parts_total") == count as u64 / 2 - 1
    });
    crowd.come(ground.addr(), count / 2, first);
    // Other streams do not wait for them.
    let came = Instant::now();
    Company::start(&ground, "newcomer", 1).end();
    let newcomer = came.elapsed();
    wait_until(4 * DEADLINE, "all to have a part", || ground.grown(&mark, "parts_total") == count as u64 - 1);
    let seconds = started.elapsed().as_secs_f64();
    drop(crowd);
    let since = ground.since(&mark, count + 1);
    let delays = company.end();
    let stored = |(file, _): &(String, Manifest)| std::fs::read(ground.output().join(file)).unwrap();
    let mut stored: Vec<Vec<u8>> =
        since.files.iter().filter(|(file, _)| file.starts_with("same")).map(stored).collect();
    stored.sort();
    contents.sort();
    assert!(stored == contents, "each stream has a part of its own, whole");
    assert!(newcomer < Duration::from_secs(3), "a stream of another name took {newcomer:?}");
    table.row(
        "500 different streams of one name (8,000 in the long form), half of them while the others are open",
        "one complete part each: `same.pcap`, `same.pcap.2`, ...; a stream of another name is not delayed",
        "`parts_total` +1 each, except for the first",
    );
    figures(
        "one-name-figures",
        &[format!(
            "{count} streams of one name: {seconds:.1} s, 5 s of them to wait for the open ones; \
         a stream of another name took {} ms, RSS at most {} MiB. Meanwhile {}",
            newcomer.as_millis(),
            ground.memory_kb("VmHWM") >> 10,
            delays.told()
        )],
    );
    ground.end();
    table.check();
}

/// Stages at which a connection can be reset: bytes of name and content sent before the reset.
#[test]
fn resets_at_every_stage() {
    let mut table = Table::new("resets");
    let ground = Ground::new(&["--name-timeout", "300ms"]);
    let capture = testdata("pcap/rejected-call.pcap");
    let company = Company::start(&ground, "r", 2);
    let first_packet = crate::support::capture::packets(&capture)[0].end;
    let stages: [(&str, &str, Option<usize>); 8] = [
        ("at once", "", None),
        ("within the name", "reset-nam", None),
        ("after the name", "reset-1.pcap\n", None),
        ("within the magic number", "reset-2.pcap\n", Some(3)),
        ("within the file header", "reset-3.pcap\n", Some(20)),
        ("within a packet header", "reset-4.pcap\n", Some(30)),
        ("within a packet", "reset-5.pcap\n", Some(first_packet - 1)),
        ("after a packet", "reset-6.pcap\n", Some(first_packet)),
    ];
    for (stage, name, bytes) in stages {
        let mark = ground.mark();
        let mut stream = connect(ground.addr(), 0);
        let content = &capture[..bytes.unwrap_or(0)];
        stream.write_all(&[name.as_bytes(), content].concat()).unwrap();
        wait_taken(&ground, &mark, name, content);
        reset(stream);
        let since = ground.since(&mark, 1);
        table.row(stage, since.told(&ground.output(), content), since.counted(1));
    }
    company.end();
    ground.end();
    table.check();
}

/// Waits until the server has read what was sent, so that the reset does not overtake it.
fn wait_taken(ground: &Ground, mark: &Mark, name: &str, content: &[u8]) {
    wait_until(DEADLINE, "what was sent to be taken", || {
        let accepted = ground.grown(mark, "connections_total") == 1;
        let file = name.trim_end();
        let named =
            file.is_empty() || get(ground.status, "/streams").contains(&format!("\"file\":\"{file}\""));
        accepted
            && named
            && (content.is_empty()
                || get(ground.status, "/streams").contains(&format!("\"bytes\":{}", content.len())))
    });
}

/// Random input of every kind that a peer can send: no panic, nothing left open.
#[test]
fn random_peers() {
    let mut random = Random::new("random_peers");
    let ground = Ground::new(&["--name-timeout", "50ms", "--handshake-timeout", "200ms"]);
    let company = Company::start(&ground, "random", 2);
    let count = if long() { 5000 } else { 300 };
    let mark = ground.mark();
    for number in 0..count {
        let mut stream = connect(ground.addr(), number);
        for _ in 0..random.below(4) {
            let len = random.below(3000) as usize;
            let mut bytes = random.bytes(len);
            if random.below(2) == 0 {
                bytes.splice(..0, *b"\n\r\r\n\x1c\0\0\0\x4d\x3c\x2b\x1a");
            }
            // The server may have rejected it already.
            let _: Result<(), _> = TcpStream::write_all(&mut stream, &bytes);
        }
        if random.below(2) == 0 {
            reset(stream);
        }
    }
    let since = ground.since(&mark, count);
    assert_eq!(since.counters["streams_failed_total"], 0);
    company.end();
    ground.end();
}
