//! `lea serve-events`: lines to the store and to stream files, rejected input, shutdown, configuration.

use std::io::Write;
use std::net::TcpStream;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use super::support::events::{ask, send};
use super::support::{
    DEADLINE, Events, Workdir, assert_same, lea, manifest, python, testdata, wait_closed, wait_for,
};

const NAME: &str = "+447700900123-2-3_21_11_2026_20:59:41.pcap";

/// The stream in the recorded lines: the content that a TCP sender sent of the same call.
fn recorded_stream() -> Vec<u8> {
    let lines = testdata("wire/logstash-call-data.jsonl");
    let chunk = |line: &[u8]| {
        let line: Value = serde_json::from_slice(line).unwrap();
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.decode(line["data"].as_str().unwrap()).unwrap()
    };
    lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).flat_map(chunk).collect()
}

#[test]
fn recorded_call_events_are_stored_and_found() {
    let work = Workdir::new();
    let mut events = Events::start(&work.join("out"), &["--lines", "0"]);
    let recorded = testdata("wire/logstash-call-events.jsonl");
    send(events.addr("lines"), &recorded);
    events.wait_count("/interception/_count", 6);
    let sources = events.sources("interception");
    for (line, source) in recorded.split(|byte| *byte == b'\n').zip(&sources) {
        let sent: Value = serde_json::from_slice(line).unwrap();
        for (name, value) in sent.as_object().unwrap() {
            assert_eq!(&source[name], value, "{name}");
        }
        let filled = match sent["event"].as_str().unwrap() {
            "user_registration" => "ip_address",
            "undefined" => continue,
            _ => "to_user",
        };
        assert_eq!(source[filled], sent["key"]);
    }
    // All dialled forms of the number.
    assert_eq!(
        events.count("/_count?q=to_user:00447700900123"),
        events.count("/_count?q=to_user:447700900123")
    );
    assert_eq!(events.count("/_count?q=ip_address:10.77.0.1"), 1);
    let said = events.term();
    assert!(said.contains("events=6 content_lines=0 dead_letters=0"), "{said}");
}

#[test]
fn recorded_content_goes_into_a_file_on_either_port() {
    for (flag, what) in [("--lines", "lines"), ("--content-lines", "content-lines")] {
        let work = Workdir::new();
        let mut events = Events::start(&work.join("out"), &[flag, "0"]);
        let mut stream = TcpStream::connect(events.addr(what)).unwrap();
        stream.write_all(&testdata("wire/logstash-call-data.jsonl")).unwrap();
        // Received content can be read while the connection is open.
        let file = events.output().join(NAME);
        let bytes = recorded_stream();
        wait_for(DEADLINE, "the whole of the stream", || {
            (std::fs::read(&file).ok()?.len() == bytes.len()).then_some(())
        });
        drop(stream);
        let closed = wait_closed(events.output(), NAME);
        assert_eq!((closed.bytes, closed.connections.len()), (bytes.len() as u64, 1));
        assert_same(&file, &bytes);
        assert_eq!(
            events.get("/_cat/indices?format=json"),
            Value::Array(Vec::new()),
            "none of it is an event"
        );
        events.term();
    }
}

#[test]
fn what_cannot_be_used_is_kept_and_the_connection_goes_on() {
    let work = Workdir::new();
    let mut events = Events::start(&work.join("out"), &["--lines", "0", "--admin-listen", "0"]);
    let status = events.addr("admin");
    let mut stream = TcpStream::connect(events.addr("lines")).unwrap();
    let long = |bytes: usize| format!("{{\"event\":\"undefined\",\"x\":\"{}\"}}\n", "x".repeat(bytes - 28));
    let limit = 1 << 20;
    let lines = [
        "{\"event\":\"undefined\",\"n\":1}\n".to_owned(),
        "no json\n".to_owned(),
        "[1]\n".to_owned(),
        "\n".to_owned(),
        long(limit),
        long(limit + 1),
        "{\"data\":\"?\",\"userid\":\"u\"}\n".to_owned(),
        "{\"event\":\"undefined\",\"n\":2}\n".to_owned(),
    ];
    assert_eq!((lines[4].len(), lines[5].len()), (limit + 1, limit + 2), "with the newline");
    for line in &lines {
        stream.write_all(line.as_bytes()).unwrap();
    }
    events.wait_count("/interception/_count?q=event:undefined", 3);
    drop(stream);
    let metric = |name: &str| {
        let (_, text) = ask(status, "/metrics");
        let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap().to_owned();
        line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()
    };
    assert_eq!(metric("lea_events_stored_total"), 3);
    assert_eq!(metric("lea_events_rejected_total{reason=\"malformed\"}"), 3);
    assert_eq!(metric("lea_events_rejected_total{reason=\"too_long\"}"), 1);
    assert_eq!(metric("lea_event_dead_letters_total"), 4);
    assert!(ask(status, "/health").1.contains("\"ok\""));
    let letters = std::fs::read_to_string(events.output().join(".lea/event-dead-letters.jsonl")).unwrap();
    let reasons: Vec<Value> = letters.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected = ["not a JSON object", "not a JSON object", "longer than 1048576 bytes", "not base64"];
    for (letter, expected) in reasons.iter().zip(expected) {
        assert!(letter["reason"].as_str().unwrap().starts_with(expected), "{letter}");
    }
    assert_eq!(reasons.len(), 4);
    assert_eq!(reasons[0]["text"], "no json");
    let said = events.term();
    assert!(!said.contains("no json"), "content never gets into the log");
}

#[test]
fn sentrypeer_lines_have_the_names_of_proxies() {
    let work = Workdir::new();
    let mut events = Events::start(&work.join("out"), &["--lines", "0"]);
    let line = r#"{"app_name":"sentrypeer","app_version":"v1.4.0","event_timestamp":"2026-11-21 11:19:15.848934346","event_uuid":"4503cc92-26cb-4b3e-bb33-69a83fa09321","created_by_node_id":"4503cc92-26cb-4b3e-bb33-69a83fa09321","collected_method":"responsive","transport_type":"UDP","source_ip":"203.0.113.9","destination_ip":"198.51.100.7","called_number":"9011972598294121","sip_method":"INVITE","sip_user_agent":"friendly-scanner","sip_message":"x"}"#;
    send(events.addr("lines"), format!("{line}\n").as_bytes());
    events.wait_count("/sentrypeer/_count", 1);
    for question in
        ["destNum:%22%2B972598294121%22", "destNum:00972598294121", "ipIntruder:203.0.113.9", "scanner"]
    {
        assert_eq!(events.count(&format!("/_count?q={question}")), 1, "{question}");
    }
    assert_eq!(events.sources("sentrypeer")[0]["sipRequest"], "INVITE");
    events.term();
}

#[test]
fn python_logstash_is_understood() {
    let work = Workdir::new();
    let mut events = Events::start(&work.join("out"), &["--lines", "0"]);
    let script = work.write(
        "send.py",
        "import logging, sys, logstash\n\
         logger = logging.getLogger('interception logger')\n\
         logger.setLevel(logging.INFO)\n\
         logger.addHandler(logstash.TCPLogstashHandler('127.0.0.1', int(sys.argv[1]), version=1))\n\
         for event, key in [('user_registration', '192.0.2.1'), ('start_call', '+447700900456')]:\n\
         \x20   logger.info('', extra={'userid': '+447700900123', 'providerid': '2', 'serviceid': '3',\n\
         \x20                          'event': event, 'key': key})\n\
         logger.info('', extra={'userid': 'u', 'data': 'AAEC', 'interceptionfilename': 'python'})\n",
    );
    let port = events.addr("lines").port().to_string();
    let sent = python("python-logstash").arg(script).arg(port).output().unwrap();
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    events.wait_count("/interception/_count", 2);
    assert_eq!(events.count("/_count?q=ip_address:192.0.2.1"), 1);
    assert_eq!(events.count("/_count?q=to_user:447700900456"), 1);
    wait_closed(events.output(), "python");
    assert_same(&events.output().join("python"), &[0, 1, 2]);
    events.term();
}

#[test]
fn what_has_arrived_before_a_stop_is_stored() {
    let work = Workdir::new();
    let mut events =
        Events::start(&work.join("out"), &["--lines", "0", "--syslog", "tcp:0", "--shutdown-timeout", "60s"]);
    let mut streams: Vec<TcpStream> =
        ["lines", "syslog transport=tcp"].map(|what| TcpStream::connect(events.addr(what)).unwrap()).into();
    for n in 0..2_000 {
        streams[0].write_all(format!("{{\"event\":\"undefined\",\"n\":{n}}}\n").as_bytes()).unwrap();
        streams[1].write_all(format!("<13>Nov 21 20:59:41 h p: {n}\n").as_bytes()).unwrap();
    }
    let said = events.term();
    assert!(said.contains("events=4000 "), "{said}");
    drop(streams);
    let again = Events::start(&work.join("out"), &[]);
    assert_eq!(again.count("/interception/_count"), 2_000);
    assert_eq!(again.count("/syslog/_count"), 2_000);
    again.term();
}

#[test]
fn the_configuration_says_what_is_received() {
    let work = Workdir::new();
    let hash = {
        let mut command = assert_cmd::Command::new(lea());
        let output = command.args(["events", "hash-password"]).write_stdin("secret\n").output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = work.write(
        "lea.conf",
        format!(
            r#"{{"parameters": {{"loggerLevel": "INFO", "tcpServer": {{"address": "", "port": 0}},
                "events": {{"lines": "{free}", "http": "127.0.0.1:0", "users": {{"proxy": "{hash}"}},
                            "indices": {{"calls": "calls"}}}}}}}}"#
        ),
    );
    let mut command = Command::new(lea());
    command.args(["run", "--config"]).arg(config).arg("--output").arg(work.join("out"));
    let mut process = super::support::process::Process::start(&mut command);
    let http = process.wait_line(DEADLINE, "listener=http", |line| {
        line.strip_prefix("listening addr=")?.strip_suffix(" listener=http")?.parse().ok()
    });
    send(free, b"{\"event\":\"undefined\"}\n");
    assert!(ask(http, "/calls/_count").0.starts_with("HTTP/1.1 401 "), "a password is asked for");
    process.signal(Signal::TERM);
    process.wait_code(DEADLINE, 0);
    assert!(process.stderr().contains("events=1 "), "{}", process.stderr());
    assert!(manifest(&work.join("out"), NAME).is_none());
}

#[test]
fn wrong_usage_starts_nothing() {
    let work = Workdir::new();
    let check = |args: &[&str], expected: &str| {
        let mut command = assert_cmd::Command::new(lea());
        let output = command.current_dir(work.path()).arg("serve-events").args(args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(expected), "{args:?}: {said}");
        assert!(!work.join("interceptions").exists());
    };
    check(&[], "nothing to listen on");
    check(&["--http", "0.0.0.0:0"], "needs users");
    check(&["--http", "0,rights=some"], "unknown rights \"some\" (expected all, read, write)");
    check(&["--http", "0,user=nobody"], "parameters.events.users has no user \"nobody\"");
    check(&["--syslog", "514"], "\"514\" is not a syslog listener (expected udp:ADDR:PORT or tcp:ADDR:PORT)");
    check(&["--lines", "localhost:1"], "not an address to listen on");
    check(&["--lines", "0", "--default-region", "XX"], "not a region with a country code");
}
