//! What a consumer waits for with a real broker: new partitions, open transactions, and other members. It says so, and a
//! limited wait ends with 3.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rustix::process::Signal;

use crate::support::broker::VERSIONS;
use crate::support::process::Process;
use crate::support::{Broker, Workdir, lea, wait_until};

/// Time limit for one step on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn consumer(broker: &Broker, topic: &str, output: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(lea());
    command.args(["consume-kafka", "--brokers", &broker.addr(), "--topic", topic, "--group", topic]);
    // A member that is killed with the test gives up its place soon.
    command.args(["-X", "session.timeout.ms=6000", "--output"]).arg(output).args(args).stdin(Stdio::null());
    command
}

/// Consumes a topic to its end, waiting a few seconds at most. Returns stderr.
#[track_caller]
fn consume(broker: &Broker, topic: &str, output: &Path, wait: &str, code: i32) -> String {
    let run = consumer(broker, topic, output, &["--exit-at-end", "--wait-timeout", wait]).output().unwrap();
    let text = String::from_utf8_lossy(&run.stderr).into_owned();
    assert_eq!(run.status.code(), Some(code), "{text}");
    text
}

fn producer(broker: &Broker, transaction: Option<&str>) -> BaseProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker.addr());
    transaction.into_iter().for_each(|id| {
        config.set("transactional.id", id);
    });
    config.create().unwrap()
}

/// Produces a record of a stream and waits until the broker has it.
fn produce(producer: &BaseProducer, topic: &str, partition: i32, name: &str, data: &[u8]) {
    let value = format!(r#"{{"interceptionfilename":"{name}","data":"{}"}}"#, STANDARD.encode(data));
    let record: BaseRecord<'_, [u8], str> = BaseRecord::to(topic).partition(partition).payload(&value);
    assert!(producer.send(record).is_ok());
    producer.flush(PATIENCE).unwrap();
}

#[test]
fn k7_k8_k11_waits_are_said_and_limited() {
    let broker = Broker::start(VERSIONS[1]);
    a_partition_added_later_is_read_from_its_first_record(&broker);
    an_open_transaction_is_not_the_end(&broker);
    another_member_has_all_partitions(&broker);
}

fn a_partition_added_later_is_read_from_its_first_record(broker: &Broker) {
    let work = Workdir::new();
    broker.topic("added", 1);
    let plain = producer(broker, None);
    produce(&plain, "added", 0, "old.bin", b"before the start");
    let args = ["--from", "latest", "--sync-interval", "100ms"];
    let mut process = Process::start(&mut consumer(broker, "added", work.path(), &args));
    process.wait_line(PATIENCE, "a partition", |line| line.contains("partition_started").then_some(()));
    broker.add_partitions("added", 2);
    // The client learns of the new partition before it produces to it; the consumer learns of it later.
    wait_until(PATIENCE, "the new partition", || {
        let metadata = plain.client().fetch_metadata(Some("added"), PATIENCE).unwrap();
        metadata.topics()[0].partitions().len() == 2
    });
    produce(&plain, "added", 1, "new.bin", b"first record of the new partition");
    let new = work.join("new.bin");
    wait_until(PATIENCE, "the first record of the new partition", || {
        assert!(process.is_running(), "{}", process.stderr());
        std::fs::read(&new).is_ok_and(|stored| stored == b"first record of the new partition")
    });
    assert!(!work.join("old.bin").exists());
    process.signal(Signal::TERM);
    process.wait_code(PATIENCE, 0);
}

fn an_open_transaction_is_not_the_end(broker: &Broker) {
    let work = Workdir::new();
    broker.topic("transaction", 1);
    produce(&producer(broker, None), "transaction", 0, "a.bin", b"committed, ");
    let transactional = producer(broker, Some("waits"));
    transactional.init_transactions(PATIENCE).unwrap();
    transactional.begin_transaction().unwrap();
    produce(&transactional, "transaction", 0, "a.bin", b"in a transaction");
    let said = consume(broker, "transaction", work.path(), "5s", 3);
    assert!(said.contains("waiting_for_records partition=transaction-0"), "{said}");
    assert!(said.contains("a transaction is open"), "{said}");
    assert_eq!(std::fs::read(work.join("a.bin")).unwrap(), b"committed, ");
    transactional.commit_transaction(PATIENCE).unwrap();
    consume(broker, "transaction", work.path(), "2m", 0);
    assert_eq!(std::fs::read(work.join("a.bin")).unwrap(), b"committed, in a transaction");
}

fn another_member_has_all_partitions(broker: &Broker) {
    let work = Workdir::new();
    broker.topic("taken", 1);
    let mut first = Process::start(&mut consumer(broker, "taken", &work.join("first"), &[]));
    first.wait_line(PATIENCE, "a partition", |line| line.contains("partition_started").then_some(()));
    let said = consume(broker, "taken", &work.join("second"), "10s", 3);
    assert!(said.contains("waiting_for_partitions"), "{said}");
    assert!(said.contains("wait_timed_out waited_s=10"), "{said}");
    first.signal(Signal::TERM);
    first.wait_code(PATIENCE, 0);
}
