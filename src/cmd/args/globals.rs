//! The options that every command accepts.

use clap::ArgAction;

use crate::runtime::logging::LevelFilter;

/// Options of the log.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Log")]
pub(crate) struct Globals {
    /// Log more: DEBUG
    #[arg(short, long, action = ArgAction::Count, global = true, conflicts_with = "quiet", display_order = 900)]
    pub(crate) verbose: u8,
    /// Log less: once for warnings and errors, twice for errors only
    #[arg(short, long, action = ArgAction::Count, global = true, display_order = 901)]
    pub(crate) quiet: u8,
}

impl Globals {
    /// Returns the log level: from -v and -q if given, else from the configuration.
    pub(crate) fn level(&self, configured: LevelFilter) -> LevelFilter {
        match (self.verbose, self.quiet) {
            (0, 0) => configured,
            (0, 1) => LevelFilter::Warn,
            (0, _) => LevelFilter::Error,
            (_, _) => LevelFilter::Debug,
        }
    }
}
