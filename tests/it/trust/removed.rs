//! Files and directories that disappear while a stream grows.

use super::*;
use crate::support::Events;

#[test]
fn a_file_that_was_removed_is_not_vouched_for() {
    let work = Workdir::new();
    let mut server =
        Server::start(&work.join("out"), &["--admin-listen", "127.0.0.1:0", "--sync-interval", "50ms"]);
    let admin = server.status_addr();
    let output = server.output().to_owned();
    let mut sender = Sender::open(server.addr(), NAME, Handshake::Newline);
    sender.send(&capture()[..700]);
    wait_until(DEADLINE, "the file", || output.join(NAME).exists());
    fs::remove_file(output.join(NAME)).unwrap();
    sender.send(&capture()[700..]);
    sender.finish();
    let manifest = wait_closed(&output, NAME);
    assert_eq!((manifest.end_reason, manifest.bytes), (Some(EndReason::IoError), 0));
    assert!(manifest.lost_bytes > 0 && manifest.sha256.is_none(), "{manifest:?}");
    wait_until(DEADLINE, "the loss in /health", || status::health(admin) == "data_lost");
    // The next stream is stored.
    send_from("127.0.0.1", server.addr(), "next.pcap", &capture());
    wait_closed(&output, "next.pcap");
    server.process().signal(Signal::TERM);
    server.process().wait_code(DEADLINE, 1);
    assert_whole(&output, "next.pcap", &capture());
    check_verify(&output, 3, &["missing", "v.pcap: the manifest exists, but its file does not"]);
}

#[test]
fn a_file_that_was_replaced_is_not_vouched_for() {
    let work = Workdir::new();
    let mut server = Server::start(&work.join("out"), &["--sync-interval", "50ms"]);
    let output = server.output().to_owned();
    let mut sender = Sender::open(server.addr(), NAME, Handshake::Newline);
    sender.send(&capture()[..700]);
    wait_until(DEADLINE, "the file", || output.join(NAME).metadata().is_ok_and(|file| file.len() > 0));
    fs::write(work.join("other"), &capture()[..700]).unwrap();
    fs::rename(work.join("other"), output.join(NAME)).unwrap();
    sender.send(&capture()[700..]);
    sender.finish();
    let manifest = wait_closed(&output, NAME);
    assert_eq!((manifest.end_reason, manifest.bytes), (Some(EndReason::IoError), 0));
    server.process().signal(Signal::TERM);
    server.process().wait_code(DEADLINE, 1);
    assert_eq!(fs::read(output.join(NAME)).unwrap(), &capture()[..700], "the other file is left alone");
    check_verify(&output, 3, &[]);
}

/// Without its directory the process cannot store anything, says so and ends with a failure.
#[test]
fn without_its_directory_the_process_ends() {
    let work = Workdir::new();
    let mut server = Server::start(&work.join("out"), &["--sync-interval", "50ms"]);
    let output = server.output().to_owned();
    let mut sender = Sender::open(server.addr(), NAME, Handshake::Newline);
    sender.send(&capture()[..700]);
    wait_until(DEADLINE, "the manifest", || manifest(&output, NAME).is_some());
    fs::remove_dir_all(&output).unwrap();
    server.process().wait_code(DEADLINE, 1);
    let stderr = server.process().stderr();
    assert!(stderr.contains("output_removed dir="), "{stderr}");
}

/// Events are acknowledged only by a process that has its directory.
#[test]
fn events_without_their_directory_end_the_process_too() {
    let work = Workdir::new();
    let mut events = Events::start(&work.join("out"), &["--sync-interval", "50ms"]);
    assert_eq!(events.post("/calls/_doc", r#"{"event":"start_call"}"#)["result"], "created");
    fs::remove_dir_all(work.join("out")).unwrap();
    events.process().wait_code(DEADLINE, 1);
    assert!(events.process().stderr().contains("output_removed dir="), "{}", events.process().stderr());
}
