//! `lea run` with Kafka and TCP. Neither disturbs the other, even if the broker stops.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lea::cc::vault::manifest::StreamSource;
use rustix::process::Signal;

use super::{PATIENCE, capture, listening, produce_as, read};
use crate::support::broker::{VERSIONS, free_port};
use crate::support::process::Process;
use crate::support::{
    Broker, Handshake, Sender, Workdir, assert_same, lea, manifest, wait_closed, wait_until,
};

/// Time limit for a stream over TCP, with or without a broker.
const TCP_TIME: Duration = Duration::from_secs(10);

struct Scene {
    broker: Broker,
    work: Workdir,
    process: Process,
    sent: Vec<u8>,
}

impl Scene {
    fn start(broker: Broker) -> Scene {
        let work = Workdir::new();
        let (host, port) =
            broker.addr().split_once(':').map(|(host, port)| (host.to_owned(), port.to_owned())).unwrap();
        let parameters = serde_json::json!({ "parameters": {
            "loggerLevel": "INFO",
            "tcpServer": { "address": "127.0.0.1", "port": free_port() },
            "kafkaServer": { "address": host, "port": port, "topic": "t" },
        }});
        let config = work.write("lea.conf", parameters.to_string());
        let mut command = Command::new(lea());
        command.arg("run").arg("--config").arg(config).arg("--output").arg(work.join("out"));
        command.args(["--sync-interval", "100ms"]).stdin(Stdio::null()).stdout(Stdio::null());
        let process = Process::start(&mut command);
        Scene { broker, work, process, sent: read("answered-call.pcap") }
    }

    /// Sends a stream over TCP, which goes into `file`, while the rest continues.
    fn send_tcp(&mut self, name: &str, file: &str) {
        let addr = listening(&mut self.process, "tcp");
        let begun = Instant::now();
        let mut sender = Sender::open(addr, name, Handshake::Newline);
        sender.send_chunks(&self.sent, 1000);
        sender.finish();
        wait_closed(&self.work.join("out"), file);
        assert_same(&self.work.join("out").join(file), &self.sent);
        assert!(begun.elapsed() < TCP_TIME, "{name} took {:?}", begun.elapsed());
    }

    /// Sends a stream over Kafka, which goes into `file`.
    fn send_kafka(&mut self, name: &str, file: &str) {
        produce_as(&self.broker, "t", name, &capture("answered-call.pcap"), &[]);
        let path = self.work.join("out").join(file);
        wait_until(PATIENCE, &format!("all of {file}"), || {
            assert!(self.process.is_running(), "{}", self.process.stderr());
            std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() == self.sent.len() as u64)
        });
        assert_same(&path, &self.sent);
    }
}

#[test]
fn a_broker_comes_and_goes_and_each_name_has_one_source() {
    let broker = Broker::start(VERSIONS[1]);
    broker.topic("t", 1);
    broker.kill9();
    let mut scene = Scene::start(broker);
    // No broker answers at the start: lea logs it, and TCP works.
    scene.process.wait_line(PATIENCE, "a warning with a hint", |line| {
        let hint = "hint=\"check that the broker runs, that the address is right, ";
        (line.contains("WARN") && line.contains("kafka_error") && line.contains(hint)).then_some(())
    });
    scene.send_tcp("tcp-first.pcap", "tcp-first.pcap");
    // The broker starts: its records are stored, and a name that TCP used gets a second part.
    scene.broker.restart();
    scene.send_kafka("tcp-first.pcap", "tcp-first.pcap.2");
    scene.send_kafka("kafka-first.pcap", "kafka-first.pcap");
    scene.send_tcp("kafka-first.pcap", "kafka-first.pcap.2");
    // The broker stops and restarts.
    scene.broker.kill9();
    scene.send_tcp("alone.pcap", "alone.pcap");
    scene.broker.restart();
    scene.send_kafka("back.pcap", "back.pcap");
    // The broker stops for good.
    scene.broker.kill9();
    let begun = Instant::now();
    scene.process.signal(Signal::TERM);
    scene.process.wait_code(PATIENCE, 0);
    assert!(begun.elapsed() < Duration::from_secs(20), "the end took {:?}", begun.elapsed());
    let output = scene.work.join("out");
    let sources = [
        ("tcp-first.pcap", StreamSource::Tcp),
        ("tcp-first.pcap.2", StreamSource::Kafka),
        ("kafka-first.pcap", StreamSource::Kafka),
        ("kafka-first.pcap.2", StreamSource::Tcp),
        ("alone.pcap", StreamSource::Tcp),
        ("back.pcap", StreamSource::Kafka),
    ];
    for (file, source) in sources {
        let manifest = manifest(&output, file).unwrap();
        assert_eq!((manifest.source, manifest.bytes), (source, scene.sent.len() as u64), "{file}");
        assert_eq!(manifest.segments.is_empty(), source == StreamSource::Tcp, "{file}");
    }
    let verified = Command::new(lea()).arg("verify").arg(&output).output().unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}
