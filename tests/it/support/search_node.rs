//! A real Elasticsearch of the tests, by `scripts/search-node`. Each version is started once, and ends with this process.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::broker::free_port;
use super::{DEADLINE, Workdir};

/// The version whose dialect is spoken.
pub(crate) const ELASTICSEARCH_7: &str = "elasticsearch-7.17.29";

/// The version that takes types as they were meant.
pub(crate) const ELASTICSEARCH_2: &str = "elasticsearch-2.4.6";

/// The newest OpenSearch.
pub(crate) const OPENSEARCH_3: &str = "opensearch-3.8.0";

/// Starts the OpenSearch 3 node, or gives the one that runs.
#[track_caller]
pub(crate) fn opensearch_3() -> SocketAddr {
    static NODE: OnceLock<SocketAddr> = OnceLock::new();
    *NODE.get_or_init(|| start(OPENSEARCH_3))
}

/// Starts the 7.17 node, or gives the one that runs.
#[track_caller]
pub(crate) fn elasticsearch_7() -> SocketAddr {
    static NODE: OnceLock<SocketAddr> = OnceLock::new();
    *NODE.get_or_init(|| start(ELASTICSEARCH_7))
}

/// Starts the 2.4 node, or gives the one that runs.
#[track_caller]
pub(crate) fn elasticsearch_2() -> SocketAddr {
    static NODE: OnceLock<SocketAddr> = OnceLock::new();
    *NODE.get_or_init(|| start(ELASTICSEARCH_2))
}

#[track_caller]
fn start(version: &'static str) -> SocketAddr {
    // Between choosing a port and listening on it another program may take it.
    for _ in 0..3 {
        // Kept for the process's life: the script ends the node with it.
        let node = Box::leak(Box::new(Node::new(version, "")));
        let output = node.try_start();
        let text = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            return node.addr;
        }
        assert!(text.contains("is taken"), "search-node ended with {}: {text}", output.status);
    }
    panic!("no free port for a node");
}

/// A node of a test's own, which can be killed and started again where it was.
pub(crate) struct Node {
    version: &'static str,
    config: &'static str,
    dir: Workdir,
    addr: SocketAddr,
}

impl Node {
    /// A node that is not started yet; `config`: lines of its configuration.
    pub(crate) fn new(version: &'static str, config: &'static str) -> Node {
        let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
        Node { version, config, dir: Workdir::new(), addr }
    }

    /// Where it is, or will be.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Starts it.
    #[track_caller]
    pub(crate) fn start(&self) {
        let output = self.try_start();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "search-node ended with {}: {text}", output.status);
    }

    fn try_start(&self) -> Output {
        let mut command = script(&["start", self.version, &self.addr.port().to_string()], &self.dir);
        run(command.env("SEARCH_NODE_CONFIG", self.config))
    }

    /// Kills it (SIGKILL).
    #[track_caller]
    pub(crate) fn kill(&self) {
        let pid: i32 = std::fs::read_to_string(self.dir.join("pid")).unwrap().trim().parse().unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        // Waits until nobody answers there any more.
        self.stop();
    }

    fn stop(&self) {
        run(&mut script(&["stop"], &self.dir));
    }

    /// Asks it; gives status and body.
    #[track_caller]
    pub(crate) fn ask(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let answer = exchange(self.addr, method, path, body.to_string().as_bytes());
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Asks it; an answer that is none of 2xx fails the test.
    #[track_caller]
    pub(crate) fn good(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.ask(method, path, body);
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Sends a request with a JSON body (`null`: none) and reads the answer, which may be anything.
pub(crate) fn exchange(
    addr: SocketAddr,
    method: &str,
    path: &str,
    body: &[u8],
) -> Result<(u16, Value), ureq::Error> {
    let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None);
    let agent: ureq::Agent = config.timeout_global(Some(DEADLINE)).build().into();
    let request = ureq::http::Request::builder().method(method).uri(format!("http://{addr}{path}"));
    let mut response = if body == b"null" {
        agent.run(request.body(()).unwrap())?
    } else {
        agent.run(request.header("content-type", "application/json").body(body).unwrap())?
    };
    let text = response.body_mut().with_config().limit(256 << 20).read_to_vec()?;
    let body = serde_json::from_slice(&text).unwrap_or_else(|_| String::from_utf8_lossy(&text).into());
    Ok((response.status().as_u16(), body))
}

fn script(args: &[&str], dir: &Workdir) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/search-node");
    let mut command = Command::new(&script);
    command.env("SEARCH_NODE_OWNER", std::process::id().to_string());
    command.args(args).arg(dir.path()).stdin(Stdio::null());
    command
}

#[track_caller]
fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"))
}
