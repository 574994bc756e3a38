//! The HTTP endpoints of `--admin-listen`: /health, /metrics, /partitions, /streams. Runs in connections' threads and only
//! reads.

mod health;
mod metrics;
mod partitions;
mod process_metrics;
mod streams;

use std::sync::Arc;

use serde::Serialize;

use crate::cc::stream_registry::StreamRegistry;
use crate::http::{Handler, Method, Request, RequestGuard, Response};
use crate::runtime::logging::Throttle;
use crate::runtime::metrics::Metrics;
use crate::runtime::shutdown::Shutdown;
use crate::runtime::time::now_ms;

const PATH_LIST: &str = "/health\n/metrics\n/partitions\n/streams\n";

/// Handler of the admin endpoints.
#[derive(Debug)]
pub struct AdminHandler {
    shutdown: Shutdown,
    metrics: Arc<Metrics>,
    live: Arc<StreamRegistry>,
    started_ms: i64,
    guard: RequestGuard,
    warnings: Throttle,
}

impl AdminHandler {
    /// Creates the handler. The time of this call counts as the start of the process.
    pub fn new(shutdown: Shutdown, metrics: Arc<Metrics>, live: Arc<StreamRegistry>) -> AdminHandler {
        let guard = RequestGuard::default().allow_any_host();
        AdminHandler { shutdown, metrics, live, started_ms: now_ms(), guard, warnings: Throttle::default() }
    }

    /// Sets the rules for the headers `Host` and `Origin`. Without this call, every host is accepted.
    pub fn with_guard(self, guard: RequestGuard) -> AdminHandler {
        AdminHandler { guard, ..self }
    }
}

impl Handler for AdminHandler {
    /// Refuses the requests of foreign web pages.
    fn reject_early(&self, request: &Request) -> Option<Response> {
        let error = self.guard.check(request).err()?;
        error.record(request.peer(), &self.metrics, &self.warnings);
        Some(Response::text(403, &error.to_string()))
    }

    fn handle(&self, request: &Request) -> Response {
        let respond: fn(&AdminHandler) -> Response = match request.path() {
            "/health" => |admin| health::response(&admin.shutdown, &admin.metrics),
            "/metrics" => |admin| metrics::response(&admin.metrics, &admin.live, admin.started_ms),
            "/partitions" => |admin| partitions::response(&admin.live),
            "/streams" => |admin| streams::response(&admin.live),
            _ => {
                let text = format!("404 Not Found; the paths are:\n{PATH_LIST}");
                return Response::new(404, "text/plain; charset=utf-8", text);
            }
        };
        match request.method() {
            // The response describes the current moment.
            Method::Get | Method::Head => respond(self).with_header("Cache-Control", "no-store"),
            _ => Response::text(405, "only GET and HEAD").with_header("Allow", "GET, HEAD"),
        }
    }
}

/// Returns a JSON object with one row per line, which both JSON parsers and line-based tools can read.
fn json_table<T: Serialize>(name: &str, rows: impl ExactSizeIterator<Item = T>) -> Response {
    let mut body = Vec::with_capacity(32 + rows.len() * 256);
    body.extend_from_slice(format!("{{\"count\":{},\"{name}\":[", rows.len()).as_bytes());
    for (n, row) in rows.enumerate() {
        body.extend_from_slice(if n == 0 { b"\n" } else { b",\n" });
        serde_json::to_writer(&mut body, &row)
            .expect("writing to a Vec cannot fail, and a row has only string keys");
    }
    body.extend_from_slice(b"\n]}\n");
    Response::json(200, body)
}
