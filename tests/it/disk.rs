//! Disks that fill up, stay full, or refuse a write for good. The disk is a small tmpfs.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use lea::cc::vault::manifest::{EndReason, ManifestState};
use rustix::process::Signal;

use crate::support::process::Process;
use crate::support::stored::{assert_only, assert_vouched, assert_whole, wait_connections};
use crate::support::tmpfs::Tmpfs;
use crate::support::{
    DEADLINE, Handshake, Random, Sender, Server, Workdir, generated, manifest, status, wait_until, wrapped,
};

const MIB: u64 = 1 << 20;

/// A small disk, and a server on it.
struct Scene {
    server: Server,
    status_addr: SocketAddr,
    disk: Tmpfs,
    output: PathBuf,
    random: Random,
    /// Last, so that it is removed when nothing uses it any more.
    _work: Workdir,
}

impl Scene {
    fn new(test: &str, disk_bytes: u64, flags: &[&str]) -> Scene {
        let work = Workdir::new();
        let disk = Tmpfs::mount(&work, disk_bytes);
        let output = disk.join("out");
        let mut server = Server::start(&output, &[&["--admin-listen", "127.0.0.1:0"], flags].concat());
        let status_addr = server.status_addr();
        Scene { server, status_addr, disk, output, random: Random::new(test), _work: work }
    }

    fn capture(&mut self, bytes_min: usize) -> Vec<u8> {
        generated::pcap(&mut self.random, bytes_min).bytes
    }

    fn open(&self, name: &str) -> Sender {
        Sender::open(self.server.addr(), name, Handshake::Newline)
    }

    fn send(&self, name: &str, content: &[u8], connections: usize) {
        let mut sender = self.open(name);
        sender.send(content);
        sender.finish();
        wait_connections(&self.output, name, connections);
    }

    #[track_caller]
    fn wait_health(&self, health: &str) {
        wait_until(DEADLINE, &format!("health {health}"), || status::health(self.status_addr) == health);
    }
}

fn file_len(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

fn count(stderr: &str, event: &str) -> usize {
    stderr.lines().filter(|line| line.contains(event)).count()
}

#[test]
fn streams_wait_for_room_and_go_on_by_themselves() {
    let mut scene = Scene::new("waits for room", 16 * MIB, &["--reserve-disk", "0"]);
    let contents: Vec<_> = (0..8).map(|_| scene.capture(300_000)).collect();
    let mut senders: Vec<_> = (0..6).map(|number| scene.open(&format!("stream-{number}"))).collect();
    for (sender, content) in senders.iter_mut().zip(&contents) {
        sender.send(&content[..100_000]);
    }
    let stored = |number: usize| file_len(&scene.output.join(format!("stream-{number}")));
    wait_until(DEADLINE, "the start of all", || (0..6).all(|number| stored(number) > 90_000));
    scene.disk.fill(0);
    thread::scope(|scope| {
        // Senders do not have to notice it: their bytes wait in the sockets.
        for (sender, content) in senders.into_iter().zip(&contents) {
            let mut sender = sender;
            scope.spawn(move || {
                sender.send(&content[100_000..]);
                sender.finish();
            });
        }
        // Two new streams on the full disk.
        for (number, content) in contents.iter().enumerate().skip(6) {
            let scene = &scene;
            scope.spawn(move || {
                let mut sender = scene.open(&format!("stream-{number}"));
                sender.send(content);
                sender.finish();
            });
        }
        scene.wait_health("disk_full");
        let since = Instant::now();
        while since.elapsed() < Duration::from_secs(2) {
            assert_eq!(status::health(scene.status_addr), "disk_full");
            thread::sleep(Duration::from_millis(50));
        }
        scene.disk.free();
    });
    for number in 0..8 {
        wait_connections(&scene.output, &format!("stream-{number}"), 1);
    }
    scene.wait_health("ok");
    assert!(status::metric(scene.status_addr, "write_retries_total") > 0);
    assert_eq!(status::metric(scene.status_addr, "lost_bytes_total"), 0);
    let stderr = scene.server.term();
    assert_eq!(count(&stderr, "disk_write_blocked"), 1, "at most one a minute: {stderr}");
    assert_eq!(count(&stderr, "disk_write_resumed"), 1, "{stderr}");
    let names: Vec<String> = (0..8).map(|number| format!("stream-{number}")).collect();
    names.iter().zip(&contents).for_each(|(name, content)| assert_whole(&scene.output, name, content));
    assert_only(&scene.output, names.iter().map(|name| &**name));
}

#[test]
fn a_disk_that_fills_again_and_again_is_warned_of_once_a_minute() {
    let mut scene = Scene::new("again and again", 8 * MIB, &["--reserve-disk", "0"]);
    let content = scene.capture(900_000);
    let mut sender = scene.open("stream");
    sender.send(&content[..1_000]);
    for piece in content[1_000..].chunks(100_000) {
        scene.disk.fill(0);
        sender.send(piece);
        scene.wait_health("disk_full");
        scene.disk.free();
        scene.wait_health("ok");
    }
    sender.finish();
    let stderr = scene.server.term();
    assert_eq!(
        (count(&stderr, "disk_write_blocked"), count(&stderr, "disk_write_resumed")),
        (1, 1),
        "{stderr}"
    );
    assert_whole(&scene.output, "stream", &content);
}

/// Space that manifests and the journal may use below the reserved space.
const OURS: u64 = 256 << 10;

#[test]
fn so_much_room_stays_free() {
    let mut scene = Scene::new("stays free", 24 * MIB, &["--reserve-disk", "8M"]);
    let (fits, fast) = (scene.capture(1_000_000), scene.capture(30_000_000));
    scene.disk.fill(8 * MIB + 1_200_000 + OURS);
    scene.send("fits", &fits, 1);
    assert_eq!(status::health(scene.status_addr), "ok");
    scene.disk.free();
    // At full speed: the writer must not exceed the limit before the next check of the free space.
    let mut sender = scene.open("fast");
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = sender.try_send(&fast);
        });
        scene.wait_health("disk_full");
        let since = Instant::now();
        while since.elapsed() < Duration::from_secs(1) {
            let free = scene.disk.free_bytes();
            assert!(free + OURS >= 8 * MIB, "only {free} bytes are free");
            assert!(free <= 8 * MIB + MIB, "it waits with {free} bytes free");
        }
        scene.server.process().signal(Signal::TERM);
    });
    scene.server.process().wait_code(DEADLINE, 1);
    let stored = fs::read(scene.output.join("fast")).unwrap();
    assert!(fast.starts_with(&stored));
    assert_vouched(&scene.output, "fast");
}

/// Bytes that stderr says are missing, by stream.
fn lost(stderr: &str) -> BTreeMap<String, u64> {
    let mut lost = BTreeMap::new();
    for line in stderr.lines().filter(|line| line.contains(" stream_incomplete ")) {
        let field = |name: &str| {
            let (_, rest) = line.split_once(&format!(" {name}=")).unwrap_or_else(|| panic!("{line}"));
            rest.split(' ').next().unwrap().to_owned()
        };
        assert!(line.contains("[ERROR]"), "{line}");
        *lost.entry(field("file")).or_insert(0) += field("lost_bytes").parse::<u64>().unwrap();
    }
    lost
}

#[test]
fn still_full_at_the_drain_it_says_what_is_missing() {
    let flags = ["--reserve-disk", "0", "--shutdown-timeout", "500ms"];
    let mut scene = Scene::new("full at the drain", 8 * MIB, &flags);
    let names = ["grows", "sent-again", "differs", "new", "whole"];
    let mut contents: BTreeMap<&str, Vec<u8>> =
        names.into_iter().map(|name| (name, scene.capture(60_000))).collect();
    scene.send("whole", &contents["whole"], 1);
    scene.send("sent-again", &contents["sent-again"][..30_000], 1);
    scene.send("differs", &contents["differs"], 1);
    let mut grows = scene.open("grows");
    grows.send(&contents["grows"][..30_000]);
    wait_until(DEADLINE, "the stream that grows", || file_len(&scene.output.join("grows")) > 25_000);
    scene.disk.fill(0);

    let mut other = contents["differs"].clone();
    other[50_000] ^= 1;
    contents.insert("differs.2", other);
    grows.send(&contents["grows"][30_000..]);
    scene.wait_health("disk_full");
    let mut waiting = vec![grows];
    for (name, content) in [("sent-again", "sent-again"), ("differs", "differs.2"), ("new", "new")] {
        let mut sender = scene.open(name);
        sender.send(&contents[content]);
        waiting.push(sender);
    }
    // Waits until all bytes are at least in the sockets of the receiver.
    thread::sleep(Duration::from_millis(500));
    scene.server.process().signal(Signal::TERM);
    scene.server.process().wait_code(DEADLINE, 1);
    drop(waiting);
    let stderr = scene.server.process().stderr();
    let lost = lost(&stderr);
    for name in ["grows", "sent-again", "new"] {
        let missing = contents[name].len() as u64 - file_len(&scene.output.join(name));
        assert_eq!(lost.get(name), Some(&missing), "{name}: {stderr}");
    }
    // A part for the stream that differs may exist or not. The missing bytes start before the difference.
    let missing = contents["differs.2"].len() as u64 - file_len(&scene.output.join("differs.2"));
    let differs = *lost.get("differs").or(lost.get("differs.2")).unwrap();
    assert!((contents["differs"].len() as u64 - 50_000..=missing).contains(&differs), "{differs}: {stderr}");
    assert_eq!(lost.len(), 4, "{stderr}");
    assert!(!scene.output.join("grows").exists() || manifest(&scene.output, "grows").is_some());

    // The next start, first without and then with free space: stored data is recognized, and everything
    // continues.
    scene.server.restart();
    scene.disk.free();
    for name in ["grows", "sent-again", "new"] {
        let mut sender = scene.open(name);
        sender.send(&contents[name]);
        sender.finish();
    }
    let mut sender = scene.open("differs");
    sender.send(&contents["differs.2"]);
    sender.finish();
    scene.server.term();
    for (name, content) in &contents {
        assert_whole(&scene.output, name, content);
    }
    assert_only(&scene.output, contents.keys().copied());
}

#[test]
fn a_start_on_a_full_disk_write_blocked_too() {
    let mut scene = Scene::new("start", 8 * MIB, &["--reserve-disk", "0"]);
    let names: Vec<String> = (0..200).map(|number| format!("stream-{number}")).collect();
    let contents: Vec<_> = names.iter().map(|_| scene.capture(2_000)).collect();
    let mut senders: Vec<_> = names.iter().map(|name| scene.open(name)).collect();
    senders.iter_mut().zip(&contents).for_each(|(sender, content)| sender.send(&content[..1_000]));
    wait_until(DEADLINE, "all files", || names.iter().all(|name| manifest(&scene.output, name).is_some()));
    scene.server.kill9();
    scene.disk.fill(0);
    drop(senders);
    // There are streams to recover, and a journal with their names.
    scene.server.restart();
    thread::scope(|scope| {
        for (name, content) in names.iter().zip(&contents) {
            let scene = &scene;
            scope.spawn(move || {
                let mut sender = scene.open(name);
                sender.send(content);
                sender.finish();
            });
        }
        thread::sleep(Duration::from_millis(300));
        scene.disk.free();
    });
    scene.server.term();
    names.iter().zip(&contents).for_each(|(name, content)| assert_whole(&scene.output, name, content));
    assert_only(&scene.output, names.iter().map(|name| &**name));
}

#[test]
fn an_error_that_does_not_pass_ends_that_stream_alone() {
    const LIMIT: usize = 200_000;
    let work = Workdir::new();
    let output = work.join("out");
    let mut random = Random::new("file size");
    let mut capture = |bytes_min| generated::pcap(&mut random, bytes_min).bytes;
    let (small, exact, large) = (capture(50_000), capture(LIMIT)[..LIMIT].to_vec(), capture(2 * LIMIT));
    let wrapper = ["prlimit", &format!("--fsize={LIMIT}:{LIMIT}")];
    let (mut process, addr): (Process, _) = wrapped::start(&wrapper, &output, &[]);
    let open = |name: &str| Sender::open(addr, name, Handshake::Newline);
    let mut beside = open("beside");
    beside.send(&small[..20_000]);
    let mut too_large = open("large");
    let _ = too_large.try_send(&large);
    too_large.wait_close();
    let lost = wait_connections(&output, "large", 1);
    assert_eq!((lost.state, lost.end_reason), (ManifestState::Closed, Some(EndReason::IoError)));
    assert_eq!(lost.bytes, LIMIT as u64);
    assert!(lost.lost_bytes > 0 && lost.bytes + lost.lost_bytes <= large.len() as u64);
    assert_vouched(&output, "large");
    // The other streams are not affected.
    beside.send(&small[20_000..]);
    beside.finish();
    let mut fits = open("exact");
    fits.send(&exact);
    fits.finish();
    wait_connections(&output, "exact", 1);
    process.signal(Signal::TERM);
    process.wait_code(DEADLINE, 1);
    assert_eq!(count(&process.stderr(), "stream_incomplete file=large lost_bytes="), 1);
    assert_whole(&output, "beside", &small);
    assert_whole(&output, "exact", &exact);
    // Without the limit, a re-send completes the file.
    let server = Server::start(&output, &[]);
    let mut again = Sender::open(server.addr(), "large", Handshake::Newline);
    again.send(&large);
    again.finish();
    server.term();
    assert_whole(&output, "large", &large);
    assert_only(&output, ["beside", "exact", "large"]);
}
