//! A real Elasticsearch of the tests, by `scripts/search-node`. Each version is started once, and ends with this process.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::Workdir;
use super::broker::free_port;

/// The version whose dialect is spoken.
pub const ELASTICSEARCH_7: &str = "elasticsearch-7.17.29";

/// The version that takes types as they were meant.
pub const ELASTICSEARCH_2: &str = "elasticsearch-2.4.6";

/// The newest OpenSearch.
pub const OPENSEARCH_3: &str = "opensearch-3.8.0";

/// Starts the OpenSearch 3 node, or gives the one that runs.
#[track_caller]
pub fn opensearch_3() -> SocketAddr {
    static NODE: OnceLock<SocketAddr> = OnceLock::new();
    *NODE.get_or_init(|| start(OPENSEARCH_3))
}

/// Starts the 7.17 node, or gives the one that runs.
#[track_caller]
pub fn elasticsearch_7() -> SocketAddr {
    static NODE: OnceLock<SocketAddr> = OnceLock::new();
    *NODE.get_or_init(|| start(ELASTICSEARCH_7))
}

/// Starts the 2.4 node, or gives the one that runs.
#[track_caller]
pub fn elasticsearch_2() -> SocketAddr {
    static NODE: OnceLock<SocketAddr> = OnceLock::new();
    *NODE.get_or_init(|| start(ELASTICSEARCH_2))
}

#[track_caller]
fn start(version: &str) -> SocketAddr {
    // Kept for the process's life: the script ends the node with it.
    let dir = Box::leak(Box::new(Workdir::new()));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/search-node");
    // Between choosing a port and listening on it another program may take it.
    for _ in 0..3 {
        let port = free_port();
        let mut command = Command::new(&script);
        command.env("SEARCH_NODE_OWNER", std::process::id().to_string());
        command.args(["start", version, &port.to_string()]).arg(dir.path()).stdin(Stdio::null());
        let output =
            command.output().unwrap_or_else(|error| panic!("cannot run {}: {error}", script.display()));
        let text = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            return SocketAddr::from(([127, 0, 0, 1], port));
        }
        assert!(text.contains("is taken"), "search-node ended with {}: {text}", output.status);
    }
    panic!("no free port for a node");
}
