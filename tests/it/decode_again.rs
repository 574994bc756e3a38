//! `lea decode --output` compared with `lea consume-kafka`: the same records give the same files, and nothing
//! is stored twice, whatever the directory contains before.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lea::cc::vault::manifest::{Manifest, SUFFIX, StreamSource};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;

use crate::stored::lea;
use crate::support::broker::VERSIONS;
use crate::support::process::Process;
use crate::support::stored::{identity, names_in};
use crate::support::{Broker, Random, Server, Workdir, assert_same, long, testdata};

/// The summary line of a run.
struct Said(String);

impl Said {
    fn number(&self, key: &str) -> u64 {
        let line = self.0.lines().find(|line| line.starts_with("decoded ")).unwrap();
        let word = line.split(' ').find_map(|word| word.strip_prefix(&format!("{key}="))).unwrap();
        word.parse().unwrap()
    }
}

#[track_caller]
fn decode(output: &Path, dumps: &[&Path], args: &[&str], code: i32) -> Said {
    let run = lea(&["decode", "-o"]).arg(output).args(args).args(dumps).assert().code(code);
    Said(String::from_utf8(run.get_output().stderr.clone()).unwrap())
}

/// The value of a record, alternately in the two spellings of the user field.
fn value(name: &str, nth: usize, data: &[u8]) -> String {
    let user = if nth.is_multiple_of(2) { "userid" } else { "user_id" };
    let data = STANDARD.encode(data);
    format!(r#"{{"{user}": "+447700900123", "data": "{data}", "interceptionfilename": "{name}"}}"#)
}

fn values(name: &str, content: &[u8], chunk: usize) -> Vec<String> {
    content.chunks(chunk).enumerate().map(|(nth, data)| value(name, nth, data)).collect()
}

/// Takes one of each in turn.
fn mixed(streams: &[Vec<String>]) -> Vec<String> {
    let most = streams.iter().map(Vec::len).max().unwrap();
    (0..most).flat_map(|at| streams.iter().filter_map(move |values| values.get(at).cloned())).collect()
}

fn kcat(values: &[String], first_offset: usize) -> String {
    values.iter().zip(first_offset..).fold(String::new(), |mut dump, (value, offset)| {
        let payload = Value::from(value.as_str());
        let _ = writeln!(
            dump,
            r#"{{"topic":"t","partition":0,"offset":{offset},"tstype":"create","ts":1,"key":null,"payload":{payload}}}"#
        );
        dump
    })
}

/// Stream files with their content, and manifests without the parts that differ between runs: times, peer,
/// kind of Kafka source, version.
fn folder(dir: &Path) -> BTreeMap<String, (Vec<u8>, Option<Manifest>)> {
    let files = names_in(dir).into_iter().filter(|name| name != ".lea" && !name.ends_with(SUFFIX));
    files
        .map(|file| {
            let content = fs::read(dir.join(&file)).unwrap();
            let manifest = crate::support::manifest(dir, &file).map(|mut manifest| {
                manifest.lea_version.clear();
                // A dump and its topic are the same source of a stream.
                if manifest.source == StreamSource::KafkaDump {
                    manifest.source = StreamSource::Kafka;
                }
                // The parser state depends on how the bytes were split.
                manifest.resume_state = None;
                manifest.segments.iter_mut().for_each(|segment| segment.topic_id = None);
                for connection in &mut manifest.connections {
                    connection.peer.clear();
                    connection.connected_at.clear();
                    (connection.first_byte_at, connection.last_byte_at) = (None, None);
                    connection.ended_at = None;
                }
                manifest
            });
            (file, (content, manifest))
        })
        .collect()
}

/// Checks that both directories have the same files and manifests. Never prints content.
#[track_caller]
fn check_same(one: &Path, other: &Path) {
    let (one, other) = (folder(one), folder(other));
    assert_eq!(one.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>());
    for (file, (content, manifest)) in &one {
        let (other_content, other_manifest) = &other[file];
        assert!(content == other_content, "{file}: {} and {} bytes", content.len(), other_content.len());
        assert_eq!(manifest, other_manifest, "{file}");
    }
}

/// Position and value of each dead letter, sorted.
fn letters(dir: &Path) -> Vec<String> {
    let text = fs::read_to_string(dir.join(".lea/dead-letters.jsonl")).unwrap();
    let told = |line: &str| {
        let letter: Value = serde_json::from_str(line).unwrap();
        let of = |key: &str| letter.get(key).cloned().unwrap_or_default();
        format!("{} {} {} {} {}", of("topic"), of("partition"), of("offset"), of("reason"), of("value"))
    };
    let mut letters: Vec<_> = text.lines().map(told).collect();
    letters.sort();
    letters
}

/// Produces to two partitions. An empty value means a record without a value. It has a key, because a client
/// cannot tell a record without both from one in the format before Kafka 0.11.
fn produce(broker: &Broker, topic: &str, partitions: &[Vec<String>]) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", broker.addr()).set("linger.ms", "5").create().unwrap();
    for (partition, values) in (0..).zip(partitions) {
        for value in values {
            let record = BaseRecord::<str, str>::to(topic).partition(partition);
            let record = if value.is_empty() { record.key("k") } else { record.payload(value) };
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
    }
    producer.flush(Duration::from_secs(60)).unwrap();
}

#[test]
fn the_files_are_those_of_a_consumer() {
    let broker = Broker::start(VERSIONS[1]);
    let work = Workdir::new();
    broker.topic("t", 2);
    let (pcap, pcapng) = (testdata("pcap/answered-call.pcap"), testdata("pcap/three-calls.pcapng"));
    let mut other = pcap.clone();
    other[5_000] ^= 1;
    let no_name = values("", &pcap[..3_000], 400);
    let mut first = mixed(&[values("a", &pcap, 700), values("b", &pcapng, 900), no_name]);
    // Re-sends from the start: one equal, one with a difference.
    first.extend(values("a", &pcap, 1_300));
    first.extend(values("b", b"goes on", 3));
    let mut second = mixed(&[values("c", &pcap, 500), values("d", b"no capture", 2)]);
    second.extend(values("c", &other, 500));
    for (at, bad) in [(3, "no JSON"), (9, ""), (20, r#"{"userid":"y","data":"YW!j"}"#), (30, "{}")] {
        first.insert(at, bad.to_owned());
        second.insert(at / 2, bad.to_owned());
    }
    produce(&broker, "t", &[first.clone(), second.clone()]);

    let consumed = work.join("consumed");
    let run =
        lea(&["-q", "consume-kafka", "--exit-at-end", "--topic", "t", "--brokers", &broker.addr(), "-o"])
            .arg(&consumed)
            .assert()
            .code(3);
    let said = String::from_utf8_lossy(&run.get_output().stderr).into_owned();
    assert!(said.contains("dead_letters=8"), "{said}");
    assert!(consumed.join("c.2").exists());

    let records = first.len() + second.len();
    let properties = ["print.partition=true", "print.offset=true"];
    let console = broker.console_consumer("t", records, &properties);
    let console = work.write("console.txt", console);
    let from_console = work.join("from-console");
    let said = decode(&from_console, &[&console], &["--topic", "t"], 3);
    assert_eq!((said.number("records"), said.number("rejected")), (records as u64, 8), "{}", said.0);
    check_same(&consumed, &from_console);
    assert_eq!(letters(&consumed), letters(&from_console));

    let segments = [broker.segment("t", 0), broker.segment("t", 1)];
    let segments = [&*segments[0], &*segments[1]];
    let from_segments = work.join("from-segments");
    decode(&from_segments, &segments, &[], 3);
    check_same(&consumed, &from_segments);
    assert_eq!(letters(&consumed), letters(&from_segments));

    // The directory has all records already.
    let files =
        |dir: &Path| names_in(dir).into_iter().map(|file| identity(&dir.join(file))).collect::<Vec<_>>();
    let before = (files(&consumed), letters(&consumed));
    let said = decode(&consumed, &segments, &[], 0);
    assert_eq!((said.number("already_stored"), said.number("rejected")), (records as u64, 0), "{}", said.0);
    decode(&consumed, &[&console], &["--topic", "t"], 0);
    assert_eq!((files(&consumed).len(), letters(&consumed)), (before.0.len(), before.1));
    check_same(&consumed, &from_segments);
}

/// A stream that is a capture, one that is not, and one whose start is not in the dump.
fn three_streams() -> (Vec<String>, BTreeMap<&'static str, Vec<u8>>) {
    let pcap = testdata("pcap/answered-call.pcap");
    let text = b"no capture at all ".repeat(500);
    let streams = [("pcap", pcap.clone()), ("text", text), ("rest", pcap[5_000..].to_vec())];
    let dump = mixed(&streams.each_ref().map(|(name, content)| values(name, content, 300)));
    (dump, streams.into())
}

#[track_caller]
fn check_streams(output: &Path, streams: &BTreeMap<&str, Vec<u8>>) {
    streams.iter().for_each(|(name, content)| assert_same(&output.join(name), content));
    assert_eq!(names_in(output).len(), 2 * streams.len() + 1);
}

#[test]
fn a_dump_that_is_decoded_again_brings_nothing() {
    let work = Workdir::new();
    let (records, streams) = three_streams();
    let values = work.write("values", records.join("\n") + "\n");
    let envelopes = work.write("envelopes", kcat(&records, 0));
    for dump in [&values, &envelopes] {
        let output = work.join(format!("{}-out", dump.file_name().unwrap().display()));
        for known in [0, records.len() as u64] {
            let said = decode(&output, &[dump], &[], 0);
            assert_eq!((said.number("already_stored"), said.number("late")), (known, 0), "{}", said.0);
            check_streams(&output, &streams);
        }
    }
    // Another file with the same records: known offsets are skipped. Without offsets a capture is compared,
    // and other streams are appended.
    let output = |name: &str| work.join(format!("{name}-out"));
    let copy = work.join("copy");
    fs::copy(&envelopes, &copy).unwrap();
    decode(&output("envelopes"), &[&copy], &[], 0);
    check_streams(&output("envelopes"), &streams);
    fs::copy(&values, &copy).unwrap();
    decode(&output("values"), &[&copy], &[], 0);
    assert_same(&output("values").join("pcap"), &streams["pcap"]);
    assert_same(&output("values").join("text"), &streams["text"].repeat(2));
}

#[test]
fn dumps_in_any_order_give_the_same_files() {
    let work = Workdir::new();
    let (records, streams) = three_streams();
    let half = records.len() / 2;
    let begin = work.write("begin", kcat(&records[..half], 0));
    let end = work.write("end", kcat(&records[half..], half));
    // The dumps are sorted, also if they are given one after another.
    let output = work.join("together");
    decode(&output, &[&end, &begin], &[], 0);
    check_streams(&output, &streams);
    let output = work.join("in-order");
    decode(&output, &[&begin], &[], 0);
    decode(&output, &[&end], &[], 0);
    check_streams(&output, &streams);
    // In the opposite order the start is inserted before the end.
    let output = work.join("backwards");
    decode(&output, &[&end], &[], 0);
    let said = decode(&output, &[&begin], &[], 0);
    assert_eq!((said.number("late"), said.number("already_stored")), (0, 0), "{}", said.0);
    check_streams(&output, &streams);
    // Within one dump the order is kept, and each record counts once: offsets of two topics, or of a
    // recreated topic.
    let twice = work.write("twice", kcat(&records, 0) + &kcat(&values("late", b"late records", 4), 0));
    let output = work.join("again");
    for known in [0, records.len() as u64 + 3] {
        let said = decode(&output, &[&twice], &[], 0);
        assert_eq!((said.number("duplicates"), said.number("already_stored")), (0, known), "{}", said.0);
        assert_same(&output.join("late"), b"late records");
        assert_same(&output.join("pcap"), &streams["pcap"]);
    }
}

#[test]
fn dead_letters_that_are_still_bad_are_not_doubled() {
    let work = Workdir::new();
    let bad = [r#"{"data":"YWJj"}"#, "no JSON", r#"{"userid":"y","data":"YW!j"}"#].map(str::to_owned);
    let dump = work.write("dump", kcat(&bad, 7));
    let output = work.join("out");
    decode(&output, &[&dump], &[], 3);
    let kept = letters(&output);
    assert_eq!(kept.len(), 3);
    let text = fs::read_to_string(output.join(".lea/dead-letters.jsonl")).unwrap();
    let mended = work.write("mended", text.replace("YW!j", "YWFj"));
    let said = decode(&output, &[&mended], &[], 3);
    assert_eq!((said.number("rejected"), said.number("already_stored")), (2, 0), "{}", said.0);
    assert_same(&output.join("y.pcap"), b"aac");
    assert_eq!(letters(&output), kept);
    // A directory without these dead letters stores them.
    let other = work.join("other");
    decode(&other, &[&mended], &[], 3);
    assert_eq!(letters(&other).len(), 2);
}

#[test]
fn a_folder_in_use_is_named() {
    let work = Workdir::new();
    let dump = work.write("dump", kcat(&values("x", b"content", 3), 0));
    let server = Server::start(&work.join("out"), &[]);
    let run = lea(&["decode", "-o"]).arg(work.join("out")).arg(&dump).assert().code(1);
    let said = String::from_utf8_lossy(&run.get_output().stderr).into_owned();
    assert!(said.contains(" is in use by "), "{said}");
    drop(server);
}

#[test]
fn after_kills_at_random_moments_the_files_are_exact() {
    let work = Workdir::new();
    let mut random = Random::new("decode_again");
    let (some, _) = three_streams();
    let (pcap, text) = (testdata("pcap/answered-call.pcap"), b"no capture ".repeat(2_000));
    let mut streams: Vec<_> = (0..40).map(|nth| values(&format!("s{nth}"), &pcap, 900)).collect();
    streams.push(values("text", &text, 100));
    streams.push(some);
    let records = mixed(&streams);
    for dump in [records.join("\n") + "\n", kcat(&records, 100)] {
        let dump = work.write("dump", dump);
        let (exact, output) = (work.join("exact"), work.join("out"));
        decode(&exact, &[&dump], &[], 0);
        let all: u64 = folder(&exact).values().map(|(content, _)| content.len() as u64).sum();
        for _ in 0..if long() { 50 } else { 5 } {
            let mut command = Command::new(crate::support::lea());
            command.args(["-q", "decode", "-o"]).arg(&output).arg(&dump).stdin(Stdio::null());
            let mut process = Process::start(&mut command);
            let enough = random.below(all);
            while process.is_running() && stored_bytes(&output) < enough {
                std::thread::yield_now();
            }
            process.kill();
        }
        decode(&output, &[&dump], &[], 0);
        let contents = |dir: &Path| {
            folder(dir).into_iter().map(|(file, (content, _))| (file, content)).collect::<BTreeMap<_, _>>()
        };
        assert!(contents(&exact) == contents(&output), "the files differ");
        lea(&["verify"]).arg(&output).assert().code(0);
        [exact, output].iter().for_each(|dir| fs::remove_dir_all(dir).unwrap());
    }
}

fn stored_bytes(output: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(output) else { return 0 };
    let files = entries.flatten().filter_map(|entry| entry.metadata().ok().filter(fs::Metadata::is_file));
    files.map(|file| file.len()).sum()
}

#[test]
fn very_many_streams_of_three_records() {
    let streams = if long() { 100_000 } else { 3_000 };
    let work = Workdir::new();
    let dump: Vec<String> = (0..3)
        .flat_map(|record| {
            (0..streams).map(move |nth| value(&format!("stream-{nth}"), record, &[b'0' + record as u8; 100]))
        })
        .collect();
    let dump: PathBuf = work.write("dump", dump.join("\n") + "\n");
    let output = work.join("out");
    let mut command = Command::new("prlimit");
    command.arg("--nofile=1024:1024").arg(crate::support::lea()).args(["-q", "decode", "-o"]);
    let mut process = Process::start(command.arg(&output).arg(&dump).stdin(Stdio::null()));
    let mut peak_kib = 0;
    while process.is_running() {
        let status = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        peak_kib = kib.unwrap_or(0).max(peak_kib);
        std::thread::sleep(Duration::from_millis(10));
    }
    process.wait_code(Duration::from_secs(1), 0);
    eprintln!("decode: {streams} streams, {} MiB", peak_kib >> 10);
    assert!(peak_kib < 256 << 10, "{peak_kib} KiB");
    assert_eq!(names_in(&output).len(), 2 * streams + 1);
    let expected = [[b'0'; 100], [b'1'; 100], [b'2'; 100]].concat();
    (0..streams).for_each(|nth| assert_same(&output.join(format!("stream-{nth}")), &expected));
}
