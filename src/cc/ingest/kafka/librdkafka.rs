//! [`KafkaConsumer`] implemented with librdkafka: a blocking consumer, polled by the caller's thread.
//! librdkafka's own threads handle the connections to the brokers. All their results arrive through the poll.
//!
//! Memory is bounded: at most 32 MiB of records wait, plus one response of 16 MiB or one batch. Nothing is
//! committed automatically. Reconnects back off from 0.1 to 1 s. New topics and partitions are found within
//! 10 s.
//!
//! A static member that reaches no broker for the session timeout forgets its member id. The group still
//! knows the old id and fences the member, which is a fatal error for a librdkafka client (2.12). Then this
//! module replaces the client.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::bindings::rd_kafka_resp_err_t;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};

use crate::cc::ingest::kafka::batch_probe::BatchProbe;
use crate::cc::ingest::kafka::client::{
    GroupState, KafkaConsumer, KafkaRecord, PartitionProgress, PollResult, Rebalance, StartOffset,
    TopicPartition,
};
use crate::cc::ingest::kafka::native::{self, CommitQueue};
use crate::cc::ingest::kafka::settings::{ConsumerSettings, client_error, hint};
use crate::runtime::logging::Throttle;
use crate::{Error, Result};

/// Maximum records per poll.
const RECORDS_MAX: usize = 1000;
/// Time for running partitions to move to another offset.
const SEEK_TIMEOUT: Duration = Duration::from_secs(10);
/// Interval of repeated warnings, because an outage may last for hours.
const WARN_INTERVAL: Duration = Duration::from_secs(10);
/// Pause before a fenced member rejoins: the first time, and when it is fenced again soon after.
const REJOIN_PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];
/// Being fenced again within this time means that another process uses the same member id.
const REPEATED_FENCE_WINDOW: Duration = Duration::from_secs(120);
/// Pause after a failed commit.
const COMMIT_RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Callbacks that librdkafka calls during a poll.
#[derive(Default)]
struct ConsumerCallbacks {
    rebalances: Mutex<VecDeque<Rebalance>>,
    /// Recreated topics that have not been reported yet.
    recreated_topics: Mutex<BTreeSet<String>>,
    /// True if one of the queues above is not empty. Checked for each record.
    has_news: AtomicBool,
    /// True once rebalances are no longer answered by the polling thread.
    closing: AtomicBool,
    /// True if `-X debug` requests librdkafka's own trace. lea enables the part that it needs itself.
    is_traced: bool,
    throttle: Throttle,
}

impl ConsumerCallbacks {
    fn lock_rebalances(&self) -> MutexGuard<'_, VecDeque<Rebalance>> {
        self.rebalances.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn lock_recreated_topics(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.recreated_topics.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Extracts the topic from librdkafka's log line about a changed topic id.
///
/// After a topic is deleted and recreated, librdkafka (2.12) continues at the old position if the new topic
/// has that many records. Earlier records would be missed. It reports the change only in this log line,
/// before it fetches from the new topic.
fn parse_recreated_topic(text: &str) -> Option<&str> {
    let (_, text) = text.split_once("Topic ")?;
    let (topic, ids) = text.split_once(" changed id from ")?;
    // A change from the zero id means that it sees the topic for the first time.
    (!ids.starts_with("AAAAAAAAAAAAAAAAAAAAAA ")).then_some(topic)
}

impl ClientContext for ConsumerCallbacks {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        if let Some(topic) = parse_recreated_topic(text) {
            self.lock_recreated_topics().insert(topic.to_owned());
            self.has_news.store(true, Ordering::Relaxed);
        }
        if self.is_traced || !matches!(level, RDKafkaLogLevel::Debug) {
            log::debug!("kafka facility={facility} text={text:?}");
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        let hint = hint(code);
        let line = format_args!("kafka_error reason={reason:?} action=\"retrying\" hint=\"{hint}\"");
        match code {
            Some(RDKafkaErrorCode::AllBrokersDown) => self.throttle.warn("all brokers down", line),
            Some(RDKafkaErrorCode::BrokerTransportFailure) => self.throttle.warn("transport", line),
            Some(RDKafkaErrorCode::UnknownTopicOrPartition) => self.throttle.warn("unknown topic", line),
            _ => self.throttle.warn("other", line),
        }
    }
}

impl ConsumerContext for ConsumerCallbacks {
    /// Queues the rebalance for the polling thread. librdkafka waits for the answer.
    fn rebalance(
        &self,
        consumer: &BaseConsumer<ConsumerCallbacks>,
        what: rd_kafka_resp_err_t,
        list: &mut TopicPartitionList,
    ) {
        let given = what == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if list.count() == 0 || self.closing.load(Ordering::Relaxed) {
            let answered = if given { assign_list(consumer, list) } else { unassign_list(consumer, list) };
            if let Err(error) = answered {
                log::warn!("kafka_error reason={error} action=\"answering a rebalance\"");
            }
            return;
        }
        let partitions = partitions_of(list);
        let change = match given {
            true => Rebalance::Assigned(partitions),
            false => Rebalance::Revoked { partitions, lost: consumer.assignment_lost() },
        };
        self.lock_rebalances().push_back(change);
        self.has_news.store(true, Ordering::Relaxed);
    }
}

fn partitions_of(list: &TopicPartitionList) -> Vec<TopicPartition> {
    list.elements().iter().map(|element| TopicPartition::new(element.topic(), element.partition())).collect()
}

fn list_of(partitions: &[TopicPartition]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition(&partition.topic, partition.number);
    }
    list
}

fn list_with<'a>(
    offsets: impl IntoIterator<Item = (&'a TopicPartition, Offset)>,
) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in offsets {
        list.add_partition_offset(&partition.topic, partition.number, offset)?;
    }
    Ok(list)
}

fn assign_list(
    consumer: &BaseConsumer<ConsumerCallbacks>,
    list: &TopicPartitionList,
) -> Result<(), KafkaError> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_assign(list),
        _ => consumer.assign(list),
    }
}

fn unassign_list(
    consumer: &BaseConsumer<ConsumerCallbacks>,
    list: &TopicPartitionList,
) -> Result<(), KafkaError> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_unassign(list),
        // The eager protocol revokes all partitions at once.
        _ => consumer.unassign(),
    }
}

/// Member of a consumer group. Dropping it closes the client and waits for the brokers, unless a commit is in
/// flight. Without `instance` it leaves the group immediately. With it, its partitions stay assigned for the
/// session timeout (45 s).
pub struct RdKafkaConsumer {
    // Dropped before the consumer, because it contains a queue of it.
    commits: CommitQueue<ConsumerCallbacks>,
    consumer: Arc<BaseConsumer<ConsumerCallbacks>>,
    settings: ConsumerSettings,
    joined_at: Instant,
    /// Time to rejoin, once this member was fenced.
    rejoin_at: Option<Instant>,
    /// Partitions assigned and not yet released or revoked.
    held: BTreeSet<TopicPartition>,
    /// Rebalance that has not been answered yet.
    unanswered_rebalance: Option<Rebalance>,
    /// True while a commit is in flight.
    is_committing: bool,
    commits_in_flight: BTreeMap<TopicPartition, i64>,
    /// Offsets for the next commit, and the earliest time for it.
    commits_waiting: BTreeMap<TopicPartition, i64>,
    commit_after: Instant,
    acknowledged: BTreeMap<TopicPartition, i64>,
    /// Dropped last: signals the closing thread, if there is one, that everything else is gone.
    released: Option<crossbeam_channel::Sender<()>>,
}

impl RdKafkaConsumer {
    /// Creates the client. Does not wait for a broker.
    pub fn join(settings: &ConsumerSettings) -> Result<RdKafkaConsumer> {
        let failed = |error| client_error(&settings.brokers, error);
        let context = ConsumerCallbacks {
            is_traced: settings.properties.iter().any(|property| property.key == "debug"),
            throttle: Throttle::every(WARN_INTERVAL),
            ..ConsumerCallbacks::default()
        };
        let consumer: BaseConsumer<ConsumerCallbacks> =
            settings.client_config().create_with_context(context).map_err(failed)?;
        let topics: Vec<&str> = settings.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics).map_err(Error::kafka("subscribe to", settings.topics.join(", ")))?;
        let consumer = Arc::new(consumer);
        Ok(RdKafkaConsumer {
            commits: CommitQueue::new(&consumer),
            consumer,
            settings: settings.clone(),
            joined_at: Instant::now(),
            rejoin_at: None,
            held: BTreeSet::new(),
            unanswered_rebalance: None,
            is_committing: false,
            commits_in_flight: BTreeMap::new(),
            commits_waiting: BTreeMap::new(),
            commit_after: Instant::now(),
            acknowledged: BTreeMap::new(),
            released: None,
        })
    }

    /// Returns the next rebalance. Those of the group come before recreated topics.
    fn next_rebalance(&self) -> Option<Rebalance> {
        if let Some(change) = self.consumer.context().lock_rebalances().pop_front() {
            return Some(change);
        }
        self.consumer.context().has_news.store(false, Ordering::Relaxed);
        let topics = std::mem::take(&mut *self.consumer.context().lock_recreated_topics());
        let mut partitions = self.assignment();
        partitions.retain(|partition| topics.contains(&*partition.topic));
        (!partitions.is_empty()).then_some(Rebalance::TopicRecreated(partitions))
    }

    fn assignment(&self) -> Vec<TopicPartition> {
        self.consumer.assignment().map_or_else(|_| Vec::new(), |list| partitions_of(&list))
    }

    /// Ignores an error if this member was fenced: the next poll reports that.
    fn ignore_if_fenced(&self, result: Result<(), KafkaError>) -> Result<(), KafkaError> {
        if self.is_fenced() { Ok(()) } else { result }
    }

    /// Handles being fenced: first reports all partitions as lost, then replaces the client.
    fn poll_fenced(&mut self, timeout: Duration) -> Result<PollResult> {
        let at = match self.rejoin_at {
            Some(at) => at,
            None => self.log_fenced(),
        };
        let mut polled = PollResult::default();
        self.answer_rebalances();
        if !self.held.is_empty() {
            let partitions = self.held.iter().cloned().collect();
            polled.rebalance = Some(Rebalance::Revoked { partitions, lost: true });
            return Ok(polled);
        }
        let rest = at.saturating_duration_since(Instant::now());
        if !rest.is_zero() {
            thread::sleep(rest.min(timeout));
            return Ok(polled);
        }
        let another = RdKafkaConsumer::join(&self.settings)?;
        drop(std::mem::replace(self, another));
        log::info!("member_rejoining group={}", self.settings.group);
        Ok(polled)
    }

    /// Logs that this member was fenced, and schedules the rejoin.
    fn log_fenced(&mut self) -> Instant {
        let reason = self.consumer.client().fatal_error().map_or_else(String::new, |(_, reason)| reason);
        let is_soon = self.joined_at.elapsed() < REPEATED_FENCE_WINDOW;
        let [first, again] = REJOIN_PAUSES;
        let (wait, note) = match is_soon {
            false => (first, "no broker answered for longer than session.timeout.ms"),
            true => (
                again,
                "if this repeats, two processes use a copy of the same output directory: remove .lea/instance from one of them",
            ),
        };
        log::warn!(
            "member_fenced group={} reason={reason:?} action=\"rejoining in {} s\" note=\"{note}\"",
            self.settings.group,
            wait.as_secs()
        );
        *self.rejoin_at.insert(Instant::now() + wait)
    }

    /// Answers all pending rebalances on behalf of the polling thread.
    fn answer_rebalances(&mut self) {
        let mut waiting: Vec<Rebalance> = self.unanswered_rebalance.take().into_iter().collect();
        waiting.extend(self.consumer.context().lock_rebalances().drain(..));
        for change in waiting {
            let answered = match change {
                Rebalance::Assigned(_) => assign_list(&self.consumer, &TopicPartitionList::new()),
                Rebalance::TopicRecreated(_) => Ok(()),
                Rebalance::Revoked { partitions, .. } => unassign_list(&self.consumer, &list_of(&partitions)),
            };
            if let Err(error) = answered {
                log::debug!("kafka reason=\"{error}\"");
            }
        }
    }

    /// Moves running partitions to other offsets.
    fn seek(&self, offsets: &[(&TopicPartition, Offset)]) -> Result<(), KafkaError> {
        let list = list_with(offsets.iter().copied())?;
        let list = self.consumer.seek_partitions(list, SEEK_TIMEOUT)?;
        list.elements().iter().try_for_each(|element| element.error())
    }

    /// Sends the waiting commits, unless a commit is in flight.
    fn commit_next(&mut self) -> Result<()> {
        if self.is_fenced() {
            // The records will arrive again, here or at another member. This member can no longer commit.
            self.commits_waiting.clear();
        }
        if self.is_committing || self.commits_waiting.is_empty() || Instant::now() < self.commit_after {
            return Ok(());
        }
        let failed = || Error::kafka("commit offsets of group", &self.settings.group);
        let offsets =
            self.commits_waiting.iter().map(|(partition, offset)| (partition, Offset::Offset(*offset)));
        let list = list_with(offsets).map_err(failed())?;
        let requested = self.commits.commit(&list);
        self.ignore_if_fenced(requested).map_err(failed())?;
        self.commits_in_flight = std::mem::take(&mut self.commits_waiting);
        self.is_committing = true;
        Ok(())
    }

    /// Closes the client in a separate thread. librdkafka waits up to the session timeout for the answer to a
    /// commit, and the process must not wait for that. The thread ends with the process.
    fn close_in_thread(&mut self) {
        let (released, wait) = crossbeam_channel::bounded::<()>(0);
        let consumer = Arc::clone(&self.consumer);
        let close = move || {
            // This fails when the other end is dropped. Then this thread holds the last reference to the
            // consumer.
            let _ = wait.recv();
            drop(consumer);
        };
        match thread::Builder::new().name("kafka-close".to_owned()).spawn(close) {
            Ok(_) => self.released = Some(released),
            Err(error) => log::debug!("kafka reason={error:?}"),
        }
    }

    /// Discards pending commits of these partitions.
    fn forget_commits(&mut self, partitions: &[TopicPartition]) {
        for waiting in [&mut self.commits_waiting, &mut self.commits_in_flight] {
            waiting.retain(|partition, _| !partitions.contains(partition));
        }
    }

    /// Waits up to `timeout` until no commit is in flight.
    fn apply_commit_results(&mut self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        while self.is_committing && !self.is_fenced() {
            let rest = deadline.saturating_duration_since(Instant::now());
            let Some(answer) = self.commits.next_result(rest) else { return };
            self.apply_commit_result(answer);
            if let Err(error) = self.commit_next() {
                log::warn!("commit_failed reason={:?}", crate::error::chain(&error));
            }
        }
    }

    /// Applies the result of a commit. Failed offsets are retried with the next commit, unless it has newer
    /// ones.
    fn apply_commit_result(&mut self, answer: native::CommitResult) {
        self.is_committing = false;
        let sent = std::mem::take(&mut self.commits_in_flight);
        // `NoOffset` means that there was nothing to commit.
        let mut failure = answer.error.filter(|code| *code != RDKafkaErrorCode::NoOffset);
        if answer.error.is_none() {
            for (topic, number, result) in answer.partitions {
                match result {
                    Ok(offset) => drop(self.acknowledged.insert(TopicPartition::new(&topic, number), offset)),
                    Err(RDKafkaErrorCode::NoOffset) => {}
                    Err(code) => failure = Some(code),
                }
            }
        }
        let Some(code) = failure else { return };
        let line = format_args!("commit_failed group={:?} reason=\"{code}\"", self.settings.group);
        self.consumer.context().throttle.warn("commit", line);
        self.commit_after = Instant::now() + COMMIT_RETRY_PAUSE;
        for (partition, offset) in sent {
            if self.acknowledged.get(&partition) != Some(&offset) {
                self.commits_waiting.entry(partition).or_insert(offset);
            }
        }
    }
}

impl KafkaConsumer for RdKafkaConsumer {
    fn poll(
        &mut self,
        timeout: Duration,
        take: &mut dyn FnMut(KafkaRecord<'_>) -> ControlFlow<()>,
    ) -> Result<PollResult> {
        if self.is_fenced() {
            return self.poll_fenced(timeout);
        }
        let mut polled = PollResult::default();
        let mut wait = timeout;
        while polled.records < RECORDS_MAX && polled.rebalance.is_none() {
            let message = self.consumer.poll(wait);
            wait = Duration::ZERO;
            if self.consumer.context().has_news.load(Ordering::Relaxed) {
                polled.rebalance = self.next_rebalance();
            }
            let flow = match message {
                Some(Ok(message)) if is_of_recreated_topic(&message, polled.rebalance.as_ref()) => {
                    ControlFlow::Break(())
                }
                Some(Ok(message)) => {
                    polled.records += 1;
                    take(to_record(&message))
                }
                Some(Err(KafkaError::MessageConsumption(code))) if is_unreadable(code) => {
                    polled.is_unreadable = true;
                    ControlFlow::Break(())
                }
                // The callback has logged it. librdkafka retries, or the next poll does.
                Some(Err(_)) | None => ControlFlow::Break(()),
            };
            if flow.is_break() {
                break;
            }
        }
        if polled.rebalance.is_some() {
            self.unanswered_rebalance.clone_from(&polled.rebalance);
        }
        if let Some(Rebalance::Assigned(partitions)) = &polled.rebalance {
            self.held.extend(partitions.iter().cloned());
        }
        Ok(polled)
    }

    fn assign(&mut self, starts: &[(TopicPartition, StartOffset)]) -> Result<()> {
        let group = self.settings.group.clone();
        let failed = || Error::kafka("start the partitions of group", &group);
        let offset_of = |start| match start {
            StartOffset::At(offset) => Offset::Offset(offset),
            StartOffset::Committed => Offset::Stored,
            StartOffset::Earliest => Offset::Beginning,
            StartOffset::Latest => Offset::End,
        };
        let running = self.assignment();
        let offsets = starts.iter().map(|(partition, start)| (partition, offset_of(*start)));
        let (seeks, starts): (Vec<_>, Vec<_>) =
            offsets.partition(|(partition, _)| running.contains(partition));
        if !seeks.is_empty() {
            let sought = self.seek(&seeks);
            self.ignore_if_fenced(sought).map_err(failed())?;
            let sought: Vec<TopicPartition> =
                seeks.iter().map(|(partition, _)| (*partition).clone()).collect();
            self.forget_commits(&sought);
        }
        if !starts.is_empty() || matches!(self.unanswered_rebalance, Some(Rebalance::Assigned(_))) {
            let list = list_with(starts).map_err(failed())?;
            let started = assign_list(&self.consumer, &list);
            self.ignore_if_fenced(started).map_err(failed())?;
        }
        self.unanswered_rebalance = None;
        Ok(())
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        let gone = unassign_list(&self.consumer, &list_of(partitions));
        self.held.retain(|partition| !partitions.contains(partition));
        self.ignore_if_fenced(gone)
            .map_err(Error::kafka("release the partitions of group", &self.settings.group))?;
        self.forget_commits(partitions);
        self.unanswered_rebalance = None;
        Ok(())
    }

    fn commit(&mut self, offsets: &[(TopicPartition, i64)]) -> Result<()> {
        self.commits_waiting.extend(offsets.iter().cloned());
        self.apply_commit_results(Duration::ZERO);
        self.commit_next()
    }

    fn take_acknowledged(&mut self, timeout: Duration) -> Vec<(TopicPartition, i64)> {
        if let Err(error) = self.commit_next() {
            log::warn!("commit_failed reason={:?}", crate::error::chain(&error));
        }
        self.apply_commit_results(timeout);
        std::mem::take(&mut self.acknowledged).into_iter().collect()
    }

    fn committed(&mut self, partitions: &[TopicPartition], timeout: Duration) -> Result<Vec<Option<i64>>> {
        let list = list_of(partitions);
        let failed = || Error::kafka("read the committed offsets of group", &self.settings.group);
        let list = self.consumer.committed_offsets(list, timeout).map_err(failed())?;
        let offset_of = |partition: &TopicPartition| {
            let Some(element) = list.find_partition(&partition.topic, partition.number) else {
                return Ok(None);
            };
            element.error().map_err(failed())?;
            Ok(concrete_offset(element.offset()))
        };
        partitions.iter().map(offset_of).collect()
    }

    fn is_fenced(&self) -> bool {
        self.consumer.client().fatal_error().is_some()
    }

    fn bounds(&mut self, partition: &TopicPartition, timeout: Duration) -> Result<(i64, i64)> {
        self.consumer
            .fetch_watermarks(&partition.topic, partition.number, timeout)
            .map_err(Error::kafka("read the bounds of", partition))
    }

    fn end_offset(&mut self, partition: &TopicPartition, timeout: Duration) -> Result<i64> {
        native::end_offset(self.consumer.client(), &partition.topic, partition.number, timeout)
            .map_err(Error::kafka("read the end of", partition))
    }

    fn partition_count(&mut self, topic: &str, timeout: Duration) -> Result<Option<i32>> {
        let metadata = self.consumer.fetch_metadata(Some(topic), timeout);
        let metadata = metadata.map_err(Error::kafka("read the partitions of", topic))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        Ok(found.and_then(|found| i32::try_from(found.partitions().len()).ok()))
    }

    fn find_unreadable(
        &mut self,
        positions: &[(TopicPartition, i64, i64)],
    ) -> Result<Vec<(TopicPartition, i64, i64)>> {
        let mut found = Vec::new();
        for (partition, at, end) in positions {
            let probe = BatchProbe::new(&self.settings, partition)?;
            if let Some(next) = probe.next_readable(*at, *end)? {
                found.push((partition.clone(), *at, next));
            }
        }
        Ok(found)
    }

    fn may_have_record(&mut self, partition: &TopicPartition, offset: i64) -> Result<bool> {
        BatchProbe::new(&self.settings, partition)?.may_have_record(offset)
    }

    fn group_state(&mut self, timeout: Duration) -> Option<GroupState> {
        let groups = self.consumer.fetch_group_list(Some(&self.settings.group), timeout).ok()?;
        let group = groups.groups().first()?;
        Some(GroupState { state: group.state().to_owned(), members: group.members().len() })
    }

    fn topic_id(&mut self, topic: &str, timeout: Duration) -> Result<Option<String>> {
        native::topic_id(self.consumer.client(), topic, timeout)
            .map_err(Error::kafka("read the id of topic", topic))
    }

    fn progress(&mut self) -> Vec<PartitionProgress> {
        // Without an assignment there is no position.
        let Ok(list) = self.consumer.position() else { return Vec::new() };
        let elements = list.elements();
        let progress = elements.iter().map(|element| {
            let partition = TopicPartition::new(element.topic(), element.partition());
            let watermarks = native::watermarks(self.consumer.client(), &partition.topic, partition.number);
            let end_offset = watermarks.map(|(_, high)| high);
            PartitionProgress { partition, next_offset: concrete_offset(element.offset()), end_offset }
        });
        progress.collect()
    }
}

impl Drop for RdKafkaConsumer {
    fn drop(&mut self) {
        self.consumer.context().closing.store(true, Ordering::Relaxed);
        // librdkafka does not close while it waits for an answer to a rebalance.
        self.answer_rebalances();
        self.apply_commit_results(Duration::ZERO);
        if self.is_committing {
            self.close_in_thread();
        }
    }
}

/// Returns whether a batch cannot be read, however often it is fetched.
pub(super) fn is_unreadable(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::BadMessage | RDKafkaErrorCode::BadCompression)
}

fn concrete_offset(offset: Offset) -> Option<i64> {
    match offset {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    }
}

/// Reports whether a record belongs to a topic that was just found to be recreated. It may be of the new
/// topic, which will be read from its new start. Answering the rebalance also drops the remaining records of
/// the old one.
fn is_of_recreated_topic(message: &BorrowedMessage<'_>, change: Option<&Rebalance>) -> bool {
    matches!(change, Some(Rebalance::TopicRecreated(partitions))
        if partitions.iter().any(|partition| &*partition.topic == message.topic()))
}

fn to_record<'a>(message: &'a BorrowedMessage<'_>) -> KafkaRecord<'a> {
    KafkaRecord {
        topic: message.topic(),
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis(),
        key: message.key(),
        value: message.payload(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cc::ingest::kafka::settings::tests as settings;

    #[test]
    fn unknown_librdkafka_properties_are_usage_errors() {
        let wrong = |text| match RdKafkaConsumer::join(&settings::test_settings(&[text])).err() {
            Some(Error::Usage(reason)) => reason,
            other => panic!("{text}: {other:?}"),
        };
        assert!(wrong("no.such.key=1").contains("-X no.such.key: No such configuration property"));
        assert!(wrong("session.timeout.ms=many").contains("session.timeout.ms"));
    }

    #[test]
    fn a_recreated_topic_is_recognized_in_the_log() {
        let line =
            "[thrd:main]: Topic again changed id from 6zdt3tIhRr6Cj5kJDow/1w to 1/NSBtjXS66wQcXJ8cFzIA";
        assert_eq!(parse_recreated_topic(line), Some("again"));
        let first =
            "[thrd:main]: Topic again changed id from AAAAAAAAAAAAAAAAAAAAAA to 1/NSBtjXS66wQcXJ8cFzIA";
        assert_eq!(parse_recreated_topic(first), None);
        assert_eq!(parse_recreated_topic("[thrd:main]: Topic again [0] Leader 1 Epoch 0"), None);
    }

    #[test]
    fn without_a_broker_calls_time_out_and_closing_is_quick() {
        let started = Instant::now();
        let mut member = RdKafkaConsumer::join(&settings::test_settings(&[])).unwrap();
        let polled = member.poll(Duration::from_millis(50), &mut |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(polled, PollResult::default());
        let partition = TopicPartition::new("interception", 0);
        let short = Duration::from_millis(50);
        assert!(member.committed(std::slice::from_ref(&partition), short).is_err());
        assert!(member.bounds(&partition, short).is_err());
        assert!(member.topic_id("interception", short).is_err());
        member.commit(&[(partition, 7)]).unwrap();
        assert_eq!(member.take_acknowledged(short), []);
        assert_eq!(member.progress(), []);
        drop(member);
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    }
}
