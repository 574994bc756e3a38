//! Runs `lea serve-events` and queries it over HTTP.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::process::Process;
use super::{DEADLINE, Workdir, lea, wait_for};

/// Returns the hash of a password for the configuration.
pub(crate) fn hash_password(password: &str) -> String {
    let mut command = assert_cmd::Command::new(lea());
    let made = command.args(["events", "hash-password"]).write_stdin(password).output().unwrap();
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

/// A running server. Dropping it kills it.
pub(crate) struct Events {
    process: Process,
    output: PathBuf,
    flags: Vec<String>,
    http: SocketAddr,
}

impl Events {
    /// Starts `lea serve-events --http 0 --output OUTPUT FLAGS...` and waits until it listens.
    #[track_caller]
    pub(crate) fn start(output: &Path, flags: &[&str]) -> Events {
        Events::start_with(output, flags.iter().map(|flag| flag.to_string()).collect())
    }

    #[track_caller]
    fn start_with(output: &Path, flags: Vec<String>) -> Events {
        let mut process = Process::start(&mut Events::command(output, &flags));
        let http = listening(&mut process, "listener=http");
        Events { process, output: output.to_owned(), flags, http }
    }

    fn command(output: &Path, flags: &[String]) -> Command {
        let mut command = Command::new(lea());
        command.args(["serve-events", "--http", "0", "--output"]).arg(output).args(flags).env("TZ", "UTC");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// Kills the server with SIGKILL.
    pub(crate) fn kill9(&mut self) {
        self.process.kill();
    }

    /// Restarts the server with the same directory and options. Its ports change.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        *self = Events::start_with(&self.output, self.flags.clone());
    }

    /// Restarts the server without waiting until it listens.
    pub(crate) fn begin(&self) -> Process {
        Process::start(&mut Events::command(&self.output, &self.flags))
    }

    /// Starts a server with a user and password. Its configuration is in `work`, its output directory is
    /// `work/out`.
    #[track_caller]
    pub(crate) fn with_user(work: &Workdir, user: &str, password: &str, flags: &[&str]) -> Events {
        let config = json!({"parameters": {"events": {"users": {user: hash_password(password)}}}});
        let config = work.write("users.conf", config.to_string());
        Events::start(&work.join("out"), &[&["--config", config.to_str().unwrap()], flags].concat())
    }

    /// Returns the address of a listener such as `lines` or `syslog transport=udp`.
    #[track_caller]
    pub(crate) fn addr(&mut self, what: &str) -> SocketAddr {
        listening(&mut self.process, &format!("listener={what}"))
    }

    /// Returns the output directory.
    pub(crate) fn output(&self) -> &Path {
        &self.output
    }

    /// Returns the address of the HTTP API.
    pub(crate) fn http(&self) -> SocketAddr {
        self.http
    }

    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Returns the answer to `GET PATH`.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Value {
        get(self.http, path)
    }

    /// Returns the answer to `POST PATH` with a body.
    #[track_caller]
    pub(crate) fn post(&self, path: &str, body: &str) -> Value {
        json(path, ask_with(self.http, "POST", path, body))
    }

    /// Returns the number of documents that `PATH/_count` finds, or `None` while the index does not exist.
    #[track_caller]
    pub(crate) fn count(&self, path: &str) -> u64 {
        self.get(path)["count"].as_u64().unwrap_or(0)
    }

    /// Waits until `path` counts this many documents.
    #[track_caller]
    pub(crate) fn wait_count(&self, path: &str, count: u64) {
        wait_for(DEADLINE, &format!("{count} of {path}"), || (self.count(path) >= count).then_some(()));
        assert_eq!(self.count(path), count, "{path}");
    }

    /// Returns the sources of all documents of an index, as they are stored.
    #[track_caller]
    pub(crate) fn sources(&self, index: &str) -> Vec<Value> {
        let found = self.get(&format!("/{index}/_search?size=1000"));
        let hits = found["hits"]["hits"].as_array().unwrap_or_else(|| panic!("no hits: {found}"));
        hits.iter().map(|hit| hit["_source"].clone()).collect()
    }

    /// Shuts the server down, and panics unless it exits with 0. Returns its stderr.
    #[track_caller]
    pub(crate) fn term(mut self) -> String {
        self.process.signal(Signal::TERM);
        self.process.wait_code(DEADLINE, 0);
        self.process.stderr()
    }
}

/// Sends bytes over a connection of their own.
#[track_caller]
pub(crate) fn send(addr: SocketAddr, bytes: impl AsRef<[u8]>) {
    TcpStream::connect(addr).unwrap().write_all(bytes.as_ref()).unwrap();
}

/// Returns the JSON body of the answer to `GET PATH`.
#[track_caller]
pub(crate) fn get(addr: SocketAddr, path: &str) -> Value {
    json(path, ask(addr, path))
}

#[track_caller]
fn json(path: &str, (head, body): (String, String)) -> Value {
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {head}\n{body}"))
}

/// Returns head and body of the answer to `GET PATH`.
#[track_caller]
pub(crate) fn ask(addr: SocketAddr, path: &str) -> (String, String) {
    ask_with(addr, "GET", path, "")
}

#[track_caller]
fn ask_with(addr: SocketAddr, method: &str, path: &str, body: &str) -> (String, String) {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: lea\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    (head.to_owned(), body.to_owned())
}

#[track_caller]
fn listening(process: &mut Process, what: &str) -> SocketAddr {
    process.wait_line(DEADLINE, &format!("a line `listening addr=... {what}`"), |line| {
        let (addr, found) = line.split_once("listening addr=")?.1.split_once(' ')?;
        (found == what).then(|| addr.parse().ok()).flatten()
    })
}
