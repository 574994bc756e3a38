//! The query parameters of a request. Pure.

use std::borrow::Cow;

use super::error::ApiError;
use super::field_filter::FieldFilter;
use crate::http::Request;

/// Limit on the parameters of one request.
const PARAMETERS_MAX: usize = 64;

/// The decoded parameters of a request.
#[derive(Debug)]
pub(super) struct Parameters<'a> {
    pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// `pretty`: indent JSON.
    pub(super) is_pretty: bool,
    /// `filter_path`: the parts of the response to return.
    pub(super) filter: FieldFilter,
}

impl<'a> Parameters<'a> {
    pub(super) fn from_request(request: &'a Request) -> Result<Parameters<'a>, ApiError> {
        let pairs: Vec<_> = request.query_pairs().take(PARAMETERS_MAX + 1).collect();
        if pairs.len() > PARAMETERS_MAX {
            return Err(ApiError::illegal_argument(format!("more than {PARAMETERS_MAX} parameters")));
        }
        let mut parameters = Parameters { pairs, is_pretty: false, filter: FieldFilter::default() };
        let filter = parameters.get("filter_path").map(FieldFilter::from_filter_path).transpose()?;
        parameters.filter = filter.unwrap_or_default();
        parameters.is_pretty = parameters.is_on("pretty")?;
        Ok(parameters)
    }

    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(key, value)| (&**key, &**value))
    }

    /// Returns the last value of a parameter.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.pairs().filter(|(key, _)| *key == name).map(|(_, value)| value).last()
    }

    /// Returns the value of a boolean parameter. One without a value is true.
    pub(super) fn is_on(&self, name: &str) -> Result<bool, ApiError> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("" | "true") => Ok(true),
            Some(value) => Err(ApiError::illegal_argument(format!(
                "Failed to parse value [{value}] as only [true] or [false] are allowed."
            ))),
        }
    }

    /// Rejects parameters that are neither in `known` nor common to all requests.
    pub(super) fn reject_unknown(&self, path: &str, known: &[&str]) -> Result<(), ApiError> {
        match self.pairs().find(|(key, value)| !is_common(key, value) && !known.contains(key)) {
            None => Ok(()),
            Some((key, _)) => Err(ApiError::illegal_argument(format!(
                "request [{path}] contains unrecognized parameter: [{key}]"
            ))),
        }
    }
}

/// Returns true for parameters that any request may have. They change nothing, or only the form of the response.
fn is_common(key: &str, value: &str) -> bool {
    match key {
        "pretty" | "human" | "error_trace" | "filter_path" => true,
        key if is_source_parameter(key) => true,
        "format" => value == "json",
        _ => false,
    }
}

/// Returns true for the parameters that hold a body, for clients that cannot send one with GET.
pub(super) fn is_source_parameter(key: &str) -> bool {
    matches!(key, "source" | "source_content_type")
}
