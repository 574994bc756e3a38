//! What `lea` says about what it stores: closed streams that others try to change, failures of the disk at every step of a
//! stream's life, and damage. Manifest, `/health`, exit code, `ls` and `verify` must agree.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use lea::cc::vault::manifest::{EndReason, ManifestState, PartPosition, SUFFIX};
use rustix::process::Signal;

use crate::support::process::Process;
use crate::support::stored::{assert_only, assert_whole, wait_connections};
use crate::support::{
    DEADLINE, Handshake, Sender, Server, Workdir, lea, manifest, status, testdata, tshark_ok, wait_closed,
    wait_for, wait_until, wrapped,
};

mod faults;
mod peers;
mod removed;
mod room;
mod sensors;
mod store;

const NAME: &str = "v.pcap";

/// A packet of 16 bytes, as somebody would append it.
const PACKET: &[u8] = b"\x00\x00\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x10\x00\x00\x00forged, forged!!";

fn capture() -> Vec<u8> {
    testdata("pcap/rejected-call.pcap")
}

/// Sends a whole stream from a local address.
fn send_from(source: &str, addr: SocketAddr, name: &str, content: &[u8]) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let source: SocketAddr = format!("{source}:0").parse().unwrap();
    socket.bind(&source.into()).unwrap();
    socket.connect(&addr.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.write_all(&[name.as_bytes(), b"\n", content].concat()).unwrap();
}

/// Runs a command of `lea` on a directory. Returns its exit code, and stdout and stderr.
fn run(command: &[&str], dir: &Path) -> (Option<i32>, String) {
    let output = std::process::Command::new(lea()).args(command).arg(dir).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// Checks the exit code of `lea verify`, and that its output has these words.
#[track_caller]
fn check_verify(dir: &Path, code: i32, words: &[&str]) {
    let (found, text) = run(&["verify"], dir);
    assert_eq!(found, Some(code), "{text}");
    words.iter().for_each(|word| assert!(text.contains(word), "{word:?} is not in {text}"));
}

/// Waits until a stream is recovered. Returns its length.
#[track_caller]
fn wait_recovered(output: &Path, file: &str) -> u64 {
    wait_for(DEADLINE, &format!("the recovery of {file}"), || {
        manifest(output, file).filter(|manifest| manifest.state == ManifestState::Recovered)
    })
    .bytes
}

#[test]
fn a_closed_stream_is_not_changed_from_elsewhere() {
    let work = Workdir::new();
    let server = Server::start(&work.join("out"), &[]);
    let output = server.output().to_owned();
    let (start, rest) = (&capture()[..700], &capture()[700..]);
    send_from("127.0.0.1", server.addr(), NAME, start);
    wait_connections(&output, NAME, 1);
    send_from("127.0.0.9", server.addr(), NAME, PACKET);
    let forged = wait_closed(&output, "v.pcap.2");
    assert_eq!(forged.continues, Some(PartPosition { file: NAME.to_owned(), at: 700 }));
    let (_, listed) = run(&["ls", "--json"], &output);
    assert!(listed.contains(r#""continues":{"file":"v.pcap","at":700}"#), "{listed}");
    // Its sender goes on, and a re-send from elsewhere is only compared.
    send_from("127.0.0.1", server.addr(), NAME, rest);
    wait_connections(&output, NAME, 2);
    send_from("127.0.0.9", server.addr(), NAME, &capture());
    wait_connections(&output, NAME, 3);
    let stderr = server.term();
    let logged = "stream_not_continued file=v.pcap.2 of=v.pcap at=700 reason=other_address";
    assert!(stderr.contains(logged), "{stderr}");
    assert!(stderr.contains(" name=v.pcap file=v.pcap.2 bytes="), "{stderr}");
    assert_whole(&output, NAME, &capture());
    assert_whole(&output, "v.pcap.2", PACKET);
    assert_only(&output, [NAME, "v.pcap.2"]);
}

#[test]
fn a_sender_that_comes_back_too_late_gets_a_part_of_its_own() {
    let work = Workdir::new();
    let server = Server::start(&work.join("out"), &["--continue-within", "0"]);
    let output = server.output().to_owned();
    send_from("127.0.0.1", server.addr(), NAME, &capture()[..700]);
    wait_connections(&output, NAME, 1);
    // The times are in milliseconds.
    std::thread::sleep(std::time::Duration::from_millis(5));
    send_from("127.0.0.1", server.addr(), NAME, &capture()[700..]);
    let late = wait_closed(&output, "v.pcap.2");
    assert_eq!(late.continues, Some(PartPosition { file: NAME.to_owned(), at: 700 }));
    // An equal re-send needs no permission, and a longer one leaves the file as it is.
    send_from("127.0.0.1", server.addr(), NAME, &capture()[..700]);
    wait_connections(&output, NAME, 2);
    send_from("127.0.0.1", server.addr(), NAME, &capture());
    let whole = wait_closed(&output, "v.pcap.3");
    assert_eq!(whole.repeats, Some(PartPosition { file: NAME.to_owned(), at: 700 }));
    server.term();
    assert_whole(&output, NAME, &capture()[..700]);
    assert_whole(&output, "v.pcap.3", &capture());
}

/// C13: the first connection is half open, and the sender goes on over a second one.
#[test]
fn a_second_connection_says_where_the_first_one_stopped() {
    let work = Workdir::new();
    let mut server = Server::start(&work.join("out"), &["--admin-listen", "127.0.0.1:0"]);
    let admin = server.status_addr();
    let output = server.output().to_owned();
    let mut first = Sender::open(server.addr(), NAME, Handshake::Newline);
    first.send(&capture()[..300]);
    wait_until(DEADLINE, "the first bytes", || status::metric(admin, "received_bytes_total") == 300);
    send_from("127.0.0.1", server.addr(), NAME, &capture()[300..]);
    let second = wait_closed(&output, "v.pcap.2");
    assert_eq!(second.continues, Some(PartPosition { file: NAME.to_owned(), at: 300 }));
    first.reset();
    let stored = wait_closed(&output, NAME);
    assert_eq!((stored.bytes, stored.end_reason), (300, Some(EndReason::Reset)));
    let stderr = server.term();
    assert!(
        stderr.contains("stream_not_continued file=v.pcap.2 of=v.pcap at=300 reason=still_open"),
        "{stderr}"
    );
    // As docs/streams.md says, the parts are joined by their offsets.
    let mut joined = fs::read(output.join(NAME)).unwrap();
    joined.truncate(300);
    joined.extend(fs::read(output.join("v.pcap.2")).unwrap());
    assert_eq!(joined, capture());
    fs::write(work.join("joined.pcap"), joined).unwrap();
    tshark_ok(&work.join("joined.pcap")).unwrap();
}

/// C5, N7: `ls`, the log, metrics and `verify` say that a capture is damaged.
#[test]
fn damage_shows_everywhere() {
    let work = Workdir::new();
    let mut server = Server::start(&work.join("out"), &["--admin-listen", "127.0.0.1:0"]);
    let admin = server.status_addr();
    let output = server.output().to_owned();
    let whole = capture();
    let malformed = [&whole[..24], &[0xff; 64][..]].concat();
    send_from("127.0.0.1", server.addr(), "whole.pcap", &whole);
    send_from("127.0.0.1", server.addr(), "cut.pcap", &whole[..whole.len() - 1]);
    send_from("127.0.0.1", server.addr(), "malformed.pcap", &malformed);
    for file in ["whole.pcap", "cut.pcap", "malformed.pcap"] {
        wait_closed(&output, file);
    }
    for (kind, expected) in [("truncated", 1), ("malformed", 1)] {
        assert_eq!(status::metric(admin, &format!("streams_damaged_total{{kind=\"{kind}\"}}")), expected);
    }
    let stderr = server.term();
    let line =
        |name: &str| stderr.lines().find(|line| line.contains(&format!("name={name} "))).unwrap().to_owned();
    assert!(line("cut.pcap").contains(" reason=eof damage=\"truncated within a packet, "), "{stderr}");
    assert!(line("malformed.pcap").contains(" damage=\"malformed at byte 24\""), "{stderr}");
    assert!(!line("whole.pcap").contains("damage"), "{stderr}");
    check_verify(&output, 3, &["damaged", "cut.pcap: truncated within", "malformed at byte 24", "damaged=2"]);
    let (code, table) = run(&["ls"], &output);
    assert_eq!(code, Some(0));
    assert!(table.contains("PROBLEM") && table.contains("malformed at byte 24"), "{table}");
    for file in ["cut.pcap", "malformed.pcap"] {
        fs::remove_file(output.join(file)).unwrap();
        fs::remove_file(output.join(format!("{file}{SUFFIX}"))).unwrap();
    }
    check_verify(&output, 0, &["damaged=0"]);
}

/// The journal was emptied, damaged or removed after a crash.
#[test]
fn open_streams_are_recovered_without_a_journal() {
    let damages: [fn(&Path); 3] = [
        |journal| fs::write(journal, "").unwrap(),
        |journal| fs::write(journal, "{\"open\":{\"file\":\"v.p\n\0\0\0\0").unwrap(),
        |journal| fs::remove_file(journal).unwrap(),
    ];
    for damage in damages {
        let work = Workdir::new();
        let mut server = Server::start(&work.join("out"), &[]);
        let output = server.output().to_owned();
        let mut sender = Sender::open(server.addr(), NAME, Handshake::Newline);
        sender.send(&capture());
        wait_until(DEADLINE, "the content", || {
            output.join(NAME).metadata().is_ok_and(|file| file.len() == capture().len() as u64)
        });
        server.kill9();
        damage(&output.join(".lea/open.jsonl"));
        check_verify(&output, 3, &["no receiver is running"]);
        let (_, table) = run(&["ls"], &output);
        assert!(table.contains("no receiver is running"), "{table}");
        server.restart();
        assert_eq!(wait_recovered(&output, NAME), capture().len() as u64);
        server.term();
        check_verify(&output, 0, &["damaged=0"]);
        // After a clean end the directory is not searched again: nothing is open.
        let server = Server::start(&output, &[]);
        assert!(!server.term().contains("recovered"));
    }
}

/// A FIFO or a socket in place of one of lea's own files.
#[test]
fn the_start_does_not_wait_for_a_pipe() {
    for name in
        ["open.jsonl", "lock", "checkpoints.jsonl", "events.db", "event-dead-letters.jsonl", "spool/1"]
    {
        let work = Workdir::new();
        let path = work.join("out/.lea").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
            .unwrap();
        let mut command = std::process::Command::new(lea());
        command.args(["serve-tcp", "--listen", "127.0.0.1:0", "--output"]).arg(work.join("out"));
        let mut process = Process::start(&mut command);
        process.wait_code(DEADLINE, 1);
        let expected = format!("lea: cannot use {}: not a regular file (remove it)", path.display());
        assert_eq!(process.stderr(), expected);
    }
}
