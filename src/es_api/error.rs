//! Errors in Elasticsearch's form. Pure.
//!
//! Clients read the status, `error.type` and `error.reason`, and some of them `error.root_cause[0]`.

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::search::query::QueryError;
use crate::search::store::{StoreError, WriteRejected};

/// The error response of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    status: u16,
    cause: ErrorCause,
    /// True if the query was parsed but cannot be executed. Elasticsearch then reports the error per shard.
    in_search: bool,
    /// True if the results of the shards cannot be combined. Elasticsearch then has no root cause.
    in_reduce: bool,
    /// The body, if it does not have the usual form: that of a cluster's error response, for example. JSON.
    body: Option<Box<str>>,
}

/// The content of `error`, of `root_cause` and of an item of a bulk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ErrorCause {
    kind: &'static str,
    reason: String,
    /// Further members, such as the index and its UUID.
    details: Vec<(&'static str, Value)>,
    caused_by: Option<Box<ErrorCause>>,
}

impl ErrorCause {
    fn new(kind: &'static str, reason: impl Into<String>) -> ErrorCause {
        ErrorCause { kind, reason: reason.into(), details: Vec::new(), caused_by: None }
    }

    fn with(mut self, key: &'static str, value: impl Into<Value>) -> ErrorCause {
        self.details.push((key, value.into()));
        self
    }
}

impl ApiError {
    pub(super) fn new(status: u16, kind: &'static str, reason: impl Into<String>) -> ApiError {
        ApiError {
            status,
            cause: ErrorCause::new(kind, reason),
            in_search: false,
            in_reduce: false,
            body: None,
        }
    }

    /// An error with a body that does not have the usual form.
    pub(super) fn with_body(status: u16, body: &serde_json::Value) -> ApiError {
        ApiError { body: Some(body.to_string().into()), ..ApiError::new(status, "exception", "") }
    }

    /// Elasticsearch has this, but the service has not.
    pub(super) fn not_supported(reason: impl std::fmt::Display) -> ApiError {
        ApiError::illegal_argument(format!("not supported: {reason}"))
    }

    /// A parameter or a value is invalid.
    pub(super) fn illegal_argument(reason: impl Into<String>) -> ApiError {
        ApiError::new(400, "illegal_argument_exception", reason)
    }

    /// A required part of the request is missing.
    pub(super) fn validation(reason: &str) -> ApiError {
        ApiError::new(400, "action_request_validation_exception", format!("Validation Failed: 1: {reason};"))
    }

    pub(super) fn missing_body() -> ApiError {
        ApiError::new(400, "parse_exception", "request body is required")
    }

    /// A document does not fit its mapping, or a mapping is invalid.
    pub(super) fn mapper_parsing(reason: impl Into<String>) -> ApiError {
        ApiError::new(400, "mapper_parsing_exception", reason)
    }

    pub(super) fn invalid_mapping(reason: impl Into<String>) -> ApiError {
        let reason = reason.into();
        let outer = format!("Failed to parse mapping [_doc]: {reason}");
        ApiError::mapper_parsing(outer).caused_by(ErrorCause::new("mapper_parsing_exception", reason))
    }

    pub(super) fn index_not_found(index: &str) -> ApiError {
        let error = ApiError::new(404, "index_not_found_exception", format!("no such index [{index}]"));
        error
            .with_detail("resource.type", "index_or_alias")
            .with_detail("resource.id", index)
            .with_detail("index_uuid", "_na_")
            .with_detail("index", index)
    }

    /// `require_alias` is set, and the name is not an alias.
    pub(super) fn alias_required(index: &str) -> ApiError {
        let reason = format!(
            "no such index [{index}] and [require_alias] request flag is [true] and [{index}] is not an alias"
        );
        let error = ApiError::new(404, "index_not_found_exception", reason);
        error.with_detail("index_uuid", "_na_").with_detail("index", index)
    }

    /// A scroll or a point in time has ended.
    pub(super) fn search_context_missing(id: &str) -> ApiError {
        let reason = format!("No search context found for id [{id}]");
        ApiError::new(404, "search_context_missing_exception", reason).in_search()
    }

    /// Reports the error per shard.
    pub(super) fn into_search_error(self) -> ApiError {
        self.in_search()
    }

    /// The service has no lifecycle policies.
    pub(super) fn policy_missing(name: Option<&str>) -> ApiError {
        let reason = format!("Lifecycle policy not found: {}", name.unwrap_or("*"));
        ApiError::new(404, "resource_not_found_exception", reason)
    }

    /// The service has no ingest pipelines.
    pub(super) fn pipeline_missing(name: &str) -> ApiError {
        ApiError::illegal_argument(format!("pipeline with id [{name}] does not exist"))
    }

    pub(super) fn invalid_index_name(index: &str, why: &str) -> ApiError {
        let reason = format!("Invalid index name [{index}], {why}");
        ApiError::new(400, "invalid_index_name_exception", reason)
            .with_detail("index_uuid", "_na_")
            .with_detail("index", index)
    }

    /// A limit is reached. Senders wait and try again.
    pub(super) fn rejected_execution(reason: impl Into<String>) -> ApiError {
        ApiError::new(429, "es_rejected_execution_exception", reason)
    }

    /// Adds a member.
    pub(super) fn with_detail(mut self, key: &'static str, value: impl Into<Value>) -> ApiError {
        self.cause = self.cause.with(key, value);
        self
    }

    /// Replaces a member.
    pub(super) fn with_detail_replaced(mut self, key: &'static str, value: &str) -> ApiError {
        self.cause
            .details
            .iter_mut()
            .filter(|(name, _)| *name == key)
            .for_each(|(_, old)| *old = value.into());
        self
    }

    fn caused_by(mut self, cause: ErrorCause) -> ApiError {
        self.cause.caused_by = Some(Box::new(cause));
        self
    }

    fn in_search(mut self) -> ApiError {
        self.in_search = true;
        self
    }

    pub(super) fn kind(&self) -> &'static str {
        self.cause.kind
    }

    fn in_reduce(mut self) -> ApiError {
        self.in_reduce = true;
        self
    }

    pub(super) fn status(&self) -> u16 {
        self.status
    }

    #[cfg(test)]
    pub(super) fn reason(&self) -> &str {
        &self.cause.reason
    }

    /// The `error` member of a bulk item.
    pub(super) fn cause(&self) -> &ErrorCause {
        &self.cause
    }

    /// Converts the store's reason for rejecting a document.
    pub(super) fn from_rejected_document(
        rejected: &WriteRejected,
        index: &str,
        uuid: impl FnOnce() -> String,
    ) -> ApiError {
        match rejected {
            WriteRejected::AlreadyExists { .. } => {
                ApiError::new(409, "version_conflict_engine_exception", rejected.to_string())
                    .with_detail("index_uuid", uuid())
                    .with_detail("shard", "0")
                    .with_detail("index", index)
            }
            WriteRejected::Invalid(reason) if reason.starts_with("mapping set to strict") => {
                ApiError::new(400, "strict_dynamic_mapping_exception", reason)
            }
            WriteRejected::Invalid(reason) => match reason.strip_prefix("failed to parse: ") {
                Some(cause) => ApiError::mapper_parsing("failed to parse")
                    .caused_by(ErrorCause::new("json_parse_exception", cause)),
                None => ApiError::mapper_parsing(reason),
            },
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> ApiError {
        match error {
            StoreError::Full => ApiError::rejected_execution(error.to_string()),
            StoreError::IndexNotFound(index) => ApiError::index_not_found(&index),
            StoreError::Invalid(reason) => {
                let of_shard = [
                    "No mapping found",
                    "failed to create query",
                    "Failed to parse query",
                    "Can only use",
                    "The _",
                    "failed to find geo field",
                ];
                let kind = match of_shard.iter().any(|start| reason.starts_with(start)) {
                    _ if reason.starts_with("failed to parse date field") => "parse_exception",
                    true => "query_shard_exception",
                    false => "illegal_argument_exception",
                };
                ApiError::new(400, kind, reason).in_search()
            }
            StoreError::TooManyBuckets => {
                ApiError::new(503, "too_many_buckets_exception", error.to_string()).in_reduce()
            }
            StoreError::TooLarge(_) => ApiError::new(429, "circuit_breaking_exception", error.to_string()),
            StoreError::MemoryExceeded { breaker, wanted, limit } => {
                // As in Elasticsearch: a request that alone is too large does not fit later either.
                let durability = if breaker == "parent" { "TRANSIENT" } else { "PERMANENT" };
                ApiError::new(429, "circuit_breaking_exception", error.to_string())
                    .with_detail("bytes_wanted", wanted)
                    .with_detail("bytes_limit", limit)
                    .with_detail("durability", durability)
            }
            StoreError::ClientGone => ApiError::new(400, "task_cancelled_exception", error.to_string()),
            StoreError::Busy => ApiError::rejected_execution(error.to_string()),
            StoreError::Unreachable(_) => {
                ApiError::new(503, "connect_transport_exception", error.to_string())
            }
            StoreError::Rejected { status, cause, body } => {
                let body = String::from_utf8(body).ok();
                let json = body.filter(|body| serde_json::from_str::<&RawValue>(body).is_ok());
                ApiError { body: json.map(String::into), ..ApiError::new(status, "exception", cause) }
            }
            StoreError::TimedOut(_) => ApiError::new(503, "timeout_exception", error.to_string()),
            StoreError::ShuttingDown => ApiError::new(503, "node_closed_exception", error.to_string()),
            StoreError::Failed { .. } => {
                log::error!("store_failed error=\"{}\"", error.to_string().escape_debug());
                ApiError::new(500, "exception", "the store failed, see the log")
            }
        }
    }
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> ApiError {
        let is_window = error.reason.starts_with("Result window is too large");
        let (in_shard, in_reduce) = (error.in_shard || is_window, error.in_reduce);
        let status = if error.kind == "aggregation_initialization_exception" { 500 } else { 400 };
        let api_error = ApiError::new(status, error.kind, error.reason);
        let api_error = match error.cause {
            Some(cause) => api_error.caused_by(ErrorCause::new("parse_exception", cause)),
            None => api_error,
        };
        match (in_shard, in_reduce) {
            (_, true) => api_error.in_reduce(),
            (true, _) => api_error.in_search(),
            _ => api_error,
        }
    }
}

impl Serialize for ErrorCause {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.serialize_entries(&mut map)?;
        map.end()
    }
}

impl ErrorCause {
    fn serialize_entries<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        map.serialize_entry("type", self.kind)?;
        map.serialize_entry("reason", &self.reason)?;
        for (key, value) in &self.details {
            map.serialize_entry(key, value)?;
        }
        match &self.caused_by {
            Some(cause) => map.serialize_entry("caused_by", cause),
            None => Ok(()),
        }
    }

    /// Returns the innermost cause of the same type.
    fn root(&self) -> ErrorCause {
        match &self.caused_by {
            Some(cause) if cause.kind == self.kind => cause.root(),
            _ => ErrorCause { caused_by: None, ..self.clone() },
        }
    }
}

impl Serialize for ApiError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let parse = |body| serde_json::from_str::<&RawValue>(body).ok();
        if let Some(body) = self.body.as_deref().and_then(parse) {
            return body.serialize(serializer);
        }
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("error", &ErrorBody(self))?;
        map.serialize_entry("status", &self.status)?;
        map.end()
    }
}

struct ErrorBody<'a>(&'a ApiError);

impl Serialize for ErrorBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ErrorBody(ApiError { cause, in_search, in_reduce, .. }) = self;
        let mut map = serializer.serialize_map(None)?;
        if *in_reduce {
            map.serialize_entry("root_cause", &[(); 0])?;
            map.serialize_entry("type", "search_phase_execution_exception")?;
            map.serialize_entry("reason", "")?;
            map.serialize_entry("phase", "fetch")?;
            map.serialize_entry("grouped", &true)?;
            map.serialize_entry("failed_shards", &[(); 0])?;
            map.serialize_entry("caused_by", cause)?;
            return map.end();
        }
        map.serialize_entry("root_cause", &[cause.root()])?;
        if *in_search {
            map.serialize_entry("type", "search_phase_execution_exception")?;
            map.serialize_entry("reason", "all shards failed")?;
            map.serialize_entry("phase", "query")?;
            map.serialize_entry("grouped", &true)?;
            map.serialize_entry("failed_shards", &[FailedShard { shard: 0, node: "lea", reason: cause }])?;
        } else {
            cause.serialize_entries(&mut map)?;
        }
        map.end()
    }
}

#[derive(serde::Serialize)]
struct FailedShard<'a> {
    shard: u8,
    node: &'static str,
    reason: &'a ErrorCause,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(error: ApiError, expected: &str) {
        assert_eq!(serde_json::to_string(&error).unwrap(), expected);
    }

    #[test]
    fn errors_have_the_form_of_elasticsearch() {
        check(
            ApiError::missing_body(),
            r#"{"error":{"root_cause":[{"type":"parse_exception","reason":"request body is required"}],"type":"parse_exception","reason":"request body is required"},"status":400}"#,
        );
        check(
            ApiError::invalid_index_name("X2", "must be lowercase"),
            r#"{"error":{"root_cause":[{"type":"invalid_index_name_exception","reason":"Invalid index name [X2], must be lowercase","index_uuid":"_na_","index":"X2"}],"type":"invalid_index_name_exception","reason":"Invalid index name [X2], must be lowercase","index_uuid":"_na_","index":"X2"},"status":400}"#,
        );
        check(
            ApiError::invalid_mapping("No handler for type [nope] declared on field [k]"),
            r#"{"error":{"root_cause":[{"type":"mapper_parsing_exception","reason":"No handler for type [nope] declared on field [k]"}],"type":"mapper_parsing_exception","reason":"Failed to parse mapping [_doc]: No handler for type [nope] declared on field [k]","caused_by":{"type":"mapper_parsing_exception","reason":"No handler for type [nope] declared on field [k]"}},"status":400}"#,
        );
        check(
            StoreError::Invalid("No mapping found for [f] in order to sort on".to_owned()).into(),
            r#"{"error":{"root_cause":[{"type":"query_shard_exception","reason":"No mapping found for [f] in order to sort on"}],"type":"search_phase_execution_exception","reason":"all shards failed","phase":"query","grouped":true,"failed_shards":[{"shard":0,"node":"lea","reason":{"type":"query_shard_exception","reason":"No mapping found for [f] in order to sort on"}}]},"status":400}"#,
        );
    }
}
