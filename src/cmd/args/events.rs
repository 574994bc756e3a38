//! Options for events: numbers, the cluster that stores them, and how they become an event service.

use std::path::PathBuf;
use std::sync::Arc;

use super::sources::SourceArgs;
use super::units;
use crate::daemon::events::{ClusterConfig, EventServiceConfig};
use crate::daemon::settings::{EventSettings, KEEP_DAYS_MAX, Settings};
use crate::phone::PhoneNumberNormalizer;
use crate::search::cluster::EsClient;
use crate::{Error, Result};

/// Options for handling events.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Events")]
pub(crate) struct EventArgs {
    /// Country of national numbers, two letters of ISO 3166-1 [default: defaultRegion of the configuration, else national
    /// numbers are not normalized]
    #[arg(long, value_name = "REGION")]
    default_region: Option<String>,
    /// How a number in an HTTP query matches: in every dialled form, or only as it is written
    #[arg(long, value_enum, default_value_t = NumberMatch::Canonical)]
    number_match: NumberMatch,
    /// Whether the HTTP API answers queries, or only stores [default: queries of the configuration, else on]
    #[arg(long, value_enum, value_name = "on|off")]
    queries: Option<Switch>,
    /// Origin (scheme, host, port) whose web pages may use the HTTP API (CORS); repeatable [default: httpCors
    /// of the configuration, else none]
    #[arg(long, value_name = "ORIGIN", value_parser = crate::daemon::settings::check_origin)]
    http_cors: Vec<String>,
    /// Name by which clients without a user may call the HTTP API, or .DOMAIN for all names of a domain; repeatable. Addresses,
    /// names without a dot, this machine's name and its search domains always work [default: httpNames of the configuration]
    #[arg(long, value_name = "NAME")]
    http_name: Vec<String>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}

/// Options for storing events in a cluster.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Cluster")]
struct ClusterArgs {
    /// Store events in a cluster (Elasticsearch 7.17 to 9, OpenSearch 2 or 3) instead of DIR: an http or https URL such as
    /// https://USER:PASSWORD@HOST:9200. Senders get their acknowledgement when an event is in the spool (DIR/.lea/spool).
    /// Set the environment variable to keep the password out of the process list [default: cluster of the configuration,
    /// else none]
    #[arg(long, value_name = "URL", env = "LEA_CLUSTER", hide_env_values = true)]
    cluster: Option<String>,
    /// CA certificates (PEM) to verify an https cluster with [default: the system's CA certificates]
    #[arg(long, value_name = "FILE")]
    cluster_ca: Option<PathBuf>,
    /// Maximum size of the spool; senders wait while it is full
    #[arg(long, value_name = "BYTES", default_value = "4G", value_parser = parse_spool_bytes)]
    spool_bytes_max: u64,
    /// Delete events from more than N days ago: in a cluster the daily indices, in DIR the events [default: never]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=KEEP_DAYS_MAX))]
    keep_days: Option<u32>,
}

/// Minimum spool size: a bulk request must fit.
const SPOOL_BYTES_MIN: u64 = 1 << 20;

fn parse_spool_bytes(text: &str) -> Result<u64, String> {
    let bytes = units::bytes(text)?;
    if bytes < SPOOL_BYTES_MIN { Err("must be at least 1M".to_owned()) } else { Ok(bytes) }
}

/// How a number in a query matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum NumberMatch {
    /// In every dialled form
    Canonical,
    /// Only as it is written
    Exact,
}

impl ClusterArgs {
    /// Combines options and configuration; options win.
    fn resolve(&self, configured: &EventSettings) -> Result<Option<ClusterConfig>> {
        let url = self.cluster.as_deref().or(configured.cluster.as_deref()).filter(|url| !url.is_empty());
        let ca = self.cluster_ca.as_deref().or(configured.cluster_ca.as_deref());
        let keep_days = self.keep_days.or(configured.keep_days);
        let Some(url) = url else {
            return match &self.cluster_ca {
                None => Ok(None),
                Some(_) => Err(Error::Usage("--cluster-ca requires --cluster".to_owned())),
            };
        };
        let client = EsClient::new("--cluster", url, None, ca)?;
        if client.url_indices().is_some() {
            let why = "--cluster: the URL must not contain an index; set index names in the configuration";
            return Err(Error::Usage(why.to_owned()));
        }
        Ok(Some(ClusterConfig { client, spool_bytes_max: self.spool_bytes_max, keep_days }))
    }
}

impl EventArgs {
    /// Combines options and configuration; options win. Returns `None` if no source is switched on.
    pub(crate) fn resolve(
        &self,
        settings: &Settings,
        sources: Option<SourceArgs>,
    ) -> Result<Option<EventServiceConfig>> {
        let mut events = settings.events.clone();
        if let Some(given) = sources.map(SourceArgs::into_sources).filter(|given| !given.is_empty()) {
            events.sources = given;
        }
        if let Some(queries) = self.queries {
            events.queries_off = queries == Switch::Off;
        }
        if events.sources.is_empty() {
            return Ok(None);
        }
        if !self.http_cors.is_empty() {
            events.http_cors.clone_from(&self.http_cors);
        }
        if !self.http_name.is_empty() {
            events.http_names.clone_from(&self.http_name);
        }
        for source in &events.sources {
            source.check(&events).map_err(Error::Usage)?;
        }
        let mut numbers = settings.config.numbers.clone();
        if let Some(region) = &self.default_region {
            numbers.default_region = Some(region.clone());
        }
        let normalizer =
            PhoneNumberNormalizer::new(numbers).map_err(|error| Error::Usage(error.to_string()))?;
        Ok(Some(EventServiceConfig {
            keep_days: self.cluster.keep_days.or(events.keep_days),
            cluster: self.cluster.resolve(&events)?,
            settings: events,
            normalizer: Arc::new(normalizer),
            matches_dialled_forms: self.number_match == NumberMatch::Canonical,
        }))
    }
}
