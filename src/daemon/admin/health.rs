//! /health: a single word and a status code. Load balancers stop sending on 503.

use crate::cc::vault::disk_retry::DiskRetry;
use crate::http::Response;
use crate::runtime::metrics::Metrics;
use crate::runtime::shutdown::Shutdown;

/// Returns the most severe state.
pub(super) fn response(shutdown: &Shutdown, disk_retry: &DiskRetry, metrics: &Metrics) -> Response {
    let (status, code) = if shutdown.is_triggered() {
        ("draining", 503)
    } else if disk_retry.is_blocked() {
        ("disk_full", 503)
    } else if metrics.spool_full.get() > 0 {
        ("spool_full", 503)
    } else if metrics.store_waiting_threads.get() > 0 {
        ("store_stalled", 503)
    } else if metrics.cluster_up.is_down() {
        // Status 200: events are still accepted, so senders need not switch to another server.
        ("cluster_unreachable", 200)
    } else {
        ("ok", 200)
    };
    Response::json(code, format!("{{\"status\":\"{status}\"}}"))
}
