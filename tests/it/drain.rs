//! Shutdown of a receiver and end of its streams: signals, limits, and the state of growing files until then.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use lea::cc::vault::manifest::{EndReason, ManifestState};
use rustix::process::Signal;

use crate::support::generated::{self, Generated};
use crate::support::stored::{assert_only, assert_vouched, assert_whole, end_reason, wait_connections};
use crate::support::tmpfs::Tmpfs;
use crate::support::{
    DEADLINE, Handshake, Random, Sender, Server, Workdir, manifest, status, wait_until, wrapped,
};

mod access;
mod limits;
mod packets;

/// All bytes that arrived before a signal are stored, and the process ends.
fn check_signal(signal: Signal) {
    let work = Workdir::new();
    let mut server = Server::start(&work.join("out"), &["--name-timeout", "60000ms"]);
    let mut random = Random::new("signal");
    let content = generated::pcap(&mut random, 5_000).bytes;
    let cut = &content[..content.len() - 10];
    let addr = server.addr();
    let output = server.output().to_owned();

    // One stream continues, one has ended, one has a partial packet, and three have sent only a name or part
    // of it.
    let mut grows = Sender::open(addr, "grows", Handshake::Newline);
    grows.send(cut);
    let mut ended = Sender::open(addr, "ended", Handshake::Newline);
    ended.send(&content);
    ended.finish();
    let mut half_name = Sender::connect(addr);
    half_name.send(b"half a na");
    let mut undecided = Sender::connect(addr);
    undecided.send(b"undecided\r\n");
    let silent = Sender::connect(addr);
    wait_connections(&output, "ended", 1);
    wait_until(DEADLINE, "the stream that grows", || {
        fs::metadata(output.join("grows")).is_ok_and(|metadata| metadata.len() > 3_000)
    });
    // While the receiver is stopped (SIGSTOP), more bytes arrive on an open stream, and a connection in the
    // backlog.
    server.process().signal(Signal::STOP);
    let mut backlog = Sender::open(addr, "backlog", Handshake::Joined);
    backlog.send(cut);
    let mut backlog_name = Sender::connect(addr);
    backlog_name.send(b"backlog name");
    grows.send(b"more");
    server.process().signal(signal);
    server.process().signal(Signal::CONT);
    server.process().wait_code(DEADLINE, 0);

    let stderr = server.process().stderr();
    assert_eq!(stderr.lines().filter(|line| line.starts_with("summary ")).count(), 1, "{stderr}");
    assert_whole(&output, "grows", &[cut, b"more"].concat());
    assert_whole(&output, "ended", &content);
    assert_whole(&output, "backlog", cut);
    for name in ["half%20a%20na", "undecided", "backlog%20name"] {
        assert_whole(&output, name, b"");
        assert_eq!(end_reason(&output, name), Some(EndReason::Shutdown), "{name}");
    }
    assert_eq!(end_reason(&output, "grows"), Some(EndReason::Shutdown));
    assert_eq!(end_reason(&output, "backlog"), Some(EndReason::Shutdown));
    assert_only(&output, ["grows", "ended", "backlog", "half%20a%20na", "undecided", "backlog%20name"]);
    drop((grows, half_name, undecided, silent, backlog, backlog_name));
}

#[test]
fn each_signal_keeps_what_arrived() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        check_signal(signal);
    }
}

#[test]
fn a_drain_ends_beside_senders_that_do_not() {
    let work = Workdir::new();
    let mut server = Server::start(&work.join("out"), &["--shutdown-timeout", "300ms"]);
    let (addr, output) = (server.addr(), server.output().to_owned());
    let content = generated::pcap(&mut Random::new("endless"), 100_000).bytes;
    thread::scope(|scope| {
        // One peer sends endlessly, another one connects endlessly.
        scope.spawn(|| {
            let mut sender = Sender::open(addr, "endless", Handshake::Newline);
            while sender.try_send(&content).is_ok() {}
        });
        scope.spawn(|| while TcpStream::connect(addr).is_ok() {});
        let stored = output.join("endless");
        wait_until(DEADLINE, "the endless stream", || {
            fs::metadata(&stored).is_ok_and(|metadata| metadata.len() > 100_000)
        });
        let asked = Instant::now();
        server.process().signal(Signal::TERM);
        server.process().wait_code(DEADLINE, 0);
        eprintln!("endless: drained in {:?}", asked.elapsed());
    });
    assert_vouched(&output, "endless");
    assert_eq!(end_reason(&output, "endless"), Some(EndReason::Shutdown));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let work = Workdir::new();
    let disk = Tmpfs::mount(&work, 4 << 20);
    let mut server =
        Server::start(&disk.join("out"), &["--shutdown-timeout", "600000ms", "--reserve-disk", "0"]);
    let mut sender = Sender::open(server.addr(), "waits", Handshake::Newline);
    let content = generated::pcap(&mut Random::new("second signal"), 100_000).bytes;
    sender.send(&content[..50_000]);
    wait_until(DEADLINE, "the stream", || disk.join("out/waits").exists());
    disk.fill(0);
    sender.send(&content[50_000..]);
    server
        .process()
        .wait_line(DEADLINE, "a full disk", |line| line.contains("disk_write_blocked").then_some(()));
    server.process().signal(Signal::TERM);
    server.process().wait_line(DEADLINE, "the drain", |line| line.contains("draining").then_some(()));
    thread::sleep(Duration::from_millis(300));
    assert!(server.process().is_running(), "the drain does not wait for the disk");
    let asked = Instant::now();
    server.process().signal(Signal::INT);
    server.process().wait_code(DEADLINE, 130);
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    // The next start recognizes the stored data.
    disk.free();
    server.restart();
    let mut again = Sender::open(server.addr(), "waits", Handshake::Newline);
    again.send(&content);
    again.finish();
    server.term();
    assert_whole(&disk.join("out"), "waits", &content);
    assert_only(&disk.join("out"), ["waits"]);
}

#[test]
fn one_process_writes_to_a_folder() {
    let work = Workdir::new();
    let mut server = Server::start(&work.join("out"), &[]);
    let content = generated::pcap(&mut Random::new("lock"), 5_000).bytes;
    let mut sender = Sender::open(server.addr(), "stream", Handshake::Newline);
    sender.send(&content[..2_000]);
    let mut second = assert_cmd::Command::new(crate::support::lea());
    second.args(["serve-tcp", "--listen", "127.0.0.1:0", "--output"]).arg(server.output());
    let output = second.timeout(DEADLINE).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let holder = format!("process {} ", server.process().id());
    assert!(stderr.contains(&holder) && stderr.contains("out is in use by"), "{stderr}");
    assert!(!stderr.contains("listening"), "{stderr}");
    sender.send(&content[2_000..]);
    sender.finish();
    let folder = server.output().to_owned();
    wait_connections(&folder, "stream", 1);
    server.kill9();
    // The lock is released when its holder ends in any way.
    server.restart();
    server.term();
    assert_whole(&folder, "stream", &content);
}
