//! Consumer loop: stores records of the assigned partitions in the ledger, writes checkpoints, commits
//! offsets. Runs in one thread, which also polls.
//!
//! Invariants: an offset is committed only after a durable checkpoint contains it. Revoked partitions are
//! flushed, checkpointed and committed before they are released. A rejected record is kept as a dead letter
//! and never ends the run.

mod accept;
mod end;
mod start;
mod unreadable;
mod waits;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::client::{KafkaConsumer, KafkaRecord, Rebalance, TopicPartition};
use crate::cc::partitions::PartitionStats;
use crate::cc::stream_registry::StreamRegistry;
use crate::cc::vault::ledger::{Ledger, OffsetCommit, PartitionId};
use crate::runtime::metrics::Metrics;
use crate::runtime::shutdown::Shutdown;
use crate::{Error, Result};
use accept::{RecordOutcome, accept_record};
use end::OtherPartitions;
use unreadable::EmptyRuns;
use waits::WaitWatch;

/// Longest wait of a poll, and so the delay of a shutdown.
const POLL: Duration = Duration::from_millis(100);

/// Time for which small records of a stream are coalesced before they are written.
const COALESCE_INTERVAL: Duration = Duration::from_millis(20);

/// Time for the group to acknowledge the last commits.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for a broker to answer one query about a partition.
const BROKER_QUERY_TIMEOUT: Duration = Duration::from_secs(10);

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
    /// End of the last unreadable batch of each partition. It is found again if records before it were still on their way.
    unreadable_ends: BTreeMap<TopicPartition, i64>,
    waiting: WaitWatch,
    /// Number of partitions that each topic had at its first assignment. `--from latest` applies to these only.
    first_partitions: BTreeMap<String, i32>,
    /// With `--exit-at-end`: the partitions of the other members, once those of this member have reached their end.
    others: OtherPartitions,
    /// Records without key and value that are not reported.
    empty: EmptyRuns,
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
    empty: EmptyRuns,
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
            unreadable_ends: BTreeMap::new(),
            waiting: WaitWatch::new(Instant::now()),
            first_partitions: BTreeMap::new(),
            others: OtherPartitions::default(),
            empty: EmptyRuns::default(),
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
        self.report_empty(EmptyRuns::default());
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
                Ok(RecordOutcome::Empty) => batch.empty.add_record(&record),
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

#[cfg(test)]
mod tests;
