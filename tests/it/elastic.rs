//! The Elasticsearch dialect over HTTP: beside the real one, and with peers that mean no good.

pub(crate) mod compare;
mod edge;

use std::sync::Arc;

use lea::es_api::{EsApi, Users};
use lea::http::HttpServerConfig;
use lea::search::sqlite::{SqliteStore, StoreConfig};

use crate::http::client::{Answer, Client, Running};
use crate::support::Workdir;

/// The dialect on a store of its own, numbers as they are written.
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

/// Asks and waits for the answer.
pub(crate) fn ask(client: &mut Client, method: &str, target: &str, body: &str) -> Answer {
    let kind = if target.contains("_bulk") { "application/x-ndjson" } else { "application/json" };
    let typed = if body.is_empty() { String::new() } else { format!("Content-Type: {kind}\r\n") };
    client.send(format!(
        "{method} {target} HTTP/1.1\r\nHost: a\r\n{typed}Content-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    if method == "HEAD" { client.head_only() } else { client.answer() }
}
