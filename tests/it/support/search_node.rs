//! Elasticsearch and OpenSearch nodes for the tests, started by `scripts/search-node`. Each version is
//! started once, and ends with the test process.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::broker::free_port;
use super::{DEADLINE, Workdir};

/// The version whose API lea provides.
pub(crate) const ELASTICSEARCH_7: &str = "elasticsearch-7.17.29";

/// The last version with several types per index.
pub(crate) const ELASTICSEARCH_2: &str = "elasticsearch-2.4.6";

/// The newest OpenSearch.
pub(crate) const OPENSEARCH_3: &str = "opensearch-3.8.0";

/// Returns the OpenSearch 3 node, and starts it if it does not run.
#[track_caller]
pub(crate) fn opensearch_3() -> SocketAddr {
    static NODE: OnceLock<SocketAddr> = OnceLock::new();
    *NODE.get_or_init(|| start(OPENSEARCH_3))
}

/// Returns the Elasticsearch 7.17 node, and starts it if it does not run.
#[track_caller]
pub(crate) fn elasticsearch_7() -> SocketAddr {
    static NODE: OnceLock<SocketAddr> = OnceLock::new();
    *NODE.get_or_init(|| start(ELASTICSEARCH_7))
}

/// Returns the Elasticsearch 2.4 node, and starts it if it does not run.
#[track_caller]
pub(crate) fn elasticsearch_2() -> SocketAddr {
    static NODE: OnceLock<SocketAddr> = OnceLock::new();
    *NODE.get_or_init(|| start(ELASTICSEARCH_2))
}

#[track_caller]
fn start(version: &'static str) -> SocketAddr {
    // Another program may take the port before the node listens on it.
    for _ in 0..3 {
        // The node is leaked on purpose: the script ends it with the test process.
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

/// A node of one test, which can be killed and restarted with its data.
pub(crate) struct Node {
    version: &'static str,
    config: &'static str,
    dir: Workdir,
    addr: SocketAddr,
}

impl Node {
    /// Creates a node without starting it. `config` adds lines to its configuration.
    pub(crate) fn new(version: &'static str, config: &'static str) -> Node {
        let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
        Node { version, config, dir: Workdir::new(), addr }
    }

    /// Returns the address, which is fixed before the node starts.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

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

    /// Kills the node with SIGKILL.
    #[track_caller]
    pub(crate) fn kill(&self) {
        let pid: i32 = std::fs::read_to_string(self.dir.join("pid")).unwrap().trim().parse().unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        // Waits until the port no longer answers.
        self.stop();
    }

    fn stop(&self) {
        run(&mut script(&["stop"], &self.dir));
    }

    /// Sends a request. Returns status and body.
    #[track_caller]
    pub(crate) fn ask(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let answer = exchange(self.addr, method, path, body.to_string().as_bytes());
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Sends a request. Panics unless the answer has status 2xx.
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

/// Sends a request with a JSON body (`null` means none) and returns the answer, whatever its status.
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
    // For the short life of a node, the JVM's second compiler costs more than it gains.
    command.env("SEARCH_NODE_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1");
    command.args(args).arg(dir.path()).stdin(Stdio::null());
    command
}

#[track_caller]
fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"))
}
