//! The Elasticsearch-compatible HTTP API.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::{IngestSource, SourceContext, SourceKind, SourceOption, parse_address, print_listening};
use crate::daemon::settings::EventSettings;
use crate::es_api::EsApi;
use crate::http::basic_auth::Users;
use crate::http::{HttpServer, RequestGuard, machine_names};
use crate::runtime::net;
use crate::{Error, Result};

pub(super) static HTTP: SourceKind = SourceKind {
    key: "http",
    options: &[SourceOption {
        long: "http",
        key: "",
        value_name: "ADDR:PORT",
        env: None,
        help: "Serve the Elasticsearch-compatible HTTP API here; without users in the configuration only on a loopback \
               address [usual port: 9200]",
    }],
    is_list: false,
    parse: |values| Ok(Arc::new(Http { addr: parse_address(values)? })),
};

#[derive(Debug)]
struct Http {
    addr: SocketAddr,
}

impl fmt::Display for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http {}", self.addr)
    }
}

impl Http {
    /// Without users, only names of this machine lead here. With users, a foreign page lacks the password.
    fn guard(&self, settings: &EventSettings) -> RequestGuard {
        let names = settings.http_names.iter().cloned().chain(machine_names()).collect();
        let guard = RequestGuard::new(names, settings.http_cors.clone());
        if settings.users.is_empty() { guard } else { guard.allow_any_host() }
    }
}

impl IngestSource for Http {
    /// Without users, only the machine itself may connect.
    fn check(&self, settings: &EventSettings) -> Result<(), String> {
        if self.addr.ip().is_loopback() || !settings.users.is_empty() {
            return Ok(());
        }
        Err(format!(
            "HTTP on {} needs users: set parameters.events.users in the configuration (lea events hash-password makes \
             the hashes), or listen on 127.0.0.1",
            self.addr
        ))
    }

    fn start(&self, context: &SourceContext<'_>) -> Result<Vec<JoinHandle<Result<()>>>> {
        let users =
            Users::new(context.settings.users.clone()).map_err(|error| Error::Usage(error.to_string()))?;
        let metrics = Arc::clone(context.sink.metrics());
        let normalizer = context.query_normalizer.clone();
        let handler = EsApi::new(Arc::clone(&context.store), normalizer, users, Arc::clone(&metrics))
            .with_queries(!context.settings.queries_off)
            .with_dead_letters(Arc::clone(&context.sink))
            .with_guard(self.guard(context.settings))
            .with_metadata(&context.vault.path().join(".lea"))?;
        let listener = net::bind(self.addr)?;
        let shutdown = context.listeners.shutdown.clone();
        let server =
            HttpServer::spawn(listener, EsApi::server_config(), Arc::new(handler), shutdown, metrics)?;
        print_listening(server.local_addr(), "http");
        Ok(vec![server.into_thread()])
    }
}
