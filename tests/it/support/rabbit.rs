//! A real RabbitMQ of a test's own, by `scripts/rabbitmq`, and its publishers, in Python with pika.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::Workdir;

/// A running node. It ends with this process at the latest.
pub(crate) struct Rabbit {
    dir: Workdir,
}

impl Rabbit {
    /// Starts one on a free port.
    #[track_caller]
    pub(crate) fn start() -> Rabbit {
        let rabbit = Rabbit { dir: Workdir::new() };
        rabbit.restart();
        rabbit
    }

    /// Starts it again: same port, same data.
    #[track_caller]
    pub(crate) fn restart(&self) {
        succeed(&self.script("start"));
    }

    /// Stops it in good order.
    #[track_caller]
    pub(crate) fn stop(&self) {
        succeed(&self.script("stop"));
    }

    /// Its port.
    pub(crate) fn port(&self) -> String {
        fs::read_to_string(self.dir.join("port")).unwrap().trim().to_owned()
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2F", self.port())
    }

    /// Publishes lines, a message each; gives how many messages the queue has then.
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
