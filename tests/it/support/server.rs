//! Runs `lea serve-tcp` on a free port.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::process::Process;
use super::{DEADLINE, lea};

/// A running server. Dropping it kills this process only.
pub(crate) struct Server {
    process: Process,
    output: PathBuf,
    flags: Vec<String>,
    addr: SocketAddr,
}

impl Server {
    /// Starts `lea serve-tcp --listen 127.0.0.1:0 --output OUTPUT FLAGS...` and waits until it listens.
    #[track_caller]
    pub(crate) fn start(output: &Path, flags: &[&str]) -> Server {
        Server::start_with(output, flags.iter().map(|flag| flag.to_string()).collect())
    }

    #[track_caller]
    fn start_with(output: &Path, flags: Vec<String>) -> Server {
        let mut command = Command::new(lea());
        command.args(["serve-tcp", "--listen", "127.0.0.1:0", "--output"]).arg(output).args(&flags);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut process = Process::start(&mut command);
        let addr = listening(&mut process, "tcp");
        Server { process, output: output.to_owned(), flags, addr }
    }

    /// Returns the address that accepts streams.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the address of /health, /metrics and /streams. The server must be started with `--admin-listen
    /// 127.0.0.1:0`.
    #[track_caller]
    pub(crate) fn status_addr(&mut self) -> SocketAddr {
        listening(&mut self.process, "admin")
    }

    /// Returns the output directory.
    pub(crate) fn output(&self) -> &Path {
        &self.output
    }

    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Shuts the server down, and panics unless it exits with 0. Returns its stderr.
    #[track_caller]
    pub(crate) fn term(mut self) -> String {
        self.process.signal(Signal::TERM);
        self.process.wait_code(DEADLINE, 0);
        self.process.stderr()
    }

    /// Kills the server with SIGKILL.
    pub(crate) fn kill9(&mut self) {
        self.process.kill();
    }

    /// Restarts the server with the same directory and options. Its port changes.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        *self = Server::start_with(&self.output, self.flags.clone());
    }
}

/// Returns the address in the line `listening addr=IP:PORT listener=NAME`.
#[track_caller]
pub(crate) fn listening(process: &mut Process, what: &str) -> SocketAddr {
    let wanted = format!("listener={what}");
    process.wait_line(DEADLINE, &format!("a line `listening addr=... {wanted}`"), |line| {
        let (_, rest) = line.split_once("listening addr=")?;
        let mut words = rest.split_whitespace();
        let addr = words.next()?.parse().ok()?;
        words.any(|word| word == wanted).then_some(addr)
    })
}

#[cfg(test)]
mod tests {
    use lea::cc::vault::manifest::{EndReason, ManifestState};

    use super::super::{
        Handshake, Random, Sender, Workdir, assert_same, manifest, testdata, wait_closed, wait_for,
    };
    use super::*;

    const NAME: &str = "+447700900123-2-3_21_11_2026_20:59:41.pcap";

    #[test]
    fn a_killed_server_starts_again_in_its_folder() {
        let work = Workdir::new();
        let mut random = Random::new("a_killed_server_starts_again_in_its_folder");
        let capture = testdata("pcap/answered-call.pcap");
        let mut server = Server::start(&work.join("out"), &["--admin-listen", "127.0.0.1:0"]);
        assert_ne!(server.status_addr(), server.addr());

        let mut sender = Sender::open(server.addr(), NAME, Handshake::Joined);
        let sent = 1 + random.below(capture.len() as u64 - 1) as usize;
        sender.send(&capture[..sent]);
        wait_for(DEADLINE, "the manifest", || manifest(&work.join("out"), NAME));
        server.kill9();
        server.restart();

        let mut sender = Sender::open(server.addr(), NAME, Handshake::Joined);
        sender.send_chunks(&capture, 4096);
        sender.finish();
        let manifest = wait_for(DEADLINE, "the end of the second stream", || {
            manifest(server.output(), NAME).filter(|manifest| manifest.bytes == capture.len() as u64)
        });
        assert_ne!(manifest.state, ManifestState::Open);
        assert_same(&server.output().join(NAME), &capture);
        server.term();
    }

    #[test]
    fn a_reset_is_seen_as_one() {
        let work = Workdir::new();
        let server = Server::start(&work.join("out"), &[]);
        let mut sender = Sender::open(server.addr(), NAME, Handshake::Newline);
        sender.send(b"no capture");
        wait_for(DEADLINE, "the content in the file", || {
            std::fs::read(server.output().join(NAME))
                .is_ok_and(|content| content == b"no capture")
                .then_some(())
        });
        let peer = sender.local_addr();
        sender.reset();
        let manifest = wait_closed(server.output(), NAME);
        assert_eq!(manifest.end_reason, Some(EndReason::Reset));
        assert_eq!(manifest.connections[0].peer, peer.to_string());
        assert!(server.term().contains("reset"));
    }
}
