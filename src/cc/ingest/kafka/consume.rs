//! Consumer loop: stores records of the assigned partitions in the ledger, writes checkpoints, commits
//! offsets. Runs in one thread, which also polls.
//!
//! Invariants: an offset is committed only after a durable checkpoint contains it. Revoked partitions are
//! flushed, checkpointed and committed before they are released. A rejected record is kept as a dead letter
//! and never ends the run.

mod end;
mod waits;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::client::{KafkaConsumer, KafkaRecord, Rebalance, StartOffset, TopicPartition};
use super::settings::is_transient;
use crate::cc::kafka_dump::format::{KafkaPosition, RecordDeadLetter};
use crate::cc::partitions::PartitionStats;
use crate::cc::stream_registry::StreamRegistry;
use crate::cc::vault::ledger::{AcceptError, Accepted, Ledger, OffsetCommit, PartitionId};
use crate::cc::wire::chunk::{self, ChunkError};
use crate::runtime::metrics::Metrics;
use crate::runtime::shutdown::Shutdown;
use crate::{Error, Result};
use end::OtherPartitions;
use waits::WaitWatch;

/// Longest wait of a poll, and so the delay of a shutdown.
const POLL: Duration = Duration::from_millis(100);

/// Time for which small records of a stream are coalesced before they are written.
const COALESCE_INTERVAL: Duration = Duration::from_millis(20);

/// Time for the group to acknowledge the last commits.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for a broker to answer one query about a partition.
const BROKER_QUERY_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause before a failed query is repeated.
const BROKER_QUERY_RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Time for a broker to answer a query that only explains a wait.
const WAIT_QUERY_TIMEOUT: Duration = Duration::from_secs(1);

/// Number of partitions whose wait is explained.
const EXPLAINED_MAX: usize = 5;

/// Number of runs of empty records after which they are reported.
const EMPTY_RUNS_MAX: usize = 1024;

/// Interval between checks for idle streams, and between searches for an unreadable batch.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Bytes after which a checkpoint is written. A crash makes at most this much arrive again.
const CHECKPOINT_BYTES: u64 = 64 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum StartFrom {
    /// First record, unless the output directory or the group has an offset
    Earliest,
    /// After the last record, unless the output directory or the group has an offset; partitions that are added to a topic
    /// later are read from their first record
    Latest,
    /// Offset of the output directory or the group; the first record if neither has one
    Stored,
}

/// Configuration of the consumer loop.
#[derive(Clone, Debug)]
pub(crate) struct ConsumeConfig {
    pub from: StartFrom,
    /// Exit at the last record that each partition had at the start.
    pub exit_at_end: bool,
    pub checkpoint_interval: Duration,
    /// Time without a record after which a stream is closed. A later record continues it. `None`: never.
    pub idle_timeout: Option<Duration>,
    /// With `exit_at_end`: time without progress after which the run ends incomplete.
    pub wait_timeout: Duration,
}

/// Counts of what was consumed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Consumed {
    /// Records stored in files.
    pub records: u64,
    /// Duplicate records, which were skipped.
    pub duplicates: u64,
    /// Records stored as dead letters.
    pub dead_letters: u64,
    /// Records that were not stored because they belong before stored ones, or may be stored already.
    pub late: u64,
    /// Batches that could not be read.
    pub damaged: u64,
    /// With `--exit-at-end`: true if the end was reached.
    pub at_end: bool,
}

/// Consumer loop with everything it needs.
pub(crate) struct ConsumeLoop<'a> {
    pub client: &'a mut dyn KafkaConsumer,
    pub ledger: Ledger,
    pub config: ConsumeConfig,
    pub metrics: Arc<Metrics>,
    /// Registry for the partitions' statistics.
    pub live: Arc<StreamRegistry>,
    pub shutdown: &'a Shutdown,
    /// Called with the number of records read and the total, with `--exit-at-end`.
    pub progress: &'a mut dyn FnMut(u64, u64),
}

struct LoopState<'a> {
    consumer: ConsumeLoop<'a>,
    /// Partitions assigned to this member.
    assigned: BTreeMap<TopicPartition, AssignedPartition>,
    consumed: Consumed,
    bytes: u64,
    checkpoint_at: Instant,
    coalescing_since: Option<Instant>,
    /// True if the last poll returned no records.
    is_idle: bool,
    lag_at: Instant,
    /// Time of the next check for idle streams.
    idle_check_at: Instant,
    /// Time from which on an unreadable batch is looked for.
    probe_at: Instant,
    waiting: WaitWatch,
    /// Number of partitions that each topic had at its first assignment. `--from latest` applies to these only.
    first_partitions: BTreeMap<String, i32>,
    /// With `--exit-at-end`: the partitions of the other members, once those of this member have reached their end.
    others: OtherPartitions,
    /// Runs of records without key and value that are not reported: partition, first offset, next offset.
    empty: Vec<(TopicPartition, i64, i64)>,
}

struct AssignedPartition {
    id: PartitionId,
    /// With `--exit-at-end`: the offset to end at.
    end: Option<i64>,
    start: i64,
    live: Arc<PartitionStats>,
}

/// Counts per partition of one poll. Consecutive records usually belong to the same partition, so the last
/// one is checked first, without allocation.
#[derive(Default)]
struct BatchCounts {
    partitions: Vec<(TopicPartition, PartitionId, Consumed)>,
    last: usize,
    /// Runs of records without key and value: partition, first offset, next offset.
    empty: Vec<(TopicPartition, i64, i64)>,
}

impl BatchCounts {
    /// Returns the counts of a record's partition, if this member has it.
    fn entry(
        &mut self,
        assigned: &BTreeMap<TopicPartition, AssignedPartition>,
        record: &KafkaRecord<'_>,
    ) -> Option<(PartitionId, &mut Consumed)> {
        let is =
            |known: &(TopicPartition, PartitionId, Consumed)| known.0.matches(record.topic, record.partition);
        if !self.partitions.get(self.last).is_some_and(is) {
            self.last = match self.partitions.iter().position(is) {
                Some(at) => at,
                None => {
                    let partition = TopicPartition::new(record.topic, record.partition);
                    let id = assigned.get(&partition)?.id;
                    self.partitions.push((partition, id, Consumed::default()));
                    self.partitions.len() - 1
                }
            };
        }
        self.partitions.get_mut(self.last).map(|(_, id, fresh)| (*id, fresh))
    }

    /// Notes a record without key and value.
    fn note_empty(&mut self, record: &KafkaRecord<'_>) {
        let next = record.offset + 1;
        match self.empty.last_mut() {
            Some((partition, _, end)) if partition.matches(record.topic, record.partition) => *end = next,
            _ => self.empty.push((TopicPartition::new(record.topic, record.partition), record.offset, next)),
        }
    }
}

/// Answers of the broker about a partition.
struct PartitionBounds {
    /// Committed offset of the group.
    committed: Option<i64>,
    /// Id of the topic.
    topic_id: Option<String>,
    /// First offset in the partition.
    first: i64,
    /// Offset after the last record that can be read: records of open transactions cannot.
    stable_end: i64,
    /// Offset after the last record.
    end: i64,
}

impl<'a> ConsumeLoop<'a> {
    /// Consumes until a shutdown is requested or the end is reached. Then everything is stored, committed and
    /// closed.
    pub(crate) fn run(self) -> Result<Consumed> {
        let checkpoint_at = Instant::now() + self.config.checkpoint_interval;
        let mut running = LoopState {
            consumer: self,
            assigned: BTreeMap::new(),
            consumed: Consumed::default(),
            bytes: 0,
            checkpoint_at,
            coalescing_since: None,
            is_idle: true,
            lag_at: Instant::now(),
            idle_check_at: Instant::now(),
            probe_at: Instant::now(),
            waiting: WaitWatch::new(Instant::now()),
            first_partitions: BTreeMap::new(),
            others: OtherPartitions::default(),
            empty: Vec::new(),
        };
        let ended = running.run_until_end();
        let stored = running.flush_and_commit(Ledger::flush);
        let LoopState { consumer, consumed, .. } = running;
        consumer.ledger.close();
        ended.and(stored).map(|()| consumed)
    }
}

impl LoopState<'_> {
    fn run_until_end(&mut self) -> Result<()> {
        while !self.consumer.shutdown.is_triggered() {
            self.consumed.at_end = self.is_at_end()?;
            if self.consumed.at_end {
                break;
            }
            if let Some(change) = self.poll_once()? {
                self.apply_rebalance(change)?;
                self.others = OtherPartitions::default();
                self.waiting.restart(Instant::now());
            }
            self.checkpoint_and_commit()?;
            self.close_idle_streams()?;
            if self.has_waited_too_long() {
                break;
            }
        }
        self.report_empty(Vec::new());
        Ok(())
    }

    /// Closes streams that got no record for a while.
    fn close_idle_streams(&mut self) -> Result<()> {
        if self.is_idle {
            self.consumer.ledger.insert_late().map_err(Error::system("insert late records"))?;
        }
        let Some(timeout) = self.consumer.config.idle_timeout else { return Ok(()) };
        let now = Instant::now();
        if now < self.idle_check_at {
            return Ok(());
        }
        self.idle_check_at = now + CHECK_INTERVAL.min(timeout);
        let commits =
            self.consumer.ledger.close_idle(timeout).map_err(Error::system("write a checkpoint"))?;
        self.commit(&commits)
    }

    /// Says every few seconds what the loop waits for. With `--exit-at-end`: returns true after too long a wait.
    fn has_waited_too_long(&mut self) -> bool {
        let now = Instant::now();
        let is_behind = self.consumer.config.exit_at_end || self.has_lag();
        let is_waiting = self.is_idle && (self.assigned.is_empty() || is_behind);
        if !is_waiting {
            self.waiting.restart(now);
            return false;
        }
        let waited = self.waiting.waited(now);
        let is_due = self.waiting.take_due(now);
        if is_due {
            self.log_wait(waited);
        }
        let limit = self.consumer.config.wait_timeout;
        let is_over = self.consumer.config.exit_at_end && waited >= limit;
        if is_over {
            log::error!(
                "wait_timed_out waited_s={} note=\"the end was not reached; see --wait-timeout\"",
                waited.as_secs()
            );
        }
        is_over
    }

    /// Returns whether a partition has records that were not read. With `--exit-at-end`, those that it had at the start.
    fn has_lag(&self) -> bool {
        let has_lag = |known: &AssignedPartition| {
            let next = known.live.next_offset.get().and_then(|next| i64::try_from(next).ok());
            match (known.end, next) {
                (Some(end), Some(next)) => next < end,
                _ => known.live.lag().is_some_and(|lag| lag > 0),
            }
        };
        self.assigned.values().any(has_lag)
    }

    fn log_wait(&mut self, waited: Duration) {
        let waited = waited.as_secs();
        if self.assigned.is_empty() {
            let (state, members, note) = match self.consumer.client.group_state(WAIT_QUERY_TIMEOUT) {
                None => ("unknown".to_owned(), 0, "no broker answers"),
                Some(group) => {
                    let note = match &*group.state {
                        "Stable" => "other members have all partitions, or the topic does not exist",
                        "PreparingRebalance" => {
                            "the group waits for its other members, or until their sessions time out"
                        }
                        _ => "the group is about to assign partitions",
                    };
                    (group.state, group.members, note)
                }
            };
            log::warn!(
                "waiting_for_partitions waited_s={waited} group_state={state} members={members} note=\"{note}\""
            );
            return;
        }
        self.others.log_wait(waited);
        let behind =
            self.assigned.iter().filter(|(_, known)| known.live.lag() != Some(0)).take(EXPLAINED_MAX);
        let partitions: Vec<_> = behind.map(|(at, known)| (at.clone(), Arc::clone(&known.live))).collect();
        for (partition, live) in partitions {
            let next = live.next_offset.get().and_then(|next| i64::try_from(next).ok()).unwrap_or(0);
            let bounds = query_bounds(&mut *self.consumer.client, &partition, WAIT_QUERY_TIMEOUT);
            let note = match bounds {
                Ok(bounds) if next >= bounds.end => continue,
                Ok(bounds) if next >= bounds.stable_end => {
                    "a transaction is open; its records cannot be read before it ends"
                }
                Ok(_) => "the broker returns no record",
                Err(_) => "the broker does not answer",
            };
            let end = live.end_offset.get().unwrap_or(0);
            log::warn!(
                "waiting_for_records partition={partition} waited_s={waited} next={next} end={end} note=\"{note}\""
            );
        }
    }

    /// Passes over a batch that cannot be read. Its offsets become a gap.
    fn pass_unreadable_batch(&mut self) -> Result<()> {
        if Instant::now() < self.probe_at {
            return Ok(());
        }
        let ledger = &self.consumer.ledger;
        let positions: Vec<_> = self
            .assigned
            .iter()
            .map(|(partition, known)| {
                let next = ledger.position(known.id).unwrap_or(known.start);
                let end = known.live.end_offset.get().and_then(|end| i64::try_from(end).ok());
                (partition.clone(), next, end.unwrap_or(i64::MAX))
            })
            .filter(|(_, next, end)| next < end)
            .collect();
        let found = match self.consumer.client.find_unreadable(&positions) {
            Ok(found) => found,
            Err(error) => {
                log::warn!("broker_query_failed act=probe error=\"{}\"", crate::error::chain(&error));
                Vec::new()
            }
        };
        self.probe_at = Instant::now() + if found.is_empty() { CHECK_INTERVAL } else { Duration::ZERO };
        for (partition, first, next) in found {
            log::error!(
                "records_unreadable partition={partition} from={first} to={next} note=\"a batch has a wrong checksum or cannot be decompressed; its records are missing\""
            );
            self.consumed.damaged += 1;
            self.consumer.metrics.kafka_damaged_batches_total.inc();
            if let Some(known) = self.assigned.get(&partition) {
                self.consumer.ledger.skip_to(known.id, next);
                known.live.next_offset.set(next);
            }
            self.assign_until_answered(&[(partition, StartOffset::At(next))])?;
        }
        Ok(())
    }

    /// Polls once and stores the records.
    fn poll_once(&mut self) -> Result<Option<Rebalance>> {
        let LoopState { consumer, assigned, bytes, .. } = self;
        let ConsumeLoop { client, ledger, .. } = consumer;
        let mut batch = BatchCounts::default();
        let mut failed = None;
        let wait = if ledger.is_coalescing() { COALESCE_INTERVAL } else { POLL };
        ledger.set_clock(Instant::now());
        let polled = client.poll(wait, &mut |record| {
            let Some((id, fresh)) = batch.entry(assigned, &record) else { return ControlFlow::Continue(()) };
            match accept_record(ledger, id, &record) {
                Ok(RecordOutcome::New) => {
                    *bytes += record.value.map_or(0, <[u8]>::len) as u64;
                    fresh.records += 1;
                }
                Ok(RecordOutcome::Duplicate) => fresh.duplicates += 1,
                Ok(RecordOutcome::Letter) => fresh.dead_letters += 1,
                Ok(RecordOutcome::Late) => fresh.late += 1,
                Ok(RecordOutcome::Empty) => batch.note_empty(&record),
                Err(error) => {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        })?;
        self.report_empty(std::mem::take(&mut batch.empty));
        self.add_counts(batch);
        self.is_idle = polled.records == 0;
        let handed_over = match failed {
            Some(error) => Err(error),
            None => self.flush_coalesced(),
        };
        handed_over.map_err(Error::system("store a record"))?;
        if polled.is_unreadable {
            self.pass_unreadable_batch()?;
        }
        Ok(polled.rebalance)
    }

    /// Writes the coalesced records if nothing more arrived or they have waited long enough.
    fn flush_coalesced(&mut self) -> std::io::Result<()> {
        if !self.consumer.ledger.is_coalescing() {
            self.coalescing_since = None;
            return Ok(());
        }
        let since = *self.coalescing_since.get_or_insert_with(Instant::now);
        if self.is_idle || since.elapsed() >= COALESCE_INTERVAL {
            self.coalescing_since = None;
            return self.consumer.ledger.flush_coalesced();
        }
        Ok(())
    }

    /// Reports records without key and value as unreadable, once for those that followed each other. librdkafka 2.5 to 2.15
    /// returns the records of the formats before Kafka 0.11 in this form (librdkafka issue 5549). As dead letters they
    /// would count as read.
    fn report_empty(&mut self, fresh: Vec<(TopicPartition, i64, i64)>) {
        let is_over = fresh.is_empty();
        for run in fresh {
            match self.empty.iter_mut().find(|known| known.0 == run.0 && known.2 == run.1) {
                Some(known) => known.2 = run.2,
                None => self.empty.push(run),
            }
        }
        if !is_over && self.empty.len() < EMPTY_RUNS_MAX {
            return;
        }
        for (partition, first, next) in std::mem::take(&mut self.empty) {
            log::error!(
                "records_unreadable partition={partition} from={first} to={next} note=\"these records have neither key nor value; librdkafka returns the format before Kafka 0.11 in this form; decode copies of the broker's segments with lea decode\""
            );
            self.consumed.damaged += 1;
            self.consumer.metrics.kafka_damaged_batches_total.inc();
        }
    }

    /// Adds the counts of the last poll to the metrics.
    fn add_counts(&mut self, batch: BatchCounts) {
        let LoopState { consumer, assigned, consumed, .. } = self;
        let metrics = &consumer.metrics;
        for (partition, _, fresh) in batch.partitions {
            let Some(known) = assigned.get(&partition) else { continue };
            consumed.records += fresh.records;
            consumed.duplicates += fresh.duplicates;
            consumed.dead_letters += fresh.dead_letters;
            consumed.late += fresh.late;
            metrics.kafka_late_records_total.add(fresh.late);
            metrics.kafka_records_total.add(fresh.records);
            metrics.kafka_duplicates_total.add(fresh.duplicates);
            metrics.kafka_dead_letters_total.add(fresh.dead_letters);
            known.live.records_total.add(fresh.records);
            known.live.duplicates_total.add(fresh.duplicates);
            known.live.dead_letters_total.add(fresh.dead_letters);
        }
    }

    /// Writes a checkpoint and commits when it is time.
    fn checkpoint_and_commit(&mut self) -> Result<()> {
        let failed = Error::system("write a checkpoint");
        if self.bytes >= CHECKPOINT_BYTES || Instant::now() >= self.checkpoint_at {
            self.consumer.ledger.start_checkpoint().map_err(failed)?;
            self.bytes = 0;
            self.checkpoint_at = Instant::now() + self.consumer.config.checkpoint_interval;
        }
        let finished = self.consumer.ledger.poll_checkpoint();
        if let Some(commits) = finished.map_err(Error::system("write a checkpoint"))? {
            self.commit(&commits)?;
        }
        self.apply_acknowledged_commits(Duration::ZERO);
        if self.is_idle || Instant::now() >= self.lag_at {
            self.update_lag();
            self.lag_at = Instant::now() + POLL;
        }
        Ok(())
    }

    fn commit(&mut self, commits: &[OffsetCommit]) -> Result<()> {
        if commits.is_empty() {
            return Ok(());
        }
        let offsets: Vec<_> = commits
            .iter()
            .map(|commit| (self.topic_partition(commit.partition), commit.next_offset))
            .collect();
        self.consumer.client.commit(&offsets)
    }

    /// Passes acknowledged commits to the ledger.
    fn apply_acknowledged_commits(&mut self, timeout: Duration) {
        for (partition, next_offset) in self.consumer.client.take_acknowledged(timeout) {
            if let Some(known) = self.assigned.get(&partition) {
                self.consumer.ledger.record_commits(&[OffsetCommit { partition: known.id, next_offset }]);
                known.live.committed_offset.set(next_offset);
            }
        }
    }

    fn update_lag(&mut self) {
        for progress in self.consumer.client.progress() {
            let Some(known) = self.assigned.get(&progress.partition) else { continue };
            // Before the first answer both are unknown, and the values from the start remain.
            if let Some(next_offset) = progress.next_offset {
                known.live.next_offset.set(next_offset);
            }
            if let Some(end_offset) = progress.end_offset {
                known.live.end_offset.set(end_offset);
            }
        }
        let lag = self.assigned.values().filter_map(|known| known.live.lag()).sum();
        self.consumer.metrics.kafka_lag_records.set(lag);
        if self.consumer.config.exit_at_end && !self.assigned.is_empty() {
            let ledger = &self.consumer.ledger;
            let (done, all) = self.assigned.values().fold((0, 0), |(done, all), known| {
                let end = known.end.unwrap_or(known.start);
                let at = ledger.partition(known.id).next_offset.min(end);
                (done + at.saturating_sub(known.start).max(0), all + (end - known.start).max(0))
            });
            (self.consumer.progress)(done.unsigned_abs(), all.unsigned_abs());
        }
    }

    fn topic_partition(&self, id: PartitionId) -> TopicPartition {
        let state = self.consumer.ledger.partition(id);
        TopicPartition::new(&state.topic, state.partition)
    }

    fn apply_rebalance(&mut self, change: Rebalance) -> Result<()> {
        match change {
            Rebalance::Assigned(partitions) => self.start_partitions(&partitions),
            Rebalance::TopicRecreated(partitions) => {
                // A checkpoint or commit in progress has offsets of the old topic, which are meaningless in
                // the new one.
                self.consumer.ledger.finish_checkpoint().map_err(Error::system("write a checkpoint"))?;
                self.apply_acknowledged_commits(COMMIT_TIMEOUT);
                self.start_partitions(&partitions)
            }
            Rebalance::Revoked { partitions, lost } => {
                log::info!("partitions_revoked count={} lost={lost}", partitions.len());
                let known = |partition| self.assigned.get(partition).map(|known| known.id);
                let revoked: Vec<PartitionId> = partitions.iter().filter_map(known).collect();
                self.flush_and_commit(|ledger| ledger.flush_partitions(&revoked))?;
                for partition in &partitions {
                    if let Some(known) = self.assigned.remove(partition) {
                        self.consumer.ledger.unassign(known.id);
                        known.live.is_assigned.store(false, Ordering::Relaxed);
                    }
                }
                self.consumer.client.unassign(&partitions)
            }
        }
    }

    /// Starts partitions at the offset of the output directory or the group.
    fn start_partitions(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        log::info!("partitions_assigned count={}", partitions.len());
        let (mut starts, mut put_right) = (Vec::new(), Vec::new());
        for partition in partitions {
            let Some(bounds) = self.query_bounds_until_answered(partition) else { return Ok(()) };
            self.note_first_partitions(&partition.topic);
            let (id, start) = self.start_position(partition, &bounds);
            let PartitionBounds { committed, end, .. } = bounds;
            log::info!("partition_started partition={partition} offset={start} end={end}");
            let live = self.consumer.live.partitions.assign(&partition.topic, partition.number);
            live.next_offset.set(start);
            live.committed_offset.set(committed.unwrap_or(-1));
            live.end_offset.set(end);
            let until = self.consumer.config.exit_at_end.then_some(end);
            let assigned = AssignedPartition { id, end: until, start, live };
            self.assigned.insert(partition.clone(), assigned);
            starts.push((partition.clone(), StartOffset::At(start)));
            if committed.is_some_and(|committed| committed > start) {
                put_right.push((partition.clone(), start));
            }
        }
        self.assign_until_answered(&starts)?;
        if !put_right.is_empty() {
            // The group's offset lies after the last record. A consumer that relied on it would miss new
            // records.
            self.consumer.client.commit(&put_right)?;
        }
        Ok(())
    }

    /// Starts partitions. If the broker does not answer, retries until shutdown.
    fn assign_until_answered(&mut self, starts: &[(TopicPartition, StartOffset)]) -> Result<()> {
        loop {
            match self.consumer.client.assign(starts) {
                Err(error) if is_transient_error(&error) && !self.consumer.shutdown.is_triggered() => {
                    log::warn!("broker_query_failed act=start error=\"{}\"", crate::error::chain(&error));
                    self.consumer.shutdown.wait(BROKER_QUERY_RETRY_PAUSE);
                }
                ended => return ended,
            }
        }
    }

    /// Returns the ledger's id and the start offset of a partition.
    fn start_position(&mut self, partition: &TopicPartition, bounds: &PartitionBounds) -> (PartitionId, i64) {
        let &PartitionBounds { committed, ref topic_id, first, stable_end, end } = bounds;
        let was_there =
            self.first_partitions.get(&*partition.topic).is_none_or(|count| partition.number < *count);
        let ledger = &mut self.consumer.ledger;
        let committed = committed.filter(|committed| *committed <= end);
        let (id, stored) = ledger.assign(&partition.topic, topic_id.as_deref(), partition.number, committed);
        let start = match stored.offset {
            // The group commits this offset, so that another member continues here.
            None if self.consumer.config.from == StartFrom::Latest && was_there => stable_end,
            None => first,
            Some(start) if stored.end > end => {
                // The next records at these offsets are new. As duplicates they would be lost.
                log::warn!(
                    "broker_log_truncated partition={partition} stored={} end={end} note=\"the broker no longer has these records; lea has already stored them\"",
                    stored.end
                );
                ledger.discard_from(id, end);
                start.min(end).max(first)
            }
            Some(start) if start < first && stored.end < first => {
                log::warn!(
                    "offset_gap partition={partition} from={start} to={first} note=\"the broker deleted these records before lea read them\""
                );
                first
            }
            // The broker deleted these records too, but that was said when it was found.
            Some(start) if start < first => ledger.first_missing(id, first),
            Some(start) => start,
        };
        if stored.offset != Some(start) || stored.end > end {
            ledger.start_at(id, start, false);
        }
        (id, start)
    }

    /// Notes how many partitions a topic has when it is assigned for the first time. Records of partitions that are added
    /// later are all new. A directory that has read the topic before has noted the offset of each partition.
    fn note_first_partitions(&mut self, topic: &str) {
        if self.consumer.config.from != StartFrom::Latest || self.first_partitions.contains_key(topic) {
            return;
        }
        let count = match self.consumer.ledger.has_consumed(topic) {
            true => Some(0),
            false => self.consumer.client.partition_count(topic, BROKER_QUERY_TIMEOUT).ok().flatten(),
        };
        self.first_partitions.insert(topic.to_owned(), count.unwrap_or(i32::MAX));
    }

    /// Queries the bounds of a partition until the broker answers. Returns `None` on shutdown, or if this
    /// member was fenced.
    fn query_bounds_until_answered(&mut self, partition: &TopicPartition) -> Option<PartitionBounds> {
        while !self.consumer.shutdown.is_triggered() {
            match query_bounds(&mut *self.consumer.client, partition, BROKER_QUERY_TIMEOUT) {
                Ok(bounds) => return Some(bounds),
                Err(_) if self.consumer.client.is_fenced() => return None,
                Err(error) => {
                    log::warn!(
                        "broker_query_failed partition={partition} error=\"{}\"",
                        crate::error::chain(&error)
                    );
                    self.consumer.shutdown.wait(BROKER_QUERY_RETRY_PAUSE);
                }
            }
        }
        None
    }

    /// Stores and commits everything that was accepted.
    fn flush_and_commit(
        &mut self,
        flush: impl FnOnce(&mut Ledger) -> std::io::Result<Vec<OffsetCommit>>,
    ) -> Result<()> {
        let commits = flush(&mut self.consumer.ledger).map_err(Error::system("write a checkpoint"))?;
        self.commit(&commits)?;
        self.apply_acknowledged_commits(COMMIT_TIMEOUT);
        Ok(())
    }
}

fn is_transient_error(error: &Error) -> bool {
    let Error::Kafka { cause, .. } = error else { return false };
    cause.rdkafka_error_code().is_some_and(is_transient)
}

/// Queries the end last, so that the committed offset cannot lie after it.
fn query_bounds(
    client: &mut dyn KafkaConsumer,
    partition: &TopicPartition,
    timeout: Duration,
) -> Result<PartitionBounds> {
    let committed = client.committed(std::slice::from_ref(partition), timeout)?.into_iter().next().flatten();
    let topic_id = client.topic_id(&partition.topic, timeout)?;
    let (first, stable_end) = client.bounds(partition, timeout)?;
    let end = client.end_offset(partition, timeout)?.max(stable_end);
    Ok(PartitionBounds { committed, topic_id, first, stable_end, end })
}

enum RecordOutcome {
    /// The record was stored in a stream.
    New,
    /// The record was stored before.
    Duplicate,
    /// The record was rejected.
    Letter,
    /// The record was not stored, because it belongs before stored ones or may be stored already.
    Late,
    /// The record has neither key nor value, and becomes a gap.
    Empty,
}

/// Stores one record.
fn accept_record(
    ledger: &mut Ledger,
    id: PartitionId,
    record: &KafkaRecord<'_>,
) -> std::io::Result<RecordOutcome> {
    if record.key.is_none() && record.value.is_none() {
        ledger.skip_to(id, record.offset + 1);
        return Ok(RecordOutcome::Empty);
    }
    let chunk = record.value.ok_or(ChunkError::NoValue).and_then(chunk::parse);
    let accepted =
        chunk.map_err(AcceptError::from).and_then(|chunk| ledger.accept(id, record.offset, &chunk));
    match accepted {
        Ok(Accepted::New) => Ok(RecordOutcome::New),
        Ok(Accepted::Duplicate) => Ok(RecordOutcome::Duplicate),
        Ok(accepted @ (Accepted::Late | Accepted::Unknown)) => {
            log_late(record, accepted);
            Ok(RecordOutcome::Late)
        }
        Err(AcceptError::Failed(error)) => Err(error),
        Err(AcceptError::Rejected(refused)) => keep_dead_letter(ledger, id, record, &refused),
    }
}

fn log_late(record: &KafkaRecord<'_>, accepted: Accepted) {
    let KafkaRecord { topic, partition, offset, .. } = *record;
    let note = match accepted {
        Accepted::Unknown => "not stored: the directory has too many gaps to know whether it has this record",
        _ => "not stored: the directory has later records of the stream; consume into another directory",
    };
    log::warn!("record_late topic={topic} partition={partition} offset={offset} note=\"{note}\"");
}

fn keep_dead_letter(
    ledger: &mut Ledger,
    id: PartitionId,
    record: &KafkaRecord<'_>,
    refused: &ChunkError,
) -> std::io::Result<RecordOutcome> {
    let KafkaRecord { topic, partition, offset, value, .. } = *record;
    let reason = refused.to_string();
    let position = Some(KafkaPosition { topic, partition, offset });
    let letter = RecordDeadLetter { position, source: None, reason: &reason, value };
    match ledger.store_dead_letter(id, offset, &letter.to_line())? {
        Accepted::New => {}
        Accepted::Duplicate => return Ok(RecordOutcome::Duplicate),
        late @ (Accepted::Late | Accepted::Unknown) => {
            log_late(record, late);
            return Ok(RecordOutcome::Late);
        }
    }
    let word = refused.as_str();
    log::warn!("record_rejected topic={topic} partition={partition} offset={offset} reason=\"{word}\"");
    Ok(RecordOutcome::Letter)
}

#[cfg(test)]
mod tests;
