//! `lea replay` with receivers that record what arrives: bytes, segments, times, and the end of the
//! connection.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::support::process::Process;

const LEA: &str = env!("CARGO_BIN_EXE_lea");

const NAME: &str = "+447700900123-2-3_21_11_2026_20:59:41.pcap";

/// Time limit for each of these tests.
const DEADLINE: Duration = Duration::from_secs(60);

fn testdata(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(path)
}

fn read(path: &str) -> Vec<u8> {
    std::fs::read(testdata(path)).unwrap()
}

/// A connection as it arrived.
struct Stream {
    bytes: Vec<u8>,
    /// Arrival times, with the number of bytes received until then.
    arrivals: Vec<(Duration, usize)>,
    was_reset: bool,
}

impl Stream {
    /// Returns how many bytes had arrived before each pause of at least `gap`.
    fn pauses(&self, gap: Duration) -> Vec<usize> {
        let pairs = self.arrivals.iter().zip(&self.arrivals[1..]);
        pairs.filter(|(before, after)| after.0 - before.0 >= gap).map(|(before, _)| before.1).collect()
    }

    fn seconds(&self) -> f64 {
        let last = self.arrivals.last().unwrap().0;
        // The name and the pause after it do not count.
        let first = self.arrivals.iter().find(|(_, bytes)| *bytes > NAME.len()).unwrap().0;
        (last - first).as_secs_f64()
    }
}

/// Records each connection until its end, in the order in which they end.
struct Recorder {
    addr: SocketAddr,
    streams: Receiver<Stream>,
}

impl Recorder {
    fn start() -> Recorder {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (sender, streams) = channel();
        thread::spawn(move || {
            for peer in listener.incoming() {
                let sender = sender.clone();
                thread::spawn(move || sender.send(record(peer.unwrap())));
            }
        });
        Recorder { addr, streams }
    }

    fn next(&self) -> Stream {
        self.streams.recv_timeout(DEADLINE).expect("a stream that ends")
    }
}

fn record(mut peer: TcpStream) -> Stream {
    let begun = Instant::now();
    let mut stream = Stream { bytes: Vec::new(), arrivals: Vec::new(), was_reset: false };
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match peer.read(&mut buffer) {
            Ok(0) => return stream,
            Ok(bytes) => {
                stream.bytes.extend_from_slice(&buffer[..bytes]);
                stream.arrivals.push((begun.elapsed(), stream.bytes.len()));
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                stream.was_reset = true;
                return stream;
            }
            Err(error) => panic!("cannot receive: {error}"),
        }
    }
}

fn command(addr: SocketAddr, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lea"));
    command.arg("replay").arg("--tcp").arg(addr.to_string()).args(args);
    command
}

fn lea(addr: SocketAddr, args: &[&str]) -> Output {
    command(addr, args).output().unwrap()
}

/// Runs `lea replay --json`. Returns the exit code and the summary.
fn summary(addr: SocketAddr, args: &[&str]) -> (i32, Value) {
    let output = command(addr, args).arg("--json").output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no summary: {text}"));
    (output.status.code().unwrap(), json)
}

fn answered_call() -> String {
    testdata("pcap/answered-call.pcap").display().to_string()
}

/// An address that is reserved, but without a listener (yet).
fn nobody() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, addr)
}

/// End offsets of the packets of the answered call.
fn packet_ends(pcap: &[u8]) -> Vec<usize> {
    let mut ends = vec![24];
    while let Some(length) = pcap.get(ends[ends.len() - 1] + 8..ends[ends.len() - 1] + 12) {
        ends.push(ends[ends.len() - 1] + 16 + u32::from_le_bytes(length.try_into().unwrap()) as usize);
    }
    ends
}

/// The bytes on the wire for a form of handshake, and the offsets of the pauses.
#[track_caller]
fn check_handshake(form: &str, between: &str, pauses: &[usize]) {
    let recorder = Recorder::start();
    let args = ["--name", NAME, "--handshake", form, "--topspeed", &answered_call()];
    let output = lea(recorder.addr, &args);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let stream = recorder.next();
    let expected = [NAME.as_bytes(), between.as_bytes(), &read("pcap/answered-call.pcap")].concat();
    assert!(stream.bytes == expected, "other bytes than {form} sends");
    assert_eq!(stream.pauses(Duration::from_millis(900)), pauses);
    assert!(!stream.was_reset);
}

#[test]
fn gap_is_what_a_real_sender_sends() {
    check_handshake("gap", "", &[NAME.len()]);
    let call = [NAME.as_bytes(), &read("pcap/answered-call.pcap")].concat();
    assert!(read("wire/tcp-stream.bin") == call, "the recording is the name and the call");
}

#[test]
fn newline_ends_the_name_without_a_gap() {
    check_handshake("newline", "\n", &[]);
}

#[test]
fn joined_sends_the_name_with_the_first_data() {
    check_handshake("joined", "", &[]);
    let recorder = Recorder::start();
    // One packet at a time, so that the first send is separate.
    let rejected = testdata("pcap/rejected-call.pcap").display().to_string();
    let args = ["--handshake", "joined", "--chunk", "2000", "--pps", "10", &rejected];
    assert!(lea(recorder.addr, &args).status.success());
    let first_packet_end = packet_ends(&read("pcap/rejected-call.pcap"))[1];
    assert_eq!(recorder.next().arrivals[0].1, "rejected-call.pcap".len() + first_packet_end);
}

#[test]
fn split_sends_the_name_in_segments() {
    check_handshake("split", "", &[NAME.len()]);
    let recorder = Recorder::start();
    lea(recorder.addr, &["--name", NAME, "--handshake", "split", "--topspeed", &answered_call()]);
    let stream = recorder.next();
    let segments: Vec<usize> =
        stream.arrivals.iter().map(|(_, bytes)| *bytes).take_while(|bytes| *bytes <= NAME.len()).collect();
    // A busy machine can read two segments at once, but never all of them, and never data with them.
    assert!(
        segments.len() >= 2 && segments.iter().all(|at| at % 11 == 0 || *at == NAME.len()),
        "{segments:?}"
    );
}

#[test]
fn packets_per_second_send_packets_one_by_one() {
    let rejected = testdata("pcap/rejected-call.pcap").display().to_string();
    let args = ["--name", NAME, "--handshake", "newline", "--pps", "20", "--chunk", "5000", &rejected];
    let ends = packet_ends(&read("pcap/rejected-call.pcap"));
    let expected: Vec<usize> = ends[2..].iter().map(|end| end + NAME.len() + 1).collect();
    // A busy machine can read two segments at once in one run, but not in three consecutive ones.
    let found: Vec<Vec<usize>> = (0..3)
        .map(|_| {
            let recorder = Recorder::start();
            assert!(lea(recorder.addr, &args).status.success());
            recorder.next().arrivals.iter().rev().take(3).rev().map(|(_, bytes)| *bytes).collect()
        })
        .collect();
    assert!(found.contains(&expected), "each packet comes by itself: {expected:?}, not {found:?}");
}

/// Checks that sending the answered call takes `expected`, within 5 % and a margin, and never less. A busy
/// machine can delay one run, but not three consecutive ones.
#[track_caller]
fn check_pace(option: &str, value: &str, expected_seconds: f64) {
    let mut found = Vec::new();
    for _ in 0..3 {
        let recorder = Recorder::start();
        let args = ["--name", NAME, "--handshake", "newline", option, value, &answered_call()];
        let (exit, summary) = summary(recorder.addr, &args);
        assert_eq!(exit, 0);
        assert!(summary["lateness_p50_ms"].is_number(), "{summary}");
        let seconds = recorder.next().seconds();
        assert!(seconds > expected_seconds * 0.95, "{seconds} s: faster than {expected_seconds} s");
        if seconds < expected_seconds * 1.05 {
            return;
        }
        found.push(seconds);
    }
    panic!("{found:?} s, not {expected_seconds} s");
}

#[test]
fn captured_times_and_rates_are_kept() {
    check_pace("--multiplier", "20", 5.207687 / 20.0);
    check_pace("--mbps", "1", 117_919.0 * 8.0 / 1e6);
    check_pace("--pps", "500", 505.0 / 500.0);
}

/// Sends the answered call with a fault. Returns the received streams without the name and its newline.
fn with_fault(fault: &str, seed: &str, connections: usize) -> (Vec<(Vec<u8>, bool)>, Value) {
    let recorder = Recorder::start();
    let call = answered_call();
    let args =
        ["--name", NAME, "--handshake", "newline", "--topspeed", "--fault", fault, "--seed", seed, &call];
    let (exit, summary) = summary(recorder.addr, &args);
    assert_eq!(exit, 0, "{summary}");
    let greeting = [NAME.as_bytes(), b"\n"].concat();
    // They can end in any order. The first connection never has the last byte.
    let mut streams: Vec<(Vec<u8>, bool)> = (0..connections)
        .map(|_| recorder.next())
        .map(|stream| (stream.bytes.strip_prefix(&greeting[..]).unwrap().to_vec(), stream.was_reset))
        .collect();
    let call = read("pcap/answered-call.pcap");
    streams.sort_by_key(|(bytes, _)| bytes.ends_with(&call[call.len() - 100..]));
    (streams, summary)
}

#[track_caller]
fn check_inside_a_packet(bytes: &[u8]) {
    let call = read("pcap/answered-call.pcap");
    assert!(call.starts_with(bytes) && bytes.len() < call.len());
    assert!(!packet_ends(&call).contains(&bytes.len()), "{} is between two packets", bytes.len());
}

#[test]
fn cut_and_reset_break_inside_a_packet() {
    for seed in ["1", "2", "3"] {
        let (cut, summary) = with_fault("cut", seed, 1);
        check_inside_a_packet(&cut[0].0);
        assert!(!cut[0].1);
        assert_eq!(
            (&summary["cut_off"], &summary["seed"]),
            (&1.into(), &seed.parse::<u64>().unwrap().into())
        );
        let (reset, _) = with_fault("reset", seed, 1);
        assert!(reset[0].1, "it was to be a reset");
        check_inside_a_packet(&reset[0].0);
        assert_eq!(with_fault("cut", seed, 1).0[0].0.len(), cut[0].0.len(), "the same seed, the same cut");
    }
}

#[test]
fn reconnects_send_again_or_go_on() {
    let call = read("pcap/answered-call.pcap");
    let (again, summary) = with_fault("reconnect-resend", "5", 2);
    check_inside_a_packet(&again[0].0);
    assert!(again[1].0 == call);
    assert_eq!((&summary["whole"], &summary["connections"]), (&1.into(), &2.into()));
    let (on, _) = with_fault("reconnect-continue", "5", 2);
    check_inside_a_packet(&on[0].0);
    assert!([&on[0].0[..], &on[1].0].concat() == call);
}

#[test]
fn slow_sends_everything_slowly() {
    let begun = Instant::now();
    let (slow, _) = with_fault("slow", "5", 1);
    assert!(slow[0].0 == read("pcap/answered-call.pcap"));
    assert!(begun.elapsed() > Duration::from_millis(100));
}

#[test]
fn copies_have_names_of_their_own() {
    let recorder = Recorder::start();
    let rejected = testdata("pcap/rejected-call.pcap").display().to_string();
    let args =
        ["--name", NAME, "--handshake", "newline", "--topspeed", "--streams", "2", "--loop", "2", &rejected];
    assert_eq!(summary(recorder.addr, &args).0, 0);
    let call = read("pcap/rejected-call.pcap");
    let mut names: Vec<String> = (0..4)
        .map(|_| recorder.next().bytes)
        .map(|bytes| String::from_utf8(bytes.strip_suffix(&call[..]).unwrap().to_vec()).unwrap())
        .collect();
    names.sort();
    let expected = ["3.2", "3.3", "3.4", "3"]
        .map(|service_id| format!("+447700900123-2-{service_id}_21_11_2026_20:59:41.pcap\n"));
    assert_eq!(names, expected);
}

#[test]
fn a_thousand_streams_at_once() {
    let recorder = Recorder::start();
    let rejected = testdata("pcap/rejected-call.pcap").display().to_string();
    let (exit, summary) = summary(recorder.addr, &["--streams", "1000", "--topspeed", &rejected]);
    assert_eq!((exit, &summary["whole"], &summary["failed"]), (0, &1000.into(), &0.into()), "{summary}");
    let call = read("pcap/rejected-call.pcap");
    let names: std::collections::BTreeSet<Vec<u8>> = (0..1000)
        .map(|_| recorder.next().bytes)
        .map(|bytes| bytes.strip_suffix(&call[..]).expect("the whole call").to_vec())
        .collect();
    assert_eq!(names.len(), 1000);
}

#[test]
fn nobody_listens() {
    let (_taken, addr) = nobody();
    let output = lea(addr, &["--connect-timeout", "150ms", &answered_call()]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("lea: cannot connect to 127.0.0.1:") && text.contains("Connection refused"),
        "{text}"
    );
    assert!(text.contains("stream_failed name=answered-call.pcap"), "{text}");
}

#[test]
fn a_receiver_that_starts_late_is_waited_for() {
    let (socket, addr) = nobody();
    let args = ["--handshake", "newline", "--topspeed", &answered_call()];
    let mut sender = Process::start(&mut command(addr, &args));
    // Waiting is reported once it takes a second.
    sender.wait_line(DEADLINE, "a report of waiting", |line| {
        let expected = format!("connect_retrying to={addr} reason=\"Connection refused");
        line.contains(&expected).then_some(())
    });
    socket.listen(1).unwrap();
    let (mut peer, _) = TcpListener::from(socket).accept().unwrap();
    let mut bytes = Vec::new();
    peer.read_to_end(&mut bytes).unwrap();
    assert!(bytes.ends_with(&read("pcap/answered-call.pcap")));
    drop(peer);
    sender.wait_code(DEADLINE, 0);
}

/// Ctrl-C in a terminal: the terminal echoes `^C`, which must not keep the bar from being cleared.
#[test]
fn the_progress_bar_is_cleared_after_ctrl_c() {
    let recorder = Recorder::start();
    let line = format!("exec {LEA} replay --tcp {} --handshake newline {}", recorder.addr, answered_call());
    let mut terminal = Command::new("script")
        .args(["-qfec", &line, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this test needs script(1)");
    let mut output = terminal.stdout.take().unwrap();
    let (mut bytes, mut buffer, mut is_interrupted) = (Vec::new(), [0; 4096], false);
    loop {
        let read = output.read(&mut buffer).unwrap();
        if read == 0 {
            break;
        }
        bytes.extend_from_slice(&buffer[..read]);
        if !is_interrupted && bytes.windows(3).any(|text| text == b"KiB") {
            terminal.stdin.as_mut().unwrap().write_all(b"\x03").unwrap();
            is_interrupted = true;
        }
    }
    assert_eq!(terminal.wait().unwrap().code(), Some(3));
    let screen = screen_lines(&String::from_utf8(bytes).unwrap());
    assert!(
        screen.iter().any(|line| line.contains("replayed streams=1") && line.contains("stopped=1")),
        "{screen:#?}"
    );
    assert!(!screen.iter().any(|line| line.contains("KiB")), "the bar is still there: {screen:#?}");
}

/// Interprets terminal output, with 80 columns and enough rows. Returns the lines on the screen at the end.
fn screen_lines(output: &str) -> Vec<String> {
    const COLUMNS: usize = 80;
    let (mut rows, mut row, mut column) = (vec![Vec::new()], 0_usize, 0);
    let mut chars = output.chars();
    while let Some(char) = chars.next() {
        match char {
            '\r' => column = 0,
            '\n' => row += 1,
            '\x1b' => {
                assert_eq!(chars.next(), Some('['), "an escape sequence that is not a CSI");
                let mut number = String::new();
                let end = loop {
                    match chars.next().expect("the end of an escape sequence") {
                        char if char.is_ascii_digit() || char == '?' => number.push(char),
                        end => break end,
                    }
                };
                match end {
                    'A' => row -= number.parse::<usize>().unwrap(),
                    'K' => rows[row].clear(),
                    other => panic!("the escape sequence {number}{other}"),
                }
            }
            char => {
                if column == COLUMNS {
                    (row, column) = (row + 1, 0);
                }
                if rows.len() <= row {
                    rows.resize(row + 1, Vec::new());
                }
                if rows[row].len() <= column {
                    rows[row].resize(column + 1, ' ');
                }
                rows[row][column] = char;
                column += 1;
            }
        }
        if rows.len() <= row {
            rows.resize(row + 1, Vec::new());
        }
    }
    rows.into_iter().map(String::from_iter).collect()
}

#[test]
fn a_stream_that_the_receiver_ends_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || drop(listener.accept()));
    let (exit, summary) = summary(addr, &["--topspeed", &answered_call()]);
    assert_eq!((exit, &summary["failed"]), (3, &1.into()), "{summary}");
    assert_eq!(summary["failures"][0]["name"], "answered-call.pcap");
    let reason = summary["failures"][0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("cannot send to 127.0.0.1:"), "{reason}");
}

#[test]
fn a_signal_ends_it_in_good_order() {
    let recorder = Recorder::start();
    let child = command(recorder.addr, &["--handshake", "newline", "--pps", "1", "--json", &answered_call()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    // It handles signals before its first connection, so the test waits for that.
    let ended = thread::spawn(move || recorder.next());
    while !connected(pid) {
        thread::sleep(Duration::from_millis(5));
    }
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &summary["stopped"]), (Some(3), &1.into()), "{summary}");
    assert!(!ended.join().unwrap().was_reset);
}

/// Returns whether the process has a thread that sends.
fn connected(pid: rustix::process::Pid) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())).unwrap();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .any(|name| name == "replay\n")
}

#[track_caller]
fn check_usage(args: &[&str], expected: &str) {
    let output = lea(nobody().1, args);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains(expected), "{text}");
}

#[test]
fn wrong_usage() {
    let call = answered_call();
    check_usage(&["--mbps", "0", &call], "a number greater than 0");
    check_usage(&["--mbps", "1", "--topspeed", &call], "cannot be used with");
    check_usage(&["--seed", "1", &call], "--fault");
    check_usage(&["--streams", "8000", &call, &call], "too many parallel streams");
    check_usage(
        &["--handshake", "joined", "--fault", "reconnect-continue", &call],
        "the name would have no end",
    );
    assert_eq!(lea(nobody().1, &["no-such-file.pcap"]).status.code(), Some(1));
}
