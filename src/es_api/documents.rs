//! The endpoints for one document: write and read. Runs on the threads of the HTTP connections.

use serde::Serialize;
use serde_json::value::RawValue;

use super::api::{EsApi, RoutedRequest};
use super::endpoint::Endpoint;
use super::error::ApiError;
use super::field_filter::FieldFilter;
use super::parameters::Parameters;
use super::response::{self, ShardCounts, stable_uuid};
use crate::http::{Request, Response};
use crate::iri::ingest::event_sink::{MessageOrigin, RejectedDocument};
use crate::search::document::{Document, WriteMode, check_index_name};
use crate::search::query::{Hit, SourceFilter};
use crate::search::store::{WriteReceipt, WriteRejected};

/// The result of a written document, alone or in a bulk.
#[derive(Serialize)]
pub(super) struct WriteResponse<'a> {
    #[serde(rename = "_index")]
    index: &'a str,
    #[serde(rename = "_type")]
    doc_type: &'a str,
    #[serde(rename = "_id")]
    id: &'a str,
    #[serde(rename = "_version")]
    version: u64,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    forced_refresh: Option<bool>,
    #[serde(rename = "_shards")]
    shards: ShardCounts,
    #[serde(rename = "_seq_no")]
    sequence: u64,
    #[serde(rename = "_primary_term")]
    primary_term: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
}

impl<'a> WriteResponse<'a> {
    pub(super) fn new(
        index: &'a str,
        doc_type: Option<&'a str>,
        written: &'a WriteReceipt,
        refresh: bool,
    ) -> WriteResponse<'a> {
        WriteResponse {
            index,
            doc_type: doc_type.unwrap_or("_doc"),
            id: &written.id,
            version: written.version,
            result: if written.created { "created" } else { "updated" },
            forced_refresh: refresh.then_some(true),
            shards: ShardCounts::OF_WRITE,
            sequence: written.seq_no,
            primary_term: 1,
            status: None,
        }
    }

    /// Adds the status, which only the items of a bulk have.
    pub(super) fn into_item(mut self) -> WriteResponse<'a> {
        self.status = Some(self.status());
        self
    }

    fn status(&self) -> u16 {
        if self.result == "created" { 201 } else { 200 }
    }
}

/// The response to a GET of a document.
#[derive(Serialize)]
pub(super) struct GetResponse<'a> {
    #[serde(rename = "_index")]
    index: &'a str,
    #[serde(rename = "_type")]
    doc_type: &'a str,
    #[serde(rename = "_id")]
    id: &'a str,
    #[serde(rename = "_version", skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(rename = "_seq_no", skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    #[serde(rename = "_primary_term", skip_serializing_if = "Option::is_none")]
    primary_term: Option<u8>,
    #[serde(rename = "_ignored", skip_serializing_if = "<[String]>::is_empty")]
    ignored: &'a [String],
    found: bool,
    #[serde(rename = "_source", skip_serializing_if = "Option::is_none")]
    source: Option<&'a RawValue>,
}

/// Parameters of a write. Most of them change nothing, because a write is durable and searchable when it is answered.
pub(super) const WRITE_PARAMETERS: [&str; 4] =
    ["refresh", "timeout", "wait_for_active_shards", "require_alias"];

/// Further parameters of the write of one document.
const DOCUMENT_PARAMETERS: [&str; 7] =
    ["op_type", "routing", "pipeline", "version", "version_type", "if_seq_no", "if_primary_term"];

pub(super) fn op_type_reason(found: &str) -> String {
    format!("opType must be 'create' or 'index', found: [{found}]")
}

/// Returns true if the request has `refresh`, which the response then reports as `forced_refresh`.
pub(super) fn is_refresh_forced(parameters: &Parameters<'_>) -> Result<bool, ApiError> {
    match parameters.get("refresh") {
        None | Some("false" | "wait_for") => Ok(false),
        Some("" | "true") => Ok(true),
        Some(other) => Err(ApiError::illegal_argument(format!("Unknown value for refresh: [{other}]."))),
    }
}

impl EsApi {
    /// Refreshes the indices of a cluster if the request has `refresh`. The documents are durable even if that fails, so a
    /// failure is only logged.
    pub(super) fn wait_for_refresh(&self, parameters: &Parameters<'_>, indices: &[String]) {
        let is_wanted = !matches!(parameters.get("refresh"), None | Some("false"));
        let Some(cluster) = self.store.cluster_backend().filter(|_| is_wanted) else { return };
        if let Err(error) = cluster.refresh(indices, true) {
            log::warn!("refresh_failed error=\"{}\"", error.to_string().escape_debug());
        }
    }
}

/// Rejects parameters that demand more of a write than the service does.
fn check_write_parameters(parameters: &Parameters<'_>, index: &str, is_alias: bool) -> Result<(), ApiError> {
    if parameters.is_on("require_alias")? && !is_alias {
        return Err(ApiError::alias_required(index));
    }
    if let Some(name) = parameters.get("pipeline").filter(|name| *name != "_none") {
        return Err(ApiError::pipeline_missing(name));
    }
    let version = parameters.get("version").and_then(|version| version.parse::<i64>().ok());
    let version_type = parameters.get("version_type").unwrap_or("internal");
    super::bulk::check_version(version, version_type)?;
    let condition = ["if_seq_no", "if_primary_term"].into_iter().find(|key| parameters.get(key).is_some());
    match condition.or((version_type != "internal").then_some("version_type")) {
        Some(key) => Err(ApiError::not_supported(format_args!("parameter [{key}] of a write"))),
        None => Ok(()),
    }
}

impl EsApi {
    pub(super) fn write_document(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        let RoutedRequest { request, route, parameters } = routed;
        routed.allow_parameters(&[&WRITE_PARAMETERS[..], &DOCUMENT_PARAMETERS].concat())?;
        let refresh = is_refresh_forced(parameters)?;
        let name = route.index.as_deref().unwrap_or_default();
        check_write_parameters(parameters, name, self.is_alias(name))?;
        let mode = match (route.endpoint, parameters.get("op_type")) {
            (Endpoint::Create, _) | (_, Some("create")) => WriteMode::Create,
            (_, None | Some("index")) => WriteMode::Index,
            (_, Some(other)) => {
                return Err(ApiError::illegal_argument(op_type_reason(other)));
            }
        };
        let body = self.read_body(routed)?;
        if body.bytes().is_empty() {
            return Err(ApiError::missing_body());
        }
        let index = &self.write_index(route.index.as_deref().unwrap_or_default())?;
        check_index_name(index).map_err(|why| ApiError::invalid_index_name(index, why))?;
        let (doc_type, id) = (route.doc_type.as_deref(), route.id.as_deref());
        self.create_from_template(index)?;
        self.check_type(index, doc_type, id)?;
        let document = Document {
            index: index.clone(),
            doc_type: doc_type.map(str::to_owned),
            id: id.map(str::to_owned),
            mode,
            source: body.bytes().into(),
        };
        let written = self.write_events(vec![document])?;
        self.count_results(request, written.iter().zip([(index.as_str(), body.bytes())]));
        let written = written.into_iter().next();
        let written =
            written.ok_or_else(|| ApiError::new(500, "exception", "the store returned no result"))?;
        let written = written
            .map_err(|rejected| ApiError::from_rejected_document(&rejected, index, || stable_uuid(index)))?;
        self.wait_for_refresh(parameters, std::slice::from_ref(index));
        let stored = WriteResponse::new(index, doc_type, &written, refresh);
        let response = response::json(stored.status(), &stored);
        if !written.created {
            return Ok(response);
        }
        let (doc_type, id) = (doc_type.unwrap_or("_doc"), encode_path_segment(&written.id));
        Ok(response.with_header("Location", format!("/{index}/{doc_type}/{id}")))
    }

    /// Writes documents. An event of the service's own indices is evidence, so another document cannot replace it. The same
    /// document can be sent again.
    pub(super) fn write_events(
        &self,
        mut documents: Vec<Document>,
    ) -> Result<Vec<Result<WriteReceipt, WriteRejected>>, ApiError> {
        let mut protected = Vec::new();
        for (at, document) in documents.iter_mut().enumerate() {
            let replaces = document.id.is_some() && document.mode == WriteMode::Index;
            if replaces && self.store.is_own_index(&document.index) {
                document.mode = WriteMode::Create;
                protected.push((at, document.index.clone(), document.source.clone()));
            }
        }
        let mut written = self.store.write(documents)?;
        for (at, index, source) in protected {
            let Some(result) = written.get_mut(at) else { continue };
            let Err(WriteRejected::AlreadyExists { id, version }) = result else { continue };
            match self.store.get(&index, id)? {
                Some(hit) if *hit.source == *source => {
                    let (id, version, seq_no) = (hit.id, hit.version, hit.seq_no);
                    *result = Ok(WriteReceipt { id, version, seq_no, created: false });
                }
                _ => self.warnings.warn(
                    "replacement_refused",
                    format_args!(
                        "event_replacement_refused index={index} id=\"{}\" version={version}",
                        id.escape_debug()
                    ),
                ),
            }
        }
        Ok(written)
    }

    /// Logs and counts that a document has replaced another one.
    fn record_replacement(&self, index: &str, written: &WriteReceipt) {
        self.metrics.events_replaced_total.inc();
        self.warnings.warn(
            "replaced",
            format_args!(
                "event_replaced index={index} id=\"{}\" version={}",
                written.id.escape_debug(),
                written.version
            ),
        );
    }

    /// Counts the results of the store, each with the index and source of its document. A document that can never be
    /// stored becomes a dead letter: its sender gets an error, but many senders then drop the event.
    pub(super) fn count_results<'a>(
        &self,
        request: &Request,
        written: impl Iterator<Item = (&'a Result<WriteReceipt, WriteRejected>, (&'a str, &'a [u8]))>,
    ) {
        let mut stored = 0;
        let rejected = written.filter_map(|(result, (index, source))| match result {
            Ok(written) => {
                stored += 1;
                if !written.created && !self.store.is_own_index(index) {
                    self.record_replacement(index, written);
                }
                None
            }
            Err(WriteRejected::Invalid(reason)) => {
                Some(RejectedDocument { index, source, reason: reason.clone() })
            }
            Err(WriteRejected::AlreadyExists { .. }) => None,
        });
        match &self.dead_letters {
            Some(dead_letters) => {
                let peer = request.peer().to_string();
                dead_letters.reject_documents(MessageOrigin { listener: "http", peer: &peer }, rejected);
            }
            None => self.metrics.events_rejected_unfit.add(rejected.count() as u64),
        }
        self.metrics.events_stored_total.add(stored);
    }

    /// Rejects a document whose ID exists in the index with another mapping type. An ID is unique within an index.
    pub(super) fn check_type(
        &self,
        index: &str,
        doc_type: Option<&str>,
        id: Option<&str>,
    ) -> Result<(), ApiError> {
        let (Some(doc_type), Some(id)) = (doc_type, id) else { return Ok(()) };
        if self.store.cluster_backend().is_some() {
            return Ok(());
        }
        match self.store.get(index, id)? {
            Some(hit) if hit.doc_type.as_deref() != Some(doc_type) => {
                let existing = hit.doc_type.as_deref().unwrap_or("_doc");
                Err(ApiError::illegal_argument(format!(
                    "Invalid type: expecting [{existing}] but got [{doc_type}]"
                )))
            }
            _ => Ok(()),
        }
    }

    /// Returns a document, or only its source.
    pub(super) fn get_document(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        let RoutedRequest { route, parameters, .. } = routed;
        let known = [
            "_source",
            "_source_includes",
            "_source_excludes",
            "realtime",
            "refresh",
            "preference",
            "routing",
            "version",
            "stored_fields",
        ];
        routed.allow_parameters(&known)?;
        if let Some(fields) = parameters.get("stored_fields").filter(|fields| *fields != "_none_") {
            return Err(ApiError::not_supported(format_args!(
                "stored_fields [{fields}]: no field is stored"
            )));
        }
        let index = &self.write_index(route.index.as_deref().unwrap_or_default())?;
        let id = route.id.as_deref().unwrap_or_default();
        if index.contains(['*', ',']) || index == "_all" {
            return Err(ApiError::index_not_found(index).with_detail("resource.type", "index_expression"));
        }
        let hit = self.store.get(index, id)?;
        let has_doc_type = |hit: &Hit| {
            let doc_type = route.doc_type.as_deref().filter(|_| self.store.cluster_backend().is_none());
            doc_type.is_none() || hit.doc_type.as_deref() == doc_type
        };
        let hit = hit.filter(has_doc_type);
        check_wanted_version(hit.as_ref(), parameters)?;
        match (hit, route.endpoint) {
            (Some(hit), Endpoint::Source) => source_response(&hit, parameters),
            (Some(hit), _) => found_response(&hit, parameters),
            (None, _) if self.store.indices(&[index.to_owned()])?.is_empty() => {
                Err(ApiError::index_not_found(index))
            }
            (None, Endpoint::Source) => {
                let doc_type = route.doc_type.as_deref().unwrap_or("_doc");
                let reason = format!("Document not found [{index}]/[{doc_type}]/[{id}]");
                Err(ApiError::new(404, "resource_not_found_exception", reason))
            }
            (None, _) => Ok(response::json(404, &not_found_response(index, route.doc_type.as_deref(), id))),
        }
    }
}

impl<'a> GetResponse<'a> {
    pub(super) fn found(hit: &'a Hit, source: Option<&'a RawValue>) -> GetResponse<'a> {
        GetResponse {
            index: &hit.index,
            doc_type: hit.doc_type.as_deref().unwrap_or("_doc"),
            id: &hit.id,
            version: Some(hit.version),
            sequence: Some(hit.seq_no),
            primary_term: Some(1),
            ignored: &hit.ignored,
            found: true,
            source,
        }
    }
}

fn not_found_response<'a>(index: &'a str, doc_type: Option<&'a str>, id: &'a str) -> GetResponse<'a> {
    let doc_type = doc_type.unwrap_or("_doc");
    GetResponse {
        index,
        doc_type,
        id,
        version: None,
        sequence: None,
        primary_term: None,
        ignored: &[],
        found: false,
        source: None,
    }
}

fn found_response(hit: &Hit, parameters: &Parameters<'_>) -> Result<Response, ApiError> {
    let source = filtered_source(hit, &source_filter(parameters)?)?;
    let source =
        source.filter(|_| parameters.get("stored_fields").is_none() || parameters.get("_source").is_some());
    Ok(response::json(200, &GetResponse::found(hit, source.as_deref())))
}

fn source_response(hit: &Hit, parameters: &Parameters<'_>) -> Result<Response, ApiError> {
    match filtered_source(hit, &source_filter(parameters)?)? {
        Some(source) => Ok(response::json(200, &source)),
        None => Err(ApiError::validation("fetching source can not be disabled")),
    }
}

/// Checks the version of a document that a request asks for.
fn check_wanted_version(hit: Option<&Hit>, parameters: &Parameters<'_>) -> Result<(), ApiError> {
    let (Some(hit), Some(wanted)) = (hit, parameters.get("version")) else { return Ok(()) };
    match wanted.parse::<i64>() {
        Ok(wanted) if wanted < 0 || wanted.unsigned_abs() == hit.version => Ok(()),
        Ok(_) => {
            let reason = format!(
                "[{}]: version conflict, current version [{}] is different than the one provided [{wanted}]",
                hit.id, hit.version
            );
            Err(ApiError::new(409, "version_conflict_engine_exception", reason))
        }
        Err(_) => Err(ApiError::illegal_argument(format!(
            "Failed to parse long parameter [version] with value [{wanted}]"
        ))),
    }
}

/// Returns the selected parts of a hit's source as JSON.
pub(super) fn filtered_source(hit: &Hit, filter: &SourceFilter) -> Result<Option<Box<RawValue>>, ApiError> {
    if filter.excludes_all {
        return Ok(None);
    }
    let filtered = FieldFilter::from_source_filter(filter)?.apply(&hit.source)?;
    let raw = String::from_utf8(filtered).ok().and_then(|text| RawValue::from_string(text).ok());
    match raw {
        Some(raw) => Ok(Some(raw)),
        None => {
            log::error!("source_corrupt index={} seq_no={}", hit.index, hit.seq_no);
            Err(ApiError::new(500, "exception", "a stored document is corrupt, see the log"))
        }
    }
}

pub(super) fn source_filter(parameters: &Parameters<'_>) -> Result<SourceFilter, ApiError> {
    let list = |text: &str| text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let mut filter = SourceFilter::default();
    match parameters.get("_source") {
        None | Some("true") => {}
        Some("false") => filter.excludes_all = true,
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

/// Percent-encodes an ID as a part of a path.
fn encode_path_segment(id: &str) -> String {
    form_urlencoded::byte_serialize(id.as_bytes()).collect::<String>().replace('+', "%20")
}
