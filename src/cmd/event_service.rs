//! What `lea run` and `lea serve-events` share for events: options, the store, the listeners around it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cc::vault::Vault;
use crate::config::Effective;
use crate::config::events::{Events, SyslogListen};
use crate::counters::Counters;
use crate::http;
use crate::iri::letters::Letters;
use crate::iri::number::{self, Families};
use crate::iri::source::intake::Intake;
use crate::iri::source::{Sources, SourcesConfig};
use crate::iri::store::Store;
use crate::iri::store::sqlite::{SqliteStore, StoreConfig};
use crate::stop::Stop;
use crate::{Error, Result};

/// Where events are received.
#[derive(Debug, clap::Args)]
pub struct ListenArgs {
    /// Take JSON lines here, events and content of streams; a bare port is one of 127.0.0.1, 0 takes a free one. The
    /// usual port is 5959
    #[arg(long, value_name = "ADDR:PORT", value_parser = listen)]
    lines: Option<SocketAddr>,
    /// Take JSON lines with content of streams alone here. The usual port is 5960
    #[arg(long, value_name = "ADDR:PORT", value_parser = listen)]
    data_lines: Option<SocketAddr>,
    /// Take syslog here, udp:ADDR:PORT or tcp:ADDR:PORT; repeatable
    #[arg(long, value_name = "udp|tcp:ADDR:PORT", value_parser = SyslogListen::parse)]
    syslog: Vec<SyslogListen>,
}

/// How events are received.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Events")]
pub struct EventArgs {
    /// Read national numbers as those of this country, two letters of ISO 3166-1 [default: defaultRegion of the
    /// configuration, else they are left alone]
    #[arg(long, value_name = "REGION")]
    default_region: Option<String>,
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    http::listen_address(text).map_err(|error| error.to_string())
}

/// What is received, checked.
pub struct EventConfig {
    listen: Events,
    numbers: number::Settings,
}

impl EventConfig {
    /// Options over the configuration; none if nothing is to be received.
    pub fn resolve(
        config: &Effective,
        listen: Option<&ListenArgs>,
        events: &EventArgs,
    ) -> Result<Option<EventConfig>> {
        let mut received = config.events.clone();
        if let Some(given) = listen.filter(|given| !given.is_empty()) {
            let ListenArgs { lines, data_lines, syslog } = given;
            let (lines, data_lines, syslog) = (*lines, *data_lines, syslog.clone());
            received = Events { lines, data_lines, syslog, http: None, ..received };
        }
        if received.is_off() {
            return Ok(None);
        }
        let mut numbers = config.numbers.clone();
        if let Some(region) = &events.default_region {
            numbers.default_region = Some(region.clone());
        }
        numbers.check().map_err(|error| Error::Usage(error.to_string()))?;
        Ok(Some(EventConfig { listen: received, numbers }))
    }

    /// Opens the store of a folder.
    pub fn open(&self, dir: &Path) -> Result<Arc<SqliteStore>> {
        let families =
            Families::new(self.numbers.clone()).map_err(|error| Error::Usage(error.to_string()))?;
        let family = move |field: &str, value: &str| {
            let canonical = families.is_number_field(field).then(|| families.canonical(value)).flatten();
            canonical.map(|canonical| canonical.number().to_owned())
        };
        let config = StoreConfig { family: Arc::new(family), ..StoreConfig::default() };
        SqliteStore::open(dir, config).map(Arc::new)
    }

    /// Listens until the stop.
    pub fn spawn(&self, start: &EventStart<'_>) -> Result<EventService> {
        let letters = Letters::new(start.dir);
        let store: Arc<dyn Store> = start.store.clone();
        let intake = Arc::new(Intake::new(store, letters, Arc::clone(start.counters)));
        let config = SourcesConfig {
            lines: self.listen.lines,
            data_lines: self.listen.data_lines,
            syslog: self.listen.syslog.clone(),
            patterns: self.listen.patterns.clone(),
            definitions: self.listen.definitions.clone(),
            indices: self.listen.indices.clone(),
            drain: start.drain,
        };
        let sources = Sources::spawn(&config, intake, start.vault, start.stop)?;
        Ok(EventService { sources })
    }
}

impl ListenArgs {
    fn is_empty(&self) -> bool {
        self.lines.is_none() && self.data_lines.is_none() && self.syslog.is_empty()
    }
}

/// What the listeners need.
pub struct EventStart<'a> {
    /// The output folder.
    pub dir: &'a Path,
    /// Its store.
    pub store: Arc<SqliteStore>,
    /// Its vault.
    pub vault: &'a Vault,
    /// What is counted.
    pub counters: &'a Arc<Counters>,
    /// After the stop, how long what a peer still sends is taken.
    pub drain: Duration,
    /// Ends the listeners.
    pub stop: &'a Stop,
}

/// Listeners that run.
pub struct EventService {
    sources: Sources,
}

impl EventService {
    /// From `at` on a store that does not take events is not waited for any more.
    pub fn give_up_at(&self, at: Instant) {
        self.sources.give_up_at(at);
    }

    /// Waits until the stop was asked for, and all that came is stored.
    pub fn join(self) -> Result<()> {
        self.sources.join()
    }
}
