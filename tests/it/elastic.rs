//! The HTTP API of Elasticsearch: compared with a real server, and with hostile peers.

pub(crate) mod compare;
mod edge;
mod recorded;
mod rows;

use std::sync::Arc;

use lea::es_api::EsApi;
use lea::http::HttpServerConfig;
use lea::http::basic_auth::Users;
use lea::search::sqlite::{SqliteStore, StoreConfig};

use crate::http::client::{Answer, Client, Running};
use crate::support::Workdir;

/// The HTTP API with a store, without the expansion of numbers.
pub(crate) struct Events {
    pub server: Running,
    _dir: Workdir,
}

impl Events {
    pub(crate) fn start(config: HttpServerConfig, users: Users) -> Events {
        let dir = Workdir::new();
        let store = SqliteStore::open(dir.path(), StoreConfig::default()).unwrap();
        let elastic = EsApi::new(Arc::new(store), None, users, Arc::default());
        Events { server: Running::start(config, elastic), _dir: dir }
    }
}

/// Sends a request and waits for the response.
pub(crate) fn ask(client: &mut Client, method: &str, target: &str, body: &str) -> Answer {
    let kind = if target.contains("_bulk") { "application/x-ndjson" } else { "application/json" };
    let typed = if body.is_empty() { String::new() } else { format!("Content-Type: {kind}\r\n") };
    let host = client.stream.peer_addr().unwrap();
    client.send(format!(
        "{method} {target} HTTP/1.1\r\nHost: {host}\r\n{typed}Content-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    if method == "HEAD" { client.head_only() } else { client.answer() }
}
