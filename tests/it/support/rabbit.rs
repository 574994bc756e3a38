//! A RabbitMQ node for one test, started by `scripts/rabbitmq`, and publishers that use Python's pika.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::Workdir;

/// A running node. It ends with the test process at the latest.
pub(crate) struct Rabbit {
    dir: Workdir,
}

impl Rabbit {
    /// Starts a node on a free port.
    #[track_caller]
    pub(crate) fn start() -> Rabbit {
        let rabbit = Rabbit { dir: Workdir::new() };
        rabbit.restart();
        rabbit
    }

    /// Restarts the node with the same port and data.
    #[track_caller]
    pub(crate) fn restart(&self) {
        succeed(&self.script("start"));
    }

    /// Shuts the node down cleanly.
    #[track_caller]
    pub(crate) fn stop(&self) {
        succeed(&self.script("stop"));
    }

    pub(crate) fn port(&self) -> String {
        fs::read_to_string(self.dir.join("port")).unwrap().trim().to_owned()
    }

    pub(crate) fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2F", self.port())
    }

    /// Publishes one message per line. Returns the number of messages in the queue afterwards.
    #[track_caller]
    pub(crate) fn publish(&self, queue: &str, lines: &[u8], flags: &[&str]) -> u64 {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = Command::new(root.join("scripts/pika")).output().unwrap();
        succeed(&python);
        let mut command = Command::new(String::from_utf8(python.stdout).unwrap().trim_end());
        command.arg(root.join("tests/it/support/publisher.py")).args([&self.port(), queue]).args(flags);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(lines).unwrap();
        let output = child.wait_with_output().unwrap();
        succeed(&output);
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    }

    fn script(&self, act: &str) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/rabbitmq");
        let mut command = Command::new(&script);
        command.env("RABBITMQ_OWNER", std::process::id().to_string());
        command.arg(act).arg(self.dir.path()).stdin(Stdio::null());
        command.output().unwrap_or_else(|error| panic!("cannot run {}: {error}", script.display()))
    }
}

impl Drop for Rabbit {
    fn drop(&mut self) {
        let _ = self.script("stop");
    }
}

#[track_caller]
fn succeed(output: &Output) {
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
}
