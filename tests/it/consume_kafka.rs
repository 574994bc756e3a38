//! `lea consume-kafka` with real brokers: each produced record is in its file once, also if the process is
//! killed at any moment.

mod clients;
mod company;
mod made_again;
mod numbers;
mod security;
mod senders;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::broker::VERSIONS;
use crate::support::process::Process;
use crate::support::server::listening;
use crate::support::{Broker, Random, Workdir, lea, long, wait_until};

/// Time limit for a consumer that reads a whole topic.
const PATIENCE: Duration = Duration::from_secs(120);

/// Time limit for a paced sender: the longest capture in the long form.
const SENDING: Duration = Duration::from_secs(400);

fn capture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/pcap").join(name);
    path.to_str().unwrap().to_owned()
}

fn read(name: &str) -> Vec<u8> {
    std::fs::read(capture(name)).unwrap()
}

/// A `lea replay` of `streams` copies of both captures; `args` set the speed.
fn sender(broker: &Broker, topic: &str, streams: usize, args: &[&str]) -> Command {
    let mut command = Command::new(lea());
    command
        .args(["-q", "replay", &capture("answered-call.pcap"), &capture("three-calls.pcapng")])
        .args(["--kafka", &broker.addr(), "--topic", topic, "--streams", &streams.to_string()])
        .args(args)
        .stdin(Stdio::null());
    command
}

/// The names of `streams` copies with their content.
fn copies(streams: usize) -> Vec<(String, Vec<u8>)> {
    let copies = |stem: &'static str, extension: &'static str| {
        let content = read(&format!("{stem}.{extension}"));
        (1..=streams).map(move |copy| {
            let suffix = if copy == 1 { String::new() } else { format!("-{copy}") };
            (format!("{stem}{suffix}.{extension}"), content.clone())
        })
    };
    copies("answered-call", "pcap").chain(copies("three-calls", "pcapng")).collect()
}

/// Produces `streams` copies of both captures. Returns their names with their content.
fn produce(broker: &Broker, topic: &str, streams: usize, args: &[&str]) -> Vec<(String, Vec<u8>)> {
    let output = sender(broker, topic, streams, &[&["--topspeed"], args].concat()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    copies(streams)
}

fn consumer(broker: &Broker, topic: &str, output: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(lea());
    command
        .args(["-q", "consume-kafka", "--brokers", &broker.addr(), "--topic", topic, "--output"])
        .arg(output)
        .args(["--sync-interval", "100ms"])
        .args(args)
        .stdin(Stdio::null());
    command
}

fn consume_until_end(broker: &Broker, topic: &str, output: &Path) -> String {
    let (code, text) = consume_batch(broker, topic, output);
    assert_eq!(code, Some(0), "{text}");
    text
}

/// The exit code and stderr.
pub(crate) fn consume_batch(broker: &Broker, topic: &str, output: &Path) -> (Option<i32>, String) {
    let output = consumer(broker, topic, output, &["--exit-at-end"]).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Checks that the directory contains exactly these streams, closed and equal to what was sent, and that `lea
/// verify` finds no difference.
#[track_caller]
fn check_whole(output: &Path, expected: &[(String, Vec<u8>)]) {
    for (name, content) in expected {
        let stored = std::fs::read(output.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let differs = stored.iter().zip(content).position(|(stored, sent)| stored != sent);
        assert_eq!((stored.len(), differs), (content.len(), None), "{name}");
    }
    let names =
        std::fs::read_dir(output).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let stored = names.filter(|name| !name.starts_with('.') && !name.ends_with(".lea.json")).count();
    assert_eq!(stored, expected.len(), "no stray file");
    let verified = Command::new(lea()).arg("verify").arg(output).output().unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

/// All scenarios for one broker version, one after another, because starting a broker takes longer than most
/// of them.
fn check_version(version: &'static str) {
    let broker = Broker::start(version);
    each_codec_arrives(&broker);
    senders::check(&broker);
    clients::check(&broker, version);
    numbers::check(&broker);
    made_again::check(&broker);
}

#[test]
fn from_3_9() {
    check_version(VERSIONS[0]);
}

#[test]
fn from_4() {
    check_version(VERSIONS[1]);
}

fn each_codec_arrives(broker: &Broker) {
    let work = Workdir::new();
    for (codec, partitions) in [("none", 1), ("gzip", 3), ("snappy", 1), ("lz4", 3), ("zstd", 3)] {
        let topic = format!("t-{codec}");
        broker.topic(&topic, partitions);
        let sent = produce(broker, &topic, 2, &["--compression", codec, "--chunk", "1000"]);
        let output = work.path().join(codec);
        let text = consume_until_end(broker, &topic, &output);
        assert!(text.contains("duplicates=0 dead_letters=0"), "{codec}: {text}");
        check_whole(&output, &sent);
        // A second run finds nothing new, because the group and the directory know the offsets.
        assert!(consume_until_end(broker, &topic, &output).contains("consumed records=0"));
        check_whole(&output, &sent);
    }
}

#[test]
fn a_record_that_cannot_be_used_is_kept_and_the_rest_goes_on() {
    let broker = Broker::start(VERSIONS[0]);
    let work = Workdir::new();
    broker.topic("t", 1);
    let faults = ["--chunk", "1000", "--fault", "bad-base64", "--seed", "7"];
    let sent = produce(&broker, "t", 1, &faults);
    let output = work.path().join("out");
    let (code, text) = consume_batch(&broker, "t", &output);
    assert_eq!(code, Some(3), "{text}");
    let letters = std::fs::read_to_string(output.join(".lea/dead-letters.jsonl")).unwrap();
    assert!(!letters.is_empty() && letters.lines().all(|line| line.contains("lea_dead_letter")), "{letters}");
    assert!(text.contains(&format!("dead_letters={}", letters.lines().count())), "{text}");
    for (name, _) in &sent {
        assert!(output.join(name).exists(), "{name}");
    }
    // The records were rejected in the first run; the second one has none.
    assert!(consume_until_end(&broker, "t", &output).contains("records=0 duplicates=0 dead_letters=0"));
}

#[test]
fn each_record_is_in_once_after_kills_at_random_moments() {
    let broker = Broker::start(VERSIONS[1]);
    let work = Workdir::new();
    let mut random = Random::new("consume_kafka");
    broker.topic("t", 3);
    let output = work.path().join("out");
    let sent = copies(32);
    // Slow enough that records still arrive in the last rounds.
    let (rounds, mbps) = if long() { (200, "0.02") } else { (10, "0.4") };
    let mut sending = Process::start(&mut sender(&broker, "t", 32, &["--chunk", "500", "--mbps", mbps]));
    let all: u64 = sent.iter().map(|(_, content)| content.len() as u64).sum();
    for round in 0..rounds {
        let mut process = Process::start(&mut consumer(&broker, "t", &output, &[]));
        let bytes = random.below(all / rounds * 4);
        let before = stored_bytes(&output);
        let after = Duration::from_millis(random.below(1500));
        let started = std::time::Instant::now();
        // The kill comes at a number of bytes or at a time, so that it also hits joining and ending.
        while process.is_running() && stored_bytes(&output) < before + bytes && started.elapsed() < after {
            std::thread::yield_now();
        }
        process.kill();
        eprintln!("consume: round {round}, {} of {all} bytes stored", stored_bytes(&output));
    }
    sending.wait_code(SENDING, 0);
    consume_until_end(&broker, "t", &output);
    check_whole(&output, &sent);
}

/// The broker is killed while records arrive, and restarts. Sender and consumer continue by themselves. If
/// the outage is longer than the session timeout, the group fences the consumer, and it joins again.
#[test]
fn a_broker_that_dies_and_comes_back_costs_nothing() {
    let broker = Broker::start(VERSIONS[0]);
    let work = Workdir::new();
    broker.topic("t", 2);
    let output = work.path().join("out");
    let args = ["--admin-listen", "127.0.0.1:0", "-X", "session.timeout.ms=6000"];
    let mut process = Process::start(&mut consumer(&broker, "t", &output, &args));
    let addr = listening(&mut process, "admin");
    let mut sent = Vec::new();
    let mut all = 0;
    for kill in 0..if long() { 10 } else { 2 } {
        let content = read("answered-call.pcap");
        let file = work.write(format!("sent-{kill}.pcap"), &content);
        let mut sender = Command::new(lea());
        sender.args(["-q", "replay", file.to_str().unwrap(), "--kafka", &broker.addr(), "--topic", "t"]);
        sender.args(["--streams", "2", "--chunk", "500", "--mbps", "0.2"]).stdin(Stdio::null());
        let mut sending = Process::start(&mut sender);
        let before = all;
        for name in [format!("sent-{kill}.pcap"), format!("sent-{kill}-2.pcap")] {
            all += content.len() as u64;
            sent.push((name, content.clone()));
        }
        wait_until(PATIENCE, "records to come", || stored_bytes(&output) > before);
        broker.kill9();
        if kill % 2 == 1 {
            wait_until(PATIENCE, "the session to be over", || {
                numbers::partitions(addr).iter().all(|row| row["assigned"] == false)
            });
        }
        broker.restart();
        sending.wait_code(SENDING, 0);
        wait_until(PATIENCE, "all is stored", || {
            assert!(process.is_running(), "{}", process.stderr());
            stored_bytes(&output) >= all
        });
    }
    process.signal(rustix::process::Signal::TERM);
    process.wait_code(PATIENCE, 0);
    eprintln!("consume: fenced {} times", process.stderr().matches("member_fenced").count());
    check_whole(&output, &sent);
}

/// Sends a file under a name, in chunks of 1,000 bytes.
#[track_caller]
fn produce_as(broker: &Broker, topic: &str, name: &str, file: &str, args: &[&str]) {
    let mut command = Command::new(lea());
    command.args(["-q", "replay", file, "--kafka", &broker.addr(), "--topic", topic, "--name", name]);
    let output =
        command.args(["--topspeed", "--chunk", "1000"]).args(args).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Total size of all stream files.
fn stored_bytes(output: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(output) else { return 0 };
    entries
        .flatten()
        .filter(|entry| !entry.file_name().to_string_lossy().ends_with(".lea.json"))
        .filter_map(|entry| entry.metadata().ok().filter(std::fs::Metadata::is_file))
        .map(|metadata| metadata.len())
        .sum()
}
