//! Settings of a daemon: the configuration and its section `parameters.events`, which exists only in the file.

mod describe;
mod events;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::sources::IngestSource;
use crate::Result;
use crate::config::{self, ConfigLayers, EffectiveConfig, EnvLookup, FileLayer};
use crate::http::basic_auth::User;
use crate::iri::event::EventIndices;

pub(crate) use events::{KEEP_DAYS_MAX, check_origin, described_keys as described_event_keys};

/// The configuration with all of its sections.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub config: EffectiveConfig,
    pub events: EventSettings,
}

impl Settings {
    /// Loads the configuration without flags, and its sections. `is_lenient` makes unknown keys warnings.
    pub(crate) fn load(path: Option<&Path>, is_lenient: bool, env: EnvLookup<'_>) -> Result<Settings> {
        let mut file = config::read_layer(path)?;
        let events = file.as_mut().map(EventSettings::read).unwrap_or_default();
        let (config, errors) =
            config::resolve(&ConfigLayers { flags: &[], env, file: file.as_ref(), is_lenient });
        config::fail_on_findings(file.as_ref(), &errors)?;
        Ok(Settings { config, events })
    }
}

/// The section `parameters.events`.
#[derive(Clone, Debug, Default)]
pub(crate) struct EventSettings {
    /// The event sources that are switched on.
    pub sources: Vec<Arc<dyn IngestSource>>,
    /// Users of the HTTP API.
    pub users: Vec<User>,
    /// Further names of the HTTP API.
    pub http_names: Vec<String>,
    /// Origins whose web pages may use the HTTP API.
    pub http_cors: Vec<String>,
    /// Patterns for syslog messages in order; if empty, the built-in ones are used.
    pub patterns: Vec<String>,
    /// Name and pattern of named patterns.
    pub definitions: Vec<(String, String)>,
    pub indices: EventIndices,
    /// The HTTP API answers no query.
    pub queries_off: bool,
    /// URL of the cluster that stores events.
    pub cluster: Option<String>,
    /// File with the CA certificates for the cluster.
    pub cluster_ca: Option<PathBuf>,
    /// Days after which the cluster's daily indices are deleted.
    pub keep_days: Option<u32>,
}

impl EventSettings {
    /// Reads the section of a file. Errors become findings of the file.
    pub(crate) fn read(file: &mut FileLayer) -> EventSettings {
        let mut settings = EventSettings::default();
        if let Some(node) = file.section(events::PATH) {
            let read = events::read(node, &mut settings);
            file.add_section_findings(read);
        }
        settings
    }
}
