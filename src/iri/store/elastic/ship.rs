//! The thread `queue-ship`: reads the queue from the confirmed position on and brings it to the cluster, in order, a bulk
//! at a time.
//!
//! Invariant: the position moves on when each event before it is in the cluster or in the dead letters. A bulk whose answer
//! was lost is sent again as it was: its ids are its own, so nothing is there twice.
//!
//! Events whose ids are ours go in two requests beside each other: a node takes each with one thread. Where a sender gave
//! an id, the last word has to stay the last, so these go one behind the other.

use std::io;
use std::sync::Arc;
use std::thread::{Builder, ScopedJoinHandle};
use std::time::{Duration, Instant};

use chrono::Utc;
use ureq::http::Method;

use super::backoff::Backoff;
use super::bulk::{self, Fate, Item};
use super::client::{Body, Client, ClientError};
use super::event::{self, Event};
use super::place::{self, Place, Places, Trouble};
use super::queue::{Confirmer, Damage, Next, Position, Reader, Shared};
use super::template::Given;
use crate::counters::Counters;
use crate::iri::event::rfc3339;
use crate::iri::store::dead_letters::{DeadLetter, DeadLetters};

/// What a bulk may take in the cluster.
const BULK_TIMEOUT: Duration = Duration::from_secs(60);

/// Between two looks for old indices.
const CHECK_EVERY: Duration = Duration::from_secs(3_600);

/// Between two words about the same trouble.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// Requests beside each other.
const LANES: usize = 2;

/// Fewer events go in one request.
const LANES_EVENTS_MIN: usize = 1_000;

/// After an error the fates of all events of so many bulks are asked for; otherwise only whether there was one, which a
/// node says for a tenth less work.
const TOLD_AFTER_ERROR: u32 = 8;

/// So many bulks go well before larger ones are tried.
const GROW_AFTER: u32 = 8;

/// Before a disk that fails is asked again.
const DISK_PAUSE: Duration = Duration::from_secs(1);

/// How events are shipped.
#[derive(Clone, Copy, Debug)]
pub struct ShipConfig {
    /// Bytes of a request, about.
    pub bulk_bytes: usize,
    /// Events of a request.
    pub bulk_events: usize,
    /// How long the first event waits for others.
    pub linger: Duration,
    /// Days after which events are deleted; none: never.
    pub keep_days: Option<u32>,
}

impl Default for ShipConfig {
    fn default() -> ShipConfig {
        ShipConfig {
            bulk_bytes: 4 << 20,
            bulk_events: 5_000,
            linger: Duration::from_millis(200),
            keep_days: None,
        }
    }
}

/// The shipper.
pub struct Shipper {
    client: Client,
    shared: Arc<Shared>,
    reader: Reader,
    confirmer: Confirmer,
    places: Places,
    letters: Arc<DeadLetters>,
    counters: Arc<Counters>,
    config: ShipConfig,
    backoff: Backoff,
    outage: Option<Outage>,
    /// Events of a request: fewer after one that was too large or took too long.
    events_max: usize,
    /// Bulks that went well since then.
    good_bulks: u32,
    /// Bulks of which the fate of each event is asked for.
    told_bulks: u32,
    check_at: Instant,
}

/// The cluster does not take events.
struct Outage {
    since: Instant,
    word: &'static str,
    said: Instant,
}

/// Events that are confirmed together.
#[derive(Default)]
struct Bulk {
    items: Vec<Item>,
    bytes: usize,
    end: Position,
}

impl Bulk {
    fn is_full(&self, config: &ShipConfig) -> bool {
        self.bytes >= LANES * config.bulk_bytes || self.items.len() >= LANES * config.bulk_events
    }
}

/// A request that is ready.
struct Part {
    body: Vec<u8>,
    /// How many events are in it.
    sent: usize,
    /// Those that are not, each in its place.
    refused: Vec<Option<Fate>>,
}

impl Part {
    /// The fates of all, from those of the ones that were sent.
    fn fates(self, told: Vec<Fate>) -> impl Iterator<Item = Fate> {
        let mut told = told.into_iter();
        self.refused.into_iter().map(move |refused| refused.or_else(|| told.next()).unwrap_or(Fate::NoIndex))
    }
}

/// Waiting was given up.
struct GivenUp;

/// What a request came to.
enum Sent {
    Fates(Vec<Fate>),
    /// Something is wrong with some events.
    Errors,
    /// The cluster, or what stands before it, does not take so much at once, or not this.
    Refused(String),
}

impl Shipper {
    /// A shipper from the confirmed position on.
    pub fn new(
        client: Client,
        (shared, confirmer): (Arc<Shared>, Confirmer),
        given: Given,
        letters: Arc<DeadLetters>,
        counters: Arc<Counters>,
        config: ShipConfig,
    ) -> io::Result<Shipper> {
        let reader = Reader::open(Arc::clone(&shared), shared.confirmed())?;
        Ok(Shipper {
            places: Places::new(client.clone(), given),
            backoff: Backoff::new(shared.log() ^ u64::from(std::process::id())),
            client,
            shared,
            reader,
            confirmer,
            letters,
            counters,
            config,
            outage: None,
            events_max: config.bulk_events,
            good_bulks: 0,
            told_bulks: 0,
            check_at: Instant::now(),
        })
    }

    /// Ships until nothing more comes and all is confirmed, or waiting is given up.
    pub fn run(mut self) {
        loop {
            self.check();
            let (bulk, is_last) = self.gather();
            if !bulk.items.is_empty() || bulk.end != self.shared.confirmed() {
                if self.ship(bulk.items).is_err() {
                    return;
                }
                self.confirmer.confirm(bulk.end);
            } else if is_last {
                return;
            }
        }
    }

    /// Takes from the queue what is there, once there is something. True: nothing more will come.
    fn gather(&mut self) -> (Bulk, bool) {
        let mut bulk = Bulk::default();
        let (mut until, mut lingers) = (self.check_at, false);
        loop {
            let seen = self.shared.wait_behind(self.reader.position(), until);
            while !bulk.is_full(&self.config) {
                match self.reader.next(seen.end) {
                    Ok(Some(Next::Record { number, payload })) => self.take(&mut bulk, number, &payload),
                    Ok(Some(Next::Damaged(damage))) => self.damaged(&damage),
                    Ok(None) => break,
                    Err(error) => {
                        log::error!("queue_not_read error=\"{error}\"");
                        self.shared.pause(Instant::now() + DISK_PAUSE);
                        break;
                    }
                }
            }
            bulk.end = self.reader.position();
            if bulk.is_full(&self.config) || seen.is_closed || seen.is_given_up || Instant::now() >= until {
                let is_last = seen.is_given_up || (seen.is_closed && bulk.end.byte >= seen.end.byte);
                return (bulk, is_last);
            }
            if !bulk.items.is_empty() && !std::mem::replace(&mut lingers, true) {
                until = Instant::now() + self.config.linger;
            }
        }
    }

    fn take(&mut self, bulk: &mut Bulk, number: u64, payload: &[u8]) {
        match Event::from_queue(payload) {
            Some(event) => {
                let item = Item { number, event };
                bulk.bytes += item.bytes();
                bulk.items.push(item);
            }
            None => {
                self.counters.queue_damaged_total.one();
                self.keep_damaged("a record of the queue that cannot be read", payload);
            }
        }
    }

    fn damaged(&mut self, damage: &Damage) {
        let Damage { file, offset, bytes, length, lost } = damage;
        self.counters.queue_damaged_total.add(*lost);
        log::error!("queue_damaged file={file} offset={offset} bytes={length} events={lost}");
        let reason = format!("{lost} events damaged in {file} at byte {offset}, {length} bytes");
        self.keep_damaged(&reason, bytes);
    }

    fn keep_damaged(&self, reason: &str, bytes: &[u8]) {
        // Where waiting is given up, the next start finds the damage again.
        let _ = self.letter("queue", reason, bytes);
    }

    /// Brings events into the cluster, however long that takes.
    fn ship(&mut self, mut left: Vec<Item>) -> Result<(), GivenUp> {
        while !left.is_empty() {
            if self.shared.is_given_up() {
                return Err(GivenUp);
            }
            let (count, lanes) = self.next(&left);
            match self.attempt(&left[..count], lanes) {
                Ok(Sent::Fates(fates)) => self.settle(&mut left, &fates)?,
                Ok(Sent::Refused(reason)) if count == 1 => {
                    self.refuse(&left.remove(0), &reason)?;
                }
                // Errors of a bulk that tells each fate cannot be.
                Ok(Sent::Refused(_) | Sent::Errors) => self.shrink(count),
                Err(trouble) => {
                    if trouble.may_be_of_size() {
                        self.shrink(count);
                    }
                    self.wait_out(&trouble)?;
                }
            }
        }
        Ok(())
    }

    /// How many of what is left go next, and in how many requests.
    fn next(&self, left: &[Item]) -> (usize, usize) {
        let within = |lanes: usize| {
            let mut bytes = 0;
            let fits = |item: &&Item| {
                bytes += item.bytes();
                bytes <= lanes * self.config.bulk_bytes
            };
            let count = left.iter().take(lanes * self.events_max).take_while(fits).count();
            count.max(1)
        };
        let many = within(LANES);
        let is_ours = |item: &Item| item.event.id.is_none();
        if many >= LANES_EVENTS_MIN && left[..many].iter().all(is_ours) {
            (many, LANES)
        } else {
            (within(1), 1)
        }
    }

    /// Sends half of what was too much, for a while.
    fn shrink(&mut self, count: usize) {
        self.events_max = (count.min(self.events_max) / 2).max(1);
        self.good_bulks = 0;
    }

    /// Sends events; a fate each.
    fn attempt(&mut self, items: &[Item], lanes: usize) -> Result<Sent, Trouble> {
        let parts = items.chunks(items.len().div_ceil(lanes));
        let parts = parts.map(|items| self.prepare(items)).collect::<Result<Vec<_>, _>>()?;
        let mut answers = self.request_all(&parts, self.told_bulks > 0);
        if answers.iter().any(|answer| matches!(answer, Ok(Sent::Errors))) {
            // Which ones it are the same bulk tells: what is there by now is there under its id.
            self.told_bulks = TOLD_AFTER_ERROR;
            answers = self.request_all(&parts, true);
        }
        let mut fates = Vec::with_capacity(items.len());
        for (part, answer) in parts.into_iter().zip(answers) {
            // What another part was told is told again then: its events are there.
            match answer? {
                Sent::Fates(told) => fates.extend(part.fates(told)),
                other => return Ok(other),
            }
        }
        Ok(Sent::Fates(fates))
    }

    /// Makes sure that the events' places are there, and writes the request.
    fn prepare(&mut self, items: &[Item]) -> Result<Part, Trouble> {
        let bytes = items.iter().map(Item::bytes).sum();
        let mut part = Part { body: Vec::with_capacity(bytes), sent: 0, refused: vec![None; items.len()] };
        for (item, refused) in items.iter().zip(&mut part.refused) {
            match self.places.ensure(&item.event.name, item.event.day)? {
                Place::Refused(reason) => *refused = Some(Fate::Refused(reason)),
                Place::Index(index) => {
                    item.push(&index, self.shared.log(), &mut part.body);
                    part.sent += 1;
                }
            }
        }
        Ok(part)
    }

    /// Sends all parts, the first in this thread and the others beside it.
    fn request_all(&self, parts: &[Part], is_told: bool) -> Vec<Result<Sent, Trouble>> {
        let request = |part: &Part| match part.sent {
            0 => Ok(Sent::Fates(Vec::new())),
            sent => self.request(&part.body, sent, is_told),
        };
        let Some((first, others)) = parts.split_first() else { return Vec::new() };
        std::thread::scope(|scope| {
            let start = |part| {
                let lane = Builder::new().name("queue-lane".to_owned());
                lane.spawn_scoped(scope, move || request(part)).map_err(|_| part)
            };
            let others: Vec<_> = others.iter().map(start).collect();
            let first = request(first);
            let end = |other: Result<ScopedJoinHandle<'_, _>, &Part>| match other {
                Ok(lane) => lane.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                // No thread to be had.
                Err(part) => request(part),
            };
            std::iter::once(first).chain(others.into_iter().map(end)).collect()
        })
    }

    /// Sends a request of `count` events; the fate of each where `is_told`, else whether all are well.
    fn request(&self, body: &[u8], count: usize, is_told: bool) -> Result<Sent, Trouble> {
        let left = self.shared.gives_up_at().map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = left.map_or(BULK_TIMEOUT, |left| left.clamp(Duration::from_millis(1), BULK_TIMEOUT));
        let path = format!("/_bulk?{}", if is_told { bulk::FATES } else { bulk::ERRORS });
        let send = || self.client.send_within(&Method::POST, &path, Body::Lines(body), timeout);
        let answer = match send().map_err(Trouble::from) {
            // A connection that was kept may have been closed meanwhile.
            Err(trouble @ Trouble::Away(ClientError::Unreachable { .. })) if trouble.may_be_of_size() => {
                send()?
            }
            answer => answer?,
        };
        self.counters.cluster_bulks_total.one();
        match answer.status {
            200..=299 => {
                let sent = if is_told {
                    bulk::read(&answer.body, count).map(Sent::Fates)
                } else {
                    bulk::has_errors(&answer.body).map(|has| match has {
                        true => Sent::Errors,
                        false => Sent::Fates(vec![Fate::Stored; count]),
                    })
                };
                sent.ok_or_else(|| {
                    Trouble::Person(format!(
                        "{} answers a bulk with what is no answer to one",
                        self.client.address()
                    ))
                })
            }
            413 => Ok(Sent::Refused(format!("status 413: {}", answer.cause()))),
            // Only in the cluster's own words: what stands before it may say so to anything.
            400 if answer.is_told() => Ok(Sent::Refused(format!("status 400: {}", answer.cause()))),
            status => Err(Trouble::Answered { status, cause: answer.cause() }),
        }
    }

    /// Takes out of `left` what is settled, and waits if something of it is not.
    fn settle(&mut self, left: &mut Vec<Item>, fates: &[Fate]) -> Result<(), GivenUp> {
        let again = bulk::again(&left[..fates.len()], fates);
        let later = fates.iter().find_map(|fate| match fate {
            Fate::Later(reason) => Some(reason.clone()),
            _ => None,
        });
        for (item, fate) in left.iter().zip(fates) {
            match fate {
                Fate::Stored => {}
                Fate::There => self.counters.cluster_there_total.one(),
                Fate::Later(_) => {}
                Fate::NoIndex => self.places.forget(&item.event.name),
                Fate::Refused(reason) => self.refuse(item, reason)?,
            }
        }
        let unsettled = again.iter().filter(|again| **again).count();
        self.counters.cluster_retries_total.add(unsettled as u64);
        self.counters.cluster_confirmed_total.add(
            fates
                .iter()
                .zip(&again)
                .filter(|(fate, again)| !**again && !matches!(fate, Fate::Refused(_)))
                .count() as u64,
        );
        let mut again = again.into_iter();
        left.retain(|_| again.next().unwrap_or(true));
        if unsettled == fates.len() {
            let reason = later.unwrap_or_else(|| "an index goes away as soon as it is made".to_owned());
            return self.wait_out(&Trouble::Later(reason));
        }
        self.is_well();
        if unsettled > 0 {
            let wait = self.backoff.next();
            self.pause(wait)?;
        } else {
            self.backoff.reset();
            if fates.iter().all(|fate| matches!(fate, Fate::Stored | Fate::There)) {
                self.told_bulks = self.told_bulks.saturating_sub(1);
            }
            self.good_bulks = self.good_bulks.wrapping_add(1);
            if self.good_bulks.is_multiple_of(GROW_AFTER) {
                self.events_max = (self.events_max * 2).min(self.config.bulk_events);
            }
        }
        Ok(())
    }

    /// Waits before the next attempt; says what the matter is, once in a while.
    fn wait_out(&mut self, trouble: &Trouble) -> Result<(), GivenUp> {
        self.counters.cluster_away.set(1);
        let (now, word) = (Instant::now(), trouble.word());
        let is_new = self
            .outage
            .as_ref()
            .is_none_or(|outage| outage.word != word || outage.said.elapsed() >= SAY_EVERY);
        if is_new {
            let since = self.outage.as_ref().map_or(now, |outage| outage.since);
            self.outage = Some(Outage { since, word, said: now });
            let queued = self.counters.queue_events.get();
            let text = trouble.to_string();
            let text = text.escape_debug();
            let level = if trouble.is_for_a_person() { log::Level::Error } else { log::Level::Warn };
            log::log!(
                level,
                "cluster_{word} queued_events={queued} error=\"{text}\" note=\"events wait in the queue\""
            );
        }
        if matches!(trouble, Trouble::Away(ClientError::Unreachable { .. })) {
            self.places.forget_all();
        }
        let wait = self.backoff.next();
        self.pause(wait)
    }

    fn is_well(&mut self) {
        self.counters.cluster_away.set(0);
        if let Some(outage) = self.outage.take() {
            let queued = self.counters.queue_events.get();
            log::info!(
                "cluster_again waited_ms={} queued_events={queued}",
                outage.since.elapsed().as_millis()
            );
        }
    }

    fn pause(&self, wait: Duration) -> Result<(), GivenUp> {
        match self.shared.pause(Instant::now() + wait).is_given_up {
            true => Err(GivenUp),
            false => Ok(()),
        }
    }

    /// Keeps an event that the cluster does not take.
    fn refuse(&mut self, item: &Item, reason: &str) -> Result<(), GivenUp> {
        self.counters.cluster_refused_total.one();
        let source = format!("cluster {} {}", self.client.address(), item.event.name);
        self.letter(&source, reason, &item.event.own_source())
    }

    /// Keeps a dead letter. A disk that is full is waited for; a file of letters that is full is not.
    fn letter(&self, source: &str, reason: &str, text: &[u8]) -> Result<(), GivenUp> {
        let letter = DeadLetter {
            time: rfc3339(&Utc::now()),
            source: source.to_owned(),
            reason: reason.to_owned(),
            text: text.to_vec(),
        };
        loop {
            match self.letters.add(&letter) {
                Ok(()) => self.counters.event_dead_letters_total.one(),
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    self.pause(DISK_PAUSE)?;
                    continue;
                }
                Err(_) => self.counters.event_dead_letters_dropped_total.one(),
            }
            return Ok(());
        }
    }

    /// Deletes what is too old, once in a while.
    fn check(&mut self) {
        let now = Instant::now();
        if now < self.check_at {
            return;
        }
        self.check_at = now + CHECK_EVERY;
        let Some(days) = self.config.keep_days else { return };
        let today = event::day_of(Utc::now().timestamp_millis());
        let first = today.saturating_sub_unsigned(days);
        match place::delete_before(&self.client, first) {
            Ok(deleted) => self.counters.cluster_deleted_indices_total.add(deleted),
            Err(trouble) => {
                // A cluster that is away is asked again sooner.
                self.check_at = now + SAY_EVERY;
                log::warn!("old_indices_not_deleted error=\"{}\"", trouble.to_string().escape_debug());
            }
        }
    }
}
