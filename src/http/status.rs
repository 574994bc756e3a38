//! What `--status` answers: /health, /metrics, /partitions, /streams. Runs on the connections' threads and only reads.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use super::{Handler, Method, Request, Response, partitions, process};
use crate::cc::live::{Live, LiveStream};
use crate::cc::vault::pressure::Pressure;
use crate::counters::{Counter, Counters};
use crate::stop::Stop;

const PATHS: &str = "/health\n/metrics\n/partitions\n/streams\n";

/// The handler behind `--status`.
#[derive(Debug)]
pub struct Status {
    stop: Stop,
    pressure: Arc<Pressure>,
    counters: Arc<Counters>,
    live: Arc<Live>,
    started_ms: i64,
}

impl Status {
    /// Shows these. The time of this call counts as the start of the process.
    pub fn new(stop: Stop, pressure: Arc<Pressure>, counters: Arc<Counters>, live: Arc<Live>) -> Status {
        Status { stop, pressure, counters, live, started_ms: Utc::now().timestamp_millis() }
    }

    fn health(&self) -> Response {
        let is_set = |gauge: &Counter| gauge.get() > 0;
        let (status, code) = match (self.stop.is_asked(), self.pressure.is_waiting()) {
            (true, _) => ("draining", 503),
            (false, true) => ("disk_full", 503),
            (false, false) if is_set(&self.counters.queue_full) => ("queue_full", 503),
            (false, false) if is_set(&self.counters.event_store_waiting) => ("store_stuck", 503),
            // Events are taken all the same, so nobody is to send them elsewhere.
            (false, false) if is_set(&self.counters.cluster_away) => ("cluster_away", 200),
            (false, false) => ("ok", 200),
        };
        Response::json(code, format!("{{\"status\":\"{status}\"}}"))
    }

    fn metrics(&self) -> Response {
        let mut text = self.counters.render();
        partitions::render(&mut text, &self.live.partitions.list());
        process::render(&mut text, self.started_ms);
        Response::new(200, "text/plain; version=0.0.4; charset=utf-8", text)
    }

    fn streams(&self) -> Response {
        let streams = self.live.list();
        table("streams", streams.iter().map(|stream| Row::of(stream)))
    }

    fn partitions(&self) -> Response {
        let partitions = self.live.partitions.list();
        table("partitions", partitions.iter().map(|partition| partitions::Row::of(partition)))
    }
}

impl Handler for Status {
    fn handle(&self, request: &Request) -> Response {
        let answer = match request.path() {
            "/health" => Status::health,
            "/metrics" => Status::metrics,
            "/partitions" => Status::partitions,
            "/streams" => Status::streams,
            _ => {
                return Response::new(
                    404,
                    "text/plain; charset=utf-8",
                    format!("404 Not Found; there is\n{PATHS}"),
                );
            }
        };
        match request.method() {
            // What is shown is of this moment.
            Method::Get | Method::Head => answer(self).with("Cache-Control", "no-store"),
            _ => Response::text(405, "only GET and HEAD").with("Allow", "GET, HEAD"),
        }
    }
}

/// One row a line: ten thousand of them can be read by people and by line tools too.
fn table<T: Serialize>(name: &str, rows: impl ExactSizeIterator<Item = T>) -> Response {
    let mut body = Vec::with_capacity(32 + rows.len() * 256);
    body.extend_from_slice(format!("{{\"count\":{},\"{name}\":[", rows.len()).as_bytes());
    for (n, row) in rows.enumerate() {
        body.extend_from_slice(if n == 0 { b"\n" } else { b",\n" });
        serde_json::to_writer(&mut body, &row).expect("a Vec takes all, and a row has no map");
    }
    body.extend_from_slice(b"\n]}\n");
    Response::json(200, body)
}

/// A stream as /streams shows it.
#[derive(Serialize)]
struct Row<'a> {
    id: u64,
    peer: std::net::SocketAddr,
    /// None until the name is known.
    file: Option<&'a str>,
    bytes: u64,
    packets: u64,
    /// None until a byte of content came.
    last_byte: Option<String>,
    connected_at: Option<String>,
    state: &'static str,
}

impl Row<'_> {
    fn of(stream: &LiveStream) -> Row<'_> {
        let last_byte_ms = stream.last_byte_ms.load(Ordering::Relaxed);
        Row {
            id: stream.id,
            peer: stream.peer,
            file: stream.file.get().map(String::as_str),
            bytes: stream.bytes.load(Ordering::Relaxed),
            packets: stream.packets.load(Ordering::Relaxed),
            last_byte: if last_byte_ms == 0 { None } else { rfc3339(last_byte_ms) },
            connected_at: rfc3339(stream.connected_ms),
            state: stream.state(),
        }
    }
}

fn rfc3339(ms: i64) -> Option<String> {
    Some(DateTime::from_timestamp_millis(ms)?.to_rfc3339_opts(SecondsFormat::Millis, true))
}
