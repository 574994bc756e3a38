//! The options that all query commands share, and the queries themselves: the query, the store, the time
//! range. Main thread.
//!
//! A directory can be queried while a running lea writes to it. A query to a URL is sent as it was written:
//! another lea adds canonical numbers itself, and any Elasticsearch accepts the text as a `query_string`.
//! Only for a cluster that lea fills are the canonical numbers added here, because its events contain them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::Utc;
use serde_json::{Value, json};

use crate::cmd::args::time_zone::TimeZoneArg;
use crate::config::{self, EffectiveConfig};
use crate::daemon::events::NumberMatch;
use crate::phone::{self, PhoneNumberNormalizer};
use crate::search::cluster::{LEA_TIME_FIELD, dsl};
use crate::search::query::query_string::{self, QueryStringOptions};
use crate::search::query::{
    Aggregation, Bound, FieldSelector, Query, QueryValue as Term, Search, SearchResult, Sort, SortKey,
    SourceFilter,
};
use crate::search::remote::{RemoteClient, ServerKind};
use crate::search::sqlite::{SqliteStore, StoreConfig};
use crate::search::store::{Store, StoreError};
use crate::{Error, Result};

pub(crate) use crate::search::store::EVENT_TIME;

/// Time field of a server that lea does not fill.
const FOREIGN_TIME_FIELD: &str = "@timestamp";

/// Options that name the store.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Where")]
pub(crate) struct StoreTargetArgs {
    /// Output directory of a receiver, or the URL of a lea, Elasticsearch or OpenSearch:
    /// http[s]://USER:PASSWORD@HOST:9200. Prefer the environment variable for a URL with a password
    #[arg(
        short,
        long,
        visible_alias = "output",
        value_name = "DIR|URL",
        env = "LEA_STORE",
        hide_env_values = true,
        default_value = "interceptions"
    )]
    pub store: String,
    /// CA certificates (PEM) for https URLs [default: those of the system]
    #[arg(long, value_name = "FILE")]
    pub store_ca: Option<PathBuf>,
    /// Configuration file; its `numbers` section defines how phone numbers are read [default:
    /// config/configurationFile.conf]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Options that select events.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Which")]
pub(crate) struct EventFilterArgs {
    /// Only events at or after TIME: a duration before now (90s, 15m, 2h, 2d, 1w), a date or a time
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only events before TIME
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Only events in these indices; * matches any characters [default: all]
    #[arg(long, value_name = "INDEX", value_delimiter = ',')]
    pub index: Vec<String>,
    /// Whether a phone number matches all its spellings, or only the one given. A lea behind a URL decides
    /// this by its own option
    #[arg(long, value_enum, default_value_t = NumberMatch::Canonical)]
    pub number_match: NumberMatch,
    /// Field with the time of an event [default: lea's own; @timestamp on a server that lea does not fill]
    #[arg(long, value_name = "FIELD")]
    pub time_field: Option<String>,
    /// Time zone of input and output: local, utc, or an offset such as +01:00
    #[arg(long, value_name = "ZONE", default_value = "local", allow_hyphen_values = true, value_parser = TimeZoneArg::parse)]
    pub time_zone: TimeZoneArg,
}

/// A time range in milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TimeRange {
    /// Start, included.
    pub from_ms: Option<i64>,
    /// End, excluded.
    pub to_ms: Option<i64>,
}

/// A parsed query with its opened store.
pub(crate) struct QuerySession {
    source: OpenedSource,
    indices: Vec<String>,
    /// The query as written; `None`: all events.
    text: Option<String>,
    /// The parsed query, including canonical numbers if this process adds them.
    query: Query,
    pub range: TimeRange,
    /// Time zone of the output.
    pub zone: TimeZoneArg,
    time_field: String,
    normalizer: Option<Arc<PhoneNumberNormalizer>>,
}

/// A search apart from its query.
#[derive(Clone, Debug, Default)]
pub(crate) struct SearchRequest {
    pub span: TimeRange,
    /// Sort keys; empty: order of insertion.
    pub sort: Vec<Sort>,
    /// Maximum number of hits.
    pub size: usize,
    /// Sort values of the last hit of the previous page.
    pub after: Option<Vec<Value>>,
    /// Aggregations by name.
    pub aggregations: Vec<(String, Aggregation)>,
}

enum OpenedSource {
    Directory(Box<SqliteStore>, PathBuf),
    Url(RemoteClient),
}

impl StoreTargetArgs {
    pub(crate) fn is_url(&self) -> bool {
        self.store.contains("://")
    }

    /// Creates a client for the URL, without connecting.
    pub(crate) fn client(&self) -> Result<RemoteClient> {
        RemoteClient::new(&self.store, None, self.store_ca.as_deref())
    }

    /// Rejects options that apply only to a URL.
    pub(crate) fn check_directory(&self) -> Result<()> {
        match self.store_ca {
            None => Ok(()),
            Some(_) => Err(Error::Usage("--store-ca applies only to an https URL in --store".to_owned())),
        }
    }

    pub(crate) fn load_config(&self) -> Result<EffectiveConfig> {
        let configured = config::load(self.config.as_deref(), &config::environment)?;
        configured.log_warnings();
        Ok(configured)
    }
}

/// Creates the normalizer from the configuration.
pub(crate) fn load_normalizer(configured: &EffectiveConfig) -> Result<Arc<PhoneNumberNormalizer>> {
    let families = PhoneNumberNormalizer::new(configured.numbers.clone());
    families.map(Arc::new).map_err(|refuse| Error::Usage(format!("parameters.numbers: {refuse}")))
}

impl EventFilterArgs {
    /// Parses the query without opening the store.
    pub(crate) fn parse_query(
        &self,
        text: Option<&str>,
        families: Option<&PhoneNumberNormalizer>,
    ) -> Result<Query> {
        let tree = match text {
            None => Query::All,
            Some(text) => query_string::parse(text, &QueryStringOptions::default())
                .map_err(|error| Error::Usage(format!("cannot parse QUERY: {error}")))?,
        };
        Ok(match families {
            Some(families) => phone::add_canonical_terms(tree, families),
            None => tree,
        })
    }

    pub(crate) fn time_range(&self) -> Result<TimeRange> {
        let now_ms = Utc::now().timestamp_millis();
        let time = |option: &str, text: &Option<String>| {
            let read = text.as_deref().map(|text| self.time_zone.parse_time(text, now_ms)).transpose();
            read.map_err(|error| Error::Usage(format!("{option}: {error}")))
        };
        Ok(TimeRange { from_ms: time("--since", &self.since)?, to_ms: time("--until", &self.until)? })
    }

    /// Opens the store. A malformed query is a usage error.
    pub(crate) fn open(&self, place: &StoreTargetArgs, text: Option<&str>) -> Result<QuerySession> {
        let families = self.normalizer(place)?;
        let tree = self.parse_query(text, families.as_deref())?;
        let span = self.time_range()?;
        let (place, time_field) = if place.is_url() {
            let client = place.client()?;
            let kind = client.detect_kind(&self.index)?;
            if kind == ServerKind::Lea && self.number_match == NumberMatch::Exact {
                return Err(Error::Usage(
                    "--number-match exact: behind a URL, lea's own --number-match decides; ask a sub-field \
                     (destNum.keyword:...) for a spelling"
                        .to_owned(),
                ));
            }
            let time_field = match kind {
                ServerKind::Lea => EVENT_TIME,
                ServerKind::LeaCluster => LEA_TIME_FIELD,
                ServerKind::Foreign => FOREIGN_TIME_FIELD,
            };
            (OpenedSource::Url(client), time_field)
        } else {
            place.check_directory()?;
            let dir = PathBuf::from(&place.store);
            let store = open_directory(&dir, families.as_ref())?;
            (OpenedSource::Directory(Box::new(store), dir), EVENT_TIME)
        };
        Ok(QuerySession {
            source: place,
            indices: self.index.clone(),
            text: text.map(str::to_owned),
            query: tree,
            range: span,
            zone: self.time_zone,
            time_field: self.time_field.clone().unwrap_or_else(|| time_field.to_owned()),
            normalizer: families,
        })
    }

    /// The normalizer; `None` for `--number-match exact`.
    pub(crate) fn normalizer(&self, place: &StoreTargetArgs) -> Result<Option<Arc<PhoneNumberNormalizer>>> {
        let families = load_normalizer(&place.load_config()?)?;
        Ok((self.number_match == NumberMatch::Canonical).then_some(families))
    }
}

fn open_directory(dir: &Path, families: Option<&Arc<PhoneNumberNormalizer>>) -> Result<SqliteStore> {
    let config = StoreConfig::default();
    let config = match families {
        Some(families) => config.with_normalizer(Arc::clone(families)),
        None => config,
    };
    SqliteStore::open_read_only(dir, config)
}

/// Sorts by a field.
pub(crate) fn sort_by_field(field: &str, descending: bool) -> Sort {
    Sort { key: SortKey::Field(field.to_owned()), descending, missing_first: false, unmapped_type: None }
}

/// Sorts by the order of insertion.
pub(crate) fn sort_by_seq_no(descending: bool) -> Sort {
    Sort { key: SortKey::SeqNo, descending, missing_first: false, unmapped_type: None }
}

impl QuerySession {
    /// Counts the events in a range.
    pub(crate) fn count(&self, span: TimeRange) -> Result<u64> {
        match &self.source {
            OpenedSource::Directory(store, dir) => {
                let counted = store.count(&self.indices, false, &self.query_in(span));
                counted.map_err(|error| query_error(dir, error))
            }
            OpenedSource::Url(client) => {
                client.count(&self.indices, &json!({"query": self.query_json(client, span)}))
            }
        }
    }

    /// Runs a search.
    pub(crate) fn search(&self, page: &SearchRequest) -> Result<SearchResult> {
        match &self.source {
            OpenedSource::Directory(store, dir) => {
                let search = Search {
                    indices: self.indices.clone(),
                    ignore_unavailable: false,
                    query: self.query_in(page.span),
                    sort: page.sort.clone(),
                    from: 0,
                    size: page.size,
                    after: page.after.clone(),
                    source: SourceFilter::default(),
                    aggregations: page.aggregations.clone(),
                    typed_keys: false,
                };
                store.search(&search).map_err(|error| query_error(dir, error))
            }
            OpenedSource::Url(client) => {
                client.search(&self.indices, self.query_json(client, page.span), page, &self.time_field)
            }
        }
    }

    /// Runs a search that depends on a field. Text fields cannot be sorted or aggregated, so the search is
    /// repeated with the sub-field `.keyword` that mappings usually have.
    pub(crate) fn search_by_field(
        &self,
        field: &str,
        page: impl Fn(&str) -> SearchRequest,
    ) -> Result<SearchResult> {
        match self.search(&page(field)) {
            Err(error @ Error::Query { .. }) if is_text_field_error(&error) => {
                self.search(&page(&format!("{field}.keyword"))).map_err(|_| error)
            }
            found => found,
        }
    }

    /// Name of the field with the time of an event.
    pub(crate) fn time_field(&self) -> &str {
        &self.time_field
    }

    /// The normalizer; `None` for `--number-match exact`.
    pub(crate) fn normalizer(&self) -> Option<&PhoneNumberNormalizer> {
        self.normalizer.as_deref()
    }

    /// True if results can be sorted by the order of insertion: in a directory and on another lea.
    pub(crate) fn has_seq_no(&self) -> bool {
        match &self.source {
            OpenedSource::Directory(..) => true,
            OpenedSource::Url(client) => client.known_kind() == Some(ServerKind::Lea),
        }
    }

    /// True for a server that is not filled by lea.
    pub(crate) fn is_foreign(&self) -> bool {
        matches!(&self.source, OpenedSource::Url(client) if client.known_kind() == Some(ServerKind::Foreign))
    }

    fn query_in(&self, span: TimeRange) -> Query {
        let bound =
            |ms: Option<i64>, make: fn(Term) -> Bound| ms.map_or(Bound::Open, |ms| make(Term::Long(ms)));
        if span == TimeRange::default() {
            return self.query.clone();
        }
        let range = Query::Range {
            fields: FieldSelector::Named(vec![self.time_field.clone()]),
            from: bound(span.from_ms, Bound::Included),
            to: bound(span.to_ms, Bound::Excluded),
            format: Some("epoch_millis".to_owned()),
            zone_minutes: 0,
        };
        let must = vec![self.query.clone(), range];
        Query::Bool { must, should: vec![], must_not: vec![], should_min: 0 }
    }

    fn query_json(&self, client: &RemoteClient, span: TimeRange) -> Value {
        if client.known_kind() == Some(ServerKind::LeaCluster) {
            return dsl::query(&self.query_in(span));
        }
        let query = match &self.text {
            Some(text) => json!({"query_string": {"query": text}}),
            None => json!({"match_all": {}}),
        };
        if span == TimeRange::default() {
            return query;
        }
        let mut range = json!({"format": "epoch_millis"});
        for (key, ms) in [("gte", span.from_ms), ("lt", span.to_ms)] {
            if let Some(ms) = ms {
                range[key] = ms.into();
            }
        }
        json!({"bool": {"must": [query], "filter": [{"range": {self.time_field.as_str(): range}}]}})
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

/// The query and its options.
#[derive(Debug, clap::Args)]
pub(crate) struct QueryArgs {
    /// Query in the syntax of "lea search" [default: all events]
    #[arg(value_name = "QUERY")]
    query: Option<String>,
    #[command(flatten)]
    target: StoreTargetArgs,
    #[command(flatten)]
    filter: EventFilterArgs,
    /// Print the parsed query and exit
    #[arg(long)]
    explain: bool,
}

impl QueryArgs {
    /// Prints the parsed query for --explain. Returns true if it did.
    pub(crate) fn print_explanation(&self) -> Result<bool> {
        if self.explain {
            let families = self.filter.normalizer(&self.target)?;
            let tree = self.filter.parse_query(self.query.as_deref(), families.as_deref())?;
            crate::cmd::print_text(&format!("{}\n", crate::cmd::args::listing::escape(&tree.to_string())))?;
        }
        Ok(self.explain)
    }

    /// Opens the store. A malformed query is a usage error.
    pub(crate) fn open(&self) -> Result<QuerySession> {
        self.filter.open(&self.target, self.query.as_deref())
    }
}
