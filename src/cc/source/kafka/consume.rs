//! The consumer's loop: records from the group's partitions into the ledger, checkpoints, commits. Runs in one
//! thread, which polls.
//!
//! Invariants: nothing is committed before the checkpoint that has it is durable; partitions that are taken away are
//! flushed, checkpointed and committed before they are given up; a record that cannot be used is kept as a dead
//! letter and never ends the run.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::client::{Change, Client, Partition, Record, Start};
use crate::cc::frame::chunk::{self, Refused};
use crate::cc::frame::dump::{Letter, Position};
use crate::cc::live::Live;
use crate::cc::partitions::LivePartition;
use crate::cc::vault::ledger::{Commit, Ledger, PartitionId, Taken, Untaken};
use crate::counters::Counters;
use crate::stop::Stop;
use crate::{Error, Result};

/// How long a poll waits for records: as long as a stop may wait.
const POLL: Duration = Duration::from_millis(100);

/// How long small records of a stream are gathered before they are written.
const GATHER: Duration = Duration::from_millis(20);

/// How long the group may take to acknowledge the last commits.
const COMMIT_WAIT: Duration = Duration::from_secs(5);

/// How long a broker may take to say where a partition begins and ends.
const ASK: Duration = Duration::from_secs(10);

/// Before a broker that could not be asked is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// A checkpoint comes after so many bytes at the latest: what a crash makes come again.
const CHECKPOINT_BYTES: u64 = 64 << 20;

/// Where to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum From {
    /// At the first record, unless the folder or the group is further
    Earliest,
    /// Behind the last record, unless the folder or the group has an offset
    Latest,
    /// At the offset that the folder or the group has; the first record where neither has one
    Stored,
}

/// How records are consumed.
#[derive(Clone, Debug)]
pub struct ConsumeConfig {
    /// Where to start.
    pub from: From,
    /// End at the records that each partition had at the start.
    pub until_end: bool,
    /// Between two checkpoints.
    pub checkpoint_interval: Duration,
}

/// What was consumed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Consumed {
    /// Records that went into files.
    pub records: u64,
    /// Records that came again and were passed over.
    pub repeated: u64,
    /// Records that could not be used.
    pub dead_letters: u64,
    /// Batches whose checksum was wrong.
    pub damaged: u64,
    /// With `--until-end`: true if the end was reached.
    pub at_end: bool,
}

/// A consumer under way.
pub struct Consumer<'a> {
    /// The client.
    pub client: &'a mut dyn Client,
    /// Where records go.
    pub ledger: Ledger,
    /// How.
    pub config: ConsumeConfig,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// Where each partition's numbers are shown.
    pub live: Arc<Live>,
    /// Asked for by a signal.
    pub stop: &'a Stop,
    /// Told how many records came of how many, with `--until-end`.
    pub progress: &'a mut dyn FnMut(u64, u64),
}

struct Loop<'a> {
    consumer: Consumer<'a>,
    /// The partitions that this member has.
    assigned: BTreeMap<Partition, Assigned>,
    consumed: Consumed,
    bytes: u64,
    checkpoint_at: Instant,
    gathering_since: Option<Instant>,
    /// The last poll brought no records.
    is_idle: bool,
    lag_at: Instant,
}

struct Assigned {
    id: PartitionId,
    /// With `--until-end`: the offset to end at.
    end: Option<i64>,
    start: i64,
    live: Arc<LivePartition>,
}

/// What one poll brought, a partition. Records of a partition come many at a time, so the one of the last record is
/// looked at first: no allocation a record.
#[derive(Default)]
struct Batch {
    partitions: Vec<(Partition, PartitionId, Consumed)>,
    last: usize,
}

impl Batch {
    /// The partition of a record, if this member has it, and what came of it.
    fn of(
        &mut self,
        assigned: &BTreeMap<Partition, Assigned>,
        record: &Record<'_>,
    ) -> Option<(PartitionId, &mut Consumed)> {
        let is = |known: &(Partition, PartitionId, Consumed)| known.0.is(record.topic, record.partition);
        if !self.partitions.get(self.last).is_some_and(is) {
            self.last = match self.partitions.iter().position(is) {
                Some(at) => at,
                None => {
                    let partition = Partition::new(record.topic, record.partition);
                    let id = assigned.get(&partition)?.id;
                    self.partitions.push((partition, id, Consumed::default()));
                    self.partitions.len() - 1
                }
            };
        }
        self.partitions.get_mut(self.last).map(|(_, id, fresh)| (*id, fresh))
    }
}

/// What a broker says of a partition.
struct Bounds {
    /// What the group has committed.
    committed: Option<i64>,
    /// Which topic of this name it is.
    topic_id: Option<String>,
    /// The first offset that is there.
    first: i64,
    /// The offset behind the last record.
    end: i64,
}

impl<'a> Consumer<'a> {
    /// Consumes until the stop is asked for, or the end is reached; then all is stored, committed and closed.
    pub fn run(self) -> Result<Consumed> {
        let checkpoint_at = Instant::now() + self.config.checkpoint_interval;
        let mut running = Loop {
            consumer: self,
            assigned: BTreeMap::new(),
            consumed: Consumed::default(),
            bytes: 0,
            checkpoint_at,
            gathering_since: None,
            is_idle: true,
            lag_at: Instant::now(),
        };
        let ended = running.poll_on();
        let stored = running.store(Ledger::flush);
        let Loop { consumer, consumed, .. } = running;
        consumer.ledger.close();
        ended.and(stored).map(|()| consumed)
    }
}

impl Loop<'_> {
    fn poll_on(&mut self) -> Result<()> {
        while !self.consumer.stop.is_asked() {
            self.consumed.at_end = self.is_at_end();
            if self.consumed.at_end {
                break;
            }
            if let Some(change) = self.poll()? {
                self.change(change)?;
            }
            self.keep_up()?;
        }
        Ok(())
    }

    /// Takes a batch of records.
    fn poll(&mut self) -> Result<Option<Change>> {
        let Loop { consumer, assigned, bytes, .. } = self;
        let Consumer { client, ledger, .. } = consumer;
        let mut batch = Batch::default();
        let mut failed = None;
        let wait = if ledger.is_gathering() { GATHER } else { POLL };
        let polled = client.poll(wait, &mut |record| {
            let Some((id, fresh)) = batch.of(assigned, &record) else { return ControlFlow::Continue(()) };
            match take(ledger, id, &record) {
                Ok(Took::New) => {
                    *bytes += record.value.map_or(0, <[u8]>::len) as u64;
                    fresh.records += 1;
                }
                Ok(Took::Repeated) => fresh.repeated += 1,
                Ok(Took::Letter) => fresh.dead_letters += 1,
                Err(error) => {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        })?;
        self.count(batch);
        self.consumer.counters.kafka_damaged_total.add(polled.damaged);
        self.consumed.damaged += polled.damaged;
        self.is_idle = polled.records == 0;
        let handed_over = match failed {
            Some(error) => Err(error),
            None => self.hand_over(),
        };
        handed_over.map(|()| polled.change).map_err(Error::system("store a record"))
    }

    /// Hands over what is gathered of small records, when nothing more came or it has waited for long enough.
    fn hand_over(&mut self) -> std::io::Result<()> {
        if !self.consumer.ledger.is_gathering() {
            self.gathering_since = None;
            return Ok(());
        }
        let since = *self.gathering_since.get_or_insert_with(Instant::now);
        if self.is_idle || since.elapsed() >= GATHER {
            self.gathering_since = None;
            return self.consumer.ledger.hand_over();
        }
        Ok(())
    }

    /// Shows what the last batch brought.
    fn count(&mut self, batch: Batch) {
        let Loop { consumer, assigned, consumed, .. } = self;
        let counters = &consumer.counters;
        for (partition, _, fresh) in batch.partitions {
            let Some(known) = assigned.get(&partition) else { continue };
            consumed.records += fresh.records;
            consumed.repeated += fresh.repeated;
            consumed.dead_letters += fresh.dead_letters;
            counters.kafka_records_total.add(fresh.records);
            counters.kafka_repeated_total.add(fresh.repeated);
            counters.dead_letters_total.add(fresh.dead_letters);
            known.live.records_total.add(fresh.records);
            known.live.repeated_total.add(fresh.repeated);
            known.live.dead_letters_total.add(fresh.dead_letters);
        }
    }

    /// Checkpoints and commits, when it is time.
    fn keep_up(&mut self) -> Result<()> {
        let failed = Error::system("write a checkpoint");
        if self.bytes >= CHECKPOINT_BYTES || Instant::now() >= self.checkpoint_at {
            self.consumer.ledger.checkpoint().map_err(failed)?;
            self.bytes = 0;
            self.checkpoint_at = Instant::now() + self.consumer.config.checkpoint_interval;
        }
        let finished = self.consumer.ledger.finished();
        if let Some(commits) = finished.map_err(Error::system("write a checkpoint"))? {
            self.commit(&commits)?;
        }
        self.note_commits(Duration::ZERO);
        if self.is_idle || Instant::now() >= self.lag_at {
            self.note_lag();
            self.lag_at = Instant::now() + POLL;
        }
        Ok(())
    }

    fn commit(&mut self, commits: &[Commit]) -> Result<()> {
        if commits.is_empty() {
            return Ok(());
        }
        let offsets: Vec<_> =
            commits.iter().map(|commit| (self.name(commit.partition), commit.next_offset)).collect();
        self.consumer.client.commit(&offsets)
    }

    /// Tells the ledger what the group has acknowledged.
    fn note_commits(&mut self, timeout: Duration) {
        for (partition, next_offset) in self.consumer.client.acknowledged(timeout) {
            if let Some(known) = self.assigned.get(&partition) {
                self.consumer.ledger.committed(&[Commit { partition: known.id, next_offset }]);
                known.live.committed_offset.set(next_offset);
            }
        }
    }

    fn note_lag(&mut self) {
        for progress in self.consumer.client.progress() {
            let Some(known) = self.assigned.get(&progress.partition) else { continue };
            // Neither is known before the first answer; then it is what the start was.
            if let Some(next_offset) = progress.next_offset {
                known.live.next_offset.set(next_offset);
            }
            if let Some(end_offset) = progress.end_offset {
                known.live.end_offset.set(end_offset);
            }
        }
        let lag = self.assigned.values().filter_map(|known| known.live.lag()).sum();
        self.consumer.counters.kafka_lag_records.set(lag);
        if self.consumer.config.until_end && !self.assigned.is_empty() {
            let ledger = &self.consumer.ledger;
            let (done, all) = self.assigned.values().fold((0, 0), |(done, all), known| {
                let end = known.end.unwrap_or(known.start);
                let at = ledger.partition(known.id).next_offset.min(end);
                (done + at.saturating_sub(known.start).max(0), all + (end - known.start).max(0))
            });
            (self.consumer.progress)(done.unsigned_abs(), all.unsigned_abs());
        }
    }

    fn name(&self, id: PartitionId) -> Partition {
        let state = self.consumer.ledger.partition(id);
        Partition::new(&state.topic, state.partition)
    }

    /// With `--until-end`: true when each partition is where it ended at the start. Control records at its end have
    /// no record of their own, so the client's position counts too.
    fn is_at_end(&mut self) -> bool {
        if !self.consumer.config.until_end || self.assigned.is_empty() {
            return false;
        }
        let ledger = &self.consumer.ledger;
        let is_stored =
            |known: &Assigned| known.end.is_some_and(|end| ledger.partition(known.id).next_offset >= end);
        if self.assigned.values().all(is_stored) {
            return true;
        }
        // Asked only where nothing comes any more: the answer is made anew for each partition.
        if !self.is_idle {
            return false;
        }
        let reached: BTreeMap<Partition, i64> = self
            .consumer
            .client
            .progress()
            .into_iter()
            .filter_map(|progress| Some((progress.partition, progress.next_offset?)))
            .collect();
        self.assigned.iter().all(|(partition, known)| {
            let stored = self.consumer.ledger.partition(known.id).next_offset;
            let at = reached.get(partition).copied().unwrap_or(stored).max(stored);
            known.end.is_some_and(|end| at >= end)
        })
    }

    fn change(&mut self, change: Change) -> Result<()> {
        match change {
            Change::Given(partitions) => self.given(&partitions),
            Change::MadeAgain(partitions) => {
                // A checkpoint or a commit under way has offsets of the old topic; they mean nothing in the new one.
                self.consumer.ledger.checkpoint_now().map_err(Error::system("write a checkpoint"))?;
                self.note_commits(COMMIT_WAIT);
                self.given(&partitions)
            }
            Change::Taken { partitions, lost } => {
                log::info!("partitions_taken count={} lost={lost}", partitions.len());
                let known = |partition| self.assigned.get(partition).map(|known| known.id);
                let taken: Vec<PartitionId> = partitions.iter().filter_map(known).collect();
                self.store(|ledger| ledger.flush_of(&taken))?;
                for partition in &partitions {
                    if let Some(known) = self.assigned.remove(partition) {
                        self.consumer.ledger.unassign(known.id);
                        known.live.is_assigned.store(false, Ordering::Relaxed);
                    }
                }
                self.consumer.client.give_up(&partitions)
            }
        }
    }

    /// Starts partitions where the folder, or the group, is.
    fn given(&mut self, partitions: &[Partition]) -> Result<()> {
        log::info!("partitions_given count={}", partitions.len());
        let (mut starts, mut put_right) = (Vec::new(), Vec::new());
        for partition in partitions {
            let Some(bounds) = self.ask(partition) else { return Ok(()) };
            let (id, start) = self.start_of(partition, &bounds);
            let Bounds { committed, end, .. } = bounds;
            log::info!("partition_started partition={partition} offset={start} end={end}");
            let live = self.consumer.live.partitions.assign(&partition.topic, partition.number);
            live.next_offset.set(start);
            live.committed_offset.set(committed.unwrap_or(-1));
            live.end_offset.set(end);
            let until = self.consumer.config.until_end.then_some(end);
            let assigned = Assigned { id, end: until, start, live };
            self.assigned.insert(partition.clone(), assigned);
            starts.push((partition.clone(), Start::At(start)));
            if committed.is_some_and(|committed| committed > start) {
                put_right.push((partition.clone(), start));
            }
        }
        self.consumer.client.assign(&starts)?;
        if !put_right.is_empty() {
            // The group's offset is one of records that are no more: whoever goes by it would miss new ones.
            self.consumer.client.commit(&put_right)?;
        }
        Ok(())
    }

    /// Where a partition goes on.
    fn start_of(&mut self, partition: &Partition, bounds: &Bounds) -> (PartitionId, i64) {
        let &Bounds { committed, ref topic_id, first, end } = bounds;
        let ledger = &mut self.consumer.ledger;
        let committed = committed.filter(|committed| *committed <= end);
        let (id, start) = ledger.assign(&partition.topic, topic_id.as_deref(), partition.number, committed);
        match start {
            None if self.consumer.config.from == From::Latest => (id, end),
            None => (id, first),
            Some(start) if start > end => {
                // What comes next at these offsets is new: taken for repeated, it would be lost.
                log::warn!(
                    "records_vanished partition={partition} taken={start} end={end} note=\"the broker lost them; they are in the files\""
                );
                ledger.go_to(id, end);
                (id, end)
            }
            Some(start) if start < first => {
                log::warn!(
                    "records_missed partition={partition} from={start} to={first} note=\"the broker has deleted them\""
                );
                ledger.go_to(id, first);
                (id, first)
            }
            Some(start) => (id, start),
        }
    }

    /// What a broker says of a partition; asked until one answers. `None`: a stop came first, or nobody will answer.
    fn ask(&mut self, partition: &Partition) -> Option<Bounds> {
        while !self.consumer.stop.is_asked() {
            match bounds(&mut *self.consumer.client, partition) {
                Ok(bounds) => return Some(bounds),
                Err(_) if self.consumer.client.is_shut_out() => return None,
                Err(error) => {
                    log::warn!(
                        "broker_not_asked partition={partition} error=\"{}\"",
                        crate::error::chain(&error)
                    );
                    self.consumer.stop.wait(ASK_AGAIN);
                }
            }
        }
        None
    }

    /// Stores all that was taken, and commits it.
    fn store(&mut self, flush: impl FnOnce(&mut Ledger) -> std::io::Result<Vec<Commit>>) -> Result<()> {
        let commits = flush(&mut self.consumer.ledger).map_err(Error::system("write a checkpoint"))?;
        self.commit(&commits)?;
        self.note_commits(COMMIT_WAIT);
        Ok(())
    }
}

/// Asks for the end last: what the group has committed is not beyond it then.
fn bounds(client: &mut dyn Client, partition: &Partition) -> Result<Bounds> {
    let committed = client.committed(std::slice::from_ref(partition), ASK)?.into_iter().next().flatten();
    let topic_id = client.topic_id(&partition.topic, ASK)?;
    let (first, end) = client.bounds(partition, ASK)?;
    Ok(Bounds { committed, topic_id, first, end })
}

enum Took {
    /// It is of a stream.
    New,
    /// The record was taken before.
    Repeated,
    /// It cannot be used.
    Letter,
}

/// Takes one record.
fn take(ledger: &mut Ledger, id: PartitionId, record: &Record<'_>) -> std::io::Result<Took> {
    let chunk = record.value.ok_or(Refused::NoValue).and_then(chunk::parse);
    let taken = chunk.map_err(Untaken::from).and_then(|chunk| ledger.take(id, record.offset, &chunk));
    match taken {
        Ok(Taken::New) => Ok(Took::New),
        Ok(Taken::Repeated) => Ok(Took::Repeated),
        Err(Untaken::Failed(error)) => Err(error),
        Err(Untaken::Refused(refused)) => keep_letter(ledger, id, record, &refused),
    }
}

fn keep_letter(
    ledger: &mut Ledger,
    id: PartitionId,
    record: &Record<'_>,
    refused: &Refused,
) -> std::io::Result<Took> {
    let Record { topic, partition, offset, value, .. } = *record;
    let reason = refused.to_string();
    let position = Some(Position { topic, partition, offset });
    let letter = Letter { position, found: None, reason: &reason, value };
    if ledger.keep_letter(id, offset, &letter.line())? == Taken::Repeated {
        return Ok(Took::Repeated);
    }
    let word = refused.word();
    log::warn!("record_refused topic={topic} partition={partition} offset={offset} reason=\"{word}\"");
    Ok(Took::Letter)
}

#[cfg(test)]
mod tests;
