//! Client libraries and their codecs: each compresses, and frames snappy, in its own way, and the broker stores batches as
//! they arrive. All are consumed in one run, and each segment is decoded.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::json;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{PATIENCE, capture, check_whole, consumer, read};
use crate::support::broker::VERSIONS;
use crate::support::process::Process;
use crate::support::{Broker, Workdir, kafka_python_sender, kafkajs, lea};

/// Sends the answered call under a name, compressed with a codec.
type Send = fn(&Broker, topic: &str, name: &str, codec: &str) -> Output;

const CLIENTS: [(&str, Send, &[&str]); 4] = [
    ("kafka-python", send_python, &["none", "gzip", "snappy", "lz4", "zstd"]),
    ("librdkafka", send_librdkafka, &["none", "gzip", "snappy", "lz4", "zstd"]),
    ("Java", send_java, &["none", "gzip", "snappy", "lz4", "zstd"]),
    ("KafkaJS", send_js, &["none", "gzip", "snappy"]),
];

fn send_python(broker: &Broker, topic: &str, name: &str, codec: &str) -> Output {
    let capture = capture("answered-call.pcap");
    kafka_python_sender(&[&broker.addr(), topic, name, &capture, "1000", "userid", codec]).output().unwrap()
}

fn send_librdkafka(broker: &Broker, topic: &str, name: &str, codec: &str) -> Output {
    let mut command = Command::new(lea());
    command.args([
        "-q",
        "replay",
        &capture("answered-call.pcap"),
        "--kafka",
        &broker.addr(),
        "--topic",
        topic,
    ]);
    command.args(["--name", name, "--topspeed", "--chunk", "1000", "--compression", codec]);
    command.stdin(Stdio::null()).output().unwrap()
}

fn send_java(broker: &Broker, topic: &str, name: &str, codec: &str) -> Output {
    let line = |data| json!({"interceptionfilename": name, "data": STANDARD.encode(data)}).to_string() + "\n";
    let lines: String = read("answered-call.pcap").chunks(1000).map(line).collect();
    broker.console_producer(&["--topic", topic, "--compression-codec", codec], lines.as_bytes())
}

fn send_js(broker: &Broker, topic: &str, name: &str, codec: &str) -> Output {
    let capture = capture("answered-call.pcap");
    kafkajs(&[&broker.addr(), topic, name, &capture, "1000", codec]).output().unwrap()
}

/// Checks the clients with a broker, and that docs/kafka.md lists them.
pub(super) fn check(broker: &Broker, version: &str) {
    let work = Workdir::new();
    let consumed = work.join("consumed");
    let (mut sent, mut topics) = (Vec::new(), Vec::new());
    for (client, send, codecs) in CLIENTS {
        for codec in codecs {
            let topic = format!("{client}-{codec}");
            broker.topic(&topic, 1);
            let name = format!("{topic}.pcap");
            let output = send(broker, &topic, &name, codec);
            assert!(output.status.success(), "{topic}: {}", String::from_utf8_lossy(&output.stderr));
            sent.push((name, read("answered-call.pcap")));
            topics.push(topic);
        }
    }
    let more: Vec<&str> = topics[1..].iter().flat_map(|topic| ["--topic", topic]).collect();
    let mut consuming = Process::start(consumer(broker, &topics[0], &consumed, &more).arg("--exit-at-end"));
    consuming.wait_code(PATIENCE, 0);
    check_whole(&consumed, &sent);
    let decoded = work.join("decoded");
    let segments = topics.iter().map(|topic| broker.segment(topic, 0));
    let output =
        Command::new(lea()).args(["-q", "decode", "-o"]).arg(&decoded).args(segments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    check_whole(&decoded, &sent);
    check_documented(version);
}

/// Checks the rows of the table in docs/kafka.md: a client, its codecs, and the versions of the broker.
fn check_documented(version: &str) {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/kafka.md")).unwrap();
    assert!(VERSIONS.contains(&version));
    for (client, _, codecs) in CLIENTS {
        let row = format!("| {client} | {} | {} |", codecs.join(", "), VERSIONS.join(", "));
        assert!(page.lines().any(|line| line == row), "docs/kafka.md lacks this row:\n{row}");
    }
}
