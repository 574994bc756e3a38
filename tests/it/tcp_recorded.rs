//! The recorded stream in every form in which the network can deliver it. The stored file equals the capture,
//! and it is readable at every moment while it grows.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use lea::cc::vault::manifest::EndReason;

use crate::support::capture::packets;
use crate::support::sender::CHUNK_BYTES;
use crate::support::{
    DEADLINE, Handshake, Sender, Server, Workdir, assert_same, long, testdata, tshark_ok, wait_closed,
    wait_until,
};

const NAME: &str = "+447700900123-2-3_21_11_2026_20:59:41.pcap";

/// A capture of each format, with the file name extension of its stream.
const CAPTURES: [(&str, &str); 2] =
    [("pcap/answered-call.pcap", "pcap"), ("pcap/three-calls.pcapng", "pcapng")];

/// Returns a stream name of the usual form and of the same length as the recorded one.
fn name(number: usize, ending: &str) -> String {
    assert!(number < 1000);
    format!("+447700900{number:03}-2-3_21_11_2026_20:59:41.{ending}")
}

/// Waits for the end of a stream and compares its file with what was sent.
#[track_caller]
fn assert_stored(server: &Server, name: &str, sent: &[u8]) {
    let manifest = wait_closed(server.output(), name);
    assert_same(&server.output().join(name), sent);
    assert_eq!((manifest.name.as_str(), manifest.file.as_str()), (name, name));
    assert_eq!(manifest.bytes, sent.len() as u64);
    assert_eq!(manifest.end_reason, Some(EndReason::Eof));
}

#[test]
fn as_recorded() {
    let work = Workdir::new();
    let server = Server::start(&work.join("out"), &[]);
    let recorded = testdata("wire/tcp-stream.bin");
    let (sent_name, content) = recorded.split_at(NAME.len());
    assert_eq!(sent_name, NAME.as_bytes());

    let mut sender = Sender::open(server.addr(), sent_name, Handshake::Gap);
    sender.send_chunks(content, CHUNK_BYTES);
    sender.finish();

    assert_stored(&server, NAME, &testdata("pcap/answered-call.pcap"));
    server.term();
}

#[test]
fn joined_and_newline_forms() {
    let work = Workdir::new();
    let server = Server::start(&work.join("out"), &[]);
    let mut number = 0;
    for (file, ending) in CAPTURES {
        let capture = testdata(file);
        for handshake in [Handshake::Joined, Handshake::Newline, Handshake::CrLf] {
            // In one send, in the chunks of real senders, and in larger ones.
            for chunk_bytes in [capture.len(), CHUNK_BYTES, 4096] {
                let name = name(number, ending);
                number += 1;
                let mut sender = Sender::open(server.addr(), &name, handshake);
                sender.send_chunks(&capture, chunk_bytes);
                sender.finish();
                assert_stored(&server, &name, &capture);
            }
        }
    }
    server.term();
}

/// Sends `stream` in two sends, once for each of the first `cuts` offsets, in parallel. `make` returns name,
/// stream and expected file.
fn check_splits(cuts: usize, make: impl Fn(usize) -> (String, Vec<u8>, Vec<u8>) + Sync) {
    // The pause makes the first part arrive alone. The name timeout is far longer, however busy the machine
    // is.
    const PAUSE: Duration = Duration::from_millis(100);
    let work = Workdir::new();
    let server = Server::start(&work.join("out"), &["--name-timeout", "30000ms"]);
    thread::scope(|scope| {
        for cut in 1..cuts {
            let (make, server) = (&make, &server);
            scope.spawn(move || {
                let (_, stream, _) = make(cut);
                let mut sender = Sender::connect(server.addr());
                sender.send(&stream[..cut]);
                thread::sleep(PAUSE);
                sender.send(&stream[cut..]);
                sender.finish();
            });
        }
    });
    for cut in 1..cuts {
        let (name, _, content) = make(cut);
        assert_stored(&server, &name, &content);
    }
    server.term();
}

#[test]
fn all_splits_of_the_recorded_stream() {
    let recorded = testdata("wire/tcp-stream.bin");
    check_splits(200, |cut| {
        let (name, content) = (name(cut, "pcap"), &recorded[NAME.len()..]);
        (name.clone(), [name.as_bytes(), content].concat(), content.to_vec())
    });
}

#[test]
fn all_splits_around_a_newline() {
    for (file, ending) in CAPTURES {
        // The split affects the end of the name, so the start of the capture is enough.
        let capture = testdata(file);
        let content = &capture[..packets(&capture)[1].end];
        for newline in ["\n", "\r\n"] {
            let name_bytes = name(0, ending).len();
            check_splits(name_bytes + 12, |cut| {
                let name = name(cut, ending);
                let stream = [name.as_bytes(), newline.as_bytes(), content].concat();
                (name, stream, content.to_vec())
            });
        }
    }
}

#[test]
fn one_byte_a_segment() {
    let work = Workdir::new();
    let server = Server::start(&work.join("out"), &["--name-timeout", "30000ms"]);
    thread::scope(|scope| {
        for (file, ending) in CAPTURES {
            let server = &server;
            scope.spawn(move || {
                let (name, capture) = (name(1, ending), testdata(file));
                let mut sender = Sender::connect(server.addr());
                sender.send_chunks(name.as_bytes(), 1);
                sender.send_chunks(&capture, 1);
                sender.finish();
                assert_stored(server, &name, &capture);
            });
        }
    });
    server.term();
}

/// Number of times that a growing file is read.
const MOMENTS: usize = 50;

#[test]
fn readable_at_any_moment() {
    let work = Workdir::new();
    let server = Server::start(&work.join("out"), &[]);
    thread::scope(|scope| {
        for (file, ending) in CAPTURES {
            let server = &server;
            let check = if long() { moments_at_the_captures_pace } else { moments_at_the_readers_pace };
            scope.spawn(move || check(server, ending, &testdata(file)));
        }
    });
    server.term();
}

/// Sends a capture while it is read, 1/51 of it between two reads, in chunks that cut packets anywhere.
fn moments_at_the_readers_pace(server: &Server, ending: &str, capture: &[u8]) {
    let (name, part_bytes) = (name(0, ending), capture.len() / (MOMENTS + 1));
    let file = server.output().join(&name);
    let (go, gone) = crossbeam_channel::bounded(1);
    thread::scope(|scope| {
        // Moved in: if a check fails, the sender must not wait for it.
        let go = go;
        scope.spawn(|| {
            let mut sender = Sender::open(server.addr(), &name, Handshake::Newline);
            for part in capture.chunks(part_bytes) {
                // If the reader has ended, the rest is sent at once, because the reader is done or has
                // failed.
                let read_along = gone.recv().is_ok();
                // About as long as tshark takes to start and read.
                let pause = if read_along { part_pause(part) } else { Duration::ZERO };
                for chunk in part.chunks(CHUNK_BYTES) {
                    sender.send(chunk);
                    thread::sleep(pause);
                }
            }
            sender.finish();
        });
        let mut read = 0;
        for _ in 0..MOMENTS {
            go.send(()).unwrap();
            wait_until(DEADLINE, "growth of the file", || file_len(&file) > read);
            read = file_len(&file);
            assert_readable(&file, capture);
        }
        drop(go);
    });
    assert_stored(server, &name, capture);
}

fn part_pause(part: &[u8]) -> Duration {
    Duration::from_millis(400) / part.len().div_ceil(CHUNK_BYTES) as u32
}

/// Sends a capture at its own pace, repeatedly, until it has been read often enough.
fn moments_at_the_captures_pace(server: &Server, ending: &str, capture: &[u8]) {
    let mut moments = 0;
    let mut round = 0;
    while moments < MOMENTS {
        let name = name(round, ending);
        let file = server.output().join(&name);
        round += 1;
        thread::scope(|scope| {
            let sender = scope.spawn(|| send_at_own_pace(server.addr(), &name, capture));
            wait_until(DEADLINE, "the first bytes", || file_len(&file) > 0);
            while !sender.is_finished() {
                assert_readable(&file, capture);
                moments += 1;
            }
        });
        assert_stored(server, &name, capture);
    }
}

fn send_at_own_pace(addr: SocketAddr, name: &str, capture: &[u8]) {
    let mut sender = Sender::open(addr, name, Handshake::Gap);
    let (start, mut sent) = (Instant::now(), 0);
    for packet in packets(capture) {
        thread::sleep((start + packet.at).saturating_duration_since(Instant::now()));
        sender.send_chunks(&capture[sent..packet.end], CHUNK_BYTES);
        sent = packet.end;
    }
    sender.send_chunks(&capture[sent..], CHUNK_BYTES);
    sender.finish();
}

fn file_len(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |metadata| metadata.len())
}

/// Checks that the file consists of complete packets and that tshark reads it. One retry, because a read can
/// coincide with a write.
#[track_caller]
fn assert_readable(file: &Path, capture: &[u8]) {
    let first = look(file, capture);
    if let Err(complaint) = first.or_else(|_| look(file, capture)) {
        panic!("{complaint}");
    }
}

fn look(file: &Path, capture: &[u8]) -> Result<(), String> {
    let stored = fs::read(file).map_err(|error| error.to_string())?;
    if !capture.starts_with(&stored) {
        return Err(format!("{} is not the start of what was sent", file.display()));
    }
    tshark_ok(file)
}
