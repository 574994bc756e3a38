//! The Kafka client with real brokers: records in all codecs, groups, commits, outages, recreated topics.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lea::cc::ingest::kafka::client::{
    AutoOffsetReset, KafkaConsumer, KafkaRecord, Rebalance, StartOffset, TopicPartition,
};
use lea::cc::ingest::kafka::librdkafka::RdKafkaConsumer;
use lea::cc::ingest::kafka::settings::{ConsumerSettings, KafkaProperty};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::support::broker::VERSIONS;
use crate::support::process::Process;
use crate::support::{Broker, DEADLINE, long, wait_until};

const TICK: Duration = Duration::from_millis(100);
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

fn settings(broker: &Broker, topic: &str, instance: Option<&str>) -> ConsumerSettings {
    settings_of(&broker.addr(), topic, instance)
}

fn settings_of(brokers: &str, topic: &str, instance: Option<&str>) -> ConsumerSettings {
    ConsumerSettings {
        brokers: brokers.to_owned(),
        group: format!("group-of-{topic}"),
        instance: instance.map(str::to_owned),
        topics: vec![topic.to_owned()],
        reset: AutoOffsetReset::Earliest,
        // Shorter than the usual session timeout of 45 s.
        properties: vec![KafkaProperty::parse("session.timeout.ms=6000").unwrap()],
    }
}

/// The offset after the last record of a partition.
fn next_of(seen: &[(i32, i64, Vec<u8>)], partition: i32) -> Option<i64> {
    seen.iter().rev().find(|(number, ..)| *number == partition).map(|(_, offset, _)| offset + 1)
}

/// A member that starts at the committed offset, or at the first record of a recreated topic, and the records
/// that it received.
struct Reader {
    member: RdKafkaConsumer,
    ids: HashMap<Arc<str>, String>,
    seen: Vec<(i32, i64, Vec<u8>)>,
    assigned: Vec<TopicPartition>,
    taken: usize,
    made_again: usize,
}

impl Reader {
    fn join(settings: &ConsumerSettings) -> Reader {
        let member = RdKafkaConsumer::join(settings).unwrap();
        Reader {
            member,
            ids: HashMap::new(),
            seen: Vec::new(),
            assigned: Vec::new(),
            taken: 0,
            made_again: 0,
        }
    }

    fn turn(&mut self) {
        let seen = &mut self.seen;
        let mut take = |record: KafkaRecord<'_>| {
            let (number, offset) = (record.partition, record.offset);
            // After an outage the group can continue at an older commit.
            if next_of(seen, number).is_none_or(|next| offset >= next) {
                seen.push((number, offset, record.value.unwrap_or_default().to_vec()));
            }
            ControlFlow::Continue(())
        };
        let polled = self.member.poll(TICK, &mut take).unwrap();
        match polled.rebalance {
            Some(Rebalance::Assigned(partitions)) => {
                let starts: Vec<_> = partitions
                    .iter()
                    .map(|partition| (partition.clone(), self.start_of(partition)))
                    .collect();
                self.member.assign(&starts).unwrap();
                self.assigned.extend(partitions);
            }
            Some(Rebalance::Revoked { partitions, lost }) => {
                if !lost {
                    self.commit();
                }
                self.member.unassign(&partitions).unwrap();
                self.assigned.retain(|partition| !partitions.contains(partition));
                self.taken += partitions.len();
            }
            Some(Rebalance::TopicRecreated(partitions)) => {
                let starts: Vec<_> = partitions.into_iter().map(|at| (at, StartOffset::Earliest)).collect();
                self.member.assign(&starts).unwrap();
                self.seen.clear();
                self.made_again += 1;
            }
            None => {}
        }
    }

    fn start_of(&mut self, partition: &TopicPartition) -> StartOffset {
        let id = self.member.topic_id(&partition.topic, DEADLINE).unwrap().unwrap();
        match self.ids.insert(Arc::clone(&partition.topic), id.clone()) {
            Some(before) if before != id => StartOffset::Earliest,
            _ => StartOffset::Committed,
        }
    }

    #[track_caller]
    fn until(&mut self, what: &str, done: impl Fn(&Reader) -> bool) {
        wait_until(DEADLINE, what, || {
            self.turn();
            done(self)
        });
    }

    #[track_caller]
    fn until_seen(&mut self, count: usize) {
        self.until(&format!("{count} records"), |reader| reader.seen.len() >= count);
    }

    /// Commits all received records and waits for the acknowledgement.
    fn commit(&mut self) -> Vec<(TopicPartition, i64)> {
        let next = |partition: &TopicPartition| {
            next_of(&self.seen, partition.number).map(|next| (partition.clone(), next))
        };
        let offsets: Vec<_> = self.assigned.iter().filter_map(next).collect();
        self.member.commit(&offsets).unwrap();
        self.member.take_acknowledged(Duration::from_secs(2))
    }
}

fn producer(broker: &Broker, codec: &str) -> BaseProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker.addr()).set("compression.type", codec);
    config.set("reconnect.backoff.max.ms", "200").create().unwrap()
}

/// Values that are long enough for each codec to compress them.
fn values(from: usize, to: usize) -> Vec<Vec<u8>> {
    (from..to).map(|number| format!("{number}-").repeat(50).into_bytes()).collect()
}

#[track_caller]
fn produce(broker: &Broker, topic: &str, partition: i32, codec: &str, values: &[Vec<u8>]) {
    let producer = producer(broker, codec);
    for value in values {
        let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).partition(partition).payload(value);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(DEADLINE).unwrap();
}

fn check_version(version: usize) {
    let broker = Broker::start(VERSIONS[version]);
    all_codecs_are_read(&broker);
    commits_are_acknowledged_and_found_again(&broker);
    positions_pass_what_transactions_leave(&broker);
    a_topic_made_again_is_read_from_its_start(&broker);
    outages_are_survived(&broker, version);
}

#[test]
fn a_member_of_3_9() {
    check_version(0);
}

#[test]
fn a_member_of_4() {
    check_version(1);
}

fn all_codecs_are_read(broker: &Broker) {
    broker.topic("codecs", 1);
    for (nth, codec) in CODECS.iter().enumerate() {
        produce(broker, "codecs", 0, codec, &values(nth * 100, nth * 100 + 100));
    }
    let mut reader = Reader::join(&settings(broker, "codecs", None));
    reader.until_seen(500);
    let expected: Vec<_> =
        values(0, 500).into_iter().enumerate().map(|(at, value)| (0, at as i64, value)).collect();
    assert!(reader.seen == expected, "other records than were sent");
}

fn commits_are_acknowledged_and_found_again(broker: &Broker) {
    broker.topic("commits", 2);
    let settings = settings(broker, "commits", Some("one"));
    let partitions = [TopicPartition::new("commits", 0), TopicPartition::new("commits", 1)];
    produce(broker, "commits", 0, "none", &values(0, 10));
    let mut reader = Reader::join(&settings);
    reader.until_seen(10);
    assert_eq!(reader.member.committed(&partitions, DEADLINE).unwrap(), [None, None]);
    assert_eq!(reader.commit(), [(partitions[0].clone(), 10)]);
    assert_eq!(reader.member.committed(&partitions, DEADLINE).unwrap(), [Some(10), None]);
    assert_eq!(reader.member.bounds(&partitions[0], DEADLINE).unwrap(), (0, 10));
    let progress = reader.member.progress();
    let of_first = progress.iter().find(|progress| progress.partition == partitions[0]).unwrap();
    assert_eq!((of_first.next_offset, of_first.end_offset), (Some(10), Some(10)));

    // A crash: the member does not leave the group. The same instance gets its partitions back at once.
    std::mem::forget(reader);
    produce(broker, "commits", 0, "none", &values(10, 15));
    let begun = Instant::now();
    let mut again = Reader::join(&settings);
    again.until_seen(5);
    assert!(begun.elapsed() < Duration::from_secs(5), "the group waited for the dead member");
    assert_eq!(again.seen[0].1, 10, "it starts at the committed offset");
}

/// The end marker of a transaction has an offset and is never returned.
fn positions_pass_what_transactions_leave(broker: &Broker) {
    broker.topic("transactions", 1);
    let mut config = ClientConfig::new();
    let producer: BaseProducer =
        config.set("bootstrap.servers", broker.addr()).set("transactional.id", "t").create().unwrap();
    producer.init_transactions(DEADLINE).unwrap();
    for commits in [true, false] {
        producer.begin_transaction().unwrap();
        for value in ["a", "b", "c"] {
            let record: BaseRecord<'_, [u8], str> = BaseRecord::to("transactions").payload(value);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        match commits {
            true => producer.commit_transaction(DEADLINE).unwrap(),
            false => {
                producer.flush(DEADLINE).unwrap();
                producer.abort_transaction(DEADLINE).unwrap();
            }
        }
    }
    let mut reader = Reader::join(&settings(broker, "transactions", None));
    let partition = TopicPartition::new("transactions", 0);
    // The broker writes the marker after it has acknowledged the end of the transaction.
    let end = 8;
    wait_until(DEADLINE, "the last marker", || reader.member.bounds(&partition, DEADLINE).unwrap().1 == end);
    wait_until(DEADLINE, "the position behind the last marker", || {
        reader.turn();
        reader.member.progress().iter().any(|progress| progress.next_offset == Some(end))
    });
    assert_eq!(reader.seen.len(), 3);
}

/// A running member gets each record of the new topic, whether that has more records than the old one or fewer.
fn a_topic_made_again_is_read_from_its_start(broker: &Broker) {
    broker.topic("again", 1);
    let id = |reader: &mut Reader| reader.member.topic_id("again", DEADLINE).unwrap();
    let mut reader = Reader::join(&settings(broker, "again", None));
    produce(broker, "again", 0, "none", &values(0, 5));
    reader.until_seen(5);
    let mut before = id(&mut reader).unwrap();
    assert_eq!(before.len(), 22, "{before}");
    for (nth, count) in [8, 3].into_iter().enumerate() {
        broker.delete_topic("again");
        wait_until(DEADLINE, "the end of the topic", || id(&mut reader).is_none());
        broker.topic("again", 1);
        let sent = values(100 * nth, 100 * nth + count);
        produce(broker, "again", 0, "none", &sent);
        let now = id(&mut reader).unwrap();
        assert_ne!(before, now);
        before = now;
        reader.until("the new topic", |reader| reader.made_again == nth + 1 && reader.seen.len() >= count);
        let expected: Vec<_> =
            sent.into_iter().enumerate().map(|(at, value)| (0, at as i64, value)).collect();
        let offsets: Vec<i64> = reader.seen.iter().map(|(_, offset, _)| *offset).collect();
        assert!(
            reader.seen == expected,
            "not each record once and from the start: {offsets:?} in round {nth}"
        );
    }
}

/// Another process has used the same member id for some time.
#[test]
fn who_is_shut_out_joins_again() {
    let broker = &Broker::start(VERSIONS[0]);
    broker.topic("shut-out", 1);
    let settings = settings(broker, "shut-out", Some("same"));
    let mut one = Reader::join(&settings);
    produce(broker, "shut-out", 0, "none", &values(0, 10));
    one.until_seen(10);
    assert_eq!(one.commit().len(), 1);
    let mut two = Reader::join(&settings);
    two.until("the partition", |two| !two.assigned.is_empty());
    drop(two);
    one.until("what it had to be lost", |one| one.taken == 1);
    produce(broker, "shut-out", 0, "none", &values(10, 15));
    one.until_seen(15);
    assert_eq!((one.taken, one.assigned.len()), (1, 1));
    let offsets: Vec<i64> = one.seen.iter().map(|(_, offset, _)| *offset).collect();
    assert!(offsets.into_iter().eq(0..15), "from the committed offset, nothing else");
}

fn outages_are_survived(broker: &Broker, version: usize) {
    broker.topic("outages", 1);
    let mut reader = Reader::join(&settings(broker, "outages", None));
    let mut count = 0;
    let rounds = if long() { 10 } else { 1 };
    for round in 0..rounds {
        produce(broker, "outages", 0, "zstd", &values(count, count + 50));
        count += 50;
        reader.until_seen(count);
        match (round + version) % 2 {
            0 => broker.stop(),
            _ => broker.kill9(),
        }
        // Without a broker it neither fails nor blocks its caller.
        let begun = Instant::now();
        reader.turn();
        reader.member.commit(&[(TopicPartition::new("outages", 0), count as i64)]).unwrap();
        assert_eq!(reader.member.take_acknowledged(TICK), []);
        assert!(begun.elapsed() < Duration::from_secs(5));
        broker.restart();
        wait_until(DEADLINE, "the commit's acknowledgement", || {
            reader.turn();
            !reader.commit().is_empty()
        });
    }
    produce(broker, "outages", 0, "zstd", &values(count, count + 50));
    reader.until_seen(count + 50);
    let offsets: Vec<i64> = reader.seen.iter().map(|(_, offset, _)| *offset).collect();
    let expected: Vec<i64> = (0..count as i64 + 50).collect();
    assert_eq!(offsets, expected, "each record once and in order");
    // Closing does not wait for a broker that is gone, even with a pending commit.
    broker.kill9();
    reader.member.commit(&[(TopicPartition::new("outages", 0), count as i64)]).unwrap();
    let begun = Instant::now();
    drop(reader);
    assert!(begun.elapsed() < Duration::from_secs(10), "closing took {:?}", begun.elapsed());
}

/// Not a test: the second member, in a process that can be killed. It commits only partitions that are
/// revoked, and prints what it has.
#[test]
fn member_process() {
    let Ok(brokers) = std::env::var("LEA_TEST_MEMBER") else { return };
    let mut reader = Reader::join(&settings_of(&brokers, "shared", Some("two")));
    loop {
        reader.turn();
        eprintln!("member assigned={} seen={}", reader.assigned.len(), reader.seen.len());
    }
}

fn start_member(broker: &Broker) -> Process {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "kafka_client::member_process", "--nocapture"]);
    Process::start(command.env("LEA_TEST_MEMBER", broker.addr()).stdout(Stdio::null()))
}

#[test]
fn two_members_share_and_take_over() {
    let broker = Broker::start(VERSIONS[1]);
    broker.topic("shared", 4);
    let send = |from: usize, to: usize| {
        (0..4).for_each(|partition| produce(&broker, "shared", partition, "none", &values(from, to)));
    };
    send(0, 10);
    let mut one = Reader::join(&settings(&broker, "shared", Some("one")));
    one.until_seen(40);
    // The second member joins: two partitions of the first one are revoked, and it commits them.
    let mut two = start_member(&broker);
    one.until("two partitions to go", |one| one.assigned.len() == 2);
    assert_eq!(one.taken, 2, "only what moves is taken");
    one.until("two partitions at the second", |_| two.stderr().contains("assigned=2"));
    send(10, 20);
    one.until("each its share", |one| one.seen.len() == 60 && two.stderr().contains("assigned=2 seen=20"));
    // The second member dies without leaving and without a commit. Its partitions and uncommitted records
    // return after the session timeout.
    two.kill();
    one.until_seen(80);
    assert_eq!((one.assigned.len(), one.seen.len()), (4, 80), "from the committed offset, nothing else");
}
