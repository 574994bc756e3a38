//! `lea tail`: a growing stream arrives at the reader of stdout, packet by packet, and ends with the stream.

use std::io::Read;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::process::Process;
use crate::support::{DEADLINE, Handshake, Sender, Server, Workdir, lea, testdata, wait_closed, wait_until};

const NAME: &str = "call.pcap";

fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(lea());
    command.arg("tail").args(args).arg("--dir").arg(dir).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// A running `lea tail` whose output is collected.
struct Tail {
    process: Process,
    chunks: Receiver<Vec<u8>>,
    bytes: Vec<u8>,
}

impl Tail {
    fn start(dir: &Path, args: &[&str]) -> Tail {
        let mut command = command(dir, args);
        let (mut stdout, writer) = std::io::pipe().unwrap();
        command.stdout(writer);
        let process = Process::start(&mut command);
        // The writing end is open in the child only, so that reading ends with it.
        drop(command);
        let (sender, chunks) = channel();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(read @ 1..) = stdout.read(&mut buffer) {
                if sender.send(buffer[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        Tail { process, chunks, bytes: Vec::new() }
    }

    /// Waits until exactly these bytes have arrived.
    #[track_caller]
    fn wait_bytes(&mut self, expected: &[u8]) {
        wait_until(DEADLINE, "the bytes of the stream", || {
            self.bytes.extend(self.chunks.try_iter().flatten());
            self.bytes.len() >= expected.len()
        });
        assert!(
            self.bytes == expected,
            "{} bytes, and not the {} expected",
            self.bytes.len(),
            expected.len()
        );
    }

    /// Waits for the end. Returns all bytes and stderr.
    #[track_caller]
    fn end(mut self, code: i32) -> (Vec<u8>, String) {
        self.process.wait_code(DEADLINE, code);
        self.bytes.extend(self.chunks.iter().flatten());
        (std::mem::take(&mut self.bytes), self.process.stderr())
    }
}

/// End offsets of the packets of a little-endian pcap capture.
fn packet_ends(capture: &[u8]) -> Vec<usize> {
    crate::support::capture::packets(capture).iter().map(|packet| packet.end).collect()
}

#[test]
fn a_growing_stream_arrives_packet_by_packet_until_it_is_closed() {
    let work = Workdir::new();
    let server = Server::start(&work.join("out"), &[]);
    let capture = testdata("pcap/answered-call.pcap");
    let ends = packet_ends(&capture);
    // It waits for a stream that does not exist yet.
    let mut tail = Tail::start(server.output(), &[NAME, "--wait", "--linger", "0"]);
    let mut sender = Sender::open(server.addr(), NAME, Handshake::Newline);
    let mut sent = 0;
    for packet in [1, 10, 200] {
        // Half of the next packet is sent, and not written.
        sender.send(&capture[sent..ends[packet] + 20]);
        sent = ends[packet] + 20;
        tail.wait_bytes(&capture[..ends[packet]]);
    }
    sender.send(&capture[sent..]);
    sender.finish();
    let (bytes, stderr) = tail.end(0);
    assert!(bytes == capture && stderr.is_empty(), "{stderr}");
    server.term();
}

/// What tshark reads of the output is what it reads of the file.
#[test]
fn tshark_reads_the_output() {
    let work = Workdir::new();
    let server = Server::start(&work.join("out"), &[]);
    let capture = testdata("pcap/three-calls.pcapng");
    let tail = command(server.output(), &[NAME, "--wait", "--linger", "0"]).spawn().unwrap();
    let Child { stdout: Some(output), .. } = tail else { panic!("no output") };
    let tshark = Command::new("tshark")
        .args(["-n", "-r", "-", "-T", "fields", "-e", "frame.time_epoch"])
        .env("WIRESHARK_CONFIG_DIR", "/nonexistent")
        .stdin(output)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut sender = Sender::open(server.addr(), NAME, Handshake::Newline);
    sender.send_chunks(&capture, 50_000);
    sender.finish();
    let read = tshark.wait_with_output().unwrap();
    assert!(read.status.success());
    assert_eq!(read.stdout.iter().filter(|byte| **byte == b'\n').count(), 1518);
    server.term();
}

/// A sender that reconnects and sends everything again: each byte is written once.
#[test]
fn a_resend_is_written_once() {
    let work = Workdir::new();
    let server = Server::start(&work.join("out"), &[]);
    let capture = testdata("pcap/answered-call.pcap");
    let ends = packet_ends(&capture);
    let mut sender = Sender::open(server.addr(), NAME, Handshake::Newline);
    sender.send(&capture[..ends[100] + 7]);
    let mut tail = Tail::start(server.output(), &[NAME, "--wait", "--linger", "60s"]);
    tail.wait_bytes(&capture[..ends[100]]);
    sender.finish();
    // The partial packet is in the file once the stream is closed.
    tail.wait_bytes(&capture[..ends[100] + 7]);
    wait_closed(server.output(), NAME);
    let mut sender = Sender::open(server.addr(), NAME, Handshake::Newline);
    sender.send(&capture[..ends[50]]);
    sender.send(&capture[ends[50]..ends[300]]);
    tail.wait_bytes(&capture[..ends[300]]);
    sender.send(&capture[ends[300]..]);
    sender.finish();
    tail.wait_bytes(&capture);
    // It waits for the sender to come back once more; a signal ends that.
    tail.process.signal(Signal::TERM);
    assert!(tail.end(0).0 == capture);
    server.term();
}

#[test]
fn a_closed_stream_is_written_at_once() {
    let work = Workdir::new();
    let server = Server::start(&work.join("out"), &[]);
    let capture = testdata("pcap/rejected-call.pcap");
    let mut sender = Sender::open(server.addr(), NAME, Handshake::Newline);
    sender.send(&capture);
    sender.finish();
    wait_closed(server.output(), NAME);
    let started = Instant::now();
    assert!(Tail::start(server.output(), &[NAME, "--linger", "1h"]).end(0).0 == capture);
    assert!(Tail::start(server.output(), &[NAME, "--no-follow"]).end(0).0 == capture);
    assert!(started.elapsed() < Duration::from_secs(60));
    server.term();
    // Its path works, too, and the receiver need not run.
    let path = work.join("out").join(NAME);
    assert!(Tail::start(Path::new("/nonexistent"), &[path.to_str().unwrap()]).end(0).0 == capture);
}

#[test]
fn no_follow_writes_what_an_open_stream_has() {
    let work = Workdir::new();
    let server = Server::start(&work.join("out"), &[]);
    let capture = testdata("pcap/answered-call.pcap");
    let end = packet_ends(&capture)[10];
    let mut sender = Sender::open(server.addr(), NAME, Handshake::Newline);
    sender.send(&capture[..end]);
    Tail::start(server.output(), &[NAME, "--wait"]).wait_bytes(&capture[..end]);
    assert!(Tail::start(server.output(), &[NAME, "--no-follow"]).end(0).0 == capture[..end]);
    sender.finish();
    server.term();
}

/// Two streams of one name: the open part is written, and the other one on request.
#[test]
fn parts_are_selected() {
    let work = Workdir::new();
    let server = Server::start(&work.join("out"), &[]);
    let (one, two) = (testdata("pcap/answered-call.pcap"), testdata("pcap/rejected-call.pcap"));
    let mut sender = Sender::open(server.addr(), NAME, Handshake::Newline);
    sender.send(&one);
    sender.finish();
    wait_closed(server.output(), NAME);
    let mut sender = Sender::open(server.addr(), NAME, Handshake::Newline);
    sender.send(&two);
    let part = format!("{NAME}.2");
    wait_until(DEADLINE, "the second part", || server.output().join(&part).exists());
    let mut open = Tail::start(server.output(), &[NAME, "--linger", "0"]);
    open.wait_bytes(&two);
    let (first, stderr) = Tail::start(server.output(), &[NAME, "--part", "1"]).end(0);
    assert!(first == one);
    assert!(stderr.contains("part_exists file=call.pcap.2"), "{stderr}");
    sender.finish();
    let (bytes, stderr) = open.end(0);
    assert!(bytes == two);
    assert!(stderr.contains("part_chosen file=call.pcap.2 parts=2"), "{stderr}");
    assert!(Tail::start(server.output(), &[&part]).end(0).0 == two);
    server.term();
}

/// A sender that goes on over a second connection while the first one is half open: both parts are one output.
#[test]
fn a_part_that_continues_another_one_follows_it() {
    let work = Workdir::new();
    let server = Server::start(&work.join("out"), &[]);
    let capture = testdata("pcap/answered-call.pcap");
    let mut first = Sender::open(server.addr(), NAME, Handshake::Newline);
    first.send(&capture[..300]);
    let mut tail = Tail::start(server.output(), &[NAME, "--wait", "--linger", "0"]);
    let boundary = *packet_ends(&capture).iter().take_while(|end| **end <= 300).last().unwrap_or(&24);
    tail.wait_bytes(&capture[..boundary]);
    let mut second = Sender::open(server.addr(), NAME, Handshake::Newline);
    second.send(&capture[300..]);
    second.finish();
    let part = format!("{NAME}.2");
    assert_eq!(wait_closed(server.output(), &part).continues.map(|at| at.at), Some(300));
    first.finish();
    let (bytes, stderr) = tail.end(0);
    assert!(bytes == capture, "{} bytes: {stderr}", bytes.len());
    // The same after both are closed, from the name alone.
    assert!(Tail::start(server.output(), &[NAME, "--no-follow"]).end(0).0 == capture);
    assert!(Tail::start(server.output(), &[NAME, "--part", "2"]).end(0).0 == capture[300..]);
    server.term();
}

#[test]
fn a_reader_that_goes_away_ends_it() {
    let work = Workdir::new();
    let server = Server::start(&work.join("out"), &[]);
    let capture = testdata("pcap/answered-call.pcap");
    let mut sender = Sender::open(server.addr(), NAME, Handshake::Newline);
    sender.send(&capture[..5_000]);
    let mut child = command(server.output(), &[NAME, "--wait"]).spawn().unwrap();
    let mut output: ChildStdout = child.stdout.take().unwrap();
    output.read_exact(&mut [0; 24]).unwrap();
    // The stream stays open, and nothing more is sent: only the closed pipe tells.
    drop(output);
    wait_until(DEADLINE, "the end of lea tail", || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    sender.finish();
    server.term();
}

#[test]
fn a_killed_receiver_is_noticed() {
    let work = Workdir::new();
    let mut server = Server::start(&work.join("out"), &[]);
    let capture = testdata("pcap/answered-call.pcap");
    let end = packet_ends(&capture)[10];
    let mut sender = Sender::open(server.addr(), NAME, Handshake::Newline);
    sender.send(&capture[..end]);
    let mut tail = Tail::start(&work.join("out"), &[NAME, "--wait"]);
    tail.wait_bytes(&capture[..end]);
    server.kill9();
    let (bytes, stderr) = tail.end(3);
    assert!(bytes == capture[..end]);
    assert!(
        stderr.contains("stream_incomplete file=call.pcap") && stderr.contains("no receiver is running"),
        "{stderr}"
    );
}

#[test]
fn a_stream_that_did_not_end_in_order_is_incomplete() {
    let work = Workdir::new();
    let server = Server::start(&work.join("out"), &[]);
    let capture = testdata("pcap/answered-call.pcap");
    let end = packet_ends(&capture)[10];
    let mut sender = Sender::open(server.addr(), NAME, Handshake::Newline);
    sender.send(&capture[..end]);
    let mut tail = Tail::start(server.output(), &[NAME, "--wait", "--linger", "0"]);
    tail.wait_bytes(&capture[..end]);
    sender.reset();
    let (bytes, stderr) = tail.end(3);
    assert!(bytes == capture[..end]);
    assert!(stderr.contains("the connection was reset, bytes may be missing"), "{stderr}");
    server.term();
}

#[test]
fn a_stream_that_does_not_exist_is_named() {
    let work = Workdir::new();
    let check = |dir: &Path, args: &[&str], code: i32, expected: &str| {
        let (bytes, stderr) = Tail::start(dir, args).end(code);
        assert!(bytes.is_empty() && stderr.contains(expected), "{stderr}");
    };
    check(&work.join("out"), &[NAME], 1, "cannot read the directory");
    let server = Server::start(&work.join("out"), &[]);
    check(server.output(), &[NAME], 1, "no stream named call.pcap in");
    check(server.output(), &[NAME, "--part", "2"], 1, "no part 2 of a stream named call.pcap in");
    check(server.output(), &[NAME, "--part", "0"], 2, "--part");
    let waiting = Tail::start(server.output(), &[NAME, "--wait"]);
    let status = format!("/proc/{}/status", waiting.process.id());
    wait_until(DEADLINE, "the handler of signals", || {
        let status = std::fs::read_to_string(&status).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:\t"));
        // Bit 1 is SIGINT.
        caught.is_some_and(|mask| u64::from_str_radix(mask, 16).unwrap() & 2 != 0)
    });
    waiting.process.signal(Signal::INT);
    waiting.end(0);
    server.term();
}
