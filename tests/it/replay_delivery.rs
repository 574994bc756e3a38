//! What `lea replay` says about the bytes that it has sent: the receiver has them, or nobody can know. And the streams
//! that no receiver could store under their name, which it refuses to send.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use lea::cc::vault::manifest::EndReason;
use serde_json::Value;

use crate::support::stored::assert_whole;
use crate::support::{Server, Workdir, lea, testdata, wait_closed};

fn replay(options: &[&str]) -> (i32, Option<Value>, String) {
    let mut command = Command::new(lea());
    command.args(["replay", "--json", "--topspeed"]).args(options).stdin(Stdio::null());
    // No variable of the caller's environment is a setting of the test.
    command.env_remove("KAFKATOPIC");
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), serde_json::from_slice(&output.stdout).ok(), stderr)
}

fn answered_call() -> String {
    concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/pcap/answered-call.pcap").to_owned()
}

/// Bytes sent, and those of which the receipt is unknown.
fn bytes(summary: Option<Value>) -> (u64, u64) {
    let summary = summary.expect("a summary");
    let number = |key: &str| summary[key].as_u64().unwrap_or_else(|| panic!("{key} in {summary}"));
    (number("bytes"), number("unconfirmed_bytes"))
}

/// Accepts one connection and reads it to its end. Then `end` decides how it is closed.
fn receiver(end: fn(TcpStream)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut peer, _) = listener.accept().unwrap();
        peer.read_to_end(&mut Vec::new()).unwrap();
        end(peer);
    });
    addr
}

#[test]
fn a_receiver_that_closes_after_the_last_byte_has_everything() {
    let work = Workdir::new();
    let server = Server::start(&work.join("out"), &[]);
    let addr = server.addr().to_string();
    let (code, summary, stderr) = replay(&["--handshake", "newline", "--tcp", &addr, &answered_call()]);
    assert_eq!((code, bytes(summary)), (0, (117_919, 0)), "{stderr}");
    assert!(stderr.contains(" unconfirmed_bytes=0 ") && !stderr.contains("note:"), "{stderr}");
    wait_closed(server.output(), "answered-call.pcap");
    assert_whole(server.output(), "answered-call.pcap", &testdata("pcap/answered-call.pcap"));
    server.term();
}

/// The receiver has fewer bytes than were sent, and neither side can know how many are missing.
#[test]
fn what_a_reset_discards_is_unknown_to_both_sides() {
    let work = Workdir::new();
    let server = Server::start(&work.join("out"), &[]);
    let addr = server.addr().to_string();
    let options =
        ["--handshake", "newline", "--fault", "reset", "--seed", "7", "--tcp", &addr, &answered_call()];
    let (code, summary, stderr) = replay(&options);
    let (sent, unconfirmed) = bytes(summary);
    assert_eq!((code, unconfirmed), (0, sent), "{stderr}");
    let note = format!("note: of {sent} bytes it is unknown whether the receiver has them");
    assert!(stderr.contains(&note), "{stderr}");
    let manifest = wait_closed(server.output(), "answered-call.pcap");
    assert_eq!(manifest.end_reason, Some(EndReason::Reset));
    assert!(manifest.bytes <= sent);
    let listed =
        Command::new(lea()).args(["ls", "--damaged", "--json"]).arg(server.output()).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains("the connection was reset, bytes may be missing"), "{listed}");
    server.term();
}

/// The bytes of a cut stream arrive, because its connection ends in order. Those of a re-send count again.
#[test]
fn an_orderly_end_is_confirmed_for_each_connection() {
    for fault in ["cut", "reconnect-resend", "reconnect-continue"] {
        let work = Workdir::new();
        let server = Server::start(&work.join("out"), &[]);
        let addr = server.addr().to_string();
        let options =
            ["--handshake", "newline", "--fault", fault, "--seed", "7", "--tcp", &addr, &answered_call()];
        let (code, summary, stderr) = replay(&options);
        let (sent, unconfirmed) = bytes(summary);
        assert_eq!((code, unconfirmed), (0, 0), "{fault}: {stderr}");
        assert_eq!(sent > 117_919, fault == "reconnect-resend", "{fault}");
        server.term();
    }
}

#[test]
fn a_receiver_that_does_not_close_confirms_nothing() {
    let addr = receiver(|peer| {
        // Keeps the connection open beyond the test.
        std::mem::forget(peer);
    });
    let (code, summary, stderr) =
        replay(&["--handshake", "newline", "--tcp", &addr.to_string(), &answered_call()]);
    assert_eq!((code, bytes(summary)), (0, (117_919, 117_919)), "{stderr}");
    assert!(stderr.contains("not closed by the receiver"), "{stderr}");
}

#[test]
fn a_reset_after_the_last_byte_is_a_failure() {
    let addr = receiver(|peer| {
        socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
    });
    let (code, summary, stderr) =
        replay(&["--handshake", "newline", "--tcp", &addr.to_string(), &answered_call()]);
    assert_eq!((code, bytes(summary)), (3, (117_919, 117_919)), "{stderr}");
    assert!(stderr.contains("stream_failed name=answered-call.pcap"), "{stderr}");
    assert!(stderr.contains("Connection reset"), "{stderr}");
}

#[track_caller]
fn check_refused(options: &[&str], expected: &str) {
    // Nobody listens there, and nothing is sent.
    let (code, summary, stderr) = replay(&[&["--tcp", "127.0.0.1:1"], options].concat());
    assert_eq!((code, summary), (2, None), "{stderr}");
    assert!(stderr.contains(expected), "{stderr}");
}

#[test]
fn a_joined_name_needs_a_capture() {
    let work = Workdir::new();
    for (file, content) in [
        ("text.pcap", &b"this is no capture, and it is long enough"[..]),
        ("short.pcap", &[0xd4, 0xc3, 0xb2]),
        ("almost.pcap", b"\xd4\xc3\xb2\xa0\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x04\x00"),
        (
            "shifted.pcap",
            b"\0\xd4\xc3\xb2\xa1\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x04\x00",
        ),
    ] {
        let path = work.write(file, content);
        let path = path.to_str().unwrap();
        check_refused(&["--handshake", "joined", path], "the receiver could not tell where the name ends");
        check_refused(&["--handshake", "joined", path], "use --handshake newline or gap");
    }
}

#[test]
fn a_name_that_would_arrive_changed_is_refused() {
    let call = answered_call();
    for handshake in ["gap", "newline", "split", "joined"] {
        let named = |name| ["--handshake", handshake, "--name", name, &call].map(str::to_owned);
        let check = |name, expected| {
            let options = named(name);
            check_refused(&options.each_ref().map(String::as_str), expected);
        };
        check("two\nlines.pcap", "the receiver would take the first 3 bytes as the name");
        check(&"x".repeat(4_097), "the name has 4097 bytes, and at most 4096 are possible");
    }
    check_refused(&["--name", "", &call], "the name is empty");
}

/// The receiver gets each form of the name that is not refused.
#[test]
fn a_name_that_is_not_refused_arrives() {
    let work = Workdir::new();
    let server = Server::start(&work.join("out"), &["--name-timeout", "200ms"]);
    let addr = server.addr().to_string();
    let (empty, text) = (work.write("empty", ""), work.write("text", "this is no capture"));
    for (handshake, file) in [("joined", &empty), ("newline", &empty), ("gap", &text), ("newline", &text)] {
        let content = std::fs::read(file).unwrap();
        let name = format!("{handshake}-{}", content.len());
        let file = file.to_str().unwrap();
        let (code, _, stderr) = replay(&["--handshake", handshake, "--name", &name, "--tcp", &addr, file]);
        assert_eq!(code, 0, "{stderr}");
        wait_closed(server.output(), &name);
        assert_whole(server.output(), &name, &content);
    }
    server.term();
}

/// What a Kafka record or a line cannot carry is refused before a connection is made.
#[test]
fn json_needs_names_in_utf8() {
    use std::os::unix::ffi::OsStrExt;
    for receiver in ["--kafka", "--logstash"] {
        let mut command = Command::new(lea());
        command.args(["replay", "--topspeed", receiver, "127.0.0.1:1", "--name"]);
        command.arg(std::ffi::OsStr::from_bytes(b"\xff.pcap")).arg(answered_call());
        let output = command.stdin(Stdio::null()).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains("JSON cannot carry a name that is not UTF-8"), "{stderr}");
    }
}

/// `lea replay --kafka` and `lea consume-kafka` use the same topic: that of the configuration, or the same default.
#[test]
fn replay_and_consume_kafka_have_one_default_topic() {
    let work = Workdir::new();
    let config = |topic: &str| {
        format!("{{\"parameters\": {{\"kafkaServer\": {{\"address\": \"127.0.0.1\", \"port\": 1{topic}}}}}}}")
    };
    for (file, topic, expected) in [
        ("default.conf", "", "interception"),
        ("empty.conf", ", \"topic\": \"\"", "interception"),
        ("own.conf", ", \"topic\": \"calls\"", "calls"),
    ] {
        let path = work.write(file, config(topic));
        let path = path.to_str().unwrap();
        let mut consumer = Command::new(lea());
        consumer.args(["consume-kafka", "--config", path, "--output"]).arg(work.join(file.replace('.', "-")));
        consumer.env_remove("KAFKATOPIC").stdin(Stdio::null()).stdout(Stdio::null());
        let mut consumer = crate::support::process::Process::start(&mut consumer);
        let topics = consumer.wait_line(crate::support::DEADLINE, "the topic", |line| {
            Some(line.split_once("topics=")?.1.split(' ').next()?.to_owned())
        });
        consumer.kill();
        assert_eq!(topics, expected);
        let call = answered_call();
        let options = ["--config", path, "--connect-timeout", "1ms", "--kafka", "127.0.0.1:1", call.as_str()];
        let (_, _, stderr) = replay(&options);
        assert!(stderr.contains(&format!("topic={expected}")), "{file}: {stderr}");
    }
}
