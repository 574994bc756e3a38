//! The HTTP server, in this process, with a client that sends exactly the given bytes: limits, deadlines,
//! shutdown.

pub(crate) mod client;
mod status;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use client::{Client, Running, until};
use lea::http::{Handler, HttpServerConfig, ParseStep, Request, RequestLimits, RequestParser, Response};

/// A handler that returns the request. Some paths make it fail.
#[derive(Default)]
struct Echo {
    gate: &'static Gate,
}

/// A gate that blocks a handler until it is opened.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    reached: AtomicBool,
    changed: Condvar,
}

impl Default for &'static Gate {
    fn default() -> Self {
        Box::leak(Box::default())
    }
}

impl Gate {
    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.changed.notify_all();
    }

    fn wait(&self) {
        self.reached.store(true, Ordering::SeqCst);
        drop(self.changed.wait_while(self.open.lock().unwrap(), |open| !*open).unwrap());
    }
}

const LARGE_BYTES: usize = 16 << 20;

impl Handler for Echo {
    fn handle(&self, request: &Request) -> Response {
        match request.path() {
            "/panic" => panic!("as asked"),
            "/large" => Response::new(200, "text/plain", vec![b'x'; LARGE_BYTES]),
            "/empty" => Response::new(204, "text/plain", ""),
            "/split" => Response::text(200, "x").with_header("X-A", "b\r\nX-C: d"),
            "/gate" => {
                self.gate.wait();
                Response::new(200, "text/plain", "gate")
            }
            path => {
                let text = format!("{:?} {path} {} ", request.method(), request.query());
                Response::new(200, "text/plain", [text.as_bytes(), request.body()].concat())
            }
        }
    }

    fn reject_early(&self, request: &Request) -> Option<Response> {
        (request.path() == "/forbidden").then(|| Response::text(403, "not here"))
    }
}

fn echo(config: HttpServerConfig) -> Running {
    Running::start(config, Echo::default())
}

/// Short deadlines keep the tests short.
fn hasty() -> HttpServerConfig {
    HttpServerConfig {
        request_timeout_ms: 400,
        idle_timeout_ms: 20_000,
        write_timeout_ms: 400,
        stop_grace_ms: 400,
        ..HttpServerConfig::default()
    }
}

#[test]
fn a_connection_is_used_again() {
    let server = echo(HttpServerConfig::default());
    let mut client = server.client();
    for n in 0..100 {
        let answer = client.get(&format!("/{n}?q"));
        assert_eq!((answer.status, answer.text()), (200, format!("Get /{n} q ").as_str()));
        assert_eq!(answer.header("Connection"), None);
        assert!(answer.header("Date").unwrap().ends_with(" GMT"));
    }
    assert_eq!(server.metrics.http_requests_total.get(), 100);
    assert_eq!(server.metrics.http_rejected_bad_request.get(), 0);
    assert!(client.get("/").status == 200);
    server.end();
}

#[test]
fn requests_of_a_connection_are_limited() {
    let server = echo(HttpServerConfig { requests_max: 3, ..HttpServerConfig::default() });
    let mut client = server.client();
    assert!(!client.get("/1").closes());
    assert!(!client.get("/2").closes());
    assert!(client.get("/3").closes());
    assert!(client.is_closed());
    server.end();
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = echo(HttpServerConfig::default());
    let mut client = server.client();
    let requests: String = (0..50)
        .map(|n| format!("POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n{n:03}"))
        .collect();
    client.send(requests + "GET /end HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    for n in 0..50 {
        assert_eq!(client.answer().text(), format!("Post /{n}  {n:03}"));
    }
    let last = client.answer();
    assert!(last.closes() && last.text() == "Get /end  ");
    assert!(client.is_closed());
    server.end();
}

#[test]
fn head_has_a_length_and_no_body() {
    let server = echo(HttpServerConfig::default());
    let mut client = server.client();
    client.send("HEAD /h HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = client.head_only();
    assert_eq!((answer.status, answer.header("Content-Length")), (200, Some("9")));
    let empty = client.get("/empty");
    assert_eq!((empty.status, empty.header("Content-Length")), (204, None));
    assert_eq!(client.get("/next").text(), "Get /next  ");
    server.end();
}

#[test]
fn a_header_value_stays_one_header() {
    let server = echo(HttpServerConfig::default());
    let answer = server.client().get("/split");
    assert_eq!((answer.header("X-A"), answer.header("X-C")), (Some("b  X-C: d"), None));
    server.end();
}

#[test]
fn http_1_0_closes_unless_asked_not_to() {
    let server = echo(HttpServerConfig::default());
    let mut client = server.client();
    client.send("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(client.answer().header("Connection"), Some("keep-alive"));
    client.send("GET /b HTTP/1.0\r\n\r\n");
    assert!(client.answer().closes());
    assert!(client.is_closed());
    server.end();
}

#[test]
fn bodies_at_both_sides_of_the_limit() {
    let limits = RequestLimits { body_bytes_max: 100_000, ..RequestLimits::default() };
    let server = echo(HttpServerConfig { limits, ..HttpServerConfig::default() });
    let head = "POST / HTTP/1.1\r\nHost: a\r\n";
    let chunked = |bytes: usize| {
        let body = "y".repeat(bytes - 99_000);
        let first = "y".repeat(99_000);
        format!(
            "{head}Transfer-Encoding: chunked\r\n\r\n182b8\r\n{first}\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            bytes - 99_000
        )
    };
    let whole = |bytes: usize| format!("{head}Content-Length: {bytes}\r\n\r\n{}", "y".repeat(bytes));
    for request in [chunked(100_000), whole(100_000)] {
        let mut client = server.client();
        client.send(request);
        let answer = client.answer();
        assert_eq!((answer.status, answer.body.len()), (200, "Post /  ".len() + 100_000));
        assert_eq!(client.get("/").status, 200);
    }
    for request in [chunked(100_001), whole(100_001)] {
        let mut client = server.client();
        client.send(request);
        let answer = client.answer();
        assert!(answer.status == 413 && answer.closes());
        assert!(client.is_closed());
    }
    server.end();
}

#[test]
fn all_bodies_together_are_limited() {
    let limits = RequestLimits { body_bytes_max: 1 << 20, ..RequestLimits::default() };
    let config = HttpServerConfig { limits, bodies_bytes_max: 3 << 20, ..HttpServerConfig::default() };
    let server = echo(config);
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048576\r\n\r\n";
    // More bodies are started than fit into memory, and none is completed: the last ones are rejected.
    let mut clients: Vec<Client> = (0..6).map(|_| server.client()).collect();
    for client in &mut clients {
        client.send(head);
        // A rejected connection can be closed before it has read everything.
        let _ = client.stream.write_all(&vec![b'y'; 1_048_575]);
    }
    until("some are refused", || server.metrics.http_rejected_bad_request.get() > 0);
    drop(clients);
    until("all have ended", || server.metrics.listener("http").open.get() == 0);
    let mut client = server.client();
    client.send(format!("{head}{}", "y".repeat(1 << 20)));
    assert_eq!(client.answer().status, 200);
    // A response can exceed the memory, too.
    assert_eq!(client.get("/large").status, 503);
    assert_eq!(client.get("/").status, 200);
    server.end();
}

#[test]
fn a_body_is_asked_for_only_where_it_is_wanted() {
    let server = echo(HttpServerConfig::default());
    let put = |path: &str, bytes: u64| {
        format!("PUT {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {bytes}\r\n\r\n")
    };
    let mut client = server.client();
    client.send(put("/a", 3));
    assert_eq!(client.head_only().status, 100);
    client.send("abc");
    assert_eq!(client.answer().text(), "Put /a  abc");
    // A request that already has its body gets no `100 Continue`.
    client.send(put("/b", 3) + "abc");
    assert_eq!(client.answer().text(), "Put /b  abc");
    // Rejected without a pending body: the connection stays open.
    assert_eq!(client.get("/forbidden").status, 403);
    client.send(put("/forbidden", 3));
    let answer = client.answer();
    assert!(answer.status == 403 && answer.closes());
    assert!(client.is_closed());
    let mut client = server.client();
    client.send(put("/a", u64::MAX));
    assert_eq!(client.answer().status, 413);
    server.end();
}

#[test]
fn hostile_requests_are_answered_and_end_their_connection() {
    let server = echo(HttpServerConfig::default());
    let mut good = server.client();
    let long = "x".repeat(20_000);
    let table = [
        ("GET / HTTP/1.1\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\nHost: a\n\n".into(), 400),
        ("GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\nHost: a\0\r\n\r\n".into(), 400),
        ("\x16\x03\x01\x02\0\x01\0\x01\u{7f}\x03\x03".into(), 400),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
                .into(),
            400,
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde".into(), 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n".into(), 413),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n".into(), 501),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), 505),
        ("POST / HTTP/1.0\r\n\r\nabc".into(), 411),
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(64)), 431),
    ];
    for (n, (input, status)) in table.iter().enumerate() {
        let mut client = server.client();
        client.send(input);
        let answer = client.answer();
        assert_eq!(answer.status, *status, "{input:.100}");
        assert!(answer.closes() && client.is_closed(), "{input:.100}");
        assert!(answer.text().starts_with(&status.to_string()) && answer.body.len() < 100);
        assert_eq!(good.get("/").status, 200);
        assert_eq!(server.metrics.http_rejected_bad_request.get(), n as u64 + 1);
    }
    server.end();
}

#[test]
fn half_requests_end_at_their_deadline() {
    let config = hasty();
    let deadline = Duration::from_millis(config.request_timeout_ms);
    let server = echo(config);
    let halves = [
        "G",
        "GET / HTTP/1.1\r\nHost: a\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
    ];
    let started = Instant::now();
    let mut clients: Vec<Client> = halves.iter().map(|_| server.client()).collect();
    for (client, half) in clients.iter_mut().zip(halves) {
        client.send(half);
    }
    for client in &mut clients {
        let answer = client.answer();
        assert!(answer.status == 408 && answer.closes());
        assert!(started.elapsed() >= deadline);
    }
    // An incomplete request gets an answer as well, because the peer may have closed only its sending
    // direction.
    let mut client = server.client();
    client.send("GET / HTTP/1.1\r\n");
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.answer().status, 400);
    server.end();
}

/// Sends one byte every 20 ms while the server accepts them. Returns the duration.
fn drip(server: &Running, head: &str) -> (u16, Duration) {
    let mut client = server.client();
    client.send(head);
    let started = Instant::now();
    client.stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    loop {
        match client.stream.peek(&mut [0]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => client.send("x"),
            _ => break,
        }
        assert!(started.elapsed() < client::PATIENCE);
    }
    client.stream.set_read_timeout(Some(client::PATIENCE)).unwrap();
    (client.answer().status, started.elapsed())
}

#[test]
fn a_slow_drip_does_not_move_the_deadline() {
    let server = echo(hasty());
    for head in ["GET / HTTP/1.1\r\nX: ", "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"] {
        let (status, took) = drip(&server, head);
        assert_eq!(status, 408);
        assert!(took >= Duration::from_millis(350) && took < Duration::from_secs(5), "{took:?}");
    }
    server.end();
}

#[test]
fn a_header_of_a_gigabyte_is_cut_off_early() {
    let server = echo(HttpServerConfig::default());
    let mut client = server.client();
    client.stream.set_write_timeout(Some(client::PATIENCE)).unwrap();
    client.send("GET / HTTP/1.1\r\nX: ");
    let piece = vec![b'x'; 1 << 20];
    let taken = (0..1024).take_while(|_| client.stream.write_all(&piece).is_ok()).count();
    assert!(taken < 64, "{taken} MiB were taken");
    until("it is refused", || server.metrics.http_rejected_bad_request.get() == 1);
    assert_eq!(server.client().get("/").status, 200);
    server.end();
}

#[test]
fn three_hundred_slow_peers_do_not_stand_in_the_way() {
    // Longer than the test takes on any machine, so that all connections are open at once.
    // One peer gets half of the connections.
    let config = HttpServerConfig {
        request_timeout_ms: 600_000,
        connections_max: 1024,
        ..HttpServerConfig::default()
    };
    let server = echo(config);
    let mut slow: Vec<Client> = (0..300).map(|_| server.client()).collect();
    for client in &mut slow {
        client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ");
    }
    until("all are connected", || server.metrics.listener("http").open.get() == 300);
    let mut kept = server.client();
    for _ in 0..200 {
        assert_eq!(kept.get("/kept").status, 200);
        assert_eq!(server.client().get("/fresh").status, 200);
    }
    assert_eq!(server.metrics.http_rejected_bad_request.get(), 0, "the slow ones are still there");
    drop(slow);
    assert_eq!(kept.get("/kept").status, 200);
    server.end();
}

#[test]
fn connections_are_limited() {
    let server = echo(HttpServerConfig { connections_max: 3, ..HttpServerConfig::default() });
    let mut clients: Vec<Client> = (0..3).map(|_| server.client()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").status, 200);
    }
    for _ in 0..3 {
        let mut refused = server.client();
        refused.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = refused.answer();
        assert!(answer.status == 503 && answer.closes());
        assert!(refused.is_closed());
    }
    assert_eq!(server.metrics.listener("http").rejected_total(), 3);
    clients.pop();
    until("a place is free", || server.metrics.listener("http").open.get() == 2);
    assert_eq!(server.client().get("/").status, 200);
    for client in &mut clients {
        assert_eq!(client.get("/").status, 200);
    }
    server.end();
}

#[test]
fn an_idle_connection_ends() {
    let server = echo(HttpServerConfig { idle_timeout_ms: 200, ..hasty() });
    let mut used = server.client();
    assert_eq!(used.get("/").status, 200);
    let mut unused = server.client();
    let mut blank = server.client();
    blank.send("\r\n");
    assert!(used.is_closed() && unused.is_closed() && blank.is_closed());
    assert_eq!(server.metrics.http_rejected_bad_request.get(), 0);
    server.end();
}

#[test]
fn a_stop_ends_idle_connections_at_once() {
    let server = echo(HttpServerConfig { stop_grace_ms: 60_000, ..HttpServerConfig::default() });
    let mut clients: Vec<Client> = (0..20).map(|_| server.client()).collect();
    for client in &mut clients[..10] {
        assert_eq!(client.get("/").status, 200);
    }
    until("all are connected", || server.metrics.listener("http").open.get() == 20);
    let addr = server.addr;
    let took = server.end();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(clients.iter_mut().all(Client::is_closed));
    assert_eq!(TcpStream::connect(addr).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_stop_lets_a_request_under_way_finish() {
    let gate = <&Gate>::default();
    let server = Running::start(HttpServerConfig { stop_grace_ms: 10_000, ..hasty() }, Echo { gate });
    let (mut busy, mut arriving) = (server.client(), server.client());
    busy.send("GET /gate HTTP/1.1\r\nHost: a\r\n\r\n");
    until("the request is under way", || gate.reached.load(Ordering::SeqCst));
    arriving.send("POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    assert_eq!(arriving.head_only().status, 100);
    let mut idle = server.client();
    assert_eq!(idle.get("/").status, 200);
    server.stop.trigger();
    assert!(idle.is_closed());
    arriving.send("abc");
    let answer = arriving.answer();
    assert!(answer.text() == "Post /a  abc" && answer.closes());
    gate.open();
    let answer = busy.answer();
    assert!(answer.text() == "gate" && answer.closes());
    server.end();
}

#[test]
fn a_stop_does_not_wait_for_a_half_request() {
    let server = echo(HttpServerConfig { stop_grace_ms: 300, ..HttpServerConfig::default() });
    let mut half = server.client();
    half.send("POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    assert_eq!(half.head_only().status, 100);
    let took = server.end();
    assert!(took >= Duration::from_millis(250) && took < Duration::from_secs(5), "{took:?}");
    assert_eq!(half.answer().status, 408);
}

#[test]
fn a_peer_that_does_not_read_is_cut_off() {
    let server = echo(hasty());
    let mut client = server.client();
    let started = Instant::now();
    client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    until("it is cut off", || server.metrics.http_rejected_bad_request.get() == 1);
    assert!(started.elapsed() >= Duration::from_millis(400));
    until("its thread has ended", || server.metrics.listener("http").open.get() == 0);
    let mut received = Vec::new();
    let _ = client.stream.read_to_end(&mut received);
    assert!(received.len() < LARGE_BYTES);
    // A client that reads gets the whole response.
    assert_eq!(server.client().get("/large").body.len(), LARGE_BYTES);
    server.end();
}

#[test]
fn a_stop_does_not_wait_for_a_peer_that_does_not_read() {
    let server = echo(HttpServerConfig { stop_grace_ms: 300, ..HttpServerConfig::default() });
    let mut client = server.client();
    client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    // The response has started.
    client.stream.peek(&mut [0]).unwrap();
    let took = server.end();
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_stop_does_not_wait_for_a_peer_that_reads_slowly() {
    let server = echo(HttpServerConfig { stop_grace_ms: 300, ..HttpServerConfig::default() });
    let mut client = server.client();
    client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    let (ended, has_ended) = std::sync::mpsc::channel::<()>();
    // At most 4 KiB per millisecond: the whole response would take 4 s.
    let reader = std::thread::spawn(move || {
        let mut received = 0;
        while let Err(RecvTimeoutError::Timeout) = has_ended.recv_timeout(Duration::from_millis(1)) {
            received += client.stream.read(&mut [0; 4096]).unwrap_or(0);
        }
        received
    });
    let took = server.end();
    drop(ended);
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(reader.join().unwrap() < LARGE_BYTES);
}

#[test]
fn a_handler_that_panics_is_a_500() {
    let server = echo(HttpServerConfig::default());
    let mut client = server.client();
    let answer = client.get("/panic");
    assert!(answer.status == 500 && answer.closes());
    assert!(client.is_closed());
    assert_eq!(server.client().get("/").status, 200);
    server.end();
}

/// What a parser makes of the input, split so: the steps that are no [`Step::More`].
fn steps<'a>(segments: impl Iterator<Item = &'a [u8]>) -> Vec<ParseStep> {
    let mut parser = RequestParser::new(RequestLimits::default());
    let mut steps = Vec::new();
    for mut rest in segments {
        loop {
            let (used, step) = parser.feed(rest);
            rest = &rest[used..];
            match step {
                ParseStep::NeedMore => break,
                ParseStep::Invalid(_) => {
                    steps.push(step);
                    return steps;
                }
                ParseStep::Request => parser.next_request(),
                ParseStep::Head => {}
            }
            steps.push(step);
        }
    }
    steps
}

fn check_splits(input: &[u8]) {
    let whole = steps(std::iter::once(input));
    for bytes in [1, 2, 7, 64] {
        assert_eq!(steps(input.chunks(bytes)), whole, "{bytes} bytes at once: {}", input.escape_ascii());
    }
}

/// The seeds of the fuzz target and many similar inputs, tried in each run of the tests.
#[test]
fn seeds_of_the_fuzz_target() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/fuzz/http");
    let mut seeds = 0;
    // A xorshift generator: always the same inputs.
    let mut state = 0x9e37_79b9_u32;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as usize % below
    };
    for entry in std::fs::read_dir(folder).unwrap() {
        let seed = std::fs::read(entry.unwrap().path()).unwrap();
        check_splits(&seed);
        for _ in 0..1000 {
            let mut input = seed.clone();
            for _ in 0..=random(3) {
                let at = random(input.len());
                match random(4) {
                    0 => input[at] = random(256) as u8,
                    1 => input.insert(at, b"\r\n\t :;,0f\0"[random(10)]),
                    2 => drop(input.remove(at)),
                    _ => input.extend_from_within(at..),
                }
            }
            check_splits(&input);
        }
        seeds += 1;
    }
    assert!(seeds >= 10, "{seeds} seeds");
}
