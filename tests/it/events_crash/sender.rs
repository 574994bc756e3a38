//! A sender over HTTP. It remembers which requests were acknowledged, and sends the others again.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::check;
use crate::http::client::{Answer, Client};
use crate::support::{DEADLINE, Events, Random};

/// Words that no other event contains. They make the store's segments grow, so that kills hit segments that
/// are being written.
const WORDS: u64 = 40;

/// Largest bulk request in events. Longer ones come from [`Sender::fill`].
const BULK_MAX: u64 = 60;
const BULK_LONG: u64 = 4_000;

/// Kinds of requests that a sender makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// `_bulk`, the server generates the ids.
    Bulk,
    /// `_bulk` with ids; a repeated event replaces the stored one.
    BulkIndex,
    /// `_bulk` with ids; a repeated event is rejected.
    BulkCreate,
    /// `POST /opensips/1`.
    Typed,
    /// `POST /INDEX/_doc`.
    Post,
    /// `PUT /INDEX/_doc/ID`.
    Put,
    /// `PUT /INDEX/_create/ID`.
    Create,
}

impl Way {
    pub(super) const ALL: [Way; 7] =
        [Way::Bulk, Way::BulkIndex, Way::BulkCreate, Way::Typed, Way::Post, Way::Put, Way::Create];

    /// Returns true if the sender sets the ids of its events.
    pub(super) fn has_own_ids(self) -> bool {
        !matches!(self, Way::Bulk | Way::Typed | Way::Post)
    }

    fn is_bulk(self) -> bool {
        matches!(self, Way::Bulk | Way::BulkIndex | Way::BulkCreate)
    }

    fn creates(self) -> bool {
        matches!(self, Way::BulkCreate | Way::Create)
    }
}

/// Outcome of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    /// No answer arrived. [`Sender::check_new`] determines the outcome.
    Unknown,
    /// Acknowledged, or found after a kill, with these ids.
    Stored(Vec<String>),
    /// Nothing was stored: rejected, or killed too early.
    Lost,
}

/// A request with the events `first..first + count`.
struct Attempt {
    first: u64,
    count: u64,
    fate: Fate,
}

pub(super) struct Sender {
    pub no: u64,
    pub way: Way,
    random: Random,
    attempts: Vec<Attempt>,
    /// Number of the next new event.
    next: u64,
    /// Last request, until it is acknowledged.
    pending: Option<(u64, u64)>,
    /// Number of the first event that has not been checked yet.
    unchecked: u64,
    refused: u64,
    again: u64,
}

impl Sender {
    pub(super) fn new(no: u64, way: Way, random: Random) -> Sender {
        Sender {
            no,
            way,
            random,
            attempts: Vec::new(),
            next: 0,
            pending: None,
            unchecked: 0,
            refused: 0,
            again: 0,
        }
    }

    /// Sends until the server is gone. Counts answers.
    pub(super) fn send_until_gone(&mut self, addr: SocketAddr, acknowledged: &AtomicU64) {
        let Ok(mut client) = connect(addr) else { return };
        while self.send_one(&mut client).is_ok() {
            acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Sends many events and waits for all answers.
    pub(super) fn fill(&mut self, server: &Events, events: u64) {
        let mut client = connect(server.http()).unwrap();
        while self.next < events {
            self.next += BULK_LONG;
            self.pending = Some((self.next - BULK_LONG, BULK_LONG));
            self.finish_with(&mut client);
        }
        // These events are acknowledged. The last check covers them.
        self.unchecked = self.next;
    }

    /// Sends the request that has no answer yet.
    pub(super) fn finish(&mut self, server: &Events) {
        self.finish_with(&mut connect(server.http()).unwrap());
    }

    fn finish_with(&mut self, client: &mut Client) {
        while self.pending.is_some() {
            self.send_one(client).unwrap();
        }
    }

    fn send_one(&mut self, client: &mut Client) -> io::Result<()> {
        let (first, count) = self.choose();
        self.pending = Some((first, count));
        self.unchecked = self.unchecked.min(first);
        let nth = self.attempts.len();
        self.attempts.push(Attempt { first, count, fate: Fate::Unknown });
        let answer = client.try_ask(&self.request(first, count, nth))?;
        if answer.status == 429 {
            self.attempts[nth].fate = Fate::Lost;
            self.refused += 1;
            return Ok(());
        }
        self.attempts[nth].fate = self.acknowledged(&answer, first, count);
        self.pending = None;
        Ok(())
    }

    /// Chooses the next events: those without an answer, sometimes acknowledged ones where a repeat is
    /// harmless, otherwise new ones.
    fn choose(&mut self) -> (u64, u64) {
        if let Some(pending) = self.pending {
            self.again += 1;
            return pending;
        }
        if self.way.has_own_ids() && !self.attempts.is_empty() && self.random.below(10) == 0 {
            let back = 1 + self.random.below(20.min(self.attempts.len() as u64));
            let earlier = &self.attempts[self.attempts.len() - back as usize];
            if matches!(earlier.fate, Fate::Stored(_)) {
                return (earlier.first, earlier.count);
            }
        }
        let count = if self.way.is_bulk() { 1 + self.random.below(BULK_MAX) } else { 1 };
        self.next += count;
        (self.next - count, count)
    }

    fn id(&self, n: u64) -> String {
        format!("{}-{n}", self.no)
    }

    fn request(&self, first: u64, count: u64, nth: usize) -> Vec<u8> {
        let id = self.id(first);
        let (method, target) = match self.way {
            Way::Bulk | Way::BulkIndex | Way::BulkCreate => ("POST", "/crash/_bulk".to_owned()),
            Way::Typed => ("POST", "/opensips/1".to_owned()),
            Way::Post => ("POST", "/crash/_doc".to_owned()),
            Way::Put => ("PUT", format!("/crash/_doc/{id}")),
            Way::Create => ("PUT", format!("/crash/_create/{id}")),
        };
        let mut body = String::new();
        for n in first..first + count {
            match self.way {
                Way::Bulk => body.push_str("{\"index\":{}}\n"),
                Way::BulkIndex => body.push_str(&format!("{{\"index\":{{\"_id\":\"{}\"}}}}\n", self.id(n))),
                Way::BulkCreate => body.push_str(&format!("{{\"create\":{{\"_id\":\"{}\"}}}}\n", self.id(n))),
                _ => {}
            }
            body.push_str(&self.source(n, nth));
            body.push('\n');
        }
        format!("{method} {target} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
            .into_bytes()
    }

    fn source(&self, n: u64, nth: usize) -> String {
        let mut source = json!({"sender": self.no, "n": n, "try": nth, "@timestamp": check::day(n)});
        match self.way {
            // The events of [`Sender::fill`] are among these.
            Way::Bulk => {}
            Way::BulkIndex => {
                let words: Vec<String> = (0..WORDS).map(|word| format!("{n:x}w{word:x}")).collect();
                source["words"] = words.join(" ").into();
            }
            _ => source["destNum"] = format!("+{}", 447_700_900_000 + n % 1_000).into(),
        }
        source.to_string()
    }

    /// Evaluates an answer. Panics if this request cannot have this answer.
    fn acknowledged(&self, answer: &Answer, first: u64, count: u64) -> Fate {
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        let items: Vec<(u64, &Value)> = if self.way.is_bulk() {
            assert_eq!(answer.status, 200, "{body}");
            let items = body["items"].as_array().unwrap();
            let inner = items.iter().map(|item| item.as_object().unwrap().values().next().unwrap());
            inner.map(|item| (item["status"].as_u64().unwrap(), item)).collect()
        } else {
            vec![(answer.status.into(), &body)]
        };
        assert_eq!(items.len() as u64, count);
        let conflicts = items.iter().filter(|(status, _)| *status == 409).count() as u64;
        if conflicts > 0 {
            assert_eq!(conflicts, count, "half of an earlier bulk was there: {body}");
            let there = |earlier: &Attempt| earlier.first == first && matches!(earlier.fate, Fate::Stored(_));
            assert!(self.way.creates() && self.attempts.iter().any(there), "it was never stored: {body}");
            return Fate::Lost;
        }
        assert!(items.iter().all(|(status, _)| matches!(status, 200 | 201)), "{body}");
        Fate::Stored(items.iter().map(|(_, item)| item["_id"].as_str().unwrap().to_owned()).collect())
    }

    /// Determines the outcome of requests without an answer, and checks everything sent since the last call.
    pub(super) fn check_new(&mut self, server: &Events) {
        let found = self.found(server, self.unchecked);
        for nth in 0..self.attempts.len() {
            let Attempt { first, count, fate: Fate::Unknown } = self.attempts[nth] else { continue };
            let of_it = found.iter().filter(|(_, by, _)| *by == nth as u64);
            let ids: Vec<String> = of_it.map(|(_, _, id)| id.clone()).collect();
            let stored = ids.len() as u64;
            assert!(
                stored == 0 || stored == count,
                "{stored} of {count} of a request from {first} on are stored"
            );
            self.attempts[nth].fate = if stored == 0 { Fate::Lost } else { Fate::Stored(ids) };
        }
        self.compare(found, self.unchecked);
        self.unchecked = self.next;
    }

    /// Checks that the events from number `from` on are stored once, as they were sent.
    pub(super) fn check(&self, server: &Events, from: u64) {
        self.compare(self.found(server, from), from);
    }

    fn compare(&self, found: Vec<(u64, u64, String)>, from: u64) {
        let expected = self.expected(from);
        if found != expected {
            let at = found.iter().zip(&expected).position(|(one, other)| one != other);
            let at = at.unwrap_or(found.len().min(expected.len()));
            panic!(
                "{:?}: {} in place of {} events from {from} on; number, request, id: {:?} in place of {:?}",
                self.way,
                found.len(),
                expected.len(),
                found.get(at),
                expected.get(at)
            );
        }
    }

    /// Returns number, request and id of the stored events.
    fn found(&self, server: &Events, from: u64) -> Vec<(u64, u64, String)> {
        let hits = check::sources(server, self.no, from, self.next);
        let number = |hit: &Value, name: &str| hit["_source"][name].as_u64().unwrap();
        let triple =
            |hit: Value| (number(&hit, "n"), number(&hit, "try"), hit["_id"].as_str().unwrap().to_owned());
        let mut found: Vec<_> = hits.into_iter().map(triple).collect();
        found.sort();
        found
    }

    /// Returns what must be stored: all requests, or for events with own ids the first or the last stored
    /// one.
    fn expected(&self, from: u64) -> Vec<(u64, u64, String)> {
        let mut expected = Vec::new();
        for (nth, attempt) in self.attempts.iter().enumerate() {
            let Fate::Stored(ids) = &attempt.fate else { continue };
            expected.extend(
                (attempt.first..)
                    .zip(ids)
                    .filter(|(n, _)| *n >= from)
                    .map(|(n, id)| (n, nth as u64, id.clone())),
            );
        }
        expected.sort();
        if self.way.has_own_ids() {
            if !self.way.creates() {
                expected.reverse();
            }
            expected.dedup_by_key(|(n, _, _)| *n);
            expected.sort();
        }
        expected
    }

    /// Returns how many events of this sender are stored.
    pub(super) fn total(&self) -> u64 {
        let stored = self.attempts.iter().filter(|attempt| matches!(attempt.fate, Fate::Stored(_)));
        let mut batches: Vec<(u64, u64)> = stored.map(|attempt| (attempt.first, attempt.count)).collect();
        batches.sort();
        if self.way.has_own_ids() {
            batches.dedup();
        }
        batches.iter().map(|(_, count)| count).sum()
    }
}

/// Writing a segment to the disk blocks all requests, for long on a slow machine.
fn connect(addr: SocketAddr) -> io::Result<Client> {
    let client = Client::try_connect(addr)?;
    client.stream.set_read_timeout(Some(DEADLINE))?;
    Ok(client)
}

/// Summarizes what was sent.
pub(super) fn told(senders: &[Sender]) -> String {
    let sum = |of: fn(&Sender) -> u64| senders.iter().map(of).sum::<u64>();
    let lost =
        |sender: &Sender| sender.attempts.iter().filter(|attempt| attempt.fate == Fate::Lost).count() as u64;
    format!(
        "{} requests, {} not stored, {} refused as full, {} sent again",
        sum(|sender| sender.attempts.len() as u64),
        sum(lost),
        sum(|sender| sender.refused),
        sum(|sender| sender.again)
    )
}
