//! A sender of lines or syslog, which get no acknowledgement. The stored events of a connection are a prefix
//! of those sent, and events that a query found before a kill are still stored after it.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::check;
use crate::http::client::Client;
use crate::support::Events;

/// Lines per write, and the pause between writes, which leaves time for other senders.
const AT_ONCE: u64 = 25;
const PAUSE: Duration = Duration::from_millis(2);

/// Format of the lines.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// JSON lines.
    Lines,
    /// RFC 3164.
    Syslog,
}

/// A sender that connects once per round.
pub(super) struct Stream {
    pub no: u64,
    kind: Kind,
    /// First event of this round, and the next event.
    first: u64,
    next: u64,
    /// The number of events stored in earlier rounds.
    stored: u64,
    /// Highest count that a query returned, over all rounds.
    seen: u64,
}

impl Stream {
    pub(super) fn new(no: u64, kind: Kind) -> Stream {
        Stream { no, kind, first: 0, next: 0, stored: 0, seen: 0 }
    }

    /// Returns the listener that it sends to.
    pub(super) fn listener(&self) -> &'static str {
        match self.kind {
            Kind::Lines => "lines",
            Kind::Syslog => "syslog transport=tcp",
        }
    }

    /// Sends until the server is gone. Meanwhile queries how many events are stored.
    pub(super) fn send_until_gone(&mut self, addr: SocketAddr, http: SocketAddr) {
        let (no, gone) = (self.no, AtomicBool::new(false));
        let asked = thread::scope(|scope| {
            let asking = scope.spawn(|| last_count(http, no, &gone));
            // The server is killed on purpose, so the send fails.
            let _ = self.send(addr);
            gone.store(true, Ordering::Relaxed);
            asking.join().unwrap()
        });
        self.seen = asked.unwrap_or(self.seen);
    }

    fn send(&mut self, addr: SocketAddr) -> io::Result<()> {
        let mut tcp = TcpStream::connect(addr)?;
        loop {
            let lines: String = (self.next..self.next + AT_ONCE).map(|n| self.line(n)).collect();
            self.next += AT_ONCE;
            tcp.write_all(lines.as_bytes())?;
            thread::sleep(PAUSE);
        }
    }

    fn line(&self, n: u64) -> String {
        let no = self.no;
        match self.kind {
            Kind::Lines => {
                format!("{{\"@timestamp\":\"{}\",\"sender\":{no},\"n\":{n}}}\n", check::day(n))
            }
            Kind::Syslog => format!("<13>Nov 21 20:59:41 honey1 crash[7]: sender {no} n {n}\n"),
        }
    }

    /// Checks what is stored of the round that has ended.
    pub(super) fn check_new(&mut self, server: &Events) {
        let hits = check::sources(server, self.no, self.first, self.next);
        let mut found: Vec<u64> =
            hits.iter().map(|hit: &Value| hit["_source"]["n"].as_u64().unwrap()).collect();
        found.sort_unstable();
        let expected: Vec<u64> = (self.first..).take(found.len()).collect();
        assert_eq!(found, expected, "sender {}: not the begin of what was sent, or not once", self.no);
        self.stored += found.len() as u64;
        assert!(
            self.stored >= self.seen,
            "sender {}: {} were there, {} are",
            self.no,
            self.seen,
            self.stored
        );
        self.first = self.next;
    }

    /// Returns how many of its events are stored.
    pub(super) fn total(&self) -> u64 {
        self.stored
    }
}

/// Queries the count repeatedly until the server is gone. Returns the last answer.
fn last_count(http: SocketAddr, no: u64, gone: &AtomicBool) -> Option<u64> {
    let mut client = Client::try_connect(http).ok()?;
    let request = format!("GET /_count?q=sender:{no} HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut last = None;
    while let Ok(answer) = client.try_ask(request.as_bytes()) {
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        last = body["count"].as_u64().or(last);
        if gone.load(Ordering::Relaxed) {
            break;
        }
        thread::sleep(PAUSE);
    }
    last
}
