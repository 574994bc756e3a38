//! The event store on disk (T5): damage is named by every command, and reading changes nothing.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use rusqlite::{Connection, OpenFlags};

use super::*;
use crate::support::Events;
use crate::support::tmpfs::Tmpfs;

/// User and group that own nothing.
const STRANGER: u32 = 65_534;

/// Starts a receiver and sends it events, one per request.
fn start_with_events(output: &Path, flags: &[&str], events: u32) -> Events {
    let server = Events::start(output, flags);
    for n in 0..events {
        let event = format!(r#"{{"event":"start_call","n":{n},"userid":"+4477009001{:02}"}}"#, n % 100);
        assert_eq!(server.post("/calls/_doc", &event)["result"], "created");
    }
    server
}

/// Content, time and permissions of all files of a directory.
fn state(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, i64, i64, u32)> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let found = entry.metadata().unwrap();
        if found.is_dir() {
            files.extend(state(&entry.path()));
        } else {
            let content = fs::read(entry.path()).unwrap();
            files.insert(entry.path(), (content, found.mtime(), found.mtime_nsec(), found.mode()));
        }
    }
    files
}

/// Flips a bit in each page that holds only events, and in no other. `keep`: pages at the end that are left alone.
fn damage_events(path: &Path, keep: usize) {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let file = format!("file:{}?immutable=1", path.display());
    let connection = Connection::open_with_flags(file, flags).unwrap();
    let pages = "SELECT pageno FROM dbstat WHERE name = 'documents' AND pagetype = 'leaf' ORDER BY path";
    let mut statement = connection.prepare(pages).unwrap();
    let pages: Vec<usize> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert!(pages.len() > 2, "{pages:?}");
    let mut bytes = fs::read(path).unwrap();
    pages[..pages.len() - keep].iter().for_each(|page| bytes[(page - 1) * 8_192 + 4_000] ^= 1);
    fs::write(path, bytes).unwrap();
}

/// Runs the commands that read events, and checks that each sees `events`.
#[track_caller]
fn check_readers(output: &Path, events: usize, as_user: Option<u32>) {
    let out = output.to_str().unwrap();
    // Other users may not be able to reach the program where it was built.
    let program = output.parent().unwrap().join("lea-for-all");
    if !program.exists() {
        assert!(Command::new("cp").arg(lea()).arg(&program).status().unwrap().success());
    }
    let run = |args: &[&str]| {
        let mut command = Command::new(&program);
        command.args(args).current_dir("/");
        if let Some(user) = as_user {
            command.uid(user).gid(STRANGER);
        }
        let found = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&found.stderr).into_owned();
        assert!(found.status.success(), "{args:?}: {stderr}");
        String::from_utf8(found.stdout).unwrap()
    };
    assert_eq!(run(&["count", "--store", out]).trim(), events.to_string());
    assert_eq!(run(&["search", "--json", "--size", "all", "--store", out]).lines().count(), events);
    assert_eq!(run(&["events", "export", "--store", out]).lines().count(), events);
    assert_eq!(run(&["events", "export", "--damaged", "--store", out]).lines().count(), events);
    run(&["verify", out]);
}

#[test]
fn t5_readers_change_nothing_after_a_kill() {
    let work = Workdir::new();
    let output = work.join("out");
    let mut server = start_with_events(&output, &[], 60);
    server.kill9();
    let before = state(&output);
    assert!(before.keys().any(|path| path.ends_with("events.db-wal")), "the kill leaves a log");
    check_readers(&output, 60, None);
    assert!(state(&output) == before, "a reader has changed a file");
}

#[test]
fn t5_readers_work_on_a_read_only_mount() {
    let work = Workdir::new();
    let disk = Tmpfs::mount(&work, 512 << 20);
    let output = disk.join("out");
    let mut server = start_with_events(&output, &[], 40);
    server.kill9();
    fs::remove_file(output.join(".lea/events.db-shm")).unwrap();
    assert!(Command::new("cp").arg(lea()).arg(disk.join("lea-for-all")).status().unwrap().success());
    let mount =
        Command::new("mount").args(["-o", "remount,ro"]).arg(output.parent().unwrap()).status().unwrap();
    assert!(mount.success());
    check_readers(&output, 40, None);
}

#[test]
fn t5_the_group_reads_while_a_receiver_runs_and_after_a_kill() {
    let work = Workdir::new();
    fs::set_permissions(work.join(""), fs::Permissions::from_mode(0o755)).unwrap();
    let output = work.join("out");
    let group = STRANGER.to_string();
    let flags = ["--file-mode", "0640", "--file-group", &group];
    let flags = if rustix::process::geteuid().is_root() { &flags[..] } else { &flags[..2] };
    let user = rustix::process::geteuid().is_root().then_some(1);
    let mut server = start_with_events(&output, flags, 30);
    check_readers(&output, 30, user);
    server.kill9();
    check_readers(&output, 30, user);
}

#[test]
fn t5_damage_is_named_by_commands_and_health() {
    let work = Workdir::new();
    let output = work.join("out");
    let server = start_with_events(&output, &[], 400);
    server.term();
    let path = output.join(".lea/events.db");
    let out = output.to_str().unwrap();
    check_verify(&output, 0, &["events=400"]);
    damage_events(&path, 0);
    check_verify(
        &output,
        3,
        &[
            "of events.db is damaged (wrong checksum)",
            "400 of 400 events of index calls cannot be read: numbers 0 to 399",
        ],
    );
    let (code, text) = run(&["events", "export", "--damaged", "--store"], &output);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("exported events=0 lost=400"), "{text}");
    for command in [&["search", "--json", "--store", out][..], &["events", "export", "--store", out]] {
        let found = Command::new(lea()).args(command).output().unwrap();
        let stderr = String::from_utf8_lossy(&found.stderr).into_owned();
        assert_eq!(found.status.code(), Some(1), "{command:?}: {stderr}");
        assert!(stderr.contains("of events.db is damaged"), "{command:?}: {stderr}");
    }
    // An empty file is not a new store.
    fs::write(&path, b"").unwrap();
    check_verify(&output, 3, &["is empty or missing, but 400 documents were acknowledged"]);
    let started =
        Command::new(lea()).args(["serve-events", "--lines", "0", "--output", out]).output().unwrap();
    let stderr = String::from_utf8_lossy(&started.stderr).into_owned();
    assert_eq!(started.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("400 documents were acknowledged"), "{stderr}");
}

#[test]
fn t5_a_running_service_reports_damage() {
    let work = Workdir::new();
    let output = work.join("out");
    start_with_events(&output, &[], 400).term();
    let path = output.join(".lea/events.db");
    // New events go to the last page.
    damage_events(&path, 1);
    let mut server = Events::start(&output, &["--admin-listen", "127.0.0.1:0"]);
    let admin = server.addr("admin");
    let found = server.post("/calls/_search", r#"{"size":1000}"#);
    assert_eq!(found["status"], 500, "{found}");
    assert_eq!(status::health(admin), "store_damaged");
    // New events are stored.
    assert_eq!(server.post("/calls/_doc", r#"{"n":1}"#)["result"], "created");
}

#[test]
fn t5_other_processes_read_while_events_arrive() {
    let work = Workdir::new();
    let output = work.join("out");
    let server = start_with_events(&output, &[], 1);
    let out = output.to_str().unwrap();
    let count = || -> u64 {
        let found = Command::new(lea()).args(["count", "--store", out]).output().unwrap();
        assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
        String::from_utf8(found.stdout).unwrap().trim().parse().unwrap()
    };
    let acknowledged = std::sync::atomic::AtomicU64::new(1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let noise = "x".repeat(4_000);
            for n in 0..600 {
                let event = format!(r#"{{"event":"stop_call","n":{n},"noise":"{n}{noise}"}}"#);
                assert_eq!(server.post("/calls/_doc", &event)["result"], "created");
                acknowledged.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        });
        loop {
            let before = acknowledged.load(std::sync::atomic::Ordering::SeqCst);
            let found = count();
            let after = acknowledged.load(std::sync::atomic::Ordering::SeqCst) + 1;
            assert!((before..=after).contains(&found), "{found} of {before} to {after}");
            if before == 601 {
                break;
            }
        }
    });
    check_verify(&output, 0, &["events=601"]);
    server.term();
    check_verify(&output, 0, &["events=601"]);
}

#[test]
fn t5_old_events_are_purged_by_command_and_by_a_receiver() {
    let work = Workdir::new();
    let output = work.join("out");
    let out = output.to_str().unwrap();
    let server = start_with_events(&output, &[], 5);
    let old = |n: u32| format!(r#"{{"event":"stop_call","@timestamp":"202{n}-03-01T00:00:00Z"}}"#);
    for n in 0..4 {
        assert_eq!(server.post("/calls/_doc", &old(n))["result"], "created");
    }
    let purge = |flags: &[&str]| {
        let args = ["events", "purge", "--before", "2022-01-01", "--time-zone", "utc", "--store", out];
        let found = Command::new(lea()).args(args).args(flags).output().unwrap();
        (found.status.code(), String::from_utf8_lossy(&[found.stdout, found.stderr].concat()).into_owned())
    };
    // A dry run works beside the receiver.
    let (code, text) = purge(&["--dry-run"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("2 calls") && text.contains("found events=2"), "{text}");
    let (code, text) = purge(&[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("is in use by"), "{text}");
    assert_eq!(server.count("/calls/_count"), 9);
    server.term();
    let (code, text) = purge(&[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("events_purged index=calls events=2") && text.contains("purged events=2"),
        "{text}"
    );
    // The receiver deletes the rest, and not those of today.
    let mut server = Events::start(&output, &["--keep-days", "30", "--admin-listen", "127.0.0.1:0"]);
    wait_until(DEADLINE, "five events are left", || server.count("/calls/_count") == 5);
    let admin = server.addr("admin");
    assert_eq!(status::metric(admin, "events_purged_total"), 2);
    let stderr = server.term();
    assert!(stderr.contains("events_purged index=calls events=2"), "{stderr}");
    check_verify(&output, 0, &["events=5"]);
}
