//! Where a question is asked, and how: a folder's store or a URL; what the commands that ask share. Main thread.
//!
//! A folder may be written to by a running lea meanwhile. To a URL the question goes as it was written: lea's own edge
//! adds the number families, and any Elasticsearch takes the text as a `query_string`. Only a cluster that a lea fills is
//! asked with the families in the question, since they stand in its events.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::Utc;
use serde_json::{Value, json};

use self::client::{Client, Kind};
use super::event_service::NumberMatch;
use super::zone::Zone;
use crate::config::{self, Effective};
use crate::iri::number::{self, Families};
use crate::iri::query::query_string::{self, Options};
use crate::iri::query::{
    Aggregation, Bound, Fields, Found, Query, Search, Sort, SortKey, SourceFilter, Value as Term,
};
use crate::iri::store::elastic::{ADDED_TIME, dsl};
use crate::iri::store::sqlite::{SqliteStore, StoreConfig};
use crate::iri::store::{Store, StoreError};
use crate::{Error, Result};

pub mod client;
mod walk;

pub use walk::PAGE;

pub use crate::iri::store::EVENT_TIME;

/// The field that has the time where another server than lea is asked.
const TIME_ELSEWHERE: &str = "@timestamp";

/// Where to ask.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Where")]
pub struct WhereArgs {
    /// The folder that a receiver writes to (its --output), or http:// or https://USER:PASSWORD@HOST:9200 of a lea, an
    /// Elasticsearch or an OpenSearch; a password is better given in the environment
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
    /// Trust the certificates in this file (PEM), rather than the world's, where the URL is one of https
    #[arg(long, value_name = "FILE")]
    pub store_ca: Option<PathBuf>,
    /// Configuration file; says how numbers are read [default: config/configurationFile.conf]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Which events are asked for.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Which")]
pub struct WhichArgs {
    /// Only events since then: a span back from now (90s, 15m, 2h, 2d, 1w), a date or a time
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only events before then
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Only in these indices, with * for any characters [default: all]
    #[arg(long, value_name = "INDEX", value_delimiter = ',')]
    pub index: Vec<String>,
    /// Whether a number finds all its spellings (a lea behind a URL has an option of its own for it)
    #[arg(long, value_enum, default_value_t = NumberMatch::Families)]
    pub number_match: NumberMatch,
    /// The field that has an event's time (by default the one that lea fills; @timestamp where it fills none)
    #[arg(long, value_name = "FIELD")]
    pub time_field: Option<String>,
    /// The time zone of times and days, shown and given: local, utc, or an offset like +01:00
    #[arg(long, value_name = "ZONE", default_value = "local", allow_hyphen_values = true, value_parser = Zone::parse)]
    pub time_zone: Zone,
}

/// A span of time, milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The first.
    pub from_ms: Option<i64>,
    /// The first that is no longer in it.
    pub to_ms: Option<i64>,
}

/// A question and the place where it is asked.
pub struct Asked {
    place: Place,
    indices: Vec<String>,
    /// As it was written; none: all events.
    text: Option<String>,
    /// The same as a tree, with number families where this process adds them.
    tree: Query,
    /// The span that was asked for.
    pub span: Span,
    /// The time zone of all that is shown.
    pub zone: Zone,
    time_field: String,
    families: Option<Arc<Families>>,
}

/// What is asked besides the question.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Of which time.
    pub span: Span,
    /// The order; empty: as they were stored.
    pub sort: Vec<Sort>,
    /// How many hits.
    pub size: usize,
    /// The sort values of the last hit of the page before.
    pub after: Option<Vec<Value>>,
    /// What is counted.
    pub aggregations: Vec<(String, Aggregation)>,
}

enum Place {
    Folder(Box<SqliteStore>, PathBuf),
    Url(Client),
}

impl WhereArgs {
    /// True if it is a URL.
    pub fn is_url(&self) -> bool {
        self.store.contains("://")
    }

    /// A client of the URL; nothing is asked yet.
    pub fn client(&self) -> Result<Client> {
        Client::new(&self.store, None, self.store_ca.as_deref())
    }

    /// Refuses what is for a URL.
    pub fn check_folder(&self) -> Result<()> {
        match self.store_ca {
            None => Ok(()),
            Some(_) => Err(Error::Usage("--store-ca: --store is no https URL".to_owned())),
        }
    }

    /// The configuration.
    pub fn configured(&self) -> Result<Effective> {
        let configured = config::load(self.config.as_deref(), &config::environment)?;
        configured.log_warnings();
        Ok(configured)
    }
}

/// How numbers are read.
pub fn families(configured: &Effective) -> Result<Arc<Families>> {
    let families = Families::new(configured.numbers.clone());
    families.map(Arc::new).map_err(|invalid| Error::Usage(format!("parameters.numbers: {invalid}")))
}

impl WhichArgs {
    /// Reads the question, without asking it.
    pub fn tree(&self, text: Option<&str>, families: Option<&Families>) -> Result<Query> {
        let tree = match text {
            None => Query::All,
            Some(text) => query_string::parse(text, &Options::default())
                .map_err(|error| Error::Usage(format!("QUERY: {error}")))?,
        };
        Ok(match families {
            Some(families) => number::expand(tree, families),
            None => tree,
        })
    }

    /// The span that is asked for.
    pub fn span(&self) -> Result<Span> {
        let now_ms = Utc::now().timestamp_millis();
        let time = |option: &str, text: &Option<String>| {
            let read = text.as_deref().map(|text| self.time_zone.read(text, now_ms)).transpose();
            read.map_err(|error| Error::Usage(format!("{option}: {error}")))
        };
        Ok(Span { from_ms: time("--since", &self.since)?, to_ms: time("--until", &self.until)? })
    }

    /// Opens the place for a question; a question that cannot be read is wrong usage.
    pub fn open(&self, place: &WhereArgs, text: Option<&str>) -> Result<Asked> {
        let families = self.families(place)?;
        let tree = self.tree(text, families.as_deref())?;
        let span = self.span()?;
        let (place, time_field) = if place.is_url() {
            let client = place.client()?;
            let kind = client.kind(&self.index)?;
            if kind == Kind::Lea && self.number_match == NumberMatch::Exact {
                return Err(Error::Usage(
                    "--number-match exact: behind a URL, lea's own --number-match decides; ask a sub-field \
                     (destNum.keyword:...) for a spelling"
                        .to_owned(),
                ));
            }
            let time_field = match kind {
                Kind::Lea => EVENT_TIME,
                Kind::Filled => ADDED_TIME,
                Kind::Other => TIME_ELSEWHERE,
            };
            (Place::Url(client), time_field)
        } else {
            place.check_folder()?;
            let dir = PathBuf::from(&place.store);
            let store = open_folder(&dir, families.as_ref())?;
            (Place::Folder(Box::new(store), dir), EVENT_TIME)
        };
        Ok(Asked {
            place,
            indices: self.index.clone(),
            text: text.map(str::to_owned),
            tree,
            span,
            zone: self.time_zone,
            time_field: self.time_field.clone().unwrap_or_else(|| time_field.to_owned()),
            families,
        })
    }

    /// None where numbers are the text that they are.
    pub fn families(&self, place: &WhereArgs) -> Result<Option<Arc<Families>>> {
        let families = families(&place.configured()?)?;
        Ok((self.number_match == NumberMatch::Families).then_some(families))
    }
}

fn open_folder(dir: &Path, families: Option<&Arc<Families>>) -> Result<SqliteStore> {
    let config = StoreConfig::default();
    let config = match families {
        Some(families) => config.with_families(Arc::clone(families)),
        None => config,
    };
    SqliteStore::open_read_only(dir, config)
}

/// An order by one field.
pub fn by_field(field: &str, descending: bool) -> Sort {
    Sort { key: SortKey::Field(field.to_owned()), descending, missing_first: false, unmapped_type: None }
}

/// The order of storing.
pub fn as_stored(descending: bool) -> Sort {
    Sort { key: SortKey::Stored, descending, missing_first: false, unmapped_type: None }
}

impl Asked {
    /// How many events of a span fit.
    pub fn count(&self, span: Span) -> Result<u64> {
        match &self.place {
            Place::Folder(store, dir) => {
                let counted = store.count(&self.indices, false, &self.query(span));
                counted.map_err(|error| failed(dir, error))
            }
            Place::Url(client) => client.count(&self.indices, &json!({"query": self.body(client, span)})),
        }
    }

    /// A page of events, or what is counted over all of them.
    pub fn page(&self, page: &Page) -> Result<Found> {
        match &self.place {
            Place::Folder(store, dir) => {
                let search = Search {
                    indices: self.indices.clone(),
                    ignore_unavailable: false,
                    query: self.query(page.span),
                    sort: page.sort.clone(),
                    from: 0,
                    size: page.size,
                    after: page.after.clone(),
                    source: SourceFilter::default(),
                    aggregations: page.aggregations.clone(),
                    typed_keys: false,
                };
                store.search(&search).map_err(|error| failed(dir, error))
            }
            Place::Url(client) => {
                client.search(&self.indices, self.body(client, page.span), page, &self.time_field)
            }
        }
    }

    /// The same with another name for the field, where a field is words and cannot be ordered or counted by value: the
    /// mapping that is made for new fields has the whole value beside it.
    pub fn page_by(&self, field: &str, page: impl Fn(&str) -> Page) -> Result<Found> {
        match self.page(&page(field)) {
            Err(error @ Error::Asked { .. }) if is_about_words(&error) => {
                self.page(&page(&format!("{field}.keyword"))).map_err(|_| error)
            }
            found => found,
        }
    }

    /// The field that has the events' time.
    pub fn time_field(&self) -> &str {
        &self.time_field
    }

    /// How numbers are read; none: as they are.
    pub fn number_families(&self) -> Option<&Families> {
        self.families.as_deref()
    }

    /// True where the order of storing can be followed: in a folder, and behind lea's own edge.
    pub fn has_sequence(&self) -> bool {
        match &self.place {
            Place::Folder(..) => true,
            Place::Url(client) => client.known_kind() == Some(Kind::Lea),
        }
    }

    /// True behind a URL of something that is no lea, and that none fills.
    pub fn is_elsewhere(&self) -> bool {
        matches!(&self.place, Place::Url(client) if client.known_kind() == Some(Kind::Other))
    }

    fn query(&self, span: Span) -> Query {
        let bound =
            |ms: Option<i64>, make: fn(Term) -> Bound| ms.map_or(Bound::Open, |ms| make(Term::Long(ms)));
        if span == Span::default() {
            return self.tree.clone();
        }
        let range = Query::Range {
            fields: Fields::Named(vec![self.time_field.clone()]),
            from: bound(span.from_ms, Bound::Included),
            to: bound(span.to_ms, Bound::Excluded),
            format: Some("epoch_millis".to_owned()),
            zone_minutes: 0,
        };
        let must = vec![self.tree.clone(), range];
        Query::Bool { must, should: vec![], must_not: vec![], should_min: 0 }
    }

    fn body(&self, client: &Client, span: Span) -> Value {
        if client.known_kind() == Some(Kind::Filled) {
            return dsl::query(&self.query(span));
        }
        let query = match &self.text {
            Some(text) => json!({"query_string": {"query": text}}),
            None => json!({"match_all": {}}),
        };
        if span == Span::default() {
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

/// Texts are neither ordered nor counted by value; every server says it in its own words.
fn is_about_words(error: &Error) -> bool {
    let text = error.to_string();
    text.contains("optimised") || text.contains("Fielddata is disabled")
}

fn failed(dir: &Path, error: StoreError) -> Error {
    Error::Asked { store: dir.display().to_string(), cause: error.to_string() }
}

/// A question, and where it goes.
#[derive(Debug, clap::Args)]
pub struct QuestionArgs {
    /// The question [default: all events]
    #[arg(value_name = "QUERY")]
    query: Option<String>,
    #[command(flatten)]
    place: WhereArgs,
    #[command(flatten)]
    which: WhichArgs,
    /// Print how the question is read, and do not ask it
    #[arg(long)]
    explain: bool,
}

impl QuestionArgs {
    /// Prints how the question is read, if that is all that was wanted.
    pub fn is_explained(&self) -> Result<bool> {
        if self.explain {
            let families = self.which.families(&self.place)?;
            let tree = self.which.tree(self.query.as_deref(), families.as_deref())?;
            super::print_data(&format!("{}\n", super::stored::harmless(&tree.to_string())))?;
        }
        Ok(self.explain)
    }

    /// Opens the place for the question; one that cannot be read is wrong usage.
    pub fn open(&self) -> Result<Asked> {
        self.which.open(&self.place, self.query.as_deref())
    }
}
