//! Options that select the configuration file.

use std::path::PathBuf;

use crate::Result;
use crate::config;
use crate::daemon::settings::Settings;

/// Options for the configuration file.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct ConfigArgs {
    /// Configuration file [default: config/configurationFile.conf]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Accept unknown keys in the configuration file, with a warning
    #[arg(long)]
    pub(crate) lenient: bool,
}

impl ConfigArgs {
    /// Loads the configuration; environment variables override the file.
    pub(crate) fn load(&self) -> Result<Settings> {
        Settings::load(self.config.as_deref(), self.lenient, &config::environment)
    }
}
