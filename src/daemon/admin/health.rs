//! /health: a word and a status code, and all problems with their times. Load balancers stop sending on 503.

use serde::Serialize;

use crate::http::Response;
use crate::runtime::metrics::Metrics;
use crate::runtime::shutdown::Shutdown;
use crate::runtime::time::rfc3339_ms;

/// The body of /health.
#[derive(Serialize)]
struct HealthReport {
    /// The most severe problem, or `ok`.
    status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<ProblemRow>,
}

#[derive(Serialize)]
struct ProblemRow {
    problem: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
}

/// Returns the most severe state.
pub(super) fn response(shutdown: &Shutdown, metrics: &Metrics) -> Response {
    let active = metrics.problems();
    let (status, is_accepting) = match active.first() {
        _ if shutdown.is_triggered() => ("draining", false),
        Some(first) => (first.problem.as_str(), active.iter().all(|active| active.problem.is_accepting())),
        None => ("ok", true),
    };
    let row = |active: &crate::runtime::health::ActiveProblem| ProblemRow {
        problem: active.problem.as_str(),
        since: active.since_ms.map(rfc3339_ms),
    };
    let report = HealthReport { status, problems: active.iter().map(row).collect() };
    let body = serde_json::to_vec(&report)
        .expect("writing to a Vec cannot fail, and the report has only string keys");
    Response::json(if is_accepting { 200 } else { 503 }, body)
}
