//! Why a question was refused. Pure.

/// A question that was refused: its language is wrong, or asks for what is not supported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}{}", match .cause { Some(cause) => format!(": {cause}"), None => String::new() })]
pub struct QueryError {
    /// Elasticsearch's word: `parsing_exception`, `illegal_argument_exception`, `query_shard_exception`, ...
    pub kind: &'static str,
    /// What was refused.
    pub reason: String,
    /// Why, where the reason alone does not say.
    pub cause: Option<String>,
    /// The character at which it was seen, from 0, where that is known.
    pub position: Option<usize>,
}

impl QueryError {
    fn new(kind: &'static str, reason: impl Into<String>) -> QueryError {
        QueryError { kind, reason: reason.into(), cause: None, position: None }
    }

    /// The words of a body or a parameter make no sense.
    pub(super) fn parsing(reason: impl Into<String>) -> QueryError {
        QueryError::new("parsing_exception", reason)
    }

    /// A value that cannot be.
    pub(super) fn argument(reason: impl Into<String>) -> QueryError {
        QueryError::new("illegal_argument_exception", reason)
    }

    /// A key that an object cannot have, or a value of another type.
    pub(super) fn content(reason: impl Into<String>) -> QueryError {
        QueryError::new("x_content_parse_exception", reason)
    }

    /// No JSON, or a key twice.
    pub(super) fn json(reason: impl Into<String>) -> QueryError {
        QueryError::new("json_parse_exception", reason)
    }

    /// A `query_string` that cannot be read, or asks for what is not supported; `at` counts bytes.
    pub(super) fn query_string(text: &str, at: usize, cause: &str) -> QueryError {
        let position = text.get(..at).unwrap_or(text).chars().count();
        let shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
        let dots = if shown.len() < text.len() { "..." } else { "" };
        QueryError {
            kind: "query_shard_exception",
            reason: format!("Failed to parse query [{shown}{dots}]"),
            cause: Some(format!("{cause}, at character {position}")),
            position: Some(position),
        }
    }
}

/// How much of a question an error repeats.
const SHOWN_CHARS_MAX: usize = 1000;
