//! Error messages, as in tests/it/snapshots/errors.txt: what failed, on which thing, why, and what to do.
//! `LEA_UPDATE=1 cargo test` rewrites the file; read the difference before you commit it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

const LEA: &str = env!("CARGO_BIN_EXE_lea");
const SNAPSHOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/snapshots/errors.txt");

/// Command lines that fail, in a directory with the files of [`prepare`].
const COMMANDS: &[&str] = &[
    "serve-tcp --listen 127.0.0.1:99999",
    "serve-tcp --listen localhost:5004",
    "serve-tcp --listen 192.0.2.1:5004 --output out",
    "serve-tcp --config off.conf",
    "serve-tcp --allow 192.0.2.0/99",
    "serve-tcp --name-timeout 2m",
    "serve-tcp --name-timeout 5x",
    "serve-tcp --handshake-timeout 0",
    "serve-tcp --partial-packet-memory 5Q",
    "serve-tcp --file-mode 0777",
    "serve-tcp --file-mode 9",
    "serve-tcp --file-mode 0040",
    "serve-tcp --file-group no-such-group",
    "serve-tcp --streams-max 0",
    "serve-tcp --config missing.conf",
    "serve-tcp --output file/out --listen 127.0.0.1:0",
    "serve-tcp --output /proc/nope --listen 127.0.0.1:0",
    "serve-tcp --admin-listen 99999",
    "run --config off.conf",
    "serve-events --config off.conf",
    "serve-events --lines 70000",
    "serve-events --syslog 514",
    "serve-events --http 0.0.0.0:9200 --config off.conf",
    "serve-events --amqp amqp://a",
    "serve-events --lines 0 --cluster ftp://a",
    "serve-events --lines 0 --cluster http://a/index",
    "serve-events --lines 0 --cluster-ca x.pem",
    "serve-events --lines 0 --keep-days 0",
    "serve-events --lines 0 --default-region XX",
    "consume-kafka --config off.conf",
    "consume-kafka --brokers 127.0.0.1:1 --topic a/b",
    "consume-kafka --brokers 127.0.0.1:1 --sasl-user lea",
    "consume-kafka --brokers 127.0.0.1:1 --tls-ca missing.pem",
    "consume-kafka --brokers 127.0.0.1:1 -X nonsense",
    "configure -u 65536 --config new.conf",
    "configure -d LOUD --config new.conf",
    "configure -t 300.1.1.1 --config new.conf",
    "configure -t 10.0.0.1:5004 --config new.conf",
    "configure -w a/b --config new.conf",
    "configure --template missing.conf --config new.conf",
    "configure --check missing.conf",
    "configure --json",
    "ls missing",
    "ls file",
    "ls --since never .",
    "verify missing",
    "verify file --against .",
    "replay call.pcap",
    "replay missing.pcap --tcp 127.0.0.1:1",
    "replay call.pcap --tcp 127.0.0.1:1 --connect-timeout 2h",
    "replay call.pcap --tcp 127.0.0.1",
    "replay call.pcap --tcp 127.0.0.1:1 --fault nonsense",
    "replay call.pcap --tcp 127.0.0.1:1 --fault duplicate",
    "replay call.pcap --tcp 127.0.0.1:1 --mbps 0",
    "replay call.pcap --tcp 127.0.0.1:1 --tls",
    "replay call.pcap --tcp 127.0.0.1:1 --streams 100001",
    "decode missing.jsonl",
    "decode call.pcap",
    "decode - -",
    "merge missing --output merged",
    "merge . --output file",
    "search a:( --store .",
    "search --store missing",
    "search --since never --store .",
    "search --store ftp://a",
    "count --store missing",
    "top --store .",
    "calls report --ringing-time 2d --store missing",
    "billing build missing.jsonl",
    "billing build --sort-memory 1K file",
    "billing compare missing.jsonl file",
    "events load missing.jsonl --store out2",
    "events test-pattern --pattern %{NOPE:x} file",
    "events test-pattern missing.log",
    "number --default-region XX 1",
    "completions tcsh",
    "nonsense",
];

fn prepare(dir: &Path) {
    let call = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/pcap/rejected-call.pcap");
    fs::copy(call, dir.join("call.pcap")).unwrap();
    fs::write(dir.join("file"), "a file\n").unwrap();
    let off = r#"{"parameters": {"tcpServer": {"address": "", "port": 0}}}"#;
    fs::write(dir.join("off.conf"), off).unwrap();
}

/// Runs a command line; returns its exit code and what it printed.
fn run(line: &str, dir: &Path) -> String {
    let output = Command::new(LEA)
        .args(line.split(' '))
        .current_dir(dir)
        .env_clear()
        .env("TZ", "UTC")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let code = output.status.code().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    let logged = |text: &&str| !text.contains(" [WARN] ") && !text.contains(" [INFO] ");
    // Only the first line of a usage error: the rest repeats the usage, which the help has.
    let mut text = String::new();
    for line in errors.lines().filter(logged).take(if errors.starts_with("error:") { 1 } else { 8 }) {
        let _ = writeln!(text, "{line}");
    }
    format!("$ lea {line}\n{text}exit {code}\n\n")
}

#[test]
fn error_messages_equal_their_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let texts: String = COMMANDS.iter().map(|line| run(line, dir.path())).collect();
    let texts = texts.replace(dir.path().to_str().unwrap(), "DIR");
    for text in texts.split("\n\n").filter(|text| !text.is_empty()) {
        assert!(text.lines().count() > 2, "no message: {text}");
        assert!(!text.ends_with("exit 0") && !text.ends_with("exit 101"), "{text}");
    }
    if std::env::var_os("LEA_UPDATE").is_some() {
        fs::write(SNAPSHOT, &texts).unwrap();
    }
    let kept = fs::read_to_string(SNAPSHOT).unwrap_or_default();
    for (kept, text) in kept.split("\n\n").zip(texts.split("\n\n")) {
        assert_eq!(kept, text, "LEA_UPDATE=1 rewrites the snapshot");
    }
    assert_eq!(kept, texts, "LEA_UPDATE=1 rewrites the snapshot");
}

/// The test itself has the ports.
#[test]
fn a_port_in_use_names_its_process() {
    let dir = tempfile::tempdir().unwrap();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let (tcp_port, udp_port) = (tcp.local_addr().unwrap().port(), udp.local_addr().unwrap().port());
    let program = fs::read_to_string("/proc/self/comm").unwrap();
    let holder = format!("{} (process {}) uses this port", program.trim_end(), std::process::id());
    for line in [
        format!("serve-tcp --listen 127.0.0.1:{tcp_port} --output out"),
        format!("serve-tcp --listen 127.0.0.1:0 --admin-listen 127.0.0.1:{tcp_port} --output out"),
        format!("serve-events --http {tcp_port} --output out"),
        format!("serve-events --lines {tcp_port} --output out"),
        format!("serve-events --syslog tcp:127.0.0.1:{tcp_port} --output out"),
        format!("serve-events --syslog udp:127.0.0.1:{udp_port} --output out"),
    ] {
        let text = run(&line, dir.path());
        assert!(text.contains(&holder) && text.ends_with("exit 1\n\n"), "{text}");
    }
}

#[test]
fn a_refused_input_creates_nothing() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    fs::write(dir.path().join("empty"), "").unwrap();
    fs::create_dir(dir.path().join("directory")).unwrap();
    for line in [
        "decode -o out call.pcap",
        "decode -o out missing.jsonl",
        "decode -o out directory",
        "replay call.pcap --tcp 127.0.0.1:1 --connect-timeout 1s",
        "merge missing --output out",
        "verify out",
        "ls out",
        "count --store out",
        "events load missing.jsonl --store out",
    ] {
        let text = run(line, dir.path());
        assert!(!text.ends_with("exit 0\n\n"), "{text}");
        assert!(!dir.path().join("out").exists(), "{text}");
    }
}
