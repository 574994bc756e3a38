//! /metrics: Prometheus text format, version 0.0.4.

use super::{partitions, process_metrics};
use crate::cc::stream_registry::StreamRegistry;
use crate::http::Response;
use crate::runtime::metrics::Metrics;

/// Returns the metrics of the process, of Kafka partitions and of the system. `started_ms` is the start of the process.
pub(super) fn response(metrics: &Metrics, live: &StreamRegistry, started_ms: i64) -> Response {
    let mut text = metrics.render();
    partitions::render(&mut text, &live.partitions.list());
    process_metrics::render(&mut text, started_ms);
    Response::new(200, "text/plain; version=0.0.4; charset=utf-8", text)
}
