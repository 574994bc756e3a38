//! Checks the content type of a body, as Elasticsearch does. Pure.
//!
//! A web page can send a body of the types `text/plain`, `multipart/form-data` and `application/x-www-form-urlencoded` to
//! any server without asking it, but no JSON. So a strict check keeps the pages of a browser from writing.

use serde_json::json;

use super::error::ApiError;
use crate::http::Request;

/// The types that are read as JSON. Clients of 8.x and 9.x send the last two.
const JSON_TYPES: [&str; 4] = [
    "application/json",
    "application/x-ndjson",
    "application/vnd.elasticsearch+json",
    "application/vnd.elasticsearch+x-ndjson",
];

/// Rejects a body whose type is not JSON.
pub(super) fn check_content_type(request: &Request) -> Result<(), ApiError> {
    let header = request.header("content-type").unwrap_or_default();
    let header = String::from_utf8_lossy(header);
    let (media_type, parameters) = header.split_once(';').unwrap_or((&header, ""));
    let media_type = media_type.trim().to_ascii_lowercase();
    if JSON_TYPES.contains(&media_type.as_str()) && parameters_are_valid(parameters) {
        return Ok(());
    }
    if header.is_empty() || (is_media_type(&media_type) && parameters_are_valid(parameters)) {
        let error = format!("Content-Type header [{header}] is not supported");
        return Err(ApiError::with_body(406, &json!({ "error": error, "status": 406 })));
    }
    let reason = format!("java.lang.IllegalArgumentException: invalid Content-Type header [{header}]");
    Err(ApiError::new(400, "content_type_header_exception", reason))
}

fn is_media_type(text: &str) -> bool {
    text.split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype))
}

fn parameters_are_valid(text: &str) -> bool {
    let is_valid =
        |one: &str| one.split_once('=').is_some_and(|(key, value)| is_token(key) && !value.is_empty());
    text.split(';').map(str::trim).all(|one| one.is_empty() || is_valid(one))
}

fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}
