//! `lea consume-kafka` with very many streams: few descriptors, little memory, complete files. Restarts that
//! do not read stored files again. A disk that is full for some time.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rustix::process::Signal;

use crate::support::broker::VERSIONS;
use crate::support::process::Process;
use crate::support::server::listening;
use crate::support::status::metric;
use crate::support::tmpfs::Tmpfs;
use crate::support::{Broker, Random, Workdir, generated, lea, long, manifest, wait_until};
use lea::cc::vault::manifest::ManifestState;

const RECORDS: usize = 3;
const DESCRIPTORS_MAX: usize = 1024;
const MEMORY_BYTES_MAX: u64 = 256 << 20;

fn name(stream: usize) -> String {
    format!("+447700900123-2-{stream}_21_11_2026_20:59:41.pcap")
}

/// A short capture, different for each stream.
fn content(stream: usize) -> Vec<u8> {
    generated::pcap(&mut Random::with_seed(stream as u64), 600).bytes
}

/// Piece number `record` of `of` pieces of `content`. Pieces end within packets.
fn piece(content: &[u8], record: usize, of: usize) -> &[u8] {
    let step = content.len().div_ceil(of);
    &content[(record * step).min(content.len())..((record + 1) * step).min(content.len())]
}

/// Sends records as real senders write them.
struct Sender {
    producer: BaseProducer,
}

impl Sender {
    fn new(broker: &Broker) -> Sender {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", broker.addr()).set("compression.type", "lz4").set("linger.ms", "20");
        Sender { producer: config.create().unwrap() }
    }

    fn send(&self, topic: &str, name: &str, data: &[u8]) {
        use base64::Engine;
        let data = base64::engine::general_purpose::STANDARD.encode(data);
        self.send_value(
            topic,
            &format!(
                "{{\"userid\": \"+447700900123\", \"data\": \"{data}\", \"interceptionfilename\": \"{name}\"}}"
            ),
        );
    }

    /// Sends a value that is not a chunk.
    fn send_bad(&self, topic: &str) {
        self.send_value(topic, "no chunk at all");
    }

    fn send_value(&self, topic: &str, value: &str) {
        loop {
            let record = BaseRecord::<(), str>::to(topic).partition(0).payload(value);
            match self.producer.send(record) {
                Ok(()) => return,
                // The queue of the producer is full.
                Err(_) => self.producer.poll(Duration::from_millis(10)),
            }
        }
    }

    fn flush(&self) {
        self.producer.flush(Duration::from_secs(60)).unwrap();
    }
}

fn consumer(broker: &Broker, output: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("prlimit");
    command
        .arg(format!("--nofile={DESCRIPTORS_MAX}:{DESCRIPTORS_MAX}"))
        .arg(lea())
        .args(["-q", "consume-kafka", "--brokers", &broker.addr(), "--topic", "t", "--output"])
        .arg(output)
        .args(args)
        .stdin(Stdio::null());
    command
}

/// A number in a file of /proc/PID; `None` after the end of the process.
fn proc_number(process: &Process, file: &str, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/{file}", process.id())).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok())
}

fn peak_bytes(process: &Process) -> Option<u64> {
    Some(proc_number(process, "status", "VmHWM:")? << 10)
}

fn descriptors(process: &Process) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", process.id())).map_or(0, Iterator::count)
}

#[test]
fn very_many_streams_take_few_descriptors_and_little_memory() {
    let streams = if long() { 100_000 } else { 5_000 };
    let broker = Broker::start(VERSIONS[1]);
    let work = Workdir::new();
    broker.topic("t", 1);
    let sender = Sender::new(&broker);
    for record in 0..RECORDS {
        (0..streams).for_each(|stream| {
            sender.send("t", &name(stream), piece(&content(stream), record, RECORDS));
        });
    }
    sender.flush();
    let output = work.join("out");
    // Kills the process within the first and within the second records of the streams. It continues within
    // the same limits.
    for kill_at in [Some(streams / 2), Some(streams), None] {
        let started = Instant::now();
        // With --exit-at-end each run is a new member, which waits until the group has removed the previous one.
        let mut args = vec!["--admin-listen", "127.0.0.1:0", "-X", "session.timeout.ms=6000"];
        args.extend(kill_at.is_none().then_some("--exit-at-end"));
        let mut process = Process::start(&mut consumer(&broker, &output, &args));
        let addr = listening(&mut process, "admin");
        let (mut peak, mut open) = (0, 0);
        while process.is_running() {
            peak = peak.max(peak_bytes(&process).unwrap_or(0));
            open = open.max(descriptors(&process));
            if kill_at.is_some_and(|records| metric(addr, "kafka_records_total") >= records as u64) {
                process.kill();
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let took = started.elapsed();
        eprintln!(
            "scale: {streams} streams, killed: {kill_at:?}, {took:?}, {} MiB, {open} descriptors",
            peak >> 20
        );
        assert!(peak > 0 && peak <= MEMORY_BYTES_MAX, "{} MiB", peak >> 20);
        assert!(open > 0 && open < DESCRIPTORS_MAX, "{open} descriptors");
        if kill_at.is_none() {
            process.wait_code(Duration::from_secs(1), 0);
            assert!(process.stderr().contains(" duplicates=0 dead_letters=0"), "{}", process.stderr());
        }
    }
    for stream in 0..streams {
        let stored = std::fs::read(output.join(name(stream))).unwrap();
        assert!(stored == content(stream), "stream {stream} differs");
    }
    let verified = Command::new(lea()).arg("verify").arg(&output).output().unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

/// The disk is full for some time: files, dead letters and checkpoints wait, and then continue.
#[test]
fn a_full_disk_costs_nothing() {
    const STREAMS: usize = 16;
    const BAD: usize = 20;
    let patience = Duration::from_secs(60);
    let full_for = Duration::from_secs(if long() { 10 } else { 2 });
    let broker = Broker::start(VERSIONS[1]);
    let work = Workdir::new();
    let disk = Tmpfs::mount(&work, 16 << 20);
    broker.topic("t", 1);
    let sender = Sender::new(&broker);
    let contents: Vec<_> = (0..STREAMS)
        .map(|seed| generated::pcap(&mut Random::with_seed(seed as u64), 200_000).bytes)
        .collect();
    let send = |records: std::ops::Range<usize>| {
        for record in records {
            (0..STREAMS).for_each(|at| sender.send("t", &name(at), piece(&contents[at], record, 40)));
        }
        sender.flush();
    };
    let output = disk.join("out");
    let mut process =
        Process::start(&mut consumer(&broker, &output, &["--reserve-disk", "0", "--sync-interval", "50ms"]));
    let bytes = |at| std::fs::metadata(output.join(name(at))).map_or(0, |metadata| metadata.len());
    send(0..20);
    wait_until(patience, "the first half is stored", || (0..STREAMS).all(|at| bytes(at) > 90_000));
    // From here on nothing can be written: no dead letters, no content, no checkpoints.
    disk.fill(0);
    (0..BAD).for_each(|_| sender.send_bad("t"));
    send(20..30);
    process
        .wait_line(patience, "disk_write_blocked", |line| line.contains("disk_write_blocked").then_some(()));
    let until = Instant::now() + full_for;
    while Instant::now() < until {
        assert!(process.is_running(), "it ended:\n{}", process.stderr());
        std::thread::sleep(Duration::from_millis(20));
    }
    disk.free();
    send(30..40);
    wait_until(patience, "all is stored", || (0..STREAMS).all(|at| bytes(at) == contents[at].len() as u64));
    process.signal(Signal::TERM);
    process.wait_code(patience, 0);
    for (at, content) in contents.iter().enumerate() {
        assert!(std::fs::read(output.join(name(at))).unwrap() == *content, "stream {at} differs");
        let manifest = manifest(&output, &name(at)).unwrap();
        assert_eq!((manifest.state, manifest.lost_bytes), (ManifestState::Closed, 0), "stream {at}");
    }
    let letters = std::fs::read_to_string(output.join(".lea/dead-letters.jsonl")).unwrap();
    assert_eq!(letters.lines().count(), BAD, "each once");
    let offsets: std::collections::BTreeSet<_> = letters.lines().collect();
    assert_eq!(offsets.len(), BAD, "each another one");
    let verified = Command::new(lea()).arg("verify").arg(&output).output().unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

/// Kills the process while it writes a large file. The next process truncates the file, continues, and
/// computes the right hash without reading the file. If the stored state is damaged, it reads the file, and
/// the hash is right as well.
#[test]
fn a_restart_does_not_read_what_is_stored() {
    const BYTES: usize = 24 << 20;
    const READ_BYTES_MAX: u64 = 4 << 20;
    let broker = Broker::start(VERSIONS[0]);
    let work = Workdir::new();
    broker.topic("t", 1);
    let sender = Sender::new(&broker);
    let content = generated::pcap(&mut Random::new("consume_scale"), BYTES).bytes;
    let mut pieces = content.chunks(100_000);
    let mut send = |bytes: usize| {
        pieces.by_ref().take(bytes / 100_000).for_each(|piece| sender.send("t", &name(0), piece));
        sender.flush();
    };
    let output = work.join("out");
    let start =
        || Process::start(&mut consumer(&broker, &output, &["--sync-interval", "50ms", "--static-member"]));
    let bytes = || std::fs::metadata(output.join(name(0))).map_or(0, |metadata| metadata.len());
    let patience = Duration::from_secs(60);
    send(16 << 20);
    for damaged in [false, true] {
        let mut process = start();
        let checkpoints = output.join(".lea/checkpoints.jsonl");
        let has_checkpoint = || {
            let rounds = std::fs::read_to_string(&checkpoints).unwrap_or_default();
            rounds.ends_with('\n') && rounds.lines().rev().any(|line| line.contains("\"bytes\":1"))
        };
        wait_until(patience, "most is stored, and a checkpoint says so", || {
            bytes() > 15 << 20 && has_checkpoint()
        });
        process.kill();
        if damaged {
            let spoil = |path: &Path| {
                let text = std::fs::read_to_string(path).unwrap();
                std::fs::write(
                    path,
                    text.replace("\"resume_state\":\"B", "\"resume_state\":\"C")
                        .replace("\"resume_state\": \"B", "\"resume_state\": \"C"),
                )
                .unwrap();
            };
            spoil(&checkpoints);
            spoil(&output.join(format!("{}.lea.json", name(0))));
        }
        let before = bytes();
        let mut process = start();
        send(2 << 20);
        wait_until(patience, "it goes on", || bytes() > before.max(15 << 20) + (1 << 20));
        let read = proc_number(&process, "io", "rchar:").unwrap();
        eprintln!("scale: a restart read {read} bytes; damaged: {damaged}");
        assert_eq!(read > before, damaged, "{read} bytes were read of {before}");
        assert!(damaged || read < READ_BYTES_MAX, "{read} bytes were read of {before}");
        assert_eq!(process.stderr().contains("resume_state_rejected"), damaged, "{}", process.stderr());
        process.kill();
    }
    send(content.len());
    let mut process = start();
    wait_until(patience, "all is stored", || bytes() == content.len() as u64);
    process.signal(Signal::TERM);
    process.wait_code(patience, 0);
    assert!(std::fs::read(output.join(name(0))).unwrap() == content, "the file differs");
    assert_eq!(manifest(&output, &name(0)).unwrap().state, ManifestState::Closed);
    let verified = Command::new(lea()).arg("verify").arg(&output).output().unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}
