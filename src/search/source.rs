//! The events that a command queries or writes: the store of a directory, or a server at a URL. Main thread.
//!
//! A directory can be queried while a running lea writes to it. A query to a URL is sent as it was written: another
//! lea adds canonical numbers itself, and any Elasticsearch accepts the text as a `query_string`. Only for a cluster
//! that lea fills are the canonical numbers added here, because its events contain them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Datelike, SecondsFormat};
use serde_json::{Value, json};

use crate::phone::PhoneNumberNormalizer;
use crate::search::cluster::LEA_TIME_FIELD;
use crate::search::cluster::request::{self, FieldNames, Page};
use crate::search::date::TimeZone;
use crate::search::document::Document;
use crate::search::query::add_canonical_terms;
use crate::search::query::query_string::{self, QueryStringOptions};
use crate::search::query::{
    Aggregation, Bound, FieldSelector, HitOptions, Query, QueryValue, Search, SearchResult, Sort, SortKey,
    SourceFilter,
};
use crate::search::remote::{RemoteClient, ServerKind};
use crate::search::sqlite::{self, SqliteStore, StoreConfig};
use crate::search::store::{EVENT_TIME, Store, StoreError, WriteRejected};
use crate::{Error, Result};

/// Time field of a server that lea does not fill, unless a command knows a better one.
pub(crate) const FOREIGN_TIME_FIELD: &str = "@timestamp";

/// Location of a store.
#[derive(Clone, Debug)]
pub(crate) struct SourceTarget {
    /// Directory or URL.
    pub location: String,
    /// CA certificates for an https URL.
    pub ca: Option<PathBuf>,
    /// Time limit for attempts to reach a server.
    pub connect_timeout: Duration,
}

/// An opened store.
pub(crate) enum EventSource {
    Directory { store: Box<SqliteStore>, dir: PathBuf },
    Url(RemoteClient),
}

/// The result of writing one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WriteOutcome {
    Stored,
    AlreadyExists,
    Rejected(String),
}

/// A time range in milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TimeRange {
    /// Start, included.
    pub from_ms: Option<i64>,
    /// End, excluded.
    pub to_ms: Option<i64>,
}

/// Format of the times in queries.
const TIME_FORMAT: &str = "strict_date_optional_time||epoch_millis";

/// Returns a time as a value of [`TIME_FORMAT`]. Elasticsearch 7 accepts no negative milliseconds.
fn time_value(ms: i64) -> QueryValue {
    match DateTime::from_timestamp_millis(ms) {
        Some(time) if ms < 0 && time.year() >= 0 => {
            QueryValue::Text(time.to_rfc3339_opts(SecondsFormat::Millis, true))
        }
        _ => QueryValue::Long(ms),
    }
}

/// A search apart from its query.
#[derive(Clone, Debug, Default)]
pub(crate) struct SearchRequest {
    pub range: TimeRange,
    /// Sort keys; empty: order of insertion.
    pub sort: Vec<Sort>,
    /// Maximum number of hits.
    pub size: usize,
    /// Sort values of the last hit of the previous page.
    pub after: Option<Vec<Value>>,
    /// Aggregations by name.
    pub aggregations: Vec<(String, Aggregation)>,
}

/// Everything that selects events, apart from the query.
#[derive(Clone, Debug)]
pub(crate) struct SessionOptions {
    pub target: SourceTarget,
    /// Index names or patterns; empty: all.
    pub indices: Vec<String>,
    pub range: TimeRange,
    /// Field with the time of an event; `None`: the one that fits the source.
    pub time_field: Option<String>,
    /// Time field of a server that lea does not fill.
    pub foreign_time_field: &'static str,
    /// `None`: a phone number matches only the dialled form given.
    pub normalizer: Option<Arc<PhoneNumberNormalizer>>,
}

/// An opened store with a parsed query.
pub(crate) struct QuerySession {
    source: EventSource,
    indices: Vec<String>,
    /// The query as written; `None`: all events.
    text: Option<String>,
    /// The parsed query, with canonical numbers if this process adds them.
    query: Query,
    /// The range of the options, for the command to use.
    pub range: TimeRange,
    time_field: String,
    normalizer: Option<Arc<PhoneNumberNormalizer>>,
}

impl SourceTarget {
    pub(crate) fn is_url(&self) -> bool {
        self.location.contains("://")
    }

    fn client(&self) -> Result<RemoteClient> {
        RemoteClient::new(&self.location, self.ca.as_deref(), self.connect_timeout)
    }

    /// The directory. Options that apply only to a URL are an error.
    fn directory(&self) -> Result<PathBuf> {
        match self.ca {
            None => Ok(PathBuf::from(&self.location)),
            Some(_) => Err(Error::Usage("--store-ca applies only to an https URL in --store".to_owned())),
        }
    }
}

impl EventSource {
    /// Opens a source for queries. `indices` are those of the queries: they tell which kind of server it is.
    pub(crate) fn open(
        target: &SourceTarget,
        indices: &[String],
        normalizer: Option<&Arc<PhoneNumberNormalizer>>,
    ) -> Result<EventSource> {
        if target.is_url() {
            let client = target.client()?;
            if client.detect_kind(indices)? == ServerKind::Lea && normalizer.is_none() {
                return Err(Error::Usage(
                    "--number-match exact: a lea behind a URL decides this by its own option; search a sub-field \
                     instead (destNum.keyword:...)"
                        .to_owned(),
                ));
            }
            return Ok(EventSource::Url(client));
        }
        let dir = target.directory()?;
        check_store_exists(&dir)?;
        let config = StoreConfig::default();
        let config = match normalizer {
            Some(normalizer) => config.with_normalizer(Arc::clone(normalizer)),
            None => config,
        };
        let store = Box::new(SqliteStore::open_read_only(&dir, config)?);
        Ok(EventSource::Directory { store, dir })
    }

    /// Opens a source for writing. A cluster that lea fills is rejected, because its events need the time and the
    /// numbers that lea adds.
    pub(crate) fn open_for_writing(target: &SourceTarget, config: StoreConfig) -> Result<EventSource> {
        if target.is_url() {
            let client = target.client()?;
            if client.detect_kind(&[])? == ServerKind::LeaCluster {
                return Err(Error::Usage(
                    "--store: this cluster is filled by a lea; load into that lea, which adds the time and the \
                     numbers of each event"
                        .to_owned(),
                ));
            }
            return Ok(EventSource::Url(client));
        }
        let dir = target.directory()?;
        let store = Box::new(SqliteStore::open(&dir, config)?);
        Ok(EventSource::Directory { store, dir })
    }

    /// Writes documents that have ids, durably. Returns one outcome for each, in order.
    pub(crate) fn write(&self, documents: Vec<Document>) -> Result<Vec<WriteOutcome>> {
        if documents.is_empty() {
            return Ok(Vec::new());
        }
        match self {
            EventSource::Url(client) => client.write(&documents),
            EventSource::Directory { store, dir } => {
                let results = store.write(documents).map_err(|error| query_error(dir, error))?;
                let outcome = |result| match result {
                    Ok(_) => WriteOutcome::Stored,
                    Err(WriteRejected::AlreadyExists { .. }) => WriteOutcome::AlreadyExists,
                    Err(WriteRejected::Invalid(reason)) => WriteOutcome::Rejected(reason),
                };
                Ok(results.into_iter().map(outcome).collect())
            }
        }
    }

    fn kind(&self) -> Option<ServerKind> {
        match self {
            EventSource::Directory { .. } => None,
            EventSource::Url(client) => client.known_kind(),
        }
    }
}

/// Deletes the events of a directory from before a time, or counts them. Returns their numbers by index.
pub(crate) fn purge_directory(
    dir: &Path,
    indices: &[String],
    before_ms: i64,
    dry_run: bool,
    cleanup_time_max: Duration,
) -> Result<Vec<(String, u64)>> {
    check_store_exists(dir)?;
    let config = StoreConfig { cleanup_time_max, ..StoreConfig::default() };
    let store =
        if dry_run { SqliteStore::open_read_only(dir, config)? } else { SqliteStore::open(dir, config)? };
    let purged = store.purge(indices, before_ms, dry_run).map_err(|error| query_error(dir, error))?;
    if !dry_run {
        for (index, events) in &purged {
            log::info!("events_purged index={index} events={events} before_ms={before_ms} reason=request");
        }
    }
    Ok(purged)
}

/// Returns an error that says where to look instead, if a directory has no store.
fn check_store_exists(dir: &Path) -> Result<()> {
    let cause = match std::fs::metadata(sqlite::store_path(dir)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && dir.is_dir() => {
            "this directory has no event store"
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => "no such directory",
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => "not a directory",
        // Any other error is reported when the store is opened.
        _ => return Ok(()),
    };
    let cause = format!(
        "{cause}; set --store or LEA_STORE to the output directory of a receiver, or to the URL of a server"
    );
    Err(Error::Query { store: dir.display().to_string(), cause })
}

/// Parses a query. With a normalizer, phone numbers match all their dialled forms.
pub(crate) fn parse_query(text: Option<&str>, normalizer: Option<&PhoneNumberNormalizer>) -> Result<Query> {
    let query = match text {
        None => Query::All,
        Some(text) => query_string::parse(text, &QueryStringOptions::default())
            .map_err(|error| Error::Usage(format!("cannot parse QUERY: {error}")))?,
    };
    Ok(match normalizer {
        Some(normalizer) => add_canonical_terms(query, normalizer),
        None => query,
    })
}

impl QuerySession {
    /// Opens the source. A malformed query is a usage error.
    pub(crate) fn open(options: &SessionOptions, text: Option<&str>) -> Result<QuerySession> {
        let normalizer = options.normalizer.clone();
        let query = parse_query(text, normalizer.as_deref())?;
        let source = EventSource::open(&options.target, &options.indices, normalizer.as_ref())?;
        let time_field = match (&options.time_field, source.kind()) {
            (Some(field), _) => field,
            (None, None | Some(ServerKind::Lea)) => EVENT_TIME,
            (None, Some(ServerKind::LeaCluster)) => LEA_TIME_FIELD,
            (None, Some(ServerKind::Foreign)) => options.foreign_time_field,
        };
        Ok(QuerySession {
            source,
            indices: options.indices.clone(),
            text: text.map(str::to_owned),
            query,
            range: options.range,
            time_field: time_field.to_owned(),
            normalizer,
        })
    }

    /// Counts the events in a range.
    pub(crate) fn count(&self, range: TimeRange) -> Result<u64> {
        match &self.source {
            EventSource::Directory { store, dir } => {
                let counted = store.count(&self.indices, false, &self.query_in(range));
                counted.map_err(|error| query_error(dir, error))
            }
            EventSource::Url(client) => client.count(&self.indices, &self.query_json(range)),
        }
    }

    /// Runs a search.
    pub(crate) fn search(&self, request: &SearchRequest) -> Result<SearchResult> {
        match &self.source {
            EventSource::Directory { store, dir } => {
                let search = Search {
                    indices: self.indices.clone(),
                    ignore_unavailable: false,
                    query: self.query_in(request.range),
                    sort: request.sort.clone(),
                    from: 0,
                    size: request.size,
                    after: request.after.clone(),
                    source: SourceFilter::default(),
                    options: HitOptions::default(),
                    post_filter: None,
                    aggregations: request.aggregations.clone(),
                    typed_keys: false,
                };
                store.search(&search).map_err(|error| query_error(dir, error))
            }
            EventSource::Url(client) => client.search(&self.indices, &self.search_json(request)),
        }
    }

    /// Runs a search that depends on a field. Text fields cannot be sorted or aggregated, so the search is
    /// repeated with the sub-field `.keyword` that mappings usually have.
    pub(crate) fn search_by_field(
        &self,
        field: &str,
        request: impl Fn(&str) -> SearchRequest,
    ) -> Result<SearchResult> {
        match self.search(&request(field)) {
            Err(error @ Error::Query { .. }) if is_text_field_error(&error) => {
                self.search(&request(&format!("{field}.keyword"))).map_err(|_| error)
            }
            found => found,
        }
    }

    /// Name of the field with the time of an event.
    pub(crate) fn time_field(&self) -> &str {
        &self.time_field
    }

    /// The normalizer; `None`: a phone number matches only the dialled form given.
    pub(crate) fn normalizer(&self) -> Option<&PhoneNumberNormalizer> {
        self.normalizer.as_deref()
    }

    /// True if results can be sorted by the order of insertion: in a directory and on another lea.
    pub(crate) fn has_seq_no(&self) -> bool {
        matches!(self.source.kind(), None | Some(ServerKind::Lea))
    }

    /// Makes requests fail at once if the server is unreachable, for a command that retries by itself.
    pub(crate) fn disable_retries(&mut self) {
        if let EventSource::Url(client) = &mut self.source {
            client.set_connect_timeout(Duration::ZERO);
        }
    }

    fn query_in(&self, range: TimeRange) -> Query {
        let bound = |ms: Option<i64>, make: fn(QueryValue) -> Bound| {
            ms.map_or(Bound::Open, |ms| make(time_value(ms)))
        };
        if range == TimeRange::default() {
            return self.query.clone();
        }
        let range = Query::Range {
            fields: FieldSelector::Named(vec![self.time_field.clone()]),
            from: bound(range.from_ms, Bound::Included),
            to: bound(range.to_ms, Bound::Excluded),
            format: Some(TIME_FORMAT.to_owned()),
            zone: TimeZone::UTC,
        };
        let must = vec![self.query.clone(), range];
        Query::Bool { must, should: vec![], must_not: vec![], should_min: 0 }
    }

    fn query_json(&self, range: TimeRange) -> Value {
        if self.source.kind() == Some(ServerKind::LeaCluster) {
            return request::query(&self.query_in(range));
        }
        let query = match &self.text {
            Some(text) => json!({"query_string": {"query": query_string::portable(text)}}),
            None => json!({"match_all": {}}),
        };
        if range == TimeRange::default() {
            return query;
        }
        let mut bounds = json!({"format": TIME_FORMAT});
        for (key, ms) in [("gte", range.from_ms), ("lt", range.to_ms)] {
            if let Some(ms) = ms {
                bounds[key] = match time_value(ms) {
                    QueryValue::Text(text) => text.into(),
                    _ => ms.into(),
                };
            }
        }
        json!({"bool": {"must": [query], "filter": [{"range": {self.time_field.as_str(): bounds}}]}})
    }

    fn search_json(&self, request: &SearchRequest) -> Value {
        let names = match self.source.kind() {
            Some(ServerKind::LeaCluster) => FieldNames::Cluster,
            _ => FieldNames::AsWritten,
        };
        let sort: Vec<Sort> = request.sort.iter().map(|key| self.allow_unmapped(key)).collect();
        let page = Page {
            sort: &sort,
            size: request.size,
            after: request.after.as_deref(),
            aggregations: &request.aggregations,
        };
        page.body(self.query_json(request.range), names)
    }

    /// Keeps an index without the field from failing the search; none of its events has a value then.
    fn allow_unmapped(&self, key: &Sort) -> Sort {
        let field_type = match &key.key {
            SortKey::SeqNo | SortKey::Score => return key.clone(),
            SortKey::Field(field) if *field == self.time_field => "date",
            SortKey::Field(_) => "keyword",
        };
        Sort { unmapped_type: Some(field_type.to_owned()), ..key.clone() }
    }
}

/// `text` fields cannot be sorted or aggregated; each server words the error differently.
fn is_text_field_error(error: &Error) -> bool {
    let text = error.to_string();
    text.contains("optimised") || text.contains("Fielddata is disabled")
}

fn query_error(dir: &Path, error: StoreError) -> Error {
    Error::Query { store: dir.display().to_string(), cause: error.to_string() }
}
