//! The error type of the query parsers. Pure code.

/// A rejected query: malformed, or not supported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}{}", match .cause { Some(cause) => format!(": {cause}"), None => String::new() })]
pub struct QueryError {
    /// Elasticsearch's exception name: `parsing_exception`, `illegal_argument_exception`,
    /// `query_shard_exception`, ...
    pub kind: &'static str,
    pub reason: String,
    /// Detail, if the reason alone does not say enough.
    pub cause: Option<String>,
    /// Index of the character where parsing failed, if known.
    pub position: Option<usize>,
    /// True for an error that Elasticsearch reports per shard, because it parses the request without noticing it.
    pub in_shard: bool,
    /// True for an error that Elasticsearch finds when it combines the answers of shards.
    pub in_reduce: bool,
}

impl QueryError {
    fn new(kind: &'static str, reason: impl Into<String>) -> QueryError {
        QueryError {
            kind,
            reason: reason.into(),
            cause: None,
            position: None,
            in_shard: false,
            in_reduce: false,
        }
    }

    /// A malformed body or parameter.
    pub(super) fn parsing(reason: impl Into<String>) -> QueryError {
        QueryError::new("parsing_exception", reason)
    }

    /// A value that is out of range or not supported.
    pub(super) fn argument(reason: impl Into<String>) -> QueryError {
        QueryError::new("illegal_argument_exception", reason)
    }

    /// A value that only the shards of Elasticsearch reject.
    pub(super) fn shard(reason: impl Into<String>) -> QueryError {
        QueryError { in_shard: true, ..QueryError::argument(reason) }
    }

    /// A value that Elasticsearch rejects when it combines the answers of shards.
    pub(super) fn reduce(reason: impl Into<String>) -> QueryError {
        QueryError { in_reduce: true, ..QueryError::argument(reason) }
    }

    /// A query that only the shards of Elasticsearch reject.
    pub(super) fn shard_query(reason: impl Into<String>) -> QueryError {
        QueryError { in_shard: true, ..QueryError::new("query_shard_exception", reason) }
    }

    /// An aggregation in a place where it makes no sense.
    pub(super) fn aggregation(reason: impl Into<String>) -> QueryError {
        QueryError::new("aggregation_initialization_exception", reason)
    }

    /// An unknown key of an object, or a value of the wrong type.
    pub(super) fn content(reason: impl Into<String>) -> QueryError {
        QueryError::new("x_content_parse_exception", reason)
    }

    /// Malformed JSON, or a duplicate key.
    pub(super) fn json(reason: impl Into<String>) -> QueryError {
        QueryError::new("json_parse_exception", reason)
    }

    /// A `query_string` that is malformed or not supported; `at` is a byte offset.
    pub(super) fn query_string(text: &str, at: usize, cause: &str) -> QueryError {
        let position = text.get(..at).unwrap_or(text).chars().count();
        let shown: String = text.chars().take(EXCERPT_CHARS_MAX).collect();
        let dots = if shown.len() < text.len() { "..." } else { "" };
        QueryError {
            kind: "query_shard_exception",
            reason: format!("Failed to parse query [{shown}{dots}]"),
            cause: Some(format!("{cause}, at character {position}")),
            position: Some(position),
            in_shard: true,
            in_reduce: false,
        }
    }
}

/// Maximum number of characters of the query that an error message repeats.
const EXCERPT_CHARS_MAX: usize = 1000;
