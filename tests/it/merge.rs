//! `lea merge`: the directories of the members of a group become one exact file per stream, even if a member
//! was killed in between.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use lea::cc::vault::manifest::{Manifest, ManifestState, SUFFIX, StreamSource};

use crate::stored::OutputDir;
use crate::support::broker::VERSIONS;
use crate::support::generated::{pcap, pcapng};
use crate::support::process::Process;
use crate::support::{Broker, Random, Workdir, assert_same, lea, long, wait_until};

/// Time limit for a member to read its records.
const PATIENCE: Duration = Duration::from_secs(180);

/// Number of streams in a scene, half of them pcap and half pcapng, all different.
const STREAMS: usize = 64;

/// Bytes per record.
const CHUNK: usize = 200;

/// Bytes per stream.
const BYTES: usize = 16 << 10;

/// Streams of one topic with their sent content.
struct Scene {
    work: Workdir,
    topic: String,
    sent: Vec<(String, Vec<u8>)>,
}

impl Scene {
    fn new(broker: &Broker, topic: String, partitions: i32) -> Scene {
        broker.topic(&topic, partitions);
        let mut random = Random::with_seed(1);
        let capture = |number| match number % 2 {
            0 => (format!("{number}.pcap"), pcap(&mut random, BYTES).bytes),
            _ => (format!("{number}.pcapng"), pcapng(&mut random, BYTES).bytes),
        };
        let sent: Vec<_> = (0..STREAMS).map(capture).collect();
        let work = Workdir::new();
        fs::create_dir(work.join("sent")).unwrap();
        sent.iter().for_each(|(name, content)| drop(work.write(format!("sent/{name}"), content)));
        Scene { work, topic, sent }
    }

    /// Sends all streams at once, while members consume.
    fn producer(&self, broker: &Broker) -> Process {
        let mut command = Command::new(lea());
        command
            .args(["-q", "replay"])
            .args(self.sent.iter().map(|(name, _)| self.work.join("sent").join(name)))
            .args(["--kafka", &broker.addr(), "--topic", &self.topic, "--topspeed"])
            .args(["--chunk", &CHUNK.to_string()])
            .stdin(Stdio::null());
        Process::start(&mut command)
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.work.join(name)
    }

    fn consumer(&self, broker: &Broker, member: &str, args: &[&str]) -> Command {
        let mut command = Command::new(lea());
        command
            .args(["-q", "consume-kafka", "--brokers", &broker.addr(), "--topic", &self.topic])
            .args(["--group", &self.topic, "--sync-interval", "50ms", "--output"])
            .arg(self.dir(member))
            .args(["-X", "session.timeout.ms=6000", "-X", "heartbeat.interval.ms=200"])
            .args(args)
            .stdin(Stdio::null());
        command
    }

    fn member(&self, broker: &Broker, member: &str) -> Process {
        Process::start(&mut self.consumer(broker, member, &[]))
    }

    /// Consumes the remaining records, as a member with this directory.
    fn take_rest(&self, broker: &Broker, member: &str) {
        let output = self.consumer(broker, member, &["--exit-at-end"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn merge(&self, members: &[&str], output: &str) -> Output {
        let dirs = members.iter().map(|member| self.dir(member));
        let mut command = Command::new(lea());
        command.arg("merge").args(dirs).arg("--output").arg(self.dir(output)).stdin(Stdio::null());
        command.output().unwrap()
    }

    /// Merges. Checks that the output equals what was sent, and that the merged directories did not change.
    #[track_caller]
    fn check_merged(&self, members: &[&str], output: &str) {
        let before: Vec<_> = members.iter().map(|member| all_files(&self.dir(member))).collect();
        let merged = self.merge(members, output);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = format!("{}\n{}", text(&merged.stdout), text(&merged.stderr));
        for (name, content) in &self.sent {
            assert_same(&self.dir(output).join(name), content);
        }
        assert_eq!(merged.status.code(), Some(0), "{said}");
        let expected: BTreeSet<String> = self.sent.iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(stream_files(&self.dir(output)), expected);
        let verified = Command::new(lea()).arg("verify").arg(self.dir(output)).output().unwrap();
        assert!(verified.status.success(), "{}", text(&verified.stdout));
        let after: Vec<_> = members.iter().map(|member| all_files(&self.dir(member))).collect();
        assert!(before == after, "a folder that was merged has changed");
    }

    fn bytes_sent(&self) -> u64 {
        self.sent.iter().map(|(_, content)| content.len() as u64).sum()
    }
}

fn stream_files(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().into_string().unwrap());
    names.filter(|name| !name.starts_with('.') && !name.ends_with(SUFFIX)).collect()
}

fn stored_bytes(dir: &Path) -> u64 {
    let length = |name: &String| fs::metadata(dir.join(name)).map_or(0, |found| found.len());
    stream_files(dir).iter().map(length).sum()
}

/// Returns all files in a directory with their content.
fn all_files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(all_files(&path));
        } else {
            found.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

#[test]
fn a_member_that_was_killed_and_the_one_that_went_on() {
    let broker = Broker::start(VERSIONS[1]);
    let mut random = Random::new("merge");
    // In parallel, because each waits for seconds until the group removes the killed member.
    for batch in 0..if long() { 20 } else { 2 } {
        let scenes = (0..5).map(|at| Scene::new(&broker, format!("t-{batch}-{at}"), 3));
        let scenes: Vec<Scene> = scenes.collect();
        std::thread::scope(|scope| {
            for scene in &scenes {
                let chance = Random::with_seed(random.next());
                let broker = &broker;
                scope.spawn(move || kill_and_merge(broker, scene, chance));
            }
        });
    }
}

fn kill_and_merge(broker: &Broker, scene: &Scene, mut random: Random) {
    let mut producer = scene.producer(broker);
    let mut first = scene.member(broker, "a");
    wait_until(PATIENCE, "records in the first folder", || stored_bytes(&scene.dir("a")) > 0);
    // Kill after a number of bytes or after a time, whichever comes first.
    let at = 1 + random.below(scene.bytes_sent());
    let after = Duration::from_millis(random.below(1000));
    let started = Instant::now();
    wait_until(PATIENCE, "the moment to kill", || {
        stored_bytes(&scene.dir("a")) >= at || started.elapsed() >= after
    });
    first.kill();
    producer.wait_code(PATIENCE, 0);
    scene.take_rest(broker, "b");
    eprintln!(
        "merge: {}, {} and {} bytes of {}",
        scene.topic,
        stored_bytes(&scene.dir("a")),
        stored_bytes(&scene.dir("b")),
        scene.bytes_sent()
    );
    scene.check_merged(&["a", "b"], "killed");
    scene.check_merged(&["b", "a"], "turned");
    // After its restart, the member rolls its files back to the last checkpoint and has nothing to add.
    scene.take_rest(broker, "a");
    scene.check_merged(&["a", "b"], "back");
    // A merged directory can be merged again.
    scene.check_merged(&["b", "killed"], "again");
}

#[test]
fn members_that_hand_over_in_good_order() {
    let broker = Broker::start(VERSIONS[0]);
    let scene = Scene::new(&broker, "t".to_owned(), 3);
    let mut first = scene.member(&broker, "a");
    let mut producer = scene.producer(&broker);
    wait_until(PATIENCE, "records in the first folder", || stored_bytes(&scene.dir("a")) > 0);
    let mut second = scene.member(&broker, "b");
    let stored = || stored_bytes(&scene.dir("a")) + stored_bytes(&scene.dir("b"));
    producer.wait_code(PATIENCE, 0);
    wait_until(PATIENCE, "all records", || stored() >= scene.bytes_sent());
    wait_until(PATIENCE, "the second folder", || scene.dir("b").join(".lea/lock").exists());
    // Directories of running members are rejected, and nothing is created.
    let refused = scene.merge(&["a", "b"], "refused");
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is in use by process"));
    assert!(!scene.dir("refused").exists());
    for member in [&mut first, &mut second] {
        member.signal(rustix::process::Signal::TERM);
        member.wait_code(PATIENCE, 0);
    }
    // On a busy machine a member may have lost its partitions for a while, so bytes were counted twice.
    scene.take_rest(&broker, "b");
    scene.check_merged(&["a", "b"], "all");
}

#[test]
fn what_nobody_has_is_named() {
    let broker = Broker::start(VERSIONS[1]);
    let scene = Scene::new(&broker, "t".to_owned(), 1);
    // Three directories in sequence; the second one is lost.
    for member in ["a", "b", "c"] {
        scene.producer(&broker).wait_code(PATIENCE, 0);
        scene.take_rest(&broker, member);
    }
    let each = scene.sent.iter().map(|(_, content)| content.len().div_ceil(CHUNK)).sum::<usize>();
    let merged = scene.merge(&["a", "c"], "all");
    let said = String::from_utf8_lossy(&merged.stdout).into_owned();
    assert_eq!(merged.status.code(), Some(3), "{said}");
    assert!(said.contains(&format!("missing t-0: offsets {each} to {}\n", 2 * each - 1)), "{said}");
    let merged = scene.merge(&["b", "c"], "rest");
    let said = String::from_utf8_lossy(&merged.stdout).into_owned();
    assert_eq!(merged.status.code(), Some(3), "{said}");
    assert!(said.contains(&format!("missing t-0: offsets before {each}\n")), "{said}");
    // With all three directories: each stream was sent three times, and is stored once.
    scene.check_merged(&["a", "b", "c"], "whole");
}

#[test]
fn a_merge_never_writes_into_what_is_there_and_can_be_run_again() {
    let work = Workdir::new();
    fs::create_dir_all(work.join("a/.lea")).unwrap();
    let merge = |args: &[&str]| {
        let mut command = Command::new(lea());
        command.current_dir(work.path()).arg("merge").args(args).output().unwrap()
    };
    let check = |args: &[&str], code: i32, said: &str| {
        let output = merge(args);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains(said), "{text}");
    };
    fs::create_dir(work.join("foreign")).unwrap();
    check(&["foreign", "--output", "out"], 2, "is not an output directory of lea");
    check(&["a", "a/.", "--output", "out"], 2, "is given twice");
    work.write("foreign/file", "x");
    check(&["a", "--output", "foreign"], 2, "is not empty");
    // Left by a killed merge.
    fs::create_dir_all(work.join("out.lea-merge/.lea")).unwrap();
    work.write("out.lea-merge/.lea/merging", "");
    work.write("out.lea-merge/half", "x");
    check(&["a", "--output", "out"], 0, "merged streams=0");
    assert!(stream_files(&work.join("out")).is_empty() && !work.join("out.lea-merge").exists());
    // Left by another program.
    fs::create_dir(work.join("new.lea-merge")).unwrap();
    work.write("new.lea-merge/file", "x");
    check(&["a", "--output", "new"], 2, "was not created by a merge");
    assert_eq!(fs::read(work.join("new.lea-merge/file")).unwrap(), b"x");
}

#[test]
fn streams_without_records_are_merged_from_every_directory() {
    for source in [StreamSource::Tcp, StreamSource::Lines] {
        let dirs = [("the first sending", OutputDir::new()), ("the second one", OutputDir::new())];
        for (content, dir) in &dirs {
            let manifest = dir.store("stream", 1, content.as_bytes(), ManifestState::Closed);
            dir.write_manifest(&Manifest { source, ..manifest });
        }
        let work = Workdir::new();
        let output = work.join("out");
        let mut command = Command::new(lea());
        command.arg("merge").args(dirs.iter().map(|(_, dir)| dir.path())).arg("--output").arg(&output);
        let merged = command.output().unwrap();
        assert!(merged.status.success(), "{}", String::from_utf8_lossy(&merged.stderr));
        for (file, (content, _)) in ["stream", "stream.2"].iter().zip(&dirs) {
            assert_eq!(fs::read_to_string(output.join(file)).unwrap(), *content, "{source:?} {file}");
        }
    }
}
