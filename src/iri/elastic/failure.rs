//! Errors in Elasticsearch's form. Pure.
//!
//! Clients look at the status, at `error.type` and at `error.reason`; some at `error.root_cause[0]`.

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;

use crate::iri::query::QueryError;
use crate::iri::store::{Refused, StoreError};

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    status: u16,
    cause: Cause,
    /// The question was understood, and cannot be answered as it stands: Elasticsearch says so a shard.
    in_search: bool,
    /// What a cluster has said of it, for whoever asked; JSON.
    told: Option<Box<str>>,
}

/// What `error`, `root_cause` and an item of a bulk say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    kind: &'static str,
    reason: String,
    /// Further keys: the index, the uuid.
    details: Vec<(&'static str, String)>,
    caused_by: Option<Box<Cause>>,
}

impl Cause {
    fn new(kind: &'static str, reason: impl Into<String>) -> Cause {
        Cause { kind, reason: reason.into(), details: Vec::new(), caused_by: None }
    }

    fn with(mut self, key: &'static str, value: impl Into<String>) -> Cause {
        self.details.push((key, value.into()));
        self
    }
}

impl Failure {
    /// A failure of that status, type and reason.
    pub fn new(status: u16, kind: &'static str, reason: impl Into<String>) -> Failure {
        Failure { status, cause: Cause::new(kind, reason), in_search: false, told: None }
    }

    /// An argument that cannot be.
    pub fn argument(reason: impl Into<String>) -> Failure {
        Failure::new(400, "illegal_argument_exception", reason)
    }

    /// A request without what it needs.
    pub fn validation(reason: &str) -> Failure {
        Failure::new(400, "action_request_validation_exception", format!("Validation Failed: 1: {reason};"))
    }

    /// A body that is not there.
    pub fn no_body() -> Failure {
        Failure::new(400, "parse_exception", "request body is required")
    }

    /// A document that cannot be stored as it is.
    pub fn unfit(reason: impl Into<String>) -> Failure {
        Failure::new(400, "mapper_parsing_exception", reason)
    }

    /// A mapping that cannot be.
    pub fn mapping(reason: impl Into<String>) -> Failure {
        let reason = reason.into();
        let outer = format!("Failed to parse mapping [_doc]: {reason}");
        Failure::unfit(outer).caused_by(Cause::new("mapper_parsing_exception", reason))
    }

    /// An index that is not there.
    pub fn no_index(index: &str) -> Failure {
        let failure = Failure::new(404, "index_not_found_exception", format!("no such index [{index}]"));
        failure
            .detail("resource.type", "index_or_alias")
            .detail("resource.id", index)
            .detail("index_uuid", "_na_")
            .detail("index", index)
    }

    /// A name that no index can have.
    pub fn index_name(index: &str, why: &str) -> Failure {
        let reason = format!("Invalid index name [{index}], {why}");
        Failure::new(400, "invalid_index_name_exception", reason)
            .detail("index_uuid", "_na_")
            .detail("index", index)
    }

    /// No room now: senders wait and try again.
    pub fn full(reason: impl Into<String>) -> Failure {
        Failure::new(429, "es_rejected_execution_exception", reason)
    }

    /// The same with a further key.
    pub fn detail(mut self, key: &'static str, value: impl Into<String>) -> Failure {
        self.cause = self.cause.with(key, value);
        self
    }

    fn caused_by(mut self, cause: Cause) -> Failure {
        self.cause.caused_by = Some(Box::new(cause));
        self
    }

    fn in_search(mut self) -> Failure {
        self.in_search = true;
        self
    }

    /// The status code.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The reason, for people.
    pub fn reason(&self) -> &str {
        &self.cause.reason
    }

    /// What an item of a bulk says of it.
    pub fn cause(&self) -> &Cause {
        &self.cause
    }

    /// Why the store refused a document.
    pub fn of_document(refused: &Refused, index: &str, uuid: impl FnOnce() -> String) -> Failure {
        match refused {
            Refused::Exists { .. } => {
                Failure::new(409, "version_conflict_engine_exception", refused.to_string())
                    .detail("index_uuid", uuid())
                    .detail("shard", "0")
                    .detail("index", index)
            }
            Refused::Unfit(reason) => Failure::unfit(reason),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        match error {
            StoreError::Full => Failure::full(error.to_string()),
            StoreError::NoIndex(index) => Failure::no_index(&index),
            StoreError::Invalid(reason) => {
                let of_shard = ["No mapping found", "failed to create query", "Failed to parse query"];
                let kind = match of_shard.iter().any(|begin| reason.starts_with(begin)) {
                    true => "query_shard_exception",
                    false => "illegal_argument_exception",
                };
                Failure::new(400, kind, reason).in_search()
            }
            StoreError::TooLarge(_) => Failure::new(429, "circuit_breaking_exception", error.to_string()),
            StoreError::Busy => Failure::full(error.to_string()),
            StoreError::Away(_) => Failure::new(503, "connect_transport_exception", error.to_string()),
            StoreError::Answered { status, cause, body } => {
                let told = String::from_utf8(body)
                    .ok()
                    .filter(|body| serde_json::from_str::<&RawValue>(body).is_ok());
                Failure { told: told.map(String::into), ..Failure::new(status, "exception", cause) }
            }
            StoreError::TimedOut(_) => Failure::new(503, "timeout_exception", error.to_string()),
            StoreError::Stopping => Failure::new(503, "node_closed_exception", error.to_string()),
            StoreError::Failed { .. } => {
                log::error!("store_failed error=\"{}\"", error.to_string().escape_debug());
                Failure::new(500, "exception", "the store failed, see the log")
            }
        }
    }
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Failure {
        let window = error.reason.starts_with("Result window is too large");
        let failure = Failure::new(400, error.kind, error.reason);
        let failure = match error.cause {
            Some(cause) => failure.caused_by(Cause::new("parse_exception", cause)),
            None => failure,
        };
        match failure.cause.kind == "query_shard_exception" || window {
            true => failure.in_search(),
            false => failure,
        }
    }
}

impl Serialize for Cause {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.entries(&mut map)?;
        map.end()
    }
}

impl Cause {
    fn entries<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
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

    /// The innermost one of the same type: what lies at the root.
    fn root(&self) -> Cause {
        match &self.caused_by {
            Some(cause) if cause.kind == self.kind => cause.root(),
            _ => Cause { caused_by: None, ..self.clone() },
        }
    }
}

impl Serialize for Failure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some(told) = self.told.as_deref().and_then(|told| serde_json::from_str::<&RawValue>(told).ok())
        {
            return told.serialize(serializer);
        }
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("error", &Told(self))?;
        map.serialize_entry("status", &self.status)?;
        map.end()
    }
}

struct Told<'a>(&'a Failure);

impl Serialize for Told<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Told(Failure { cause, in_search, .. }) = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("root_cause", &[cause.root()])?;
        if *in_search {
            map.serialize_entry("type", "search_phase_execution_exception")?;
            map.serialize_entry("reason", "all shards failed")?;
            map.serialize_entry("phase", "query")?;
            map.serialize_entry("grouped", &true)?;
            map.serialize_entry("failed_shards", &[Shard { shard: 0, node: "lea", reason: cause }])?;
        } else {
            cause.entries(&mut map)?;
        }
        map.end()
    }
}

#[derive(serde::Serialize)]
struct Shard<'a> {
    shard: u8,
    node: &'static str,
    reason: &'a Cause,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(failure: Failure, expected: &str) {
        assert_eq!(serde_json::to_string(&failure).unwrap(), expected);
    }

    #[test]
    fn errors_have_the_form_of_the_real_one() {
        check(
            Failure::no_body(),
            r#"{"error":{"root_cause":[{"type":"parse_exception","reason":"request body is required"}],"type":"parse_exception","reason":"request body is required"},"status":400}"#,
        );
        check(
            Failure::index_name("X2", "must be lowercase"),
            r#"{"error":{"root_cause":[{"type":"invalid_index_name_exception","reason":"Invalid index name [X2], must be lowercase","index_uuid":"_na_","index":"X2"}],"type":"invalid_index_name_exception","reason":"Invalid index name [X2], must be lowercase","index_uuid":"_na_","index":"X2"},"status":400}"#,
        );
        check(
            Failure::mapping("No handler for type [nope] declared on field [k]"),
            r#"{"error":{"root_cause":[{"type":"mapper_parsing_exception","reason":"No handler for type [nope] declared on field [k]"}],"type":"mapper_parsing_exception","reason":"Failed to parse mapping [_doc]: No handler for type [nope] declared on field [k]","caused_by":{"type":"mapper_parsing_exception","reason":"No handler for type [nope] declared on field [k]"}},"status":400}"#,
        );
        check(
            StoreError::Invalid("No mapping found for [f] in order to sort on".to_owned()).into(),
            r#"{"error":{"root_cause":[{"type":"query_shard_exception","reason":"No mapping found for [f] in order to sort on"}],"type":"search_phase_execution_exception","reason":"all shards failed","phase":"query","grouped":true,"failed_shards":[{"shard":0,"node":"lea","reason":{"type":"query_shard_exception","reason":"No mapping found for [f] in order to sort on"}}]},"status":400}"#,
        );
    }
}
