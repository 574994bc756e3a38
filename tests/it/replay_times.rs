//! `lea replay` of captures whose times cannot be followed: clock jumps, appended captures, packets without a time.
//! The receiver is a real server, and it has to store each file exactly.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::process::Process;
use crate::support::stored::assert_whole;
use crate::support::{DEADLINE, Server, Workdir, lea, testdata, tshark_fields, wait_closed};

/// 2026-11-18 11:06:40 UTC.
const TODAY: u32 = 1_795_000_000;

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A pcap capture with packets of these times and sizes.
fn pcap(link_type: u32, packets: &[(u32, usize)]) -> Vec<u8> {
    let mut bytes = words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 128 << 20, link_type]);
    for (seconds, size) in packets {
        bytes.extend(words(&[*seconds, 0, *size as u32, *size as u32]));
        bytes.extend(vec![0; *size]);
    }
    bytes
}

/// What `lea replay` said about a run.
struct Run {
    json: Value,
    stderr: String,
    seconds: f64,
}

impl Run {
    fn gaps_shortened(&self) -> u64 {
        self.json["gaps_shortened"].as_u64().unwrap()
    }
}

/// Sends `content` as `call.pcap` to a server with these options, and checks what was stored.
#[track_caller]
fn replay(content: &[u8], options: &[&str]) -> Run {
    let work = Workdir::new();
    let server = Server::start(&work.join("out"), &[]);
    let file = work.write("call.pcap", content);
    let mut command = Command::new(lea());
    command.args(["replay", "--handshake", "newline", "--json", "--chunk", "65536", "--tcp"]);
    command.arg(server.addr().to_string()).args(options).arg(&file).stdin(Stdio::null());
    let started = Instant::now();
    let output = command.output().unwrap();
    let seconds = started.elapsed().as_secs_f64();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    wait_closed(server.output(), "call.pcap");
    assert_whole(server.output(), "call.pcap", content);
    server.term();
    Run { json: serde_json::from_slice(&output.stdout).unwrap(), stderr, seconds }
}

/// The end of a run that would wait for years.
const SOON: f64 = 30.0;

#[test]
fn a_jump_from_1970_to_today_is_not_waited_for() {
    let run = replay(&pcap(1, &[(0, 60), (TODAY, 60), (TODAY, 60)]), &[]);
    assert!(run.seconds < SOON, "{} s", run.seconds);
    assert_eq!(run.gaps_shortened(), 1);
    let line = "gap_shortened file=\"";
    let gap = "packet_at=2026-11-18T11:06:40.000000000Z gap_s=1795000000.000 wait_s=0.000";
    assert!(run.stderr.contains(line) && run.stderr.contains(gap), "{}", run.stderr);
    assert!(run.stderr.contains("gaps_shortened=1"), "{}", run.stderr);
}

#[test]
fn a_clock_that_is_set_back_does_not_end_the_pace() {
    // A second of pace before the jump, and one after it.
    let times = [(TODAY, 60), (TODAY + 1, 60), (5, 60), (6, 60)];
    let run = replay(&pcap(1, &times), &[]);
    assert!((2.0..SOON).contains(&run.seconds), "{} s", run.seconds);
    assert_eq!(run.gaps_shortened(), 1);
    assert!(run.stderr.contains("gap_s=-1794999996.000"), "{}", run.stderr);
}

#[test]
fn appended_captures_are_paced_to_their_end() {
    let run = replay(&testdata("captures/two-pcaps.pcap"), &[]);
    assert!(run.seconds < SOON, "{} s", run.seconds);
    // The file header of the second capture is not a packet, and there is no wait of decades.
    assert!(run.stderr.contains("whole=1 ") && !run.stderr.contains("packets_ended"), "{}", run.stderr);
}

#[test]
fn max_gap_limits_each_wait() {
    let times: Vec<(u32, usize)> = (0..4).map(|n| (TODAY + n * 3_600, 60)).collect();
    let run = replay(&pcap(1, &times), &["--max-gap", "200ms"]);
    assert!((0.6..SOON).contains(&run.seconds), "{} s", run.seconds);
    assert_eq!(run.gaps_shortened(), 3);
    assert!(run.stderr.contains("gap_s=3600.000 wait_s=0.200"), "{}", run.stderr);
    let run = replay(&pcap(1, &[(TODAY, 60), (TODAY + 1, 60)]), &["--max-gap", "2s"]);
    assert_eq!(run.gaps_shortened(), 0, "{}", run.stderr);
}

#[test]
fn a_long_wait_is_reported() {
    let work = Workdir::new();
    let server = Server::start(&work.join("out"), &[]);
    let file = work.write("call.pcap", pcap(1, &[(TODAY, 60), (TODAY + 3_600, 60)]));
    let mut command = Command::new(lea());
    command.args(["replay", "--handshake", "newline", "--tcp", &server.addr().to_string()]).arg(&file);
    let mut sender = Process::start(command.stdin(Stdio::null()));
    sender.wait_line(DEADLINE, "a report of the wait", |line| {
        line.contains("packet_waiting name=call.pcap wait_s=3600 note=").then_some(())
    });
    sender.signal(rustix::process::Signal::INT);
    sender.wait_code(DEADLINE, 3);
    server.term();
}

#[test]
fn bytes_that_are_no_packet_are_sent_and_reported() {
    let whole = pcap(1, &[(TODAY, 60), (TODAY, 100)]);
    let run = replay(&whole[..whole.len() - 1], &[]);
    let expected = format!("at=100 bytes_left={} note=", whole.len() - 101);
    assert!(run.stderr.contains(&expected), "{}", run.stderr);
    assert!(!replay(&whole, &[]).stderr.contains("packets_ended"));
}

/// A capture of USB traffic has packets that are longer than any on a network.
#[test]
fn a_usb_packet_of_300_kb_keeps_the_times() {
    let capture = pcap(249, &[(TODAY, 100), (TODAY + 1, 300_000), (TODAY + 2, 100)]);
    let work = Workdir::new();
    let file = work.write("usb.pcap", &capture);
    let times = tshark_fields(&file, "", "frame.time_epoch");
    assert_eq!(times.len(), 3);
    let server = Server::start(&work.join("out"), &[]);
    let (_, manifest) = (replay_to(&server, &file), wait_closed(server.output(), "usb.pcap"));
    assert_whole(server.output(), "usb.pcap", &capture);
    assert_eq!(manifest.capture.packets, 3);
    assert_eq!(manifest.capture.malformed_at, None);
    server.term();
    let run = replay(&capture, &[]);
    assert!((2.0..SOON).contains(&run.seconds), "{} s, and the capture has 2 s", run.seconds);
}

fn replay_to(server: &Server, file: &Path) {
    let mut command = Command::new(lea());
    command.args(["replay", "--topspeed", "--tcp", &server.addr().to_string()]).arg(file);
    Process::start(command.stdin(Stdio::null())).wait_code(Duration::from_secs(60), 0);
}

/// A server, and what `lea replay` exits with.
fn replay_files(server: &Server, options: &[&str], files: &[&Path]) -> (Option<i32>, String) {
    let mut command = Command::new(lea());
    command.args(["replay", "--topspeed", "--handshake", "newline", "--tcp", &server.addr().to_string()]);
    let output = command.args(options).args(files).env("TZ", "UTC").stdin(Stdio::null()).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// The packets of a time range are those that editcap keeps.
#[test]
fn from_and_to_select_the_packets_that_editcap_selects() {
    let work = Workdir::new();
    let server = Server::start(&work.join("out"), &[]);
    for (name, from, to) in [
        ("answered-call.pcap", "2026-11-21T20:59:33Z", "2026-11-21T20:59:35.5Z"),
        ("three-calls.pcapng", "2026-11-21T20:59:43Z", "2026-11-21T20:59:45Z"),
    ] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/pcap").join(name);
        let times = tshark_fields(&file, "", "frame.time_epoch");
        let bound =
            |text: &str| chrono::DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis() as f64 / 1e3;
        let expected: Vec<&String> = times
            .iter()
            .filter(|time| (bound(from)..bound(to)).contains(&time.parse::<f64>().unwrap()))
            .collect();
        assert!(!expected.is_empty() && expected.len() < times.len(), "{name}: {times:?}");
        let (code, stderr) = replay_files(&server, &["--from", from, "--to", to], &[&file]);
        assert_eq!(code, Some(0), "{stderr}");
        assert!(stderr.contains(&format!("packets={} of={}", expected.len(), times.len())), "{stderr}");
        wait_closed(server.output(), name);
        let stored = tshark_fields(&server.output().join(name), "", "frame.time_epoch");
        assert_eq!(stored.iter().collect::<Vec<_>>(), expected, "{name}");
    }
    server.term();
}

#[test]
fn a_time_range_without_packets_sends_nothing() {
    let work = Workdir::new();
    let server = Server::start(&work.join("out"), &[]);
    let file = work.write("call.pcap", pcap(1, &[(TODAY, 60), (TODAY + 5, 60)]));
    let text = work.write("text", "this is no capture");
    for (options, file, expected) in [
        (["--from", "6s"], &file, "has no packet in that time: its packets are from 2026-11-18T11:06:40"),
        (["--to", "2026-11-18"], &file, "has no packet in that time"),
        (["--from", "1s"], &text, "--from and --to need a capture"),
        (["--from", "soon"], &file, "--from"),
    ] {
        let (code, stderr) = replay_files(&server, &options, &[file]);
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains(expected), "{stderr}");
    }
    assert_eq!(crate::support::stored::names_in(server.output()).len(), 1, "only .lea");
    server.term();
}

/// The files that editcap splits a capture into are the capture again.
#[test]
fn a_rotated_capture_is_one_stream_again() {
    let work = Workdir::new();
    let server = Server::start(&work.join("out"), &[]);
    let whole = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/pcap/answered-call.pcap");
    let mut editcap = Command::new("editcap");
    editcap.args(["-F", "pcap", "-c", "200"]).arg(&whole).arg(work.join("ring.pcap"));
    assert!(editcap.status().unwrap().success());
    let mut ring: Vec<_> =
        std::fs::read_dir(work.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    ring.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with("ring_"));
    ring.sort();
    assert_eq!(ring.len(), 3);
    let ring: Vec<&Path> = ring.iter().map(|path| path.as_path()).collect();
    let (code, stderr) = replay_files(&server, &["--chain", "--name", "chain.pcap"], &ring);
    assert_eq!(code, Some(0), "{stderr}");
    wait_closed(server.output(), "chain.pcap");
    // editcap writes the same packets, and its own header for all files.
    let mut expected = std::fs::read(ring[0]).unwrap();
    for file in &ring[1..] {
        expected.extend(&std::fs::read(file).unwrap()[24..]);
    }
    assert_whole(server.output(), "chain.pcap", &expected);
    let times = tshark_fields(&whole, "", "frame.time_epoch");
    assert_eq!(tshark_fields(&server.output().join("chain.pcap"), "", "frame.time_epoch"), times);
    // A stream and a part that continues it.
    let bytes = std::fs::read(&whole).unwrap();
    let (head, rest) = (work.write("head.pcap", &bytes[..300]), work.write("head.pcap.2", &bytes[300..]));
    let (code, stderr) = replay_files(&server, &["--chain"], &[&head, &rest]);
    assert_eq!(code, Some(0), "{stderr}");
    wait_closed(server.output(), "head.pcap");
    assert_whole(server.output(), "head.pcap", &bytes);
    let (code, stderr) = replay_files(&server, &["--chain"], &[&whole, &work.write("usb", pcap(249, &[]))]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("their file headers differ"), "{stderr}");
    server.term();
}
