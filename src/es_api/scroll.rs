//! Scrolls and points in time: searches whose pages all come from one state of the store. Runs on the threads of the HTTP
//! connections.
//!
//! A scroll holds a state of the store and the sort values of its last hit, so it costs the same for any number of hits.
//! Invariants: the number of open ones is limited, and each ends after its keep-alive.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::api::{EsApi, RoutedRequest};
use super::endpoint::Endpoint;
use super::error::ApiError;
use super::field_filter::raw_members;
use super::indices::EXPAND_PARAMETERS;
use super::response::{self, JSON};
use super::search::{PreparedSearch, SearchScope};
use crate::http::{Method, Response};
use crate::runtime::hex;
use crate::search::query::{Search, Sort, SortKey};
use crate::search::store::PinnedState;

/// Limit on open scrolls and points in time together, as in Elasticsearch.
const OPEN_MAX: usize = 500;

/// Limit on a keep-alive, as in Elasticsearch.
const KEEP_ALIVE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Keep-alive of a scroll whose client does not prolong it.
const KEEP_ALIVE_DEFAULT: Duration = Duration::from_secs(5 * 60);

/// Bytes of a random ID.
const ID_BYTES: usize = 24;

/// The open scrolls and points in time.
#[derive(Default)]
pub(super) struct OpenStates(Mutex<HashMap<String, OpenState>>);

/// A state of the store that a client holds.
struct OpenState {
    pinned: Arc<PinnedState>,
    ends_at: Instant,
    /// `None`: a point in time.
    scroll: Option<Arc<Mutex<ScrollPosition>>>,
}

/// Where a scroll is.
struct ScrollPosition {
    search: Search,
    /// The sort keys that the client did not ask for.
    hidden_sorts: usize,
    /// True if the hits have scores, since the client asked for no sort.
    is_scored: bool,
    keep_alive: Duration,
    has_ended: bool,
}

impl OpenStates {
    /// Returns the table without the states whose time is over.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, OpenState>> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        open.retain(|_, state| state.ends_at > now);
        open
    }

    /// Ends the states whose time is over. A forgotten one would keep the store from tidying up.
    pub(super) fn sweep(&self) {
        drop(self.lock());
    }

    fn insert(&self, state: OpenState) -> Result<String, ApiError> {
        let id = random_id()?;
        let mut open = self.lock();
        if open.len() >= OPEN_MAX {
            let reason = format!(
                "Trying to create too many scroll contexts. Must be less than or equal to: [{OPEN_MAX}]. Scrolls end when \
                 clients clear them, or after their keep-alive"
            );
            return Err(ApiError::rejected_execution(reason));
        }
        open.insert(id.clone(), state);
        Ok(id)
    }
}

fn random_id() -> Result<String, ApiError> {
    let mut bytes = [0; ID_BYTES];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(ID_BYTES) => Ok(hex::encode(&bytes)),
        _ => Err(ApiError::new(500, "exception", "the system has no random numbers")),
    }
}

fn is_id(text: &str) -> bool {
    text.len() == 2 * ID_BYTES && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl EsApi {
    /// Executes a search with the parameter `scroll` and returns its first page.
    pub(super) fn open_scroll(
        &self,
        scope: &SearchScope<'_>,
        prepared: PreparedSearch,
        keep_alive: &str,
    ) -> Result<Response, ApiError> {
        let keep_alive = parse_keep_alive("scroll", keep_alive)?;
        let PreparedSearch { mut search, started, .. } = prepared;
        match (search.size, search.from, search.after.is_some()) {
            (0, ..) => return Err(ApiError::validation("[size] cannot be [0] in a scroll context")),
            (_, 1.., _) => {
                return Err(ApiError::validation("using [from] is not allowed in a scroll context"));
            }
            (.., true) => {
                return Err(ApiError::illegal_argument("`search_after` cannot be used in a scroll context."));
            }
            _ => {}
        }
        let pinned = Arc::new(self.store.pin()?);
        let is_scored = search.sort.is_empty();
        // Hits with equal values need an order too, or a page could end within them.
        let hidden_sorts = usize::from(!search.sort.iter().any(|sort| sort.key == SortKey::SeqNo));
        if hidden_sorts > 0 {
            search.sort.push(Sort::by_seq_no(false));
        }
        let mut position = ScrollPosition { search, hidden_sorts, is_scored, keep_alive, has_ended: false };
        let page = self.next_page(&pinned, &mut position)?;
        position.search.aggregations.clear();
        let ends_at = Instant::now() + keep_alive;
        let scroll = Some(Arc::new(Mutex::new(position)));
        let id = self.open_states.insert(OpenState { pinned, ends_at, scroll })?;
        let response = self.render_page(scope, page, started, &id)?;
        Ok(Response::new(200, JSON, response))
    }

    /// Reads the next page and moves the position to its end.
    fn next_page(&self, pinned: &PinnedState, position: &mut ScrollPosition) -> Result<Page, ApiError> {
        let mut search = position.search.clone();
        if position.has_ended {
            search.size = 0;
            search.after = None;
        }
        let mut found = self.store.search_pinned(pinned, &search)?;
        position.has_ended |= found.hits.len() < search.size;
        if let Some(last) = found.hits.last() {
            position.search.after = Some(last.sort.clone());
        }
        for hit in &mut found.hits {
            hit.sort.truncate(hit.sort.len().saturating_sub(position.hidden_sorts));
            if position.is_scored {
                hit.sort.clear();
            }
        }
        let keys = search.sort.len() - position.hidden_sorts;
        search.sort.truncate(if position.is_scored { 0 } else { keys });
        Ok(Page { search, found })
    }

    fn render_page(
        &self,
        scope: &SearchScope<'_>,
        page: Page,
        started: Instant,
        id: &str,
    ) -> Result<Vec<u8>, ApiError> {
        self.render_search(scope, &page.search, page.found, started, Some(id))
    }

    /// Returns the next page of a scroll, or ends scrolls.
    pub(super) fn scroll(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        let started = Instant::now();
        routed.allow_parameters(&["scroll", "scroll_id", "rest_total_hits_as_int"])?;
        if self.store.cluster_backend().is_some() {
            return Err(ApiError::not_supported("scrolls through a cluster; use search_after"));
        }
        let body = self.read_scroll_body(routed)?;
        if routed.request.method() == Method::Delete {
            return self.end_scrolls(&body.ids);
        }
        let Some(id) = body.ids.first() else { return Err(ApiError::validation("scrollId is missing")) };
        if !is_id(id) {
            return Err(ApiError::illegal_argument("Cannot parse scroll id"));
        }
        let scope = SearchScope::of_request(self, routed)?;
        let keep_alive = body.keep_alive.map(|text| parse_keep_alive("scroll", &text)).transpose()?;
        let (pinned, scroll) = self.find_scroll(id, keep_alive)?;
        let mut position = scroll.lock().unwrap_or_else(PoisonError::into_inner);
        let page = self.next_page(&pinned, &mut position)?;
        drop(position);
        Ok(Response::new(200, JSON, self.render_page(&scope, page, started, id)?))
    }

    /// Finds a scroll and prolongs it.
    #[allow(clippy::type_complexity)]
    fn find_scroll(
        &self,
        id: &str,
        keep_alive: Option<Duration>,
    ) -> Result<(Arc<PinnedState>, Arc<Mutex<ScrollPosition>>), ApiError> {
        let mut open = self.open_states.lock();
        let state = open.get_mut(id).ok_or_else(|| ApiError::search_context_missing(id))?;
        let scroll = state.scroll.clone().ok_or_else(|| ApiError::search_context_missing(id))?;
        let known = scroll.try_lock().map(|position| position.keep_alive).unwrap_or(KEEP_ALIVE_DEFAULT);
        state.ends_at = Instant::now() + keep_alive.unwrap_or(known);
        Ok((Arc::clone(&state.pinned), scroll))
    }

    fn read_scroll_body(&self, routed: &RoutedRequest<'_>) -> Result<ScrollBody, ApiError> {
        let parameters = routed.parameters;
        let id = routed.route.id.as_deref().or_else(|| parameters.get("scroll_id"));
        let split = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        let mut body = ScrollBody {
            ids: id.map(split).unwrap_or_default(),
            keep_alive: parameters.get("scroll").map(str::to_owned),
        };
        if self.read_body(routed)?.bytes().is_empty() {
            return Ok(body);
        }
        for (key, value) in self.read_object(routed)?.as_object().into_iter().flatten() {
            match (key.as_str(), value) {
                ("scroll", Value::String(text)) => body.keep_alive = Some(text.clone()),
                ("scroll_id", Value::String(id)) => body.ids = vec![id.clone()],
                ("scroll_id", Value::Array(ids)) => {
                    body.ids = ids.iter().filter_map(Value::as_str).map(str::to_owned).collect();
                }
                (key, _) => {
                    let reason = format!(
                        "Unknown parameter [{key}] in request body or parameter is of the wrong type"
                    );
                    return Err(ApiError::illegal_argument(reason));
                }
            }
        }
        Ok(body)
    }

    fn end_scrolls(&self, ids: &[String]) -> Result<Response, ApiError> {
        if ids.is_empty() {
            return Err(ApiError::validation("no scroll ids specified"));
        }
        let mut open = self.open_states.lock();
        let before = open.len();
        match ids {
            [all] if all == "_all" => open.retain(|_, state| state.scroll.is_none()),
            ids if ids.iter().all(|id| is_id(id)) => open.retain(|id, _| !ids.contains(id)),
            _ => return Err(ApiError::illegal_argument("Cannot parse scroll id")),
        }
        let freed = before - open.len();
        let status = if freed > 0 || ids == ["_all"] { 200 } else { 404 };
        Ok(response::json(status, &json!({ "succeeded": true, "num_freed": freed })))
    }

    /// Opens or closes a point in time.
    pub(super) fn point_in_time(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        let own = ["keep_alive", "preference", "routing"];
        routed.allow_parameters(&[&own[..], &EXPAND_PARAMETERS].concat())?;
        if self.store.cluster_backend().is_some() {
            return Err(ApiError::not_supported("points in time through a cluster; use search_after"));
        }
        if routed.route.endpoint == Endpoint::ClosePointInTime {
            let body = self.read_object(routed)?;
            let id = body.get("id").and_then(Value::as_str).unwrap_or_default();
            if !id.rsplit('.').next().is_some_and(is_id) {
                return Err(ApiError::illegal_argument("Cannot parse the id of a point in time"));
            }
            let freed =
                u8::from(self.open_states.lock().remove(id.rsplit('.').next().unwrap_or_default()).is_some());
            let status = if freed > 0 { 200 } else { 404 };
            return Ok(response::json(status, &json!({ "succeeded": freed > 0, "num_freed": freed })));
        }
        let keep_alive = routed
            .parameters
            .get("keep_alive")
            .ok_or_else(|| ApiError::illegal_argument("[keep_alive] parameter must be non null"))?;
        let ends_at = Instant::now() + parse_keep_alive("keep_alive", keep_alive)?;
        self.select_indices(routed)?;
        let indices = self.indices(routed)?.join(",");
        let pinned = Arc::new(self.store.pin()?);
        let id = self.open_states.insert(OpenState { pinned, ends_at, scroll: None })?;
        // The indices are a part of the ID, as in Elasticsearch. A search has no index in its path.
        let id = format!("{}.{id}", hex::encode(indices.as_bytes()));
        Ok(response::json(200, &json!({ "id": id })))
    }

    /// Returns the state and the indices of a point in time, and prolongs it.
    pub(super) fn find_point_in_time(
        &self,
        pit: &PointInTime,
    ) -> Result<(Arc<PinnedState>, Vec<String>), ApiError> {
        let missing = || ApiError::search_context_missing(&pit.id);
        let (indices, id) = pit.id.split_once('.').ok_or_else(missing)?;
        let indices =
            hex::decode(indices).and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(missing)?;
        let mut open = self.open_states.lock();
        let state = open.get_mut(id).filter(|state| state.scroll.is_none()).ok_or_else(missing)?;
        if let Some(keep_alive) = pit.keep_alive {
            state.ends_at = Instant::now() + keep_alive;
        }
        let indices = indices.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Ok((Arc::clone(&state.pinned), indices))
    }
}

/// One page of a scroll.
struct Page {
    search: Search,
    found: crate::search::query::SearchResult,
}

struct ScrollBody {
    ids: Vec<String>,
    keep_alive: Option<String>,
}

/// The member `pit` of a search.
pub(super) struct PointInTime {
    pub(super) id: String,
    keep_alive: Option<Duration>,
}

/// Takes `pit` out of the body of a search. Returns it and the body without it, in which the order of storing breaks ties.
pub(super) fn split_point_in_time(body: &[u8]) -> Result<Option<(PointInTime, Vec<u8>)>, ApiError> {
    if memchr::memmem::find(body, b"\"pit\"").is_none() {
        return Ok(None);
    }
    let Some(members) = raw_members(body) else { return Ok(None) };
    let mut rest = serde_json::Map::new();
    let mut found = None;
    let mut others: Vec<(String, &RawValue)> = Vec::new();
    for (key, value) in members {
        match key.as_ref() {
            "pit" => found = Some(parse_point_in_time(value)?),
            _ => others.push((key.into_owned(), value)),
        }
    }
    let Some(found) = found else { return Ok(None) };
    for (key, value) in others {
        let value: Value = serde_json::from_str(value.get())
            .map_err(|error| ApiError::new(400, "json_parse_exception", error.to_string()))?;
        let value = if key == "sort" { with_tie_breaker(value) } else { value };
        rest.insert(key, value);
    }
    Ok(Some((found, Value::Object(rest).to_string().into_bytes())))
}

fn parse_point_in_time(value: &RawValue) -> Result<PointInTime, ApiError> {
    let value: Value = serde_json::from_str(value.get()).unwrap_or_default();
    let id = value.get("id").and_then(Value::as_str);
    let id = id.ok_or_else(|| ApiError::illegal_argument("Required [id]"))?.to_owned();
    let keep_alive = value.get("keep_alive").and_then(Value::as_str);
    let keep_alive = keep_alive.map(|text| parse_keep_alive("keep_alive", text)).transpose()?;
    Ok(PointInTime { id, keep_alive })
}

/// Appends the order of storing to a sort, and replaces `_shard_doc`, which means it.
fn with_tie_breaker(sort: Value) -> Value {
    let mut keys = match sort {
        Value::Array(keys) => keys,
        one => vec![one],
    };
    for key in &mut keys {
        match key {
            Value::String(name) if name == "_shard_doc" => *key = "_doc".into(),
            Value::Object(options) => {
                if let Some(order) = options.remove("_shard_doc") {
                    options.insert("_doc".to_owned(), order);
                }
            }
            _ => {}
        }
    }
    let is_doc = |key: &Value| key == "_doc" || key.get("_doc").is_some();
    if !keys.iter().any(is_doc) {
        keys.push("_doc".into());
    }
    Value::Array(keys)
}

/// Parses a keep-alive such as `1m`.
fn parse_keep_alive(setting: &str, text: &str) -> Result<Duration, ApiError> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_ms = match &text[digits.len()..] {
        "d" => 86_400_000.0,
        "h" => 3_600_000.0,
        "m" => 60_000.0,
        "s" => 1_000.0,
        "ms" => 1.0,
        "micros" => 0.001,
        "nanos" => 0.000_001,
        _ => f64::NAN,
    };
    let ms = digits.parse::<u64>().map_or(f64::NAN, |number| number as f64 * unit_ms);
    if ms.is_nan() {
        return Err(ApiError::illegal_argument(format!(
            "failed to parse setting [{setting}] with value [{text}] as a time value: unit is missing or unrecognized"
        )));
    }
    let keep_alive = Duration::from_secs_f64((ms / 1000.0).min(1e9));
    match keep_alive <= KEEP_ALIVE_MAX {
        true => Ok(keep_alive),
        false => Err(ApiError::illegal_argument(format!(
            "Keep alive for request ({text}) is too large. It must be less than (1d). This limit can be set by changing the \
             [search.max_keep_alive] cluster level setting."
        ))
        .into_search_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keep_alives_are_parsed_and_limited() {
        let ms = |text: &str| parse_keep_alive("scroll", text).map(|time| time.as_millis()).ok();
        let table = [
            ("1m", 60_000),
            ("5s", 5_000),
            ("100ms", 100),
            ("24h", 86_400_000),
            ("1d", 86_400_000),
            ("0s", 0),
        ];
        for (text, expected) in table {
            assert_eq!(ms(text), Some(expected), "{text}");
        }
        for bad in ["", "1", "m", "1x", "-1m", "25h", "99999999999999999999d", "1.5m"] {
            assert_eq!(ms(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_point_in_time_is_taken_out_of_a_body() {
        let split = |body: &str| {
            let split = split_point_in_time(body.as_bytes()).unwrap();
            split.map(|(pit, rest)| (pit.id, String::from_utf8(rest).unwrap()))
        };
        assert_eq!(split(r#"{"size":1}"#), None);
        assert_eq!(split(r#"{"query":{"match":{"t":"\"pit\""}}}"#), None);
        let check = |body: &str, rest: &str| {
            assert_eq!(split(body), Some(("x".to_owned(), rest.to_owned())), "{body}")
        };
        check(r#"{"pit":{"id":"x","keep_alive":"1m"},"size":1}"#, r#"{"size":1}"#);
        check(r#"{"pit":{"id":"x"},"sort":"n"}"#, r#"{"sort":["n","_doc"]}"#);
        check(r#"{"pit":{"id":"x"},"sort":[{"_shard_doc":"asc"}]}"#, r#"{"sort":[{"_doc":"asc"}]}"#);
        assert!(split_point_in_time(br#"{"pit":{}}"#).is_err());
    }
}
