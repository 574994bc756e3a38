//! The options that all query commands share: the query, the store, the selection of events. Main thread.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::config::ConfigArgs;
use crate::cmd::args::events::NumberMatch;
use crate::cmd::args::time_zone::TimeZoneArg;
use crate::cmd::args::units;
use crate::daemon::settings::Settings;
use crate::phone::PhoneNumberNormalizer;
use crate::runtime::terminal::escape;
use crate::search::source::{
    FOREIGN_TIME_FIELD, QuerySession, SessionOptions, SourceTarget, TimeRange, parse_query,
};
use crate::{Error, Result};

/// Options that name the store.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Store")]
pub(crate) struct StoreTargetArgs {
    /// Output directory of a receiver, or the URL of a lea, Elasticsearch or OpenSearch:
    /// https://USER:PASSWORD@HOST:9200 (or http). Prefer the environment variable for a URL with a password
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
    #[command(flatten)]
    pub access: StoreAccessArgs,
}

/// Options for access to a store, wherever it is.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Where")]
pub(crate) struct StoreAccessArgs {
    /// CA certificates (PEM) for https URLs [default: those of the system]
    #[arg(long, value_name = "FILE")]
    store_ca: Option<PathBuf>,
    /// How long to wait for a server that is unreachable or overloaded
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = units::duration_in(0..=86_400_000))]
    connect_timeout: Duration,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Options that select events.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Selection")]
pub(crate) struct EventFilterArgs {
    /// Only events at or after TIME: a duration before now (90s, 15m, 2h, 2d, 1w), yesterday, today, now, a
    /// date or a time
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only events before TIME
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Only events in these indices; * matches any characters [default: all]
    #[arg(long, value_name = "INDEX", value_delimiter = ',')]
    pub index: Vec<String>,
    /// Whether a phone number matches all its dialled forms, or only the one given. A lea behind a URL decides
    /// this by its own option
    #[arg(long, value_enum, default_value_t = NumberMatch::Canonical)]
    pub number_match: NumberMatch,
    /// Field with the time of an event. Default: the time that lea adds; on other servers @timestamp
    #[arg(long, value_name = "FIELD")]
    pub time_field: Option<String>,
    /// Time zone of input and output: local, utc, or an offset such as +01:00
    #[arg(long, value_name = "ZONE", default_value = "local", allow_hyphen_values = true, value_parser = TimeZoneArg::parse)]
    pub time_zone: TimeZoneArg,
}

impl StoreTargetArgs {
    pub(crate) fn target(&self) -> SourceTarget {
        self.target_at(&self.store)
    }

    /// The target with another location.
    pub(crate) fn target_at(&self, location: &str) -> SourceTarget {
        SourceTarget {
            location: location.to_owned(),
            ca: self.access.store_ca.clone(),
            connect_timeout: self.access.connect_timeout,
        }
    }

    pub(crate) fn load_settings(&self) -> Result<Settings> {
        let settings = self.access.config.load()?;
        settings.config.log_warnings();
        Ok(settings)
    }
}

/// Creates the normalizer from the configuration.
pub(crate) fn load_normalizer(settings: &Settings) -> Result<Arc<PhoneNumberNormalizer>> {
    let normalizer = PhoneNumberNormalizer::new(settings.config.numbers.clone());
    normalizer.map(Arc::new).map_err(|error| Error::Usage(format!("parameters.numbers: {error}")))
}

impl EventFilterArgs {
    pub(crate) fn time_range(&self) -> Result<TimeRange> {
        let now_ms = crate::runtime::time::now_ms();
        let time = |option: &str, text: &Option<String>| {
            let read = text.as_deref().map(|text| self.time_zone.parse_time(text, now_ms)).transpose();
            read.map_err(|error| Error::Usage(format!("{option}: {error}")))
        };
        Ok(TimeRange { from_ms: time("--since", &self.since)?, to_ms: time("--until", &self.until)? })
    }

    /// The normalizer; `None` for `--number-match exact`.
    pub(crate) fn normalizer(&self, store: &StoreTargetArgs) -> Result<Option<Arc<PhoneNumberNormalizer>>> {
        let normalizer = load_normalizer(&store.load_settings()?)?;
        Ok((self.number_match == NumberMatch::Canonical).then_some(normalizer))
    }

    /// Collects the options of a query.
    pub(crate) fn session_options(&self, store: &StoreTargetArgs) -> Result<SessionOptions> {
        Ok(SessionOptions {
            target: store.target(),
            indices: self.index.clone(),
            range: self.time_range()?,
            time_field: self.time_field.clone(),
            foreign_time_field: FOREIGN_TIME_FIELD,
            normalizer: self.normalizer(store)?,
        })
    }

    /// Opens the store. A malformed query is a usage error.
    pub(crate) fn open(&self, store: &StoreTargetArgs, text: Option<&str>) -> Result<QuerySession> {
        QuerySession::open(&self.session_options(store)?, text)
    }
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
    /// Returns the parsed query as text if --explain is given.
    pub(crate) fn explanation(&self) -> Result<Option<String>> {
        if !self.explain {
            return Ok(None);
        }
        let normalizer = self.filter.normalizer(&self.target)?;
        let query = parse_query(self.query.as_deref(), normalizer.as_deref())?;
        Ok(Some(escape(&query.to_string())))
    }

    /// Opens the store. A malformed query is a usage error.
    pub(crate) fn open(&self) -> Result<QuerySession> {
        self.filter.open(&self.target, self.query.as_deref())
    }

    /// Time zone of the output.
    pub(crate) fn time_zone(&self) -> TimeZoneArg {
        self.filter.time_zone
    }
}
