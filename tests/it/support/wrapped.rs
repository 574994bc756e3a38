//! `lea serve-tcp` started by a wrapper such as `prlimit` or `env`.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use super::process::Process;
use super::{DEADLINE, lea};

/// Starts `WRAPPER... lea serve-tcp --listen 127.0.0.1:0 --output OUTPUT FLAGS...` and waits until it
/// listens.
#[track_caller]
pub(crate) fn start(wrapper: &[&str], output: &Path, flags: &[&str]) -> (Process, SocketAddr) {
    let mut command = Command::new(wrapper[0]);
    command.args(&wrapper[1..]).arg(lea());
    command.args(["serve-tcp", "--listen", "127.0.0.1:0", "--output"]).arg(output).args(flags);
    let mut process = Process::start(command.stdin(Stdio::null()).stdout(Stdio::null()));
    let addr = listening(&mut process, "tcp");
    (process, addr)
}

/// Returns the first address in a line `listening addr=IP:PORT listener=NAME`.
#[track_caller]
pub(crate) fn listening(process: &mut Process, what: &str) -> SocketAddr {
    addresses(process, what, 1)[0]
}

/// Waits for `count` listeners and returns their addresses, in the order of the lines.
#[track_caller]
pub(crate) fn addresses(process: &mut Process, what: &str, count: usize) -> Vec<SocketAddr> {
    let wanted = format!(" listener={what}");
    // The log is read again until it has a line for each listener.
    super::wait_for(DEADLINE, &format!("{count} lines `listening addr=...{wanted}`"), || {
        assert!(process.is_running(), "it ended before it listened:\n{}", process.stderr());
        let stderr = process.stderr();
        let found: Vec<_> = stderr
            .lines()
            .filter_map(|line| line.strip_prefix("listening addr=")?.strip_suffix(&wanted)?.parse().ok())
            .collect();
        (found.len() >= count).then_some(found)
    })
}
