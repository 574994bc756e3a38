//! Client of `scripts/bench-events.sh`: queries servers with the Elasticsearch API, and sends to syslog
//! receivers. Each command prints one line of `name=value`.
//!
//! The events are those of a SIP proxy under attack, about 400 bytes each. All runs send the same batches to
//! every server.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const USAGE: &str = "usage: events_client fill HOST:PORT EVENTS BULK CONNECTIONS
       events_client count HOST:PORT SECONDS
       events_client search HOST:PORT TARGET BODY TIMES
       events_client syslog HOST:PORT LINES CONNECTIONS FILE|HOST:PORT (where the lines can be counted)
LEA_BENCH_USER=NAME:PASSWORD is sent by basic authentication.";

/// Fills of up to this many events are generated before the clock starts.
const MADE_BEFORE_MAX: u64 = 400_000;

const AGENTS: [&str; 8] = [
    "friendly-scanner",
    "sipcli/v1.8",
    "VaxSIPUserAgent/3.1",
    "pplsip",
    "Cisco-SIPGateway/IOS-12.x",
    "sipvicious",
    "eyeBeam release 3006o stamp 17551",
    "PBX",
];
const PREFIXES: [&str; 8] = ["+", "00", "011", "9011", "900", "810", "901511", ""];
const COUNTRIES: [&str; 6] = ["IL", "GB", "US", "SE", "DE", "PS"];

/// Number that every tenth event contains.
const FREQUENT: &str = "972598294121";

/// How many of the thousand fictitious numbers occur in events.
const KNOWN: u64 = 900;

struct Random(u64);

impl Random {
    fn of_batch(batch: u64) -> Random {
        Random(88_172_645_463_325_252 ^ batch.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// Draws a number with the distribution of attacks: few numbers often, many rarely.
fn number(random: &mut Random) -> String {
    let prefix = PREFIXES[random.below(8) as usize];
    let national = match random.below(10) {
        0 => return format!("{prefix}{FREQUENT}"),
        1..=6 => 447_700_900_000 + random.below(KNOWN),
        _ => 12_025_550_100 + random.below(100),
    };
    // Random digits appended to the number make many different numbers.
    match random.below(4) {
        0 => format!("{prefix}{national}"),
        _ => format!("{prefix}{national}{:02}", random.below(100)),
    }
}

fn event(random: &mut Random, at: u64, body: &mut Vec<u8>) {
    let country = COUNTRIES[random.below(6) as usize];
    let time = chrono::DateTime::from_timestamp(1_760_000_000 + at as i64, 0).unwrap();
    let (agent, number) = (AGENTS[random.below(8) as usize], number(random));
    let intruder = format!("198.51.{}.{}", random.below(100), random.below(256));
    let branch = random.below(u64::MAX);
    writeln!(
        body,
        "{{\"time\":\"{}\",\"sipRequest\":\"INVITE\",\"ipIntruder\":\"{intruder}\",\"destNum\":\"{number}\",\"userAgent\":\"{agent}\",\
         \"country\":\"{country}\",\"location\":\"{}.{:02},{}.{:02}\",\"ipHost\":\"203.0.113.{}\",\"callId\":\"{branch:016x}@{intruder}\",\
         \"from\":\"sip:{}@203.0.113.9\",\"to\":\"sip:{number}@203.0.113.9\",\"message\":\"INVITE refused, too many attempts from {intruder} within {} seconds\"}}",
        time.format("%Y-%m-%d %H:%M:%S-0300"),
        random.below(90), random.below(100), random.below(180), random.below(100), random.below(16), random.below(1_000), random.below(60),
    )
    .unwrap();
}

/// Builds a `_bulk` body with the events `from..from + count` of `all`, spread over thirty days.
fn bulk(from: u64, count: u64, all: u64) -> Vec<u8> {
    let mut random = Random::of_batch(from);
    let mut body = Vec::with_capacity(count as usize * 450);
    for n in from..from + count {
        body.extend_from_slice(b"{\"index\":{}}\n");
        event(&mut random, n * 30 * 86_400 / all, &mut body);
    }
    body
}

/// Persistent connection.
struct Http {
    stream: TcpStream,
    headers: String,
    answer: Vec<u8>,
}

impl Http {
    fn connect(addr: &str) -> Http {
        use base64::Engine;
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut headers = "Host: localhost\r\n".to_owned();
        if let Ok(user) = std::env::var("LEA_BENCH_USER") {
            let user = base64::engine::general_purpose::STANDARD.encode(user);
            headers.push_str(&format!("Authorization: Basic {user}\r\n"));
        }
        Http { stream, headers, answer: Vec::new() }
    }

    /// Returns the response body. Fails unless the status is 200.
    fn ask(&mut self, method: &str, target: &str, kind: &str, body: &[u8]) -> &str {
        let mut head = format!("{method} {target} HTTP/1.1\r\n{}", self.headers);
        if !body.is_empty() {
            head.push_str(&format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        self.stream.write_all(head.as_bytes()).unwrap();
        self.stream.write_all(body).unwrap();
        self.read()
    }

    fn read(&mut self) -> &str {
        self.answer.clear();
        let mut bytes = [0; 65_536];
        let mut whole = usize::MAX;
        while self.answer.len() < whole {
            let read = self.stream.read(&mut bytes).unwrap();
            assert!(read > 0, "the server closed");
            self.answer.extend_from_slice(&bytes[..read]);
            if whole == usize::MAX {
                whole = length(&self.answer).unwrap_or(whole);
            }
        }
        let answer = std::str::from_utf8(&self.answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
        body
    }
}

/// Length of the complete response, once its header has arrived.
fn length(answer: &[u8]) -> Option<usize> {
    let head_bytes = answer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&answer[..head_bytes]).unwrap().to_ascii_lowercase();
    let value = head.split("content-length:").nth(1).expect("an answer has a length");
    Some(head_bytes + value.lines().next().unwrap().trim().parse::<usize>().unwrap())
}

fn fill(addr: &str, events: u64, batch: u64, connections: u64) {
    let next = AtomicU64::new(0);
    let made: Vec<Vec<u8>> = match events {
        ..=MADE_BEFORE_MAX => (0..events)
            .step_by(batch as usize)
            .map(|from| bulk(from, batch.min(events - from), events))
            .collect(),
        _ => Vec::new(),
    };
    let bytes = AtomicU64::new(0);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(|| {
                let mut http = Http::connect(addr);
                loop {
                    let from = next.fetch_add(batch, Ordering::Relaxed);
                    if from >= events {
                        break;
                    }
                    let fresh;
                    let body = match made.get((from / batch) as usize) {
                        Some(made) => made,
                        None => {
                            fresh = bulk(from, batch.min(events - from), events);
                            &fresh
                        }
                    };
                    bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
                    let answer = http.ask("POST", "/opensips/_bulk", "application/x-ndjson", body);
                    assert!(answer.contains("\"errors\":false"), "{}", &answer[..answer.len().min(2_000)]);
                }
            });
        }
    });
    let seconds = started.elapsed().as_secs_f64();
    let each = bytes.load(Ordering::Relaxed) / events - b"{\"index\":{}}\n\n".len() as u64;
    println!(
        "events={events} event_bytes={each} seconds={seconds:.3} events_per_s={:.0}",
        events as f64 / seconds
    );
}

/// Measures queries one after another: a number that does not occur, one that occurs in few events, and one
/// in a tenth of all events.
fn count(addr: &str, seconds: u64) {
    let mut http = Http::connect(addr);
    let length = Duration::from_secs(seconds);
    let mut times = Vec::new();
    let mut random = Random::of_batch(1);
    // Warm-up, not measured: the server hashes a password, a virtual machine compiles.
    let warm_up = length;
    let started = Instant::now();
    for n in 0_u64.. {
        let prefix = PREFIXES[1 + random.below(7) as usize];
        let (number, is_there) = match n % 3 {
            0 => (format!("{prefix}{}", 447_700_900_000 + KNOWN + random.below(1_000 - KNOWN)), Some(false)),
            // One spelling of the number may occur in no event.
            1 => (format!("{prefix}{}", 447_700_900_000 + random.below(KNOWN)), None),
            _ => (format!("00{FREQUENT}"), Some(true)),
        };
        let target = format!("/opensips/_count?q=destNum:{number}");
        let sent = Instant::now();
        let answer = http.ask("GET", &target, "", b"");
        let took = sent.elapsed();
        let found = !answer.contains("\"count\":0,");
        assert!(is_there.is_none_or(|is_there| is_there == found), "{target}: {answer}");
        match started.elapsed() {
            now if now < warm_up => {}
            now => {
                times.push(took);
                if now >= warm_up + length {
                    break;
                }
            }
        }
    }
    println!("{}", percentiles(times));
}

fn search(addr: &str, target: &str, body: &str, times: u64) {
    let mut http = Http::connect(addr);
    let mut took = Vec::new();
    let mut total = 0;
    for _ in 0..times {
        let started = Instant::now();
        let answer = http.ask("POST", target, "application/json", body.as_bytes());
        took.push(started.elapsed());
        let counts = answer.split("\"doc_count\":").skip(1);
        total = counts.map(|rest| rest.split(['}', ',']).next().unwrap().parse::<u64>().unwrap()).sum();
    }
    println!("in_buckets={total} first_us={} {}", took[0].as_micros(), percentiles(took));
}

fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_nanos() as f64 / 1e3;
    let (requests, p50, p99, max) = (times.len(), at(0.5), at(0.99), at(1.0));
    format!("requests={requests} p50_us={p50:.1} p99_us={p99:.1} max_us={max:.1}")
}

/// Sends syslog lines as proxies do over some connections, and waits until the receiver has stored all.
fn syslog(addr: &str, lines: u64, connections: u64, stored: &str) {
    let mut random = Random::of_batch(2);
    let mut text = vec![Vec::new(); connections as usize];
    for n in 0..lines {
        let number = number(&mut random);
        let intruder = format!("198.51.{}.{}", random.below(100), random.below(256));
        let (agent, second) = (AGENTS[random.below(8) as usize], n * 86_400 / lines);
        writeln!(
            text[(n % connections) as usize],
            "<134>Nov 21 {:02}:{:02}:{:02} honey1 opensips[2101]: {intruder},203.0.113.9,INVITE,sip:100@{intruder},sip:{number}@203.0.113.9,{agent},[-46.63,-23.54]",
            second / 3_600, second / 60 % 60, second % 60
        )
        .unwrap();
    }
    let started = Instant::now();
    // Connections are closed after everything is stored: storing must not depend on a connection's end.
    let kept = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for text in &text {
            let kept = &kept;
            scope.spawn(move || {
                let mut stream = TcpStream::connect(addr).unwrap();
                stream.write_all(text).unwrap();
                kept.lock().unwrap().push(stream);
            });
        }
        wait_stored(stored, lines);
    });
    let seconds = started.elapsed().as_secs_f64();
    println!("lines={lines} seconds={seconds:.3} lines_per_s={:.0}", lines as f64 / seconds);
}

/// Waits until a file has `lines` lines, or a server has as many syslog events.
fn wait_stored(stored: &str, lines: u64) {
    let pause = || std::thread::sleep(Duration::from_millis(5));
    if stored.starts_with('/') {
        let mut file = loop {
            match File::open(stored) {
                Ok(file) => break file,
                Err(_) => pause(),
            }
        };
        let (mut bytes, mut seen) = (vec![0; 1 << 20], 0);
        while seen < lines {
            match file.read(&mut bytes).unwrap() {
                0 => pause(),
                read => seen += bytes[..read].iter().filter(|byte| **byte == b'\n').count() as u64,
            }
        }
        return;
    }
    let mut http = Http::connect(stored);
    let wanted = format!("\"count\":{lines},");
    while !http.ask("GET", "/_count", "", b"").contains(&wanted) {
        pause();
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u64>().expect(USAGE);
    match arguments[..] {
        ["fill", addr, events, bulk, connections] => {
            fill(addr, number(events), number(bulk), number(connections))
        }
        ["count", addr, seconds] => count(addr, number(seconds)),
        ["search", addr, target, body, times] => search(addr, target, body, number(times)),
        ["syslog", addr, lines, connections, stored] => {
            syslog(addr, number(lines), number(connections), stored)
        }
        _ => panic!("{USAGE}"),
    }
}
