//! In a control group of 256 MiB: hostile queries and bulks beside streams and events. Nothing that was received is missing, and
//! the process lives.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::support::control_group::ControlGroup;
use crate::support::process::Process;
use crate::support::server::listening;
use crate::support::{
    DEADLINE, Handshake, Random, Sender, Workdir, assert_same, lea, long, status, wait_closed, wait_until,
};

const MEMORY: u64 = 256 << 20;
const STREAMS: usize = 100;
/// Bytes per stream and turn, and the time of a turn: 1 Mbit/s.
const TURN_BYTES: usize = 12_500;
const TURN: Duration = Duration::from_millis(100);
const EVENTS_PER_TURN: usize = 100;

/// Sends a request on a connection of its own, and returns the status of the answer, or 0 if there is none.
fn ask(addr: SocketAddr, method: &str, path: &str, body: &[u8]) -> u16 {
    let attempt = || -> std::io::Result<u16> {
        let mut stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut answer = [0; 4096];
        let bytes = stream.read(&mut answer)?;
        let status =
            String::from_utf8_lossy(&answer[..bytes]).split(' ').nth(1).and_then(|word| word.parse().ok());
        std::io::copy(&mut stream, &mut std::io::sink())?;
        Ok(status.unwrap_or(0))
    };
    attempt().unwrap_or(0)
}

/// The requests of T3, each with its body.
fn hostile_requests() -> Vec<(&'static str, String, Vec<u8>)> {
    let inner = json!({"b": {"terms": {"field": "k", "size": 10_000}}});
    let terms = json!({"size": 0, "aggs": {"a": {"terms": {"field": "k", "size": 10_000}, "aggs": inner}}});
    let wildcard = json!({"query": {"wildcard": {"k": {"value": format!("*{}b*", "a?".repeat(4_000))}}}});
    let patterns: Vec<String> = (0..60).map(|n| format!("{}.z{n}", ["**.a"; 13].join("."))).collect();
    // Many short words take the most memory, and long ones the least time.
    let action = "{\"index\":{}}";
    let short = json!({"text": "a b c d e f g h i j ".repeat(20_000)});
    let plain = json!({"text": "abcdefgh ".repeat(100_000)});
    let bulk = format!("{action}\n{short}\n").repeat(4) + &format!("{action}\n{plain}\n").repeat(20);
    vec![
        ("POST", "/big/_search".to_owned(), terms.to_string().into_bytes()),
        ("POST", "/big/_search".to_owned(), wildcard.to_string().into_bytes()),
        ("GET", "/docs/_search?size=10000".to_owned(), Vec::new()),
        ("GET", format!("/docs/_search?size=20&filter_path={}", patterns.join(",")), Vec::new()),
        ("POST", "/docs/_bulk".to_owned(), bulk.into_bytes()),
    ]
}

struct Counters {
    is_over: AtomicBool,
    acknowledged: AtomicU64,
    refused: AtomicU64,
    answered: AtomicU64,
}

#[test]
fn t3_queries_in_256_mib_take_no_byte_and_no_event_away() {
    let seconds = if long() { 60 } else { 10 };
    let (work, group) = (Workdir::new(), ControlGroup::with_memory(MEMORY));
    let output = work.join("out");
    // In the configuration, port 0 means no listener.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = json!({"parameters": {
        "loggerLevel": "INFO",
        "tcpServer": {"address": "127.0.0.1", "port": free},
        "events": {"lines": "127.0.0.1:0", "http": "127.0.0.1:0"},
    }});
    let config = work.write("lea.conf", config.to_string());
    let mut command = group.command(&lea());
    command
        .args(["run", "--admin-listen", "127.0.0.1:0", "--config"])
        .arg(config)
        .arg("--output")
        .arg(&output);
    let mut process = Process::start(&mut command);
    let [tcp, lines, http, admin] =
        ["tcp", "lines", "http", "admin"].map(|name| listening(&mut process, name));
    let words: Vec<String> = (0..10_000).map(|n| format!("w{n:06}")).collect();
    let mapping = json!({"mappings": {"properties": {"k": {"type": "keyword"}}}}).to_string();
    assert_eq!(ask(http, "PUT", "/big", mapping.as_bytes()), 200);
    assert_eq!(ask(http, "POST", "/big/_doc", json!({"k": words}).to_string().as_bytes()), 201);

    let counters = Counters {
        is_over: AtomicBool::new(false),
        acknowledged: AtomicU64::new(0),
        refused: AtomicU64::new(0),
        answered: AtomicU64::new(0),
    };
    let turns = usize::try_from(seconds * 1_000 / TURN.as_millis() as u64).unwrap();
    let content = Random::with_seed(7).bytes(turns * TURN_BYTES);
    let mut delays = Vec::new();
    thread::scope(|scope| {
        let counters = &counters;
        for (method, path, body) in hostile_requests() {
            scope.spawn(move || {
                while !counters.is_over.load(Ordering::Relaxed) {
                    match ask(http, method, &path, &body) {
                        200 | 201 => counters.answered.fetch_add(1, Ordering::Relaxed),
                        _ => counters.refused.fetch_add(1, Ordering::Relaxed),
                    };
                }
            });
        }
        scope.spawn(move || {
            while !counters.is_over.load(Ordering::Relaxed) {
                if ask(http, "POST", "/acknowledged/_doc", b"{\"a\":1}") == 201 {
                    counters.acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                thread::sleep(TURN);
            }
        });
        let counting = scope.spawn(move || {
            let mut delays = Vec::new();
            while !counters.is_over.load(Ordering::Relaxed) {
                let started = Instant::now();
                if ask(http, "GET", "/interception/_count?q=n:7", b"") == 200 {
                    delays.push(started.elapsed());
                }
                thread::sleep(Duration::from_millis(20));
            }
            delays
        });
        send_all(tcp, lines, turns, &content);
        counters.is_over.store(true, Ordering::Relaxed);
        delays = counting.join().unwrap();
    });
    assert!(process.is_running(), "{}", process.stderr());

    for number in 0..STREAMS {
        wait_closed(&output, &name(number));
        assert_same(&output.join(name(number)), &content);
    }
    let events = (turns * EVENTS_PER_TURN) as u64;
    wait_until(DEADLINE, "all events", || count(http, "interception") == events);
    let acknowledged = counters.acknowledged.into_inner();
    assert!(acknowledged > 0);
    // An event whose answer did not arrive may be stored.
    assert!(count(http, "acknowledged") >= acknowledged);
    assert_eq!(status::health(admin), "ok");
    delays.sort();
    let p99 = delays[delays.len() * 99 / 100];
    println!(
        "{seconds} s in {} MiB: {} hostile requests answered, {} refused; most memory {} MiB; p99 of _count {} ms of {}",
        MEMORY >> 20,
        counters.answered.into_inner(),
        counters.refused.into_inner(),
        group.most_bytes() >> 20,
        p99.as_millis(),
        delays.len()
    );
    assert!(p99 < Duration::from_secs(10), "{p99:?}");
    process.signal(Signal::TERM);
    process.wait_code(DEADLINE, 0);
}

fn name(number: usize) -> String {
    format!("stream-{number}")
}

fn count(http: SocketAddr, index: &str) -> u64 {
    crate::support::events::get(http, &format!("/{index}/_count"))["count"].as_u64().unwrap_or(0)
}

/// Sends all streams and events at their rates. A machine that is too slow stretches the time.
fn send_all(tcp: SocketAddr, lines: SocketAddr, turns: usize, content: &[u8]) {
    let open = |number| Sender::open(tcp, name(number), Handshake::Newline);
    let mut senders: Vec<Sender> = (0..STREAMS).map(open).collect();
    let mut events = TcpStream::connect(lines).unwrap();
    for (turn, part) in content.chunks(TURN_BYTES).enumerate().take(turns) {
        let started = Instant::now();
        senders.iter_mut().for_each(|sender| sender.send(part));
        let batch: String = (0..EVENTS_PER_TURN)
            .map(|n| format!("{{\"event\":\"undefined\",\"n\":{n},\"turn\":{turn}}}\n"))
            .collect();
        events.write_all(batch.as_bytes()).unwrap();
        thread::sleep(TURN.saturating_sub(started.elapsed()));
    }
    senders.into_iter().for_each(Sender::finish);
}
