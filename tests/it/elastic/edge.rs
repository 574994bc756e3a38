//! Hostile peers on the listener that accepts large bodies, and well-behaved requests at the same time.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use lea::es_api::{BODY_BYTES_MAX, EsApi};
use lea::http::HttpServerConfig;
use lea::http::basic_auth::{User, Users, hash_password};

use super::{Events, ask};
use crate::http::client::{Answer, Client, until};

fn events() -> Events {
    Events::start(EsApi::server_config(), Users::allow_all())
}

/// Checks that a look-up still works.
#[track_caller]
fn check_served(events: &Events) {
    let answer = ask(&mut events.server.client(), "GET", "/_count?q=destNum:1", "");
    assert_eq!(answer.status, 200, "{}", answer.text());
}

fn is_served(events: &Events) -> bool {
    ask(&mut events.server.client(), "GET", "/_count?q=destNum:1", "").status == 200
}

fn packed(bytes: usize) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let block = vec![b' '; 1 << 20];
    for _ in 0..bytes >> 20 {
        encoder.write_all(&block).unwrap();
    }
    encoder.finish().unwrap()
}

fn send_packed(client: &mut Client, body: &[u8]) -> Answer {
    let length = body.len();
    client.send(format!(
        "POST /_bulk HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-ndjson\r\nContent-Encoding: gzip\r\nContent-Length: {length}\r\n\r\n"
    ));
    client.send(body);
    client.answer()
}

#[test]
fn gzip_bombs_are_refused_in_time_and_memory() {
    let events = events();
    let bomb = packed(BODY_BYTES_MAX + (8 << 20));
    assert!(bomb.len() < 1 << 20, "{} bytes are no bomb", bomb.len());
    let answer = send_packed(&mut events.server.client(), &bomb);
    assert_eq!(answer.status, 413, "{}", answer.text());
    // Several at once: each is rejected, by one limit or another.
    let mut clients: Vec<Client> = (0..4).map(|_| events.server.client()).collect();
    std::thread::scope(|scope| {
        for client in &mut clients {
            let bomb = &bomb;
            scope.spawn(move || {
                let status = send_packed(client, bomb).status;
                assert!(matches!(status, 413 | 429 | 503), "{status}");
            });
        }
        check_served(&events);
    });
    check_served(&events);
    events.server.end();
}

#[test]
fn packed_bodies_are_stored() {
    let events = events();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(b"{\"index\":{\"_index\":\"a\",\"_id\":\"1\"}}\n{\"k\":1}\n").unwrap();
    let mut client = events.server.client();
    let answer = send_packed(&mut client, &encoder.finish().unwrap());
    assert!(answer.status == 200 && answer.text().contains("\"errors\":false"), "{}", answer.text());
    assert_eq!(ask(&mut client, "GET", "/a/_source/1", "").text(), "{\"k\":1}");
    events.server.end();
}

#[test]
fn ambiguous_and_half_requests_are_refused_or_closed() {
    let events = events();
    for (request, status) in [
        (
            "POST /_bulk HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        ("POST /_bulk HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n{}\r\n\r\n", 400),
        ("POST /_bulk HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n", 413),
        ("GET /_count HTTP/1.1\nHost: a\n\n", 400),
        ("GET /_count HTTP/1.1\r\n\r\n", 400),
    ] {
        let mut client = events.server.client();
        client.send(request);
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (status, true), "{request:?}");
        check_served(&events);
    }
    events.server.end();
}

#[test]
fn headers_without_an_end_are_cut_off() {
    let events = events();
    let mut client = events.server.client();
    client.send("GET /_count HTTP/1.1\r\nHost: a\r\n");
    let line = format!("X-A: {}\r\n", "b".repeat(1000)).repeat(64);
    let mut sent = 0_u64;
    // Sends up to a gigabyte if the server accepts it.
    while sent < 1 << 30 && client.stream.write_all(line.as_bytes()).is_ok() {
        sent += line.len() as u64;
    }
    assert!(sent < 64 << 20, "{sent} bytes were taken");
    check_served(&events);
    events.server.end();
}

/// Starts a server with 300 connections whose requests have started and do not end within the request
/// timeout.
fn slow(request_timeout_ms: u64) -> (Events, Vec<Client>) {
    // One peer gets half of the connections.
    let config = HttpServerConfig { request_timeout_ms, connections_max: 1024, ..EsApi::server_config() };
    let events = Events::start(config, Users::allow_all());
    let slow = (0..300).map(|_| {
        let mut client = events.server.client();
        client.send("POST /_bulk HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{");
        client
    });
    let slow = slow.collect();
    (events, slow)
}

#[test]
fn slow_connections_leave_room_for_good_ones() {
    // The timeout is longer than the test takes on any machine, so all connections are open at once.
    let (events, slow) = slow(600_000);
    until("300 slow connections", || events.server.metrics.listener("http").open.get() == 300);
    check_served(&events);
    assert_eq!(events.server.metrics.http_rejected_bad_request.get(), 0, "the slow ones are still there");
    drop(slow);
    events.server.end();
}

#[test]
fn slow_connections_are_cut_off() {
    // The number of open connections does not matter here. A busy machine may take a second between a connection and its
    // first byte, and a connection without a byte is closed without an answer.
    let (events, mut slow) = slow(3000);
    for client in &mut slow {
        assert_eq!(client.answer().status, 408);
    }
    check_served(&events);
    events.server.end();
}

#[test]
fn bodies_are_bounded_together() {
    // Held memory stays held until its peer disconnects.
    let config = HttpServerConfig { request_timeout_ms: 600_000, ..EsApi::server_config() };
    let events = Events::start(config, Users::allow_all());
    let part = vec![b' '; BODY_BYTES_MAX - 1];
    let mut clients: Vec<Client> = (0..4).map(|_| events.server.client()).collect();
    for client in &mut clients {
        client.send(format!("POST /_bulk HTTP/1.1\r\nHost: a\r\nContent-Length: {BODY_BYTES_MAX}\r\n\r\n"));
        // The last byte never arrives. The write fails when the server closes the connection.
        let _ = client.stream.write_all(&part);
    }
    // Four bodies exceed 64 MiB in total, so at least one is rejected. Accepted bodies are held completely.
    until("a body too many is refused", || events.server.metrics.http_rejected_bad_request.get() >= 1);
    // The memory of the refused body is free a moment after the answer.
    until("the others are served", || is_served(&events));
    drop(clients);
    until("the others are gone", || events.server.metrics.listener("http").open.get() == 0);
    check_served(&events);
    events.server.end();
}

/// Password guessing is rejected, and clients with a valid password are served in the meantime.
#[test]
fn guessing_passwords_does_not_stop_others() {
    let user = User { name: "proxy".to_owned(), password_hash: hash_password(b"secret").unwrap() };
    let events = Events::start(EsApi::server_config(), Users::new(vec![user]).unwrap());
    let count = |client: &mut Client, header: &str| {
        client.send(format!("GET /_count HTTP/1.1\r\nHost: a\r\nAuthorization: Basic {header}\r\n\r\n"));
        client.answer().status
    };
    let right = "cHJveHk6c2VjcmV0";
    let mut good = events.server.client();
    assert_eq!(count(&mut good, right), 200);
    std::thread::scope(|scope| {
        for guesser in 0..8 {
            let (server, count) = (&events.server, &count);
            scope.spawn(move || {
                for guess in 0..3 {
                    // proxy:000, ...
                    let status = count(&mut server.client(), &format!("cHJveHk6{guesser}{guess}Aw"));
                    assert!(matches!(status, 401 | 429), "{status}");
                }
            });
        }
        for _ in 0..50 {
            assert_eq!(count(&mut good, right), 200);
        }
    });
    events.server.end();
}
