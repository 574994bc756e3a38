//! Interface of a Kafka consumer, reduced to what lea needs: batches of records, rebalances, commits,
//! progress. Runs in the thread that polls.
//!
//! Invariants: records of a partition arrive in the order of their offsets, from the start passed to
//! `assign`. An assigned partition sends nothing before it is started with `assign`. A revoked partition goes
//! to another member only after `unassign`, unless it is lost. Only `poll` may block for long, and only up to
//! its timeout.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use crate::Result;

/// Partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    pub topic: Arc<str>,
    pub number: i32,
}

impl TopicPartition {
    pub fn new(topic: &str, number: i32) -> TopicPartition {
        TopicPartition { topic: topic.into(), number }
    }

    pub fn matches(&self, topic: &str, number: i32) -> bool {
        self.number == number && *self.topic == *topic
    }
}

impl fmt::Display for TopicPartition {
    /// Kafka's name for the partition's directory: `interception-0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.number)
    }
}

/// Record in the client's memory.
#[derive(Clone, Copy, Debug)]
pub struct KafkaRecord<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds since 1970, by the producer's or the broker's clock.
    pub timestamp_ms: Option<i64>,
    pub key: Option<&'a [u8]>,
    /// `None` for a tombstone.
    pub value: Option<&'a [u8]>,
}

/// Result of a poll.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PollResult {
    /// Number of records passed to the callback, before the rebalance.
    pub records: usize,
    /// True if a batch cannot be read: its checksum is wrong, or it cannot be decompressed. The client would try it again
    /// and again: answer with [`KafkaConsumer::find_unreadable`], and assign the offset after it.
    pub is_unreadable: bool,
    /// Rebalance that must be answered before the next poll.
    pub rebalance: Option<Rebalance>,
}

/// Change of the assigned partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rebalance {
    /// The partitions are assigned to this member: answer with [`KafkaConsumer::assign`].
    Assigned(Vec<TopicPartition>),
    /// The partitions are revoked: flush, checkpoint, commit, then answer with [`KafkaConsumer::unassign`].
    Revoked {
        /// The revoked partitions. Others stay.
        partitions: Vec<TopicPartition>,
        /// True if another member may have them already. Commits may fail then.
        lost: bool,
    },
    /// The topic of these assigned partitions was deleted and recreated, and no record of the new topic was
    /// returned yet: answer with [`KafkaConsumer::assign`], usually from the earliest offset. Otherwise the
    /// new topic continues at the old position, if it has that many records. Unread records of the old topic
    /// are gone. A topic recreated while no consumer ran can be recognized by its id only.
    TopicRecreated(Vec<TopicPartition>),
}

/// Offset to start a partition at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartOffset {
    /// This offset. If the broker no longer has it, [`AutoOffsetReset`] decides.
    At(i64),
    /// The group's committed offset, otherwise [`AutoOffsetReset`] decides.
    Committed,
    /// The first record in the partition.
    Earliest,
    /// After the last record.
    Latest,
}

/// Start when there is no committed offset, or the broker no longer has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AutoOffsetReset {
    /// The first record in the partition.
    #[default]
    Earliest,
    /// After the last record.
    Latest,
}

/// Progress in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionProgress {
    pub partition: TopicPartition,
    /// Offset after the last returned record, control records included. `None` before the first.
    pub next_offset: Option<i64>,
    /// Offset after the last record in the partition, by the broker's latest answer. `None` before the first
    /// answer. The lag is the difference.
    pub end_offset: Option<i64>,
}

/// State of a consumer group at its coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupState {
    /// `Stable`, `PreparingRebalance`, `CompletingRebalance`, `Empty` or `Dead`.
    pub state: String,
    pub members: usize,
}

/// Member of a consumer group.
pub trait KafkaConsumer: Send {
    /// Waits up to `timeout` for a record or a rebalance. Then passes the available records to `take`, at
    /// most 1,000, until it breaks. The record on which `take` breaks counts as returned. Transport errors
    /// are logged as warnings, and the client keeps trying. A member that was fenced loses its partitions and
    /// rejoins.
    fn poll(
        &mut self,
        timeout: Duration,
        take: &mut dyn FnMut(KafkaRecord<'_>) -> ControlFlow<()>,
    ) -> Result<PollResult>;

    /// Starts all partitions of an assignment. A partition that is already running moves to the new offset.
    fn assign(&mut self, starts: &[(TopicPartition, StartOffset)]) -> Result<()>;

    /// Releases revoked partitions.
    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<()>;

    /// Requests a commit of the next wanted offset of each partition, and returns immediately.
    /// [`take_acknowledged`](KafkaConsumer::take_acknowledged) reports the result. While a commit is in
    /// flight, further ones wait, and the newest offset of a partition wins.
    fn commit(&mut self, offsets: &[(TopicPartition, i64)]) -> Result<()>;

    /// Returns what the group has acknowledged since the last call. Waits up to `timeout` until no commit is
    /// in flight. A failure is logged as a warning and not returned. It is retried with the next commit, or
    /// by a call of this function after half a second, until its partition is released.
    fn take_acknowledged(&mut self, timeout: Duration) -> Vec<(TopicPartition, i64)>;

    /// Queries the group's committed offsets, in the order requested. `None` if there is none.
    fn committed(&mut self, partitions: &[TopicPartition], timeout: Duration) -> Result<Vec<Option<i64>>>;

    /// Reports whether the group has fenced this member. The next poll then returns its partitions as lost.
    fn is_fenced(&self) -> bool {
        false
    }

    /// Queries the first offset of a partition and the offset after its last record that can be read. Records of open
    /// transactions, and all after them, cannot be read yet.
    fn bounds(&mut self, partition: &TopicPartition, timeout: Duration) -> Result<(i64, i64)>;

    /// Queries the offset after the last record of a partition, records of open transactions included.
    fn end_offset(&mut self, partition: &TopicPartition, timeout: Duration) -> Result<i64> {
        self.bounds(partition, timeout).map(|(_, end)| end)
    }

    /// Queries the number of partitions of a topic. `None` if it is unknown.
    fn partition_count(&mut self, _topic: &str, _timeout: Duration) -> Result<Option<i32>> {
        Ok(None)
    }

    /// Looks for a batch that cannot be read at one of these positions. Each has the offset after the last record of the
    /// partition. Returns the partition, the first unreadable offset, and the next one that can be read.
    fn find_unreadable(
        &mut self,
        _positions: &[(TopicPartition, i64, i64)],
    ) -> Result<Vec<(TopicPartition, i64, i64)>> {
        Ok(Vec::new())
    }

    /// Reads from an offset, without the group. Returns false if no record follows: there may still be control records, and
    /// those of aborted transactions.
    fn may_have_record(&mut self, _partition: &TopicPartition, _offset: i64) -> Result<bool> {
        Ok(true)
    }

    /// Queries the state of the consumer group. `None` if it is unknown.
    fn group_state(&mut self, _timeout: Duration) -> Option<GroupState> {
        None
    }

    /// Queries the id of a topic. A recreated topic has another id. `None` if the topic does not exist or the
    /// broker has no topic ids (before 2.8).
    fn topic_id(&mut self, topic: &str, timeout: Duration) -> Result<Option<String>>;

    /// Progress of each assigned partition. Does not query the broker.
    fn progress(&mut self) -> Vec<PartitionProgress>;
}
