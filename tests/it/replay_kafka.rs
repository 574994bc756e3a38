//! `lea replay --kafka` and `--logstash`: the records and lines that real brokers and a receiver get,
//! compared with those of real senders.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::broker::{Record, VERSIONS};
use crate::support::process::Process;
use crate::support::{Broker, DEADLINE, kafka_python_sender, lea, testdata, wait_until};

const NAME: &str = "+447700900123-2-3_21_11_2026_20:59:41.pcap";
/// The answered call in chunks of 100 bytes.
const CHUNKS: usize = 1180;

fn capture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/pcap").join(name);
    path.to_str().unwrap().to_owned()
}

fn command(to: &[&str], args: &[&str]) -> Command {
    let mut command = Command::new(lea());
    command.arg("replay").args(to).args(args).stdin(Stdio::null());
    command
}

fn replay(to: &[&str], args: &[&str]) -> Output {
    command(to, args).output().unwrap()
}

#[track_caller]
fn check_code(output: &Output, code: i32) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

fn joined(records: &[Record]) -> Vec<u8> {
    records.iter().flat_map(|record| record.data().unwrap()).collect()
}

#[track_caller]
fn check_version(version: &'static str) {
    let broker = Broker::start(version);
    each_codec_arrives(&broker);
    keys_keep_a_stream_together(&broker);
    faults_of_records(&broker);
    kafka_python_writes_the_same(&broker, version);
    a_broker_that_dies_loses_nothing(&broker);
    what_was_not_acknowledged_is_said(&broker);
    a_broker_that_starts_late_is_waited_for(&broker);
}

/// The broker is down before this.
fn a_broker_that_starts_late_is_waited_for(broker: &Broker) {
    let to = ["--kafka", &broker.addr(), "--topic", "outage"];
    let args = ["--connect-timeout", "5m", "--topspeed", &capture("rejected-call.pcap")];
    let mut sender = Process::start(&mut command(&to, &args));
    sender.wait_line(DEADLINE, "a report of waiting", |line| {
        line.contains(&format!("connect_retrying to={}", broker.addr())).then_some(())
    });
    broker.restart();
    sender.wait_code(DEADLINE, 0);
}

#[test]
fn to_3_9() {
    check_version(VERSIONS[0]);
}

#[test]
fn to_4() {
    check_version(VERSIONS[1]);
}

/// Kafka's own console consumer prints the same as for real senders.
fn each_codec_arrives(broker: &Broker) {
    let recorded = testdata("kafka/values.jsonl");
    broker.topic("interception", 1);
    let call = capture("answered-call.pcap");
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    for codec in codecs {
        let args = ["--compression", codec, "--name", NAME, "--topspeed", &call];
        check_code(&replay(&["--kafka", &broker.addr()], &args), 0);
    }
    let values = broker.console_values("interception", codecs.len() * CHUNKS);
    for (nth, codec) in codecs.iter().enumerate() {
        let part = values.get(nth * recorded.len()..(nth + 1) * recorded.len());
        assert!(part == Some(&recorded), "{codec}: other values than a real sender's");
    }
    assert_eq!(values.len(), codecs.len() * recorded.len());
    let dump = broker.dump_log("interception", 0);
    for codec in codecs {
        assert!(dump.contains(&format!("compresscodec: {codec}")), "no batch is {codec}");
    }
}

fn keys_keep_a_stream_together(broker: &Broker) {
    let call = capture("rejected-call.pcap");
    let sent = testdata("pcap/rejected-call.pcap");
    for key in ["stream", "none"] {
        broker.topic(key, 3);
        let args = ["--topic", key, "--key", key, "--streams", "8", "--topspeed", &call];
        check_code(&replay(&["--kafka", &broker.addr()], &args), 0);
        let records = broker.records(key, 3);
        assert_eq!(records.len(), 8 * sent.len().div_ceil(100));
        if key == "none" {
            assert!(records.iter().all(|record| record.key.is_none()));
            continue;
        }
        for copy in 1..=8 {
            let name = if copy == 1 {
                "rejected-call.pcap".to_owned()
            } else {
                format!("rejected-call-{copy}.pcap")
            };
            let of_stream = records.iter().filter(|record| record.stream() == name);
            let bytes: Vec<u8> = of_stream.clone().flat_map(|record| record.data().unwrap()).collect();
            assert!(bytes == sent, "{name} is not in order");
            let first = of_stream.clone().next().unwrap().partition;
            assert!(of_stream.clone().all(|record| record.partition == first));
            assert!(of_stream.clone().all(|record| record.key.as_deref() == Some(name.as_bytes())));
        }
    }
}

fn faults_of_records(broker: &Broker) {
    let (call, sent) = (capture("answered-call.pcap"), testdata("pcap/answered-call.pcap"));
    for fault in ["duplicate", "reorder", "bad-base64", "missing-field"] {
        broker.topic(fault, 1);
        let args = ["--topic", fault, "--fault", fault, "--seed", "7", "--name", NAME, "--topspeed", &call];
        check_code(&replay(&["--kafka", &broker.addr()], &args), 0);
        let mut records = broker.records(fault, 1);
        let extra = records.len() - CHUNKS;
        match fault {
            "duplicate" => {
                assert!((1..=8).contains(&extra), "{extra}");
                records.dedup_by(|one, other| one.value == other.value);
                // Chunks of a constant tone can be equal.
                assert!(records.len() <= CHUNKS);
            }
            "reorder" => {
                assert_eq!(extra, 0);
                assert!(joined(&records) != sent);
                let sorted = |mut chunks: Vec<Vec<u8>>| {
                    chunks.sort();
                    chunks
                };
                let chunks = sorted(records.iter().map(|record| record.data().unwrap()).collect());
                assert!(chunks == sorted(sent.chunks(100).map(<[u8]>::to_vec).collect()));
            }
            _ => {
                assert!((1..=8).contains(&extra), "{extra}");
                records.retain(|record| record.data().is_some() && !record.stream().is_empty());
                assert!(
                    records.len() == CHUNKS && joined(&records) == sent,
                    "{fault}: the good ones are whole"
                );
            }
        }
    }
}

fn kafka_python_writes_the_same(broker: &Broker, version: &str) {
    broker.topic("python", 1);
    let args = [&broker.addr(), "python", NAME, &capture("answered-call.pcap"), "100", "userid", "none"];
    check_code(&kafka_python_sender(&args).output().unwrap(), 0);
    let values: Vec<u8> = broker
        .records("python", 1)
        .into_iter()
        .flat_map(|record| [record.value, b"\n".to_vec()].concat())
        .collect();
    assert!(values == testdata("kafka/values.jsonl"), "{version}: kafka-python writes something else");
}

fn a_broker_that_dies_loses_nothing(broker: &Broker) {
    broker.topic("outage", 1);
    let call = capture("answered-call.pcap");
    let to = ["--kafka", &broker.addr(), "--topic", "outage"];
    let mut sender = Process::start(&mut command(&to, &["--name", NAME, "--multiplier", "2", &call]));
    wait_until(DEADLINE, "the first records", || segment_bytes(broker, "outage") > 10_000);
    broker.kill9();
    broker.restart();
    sender.wait_code(DEADLINE, 0);
    assert!(
        joined(&broker.records("outage", 1)) == testdata("pcap/answered-call.pcap"),
        "not each chunk once"
    );
}

fn segment_bytes(broker: &Broker, topic: &str) -> u64 {
    std::fs::metadata(broker.segment(topic, 0)).map_or(0, |meta| meta.len())
}

fn what_was_not_acknowledged_is_said(broker: &Broker) {
    let call = capture("answered-call.pcap");
    let addr = broker.addr();
    let missing = replay(&["--kafka", &addr, "--topic", "no-such-topic"], &["--topspeed", &call]);
    let text = check_code(&missing, 1);
    assert!(text.contains("lea: cannot send to topic no-such-topic"), "{text}");

    let to = ["--kafka", &addr, "--topic", "outage", "-X", "message.timeout.ms=1000"];
    let mut sender = Process::start(&mut command(&to, &["--name", NAME, "--multiplier", "2", &call]));
    let before = segment_bytes(broker, "outage");
    wait_until(DEADLINE, "the first records", || segment_bytes(broker, "outage") > before + 10_000);
    broker.kill9();
    sender.wait_code(DEADLINE, 3);
    let text = sender.stderr();
    assert!(text.contains("records to topic outage") && text.contains("failed=1"), "{text}");

    // The broker is gone.
    let args = ["--connect-timeout", "300ms", "--topspeed", &call];
    let text = check_code(&replay(&["--kafka", &addr], &args), 1);
    assert!(text.contains(&format!("lea: cannot connect to {addr}")), "{text}");
}

#[test]
fn lines_are_what_a_real_sender_sends() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let receiver = thread::spawn(move || {
        let (peer, _) = listener.accept().unwrap();
        let lines: Vec<String> = BufReader::new(peer).lines().map(Result::unwrap).collect();
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "all streams go over one connection");
        lines
    });
    let calls = [capture("answered-call.pcap"), capture("rejected-call.pcap")];
    check_code(&replay(&["--logstash", &addr], &["--streams", "4", "--topspeed", &calls[0], &calls[1]]), 0);
    let lines = receiver.join().unwrap();
    let recorded = testdata("wire/logstash-call-data.jsonl");
    let recorded = String::from_utf8(recorded).unwrap();
    let keys = |line: &str| {
        let json: serde_json::Map<String, Value> = serde_json::from_str(line).unwrap();
        json.keys().cloned().collect::<Vec<_>>()
    };
    let expected = keys(recorded.lines().next().unwrap());
    assert!(lines.iter().all(|line| keys(line) == expected), "other fields than a real sender's");
    for (base, name) in [("answered-call", "answered-call.pcap"), ("rejected-call", "rejected-call.pcap")] {
        for copy in 1..=4 {
            let stream = if copy == 1 { format!("{base}.pcap") } else { format!("{base}-{copy}.pcap") };
            let jsons = lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
            let bytes: Vec<u8> = jsons
                .filter(|json| json["interceptionfilename"] == *stream)
                .inspect(|json| assert_eq!(json["message"], json["data"]))
                .flat_map(|json| STANDARD.decode(json["data"].as_str().unwrap()).unwrap())
                .collect();
            assert!(bytes == testdata(&format!("pcap/{name}")), "{stream} is not what was sent");
        }
    }
}

#[test]
fn a_signal_ends_it_where_nobody_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let args = ["--connect-timeout", "600000ms", &capture("answered-call.pcap")];
    let mut sender = Process::start(&mut command(&["--kafka", &addr], &args));
    let _peer = listener.accept().unwrap();
    sender.signal(Signal::INT);
    sender.wait_code(DEADLINE, 3);
    assert!(sender.stderr().contains("stopped=1"), "{}", sender.stderr());
}

#[track_caller]
fn check_usage(args: &[&str], expected: &str) {
    let text = check_code(&replay(&[], &[args, &[&capture("rejected-call.pcap")]].concat()), 2);
    assert!(text.contains(expected), "{text}");
}

#[test]
fn wrong_usage() {
    check_usage(&[], "<--tcp <ADDR:PORT>|--kafka <ADDR:PORT>|--logstash <ADDR:PORT>>");
    check_usage(&["--tcp", "127.0.0.1:1", "--kafka", "127.0.0.1:1"], "cannot be used with");
    check_usage(&["--tcp", "127.0.0.1:1", "--topic", "a"], "cannot be used with");
    check_usage(&["--kafka", "127.0.0.1:1", "--handshake", "gap"], "cannot be used with");
    check_usage(&["--kafka", "127.0.0.1:1", "--topic", "a b"], "a topic name has");
    check_usage(&["--kafka", "127.0.0.1:1", "-X", "acks"], "KEY=VALUE");
    check_usage(&["--kafka", "127.0.0.1:1", "-X", "no.such=1"], "-X no.such: No such configuration property");
    check_usage(&["--tcp", "127.0.0.1:1", "--fault", "duplicate"], "they need --kafka");
    check_usage(&["--logstash", "127.0.0.1:1", "--fault", "bad-base64"], "they need --kafka");
}
