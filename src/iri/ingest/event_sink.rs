//! Writes events into the store, and rejected input into the dead letters. Called by the threads of connections, each with
//! its own [`EventBatch`]. A call returns after the events are durable.
//!
//! Lines have no acknowledgement: while the store is full or fails, the caller waits, so TCP slows the sender. Events that
//! cannot be stored before the shutdown timeout ends are counted as lost.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::runtime::logging::Throttle;
use crate::runtime::metrics::Metrics;
use crate::runtime::time::rfc3339_now;
use crate::search::dead_letters::{AddedLetters, DeadLetter, EventDeadLetters};
use crate::search::document::Document;
use crate::search::store::{Store, StoreError, WriteRejected};

/// Maximum events per write.
const BATCH_MAX: usize = 1_000;

/// Maximum bytes per write.
const BATCH_BYTES_MAX: usize = 512 << 10;

/// Pause before the next write to a full store: about the duration of a commit.
const FULL_PAUSE: Duration = Duration::from_millis(5);

/// Pause before the next write to a store that failed.
const FAILED_PAUSE: Duration = Duration::from_millis(250);

/// Time without a successful write after which a full store counts as stalled.
const STALLED_AFTER: Duration = Duration::from_secs(10);

/// The destination of all event sources.
pub struct EventSink {
    store: Arc<dyn Store>,
    dead_letters: Arc<EventDeadLetters>,
    metrics: Arc<Metrics>,
    give_up_at: OnceLock<Instant>,
    throttle: Throttle,
}

/// The store was closed or given up: it accepts no more events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoreClosed;

/// Input that cannot be stored, for the dead letters.
#[derive(Clone, Copy, Debug)]
pub struct RejectedInput<'a> {
    pub origin: MessageOrigin<'a>,
    /// The destination index, if known.
    pub index: Option<&'a str>,
    pub reason: &'a str,
    /// The input.
    pub value: &'a [u8],
    /// `value` holds only the first bytes of the input.
    pub is_truncated: bool,
}

impl RejectedInput<'_> {
    fn dead_letter(&self) -> DeadLetter {
        let MessageOrigin { listener, peer } = self.origin;
        let index = self.index.map_or_else(String::new, |index| format!(" {index}"));
        let truncated = if self.is_truncated { "; only the first bytes are kept" } else { "" };
        DeadLetter {
            time: rfc3339_now(),
            source: format!("{listener} {peer}{index}"),
            reason: format!("{}{truncated}", self.reason),
            text: self.value.to_vec(),
        }
    }
}

/// A document that the store rejected permanently.
#[derive(Clone, Debug)]
pub struct RejectedDocument<'a> {
    pub index: &'a str,
    pub source: &'a [u8],
    pub reason: String,
}

impl RejectedDocument<'_> {
    fn of(document: &Document, reason: String) -> RejectedDocument<'_> {
        RejectedDocument { index: &document.index, source: &document.source, reason }
    }
}

/// The origin of a message, for dead letters and the log.
#[derive(Clone, Copy, Debug)]
pub struct MessageOrigin<'a> {
    pub listener: &'static str,
    pub peer: &'a str,
}

impl EventSink {
    pub fn new(store: Arc<dyn Store>, letters: Arc<EventDeadLetters>, metrics: Arc<Metrics>) -> EventSink {
        EventSink {
            store,
            dead_letters: letters,
            metrics,
            give_up_at: OnceLock::new(),
            throttle: Throttle::default(),
        }
    }

    /// Sets the time after which writers no longer wait for a store that accepts no events.
    pub fn give_up_at(&self, at: Instant) {
        let _ = self.give_up_at.set(at);
    }

    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Logs a warning, at most once per second and reason.
    pub fn warn(&self, reason: &'static str, line: std::fmt::Arguments<'_>) {
        self.throttle.warn(reason, line);
    }

    /// Adds rejected input to the dead letters, counts it and logs a warning.
    pub fn reject(&self, letter: &RejectedInput<'_>, word: &'static str) {
        // The reason in a dead letter may quote the input. The log never does.
        let MessageOrigin { listener, peer } = letter.origin;
        self.warn(word, format_args!("event_rejected reason={word} listener={listener} peer={peer}"));
        // A failed write is logged by the dead letters themselves.
        match self.dead_letters.add(&letter.dead_letter()) {
            Ok(()) => self.metrics.event_dead_letters_total.inc(),
            Err(_) => self.metrics.event_dead_letters_dropped_total.inc(),
        }
    }

    fn record_loss(&self, events: usize, why: &str) {
        self.metrics.events_lost_total.add(events as u64);
        if self.throttle.is_due("events_lost") {
            log::error!("events_lost events={events} reason=\"{why}\"");
        }
    }

    /// Writes events and waits until they are stored. `resendable` says that the sender keeps them until this call returns, so
    /// a failure loses nothing.
    fn write(
        &self,
        from: MessageOrigin<'_>,
        documents: Vec<Document>,
        comes_again: bool,
    ) -> Result<(), StoreClosed> {
        let lose = |why: &str| {
            if !comes_again {
                self.record_loss(documents.len(), why);
            }
        };
        let mut waiting = StoreWait::new(self);
        loop {
            let why = match self.store.write(documents.clone()) {
                Ok(answers) => {
                    let rejected =
                        documents.iter().zip(answers).filter_map(|(document, answer)| match answer {
                            Ok(_) => {
                                self.metrics.events_stored_total.inc();
                                None
                            }
                            // Only events that may be sent again have an id.
                            Err(WriteRejected::AlreadyExists { .. }) => {
                                self.metrics.events_duplicate_total.inc();
                                None
                            }
                            Err(WriteRejected::Invalid(reason)) => {
                                Some(RejectedDocument::of(document, reason))
                            }
                        });
                    self.reject_documents(from, rejected);
                    return Ok(());
                }
                Err(StoreError::Full) => {
                    waiting.wait_while_full();
                    "the queue of the store is full".to_owned()
                }
                Err(
                    error @ (StoreError::Failed { .. }
                    | StoreError::TimedOut(_)
                    | StoreError::Unreachable(_)
                    | StoreError::MemoryExceeded { .. }
                    | StoreError::ClientGone
                    | StoreError::Busy),
                ) => {
                    waiting.wait_after_error(&error);
                    error.to_string()
                }
                Err(error @ StoreError::ShuttingDown) => {
                    lose(&error.to_string());
                    return Err(StoreClosed);
                }
                // A second try would fail in the same way.
                Err(
                    error @ (StoreError::IndexNotFound(_)
                    | StoreError::Invalid(_)
                    | StoreError::Rejected { .. }
                    | StoreError::TooManyBuckets
                    | StoreError::TooLarge(_)),
                ) => {
                    let why = error.to_string();
                    let rejected =
                        documents.iter().map(|document| RejectedDocument::of(document, why.clone()));
                    self.reject_documents(from, rejected);
                    return Ok(());
                }
            };
            if self.give_up_at.get().is_some_and(|at| Instant::now() >= *at) {
                lose(&why);
                return Err(StoreClosed);
            }
        }
    }

    /// Adds documents that the store rejected permanently to the dead letters, with one sync for all of them.
    pub fn reject_documents<'a>(
        &self,
        from: MessageOrigin<'_>,
        rejected: impl Iterator<Item = RejectedDocument<'a>>,
    ) {
        let letter = |RejectedDocument { index, source, reason }: RejectedDocument<'_>| {
            let index = Some(index);
            RejectedInput { origin: from, index, reason: &reason, value: source, is_truncated: false }
                .dead_letter()
        };
        let mut rejected = rejected.map(letter).peekable();
        if rejected.peek().is_none() {
            return;
        }
        let MessageOrigin { listener, peer } = from;
        self.warn("unfit", format_args!("event_rejected reason=unfit listener={listener} peer={peer}"));
        let AddedLetters { kept, lost } = self.dead_letters.add_all(rejected);
        self.metrics.events_rejected_unfit.add(kept + lost);
        self.metrics.event_dead_letters_total.add(kept);
        self.metrics.event_dead_letters_dropped_total.add(lost);
    }
}

/// A wait for the store. While it is long, it is reported in the metrics.
struct StoreWait<'a> {
    sink: &'a EventSink,
    since: Instant,
    is_reported: bool,
}

impl<'a> StoreWait<'a> {
    fn new(sink: &'a EventSink) -> StoreWait<'a> {
        StoreWait { sink, since: Instant::now(), is_reported: false }
    }

    fn wait_while_full(&mut self) {
        if self.since.elapsed() >= STALLED_AFTER {
            self.report("the queue of the store stays full");
        }
        std::thread::sleep(FULL_PAUSE);
    }

    fn wait_after_error(&mut self, error: &StoreError) {
        self.report(&error.to_string());
        std::thread::sleep(FAILED_PAUSE);
    }

    fn report(&mut self, why: &str) {
        if !std::mem::replace(&mut self.is_reported, true) {
            self.sink.metrics.store_waiting_threads.inc();
        }
        let note = "senders wait; no event is lost";
        self.sink.warn("store_stalled", format_args!("store_stalled error=\"{why}\" note=\"{note}\""));
    }
}

impl Drop for StoreWait<'_> {
    fn drop(&mut self) {
        if self.is_reported {
            self.sink.metrics.store_waiting_threads.sub(1);
            log::info!("store_recovered waited_ms={}", self.since.elapsed().as_millis());
        }
    }
}

/// Events of one connection that are written together.
#[derive(Debug, Default)]
pub(crate) struct EventBatch {
    documents: Vec<Document>,
    bytes: usize,
}

impl EventBatch {
    /// Adds an event. Returns true if the batch should be written.
    pub(crate) fn push(&mut self, document: Document) -> bool {
        self.bytes += document.source.len();
        self.documents.push(document);
        self.documents.len() >= BATCH_MAX || self.bytes >= BATCH_BYTES_MAX
    }

    /// Writes all events and empties the batch.
    pub(crate) fn write(&mut self, sink: &EventSink, from: MessageOrigin<'_>) -> Result<(), StoreClosed> {
        self.write_batch(sink, from, false)
    }

    /// Writes all events, which the sender sends again if this fails.
    pub(crate) fn write_resendable(
        &mut self,
        sink: &EventSink,
        from: MessageOrigin<'_>,
    ) -> Result<(), StoreClosed> {
        self.write_batch(sink, from, true)
    }

    fn write_batch(
        &mut self,
        sink: &EventSink,
        from: MessageOrigin<'_>,
        comes_again: bool,
    ) -> Result<(), StoreClosed> {
        if self.documents.is_empty() {
            return Ok(());
        }
        self.bytes = 0;
        sink.write(from, std::mem::take(&mut self.documents), comes_again)
    }
}
