//! The endpoints of `_cat`, which return tables. Runs on the threads of the HTTP connections.

use std::cmp::Ordering;
use std::fmt::Write as _;

use serde::Serialize;

use super::api::{EsApi, RoutedRequest};
use super::error::ApiError;
use super::node::{NODE_NAME, VERSION};
use super::response::{self, stable_uuid};
use crate::http::Response;
use crate::search::glob::glob_matches;
use crate::search::query::Query;
use crate::search::store::IndexInfo;

/// A column of a table: its name, and its short name.
type CatColumn = (&'static str, &'static str);

const INDICES_COLUMNS: [CatColumn; 10] = [
    ("health", "h"),
    ("status", "s"),
    ("index", "i"),
    ("uuid", "id"),
    ("pri", "p"),
    ("rep", "r"),
    ("docs.count", "dc"),
    ("docs.deleted", "dd"),
    ("store.size", "ss"),
    ("pri.store.size", ""),
];

const HEALTH_COLUMNS: [CatColumn; 14] = [
    ("epoch", "t"),
    ("timestamp", "ts"),
    ("cluster", "cl"),
    ("status", "st"),
    ("node.total", "nt"),
    ("node.data", "nd"),
    ("shards", "sh"),
    ("pri", "p"),
    ("relo", "r"),
    ("init", "i"),
    ("unassign", "u"),
    ("pending_tasks", "pt"),
    ("max_task_wait_time", "mtwt"),
    ("active_shards_percent", "asp"),
];

const COUNT_COLUMNS: [CatColumn; 3] = [("epoch", "t"), ("timestamp", "ts"), ("count", "dc")];

const NODES_COLUMNS: [CatColumn; 6] = [
    ("ip", "i"),
    ("node.role", "r"),
    ("master", "m"),
    ("name", "n"),
    ("version", "v"),
    ("http_address", "http"),
];

const MASTER_COLUMNS: [CatColumn; 4] = [("id", ""), ("host", "h"), ("ip", ""), ("node", "n")];

const PLUGINS_COLUMNS: [CatColumn; 3] = [("name", "n"), ("component", "c"), ("version", "v")];

const ALIASES_COLUMNS: [CatColumn; 6] = [
    ("alias", "a"),
    ("index", "i"),
    ("filter", "f"),
    ("routing.index", "ri"),
    ("routing.search", "rs"),
    ("is_write_index", "w"),
];

const TEMPLATES_COLUMNS: [CatColumn; 5] =
    [("name", "n"), ("index_patterns", "t"), ("order", "o"), ("version", "v"), ("composed_of", "c")];

/// Limit on the columns and sort keys of one request.
const COLUMNS_MAX: usize = 64;

/// A cell of a table.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum CatCell {
    Text(String),
    Number(u64),
    /// A size, whose unit the parameter `bytes` selects.
    Bytes(u64),
}

impl From<&str> for CatCell {
    fn from(text: &str) -> CatCell {
        CatCell::Text(text.to_owned())
    }
}

impl CatCell {
    fn is_number(&self) -> bool {
        !matches!(self, CatCell::Text(_))
    }

    fn compare(&self, other: &CatCell) -> Ordering {
        match (self, other) {
            (CatCell::Text(one), CatCell::Text(other)) => one.cmp(other),
            (CatCell::Number(one) | CatCell::Bytes(one), CatCell::Number(other) | CatCell::Bytes(other)) => {
                one.cmp(other)
            }
            (one, other) => one.is_number().cmp(&other.is_number()),
        }
    }

    fn render(&self, unit: Option<&str>) -> String {
        match self {
            CatCell::Text(text) => text.clone(),
            CatCell::Number(number) => number.to_string(),
            CatCell::Bytes(bytes) => match unit.and_then(unit_bytes) {
                Some(unit) => (bytes / unit).to_string(),
                None => human_size(*bytes),
            },
        }
    }
}

impl EsApi {
    pub(super) fn cat_indices(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        let cells = |index: IndexInfo| {
            vec![
                "green".into(),
                "open".into(),
                CatCell::Text(index.name.clone()),
                CatCell::Text(stable_uuid(&index.name)),
                CatCell::Number(1),
                CatCell::Number(0),
                CatCell::Number(index.documents),
                CatCell::Number(0),
                CatCell::Bytes(index.bytes),
                CatCell::Bytes(index.bytes),
            ]
        };
        let indices = match routed.parameters.get("health") {
            None | Some("green") => self.select_indices(routed)?,
            Some("yellow" | "red") => Vec::new(),
            Some(other) => return Err(ApiError::illegal_argument(format!("unknown health: {other}"))),
        };
        render_cat(routed, &INDICES_COLUMNS, indices.into_iter().map(cells).collect())
    }

    /// Returns the health as a table. Some shippers use it to check that the server answers.
    pub(super) fn cat_health(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        let (epoch, time) = now();
        let shards = self.store.indices(&[])?.len() as u64;
        let mut row = vec![epoch, time, NODE_NAME.into(), "green".into()];
        row.extend([1, 1, shards, shards, 0, 0, 0, 0].map(CatCell::Number));
        row.extend(["-".into(), "100.0%".into()]);
        render_cat(routed, &HEALTH_COLUMNS, vec![row])
    }

    pub(super) fn cat_count(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        let (epoch, time) = now();
        let count = self.store.count(&self.indices(routed)?, false, &Query::All)?;
        render_cat(routed, &COUNT_COLUMNS, vec![vec![epoch, time, CatCell::Number(count)]])
    }

    pub(super) fn cat_nodes(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        let address = super::node::published_address(routed.request);
        let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
        let row = [host, "dim", "*", NODE_NAME, VERSION, &address].map(CatCell::from).to_vec();
        render_cat(routed, &NODES_COLUMNS, vec![row])
    }

    pub(super) fn cat_master(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        let address = super::node::published_address(routed.request);
        let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
        let row = [stable_uuid(NODE_NAME).as_str(), host, host, NODE_NAME].map(CatCell::from).to_vec();
        render_cat(routed, &MASTER_COLUMNS, vec![row])
    }

    pub(super) fn cat_aliases(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        let metadata = self.metadata.read();
        let wanted = routed.route.id.as_deref().unwrap_or("*");
        let is_wanted = |alias: &str| wanted.split(',').any(|one| glob_matches(one, alias));
        let mut rows = Vec::new();
        for (index, aliases) in &metadata.aliases {
            for (alias, options) in aliases.iter().filter(|(alias, _)| is_wanted(alias)) {
                let write_index = options.get("is_write_index").map_or("-".to_owned(), ToString::to_string);
                let row = [alias.as_str(), index.as_str(), "-", "-", "-", write_index.as_str()];
                rows.push(row.map(CatCell::from).to_vec());
            }
        }
        rows.sort_by(|one, other| one[0].compare(&other[0]));
        render_cat(routed, &ALIASES_COLUMNS, rows)
    }

    pub(super) fn cat_templates(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        let metadata = self.metadata.read();
        let wanted = routed.route.id.as_deref().unwrap_or("*");
        let all = metadata.templates.iter().map(|(name, template)| (name, template, "order"));
        let all =
            all.chain(metadata.index_templates.iter().map(|(name, template)| (name, template, "priority")));
        let mut rows = Vec::new();
        for (name, template, order) in all.filter(|(name, ..)| glob_matches(wanted, name)) {
            let text =
                |key: &str| template.get(key).map(ToString::to_string).unwrap_or_default().replace('"', "");
            let patterns = text("index_patterns").replace(',', ", ");
            let row = [name.clone(), patterns, text(order), text("version"), text("composed_of")];
            rows.push(row.map(CatCell::Text).to_vec());
        }
        render_cat(routed, &TEMPLATES_COLUMNS, rows)
    }

    pub(super) fn cat_plugins(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        render_cat(routed, &PLUGINS_COLUMNS, Vec::new())
    }
}

/// The current time, as seconds and as a time of day.
fn now() -> (CatCell, CatCell) {
    let now = crate::runtime::time::now();
    let seconds = CatCell::Number(now.timestamp().try_into().unwrap_or(0));
    (seconds, CatCell::Text(now.format("%H:%M:%S").to_string()))
}

/// Renders a table as text or as JSON.
pub(super) fn render_cat(
    routed: &RoutedRequest<'_>,
    columns: &[CatColumn],
    mut rows: Vec<Vec<CatCell>>,
) -> Result<Response, ApiError> {
    let parameters = &routed.parameters;
    let json = match parameters.get("format") {
        None | Some("text" | "txt") => routed.request.header("accept").is_some_and(is_json),
        Some("json") => true,
        Some(other) => {
            return Err(ApiError::illegal_argument(format!("[format] [{other}] is not supported")));
        }
    };
    let known = [
        "v",
        "h",
        "s",
        "bytes",
        "help",
        "time",
        "ts",
        "pri",
        "health",
        "format",
        "local",
        "master_timeout",
        "expand_wildcards",
        "include_unloaded_segments",
        "full_id",
        "level",
    ];
    routed.allow_parameters(&known)?;
    if parameters.is_on("help")? {
        let line = |(long, short): &CatColumn| format!("{long} | {short} |\n");
        return Ok(response::text(columns.iter().map(line).collect()));
    }
    let unit = parameters.get("bytes");
    if let Some(unit) = unit.filter(|unit| unit_bytes(unit).is_none()) {
        return Err(ApiError::illegal_argument(format!("Failed to parse [bytes] with value [{unit}]")));
    }
    sort_rows(&mut rows, columns, parameters.get("s"))?;
    let chosen = select_columns(parameters.get("h"), columns)?;
    if json {
        let row = |row: &Vec<CatCell>| {
            CatRow(chosen.iter().map(|(at, name)| (name.clone(), row[*at].render(unit))).collect())
        };
        return Ok(response::json(200, &rows.iter().map(row).collect::<Vec<_>>()));
    }
    Ok(response::text(render_table(&chosen, &rows, unit, parameters.is_on("v")?)))
}

fn is_json(accept: &[u8]) -> bool {
    let text = String::from_utf8_lossy(accept).to_ascii_lowercase();
    text.starts_with("application/json") || text.starts_with("application/vnd.elasticsearch+json")
}

/// Sorts the rows by the keys of the parameter `s`, such as `index:desc,docs.count`.
fn sort_rows(rows: &mut [Vec<CatCell>], columns: &[CatColumn], keys: Option<&str>) -> Result<(), ApiError> {
    let mut sorts = Vec::new();
    for key in keys.unwrap_or_default().split(',').map(str::trim).filter(|key| !key.is_empty()) {
        let (name, is_descending) = match key.rsplit_once(':') {
            Some((name, "desc")) => (name, true),
            Some((name, "asc")) => (name, false),
            _ => (key, false),
        };
        let at = columns.iter().position(|column| is_named(column, name)).ok_or_else(|| {
            let reason = format!("Unable to sort by unknown sort key `{name}`");
            ApiError::new(400, "unsupported_operation_exception", reason)
        })?;
        sorts.push((at, is_descending));
    }
    if sorts.len() > COLUMNS_MAX {
        return Err(ApiError::illegal_argument(format!("more than {COLUMNS_MAX} sort keys")));
    }
    rows.sort_by(|one, other| {
        let orders = sorts.iter().map(|&(at, is_descending)| {
            let order = one[at].compare(&other[at]);
            if is_descending { order.reverse() } else { order }
        });
        orders.fold(Ordering::Equal, Ordering::then)
    });
    Ok(())
}

fn is_named((long, short): &CatColumn, name: &str) -> bool {
    *long == name || (!short.is_empty() && *short == name)
}

/// Returns the columns that `h` selects by their long or short names, each with the name used in the request. As in
/// Elasticsearch, unknown names are ignored.
fn select_columns(named: Option<&str>, columns: &[CatColumn]) -> Result<Vec<(usize, String)>, ApiError> {
    let all = || columns.iter().map(|(name, _)| (*name).to_owned()).enumerate();
    let Some(named) = named.filter(|named| !named.is_empty()) else { return Ok(all().collect()) };
    let mut chosen = Vec::new();
    for name in named.split(',').map(str::trim) {
        if name.contains('*') {
            chosen.extend(all().filter(|(_, column)| glob_matches(name, column)));
        } else if let Some(at) = columns.iter().position(|column| is_named(column, name)) {
            chosen.push((at, name.to_owned()));
        }
    }
    match chosen.len() <= COLUMNS_MAX {
        true => Ok(chosen),
        false => Err(ApiError::illegal_argument(format!("more than {COLUMNS_MAX} columns"))),
    }
}

fn render_table(chosen: &[(usize, String)], rows: &[Vec<CatCell>], unit: Option<&str>, head: bool) -> String {
    let names = || chosen.iter().map(|(_, name)| name.clone()).collect::<Vec<_>>();
    let cells = rows.iter().map(|row| chosen.iter().map(|(at, _)| row[*at].render(unit)).collect());
    let lines: Vec<Vec<String>> = head.then(names).into_iter().chain(cells).collect();
    let width = |nth: usize| lines.iter().map(|line| line[nth].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..chosen.len()).map(width).collect();
    let is_right = |nth: usize| rows.first().is_some_and(|row| row[chosen[nth].0].is_number());
    let mut out = String::new();
    for line in &lines {
        for (nth, cell) in line.iter().enumerate() {
            let (gap, width) = (if nth == 0 { "" } else { " " }, widths[nth]);
            // Writing to a String cannot fail.
            let _ = match is_right(nth) {
                true => write!(out, "{gap}{cell:>width$}"),
                // The last column is not filled up.
                false if nth + 1 == line.len() => write!(out, "{gap}{cell}"),
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

/// Returns the number of bytes of a unit that `bytes` names.
fn unit_bytes(unit: &str) -> Option<u64> {
    let power = ["b", "k", "m", "g", "t", "p"].iter().position(|known| *known == unit.trim_end_matches('b'));
    let power = if unit == "b" { Some(0) } else { power.filter(|power| *power > 0) };
    Some(1024_u64.pow(u32::try_from(power?).ok()?))
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
