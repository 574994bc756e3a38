//! The endpoints `_cat/indices` and `_cat/health`, which return tables. Runs on the threads of the HTTP connections.

use std::fmt::Write as _;

use chrono::Utc;
use serde::Serialize;

use super::api::{EsApi, RoutedRequest};
use super::error::ApiError;
use super::node::NODE_NAME;
use super::response::{self, stable_uuid};
use crate::http::Response;
use crate::search::store::IndexInfo;

/// A column of a list for people: its name, its short name, and whether it holds numbers.
type CatColumn = (&'static str, &'static str, bool);

const INDICES_COLUMNS: [CatColumn; 10] = [
    ("health", "h", false),
    ("status", "s", false),
    ("index", "i", false),
    ("uuid", "id", false),
    ("pri", "p", true),
    ("rep", "r", true),
    ("docs.count", "dc", true),
    ("docs.deleted", "dd", true),
    ("store.size", "ss", true),
    ("pri.store.size", "", true),
];

const HEALTH_COLUMNS: [CatColumn; 14] = [
    ("epoch", "t", false),
    ("timestamp", "ts", false),
    ("cluster", "cl", false),
    ("status", "st", false),
    ("node.total", "nt", true),
    ("node.data", "nd", true),
    ("shards", "sh", true),
    ("pri", "p", true),
    ("relo", "r", true),
    ("init", "i", true),
    ("unassign", "u", true),
    ("pending_tasks", "pt", true),
    ("max_task_wait_time", "mtwt", true),
    ("active_shards_percent", "asp", true),
];

impl EsApi {
    pub(super) fn cat_indices(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        let cells = |index: IndexInfo| {
            let bytes = human_size(index.bytes);
            let uuid = stable_uuid(&index.name);
            let documents = index.documents.to_string();
            let cells = ["green", "open", &index.name, &uuid, "1", "0", &documents, "0", &bytes, &bytes];
            cells.map(str::to_owned).to_vec()
        };
        render_cat(routed, &INDICES_COLUMNS, self.select_indices(routed)?.into_iter().map(cells).collect())
    }

    /// Returns the health as a table. Some shippers use it to check that the server answers.
    pub(super) fn cat_health(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        let now = Utc::now();
        let shards = self.store.indices(&[])?.len().to_string();
        let (epoch, time) = (now.timestamp().to_string(), now.format("%H:%M:%S").to_string());
        let row = [
            &epoch, &time, NODE_NAME, "green", "1", "1", &shards, &shards, "0", "0", "0", "0", "-", "100.0%",
        ];
        render_cat(routed, &HEALTH_COLUMNS, vec![row.map(str::to_owned).to_vec()])
    }
}

/// Renders a list as text or as JSON.
fn render_cat(
    routed: &RoutedRequest<'_>,
    columns: &[CatColumn],
    rows: Vec<Vec<String>>,
) -> Result<Response, ApiError> {
    let parameters = &routed.parameters;
    let json = match parameters.get("format") {
        None | Some("text") => routed.request.header("accept") == Some(b"application/json"),
        Some("json") => true,
        Some(other) => {
            return Err(ApiError::illegal_argument(format!("[format] [{other}] is not supported")));
        }
    };
    if let Some((key, _)) = parameters
        .pairs()
        .find(|(key, _)| matches!(*key, "s" | "bytes" | "help" | "health" | "ts" | "time" | "pri"))
    {
        return Err(ApiError::illegal_argument(format!("[{key}] is not supported")));
    }
    let known =
        ["v", "h", "format", "local", "master_timeout", "expand_wildcards", "include_unloaded_segments"];
    routed.allow_parameters(&known)?;
    let chosen = select_columns(parameters.get("h"), columns);
    if json {
        let row = |row: &Vec<String>| {
            CatRow(chosen.iter().map(|(at, name)| (name.clone(), row[*at].clone())).collect())
        };
        return Ok(response::json(200, &rows.iter().map(row).collect::<Vec<_>>()));
    }
    Ok(response::text(render_table(columns, &chosen, &rows, parameters.is_on("v")?)))
}

/// Returns the columns that `h` selects by their long or short names, each with the name used in the request. As in
/// Elasticsearch, unknown names are ignored.
fn select_columns(named: Option<&str>, columns: &[CatColumn]) -> Vec<(usize, String)> {
    let Some(named) = named.filter(|named| !named.is_empty()) else {
        return columns.iter().map(|(name, ..)| (*name).to_owned()).enumerate().collect();
    };
    let column = |name: &str| {
        let is_named = |(long, short, _): &CatColumn| *long == name || (!short.is_empty() && *short == name);
        columns.iter().position(is_named).map(|at| (at, name.to_owned()))
    };
    named.split(',').filter_map(|name| column(name.trim())).collect()
}

fn render_table(
    columns: &[CatColumn],
    chosen: &[(usize, String)],
    rows: &[Vec<String>],
    head: bool,
) -> String {
    let names = || chosen.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>();
    let cells = rows.iter().map(|row| chosen.iter().map(|(at, _)| row[*at].as_str()).collect::<Vec<_>>());
    let lines: Vec<Vec<&str>> = head.then(names).into_iter().chain(cells).collect();
    let width = |nth: usize| lines.iter().map(|line| line[nth].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..chosen.len()).map(width).collect();
    let mut out = String::new();
    for line in &lines {
        for (nth, cell) in line.iter().enumerate() {
            let (gap, width) = (if nth == 0 { "" } else { " " }, widths[nth]);
            // Writing to a String cannot fail.
            let _ = match columns[chosen[nth].0].2 {
                true => write!(out, "{gap}{cell:>width$}"),
                false => write!(out, "{gap}{cell:<width$}"),
            };
        }
        out.push('\n');
    }
    out
}

/// A row as a JSON object that keeps the order of its members.
struct CatRow(Vec<(String, String)>);

impl Serialize for CatRow {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

/// Formats a size for people: `227b`, `15.6kb`.
fn human_size(bytes: u64) -> String {
    let units = ["kb", "mb", "gb", "tb"];
    if bytes < 1024 {
        return format!("{bytes}b");
    }
    let (mut value, mut at) = (bytes as f64 / 1024.0, 0);
    while value >= 1024.0 && at + 1 < units.len() {
        (value, at) = (value / 1024.0, at + 1);
    }
    // Elasticsearch truncates and does not round.
    let value = (value * 10.0).floor() / 10.0;
    format!("{value}{}", units[at])
}
