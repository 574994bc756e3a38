//! Access control: which peers may send, and which users may read.

use std::os::unix::fs::MetadataExt;

use super::*;

/// Checks whether 127.0.0.1 and ::1 may send when these networks are allowed.
#[track_caller]
fn check_allowed(networks: &[&str], v4: bool, v6: bool) {
    let work = Workdir::new();
    let mut flags = vec!["--listen", "[::1]:0", "--admin-listen", "127.0.0.1:0"];
    flags.extend(networks.iter().flat_map(|network| ["--allow", network]));
    let mut server = Server::start(&work.join("out"), &flags);
    let addrs = wrapped::addresses(server.process(), "tcp", 2);
    let mut refused = 0;
    for (addr, allowed) in addrs.into_iter().zip([v4, v6]) {
        let mut sender = Sender::connect(addr);
        if allowed {
            sender.send(format!("from-{}\n", if addr.is_ipv4() { 4 } else { 6 }).as_bytes());
            sender.finish();
        } else {
            sender.wait_close();
            refused += 1;
        }
    }
    assert_eq!(
        status::metric(
            server.status_addr(),
            "connections_rejected_total{listener=\"tcp\",reason=\"not_allowed\"}"
        ),
        refused,
        "{networks:?}"
    );
    let output = server.output().to_owned();
    let stderr = server.term();
    assert_eq!(
        stderr.contains("connection_rejected listener=tcp reason=not_allowed"),
        refused > 0,
        "{stderr}"
    );
    assert_eq!((output.join("from-4").exists(), output.join("from-6").exists()), (v4, v6), "{networks:?}");
}

#[test]
fn peers_are_allowed_by_network() {
    check_allowed(&[], true, true);
    check_allowed(&["127.0.0.0/8"], true, false);
    check_allowed(&["127.0.0.1"], true, false);
    check_allowed(&["127.0.0.2"], false, false);
    check_allowed(&["::1"], false, true);
    check_allowed(&["192.0.2.0/24", "::/64"], false, true);
    check_allowed(&["::1", "127.0.0.1/32"], true, true);
    // An IPv4 network written as IPv4-mapped IPv6.
    check_allowed(&["::ffff:127.0.0.1"], true, false);
    check_allowed(&["::ffff:127.0.0.0/104"], true, false);
    check_allowed(&["::ffff:192.0.2.0/120"], false, false);
}

/// Returns mode and group of a path.
fn access(path: &Path) -> (u32, u32) {
    let metadata = fs::symlink_metadata(path).unwrap();
    (metadata.mode() & 0o7777, metadata.gid())
}

#[test]
fn files_and_folders_that_are_made_can_be_read_by_whom_they_are_for() {
    let own = rustix::process::getegid().as_raw();
    for (flags, mode, dir_mode, group) in [
        (&[][..], 0o600, 0o700, own),
        (&["--file-mode", "0640", "--file-group", "54321"], 0o640, 0o750, 54_321),
        (&["--file-mode", "0664"], 0o664, 0o775 & !0o020, own),
    ] {
        let work = Workdir::new();
        // A umask that removes all permissions, and parent directories that are created too.
        let umask = ["sh", "-c", "umask 077; exec \"$@\"", "sh"];
        let output = work.join("made/above/out");
        let content = generated::pcap(&mut Random::new("access"), 2_000).bytes;
        let (mut process, addr) = wrapped::start(&umask, &output, flags);
        let mut sender = Sender::open(addr, "stream", Handshake::Newline);
        sender.send(&content);
        wait_until(DEADLINE, "the file", || manifest(&output, "stream").is_some());
        for state in [ManifestState::Open, ManifestState::Closed] {
            assert_eq!(manifest(&output, "stream").unwrap().state, state);
            assert_eq!(access(&output.join("stream")), (mode, group), "{flags:?}");
            assert_eq!(access(&output.join("stream.lea.json")), (mode, group), "{flags:?}");
            if state == ManifestState::Open {
                sender.half_close();
                crate::support::wait_closed(&output, "stream");
            }
        }
        for made in ["made", "made/above", "made/above/out"] {
            assert_eq!(access(&work.join(made)), (dir_mode, group), "{made} {flags:?}");
        }
        assert_eq!(access(&output.join(".lea")).0, 0o700, "what is ours stays ours");
        process.signal(Signal::TERM);
        process.wait_code(DEADLINE, 0);
    }
}

#[test]
fn a_folder_that_is_there_keeps_its_mode() {
    let work = Workdir::new();
    let output = work.join("out");
    fs::create_dir(&output).unwrap();
    let before = access(&output);
    Server::start(&output, &["--file-mode", "0644", "--file-group", "54321"]).term();
    assert_eq!(access(&output), before);
}
