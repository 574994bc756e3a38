//! Dumps from pipes: records appear when they arrive, and a signal ends a run that waits.

use std::fs::{self, File};
use std::io::Write;
use std::process::{ChildStdin, Command, Stdio};

use rustix::process::Signal;

use super::*;
use crate::support::DEADLINE;
use crate::support::process::Process;
use crate::support::wait_until;

/// Starts `lea decode` with a pipe as standard input.
fn start(args: &[&str], stdout: Stdio) -> (Process, ChildStdin) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lea"));
    command.arg("decode").args(args).stdin(Stdio::piped()).stdout(stdout);
    let mut process = Process::start(&mut command);
    let stdin = process.stdin();
    (process, stdin)
}

#[test]
fn records_are_stored_when_they_arrive() {
    let dir = Workdir::new();
    let out = dir.join("out");
    let (mut process, mut stdin) = start(&["-o", out.to_str().unwrap()], Stdio::null());
    for (nth, value) in values().iter().enumerate() {
        writeln!(stdin, "{value}").unwrap();
        let bytes = 100 * (nth + 1);
        // The file ends at the last whole packet.
        let stored = || fs::metadata(out.join(NAME)).map_or(0, |file| file.len() as usize);
        wait_until(DEADLINE, "the packets that arrived", || stored() + 700 > bytes && stored() > 0);
    }
    drop(stdin);
    process.wait_code(DEADLINE, 0);
    assert_eq!(fs::read(out.join(NAME)).unwrap(), stream());
}

#[test]
fn chunks_are_printed_when_they_arrive() {
    let dir = Workdir::new();
    let printed = dir.join("printed");
    let (mut process, mut stdin) = start(&["--json"], File::create(&printed).unwrap().into());
    for (nth, value) in values().iter().enumerate() {
        writeln!(stdin, "{value}").unwrap();
        let lines = || fs::read_to_string(&printed).unwrap().lines().count();
        wait_until(DEADLINE, "the line of the chunk", || lines() == nth + 1);
    }
    drop(stdin);
    process.wait_code(DEADLINE, 0);
}

/// The writer of the pipe stays silent: before the first byte, within a record, and after a record, and
/// with compressed bytes.
#[test]
fn a_signal_ends_a_run_that_waits() {
    let first = values()[0].clone() + "\n";
    let mut gzip = gzip(&plain_text());
    gzip.truncate(200);
    for sent in [&b""[..], &first.as_bytes()[..50], first.as_bytes(), &gzip] {
        let (mut process, mut stdin) = start(&["--json", "-v"], Stdio::null());
        stdin.write_all(sent).unwrap();
        let is_read = || rustix::io::ioctl_fionread(&stdin).is_ok_and(|left| left == 0);
        wait_until(DEADLINE, "the bytes to be read", is_read);
        let handles = || {
            let status = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
            let caught =
                status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim().to_owned();
            u64::from_str_radix(&caught, 16).unwrap() & 1 << (Signal::INT.as_raw() - 1) != 0
        };
        wait_until(DEADLINE, "the handler of the signal", handles);
        process.signal(Signal::INT);
        process.wait_code(DEADLINE, 3);
        drop(stdin);
    }
}

fn plain_text() -> Vec<u8> {
    lines(|_, value| value.to_owned())
}
