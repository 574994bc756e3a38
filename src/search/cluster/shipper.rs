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

use ureq::http::Method;

use super::backoff::Backoff;
use super::bulk::{self, BulkItem, BulkItemResult};
use super::client::{ClientError, EsClient, EsRequestBody, EsResponse};
use super::event::{self, SpooledEvent};
use super::index_router::{self, IndexRouter, ShipError, TargetIndex};
use super::spool::{AckHandle, Damage, LogPosition, SpoolEntry, SpoolReader, SpoolShared};
use super::template::TemplateParams;
use crate::runtime::metrics::Metrics;
use crate::runtime::time::rfc3339_now;
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
    fn results(self, sent: Vec<BulkItemResult>) -> impl Iterator<Item = BulkItemResult> {
        let mut sent = sent.into_iter();
        self.rejected
            .into_iter()
            .map(move |rejected| rejected.or_else(|| sent.next()).unwrap_or(BulkItemResult::IndexMissing))
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
        (shared, ack_handle): (Arc<SpoolShared>, AckHandle),
        params: TemplateParams,
        dead_letters: Arc<EventDeadLetters>,
        metrics: Arc<Metrics>,
        config: ShipConfig,
    ) -> io::Result<Shipper> {
        let reader = SpoolReader::open(Arc::clone(&shared), shared.acked())?;
        Ok(Shipper {
            router: IndexRouter::new(client.clone(), params),
            backoff: Backoff::new(shared.log_id() ^ u64::from(std::process::id())),
            client,
            shared,
            reader,
            ack_handle,
            dead_letters,
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
            let (batch, is_last) = self.next_batch();
            if !batch.items.is_empty() || batch.end != self.shared.acked() {
                if self.ship(batch.items).is_err() {
                    return;
                }
                self.ack_handle.ack(batch.end);
            } else if is_last {
                return;
            }
        }
    }

    /// Waits for events and reads the next batch. True: it is the last one.
    fn next_batch(&mut self) -> (AckBatch, bool) {
        let mut batch = AckBatch::default();
        let (mut until, mut lingers) = (self.retention_at, false);
        loop {
            let state = self.shared.wait_after(self.reader.position(), until);
            while !batch.is_full(&self.config) {
                match self.reader.next(state.end) {
                    Ok(Some(SpoolEntry::Record { number, payload })) => {
                        self.add_record(&mut batch, number, &payload)
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
            batch.end = self.reader.position();
            if batch.is_full(&self.config)
                || state.is_closed
                || state.is_deadline_reached
                || Instant::now() >= until
            {
                let is_last =
                    state.is_deadline_reached || (state.is_closed && batch.end.byte >= state.end.byte);
                return (batch, is_last);
            }
            if !batch.items.is_empty() && !std::mem::replace(&mut lingers, true) {
                until = Instant::now() + self.config.linger;
            }
        }
    }

    fn add_record(&mut self, batch: &mut AckBatch, number: u64, payload: &[u8]) {
        match SpooledEvent::decode(payload) {
            Some(event) => {
                let item = BulkItem { number, event };
                batch.bytes += item.estimated_bytes();
                batch.items.push(item);
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
        // If the deadline is reached, the next start finds the damage resend.
        let _ = self.add_dead_letter("spool", reason, bytes);
    }

    /// Sends events to the cluster, retrying until it succeeds.
    fn ship(&mut self, mut left: Vec<BulkItem>) -> Result<(), DeadlineReached> {
        while !left.is_empty() {
            if self.shared.is_deadline_reached() {
                return Err(DeadlineReached);
            }
            let (count, parallel) = self.next_request_size(&left);
            match self.send_items(&left[..count], parallel) {
                Ok(BulkOutcome::Results(results)) => self.apply_results(&mut left, &results)?,
                Ok(BulkOutcome::Rejected(reason)) if count == 1 => {
                    self.reject(&left.remove(0), &reason)?;
                }
                // `HasErrors` does not occur when results are requested per item.
                Ok(BulkOutcome::Rejected(_) | BulkOutcome::HasErrors) => self.halve_request_size(count),
                Err(error) => {
                    if error.may_be_too_large() {
                        self.halve_request_size(count);
                    }
                    self.back_off(&error)?;
                }
            }
        }
        Ok(())
    }

    /// Returns how many of the remaining events go next, and in how many requests.
    fn next_request_size(&self, left: &[BulkItem]) -> (usize, usize) {
        let within = |parallel: usize| {
            let mut bytes = 0;
            let fits = |item: &&BulkItem| {
                bytes += item.estimated_bytes();
                bytes <= parallel * self.config.bulk_bytes
            };
            let count = left.iter().take(parallel * self.events_max).take_while(fits).count();
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
    fn send_items(&mut self, items: &[BulkItem], parallel: usize) -> Result<BulkOutcome, ShipError> {
        let parts = items.chunks(items.len().div_ceil(parallel));
        let parts = parts.map(|items| self.prepare_request(items)).collect::<Result<Vec<_>, _>>()?;
        let mut outcomes = self.send_requests(&parts, self.per_item_bulks > 0);
        if outcomes.iter().any(|outcome| matches!(outcome, Ok(BulkOutcome::HasErrors))) {
            // The same requests, sent again, identify the failed items; the others report that their id
            // exists.
            self.per_item_bulks = PER_ITEM_AFTER_ERROR;
            outcomes = self.send_requests(&parts, true);
        }
        let mut results = Vec::with_capacity(items.len());
        for (part, outcome) in parts.into_iter().zip(outcomes) {
            // If one request failed as a whole, the others report existing ids in the next attempt.
            match outcome? {
                BulkOutcome::Results(sent) => results.extend(part.results(sent)),
                other => return Ok(other),
            }
        }
        Ok(BulkOutcome::Results(results))
    }

    /// Ensures that the index of each event exists, and encodes the request.
    fn prepare_request(&mut self, items: &[BulkItem]) -> Result<BulkRequest, ShipError> {
        let bytes = items.iter().map(BulkItem::estimated_bytes).sum();
        let mut part =
            BulkRequest { body: Vec::with_capacity(bytes), sent: 0, rejected: vec![None; items.len()] };
        for (item, rejected) in items.iter().zip(&mut part.rejected) {
            match self.router.ensure_index(&item.event.name, item.event.day)? {
                TargetIndex::Rejected(reason) => *rejected = Some(BulkItemResult::Rejected(reason)),
                TargetIndex::Index(index) => {
                    item.append_to(&index, self.shared.log_id(), &mut part.body);
                    part.sent += 1;
                }
            }
        }
        Ok(part)
    }

    /// Sends all requests in parallel, the first one on this thread.
    fn send_requests(&self, parts: &[BulkRequest], per_item: bool) -> Vec<Result<BulkOutcome, ShipError>> {
        let request = |part: &BulkRequest| match part.sent {
            0 => Ok(BulkOutcome::Results(Vec::new())),
            sent => self.send_request(&part.body, sent, per_item),
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

    /// Sends a request with `count` events. Returns the result of each if `per_item`, otherwise only whether
    /// all succeeded.
    fn send_request(&self, body: &[u8], count: usize, per_item: bool) -> Result<BulkOutcome, ShipError> {
        let left = self.shared.deadline().map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = left.map_or(BULK_TIMEOUT, |left| left.clamp(Duration::from_millis(1), BULK_TIMEOUT));
        let path = format!("/_bulk?{}", if per_item { bulk::PER_ITEM_FILTER } else { bulk::ERRORS_FILTER });
        let send =
            || self.client.send_with_timeout(&Method::POST, &path, EsRequestBody::Lines(body), timeout);
        let response = match send().map_err(ShipError::from) {
            // The server may have closed a pooled connection.
            Err(error @ ShipError::Unreachable(ClientError::Unreachable { .. }))
                if error.may_be_too_large() =>
            {
                send()?
            }
            response => response?,
        };
        self.metrics.cluster_bulks_total.inc();
        match response.status {
            200..=299 => self.parse_outcome(&response, count, per_item),
            413 => Ok(BulkOutcome::Rejected(format!("status 413: {}", response.error_reason()))),
            // Only for Elasticsearch's own errors: a proxy may respond with 400 to anything.
            400 if response.has_elasticsearch_error() => {
                Ok(BulkOutcome::Rejected(format!("status 400: {}", response.error_reason())))
            }
            status => Err(ShipError::Status { status, cause: response.error_reason() }),
        }
    }

    fn parse_outcome(
        &self,
        response: &EsResponse,
        count: usize,
        per_item: bool,
    ) -> Result<BulkOutcome, ShipError> {
        let outcome = if per_item {
            bulk::parse_results(&response.body, count).map(BulkOutcome::Results)
        } else {
            bulk::has_errors(&response.body).map(|has_errors| match has_errors {
                true => BulkOutcome::HasErrors,
                false => BulkOutcome::Results(vec![BulkItemResult::Created; count]),
            })
        };
        outcome.ok_or_else(|| {
            ShipError::NeedsOperator(format!(
                "{} sent a malformed response to a bulk request (is it a supported cluster?): {}",
                self.client.address(),
                response.error_reason()
            ))
        })
    }

    /// Removes completed events from `left`; waits if some remain.
    fn apply_results(
        &mut self,
        left: &mut Vec<BulkItem>,
        results: &[BulkItemResult],
    ) -> Result<(), DeadlineReached> {
        let resend = bulk::items_to_resend(&left[..results.len()], results);
        for (item, result) in left.iter().zip(results) {
            match result {
                BulkItemResult::Created | BulkItemResult::Retry(_) => {}
                BulkItemResult::AlreadyExists => self.metrics.cluster_duplicate_total.inc(),
                BulkItemResult::IndexMissing => self.router.forget(&item.event.name),
                BulkItemResult::Rejected(reason) => self.reject(item, reason)?,
            }
        }
        let resent = resend.iter().filter(|resend| **resend).count();
        let is_acked = |(result, resend): &(&BulkItemResult, &bool)| {
            !**resend && !matches!(result, BulkItemResult::Rejected(_))
        };
        let acked = results.iter().zip(&resend).filter(is_acked).count();
        self.metrics.cluster_retries_total.add(resent as u64);
        self.metrics.cluster_acked_total.add(acked as u64);
        let mut resend = resend.into_iter();
        left.retain(|_| resend.next().unwrap_or(true));
        if resent == results.len() {
            let reason = results.iter().find_map(|result| match result {
                BulkItemResult::Retry(reason) => Some(reason.clone()),
                _ => None,
            });
            let reason =
                reason.unwrap_or_else(|| "an index was deleted directly after it was created".to_owned());
            return self.back_off(&ShipError::RetryLater(reason));
        }
        self.on_recovered();
        if resent > 0 {
            let wait = self.backoff.next_delay();
            return self.pause(wait);
        }
        self.grow_request_size(results);
        Ok(())
    }

    /// Returns to larger requests and to requests without results per item, after a bulk request that succeeded.
    fn grow_request_size(&mut self, results: &[BulkItemResult]) {
        self.backoff.reset();
        let is_stored = |result: &BulkItemResult| {
            matches!(result, BulkItemResult::Created | BulkItemResult::AlreadyExists)
        };
        if results.iter().all(is_stored) {
            self.per_item_bulks = self.per_item_bulks.saturating_sub(1);
        }
        self.good_bulks = self.good_bulks.wrapping_add(1);
        if self.good_bulks.is_multiple_of(GROW_AFTER) {
            self.events_max = (self.events_max * 2).min(self.config.bulk_events);
        }
    }

    /// Waits before the next attempt, and logs the failure once in a while.
    fn back_off(&mut self, error: &ShipError) -> Result<(), DeadlineReached> {
        self.metrics.cluster_up.set(false);
        let (now, word) = (Instant::now(), error.as_str());
        let is_new = self
            .outage
            .as_ref()
            .is_none_or(|outage| outage.state != word || outage.last_logged.elapsed() >= LOG_INTERVAL);
        if is_new {
            let since = self.outage.as_ref().map_or(now, |outage| outage.since);
            self.outage = Some(Outage { since, state: word, last_logged: now });
            let spooled = self.metrics.spool_events.get();
            let text = error.to_string();
            let text = text.escape_debug();
            let level = if error.needs_operator() { log::Level::Error } else { log::Level::Warn };
            log::log!(
                level,
                "cluster_{word} spool_events={spooled} error=\"{text}\" note=\"events wait in the spool\""
            );
        }
        if matches!(error, ShipError::Unreachable(ClientError::Unreachable { .. })) {
            self.router.forget_all();
        }
        let wait = self.backoff.next_delay();
        self.pause(wait)
    }

    fn on_recovered(&mut self) {
        self.metrics.cluster_up.set(true);
        if let Some(outage) = self.outage.take() {
            let spooled = self.metrics.spool_events.get();
            log::info!(
                "cluster_recovered waited_ms={} spool_events={spooled}",
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

    /// Writes an event that the cluster rejects to the dead dead_letters.
    fn reject(&mut self, item: &BulkItem, reason: &str) -> Result<(), DeadlineReached> {
        self.metrics.cluster_rejected_total.inc();
        let source = format!("cluster {} {}", self.client.address(), item.event.name);
        self.add_dead_letter(&source, reason, &item.event.sender_source())
    }

    /// Writes a dead letter. Waits while the disk is full, but not if the dead-letter file is full.
    fn add_dead_letter(&self, source: &str, reason: &str, text: &[u8]) -> Result<(), DeadlineReached> {
        let dead_letter = DeadLetter {
            time: rfc3339_now(),
            source: source.to_owned(),
            reason: reason.to_owned(),
            text: text.to_vec(),
        };
        loop {
            match self.dead_letters.add(&dead_letter) {
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
        let today = event::day_of(crate::runtime::time::now_ms());
        let first = today.saturating_sub_unsigned(days);
        match index_router::delete_indices_before(&self.client, first) {
            Ok(deleted) => self.metrics.cluster_deleted_indices_total.add(deleted),
            Err(error) => {
                // Retry sooner if the cluster was unreachable.
                self.retention_at = now + LOG_INTERVAL;
                log::warn!("index_deletion_failed error=\"{}\"", error.to_string().escape_debug());
            }
        }
    }
}
