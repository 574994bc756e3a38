//! The same name again: a stream continues, is re-sent, differs, or arrives while another one is open. Stored
//! bytes are never overwritten, and a sender that was disconnected and re-sends everything ends with one
//! exact file.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use lea::cc::vault::SAME_NAME_TIMEOUT;
use lea::cc::vault::manifest::{EndReason, ManifestState, SUFFIX};

use crate::support::generated::{self, Generated};
use crate::support::stored::{assert_only, assert_whole, identity, names_in, wait_connections};
use crate::support::{DEADLINE, Handshake, Random, Sender, Server, Workdir, manifest, wait_until};

mod foreign;
mod peers;

const NAME: &str = "+447700900123-2-3_21_11_2026_20:59:41.pcap";
const NAME_2: &str = "+447700900123-2-3_21_11_2026_20:59:41.pcap.2";
const NAME_3: &str = "+447700900123-2-3_21_11_2026_20:59:41.pcap.3";

/// A directory, a server and a random generator.
struct Scene {
    work: Workdir,
    server: Server,
    random: Random,
}

impl Scene {
    fn new(test: &str) -> Scene {
        Scene::with(test, |_| {}, &[])
    }

    /// Lets `prepare` fill the output directory before the server starts.
    fn with(test: &str, prepare: impl FnOnce(&Path), flags: &[&str]) -> Scene {
        let work = Workdir::new();
        let output = work.join("out");
        fs::create_dir(&output).unwrap();
        prepare(&output);
        let server = Server::start(&output, flags);
        Scene { work, server, random: Random::new(test) }
    }

    fn capture(&mut self, bytes_min: usize) -> Vec<u8> {
        generated::pcap(&mut self.random, bytes_min).bytes
    }

    fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    fn output(&self) -> &Path {
        self.server.output()
    }

    /// Opens a stream with the name and without content.
    fn open(&self) -> Sender {
        Sender::open(self.addr(), NAME, Handshake::Newline)
    }

    /// Sends a complete stream with the name. `file` then has `connections` connections.
    #[track_caller]
    fn send(&self, content: &[u8], file: &str, connections: usize) {
        let mut sender = self.open();
        sender.send(content);
        sender.finish();
        wait_connections(self.output(), file, connections);
    }

    /// Shuts the server down and checks each file, and that there are no other files.
    #[track_caller]
    fn end(self, files: &[(&str, &[u8])]) {
        let output = self.output().to_owned();
        self.server.term();
        for (file, content) in files {
            assert_whole(&output, file, content);
        }
        assert_only(&output, files.iter().map(|(file, _)| *file));
        drop(self.work);
    }
}

fn half(content: &[u8]) -> (&[u8], &[u8]) {
    // Nearly always in the middle of a packet.
    content.split_at(content.len() / 2)
}

#[test]
fn a_stream_goes_on_after_its_end() {
    let mut scene = Scene::new("goes on");
    let content = scene.capture(50_000);
    let (first, second) = half(&content);
    scene.send(first, NAME, 1);
    assert!(manifest(scene.output(), NAME).unwrap().capture.truncated_bytes > 0, "it ends in a packet");
    scene.send(second, NAME, 2);
    let manifest = manifest(scene.output(), NAME).unwrap();
    assert_eq!(manifest.capture.truncated_bytes, 0, "the cut packet is whole now");
    let brought: Vec<_> = manifest.connections.iter().map(|one| (one.offset, one.bytes)).collect();
    assert_eq!(brought, [(0, first.len() as u64), (first.len() as u64, second.len() as u64)]);
    scene.end(&[(NAME, &content)]);
}

#[test]
fn a_pcapng_stream_goes_on_in_the_middle_of_a_block() {
    let mut scene = Scene::new("pcapng goes on");
    let Generated { bytes, ends } = generated::pcapng(&mut scene.random, 20_000);
    // In the section header, the interface, a packet header, packet data, the trailing length.
    let cuts = [13, 30, ends[3] + 5, ends[8] + 40, ends[12] - 2];
    let mut at = 0;
    for (number, cut) in cuts.into_iter().chain([bytes.len()]).enumerate() {
        scene.send(&bytes[at..cut], NAME, number + 1);
        at = cut;
    }
    let packets = manifest(scene.output(), NAME).unwrap().capture.packets;
    assert_eq!(packets, ends.len() as u64 - 3, "a section, an interface, and packets");
    scene.end(&[(NAME, &bytes)]);
}

#[test]
fn a_re_send_that_is_equal_writes_nothing() {
    let mut scene = Scene::new("equal");
    let content = scene.capture(700_000);
    scene.send(&content, NAME, 1);
    let file = scene.output().join(NAME);
    let before = identity(&file);
    for (connections, part) in [(2, &content[..]), (3, &content[..content.len() / 3]), (4, &content[..])] {
        scene.send(part, NAME, connections);
        let manifest = manifest(scene.output(), NAME).unwrap();
        let last = manifest.connections.last().unwrap();
        assert_eq!((last.bytes, last.compared_bytes), (0, part.len() as u64));
        assert_eq!(last.end_reason, Some(EndReason::Eof));
        assert_eq!(identity(&file), before, "the file was written");
    }
    scene.end(&[(NAME, &content)]);
}

#[test]
fn a_re_send_goes_on_past_what_is_stored() {
    let mut scene = Scene::new("past");
    let content = scene.capture(600_000);
    let cut = content.len() / 2;
    scene.send(&content[..cut], NAME, 1);
    // The end of the stored bytes is in the middle, at the start and at the end of a send.
    let cuts = [cut + 1000, cut + 70_000, content.len()];
    for (number, end) in cuts.into_iter().enumerate() {
        let mut sender = scene.open();
        sender.send(&content[..1]);
        sender.send(&content[1..cut]);
        sender.send(&content[cut..end]);
        sender.finish();
        let manifest = wait_connections(scene.output(), NAME, number + 2);
        let last = manifest.connections.last().unwrap();
        assert_eq!((last.compared_bytes, last.offset + last.bytes), (last.offset, end as u64));
    }
    scene.end(&[(NAME, &content)]);
}

#[test]
fn what_differs_gets_a_part_of_its_own_with_all_of_it() {
    let mut scene = Scene::new("differs");
    let content = scene.capture(300_000);
    scene.send(&content, NAME, 1);
    let before = identity(&scene.output().join(NAME));
    let mut other = content.clone();
    other[200_000] ^= 1;
    scene.send(&other, NAME_2, 1);
    assert_eq!(identity(&scene.output().join(NAME)), before);
    let mut third = content.clone();
    third[100_000] ^= 1;
    scene.send(&third, NAME_3, 1);
    // Each part is compared from now on.
    scene.send(&other, NAME_2, 2);
    scene.send(&third, NAME_3, 2);
    scene.send(&content, NAME, 2);
    let manifest = manifest(scene.output(), NAME_2).unwrap();
    assert_eq!((manifest.part, manifest.name.as_str()), (2, NAME));
    scene.end(&[(NAME, &content), (NAME_2, &other), (NAME_3, &third)]);
}

#[test]
fn what_differs_from_the_first_byte_on_too() {
    let mut scene = Scene::new("differs at once");
    let pcap = scene.capture(5_000);
    let pcapng = generated::pcapng(&mut scene.random, 5_000).bytes;
    scene.send(&pcap, NAME, 1);
    scene.send(&pcapng, NAME_2, 1);
    // A continuation is appended to the part that was written last.
    let mut on = scene.open();
    on.send(b"and more");
    on.finish();
    wait_connections(scene.output(), NAME_2, 2);
    scene.end(&[(NAME, &pcap), (NAME_2, &[&pcapng[..], b"and more"].concat())]);
}

#[test]
fn a_part_that_is_the_start_of_another_goes_on() {
    let mut scene = Scene::new("start of another");
    let content = scene.capture(400_000);
    let mut other = content.clone();
    other[300_000] ^= 1;
    // Two streams at the same time: the second one gets its own part, and sends only the start.
    let mut first = scene.open();
    first.send(&content);
    wait_stored(&scene, NAME, content.len());
    scene.send(&content[..150_000], NAME_2, 1);
    first.finish();
    wait_connections(scene.output(), NAME, 1);
    // It differs from the first part after the end of the second one: it is appended to the second, and no
    // third part is created.
    scene.send(&other, NAME_2, 2);
    // A stream that equals both is appended to the longer one.
    let longer = [&content[..], &other[250_000..]].concat();
    scene.send(&longer, NAME, 2);
    scene.end(&[(NAME, &longer), (NAME_2, &other)]);
}

#[test]
fn a_copy_cut_by_a_kill_goes_on() {
    let mut scene = Scene::new("copy and kill");
    let content = scene.capture(6_000_000);
    scene.send(&content, NAME, 1);
    let mut other = content.clone();
    let last = other.len() - 1;
    other[last] ^= 1;
    // Everything is compared and then copied. The kill comes during the copy.
    let mut sender = scene.open();
    sender.send(&other);
    let part = scene.output().join(NAME_2);
    wait_until(DEADLINE, "the copy", || part.metadata().is_ok_and(|metadata| metadata.len() > 0));
    scene.server.kill9();
    drop(sender);
    let copied = fs::read(&part).unwrap();
    assert!(other.starts_with(&copied), "what was copied is a start");
    scene.server.restart();
    scene.send(&other, NAME_2, 2);
    scene.end(&[(NAME, &content), (NAME_2, &other)]);
}

#[test]
fn the_first_bytes_of_a_re_send_may_come_one_by_one() {
    let mut scene = Scene::new("one by one");
    let makes: [fn(&mut Random, usize) -> Generated; 2] = [generated::pcap, generated::pcapng];
    for (number, make) in makes.into_iter().enumerate() {
        let name = format!("one-by-one-{number}");
        let content = make(&mut scene.random, 3_000).bytes;
        for connection in 1..=2 {
            let mut sender = Sender::open(scene.addr(), &name, Handshake::Newline);
            for byte in content[..14].chunks(1) {
                sender.send(byte);
                thread::sleep(Duration::from_millis(30));
            }
            sender.send(&content[14..]);
            sender.finish();
            wait_connections(scene.output(), &name, connection);
        }
        assert_whole(scene.output(), &name, &content);
    }
    let files = names_in(scene.output());
    assert_eq!(files.len(), 5, "{files:?}");
}

#[test]
fn a_re_send_may_end_within_its_first_bytes() {
    let mut scene = Scene::new("ends early");
    let pcapng = generated::pcapng(&mut scene.random, 3_000).bytes;
    scene.send(&pcapng, NAME, 1);
    // A complete magic number is a re-send, also without the rest of the header.
    for (number, end) in [4, 8, 11, 12, 13].into_iter().enumerate() {
        scene.send(&pcapng[..end], NAME, number + 2);
        let compared = manifest(scene.output(), NAME).unwrap().connections.last().unwrap().compared_bytes;
        assert_eq!(compared, end as u64);
    }
    assert_whole(scene.output(), NAME, &pcapng);
    // Fewer bytes are ambiguous, so they are stored.
    scene.send(&pcapng[..3], NAME, 7);
    scene.end(&[(NAME, &[&pcapng, &pcapng[..3]].concat())]);
}

#[test]
fn a_name_without_content_changes_nothing() {
    let mut scene = Scene::new("no content");
    let content = scene.capture(3_000);
    for _ in 0..2 {
        Sender::open(scene.addr(), "empty", Handshake::Newline).finish();
        let manifest = wait_connections(scene.output(), "empty", 1);
        assert_eq!((manifest.bytes, manifest.state), (0, ManifestState::Closed));
    }
    scene.send(&content, NAME, 1);
    let before = identity(&scene.output().join(format!("{NAME}{SUFFIX}")));
    scene.open().finish();
    // The same while another stream is open.
    let mut on = Sender::open(scene.addr(), "empty", Handshake::Newline);
    on.send(&content);
    Sender::open(scene.addr(), "empty", Handshake::Newline).finish();
    on.finish();
    wait_connections(scene.output(), "empty", 2);
    assert_eq!(identity(&scene.output().join(format!("{NAME}{SUFFIX}"))), before);
    scene.end(&[(NAME, &content), ("empty", &content)]);
}

#[test]
fn fifty_connections_of_one_name() {
    let mut scene = Scene::new("fifty");
    let content = scene.capture(20_000);
    let started = Instant::now();
    thread::scope(|scope| {
        for _ in 0..50 {
            let (scene, content) = (&scene, &content);
            scope.spawn(move || {
                let mut sender = scene.open();
                sender.send(content);
                sender.finish();
            });
        }
    });
    let took = started.elapsed();
    let output = scene.output().to_owned();
    scene.server.term();
    // One of them writes. The others wait for it and find equal bytes; one that has waited too long gets its
    // own part.
    let files: Vec<_> = names_in(&output).into_iter().filter(|name| !name.starts_with('.')).collect();
    let parts: Vec<_> = files.iter().filter(|name| !name.ends_with(SUFFIX)).map(|name| &**name).collect();
    eprintln!("fifty: {} parts in {took:?}", parts.len());
    assert!(parts.len() == 1 || took >= SAME_NAME_TIMEOUT, "{parts:?}");
    let connections = |part: &&str| manifest(&output, part).unwrap().connections.len();
    assert_eq!(parts.iter().map(connections).sum::<usize>(), 50);
    parts.iter().for_each(|part| assert_whole(&output, part, &content));
    assert_only(&output, parts.iter().copied());
}

/// Waits until `bytes` bytes of a file are stored.
#[track_caller]
fn wait_stored(scene: &Scene, file: &str, bytes: usize) {
    let path = scene.output().join(file);
    wait_until(DEADLINE, &format!("{bytes} bytes of {file}"), || {
        path.metadata().is_ok_and(|metadata| metadata.len() == bytes as u64)
    });
}
