//! Segments on the broker that the client library cannot read: what can be read is stored, the rest is named, and `lea
//! decode` of a copy of the segment stores it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::consume_kafka::consume_batch;
use crate::support::broker::VERSIONS;
use crate::support::{Broker, Workdir, lea};

const CHUNK: usize = 1000;

fn capture() -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/pcap/answered-call.pcap")).unwrap()
}

fn values(name: &str, content: &[u8]) -> Vec<String> {
    let value =
        |data| format!(r#"{{"interceptionfilename":"{name}","data":"{}"}}"#, STANDARD.encode::<&[u8]>(data));
    content.chunks(CHUNK).map(value).collect()
}

/// A segment of message format v1, as brokers before 0.11 wrote it: offset, size, CRC, magic, attributes, time, key, value.
fn segment_v1(values: &[String]) -> Vec<u8> {
    // The broker deletes records that are older than its retention time.
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let mut segment = Vec::new();
    for (offset, value) in (0u64..).zip(values) {
        let mut message = vec![1, 0];
        message.extend((now_ms + offset).to_be_bytes());
        for field in ["key", value] {
            message.extend((field.len() as u32).to_be_bytes());
            message.extend(field.as_bytes());
        }
        segment.extend(offset.to_be_bytes());
        segment.extend((message.len() as u32 + 4).to_be_bytes());
        let mut crc = flate2::Crc::new();
        crc.update(&message);
        segment.extend(crc.sum().to_be_bytes());
        segment.extend(message);
    }
    segment
}

/// Flips a bit of the value of the record batch that has this text.
fn damage(segment: &Path, text: &str) {
    let mut bytes = std::fs::read(segment).unwrap();
    let at = bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
    bytes[at] ^= 1;
    std::fs::write(segment, bytes).unwrap();
}

/// Consumes a topic to its end, where something could not be read. Returns stderr.
#[track_caller]
fn consume(broker: &Broker, topic: &str, output: &Path) -> String {
    let (code, text) = consume_batch(broker, topic, output);
    assert_eq!(code, Some(3), "{text}");
    text
}

/// Returns first and next offset of each report about a partition.
fn unreadable_runs(said: &str, partition: &str) -> Vec<(i64, i64)> {
    let head = format!("records_unreadable partition={partition} ");
    let number = |text: &str, key: &str| {
        let word = text.split(' ').find_map(|word| word.strip_prefix(key)).unwrap();
        word.parse().unwrap()
    };
    let reports = said.lines().filter_map(|line| line.split_once(&head));
    reports.map(|(_, text)| (number(text, "from="), number(text, "to="))).collect()
}

#[track_caller]
fn decode(broker: &Broker, topic: &str, output: &Path) {
    let segment = broker.segment(topic, 0);
    let run = Command::new(lea()).args(["decode", "-o"]).arg(output).arg(segment).output().unwrap();
    assert_eq!(run.status.code(), Some(0), "{}", String::from_utf8_lossy(&run.stderr));
}

#[test]
fn k9_k10_unreadable_segments_are_named_and_passed_over() {
    let broker = Broker::start(VERSIONS[0]);
    let work = Workdir::new();
    let (content, old, bad) = (capture(), work.join("old"), work.join("bad"));
    broker.topic("old", 1);
    broker.topic("bad", 1);
    let mut sender = Command::new(lea());
    sender.args(["-q", "replay"]).arg(work.write("bad.pcap", &content)).args(["--kafka", &broker.addr()]);
    sender.args(["--topic", "bad", "--topspeed", "--chunk", "1000", "-X", "batch.num.messages=1"]);
    assert!(sender.stdin(Stdio::null()).status().unwrap().success());
    broker.stop();
    std::fs::write(broker.segment("old", 0), segment_v1(&values("old.pcap", &content))).unwrap();
    damage(&broker.segment("bad", 0), &STANDARD.encode(&content[5 * CHUNK..6 * CHUNK]));
    broker.restart();

    let said = consume(&broker, "old", &old);
    let records = content.chunks(CHUNK).count() as i64;
    // On a busy machine the records arrive in several parts.
    let runs = unreadable_runs(&said, "old-0");
    assert!(runs.iter().try_fold(0, |at, run| (run.0 == at).then_some(run.1)) == Some(records), "{said}");
    assert!(said.contains("the format before Kafka 0.11"), "{said}");
    assert!(said.contains("dead_letters=0"), "{said}");
    decode(&broker, "old", &old);
    assert!(std::fs::read(old.join("old.pcap")).unwrap() == content);

    let said = consume(&broker, "bad", &bad);
    assert_eq!(said.matches("records_unreadable partition=bad-0 from=5 to=6").count(), 1, "{said}");
    assert!(said.contains("damaged_batches=1"), "{said}");
    let stored = std::fs::read(bad.join("bad.pcap")).unwrap();
    assert!(stored == [&content[..5 * CHUNK], &content[6 * CHUNK..]].concat(), "{} bytes", stored.len());
}
