//! Faults of the disk, injected with strace into every write, sync, rename and open of a stream's life. What the manifest,
//! /health, the exit code and `lea verify` say must be true in each.

use super::*;

/// A server whose system calls fail.
struct Faulty {
    process: Process,
    addr: SocketAddr,
    admin: SocketAddr,
    work: Workdir,
    /// Ends with the server.
    _strace: Option<Process>,
}

impl Faulty {
    /// Starts a server. `inject` is strace's: `fdatasync:error=EIO:when=1`. Counts are per thread. Only calls on these
    /// paths, relative to the output directory, fail.
    #[track_caller]
    fn start(inject: &str, paths: &[&str]) -> Faulty {
        let work = Workdir::new();
        let output = work.join("out");
        fs::create_dir_all(output.join(".lea/tmp")).unwrap();
        let syscall = inject.split(':').next().unwrap();
        // -D: the process is lea itself, so that signals reach it.
        let mut wrapper = ["strace", "-D", "-f", "-qq", "-o", "/dev/null"].map(str::to_owned).to_vec();
        for path in paths {
            wrapper.extend([
                "-P".to_owned(),
                output.join(path).canonicalize().unwrap_or_else(|_| output.join(path)).display().to_string(),
            ]);
        }
        wrapper.extend([
            "-e".to_owned(),
            format!("trace={syscall}"),
            "-e".to_owned(),
            format!("inject={inject}"),
        ]);
        let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
        let (mut process, addr) = wrapped::start(&wrapper, &output, &["--admin-listen", "127.0.0.1:0"]);
        let admin = wrapped::listening(&mut process, "admin");
        Faulty { process, addr, admin, work, _strace: None }
    }

    /// Attaches strace to a server that runs, so that calls of its start do not count.
    #[track_caller]
    fn attach(inject: &str, paths: &[&str]) -> Faulty {
        let work = Workdir::new();
        let output = work.join("out");
        let (mut process, addr) =
            wrapped::start(&["nice", "-n", "0"], &output, &["--admin-listen", "127.0.0.1:0"]);
        let admin = wrapped::listening(&mut process, "admin");
        let mut command = std::process::Command::new("strace");
        command.args(["-f", "-o", "/dev/null", "-p", &process.id().to_string()]);
        for path in paths {
            command.arg("-P").arg(output.join(path).canonicalize().unwrap());
        }
        let syscall = inject.split(':').next().unwrap();
        command.args(["-e", &format!("trace={syscall}"), "-e", &format!("inject={inject}")]);
        let mut strace = Process::start(&mut command);
        let attached = format!("Process {} attached", process.id());
        strace.wait_line(DEADLINE, "strace", |line| line.contains(&attached).then_some(()));
        Faulty { process, addr, admin, work, _strace: Some(strace) }
    }

    /// Sends a stream and waits until it has ended.
    fn send(&mut self, name: &str) {
        send_from("127.0.0.1", self.addr, name, &capture());
        let ended = ["stream_ended", "stream_failed"];
        self.process.wait_line(DEADLINE, "the end of the stream", |line| {
            ended.iter().any(|event| line.contains(event)).then_some(())
        });
    }

    #[track_caller]
    fn wait_health(&self, word: &str) {
        wait_until(DEADLINE, &format!("health {word}"), || status::health(self.admin) == word);
    }

    /// Ends the server. Checks its exit code and that of `lea verify`.
    #[track_caller]
    fn end(mut self, exit: i32, verify: i32) -> (Workdir, String) {
        self.process.signal(Signal::TERM);
        self.process.wait_code(DEADLINE, exit);
        check_verify(&self.work.join("out"), verify, &[]);
        (self.work, self.process.stderr())
    }
}

/// A fault that passes: the stream is stored, and nothing is wrong.
#[track_caller]
fn check_repaired(inject: &str, paths: &[&str], event: &str) {
    let mut faulty = Faulty::start(inject, paths);
    faulty.send(NAME);
    wait_closed(&faulty.work.join("out"), NAME);
    faulty.wait_health("ok");
    let (work, stderr) = faulty.end(0, 0);
    assert!(stderr.contains(event), "{inject}: {stderr}");
    assert_whole(&work.join("out"), NAME, &capture());
}

#[test]
fn a_sync_that_fails_once_is_repaired() {
    check_repaired("fdatasync:error=EIO:when=1", &[NAME], "file_rewritten file=v.pcap from=0 to=1559");
}

#[test]
fn a_manifest_that_fails_once_is_written_again() {
    // The first manifest of a stream is `0`, the one at its end `1`.
    check_repaired("fdatasync:error=EIO:when=1", &[".lea/tmp/1"], "manifest_retried file=v.pcap");
    check_repaired("write:error=EIO:when=1", &[".lea/tmp/1"], "manifest_retried file=v.pcap");
}

#[test]
fn a_full_disk_that_passes_is_waited_for() {
    check_repaired("pwritev:error=ENOSPC:when=1..3", &[NAME], "disk_write_resumed");
    check_repaired("fdatasync:error=ENOSPC:when=1..3", &[NAME], "file_rewritten file=v.pcap");
}

#[test]
fn a_sync_that_keeps_failing_leaves_unsynced_bytes() {
    let mut faulty = Faulty::start("fdatasync:error=EIO:when=1+", &[NAME]);
    faulty.send(NAME);
    let manifest = wait_closed(&faulty.work.join("out"), NAME);
    assert_eq!(manifest.end_reason, Some(EndReason::IoError));
    assert_eq!((manifest.unsynced_bytes, manifest.lost_bytes), (capture().len() as u64, 0));
    // The disk itself can be written, so the next stream is accepted, and the loss stays.
    faulty.wait_health("data_lost");
    assert_eq!(status::metric(faulty.admin, "unsynced_bytes_total"), capture().len() as u64);
    let (work, stderr) = faulty.end(1, 3);
    assert!(stderr.contains("sync_failed file=v.pcap"), "{stderr}");
    check_verify(&work.join("out"), 3, &["the last 1559 bytes may not be on the disk"]);
}

#[test]
fn a_write_that_fails_is_a_loss() {
    let mut faulty = Faulty::start("pwritev:error=EIO:when=1", &[NAME]);
    faulty.send(NAME);
    let manifest = wait_closed(&faulty.work.join("out"), NAME);
    assert_eq!((manifest.end_reason, manifest.bytes), (Some(EndReason::IoError), 0));
    assert_eq!(manifest.lost_bytes, capture().len() as u64);
    faulty.wait_health("data_lost");
    // A re-send brings what was lost.
    send_from("127.0.0.1", faulty.addr, NAME, &capture());
    wait_until(DEADLINE, "the re-send", || {
        fs::read(faulty.work.join("out").join(NAME)).is_ok_and(|stored| stored == capture())
    });
    wait_connections(&faulty.work.join("out"), NAME, 2);
    let (work, _) = faulty.end(1, 0);
    assert_whole(&work.join("out"), NAME, &capture());
}

/// A stream whose file or manifest cannot be created is lost, and said to be.
#[track_caller]
fn check_not_started(inject: &str, paths: &[&str], verify: i32) {
    check_lost(Faulty::start(inject, paths), inject, verify);
}

#[track_caller]
fn check_lost(mut faulty: Faulty, inject: &str, verify: i32) {
    faulty.send(NAME);
    faulty.wait_health("data_lost");
    let lost = status::metric(faulty.admin, "lost_bytes_total");
    assert_eq!(lost, capture().len() as u64, "{inject}");
    let (work, stderr) = faulty.end(1, verify);
    assert!(stderr.contains("stream_incomplete file=v.pcap lost_bytes=1559"), "{inject}: {stderr}");
    // The next start removes the doubt: nothing of the stream is stored.
    Server::start(&work.join("out"), &[]).term();
    check_verify(&work.join("out"), 0, &[]);
}

#[test]
fn a_stream_that_cannot_be_recorded_is_a_loss() {
    check_not_started("write:error=EIO:when=1", &[".lea/open.jsonl"], 0);
}

#[test]
fn a_stream_without_its_first_manifest_is_a_loss() {
    // The empty file has no manifest until the next start.
    check_not_started("renameat:error=EIO:when=1", &[".lea/tmp"], 3);
    check_not_started("write:error=EIO:when=1", &[".lea/tmp/0"], 3);
    check_not_started("fchmod:error=EIO:when=1", &[NAME], 3);
}

#[test]
fn a_directory_that_cannot_be_read_is_a_loss() {
    for inject in ["openat:error=EIO:when=1+", "openat:error=EIO:when=2"] {
        check_lost(Faulty::attach(inject, &["."]), inject, 0);
    }
}

#[test]
fn a_file_that_cannot_be_opened_to_write_is_a_loss() {
    // The first call of the stream's thread fails too, so that another part number is taken.
    let mut faulty = Faulty::attach("openat:error=EIO:when=1", &["."]);
    faulty.send(NAME);
    let output = faulty.work.join("out");
    let manifest = wait_closed(&output, "v.pcap.2");
    assert_eq!(
        (manifest.end_reason, manifest.lost_bytes),
        (Some(EndReason::IoError), capture().len() as u64)
    );
    faulty.wait_health("data_lost");
    let (_, stderr) = faulty.end(1, 3);
    assert!(stderr.contains("stored_file_unusable file=v.pcap "), "{stderr}");
}

#[test]
fn a_rename_that_fails_once_is_repeated() {
    let mut faulty = Faulty::start("renameat:error=EIO:when=2", &[".lea/tmp"]);
    // The thread that closes streams renames for the second time when the second one ends.
    for name in ["first.pcap", "second.pcap"] {
        faulty.send(name);
        wait_closed(&faulty.work.join("out"), name);
    }
    faulty.wait_health("ok");
    let (work, stderr) = faulty.end(0, 0);
    assert!(stderr.contains("manifest_retried file=second.pcap"), "{stderr}");
    assert_whole(&work.join("out"), "second.pcap", &capture());
}

#[test]
fn a_stream_whose_last_manifest_cannot_be_published_stays_open() {
    let mut faulty = Faulty::start("renameat:error=EIO:when=2+", &[".lea/tmp"]);
    faulty.send("first.pcap");
    wait_closed(&faulty.work.join("out"), "first.pcap");
    send_from("127.0.0.1", faulty.addr, NAME, &capture());
    faulty.process.wait_line(DEADLINE, "the failure", |line| {
        line.contains("manifest_failed file=v.pcap").then_some(())
    });
    faulty.wait_health("data_lost");
    let (work, _) = faulty.end(1, 3);
    let output = work.join("out");
    assert_eq!(manifest(&output, NAME).unwrap().state, ManifestState::Open);
    // The next start finds it in the journal.
    let server = Server::start(&output, &[]);
    assert_eq!(wait_recovered(&output, NAME), capture().len() as u64);
    server.term();
    check_verify(&output, 0, &[]);
}

#[test]
fn names_that_cannot_be_synced_fail_the_exit_code() {
    let mut faulty = Faulty::start("fsync:error=EIO:when=1", &["."]);
    faulty.send(NAME);
    wait_closed(&faulty.work.join("out"), NAME);
    faulty.wait_health("data_lost");
    let (work, stderr) = faulty.end(1, 0);
    assert!(stderr.contains("sync_failed file=- error="), "{stderr}");
    assert_whole(&work.join("out"), NAME, &capture());
}

#[test]
fn a_sync_of_everything_that_fails_is_repeated_file_by_file() {
    let mut faulty = Faulty::start("syncfs:error=EIO:when=1+", &["."]);
    let names: Vec<String> = (0..20).map(|number| format!("stream-{number}.pcap")).collect();
    let mut senders: Vec<Sender> =
        names.iter().map(|name| Sender::open(faulty.addr, name, Handshake::Newline)).collect();
    senders.iter_mut().for_each(|sender| sender.send(&capture()[..700]));
    faulty
        .process
        .wait_line(DEADLINE, "the failed syncfs", |line| line.contains("sync_failed file=-").then_some(()));
    for mut sender in senders {
        sender.send(&capture()[700..]);
        sender.finish();
    }
    let output = faulty.work.join("out");
    names.iter().for_each(|name| drop(wait_closed(&output, name)));
    faulty.wait_health("ok");
    let (work, _) = faulty.end(0, 0);
    names.iter().for_each(|name| assert_whole(&work.join("out"), name, &capture()));
}
