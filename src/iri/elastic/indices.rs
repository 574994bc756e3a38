//! What there is: who answers, indices, their mappings, the state. Runs on the connections' threads.

use std::fmt::Write as _;

use chrono::Utc;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::failure::Failure;
use super::{Asked, Elastic, NAME, Reply, Shards, VERSION, uuid};
use crate::http::Request;
use crate::iri::document::index_name;
use crate::iri::mapping::Mapping;
use crate::iri::store::{About, Index, StoreError, Told};

/// Names and patterns in one request.
const NAMES_MAX: usize = 256;

/// The names and patterns of a path's part; empty: all.
pub fn names(part: Option<&str>) -> Result<Vec<String>, Failure> {
    let Some(part) = part.filter(|part| !matches!(*part, "_all" | "*" | "")) else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    for name in part.split(',').filter(|name| !name.is_empty()) {
        if name.starts_with('_') {
            return Err(Failure::index_name(name, "must not start with '_'."));
        }
        if name.starts_with(['<', '-']) {
            return Err(Failure::argument(format!(
                "[{name}]: neither date math nor exclusions are supported"
            )));
        }
        names.push(name.to_owned());
    }
    match names.len() <= NAMES_MAX {
        true => Ok(names),
        false => Err(Failure::argument(format!("more than {NAMES_MAX} names of indices"))),
    }
}

#[derive(Serialize)]
struct Info {
    name: &'static str,
    cluster_name: &'static str,
    cluster_uuid: String,
    version: Version,
    tagline: &'static str,
}

#[derive(Serialize)]
struct Version {
    number: &'static str,
    build_flavor: &'static str,
    build_type: &'static str,
    build_hash: &'static str,
    build_date: &'static str,
    build_snapshot: bool,
    lucene_version: &'static str,
    minimum_wire_compatibility_version: &'static str,
    minimum_index_compatibility_version: &'static str,
}

/// Who answers: clients look at the version, and at the flavour where they are older.
pub fn info(asked: &Asked<'_>) -> Result<Reply, Failure> {
    asked.parameters.only(asked.request.path(), &[])?;
    let version = Version {
        number: VERSION,
        build_flavor: "default",
        build_type: "unknown",
        build_hash: concat!("lea-", env!("CARGO_PKG_VERSION")),
        build_date: "2025-06-19T01:37:57.847711500Z",
        build_snapshot: false,
        lucene_version: "8.11.3",
        minimum_wire_compatibility_version: "6.8.0",
        minimum_index_compatibility_version: "6.0.0-beta1",
    };
    let tagline = "You Know, for Search";
    Ok(Reply::json(200, &Info { name: NAME, cluster_name: NAME, cluster_uuid: uuid(NAME), version, tagline }))
}

/// What is given to requests that ask for the state or change it, and says nothing here.
const WAITS: [&str; 5] =
    ["timeout", "master_timeout", "wait_for_active_shards", "local", "include_type_name"];

const EXPANDS: [&str; 3] = ["ignore_unavailable", "allow_no_indices", "expand_wildcards"];

#[derive(Serialize)]
struct Health {
    cluster_name: &'static str,
    status: &'static str,
    timed_out: bool,
    number_of_nodes: u8,
    number_of_data_nodes: u8,
    active_primary_shards: usize,
    active_shards: usize,
    relocating_shards: u8,
    initializing_shards: u8,
    unassigned_shards: u8,
    delayed_unassigned_shards: u8,
    number_of_pending_tasks: u8,
    number_of_in_flight_fetch: u8,
    task_max_waiting_in_queue_millis: u8,
    active_shards_percent_as_number: f64,
}

#[derive(Serialize)]
struct Refreshed {
    #[serde(rename = "_shards")]
    shards: Shards,
}

impl Elastic {
    /// The indices of a path. One that is named and not there is an error, unless that was to be passed over.
    fn chosen(&self, asked: &Asked<'_>) -> Result<Vec<Index>, Failure> {
        let names = asked.indices()?;
        match self.store.indices(&names) {
            Err(StoreError::NoIndex(_)) if asked.parameters.is_on("ignore_unavailable")? => {
                let mut found = Vec::new();
                for name in names {
                    match self.store.indices(&[name]) {
                        Ok(indices) => found.extend(indices),
                        Err(StoreError::NoIndex(_)) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Ok(found)
            }
            chosen => Ok(chosen?),
        }
    }

    /// What a cluster says of itself is passed on as it is; none where the store is no cluster.
    pub(super) fn told(&self, about: About, asked: &Asked<'_>) -> Result<Option<Reply>, Failure> {
        let Some(remote) = self.store.remote() else { return Ok(None) };
        // These are done here, to the answer.
        let is_other = |(key, _): &(&str, &str)| !matches!(*key, "pretty" | "filter_path");
        let mut parameters: Vec<_> = asked.parameters.pairs().filter(is_other).collect();
        if asked.request.header("accept") == Some(b"application/json") {
            parameters.push(("format", "json"));
        }
        let Told { status, is_json, body } = remote.tell(about, &asked.indices()?, &parameters)?;
        let content_type = if is_json { super::JSON } else { super::TEXT };
        Ok(Some(Reply { status, content_type, body, location: None }))
    }

    /// What is acknowledged is found in a folder; a cluster is waited for.
    pub(super) fn refresh(&self, asked: &Asked<'_>) -> Result<Reply, Failure> {
        asked.parameters.only(asked.request.path(), &EXPANDS)?;
        match self.store.remote() {
            Some(remote) => {
                remote.refresh(&asked.indices()?, asked.parameters.is_on("ignore_unavailable")?)?;
            }
            None => drop(self.chosen(asked)?),
        }
        Ok(Reply::json(200, &Refreshed { shards: Shards::WRITTEN }))
    }

    /// The state of the whole: it answers, so it is well.
    pub(super) fn health(&self, asked: &Asked<'_>) -> Result<Reply, Failure> {
        let own = ["wait_for_status", "wait_for_no_relocating_shards", "wait_for_nodes", "level"];
        asked.parameters.only(asked.request.path(), &[&own[..], &WAITS, &EXPANDS].concat())?;
        if let Some(level) = asked.parameters.get("level").filter(|level| *level != "cluster") {
            return Err(Failure::argument(format!("[level] [{level}] is not supported")));
        }
        let shards = self.chosen(asked)?.len();
        let health = Health {
            cluster_name: NAME,
            status: "green",
            timed_out: false,
            number_of_nodes: 1,
            number_of_data_nodes: 1,
            active_primary_shards: shards,
            active_shards: shards,
            relocating_shards: 0,
            initializing_shards: 0,
            unassigned_shards: 0,
            delayed_unassigned_shards: 0,
            number_of_pending_tasks: 0,
            number_of_in_flight_fetch: 0,
            task_max_waiting_in_queue_millis: 0,
            active_shards_percent_as_number: 100.0,
        };
        Ok(Reply::json(200, &health))
    }

    /// The mappings of indices.
    pub(super) fn mapping(&self, asked: &Asked<'_>) -> Result<Reply, Failure> {
        asked.parameters.only(asked.request.path(), &[&WAITS[..], &EXPANDS].concat())?;
        let typed = asked.parameters.is_on("include_type_name")?;
        let shown = self.chosen(asked)?.into_iter().map(|index| {
            let shown = index.mapping.to_json();
            let shown = if typed { json!({ "_doc": shown }) } else { shown };
            (index.name, json!({ "mappings": shown }))
        });
        Ok(Reply::json(200, &Value::Object(shown.collect())))
    }

    /// Adds fields to indices.
    pub(super) fn put_mapping(&self, asked: &Asked<'_>) -> Result<Reply, Failure> {
        asked.parameters.only(asked.request.path(), &[&WAITS[..], &EXPANDS].concat())?;
        let mapping = mapping(&self.object(asked.request)?)?;
        for index in self.chosen(asked)? {
            self.store.put_mapping(&index.name, &mapping).map_err(unchanged)?;
        }
        Ok(Reply::json(200, &json!({ "acknowledged": true })))
    }

    /// Makes an index.
    pub(super) fn create_index(&self, asked: &Asked<'_>) -> Result<Reply, Failure> {
        asked.parameters.only(asked.request.path(), &WAITS)?;
        let index = asked.route.index.as_deref().unwrap_or_default();
        index_name(index).map_err(|why| Failure::index_name(index, why))?;
        let mapping = self.new_mapping(asked)?;
        if !self.store.create_index(index, &mapping).map_err(unchanged)? {
            let uuid = uuid(index);
            let reason = format!("index [{index}/{uuid}] already exists");
            let failure = Failure::new(400, "resource_already_exists_exception", reason);
            return Err(failure.detail("index_uuid", uuid).detail("index", index));
        }
        let made = Created { acknowledged: true, shards_acknowledged: true, index };
        Ok(Reply::json(200, &made))
    }

    /// The mapping in the body that makes an index; the settings there are for what is not here.
    fn new_mapping(&self, asked: &Asked<'_>) -> Result<Mapping, Failure> {
        let body = self.inflating.body(asked.request)?;
        if body.bytes().is_empty() {
            return Ok(Mapping::default());
        }
        let mut found = Mapping::default();
        for (key, value) in json_object(body.bytes())? {
            match (key.as_str(), value) {
                ("mappings", value) => found = mapping(&value)?,
                ("settings", Value::Object(settings)) => check_settings(&settings)?,
                ("aliases", Value::Object(aliases)) if aliases.is_empty() => {}
                (key, _) => {
                    let reason = format!("unknown key [{key}] for create index");
                    return Err(Failure::new(400, "parse_exception", reason));
                }
            }
        }
        Ok(found)
    }

    fn object(&self, request: &Request) -> Result<Value, Failure> {
        let body = self.inflating.body(request)?;
        match body.bytes() {
            [] => Err(Failure::no_body()),
            bytes => Ok(Value::Object(json_object(bytes)?)),
        }
    }

    /// An index as such.
    pub(super) fn index(&self, asked: &Asked<'_>) -> Result<Reply, Failure> {
        let own = ["flat_settings", "include_defaults"];
        asked.parameters.only(asked.request.path(), &[&own[..], &WAITS, &EXPANDS].concat())?;
        let shown = self.chosen(asked)?.into_iter().map(|index| {
            let settings = json!({ "index": {
                "number_of_replicas": "0", "number_of_shards": "1", "provided_name": index.name,
                "uuid": uuid(&index.name), "version": { "created": "7172999" },
            } });
            let shown = json!({ "aliases": {}, "mappings": index.mapping.to_json(), "settings": settings });
            (index.name, shown)
        });
        Ok(Reply::json(200, &Value::Object(shown.collect())))
    }

    /// The indices, for people.
    pub(super) fn cat_indices(&self, asked: &Asked<'_>) -> Result<Reply, Failure> {
        let cells = |index: Index| {
            let bytes = size(index.bytes);
            let uuid = uuid(&index.name);
            let documents = index.documents.to_string();
            let cells = ["green", "open", &index.name, &uuid, "1", "0", &documents, "0", &bytes, &bytes];
            cells.map(str::to_owned).to_vec()
        };
        cat(asked, &INDICES, self.chosen(asked)?.into_iter().map(cells).collect())
    }

    /// The state, for people and for shippers that only look whether somebody answers.
    pub(super) fn cat_health(&self, asked: &Asked<'_>) -> Result<Reply, Failure> {
        let now = Utc::now();
        let shards = self.store.indices(&[])?.len().to_string();
        let (epoch, time) = (now.timestamp().to_string(), now.format("%H:%M:%S").to_string());
        let row =
            [&epoch, &time, NAME, "green", "1", "1", &shards, &shards, "0", "0", "0", "0", "-", "100.0%"];
        cat(asked, &HEALTH, vec![row.map(str::to_owned).to_vec()])
    }
}

#[derive(Serialize)]
struct Created<'a> {
    acknowledged: bool,
    shards_acknowledged: bool,
    index: &'a str,
}

/// A mapping as it was put.
fn mapping(value: &Value) -> Result<Mapping, Failure> {
    Mapping::parse(value).map_err(|error| match error.0.starts_with("Limit of") {
        true => Failure::argument(error.0),
        false => Failure::mapping(error.0),
    })
}

/// A field's type cannot change; as a failure that is no failure of a search.
fn unchanged(error: StoreError) -> Failure {
    match error {
        StoreError::Invalid(reason) => Failure::argument(reason),
        other => other.into(),
    }
}

/// Settings of an index are about shards, which are not here, and about how text is taken apart, which is fixed.
fn check_settings(settings: &Map<String, Value>) -> Result<(), Failure> {
    let inner = settings.get("index").and_then(Value::as_object);
    let keys = settings.keys().chain(inner.into_iter().flat_map(Map::keys));
    let analysis = keys.map(|key| key.strip_prefix("index.").unwrap_or(key)).find(|key| {
        ["analysis", "query", "sort", "mapping"].iter().any(|known| key.split('.').next() == Some(known))
    });
    match analysis {
        None => Ok(()),
        Some(key) => Err(Failure::argument(format!("setting [index.{key}] is not supported"))),
    }
}

fn json_object(bytes: &[u8]) -> Result<Map<String, Value>, Failure> {
    serde_json::from_slice(bytes)
        .map_err(|error| Failure::new(400, "json_parse_exception", format!("no JSON object: {error}")))
}

/// A column of a list for people: its name, its short name, and whether it holds numbers.
type Column = (&'static str, &'static str, bool);

const INDICES: [Column; 10] = [
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

const HEALTH: [Column; 14] = [
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

/// Lays a list out as text or as JSON.
fn cat(asked: &Asked<'_>, columns: &[Column], rows: Vec<Vec<String>>) -> Result<Reply, Failure> {
    let parameters = &asked.parameters;
    let json = match parameters.get("format") {
        None | Some("text") => asked.request.header("accept") == Some(b"application/json"),
        Some("json") => true,
        Some(other) => return Err(Failure::argument(format!("[format] [{other}] is not supported"))),
    };
    if let Some((key, _)) = parameters
        .pairs()
        .find(|(key, _)| matches!(*key, "s" | "bytes" | "help" | "health" | "ts" | "time" | "pri"))
    {
        return Err(Failure::argument(format!("[{key}] is not supported")));
    }
    let known =
        ["v", "h", "format", "local", "master_timeout", "expand_wildcards", "include_unloaded_segments"];
    parameters.only(asked.request.path(), &known)?;
    let chosen = chosen_columns(parameters.get("h"), columns);
    if json {
        let row = |row: &Vec<String>| {
            Row(chosen.iter().map(|(at, name)| (name.clone(), row[*at].clone())).collect())
        };
        return Ok(Reply::json(200, &rows.iter().map(row).collect::<Vec<_>>()));
    }
    Ok(Reply::text(text(columns, &chosen, &rows, parameters.is_on("v")?)))
}

/// The columns that `h` names, by long or short name, each under the name that was asked for; those it does not know
/// are left out, as in the real one.
fn chosen_columns(named: Option<&str>, columns: &[Column]) -> Vec<(usize, String)> {
    let Some(named) = named.filter(|named| !named.is_empty()) else {
        return columns.iter().map(|(name, ..)| (*name).to_owned()).enumerate().collect();
    };
    let place = |name: &str| {
        let is_it = |(long, short, _): &Column| *long == name || (!short.is_empty() && *short == name);
        columns.iter().position(is_it).map(|at| (at, name.to_owned()))
    };
    named.split(',').filter_map(|name| place(name.trim())).collect()
}

fn text(columns: &[Column], chosen: &[(usize, String)], rows: &[Vec<String>], head: bool) -> String {
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

/// A row as an object whose keys keep their order.
struct Row(Vec<(String, String)>);

impl Serialize for Row {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

/// A size as people read it: `227b`, `15.6kb`.
fn size(bytes: u64) -> String {
    let units = ["kb", "mb", "gb", "tb"];
    if bytes < 1024 {
        return format!("{bytes}b");
    }
    let (mut value, mut at) = (bytes as f64 / 1024.0, 0);
    while value >= 1024.0 && at + 1 < units.len() {
        (value, at) = (value / 1024.0, at + 1);
    }
    // Cut, not rounded.
    let value = (value * 10.0).floor() / 10.0;
    format!("{value}{}", units[at])
}
