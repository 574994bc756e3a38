//! One document: stored, read. Runs on the connections' threads.

use serde::Serialize;
use serde_json::value::RawValue;

use super::failure::Failure;
use super::parameters::Parameters;
use super::route::Action;
use super::sieve::Sieve;
use super::{Asked, Elastic, Reply, Shards, uuid};
use crate::iri::document::{Document, Mode, index_name};
use crate::iri::query::{Hit, SourceFilter};
use crate::iri::store::Written;

/// What a stored document is answered with, alone or in a bulk.
#[derive(Serialize)]
pub struct Stored<'a> {
    #[serde(rename = "_index")]
    index: &'a str,
    #[serde(rename = "_type")]
    kind: &'a str,
    #[serde(rename = "_id")]
    id: &'a str,
    #[serde(rename = "_version")]
    version: u64,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    forced_refresh: Option<bool>,
    #[serde(rename = "_shards")]
    shards: Shards,
    #[serde(rename = "_seq_no")]
    sequence: u64,
    #[serde(rename = "_primary_term")]
    primary_term: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
}

impl<'a> Stored<'a> {
    /// The answer for a document; `status` is told within a bulk.
    pub fn new(index: &'a str, kind: Option<&'a str>, written: &'a Written, refresh: bool) -> Stored<'a> {
        Stored {
            index,
            kind: kind.unwrap_or("_doc"),
            id: &written.id,
            version: written.version,
            result: if written.created { "created" } else { "updated" },
            forced_refresh: refresh.then_some(true),
            shards: Shards::WRITTEN,
            sequence: written.sequence,
            primary_term: 1,
            status: None,
        }
    }

    /// The same as an item of a bulk.
    pub fn into_item(mut self) -> Stored<'a> {
        self.status = Some(self.status());
        self
    }

    fn status(&self) -> u16 {
        if self.result == "created" { 201 } else { 200 }
    }
}

/// A document that was asked for by its id.
#[derive(Serialize)]
struct Got<'a> {
    #[serde(rename = "_index")]
    index: &'a str,
    #[serde(rename = "_type")]
    kind: &'a str,
    #[serde(rename = "_id")]
    id: &'a str,
    #[serde(rename = "_version", skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(rename = "_seq_no", skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    #[serde(rename = "_primary_term", skip_serializing_if = "Option::is_none")]
    primary_term: Option<u8>,
    found: bool,
    #[serde(rename = "_source", skip_serializing_if = "Option::is_none")]
    source: Option<&'a RawValue>,
}

/// What a write may be told and does not need: it is durable and found when it is answered.
pub const WRITE: [&str; 5] = ["refresh", "timeout", "wait_for_active_shards", "op_type", "require_alias"];

/// Whether `refresh` was asked for; then the answer says so.
pub fn refresh(parameters: &Parameters<'_>) -> Result<bool, Failure> {
    match parameters.get("refresh") {
        None | Some("false" | "wait_for") => Ok(false),
        Some("" | "true") => Ok(true),
        Some(other) => Err(Failure::argument(format!("Unknown value for refresh: [{other}]."))),
    }
}

impl Elastic {
    /// Where a write is to be found when it is answered: waits for a cluster. The documents are durable whether or not it
    /// comes to that, so it is no failure of theirs.
    pub(super) fn await_found(&self, parameters: &Parameters<'_>, indices: &[String]) {
        let wanted = !matches!(parameters.get("refresh"), None | Some("false"));
        let Some(remote) = self.store.remote().filter(|_| wanted) else { return };
        if let Err(error) = remote.refresh(indices, true) {
            log::warn!("refresh_failed error=\"{}\"", error.to_string().escape_debug());
        }
    }
}

/// Checks what only an alias could answer.
pub fn no_alias(parameters: &Parameters<'_>) -> Result<(), Failure> {
    match parameters.is_on("require_alias")? {
        true => Err(Failure::argument("[require_alias] is not supported: there are no aliases")),
        false => Ok(()),
    }
}

impl Elastic {
    /// Stores one document.
    pub(super) fn write_one(&self, asked: &Asked<'_>) -> Result<Reply, Failure> {
        let Asked { request, route, parameters } = asked;
        parameters.only(request.path(), &WRITE)?;
        let refresh = refresh(parameters)?;
        no_alias(parameters)?;
        let mode = match (route.action, parameters.get("op_type")) {
            (Action::Create, _) | (_, Some("create")) => Mode::Create,
            (_, None | Some("index")) => Mode::Index,
            (_, Some(other)) => {
                let reason = format!("opType must be 'create' or 'index', found: [{other}]");
                return Err(Failure::argument(reason));
            }
        };
        let body = self.inflating.body(request)?;
        if body.bytes().is_empty() {
            return Err(Failure::no_body());
        }
        let index = route.index.as_deref().unwrap_or_default();
        index_name(index).map_err(|why| Failure::index_name(index, why))?;
        let (kind, id) = (route.kind.as_deref(), route.id.as_deref());
        self.same_kind(index, kind, id)?;
        let document = Document {
            index: index.to_owned(),
            kind: kind.map(str::to_owned),
            id: id.map(str::to_owned),
            mode,
            source: body.bytes().into(),
        };
        let written = self.store.write(vec![document])?.pop();
        let written = written.ok_or_else(|| Failure::new(500, "exception", "the store gave no answer"))?;
        let written = written.map_err(|refused| Failure::of_document(&refused, index, || uuid(index)))?;
        self.await_found(parameters, &[index.to_owned()]);
        let stored = Stored::new(index, kind, &written, refresh);
        let mut reply = Reply::json(stored.status(), &stored);
        if written.created {
            reply.location = Some(format!("/{index}/{}/{}", kind.unwrap_or("_doc"), escaped(&written.id)));
        }
        Ok(reply)
    }

    /// An id is one document's in its index, whatever its type: a sender that counts on more is told.
    pub(super) fn same_kind(&self, index: &str, kind: Option<&str>, id: Option<&str>) -> Result<(), Failure> {
        let (Some(kind), Some(id)) = (kind, id) else { return Ok(()) };
        if self.store.remote().is_some() {
            return Ok(());
        }
        match self.store.get(index, id)? {
            Some(hit) if hit.kind.as_deref() != Some(kind) => {
                let there = hit.kind.as_deref().unwrap_or("_doc");
                Err(Failure::argument(format!("Invalid type: expecting [{there}] but got [{kind}]")))
            }
            _ => Ok(()),
        }
    }

    /// A document, or its source alone.
    pub(super) fn get(&self, asked: &Asked<'_>) -> Result<Reply, Failure> {
        let Asked { request, route, parameters } = asked;
        let known = ["_source", "_source_includes", "_source_excludes", "realtime", "refresh", "preference"];
        parameters.only(request.path(), &known)?;
        let index = route.index.as_deref().unwrap_or_default();
        let id = route.id.as_deref().unwrap_or_default();
        if index.contains(['*', ',']) || index == "_all" {
            return Err(Failure::no_index(index).detail("resource.type", "index_expression"));
        }
        let hit = self.store.get(index, id)?;
        let is_of_kind = |hit: &Hit| {
            let kind = route.kind.as_deref().filter(|_| self.store.remote().is_none());
            kind.is_none() || hit.kind.as_deref() == kind
        };
        let hit = hit.filter(is_of_kind);
        match (hit, route.action) {
            (Some(hit), Action::Source) => source_alone(&hit, parameters),
            (Some(hit), _) => found(&hit, parameters),
            (None, _) if self.store.indices(&[index.to_owned()])?.is_empty() => Err(Failure::no_index(index)),
            (None, Action::Source) => {
                let kind = route.kind.as_deref().unwrap_or("_doc");
                let reason = format!("Document not found [{index}]/[{kind}]/[{id}]");
                Err(Failure::new(404, "resource_not_found_exception", reason))
            }
            (None, _) => Ok(Reply::json(404, &missing(index, route.kind.as_deref(), id))),
        }
    }
}

fn missing<'a>(index: &'a str, kind: Option<&'a str>, id: &'a str) -> Got<'a> {
    let kind = kind.unwrap_or("_doc");
    Got { index, kind, id, version: None, sequence: None, primary_term: None, found: false, source: None }
}

fn found(hit: &Hit, parameters: &Parameters<'_>) -> Result<Reply, Failure> {
    let source = sifted(hit, &source_filter(parameters)?)?;
    let got = Got {
        index: &hit.index,
        kind: hit.kind.as_deref().unwrap_or("_doc"),
        id: &hit.id,
        version: Some(hit.version),
        sequence: Some(hit.sequence),
        primary_term: Some(1),
        found: true,
        source: source.as_deref(),
    };
    Ok(Reply::json(200, &got))
}

fn source_alone(hit: &Hit, parameters: &Parameters<'_>) -> Result<Reply, Failure> {
    match sifted(hit, &source_filter(parameters)?)? {
        Some(source) => Ok(Reply::json(200, &source)),
        None => Err(Failure::validation("fetching source can not be disabled")),
    }
}

/// What is left of a hit's source, as JSON.
pub fn sifted(hit: &Hit, filter: &SourceFilter) -> Result<Option<Box<RawValue>>, Failure> {
    if filter.none {
        return Ok(None);
    }
    let sieve = Sieve::of_source(filter)?;
    let left = if sieve.is_empty() { hit.source.clone() } else { sieve.sift(&hit.source) };
    let raw = String::from_utf8(left).ok().and_then(|text| RawValue::from_string(text).ok());
    match raw {
        Some(raw) => Ok(Some(raw)),
        None => {
            log::error!("source_damaged index={} sequence={}", hit.index, hit.sequence);
            Err(Failure::new(500, "exception", "a stored document is damaged, see the log"))
        }
    }
}

fn source_filter(parameters: &Parameters<'_>) -> Result<SourceFilter, Failure> {
    let list = |text: &str| text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let mut filter = SourceFilter::default();
    match parameters.get("_source") {
        None | Some("true") => {}
        Some("false") => filter.none = true,
        Some(names) => filter.includes = list(names),
    }
    if let Some(names) = parameters.get("_source_includes") {
        filter.includes = list(names);
    }
    if let Some(names) = parameters.get("_source_excludes") {
        filter.excludes = list(names);
    }
    Ok(filter)
}

/// An id as a part of a path.
fn escaped(id: &str) -> String {
    form_urlencoded::byte_serialize(id.as_bytes()).collect::<String>().replace('+', "%20")
}
