//! [`Client`] by librdkafka: a blocking consumer, polled by the caller's thread. librdkafka has threads of its own
//! for the brokers' connections; all that they have to say goes through the poll.
//!
//! It bounds memory (32 MiB of records wait at most, and an answer of 16 MiB or one batch is on its way), commits
//! nothing by itself, reconnects with a back-off from 0.1 to 1 s, and finds new topics and partitions within 10 s.
//!
//! A static member that reached no broker for the session's time forgets its id, and the group, which still knows it,
//! shuts it out; that is fatal to a client of librdkafka's (2.12). Then another one is made in its place.

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

use crate::cc::source::kafka::client::{Change, Client, Partition, Polled, Progress, Record, Start};
use crate::cc::source::kafka::native::{self, Commits};
use crate::cc::source::kafka::settings::{Settings, cannot_make, hint};
use crate::logging::Throttle;
use crate::{Error, Result};

/// Records of one poll.
const RECORDS_MAX: usize = 1000;
/// How long to wait for partitions to go elsewhere.
const SEEK_TIMEOUT: Duration = Duration::from_secs(10);
/// An outage may last for hours: it is warned of this often.
const WARN_INTERVAL: Duration = Duration::from_secs(10);
/// How long to wait before a member that was shut out joins again: the first time, and when it happens again soon.
const JOIN_AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];
/// Another process that is the same member shuts this one out as soon as it joins, and so on.
const SOON: Duration = Duration::from_secs(120);
/// How long to wait after a commit that failed.
const COMMIT_AGAIN: Duration = Duration::from_millis(500);

/// What librdkafka calls from within a poll.
#[derive(Default)]
struct Context {
    changes: Mutex<VecDeque<Change>>,
    /// Topics that were made again, and not yet said so.
    made_again: Mutex<BTreeSet<String>>,
    /// Something was put into one of these: looked at for each record.
    news: AtomicBool,
    /// Nobody answers changes any more.
    closing: AtomicBool,
    /// True if `-X debug` asks for librdkafka's own trace; what we need of it is in there anyway.
    is_traced: bool,
    throttle: Throttle,
}

impl Context {
    fn changes(&self) -> MutexGuard<'_, VecDeque<Change>> {
        self.changes.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn made_again(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.made_again.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The topic that librdkafka has found under another id than before.
///
/// A topic deleted and made again goes on at the old position, if the new one has that many records: librdkafka
/// (2.12) resets nothing, so what is before would be missed. That it noticed it says in a line of its log alone,
/// before it fetches from the new topic.
fn made_again(text: &str) -> Option<&str> {
    let (_, text) = text.split_once("Topic ")?;
    let (topic, ids) = text.split_once(" changed id from ")?;
    // From no id at all: it sees the topic for the first time.
    (!ids.starts_with("AAAAAAAAAAAAAAAAAAAAAA ")).then_some(topic)
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        if let Some(topic) = made_again(text) {
            self.made_again().insert(topic.to_owned());
            self.news.store(true, Ordering::Relaxed);
        }
        if self.is_traced || !matches!(level, RDKafkaLogLevel::Debug) {
            log::debug!("kafka facility={facility} text={text:?}");
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        let hint = hint(code);
        let line = format_args!("kafka_error reason={reason:?} action=\"going on trying\" hint=\"{hint}\"");
        match code {
            Some(RDKafkaErrorCode::AllBrokersDown) => self.throttle.warn("all brokers down", line),
            Some(RDKafkaErrorCode::BrokerTransportFailure) => self.throttle.warn("transport", line),
            Some(RDKafkaErrorCode::UnknownTopicOrPartition) => self.throttle.warn("unknown topic", line),
            _ => self.throttle.warn("other", line),
        }
    }
}

impl ConsumerContext for Context {
    /// Keeps the change for whoever polls; librdkafka waits for the answer.
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Context>,
        what: rd_kafka_resp_err_t,
        list: &mut TopicPartitionList,
    ) {
        let given = what == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if list.count() == 0 || self.closing.load(Ordering::Relaxed) {
            let answered = if given { start(consumer, list) } else { let_go(consumer, list) };
            if let Err(error) = answered {
                log::warn!("kafka_error reason={error} action=\"answering a rebalance\"");
            }
            return;
        }
        let partitions = partitions_of(list);
        let change = match given {
            true => Change::Given(partitions),
            false => Change::Taken { partitions, lost: consumer.assignment_lost() },
        };
        self.changes().push_back(change);
        self.news.store(true, Ordering::Relaxed);
    }
}

fn partitions_of(list: &TopicPartitionList) -> Vec<Partition> {
    list.elements().iter().map(|element| Partition::new(element.topic(), element.partition())).collect()
}

fn list_of(partitions: &[Partition]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition(&partition.topic, partition.number);
    }
    list
}

fn list_with<'a>(
    offsets: impl IntoIterator<Item = (&'a Partition, Offset)>,
) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in offsets {
        list.add_partition_offset(&partition.topic, partition.number, offset)?;
    }
    Ok(list)
}

fn start(consumer: &BaseConsumer<Context>, list: &TopicPartitionList) -> Result<(), KafkaError> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_assign(list),
        _ => consumer.assign(list),
    }
}

fn let_go(consumer: &BaseConsumer<Context>, list: &TopicPartitionList) -> Result<(), KafkaError> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_unassign(list),
        // Then all of them are taken.
        _ => consumer.unassign(),
    }
}

/// A member of a group. Dropping it closes it, and waits for the brokers unless a commit is on its way: without an `instance` it leaves the group at once, with one its
/// partitions stay its own for the session's time (45 s).
pub struct Member {
    // The queue in it goes before the consumer.
    commits: Commits<Context>,
    consumer: Arc<BaseConsumer<Context>>,
    settings: Settings,
    joined_at: Instant,
    /// When to join again; none as long as the group has not shut this member out.
    join_again_at: Option<Instant>,
    /// Partitions that were given, and neither given up nor taken.
    held: BTreeSet<Partition>,
    /// The change that has not been answered.
    unanswered: Option<Change>,
    /// True while a commit is on its way, and what is in it.
    committing: bool,
    on_its_way: BTreeMap<Partition, i64>,
    /// What goes with the next commit, and when it may go.
    to_commit: BTreeMap<Partition, i64>,
    commit_after: Instant,
    acknowledged: BTreeMap<Partition, i64>,
    /// Tells the thread that closes, if there is one, that all else is gone: so it is the last field.
    released: Option<crossbeam_channel::Sender<()>>,
}

impl Member {
    /// Makes it. Nothing here waits for a broker.
    pub fn join(settings: &Settings) -> Result<Member> {
        let failed = |error| cannot_make(&settings.brokers, error);
        let context = Context {
            is_traced: settings.properties.iter().any(|property| property.key == "debug"),
            throttle: Throttle::every(WARN_INTERVAL),
            ..Context::default()
        };
        let consumer: BaseConsumer<Context> =
            settings.config().create_with_context(context).map_err(failed)?;
        let topics: Vec<&str> = settings.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics).map_err(Error::kafka("subscribe to", settings.topics.join(", ")))?;
        let consumer = Arc::new(consumer);
        Ok(Member {
            commits: Commits::of(&consumer),
            consumer,
            settings: settings.clone(),
            joined_at: Instant::now(),
            join_again_at: None,
            held: BTreeSet::new(),
            unanswered: None,
            committing: false,
            on_its_way: BTreeMap::new(),
            to_commit: BTreeMap::new(),
            commit_after: Instant::now(),
            acknowledged: BTreeMap::new(),
            released: None,
        })
    }

    /// The next change. One of the group comes before one of a topic.
    fn change(&self) -> Option<Change> {
        if let Some(change) = self.consumer.context().changes().pop_front() {
            return Some(change);
        }
        self.consumer.context().news.store(false, Ordering::Relaxed);
        let topics = std::mem::take(&mut *self.consumer.context().made_again());
        let mut partitions = self.assignment();
        partitions.retain(|partition| topics.contains(&*partition.topic));
        (!partitions.is_empty()).then_some(Change::MadeAgain(partitions))
    }

    fn assignment(&self) -> Vec<Partition> {
        self.consumer.assignment().map_or_else(|_| Vec::new(), |list| partitions_of(&list))
    }

    /// An error of a call, unless it is that the group has shut this member out: the next poll tells of that.
    fn unless_shut_out(&self, result: Result<(), KafkaError>) -> Result<(), KafkaError> {
        if self.is_shut_out() { Ok(()) } else { result }
    }

    /// The group has shut this member out: what it had is lost. When that is answered, another one joins.
    fn poll_shut_out(&mut self, timeout: Duration) -> Result<Polled> {
        let at = match self.join_again_at {
            Some(at) => at,
            None => self.note_shut_out(),
        };
        let mut polled = Polled::default();
        self.answer_changes();
        if !self.held.is_empty() {
            let partitions = self.held.iter().cloned().collect();
            polled.change = Some(Change::Taken { partitions, lost: true });
            return Ok(polled);
        }
        let rest = at.saturating_duration_since(Instant::now());
        if !rest.is_zero() {
            thread::sleep(rest.min(timeout));
            return Ok(polled);
        }
        let another = Member::join(&self.settings)?;
        drop(std::mem::replace(self, another));
        log::info!("member_joins_again group={}", self.settings.group);
        Ok(polled)
    }

    /// Warns, and says when to join again.
    fn note_shut_out(&mut self) -> Instant {
        let reason = self.consumer.client().fatal_error().map_or_else(String::new, |(_, reason)| reason);
        let is_soon = self.joined_at.elapsed() < SOON;
        let [first, again] = JOIN_AGAIN;
        let (wait, note) = match is_soon {
            false => (first, "no broker answered for longer than session.timeout.ms"),
            true => (
                again,
                "if it goes on, a copy of this folder is in use: remove .lea/instance from one of them",
            ),
        };
        log::warn!(
            "member_shut_out group={} reason={reason:?} action=\"joining again in {} s\" note=\"{note}\"",
            self.settings.group,
            wait.as_secs()
        );
        *self.join_again_at.insert(Instant::now() + wait)
    }

    /// Answers what librdkafka waits for; nobody else will.
    fn answer_changes(&mut self) {
        let mut waiting: Vec<Change> = self.unanswered.take().into_iter().collect();
        waiting.extend(self.consumer.context().changes().drain(..));
        for change in waiting {
            let answered = match change {
                Change::Given(_) => start(&self.consumer, &TopicPartitionList::new()),
                Change::MadeAgain(_) => Ok(()),
                Change::Taken { partitions, .. } => let_go(&self.consumer, &list_of(&partitions)),
            };
            if let Err(error) = answered {
                log::debug!("kafka reason=\"{error}\"");
            }
        }
    }

    /// Goes elsewhere in partitions that run.
    fn seek(&self, offsets: &[(&Partition, Offset)]) -> Result<(), KafkaError> {
        let list = list_with(offsets.iter().copied())?;
        let list = self.consumer.seek_partitions(list, SEEK_TIMEOUT)?;
        list.elements().iter().try_for_each(|element| element.error())
    }

    /// Sends what waits to be committed, if nothing is on its way.
    fn commit_next(&mut self) -> Result<()> {
        if self.is_shut_out() {
            // The records come again, here or at another member, and this member commits nothing any more.
            self.to_commit.clear();
        }
        if self.committing || self.to_commit.is_empty() || Instant::now() < self.commit_after {
            return Ok(());
        }
        let failed = || Error::kafka("commit offsets of group", &self.settings.group);
        let offsets = self.to_commit.iter().map(|(partition, offset)| (partition, Offset::Offset(*offset)));
        let list = list_with(offsets).map_err(failed())?;
        let asked = self.commits.ask(&list);
        self.unless_shut_out(asked).map_err(failed())?;
        self.on_its_way = std::mem::take(&mut self.to_commit);
        self.committing = true;
        Ok(())
    }

    /// Closes in a thread of its own. librdkafka waits for the answer to a commit for the session's time, and nobody
    /// ends sooner for that: at the process's end the thread ends with it.
    fn close_aside(&mut self) {
        let (released, wait) = crossbeam_channel::bounded::<()>(0);
        let consumer = Arc::clone(&self.consumer);
        let close = move || {
            // It fails when the other end is dropped, and this is the last one that holds the consumer.
            let _ = wait.recv();
            drop(consumer);
        };
        match thread::Builder::new().name("kafka-close".to_owned()).spawn(close) {
            Ok(_) => self.released = Some(released),
            Err(error) => log::debug!("kafka reason={error:?}"),
        }
    }

    /// What waits to be committed of these is of no use any more.
    fn forget_commits(&mut self, partitions: &[Partition]) {
        for waiting in [&mut self.to_commit, &mut self.on_its_way] {
            waiting.retain(|partition, _| !partitions.contains(partition));
        }
    }

    /// Waits up to `timeout` until nothing is on its way.
    fn take_answers(&mut self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        while self.committing && !self.is_shut_out() {
            let rest = deadline.saturating_duration_since(Instant::now());
            let Some(answer) = self.commits.next(rest) else { return };
            self.take_answer(answer);
            if let Err(error) = self.commit_next() {
                log::warn!("commit_failed reason={:?}", crate::error::chain(&error));
            }
        }
    }

    /// Notes an answer to a commit. What failed waits for the next one, unless a newer offset does.
    fn take_answer(&mut self, answer: native::Committed) {
        self.committing = false;
        let sent = std::mem::take(&mut self.on_its_way);
        // "No offset" says that there was nothing to do.
        let mut failure = answer.error.filter(|code| *code != RDKafkaErrorCode::NoOffset);
        if answer.error.is_none() {
            for (topic, number, result) in answer.partitions {
                match result {
                    Ok(offset) => drop(self.acknowledged.insert(Partition::new(&topic, number), offset)),
                    Err(RDKafkaErrorCode::NoOffset) => {}
                    Err(code) => failure = Some(code),
                }
            }
        }
        let Some(code) = failure else { return };
        let line = format_args!("commit_failed group={:?} reason=\"{code}\"", self.settings.group);
        self.consumer.context().throttle.warn("commit", line);
        self.commit_after = Instant::now() + COMMIT_AGAIN;
        for (partition, offset) in sent {
            if self.acknowledged.get(&partition) != Some(&offset) {
                self.to_commit.entry(partition).or_insert(offset);
            }
        }
    }
}

impl Client for Member {
    fn poll(
        &mut self,
        timeout: Duration,
        take: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> Result<Polled> {
        if self.is_shut_out() {
            return self.poll_shut_out(timeout);
        }
        let mut polled = Polled::default();
        let mut wait = timeout;
        while polled.records < RECORDS_MAX && polled.change.is_none() {
            let message = self.consumer.poll(wait);
            wait = Duration::ZERO;
            if self.consumer.context().news.load(Ordering::Relaxed) {
                polled.change = self.change();
            }
            let flow = match message {
                Some(Ok(message)) if is_of(&message, polled.change.as_ref()) => ControlFlow::Break(()),
                Some(Ok(message)) => {
                    polled.records += 1;
                    take(record_of(&message))
                }
                Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::BadMessage))) => {
                    log::error!(
                        "records_damaged group={} note=\"a batch's checksum is wrong\"",
                        self.settings.group
                    );
                    polled.damaged += 1;
                    ControlFlow::Break(())
                }
                // The context has warned of it; librdkafka tries again by itself, or the next poll does.
                Some(Err(_)) | None => ControlFlow::Break(()),
            };
            if flow.is_break() {
                break;
            }
        }
        if polled.change.is_some() {
            self.unanswered.clone_from(&polled.change);
        }
        if let Some(Change::Given(partitions)) = &polled.change {
            self.held.extend(partitions.iter().cloned());
        }
        Ok(polled)
    }

    fn assign(&mut self, starts: &[(Partition, Start)]) -> Result<()> {
        let group = self.settings.group.clone();
        let failed = || Error::kafka("start the partitions of group", &group);
        let offset_of = |start| match start {
            Start::At(offset) => Offset::Offset(offset),
            Start::Committed => Offset::Stored,
            Start::Earliest => Offset::Beginning,
            Start::Latest => Offset::End,
        };
        let running = self.assignment();
        let offsets = starts.iter().map(|(partition, start)| (partition, offset_of(*start)));
        let (seeks, starts): (Vec<_>, Vec<_>) =
            offsets.partition(|(partition, _)| running.contains(partition));
        if !seeks.is_empty() {
            let sought = self.seek(&seeks);
            self.unless_shut_out(sought).map_err(failed())?;
            let sought: Vec<Partition> = seeks.iter().map(|(partition, _)| (*partition).clone()).collect();
            self.forget_commits(&sought);
        }
        if !starts.is_empty() || matches!(self.unanswered, Some(Change::Given(_))) {
            let list = list_with(starts).map_err(failed())?;
            let started = start(&self.consumer, &list);
            self.unless_shut_out(started).map_err(failed())?;
        }
        self.unanswered = None;
        Ok(())
    }

    fn give_up(&mut self, partitions: &[Partition]) -> Result<()> {
        let gone = let_go(&self.consumer, &list_of(partitions));
        self.held.retain(|partition| !partitions.contains(partition));
        self.unless_shut_out(gone)
            .map_err(Error::kafka("give up the partitions of group", &self.settings.group))?;
        self.forget_commits(partitions);
        self.unanswered = None;
        Ok(())
    }

    fn commit(&mut self, offsets: &[(Partition, i64)]) -> Result<()> {
        self.to_commit.extend(offsets.iter().cloned());
        self.take_answers(Duration::ZERO);
        self.commit_next()
    }

    fn acknowledged(&mut self, timeout: Duration) -> Vec<(Partition, i64)> {
        if let Err(error) = self.commit_next() {
            log::warn!("commit_failed reason={:?}", crate::error::chain(&error));
        }
        self.take_answers(timeout);
        std::mem::take(&mut self.acknowledged).into_iter().collect()
    }

    fn committed(&mut self, partitions: &[Partition], timeout: Duration) -> Result<Vec<Option<i64>>> {
        let list = list_of(partitions);
        let failed = || Error::kafka("read the committed offsets of group", &self.settings.group);
        let list = self.consumer.committed_offsets(list, timeout).map_err(failed())?;
        let offset_of = |partition: &Partition| {
            let Some(element) = list.find_partition(&partition.topic, partition.number) else {
                return Ok(None);
            };
            element.error().map_err(failed())?;
            Ok(known(element.offset()))
        };
        partitions.iter().map(offset_of).collect()
    }

    fn is_shut_out(&self) -> bool {
        self.consumer.client().fatal_error().is_some()
    }

    fn bounds(&mut self, partition: &Partition, timeout: Duration) -> Result<(i64, i64)> {
        self.consumer
            .fetch_watermarks(&partition.topic, partition.number, timeout)
            .map_err(Error::kafka("read the bounds of", partition))
    }

    fn topic_id(&mut self, topic: &str, timeout: Duration) -> Result<Option<String>> {
        native::topic_id(self.consumer.client(), topic, timeout)
            .map_err(Error::kafka("read the id of topic", topic))
    }

    fn progress(&mut self) -> Vec<Progress> {
        // Without an assignment there is none.
        let Ok(list) = self.consumer.position() else { return Vec::new() };
        let elements = list.elements();
        let progress = elements.iter().map(|element| {
            let partition = Partition::new(element.topic(), element.partition());
            let watermarks = native::watermarks(self.consumer.client(), &partition.topic, partition.number);
            let end_offset = watermarks.map(|(_, high)| high);
            Progress { partition, next_offset: known(element.offset()), end_offset }
        });
        progress.collect()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.consumer.context().closing.store(true, Ordering::Relaxed);
        // librdkafka does not close while it waits for an answer.
        self.answer_changes();
        self.take_answers(Duration::ZERO);
        if self.committing {
            self.close_aside();
        }
    }
}

fn known(offset: Offset) -> Option<i64> {
    match offset {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    }
}

/// True for a record of a topic that was just found made again. It may be of the new topic, which will be read from
/// where the answer says; what else waits of the old one is dropped as well, by that answer.
fn is_of(message: &BorrowedMessage<'_>, change: Option<&Change>) -> bool {
    matches!(change, Some(Change::MadeAgain(partitions))
        if partitions.iter().any(|partition| &*partition.topic == message.topic()))
}

fn record_of<'a>(message: &'a BorrowedMessage<'_>) -> Record<'a> {
    Record {
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
    use crate::cc::source::kafka::settings::tests as settings;

    #[test]
    fn what_librdkafka_does_not_know_is_wrong_usage() {
        let wrong = |text| match Member::join(&settings::one(&[text])).err() {
            Some(Error::Usage(reason)) => reason,
            other => panic!("{text}: {other:?}"),
        };
        assert!(wrong("no.such.key=1").contains("-X no.such.key: No such configuration property"));
        assert!(wrong("session.timeout.ms=many").contains("session.timeout.ms"));
    }

    #[test]
    fn a_topic_made_again_is_heard_of() {
        let line =
            "[thrd:main]: Topic again changed id from 6zdt3tIhRr6Cj5kJDow/1w to 1/NSBtjXS66wQcXJ8cFzIA";
        assert_eq!(made_again(line), Some("again"));
        let first =
            "[thrd:main]: Topic again changed id from AAAAAAAAAAAAAAAAAAAAAA to 1/NSBtjXS66wQcXJ8cFzIA";
        assert_eq!(made_again(first), None);
        assert_eq!(made_again("[thrd:main]: Topic again [0] Leader 1 Epoch 0"), None);
    }

    #[test]
    fn without_a_broker_it_waits_and_ends() {
        let begun = Instant::now();
        let mut member = Member::join(&settings::one(&[])).unwrap();
        let polled = member.poll(Duration::from_millis(50), &mut |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(polled, Polled::default());
        let partition = Partition::new("interception", 0);
        let short = Duration::from_millis(50);
        assert!(member.committed(std::slice::from_ref(&partition), short).is_err());
        assert!(member.bounds(&partition, short).is_err());
        assert!(member.topic_id("interception", short).is_err());
        member.commit(&[(partition, 7)]).unwrap();
        assert_eq!(member.acknowledged(short), []);
        assert_eq!(member.progress(), []);
        drop(member);
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }
}
