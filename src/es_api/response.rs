//! Builds responses and applies the parameters `pretty` and `filter_path`. Pure.

use serde::Serialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::error::ApiError;
use super::parameters::Parameters;
use super::pretty::pretty;
use crate::http::Response;
use crate::runtime::hex;
use crate::search::store::StoreError;

pub(super) const JSON: &str = "application/json; charset=UTF-8";
pub(super) const TEXT: &str = "text/plain; charset=UTF-8";

pub(super) fn json(status: u16, body: &impl Serialize) -> Response {
    // Serializing fails only for a map with keys that are not strings, and no response has one.
    Response::new(status, JSON, serde_json::to_vec(body).unwrap_or_default())
}

pub(super) fn text(body: String) -> Response {
    Response::new(200, TEXT, body)
}

/// Filters and indents a JSON response as the request demands. An error is not filtered.
pub(super) fn apply_format(
    mut response: Response,
    parameters: &Parameters<'_>,
    is_error: bool,
) -> Result<Response, StoreError> {
    if response.content_type == JSON {
        if !parameters.filter.is_empty() && !is_error {
            response.body = parameters.filter.apply(&response.body)?;
        }
        if parameters.is_pretty {
            response.body = pretty(&response.body)?;
        }
    }
    Ok(response)
}

/// Serializes a part of a response.
pub(super) fn raw(body: &impl Serialize) -> Result<Box<RawValue>, ApiError> {
    serde_json::value::to_raw_value(body)
        .map_err(|error| ApiError::new(500, "exception", format!("a response cannot be written: {error}")))
}

/// Adds the header that newer clients require in every response.
pub(super) fn with_product(response: Response) -> Response {
    response.with_header("X-Elastic-Product", "Elasticsearch")
}

/// Returns the UUID of a name: 22 characters, as in Elasticsearch, and always the same for one name.
pub(super) fn stable_uuid(name: &str) -> String {
    hex::encode(&Sha256::digest(name.as_bytes())[..11])
}

/// The `_shards` member of a response.
#[derive(Serialize)]
pub(super) struct ShardCounts {
    total: u8,
    successful: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<u8>,
    failed: u8,
}

impl ShardCounts {
    pub(super) const OF_WRITE: ShardCounts =
        ShardCounts { total: 1, successful: 1, skipped: None, failed: 0 };
    pub(super) const OF_SEARCH: ShardCounts =
        ShardCounts { total: 1, successful: 1, skipped: Some(0), failed: 0 };
}
