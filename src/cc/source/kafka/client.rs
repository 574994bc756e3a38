//! What is asked of a Kafka client, and no more: a batch of records, the partitions that the group gives and takes,
//! commits, how far it is. Runs in the thread of whoever polls.
//!
//! Invariants: records of a partition come in order of their offsets, from the start that `assign` named. A
//! partition that is given sends nothing before it is assigned; one that is taken goes to nobody else before it is
//! given up, unless it is lost. Only `poll` may be slow for long, and it is by its timeout.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use crate::Result;

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// From 0.
    pub number: i32,
}

impl Partition {
    /// The partition of that topic and number.
    pub fn new(topic: &str, number: i32) -> Partition {
        Partition { topic: topic.into(), number }
    }

    /// True if it is that one.
    pub fn is(&self, topic: &str, number: i32) -> bool {
        self.number == number && *self.topic == *topic
    }
}

impl fmt::Display for Partition {
    /// As Kafka names its folders: `interception-0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.number)
    }
}

/// A record, as it lies in the client's memory.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The topic's name.
    pub topic: &'a str,
    /// The partition's number.
    pub partition: i32,
    /// Its place in the partition.
    pub offset: i64,
    /// Milliseconds since 1970, by the producer's clock or the broker's.
    pub timestamp_ms: Option<i64>,
    /// None for a record without a key.
    pub key: Option<&'a [u8]>,
    /// None for a record without a value (a tombstone).
    pub value: Option<&'a [u8]>,
}

/// What a poll brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Polled {
    /// How many records were handed over, before the change.
    pub records: usize,
    /// How many batches were damaged (their checksum is wrong); their records are lost.
    pub damaged: u64,
    /// What happened to the partitions. It wants its answer before the next poll.
    pub change: Option<Change>,
}

/// What the group did with partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// They are ours now: answer with [`Client::assign`].
    Given(Vec<Partition>),
    /// They are to go: flush, checkpoint, commit, then answer with [`Client::give_up`].
    Taken {
        /// Which; of these alone.
        partitions: Vec<Partition>,
        /// True if another member may have them already: commits of theirs may fail.
        lost: bool,
    },
    /// The topic of these was deleted and made again while we have them, and no record of the new one was handed over
    /// yet: answer with [`Client::assign`], usually from the earliest. Without it the new topic goes on at the old
    /// position, if it has that many records. What was not yet handed over of the old topic is gone with it. A topic
    /// made again while nobody looked shows by its id only.
    MadeAgain(Vec<Partition>),
}

/// Where to start in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At this offset. Where it is gone, where [`Reset`] says.
    At(i64),
    /// Where the group has committed, else where [`Reset`] says.
    Committed,
    /// At the first record that is there.
    Earliest,
    /// Behind the last one.
    Latest,
}

/// Where to start without a committed offset, or when the wanted one is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reset {
    /// At the first record that is there.
    #[default]
    Earliest,
    /// Behind the last one.
    Latest,
}

/// How far a partition is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Which.
    pub partition: Partition,
    /// The offset behind what was handed over, control records included; none before the first.
    pub next_offset: Option<i64>,
    /// The offset behind the last record, as the broker said with its latest answer; none before the first. The lag
    /// is the difference.
    pub end_offset: Option<i64>,
}

/// A member of a consumer group.
pub trait Client: Send {
    /// Waits up to `timeout` for a record or a change, then hands over what is there, 1,000 records at most, until
    /// `take` breaks. A record counts as handed over also if `take` breaks on it. Transport errors are warnings in
    /// the log, and the client goes on trying. A member that the group has shut out loses its partitions, and joins
    /// again.
    fn poll(
        &mut self,
        timeout: Duration,
        take: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> Result<Polled>;

    /// Starts the partitions that were given; all of them are named. One that runs goes on elsewhere.
    fn assign(&mut self, starts: &[(Partition, Start)]) -> Result<()>;

    /// Lets go of the partitions that were taken.
    fn give_up(&mut self, partitions: &[Partition]) -> Result<()>;

    /// Asks to commit, for each partition, the offset of the next record that is wanted. Returns at once.
    /// [`acknowledged`](Client::acknowledged) says what became of it. While one commit is on its way the next
    /// ones wait, the newest offset of a partition wins.
    fn commit(&mut self, offsets: &[(Partition, i64)]) -> Result<()>;

    /// What the group has acknowledged since the last call. Waits up to `timeout` until no commit is on its way.
    /// What failed is a warning in the log and not in here; it goes with the next commit, or after half a second
    /// with a call of this, until its partition is given up.
    fn acknowledged(&mut self, timeout: Duration) -> Vec<(Partition, i64)>;

    /// What the group has committed, in the order asked for; none where it has not. Asks the broker.
    fn committed(&mut self, partitions: &[Partition], timeout: Duration) -> Result<Vec<Option<i64>>>;

    /// True if nothing is answered any more before the next poll, which takes what was given.
    fn is_shut_out(&self) -> bool {
        false
    }

    /// The first offset of a partition and the one behind its last record. Asks the broker.
    fn bounds(&mut self, partition: &Partition, timeout: Duration) -> Result<(i64, i64)>;

    /// The id of a topic, which a topic made again under the same name does not share; none if there is no such
    /// topic, or the broker knows no ids (before 2.8). Asks the broker.
    fn topic_id(&mut self, topic: &str, timeout: Duration) -> Result<Option<String>>;

    /// How far each assigned partition is. Asks nobody.
    fn progress(&mut self) -> Vec<Progress>;
}
