//! The thread `spool-ship`: reads the spool from the acked position and sends its events to the cluster in
//! order, in bulk requests.
//!
//! Invariant: the acked position moves only when every event before it is in the cluster or in the dead
//! letters. A bulk request without a response is sent again unchanged; its ids are fixed, so nothing is
//! stored twice.
//!
//! Events with generated ids go in two parallel requests, because a node handles each request with one
//! thread. Events with ids from senders go in sequence, so that the last write of an id stays the last.

use std::io;
use std::sync::Arc;
use std::thread::{Builder, ScopedJoinHandle};
use std::time::{Duration, Instant};

use chrono::Utc;
use ureq::http::Method;

use super::backoff::Backoff;
use super::bulk::{self, BulkItem, BulkItemResult};
use super::client::{ClientError, EsClient, EsRequestBody};
use super::event::{self, SpooledEvent};
use super::index_router::{self, IndexRouter, ShipError, TargetIndex};
use super::spool::{AckHandle, Damage, LogPosition, SpoolEntry, SpoolReader, SpoolShared};
use super::template::TemplateParams;
use crate::iri::event::rfc3339;
use crate::runtime::metrics::Metrics;
use crate::search::dead_letters::{DeadLetter, EventDeadLetters};

/// Timeout of a bulk request.
const BULK_TIMEOUT: Duration = Duration::from_secs(60);

/// Time between deletions of expired indices.
const RETENTION_INTERVAL: Duration = Duration::from_secs(3_600);

/// Time between log lines about the same failure.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Number of parallel requests.
const PARALLEL_REQUESTS: usize = 2;

/// Minimum number of events to split into parallel requests.
const PARALLEL_EVENTS_MIN: usize = 1_000;

/// Number of bulk requests after an error that ask for the result of each item. The others ask only whether
/// an error occurred, which saves a node a tenth of its work.
const PER_ITEM_AFTER_ERROR: u32 = 8;

/// Number of successful bulk requests before a larger size is tried.
const GROW_AFTER: u32 = 8;

/// Delay before a failed disk operation is repeated.
const DISK_PAUSE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
pub struct ShipConfig {
    /// Approximate maximum size of a request.
    pub bulk_bytes: usize,
    /// Maximum number of events in a request.
    pub bulk_events: usize,
    /// Maximum time that the first event waits for others.
    pub linger: Duration,
    /// Number of days after which events are deleted; `None`: never.
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

pub(super) struct Shipper {
    client: EsClient,
    shared: Arc<SpoolShared>,
    reader: SpoolReader,
    ack_handle: AckHandle,
    router: IndexRouter,
    dead_letters: Arc<EventDeadLetters>,
    metrics: Arc<Metrics>,
    config: ShipConfig,
    backoff: Backoff,
    outage: Option<Outage>,
    /// Maximum number of events in a request; reduced after a request that was too large or timed out.
    events_max: usize,
    /// Number of successful bulk requests since that reduction.
    good_bulks: u32,
    /// Number of further bulk requests that ask for the result of each item.
    per_item_bulks: u32,
    retention_at: Instant,
}

/// A period in which the cluster takes no events.
struct Outage {
    since: Instant,
    state: &'static str,
    last_logged: Instant,
}

/// Events that are acked together.
#[derive(Default)]
struct AckBatch {
    items: Vec<BulkItem>,
    bytes: usize,
    end: LogPosition,
}

impl AckBatch {
    fn is_full(&self, config: &ShipConfig) -> bool {
        self.bytes >= PARALLEL_REQUESTS * config.bulk_bytes
            || self.items.len() >= PARALLEL_REQUESTS * config.bulk_events
    }
}

/// A prepared request.
struct BulkRequest {
    body: Vec<u8>,
    /// Number of events in the body.
    sent: usize,
    /// Results of events that are not in the body, by position.
    rejected: Vec<Option<BulkItemResult>>,
}

impl BulkRequest {
    /// Merges the results of the events that were sent with those that were not.
    fn results(self, told: Vec<BulkItemResult>) -> impl Iterator<Item = BulkItemResult> {
        let mut told = told.into_iter();
        self.rejected
            .into_iter()
            .map(move |refused| refused.or_else(|| told.next()).unwrap_or(BulkItemResult::IndexMissing))
    }
}

/// The shutdown deadline has been reached.
struct DeadlineReached;

enum BulkOutcome {
    Results(Vec<BulkItemResult>),
    /// At least one item failed.
    HasErrors,
    /// The cluster, or a proxy before it, rejects the request, for instance because of its size.
    Rejected(String),
}

impl Shipper {
    /// Creates a shipper that starts at the acked position.
    pub(super) fn new(
        client: EsClient,
        (shared, confirmer): (Arc<SpoolShared>, AckHandle),
        given: TemplateParams,
        letters: Arc<EventDeadLetters>,
        metrics: Arc<Metrics>,
        config: ShipConfig,
    ) -> io::Result<Shipper> {
        let reader = SpoolReader::open(Arc::clone(&shared), shared.acked())?;
        Ok(Shipper {
            router: IndexRouter::new(client.clone(), given),
            backoff: Backoff::new(shared.log_id() ^ u64::from(std::process::id())),
            client,
            shared,
            reader,
            ack_handle: confirmer,
            dead_letters: letters,
            metrics,
            config,
            outage: None,
            events_max: config.bulk_events,
            good_bulks: 0,
            per_item_bulks: 0,
            retention_at: Instant::now(),
        })
    }

    /// Ships until the spool is closed and everything is acked, or until the shutdown deadline.
    pub(super) fn run(mut self) {
        loop {
            self.delete_expired_indices();
            let (bulk, is_last) = self.next_batch();
            if !bulk.items.is_empty() || bulk.end != self.shared.acked() {
                if self.ship(bulk.items).is_err() {
                    return;
                }
                self.ack_handle.ack(bulk.end);
            } else if is_last {
                return;
            }
        }
    }

    /// Waits for events and reads the next batch. True: it is the last one.
    fn next_batch(&mut self) -> (AckBatch, bool) {
        let mut bulk = AckBatch::default();
        let (mut until, mut lingers) = (self.retention_at, false);
        loop {
            let seen = self.shared.wait_after(self.reader.position(), until);
            while !bulk.is_full(&self.config) {
                match self.reader.next(seen.end) {
                    Ok(Some(SpoolEntry::Record { number, payload })) => {
                        self.add_record(&mut bulk, number, &payload)
                    }
                    Ok(Some(SpoolEntry::Damaged(damage))) => self.report_damage(&damage),
                    Ok(None) => break,
                    Err(error) => {
                        log::error!("spool_read_failed error=\"{error}\"");
                        self.shared.pause(Instant::now() + DISK_PAUSE);
                        break;
                    }
                }
            }
            bulk.end = self.reader.position();
            if bulk.is_full(&self.config)
                || seen.is_closed
                || seen.is_deadline_reached
                || Instant::now() >= until
            {
                let is_last = seen.is_deadline_reached || (seen.is_closed && bulk.end.byte >= seen.end.byte);
                return (bulk, is_last);
            }
            if !bulk.items.is_empty() && !std::mem::replace(&mut lingers, true) {
                until = Instant::now() + self.config.linger;
            }
        }
    }

    fn add_record(&mut self, bulk: &mut AckBatch, number: u64, payload: &[u8]) {
        match SpooledEvent::decode(payload) {
            Some(event) => {
                let item = BulkItem { number, event };
                bulk.bytes += item.estimated_bytes();
                bulk.items.push(item);
            }
            None => {
                self.metrics.spool_damaged_total.inc();
                self.dead_letter_damage("malformed record in the spool", payload);
            }
        }
    }

    fn report_damage(&mut self, damage: &Damage) {
        let Damage { file, offset, bytes, length, lost } = damage;
        self.metrics.spool_damaged_total.add(*lost);
        log::error!("spool_damaged file={file} offset={offset} bytes={length} events={lost}");
        let reason = format!("{lost} events lost: {file} is damaged at byte {offset}, {length} bytes");
        self.dead_letter_damage(&reason, bytes);
    }

    fn dead_letter_damage(&self, reason: &str, bytes: &[u8]) {
        // If the deadline is reached, the next start finds the damage again.
        let _ = self.add_dead_letter("spool", reason, bytes);
    }

    /// Sends events to the cluster, retrying until it succeeds.
    fn ship(&mut self, mut left: Vec<BulkItem>) -> Result<(), DeadlineReached> {
        while !left.is_empty() {
            if self.shared.is_deadline_reached() {
                return Err(DeadlineReached);
            }
            let (count, lanes) = self.next_request_size(&left);
            match self.send_items(&left[..count], lanes) {
                Ok(BulkOutcome::Results(fates)) => self.apply_results(&mut left, &fates)?,
                Ok(BulkOutcome::Rejected(reason)) if count == 1 => {
                    self.reject(&left.remove(0), &reason)?;
                }
                // `HasErrors` does not occur when results are requested per item.
                Ok(BulkOutcome::Rejected(_) | BulkOutcome::HasErrors) => self.halve_request_size(count),
                Err(trouble) => {
                    if trouble.may_be_too_large() {
                        self.halve_request_size(count);
                    }
                    self.back_off(&trouble)?;
                }
            }
        }
        Ok(())
    }

    /// Returns how many of the remaining events go next, and in how many requests.
    fn next_request_size(&self, left: &[BulkItem]) -> (usize, usize) {
        let within = |lanes: usize| {
            let mut bytes = 0;
            let fits = |item: &&BulkItem| {
                bytes += item.estimated_bytes();
                bytes <= lanes * self.config.bulk_bytes
            };
            let count = left.iter().take(lanes * self.events_max).take_while(fits).count();
            count.max(1)
        };
        let many = within(PARALLEL_REQUESTS);
        let is_ours = |item: &BulkItem| item.event.id.is_none();
        if many >= PARALLEL_EVENTS_MIN && left[..many].iter().all(is_ours) {
            (many, PARALLEL_REQUESTS)
        } else {
            (within(1), 1)
        }
    }

    /// Halves the request size for a while.
    fn halve_request_size(&mut self, count: usize) {
        self.events_max = (count.min(self.events_max) / 2).max(1);
        self.good_bulks = 0;
    }

    /// Sends events and returns the result of each.
    fn send_items(&mut self, items: &[BulkItem], lanes: usize) -> Result<BulkOutcome, ShipError> {
        let parts = items.chunks(items.len().div_ceil(lanes));
        let parts = parts.map(|items| self.prepare_request(items)).collect::<Result<Vec<_>, _>>()?;
        let mut answers = self.send_requests(&parts, self.per_item_bulks > 0);
        if answers.iter().any(|answer| matches!(answer, Ok(BulkOutcome::HasErrors))) {
            // The same request, sent again, identifies the failed items; the others report that their id
            // exists.
            self.per_item_bulks = PER_ITEM_AFTER_ERROR;
            answers = self.send_requests(&parts, true);
        }
        let mut fates = Vec::with_capacity(items.len());
        for (part, answer) in parts.into_iter().zip(answers) {
            // If one request failed as a whole, the others report existing ids in the next attempt.
            match answer? {
                BulkOutcome::Results(told) => fates.extend(part.results(told)),
                other => return Ok(other),
            }
        }
        Ok(BulkOutcome::Results(fates))
    }

    /// Ensures that the index of each event exists, and encodes the request.
    fn prepare_request(&mut self, items: &[BulkItem]) -> Result<BulkRequest, ShipError> {
        let bytes = items.iter().map(BulkItem::estimated_bytes).sum();
        let mut part =
            BulkRequest { body: Vec::with_capacity(bytes), sent: 0, rejected: vec![None; items.len()] };
        for (item, refused) in items.iter().zip(&mut part.rejected) {
            match self.router.ensure_index(&item.event.name, item.event.day)? {
                TargetIndex::Rejected(reason) => *refused = Some(BulkItemResult::Rejected(reason)),
                TargetIndex::Index(index) => {
                    item.append_to(&index, self.shared.log_id(), &mut part.body);
                    part.sent += 1;
                }
            }
        }
        Ok(part)
    }

    /// Sends all requests in parallel, the first one on this thread.
    fn send_requests(&self, parts: &[BulkRequest], is_told: bool) -> Vec<Result<BulkOutcome, ShipError>> {
        let request = |part: &BulkRequest| match part.sent {
            0 => Ok(BulkOutcome::Results(Vec::new())),
            sent => self.send_request(&part.body, sent, is_told),
        };
        let Some((first, others)) = parts.split_first() else { return Vec::new() };
        std::thread::scope(|scope| {
            let start = |part| {
                let lane = Builder::new().name("spool-send".to_owned());
                lane.spawn_scoped(scope, move || request(part)).map_err(|_| part)
            };
            let others: Vec<_> = others.iter().map(start).collect();
            let first = request(first);
            let end = |other: Result<ScopedJoinHandle<'_, _>, &BulkRequest>| match other {
                Ok(lane) => lane.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                // The thread could not be started.
                Err(part) => request(part),
            };
            std::iter::once(first).chain(others.into_iter().map(end)).collect()
        })
    }

    /// Sends a request with `count` events. Returns the result of each if `is_told`, otherwise only whether
    /// all succeeded.
    fn send_request(&self, body: &[u8], count: usize, is_told: bool) -> Result<BulkOutcome, ShipError> {
        let left = self.shared.deadline().map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = left.map_or(BULK_TIMEOUT, |left| left.clamp(Duration::from_millis(1), BULK_TIMEOUT));
        let path = format!("/_bulk?{}", if is_told { bulk::PER_ITEM_FILTER } else { bulk::ERRORS_FILTER });
        let send =
            || self.client.send_with_timeout(&Method::POST, &path, EsRequestBody::Lines(body), timeout);
        let answer = match send().map_err(ShipError::from) {
            // The server may have closed a pooled connection.
            Err(trouble @ ShipError::Unreachable(ClientError::Unreachable { .. }))
                if trouble.may_be_too_large() =>
            {
                send()?
            }
            answer => answer?,
        };
        self.metrics.cluster_bulks_total.inc();
        match answer.status {
            200..=299 => {
                let sent = if is_told {
                    bulk::parse_results(&answer.body, count).map(BulkOutcome::Results)
                } else {
                    bulk::has_errors(&answer.body).map(|has| match has {
                        true => BulkOutcome::HasErrors,
                        false => BulkOutcome::Results(vec![BulkItemResult::Created; count]),
                    })
                };
                sent.ok_or_else(|| {
                    ShipError::NeedsOperator(format!(
                        "{} sent a malformed response to a bulk request; is it a supported cluster?",
                        self.client.address()
                    ))
                })
            }
            413 => Ok(BulkOutcome::Rejected(format!("status 413: {}", answer.error_reason()))),
            // Only for Elasticsearch's own errors: a proxy may respond with 400 to anything.
            400 if answer.has_elasticsearch_error() => {
                Ok(BulkOutcome::Rejected(format!("status 400: {}", answer.error_reason())))
            }
            status => Err(ShipError::Status { status, cause: answer.error_reason() }),
        }
    }

    /// Removes completed events from `left`; waits if some remain.
    fn apply_results(
        &mut self,
        left: &mut Vec<BulkItem>,
        fates: &[BulkItemResult],
    ) -> Result<(), DeadlineReached> {
        let again = bulk::items_to_resend(&left[..fates.len()], fates);
        let later = fates.iter().find_map(|fate| match fate {
            BulkItemResult::Retry(reason) => Some(reason.clone()),
            _ => None,
        });
        for (item, fate) in left.iter().zip(fates) {
            match fate {
                BulkItemResult::Created => {}
                BulkItemResult::AlreadyExists => self.metrics.cluster_duplicate_total.inc(),
                BulkItemResult::Retry(_) => {}
                BulkItemResult::IndexMissing => self.router.forget(&item.event.name),
                BulkItemResult::Rejected(reason) => self.reject(item, reason)?,
            }
        }
        let unsettled = again.iter().filter(|again| **again).count();
        self.metrics.cluster_retries_total.add(unsettled as u64);
        self.metrics.cluster_acked_total.add(
            fates
                .iter()
                .zip(&again)
                .filter(|(fate, again)| !**again && !matches!(fate, BulkItemResult::Rejected(_)))
                .count() as u64,
        );
        let mut again = again.into_iter();
        left.retain(|_| again.next().unwrap_or(true));
        if unsettled == fates.len() {
            let reason =
                later.unwrap_or_else(|| "an index was deleted directly after it was created".to_owned());
            return self.back_off(&ShipError::RetryLater(reason));
        }
        self.on_recovered();
        if unsettled > 0 {
            let wait = self.backoff.next_delay();
            self.pause(wait)?;
        } else {
            self.backoff.reset();
            if fates
                .iter()
                .all(|fate| matches!(fate, BulkItemResult::Created | BulkItemResult::AlreadyExists))
            {
                self.per_item_bulks = self.per_item_bulks.saturating_sub(1);
            }
            self.good_bulks = self.good_bulks.wrapping_add(1);
            if self.good_bulks.is_multiple_of(GROW_AFTER) {
                self.events_max = (self.events_max * 2).min(self.config.bulk_events);
            }
        }
        Ok(())
    }

    /// Waits before the next attempt, and logs the failure once in a while.
    fn back_off(&mut self, trouble: &ShipError) -> Result<(), DeadlineReached> {
        self.metrics.cluster_up.set(false);
        let (now, word) = (Instant::now(), trouble.as_str());
        let is_new = self
            .outage
            .as_ref()
            .is_none_or(|outage| outage.state != word || outage.last_logged.elapsed() >= LOG_INTERVAL);
        if is_new {
            let since = self.outage.as_ref().map_or(now, |outage| outage.since);
            self.outage = Some(Outage { since, state: word, last_logged: now });
            let queued = self.metrics.spool_events.get();
            let text = trouble.to_string();
            let text = text.escape_debug();
            let level = if trouble.needs_operator() { log::Level::Error } else { log::Level::Warn };
            log::log!(
                level,
                "cluster_{word} spooled_events={queued} error=\"{text}\" note=\"events wait in the spool\""
            );
        }
        if matches!(trouble, ShipError::Unreachable(ClientError::Unreachable { .. })) {
            self.router.forget_all();
        }
        let wait = self.backoff.next_delay();
        self.pause(wait)
    }

    fn on_recovered(&mut self) {
        self.metrics.cluster_up.set(true);
        if let Some(outage) = self.outage.take() {
            let queued = self.metrics.spool_events.get();
            log::info!(
                "cluster_recovered waited_ms={} spooled_events={queued}",
                outage.since.elapsed().as_millis()
            );
        }
    }

    fn pause(&self, wait: Duration) -> Result<(), DeadlineReached> {
        match self.shared.pause(Instant::now() + wait).is_deadline_reached {
            true => Err(DeadlineReached),
            false => Ok(()),
        }
    }

    /// Writes an event that the cluster rejects to the dead letters.
    fn reject(&mut self, item: &BulkItem, reason: &str) -> Result<(), DeadlineReached> {
        self.metrics.cluster_rejected_total.inc();
        let source = format!("cluster {} {}", self.client.address(), item.event.name);
        self.add_dead_letter(&source, reason, &item.event.sender_source())
    }

    /// Writes a dead letter. Waits while the disk is full, but not if the dead-letter file is full.
    fn add_dead_letter(&self, source: &str, reason: &str, text: &[u8]) -> Result<(), DeadlineReached> {
        let letter = DeadLetter {
            time: rfc3339(&Utc::now()),
            source: source.to_owned(),
            reason: reason.to_owned(),
            text: text.to_vec(),
        };
        loop {
            match self.dead_letters.add(&letter) {
                Ok(()) => self.metrics.event_dead_letters_total.inc(),
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    self.pause(DISK_PAUSE)?;
                    continue;
                }
                Err(_) => self.metrics.event_dead_letters_dropped_total.inc(),
            }
            return Ok(());
        }
    }

    /// Deletes expired indices, once per interval.
    fn delete_expired_indices(&mut self) {
        let now = Instant::now();
        if now < self.retention_at {
            return;
        }
        self.retention_at = now + RETENTION_INTERVAL;
        let Some(days) = self.config.keep_days else { return };
        let today = event::day_of(Utc::now().timestamp_millis());
        let first = today.saturating_sub_unsigned(days);
        match index_router::delete_indices_before(&self.client, first) {
            Ok(deleted) => self.metrics.cluster_deleted_indices_total.add(deleted),
            Err(trouble) => {
                // Retry sooner if the cluster was unreachable.
                self.retention_at = now + LOG_INTERVAL;
                log::warn!("index_deletion_failed error=\"{}\"", trouble.to_string().escape_debug());
            }
        }
    }
}
