//! The HTTP endpoints of `--admin-listen`: /health, /metrics, /partitions, /streams. Runs in connections' threads and only
//! reads.

pub(crate) mod partitions;
pub(crate) mod process;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::Serialize;

use crate::cc::stream_registry::{StreamRegistry, StreamStats};
use crate::cc::vault::disk_retry::DiskRetry;
use crate::http::{Handler, Method, Request, Response};
use crate::runtime::metrics::{Gauge, Metrics};
use crate::runtime::shutdown::Shutdown;
use crate::runtime::time::{now_ms, rfc3339_ms};

const PATH_LIST: &str = "/health\n/metrics\n/partitions\n/streams\n";

/// Handler of the admin endpoints.
#[derive(Debug)]
pub struct AdminHandler {
    shutdown: Shutdown,
    pressure: Arc<DiskRetry>,
    metrics: Arc<Metrics>,
    live: Arc<StreamRegistry>,
    started_ms: i64,
}

impl AdminHandler {
    /// Creates the handler. The time of this call counts as the start of the process.
    pub fn new(
        shutdown: Shutdown,
        pressure: Arc<DiskRetry>,
        metrics: Arc<Metrics>,
        live: Arc<StreamRegistry>,
    ) -> AdminHandler {
        AdminHandler { shutdown, pressure, metrics, live, started_ms: now_ms() }
    }

    fn health(&self) -> Response {
        let is_set = |gauge: &Gauge| gauge.get() > 0;
        let (status, code) = match (self.shutdown.is_triggered(), self.pressure.is_blocked()) {
            (true, _) => ("draining", 503),
            (false, true) => ("disk_full", 503),
            (false, false) if is_set(&self.metrics.spool_full) => ("spool_full", 503),
            (false, false) if is_set(&self.metrics.store_waiting_threads) => ("store_stalled", 503),
            // Status 200: events are still accepted, so senders need not switch to another server.
            (false, false) if self.metrics.cluster_up.is_down() => ("cluster_unreachable", 200),
            (false, false) => ("ok", 200),
        };
        Response::json(code, format!("{{\"status\":\"{status}\"}}"))
    }

    fn metrics(&self) -> Response {
        let mut text = self.metrics.render();
        partitions::render(&mut text, &self.live.partitions.list());
        process::render(&mut text, self.started_ms);
        Response::new(200, "text/plain; version=0.0.4; charset=utf-8", text)
    }

    fn streams(&self) -> Response {
        let streams = self.live.list();
        json_table("streams", streams.iter().map(|stream| StreamRow::new(stream)))
    }

    fn partitions(&self) -> Response {
        let partitions = self.live.partitions.list();
        json_table("partitions", partitions.iter().map(|partition| partitions::PartitionRow::new(partition)))
    }
}

impl Handler for AdminHandler {
    fn handle(&self, request: &Request) -> Response {
        let answer = match request.path() {
            "/health" => AdminHandler::health,
            "/metrics" => AdminHandler::metrics,
            "/partitions" => AdminHandler::partitions,
            "/streams" => AdminHandler::streams,
            _ => {
                return Response::new(
                    404,
                    "text/plain; charset=utf-8",
                    format!("404 Not Found; the paths are:\n{PATH_LIST}"),
                );
            }
        };
        match request.method() {
            // The response describes the current moment.
            Method::Get | Method::Head => answer(self).with_header("Cache-Control", "no-store"),
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

/// A stream in /streams.
#[derive(Serialize)]
struct StreamRow<'a> {
    id: u64,
    peer: std::net::SocketAddr,
    /// `None` until the name is known.
    file: Option<&'a str>,
    bytes: u64,
    packets: u64,
    /// `None` until the first byte of content.
    last_byte: Option<String>,
    connected_at: String,
    state: &'static str,
}

impl StreamRow<'_> {
    fn new(stream: &StreamStats) -> StreamRow<'_> {
        let last_byte_ms = stream.last_byte_ms.load(Ordering::Relaxed);
        StreamRow {
            id: stream.id,
            peer: stream.peer,
            file: stream.file.get().map(String::as_str),
            bytes: stream.bytes.load(Ordering::Relaxed),
            packets: stream.packets.load(Ordering::Relaxed),
            last_byte: (last_byte_ms != 0).then(|| rfc3339_ms(last_byte_ms)),
            connected_at: rfc3339_ms(stream.connected_ms),
            state: stream.state(),
        }
    }
}
