//! The way of events into the store, and of what cannot be stored into the dead letters. Used by the threads of
//! connections, each with its own [`Batch`]; a call returns when the events are durable.
//!
//! Lines have no acknowledgement: while the store is full or fails, the caller waits, so TCP slows the sender. Only once
//! the drain of a stop is over, what is left is given up, and counted as lost.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::super::document::Document;
use super::super::event::rfc3339;
use super::super::store::dead_letters::{DeadLetter, DeadLetters};
use super::super::store::{Store, StoreError};
use crate::counters::Counters;
use crate::logging::Throttle;

/// Events written at once.
const BATCH_MAX: usize = 1_000;

/// Bytes written at once.
const BATCH_BYTES_MAX: usize = 512 << 10;

/// Before a full store is asked again: about the time that a commit takes.
const FULL_PAUSE: Duration = Duration::from_millis(5);

/// Before a store that fails is asked again.
const FAILED_PAUSE: Duration = Duration::from_millis(250);

/// A store that was full for so long without a break does not move.
const STUCK: Duration = Duration::from_secs(10);

/// What all listeners share.
pub struct Intake {
    store: Arc<dyn Store>,
    letters: Arc<DeadLetters>,
    counters: Arc<Counters>,
    give_up_at: OnceLock<Instant>,
    throttle: Throttle,
}

/// The store is gone, or was given up: nothing more can be taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// What cannot be stored.
#[derive(Clone, Copy, Debug)]
pub struct Letter<'a> {
    /// Where it came from.
    pub from: From<'a>,
    /// Where it was to go, if that is known.
    pub index: Option<&'a str>,
    /// Why it cannot be stored.
    pub reason: &'a str,
    /// What came.
    pub value: &'a [u8],
    /// This is only its begin.
    pub cut: bool,
}

impl Letter<'_> {
    fn dead(&self) -> DeadLetter {
        let From { listener, peer } = self.from;
        let index = self.index.map_or_else(String::new, |index| format!(" {index}"));
        let cut = if self.cut { "; only its begin is kept" } else { "" };
        DeadLetter {
            time: rfc3339(&chrono::Utc::now()),
            source: format!("{listener} {peer}{index}"),
            reason: format!("{}{cut}", self.reason),
            text: self.value.to_vec(),
        }
    }
}

/// Where something came from, as dead letters and the log say it.
#[derive(Clone, Copy, Debug)]
pub struct From<'a> {
    /// The listener.
    pub listener: &'static str,
    /// The peer.
    pub peer: &'a str,
}

impl Intake {
    /// Into this store, beside these dead letters.
    pub fn new(store: Arc<dyn Store>, letters: Arc<DeadLetters>, counters: Arc<Counters>) -> Intake {
        Intake { store, letters, counters, give_up_at: OnceLock::new(), throttle: Throttle::default() }
    }

    /// From `at` on a store that does not take events is not waited for any more.
    pub fn give_up_at(&self, at: Instant) {
        let _ = self.give_up_at.set(at);
    }

    /// What is counted.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Warns, at most once a second a reason.
    pub fn warn(&self, reason: &'static str, line: std::fmt::Arguments<'_>) {
        self.throttle.warn(reason, line);
    }

    /// Keeps what cannot be used, counts it and says so.
    pub fn refuse(&self, letter: &Letter<'_>, word: &'static str) {
        // The reason of a letter may quote what came; the log never does.
        let From { listener, peer } = letter.from;
        self.warn(word, format_args!("event_refused reason={word} for={listener} peer={peer}"));
        // The letters themselves say what is wrong with them.
        match self.letters.add(&letter.dead()) {
            Ok(()) => self.counters.event_dead_letters_total.one(),
            Err(_) => self.counters.event_dead_letters_dropped_total.one(),
        }
    }

    fn lose(&self, events: usize, why: &str) {
        self.counters.events_lost_total.add(events as u64);
        if self.throttle.is_due("events_lost") {
            log::error!("events_lost events={events} reason=\"{why}\"");
        }
    }

    /// Writes events, however long that takes.
    fn write(&self, from: From<'_>, documents: Vec<Document>) -> Result<(), Gone> {
        let mut waiting = Waiting::new(self);
        loop {
            let why = match self.store.write(documents.clone()) {
                Ok(answers) => {
                    for (document, answer) in documents.iter().zip(&answers) {
                        match answer {
                            Ok(_) => self.counters.events_stored_total.one(),
                            Err(refused) => self.refuse_document(from, document, &refused.to_string()),
                        }
                    }
                    return Ok(());
                }
                Err(StoreError::Full) => {
                    waiting.full();
                    "the store's queue is full".to_owned()
                }
                Err(
                    error @ (StoreError::Failed { .. }
                    | StoreError::TimedOut(_)
                    | StoreError::Away(_)
                    | StoreError::Busy),
                ) => {
                    waiting.failed(&error);
                    error.to_string()
                }
                Err(error @ StoreError::Stopping) => {
                    self.lose(documents.len(), &error.to_string());
                    return Err(Gone);
                }
                // It would be the same the next time.
                Err(
                    error @ (StoreError::NoIndex(_)
                    | StoreError::Invalid(_)
                    | StoreError::Answered { .. }
                    | StoreError::TooLarge(_)),
                ) => {
                    let why = error.to_string();
                    documents.iter().for_each(|document| self.refuse_document(from, document, &why));
                    return Ok(());
                }
            };
            if self.give_up_at.get().is_some_and(|at| Instant::now() >= *at) {
                self.lose(documents.len(), &why);
                return Err(Gone);
            }
        }
    }

    fn refuse_document(&self, from: From<'_>, document: &Document, reason: &str) {
        self.counters.event_unfit_total.one();
        let letter =
            Letter { from, index: Some(&document.index), reason, value: &document.source, cut: false };
        self.refuse(&letter, "unfit");
    }
}

/// A wait for the store; what is shown of it goes when it ends.
struct Waiting<'a> {
    intake: &'a Intake,
    since: Instant,
    shown: bool,
}

impl<'a> Waiting<'a> {
    fn new(intake: &'a Intake) -> Waiting<'a> {
        Waiting { intake, since: Instant::now(), shown: false }
    }

    fn full(&mut self) {
        if self.since.elapsed() >= STUCK {
            self.show("the queue has been full for long");
        }
        std::thread::sleep(FULL_PAUSE);
    }

    fn failed(&mut self, error: &StoreError) {
        self.show(&error.to_string());
        std::thread::sleep(FAILED_PAUSE);
    }

    fn show(&mut self, why: &str) {
        if !std::mem::replace(&mut self.shown, true) {
            self.intake.counters.event_store_waiting.one();
        }
        let note = "events wait; nothing is lost";
        self.intake.warn("store_stuck", format_args!("store_stuck error=\"{why}\" note=\"{note}\""));
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.shown {
            self.intake.counters.event_store_waiting.sub(1);
            log::info!("store_moves waited_ms={}", self.since.elapsed().as_millis());
        }
    }
}

/// Events of one connection that are written together.
#[derive(Debug, Default)]
pub struct Batch {
    documents: Vec<Document>,
    bytes: usize,
}

impl Batch {
    /// Adds one; true if it is time to write them.
    pub fn push(&mut self, document: Document) -> bool {
        self.bytes += document.source.len();
        self.documents.push(document);
        self.documents.len() >= BATCH_MAX || self.bytes >= BATCH_BYTES_MAX
    }

    /// Writes all.
    pub fn write(&mut self, intake: &Intake, from: From<'_>) -> Result<(), Gone> {
        if self.documents.is_empty() {
            return Ok(());
        }
        self.bytes = 0;
        intake.write(from, std::mem::take(&mut self.documents))
    }
}
