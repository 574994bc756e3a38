//! Maps events to indices of the cluster, and creates templates and daily indices before their first event.
//! Also deletes expired indices. Called by the shipper, and for templates by `PUT _mapping`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use ureq::http::Method;

use super::client::{ClientError, EsClient, EsRequestBody, EsResponse, ServerInfo, encode_path_segment};
use super::template::TemplateParams;
use super::{bulk, event, template};
use crate::search::mapping::Mapping;

/// Timeout of all requests except bulk requests.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum number of daily indices remembered as created.
const CREATED_MAX: usize = 10_000;

/// A failure that stops shipping.
#[derive(Debug, thiserror::Error)]
pub(super) enum ShipError {
    #[error(transparent)]
    Unreachable(#[from] ClientError),
    /// A response with an error status.
    #[error("status {status}: {cause}")]
    Status {
        status: u16,
        /// The server's error text.
        cause: String,
    },
    /// No event of a bulk could be stored; a retry can succeed.
    #[error("{0}")]
    RetryLater(String),
    /// A problem that only an operator can solve.
    #[error("{0}")]
    NeedsOperator(String),
}

impl ShipError {
    fn from_response(response: &EsResponse) -> ShipError {
        ShipError::Status { status: response.status, cause: response.error_reason() }
    }

    /// True if a smaller request might succeed: the request timed out or its connection broke, as happens to
    /// requests that are too large.
    pub(super) fn may_be_too_large(&self) -> bool {
        use std::io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, NotFound};
        match self {
            ShipError::Unreachable(ClientError::TimedOut { .. }) => true,
            ShipError::Unreachable(ClientError::Unreachable { cause, .. }) => {
                !matches!(cause.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable | NotFound)
            }
            _ => false,
        }
    }

    /// State name for the log.
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            ShipError::Unreachable(_) => "unreachable",
            ShipError::Status { status: 401 | 403, .. } => "access_denied",
            ShipError::Status { .. } => "request_rejected",
            ShipError::RetryLater(_) => "busy",
            ShipError::NeedsOperator(_) => "needs_operator",
        }
    }

    /// True if retries alone cannot succeed.
    pub(super) fn needs_operator(&self) -> bool {
        matches!(self, ShipError::NeedsOperator(_) | ShipError::Status { status: 400..=407, .. })
    }
}

/// The index for an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TargetIndex {
    Index(Arc<str>),
    /// The cluster rejects the name for this reason.
    Rejected(String),
}

/// How the events of a name are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// In daily indices.
    Daily,
    /// In an index of that name that existed before lea.
    Existing,
}

/// Cache of the indices that are known to exist.
#[derive(Debug)]
pub(super) struct IndexRouter {
    client: EsClient,
    params: TemplateParams,
    server: Option<ServerInfo>,
    layouts: HashMap<String, Layout>,
    created: HashSet<Arc<str>>,
    /// The name and day of the last event, and its index; usually also those of the next event.
    last: Option<(String, i32, TargetIndex)>,
}

impl IndexRouter {
    pub(super) fn new(client: EsClient, params: TemplateParams) -> IndexRouter {
        IndexRouter {
            client,
            params,
            server: None,
            layouts: HashMap::new(),
            created: HashSet::new(),
            last: None,
        }
    }

    /// Returns the index for a name and day, and creates it if necessary.
    pub(super) fn ensure_index(&mut self, name: &str, day: i32) -> Result<TargetIndex, ShipError> {
        if let Some((last_name, last_day, place)) = &self.last
            && (last_name.as_str(), *last_day) == (name, day)
        {
            return Ok(place.clone());
        }
        let place = self.resolve(name, day)?;
        self.last = Some((name.to_owned(), day, place.clone()));
        Ok(place)
    }

    fn resolve(&mut self, name: &str, day: i32) -> Result<TargetIndex, ShipError> {
        if self.server.is_none() {
            self.server = Some(check_server(&self.client)?);
        }
        let rule = match self.layouts.get(name) {
            Some(rule) => *rule,
            None => {
                let rule = self.decide_layout(name)?;
                self.layouts.insert(name.to_owned(), rule);
                rule
            }
        };
        if rule == Layout::Existing {
            return Ok(TargetIndex::Index(name.into()));
        }
        let index: Arc<str> = event::daily_index(name, day).into();
        if !self.created.contains(&index) {
            if let Some(reason) = create_index(&self.client, &index)? {
                return Ok(TargetIndex::Rejected(reason));
            }
            if self.created.len() == CREATED_MAX {
                self.created.clear();
            }
            self.created.insert(Arc::clone(&index));
        }
        Ok(TargetIndex::Index(index))
    }

    /// Forgets a name whose index no longer exists.
    pub(super) fn forget(&mut self, name: &str) {
        self.layouts.remove(name);
        self.created.clear();
        self.last = None;
    }

    /// Forgets everything, because another cluster may respond now.
    pub(super) fn forget_all(&mut self) {
        self.server = None;
        self.layouts.clear();
        self.created.clear();
        self.last = None;
    }

    /// Determines the layout of a name and creates its template.
    fn decide_layout(&self, name: &str) -> Result<Layout, ShipError> {
        match fetch_name_kind(&self.client, name)? {
            NameKind::Index => {
                let mapping = template::lea_object_mapping(&self.params.numbers);
                put_json(&self.client, &format!("/{}/_mapping", encode_path_segment(name)), &mapping)?;
                let note = "writing to this index directly; no daily indices, no retention";
                log::warn!("index_preexisting index={name} note=\"{note}\"");
                Ok(Layout::Existing)
            }
            NameKind::DataStream => {
                let why =
                    format!("{name} is a data stream in the cluster; configure another index for its events");
                Err(ShipError::NeedsOperator(why))
            }
            NameKind::Free => {
                put_template(&self.client, name, &self.params, &Mapping::default())?;
                Ok(Layout::Daily)
            }
        }
    }
}

/// Checks that the server is a supported cluster.
pub(super) fn check_server(client: &EsClient) -> Result<ServerInfo, ShipError> {
    match client.fetch_server_info(TIMEOUT)? {
        Ok(server) if server.is_supported() => Ok(server),
        Ok(server) => Err(ShipError::NeedsOperator(format!(
            "{} is {server}, expected Elasticsearch 7.17 to 9, or OpenSearch 2 or 3",
            client.address()
        ))),
        Err(response) => Err(ShipError::from_response(&response)),
    }
}

/// What a name denotes in the cluster, apart from lea's alias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameKind {
    /// Nothing, or an alias.
    Free,
    Index,
    DataStream,
}

/// Fetches what a name denotes.
pub(super) fn fetch_name_kind(client: &EsClient, name: &str) -> Result<NameKind, ShipError> {
    let path = format!("/_resolve/index/{}", encode_path_segment(name));
    let Some(found) = get_json(client, &path)? else { return Ok(NameKind::Free) };
    let has =
        |what: &str| found[what].as_array().is_some_and(|all| all.iter().any(|one| one["name"] == name));
    Ok(match (has("indices"), has("data_streams")) {
        (true, _) => NameKind::Index,
        (_, true) => NameKind::DataStream,
        _ => NameKind::Free,
    })
}

/// Creates the template of a name, or adds missing parts to it. Returns false if it existed.
pub(super) fn put_template(
    client: &EsClient,
    name: &str,
    params: &TemplateParams,
    sent: &Mapping,
) -> Result<bool, ShipError> {
    let path = template::path(name);
    let existing = get_json(client, &path)?;
    let template = match &existing {
        None => Some(template::build(name, params, sent)),
        Some(response) => {
            let existing = template::from_response(response).ok_or_else(|| {
                ShipError::NeedsOperator(format!(
                    "the template lea-{name} is malformed; delete or correct it"
                ))
            })?;
            template::complete(existing, name, params, sent)
        }
    };
    if let Some(template) = template {
        put_json(client, &path, &template)?;
    }
    Ok(existing.is_none())
}

/// Creates an index if it does not exist. Returns the reason if its name is invalid.
pub(super) fn create_index(client: &EsClient, index: &str) -> Result<Option<String>, ShipError> {
    let path = format!("/{}", encode_path_segment(index));
    let response = client.send_with_timeout(&Method::PUT, &path, EsRequestBody::Json(b"{}"), TIMEOUT)?;
    let body: Value = serde_json::from_slice(&response.body).unwrap_or_default();
    match body["error"]["type"].as_str() {
        Some("resource_already_exists_exception") => Ok(None),
        Some("invalid_index_name_exception") => Ok(Some(bulk::error_text(&body["error"]))),
        _ => expect_success(response).map(|_| None),
    }
}

/// Adds fields to an index, or to the indices of an alias.
pub(super) fn add_mapping(client: &EsClient, index: &str, mapping: &Mapping) -> Result<(), ShipError> {
    put_json(client, &format!("/{}/_mapping", encode_path_segment(index)), &mapping.to_json())
}

/// Deletes the daily indices of before `first_day` and returns their number.
///
/// Only indices with the name of one of lea's templates, a date, and that template's alias are deleted.
pub(super) fn delete_indices_before(client: &EsClient, first_day: i32) -> Result<u64, ShipError> {
    let Some(templates) = get_json(client, &template::all_path())? else { return Ok(0) };
    let mut deleted = 0;
    for name in template::own_names(&templates) {
        let aliased = get_json(client, &format!("/_alias/{}", encode_path_segment(&name)))?;
        let indices = aliased.as_ref().and_then(Value::as_object);
        for index in indices.into_iter().flat_map(serde_json::Map::keys) {
            if is_expired(index, &name, first_day) && delete_index(client, index)? {
                log::info!("index_deleted index={index} reason=keep_days");
                deleted += 1;
            }
        }
    }
    Ok(deleted)
}

/// Deletes an index. Returns false if it did not exist.
fn delete_index(client: &EsClient, index: &str) -> Result<bool, ShipError> {
    let path = format!("/{}", encode_path_segment(index));
    let response = client.send_with_timeout(&Method::DELETE, &path, EsRequestBody::Empty, TIMEOUT)?;
    if response.status == 404 {
        return Ok(false);
    }
    expect_success(response).map(|_| true)
}

/// Fetches JSON; `None` for a response with status 404.
fn get_json(client: &EsClient, path: &str) -> Result<Option<Value>, ShipError> {
    let response = client.send_with_timeout(&Method::GET, path, EsRequestBody::Empty, TIMEOUT)?;
    if response.status == 404 {
        return Ok(None);
    }
    let response = expect_success(response)?;
    let body = serde_json::from_slice(&response.body).map_err(|_| {
        let (address, body) = (client.address(), response.error_reason());
        ShipError::NeedsOperator(format!("{address} sent a response that is not JSON to GET {path}: {body}"))
    })?;
    Ok(Some(body))
}

fn put_json(client: &EsClient, path: &str, body: &Value) -> Result<(), ShipError> {
    let body = body.to_string();
    let body = EsRequestBody::Json(body.as_bytes());
    expect_success(client.send_with_timeout(&Method::PUT, path, body, TIMEOUT)?).map(drop)
}

fn is_expired(index: &str, name: &str, first_day: i32) -> bool {
    let (of, day) = event::split_daily_index(index);
    of == name && day.is_some_and(|day| day < first_day)
}

fn expect_success(response: EsResponse) -> Result<EsResponse, ShipError> {
    if response.is_success() { Ok(response) } else { Err(ShipError::from_response(&response)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dates_before_the_first_day_expire() {
        let day = event::split_daily_index("a-2026.11.22").1.unwrap();
        for (index, old) in [
            ("a-2026.11.21", true),
            ("a-2026.11.22", false),
            ("a-2026.11.23", false),
            ("a-2026.11", false),
            ("a", false),
            ("b-2026.11.21", false),
            ("a-b-2026.11.21", false),
            ("a-2026.11.21-x", false),
        ] {
            assert_eq!(is_expired(index, "a", day), old, "{index}");
        }
    }
}
