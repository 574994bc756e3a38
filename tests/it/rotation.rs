//! Rotation: a growing stream goes on in new files, each of which is a capture. Nothing of it is lost or doubled, whatever
//! happens to the receiver and to the senders.

use std::fs;
use std::io::{self, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use lea::cc::vault::manifest::{EndReason, Manifest, SUFFIX};

use crate::support::generated::{self, Generated};
use crate::support::stored::{assert_vouched, names_in};
use crate::support::{
    DEADLINE, Handshake, Random, Sender, Server, Workdir, lea, long, manifest, tshark_fields, tshark_ok,
    wait_until,
};

const NAME: &str = "call.pcap";

/// Options of a receiver with the smallest files.
const ROTATED: [&str; 2] = ["--rotate-size", "64K"];

fn run(args: &[&str], paths: &[&Path]) -> Output {
    Command::new(lea()).args(args).args(paths).stdin(Stdio::null()).output().unwrap()
}

/// Puts the stream together again, as docs/streams.md says.
#[track_caller]
fn joined(output: &Path) -> Vec<u8> {
    let tail = run(&["tail", NAME, "--no-follow", "--dir"], &[output]);
    // 3: a part of it was recovered.
    assert!(matches!(tail.status.code(), Some(0 | 3)), "{}", String::from_utf8_lossy(&tail.stderr));
    tail.stdout
}

/// The manifests of all parts, in order.
fn parts(output: &Path) -> Vec<Manifest> {
    let names = names_in(output);
    let files = names.iter().filter(|name| *name != ".lea" && !name.ends_with(SUFFIX));
    let mut parts: Vec<Manifest> = files.filter_map(|file| manifest(output, file)).collect();
    parts.sort_by_key(|manifest| manifest.part);
    parts
}

fn send(server: &Server, content: &[u8], chunk_bytes: usize) {
    let mut sender = Sender::open(server.addr(), NAME, Handshake::Newline);
    sender.send_chunks(content, chunk_bytes);
    sender.finish();
}

/// Checks that each part is a capture, for tshark too, and that together they have all packets.
#[track_caller]
fn check_parts(output: &Path, packets: usize) {
    let parts = parts(output);
    assert!(parts.len() > 3, "{} parts", parts.len());
    let mut found = 0;
    for (number, part) in parts.iter().enumerate() {
        let path = output.join(&part.file);
        assert_vouched(output, &part.file);
        tshark_ok(&path).unwrap();
        let frames = tshark_fields(&path, "frame", "frame.number").len();
        assert_eq!(frames as u64, part.capture.packets, "{}", part.file);
        assert!(part.damage().is_empty() && part.capture.first_packet_ns.is_some());
        found += frames;
        let is_last = number + 1 == parts.len();
        assert_eq!(part.end_reason, Some(if is_last { EndReason::Eof } else { EndReason::Rotated }));
        assert!(is_last || (64 << 10..66 << 10).contains(&part.bytes), "{} bytes", part.bytes);
        assert_eq!(part.rotation.is_some(), number > 0);
        assert_eq!(part.continues.as_ref().map(|at| at.at), number.checked_sub(1).map(|at| parts[at].bytes));
    }
    assert_eq!(found, packets);
}

#[test]
fn each_part_is_a_capture_and_together_they_are_the_stream() {
    let mut random = Random::new("rotation");
    for make in [generated::pcap, generated::pcapng] {
        let work = Workdir::new();
        let output = work.join("out");
        let Generated { bytes: content, ends } = make(&mut random, 300_000);
        let packets = crate::support::capture::packets(&content).len();
        assert!(packets < ends.len());
        let server = Server::start(&output, &ROTATED);
        let (start, rest) = content.split_at(100_000 + random.below(100_000) as usize);
        // It breaks off, goes on, and is sent again: in one piece, and cut.
        send(&server, start, 3000);
        send(&server, rest, 100);
        send(&server, &content, 64 << 10);
        send(&server, &content[..150_000], 5000);
        let log = server.term();
        assert!(log.contains("stream_rotated file=call.pcap.2 of=call.pcap at="), "{log}");
        check_parts(&output, packets);
        assert!(joined(&output) == content);
        fs::create_dir(work.join("sent")).unwrap();
        work.write(format!("sent/{NAME}"), &content);
        let verified = run(&["verify", "--against"], &[&work.join("sent"), &output]);
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
        let listed = run(&["ls", "--json"], &[&output]);
        assert!(String::from_utf8_lossy(&listed.stdout).contains("\"end_reason\":\"rotated\""));
        // Another member has the start of it in one file.
        let server = Server::start(&work.join("other"), &[]);
        send(&server, start, 3000);
        server.term();
        let merged = work.join("merged");
        let merge = run(&["merge", "--output"], &[&merged, &work.join("other"), &output]);
        assert!(merge.status.success(), "{}", String::from_utf8_lossy(&merge.stderr));
        assert_eq!(parts(&merged).len(), 1);
        assert!(fs::read(merged.join(NAME)).unwrap() == content);
    }
}

/// What the files say about the stream is true: each one has its headers, and then the bytes at its place.
#[track_caller]
fn check_pieces(output: &Path, content: &[u8]) {
    for part in parts(output) {
        let stored = fs::read(output.join(&part.file)).unwrap();
        let (header_bytes, at) = part.rotation.map_or((0, 0), |of| (of.header_bytes, of.stream_offset));
        let headers = &stored[..stored.len().min(header_bytes as usize)];
        assert!(content.starts_with(headers), "{}: the headers", part.file);
        let own = &stored[headers.len()..];
        assert!(content[at as usize..].starts_with(own), "{}: {} bytes at {at}", part.file, own.len());
    }
}

#[test]
fn a_killed_receiver_loses_and_doubles_nothing() {
    let mut random = Random::new("rotation kill");
    let rounds = if long() { 150 } else { 12 };
    for make in [generated::pcap, generated::pcapng] {
        let work = Workdir::new();
        let content = make(&mut random, 900_000).bytes;
        let mut server = Server::start(&work.join("out"), &ROTATED);
        for _ in 0..rounds {
            let addr = server.addr();
            let (chunk_bytes, pause) = (1000 + random.below(60_000) as usize, random.below(4));
            thread::scope(|scope| {
                let content = &content;
                let send = move || -> io::Result<()> {
                    let mut tcp = TcpStream::connect(addr)?;
                    tcp.write_all(format!("{NAME}\n").as_bytes())?;
                    for chunk in content.chunks(chunk_bytes) {
                        tcp.write_all(chunk)?;
                        thread::sleep(Duration::from_millis(pause));
                    }
                    Ok(())
                };
                // An error is expected, because the receiver is killed.
                scope.spawn(move || send().unwrap_or_default());
                thread::sleep(Duration::from_millis(random.below(120)));
                server.kill9();
            });
            check_pieces(server.output(), &content);
            server.restart();
        }
        send(&server, &content, 10_000);
        let output = server.output().to_owned();
        server.term();
        check_pieces(&output, &content);
        assert!(joined(&output) == content);
        // Whatever is not in it has nothing of the stream.
        let own = |part: &Manifest| part.bytes.saturating_sub(part.rotation.map_or(0, |of| of.header_bytes));
        assert_eq!(parts(&output).iter().map(own).sum::<u64>(), content.len() as u64);
    }
}

#[test]
fn lea_tail_follows_from_file_to_file() {
    let mut random = Random::new("rotation tail");
    let work = Workdir::new();
    let content = generated::pcapng(&mut random, 400_000).bytes;
    let server = Server::start(&work.join("out"), &ROTATED);
    let output = server.output().to_owned();
    let tail = thread::spawn(move || run(&["tail", NAME, "--wait", "--linger", "0", "--dir"], &[&output]));
    send(&server, &content, 2000);
    let tail = tail.join().unwrap();
    assert_eq!(tail.status.code(), Some(0), "{}", String::from_utf8_lossy(&tail.stderr));
    assert!(tail.stdout == content, "{} of {} bytes", tail.stdout.len(), content.len());
    server.term();
}

#[test]
fn a_file_ends_after_a_time() {
    let mut random = Random::new("rotation time");
    let work = Workdir::new();
    let server = Server::start(&work.join("out"), &["--rotate-interval", "1s"]);
    let Generated { bytes, ends } = generated::pcap(&mut random, 3_000_000);
    let mut sender = Sender::open(server.addr(), NAME, Handshake::Newline);
    let mut sent = 0;
    wait_until(DEADLINE, "three files", || {
        // Half a packet, so that files end before it.
        let to = ends.iter().find(|end| **end > sent + 200).unwrap() - 5;
        sender.send(&bytes[sent..to]);
        sent = to;
        parts(server.output()).len() >= 3
    });
    sender.finish();
    let output = server.output().to_owned();
    server.term();
    assert!(joined(&output) == bytes[..sent]);
    for part in parts(&output).iter().filter(|part| part.end_reason == Some(EndReason::Rotated)) {
        assert!(part.capture.packets >= 2 && part.damage().is_empty());
    }
}

#[test]
fn what_cannot_be_cut_stays_one_file_and_the_log_says_so_once() {
    let work = Workdir::new();
    let server = Server::start(&work.join("out"), &ROTATED);
    let content = b"no capture, in as many lines as it takes\n".repeat(5000);
    send(&server, &content, 10_000);
    let output = server.output().to_owned();
    let log = server.term();
    assert_eq!(log.matches("stream_not_rotated file=call.pcap reason=not_a_capture").count(), 1, "{log}");
    assert!(fs::read(output.join(NAME)).unwrap() == content && parts(&output).len() == 1);
}

#[test]
fn rotation_has_limits() {
    for (option, value, reason) in [
        ("--rotate-size", "63K", "too small: 64K is the least"),
        ("--rotate-interval", "999ms", "out of range: expected 1s to"),
    ] {
        let refused = run(&["serve-tcp", "--listen", "127.0.0.1:0", option, value], &[]);
        assert_eq!(refused.status.code(), Some(2));
        let stderr = String::from_utf8_lossy(&refused.stderr);
        assert!(stderr.contains(reason), "{stderr}");
    }
}
